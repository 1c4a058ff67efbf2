"""A chat model as the controller, by tags and by native tool calls, over real HTTP."""

from __future__ import annotations

import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.sqlite import SqliteSaver

from fakes import FakeChat, make_pool
from openai_server import EmptyChoices, Reply, Status
from router_r1_graph import (
    CandidatePool,
    ChatModelController,
    ControllerError,
    ControllerSettings,
    create_router_r1,
    parse_controller,
)
from router_r1_graph.candidates.store import ReplyStore
from router_r1_graph.controllers import SPECS
from router_r1_graph.trace import Trace
from yaml_pool import bills, both_ways, run, yaml_pool

SEARCH = "<think> Ask. </think> <search> Ada: Capital of France? </search>"
ANSWER = "<think> Known. </think> <answer> Paris </answer>"


@pytest.fixture
def controlled(serve, tmp_path):
    """Return (graph, server): Ada and Bob reply "Paris, it is.", the controller as it is told."""

    def build(turns, *, checkpointer=None, **controller):
        server = serve(
            {"controller": turns, "ada": Reply("Paris, it is."), "bob": Reply("Paris, it is.")}
        )
        pool = yaml_pool(tmp_path, server, {"Ada": {}, "Bob": {}}, controller)
        graph = create_router_r1(pool, parse_controller("pool", pool))
        return graph.compile(checkpointer=checkpointer), server

    return build


def asked(server):
    """Return the bodies of what the controller was asked, in order."""
    return [request.body for request in server.requests if request.model == "controller"]


# ------------------------------------------------------------------------------------- tags


@both_ways
def test_by_tags_a_question_is_routed_and_answered(controlled, how):
    graph, server = controlled([Reply(SEARCH), Reply(ANSWER)])
    result = run(graph, how)
    assert (result["answer"], result["stop_reason"], result["round"]) == ("Paris", "answered", 1)
    (bill,) = bills(result)
    assert (bill["candidate"], bill["query"]) == ("Ada", "Capital of France?")
    assert [request.model for request in server.requests] == ["controller", "ada", "controller"]


def test_by_tags_the_stop_strings_are_sent(controlled):
    graph, server = controlled(Reply(ANSWER))
    run(graph, "invoke")
    (body,) = asked(server)
    assert body["stop"] == ["<information>", "</answer>"]
    assert "tools" not in body


@both_ways
def test_the_closing_tag_that_a_stop_string_took_is_added(controlled, how):
    graph, _ = controlled(Reply(ANSWER))  # the server cuts at the stop string
    result = run(graph, how)
    assert result["scratchpad"][-1].text == ANSWER
    assert result["answer"] == "Paris"


@both_ways
def test_a_stop_string_that_the_server_leaves_in_is_no_mistake(controlled, how):
    kept = [Reply(f"{SEARCH}\n<information> Ada: Rome", keeps_stop=True), Reply(ANSWER)]
    graph, server = controlled([*kept, Reply(ANSWER, keeps_stop=True)])
    result = run(graph, how)
    assert (result["answer"], len(bills(result))) == ("Paris", 1)
    assert "not done" not in str(asked(server)[1]["messages"])


def test_a_search_without_its_closing_tag_is_made(controlled):
    graph, _ = controlled([Reply(SEARCH.removesuffix("</search>")), Reply(ANSWER)])
    result = run(graph, "invoke")
    assert bills(result)[0]["query"] == "Capital of France?"


@both_ways
def test_a_text_cut_by_length_is_not_closed_but_told(controlled, how):
    cut = Reply("<think> Known. </think> <answer> Par", finish_reason="length")
    graph, server = controlled([cut, Reply(ANSWER)])
    result = run(graph, how)
    assert (result["answer"], result["stop_reason"]) == ("Paris", "answered")
    assert "the answer is cut off" in asked(server)[1]["messages"][-1]["content"]


