"""Makes the pictures of README and the pages, by the commands that they show: `make pictures`.

    python -m docs.pictures                 all of them, into docs/pictures/ (about three minutes)
    python -m docs.pictures transcript      only some

| picture | what it shows | needs |
|---|---|---|
| transcript.svg | `router-r1 ask` in a terminal | |
| studio.svg | a graph with the router inside, as LangGraph draws it | mermaidx (extra `docs`) |
| curve.svg | the curve of `router-r1 evaluate` | matplotlib and torch |
| report.png | the report.html of `router-r1 evaluate` | the same, and Chromium |
| worth.svg | the curve of `router-r1 fit auto` on "Is it worth it?" | matplotlib, scikit-learn |

What cannot be made here is said, and left as it is.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from router_r1_graph import (
    CandidatePool,
    Evaluation,
    KeywordController,
    Reader,
    create_router_r1,
    evaluate,
    total,
)
from router_r1_graph.transcript import Transcript

FOLDER = Path(__file__).with_name("pictures")
QUESTION = "What is the currency of the country where the author of Hamlet was born?"
COST_WEIGHTS = (0, 0.25, 0.5, 0.75, 0.9)
QUESTIONS = 200


class MissingError(Exception):
    """Something that a picture needs is not here."""


def terminal() -> Console:
    """Return a terminal that has run `router-r1 ask`, with all that it shows."""
    pool = CandidatePool.embedded()
    graph = create_router_r1(pool, KeywordController()).compile()
    console = Console(
        file=io.StringIO(), record=True, force_terminal=True, width=116, color_system="truecolor"
    )
    console.print(f'$ router-r1 ask "{QUESTION}" --controller keyword', highlight=False)
    shown = Transcript(console, pool)
    shown.question(QUESTION)
    state: dict[str, Any] = {}
    for mode, part in graph.stream({"question": QUESTION}, stream_mode=["tasks", "values"]):
        if mode == "values":
            state = part
        else:
            shown.event(part)
    shown.answer(state["answer"])
    shown.stopped(state["stop_reason"])
    shown.bill(total(state["ledger"]), state["ledger"])
    return console


def transcript(folder: Path) -> None:
    """Draw a transcript."""
    svg = terminal().export_svg(title="router-r1", unique_id="transcript")
    # Without the web font, which would be fetched from elsewhere: any monospace one will do.
    svg = re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.S)
    svg = "".join(f"{line.rstrip()}\n" for line in svg.splitlines() if line.strip())
    (folder / "transcript.svg").write_text(svg, encoding="utf-8")


def studio(folder: Path) -> None:
    """Draw the research assistant and the router in it."""
    if find_spec("mermaidx") is None:
        raise MissingError("mermaidx (the extra 'docs')")
    import mermaidx

    from graphs.research_assistant import graph

    svg = mermaidx.render(graph.get_graph(xray=True).draw_mermaid()).svg()
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    width, height = (round(float(number)) for number in size.groups())
    svg = svg.replace('width="100%"', f'width="{width}" height="{height}"', 1)
    svg = svg.replace("background-color: transparent", "background-color: white", 1)
    # The name of the subgraph, away from the arrow that comes in at the middle.
    svg = re.sub(r'(class="cluster-label" transform="translate)\([\d.]+,', r"\1(30,", svg)
    (folder / "studio.svg").write_text(svg, encoding="utf-8")


def report(folder: Path) -> None:
    """Photograph the report of an evaluation."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise MissingError("chromium (Debian: apt-get install chromium)")
    with TemporaryDirectory() as out, TemporaryDirectory() as profile:
        _evaluate(Path(out), (0.5,))
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", "--window-size=1280,1190"]
        command += [f"--screenshot={folder / 'report.png'}", Path(out, "report.html").as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def curve(folder: Path) -> None:
    """Draw the cost-quality curve of an evaluation at several cost weights."""
    with TemporaryDirectory() as out:
        _evaluate(Path(out), COST_WEIGHTS)
        shutil.copy(Path(out, "curve.svg"), folder)


def worth(folder: Path) -> None:
    """Draw what `fit auto` finds on the questions of the page "Is it worth it?"."""
    if missing := [name for name in ("matplotlib", "sklearn") if find_spec(name) is None]:
        raise MissingError(", ".join(missing))
    from router_r1_graph.controllers.learned import LearnedController
    from router_r1_graph.evaluation.plots import draw_fit
    from router_r1_graph.evaluation.scores import load_scores

    with TemporaryDirectory() as out:
        questions = Reader(["demo"], limit=2 * QUESTIONS).read()
        pool = CandidatePool.embedded()
        plan = Evaluation(pool=pool, questions=questions, controllers=[], out=Path(out))
        evaluate(plan, Console(stderr=True))
        methods = ("knn", "linear")
        draw_fit(LearnedController.fit("auto", load_scores(out), methods=methods), Path(out))
        shutil.copy(Path(out, "curve.svg"), folder / "worth.svg")


def _evaluate(out: Path, cost_weights: tuple[float, ...]) -> None:
    if missing := [name for name in ("matplotlib", "torch") if find_spec(name) is None]:
        raise MissingError(", ".join(missing))
    plan = Evaluation(
        pool=CandidatePool.embedded(),
        questions=Reader(["demo"], limit=QUESTIONS).read(),
        controllers=["keyword", "policy:demo"],
        cost_weights=cost_weights,
        out=out,
    )
    evaluate(plan, Console(stderr=True))


PICTURES: Mapping[str, Callable[[Path], None]] = {
    "transcript": transcript,
    "studio": studio,
    "curve": curve,
    "report": report,
    "worth": worth,
}


def main() -> None:
    """Make the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pictures", nargs="*", help=f"some of {', '.join(PICTURES)}")
    named = parser.parse_args().pictures
    if unknown := set(named) - set(PICTURES):
        parser.error(f"no such picture: {', '.join(sorted(unknown))}")
    FOLDER.mkdir(exist_ok=True)
    for name in named or PICTURES:
        try:
            PICTURES[name](FOLDER)
            print(f"{name}: done")
        except MissingError as missing:
            print(f"{name}: not made, there is no {missing}", file=sys.stderr)


if __name__ == "__main__":
    main()
