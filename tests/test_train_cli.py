"""`router-r1 train`: the same program as `training/finetune.py`, and a config to begin with."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import yaml

from extras import needs

needs("train")

from in_process import cli, program
from router_r1_graph import ConfigError
from training.config import load_config
from training.items import draw_items
from training.program import CONFIGS, _only_run_in

POOL = """
name: mine
candidates:
  - {name: Small, base_url: "http://127.0.0.1:1/v1", input_usd_per_mtok: 1, output_usd_per_mtok: 2}
  - {name: Large, base_url: "http://127.0.0.1:1/v1", input_usd_per_mtok: 9, output_usd_per_mtok: 9}
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.yaml").write_text(POOL)
    rows = [{"question": f"What is {n} + 1?", "golden_answers": [str(n + 1)]} for n in range(60)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def init(folder, *more):
    return cli(
        "train", "init", "--pool", "mine.yaml", "--questions", "mine.jsonl", *more, cwd=folder
    )


def test_init_writes_a_commented_config_that_can_be_run(mine, monkeypatch):
    run = init(mine, "--model", "some/model", "--budget-usd", "2.5")
    assert run.returncode == 0, run.stderr
    assert "router-r1 train train.yaml" in run.stdout
    monkeypatch.chdir(mine)
    config = load_config(mine / "train.yaml", ["grpo.steps=3"])
    assert config.budget_usd == 2.5
    assert config.model.pretrained == "some/model"
    assert [str(file) for file in config.data.files] == ["mine.jsonl"]
    assert config.data.pools == ("mine.yaml",)
    assert config.data.vary.names == 0.5
    assert config.data.vary.prices == 0  # what real endpoints cost stays as it is
    text = (mine / "train.yaml").read_text()
    assert sum("#" in line for line in text.splitlines()) > 15
    assert set(yaml.safe_load(text)) >= {"out", "budget_usd", "model", "data", "grpo"}


@pytest.mark.parametrize("count", [4, 30])
def test_init_of_few_questions_can_be_run_too(mine, count, monkeypatch):
    rows = (mine / "mine.jsonl").read_text().splitlines()[1 : count + 1]
    (mine / "mine.jsonl").write_text("\n".join(rows))
    run = init(mine)
    assert run.returncode == 0, run.stderr
    monkeypatch.chdir(mine)
    config = load_config(mine / "train.yaml")
    held_out = draw_items(config.data, config.held_out_questions, 0, split="test")
    assert bool(held_out) == bool(config.evaluate_questions) == bool(config.grpo.validate_every)
    assert len(held_out) + len({item.question for item in draw_items(config.data, 40, 0)}) >= count


@pytest.mark.parametrize("out", ["v2: mine.yaml", "run #1.yaml", "a" + " long name" * 20 + ".yaml"])
def test_init_writes_to_a_file_of_any_name(mine, out, monkeypatch):
    run = init(mine, "--out", out)
    assert run.returncode == 0, run.stderr
    monkeypatch.chdir(mine)
    assert load_config(mine / out).out == Path("runs") / Path(out).stem
    assert shlex.quote(out) in run.stdout.replace("\n", " ")


@pytest.mark.parametrize("price", [{}, {"output_usd_per_mtok": 2}])
def test_init_varies_the_prices_that_there_are(mine, price, monkeypatch):
    record = {"question": "q?", "candidate": "Ada", "reply": "x"}
    (mine / "records.jsonl").write_text(json.dumps(record))
    replayed = {"provider": "recorded", "options": {"records": "records.jsonl"}, **price}
    pool = {"candidates": [{"name": "Ada", **replayed}, {"name": "Bob", **replayed}]}
    (mine / "mine.yaml").write_text(yaml.safe_dump(pool))
    assert init(mine).returncode == 0
    monkeypatch.chdir(mine)
    config = load_config(mine / "train.yaml")
    assert config.data.vary.prices == (0.5 if price else 0)
    assert draw_items(config.data, 3, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "train.yaml").touch(), "train.yaml: is there already"),
        (lambda folder: (folder / "mine.yaml").unlink(), "mine.yaml"),
        (
            lambda folder: (folder / "mine.jsonl").write_text('{"question": "q"}\n'),
            "mine.jsonl:1: no gold answer",
        ),
    ],
)
def test_init_says_what_is_wrong_and_writes_nothing(mine, change, message):
    change(mine)
    run = init(mine)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert not (mine / "train.yaml").exists() or (mine / "train.yaml").read_text() == ""


def test_the_command_is_the_program_of_the_checkout(mine):
    wrong = (f"out={mine}/run", "grpo.steps=oops")
    by_command = cli("train", "smoke", *wrong, cwd=mine)
    smoke = CONFIGS / "smoke.yaml"
    by_file = program(CONFIGS.parent / "finetune.py", "--config", smoke, *wrong)
    assert by_command.returncode == by_file.returncode == 2
    assert "grpo.steps" in by_command.stderr
    assert by_command.stderr == by_file.stderr
    missing = cli("train", "nowhere.yaml", cwd=mine)
    assert missing.returncode == 2
    assert "nowhere.yaml: no such config file; or name a shipped one: demo, qwen" in missing.stderr


@pytest.mark.parametrize(
    ("wrong", "near"), [("smok", "smoke"), ("demoo", "demo"), ("reprot", "report")]
)
def test_a_config_that_is_nearly_shipped_is_named(tmp_path, wrong, near):
    told = cli("train", wrong, cwd=tmp_path)
    assert told.returncode == 2
    assert f"{wrong}: no such config file (did you mean '{near}'?); or name" in told.stderr
    assert "smoke, smollm2" in told.stderr


@pytest.mark.parametrize(
    "variable",
    [
        *("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"),
        "ACCELERATE_USE_PARALLELISM_CONFIG",
    ],
)
@pytest.mark.parametrize("stages", ["warm_start", "best_of_n", "warm_start,grpo"])
def test_sharded_weights_are_refused_before_any_stage(tmp_path, monkeypatch, variable, stages):
    monkeypatch.setenv(variable, "true")
    told = cli("train", "smoke", f"out={tmp_path}/run", f"stages=[{stages}]", cwd=tmp_path)
    assert told.returncode == 2
    assert "splits a model over GPUs" in told.stderr
    assert not told.stdout
    assert [file.name for file in (tmp_path / "run").rglob("*")] == [".lock"]


def entered(folder):
    try:
        with _only_run_in(folder):
            return ""
    except ConfigError as error:
        return str(error)


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    def other():
        """Enter the folder from another process; return what refuses it."""
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as processes:
            return processes.submit(entered, tmp_path).result()

    with _only_run_in(tmp_path):
        assert f"another run (process {os.getpid()})" in other()
    assert other() == ""
