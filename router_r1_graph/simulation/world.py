"""The embedded world: true facts that can be looked up, chained and asked about.

A fact is a subject, a relation and one object. Facts are CSV files with the columns `subject`,
`relation`, `object` and `domain`; the embedded ones are in `data/`, one file per domain. A file of
questions with their sub-questions is a world, too.
"""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path

from ..errors import ConfigError, did_you_mean
from .decomposed import Decomposed
from .decomposed_file import read_decomposed
from .relations import DATA, relation_domain
from .structure import Ask, Structure, folded, next_steps

COLUMNS = ("subject", "relation", "object", "domain")


@dataclass(frozen=True, slots=True)
class Fact:
    """One true statement, such as (Hamlet, author, William Shakespeare) of literature."""

    subject: str
    relation: str
    object: str
    domain: str


@dataclass(frozen=True, eq=False)
class World:
    """Facts with an index. Two worlds are equal only when they are the same object."""

    facts: tuple[Fact, ...]
    asked: tuple[Decomposed, ...] = ()
    """The questions of a decomposed file, whose sub-questions are the facts; () = any question that
    the facts answer."""

    @staticmethod
    def embedded() -> World:
        """Return the world that is shipped with the library.

        >>> World.embedded().lookup("Hamlet", "author").object
        'William Shakespeare'
        """
        return _embedded()

    @staticmethod
    def from_csv(path: str | Path) -> World:
        """Return the world of a CSV file with the columns subject, relation, object and domain.

        Raises:
            ConfigError: The file cannot be read, or a line of it cannot be used.
        """
        return World(tuple(_read_facts([Path(path)])))

    @staticmethod
    def from_decomposed(path: str | Path) -> World:
        """Return the world of a JSONL file of questions with their sub-questions and gold answers.

        Each sub-question is a fact: its subject is the question itself, and its relation is the
        kind of its answer.

        Raises:
            ConfigError: The file cannot be read, or a line of it cannot be used.
        """
        asked = read_decomposed(path)
        leaves = dict.fromkeys(leaf for question in asked for leaf in question.leaves())
        facts = (Fact(leaf.question, leaf.kind, leaf.answer, leaf.domain) for leaf in leaves)
        return World(tuple(facts), asked)

    def lookup(self, subject: str, relation: str) -> Fact | None:
        """Return the fact, or None. Case and an article before the subject do not matter."""
        return self._index.get((folded(subject), relation))

    def objects(self, relation: str) -> tuple[str, ...]:
        """Return the distinct objects of a relation, sorted."""
        return self._objects.get(relation, ())

    def about(self, subject: str) -> tuple[Fact, ...]:
        """Return every fact with this subject."""
        return self._about.get(folded(subject), ())

    @cached_property
    def relations(self) -> tuple[str, ...]:
        """The relations that occur, in order of appearance."""
        return tuple(dict.fromkeys(fact.relation for fact in self.facts))

    def domain(self, relation: str) -> str:
        """Return the domain of a relation's facts here, or its usual one when it has none."""
        return self._domains.get(relation) or relation_domain(relation)

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains that occur, in order of appearance."""
        return tuple(dict.fromkeys(fact.domain for fact in self.facts))

    def permuted(self, seed: int) -> World:
        """Return a world in which the objects of each relation have changed places.

        Subjects, relations and domains stay, and so does each candidate's knowledge. A policy that
        routes is as good as before; a policy that remembers answers is not.

        Raises:
            ConfigError: The world is that of a decomposed file, whose sub-questions name each
                other's answers.
        """
        if self.asked:
            raise ConfigError("the facts of a decomposed file cannot be permuted")
        rng = random.Random(seed)
        objects: dict[str, list[str]] = {}
        for fact in self.facts:
            objects.setdefault(fact.relation, []).append(fact.object)
        for names in objects.values():
            rng.shuffle(names)
        return World(
            tuple(replace(fact, object=objects[fact.relation].pop()) for fact in self.facts)
        )

    @cached_property
    def _index(self) -> dict[tuple[str, str], Fact]:
        return {(folded(fact.subject), fact.relation): fact for fact in self.facts}

    @cached_property
    def _domains(self) -> dict[str, str]:
        return {fact.relation: fact.domain for fact in self.facts}

    @cached_property
    def _objects(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {}
        for fact in self.facts:
            found.setdefault(fact.relation, set()).add(fact.object)
        return {relation: tuple(sorted(names)) for relation, names in found.items()}

    @cached_property
    def _about(self) -> dict[str, tuple[Fact, ...]]:
        found: dict[str, list[Fact]] = {}
        for fact in self.facts:
            found.setdefault(folded(fact.subject), []).append(fact)
        return {subject: tuple(facts) for subject, facts in found.items()}


def true_answer(world: World, question: Structure | Decomposed) -> str | None:
    """Return the right answer, or None when the world lacks a fact for it."""
    if isinstance(question, Decomposed):
        return question.answer
    known: dict[Ask, str] = {}
    while not isinstance(plan := next_steps(question, known), str):
        for step in plan:
            fact = world.lookup(str(step.subject), step.relation)
            if fact is None:
                return None
            known[step] = fact.object
    return plan or None


@cache
def _embedded() -> World:
    return World(tuple(_read_facts(sorted(DATA.glob("*.csv")))))


def _read_facts(paths: Iterable[Path]) -> Iterable[Fact]:
    seen: dict[tuple[str, str], str] = {}
    for path in paths:
        for number, row in _read_rows(path):
            fact = Fact(*(_value(row, column, path, number) for column in COLUMNS))
            fact = replace(fact, relation=_relation(fact.relation, path, number))
            where = f"{path}, line {number}"
            first = seen.setdefault((folded(fact.subject), fact.relation), where)
            if first != where:
                raise ConfigError(
                    f"{where}, column 'subject': {fact.subject!r} already has an object for "
                    f"{fact.relation!r} ({first}); a subject has one object per relation"
                )
            yield fact


def _read_rows(path: Path) -> list[tuple[int, dict[str | None, str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or ())
            for column in header:
                if column not in COLUMNS:
                    raise ConfigError(
                        f"{path}, line 1: unknown column {column!r}"
                        f"{did_you_mean(column, COLUMNS)}; the columns are {', '.join(COLUMNS)}"
                    )
            for column in COLUMNS:
                if column not in header:
                    raise ConfigError(
                        f"{path}, line 1: the column {column!r} is missing; "
                        f"the columns are {', '.join(COLUMNS)}"
                    )
            return [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: is no CSV file in UTF-8: {error}") from error


def _value(row: dict[str | None, str], column: str, path: Path, number: int) -> str:
    value = row[column]
    where = f"{path}, line {number}, column {column!r}"
    if None in row:
        raise ConfigError(f"{where}: more values than columns: {row[None]!r}; quote a comma")
    if value is None or not value.strip():
        raise ConfigError(f"{where}: is empty")
    if bad := re.search(r"[<>\x00-\x1f]", value):
        raise ConfigError(f"{where}: {value!r} contains {bad.group()!r}, which no name may")
    return value.strip()


def _relation(name: str, path: Path, number: int) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_ ]{0,40}", name):
        raise ConfigError(
            f"{path}, line {number}, column 'relation': {name!r} is no name of a relation: "
            "letters, digits, spaces and '_', starting with a letter"
        )
    return name.lower().replace(" ", "_")


_PERMUTED = re.compile(r"permuted:(\d+)")


@lru_cache(maxsize=256)
def known_world(facts: str | None) -> World:
    """Return the world of a facts file, read once.

    Args:
        facts: a CSV file of facts, or a JSONL file (also `.jsonl.gz`) of questions with their
            sub-questions; None = the embedded world, `permuted:SEED` = that one permuted.

    Raises:
        ConfigError: the file cannot be read, or a line of it is no fact.

    >>> known_world("permuted:7").lookup("Hamlet", "author").object != "William Shakespeare"
    True
    """
    if facts is None:
        return World.embedded()
    if permuted := _PERMUTED.fullmatch(facts):
        return World.embedded().permuted(int(permuted[1]))
    if facts.lower().endswith((".jsonl", ".jsonl.gz")):
        return World.from_decomposed(facts)
    return World.from_csv(facts)
