"""The reader: spans of replies, when it stops, its folder, the command, and the weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from extras import needs

needs("eval")

from langchain_core.messages import HumanMessage

from fakes import FakeChat, make_pool
from in_process import cli
from router_r1_graph import ConfigError, ControllerError, create_router_r1, parse_controller
from router_r1_graph.answers import bare_answer, exact_match
from router_r1_graph.controllers.learned.reader import ReaderController
from router_r1_graph.controllers.learned.spans import feature_names, read
from router_r1_graph.controllers.learned.stopping import stops, thresholds, walk
from router_r1_graph.errors import MatrixError
from router_r1_graph.evaluation.recorded_replies import load_recorded
from router_r1_graph.trace import Trace, write_traces
from yaml_pool import bills

SHARED = Path(__file__).parent.parent.parent / "shared/data/nq_r1pool/records.jsonl"
USD = {"Cheap": 1e-5, "Dear": 9e-5, "Middle": 3e-5}
COUNT = 60


def answers(number: int) -> tuple[str, dict[str, str]]:
    """Return a question's gold answer and its replies.

    Cheap answers in tags, and is sure only where it is right (every other question). Dear is right
    in prose, always. Middle names the right one, as a second thought.
    """
    right, wrong = f"Mara Telk{number}", f"Osric Vann{number}"
    sure = number % 2
    return right, {
        "Cheap": f"<answer>{right}</answer>"
        if sure
        else f"I'm not sure, perhaps it is <answer>{wrong}</answer>",
        "Dear": f"The land of number {number} is ruled by {right}, who was crowned at home.",
        "Middle": f"Some say it is ruled by {right}.",
    }


def question(number: int) -> str:
    return f"who rules land {number}?"


def lines(count: int = COUNT) -> list[dict]:
    return [
        {"question": question(n), "model": name, "response": text, "gold": [gold], "cost_usd": usd}
        for n in range(count)
        for gold, replies in [answers(n)]
        for name, usd in USD.items()
        for text in [replies[name]]
    ]


def written(folder: Path, records: list[dict]) -> Path:
    path = folder / "replies.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[Path, str]:
    """Return the folder of a reader that the command has fitted, and what it printed.

    The file is as `evaluate --record` writes it, with parts of questions that have no gold answers.
    """
    folder = tmp_path_factory.mktemp("reader")
    names = {"model": "candidate", "response": "reply", "gold": "right"}
    records = [{names.get(key, key): value for key, value in x.items()} for x in lines()]
    part = {"question": "Who?", "candidate": "Cheap", "reply": "Nobody."}
    data = written(folder, [part, *records])
    given = ("--data", data, "--gold-field", "right", "--out", folder / "fitted")
    done = cli("fit", "reader", *given)
    assert done.returncode == 0, done.stderr
    return folder / "fitted", done.stdout


def pool():
    return make_pool(*({"name": name} for name in reversed(USD)))


def ask(controller, number: int, **context):
    gold, replies = answers(number)
    chats = {name: FakeChat(text=text) for name, text in replies.items()}
    graph = create_router_r1(pool(), controller, models=chats).compile()
    result = graph.invoke({"question": question(number)}, context=context)
    return gold, result, [bill["candidate"] for bill in bills(result)]


# --------------------------------------------------------------------------------- spans


@pytest.mark.parametrize(
    ("reply", "span"),
    [
        ("It was released on March 9, 2018.", "March 9, 2018"),
        ("He was J. R. R. Tolkien. He wrote it.", "J. R. R. Tolkien"),
        ("The total is **72**. So 72 it is.", "72"),
        ("I think: <answer>no</answer>", "no"),
        ("Die Hauptstadt ist Zürich.", "Zürich"),
        ("答案是<answer>北京</answer>", "北京"),
        ("A train of thought costs $1.2 million, they say", "$1.2 million"),
        ("<answer>one answer of more than six words in all</answer>", "one answer of more than six "
         "words in all"),
    ],
)  # fmt: skip
def test_the_answer_is_among_the_spans_of_a_reply(reply, span):
    assert span in read("what is it?", [reply]).texts


@pytest.mark.parametrize("replies", [["", "It is Paris."], ["  ", "?!"], [""], ["x" * 5000, "é\n"]])
def test_every_reply_has_features_in_their_range_after_each_reply(replies):
    reading = read("what is it?", replies)
    for known in range(1, len(replies) + 1):
        rows, features = reading.features(known)
        assert features.shape == (len(rows), len(feature_names(["a", "b"][: len(replies)])))
        assert ((features >= 0) & (features <= 1)).all()


# ------------------------------------------------------------------------------ stopping


@pytest.mark.parametrize("seed", range(5))
def test_no_single_number_of_replies_has_more_utility_than_the_thresholds(seed):
    rng = np.random.default_rng(seed)
    sure = rng.normal(size=(4, 80)).round(1)  # with ties
    right = (rng.random((4, 80)) < 1 / (1 + np.exp(-sure))).astype(float)
    costs = rng.random(4) * (seed > 0)  # once, all of them are free
    for weight in (0.0, 0.1, 0.4, 1.0):

        def utility(stop_at, weight=weight):
            point = walk(sure, right, costs, np.array(stop_at))
            return (1 - weight) * point.exact_match - weight * point.cost

        found = thresholds(sure, right, costs, weight)
        assert stops(sure, found).max() <= 3
        always = ([np.inf] * n + [-np.inf] * (4 - n) for n in range(4))
        assert utility(found) >= max(map(utility, always)) - 1e-12


# ------------------------------------------------------------------------------- reading


def test_it_stops_at_a_sure_reply_and_asks_on_after_a_doubtful_one(fitted):
    reader = ReaderController.load(fitted[0])
    for number in (100, 101, 102, 103):
        gold, result, asked = ask(reader, number, cost_weight=0.05)
        assert result["answer"] == gold
        assert (asked == ["Cheap"]) == bool(number % 2), (asked, number)


def test_what_it_asks_falls_with_the_cost_weight_and_rounds_and_money_end_it(fitted):
    reader = ReaderController.load(fitted[0])
    calls = [reader.expected(weight).calls for weight in (0.0, 0.2, 0.6, 1.0)]
    assert calls == sorted(calls, reverse=True)
    assert calls[-1] == 1
    _, result, asked = ask(reader, 100, cost_weight=0.05, max_rounds=1)
    assert asked == ["Cheap"]
    assert result["answer"] == "Osric Vann100"
    assert ask(reader, 100, cost_weight=0.0, max_calls_per_round=1)[2][:2] == ["Cheap", "Middle"]


def test_only_candidates_that_may_be_asked_are_asked_and_read(fitted):
    reader = ReaderController.load(fitted[0])
    settings = [{"name": name, "image_inputs": name != "Cheap"} for name in USD]
    offered = make_pool(*settings)
    gold, replies = answers(100)
    chats = {name: FakeChat(text=text) for name, text in replies.items()}
    graph = create_router_r1(offered, reader, models=chats).compile()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    said = HumanMessage([{"type": "text", "text": question(100)}, image])
    result = graph.invoke({"messages": [said]}, context={"cost_weight": 0.05})
    assert result["answer"] == gold
    assert not chats["Cheap"].queries
    only = make_pool(*(dict(s, image_inputs=s["name"] == "Cheap") for s in settings))
    graph = create_router_r1(only, reader, models=chats).compile()
    result = graph.invoke({"messages": [said]}, context={"cost_weight": 0.0})
    assert result["answer"] == "Osric Vann100"
    assert len(chats["Cheap"].queries) == 1


def test_a_whole_text_is_handed_on_where_that_is_asked_for(fitted):
    controller = ReaderController.load(fitted[0])
    _, result, _ = ask(controller, 100, cost_weight=0.05, answer_style="full")
    assert "ruled by Mara Telk100" in result["answer"]


def test_failed_candidates_are_passed_over_and_nobodys_answer_is_unknown(fitted):
    reader = ReaderController.load(fitted[0])
    for dear, answer in (("", "unknown"), ("It is ruled by Mara Telk7.", "Mara Telk7")):
        chats = {name: FakeChat(text=ValueError("down")) for name in USD}
        chats["Dear"] = FakeChat(text=dear)
        graph = create_router_r1(pool(), reader, models=chats).compile()
        result = graph.invoke({"question": question(7)}, context={"cost_weight": 0.9})
        assert result["answer"] == answer


@pytest.mark.parametrize("kind", ["cascade", "vote"])
def test_a_cascade_and_a_vote_are_fitted_likewise(tmp_path, kind):
    recorded = load_recorded(written(tmp_path, lines()))
    ReaderController.fit(recorded, kind=kind).save(tmp_path / kind)
    controller = parse_controller(f"reader:{tmp_path / kind}", pool())
    gold, result, asked = ask(controller, 101, cost_weight=0.5)
    assert result["answer"] == gold
    assert asked == (["Cheap"] if kind == "cascade" else ["Cheap", "Middle", "Dear"])


# ---------------------------------------------------------------------- fit, folder, command


def test_the_command_prints_the_curve_and_ask_shows_the_weights(fitted, tmp_path):
    folder, printed = fitted
    assert "asks in the order Cheap" in printed
    assert "exact match" in printed
    path = tmp_path / "pool.yaml"
    played = [
        {"name": n, "provider": "fakes:fake_chat_model", "options": {"text": answers(7)[1][n]}}
        for n in USD
    ]
    path.write_text(json.dumps({"candidates": played}))
    spec = ("--pool", path, "--controller", f"reader:{folder}", "--explain")
    done = cli("ask", question(7), *spec)
    assert done.returncode == 0, done.stderr
    assert "what speaks for Mara Telk7" in done.stdout
    assert "stated by Cheap" in done.stdout
    planned = json.loads(cli("ask", question(7), *spec, "--route-only", "--json").stdout)
    assert planned["calls"][0]["candidate"] == "Cheap"
    assert {reason["value"] for reason in planned["reasons"]} == {None}


@pytest.mark.long
def test_it_is_cross_validated_in_one_command(tmp_path):
    data = written(tmp_path, lines(30))
    made = ("--fields", "candidate=model,reply=response", "--gold-field", "gold")
    done = cli("pool", "from-records", data, "--out", tmp_path / "p.yaml", *made)
    assert done.returncode == 0, done.stderr
    run = ("evaluate", data, "--pool", tmp_path / "p.yaml", "--controller", "reader")
    done = cli(*run, "--folds", "3", "--cost-weight", "0", "--cost-weight", "1", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    found = {(r["controller"], r["cost_weight"]): r for r in summary["controllers"]}
    sure, cheap = found["reader", 0.0], found["reader", 1.0]
    # No single candidate is right in exact words more often than Cheap, in every other question.
    assert found["constant:Cheap", 0.0]["exact_match"]["mean"] == 0.5
    assert sure["exact_match"]["mean"] > 0.9
    assert cheap["calls"]["mean"] == 1.0
    assert "reader is not fitted" in cli(*run).stderr
    few = cli(*run, "--folds", "3", "--limit", "12", "--json")
    assert few.returncode == 0, few.stderr
    rows = json.loads(few.stdout)["controllers"]  # the controls have been paid for
    assert "at least 10 are needed" in next(r for r in rows if r["controller"] == "reader")["error"]
    assert any(r["controller"] == "constant:Cheap" and not r["error"] for r in rows)


def test_the_same_replies_and_seed_fit_the_same_and_a_folder_keeps_it(fitted):
    records = load_recorded(fitted[0].parent / "replies.jsonl", fields={"gold": "right"})
    again, loaded = ReaderController.fit(records), ReaderController.load(fitted[0])
    for name in ("weights", "intercepts"):
        np.testing.assert_array_equal(
            getattr(again.regressions, name), getattr(loaded.regressions, name)
        )
    np.testing.assert_array_equal(again.stop_at(0.3), loaded.stop_at(0.3))


def test_a_broken_folder_and_another_pool_are_named(fitted, tmp_path):
    folder, _ = fitted
    with pytest.raises(ControllerError, match="no fitted controller there"):
        ReaderController.load(tmp_path)
    for name, text in (
        ("learned.json", "{"),
        ("learned.json", json.dumps({"version": 9, "method": "reader"})),
        ("learned.json", json.dumps({"version": 1, "method": "knn"})),
        ("learned.npz", "no zip"),
    ):
        for file in folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / name).write_text(text)
        with pytest.raises(ControllerError, match=str(tmp_path)):
            ReaderController.load(tmp_path)
    with pytest.raises(ControllerError, match=r"new: Ada; gone: Cheap, .*fit again"):
        parse_controller(f"reader:{folder}", make_pool({"name": "Ada"}))
    with pytest.raises(ControllerError, match="that folder holds reader, not knn"):
        parse_controller(f"knn:{folder}", pool())
    with pytest.raises(ControllerError, match="reader needs a folder"):
        parse_controller("reader", pool())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[:15], "at least 10 are needed"),
        (
            lambda r: [x | {"gold": ["nobody at all"]} for x in r],
            "no span of a reply matches a gold answer",
        ),
        (lambda r: [x | {"gold": []} for x in r], "line 1: 'gold' holds no answer"),
        (lambda r: [x | {"response": 3} for x in r], "line 1: 'response' is a text or null, not 3"),
        (lambda r: [x for n, x in enumerate(r) if n == 0 or n % 3], "at least 10 are needed"),
        (lambda r: [], "there are no replies"),
    ],
)
def test_replies_that_cannot_be_fitted_are_refused_by_name(tmp_path, change, message):
    with pytest.raises((ConfigError, MatrixError), match=message):
        ReaderController.fit(load_recorded(written(tmp_path, change(lines()))))


def test_failed_calls_and_traces_of_any_controller_are_read(tmp_path, fitted):
    records = [x | ({"response": None} if x["model"] == "Middle" else {}) for x in lines()]
    recorded = load_recorded(written(tmp_path, records))
    assert {row[2] for row in recorded.replies} == {""}
    assert ReaderController.fit(recorded).expected(0.0).exact_match == 1
    traces = []
    for number in range(12):
        gold, result, _ = ask(parse_controller("vote", pool()), number)
        traces.append(Trace.from_state(result).model_copy(update={"gold": (gold,)}))
    write_traces(tmp_path / "results.jsonl", traces)
    read_again = load_recorded(tmp_path)  # the folder of an evaluation
    order = [c.name for c in read_again.pool.candidates]
    assert [dict(zip(order, row, strict=True)) for row in read_again.replies] == [
        answers(number)[1] for number in range(12)
    ]


@pytest.mark.long
@pytest.mark.skipif(not SHARED.is_file(), reason="../shared is not here")
def test_on_recorded_nq_reading_gains_on_the_best_constant():
    recorded = load_recorded(SHARED).select(range(120))
    own = [
        np.mean([exact_match(bare_answer(row[c]), gold) for row, gold in
                 zip(recorded.replies, recorded.gold, strict=True)])
        for c in range(6)
    ]  # fmt: skip
    reader = ReaderController.fit(recorded)
    assert reader.expected(0.0).exact_match >= max(own)
    assert reader.expected(1.0).calls == 1
