"""What is private to other packages: where it is used, and what is left without it."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool
from langchain_core.tracers.langchain import LangChainTracer
from langchain_openai.chat_models.base import BaseChatOpenAI
from langgraph.channels import LastValue
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.pregel._messages import StreamMessagesHandler
from langsmith import RunTree

from extras import needs
from fakes import answer, make_pool, models, search
from langsmith_sink import LangSmithSink
from openai_server import Reply
from renamed import rename
from router_r1_graph import ScriptedController, create_router_r1
from router_r1_graph.candidates.adapters import as_chat_model
from router_r1_graph.candidates.given import made_for
from router_r1_graph.candidates.lenient import Lenient
from router_r1_graph.candidates.providers import make_chat_model
from router_r1_graph.trace import Trace
from yaml_pool import yaml_pool

ROOT = Path(__file__).parent.parent
OURS = ("router_r1_graph", "training", "graphs")
#: Methods that LangChain asks whoever writes such a class to write, and cannot rename.
ASKED_FOR = {
    *("_generate", "_agenerate", "_stream", "_astream", "_llm_type", "_identifying_params"),
    *("_run", "_arun", "_classify", "_aclassify", "_provider", "_persist_run"),
}


# ------------------------------------------------------------------------------- where it is used


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(tree: ast.AST) -> set[str]:
    """Return the private names that a module's own code defines: functions, fields, attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            inside = node.body if isinstance(node, ast.ClassDef) else []
            targets = [t for one in inside for t in getattr(one, "targets", [])]
            targets += [one.target for one in inside if isinstance(one, ast.AnnAssign)]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
            if node.name in ("__init__", "__enter__", "__post_init__", "_start"):
                found |= {
                    one.attr
                    for one in ast.walk(node)
                    if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store)
                }
    return {name for name in found if is_private(name)}


@cache
def parsed(text: str) -> tuple[ast.AST, set[str]]:
    """Return the tree of a module's code and the private names that it defines."""
    tree = ast.parse(text)
    return tree, own_names(tree)


def private_uses(text: str, own: set[str], module: str = "") -> Iterator[str]:
    """Yield what a module uses of other packages that is private there.

    Args:
        text: its code.
        own: private names of all our code, which `self` may have from a class of another module.
        module: in front of what is found.
    """
    tree, here = parsed(text)
    for node in ast.walk(tree):
        at = f"{module}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            names = [name.name for name in node.names]
            whole = getattr(node, "module", None)
            parts = [*(whole or "").split("."), *(p for n in names for p in n.split("."))]
            if parts[0] not in (*OURS, "__future__") and any(map(is_private, parts)):
                yield f"{at} import {whole or ''} {names}"
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            value = node.value
            if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "super":
                continue  # an override, which the other test finds
            mine = isinstance(value, ast.Name) and value.id in ("self", "cls")
            if node.attr not in (own if mine else here):
                yield f"{at} {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("attr"):
            match node.args:
                case [_, ast.Constant(value=str() as name), *_] if is_private(name):
                    yield f"{at} {ast.unparse(node)}"


#: Public, though their names are not; and ours, of an object that another module makes.
KNOWN = {"os._exit", "term._replace", "ours._known", "model._known"}


def test_private_parts_of_others_are_used_in_compat_alone():
    files = {path: path.read_text() for folder in OURS for path in (ROOT / folder).rglob("*.py")}
    own = set().union(*(parsed(text)[1] for text in files.values()))
    found = [
        use
        for path, text in files.items()
        if path.name != "_compat.py"
        for use in private_uses(text, own, str(path.relative_to(ROOT)))
    ]
    assert [use for use in found if use.partition(" ")[2] not in KNOWN] == []


@pytest.mark.parametrize(
    "line",
    [
        "from langgraph.pregel._messages import StreamMessagesHandler",
        "from langgraph.pregel import _loop",
        "import langgraph._internal",
        "tool._run",
        "self._buffered_inputs",
        "self._buffered_inputs = []",
        "getattr(model, '_attn_implementation', None)",
        "setattr(model, '_attn_implementation', None)",
    ],
)
def test_a_new_use_is_found(line):
    assert list(private_uses(line, {"_run"}))


