"""Free wordings: what the files hold, how structures are worded, distractors and their gold."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from router_r1_graph.answers import exact_match, normalize_answer
from router_r1_graph.errors import ConfigError
from router_r1_graph.simulation import (
    EVERY_KIND,
    NO_NOISE,
    USUAL_NOISE,
    Ask,
    Both,
    FreeWording,
    Noise,
    World,
    YesNo,
    generate,
    true_answer,
)
from router_r1_graph.simulation.free_wording import Phrase, _misfits
from router_r1_graph.simulation.meaning import is_in
from router_r1_graph.simulation.noise import with_typo
from router_r1_graph.simulation.relations import relations
from router_r1_graph.simulation.structure import folded
from router_r1_graph.simulation.wordings import (
    CommonWordings,
    Wordings,
    common_wordings,
    wordings_of,
)

WORLD = World.embedded()
SPLITS = ("train", "test")
BOTH_KINDS = ("between", "both", "of_three")
DISTRACTORS = ("detail", "false_premise", "unanswerable", "stated")

#: The slots of each part, each of which stands exactly once; alternatives with "|".
SLOTS = {
    "questions": "x|name",
    "nouns": "x|name",
    "statements": "x|name o",
    "events": "x|name",
    "between": "a b",
    "same": "a b",
    "least": "or|and",
    "most": "or|and",
    "least_of_three": "or|and",
    "most_of_three": "or|and",
}
#: The same of the parts of the common wordings; a part with two kinds of forms has two entries.
COMMON_SLOTS = {
    "yes_no": ("s", "value noun"),
    "between_years": ("a b",),
    "both": ("q1 q2", "a b"),
    "who_is": ("noun",),
    "fact_details": ("s",),
    "premises": ("s q",),
    "stated": ("s q",),
    "own": ("thing",),
    "unanswerable": ("x",),
    "introductions": ("x",),
}


def parts_of(wordings: Wordings) -> dict[str, tuple[str, ...]]:
    return {part: getattr(wordings, part) for part in SLOTS}


def plain(form: str) -> str:
    return normalize_answer(re.sub(r"\{\w+\}", "slot", form))


def test_every_relation_has_enough_wordings_of_both_splits_with_the_right_slots() -> None:
    for name, relation in relations().items():
        train, test = (parts_of(wordings_of(name, split)) for split in SPLITS)
        counts = [len(parts[part]) for parts in (train, test) for part in ("questions", "nouns")]
        assert all(count >= n for count, n in zip(counts, (25, 8, 8, 3), strict=True)), name
        for parts in (train, test):
            assert parts["statements"]
            assert bool(parts["same"]) == bool(relation.same)
            for part in ("least", "most", "least_of_three", "most_of_three"):
                assert bool(parts[part]) == bool(relation.least)
            assert bool(parts["events"]) == (relation.object == "year")
            for part, forms in parts.items():
                for form in forms:
                    slots = re.findall(r"\{(.*?)\}", form)
                    wanted = SLOTS[part].split()
                    assert len(slots) == len(wanted), form
                    assert all(any(s in w.split("|") for s in slots) for w in wanted), form
            # Some forms fit a subject that ends in a verb: "the story in which Ahab appears".
            clause = {"x": Phrase("the story in which Ahab appears", False, False, False)}
            for part in ("questions", "nouns"):
                assert any(not _misfits(form, clause) for form in parts[part]), (name, part)


def test_no_wording_stands_under_two_relations_or_in_both_splits() -> None:
    seen: dict[str, tuple[str, str]] = {}
    for name in relations():
        for split in SPLITS:
            for part, forms in parts_of(wordings_of(name, split)).items():
                for form in forms:
                    here = (name, split)
                    assert seen.setdefault(plain(form), here) == here, form
                assert len(set(forms)) == len(forms), (name, part)
    train, test = (common_wordings(split).model_dump() for split in SPLITS)
    for part, ours in train.items():
        theirs = test[part]
        pairs = (
            [(ours, theirs)]
            if not isinstance(ours, dict)
            else zip(ours.values(), (theirs.get(kind, ()) for kind in ours), strict=True)
        )
        assert all(not {*map(plain, a)} & {*map(plain, b)} for a, b in pairs), part


def test_the_development_wordings_have_the_format_and_the_slots_of_those_of_training() -> None:
    path = Path(__file__).parent / "data" / "dev_wordings.yaml"
    dev = yaml.safe_load(path.read_text(encoding="utf-8"))
    common = CommonWordings.model_validate(dev["common"]).model_dump()
    seen = {plain(form) for name in relations() for form in wordings_of(name, "train").questions}
    checked: list[tuple[str, tuple[str, ...]]] = []
    assert dev["relations"].keys() == relations().keys()
    for name, relation in relations().items():
        parts = parts_of(Wordings.model_validate(dev["relations"][name]))
        asked = {part for part in ("same", "least", "most") if getattr(relation, part)}
        asked |= {f"{part}_of_three" for part in asked - {"same"}}
        asked |= {"events"} if relation.object == "year" else set()
        least = {"questions": 12, "nouns": 5, "statements": 2} | dict.fromkeys(asked, 4)
        assert all(len(parts[part]) >= count for part, count in least.items()), name
        checked += [(form, (SLOTS[part],)) for part, forms in parts.items() for form in forms]
        assert bool(relation.least) == (name in dev["three"]["which"])
    for part, value in common.items():
        forms = sum(value.values(), ()) if isinstance(value, dict) else value
        checked += [(form, COMMON_SLOTS.get(part, ("",))) for form in forms]
    checked += [(form, ("which a b c",)) for form in dev["three"]["of_three"].splitlines()]
    for form, kinds in checked:
        slots = sorted(re.findall(r"\{(.*?)\}", form))
        wanted = (kind.split() for kind in kinds)
        assert any(
            len(slots) == len(kind) and all(any(s in w.split("|") for s in slots) for w in kind)
            for kind in wanted
        ), form
        assert plain(form) not in seen, form
        seen.add(plain(form))


def test_a_test_wording_shares_little_with_those_of_training() -> None:
    shared = []
    for name in relations():
        known = [set(plain(form).split()) for form in wordings_of(name, "train").questions]
        for form in wordings_of(name, "test").questions:
            words = set(plain(form).split())
            shared.append(max(len(words & other) / len(words | other) for other in known))
    assert max(shared) < 0.8
    assert sum(shared) / len(shared) < 0.45


def test_structures_of_every_kind_are_worded_and_seeded() -> None:
    kinds = ("chain", "compare", "yes_no", *BOTH_KINDS)
    questions = generate(
        WORLD, split="test", n=120, seed=4, wordings="test", kinds=dict.fromkeys(kinds, 1.0)
    )
    assert {question.kind for question in questions} == set(kinds)
    for question in questions:
        assert question.structure is not None
        for split in SPLITS:
            ours, again, noisy = (
                FreeWording(split, random.Random(5), noise).question(question.structure)
                for noise in (NO_NOISE, NO_NOISE, Noise(*[1.0] * 7))
            )
            assert ours == again != noisy
            assert not re.search(r"[{}\0]|\s\s|\b(the|of) of\b|\bthe the\b", ours), ours
            assert re.fullmatch(r"[^a-z].*[?.]", ours), ours


def test_relations_of_ones_own_are_worded_generically() -> None:
    chain = Ask("mayor", Ask("capital", "France"))
    for split in SPLITS:
        words = FreeWording(split, random.Random(1))
        assert words.question(chain).startswith("What is the mayor of ")
        assert "mayor of Oslo is Ola" in words.statement(Ask("mayor", "Oslo"), "Ola")
        assert words.question(YesNo(Ask("mayor", "Oslo"), "Ola")).endswith(("?", "."))


def test_english_is_kept_where_phrases_are_nested() -> None:
    def texts(question: Ask) -> set[str]:
        return {FreeWording("train", random.Random(n)).question(question) for n in range(400)}

    plural = texts(Ask("inventor", "instant noodles"))
    assert {"Who invented instant noodles?", "By whom were instant noodles invented?"} <= plural
    assert not any("was instant" in text or "noodles's" in text for text in plural)
    nested = texts(Ask("capital", Ask("birth_country", Ask("author", "Hamlet"))))
    assert not any(
        re.search(r"the (country|city|book) the ", text) for text in nested if ":" in text
    )
    # "the author of Hamlet's capital" would be Hamlet's; "Hamlet's author's" is fine.
    forms = wordings_of("author", "train").nouns
    owned = "|".join(form.removeprefix("{x}'s ") for form in forms if form.startswith("{x}'s "))
    bad = rf"of Hamlet's (?!(?:{owned})\b)|born's|from's"
    assert not any(re.search(bad, text) for text in nested)
    story = texts(Ask("birth_country", Ask("author", Ask("story", "Ahab"))))
    assert not any(text.endswith(("appears born?", "from born?", "in born?")) for text in story)
    named = Noise(0, 0, 0, 0, 0, 0, introduction=1.0)
    spoken = {
        FreeWording("train", random.Random(n), named).question(Ask("author", "Emma"))
        for n in range(100)
    }
    assert any(text.endswith(". Who wrote it?") for text in spoken)
    assert not any(re.search(r"Emma.*Emma", text) for text in spoken)


def test_a_typo_makes_no_other_name_and_short_names_have_none() -> None:
    names = sorted({fact.subject for fact in WORLD.facts})
    known = {folded(name) for name in names}
    rng = random.Random(0)
    typed = {name: with_typo(name, rng) for name in rng.sample(names, 300)}
    assert sum(text is not None for text in typed.values()) > 200
    for name, text in typed.items():
        if text is not None:
            assert folded(text) not in known
            assert text[0] == name[0]
    assert with_typo("Emma", rng) is None


@pytest.mark.parametrize("wordings", SPLITS)
def test_distractors_have_the_gold_that_a_careful_reader_gives(wordings: str) -> None:
    kinds = dict.fromkeys((*DISTRACTORS, "both"), 1.0)
    drawn = [
        generate(WORLD, split=wordings, n=500, seed=2, wordings=wordings, kinds=kinds)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert len({question.id for question in drawn[0]}) == 500
    counts = Counter(question.kind for question in drawn[0])
    assert min(counts[kind] for kind in kinds) > 20
    for question in drawn[0]:
        structure = question.structure
        truth = structure and true_answer(WORLD, structure)
        assert structure is None or is_in(wordings, structure)  # type: ignore[arg-type]
        match question.kind:
            case "unanswerable":
                assert (truth, question.hops) == (None, 0)
                assert exact_match("Unknown.", question.gold)
            case "stated":
                assert (question.hops, question.domains) == (0, ())
                assert normalize_answer(question.gold[0]) in normalize_answer(question.text)
            case "both":
                assert isinstance(structure, Both)
                a, b = (true_answer(WORLD, part) for part in (structure.first, structure.second))
                assert exact_match(f"{a} and {b}", question.gold)
                assert exact_match(f"{a}; {b}.", question.gold)
            case _:
                assert question.gold == (truth,)
                assert len(question.domains) == question.hops > 0


def test_a_detail_gives_no_fact_of_the_other_split_away() -> None:
    kinds = {"detail": 1.0, "stated": 1.0}
    told = generate(
        WORLD, split="train", n=400, seed=1, wordings="train", kinds=kinds, noise=NO_NOISE
    )
    held_out = {
        form.format(x=fact.subject, name=fact.subject, o=fact.object)
        for fact in WORLD.facts
        if not is_in("train", Ask(fact.relation, fact.subject))
        for form in wordings_of(fact.relation, "train").statements
    }
    text = "\n".join(question.text for question in told)
    assert "I do know that" in text
    assert not [statement for statement in held_out if statement in text]


def test_choices_that_exclude_each_other_are_errors() -> None:
    for options, message in (
        ({"split": "train", "wordings": "test"}, "test wordings are for the test split"),
        ({"wordings": "tests"}, "unknown wordings 'tests'"),
        ({"kinds": {"detail": 1.0}}, "detail questions need free wordings"),
        ({"kinds": {"chian": 1.0}}, "did you mean 'chain'"),
        ({"kinds": {"chain": -1.0}}, "the weight of chain is -1.0"),
        ({"kinds": {"chain": 0.0}}, "no kind of question"),
    ):
        with pytest.raises(ConfigError, match=message):
            generate(WORLD, **{"split": "test", "n": 1, "seed": 0, **options})  # type: ignore[arg-type]
    everything = generate(
        WORLD, split="test", n=200, seed=0, wordings="test", kinds=EVERY_KIND, noise=USUAL_NOISE
    )
    assert {question.kind for question in everything} == set(EVERY_KIND)
