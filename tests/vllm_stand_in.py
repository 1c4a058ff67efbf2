"""What TRL uses of vLLM, done by transformers: a random stream of turns without stop texts.

As in vLLM, the weights of the trained model have to be copied to it before it samples.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

__version__ = "0.31.0"


class SamplingParams(SimpleNamespace):
    pass


class StructuredOutputsParams(SimpleNamespace):
    pass


class RequestOutput(SimpleNamespace):
    pass


class LLM:
    def __init__(self, model: str, max_model_len: int | None = None, **_: Any) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(model)
        self.copied: set[str] = set()
        length = max_model_len or self.model.config.max_position_embeddings
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self._load_weights))
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=length),
            model_executor=SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner)),
        )

    def _load_weights(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        for name, weight in weights:
            self.model.get_parameter(name).data.copy_(weight)
            self.copied.add(name)

    def reset_prefix_cache(self) -> None:
        pass

    def generate(
        self, prompts: list[dict[str, Any]], sampling_params: Any, use_tqdm: bool
    ) -> list[RequestOutput]:
        assert self.copied == {name for name, _ in self.model.named_parameters()}
        return [self._generate(prompt["prompt_token_ids"], sampling_params) for prompt in prompts]

    def _generate(self, prompt: list[int], wanted: SamplingParams) -> RequestOutput:
        sampled = self.model.generate(
            torch.tensor([prompt]),
            do_sample=True,
            temperature=wanted.temperature,
            max_new_tokens=wanted.max_tokens,
            return_dict_in_generate=True,
            output_scores=True,
        )
        ids = sampled.sequences[0, len(prompt) :].tolist()
        scores = [row[0].log_softmax(-1) for row in sampled.scores]
        logprobs = [
            {token: SimpleNamespace(rank=1, logprob=float(row[token]))}
            for token, row in zip(ids, scores, strict=True)
        ]
        output = SimpleNamespace(token_ids=ids, logprobs=logprobs)
        return RequestOutput(prompt_token_ids=prompt, outputs=[output])
