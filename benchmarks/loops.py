"""Our rollouts beside TRL's own loop over environments, in turn, and what waiting for all costs."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from router_r1_graph import CandidatePool, Trace
from router_r1_graph.evaluation.loop import ask_many, ask_router, run
from training.config import DataConfig
from training.export import rollout_row
from training.items import Item, draw_items
from training.models import Learner
from training.rollouts import roll_out

from .environments import EnvironmentLoop, Rollouts


def drawn_items(questions: int, samples: int, *, latency: bool) -> list[Item]:
    """Return questions, each as often as it has samples, with other seeds.

    Args:
        questions: how many different ones.
        samples: of each.
        latency: whether candidates take the time that their descriptors say.
    """
    drawn = draw_items(DataConfig(), questions, 1)
    return [
        dataclasses.replace(item, context=dataclasses.replace(item.context, seed=sample))
        for one in drawn
        for item in [with_latency(one) if latency else one]
        for sample in range(samples)
    ]


def with_latency(item: Item) -> Item:
    """Return an item whose candidates take the time that their descriptors say."""
    candidates = tuple(
        c.model_copy(update={"options": {**c.options, "sleep": True}}) for c in item.pool.candidates
    )
    return dataclasses.replace(item, pool=CandidatePool(name="slow", candidates=candidates))


def graph_loop(
    learner: Learner, items: Sequence[Item], *, temperature: float, wait: bool = True
) -> Rollouts:
    """Run every item through the graph, as a step of training does.

    Args:
        learner: the policy.
        items: the questions.
        temperature: of sampling; 0 = greedy.
        wait: whether a batch begins when all running questions wait for a turn, as in training;
            else it begins as turns come.
    """
    start, cpu = time.perf_counter(), time.process_time()
    controller = learner.controller(temperature=temperature)
    if wait:
        traces = roll_out(items, controller)
    else:
        found: dict[int, Trace] = {}
        run(ask_many(items, ask_router(controller), found.__setitem__, at_once=len(items)))
        traces = [found[place] for place in range(len(items))]
    rows = [rollout_row(trace, controller.codec) for trace in traces]
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return Rollouts(
        seconds,
        cpu_seconds,
        sum(sum(row["env_mask"]) for row in rows),
        # Without an end token that training adds, and masks out.
        [row["completion_ids"][: None if row["env_mask"][-1] else -1] for row in rows],
        [[(c.candidate, c.query) for c in trace.calls if not c.cached] for trace in traces],
    )


def compare(
    learner: Learner,
    *,
    questions: int,
    samples: int = 8,
    repetitions: int = 3,
    latency: bool = False,
    temperature: float = 1.0,
) -> tuple[Rollouts, Rollouts]:
    """Print questions a second of both loops, run in turn; return the last rollouts of each.

    Args:
        learner: the policy.
        questions: how many are rolled out, samples counted.
        samples: of each different question, as in a group.
        repetitions: how often both are run. With latency, TRL's is run once: it waits for most of
            its time.
        latency: whether candidates take the time that their descriptors say.
        temperature: of sampling; 0 = greedy.
    """
    items = drawn_items(questions // samples, samples, latency=latency)
    ours, unordered, theirs = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        loop = EnvironmentLoop(
            learner, items, samples=samples, temperature=temperature, folder=Path(folder)
        )
        for repetition in range(repetitions):
            ours.append(graph_loop(learner, items, temperature=temperature))
            if latency:
                unordered.append(graph_loop(learner, items, temperature=temperature, wait=False))
            if not (latency and repetition):
                theirs.append(loop())
    bar = 10 if latency else 4
    what = "with the latency of their descriptors" if latency else "that answer at once"
    print(f"loops over {len(items)} questions, candidates {what}; medians")
    print(f"  TRL's environments: {_described(theirs)}")
    print(f"  the graph: {_described(ours)}")
    print(f"  ratio {_ratio(theirs, ours)} (bar: at least {bar})")
    if latency:
        print(f"  the graph, batches begun as turns come: {_described(unordered)}")
        print(f"  what waiting for all turns costs: {_ratio(ours, unordered)}")
    return ours[-1], theirs[-1]


def _described(runs: Sequence[Rollouts]) -> str:
    count = len(runs[0].completions)
    seconds = sorted(one.seconds for one in runs)
    cpu = statistics.median(one.cpu_seconds for one in runs)
    tokens = statistics.median(one.sampled_tokens for one in runs)
    each = ", ".join(f"{count / one:.2f}" for one in reversed(seconds))
    return (
        f"{count / statistics.median(seconds):.2f} questions a second ({each}), {cpu:.1f} s of "
        f"CPU, {tokens:.0f} tokens sampled"
    )


def _ratio(slow: Sequence[Rollouts], fast: Sequence[Rollouts]) -> str:
    wall, cpu = (
        statistics.median(getattr(one, name) for one in slow)
        / statistics.median(getattr(one, name) for one in fast)
        for name in ("seconds", "cpu_seconds")
    )
    return f"{wall:.2f}, of CPU {cpu:.2f}"
