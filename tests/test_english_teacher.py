"""The teacher of a pretrained policy, and the questions and pools that it is shown."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

from extras import needs

needs("train")

import pytest

from router_r1_graph import CandidatePool
from router_r1_graph.answers import exact_match, is_abstention, short_answer
from router_r1_graph.rewards import format_errors
from router_r1_graph.simulation import (
    Ask,
    Both,
    Compare,
    Decomposed,
    Question,
    YesNo,
    reply_text_and_tokens,
)
from training.batches import in_batches
from training.data_config import DataConfig, VaryConfig
from training.english_teacher import EnglishTeacher
from training.items import TaughtItem, draw_items
from training.outline import Outline
from training.pools import DOMAINS
from training.rollouts import roll_out
from training.subjects import SUBJECTS, subject_of

FILE = str(Path(__file__).parent / "data" / "decomposed.jsonl")
DATA = DataConfig(
    wordings={"known": 0.3, "free": 0.7},
    every_kind=True,
    pool_sizes=(3, 4),
    vary=VaryConfig(subjects=0.5),
    max_rounds=(8,),
)
NEVER = {"give_up": 0.0}


def taught(items, seed=0, **habits):
    lessons = {item.question: item.lesson for item in items}
    return roll_out(items, EnglishTeacher(lessons, seed, **habits), name="teacher")


def all_knowing(item: TaughtItem) -> TaughtItem:
    """Return an item whose candidates know every fact, one at a time."""
    options = {"skills": dict.fromkeys(known_domains(item), 1.0), "elsewhere": 1.0, "hops": 1}
    facts = item.pool.candidates[0].options.get("facts")
    candidates = tuple(
        c.model_copy(update={"options": options | ({"facts": facts} if facts else {})})
        for c in item.pool.candidates
    )
    return replace(item, pool=CandidatePool(name="knows", candidates=candidates))


def known_domains(item):
    return {d for c in item.pool.candidates for d in c.benchmarks} | set(DOMAINS)


@pytest.mark.long
def test_what_it_does_is_right_where_the_replies_are():
    items = [all_knowing(item) for item in draw_items(DATA, 120, 3)]
    traces = taught(items, **NEVER)
    not_read = 0  # a question in words that a simulated candidate does not understand
    for item, trace in zip(items, traces, strict=True):
        assert not format_errors(trace.turns, trace.pool)
        if item.lesson.kind == "unanswerable":
            continue
        in_vain = [call.query for call in trace.calls if is_abstention(call.reply)]
        assert {*in_vain} <= {trace.question}
        if in_vain:
            not_read += 1
        else:
            assert exact_match(trace.answer, trace.gold), (trace.question, trace.turns)
    assert not_read <= 6
    assert len({item.lesson.kind for item in items}) == 10


def test_it_splits_the_questions_of_a_file():
    items = [all_knowing(item) for item in draw_items(DataConfig(facts=(FILE,)), 40, 0)]
    traces = taught(items, **NEVER)
    assert all(exact_match(trace.answer, trace.gold) for trace in traces)
    assert max(len(trace.calls) for trace in traces) >= 3


def test_the_descriptors_are_read_aloud_in_their_order():
    kinds = Counter()
    for trace in taught(draw_items(DATA, 60, 1)):
        lines = {c.name: c.describe_briefly() for c in trace.pool.candidates}
        for turn in trace.turns:
            for said in re.findall(r"[A-Z]\w+: ([^<>]+? (?:no|\$[\d.]+))\. ", turn):
                read = [entry.split(" ", 1) for entry in said.split(", ")]
                assert [name for name, _ in read] == [*lines]
                for name, what in read:
                    kinds[what if what.isalpha() else "score"] += 1
                    if what != "no":
                        score, price = what.split()
                        assert f"{price}," in lines[name]
                        assert (f" {score}" if score != "good" else "good at") in lines[name]
    assert min(kinds[kind] for kind in ("no", "score")) > 5, kinds


def test_a_domain_is_read_once():
    read, again = Counter(), 0
    for trace in taught(draw_items(DATA, 60, 1)):
        said = " ".join(trace.turns)
        domains = re.findall(r" ([A-Z]\w+): \w+ (?:no|good|\d)", said)
        assert len({*domains}) == len(domains)
        for domain in re.findall(r"([A-Z]\w+) again[.:]", said):
            again += 1
            assert said.index(f" {domain}: ") < said.index(f"{domain} again")
        read.update(domains)
    assert len(read) >= 7
    assert again > 20


def test_who_did_not_know_is_named_and_not_asked_again():
    named = 0
    for trace in taught(draw_items(DATA, 120, 6), give_up=0.0):
        for number, turn in enumerate(trace.turns, 1):
            asked = {(call.candidate, call.query) for call in trace.calls if call.round < number}
            now = {(call.candidate, call.query) for call in trace.calls if call.round == number}
            assert not asked & now
            for who in re.findall(r"not known to ([^.]+)\.", turn):
                named += 1
                assert {*who.split(", ")} <= {name for name, _ in asked}
    assert named > 10


def test_whom_it_may_ask_is_said_next_to_the_call_by_price():
    fewer = 0
    for trace in taught(draw_items(DATA, 60, 1)):
        prices = {c.name: c.price_usd_per_mtok for c in trace.pool.candidates}
        for turn in trace.turns:
            thought = turn.split("</think>")[0]
            lists = [x.split(", ") for x in re.findall(r"Cheapest first: ([^.]+)\.", thought)]
            called = re.findall(r"<search> (.+?):", turn)
            assert bool(lists) == bool(called)
            assert {*called} <= {*chain(*lists)}
            for names in lists:
                assert names == sorted(names, key=prices.__getitem__)
                said = [
                    what
                    for name in names
                    for what in re.findall(rf"\b{name} (no|good|\d\S*)", thought)
                ]
                # Who fits one sub-question need not fit another that is asked beside it.
                # Nor is who did not know one the wrong one for the question as asked.
                whole = "The question as asked." in thought
                assert len(lists) > 1 or whole or "no" not in said
                fewer += len(names) < len(prices)
    assert fewer > 50


@pytest.mark.long
def test_whom_it_asks_depends_on_neither_price_nor_cost_weight():
    items = draw_items(replace_(DATA, cost_weights=(0,)), 60, 2)
    asked = [[c.candidate for c in trace.calls] for trace in taught(items)]
    dear = [replace(item, context=replace(item.context, cost_weight=0.9)) for item in items]
    assert [[c.candidate for c in trace.calls] for trace in taught(dear)] == asked
    ranks = Counter(
        sorted(c.price_usd_per_mtok for c in item.pool.candidates).index(
            item.pool.find(names[0]).price_usd_per_mtok
        )
        for item, names in zip(items, asked, strict=True)
        if names and len(item.pool.candidates) == 3
    )
    assert min(ranks[rank] for rank in range(3)) > 0.15 * sum(ranks.values())


def replace_(data: DataConfig, **changes) -> DataConfig:
    return DataConfig(**(data.model_dump() | changes))


def test_questions_in_a_row_share_a_pool_where_that_is_wanted():
    pools = [item.pool for item in draw_items(DATA, 64, 0, same_pool=8)]
    assert all(pools[place] is pools[place // 8 * 8] for place in range(64))
    assert len({id(pool) for pool in pools}) == 8
    assert len({id(item.pool) for item in draw_items(DATA, 16, 0)}) == 16


def test_prompts_with_nothing_to_route_are_mixed_in():
    data = replace_(DATA, nothing_to_route=0.25)
    for split, ids in (("train", 60), ("test", 60)):
        items = [i for i in draw_items(data, 240, 0, split) if i.id.startswith("none")]
        assert len({item.id for item in items}) == len(items) == ids
        assert all(f"-{split}-" in item.id and "unknown" in item.gold for item in items)


def test_rows_of_one_pool_and_length_are_side_by_side():
    rng = random.Random(0)
    rows = [
        {"input_ids": [1] * 50 + [pool] * 60 + [9] * rng.randint(5, 200), "labels": []}
        for pool in range(2, 7)
        for _ in range(9)
    ]
    found = in_batches(rng.sample(rows, len(rows)), 4, random.Random(1))
    key = lambda row: row["input_ids"]  # noqa: E731
    assert sorted(found, key=key) == sorted(rows, key=key)
    batches = [found[at : at + 4] for at in range(0, len(found), 4)]
    alike = [batch for batch in batches if len({row["input_ids"][60] for row in batch}) == 1]
    assert len(alike) >= 10  # of 11: two of each pool, and those that are left over
    spread = [max(map(len, lengths)) - min(map(len, lengths)) for lengths in map(ids_of, alike)]
    assert max(spread) < 150


def ids_of(batch):
    return [row["input_ids"] for row in batch]


def test_descriptors_in_other_words_say_what_their_candidates_know():
    items = draw_items(replace_(DATA, vary=VaryConfig(subjects=1.0)), 400, 5)
    named = {name for item in items for c in item.pool.candidates for name in c.benchmarks}
    assert named == {*SUBJECTS, *(name for names in SUBJECTS.values() for name in names)}
    assert {subject_of(name) for name in named} == {*DOMAINS}
    right = Counter()
    for item in items:
        if item.lesson.kind == "chain" and item.lesson.hops == 1:
            for c in item.pool.candidates:
                names = {subject_of(name) for name in (*c.benchmarks, *c.strengths)}
                claims = item.lesson.domains[0] in names
                reply = reply_text_and_tokens(c, f"{item.lesson.text}")
                right[claims, bool(reply.knows)] += 1
    assert right[True, True] > 0.5 * right[True, False]
    assert right[False, True] < 0.3 * right[False, False]


AUTHOR = Ask("author", "Hamlet")


@pytest.mark.parametrize(
    ("structure", "outline"),
    [
        (AUTHOR, "#1 as asked."),
        (
            Ask("currency", Ask("birth_country", AUTHOR)),
            "#1 Who wrote Hamlet? #2 In which country was #1 born? #3 Name the currency of #2.",
        ),
        (
            YesNo(Ask("birth_country", AUTHOR), "Italy"),
            "#1 Who wrote Hamlet? #2 In which country was #1 born? Is #2 Italy?",
        ),
        (
            Compare("birth_year", (AUTHOR, "Leo Tolstoy"), least=True),
            "#1 Who wrote Hamlet? #2 When was #1 born? #3 When was Leo Tolstoy born? "
            "The smallest of #2, #3.",
        ),
        (
            Both(Ask("birth_year", AUTHOR), Ask("death_year", AUTHOR)),
            "#1 Who wrote Hamlet? #2 When was #1 born? #3 When did #1 die? Both.",
        ),
        (
            Decomposed(
                "How many legs has a spider more than an insect?",
                ("2",),
                "science",
                (
                    Decomposed("How many legs has a spider?", ("8",), "science"),
                    Decomposed("How many legs has an insect?", ("6",), "science"),
                    Decomposed("What is 8 minus 6?", ("2",), "science"),
                ),
            ),
            "#1 How many legs has a spider? #2 How many legs has an insect? "
            "#3 What is #1 minus #2?",
        ),
        (None, "#1 as asked."),
    ],
)
def test_an_outline_names_each_reply_by_its_line(structure, outline):
    lesson = Question("1", "Hello?", ("x",), 1, "chain", (), structure)
    assert str(Outline(lesson)) == outline


def test_what_was_asked_in_vain_is_left_for_the_question_in_its_own_words():
    whole = ends = 0
    items = draw_items(replace_(DATA, hops=(2, 3)), 60, 5)
    for item, trace in zip(items, taught(items, give_up=1.0), strict=True):
        outline = Outline(item.lesson)
        queries = [call.query for call in trace.calls]
        if trace.question not in queries or outline.as_asked:
            continue
        whole += 1
        first = queries.index(trace.question)
        assert not {trace.question} & {*queries[:first]}
        assert any(is_abstention(call.reply) for call in trace.calls[:first])
        asked = {c.name: c for c in trace.pool.candidates}[trace.calls[first].candidate]
        named = {subject_of(name) for name in (*asked.benchmarks, *asked.strengths)}
        assert not asked.benchmarks or outline.domains <= named
        said = trace.turns[trace.calls[first].round - 1]
        assert "The question as asked. Cheapest first: " in said
        if not is_abstention(trace.calls[first].reply):
            ends += trace.answer == short_answer(trace.calls[first].reply)
    assert whole >= 5
    assert ends >= 1


def test_each_query_is_a_line_of_the_outline_with_replies_put_in():
    items = draw_items(DATA, 80, 4)
    for item, trace in zip(items, taught(items), strict=True):
        texts = [line.text for line in Outline(item.lesson).lines] + [trace.question]
        lines = [re.escape(text).replace("\\#", "#") for text in texts]
        replies = [call.reply for call in trace.calls if call.ok]
        for call in trace.calls:
            found = (re.fullmatch(re.sub(r"#\d+", "(.+)", line), call.query) for line in lines)
            put_in = [match.groups() for match in found if match]
            assert any(all(any(x in r for r in replies) for x in xs) for xs in put_in), call
