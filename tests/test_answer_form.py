"""An answer in the form that is asked for: tool calls, structured output, JSON."""

import asyncio
import copy
import json
import pickle
import threading
from typing import Any

import cloudpickle
import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.caches import InMemoryCache
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import BaseModel, Field

from fakes import FakeChat, PaidController, answer, make_pool, models, search
from router_r1_graph import (
    CandidatePool,
    ChatModelController,
    ChatRouterR1,
    ConfigError,
    ControllerError,
    ControllerSettings,
    PoolError,
    QuestionError,
    ScriptedController,
)
from router_r1_graph.candidates.tool_calls import plain_arguments
from yaml_pool import both_ways

HAMLET = "Who wrote Hamlet?"


class Author(BaseModel):
    """Who wrote it."""

    author: str


def weather(city: str) -> str:
    """Say what the weather is like."""
    return f"sun in {city}"


def call(name: str, id: str = "1", **args: Any) -> AIMessage:
    calls = [{"type": "tool_call", "name": name, "args": args, "id": id}]
    usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
    return AIMessage("", tool_calls=calls, usage_metadata=usage)


class ToolChat(FakeChat):
    """Writes the given messages one after the other; keeps what it was asked with, and how."""

    replies: list[AIMessage]
    asked: list[Any] = Field(default_factory=list)
    bound: list[Any] = Field(default_factory=list)

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **options: Any) -> Any:
        return self.bind(tools=tools, tool_choice=tool_choice, **options)

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.asked.append(messages)
        self.bound.append(kwargs)
        return ChatResult(generations=[ChatGeneration(message=self.replies.pop(0))])

    async def _agenerate(self, messages: Any, stop: Any = None, *_: Any, **kw: Any) -> ChatResult:
        return self._generate(messages, **kw)


def asks_ada(*replies: AIMessage, text: str = "Shakespeare", **options: Any) -> Any:
    """A router that asks Ada, and whose answers Bob gives a form ($1 in, $2 out a million)."""
    pool = make_pool()
    bob = ToolChat(replies=list(replies))
    controller = PaidController([search("Ada: what?"), answer(text)], usd=0.001)
    given = models(pool, Bob=bob)
    options = {"formatter": "Bob", **options}
    return ChatRouterR1(pool=pool, controller=controller, models=given, **options), bob


async def ask(model: Any, how: str, messages: Any = HAMLET, **options: Any) -> Any:
    match how:
        case "invoke":
            return await asyncio.to_thread(model.invoke, messages, **options)
        case "stream":
            return sum_of([c async for c in model.astream(messages, **options)])
    return await model.ainvoke(messages, **options)


def sum_of(chunks: list[AIMessageChunk]) -> Any:
    whole: Any = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream"])
async def test_a_routed_answer_is_given_as_a_call_and_that_call_is_paid(how):
    model, bob = asks_ada(call("Author", author="Shakespeare"))
    said = [SystemMessage("Be brief."), HumanMessage(HAMLET)]
    message = await ask(model.bind_tools([Author], tool_choice="any"), how, said)
    assert [(c["name"], c["args"]) for c in message.tool_calls] == [
        ("Author", {"author": "Shakespeare"})
    ]
    bill = message.response_metadata
    assert (bill["finish_reason"], bill["routed_answer"]) == ("tool_calls", "Shakespeare")
    assert bill["candidates"]["Bob"]["cost_usd"] == pytest.approx(120e-6)
    assert bill["cost_usd"] == pytest.approx(0.002 + 20e-6 + 120e-6)
    assert message.usage_metadata["input_tokens"] == 10 + 100
    (system, question), bound = bob.asked[0], bob.bound[0]
    assert system.text == "Be brief."
    assert "<information> answer: Shakespeare </information>" in question.text
    assert (bound["tool_choice"], bound["tools"][0]["function"]["name"]) == ("any", "Author")


