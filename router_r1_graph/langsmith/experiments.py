"""LangSmith: rewards as feedback on runs, and traces as an experiment over a dataset."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, messages_to_dict
from langsmith import Client
from langsmith.schemas import FeedbackConfig
from langsmith.uuid import uuid7_from_datetime

from ..answers import exact_match
from ..cost_scales import CostScale
from ..rewards import reward
from ..trace import Trace
from .runs import ROUTER
from .traces import OF_SETUP, QUESTION, SETUP

_KEPT_OUTPUTS = ("answer", "stop_reason", "error", "round", "ledger")


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
            SETUP: {key: data[key] for key in OF_SETUP},
        },
        tags=[ROUTER],
        extra={
            "metadata": {
                "pool": trace.pool.name,
                "controller": trace.controller,
                "cost_weight": trace.context.cost_weight,
                "stop_reason": trace.stop_reason.value,
                "rounds": trace.rounds,
                QUESTION: known,
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
