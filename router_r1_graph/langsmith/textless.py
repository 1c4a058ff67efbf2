"""LangSmith: runs that are sent without their text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langsmith import Client

from .traces import QUESTION


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
        metadata = {k: v for k, v in (extra.get("metadata") or {}).items() if k != QUESTION}
        kept["extra"] = {"metadata": metadata, "runtime": extra.get("runtime")}
    return kept