def test_a_search_cut_by_length_is_not_made(controlled):
    cut = Reply("<search> Ada: Capital of Fr", finish_reason="length")
    graph, server = controlled([cut, Reply(ANSWER)])
    run(graph, "invoke")
    assert server.count("ada") == 0


def test_by_tags_observations_come_back_as_one_user_message(controlled):
    turn = (
        "<search> Ada: one? </search> <search> Bob: two? </search> <search> Cid: three? </search>"
    )
    graph, server = controlled([Reply(turn), Reply(ANSWER)])
    run(graph, "invoke")
    first, second = asked(server)
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][0] == first["messages"][0]
    assert second["messages"][1]["content"] == turn
    assert second["messages"][2]["content"] == (
        "<information> Ada: Paris, it is. </information>\n"
        "<information> Bob: Paris, it is. </information>\n"
        "<information> error: not done: no candidate 'Cid'; candidates: Ada, Bob\n"
        "(left: 3 rounds) </information>"
    )


@both_ways
def test_by_tags_the_last_generation_is_told_to_answer(controlled, how):
    graph, server = controlled([Reply(SEARCH), Reply(ANSWER)])
    result = run(graph, how, max_rounds=1)
    assert asked(server)[1]["messages"][-1]["content"].endswith(
        "(left: 0 rounds; answer now) </information>"
    )
    assert (result["answer"], result["stop_reason"]) == ("Paris", "round_limit")


@both_ways
def test_a_controller_that_will_not_answer_ends_with_the_last_reply(controlled, how):
    graph, server = controlled(Reply(SEARCH))
    result = run(graph, how, max_rounds=2)
    assert (result["answer"], result["stop_reason"]) == ("Paris, it is.", "round_limit")
    assert len(asked(server)) == 3


@both_ways
@pytest.mark.parametrize(("protocol", "last"), [("tags", ANSWER), ("tools", "Paris")])
def test_an_empty_text_is_a_mistake_and_not_a_failure(controlled, how, protocol, last):
    graph, server = controlled([Reply(""), Reply("  \n"), Reply(last)], protocol=protocol)
    result = run(graph, how)
    assert (result["answer"], result["stop_reason"]) == ("Paris", "answered")
    for body in asked(server)[1:]:
        assert "neither a search nor an answer" in body["messages"][-1]["content"]


@both_ways
@pytest.mark.parametrize("protocol", ["tags", "tools"])
@pytest.mark.parametrize("failure", [Status(500), EmptyChoices()], ids=["500", "no choices"])
def test_a_failing_controller_ends_the_run_with_what_is_known(controlled, how, protocol, failure):
    search = (
        Reply(SEARCH) if protocol == "tags" else Reply("", tool_calls=[("Ada", {"query": "?"})])
    )
    graph, _ = controlled([search, failure], protocol=protocol)
    result = run(graph, how)
    assert (result["answer"], result["stop_reason"]) == ("Paris, it is.", "controller_error")
    assert result["ledger"]["controller"]["failed_calls"] == 1


@both_ways
def test_a_controller_that_fails_at_once_leaves_no_answer(controlled, how, caplog):
    graph, _ = controlled(Status(401, "Incorrect API key"))
    result = run(graph, how)
    (record,) = [r for r in caplog.records if r.name.startswith("router_r1_graph")]
    assert "controller openai:controller failed: auth: " in record.getMessage()
    assert "Incorrect API key" in record.getMessage()
    assert (result["answer"], result["stop_reason"]) == ("", "controller_error")
    assert result["messages"][-1].text == "(no answer: controller_error)"


@both_ways
@pytest.mark.parametrize("protocol", ["tags", "tools"])
def test_a_controller_dearer_than_the_budget_is_not_asked(controlled, how, protocol):
    graph, server = controlled(Reply(ANSWER), protocol=protocol, output_usd_per_mtok=8.0)
    result = run(graph, how, budget_usd=0.008)  # 1024 tokens at 8 USD per million are more
    assert (result["answer"], result["stop_reason"]) == ("", "budget_usd")
    assert server.requests == []