def overrides() -> Iterator[str]:
    """Yield the private methods of other packages' classes that classes of ours override."""
    for root in ("router_r1_graph", "training"):
        package = importlib.import_module(root)
        for found in pkgutil.walk_packages(package.__path__, f"{root}."):
            if found.name.endswith(("__main__", ".minilm")):
                continue
            for one in vars(importlib.import_module(found.name)).values():
                if not inspect.isclass(one) or one.__module__ != found.name:
                    continue
                bases = [
                    *one.__mro__,
                    *(BaseChatOpenAI.__mro__ if issubclass(one, Lenient) else ()),
                ]
                for name in filter(is_private, vars(one)):
                    method = callable(getattr(one, name)) and not name.endswith("_")
                    above = {c.__module__.partition(".")[0] for c in bases if name in vars(c)}
                    if method and above - {*OURS, "builtins", "typing", "abc", "enum"}:
                        yield f"{one.__name__}.{name}"


def test_each_override_of_a_private_method_is_on_the_page():
    needs("train")
    needs("agents")
    text = (ROOT / "docs" / "contributing.md").read_text()
    told = re.findall(r"`(\w+\.(_\w+))`", text.partition("## Private parts")[2])
    there = {one for one in overrides() if one.partition(".")[2] not in ASKED_FOR}
    assert {whole for whole, _ in told} == there


# --------------------------------------------------------------------------- what is left without

ASKED: Any = {"messages": [("user", "What is the capital of France?")]}


def router() -> Any:
    pool = make_pool()
    script = [search("Ada: capital?"), answer("Paris")]
    graph = create_router_r1(pool, ScriptedController(script), models=models(pool))
    return graph.compile(name="router")


def in_a_parent() -> Any:
    parent = StateGraph(MessagesState)
    parent.add_node("router", router())
    parent.add_edge(START, "router")
    return parent.compile()


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
@pytest.mark.parametrize("name", ["seen", "metadata", "stream"])
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_a_stream_of_messages_goes_on_to_the_answer(monkeypatch, name, version):
    missed = rename(monkeypatch, StreamMessagesHandler, name)
    if version == "v3":
        stream = in_a_parent().stream_events(ASKED, version="v3")
        texts = [str(message.text) for message in stream.messages]
        assert stream.output["messages"][-1].text == "Paris"
    else:
        parts = in_a_parent().stream(ASKED, stream_mode=["messages", "values"], version="v2")
        values = {"messages": [], "values": []}
        for part in parts:
            values[part["type"]].append(part["data"])
        texts = [message.text for message, _ in values["messages"]]
        assert values["values"][-1]["messages"][-1].text == "Paris"
    assert version == "v3" or "Paris" in texts
    assert missed or (name, version) == ("stream", "v2")  # which hands nothing up


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (LangChainTracer, "run_map"),
        (LangChainTracer, "client"),
        (RunTree, "ls_client"),
        (RunTree, "child_runs"),
        (RunTree, "replicas"),
    ],
)
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_a_traced_run_is_sent_whole(monkeypatch, owner, name, how):
    with LangSmithSink() as sink:
        client = sink.client()
        tracer = LangChainTracer(client=client, project_name="test")
        graph, config = router(), {"callbacks": [tracer]}
        missed = rename(monkeypatch, owner, name)
        if how == "invoke":
            state = graph.invoke(ASKED, config)
        else:
            state = asyncio.run(graph.ainvoke(ASKED, config))
        client.flush()
        assert missed
        assert state["answer"] == "Paris"
        assert {"router", "think", "Ada"} <= {run["name"] for run in sink.tree()}
        assert all(run["end_time"] for run in sink.tree())
        assert tracer.client is client


