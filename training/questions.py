"""The questions of files and data sets: those that are trained on, and those that are held out.

Held-out questions are never trained on. They come from files of their own (`eval_files`,
`eval_hub`) or from other rows of the same ones (`eval_where`); else a hash of its text decides for
each question. Such a split is the same for every seed, file and order. Two questions are the same
if they differ in case, spaces and punctuation only.
"""

from __future__ import annotations

import logging
import random
import unicodedata
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from router_r1_graph import ConfigError, Trace
from router_r1_graph.candidates.records import normalize_query
from router_r1_graph.evaluation.questions import EvaluationQuestion, Reader
from router_r1_graph.simulation import known_world
from router_r1_graph.simulation.draw import fraction
from router_r1_graph.words import counted, plain

from .data_config import DataConfig

logger = logging.getLogger(__name__)


class Questions(NamedTuple):
    """The questions of a run; none is in both lists, and none twice in one."""

    train: list[EvaluationQuestion]
    held_out: list[EvaluationQuestion]


class _Found(NamedTuple):
    source: str
    question: EvaluationQuestion


def read_questions(data: DataConfig) -> Questions:
    """Read what a config names; `per_source` limits the questions to train on.

    A question in several rows is asked once, and the gold answers of all of them count.

    Raises:
        ConfigError: a source is missing, empty or broken, a row has no gold answer though the
            reward needs one, a question is in both lists, or there is none to train on; names
            source and line, or the question.
    """
    sources = _training_sources(data)
    found = _read(sources, data.where, data)
    if data.split_by_hash:
        held_out = {key: one for key, one in found.items() if _is_drawn(key, data.held_out)}
        train = {key: one for key, one in found.items() if key not in held_out}
    else:
        train, held_out = found, _read(_eval_sources(data), data.eval_where, data)
        _refuse_overlap(train, held_out)
    if not train:
        raise ConfigError(
            f"data: no question is left to train on: all {len(found)} of {', '.join(sources)} are "
            f"held out; lower data.held_out ({plain(data.held_out)})"
        )
    return Questions(
        _limited(train.values(), data.per_source), [one.question for one in held_out.values()]
    )


def require_held_out(questions: Questions, data: DataConfig) -> None:
    """Check that there are questions to measure on.

    Raises:
        ConfigError: no question is held out.
    """
    if not questions.held_out:
        raise ConfigError(
            f"data: none of {counted(len(questions.train), 'question')} is held out, as data."
            f"held_out is {plain(data.held_out)}; raise it, name data.eval_files, or set "
            "evaluate_questions and grpo.validate_every to 0"
        )


def check_questions(data: DataConfig, wanted: int) -> str:
    """Read the questions before anything is trained or paid, and print their numbers.

    Args:
        data: their source.
        wanted: how many held-out ones are to be asked.

    Raises:
        ConfigError: see `read_questions`; or none is held out, and some are wanted.
    """
    if data.source == "world":
        for name in data.world_names():
            known_world(name)
        return f"questions: drawn from {_worlds(data)}"
    questions = read_questions(data)
    if wanted:
        require_held_out(questions, data)
    there = len(questions.held_out)
    fewer = f", fewer than are asked for ({wanted})" if there < wanted else ""
    return (
        f"questions: {len(questions.train):,} to train on, {there:,} held out{fewer}. "
        f"{how_held_out(data)}"
    )


def how_held_out(data: DataConfig) -> str:
    """Return one sentence on the source of the held-out questions."""
    if data.source == "world":
        return f"They are the test split of {_worlds(data)}, a fifth of the questions by meaning."
    of = ", ".join(_training_sources(data) if data.split_by_hash else _eval_sources(data))
    if data.split_by_hash and not data.held_out:
        return f"All questions of {of} are trained on (data.held_out: 0)."
    if data.split_by_hash:
        share = plain(100 * data.held_out)
        return f"They are {share}% of the questions of {of}, split off by a hash of their text."
    rows = " and ".join(f"{name} {value}" for name, value in data.eval_where.items())
    return f"They are the questions of {of}{f' with {rows}' if rows else ''}."


