"""The wordings of `data/wordings/`: questions in people's words, for training and for tests.

They are written by hand, several registers for each relation. Each wording belongs to one split,
and a test wording shares as little with those of training as honest English allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from .relations import read_data, relation_of, relations

WordingSplit = Literal["train", "test"]


def _lines(text: Any) -> Any:
    return tuple(text.strip().splitlines()) if isinstance(text, str) else text


def _names(text: Any) -> Any:
    return tuple(name.strip() for name in text.split(",")) if isinstance(text, str) else text


Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]
"""In the file a text with one wording a line."""
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""In the file a text with commas between the names."""


class Wordings(BaseModel):
    """The wordings of one relation in one split.

    The slots: `{x}` is the subject, a name or a noun phrase; `{name}` is one that must be a bare
    name ("the country {name}"); `{o}` is the object; `{a}` and `{b}` are two subjects; `{or}` and
    `{and}` are two or three of them, joined ("A, B or C").
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: Lines
    """Whole sentences, and some keywords ("author of {x}?") without a capital."""
    nouns: Lines
    """Phrases that stand for the answer inside another question."""
    statements: Lines
    events: Lines = ()
    """Phrases for a point in time, of a relation whose objects are years."""
    between: Lines = ()
    """Questions for the difference of two numbers that are no years."""
    same: Lines = ()
    least: Lines = ()
    most: Lines = ()
    least_of_three: Lines = ()
    most_of_three: Lines = ()


class CommonWordings(BaseModel):
    """Wordings of one split that belong to no relation. See the head of `common.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    yes_no: Lines
    between_years: Lines
    both: Lines
    who_is: Lines
    openings: Lines
    closings: Lines
    details: Lines
    """Sentences that have nothing to do with any question."""
    fact_details: Lines
    """The same, around a statement about the world."""
    premises: Lines
    stated: Lines
    own: Lines
    """Questions about the asker's own things, with the answer in them."""
    own_things: Names
    invented: Mapping[str, Names]
    """Names of things that do not exist, by type."""
    unanswerable: Mapping[str, Lines]
    """Questions without a known answer, by the type of their subject."""
    introductions: Mapping[str, Lines]
    """Sentences after which "it" is clear, by the type of what they mention."""


@cache
def wordings_of(relation: str, split: WordingSplit) -> Wordings:
    """Return a relation's wordings; of one that is not embedded the generic ones, in both splits.

    >>> wordings_of("author", "test").questions[1]
    'Who authored {x}?'
    """
    if (found := _by_relation().get(relation)) is not None:
        return found[split]
    generic = relation_of(relation)
    noun = generic.nouns[0]
    return Wordings(
        questions=generic.questions, nouns=generic.nouns, statements=(f"{noun} is {{o}}",)
    )


@cache
def common_wordings(split: WordingSplit) -> CommonWordings:
    """Return the wordings of a split that belong to no relation."""
    return CommonWordings.model_validate(_common()[split])


class Classes(BaseModel):
    """Properties of types and names, for all splits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    demonyms: Mapping[str, str]
    """Adjectives by country."""
    absurd: Mapping[str, Names] = Field(default_factory=dict)
    """By the type of a relation's subjects: types for which the relation makes no sense."""


@cache
def classes() -> Classes:
    """Return the properties of types and names."""
    common = _common()
    return Classes(demonyms=common["demonyms"], absurd=common["absurd"])


@cache
def demonyms() -> Mapping[str, str]:
    """Return the countries by their adjectives, in lower case."""
    return {word.lower(): country for country, word in classes().demonyms.items()}


@cache
def _common() -> Mapping[str, Any]:
    loaded: dict[str, Any] = read_data("wordings/common.yaml")
    return loaded


@cache
def _by_relation() -> Mapping[str, Mapping[WordingSplit, Wordings]]:
    found: dict[str, Mapping[WordingSplit, Wordings]] = {}
    for domain in dict.fromkeys(relation.domain for relation in relations().values()):
        for name, splits in read_data(f"wordings/{domain}.yaml").items():
            found[name] = {
                "train": Wordings.model_validate(splits["train"]),
                "test": Wordings.model_validate(splits["test"]),
            }
    return found
