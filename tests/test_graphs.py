"""The graphs of langgraph.json: imported as they are, and under a real `langgraph dev`, offline."""

import asyncio
import importlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client

from router_r1_graph import PoolError, QuestionError

REPOSITORY = Path(__file__).parent.parent
CONFIG = json.loads((REPOSITORY / "langgraph.json").read_text())
HAMLET = "What is the currency of the country where the author of Hamlet was born?"

needs_dev = pytest.mark.skipif(
    find_spec("langgraph_cli") is None or find_spec("langgraph_api") is None,
    reason="langgraph-cli[inmem] is not installed (the extra 'studio')",
)
NODE = REPOSITORY / "tests" / "node"
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules").exists(),
    reason="node, or its packages, are not installed (npm install in tests/node)",
)


def human(text):
    return {"messages": [{"role": "user", "content": text}]}


def graph(name):
    return importlib.import_module(f"graphs.{name}").graph


# ------------------------------------------------------------------------------- in this process


def test_langgraph_json_names_graphs_that_exist():
    assert set(CONFIG["graphs"]) == {"router", "chat_agent", "research_assistant"}
    for name, entry in CONFIG["graphs"].items():
        assert entry["path"] == f"./graphs/{name}.py:serve"
        assert entry["description"]
        assert graph(name).name == name
        assert graph(name).checkpointer is None  # the server brings its own


async def test_the_research_assistant_asks_the_router_for_each_question():
    brief = f"Who wrote Hamlet? Who wrote Hamlet?\n- {HAMLET}"
    result = await graph("research_assistant").ainvoke(human(brief))
    answers = [(f["question"], f["answer"]) for f in result["findings"]]
    assert answers == [("Who wrote Hamlet?", "William Shakespeare"), (HAMLET, "pound sterling")]
    (asked, written) = result["messages"]
    assert asked.type == "human"
    assert "William Shakespeare" in written.text
    assert written.response_metadata["calls"] == sum(f["calls"] for f in result["findings"]) == 4


async def test_the_assistants_context_is_the_routers():
    result = await graph("research_assistant").ainvoke(human(HAMLET), context={"max_rounds": 1})
    assert [f["stop_reason"] for f in result["findings"]] == ["round_limit"]


def test_the_picture_in_the_docs_is_the_assistant_with_the_router_inside():
    picture = graph("research_assistant").get_graph(xray=True).draw_mermaid().strip()
    page = (REPOSITORY / "docs" / "how-to" / "embed.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{picture}\n```" in page
    inside = picture.partition("subgraph ask\n")[2].partition("\tend\n")[0]
    assert all(f"({node})" in inside for node in ("think", "route", "aggregate", "answer"))


async def test_a_brief_without_a_question_is_an_error():
    with pytest.raises(QuestionError, match="brief is empty"):
        await graph("research_assistant").ainvoke(human(" ;\n"))


def test_the_environment_names_pool_and_controller(monkeypatch):
    from graphs import pool_and_controller

    monkeypatch.setenv("ROUTER_R1_POOL", "embedded_unseen")
    monkeypatch.setenv("ROUTER_R1_CONTROLLER", "cheapest")
    pool, controller = pool_and_controller()
    assert (pool.name, controller.name) == ("embedded_unseen", "cheapest")
    monkeypatch.setenv("ROUTER_R1_POOL", "nowhere.yaml")
    with pytest.raises(PoolError, match=r"nowhere\.yaml"):
        pool_and_controller()


# ----------------------------------------------------------------------------- under langgraph dev


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """Run `langgraph dev` away from the repository (it keeps files); yields address and log."""
    folder = tmp_path_factory.mktemp("dev")
    (folder / "langgraph.json").symlink_to(REPOSITORY / "langgraph.json")
    (folder / "graphs").symlink_to(REPOSITORY / "graphs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--no-browser", "--no-reload", "--n-jobs-per-worker", "10", "--port", str(port)]
    log = folder / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "langgraph_cli", "dev", *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        while True:
            try:
                with urllib.request.urlopen(f"{url}/ok", timeout=60):
                    break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.2)
        yield url, log
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


async def streamed(client):
    """A run of the router, node by node."""
    nodes = []
    async for part in client.runs.stream(
        None, "router", input={"question": HAMLET}, stream_mode=["updates", "values"]
    ):
        if part.event == "updates":
            nodes += part.data
        elif part.event == "values":
            state = part.data
    assert nodes == ["think", "route", "aggregate"] * 3 + ["think", "answer"]
    assert (state["answer"], state["stop_reason"]) == ("pound sterling", "answered")
    # A call that blocks the event loop is an error here, and would be a failed call.
    assert not any(line["failed_calls"] for line in state["ledger"]["candidates"].values())


async def talked(client):
    """Two questions on one thread of the chat agent."""
    thread = await client.threads.create()
    for question in ("Who wrote Hamlet?", HAMLET):
        await client.runs.wait(thread["thread_id"], "chat_agent", input=human(question))
    state = await client.threads.get_state(thread["thread_id"])
    texts = [message["content"] for message in state["values"]["messages"]]
    assert texts == ["Who wrote Hamlet?", "William Shakespeare", HAMLET, "pound sterling"]


async def presets(client):
    """A cheap and a careful assistant: one graph, two contexts."""
    reasons = {}
    for name, context in (
        ("cheap", {"cost_weight": 0.9, "max_rounds": 1}),
        ("careful", {"cost_weight": 0.1, "max_rounds": 6}),
    ):
        made = await client.assistants.create("router", name=name, context=context)
        result = await client.runs.wait(None, made["assistant_id"], input={"question": HAMLET})
        reasons[name] = result["stop_reason"]
    assert reasons == {"cheap": "round_limit", "careful": "answered"}


