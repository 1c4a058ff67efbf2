"""The benchmark for a lent GPU, in its reduced form: every path of it runs on a CPU."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from extras import needs

needs("train")

import torch
import trl.generation.vllm_generation

import vllm_stand_in
from benchmarks import gpu
from benchmarks.gpu_figures import Figures, Outcome, Step, table
from benchmarks.gpu_training import train_part
from benchmarks.gpu_wheels import MOST_BYTES, ON_THE_MACHINE, lacking, too_large

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]
ROOT = Path(__file__).parent.parent


def check(figures):
    assert len(figures.steps) == 2
    assert figures.parameters
    assert figures.peak_bytes > 100_000_000
    for step in figures.steps:
        assert min(step.generate, step.graph, step.train, step.rest) > 0
        assert step.generate + step.graph + step.train + step.rest == pytest.approx(step.seconds)
        assert 0 < step.sampled_tokens < step.trained_tokens


def test_the_script_names_a_part_that_cannot_be_measured(tmp_path):
    if find_spec("vllm"):
        pytest.skip("vLLM is installed")
    done = subprocess.run(
        ["bash", ROOT / "benchmarks" / "gpu.sh", "--reduced", "vllm"],
        env={**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "vllm: not installed here, not run" in done.stdout
    record = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [one["part"] for one in record["parts"]] == ["vllm"]


@pytest.mark.long
def test_each_part_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    # Where no CUDA is, a fork will do, which imports nothing anew.
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(gpu.multiprocessing, "get_context", lambda _: fork)
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu.main(["--reduced", "policy"]) == 0
    assert "| policy |" in capsys.readouterr().out
    record = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    [figures] = [one["figures"] for one in record["parts"] if one["figures"]]
    check(Figures(**{**figures, "steps": [Step(**step) for step in figures["steps"]]}))


@pytest.mark.long
@pytest.mark.parametrize("part", ["random", "vllm"])
def test_random_weights_are_trained_and_sampled_with_and_without_vllm(part, tmp_path, monkeypatch):
    """TRL's own loop; what it takes from vLLM is done by transformers here."""
    torch.set_num_threads(1)
    theirs = trl.generation.vllm_generation
    monkeypatch.setattr(theirs, "is_vllm_available", lambda: True)
    for name in ("LLM", "SamplingParams"):
        monkeypatch.setattr(theirs, name, getattr(vllm_stand_in, name), raising=False)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # TRL sets them for vLLM; put back afterwards
        monkeypatch.delenv(name)
    train_part(part, True, time.monotonic() + 300, tmp_path)
    check(Figures.read(tmp_path))


def test_a_part_without_figures_is_named_below_the_table():
    figures = Figures("H0", 7_000_000, 2**30, (Step(9, 9, 9, 9, 9, 9), Step(4, 2, 1, 0.5, 40, 100)))
    text = table([Outcome("random", figures), Outcome("vllm", note="failed", failed=True)])
    assert "| random | 7.0M | 2 | 4.00 | 20 | 200 | 1.00 | 50% | 25% | 12% | 12% |" in text
    assert "vllm: failed" in text


def test_what_is_carried_is_what_the_machine_lacks():
    carried = lacking("3.12")
    assert {"trl", "datasets", "langgraph", "langchain-core", "pydantic-core"} <= set(carried)
    assert not set(carried) & ({"vllm", "triton", "router-r1-graph"} | ON_THE_MACHINE)
    assert not too_large(7_000_000, MOST_BYTES - 7_000_000)
    assert "64.0 MB) are more than the 64 MB" in too_large(1, MOST_BYTES)
