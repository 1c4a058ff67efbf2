"""What a learned policy shows against the oracle, controls and itself: table of docs/results.md.

    python -m benchmarks.policy [POLICY] [--run FOLDER] [--rows known,test] [--write]

POLICY is a policy folder, or one that comes with the package (demo). `--run` names the folder of
its training, whose warm start and curve are read. Everything is greedy. The policy's traces are
kept in `--out`: after Ctrl-C, the same command goes on. Rows that are not asked for stand as they
were measured before with as many questions, else as "not run".

With 500 questions, all rows ask a policy about 5,200 questions, and its warm start about 700. On 2
cores that is a matter of minutes for the shipped policy, and of hours for one of 135M parameters:
the program times the first questions and says so. Memory is less with a smaller `--at-once`.

The oracle has the highest reward that can be reached: the cheapest calls to the right answer that
`simulation.best_plan` finds, by really asking every simulated candidate, within the run's rounds;
nobody is asked where even these are worth less than "unknown" for nothing. It knows what a question
asks, however it is worded, and counts no lucky guess, so a policy may be right more often.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from router_r1_graph import ConfigError
from router_r1_graph.errors import RouterR1Error, did_you_mean
from router_r1_graph.files import write_whole

from .policy_bench import Bench
from .policy_comparisons import Finding
from .policy_questions import ROOT, NotRunError, Setting
from .policy_rows import Row, rows_of

BEGIN, END = "<!-- policy table -->", "<!-- end of policy table -->"
NOT_RUN = "not run"


@dataclass(frozen=True)
class Check:
    """One line of the table; `met` is None where it was not measured."""

    check: str
    bar: str
    measured: str = NOT_RUN
    met: bool | None = None


def measured(row: Row, bench: Bench) -> list[Check]:
    """Return the lines of a row; they say what is lacking where it cannot be measured."""
    try:
        findings = list(row.measure(bench))
    except NotRunError as missing:
        findings = [Finding(f"{NOT_RUN}: {missing}")] * len(row.bars)
    return [
        Check(check, bar, finding.measured, None if finding.met is None else bool(finding.met))
        for (check, bar), finding in zip(row.bars, findings, strict=True)
    ]


def table(checks: Iterable[Check]) -> str:
    """Return lines in Markdown."""
    lines = ["| check | bar | measured, 95% interval | met? |", "|---|---|---|---|"]
    said = {True: "met", False: "**not met**", None: NOT_RUN}
    for check in checks:
        lines.append(f"| {check.check} | {check.bar} | {check.measured} | {said[check.met]} |")
    return "\n".join(lines)


def write_page(text: str, page: Path) -> None:
    """Put a text between the markers of a page.

    Raises:
        ConfigError: the page has no such markers.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError(f"{page}: the markers {BEGIN} and {END} are missing")
    write_whole(page, f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> None:
    """Run the rows and print the table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    try:
        run(arguments)
    except KeyboardInterrupt:
        print(
            f"\nstopped; what was asked is kept in {arguments.out}: the same command goes on",
            file=sys.stderr,
            flush=True,
        )
        os._exit(130)  # the thread that samples would end in an abort
    except RouterR1Error as error:
        sys.exit(f"benchmarks.policy: {error}")


def run(arguments: argparse.Namespace) -> None:
    """Measure the wanted rows, keep them, and print and write the table."""
    rows = rows_of(arguments.run)
    wanted = _wanted(arguments.rows, rows)
    policies = {"policy": arguments.policy.removeprefix("policy:")}
    warm_start = arguments.warm_start or (arguments.run and arguments.run / "warm_start/policy")
    if warm_start:
        policies["warm_start"] = str(warm_start)
    setting = Setting(arguments.questions, arguments.seed, arguments.real, arguments.nothing)
    bench = Bench(setting, policies, arguments.out, arguments.at_once)
    results = arguments.out / "results.json"
    about: dict[str, Any] = {"questions": arguments.questions, "seed": arguments.seed}
    checks = _kept(results, about)
    bench.begin(need for name in wanted for need in rows[name].needs)
    try:
        for name in wanted:
            checks[name] = measured(rows[name], bench)
            for check in checks[name]:
                bench.say(f"{check.check}: {check.measured} ({check.bar}: {check.met})")
            data = {name: [asdict(check) for check in row] for name, row in checks.items()}
            about |= {"policy": arguments.policy, "commits": bench.commits}
            write_whole(results, json.dumps({"about": about, "rows": data}, indent=1) + "\n")
    finally:
        bench.end()
    lines = [
        line
        for name, row in rows.items()
        for line in checks.get(name, [Check(*b) for b in row.bars])
    ]
    text = (
        f"`{arguments.policy}`, {arguments.questions} test questions a run (seed "
        f"{arguments.seed}), greedy, cost weight 0.5 unless said; {datetime.now(UTC):%Y-%m-%d}, "
        f"commit {', '.join(bench.commits)}:\n\n{table(lines)}"
    )
    print(f"\n{text}\n\n{results} has the same as JSON.")
    if arguments.write:
        write_page(text, ROOT / "docs" / "results.md")
        write_whole(ROOT / "docs" / "policy.json", results.read_text(encoding="utf-8"))


def _kept(results: Path, about: Mapping[str, Any]) -> dict[str, list[Check]]:
    """Return the rows that were measured before with the same questions."""
    if not results.is_file():
        return {}
    data = json.loads(results.read_text(encoding="utf-8"))
    if any(data["about"][name] != value for name, value in about.items()):
        return {}
    return {name: [Check(**check) for check in row] for name, row in data["rows"].items()}


def _wanted(names: str, rows: Mapping[str, Row]) -> list[str]:
    wanted = [name.strip() for name in names.split(",")] if names else list(rows)
    for name in wanted:
        if name not in rows:
            raise ConfigError(
                f"--rows: there is no row {name!r}{did_you_mean(name, rows)}; the rows are "
                f"{', '.join(rows)}"
            )
    return wanted


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = Setting()
    add = parser.add_argument
    add("policy", nargs="?", default="demo")
    add("--run", type=Path, help="folder of its training run: warm_start/policy, metrics.jsonl")
    add("--warm-start", type=Path, help="the policy before reward, if not that of --run")
    add("--rows", default="", help="names with commas between them; all rows if left out")
    add("--questions", type=_count, default=usual.count, help="of each run (500)")
    add("--seed", type=int, default=usual.seed)
    add("--out", type=Path, default=Path("runs/policy_bench"), help="where traces are kept")
    add("--real", type=Path, default=usual.real, help="folder of morehopqa and fanoutqa files")
    add("--nothing", type=Path, default=usual.nothing, help="JSONL of questions for nobody")
    add("--at-once", type=_count, default=32, help="most questions at once (32)")
    add("--threads", type=_count, default=2, help="1 is fastest for a policy as small as demo (2)")
    add("--write", action="store_true", help="put the table into docs/results.md")
    return parser.parse_args()


def _count(text: str) -> int:
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
