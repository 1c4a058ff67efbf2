"""`router-r1 chat`: one conversation, from a pipe and in a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import time

import pytest

from in_process import STREAMS, Command, cli
from openai_server import Hang, Reply, Status
from router_r1_graph import read_traces
from yaml_pool import ONE_DOLLAR, yaml_pool

KEYWORD = ("--controller", "keyword")


def said(text: str) -> str:
    return f"<think> Known. </think> <answer> {text} </answer>"


def test_a_pipe_is_a_question_a_line_with_the_bill_below_each_answer(tmp_path):
    file = tmp_path / "runs.jsonl"
    lines = "Who wrote Hamlet?\n\n/bil\nIn which country was the author of Hamlet born?\n/bill\n"
    run = cli("chat", *KEYWORD, "--trace", file, input=lines + "/trace\n/quit\nnever asked")
    assert run.returncode == 0, run.stderr
    assert "\x1b" not in run.stdout
    assert "answer    William Shakespeare\nbill      $0.000002, 1 call, " in run.stdout
    assert "answer    the United Kingdom\nbill      $0.000008, 2 calls, " in run.stdout
    assert run.stdout.count("; $0.000010 in this session\n") == 1
    assert "bill      Quillora  $0.000004  2 calls" in run.stdout  # of both answers
    assert run.stdout.endswith("s\n")
    assert run.stdout.count("answer    the United Kingdom") == 2  # /trace shows it once more
    assert "never asked" not in run.stdout
    assert "keyword sees only the question" in run.stderr
    assert "no command '/bil' (did you mean '/bill'?)" in run.stderr
    assert [trace.answer for trace in read_traces(file)] == [
        "William Shakespeare",
        "the United Kingdom",
    ]


def test_a_chat_model_sees_the_conversation_and_no_failure_ends_it(serve, tmp_path):
    server = serve(
        {
            "controller": [
                Reply("<search> Ada: Who wrote Hamlet? </search>", 100, 10),
                Reply(said("nobody knows"), 100, 10),
                Status(404, "gone"),
                Reply(said("Stratford"), 100, 10),
            ],
            "ada": Status(400, "broken"),
        }
    )
    yaml_pool(tmp_path, server, {"Ada": {}}, controller=ONE_DOLLAR)
    questions = "Who wrote Hamlet?\nAnd Faust?\nWhere was he born?"
    run = cli("chat", "--pool", tmp_path / "pool.yaml", "--json", input=questions + "\n/bill\n")
    assert run.returncode == 0, run.stderr
    first, second, third, bill = map(json.loads, run.stdout.splitlines())
    assert first["calls"][0]["ok"] is False
    assert [answer["answer"] for answer in (first, second, third)] == [
        *("nobody knows", "", "Stratford")
    ]
    assert second["stop_reason"] == "controller_error"
    assert third["session_usd"] == bill["cost_usd"] == pytest.approx(3 * 120e-6)
    assert "sees only the question" not in run.stderr
    told = [message["content"] for message in server.requests[-1].body["messages"]]
    assert told[:4] == [
        *("Who wrote Hamlet?", "nobody knows"),
        *("And Faust?", "(no answer: controller_error)"),
    ]
    assert "Question: Where was he born?" in told[4]


def hanging(serve, tmp_path):
    server = serve({"books": Reply("William Shakespeare", 10, 4), "maps": Hang()})
    settings = {"Books": {"strengths": ["literature"]}, "Maps": {"strengths": ["biography"]}}
    yaml_pool(tmp_path, server, settings, output_usd_per_mtok=1)
    return server, ["chat", "--pool", str(tmp_path / "pool.yaml"), *KEYWORD]


def until(server, running):
    while server.count("maps") == 0:
        assert running.poll() is None
        time.sleep(0.05)


def test_ctrl_c_stops_an_answer_and_keeps_the_session_in_a_terminal(serve, tmp_path):
    server, chat = hanging(serve, tmp_path)
    ours, theirs = pty.openpty()
    # A session of its own, so that Ctrl-C reaches the program as a signal of its terminal.
    terminal, env = dict.fromkeys(STREAMS, theirs), {"TERM": "dumb", "NO_COLOR": "1"}
    running = Command(*chat, **terminal, env=env, session=True)
    os.close(theirs)
    written = b""

    def typed(words: bytes) -> None:
        """Type at the prompt: what is typed before it may be read by nobody."""
        nonlocal written
        while not written.endswith(b"> "):
            written += os.read(ours, 65536)
        written += b"|"
        os.write(ours, words)

    with running:
        typed(b"In which country was the author of Hamlet born?\n")
        until(server, running)
        os.write(ours, b"\x03")
        typed(b"Who wrote Hamlet?\n")
        typed(b"/bill\n")
        typed(b"\x04")
        assert running.wait() == 0
    os.close(ours)
    text = written.decode()
    assert "Maps: error: interrupted before a reply came" in text
    assert "stopped   interrupted" in text
    assert "answer    William Shakespeare" in text
    assert "Books  $0.000008  2 calls" in text
    assert "Traceback" not in text


def test_a_signal_stops_an_answer_from_a_pipe_and_sigterm_ends_the_session(serve, tmp_path):
    server, chat = hanging(serve, tmp_path)
    with Command(*chat, "--json") as running:
        running.stdin.write("In which country was the author of Hamlet born?\nWho wrote Hamlet?\n")
        running.stdin.flush()
        until(server, running)
        running.send_signal(signal.SIGINT)
        stopped, answered = json.loads(running.stdout.readline()), running.stdout.readline()
        assert stopped["stop_reason"] == "interrupted"
        assert [call["ok"] for call in stopped["calls"]] == [True, False]
        assert json.loads(answered)["answer"] == "William Shakespeare"
        assert json.loads(answered)["session_usd"] == pytest.approx(8e-6)
        running.send_signal(signal.SIGTERM)
        _, stderr = running.communicate()
        assert running.returncode == 128 + signal.SIGTERM
        assert "Traceback" not in stderr
