"""The names of domains in descriptors: pools of other people call the same thing differently."""

from __future__ import annotations

from functools import cache

SUBJECTS: dict[str, tuple[str, ...]] = {
    "literature": ("books", "novels and writers", "fiction", "books and their authors", "reading"),
    "film": ("movies", "cinema", "films and directors", "motion pictures"),
    "music": ("composers", "classical music", "songs and operas", "musical works"),
    "art": ("painting", "paintings and sculptures", "fine arts", "museums", "visual arts"),
    "science": ("physics and chemistry", "natural sciences", "discoveries", "technology"),
    "biography": ("people", "lives of people", "who was born where", "famous persons"),
    "geography": ("countries and cities", "places", "maps", "world facts", "travel"),
}
"""Other names of the embedded world's domains."""


@cache
def _domains() -> dict[str, str]:
    named = {name: domain for domain, names in SUBJECTS.items() for name in names}
    return named | {domain: domain for domain in SUBJECTS}


def subject_of(name: str) -> str:
    """Return the domain that a descriptor calls so; of a name that is not known, the name."""
    return _domains().get(name, name)
