"""How long learned controllers take to fit, and what they weigh.

    python -m benchmarks.learned                          knn, mf, irt, features
    python -m benchmarks.learned encoder                  the slow one
    python -m benchmarks.learned --candidates 100 knn     a smaller pool

The matrix is drawn: 20 topics with words of their own, and each candidate has a skill for each
topic, so the best router is known. `score` is the mean true skill of the chosen candidates on 500
questions not fitted on. It flatters `features`, whose 20 clusters are just these topics. Choices
are timed in one batch.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from router_r1_graph import CandidatePool
from router_r1_graph.controllers.learned import METHODS, LearnedController
from router_r1_graph.controllers.learned.matrix import ScoreMatrix
from router_r1_graph.evaluation.measures import choice_entropy

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=["knn", "mf", "irt", "features"])
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=1000)
    options = parser.parse_args()
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"unknown: {', '.join(unknown)}; allowed: {', '.join(METHODS)}")
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
