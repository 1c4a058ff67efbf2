"""A local checkpoint as the controller: tokens in, tokens out.

The key invariant: the tokens that the policy sampled are those that are trained. Each turn's
`AIMessage` carries `input_ids` (the addition to the context before it: the prompt, later an
observation, tokenised once on its own), `output_ids` (the sampled tokens) and `logprobs`. The
context of a turn is their concatenation over all turns before; nothing is decoded, cut and encoded
again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig

from ... import protocol
from ...candidates import CandidatePool
from ...candidates.failures import ReplyError
from ...candidates.in_time import apart_if_long
from ...candidates.reply import Reply
from ..choice import Choice, Effect
from ..controller import View, read_descriptor
from .batches import Batches
from .folder import PolicyFolder, PolicySettings
from .generation import Generator
from .sampling import Sample
from .stop_texts import StopTexts
from .streaming import Listener, TurnStream, turn_stream
from .tokens import TokenCodec, TurnTokens, random_of
from .weighing import Weighing
from .weights import end_ids, for_cpu, load_weights


class PolicyController:
    """Asks a causal LM by token ids. Questions that think at the same time share one batch.

    Args:
        model: a Hugging Face causal LM, in evaluation or training.
        tokenizer: its tokenizer.
        settings: those of its turns.
        template: the path of a prompt template; None = the library's.
        temperature: 0 = greedy; `RouterContext.temperature` overrides it for a run.
        max_batch: most questions in one forward pass.
        max_cached_tokens: the most tokens whose keys and values are kept between the turns of
            running questions; 0 = none. A 3B model in bfloat16 takes about 37 kB per token.
        seed: the seed of sampling. The seed of a run (`RouterContext.seed`) and the question are
            mixed in, so that a question's samples do not depend on the other rows of its batch.
        name: its name in traces.
    """

    streams_turns = True
    """Whether the streamed tokens are the turn itself, in tags, as it will be parsed."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        settings: PolicySettings | None = None,
        *,
        template: Path | None = None,
        temperature: float = 0.0,
        max_batch: int = 64,
        max_cached_tokens: int = 200_000,
        seed: int = 0,
        name: str = "policy",
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings or PolicySettings()
        self.codec = TokenCodec.of(tokenizer, template, self.settings, end_ids(model))
        self.temperature = temperature
        self.name = name
        self.seed = seed
        pad = tokenizer.pad_token_id
        self._pad_id = tokenizer.eos_token_id if pad is None else pad
        stop = StopTexts(tokenizer, self.settings.stop, self.codec.ends)
        self.generator = Generator(
            model,
            pad_id=self._pad_id,
            stop_ids=stop.ids,
            is_stop=stop.ends if self.settings.stop else None,
            max_cached_tokens=max_cached_tokens,
        )
        self._kept = self.generator.kept
        self._batches = Batches(self, max_batch)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        settings: PolicySettings | None = None,
        device: str | None = None,
        dtype: str = "auto",
        **options: Any,
    ) -> PolicyController:
        """Load a policy folder, or any Hugging Face causal LM (safetensors, no remote code).

        A folder may hold an adapter (LoRA): then the model that it changes is loaded as well.

        Args:
            path: a folder, or the name of a model on the hub.
            settings: those of its turns; None = those in its `router_r1.json`.
            device: `cpu`, `cuda`, ...; None = the GPU where there is one.
            dtype: the type of the weights, such as `bfloat16`; `auto` = as saved, and on a CPU
                that in which it computes fastest. There an adapter is merged, too.
            **options: passed to the constructor.

        Raises:
            ControllerError: there is no such folder or model, it cannot be loaded, or it was
                trained on another version of the protocol.
        """
        policy = PolicyFolder(str(path))
        policy.check()
        settings, tokenizer = settings or policy.settings(), policy.tokenizer()
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = load_weights(policy, dtype=dtype)
        if device == "cpu" and dtype == "auto":
            model = for_cpu(model)
        model.to(device)
        model.eval()
        options = {"name": f"policy:{path}", **options}
        return cls(model, tokenizer, settings, template=policy.template, **options)

    def wait_for_all(self, running: Callable[[], int] | None) -> None:
        """Begin a batch when all running questions wait for a turn, as training does.

        Then the samples depend on seeds and questions only, to the last digit, and not on the time
        that calls take.

        Args:
            running: returns how many questions are running; None = as turns come.
        """
        self._batches.running = running

    def worst_case_usd(self, view: View) -> float:
        """Return 0: a local policy has no price."""
        return 0.0

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Sample one turn, in one batch with the other waiting turns."""
        start = time.perf_counter()
        with turn_stream(config, self.codec.text_of, self.name, view.question) as stream:
            turn, added = self._begin(view, stream.listener() if stream else None)
            done = self._batches.join(turn)
            with self._leaving(turn, done):
                futures.wait([done], view.left.seconds)
            return self._reply(view, turn, added, done, start, stream)

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Sample one turn without blocking, in one batch with the other waiting turns."""
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        with turn_stream(config, self.codec.text_of, self.name, view.question) as stream:
            listener = stream.listener(loop) if stream else None
            begin = partial(self._begin, view, listener)
            size = len(view.question) + sum(len(str(m.text)) for m in view.scratchpad)
            turn, added = await apart_if_long(size, begin)
            done = self._batches.join(turn, loop)
            with self._leaving(turn, done):
                waiting = asyncio.wrap_future(done)
                await asyncio.wait([waiting], timeout=view.left.seconds)
                if waiting.done():
                    waiting.result()
            return self._reply(view, turn, added, done, start, stream)

    def question_ended(self, scratchpad: Sequence[AnyMessage]) -> None:
        """Drop the cache that was kept for the question's next turn.

        A turn that a person wrote has no token ids; after it, the cache goes with the oldest.
        """
        ids: list[int] = []
        for message in scratchpad:
            if isinstance(message, AIMessage) and (
                tokens := message.additional_kwargs.get("tokens")
            ):
                ids += [*tokens["input_ids"], *tokens["output_ids"]]
        self._kept.take(tuple(ids))

    @contextmanager
    def _leaving(self, turn: Sample, done: futures.Future[None]) -> Iterator[None]:
        """Leave a turn that was not waited for to its end: the question ends without it."""
        try:
            yield
        finally:
            if not done.done() and done.cancel():
                turn.left = True
                for ids in (turn.so_far[: turn.known], turn.so_far):
                    self._kept.take(ids)

    def weigh(self, view: View, reply: Reply) -> tuple[Choice, ...]:
        """Return the probability of each candidate at each place where a turn names one.

        It is the model's own, before any temperature: that of the name with its colon, after the
        tokens that came before it, as a share of the names of the pool.

        Args:
            view: the view that the policy had.
            reply: the turn that it wrote then; () for one without token ids.

        Raises:
            ContextLengthError: the context has more tokens than `max_context_tokens`.
        """
        tokens = _tokens(reply)
        return tuple(self._weighing().choices(view, tokens)) if tokens else ()

    def lean(self, view: View, reply: Reply) -> Choice | None:
        """Do what `weigh` does where a turn without a call names, or would name, a candidate."""
        tokens = _tokens(reply)
        return self._weighing().leaning(view, tokens) if tokens else None

    def reading(self, pool: CandidatePool) -> Mapping[str, str]:
        """Return each candidate's descriptor as the prompt has it; "" where it has none."""
        return {c.name: read_descriptor(self.codec.template, c) for c in pool.candidates}

    def explain(self, view: View, reply: Reply) -> tuple[tuple[Effect, ...], ...]:
        """Return the effect of each part of each descriptor on each call of a turn, by occlusion.

        The part is taken out of the prompt. The policy's own words before the name stay as they
        are, even if they already contain the part.

        Args:
            view: the view that the policy had.
            reply: the turn that it wrote then; () for one without token ids.
        """
        tokens = _tokens(reply)
        return tuple(self._weighing().effects(view, tokens)) if tokens else ()

    def _weighing(self) -> Weighing:
        most = self.settings.max_context_tokens
        return Weighing(self.model, self.codec, self._pad_id, most)

    def _begin(self, view: View, listener: Listener | None) -> tuple[Sample, list[int]]:
        """Return a turn to sample, and the new ids of its context."""
        context = self.codec.context(view, self.settings.max_context_tokens)
        wanted = view.context.temperature
        turn = Sample(
            context.ids,
            len(context.before),
            self.settings.max_new_tokens,
            self.temperature if wanted is None else wanted,
            listener,
            random_of(view, self.seed),
            lambda ids: view.must_answer or _answers(self.codec.text_of(ids)),
        )
        return turn, context.added

    def _reply(
        self,
        view: View,
        turn: Sample,
        added: list[int],
        done: futures.Future[None],
        start: float,
        stream: TurnStream | None,
    ) -> Reply:
        if turn.left:
            late = f"no reply within {view.left.seconds:.3g} s"
            if stream:
                stream.fail(TimeoutError(late))
            return Reply(
                input_tokens=turn.prefilled,
                output_tokens=len(turn.ids),
                seconds=max(time.perf_counter() - start, view.left.seconds or 0.0),
                error=ReplyError("timeout", late),
            )
        done.result()
        text = self.codec.text_of(turn.ids)
        if stream:
            stream.end(text)
        tokens = TurnTokens(input_ids=added, output_ids=turn.ids, logprobs=turn.logprobs)
        return Reply(
            text=text,
            input_tokens=turn.prefilled,
            output_tokens=len(turn.ids),
            seconds=time.perf_counter() - start,
            message=AIMessage(
                text, id=stream.id if stream else None, additional_kwargs={"tokens": tokens}
            ),
        )


def _tokens(reply: Reply) -> TurnTokens | None:
    return reply.message.additional_kwargs.get("tokens") if reply.message else None


def _answers(turn: str) -> bool:
    """Return whether a turn ends its question."""
    read = protocol.parse(turn)
    return read.answer is not None and not read.calls
