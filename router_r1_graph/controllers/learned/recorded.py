"""Recorded replies with gold answers, for the fit of a `reader`. Needs numpy (extra `eval`).

Shapes: Q questions x C candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...candidates import Candidate, CandidatePool
from ...errors import MatrixError
from .columns import name_in
from .prediction import candidate_means


@dataclass(frozen=True)
class Recorded:
    """One reply to a whole question: its text, its cost, and the right answers.

    `reply` is "" if the candidate failed; `cost_usd` is NaN if it is unknown; `where` is its
    source, for messages ("line 3").
    """

    question: str
    candidate: str
    reply: str
    gold: tuple[str, ...]
    cost_usd: float
    where: str = ""


@dataclass(frozen=True, eq=False)
class RecordedReplies:
    """The replies of all candidates to the same questions.

    Attributes:
        questions: Q texts, each once.
        pool: the C candidates with their descriptors.
        replies: Q x C texts.
        gold: Q times at least one right answer.
        costs_usd: Q x C, NaN = not measured.
    """

    questions: tuple[str, ...]
    pool: CandidatePool
    replies: tuple[tuple[str, ...], ...]
    gold: tuple[tuple[str, ...], ...]
    costs_usd: np.ndarray

    @classmethod
    def gather(
        cls, found: Iterable[Recorded], pool: CandidatePool | None = None, *, source: str
    ) -> RecordedReplies:
        """Put replies together; only questions count that every candidate has replied to.

        Of several replies of a candidate to a question, the last counts.

        Args:
            found: the replies.
            pool: the allowed candidates, with prices; None = those that are found.
            source: the source of the replies, for messages.

        Raises:
            MatrixError: a candidate is not in the pool, or no question has every candidate's reply.
        """
        rows: dict[str, dict[str, Recorded]] = {}
        names: dict[str, None] = {}
        for one in found:
            name = name_in(one.candidate, pool, f"{source}, {one.where}")
            names[name] = None
            rows.setdefault(one.question, {})[name] = one
        order = [c.name for c in pool.candidates if c.name in names] if pool else list(names)
        whole = {q: [row[n] for n in order] for q, row in rows.items() if len(row) == len(order)}
        if not whole:
            raise MatrixError(
                f"{source}: no question has the replies of all {len(order)} candidates"
                if rows
                else f"{source}: there are no replies"
            )
        known = {c.name: c for c in pool.descriptors().candidates} if pool else {}
        candidates = tuple(known.get(name) or Candidate(name=name) for name in order)
        return cls(
            tuple(whole),
            CandidatePool(name=pool.name if pool else "replies", candidates=candidates),
            tuple(tuple(one.reply for one in row) for row in whole.values()),
            tuple(row[0].gold for row in whole.values()),
            np.array([[one.cost_usd for one in row] for row in whole.values()]),
        )

    def select(self, rows: Sequence[int]) -> RecordedReplies:
        """Return some questions, by their numbers."""
        return RecordedReplies(
            tuple(self.questions[row] for row in rows),
            self.pool,
            tuple(self.replies[row] for row in rows),
            tuple(self.gold[row] for row in rows),
            self.costs_usd[list(rows)],
        )

    def costs(self) -> tuple[np.ndarray, Literal["measured", "prices"]]:
        """Return each candidate's cost, length C: its mean in USD, else its list price."""
        measured = candidate_means(self.costs_usd)
        if not np.isnan(measured).any():
            return measured, "measured"
        return np.array([c.price_usd_per_mtok for c in self.pool.candidates], float), "prices"
