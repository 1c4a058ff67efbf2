"""Makes a score matrix of traces of constant controllers, or of recorded replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from ..answers import exact_match, f1_score
from ..candidates import CandidatePool
from ..controllers.learned.cells import Cell, number_of, read_lines, text_of
from ..controllers.learned.matrix import ScoreMatrix, read_matrix
from ..errors import MatrixError
from ..trace import Trace, read_traces

Metric = Literal["exact_match", "f1"]
_METRICS = {"exact_match": exact_match, "f1": f1_score}


def load_scores(
    path: str | Path,
    pool: CandidatePool | None = None,
    *,
    split: str | None = None,
    metric: Metric = "exact_match",
    fields: Mapping[str, str] | None = None,
) -> ScoreMatrix:
    """Read scores from a score matrix, from traces, or from recorded replies.

    A `.jsonl` of traces has a `scratchpad` in each line; one of replies has `gold` and `response`
    and no `score`; any other is a score matrix.

    Args:
        path: the file.
        pool: the allowed candidates, with prices; None = those of the file.
        split: read only this split (a trace's split is in its metadata); None = all.
        metric: scores a trace or a reply; a score that the file holds is taken as it is.
        fields: what the file calls fields that it has under other names, such as
            `{"question": "query", "candidate": "model_name", "score": "performance"}`.

    Raises:
        MatrixError: the file cannot be used; the message names file and line.
        TraceError: a trace in it is broken.
    """
    path = Path(path)
    is_lines = path.suffix == ".jsonl" and path.is_file()
    first = next(read_lines(path, fields), None) if is_lines else None
    if first and "scratchpad" in first[1]:
        traces = (t for t in read_traces(path) if split in (None, t.metadata.get("split")))
        return matrix_of_traces(traces, pool, metric=metric, source=str(path))
    if first and "score" not in first[1] and "gold" in first[1]:
        cells = _reply_cells(path, split, metric, fields)
        return ScoreMatrix.from_cells(cells, pool, source=str(path))
    return read_matrix(path, pool, split=split, fields=fields)


def matrix_of_traces(
    traces: Iterable[Trace],
    pool: CandidatePool | None = None,
    *,
    metric: Metric = "exact_match",
    source: str = "traces",
) -> ScoreMatrix:
    """Build a score matrix from the runs of constant controllers on questions with gold answers.

    A cost is the run's whole bill of candidates, retries included. A run whose candidate failed has
    the score that its answer has: 0.

    Args:
        traces: the runs; all of them in one pool where `pool` is None.
        pool: the allowed candidates; None = the first trace's.
        metric: scores an answer.
        source: where they come from, for messages.

    Raises:
        MatrixError: a trace is of another controller or has no gold answer, or there is none.
    """
    known = pool

    def cells() -> Iterator[Cell]:
        nonlocal known
        for number, trace in enumerate(traces, 1):
            kind, _, name = trace.controller.partition(":")
            where = f"trace {number}"
            if kind != "constant":
                raise MatrixError(
                    f"{source}, {where}: the controller is {trace.controller!r}; a score matrix is "
                    "made of runs of constant:NAME"
                )
            if not trace.gold:
                raise MatrixError(f"{source}, {where}: there is no gold answer")
            known = known or trace.pool
            candidate = known.find(name)
            score = _METRICS[metric](trace.answer, trace.gold)
            cost = sum(line["cost_usd"] for line in trace.ledger["candidates"].values())
            yield Cell(trace.question, candidate.name if candidate else name, score, cost, where)

    found = list(cells())  # the pool is known only when the first has been read
    return ScoreMatrix.from_cells(found, known, source=source)


def _reply_cells(
    path: Path, split: str | None, metric: Metric, fields: Mapping[str, str] | None
) -> Iterator[Cell]:
    for number, record in read_lines(path, fields):
        if split is not None and record.get("split") != split:
            continue
        where = f"{path}, line {number}"
        gold = record.get("gold")
        gold = [gold] if isinstance(gold, str) else gold
        if not isinstance(gold, list) or not gold or not all(isinstance(g, str) for g in gold):
            raise MatrixError(f"{where}: 'gold' is a list of texts, not {gold!r:.60}")
        reply = record.get("response")
        if not isinstance(reply, str):
            raise MatrixError(f"{where}: 'response' is a text, not {reply!r:.60}")
        yield Cell(
            text_of(record, "question", where=where),
            text_of(record, "candidate", "model", where=where),
            _METRICS[metric](reply, gold),
            number_of(record, "cost_usd", where=where),
            f"line {number}",
        )
