"""Evaluation: data in, controllers side by side, a report out; nothing is asked twice."""

import gc
import json
import math
import operator
import os
import re
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from extras import needs

needs("eval")

import numpy as np

from in_process import cli
from router_r1_graph import CandidatePool, ConfigError, RouterContext, RouterR1Error, TraceError
from router_r1_graph.evaluation.plan import Evaluation, control_specs
from router_r1_graph.evaluation.plots import draw
from router_r1_graph.evaluation.processes import ControllerRun, run_in_processes
from router_r1_graph.evaluation.program import evaluate
from router_r1_graph.evaluation.questions import Reader
from router_r1_graph.evaluation.run import Results
from router_r1_graph.evaluation.scorers import parse_scorer
from router_r1_graph.evaluation.statistics import Bootstrap, Interval, entropy, mix_at_cost
from router_r1_graph.evaluation.summary import ORACLE_OF_CONSTANTS, summarise
from router_r1_graph.evaluation.verdict import verdict
from router_r1_graph.files import append_line, only_writer
from router_r1_graph.simulation import EVERY_KIND, read_question

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


# --- data


def test_the_usual_names_of_fields_are_known(tmp_path):
    path = write(
        tmp_path / "q.jsonl",
        {"id": "a", "question": "Q1?", "golden_answers": ["x", "y"], "hops": 2},
        {"query": "Q2?", "answer": "z"},
        {"prompt": "Q3?", "answers": {"text": ["u"], "answer_start": [3]}},
        {"question": "Q4?", "answer": {"aliases": ["v", "w"], "value": "v"}},
    )
    read = Reader([path]).read()
    assert [q.gold for q in read] == [("x", "y"), ("z",), ("u",), ("v", "w")]
    assert read[0].id == "a"
    assert read[1].id == f"{path}:2"
    assert read[0].slices["hops"] == "2"


def test_fields_can_be_named_and_rows_selected(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text('frage,antwort,split\nWer?,"[""a"", ""b""]",test\nWas?,c,train\n', "utf-8-sig")
    read = Reader([str(path)], {"question": "frage", "gold": "antwort"}, {"split": "test"}).read()
    assert [(q.question, q.gold) for q in read] == [("Wer?", ("a", "b"))]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_csv_of_a_spreadsheet_is_read_and_one_of_another_encoding_refused(tmp_path, mark):
    path, rows = tmp_path / "q.csv", "question,gold\r\nWer, bitte?,Ren\u00e9\r\n"
    path.write_bytes(rows.replace(",", mark).replace(f"Wer{mark}", "Wer,").encode("utf-8-sig"))
    assert [(q.question, q.gold) for q in Reader([str(path)]).read()] == [
        ("Wer, bitte?", ("Ren\u00e9",))
    ]
    path.write_bytes(rows.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"q\.csv: not in UTF-8 .* save it as UTF-8"):
        Reader([str(path)]).read()


def test_a_draw_is_the_same_for_the_same_seed_and_another_for_another(tmp_path):
    path = write(tmp_path / "q.jsonl", *({"question": f"Q{i}?", "gold": "x"} for i in range(100)))
    one, same, other = (
        [q.question for q in Reader([path], limit=10, seed=s).read()] for s in (0, 0, 1)
    )
    assert one == same != other
    assert len(set(one)) == 10


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "Q?"}], ":1: no gold answer for 'Q?'"),
        ([{"question": "Q?", "gold": [" ", ""]}], "no gold answer"),
        ([{"gold": "x"}], ":1: no question"),
        (
            [{"id": 1, "question": "Q?", "gold": "x"}, {"id": 1, "question": "R?", "gold": "x"}],
            "id '1'",
        ),
        ([], "no question in it"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, message):
    with pytest.raises(ConfigError) as error:
        Reader([write(tmp_path / "q.jsonl", *rows)]).read()
    assert message in str(error.value)


@pytest.mark.parametrize("id_", [{"id": 7}, {}])
def test_a_row_for_each_candidate_is_one_question(tmp_path, id_):
    rows = [{**id_, "question": "Q?", "gold": "x", "model": m} for m in "abc"]
    reader = Reader([write(tmp_path / "q.jsonl", *rows)])
    assert len(reader.read()) == 1
    assert reader.repeated == 2