async def test_the_controller_gives_the_form_where_it_is_a_chat_model():
    chat = ToolChat(replies=[AIMessage(answer("Shakespeare")), call("Author", author="S.")])
    pool = make_pool()
    model = ChatRouterR1(pool=pool, controller=ChatModelController(chat), models=models(pool))
    message = await ask(model.bind_tools([Author], tool_choice="Author"), "ainvoke")
    assert message.tool_calls[0]["args"] == {"author": "S."}
    assert message.response_metadata["calls"] == 0  # none of a candidate
    assert chat.bound[1]["tool_choice"] == "Author"


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("any", "any"),
        ("required", "any"),
        (True, "any"),
        ("weather", "weather"),
        ({"type": "function", "function": {"name": "weather"}}, "weather"),
        ({"type": "auto"}, "auto"),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"name": "weather"}]}, "any"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "weather"}}]},
            },
            "auto",
        ),
    ],
)
async def test_every_form_of_a_tool_choice_reaches_the_formatter_as_langchain_has_it(choice, sent):
    model, bob = asks_ada(call("weather", city="Ulm"))
    message = await ask(model.bind_tools([weather, Author], tool_choice=choice), "ainvoke")
    assert bob.bound[0]["tool_choice"] == sent
    few = isinstance(choice, dict) and choice["type"] == "allowed_tools"
    assert len(bob.bound[0]["tools"]) == (1 if few else 2)
    assert message.tool_calls[0]["name"] == "weather"


@pytest.mark.parametrize("options", [{"tool_choice": "none"}, {"tools": []}, {"tools": None}])
async def test_without_tools_nobody_is_asked_for_a_form(options):
    model, bob = asks_ada()
    options = {"tools": [weather], "response_format": {"type": "text"}, **options}
    assert (await ask(model, "ainvoke", **options)).text == "Shakespeare"
    assert not bob.asked


THOUGHTS = [{"type": "thinking", "thinking": "A tool.", "signature": "signed"}]
SIGNED = {"__gemini_function_call_thought_signatures__": {"1": "signed"}}


@both_ways
async def test_thoughts_that_a_provider_wants_back_go_back_with_the_calls(how):
    signed = {"content": THOUGHTS, "additional_kwargs": SIGNED}
    turn = call("Ada", query="Who?").model_copy(update=signed)
    chat = ToolChat(replies=[turn, AIMessage("S."), call("weather", city="Ulm"), AIMessage("Sun.")])
    chat.replies[2] = chat.replies[2].model_copy(update=signed)
    controller = ChatModelController(chat, ControllerSettings(protocol="tools"))
    model = ChatRouterR1(pool=make_pool(), controller=controller, models=models(make_pool()))
    first = await ask(model, how, tools=[weather], tool_choice="any")
    said = [HumanMessage(HAMLET), first, {"role": "tool", "content": "sun", "tool_call_id": "1"}]
    assert (await ask(model, how, said, tools=[weather])).text == "Sun."
    for asked in (chat.asked[1], chat.asked[-1]):  # the router's own call, and the user's
        called = next(m for m in asked if m.type == "ai" and m.tool_calls)
        assert (called.content, called.additional_kwargs) == (THOUGHTS, SIGNED)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (
            '<tool_call>{"name": "weather", "arguments": {"city": "Ulm"}}</tool_call>',
            [("weather", {"city": "Ulm"})],
        ),
        ('<think>{"city": "Bonn"}</think>{"city": "Ulm"}', [("weather", {"city": "Ulm"})]),
        ('It is:\n```json\n{"city": "Ulm"}\n```\nDone.', [("weather", {"city": "Ulm"})]),
        (
            'I look.\n\n{"name": "weather", "arguments": {"city": "Ulm"}}',
            [("weather", {"city": "Ulm"})],
        ),
        ("<|python_start|>[weather(city='Ulm')]<|python_end|>", [("weather", {"city": "Ulm"})]),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary "
            'to=functions.weather <|constrain|>json<|message|>{"city": "Ulm"}<|call|>',
            [("weather", {"city": "Ulm"})],
        ),
    ],
)
async def test_a_call_that_the_formatter_writes_as_text_is_a_call(text, calls):
    model, _ = asks_ada(AIMessage(text))
    message = await ask(model, "ainvoke", tools=[weather], tool_choice="any")
    assert [(c["name"], c["args"]) for c in message.tool_calls] == calls


async def test_an_answer_that_needs_no_tool_stays_as_it_was_routed():
    model, _ = asks_ada(AIMessage("It was Shakespeare, I believe."), max_tokens=2, text="one two")
    message = await ask(model.bind_tools([weather]), "ainvoke")
    assert message.text.startswith("one")
    assert message.response_metadata["finish_reason"] == "stop"


SCHEMA = {"type": "object", "properties": {"author": {"type": "string"}}, "required": ["author"]}


def json_schema(schema: Any, name: str = "my author!") -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


