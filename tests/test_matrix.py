"""Score matrices: files in and out, what is refused, where they come from, and the measures."""

from __future__ import annotations

import json
import math

import pytest

from extras import needs
from router_r1_graph import (
    CandidatePool,
    MatrixError,
    Trace,
    create_router_r1,
    parse_controller,
    write_traces,
)
from router_r1_graph.simulation import World, generate

needs("eval")

import numpy as np

from router_r1_graph.controllers.learned.cells import Cell
from router_r1_graph.controllers.learned.columns import csv_columns
from router_r1_graph.controllers.learned.matrix import ScoreMatrix, read_matrix
from router_r1_graph.evaluation.measures import (
    choice_entropy,
    classification_bias,
    gain_over,
    oracle_score,
    router_score,
    softmax,
)
from router_r1_graph.evaluation.scores import load_scores, matrix_of_traces
from single_best import best_single_score

POOL = CandidatePool.model_validate(
    {
        "candidates": [
            {"name": "Ada", "aliases": ["Lovelace"], "model": "lab/ada", "output_usd_per_mtok": 2},
            {"name": "Bob", "latency_seconds": 1.5, "api_key_env": "BOB_KEY"},
        ]
    }
)
QUESTIONS = ("Who, or what?", 'A "quoted"\nquestion é', "Third?")


def matrix() -> ScoreMatrix:
    scores = np.array([[1.0, 0.25], [np.nan, 0.1], [0.0, np.nan]])
    costs = np.array([[1e-6, 2e-6], [np.nan, np.nan], [3e-7, np.nan]])
    return ScoreMatrix(QUESTIONS, POOL.descriptors(), scores, costs)


def same(one: ScoreMatrix, other: ScoreMatrix) -> bool:
    return (
        one.questions == other.questions
        and one.names == other.names
        and np.array_equal(one.scores, other.scores, equal_nan=True)
        and np.array_equal(one.costs_usd, other.costs_usd, equal_nan=True)
    )


# ------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".npz"])
def test_a_matrix_comes_back_as_it_was_written(tmp_path, ending):
    matrix().write(tmp_path / f"m{ending}")
    assert same(read_matrix(tmp_path / f"m{ending}"), matrix())


def test_an_npz_keeps_descriptors_and_no_way_to_reach_anybody(tmp_path):
    pool = POOL.model_copy()
    ScoreMatrix(QUESTIONS, pool, matrix().scores, matrix().costs_usd).write(tmp_path / "m.npz")
    ada, bob = read_matrix(tmp_path / "m.npz").pool.candidates
    assert (ada.output_usd_per_mtok, bob.latency_seconds, bob.api_key_env) == (2.0, 1.5, None)


def test_names_are_found_by_alias_and_model_name_and_put_in_the_pools_order(tmp_path):
    file = tmp_path / "m.jsonl"
    rows = [("B?", "bob"), ("A?", "LOVELACE"), ("B?", "lab/ada")]
    file.write_text(
        "".join(json.dumps({"question": q, "model": m, "score": 1}) + "\n" for q, m in rows)
    )
    read = read_matrix(file, POOL)
    assert read.names == ["Ada", "Bob"]
    assert read.pool.candidates[0].output_usd_per_mtok == 2.0
    assert np.isnan(read.costs_usd).all()
    assert np.array_equal(read.scores, [[1, 1], [1, np.nan]], equal_nan=True)


def test_routerbenchs_other_columns_are_no_candidates(tmp_path):
    file = tmp_path / "m.csv"
    file.write_text(
        "sample_id,prompt,eval_name,gpt,gpt|model_response,gpt|total_cost,oracle_model_to_route_to\n"
        "1,A?,mmlu,0.5,text,0.001,gpt\n"
    )
    read = read_matrix(file)
    assert (read.names, read.scores[0, 0], read.costs_usd[0, 0]) == (["gpt"], 0.5, 0.001)


def test_a_wide_file_without_costs_has_scores_only(tmp_path):
    file = tmp_path / "m.csv"
    file.write_text("prompt,a,b\nA?,1,NaN\n")
    read = read_matrix(file)
    assert read.names == ["a", "b"]
    assert math.isnan(read.scores[0, 1])
    assert np.isnan(read.costs_usd).all()


