"""A LangGraph application of one's own as what is rolled out: traces of the router inside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from extras import needs

needs("train")

import own_app
from fakes import answer, search
from in_process import cli
from openai_server import Reply
from router_r1_graph import (
    ConfigError,
    ReplyStore,
    RouterContext,
    ScriptedController,
    read_traces,
    write_traces,
)
from router_r1_graph.cost_scales import AbsoluteCost
from router_r1_graph.rewards import reward
from test_grpo import DEMO, SETTINGS, asked_of, config, learner, lines, options, questions
from training.config import ModelConfig, RewardConfig, load_config
from training.errors import OutsideError
from training.grpo import run_grpo
from training.outcomes import Outcomes, judgement_of
from training.own_graph import OwnGraph
from training.rollouts import roll_out, why_left_out
from training.run import Run
from training.spending import Spending, StageBill
from training.stages import measure

pytestmark = [
    pytest.mark.timeout(600),
    # TRL still uses the old names of transformers.
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

ROOT = Path(__file__).parent.parent
SCRIPT = (search("Quillora: Who wrote Hamlet?"), answer("Ann"))


def run_of(name, *turns, items=None, **more):
    script = ScriptedController([*(turns or SCRIPT)])
    return roll_out(items or questions(1), script, graph=OwnGraph(f"own_app:{name}"), **more)


def test_a_run_leaves_the_routers_trace_and_the_applications_final_state():
    [item] = questions(1)
    context = RouterContext(cost_weight=0.7, max_rounds=2, seed=9)
    [one] = run_of("letter", items=[replace(item, context=context)])
    assert one.turns == [*SCRIPT]
    assert (one.id, one.gold, one.question) == (item.id, item.gold, item.question)
    assert one.context == context  # the knobs of the question, inside any schema
    assert one.metadata["graph"] == {
        "question": item.question,
        "reply": "Dear reader, it is Ann.",
        "words": 5,
    }


def test_the_router_is_found_as_a_node_and_messages_are_its_input():
    [one] = run_of("chat")
    assert one.turns == [*SCRIPT]
    messages = one.metadata["graph"]["messages"]
    assert [message["content"] for message in messages] == [
        one.question,
        "Ann",
        "You are welcome.",
    ]
    assert one.model_validate_json(one.model_dump_json()) == one


def test_of_several_runs_in_one_each_is_paid_and_one_that_the_seed_draws_is_learned():
    [item] = questions(1)
    asked, paid = set(), []
    for seed in range(4):
        items = [replace(item, context=replace(item.context, seed=seed))]
        [one] = run_of("twice", items=items, done=paid.append)
        [again] = run_of("twice", items=items)
        assert one.question == again.question
        asked.add(one.question)
    assert asked == {item.question, "Who wrote Ann?"}
    assert len(paid) == 8


def test_which_of_several_runs_is_learned_does_not_depend_on_which_is_the_first(monkeypatch):
    [item] = questions(1)
    items = [replace(item, context=replace(item.context, seed=seed)) for seed in range(6)]

    def learned(*waits):
        monkeypatch.setattr(own_app, "WAITS", waits)
        return [one.question for one in run_of("both", items=items)]

    assert learned(0, 0.05) == learned(0.05, 0)
    assert len(set(learned(0, 0))) == 2


@pytest.mark.parametrize("name", ["odd", "odd_error"])
def test_a_state_or_error_that_no_file_can_hold_is_written_all_the_same(name, tmp_path):
    found = run_of(name)
    write_traces(tmp_path / "t.jsonl", found)
    assert list(read_traces(tmp_path / "t.jsonl")) == found
    assert "letter" in str(found[0].metadata)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("never", "the graph never asked the router"),
        ("breaks", "the graph failed: ConnectionError: the database is away"),
        ("waits", "the graph waits for a person (an interrupt)"),
    ],
)
def test_a_run_of_which_nothing_can_be_learned_says_why(name, why):
    [one] = run_of(name, outcomes=Outcomes(RewardConfig.model_validate("own_app:fixed")))
    assert why_left_out(one) == why
    assert judgement_of(one) == {}  # nobody pays to judge it


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "own_app:other: its input has neither 'question' nor 'messages', but 'item'"),
        ("none", "own_app:none: it returned NoneType, not a StateGraph of LangGraph"),
        ("broken", "own_app:broken: it cannot be made: ValueError: no such index"),
        ("letters", "module 'own_app' has no 'letters'.*did you mean 'letter'"),
    ],
)
def test_a_graph_that_cannot_be_asked_is_named(name, message):
    with pytest.raises(ConfigError, match=message):
        run_of(name)


@pytest.mark.long
def test_grpo_trains_the_router_by_the_outcome_of_the_application(tmp_path):
    rules = RewardConfig.model_validate(
        {"functions": ["own_app:short"], "scale": "absolute", "usd": 1e-4}
    )
    spending = Spending(tmp_path / "spending")
    run_grpo(
        learner(),
        questions(2),
        config(),
        graph=OwnGraph("own_app:letter"),
        outcomes=Outcomes(rules, spending),
        **options(tmp_path, rules=rules) | {"spending": spending},
    )
    [line] = [line for line in lines(tmp_path) if "reward" in line]
    assert line["grad_norm"] > 0
    traces = list(read_traces(tmp_path / "traces" / "000001-0.jsonl.gz"))
    assert len(traces) == 16
    outcomes = [1 / one.metadata["graph"]["words"] for one in traces]
    assert line["outcome/short/short"] == pytest.approx(sum(outcomes) / 16, abs=1e-5)
    rewards = [
        reward(one, AbsoluteCost(1e-4), outcome=worth).total
        for one, worth in zip(traces, outcomes, strict=True)
    ]
    assert line["reward"] == pytest.approx(sum(rewards) / 16, abs=1e-5)
    assert spending.total_usd() == pytest.approx(0.016)


@pytest.mark.long
def test_grpo_with_several_runs_in_one_has_a_row_for_each_rollout(tmp_path):
    rules = RewardConfig.model_validate("own_app:fixed")
    run_grpo(
        learner(),
        questions(1),
        config(questions=1, micro_batch=8),
        graph=OwnGraph("own_app:twice"),
        outcomes=Outcomes(rules),
        **options(tmp_path, rules=rules),
    )
    traces = list(read_traces(tmp_path / "traces" / "000001-0.jsonl.gz"))
    assert len(traces) == 8
    assert len({one.question for one in traces}) > 1


def test_an_application_that_never_asks_the_router_stops_the_run(tmp_path):
    rules = RewardConfig.model_validate("own_app:fixed")
    with pytest.raises(OutsideError, match=r"(?s)nothing to learn.*never asked the router"):
        run_grpo(
            learner(),
            questions(1),
            config(questions=1, micro_batch=8),
            graph=OwnGraph("own_app:never"),
            outcomes=Outcomes(rules),
            **options(tmp_path, rules=rules),
        )


def test_replies_inside_the_application_are_stored_and_paid_once(tmp_path, serve):
    server = serve(Reply("Carel Fabritius"))
    with ReplyStore(tmp_path / "replies.sqlite") as store:
        for _ in range(2):
            [one] = run_of("letter", items=asked_of(server), replies=store)
    assert len(server.requests) == 1
    assert one.calls[0].ok


@pytest.mark.parametrize(
    ("name", "runs"), [("chat", 1), ("twice", 2), ("threads", 1), ("breaks", 1)]
)
def test_what_the_router_pays_is_on_the_bill_wherever_it_is_asked_from(name, runs, tmp_path, serve):
    server = serve(Reply("Carel Fabritius", input_tokens=40, output_tokens=30))
    bill = StageBill(Spending(tmp_path), "grpo")
    run_of(name, items=asked_of(server), bill=bill)
    assert len(server.requests) == bill.spending.by_stage()["grpo"].calls == runs
    assert bill.spending.total_usd() == pytest.approx(1e-4 * runs)


def test_a_config_names_the_graph_and_what_is_measured_goes_through_it(tmp_path):
    asked = [{"question": one.question} for one in questions(8)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, asked)))
    known = {k: v for k, v in SETTINGS.items() if k in ModelConfig.model_fields}
    (tmp_path / "train.yaml").write_text(
        f"""