@pytest.mark.parametrize(
    ("response_format", "reply", "text"),
    [
        (json_schema(SCHEMA), call("my_author_", author="Ł"), '{"author": "Ł"}'),
        (json_schema(SCHEMA), AIMessage('```json\n{"author": "x"}\n```'), '{"author": "x"}'),
        (
            json_schema(SCHEMA),
            AIMessage('{"author": "x"}\n\nI hope this helps.'),
            '{"author": "x"}',
        ),
        (json_schema(SCHEMA), AIMessage("Here: {'author': 'x'} as asked [1]."), '{"author": "x"}'),
        (json_schema(SCHEMA), AIMessage(json.dumps('{"author": "x"}')), '{"author": "x"}'),
        (
            json_schema(SCHEMA),
            AIMessage('<|begin_of_box|>{"author": "x"}<|end_of_box|>'),
            '{"author": "x"}',
        ),
        (
            {"type": "json_object"},
            AIMessage('<think>Hm</think><response>{"author": "x"}</response>'),
            '{"author": "x"}',
        ),
        (
            {"type": "json_object"},
            AIMessage(
                "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final "
                '<|constrain|>json<|message|>{"author": "x"}'
            ),
            '{"author": "x"}',
        ),
        ({"type": "json_object"}, AIMessage('{"author": "x"}\nDone.'), '{"author": "x"}'),
        (json_schema({"type": "array"}, "a"), call("a", value=[1, 2]), "[1, 2]"),
        ({"type": "json_object"}, AIMessage('{"a":  [1]}'), '{"a": [1]}'),
        (json_schema({"type": "object", "title": "T"}), AIMessage('{"a": 1}'), '{"a": 1}'),
        ({"type": "json_object", "schema": SCHEMA}, call("answer", author="x"), '{"author": "x"}'),
        ({"type": "json_schema", "schema": SCHEMA}, call("answer", author="x"), '{"author": "x"}'),
        (Author, call("Author", author="x"), '{"author": "x"}'),
    ],
)
@both_ways
async def test_a_response_format_gives_the_answer_as_json_whole(how, response_format, reply, text):
    model, bob = asks_ada(reply, max_tokens=1, stop=["}"])
    message = await ask(model, how, response_format=response_format)
    assert (message.text, message.tool_calls) == (text, [])
    assert message.response_metadata["finish_reason"] == "stop"
    if not bob.bound[0]:
        assert "JSON" in bob.asked[0][-1].text


async def test_beside_tools_json_is_the_last_word_and_a_call_comes_first():
    model, bob = asks_ada(call("weather", city="Ulm"), call("a", author="x"))
    options = {"tools": [weather], "response_format": json_schema(SCHEMA, "a")}
    first = await ask(model, "ainvoke", **options)
    assert first.tool_calls[0]["name"] == "weather"
    said = [HumanMessage(HAMLET), first, {"role": "tool", "content": "sun", "tool_call_id": "1"}]
    assert (await ask(model, "ainvoke", said, **options)).text == '{"author": "x"}'
    assert bob.bound[0]["tool_choice"] == "any"


async def test_the_formatters_messages_alternate_and_none_is_empty():
    model, bob = asks_ada(call("weather", city="Bath"))
    said = [
        *(AIMessage("Hello!"), SystemMessage("A"), HumanMessage("x"), AIMessage("")),
        *(HumanMessage("y"), SystemMessage("B"), HumanMessage(HAMLET)),
    ]
    await ask(model.bind_tools([weather]), "invoke", said)
    (asked,) = bob.asked
    assert [m.type for m in asked] == ["system", "human"]
    assert asked[0].text == "A\n\nB"
    assert asked[1].text.startswith(f"x\n\ny\n\n{HAMLET}\n\n")


async def test_a_worked_call_and_its_result_stay_where_they_are():
    model, bob = asks_ada(AIMessage("Sun."))
    said = [HumanMessage("x"), AIMessage(" "), HumanMessage("y"), call("weather", city="Bath")]
    message = await ask(
        model.bind_tools([weather]), "invoke", [*said, ToolMessage("sun", tool_call_id="1")]
    )
    assert [m.type for m in bob.asked[0]] == ["human", "ai", "tool"]
    assert message.text == "Sun."


