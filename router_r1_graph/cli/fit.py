"""`router-r1 fit`: a controller learned from a score matrix."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from ..errors import ConfigError, MissingExtraError
from .options import load_pool

EXAMPLES = """[bold]Examples[/bold]

router-r1 fit knn --data traces.jsonl --out runs/knn

router-r1 fit mf --data routerbench.csv --pool mine.yaml --out runs/mf --set dim=64 --seed 1

router-r1 fit features --add-to runs/features --data new.jsonl --out runs/features_more
"""


def fit(
    method: Annotated[str, typer.Argument(help="knn, mf, irt, features or encoder.")],
    data: Annotated[
        Path,
        typer.Option(help="Traces of constant controllers, recorded replies, or a score matrix."),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    seed: Annotated[int, typer.Option(help="Of whatever is drawn.")] = 0,
    pool: Annotated[
        str | None, typer.Option(help="Who may stand in the data, with prices; else as it says.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only data of this split.")] = None,
    metric: Annotated[str, typer.Option(help="For traces and replies: exact_match, f1.")] = (
        "exact_match"
    ),
    embedding: Annotated[str, typer.Option(help="Of the questions: tfidf, minilm.")] = "tfidf",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="k=20 (knn), clusters=20 (features), dim=32 and epochs=60."),
    ] = None,
    add_to: Annotated[
        Path | None,
        typer.Option(help="features only: add the data's candidates to this folder's."),
    ] = None,
) -> None:
    """Fit a learned controller, which then is `--controller NAME:DIR`."""
    try:
        from ..controllers.learned import LearnedController
        from ..evaluation.scores import Metric, load_scores
    except ImportError as error:
        raise MissingExtraError(f"fit {method}", "eval") from error
    if metric not in ("exact_match", "f1"):
        raise ConfigError(f"--metric is exact_match or f1, not {metric!r}")
    options = {}
    for setting in settings or []:
        key, _, value = setting.partition("=")
        if not value.isdecimal():
            raise ConfigError(f"--set is NAME=NUMBER, not {setting!r}")
        options[key] = int(value)
    scored = cast("Metric", metric)
    matrix = load_scores(data, load_pool(pool) if pool else None, split=split, metric=scored)
    try:
        if add_to is not None:
            controller = LearnedController.load(add_to).add(matrix)
            if controller.method != method:
                raise ConfigError(f"--add-to {add_to}: holds {controller.method}, not {method}")
        else:
            controller = LearnedController.fit(
                method, matrix, seed=seed, embedding=embedding, options=options
            )
    except ImportError as error:
        raise MissingExtraError(f"fit {method}", "local") from error
    try:
        controller.save(out)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    if controller.cost_source == "prices" and not controller.costs.any():
        print("warning: no costs and no prices: the cost weight has no effect", file=sys.stderr)
    print(
        f"{method}: {len(matrix.questions)} questions x {len(matrix.names)} candidates -> "
        f"--controller {method}:{out}"
    )
