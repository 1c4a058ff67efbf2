"""Nothing that comes from outside ends a run, is believed, or acts: the whole hostile corpus."""

from __future__ import annotations

import csv
import json
import logging
import os
from contextlib import contextmanager
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.sqlite import SqliteSaver
from langsmith import tracing_context

from fakes import FakeChat, answer, make_pool, search
from hostile import NO_COUNTS, NO_PRICES, TEXTS
from in_process import cli
from langsmith_sink import LangSmithSink
from openai_server import Reply, Status, Wire
from router_r1_graph import (
    CandidatePool,
    ChatRouterR1,
    create_router_r1,
)
from router_r1_graph.candidates.candidate import Candidate
from router_r1_graph.candidates.records import Recorder, read_records
from router_r1_graph.candidates.reply import Reply as CallReply
from router_r1_graph.candidates.thoughts import apart
from router_r1_graph.candidates.usage import reported_usd, usage_metadata, usage_of
from router_r1_graph.errors import PoolError
from router_r1_graph.evaluation.page import as_html, markdown
from router_r1_graph.evaluation.questions import Reader
from router_r1_graph.outside import CONTROL, read_json, visible, writable
from router_r1_graph.protocol import parse, render_observation, tags
from router_r1_graph.trace import Trace, TraceWriter, read_traces
from router_r1_graph.transcript import as_text
from yaml_pool import ONE_DOLLAR, bills, run, scripted, yaml_pool

WRITABLE = [writable(text) for text in TEXTS]
ENDPOINTS = {"/v1/chat/completions": "messages", "/v1/responses": "input"}


def test_what_is_behind_the_gate_can_be_written_and_is_told_apart():
    sent = json.dumps({text: [text] for text in TEXTS})
    assert [text for (text,) in read_json(sent).values()] == list(dict.fromkeys(WRITABLE))
    for text, kept in zip(TEXTS, WRITABLE, strict=True):
        assert (kept.encode() and "\0" not in kept) or not text
        assert writable(kept) == kept
        assert not CONTROL.search(visible(kept))
        assert tags(render_observation("Ada", kept)) == ["<information>", "</information>"]
        parse(kept)
    for wrong in ("NaN", "[-Infinity]", '{"a": 1e999}'):
        with pytest.raises(ValueError, match="no number of JSON"):
            read_json(wrong)
    plain = "Zoë said: 2 < 3 & 4 > 3\n\t\N{OWL} \N{FAMILY}"
    assert writable(plain) == visible(plain) == plain


@contextmanager
def saver_of(kind, folder):
    if kind == "sqlite":
        with SqliteSaver.from_conn_string(str(folder / "c.sqlite")) as saver:
            yield saver
    else:
        if not (server := os.environ.get("ROUTER_R1_POSTGRES")):
            pytest.skip("no PostgreSQL: ROUTER_R1_POSTGRES names no server (.ci/run starts one)")
        from langgraph.checkpoint.postgres import PostgresSaver

        with PostgresSaver.from_conn_string(server) as saver:
            saver.setup()
            saver.delete_thread("hostile")
            yield saver


def careless(request):
    """Answer with the text that a query numbers; the second half of them as errors."""
    number = int(request.prompt)
    text = TEXTS[number % len(TEXTS)]
    if number < len(TEXTS):
        return Wire({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})
    return Wire({"error": {"message": text, "code": text, "type": "x"}}, code=400)


