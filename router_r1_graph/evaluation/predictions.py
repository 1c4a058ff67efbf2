"""Predictions: the candidate that a router would ask for each question; no candidate is asked.

Benchmarks of routers compare these: a prediction is one candidate for one question, which is asked
the whole question.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..candidates import CandidatePool
from ..context import RouterContext
from ..controllers import Controller, parse_controller
from ..controllers.learned import LearnedController
from ..controllers.learned.cells import read_lines, text_of
from ..controllers.learned.columns import name_in
from ..controllers.rules import RandomController
from ..errors import ControllerError, MatrixError
from ..routing.first_turn import route_only
from .measures import softmax


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of one router for N questions.

    Attributes:
        router: its name.
        choices: length N: the number of the candidate in the pool.
        probabilities: N x C, each row sums to 1; if a router reports none, 1 for its choice.
        others: how many of its turns would not simply ask one candidate the question, but several,
            in other words, or none. For these, the first candidate counts; where a policy asks
            none, its most probable one.
    """

    router: str
    choices: np.ndarray
    probabilities: np.ndarray
    others: int = 0


def predict(
    controller: Controller | str,
    pool: CandidatePool,
    questions: Sequence[str],
    *,
    cost_weight: float = 0.0,
) -> Predictions:
    """Return the predictions of a controller.

    The probabilities of a fitted controller are the softmax of its utilities, as RouterEval's kNN
    has them of its predicted scores; those of a policy are its own; `random` has the same for all.

    Args:
        controller: a controller, or its spec.
        pool: the candidates.
        questions: N texts.
        cost_weight: from 0 to 1.

    Raises:
        ControllerError: the controller fails, or asks no candidate for a question.
    """
    if isinstance(controller, str):
        controller = parse_controller(controller, pool)
    if isinstance(controller, LearnedController):
        utilities = controller.utilities(questions, pool, cost_weight)
        choices = controller.choices(questions, pool, cost_weight)
        return Predictions(controller.name, choices, softmax(utilities))
    place = {candidate.name: i for i, candidate in enumerate(pool.candidates)}
    choices = np.zeros(len(questions), dtype=int)
    probabilities = np.zeros((len(questions), len(place)))
    others = 0
    context = RouterContext(cost_weight=cost_weight)
    for row, question in enumerate(questions):
        routing = route_only(pool, controller, question, context=context)
        first = routing.first(pool)
        if first is None:
            why = routing.error or "it asks none of the candidates"
            raise ControllerError(f"{controller.name}: no prediction for {question[:60]!r}: {why}")
        others += len(routing.calls) > 1 or first.query != question
        choices[row] = place[first.candidate]
        if first.choice is not None and first.choice.unit == "probability":
            shares = np.array([first.choice.values.get(name, 0.0) for name in place])
            probabilities[row] = shares / shares.sum()
        elif isinstance(controller, RandomController):
            probabilities[row] = 1 / len(place)
        else:
            probabilities[row, choices[row]] = 1.0
    return Predictions(controller.name, choices, probabilities, others)


def read_predictions(path: Path, pool: CandidatePool, questions: Sequence[str]) -> Predictions:
    """Read predictions for these questions: of any router, made by any program.

    Each object of the `.json` (a list, as RouterArena has it) or line of the `.jsonl` has the
    question (`question`, `prompt`) and the candidate (`candidate`, `model`, `prediction`).

    Raises:
        MatrixError: the file cannot be read, names no candidate of the pool, or leaves a question
            out.
    """
    found: dict[str, str] = {}
    for where, entry in _entries(path):
        if not entry.get("for_optimality"):
            question = text_of(entry, "question", "prompt", where=where)
            name = text_of(entry, "candidate", "model", "prediction", where=where)
            found[question] = name_in(name, pool, where)
    missing = [question for question in questions if question not in found]
    if missing:
        raise MatrixError(
            f"{path}: no prediction for {len(missing)} of {len(questions)} questions, the first is "
            f"{missing[0][:60]!r}"
        )
    place = {candidate.name: i for i, candidate in enumerate(pool.candidates)}
    choices = np.array([place[found[question]] for question in questions], dtype=int)
    return Predictions(path.stem, choices, np.eye(len(place))[choices])


def read_objects(path: Path) -> list[Mapping[str, Any]]:
    """Return the objects of a `.json` that is a list of them.

    Raises:
        MatrixError: it is none.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise MatrixError(f"{path}: cannot be read: {why}") from None
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise MatrixError(f"{path}: not a list of objects")
    if not entries:
        raise MatrixError(f"{path}: there is nothing in it")
    return entries


def _entries(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    if path.suffix == ".json":
        return [(f"{path}, entry {i}", one) for i, one in enumerate(read_objects(path), 1)]
    if path.suffix != ".jsonl":
        raise MatrixError(f"{path}: predictions are a .json or a .jsonl")
    if not path.is_file():
        raise MatrixError(f"{path}: no such file")
    return [(f"{path}, line {number}", one) for number, one in read_lines(path)]
