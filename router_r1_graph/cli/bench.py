"""`router-r1 bench`: files and measures of public benchmarks of routers; no candidate is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..console import make_console, print_note
from ..errors import ConfigError, MissingExtraError
from ..files import require_file, require_folder
from ..outside import visible
from ..words import counted, plain, rounded
from .data_options import CandidatesOption, note_columns, read_names
from .options import about, load_pool, print_json

if TYPE_CHECKING:
    from ..candidates import CandidatePool
    from ..evaluation.predictions import Predictions
    from ..evaluation.router_arena import ArenaResult
    from ..evaluation.router_bench import BenchSet

ARENA_EXAMPLES = """[bold]Examples[/bold]

router-r1 bench routerarena dataset/router_data_10.json \\
  --robustness dataset/router_robustness.json --pool mine.yaml \\
  --controller auto:runs/auto --name mine --out router_inference

# measured again:
router-r1 bench routerarena router_inference/predictions/mine.json \\
  --robustness router_inference/predictions/mine-robustness.json
"""
EVAL_EXAMPLES = """[bold]Examples[/bold]

router-r1 bench routereval scores.csv --controller auto:runs/auto \\
  --controller random

router-r1 bench routereval scores.jsonl --split test \\
  --predictions theirs.json --reference gpt-4
"""
BENCH_EXAMPLES = """[bold]Examples[/bold]

router-r1 bench routerbench routerbench_0shot.csv --controller knn:runs/knn \\
  --cost-weight 0 --cost-weight 0.5 --out table.csv
"""

_ControllersOption = Annotated[
    list[str] | None, typer.Option("--controller", help="A controller that predicts. Repeatable.")
]
_PredictionsOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="A .json or .jsonl file with the predictions of another router: prompt and "
        "prediction. Repeatable."
    ),
]
_PoolOption = Annotated[
    str | None,
    typer.Option(
        help="The pool with the candidates and their prices.",
        show_default="the candidates of the file",
    ),
]
_JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def routerarena(
    data: Annotated[
        Path,
        typer.Argument(help="RouterArena's data set, or a file of predictions to be measured."),
    ],
    robustness: Annotated[
        Path | None, typer.Option(help="The reworded prompts, or the predictions for them.")
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="The pool with the candidates and their prices.")
    ] = None,
    controller: Annotated[str | None, typer.Option(help="The controller that predicts.")] = None,
    cost_weight: Annotated[
        float,
        typer.Option(metavar="N", min=0, max=1, help="The cost weight that the controller gets."),
    ] = 0.0,
    name: Annotated[
        str, typer.Option(help="The name of the router in the submission.")
    ] = "router-r1",
    out: Annotated[
        Path | None, typer.Option(help="The folder to write: RouterArena's router_inference.")
    ] = None,
    as_json: _JsonOption = False,
) -> None:
    """Write a submission to RouterArena, or measure one: robustness, and the score once judged."""
    with _needs_numpy("routerarena"):
        from ..evaluation.router_arena import judge_submission, read_arena, submit
    prompts = read_arena(data)
    reworded = read_arena(robustness) if robustness else []
    if controller is None:
        if unmade := sum(not entry.prediction for entry in (*prompts, *reworded)):
            raise ConfigError(
                f"{data}: {counted(unmade, 'prompt')} without a prediction; --controller, --pool "
                "and --out make them"
            )
        _show_arena(judge_submission(prompts, reworded), as_json)
        return
    if pool is None or out is None:
        raise ConfigError("bench routerarena: --controller also needs --pool and --out")
    require_folder("--out", out)
    result, found = submit(
        name, controller, load_pool(pool), prompts, reworded, out, cost_weight=cost_weight
    )
    _note_others([found])
    _show_arena(result, as_json)
    print(f"{name}: {out}/config/{name}.json, {out}/predictions/{name}.json", file=sys.stderr)


def routereval(
    data: Annotated[Path, typer.Argument(help="Scores, as router-r1 fit takes them.")],
    controller: _ControllersOption = None,
    predictions: _PredictionsOption = None,
    pool: _PoolOption = None,
    candidates: CandidatesOption = "",
    split: Annotated[str | None, typer.Option(help="Take only data of this split.")] = None,
    metric: Annotated[
        str, typer.Option(help="The metric for traces and replies, which have no scores.")
    ] = "exact_match",
    reference: Annotated[
        str | None, typer.Option(help="The reference of V_R: a candidate, or a score above 0.")
    ] = None,
    as_json: _JsonOption = False,
) -> None:
    """Print RouterEval's measures of routers: mu, V_R, V_B and E_p."""
    with _needs_numpy("routereval"):
        from ..evaluation.router_eval import router_eval
        from ..evaluation.scorers import parse_scorer
        from ..evaluation.scores import load_scores
    with about("--metric"):
        parse_scorer(metric)
    known, only = load_pool(pool) if pool else None, read_names(candidates)
    matrix = load_scores(data, known, split=split, metric=metric, candidates=only)
    found = _predicted(controller, predictions, matrix.pool, matrix.questions)
    rows = router_eval(matrix, found, reference)
    note_columns(data, known, {}, only)
    _note_others(found)
    if as_json:
        routers = [asdict(row) for row in rows]
        print_json({"questions": len(matrix.questions), "routers": routers})
        return
    table = _table("router", "mu", "V_R", "V_B", "E_p")
    for row in rows:
        numbers = ("-" if n is None else rounded(n, 3) for n in (row.mu, row.v_r, row.v_b, row.e_p))
        table.add_row(Text(visible(row.router)), *numbers)
    make_console().print(table)
    print(
        f"{counted(len(matrix.questions), 'question')}. mu: mean score; V_R: mu / the reference's; "
        "V_B: mu / the best candidate's; E_p: entropy of the router's probabilities, in bits"
    )


