"""The stages of a run: warm start and GRPO (best of n has a module), and their measurement.

Each stage leaves a policy, and can be resumed.
"""

from __future__ import annotations

from collections.abc import Iterator

from router_r1_graph import Trace, write_traces

from .fit import fit
from .items import draw_items
from .learned_rows import LeftOut, warm_rows
from .measurement import Numbers, at_weights, by_weight, summary
from .models import Learner, load_learner, make_learner, processes
from .prompts import askable
from .rollouts import judged_of
from .run import Run
from .teacher_traces import warm_traces
from .trackers import report_stage


def warm_start(run: Run) -> Learner:
    """Fit on the traces of the teacher, or of the files that the config names."""
    config = run.config
    folder = run.folder("warm_start")
    folder.mkdir(parents=True, exist_ok=True)
    traces = warm_traces(run)
    if config.model.pretrained:
        learner = load_learner(config.model)
    else:
        learner = make_learner(config.model, _texts(traces()), config.seed)
    left_out = LeftOut()
    rows = warm_rows(run, traces(), learner.codec, "warm_start", left_out=left_out)
    run.log_once("warm_start_rows", 0, {"learned": len(rows), "left_out": len(left_out)})
    fit(
        learner,
        rows,
        config.warm_start,
        folder=folder / "checkpoints",
        **run.fit_options("warm_start", config.seed),
    )
    return learner


def _texts(traces: Iterator[Trace]) -> Iterator[str]:
    """Yield the texts for the tokenizer: descriptors, questions, turns and replies."""
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
        measured=config.evaluate_questions * len(config.grpo.validate_cost_weights),
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
        ConfigError: the prompts of all questions are too long.
    """
    config = run.config
    if not config.evaluate_questions:
        return []
    items = draw_items(config.data, config.evaluate_questions, config.seed, split="test")
    weights = config.grpo.validate_cost_weights
    items = [item for item, _ in askable(items, learner, f"{stage}_test", weights)]
    asked = at_weights(items, weights)
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
        run.log_once(f"{stage}_test", 0, row)
    return measured