async def remote(client):
    """The served router as a node of a graph of ours."""
    agent = RemoteGraph("chat_agent", client=client)
    builder = StateGraph(MessagesState).add_node("agent", agent).add_edge(START, "agent")
    result = await builder.compile().ainvoke(human("Who wrote Hamlet?"))
    assert result["messages"][-1].text == "William Shakespeare"


async def researched(client):
    """The router as a subgraph, seen through the stream."""
    inside = set()
    async for part in client.runs.stream(
        None,
        "research_assistant",
        input=human(f"Who wrote Hamlet? {HAMLET}"),
        stream_mode=["updates"],
        stream_subgraphs=True,
    ):
        inside |= {part.event.partition("|")[2].partition(":")[0]}
        if "write" in (part.data or {}):
            written = part.data["write"]["messages"][0]["content"]
    assert "ask" in inside
    assert "pound sterling" in written


async def refused(client):
    """Errors of ours reach the client with their words, an unknown knob among them."""
    for name, given, context, words in (
        ("router", {"question": HAMLET}, {"max_round": 1}, "did you mean 'max_rounds'"),
        ("chat_agent", human(HAMLET), {"x": 1}, "unknown key 'x'; allowed: cost_weight"),
        ("research_assistant", human(HAMLET), {"max_round": 1}, "unknown key 'max_round'"),
        ("router", {"question": HAMLET}, {"max_rounds": -1}, "max_rounds is a whole number of"),
        ("router", {"question": " "}, {}, "there is no question"),
    ):
        with pytest.raises(Exception, match=words):
            await client.runs.wait(None, name, input=given, context=context)
    # Keys of a configurable are the client's own business.
    config = {"configurable": {"max_rounds": 1, "thread_id": "x", "user": "ada"}}
    result = await client.runs.wait(None, "router", input={"question": HAMLET}, config=config)
    assert result["stop_reason"] == "round_limit"


async def edited(client):
    """What Studio does where a person edits the input of a run that is over."""
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "router", input={"question": HAMLET})
    new = {"question": "Who wrote Hamlet?"}
    state = await client.threads.update_state(thread, new, as_node="__start__")
    result = await client.runs.wait(thread, "router", checkpoint=state["checkpoint"])
    assert (result["answer"], result["round"]) == ("William Shakespeare", 1)


async def doubled(client):
    """A second question while the first is asked; and a question by schedule."""
    thread = (await client.threads.create())["thread_id"]
    first = await client.runs.create(thread, "chat_agent", input=human("Who wrote Hamlet?"))
    await client.runs.wait(thread, "chat_agent", input=human(HAMLET), multitask_strategy="enqueue")
    assert (await client.runs.get(thread, first["run_id"]))["status"] == "success"
    state = await client.threads.get_state(thread)
    texts = [message["content"] for message in state["values"]["messages"]]
    assert texts[1::2] == ["William Shakespeare", "pound sterling"]
    daily = await client.crons.create("router", schedule="0 0 * * *", input={"question": HAMLET})
    await client.crons.delete(daily["cron_id"])


@needs_dev
async def test_langgraph_dev_serves_them_offline(dev):
    url, log = dev
    checks = (streamed, talked, presets, remote, researched, refused, edited, doubled)
    async with get_client(url=url) as client:
        await asyncio.gather(*(check(client) for check in checks))
    assert "Blocking" not in log.read_text()


@needs_dev
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_line_of_the_pages_answers(dev):
    page = (REPOSITORY / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^(curl .*) \| jq -r \.answer +# (.*)$", page.replace("\\\n", ""), re.M)
    command = [word.replace("http://127.0.0.1:2024", dev[0]) for word in shlex.split(line[0])]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout)["answer"] == line[1]


@needs_dev
async def test_the_knobs_are_in_the_schema_that_studio_shows(dev):
    async with get_client(url=dev[0]) as client:
        found = await client.assistants.search(graph_id="router", name="router")
        schemas = await client.assistants.get_schemas(found[0]["assistant_id"])
    assert {"cost_weight", "max_rounds", "budget_usd"} <= set(
        schemas["context_schema"]["properties"]
    )
    assert set(schemas["input_schema"]["properties"]) == {"question", "messages"}


@needs_dev
@needs_node
def test_the_sdk_for_javascript_asks_approves_and_embeds(dev):
    command = ["node", str(NODE / "sdk.mjs"), dev[0], HAMLET]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    answer = "pound sterling"
    assert json.loads(run.stdout) == {
        **{"approved": 3, "answer": answer, "streamed": [answer]},
        **{"messages": [HAMLET, answer], "calls": 3},
    }


@needs_dev
@needs_node
@pytest.mark.parametrize(
    ("name", "context", "approved"),
    [
        ("chat_agent", {}, 0),
        ("chat_agent", {"approve_above_usd": 0}, 3),
        ("research_assistant", {}, 0),
    ],
)
def test_a_chat_ui_shows_the_question_and_the_answer(dev, name, context, approved):
    command = ["node", str(NODE / "use_stream.mjs"), dev[0], name, HAMLET, json.dumps(context)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    seen = json.loads(run.stdout)
    assert seen["approved"] == approved
    for shown in seen["shown"]:
        kinds = [kind for kind, _ in shown]
        assert kinds in ([], ["human"], ["human", "ai"])
    (_, question), (_, said) = seen["shown"][-1]
    assert question == HAMLET
    assert "pound sterling" in said
