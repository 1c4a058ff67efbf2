"""From outcomes to numbers: means with intervals, differences, shares, slices."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .origin import Origin
from .run import Outcome
from .statistics import Bootstrap, Interval, entropy, mix_at_cost

ORACLE_OF_CONSTANTS = "oracle of constants"
"""The cheapest of the candidates that are right on the whole question: no rule that chooses one
candidate can do better."""

_MEASURES: dict[str, Callable[[Outcome], float]] = {
    "score": lambda o: o.score,
    "exact_match": lambda o: o.exact_match,
    "f1": lambda o: o.f1,
    "stated": lambda o: o.stated,
    "cost_usd": lambda o: o.cost_usd,
    "calls": lambda o: o.calls,
    "rounds": lambda o: o.rounds,
    "seconds": lambda o: o.seconds,
    "failures": lambda o: o.failures,
    "answered": lambda o: o.answered,
}


@dataclass(frozen=True)
class SummaryRow:
    """One controller at one cost weight.

    `measures` are means over questions. The differences are of the score: against the best single
    candidate, and against a random mix of two candidates that spends as much (None: all cost more).
    """

    controller: str
    cost_weight: float
    measures: dict[str, Interval]
    share: dict[str, float]
    """Share of its calls by candidate."""
    entropy_bits: float
    against_constant_best: Interval | None
    against_matched_cost: Interval | None
    stated_against_best: Interval | None
    """The difference of `stated` to the single candidate that is best by it, not by the metric: the
    difference that is left if form does not count."""
    cost_ratio: Interval | None
    """Its cost divided by that of the best single candidate; None = that one costs nothing."""
    slices: dict[str, dict[str, tuple[float, int]]]
    """Mean score and number of questions, by slice and value."""
    is_control: bool
    error: str = ""
    """Why no question got a reply."""
    explore: float = 0.0
    """The share of its calls that went to a candidate drawn at random."""

    @property
    def is_single(self) -> bool:
        """Whether it is one candidate alone, with no explored calls of others."""
        return is_single(self.controller, self.explore)

    @property
    def name(self) -> str:
        """Its name for people: that of the candidate if it is a single one."""
        return self.controller.removeprefix("constant:") if self.is_single else self.controller


@dataclass(frozen=True)
class Summary:
    """A whole evaluation."""

    pool: str
    metric: str
    questions: int
    rows: list[SummaryRow]
    constant_best: str | None
    stored_calls: int = 0
    """Calls whose reply came out of the reply store, controllers' included."""
    saved_usd: float = 0.0
    """The cost of these, had the calls been made; the costs above include it."""
    uncertain_usd: float = 0.0
    """The most that attempts cost whose price is unknown; the costs above do not include it."""
    origin: Origin | None = None
    """Its origin; None = not known."""
    notes: Sequence[str] = ()
    """Further notes for a reader, such as that it was stopped."""

    @property
    def best(self) -> SummaryRow | None:
        """The row of the best single candidate."""
        return next((row for row in self.rows if row.controller == self.constant_best), None)

    def to_json(self) -> dict[str, Any]:
        """Return built-in types, as `summary.json` holds them."""

        def interval(value: Interval | None) -> dict[str, float] | None:
            return None if value is None else asdict(value)

        return {
            "pool": self.pool,
            "metric": self.metric,
            "questions": self.questions,
            "constant_best": self.constant_best,
            "stored_calls": self.stored_calls,
            "saved_usd": self.saved_usd,
            "uncertain_usd": self.uncertain_usd,
            "origin": self.origin and self.origin.model_dump(mode="json", exclude={"options"}),
            "notes": list(self.notes),
            "controllers": [
                {
                    "controller": row.controller,
                    "cost_weight": row.cost_weight,
                    **{name: interval(value) for name, value in row.measures.items()},
                    "share": row.share,
                    "entropy_bits": row.entropy_bits,
                    "against_constant_best": interval(row.against_constant_best),
                    "against_matched_cost": interval(row.against_matched_cost),
                    "stated_against_best": interval(row.stated_against_best),
                    "cost_ratio": interval(row.cost_ratio),
                    "error": row.error,
                    "slices": {
                        name: {
                            value: {"score": score, "questions": count}
                            for value, (score, count) in values.items()
                        }
                        for name, values in row.slices.items()
                    },
                }
                for row in self.rows
            ],
        }


def is_single(controller: str, explore: float) -> bool:
    """Whether runs of a controller are those of one candidate alone."""
    return controller.startswith("constant:") and not explore


