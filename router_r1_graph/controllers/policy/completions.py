"""A trained policy that a server holds (vLLM, SGLang): tokens in, tokens out, over HTTP.

The key invariant is `PolicyController`'s: ids go to the server, the ids that it sampled come back,
and no text is encoded again. vLLM returns them as `token_ids` (`return_token_ids`); older versions
return `token_id:N` among the log-probabilities (`return_tokens_as_token_ids`). SGLang returns
`token_ids` in versions that know `return_token_ids`, llama.cpp's llama-server the ids of
`logprobs.content`, without the stop text. If a server returns no ids, the turn's text is
encoded, once: the turn then has no log-probabilities, and a warning is logged.

Log-probabilities are the server's. vLLM computes them from the model's own distribution, before the
temperature is applied, unless it runs with `--logprobs-mode processed_logprobs`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import RunnableConfig

from ... import protocol
from ...candidates import ModelSettings
from ...candidates.call import aask, ask
from ...candidates.keys import from_environment
from ...candidates.reply import Reply
from ...candidates.usage import usage_metadata
from ...candidates.wire import REPORT
from ...errors import ControllerError
from ..controller import View
from .completion import Completion
from .folder import PolicyFolder, PolicySettings
from .request import CompletionRequest
from .streaming import TurnStream, turn_stream
from .tokens import TokenCodec, TokenContext, TurnTokens, random_of

logger = logging.getLogger(__name__)


class CompletionsController:
    """Asks a policy by token ids through an OpenAI-compatible completions endpoint.

    Each question sends requests of its own; the server batches them, and keeps their caches.

    Args:
        tokenizer: the policy's.
        settings: `base_url` (such as `http://localhost:8000/v1`), `model`, `api_key_env`, prices,
            time-out, retries. The temperature of a run (`RouterContext.temperature`) overrides
            theirs.
        policy: the settings of its turns.
        template: the path of a prompt template; None = the library's.
        end_ids: tokens that end a turn, besides the tokenizer's.
        name: its name in traces.

    Raises:
        ControllerError: the settings have no `base_url`.
    """

    streams_turns = True
    """Whether the streamed tokens are the turn itself, in tags, as it will be parsed."""

    def __init__(
        self,
        tokenizer: Any,
        settings: ModelSettings,
        policy: PolicySettings | None = None,
        *,
        template: Path | None = None,
        end_ids: frozenset[int] = frozenset(),
        name: str = "completions",
    ) -> None:
        if not settings.base_url:
            raise ControllerError(f"controller {name}: it needs a base_url: where the server is")
        self.policy = policy or PolicySettings()
        self.settings = settings.model_copy(update={"max_tokens": self.policy.max_new_tokens})
        self.codec = TokenCodec.of(tokenizer, template, self.policy, end_ids)
        self.name = name
        # Made once: making it takes longer than a request to a nearby server.
        self._tls = httpx.create_ssl_context()
        self._warned = False

    @classmethod
    def from_pretrained(
        cls, path: str | Path, settings: ModelSettings, *, name: str | None = None
    ) -> CompletionsController:
        """Read a policy folder, or a model of the hub: its tokenizer, template and settings.

        Args:
            path: the policy that the server holds.
            settings: how the server is reached. Without `model`, requests name `path` as the model.
            name: its name in traces; `completions:` and the model if left out.

        Raises:
            ControllerError: there is no such policy, or it cannot be used.
            ImportError: transformers is not installed.
        """
        folder = PolicyFolder(str(path))
        if not settings.model:
            settings = settings.model_copy(update={"model": folder.path})
        return cls(
            folder.tokenizer(),
            settings,
            folder.settings(),
            template=folder.template,
            end_ids=folder.end_ids(),
            name=name or f"completions:{settings.model}",
        )

    def worst_case_usd(self, view: View) -> float:
        """Return the price of the whole context and the longest turn."""
        if not self.settings.priced:
            return 0.0
        context = self.codec.context(view, self.policy.max_context_tokens)
        return self.settings.highest_usd(len(context.ids), self.policy.max_new_tokens)

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Sample one turn."""
        with turn_stream(config, self.codec.text_of, self.name, view.question) as stream:
            request = self._request(view, stream)
            reply = ask(request, [], self.settings, seconds_left=view.left.seconds)
            return self._finish(reply, stream)

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Sample one turn without blocking the event loop."""
        with turn_stream(config, self.codec.text_of, self.name, view.question) as stream:
            request = self._request(view, stream)
            reply = await aask(request, [], self.settings, seconds_left=view.left.seconds)
            return self._finish(reply, stream)

    def _request(self, view: View, stream: TurnStream | None) -> CompletionRequest:
        context = self.codec.context(view, self.policy.max_context_tokens)
        wanted = view.context.temperature
        temperature = (self.settings.temperature or 0.0) if wanted is None else wanted
        body = {
            "model": self.settings.model,
            "prompt": context.ids,
            "max_tokens": self.policy.max_new_tokens,
            "temperature": temperature,
            **({"seed": random_of(view).getrandbits(31)} if temperature else {}),
            "stop": list(self.policy.stop),
            "stop_token_ids": sorted(self.codec.ends),
            "logprobs": 1,
            # Otherwise a server uses the values of the model's generation_config.json.
            **{"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
            **{"return_token_ids": True, "return_tokens_as_token_ids": True},
            # The stop text is a part of the turn: vLLM's name of that option, and SGLang's.
            **{"include_stop_str_in_output": True, "no_stop_trim": True},
            "skip_special_tokens": False,
            **from_environment(self.settings.options),
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return CompletionRequest(
            self.settings,
            self._tls,
            body,
            partial(self._message, context=context),
            stream.listener() if stream else None,
        )

    def _finish(self, reply: Reply, stream: TurnStream | None) -> Reply:
        """Return the reply as a turn; an empty one is a mistake, not a failure."""
        if reply.message is None:
            if stream:
                stream.fail(RuntimeError(str(reply.error)))
            return reply
        message = reply.message
        if reply.text != self.codec.text_of(message.additional_kwargs["tokens"]["output_ids"]):
            message.additional_kwargs = {}  # a key was taken out of the text, not of the ids
        if stream:
            stream.end(reply.text)
            message.id = stream.id
        error = None if reply.error and reply.error.kind == "empty" else reply.error
        return replace(reply, message=message, error=error)

    def _message(self, answer: Completion, context: TokenContext) -> AIMessage:
        """Return the server's sample, with its ids."""
        ids, logprobs = answer.ids, answer.logprobs
        if ids is None:
            ids, logprobs = self._encoded(answer), []
        elif answer.without_stop and answer.finish_reason == "stop":
            ids = self._closed(ids)
        counted = UsageMetadata(  # where the server counts nothing
            input_tokens=len(context.ids),
            output_tokens=len(ids),
            total_tokens=len(context.ids) + len(ids),
        )
        tokens = TurnTokens(
            input_ids=context.added,
            output_ids=ids,
            logprobs=logprobs if len(logprobs) == len(ids) else [],
        )
        return AIMessage(
            self.codec.text_of(ids),
            additional_kwargs={"tokens": tokens},
            usage_metadata=usage_metadata(answer.report) or counted,
            response_metadata={REPORT: answer.report},
        )

    def _closed(self, ids: list[int]) -> list[int]:
        """Return the ids of a turn with its closing tag, if the server leaves it out."""
        text = self.codec.text_of(ids)
        closed = protocol.close(text)
        if closed == text or ids[-1:] in [[end] for end in self.codec.ends]:
            return ids
        return [*ids, *self.codec.following(text, closed[len(text.rstrip()) :])]

    def _encoded(self, answer: Completion) -> list[int]:
        """Return the ids of a turn, if only its text is known."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s: the server gives no token ids: turns are encoded from their text, and have "
                "no log-probabilities",
                self.name,
            )
        text = answer.text
        if answer.finish_reason != "stop":
            return self.codec.turn_ids(text, ended=False)
        if isinstance(answer.stopped_at, str) and not text.endswith(answer.stopped_at):
            text += answer.stopped_at  # a server that leaves it out
        for end in self.codec.ends:
            text = text.removesuffix(self.codec.tokenizer.decode([end]))
        return self.codec.turn_ids(text)
