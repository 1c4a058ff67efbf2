"""Traces to training data: supervised rows, preference pairs, rollout rows.

The key invariant: the ids are the ones that the policy saw and sampled, and who wrote a token is
known from the trace, never looked for in the text. `env_mask` is 0 exactly on what the environment
wrote, even where the policy itself wrote an information tag.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TypedDict

from router_r1_graph import Trace, TraceError
from router_r1_graph.controllers.tokens import Piece, TokenCodec
from router_r1_graph.protocol import VERSION
from router_r1_graph.state import Left, View

IGNORED = -100
"""The label that the loss leaves out."""


class SupervisedRow(TypedDict):
    """`input_ids`: the whole episode, length T; `labels`: length T, -100 on the environment's."""

    input_ids: list[int]
    labels: list[int]


class RolloutRow(TypedDict):
    """One episode as TRL's `rollout_func` wants it.

    `completion_ids`, `logprobs` and `env_mask` have the same length; `env_mask` is 1 on what the
    policy sampled, and `logprobs` is 0.0 where it is 0.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    env_mask: list[int]


class PreferencePair(TypedDict):
    """Two episodes of one question, the better one first; masks as in `RolloutRow`."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    chosen_mask: list[int]
    rejected_ids: list[int]
    rejected_mask: list[int]


def rollout_row(trace: Trace, codec: TokenCodec) -> RolloutRow:
    """Return an episode as prompt and completion.

    A completion counts as finished for TRL when it ends in the end-of-sequence token, so one that
    ends otherwise gets it, masked out.

    Raises:
        TraceError: the trace has no turn, or speaks another version of the protocol.
    """
    prompt, *rest = _pieces(trace, codec)
    ids = [token for piece in rest for token in piece.ids]
    mask = [int(piece.by_policy) for piece in rest for _ in piece.ids]
    logprobs = [score for piece in rest for score in (piece.logprobs or [0.0] * len(piece.ids))]
    end = codec.tokenizer.eos_token_id
    if ids[-1:] != [end]:
        ids, mask, logprobs = [*ids, end], [*mask, 0], [*logprobs, 0.0]
    return {"prompt_ids": prompt.ids, "completion_ids": ids, "logprobs": logprobs, "env_mask": mask}


def supervised_rows(traces: Iterable[Trace], codec: TokenCodec) -> Iterator[SupervisedRow]:
    """Yield a row for each trace; only what the controller wrote is learned.

    Raises:
        TraceError: a trace has no turn, or speaks another version of the protocol.
    """
    for trace in traces:
        pieces = _pieces(trace, codec)
        yield {
            "input_ids": [token for piece in pieces for token in piece.ids],
            "labels": [
                token if piece.by_policy else IGNORED for piece in pieces for token in piece.ids
            ],
        }


def preference_pairs(
    traces: Iterable[Trace], codec: TokenCodec, reward: Callable[[Trace], float]
) -> Iterator[PreferencePair]:
    """Yield the best and the worst trace of each prompt, where their rewards differ.

    Args:
        traces: several of a question (the same pool, in the same order, and the same knobs).
        codec: how to tokenise.
        reward: what makes a trace better.
    """
    groups: dict[tuple[int, ...], list[tuple[float, RolloutRow]]] = defaultdict(list)
    for trace in traces:
        row = rollout_row(trace, codec)
        groups[tuple(row["prompt_ids"])].append((reward(trace), row))
    for prompt, scored in groups.items():
        best, worst = max(scored, key=lambda s: s[0]), min(scored, key=lambda s: s[0])
        if best[0] > worst[0]:
            yield {
                "prompt_ids": list(prompt),
                "chosen_ids": best[1]["completion_ids"],
                "chosen_mask": best[1]["env_mask"],
                "rejected_ids": worst[1]["completion_ids"],
                "rejected_mask": worst[1]["env_mask"],
            }


def _pieces(trace: Trace, codec: TokenCodec) -> list[Piece]:
    if trace.protocol_version != VERSION:
        raise TraceError(
            f"trace {trace.id!r}: written in protocol version {trace.protocol_version}; this "
            f"release speaks version {VERSION}"
        )
    if not trace.turns:
        raise TraceError(f"trace {trace.id!r}: the controller wrote nothing: nothing to learn from")
    context = trace.context
    start = Left(context.max_rounds, context.budget_usd, context.deadline_seconds)
    view = View(trace.question, trace.pool, context, start, scratchpad=trace.scratchpad)
    pieces = list(codec.pieces(view))
    while not pieces[-1].by_policy:  # an observation after the last turn: the run was stopped there
        pieces.pop()
    return pieces
