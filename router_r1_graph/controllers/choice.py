"""How a controller chose a candidate: the numbers behind the choice.

A controller that knows such numbers has the methods of `Weighs`. If it knows them even for a turn
that calls nobody, it has that of `Leans`. If it can explain the effect of each descriptor, it has
those of `Explains`. A controller that judges replies has those of `Reasons`. The others show only
their choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from ..candidates import CandidatePool
from ..candidates.reply import Reply
from .controller import View

Unit = Literal["probability", "utility", "usd_per_mtok"]


@dataclass(frozen=True)
class Choice:
    """One call's choice: a number for each candidate of the pool.

    Attributes:
        unit: the meaning of the numbers. `probability`: in [0, 1], with the sum 1. `utility`: the
            predicted score less the cost, by the cost weight; the highest is asked.
            `usd_per_mtok`: the input plus the output price; the lowest is asked.
        values: the number of each candidate, in the pool's order.
        pool_probability: the probability that a policy writes any of the pool's names there, in
            [0, 1]. The values are shares of it. None where the unit is no probability.
    """

    unit: Unit
    values: Mapping[str, float]
    pool_probability: float | None = None

    @property
    def best(self) -> str:
        """The candidate with the best number; the first of equals."""
        lowest = self.unit == "usd_per_mtok"
        return (min if lowest else max)(self.values, key=lambda name: self.values[name])


@dataclass(frozen=True)
class Effect:
    """The effect of one part of a candidate's descriptor on the probability that it is asked.

    Measured by occlusion: the part is taken out of the prompt, and everything else stays, the
    policy's own words before the name included.

    Attributes:
        candidate: the candidate that the descriptor describes.
        part: `price`, `latency`, or the name of a strength or score.
        without: the descriptor without the part, as the policy reads it.
        probability: the probability of the candidate without the part, in [0, 1].
        change: this probability less that with the whole descriptor, in [-1, 1].
    """

    candidate: str
    part: str
    without: str
    probability: float
    change: float


@dataclass(frozen=True)
class Reason:
    """The evidence of one feature of the replies for or against the answer in them.

    Attributes:
        feature: its name.
        weight: the change of the log-odds that the answer is right, for a value of 1.
        value: the feature of the answer, in [0, 1]; None before there is one.
    """

    feature: str
    weight: float
    value: float | None = None


@runtime_checkable
class Weighs(Protocol):
    """A controller that can explain how it chose each call of a turn."""

    def weigh(self, view: View, reply: Reply) -> tuple[Choice, ...]:
        """Return a choice for each call of a turn, in the order written; () = not known.

        Args:
            view: the view that the controller had.
            reply: the turn that it wrote then.
        """
        ...


@runtime_checkable
class Leans(Protocol):
    """A controller that knows whom it would ask even where its turn makes no usable call."""

    def lean(self, view: View, reply: Reply) -> Choice | None:
        """Return a choice for the place where a turn first names a candidate, or would name one.

        Args:
            view: the view that the controller had.
            reply: the turn that it wrote then; it may be cut.
        """
        ...


@runtime_checkable
class Explains(Weighs, Protocol):
    """A controller that can explain the effect of each part of a descriptor on its choice."""

    def reading(self, pool: CandidatePool) -> Mapping[str, str]:
        """Return each candidate's descriptor as the controller reads it."""
        ...

    def explain(self, view: View, reply: Reply) -> tuple[tuple[Effect, ...], ...]:
        """Return, for each call of a turn, the effects of all parts of all descriptors."""
        ...


@runtime_checkable
class Reasons(Protocol):
    """A controller that can explain why it takes an answer out of replies."""

    def reasons(self, view: View, reply: Reply) -> tuple[Reason, ...]:
        """Return the reasons for and against the answer so far, those that count most first.

        Args:
            view: the view that the controller had.
            reply: the turn that it wrote then.
        """
        ...
