"""Makes a score matrix of an evaluation's results, or of recorded replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ..answers import bare_answer, gold_answers
from ..candidates import CandidatePool
from ..controllers.learned.cells import Cell, number_of, read_lines, text_of
from ..controllers.learned.matrix import ScoreMatrix, read_matrix
from ..errors import MatrixError, did_you_mean
from ..ledger import price_usd
from ..trace import Trace, read_traces
from .scorers import Scorer, parse_scorer

RESULTS = "results.jsonl"
"""The traces in the folder of an evaluation."""


def load_scores(
    path: str | Path,
    pool: CandidatePool | None = None,
    *,
    split: str | None = None,
    metric: str = "exact_match",
    fields: Mapping[str, str] | None = None,
    best_score: float = 1.0,
) -> ScoreMatrix:
    """Read scores from a score matrix, from an evaluation's traces, or from recorded replies.

    A folder is that of an evaluation (`evaluate --out`). A `.jsonl` of traces has a `scratchpad` in
    each line; one of replies has `gold` and `reply` (or `response`) and no `score`; any other is a
    score matrix.

    Args:
        path: the file or folder.
        pool: the allowed candidates, with prices; None = those of the file.
        split: read only this split (a trace's split is in its metadata); None = all.
        metric: scores a trace or a reply, see `parse_scorer`; a score that the file holds is taken
            as it is, and another metric than exact match refused.
        fields: what the file calls fields that it has under other names, such as
            `{"question": "query", "candidate": "model_name", "score": "performance"}`.
        best_score: of a score matrix, see `read_matrix`; refused for any other.

    Raises:
        ConfigError: there is no such metric.
        MatrixError: the file cannot be used, or every score in it is 0; the message names file and
            line.
        TraceError: a trace in it is broken.
    """
    path, scorer = Path(path), parse_scorer(metric)
    if path.is_dir():
        path /= RESULTS
        if not path.is_file():
            raise MatrixError(f"{path}: no such file; `router-r1 evaluate --out` writes it")
    scored = f" by {metric}"
    first = next(read_lines(path), None) if path.suffix == ".jsonl" and path.is_file() else None
    row = {} if first is None else {**first[1], **dict.fromkeys(fields or {})}
    if "scratchpad" in row:
        if fields:
            raise MatrixError(f"{path}: holds traces, which have no fields to be named")
        _require_scale(path, "traces", best_score)
        traces = (t for t in read_traces(path) if split in (None, t.metadata.get("split")))
        matrix = matrix_of_traces(traces, pool, metric=metric, source=str(path))
    elif "score" not in row and ("reply" in row or "response" in row):
        _require_scale(path, "replies", best_score)
        cells = _reply_cells(path, split, scorer, fields or {})
        matrix = ScoreMatrix.from_cells(cells, pool, source=str(path))
    else:
        if metric != "exact_match" or "gold" in (fields or {}):
            raise MatrixError(
                f"{path}: a score matrix, whose scores are taken as they are; a metric and gold "
                "answers (--metric, --gold-field) are for traces and replies"
            )
        matrix = read_matrix(path, pool, split=split, fields=fields, best_score=best_score)
        scored = ""
    require_scores(matrix, f"{path}: every score{scored} is 0")
    return matrix


def _require_scale(path: Path, what: str, best_score: float) -> None:
    if best_score != 1:
        raise MatrixError(
            f"{path}: holds {what}, which are scored from 0 to 1; best_score (--best-score) is for "
            "a score matrix"
        )


def require_scores(matrix: ScoreMatrix, what: str) -> None:
    """Check that somebody is right somewhere, so that there is something to learn.

    Args:
        matrix: the scores.
        what: where they come from, and that all are 0.

    Raises:
        MatrixError: every score is 0.
    """
    if not np.nanmax(matrix.scores) > 0:
        raise MatrixError(
            f"{what}: there is nothing to learn. If the replies are sentences, compare them by "
            "--metric contains or f1"
        )


def matrix_of_traces(
    traces: Iterable[Trace],
    pool: CandidatePool | None = None,
    *,
    metric: str = "exact_match",
    source: str = "traces",
) -> ScoreMatrix:
    """Build a score matrix from the runs of constant controllers on questions with gold answers.

    A cost is what the run's candidates come to, retries and stored replies included. A run whose
    candidate failed has the score that its answer has: 0. Runs of other controllers are left out.

    Args:
        traces: the runs; all of them in one pool where `pool` is None.
        pool: the allowed candidates; None = the first trace's.
        metric: scores an answer, see `parse_scorer`.
        source: where they come from, for messages.

    Raises:
        MatrixError: a trace has no gold answer, or none is of a constant controller.
    """
    known, scorer = pool, parse_scorer(metric)
    others: dict[str, None] = {}

    def cells() -> Iterator[Cell]:
        nonlocal known
        for number, trace in enumerate(traces, 1):
            kind, _, name = trace.controller.partition(":")
            where = f"trace {number}"
            if kind != "constant":
                others[trace.controller] = None
                continue
            if not trace.gold:
                raise MatrixError(f"{source}, {where}: there is no gold answer")
            known = known or trace.pool
            candidate = known.find(name)
            score = scorer(trace.answer, trace.gold)
            cost = sum(map(price_usd, trace.ledger["candidates"].values()))
            yield Cell(trace.question, candidate.name if candidate else name, score, cost, where)

    found = list(cells())  # the pool is known only when the first has been read
    if others and not found:
        raise MatrixError(
            f"{source}: its runs are of {', '.join(others)}; a score matrix is made of runs of "
            "constant:NAME, which `router-r1 evaluate` makes unless --no-controls"
        )
    return ScoreMatrix.from_cells(found, known, source=source)


def _reply_cells(
    path: Path, split: str | None, scorer: Scorer, fields: Mapping[str, str]
) -> Iterator[Cell]:
    """Yield the cells of recorded replies; a reply is scored as the answer of a constant is.

    Raises:
        MatrixError: a line is broken, or none has gold answers.
    """
    gold_field = fields.get("gold", "gold")
    others = {ours: theirs for ours, theirs in fields.items() if ours != "gold"}
    scored, without = False, ""
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
        reply = next((record[name] for name in ("reply", "response") if name in record), None)
        if not isinstance(reply, str):
            raise MatrixError(f"{where}: the reply is a text, not {reply!r:.60}")
        scored = True
        yield Cell(
            text_of(record, "question", where=where),
            text_of(record, "candidate", "model", where=where),
            scorer(bare_answer(reply), gold),
            number_of(record, "cost_usd", where=where),
            f"line {number}",
        )
    if without and not scored:
        raise MatrixError(without)
