"""LangSmith: runs back into traces, rewards as feedback, experiments, and runs without their text.

A run is traced by LangSmith's own switch (`LANGSMITH_TRACING=true`, or `tracing_context`); `runs`
decides what it looks like there. Reading goes through the v2 API: LangSmith's `list_runs` and
`read_run` go away at the end of January 2027.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, messages_to_dict
from langchain_core.runnables import RunnableConfig
from langsmith import Client
from langsmith.schemas import FeedbackConfig
from langsmith.uuid import uuid7_from_datetime
from pydantic import ValidationError

from ..answers import exact_match
from ..candidates.failures import scrub
from ..errors import ConfigError, TraceError
from ..rewards import CostScale, reward
from ..trace import Trace
from .runs import ROUTER

logger = logging.getLogger(__name__)

#: Key of a run's metadata: what the caller knows about the question, and a trace keeps.
_QUESTION = "router_r1_question"
#: Key of a run's outputs: the setup of the run.
_SETUP = "router_r1"
_OF_SETUP = ("protocol_version", "controller", "context", "pool")
_KEPT_OUTPUTS = ("answer", "stop_reason", "error", "round", "ledger")


def question_config(
    id: str = "", gold: Iterable[str] = (), metadata: Mapping[str, Any] | None = None
) -> RunnableConfig:
    """Return a run's config that gives its trace an id, gold answers and metadata.

    Example:
        >>> question_config("q1", ["Paris"])["metadata"]
        {'router_r1_question': {'id': 'q1', 'gold': ['Paris'], 'metadata': {}}}
    """
    known = {"id": id, "gold": list(gold), "metadata": dict(metadata or {})}
    return {"metadata": {_QUESTION: known}}


# ------------------------------------------------------------------------------------- reading


def read_langsmith(
    project: str,
    *,
    client: Client | None = None,
    filter: str | None = None,
    since: datetime | None = None,
) -> list[Trace]:
    """Return the traces of a project's runs, oldest first; not inside a running event loop.

    Some runs hold no trace: those that did not finish, were traced without text, or belong to an
    agent that returns only messages (`create_router_r1_agent`). They are left out, with a warning.

    Args:
        project: the name of a project or an experiment.
        client: None = one made from the environment (`LANGSMITH_API_KEY`, `LANGSMITH_ENDPOINT`).
        filter: a filter in LangSmith's language, such as `eq(metadata_key, "pool")`; None = all
            router runs.
        since: the earliest start of a run; None = all.

    Raises:
        TraceError: LangSmith cannot be asked, or there is no such project.
    """
    client = client or Client()
    try:
        runs = asyncio.run(_router_runs(client, project, filter, since))
    except Exception as error:  # of two HTTP clients, whose errors share no base
        why = " ".join(scrub(f"{type(error).__name__}: {error}", client.api_key or "").split())
        raise TraceError(f"LangSmith project {project!r}: {why[:300]}") from None
    traces = []
    for run in sorted(runs, key=lambda run: run.start_time):
        try:
            traces.append(trace_of(run.outputs or {}, run.extra or {}))
        except TraceError as error:
            logger.warning("run %s left out: %s", run.id, error)
    return traces


async def _router_runs(
    client: Client, project: str, filter: str | None, since: datetime | None
) -> list[Any]:
    project_id = str((await asyncio.to_thread(client.read_project, project_name=project)).id)
    router = f'has(tags, "{ROUTER}")'
    pages = client.runs.query(
        project_ids=[project_id],
        filter=f"and({router}, {filter})" if filter else router,
        min_start_time=since or datetime(2020, 1, 1, tzinfo=UTC),  # the server's default is a day
        selects=["ID", "START_TIME", "OUTPUTS", "EXTRA"],
    )
    return [run async for run in pages]


def trace_of(outputs: Mapping[str, Any], extra: Mapping[str, Any]) -> Trace:
    """Return the trace that a router's run holds.

    Args:
        outputs: the run's outputs: what the graph returned.
        extra: the run's `extra`, with our record and the metadata.

    Raises:
        TraceError: there is no trace in it.
    """
    # Up to version 0.1 it was in the run's `extra`.
    setup = outputs.get(_SETUP) or extra.get(_SETUP)
    if not isinstance(setup, Mapping) or not outputs.get("stop_reason"):
        raise TraceError("it did not finish, or was not traced by this library")
    if not outputs.get("scratchpad"):
        raise TraceError("it was traced without its messages")
    question, *scratchpad = outputs["scratchpad"]
    known = (extra.get("metadata") or {}).get(_QUESTION) or {}
    fields = {
        **{key: outputs.get(key, "") for key in ("answer", "stop_reason", "error", "ledger")},
        "rounds": outputs.get("round"),
        "question": question.get("content", ""),
        "scratchpad": scratchpad,
        **{key: value for key, value in setup.items() if key in _OF_SETUP},
        **known,
    }
    try:
        return Trace.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TraceError(f"{where}: {first['msg']}") from error
    except ConfigError as error:
        raise TraceError(f"context: {error}") from error


# ------------------------------------------------------------------------------------ feedback


def scores(trace: Trace, scale: CostScale) -> dict[str, float]:
    """Return the scores to log for a trace with gold answers: the reward and its parts."""
    parts = reward(trace, scale)
    return {
        "reward": parts.total,
        "exact_match": exact_match(trace.answer, trace.gold),
        "format": parts.format,
        "cheapness": parts.cost,
    }


def log_feedback(
    run_id: uuid.UUID | str,
    scores: Mapping[str, float],
    *,
    client: Client,
    project: str,
    trace_id: uuid.UUID | str | None = None,
) -> None:
    """Log scores as feedback on a router's run, in the background (`client.flush()` waits).

    LangSmith keeps 4 decimals.

    Args:
        run_id: the id of the router's run; to know it, pass one as `run_id` in the run's config.
        scores: name -> score; a reward is in [-1, 1], any other in [0, 1].
        client: the client that traced the run; its pending uploads are sent first.
        project: the name of the run's project.
        trace_id: the id of the root run, if the router is a part of another graph.
    """
    client.flush()  # the project is made when its first run arrives
    project_id = client.read_project(project_name=project).id
    _log_feedback(client, run_id, trace_id or run_id, project_id, scores)


def _log_feedback(
    client: Client, run_id: Any, trace_id: Any, project_id: Any, scores: Mapping[str, float]
) -> None:
    for key, score in scores.items():
        low = -1.0 if key == "reward" else 0.0
        client.create_feedback(
            run_id,
            key,
            score=score,
            trace_id=trace_id,
            session_id=project_id,
            feedback_config=cast(FeedbackConfig, {"type": "continuous", "min": low, "max": 1.0}),
        )


# ---------------------------------------------------------------------------------- experiment


def write_experiment(
    traces: Sequence[Trace],
    *,
    dataset: str,
    client: Client,
    scale: CostScale | None = None,
    name: str = "",
) -> str:
    """Write traces as an experiment over a dataset and return the experiment's name.

    A missing dataset is created, with one example per question; questions that it has already are
    not added again. `read_langsmith(name)` returns the traces again.

    Args:
        traces: finished runs of one controller.
        dataset: the dataset's name.
        client: a LangSmith client.
        scale: how cost becomes cheapness in the feedback; None = no feedback.
        name: the name of the experiment; "" = the controller's, with a few letters that make it
            unique.
    """
    if not client.has_dataset(dataset_name=dataset):
        client.create_dataset(dataset, description="Questions asked through router-r1-graph.")
    dataset_id = client.read_dataset(dataset_name=dataset).id
    examples = {_example_id(dataset_id, trace): trace for trace in traces}
    have = {example.id for example in client.list_examples(dataset_id=dataset_id)}
    new = [
        {
            "id": example_id,
            "inputs": {"question": trace.question},
            "reference_outputs": {"gold": list(trace.gold)},
            "metadata": {"id": trace.id, **trace.metadata},
        }
        for example_id, trace in examples.items()
        if example_id not in have
    ]
    if new:
        client.create_examples(dataset_id=dataset_id, examples=new)
    name = name or f"{traces[0].controller if traces else ROUTER}-{uuid.uuid4().hex[:8]}"
    project = client.create_project(name, reference_dataset_id=dataset_id)
    for trace in traces:
        run_id = _write_run(client, name, trace, _example_id(dataset_id, trace))
        if scale and trace.gold:
            _log_feedback(client, run_id, run_id, project.id, scores(trace, scale))
    client.flush()
    return name


def _example_id(dataset_id: uuid.UUID, trace: Trace) -> uuid.UUID:
    return uuid.uuid5(dataset_id, f"{trace.id}\n{trace.question}")


def _write_run(client: Client, project: str, trace: Trace, example_id: uuid.UUID) -> uuid.UUID:
    """Write a trace as a router's run with a run for each of its paid turns and calls."""
    start = datetime.now(UTC)
    end = start + timedelta(seconds=trace.ledger["seconds"])
    run_id = uuid7_from_datetime(start)
    order = f"{start:%Y%m%dT%H%M%S%f}Z{run_id}"
    data = trace.model_dump(mode="json")
    question = HumanMessage(trace.question).model_dump(mode="json")
    known = {key: data[key] for key in ("id", "gold", "metadata")}
    common: dict[str, Any] = {
        "project_name": project,
        "trace_id": run_id,
        "start_time": start,
        "end_time": end,
    }
    client.create_run(
        ROUTER,
        {"question": trace.question},
        "chain",
        id=run_id,
        dotted_order=order,
        outputs={
            **{key: data[key] for key in _KEPT_OUTPUTS if key in data},
            "round": trace.rounds,
            "scratchpad": [question, *data["scratchpad"]],
            _SETUP: {key: data[key] for key in _OF_SETUP},
        },
        tags=[ROUTER],
        extra={
            "metadata": {
                "pool": trace.pool.name,
                "controller": trace.controller,
                "cost_weight": trace.context.cost_weight,
                "stop_reason": trace.stop_reason.value,
                "rounds": trace.rounds,
                _QUESTION: known,
            },
        },
        reference_example_id=example_id,
        **common,
    )
    for message in trace.scratchpad:
        if (usage := _usage(message)) is None:
            continue
        child = uuid7_from_datetime(start)
        candidate = message.artifact["candidate"] if isinstance(message, ToolMessage) else ""
        client.create_run(
            candidate or "controller",
            {},
            "llm",
            id=child,
            parent_run_id=run_id,
            dotted_order=f"{order}.{start:%Y%m%dT%H%M%S%f}Z{child}",
            outputs={"messages": messages_to_dict([message])},
            tags=[f"route:{candidate}" if candidate else "think"],
            extra={"metadata": {"usage_metadata": usage}},
            **common,
        )
    return run_id


