"""From text to ids, once: the same for a policy that serves and for the data it is trained on.

The context of a policy is prompt, turn, observation, turn, observation, ...: each piece is
tokenised on its own and never again, so what was sampled is what is trained. This module imports no
torch: a tokenizer is whatever has `encode`, `decode` and `eos_token_id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from ..protocol import render_observations
from ..state import View
from .protocol import render_view


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
class TokenCodec:
    """Turns a question's prompt, turns and observations into ids.

    Attributes:
        tokenizer: a Hugging Face tokenizer.
        template: the prompt template.
        stop: texts that end a turn by themselves; any other turn ends in the end-of-sequence token.
    """

    tokenizer: Any
    template: Template
    stop: tuple[str, ...]

    def prompt_ids(self, view: View) -> list[int]:
        """Return the prompt of a question, in the tokenizer's chat template where it has one."""
        text = render_view(self.template, view)
        if not getattr(self.tokenizer, "chat_template", None):
            return self._encode(text + "\n")
        message = [{"role": "user", "content": text}]
        ids = self.tokenizer.apply_chat_template(
            message, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return list(ids)

    def observation_ids(self, observations: Sequence[ToolMessage]) -> list[int]:
        """Return what a round brought back."""
        return self._encode(f"\n{render_observations(observations)}\n")

    def turn_ids(self, text: str) -> list[int]:
        """Return a turn that was written as text, as a policy would have sampled it."""
        ends = text.endswith(self.stop) if self.stop else False
        return self._encode(text) + ([] if ends else [self.tokenizer.eos_token_id])

    def pieces(self, view: View) -> Iterator[Piece]:
        """Yield the context of the next turn, piece by piece, in order.

        Turns that a policy sampled are given back as they are; turns of other controllers are
        tokenised here.
        """
        prompt: list[int] | None = self.prompt_ids(
            View(view.question, view.pool, view.context, view.budget)
        )
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
                    added = self.observation_ids(observed) if prompt is None else prompt
                    yield Piece(added, by_policy=False)
                    yield Piece(self.turn_ids(str(message.text)), by_policy=True)
                prompt, observed = None, []
        if prompt is not None:
            yield Piece(prompt, by_policy=False)
        elif observed:
            yield Piece(self.observation_ids(observed), by_policy=False)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))