def test_data_sets_that_number_alike_do_not_collide(tmp_path):
    one = write(tmp_path / "nq.jsonl", {"id": "test_0", "question": "Q?", "gold": "x"})
    other = write(tmp_path / "triviaqa.jsonl", {"id": "test_0", "question": "R?", "gold": "y"})
    read = Reader([one, other]).read()
    assert len({q.id for q in read}) == 2


def test_broken_lines_stop_it_or_are_counted(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_bytes(
        b'{"question": "A?", "gold": "x"}\n{"question": "B\n{"question": "C\xff?", "gold": "x"}\n'
        b'[1]\n{"question": "D?", "gold": "x"}\n'
    )
    with pytest.raises(ConfigError, match=r"q\.jsonl:2: "):
        Reader([str(path)]).read()
    reader = Reader([str(path)], skip_bad=True)
    assert [q.question for q in reader.read()] == ["A?", "D?"]
    assert len(reader.skipped) == 3
    assert ":3: " in reader.skipped[1]


def test_a_source_that_is_not_there_lists_what_is():
    with pytest.raises(ConfigError, match="no such file; or name a data set: demo, nq"):
        Reader(["nothing.jsonl"]).read()
    for source, near in (("demoo", "demo"), ("deom:test", "demo"), ("hotpotq", "hotpotqa")):
        with pytest.raises(ConfigError, match=rf"file \(did you mean '{near}'\?\); or name a data"):
            Reader([source]).read()


def test_a_large_file_is_streamed(tmp_path):
    import tracemalloc

    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for i in range(8_000):
            file.write(json.dumps({"question": f"Q{i}?" + "x" * 1000, "gold": "y"}) + "\n")
    tracemalloc.start()
    read = Reader([str(path)], limit=5).read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(read) == 5
    assert peak < path.stat().st_size / 5  # hashes of the ids are held, to find repeats


# --- scores


@pytest.mark.parametrize(
    ("metric", "answer", "gold", "score"),
    [
        ("exact_match", "The Pound", ["pound"], 1.0),
        ("contains", "It is the pound sterling, I think.", ["Pound Sterling"], 1.0),
        ("contains", "compound", ["pound"], 0.0),
        ("choice", "I think (B), not A... the answer is B.", ["B"], 1.0),
        ("choice", "none", ["B"], 0.0),
        ("number", "so it is 1,234.50 in all", ["1234.5"], 1.0),
        ("number", "12", ["13", "eleven"], 0.0),
        ("math:isclose", "1", ["1"], 1.0),
    ],
)
def test_metrics(metric, answer, gold, score):
    if metric == "math:isclose":
        with pytest.raises(TypeError):
            parse_scorer(metric)(answer, gold)
        return
    assert parse_scorer(metric)(answer, gold) == score


def test_an_unknown_metric_is_named():
    with pytest.raises(ConfigError, match="did you mean 'contains'"):
        parse_scorer("contain")
    with pytest.raises(ConfigError, match="nowhere"):
        parse_scorer("nowhere:function")


# --- statistics


def test_intervals_cover_what_they_should():
    rng = np.random.default_rng(0)
    bootstrap = Bootstrap(100)
    hits = 0
    for _ in range(200):
        interval = bootstrap.mean(rng.random(100) < 0.3)
        hits += interval.low <= 0.3 <= interval.high
    assert 180 <= hits <= 199


def test_a_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(1)
    base = rng.random(300)
    paired = Bootstrap(300).difference(base + 0.1, base)
    assert paired.low > 0
    assert paired.high - paired.low < 1e-9
    assert math.isclose(paired.mean, 0.1)


def test_the_mix_at_the_same_cost_lies_between_its_two():
    scores = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert mix_at_cost([1.0, 3.0], scores, 2.0).mean() == 0.5
    assert mix_at_cost([1.0, 3.0], scores, 9.0).mean() == 1.0
    assert mix_at_cost([1.0, 3.0], scores, 0.5) is None


def test_entropy_tells_collapse():
    assert entropy([1.0]) == 0
    assert entropy([0.25] * 4) == 2


# --- the demo's questions in other words


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("demo", {"chain", "compare", "yes_no"}),
        ("demo:test", {"chain", "compare", "yes_no"}),
        ("demo:test:both+stated", {"both", "stated"}),
        ("demo:train:every", set(EVERY_KIND)),
    ],
)
def test_the_demo_has_a_choice_of_wordings_and_kinds(source, kinds):
    questions = Reader([source], limit=120).read()
    assert {question.slices["kind"] for question in questions} == kinds
    assert {question.slices["dataset"] for question in questions} == {source}
    readable = sum(read_question(question.question) is not None for question in questions)
    assert (readable == 120) is (source == "demo")


