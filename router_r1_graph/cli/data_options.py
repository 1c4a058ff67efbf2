"""The options of commands that read data, and their notes on the data."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..candidates import CandidatePool
from ..console import print_note
from ..errors import ConfigError
from ..outside import visible
from ..words import counted

if TYPE_CHECKING:
    from ..evaluation.questions import Reader

FieldOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Your file's name of a field: question=NAME, gold=NAME, id=NAME. Repeatable."
    ),
]
WhereOption = Annotated[
    list[str] | None, typer.Option(help="Take only rows with this value: FIELD=VALUE.")
]
FieldsOption = Annotated[
    str,
    typer.Option(
        "--fields", help="What your file calls our fields: question=query,score=performance,..."
    ),
]
CandidatesOption = Annotated[
    str,
    typer.Option(
        help="Only these candidates of the data, with commas between them. In a .csv with a column "
        "for each candidate: which columns are the candidates'.",
        show_default="all",
    ),
]


def read_fields(fields: str, example: str) -> dict[str, str]:
    """Return --fields: names of ours -> those of the file.

    Raises:
        ConfigError: it is not written as the example is.
    """
    names: dict[str, str] = {}
    for pair in filter(None, fields.split(",")):
        name, equals, theirs = (part.strip() for part in pair.partition("="))
        if not (name and equals and theirs):
            raise ConfigError(f"--fields: write {example}, not {pair!r}")
        names[name] = theirs
    return names


def read_pairs(option: str, items: list[str] | None) -> dict[str, str]:
    """Return a repeated option of NAME=VALUE as names -> values.

    Raises:
        ConfigError: it is not written so.
    """
    pairs = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} {item!r}: write NAME=VALUE")
        pairs[name] = value
    return pairs


def read_names(names: str) -> list[str]:
    """Return the names in an option, separated by commas, each once."""
    return list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


def note_columns(
    data: Path, pool: CandidatePool | None, fields: Mapping[str, str], candidates: Sequence[str]
) -> None:
    """Print on standard error which columns of a .csv were read as candidates; needs numpy."""
    from ..controllers.learned.columns import csv_columns

    if data.suffix == ".csv" and not candidates and (columns := csv_columns(data, pool, fields)):
        print_note(f"note: {columns}")


def note_left_out(reader: Reader) -> None:
    """Print on standard error which rows were no questions, and how many repeat one."""
    for reason in reader.skipped[:5]:
        print(f"left out: {visible(reason)}", file=sys.stderr)
    if reader.skipped:
        print(f"{counted(len(reader.skipped), 'row')} left out", file=sys.stderr)
    if reader.repeated:
        rows = f"{counted(reader.repeated, 'row')} repeat{'s' * (reader.repeated == 1)}"
        print(f"{rows} a question: it was asked once", file=sys.stderr)
