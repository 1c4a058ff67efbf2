"""The command line: `router-r1 ask | demo | evaluate | fit | serve | pool | traces`.

Whatever is wrong with the input is one line on stderr and exit code 2, before anything is asked.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from .errors import ConfigError, MissingExtraError, QuestionError, RouterR1Error

if TYPE_CHECKING:  # LangGraph takes half a second: imported by the commands, not for --help
    from .candidates import CandidatePool
    from .context import CandidateContext, RouterContext

_HELP = {"context_settings": {"help_option_names": ["-h", "--help"]}}
app = typer.Typer(
    help="Router-R1: asks the right LLMs the right questions for the least money.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    **_HELP,  # type: ignore[arg-type]
)
pools = typer.Typer(
    help="Look at pools of candidates, and make one from records.",
    no_args_is_help=True,
    **_HELP,  # type: ignore[arg-type]
)
app.add_typer(pools, name="pool")
traces = typer.Typer(
    help="Look at finished runs, and fetch them.",
    no_args_is_help=True,
    **_HELP,  # type: ignore[arg-type]
)
app.add_typer(traces, name="traces")

PoolOption = Annotated[
    str,
    typer.Option(
        "--pool", help="A pool file, or a shipped pool: embedded, embedded_unseen, router_r1."
    ),
]
ControllerOption = Annotated[
    str | None,
    typer.Option(
        "--controller",
        help="Who decides: keyword, cheapest, random[:SEED], constant:NAME, cascade, vote[:N], "
        "oracle, openai:MODEL, policy:PATH, 'completions:URL?policy=PATH&model=NAME' (a policy on "
        "vLLM or SGLang), knn:DIR and others that fit wrote, or pool (the pool's controller block, "
        "the default where there is one).",
        show_default="pool, else policy:demo, else keyword",
    ),
]

_ASK_EXAMPLES = """[bold]Examples[/bold]

router-r1 ask "What is the currency of the country where the author of Hamlet was born?"

router-r1 ask "Who wrote Hamlet?" --pool mine.yaml --controller openai:gpt-4.1 --budget-usd 0.01