@both_ways
def test_the_controllers_own_cost_ends_the_run_with_what_is_known(controlled, how):
    turns = [Reply(SEARCH, output_tokens=1000), Reply(ANSWER)]
    graph, server = controlled(turns, output_usd_per_mtok=8.0)
    result = run(graph, how, budget_usd=0.015)  # two turns of up to 1024 tokens cost more
    assert (result["answer"], result["stop_reason"]) == ("Paris, it is.", "budget_usd")
    assert len(asked(server)) == 1


@pytest.mark.parametrize(("knob", "sent"), [({"temperature": 0.9}, 0.9), ({}, 0.3)])
def test_the_temperature_of_a_run_wins_over_that_of_the_controller(controlled, knob, sent):
    graph, server = controlled(Reply(ANSWER), temperature=0.3)
    run(graph, "invoke", **knob)
    assert asked(server)[0]["temperature"] == sent


@both_ways
@pytest.mark.parametrize(("knob", "sent"), [({"temperature": 0.9}, 0.9), ({}, 0.3)])
def test_the_temperature_of_a_run_reaches_a_client_that_takes_none_with_a_call(how, knob, sent):
    asked = {"provider": "fakes:ollama_chat_model", "model": "llama3", "temperature": 0.3}
    settings = ControllerSettings(**asked, options={"text": ANSWER})
    controller = ChatModelController(settings=settings)
    graph = create_router_r1(CandidatePool.embedded(), controller).compile()
    assert run(graph, how, **knob)["answer"] == "Paris"
    assert controller.model.seen == [sent]


def test_a_reply_that_is_stored_is_one_of_the_temperature_of_the_run(tmp_path):
    settings = ControllerSettings(
        provider="fakes:ollama_chat_model", model="llama3", options={"text": ANSWER}
    )
    controller = ChatModelController(settings=settings)
    with ReplyStore(tmp_path / "replies.sqlite", every=True) as store:
        graph = create_router_r1(CandidatePool.embedded(), controller, replies=store).compile()
        for temperature in (0.9, None, 0.9, 0.0):
            run(graph, "invoke", temperature=temperature)
    assert controller.model.seen == [0.9, 0.0]


def test_a_temperature_that_cannot_be_taken_is_left_out_and_said(caplog):
    def answer(messages, **kwargs):
        if "temperature" in kwargs:
            raise TypeError("got an unexpected keyword argument 'temperature'")
        return AIMessage(ANSWER)

    graph = create_router_r1(
        CandidatePool.embedded(), ChatModelController(RunnableLambda(answer), name="Ida")
    ).compile()
    assert run(graph, "invoke", temperature=0.9)["answer"] == "Paris"
    assert "refuses temperature: it goes without" in caplog.text


@pytest.mark.parametrize("protocol", ["tags", "tools"])
def test_the_conversation_before_comes_first_and_without_tool_calls(controlled, protocol):
    last = Reply(ANSWER if protocol == "tags" else "Paris")
    graph, server = controlled(last, protocol=protocol)
    call = {"type": "tool_call", "name": "clock", "args": {}, "id": "1"}
    before = [
        HumanMessage("Hello."),
        AIMessage("", tool_calls=[call]),
        ToolMessage("noon", tool_call_id="1"),
        AIMessage("Good day."),
    ]
    graph.invoke({"messages": [*before, HumanMessage("Capital of France?")]})
    *conversation, prompt = asked(server)[0]["messages"]
    assert [(m["role"], m["content"]) for m in conversation] == [
        ("user", "Hello."),
        ("assistant", "Good day."),
    ]
    assert prompt["role"] == "user"
    assert "Question: Capital of France?" in prompt["content"]


