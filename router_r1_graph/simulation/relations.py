"""Relations: the kinds of facts, and the forms in which each is asked about.

The forms are in `data/relations.yaml`. A relation that is not there (from a user's own facts) is
asked about generically: "What is the boiling point of water?" for `boiling_point`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # a PyYAML that was built without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

DATA = Path(__file__).parent / "data"

#: The domain of a relation that `relations.yaml` does not know.
OTHER_DOMAIN = "other"


class Relation(BaseModel):
    """One kind of fact. See the head of `relations.yaml` for what the forms mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    domain: str
    subject: str
    """The type of its subjects, such as `book`."""
    object: str
    """The type of its objects, such as `person`."""
    questions: tuple[str, ...] = Field(min_length=1)
    nouns: tuple[str, ...] = Field(min_length=1)
    least: tuple[str, ...] = ()
    most: tuple[str, ...] = ()
    same: tuple[str, ...] = ()


def read_data(name: str) -> Any:
    """Return the content of a YAML file of this package's `data`.

    libyaml reads it in an eighth of the time that PyYAML's own parser takes. Files of others do
    not come here: what they say wrong is explained by `candidates.pool_file`.
    """
    return yaml.load((DATA / name).read_text(encoding="utf-8"), Loader=SafeLoader)


@cache
def relations() -> Mapping[str, Relation]:
    """Return the relations of the embedded world by name."""
    entries = read_data("relations.yaml")
    return {name: Relation(name=name, **entry) for name, entry in entries.items()}


@cache
def relation_of(name: str) -> Relation:
    """Return the relation of this name; one with generic forms when it is not an embedded one."""
    known = relations().get(name)
    if known is not None:
        return known
    spoken = name.replace("_", " ")
    return Relation(
        name=name,
        domain=OTHER_DOMAIN,
        subject=f"subject of {name}",
        object=f"object of {name}",
        questions=(f"What is the {spoken} of {{x}}?",),
        nouns=(f"the {spoken} of {{x}}",),
    )


def relation_domain(relation: str) -> str:
    """Return the domain of the candidates that know facts of this relation.

    >>> relation_domain("author")
    'literature'
    """
    return relation_of(relation).domain
