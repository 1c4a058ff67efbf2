"""The same policy, questions and candidates in TRL's own loop over environments.

TRL offers `environment_factory` for what `training` does by `rollout_func`: it samples a turn of
each question, calls the tools that these turns ask for, one question after another, and samples the
next turns. Here a turn's searches are one tool call, so that an environment asks a round's
candidates at once, as the graph does. Sampled greedily, both loops write the same ids.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from router_r1_graph import protocol
from router_r1_graph.budget import Left
from router_r1_graph.candidates.providers import make_chat_model
from router_r1_graph.controllers.controller import View, render_view
from training.items import Item
from training.machine import device_options
from training.models import Learner

Call = tuple[str, str]
"""The name of a candidate, and the query."""

_CONVERSATION = r"""
{%- for message in messages -%}
{%- if message.role == 'tool' -%}{{ '\n' + message.content + '\n' }}
{%- elif message.role == 'user' -%}{{ message.content + '\n' }}
{%- else -%}{{ message.content }}
{%- for call in message.tool_calls or [] -%}
{{ call.function.name }} {{ call.function.arguments | tojson }}
{%- endfor -%}{{ eos_token }}
{%- endif -%}{%- endfor -%}
"""
"""A chat template that writes the policy's contexts. Calls are in it because TRL accepts no other:
the ids of turns are joined as they were sampled."""


@dataclass(frozen=True)
class Rollouts:
    """What came of one run of a loop.

    Attributes:
        seconds: how long it took.
        cpu_seconds: how much of the processor it took.
        sampled_tokens: how many tokens the policy wrote.
        completions: what follows each prompt, in the items' order; it ends as the policy ended it.
        calls: the calls that were made for each item.
    """

    seconds: float
    cpu_seconds: float
    sampled_tokens: int
    completions: list[list[int]]
    calls: list[list[Call]]


class Environment:
    """The candidates of a question, as TRL's tool."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._replies: dict[Call, str] = {}

    def reset(self, place: int, **_: Any) -> None:
        """Begin the item at this place."""
        item = self._items[place]
        self._pool, self._context = item.pool, item.context
        self._models = {c.name: make_chat_model(c) for c in item.pool.candidates}
        self._rounds_left = item.context.max_rounds
        self._replies = {}

    @property
    def calls(self) -> list[Call]:
        """The calls that were made."""
        return [*self._replies]

    async def search(self, turn: str) -> str:
        """Ask candidates.

        Args:
            turn: all searches of a turn.
        """
        self._rounds_left -= 1
        written = protocol.parse(f"<search>{turn}")
        asked = [(call.candidate, call.query) for call in written.calls]
        known = [call for call in asked if call[0] in self._models]
        new = [call for call in dict.fromkeys(known) if call not in self._replies]
        self._replies |= zip(new, await asyncio.gather(*map(self._ask, new)), strict=True)
        seen = [(call[0], self._replies[call]) for call in known]
        reasons = [self._pool.unknown(name) for name, _ in asked if name not in self._models]
        reasons += [mistake.reason for mistake in written.mistakes]
        seen += [("error", f"not done: {reason}") for reason in reasons]
        label, text = seen.pop()
        seen.append((label, f"{text}\n(left: {Left(self._rounds_left).describe()})"))
        return "\n".join(protocol.render_observation(*one) for one in seen)

    async def _ask(self, call: Call) -> str:
        reply = await self._models[call[0]].ainvoke(call[1])
        return protocol.cut(str(reply.text), self._context.max_information_tokens)


class EnvironmentLoop:
    """TRL's trainer over environments, of which only the rollouts are run.

    Args:
        learner: the policy; TRL gets a copy of its model.
        items: the questions, each as often in a row as it has samples.
        samples: how often that is, at least 2.
        temperature: of sampling; 0 = greedy.
        folder: where TRL may write.
    """

    def __init__(
        self,
        learner: Learner,
        items: Sequence[Item],
        *,
        samples: int,
        temperature: float,
        folder: Path,
    ) -> None:
        controller = learner.controller()
        tokenizer = copy.deepcopy(learner.tokenizer)
        tokenizer.chat_template = _CONVERSATION
        tokenizer.response_template = _reading_turns_up_to(tokenizer.eos_token)
        model = copy.deepcopy(learner.model)
        model.generation_config.eos_token_id = sorted(controller.generator.stop_ids)
        self._rows = [
            {
                "prompt": [{"role": "user", "content": _prompt(item, controller.codec.template)}],
                "place": place,
            }
            for place, item in enumerate(items)
        ]
        self._ended = 0.0, 0.0
        self._completions: list[list[int]] = []
        self._calls: list[list[Call]] = []
        self._trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(self._rows),
            reward_funcs=[self._end],
            environment_factory=lambda: Environment(items),
            args=GRPOConfig(
                output_dir=str(folder),
                per_device_train_batch_size=len(items),
                num_generations=samples,
                max_completion_length=learner.settings.max_context_tokens,
                max_tool_calling_iterations=max(item.context.max_rounds for item in items),
                temperature=temperature or 1.0,
                generation_kwargs={
                    "max_new_tokens": learner.settings.max_new_tokens,
                    "do_sample": bool(temperature),
                },
                activation_checkpointing=False,
                report_to="none",
                **device_options(False),
            ),
        )
        self._trainer.model.eval()

    def __call__(self) -> Rollouts:
        """Run every item."""
        start, cpu = time.perf_counter(), time.process_time()
        batch = self._trainer._generate_and_score_completions(self._rows)
        ended, cpu_ended = self._ended
        return Rollouts(
            ended - start,
            cpu_ended - cpu,
            int((batch["completion_mask"] * batch["tool_mask"]).sum()),
            self._completions,
            self._calls,
        )

    def _end(
        self,
        completion_ids: Sequence[Sequence[int]],
        environments: Sequence[Environment],
        **_: Any,
    ) -> list[float]:
        """Take down what came of a loop, as TRL's reward function."""
        self._ended = time.perf_counter(), time.process_time()
        self._completions = [list(ids) for ids in completion_ids]
        self._calls = [one.calls for one in environments]
        return [0.0] * len(completion_ids)


def _prompt(item: Item, template: Any) -> str:
    left = Left(item.context.max_rounds)
    return render_view(template, View(item.question, item.pool, item.context, left))


def _reading_turns_up_to(end: str) -> dict[str, Any]:
    """Return how TRL reads a turn: from its first search to its end, it is one tool call."""
    call = {"name": "search", "arguments": {"turn": "{content}"}}
    return {
        "defaults": {"role": "assistant"},
        "start_anchor_pattern": r"\Z",  # the prompt has no part of the turn
        "fields": {
            "content": {},
            "tool_calls": {
                "open": "<search>",
                "close": end,
                "repeats": True,
                "transform": {"type": "function", "function": call},
            },
        },
    }
