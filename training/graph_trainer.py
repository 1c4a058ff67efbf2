"""TRL's GRPO trainer with our credit, and with each prompt computed once for its samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import torch
from accelerate.utils import gather_object

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is marked experimental

from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from router_r1_graph.controllers.policy.forward import Forward

from ._compat import micro_batches, put_micro_batches
from .credit import Judged, credit_of_groups, of_tokens
from .machine import attention_for_training
from .shared_prefix import different_rows, logits_after


class GraphGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, with our credit of each turn in place of the normalised reward."""

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
        before = micro_batches(self)
        inputs = super()._prepare_inputs(generation_batch)
        batches = micro_batches(self)
        if batches is None or batches is before or not (self.model.training and self._shares):
            return inputs
        return put_micro_batches(self, _side_by_side(batches))

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Return the loss of a micro-batch; if no trace has credit, it is 0 and not computed.

        This happens if all samples of a question have the same worth: for a third of them or more.
        """
        # Of several processes, each has to take part in every exchange of gradients.
        if self.beta or inputs["advantages"].any() or self.accelerator.num_processes > 1:
            loss: torch.Tensor = super()._compute_loss(model, inputs)
            return loss
        return 0 * torch.stack([p.sum() for p in model.parameters() if p.requires_grad]).sum()

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
        prompt = input_ids.shape[1] - logits_to_keep
        # TRL pads to the longest row of a step; a micro-batch may be far shorter.
        before = prompt - int(attention_mask[:, :prompt].sum(1).max())
        width = max(1, int(attention_mask[:, prompt:].sum(1).max()))
        ids, mask = (one[:, before : prompt + width] for one in (input_ids, attention_mask))
        prompt -= before
        first, which = different_rows(torch.cat([ids[:, :prompt], mask[:, :prompt]], dim=1))
        # What is recomputed in the backward pass would attend otherwise.
        plain = (
            nullcontext()
            if self.args.gradient_checkpointing
            else attention_for_training(self.accelerator.unwrap_model(model), self.args.bf16)
        )
        with plain:
            if not self._shares or compute_aux_loss or len(first) == len(ids):
                scores, entropy, loss = super()._get_per_token_logps_and_entropies(
                    *(model, ids, mask, width, batch_size, compute_entropy, compute_aux_loss),
                    **others,
                )
            else:
                prefixes = ids[first, :prompt], mask[first, :prompt]
                scores, entropy = self._after(
                    model, prefixes, which, ids[:, prompt:], mask[:, prompt:], compute_entropy
                )
                loss = None
        rest = (0, logits_to_keep - width)
        pad = torch.nn.functional.pad
        return pad(scores, rest), entropy if entropy is None else pad(entropy, rest), loss

    def _after(
        self,
        model: Any,
        prefixes: tuple[torch.Tensor, torch.Tensor],
        which: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        with_entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return each token's log-probability after a shared prompt, and its entropy if wanted.

        Args:
            model: the trained one.
            prefixes: ids and mask of the different prompts, [prompts, P].
            which: the prompt of each row: [rows].
            ids: the completions, [rows, S], padded on the right.
            mask: 1 for each real token of them.
            with_entropy: whether to compute that.
        """
        unwrapped = self.accelerator.unwrap_model(model)
        scored = torch.nn.functional.pad(mask[:, 1:] == 1, (1, 0))  # the first one is apart
        with self.accelerator.autocast():
            begin, rest = logits_after(
                unwrapped, prefixes, which, ids, mask, scored.roll(-1, dims=1)
            )
        logits = torch.cat([begin[which], rest]).float() / self.temperature
        every = logits.log_softmax(-1)
        targets = torch.cat([ids[:, 0], ids[scored]])

        def laid_out(values: torch.Tensor) -> torch.Tensor:
            rows = values.new_zeros(ids.shape)
            rows[:, 0], rows[scored] = values[: len(rows)], values[len(rows) :]
            return rows

        scores = laid_out(every.gather(1, targets[:, None])[:, 0])
        entropy = laid_out(-(every.exp() * every).sum(-1)) if with_entropy else None
        return scores, entropy

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
