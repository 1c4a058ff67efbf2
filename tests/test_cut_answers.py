"""Answers that were cut, as OpenAI's client gets them from a served router."""

import openai
import pytest
from pydantic import BaseModel

from openai_server import Reply
from router_r1_graph import ChatRouterR1
from served import client_of, serving_at
from yaml_pool import both_ways, yaml_pool

QUESTION = [{"role": "user", "content": "x?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "get_weather", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": FUNCTION}]
HALF, WHOLE = ("get_weather", '{"city": "Par'), ("get_weather", {"city": "Par"})


def asked(url, how, messages, tools=(), **options):
    """Return the text, the calls, the end, and all that was sent."""
    with client_of(url) as client:
        if how.startswith("chat"):
            given = {"tools": list(tools), **options} if tools else options
            model = {"model": "router-r1", "messages": messages}
            if how == "chat":
                reply = client.chat.completions.create(**model, **given)
                choice = reply.choices[0]
            else:
                with client.chat.completions.stream(**model, **given) as stream:
                    choices = [e.chunk.choices[0] for e in stream if e.type == "chunk"]
                text = "".join(c.delta.content or "" for c in choices)
                calls = [call for c in choices for call in c.delta.tool_calls or ()]
                return text, calls, choices[-1].finish_reason, str(choices)
            said = choice.message
            return said.content, said.tool_calls or [], choice.finish_reason, str(choice)
        flat = [{"type": "function", **tool["function"]} for tool in tools]
        given = {"model": "router-r1", "input": messages, "tools": flat, **options}
        if how == "responses":
            reply = client.responses.create(**given)
            everything = str(reply)
        else:
            events = list(client.responses.create(**given, stream=True))
            reply, everything = events[-1].response, str(events)
            assert events[-1].type == f"response.{reply.status}"
        calls = [item for item in reply.output if item.type == "function_call"]
        end = reply.incomplete_details and reply.incomplete_details.reason
        return reply.output_text, calls, end or reply.status, everything


every_way = pytest.mark.parametrize(
    ("how", "ends"),
    [
        *(("chat", ("length", "content_filter")), ("chat, streamed", ("length", "content_filter"))),
        *(("responses", ("max_output_tokens", "content_filter")),),
        *(("responses, streamed", ("max_output_tokens", "content_filter")),),
    ],
)


@pytest.mark.sampled(3)
@every_way
@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize(
    ("calls", "finish"),
    [
        ([HALF], "stop"),  # the server says tool_calls
        ([HALF], "length"),
        ([WHOLE, HALF], "length"),
        ([HALF], "content_filter"),
    ],
)
def test_half_a_call_is_none_and_the_end_says_so(serve, tmp_path, how, ends, choice, calls, finish):
    cut = Reply("", tool_calls=calls, finish_reason=finish)
    pool = yaml_pool(tmp_path, serve({"ada": Reply("1"), "bob": cut}), {"Ada": {}, "Bob": {}})
    with serving_at(ChatRouterR1(pool=pool, controller="constant:Ada", formatter="Bob")) as url:
        text, called, end, sent = asked(url, how, QUESTION, TOOLS, tool_choice=choice)
    assert (text, called, end) == ("1", [], ends[finish == "content_filter"])
    assert "cut: " not in sent


SCHEMA = {"type": "object", "properties": {"author": {"type": "string"}}, "required": ["author"]}
AUTHOR = {"name": "author", "schema": SCHEMA, "strict": True}
LIST = {"name": "author", "schema": {"type": "array", "items": {"type": "integer"}}}


def format_of(how, schema):
    """Return the option that asks for JSON; {} = any object."""
    if how.startswith("chat"):
        told = {"type": "json_schema", "json_schema": schema}
        return {"response_format": told if schema else {"type": "json_object"}}
    told = {"type": "json_schema", **schema}
    return {"text": {"format": told if schema else {"type": "json_object"}}}


