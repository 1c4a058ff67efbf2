"""The prompts of questions, without those that are too long to be asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router_r1_graph import ConfigError
from router_r1_graph.budget import Left
from router_r1_graph.controllers.controller import View
from router_r1_graph.controllers.policy.tokens import TokenCodec
from router_r1_graph.words import counted

from .items import Item
from .measurement import at_weights
from .models import Learner, processes


def askable(
    items: Sequence[Item], learner: Learner, stage: str, weights: Sequence[float] = ()
) -> Iterator[tuple[Item, list[int]]]:
    """Yield the items whose prompt is short enough, with its ids; print at the end which are not.

    Args:
        items: the questions.
        learner: the policy that is asked.
        stage: the name of what asks.
        weights: the cost weights at which each item is asked; () = its own. The ids are those of
            the longest prompt.

    Raises:
        ConfigError: all are too long.
    """
    codec, most = learner.codec, learner.settings.max_context_tokens
    too_long: list[str] = []
    for item in items:
        asked = at_weights([item], weights) if weights else [item]
        ids = max((_prompt_ids(one, codec) for one in asked), key=len)
        if len(ids) < most:
            yield item, ids
        else:
            too_long.append(f"{item.id or item.question[:40]!r} ({len(ids)} tokens)")
    if too_long and processes().is_main_process:
        print(
            f"{stage}: {counted(len(too_long), 'question')} left out, whose prompt has "
            f"{most} tokens (model.max_context_tokens) or more: {', '.join(too_long[:3])}"
            + (", ..." if len(too_long) > 3 else "")
        )
    if items and len(too_long) == len(items):
        raise ConfigError(
            f"{stage}: the prompt of every question has {most} tokens (model.max_context_tokens) "
            "or more; raise it, or describe the candidates in fewer words"
        )


def _prompt_ids(item: Item, codec: TokenCodec) -> list[int]:
    start = Left(item.context.max_rounds)
    return codec.prompt_ids(View(item.question, item.pool, item.context, start))
