"""Rows in batches that begin alike and are about equally long."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from router_r1_graph.controllers.policy.prefixes import begun_alike

from .export import SupervisedRow

_MORE = 32
"""About a candidate's line in the prompt; by chance, two pools have less in common."""


def in_batches(rows: Sequence[SupervisedRow], size: int, rng: random.Random) -> list[SupervisedRow]:
    """Return all rows in the order of their batches, which are in random order.

    Rows over one pool begin alike: a step computes that once for a batch. Rows of about equal
    length leave little padding to compute.
    """
    batches: list[list[SupervisedRow]] = []
    others: list[SupervisedRow] = []
    for group in _alike(rows):
        group.sort(key=_length)
        whole = len(group) // size * size
        start = rng.choice((0, len(group) - whole))  # neither the short nor the long ones only
        batches += [group[at : at + size] for at in range(start, start + whole, size)]
        others += [*group[:start], *group[start + whole :]]
    others.sort(key=_length)
    rest = [others[at : at + size] for at in range(0, len(others), size)]
    partial = [rest.pop()] if rest and len(rest[-1]) < size else []
    batches += rest
    rng.shuffle(batches)
    return [row for batch in [*batches, *partial] for row in batch]


def _length(row: SupervisedRow) -> int:
    return len(row["input_ids"])


def _alike(rows: Sequence[SupervisedRow]) -> Iterator[list[SupervisedRow]]:
    """Yield groups of rows with a longer common beginning than that of all rows."""
    ordered = sorted(rows, key=lambda row: row["input_ids"])
    least = _common(ordered[0], ordered[-1]) + _MORE if ordered else 0
    group: list[SupervisedRow] = []
    for row in ordered:
        if group and _common(group[-1], row) < least:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _common(one: SupervisedRow, other: SupervisedRow) -> int:
    return begun_alike(one["input_ids"], other["input_ids"])
