"""What somebody meets who has never used it: own modules, first lines, and errors that help."""

import asyncio
import io
import json
import re
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.progress import Progress

from extras import needs
from fakes import answer, make_pool, models, search
from patience import wait_until
from router_r1_graph import (
    Candidate,
    CandidatePool,
    ConfigError,
    Left,
    PoolError,
    RouterContext,
    ScriptedController,
    Trace,
    create_router_r1,
)
from router_r1_graph.candidates.providers import import_name
from router_r1_graph.candidates.records import read_records
from router_r1_graph.cli import app, main
from router_r1_graph.cli.live import LiveRun
from router_r1_graph.cli.options import loading
from router_r1_graph.console import make_console
from router_r1_graph.transcript import Transcript
from router_r1_graph.words import fixed, plain, rounded, shortened, usd

HAMLET = "Who wrote Hamlet?"
MODULE = """
from langchain_core.language_models import FakeListChatModel
from langchain_core.tools import tool

def factory(settings):
    return FakeListChatModel(responses=["{reply}"])

@tool
def calculator(query: str) -> str:
    "Calculate."
    return "4"

def always(answer, gold):
    return 1.0
"""


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process; return exit code, standard output and error."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["router-r1", *map(str, args)])
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code or 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def write(folder: Path, text: str, name: str = "pool.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def complaint(folder, text):
    with pytest.raises(PoolError) as raised:
        CandidatePool.from_yaml(write(folder, text))
    return str(raised.value).partition("pool.yaml: ")[2]


# -------------------------------------------------------------------------------- own modules

OWN = """
candidates:
  - {name: Ada, provider: "mymodels:factory"}
  - {name: Calculator, provider: tool, options: {object: "mymodels:calculator"}}
"""


def test_own_modules_are_found_beside_the_pool_file(cli, tmp_path, monkeypatch):
    write(tmp_path / "a", MODULE.format(reply="Rome"), "mymodels.py")
    file = write(tmp_path / "a", OWN)
    monkeypatch.chdir("/")
    path = list(sys.path)
    code, out, _ = cli("ask", "q?", "--pool", file, "--controller", "constant:Ada", "--json")
    assert (code, json.loads(out)["answer"]) == (0, "Rome")
    assert sys.path == path


def test_own_modules_are_found_in_the_current_folder(cli, tmp_path, monkeypatch):
    write(tmp_path / "here", MODULE.format(reply="Oslo"), "mymodels.py")
    file = write(tmp_path / "there", OWN)
    monkeypatch.chdir(tmp_path / "here")
    code, out, _ = cli("ask", "q?", "--pool", file, "--controller", "constant:Ada", "--json")
    assert (code, json.loads(out)["answer"]) == (0, "Oslo")


def test_two_pools_may_each_have_a_module_of_the_same_name(cli, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    for reply in ("Rome", "Oslo"):
        write(tmp_path / reply, MODULE.format(reply=reply), "mymodels.py")
        file = write(tmp_path / reply, OWN)
        _, out, _ = cli("ask", "q?", "--pool", file, "--controller", "constant:Ada", "--json")
        assert json.loads(out)["answer"] == reply


def test_an_own_metric_is_found_in_the_current_folder(cli, tmp_path, monkeypatch):
    needs("eval")
    write(tmp_path, MODULE, "mymetrics.py")
    monkeypatch.chdir(tmp_path)
    given = ("demo", "--limit", 2, "--controller", "cheapest", "--no-controls", "--json")
    code, out, _ = cli("evaluate", *given, "--metric", "mymetrics:always")
    assert code == 0
    assert json.loads(out)["controllers"][0]["score"]["mean"] == 1


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("mymodel:factory", "no module 'mymodel' (did you mean 'mymodels'?)"),
        ("mymodels:factry", "module 'mymodels' has no 'factry' (did you mean 'factory'?)"),
        ("broken:x", "module 'broken' cannot be imported: ModuleNotFoundError: No module named"),
        ("mymodels", "'mymodels' is not module:name"),
    ],
)
def test_what_cannot_be_imported_is_said_with_what_is_near(tmp_path, path, says):
    write(tmp_path, MODULE, "mymodels.py")
    write(tmp_path, "import no_such_thing_anywhere", "broken.py")
    with pytest.raises(ConfigError) as raised:
        import_name(path, tmp_path)
    assert says in str(raised.value)


def test_where_a_pool_was_read_from_makes_no_other_candidates(tmp_path):
    read = CandidatePool.from_yaml(write(tmp_path, "candidates: [{name: Ada}]"))
    assert read.candidates == (Candidate(name="Ada"),)
    assert read.candidates[0].folder == tmp_path
    assert read.descriptors().candidates[0].folder is None
    assert str(tmp_path) not in read.model_dump_json()


