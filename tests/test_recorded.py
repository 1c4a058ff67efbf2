"""Recorded candidates and the recorder: what was really replied comes back, at the same bill."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes import NEVER, FakeChat, make_pool, models, search
from openai_server import Reply, Status
from router_r1_graph import (
    CandidatePool,
    PoolError,
    Recorder,
    ScriptedController,
    create_router_r1,
    parse_controller,
    pool_tools,
)
from router_r1_graph.candidates.records import CandidateRecords, Record, read_records
from router_r1_graph.candidates.replay import strangers
from router_r1_graph.ledger import total
from yaml_pool import bills, both_ways, run, scripted, yaml_pool

FRANCE = "What is the capital of France?"
PARIS = {"question": FRANCE, "candidate": "Ada", "reply": "Paris"}
TOKENS = {"input_tokens": 12, "output_tokens": 3}
PAID = {**PARIS, **TOKENS, "cost_usd": 0.25, "seconds": 30.0}


def recorded_pool(
    folder: Path, *rows: dict[str, Any] | str, name: str = "Ada", settings: Any = (), **options: Any
) -> CandidatePool:
    """Read a pool file of one recorded candidate with these lines as its records."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = {"records": "records.jsonl", **options}
    candidate = {"name": name, "provider": "recorded", "options": options, **dict(settings)}
    (folder / "pool.yaml").write_text(yaml.safe_dump({"candidates": [candidate]}))
    return CandidatePool.from_yaml(folder / "pool.yaml")


def ask(pool: CandidatePool, query: str = FRANCE) -> dict[str, Any]:
    """Return the bill of one call of the pool's first candidate."""
    (tool, *_) = pool_tools(pool)
    call = {"type": "tool_call", "id": "1", "name": tool.name, "args": {"query": query}}
    message = tool.invoke(call)
    return {**message.artifact, "reply": message.text}


def refusal(folder: Path, *rows: dict[str, Any] | str, **options: Any) -> str:
    with pytest.raises(PoolError) as raised:
        pool_tools(recorded_pool(folder, *rows, **options))
    return str(raised.value)


# ------------------------------------------------------------------------------ the replay


@both_ways
def test_a_recorded_candidate_replies_as_recorded_at_the_recorded_bill(how, tmp_path):
    slow = {**PAID, "seconds": NEVER}  # they are not waited for
    pool = recorded_pool(tmp_path, slow, settings={"output_usd_per_mtok": 7.0})
    result = run(scripted(pool, search(f"Ada: {FRANCE}"), "<answer> Paris </answer>"), how)
    (bill,) = bills(result)
    assert (bill["reply"], bill["input_tokens"], bill["output_tokens"]) == ("Paris", 12, 3)
    assert (bill["cost_usd"], bill["seconds"]) == (0.25, NEVER)
    assert total(result["ledger"])["seconds"] == pytest.approx(NEVER)


def test_recorded_seconds_count_against_a_deadline(tmp_path):
    pool = recorded_pool(tmp_path, PAID)
    graph = scripted(pool, search(f"Ada: {FRANCE}"), "<answer> never said </answer>")
    result = run(graph, "invoke", deadline_seconds=20)
    assert (result["stop_reason"], result["answer"]) == ("deadline", "Paris")


def test_recorded_seconds_are_slept_when_asked_for(tmp_path):
    pool = recorded_pool(tmp_path, PAID, latency_scale=0.01)
    started = time.perf_counter()
    assert ask(pool)["seconds"] == 30.0
    assert time.perf_counter() - started >= 0.3


def test_what_was_not_recorded_comes_from_prices_and_estimates(tmp_path):
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
    pool = recorded_pool(tmp_path, {**PARIS, "output_tokens": 3}, settings=prices)
    started = time.perf_counter()
    bill = ask(pool)
    gone = time.perf_counter() - started
    assert (bill["input_tokens"], bill["output_tokens"]) == (8, 3)  # 30 bytes, 4 each
    assert bill["cost_usd"] == pytest.approx(14e-6)
    assert 0 < bill["seconds"] <= gone
    assert bill["error"] is None


