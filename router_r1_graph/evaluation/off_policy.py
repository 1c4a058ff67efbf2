"""Another controller judged by logged runs: what it would have scored and cost, asking nobody.

The controller is led along each run: at every turn, it sees what the logged controller saw, and
says what it would do. While both do the same, with the same queries, the replies are known. A
decision is one call (`router_r1_graph.decisions`), and its ratio of probabilities weighs the run.
Who would stop earlier, or answers otherwise, is scored by its own answer.

What cannot be told is counted, not guessed: a candidate that the log could not have asked, another
query, and going on where the log stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from langchain_core.messages import AIMessage, ToolMessage

from .. import protocol
from ..answers import normalize_answer
from ..budget import Left
from ..controllers import Controller, View
from ..controllers.learned.embedding import fit_embedding
from ..controllers.own import own_of
from ..decisions import Decision, Draws, of_message
from ..errors import ConfigError, ControllerError
from ..ledger import price_usd, total
from ..observations import call_records, kept
from ..protocol import Call
from ..trace import Trace
from .off_policy_estimates import Estimates, Logs, estimate, numbered
from .scorers import Scorer
from .statistics import Interval

FEW_RUNS = 30
"""Below so many effective runs, an interval says little."""

TOO_MUCH_LOST = 0.5
"""From this share of questions on for which the logs cannot tell, nothing is told."""


@dataclass
class Followed:
    """One run with the controller that is judged led along it."""

    trace: Trace
    weights: list[float] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    chosen: list[dict[str, float]] = field(default_factory=list)
    square: float = 1.0
    fourth: float = 1.0
    lost: float = 0.0
    """The weight of what the log cannot tell; `elsewhere` is the part where it never was."""
    elsewhere: float = 0.0
    answer: str = ""
    cost_usd: float = 0.0

    @property
    def weight(self) -> float:
        """The weight of the run so far."""
        return self.weights[-1] if self.weights else 1.0

    def lose(self) -> None:
        """Count what is left of the run as what the log cannot tell."""
        self.lost += self.weight
        self.elsewhere += self.weight
        self.weights.append(0.0)
        self.asked.append("")
        self.chosen.append({})
        self.square = self.fourth = 0.0


@dataclass(frozen=True)
class OffPolicyRow:
    """What the logs tell of one controller.

    Attributes:
        controller: its name.
        score: its mean outcome (a score, or feedback).
        cost_usd: its mean cost of a question.
        effective: the effective number of runs; of `runs`, these speak for the controller.
        lost: the share of questions for which the logs cannot tell, in [0, 1].
        verdict: a sentence: whether it is safe to switch it on.
    """

    controller: str
    score: Estimates
    cost_usd: Estimates
    effective: float
    lost: float
    verdict: str


@dataclass(frozen=True)
class OffPolicy:
    """The whole report.

    Attributes:
        runs: the runs that could be used.
        left_out: why others could not -> how many.
        outcome: what the score is.
        logged_score: the mean of the runs as they were.
        logged_cost_usd: their mean cost.
        rows: one for each controller.
    """

    runs: int
    left_out: Mapping[str, int]
    outcome: str
    logged_score: float
    logged_cost_usd: float
    rows: Sequence[OffPolicyRow]

    def to_json(self) -> dict[str, Any]:
        """Return built-in types; a number that is not known is null."""
        return _finite(asdict(self))  # type: ignore[no-any-return]


def judge(
    traces: Sequence[Trace],
    controllers: Sequence[Controller],
    *,
    scorer: Scorer | None = None,
    metric: str = "exact_match",
    feedback: str = "",
    cost_weight: float | None = None,
    seed: int = 0,
) -> OffPolicy:
    """Estimate what controllers would have scored and cost, from logged runs.

    Args:
        traces: of runs with decisions (`explore`), and gold answers or feedback.
        controllers: who is judged; chat models among them are asked, and paid.
        scorer: scores answers; not used with feedback.
        metric: its name.
        feedback: the key of the feedback that is the outcome; "" = the scorer's.
        cost_weight: of the controllers; None = as in each run.
        seed: of the model of outcomes.

    Raises:
        ConfigError: no trace can be used; the message says why.
    """
    outcome = f"feedback {feedback}" if feedback else metric
    used, left_out = _usable(traces, feedback)
    if not used:
        why = "; ".join(f"{reason}: {count}" for reason, count in left_out.items()) or "no traces"
        raise ConfigError(
            f"no run can be used ({why}); runs are logged by --trace FILE, with --explore 0.1 so "
            "that other choices have a probability"
        )
    questions = [trace.question for trace in used]
    vectors = fit_embedding("tfidf", questions, seed).vectors(questions)
    names = sorted({c.name for trace in used for c in trace.pool.candidates})
    scores = np.array([_outcome(t, t.answer, scorer, feedback) for t in used])
    costs = np.array([price_usd(total(trace.ledger)) for trace in used])
    low, high = min(0.0, float(scores.min())), max(1.0, float(scores.max()))
    rows = []
    for controller in controllers:
        followed = [follow(trace, controller, cost_weight) for trace in used]
        if feedback:
            for run in followed:
                if normalize_answer(run.answer) != normalize_answer(run.trace.answer):
                    run.lose()  # what people would say of another answer, nobody knows
        ours = [_outcome(run.trace, run.answer, scorer, feedback) for run in followed]
        spent = [run.cost_usd for run in followed]
        score_logs = _logs(followed, names, np.array(ours), scores, vectors)
        cost_logs = replace(score_logs, outcomes=np.array(spent), logged=costs)
        score = estimate(score_logs, low, high)
        lost = min(1.0, float(score_logs.lost.mean()))
        rows.append(
            OffPolicyRow(
                controller.name,
                score,
                estimate(cost_logs, 0.0, math.inf),
                score_logs.effective,
                lost,
                _verdict(
                    score,
                    score_logs.effective,
                    lost,
                    sum(run.elsewhere for run in followed) > sum(run.lost for run in followed) / 2,
                ),
            )
        )
    return OffPolicy(
        len(used), left_out, outcome, float(scores.mean()), float(costs.mean()), rows
    )


def follow(trace: Trace, controller: Controller, cost_weight: float | None = None) -> Followed:
    """Lead a controller along a run, up to where it would end it or the run cannot tell."""
    run = Followed(trace)
    context = replace(trace.context, explore=0.0, approve_above_usd=None)
    if cost_weight is not None:
        context = replace(context, cost_weight=cost_weight)
    own = 0.0
    turns = [i for i, m in enumerate(trace.scratchpad) if isinstance(m, AIMessage)]
    for round_, place in enumerate([*turns, len(trace.scratchpad)]):
        before = trace.scratchpad[:place]
        logged = trace.scratchpad[place] if place < len(trace.scratchpad) else None
        decisions = of_message(logged) if logged else []
        calls = [call.cost_usd + call.saved_usd for call in call_records(before)]
        run.cost_usd = sum(calls) + own
        ends = logged is None or (place == turns[-1] and not decisions)
        over = ends and trace.stop_reason != "answered"
        left = _left(context, 0 if over else context.max_rounds - round_, run.cost_usd)
        view = View(trace.question, trace.pool, context, left, scratchpad=before)
        reply = controller.decide(view)
        own += reply.cost_usd + reply.saved_usd
        run.cost_usd = sum(calls) + own
        if reply.error:
            raise ControllerError(f"{controller.name} failed: {reply.error.message}")
        turn = protocol.parse(reply.text)
        if view.must_answer or (turn.answer is not None and not turn.calls):
            observed = (kept(m, whole=True) for m in reversed(before) if isinstance(m, ToolMessage))
            run.answer = turn.answer or next(filter(None, observed), "")  # as the answer node does
            return run
        if not _same_queries(turn.calls, decisions):
            run.lose()
            return run
        for call, decision in zip(turn.calls, decisions, strict=True):
            _weigh(run, decision, _chances(controller, view, call))
        if not run.weight:
            return run
    return run


def _left(context: Any, rounds: int, spent_usd: float) -> Left:
    budget = context.budget_usd
    usd = None if budget is None else budget - spent_usd
    return Left(max(0, rounds), usd, context.deadline_seconds)


def _same_queries(calls: Sequence[Call], decisions: Sequence[Decision]) -> bool:
    return bool(calls) and [c.query for c in calls] == [d.query for d in decisions]


def _chances(controller: Controller, view: View, call: Call) -> Mapping[str, float]:
    """Return with which probability the controller asks each candidate in a call's place."""
    own = own_of(controller)
    if isinstance(own, Draws):
        return own.probabilities(view, call)
    candidate = view.pool.find(call.candidate)
    return {candidate.name if candidate else call.candidate: 1.0}


