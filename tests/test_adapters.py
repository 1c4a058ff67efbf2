"""Tools, retrievers and whole graphs as candidates, beside LLMs and under the same rules."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Annotated, Any

import httpx
import pytest
import yaml
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import InjectedToolCallId, StructuredTool, Tool, ToolException, tool
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, InjectedStore, ToolNode, ToolRuntime
from langgraph.pregel.remote import RemoteGraph

from extras import needs
from fakes import NEVER, FakeChat, PaidController, answer, make_pool, models, search
from router_r1_graph import (
    CandidatePool,
    PoolError,
    RouterContext,
    ScriptedController,
    create_router_r1,
    create_router_r1_agent,
    pool_tools,
)
from router_r1_graph.cli.tables import pool_table
from router_r1_graph.console import make_console
from router_r1_graph.cost_scales import PercentileCost
from router_r1_graph.ledger import total
from router_r1_graph.trace import Trace

FREE = {"input_usd_per_mtok": None, "output_usd_per_mtok": None}
both_ways = pytest.mark.parametrize("how", ["invoke", "ainvoke"])


@tool
def calculator(expression: str, base: int = 10) -> str:
    """Add two numbers."""
    left, _, right = expression.partition("+")
    return str(int(left, base) + int(right, base))


class Library(BaseRetriever):
    """Finds the texts that share a word with the query."""

    texts: tuple[str, ...] = (
        "The Danube flows through Vienna.",
        "Vienna is in Austria.",
        "Mars is red.",
    )

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        words = set(query.casefold().strip("?").split())
        shared = [t for t in self.texts if words & set(t.casefold().strip(".").split())]
        return [Document(text) for text in shared]


library = Library()


def make_calculator() -> Any:
    return calculator


def make_graph(chat: Any = None) -> StateGraph[Any]:
    """Return a graph that answers with one model's message."""
    chat = chat or FakeChat(text="Vienna")

    def say(state: MessagesState) -> dict[str, Any]:
        return {"messages": [chat.invoke(state["messages"])]}

    return StateGraph(MessagesState).add_node(say).add_edge(START, "say")


compiled = make_graph().compile()


def fake_factory() -> Any:
    return "neither"


@tool
async def clock(place: str) -> str:
    """Say what time it is."""
    await asyncio.sleep(0)
    return f"noon in {place}"


async def make_clock() -> Any:
    await asyncio.sleep(0)
    return clock


def make_clock_by_itself() -> Any:
    return asyncio.run(make_clock())


@tool
def hits(query: str) -> list[Any]:
    """Bring several blocks, as an MCP server does."""
    image = {"type": "image", "base64": "", "mime_type": "image/png"}
    return [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}, image]


async def _say_later(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage("Graz")]}


async_graph = StateGraph(MessagesState).add_node("say", _say_later).add_edge(START, "say")
around_async = (
    StateGraph(MessagesState).add_node("inner", async_graph.compile()).add_edge(START, "inner")
)


def candidate(provider: str, path: str | None = None, **settings: Any) -> dict[str, Any]:
    options = {"object": path} if path else {}
    defaults = {"name": provider.title(), "usd_per_call": 0.001, **FREE}
    return {**defaults, "provider": provider, "options": options, **settings}


def run(pool: CandidatePool, *script: str, how: str = "invoke", **options: Any) -> dict[str, Any]:
    context = options.pop("context", None)
    graph = create_router_r1(pool, ScriptedController(script), **options).compile()
    question = {"question": "Where does the Danube flow?"}
    if how == "invoke":
        return graph.invoke(question, context=context)
    return asyncio.run(graph.ainvoke(question, context=context))


