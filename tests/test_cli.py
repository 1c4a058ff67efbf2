"""The command line as a user meets it: its entry point, real signals and terminals, a real server.

What is about a process (signals, terminals, its exit code) has one of its own; all else runs in
this one.
"""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
import typer

from extras import missing, needs
from in_process import STREAMS, Command, cli
from openai_server import Hang, Reply, Status
from router_r1_graph import CandidatePool, read_traces
from router_r1_graph.cli import app
from router_r1_graph.context import knobs
from yaml_pool import yaml_pool

CLI = [sys.executable, "-m", "router_r1_graph.cli"]
HAMLET = "What is the currency of the country where the author of Hamlet was born?"
CALL_KEYS = {
    *("round", "candidate", "query", "reply", "ok", "error", "input_tokens", "output_tokens"),
    *("cost_usd", "seconds", "cached", "stored", "saved_usd", "thoughts"),
}
LEDGER_KEYS = {
    *("cost_usd", "candidates_cost_usd", "controller_cost_usd", "input_tokens", "output_tokens"),
    *("seconds", "calls", "failed_calls", "stored_calls", "saved_usd"),
}


#: For processes: importing torch takes most of the time of one that asks the default controller.
KEYWORD = ("--controller", "keyword")


def process(*args, **env):
    """Run the command in a process of its own; how long it may take is pytest-timeout's to say."""
    return subprocess.run(
        [*CLI, *args], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


def pool_file(tmp_path, text):
    file = tmp_path / "pool.yaml"
    file.write_text(text)
    return str(file)


def test_ask_json_is_one_object_with_the_promised_keys():
    run = cli("ask", HAMLET, "--json", *KEYWORD)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert set(result) == {"question", "answer", "stop_reason", "rounds", "calls", "ledger"}
    assert result["question"] == HAMLET
    assert result["answer"] == "pound sterling"
    assert result["stop_reason"] == "answered"
    assert result["rounds"] == len(result["calls"]) == 3
    assert all(set(call) == CALL_KEYS for call in result["calls"])
    assert set(result["ledger"]) == LEDGER_KEYS
    assert result["ledger"]["cost_usd"] == pytest.approx(
        sum(call["cost_usd"] for call in result["calls"])
    )


def test_a_piped_transcript_is_plain_and_tells_everything():
    run = cli("ask", HAMLET)
    assert run.returncode == 0
    assert "\x1b" not in run.stdout
    for word in ("question  ", "think  ", "route  ", "reply  ", "answer  ", "stopped  ", "bill  "):
        assert word in run.stdout
    assert "Quillora: Who wrote Hamlet?" in run.stdout
    assert "pound sterling" in run.stdout


def test_the_question_may_come_from_standard_input():
    assert (
        json.loads(cli("ask", "-", "--json", *KEYWORD, input=HAMLET).stdout)["question"] == HAMLET
    )


def test_a_question_that_is_not_utf8_does_not_crash():
    run = cli("ask", os.fsdecode(b"caf\xe9?"), "--json", *KEYWORD)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["question"].startswith("caf")


def test_a_trace_file_holds_the_run_and_is_appended_to(tmp_path):
    file = tmp_path / "runs.jsonl"
    for controller in ("keyword", "cheapest"):
        run = cli("ask", HAMLET, "--trace", str(file), "--controller", controller)
        assert run.returncode == 0
    traces = list(read_traces(file))
    assert [trace.controller for trace in traces] == ["keyword", "cheapest"]
    assert all(trace.question == HAMLET for trace in traces)


def test_the_same_question_over_http_by_yaml_alone(serve, tmp_path):
    def answer(request):
        known = {
            "Who wrote Hamlet?": "William Shakespeare",
            "In which country was William Shakespeare born?": "the United Kingdom",
            "Name the currency of the United Kingdom.": "pound sterling",
        }
        return Reply(known[request.prompt], 10, 4)

    server = serve(answer)
    file = pool_file(
        tmp_path,
        f"""
candidates:
  - name: Books
    base_url: {server.base_url}
    strengths: [literature, biography]
    input_usd_per_mtok: 1
    output_usd_per_mtok: 2
  - name: Maps
    base_url: {server.base_url}
    strengths: [geography]
    input_usd_per_mtok: 1
    output_usd_per_mtok: 2
""",
    )
    result = json.loads(cli("ask", HAMLET, "--pool", file, "--json").stdout)
    assert result["answer"] == "pound sterling"
    assert [call["candidate"] for call in result["calls"]] == ["Books", "Books", "Maps"]
    assert result["ledger"]["cost_usd"] == pytest.approx(3 * (10 * 1 + 4 * 2) / 1e6)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ask", "q", "--pool", "nowhere.yaml"], "nowhere.yaml: no such pool file"),
        (["ask", "q", "--controller", "keywrod"], "did you mean 'keyword'?"),
        (["ask", "q", "--controller", "constant:Quilora"], "did you mean 'Quillora'?"),
        (["ask", "q", "--cost-weight", "7"], "cost_weight is a number of at least 0"),
        (["ask", "q", "--budget-usd", "-1"], "budget_usd is a number of at least 0"),
        (["ask", "q", "--keep", "summary:Nobody"], "keep: no candidate 'Nobody'"),
        (["ask", "q", "--candidate-context", "memry"], "did you mean 'memory'?"),
        (["ask", "q", "--approve-above-usd", "0"], "standard input has to be a terminal"),
        (["ask", "  "], "the question is empty"),
        (["ask", "q", "--trace", "/nowhere/x.jsonl"], "--trace /nowhere/x.jsonl: cannot be"),
        (["ask", "q", "--pool", "router_r1"], "NVIDIA_API_KEY is not set"),
        (["ask", "q", "--controller", "openai:x"], "OPENAI_API_KEY is not set"),
        (["pool", "check", "router_r1"], "NVIDIA_API_KEY is not set"),
        (["demo", "--pool", "router_r1"], "is not simulated"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, message):
    run = cli(*args)
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert run.stdout == ""


@pytest.mark.parametrize("command", ["ask", "chat", "evaluate", "serve"])
def test_each_setting_of_a_run_is_an_option_but_approval_where_no_person_is(command):
    options = typer.main.get_command(app).commands[command].params
    there = {name.removeprefix("question_") for name in (option.name for option in options)}
    alone = {"approve_above_usd"} if command in ("evaluate", "serve") else set()
    assert set(knobs()) - there == alone


def test_the_exit_code_of_a_process_that_was_told_nonsense_is_2():
    run = process("ask", "q", "--controller", "keywrod")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("router-r1: ")
    assert run.stderr.count("\n") == 1


def test_a_wrong_pool_file_names_file_key_and_value(tmp_path):
    file = pool_file(tmp_path, "candidates:\n  - name: Ada\n    input_usd_per_mtok: -3\n")
    run = cli("ask", "q", "--pool", file)
    assert run.returncode == 2
    assert file in run.stderr
    assert "candidates[0].input_usd_per_mtok (of 'Ada')" in run.stderr
    assert "-3" in run.stderr


def test_an_unknown_option_is_exit_code_2():
    assert cli("ask", "q", "--pol", "x").returncode == 2


def hanging(serve, tmp_path):
    """Return a pool file of a candidate that replies, and one that never does."""
    server = serve({"books": Reply("William Shakespeare", 10, 4), "maps": Hang()})
    file = pool_file(
        tmp_path,
        f"""
candidates:
  - {{name: Books, model: books, base_url: {server.base_url}, strengths: [literature],
     output_usd_per_mtok: 1}}
  - {{name: Maps, model: maps, base_url: {server.base_url}, strengths: [biography],
     output_usd_per_mtok: 1}}
""",
    )
    return server, file


def interrupted(serve, tmp_path, *args, sig=signal.SIGINT):
    """Interrupt a run whose second candidate has been asked; return exit code and output."""
    server, file = hanging(serve, tmp_path)
    ask = ("ask", "In which city was the author of Hamlet born?", "--pool", file)
    with Command(*ask, *args) as running:
        while server.count("maps") == 0:
            assert running.poll() is None, running.communicate()
            time.sleep(0.05)
        running.send_signal(sig)
        stdout, stderr = running.communicate()
    return running.returncode, stdout, stderr


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_prints_what_is_known_and_exits_130(serve, tmp_path, sig):
    code, stdout, stderr = interrupted(serve, tmp_path, sig=sig)
    assert code == 130
    assert "reply     Books: William Shakespeare" in stdout
    assert "reply     Maps: error: interrupted before a reply came" in stdout
    assert "stopped   interrupted" in stdout
    assert "$0.000004" in stdout
    assert "Traceback" not in stderr


def test_an_interrupt_with_json_prints_one_object_and_leaves_no_empty_trace(serve, tmp_path):
    trace = tmp_path / "t.jsonl"
    code, stdout, _ = interrupted(serve, tmp_path, "--json", "--trace", str(trace))
    assert not trace.exists()
    assert code == 130
    known = json.loads(stdout)
    assert known["stop_reason"] == "interrupted"
    books, maps = known["calls"]
    assert (books["reply"], books["ok"]) == ("William Shakespeare", True)
    assert (maps["candidate"], maps["ok"], maps["round"]) == ("Maps", False, 2)
    assert maps["error"] == "other: interrupted before a reply came"
    assert (known["rounds"], known["ledger"]["calls"], known["ledger"]["failed_calls"]) == (2, 2, 1)
    assert known["ledger"]["cost_usd"] == pytest.approx(4e-6)


HANGING_MODEL = """
import threading
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables.config import run_in_executor

class Hanging(FakeListChatModel):
    def _call(self, *args, **kwargs):
        print("asked", flush=True)
        threading.Event().wait()  # for ever: who waits for it does not end

    async def _agenerate(self, *args, **kwargs):  # as every model without one of its own
        return await run_in_executor(None, self._generate, *args[:2])

def make(settings):
    return Hanging(responses=["x"])
"""


def hanging_in_a_thread(tmp_path):
    (tmp_path / "hanging_model.py").write_text(HANGING_MODEL)
    return pool_file(tmp_path, "candidates: [{name: Ada, provider: 'hanging_model:make'}]")


def test_a_model_that_hangs_in_a_thread_does_not_keep_ctrl_c_waiting(tmp_path):
    ask = ("ask", "q?", "--pool", hanging_in_a_thread(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    # Not forked: what waits for its threads is Python's own end.
    pipes = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*CLI, *ask], **pipes, env=environment) as running:
        try:
            assert any("asked" in line for line in running.stdout)
            running.send_signal(signal.SIGINT)
            stdout, _ = running.communicate()
        finally:
            running.kill()  # nothing, where it has ended
    assert running.returncode == 130
    assert "Ada: error: interrupted before a reply came" in stdout


@pytest.mark.long
def test_a_model_that_hangs_in_a_thread_does_not_outlast_the_deadline(tmp_path):
    pool = hanging_in_a_thread(tmp_path)
    run = process("ask", "q?", "--pool", pool, "--deadline", "1", PYTHONPATH=str(tmp_path))
    assert run.returncode == 1  # no answer
    assert "stopped   the time was up" in run.stdout


def test_an_output_in_ascii_is_no_reason_to_crash():
    run = cli("ask", "Où est Tōkyō?", *KEYWORD, encoding="ascii")
    assert run.returncode == 0, run.stderr
    assert "O? est T?ky??" in run.stdout
    run = cli("ask", "Où est Tōkyō?", "--json", *KEYWORD, encoding="ascii")
    assert json.loads(run.stdout)["question"] == "Où est Tōkyō?"


def test_json_of_a_hostile_reply_is_exact_and_cannot_control_a_terminal(serve, tmp_path):
    text = "\x1b[2J \x9b31m \u202eevil"
    server = serve(Reply(text, 5, 5))
    file = pool_file(tmp_path, f"candidates: [{{name: Ada, base_url: {server.base_url}}}]")
    stdout = cli("ask", "q?", "--pool", file, "--json").stdout
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", stdout)
    assert json.loads(stdout)["calls"][0]["reply"] == text


def in_a_terminal(args, columns=40, **env):
    """Return what the program writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    # rich asks standard input first how wide the terminal is.
    streams = dict.fromkeys(STREAMS, theirs)
    with Command(*args, **streams, env={"TERM": "xterm", **env}) as running:
        os.close(theirs)
        written = b""
        try:
            while data := os.read(ours, 65536):
                written += data
        except OSError:  # Linux says so when the other end is closed
            pass
        os.close(ours)
        assert running.wait() == 0
    return written.decode()


DEAR = ["ask", "Who wrote Hamlet?", "--controller", "vote", "--max-calls", "8"]
DEAR += ["--approve-above-usd", "0.001", "--json"]


def asked_for_approval(*replies, sig=None):
    """Answer at the terminal when asked; returns what was asked, the JSON, and the exit code."""
    ours, theirs = pty.openpty()
    with Command(*DEAR, stdin=theirs, stderr=theirs) as running:
        os.close(theirs)
        asked, left = "", list(replies)
        try:
            while data := os.read(ours, 65536):
                asked += data.decode()
                if asked.endswith("[y/N] "):
                    if left:
                        os.write(ours, left.pop(0).encode())
                    else:
                        running.send_signal(sig)
        except OSError:  # Linux says so when the other end is closed
            pass
        finally:
            os.close(ours)  # whoever still waits for a word gets the end of the file
        stdout, _ = running.communicate()
    return asked, json.loads(stdout), running.returncode


def test_a_call_above_the_price_waits_for_a_y_at_the_terminal():
    asked, result, code = asked_for_approval("y\n", "\n")
    assert code == 0
    prompts = re.findall(r"approve\?  (\w+): Who wrote Hamlet\?  \[at most \$[\d.]+\]", asked)
    assert prompts == ["Orrinthal", "Magnivor"]
    errors = {call["candidate"]: call["error"] for call in result["calls"]}
    assert len(errors) == 8
    assert {n: e for n, e in errors.items() if e} == {"Magnivor": "refused: refused by a person"}


def test_an_interrupt_at_the_question_prints_what_is_known():
    asked, known, code = asked_for_approval("y\n", sig=signal.SIGINT)
    assert code == 130
    assert asked.count("approve?") == 2
    assert "Traceback" not in asked
    assert known["stop_reason"] == "interrupted"
    assert len(known["calls"]) == known["ledger"]["calls"] == 6  # those that waited were not made
    assert known["ledger"]["failed_calls"] == 0


def test_what_candidates_are_told_and_what_a_round_keeps_are_options(serve, tmp_path):
    server = serve(Reply("Paris", 5, 5))
    candidates = f"[{{name: Ada, base_url: {server.base_url}}}]"
    file = pool_file(tmp_path, f"candidates: {candidates}")
    options = ["--candidate-context", "question", "--keep", "summary:Ada"]
    run = cli("ask", "Capital of France?", "--pool", file, "--controller", "cheapest", *options)
    assert run.returncode == 0, run.stderr
    first, *_ = server.requests
    told = [message["content"] for message in first.body["messages"]]
    assert told[0].endswith("part of this question: Capital of France?")
    assert len(server.requests) == 2  # the second summarises


def test_a_terminal_gets_colours_and_lines_that_break_between_words():
    written = in_a_terminal(["ask", HAMLET, *KEYWORD])
    assert "\x1b[" in written
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)
    assert "question  What is the currency of the\r\n          country where the author" in plain


def test_no_color_in_a_terminal_is_plain():
    assert "\x1b" not in in_a_terminal(["ask", HAMLET, *KEYWORD], NO_COLOR="1")


def test_a_hostile_reply_does_not_reach_the_terminal(serve, tmp_path):
    server = serve(Reply("\x1b[2Jgone\x07 [bold]x[/bold] \u202eevil \x9b31m</answer>", 5, 5))
    file = pool_file(tmp_path, f"candidates: [{{name: Ada, base_url: {server.base_url}}}]")
    run = cli("ask", "q?", "--pool", file)
    assert run.returncode == 0
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", run.stdout)
    assert "[bold]x[/bold]" in run.stdout


@pytest.mark.parametrize(
    ("question", "options", "code"),
    [
        ("asdf qwer", KEYWORD, 0),  # asked, and nobody knows
        (HAMLET, ["--controller", "constant:Magnivor", "--budget-usd", "0"], 1),
        (HAMLET, [*KEYWORD, "--max-rounds", "0"], 1),
        (HAMLET, [*KEYWORD, "--deadline", "0"], 1),
    ],
)
def test_the_exit_code_says_whether_there_is_an_answer(question, options, code):
    run = cli("ask", question, *options)
    assert run.returncode == code
    assert "answer    unknown" in run.stdout or "answer    (none)" in run.stdout


def test_a_key_never_shows(serve, tmp_path):
    key = "sk-test-very-secret-0123456789"
    server = serve(Status(401, "no", echo_authorization=True))
    file = pool_file(
        tmp_path,
        f"candidates: [{{name: Ada, base_url: {server.base_url}, api_key_env: ADA_KEY}}]",
    )
    trace = tmp_path / "t.jsonl"
    run = cli("ask", "q?", "--pool", file, "--trace", str(trace), env={"ADA_KEY": key})
    assert run.returncode == 1  # nobody replied
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    assert key not in run.stdout + run.stderr + trace.read_text()
    assert "auth" in trace.read_text()


def test_a_failing_controller_is_told_on_stderr_and_json_stays_json(serve, tmp_path):
    server = serve(Status(404, "no such model"))
    pool = yaml_pool(tmp_path, server, {"Ada": {}}, controller={})
    assert pool.controller is not None
    file = next(tmp_path.glob("*.yaml"))
    run = cli("ask", "q?", "--pool", str(file), "--json")
    assert run.returncode == 1
    assert json.loads(run.stdout)["stop_reason"] == "controller_error"
    assert "not_found" in run.stderr


def test_pool_show_and_check():
    shown = cli("pool", "show", "router_r1")
    assert shown.returncode == 0
    assert "LLaMA-3.1-70B-Instruct" in shown.stdout
    assert "NVIDIA_API_KEY" in shown.stdout.replace("\n", "")
    checked = cli("pool", "check", "embedded")
    assert checked.returncode == 0
    assert "8 candidates; keys and providers are in order" in checked.stdout


def test_a_budget_over_candidates_without_a_price_is_warned_of(serve, tmp_path):
    server = serve(Reply("Paris", 5, 5))
    file = pool_file(tmp_path, f"candidates: [{{name: Ada, base_url: {server.base_url}}}]")
    run = cli("ask", "q?", "--pool", file, "--budget-usd", "1", "--json")
    assert json.loads(run.stdout)["answer"] == "Paris"
    assert "no price for Ada: the budget cannot limit them" in run.stderr


def test_pool_check_reads_a_facts_file(tmp_path):
    file = pool_file(
        tmp_path, "candidates: [{name: Ada, provider: simulated, options: {facts: /nope.csv}}]"
    )
    run = cli("pool", "check", file)
    assert run.returncode == 2
    assert "/nope.csv" in run.stderr


def test_pool_check_runs_no_code_of_a_pool_unless_it_is_told_to(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text(
        "import pathlib; pathlib.Path('run').touch()\nfrom fakes import fake_chat_model as own\n"
    )
    started = "{tool: x, command: touch, args: [run]}"
    (tmp_path / "pool.yaml").write_text(
        "candidates:\n- {name: Ada, provider: 'own.mine:own'}\n"
        "- {name: Bob, provider: tool, options: {object: 'own.mine:own'}}\n"
        f"- {{name: Cyd, provider: mcp, options: {started}}}\n"
        "- {name: Dan, provider: simulated}\n"
        "controller: {provider: 'own.mine:own', model: x}\n"
    )
    run = cli("pool", "check", "pool.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    file = tmp_path / "own" / "mine.py"
    for name in ("Ada", "Bob", "controller"):
        assert f"{name}: would import own.mine:own from {file} (--load does)" in run.stdout
    assert "Cyd: would start touch (--load does)" in run.stdout
    assert not (tmp_path / "run").exists()
    assert cli("pool", "check", "pool.yaml", "--load", cwd=tmp_path).returncode == 2  # no tool
    assert (tmp_path / "run").exists()
    (tmp_path / "own" / "mine.py").unlink()
    gone = cli("pool", "check", "pool.yaml", cwd=tmp_path)
    assert gone.returncode == 2
    assert "Ada: no module 'own.mine'" in gone.stderr


def test_pool_check_warns_of_a_missing_price(serve, tmp_path):
    file = pool_file(tmp_path, "candidates: [{name: Ada, base_url: 'http://127.0.0.1:9/v1'}]")
    run = cli("pool", "check", file)
    assert run.returncode == 0
    assert "warning: no price for Ada" in run.stdout


@pytest.fixture
def two(tmp_path):
    """A pool of two candidates, for the demo asks each a hundred questions."""
    pool = CandidatePool.embedded()
    some = tuple(pool.find(name) for name in ("Quillora", "Magnivor"))
    few = pool.model_copy(update={"candidates": some})
    (tmp_path / "two.yaml").write_text(few.model_dump_json(exclude_defaults=True))
    return tmp_path / "two.yaml"


def test_the_demo_table_as_json(two):
    needs("eval")
    run = cli("demo", "--questions", "1", "--json", "--pool", two)
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)["controllers"]
    spec = "keyword" if missing("local") else "policy:demo"
    weights = {row["cost_weight"] for row in rows if row["controller"] == spec}
    assert weights == ({0.0} if spec == "keyword" else {0.0, 0.5, 0.9})  # a rule reads none
    best = {row["controller"]: row["exact_match"]["mean"] for row in rows}
    assert {"constant:Quillora", "constant:Magnivor", "random", "cheapest", "keyword"} < set(best)
    assert best["oracle"] == max(best.values())


@pytest.mark.long
def test_the_demo_in_a_pipe_is_plain(two, tmp_path):
    pytest.importorskip("matplotlib")
    run = cli("demo", "--questions", "1", "--pool", two, "--out", tmp_path / "tour")
    assert run.returncode == 0, run.stderr
    assert "\x1b" not in run.stdout
    for words in ("The pool", "Controllers on 1 test question", "Magnivor", "Next:"):
        assert words in run.stdout
    assert f"The picture: {tmp_path}/tour/curve.png" in run.stdout
    assert sorted(file.name for file in (tmp_path / "tour").iterdir()) == ["curve.png", "curve.svg"]


def test_version():
    assert cli("--version").stdout.startswith("router-r1-graph 0.")
