"""`router-r1 pool check --live`: asks each model of a pool once, and reads its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ..candidates import Candidate
from ..candidates.bill import Bill
from ..candidates.resilience.status import status_of
from ..candidates.settings import ControllerSettings, ModelSettings
from ..candidates.tool import CandidateTool, candidate_tool
from ..errors import ConfigError
from ..outside import visible
from ..words import rounded, usd

_QUERY = "Reply with the one word OK."


def controller_tool(settings: ControllerSettings) -> CandidateTool:
    """Return a tool that asks the chat model of a controller block, as if it were a candidate."""
    given = {name: getattr(settings, name) for name in ModelSettings.model_fields}
    candidate = Candidate(name="controller", **given)
    candidate.__dict__["folder"] = settings.folder
    return candidate_tool(candidate)


def ask_each(tools: Sequence[CandidateTool]) -> list[Bill | None]:
    """Ask all models at once; None = a tool, retriever or graph, which may have side effects."""

    async def ask(tool: CandidateTool) -> Bill | None:
        if tool.candidate.kind != "model":
            return None
        call = {"type": "tool_call", "id": "1", "name": tool.name, "args": {"query": _QUERY}}
        message = await tool.ainvoke(call)
        bill: Bill = message.artifact
        return bill

    async def ask_all() -> list[Bill | None]:
        return await asyncio.gather(*map(ask, tools))

    return asyncio.run(ask_all())


def reached_table(tools: Sequence[CandidateTool], bills: Sequence[Bill | None]) -> Table:
    """Return a table of the models: replies, seconds, and the status of limits and breakers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate", style="bold", no_wrap=True)
    table.add_column("reached")
    for name in ("seconds", "cost", "attempts"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("limits")
    for tool, bill in zip(tools, bills, strict=True):
        try:
            limits = status_of(tool.candidate).describe(tool.candidate)
        except (ConfigError, OSError) as error:
            limits = str(error)
        said, style = "not asked", "dim"
        if bill:
            error_ = bill["error"]
            said, style = ("yes", "green") if bill["ok"] else ("no", "red")
            said += f" ({error_['kind']}: {error_['message']})" if error_ else ""
        table.add_row(
            Text(visible(tool.candidate.name)),
            Text(visible(said), style=style),
            rounded(bill["seconds"], 1) if bill else "-",
            usd(bill["cost_usd"]) if bill else "-",
            str(bill["attempts"]) if bill else "-",
            Text(visible(limits) or "-"),
        )
    return table
