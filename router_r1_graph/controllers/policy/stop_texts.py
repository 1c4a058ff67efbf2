"""The texts that end a turn, found without decoding most of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class StopTexts:
    """Ends a turn at an end token, or as soon as it contains a stop text.

    Args:
        tokenizer: the model's tokenizer.
        texts: the texts that end a turn.
        end_ids: the end tokens.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str], end_ids: frozenset[int]) -> None:
        self._decode = tokenizer.decode
        self._texts = texts
        self._last = {text[-1] for text in texts}
        # No token is shorter than a byte.
        self._tail = max((len(text.encode()) for text in texts), default=0)
        self._may_end: dict[int, bool] = {}
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        #: Stop texts that are one token end a turn without decoding it.
        self.ids = end_ids | {ids[0] for ids in encoded if len(ids) == 1}

    def ends(self, ids: Sequence[int]) -> bool:
        """Return whether the last of a turn's ids completed a text, however it was spelled."""
        last = ids[-1]
        if last not in self._may_end:  # most tokens cannot, and their turns are not decoded
            piece = self._decode([last])
            part = not piece or "\N{REPLACEMENT CHARACTER}" in piece  # of a character
            self._may_end[last] = part or not self._last.isdisjoint(piece)
        if not self._may_end[last]:
            return False
        tail = self._decode(ids[-self._tail :])
        return any(text in tail for text in self._texts)