def test_a_recorded_reply_serves_any_price(tmp_path):
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0, "usd_per_call": 0.5}
    bill = ask(recorded_pool(tmp_path, PAID, settings=prices, cost="list"))
    assert (bill["reply"], bill["seconds"]) == ("Paris", 30.0)
    assert bill["cost_usd"] == pytest.approx(0.5 + 18e-6)


def test_a_candidate_may_have_another_name_in_the_records(tmp_path):
    settings = {"model": "lab/ada-1"}
    assert "no record of 'Zed'" in refusal(tmp_path, PAID, name="Zed", settings=settings)
    pool = recorded_pool(tmp_path, PAID, name="Zed", settings=settings, recorded_as="Ada")
    assert ask(pool)["reply"] == "Paris"
    assert strangers(pool) == []


def test_tokens_that_nobody_counted_are_said_to_be_estimates(tmp_path):
    bill = ask(recorded_pool(tmp_path, PARIS))
    assert (bill["ok"], bill["error"]["kind"]) == (True, "missing_usage")


@pytest.mark.parametrize(
    "query", ["what is the capital  of france", "“What is the capital of France”!", FRANCE.upper()]
)
def test_case_spaces_and_punctuation_do_not_matter(tmp_path, query):
    assert ask(recorded_pool(tmp_path, PARIS), query)["reply"] == "Paris"


def test_signs_that_calculate_do_matter():
    records = CandidateRecords()
    for query in ("3-1", "31", "3+1", "3.1"):
        records.add(Record(question=f"What is {query}?", candidate="Ada", reply=query))
    for query in ("3-1", "31", "3+1", "3.1"):
        record = records.find(f"what is {query}")
        assert record is not None
        assert record.reply == query


def test_a_query_without_a_record_is_a_failure_of_its_own_kind(tmp_path):
    graph = scripted(recorded_pool(tmp_path, PARIS), search("Ada: What is 1 + 1?"), "<answer/>")
    (bill,) = bills(run(graph, "invoke"))
    assert (bill["ok"], bill["attempts"], bill["cost_usd"]) == (False, 1, 0.0)
    assert bill["error"]["kind"] == "no_record"
    assert "Ada was never asked 'What is 1 + 1?'" in bill["error"]["message"]


SPAIN = {"question": "What is the capital of Spain?", "candidate": "Ada", "reply": "Madrid"}


@pytest.mark.parametrize(
    ("nearest", "query", "reply"),
    [
        (0.8, "Tell me, what is the capital of France?", "Paris"),
        (0.8, "What is the capital of Spain now?", "Madrid"),
        (0.99, "Tell me, what is the capital of France?", None),
        (None, "Tell me, what is the capital of France?", None),
        (0.1, "Hola", None),
        (0.0, "¿", None),
    ],
)
def test_the_nearest_question_counts_where_it_is_near_enough(tmp_path, nearest, query, reply):
    bill = ask(recorded_pool(tmp_path, PARIS, SPAIN, nearest=nearest), query)
    assert (bill["reply"] if bill["ok"] else None) == reply


def test_of_two_records_of_one_question_the_later_counts(tmp_path):
    again = {**PARIS, "question": FRANCE.lower(), "reply": "Paris, still"}
    assert ask(recorded_pool(tmp_path, PARIS, again))["reply"] == "Paris, still"


def test_fields_of_another_name_are_mapped(tmp_path):
    row = {"q": FRANCE, "model": "Ada", "text": "Paris", "usd": 0.5}
    fields = {"question": "q", "candidate": "model", "reply": "text", "cost_usd": "usd"}
    bill = ask(recorded_pool(tmp_path, row, fields=fields))
    assert (bill["reply"], bill["cost_usd"]) == ("Paris", 0.5)


@pytest.mark.parametrize("how", [{"model": "ada"}, {"aliases": ["ADA"]}])
def test_records_may_call_a_candidate_by_its_model_or_alias(tmp_path, how):
    assert ask(recorded_pool(tmp_path, PARIS, name="Countess", settings=how))["reply"] == "Paris"


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path):
    pool = recorded_pool(tmp_path, PARIS)
    first, second = pool_tools(pool)[0].model, pool_tools(pool)[0].model
    assert first.records is second.records
    recorded_pool(tmp_path, {**PARIS, "reply": "Lutetia"})
    os.utime(tmp_path / "records.jsonl", ns=(1, 1))
    assert ask(pool)["reply"] == "Lutetia"