@pytest.mark.parametrize("every", [7, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_no_reply_or_error_of_a_server_ends_a_run_or_reaches_a_reader(serve, tmp_path, kind, every):
    pool = yaml_pool(tmp_path, serve(careless), **ONE_DOLLAR)
    replies = list(range(kind == "postgres", len(TEXTS), every))  # others for each
    errors = [len(TEXTS) + number for number in replies[::3]]
    files = [tmp_path / "traces.jsonl", tmp_path / "records.jsonl"]
    config = {"configurable": {"thread_id": "hostile"}}
    config |= {"callbacks": [TraceWriter(files[0]), Recorder(files[1])]}
    turn = search(*(f"Ada: {number}" for number in [*replies, *errors]))
    with saver_of(kind, tmp_path) as saver:
        graph = scripted(pool, turn, answer("\ud83d\x00"), checkpointer=saver)
        state = run(graph, "invoke", config, max_calls_per_round=1000)
        stored = graph.get_state(config).values
    assert state["answer"] == stored["answer"] == "\ufffd\ufffd"
    assert stored["scratchpad"] == state["scratchpad"]
    made = {int(bill["query"]): bill for bill in bills(state)}
    assert list(made) == [*replies, *errors]
    for number, bill in made.items():
        if number in errors:
            assert not bill["ok"]
            assert not CONTROL.search(bill["error"]["message"])
        elif bill["ok"]:
            said = apart(WRITABLE[number])[1]
            assert bill.get("whole", bill["reply"]).strip() == said.strip()
    (trace,) = read_traces(files[0])
    assert trace == Trace.from_state(state, id=trace.id)
    recorded = {int(record.question) for record, _ in read_records(files[1])}
    assert recorded == {number for number, bill in made.items() if bill["ok"]}
    text = as_text(trace)
    assert not CONTROL.search(text)
    check_pages(text)


def check_pages(text):
    """Check that a page of the corpus has the elements that it was made of, and no others."""
    blocks = [("h1", "h1"), ("code", text), *(("p", one) for one in WRITABLE)]
    blocks += [("table", [["head", "other"], *([one, one] for one in WRITABLE)])]
    elements = Elements()
    elements.feed(as_html(blocks, "</title><b>"))
    own = {"html", "meta", "title", "style", "h1", "p", "pre", "table", "tr", "th", "td"}
    assert set(elements.found) == own
    assert elements.found.count("td") == 2 * len(WRITABLE)
    page = markdown(blocks)
    assert not CONTROL.search(page)
    _, fence, rest = page.partition("\n\n````")
    begin, _, rest = (fence.strip() + rest).partition("text\n")
    code, _, rest = rest.partition(f"\n{begin}\n")
    assert code == text
    assert "<" not in rest.replace("\\<", "")
    assert not [line for line in rest.splitlines() if line.startswith(("#", "```", "~~~", ">"))]
    assert len([line for line in rest.splitlines() if line.startswith("| ")]) == 1 + len(WRITABLE)


class Elements(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)


def test_a_question_and_a_conversation_may_be_hostile(tmp_path):
    serving = pytest.importorskip("router_r1_graph.serving.app", reason="needs the extra 'serve'")
    testclient = pytest.importorskip("starlette.testclient")
    pool, chat = make_pool("Ada"), FakeChat()
    served = ChatRouterR1(pool=pool, controller="constant:Ada", models={"Ada": chat})
    said = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(TEXTS)]
    said.append({"role": "user", "content": "a \ud800 \x00?"})
    asked = [(path, key, stream) for path, key in ENDPOINTS.items() for stream in (False, True)]
    with testclient.TestClient(serving.create_app(served)) as client:
        posts = [path for path, of in client.app.openapi()["paths"].items() if "post" in of]
        assert posts == list(ENDPOINTS)  # those that take a text
        for path, key, stream in asked:
            body = {"model": "router-r1", "max_conversation_tokens": 10**6, "stream": stream}
            response = client.post(path, content=json.dumps({**body, key: said}))
            assert response.status_code == 200, response.text
            assert "Paris" in response.text
        for text in WRITABLE[::8]:  # beside the body, a name in the address is all that is read
            response = client.get(f"/v1/models/{quote(text, safe='')}")
            assert response.status_code in (200, 404), text
    assert chat.queries == ["a \ufffd \ufffd?"] * len(asked)
    graph = create_router_r1(pool, "constant:Ada", models={"Ada": chat}).compile()
    state = graph.invoke({"messages": [HumanMessage(text) for text in TEXTS if text.strip()]})
    assert json.dumps(state["answer"])


def test_files_may_be_hostile(tmp_path):
    rows = [{"id": str(n), "question": f"q {text}", "gold": ["x"]} for n, text in enumerate(TEXTS)]
    lines = tmp_path / "q.jsonl"
    lines.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"id": NaN, "question":')
    reader = Reader([str(lines)], skip_bad=True)
    assert [q.question for q in reader.read()] == [f"q {text}" for text in WRITABLE]
    assert len(reader.skipped) == 1
    table = tmp_path / "q.csv"
    with table.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "question", "gold"])
        writer.writerows([n, f"q{text}", "x"] for n, text in enumerate(TEXTS) if "\0" not in text)
    assert all(q.question.encode() for q in Reader([str(table)]).read())
    for text in [text for text in TEXTS if len(text) < 200][::4]:
        file = tmp_path / "pool.yaml"
        file.write_text(json.dumps({"candidates": [{"name": f"a{text}", "system_prompt": text}]}))
        said, pool = complaint(file)
        assert not CONTROL.search(said)
        assert said.encode() or pool
        for candidate in pool.candidates if pool else ():
            assert visible(candidate.name) == candidate.name
            assert candidate.system_prompt == writable(text) == text