def test_routerbenchs_files_are_read_as_pandas_and_excel_write_them(tmp_path):
    file = tmp_path / "m.csv"
    text = "x" * 200_000  # more than csv's own limit of a cell
    rows = [
        "\ufeff,sample_id,prompt,gpt,tiny,gpt|model_response",
        f"0,a.1,A?,True,0.25,{text}",
        "1,a.2,B?,None,FALSE,",
        f"2,b.1,A?,False,0.75,{text}",  # the prompt of another set again
        f"3,b.2,{text},1.0,n/a,",
    ]
    file.write_text("\r\n".join(rows) + "\r\n", newline="")
    read = read_matrix(file)
    assert read.questions == ("A?", "B?", text)
    assert read.names == ["gpt", "tiny"]
    wanted = [[0.5, 0.5], [np.nan, 0.0], [1.0, np.nan]]
    assert np.array_equal(read.scores, wanted, equal_nan=True)
    file.write_text("\ufeffTask,Unnamed: 0,gpt\nA?,7,1\n")
    assert read_matrix(file, fields={"question": "Task"}).names == ["gpt"]
    file.write_text("question,gpt,tiny\nA?,85%,50\n")
    with pytest.raises(MatrixError, match=r"50.0 of 'tiny' .*--best-score"):
        read_matrix(file)
    file.write_text("question,gpt,tiny\nA?,85,50.0\n")
    assert read_matrix(file, best_score=100).scores.tolist() == [[0.85, 0.5]]
    file.write_text("question,gpt\nA?,85%\n")
    assert read_matrix(file).scores.tolist() == [[0.85]]


def test_files_with_other_names_of_the_fields_are_read(tmp_path):
    record = {"query": "A?", "query_id": 7, "model_name": "a", "metric": "em", "response": "Oslo"}
    lines = [
        {**record, "performance": True, "ground_truth": "Oslo"},
        {**record, "performance": 0.5, "ground_truth": "Oslo"},
        {**record, "performance": 0, "ground_truth": "Rome", "model_name": "b"},
    ]
    file = tmp_path / "m.jsonl"
    file.write_text("\ufeff" + "\r\n".join(json.dumps(line) for line in lines))
    named = {"question": "query", "candidate": "model_name"}
    read = load_scores(file, fields={**named, "score": "performance"})
    assert (read.questions, read.names, read.scores.tolist()) == (("A?",), ["a", "b"], [[0.75, 0]])
    read = load_scores(file, fields={**named, "gold": "ground_truth"})
    assert read.scores.tolist() == [[1, 0]]
    with pytest.raises(MatrixError, match="line 1: there is no 'grade'"):
        load_scores(file, fields={**named, "score": "grade"})


@pytest.mark.parametrize(
    ("name", "text", "fields"),
    [
        ("m.csv", " Prompt , a,b \nA?,1,0\n", {}),
        ("m.csv", "id;domain;Question;a;b;a_cost;b_cost\n7;maths;A?;1;0;2;3\n", {}),
        ("m.csv", "question,a,b,a_cost_usd,b|cost\nA?,1,0,2,3\n", {}),
        ("m.csv", "query,a,b\nA?,1,0\n", {"question": "query"}),
        ("m.csv", "domain,question,model,score,cost_usd\nx,A?,a,1,2\nx,A?,b,0%,3\n", {}),
        ("m.csv", "q\tmodel\tright\nA?\ta\ttrue\nA?\tb\t0\n", {"question": "q", "score": "right"}),
        ("m.jsonl", '{"prompt": "A?", "model": "a", "score": "1"}\n{"prompt": "A?", '
         '"model": "b", "score": 0}', {}),
    ],
)  # fmt: skip
def test_what_others_call_the_columns_and_how_they_lay_them_out_is_read(
    tmp_path, name, text, fields
):
    (tmp_path / name).write_text(text)
    read = read_matrix(tmp_path / name, fields=fields)
    assert (read.questions, read.names, read.scores.tolist()) == (("A?",), ["a", "b"], [[1, 0]])
    costs = [2.0, 3.0] if "cost" in text else [np.nan, np.nan]
    assert np.array_equal(read.costs_usd, [costs], equal_nan=True)