# ------------------------------------------------------------------------------------ brackets


def test_brackets_in_text_are_not_read_as_markup(capsys):
    make_console().print("pip install 'router-r1-graph[local]'")
    assert capsys.readouterr().out == "pip install 'router-r1-graph[local]'\n"


def test_the_tour_says_which_extra_is_missing(monkeypatch, tmp_path):
    from router_r1_graph.cli import tour

    note = "the learned policy needs torch (pip install 'router-r1-graph[local]')"
    monkeypatch.setattr(tour, "default_spec", lambda pool: ("keyword", note))
    monkeypatch.setitem(sys.modules, "router_r1_graph.evaluation.program", None)  # as without numpy
    console = Console(file=io.StringIO(), width=200, markup=False)
    given = {"questions": 2, "seed": 0, "out": tmp_path}
    tour.run_tour(console, CandidatePool.embedded(), **given)
    shown = console.file.getvalue()
    assert note in shown
    assert "pip install 'router-r1-graph[eval]'" in shown
    assert "pound sterling" in shown


def test_a_name_with_brackets_stands_in_the_progress_of_an_evaluation():
    needs("eval")
    from router_r1_graph.evaluation.progress import progress_columns

    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    columns = progress_columns()
    with Progress(*columns, console=console) as progress:
        progress.add_task("constant:GPT [mini]", total=1, score=0.0, usd="$0", rate="")
    assert "constant:GPT [mini]" in console.file.getvalue()


# ----------------------------------------------------------------------------------- first words


def test_who_asks_simulated_candidates_is_told_so_in_one_line(cli):
    code, out, err = cli("ask", HAMLET, "--controller", "keyword", "--json")
    assert code == 0
    assert err == (
        "note: the candidates of 'embedded' are simulated and know 4,072 facts; "
        "your own LLMs: --pool FILE (router-r1 pool check FILE)\n"
    )
    assert json.loads(out)["answer"] == "William Shakespeare"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_is_told_at_once_what_is_loaded(monkeypatch, no_color):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with loading("policy:demo"):
        wait_until(lambda: "loading policy:demo ..." in terminal.getvalue())
    assert ("\x1b" in terminal.getvalue()) == (not no_color)


def test_own_candidates_bring_no_note(cli, tmp_path, monkeypatch):
    write(tmp_path, MODULE.format(reply="Rome"), "mymodels.py")
    _, _, err = cli("ask", "q?", "--pool", write(tmp_path, OWN), "--controller", "cheapest")
    assert "simulated" not in err


def test_a_long_question_is_shown_by_its_beginning_and_whole_in_json(cli):
    question = "Is it so? " * 10_000
    _, out, _ = cli("ask", question, "--controller", "cheapest")
    assert "... (99,999 characters)" in out
    assert max(map(len, out.splitlines())) < 600
    _, out, _ = cli("ask", question, "--controller", "cheapest", "--json")
    assert json.loads(out)["question"] == question.strip()


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_why_a_controller_failed_is_said_once(cli, tmp_path, how):
    file = write(
        tmp_path,
        "candidates: [{name: Ada, base_url: 'http://127.0.0.1:9/v1'}]\n"
        "controller: {model: m, base_url: 'http://127.0.0.1:9/v1', max_retries: 0}",
    )
    _, out, err = cli("ask", "q?", "--pool", file, *how)
    assert (out + err).count("Connection error") == 1


def commands(group, *names):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        else:
            yield [*names, name], command


TYPER = tuple(int(part) for part in version("typer").split(".")[:2])


@pytest.mark.parametrize(
    ("names", "command"),
    [pytest.param(*each, id=" ".join(each[0])) for each in commands(typer.main.get_command(app))],
)
def test_help_is_not_cut_and_its_examples_can_be_pasted(cli, monkeypatch, names, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = cli(*names, "--help")
    assert code == 0
    assert "…" not in out
    shown = [line.strip() for line in out.splitlines()]
    assert "Example" in command.epilog
    assert not re.search(r"[^\n]\n[^\n]", command.help)  # it would break there in a terminal
    for line in command.epilog.splitlines():
        if TYPER < (0, 28) and command.epilog.count("\\\n"):
            pytest.skip("before 0.28, typer joins the lines of an example")
        assert line.strip() in shown or line.startswith("[bold]")  # as a whole


def test_the_short_names_of_knobs_still_work(cli):
    code, out, _ = cli("ask", HAMLET, "--controller", "keyword", "--max-calls", 1, "--deadline", 9)
    assert (code, "William Shakespeare" in out) == (0, True)
    assert cli("ask", HAMLET, "--max-calls", 0)[0] == 2


def test_the_shell_can_complete_it():
    command = typer.main.get_command(app)
    names = {name for parameter in command.params for name in parameter.opts}
    assert {"--install-completion", "--show-completion", "--version"} <= names


# --------------------------------------------------------------------------------------- amounts


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (0, "$0"),
        (-0.0, "$0"),
        (1e-20, "$0"),
        (4.5e-7, "$0.00000045"),
        (9.99e-7, "$0.000001"),
        (1e-9, "$0.000000001"),
        (2.4e-6, "$0.000002"),
        (0.00013, "$0.000130"),
        (3.456, "$3.46"),
    ],
)
def test_an_amount_has_the_digits_that_it_needs(amount, written):
    assert usd(amount) == written


