"""The questions of an evaluation, with gold answers: from files, data sets or the demo.

Files are read line by line, so that memory depends only on the questions that are taken.
"""

from __future__ import annotations

import csv
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..answers import GOLD_FIELDS, gold_answers
from ..errors import ConfigError, MissingExtraError, did_you_mean
from ..files import csv_reader, read_jsonl
from ..outside import writable

#: The paper's seven sets by name; each is a config of RUC-NLPIR/FlashRAG_datasets.
PAPER_SETS = {
    "nq": "test",
    "triviaqa": "test",
    "popqa": "test",
    "hotpotqa": "dev",
    "2wikimultihopqa": "dev",
    "musique": "dev",
    "bamboogle": "test",
}
FLASHRAG = "RUC-NLPIR/FlashRAG_datasets"
PAPER_COUNT = 500
"""The number of test questions from each of the paper's sets, and from the demo."""

_QUESTION_FIELDS = ("question", "query", "prompt", "problem")
_ID_FIELDS = ("id", "qid", "question_id", "_id")
#: Fields that an evaluation is sliced by.
_SLICE_FIELDS = ("dataset", "domain", "task", "hops", "kind", "type", "category", "split")


@dataclass(frozen=True, slots=True)
class EvaluationQuestion:
    """One question with its gold answers.

    Attributes:
        id: unique in an evaluation.
        question: the question.
        gold: the gold answers.
        slices: the groups that it belongs to: dataset, hops, kind, ...
    """

    id: str
    question: str
    gold: tuple[str, ...]
    slices: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Reader:
    """Reads sources one after the other; the same seed takes the same questions.

    Attributes:
        sources: JSONL or CSV files, `hub:NAME/CONFIG:SPLIT`, a name of `PAPER_SETS`, or `demo`
            (`demo:test`: in free wording; `demo:test:every`: all kinds of questions as well).
        fields: the files' names for `question`, `gold` and `id`, where they are unusual.
        where: keep rows whose fields have these values, such as {"split": "test"}.
        limit: how many questions to draw from each source; None = all (500 from the paper's sets).
        seed: the seed of the draw.
        need_gold: whether a row without a gold answer is broken.
        skip_bad: whether a broken row is counted in `skipped` instead of ending the evaluation.
        skipped: why rows were left out, by source and line.
        repeated: rows that repeat a question with the same id (or without one) and gold answers,
            for example in a file with a row for each candidate. Such a question is asked once.
    """

    sources: Sequence[str]
    fields: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    seed: int = 0
    need_gold: bool = True
    skip_bad: bool = False
    skipped: list[str] = field(default_factory=list)
    repeated: int = 0

    def read(self) -> list[EvaluationQuestion]:
        """Return the questions.

        Raises:
            ConfigError: a source is missing, empty or broken, a row has no gold answer, or two
                questions have the same id; the message names source and line.
        """
        if not self.sources:
            raise ConfigError("no data: name a file, a data set, or demo")
        unknown = set(self.fields) - {"question", "gold", "id"}
        if unknown:
            raise ConfigError(f"fields: {min(unknown)}: only question, gold and id can be named")
        found: list[EvaluationQuestion] = []
        self.repeated = 0
        for source in self.sources:
            one = _drawn(self._once(self._questions(source)), self._limit(source), self.seed)
            if not one:
                rows = " and ".join(f"{name} {value}" for name, value in self.where.items())
                raise ConfigError(f"{source}: no question in it{f' with {rows}' if rows else ''}")
            if len(self.sources) > 1:  # data sets number their questions alike
                one = [replace(q, id=f"{source}/{q.id}") for q in one]
            found += one
        return found

    def _once(
        self, questions: Iterator[tuple[str, EvaluationQuestion]]
    ) -> Iterator[EvaluationQuestion]:
        """Yield each question once; only hashes of the ids and of their questions are held.

        A row without an id is known by its question and gold answers, and its id is its place.
        """
        seen: dict[int, int] = {}
        for where, question in questions:
            content = hash((question.question, question.gold))
            name = hash(question.id) if question.id else content
            if name not in seen:
                seen[name] = content
                yield question if question.id else replace(question, id=writable(where))
            elif seen[name] == content:
                self.repeated += 1
            else:
                raise ConfigError(
                    f"two questions have the id {question.id!r}; one of them is "
                    f"{question.question!r:.80}"
                )

    def _limit(self, source: str) -> int | None:
        if self.limit is None and source in PAPER_SETS:
            return PAPER_COUNT
        return self.limit

    def _questions(self, source: str) -> Iterator[tuple[str, EvaluationQuestion]]:
        """Yield questions with their places; the id of a row without one is ""."""
        name, _, choice = source.partition(":")
        if name == "demo":
            count = self.limit or PAPER_COUNT
            from ..controllers.embedded import demo_questions  # imports the simulation

            for q in demo_questions(count, self.seed, choice or "known"):
                slices = {"dataset": source, "hops": str(q.hops), "kind": q.kind}
                yield q.id, EvaluationQuestion(q.id, q.text, q.gold, slices)
            return
        if source in PAPER_SETS:
            source = f"hub:{FLASHRAG}/{source}:{PAPER_SETS[source]}"
        rows = _read_hub(source) if source.startswith("hub:") else _read_file(Path(source))
        wanted = [(name, str(value)) for name, value in self.where.items()]
        for where, row in rows:
            try:
                if isinstance(row, Exception):
                    raise ConfigError(f"{where}: {row}")
                if any(str(row.get(name)) != value for name, value in wanted):
                    continue
                yield where, self._question(where, row)
            except ConfigError as error:
                if not self.skip_bad:
                    raise
                self.skipped.append(str(error))

    def _question(self, where: str, row: Mapping[str, Any]) -> EvaluationQuestion:
        text = _first(row, self.fields.get("question"), _QUESTION_FIELDS)
        gold = _first(row, self.fields.get("gold"), GOLD_FIELDS)
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{where}: no question; looked for in {_names(_QUESTION_FIELDS)}")
        answers = tuple(gold_answers(gold, _part_answers(row)))
        if not answers and self.need_gold:
            raise ConfigError(
                f"{where}: no gold answer for {text!r:.60}; it is looked for in "
                f"{_names(GOLD_FIELDS)}"
            )
        name = _first(row, self.fields.get("id"), _ID_FIELDS)
        slices = {key: str(row[key]) for key in _SLICE_FIELDS if _is_plain(row.get(key))}
        slices.setdefault("dataset", where.rpartition(":")[0])
        return EvaluationQuestion("" if name is None else str(name), text, answers, slices)