def bills(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [m.artifact for m in result["scratchpad"] if getattr(m, "artifact", None)]


# ------------------------------------------------------------------------------ asked like LLMs


@both_ways
@pytest.mark.parametrize(
    ("provider", "path", "query", "reply"),
    [
        ("tool", "test_adapters:calculator", "17+25", "42"),
        ("tool", "test_adapters:make_calculator", "17+25", "42"),
        (
            "retriever",
            "test_adapters:library",
            "Vienna?",
            "[1] The Danube flows through Vienna.\n[2] Vienna is in Austria.",
        ),
        ("retriever", "test_adapters:Library", "Mars?", "[1] Mars is red."),
        ("graph", "test_adapters:compiled", "Which city?", "Vienna"),
        ("graph", "test_adapters:make_graph", "Which city?", "Vienna"),
        ("tool", "test_adapters:clock", "Ulm", "noon in Ulm"),
        ("tool", "test_adapters:make_clock", "Ulm", "noon in Ulm"),
        ("tool", "test_adapters:make_clock_by_itself", "Ulm", "noon in Ulm"),
        ("tool", "test_adapters:hits", "x", "one\ntwo\n(image left out)"),
        ("graph", "test_adapters:async_graph", "Which city?", "Graz"),
        ("graph", "test_adapters:around_async", "Which city?", "Graz"),
    ],
)
def test_a_tool_a_retriever_or_a_graph_stands_in_a_pool_beside_llms(
    tmp_path, how, provider, path, query, reply
):
    file = tmp_path / "pool.yaml"
    fake = {"name": "Ada", "provider": "fakes:fake_chat_model", "output_usd_per_mtok": 2.0}
    file.write_text(yaml.safe_dump({"candidates": [candidate(provider, path), fake]}))
    pool = CandidatePool.from_yaml(file)
    result = run(pool, search(f"{provider}: {query}", "Ada: ?"), answer(), how=how)
    asked, ada = bills(result)
    assert (asked["reply"], asked["ok"], asked["attempts"]) == (reply, True, 1)
    assert ada["reply"] == "Paris"
    assert result["stop_reason"] == "answered"


def test_a_vector_store_of_langchain_is_a_retriever():
    needs("eval")

    class Letters(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [self.embed_query(text) for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return [float(text.casefold().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]

    store = InMemoryVectorStore.from_texts(Library().texts, Letters())
    retriever = store.as_retriever(search_kwargs={"k": 1})
    pool = make_pool(candidate("retriever"))
    result = run(pool, search("Retriever: red Mars"), answer(), models={"Retriever": retriever})
    assert bills(result)[0]["reply"] == "[1] Mars is red."


def test_they_can_be_given_in_python_and_then_need_no_object():
    pool = make_pool(candidate("tool"), candidate("retriever"), candidate("graph"))
    given = {"Tool": calculator, "Retriever": library, "Graph": make_graph()}
    result = run(pool, search("Tool: 1+1", "Retriever: Mars", "Graph: ?"), answer(), models=given)
    assert [b["reply"] for b in bills(result)] == ["2", "[1] Mars is red.", "Vienna"]


def test_not_to_retrieve_is_a_choice_like_any_other():
    pool = make_pool("Ada", candidate("retriever", "test_adapters:library"))
    asked = run(pool, search("Ada: ?"), answer(), models={"Ada": FakeChat()})
    assert list(asked["ledger"]["candidates"]) == ["Ada"]
    alone = run(pool, answer("Vienna"), models={"Ada": FakeChat()})
    assert (alone["answer"], total(alone["ledger"])["cost_usd"]) == ("Vienna", 0.0)


def test_a_tool_as_a_candidate_works_in_a_tool_node_too():
    pool = make_pool(candidate("tool", "test_adapters:calculator"))
    builder = StateGraph(MessagesState).add_node("tools", ToolNode(pool_tools(pool)))
    call = {"type": "tool_call", "id": "1", "name": "Tool", "args": {"query": "1+2"}}
    graph = builder.add_edge(START, "tools").compile()
    result = graph.invoke({"messages": [AIMessage("", tool_calls=[call])]})
    assert result["messages"][-1].content == "3"


@pytest.mark.parametrize(
    "given",
    [
        Tool("adder", calculator.func, "Add."),
        StructuredTool(
            name="adder",
            description="Add, as a server's schema says.",
            func=lambda expression: calculator.func(expression),
            args_schema={
                "type": "object",
                "properties": {"expression": {"type": "string"}},
                "required": ["expression"],
            },
        ),
    ],
)
def test_the_query_is_a_tools_one_argument_however_it_is_declared(given):
    result = run(
        make_pool(candidate("tool")), search("Tool: 1+2"), answer(), models={"Tool": given}
    )
    assert bills(result)[0]["reply"] == "3"


# ------------------------------------------------------------------------- price and descriptor


def test_a_call_costs_its_price_and_no_tokens():
    pool = make_pool(candidate("tool", "test_adapters:calculator"))
    result = run(pool, search("Tool: 1+1", "Tool: 2+2"), answer())
    line = result["ledger"]["candidates"]["Tool"]
    assert line["cost_usd"] == pytest.approx(0.002)
    assert (line["calls"], line["input_tokens"], line["output_tokens"]) == (2, 0, 0)
    assert [b["error"] for b in bills(result)] == [None, None]


def test_a_price_per_call_counts_in_the_papers_cost():
    pool = make_pool(candidate("tool", "test_adapters:calculator"))
    result = run(pool, search("Tool: 1+1", "Tool: x"), answer())
    trace = Trace.from_state(result, pool=pool, controller="scripted")
    assert PercentileCost().measure(trace) == pytest.approx(1000**0.5)


def test_a_budget_bounds_calls_that_are_priced_by_the_call():
    pool = make_pool(candidate("tool", "test_adapters:calculator"))
    turns = [search("Tool: 1+1", "Tool: 2+2"), search("Tool: 3+3"), answer()]
    result = run(pool, *turns, context={"budget_usd": 0.0015})
    assert [b["reply"] for b in bills(result)] == ["2"]
    assert total(result["ledger"])["cost_usd"] == pytest.approx(0.001)
    assert result["stop_reason"] == "budget_usd"


def test_the_descriptor_says_what_is_asked_and_what_a_call_costs():
    pool = make_pool(
        candidate("tool", "test_adapters:calculator", strengths=["sums"], latency_seconds=0.1),
        candidate("retriever", "test_adapters:library", usd_per_call=0),
        candidate("graph", "test_adapters:compiled", usd_per_call=None),
        {"name": "Ada", "usd_per_call": 0.01, "provider": "fakes:fake_chat_model"},
    )
    assert [c.describe() for c in pool.candidates] == [
        "tool; $0.001 per call; about 0.1 s; good at sums",
        "retriever; $0 per call",
        "graph; price unknown",
        "$0.01 per call; $1 in, $2 out per 1M tokens",
    ]
    assert [t.description.partition(" (")[0] for t in pool_tools(pool)] == [
        "Ask Tool",
        "Ask Retriever",
        "Ask Graph",
        "Ask Ada, a language model",
    ]


def test_prices_by_the_call_and_by_the_token_can_be_compared():
    cheap, dear, model = make_pool(
        candidate("tool", name="Cheap", usd_per_call=1e-6),
        candidate("tool", name="Dear", usd_per_call=0.01),
        {"name": "Ada"},
    ).candidates
    assert cheap.price_usd_per_mtok < model.price_usd_per_mtok < dear.price_usd_per_mtok
    # A call of 500 tokens in and 500 out at this sum of prices costs as much.
    assert dear.price_usd_per_mtok * 500 / 1e6 == pytest.approx(0.01)


def test_a_pool_as_a_table_has_the_price_of_a_call_where_there_is_one():
    console = make_console()
    with console.capture() as capture:
        console.print(pool_table(make_pool(candidate("tool"))))
    assert re.search(r"\$ a call .*\n.*0\.001", capture.get())
    with console.capture() as capture:
        console.print(pool_table(make_pool("Ada")))
    assert "a call" not in capture.get()


# ------------------------------------------------------------------------------- failing values


def broken(error: Exception) -> Any:
    def fail(query: str) -> str:
        raise error

    return StructuredTool.from_function(fail, name="broken", description="Fails.")


@both_ways
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionError("gone"), "connection"),
        (ToolException("no such page"), "other"),
        (ValueError("not a number"), "bug"),
    ],
)
def test_a_tool_that_raises_is_a_reply_with_an_error(how, error, kind):
    pool = make_pool(candidate("tool"))
    result = run(pool, search("Tool: ?"), answer(), how=how, models={"Tool": broken(error)})
    (bill,) = bills(result)
    assert (bill["ok"], bill["error"]["kind"], bill["cost_usd"]) == (False, kind, 0.0)
    assert str(error) in bill["error"]["message"]
    assert result["answer"] == "42"


class BrokenChat(FakeChat):
    def _result(self, query: str) -> Any:
        return len(None)  # type: ignore[arg-type]


def unread_by_a_client(query: str) -> str:
    return httpx.Headers()["x-answer"]


def unread(query: str) -> str:
    return str(json.loads("{x"))


@both_ways
@pytest.mark.parametrize(
    ("make", "kind", "line"),
    [
        (lambda: broken(ValueError("not a number")), "bug", "in fail"),
        (lambda: broken(LookupError("no such city")), "bug", "in fail"),
        (lambda: StructuredTool.from_function(unread, description="?"), "connection", "in unread"),
        (BrokenChat, "bug", "in _result"),
        (lambda: FakeChat(text=unread_by_a_client), "malformed", "in unread_by_a_client"),
        (lambda: broken(ConnectionError("gone")), "connection", ""),
        (lambda: broken(ToolException("no such page")), "other", ""),
    ],
)
def test_a_bug_in_a_users_own_tool_or_model_is_logged_and_its_line_named(
    how, make, kind, line, caplog
):
    pool = make_pool(candidate("tool"))
    result = run(pool, search("Tool: ?"), answer(), how=how, models={"Tool": make()})
    error = bills(result)[0]["error"]
    assert error["kind"] == kind
    logged = [r for r in caplog.records if r.getMessage() == "candidate Tool has a bug"]
    if not line:
        assert (error["message"].endswith(")"), logged) == (False, [])
        return
    assert re.search(rf" \(test_adapters.py, line \d+, {line}\)$", error["message"])
    assert [bool(record.exc_info) for record in logged] == [True]


@both_ways
def test_a_bug_of_a_candidate_is_not_retried_and_its_fallback_is_asked(how):
    pool = make_pool({"name": "Ada", "max_retries": 3, "fallback": "Bob"}, "Bob")
    given = {"Ada": BrokenChat(), "Bob": FakeChat()}
    result = run(pool, search("Ada: ?"), answer(), how=how, models=given)
    (bill,) = bills(result)
    failed = bill["instead_of"]
    assert (bill["candidate"], failed["error"]["kind"], failed["attempts"]) == ("Bob", "bug", 1)


def test_the_traceback_of_a_bug_has_no_key(caplog, monkeypatch):
    monkeypatch.setenv("OWN_KEY", "my-secret-value-1234")
    pool = make_pool({"name": "Ada", "api_key_env": "OWN_KEY"})
    leaky = FakeChat(text=ValueError("refused: my-secret-value-1234"))
    error = bills(run(pool, search("Ada: ?"), answer(), models={"Ada": leaky}))[0]["error"]
    assert "(fakes.py, line " in error["message"]
    assert "Traceback" in caplog.text
    assert "my-secret-value" not in caplog.text + error["message"]


def test_an_error_that_a_tool_handles_itself_is_one_too():
    handled = broken(ToolException("no such page"))
    handled.handle_tool_error = True
    result = run(
        make_pool(candidate("tool")), search("Tool: ?"), answer(), models={"Tool": handled}
    )
    assert bills(result)[0]["error"]["message"] == "ToolException: no such page"


@both_ways
def test_a_transient_failure_is_retried_by_the_one_layer_that_retries(how):
    outcomes = iter([ConnectionError("gone"), "found"])

    def look(query: str) -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    flaky = StructuredTool.from_function(look, name="look", description="Looks.")
    pool = make_pool(candidate("tool", max_retries=1))
    result = run(pool, search("Tool: ?"), answer(), how=how, models={"Tool": flaky})
    (bill,) = bills(result)
    assert (bill["reply"], bill["attempts"], bill["cost_usd"]) == ("found", 2, 0.001)


@both_ways
def test_a_tool_that_hangs_is_given_up_in_time(how):
    def hang(query: str) -> str:
        time.sleep(NEVER)
        return "too late"

    async def ahang(query: str) -> str:
        await asyncio.sleep(NEVER)
        return "too late"

    slow = StructuredTool.from_function(hang, ahang, name="hang", description="Hangs.")
    pool = make_pool(candidate("tool", timeout_seconds=0.1))
    result = run(pool, search("Tool: ?"), answer(), how=how, models={"Tool": slow})
    assert bills(result)[0]["error"]["kind"] == "timeout"


def test_a_retriever_that_finds_nothing_is_an_empty_reply_that_costs():
    pool = make_pool(candidate("retriever", "test_adapters:library"))
    result = run(pool, search("Retriever: Jupiter"), answer())
    (bill,) = bills(result)
    assert (bill["ok"], bill["error"]["kind"], bill["cost_usd"]) == (False, "empty", 0.001)


# --------------------------------------------------------------------------------------- graphs


def test_a_graphs_tokens_are_those_of_the_messages_it_hands_back():
    chat = FakeChat(input_tokens=7, output_tokens=3)
    builder = make_graph(chat)
    builder.add_node("again", lambda state: {"messages": [chat.invoke(state["messages"])]})
    builder.add_edge("say", "again")
    priced = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0, "usd_per_call": None}
    pool = make_pool(candidate("graph", **priced))
    result = run(pool, search("Graph: ?"), answer(), models={"Graph": builder})
    (bill,) = bills(result)
    assert (bill["input_tokens"], bill["output_tokens"]) == (14, 6)
    assert bill["cost_usd"] == pytest.approx((14 * 1 + 6 * 2) / 1e6)


