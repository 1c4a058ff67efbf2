"""A trace: one finished episode as a frozen record, and its JSONL.

The key invariant: a trace holds what the controller saw and wrote, message by message (with token
ids where a policy sampled them), so it is enough to replay the run and to train from it. Everything
else (prompt, mask, reward) is derived from it on demand. Nothing else crosses between the library
and `training/`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .budget import StopReason
from .call_records import CallRecord, call_records, check_scratchpad
from .candidates import CandidatePool
from .candidates.written_down import STORED
from .context import Knobs, RouterContext, as_context
from .decisions import Decision, of_message
from .errors import ConfigError, TraceError
from .files import append_line, opened, read_jsonl
from .invalid import explain
from .ledger import Ledger, total
from .outside import Count
from .protocol import VERSION as PROTOCOL_VERSION
from .state import RouterOutput, Setup

logger = logging.getLogger(__name__)

TRACE_VERSION = 1

_Message = Annotated[HumanMessage | AIMessage | ToolMessage, Field(discriminator="type")]


class Trace(BaseModel):
    """One finished episode.

    Attributes:
        version: the version of this record's layout.
        protocol_version: the version of the tag language that the controller wrote.
        question: the user's question.
        answer: the final answer; made from the replies so far if the stop reason is not `answered`.
        stop_reason: why it ended.
        error: why the controller failed, or no candidate replied and there is no answer.
        rounds: rounds of calls made.
        controller: the controller's spec or name.
        context: the settings of the run.
        pool: the candidates with their descriptors, in the order shown, and no secrets.
        scratchpad: the turns and observations, in order.
        ledger: the bill.
        gold: the gold answers, if known.
        metadata: anything else that the writer adds (dataset, split, hops, ...).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[1] = 1
    protocol_version: int = PROTOCOL_VERSION
    id: str = ""
    question: str
    answer: str
    stop_reason: StopReason
    error: str = ""
    rounds: Count
    controller: str
    context: RouterContext
    pool: CandidatePool
    scratchpad: tuple[_Message, ...]
    ledger: Ledger
    gold: tuple[str, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def from_state(
        cls,
        state: RouterOutput | Mapping[str, Any],
        *,
        pool: CandidatePool | None = None,
        controller: str = "",
        context: Knobs | None = None,
        id: str = "",
        gold: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Trace:
        """Make a trace from the output of a run.

        Args:
            state: the output of the graph (or its checkpointed state).
            pool: the pool that was on offer; None = the one in the state.
            controller: the name of the controller; "" = the one in the state.
            context: settings that override those in the state; None = no setting.
            id: the id of the question.
            gold: gold answers, if known.
            metadata: anything else to keep, JSON types only.

        Raises:
            TraceError: the run has not finished, or the state holds messages alone.
            ConfigError: a key of `context` names no setting, or a setting is out of range.
        """
        if not state.get("stop_reason"):
            if any(map(_is_answer, state.get("messages") or ())):
                raise TraceError(
                    "these are the messages of a run alone, as of create_router_r1_agent: give the "
                    "output of create_router_r1(...).compile(), or what a checkpointer keeps "
                    "(graph.get_state(config).values); or let the callback TraceWriter(file) write"
                )
            raise TraceError("this run has not finished: its state has no stop reason")
        setup: Setup = state.get("router_r1") or {}
        if not setup and (pool is None or not controller):
            raise TraceError("this state is of another version: name its pool and controller")
        question, *scratchpad = state["scratchpad"]
        return cls(
            id=id,
            question=str(question.text),
            answer=state["answer"],
            stop_reason=StopReason(state["stop_reason"]),
            error=state.get("error", ""),
            rounds=state["round"],
            controller=controller or setup["controller"],
            context=as_context(context, RouterContext.from_state(setup.get("context") or {})),
            pool=pool.descriptors()
            if pool
            else CandidatePool.model_validate(setup["pool"], context=STORED),
            scratchpad=tuple(scratchpad),
            ledger=state["ledger"],
            gold=tuple(gold),
            metadata=dict(metadata or {}),
        )

    @classmethod
    def read(cls, data: Mapping[str, Any] | ValueError) -> Trace:
        """Return the trace in data from outside: the one gate for files, resumed runs, LangSmith.

        Args:
            data: an object of JSON, or why there is none.

        Raises:
            TraceError: it is no trace, of another version, or a value in it cannot be used.
        """
        if isinstance(data, ValueError):
            raise TraceError(str(data))
        if (version := data.get("version", TRACE_VERSION)) != TRACE_VERSION:
            raise TraceError(
                f"trace version {version!r}; this release reads version {TRACE_VERSION}"
            )
        try:
            trace = cls.model_validate(data, context=STORED)
            edited = trace.context.approve_above_usd is not None
            check_scratchpad(trace.scratchpad, trace.pool, edited=edited)
        except ValidationError as error:
            raise TraceError(explain(error)) from error
        except (TypeError, AttributeError, KeyError) as error:  # LangChain's, of a message
            raise TraceError(f"a message cannot be read: {error}") from error
        except ConfigError as error:  # of a knob out of range
            raise TraceError(f"context: {error}") from error
        return trace

    @property
    def calls(self) -> list[CallRecord]:
        """The calls that got a reply or an error, in order, without refused ones."""
        return call_records(self.scratchpad)

    @property
    def decisions(self) -> list[Decision]:
        """The decisions of the calls, in order: the candidates asked, and the alternatives."""
        return [decision for message in self.scratchpad for decision in of_message(message)]

    @property
    def turns(self) -> list[str]:
        """The texts of the controller's turns: a script that replays the run."""
        return [str(m.text) for m in self.scratchpad if isinstance(m, AIMessage)]

    def summary(self) -> dict[str, Any]:
        """Return the run as the one JSON object that `router-r1 ask --json` prints."""
        return {
            "question": self.question,
            "answer": self.answer,
            "stop_reason": self.stop_reason,
            "rounds": self.rounds,
            "calls": [asdict(call) for call in self.calls],
            "ledger": dict(total(self.ledger)),
        }


def write_traces(path: str | Path, traces: Iterable[Trace], *, append: bool = False) -> int:
    """Write traces as JSON lines, each flushed as it comes, and return how many.

    A file whose name ends in `.gz` is compressed. Where lines are appended, a last one that was
    torn is mended first.

    Args:
        path: the file; an existing one is replaced, unless `append` is set.
        traces: finished runs; they are taken one at a time.
        append: whether the lines are added to those of the file.

    Raises:
        OSError: the file cannot be written.
    """
    count = 0
    if append and Path(path).suffix != ".gz":
        Path(path).open("ab").close()  # also where there are no traces
        for trace in traces:
            append_line(path, trace.model_dump_json())
            count += 1
        return count
    with opened(path, "a" if append else "w") as file:
        for trace in traces:
            file.write(trace.model_dump_json() + "\n")
            file.flush()
            count += 1
    return count


def _is_answer(message: object) -> bool:
    """Whether a message is the answer of a finished run."""
    about = getattr(message, "response_metadata", {}).get("router_r1")
    return isinstance(about, Mapping) and bool(about.get("stop_reason"))


class TraceWriter(BaseCallbackHandler):
    """Appends each finished run of a router to a file of traces, with its decisions.

    Pass it to any run: `graph.invoke(question, {"callbacks": [TraceWriter("traces.jsonl")]})`. The
    id of a trace is that of its run. Agents that return messages alone hold no trace.

    Args:
        path: the file; questions and replies will be in it.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            write_traces(self.path, [], append=True)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        """Write the run, if it is a router's."""
        if not (isinstance(outputs, Mapping) and outputs.get("router_r1")):
            return
        if outputs.get("stop_reason") and outputs.get("scratchpad"):
            trace = Trace.from_state(outputs, id=str(run_id))
            try:
                with self._lock:
                    write_traces(self.path, [trace], append=True)
            except OSError as error:  # a full disk fails no question
                logger.warning("%s: the trace was not written: %s", self.path, error.strerror)


def read_traces(path: str | Path) -> Iterator[Trace]:
    """Read traces from JSON lines, one at a time.

    Args:
        path: the file, or a folder of such files, as a training run leaves them.

    Raises:
        TraceError: the file is missing, or a line is broken or of another version; the message
            names file and line.
    """
    if Path(path).is_dir():
        files = sorted([*Path(path).glob("*.jsonl"), *Path(path).glob("*.jsonl.gz")])
        if not files:
            raise TraceError(f"{path}: no trace files (*.jsonl, *.jsonl.gz) in this folder")
        for file in files:
            yield from read_traces(file)
        return
    if not Path(path).is_file():
        raise TraceError(f"{path}: no such trace file")
    for number, data in read_jsonl(path):
        if isinstance(data, ValueError) or "version" not in data:
            why = data if isinstance(data, ValueError) else "there is no 'version'"
            raise TraceError(f"{path}, line {number}: not a trace: {why}")
        try:
            yield Trace.read(data)
        except TraceError as error:
            raise TraceError(f"{path}, line {number}: {error}") from error