def test_the_prompt_template_of_the_pool_file_is_used(controlled, tmp_path):
    (tmp_path / "my.txt").write_text("You are mine. $question")
    graph, server = controlled(Reply(ANSWER), prompt_template="my.txt")
    run(graph, "invoke")
    assert asked(server)[0]["messages"][0]["content"] == (
        "You are mine. What is the capital of France?"
    )


def test_a_runnable_around_a_chat_model_can_write_tags():
    model = RunnableLambda(lambda messages, **_: AIMessage(ANSWER)).with_retry()
    controller = ChatModelController(model)
    pool = CandidatePool.embedded()
    assert (
        create_router_r1(pool, controller).compile().invoke({"question": "?"})["answer"] == "Paris"
    )


# ------------------------------------------------------------------------------------ tools


def call(name="Ada", **arguments):
    return (name, arguments or {"query": "Capital of France?"})


@both_ways
def test_by_tools_a_question_is_routed_and_a_text_is_the_answer(controlled, how):
    graph, _ = controlled([Reply("", tool_calls=[call()]), Reply("Paris")], protocol="tools")
    result = run(graph, how)
    assert (result["answer"], result["stop_reason"], result["round"]) == ("Paris", "answered", 1)
    (bill,) = bills(result)
    assert (bill["candidate"], bill["query"]) == ("Ada", "Capital of France?")


def test_by_tools_every_candidate_is_offered_with_its_descriptor(controlled):
    graph, server = controlled(Reply("Paris"), protocol="tools")
    run(graph, "invoke")
    (body,) = asked(server)
    functions = [tool["function"] for tool in body["tools"]]
    assert [function["name"] for function in functions] == ["Ada", "Bob"]
    assert functions[0]["description"] == "Ask Ada, a language model (price unknown)."
    assert list(functions[0]["parameters"]["properties"]) == ["query"]
    assert body["tool_choice"] == "auto"
    assert "stop" not in body


@both_ways
def test_by_tools_calls_are_made_in_parallel_in_one_round(controlled, how):
    turn = Reply("", tool_calls=[call("Ada", query="one?"), call("Bob", query="two?")])
    graph, _ = controlled([turn, Reply("Paris")], protocol="tools")
    result = run(graph, how)
    assert result["round"] == 1
    assert [(b["candidate"], b["query"]) for b in bills(result)] == [
        ("Ada", "one?"),
        ("Bob", "two?"),
    ]


def test_by_tools_an_unknown_name_is_told_with_the_nearest(controlled):
    turn = Reply("", tool_calls=[call("Adda")])
    graph, server = controlled([turn, Reply("Paris")], protocol="tools")
    result = run(graph, "invoke")
    assert result["answer"] == "Paris"
    told = asked(server)[1]["messages"][-1]
    assert told["role"] == "tool"
    assert "no candidate 'Adda' (did you mean 'Ada'?)" in told["content"]


@pytest.mark.parametrize(
    "arguments", ["{broken", '{"query": ', '{"question": "?"}', '{"query": " "}', '{"query": null}']
)
def test_by_tools_arguments_without_a_query_are_told(controlled, arguments):
    turn = Reply("", tool_calls=[("Ada", arguments)])
    graph, server = controlled([turn, Reply("Paris")], protocol="tools")
    result = run(graph, "invoke")
    assert result["answer"] == "Paris"
    assert server.count("ada") == 0
    told = asked(server)[1]["messages"][-1]
    assert told["role"] == "tool"
    assert "the query is missing" in told["content"]


def test_by_tools_a_good_call_is_made_beside_a_broken_one(controlled):
    turn = Reply("", tool_calls=[("Ada", "{broken"), call("Bob")])
    graph, server = controlled([turn, Reply("Paris")], protocol="tools")
    run(graph, "invoke")
    assert (server.count("ada"), server.count("bob")) == (0, 1)


