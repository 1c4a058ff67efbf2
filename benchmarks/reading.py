"""How well free English is read, and how fast: issue 16's bar for the simulated candidates.

    python -m benchmarks.reading                          everything, 1,000 questions a row
    python -m benchmarks.reading --wordings dev --show    what is misread of one set of wordings

A row is one kind of wording: known forms, those of the train lists, the development wordings
(`tests/data/dev_wordings.yaml`, on which the reader may be tuned), the test wordings. `plain` holds
chains, comparisons and yes/no questions, `every` the mix of `EVERY_KIND`. The candidate that is
asked has all skills at 1.0, so what it gets wrong was misread. Below: the exact match of each
candidate of the embedded pool with known and with test wordings of the same questions.

Bars: at least .90 of the test wordings; the best constant falls by at most 5 points; 2,000
readings a CPU second. What is misread of the test wordings is never shown.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from router_r1_graph import Candidate, CandidatePool
from router_r1_graph.answers import bare_answer, exact_match
from router_r1_graph.simulation import (
    EVERY_KIND,
    Compare,
    World,
    generate,
    read_question,
    reply_text_and_tokens,
)
from router_r1_graph.simulation import wordings as wordings_module
from router_r1_graph.simulation.free_wording import FreeWording
from router_r1_graph.simulation.question import Question, QuestionKind
from router_r1_graph.simulation.sentences import capitalized
from router_r1_graph.simulation.wordings import Wordings

DEV = Path(__file__).parents[1] / "tests/data/dev_wordings.yaml"
SETS = ("known", "train", "dev", "test")
COUNT = 1000
#: Knows every fact, and combines any number of them.
ALL_KNOWING = Candidate(
    name="All",
    provider="simulated",
    benchmarks=dict.fromkeys(World.embedded().domains, 1.0),
    options={"hops": 9},
)


@contextmanager
def development_wordings() -> Iterator[None]:
    """Word questions of the train split with the development wordings instead."""
    dev = yaml.safe_load(DEV.read_text(encoding="utf-8"))
    relations = {
        name: {"train": Wordings.model_validate(entry)} for name, entry in dev["relations"].items()
    }
    kept = wordings_module.classes()
    common = {"train": dev["common"], "demonyms": kept.demonyms, "absurd": kept.absurd}
    _forget()
    with (
        patch.object(wordings_module, "_by_relation", lambda: relations),
        patch.object(wordings_module, "_common", lambda: common),
    ):
        yield
    _forget()


def _forget() -> None:
    wordings_module.wordings_of.cache_clear()
    wordings_module.common_wordings.cache_clear()


def drawn(world: World, wording: str, kinds: Mapping[QuestionKind, float] | None) -> list[Question]:
    """Return 1,000 questions in one set of wordings."""
    draw = partial(generate, world, n=COUNT, seed=5, kinds=kinds)
    if wording != "dev":
        return draw(split="train" if wording == "train" else "test", wordings=wording)
    with development_wordings():
        questions = draw(split="train", wordings="train")
        three = yaml.safe_load(DEV.read_text(encoding="utf-8"))["three"]
        return [of_three(q, three) if n % 2 else q for n, q in enumerate(questions)]


def of_three(question: Question, three: Mapping[str, Any]) -> Question:
    """Put the three sides of a comparison beside the question; others stay as they are."""
    asked = question.structure
    if not isinstance(asked, Compare) or len(asked.sides) != 3:
        return question
    rng = random.Random(question.id)
    words = FreeWording("train", rng)
    text = rng.choice(three["of_three"].splitlines())
    which = three["which"][asked.relation]["least" if asked.least else "most"]
    for slot, side in zip("abc", asked.sides, strict=True):
        text = text.replace(f"{{{slot}}}", words.noun(side).text)
    return replace(question, text=capitalized(text.replace("{which}", which)))


def row(wording: str, every: bool, show: bool) -> None:
    """Print how many questions in one set of wordings a candidate that knows everything gets."""
    questions = drawn(World.embedded(), wording, EVERY_KIND if every else None)
    right: Counter[str] = Counter()
    count: Counter[str] = Counter()
    start = time.process_time()
    replies = [reply_text_and_tokens(ALL_KNOWING, question.text) for question in questions]
    taken = time.process_time() - start
    for question, reply in zip(questions, replies, strict=True):
        # To what nobody can answer, it is right to say so.
        declines = question.kind == "unanswerable" and reply.answer is None
        good = declines or exact_match(bare_answer(reply.text), question.gold) == 1
        for key in ("all", question.kind):
            right[key] += good
            count[key] += 1
        if show and not good:
            print(f"[{question.kind}] {question.text}\n    {question.gold[0]} | {reply.text}")
            print(f"    {question.structure}\n    {read_question(question.text)}")
    shares = "  ".join(f"{kind} {right[kind] / count[kind]:.3f}" for kind in sorted(count))
    print(f"{wording:5} {'every' if every else 'plain'}  {COUNT / taken:6,.0f} a second  {shares}")


def pool() -> None:
    """Print the exact match of each embedded candidate, with known and with test wordings."""
    words = FreeWording("test", random.Random(0))
    texts = [
        (q.text, words.question(q.structure), q.gold)
        for q in generate(World.embedded(), split="test", n=COUNT, seed=11)
        if q.structure is not None
    ]
    found = []
    for candidate in CandidatePool.embedded().candidates:
        known, test = (
            sum(
                exact_match(bare_answer(reply_text_and_tokens(candidate, text[at]).text), text[2])
                for text in texts
            )
            / len(texts)
            for at in (0, 1)
        )
        found.append((known, test, candidate.name))
    for known, test, name in sorted(found, reverse=True):
        print(
            f"{name:12} known {known:.3f}  test {test:.3f}  falls {100 * (known - test):.1f} points"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--wordings", nargs="*", choices=SETS, default=SETS)
    parser.add_argument("--show", action="store_true", help="print what is misread, test excepted")
    given = parser.parse_args()
    for wording in given.wordings:
        for every in (False,) if wording == "known" else (False, True):
            row(wording, every, given.show and wording != "test")
    if "test" in given.wordings:
        pool()


if __name__ == "__main__":
    main()
