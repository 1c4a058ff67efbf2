"""The facts, the relations, and worlds of one's own."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from facts_file import write_facts
from router_r1_graph.errors import ConfigError
from router_r1_graph.simulation import Ask, World, read_question
from router_r1_graph.simulation.grammar import MAX_PREFIX, _noun_forms, _question_forms, read_exact
from router_r1_graph.simulation.relations import relation_of, relations
from router_r1_graph.simulation.structure import folded

WORLD = World.embedded()
HEADER = "subject,relation,object,domain\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "facts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_there_are_many_facts_in_seven_domains() -> None:
    counts = Counter(fact.domain for fact in WORLD.facts)
    assert len(WORLD.facts) >= 4000
    assert len(counts) == 7
    assert min(counts.values()) >= 200


def test_a_subject_has_one_object_per_relation() -> None:
    keys = Counter((folded(fact.subject), fact.relation) for fact in WORLD.facts)
    assert max(keys.values()) == 1


def test_every_fact_is_in_the_domain_of_its_relation() -> None:
    assert all(fact.domain == relations()[fact.relation].domain for fact in WORLD.facts)


def test_every_relation_is_used_and_has_varied_forms() -> None:
    assert set(WORLD.relations) == set(relations())
    for relation in relations().values():
        assert len(set(relation.questions)) >= 3, relation.name
        assert len(set(relation.nouns)) >= 2, relation.name


def test_no_form_belongs_to_two_relations_and_no_prefix_is_too_long_to_be_found() -> None:
    for index in (_question_forms(), _noun_forms()):
        forms = [form for group in index.values() for form in group]
        shapes = Counter((form.prefix, form.middle, form.suffix) for form in forms)
        assert max(shapes.values()) == 1
        assert all(0 < len(prefix) <= MAX_PREFIX for prefix in index)


def test_no_name_holds_a_character_or_word_that_breaks_things() -> None:
    for fact in WORLD.facts:
        for name in (fact.subject, fact.object):
            assert name.isascii()
            assert name == name.strip()
            assert not set(':<>"\n\t') & set(name), name
            assert " or " not in name, name


def test_no_name_reads_as_a_phrase_even_in_lower_case() -> None:
    for fact in WORLD.facts:
        for name in (fact.subject, fact.object):
            for spelled in (name, name.lower(), name.upper()):
                assert read_exact(f"Who wrote {spelled}?") == Ask("author", spelled)


def test_a_name_means_one_thing() -> None:
    kinds = defaultdict(set)
    for fact in WORLD.facts:
        relation = relations()[fact.relation]
        # An element can be a discovery as well; that is the same thing.
        kinds[folded(fact.subject)].add(relation.subject.replace("discovery", "element"))
        kinds[folded(fact.object)].add(relation.object)
    assert {name: kind for name, kind in kinds.items() if len(kind) > 1} == {}


def test_persons_lead_to_countries_and_countries_to_capitals() -> None:
    for fact in WORLD.facts:
        if relations()[fact.relation].object == "person":
            assert WORLD.lookup(fact.object, "birth_country"), fact
        if fact.relation == "birth_country":
            assert WORLD.lookup(fact.object, "currency"), fact


def test_some_facts_are_true() -> None:
    known = {
        ("Hamlet", "author"): "William Shakespeare",
        ("Psycho", "director"): "Alfred Hitchcock",
        ("Aida", "composer"): "Giuseppe Verdi",
        ("Guernica", "artist"): "Pablo Picasso",
        ("gold", "symbol"): "Au",
        ("Franz Kafka", "birth_city"): "Prague",
        ("Poland", "currency"): "zloty",
    }
    for (subject, relation), expected in known.items():
        fact = WORLD.lookup(subject, relation)
        assert fact is not None
        assert fact.object == expected


def test_lives_and_works_are_in_order() -> None:
    for fact in WORLD.facts:
        born, died = (WORLD.lookup(fact.subject, f"{end}_year") for end in ("birth", "death"))
        if born and died:
            assert 20 < int(died.object) - int(born.object) < 107, fact.subject
        born = WORLD.lookup(fact.object, "birth_year")
        for name in ("book_year", "film_year", "premiere_year"):
            made = WORLD.lookup(fact.subject, name)
            if born and made:
                assert 15 < int(made.object) - int(born.object) < 100, fact.subject


def test_a_city_is_in_one_country_whichever_way_one_asks() -> None:
    for fact in WORLD.facts:
        home = WORLD.lookup(fact.object, "city_country")
        if fact.relation == "capital" and home:
            assert home.object == fact.subject
        if fact.relation == "birth_city" and home:
            country = WORLD.lookup(fact.subject, "birth_country")
            assert country is not None
            assert home.object == country.object, fact.subject


def test_lookup_ignores_case_and_articles() -> None:
    assert WORLD.lookup("the mona lisa", "artist") == WORLD.lookup("Mona Lisa", "artist")
    assert WORLD.lookup("LOUVRE", "museum_city") is not None
    assert WORLD.lookup("Nobody", "author") is None


def test_the_embedded_world_is_read_once() -> None:
    assert World.embedded() is WORLD


def test_a_permuted_world_keeps_subjects_and_objects_and_changes_what_belongs_together() -> None:
    other = WORLD.permuted(7)
    assert [(f.subject, f.relation, f.domain) for f in other.facts] == [
        (f.subject, f.relation, f.domain) for f in WORLD.facts
    ]
    assert all(other.objects(name) == WORLD.objects(name) for name in WORLD.relations)
    moved = sum(a.object != b.object for a, b in zip(WORLD.facts, other.facts, strict=True))
    assert moved > 0.8 * len(WORLD.facts)
    assert other.facts == WORLD.permuted(7).facts != WORLD.permuted(8).facts


def test_the_facts_of_a_file_are_those_of_its_world(tmp_path: Path) -> None:
    write_facts(WORLD, tmp_path / "facts.csv")
    assert World.from_csv(tmp_path / "facts.csv").facts == WORLD.facts


def test_a_relation_of_ones_own_gets_generic_forms(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "water,Boiling Point,100 C,physics\n")
    assert World.from_csv(path).relations == ("boiling_point",)
    assert relation_of("boiling_point").questions == ("What is the boiling point of {x}?",)
    assert read_question("What is the boiling point of water?") == Ask("boiling_point", "water")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "subject,relation,objct,domain\n",
            "line 1: unknown column 'objct' .did you mean 'object'",
        ),
        ("subject,relation,object\n", "line 1: the column 'domain' is missing"),
        (HEADER + "a,author,,x\n", "line 2, column 'object': is empty"),
        (HEADER + "a,author\n", "line 2, column 'object': is empty"),
        (HEADER + "a,author,b<c,x\n", "line 2, column 'object': 'b<c' contains '<'"),
        (HEADER + "a,author,b,x,y\n", "line 2, .*more values than columns: .'y'."),
        (HEADER + "a,au-thor,b,x\n", "line 2, column 'relation': 'au-thor' is no name"),
        (HEADER + "a,author,b,x\nA,author,c,x\n", "line 3, column 'subject': 'A' already has"),
        ("", "line 1: the column 'subject' is missing"),
        (HEADER + 'a,"author,b,x\n', "is no CSV file|line"),
    ],
)
def test_a_bad_file_is_refused_by_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        World.from_csv(write(tmp_path, text))
    assert "facts.csv" in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.csv: cannot be read"):
        World.from_csv(tmp_path / "nowhere.csv")