def test_a_wrong_choice_of_the_demo_is_an_error():
    for source, message in (("demo:tset", "did you mean 'test'"), ("demo:test:boht", "'both'")):
        with pytest.raises(ConfigError, match=message):
            Reader([source], limit=4).read()


# --- whole evaluations


def plan(tmp_path, **changes):
    options = {
        "pool": CandidatePool.embedded(),
        "questions": Reader(["demo"], limit=16).read(),
        "controllers": ["keyword"],
        "out": tmp_path / "out",
    }
    return Evaluation(**{**options, **changes})


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """An evaluation with all controls: its summary and the folder of its results and report."""
    folder = tmp_path_factory.mktemp("evaluated")
    return evaluate(plan(folder)), folder / "out"


def test_controls_are_always_there_and_differences_are_paired(evaluated):
    summary, out = evaluated
    names = [row.controller for row in summary.rows]
    assert names == ["keyword", *control_specs(CandidatePool.embedded())]
    assert names[-1] == "oracle"
    best = next(row for row in summary.rows if row.controller == summary.constant_best)
    assert best.against_constant_best.mean == 0
    oracle = summary.rows[-1]
    assert all(row.measures["score"].mean <= oracle.measures["score"].mean for row in summary.rows)
    data = json.loads((out / "summary.json").read_text())
    first = data["controllers"][0]
    assert data["questions"] == 16
    assert set(first["exact_match"]) == {"mean", "low", "high"}
    assert math.isclose(sum(first["share"].values()), 1)
    for name in ("report.md", "report.html", "curve.png", "curve.svg"):
        assert (out / name).stat().st_size > 1000
    assert "The worst questions" in (out / "report.md").read_text()


def test_the_curve_is_drawn_where_rounding_puts_a_mean_outside_of_its_interval(tmp_path, evaluated):
    summary, _ = evaluated
    above = math.nextafter(1.0, 2.0)
    rows = [
        replace(row, measures={**row.measures, "score": Interval(1.0, above, above)})
        for row in summary.rows
    ]
    for path in draw(replace(summary, rows=rows), tmp_path):
        assert path.stat().st_size > 1000


def test_where_no_oracle_can_be_known_it_is_made_of_the_constants(evaluated):
    summary, out = evaluated
    constants = [r for r in summary.rows if r.controller.startswith("constant:")]
    results = Results(out / "results.jsonl", parse_scorer("exact_match"))
    results.load(CandidatePool.embedded())
    only = [o for o in results.outcomes.values() if o.controller.startswith("constant:")]
    again = summarise(only, pool="p", metric="exact_match")
    oracle = next(row for row in again.rows if row.controller == ORACLE_OF_CONSTANTS)
    assert oracle.measures["score"].mean >= max(r.measures["score"].mean for r in constants)


def test_a_candidate_is_called_the_best_only_of_those_that_were_asked_alone(evaluated):
    summary, out = evaluated
    assert verdict(summary)[0].startswith("The best single candidate is")
    results = Results(out / "results.jsonl", parse_scorer("exact_match"))
    results.load(CandidatePool.embedded())
    ours: dict[str, list] = {}
    for outcome in results.outcomes.values():
        if outcome.controller.startswith("constant:"):
            ours.setdefault(outcome.controller, []).append(outcome)
    one, two = list(ours.values())[:2]
    explored = [replace(outcome, explore=0.1) for outcome in one]
    for outcomes, said in (
        (one, "The only single candidate asked is "),
        (one + two, "The best of the 2 single candidates asked is "),
        (explored, "Explored calls went to other candidates, so no candidate was asked alone"),
        (explored + two, f"The only single candidate asked is {two[0].controller[9:]}:"),
    ):
        found = summarise(outcomes, pool="p", metric="exact_match")
        assert verdict(found)[0].startswith(said)
        assert all(row.name == row.controller for row in found.rows if row.explore)