def test_what_is_left_of_a_tiny_budget_is_not_zero():
    assert Left(1, 4.5e-7).describe() == "1 round, $0.00000045"
    assert Left(2, 0.00013).describe() == "2 rounds, $0.000130"
    assert Left(2, 1.5).describe() == "2 rounds, $1.500000"


def test_a_tiny_price_is_no_power_of_ten():
    ada = Candidate(name="Ada", usd_per_call=1e-5, input_usd_per_mtok=1e-7)
    assert ada.describe() == "$0.00001 per call; $0.0000001 in, $0 out per 1M tokens"


def test_no_number_is_a_negative_zero():
    assert rounded(-0.0001, 3) == "0.000"
    assert rounded(-0.0001, 3, "+") == "+0.000"
    assert fixed(-0.0, 4) == "0.0000"
    assert plain(-0.0) == "0"


def test_the_entropy_of_one_choice_is_zero():
    needs("eval")
    from router_r1_graph.evaluation.statistics import entropy

    assert [f"{entropy(shares):.2f}" for shares in ([1.0], [], [0.5, 0.5])] == [
        *("0.00", "0.00", "1.00")
    ]


def test_one_of_something_is_singular(cli, tmp_path):
    write(tmp_path, MODULE.format(reply="Rome"), "mymodels.py")
    file = write(tmp_path, 'candidates: [{name: Ada, provider: "mymodels:factory"}]')
    assert "pool: 1 candidate; keys and" in cli("pool", "check", "--load", file)[1]
    records = write(
        tmp_path, '{"question": "q", "candidate": "Ada", "reply": "x"}\n', "records.jsonl"
    )
    out = tmp_path / "replay.yaml"
    assert cli("pool", "from-records", records, "--out", out)[1] == f"{out}: 1 candidate\n"
    assert "on 1 question (" in out.read_text()


def test_a_short_text_is_shown_whole():
    assert shortened("x" * 500) == "x" * 500
    assert shortened("x" * 501) == "x" * 500 + " ... (501 characters)"


# ------------------------------------------------------------------------------- wrong settings


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("candidates: {name: x}", "candidates: a list is wanted, not a mapping of 1"),
        ("candidates: []", "candidates: at least 1 entry is wanted, not an empty list"),
        ("controller: keyword", "candidates: is missing; controller: a mapping is wanted, not "),
        (
            "candidates: [{name: A, strengths: math}]",
            "candidates[0].strengths (of 'A'): a list is wanted, not 'math'",
        ),
        (
            "candidates: [{name: A, output_usd_per_mtok: free}, {name: B, max_tokens: 2.5}]",
            "candidates[0].output_usd_per_mtok (of 'A'): a number is wanted, not 'free'; "
            "candidates[1].max_tokens (of 'B'): a whole number is wanted, not 2.5",
        ),
        (
            "candidates: [{name: A, options: {day: 2026-01-01}}]",
            "candidates[0].options.day (of 'A'): a text, a number, true or false, a list or a "
            "mapping is wanted, not 2026-01-01",
        ),
        (
            "candidates: [{name: A}]\ncontroller: {protocol: tag}",
            "controller.protocol: tags or tools is wanted, not 'tag' (did you mean 'tags'?)",
        ),
    ],
)
def test_a_wrong_value_is_said_in_the_terms_of_yaml(tmp_path, text, says):
    message = complaint(tmp_path, text)
    assert message.startswith(says)
    assert not re.search(r"[Tt]uple|Input should|dictionary|\d more", message)


def test_more_than_five_mistakes_are_counted(tmp_path):
    message = complaint(tmp_path, "candidates: [1, 2, 3, 4, 5, 6, 7]")
    assert message.count("a mapping is wanted") == 5
    assert message.endswith("; and 2 more")


