"""The router as a LangChain chat model, in the places where chat models go."""

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from fakes import FakeChat, PaidController, TypingChat, answer, make_pool, models, search
from router_r1_graph import (
    ChatModelController,
    ChatRouterR1,
    ConfigError,
    ControllerError,
    PoolError,
    QuestionError,
    ReplyError,
    ScriptedController,
)
from router_r1_graph.candidates import ControllerSettings
from yaml_pool import both_ways

HAMLET = "What is the currency of the country where the author of Hamlet was born?"


def asks_ada(text="42", **kwargs):
    """A router that asks Ada once (10 tokens in, 5 out at $1 and $2 a million) and answers."""
    pool = make_pool()
    controller = PaidController([search("Ada: what?"), answer(text)], usd=0.001)
    return ChatRouterR1(pool=pool, controller=controller, models=models(pool), **kwargs)


def test_with_no_arguments_it_asks_the_embedded_pool():
    message = ChatRouterR1().invoke(HAMLET)
    assert message.text == "pound sterling"
    assert message.response_metadata["stop_reason"] == "answered"


def test_a_message_has_the_bill_of_candidates_and_controller():
    message = asks_ada().invoke("6 x 7?")
    assert message.usage_metadata == {"input_tokens": 10, "output_tokens": 19, "total_tokens": 29}
    metadata = message.response_metadata
    assert metadata["cost_usd"] == pytest.approx(0.002 + 20e-6)
    assert metadata["calls"] == 1
    assert metadata["stop_reason"] == "answered"
    assert metadata["candidates"]["Ada"]["cost_usd"] == pytest.approx(20e-6)


async def test_async_gives_what_sync_gives():
    model = ChatRouterR1()
    sync, awaited = model.invoke(HAMLET), await model.ainvoke(HAMLET)
    assert awaited.text == sync.text
    assert awaited.usage_metadata == sync.usage_metadata


async def test_a_stream_is_the_same_message_in_pieces():
    model = asks_ada("forty two,\n  or so")
    whole = model.invoke("6 x 7?")
    chunks = list(model.stream("6 x 7?"))
    awaited = [chunk async for chunk in model.astream("6 x 7?")]
    for pieces in (chunks, awaited):
        texts = [chunk.text for chunk in pieces if chunk.text]
        assert texts == ["forty ", "two,\n  ", "or ", "so"]
        message: Any = sum(pieces[1:], start=pieces[0])
        assert isinstance(message, AIMessageChunk)
        assert message.usage_metadata == whole.usage_metadata
        assert message.response_metadata["cost_usd"] == whole.response_metadata["cost_usd"]


def test_it_drops_into_a_chain_and_a_batch():
    prompt = ChatPromptTemplate([("system", "Be brief."), ("human", "Who wrote {work}?")])
    chain = prompt | ChatRouterR1().with_config(tags=["router"]) | StrOutputParser()
    assert chain.invoke({"work": "Hamlet"}) == "William Shakespeare"
    answers = chain.batch([{"work": "Hamlet"}, {"work": "Macbeth"}])
    assert answers == ["William Shakespeare"] * 2


def test_the_question_is_the_last_human_message_and_the_rest_goes_along():
    views = []

    def script(view):
        views.append(view)
        return answer()

    model = ChatRouterR1(controller=ScriptedController(script))
    said = [SystemMessage("brief"), HumanMessage("Who wrote Hamlet?"), AIMessage("Shakespeare")]
    model.invoke([*said, HumanMessage("Where was he born?")])
    assert views[0].question == "Where was he born?"
    assert [m.text for m in views[0].conversation] == ["Who wrote Hamlet?", "Shakespeare"]


def test_the_knobs_of_a_call_win_over_those_of_the_model():
    seen = []

    def script(view):
        seen.append((view.context.max_rounds, view.context.cost_weight))
        return answer()

    model = ChatRouterR1(controller=ScriptedController(script), max_rounds=2, cost_weight=0.1)
    model.invoke("6 x 7?")
    model.invoke("6 x 7?", cost_weight=1.0)
    model.bind(max_rounds=1).invoke("6 x 7?")
    assert seen == [(2, 0.1), (2, 1.0), (1, 0.1)]