def test_it_is_said_plainly_where_no_controller_is_better_than_the_best_candidate(
    tmp_path, evaluated
):
    nobody = re.compile(
        r"No controller( but oracle)? is better than \w+ with its interval clear of zero\."
    )
    shutil.copytree(evaluated[1], tmp_path / "out")  # what the controls replied is there already
    for controller, better in (("cheapest", False), ("oracle", True)):
        said = verdict(evaluate(plan(tmp_path, controllers=[controller], resume=True)))
        assert any(map(nobody.fullmatch, said)) == (not better)


def test_a_metric_that_sees_no_right_answer_calls_nobody_as_right(evaluated):
    results = Results(evaluated[1] / "results.jsonl", parse_scorer("exact_match"))
    results.load(CandidatePool.embedded())
    blind = [replace(o, score=0.0, stated=0.0) for o in results.outcomes.values()]
    said = " ".join(verdict(summarise(blind, pool="p", metric="exact_match")))
    assert "No metric sees a right answer" in said
    assert "s right" not in said.replace("is right", "")


async def test_an_evaluation_runs_where_a_loop_runs_already_as_in_a_notebook(tmp_path):
    summary = evaluate(plan(tmp_path, controls=False))
    assert summary.questions > 0


def test_a_resumed_run_asks_nothing_twice_and_ends_the_same(tmp_path):
    whole = evaluate(plan(tmp_path, out=tmp_path / "whole", controls=False)).to_json()
    first = plan(tmp_path, controls=False)
    evaluate(first)
    file = tmp_path / "out" / "results.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:9]) + lines[9][: len(lines[9]) // 2])  # killed in a line
    with pytest.raises(ConfigError, match="--resume"):
        evaluate(first)
    # Neither reads the cost weight: at another one they have been asked already.
    again = evaluate(plan(tmp_path, controls=False, resume=True, cost_weights=[0.1])).to_json()
    assert file.read_bytes().startswith(b"".join(lines[:9]))
    assert len(file.read_bytes().splitlines()) == 16
    seconds = ("seconds",)
    for data in (whole, again):
        for row in data["controllers"]:
            for name in seconds:
                row.pop(name)
    assert again == whole


@pytest.mark.long
def test_several_processes_find_what_one_does_and_one_file_has_it_all(tmp_path):
    pool = CandidatePool(candidates=CandidatePool.embedded().candidates[:3])
    options = {"controllers": ["keyword", "knn"], "folds": 2, "pool": pool}
    one = evaluate(plan(tmp_path, out=tmp_path / "one", **options)).to_json()
    two = evaluate(plan(tmp_path, processes=2, **options)).to_json()
    for data in (one, two):
        for row in data["controllers"]:
            row.pop("seconds")
    assert two == one
    file = tmp_path / "out" / "results.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == len((tmp_path / "one" / "results.jsonl").read_bytes().splitlines())
    file.write_bytes(b"".join(lines[:20]))
    evaluate(plan(tmp_path, processes=2, resume=True, **options))
    again = file.read_bytes().splitlines(keepends=True)
    assert again[:20] == lines[:20]
    assert len(again) == len(lines)
    with pytest.raises(ConfigError, match="one process"):
        evaluate(plan(tmp_path, out=None, processes=2, record=tmp_path / "records.jsonl"))


# Functions of this file would be imported by each process, with all that this file imports.
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (partial(signal.raise_signal, signal.SIGKILL), RouterR1Error, "ended with -9"),
        (partial(parse_scorer, "nowhere"), ConfigError, "nowhere"),
        (partial(operator.truediv, 1, 0), RuntimeError, "Traceback.*ZeroDivisionError"),
    ],
    ids=["killed", "misconfigured", "broken"],
)
def test_a_process_that_ends_early_is_told(tmp_path, make, error, message):
    questions = Reader(["demo"], limit=4).read()
    share = ControllerRun("keyword", make, questions, CandidatePool.embedded(), RouterContext())
    results = Results(tmp_path / "results.jsonl", parse_scorer("exact_match"))
    with pytest.raises(error, match=f"(?s){message}"):
        run_in_processes([share], results, metric="exact_match", processes=2)


