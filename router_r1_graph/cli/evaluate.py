"""`router-r1 evaluate`: controllers compared over questions."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import make_console
from ..context import RouterContext
from ..errors import ConfigError, MissingExtraError, did_you_mean
from ..files import require_folder, require_lines
from ..invalid import masked
from .agents import AGENT_TASKS, evaluate_agents
from .data_options import FieldOption, WhereOption, note_left_out, read_pairs
from .options import (
    MetricOption,
    PoolOption,
    SeedOption,
    about,
    load_pool,
    loading,
    note_simulated,
    takes_knobs,
    warn_budget,
)
from .store_options import takes_replies

_FIELDS = ("question", "gold", "id")

EXAMPLES = """[bold]Examples[/bold]

router-r1 evaluate demo --limit 200 --controller keyword --out runs/evaluation

router-r1 evaluate questions.jsonl --pool mine.yaml \\
  --controller openai:gpt-4.1 --out runs/mine

router-r1 evaluate questions.jsonl --pool mine.yaml \\
  --controller knn --controller mf --folds 5

# asks nobody; traces.jsonl is what router-r1 serve --trace wrote:
router-r1 evaluate questions.jsonl --off-policy traces.jsonl \\
  --controller knn:runs/knn

router-r1 evaluate nq hotpotqa --pool router_r1 \\
  --controller policy:runs/qwen/policy --cost-weight 0 --cost-weight 0.5 \\
  --out runs/paper --resume
