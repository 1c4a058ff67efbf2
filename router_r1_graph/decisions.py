"""Decisions: for each call, the candidates that could have been asked, and their probabilities.

A decision is one call that a controller wants to make, at a place in a run where everything before
is known. Its probabilities are conditional on that, so those of a run multiply. With the knob
`explore` (e), the candidate is kept with the probability 1 - e, and otherwise drawn among the K
that the call may go to:

    p(candidate) = (1 - e) * p(the controller writes it) + e / K

A controller that does not draw writes its one candidate with the probability 1. A trained policy
does draw. Its text counts as known, like everything else before the draw.

The key invariant: a decision depends on nothing but what its trace holds. Its digest is a hash of
that, and the draw is a function of the digest. The same seed and the same past give the same
decision, so each of them can be checked by its trace.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any, Protocol, runtime_checkable

from langchain_core.messages import AIMessage, AnyMessage

from .context import RouterContext
from .controllers.controller import View
from .protocol import Call

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Decision:
    """The candidate that was asked in one call, and those that could have been.

    Attributes:
        call: the id of the call in its turn.
        query: the query of the call.
        proposed: the candidate that the controller wrote.
        asked: the candidate that was asked.
        probabilities: of each candidate that could have been asked, in (0, 1], with the sum 1.
        digest: identifies the decision, and all that it depends on.
    """

    call: str
    query: str
    proposed: str
    asked: str
    probabilities: Mapping[str, float]
    digest: str

    @property
    def probability(self) -> float:
        """The probability of the candidate that was asked."""
        return self.probabilities[self.asked]


_KEYS = itemgetter(*(field.name for field in fields(Decision)))


@runtime_checkable
class Draws(Protocol):
    """A controller that draws its candidates, and knows their probabilities."""

    def probabilities(self, view: View, call: Call) -> Mapping[str, float]:
        """Return the probability with which each candidate is asked in this call's place."""
        ...


def decide(
    call: Call,
    call_id: str,
    proposed: str,
    others: Sequence[str],
    view: View,
    draws: Draws | None = None,
) -> Decision:
    """Decide which candidate is asked.

    Args:
        call: the call as the controller wrote it.
        call_id: the id of the call.
        proposed: the candidate that it names.
        others: the other candidates that may be asked instead.
        view: the view that the controller had.
        draws: the controller, if it draws and knows the probabilities.
    """
    rate, open_ = view.context.explore, [proposed, *others]
    own = dict.fromkeys(open_, 0.0)
    own[proposed] = 1.0
    if draws is not None:
        told = draws.probabilities(view, call)
        total = sum(told.get(name, 0.0) for name in open_)
        if total > 0 and told.get(proposed, 0.0) > 0:
            own = {name: told.get(name, 0.0) / total for name in open_}
    chances = {
        name: chance
        for name in sorted(open_)
        if (chance := (1 - rate) * own[name] + rate / len(open_)) > 0
    }
    digest = _digest(
        view.question, view.context, view.scratchpad, call_id, call.query, proposed, chances
    )
    asked = _drawn(digest, rate, proposed, list(chances))
    return Decision(call_id, call.query, proposed, asked, chances, digest)


def to_message(decisions: Iterable[Decision]) -> list[dict[str, Any]]:
    """Return decisions as a turn's message keeps them: built-in types."""
    return [
        {**vars(decision), "probabilities": dict(decision.probabilities)} for decision in decisions
    ]


def of_message(message: AnyMessage) -> list[Decision]:
    """Return the decisions of a turn; [] where none were logged.

    Keys that a newer release may add are ignored.
    """
    known = message.response_metadata.get("router_r1") or {}
    return [Decision(*_KEYS(one)) for one in known.get("decisions") or []]


def replayed(
    question: str, context: RouterContext, scratchpad: Sequence[AnyMessage]
) -> Iterator[tuple[Decision, Decision]]:
    """Yield each decision of a finished run twice: as it was logged, and as it is made again.

    Both are equal, unless the trace was changed.

    Args:
        question: of the run.
        context: the settings of the run.
        scratchpad: its turns and observations.
    """
    for place, message in enumerate(scratchpad):
        if not isinstance(message, AIMessage):
            continue
        before = scratchpad[:place]
        for logged in of_message(message):
            chances = dict(logged.probabilities)
            digest = _digest(
                question, context, before, logged.call, logged.query, logged.proposed, chances
            )
            asked = _drawn(digest, context.explore, logged.proposed, list(chances))
            again = Decision(
                logged.call, logged.query, logged.proposed, asked, logged.probabilities, digest
            )
            yield logged, again


def _digest(
    question: str,
    context: RouterContext,
    before: Sequence[AnyMessage],
    call_id: str,
    query: str,
    proposed: str,
    chances: Mapping[str, float],
) -> str:
    past = [[message.type, message.name, str(message.text)] for message in before]
    # 1 and 1.0 are one value, and a trace that was read again has the latter.
    knobs = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in context.to_state().items()
    }
    known = [question, knobs, past, call_id, query, proposed, chances]
    text = json.dumps(known, ensure_ascii=True, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _drawn(digest: str, rate: float, proposed: str, open_: Sequence[str]) -> str:
    """Return the candidate that is asked: the digest is the only source of chance."""
    number = int(digest, 16) / 16 ** len(digest)
    if number >= rate:
        return proposed
    return open_[min(int(number / rate * len(open_)), len(open_) - 1)]
