"""`--replies` of ask and evaluate, and `router-r1 replies stats | clear | export`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from extras import needs
from in_process import Done, cli
from openai_server import OpenAIServer, Reply
from router_r1_graph import ReplyStore
from router_r1_graph.candidates.records import read_records
from yaml_pool import ONE_DOLLAR, yaml_pool

FRANCE = "What is the capital of France?"
DEAR = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 20.0}


@dataclass
class Desk:
    """A folder with a pool file and a file of replies, and the server that is asked."""

    folder: Path
    server: OpenAIServer

    @property
    def replies(self) -> Path:
        return self.folder / "replies.sqlite"

    def ask(self, controller: str = "constant:Ada", *options: object, **env: str) -> dict[str, Any]:
        given = ("--pool", self.folder / "pool.yaml", "--controller", controller, "--json")
        done = cli("ask", FRANCE, *given, *options, env=env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def stats(self) -> dict[str, Any]:
        return json.loads(cli("replies", "stats", self.replies, "--json").stdout)


@pytest.fixture
def desk(serve, tmp_path: Path) -> Desk:
    server = serve(lambda request: Reply(f"{request.model} says Paris"))
    yaml_pool(tmp_path, server, {"Ada": ONE_DOLLAR, "Bob": DEAR})
    return Desk(tmp_path, server)


def refusal(done: Done) -> str:
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_two_commands_pay_once_and_the_second_says_so(desk):
    first, again = (desk.ask("constant:Ada", "--replies", desk.replies) for _ in range(2))
    assert desk.server.count() == 1
    assert again["answer"] == first["answer"] == "ada says Paris"
    assert (first["ledger"]["cost_usd"], first["ledger"]["stored_calls"]) == (20e-6, 0)
    assert (again["ledger"]["cost_usd"], again["ledger"]["stored_calls"]) == (0.0, 1)
    assert again["ledger"]["saved_usd"] == again["calls"][0]["saved_usd"] == 20e-6


def test_the_transcript_says_what_was_stored(desk):
    given = ("--pool", desk.folder / "pool.yaml", "--controller", "constant:Ada")
    for _ in range(2):
        done = cli("ask", FRANCE, *given, "--replies", desk.replies)
    assert "ada says Paris  [5 tokens, $0 (stored; $0.000020 saved), " in done.stdout
    assert "Ada  $0  1 call, 1 stored, 10 + 5 tokens" in done.stdout
    assert "total  $0 ($0.000020 saved)" in done.stdout


def test_the_environment_may_name_the_file(desk):
    for _ in range(2):
        summary = desk.ask(ROUTER_R1_REPLIES=str(desk.replies))
    assert summary["ledger"]["stored_calls"] == 1


def test_without_the_option_every_call_is_made(desk):
    for _ in range(2):
        assert desk.ask()["ledger"]["stored_calls"] == 0
    assert desk.server.count() == 2


def test_an_age_and_sampled_replies_are_options(desk):
    desk.ask("constant:Ada", "--replies", desk.replies)
    assert desk.ask("constant:Ada", "--replies", desk.replies, "--replies-max-age", "7d")["ledger"][
        "stored_calls"
    ]
    old = ("--replies", desk.replies, "--replies-max-age", "0.000001s")
    assert not desk.ask("constant:Ada", *old)["ledger"]["stored_calls"]
    yaml_pool(desk.folder, desk.server, {"Ada": {"temperature": 1.0}})
    for options, stored in (((), 0), (("--replies-every",), 0), (("--replies-every",), 1)):
        summary = desk.ask("constant:Ada", "--replies", desk.replies, *options)
        assert summary["ledger"]["stored_calls"] == stored


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--replies", "."), "--replies: .: a folder"),
        (("--replies", "missing/replies.sqlite"), "--replies: missing/replies.sqlite: the reply"),
        (("--replies", "r.sqlite", "--replies-max-age", "week"), "'week': a number and s, m, h"),
        (("--replies", "r.sqlite", "--replies-max-age", "0d"), "'0d': a number and s, m, h or d"),
    ],
)
def test_a_wrong_option_is_said_before_anything_is_asked(desk, options, words):
    assert words in refusal(cli("ask", FRANCE, *options, cwd=desk.folder))


def test_an_evaluation_pays_once_and_its_costs_can_still_be_compared(desk):
    needs("eval")
    (desk.folder / "questions.jsonl").write_text(
        "".join(
            json.dumps({"id": str(i), "question": f"{FRANCE} ({i})", "gold": ["x"]}) + "\n"
            for i in range(5)
        )
    )
    given = ("--pool", desk.folder / "pool.yaml", "--controller", "cascade", "--metric", "contains")
    summaries = []
    for run in ("one", "two"):
        done = cli(
            *("evaluate", desk.folder / "questions.jsonl", *given, "--replies", desk.replies),
            *("--out", desk.folder / run, "--json"),
        )
        assert done.returncode == 0, done.stderr
        summaries.append(json.loads(done.stdout))
    assert desk.server.count() == 10  # both candidates on five questions; the rest is known
    first, again = summaries
    assert [row["cost_usd"] for row in again["controllers"]] == [
        row["cost_usd"] for row in first["controllers"]
    ]
    calls = sum(5 * row["calls"]["mean"] for row in again["controllers"][:-1])
    assert (again["stored_calls"], first["stored_calls"]) == (calls, calls - 10)
    assert again["saved_usd"] > first["saved_usd"] > 0
    words = "stored replies saved $"
    assert words in (desk.folder / "two" / "report.md").read_text()


def test_an_evaluation_in_several_processes_shares_the_file(tmp_path, desk):
    needs("eval")
    given = ("--limit", 6, "--processes", 2, "--no-controls", "--controller", "keyword")
    for _ in range(2):
        done = cli("evaluate", "demo", *given, "--replies", desk.replies, "--json")
        assert done.returncode == 0, done.stderr
    calls = 6 * json.loads(done.stdout)["controllers"][0]["calls"]["mean"]
    assert json.loads(done.stdout)["stored_calls"] == pytest.approx(calls)
    assert desk.stats()["hits"] >= round(calls)


def test_stats_show_what_was_paid_and_saved(desk):
    for controller in ("constant:Ada", "constant:Ada", "constant:Ada", "constant:Bob"):
        desk.ask(controller, "--replies", desk.replies)
    stats = desk.stats()
    assert stats["candidates"] == [
        {"candidate": "Ada", "replies": 1, "paid_usd": 20e-6, "hits": 2, "saved_usd": 40e-6},
        {"candidate": "Bob", "replies": 1, "paid_usd": 200e-6, "hits": 0, "saved_usd": 0.0},
    ]
    assert (stats["replies"], stats["hits"], stats["saved_usd"]) == (2, 2, 40e-6)
    assert stats["bytes"] > 0
    assert cli("replies", "stats", desk.replies).stdout.splitlines()[:4] == [
        "candidate  replies       paid  used again      saved",
        "Ada              1  $0.000020           2  $0.000040",
        "Bob              1  $0.000200           0         $0",
        "total            2  $0.000220           2  $0.000040",
    ]


def test_an_export_is_a_recorded_pool(desk):
    for controller in ("constant:Ada", "constant:Bob", "constant:Ada"):
        desk.ask(controller, "--replies", desk.replies)
    out = desk.folder / "records.jsonl"
    done = cli("replies", "export", desk.replies, out)
    assert (done.returncode, done.stderr) == (0, f"{out}: 2 records\n")
    replay = desk.folder / "replay.yaml"
    assert cli("pool", "from-records", out, "--out", replay).returncode == 0
    asked = cli("ask", FRANCE, "--pool", replay, "--controller", "constant:Bob", "--json")
    assert json.loads(asked.stdout)["answer"] == "bob says Paris"
    assert json.loads(asked.stdout)["ledger"]["cost_usd"] == pytest.approx(200e-6)
    cli("replies", "export", desk.replies, out, "--model-names")
    assert [record.candidate for record, _ in read_records(out)] == ["ada", "bob"]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (("--candidate", "Ada"), ["Bob"]),
        (("--older-than", "1d"), ["Ada", "Bob"]),
        (("--older-than", "0.000001s"), []),
        ((), []),
    ],
)
def test_clear_deletes_what_is_named(desk, options, left):
    for controller in ("constant:Ada", "constant:Bob"):
        desk.ask(controller, "--replies", desk.replies)
    done = cli("replies", "clear", desk.replies, *options, "--yes")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{desk.replies}: {2 - len(left)} repl")
    assert [line["candidate"] for line in desk.stats()["candidates"]] == left
    if not left:
        written = b"".join(path.read_bytes() for path in desk.folder.glob("replies.sqlite*"))
        assert b"capital of France" not in written


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("stats", "none.sqlite"), "none.sqlite: no such reply store"),
        (("export", "none.sqlite", "out.jsonl"), "none.sqlite: no such reply store"),
        (("clear", "none.sqlite", "--yes"), "none.sqlite: no such reply store"),
        (("clear", "replies.sqlite"), "to delete without being asked, say --yes"),
        (("clear", "replies.sqlite", "--candidate", "Adda"), "of it in replies.sqlite (did you"),
        (("clear", "replies.sqlite", "--older-than", "1w"), "--older-than '1w': a number"),
        (("stats", "pool.yaml"), "pool.yaml: no reply store"),
        (("export", "replies.sqlite", "missing/out.jsonl"), "OUT missing/out.jsonl: cannot be"),
    ],
)
def test_a_wrong_command_is_one_line_and_changes_nothing(desk, command, words):
    desk.ask("constant:Ada", "--replies", desk.replies)
    assert words in refusal(cli("replies", *command, cwd=desk.folder))
    assert not (desk.folder / "none.sqlite").exists()
    with ReplyStore(desk.replies) as store:
        assert [line.replies for line in store.stats()] == [1]
