"""RouterArena: the files of a submission, its robustness measure and its score.

A submission is a config with the names of the models, and a prediction for each prompt of a data
set; those for reworded prompts are in a second file. RouterArena itself asks the models.

Source: arXiv 2510.00202 (RouterArena); the files and formulas are those of its code
(RouteWorks/RouterArena): `router_inference/generate_prediction_file.py`,
`router_inference/check_config_prediction_files.py`, `global_utils/robustness.py`, and
`llm_evaluation/run.py` (commit 0d783fa).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..candidates import CandidatePool
from ..controllers import Controller
from ..errors import ConfigError, MatrixError
from .predictions import Predictions, predict, read_objects

_BETA, _MOST_USD, _LEAST_USD = 0.1, 200.0, 0.0044
_PRICES = ("input_token_price_per_million", "output_token_price_per_million")


@dataclass(frozen=True)
class ArenaEntry:
    """A prompt of a data set, or of a file of predictions.

    Attributes:
        index: RouterArena's "global index".
        prompt: the prompt.
        prediction: the model to ask; "" = there is none yet.
        accuracy: the score of its answer, in [0, 1]; None = not yet known.
        cost_usd: the cost of its answer; None = not yet known.
    """

    index: str
    prompt: str
    prediction: str = ""
    accuracy: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True)
class ArenaResult:
    """The results of a router; None = not known.

    Attributes:
        prompts: how many predictions there are.
        robustness: see `robustness`.
        reworded: how many predictions for reworded prompts were compared.
        accuracy: the mean score.
        usd_per_1000: the mean cost of 1,000 prompts.
        score: see `arena_score`.
    """

    prompts: int
    robustness: float | None = None
    reworded: int = 0
    accuracy: float | None = None
    usd_per_1000: float | None = None
    score: float | None = None


def read_arena(path: Path) -> list[ArenaEntry]:
    """Read a data set (`router_data.json`) or a file of predictions.

    Entries for RouterArena's optimality ("for_optimality") are left out.

    Raises:
        MatrixError: the file cannot be read, or an entry has no index or no prompt.
    """
    found = []
    for number, entry in enumerate(read_objects(path), 1):
        if entry.get("for_optimality"):
            continue
        index = entry.get("global index", entry.get("global_index"))
        prompt = entry.get("prompt_formatted") or entry.get("prompt")
        for what, value in (("global index", index), ("prompt", prompt)):
            if value in (None, ""):
                raise MatrixError(f"{path}, entry {number}: there is no {what!r}")
        known = {name: _number(entry, name, f"{path}, entry {number}") for name in _KNOWN}
        found.append(
            ArenaEntry(
                str(index),
                str(prompt),
                str(entry.get("prediction") or ""),
                known["accuracy"],
                known["cost"],
            )
        )
    return found


def robustness(
    predicted: Sequence[ArenaEntry], reworded: Sequence[ArenaEntry]
) -> tuple[float | None, int]:
    """Return the share of reworded prompts for which the same model is predicted, and of how many.

    The share is None where the two have no index in common.
    """
    first: dict[str, str] = {}
    for entry in predicted:
        first.setdefault(entry.index, entry.prediction)
    pairs = [
        (first[entry.index], entry.prediction)
        for entry in reworded
        if first.get(entry.index) and entry.prediction
    ]
    if not pairs:
        return None, 0
    return sum(one == other for one, other in pairs) / len(pairs), len(pairs)


def arena_score(usd_per_1000: float, accuracy: float) -> float:
    """Return RouterArena's score: accuracy and cheapness, in which a tenth of the weight is cost.

    Args:
        usd_per_1000: the cost of 1,000 prompts, held to 0.0044 to 200 USD.
        accuracy: in [0, 1].

    Example:
        >>> arena_score(0.0044, 1.0), arena_score(200.0, 1.0)
        (1.0, 0.0)
    """
    cost = min(max(usd_per_1000, _LEAST_USD), _MOST_USD)
    cheap = math.log2(_MOST_USD / cost) / math.log2(_MOST_USD / _LEAST_USD)
    both = _BETA * accuracy + cheap
    return (1 + _BETA) * accuracy * cheap / both if both else 0.0


def judge_submission(
    predicted: Sequence[ArenaEntry], reworded: Sequence[ArenaEntry] = ()
) -> ArenaResult:
    """Return the results of predictions: costs and scores only if RouterArena wrote them."""
    same, compared = robustness(predicted, reworded)
    scores = [entry.accuracy for entry in predicted if entry.accuracy is not None]
    costs = [entry.cost_usd for entry in predicted if entry.cost_usd]
    accuracy = sum(scores) / len(scores) if scores else None
    usd = 1000 * sum(costs) / len(predicted) if costs else None
    known = accuracy is not None and usd is not None
    score = arena_score(usd, accuracy) if known else None  # type: ignore[arg-type]
    return ArenaResult(len(predicted), same, compared, accuracy, usd, score)


def submit(
    name: str,
    controller: Controller | str,
    pool: CandidatePool,
    prompts: Sequence[ArenaEntry],
    reworded: Sequence[ArenaEntry],
    out: Path,
    *,
    cost_weight: float = 0.0,
) -> tuple[ArenaResult, Predictions]:
    """Write the files of a submission, as `router_inference/` of RouterArena has them.

    | file | what |
    |---|---|
    | `config/NAME.json` | the models' names |
    | `predictions/NAME.json` | a prediction for each prompt |
    | `predictions/NAME-robustness.json` | those for reworded prompts, where there are any |
    | `NAME-prices.json` | the pool's prices, for RouterArena's `model_cost/` |

    Args:
        name: the router's name.
        controller: a controller, or its spec.
        pool: the candidates; a submission names them by the provider's model name.
        prompts: the data set.
        reworded: the data set of reworded prompts.
        out: the folder.
        cost_weight: from 0 to 1.

    Raises:
        ConfigError: the name is none of a file, or the folder cannot be written.
        ControllerError: the controller has no prediction for a prompt.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"--name: letters, digits, '.', '_' and '-', not {name!r}")
    found = predict(
        controller, pool, [p.prompt for p in (*prompts, *reworded)], cost_weight=cost_weight
    )
    models = [candidate.model_name for candidate in pool.candidates]
    chosen = [models[column] for column in found.choices]
    given, again = chosen[: len(prompts)], chosen[len(prompts) :]
    files: dict[str, Any] = {
        f"config/{name}.json": {"pipeline_params": {"router_name": name, "models": models}},
        f"predictions/{name}.json": _filled(prompts, given),
        f"{name}-prices.json": _prices(pool),
    }
    if reworded:
        files[f"predictions/{name}-robustness.json"] = _filled(reworded, again)
    try:
        for file, content in files.items():
            path = out / file
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(content, ensure_ascii=False, indent=2)
            path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    result = judge_submission(
        [ArenaEntry(p.index, p.prompt, model) for p, model in zip(prompts, given, strict=True)],
        [ArenaEntry(p.index, p.prompt, model) for p, model in zip(reworded, again, strict=True)],
    )
    return result, found


_KNOWN = ("accuracy", "cost")


def _number(entry: Mapping[str, Any], name: str, where: str) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise MatrixError(f"{where}: {name!r} is a number from 0 or null, not {value!r:.60}")
    return float(value)


def _filled(prompts: Sequence[ArenaEntry], models: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "global index": entry.index,
            "prompt": entry.prompt,
            "prediction": model,
            "generated_result": None,
            "cost": None,
            "accuracy": None,
            "for_optimality": False,
        }
        for entry, model in zip(prompts, models, strict=True)
    ]


def _prices(pool: CandidatePool) -> dict[str, dict[str, float]]:
    return {
        c.model_name: dict(zip(_PRICES, (c.input_usd_per_mtok, c.output_usd_per_mtok), strict=True))
        for c in pool.candidates
        if c.input_usd_per_mtok is not None and c.output_usd_per_mtok is not None
    }