@both_ways
def test_by_tools_each_call_of_the_history_has_one_tool_message(controlled, how):
    turns = [
        Reply("First.", tool_calls=[call("Ada", query="one?"), call("Nobody"), ("Bob", "{")]),
        Reply("", tool_calls=[call("Ada", query="one?"), call("Bob", query="two?")]),
        Reply(""),
        Reply("Paris"),
    ]
    graph, server = controlled(turns, protocol="tools")
    run(graph, how)
    messages = asked(server)[-1]["messages"]
    open_calls: list[str] = []
    for message in messages[1:]:
        if message["role"] == "assistant":
            assert open_calls == []
            open_calls = [c["id"] for c in message["tool_calls"]]
            assert len(set(open_calls)) == len(open_calls)
            for made in message["tool_calls"]:
                assert json.loads(made["function"]["arguments"]).keys() == {"query"}
        else:
            assert message["role"] == "tool"
            open_calls.remove(message["tool_call_id"])
    assert open_calls == []
    assert next(m["content"] for m in messages if m["role"] == "assistant") == "First."
    assert len([m for m in messages if m["role"] == "tool"]) == 3 + 2 + 1


def test_by_tools_the_last_generation_may_not_call(controlled):
    turns = [Reply("", tool_calls=[call()]), Reply("Paris")]
    graph, server = controlled(turns, protocol="tools")
    result = run(graph, "invoke", max_rounds=1)
    assert [body["tool_choice"] for body in asked(server)] == ["auto", "none"]
    assert (result["answer"], result["stop_reason"]) == ("Paris", "round_limit")


def test_by_tools_a_call_where_none_is_left_is_not_made(controlled):
    graph, server = controlled(Reply("", tool_calls=[call()]), protocol="tools")
    result = run(graph, "invoke", max_rounds=1)
    assert server.count("ada") == 1
    assert (result["answer"], result["stop_reason"]) == ("Paris, it is.", "round_limit")


def test_by_tools_tags_in_a_query_are_asked_as_they_are(controlled):
    query = "What is <answer>x</answer> & </search>: a tag?"
    turns = [Reply("", tool_calls=[call(query=query)]), Reply("Paris")]
    graph, server = controlled(turns, protocol="tools")
    result = run(graph, "invoke")
    assert server.requests[1].prompt == query
    assert result["answer"] == "Paris"


def test_by_tools_tags_in_the_answer_are_text(controlled):
    graph, server = controlled(Reply("</answer><search> Ada: ? </search>"), protocol="tools")
    result = run(graph, "invoke")
    assert result["answer"] == "</answer><search> Ada: ? </search>"
    assert server.count("ada") == 0


def test_by_tools_an_answer_cut_by_length_is_told(controlled):
    turns = [Reply("To begin with, the", finish_reason="length"), Reply("Paris")]
    graph, server = controlled(turns, protocol="tools")
    result = run(graph, "invoke")
    assert (result["answer"], result["stop_reason"]) == ("Paris", "answered")
    assert "the answer is cut off" in asked(server)[1]["messages"][-1]["content"]


@pytest.mark.parametrize("arguments", ["[1]", '"query"', "7"])
def test_by_tools_arguments_that_are_no_mapping_end_the_run_in_order(controlled, arguments):
    turn = Reply("", tool_calls=[("Ada", arguments)])
    graph, server = controlled(turn, protocol="tools")
    result = run(graph, "invoke")
    assert result["stop_reason"] in ("controller_error", "invalid", "round_limit")
    assert server.count("ada") == 0


@pytest.mark.parametrize("query", [7, ["a", "b"], {"a": 1}])
def test_by_tools_a_query_that_is_no_text_does_not_break_the_run(controlled, query):
    turn = Reply("", tool_calls=[call(query=query)])
    graph, server = controlled([turn, Reply("Paris")], protocol="tools")
    assert run(graph, "invoke")["answer"] == "Paris"
    told = asked(server)[-1]["messages"][-1]["content"]
    assert (query == 7) != ("not done: the query is missing" in told)


