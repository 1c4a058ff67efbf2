"""How much is gained by reading replies: the curve of cost and exact match of `reader`.

    python -m benchmarks.reader replies.jsonl
    python -m benchmarks.reader replies.jsonl --out curve.png

Each of 5 folds is answered by a reader that is fitted to the other four, thresholds and order
included; this is done for each seed. A question counts with its mean over the seeds. Differences
are paired, with 95% bootstrap intervals over questions; the mix is of two constants that spend as
much.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from router_r1_graph.answers import bare_answer, exact_match
from router_r1_graph.controllers.learned.reader import ReaderController
from router_r1_graph.controllers.learned.reading import JudgedSpans, judge
from router_r1_graph.controllers.learned.recorded import RecordedReplies
from router_r1_graph.controllers.learned.stopping import stops
from router_r1_graph.evaluation.recorded_replies import load_recorded
from router_r1_graph.evaluation.statistics import Bootstrap, mix_at_cost

COST_WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)


def curve(
    recorded: RecordedReplies, judged: Sequence[JudgedSpans], seeds: int, folds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return exact match, USD and calls of each question at each cost weight, [W, Q] each."""
    questions = len(recorded.questions)
    names = [c.name for c in recorded.pool.candidates]
    found = np.zeros((3, len(COST_WEIGHTS), questions))
    for seed in range(seeds):
        fold = np.random.default_rng(1000 + seed).permutation(questions) % folds
        for held_out in range(folds):
            inside, outside = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
            known = [judged[i] for i in inside]
            reader = ReaderController.fit(recorded.select(inside), seed=seed, judged=known)
            order = [names.index(c.name) for c in reader.known.candidates]
            unseen = [replace(judged[i], reading=judged[i].reading.ordered(order)) for i in outside]
            sure, right = reader.regressions.judge(unseen)
            spent = np.cumsum(recorded.costs_usd[outside][:, order], axis=1)
            rows = np.arange(len(outside))
            for place, weight in enumerate(COST_WEIGHTS):
                last = stops(sure, reader.stop_at(weight))
                found[:, place, outside] += right[last, rows], spent[rows, last], last + 1
    exact, usd, calls = found / seeds
    return exact, usd, calls


def draw(path: Path, points: Sequence[tuple[float, float]], constants: dict[str, tuple]) -> None:
    """Draw USD per 1,000 questions against exact match."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    axes.plot(*zip(*sorted(points), strict=True), "o-", label="reader, by cost weight")
    for name, (usd, score) in constants.items():
        axes.plot(usd, score, "s", color="grey")
        axes.annotate(name, (usd, score), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="USD per 1,000 questions", ylabel="exact match")
    axes.legend(loc="lower right")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("replies", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a picture of the curve (.png, .svg)")
    options = parser.parse_args()
    recorded = load_recorded(options.replies)
    began = time.process_time()
    judged = judge(recorded)
    scores, usd, calls = curve(recorded, judged, options.seeds, options.folds)
    own = np.array(
        [
            [exact_match(bare_answer(reply), gold) for reply in replies]
            for replies, gold in zip(recorded.replies, recorded.gold, strict=True)
        ]
    ).T
    costs = recorded.costs_usd.mean(axis=0)
    names = [c.name for c in recorded.pool.candidates]
    best = int(own.mean(axis=1).argmax())
    paired = Bootstrap(len(recorded.questions))
    print(f"best constant: {names[best]} {own[best].mean():.3f}, ${1000 * costs[best]:.4f} / 1,000")
    print("| cost weight | exact match | USD / 1,000 | calls | against the best constant | mix |")
    print("|---|---|---|---|---|---|")
    for place, weight in enumerate(COST_WEIGHTS):
        mix = mix_at_cost(costs.tolist(), own, usd[place].mean())
        gain = paired.difference(scores[place], own[best])
        over = "" if mix is None else paired.difference(scores[place], mix)
        print(
            f"| {weight} | {paired.mean(scores[place])} | {1000 * usd[place].mean():.4f} | "
            f"{calls[place].mean():.2f} | {gain} | {over} |"
        )
    print(f"{time.process_time() - began:.0f} s of CPU")
    if options.out:
        points = list(zip(1000 * usd.mean(axis=1), scores.mean(axis=1), strict=True))
        pairs = zip(names, 1000 * costs, own.mean(axis=1), strict=True)
        draw(options.out, points, {name: (cost, score) for name, cost, score in pairs})


if __name__ == "__main__":
    main()
