"""Public benchmarks of routers: their files and measures, beside plain reckonings of them."""

from __future__ import annotations

import csv
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extras import needs
from in_process import cli
from router_r1_graph import CandidatePool

needs("eval")

import numpy as np

from router_r1_graph.controllers.learned import LearnedController
from router_r1_graph.controllers.learned.matrix import read_matrix
from router_r1_graph.evaluation.router_arena import arena_score
from router_r1_graph.evaluation.router_bench import BenchRow, areas

SETS = {"mmlu-law": ("court", "judge"), "gsm8k": ("apples", "sum")}
MODELS = ("lab/small", "lab/large")
#: Whoever knows a topic is right; one prompt stands in the file twice.
POOL = """
candidates:
  - {name: Small, model: lab/small, input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.4}
  - {name: Large, model: lab/large, input_usd_per_mtok: 2, output_usd_per_mtok: 8}
"""


def rows() -> list[dict[str, object]]:
    found = []
    for number in range(40):
        name = list(SETS)[number % 2]
        words = SETS[name]
        prompt = f"{words[number % 3 % 2]} {words[0]} question {number}"
        right = (True, False) if name == "gsm8k" else (number == 4, number != 6)
        found.append(
            {
                "sample_id": f"{name}.{number}",
                "prompt": prompt,
                "eval_name": name,
                MODELS[0]: right[0],
                MODELS[1]: right[1],
                f"{MODELS[0]}|model_response": "A",
                f"{MODELS[1]}|model_response": "B",
                f"{MODELS[0]}|total_cost": 0.001 + number * 1e-5,
                f"{MODELS[1]}|total_cost": 0.02,
                "oracle_model_to_route_to": "no_model_correct",
            }
        )
    return [*found, {**found[2], "sample_id": "again", MODELS[1]: False}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A RouterBench CSV, a pool, a controller fitted on the CSV, and RouterArena's data sets."""
    path = tmp_path_factory.mktemp("bench")
    with (path / "bench.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows()[0])
        writer.writeheader()
        writer.writerows(rows())
    (path / "pool.yaml").write_text(POOL)
    pool = CandidatePool.from_yaml(path / "pool.yaml")
    LearnedController.fit("knn", read_matrix(path / "bench.csv", pool), options={"k": 5}).save(
        path / "knn"
    )
    prompts = [
        {"global index": f"Set_{i}", "prompt_formatted": r["prompt"]}
        for i, r in enumerate(rows()[:20])
    ]
    other = ["apples sum of another kind", *(p["prompt_formatted"] for p in prompts[1:8])]
    reworded = [{"global index": f"Set_{i}", "prompt": text} for i, text in enumerate(other)]
    (path / "data.json").write_text(json.dumps(prompts))
    (path / "reworded.json").write_text(
        json.dumps([*reworded, {"global index": "X", "prompt": "?"}])
    )
    return path


def run(folder, *args: object) -> dict:
    done = cli("bench", *args, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ------------------------------------------------------------------------------- RouterArena


def test_a_submission_is_what_routerarena_checks_and_its_robustness_is_measured(folder):
    asked = ["--robustness", "reworded.json", "--pool", "pool.yaml", "--controller", "knn:knn"]
    told = run(folder, "routerarena", "data.json", *asked, "--name", "mine", "--out", "out")
    config = json.loads((folder / "out/config/mine.json").read_text())["pipeline_params"]
    assert config == {"router_name": "mine", "models": list(MODELS)}
    made = json.loads((folder / "out/predictions/mine.json").read_text())
    data = json.loads((folder / "data.json").read_text())
    # What `check_config_prediction_files.py` asks of each entry.
    assert [(e["global index"], e["prompt"]) for e in made] == [tuple(d.values()) for d in data]
    assert {e["prediction"] for e in made} == set(config["models"])
    assert all(e["generated_result"] is e["cost"] is e["accuracy"] is None for e in made)
    again = json.loads((folder / "out/predictions/mine-robustness.json").read_text())
    same = [e["prediction"] == made[i]["prediction"] for i, e in enumerate(again[:8])]
    assert told["reworded"] == 8
    assert told["robustness"] == sum(same) / 8 == 7 / 8
    prices = json.loads((folder / "out/mine-prices.json").read_text())
    assert prices["lab/large"] == {
        "input_token_price_per_million": 2.0,
        "output_token_price_per_million": 8.0,
    }
    # The files alone, once RouterArena has judged them; what is for its optimality is not read.
    judged = [{**e, "accuracy": i % 2, "cost": 0.001} for i, e in enumerate(made)]
    judged.append({**judged[0], "for_optimality": True, "accuracy": 0.0, "cost": 9.0})
    (folder / "judged.json").write_text(json.dumps(judged))
    told = run(
        folder, "routerarena", "judged.json", "--robustness", "out/predictions/mine-robustness.json"
    )
    assert (told["prompts"], told["accuracy"], told["robustness"]) == (20, 0.5, 7 / 8)
    assert told["usd_per_1000"] == pytest.approx(1.0)
    assert told["score"] == pytest.approx(arena_score(1.0, 0.5))


@given(st.floats(1e-6, 1e4), st.floats(0, 1), st.floats(0, 1))
def test_the_arena_score_is_the_weighted_harmonic_mean_of_accuracy_and_cheapness(usd, one, two):
    cheap = 1 - math.log(min(max(usd, 0.0044), 200) / 0.0044) / math.log(200 / 0.0044)
    mean = 1.1 / (1 / one + 0.1 / cheap) if one > 1e-9 and cheap > 1e-9 else 0.0
    assert arena_score(usd, one) == pytest.approx(mean, abs=1e-6)
    assert (arena_score(usd, one) <= arena_score(usd, two)) or one >= two


# -------------------------------------------------------------------------------- RouterEval


def test_routerevals_measures_are_those_of_its_definitions(folder):
    matrix = read_matrix(folder / "bench.csv")
    theirs = [{"prompt": q, "prediction": MODELS["apples" not in q]} for q in matrix.questions]
    (folder / "theirs.jsonl").write_text("".join(json.dumps(t) + "\n" for t in theirs))
    specs = ["--controller", "knn:knn", "--controller", "random", "--predictions", "theirs.jsonl"]
    told = run(
        folder, "routereval", "bench.csv", "--pool", "pool.yaml", *specs, "--reference", "Small"
    )
    fitted, drawn, read, best, oracle = told["routers"]
    small, large = matrix.scores.mean(axis=0)
    assert told["questions"] == 40
    assert best == {
        "router": "Large (best candidate)" if large > small else "Small (best candidate)",
        "mu": max(small, large),
        "v_r": max(small, large) / small,
        "v_b": 1.0,
        "e_p": 0.0,
    }
    right = [
        row[int("apples" not in q)] for q, row in zip(matrix.questions, matrix.scores, strict=True)
    ]
    assert read["mu"] == pytest.approx(np.mean(right))
    assert read["v_b"] == pytest.approx(np.mean(right) / max(small, large))
    assert (read["e_p"], drawn["e_p"]) == (0.0, 1.0)
    assert fitted["v_b"] > 1
    assert 0 < fitted["e_p"] < 1
    assert oracle["mu"] == pytest.approx(matrix.scores.max(axis=1).mean())


# ------------------------------------------------------------------------------- RouterBench


def test_routerbenchs_table_counts_each_row_of_its_file(folder):
    weights = ["--cost-weight", "0", "--cost-weight", "1"]
    args = ["bench.csv", "--pool", "pool.yaml", "--controller", "knn:knn", *weights]
    told = run(folder, "routerbench", *args, "--out", "table.csv")
    table = {(r["eval_name"], r["model_name"], r["cost_weight"]): r for r in told["rows"]}
    for name in (*SETS, "all"):
        own = [row for row in rows() if name in ("all", row["eval_name"])]
        for ours, theirs in zip(("Small", "Large"), MODELS, strict=True):
            found = table[name, ours, None]
            assert found["performance"] == pytest.approx(np.mean([float(r[theirs]) for r in own]))
            cost = sum(r[f"{theirs}|total_cost"] for r in own)
            assert found["total_cost"] == pytest.approx(cost)
        cheapest = table[name, "knn:knn", 1.0]
        assert cheapest["total_cost"] == pytest.approx(table[name, "Small", None]["total_cost"])
        routed, oracle = table[name, "knn:knn", 0.0], table[name, "oracle", None]
        assert oracle["performance"] >= routed["performance"]
    # Nobody is right in row 6: the oracle asks nobody there, for nothing.
    law = [
        row
        for row in rows()
        if row["eval_name"] == "mmlu-law" and row["prompt"] != rows()[6]["prompt"]
    ]
    assert table["mmlu-law", "oracle", None]["total_cost"] < 0.02 * len(law) + 1e-9
    with (folder / "table.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(told["rows"])
    assert (written[0]["eval_name"], written[0]["cost_weight"]) == ("mmlu-law", "")
    assert set(told["aiq"]["all"]) == {"candidates", "knn:knn"}


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 20)), min_size=1, max_size=8))
def test_an_aiq_is_the_area_under_all_mixes_of_a_routers_points(points):
    rows = [BenchRow("all", "r", s / 20, float(c), w) for w, (c, s) in enumerate(points)]
    first, dearest = min(c for c, _ in points), max(c for c, _ in points)
    known = [(c, s / 20) for c, s in points]

    def best(cost: float) -> float:
        """Return the highest score of a mix of two points, or a cheaper one, at a cost."""
        found = [s for c, s in known if c <= cost]
        for c, s in known:
            for d, t in known:
                if c <= cost <= d and c < d:
                    found.append(s + (t - s) * (cost - c) / (d - c))
        return max(found)

    grid = np.unique(np.linspace(first, dearest, 1 + 4 * (dearest - first)))
    heights = np.array([best(cost) for cost in grid])
    area = (np.diff(grid) * (heights[1:] + heights[:-1])).sum() / 2
    assert areas(rows)["r"] == pytest.approx(area / dearest, abs=1e-6)


