"""The stages of a run: warm start, best of n, GRPO. Each leaves a policy, and can be resumed."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from rich.progress import Progress

from router_r1_graph import (
    CandidatePool,
    Controller,
    ReplyStore,
    Trace,
    read_traces,
    write_traces,
)
from router_r1_graph.candidates.records import stored_records, write_records
from router_r1_graph.rewards import AbsoluteCost, reward

from .config import RunConfig
from .export import SupervisedRow, supervised_rows
from .fit import BudgetSpentError, fit
from .items import Item, draw_items
from .judge import Judge
from .learned_rows import LeftOut, rows_to_learn
from .measurement import Numbers, at_weights, by_weight, means, share_out, summary
from .models import Learner, load_learner, make_learner, processes
from .outcomes import Outcomes, verdict_of
from .own_graph import OwnGraph
from .questions import without_held_out
from .rollouts import judged_of, roll_out, why_left_out
from .spending import Spending
from .teacher import TeacherController, at_cost_weight
from .trackers import report_stage


@dataclass(frozen=True)
class Run:
    """A run's config and where its files are."""

    config: RunConfig

    @property
    def metrics(self) -> Path:
        """Every logged number, a JSON line each."""
        return self.config.out / "metrics.jsonl"

    def folder(self, stage: str) -> Path:
        """Where a stage keeps its policy, checkpoints and traces."""
        return self.config.out / stage

    @cached_property
    def spending(self) -> Spending:
        """The bill of the run."""
        process = processes().process_index
        return Spending(self.config.out / "spending", self.config.budget_usd, process)

    @cached_property
    def replies(self) -> ReplyStore | None:
        """The store of replies; None where nothing real is asked and no file is named."""
        config = self.config
        pools = [CandidatePool.from_yaml(name) for name in {*config.data.pools} - {"drawn"}]
        kinds = {candidate.provider for pool in pools for candidate in pool.candidates}
        judges = any(one.function == "llm_judge" for one in config.reward.functions)
        if config.replies.file is None and not judges and kinds <= {"simulated", "recorded"}:
            return None
        file = config.replies.file or config.out / "replies.sqlite"
        return ReplyStore(file, every=config.replies.every)

    @cached_property
    def outcomes(self) -> Outcomes:
        """What judges the traces, besides the metric."""
        config = self.config
        return Outcomes(config.reward, self.spending, config.folder, self.replies)

    @cached_property
    def graph(self) -> OwnGraph | None:
        """The user's own graph, of which the router is a part; None = the router alone."""
        name = self.config.graph
        return OwnGraph(name, self.config.folder) if name else None

    def check(self) -> None:
        """Find what the config names of the user's own code, before anything is paid.

        Raises:
            ConfigError: it is not there, or cannot be used.
        """
        _ = self.outcomes, self.graph

    def leave_records(self) -> Path | None:
        """Write the stored replies as records, for a recorded pool; return the file, if any."""
        if self.replies is None:
            return None
        file = self.config.out / "records.jsonl"
        renamed = self.config.data.vary.names > 0
        write_records(file, stored_records(self.replies, model_names=renamed))
        return file

    def roll_out(
        self,
        stage: str,
        items: Sequence[Item],
        controller: Controller,
        *,
        name: str = "policy",
        judged: bool = True,
        done: Callable[[Trace], None] = lambda _: None,
    ) -> list[Trace]:
        """Run items, once the budget allows it, and put what they cost on the bill.

        Args:
            stage: the stage's name on the bill.
            items: what to ask.
            controller: the controller.
            name: the controller's name in the traces.
            judged: whether the traces earn something; those that only show the format are runs of
                the router alone, which nobody judges.
            done: gets each trace as soon as it is there.

        Raises:
            BudgetSpentError: the budget is spent.
        """
        self._require(stage, self.spending.refuses(0.0))
        return self._roll_out(stage, items, controller, name, done, judged=judged)

    def share_out(
        self,
        stage: str,
        items: Sequence[Item],
        controller: Controller,
        *,
        done: Callable[[Trace], None] = lambda _: None,
    ) -> list[Trace]:
        """Run items on all processes, as `roll_out` does on one; return all traces on each.

        Raises:
            BudgetSpentError: the budget is spent.
        """
        # One process decides for all: each reads the files at another moment.
        self._require(stage, gather_object([self.spending.refuses(0.0)])[0])
        return share_out(
            items, lambda ours: self._roll_out(stage, ours, controller, "policy", done)
        )

    def _require(self, stage: str, refused: str) -> None:
        if refused:
            raise BudgetSpentError(f"{stage}: {refused}; raise budget_usd, run again to go on")

    def _roll_out(
        self,
        stage: str,
        items: Sequence[Item],
        controller: Controller,
        name: str,
        done: Callable[[Trace], None],
        *,
        judged: bool = True,
    ) -> list[Trace]:
        def keep(trace: Trace) -> None:
            self.spending.add(stage, trace)
            done(trace)

        return roll_out(
            items,
            controller,
            name=name,
            replies=self.replies,
            graph=self.graph if judged else None,
            outcomes=self.outcomes if judged else None,
            done=keep,
        )

    def log(self, stage: str, step: int, numbers: Mapping[str, float]) -> None:
        """Write a line of metrics, on the first process."""
        if processes().is_main_process:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"stage": stage, "step": step, **numbers}) + "\n")

    def fit_options(self, stage: str, seed: int) -> dict[str, Any]:
        """Return what every supervised fit of this run has in common."""
        model = self.config.model
        return {
            "stage": stage,
            "metrics": self.metrics,
            "seed": seed,
            "bf16": model.bf16,
            "gradient_checkpointing": model.gradient_checkpointing,
            "lora_rank": model.lora_rank,
            "report_to": self.config.report_to,
        }


