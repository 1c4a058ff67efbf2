"""A pool file whose candidates are models of a loopback server, and both ways to run a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from langgraph.graph.state import CompiledStateGraph

from openai_server import OpenAIServer
from router_r1_graph import CandidatePool, ScriptedController, create_router_r1

ONE_DOLLAR = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}

#: The graph's two ways to run: a test that takes `how` is run with each.
both_ways = pytest.mark.parametrize("how", ["invoke", "ainvoke"])


def yaml_pool(
    folder: Path,
    server: OpenAIServer,
    candidates: Mapping[str, Mapping[str, Any]] | None = None,
    controller: Mapping[str, Any] | None = None,
    **settings: Any,
) -> CandidatePool:
    """Read a pool from a file that points at the server.

    Args:
        folder: where the file is written.
        server: whom every candidate asks; the model of candidate Ada is called ada.
        candidates: name -> its own settings; Ada alone when left out.
        controller: the controller block, whose model is called controller.
        **settings: of every candidate; free of charge and one attempt of 60 s unless said here.
    """
    common = {"base_url": server.base_url, "timeout_seconds": 60, "max_retries": 0}
    data: dict[str, Any] = {
        "candidates": [
            {"name": name, "model": name.lower(), **common, **settings, **own}
            for name, own in (candidates or {"Ada": {}}).items()
        ]
    }
    if controller is not None:
        data["controller"] = {"model": "controller", **common, **controller}
    file = folder / "pool.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return CandidatePool.from_yaml(file)


def scripted(pool: CandidatePool, *script: str, **compile_options: Any) -> CompiledStateGraph:
    """Compile the graph over a controller that says these turns."""
    return create_router_r1(pool, ScriptedController(script)).compile(**compile_options)


def run(graph: CompiledStateGraph, how: str, config: Any = None, **context: Any) -> dict[str, Any]:
    """Ask for France's capital by `invoke` or `ainvoke`."""
    question = {"question": "What is the capital of France?"}
    if how == "invoke":
        return graph.invoke(question, config, context=context)
    return asyncio.run(graph.ainvoke(question, config, context=context))


def bills(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the artifacts of the calls that got a reply or an error."""
    return [m.artifact for m in result["scratchpad"] if getattr(m, "artifact", None)]
