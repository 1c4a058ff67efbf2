"""auto: compares every method by nested cross-validation, and keeps the best at each cost weight.

A question goes to the best constant candidate unless another one's predicted utility is higher by a
margin. Method, options, embedding and margin are chosen on some folds and judged on another one,
which took no part in that choice, nor in the fit of the predictor there. With five folds, each
setting is fitted 15 times: with each fold and each pair of folds left out.

The choice at a cost weight has the highest pessimistic gain (mean less one standard error) over the
constant, and sends at least 92% of reworded questions to the same candidate. If the gain of that
whole procedure on the folds judged is not clear of zero, the constant is kept.

Where scores are missing, a choice other than the constant can be judged only on the questions with
a score of both. Without such questions the data cannot tell, and the constant is kept as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np

from ...errors import ConfigError
from .costs import best_column, mean_costs, utility
from .embedding import fit_embedding
from .folder import some
from .gains import gain_of, mean_and_error, pairs_with
from .matrix import ScoreMatrix
from .methods import Setting, all_settings
from .prediction import candidate_means
from .rewording import reworded
from .verdict import UNKNOWN, Gain, Verdict

COST_WEIGHTS = (
    *(0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3),
    *(0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
)
MARGINS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
FOLDS = 5
MIN_QUESTIONS = 20
SAME = 0.92
"""The share of reworded questions that have to be sent to the same candidate, for .90 of others."""


def compare(
    matrix: ScoreMatrix,
    *,
    seed: int,
    methods: Sequence[str],
    embeddings: Sequence[str],
    progress: Callable[[str], None] | None = None,
) -> tuple[list[Verdict], list[Setting]]:
    """Return the verdict at each cost weight, and the settings that are kept, by number of part.

    A method whose packages are not installed is left out.

    Args:
        matrix: Q x C scores.
        seed: the seed of the folds and of every fit.
        methods: the methods to compare, by name.
        embeddings: the embeddings to compare, by name.
        progress: called with the next step, in words.

    Raises:
        ConfigError: there are too few questions, or no such embedding.
    """
    count = len(matrix.questions)
    if count < MIN_QUESTIONS:
        raise ConfigError(f"auto needs {MIN_QUESTIONS} questions to cross-validate, not {count}")
    scored = (~np.isnan(matrix.scores)).sum(axis=0)
    if few := [
        f"{n} has {k}" for n, k in zip(matrix.names, scored, strict=True) if k < MIN_QUESTIONS
    ]:
        raise ConfigError(
            f"auto needs scores on {MIN_QUESTIONS} questions of each candidate to compare them; "
            f"{some(few)} (to leave candidates out, name the others: --candidates)"
        )
    fold = np.random.default_rng(seed).permutation(count) % FOLDS
    settings = all_settings(methods, embeddings)
    settings, predicted = _cross_fit(matrix, settings, fold, seed, progress)
    mean, source = mean_costs(matrix)
    spent = np.tile(mean, (count, 1))
    if source == "measured":
        spent = np.where(np.isnan(matrix.costs_usd), spent, matrix.costs_usd)
    views = [_View(predicted[:, :, i], fold != i) for i in range(FOLDS)]
    # The last one is for the choice that is kept: every question as the fold without it has it.
    views.append(_View(predicted[:, :, fold, np.arange(count)], np.ones(count, dtype=bool)))
    best = int(best_column(candidate_means(matrix.scores)[None], spent.mean(axis=0))[0])
    kept: list[Setting] = []
    verdicts = []
    for cost_weight in COST_WEIGHTS:
        judge = _Judge(matrix.names, matrix.scores, spent, fold, settings, cost_weight, best)
        verdict, setting = judge.verdict(views)
        if setting and setting not in kept:
            kept.append(setting)
        part = kept.index(setting) if setting else None
        verdicts.append(replace(verdict, part=part))
    return verdicts, kept


def _cross_fit(
    matrix: ScoreMatrix,
    settings: list[Setting],
    fold: np.ndarray,
    seed: int,
    progress: Callable[[str], None] | None,
) -> tuple[list[Setting], np.ndarray]:
    """Return the S settings that can be fitted here, and their predictions, S x 2 x F x Q x C.

    The 2 are the questions and the reworded ones. Those of the row f and of a question in the
    fold g are by a fit to all folds but f and g.
    """
    texts = np.array(matrix.questions, dtype=object)
    others = np.array([reworded(text) for text in texts], dtype=object)
    shape = (len(settings), 2, FOLDS, *matrix.scores.shape)
    predicted = np.zeros(shape, dtype=np.float32)
    missing: set[str] = set()
    pairs = list(combinations_with_replacement(range(FOLDS), 2))
    for number, (one, two) in enumerate(pairs, 1):
        if progress:
            progress(f"{number} of {len(pairs)} fits of {len(settings)} settings")
        held = (fold == one) | (fold == two)
        scores = matrix.scores[~held]
        for name in dict.fromkeys(setting.embedding for setting in settings):
            words = fit_embedding(name, list(texts[~held]), seed)
            known, *asked = (words.vectors(list(t)) for t in (texts[~held], texts, others))
            for s, setting in enumerate(settings):
                if setting.embedding != name or setting.method in missing:
                    continue
                try:
                    predictor = setting.fit(known, scores, seed)
                except ImportError:  # torch is an optional extra
                    missing.add(setting.method)
                    continue
                for f, g in {(one, two), (two, one)}:
                    rows = fold == g
                    for form, vectors in enumerate(asked):
                        found = predictor.predict(vectors[rows])
                        predicted[s, form, f, rows] = np.nan_to_num(found)
    able = [s for s, setting in enumerate(settings) if setting.method not in missing]
    if not able:
        raise ImportError(f"nothing to fit {', '.join(missing)} with")
    return [settings[s] for s in able], predicted[able]


@dataclass(frozen=True)
class _View:
    """Predictions S x 2 x Q x C, and the questions that may be used for a choice."""

    predicted: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True)
class _Judge:
    """Chooses and judges at one cost weight."""

    names: list[str]
    scores: np.ndarray
    spent: np.ndarray
    fold: np.ndarray
    settings: list[Setting]
    cost_weight: float
    best_constant: int  # at cost weight 0

    def verdict(self, views: Sequence[_View]) -> tuple[Verdict, Setting | None]:
        """Return the verdict, and the setting that is kept; None = the constant."""
        rows = np.arange(len(self.scores))
        chosen, again, base = (np.zeros(len(rows), dtype=int) for _ in range(3))
        methods = dict.fromkeys(setting.method for setting in self.settings)
        plain = {method: np.zeros(len(rows), dtype=int) for method in methods}
        for view in views[:-1]:
            held = ~view.seen
            constant, choices = self._choices(view)
            base[held] = constant
            gains = self._gains(choices[:, :, 0], constant)
            best = self._best(gains[..., view.seen], choices[..., view.seen])
            chosen[held], again[held] = choices[best][:, held] if best else (constant, constant)
            ungated = gains[:, 0, view.seen]
            for method, to in plain.items():
                own = [s for s, setting in enumerate(self.settings) if setting.method == method]
                first = own[int(mean_and_error(ungated[own])[0].argmax())]
                to[held] = choices[first, 0, 0, held]
        constant, choices = self._choices(views[-1])
        best = self._best(self._gains(choices[:, :, 0], constant), choices)
        true = self._true
        by_method = {method: self._gain(to, base) for method, to in plain.items()}
        gain = self._gain(chosen, base)
        untold = [found for found in by_method.values() if not found.known]
        if untold and not gain.low and not gain.high:
            gain = untold[0]  # no choice but the constant was made, since none could be judged
        cost = float(self.spent[rows, chosen].mean())
        oracle = np.where(np.isnan(true), -np.inf, true).argmax(axis=1)
        verdict = Verdict(
            cost_weight=self.cost_weight,
            part=None,
            setting=str(self.settings[best[0]]) if best else "",
            margin=MARGINS[best[1]] if best else 0.0,
            score=float(np.nanmean(self.scores[rows, chosen])),
            cost=cost,
            same=float((chosen == again).mean()),
            gain=gain,
            constant=self.names[constant],
            constant_score=float(np.nanmean(self.scores[:, constant])),
            constant_cost=float(self.spent[:, constant].mean()),
            mix_score=_mix(candidate_means(self.scores), self.spent.mean(axis=0), cost),
            oracle_score=float(np.nanmean(self.scores[rows, oracle])),
            oracle_cost=float(self.spent[rows, oracle].mean()),
            methods=by_method,
            pairs=pairs_with(self.scores, constant),
            least=self._least(chosen),
        )
        return verdict, self.settings[best[0]] if best and gain.sure else None

    def _gain(self, to: np.ndarray, base: np.ndarray) -> Gain:
        true, rows = self._true, np.arange(len(to))
        found = gain_of(true[rows, to] - true[rows, base], 1 - self.cost_weight, to != base)
        # Without pairs some methods cannot learn, and send nothing elsewhere: that tells nothing.
        few = pairs_with(self.scores, base) < MIN_QUESTIONS
        return UNKNOWN if few and found.low <= 0 <= found.high else found

    def _least(self, to: np.ndarray) -> float | None:
        """Return the least score of choices less the best constant's; None = no score missing."""
        if not np.isnan(self.scores).any():
            return None
        rows, best = np.arange(len(to)), self.best_constant
        worst = np.nan_to_num(self.scores[rows, to], nan=0.0)
        least = worst - np.nan_to_num(self.scores[:, best], nan=1.0)
        return float(np.where(to == best, 0.0, least).mean())

    @property
    def _true(self) -> np.ndarray:
        return utility(self.scores, self.spent, self.spent.mean(axis=0), self.cost_weight)

    def _choices(self, view: _View) -> tuple[int, np.ndarray]:
        """Return the constant, and the choices of each setting with each margin, S x M x 2 x Q."""
        costs = self.spent[view.seen].mean(axis=0)
        means = np.nan_to_num(candidate_means(self.scores[view.seen]))
        constant = int(best_column(utility(means, costs, costs, self.cost_weight)[None], costs)[0])
        predicted = utility(view.predicted, costs, costs, self.cost_weight)
        best = best_column(predicted, costs)
        lead = np.take_along_axis(predicted, best[..., None], -1)[..., 0] - predicted[..., constant]
        least = (1 - self.cost_weight) * np.array(MARGINS)[:, None, None]
        return constant, np.where(lead[:, None] > least, best[:, None], constant)

    def _gains(self, choices: np.ndarray, constant: int) -> np.ndarray:
        """Return the gains of choices S x M x Q over the constant, question by question."""
        true = self._true
        return true[np.arange(len(true)), choices] - true[:, [constant]].T

    def _best(self, gains: np.ndarray, choices: np.ndarray) -> tuple[int, int] | None:
        """Return the numbers of setting and margin; None = no gain is worth a risk."""
        mean, error = mean_and_error(gains)
        same = (choices[:, :, 0] == choices[:, :, 1]).mean(axis=-1)
        sure = np.where(same >= SAME, mean - error, 0.0)
        s, m = np.unravel_index(int(sure.argmax()), sure.shape)
        return (int(s), int(m)) if sure[s, m] > 0 else None


def _mix(scores: np.ndarray, costs: np.ndarray, spend: float) -> float:
    """Return the best expected score of a random mix of two constants that costs `spend`."""
    spend = max(spend, float(costs.min()))
    gap = costs[None, :] - costs[:, None]  # from the one to the other
    share = np.divide(spend - costs[:, None], gap, out=np.zeros_like(gap), where=gap > 0)
    mixed = scores[:, None] + share.clip(0, 1) * (scores[None, :] - scores[:, None])
    return float(np.nanmax(mixed[costs <= spend]))