def warm_start(run: Run) -> Learner:
    """Fit on the traces of the teacher, or of the files that the config names."""
    config = run.config
    folder = run.folder("warm_start")
    folder.mkdir(parents=True, exist_ok=True)
    traces = _warm_traces(run)
    if config.model.pretrained:
        learner = load_learner(config.model)
    else:
        learner = make_learner(config.model, _texts(traces()), config.seed)
    left_out = LeftOut()
    rows = rows_to_learn(
        traces(), learner.codec, config.warm_start, "warm_start", _outcomes(run), left_out
    )
    run.log("warm_start_rows", 0, {"learned": len(rows), "left_out": len(left_out)})
    fit(
        learner,
        rows,
        config.warm_start,
        folder=folder / "checkpoints",
        **run.fit_options("warm_start", config.seed),
    )
    return learner


def _outcomes(run: Run) -> Callable[[Sequence[Trace]], list[float | None]]:
    """Return what says how good traces are, by the rules of the run; None = not known."""
    rules = run.config.reward

    def outcomes(traces: Sequence[Trace]) -> list[float | None]:
        if run.outcomes:
            return [verdict_of(trace)["outcome"] for trace in run.outcomes.judge(traces)]
        scale = AbsoluteCost(1.0)
        return [reward(t, scale, metric=rules.metric).outcome if t.gold else None for t in traces]

    return outcomes


def _warm_traces(run: Run) -> Any:
    """Write the teacher's traces once; return a function that reads them, one at a time.

    Traces of held-out questions, which files of others may have, are left out.
    """
    config = run.config
    files = config.warm_start.trace_files
    if not files:
        file = run.folder("warm_start") / "traces.jsonl"
        files = (file,)
        items = draw_items(config.data, config.warm_start.traces, config.seed)
        pairs = [(0, item) for item in items]
        with processes().main_process_first():  # the others find nothing left to write
            what = "teacher's traces"
            _write_teacher_traces(run, "warm_start", file, pairs, config.seed, what, judged=False)

    def read() -> Iterator[Trace]:
        traces = chain.from_iterable(map(read_traces, files))
        yield from without_held_out(traces, config.data)

    return read


def _texts(traces: Iterator[Trace]) -> Iterator[str]:
    """Yield what the tokenizer is made of: descriptors, questions, turns and replies."""
    for number, trace in enumerate(traces):
        if number >= 8000:
            return
        yield "\n".join(
            [
                trace.pool.describe_briefly(),
                trace.question,
                *(str(message.text) for message in trace.scratchpad),
            ]
        )


