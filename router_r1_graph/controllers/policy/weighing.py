"""The candidates that a turn of a policy could have asked, and how likely each was.

Where a turn names a candidate, every name of the pool is read after the same tokens, with the colon
after it; the values are the model's own, as they are before any temperature. The name that was
written is read in the tokens that it was written in, the others as the tokenizer writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ... import protocol
from ...candidates import Candidate, CandidatePool
from ..choice import Choice, Effect
from ..controller import View, read_descriptor
from ..naming import until_named
from .scoring import EndingScorer
from .tokens import TokenCodec, TurnTokens


@dataclass(frozen=True)
class _Place:
    """A place of a turn where a candidate is named."""

    before: list[int]
    """The ids of the turn before it."""
    endings: list[list[int]]
    """The ids of each candidate's name there, in the pool's order."""


class _Spoken:
    """The tokens of a turn, and what it says after each of them."""

    def __init__(self, codec: TokenCodec, turn: Sequence[int]) -> None:
        self.ids = list(turn[:-1] if turn and turn[-1] in codec.ends else turn)
        sizes = range(len(self.ids) + 1)
        self.read = [str(codec.tokenizer.decode(self.ids[:size])) for size in sizes]
        self.text, self.parsed = self.read[-1], codec.text_of(turn)
        # Half a character reads otherwise than the whole one: there is no boundary inside it.
        self.sizes = [size for size in sizes if self.text.startswith(self.read[size])]
        text = self.text
        # The parsed text has no space around it, and may have a tag before it.
        self.shift = len(text) - len(text.lstrip()) + len(text.strip()) - len(self.parsed)

    def size_of(self, length: int) -> int:
        """Return how many tokens say no more than so many characters."""
        return max(size for size in self.sizes if len(self.read[size]) <= length)


class Weighing:
    """Reads the names of a pool's candidates where a turn names one.

    Args:
        model: a causal LM of transformers.
        codec: the policy's.
        pad_id: the padding token.
        max_context_tokens: the longest context of a turn.
    """

    def __init__(self, model: Any, codec: TokenCodec, pad_id: int, max_context_tokens: int) -> None:
        self.codec = codec
        self._scorer = EndingScorer(model, pad_id)
        self._most = max_context_tokens

    def choices(self, view: View, tokens: TurnTokens) -> Iterator[Choice]:
        """Yield the choice behind each call of a turn."""
        for place in self._places(view.pool, tokens["output_ids"]):
            yield self._choice(view, place)

    def leaning(self, view: View, tokens: TurnTokens) -> Choice:
        """Return the choice where a turn without a call that can be used names, or would name."""
        turn = _Spoken(self.codec, tokens["output_ids"])
        kept, lacks, _ = until_named(turn.parsed)
        cut = max(0, kept + turn.shift)
        start = turn.size_of(cut)
        said = turn.read[start]
        lacks = turn.text[len(said) : cut] + lacks
        names = [candidate.name for candidate in view.pool.candidates]
        endings = [self.codec.following(said, f"{lacks}{name}:") for name in names]
        return self._choice(view, _Place(turn.ids[:start], endings))

    def _choice(self, view: View, place: _Place) -> Choice:
        context = self.codec.context(view, self._most).ids
        logprobs = self._scorer.logprobs([[*context, *place.before]], place.endings).double()
        shares = logprobs[0].softmax(0).tolist()
        names = [candidate.name for candidate in view.pool.candidates]
        together = min(1.0, logprobs[0].logsumexp(0).exp().item())
        return Choice("probability", dict(zip(names, shares, strict=True)), together)

    def effects(self, view: View, tokens: TurnTokens) -> Iterator[tuple[Effect, ...]]:
        """Yield the effects of all parts of all descriptors on each call of a turn."""
        _, *later = [piece.ids for piece in self.codec.pieces(view)]
        said = [token for piece in later for token in piece]
        first = replace(view, left=view.budget, scratchpad=())
        prompt = self.codec.prompt_ids(first)
        without = list(self._without(first, prompt))
        for place in self._places(view.pool, tokens["output_ids"]):
            prompts = [prompt, *(shorter for *_, shorter in without)]
            contexts = [[*ids, *said, *place.before] for ids in prompts]
            shares = self._scorer.logprobs(contexts, place.endings).double().softmax(1).tolist()
            yield tuple(
                Effect(
                    candidate.name,
                    part,
                    read_descriptor(self.codec.template, changed),
                    shares[row][number],
                    shares[row][number] - shares[0][number],
                )
                for row, (number, candidate, part, changed, _) in enumerate(without, 1)
            )

    def _without(
        self, view: View, prompt: list[int]
    ) -> Iterator[tuple[int, Candidate, str, Candidate, list[int]]]:
        """Yield each part of a descriptor that the prompt shows, and the prompt without it."""
        for number, candidate in enumerate(view.pool.candidates):
            for part, changed in _parts(candidate):
                candidates = list(view.pool.candidates)
                candidates[number] = changed
                pool = view.pool.with_candidates(candidates)
                if (ids := self.codec.prompt_ids(replace(view, pool=pool))) != prompt:
                    yield number, candidate, part, changed, ids

    def _places(self, pool: CandidatePool, turn: Sequence[int]) -> Iterator[_Place]:
        """Yield the places where a turn names a candidate."""
        said = _Spoken(self.codec, turn)
        ids, read, text = said.ids, said.read, said.text
        for call in protocol.parse(said.parsed).calls:
            at = call.at + said.shift
            colon = text.index(":", at)
            # The space before a name is often a part of its first token.
            start = said.size_of(len(text[:at].rstrip()))
            end = min(size for size in said.sizes if len(read[size]) > colon)
            space, rest = text[len(read[start]) : at], text[colon + 1 : len(read[end])]
            named = pool.find(call.candidate)
            yield _Place(
                ids[:start],
                [
                    ids[start:end]
                    if candidate is named
                    else self.codec.following(read[start], f"{space}{candidate.name}:{rest}")
                    for candidate in pool.candidates
                ],
            )


def _parts(candidate: Candidate) -> Iterator[tuple[str, Candidate]]:
    """Yield the parts of a candidate's descriptor, each with the candidate without it."""
    prices = dict.fromkeys(("input_usd_per_mtok", "output_usd_per_mtok", "usd_per_call"))
    if candidate.priced:
        yield "price", candidate.model_copy(update=prices)
    if candidate.latency_seconds is not None:
        yield "latency", candidate.model_copy(update={"latency_seconds": None})
    # A strength that has a score is one part with it.
    for subject in dict.fromkeys([*candidate.benchmarks, *candidate.strengths]):
        benchmarks = {name: x for name, x in candidate.benchmarks.items() if name != subject}
        strengths = tuple(name for name in candidate.strengths if name != subject)
        yield (
            subject,
            candidate.model_copy(update={"benchmarks": benchmarks, "strengths": strengths}),
        )
