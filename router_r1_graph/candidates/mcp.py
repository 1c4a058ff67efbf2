"""The tools of an MCP server as candidates. Needs the extra `mcp`.

    candidates:
      - {name: Lookup, provider: mcp, options: {tool: lookup, command: python, args: [server.py]}}
      - {name: Search, provider: mcp, options: {tool: search, url: "https://host.example/mcp"},
         api_key_env: SEARCH_KEY}

A server is started, or connected to, for each call. A key is sent to a server with an address as a
bearer token; a server that is started has it in its environment.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Literal

from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, model_validator

from ..errors import ConfigError, MissingExtraError, PoolError, did_you_mean
from .adapters import as_chat_model
from .apart import run_apart
from .candidate import Candidate
from .failures import innermost
from .providers import read_options
from .reply import ChatModel


class McpOptions(BaseModel):
    """The `options:` of a candidate with `provider: mcp`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tool: str | None = None
    """The name of the tool; None = the only one of the server that takes one query."""
    url: str | None = None
    """The address of a server."""
    transport: Literal["streamable_http", "sse"] = "streamable_http"
    """The transport to a server with an address."""
    command: str | None = None
    """The command that starts a server; the connection is over stdin and stdout."""
    args: tuple[str, ...] = ()
    """The arguments of the command."""
    cwd: str | None = None
    """The folder that the command runs in; None = that of the pool file."""

    @model_validator(mode="after")
    def _one_server(self) -> McpOptions:
        if (self.url is None) == (self.command is None):
            raise ValueError("an MCP server has a url or a command, and not both")
        return self


def mcp_tool(candidate: Candidate) -> ChatModel:
    """Build the tool of a candidate with `provider: mcp`.

    Raises:
        MissingExtraError: langchain-mcp-adapters is not installed.
        ConfigError: the server cannot be reached, or has no such tool.
    """
    options = read_options(candidate, McpOptions)
    tools = {tool.name: tool for tool in run_apart(lambda: _tools(candidate, options))}
    names = ", ".join(tools) or "none"
    if options.tool is None:
        asked = {name: model for name, tool in tools.items() if (model := _askable(tool))}
        if len(asked) != 1:
            raise ConfigError(f"options.tool names one of the server's tools: {names}")
        return next(iter(asked.values()))
    if options.tool not in tools:
        near = did_you_mean(options.tool, tools)
        raise ConfigError(f"the server has no tool {options.tool!r}{near}; it has: {names}")
    return as_chat_model(tools[options.tool])


def _askable(tool: BaseTool) -> ChatModel | None:
    try:
        return as_chat_model(tool)
    except PoolError:
        return None


async def _tools(candidate: Candidate, options: McpOptions) -> list[BaseTool]:
    try:
        from langchain_mcp_adapters.tools import load_mcp_tools
    except ImportError as error:
        raise MissingExtraError("provider mcp", "mcp", error) from error
    connection: Any = _connection(candidate, options)
    try:
        async with asyncio.timeout(candidate.timeout_seconds):
            tools: list[BaseTool] = await load_mcp_tools(None, connection=connection)
    except Exception as error:
        why = innermost(error)
        raise ConfigError(f"no tools of the server: {type(why).__name__}: {why}") from error
    return tools


def _connection(candidate: Candidate, options: McpOptions) -> dict[str, Any]:
    key = os.environ.get(candidate.api_key_env or "", "")
    if options.url:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return {"transport": options.transport, "url": options.url, "headers": headers}
    folder = options.cwd or (candidate.folder and str(candidate.folder))
    return {
        "transport": "stdio",
        "command": options.command,
        "args": list(options.args),
        "cwd": folder or None,
        "env": {str(candidate.api_key_env): key} if key else None,
    }