@pytest.mark.parametrize("how", ["invoke", "stream"])
@pytest.mark.parametrize(
    ("options", "reply", "told"),
    [
        ({}, call("whether", city="Ulm"), ("Shakespeare", [])),
        ({}, call("functions.weather", city="Ulm"), ("", ["weather"])),
        ({}, call("ns.weather", city="Ulm"), ("", ["ns.weather"])),
        (
            {"tools": [], "response_format": Author},
            call("output", author="x"),
            ('{"author": "x"}', []),
        ),
        ({"response_format": Author}, call("Author", author="x"), ('{"author": "x"}', [])),
        ({"tools": [], "response_format": {"type": "json_object"}}, AIMessage("{}"), ("{}", [])),
    ],
)
async def test_only_tools_that_were_asked_for_are_called(how, options, reply, told):
    model, _ = asks_ada(reply)
    dotted = {"type": "function", "function": {"name": "ns.weather"}}
    message = await ask(model, how, **{"tools": [weather, dotted], **options})
    assert (message.text, [c["name"] for c in message.tool_calls]) == told
    forced, _ = asks_ada(call("whether", city="Ulm"))
    with pytest.raises(ControllerError, match="called no tool"):
        await ask(forced, how, tools=[weather], tool_choice="any")


@pytest.mark.parametrize("last", [AIMessage("It was"), call("weather", city="Bath")])
async def test_the_formatter_has_the_last_word_whatever_an_assistant_has_begun(last):
    model, bob = asks_ada(call("weather", city="Ulm"))
    message = await ask(model.bind_tools([weather]), "invoke", [HumanMessage(HAMLET), last])
    assert [m.type for m in bob.asked[0]] == ["human"]
    assert message.tool_calls[0]["args"] == {"city": "Ulm"}


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream"])
async def test_where_no_candidate_replied_nobody_is_asked_for_a_form(how):
    pool = make_pool("Ada", "Bob")
    bob = ToolChat(replies=[call("Author", author="(no answer)")])
    given = models(pool, Ada=FakeChat(text=""), Bob=bob)
    model = ChatRouterR1(pool=pool, controller="constant:Ada", formatter="Bob", models=given)
    message = await ask(model.bind_tools([Author], tool_choice="any"), how)
    assert (message.text, message.tool_calls, bob.asked) == ("unknown", [], [])
    assert message.response_metadata["stop_reason"] == "no_reply"
    assert model.with_structured_output(Author).invoke(HAMLET) is None


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize(
    "told",
    [{"finish_reason": "length"}, {"stop_reason": "max_tokens"}, {"done_reason": "length"}],
)
async def test_a_call_that_may_be_cut_is_none_with_every_provider(told, how):
    cut = call("weather", city="Ba").model_copy(update={"response_metadata": told})
    model, _ = asks_ada(cut)
    message = await ask(model.bind_tools([weather], tool_choice="any"), how)
    assert (message.text, message.tool_calls, message.invalid_tool_calls) == ("Shakespeare", [], [])
    assert message.response_metadata["finish_reason"] == "length"


def test_an_agent_calls_its_tools_and_the_question_is_routed_once():
    model, bob = asks_ada(call("weather", city="Ulm"), AIMessage("Sunny in Ulm."))
    result = create_agent(model, [weather]).invoke({"messages": [("user", "Shine, Ulm?")]})
    kinds = [(m.type, m.text) for m in result["messages"]]
    assert kinds[2:] == [("tool", "sun in Ulm"), ("ai", "Sunny in Ulm.")]
    first, last = result["messages"][1], result["messages"][3]
    assert (first.response_metadata["rounds"], last.response_metadata["rounds"]) == (1, 0)
    assert list(last.response_metadata["candidates"]) == ["Bob"]
    assert [m.type for m in bob.asked[1]] == ["human", "ai", "tool"]
    assert "Shakespeare" in bob.asked[1][0].text


def test_the_embedded_pool_serves_agents_and_structured_output_offline():
    model = ChatRouterR1()
    assert model.with_structured_output(Author).invoke(HAMLET) == Author(
        author="William Shakespeare"
    )
    for form in (Author, ProviderStrategy(Author)):
        agent = create_agent(model, [weather], response_format=form)
        result = agent.invoke({"messages": [("user", HAMLET)]})
        assert result["structured_response"] == Author(author="William Shakespeare")
    message = model.invoke(HAMLET, response_format={"type": "json_object"})
    assert json.loads(message.text) == {"answer": "William Shakespeare"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools that a provider runs itself"),
        ({"tools": [7]}, "tools: 7 is no tool"),
        ({"tools": [weather], "tool_choice": "wether"}, "did you mean 'weather'"),
        ({"tool_choice": "any"}, "there is no tool to call"),
        ({"response_format": {"type": "xml"}}, "not 'xml'"),
        ({"response_format": {"type": "json_schema"}}, "schema is missing"),
        ({"tools": [weather], "budget_usd": 1e-5}, "budget_usd: 1e-05 cannot pay Bob"),
    ],
)
def test_a_form_that_cannot_be_given_is_an_error_before_anything_is_asked(options, words):
    model, bob = asks_ada()
    with pytest.raises(ConfigError, match=words):
        model.invoke(HAMLET, **options)
    assert not bob.asked


