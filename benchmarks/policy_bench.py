"""Asks all that the rows need, each thing once, and keeps every trace of a policy as it comes.

A run that was interrupted goes on where it stopped: what is kept is not asked again if question,
pool and knobs are the same. Rules and fitted controllers answer hundreds of questions a second;
they are asked anew each time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path

from tqdm.auto import tqdm

from router_r1_graph import (
    Candidate,
    Controller,
    RouterContext,
    Trace,
    View,
    parse_controller,
)
from router_r1_graph.controllers.learned import METHODS, LearnedController
from router_r1_graph.controllers.learned.matrix import ScoreMatrix
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.rules import OneCallController
from router_r1_graph.evaluation.scores import matrix_of_traces
from router_r1_graph.simulation import World, generate
from router_r1_graph.trace import write_traces
from training.items import Item
from training.rollouts import roll_out

from .policy_columns import Column
from .policy_questions import RUNS, Asked, NotRunError, Setting, embedded
from .policy_traces import is_of, read_kept, register

POLICY, WARM_START = "policy", "warm_start"

Need = tuple[str, str]
"""Who is asked, and the name of the run."""
_PILOT = 16
"""So many questions are timed for the estimate."""
_CONTEXT_TOKENS = 1400


class Strongest(OneCallController):
    """Always asks the candidate whose scores add up to most: the best constant of a drawn pool."""

    name = "strongest"

    def choose(self, view: View) -> Candidate:
        """Return the candidate."""
        return max(view.pool.candidates, key=lambda c: sum(c.benchmarks.values()))


class Bench:
    """The runs of a policy, of its warm start, of the oracle and of controls.

    Args:
        setting: what is asked.
        policies: `policy`, and where there is one `warm_start`: a policy folder.
        out: where traces are kept.
        at_once: most questions at once.

    Raises:
        ConfigError: `out` holds the traces of other policies.
    """

    def __init__(
        self, setting: Setting, policies: Mapping[str, str], out: Path, at_once: int = 32
    ) -> None:
        self.setting, self.policies, self.out, self.at_once = setting, policies, out, at_once
        self.commits = register(out, policies)
        self.bar: tqdm | None = None
        self.task = cache(self._task)
        self.traces = cache(self._traces)
        self.column = cache(self._column)
        self.oracle = cache(lambda run: Column.oracle(self.task(run)))
        self.control = cache(self._control)
        self.fitted = cache(lambda method: LearnedController.fit(method, self._matrix))
        self.controller = cache(self._controller)

    def _task(self, run: str) -> list[Asked]:
        return RUNS[run](self.setting)

    def _controller(self, who: str) -> PolicyController:
        if who not in self.policies:
            raise NotRunError("--run or --warm-start names no warm start")
        return PolicyController.from_pretrained(
            self.policies[who],
            max_batch=self.at_once,
            max_cached_tokens=self.at_once * _CONTEXT_TOKENS,
        )

    def begin(self, needs: Iterable[Need]) -> None:
        """Say how long the runs will take, by a few questions of the first, and show a bar."""
        missing = {need: items for need in dict.fromkeys(needs) if (items := self._missing(need))}
        left = sum(map(len, missing.values()))
        if not left:
            print("every question that the policy needs to be asked is kept", flush=True)
            return
        self.bar = tqdm(
            total=left,
            unit="question",
            smoothing=0.05,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )
        if left <= 2 * _PILOT:
            return
        (who, run), items = next(iter(missing.items()))
        self.controller(who)
        start = time.perf_counter()
        pilot = items[:_PILOT]
        self._ask((who, run), pilot)
        each = (time.perf_counter() - start) / len(pilot)
        left -= len(pilot)
        self.say(
            f"about {_duration(each * left)} for {left:,} questions in {len(missing)} runs of a "
            f"policy ({each:.2f} s each, by the first {len(pilot)}; "
            "stop with Ctrl-C, and the same command goes on)"
        )

    def _missing(self, need: Need) -> list[Item]:
        """Return what still has to be asked; nothing of a run that cannot be made."""
        who, run = need
        try:
            kept = self._kept(need) if who in self.policies else None
        except NotRunError:
            kept = None
        return [] if kept is None else [a.item for a in self.task(run) if a.item.id not in kept]

    def _kept(self, need: Need) -> dict[str, Trace]:
        """Return the traces that are there, by the id of their question."""
        items = {asked.item.id: asked.item for asked in self.task(need[1])}
        kept = {}
        for trace in read_kept(self._file(need)):
            item = items.get(trace.id)
            if item and is_of(trace, item):
                kept[trace.id] = trace
        return kept

    def _file(self, need: Need) -> Path:
        return self.out / need[0] / f"{need[1]}.jsonl"

    def _traces(self, who: str, run: str) -> list[Trace]:
        """Return the traces of a policy, in the order of the run.

        Raises:
            NotRunError: there is no such policy, or the run lacks a file.
        """
        if missing := self._missing((who, run)):
            self._ask((who, run), missing)
        elif who not in self.policies:
            self._controller(who)
        kept = self._kept((who, run))
        return [kept[asked.item.id] for asked in self.task(run)]

    def _ask(self, need: Need, items: Sequence[Item]) -> None:
        controller, file = self.controller(need[0]), self._file(need)
        file.parent.mkdir(parents=True, exist_ok=True)
        if self.bar is not None:
            self.bar.set_description(" ".join(need))

        def keep(trace: Trace) -> None:
            write_traces(file, [trace], append=True)
            if self.bar is not None:
                self.bar.update()

        roll_out(items, controller, name=need[0], in_flight=self.at_once, done=keep)
        controller.generator.forget()

    def both(self, one: str, other: str) -> tuple[list[int], list[int]]:
        """Return the places of the questions that are in both runs, in each of them.

        Raises:
            NotRunError: there is none.
        """
        first, second = (
            {asked.item.id: place for place, asked in enumerate(self.task(run))}
            for run in (one, other)
        )
        shared = [id for id in first if id in second]
        if not shared:
            raise NotRunError(f"no question is in both runs, {one} and {other}: ask more")
        return [first[id] for id in shared], [second[id] for id in shared]

    def _column(self, who: str, run: str) -> Column:
        column = Column.of(who, self.traces(who, run))
        self.say(f"{who:<24} {run:<12} {column}")
        return column

    def _control(self, run: str, spec: str) -> Column:
        """Return the column of a rule, by its spec or `strongest`, or of a fitted controller."""
        asked = self.task(run)
        if spec in METHODS:
            controller: Controller = self.fitted(spec)
        elif spec == Strongest.name:
            controller = Strongest()
        else:
            controller = parse_controller(spec, asked[0].item.pool)
        column = Column.of(spec, roll_out([a.item for a in asked], controller, name=spec))
        self.say(f"{spec:<24} {run:<12} {column}")
        return column

    @cached_property
    def _matrix(self) -> ScoreMatrix:
        """What each candidate of the embedded pool answers to questions of the training split."""
        count, pool = min(1000, 2 * self.setting.count), embedded()
        drawn = generate(World.embedded(), split="train", n=count, seed=self.setting.seed)
        items = [Item(q.id, q.text, q.gold, pool, RouterContext()) for q in drawn]
        traces = [
            trace
            for candidate in pool.candidates
            for spec in [f"constant:{candidate.name}"]
            for trace in roll_out(items, parse_controller(spec, pool), name=spec)
        ]
        return matrix_of_traces(traces, pool)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line)

    def end(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