def _weigh(run: Followed, decision: Decision, chances: Mapping[str, float]) -> None:
    """Go on behind one decision."""
    logged, before = decision.probabilities, run.weight
    known = {name: p for name, p in chances.items() if p > 0 and name in logged}
    run.lost += before * max(0.0, 1 - sum(known.values()))
    ratios = {name: p / logged[name] for name, p in known.items()}
    run.square = before**2 * sum(p * ratios[n] for n, p in known.items())
    run.fourth = before**4 * sum(p * ratios[n] ** 3 for n, p in known.items())
    run.chosen.append(known)
    run.asked.append(decision.asked)
    run.weights.append(before * ratios.get(decision.asked, 0.0))


def _usable(traces: Sequence[Trace], feedback: str) -> tuple[list[Trace], dict[str, int]]:
    used: list[Trace] = []
    left_out: dict[str, int] = {}
    for trace in traces:
        why = ""
        if not trace.decisions and trace.calls:
            why = "no decisions logged (an earlier release, or a person's turn)"
        elif feedback and _feedback(trace, feedback) is None:
            why = f"no feedback {feedback!r}"
        elif not feedback and not trace.gold:
            why = "no gold answer"
        if why:
            left_out[why] = left_out.get(why, 0) + 1
        else:
            used.append(trace)
    return used, left_out


