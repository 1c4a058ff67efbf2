"""A candidate as a LangChain tool, where such tools are used: ToolNode, create_agent, by hand."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from openai_server import Hang, Reply, Status
from router_r1_graph import CandidatePool, PoolError, candidate_tool, pool_tools
from yaml_pool import ONE_DOLLAR, both_ways, yaml_pool

CALL = {"type": "tool_call", "id": "1", "name": "Ada", "args": {"query": "Capital of France?"}}
BILL = {
    "candidate": "Ada",
    "ok": True,
    "error": None,
    "input_tokens": 10,
    "output_tokens": 5,
    "reasoning_tokens": 0,
    "cost_usd": pytest.approx(20 / 1e6),
    "attempts": 1,
    "cached": False,
    "stored": False,
    "saved_usd": 0.0,
}


def do(thing, how, given, config=None):
    """Run anything of LangChain's by `invoke` or `ainvoke`."""
    if how == "invoke":
        return thing.invoke(given, config)
    return asyncio.run(thing.ainvoke(given, config))


@both_ways
def test_a_tool_call_brings_the_reply_and_its_bill(serve, tmp_path, how):
    (tool,) = pool_tools(yaml_pool(tmp_path, serve(Reply("Paris")), **ONE_DOLLAR))
    started = time.perf_counter()
    message = do(tool, how, CALL)
    gone = time.perf_counter() - started
    assert isinstance(message, ToolMessage)
    assert (message.content, message.name, message.tool_call_id) == ("Paris", "Ada", "1")
    assert 0 < message.artifact.pop("seconds") <= gone
    assert message.artifact == BILL


@both_ways
def test_a_plain_call_brings_the_reply_alone(serve, tmp_path, how):
    server = serve(Reply("Paris"))
    (tool,) = pool_tools(yaml_pool(tmp_path, server))
    assert do(tool, how, {"query": "Capital of France?"}) == "Paris"
    assert server.requests[0].prompt == "Capital of France?"


@both_ways
def test_a_failing_candidate_is_content_and_artifact_and_no_exception(serve, tmp_path, how):
    (tool,) = pool_tools(yaml_pool(tmp_path, serve(Status(401, "Incorrect API key"))))
    message = do(tool, how, CALL)
    assert message.content.startswith("error: ")
    assert "Incorrect API key" in message.content
    assert message.artifact["ok"] is False
    assert message.artifact["error"]["kind"] == "auth"
    assert "Incorrect API key" in message.artifact["error"]["message"]
    assert message.artifact["cost_usd"] == 0


@both_ways
def test_the_seconds_left_bound_all_attempts_of_a_tool(serve, tmp_path, how):
    server = serve(Hang())
    (tool,) = pool_tools(yaml_pool(tmp_path, server, timeout_seconds=3600, max_retries=5))
    args = {"query": "?", "seconds_left": 0.2}
    message = do(tool, how, {**CALL, "args": args})
    assert message.artifact["error"]["kind"] == "timeout"


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_tool_without_time_left_does_not_ask(serve, tmp_path, seconds):
    server = serve(Reply("Paris"))
    (tool,) = pool_tools(yaml_pool(tmp_path, server))
    message = tool.invoke({**CALL, "args": {"query": "?", "seconds_left": seconds}})
    assert (message.artifact["ok"], message.artifact["attempts"]) == (False, 0)
    assert server.count() == 0


class Inputs(BaseCallbackHandler):
    """Keeps what tracers are told of a tool's input."""

    run_inline = True

    def __init__(self):
        self.told = []

    def on_tool_start(self, serialized, input_str, *, inputs=None, **_):
        self.told.append((input_str, inputs))


@both_ways
def test_the_routers_own_call_of_a_tool_is_the_same_without_a_schema(serve, tmp_path, how):
    server = serve(Reply("Paris"))
    (tool,) = pool_tools(yaml_pool(tmp_path, server, **ONE_DOLLAR))
    args = {"query": "Capital?", "background": "France", "images": [], "seconds_left": 9.0}
    heard = Inputs()
    config = {"callbacks": [heard]}
    messages = [do(one, how, {**CALL, "args": args}, config) for one in (tool, tool.unchecked())]
    for message in messages:
        message.artifact.pop("seconds")
    assert messages[0] == messages[1]
    assert messages[0].artifact == {**BILL, "background": "France"}
    assert server.requests[0].body == server.requests[1].body
    assert heard.told == [("{'query': 'Capital?'}", {"query": "Capital?"})] * 2


NAMES = ["Qwen2.5-7B-Instruct", "a/b c", "Ünïcode Mödel", "x" * 100, "LLaMA-3.1-8B"]


def test_names_of_tools_are_valid_for_openai_and_the_display_name_stays(serve, tmp_path):
    pool = yaml_pool(tmp_path, serve(Reply("Paris")), {name: {} for name in NAMES})
    for tool, name in zip(pool_tools(pool), NAMES, strict=True):
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name)
        assert tool.description.startswith(f"Ask {name}, a language model (")
        assert tool.invoke({**CALL, "name": tool.name}).artifact["candidate"] == name


def test_a_model_is_shown_nothing_but_the_query(serve, tmp_path):
    (tool,) = pool_tools(yaml_pool(tmp_path, serve(Reply("Paris"))))
    schema = convert_to_openai_tool(tool)["function"]
    assert schema["name"] == "Ada"
    assert list(schema["parameters"]["properties"]) == ["query"]
    assert schema["parameters"]["required"] == ["query"]
    assert list(tool.tool_call_schema.model_json_schema()["properties"]) == ["query"]