def _worlds(data: DataConfig) -> str:
    return ", ".join(data.facts) if data.facts else "the embedded world"


def without_held_out(
    traces: Iterable[Trace], data: DataConfig, measured: Iterable[str] = ()
) -> Iterator[Trace]:
    """Yield the traces whose question is not held out, and log how many are left out.

    Args:
        traces: traces of any questions.
        data: says which questions are held out.
        measured: the questions that are held out with source `world`.

    Raises:
        ConfigError: see `read_questions`; or no trace is left.
    """
    world, by_hash = data.source == "world", data.split_by_hash
    share = data.held_out if by_hash and not world else 0.0
    keys: Container[str] = {question_key(text) for text in measured}
    if not (world or by_hash):
        keys = _read(_eval_sources(data), data.eval_where, data)
    kept = left_out = 0
    for trace in traces:
        key = question_key(trace.question)
        if key in keys or _is_drawn(key, share):
            left_out += 1
        else:
            kept += 1
            yield trace
    if left_out:
        logger.warning("%s left out: their questions are held out", counted(left_out, "trace"))
    if left_out and not kept:
        raise ConfigError("warm_start.trace_files: every trace has a question that is held out")


def question_key(text: str) -> str:
    """Return a key that is the same for two equal questions.

    Example:
        >>> question_key("Who wrote  “Hamlet”?") == question_key("who wrote Hamlet")
        True
    """
    return normalize_query(unicodedata.normalize("NFKC", text))


def _is_drawn(key: str, share: float) -> bool:
    return fraction("held out", key.encode(errors="replace").decode()) < share


def _training_sources(data: DataConfig) -> list[str]:
    if data.source == "files":
        return [*map(str, data.files)]
    return [f"hub:{name}" if ":" in name else f"hub:{name}:train" for name in data.hub]


def _eval_sources(data: DataConfig) -> list[str]:
    named = [*map(str, data.eval_files), *(f"hub:{name}" for name in data.eval_hub)]
    return named or _training_sources(data)


def _read(
    sources: Sequence[str], where: Mapping[str, object], data: DataConfig
) -> dict[str, _Found]:
    """Return each question once, by its key, in the order of the sources."""
    found: dict[str, _Found] = {}
    for source in sources:
        wanted = {name: str(value) for name, value in where.items()}
        reader = Reader([source], data.fields, wanted, need_gold=data.need_gold)
        for question in reader.read():
            if len(sources) > 1:  # data sets number their questions alike
                question = replace(question, id=f"{source}/{question.id}")
            key = question_key(question.question)
            if key in found:
                first = found[key].question
                gold = tuple(dict.fromkeys((*first.gold, *question.gold)))
                found[key] = _Found(found[key].source, replace(first, gold=gold))
            else:
                found[key] = _Found(source, question)
    return found


def _refuse_overlap(train: Mapping[str, _Found], held_out: Mapping[str, _Found]) -> None:
    both = [key for key in held_out if key in train]
    if not both:
        return
    ours, theirs = train[both[0]], held_out[both[0]]
    raise ConfigError(
        f"data: {counted(len(both), 'question')} of {len(held_out)} held-out ones would be trained "
        f"on too, such as {theirs.question.question!r:.100} (id {ours.question.id!r} in "
        f"{ours.source}, {theirs.question.id!r} in {theirs.source}); take them out of one of the "
        "two, or name no data.eval_files, eval_hub or eval_where: then the share data.held_out is "
        "split off by a hash"
    )


def _limited(found: Iterable[_Found], most: int) -> list[EvaluationQuestion]:
    """Return all questions, or at most so many of each source: the same ones for every seed."""
    of: dict[str, list[EvaluationQuestion]] = {}
    for source, question in found:
        of.setdefault(source, []).append(question)
    if most:
        rng = random.Random("per source")
        of = {source: rng.sample(all_, min(most, len(all_))) for source, all_ in of.items()}
    return [question for questions in of.values() for question in questions]