out: {tmp_path}/run
stages: [grpo]
graph: own_app:letter
reward: own_app:short
model: {json.dumps({**known, "pretrained": str(DEMO)})}
data: {{source: files, files: [{tmp_path}/q.jsonl], pools: [embedded], held_out: 0.5}}
evaluate_questions: 2
"""
    )
    run = Run(load_config(tmp_path / "train.yaml"))
    run.check()
    run.folder("grpo").mkdir(parents=True)
    measured = measure(run, learner(), "grpo")
    first, *_ = read_traces(run.folder("grpo") / "test_traces.jsonl")
    assert first.metadata["graph"]["reply"].startswith("Dear reader")
    assert all(0 < row["outcome"] < 1 for row in measured)
    with pytest.raises(ConfigError, match="graph own_app:lettr"):
        Run(load_config(tmp_path / "train.yaml", ["graph=own_app:lettr"])).check()


@pytest.mark.long
def test_the_example_trains_by_its_letters(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    small = ["grpo.steps=1", "grpo.questions=2", "grpo.micro_batch=16", "evaluate_questions=2"]
    file = ROOT / "examples" / "19_train_own_graph" / "train.yaml"
    run = cli("train", file, f"out={tmp_path}/run", *small)
    assert run.returncode == 0, run.stderr
    [step] = [line for line in lines(tmp_path / "run") if "reward" in line]
    assert 0.5 < step["outcome/helpful/right"] <= 1
    assert step["outcome/helpful/short"] > 0
    assert "outcome" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