@both_ways
def test_a_router_can_be_a_candidate_of_a_router_and_its_bill_is_what_it_cost(how):
    inner_pool = make_pool()
    inner = create_router_r1_agent(
        inner_pool,
        PaidController([search("Ada: inside?"), answer("Vienna")], usd=0.01),
        models=models(inner_pool),
        context=RouterContext(budget_usd=0.05),
    )
    pool = make_pool(candidate("graph", usd_per_call=0.05))
    result = run(
        pool,
        search("Graph: which city?"),
        answer(),
        how=how,
        models={"Graph": inner},
        context={"max_rounds": 1, "budget_usd": 0.06},
    )
    (bill,) = bills(result)
    assert (bill["reply"], bill["error"]) == ("Vienna", None)
    assert bill["cost_usd"] == pytest.approx(0.02 + 20e-6)  # not the 0.05 it might have cost
    assert (bill["input_tokens"], bill["output_tokens"]) == (10, 19)


def test_the_knobs_of_a_run_are_not_those_of_a_graph_it_asks():
    seen = []

    def script(view: Any) -> str:
        seen.append(view.context)
        return answer()

    own = RouterContext(max_rounds=7, budget_usd=0.05)
    inner_pool = make_pool()
    inner = create_router_r1_agent(
        inner_pool, ScriptedController(script), models=models(inner_pool), context=own
    )
    pool = make_pool(candidate("graph"))
    run(pool, search("Graph: ?"), answer(), models={"Graph": inner}, context={"max_rounds": 2})
    assert seen == [own]


