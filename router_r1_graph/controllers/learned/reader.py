"""The reader: it asks one candidate after another, reads the replies, and stops when it is sure.

After each reply it takes the span that is most likely right (`spans`, `reading`), and asks on while
that is worth its price at the run's cost weight (`stopping`). Two settings are rules that are
fitted: `cascade` asks from cheap to expensive, `vote` asks all at once, at any cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...candidates import CandidatePool
from ...candidates.reply import Reply
from ...candidates.written_down import STORED
from ...errors import ConfigError, ControllerError
from ...protocol import Call, Turn
from ..choice import Reason
from ..controller import View
from ..rules import UNKNOWN, RuleController, answer_in, replies_by_candidate
from .folder import columns, reading, write
from .order import asking_order
from .reading import NO_SPAN, Best, Examples, JudgedSpans, Regressions, judge
from .recorded import RecordedReplies
from .spans import ReadSpans, feature_names, read
from .stopping import Point, thresholds, walk

VERSION = 1
_FOLDS = 5

ReaderKind = Literal["reader", "cascade", "vote"]
KINDS: tuple[ReaderKind, ...] = ("reader", "cascade", "vote")


class ReaderController(RuleController):
    """Asks in an order, takes the answer that is most likely right, and stops when it is sure.

    Make one with `fit` or `load`. The pool must hold the candidates of the fit, in any order.

    Attributes:
        known: the K candidates of the fit, as descriptors, in the order in which they are asked.
        costs: the cost of each, length K.
        cost_source: `measured` (USD for a question) or `prices` (USD per million tokens).
        regressions: the weights of the features.
        sure: K x N, how sure it was of N recorded questions after each reply, by regressions that
            had not seen them.
        right: K x N, whether its answer was right.
        about: its origin, for people who read the folder.
        kind: one of `KINDS`.
    """

    def __init__(
        self,
        known: CandidatePool,
        costs: np.ndarray,
        cost_source: Literal["measured", "prices"],
        regressions: Regressions,
        sure: np.ndarray,
        right: np.ndarray,
        about: Mapping[str, Any],
        *,
        kind: ReaderKind = "reader",
        name: str = "",
    ) -> None:
        self.known = known
        self.costs = costs
        self.cost_source = cost_source
        self.regressions = regressions
        self.sure = sure
        self.right = right
        self.about = dict(about)
        self.kind = kind
        self.name = name or kind
        self.reads_cost_weight = kind != "vote"
        self._names = [candidate.name for candidate in known.candidates]
        self._last: tuple[float, np.ndarray] | None = None  # most runs have one cost weight

    @classmethod
    def fit(
        cls,
        recorded: RecordedReplies,
        *,
        kind: ReaderKind = "reader",
        seed: int = 0,
        judged: Sequence[JudgedSpans] | None = None,
    ) -> ReaderController:
        """Fit a reader to recorded replies.

        The same replies and seed give the same reader on one machine.

        Args:
            recorded: the replies of all candidates, with gold answers.
            kind: one of `KINDS`.
            seed: of the folds and of the wrong spans that are seen.
            judged: the result of `judge` for the replies, if it is known already.

        Raises:
            ConfigError: there are too few questions, or no span of a reply is right.
            ImportError: scikit-learn is not installed.
        """
        questions = len(recorded.questions)
        if questions < 2 * _FOLDS:
            raise ConfigError(
                f"reader: {questions} questions have the replies of all candidates; at least "
                f"{2 * _FOLDS} are needed"
            )
        costs, source = recorded.costs()
        order = list(np.argsort(costs, kind="stable"))
        if kind == "reader":
            order = asking_order(recorded, costs)
        judged = [
            replace(one, reading=one.reading.ordered(order)) for one in judged or judge(recorded)
        ]
        if not any(one.right.any() for one in judged):
            raise ConfigError(
                "reader: no span of a reply matches a gold answer by exact match: there is nothing "
                "to learn"
            )
        examples = Examples(judged, seed)
        sure, right = np.zeros((2, len(order), questions))
        fold = np.random.default_rng(seed).permutation(questions) % _FOLDS
        for held_out in range(_FOLDS):
            fitted = examples.fit(np.flatnonzero(fold != held_out))
            out = np.flatnonzero(fold == held_out)
            sure[:, out], right[:, out] = fitted.judge([judged[i] for i in out])
        known = recorded.pool.descriptors()
        return cls(
            known.with_candidates(known.candidates[column] for column in order),
            costs[order],
            source,
            examples.fit(range(questions)),
            sure,
            right,
            {"seed": seed, "questions": questions},
            kind=kind,
        )

    def save(self, folder: str | Path) -> None:
        """Write the reader: JSON and npz, nothing that runs code when it is loaded.

        Raises:
            OSError: the folder cannot be written.
        """
        head = {
            "cost_source": self.cost_source,
            "about": self.about,
            "pool": self.known.model_dump(mode="json", exclude_defaults=True),
            "features": feature_names(self._names),
        }
        arrays = {
            "costs": self.costs,
            "weights": self.regressions.weights,
            "intercepts": self.regressions.intercepts,
            "sure": self.sure,
            "right": self.right,
        }
        write(folder, self.kind, VERSION, head, arrays)

    @classmethod
    def load(cls, folder: str | Path, *, name: str | None = None) -> ReaderController:
        """Read a reader that `save` has written.

        Raises:
            ControllerError: the folder holds none, a broken one, or one of another release.
        """
        with reading(folder, "reader", KINDS, VERSION) as (head, stored):
            known = CandidatePool.model_validate(head["pool"], context=STORED)
            names = feature_names([candidate.name for candidate in known.candidates])
            if head["features"] != names:
                raise ControllerError(f"{folder}: other features than this release's; fit again")
            arrays = {key: stored[key].astype(float) for key in _SHAPES}
            sizes = {"K": len(known.candidates), "F": len(names), "N": head["about"]["questions"]}
            for key, shape in _SHAPES.items():
                if arrays[key].shape != tuple(sizes[letter] for letter in shape):
                    raise ValueError(f"{key} has the shape {arrays[key].shape}")
            return cls(
                known,
                arrays["costs"],
                head["cost_source"],
                Regressions(arrays["weights"], arrays["intercepts"]),
                arrays["sure"],
                arrays["right"],
                head["about"],
                kind=head["method"],
                name=name or f"reader:{folder}",
            )

    def check(self, pool: CandidatePool) -> None:
        """Check that a pool has the candidates of the fit, and no others.

        Raises:
            ControllerError: it has not.
        """
        columns(self._names, pool, self.name)

    def stop_at(self, cost_weight: float) -> np.ndarray:
        """Return the log-odds from which on it stops after each reply, length K."""
        if self.kind == "vote":
            return np.array([np.inf] * (len(self._names) - 1) + [-np.inf])
        if (last := self._last) is None or last[0] != cost_weight:
            found = thresholds(self.sure, self.right, self.costs, cost_weight)
            self._last = last = (cost_weight, found)
        return last[1]

    def expected(self, cost_weight: float) -> Point:
        """Return its behaviour at a cost weight on the recorded questions.

        No regression had seen the question that it judges; the thresholds are chosen on these
        questions, so that new ones may do a little worse.
        """
        return walk(self.sure, self.right, self.costs, self.stop_at(cost_weight))

    def turn(self, view: View) -> Turn:
        """Ask the next candidates, or answer.

        Candidates between which it would not stop anyway are asked at once.
        """
        columns(self._names, view.pool, self.name, fewer=True)  # some may not be shown: images
        replies, read_so_far = self._replies(view)
        best = self._best(view.question, replies, read_so_far)
        stop_at = self.stop_at(view.context.cost_weight)
        over = view.must_answer or read_so_far == len(self._names)
        log_odds = NO_SPAN if best is None else best[1].log_odds
        if over or (read_so_far and log_odds >= stop_at[read_so_far - 1]):
            return self._answer(view, replies, best)
        names: list[str] = []
        for place, name in enumerate(self._names[read_so_far:], read_so_far):
            if view.pool.find(name):
                names.append(name)
            if names and stop_at[place] < np.inf:
                break
        if not names:
            return self._answer(view, replies, best)
        names = names[: view.context.max_calls_per_round]
        why = f"{_sureness(best)}; ask {', '.join(names)}." if read_so_far else f"Ask {names[0]}."
        return Turn((why,), tuple(Call(name, view.question) for name in names))

    def reasons(self, view: View, reply: Reply) -> tuple[Reason, ...]:
        """Return the evidence for and against the answer so far; before a reply, the weights.

        The first are those that count most.
        """
        replies, read_so_far = self._replies(view)
        best = self._best(view.question, replies, read_so_far)
        weights = self.regressions.weights[max(read_so_far, 1) - 1]
        values = np.ones_like(weights) if best is None else best[1].features
        effect = weights * values
        names = feature_names(self._names)
        return tuple(
            Reason(names[i], float(weights[i]), None if best is None else float(values[i]))
            for i in np.argsort(-np.abs(effect), kind="stable")
            if effect[i]
        )

    def _replies(self, view: View) -> tuple[list[str], int]:
        """Return the replies in the order of the fit, "" = none, and how many were asked."""
        given = {}
        for name, text in replies_by_candidate(view).items():
            candidate = view.pool.find(name)
            given[candidate.name if candidate else name] = text
        own = [view.pool.find(name) for name in self._names]
        names = [candidate.name if candidate else "" for candidate in own]
        asked = max((k + 1 for k, name in enumerate(names) if name in given), default=0)
        return [given.get(name, "") for name in names], asked

    def _best(
        self, question: str, replies: list[str], read_so_far: int
    ) -> tuple[ReadSpans, Best] | None:
        reading = read(question, replies)
        best = self.regressions.best(reading, read_so_far) if read_so_far else None
        return None if best is None else (reading, best)

    def _answer(self, view: View, replies: list[str], best: tuple[ReadSpans, Best] | None) -> Turn:
        if best is None:
            given = (answer for reply in replies if reply and (answer := answer_in(reply, view)))
            return Turn(("No reply holds an answer.",), answer=next(given, UNKNOWN))
        reading, found = best
        text = reading.texts[found.row]
        holding = [
            r for r, words in zip(replies, reading.in_reply[found.row], strict=True) if words[0]
        ]
        thought = f"{_sureness(best)}; {len(holding)} of the replies hold it."
        return Turn((thought,), answer=holding[0] if view.answer_style == "full" else text)


_SHAPES = {"costs": "K", "weights": "KF", "intercepts": "K", "sure": "KN", "right": "KN"}


def _sureness(best: tuple[ReadSpans, Best] | None) -> str:
    if best is None:
        return "No answer yet"
    reading, found = best
    chance = 1 / (1 + np.exp(-found.log_odds))
    return f"{reading.texts[found.row]!r} is right with a chance of {chance:.2f}"