"""


@takes_replies
@takes_knobs(but=("cost_weight", "approve_above_usd", "budget_usd", "seed"))
def evaluate(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="JSONL or CSV files; hub:OWNER/NAME/CONFIG:SPLIT; one of the paper's sets (nq, "
            "triviaqa, popqa, hotpotqa, 2wikimultihopqa, musique, bamboogle); demo, questions to "
            "the simulated pools (demo:test = in other wordings; demo:test:every = with "
            "distractors as well); or agents, simulated tasks whose steps are routed."
        ),
    ] = None,
    controller: Annotated[
        list[str] | None,
        typer.Option(
            "--controller",
            help="A controller to evaluate; router-r1 ask --help lists them. Repeatable.",
        ),
    ] = None,
    pool: PoolOption = "embedded",
    cost_weight: Annotated[
        list[float] | None,
        typer.Option(
            help="The paper's alpha: 0 = only the answer counts, 1 = only the cost. Repeatable: "
            "several give a curve.",
            show_default="0.5",
        ),
    ] = None,
    metric: MetricOption = "exact_match",
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="How many questions are drawn from each data set.",
            show_default="all",
        ),
    ] = None,
    field: FieldOption = None,
    where: WhereOption = None,
    system_prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The system prompt for the candidates to which the pool file gives none.",
        ),
    ] = None,
    budget_usd: Annotated[
        float | None,
        typer.Option(help="The most that this command may pay, for all controllers together."),
    ] = None,
    question_budget_usd: Annotated[
        float | None,
        typer.Option(
            help="The most that one question may cost.", rich_help_panel="Settings of a run"
        ),
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print the estimated cost, and ask no candidate.")
    ] = False,
    context: Any = None,
    seed: SeedOption = 0,
    concurrency: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many questions are asked at once.")
    ] = 64,
    processes: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="How many processes ask; several help if replies are recorded or simulated.",
        ),
    ] = 1,
    controls: Annotated[
        bool,
        typer.Option(
            rich_help_panel="Switches",
            help="Also run each candidate alone, a random choice and, if the pool is simulated, "
            "the oracle.",
        ),
    ] = True,
    folds: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Cross-validate, with so many folds, the controllers that are named without a "
            "folder: knn, linear, auto, reader, ...; 0 = no.",
        ),
    ] = 0,
    skip_bad: Annotated[
        bool,
        typer.Option(
            rich_help_panel="Switches", help="Skip and count broken rows instead of stopping."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The folder for the results and the report.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Append each reply to this file, for router-r1 pool from-records and router-r1 "
            "fit."
        ),
    ] = None,
    replies: Any = None,
    resume: Annotated[
        bool, typer.Option(rich_help_panel="Switches", help="Go on with the results in --out.")
    ] = False,
    langsmith: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="Write the results of each --controller to LangSmith as an experiment.",
        ),
    ] = None,
    off_policy: Annotated[
        Path | None,
        typer.Option(
            metavar="TRACES",
            help="Judge each --controller by the logged runs in this file, and ask no candidate. "
            "DATA has the gold answers that the runs do not have.",
        ),
    ] = None,
    feedback: Annotated[
        str, typer.Option(help="With --off-policy: the key of the feedback to score by.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json.")] = False,
) -> None:
    """Compare controllers over questions: score, cost, calls, each with a 95% interval."""
    if feedback and off_policy is None:
        raise ConfigError("--feedback needs --off-policy: only logged runs have any")
    if not data and off_policy is None:
        raise ConfigError("name the questions: a file or a data set, such as demo")
    data = data or []
    fields, wanted = read_pairs("--field", field), read_pairs("--where", where)
    for name in fields:
        if name not in _FIELDS:
            near = did_you_mean(name, _FIELDS)
            raise ConfigError(f"--field {name}{near}: only {', '.join(_FIELDS)} can be named")
    for weight in cost_weight or []:
        with about("--cost-weight"):
            RouterContext(cost_weight=weight)
    with about("--budget-usd"):
        whole = RouterContext(budget_usd=budget_usd)
    with about("--question-budget-usd"):
        context = replace(context, budget_usd=question_budget_usd, seed=seed)
    if langsmith and not out:
        raise ConfigError("--langsmith needs --out: the traces that it sends are kept there")
    require_folder("--out", out)
    if not (out and record and record.absolute().parent == out.absolute()):
        require_lines("--record", record, "replies")
    if data == ["agents"]:
        if cost_weight and len(cost_weight) > 1:
            raise ConfigError("evaluate agents: one --cost-weight, not several")
        evaluate_agents(
            controller or (),
            cost_weight=cost_weight[0] if cost_weight else None,
            count=limit or AGENT_TASKS,
            seed=seed,
            out=out,
            as_json=as_json,
        )
        return
    candidates = load_pool(pool)
    if system_prompt is not None:
        candidates = candidates.told(system_prompt)
    warn_budget(candidates, whole if question_budget_usd is None else context)
    context.check(candidates)
    if off_policy is None:
        candidates.require_keys()
    with loading("the evaluation"):
        try:
            from ..evaluation.plan import Evaluation
            from ..evaluation.program import estimate_of
            from ..evaluation.program import evaluate as run
            from ..evaluation.questions import Reader
            from ..evaluation.report import show
            from ..evaluation.scorers import parse_scorer
        except ImportError as error:  # numpy
            raise MissingExtraError("router-r1 evaluate", "eval", error) from error
        with about("--metric"):
            parse_scorer(metric)
        reader = Reader(data, fields, wanted, limit, seed, skip_bad)
        questions = reader.read() if data else []
    if off_policy is not None:
        from .off_policy import judge_logs

        judge_logs(
            off_policy,
            controller or [],
            cost_weight or [None],
            {question.question: question.gold for question in questions},
            metric,
            feedback,
            seed,
            out,
            as_json,
        )
        return
    if any(source.partition(":")[0] != "demo" for source in data):
        note_simulated(candidates)
    plan = Evaluation(
        pool=candidates,
        questions=questions,
        controllers=controller or [],
        cost_weights=cost_weight or [0.5],
        context=context,
        metric=metric,
        controls=controls,
        concurrency=concurrency,
        processes=processes,
        out=out,
        folds=folds,
        record=record,
        replies=replies,
        resume=resume,
        seed=seed,
        skipped=reader.skipped,
        budget_usd=budget_usd,
        command=masked(shlex.join(["router-r1", *sys.argv[1:]])),
    )
    if estimate:
        print(estimate_of(plan))
        return
    try:
        summary = run(plan, make_console(stderr=True))
    except KeyboardInterrupt:
        kept = f"; go on with --out {out} --resume" if out else ""
        print(f"stopped{kept}", file=sys.stderr)
        raise SystemExit(130) from None
    if langsmith and out:
        from .experiments import write_experiments

        write_experiments(out / "results.jsonl", plan.controllers, langsmith)
    if as_json:
        print(json.dumps(summary.to_json(), ensure_ascii=False))
    else:
        show(summary, make_console())
        note_left_out(reader)
        if out:
            print(f"\nReport: {out}/report.html, {out}/report.md, {out}/summary.json")
            print(f"Open it: router-r1 report {out}; learn from it: router-r1 fit knn --data {out}")
