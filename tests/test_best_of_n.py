"""Best of n: which rows it learns, what it says about the others, and the traces that it keeps."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace

import pytest

from extras import needs

needs("train")

from fakes import answer
from in_process import cli
from router_r1_graph import (
    CandidatePool,
    ConfigError,
    ScriptedController,
    Trace,
    create_router_r1,
    read_traces,
    write_traces,
)
from tiny_policy import make_llama, make_tokenizer
from training.best_of_n import _best_rows, best_of_n, rows_from_before
from training.config import load_config
from training.judge import Judge
from training.learned_rows import LeftOut
from training.models import load_learner
from training.program import CONFIGS
from training.run import Run
from training.stages import measure

POOL = CandidatePool.embedded()
WORDY = f"<think> {'so much ' * 300}</think> <answer> Shakespeare </answer>"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a model of random weights."""
    folder, tokenizer = tmp_path_factory.mktemp("tiny"), make_tokenizer()
    make_llama(vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run_of(tiny, tmp_path):
    """Make a run of best of n over a file of questions, one of which has a very long prompt."""
    asked = [
        {"id": f"q{n}", "question": f"Who wrote book {n}?", "golden_answers": ["x"]}
        for n in range(5)
    ]
    asked.append({"id": "endless", "question": "Who " * 4000, "golden_answers": ["x"]})
    for name in ("train", "test"):
        rows = [row | {"question": f"{name}: {row['question']}"} for row in asked]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def make(*overrides):
        data = {
            "source": "files",
            "files": [f"{tmp_path}/train.jsonl"],
            "eval_files": [f"{tmp_path}/test.jsonl"],
            "pools": ["embedded"],
            "max_rounds": [1],
        }
        model = {"pretrained": str(tiny), "max_new_tokens": 4, "max_context_tokens": 8000}
        return Run(
            load_config(
                CONFIGS / "smoke.yaml",
                [
                    f"out={tmp_path}/run",
                    "stages=[best_of_n]",
                    f"data={json.dumps(data)}",
                    f"model={json.dumps(model)}",
                    "best_of_n={rounds: 1, questions: 6, samples: 2, max_length: 9000}",
                    "grpo.validate_cost_weights=[0, 0.5]",
                    "evaluate_questions=6",
                    *overrides,
                ],
            )
        )

    return make


def trace(id, *turns, gold=("Shakespeare",)):
    graph = create_router_r1(POOL, ScriptedController(list(turns))).compile()
    state = graph.invoke({"question": "Who wrote Hamlet?"})
    return Trace.from_state(state, id=id, gold=gold)


def test_earlier_traces_are_chosen_as_a_warm_start_chooses_them(run_of, tmp_path, capsys):
    good, wrong = trace("good", answer("Shakespeare")), trace("wrong", answer("Marlowe"))
    empty = good.model_copy(update={"id": "turnless", "scratchpad": ()})
    write_traces(tmp_path / "t.jsonl", [empty, wrong, trace("wordy", WORDY), good])
    files = f"warm_start={{trace_files: [{tmp_path}/t.jsonl], max_length: 9000}}"
    run = run_of(files, "best_of_n.keep=1")
    learner = load_learner(run.config.model)
    right, wordy = rows_from_before(run, learner)[::-1]
    short = len(right["input_ids"])
    assert short < len(wordy["input_ids"])
    out = capsys.readouterr().out
    assert "best_of_n: 1 trace left out, which have no turn: 'turnless'" in out
    assert "whose answer is wrong (warm_start.correct_only): 'wrong'" in out
    run = run_of(files, "best_of_n.keep=1", f"best_of_n.max_length={short}")
    assert rows_from_before(run, learner) == [right]
    assert f"more than best_of_n.max_length = {short} tokens: 'wordy'" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="best_of_n: no trace is left to learn from; see above"):
        rows_from_before(run_of(files, "best_of_n.keep=1", "best_of_n.max_length=9"), learner)
    assert rows_from_before(run_of(files, "best_of_n.keep=0"), learner) == []


def test_a_best_trace_that_is_too_long_is_counted_named_and_left_out(run_of, capsys):
    run = run_of()
    learner = load_learner(run.config.model)
    groups = [
        [trace(name, text), trace(name, answer("Marlowe"))]
        for name, text in (("short", answer("Shakespeare")), ("wordy", WORDY), ("wordy", WORDY))
    ]
    judge, rng, left_out = Judge(run.config.reward), random.Random(0), LeftOut()
    every = [row for one in groups for row in _best_rows(one, judge, learner, rng, 9000, left_out)]
    assert (len(every), len(left_out)) == (3, 0)
    most = len(every[0]["input_ids"])
    rows = [row for one in groups for row in _best_rows(one, judge, learner, rng, most, left_out)]
    assert rows == every[:1]
    left_out.tell("best_of_n")
    told = (
        f"best_of_n: 2 traces left out, which have more than best_of_n.max_length = {most} tokens"
    )
    assert capsys.readouterr().out == f"{told}: 'wordy'\n"


@pytest.mark.long
def test_a_round_keeps_its_traces_and_a_killed_run_reads_them_again(run_of, capsys):
    run = run_of()
    folder = run.folder("best_of_n")
    file = folder / "traces" / "000001.jsonl.gz"

    def sampled():
        (folder / "progress.json").unlink(missing_ok=True)  # as a kill in the round leaves it
        best_of_n(run, load_learner(run.config.model))
        return [(t.id, t.turns) for t in read_traces(file)], file.stat().st_mtime_ns

    traces, written = sampled()
    assert len(traces) == 12
    assert traces[0] != traces[1]
    assert {id for id, _ in traces} == {f"q{n}" for n in range(5)}
    out = capsys.readouterr().out
    assert "best_of_n: 1 question left out, whose prompt has 8000 tokens" in out
    assert ": 'endless' (" in out
    assert "no trace of round 1 is learned; the policy stays as it is" in out
    assert cli("traces", "show", str(folder / "traces")).returncode == 0
    assert sampled() == (traces, written)
    os.truncate(file, 900)
    again, later = sampled()
    assert (again, later > written) == (traces, True)
    write_traces(file, [*read_traces(file)][::-1])  # of other settings
    assert sampled()[0] == traces


def test_a_measurement_leaves_out_prompts_that_are_too_long(run_of, capsys):
    run = run_of()
    run.folder("best_of_n").mkdir(parents=True)
    learner = load_learner(run.config.model)
    assert [row["questions"] for row in measure(run, learner, "best_of_n")] == [5, 5]
    told = "best_of_n_test: 1 question left out, whose prompt has 8000 tokens"
    assert told in capsys.readouterr().out
    learner.settings = replace(learner.settings, max_context_tokens=50)
    with pytest.raises(ConfigError, match="best_of_n_test: the prompt of every question has 50"):
        measure(run, learner, "best_of_n")
    with pytest.raises(ConfigError, match="best_of_n: the prompt of every question has 50"):
        best_of_n(run, learner)