def test_the_description_is_the_descriptor(serve, tmp_path):
    settings = {**ONE_DOLLAR, "latency_seconds": 1.5, "strengths": ["geography", "history"]}
    (tool,) = pool_tools(yaml_pool(tmp_path, serve(Reply("Paris")), **settings))
    assert tool.description == (
        "Ask Ada, a language model ($1 in, $2 out per 1M tokens; about 1.5 s; "
        "good at geography, history)."
    )


def test_a_tool_can_be_given_a_chat_model_and_then_needs_no_key(serve):
    server = serve(Reply("Paris"))
    candidate = CandidatePool.from_yaml("router_r1").candidates[0]
    model = ChatOpenAI(model="m", base_url=server.base_url, api_key="x", max_retries=0)
    assert candidate_tool(candidate, model).invoke({"query": "?"}) == "Paris"


def test_without_the_keys_no_tool_is_made():
    with pytest.raises(PoolError, match="NVIDIA_API_KEY is not set"):
        pool_tools(CandidatePool.from_yaml("router_r1"))


# --------------------------------------------------------------------------------- ToolNode


@both_ways
def test_a_tool_node_runs_candidates_as_they_are(serve, tmp_path, how):
    server = serve({"ada": Reply("Paris"), "bob": Status(500)})
    pool = yaml_pool(tmp_path, server, {"Ada": {}, "Bob": {}}, **ONE_DOLLAR)
    builder = StateGraph(MessagesState).add_node("tools", ToolNode(pool_tools(pool)))
    graph = builder.add_edge(START, "tools").compile()
    calls = [CALL, {**CALL, "id": "2", "name": "Bob"}]
    result = do(graph, how, {"messages": [AIMessage("", tool_calls=calls)]})
    good, bad = result["messages"][1:]
    assert (good.content, good.tool_call_id) == ("Paris", "1")
    assert {k: good.artifact[k] for k in BILL} == BILL
    assert bad.content.startswith("error: ")
    assert bad.artifact["error"]["kind"] == "server_error"


# ----------------------------------------------------------------------------- create_agent


@both_ways
def test_an_agent_uses_candidates_as_they_are(serve, tmp_path, how):
    turns = [
        Reply("", tool_calls=[("Ada", {"query": "Capital of France?"})]),
        Reply("It is Paris."),
    ]
    server = serve({"boss": turns, "ada": Reply("Paris")})
    pool = yaml_pool(tmp_path, server, **ONE_DOLLAR)
    boss = ChatOpenAI(model="boss", base_url=server.base_url, api_key="x", max_retries=0)
    agent = create_agent(boss, pool_tools(pool))
    result = do(agent, how, {"messages": [HumanMessage("What is the capital of France?")]})
    assert [message.type for message in result["messages"]] == ["human", "ai", "tool", "ai"]
    assert result["messages"][-1].text == "It is Paris."
    observed = result["messages"][2]
    assert observed.content == "Paris"
    assert {k: observed.artifact[k] for k in BILL} == BILL


@both_ways
def test_an_agent_sees_the_error_of_a_failing_candidate_and_goes_on(serve, tmp_path, how):
    turns = [Reply("", tool_calls=[("Ada", {"query": "?"})]), Reply("Ada cannot be reached.")]
    server = serve({"boss": turns, "ada": Status(404, "no such model")})
    boss = ChatOpenAI(model="boss", base_url=server.base_url, api_key="x", max_retries=0)
    agent = create_agent(boss, pool_tools(yaml_pool(tmp_path, server)))
    result = do(agent, how, {"messages": [HumanMessage("?")]})
    told = server.requests[-1].body["messages"][-1]
    assert (told["role"], told["content"][:7]) == ("tool", "error: ")
    assert "no such model" in told["content"]
    assert result["messages"][-1].text == "Ada cannot be reached."


def test_a_model_cannot_set_the_time_that_is_left(serve, tmp_path):
    arguments = {"query": "?", "seconds_left": -1}
    turns = [Reply("", tool_calls=[("Ada", arguments)]), Reply("Paris.")]
    server = serve({"boss": turns, "ada": Reply("Paris")})
    boss = ChatOpenAI(model="boss", base_url=server.base_url, api_key="x", max_retries=0)
    agent = create_agent(boss, pool_tools(yaml_pool(tmp_path, server)))
    agent.invoke({"messages": [HumanMessage("?")]})
    assert server.count("ada") == 1


def test_other_servers_are_sent_the_limit_by_its_old_name(serve, tmp_path):
    """Some ignore `max_completion_tokens`, and a worst-case price rests on the limit."""
    server = serve(Reply("Paris", 5, 2))
    pool = yaml_pool(tmp_path, server, {"Ada": {"max_tokens": 77}})
    pool_tools(pool)[0].invoke({"query": "?"})
    body = server.requests[0].body
    assert body["max_tokens"] == 77
    assert "max_completion_tokens" not in body


def test_a_reply_longer_than_its_limit_is_warned_of(serve, tmp_path, caplog):
    pool = yaml_pool(tmp_path, serve(Reply("Paris", 5, 999)), {"Ada": {"max_tokens": 77}})
    pool_tools(pool)[0].invoke({"query": "?"})
    assert "wrote 999 tokens, more than its limit of 77" in caplog.text
