"""Decisions in logs, other controllers judged by them, and a shadow beside a served router."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from extras import needs
from fakes import make_pool, models
from in_process import cli
from patience import wait_until
from router_r1_graph import (
    CandidatePool,
    ChatRouterR1,
    ConfigError,
    RouterContext,
    TraceError,
    create_router_r1,
    exact_match,
    parse_controller,
)
from router_r1_graph.budget import Left
from router_r1_graph.cli.off_policy import show_judged
from router_r1_graph.controllers import View
from router_r1_graph.decisions import decide, replayed
from router_r1_graph.protocol import Call
from router_r1_graph.trace import Trace, read_traces, write_traces

POOL = CandidatePool.embedded()
QUESTIONS = 40


@pytest.fixture(scope="module")
def questions():
    needs("eval")
    from router_r1_graph.evaluation.questions import Reader

    return Reader(["demo"], {}, {}, QUESTIONS, 0, False).read()


def run(questions, spec, **knobs):
    graph = create_router_r1(POOL, spec, context=RouterContext(**knobs)).compile()
    return [
        Trace.from_state(graph.invoke({"question": q.question}), id=q.id, gold=q.gold)
        for q in questions
    ]


@pytest.mark.parametrize(
    ("spec", "budget"), [("random", None), ("vote", 0.0005), ("keyword", 0.0005)]
)
def test_each_decision_has_its_probabilities_and_is_made_again_from_its_digest(
    questions, spec, budget
):
    some = questions[:8]
    for trace in run(some[:2], spec, budget_usd=budget):
        for decision in trace.decisions:
            assert decision.asked == decision.proposed
            assert decision.probability == (1 / len(POOL.candidates) if spec == "random" else 1)
    for trace in run(some, spec, budget_usd=budget, explore=0.5):
        trace = Trace.model_validate_json(trace.model_dump_json())
        asked = [call.candidate for call in trace.calls if not call.cached]
        assert [decision.asked for decision in trace.decisions] == asked
        for decision in trace.decisions:
            assert sum(decision.probabilities.values()) == pytest.approx(1)
            assert decision.probability > 0
        assert all(logged == again for logged, again in replayed(*_known(trace)))
        assert budget is None or trace.summary()["ledger"]["cost_usd"] <= budget
        other = replace(trace.context, seed=1)
        changed = list(replayed(trace.question, other, trace.scratchpad))
        assert all(logged.digest != again.digest for logged, again in changed)


def _known(trace):
    return trace.question, trace.context, trace.scratchpad


def test_the_draws_come_as_often_as_the_log_says():
    context, ada = RouterContext(explore=0.4), "Ada"
    others, asked = ["Bo", "Cy", "Di"], []
    for number in range(2000):
        view = View(f"question {number}", POOL, context, Left(4))
        asked.append(decide(Call(ada, "what?"), "call_0_0", ada, others, view))
    assert asked[0].probabilities == pytest.approx({ada: 0.7} | dict.fromkeys(others, 0.1))
    for name, chance in asked[0].probabilities.items():
        share = sum(decision.asked == name for decision in asked) / len(asked)
        assert abs(share - chance) < 4 * (chance * (1 - chance) / len(asked)) ** 0.5


@pytest.mark.parametrize("count", [20, pytest.param(QUESTIONS, marks=pytest.mark.long)])
def test_logs_tell_what_they_can_and_say_so_where_they_cannot(questions, tmp_path, count):
    """Whoever is judged by exploring logs is found where a real run finds it, and no closer."""
    from router_r1_graph.evaluation.off_policy import judge

    logs, questions = tmp_path / "logs.jsonl", questions[:count]
    write_traces(logs, run(questions, "constant:Hearthwyn", explore=0.8))
    specs = ["constant:Magnivor", "constant:Hearthwyn", "cheapest", "random", "keyword", "cascade"]
    options = [part for spec in specs for part in ("--controller", spec)]
    judged = json.loads(cli("evaluate", "--off-policy", logs, *options, "--json").stdout)
    assert judged["runs"] == count
    rows = {row["controller"]: row for row in judged["rows"]}
    for spec in ("constant:Magnivor", "cheapest"):
        truth = run(questions, spec)
        score = sum(exact_match(t.answer, t.gold) for t in truth) / count
        cost = sum(t.summary()["ledger"]["cost_usd"] for t in truth) / count
        for name in ("ips", "snips", "dr"):
            assert rows[spec]["score"][name]["low"] <= score <= rows[spec]["score"][name]["high"]
        assert rows[spec]["cost_usd"]["dr"]["low"] <= cost <= rows[spec]["cost_usd"]["dr"]["high"]
        assert rows[spec]["lost"] == 0
    assert rows["random"]["lost"] == 0
    assert rows["keyword"]["lost"] > 0.5  # splits a question, which the log never did
    assert "cannot tell" in rows["keyword"]["verdict"]

    # Runs of several calls, each explored: what the same rule does where nothing is.
    write_traces(logs, run(questions, "keyword", explore=0.3))
    judged = json.loads(
        cli("evaluate", "--off-policy", logs, "--controller", "keyword", "--json").stdout
    )
    (row,) = judged["rows"]
    truth = run(questions, "keyword")
    score = sum(exact_match(t.answer, t.gold) for t in truth) / count
    assert max(len(trace.decisions) for trace in truth) > 2
    assert judged["logged_score"] < score
    assert row["lost"] == 0
    for name in ("ips", "snips", "dr"):
        assert row["score"][name]["low"] <= score <= row["score"][name]["high"]

    write_traces(logs, run(questions, "constant:Hearthwyn"))
    shown = cli("evaluate", "--off-policy", logs, "--controller", "cheapest").stdout
    assert "cannot tell for 100% of the questions" in shown
    assert "--explore" in shown
    logged = judge(read_traces(logs), [parse_controller("constant:Hearthwyn", POOL)])
    for width, columns in ((80, False), (160, True)):
        console = Console(file=io.StringIO(), force_terminal=True, no_color=True, width=width)
        show_judged(logged, console)
        shown = console.file.getvalue()
        assert "Hearthwyn" in shown.splitlines()[1]
        assert ("SNIPS" in shown, "…" in shown) == (columns, False)
    bare = [trace.model_copy(update={"gold": ()}) for trace in read_traces(logs)]
    write_traces(logs, bare)
    refused = cli("evaluate", "--off-policy", logs, "--controller", "cheapest")
    assert refused.returncode == 2
    assert f"no gold answer: {count}); name a file with their questions" in refused.stderr
    joined = cli("evaluate", "demo", "--limit", count, "--off-policy", logs, "--json").stdout
    assert len(json.loads(joined)["rows"]) == len(POOL.candidates)


BROKEN = {
    "0.0": ({"Ada": 0.0, "Bob": 1.0}, "the probability of 'Ada' is 0, and only"),
    "negative": ({"Ada": -0.2, "Bob": 1.2}, "probabilities.Ada: must be at least 0, not -0.2"),
    "above 1": ({"Ada": 5, "Bob": 0.5}, "probabilities.Ada: must be at most 1, not 5"),
    "nan": ({"Ada": math.nan, "Bob": 0.5}, "probabilities.Ada: a finite number is wanted"),
    "a text": ({"Ada": "0.5", "Bob": 0.5}, "probabilities.Ada: a number is wanted, not '0.5'"),
    "a switch": ({"Ada": True}, "probabilities.Ada: a number is wanted, not true"),
    "none": ({}, "'Bob' was asked, and has no probability; mend the line"),
    "not the asked one": ({"Ada": 1.0}, "'Bob' was asked, and has no probability"),
    "a hundredth": ({"Ada": 0.005, "Bob": 0.005}, "add up to 0.01, not to 1; mend the line"),
    "missing": (None, "probabilities: is missing"),
}


@pytest.mark.parametrize(("chances", "says"), BROKEN.values(), ids=BROKEN)
def test_probabilities_that_no_draw_can_have_are_refused_by_line(tmp_path, chances, says):
    needs("eval")
    from router_r1_graph.evaluation.run import read_results

    rows = [json.loads(logged().model_dump_json()) for _ in range(2)]
    (decision,) = rows[1]["scratchpad"][0]["response_metadata"]["router_r1"]["decisions"]
    decision |= {"asked": "Bob", "probabilities": chances}
    if chances is None:
        del decision["probabilities"]
    logs = tmp_path / "results.jsonl"
    logs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = cli("evaluate", "--off-policy", logs, "--controller", "constant:Ada")
    assert refused.returncode == 2
    assert f"{logs}, line 2: decisions[0]" in refused.stderr
    assert says in refused.stderr
    with pytest.raises(TraceError, match=re.escape(says)):
        list(read_results(logs))  # of a run that is resumed, or reported


def a_turn(row: dict) -> dict:
    return row["scratchpad"][0]["response_metadata"]


def other_than(name: str) -> str:
    return "Bob" if name == "Ada" else "Ada"


def asks_another(row: dict) -> None:
    (decision,) = a_turn(row)["router_r1"]["decisions"]
    decision["asked"] = other_than(decision["asked"])


def bills_another(row: dict) -> None:
    bill = row["scratchpad"][1]["artifact"]
    bill["candidate"] = other_than(bill["candidate"])


UNREADABLE = {
    "another asked": (asks_another, "is 'asked', but"),
    "another billed": (bills_another, "is 'asked', but"),
    "proposed": (
        lambda row: a_turn(row)["router_r1"]["decisions"][0].update(proposed="Ghost"),
        "decisions[0]: proposed: no candidate 'Ghost'",
    ),
    "another call": (
        lambda row: a_turn(row)["router_r1"]["decisions"][0].update(call="call_9"),
        "decisions[0]: there is no call 'call_9' in its turn; mend the line",
    ),
    **{
        f"decisions {wrong!r}": (
            lambda row, wrong=wrong: a_turn(row)["router_r1"].update(decisions=wrong),
            "router_r1[0]: 'decisions' is a list, not " + type(wrong).__name__ + "; mend the line",
        )
        for wrong in (5, "abc", {"a": 1}, True)
    },
    **{
        f"router_r1 {wrong!r}": (
            lambda row, wrong=wrong: a_turn(row).update(router_r1=wrong),
            "router_r1[0]: mend or remove the 'router_r1' of the message: it is an object, not ",
        )
        for wrong in (5, "abc", [1])
    },
}


@pytest.mark.parametrize(("breaks", "says"), UNREADABLE.values(), ids=UNREADABLE)
def test_decisions_that_do_not_fit_their_run_are_refused_by_line(tmp_path, breaks, says):
    needs("eval")
    rows = [json.loads(logged().model_dump_json()) for _ in range(2)]
    breaks(rows[1])
    logs = tmp_path / "results.jsonl"
    logs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = cli("evaluate", "--off-policy", logs, "--controller", "constant:Ada")
    assert refused.returncode == 2
    assert f"{logs}, line 2: " in refused.stderr
    assert says in refused.stderr


def test_a_call_that_a_person_sent_elsewhere_can_still_be_read(tmp_path):
    trace = logged()
    row = json.loads(trace.model_dump_json())
    bills_another(row)
    row["context"]["approve_above_usd"] = 0.0
    assert Trace.read(row).decisions == trace.decisions


def test_questions_without_words_are_judged_with_a_constant_model(tmp_path):
    needs("eval")
    pool = make_pool()
    graph = create_router_r1(
        pool, "constant:Ada", models=models(pool), context=RouterContext(explore=0.5)
    ).compile()
    runs = [graph.invoke({"question": "?" * n}) for n in range(1, 41)]
    write_traces(tmp_path / "logs.jsonl", [Trace.from_state(run, gold=["x"]) for run in runs])
    judged = cli("evaluate", "--off-policy", tmp_path / "logs.jsonl", "--json")
    assert judged.returncode == 0, judged.stderr
    rows = {row["controller"]: row for row in json.loads(judged.stdout)["rows"]}
    assert rows["constant:Ada"]["score"]["dr"]["mean"] is not None
    assert rows["constant:Ada"]["effective"] > 10


def logged(**probabilities: float) -> Trace:
    """Return a run whose one call was explored."""
    pool = make_pool()
    graph = create_router_r1(
        pool, "constant:Ada", models=models(pool), context=RouterContext(explore=0.5)
    )
    trace = Trace.from_state(graph.compile().invoke({"question": "Who wrote Emma?"}), gold=["x"])
    if probabilities:
        (decision,) = trace.scratchpad[0].response_metadata["router_r1"]["decisions"]
        decision |= {"asked": next(iter(probabilities)), "probabilities": probabilities}
    return trace


def test_keys_of_a_newer_release_and_hardly_possible_draws_stop_no_estimate(tmp_path):
    needs("eval")
    trace = logged(Ada=1 - 1e-200, Bob=1e-200)
    (decision,) = trace.scratchpad[0].response_metadata["router_r1"]["decisions"]
    decision["of_tomorrow"] = 1
    write_traces(tmp_path / "logs.jsonl", [trace])
    (read,) = read_traces(tmp_path / "logs.jsonl")
    assert read.decisions == trace.decisions
    assert read.decisions[0].probabilities == {"Ada": 1.0, "Bob": 1e-200}
    judged = cli("evaluate", "--off-policy", tmp_path / "logs.jsonl", "--json")
    rows = {row["controller"]: row for row in json.loads(judged.stdout)["rows"]}
    assert (rows["constant:Ada"]["lost"], rows["constant:Bob"]["lost"]) == (0, 1)
    assert "only 1 run can be counted for it, and about 30" in rows["constant:Ada"]["verdict"]


@pytest.mark.parametrize("runs", [1, 2, 5, 20])
def test_an_estimate_of_few_runs_lies_in_its_interval_and_both_are_possible(runs):
    """A rare draw weighs so much that a mean of few runs may be beyond all that can be."""
    needs("eval")
    import numpy as np

    from benchmarks.off_policy import coverage
    from router_r1_graph.evaluation.off_policy_estimates import Logs, estimate

    for seed in range(50):
        rng = np.random.default_rng(seed)
        hit = rng.random(runs) < 0.3
        weights = np.where(hit, 40.0, 0.0)[:, None]
        outcomes = rng.integers(0, 2, runs).astype(float)
        logs = Logs(
            groups=np.arange(runs) // 2,
            weights=weights,
            asked=hit.astype(int)[:, None],
            chosen=np.tile([0.0, 1.0], (runs, 1, 1)),
            squares=np.full(runs, 40.0),
            fourths=np.full(runs, 40.0**3),
            lost=rng.choice([0.0, 0.3], runs),
            outcomes=outcomes,
            logged=outcomes,
            vectors=np.eye(runs),
        )
        for high in (1.0, np.inf):
            found = estimate(logs, 0.0, high)
            for one, low in (
                (found.ips, 0),
                (found.snips, 0),
                (found.dr, 0),
                (found.difference, -high),
            ):
                assert low <= one.low <= one.high <= high
                assert one.low <= one.mean <= one.high or np.isnan(one.mean)
                assert high > 1 or one.high - one.low > 0.9  # so few runs tell next to nothing
    assert min(coverage(worlds=50, runs=runs, rate=0.5, candidates=3).values()) >= 93


def test_runs_of_one_question_count_as_one():
    needs("eval")
    from router_r1_graph.evaluation.off_policy import judge

    pool = make_pool()
    (row,) = judge([logged(Ada=1.0)] * 40, [parse_controller("constant:Ada", pool)]).rows
    assert row.effective == 1


def test_a_budget_that_lets_a_candidate_never_be_explored_is_said(tmp_path):
    needs("eval")
    given = ("--controller", "cheapest", "--explore", "1", "--question-budget-usd", "0.002")
    run = cli("evaluate", "demo", "--limit", "3", *given, "--no-controls", "--out", tmp_path)
    assert "one call to Orrinthal or Magnivor may cost more than the budget of $0.00" in run.stderr
    logs = ("--off-policy", tmp_path / "results.jsonl", "--controller", "constant:Magnivor")
    assert "could not ask; did --budget-usd allow them?" in cli("evaluate", *logs).stdout


def test_feedback_counts_for_the_answer_that_got_it(questions):
    from router_r1_graph.evaluation.off_policy import judge

    traces = [
        trace.model_copy(update={"metadata": {"feedback": {"thumbs": float(i % 4 == 0)}}})
        for i, trace in enumerate(run(questions[:20], "constant:Hearthwyn", explore=0.3))
    ]
    with pytest.raises(ConfigError, match=r"no feedback 'thumb': \d+; there is thumbs\)"):
        judge(traces, [parse_controller("constant:Hearthwyn", POOL)], feedback="thumb")
    found = judge(traces, [parse_controller("constant:Hearthwyn", POOL)], feedback="thumbs")
    (row,) = found.rows
    assert found.logged_score == 0.25
    assert row.score.dr.low < 0.25 < row.score.dr.high
    assert not row.lost


@pytest.mark.parametrize("calls", [1, 2])
def test_in_100_worlds_the_truth_is_in_the_interval_at_least_93_times(calls):
    needs("eval")
    from benchmarks.off_policy import coverage

    found = coverage(worlds=100, runs=400, rate=0.2, candidates=4, calls=calls)
    assert min(found.values()) >= 93, found


def test_a_shadow_is_counted_and_asks_nobody_for_what_is_on_record(tmp_path):
    from served import ask, get, serving_at  # skips without the extra 'serve'

    def metric(url, name):
        found = re.search(rf"^router_r1_{name} (\S+)$", get(f"{url}/metrics"), re.MULTILINE)
        return float(found[1])

    logs = tmp_path / "served.jsonl"
    model = ChatRouterR1(pool="embedded", controller="keyword", explore=0.0)
    with serving_at(model, shadow="keyword", traces=logs) as url:
        first = ask(url)
        assert ask(url, stream=True)
        list(ask(url, stream=True))
        wait_until(lambda: metric(url, "shadow_questions_total") == 3)
        assert ask(url).router_r1["stored_calls"] == 0  # the router itself asks every time
        wait_until(lambda: metric(url, "shadow_questions_total") == 4)
        assert metric(url, "shadow_paid_usd_total") == 0
        assert metric(url, "shadow_same_calls_total") == metric(url, "shadow_same_answers_total")
        assert metric(url, "shadow_cost_difference_usd") == pytest.approx(0)
        assert metric(url, "shadow_cost_usd_total") >= 3 * first.router_r1["cost_usd"] - 1e-12
    assert [len(trace.decisions) for trace in read_traces(logs)] == [3] * 4
    with serving_at(model, shadow="constant:Magnivor") as url:
        ask(url)
        wait_until(lambda: metric(url, "shadow_questions_total") == 1)
        assert metric(url, "shadow_paid_usd_total") > 0
        assert metric(url, "shadow_same_calls_total") == 0
