"""A pool measured from records: the candidates' prices, latency and scores.

Only the questions of one split are used, so that the descriptors never leak a test question. The
result is a pool file that replays the records.

Records are read one at a time and only added up, so that a file of any size needs little memory.
Only the seconds of each reply are kept, for their median, and a hash of each question, as a count.
"""

from __future__ import annotations

import os
import re
import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ..answers import bare_answer, contains, exact_match
from ..errors import ConfigError, PoolError, did_you_mean
from ..invalid import explain
from ..protocol import untagged
from ..words import counted
from .pool import CandidatePool
from .records import Record, read_records


@dataclass(frozen=True)
class Source:
    """A records file, and the names of its fields.

    Attributes:
        records: the JSONL file.
        fields: field of `Record` -> its name in the file, where the two differ.
        gold_field: the field with the gold answers, a text or a list; None = there are none.
        split_field: the field with the name of the question's split.
        split: the split to measure; None = all records.
    """

    records: Path
    fields: Mapping[str, str] = field(default_factory=dict)
    gold_field: str | None = None
    split_field: str = "split"
    split: str | None = None


@dataclass
class _Bills:
    """Sums over the replies whose cost and output tokens are known; prices are fitted to them."""

    count: int = 0
    uncounted: int = 0
    """Replies whose input tokens are not known."""
    ii: float = 0.0
    io: float = 0.0
    oo: float = 0.0
    ic: float = 0.0
    oc: float = 0.0
    """Sums of products: i = input tokens, o = output tokens, c = cost in millionths of a USD."""
    inputs: int = 0
    outputs: int = 0
    paid: float = 0.0

    def add(self, record: Record) -> None:
        if record.cost_usd is None or record.output_tokens is None:
            return
        i, o, cost = record.input_tokens or 0, record.output_tokens, record.cost_usd * 1e6
        self.count += 1
        self.uncounted += record.input_tokens is None
        self.ii, self.io, self.oo = self.ii + i * i, self.io + i * o, self.oo + o * o
        self.ic, self.oc = self.ic + i * cost, self.oc + o * cost
        self.inputs, self.outputs, self.paid = self.inputs + i, self.outputs + o, self.paid + cost

    def prices(self) -> tuple[float | None, float | None]:
        """See `fit_prices`."""
        if not self.count or not (self.ii or self.oo):
            return None, None
        if self.uncounted or not self.ii:
            return None, self.paid / self.outputs if self.outputs else None
        determinant = self.ii * self.oo - self.io * self.io
        if determinant <= 1e-9 * self.ii * self.oo:
            price = self.paid / (self.inputs + self.outputs)
            return price, price
        input_price = (self.ic * self.oo - self.oc * self.io) / determinant
        output_price = (self.oc * self.ii - self.ic * self.io) / determinant
        if input_price < 0:
            return 0.0, self.oc / self.oo
        if output_price < 0:
            return self.ic / self.ii, 0.0
        return input_price, output_price


@dataclass
class _Measured:
    """The measurements of one candidate."""

    name: str
    longest: int = 0
    replies: int = 0
    bills: _Bills = field(default_factory=_Bills)
    seconds: array[float] = field(default_factory=lambda: array("d"))
    scored: int = 0
    exact_match: float = 0.0
    contains: float = 0.0
    """The last two are sums over the `scored` replies."""


def pool_from_records(source: Source, out: Path) -> CandidatePool:
    """Write a pool file of recorded candidates with their measurements; return the pool.

    Prices are fitted to tokens and cost, the latency is the median, and the benchmarks are
    `exact_match` of the answer in the reply and `contains` of the reply. Values that were not
    recorded are left out. An existing file is replaced.

    Args:
        source: the records, and the split of them that is measured; it names the gold answers.
        out: the pool file to write. The pool is named after it.

    Raises:
        PoolError: the records cannot be read, or make no pool.
        ConfigError: the split or the gold answers are missing, or `out` cannot be written.
    """
    measured, count = _read(source)
    records = os.path.relpath(source.records.resolve(), out.resolve().parent)
    options = {"records": records, **({"fields": dict(source.fields)} if source.fields else {})}
    data = {"name": out.stem, "candidates": [_describe(m, options) for m in measured]}
    try:
        CandidatePool.model_validate(data)
    except ValidationError as error:
        why = explain(error)
        raise PoolError(f"{source.records}: these records make no pool: {why}") from None
    part = f"split {source.split!r} of {source.split_field!r}" if source.split else "all splits"
    text = (
        f"# Measured by router-r1 pool from-records on {counted(count, 'question')} ({part}).\n"
        f"# What the descriptors say comes from these only; the records of all questions replay.\n"
        f"{yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)}"
    )
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from error
    return CandidatePool.from_yaml(out)


