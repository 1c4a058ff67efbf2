"""Questions without a reply: all of them are an error, some of them a note."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..errors import ConfigError, RouterR1Error
from ..words import counted, usd
from .purse import Purse
from .run import Outcome


def require_replies(outcomes: Sequence[Outcome], purse: Purse | None) -> None:
    """Check that there is a reply, so that there is something to report.

    Raises:
        ConfigError: the budget allowed no question.
        RouterR1Error: every call failed; the message has the commonest error, and whether the
            budget ended the run.
    """
    stopped = purse.stopped if purse else ""
    if purse and stopped and not outcomes:
        raise ConfigError(
            f"a budget of {usd(purse.budget_usd)} allows no question: the worst case of one is more"
        )
    if outcomes and all(outcome.error for outcome in outcomes):
        [(error, _)] = Counter(outcome.error for outcome in outcomes).most_common(1)
        why = f"every call failed, so there is nothing to report: {error}"
        raise RouterR1Error("\n".join(filter(None, (why, stopped))))


def unanswered(outcomes: Sequence[Outcome]) -> list[str]:
    """Return how many questions got no reply, and the commonest cause; [] = none."""
    failed = [outcome for outcome in outcomes if outcome.error]
    if not failed:
        return []
    [(error, _)] = Counter(outcome.error for outcome in failed).most_common(1)
    again = sum(outcome.asked_again for outcome in failed)
    resume = "; --resume asks again" if again else ""
    if 0 < again < len(failed):
        resume += f" for {again:,} of them"
    of = f"{len(failed)} of {counted(len(outcomes), 'answer')}"
    return [f"Nobody replied for {of}, which count as wrong{resume}: {error}"]