def test_a_resumed_run_of_another_plan_is_refused_and_the_difference_named(tmp_path):
    first = plan(tmp_path, controls=False)
    evaluate(first)
    one = first.questions[0]
    others = {
        "other gold answers: those of": [replace(one, gold=("another",)), *first.questions[1:]],
        f"other questions: '{one.id}' is": [replace(one, question="Why?"), *first.questions[1:]],
        f"other questions, such as '{one.id}'": first.questions[1:],
    }
    for words, questions in others.items():
        with pytest.raises(ConfigError, match=re.escape(words)):
            evaluate(replace(first, questions=questions, resume=True))
    for knobs, words in [
        ({"max_rounds": 2}, r"another max_rounds \(4, not 2\)"),
        ({"seed": 7}, r"another seed \(0, not 7\)"),
        ({"budget_usd": 0.5}, r"another budget_usd \(None, not 0.5\)"),
    ]:
        with pytest.raises(ConfigError, match=words):
            evaluate(replace(first, context=RouterContext(**knobs), resume=True))


def a_pool(controller=None, **changed):
    ada = {
        "name": "Ada",
        "provider": "fakes:fake_chat_model",
        "options": {"seed": 1, "x": {"y": 1}},
    }
    block = {"model": "c", "base_url": "http://127.0.0.1:1/v1", **(controller or {})}
    return CandidatePool.model_validate(
        {"candidates": [{**ada, **changed}, {**ada, "name": "Bob"}], "controller": block}
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"options": {"seed": 2, "x": {"y": 1}}}, "seed of candidate Ada was another"),
        ({"options": {"seed": 1, "x": {"y": 2}}}, "x of candidate Ada was another"),
        ({"options": {"seed": 1}}, "x of candidate Ada was another"),
        ({"options": {"seed": 1, "x": {"y": 1}, "z": 1}}, "z of candidate Ada was another"),
        ({"model": "new"}, "model of candidate Ada is '', not 'new'"),
        ({"temperature": 1.0}, "temperature of candidate Ada is 0.0, not 1.0"),
        ({"name": "Eve"}, "candidates 'Ada, Bob', not 'Eve, Bob'"),
    ],
)
def test_a_resumed_run_of_another_pool_is_refused_and_the_difference_named(
    tmp_path, changed, words
):
    first = plan(tmp_path, pool=a_pool(), controls=False, controllers=["constant:Bob"])
    evaluate(first)
    with pytest.raises(ConfigError, match=rf"another pool \('pool'\): {re.escape(words)}; write"):
        evaluate(replace(first, pool=a_pool(**changed), resume=True))


def test_a_resumed_run_may_ask_another_address_or_another_controller_block(tmp_path):
    first = plan(tmp_path, pool=a_pool(), controls=False, controllers=["constant:Bob"])
    evaluate(first)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "options" not in summary["origin"]
    moved = a_pool({"model": "d"}, base_url="http://127.0.0.1:2/v1", api_key_env="PATH")
    evaluate(replace(first, pool=moved, resume=True))
    origin = tmp_path / "out" / "origin.json"
    told = json.loads(origin.read_text())
    assert set(told["options"]) == {"Ada", "Bob", "the controller block"}
    origin.write_text(json.dumps({**told, "evaluated": ["pool"]}))
    with pytest.raises(ConfigError, match="model of the controller block was another"):
        evaluate(replace(first, pool=a_pool({"model": "e"}), resume=True))
    del told["options"]  # of an earlier release
    origin.write_text(json.dumps(told))
    evaluate(replace(first, pool=a_pool(options={"seed": 3}), resume=True))


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    out = tmp_path / "out"
    with only_writer("--out", out):
        with pytest.raises(ConfigError, match=rf"another run \(process {os.getpid()}\)"):
            evaluate(plan(tmp_path, controls=False))
    evaluate(plan(tmp_path, controls=False))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": 1}\n', '{"a": 1}\n{"b": 2}\n'),
        ('{"a": 1}\n{"c": "torn', '{"a": 1}\n{"b": 2}\n'),
        ('{"a": 1}\n{"c": 3}', '{"a": 1}\n{"c": 3}\n{"b": 2}\n'),
        ('{"torn', '{"b": 2}\n'),
        ('{"a": 1}\n{"c": "' + "x" * 200_000, '{"a": 1}\n{"b": 2}\n'),
        ('{"a": 1}\n' + "\0" * 50, '{"a": 1}\n{"b": 2}\n'),  # as file systems leave them
        ("notes: mine", 'notes: mine\n{"b": 2}\n'),
        ("", '{"b": 2}\n'),
    ],
)
def test_a_torn_last_line_is_mended_when_another_is_appended(tmp_path, before, after):
    file = tmp_path / "lines.jsonl"
    file.write_text(before)
    append_line(file, '{"b": 2}')
    assert file.read_text() == after


