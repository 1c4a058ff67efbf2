"""The reward: format, outcome and cost of a trace. Pure functions, no torch.

    r = -1                       the format is wrong
    r = 0                        there is no answer, or the outcome is 0 (gated; see `reward`)
    r = (1 - a) * m + a * c      otherwise; a = cost weight, m = outcome, c = cheapness (gated: at
                                 least 0, where the scale has scores below)

The key invariant: only what the controller wrote is judged, never a candidate's reply or failure.
Every result is finite, for any input.

Source: arXiv 2506.09033, section 3 (PAPER.md, section Reward), and the evaluation scripts of SQuAD
(normalisation) and HotpotQA (yes/no in F1), which the paper's metrics go back to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_core.messages import AIMessage

from . import protocol
from .answers import exact_match, f1_score
from .budget import StopReason
from .candidates import CandidatePool
from .cost_scales import CostScale
from .errors import ConfigError, TraceError
from .trace import Trace


@dataclass(frozen=True)
class RewardBreakdown:
    """A reward and its parts.

    Attributes:
        format: 1.0 when the format is right, else 0.0.
        outcome: the worth of the answer, in [0, 1]: exact match or F1 of the controller's own
            answer, or the given one. It counts even if the format is wrong, like the paper's
            published exact match.
        cost: cheapness in [0, 1]: 1 = cheapest.
        total: the reward, in [-1, 1].
        answer: the text that was compared with the gold answers; "" if the controller wrote none.
        errors: why the format is wrong.
    """

    format: float
    outcome: float
    cost: float
    total: float
    answer: str
    errors: tuple[str, ...] = ()


def reward(
    trace: Trace,
    scale: CostScale,
    *,
    gold: Sequence[str] | None = None,
    cost_weight: float | None = None,
    metric: Literal["exact_match", "f1"] = "exact_match",
    outcome: float | None = None,
    gated: bool = True,
) -> RewardBreakdown:
    """Return the reward of a trace.

    If the deadline or the budget ended a run before the controller's next turn, its reward is 0,
    because there is no answer. It is not -1: nothing that was written is wrong, and a candidate
    that hangs must not count as the controller's format error. A controller that itself fails does
    have a format error.

    Args:
        trace: a finished run.
        scale: how cost becomes cheapness.
        gold: gold answers; None = the trace's own.
        cost_weight: alpha in [0, 1]; None = the run's own.
        metric: the measure of a good answer.
        outcome: the worth of the answer, in [0, 1], by a judge of your own; it counts as 0 if
            the controller wrote no answer. None = by the metric.
        gated: whether cost counts for right answers only, as in the paper's code; False = the
            equation as it is written, which also rewards cheap wrong answers.

    Raises:
        TraceError: there is no gold answer, and no outcome is given.
        ConfigError: the cost weight or the outcome is out of range.
    """
    gold = trace.gold if gold is None else gold
    if outcome is not None and not 0 <= outcome <= 1:
        raise ConfigError(f"an outcome is a number from 0 to 1, not {outcome!r}")
    if not gold and outcome is None:
        raise TraceError(f"trace {trace.id!r}: no gold answer to compare with")
    alpha = trace.context.cost_weight if cost_weight is None else cost_weight
    if not 0 <= alpha <= 1:
        raise ConfigError(f"cost_weight is a number from 0 to 1, not {alpha!r}")
    errors = format_errors(trace.turns, trace.pool, cut_off=_was_cut_off(trace))
    written = written_answer(trace)
    answer = written or ""
    if outcome is None:
        outcome = {"exact_match": exact_match, "f1": f1_score}[metric](answer, gold)
    elif written is None:
        outcome = 0.0
    cheap = scale.score(scale.measure(trace))
    total = (1 - alpha) * outcome + alpha * cheap
    if errors:
        total = -1.0
    elif written is None or (gated and outcome == 0):
        total = 0.0
    elif gated:  # no cost makes a right answer worse than a wrong one
        total = max(0.0, total)
    return RewardBreakdown(float(not errors), outcome, cheap, total, answer, errors)


def written_answer(trace: Trace) -> str | None:
    """Return the last answer that the controller wrote; None = it wrote none."""
    answers = [a for turn in trace.turns if (a := protocol.parse(turn).answer) is not None]
    return answers[-1] if answers else None


def _was_cut_off(trace: Trace) -> bool:
    outside = trace.stop_reason in (StopReason.DEADLINE, StopReason.BUDGET_USD)
    return outside and not (trace.scratchpad and isinstance(trace.scratchpad[-1], AIMessage))


#: Placeholders in a prompt, which are not to be copied.
_NAME_PLACEHOLDERS = ("candidate name", "candidate", "llm-name", "name")
_QUERY_PLACEHOLDERS = (
    "a query that can be understood on its own",
    "a question of its own that it can answer without seeing this conversation",
    "query",
    "your query",
    "sub-question",
)


def format_errors(
    turns: Sequence[str], pool: CandidatePool, *, cut_off: bool = False
) -> tuple[str, ...]:
    """Return the format errors of the controller's turns; empty if there are none.

    Only the controller's own turns are judged: no reply, however broken or hostile, can make them
    wrong. So the paper's "as many searches as informations" becomes: each search can be made as it
    is written. A search that failed, or was refused because of a limit (rounds, calls, USD), is no
    format error; one that names no candidate of the pool is.

    The turns are judged as one text, as in the paper: the first begins with a think tag, the last
    ends with the answer. A turn with neither a search nor an answer is an error.

    Args:
        turns: the texts of the controller's turns.
        pool: the candidates.
        cut_off: the run was ended from outside before the controller's next turn, so that a missing
            answer is no error.
    """
    errors: list[str] = []
    for number, text in enumerate(turns, 1):
        turn = protocol.parse(text)
        where = f"turn {number}"
        errors += [f"{where}: {mistake.reason}" for mistake in turn.mistakes]
        if number == 1 and not text.strip().startswith("<think>"):
            errors.append(f"{where}: does not begin with a think tag")
        if any(not thought for thought in turn.thoughts):
            errors.append(f"{where}: the think tag is empty")
        if turn.answer is not None and turn.calls:
            errors.append(f"{where}: an answer beside a search")
        elif turn.answer is not None and number < len(turns):
            errors.append(f"{where}: an answer before the last turn")
        for call in turn.calls:
            if call.query.casefold() in _QUERY_PLACEHOLDERS:
                errors.append(f"{where}: a placeholder instead of a query")
            if pool.find(call.candidate) is not None:
                continue
            if call.candidate.casefold() in _NAME_PLACEHOLDERS:
                errors.append(f"{where}: a placeholder instead of a candidate")
            else:
                errors.append(f"{where}: no candidate {call.candidate[:40]!r}")
    answers = sum(protocol.tags(text).count("<answer>") for text in turns)
    if answers > 1 or (answers == 0 and not cut_off):
        errors.append(f"{answers} answers instead of one")
    if not cut_off and (not turns or not turns[-1].strip().endswith("</answer>")):
        errors.append("does not end with an answer")
    return tuple(errors)
