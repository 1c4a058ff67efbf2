"""Makes a score matrix of an evaluation's results, or of recorded replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..answers import bare_answer
from ..candidates import CandidatePool
from ..controllers.learned.cells import Cell, only, read_lines
from ..controllers.learned.matrix import ScoreMatrix, read_matrix
from ..errors import MatrixError
from ..ledger import price_usd
from ..trace import Trace, read_traces
from .recorded_replies import read_replies, results_in
from .scorers import Scorer, parse_scorer


def load_scores(
    path: str | Path,
    pool: CandidatePool | None = None,
    *,
    split: str | None = None,
    metric: str = "exact_match",
    fields: Mapping[str, str] | None = None,
    best_score: float = 1.0,
    candidates: Sequence[str] = (),
) -> ScoreMatrix:
    """Read scores from a score matrix, from an evaluation's traces, or from recorded replies.

    A folder is that of an evaluation (`evaluate --out`). A `.jsonl` of traces has a `scratchpad` in
    each line; one of replies has `gold` and `reply` (or `response`) and no `score`; any other is a
    score matrix.

    Args:
        path: the file or folder.
        pool: the allowed candidates, with prices; None = those of the file.
        split: read only this split (a trace's split is in its metadata); None = all.
        metric: scores a trace or a reply, see `parse_scorer`. A score in the file is used as it
            is; then only exact match is allowed.
        fields: the file's own names for fields that it names differently, such as
            `{"question": "query", "candidate": "model_name", "score": "performance"}`.
        best_score: of a score matrix, see `read_matrix`; refused for any other.
        candidates: only these candidates, by their names in the data; none = all.

    Raises:
        ConfigError: there is no such metric.
        MatrixError: the file cannot be used, or every score in it is 0; the message names file and
            line.
        TraceError: a trace in it is broken.
    """
    path, scorer = results_in(path), parse_scorer(metric)
    scored = f" by {metric}"
    first = next(read_lines(path), None) if path.suffix == ".jsonl" and path.is_file() else None
    row = {} if first is None else {**first[1], **dict.fromkeys(fields or {})}
    if "scratchpad" in row:
        if fields:
            raise MatrixError(f"{path}: holds traces, which have no fields to be named")
        _require_scale(path, "traces", best_score)
        traces = (t for t in read_traces(path) if split in (None, t.metadata.get("split")))
        matrix = matrix_of_traces(
            traces, pool, metric=metric, source=str(path), candidates=candidates
        )
    elif "score" not in row and ("reply" in row or "response" in row):
        _require_scale(path, "replies", best_score)
        cells = only(_reply_cells(path, split, scorer, fields or {}), candidates, str(path))
        matrix = ScoreMatrix.from_cells(cells, pool, source=str(path))
    else:
        if metric != "exact_match" or "gold" in (fields or {}):
            raise MatrixError(
                f"{path}: a score matrix, whose scores are taken as they are; a metric and gold "
                "answers (--metric, --gold-field) are for traces and replies"
            )
        matrix = read_matrix(
            path,
            pool,
            split=split,
            fields=fields,
            best_score=best_score,
            candidates=candidates,
        )
        scored = ""
    require_scores(matrix, f"{path}: every score{scored} is 0", scored=bool(scored))
    return matrix


def _require_scale(path: Path, what: str, best_score: float) -> None:
    if best_score != 1:
        raise MatrixError(
            f"{path}: holds {what}, which are scored from 0 to 1; best_score (--best-score) is for "
            "a score matrix"
        )


def require_scores(matrix: ScoreMatrix, what: str, *, scored: bool = True) -> None:
    """Check that a score is above 0, so that there is something to learn.

    Args:
        matrix: the scores.
        what: the words for the error: their source, and that all are 0.
        scored: whether a metric made them of replies.

    Raises:
        MatrixError: every score is 0.
    """
    if not np.nanmax(matrix.scores) > 0:
        other = "If the replies are sentences, compare them by --metric contains or f1"
        raise MatrixError(f"{what}: there is nothing to learn" + (f". {other}" if scored else ""))


def matrix_of_traces(
    traces: Iterable[Trace],
    pool: CandidatePool | None = None,
    *,
    metric: str = "exact_match",
    source: str = "traces",
    candidates: Sequence[str] = (),
) -> ScoreMatrix:
    """Build a score matrix from the runs of constant controllers on questions with gold answers.

    A cost is that of the run's candidates, retries and stored replies included. A run whose
    candidate failed has the score of its answer: 0. Runs of other controllers are left out.

    Args:
        traces: the runs; all of them in one pool where `pool` is None.
        pool: the allowed candidates; None = the first trace's.
        metric: scores an answer, see `parse_scorer`.
        source: their source, for messages.
        candidates: only these candidates; none = all.

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
            if asked := [decision.asked for decision in trace.decisions]:
                name = asked[0]  # with `explore` it may be another one's run
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
    return ScoreMatrix.from_cells(only(found, candidates, source), known, source=source)


def _reply_cells(
    path: Path, split: str | None, scorer: Scorer, fields: Mapping[str, str]
) -> Iterator[Cell]:
    """Yield the cells of recorded replies; a reply is scored like the answer of a constant."""
    for one in read_replies(path, split, fields):
        score = scorer(bare_answer(one.reply), one.gold)
        yield Cell(one.question, one.candidate, score, one.cost_usd, one.where)