def test_all_that_is_wrong_with_options_is_said(cli, tmp_path):
    options = "{hops: many, style: ters, hop: 1}"
    file = write(tmp_path, f"candidates: [{{name: A, provider: simulated, options: {options}}}]")
    code, _, err = cli("pool", "check", file)
    assert code == 2
    assert "unknown option 'hop' (did you mean 'hops'?)" in err
    assert "options.hops: a whole number is wanted, not 'many'" in err
    assert "terse, sentence or rambling is wanted, not 'ters' (did you mean 'terse'?)" in err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["fit", "foo", "--data", "no.jsonl", "--out", "x"], "unknown method 'foo'"),
        (["fit", "knm", "--data", "no.jsonl", "--out", "x"], "(did you mean 'knn'?)"),
        (
            ["fit", "features", "--data", "no.jsonl", "--out", "x", "--set", "cluster=3"],
            "(did you mean 'clusters'?)",
        ),
        (
            ["fit", "knn", "--data", "no.jsonl", "--out", "x", "--embedding", "tfdif"],
            "--embedding: unknown embedding 'tfdif' (did you mean 'tfidf'?)",
        ),
        (
            ["fit", "knn", "--data", "no.jsonl", "--out", "x", "--metric", "exact"],
            "(did you mean 'exact_match'?)",
        ),
        (["evaluate", "demo", "--field", "qestion=q"], "--field qestion (did you mean 'question'"),
        (["evaluate", "demo", "--field", "q"], "--field 'q': write NAME=VALUE"),
        (["evaluate", "demo", "--where", "q"], "--where 'q': write NAME=VALUE"),
        (["evaluate", "demo", "--metric", "f2"], "--metric: unknown metric 'f2'"),
        (["evaluate", "demo", "--cost-weight", "7"], "--cost-weight: cost_weight is a number"),
        (["ask", "q", "--keep", "vot"], "(did you mean 'vote'?)"),
        (
            ["ask", "q", "--controller", "completions:http://x?policy=p&temperature=hot"],
            "completions: temperature: a number is wanted, not 'hot'",
        ),
    ],
)
def test_a_wrong_name_is_told_with_its_option_before_anything_is_read(cli, args, says):
    if args[0] in ("fit", "evaluate"):
        needs("eval")
    code, out, err = cli(*args)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "args",
    [
        ["serve", "--api-key-env", "sk-abc"],
        ["ask", "q", "--controller", "completions:http://x?policy=p&api_key_env=sk-abc"],
        ["ask", "q", "--controller", "completion:http://x?policy=p&api_key_env=sk-abc"],
        ["ask", "q", "--controller", "completion:http://x?policy=p&api_key_env=very-abc"],
    ],
)
def test_a_key_in_the_place_of_a_name_is_not_repeated(cli, args):
    code, out, err = cli(*args)
    assert code == 2
    assert "abc" not in out + err
    assert "***" in err


# ------------------------------------------------------------------------------ what is written