def test_one_of_thousands_of_records_is_found():
    records = CandidateRecords()
    for i in range(20_000):
        question = f"What is the number of the house {i} in street {i % 97}?"
        records.add(Record(question=question, candidate="Ada", reply=str(i)))
    found = records.find("Number of house 4711 in street 55?", 0.5)
    assert found is not None
    assert found.reply == "4711"


# ------------------------------------------------------------------------ what can be wrong


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: a line is a JSON object, not []"),
        ("\udcff", "line 2: not JSON"),
        ('{"question": "?", "candidate": "Ada"}', "line 2: there is no 'reply'; see fields"),
        (
            '{"query": "?", "candidate": "Ada", "reply": "x", "questions": 1}',
            "line 2: there is no 'question' (did you mean 'questions'?); see fields",
        ),
        (json.dumps({**PARIS, "cost_usd": -1}), "line 2: cost_usd: -1: "),
        (json.dumps({**PARIS, "cost_usd": float("nan")}), "line 2: cost_usd: nan: "),
        (json.dumps({**PARIS, "cost_usd": 1e308}), "line 2: cost_usd: 1e+308: "),
        (json.dumps({**PARIS, "output_tokens": 10**30}), "line 2: output_tokens: 10"),
        (json.dumps({**PARIS, "reply": None}), "line 2: reply: None: "),
    ],
)
def test_a_broken_line_is_named_by_its_number(tmp_path, row, says):
    (tmp_path / "records.jsonl").write_bytes(
        (json.dumps(PARIS) + "\n" + row + "\n").encode(errors="surrogateescape")
    )
    with pytest.raises(PoolError) as raised:
        list(read_records(tmp_path / "records.jsonl"))
    assert f"{tmp_path / 'records.jsonl'}, {says}" in str(raised.value)


def test_a_candidate_without_any_record_is_refused_with_the_names_there_are(tmp_path):
    message = refusal(tmp_path, PARIS, name="Adda")
    assert "no record of 'Adda' (did you mean 'ada'?); there are records of ada" in message


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nearest": 1.5}, "options.nearest: must be at most 1, not 1.5"),
        ({"recods": "x"}, "unknown option 'recods' (did you mean 'records'?)"),
        ({"fields": {"answer": "x"}}, "options.fields: a record has no 'answer'"),
        ({"records": "nowhere.jsonl"}, "nowhere.jsonl: the records cannot be read: No such file"),
    ],
)
def test_a_wrong_option_is_refused(tmp_path, options, says):
    message = refusal(tmp_path, PARIS, **options)
    assert says in message
    assert "\n" not in message


def test_the_records_option_cannot_be_left_out():
    pool = make_pool({"name": "Ada", "provider": "recorded"})
    with pytest.raises(PoolError, match=r"'Ada': options\.records: is missing"):
        pool_tools(pool)


def test_records_of_somebody_outside_the_pool_are_known(tmp_path):
    pool = recorded_pool(tmp_path, PARIS, {**PARIS, "candidate": "Bob"})
    assert strangers(pool) == ["bob"]


# --------------------------------------------------------------------------- the recording


def test_a_recorded_run_replays_to_the_same_answer_cost_and_seconds(serve, tmp_path):
    server = serve(
        {"ada": Reply("Paris", input_tokens=11, output_tokens=4, cost=0.002), "bob": Reply("Lyon")}
    )
    prices = {"output_usd_per_mtok": 3.0}
    real = yaml_pool(tmp_path, server, {"Ada": {}, "Bob": prices})
    script = (search(f"Ada: {FRANCE}", "Bob: Really?"), "<answer> Paris </answer>")
    file = tmp_path / "records.jsonl"
    first = run(scripted(real, *script), "invoke", {"callbacks": [Recorder(file)]})
    options = {"records": str(file)}
    names = ({"name": n, "provider": "recorded", "options": options} for n in ("Ada", "Bob"))
    second = run(scripted(make_pool(*names), *script), "ainvoke")
    assert bills(second) == bills(first)
    assert second["answer"] == first["answer"]
    assert second["ledger"]["candidates"] == first["ledger"]["candidates"]


