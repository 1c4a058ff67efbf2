"""The report of a run, also of one that is running, and the model card of its policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from router_r1_graph import protocol
from router_r1_graph.errors import MissingExtraError
from router_r1_graph.evaluation.page import Table, table_markdown
from router_r1_graph.evaluation.statistics import Interval
from router_r1_graph.words import counted, fixed, rounded, usd

from .config import RunConfig
from .curves import draw_curves
from .history import History, read_history
from .measurement import Numbers
from .questions import how_held_out
from .spending import Paid

_USABLE = 0.5
"""The share of readable answers below which a policy should not be used."""


def write_report(folder: Path) -> Path:
    """Write `report.md`, and its pictures in `report/`, from the folder of a run.

    Args:
        folder: of a run, which may be running.

    Returns:
        The report's file.

    Raises:
        ConfigError: no run has begun there.
    """
    history = read_history(folder)
    try:
        pictures = draw_curves(history, folder / "report")
        note = ""
    except MissingExtraError as error:
        pictures, note = [], f"There are no pictures: {error}"
    parts = [
        f"# {folder.resolve().name}",
        _made(history),
        "## Held-out questions",
        _held_out(history),
        "## Cost",
        _cost(history),
    ]
    if history.steps or history.validations:
        parts += ["## GRPO", _progress(history)]
    parts += [f"![{path.stem}](report/{path.name})" for path in reversed(pictures)]
    parts += [note] if note else []
    file = folder / "report.md"
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return file


def write_card(folder: Path, policy: Path) -> None:
    """Write the model card of a finished policy: its run and its results.

    Args:
        folder: of the run.
        policy: the policy folder.
    """
    history = read_history(folder)
    config = history.config
    base = config.model.pretrained
    on_hub = base and not base.startswith((".", "/"))
    # The license of a pretrained model is its makers' to give.
    kind = (f"base_model: {base}" if on_hub else "") if base else "license: apache-2.0"
    head = [kind, "library_name: transformers", "tags: [router-r1, langgraph, llm-router]"]
    lines = "\n".join(line for line in head if line)
    parts = [
        f"---\n{lines}\n---",
        "# A Router-R1 policy",
        _made(history),
        "## How it was trained",
        "\n".join(f"- {line}" for line in _training(history)),
        "## Held-out questions",
        _held_out(history),
        "## Cost of the run",
        _cost(history),
        "## Use",
        next_step(history.measured, config.hub.repo or policy),
        "In Python: `PolicyController.from_pretrained(...)` as the controller of "
        "`create_router_r1`.",
    ]
    (policy / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def next_step(measured: Mapping[str, Sequence[Numbers]], policy: Path | str) -> str:
    """Return how to use the policy, or that it is not usable yet: most turns are unreadable.

    Args:
        measured: the stages in order, each with a row for each cost weight.
        policy: its folder, or its name on the hub.
    """
    rows = list(measured.values())[-1] if measured else []
    share = min((row["format"] for row in rows), default=1.0)
    if share < _USABLE:
        return (
            f"Not usable yet: {share:.0%} of its answers to held-out questions can be read (format "
            f"{share:.2f}). It needs more training, as in training/configs/demo.yaml; to see what "
            f"it writes: --controller policy:{policy}"
        )
    return f'Use it: router-r1 ask "Who wrote Hamlet?" --controller policy:{policy}'


def told(stage: str, rows: Sequence[Numbers]) -> Iterable[str]:
    """Yield a line for each cost weight that a stage was measured at, for a terminal."""
    for row in rows:
        yield (
            f"{stage}: cost weight {row['cost_weight']:g}: {_right(row)} {_share(row)}, "
            f"{usd(row['cost_usd'])} a question, {rounded(row['calls'], 2)} calls, format "
            f"{rounded(row['format'], 2)}"
        )


def _made(history: History) -> str:
    config, made = history.config, history.made
    return (
        f"Made {made['date'][:10]} at commit {made['commit'][:12]} by `{made['command']}`, stages "
        f"{', '.join(config.stages)}, seed {config.seed}. Protocol version {protocol.VERSION}."
    )


def _training(history: History) -> list[str]:
    """Return a description of each stage, in a sentence or two."""
    config = history.config
    model = config.model
    lines = [f"The model: {model.pretrained}." if model.pretrained else "A model from scratch."]
    if model.lora_rank:
        lines.append(f"LoRA of rank {model.lora_rank}.")
    for stage in config.stages:
        lines.append({"warm_start": _warm, "best_of_n": _best_of_n, "grpo": _grpo}[stage](history))
    if {"best_of_n", "grpo"} & {*config.stages}:
        rules = config.reward
        gated = "for right answers only" if rules.gated else "for wrong answers, too"
        lines.append(
            f"The reward: {rules.metric.replace('_', ' ')}, and cost on the scale {rules.scale}, "
            f"{gated}."
        )
    return lines


def _warm(history: History) -> str:
    config = history.config.warm_start
    learned, left_out = history.learned or (0, 0)
    count = f"{counted(learned, 'trace')} learned, {left_out:,} left out"
    if config.trace_files:
        return f"Warm start: {counted(len(config.trace_files), 'file')} of traces, {count}."
    return (
        f"Warm start: the teacher's traces, {count}. They show the format, how to split a question "
        "and how to read descriptors aloud; whom to ask was drawn from habits good and bad in "
        "equal parts."
    )


def _best_of_n(history: History) -> str:
    config = history.config.best_of_n
    teacher = ""
    if config.teacher_questions:
        teacher = (
            f"the best of {config.teacher_samples} traces of the teacher for each of "
            f"{counted(config.teacher_questions, 'question')}, then "
        )
    return (
        f"Best of n: {teacher}{counted(config.rounds, 'round')} of "
        f"{counted(config.questions, 'question')} with {config.samples} traces each."
    )


def _grpo(history: History) -> str:
    config = history.config.grpo
    best = history.best_step
    kept = "" if best is None else f" The weights are those of step {best}, the best on validation."
    return (
        f"GRPO: {counted(len(history.steps), 'step')} of {counted(config.questions, 'question')} "
        f"with {config.group} rollouts each, credit `{config.advantage}`.{kept}"
    )


def _held_out(history: History) -> str:
    """Return the table of the results of each stage."""
    everything = [row for measured in history.measured.values() for row in measured]
    right = _right(everything[0]) if everything else "exact match"
    head = ["after", "cost weight", "questions", right, "USD / 1,000", "calls", "rounds"]
    rows: Table = [[*head, "format"]]
    for stage, measured in history.measured.items():
        for row in measured:
            cost = [fixed(1000 * value, 4) for value in _interval(row, "cost_usd")]
            rows.append(
                [
                    stage,
                    f"{row['cost_weight']:g}",
                    f"{row['questions']:,}",
                    _share(row),
                    f"{cost[0]} [{cost[1]}, {cost[2]}]",
                    *(rounded(row[name], 2) for name in ("calls", "rounds", "format")),
                ]
            )
    if len(rows) == 1:
        return "Not measured."
    return (
        "Asked greedily, with 95% bootstrap intervals over the questions. "
        f"{how_held_out(history.config.data)}\n\n{table_markdown(rows)}"
    )


def _cost(history: History) -> str:
    """Return the bill by stage, and the estimate from the first step of GRPO."""
    if not history.bills:
        return "Nothing was paid: no candidate but simulated ones was asked."
    rows: Table = [["stage", "USD paid", "USD saved by the store", "calls", "stored calls"]]
    every = sum(history.bills.values(), Paid())
    for stage, paid in [*history.bills.items(), ("all", every)]:
        calls = [f"{paid.calls:,}", f"{paid.stored_calls:,}"]
        rows.append([stage, usd(paid.usd), usd(paid.saved_usd), *calls])
    text = table_markdown(rows)
    budget = history.config.budget_usd
    if budget is not None:
        text += f"\n\nThe budget: {usd(budget)}."
    if estimate := _estimate(history.config, history.steps):
        text += f"\n\n{estimate}"
    return text


def _estimate(config: RunConfig, lines: Sequence[Numbers]) -> str:
    first = next(islice((line.get("usd", 0.0) for line in lines), 1), 0.0)
    if not first:
        return ""
    steps = counted(config.grpo.steps, "step")
    paid = sum(line.get("usd", 0.0) for line in lines)
    return (
        f"The first step of GRPO cost {usd(first)}: by it, {steps} would cost about "
        f"{usd(first * config.grpo.steps)}. {counted(len(lines), 'step')} cost {usd(paid)}."
    )


def _progress(history: History) -> str:
    config = history.config.grpo
    text = f"{counted(len(history.steps), 'step')} of {config.steps:,}."
    if history.best_step is not None:
        weights = ", ".join(f"{weight:g}" for weight in config.validate_cost_weights)
        text += (
            f" The best validation is that of step {history.best_step} (mean reward over the cost "
            f"weights {weights})."
        )
    return text


def _share(row: Numbers) -> str:
    return str(Interval(*_interval(row, _right(row).replace(" ", "_"))))


def _right(row: Numbers) -> str:
    """Return the numbers that show how good the answers of a row are."""
    return "outcome" if "outcome" in row else "exact match"


def _interval(row: Numbers, name: str) -> tuple[float, float, float]:
    return row[name], row[f"{name}_low"], row[f"{name}_high"]