def complaint(file):
    """Return what is wrong with a pool file, and the pool if nothing is."""
    try:
        return "", CandidatePool.from_yaml(file)
    except PoolError as error:
        return str(error), None


def test_langsmith_gets_what_it_can_take():
    cur = [""]
    chat = FakeChat(text=lambda _: cur[0])
    graph = create_router_r1(make_pool("Ada"), "constant:Ada", models={"Ada": chat}).compile()
    with LangSmithSink() as sink:
        client = sink.client()
        with tracing_context(enabled=True, client=client, project_name="p"):
            for text in TEXTS[::24]:
                cur[0] = text
                graph.invoke({"question": "q"})
        client.flush()
        names = [one.get("name") for one in sink.runs.values()]
    assert names.count("router-r1") == len(TEXTS[::24])


@pytest.mark.parametrize("controller", ["pool", "constant:Ada"])
def test_no_control_character_reaches_a_terminal(serve, tmp_path, controller):
    evil = "\x1b]0;PWNED\x07\x1b[2J\u202ebad\x9b31m [red]x[/red]"
    server = serve({"ada": Reply(f"Paris {evil}"), "controller": Status(400, evil)})
    yaml_pool(tmp_path, server, controller={})
    run = cli("ask", "Where?", "--pool", tmp_path / "pool.yaml", "--controller", controller)
    assert "[red]x[/red]" in run.stdout + run.stderr
    assert not CONTROL.search(run.stdout + run.stderr)


# ------------------------------------------------------------------------------- the bill


