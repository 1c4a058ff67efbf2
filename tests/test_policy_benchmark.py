"""The benchmark of a policy: each row is measured, and what was asked is not asked again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from extras import needs

needs("train")

import router_r1_graph
from benchmarks import policy
from benchmarks.policy_behaviour import invented
from benchmarks.policy_columns import Column
from benchmarks.policy_questions import DECOMPOSED, RUNS, Setting
from benchmarks.policy_speed import measure
from router_r1_graph import CandidatePool, ConfigError, RouterContext, parse_controller
from router_r1_graph.controllers.scripted import ScriptedController
from tiny_policy import make_model, make_tokenizer
from training.items import Item
from training.rollouts import roll_out

ROWS = "known,test,unseen,shuffled,swapped,weights,warm_start,controls,decomposed,facts,nothing"
QUESTIONS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a policy, files of two decomposed questions, and two for nobody."""
    folder = tmp_path_factory.mktemp("bench")
    tokenizer = make_tokenizer()
    for saved in (tokenizer, make_model(tokenizer)):
        saved.save_pretrained(folder / "policy")
    settings = json.dumps({"max_new_tokens": 4})
    (folder / "policy" / "router_r1.json").write_text(settings, encoding="utf-8")
    template = Path(router_r1_graph.__file__).parent / "prompts" / "brief.txt"
    (folder / "policy" / "prompt_template.txt").write_bytes(template.read_bytes())
    for name in DECOMPOSED:
        rows = [
            {
                "id": f"{name}/{n}",
                "question": f"Who led the town where the bridge {n} stands?",
                "gold": [f"Mayor {n}"],
                "decomposition": [
                    {"question": f"Where does the bridge {n} stand?", "answer": f"Town {n}"},
                    {"question": f"Who led Town {n}?", "answer": f"Mayor {n}"},
                ],
            }
            for n in range(2)
        ]
        (folder / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    rows = [
        {"id": "1", "question": "What is 17 * 23?", "reply": "391", "split": "test"},
        {"id": "2", "question": "How are you?", "reply": None, "split": "test"},
        {"id": "3", "question": "And you?", "reply": None, "split": "train"},
    ]
    (folder / "nothing.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def bench(monkeypatch, folder, *arguments):
    """Run the program in this process, with the policy of the folder if none is named first."""
    given = [folder / "policy"] if arguments[0].startswith("--") else []
    given += ["--questions", QUESTIONS, "--threads", 1, "--out", folder / "out", "--real", folder]
    given += ["--nothing", folder / "nothing.jsonl", *arguments]
    monkeypatch.setattr(sys, "argv", ["policy", *map(str, given)])
    policy.main()


def table(capsys):
    """Return the printed table: what was measured by check."""
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    return {cells[0]: cells[2:] for cells in (line.strip("| ").split(" | ") for line in lines)}


@pytest.mark.long
def test_each_row_is_measured_and_a_run_goes_on_where_it_stopped(monkeypatch, capsys, folder):
    warm_start = ["--warm-start", str(folder / "policy")]
    bench(monkeypatch, folder, *warm_start, "--rows", f"{ROWS},robustness,most_asked")
    before = table(capsys)
    without = [check for check, (measured, met) in before.items() if met == "not run"]
    assert without == [
        "curve over steps",
        "loads, on 2 cores",
        "first answer of a two-hop question, on 2 cores",
        "8 questions at once, on 2 cores",
        "on a GPU",
    ]
    assert before["reward against the warm start"][0].endswith("+0.000 [+0.000, +0.000]")

    kept = folder / "out" / "policy" / "known.jsonl"
    first, *others = kept.read_bytes().splitlines(keepends=True)
    assert len(others) == QUESTIONS - 1
    kept.write_bytes(first + others[0][:1000])  # as if the program had been killed
    asked_elsewhere = (folder / "out" / "policy" / "test.jsonl").read_bytes()
    bench(monkeypatch, folder, "--rows", "known")
    assert table(capsys) == before, "rows that were not asked for stand as they were"
    again = kept.read_bytes().splitlines(keepends=True)
    assert again[0] == first
    assert len(again) == QUESTIONS
    assert (folder / "out" / "policy" / "test.jsonl").read_bytes() == asked_elsewhere


def test_the_oracle_does_what_the_controller_of_that_name_does():
    asked = RUNS["known"](Setting(30))
    ours = Column.oracle(asked)
    controller = parse_controller("oracle", CandidatePool.embedded())
    theirs = Column.of("oracle", roll_out([one.item for one in asked], controller))
    for name in ("exact_match", "cost_usd", "calls", "reward"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-9)
    assert ours.asked == theirs.asked


@pytest.mark.parametrize(
    ("question", "call", "answer", "is_invented"),
    [
        ("What is 17 * 23?", "", "1984", True),
        ("What is 17 * 23?", "", "391", False),  # the right one
        ("What is 17 * 23?", "", "unknown", False),
        ("What is 17 * 23?", "", "Nobody in this pool can say that.", False),
        ("Is it tea or coffee?", "", "Coffee", False),  # stands in the question
        ("Who wrote Hamlet?", "Quillora", "William Shakespeare", False),
        ("Who wrote Hamlet?", "Quillora", "Christopher Marlowe", True),
    ],
)
def test_an_answer_that_nobody_gave_is_invented(question, call, answer, is_invented):
    script = [f"<think>So.</think><answer>{answer}</answer>"]
    if call:
        script.insert(0, f"<think>Ask.</think><search>{call}: {question}</search>")
    item = Item("1", question, ("391",), CandidatePool.embedded(), RouterContext())
    (trace,) = roll_out([item], ScriptedController(script))
    assert invented(trace) is is_invented


def test_the_speed_is_measured(folder):
    speed = measure(str(folder / "policy"), "cpu", threads=1, count=2)
    assert min(speed.load_seconds, speed.first_seconds, speed.alone, speed.together) > 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--rows", "know"], "there is no row 'know' .did you mean 'known'"),
        (["--rows", "nothing", "--nothing", "{folder}/broken.jsonl"], "broken.jsonl, line 1: "),
        (["{folder}/elsewhere"], "no model there"),
        (["{folder}/other"], "holds the traces of another policy"),
    ],
)
def test_what_cannot_be_measured_is_named(monkeypatch, folder, tmp_path, arguments, error):
    (tmp_path / "broken.jsonl").write_text('{"id": 1}\n', encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}", encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    about = {"policies": {"policy": "abc"}} if "other" in str(arguments) else {}
    (out / "about.json").write_text(json.dumps(about), encoding="utf-8")
    given = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
    with pytest.raises(SystemExit, match=error):
        bench(monkeypatch, folder, *given, "--out", str(out))


def test_the_table_goes_between_the_markers_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before {policy.BEGIN}\nold\n{policy.END} after", encoding="utf-8")
    checks = [policy.Check("a", "b", "1", True), policy.Check("c", "d")]
    policy.write_page(policy.table(checks), page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before {policy.BEGIN}\n| check | bar |")
    assert text.endswith(f"| a | b | 1 | met |\n| c | d | not run | not run |\n{policy.END} after")
    page.write_text("no markers", encoding="utf-8")
    with pytest.raises(ConfigError, match="the markers"):
        policy.write_page("", page)
