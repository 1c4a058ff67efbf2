"""How long learned controllers take to fit, and what they weigh.

    python -m benchmarks.learned                          knn, mf, irt, features
    python -m benchmarks.learned encoder                  the slow one
    python -m benchmarks.learned --candidates 100 knn     a smaller pool
    python -m benchmarks.learned --splits 3 auto          `fit auto` on real and drawn matrices
    python -m benchmarks.learned --splits 2 --resembling auto    on eleven that resemble public ones

The matrix is drawn: 20 topics with words of their own, and each candidate has a skill for each
topic, so the best router is known. `score` is the mean true skill of the chosen candidates on 500
questions not fitted on. It flatters `features`, whose 20 clusters are just these topics. Choices
are timed in one batch.

With --splits, each matrix (recorded replies of ../shared/data, and two that are drawn: with topics,
and with none) is split 70/30 so many times. `gain` is the score at cost weight 0 less that of the
constant that is best on the 70%, on the 30%, with its 95% interval (`.3` and so on: the utility at
that cost weight, less that of the constant that is best there); `cheaper` is the score less
that constant's and the share of its cost, at the cost weight that the fit names; `same` the share
of reworded questions that are sent to the same candidate; `ms` the CPU of one decision. With
--resembling, each split is of another matrix of its kind (`benchmarks.matrices`).
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.matrices import KINDS, resembling
from router_r1_graph import CandidatePool
from router_r1_graph.controllers.learned import AUTO, METHODS, LearnedController
from router_r1_graph.controllers.learned.costs import best_column, mean_costs, utility
from router_r1_graph.controllers.learned.matrix import ScoreMatrix, read_matrix
from router_r1_graph.controllers.learned.rewording import reworded
from router_r1_graph.controllers.learned.verdict import as_good_for_less
from router_r1_graph.evaluation.measures import choice_entropy
from router_r1_graph.evaluation.statistics import Bootstrap, Interval

NQ = Path(__file__).parents[2] / "shared" / "data" / "nq_r1pool" / "records.jsonl"
TOPICS, TEST = 20, 500


def draw(questions: int, candidates: int) -> tuple[ScoreMatrix, np.ndarray]:
    """Return a matrix of 0 and 1, and the chance of a 1 in each of its cells."""
    numbers, words = np.random.default_rng(0), random.Random(0)
    topic = numbers.integers(0, TOPICS, questions)
    texts = tuple(
        " ".join(
            [f"topic{t}word{words.randrange(60)}" for _ in range(5)]
            + [f"common{words.randrange(200)}" for _ in range(5)]
            + [f"number{i}"]
        )
        for i, t in enumerate(topic)
    )
    skill = np.clip(numbers.normal(0.45, 0.25, (candidates, TOPICS)), 0.02, 0.98)
    chance = np.clip(skill[:, topic].T - numbers.normal(0, 0.1, (questions, 1)), 0, 1)
    scores = (numbers.random(chance.shape) < chance).astype(float)
    costs = np.exp(numbers.normal(-12, 1.5, (1, candidates))) * numbers.uniform(
        0.5, 2, chance.shape
    )
    names = [{"name": f"lab/model-{i}"} for i in range(candidates)]
    pool = CandidatePool.model_validate({"candidates": names})
    return ScoreMatrix(texts, pool, scores, costs), chance


def matrices() -> dict[str, ScoreMatrix]:
    """Return the matrices that can be made of the shared data, and two that are drawn."""
    found = {}
    if NQ.is_file():
        paper = CandidatePool.from_yaml("router_r1")
        for metric in ("em", "score", "contains"):
            found[f"NQ, {metric}"] = read_matrix(NQ, paper, fields={"score": metric})
        whole = found["NQ, contains"]
        others = np.delete(np.arange(len(whole.names)), whole.scores.mean(axis=0).argmax())
        found["NQ, contains, without its best"] = whole.select(candidates=others)
    found["drawn"], _ = draw(1000, 8)
    luck = np.random.default_rng(1).permuted(found["drawn"].scores, axis=0)
    found["drawn, shuffled"] = replace(found["drawn"], scores=luck)
    return found


def _always(matrix: ScoreMatrix, seed: int) -> ScoreMatrix:
    return matrix


def paired(one: np.ndarray, other: np.ndarray) -> Interval:
    """Return the mean difference where both were measured."""
    both = ~np.isnan(one - other)
    return Bootstrap(int(both.sum())).difference(one[both], other[both])


def judge(name: str, made: Callable[[int], ScoreMatrix], method: str, splits: int) -> None:
    """Fit to 70% of a matrix and print how it does on the rest, for each split."""
    for seed in range(splits):
        matrix = made(seed)
        count = len(matrix.questions)
        order = np.random.default_rng(seed).permutation(count)
        train, test = (matrix.select(part) for part in np.split(order, [int(0.7 * count)]))
        began = time.process_time()
        controller = LearnedController.fit(method, train, seed=seed)
        fitted = time.process_time() - began
        rows, best = np.arange(len(test.questions)), int(controller.means.argmax())
        chosen = controller.choices(test.questions, test.pool, 0.0)
        again = controller.choices([reworded(q) for q in test.questions], test.pool, 0.0)
        gain = paired(test.scores[rows, chosen], test.scores[:, best])
        costs, source = mean_costs(train)
        spent = np.tile(costs, (len(rows), 1))
        if source == "measured":
            spent = np.where(np.isnan(test.costs_usd), costs, test.costs_usd)
        more = []
        for weight in (0.3, 0.5, 0.7):
            mean = utility(controller.means, costs, costs, weight)[None]
            worth = utility(test.scores, spent, costs, weight)
            routed = controller.choices(test.questions, test.pool, weight)
            by_constant = worth[:, best_column(mean, costs)[0]]
            more.append(f"{weight} {paired(worth[rows, routed], by_constant)}")
        cheaper = "-"
        if controller.verdicts and (found := as_good_for_less(controller.verdicts)):
            less = controller.choices(test.questions, test.pool, found.cost_weight)
            share = spent[rows, less].mean() / spent[:, best].mean()
            lost = paired(test.scores[rows, less], test.scores[:, best])
            cheaper = f"a={found.cost_weight:g} {lost} at {share:.2f}"
        began = time.process_time()
        for question in test.questions:
            controller.choices([question], test.pool, 0.1)
        each = (time.process_time() - began) / len(rows) * 1e3
        print(
            f"{name:31} {method:8} gain {gain}   {'   '.join(more)}   cheaper {cheaper}   same "
            f"{(chosen == again).mean():.2f}   {each:.2f} ms   fit {fitted:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=["knn", "mf", "irt", "features"])
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--splits", type=int, default=0)
    parser.add_argument("--resembling", action="store_true")
    parser.add_argument("--kind", action="append", choices=KINDS, help="of --resembling; else all")
    options = parser.parse_args()
    if unknown := set(options.methods) - {*METHODS, AUTO}:
        parser.error(f"unknown: {', '.join(unknown)}; allowed: {', '.join(METHODS)}")
    if options.splits:
        made: dict[str, Callable[[int], ScoreMatrix]] = {}
        if options.resembling:
            made = {kind: partial(resembling, kind) for kind in options.kind or KINDS}
        else:
            made = {kind: partial(_always, found) for kind, found in matrices().items()}
        for kind, draws in made.items():
            for method in options.methods:
                judge(kind, draws, method, options.splits)
        return
    matrix, chance = draw(options.questions + TEST, options.candidates)
    train = matrix.select(range(options.questions))
    test, chance = matrix.questions[-TEST:], chance[-TEST:]
    print(f"{options.questions} questions x {options.candidates} candidates; the best single one")
    print(f"scores {chance.mean(axis=0).max():.3f}, the oracle {chance.max(axis=1).mean():.3f}")
    for method in options.methods:
        began = time.perf_counter()
        controller = LearnedController.fit(method, train)
        fitted = time.perf_counter() - began
        began = time.perf_counter()
        choices = controller.choices(test, matrix.pool, cost_weight=0.0)
        chosen = (time.perf_counter() - began) / TEST * 1e3
        with tempfile.TemporaryDirectory() as folder:
            controller.save(folder)
            size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{method:9} fit {fitted:6.1f} s   a choice {chosen:.2f} ms   {size:.1f} MB on disk   "
            f"peak {peak:.2f} GB   score {chance[np.arange(TEST), choices].mean():.3f}   "
            f"entropy {choice_entropy(choices):.1f} bits"
        )


if __name__ == "__main__":
    main()
