"""One request to a completions server, and its answer."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig

from ...candidates import ModelSettings
from ...candidates.failures import CutReplyError, NoChoiceError
from ...candidates.guard import aguard, guard
from ...candidates.sending import atold, told
from ...candidates.wire import billed
from .completion import Completion, status_error
from .streaming import Listener

_HOOKS: dict[str, list[Any]] = {"request": [told], "response": [guard]}
_ASYNC_HOOKS: dict[str, list[Any]] = {"request": [atold], "response": [aguard]}


@dataclass
class CompletionRequest(Runnable[Any, AIMessage]):
    """One request, in the form that `candidates.call` retries and times.

    Attributes:
        settings: how the server is reached.
        tls: the context that checks its certificate.
        body: the body of the request.
        read: makes a message of the server's response.
        listener: gets the ids of a stream, as they come; None = the body does not ask for one.
    """

    settings: ModelSettings
    tls: ssl.SSLContext
    body: Mapping[str, Any]
    read: Callable[[Completion], AIMessage]
    listener: Listener | None = None

    tells_what_it_sends: ClassVar[bool] = True

    def invoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> AIMessage:
        """Send it and read the answer."""
        answer = Completion(self.settings.secrets)
        with (
            _billing(answer),
            httpx.Client(**self._client, event_hooks=_HOOKS) as client,
            client.stream("POST", "completions", json=self.body) as response,
        ):
            if not self._streams(response):
                answer.add(self._checked(response, response.read()))
            else:
                for line in response.iter_lines():
                    self._hear(answer, line)
            return self._message(answer)

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **_: Any
    ) -> AIMessage:
        """Send it and read the answer without blocking."""
        answer = Completion(self.settings.secrets)
        # A client for each request: kept connections would belong to the loop that made them.
        with _billing(answer):
            async with (
                httpx.AsyncClient(**self._client, event_hooks=_ASYNC_HOOKS) as client,
                client.stream("POST", "completions", json=self.body) as response,
            ):
                if not self._streams(response):
                    answer.add(self._checked(response, await response.aread()))
                else:
                    async for line in response.aiter_lines():
                        self._hear(answer, line)
            return self._message(answer)

    @property
    def _client(self) -> dict[str, Any]:
        key = os.environ.get(self.settings.key_variable or "", "")
        return {
            "base_url": self.settings.base_url,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": self.settings.socket_seconds,
            "verify": self.tls,
        }

    def _streams(self, response: httpx.Response) -> bool:
        kind = response.headers.get("content-type", "")
        return response.status_code == 200 and kind.startswith("text/event-stream")

    def _checked(self, response: httpx.Response, body: bytes) -> bytes:
        if response.status_code != 200:
            address, secrets = self.settings.base_url or "", self.settings.secrets
            raise status_error(address, response, body, secrets)
        return body

    def _hear(self, answer: Completion, line: str) -> None:
        kind, _, data = line.partition(":")
        if kind != "data" or data.strip() == "[DONE]":
            return
        answer.add(data)
        answer.streamed = True
        if self.listener and answer.ids:
            self.listener(answer.ids)

    def _message(self, answer: Completion) -> AIMessage:
        if not answer.chosen:
            raise NoChoiceError("the completion has no choices")
        if answer.streamed and answer.finish_reason is None:
            raise CutReplyError("the stream ended before the turn did")
        return self.read(answer)


@contextmanager
def _billing(answer: Completion) -> Iterator[None]:
    """Put the usage that was reported on the bill of a response that cannot be read.

    Where none was, what had been written is paid all the same.
    """
    try:
        yield
    except Exception as error:
        vars(error)["begun"] = answer.chosen
        if getattr(error, "partial", None) is None:
            vars(error)["partial"] = billed(answer.report)
        raise
