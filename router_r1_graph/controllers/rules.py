"""Rules that ask more than one candidate the whole question: a cascade, and a vote.

They are what a learned policy is compared with where questions are real and only whole ones have a
recorded reply.
"""

from __future__ import annotations

import re
from collections import Counter

from ..answers import bare_answer, normalize_answer
from ..candidates import Candidate
from ..protocol import Call, Turn
from ..state import View
from .baselines import UNKNOWN, replies_by_candidate
from .scripted import RuleController

# What LLMs write when they guess, or want to be asked otherwise. Of 3,000 replies of six of them to
# NQ questions (shared/data/nq_r1pool) 149 are doubtful by `is_doubtful`; 18% of these have a gold
# answer in them, and 47% of the others.
_DOUBTS = re.compile(
    r"\b(?:not|n't) (?:\w+ )?(?:sure|certain|aware|able to)\b"
    r"|\b(?:do not|don't|does not|doesn't|without) (?:have|more)\b"
    r"|\b(?:more|enough|insufficient) (?:\w+ )?(?:information|context|details?)\b"
    r"|\b(?:could|can) you (?:please )?(?:provide|specify|clarify)|\bunable to\b|\bas an AI\b"
    r"|\bI(?:'m| am) sorry\b|\bbest guess\b|\bpossibly\b|\bperhaps\b",
    re.IGNORECASE,
)


def is_doubtful(reply: str) -> bool:
    """Say whether a reply gives no answer, or gives one and doubts it.

    Example:
        >>> is_doubtful("I'm not entirely sure, but it may be Paris.")
        True
    """
    return not bare_answer(reply) or _DOUBTS.search(reply) is not None


def _by_price(view: View) -> list[Candidate]:
    """Return the candidates from cheap to dear; those of one price in the pool's order."""
    return sorted(view.pool.candidates, key=lambda c: c.price_usd_per_mtok)


class CascadeController(RuleController):
    """Asks the cheapest candidate, and the next dearer one where a reply fails or is doubtful.

    The first answer without a doubt is taken; where none is, that of the dearest who gave one.
    """

    name = "cascade"

    def turn(self, view: View) -> Turn:
        """Ask the next candidate, or answer."""
        replies = replies_by_candidate(view)
        sure = [reply for reply in replies.values() if not is_doubtful(reply)]
        if sure:
            return Turn(("This reply is sure.",), answer=bare_answer(sure[-1]))
        left = [c for c in _by_price(view) if c.name not in replies]
        if left and not view.must_answer:
            why = "That is no sure answer; the next dearer" if replies else "The cheapest first"
            return Turn((f"{why}: {left[0].name}.",), (Call(left[0].name, view.question),))
        answers = [answer for reply in replies.values() if (answer := bare_answer(reply))]
        return Turn(("Nobody is sure.",), answer=answers[-1] if answers else UNKNOWN)


class VoteController(RuleController):
    """Asks several candidates at once, and takes the answer that most of them give.

    Answers are compared as exact match compares them. Of equally many votes those of the dearer
    candidate count, of equal prices those of the earlier one in the pool. Who fails or declines
    does not vote.

    Args:
        voters: so many of the cheapest candidates are asked; None = all. Where that is more than a
            round allows, they are asked in several.
    """

    def __init__(self, voters: int | None = None) -> None:
        self.voters = voters
        self.name = f"vote:{voters}" if voters else "vote"

    def turn(self, view: View) -> Turn:
        """Ask those who have not voted, or count."""
        replies = replies_by_candidate(view)
        voters = _by_price(view)[: self.voters]
        left = [c.name for c in voters if c.name not in replies]
        if left and not view.must_answer:
            names = left[: view.context.max_calls_per_round]
            calls = tuple(Call(name, view.question) for name in names)
            return Turn((f"Ask {', '.join(names)}.",), calls)
        # Sorting keeps the pool's order among equal prices, and max takes the first of the most.
        dear_first = sorted(voters, key=lambda c: -c.price_usd_per_mtok)
        answers = [a for c in dear_first if (a := bare_answer(replies.get(c.name, "")))]
        votes = Counter(normalize_answer(answer) for answer in answers)
        answer = max(answers, key=lambda a: votes[normalize_answer(a)], default=UNKNOWN)
        return Turn(
            (f"{max(votes.values(), default=0)} of {len(voters)} say this.",), answer=answer
        )