def summarise(
    outcomes: Iterable[Outcome],
    *,
    pool: str,
    metric: str,
    controls: Sequence[str] = (),
    seed: int = 0,
) -> Summary:
    """Return the numbers of an evaluation.

    Only questions that every controller was asked count, so that all differences are paired.

    Args:
        outcomes: of several controllers.
        pool: its name.
        metric: the kind of score.
        controls: the controllers that are controls.
        seed: of the resamples.
    """
    groups: dict[tuple[str, float], dict[str, Outcome]] = {}
    stored_calls, saved_usd, uncertain_usd = 0, 0.0, 0.0
    for outcome in outcomes:
        stored_calls += outcome.stored_calls
        saved_usd += outcome.saved_usd
        uncertain_usd += outcome.uncertain_usd
        groups.setdefault((outcome.controller, outcome.cost_weight), {})[outcome.id] = outcome
    if not groups:
        return Summary(pool, metric, 0, [], None)
    first, *others = groups.values()
    # In an order that never varies: a report that is made again has the same intervals.
    ids = sorted(i for i in first if all(i in other for other in others))
    if not ids:
        return Summary(pool, metric, 0, [], None)
    columns = {key: [group[i] for i in ids] for key, group in groups.items()}
    constants = {key: c for key, c in columns.items() if is_single(key[0], c[0].explore)}
    if len(constants) > 1 and not any(name == "oracle" for name, _ in columns):
        weight = next(iter(constants))[1]
        columns[ORACLE_OF_CONSTANTS, weight] = oracle_of(list(constants.values()))
        controls = [*controls, ORACLE_OF_CONSTANTS]
    bootstrap = Bootstrap(len(ids), seed)
    best = _best(constants, "score")
    best_scores = _values(columns[best], "score") if best else None
    best_costs = _values(columns[best], "cost_usd") if best else []
    states = _best(constants, "stated")
    best_stated = _values(columns[states], "stated") if states else None
    costs = [_mean(c, "cost_usd") for c in constants.values()]
    scores = np.array([_values(c, "score") for c in constants.values()])
    rows = []
    for (controller, weight), column in columns.items():
        ours = _values(column, "score")
        mix = mix_at_cost(costs, scores, _mean(column, "cost_usd")) if constants else None
        asked: Counter[str] = Counter()
        for outcome in column:
            asked.update(outcome.asked)
        share = {name: count / asked.total() for name, count in asked.most_common()}
        rows.append(
            SummaryRow(
                controller=controller,
                cost_weight=weight,
                measures={name: bootstrap.mean(_values(column, name)) for name in _MEASURES},
                share=share,
                entropy_bits=entropy(list(share.values())),
                against_constant_best=(
                    None if best_scores is None else bootstrap.difference(ours, best_scores)
                ),
                against_matched_cost=None if mix is None else bootstrap.difference(ours, mix),
                stated_against_best=(
                    None
                    if best_stated is None
                    else bootstrap.difference(_values(column, "stated"), best_stated)
                ),
                cost_ratio=(
                    bootstrap.ratio(_values(column, "cost_usd"), best_costs)
                    if any(best_costs)
                    else None
                ),
                slices=_slices(column),
                is_control=controller in controls,
                error=column[0].error if all(outcome.error for outcome in column) else "",
                explore=column[0].explore,
            )
        )
    constant_best = best[0] if best else None
    bill = stored_calls, saved_usd, uncertain_usd
    return Summary(pool, metric, len(ids), rows, constant_best, *bill)


def _best(
    constants: Mapping[tuple[str, float], Sequence[Outcome]], name: str
) -> tuple[str, float] | None:
    """Return the best single candidate by a measure; of several, the cheapest."""
    return max(
        constants,
        key=lambda k: (_mean(constants[k], name), -_mean(constants[k], "cost_usd")),
        default=None,
    )


def oracle_of(constants: Sequence[Sequence[Outcome]]) -> list[Outcome]:
    """Return the best outcome of each question: the highest score, then the lowest cost."""
    return [
        max(column, key=lambda o: (o.score, -o.cost_usd)) for column in zip(*constants, strict=True)
    ]


def _values(column: Sequence[Outcome], name: str) -> list[float]:
    measure = _MEASURES[name]
    return [measure(outcome) for outcome in column]


def _mean(column: Sequence[Outcome], name: str) -> float:
    return math.fsum(_values(column, name)) / len(column)


def _slices(column: Sequence[Outcome]) -> dict[str, dict[str, tuple[float, int]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for outcome in column:
        for name, value in outcome.slices.items():
            found.setdefault(name, {}).setdefault(value, []).append(outcome.score)
    return {
        name: {v: (sum(s) / len(s), len(s)) for v, s in sorted(values.items())}
        for name, values in found.items()
        if 1 < len(values) <= 20
    }
