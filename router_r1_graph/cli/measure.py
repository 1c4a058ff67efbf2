"""`router-r1 pool measure`: measures scores, latency and prices of candidates."""

from __future__ import annotations

import difflib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..candidates import Candidate, CandidatePool
from ..candidates.pool_edit import Value, edited
from ..candidates.pool_file import SHIPPED_POOLS
from ..console import make_console
from ..context import RouterContext
from ..errors import ConfigError, PoolError, RouterR1Error
from ..files import require_file, write_whole
from ..invalid import masked
from ..outside import visible
from ..words import plain, usd
from .measured import explain, measured_table, print_estimate
from .options import MetricOption, about, load_pool
from .store_options import takes_replies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..evaluation.measuring import Measured
    from ..evaluation.probes import Probe
    from ..evaluation.scorers import Scorer
    from ..simulation import World

EXAMPLES = """[bold]Examples[/bold]

router-r1 pool measure mine.yaml --dry-run

router-r1 pool measure mine.yaml --candidate Large --budget-usd 0.20

router-r1 pool measure mine.yaml --probes questions.jsonl --out measured.yaml

router-r1 pool measure embedded --out mine.yaml
"""

_PROBES_OF_A_DOMAIN = 20
"""The number of questions about the facts of a simulated candidate's world."""


@takes_replies
def measure(
    pool: Annotated[str, typer.Argument(help="A pool file, which is changed, or a shipped pool.")],
    probes: Annotated[
        str | None,
        typer.Option(
            help="Your own questions, as for router-r1 evaluate, with a field domain: the subject.",
            show_default="100 in 10 domains; for simulated candidates facts of their world",
        ),
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option("--candidate", help="Measure this candidate only. Repeatable."),
    ] = None,
    metric: MetricOption = "contains",
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Ask only so many probes.")
    ] = None,
    budget_usd: Annotated[float, typer.Option(min=0, help="The most that it may pay.")] = 1.0,
    concurrency: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Calls at once to each; many slow it down."),
    ] = 2,
    out: Annotated[
        Path | None, typer.Option(help="Write the pool to this file instead of changing POOL.")
    ] = None,
    replies: Any = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the estimated cost; ask no candidate, and write nothing."
        ),
    ] = False,
) -> None:
    """Ask each candidate a set of probes, and write scores, latency and price into the pool file.

    Comments and all other keys of the file stay as they are.

    If the limit in USD is reached, or after Ctrl-C, the measurements so far are written.
    """
    from ..evaluation.measuring import Measured
    from ..evaluation.scorers import parse_scorer

    with about("--budget-usd"):
        RouterContext(budget_usd=budget_usd)
    whole = load_pool(pool)
    chosen = _chosen(whole, candidate)
    with about("--metric"):
        scorer = parse_scorer(metric)
    measured = [Measured(one, *_probes(_source(one, probes), limit)) for one in chosen]
    if dry_run:
        print_estimate(measured)
        return
    file = Path(whole.where)
    if out is None and file.resolve().parent == SHIPPED_POOLS.resolve():
        raise ConfigError(f"{pool} comes with the package, and is not changed: name --out FILE")
    target = file if out is None else out
    require_file("POOL" if out is None else "--out", target)
    whole.require_keys(but={c.name for c in whole.candidates} - {c.name for c in chosen})
    _try_to_write(whole, target, [one.name for one in chosen])
    finished = _ask(measured, scorer, budget_usd, concurrency, replies)
    console = make_console()
    if not console.is_terminal:
        console.width = 200
    console.print(measured_table(measured))
    explain(measured, budget_usd)
    found = {m.candidate.name: m.settings(date.today(), metric) for m in measured if m.scored}
    if found:
        _write(file, target, found)
    if not finished:
        kept = f"; go on with --replies {replies.path}" if replies else ""
        print(f"stopped{kept}", file=sys.stderr)
        raise SystemExit(130)
    if not found:
        print(f"router-r1: no candidate replied; {target} was not written", file=sys.stderr)
        raise SystemExit(1)


# ------------------------------------------------------------------------------ before anything


def _chosen(pool: CandidatePool, names: Sequence[str] | None) -> list[Candidate]:
    if not names:
        return list(pool.candidates)
    found: dict[str, Candidate] = {}
    for name in names:
        one = pool.find(name)
        if one is None:
            raise ConfigError(f"--candidate: {pool.unknown(name)}")
        found[one.name] = one
    return list(found.values())