def billed(usage):
    """Return what a server sends for the reply "Paris" with this usage, given as JSON."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Paris"}}
    choice["finish_reason"] = "stop"
    return RawUsage({"choices": [choice], "usage": "USAGE"}, usage)


class RawUsage(Wire):
    """A body with a usage that no JSON library writes."""

    def __init__(self, body, usage):
        super().__init__(body)
        object.__setattr__(self, "usage", usage)

    def send(self, request, http):
        text = json.dumps(self.body).replace('"USAGE"', self.usage)
        http.send(200, text.encode())


@pytest.mark.parametrize("number", NO_COUNTS)
def test_a_count_that_cannot_be_is_flagged_and_estimated(serve, tmp_path, number):
    usage = f'{{"prompt_tokens": {number}, "completion_tokens": 5, "total_tokens": {number}}}'
    pool = yaml_pool(tmp_path, serve(billed(usage)), **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, search("Ada: Capital?"), answer()), "invoke"))
    assert (bill["ok"], bill["error"]["kind"]) == (True, "missing_usage")
    assert "reported the impossible: prompt_tokens" in bill["error"]["message"]
    assert (bill["input_tokens"], bill["output_tokens"]) == (2, 5)
    assert bill["cost_usd"] == pytest.approx(12e-6)


@pytest.mark.parametrize("price", NO_PRICES)
def test_a_price_that_cannot_be_is_flagged_and_taken_from_the_list(serve, tmp_path, price):
    usage = f'{{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": {price}}}'
    pool = yaml_pool(tmp_path, serve(billed(usage)), **ONE_DOLLAR)
    (bill,) = bills(run(scripted(pool, search("Ada: Capital?"), answer()), "invoke"))
    assert "reported the impossible: cost" in bill["error"]["message"]
    assert bill["cost_usd"] == pytest.approx(20e-6)


@pytest.mark.parametrize(
    ("report", "flagged"),
    [
        ({"cost": {"total": -1}}, "cost.total -1"),
        ({"cost": {"total_cost": -1}}, "cost.total_cost -1"),
        ({"total_cost": {"total": "much"}}, "total_cost.total 'much'"),
        ({"cost_in_usd_ticks": -5}, "cost_in_usd_ticks -5"),
        ({"cost_in_usd_ticks": 1e308}, "cost_in_usd_ticks 1e+308"),
        ({"promptTokens": -5, "completionTokens": 3}, "promptTokens -5"),
        ({"inputTokens": 1.5}, "inputTokens 1.5"),
        ({"input_token_details": {"cache_read": -5}}, "input_token_details.cache_read -5"),
        ({"prompt_cache_hit_tokens": 10**30}, "prompt_cache_hit_tokens 10000"),
        ({"cost_details": {"upstream_inference_cost": -1}}, "upstream_inference_cost -1"),
    ],
)
def test_each_value_that_is_not_believed_is_flagged(report, flagged):
    counts = usage_metadata(report)
    served = AIMessage("hello", usage_metadata=counts, response_metadata={"token_usage": report})
    beside = AIMessage("hello", response_metadata=report)  # as some of LangChain's clients have it
    for message in (served, beside) if "cost" in str(report) else (served,):
        assert any(flagged in told for told in usage_of(message).impossible)
        assert not reported_usd(message)


def test_a_count_that_langchains_client_reports_is_flagged_beside_a_report_without_it():
    counts = UsageMetadata(input_tokens=9, output_tokens=2, total_tokens=11)
    counts["input_token_details"] = {"cache_read": -5}
    message = AIMessage("hello", usage_metadata=counts, response_metadata={"token_usage": {"x": 1}})
    assert usage_of(message).impossible == ("input_token_details.cache_read -5",)


def test_what_no_price_or_count_is_is_not_flagged():
    report = {
        **{"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "cost": {"total": 0.1}},
        **{"cache_discount": -0.01, "queue_time": -1.0, "total_duration": 10**12, "is_byok": False},
        **{"cost_in_usd_ticks": 5, "prompt_tokens_details": {"cached_tokens": None}},
    }
    message = AIMessage(
        "hello",
        usage_metadata=usage_metadata(report),
        response_metadata={"token_usage": report, "total_cost": None},
    )
    assert usage_of(message).impossible == ()


def test_a_reply_of_anybodys_own_code_holds_numbers_that_add_up():
    nan, message = float("nan"), AIMessage("a\ud800", additional_kwargs={"x": ["\0"]})
    reply = CallReply("\ud800", nan, -1, 1.5, 1e308, nan, saved_usd=-1.0, message=message)
    assert (reply.text, reply.input_tokens, reply.output_tokens) == ("\ufffd", 0, 0)
    assert (reply.reasoning_tokens, reply.cost_usd, reply.seconds, reply.saved_usd) == (0, 0, 0, 0)
    assert (reply.message.content, reply.message.additional_kwargs) == (
        "a\ufffd",
        {"x": ["\ufffd"]},
    )


class Unreadable(AIMessage):
    """A message of a client that breaks LangChain's contract."""

    @property
    def text(self):
        raise TypeError("no text")


