"""`router-r1 fit`: a controller learned from a score matrix, or from recorded replies."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from ..console import make_console, print_note
from ..errors import ConfigError, MissingExtraError, did_you_mean
from ..files import require_folder
from ..invalid import masked
from ..words import counted
from .compared import print_compared
from .data_options import CandidatesOption, FieldsOption, note_columns, read_fields, read_names
from .fit_reader import fit_reader
from .options import SeedOption, about, load_pool

EXAMPLES = """[bold]Examples[/bold]

router-r1 evaluate mine.jsonl --pool mine.yaml --out runs/mine
router-r1 fit auto --data runs/mine --out runs/auto

router-r1 fit knn --data records.jsonl --out runs/knn \\
  --gold-field answers --metric contains

router-r1 fit mf --data routerbench.csv --out runs/mf --set dim=64 \\
  --candidates gpt-4-1106-preview,mistralai/mixtral-8x7b-chat

router-r1 fit knn --data llmrouter.jsonl --out runs/knn \\
  --fields question=query,candidate=model_name,score=performance

router-r1 fit reader --data replies.jsonl --out runs/reader

router-r1 fit features --add-to runs/features --data new.jsonl \\
  --out runs/features_more
"""


def fit(
    method: Annotated[
        str,
        typer.Argument(
            help="knn, linear, mf, irt, features or encoder; auto, which compares these; reader, "
            "cascade or vote, which read replies."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="The folder that router-r1 evaluate --out wrote, or a file of traces, of recorded "
            "replies with gold answers, or a score matrix."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    seed: SeedOption = 0,
    pool: Annotated[
        str | None,
        typer.Option(
            help="The pool that the data's candidates are in, with their prices.",
            show_default="the candidates of the data",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Take only data of this split.")] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="For traces and replies: exact_match, f1, contains, choice, number, or "
            "module:function."
        ),
    ] = "exact_match",
    candidates: CandidatesOption = "",
    fields: FieldsOption = "",
    gold_field: Annotated[
        str | None,
        typer.Option(
            help="The field with the gold answers, in recorded replies.", show_default="gold"
        ),
    ] = None,
    best_score: Annotated[
        float,
        typer.Option(
            help="For score matrices: the best score that there can be, such as 100 for percents "
            "or 10 for ratings."
        ),
    ] = 1.0,
    embedding: Annotated[
        str,
        typer.Option(
            help="How questions become vectors: tfidf or minilm; auto also compares both "
            "(tfidf,minilm)."
        ),
    ] = "tfidf",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of the method, such as k=20 (knn), clusters=20 (features), dim=32 or "
            "epochs=60 (mf, irt, encoder). Repeatable.",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="For auto: the methods that it compares, such as knn,linear.",
            show_default="all but encoder",
        ),
    ] = None,
    add_to: Annotated[
        Path | None,
        typer.Option(help="For features: add the candidates of the data to those of this folder."),
    ] = None,
) -> None:
    """Fit a controller on scores or replies; then use it as --controller METHOD:DIR."""
    options = {}
    for setting in settings or []:
        key, _, value = setting.partition("=")
        if not (key and value.isdecimal()):
            raise ConfigError(f"--set is NAME=NUMBER, not {setting!r}")
        options[key] = int(value)
    try:
        from ..controllers.learned import AUTO, METHODS, LearnedController
        from ..controllers.learned.cells import FIELDS
        from ..controllers.learned.doubts import doubts
        from ..controllers.learned.embedding import EMBEDDINGS
        from ..controllers.learned.methods import COMPARED
        from ..controllers.learned.reader import KINDS
        from ..evaluation.plots import draw_fit
        from ..evaluation.scorers import parse_scorer
        from ..evaluation.scores import load_scores
    except ImportError as error:
        raise MissingExtraError(f"fit {masked(method)}", "eval", error) from error
    _require("fit", "method", method, (*METHODS, AUTO, *KINDS))
    only = read_names(candidates)
    compares = method == AUTO
    if compares and (options or add_to):
        raise ConfigError("fit auto chooses all settings itself: leave out --set and --add-to")
    if add_to and (options or embedding != "tfidf"):
        raise ConfigError("--add-to fits nothing again: leave out --set and --embedding")
    if methods and not compares:
        raise ConfigError("--methods is for fit auto, which compares them")
    if method in KINDS:
        given = (options, add_to, metric != "exact_match", embedding != "tfidf", best_score != 1)
        if any(given):
            raise ConfigError(
                f"fit {method}: takes no --set, --add-to, --metric, --embedding or --best-score"
            )
        names = read_fields(fields, "question=q,response=r")
        for name in names:
            _require("--fields", "field", name, FIELDS)
        if gold_field is not None:
            names["gold"] = gold_field
        require_folder("--out", out)
        known = load_pool(pool) if pool else None
        fit_reader(method, data, out, known, seed=seed, split=split, fields=names, candidates=only)
        return
    compared = methods.split(",") if methods else COMPARED
    for name in compared:
        _require("--methods", "method", name, METHODS)
    for key in options:
        _require(f"--set of {method}", "option", key, METHODS[method].options)
    for name in embedding.split(",") if compares else [embedding]:
        _require("--embedding", "embedding", name, EMBEDDINGS)
    names = read_fields(fields, "question=q,score=s")
    for name in names:
        _require("--fields", "field", name, FIELDS)
    if gold_field is not None:
        names["gold"] = gold_field
    with about("--metric"):
        parse_scorer(metric)
    if not 0 < best_score < math.inf:
        raise ConfigError(f"--best-score is a number above 0, not {best_score:g}")
    require_folder("--out", out)
    known = load_pool(pool) if pool else None
    matrix = load_scores(
        data,
        known,
        split=split,
        metric=metric,
        fields=names,
        best_score=best_score,
        candidates=only,
    )
    note_columns(data, known, names, only)
    try:
        if add_to is not None:
            controller = LearnedController.load(add_to).add(matrix)
            if controller.method != method:
                raise ConfigError(f"--add-to {add_to}: holds {controller.method}, not {method}")
        else:
            with make_console(stderr=True).status("") as status, about(f"--data {data}"):
                controller = LearnedController.fit(
                    method,
                    matrix,
                    seed=seed,
                    embedding=embedding,
                    options=options,
                    methods=compared,
                    progress=status.update,
                )
    except ImportError as error:
        raise MissingExtraError(f"fit {method}", "local", error) from error
    try:
        controller.save(out)
        if compares:
            draw_fit(controller, out)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    for doubt in doubts(matrix):
        print_note(f"warning: {doubt}")
    if compares:
        print_compared(controller)
    size = f"{counted(len(matrix.questions), 'question')} x "
    size += counted(len(matrix.names), "candidate")
    print(f"{method}: {size} -> --controller {method}:{out}")


def _require(where: str, what: str, name: str, allowed: Collection[str]) -> None:
    """Check a name before any data is read.

    Raises:
        ConfigError: it is none of those that are allowed.
    """
    if name not in allowed:
        raise ConfigError(
            f"{where}: unknown {what} {name!r}{did_you_mean(name, allowed)}; allowed: "
            f"{', '.join(allowed)}"
        )
