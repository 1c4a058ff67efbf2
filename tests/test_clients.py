"""The served router asked for tools and structured output by the clients that people use.

Each client builds the requests and reads the answers in its own way, which no test of ours knows.
"""

import json
import shutil
import subprocess
from pathlib import Path

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from fakes import FakeChat, answer, make_pool
from router_r1_graph import ChatRouterR1, ScriptedController
from router_r1_graph.serving.schemas import with_schema
from served import client_of, serving_at

QUESTION = "Who wrote Hamlet?"
SAID = [{"role": "user", "content": QUESTION}]
NODE = Path(__file__).parent / "node"


class Author(BaseModel):
    author: str


AUTHOR = Author(author="William Shakespeare")


def get_weather(city: str) -> str:
    """Return the weather in a city."""
    return f"sunny in {city}"


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "The weather.", "parameters": PARAMETERS}


@pytest.fixture(scope="module")
def url():
    with serving_at(ChatRouterR1(controller="keyword")) as url:
        yield url


def test_openai_parses_calls_and_streams(url):
    with client_of(url) as client:
        asked = {"model": "router-r1", "messages": SAID}
        parsed = client.chat.completions.parse(**asked, response_format=Author)
        assert parsed.choices[0].message.parsed == AUTHOR
        assert parsed.router_r1["calls"] == 2  # the last one gave the form
        tools = [{"type": "function", "function": WEATHER}]
        free = client.chat.completions.create(**asked, tools=tools)
        assert free.choices[0].message.content == AUTHOR.author
        called = client.chat.completions.create(**asked, tools=tools, tool_choice="required")
        assert called.choices[0].finish_reason == "tool_calls"
        assert called.choices[0].message.content is None
        (call,) = called.choices[0].message.tool_calls
        assert (call.function.name, list(json.loads(call.function.arguments))) == (
            "get_weather",
            ["city"],
        )
        with client.chat.completions.stream(
            **asked, tools=tools, tool_choice="required", stream_options={"include_usage": True}
        ) as stream:
            (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
        assert streamed.function.arguments == call.function.arguments
        worked = [*SAID, called.choices[0].message, {"role": "tool", "content": "sunny"}]
        worked[-1]["tool_call_id"] = call.id
        done = client.chat.completions.create(model="router-r1", messages=worked, tools=tools)
        assert done.choices[0].finish_reason == "stop"


def test_openai_parses_calls_and_streams_responses(url):
    with client_of(url) as client:
        asked = {"model": "router-r1", "input": QUESTION}
        parsed = client.responses.parse(**asked, text_format=Author)
        assert parsed.output_parsed == AUTHOR
        asked |= {"tools": [{"type": "function", **WEATHER}], "tool_choice": "required"}
        called = client.responses.create(**asked)
        type(called).model_validate(called.model_dump())
        (call,) = called.output
        assert (call.type, call.name) == ("function_call", "get_weather")
        with client.responses.stream(**asked) as stream:
            (streamed,) = stream.get_final_response().output
        assert streamed.arguments == call.arguments
        worked = [
            {"role": "user", "content": QUESTION},
            call.model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
        ]
        done = client.responses.create(model="router-r1", input=worked, tools=asked["tools"])
        assert done.output_text


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_langchain_openai_structures_its_output(url, method, responses):
    model = ChatOpenAI(
        model="router-r1", base_url=f"{url}/v1", api_key="x", use_responses_api=responses
    )
    question = f"{QUESTION} As JSON: {json.dumps(Author.model_json_schema())}"
    asked = question if method == "json_mode" else QUESTION
    assert model.with_structured_output(Author, method=method).invoke(asked) == AUTHOR
    if method == "function_calling":
        called = model.bind_tools([get_weather], tool_choice="any").invoke(QUESTION)
        assert [call["name"] for call in called.tool_calls] == ["get_weather"]


@pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA"])
def test_instructor_gets_its_model(url, mode):
    instructor = pytest.importorskip("instructor")
    with client_of(url) as client:
        patched = instructor.from_openai(client, mode=instructor.Mode[mode])
        found = patched.chat.completions.create(
            model="router-r1", messages=SAID, response_model=Author, max_retries=0
        )
    assert found.author == AUTHOR.author  # of a class of its own


@pytest.mark.parametrize("responses", [False, True])
async def test_pydantic_ai_gets_its_outputs_and_calls_tools(url, responses):
    ai = pytest.importorskip("pydantic_ai")
    models = pytest.importorskip("pydantic_ai.models.openai")
    providers = pytest.importorskip("pydantic_ai.providers.openai")
    kind = models.OpenAIResponsesModel if responses else models.OpenAIChatModel
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as client:
        model = kind("router-r1", provider=providers.OpenAIProvider(openai_client=client))
        for form in (ai.ToolOutput, ai.NativeOutput, ai.PromptedOutput):
            run = await ai.Agent(model, output_type=form(Author)).run(QUESTION)
            assert run.output == AUTHOR, form
        agent = ai.Agent(model, tools=[get_weather])
        assert (await agent.run(QUESTION)).output == AUTHOR.author
        async with ai.Agent(model).run_stream(QUESTION) as streamed:
            assert await streamed.get_output() == AUTHOR.author


# Of pydantic, about a class of LiteLLM's own.
@pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class:UserWarning")
def test_litellm_calls_tools_and_adds_up_streams(url):
    litellm = pytest.importorskip("litellm")
    asked = {"model": "openai/router-r1", "messages": SAID, "api_base": f"{url}/v1", "api_key": "x"}
    tools = [{"type": "function", "function": WEATHER}]
    called = litellm.completion(**asked, tools=tools, tool_choice="required")
    assert called.choices[0].message.tool_calls[0].function.name == "get_weather"
    chunks = litellm.completion(**asked, stream=True, stream_options={"include_usage": True})
    whole = litellm.stream_chunk_builder(list(chunks), messages=SAID)
    assert whole.choices[0].message.content == AUTHOR.author
    assert whole.usage.total_tokens > 0
    told = litellm.completion(**asked).router_r1
    assert told["cost_usd"] > 0
    assert told["stop_reason"] == "answered"
    capped = litellm.completion(**asked, extra_body={"budget_usd": 1e-9}).router_r1
    assert (capped["cost_usd"], capped["stop_reason"]) == (0, "budget_usd")


def test_clients_of_node_get_texts_objects_and_tool_calls(url):
    node = shutil.which("node")
    if not node or not (NODE / "node_modules").is_dir():
        pytest.skip("needs Node, and `npm install` in tests/node")
    run = subprocess.run(
        [node, "clients.mjs", f"{url}/v1"], cwd=NODE, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    wrong = {name: value for name, value in found.items() if value != AUTHOR.author}
    assert not wrong
    assert len(found) > 8


def test_a_schema_in_the_prompt_is_kept_to_if_json_is_asked_for():
    ada = FakeChat()
    model = ChatRouterR1(
        pool=make_pool("Ada"), controller=ScriptedController([answer()]), models={"Ada": ada}
    )
    asked = {"response_format": {"type": "json_object"}}
    schema = Author.model_json_schema()
    human = model._convert_input(f"{QUESTION} {{not JSON}} {json.dumps(schema)}").to_messages()
    told = with_schema(asked, human)["response_format"]["json_schema"]
    assert told == {"name": "Author", "schema": schema}
    for text in (QUESTION, "{" * 2000, f"tools: [{json.dumps({'parameters': schema})}]"):
        said = model._convert_input(text).to_messages()
        assert with_schema(asked, said) == asked
    assert with_schema({}, human) == {}


@pytest.mark.parametrize("piece", ["{", '{"a":1', '{"properties":', '{"a": "', '{ "', '{"a":[\n'])
def test_a_prompt_of_nothing_but_braces_stalls_nobody(piece):
    asked = {"response_format": {"type": "json_object"}}
    assert with_schema(asked, [HumanMessage(piece * 300_000)]) == asked  # minutes, if all are read
