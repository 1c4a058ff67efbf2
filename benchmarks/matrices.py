"""Score matrices that resemble public ones: questions of ../shared/data/qa, scores that are drawn.

A candidate has an ability, and more or less of it for each source and each of 24 topics of the
questions; a question has a difficulty; and each pair has luck. Costs follow ability and length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.feature_extraction.text import TfidfVectorizer

from router_r1_graph import CandidatePool
from router_r1_graph.controllers.learned.matrix import ScoreMatrix

QA = Path(__file__).parents[2] / "shared" / "data" / "qa"


@dataclass(frozen=True)
class Kind:
    """What a matrix is like; standard deviations are of logits / 1.3.

    Attributes:
        questions, candidates: its shape.
        topic, source: how much abilities differ by topic, and by source.
        ability: how much they differ between candidates.
        luck: of a candidate with a question.
        difficulty: of questions.
        lead: how far the best candidate is ahead of the next; 0 = as drawn.
        cost: the correlation of log cost and ability; None = prices are known, costs are not.
        missing: the share of cells that were not measured; the hard ones more often.
        graded: whether scores lie between 0 and 1.
    """

    questions: int
    candidates: int
    topic: float
    source: float
    ability: float
    luck: float = 0.8
    difficulty: float = 1.2
    lead: float = 0.0
    cost: float | None = 0.7
    missing: float = 0.0
    graded: bool = False


KINDS = {
    "specialists": Kind(4000, 8, 0.8, 0.8, 0.3, luck=0.5, cost=None),
    "many specialists": Kind(11000, 8, 0.7, 0.8, 0.3, luck=0.5),
    "a leader, wide": Kind(10000, 11, 0.35, 0.5, 0.6),
    "cheap ones are good": Kind(2255, 13, 0.3, 0.5, 0.35, cost=0.3),
    "weak": Kind(500, 6, 0.2, 0.3, 0.4, luck=1.0),
    "graded": Kind(11000, 5, 0.15, 0.15, 0.4, luck=0.5, graded=True),
    "nothing": Kind(1000, 28, 0.0, 0.0, 0.25, luck=1.0),
    "nearly equal": Kind(700, 30, 0.1, 0.1, 0.1, luck=1.0),
    "dominated": Kind(3000, 4, 0.2, 0.2, 0.3, luck=0.5, lead=1.5),
    "holes": Kind(1500, 10, 0.4, 0.5, 0.4, missing=0.4),
    "few questions": Kind(300, 3, 0.4, 0.4, 0.3, luck=0.5),
}


@cache
def _questions() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return texts, each once, with the number of the source and of the topic."""
    source: dict[str, str] = {}
    for file in sorted(QA.glob("*.jsonl")):
        for line in file.open(encoding="utf-8"):
            source.setdefault(json.loads(line)["question"].strip(), file.stem)
    texts = list(source)
    words = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 4), max_features=20_000, sublinear_tf=True
    )
    topics = MiniBatchKMeans(24, random_state=0, n_init=3).fit_predict(words.fit_transform(texts))
    return texts, np.unique(list(source.values()), return_inverse=True)[1], topics


def resembling(name: str, seed: int) -> ScoreMatrix:
    """Draw a matrix of this kind."""
    kind, draw = KINDS[name], np.random.default_rng([sum(map(ord, name)), seed])
    texts, sources, topics = _questions()
    rows = draw.permutation(len(texts))[: kind.questions]
    source, topic, count = sources[rows], topics[rows], kind.candidates
    shape = (len(rows), count)
    ability = draw.normal(0, kind.ability, count)
    if kind.lead:
        ability[draw.integers(count)] = ability.max() + kind.lead
    ease = draw.normal(0.3, 0.5) + draw.normal(0, 0.7, sources.max() + 1)[source]
    ease += draw.normal(0, 0.4, topics.max() + 1)[topic] + draw.normal(
        0, kind.difficulty, len(rows)
    )
    logits = ability + ease[:, None] + draw.normal(0, kind.luck, shape)
    logits += draw.normal(0, kind.topic, (topics.max() + 1, count))[topic]
    logits += draw.normal(0, kind.source, (sources.max() + 1, count))[source]
    chance = 1 / (1 + np.exp(-1.3 * logits))
    scores = (draw.random(shape) < chance).astype(float)
    if kind.graded:
        scores = draw.beta(3 * chance + 0.05, 3 * (1 - chance) + 0.05).round(2)
    share = 0.7 if kind.cost is None else kind.cost
    level = share * (ability - ability.mean()) / ability.std()
    price = np.exp(1.3 * (level + np.sqrt(1 - share**2) * draw.normal(0, 1, count)) - 8)
    lengths = np.array([len(texts[row]) for row in rows]) / np.mean([len(text) for text in texts])
    costs = price * (0.3 + lengths[:, None]) * draw.lognormal(0, 0.4, shape)
    known = {"output_usd_per_mtok": 1.0} if kind.cost is None else {}
    candidates = [
        {"name": f"lab/model-{i}", **{k: v * 1e4 * price[i] for k, v in known.items()}}
        for i in range(count)
    ]
    if kind.cost is None:
        costs = np.full(shape, np.nan)
    if kind.missing:
        holes = draw.random(shape) < 1.4 * kind.missing * (1 - chance / 2)
        holes[np.arange(len(rows)), draw.integers(0, count, len(rows))] = False
        scores[holes] = costs[holes] = np.nan
    pool = CandidatePool.model_validate({"candidates": candidates})
    return ScoreMatrix(tuple(texts[row] for row in rows), pool, scores, costs)