router-r1 ask "Who wrote Hamlet?" --json | jq .answer
"""


@app.command(epilog=_ASK_EXAMPLES)
def ask(
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from standard input.")],
    pool: PoolOption = "embedded",
    controller: ControllerOption = None,
    cost_weight: Annotated[
        float, typer.Option(help="0 = only the answer counts, 1 = only the cost.")
    ] = 0.5,
    max_rounds: Annotated[int, typer.Option(help="Rounds of calls before it has to answer.")] = 4,
    max_calls: Annotated[int, typer.Option(help="Most calls in one round.")] = 4,
    budget_usd: Annotated[float | None, typer.Option(help="Most USD of the run.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Most seconds of the run.")] = None,
    candidate_context: Annotated[
        str,
        typer.Option(
            help="What a candidate is told beside its query: query (nothing), question, or memory "
            "(the question, and what of earlier rounds fits)."
        ),
    ] = "query",
    keep: Annotated[
        str,
        typer.Option(
            help="What the controller is shown of a round: all, vote (of replies to one query, the "
            "one that most agree with), or summary:CANDIDATE."
        ),
    ] = "all",
    approve_above_usd: Annotated[
        float | None,
        typer.Option(help="Ask y/n before a call that may cost more, or has no price."),
    ] = None,
    seed: Annotated[int, typer.Option(help="For controllers that draw at random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Append the whole run to this JSONL file.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Append every reply to this JSONL file, for router-r1 pool from-records."
        ),
    ] = None,
) -> None:
    """Ask a question, and see who was asked what, what it cost, and why it stopped."""
    from .context import RouterContext

    if question == "-":
        question = sys.stdin.buffer.read().decode(errors="replace")
    question = os.fsencode(question).decode(errors="replace").strip()
    if not question:
        raise QuestionError("the question is empty; ask something: router-r1 ask QUESTION")
    context = RouterContext(
        cost_weight=cost_weight,
        max_rounds=max_rounds,
        max_calls_per_round=max_calls,
        budget_usd=budget_usd,
        deadline_seconds=deadline,
        candidate_context=cast("CandidateContext", candidate_context),
        keep=keep,
        approve_above_usd=approve_above_usd,
        seed=seed,
    )
    if approve_above_usd is not None and not sys.stdin.isatty():
        raise ConfigError("--approve-above-usd asks you: standard input has to be a terminal")
    _require_writable("--trace", trace)
    _require_writable("--record", record)
    _ask(question, _pool(pool), controller, context, as_json, trace, record)


def _require_writable(option: str, file: Path | None) -> None:
    """Check that a file can be appended to, and leave nothing behind.

    Raises:
        ConfigError: it cannot.
    """
    if file is None:
        return
    try:
        new = not file.exists()
        file.open("a", encoding="utf-8").close()
        if new:
            file.unlink()
    except OSError as error:
        raise ConfigError(f"{option} {file}: cannot be written: {error.strerror}") from error


def _ask(
    question: str,
    pool: CandidatePool,
    spec: str | None,
    context: RouterContext,
    as_json: bool,
    trace_file: Path | None,
    record_file: Path | None,
) -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    from .graph import create_router_r1
    from .ledger import total
    from .live import LiveRun
    from .records import Recorder
    from .trace import Trace, write_traces
    from .transcript import Transcript, make_console

    context.check(pool)
    controller = _controller(spec, pool)
    unpriced = [c.name for c in pool.candidates if not c.bounded]
    if context.budget_usd is not None and unpriced:
        print(
            f"warning: no price for {', '.join(unpriced)}: the budget does not bound them",
            file=sys.stderr,
        )
    saver = InMemorySaver() if context.approve_above_usd is not None else None
    graph = create_router_r1(pool, controller, context=context).compile(saver, name="router_r1")
    transcript = None if as_json else Transcript(make_console(), pool)
    callbacks = [Recorder(record_file)] if record_file else []
    approve = _approve if saver else None
    live = LiveRun(graph, pool, question, context, transcript, callbacks, approve)
    try:
        if transcript:
            transcript.question(question)
            with transcript:
                state = asyncio.run(live.run())
        else:
            state = asyncio.run(live.run())
    except KeyboardInterrupt:
        known = live.known()
        if transcript:
            for unanswered in live.unanswered():
                transcript.reply(unanswered)
            transcript.answer(known["answer"], "interrupted")
            transcript.bill(known["ledger"], live.ledger())
        else:
            _print_json(known)
        raise
    record = Trace.from_state(state, pool=pool, controller=controller.name, context=context)
    if trace_file is not None:
        write_traces(trace_file, [record], append=True)
    if transcript:
        transcript.answer(record.answer, record.stop_reason, record.error)
        transcript.bill(total(record.ledger), record.ledger)
    else:
        if record.error:
            print(f"controller {controller.name} failed: {record.error}", file=sys.stderr)
        _print_json(record.summary())


def _approve(call: Mapping[str, Any]) -> bool:
    """Ask whoever sits at the terminal whether a call may be made; all but "y" is a no."""
    from .transcript import clean, usd

    worst = call["worst_case_usd"]
    price = "no price is known" if worst is None else f"at most {usd(worst)}"
    asked = clean(f"{call['candidate']}: {call['query']}  [{price}]")
    # Nothing else runs meanwhile, and Ctrl-C is not to wait for asyncio, which waits for us.
    asyncios = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # On standard error: with --json, standard output is one object.
        print(f"approve?  {asked} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    finally:
        signal.signal(signal.SIGINT, asyncios)


_DEMO_EXAMPLES = """[bold]Examples[/bold]

router-r1 demo

router-r1 demo --questions 50 --pool embedded_unseen

router-r1 demo --json | jq .controllers
"""


@app.command(epilog=_DEMO_EXAMPLES)
def demo(
    questions: Annotated[int, typer.Option(min=1, help="Test questions of the table.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the questions.")] = 0,
    pool: PoolOption = "embedded",
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON only.")] = False,
) -> None:
    """Take a two-minute tour: a pool, some questions, and a table of controllers."""
    from .tour import compare, run_tour
    from .transcript import make_console

    if not as_json:
        run_tour(make_console(), _pool(pool), questions=questions, seed=seed)
        return
    scores = asyncio.run(compare(_pool(pool), questions, seed))
    rows = [asdict(score) for score in scores]
    _print_json({"questions": questions, "seed": seed, "controllers": rows})


_EVALUATE_EXAMPLES = """[bold]Examples[/bold]

