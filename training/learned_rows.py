"""From files of traces to supervised rows: chooses the traces, and counts those left out."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal

from router_r1_graph import ConfigError, Trace
from router_r1_graph.answers import exact_match, is_abstention
from router_r1_graph.controllers.policy.tokens import TokenCodec
from router_r1_graph.cost_scales import AbsoluteCost
from router_r1_graph.ledger import price_usd, total
from router_r1_graph.rewards import reward
from router_r1_graph.words import counted

from .config import WarmStartConfig
from .export import IGNORED, SupervisedRow, supervised_rows
from .models import processes
from .outcomes import judgement_of
from .run import Run

OutcomesOf = Callable[[Sequence[Trace]], list[float | None]]
"""Judges the answers of traces, from 0 to 1; None = not known."""
Right = Callable[[str, Sequence[str]], bool | float]
"""Tells whether an answer is right, by the gold answers."""
_BATCH = 256


class LeftOut:
    """Counts the traces that are left out, by reason, and names the first ones."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = defaultdict(list)

    def add(self, trace: Trace, reason: str) -> None:
        """Count a trace."""
        self._names[reason].append(repr(trace.id or trace.question[:40]))

    def too_long(self, trace: Trace, row: SupervisedRow, stage: str, most: int) -> bool:
        """Return whether a row has more tokens than `most`; if so, count its trace."""
        if len(row["input_ids"]) <= most:
            return False
        self.add(trace, f"which have more than {stage}.max_length = {most} tokens")
        return True

    def tell(self, stage: str) -> None:
        """Print the counts, on one of the processes."""
        if not processes().is_main_process:
            return
        for reason, names in self._names.items():
            first = [*dict.fromkeys(names)]  # of a question, several traces may be left out
            more = ", ..." if len(first) > 3 else ""
            print(
                f"{stage}: {counted(len(names), 'trace')} left out, {reason}: "
                f"{', '.join(first[:3])}{more}"
            )

    def __len__(self) -> int:
        return sum(map(len, self._names.values()))


def warm_rows(
    run: Run,
    traces: Iterable[Trace],
    codec: TokenCodec,
    stage: Literal["warm_start", "best_of_n"],
    *,
    left_out: LeftOut | None = None,
    most: int | None = None,
) -> list[SupervisedRow]:
    """Return the rows of a warm start's traces, by the rules of the run; see `rows_to_learn`.

    Args:
        run: the run, whose `warm_start` says which traces are wanted.
        traces: the traces of the teacher, or of `warm_start.trace_files`.
        codec: how to tokenise.
        stage: the stage that learns them, whose `max_length` counts.
        left_out: counts the traces that are left out.
        most: so many rows at most.
    """
    config = run.config
    length = getattr(config, stage).max_length
    wanted = config.warm_start.model_copy(update={"max_length": length})
    right = config.reward.right
    return rows_to_learn(traces, codec, wanted, stage, _outcomes(run), left_out, right, most)


def _outcomes(run: Run) -> OutcomesOf:
    """Return the judge of traces, by the rules of the run; None = not known."""
    rules = run.config.reward

    def outcomes(traces: Sequence[Trace]) -> list[float | None]:
        if run.outcomes:
            return [judgement_of(trace)["outcome"] for trace in run.outcomes.judge(traces)]
        scale = AbsoluteCost(1.0)
        return [reward(t, scale, metric=rules.metric).outcome if t.gold else None for t in traces]

    return outcomes


def rows_to_learn(
    traces: Iterable[Trace],
    codec: TokenCodec,
    config: WarmStartConfig,
    stage: str,
    outcomes: OutcomesOf | None = None,
    left_out: LeftOut | None = None,
    right: Right = exact_match,
    most: int | None = None,
) -> list[SupervisedRow]:
    """Return the rows of the traces that can be learned from; print how many are left out, and why.

    Args:
        traces: finished runs.
        codec: how to tokenise.
        config: the length of a row, and which traces are wanted.
        stage: the stage's name.
        outcomes: the outcomes to compare with `min_reward`.
        left_out: counts the traces that are left out.
        right: tells whether an answer is right, by the gold answers.
        most: so many rows at most; the other traces are not read.

    Raises:
        TraceError: a trace speaks another version of the protocol, or holds ids of another
            tokenizer.
        ConfigError: no trace is left.
    """
    left_out = LeftOut() if left_out is None else left_out
    rows: list[SupervisedRow] = []
    if config.min_reward is not None and outcomes:
        traces = _good_enough(traces, config.min_reward, outcomes, left_out)
    for trace in _wanted(traces, config, left_out, right):
        if not trace.turns:
            left_out.add(trace, "which have no turn")
            continue
        [row] = supervised_rows([trace], codec)
        if random.Random(trace.question).random() < config.first_turns and not _in_vain(trace):
            row = _first_turn(row)
        if not left_out.too_long(trace, row, stage, config.max_length):
            rows.append(row)
        if len(rows) == most:
            break
    left_out.tell(stage)
    require_rows(rows, stage, left_out)
    return rows


def require_rows(rows: Sequence[SupervisedRow], stage: str, left_out: LeftOut) -> None:
    """Check that a trace is left to learn from, once it was told which are left out.

    Raises:
        ConfigError: none is.
    """
    if not rows:
        raise ConfigError(
            f"{stage}: no trace is left to learn from"
            + ("; see above for what was left out, and raise max_length" if left_out else "")
        )


def _in_vain(trace: Trace) -> bool:
    """Return whether a candidate was asked in vain: few traces teach what to do then."""
    return any(not call.ok or is_abstention(call.reply) for call in trace.calls)


def _first_turn(row: SupervisedRow) -> SupervisedRow:
    """Return a row up to the replies to the first turn."""
    learned = [label != IGNORED for label in row["labels"]]
    begin = learned.index(True)
    end = learned.index(False, begin) if False in learned[begin:] else len(learned)
    return {"input_ids": row["input_ids"][:end], "labels": row["labels"][:end]}


def _good_enough(
    traces: Iterable[Trace], least: float, outcomes: OutcomesOf, left_out: LeftOut
) -> Iterator[Trace]:
    traces = iter(traces)
    while batch := list(islice(traces, _BATCH)):
        for trace, outcome in zip(batch, outcomes(batch), strict=True):
            if outcome is None:
                left_out.add(trace, "whose outcome is not known (warm_start.min_reward)")
            elif outcome < least:
                left_out.add(trace, "whose outcome is lower than warm_start.min_reward")
            else:
                yield trace


def _wanted(
    traces: Iterable[Trace], config: WarmStartConfig, left_out: LeftOut, right: Right
) -> Iterator[Trace]:
    if not config.trace_files:  # the teacher's show format, right or wrong
        yield from traces
        return
    best: dict[str, tuple[float, Trace]] = {}
    for trace in traces:
        if config.correct_only and trace.gold and not right(trace.answer, trace.gold):
            left_out.add(trace, "whose answer is wrong (warm_start.correct_only)")
            continue
        cost = price_usd(total(trace.ledger))
        if config.max_usd is not None and cost > config.max_usd:
            left_out.add(trace, "which cost more than warm_start.max_usd")
        elif not config.best_of_question:
            yield trace
        elif trace.question not in best or cost < best[trace.question][0]:
            best[trace.question] = (cost, trace)
    for _, trace in best.values():
        yield trace
