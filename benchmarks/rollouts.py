"""What rollouts through the graph gain: over TRL's own loop, by batching and by kept caches.

    python -m benchmarks.rollouts [POLICY_FOLDER] [--part loops] [--latency] [--questions 256]

Without a folder, a random model of the demo's shape is used: its turns run to their limit, which is
the worst case for batching. It asks nobody, so the loops are compared with the shipped policy.
Ratios of one run; the model's threads are set to 1. One question at a time keeps one core busy; all
together are rolled out in one process, and in one for each core, each with its share of the
questions, as `torchrun` trains. `--latency` compares the loops with slow candidates, too: ten
minutes, since TRL's asks for one question after another.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from router_r1_graph.controllers.policy.folder import SHIPPED
from training.config import DataConfig, GRPOConfig, ModelConfig, RewardConfig
from training.grpo import run_grpo
from training.items import Item, draw_items
from training.models import Learner, load_learner, make_learner
from training.rollouts import roll_out
from training.spending import Spending

from .loops import compare, drawn_items

QUESTIONS, SAMPLES = 32, 8


def learner_of(folder: str | None) -> Learner:
    """Return the policy in a folder, or a random one."""
    if folder:
        config = ModelConfig(stop=("</answer>",), max_new_tokens=256, max_context_tokens=2048)
        return load_learner(config, Path(folder))
    config = ModelConfig(stop=("</answer>",), max_new_tokens=40, max_context_tokens=1024)
    items = draw_items(DataConfig(), 200, 0)
    return make_learner(config, [item.question for item in items], seed=0)


def batching(folder: str | None, learner: Learner, *, latency: bool) -> None:
    """Print questions a second one at a time, and together in one process and in several."""
    items = drawn_items(QUESTIONS, SAMPLES, latency=latency)
    alone = [one_at_a_time(learner, items)]
    start = time.perf_counter()
    roll_out(items, learner.controller(temperature=1.0))
    together = (time.perf_counter() - start) / len(items)
    count = os.cpu_count() or 1
    spawn = multiprocessing.get_context("spawn")
    arguments = (folder, latency, count, spawn.Barrier(count))
    with ProcessPoolExecutor(count, spawn, Share.start, arguments) as processes:
        in_processes = max(processes.map(Share.run, range(count))) / len(items)
    if not latency:  # what waits takes as long as before
        alone.append(one_at_a_time(learner, items))
    each = statistics.fmean(alone)
    what = "with the latency of their descriptors" if latency else "that answer at once"
    print(
        f"rollouts of {QUESTIONS} x {SAMPLES}, candidates {what}: one at a time "
        f"{', '.join(f'{1 / one:.2f}' for one in alone)} a second"
    )
    for number, seconds in ((1, together), (count, in_processes)):
        print(
            f"  together in {number} process{'es' if number > 1 else ''}: {1 / seconds:.2f} a "
            f"second, ratio {each / seconds:.1f} (bar: at least 8)"
        )


def one_at_a_time(learner: Learner, items: list[Item]) -> float:
    """Return the seconds of a question alone, by one sample of each."""
    few = items[::SAMPLES]
    start = time.perf_counter()
    roll_out(few, learner.controller(temperature=1.0), in_flight=1)
    return (time.perf_counter() - start) / len(few)


class Share:
    """The share of one of several processes: every nth question, with all of its samples."""

    folder: str | None
    latency: bool
    count: int
    together: Barrier

    @classmethod
    def start(cls, *arguments: Any) -> None:
        """Make a process ready."""
        torch.set_num_threads(1)
        cls.folder, cls.latency, cls.count, cls.together = arguments

    @classmethod
    def run(cls, number: int) -> float:
        """Return the seconds of a process's share, begun when all of them are ready."""
        learner = learner_of(cls.folder)
        items = drawn_items(QUESTIONS, SAMPLES, latency=cls.latency)
        share = [item for n, item in enumerate(items) if n // SAMPLES % cls.count == number]
        roll_out(share[:2], learner.controller(temperature=1.0))  # warms up
        cls.together.wait()
        start = time.perf_counter()
        roll_out(share, learner.controller(temperature=1.0))
        return time.perf_counter() - start


def caching(learner: Learner, items: list[Item]) -> float:
    """Print tokens computed with and without the cache between rounds; return the ratio."""
    spent = []
    for keep in (True, False):
        controller = learner.controller(temperature=1.0)
        if not keep:
            controller.generator.max_cached_tokens = 0
        traces = roll_out(items[:64], controller)
        sampled = sum(
            len(m.additional_kwargs["tokens"]["output_ids"])
            for trace in traces
            for m in trace.scratchpad
            if m.type == "ai"
        )
        spent.append(controller.generator.prefilled_tokens + sampled)
    ratio = spent[1] / spent[0]
    rounds = statistics.fmean(trace.rounds for trace in traces)
    print(
        f"tokens computed over {rounds:.1f} rounds: {spent[0]} with caches, {spent[1]} without, "
        f"ratio {ratio:.2f} (bar: at least 1.5)"
    )
    return ratio


def step(learner: Learner, items: list[Item]) -> float:
    """Print how a GRPO step is spent; return the share in generate, forward and backward."""
    config = GRPOConfig(steps=4, questions=8, group=8, micro_batch=32, learning_rate=1e-6)
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "metrics.jsonl"
        run_grpo(
            learner,
            items,
            config,
            reward=RewardConfig(),
            folder=Path(folder) / "grpo",
            metrics=metrics,
            seed=0,
            spending=Spending(Path(folder)),
        )
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [line for line in lines if "step_time" in line][1:]  # the first one warms up
    whole = sum(line["step_time"] for line in steps)
    graph = sum(line["graph_seconds"] for line in steps) / whole
    generate = sum(line["generate_seconds"] for line in steps) / whole
    print(
        f"a GRPO step of 8 x 8: {whole / len(steps):.1f} s, generate {generate:.0%}, graph "
        f"{graph:.0%}, forward, backward and the rest {1 - graph - generate:.0%}; in the model "
        f"{1 - graph:.0%} (bar: at least 85%)"
    )
    return 1 - graph


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser("python -m benchmarks.rollouts", description=__doc__)
    parser.add_argument("policy", nargs="?", metavar="POLICY_FOLDER")
    parser.add_argument("--part", choices=("loops", "batching", "caching", "step"), nargs="+")
    parser.add_argument("--latency", action="store_true", help="slow candidates in the loops, too")
    parser.add_argument("--questions", type=int, default=QUESTIONS * SAMPLES, help="in the loops")
    parser.add_argument("--repetitions", type=int, default=3, help="of the loops")
    given = parser.parse_args(arguments)
    if given.questions < SAMPLES or given.questions % SAMPLES or given.repetitions < 1:
        parser.error(f"--questions is a multiple of {SAMPLES}, --repetitions at least 1")
    torch.set_num_threads(1)
    folder, parts = given.policy, given.part or ("loops", "batching", "caching", "step")
    if "loops" in parts:
        for latency in (False, True) if given.latency else (False,):
            compare(
                learner_of(folder or str(SHIPPED / "demo")),
                questions=given.questions,
                samples=SAMPLES,
                repetitions=given.repetitions,
                latency=latency,
            )
    learner = learner_of(folder)
    if "batching" in parts:
        batching(folder, learner, latency=False)
        if folder:  # a random model calls nobody
            batching(folder, learner, latency=True)
    if "caching" in parts:
        caching(learner, drawn_items(QUESTIONS, SAMPLES, latency=False))
    if "step" in parts:
        step(learner, draw_items(DataConfig(), QUESTIONS, 1))


if __name__ == "__main__":
    main()