router-r1 evaluate demo --limit 200 --controller keyword --out runs/evaluation

router-r1 evaluate questions.jsonl --pool mine.yaml --controller openai:gpt-4.1 --out runs/mine

router-r1 evaluate questions.jsonl --pool mine.yaml --controller knn --controller mf --folds 5

router-r1 evaluate nq hotpotqa --pool router_r1 --controller policy:runs/qwen/policy \\
  --cost-weight 0 --cost-weight 0.5 --cost-weight 0.9 --out runs/paper --resume
"""


@app.command(epilog=_EVALUATE_EXAMPLES)
def evaluate(
    data: Annotated[
        list[str],
        typer.Argument(
            help="JSONL or CSV files, hub:OWNER/NAME/CONFIG:SPLIT, one of the paper's sets (nq, "
            "triviaqa, popqa, hotpotqa, 2wikimultihopqa, musique, bamboogle), or demo."
        ),
    ],
    controller: Annotated[
        list[str] | None, typer.Option("--controller", help="What to evaluate; several may stand.")
    ] = None,
    pool: PoolOption = "embedded",
    cost_weight: Annotated[
        list[float] | None, typer.Option(help="Several give a curve.", show_default="0.5")
    ] = None,
    metric: Annotated[
        str,
        typer.Option(help="exact_match, f1, contains, choice, number, or module:function."),
    ] = "exact_match",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions drawn of each data set.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="What your file calls it: question=NAME, gold=NAME, id=NAME."),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only rows with this value: FIELD=VALUE.")
    ] = None,
    max_rounds: Annotated[int, typer.Option(help="Rounds of calls of a question.")] = 4,
    budget_usd: Annotated[float | None, typer.Option(help="Most USD of a question.")] = None,
    seed: Annotated[int, typer.Option(help="Of drawn questions, controllers, resamples.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 64,
    controls: Annotated[
        bool,
        typer.Option(help="Also run every single candidate, random and (if simulated) oracle."),
    ] = True,
    folds: Annotated[
        int,
        typer.Option(
            min=0, help="Cross-validate knn, mf, irt, features, encoder in so many parts."
        ),
    ] = 0,
    skip_bad: Annotated[bool, typer.Option(help="Count broken rows instead of stopping.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of results and report.")] = None,
    record: Annotated[
        Path | None, typer.Option(help="Append every reply to this file, for a recorded pool.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the results in --out.")] = False,
    langsmith: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET", help="Write each --controller to LangSmith, as an experiment."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json.")] = False,
) -> None:
    """Compare controllers over questions: score, cost, calls, each with a 95% interval."""
    from rich.console import Console

    from .context import RouterContext
    from .errors import MissingExtraError

    try:
        from .evaluation import Reader
        from .evaluation.program import Plan
        from .evaluation.program import evaluate as run
        from .evaluation.report import show
    except ImportError as error:  # numpy
        raise MissingExtraError("router-r1 evaluate", "eval") from error

    reader = Reader(data, _pairs(field), _pairs(where), limit, seed, skip_bad)
    plan = Plan(
        pool=_pool(pool),
        questions=reader.read(),
        controllers=controller or [],
        cost_weights=cost_weight or [0.5],
        context=RouterContext(max_rounds=max_rounds, budget_usd=budget_usd, seed=seed),
        metric=metric,
        controls=controls,
        concurrency=concurrency,
        out=out,
        folds=folds,
        record=record,
        resume=resume,
        seed=seed,
        skipped=reader.skipped,
    )
    plan.pool.require_keys()
    if langsmith and not out:
        raise ConfigError("--langsmith needs --out: the traces that it sends are kept there")
    try:
        summary = run(plan, Console(stderr=True))
    except KeyboardInterrupt:
        kept = f"; go on with --out {out} --resume" if out else ""
        print(f"stopped{kept}", file=sys.stderr)
        raise SystemExit(130) from None
    if langsmith and out:
        _write_experiments(out / "results.jsonl", plan.controllers, langsmith)
    if as_json:
        print(json.dumps(summary.to_json(), ensure_ascii=False))
    else:
        show(summary, Console(highlight=False))
        for reason in reader.skipped[:5]:
            print(f"left out: {reason}", file=sys.stderr)
        if reader.skipped:
            print(f"{len(reader.skipped)} rows left out", file=sys.stderr)
        if reader.repeated:
            print(f"{reader.repeated} rows repeat a question: it was asked once", file=sys.stderr)
        if out:
            print(f"\nReport: {out}/report.html, {out}/report.md, {out}/summary.json")


def _write_experiments(results: Path, controllers: Sequence[str], dataset: str) -> None:
    """Write one experiment for each controller and cost weight."""
    from langsmith import Client

    from .rewards import AbsoluteCost
    from .trace import Trace, read_traces
    from .tracing import write_experiment

    groups: dict[tuple[str, float], list[Trace]] = {}
    for trace in read_traces(results):
        if trace.controller in controllers:
            groups.setdefault((trace.controller, trace.context.cost_weight), []).append(trace)
    client = Client()
    for (controller, _), group in groups.items():
        name = write_experiment(group, dataset=dataset, client=client, scale=AbsoluteCost(1e-3))
        print(f"LangSmith: {controller} is experiment {name} of {dataset}", file=sys.stderr)


def _pairs(items: list[str] | None) -> dict[str, str]:
    pairs = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ConfigError(f"{item!r}: it is NAME=VALUE")
        pairs[name] = value
    return pairs


@traces.command("show")
def traces_show(
    file: Annotated[Path, typer.Argument(help="A JSONL file of traces, or results.jsonl.")],
    id: Annotated[str | None, typer.Option("--id", help="Only this question's.")] = None,
    controller: Annotated[str | None, typer.Option(help="Only this controller's.")] = None,
) -> None:
    """Print runs as transcripts."""
    from .trace import read_traces
    from .transcript import Transcript, make_console

    shown = 0
    for trace in read_traces(file):
        if (id is not None and trace.id != id) or (controller and trace.controller != controller):
            continue
        if shown:
            print()
        Transcript(make_console(), trace.pool).whole(trace)
        shown += 1
    if not shown:
        raise ConfigError(f"{file}: no such trace in it")


_FIT_EXAMPLES = """[bold]Examples[/bold]

