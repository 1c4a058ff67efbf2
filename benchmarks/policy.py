"""What the learned policy shows against the oracle, controls and itself: table of docs/results.md.

    python -m benchmarks.policy [POLICY] [--warm-start FOLDER] [--questions 500] [--write]

POLICY is a policy folder; `runs/demo/policy` when left out. `--warm-start` names the policy before
reward (runs/demo/warm_start/policy). `--write` puts the table into docs/results.md. Everything is
greedy; intervals are 95% bootstrap over questions, ratios and differences paired.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from router_r1_graph import CandidatePool, Controller, RouterContext, Trace, parse_controller
from router_r1_graph.controllers.learned import LearnedController
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.evaluation.scores import matrix_of_traces
from router_r1_graph.evaluation.statistics import Bootstrap, Interval
from router_r1_graph.ledger import total
from router_r1_graph.rewards import AbsoluteCost, reward
from router_r1_graph.simulation import Question, World, generate
from training.config import load_config
from training.items import Item, knowing
from training.rollouts import roll_out

ROOT = Path(__file__).parent.parent
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 0.9)
BEGIN, END = "<!-- policy table -->", "<!-- end of policy table -->"


@dataclass(frozen=True)
class Column:
    """What a controller did on the same questions as every other."""

    name: str
    exact_match: np.ndarray
    cost_usd: np.ndarray
    calls: np.ndarray
    reward: np.ndarray
    format: float
    share: dict[str, float]

    @property
    def top(self) -> tuple[str, float]:
        """The most-asked candidate and its share of the calls."""
        return max(self.share.items(), key=lambda item: item[1], default=("nobody", 0.0))


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    check: str
    measured: str
    bar: str
    met: bool


class Bench:
    """Asks everything that the checks need, each thing once."""

    def __init__(self, policy: str, warm_start: str | None, count: int, seed: int) -> None:
        rules = load_config(ROOT / "training" / "configs" / "demo.yaml").reward
        self.scale, self.gated = AbsoluteCost(rules.usd, floor=rules.floor), rules.gated
        self.policy = PolicyController.from_pretrained(policy, max_batch=256)
        self.warm_start = warm_start and PolicyController.from_pretrained(warm_start, max_batch=256)
        self.world = World.embedded()
        self.count, self.seed = count, seed
        self.questions = generate(self.world, split="test", n=count, seed=seed)
        self.bootstrap = Bootstrap(count)
        self.pool = CandidatePool.embedded()

    def ask(
        self,
        controller: Controller | str,
        *,
        pool: CandidatePool | None = None,
        questions: Sequence[Question] | None = None,
        cost_weight: float = 0.5,
        name: str = "",
    ) -> Column:
        """Ask a controller the test questions."""
        start = time.perf_counter()
        pool = pool or self.pool
        if isinstance(controller, str):
            name, controller = name or controller, parse_controller(controller, pool)
        traces = self.traces(controller, pool, questions or self.questions, cost_weight, name)
        parts = [reward(trace, self.scale, gated=self.gated) for trace in traces]
        asked = Counter(call.candidate for trace in traces for call in trace.calls)
        column = Column(
            name or controller.name,
            np.array([part.outcome for part in parts]),
            np.array([total(trace.ledger)["cost_usd"] for trace in traces]),
            np.array([float(len(trace.calls)) for trace in traces]),
            np.array([part.total for part in parts]),
            float(np.mean([part.format for part in parts])),
            {who: count / asked.total() for who, count in asked.most_common()},
        )
        print(
            f"{column.name:<24} a={cost_weight:<4g} pool {pool.name:<16} exact match "
            f"{column.exact_match.mean():.3f}  format {column.format:.3f}  USD / 1,000 "
            f"{1000 * column.cost_usd.mean():.4f}  calls {column.calls.mean():.2f}  reward "
            f"{column.reward.mean():.3f}  most asked {column.top[0]} {column.top[1]:.0%}  "
            f"({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
        return column

    def traces(
        self,
        controller: Controller,
        pool: CandidatePool,
        questions: Sequence[Question],
        cost_weight: float,
        name: str,
    ) -> list[Trace]:
        """Return one trace for each question."""
        context = RouterContext(cost_weight=cost_weight)
        items = [Item(q.id, q.text, q.gold, pool, context) for q in questions]
        return roll_out(items, controller, name=name or controller.name)

    @cached_property
    def sweep(self) -> dict[float, Column]:
        """The policy at every cost weight."""
        return {w: self.ask(self.policy, cost_weight=w, name="policy") for w in WEIGHTS}

    @cached_property
    def oracle(self) -> Column:
        """The least cost of a right answer."""
        return self.ask("oracle")

    @cached_property
    def controls(self) -> list[Column]:
        """All that a router has to beat."""
        specs = [f"constant:{c.name}" for c in self.pool.candidates]
        return [self.ask(spec) for spec in (*specs, "cheapest", "random", "keyword")] + [self.knn]

    @cached_property
    def knn(self) -> Column:
        """Nearest neighbours of the question, fitted on 1,000 training questions."""
        train = generate(self.world, split="train", n=1000, seed=self.seed)
        traces = [
            trace
            for c in self.pool.candidates
            for spec in [f"constant:{c.name}"]
            for trace in self.traces(parse_controller(spec, self.pool), self.pool, train, 0.5, spec)
        ]
        return self.ask(LearnedController.fit("knn", matrix_of_traces(traces, self.pool)))

    def checks(self) -> list[Check]:
        """Return every line of the table."""
        lines = [self.against_oracle(), self.cost(), self.progress(), *self.better()]
        others = [self.unseen(), self.swapped(), self.permuted()]
        return [*lines, *self.curve(), *others, *self.collapse()]

    def against_oracle(self) -> Check:
        """Exact match as a share of the oracle's."""
        ratio = self.bootstrap.ratio(self.sweep[0.5].exact_match, self.oracle.exact_match)
        ours = self.bootstrap.mean(self.sweep[0.5].exact_match)
        return Check(
            "exact match against the oracle's",
            f"{ours} = {ratio} of it",
            "at least 0.90 of it",
            ratio.mean >= 0.9,
        )

    def cost(self) -> Check:
        """Cost against the oracle's, and against every control that is right as often."""
        ours = self.sweep[0.5]
        ratio = self.bootstrap.ratio(ours.cost_usd, self.oracle.cost_usd)
        equal = [c for c in self.controls if c.exact_match.mean() >= ours.exact_match.mean()]
        cheaper = all(ours.cost_usd.mean() < c.cost_usd.mean() for c in equal)
        names = ", ".join(f"{c.name} ${1000 * c.cost_usd.mean():.4f}" for c in equal) or "none"
        return Check(
            "cost at cost weight 0.5",
            f"{ratio} x the oracle's; ${1000 * ours.cost_usd.mean():.4f} per 1,000; controls of "
            f"equal or higher exact match: {names}",
            "at most 1.4x the oracle's, and below every such control",
            ratio.mean <= 1.4 and cheaper,
        )

    def progress(self) -> Check:
        """What reward added to the warm start."""
        bar = "+20 points, or the same at 60% of the cost"
        if not self.warm_start:
            return Check("against warm start", "not run: --warm-start names none", bar, False)
        ours, before = self.sweep[0.5], self.ask(self.warm_start, name="warm start")
        gain = self.bootstrap.difference(ours.exact_match, before.exact_match)
        ratio = self.bootstrap.ratio(ours.cost_usd, before.cost_usd)
        return Check(
            "against warm start",
            f"exact match {signed(gain)} at {ratio} of the cost",
            bar,
            gain.mean >= 0.2 or (gain.mean >= 0 and ratio.mean <= 0.6),
        )

    def better(self) -> list[Check]:
        """Reward against the best constant, cheapest, random, keyword and kNN."""
        constants = [c for c in self.controls if c.name.startswith("constant:")]
        best = max(constants, key=lambda c: c.exact_match.mean())
        rest = [c for c in self.controls if c not in constants]
        checks = []
        for control in (best, *rest):
            gain = self.bootstrap.difference(self.sweep[0.5].reward, control.reward)
            checks.append(
                Check(
                    f"reward against {control.name}",
                    f"{self.sweep[0.5].reward.mean():.3f} to {control.reward.mean():.3f}: "
                    f"{signed(gain)}",
                    "better, interval clear of zero",
                    gain.low > 0,
                )
            )
        return checks

    def curve(self) -> list[Check]:
        """Cost and exact match over the cost weights."""
        columns = list(self.sweep.values())
        costs = [1000 * c.cost_usd.mean() for c in columns]
        scores = [float(c.exact_match.mean()) for c in columns]
        steps = list(itertools.pairwise(scores))
        weights = ", ".join(f"{w:g}" for w in WEIGHTS)
        return [
            Check(
                f"cost at cost weight {weights}",
                ", ".join(f"${cost:.4f}" for cost in costs) + " per 1,000",
                "falls at every step",
                all(a > b for a, b in itertools.pairwise(costs)),
            ),
            Check(
                f"exact match at cost weight {weights}",
                ", ".join(f"{score:.3f}" for score in scores),
                "no step loses more than 40% of what is left",
                all(after >= 0.6 * before for before, after in steps),
            ),
        ]

    def unseen(self) -> Check:
        """Candidates whose names, prices and strengths were never trained on."""
        pool = CandidatePool.from_yaml("embedded_unseen")
        return self._of_its_oracle("a pool of unseen candidates only", pool)

    def swapped(self) -> Check:
        """The embedded pool, each name with another one's descriptor: are names remembered?"""
        candidates = self.pool.candidates
        half = len(candidates) // 2  # so that expensive ones have the names of cheap ones
        names = [c.name for c in (*candidates[half:], *candidates[:half])]
        swapped = tuple(
            c.model_copy(update={"name": name}) for c, name in zip(candidates, names, strict=True)
        )
        pool = CandidatePool(name="swapped", candidates=swapped)
        check = "names of cheap and expensive candidates swapped"
        return self._of_its_oracle(check, pool, most_cost=1.4)

    def _of_its_oracle(self, check: str, pool: CandidatePool, most_cost: float = np.inf) -> Check:
        ours, oracle = (
            self.ask(self.policy, pool=pool, name="policy"),
            self.ask("oracle", pool=pool),
        )
        ratio = self.bootstrap.ratio(ours.exact_match, oracle.exact_match)
        cost = self.bootstrap.ratio(ours.cost_usd, oracle.cost_usd)
        bar = "at least 0.80 of its oracle"
        return Check(
            check,
            f"{self.bootstrap.mean(ours.exact_match)} = {ratio} of its oracle's, at {cost} x its "
            "cost",
            bar if np.isinf(most_cost) else f"{bar}, at most {most_cost:g}x its cost",
            ratio.mean >= 0.8 and cost.mean <= most_cost,
        )

    def permuted(self) -> Check:
        """Other facts: objects permuted within each relation."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "facts.csv"
            self.world.permuted(self.seed).to_csv(path)
            world = World.from_csv(path)
            known = knowing(self.pool, str(path))
            pool = CandidatePool(name="permuted", candidates=known.candidates)
            questions = generate(world, split="test", n=self.count, seed=self.seed)
            theirs = self.ask(self.policy, pool=pool, questions=questions, name="policy")
        before = float(self.sweep[0.5].exact_match.mean())
        after = self.bootstrap.mean(theirs.exact_match)
        return Check(
            "facts replaced (objects permuted within each relation)",
            f"exact match {after}, {after.mean - before:+.3f}",
            "within 3 points",
            abs(after.mean - before) <= 0.03,
        )

    def collapse(self) -> list[Check]:
        """Whether the calls go where the oracle's do."""
        ours, oracle = self.sweep[0.5], self.oracle
        who, share = ours.top
        theirs = oracle.top[1]
        calls = self.bootstrap.ratio(ours.calls, oracle.calls)
        return [
            Check(
                "share of the most-asked candidate",
                f"{who} {share:.0%}; the oracle's {oracle.top[0]} {theirs:.0%}",
                "within 10 points of the oracle's",
                abs(share - theirs) <= 0.1,
            ),
            Check(
                "calls a question",
                f"{ours.calls.mean():.2f} = {calls} of the oracle's",
                "within 20% of the oracle's",
                abs(calls.mean - 1) <= 0.2,
            ),
        ]


def signed(value: Interval) -> str:
    """Return a difference with its sign."""
    return f"{value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def table(checks: Sequence[Check]) -> str:
    """Return the checks in Markdown."""
    lines = ["| check | measured | bar | |", "|---|---|---|---|"]
    for check in checks:
        met = "met" if check.met else "**not met**"
        lines.append(f"| {check.check} | {check.measured} | {check.bar} | {met} |")
    return "\n".join(lines)


def main() -> None:
    """Run the checks and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policy", nargs="?", default="runs/demo/policy")
    parser.add_argument("--warm-start")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments.policy, arguments.warm_start, arguments.questions, arguments.seed)
    checks = bench.checks()
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    ).stdout.strip()
    about = (
        f"{arguments.questions} test questions, seed {arguments.seed}, greedy, "
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}:"
    )
    text = f"{about}\n\n{table(checks)}"
    print(f"\n{text}")
    if arguments.write:
        page = ROOT / "docs" / "results.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
        data = [asdict(check) for check in checks]
        (ROOT / "docs" / "policy.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
