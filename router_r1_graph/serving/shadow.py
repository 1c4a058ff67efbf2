"""A second controller beside the one that answers: its calls, answers and costs.

It is run when a question has been answered, so that the replies to the first one are on record:
the same call is not made again. No client gets its answers, and its failures are only counted.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from prometheus_client import CollectorRegistry, Counter, Gauge

from ..answers import normalize_answer
from ..candidates.flights import Flight, Flights
from ..candidates.store import ReplyStore
from ..candidates.store_file import StoreFile
from ..candidates.stored import StoredReply
from ..chat.form_options import OPTIONS
from ..chat.router import ChatRouterR1
from ..controllers import as_controller

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 64
"""The most questions in the shadow at once; others are not run there, and counted."""


class WrittenStore(ReplyStore):
    """A store that is written and not read: calls are made as if there were none."""

    def find(self, key: str) -> StoredReply | None:
        """Return None."""
        return None

    def claim(self, key: str, seconds: float) -> Future[StoredReply | bool]:
        """Allow the call."""
        allowed: Future[StoredReply | bool] = Future()
        allowed.set_result(True)
        return allowed

    def _start(self, file: StoreFile) -> None:
        super()._start(file)
        self.flights = _Apart()


class _Apart(Flights):
    """Calls that wait for no other."""

    def join(self, key: str, seconds: float) -> tuple[Flight, bool]:
        """Return a flight of the caller's own."""
        return Flights().join(key, seconds)


class Shadow:
    """Runs a second controller over the questions that were answered, and counts.

    Args:
        spec: the second controller.
        model: the router that answers.
        registry: where the metrics are.

    Attributes:
        main: the router that answers, whose replies are put on record for the shadow.
        controller: the second controller.

    Raises:
        ControllerError: the spec is no controller.
    """

    def __init__(self, spec: str, model: ChatRouterR1, registry: CollectorRegistry) -> None:
        store, self.main = model.replies, model
        self.controller = as_controller(spec, model.pool)
        if store is None:
            folder = tempfile.mkdtemp(prefix="router-r1-shadow-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            file = Path(folder) / "replies.sqlite"
            store = ReplyStore(file, every=True)
            self.main = model.model_copy(update={"replies": WrittenStore(file, every=True)})
        self._model = model.model_copy(
            update={"controller": self.controller, "replies": store, "explore": 0.0}
        )
        self._tasks: set[asyncio.Task[None]] = set()
        of: dict[str, Any] = {"namespace": "router_r1_shadow", "registry": registry}
        self._questions = Counter("questions", "Questions that the shadow was run on", **of)
        self._skipped = Counter("skipped", "Questions that it was too busy for", **of)
        self._failures = Counter("failures", "Questions that it failed on", **of)
        self._same_answers = Counter("same_answers", "Answers that are the same", **of)
        self._same_calls = Counter("same_calls", "Questions with the same candidates asked", **of)
        self._calls = Counter("calls", "Calls of the shadow, by candidate", ["candidate"], **of)
        self._usd = Counter("cost_usd", "USD of its answers, had it been the one", **of)
        self._main_usd = Counter("main_cost_usd", "USD of the same questions as answered", **of)
        self._paid = Counter("paid_usd", "USD that it was really paid for", **of)
        self._difference = Gauge(
            "cost_difference_usd", "USD of its answers less those of the same questions", **of
        )

    def observe(
        self, messages: Sequence[BaseMessage], options: Mapping[str, Any], answer: BaseMessage
    ) -> None:
        """Begin to run the shadow on a question that has been answered."""
        if len(self._tasks) >= MOST_AT_ONCE:
            self._skipped.inc()
            return
        # Without the callbacks of the run that answered: it is not written among the traces.
        task = asyncio.create_task(
            self._run(list(messages), options, answer), context=contextvars.Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(
        self, messages: list[BaseMessage], options: Mapping[str, Any], answer: BaseMessage
    ) -> None:
        # Routing is compared: the form of an answer (tools, JSON) is not asked for again.
        plain = {name: value for name, value in options.items() if name not in OPTIONS}
        try:
            other = await self._model.ainvoke(messages, **{**plain, "explore": 0.0})
        except Exception as error:  # any error: the client has its answer already
            logger.warning("the shadow failed: %s: %s", type(error).__name__, error)
            self._failures.inc()
            return
        ours, theirs = other.response_metadata, answer.response_metadata
        usd, main = (bill["cost_usd"] + bill["saved_usd"] for bill in (ours, theirs))
        self._questions.inc()
        self._usd.inc(usd)
        self._main_usd.inc(main)
        self._paid.inc(ours["cost_usd"])
        self._difference.inc(usd - main)
        self._same_answers.inc(
            normalize_answer(str(other.text)) == normalize_answer(str(answer.text))
        )
        self._same_calls.inc(_asked(other) == _asked(answer))
        for name, line in ours["candidates"].items():
            self._calls.labels(name).inc(line["calls"])


def _asked(message: BaseMessage | AIMessage) -> dict[str, int]:
    lines = message.response_metadata["candidates"]
    return {name: line["calls"] for name, line in lines.items() if line["calls"]}
