"""TRL's GRPO trainer with our credit, and with each prompt computed once for its samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import torch
from accelerate.utils import gather_object

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental

from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from router_r1_graph.controllers.policy.forward import Forward

from .credit import Judged, credit_of_groups, of_tokens
from .shared_prefix import different_rows, logits_after


class GraphGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, with our credit of each turn in the place of the normalised reward."""

    advantage: Literal["sum", "apart", "per_call"] = "sum"

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.advantage == "sum":
            return output
        [reward] = self.reward_funcs
        ours = len(reward.judged)
        # A group may be spread over processes: its credit is computed from all of them.
        everything: list[Judged | None] = gather_object(reward.judged)
        first = self.accelerator.process_index * ours
        credit = credit_of_groups(everything, self.num_generations)[first : first + ours]
        if self.advantage == "per_call":
            advantages = of_tokens(credit, output["completion_mask"] * output["tool_mask"])
        else:
            advantages = torch.tensor([turns[0] for turns in credit])
        output["advantages"] = advantages.to(output["advantages"])
        return output

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Return the next micro-batch; samples of one prompt are put next to each other."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        fresh = self._buffered_inputs is not before
        if not (fresh and self.model.training and self._shares):
            return inputs
        self._buffered_inputs = _side_by_side(self._buffered_inputs)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **others: Any,
    ) -> Any:
        ids, mask = input_ids, attention_mask
        prompt = ids.shape[1] - logits_to_keep
        first, which = different_rows(torch.cat([ids[:, :prompt], mask[:, :prompt]], dim=1))
        if not self._shares or compute_aux_loss or len(first) == len(ids):
            return super()._get_per_token_logps_and_entropies(
                *(model, ids, mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss),
                **others,
            )
        unwrapped = self.accelerator.unwrap_model(model)
        prefixes = ids[first, :prompt], mask[first, :prompt]
        after, real = ids[:, prompt:], mask[:, prompt:]
        scored = torch.nn.functional.pad(real[:, 1:] == 1, (1, 0))  # the first one is apart
        with self.accelerator.autocast():
            begin, rest = logits_after(
                unwrapped, prefixes, which, after, real, scored.roll(-1, dims=1)
            )
        logits = torch.cat([begin[which], rest]).float() / self.temperature
        every = logits.log_softmax(-1)
        targets = torch.cat([after[:, 0], after[scored]])

        def laid_out(values: torch.Tensor) -> torch.Tensor:
            rows = values.new_zeros(after.shape)
            rows[:, 0], rows[scored] = values[: len(rows)], values[len(rows) :]
            return rows

        scores = laid_out(every.gather(1, targets[:, None])[:, 0])
        entropy = laid_out(-(every.exp() * every).sum(-1)) if compute_entropy else None
        return scores, entropy, None

    @cached_property
    def _shares(self) -> bool:
        """Whether samples of a prompt can share it: gradients go through the cache."""
        # Not the model's own word: TRL switches its checkpointing off now and then.
        if self.accelerator.num_processes > 1 or self.args.gradient_checkpointing:
            return False
        return Forward(self.accelerator.unwrap_model(self.model)).pads


def _side_by_side(batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return micro-batches of the same rows, those of one prompt next to each other."""

    def joined(values: Sequence[Any]) -> Any:
        if isinstance(values[0], torch.Tensor) and values[0].ndim:
            return torch.cat(list(values))
        return list(chain(*values)) if isinstance(values[0], list) else values[0]

    whole = {name: joined([batch[name] for batch in batches]) for name in batches[0]}
    _, which = different_rows(whole["prompt_ids"])
    order = which.argsort(stable=True)

    def sorted_(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim:
            return value[order]
        return [value[place] for place in order.tolist()] if isinstance(value, list) else value

    ordered = {name: sorted_(value) for name, value in whole.items()}
    return list(split_tensor_dict(ordered, len(batches)))