@pytest.mark.parametrize(
    "args",
    [
        ["evaluate", "demo", "--controller", "cheapest", "--out", "{file}/x"],
        ["evaluate", "demo", "--controller", "cheapest", "--out", "{file}"],
        ["evaluate", "demo", "--controller", "cheapest", "--record", "{file}/r.jsonl"],
        ["evaluate", "demo", "--controller", "cheapest", "--record", "{nowhere}/r.jsonl"],
        ["fit", "knn", "--data", "no.jsonl", "--out", "{file}/x"],
        ["pool", "from-records", "no.jsonl", "--out", "{nowhere}/x.yaml"],
        ["ask", "q", "--record", "{nowhere}/r.jsonl"],
        ["traces", "from-langsmith", "p", "--out", "{nowhere}/t.jsonl"],
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_asked(cli, tmp_path, args):
    if args[0] == "fit":
        needs("eval")
    write(tmp_path, "", "file")
    places = {"file": tmp_path / "file", "nowhere": tmp_path / "nowhere"}
    code, out, err = cli(*(arg.format(**places) for arg in args))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"router-r1: --(out|record) .*: cannot be written: .*\n", err)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


_TRACE = '{"version": 1, "question": "q", "scratchpad": []}\n'


_OTHERS = {
    "--record": ("candidates:\n- name: Ada", _TRACE, '{"question": "q", "answer": "a"}\n'),
    "--trace": ('{"question": "q", "candidate": "Ada", "reply": "a"}\n', "question,answer\nq,a\n"),
}


@pytest.mark.parametrize(
    ("command", "option", "held"),
    [
        (command, option, held)
        for command in (["ask", "q"], ["chat"], ["serve"], ["evaluate", "demo"])
        for option, others in _OTHERS.items()
        for held in others
        if (command[0], option) != ("evaluate", "--trace")  # has no such option
    ],
)
def test_a_file_of_something_else_is_not_appended_to(cli, tmp_path, command, option, held):
    if command[0] == "serve":
        pytest.importorskip("uvicorn")
    file = write(tmp_path, held, "mine")
    code, out, err = cli(*command, "--controller", "cheapest", option, file)
    assert (code, out) == (2, "")
    kind = "traces" if option == "--trace" else "replies"
    assert err == f"router-r1: {option} {file}: holds something else than {kind}; name another\n"
    assert file.read_text() == held


def test_a_file_with_nothing_but_a_torn_line_is_appended_to(cli, tmp_path):
    file = write(tmp_path, '{"question": "to', "mine")
    ask = ("ask", "q", "--controller", "cheapest", "--record", file)
    assert [cli(*ask)[0] for _ in range(2)] == [0, 0]
    assert [record.question for record, _ in read_records(file)] == ["q", "q"]


def test_who_does_not_read_the_cost_weight_is_named(cli):
    needs("eval")
    given = ("demo", "--limit", 2, "--no-controls", "--cost-weight", 0, "--cost-weight", 0.9)
    code, _, err = cli("evaluate", *given, "--controller", "cheapest", "--json")
    assert code == 0
    note = "note: cheapest does not read the cost weight, and is run once (at 0)"
    assert note in err.splitlines()
    code, _, err = cli("evaluate", *given[:4], "--controller", "cheapest", "--json")
    assert "cost weight" not in err


def test_the_worst_questions_are_wrong_ones_of_each_controller_by_name(cli, tmp_path):
    needs("eval")
    pytest.importorskip("matplotlib")
    given = ("demo", "--limit", 8, "--no-controls", "--out", tmp_path / "run")
    code, _, err = cli("evaluate", *given, *("--controller", "oracle", "--controller", "cheapest"))
    assert code == 0, err
    report = (tmp_path / "run" / "report.md").read_text()
    assert "The worst questions of cheapest" in report
    assert "The worst questions of oracle" not in report
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    traces = [Trace.model_validate_json(line) for line in lines]
    right = {t.id for t in traces if t.controller == "cheapest" and t.metadata["score"]["score"]}
    shown = re.findall(r"^(\S+); right would be: ", report, re.M)
    assert shown
    assert not right & set(shown)


def test_a_table_of_an_evaluation_cuts_no_name():
    needs("eval")
    from router_r1_graph.evaluation.report import show
    from router_r1_graph.evaluation.run import Outcome
    from router_r1_graph.evaluation.summary import Summary, summarise

    outcome = Outcome(
        "oracle of constants", 0.5, "q", "x", 1, 1, 1, 4.5e-9, 0, 1, 1, 0, 1, {"Ada": 1}, {}
    )
    summary = summarise([outcome], pool="mine [local]", metric="exact_match")
    assert isinstance(summary, Summary)
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    show(summary, console)
    written = console.file.getvalue()
    assert "…" not in re.sub(r"exact m.*", "", written)
    assert "1 question, pool mine [local];" in written


def test_a_trained_policy_that_says_nothing_is_not_recommended(tmp_path):
    pytest.importorskip("trl")
    from training.report import next_step

    policy = tmp_path / "policy"
    assert next_step({"grpo": [{"format": 0.0}]}, policy).startswith("Not usable yet: 0% of")
    assert next_step({"grpo": [{"format": 0.98}]}, policy).startswith("Use it: router-r1 ask")
    assert next_step({}, policy).startswith("Use it: ")


def test_a_transcript_shows_a_failed_controllers_long_error_by_its_beginning():
    console = Console(file=io.StringIO(), width=80)
    Transcript(console, CandidatePool.embedded()).stopped("controller_error", "x" * 9000)
    assert "... (9,000 characters)" in console.file.getvalue()


def test_a_live_transcript_shows_the_reply_to_a_query_that_was_asked_before():
    pool = make_pool()
    again = search("Ada: Capital of France?")
    graph = create_router_r1(
        pool, ScriptedController([again, again, answer("Paris")]), models=models(pool)
    ).compile()
    console = Console(file=io.StringIO(), width=80)
    live = LiveRun(graph, pool, "Capital?", RouterContext(), Transcript(console, pool))
    asyncio.run(live.run())
    written = console.file.getvalue()
    assert written.count("route     Ada: ") == written.count("reply     Ada: ") == 2
    assert written.count("(cached)") == 1
    assert "(left: " not in written
