"""From text to ids, once: the same for a policy that serves and for the data it is trained on.

The context of a policy is prompt, turn, observation, turn, observation, ...: each piece is
tokenised on its own and never again, so what was sampled is what is trained. A text that spells a
special token (the question's, a candidate's) stays text: it never ends a turn. This module imports
no torch: a tokenizer is a Hugging Face one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random
from string import Template
from typing import Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from ...errors import ControllerError
from ...protocol import render_observations
from ..controller import View, render_view


def random_of(view: View, seed: int = 0) -> Random:
    """Return the random stream of the next turn, made from seeds, question and the turn's number.

    Args:
        view: the question so far; its `RouterContext.seed` is mixed in.
        seed: the controller's seed.
    """
    turns = sum(isinstance(message, AIMessage) for message in view.scratchpad)
    return Random(f"{seed}/{view.context.seed}/{view.question}/{turns}")


class TurnTokens(TypedDict):
    """One turn of a policy, in `AIMessage.additional_kwargs["tokens"]`.

    `input_ids`: what was added to the context before the turn (the prompt, later an observation);
    `output_ids`: what was sampled; `logprobs`: of each sampled id, the same length.
    """

    input_ids: list[int]
    output_ids: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class Piece:
    """A stretch of a context and who wrote it."""

    ids: list[int]
    by_policy: bool
    logprobs: list[float] | None = None


@dataclass(frozen=True)
class TokenContext:
    """The context of a turn; `added` is new since the turn before (at first, the prompt)."""

    before: list[int]
    added: list[int]

    @property
    def ids(self) -> list[int]:
        """All of it."""
        return [*self.before, *self.added]


@dataclass(frozen=True)
class TokenCodec:
    """Turns a question's prompt, turns and observations into ids.

    Attributes:
        tokenizer: a Hugging Face tokenizer.
        template: the prompt template.
        stop: texts that end a turn by themselves; any other turn ends in an end token.
        end_ids: the model's end tokens, besides the tokenizer's.
    """

    tokenizer: Any
    template: Template
    stop: tuple[str, ...]
    end_ids: frozenset[int] = frozenset()

    @property
    def ends(self) -> frozenset[int]:
        """Every token that ends a turn, and is not a part of its text."""
        return self.end_ids | {self.tokenizer.eos_token_id}

    def prompt_ids(self, view: View) -> list[int]:
        """Return the prompt of a question, in the tokenizer's chat template where it has one."""
        text = render_view(self.template, view)
        if not getattr(self.tokenizer, "chat_template", None):
            return self._encode(text + "\n")
        if not self._special.search(text):
            return list(self._in_chat(text, tokenize=True, return_dict=False))
        # Encoded apart: special tokens of the template are real, those of the text are not.
        before, _, after = self._in_chat(_CONTENT, tokenize=False).partition(_CONTENT)
        encode = self.tokenizer.encode
        return [
            *encode(before, add_special_tokens=False),
            *self._encode(text),
            *encode(after, add_special_tokens=False),
        ]

    def observation_ids(self, observations: Sequence[ToolMessage]) -> list[int]:
        """Return the ids of a round's observations."""
        return self._encode(f"\n{render_observations(observations)}\n")

    def turn_ids(self, text: str, *, ended: bool = True) -> list[int]:
        """Return a turn that was written as text, as a policy would have sampled it.

        Args:
            text: the turn.
            ended: whether the turn is complete, and was not cut.
        """
        stopped = not ended or (text.endswith(self.stop) if self.stop else False)
        return self._encode(text) + ([] if stopped else [self.tokenizer.eos_token_id])

    def pieces(self, view: View) -> Iterator[Piece]:
        """Yield the context of the next turn, piece by piece, in order.

        Turns that a policy sampled are given back as they are; turns of other controllers are
        tokenised here.
        """
        first = True
        observed: list[ToolMessage] = []
        messages: Sequence[AnyMessage] = view.scratchpad
        for message in messages:
            if isinstance(message, ToolMessage):
                observed.append(message)
            elif isinstance(message, AIMessage):
                tokens: TurnTokens | None = message.additional_kwargs.get("tokens")
                if tokens is not None:
                    yield Piece(list(tokens["input_ids"]), by_policy=False)
                    yield Piece(list(tokens["output_ids"]), True, list(tokens["logprobs"]))
                else:
                    yield Piece(self._added(view, first, observed), by_policy=False)
                    yield Piece(self.turn_ids(str(message.text)), by_policy=True)
                first, observed = False, []
        if first or observed:
            yield Piece(self._added(view, first, observed), by_policy=False)

    def _added(self, view: View, first: bool, observed: Sequence[ToolMessage]) -> list[int]:
        if not first:
            return self.observation_ids(observed)
        return self.prompt_ids(View(view.question, view.pool, view.context, view.budget))

    def context(self, view: View, most: int) -> TokenContext:
        """Return the context of the next turn.

        Args:
            view: the question so far.
            most: the most tokens that it may have.

        Raises:
            ControllerError: it has more.
        """
        *before, added = self.pieces(view)
        context = TokenContext([i for piece in before for i in piece.ids], added.ids)
        length = len(context.before) + len(context.added)
        if length > most:
            raise ControllerError(
                f"the context has {length} tokens, more than max_context_tokens = {most}"
            )
        return context

    def text_of(self, ids: Sequence[int]) -> str:
        """Return what a turn's ids say, without the token that ended it."""
        ended = bool(ids) and ids[-1] in self.ends
        return str(self.tokenizer.decode(ids[:-1] if ended else ids)).strip()

    def _in_chat(self, text: str, **options: Any) -> Any:
        message = [{"role": "user", "content": text}]
        return self.tokenizer.apply_chat_template(message, add_generation_prompt=True, **options)

    def _encode(self, text: str) -> list[int]:
        """Encode a text; cut it inside each spelled special token, so that it stays text."""
        cuts = [match.start() + 1 for match in self._special.finditer(text)]
        parts = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
        return [i for part in parts for i in self.tokenizer.encode(part, add_special_tokens=False)]

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Finds spelled special tokens; the tags are ordinary tokens, and stay whole."""
        added = self.tokenizer.added_tokens_decoder.values()
        names = {str(token) for token in added if token.special} | set(
            self.tokenizer.all_special_tokens
        )
        return re.compile(f"(?={'|'.join(map(re.escape, sorted(names)))})" if names else "(?!)")


_CONTENT = "router_r1_content"
