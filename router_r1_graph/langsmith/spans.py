"""The same runs as OpenTelemetry spans, by the conventions for generative AI, with their cost.

For tracers other than LangSmith: MLflow, Langfuse, and others that accept OpenTelemetry. Their own
callbacks for LangChain work too, and show the name of each candidate; but a callback has no place
for a cost, so they compute one from their own price lists, or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run

from ..errors import MissingExtraError


class GenAISpans(BaseTracer):
    """A callback that writes each run as a span: `config={"callbacks": [GenAISpans()]}`.

    The span of a model's call has the names of candidate and model, tokens, and the cost in USD as
    it is billed (`gen_ai.usage.cost`, as Langfuse reads it: OpenTelemetry names no cost yet). A
    tool with a price for each call has its cost on its own span. The router's span has the stop
    reason and the totals, under names of its own, so that a sum of costs counts each only once. No
    text is written.

    Args:
        tracer: an OpenTelemetry tracer; None = that of the global provider.

    Raises:
        MissingExtraError: opentelemetry-api is not installed.
    """

    run_inline = True

    def __init__(self, tracer: Any = None) -> None:
        super().__init__()
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise MissingExtraError("GenAISpans", "otel", error) from error
        self._api = trace
        self._tracer = tracer or trace.get_tracer("router_r1_graph")
        self._spans: dict[UUID, Any] = {}

    def _persist_run(self, run: Run) -> None:
        """Keep nothing: a span is sent when it ends."""

    def _on_run_create(self, run: Run) -> None:
        parent = self._spans.get(run.parent_run_id) if run.parent_run_id else None
        context = self._api.set_span_in_context(parent) if parent else None
        name, attributes = _beginning(run)
        self._spans[run.id] = self._tracer.start_span(
            name, context, attributes=attributes, start_time=_nanoseconds(run.start_time)
        )

    def _on_run_update(self, run: Run) -> None:
        span = self._spans.pop(run.id, None)
        if span is None:
            return
        for key, value in _end(run).items():
            span.set_attribute(key, value)
        if run.error:
            kind = run.error.partition("(")[0][:100]  # the class: the words may quote text
            span.set_status(self._api.Status(self._api.StatusCode.ERROR, kind))
            span.set_attribute("error.type", kind)
        span.end(_nanoseconds(run.end_time))


def _beginning(run: Run) -> tuple[str, dict[str, Any]]:
    """Return the name of a run's span, and the attributes known at its start."""
    told = run.metadata
    known = {"router_r1.candidate": told.get("candidate"), "router_r1.round": told.get("round")}
    match run.run_type:
        case "llm" | "chat_model":
            model = told.get("ls_model_name") or run.name
            known |= {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": told.get("ls_provider"),
                "gen_ai.request.model": model,
                "gen_ai.request.temperature": told.get("ls_temperature"),
                "gen_ai.request.max_tokens": told.get("ls_max_tokens"),
                "gen_ai.agent.name": run.name,
            }
            name = f"chat {model}"
        case "tool":
            known |= {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": run.name}
            name = f"execute_tool {run.name}"
        case _:
            name = run.name
    return name, {key: value for key, value in known.items() if value is not None}


def _end(run: Run) -> dict[str, Any]:
    """Return the attributes known at the end of a run: usage, cost, stop reason."""
    outputs: Mapping[str, Any] = run.outputs or {}
    if "ledger" in outputs and outputs.get("stop_reason"):
        ledger = outputs["ledger"]
        lines = {"controller": ledger["controller"], **ledger["candidates"]}
        return {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": run.name,
            "router_r1.stop_reason": outputs["stop_reason"],
            "router_r1.rounds": outputs["round"],
            "router_r1.cost_usd": sum(line["cost_usd"] for line in lines.values()),
            "router_r1.costs_usd": json.dumps({n: line["cost_usd"] for n, line in lines.items()}),
        }
    message = outputs.get("output")
    if isinstance(message, ToolMessage) and isinstance(message.artifact, dict):
        bill = message.artifact
        free = bill.get("cost_usd") and not (bill["input_tokens"] or bill["output_tokens"])
        return {"gen_ai.usage.cost": bill["cost_usd"]} if free else {}
    return _usage(outputs)


def _usage(outputs: Mapping[str, Any]) -> dict[str, Any]:
    for batch in outputs.get("generations") or []:
        for generation in batch:
            message = generation.get("message")
            kept = message.get("kwargs", {}) if isinstance(message, dict) else {}
            if isinstance(message, AIMessage):
                kept = vars(message)
            usage = kept.get("usage_metadata") or {}
            told = kept.get("response_metadata") or {}
            found = {
                "gen_ai.usage.input_tokens": usage.get("input_tokens"),
                "gen_ai.usage.output_tokens": usage.get("output_tokens"),
                "gen_ai.usage.cost": usage.get("total_cost"),
                "gen_ai.response.model": told.get("model_name"),
            }
            return {key: value for key, value in found.items() if value is not None}
    return {}


def _nanoseconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp() * 1e9)