@pytest.mark.sampled(3)
@every_way
@pytest.mark.parametrize(
    ("schema", "cut", "half"),
    [
        (AUTHOR, Reply("", tool_calls=[("author", '{"author": "Sha')]), '{"author": "Sha'),
        (LIST, Reply("", tool_calls=[("author", '{"value": [1, 2')]), "[1, 2"),
        (AUTHOR, Reply("Well.", tool_calls=[("author", '{"author"')]), '{"author"'),
        (AUTHOR, Reply('{"author": "Sha', finish_reason="length"), '{"author": "Sha'),
        (AUTHOR, Reply('{"author": "S"}', finish_reason="length"), '{"author": "S"}'),
        (AUTHOR, Reply("", finish_reason="length"), ""),
        (AUTHOR, Reply("", finish_reason="content_filter"), ""),
        ({}, Reply('{"author": "Sha', finish_reason="length"), '{"author": "Sha'),
        ({}, Reply('{"author": "Sha', finish_reason="content_filter"), '{"author": "Sha'),
        ({}, Reply("", finish_reason="length"), ""),
    ],
)
def test_half_a_json_is_handed_on_and_the_end_says_so(
    serve, tmp_path, how, ends, schema, cut, half
):
    pool = yaml_pool(tmp_path, serve({"ada": Reply("1"), "bob": cut}), {"Ada": {}, "Bob": {}})
    with serving_at(ChatRouterR1(pool=pool, controller="constant:Ada", formatter="Bob")) as url:
        text, called, end, sent = asked(url, how, QUESTION, **format_of(how, schema))
    assert (text, called) == (half, [])
    assert end == ends[cut.finish_reason == "content_filter"]
    assert "cut: " not in sent
    assert "'Bob'" in sent or how.startswith("chat")  # the bill, which is none of the choice


@every_way
@pytest.mark.parametrize(
    ("choice", "text", "finish"),
    [
        *(("required", "", "length"), ("required", "Let me see.", "content_filter")),
        *(("named", "", "content_filter"), ("named", "Let me see.", "length")),
    ],
)
def test_a_forced_call_that_a_cut_forestalls_is_none_and_the_end_says_so(
    serve, tmp_path, how, ends, choice, text, finish
):
    cut = Reply(text, finish_reason=finish)
    pool = yaml_pool(tmp_path, serve({"ada": Reply("1"), "bob": cut}), {"Ada": {}, "Bob": {}})
    if choice == "named" and how.startswith("chat"):
        choice = {"type": "function", "function": {"name": "get_weather"}}
    elif choice == "named":
        choice = {"type": "function", "name": "get_weather"}
    with serving_at(ChatRouterR1(pool=pool, controller="constant:Ada", formatter="Bob")) as url:
        told, called, end, _ = asked(url, how, QUESTION, TOOLS, tool_choice=choice)
    assert (told, called, end) == ("1", [], ends[finish == "content_filter"])


class Author(BaseModel):
    author: str


def test_openais_parse_raises_its_own_error_for_half_a_json(serve, tmp_path):
    cut = Reply("", tool_calls=[("Author", '{"author": "Sha')], finish_reason="length")
    pool = yaml_pool(tmp_path, serve({"ada": Reply("1"), "bob": cut}), {"Ada": {}, "Bob": {}})
    router = ChatRouterR1(pool=pool, controller="constant:Ada", formatter="Bob")
    with serving_at(router) as url, client_of(url) as client:
        asked = {"model": "router-r1", "messages": QUESTION, "response_format": Author}
        with pytest.raises(openai.LengthFinishReasonError) as raised:
            client.chat.completions.parse(**asked)
        assert raised.value.completion.router_r1["candidates"]["Bob"]["calls"] == 1
        with (
            pytest.raises(openai.LengthFinishReasonError),
            client.chat.completions.stream(**asked) as stream,
        ):
            list(stream)