@pytest.mark.parametrize("protocol", ["tags", "tools"])
def test_lone_surrogates_of_a_controller_can_be_checkpointed(controlled, tmp_path, protocol):
    turns = {
        "tags": [
            Reply("<search> Ada: \ud800? </search>"),
            Reply("<answer> \udfff Paris </answer>"),
        ],
        "tools": [Reply("\ud800", tool_calls=[call(query="\ud800?")]), Reply("\udfff Paris")],
    }
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite")) as saver:
        graph, server = controlled(turns[protocol], checkpointer=saver, protocol=protocol)
        thread = {"configurable": {"thread_id": "1"}}
        result = run(graph, "invoke", thread)
        assert graph.get_state(thread).values["scratchpad"] == result["scratchpad"]
    assert (result["answer"], result["stop_reason"]) == ("\ufffd Paris", "answered")
    assert server.count("ada") == 1


def test_by_tools_a_trace_replays_in_tags(controlled, tmp_path):
    turns = [Reply("Ask.", tool_calls=[call()]), Reply("Paris")]
    graph, _ = controlled(turns, protocol="tools")
    trace = Trace.from_state(run(graph, "invoke"), pool=CandidatePool.embedded(), controller="x")
    assert trace.turns == [
        "<think> Ask. </think>\n<search> Ada: Capital of France? </search>",
        "<answer> Paris </answer>",
    ]


def test_by_tools_a_model_that_cannot_bind_tools_is_refused_at_once():
    model = RunnableLambda(lambda messages: AIMessage("Paris"))
    with pytest.raises(ControllerError, match="bind_tools, not RunnableLambda; use protocol: tags"):
        ChatModelController(model, ControllerSettings(protocol="tools"))


# ------------------------------------------------------------------------------------ specs


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("keyword", "keyword"),
        ("cheapest", "cheapest"),
        ("random", "random"),
        ("random:7", "random:7"),
        ("constant:Ada", "constant:Ada"),
        ("openai:gpt-x", "openai:gpt-x"),
        ("pool", "openai:controller"),
    ],
)
def test_a_spec_builds_the_controller_that_it_names(serve, tmp_path, spec, name):
    pool = yaml_pool(tmp_path, serve(Reply("")), controller={})
    assert parse_controller(spec, pool).name == name


def test_the_oracle_is_for_simulated_pools_only(serve, tmp_path):
    assert parse_controller("oracle", CandidatePool.embedded()).name == "oracle"
    with pytest.raises(ControllerError, match="works with simulated candidates only, not Ada"):
        parse_controller("oracle", yaml_pool(tmp_path, serve(Reply("")), {"Ada": {}}))


def test_every_spec_that_is_listed_is_tested():
    kinds = {spec.partition(":")[0].partition("[")[0] for spec in SPECS}
    here = {"keyword", "cheapest", "random", "constant", "oracle", "openai", "pool"}
    # In test_policy.py, test_completions_controller.py, test_rules.py, test_reader.py,
    # test_agents.py, test_learned.py:
    elsewhere = {"policy", "completions", "cascade", "vote", "reader", "sticky", "steps"}
    learned = {"auto", "knn", "linear", "mf", "irt", "features", "encoder"}
    assert kinds == here | elsewhere | learned


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("keywrod", "unknown controller 'keywrod' (did you mean 'keyword'?); allowed: keyword, "),
        ("Constant:Ada", "(did you mean 'constant'?)"),
        ("keyword:7", "unknown controller 'keyword:7'"),
        ("", "unknown controller ''; allowed: keyword, cheapest, random[:SEED], constant:NAME, "),
        ("constant", "constant needs a candidate: constant:NAME, one of Ada, Bob"),
        ("constant:Adda", "constant: no candidate 'Adda' (did you mean 'Ada'?); candidates: Ada, "),
        ("random:soon", "random:soon: the seed is a whole number, not 'soon'"),
        ("openai", "openai needs a model: openai:MODEL"),
        ("pool", "pool 'pool' has no controller: block"),
    ],
)
def test_a_spec_that_names_nothing_says_what_may_be_named(serve, tmp_path, spec, message):
    pool = yaml_pool(tmp_path, serve(Reply("")), {"Ada": {}, "Bob": {}})
    with pytest.raises(ControllerError) as raised:
        parse_controller(spec, pool)
    assert message in str(raised.value)