def routerbench(
    data: Annotated[Path, typer.Argument(help="RouterBench's CSV.")],
    controller: _ControllersOption = None,
    predictions: _PredictionsOption = None,
    pool: _PoolOption = None,
    candidates: CandidatesOption = "",
    cost_weight: Annotated[
        list[float] | None,
        typer.Option(
            metavar="N",
            min=0,
            max=1,
            help="A cost weight. Repeatable: several give a curve.",
            show_default="0",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A .csv file to write: the table of each data set.")
    ] = None,
    as_json: _JsonOption = False,
) -> None:
    """Print the table of a RouterBench CSV: performance and cost by model, router and data set."""
    with _needs_numpy("routerbench"):
        from ..evaluation.router_bench import areas, bench_table, by_set, read_bench, write_table
    require_file("--out", out)
    known, only = load_pool(pool) if pool else None, read_names(candidates)
    sets = read_bench(data, known, only)
    noted: list[Predictions] = []

    def routers(one: BenchSet) -> list[tuple[Predictions, float]]:
        matrix, found = one.matrix, []
        for number, weight in enumerate(cost_weight or [0.0]):
            files = predictions if number == 0 else None  # these do not read the cost weight
            made = _predicted(controller, files, matrix.pool, matrix.questions, weight)
            found += [(each, weight) for each in made]
        noted.extend(each for each, _ in found)
        return found

    rows = bench_table(sets, routers if controller or predictions else lambda _: ())
    note_columns(data, known, {}, only)
    _note_others(noted)
    if out is not None:
        try:
            write_table(rows, out)
        except OSError as error:
            raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    grouped = by_set(rows)
    aiq = {name: areas(own) for name, own in grouped.items()}
    if as_json:
        print_json({"rows": [asdict(row) for row in rows], "aiq": aiq})
        return
    *each, whole = grouped
    table = _table("model", "cost weight", "performance", "total cost, $")
    for row in grouped[whole]:
        weight = "" if row.cost_weight is None else plain(row.cost_weight)
        cost = plain(row.total_cost, 4)
        table.add_row(Text(visible(row.model_name)), weight, rounded(row.performance, 3), cost)
    make_console().print(table)
    found = ", ".join(f"{visible(name)} {rounded(area, 3)}" for name, area in aiq[whole].items())
    print(f"AIQ (area under cost and performance): {found}")
    if each:
        print(f"{counted(len(each), 'data set')} together; each of them: --out table.csv")


@contextmanager
def _needs_numpy(command: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(f"router-r1 bench {command}", "eval", error) from error


def _predicted(
    controllers: Sequence[str] | None,
    files: Sequence[Path] | None,
    pool: CandidatePool,
    questions: Sequence[str],
    cost_weight: float = 0.0,
) -> list[Predictions]:
    """Return the predictions of controllers, and those in files."""
    from ..evaluation.predictions import predict, read_predictions

    if not (controllers or files):
        raise ConfigError("name what predicts: --controller SPEC or --predictions FILE")
    found = [predict(spec, pool, questions, cost_weight=cost_weight) for spec in controllers or ()]
    return found + [read_predictions(file, pool, questions) for file in files or ()]


def _note_others(predictions: Sequence[Predictions]) -> None:
    """Print on standard error if a router does more than a benchmark of choices can show."""
    for name in dict.fromkeys(found.router for found in predictions if found.others):
        others = sum(found.others for found in predictions if found.router == name)
        print_note(
            f"note: {name} asks several candidates, none, or in other words, on "
            f"{counted(others, 'question')}; the first one counts here, or the most probable one"
        )


def _show_arena(result: ArenaResult, as_json: bool) -> None:
    if as_json:
        print_json(asdict(result))
        return
    print(counted(result.prompts, "prediction"))
    if result.robustness is not None:
        reworded = counted(result.reworded, "reworded prompt")
        print(f"robustness {rounded(result.robustness, 4)} ({reworded})")
    if result.accuracy is not None:
        print(f"accuracy {rounded(result.accuracy, 4)}")
    if result.usd_per_1000 is not None:
        print(f"cost ${plain(result.usd_per_1000, 4)} for 1,000 prompts")
    if result.score is not None:
        print(f"RouterArena score {rounded(result.score, 4)}")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table
