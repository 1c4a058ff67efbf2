"""Traces to training data: supervised rows and rollout rows.

The key invariant: the ids are the ones that the policy saw and sampled, and the author of a token
is known from the trace, never guessed from the text. `env_mask` is 0 exactly on the environment's
tokens, even if the policy itself wrote an information tag. A trace for which this cannot hold
(of another protocol or tokenizer, or torn) is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TypedDict

from langchain_core.messages import AIMessage

from router_r1_graph import Trace, TraceError
from router_r1_graph.budget import Left
from router_r1_graph.controllers.controller import View
from router_r1_graph.controllers.policy.tokens import Piece, TokenCodec
from router_r1_graph.protocol import VERSION

IGNORED = -100
"""The label that the loss leaves out."""


class SupervisedRow(TypedDict):
    """`input_ids`: the whole episode, length T; `labels`: length T, -100 on the environment's."""

    input_ids: list[int]
    labels: list[int]


class RolloutRow(TypedDict):
    """One episode as TRL's `rollout_func` wants it.

    `completion_ids`, `logprobs` and `env_mask` have the same length; `env_mask` is 1 on the
    policy's tokens, and `logprobs` is 0.0 where the mask is 0. It is also 0.0 where the turn has
    none (a teacher's text): such a row cannot be weighted by importance.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    env_mask: list[int]


def rollout_row(trace: Trace, codec: TokenCodec) -> RolloutRow:
    """Return an episode as prompt and completion.

    A completion counts as finished for TRL when it ends in the tokenizer's end-of-sequence token,
    so one that ends otherwise (in a stop text, in another end token of the model) gets it, masked
    out.

    Raises:
        TraceError: the trace has no turn, speaks another version of the protocol, or holds ids of
            another tokenizer.
    """
    prompt, *rest = _pieces(trace, codec)
    ids = [token for piece in rest for token in piece.ids]
    mask = [int(piece.by_policy) for piece in rest for _ in piece.ids]
    logprobs = [score for piece in rest for score in (piece.logprobs or [0.0] * len(piece.ids))]
    end = codec.tokenizer.eos_token_id
    if ids[-1:] != [end]:
        ids, mask, logprobs = [*ids, end], [*mask, 0], [*logprobs, 0.0]
    return {"prompt_ids": prompt.ids, "completion_ids": ids, "logprobs": logprobs, "env_mask": mask}


def supervised_rows(
    traces: Iterable[Trace], codec: TokenCodec, *, from_turn: int = 0
) -> Iterator[SupervisedRow]:
    """Yield a row for each trace; only the controller's tokens are learned.

    Args:
        traces: finished runs.
        codec: how to tokenise.
        from_turn: turns before this one, counted from 0, are read and not learned.

    Raises:
        TraceError: a trace has no turn, speaks another version of the protocol, or holds ids of
            another tokenizer.
    """
    for trace in traces:
        pieces = _pieces(trace, codec)
        turn = accumulate(piece.by_policy for piece in pieces)  # counted from 1
        learned = [p.by_policy and t > from_turn for p, t in zip(pieces, turn, strict=True)]
        yield {
            "input_ids": [token for piece in pieces for token in piece.ids],
            "labels": [
                token if ours else IGNORED
                for piece, ours in zip(pieces, learned, strict=True)
                for token in piece.ids
            ],
        }


def _pieces(trace: Trace, codec: TokenCodec) -> list[Piece]:
    if trace.protocol_version != VERSION:
        raise TraceError(
            f"trace {trace.id!r}: written in protocol version {trace.protocol_version}; this "
            f"release speaks version {VERSION}"
        )
    if not trace.turns:
        raise TraceError(f"trace {trace.id!r}: the controller wrote nothing: nothing to learn from")
    for message in trace.scratchpad:
        if isinstance(message, AIMessage) and message.additional_kwargs.get("tokens") is not None:
            _check_tokens(trace, message, codec)
    context = trace.context
    start = Left(context.max_rounds, context.budget_usd, context.deadline_seconds)
    view = View(trace.question, trace.pool, context, start, scratchpad=trace.scratchpad)
    pieces = list(codec.pieces(view))
    while not pieces[-1].by_policy:  # an observation after the last turn: the run was stopped there
        pieces.pop()
    return pieces


def _check_tokens(trace: Trace, message: AIMessage, codec: TokenCodec) -> None:
    """Refuse ids of another tokenizer, and ids that lost their log-probabilities.

    Ids of another tokenizer look like any other: only their text shows the difference.
    """
    try:
        tokens = message.additional_kwargs["tokens"]
        ids, logprobs = list(tokens["output_ids"]), list(tokens["logprobs"])
        whole = bool(ids) and len(logprobs) in (0, len(ids)) and bool(tokens["input_ids"])
        text = codec.text_of(ids)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise TraceError(
            f"trace {trace.id!r}: the token ids of a turn are broken: {error!r}"
        ) from None
    if not whole:
        raise TraceError(
            f"trace {trace.id!r}: a turn has {len(ids)} ids and {len(logprobs)} log-probabilities"
        )
    if text != str(message.text).strip():
        raise TraceError(
            f"trace {trace.id!r}: the ids of a turn are of another tokenizer: they read "
            f"{text[:40]!r} here, and the turn is {str(message.text)[:40]!r}; take 'tokens' out of "
            "its messages to have their text tokenised anew"
        )
