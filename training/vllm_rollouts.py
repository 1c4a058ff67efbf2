"""vLLM writes the turns of a rollout, while TRL copies the trained model's weights to it.

Not run on a GPU yet: tested against TRL's interface with a model of this process behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from router_r1_graph.controllers.policy.sampling import Sample


class VLLMGenerator:
    """Replaces a policy's own `Generator`; vLLM keeps the caches of shared prefixes itself.

    Args:
        vllm: TRL's `VLLMGeneration` of the trainer; with one process per server, or colocated.
        max_new_tokens: the limit of one turn. TRL knows one limit only, that of a whole completion.
        stop_ids: tokens that end a turn; any other turn was cut at the limit.
    """

    def __init__(self, vllm: Any, max_new_tokens: int, stop_ids: frozenset[int]) -> None:
        self.vllm = vllm
        self.vllm.max_completion_length = max_new_tokens
        self.max_new_tokens = max_new_tokens
        self.stop_ids = stop_ids
        self.seconds = 0.0
        self.prefilled_tokens = 0
        self.reused_tokens = 0

    def generate(
        self, turns: Sequence[Sample], *, ended: Callable[[Sample], None] = lambda _: None, **_: Any
    ) -> None:
        """Sample turns to their end, as `Generator.generate` does.

        Temperature and stop texts are TRL's: the trainer sets them once.
        """
        start = time.perf_counter()
        prompts = [list(turn.context) for turn in turns]
        _, completions, logprobs, _ = self.vllm.generate(
            prompts=prompts, images=None, num_generations=1
        )
        self.seconds += time.perf_counter() - start
        self.prefilled_tokens += sum(map(len, prompts))
        for turn, ids, scores in zip(turns, completions, logprobs, strict=True):
            turn.ids = list(ids)
            # The sampled token's score comes first; more follow if more were asked for.
            turn.logprobs = [float(each[0]) for each in scores]
            turn.finished = len(ids) < self.max_new_tokens or ids[-1] in self.stop_ids
            turn.max_new_tokens = self.max_new_tokens
            turn.prefilled = len(turn.context)
            ended(turn)


def vllm_options(mode: str, *, url: str, memory: float, stop: Sequence[str]) -> dict[str, Any]:
    """Return the options of TRL's GRPOConfig for a mode of vLLM: `colocate` or `server`."""
    options: dict[str, Any] = {
        "use_vllm": True,
        "vllm_mode": mode,
        "generation_kwargs": {"stop": list(stop), "include_stop_str_in_output": True},
    }
    if mode == "server":
        return options | {"vllm_server_base_url": url}
    return options | {"vllm_gpu_memory_utilization": memory}