router-r1 fit knn --data traces.jsonl --out runs/knn

router-r1 fit mf --data routerbench.csv --pool mine.yaml --out runs/mf --set dim=64 --seed 1

router-r1 fit features --add-to runs/features --data new.jsonl --out runs/features_more
"""


@app.command(epilog=_FIT_EXAMPLES)
def fit(
    method: Annotated[str, typer.Argument(help="knn, mf, irt, features or encoder.")],
    data: Annotated[
        Path,
        typer.Option(help="Traces of constant controllers, recorded replies, or a score matrix."),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    seed: Annotated[int, typer.Option(help="Of whatever is drawn.")] = 0,
    pool: Annotated[
        str | None, typer.Option(help="Who may stand in the data, with prices; else as it says.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only data of this split.")] = None,
    metric: Annotated[str, typer.Option(help="For traces and replies: exact_match, f1.")] = (
        "exact_match"
    ),
    embedding: Annotated[str, typer.Option(help="Of the questions: tfidf, minilm.")] = "tfidf",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="k=20 (knn), clusters=20 (features), dim=32 and epochs=60."),
    ] = None,
    add_to: Annotated[
        Path | None,
        typer.Option(help="features only: add the data's candidates to this folder's."),
    ] = None,
) -> None:
    """Fit a learned controller, which then is `--controller NAME:DIR`."""
    try:
        from .controllers.learned import LearnedController
        from .scores import Metric, load_scores
    except ImportError as error:
        raise MissingExtraError(f"fit {method}", "eval") from error
    if metric not in ("exact_match", "f1"):
        raise ConfigError(f"--metric is exact_match or f1, not {metric!r}")
    options = {}
    for setting in settings or []:
        key, _, value = setting.partition("=")
        if not value.isdecimal():
            raise ConfigError(f"--set is NAME=NUMBER, not {setting!r}")
        options[key] = int(value)
    scored = cast("Metric", metric)
    matrix = load_scores(data, _pool(pool) if pool else None, split=split, metric=scored)
    try:
        if add_to is not None:
            controller = LearnedController.load(add_to).add(matrix)
            if controller.method != method:
                raise ConfigError(f"--add-to {add_to}: holds {controller.method}, not {method}")
        else:
            controller = LearnedController.fit(
                method, matrix, seed=seed, embedding=embedding, options=options
            )
    except ImportError as error:
        raise MissingExtraError(f"fit {method}", "local") from error
    try:
        controller.save(out)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    if controller.cost_source == "prices" and not controller.costs.any():
        print("warning: no costs and no prices: the cost weight has no effect", file=sys.stderr)
    print(
        f"{method}: {len(matrix.questions)} questions x {len(matrix.names)} candidates -> "
        f"--controller {method}:{out}"
    )


_SERVE_EXAMPLES = """[bold]Examples[/bold]