def _feedback(trace: Trace, key: str) -> float | None:
    value = (trace.metadata.get("feedback") or {}).get(key)
    usable = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if usable else None


def _outcome(trace: Trace, answer: str, scorer: Scorer | None, feedback: str) -> float:
    if feedback or scorer is None:
        return _feedback(trace, feedback) or 0.0
    return scorer(answer, trace.gold)


def _logs(
    runs: Sequence[Followed],
    names: Sequence[str],
    outcomes: np.ndarray,
    logged: np.ndarray,
    vectors: np.ndarray,
) -> Logs:
    """Return the runs as arrays; shorter ones are padded."""
    depth, number = max(1, *(len(r.weights) for r in runs)), {n: i for i, n in enumerate(names)}
    weights = np.ones((len(runs), depth))
    asked = np.full((len(runs), depth), -1, dtype=np.intp)
    chosen = np.zeros((len(runs), depth, len(names)))
    for i, run in enumerate(runs):
        weights[i] = run.weight
        for k, weight in enumerate(run.weights):
            weights[i, k], asked[i, k] = weight, number.get(run.asked[k], -1)
            for name, chance in run.chosen[k].items():
                chosen[i, k, number[name]] = chance
    return Logs(
        groups=numbered([run.trace.question for run in runs]),
        weights=weights,
        asked=asked,
        chosen=chosen,
        squares=np.array([run.square for run in runs]),
        fourths=np.array([run.fourth for run in runs]),
        lost=np.array([run.lost for run in runs]),
        outcomes=outcomes,
        logged=logged,
        vectors=vectors,
    )


def _verdict(score: Estimates, effective: float, lost: float, elsewhere: bool) -> str:
    """Say whether it is safe to switch a controller on."""
    if lost >= TOO_MUCH_LOST or not effective:
        if not lost:
            return "the logs cannot tell: no run went as it would have gone; log more of them"
        if elsewhere:
            why = "it asks other queries, gives another answer, or asks on; try serve --shadow"
        else:
            why = "it asks whom they had no chance to ask; log with --explore"
        return f"the logs cannot tell for {lost:.0%} of the questions: {why}"
    known = score.difference
    if known.low > 0:
        said = "better than what was logged"
    elif known.high < 0:
        said = "worse than what was logged"
    else:
        said = f"not told apart from what was logged: {_signed(known)}"
    if lost:
        said += f"; for {lost:.1%} of the questions the logs cannot tell"
    if effective < FEW_RUNS:
        said += f"; only {effective:.0f} runs speak for it"
    return said


def _signed(known: Interval) -> str:
    return f"between {known.low:+.3f} and {known.high:+.3f}"


def _finite(value: Any) -> Any:
    """Return a value with None for all numbers that JSON cannot say."""
    as_one: Callable[[Any], Any] = _finite
    if isinstance(value, dict):
        return {key: as_one(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_one(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
