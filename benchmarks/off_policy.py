"""How often the truth lies inside the intervals of `evaluate --off-policy`, on simulated worlds.

    python -m benchmarks.off_policy                 100 worlds for each setting, 20 seconds
    python -m benchmarks.off_policy --worlds 1000

A world has candidates with prices and topics with the chance of a right answer for each candidate,
all drawn. One rule is logged with exploration, and another one is judged; each asks by topic, or
always the same candidate. The truth is computed, not simulated.

"""

from __future__ import annotations

import argparse
import time

import numpy as np

from router_r1_graph.evaluation.off_policy_estimates import Logs, estimate

TOPICS = 5
SETTINGS = (
    *((300, 0.1, 3), (300, 0.2, 6), (1000, 0.05, 4), (1000, 0.1, 6), (1000, 0.5, 3)),
    *((2000, 0.1, 4), (2000, 0.2, 3)),
)
"""Runs, share of explored calls, candidates."""


def world(seed: int, runs: int, rate: float, candidates: int) -> dict[str, bool]:
    """Draw a world, log and judge in it, and return whose interval holds the truth."""
    rng = np.random.default_rng(seed)
    skill = np.clip(rng.normal(0.5, 0.3, (TOPICS, candidates)), 0.01, 0.99)
    price = np.exp(rng.normal(-8, 1.5, candidates))
    share = rng.dirichlet(np.ones(TOPICS))

    def rule() -> np.ndarray:
        by_topic = rng.random() < 0.5
        return rng.integers(0, candidates, TOPICS if by_topic else 1) * np.ones(TOPICS, dtype=int)

    logger, judged = rule(), rule()
    topic = rng.choice(TOPICS, runs, p=share)
    every = np.arange(runs)
    p = np.full((runs, candidates), rate / candidates)
    p[every, logger[topic]] += 1 - rate
    asked = (p.cumsum(axis=1) > rng.random(runs)[:, None]).argmax(axis=1)
    right = (rng.random(runs) < skill[topic, asked]).astype(float)
    usd = price[asked] * rng.lognormal(0, 0.5, runs)
    chance = p[every, judged[topic]]
    chosen = np.zeros((runs, 1, candidates))
    chosen[every, 0, judged[topic]] = 1

    def logs(outcomes: np.ndarray) -> Logs:
        return Logs(
            groups=every,
            weights=((asked == judged[topic]) / chance)[:, None],
            asked=asked[:, None],
            chosen=chosen,
            squares=1 / chance,
            fourths=1 / chance**3,
            lost=np.zeros(runs),
            outcomes=outcomes,
            logged=outcomes,
            vectors=np.eye(TOPICS)[topic],
        )

    of = np.arange(TOPICS)
    score = float(share @ skill[of, judged])
    before = float(share @ ((1 - rate) * skill[of, logger] + rate * skill.mean(axis=1)))
    cost = float(share @ price[judged]) * float(np.exp(0.5**2 / 2))
    found, spent = estimate(logs(right), 0.0, 1.0), estimate(logs(usd), 0.0, np.inf)
    told = {
        "IPS": (found.ips, score),
        "SNIPS": (found.snips, score),
        "doubly robust": (found.dr, score),
        "difference": (found.difference, score - before),
        "cost, IPS": (spent.ips, cost),
        "cost, SNIPS": (spent.snips, cost),
        "cost, doubly robust": (spent.dr, cost),
    }
    return {name: one.low <= truth <= one.high for name, (one, truth) in told.items()}


def coverage(
    worlds: int, runs: int, rate: float, candidates: int, seed: int = 0
) -> dict[str, float]:
    """Return in how many of 100 worlds the truth is in each interval."""
    inside = [world(seed + number, runs, rate, candidates) for number in range(worlds)]
    return {name: 100 * sum(one[name] for one in inside) / worlds for name in inside[0]}


def main() -> None:
    """Print a table: a row for each setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(
        "| runs | explore | candidates | IPS | SNIPS | DR | difference | cost: IPS | SNIPS | DR |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    start = time.perf_counter()
    for runs, rate, candidates in SETTINGS:
        found = coverage(given.worlds, runs, rate, candidates, given.seed)
        cells = " | ".join(f"{value:.1f}" for value in found.values())
        print(f"| {runs:,} | {rate} | {candidates} | {cells} |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