@both_ways
@pytest.mark.parametrize("calls", [[("Author", '{"author": "Sha')], []])
async def test_structured_output_that_was_cut_says_so_in_the_raw_message(
    serve, tmp_path, how, calls
):
    replies = {"ada": Reply("1"), "bob": Reply("", tool_calls=calls, finish_reason="length")}
    pool = yaml_pool(tmp_path, serve(replies), {"Ada": {}, "Bob": {}})
    model = ChatRouterR1(pool=pool, controller="constant:Ada", formatter="Bob")
    asks = model.with_structured_output(Author, include_raw=True)
    found = await asks.ainvoke("x?") if how == "ainvoke" else asks.invoke("x?")
    assert found["parsed"] is None
    told = found["raw"].response_metadata
    assert (told["finish_reason"], told["candidates"]["Bob"]["calls"]) == ("length", 1)


@every_way
@pytest.mark.parametrize("begun", ['Let me see. <tool_call>{"name": "get_wea', "Let me see."])
def test_a_text_after_results_that_was_cut_says_so(serve, tmp_path, how, ends, begun):
    cut = Reply(begun, finish_reason="length")
    pool = yaml_pool(tmp_path, serve({"ada": Reply("1"), "bob": cut}), {"Ada": {}, "Bob": {}})
    if how.startswith("chat"):
        function = {"name": "get_weather", "arguments": "{}"}
        call = {"id": "1", "type": "function", "function": function}
        worked = [{"role": "assistant", "content": "", "tool_calls": [call]}]
        worked += [{"role": "tool", "tool_call_id": "1", "content": "sunny"}]
    else:
        call = {"type": "function_call", "call_id": "1", "name": "get_weather", "arguments": "{}"}
        worked = [call, {"type": "function_call_output", "call_id": "1", "output": "sunny"}]
    with serving_at(ChatRouterR1(pool=pool, controller="constant:Ada", formatter="Bob")) as url:
        text, called, end, _ = asked(url, how, QUESTION + worked, TOOLS)
    assert (text, called, end) == ("Let me see.", [], ends[0])


@pytest.mark.sampled(5)
@every_way
@pytest.mark.parametrize("style", ["short", "full"])
@pytest.mark.parametrize("tools", [(), TOOLS])
@pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
def test_a_candidates_own_reply_that_was_cut_says_so(
    serve, tmp_path, how, ends, style, tools, finish
):
    replies = {"ada": Reply("The capital is Pa", finish_reason=finish), "bob": Reply("It is.")}
    pool = yaml_pool(tmp_path, serve(replies), {"Ada": {}, "Bob": {}})
    model = ChatRouterR1(pool=pool, controller="constant:Ada", formatter="Bob", answer_style=style)
    with serving_at(model) as url:
        text, _, end, _ = asked(url, how, QUESTION, tools)
    whole = "stop" if how.startswith("chat") else "completed"
    told = {"stop": whole, "length": ends[0], "content_filter": ends[1]}
    assert (text, end) == ("The capital is Pa", told[finish])


@pytest.mark.parametrize(
    ("replies", "spec"),
    [
        # What stands before the cut is whole.
        ({"ada": Reply("The answer is Paris. It is kn", finish_reason="length")}, "constant:Ada"),
        # So is what another says too.
        ({"ada": Reply("Paris", finish_reason="length"), "bob": Reply("Paris")}, "vote"),
    ],
)
def test_a_whole_answer_of_a_cut_reply_ends_by_itself(serve, tmp_path, replies, spec):
    pool = yaml_pool(tmp_path, serve(replies), {name.title(): {} for name in replies})
    message = ChatRouterR1(pool=pool, controller=spec, answer_style="short").invoke("x?")
    assert (message.text, message.response_metadata["finish_reason"]) == ("Paris", "stop")


def test_a_stop_text_that_was_reached_comes_before_the_cut(serve, tmp_path):
    server = serve({"ada": Reply("The capital is Pa", finish_reason="length")})
    model = ChatRouterR1(pool=yaml_pool(tmp_path, server), controller="constant:Ada")
    message = model.invoke("x?", stop=[" is"])
    assert (message.text, message.response_metadata["finish_reason"]) == ("The capital", "stop")