def _read(source: Source) -> tuple[list[_Measured], int]:
    """Return the measurements, and the number of questions."""
    found: dict[str, _Measured] = {}
    questions: set[int] = set()
    splits: Counter[str] = Counter()
    missing: tuple[int, str] | None = None
    for number, (record, row) in enumerate(read_records(source.records, source.fields), 1):
        one = found.setdefault(record.candidate.casefold(), _Measured(record.candidate))
        one.longest = max(one.longest, record.output_tokens or 0)
        if source.split is not None:
            splits[str(row.get(source.split_field))] += 1
            if str(row.get(source.split_field)) != source.split:
                continue
        questions.add(hash(record.question))
        one.replies += 1
        one.bills.add(record)
        if record.seconds is not None:
            one.seconds.append(record.seconds)
        if source.gold_field is not None:
            gold = _gold(row, source.gold_field, f"{source.records}, record {number}")
            if gold is None:  # a reply to a part of a question
                missing = missing or (number, did_you_mean(source.gold_field, row))
                continue
            one.scored += 1
            one.exact_match += exact_match(bare_answer(record.reply), gold)
            one.contains += contains(untagged(record.reply), gold)
    if not any(one.replies for one in found.values()):
        raise ConfigError(f"{source.records}: {_nothing(source, splits)}")
    if missing and not any(one.scored for one in found.values()):
        raise ConfigError(
            f"{source.records}, record {missing[0]}: {source.gold_field!r} is not there{missing[1]}"
        )
    return list(found.values()), len(questions)


def _nothing(source: Source, splits: Mapping[str, int]) -> str:
    """Say why no record was measured."""
    if source.split is None or not splits:
        return "there are no records"
    if set(splits) == {"None"}:
        return f"no record has the split field {source.split_field!r}"
    near = did_you_mean(source.split, splits)
    there = ", ".join(f"{name} ({count})" for name, count in sorted(splits.items()))
    return f"no record of the split {source.split!r}{near}; there are {there}"


def _gold(row: Mapping[str, Any], name: str, where: str) -> list[str] | None:
    """Return the gold answers of a record; None where it has no such field."""
    if name not in row:
        return None
    gold = row[name]
    answers = [gold] if isinstance(gold, str) else gold
    if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
        near = did_you_mean(name, row)
        raise ConfigError(f"{where}: {name!r} is no text and no list of texts: {gold!r:.80}{near}")
    return answers


def _describe(one: _Measured, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return one candidate's record of the pool file."""
    # The controller writes the name before a colon, so the name must not contain one. As the
    # model's name, it stays as in the records.
    name = re.sub(r"[:<>\n\r]+", "-", one.name).strip()
    data: dict[str, Any] = {"name": name}
    if name != one.name:
        data["model"] = one.name
    data |= {"provider": "recorded", "options": deepcopy(options)}  # else YAML writes anchors
    input_price, output_price = one.bills.prices()
    if input_price is not None:
        data["input_usd_per_mtok"] = significant(input_price)
    if output_price is not None:
        data["output_usd_per_mtok"] = significant(output_price)
    if one.longest > 0:
        data["max_tokens"] = one.longest  # gives a call a worst-case price
    if one.seconds:
        data["latency_seconds"] = significant(statistics.median(one.seconds))
    if one.scored:
        data["benchmarks"] = {
            "exact_match": round(one.exact_match / one.scored, 3),
            "contains": round(one.contains / one.scored, 3),
        }
    return data


def significant(number: float, digits: int = 4) -> float:
    """Return a number rounded to so many significant digits."""
    return float(f"{number:.{digits}g}")


def fit_prices(records: Iterable[Record]) -> tuple[float | None, float | None]:
    """Return the prices, USD per million input and output tokens, that fit the costs best.

    Least squares, and no price below 0. If input tokens were not recorded, the output price covers
    the whole cost. If the records cannot tell the two prices apart (a single record cannot), both
    are the same. None if nothing is known.

    Example:
        >>> sizes = [(10, 1), (20, 5), (30, 2)]
        >>> fit_prices([
        ...     Record(question="?", candidate="Ada", reply="", input_tokens=i, output_tokens=o,
        ...            cost_usd=(2 * i + 8 * o) / 1e6) for i, o in sizes])
        (2.0, 8.0)
    """
    bills = _Bills()
    for record in records:
        bills.add(record)
    return bills.prices()