@pytest.mark.parametrize(
    ("columns", "pool", "named", "read", "said"),
    [
        (
            "Ada,Bob,difficulty",
            None,
            [],
            "Ada Bob difficulty",
            "all but the question's); to change",
        ),
        ("Ada,Bob,difficulty", None, ["Bob", "Ada"], "Bob Ada", "--candidates); not read: diff"),
        ("lab/ada,difficulty,Bob", POOL, [], "Ada Bob", "in the pool); not read: difficulty;"),
        ("eval_name,Ada,Bob,Ada|total_cost,x", None, [], "Ada", "of costs); not read: Bob, x;"),
        ("eval_name,Ada,Bob,Ada|total_cost,x", None, ["Ada", "Bob"], "Ada Bob", "; not read: x"),
        ("domain,Ada,Bob", POOL, ["Bob"], "Bob", "--candidates); not read: domain, Ada"),
    ],
)
def test_which_columns_are_candidates_is_said_and_can_be_named(
    tmp_path, columns, pool, named, read, said
):
    file = tmp_path / "m.csv"
    names = columns.split(",")
    row = ["maths" if name in ("eval_name", "domain") else "0.5" for name in names]
    file.write_text(f"question,{columns}\nA?,{','.join(row)}\n")
    assert read_matrix(file, pool, candidates=named).names == read.split()
    assert said in str(csv_columns(file, pool, {}, named))


@pytest.mark.parametrize(
    "text",
    ["question,model,score\nA?,{},1\nA?,{},0\nA?,{},1\n", "question,{},{},{}\nA?,1,0,1\n", ""],
)
def test_some_candidates_of_a_file_can_be_taken_in_any_shape(tmp_path, text):
    file = tmp_path / ("m.csv" if text else "m.jsonl")
    lines = [{"query": "A?", "model_name": name, "performance": 1} for name in ("Ada", "X", "Bob")]
    file.write_text(text.format("Ada", "X", "Bob") or "\n".join(map(json.dumps, lines)))
    named = {"question": "query", "candidate": "model_name", "score": "performance"}
    fields = {} if text else named
    read = load_scores(file, POOL, fields=fields, candidates=["Bob", "Ada"])
    assert read.names == ["Ada", "Bob"]
    read.write(tmp_path / "m.npz")
    assert load_scores(tmp_path / "m.npz", candidates=["Bob"]).names == ["Bob"]
    for known in (file, tmp_path / "m.npz"):
        with pytest.raises(MatrixError, match=r"'Adda' \(did you mean 'Ada'\?\)"):
            load_scores(known, fields=fields if known is file else None, candidates=["Adda", "Ada"])


def test_only_one_split_is_read(tmp_path):
    file = tmp_path / "m.jsonl"
    line = '{"question": "%s?", "candidate": "a", "score": 1, "split": "%s"}\n'
    file.write_text(line % ("A", "train") + line % ("B", "test"))
    assert read_matrix(file, split="test").questions == ("B?",)
    with pytest.raises(MatrixError, match="there is nothing in it"):
        read_matrix(file, split="dev")


