"""Reads the question in a query, over any kind of world."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from .decomposed import Decomposed
from .nearest import Nearest
from .reading import read_question
from .structure import Structure, folded
from .world import World


def read(world: World, query: str) -> Structure | Decomposed | None:
    """Return the question in a query; None = it cannot be understood.

    In the world of a decomposed file, it is the question or sub-question that is nearest to it.
    """
    return _reader(world).read(query) if world.asked else read_question(query, world)


class _Reader:
    """Finds the question or sub-question of a file that a query is a wording of."""

    def __init__(self, asked: tuple[Decomposed, ...]) -> None:
        # A text that is both is a fact: one call answers it.
        facts = [leaf for question in asked for leaf in question.leaves()]
        others = [node for question in asked for node in _nodes(question) if node.parts]
        self._named: dict[str, Decomposed] = {}
        for node in (*facts, *others):
            self._named.setdefault(_literal(node.question), node)
        self._nodes = list(self._named.values())
        self._nearest = Nearest(
            [node.question for node in self._nodes],
            [folded(node.answer) for node in self._nodes],
            long={number for number, node in enumerate(self._nodes) if node.parts},
        )

    def read(self, query: str) -> Decomposed | None:
        """Return it, or None."""
        literal = self._named.get(_literal(query))
        if literal is not None:
            return literal
        found = self._nearest.find(query)
        return None if found is None else self._nodes[found]


def _nodes(question: Decomposed) -> Iterator[Decomposed]:
    yield question
    for part in question.parts:
        yield from _nodes(part)


def _literal(text: str) -> str:
    return folded(text.rstrip(" ?.!"))


@lru_cache(maxsize=64)
def _reader(world: World) -> _Reader:
    return _Reader(world.asked)