def best_of_n(run: Run, learner: Learner) -> Learner:
    """Write n traces of each question and learn the best, several times; resumes at a round.

    If the config asks for it, an extra first round uses traces that the teacher writes.
    """
    config, stage = run.config, run.config.best_of_n
    folder = run.folder("best_of_n")
    folder.mkdir(parents=True, exist_ok=True)
    progress_file = folder / "progress.json"
    judge = Judge(config.reward, folder / "scale.json")
    start = -1 if stage.teacher_questions else 0
    if progress_file.exists():
        start = json.loads(progress_file.read_text(encoding="utf-8"))["round"]
        learner = load_learner(config.model, folder / "policy")
    before = rows_from_before(run, learner)
    rng = random.Random(f"best_of_n/{config.seed}")
    for number in range(start, stage.rounds):
        seed = config.seed + 10_000 + number
        if number < 0:
            rows = before
            kept = len(rows)
        else:
            items = draw_items(config.data, stage.questions, seed)
            controller = learner.controller(temperature=stage.temperature, seed=seed)
            copies = [
                replace(item, context=replace(item.context, seed=item.context.seed + sample))
                for item in items
                for sample in range(stage.samples)
            ]
            with Progress() as bars:
                ours = math.ceil(len(copies) / processes().num_processes)
                bar = bars.add_task(f"round {number + 1} of {stage.rounds}", total=ours)
                traces = run.share_out(
                    "best_of_n", copies, controller, done=lambda _, p=bars, b=bar: p.advance(b)
                )
            groups = [traces[i : i + stage.samples] for i in range(0, len(traces), stage.samples)]
            groups = [[t for t in group if not why_left_out(t)] for group in groups]
            rows = [row for group in groups for row in _best_rows(group, judge, learner, rng)]
            kept = len(rows)
            rows += rng.sample(before, min(len(before), round(len(rows) * stage.keep)))
            rng.shuffle(rows)
            numbers = means(judged_of(traces, "best_of_n"))
            run.log("best_of_n", number, numbers | {"kept": kept})
        if kept:
            fit(
                learner,
                rows,
                stage,
                folder=folder / "checkpoints" / f"{number + 1:03}",
                **run.fit_options("best_of_n_fit", seed),
            )
        if processes().is_main_process:
            learner.save(folder / "policy")
            judge.save()
            progress_file.write_text(json.dumps({"round": number + 1}), encoding="utf-8")
        processes().wait_for_everyone()
    return learner


def rows_from_before(run: Run, learner: Learner) -> list[SupervisedRow]:
    """Return the teacher's best traces if the config asks for them, else those of the warm start.

    For each question, the best one at several cost weights; written once, resumed where it stopped.
    A run without a warm start has none.
    """
    config, stage = run.config, run.config.best_of_n
    if not stage.teacher_questions:
        warm = "warm_start" in config.stages or config.warm_start.trace_files
        traces = islice(_warm_traces(run)(), 2000) if warm and stage.keep else iter(())
        return list(supervised_rows(traces, learner.codec))
    seed = config.seed + 9_999
    file = run.folder("best_of_n") / "teacher_traces.jsonl"
    items = draw_items(config.data, stage.teacher_questions, seed)
    pairs = [(sample, item) for item in items for sample in range(stage.teacher_samples)]
    what = "traces to choose from"
    with processes().main_process_first():
        _write_teacher_traces(run, "best_of_n", file, pairs, config.seed + 1, what, give_up=0.1)
    judge = Judge(config.reward)  # its own: a resumed run judges these traces again
    rng = random.Random(f"cost weights/{seed}")
    traces = read_traces(file)
    best: list[SupervisedRow] = []
    while group := list(islice(traces, stage.teacher_samples)):
        for weight in stage.teacher_cost_weights:
            again = [at_cost_weight(trace, weight) for trace in group if not why_left_out(trace)]
            best += _best_rows(again, judge, learner, rng)
    rng.shuffle(best)
    return best


