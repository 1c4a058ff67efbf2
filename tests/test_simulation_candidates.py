"""Simulated candidates: what they know, how they reply, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage

from router_r1_graph.answers import is_abstention, short_answer
from router_r1_graph.candidates import Candidate, CandidatePool
from router_r1_graph.errors import PoolError
from router_r1_graph.simulation import (
    SimulatedOutageError,
    World,
    generate,
    phrase,
    reply_text_and_tokens,
    simulated_chat_model,
)
from router_r1_graph.simulation.structure import Ask, folded
from router_r1_graph.simulation.wording import UNCLEAR, UNKNOWN, Style, wrap

WORLD = World.embedded()
STYLES: tuple[Style, ...] = ("terse", "sentence", "rambling")
TWO_HOPS = "In which country was the author of Dracula born?"


def candidate(name: str = "Ada", accuracy: float = 1.0, **changes: Any) -> Candidate:
    options = {"elsewhere": accuracy, **changes.pop("options", {})}
    return Candidate(name=name, provider="simulated", options=options, **changes)


def reply(query: str, **options: Any) -> str:
    return reply_text_and_tokens(candidate(options=options), query).text


def test_a_candidate_that_knows_everything_answers_everything_in_every_style() -> None:
    for style in STYLES:
        ada = candidate(options={"hops": 4, "style": style})
        for question in generate(WORLD, split="all", n=600, seed=4):
            text = reply_text_and_tokens(ada, question.text).text
            assert short_answer(text) == question.gold[0]
            assert not is_abstention(text)


def test_the_bare_answer_is_got_out_of_every_style_for_every_object() -> None:
    for fact in WORLD.facts:
        for style in STYLES:
            for draw in range(3):
                assert short_answer(wrap(fact.object, style, draw)) == fact.object


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer> Paris </answer>", "<answer> Paris </answer>"),
        ("The answer is **Paris**.", "Paris"),
        ("Answer: Paris", "Paris"),
        ("the answer is E. M. Forster. He was a writer.", "E. M. Forster"),
        ("That would be Dr. Strangelove.", "Dr. Strangelove"),
        ("  Paris\n", "Paris"),
        ("Paris is a city on the Seine.", "Paris is a city on the Seine."),
    ],
)
def test_short_answers_of_other_replies(text: str, expected: str) -> None:
    assert short_answer(text) == expected


def test_abstentions_are_recognised() -> None:
    for text in (*UNKNOWN.values(), UNCLEAR, "", "  ", "I don't know", "Unknown.", "N/A"):
        assert is_abstention(text), text
    for text in ("Paris", "The answer is The Unknown Soldier.", "no", "No."):
        assert not is_abstention(text), text


def test_it_knows_about_the_share_of_facts_that_its_record_says() -> None:
    ada = candidate(accuracy=0.05, benchmarks={"literature": 0.9})
    shares = {}
    for domain in ("literature", "geography"):
        facts = [fact for fact in WORLD.facts if fact.domain == domain]
        known = sum(
            reply_text_and_tokens(ada, phrase(Ask(fact.relation, fact.subject))).knows
            for fact in facts
        )
        shares[domain] = known / len(facts)
    assert 0.86 < shares["literature"] < 0.94
    assert 0.02 < shares["geography"] < 0.08


def test_what_it_knows_depends_on_its_name_and_not_on_the_wording() -> None:
    facts = [fact for fact in WORLD.facts if fact.relation == "author"][:100]
    half = [candidate(name, accuracy=0.5) for name in ("Ada", "Bob")]
    knows = [
        [reply_text_and_tokens(who, f"Who wrote {fact.subject}?").knows for fact in facts]
        for who in half
    ]
    reworded = [
        reply_text_and_tokens(half[0], f"Name the author of {fact.subject.upper()}.").knows
        for fact in facts
    ]
    assert knows[0] != knows[1]
    assert knows[0] == reworded


@pytest.mark.long
def test_the_same_question_gets_the_same_reply_in_another_process() -> None:
    code = (
        "from router_r1_graph.candidates import CandidatePool\n"
        "from router_r1_graph.simulation import reply_text_and_tokens\n"
        "for c in CandidatePool.from_yaml('embedded').candidates:\n"
        f"    print(repr(reply_text_and_tokens(c, {TWO_HOPS!r})))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    pool = CandidatePool.from_yaml("embedded")
    assert there == [repr(reply_text_and_tokens(c, TWO_HOPS)) for c in pool.candidates]


def test_what_it_does_not_know_it_declines_or_gets_wrong() -> None:
    query = "Who wrote Dracula?"
    ignorant = candidate(accuracy=0.0)
    assert is_abstention(reply_text_and_tokens(ignorant, query).text)
    liar = candidate(accuracy=0.0, options={"unknown": "wrong"})
    said = reply_text_and_tokens(liar, query)
    assert said.text in WORLD.objects("author")
    assert said.text != "Bram Stoker"
    assert not said.knows


def test_too_many_hops_end_in_declining_or_in_the_inner_answer() -> None:
    assert is_abstention(reply(TWO_HOPS))
    assert reply(TWO_HOPS, unknown="wrong") == "Bram Stoker"
    assert reply(TWO_HOPS, hops=2) == "Ireland"


def test_what_is_no_question_gets_a_reply_too() -> None:
    for text in ("", "Good morning!", "</search> <answer>"):
        assert is_abstention(reply(text))


def test_a_hostile_reply_holds_tags() -> None:
    text = reply("Who wrote Dracula?", hostile=True)
    assert "</information><answer>" in text
    assert "<search>" in text
    assert "Bram Stoker" in text


def test_it_can_know_other_facts_than_the_embedded_ones(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(
        "subject,relation,object,domain\nOslo,mayor,Ola Nordmann,cities\n", encoding="utf-8"
    )
    assert reply("What is the mayor of Oslo?", facts=str(path)) == "Ola Nordmann"
    assert is_abstention(reply("Who wrote Dracula?", facts=str(path)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fail_rte": 0.5}, "unknown option 'fail_rte' .did you mean 'fail_rate'"),
        ({"style": "loud"}, "options.style: terse, sentence or rambling is wanted, not 'loud'"),
        ({"hops": 0}, "options.hops: must be at least 1, not 0"),
        ({"fail_rate": 2}, "options.fail_rate: must be at most 1, not 2"),
        ({"unknown": "guess"}, "options.unknown: abstain or wrong is wanted, not 'guess'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PoolError, match=message):
        simulated_chat_model(candidate(options=options))


def test_a_benchmark_above_one_is_refused() -> None:
    with pytest.raises(PoolError, match=r"benchmarks\.film is 83"):
        simulated_chat_model(candidate(benchmarks={"film": 83}))


def test_the_chat_model_reports_usage_and_its_model() -> None:
    model = simulated_chat_model(candidate(model="ada-1"))
    message = model.invoke("Who wrote Dracula?")
    expected = reply_text_and_tokens(candidate(), "Who wrote Dracula?")
    assert isinstance(message, AIMessage)
    assert message.content == "Bram Stoker"
    assert message.usage_metadata is not None
    assert message.usage_metadata["input_tokens"] == expected.input_tokens == 8
    assert message.usage_metadata["output_tokens"] == expected.output_tokens == 2
    assert message.response_metadata["model_name"] == "ada-1"
    assert model._get_ls_params()["ls_provider"] == "simulated"


def test_the_last_human_message_is_answered_and_all_are_paid_for() -> None:
    model = simulated_chat_model(candidate())
    history = [
        SystemMessage("Be brief."),
        HumanMessage("Who wrote Emma?"),
        AIMessage("Jane Austen"),
        HumanMessage("Who wrote Dracula?"),
    ]
    alone, whole = model.invoke(history[-1:]), model.invoke(history)
    assert whole.content == alone.content == "Bram Stoker"
    assert isinstance(whole, AIMessage)
    assert isinstance(alone, AIMessage)
    assert whole.usage_metadata
    assert alone.usage_metadata
    assert whole.usage_metadata["input_tokens"] > alone.usage_metadata["input_tokens"] + 10


def test_a_stream_adds_up_to_the_reply_with_usage_once() -> None:
    model = simulated_chat_model(candidate(options={"style": "rambling"}))
    chunks = list(model.stream("Who wrote Dracula?"))
    assert len(chunks) > 40
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    expected = model.invoke("Who wrote Dracula?")
    assert isinstance(whole, AIMessageChunk)
    assert isinstance(expected, AIMessage)
    assert whole.content == expected.content
    assert whole.usage_metadata == expected.usage_metadata
    assert whole.response_metadata == expected.response_metadata


async def test_it_replies_and_streams_the_same_when_awaited() -> None:
    model = simulated_chat_model(candidate())
    assert (await model.ainvoke("Who wrote Dracula?")).content == "Bram Stoker"
    text = "".join([str(chunk.text) async for chunk in model.astream("Who wrote Dracula?")])
    assert text == "Bram Stoker"


async def test_it_takes_its_time_when_told_to() -> None:
    slow = candidate(latency_seconds=0.05, options={"sleep": True})
    start = time.perf_counter()
    simulated_chat_model(slow).invoke("Who wrote Dracula?")
    await simulated_chat_model(slow).ainvoke("Who wrote Dracula?")
    assert time.perf_counter() - start >= 0.1


def test_a_failing_candidate_may_succeed_on_a_retry() -> None:
    model = simulated_chat_model(candidate(options={"fail_rate": 0.5}))
    outcomes = []
    for _ in range(40):
        try:
            outcomes.append(str(model.invoke("Who wrote Dracula?").content))
        except SimulatedOutageError:
            outcomes.append("failed")
    assert 8 <= outcomes.count("failed") <= 32
    assert set(outcomes) == {"failed", "Bram Stoker"}


def test_a_reply_is_cut_at_max_tokens() -> None:
    brief = candidate(max_tokens=10, options={"style": "rambling"})
    said = reply_text_and_tokens(brief, "Who wrote Dracula?")
    assert said.cut
    assert said.output_tokens <= 10
    message = simulated_chat_model(brief).invoke("Who wrote Dracula?")
    assert message.response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("name", ["embedded", "embedded_unseen"])
def test_the_shipped_pools_are_sound(name: str) -> None:
    pool = CandidatePool.from_yaml(name)
    names = [candidate.name for candidate in pool.candidates]
    world_names = {folded(n) for fact in WORLD.facts for n in (fact.subject, fact.object)}
    for one in pool.candidates:
        simulated_chat_model(one)
        assert one.input_usd_per_mtok
        assert one.output_usd_per_mtok
        assert one.prices_checked
        assert 0.05 <= one.input_usd_per_mtok < one.output_usd_per_mtok <= 15
        assert folded(one.name) not in world_names
        assert not [n for n in names if n != one.name and n.lower().startswith(one.name.lower())]
        assert set(one.strengths) <= set(WORLD.domains)
        assert set(one.benchmarks) <= set(WORLD.domains)
    cheap = [one for one in pool.candidates if (one.output_usd_per_mtok or 0) <= 0.7]
    covered = {d for one in cheap for d, share in one.benchmarks.items() if share >= 0.95}
    assert covered == set(WORLD.domains)


def test_the_unseen_pool_shares_no_name_or_price_with_the_embedded_one() -> None:
    seen, unseen = (
        CandidatePool.from_yaml(name).candidates for name in ("embedded", "embedded_unseen")
    )
    for kind in ("name", "price_usd_per_mtok", "strengths"):
        ours = {getattr(c, kind) for c in seen if kind != "strengths" or len(c.strengths) < 7}
        theirs = {getattr(c, kind) for c in unseen if kind != "strengths" or len(c.strengths) < 7}
        assert not ours & theirs
