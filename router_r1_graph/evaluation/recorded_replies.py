"""Reads recorded replies with gold answers, from lines or from traces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..answers import gold_answers
from ..call_records import call_records
from ..candidates import CandidatePool
from ..controllers.learned.cells import number_of, only, read_lines, text_of
from ..controllers.learned.recorded import Recorded, RecordedReplies
from ..errors import MatrixError, did_you_mean
from ..trace import read_traces

RESULTS = "results.jsonl"
"""The traces in the folder of an evaluation."""


def load_recorded(
    path: str | Path,
    pool: CandidatePool | None = None,
    *,
    split: str | None = None,
    fields: Mapping[str, str] | None = None,
    candidates: Sequence[str] = (),
) -> RecordedReplies:
    """Read the replies of candidates to whole questions.

    A folder is that of an evaluation (`evaluate --out`). A line of a `.jsonl` of replies has
    `question`, `candidate` (or `model`), `reply` (or `response`), `gold` and perhaps `cost_usd`; a
    reply of null is a failed call. Of traces, the calls count that asked the question itself.

    Args:
        path: the file or folder.
        pool: the allowed candidates, with prices; None = those of the file.
        split: read only this split; None = all.
        fields: the file's own names for fields that it names differently.
        candidates: only these candidates, by their names in the data; none = all.

    Raises:
        MatrixError: the file cannot be used; the message names file and line.
        TraceError: a trace in it is broken.
    """
    path = results_in(path)
    if not path.is_file():
        raise MatrixError(f"{path}: no such file")
    if path.suffix != ".jsonl":
        raise MatrixError(f"{path}: recorded replies with gold answers are a .jsonl")
    first = next(read_lines(path), None)
    traced = first is not None and "scratchpad" in first[1]
    if traced and fields:
        raise MatrixError(f"{path}: holds traces, which have no fields to be named")
    found = _traced(path, split) if traced else read_replies(path, split, fields)
    return RecordedReplies.gather(only(found, candidates, str(path)), pool, source=str(path))


def results_in(path: str | Path) -> Path:
    """Return the file of traces in the folder of an evaluation; any other path is unchanged.

    Raises:
        MatrixError: the folder has no such file.
    """
    path = Path(path)
    if path.is_dir():
        path /= RESULTS
        if not path.is_file():
            raise MatrixError(f"{path}: no such file; `router-r1 evaluate --out` writes it")
    return path


def read_replies(
    path: Path, split: str | None = None, fields: Mapping[str, str] | None = None
) -> Iterator[Recorded]:
    """Yield the replies in lines that have gold answers; the other lines are left out.

    Args:
        path: a `.jsonl`.
        split: read only this split; None = all.
        fields: the file's own names for fields that it names differently.

    Raises:
        MatrixError: a line is broken, or none has gold answers.
    """
    fields = fields or {}
    gold_field = fields.get("gold", "gold")
    others = {ours: theirs for ours, theirs in fields.items() if ours != "gold"}
    found, without = False, ""
    for number, record in read_lines(path, others):
        if split is not None and record.get("split") != split:
            continue
        where = f"{path}, line {number}"
        if gold_field not in record:  # a reply to a part of a question
            without = without or f"{where}: there is no {gold_field!r}" + (
                did_you_mean(gold_field, record)
                or "; --gold-field names the gold answers, --fields score=NAME the scores"
            )
            continue
        gold = gold_answers(record[gold_field])
        if not gold:
            raise MatrixError(
                f"{where}: {gold_field!r} holds no answer: {record[gold_field]!r:.60}"
            )
        name = next((name for name in ("reply", "response") if name in record), "")
        reply = record[name] if name else record
        if reply is not None and not isinstance(reply, str):
            said = f"{name!r} is a text or null, not {reply!r:.60}"
            missing = "there is no 'reply' or 'response' (another name: --fields)"
            raise MatrixError(f"{where}: {said if name else missing}")
        found = True
        yield Recorded(
            text_of(record, "question", where=where),
            text_of(record, "candidate", "model", where=where),
            reply or "",
            gold,
            number_of(record, "cost_usd", where=where),
            f"line {number}",
        )
    if without and not found:
        raise MatrixError(without)


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