def _write_teacher_traces(
    run: Run,
    stage: str,
    file: Path,
    wanted: Sequence[tuple[int, Item]],
    seed: int,
    what: str,
    *,
    judged: bool = True,
    **habits: float,
) -> None:
    """Write the traces that are not in the file yet; each item with the teacher of its seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    if file.exists():
        with file.open("rb") as lines:
            done = sum(1 for _ in lines)
    with Progress() as progress:
        bar = progress.add_task(what, total=len(wanted), completed=done)
        for start in range(done, len(wanted), 256):
            batch = wanted[start : start + 256]
            traces: list[Trace | None] = [None] * len(batch)
            for sample in {sample for sample, _ in batch}:
                places = [i for i, (other, _) in enumerate(batch) if other == sample]
                teacher = TeacherController(1000 * seed + sample, **habits)
                ours = [batch[i][1] for i in places]
                found = run.roll_out(stage, ours, teacher, name="teacher", judged=judged)
                for place, trace in zip(places, found, strict=True):
                    traces[place] = trace
            write_traces(file, [t for t in traces if t is not None], append=True)
            progress.update(bar, advance=len(batch))


def _best_rows(
    group: Sequence[Trace], judge: Judge, learner: Learner, rng: random.Random
) -> Iterator[SupervisedRow]:
    """Yield a question's best trace, and the best way on from each first turn that several share.

    The way on is learned from its second turn on. Without it, nothing shows what to do when a
    candidate fails: the best of many traces asked another candidate at once, by luck.
    """
    if not group:
        return
    judge.observe(judge.costs(group))
    scored = [(judge(trace).total, trace) for trace in group]
    best = _best(scored)
    if best:
        yield from supervised_rows([best], learner.codec)
    by_start: dict[tuple[str, ...], list[tuple[float, Trace]]] = defaultdict(list)
    for score, trace in scored:
        by_start[tuple(trace.turns[:1])].append((score, trace))  # a run that failed has no turn
    ways = [way for shared in by_start.values() if (way := _best(shared)) and way is not best]
    if ways:
        yield from supervised_rows([rng.choice(ways)], learner.codec, from_turn=1)


def _best(scored: Sequence[tuple[float, Trace]]) -> Trace | None:
    """Return the best trace where it earns something and not all are equally good."""
    score, trace = max(scored, key=lambda s: s[0])
    return trace if score > 0 and score > min(s for s, _ in scored) else None


def grpo(run: Run, learner: Learner) -> Learner:
    """Train by reward with rollouts of the graph."""
    from .grpo import run_grpo  # TRL's GRPO takes seconds to import

    config = run.config
    items = draw_items(config.data, config.grpo.steps * config.grpo.questions, config.seed + 20_000)
    run_grpo(
        learner,
        items,
        config.grpo,
        reward=config.reward,
        folder=run.folder("grpo") / "checkpoints",
        metrics=run.metrics,
        seed=config.seed,
        spending=run.spending,
        replies=run.replies,
        graph=run.graph,
        outcomes=run.outcomes,
        held_out=draw_items(config.data, config.grpo.validate_questions, config.seed, split="test")
        if config.grpo.validate_every
        else (),
        bf16=config.model.bf16,
        gradient_checkpointing=config.model.gradient_checkpointing,
        lora_rank=config.model.lora_rank,
        report_to=config.report_to,
    )
    return learner


def measure(run: Run, learner: Learner, stage: str) -> list[Numbers]:
    """Ask held-out questions greedily; return a row for each of `grpo.validate_cost_weights`.

    Their number is `evaluate_questions`, or all that there are if these are fewer. All processes
    share them, and have to call this; the first one gets the rows, which are lines of metrics, too.

    Raises:
        BudgetSpentError: the budget is spent.
    """
    config = run.config
    if not config.evaluate_questions:
        return []
    items = draw_items(config.data, config.evaluate_questions, config.seed, split="test")
    asked = at_weights(items, config.grpo.validate_cost_weights)
    controller = learner.controller()
    traces = run.share_out(f"{stage}_test", asked, controller)
    if not processes().is_main_process:
        return []
    write_traces(run.folder(stage) / "test_traces.jsonl", traces)
    judged = judged_of(traces, f"{stage}_test")
    rows = {weight: summary(some) for weight, some in by_weight(judged).items()}
    report_stage(config.report_to, stage, rows, run.folder(stage), config.out.name)
    measured = [{"cost_weight": weight, **row} for weight, row in rows.items()]
    for row in measured:
        run.log(f"{stage}_test", 0, row)
    return measured
