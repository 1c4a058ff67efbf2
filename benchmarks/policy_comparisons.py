"""How a policy compares with the oracle, its warm start and controls.

Intervals are 95% bootstrap over questions, ratios and differences paired. A bar is met by the
estimate itself; where it says "clear of zero", by the interval.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from router_r1_graph.controllers.learned import METHODS
from router_r1_graph.evaluation.statistics import Bootstrap, Interval
from training.history import read_history

from .policy_bench import POLICY, WARM_START, Bench
from .policy_columns import Column
from .policy_questions import WEIGHTS, NotRunError, embedded, weighted


@dataclass(frozen=True)
class Finding:
    """What was measured, and whether the bar is met; None = it was not measured."""

    measured: str
    met: bool | None = None


def signed(value: Interval) -> str:
    """Return a difference with its sign."""
    return f"{value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def of(column: Column) -> Bootstrap:
    """Return the bootstrap over the questions of a column."""
    return Bootstrap(len(column.exact_match))


def _usd(column: Column) -> str:
    return f"${1000 * column.cost_usd.mean():.4f} per 1,000"


def _failed(column: Column) -> str:
    return f"; {column.failed} runs ended in an error of the policy" if column.failed else ""


def against_oracle(run: str, share: float, most_cost: float, bench: Bench) -> list[Finding]:
    """Compare exact match and cost with the oracle's."""
    ours, oracle = bench.column(POLICY, run), bench.oracle(run)
    resamples = of(ours)
    ratio = resamples.ratio(ours.exact_match, oracle.exact_match)
    cost = resamples.ratio(ours.cost_usd, oracle.cost_usd)
    return [
        Finding(
            f"{resamples.mean(ours.exact_match)} = {ratio} of its {oracle.exact_match.mean():.3f}"
            + _failed(ours),
            ratio.mean >= share,
        ),
        Finding(f"{cost} x its {_usd(oracle)}", cost.mean <= most_cost),
    ]


def cost_weights(bench: Bench) -> Iterator[Finding]:
    """Compare neighbouring cost weights, and 0 with 0.5."""
    columns = [bench.column(POLICY, weighted(weight)) for weight in WEIGHTS]
    resamples = of(columns[0])
    steps = list(itertools.pairwise(columns))
    rises = [resamples.difference(after.cost_usd, before.cost_usd) for before, after in steps]
    costs = ", ".join(f"${1000 * column.cost_usd.mean():.4f}" for column in columns)
    fell = columns[-1].cost_usd.mean() <= columns[0].cost_usd.mean()
    yield Finding(f"{costs} per 1,000", fell and all(rise.low <= 0 for rise in rises))
    scores = [float(column.exact_match.mean()) for column in columns]
    kept = all(after >= 0.6 * before for before, after in itertools.pairwise(scores))
    yield Finding(", ".join(str(resamples.mean(column.exact_match)) for column in columns), kept)
    gain = resamples.difference(columns[0].exact_match, columns[WEIGHTS.index(0.5)].exact_match)
    yield Finding(signed(gain), gain.high >= 0)


def against_warm_start(run_folder: Path | None, bench: Bench) -> Iterator[Finding]:
    """Measure what GRPO added to the warm start, and how it came about."""
    try:
        ours, before = bench.column(POLICY, "known"), bench.column(WARM_START, "known")
    except NotRunError as missing:
        yield from [Finding(f"not run: {missing}")] * 2
    else:
        resamples, oracle = of(ours), bench.oracle("known")
        gain = resamples.difference(ours.reward, before.reward)
        values = f"{before.reward.mean():.3f} to {ours.reward.mean():.3f}"
        yield Finding(f"{values}: {signed(gain)}", gain.low > 0)
        way = resamples.ratio(ours.reward - before.reward, oracle.reward - before.reward)
        yield Finding(f"{way} of the way to {oracle.reward.mean():.3f}", way.mean >= 1 / 3)
    yield _curve(run_folder)


def _curve(run_folder: Path | None) -> Finding:
    if run_folder is None:
        return Finding("not run: --run names no folder of a run")
    points = {
        step: np.mean([numbers["reward"] for numbers in by_weight.values()])
        for step, by_weight in read_history(run_folder).validations.items()
        if all("reward" in numbers for numbers in by_weight.values())
    }
    if not points:
        return Finding(f"not run: {run_folder} has no validation of GRPO yet")
    text = ", ".join(f"{step:g}: {value:.3f}" for step, value in points.items())
    rewards = list(points.values())
    return Finding(
        f"validation reward by step: {text} (`router-r1 train report` draws it)",
        len(points) > 1 and max(rewards[1:]) > rewards[0],
    )


def controls() -> dict[str, tuple[str, ...]]:
    """Return the controls of the embedded pool by group; each has to be beaten."""
    return {
        "every constant": tuple(f"constant:{c.name}" for c in embedded().candidates),
        **{name: (name,) for name in ("cheapest", "random", "keyword", "cascade", "vote")},
        "every fitted controller": tuple(METHODS),
    }


#: Those of drawn pools, which no constant and no fitted controller knows beforehand.
_DRAWN_CONTROLS = ("strongest", "cheapest", "random", "keyword", "cascade", "vote")


def against_controls(bench: Bench) -> Iterator[Finding]:
    """Compare rewards; of a group, the control that comes nearest is shown."""
    for run in ("known", "test"):
        ours = bench.column(POLICY, run)
        resamples = of(ours)
        for specs in controls().values():
            gains = {
                spec: resamples.difference(ours.reward, bench.control(run, spec).reward)
                for spec in specs
            }
            yield _nearest(gains, f"{ours.reward.mean():.3f}")


def _nearest(gains: Mapping[str, Interval], ours: str) -> Finding:
    spec, gain = min(gains.items(), key=lambda item: item[1].low)
    nearest = f", nearest {spec}" if len(gains) > 1 else ""
    met = all(gain.low > 0 for gain in gains.values())
    return Finding(f"{ours}, {signed(gain)}{nearest}", met)


def real_questions(bench: Bench) -> Iterator[Finding]:
    """Compare exact match on decomposed files with the warm start's and with controls'."""
    ours = bench.column(POLICY, "decomposed")
    resamples = of(ours)
    oracle = bench.oracle("decomposed").exact_match.mean()
    value = f"{resamples.mean(ours.exact_match)} (oracle {oracle:.3f}, {len(ours.calls)} questions)"
    try:
        before = bench.column(WARM_START, "decomposed")
    except NotRunError as missing:
        yield Finding(f"{value}; not run: {missing}")
    else:
        gain = resamples.difference(ours.exact_match, before.exact_match)
        yield Finding(f"{value}, {signed(gain)}{_failed(ours)}", gain.low > 0)
    gains = {
        spec: resamples.difference(ours.exact_match, bench.control("decomposed", spec).exact_match)
        for spec in _DRAWN_CONTROLS
    }
    yield _nearest(gains, value)


def other_facts(bench: Bench) -> Iterator[Finding]:
    """Compare exact match on the same questions where other facts hold."""
    before, after = bench.both("known", "facts")
    resamples = Bootstrap(len(before))
    ours, theirs = (
        [float(bench.column(POLICY, run).exact_match[place]) for place in places]
        for run, places in (("facts", after), ("known", before))
    )
    change = resamples.difference(ours, theirs)
    text = f"{resamples.mean(ours)}, {signed(change)} in {len(before)} pairs"
    yield Finding(text, abs(change.mean) <= 0.03)