@pytest.mark.parametrize(
    ("formatter", "words"),
    [
        ("Ada", "formatter: Ada .FakeChat. cannot call tools; name a candidate that can"),
        ("Bbo", "did you mean 'Bob'"),
        ("controller", "the controller is no chat model"),
    ],
)
def test_a_formatter_that_cannot_is_told_when_tools_are_bound(formatter, words):
    with pytest.raises(ConfigError, match=words):
        asks_ada(formatter=formatter)[0].bind_tools([weather])


@pytest.mark.parametrize(
    ("form", "reply", "words"),
    [
        (
            Author,
            AIMessage("No."),
            "formatter Bob: it called no tool, though it had to, and wrote 'No.'",
        ),
        ({"type": "json_object"}, AIMessage("No."), "formatter Bob: it wrote no JSON object"),
        ({"type": "json_object"}, AIMessage('{"a": 1} or {"a": 2}'), "wrote no JSON object"),
        ({"type": "json_object"}, AIMessage('Both: [{"a": 1}]'), "wrote no JSON object"),
        ({"type": "json_object"}, AIMessage('Of {"a": 1}: {"b": '), "wrote no JSON object"),
        ({"type": "json_object"}, AIMessage("```json\n" + " " * 100_000), "wrote no JSON object"),
    ],
)
def test_what_has_not_the_form_is_an_error_and_no_answer(form, reply, words):
    model, _ = asks_ada(reply)
    with pytest.raises(ControllerError, match=words):
        model.invoke(HAMLET, response_format=form)


@pytest.mark.parametrize(
    ("calls", "half"),
    [
        (
            {"invalid_tool_calls": [{"name": "Author", "args": '{"a', "id": "1", "error": ""}]},
            '{"a',
        ),
        (
            {
                "invalid_tool_calls": [
                    {"name": "Author", "args": plain_arguments('{"a'), "id": "1", "error": ""}
                ]
            },
            '{"a',
        ),
        # As a client hands it on that completes half a JSON.
        (
            {"tool_calls": [{"name": "Author", "args": {"author": "Shak"}, "id": "1"}]},
            '{"author": "Shak',
        ),
    ],
)
def test_half_a_json_is_no_whole_one_however_a_client_hands_it_on(calls, half):
    cut = AIMessage("", **calls, response_metadata={"stop_reason": "max_tokens"})
    model, _ = asks_ada(cut)
    message = model.invoke(HAMLET, response_format=Author)
    assert (message.text, message.tool_calls) == (half, [])
    assert message.response_metadata["finish_reason"] == "length"
    assert "Bob" in message.response_metadata["candidates"]


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream"])
async def test_an_error_of_the_formatter_says_what_was_paid(how):
    model, _ = asks_ada(call("weather", city="Ulm").model_copy(update={"tool_calls": []}))
    with pytest.raises(ControllerError, match="called no tool") as raised:
        await ask(model, how, tools=[weather], tool_choice="any")
    assert raised.value.cost_usd == pytest.approx(0.002 + 20e-6 + 120e-6)
    assert pickle.loads(pickle.dumps(raised.value)).cost_usd == raised.value.cost_usd


@pytest.mark.parametrize("said", [[], [AIMessage("Hello!")], [HumanMessage(" ")]])
def test_without_a_question_there_is_no_form_either(said):
    model, _ = asks_ada()
    with pytest.raises(QuestionError):
        model.bind_tools([weather]).invoke(said, budget_usd=1)


def test_a_budget_pays_for_the_form_too_and_is_never_passed():
    model, _ = asks_ada(call("Author", author="x"), budget_usd=0.02)
    message = model.with_structured_output(Author, include_raw=True).invoke(HAMLET)["raw"]
    assert message.response_metadata["cost_usd"] <= 0.02
    long, bob = asks_ada(text="word " * 4000, budget_usd=0.01)
    with pytest.raises(ControllerError, match="too little to pay Bob"):
        long.with_structured_output(Author).invoke(HAMLET)
    assert not bob.asked