def test_results_of_another_pool_or_a_broken_line_are_refused(tmp_path):
    evaluate(plan(tmp_path, controls=False))
    other = CandidatePool.embedded_unseen() if hasattr(CandidatePool, "embedded_unseen") else None
    pool = other or CandidatePool(candidates=CandidatePool.embedded().candidates[:3])
    with pytest.raises(ConfigError, match="another pool"):
        evaluate(plan(tmp_path, pool=pool, controls=False, resume=True))
    file = tmp_path / "out" / "results.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"{broken\n" + lines[1])
    with pytest.raises(TraceError, match="line 2: not a trace"):
        evaluate(plan(tmp_path, controls=False, resume=True))


@pytest.mark.parametrize("usd", [-5, 1e308])
def test_results_with_an_amount_that_cannot_be_are_refused(tmp_path, usd):
    evaluate(plan(tmp_path, controls=False))
    file = tmp_path / "out" / "results.jsonl"
    first, *others = file.read_text().splitlines(keepends=True)
    result = json.loads(first)
    (name, line), *_ = result["ledger"]["candidates"].items()
    line["cost_usd"] = usd
    file.write_text("".join([json.dumps(result) + "\n", *others]))
    with pytest.raises(
        TraceError, match=rf"line 1: .*ledger\.candidates\.{name}\.cost_usd: must be"
    ):
        evaluate(plan(tmp_path, controls=False, resume=True))


def test_rules_that_do_not_read_the_cost_weight_are_asked_once(tmp_path):
    summary = evaluate(plan(tmp_path, cost_weights=[0.0, 0.5], controls=False))
    assert [row.cost_weight for row in summary.rows] == [0.0]


def test_pythons_collector_is_left_as_it_was_found(tmp_path):
    before = gc.get_threshold()
    evaluate(plan(tmp_path, out=None, controls=False))
    assert gc.get_threshold() == before


def test_the_command_prints_a_table_or_json(tmp_path):
    out = tmp_path / "out"
    run = cli("evaluate", "demo", "--limit", "8", "--controller", "keyword", "--out", str(out))
    assert run.returncode == 0, run.stderr
    assert "to the best" in run.stdout
    assert max(map(len, run.stdout.split("Report:")[0].splitlines()[:12])) < 80
    again = cli(
        *("evaluate", "demo", "--limit", "8", "--controller", "keyword", "--out", str(out)),
        *("--resume", "--json"),
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["questions"] == 8
    shown = cli("traces", "show", str(out / "results.jsonl"), "--controller", "keyword")
    assert shown.stdout.count("question ") == 8
    bad = cli("evaluate", str(tmp_path / "none.jsonl"))
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1


@pytest.mark.skipif(not SHARED.exists(), reason="../shared is not here")
def test_real_questions_go_through_with_a_constant_pool(tmp_path):
    names = ("2wiki", "hotpot_dev_7405", "musique", "popqa_1000", "frames")
    files = [str(SHARED / "qa" / f"{name}.jsonl") for name in names]
    questions = [question for file in files for question in Reader([file], limit=3).read()]
    few = {"controllers": ["constant:Magnivor"], "controls": False}
    summary = evaluate(plan(tmp_path, questions=questions, **few))
    assert summary.questions == 15


def test_what_no_file_can_hold_is_replaced_in_questions(tmp_path):
    file = tmp_path / "q.jsonl"
    row = {"id": "\ud800", "question": "q \udfff?", "golden_answers": ["\udc00"], "kind": "\udc00"}
    file.write_text(json.dumps(row))
    [found] = Reader([str(file)]).read()
    assert (found.id, found.question, found.gold) == ("\ufffd", "q \ufffd?", ("\ufffd",))
    assert found.slices["kind"] == "\ufffd"


def test_folds_that_leave_no_question_to_fit_on_say_so(tmp_path):
    lines = [{"id": str(n), "question": "Who wrote Hamlet?", "gold": ["W"]} for n in range(6)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = ("--folds", 3, "--controller", "knn", "--controller", "reader")
    run = cli("evaluate", tmp_path / "q.jsonl", *args, "--out", tmp_path / "out")
    said = " ".join(run.stdout.split())
    assert said.count("not fitted: a fold holds every question (1 different one, repeated)") >= 2
    assert "leave out repeated ones" in said