@pytest.mark.parametrize(
    "node",
    [
        lambda state: {"messages": [HumanMessage("and you?")]},
        lambda state: {"messages": []},
        lambda state: 1 / 0,
    ],
)
def test_a_graph_that_ends_without_an_answer_is_a_failed_call(node):
    graph = StateGraph(MessagesState).add_node("odd", node).add_edge(START, "odd")
    result = run(
        make_pool(candidate("graph")), search("Graph: ?"), answer(), models={"Graph": graph}
    )
    assert bills(result)[0]["ok"] is False
    assert result["answer"] == "42"


def test_a_remote_graph_is_asked_without_the_thread_of_the_run():
    configs = []

    class Remote(RemoteGraph):
        """Answers as a server's JSON does, without one."""

        def invoke(self, input: Any, config: Any = None, **_: Any) -> Any:
            configs.append(config["configurable"])
            said = [{"type": "human", "content": m.text} for m in input["messages"]]
            return {"messages": [*said, {"type": "ai", "content": "Vienna"}]}

    pool = make_pool(candidate("graph"))
    given = {"Graph": Remote("researcher", url="http://127.0.0.1:9")}
    controller = ScriptedController([search("Graph: ?"), answer()])
    graph = create_router_r1(pool, controller, models=given).compile(InMemorySaver())
    result = graph.invoke({"question": "?"}, {"configurable": {"thread_id": "1"}})
    assert bills(result)[0]["reply"] == "Vienna"
    assert "thread_id" not in configs[0]


