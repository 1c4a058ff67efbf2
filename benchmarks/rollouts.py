"""What rollouts through the graph gain by batching and by keeping key-value caches.

    python -m benchmarks.rollouts [POLICY_FOLDER]

Without a folder, a random model of the demo's shape is used: its turns run to their limit, which is
the worst case for batching. Ratios of one run; the model's threads are set to 1.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from router_r1_graph import CandidatePool
from training.config import DataConfig, GRPOConfig, ModelConfig, RewardConfig
from training.grpo import run_grpo
from training.items import Item, draw_items
from training.models import Learner, load_learner, make_learner
from training.rollouts import roll_out

QUESTIONS, SAMPLES = 32, 8


def learner_of(folder: str | None) -> Learner:
    """Return the policy in a folder, or a random one."""
    if folder:
        config = ModelConfig(stop=("</answer>",), max_new_tokens=256, max_context_tokens=2048)
        return load_learner(config, Path(folder))
    config = ModelConfig(stop=("</answer>",), max_new_tokens=40, max_context_tokens=1024)
    items = draw_items(DataConfig(), 200, 0)
    return make_learner(config, [item.question for item in items], seed=0)


def with_latency(item: Item) -> Item:
    """Return an item whose candidates take the time that their descriptors say."""
    candidates = tuple(
        c.model_copy(update={"options": {**c.options, "sleep": True}}) for c in item.pool.candidates
    )
    return dataclasses.replace(item, pool=CandidatePool(name="slow", candidates=candidates))


def batching(learner: Learner, items: list[Item], what: str) -> float:
    """Print questions a second together and one at a time; return the ratio."""
    few = items[::SAMPLES]
    start = time.perf_counter()
    roll_out(few, learner.controller(temperature=1.0), in_flight=1)
    alone = (time.perf_counter() - start) / len(few)
    start = time.perf_counter()
    roll_out(items, learner.controller(temperature=1.0))
    together = (time.perf_counter() - start) / len(items)
    print(
        f"rollouts of {QUESTIONS} x {SAMPLES}, {what}: {1 / together:.2f} a second, one at a time "
        f"{1 / alone:.2f}, ratio {alone / together:.1f} (bar: at least 8)"
    )
    return alone / together


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


def main() -> None:
    """Run the benchmarks."""
    torch.set_num_threads(1)
    learner = learner_of(sys.argv[1] if len(sys.argv) > 1 else None)
    drawn = draw_items(DataConfig(), QUESTIONS, 1)
    items = [dataclasses.replace(item) for item in drawn for _ in range(SAMPLES)]
    batching(learner, items, "candidates that answer at once")
    if len(sys.argv) > 1:  # a random model calls nobody
        slow = [slowed for item in drawn for slowed in [with_latency(item)] * SAMPLES]
        batching(learner, slow, "candidates with the latency of their descriptors")
    caching(learner, items)
    step(learner, drawn)


if __name__ == "__main__":
    main()
