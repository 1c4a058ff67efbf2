"""From text to ids, once: the same for a policy that serves and for its training data.

The context of a policy is prompt, turn, observation, turn, observation, ...: each piece is
tokenised on its own and never again, so the sampled tokens are the trained ones. In a chat, an
observation ends the assistant's turn, is a user message, and begins the next turn, in the tokens
that the chat template has for a whole conversation. A text that spells a special token (the
question's, a candidate's) stays text: it never ends a turn. This module imports no torch: a
tokenizer is a Hugging Face one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from random import Random
from string import Template
from typing import Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from ...errors import ContextLengthError, ControllerError
from ...outside import writable
from ...protocol import load_template, render_observations
from ..controller import View, render_view
from .folder import PolicySettings


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

    `input_ids`: the addition to the context before the turn (the prompt, later an observation);
    `output_ids`: the sampled ids; `logprobs`: of each sampled id, the same length.
    """

    input_ids: list[int]
    output_ids: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class Piece:
    """A stretch of a context and its author."""

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
        settings: those of the policy's turns.
        end_ids: the model's end tokens, besides the tokenizer's.
    """

    tokenizer: Any
    template: Template
    settings: PolicySettings = field(default_factory=PolicySettings)
    end_ids: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        template: Path | None,
        settings: PolicySettings,
        end_ids: frozenset[int],
    ) -> TokenCodec:
        """Return the codec of a policy, with the template of this path (None = the library's)."""
        return cls(tokenizer, load_template(template), settings, end_ids)

    @property
    def ends(self) -> frozenset[int]:
        """Every token that ends a turn, and is not a part of its text."""
        return self.end_ids | {self.tokenizer.eos_token_id}

    def prompt_ids(self, view: View) -> list[int]:
        """Return the prompt of a question, in the tokenizer's chat template if it has one."""
        text = render_view(self.template, view)
        if not self._has_chat:
            return self._encode(text + "\n")
        before, after = self._around(_USER)
        return self._within(before, text, after)

    def observation_ids(
        self, observations: Sequence[ToolMessage], turn: Sequence[int] = ()
    ) -> list[int]:
        """Return the ids of a round's observations.

        Args:
            observations: of the round.
            turn: the ids of the turn before. In a chat, it is ended here if it did not end itself.
        """
        text = render_observations(observations)
        if not (self._has_chat and self.settings.observations == "chat"):
            return self._encode(f"\n{text}\n" + (_THOUGHT if self._opens_thought else ""))
        before, after = self._around(_OBSERVATION)
        before = before.partition(_TURN)[2]
        if turn and turn[-1] in self.ends:
            before = before.removeprefix(self.tokenizer.decode([turn[-1]]))
        return self._within(before, text, after)

    def turn_ids(self, text: str, *, ended: bool = True) -> list[int]:
        """Return a turn that was written as text, as a policy would have sampled it.

        Args:
            text: the turn.
            ended: whether the turn is complete, and was not cut.
        """
        stop = self.settings.stop
        stopped = not ended or (text.endswith(stop) if stop else False)
        if self._opens_thought:
            text = text.removeprefix("<think>").lstrip()
        return self._encode(text) + ([] if stopped else [self.tokenizer.eos_token_id])

    def following(self, before: str, text: str) -> list[int]:
        """Return a text in the tokens that it has after another text, if that text ends a token."""
        start, whole = self._encode(before), self._encode(before + text)
        return whole[len(start) :] if whole[: len(start)] == start else self._encode(text)

    def pieces(self, view: View) -> Iterator[Piece]:
        """Yield the context of the next turn, piece by piece, in order.

        Turns that a policy sampled are given back as they are; turns of other controllers are
        tokenised here.
        """
        turn: list[int] | None = None
        observed: list[ToolMessage] = []
        messages: Sequence[AnyMessage] = view.scratchpad
        for message in messages:
            if isinstance(message, ToolMessage):
                observed.append(message)
            elif isinstance(message, AIMessage):
                tokens: TurnTokens | None = message.additional_kwargs.get("tokens")
                if tokens is not None:
                    yield Piece(list(tokens["input_ids"]), by_policy=False)
                    turn = list(tokens["output_ids"])
                    yield Piece(turn, True, list(tokens["logprobs"]))
                else:
                    yield Piece(self._added(view, turn, observed), by_policy=False)
                    turn = self.turn_ids(str(message.text))
                    yield Piece(turn, by_policy=True)
                observed = []
        if turn is None or observed:
            yield Piece(self._added(view, turn, observed), by_policy=False)

    def _added(
        self, view: View, turn: Sequence[int] | None, observed: Sequence[ToolMessage]
    ) -> list[int]:
        if turn is not None:
            return self.observation_ids(observed, turn)
        return self.prompt_ids(View(view.question, view.pool, view.context, view.budget))

    def context(self, view: View, most: int) -> TokenContext:
        """Return the context of the next turn.

        Args:
            view: the question so far.
            most: the most tokens that it may have.

        Raises:
            ContextLengthError: it has more.
        """
        *before, added = self.pieces(view)
        context = TokenContext([i for piece in before for i in piece.ids], added.ids)
        length = len(context.before) + len(context.added)
        if length > most:
            raise ContextLengthError(
                f"the context has {length} tokens, more than max_context_tokens = {most}"
            )
        return context

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of a turn's ids, without the token that ended it, as the gate lets it in.

        Where the chat template opens a thought before each turn, its tag is part of the text.
        """
        ended = bool(ids) and ids[-1] in self.ends
        text = writable(str(self.tokenizer.decode(ids[:-1] if ended else ids))).strip()
        return text if not self._opens_thought or text.startswith("<think>") else _THOUGHT + text

    @property
    def _has_chat(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    @cached_property
    def _opens_thought(self) -> bool:
        """Whether the chat template itself writes the opening think tag of each turn."""
        return self._has_chat and self._around(_USER)[1].rstrip().endswith("<think>")

    def _around(self, content: str) -> tuple[str, str]:
        """Return the text that the chat template writes before and after a user message.

        Args:
            content: `_USER` = the first message; `_OBSERVATION` = the one after the first turn.

        Raises:
            ControllerError: the template cannot be used.
        """
        roles = {_USER: "user", _TURN: "assistant", _OBSERVATION: "user"}
        messages = [{"role": role, "content": text} for text, role in roles.items()]
        if content == _USER:
            messages = messages[:1]
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=self.settings.thinking,
            )
        except Exception as error:  # a template may raise anything
            text = f"{type(error).__name__}: {error}"
        before, found, after = text.partition(content)
        if not found or (content == _OBSERVATION and _TURN not in before):
            raise ControllerError(
                f"the chat template of the tokenizer cannot be used: {text[:200]!r}; set "
                "observations to plain in router_r1.json, or take the template out"
            )
        return before, after

    def _within(self, before: str, text: str, after: str) -> list[int]:
        """Encode a text between two parts of the chat template, whose special tokens are real."""
        encode = self.tokenizer.encode
        if not self._special.search(text):
            return list(encode(before + text + after, add_special_tokens=False))
        return [
            *encode(before, add_special_tokens=False),
            *self._encode(text),
            *encode(after, add_special_tokens=False),
        ]

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


_USER, _TURN, _OBSERVATION = "router_r1_question", "router_r1_turn", "router_r1_observation"
_THOUGHT = "<think>\n"