def _usage(message: HumanMessage | AIMessage | ToolMessage) -> dict[str, Any] | None:
    """Return what a message was billed for, in LangSmith's keys; None where nothing was."""
    if isinstance(message, AIMessage):
        bill = {**(message.usage_metadata or {}), **message.response_metadata.get("router_r1", {})}
    else:
        bill = message.artifact if isinstance(message, ToolMessage) and message.artifact else {}
    tokens = {key: bill.get(key, 0) for key in ("input_tokens", "output_tokens")}
    if not any(tokens.values()):
        return None
    return {**tokens, "total_tokens": sum(tokens.values()), "total_cost": bill.get("cost_usd", 0.0)}


# ---------------------------------------------------------------------------------------- text


class TextlessClient(Client):
    """A LangSmith client that sends no text: no question, prompt, turn, reply or gold answer.

    Names, tags, metadata, times, usage, cost, stop reason and the ledger are sent. No trace can be
    made from such runs.

    Example:
        >>> import langsmith
        >>> with langsmith.tracing_context(enabled=False, client=TextlessClient(api_key="x")):
        ...     pass  # graph.invoke(...)
    """

    def create_run(self, name: str, inputs: Any, run_type: Any, **kwargs: Any) -> None:
        """Send the start of a run without its text."""
        super().create_run(name, {}, run_type, **_textless(kwargs))

    def update_run(self, run_id: Any, **kwargs: Any) -> None:
        """Send the end of a run without its text."""
        super().update_run(run_id, **_textless(kwargs))


def _textless(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a run that are sent: none that could contain a question or a reply."""
    kept = {k: v for k, v in run.items() if k not in ("inputs", "serialized", "attachments")}
    outputs = run.get("outputs") or {}
    kept["outputs"] = {k: outputs[k] for k in ("stop_reason", "round", "ledger") if k in outputs}
    if error := run.get("error"):
        kept["error"] = str(error).partition("(")[0][:100]  # the class: the words may quote text
    if events := run.get("events"):
        kept["events"] = [{k: event[k] for k in ("name", "time")} for event in events]
    if extra := run.get("extra"):
        metadata = {k: v for k, v in (extra.get("metadata") or {}).items() if k != _QUESTION}
        kept["extra"] = {"metadata": metadata, "runtime": extra.get("runtime")}
    return kept