def _names(fields: Iterable[str]) -> str:
    return ", ".join(fields) + " (or name it: --field, in training data.fields)"


def _first(row: Mapping[str, Any], named: str | None, usual: Iterable[str]) -> Any:
    for name in [named] if named else usual:
        if row.get(name) is not None:
            return row[name]
    return None


def _part_answers(row: Mapping[str, Any]) -> list[Any]:
    parts = row.get("decomposition")
    found = parts if isinstance(parts, list) else []
    return [part.get("answer") for part in found if isinstance(part, Mapping)]


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, bool)) and len(str(value)) <= 60


def _drawn(
    questions: Iterator[EvaluationQuestion], limit: int | None, seed: int
) -> list[EvaluationQuestion]:
    """Return all questions, or `limit` of them drawn evenly while they stream by."""
    if limit is None:
        return list(questions)
    kept = list(itertools.islice(questions, limit))
    rng = random.Random(seed)
    for number, question in enumerate(questions, len(kept)):
        place = rng.randint(0, number)
        if place < limit:
            kept[place] = question
    return kept


def _read_file(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | Exception]]:
    """Yield rows with their places; an exception for a line that cannot be read."""
    if not path.is_file():
        known = ["demo", *PAPER_SETS]
        near = did_you_mean(str(path).partition(":")[0], known)
        raise ConfigError(
            f"{path}: no such file{near}; or name a data set: {', '.join(known)}, "
            "hub:NAME/CONFIG:SPLIT"
        )
    if path.suffix.lower() == ".csv":
        with csv_reader(path) as reader:
            try:
                for row in reader:
                    yield f"{path}:{reader.line_num}", row
            except (csv.Error, UnicodeDecodeError) as error:
                yield f"{path}:{reader.line_num + 1}", error
        return
    for number, line in read_jsonl(path):
        yield f"{path}:{number}", line


def _read_hub(source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError(source, "train", error) from error
    path, _, split = source.removeprefix("hub:").partition(":")
    repo, _, config = path.rpartition("/")
    if repo.count("/") != 1:
        raise ConfigError(f"{source!r}: a data set of the hub is hub:OWNER/NAME/CONFIG:SPLIT")
    try:
        rows = load_dataset(repo, config, split=split or "test", streaming=True)
    except Exception as error:
        raise ConfigError(f"{source}: {type(error).__name__}: {error}") from error
    for number, row in enumerate(rows):
        yield f"{config}:{number}", row