def _source(candidate: Candidate, source: str | None) -> str | World:
    """Return the source of probes: a simulated candidate knows only the facts of its world."""
    from ..evaluation.probes import SHIPPED_PROBES
    from ..simulation import known_world

    if source is not None or candidate.provider != "simulated":
        return source or str(SHIPPED_PROBES)
    facts = candidate.options.get("facts")
    return known_world(str(facts) if facts else None)


@cache
def _probes(source: str | World, limit: int | None) -> tuple[list[Probe], str]:
    """Return the probes of a source, and their name."""
    from ..evaluation.probes import SHIPPED_PROBES, Probe, in_turn, read_probes
    from ..simulation import by_domain

    if isinstance(source, str):
        name = (
            "shipped probes" if source == str(SHIPPED_PROBES) else f"probes of {Path(source).name}"
        )
        return read_probes(source, limit=limit), name
    # Not of the test split: a descriptor leaks no test question.
    questions = by_domain(source, split="train", n=_PROBES_OF_A_DOMAIN, seed=0)
    probes = in_turn(Probe(q.text, q.gold, q.domains[0]) for q in questions)
    return probes[:limit], "facts of its world"


def _try_to_write(pool: CandidatePool, target: Path, names: Sequence[str]) -> None:
    """Check, before anything is paid, that the pool can be written, and used from its new place.

    Raises:
        ConfigError: its candidates share values, or it names files that are elsewhere.
    """
    from ..candidates.providers import make_chat_model

    some: dict[str, Value] = {
        **{"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0, "latency_seconds": 1.0},
        "benchmarks": {"some": 0.5},
        "measured": {"date": date.today(), "source": ""},
    }
    file = Path(pool.where)
    for name in names:  # each on its own: any of them may fail
        new = _changed(file, {name: some})[1]
    if target.resolve().parent == file.resolve().parent:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=target.parent) as moved:
        moved.write(new)
        moved.flush()
        try:
            there = CandidatePool.from_yaml(moved.name)
            for name in names:
                make_chat_model(there.candidates[_places(there)[name]])
        except RouterR1Error as error:
            why = str(error).replace(moved.name, str(target))
            raise ConfigError(
                f"--out {target}: {file} names files beside it, so write it in that folder: {why}"
            ) from error


def _places(pool: CandidatePool) -> dict[str, int]:
    return {one.name: place for place, one in enumerate(pool.candidates)}


# ------------------------------------------------------------------------------------- the calls


def _ask(
    measured: Sequence[Measured],
    scorer: Scorer,
    budget_usd: float,
    concurrency: int,
    replies: Any,
) -> bool:
    """Ask all candidates; return whether it was not interrupted."""
    from ..evaluation.loop import run
    from ..evaluation.measuring import measure

    console = make_console(stderr=True)
    with _progress(console, measured) as advance:

        def estimated(total: float) -> None:
            limit = f"; --budget-usd {plain(budget_usd)} will end it" if total > budget_usd else ""
            print(f"all probes: about {usd(total)}{limit}", file=sys.stderr)

        work = measure(
            measured,
            scorer,
            budget_usd=budget_usd,
            concurrency=concurrency,
            replies=replies,
            estimated=estimated,
            done=advance,
        )
        try:
            run(work)
        except KeyboardInterrupt:
            return False
    return True


@contextmanager
def _progress(console: Console, measured: Sequence[Measured]) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[paid]}"),
        TimeRemainingColumn(),
    )
    hidden = not console.is_interactive
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("probes", paid="", total=None)

        def advance() -> None:
            asked = [len(one.scored) + one.failures for one in measured]
            total = sum(
                count if one.ended else len(one.probes)
                for one, count in zip(measured, asked, strict=True)
            )
            paid = usd(sum(one.paid_usd for one in measured))
            progress.update(task, completed=sum(asked), total=total, paid=paid)

        yield advance


# ------------------------------------------------------------------------------------ the results


def _changed(file: Path, found: Mapping[str, Mapping[str, Value]]) -> tuple[str, str]:
    """Return the text of a pool file, before and after a change of candidates' settings."""
    text = file.read_bytes().decode()
    places = _places(CandidatePool.from_yaml(file))
    try:
        return text, edited(text, {places[n]: values for n, values in found.items() if n in places})
    except PoolError as error:
        raise PoolError(f"{file}: cannot be changed: {error}") from error


def _write(file: Path, target: Path, found: Mapping[str, Mapping[str, Value]]) -> None:
    """Write the pool file as it is now, with the measurements, and print the changed lines."""
    old, new = _changed(file, found)
    try:
        write_whole(target, new)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from error
    print()
    for line in difflib.unified_diff(
        old.splitlines(), new.splitlines(), str(file), str(target), lineterm="", n=0
    ):
        print(masked(visible(line)))
    print(f"\n{target}: written")
