"""A local checkpoint as the controller: tokens in, tokens out.

The key invariant: what the policy sampled is what is trained. Each turn's `AIMessage` carries
`input_ids` (what was added to the context before it: the prompt, later an observation, tokenised
once on its own), `output_ids` (what was sampled) and `logprobs`. The context of a turn is their
concatenation over all turns before; nothing is decoded, cut and encoded again.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from .. import protocol
from ..errors import ControllerError
from ..reply import Reply
from ..state import View
from .generation import Generator, Sampled
from .tokens import TokenCodec, TurnTokens

SETTINGS_FILE = "router_r1.json"
TEMPLATE_FILE = "prompt_template.txt"


@dataclass(frozen=True)
class PolicySettings:
    """How a policy is asked; kept beside its weights as `router_r1.json`.

    Attributes:
        protocol_version: of the tag language it was trained on.
        stop: texts that end a turn. The paper's are `</search>` and `</answer>`; a policy that may
            make several calls in a turn ends it by its end-of-sequence token instead.
        max_new_tokens: of one turn.
        max_context_tokens: a turn that would begin beyond it is not asked: the run ends.
    """

    protocol_version: int = protocol.VERSION
    stop: tuple[str, ...] = ("</search>", "</answer>")
    max_new_tokens: int = 256
    max_context_tokens: int = 4096


class PolicyController:
    """Asks a causal LM by token ids. Questions that think at the same time share one batch.

    Args:
        model: a Hugging Face causal LM, in evaluation or training.
        tokenizer: its tokenizer.
        settings: how it is asked.
        template: the path of a prompt template; None = the library's.
        temperature: 0 = greedy; a run's own (`RouterContext.temperature`) wins.
        max_batch: most questions in one forward pass.
        seed: of the sampling.
        name: what to call it in traces.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        settings: PolicySettings | None = None,
        *,
        template: Path | None = None,
        temperature: float = 0.0,
        max_batch: int = 64,
        seed: int = 0,
        name: str = "policy",
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings or PolicySettings()
        self.codec = TokenCodec(tokenizer, protocol.load_template(template), self.settings.stop)
        self.temperature = temperature
        self.max_batch = max_batch
        self.name = name
        self._random = torch.Generator(device=model.device).manual_seed(seed)
        pad = tokenizer.pad_token_id
        ids, texts = _stops(tokenizer, self.settings.stop)
        self.generator = Generator(
            model,
            pad_id=tokenizer.eos_token_id if pad is None else pad,
            stop_ids=ids,
            is_stop=(lambda tail: self._ends(tail, texts)) if texts else None,
        )
        self._lock = threading.Lock()
        self._waiting: list[tuple[_Request, asyncio.Future[Sampled]]] = []
        self._worker: asyncio.Task[None] | None = None

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str | None = None, dtype: str = "auto", **options: Any
    ) -> PolicyController:
        """Load a policy folder, or any Hugging Face causal LM (safetensors, no remote code).

        Args:
            path: a folder, or the name of a model on the hub.
            device: `cpu`, `cuda`, ...; None = the GPU where there is one.
            dtype: of the weights, such as `bfloat16`; `auto` = as saved.
            **options: passed to the constructor.

        Raises:
            ControllerError: the folder does not exist, holds no model, or was trained on another
                version of the protocol.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(path)
        looks_local = folder.is_absolute() or str(path).startswith((".", "runs")) or folder.exists()
        if looks_local and not (folder / "config.json").is_file():
            raise ControllerError(f"policy {str(path)!r}: no model there (config.json is missing)")
        settings = PolicySettings()
        if (folder / SETTINGS_FILE).is_file():
            data = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
            settings = PolicySettings(**{**data, "stop": tuple(data["stop"])})
        if settings.protocol_version != protocol.VERSION:
            raise ControllerError(
                f"policy {str(path)!r}: trained on protocol version {settings.protocol_version}; "
                f"this release speaks version {protocol.VERSION}"
            )
        template = folder / TEMPLATE_FILE
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model.eval()
        return cls(
            model,
            tokenizer,
            settings,
            template=template if template.is_file() else None,
            **{"name": f"policy:{path}", **options},
        )

    def worst_case_usd(self, view: View) -> float:
        """Return 0: a local policy has no price."""
        return 0.0

    def decide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Sample one turn."""
        start = time.perf_counter()
        request = self._request(view)
        return self._reply(request, self._sample([request])[0], time.perf_counter() - start)

    async def adecide(self, view: View, config: RunnableConfig | None = None) -> Reply:
        """Sample one turn, in one batch with whatever else is waiting."""
        start = time.perf_counter()
        request = self._request(view)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sampled] = loop.create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        sampled = await future
        return self._reply(request, sampled, time.perf_counter() - start)

    async def _work(self) -> None:
        """Sample for all that are waiting until nobody is."""
        while self._waiting:
            # Questions that got their turn together come back together, after some steps of the
            # event loop; a batch begins when nobody has joined it for a moment.
            joined = 0
            while joined < len(self._waiting) < self.max_batch:
                joined = len(self._waiting)
                await asyncio.sleep(0.002)
            batch, self._waiting = (
                self._waiting[: self.max_batch],
                self._waiting[self.max_batch :],
            )
            batch = [(request, future) for request, future in batch if not future.done()]
            try:
                sampled = await asyncio.to_thread(self._sample, [request for request, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(
                            error if isinstance(error, Exception) else RuntimeError("interrupted")
                        )
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), one in zip(batch, sampled, strict=True):
                if not future.done():
                    future.set_result(one)

    def _sample(self, requests: Sequence[_Request]) -> list[Sampled]:
        if not requests:
            return []
        with self._lock:
            results: dict[int, Sampled] = {}
            for temperature in {request.temperature for request in requests}:
                places = [i for i, r in enumerate(requests) if r.temperature == temperature]
                sampled = self.generator.generate(
                    [(requests[i].ids, requests[i].known) for i in places],
                    max_new_tokens=self.settings.max_new_tokens,
                    temperature=temperature,
                    random=self._random,
                )
                results.update(zip(places, sampled, strict=True))
            return [results[i] for i in range(len(requests))]

    def _request(self, view: View) -> _Request:
        """Return the context of the next turn, in ids."""
        pieces = list(self.codec.pieces(view))
        added = pieces.pop().ids
        context = [token for piece in pieces for token in piece.ids]
        known = len(context)
        if known + len(added) > self.settings.max_context_tokens:
            raise ControllerError(
                f"{self.name}: the context has {known + len(added)} tokens, more than "
                f"max_context_tokens = {self.settings.max_context_tokens}"
            )
        wanted = view.context.temperature
        return _Request(
            [*context, *added], known, added, self.temperature if wanted is None else wanted
        )

    def _ends(self, ids: Sequence[int], texts: tuple[str, ...]) -> bool:
        # A stop text is rarely more tokens than characters / 2, and the last one may run over it.
        tail = self.tokenizer.decode(ids[-12:])
        return any(text in tail for text in texts)

    def _reply(self, request: _Request, sampled: Sampled, seconds: float) -> Reply:
        end = self.tokenizer.eos_token_id
        ids = sampled.ids[:-1] if sampled.ids[-1:] == [end] else sampled.ids
        tokens = TurnTokens(
            input_ids=request.added, output_ids=sampled.ids, logprobs=sampled.logprobs
        )
        return Reply(
            text=self.tokenizer.decode(ids).strip(),
            input_tokens=sampled.prefilled,
            output_tokens=len(sampled.ids),
            seconds=seconds,
            message=AIMessage("", additional_kwargs={"tokens": tokens}),
        )


@dataclass(frozen=True)
class _Request:
    ids: list[int]
    known: int
    added: list[int]
    temperature: float


def _stops(tokenizer: Any, stop: Sequence[str]) -> tuple[frozenset[int], tuple[str, ...]]:
    """Return the stops that are one token as ids, fast and exact, and the others as texts."""
    ids, texts = {tokenizer.eos_token_id}, []
    for text in stop:
        encoded = tokenizer.encode(text, add_special_tokens=False)
        ids.add(encoded[0]) if len(encoded) == 1 else texts.append(text)
    return frozenset(ids), tuple(texts)
