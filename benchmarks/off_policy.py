"""How often the truth lies inside the intervals of `evaluate --off-policy`, on simulated worlds.

    python -m benchmarks.off_policy                 100 worlds for each setting, a minute
    python -m benchmarks.off_policy --worlds 1000

A world has candidates with prices and topics with the chance of a right answer for each candidate,
all drawn. One rule is logged with exploration, and another one is judged; each asks by topic, or
always the same candidate. In runs of several calls, a reply that is doubted (a wrong one more often
than a right one) is followed by another call, for which the rules are others; the last reply is the
answer. The truth is computed, not simulated.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from router_r1_graph.evaluation.off_policy_estimates import Logs, estimate

TOPICS = 5
SETTINGS = (
    *((300, 0.1, 3, 1), (300, 0.2, 6, 1), (1000, 0.05, 4, 1), (1000, 0.1, 6, 1)),
    *((1000, 0.5, 3, 1), (2000, 0.1, 4, 1), (2000, 0.2, 3, 1)),
    *((300, 0.2, 3, 2), (1000, 0.1, 4, 2), (1000, 0.5, 3, 2), (2000, 0.2, 4, 3)),
)
"""Runs, share of explored calls, candidates, most calls of a run."""
DOUBTED = np.array([0.7, 0.2])
"""The chance that a wrong and that a right reply is doubted."""


def world(seed: int, runs: int, rate: float, candidates: int, calls: int = 1) -> dict[str, bool]:
    """Draw a world, log and judge in it, and return whose interval holds the truth."""
    rng = np.random.default_rng(seed)
    skill = np.clip(rng.normal(0.5, 0.3, (TOPICS, candidates)), 0.01, 0.99)
    price = np.exp(rng.normal(-8, 1.5, candidates))
    share = rng.dirichlet(np.ones(TOPICS))

    def rule() -> np.ndarray:
        by_topic = rng.random() < 0.5
        return rng.integers(0, candidates, TOPICS if by_topic else 1) * np.ones(TOPICS, dtype=int)

    rules = [(rule(), rule()) for _ in range(calls)]  # what is logged and what is judged
    topic = rng.choice(TOPICS, runs, p=share)
    every = np.arange(runs)
    weights, asked = np.ones((runs, calls)), np.full((runs, calls), -1)
    chosen = np.zeros((runs, calls, candidates))
    weight, squares, fourths = np.ones(runs), np.ones(runs), np.ones(runs)
    right, usd, goes_on = np.zeros(runs), np.zeros(runs), np.ones(runs, dtype=bool)
    for k, (logger, judged) in enumerate(rules):
        p = np.full((runs, candidates), rate / candidates)
        p[every, logger[topic]] += 1 - rate
        to = (p.cumsum(axis=1) > rng.random(runs)[:, None]).argmax(axis=1)
        said = rng.random(runs) < skill[topic, to]
        right = np.where(goes_on, said, right)
        usd += np.where(goes_on, price[to] * rng.lognormal(0, 0.5, runs), 0)
        # As `off_policy_run.follow` has it: only where both have done the same until now.
        seen = goes_on & (weight > 0)
        chance = p[every, judged[topic]]
        squares = np.where(seen, weight**2 / chance, squares)
        fourths = np.where(seen, weight**4 / chance**3, fourths)
        chosen[every, k, judged[topic]] = seen
        asked[:, k] = np.where(seen, to, -1)
        weight = np.where(seen, weight * (to == judged[topic]) / chance, weight)
        weights[:, k] = weight
        if k + 1 < calls:
            goes_on &= rng.random(runs) < DOUBTED[said.astype(int)]

    def logs(outcomes: np.ndarray) -> Logs:
        return Logs(
            groups=every,
            weights=weights,
            asked=asked,
            chosen=chosen,
            squares=squares,
            fourths=fourths,
            lost=np.zeros(runs),
            outcomes=outcomes,
            logged=outcomes,
            vectors=np.eye(TOPICS)[topic],
        )

    score = before = cost = np.zeros(TOPICS)  # by topic, from the last call to the first
    of = np.arange(TOPICS)
    for k, (logger, judged) in reversed(list(enumerate(rules))):
        doubted = DOUBTED if k + 1 < calls else np.zeros(2)
        means = rate / candidates * np.ones((TOPICS, candidates))
        means[of, logger] += 1 - rate
        after = doubted[0] * (1 - skill) + doubted[1] * skill  # the chance that it goes on
        kept = (1 - doubted[1]) * skill
        before = (means * (kept + after * before[:, None])).sum(axis=1)
        score = kept[of, judged] + after[of, judged] * score
        cost = price[judged] * np.exp(0.5**2 / 2) + after[of, judged] * cost
    found, spent = estimate(logs(right), 0.0, 1.0), estimate(logs(usd), 0.0, np.inf)
    is_right, was_right, is_usd = (float(share @ values) for values in (score, before, cost))
    told = {
        "IPS": (found.ips, is_right),
        "SNIPS": (found.snips, is_right),
        "doubly robust": (found.dr, is_right),
        "difference": (found.difference, is_right - was_right),
        "cost, IPS": (spent.ips, is_usd),
        "cost, SNIPS": (spent.snips, is_usd),
        "cost, doubly robust": (spent.dr, is_usd),
    }
    return {name: one.low <= truth <= one.high for name, (one, truth) in told.items()}


def coverage(
    worlds: int, runs: int, rate: float, candidates: int, calls: int = 1, seed: int = 0
) -> dict[str, float]:
    """Return in how many of 100 worlds the truth is in each interval."""
    inside = [world(seed + n, runs, rate, candidates, calls) for n in range(worlds)]
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
        "| runs | explore | candidates | calls | IPS | SNIPS | DR | difference | cost: IPS | SNIPS "
        "| DR |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    start = time.perf_counter()
    for runs, rate, candidates, calls in SETTINGS:
        found = coverage(given.worlds, runs, rate, candidates, calls, given.seed)
        cells = " | ".join(f"{value:.1f}" for value in found.values())
        print(f"| {runs:,} | {rate} | {candidates} | {calls} | {cells} |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