@both_ways
def test_one_query_about_two_questions_replays_to_each_ones_reply(how, tmp_path):
    """A candidate that sees the question, too, was asked two things in the same words."""

    class Told(FakeChat):
        def _generate(self, messages: Any, *more: Any, **options: Any) -> Any:
            return FakeChat(text=f"born in {len(messages[0].text)}")._generate(messages)

        async def _agenerate(self, messages: Any, *more: Any, **options: Any) -> Any:
            return self._generate(messages)

    file = tmp_path / "records.jsonl"

    def replies(model: FakeChat | None, *callbacks: Any, **ada: Any) -> list[str]:
        pool = make_pool({"name": "Ada", "system_prompt": "Be brief.", **ada})
        script = (search("Ada: When was she born?"), "<answer> x </answer>")
        chosen = {"Ada": model} if model else None
        graph = create_router_r1(pool, ScriptedController(script), models=chosen).compile()

        async def asked() -> list[Any]:
            given: Any = [{"question": q} for q in ("Austen?", "Marie Curie?", "Austen?")]
            config: Any = {"callbacks": [*callbacks], "max_concurrency": 1}
            context = {"candidate_context": "question"}
            if how == "invoke":
                return graph.batch(given, config, context=context)
            return await graph.abatch(given, config, context=context)

        return [s["scratchpad"][2].artifact["reply"] for s in asyncio.run(asked())]

    real = replies(Told(), Recorder(file))
    assert real[0] == real[2] != real[1]
    recorded: Any = {"provider": "recorded", "options": {"records": str(file)}}
    assert replies(None, **recorded) == real
    # Where nothing else is told, the last reply to the query serves.
    assert ask(make_pool({"name": "Ada", **recorded}), "When was she born?")["reply"] == real[2]


@both_ways
def test_a_recorder_writes_whole_replies_and_no_failures(how, serve, tmp_path, monkeypatch):
    monkeypatch.setenv("ADA_KEY", "sk-secret-0123456789")
    server = serve({"ada": Reply("word " * 500), "bob": Status(401, "sk-secret-0123456789")})
    pool = yaml_pool(tmp_path, server, {"Ada": {}, "Bob": {}}, api_key_env="ADA_KEY")
    graph = scripted(pool, search("Ada: Talk.", "Bob: Talk."), "<answer> x </answer>")
    file = tmp_path / "records.jsonl"
    run(graph, how, {"callbacks": [Recorder(file)]}, max_information_tokens=5)
    ((record, row),) = read_records(file)
    assert (record.candidate, record.question) == ("Ada", "Talk.")
    assert record.reply == "word " * 500
    assert set(row) == {*Record.model_fields} - {"background"}
    assert "sk-secret" not in file.read_text()


def test_a_recorder_leaves_other_tools_alone(tmp_path):
    from langchain_core.tools import tool

    @tool
    def add(query: str) -> str:
        """Add."""
        return query

    add.invoke({"query": "1"}, {"callbacks": [Recorder(tmp_path / "records.jsonl")]})
    assert not (tmp_path / "records.jsonl").exists()


def test_an_answer_found_before_is_not_recorded_twice(tmp_path):
    pool = make_pool("Ada")
    script = [search("Ada: Who?"), search("Ada: Who?"), "<answer> x </answer>"]
    graph = create_router_r1(pool, ScriptedController(script), models=models(pool, Ada=FakeChat()))
    recorder = Recorder(tmp_path / "records.jsonl")
    graph.compile().invoke({"question": "?"}, {"callbacks": [recorder]})
    assert len(list(read_records(recorder.path))) == 1


def test_a_rule_runs_over_recorded_candidates(tmp_path):
    pool = recorded_pool(tmp_path, {**PAID, "reply": "Well. <answer>Paris</answer>"})
    graph = create_router_r1(pool, parse_controller("constant:Ada", pool)).compile()
    assert graph.invoke({"question": FRANCE})["answer"] == "Paris"
