"""A question over a world, with its gold answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .decomposed import Decomposed
from .distractors import DistractorKind
from .drawing import DrawnKind
from .structure import Structure

QuestionKind = DrawnKind | DistractorKind | Literal["decomposed"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its gold answers."""

    id: str
    """The same for the same meaning, in every wording, process and seed."""
    text: str
    gold: tuple[str, ...]
    """Of two questions at once: both answers, as "A and B" and "A, B"; of one that nobody can
    answer: "unknown" and the like."""
    hops: int
    """How many facts the answer takes; 0 where it is in the question, or where there is none."""
    kind: QuestionKind
    domains: tuple[str, ...]
    """The domain of each hop, innermost first."""
    structure: Structure | Decomposed | None
    """None where it asks for nothing that a world could hold."""