GOOD = '{"question": "A?", "candidate": "Ada", "score": 1}\n'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.jsonl", "", "m.jsonl: there is nothing in it"),
        ("m.jsonl", GOOD + "{broken\n", "m.jsonl, line 2: not JSON"),
        ("m.jsonl", GOOD + "\n[1]\n", "m.jsonl, line 3: a line is a JSON object, not [1]"),
        ("m.jsonl", GOOD.replace("Ada", "Adda"), "line 1: no candidate 'Adda' (did you mean 'Ada'"),
        ("m.jsonl", GOOD.replace('"A?"', '" "'), "line 1: 'question' is a text, not ' '"),
        ("m.jsonl", GOOD.replace("1}", '"good"}'), "line 1: 'score' is a number, not 'good'"),
        ("m.jsonl", GOOD.replace("1}", '1, "cost_usd": true}'), "'cost_usd' is a number, not True"),
        ("m.jsonl", GOOD.replace("score", "grade"), "line 1: there is no 'score'"),
        ("m.jsonl", GOOD.replace("question", "ask"), "no 'question' (another name of it: --fields"),
        ("m.jsonl", GOOD.replace("1}", "1.5}"), "scores: 1.5 of 'Ada' on 'A?' is no number from 0"),
        ("m.jsonl", GOOD.replace("1}", "Infinity}"), "scores: inf of 'Ada'"),
        ("m.jsonl", GOOD.replace("1}", '1, "cost_usd": -1}'), "costs_usd: -1.0 of 'Ada'"),
        ("m.jsonl", GOOD.replace("1}", "NaN}"), "nothing was measured"),
        ("m.csv", "ask,Ada\n", "no column 'prompt' (another name of it: --fields question=NAME)"),
        ("m.csv", "prompt,Ada\n", "m.csv: there is nothing in it"),
        ("m.csv", "prompt\nA?\n", "there is no column of a candidate"),
        ("m.csv", "prompt,Ada,Ada\nA?,1,1\n", "a column is there twice"),
        ("m.csv", "prompt,Ada\nA?,1\nB?\n", "m.csv, line 3: not 2 columns"),
        (
            "m.csv",
            "prompt,Ada\nA?,x\n",
            "m.csv, line 2: 'Ada' is a number, not 'x'; if this column is no candidate's",
        ),
        ("m.csv", "prompt,Eve\nA?,1\n", "no candidate 'Eve'"),
        ("m.csv", "prompt,Ada,Lovelace\nA?,1,1\n", "two columns are of the candidate 'Ada'"),
        ("m.npz", "PK", "m.npz: not a score matrix"),
        ("m.txt", "", "m.txt: a score matrix ends in .jsonl, .csv, .npz"),
    ],
)
def test_what_cannot_be_used_is_said_with_file_and_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(MatrixError) as raised:
        read_matrix(tmp_path / name, POOL)
    assert message in str(raised.value)


def test_a_missing_file_and_another_ending_are_refused(tmp_path):
    with pytest.raises(MatrixError, match="no such file"):
        read_matrix(tmp_path / "none.npz")
    with pytest.raises(MatrixError, match=r"ends in \.jsonl, \.csv, \.npz"):
        matrix().write(tmp_path / "m.pkl")


def test_an_npz_with_pickled_objects_is_not_loaded(tmp_path):
    np.savez(tmp_path / "m.npz", head=np.array([{"a": 1}], dtype=object))
    with pytest.raises(MatrixError, match="allow_pickle"):
        read_matrix(tmp_path / "m.npz")


def test_shapes_and_questions_are_checked():
    with pytest.raises(MatrixError, match=r"costs_usd has the shape \(1, 2\), not \(3, 2\)"):
        ScoreMatrix(QUESTIONS, POOL, matrix().scores, np.zeros((1, 2)))
    with pytest.raises(MatrixError, match="'A' is there twice"):
        ScoreMatrix(("A", "A"), POOL, np.zeros((2, 2)), np.zeros((2, 2)))


def test_rows_and_columns_are_selected_by_number():
    part = matrix().select([2, 0], [0])
    assert (part.questions, part.names) == (("Third?", "Who, or what?"), ["Ada"])
    assert part.scores.tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".npz"])
def test_a_thousand_candidates_go_through_a_file(tmp_path, ending):
    random = np.random.default_rng(0)
    candidates = [{"name": f"lab/model-{i}"} for i in range(1000)]
    pool = CandidatePool.model_validate({"candidates": candidates})
    shape = (20, 1000)
    scores = random.integers(0, 2, shape).astype(float)
    big = ScoreMatrix(
        tuple(f"Question {i}?" for i in range(20)), pool, scores, random.random(shape)
    )
    big.write(tmp_path / f"m{ending}")
    assert same(read_matrix(tmp_path / f"m{ending}"), big)


# ------------------------------------------------------------------------- traces and replies


def run_traces(*specs: str, gold: bool = True, **context: float) -> list[Trace]:
    pool = CandidatePool.embedded()
    traces = []
    for question in generate(World.embedded(), split="test", n=5, seed=0, hops=1):
        for spec in specs:
            state = create_router_r1(pool, parse_controller(spec, pool)).compile()
            result = state.invoke({"question": question.text}, context=context)
            traces.append(
                Trace.from_state(
                    result,
                    pool=pool,
                    controller=spec,
                    gold=question.gold if gold else (),
                    metadata={"split": "test"},
                )
            )
    return traces