# ------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("routerarena data.json", "20 prompts without a prediction"),
        ("routerarena data.json --controller knn:knn", "also needs --pool and --out"),
        ("routerarena none.json", "none.json: cannot be read: No such file"),
        ("routerarena pool.yaml", "pool.yaml: cannot be read: "),
        ("routerarena table.json", "entry 1: there is no 'global index'"),
        (
            "routerarena data.json --controller knn:knn --pool pool.yaml --out o --name a/b",
            "--name",
        ),
        ("routereval bench.csv", "name what predicts"),
        ("routereval bench.csv --predictions few.json", "no prediction for 39 of 40 questions"),
        ("routereval bench.csv --predictions odd.json", "no candidate 'lab/larg' (did you mean"),
        ("routereval bench.csv --controller random --reference lab/larg", "did you mean"),
        ("routereval bench.csv --controller random --reference 0", "above 0"),
        ("routerbench data.json", "RouterBench's table is a .csv"),
        ("routerbench bench.csv --controller oracle", "oracle"),
    ],
)
def test_what_is_wrong_is_named(folder, args, message):
    few = [{"prompt": rows()[0]["prompt"], "model": MODELS[0]}]
    (folder / "few.json").write_text(json.dumps(few))
    (folder / "odd.json").write_text(json.dumps([{**few[0], "model": "lab/larg"}]))
    (folder / "table.json").write_text(json.dumps([{"prompt": "?"}]))
    done = cli("bench", *args.split(), cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