# -------------------------------------------------------------------------- copies and LLM caches


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda model: model.model_copy(deep=True),
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: cloudpickle.loads(cloudpickle.dumps(model)),
    ],
)
def test_copies_and_pickles_answer_as_the_model_does(copied, tmp_path):
    model = ChatRouterR1(max_rounds=2, stop=["Q"], replies=tmp_path / "replies.sqlite")
    model.invoke(HAMLET)
    other = copied(model)
    assert other.invoke(HAMLET).text == "William Shakespeare"
    assert (other.max_rounds, other.stop) == (2, ["Q"])
    bound = copied(model.bind_tools([Author], tool_choice="any"))
    assert bound.invoke(HAMLET).tool_calls
    assert other.get_num_tokens("eight by") == 2  # without a tokenizer from the hub
    other.controller = "constant:nobody"
    with pytest.raises((ControllerError, PoolError), match="nobody"):
        other.invoke(HAMLET)
    assert model.invoke(HAMLET).text == "William Shakespeare"


def test_an_answer_of_an_llm_cache_may_not_be_billed_again():
    pool, cache = make_pool({"name": "Ada", "output_usd_per_mtok": 2.0}), InMemoryCache()
    script = ScriptedController([search("Ada: q"), answer("one")])
    lost = {"Ada": FakeChat(text=ConnectionError("gone"))}
    model = ChatRouterR1(pool=pool, controller=script, models=lost, cache=cache)
    paid, cached = (model.invoke(HAMLET).response_metadata for _ in range(2))
    assert (paid["uncertain_usd"] > 0, cached["cached"]) == (True, True)
    assert not {"uncertain_attempts", "uncertain_usd"} & set(cached)


def test_an_llm_cache_gives_an_answer_free_of_charge_and_only_to_the_same_router():
    cache = InMemoryCache()
    pool, other = make_pool("Ada"), make_pool({"name": "Ada", "model": "bigger"})

    def router(pool: CandidatePool, text: str) -> tuple[Any, FakeChat]:
        ada = FakeChat()
        script = ScriptedController([search("Ada: q"), answer(text)])
        return ChatRouterR1(pool=pool, controller=script, models={"Ada": ada}, cache=cache), ada

    model, ada = router(pool, "one")
    paid, cached = model.invoke(HAMLET), model.invoke(HAMLET)
    assert (paid.text, cached.text, len(ada.queries)) == ("one", "one", 1)
    bill = cached.response_metadata
    assert (bill["cost_usd"], bill["calls"], bill["candidates"]) == (0, 0, {})
    assert (bill["cached"], bill["saved_usd"]) == (True, paid.response_metadata["cost_usd"])
    assert paid.response_metadata["cost_usd"] > 0
    assert model.invoke(HAMLET, max_rounds=1).response_metadata.get("cached") is None
    for told_apart, text in ((pool, "two"), (other, "three")):
        assert router(told_apart, text)[0].invoke(HAMLET).text == text
    for name in ("embedded", "embedded_unseen"):
        free = ChatRouterR1(pool=name, cache=cache)
        asked = free.invoke(HAMLET).response_metadata["candidates"]
        assert asked
        assert all(map(free.pool.find, asked))


async def test_tools_are_read_beside_the_event_loop():
    class Watched(dict[str, Any]):
        def get(self, *args: Any) -> Any:
            readers.add(threading.current_thread())
            return super().get(*args)

    readers: set[threading.Thread] = set()
    model, _ = asks_ada(call("f"), call("f"))
    tool = Watched(type="function", function={"name": "f", "parameters": {}})
    await model.ainvoke(HAMLET, tools=[tool])
    assert [c async for c in model.astream(HAMLET, tools=[tool])]
    assert readers
    assert threading.current_thread() not in readers


def test_more_than_a_thousand_tools_are_refused_before_anything_is_asked():
    model, bob = asks_ada()
    tools = [{"name": f"f{number}", "parameters": {}} for number in range(1025)]
    with pytest.raises(ConfigError, match="tools: 1025 tools; at most 1024"):
        model.invoke(HAMLET, tools=tools)
    assert not bob.asked


def test_of_a_formatters_megabytes_the_beginning_is_kept():
    model, _ = asks_ada(AIMessage("<" * 3_000_000))
    called = AIMessage("", tool_calls=[{"name": "weather", "args": {}, "id": "1"}])
    said = [HumanMessage(HAMLET), called, ToolMessage("sun", tool_call_id="1")]
    message = model.invoke(said, tools=[weather])
    assert (len(message.text), message.response_metadata["finish_reason"]) == (2**20, "length")