router-r1 serve --port 8000

router-r1 serve --pool mine.yaml --controller openai:gpt-4.1 --api-key-env ROUTER_KEY

OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="x")  # model="router-r1"
"""


@app.command("serve", epilog=_SERVE_EXAMPLES)
def serve_command(
    pool: PoolOption = "embedded",
    controller: ControllerOption = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free one.")] = 8000,
    max_concurrency: Annotated[
        int, typer.Option(min=1, help="Questions that are answered at once.")
    ] = 64,
    queue: Annotated[
        int, typer.Option(min=0, help="Questions that may wait; the rest is refused (429).")
    ] = 256,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="The NAME of the variable with the key that clients have to send."),
    ] = None,
) -> None:
    """Serve the router behind OpenAI's API, until SIGTERM or Ctrl-C."""
    from .chat_router import ChatRouterR1

    try:
        from .serving import create_app, listen, serve
    except ImportError as error:
        raise MissingExtraError("router-r1 serve", "serve") from error
    key = os.environ.get(api_key_env, "").strip() if api_key_env else ""
    if api_key_env and not key:
        raise ConfigError(f"--api-key-env: the environment variable {api_key_env} is not set")
    candidates = _pool(pool)
    model = ChatRouterR1(pool=candidates, controller=controller)
    api = create_app(model, max_concurrency=max_concurrency, queue=queue, api_key=key)
    listening = listen(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1"
    print(f"serving {candidates.name} by {model.controller.name} at {url}", file=sys.stderr)
    if not key and host not in ("127.0.0.1", "::1", "localhost"):
        print("warning: no --api-key-env: whoever reaches it spends your money", file=sys.stderr)
    serve(api, listening)


@pools.command("show", epilog="[bold]Example[/bold]\n\nrouter-r1 pool show router_r1")
def pool_show(
    file: Annotated[str, typer.Argument(help="A pool file or a shipped pool.")] = "embedded",
) -> None:
    """Show the candidates of a pool with their descriptors."""
    from .tour import pool_table
    from .transcript import make_console

    console = make_console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console.width = 200
    console.print(pool_table(_pool(file)))


@pools.command("check", epilog="[bold]Example[/bold]\n\nrouter-r1 pool check mine.yaml")
def pool_check(
    file: Annotated[str, typer.Argument(help="A pool file or a shipped pool.")],
) -> None:
    """Check a pool file, its keys and its providers, without asking anybody."""
    from .controllers import parse_controller
    from .recorded import strangers
    from .tools import pool_tools

    pool = _pool(file)
    tools = pool_tools(pool)
    if pool.controller:
        parse_controller("pool", pool)
    unpriced = [c.name for c in pool.candidates if not c.bounded]
    print(f"{pool.name}: {len(tools)} candidates, all can be asked")
    if pool.controller:
        print(f"controller: {pool.controller.model} ({pool.controller.protocol})")
    if unpriced:
        names = ", ".join(unpriced)
        print(f"warning: no price for {names}: a budget in USD does not bound them")
    if others := strangers(pool):
        print(f"warning: there are records of {', '.join(others)}, not in this pool")


_FROM_RECORDS_EXAMPLES = """[bold]Examples[/bold]

router-r1 pool from-records records.jsonl --out replay.yaml

router-r1 pool from-records nq.jsonl --out nq.yaml --fields candidate=model,reply=response
--gold-field gold --split train
"""


@pools.command("from-records", epilog=_FROM_RECORDS_EXAMPLES)
def pool_from_records(
    file: Annotated[
        Path, typer.Argument(help="JSON lines, as router-r1 ask --record writes them.")
    ],
    out: Annotated[
        Path, typer.Option(help="The pool file to write; one that is there is replaced.")
    ],
    fields: Annotated[
        str, typer.Option(help="What the file calls a field: question=q,reply=text,...")
    ] = "",
    gold_field: Annotated[
        str | None, typer.Option(help="The field with the gold answers: candidates are scored.")
    ] = None,
    split_field: Annotated[str, typer.Option(help="The field with the split's name.")] = "split",
    split: Annotated[
        str | None, typer.Option(help="Measure on this split only, such as train.")
    ] = None,
) -> None:
    """Write a pool that replays recorded replies, described by what they cost, took and scored."""
    from .measurement import Source, pool_from_records
    from .records import unknown_field

    names: dict[str, str] = {}
    for pair in filter(None, fields.split(",")):
        name, equals, theirs = (part.strip() for part in pair.partition("="))
        if not (name and equals and theirs):
            raise ConfigError(f"--fields: write question=q,reply=text, not {pair!r}")
        names[name] = theirs
    if wrong := unknown_field(names):
        raise ConfigError(f"--fields: {wrong}")
    pool = pool_from_records(Source(file, names, gold_field, split_field, split), out)
    if gold_field and split is None:
        print(
            "warning: scored on all the questions; name a --split to keep test questions out",
            file=sys.stderr,
        )
    print(f"{out}: {len(pool.candidates)} candidates")


_FROM_LANGSMITH_EXAMPLES = """[bold]Examples[/bold]

router-r1 traces from-langsmith my-project --since 2026-11-01 --out traces.jsonl

router-r1 traces from-langsmith my-project --filter 'gte(start_time, "2026-11-20")' | jq .answer
"""


@traces.command("from-langsmith", epilog=_FROM_LANGSMITH_EXAMPLES)
def traces_from_langsmith(
    project: Annotated[str, typer.Argument(help="A LangSmith project or experiment.")],
    filter: Annotated[
        str | None, typer.Option(help="Which of its router runs, in LangSmith's filter language.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Runs that began at this time (UTC) or later.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; standard output when left out.")
    ] = None,
) -> None:
    """Turn LangSmith's runs back into traces, a JSON line each (for training, among others)."""
    from .trace import write_traces
    from .tracing import read_langsmith

    since = since and since.replace(tzinfo=UTC)
    traces = read_langsmith(project, filter=filter, since=since)
    if out is None:
        for trace in traces:
            _print_json(trace.model_dump(mode="json"))
        return
    try:
        count = write_traces(out, traces)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    print(f"{out}: {count} traces", file=sys.stderr)


def _print_json(data: dict[str, Any]) -> None:
    """Print one object, as it is where standard output can say it, and escaped elsewhere.

    What could control a terminal is escaped in any case: it is the same JSON.
    """
    from .transcript import CONTROL

    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(data, ensure_ascii=not utf8)
    print(CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"router-r1-graph {version('router-r1-graph')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _pool(name: str) -> CandidatePool:
    from .candidates import CandidatePool

    return CandidatePool.from_yaml(name)


def _controller(spec: str | None, pool: CandidatePool) -> Any:
    from .controllers import default_spec, parse_controller

    if spec is None:
        spec, note = default_spec(pool)
        if note:
            print(f"note: {note}", file=sys.stderr)
    return parse_controller(spec, pool)


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal in ASCII is no reason to crash
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    try:
        app()
    except RouterR1Error as error:
        print(f"router-r1: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
