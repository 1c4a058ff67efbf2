"""One turn that is sampled, and how a token is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import torch

from .streaming import Listener


@dataclass(eq=False)
class Sample:
    """One turn: its context, and the tokens sampled so far.

    `ids` and `logprobs` have the same length; log-probabilities are of the distribution that was
    sampled from (of the model's own where sampling is greedy).
    """

    context: Sequence[int]
    """The ids before it."""
    known: int = 0
    """How many of these ids there were at the end of the question's previous turn, 0 for a first
    turn: the key to its cache."""
    max_new_tokens: int = 1024
    temperature: float = 0.0
    """0 = greedy."""
    listener: Listener | None = None
    """Receives the turn's ids after each sampled one."""
    random: Random | None = None
    """The turn's own random stream, so that its sample does not depend on the rest of the batch.
    None = always the middle of the distribution."""
    is_last: Callable[[Sequence[int]], bool] = lambda _: False
    """Takes the ids of the turn, and returns whether the question ends with it: no cache is kept
    then."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False
    """Whether a stop token or stop string ended it, not the length."""
    left: bool = False
    """Whether nobody waits for it any more: it is not sampled on, and no cache is kept."""
    prefilled: int = 0
    """Tokens of the context that had to be computed; the rest came from the cache."""
    _drawn: list[float] = field(default_factory=list)

    def draw(self, count: int) -> list[float]:
        """Return the numbers by which the next tokens are drawn, even if not all are sampled.

        Args:
            count: how many; each is from 0 to 1.
        """
        missing = count - len(self._drawn)
        self._drawn += [self.random.random() if self.random else 0.5 for _ in range(missing)]
        return self._drawn[:count]

    def append(self, token: int, logprob: float) -> None:
        """Add a sampled token."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        del self._drawn[:1]

    @property
    def ended(self) -> bool:
        """Whether the turn has ended."""
        return self.finished or self.left or len(self.ids) >= self.max_new_tokens

    @property
    def so_far(self) -> tuple[int, ...]:
        """The context and the sampled tokens."""
        return (*self.context, *self.ids)


def sample_tokens(
    logits: torch.Tensor, temperatures: torch.Tensor, drawn: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a token of each row and its log-probability: [rows, vocabulary] -> [rows], [rows].

    Args:
        logits: the logits of the next token.
        temperatures: [rows]; 0 = greedy.
        drawn: [rows, 1], from 0 up to 1.
    """
    greedy = temperatures == 0
    likely = torch.softmax(logits.float() / temperatures.where(~greedy, 1.0)[:, None], dim=-1)
    chosen = likely.argmax(-1)
    if not greedy.all():
        # One number is drawn per row: `multinomial` draws one for each token of the vocabulary,
        # which for a small model takes as long as its layers. The number is above 0 and at most the
        # whole sum, so that it falls on a token with a probability above 0.
        reached = likely.cumsum(-1)
        sampled = torch.searchsorted(reached, (1 - drawn) * reached[:, -1:])[:, 0]
        chosen = chosen.where(greedy, sampled)
    return chosen, likely.gather(1, chosen[:, None])[:, 0].log()
