"""The findings of `auto` at a cost weight: numbers that tables, pictures and warnings repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...words import counted, usd
from .costs import CostSource


@dataclass(frozen=True)
class Gain:
    """A mean utility less that of the best constant, with its 95% interval (paired).

    Attributes:
        mean: from -1 to 1.
        low: the lower end of the interval.
        high: its upper end.
        known: whether there are scores that tell; if not, the interval is all that is possible.
    """

    mean: float
    low: float
    high: float
    known: bool = True

    @property
    def sure(self) -> bool:
        """Whether it is positive, clear of zero."""
        return self.known and self.low > 0

    def __str__(self) -> str:
        if not self.known:
            return "unknown"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


UNKNOWN = Gain(0.0, -1.0, 1.0, known=False)
"""The gain of choices that no scores compare with the constant."""


@dataclass(frozen=True)
class Verdict:
    """The findings at one cost weight, on folds that took no part in the fits judged there.

    Attributes:
        cost_weight: from 0 to 1.
        part: the number of the fitted part that decides; None = the constant does.
        setting: the method and options of that part, or of the one that came next to it.
        margin: by how much the predicted utility has to exceed the constant's, divided by
            1 - cost weight, so that it is a score.
        score: the mean of `auto` with every choice made anew in each fold.
        cost: its cost of a question.
        same: the share of reworded questions that it sent to the same candidate.
        gain: its utility less the best constant's.
        constant: the best constant at this cost weight, by name.
        constant_score: its mean score.
        constant_cost: its cost of a question.
        mix_score: the best random mix of two constants that costs as much as `auto`.
        oracle_score: the mean over questions of the score of the one with the highest utility.
        oracle_cost: the cost of these for a question.
        methods: each method's gain with its best options and no margin.
        pairs: the questions with scores of the constant and of another candidate.
        least: `score` less that of the best constant at cost weight 0, over all questions, if each
            missing score is the worst for `auto`; None = no score is missing.
    """

    cost_weight: float
    part: int | None
    setting: str
    margin: float
    score: float
    cost: float
    same: float
    gain: Gain
    constant: str
    constant_score: float
    constant_cost: float
    mix_score: float
    oracle_score: float
    oracle_cost: float
    methods: dict[str, Gain] = field(default_factory=dict)
    pairs: int = 0
    least: float | None = None

    @property
    def some_missing(self) -> bool:
        """Whether scores are missing, so that each mean is over the questions that have one."""
        return self.least is not None

    @property
    def kept(self) -> tuple[float, float]:
        """Score and cost of the kept choice: of `auto`, or of the constant if that decides."""
        if self.part is None:
            return self.constant_score, self.constant_cost
        return self.score, self.cost

    def caution(self, candidates: int, questions: int, cost_source: CostSource) -> str:
        """Return a warning, with numbers, of a verdict by which the constant is asked each time.

        Args:
            candidates: how many were compared.
            questions: how many they were compared on.
            cost_source: what the costs are.
        """
        if candidates == 1:
            return f"routing does not pay: {self.constant} is the only candidate"
        asked = counted(questions, "question")
        if not self.gain.known:
            return (
                f"these data cannot tell whether routing pays: {self.pairs:,} of {asked} have "
                f"scores of two candidates, {self.constant} and another one; so {self.constant} "
                "is asked each time (score every candidate on each question; or judge by the logs "
                "of --explore: router-r1 evaluate --off-policy)"
            )
        return f"routing does not pay: on {asked} {self._why_not(cost_source)}"

    def _why_not(self, cost_source: CostSource) -> str:
        """Return the reason why the constant is asked each time, with the numbers.

        The gain is known.
        """
        method = max(self.methods, key=lambda name: self.methods[name].mean)
        numbers = f"score {self.constant_score:.3f}"
        if cost_source == "measured":
            numbers += f", {usd(1000 * self.constant_cost)} for 1,000 questions"
        return (
            f"nothing beats {self.constant} alone ({numbers}) clear of zero, cross-validated: auto "
            f"{self.gain}, {method} {self.methods[method]}; so {self.constant} is asked each time"
        )


def read_verdict(
    *, gain: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]], **found: Any
) -> Verdict:
    """Return the verdict from its `asdict`.

    Raises:
        TypeError: it is of none.
    """
    of_methods = {name: Gain(**one) for name, one in methods.items()}
    return Verdict(gain=Gain(**gain), methods=of_methods, **found)


def as_good_for_less(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the cheapest that scores no less than the best constant and costs less; None = none.

    Where scores are missing, it scores no less whatever they are.

    Args:
        verdicts: those of `compare`, the cost weight 0 first.
    """
    best = verdicts[0]
    cheaper = (
        found
        for found in verdicts
        if found.part is not None
        and (found.score >= best.constant_score if found.least is None else found.least >= 0)
        and found.cost < best.constant_cost
    )
    return min(cheaper, key=lambda found: found.cost, default=None)
