"""LangSmith: runs back into traces.

A run is traced by LangSmith's own switch (`LANGSMITH_TRACING=true`, or `tracing_context`); `runs`
decides what it looks like there. Reading goes through the v2 API: LangSmith's `list_runs` and
`read_run` go away at the end of January 2027.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from langchain_core.runnables import RunnableConfig
from langsmith import Client

from ..candidates.keys import scrub
from ..errors import TraceError
from ..trace import Trace
from .runs import ROUTER

logger = logging.getLogger(__name__)

#: Key of a run's metadata: what the caller knows about the question, and a trace keeps.
QUESTION = "router_r1_question"
#: Key of a run's outputs: the setup of the run.
SETUP = "router_r1"
OF_SETUP = ("protocol_version", "controller", "context", "pool")


def question_config(
    id: str = "", gold: Iterable[str] = (), metadata: Mapping[str, Any] | None = None
) -> RunnableConfig:
    """Return a run's config that gives its trace an id, gold answers and metadata.

    Example:
        >>> question_config("q1", ["Paris"])["metadata"]
        {'router_r1_question': {'id': 'q1', 'gold': ['Paris'], 'metadata': {}}}
    """
    known = {"id": id, "gold": list(gold), "metadata": dict(metadata or {})}
    return {"metadata": {QUESTION: known}}


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
    The feedback on a run, as a mean for each key, is in its trace's `metadata["feedback"]`.

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
            trace = trace_of(run.outputs or {}, run.extra or {})
        except TraceError as error:
            logger.warning("run %s left out: %s", run.id, error)
            continue
        given = {key: stats.avg for key, stats in (run.feedback_stats or {}).items()}
        if scores := {key: mean for key, mean in given.items() if mean is not None}:
            metadata = {**trace.metadata, "feedback": scores}
            trace = trace.model_copy(update={"metadata": metadata})
        traces.append(trace)
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
        selects=["ID", "START_TIME", "OUTPUTS", "EXTRA", "FEEDBACK_STATS"],
    )
    return [run async for run in pages]


def trace_of(outputs: Mapping[str, Any], extra: Mapping[str, Any]) -> Trace:
    """Return the trace that a router's run holds.

    Args:
        outputs: the run's outputs, as the graph returned them.
        extra: the run's `extra`, with our record and the metadata.

    Raises:
        TraceError: there is no trace in it.
    """
    # Up to version 0.1 it was in the run's `extra`.
    setup = outputs.get(SETUP) or extra.get(SETUP)
    if not isinstance(setup, Mapping) or not outputs.get("stop_reason"):
        raise TraceError("it did not finish, or was not traced by this library")
    if not outputs.get("scratchpad"):
        raise TraceError("it was traced without its messages")
    question, *scratchpad = outputs["scratchpad"]
    known = (extra.get("metadata") or {}).get(QUESTION) or {}
    fields = {
        **{key: outputs.get(key, "") for key in ("answer", "stop_reason", "error", "ledger")},
        "rounds": outputs.get("round"),
        "question": question.get("content", ""),
        "scratchpad": scratchpad,
        **{key: value for key, value in setup.items() if key in OF_SETUP},
        **known,
    }
    return Trace.read(fields)
