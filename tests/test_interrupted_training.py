"""A run that was stopped, cut off or given another config: what it says, and how it goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from extras import needs

needs("train")

import torch
from langsmith.utils import get_env_var, tracing_is_enabled
from safetensors.torch import load_file, save_file
from transformers import TrainerControl, TrainerState

import router_r1_graph
from openai_server import OpenAIServer, Reply, Status
from router_r1_graph import (
    CandidatePool,
    ConfigError,
    RouterContext,
    ScriptedController,
)
from router_r1_graph.files import write_whole
from training.best_of_n import best_of_n
from training.checkpoints import last_checkpoint
from training.config import load_config
from training.errors import BudgetSpentError, OutsideError
from training.files import append_line, read_whole, replace_whole, whole_lines
from training.items import Item
from training.models import load_learner
from training.program import CONFIGS
from training.record import changes, remember
from training.rollouts import judged_of, roll_out
from training.run import Run
from training.signals import give_back, take_signals
from training.spending import Spending, StageBill
from training.teacher_traces import warm_traces
from training.watch import Watch

SMOKE = CONFIGS / "smoke.yaml"
DEMO = Path(router_r1_graph.__file__).parent / "policies" / "demo"
SETTINGS = json.loads((DEMO / "router_r1.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (b"", [], "out is missing"),
        (b"- out: x", ["seed=1"], "a config is keys with values, such as 'out: runs/mine'"),
        (b"hello", ["seed=1"], "not a single value ('hello')"),
        (b"out: [a", [], "not a YAML file: while parsing"),
        (b"out: 2026-99-99", [], "not a YAML file: "),
        (bytes(range(256)), [], "not a YAML file in UTF-8"),
        (b"out: x", ["seed=["], "'seed=[': the value is not YAML"),
        (b"out: x", ["grpo..steps=1"], "an override is key=value"),
        (b"out: x\nsteps: 3", [], "unknown key steps (did you mean grpo.steps?)"),
        (b"out: x\ngrpo: {rounds: }", [], "unknown key grpo.rounds (did you mean best_of_n."),
        (b"out: x\ngrpo: 3", [], "grpo: a section is wanted, keys with values"),
        (b"out: x\nstages: grpo", [], "stages: a list is wanted, such as [grpo]"),
        (b"out: x", ["grpo.learning_rate=.inf"], "grpo.learning_rate: Input should be a finite"),
        (b"out: x", ["budget_usd=.inf"], "budget_usd: Input should be a finite"),
        (b"out: x", ["grpo.steps=1000000000000"], "grpo.steps"),
        (b"out: x", ["seed=-1"], "seed"),
        (b"out: x", ["stages=[grpo, warm_start]"], "warm_start begins with a new model"),
        (b"out: x", ["stages=[grpo, grpo]"], "each can be named once"),
        (b"out: x", ["model.stop=['']"], "model.stop.0"),
        (b"out: x", ["model.max_new_tokens=4096"], "does not fit in max_context_tokens: 4096"),
        (b"out: x", ["model.scratch={hidden_size: 30, heads: 4}"], "no multiple of 2 * heads"),
    ],
)
def test_a_config_of_another_shape_is_refused_in_one_line(tmp_path, text, overrides, message):
    file = tmp_path / "c.yaml"
    file.write_bytes(text)
    with pytest.raises(ConfigError) as raised:
        load_config(file, overrides)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_is_no_config_an_empty_section_has_defaults_and_a_run_leaves_a_config(tmp_path):
    with pytest.raises(ConfigError, match="a folder; name the config file in it"):
        load_config(tmp_path)
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbfout: x\ngrpo:\n  # steps: 3\nbudget_usd:\n")
    assert load_config(file, ["grpo.group=4"]).grpo.group == 4
    config = load_config(file, [f"out={tmp_path / 'run'}"])
    config.out.mkdir()
    remember(config)
    assert load_config(config.out / "config.yaml") == config


def test_a_run_goes_on_under_its_own_settings_only(tmp_path):
    begun = [f"out={tmp_path}", "stages=[warm_start, grpo]"]
    remember(load_config(SMOKE, begun))
    assert changes(load_config(SMOKE, [*begun, "seed=1"])) == []  # nothing has begun
    (tmp_path / "warm_start").mkdir()
    for other in ("seed=1", "data.held_out=0.5", "reward=f1", "model.scratch.layers=3"):
        with pytest.raises(ConfigError, match=f"began with another {other.split('=')[0]}"):
            changes(load_config(SMOKE, [*begun, other]))
    with pytest.raises(ConfigError, match="did warm_start first, and stages begins with grpo"):
        changes(load_config(SMOKE, [*begun, "stages=[grpo]"]))
    longer = [*begun, "stages=[warm_start]", "grpo.steps=9", "budget_usd=3"]
    assert changes(load_config(SMOKE, longer)) == ["grpo.steps: 2 -> 9", "budget_usd: None -> 3.0"]
    (tmp_path / "warm_start" / "done.json").write_text("[]")
    late = changes(load_config(SMOKE, [*begun, "warm_start.epochs=9"]))
    assert late == ["warm_start.epochs: 2.0 -> 9.0 (too late: warm_start is done)"]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"config": {"out": "x", "of": "another"}}, r"is of another version .*unknown key of"),
        ({"config": 7}, "is of another version"),
        ({}, "cannot be read"),
        ("[", "cannot be read"),
    ],
)
def test_a_run_whose_record_cannot_be_compared_does_not_go_on_under_other_settings(
    tmp_path, record, why
):
    config = load_config(SMOKE, [f"out={tmp_path}", "stages=[warm_start, grpo]"])
    text = record if isinstance(record, str) else yaml.safe_dump(record)
    (tmp_path / "config.yaml").write_text(text)
    assert changes(config) == []  # nothing has begun
    (tmp_path / "grpo").mkdir()
    with pytest.raises(ConfigError, match=f"out {tmp_path}: the run there .*{why}"):
        changes(config)
    assert (tmp_path / "config.yaml").read_text() == text


def test_files_of_a_run_are_never_half_a_file(tmp_path):
    lines, whole = tmp_path / "m.jsonl", tmp_path / "state.json"
    append_line(lines, {"stage": "a", "step": 1})
    with lines.open("a") as file:
        file.write('{"stage": "b", "st')  # torn by a kill or a full disk
    append_line(lines, {"stage": "c", "loss": torch.tensor(0.5)})
    assert json.loads(lines.read_text().splitlines()[-1]) == {"stage": "c", "loss": 0.5}

    def fails(part):
        part.write_text("half")
        raise OSError("No space left on device")

    write_whole(whole, "{}")
    with pytest.raises(OSError, match="No space"):
        replace_whole(whole, fails)
    assert read_whole(whole) == {}
    whole.write_text('{"0": ')  # by a power cut
    assert read_whole(whole) is None
    assert read_whole(tmp_path / "none.json") is None

    lines.write_bytes(b"1\n2\n3\n4\n5\n6")
    assert whole_lines(lines, 5, 2) == 5
    assert lines.read_bytes() == b"1\n2\n3\n4\n5\n"
    assert whole_lines(lines, 6, 2) == 4  # of the last batch, one line is there
    assert whole_lines(tmp_path / "none", 6, 2) == 0


def test_a_line_that_a_killed_run_has_written_is_not_written_again(tmp_path):
    config = load_config(CONFIGS / "smoke.yaml", [f"out={tmp_path}"])
    for learned in (3, 3):
        Run(config).log_once("warm_start_rows", 0, {"learned": learned})
    Run(config).log_once("warm_start_rows", 1, {"learned": 4})
    for weight in (0, 0.5, 0.5):
        Run(config).log_once("grpo_test", 0, {"cost_weight": weight})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["learned"]) for line in lines[:2]] == [(0, 3), (1, 4)]
    assert [line["cost_weight"] for line in lines[2:]] == [0, 0.5]


def test_a_run_that_goes_on_behind_its_last_step_sums_it_up_once(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    state = TrainerState()
    for steps in ([1, 2, 3], []):  # the second time, the last one is done
        watch = Watch(metrics, "grpo")
        watch.on_train_begin(None, state, TrainerControl())
        for state.global_step in steps:
            watch.on_log(None, state, TrainerControl(), logs={"loss": 0.5})
        watch.on_log(None, state, TrainerControl(), logs={"train_runtime": 1.0})
        watch.on_train_end(None, state, TrainerControl())
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line.get("loss") for line in lines] == [0.5, 0.5, 0.5, None]


def test_a_policy_that_a_disk_has_no_room_for_is_an_error_of_the_disk(tmp_path):
    learner = load_learner(load_config(SMOKE, [f"model={{pretrained: {DEMO}}}"]).model)
    (tmp_path / "model.safetensors").mkdir()  # the writer's error is of the same kind
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        learner.save(tmp_path)


def test_teachers_traces_go_on_behind_a_torn_line(tmp_path):
    run = Run(load_config(SMOKE, [f"out={tmp_path}", "warm_start.traces=12"]))
    undisturbed = [t.turns for t in warm_traces(run)()]
    file = tmp_path / "warm_start" / "traces.jsonl"
    os.truncate(file, file.stat().st_size - 40)
    assert [t.turns for t in warm_traces(run)()] == undisturbed


def test_a_broken_checkpoint_is_passed_over(tmp_path, caplog):
    assert last_checkpoint(tmp_path) is None
    for step in (5, 10, 15, 20, 25):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"w": torch.zeros(9)}, folder / "model.safetensors")
        torch.save({}, folder / "optimizer.pt")
        (folder / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-25" / "trainer_state.json").unlink()  # written last
    os.truncate(tmp_path / "checkpoint-20" / "model.safetensors", 80)
    os.truncate(tmp_path / "checkpoint-15" / "optimizer.pt", 80)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert "checkpoint-20/model.safetensors is broken" in caplog.text
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text('{"epo')
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_best_of_n_goes_on_to_the_same_weights(tmp_path):
    config = load_config(
        SMOKE,
        [
            f"out={tmp_path}",
            f"model={{pretrained: {DEMO}, stop: ['</answer>'], max_new_tokens: 64}}",
            "reward={scale: absolute, usd: 0.0001}",
            "best_of_n.rounds=2",
            "best_of_n.teacher_questions=0",
            "best_of_n.questions=3",
            "best_of_n.epochs=3",  # the first of its steps only warms up
            "best_of_n.batch_size=1",
            "best_of_n.gradient_accumulation=2",
            "best_of_n.environment_weight=0.1",  # of tokens that are drawn
            "best_of_n.save_steps=1",
            "best_of_n.learning_rate=0.0001",
            "data.cost_weights=[0.5]",
            "stages=[best_of_n]",
        ],
    )

    def policy():
        learner = best_of_n(Run(config), load_learner(config.model))
        return {name: p.detach() for name, p in learner.model.named_parameters()}

    whole = policy()
    folder = tmp_path / "best_of_n"
    kept = [folder / "traces" / name for name in ("000001.jsonl.gz", "000002.jsonl.gz")]
    times = [file.stat().st_mtime_ns for file in kept]
    first = load_file(folder / "checkpoints" / "001" / "policy" / "model.safetensors")
    assert any(not torch.equal(whole[name], first[name]) for name in whole if name in first)
    # As a kill in the second round leaves it: at its last step but one, where an epoch begins.
    (folder / "progress.json").write_text('{"round": 1, "scale": {}}')
    second = folder / "checkpoints" / "002"
    shutil.rmtree(second / "policy")
    shutil.rmtree(last_checkpoint(second))
    state = json.loads(Path(last_checkpoint(second), "trainer_state.json").read_text())
    assert state["epoch"] == 2
    stopped = policy()
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert [file.stat().st_mtime_ns for file in kept] == times  # nothing was sampled again


class Page:
    """What a gateway in front of an endpoint says."""

    def send(self, request, http):
        http.send(200, b"<html>sign in</html>", content_type="text/html")


@pytest.fixture
def asked(tmp_path):
    """Items whose one candidate is at a server, and a controller that asks it."""
    with OpenAIServer(Reply("x", cost=0.5)) as server:
        (tmp_path / "p.yaml").write_text(
            f"name: p\ncandidates: [{{name: A, model: a, base_url: '{server.base_url}', "
            "input_usd_per_mtok: 1, output_usd_per_mtok: 1}]\n"
        )
        pool = CandidatePool.from_yaml(tmp_path / "p.yaml")
        yield (
            server,
            [Item(str(n), f"q{n}?", ("x",), pool, RouterContext(max_rounds=2)) for n in range(9)],
        )


def test_nothing_is_asked_any_more_once_the_budget_is_spent(asked, tmp_path):
    server, items = asked
    spending = Spending(tmp_path / "spending", 1.0)
    with pytest.raises(BudgetSpentError, match=r"grpo: budget_usd = \$1.00: .* are paid"):
        roll_out(
            items,
            ScriptedController(["<search>A: q?</search>", "<answer>x</answer>"]),
            in_flight=2,
            bill=StageBill(spending, "grpo"),
        )
    assert spending.total_usd() == 0.5 * server.count()  # those that ran were finished
    assert 2 <= server.count() <= 4


def test_candidates_of_which_none_replies_stop_a_run_however_few_are_asked(asked):
    server, items = asked
    asking = ScriptedController(["<search>A: q?</search>", "<answer>x</answer>"])
    silent = roll_out(items[1:], ScriptedController(["<answer>x</answer>"]))
    replied = roll_out(items[:1], asking)
    assert len(judged_of([*silent, *replied], "test")) == 9
    for answer in (Status(401), Status(402, "no credit"), Status(404), Page()):
        server.answer = answer
        failed = roll_out(items[:1], asking)
        with pytest.raises(OutsideError, match=r"1 of 9 rollouts .* no candidate replied: A"):
            judged_of([*silent, *failed], "test")
        assert len(judged_of([*silent, *failed, *replied], "test")) == 9
    # Of a refusal, one query may be the cause: many have to be refused, and nobody to reply.
    for answer in (Status(400), Reply("")):
        server.answer = answer
        failed = [roll_out(items[:1], asking)[0] for _ in range(8)]
        assert len(judged_of([*silent, *failed[:1]], "test")) == 9
        assert len(judged_of([*failed, *replied], "test")) == 9
        with pytest.raises(OutsideError, match=r"none of 8 rollouts that asked .*; the last: A"):
            judged_of([*silent, *failed], "test")


def test_langsmith_gets_no_rollout_whatever_the_environment_says(asked, monkeypatch):
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    get_env_var.cache_clear()
    try:
        assert tracing_is_enabled()
        seen = []
        silent = ScriptedController(["<answer>x</answer>"])
        roll_out(asked[1][:1], silent, done=lambda _: seen.append(tracing_is_enabled()))
        assert seen == [False]
    finally:
        get_env_var.cache_clear()


def test_a_terminal_that_is_closed_stops_a_run_and_nohup_does_not():
    seen = []
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        handlers = take_signals(lambda number, _: seen.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        give_back(handlers)
        assert seen == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        give_back(take_signals(lambda number, _: seen.append(number)))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