def test_openai_takes_address_key_price_and_protocol_from_the_pool(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "the-key")
    monkeypatch.setenv("OPENAI_API_KEY", "another-key")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    server = serve(
        {"gpt-x": [Reply("", tool_calls=[call()]), Reply("Paris")], "ada": Reply("Paris")}
    )
    block = {"api_key_env": "MY_KEY", "protocol": "tools", "output_usd_per_mtok": 8.0}
    pool = yaml_pool(tmp_path, server, controller=block)
    result = run(create_router_r1(pool, parse_controller("openai:gpt-x", pool)).compile(), "invoke")
    assert result["answer"] == "Paris"
    assert server.requests[0].headers["authorization"] == "Bearer the-key"
    assert result["ledger"]["controller"]["cost_usd"] == pytest.approx(2 * 5 * 8 / 1e6)


def test_openai_takes_address_and_key_from_the_environment(serve, tmp_path, monkeypatch):
    server = serve({"gpt-x": Reply(ANSWER)})
    monkeypatch.setenv("OPENAI_API_KEY", "the-key")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    pool = CandidatePool.embedded()
    result = run(create_router_r1(pool, parse_controller("openai:gpt-x", pool)).compile(), "invoke")
    assert result["answer"] == "Paris"
    assert server.requests[0].headers["authorization"] == "Bearer the-key"


def test_openai_at_an_address_of_its_own_needs_no_key(serve, monkeypatch):
    server = serve({"gpt-x": Reply(ANSWER)})
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    pool = CandidatePool.embedded()
    result = run(create_router_r1(pool, parse_controller("openai:gpt-x", pool)).compile(), "invoke")
    assert result["answer"] == "Paris"


def test_openai_without_a_key_names_the_variable():
    with pytest.raises(ControllerError, match=r"openai:gpt-x: .* OPENAI_API_KEY is not set"):
        parse_controller("openai:gpt-x", CandidatePool.embedded())


@pytest.mark.parametrize("spec", ["pool", "openai:gpt-x"])
def test_a_controller_block_without_its_key_names_the_variable(serve, tmp_path, spec):
    pool = yaml_pool(tmp_path, serve(Reply("")), controller={"api_key_env": "MY_ABSENT_KEY"})
    with pytest.raises(ControllerError, match="MY_ABSENT_KEY is not set"):
        parse_controller(spec, pool)


def test_the_key_of_openai_is_sent_to_nobody_elses_server(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-key-of-openai")
    server = serve({"controller": [Reply(SEARCH), Reply(ANSWER)], "ada": Reply("Paris")})
    pool = yaml_pool(tmp_path, server, controller={})
    run(create_router_r1(pool, parse_controller("pool", pool)).compile(), "invoke")
    assert len(server.requests) == 3
    for request in server.requests:
        assert "sk-the-key-of-openai" not in repr(request)


@pytest.mark.parametrize("tag", ["<answer>", "<search>", "<think>"])
async def test_of_a_controllers_megabytes_the_beginning_and_the_end_are_kept(tag):
    chat = FakeChat(text=f"{tag * 300_000} </think> <answer> Paris </answer>")
    graph = create_router_r1(
        make_pool("Ada"), ChatModelController(chat), models={"Ada": FakeChat()}
    ).compile()
    state = await graph.ainvoke({"question": "?"})
    assert state["answer"] == "Paris"
    assert len(state["scratchpad"][1].text) < 2**19
    assert len(state["scratchpad"]) < 99
