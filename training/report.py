"""The model card of a policy and the report of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from router_r1_graph import protocol
from router_r1_graph.words import plain

from .config import RunConfig
from .questions import how_held_out

_USABLE = 0.5
"""Share of readable answers below which nobody should use a policy."""


def write_report(
    config: RunConfig, measured: Mapping[str, Mapping[str, float]], policy: Path
) -> None:
    """Write `report.md` beside the policy and the model card inside it."""
    table = _table(measured)
    record = yaml.safe_load((config.out / "config.yaml").read_text(encoding="utf-8"))
    made = f"Made {record['date'][:10]} at commit {record['commit'][:12]} by `{record['command']}`"
    stages = ", ".join(config.stages)
    about = f"""{made}, stages {stages}, seed {config.seed}. Protocol version {protocol.VERSION}.

Held-out questions, greedy, cost weight 0.5. {how_held_out(config.data)}

{table}

The warm start taught the format, how to split a question and how to read descriptors aloud; whom to
ask was drawn from habits good and bad in equal parts, so that choosing was learned from reward
(scale {config.reward.scale}, {"gated" if config.reward.gated else "not gated"}).
"""
    (config.out / "report.md").write_text(f"# {config.out.name}\n\n{about}", encoding="utf-8")
    card = f"""---
license: apache-2.0
library_name: transformers
tags: [router-r1, langgraph, llm-router]
---

# A Router-R1 policy

{about}
{next_step(measured, policy)}

In Python: `PolicyController.from_pretrained(...)` as the controller of `create_router_r1`.
"""
    (policy / "README.md").write_text(card, encoding="utf-8")


def next_step(measured: Mapping[str, Mapping[str, float]], policy: Path) -> str:
    """Say how the policy is used, or that it cannot be yet: most of what it writes is unreadable.

    Args:
        measured: the stages in order, each with the means over held-out questions.
        policy: its folder.
    """
    share = list(measured.values())[-1].get("format", 1.0) if measured else 1.0
    if share < _USABLE:
        return (
            f"Not usable yet: {share:.0%} of its answers to held-out questions can be read (format "
            f"{share:.2f}). It needs more training, as in training/configs/demo.yaml; to see what "
            f"it writes: --controller policy:{policy}"
        )
    return f'Use it: router-r1 ask "Who wrote Hamlet?" --controller policy:{policy}'


def _table(measured: Mapping[str, Mapping[str, float]]) -> str:
    names = list(next(iter(measured.values()), {}))
    if not names:
        return "not measured"
    lines = ["| after | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for stage, numbers in measured.items():
        lines.append("| " + " | ".join([stage, *(plain(numbers[n], 4) for n in names)]) + " |")
    return "\n".join(lines)
