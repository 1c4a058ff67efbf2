"""A trace: a finished run as a record that survives a file, and is enough to run it again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import ValidationError

from fakes import FakeChat, PaidController, answer, make_pool, models, search
from in_process import cli
from router_r1_graph import (
    Candidate,
    CandidatePool,
    ConfigError,
    KeywordController,
    ReplyError,
    RouterContext,
    ScriptedController,
    TraceError,
    create_router_r1,
    create_router_r1_agent,
)
from router_r1_graph.evaluation.run import read_results
from router_r1_graph.trace import TRACE_VERSION, Trace, read_traces, write_traces

QUESTION = {"question": "What is the capital of France?"}
SCRIPT = [
    search("Ada: capital of France?", "Bob: capital?", "Eve: capital?") + "<answer>",
    search("Ada: capital of France?", "Bob: which: one?"),
    answer("Paris \u2028 🦉"),
]
CONTEXT = RouterContext(cost_weight=0.3, budget_usd=1.0, deadline_seconds=3600.0, seed=7)


def outcome(query: str) -> str | Exception:
    return ConnectionError("gone") if query == "capital?" else f"reply to {query}"


def run(
    controller: Any = None,
    pool: CandidatePool | None = None,
    given: Any = None,
    context: RouterContext = CONTEXT,
) -> dict[str, Any]:
    pool = pool or make_pool()
    controller = controller or ScriptedController(SCRIPT)
    given = given or {c.name: FakeChat(text=outcome) for c in pool.candidates}
    graph = create_router_r1(pool, controller, models=given, context=context).compile()
    return graph.invoke(QUESTION)


def make_trace(result: dict[str, Any] | None = None, **changes: Any) -> Trace:
    options = {"pool": make_pool(), "controller": "scripted", "context": CONTEXT, **changes}
    return Trace.from_state(result or run(), **options)


def without_times(trace: Trace) -> Any:
    """Return a trace as JSON data without what depends on how long it took."""
    # With a deadline, observations say the seconds left, and decisions' digests are of these too.
    timed = {"seconds", "waited_seconds"} | (
        {"digest"} if trace.context.deadline_seconds else set()
    )

    def still(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: still(v) for k, v in value.items() if k not in timed}
        if isinstance(value, str):
            return re.sub(r"(\(left: .*), \d+\.\d s\b", r"\1", value)
        return [still(v) for v in value] if isinstance(value, list) else value

    return still(json.loads(trace.model_dump_json()))


# ---------------------------------------------------------------------------------- from a state


def test_a_trace_holds_what_came_out_of_the_run():
    result = run()
    trace = make_trace(result, id="q1", gold=["Paris"], metadata={"split": "test"})
    assert trace.question == QUESTION["question"]
    assert (trace.answer, trace.stop_reason, trace.rounds) == ("Paris \u2028 🦉", "answered", 2)
    assert list(trace.scratchpad) == result["scratchpad"][1:]
    assert trace.ledger == result["ledger"]
    assert (trace.id, trace.gold, trace.metadata) == ("q1", ("Paris",), {"split": "test"})
    assert (trace.controller, trace.context) == ("scripted", CONTEXT)
    assert [c.name for c in trace.pool.candidates] == ["Ada", "Bob"]


def test_the_turns_are_what_the_controller_wrote():
    assert make_trace().turns == SCRIPT


def test_the_calls_are_those_with_a_reply_or_an_error_by_round():
    calls = make_trace().calls
    assert [(c.round, c.candidate, c.query, c.ok, c.cached) for c in calls] == [
        (1, "Ada", "capital of France?", True, False),
        (1, "Bob", "capital?", False, False),
        (2, "Ada", "capital of France?", True, True),
        (2, "Bob", "which: one?", True, False),
    ]
    assert calls[0].reply == calls[2].reply == "reply to capital of France?"
    assert (calls[0].error, calls[1].error) == (None, "connection: ConnectionError: gone")
    assert (calls[0].input_tokens, calls[0].output_tokens) == (10, 5)
    assert calls[0].cost_usd == pytest.approx(20e-6)


def test_a_summary_is_one_json_object_whose_calls_add_up_to_its_ledger():
    summary = json.loads(json.dumps(make_trace().summary()))
    assert list(summary) == ["question", "answer", "stop_reason", "rounds", "calls", "ledger"]
    assert set(summary["calls"][0]) == {
        *("round", "candidate", "query", "reply", "ok", "error", "cached"),
        *("input_tokens", "output_tokens", "cost_usd", "seconds", "stored", "saved_usd"),
        "thoughts",
    }
    assert set(summary["ledger"]) == {
        *("cost_usd", "candidates_cost_usd", "controller_cost_usd"),
        *("input_tokens", "output_tokens", "seconds", "calls", "failed_calls"),
        *("stored_calls", "saved_usd"),
        *("uncertain_attempts", "uncertain_usd"),  # of the connection that went
    }
    assert summary["ledger"]["calls"] == 3
    assert summary["ledger"]["failed_calls"] == 1
    assert summary["ledger"]["cost_usd"] == pytest.approx(
        sum(call["cost_usd"] for call in summary["calls"])
    )


def test_the_state_of_a_checkpoint_makes_the_same_trace():
    pool = make_pool()
    thread = {"configurable": {"thread_id": "1"}}
    graph = create_router_r1(pool, ScriptedController(SCRIPT), models=models(pool)).compile(
        checkpointer=InMemorySaver()
    )
    result = graph.invoke(QUESTION, thread)
    assert make_trace(graph.get_state(thread).values) == make_trace(result)


@pytest.mark.parametrize("node", ["think", "route", "aggregate"])
def test_an_unfinished_run_makes_no_trace(node):
    pool = make_pool()
    thread = {"configurable": {"thread_id": "1"}}
    graph = create_router_r1(pool, ScriptedController(SCRIPT), models=models(pool)).compile(
        checkpointer=InMemorySaver(), interrupt_before=[node]
    )
    graph.invoke(QUESTION, thread)
    with pytest.raises(TraceError, match="this run has not finished"):
        make_trace(graph.get_state(thread).values)


def test_the_messages_of_an_agent_make_no_trace():
    pool = make_pool()
    agent = create_router_r1_agent(pool, ScriptedController(SCRIPT), models=models(pool))
    with pytest.raises(TraceError):
        make_trace(agent.invoke({"messages": [("user", "?")]}))


@pytest.mark.parametrize(
    ("controller", "reason"),
    [
        (PaidController([search("Ada: ?"), ReplyError("auth", "401")]), "controller_error"),
        (PaidController(["no tags"]), "invalid"),
        (PaidController([search("Ada: ?")], usd=0.6), "budget_usd"),
        (PaidController([search("Ada: ?")], seconds=3599), "deadline"),
        (PaidController([ReplyError("auth", "401")]), "controller_error"),
    ],
)
def test_a_run_that_went_wrong_makes_a_trace_too(controller, reason):
    trace = make_trace(run(controller))
    assert trace.stop_reason == reason
    assert Trace.model_validate_json(trace.model_dump_json()) == trace


def test_a_trace_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        make_trace().answer = "Lyon"


# --------------------------------------------------------------------------------------- secrets


def test_a_trace_holds_the_descriptors_and_no_way_to_reach_anybody():
    pool = make_pool(
        {
            "name": "Ada",
            "base_url": "http://secret.example/v1",
            "api_key_env": "ADA_SECRET",
            "options": {"organization": "secret-organization"},
            "strengths": ["maps"],
        },
        "Bob",
        controller={
            "model": "m",
            "base_url": "http://secret.example/v2",
            "api_key_env": "CONTROLLER_SECRET",
        },
    )
    trace = make_trace(pool=pool)
    stored = trace.model_dump_json().lower()
    assert "secret" not in stored
    assert trace.pool.candidates[0].describe() == pool.candidates[0].describe()
    assert trace.pool.candidates[0].input_usd_per_mtok == 1.0


# ---------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize("changes", [{}, {"deadline_seconds": None, "explore": 0.5, "seed": 3}])
def test_a_trace_is_enough_to_run_it_again(changes):
    context = replace(CONTEXT, **changes)
    trace = make_trace(run(context=context), context=context)
    recorded = {(c.candidate, c.query): c for c in trace.calls}

    def replies_of(name: str) -> FakeChat:
        def reply(query: str) -> str | Exception:
            call = recorded[name, query]
            return call.reply if call.ok else ConnectionError("gone")

        return FakeChat(text=reply)

    given = {c.name: replies_of(c.name) for c in trace.pool.candidates}
    again = run(ScriptedController(trace.turns), trace.pool, given, trace.context)
    replayed = Trace.from_state(
        again, pool=trace.pool, controller=trace.controller, context=trace.context
    )
    assert without_times(replayed) == without_times(trace)


# ----------------------------------------------------------------------------------------- files


def test_traces_come_back_from_a_file_as_they_were(tmp_path):
    traces = [make_trace(id=str(n), gold=["a", "b"], metadata={"hops": n}) for n in range(3)]
    file = tmp_path / "traces.jsonl"
    assert write_traces(file, iter(traces)) == 3
    assert list(read_traces(file)) == traces
    assert len(file.read_text(encoding="utf-8").split("\n")) == 4


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, TEXTS, TEXTS, st.lists(TEXTS))
def test_texts_of_any_kind_come_back_from_a_line(question, text, reply, gold):
    trace = make_trace(LONG_RESULT, gold=gold).model_copy(
        update={
            "question": question,
            "scratchpad": (
                AIMessage(text, additional_kwargs={"completion_ids": [1, 2], "logprobs": [-0.5]}),
                ToolMessage(reply, tool_call_id="1", artifact={"reply": reply}),
            ),
        }
    )
    line = trace.model_dump_json()
    assert "\n" not in line
    assert Trace.model_validate_json(line) == trace


LONG_RESULT = run()


def test_traces_are_appended_or_written_anew(tmp_path):
    file = tmp_path / "traces.jsonl"
    first, second, third = (make_trace(LONG_RESULT, id=name) for name in "abc")
    write_traces(file, [first])
    write_traces(file, [second], append=True)
    assert list(read_traces(file)) == [first, second]
    write_traces(file, [third])
    assert list(read_traces(file)) == [third]


def test_a_folder_of_compressed_files_is_read_in_order_and_a_torn_one_is_named(tmp_path):
    traces = [make_trace(LONG_RESULT, id=name) for name in "ab"]
    for number, trace in enumerate(traces, 1):
        write_traces(tmp_path / f"00000{number}-0.jsonl.gz", [trace])
    (tmp_path / "notes.txt").write_text("no traces")
    assert list(read_traces(tmp_path)) == traces
    shown = cli("traces", "show", tmp_path, "--id", "b")
    assert shown.stdout.count("question  ") == 1
    by = traces[0].controller
    for options, missing in [
        (["--id", "c", "--controller", by], "no question 'c' is in it"),
        (["--id", "a", "--controller", f"{by}x"], f"'{by}x' is in it (did you mean {by!r}?)"),
    ]:
        refused = cli("traces", "show", tmp_path, *options)
        assert refused.returncode == 2
        assert missing in refused.stderr
    (tmp_path / "none.jsonl").write_text("")
    refused = cli("traces", "show", tmp_path / "none.jsonl")
    assert (refused.returncode, refused.stderr.count("no trace is in it")) == (2, 1)
    (tmp_path / "none.jsonl").unlink()
    last = tmp_path / "000002-0.jsonl.gz"
    last.write_bytes(last.read_bytes()[:-20])  # as a kill leaves it
    with pytest.raises(TraceError, match=r"000002-0\.jsonl\.gz, line 1: .*broken"):
        list(read_traces(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TraceError, match="no trace files"):
        list(read_traces(tmp_path / "empty"))


def test_a_trace_is_in_the_file_as_soon_as_it_is_made(tmp_path):
    file = tmp_path / "traces.jsonl"

    def traces():
        yield make_trace(LONG_RESULT)
        assert len(list(read_traces(file))) == 1
        yield make_trace(LONG_RESULT)

    assert write_traces(file, traces()) == 2


def test_traces_are_read_one_at_a_time(tmp_path):
    file = tmp_path / "traces.jsonl"
    trace = make_trace()
    file.write_text(trace.model_dump_json() + "\nbroken\n", encoding="utf-8")
    reader = read_traces(file)
    assert next(reader) == trace
    with pytest.raises(TraceError):
        next(reader)


def test_empty_lines_are_skipped(tmp_path):
    file = tmp_path / "traces.jsonl"
    file.write_text("\n" + make_trace().model_dump_json() + "\n\n", encoding="utf-8")
    assert len(list(read_traces(file))) == 1


def test_a_missing_file_is_named(tmp_path):
    file = tmp_path / "nowhere.jsonl"
    with pytest.raises(TraceError) as raised:
        list(read_traces(file))
    assert str(raised.value) == f"{file}: no such trace file"


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(make_trace().model_dump_json()) | changes)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("broken", "not a trace: "),
        ('{"version": 1', "not a trace: "),
        ("[]", "not a trace: "),
        ("7", "not a trace: "),
        ("null", "not a trace: "),
        ('{"question": "?"}', "not a trace: "),
        ("[" * 100_000, "not a trace: "),
        (b"\xff\xfe", "not a trace: "),
        (changed(version=TRACE_VERSION + 1), "trace version 2; this release reads version 1"),
        (changed(version="1"), "trace version '1'; this release reads version 1"),
        (changed(question=7), "question: a text is wanted, not 7"),
        (changed(unknown=7), "unknown key unknown = 7"),
        (
            changed(scratchpad=[{"type": "system", "content": "x"}]),
            "scratchpad[0]: 'type': human, ai or tool is wanted, not 'system'",
        ),
        (changed(context={"max_rounds": "2"}), "context: max_rounds is a whole number"),
        (changed(stop_reason="bored"), "stop_reason: "),
        (json.dumps({"version": 1}), "question: is missing"),
    ],
    ids=lambda value: repr(value)[:20],  # the same in every process: traces say how long it took
)
def test_a_broken_line_is_named_with_its_file_and_number(tmp_path, line, says):
    file: Path = tmp_path / "traces.jsonl"
    line = line if isinstance(line, bytes) else line.encode()
    file.write_bytes(make_trace().model_dump_json().encode() + b"\n\n" + line + b"\n")
    reader = read_traces(file)
    next(reader)
    with pytest.raises(TraceError) as raised:
        next(reader)
    assert str(raised.value).startswith(f"{file}, line 3: {says}")
    assert len(str(raised.value)) < len(str(file)) + 300


IN_LEDGER, IN_BILL = ("ledger", "candidates", "Ada"), ("scratchpad", 1, "artifact")


@pytest.mark.parametrize(
    ("place", "field", "value", "says"),
    [
        (IN_LEDGER, "cost_usd", -5, "must be at least 0, not -5"),
        (IN_LEDGER, "cost_usd", 1e308, "must be at most 1000000000, not 1e+308"),
        (IN_LEDGER, "cost_usd", float("nan"), "a finite number is wanted, not nan"),
        (IN_LEDGER, "saved_usd", -1e-9, "must be at least 0, not -1e-09"),
        (IN_LEDGER, "seconds", -1, "must be at least 0, not -1"),
        (IN_LEDGER, "input_tokens", 1.5, "a whole number is wanted, not 1.5"),
        (IN_LEDGER, "output_tokens", -1, "must be at least 0, not -1"),
        (IN_LEDGER, "calls", 10**30, "must be at most 100000000000000, not 10"),
        (("ledger", "controller"), "cost_usd", -5, "must be at least 0, not -5"),
        (("ledger",), "seconds", 1e300, "must be at most 1000000000, not 1e+300"),
        (IN_BILL, "cost_usd", 1e308, "must be at most 1000000, not 1e+308"),
        (IN_BILL, "seconds", -1, "must be at least 0, not -1"),
        (IN_BILL, "input_tokens", 10**9, "must be at most 100000000, not 1000000000"),
        ((), "rounds", -1, "must be at least 0, not -1"),
    ],
)
def test_an_amount_that_cannot_be_is_refused_by_line_and_field(tmp_path, place, field, value, says):
    data = json.loads(make_trace().model_dump_json())
    inside = data
    for name in place:
        inside = inside[name]
    assert field in inside
    inside[field] = value
    file = tmp_path / "traces.jsonl"
    file.write_text(json.dumps(data) + "\n")
    where = ("bills", 0) if place == IN_BILL else place
    path = "".join(f"[{part}]" if part == 0 else f"{part}." for part in where)
    named = f"{path.rstrip('.')}.{field}" if where else field
    with pytest.raises(TraceError) as raised:
        list(read_traces(file))
    assert str(raised.value).startswith(f"{file}, line 1: {named.replace('.[', '[')}: {says}")


OLD_CONTEXT = (
    '{"cost_weight": 0.5, "deadline_seconds": 2e6, "budget_usd": 1e15, "approve_above_usd": 1e13, '
    '"max_rounds": 4, "seed": 1180591620717411303424}'
)
OLD_CANDIDATE = (
    '{"name": "Ada", "max_tokens": 9999999999, "max_concurrency": 10000000, '
    '"requests_per_minute": 1e-9, "tokens_per_minute": 1e-4, "timeout_seconds": 5e-4, '
    '"breaker_seconds": 1e300, "usd_per_call": 5000.0, "latency_seconds": 1e9, '
    '"benchmarks": {"x": 1e12, "y": 0.5}}'
)


def test_settings_that_earlier_releases_wrote_down_are_read_within_todays_ranges(tmp_path):
    file = tmp_path / "traces.jsonl"
    pool = {"name": "pool", "candidates": [json.loads(OLD_CANDIDATE)]}
    whole = json.loads(make_trace().model_dump_json())
    whole |= {"context": json.loads(OLD_CONTEXT), "pool": pool, "scratchpad": []}
    file.write_text(json.dumps(whole) + "\n")
    (trace,) = read_traces(file)
    assert trace.context == RouterContext(
        **{"deadline_seconds": 2e6, "budget_usd": 1e12, "approve_above_usd": 1e12},
        seed=2**63 - 1,
    )
    (ada,) = trace.pool.candidates
    assert ada == Candidate(
        **{"name": "Ada", "max_tokens": 2**31 - 1, "max_concurrency": 10**7},
        **{"requests_per_minute": 1e-6, "tokens_per_minute": 1e-4, "timeout_seconds": 5e-4},
        **{"breaker_seconds": 2**31 - 1, "usd_per_call": 1000, "latency_seconds": 1e6},
        benchmarks={"x": 1e9, "y": 0.5},
    )
    assert Trace.read(json.loads(trace.model_dump_json())) == trace
    ((again, _),) = read_results(file)  # of an evaluation that is resumed
    assert again == trace
    assert RouterContext.from_state(json.loads(OLD_CONTEXT)) == trace.context  # of a checkpoint
    old = {"context": json.loads(OLD_CONTEXT), "pool": pool, "controller": "scripted"}
    made = Trace.from_state({**run(), "router_r1": old})
    assert (made.context, made.pool) == (trace.context, trace.pool)


def test_settings_that_are_given_today_are_not_bent():
    for name, value in json.loads(OLD_CANDIDATE).items():
        if name in ("max_tokens", "requests_per_minute", "breaker_seconds", "usd_per_call"):
            with pytest.raises(ValidationError):
                CandidatePool.model_validate({"candidates": [{"name": "Ada", name: value}]})
    for name in ("budget_usd", "approve_above_usd", "seed"):
        with pytest.raises(ConfigError, match=name):
            RouterContext(**{name: json.loads(OLD_CONTEXT)[name]})


def test_one_wrong_candidate_of_a_trace_has_one_error():
    pool = {"candidates": [{"name": "Ada", "max_retries": "often"}]}
    with pytest.raises(TraceError) as raised:
        Trace.read(json.loads(changed(pool=pool)))
    assert str(raised.value) == (
        "pool.candidates[0].max_retries: a whole number is wanted, not 'often'"
    )


def test_a_trace_of_a_pool_from_a_file_is_read_back_equal(tmp_path):
    pool = CandidatePool.embedded()
    state = (
        create_router_r1(pool, KeywordController())
        .compile()
        .invoke({"question": "Who wrote Emma?"})
    )
    trace = Trace.from_state(state, pool=pool, controller="keyword")
    write_traces(tmp_path / "t.jsonl", [trace])
    assert list(read_traces(tmp_path / "t.jsonl")) == [trace]