def test_a_stop_string_cuts_the_answer():
    assert asks_ada("one two three").invoke("count", stop=[" three"]).text == "one two"
    assert asks_ada("one two three", stop=["", " two"]).invoke("count").text == "one"


def test_an_answer_longer_than_max_tokens_is_its_beginning_alone_and_says_so():
    model = asks_ada("one two three four")
    message = model.invoke("count", max_tokens=2)
    assert message.text == "one"
    assert message.response_metadata["finish_reason"] == "length"
    assert model.invoke("count").response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"pool": "embeded"}, PoolError, "did you mean 'embedded'"),
        ({"controller": "keywrod"}, ControllerError, "did you mean 'keyword'"),
        ({"controller": 7}, ControllerError, "an object with decide"),
        ({"budget_usd": -1}, ConfigError, "budget_usd is a number"),
        ({"models": {"Nobody": FakeChat()}}, PoolError, "no candidate 'Nobody'"),
        ({"budget": 1}, ConfigError, "did you mean 'budget_usd'"),
    ],
)
def test_what_is_wrong_is_told_when_it_is_built(given, error, words):
    with pytest.raises(error, match=words):
        ChatRouterR1(**given)


def test_a_knob_that_does_not_exist_is_an_error_of_the_call():
    with pytest.raises(ConfigError, match="did you mean 'budget_usd'"):
        ChatRouterR1().invoke("6 x 7?", budget_us=1)


def test_without_a_question_nothing_is_asked():
    with pytest.raises(QuestionError, match="no question"):
        ChatRouterR1().invoke([SystemMessage("Be brief.")])


def test_a_controller_that_fails_at_once_is_an_error():
    failing = PaidController([ReplyError("auth", "the key is wrong")])
    with pytest.raises(ControllerError, match="paid failed: auth: the key is wrong"):
        ChatRouterR1(controller=failing).invoke("6 x 7?")


def test_a_controller_that_fails_later_leaves_what_is_known():
    pool = make_pool()
    controller = PaidController([search("Ada: what?"), ReplyError("timeout", "too slow")])
    message = ChatRouterR1(pool=pool, controller=controller, models=models(pool)).invoke("6 x 7?")
    assert message.text == "Paris"
    assert message.response_metadata["stop_reason"] == "controller_error"


async def test_callbacks_see_the_router_and_the_models_inside():
    counter = UsageMetadataCallbackHandler()
    model = ChatRouterR1()
    await model.ainvoke(HAMLET, {"callbacks": [counter]})
    model.invoke(HAMLET, {"callbacks": [counter]})
    inside = {name: usage for name, usage in counter.usage_metadata.items() if name != "router-r1"}
    assert inside
    summed = sum(usage["total_tokens"] for usage in inside.values())
    assert counter.usage_metadata["router-r1"]["total_tokens"] == summed


class Parents(BaseCallbackHandler):
    """Keeps which run hangs below which."""

    def __init__(self):
        self.models, self.chains = {}, {}

    def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, **_):
        self.models[run_id] = parent_run_id

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, **_):
        self.chains[run_id] = parent_run_id


async def test_the_run_inside_hangs_below_the_models_own_run():
    for run in ("sync", "async"):
        parents, model = Parents(), ChatRouterR1()
        if run == "sync":
            model.invoke("Who wrote Hamlet?", {"callbacks": [parents]})
        else:
            await model.ainvoke("Who wrote Hamlet?", {"callbacks": [parents]})
        outermost = [id_ for id_, parent in parents.models.items() if parent is None]
        assert len(outermost) == 1
        assert outermost[0] in parents.chains.values()
        assert None not in parents.chains.values()


async def test_in_a_graph_with_a_checkpointer_it_remembers_nothing():
    model = asks_ada()

    async def node(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState).add_node("chat", node).add_edge(START, "chat")
    graph = builder.compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    for turn in (1, 2):
        result = await graph.ainvoke({"messages": [HumanMessage("6 x 7?")]}, thread)
        assert len(result["messages"]) == 2 * turn
        assert result["messages"][-1].response_metadata["calls"] == 1


