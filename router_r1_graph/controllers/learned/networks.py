"""mf, irt and encoder: small networks from a question's vector to every candidate's score.

Each gives logits N x C; the predicted score is their sigmoid. AdamW minimises the cross-entropy
with the measured scores (which may be fractions). A tenth of the questions is held out; the weights
of the epoch that was best on it are kept, and training ends if some epochs bring no better one.

Sources:
    mf: arXiv 2406.18665 (RouteLLM), section 4: a bilinear form of model and query embedding. There
        it compares two models; here it scores any number, each with a bias of its own.
    irt: arXiv 2506.01048 (IRT-Router), the multidimensional form, with free ability vectors where
        the paper embeds a model's description.
    encoder: arXiv 2506.03880 (RadialRouter): a star of candidates around the query. Much smaller,
        and without the paper's contrastive loss.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_BATCH = 64
_HELD_OUT = 0.1
_PATIENCE = 6  # epochs without a better one, after which training ends
_MIN_HELD_OUT = 4  # questions; with fewer there is nothing to judge an epoch by


class Factors(nn.Module):  # type: ignore[misc]  # torch is read as Any
    """Matrix factorisation: logit = (W q) . v_c + b_c."""

    def __init__(self, inputs: int, candidates: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, dim, bias=False)
        self.candidates = nn.Linear(dim, candidates)

    def forward(self, vectors: Any) -> Any:
        """Return logits N x C."""
        return self.candidates(self.project(vectors))


class ItemResponse(nn.Module):  # type: ignore[misc]
    """Item response theory: logit = a(q) . theta_c - b(q), with discrimination a > 0."""

    def __init__(self, inputs: int, candidates: int, dim: int) -> None:
        super().__init__()
        self.discrimination = nn.Linear(inputs, dim)
        self.difficulty = nn.Linear(inputs, 1)
        self.ability = nn.Parameter(torch.randn(candidates, dim) * 0.1)

    def forward(self, vectors: Any) -> Any:
        """Return logits N x C."""
        discrimination = functional.softplus(self.discrimination(vectors))
        return discrimination @ self.ability.T - self.difficulty(vectors)


class Star(nn.Module):  # type: ignore[misc]
    """A star: each candidate's state looks at the query in the middle, which looks at all of them.

    Two rounds of that, then one linear readout for each candidate's state.
    """

    def __init__(self, inputs: int, candidates: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(inputs, dim)
        self.satellites = nn.Parameter(torch.randn(candidates, dim) * 0.5)
        self.rounds = nn.ModuleList(_StarRound(dim) for _ in range(2))
        self.readout = nn.Linear(dim, 1)
        self.bias = nn.Parameter(torch.zeros(candidates))

    def forward(self, vectors: Any) -> Any:
        """Return logits N x C."""
        centre = self.query(vectors)[:, None]  # N x 1 x dim
        satellites = self.satellites.expand(len(vectors), -1, -1)  # N x C x dim
        for one in self.rounds:
            centre, satellites = one(centre, satellites)
        return self.readout(satellites).squeeze(-1) + self.bias


class _StarRound(nn.Module):  # type: ignore[misc]
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(dim, 1, batch_first=True)
        self.mix = nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, centre: Any, satellites: Any) -> tuple[Any, Any]:
        seen = torch.cat([satellites, centre.expand_as(satellites)], dim=-1)
        satellites = self.norms[0](satellites + self.mix(seen))
        everyone = torch.cat([centre, satellites], dim=1)
        looked, _ = self.attend(centre, everyone, everyone, need_weights=False)
        return self.norms[1](centre + looked), satellites


_KINDS: dict[str, Any] = {"mf": Factors, "irt": ItemResponse, "encoder": Star}


class Network:
    """A fitted network of one of the three kinds.

    Args:
        kind: mf, irt or encoder.
        dim: the length of its inner vectors.
        weights: its arrays, by torch's names.
    """

    def __init__(self, kind: str, dim: np.ndarray | int, **weights: np.ndarray) -> None:
        self.kind, self.dim = kind, int(dim)
        first = {"mf": "project", "irt": "discrimination", "encoder": "query"}[kind] + ".weight"
        count = {"mf": "candidates.weight", "irt": "ability", "encoder": "satellites"}[kind]
        inputs, candidates = weights[first].shape[1], len(weights[count])
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and thrown away
            self._module = _KINDS[kind](inputs, candidates, self.dim)
        self._module.load_state_dict({k: torch.tensor(v) for k, v in weights.items()})
        self._module.eval()

    @classmethod
    def fit(
        cls, vectors: np.ndarray, scores: np.ndarray, *, seed: int, kind: str, dim: int, epochs: int
    ) -> Network:
        """Fit one to scores Q x C, NaN = not measured."""
        with torch.random.fork_rng(devices=[]):  # the seed is ours alone
            torch.manual_seed(seed)
            module = _KINDS[kind](vectors.shape[1], scores.shape[1], dim)
            _train(module, _inputs(vectors), torch.tensor(scores, dtype=torch.float32), epochs)
        weights = {name: value.numpy() for name, value in module.state_dict().items()}
        return cls(kind, dim, **weights)

    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """Return sigmoid(logits), N x C."""
        with torch.inference_mode():
            parts = [torch.sigmoid(self._module(part)) for part in _inputs(vectors).split(_BATCH)]
        return torch.cat(parts).numpy()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weights and the length of the inner vectors."""
        weights = {name: value.numpy() for name, value in self._module.state_dict().items()}
        return {"dim": np.array(self.dim), **weights}


def _inputs(vectors: np.ndarray) -> Any:
    """Return vectors of length 1 as numbers around 1, since layers are initialised for those."""
    return torch.tensor(vectors, dtype=torch.float32) * math.sqrt(vectors.shape[1])


def _train(module: Any, inputs: Any, scores: Any, epochs: int) -> None:
    order = torch.randperm(len(inputs))
    held = int(len(inputs) * _HELD_OUT)
    held_out, train = order[:held], order[held:]
    judged = held >= _MIN_HELD_OUT and not torch.isnan(scores[held_out]).all()
    if not judged:
        train = order
    # A strong decay (3e-3 x 1 a step): a few hundred questions are easily learned by heart.
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1.0)
    best, kept, since = math.inf, None, 0
    for _ in range(epochs):
        if since == _PATIENCE:
            break
        module.train()
        for rows in train[torch.randperm(len(train))].split(_BATCH):
            loss = _loss(module(inputs[rows]), scores[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not judged:
            continue
        module.eval()
        with torch.no_grad():
            found = float(_loss(module(inputs[held_out]), scores[held_out]))
        since += 1
        if found < best:
            since = 0
            best, kept = found, {k: v.clone() for k, v in module.state_dict().items()}
    if kept:
        module.load_state_dict(kept)


def _loss(logits: Any, scores: Any) -> Any:
    """Return the mean cross-entropy over the measured scores; 0 if there are none."""
    measured = ~torch.isnan(scores)
    losses = functional.binary_cross_entropy_with_logits(
        logits, torch.where(measured, scores, 0.0), reduction="none"
    )
    return (losses * measured).sum() / measured.sum().clamp(min=1)