def test_a_reply_that_cannot_be_read_is_on_the_bill():
    graph = create_router_r1(
        make_pool("Ada"),
        "constant:Ada",
        models={"Ada": RunnableLambda(lambda _: Unreadable("x"))},
    ).compile()
    (bill,) = bills(graph.invoke({"question": "q"}))
    assert (bill["ok"], bill["error"]["kind"], bill["attempts"]) == (False, "malformed", 1)


# ------------------------------------------------------------- a provider that is not fair


@pytest.mark.parametrize("unfair", ["ignores max_tokens", "wants more", "is said to be free"])
def test_overspending_is_bounded_by_the_calls_in_flight_and_learnt(serve, tmp_path, caplog, unfair):
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0.01}
    if unfair == "ignores max_tokens":
        usage = {"prompt_tokens": 10, "completion_tokens": 5000, "total_tokens": 5010}
    prices = ONE_DOLLAR
    if unfair == "is said to be free":
        prices = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 0.0}
    server = serve(billed(json.dumps(usage)))
    pool = yaml_pool(tmp_path, server, **prices, max_tokens=20)
    turn = search("Ada: one", "Ada: two")
    others = [search(f"Ada: {n} a", f"Ada: {n} b") for n in range(3)]
    with caplog.at_level(logging.WARNING, logger="router_r1_graph"):
        state = run(scripted(pool, turn, *others, answer()), "invoke", budget_usd=0.025)
    assert state["stop_reason"] == "budget_usd"
    assert server.count() == 2  # those that were under way; the next ones are refused
    assert "Ada: a call cost $0.0100" in caplog.text
    again = run(scripted(pool, turn, answer()), "invoke", budget_usd=0.005)  # learnt of the pool
    assert (again["stop_reason"], server.count()) == ("budget_usd", 2)


def test_a_fair_provider_changes_nothing(serve, tmp_path, caplog):
    pool = yaml_pool(tmp_path, serve(Reply("Paris", 10, 20)), **ONE_DOLLAR, max_tokens=20)
    before = pool.candidates[0].worst_case_usd("Capital?")
    run(scripted(pool, search("Ada: Capital?"), answer()), "invoke")
    assert pool.candidates[0].worst_case_usd("Capital?") == before
    assert pool == CandidatePool.from_yaml(tmp_path / "pool.yaml")
    assert not caplog.text


# ----------------------------------------------------------------------------- plots


def test_a_name_is_no_formula_in_a_plot(tmp_path):
    pytest.importorskip("matplotlib")
    from router_r1_graph.evaluation.plots import load_pyplot, shown

    pyplot = load_pyplot("a test", "eval")
    figure, axes = pyplot.subplots()
    names = ["$\\frac{1}{0}$", "$", "$$", "_hidden", "\\$x", "^{", "a$b", "%d", "\x1b[31m_"]
    for place, name in enumerate(names):
        axes.annotate(shown(name), (0, place))
        axes.plot([0], [place], label=shown(name))
    legend = axes.legend()
    figure.draw_without_rendering()  # raises where a formula cannot be read
    assert len(legend.get_texts()) == len(names)
    pyplot.close(figure)


def test_names_that_could_control_a_terminal_are_refused():
    for name in ("a\x1b[31m", "a\u202eb", "a\x00"):
        for wrong in (
            {"name": name},
            {"name": "a", "aliases": [name]},
            {"name": "a", "model": name},
        ):
            with pytest.raises(ValueError, match=r"controls a terminal|valid string"):
                Candidate.model_validate({"name": "a", **wrong})
        with pytest.raises(ValueError, match="controls a terminal"):
            CandidatePool.model_validate({"name": name, "candidates": [{"name": "a"}]})