def test_traces_of_constant_controllers_make_a_matrix(tmp_path):
    traces = run_traces("constant:Magnivor", "constant:Vantegro")
    write_traces(tmp_path / "t.jsonl", traces)
    read = load_scores(tmp_path / "t.jsonl", split="test")
    assert set(read.names) == {"Magnivor", "Vantegro"}
    assert read.scores.shape == (5, 2)
    assert not np.isnan(read.scores).any()
    means = dict(zip(read.names, read.scores.mean(axis=0), strict=True))
    assert means["Magnivor"] > means["Vantegro"]
    assert (read.costs_usd > 0).all()
    assert read.pool.candidates[0].output_usd_per_mtok is not None
    assert same(read, matrix_of_traces(traces))


def test_an_explored_run_of_a_constant_is_that_of_who_was_asked():
    traces = run_traces("constant:Magnivor", explore=1.0)
    read = matrix_of_traces(traces)
    asked = {(trace.question, trace.calls[0].candidate) for trace in traces}
    assert {(cell.question, cell.candidate) for cell in read.cells()} == asked
    assert len(read.names) > 1


def test_traces_of_other_controllers_or_without_gold_are_refused():
    with pytest.raises(MatrixError, match="its runs are of keyword"):
        matrix_of_traces(run_traces("keyword"))
    with pytest.raises(MatrixError, match="trace 1: there is no gold answer"):
        matrix_of_traces(run_traces("constant:Magnivor", gold=False))
    with pytest.raises(MatrixError, match="nothing in it"):
        matrix_of_traces([])


def test_recorded_replies_are_scored_against_their_gold_answers(tmp_path):
    record = {"question": "A?", "gold": ["pound sterling"], "model": "Ada", "cost_usd": 1e-6}
    records = [
        {**record, "response": "The pound sterling."},
        {**record, "model": "Bob", "response": "sterling"},
    ]
    file = tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in records))
    assert load_scores(file).scores.tolist() == [[1.0, 0.0]]
    assert load_scores(file, metric="f1").scores[0, 1] == pytest.approx(2 / 3)
    failed = {**record, "model": "Bob", "response": None}
    file.write_text("".join(json.dumps(r) + "\n" for r in (records[0], failed)))
    assert load_scores(file).scores.tolist() == [[1.0, 0.0]]


# --------------------------------------------------------------------------------- measures

SCORES = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, np.nan]])


def test_the_measures_of_a_router_that_chooses_right():
    choices = np.array([0, 0, 1, 0])
    assert router_score(SCORES, choices) == oracle_score(SCORES) == 3.5 / 4
    assert best_single_score(SCORES) == 2.5 / 4
    mu, best = router_score(SCORES, choices), best_single_score(SCORES)
    assert gain_over(best, mu) == pytest.approx(3.5 / 2.5)
    assert choice_entropy(choices) == pytest.approx(0.8113, abs=1e-4)
    assert math.isnan(gain_over(0.0, 0.5))


def test_the_classification_bias_is_of_the_probabilities_and_not_of_the_choices():
    sure = np.eye(4)  # of a different one each time
    assert classification_bias(sure) == 0.0
    assert choice_entropy(sure.argmax(axis=1)) == 2.0
    assert classification_bias(np.full((3, 8), 1 / 8)) == pytest.approx(3.0)
    assert classification_bias(softmax(np.array([[0.0, 0.0], [9.0, 9.0]]))) == pytest.approx(1.0)


def test_who_is_always_chosen_has_no_entropy_and_no_gain():
    choices = np.zeros(4, dtype=int)
    assert gain_over(best_single_score(SCORES), router_score(SCORES, choices)) == 1.0
    assert choice_entropy(choices) == 0.0
    assert choice_entropy(np.arange(8)) == 3.0


def test_a_cell_that_was_not_measured_counts_nowhere():
    assert router_score(SCORES, np.array([0, 0, 1, 1])) == 1.0
    empty = ScoreMatrix.from_cells([Cell("A?", "a", 1.0), Cell("B?", "b", 0.0)])
    assert best_single_score(empty.scores) == 1.0