def test_a_remote_graph_that_nobody_serves_is_a_failed_call():
    remote = RemoteGraph("researcher", url="http://127.0.0.1:9")
    pool = make_pool(candidate("graph", timeout_seconds=1))
    result = run(pool, search("Graph: ?"), answer(), models={"Graph": remote})
    assert bills(result)[0]["error"]["kind"] in ("connection", "timeout")


# -------------------------------------------------------------------------------- configuration


@tool
def pair(left: str, right: str) -> str:
    """Take two."""
    return left + right


@tool
def needs_runtime(query: str, runtime: ToolRuntime) -> str:
    """Read the runtime."""
    return f"{query} {runtime.state}"


@tool
def needs_state(query: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Read the state."""
    return f"{query} {state}"


@tool
def needs_store(query: str, memory: Annotated[Any, InjectedStore()]) -> str:
    """Read the store."""
    return f"{query} {memory}"


@tool
def knows_its_call(query: str, id: Annotated[str, InjectedToolCallId]) -> str:
    """Say which call it is."""
    return f"{query} {id}"


@pytest.mark.parametrize(
    ("provider", "path", "says"),
    [
        ("tool", "test_adapters:needs_runtime", "an agent would inject runtime; a candidate has"),
        ("tool", "test_adapters:needs_state", "would inject state"),
        ("tool", "test_adapters:needs_store", "would inject memory"),
        ("tool", None, r"'Tool': options.object: is missing"),
        ("tool", "calculator", "'calculator' is not module:name"),
        ("tool", "no_such_module:x", "no module 'no_such_module'"),
        ("tool", "test_adapters:no_such_name", "module 'test_adapters' has no 'no_such_name'"),
        ("tool", "test_adapters:library", "is a Library, not a tool"),
        ("retriever", "test_adapters:calculator", "is a StructuredTool, not a retriever"),
        ("graph", "test_adapters:fake_factory", "is a str, not a graph"),
        (
            "tool",
            "test_adapters:pair",
            "'pair': a candidate is asked one query, and it takes left, ",
        ),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_the_pool(provider, path, says):
    with pytest.raises(PoolError, match=says):
        pool_tools(make_pool(candidate(provider, path)))


def test_what_langchain_itself_injects_is_no_hindrance():
    pool = make_pool(candidate("tool", "test_adapters:knows_its_call"))
    assert bills(run(pool, search("Tool: q"), answer()))[0]["reply"] == "q query"


async def test_a_pool_of_asynchronous_tools_is_built_inside_an_event_loop_too():
    pool = make_pool(candidate("tool", "test_adapters:make_clock_by_itself"))
    graph = create_router_r1(pool, ScriptedController([search("Tool: Ulm"), answer()])).compile()
    assert bills(await graph.ainvoke({"question": "?"}))[0]["reply"] == "noon in Ulm"
    assert bills(graph.invoke({"question": "?"}))[0]["reply"] == "noon in Ulm"


SERVER = """
from mcp.server.fastmcp import FastMCP

server = FastMCP("facts", log_level="ERROR")

@server.tool()
def lookup(query: str) -> str:
    if "boom" in query:
        raise ValueError("boom happened")
    return f"known: {query}"

@server.tool()
def search(query: str, limit: int = 2) -> list[str]:
    return [f"hit {n}" for n in range(limit)]

server.run()
"""


def test_the_tools_of_an_mcp_server_are_candidates(tmp_path):
    needs("mcp")
    (tmp_path / "server.py").write_text(SERVER)
    served = {"command": sys.executable, "args": ["server.py"]}

    def mcp(name: str, **options: Any) -> dict[str, Any]:
        return candidate("mcp", name=name, options={**served, **options})

    file = tmp_path / "pool.yaml"
    records = [mcp("Lookup", tool="lookup"), mcp("Search", tool="search")]
    file.write_text(yaml.safe_dump({"candidates": records}))
    pool = CandidatePool.from_yaml(file)
    assert pool.candidates[0].describe().startswith("tool; $0.001 per call")
    first, second, third = bills(
        run(pool, search("Lookup: x", "Search: y", "Lookup: boom"), answer())
    )
    assert (first["reply"], second["reply"]) == ("known: x", "hit 0\nhit 1")
    assert "boom happened" in third["error"]["message"]
    with pytest.raises(PoolError, match=r"no tool 'lokup' .did you mean 'lookup'.*it has: lookup,"):
        pool_tools(make_pool(mcp("A", tool="lokup", cwd=str(tmp_path))))
    with pytest.raises(PoolError, match="no tools of the server: FileNotFoundError"):
        pool_tools(make_pool(mcp("A", command="no-such-command")))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "has a url or a command, and not both"),
        ({"url": "http://127.0.0.1:9/mcp", "command": "x"}, "not both"),
        ({"url": "http://127.0.0.1:9/mcp", "tol": "x"}, "unknown option 'tol' .did you mean"),
    ],
)
def test_the_options_of_an_mcp_server_are_checked(options, says):
    with pytest.raises(PoolError, match=says):
        pool_tools(make_pool(candidate("mcp", options=options)))


def test_an_option_that_they_do_not_have_is_named():
    pool = make_pool(candidate("tool", options={"objekt": "x:y"}))
    with pytest.raises(PoolError, match=r"unknown option 'objekt' .did you mean 'object'"):
        pool_tools(pool)