# ------------------------------------------------------------- answers told while they are written

ASK = ["<think> a </think>", "<search> Ada: what? </search>"]


def typing(*texts, settings=None, **options):
    """A router whose controller is a chat model that writes these turns piece by piece."""
    pool = make_pool()
    chat = TypingChat(texts=[list(text) for text in texts], **options)
    controller = ChatModelController(chat, settings)
    return ChatRouterR1(pool=pool, controller=controller, models=models(pool)), chat


def pieces(model, how, **options):
    async def awaited():
        return [chunk async for chunk in model.astream("6 x 7?", **options)]

    chunks = asyncio.run(awaited()) if how == "ainvoke" else list(model.stream("6 x 7?", **options))
    assert chunks[-1].response_metadata["stop_reason"]
    assert chunks[-1].usage_metadata
    return [chunk.text for chunk in chunks if chunk.text]


@both_ways
def test_the_answer_is_told_before_the_last_turn_is_whole(how):
    final = ["<think> known </think> <ans", "wer> forty", " two", " or so", "</answer>"]
    model, chat = typing(ASK, final, wait=" or so")
    told = []

    async def awaited():
        async for chunk in model.astream("6 x 7?"):
            told.append(chunk.text)
            if told == ["forty", " two"]:
                chat.go.set()

    if how == "ainvoke":
        asyncio.run(awaited())
    else:
        for chunk in model.stream("6 x 7?"):
            told.append(chunk.text)
            if told == ["forty", " two"]:
                chat.go.set()
    assert chat.go.is_set()
    assert "".join(told) == "forty two or so"


@both_ways
def test_a_turn_that_asks_and_answers_is_not_told(how):
    model, _ = typing([*ASK, "<answer>", "no", "</answer>"], ["<answer> yes", "</answer>"])
    assert pieces(model, how) == ["yes"]


@both_ways
def test_what_the_models_stop_text_took_away_is_no_harm(how):
    model, _ = typing(["<answer> forty", " two"])
    assert pieces(model, how) == ["forty", " two"]


@both_ways
@pytest.mark.parametrize("broken", [["<answer> for", "<think>"], ["<answer> for", "<search>x"]])
def test_an_answer_that_had_begun_and_is_not_taken_is_an_error(how, broken):
    model, _ = typing(broken, ["<answer> yes", "</answer>"])
    with pytest.raises(ControllerError, match="not the beginning of the final answer"):
        pieces(model, how)
    model, _ = typing(broken, ["<answer> for ever", "</answer>"])
    assert "".join(pieces(model, how)) == "for ever"  # what was told is how it begins


@both_ways
@pytest.mark.parametrize("options", [{"stop": [" two"]}, {"max_tokens": 2}])
def test_an_answer_that_is_to_be_cut_is_told_when_it_is_whole(how, options):
    model, _ = typing(["<answer> forty", " two", " or", " so", "</answer>"])
    assert pieces(model, how, **options)[0].startswith("forty")
    model, _ = typing(["<answer> forty", " two", " or", " so", "</answer>"])
    assert " or" not in "".join(pieces(model, how, **options))


@both_ways
def test_by_tools_an_answer_is_told_when_no_call_followed(how):
    settings = ControllerSettings(protocol="tools")
    model, _ = typing(["The <answer>", " tag"], settings=settings)
    assert "".join(pieces(model, how)) == "The <answer> tag"


def test_a_candidate_that_is_a_router_too_tells_nothing():
    inner_model, _ = typing(["<answer> inner", " answer", "</answer>"])
    pool = make_pool({"name": "Inner", "provider": "graph"})
    chat = TypingChat(texts=[["<search> Inner: what? </search>"], ["<answer> outer</answer>"]])
    model = ChatRouterR1(
        pool=pool, controller=ChatModelController(chat), models={"Inner": inner_model._graph}
    )
    assert pieces(model, "invoke") == ["outer"]
