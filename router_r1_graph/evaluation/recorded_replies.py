"""Reads recorded replies with gold answers, from lines or from traces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..answers import gold_answers
from ..call_records import call_records
from ..candidates import CandidatePool
from ..controllers.learned.cells import number_of, read_lines, text_of
from ..controllers.learned.recorded import Recorded, RecordedReplies
from ..errors import MatrixError
from ..trace import read_traces


def load_recorded(
    path: str | Path,
    pool: CandidatePool | None = None,
    *,
    split: str | None = None,
    fields: Mapping[str, str] | None = None,
) -> RecordedReplies:
    """Read what candidates replied to whole questions.

    A line of a `.jsonl` of replies has `question`, `candidate` (or `model`), `response`, `gold` and
    perhaps `cost_usd`; a `response` of null is a failed call. Of traces, the calls count that asked
    the question itself.

    Args:
        path: the file.
        pool: the allowed candidates, with prices; None = those of the file.
        split: read only this split; None = all.
        fields: what the file calls fields that it has under other names.

    Raises:
        MatrixError: the file cannot be used; the message names file and line.
        TraceError: a trace in it is broken.
    """
    path = Path(path)
    if not path.is_file():
        raise MatrixError(f"{path}: no such file")
    if path.suffix != ".jsonl":
        raise MatrixError(f"{path}: recorded replies with gold answers are a .jsonl")
    first = next(read_lines(path, fields), None)
    traced = first is not None and "scratchpad" in first[1]
    if traced and fields:
        raise MatrixError(f"{path}: holds traces, which have no fields to be named")
    found = _traced(path, split) if traced else _lines(path, split, fields)
    return RecordedReplies.gather(found, pool, source=str(path))


def _lines(path: Path, split: str | None, fields: Mapping[str, str] | None) -> Iterator[Recorded]:
    for number, record in read_lines(path, fields):
        if split is not None and record.get("split") != split:
            continue
        where = f"{path}, line {number}"
        gold = gold_answers(record.get("gold"))
        if not gold:
            raise MatrixError(f"{where}: there is no gold answer ('gold'; another name: --fields)")
        reply = record.get("response", record)
        if reply is not None and not isinstance(reply, str):
            said = "missing" if reply is record else f"{reply!r:.60}"
            raise MatrixError(
                f"{where}: 'response' is a text or null, not {said} (another name: --fields)"
            )
        yield Recorded(
            text_of(record, "question", where=where),
            text_of(record, "candidate", "model", where=where),
            reply or "",
            gold,
            number_of(record, "cost_usd", where=where),
            f"line {number}",
        )


def _traced(path: Path, split: str | None) -> Iterator[Recorded]:
    for number, trace in enumerate(read_traces(path), 1):
        if split is not None and trace.metadata.get("split") != split:
            continue
        if not trace.gold:
            raise MatrixError(f"{path}, trace {number}: there is no gold answer")
        for call in call_records(trace.scratchpad, summaries=False):
            if call.query == trace.question:
                yield Recorded(
                    trace.question,
                    call.candidate,
                    call.reply if call.ok else "",
                    tuple(trace.gold),
                    call.cost_usd + call.saved_usd,
                    f"trace {number}",
                )
