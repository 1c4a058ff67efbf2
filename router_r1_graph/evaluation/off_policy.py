"""Other controllers judged by logged runs: their scores and costs, without asking a candidate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..answers import normalize_answer
from ..controllers import Controller
from ..controllers.learned.embedding import fit_embedding
from ..errors import ConfigError
from ..ledger import price_usd, total
from ..trace import Trace
from ..words import counted
from .off_policy_estimates import Estimates, Logs, estimate, numbered
from .off_policy_run import Followed, follow
from .scorers import Scorer
from .statistics import Interval

FEW_RUNS = 30
"""Below this number of effective runs, an interval is too wide for most decisions."""

_NO_GOLD = "no gold answer"

TOO_MUCH_LOST = 0.5
"""If the logs cannot tell for this share of questions or more, no estimate is given."""


@dataclass(frozen=True)
class OffPolicyRow:
    """The estimates for one controller from the logs.

    Attributes:
        controller: its name.
        score: its mean outcome (a score, or feedback).
        cost_usd: its mean cost of a question.
        effective: the effective number of runs that count for the controller.
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
        left_out: why other runs could not be used -> how many.
        outcome: the kind of score.
        logged_score: the mean of the runs as logged.
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
    """Estimate the scores and costs that controllers would have had, from logged runs.

    Args:
        traces: of runs with decisions (`explore`), and gold answers or feedback.
        controllers: those that are judged; chat models among them are asked, and paid.
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
        keys = {key for trace in traces for key in trace.metadata.get("feedback") or {}}
        if feedback and keys:
            why += f"; there is {', '.join(sorted(keys))}"
        raise ConfigError(f"no run can be used ({why}); {_remedy(left_out)}")
    questions = [trace.question for trace in used]
    vectors = _features(questions, seed)
    names = sorted({c.name for trace in used for c in trace.pool.candidates})
    scores = np.array([_outcome(t, t.answer, scorer, feedback) for t in used])
    costs = np.array([price_usd(total(trace.ledger)) for trace in used])
    low, high = min(0.0, float(scores.min())), max(1.0, float(scores.max()))
    explored = any(trace.context.explore for trace in used)
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
                    explored,
                ),
            )
        )
    return OffPolicy(len(used), left_out, outcome, float(scores.mean()), float(costs.mean()), rows)


def _features(questions: Sequence[str], seed: int) -> np.ndarray:
    """Return the features of the model of outcomes; of questions without words, a constant.

    The model only makes the intervals narrower: without it the estimates are as right.
    """
    try:
        return fit_embedding("tfidf", questions, seed).vectors(questions)
    except ConfigError:
        return np.zeros((len(questions), 1), dtype=np.float32)


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
            why = _NO_GOLD
        if why:
            left_out[why] = left_out.get(why, 0) + 1
        else:
            used.append(trace)
    return used, left_out


def _remedy(left_out: Mapping[str, int]) -> str:
    if _NO_GOLD in left_out:
        return (
            "name a file with their questions and gold answers: router-r1 evaluate "
            "questions.jsonl --off-policy FILE; or score by --feedback KEY"
        )
    return (
        "runs are logged by --trace FILE, with --explore 0.1 so that other choices have a "
        "probability"
    )


def _feedback(trace: Trace, key: str) -> float | None:
    value = (trace.metadata.get("feedback") or {}).get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


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


def _verdict(
    score: Estimates, effective: float, lost: float, elsewhere: bool, explored: bool
) -> str:
    """Say whether it is safe to switch a controller on."""
    if lost >= TOO_MUCH_LOST or not effective:
        if not lost:
            return "the logs cannot tell: no run went as it would have gone; log more of them"
        if elsewhere:
            why = "it asks other queries, gives another answer, or asks on; try serve --shadow"
        else:
            why = "it asks candidates that the logged runs could not ask; " + (
                "did --budget-usd allow them?" if explored else "log with --explore"
            )
        return f"the logs cannot tell for {lost:.0%} of the questions: {why}"
    known = score.difference
    logged = "what was logged" + (", explored calls included" if explored else "")
    if known.low > 0:
        said = f"better than {logged}"
    elif known.high < 0:
        said = f"worse than {logged}"
    else:
        said = f"not told apart from {logged}: {_signed(known)}"
    if lost:
        said += f"; for {lost:.1%} of the questions the logs cannot tell"
    if effective < FEW_RUNS:
        said += (
            f"; only {counted(max(1, round(effective)), 'run')} can be counted for it, and about "
            f"{FEW_RUNS} are needed: log more"
        )
    return said


def _signed(known: Interval) -> str:
    return f"between {known.low:+.3f} and {known.high:+.3f}"


def _finite(value: Any) -> Any:
    """Return a value with None for all numbers that JSON does not have."""
    as_one: Callable[[Any], Any] = _finite
    if isinstance(value, dict):
        return {key: as_one(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_one(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
