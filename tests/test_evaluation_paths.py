"""One evaluation of candidates that cost money, and what the next command makes of its files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from extras import needs

needs("eval")

from in_process import Done, cli
from openai_server import Malformed, OpenAIServer, Reply, Request, Status
from yaml_pool import ONE_DOLLAR, yaml_pool

GOLD = {f"What is the capital of land {n}?": f"Town {n}" for n in range(8)}
DEAR = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 20.0}


def says(request: Request) -> Reply:
    """Bob answers in a sentence and is always right; Ada answers with the name, half the time."""
    gold = GOLD[request.prompt]
    if request.model == "bob":
        return Reply(f"{gold} is the capital of that land.")
    return Reply(gold if int(gold[-1]) % 2 else "Nowhere")


@pytest.fixture
def server(serve, tmp_path: Path) -> OpenAIServer:
    server = serve(says)
    yaml_pool(tmp_path, server, {"Ada": ONE_DOLLAR, "Bob": DEAR})
    rows = ({"question": question, "gold": gold} for question, gold in GOLD.items())
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return server


def evaluate(folder: Path, *options: object) -> Done:
    given = ("q.jsonl", "--pool", "pool.yaml", "--controller", "vote", "--out", "out")
    return cli("evaluate", *given, *options, cwd=folder)


def test_the_files_of_an_evaluation_are_what_the_next_command_reads(server, tmp_path):
    done = evaluate(tmp_path, "--record", "out/records.jsonl", "--system-prompt", "Be brief.")
    assert done.returncode == 0, done.stderr
    assert server.count() == 2 * len(GOLD)  # vote and random ask what the candidates were asked
    system = {"role": "system", "content": "Be brief."}
    assert all(request.body["messages"][0] == system for request in server.requests)
    assert "estimate: 32 runs, about $0.0" in done.stderr
    form = "Warning: answers of Bob are right in a form that exact_match does not count (0.000; 1.0"
    assert form in done.stdout
    report = (tmp_path / "out" / "report.md").read_text()
    assert "router-r1 evaluate q.jsonl" in report
    assert "seed 0" in report
    for data in ("out", "out/records.jsonl"):
        for metric, best in (("exact_match", "Ada"), ("contains", "Bob")):
            given = ("--data", data, "--metric", metric, "--out", f"fitted/{metric}")
            fitted = cli("fit", "knn", *given, cwd=tmp_path)
            assert fitted.returncode == 0, fitted.stderr
            assert "8 questions x 2 candidates" in fitted.stdout, best
    zeros = cli("fit", "knn", "--data", "out", "--metric", "choice", "--out", "x", cwd=tmp_path)
    assert zeros.returncode == 2
    assert "every score by choice is 0" in zeros.stderr
    pool = ("pool", "from-records", "out/records.jsonl", "--gold-field", "gold", "--out", "p.yaml")
    assert cli(*pool, cwd=tmp_path).returncode == 0
    shown = cli("report", "out", "out", "--no-browser", cwd=tmp_path)
    assert re.search(
        r"^Bob +0\.000 +\S+ +0\.000 +\S+ +\+0\.00 \[\+0\.00, \+0\.00\]$", shown.stdout, re.M
    )
    assert "+0.000 [+0.000, +0.000]" in (tmp_path / "out" / "comparison.html").read_text()


def test_records_may_have_other_names_and_lines_without_gold_answers(tmp_path):
    rows = [
        {
            "q": "Who wrote Hamlet?",
            "who": "Ada",
            "said": "The answer is x.",
            "right": {"aliases": ["x"]},
        },
        {"q": "Who wrote Hamlet?", "who": "Bob", "said": "y", "right": "x"},
        {"q": "Who?", "who": "Bob", "said": "y"},
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("fit", "knn", "--data", "r.jsonl", "--out", "o", "--fields")
    names = "question=q,candidate=who,reply=said"
    done = cli(*given, names, "--gold-field", "right", cwd=tmp_path)
    assert "1 question x 2 candidates" in done.stdout, done.stderr
    done = cli(*given, names, cwd=tmp_path)
    assert "line 1: there is no 'gold'; --gold-field names the gold answers" in done.stderr


def test_the_budget_is_that_of_the_whole_run(server, tmp_path):
    none = evaluate(tmp_path, "--budget-usd", "0.000001")
    assert (none.returncode, server.count()) == (2, 0)
    assert "allows no question" in none.stderr
    assert "estimate: " in evaluate(tmp_path, "--estimate").stdout
    assert server.count() == 0
    budget = 0.0117  # a call of Bob's may cost 0.011, and costs 0.0002
    some = evaluate(tmp_path, "--budget-usd", budget, "--resume", "--json")
    assert "Stopped at the budget of $0.011700" in json.loads(some.stdout)["notes"][0]
    assert 0 < server.count("bob") < len(GOLD)
    assert 20e-6 * server.count("ada") + 200e-6 * server.count("bob") <= budget
    assert evaluate(tmp_path, "--resume").returncode == 0
    assert server.count() == 2 * len(GOLD)


def test_nothing_is_reported_where_every_call_failed_and_it_can_go_on(serve, server, tmp_path):
    broken = serve(Status(401))
    pool = tmp_path / "pool.yaml"
    good = pool.read_text()
    pool.write_text(good.replace(server.base_url, broken.base_url))
    failed = evaluate(tmp_path)
    assert failed.returncode == 2
    assert "every call failed, so there is nothing to report: " in failed.stderr
    assert not (tmp_path / "out" / "report.html").exists()
    pool.write_text(good)
    again = evaluate(tmp_path, "--resume")
    assert again.returncode == 0, again.stderr
    assert server.count() == 2 * len(GOLD)


def test_where_a_budget_ends_what_only_failed_both_are_told(serve, server, tmp_path):
    broken = serve(Malformed())
    dear = {**DEAR, "max_tokens": 1000}
    yaml_pool(tmp_path, server, {"Bad": {**dear, "base_url": broken.base_url}, "Good": dear})
    rest = ("--controller", "constant:Good", "--no-controls", "--concurrency", 1)
    budget = ("--budget-usd", 0.05)  # a reply may cost 0.02
    given = ("q.jsonl", "--pool", "pool.yaml", "--controller", "constant:Bad", "--out", "out")
    failed = cli("evaluate", *given, *rest, *budget, cwd=tmp_path)
    assert (failed.returncode, broken.count(), server.count()) == (2, 2, 0)
    assert "every call failed, so there is nothing to report: malformed: " in failed.stderr
    stopped = (
        r"Stopped at the budget of \$0\.050000 \(\$0 paid, and up to \$0\.04\d+ that no provider"
    )
    assert re.search(stopped, failed.stderr), failed.stderr
    assert "Go on by --resume with another budget." in failed.stderr


def test_what_may_be_billed_is_told_beside_the_costs(serve, server, tmp_path):
    bad = {**ONE_DOLLAR, "base_url": serve(Malformed()).base_url}
    yaml_pool(tmp_path, server, {"Ada": ONE_DOLLAR, "Bad": bad})
    done = evaluate(tmp_path, "--no-controls", "--concurrency", 1)
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    ledgers = [json.loads(line)["ledger"]["candidates"] for line in lines]
    uncertain = sum(ledger["Bad"]["uncertain_usd"] for ledger in ledgers)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["uncertain_usd"] == pytest.approx(uncertain)
    told = f"The costs leave out up to ${uncertain:.6f} that no provider confirmed."
    for text in (done.stdout, (tmp_path / "out" / "report.md").read_text()):
        assert told in text


@pytest.mark.parametrize("usage", [{"prompt_tokens": 10, "completion_tokens": 5}, None])
@pytest.mark.parametrize(
    ("kind", "choice"),
    [("malformed", None), ("empty", {"message": {"content": ""}, "finish_reason": "stop"})],
)
def test_that_resume_asks_again_is_said_of_what_the_store_has_not(
    serve, server, tmp_path, usage, kind, choice
):
    bad = serve(Malformed(json.dumps({"choices": [choice], "usage": usage})))
    yaml_pool(tmp_path, server, {"Ada": ONE_DOLLAR, "Bad": {"base_url": bad.base_url}})
    given = ("q.jsonl", "--pool", "pool.yaml", "--no-controls", "--out", "out")
    both = ("--controller", "constant:Ada", "--controller", "constant:Bad")
    for resume in ((), ("--resume",)):
        done = cli("evaluate", *given, *both, *resume, cwd=tmp_path)
        assert "Nobody replied for 8 of 16 answers, which count as wrong" in done.stdout
        assert (f"; --resume asks again: {kind}: " in done.stdout) == (usage is None)
    assert bad.count() == (8 if usage else 16)