def test_a_tool_whose_code_cannot_be_found_is_asked(monkeypatch):
    class Lookup(BaseTool):
        name: str = "lookup"
        description: str = "Looks things up."
        args_schema: ClassVar[Any] = {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
        }

        def _run(self, query: str, **_: Any) -> str:
            return f"about {query}"

    missed = rename(monkeypatch, Lookup, "_run")
    model = as_chat_model(Lookup())
    assert missed
    assert "about Paris" in str(model.invoke([HumanMessage("Paris")]).text)


@pytest.mark.parametrize("name", ["_make_sse_decoder", "_process_response_data"])
def test_a_client_that_reads_streams_in_another_way_reads_them(monkeypatch, name, serve, tmp_path):
    missed = [rename(monkeypatch, one, name) for one in (openai.OpenAI, openai.AsyncOpenAI)]
    pool = yaml_pool(tmp_path, serve(Reply("Paris")), {"Ada": {"options": {"streaming": True}}})
    graph = create_router_r1(pool, ScriptedController([search("Ada: capital?"), answer("Paris")]))
    state = graph.compile().invoke({"question": "What is the capital of France?"})
    (call,) = Trace.from_state(state).calls
    assert (call.ok, call.reply) == (True, "Paris")
    assert any(missed)


def test_a_model_that_langchain_makes_in_another_way_is_asked_by_langchain(monkeypatch):
    init_chat_model = pytest.importorskip("langchain.chat_models").init_chat_model
    model = init_chat_model(configurable_fields="any", model="openai:m", api_key="k")
    made = made_for(model, {}, ())
    assert made is not model
    missed = rename(monkeypatch, type(model), "_model")
    assert made_for(model, {}, ()) is model
    assert missed


def test_a_client_that_does_not_say_which_api_it_asks_is_asked(monkeypatch, serve, tmp_path):
    missed = rename(monkeypatch, BaseChatOpenAI, "_use_responses_api")
    pool = yaml_pool(tmp_path, serve(Reply("Paris")))
    model = make_chat_model(pool.candidates[0])
    assert "".join(str(chunk.text) for chunk in model.stream("Hi")) == "Paris"
    assert missed


WITHOUT = """
import langgraph.graph, langgraph.pregel, langgraph.pregel._messages, langgraph.types
import langgraph._internal._constants as constants, langgraph.graph._branch as branch
import langchain_core.language_models.chat_models, langchain_core.tracers._streaming as streaming
import langchain_core.callbacks, langchain_core.tracers.langchain

del branch.BranchSpec, streaming._StreamingCallbackHandler
del constants.CONFIG_KEY_READ, constants.TASKS
del langgraph.pregel._messages.StreamMessagesHandler
if hasattr(langgraph.types, "TracePolicy"):
    del langgraph.types.TracePolicy

import asyncio
from router_r1_graph import _compat, _node, CandidatePool, create_router_r1, ScriptedController

script = ["<search> Quillora: Who wrote Hamlet? </search>", "<answer> Shakespeare </answer>"]
script = [f"<think> so </think> {turn}" for turn in script]
graph = create_router_r1(CandidatePool.embedded(), ScriptedController(script)).compile()
asked = {"question": "Who wrote Hamlet?"}
states = [graph.invoke(asked), asyncio.run(graph.ainvoke(asked))]
shown = [message.text for message, _ in graph.stream(asked, stream_mode="messages")]
assert not _compat.wants_tokens(object())
assert _node.shows(lambda _: {}) == {}
assert _compat.CONFIG_KEY_READ == "__pregel_read"
assert "Shakespeare" in shown
for state in states:
    assert (state["answer"], state["round"]) == ("Shakespeare", 1)
"""


def test_the_state_is_copied_where_a_run_begins_and_at_no_later_edge(monkeypatch):
    copied = []
    whole = LastValue.copy
    monkeypatch.setattr(LastValue, "copy", lambda self: copied.append(self.key) or whole(self))
    pool = make_pool("Ada")
    script = ScriptedController([search("Ada: q?"), answer("x")])
    graph = create_router_r1(pool, script, models=models(pool)).compile()
    assert graph.invoke({"question": "q?"})["round"] == 1
    assert copied
    assert len(copied) == len(set(copied))


def test_without_all_that_is_imported_a_graph_runs():
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr[-3000:]
