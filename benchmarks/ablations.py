"""What changes in GRPO when one of its settings does: from one warm start, on the same questions.

    python -m benchmarks.ablations [POLICY] [--steps 30] [--traces 128] [--rate 1e-4]

POLICY is where all begin; `runs/demo/warm_start/policy` when left out. Each variant is a run of
`training/finetune.py` with the demo's config, and can be resumed. Then it is asked test questions
of the embedded pool at cost weight 0.5, greedily. Every step of every variant samples the same
number of traces. Rewards are by the rules of smollm2.yaml; intervals are 95% bootstrap over
questions, differences paired.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.evaluation.statistics import Bootstrap
from training.rollouts import roll_out

from .policy_columns import Column
from .policy_comparisons import signed
from .policy_questions import Setting, known

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "training" / "configs" / "demo.yaml"
VARIANTS = {
    "apart, group 8": ("apart", 8),
    "apart, group 16": ("apart", 16),
    "per_call, group 8": ("per_call", 8),
    "sum, group 8": ("sum", 8),
}
"""Name -> advantage, traces of a question."""


def train(name: str, options: argparse.Namespace) -> Path:
    """Train a variant, or resume it; return its policy's folder."""
    advantage, group = VARIANTS[name]
    folder = options.out / name.replace(", group ", "_")
    command = [
        *(sys.executable, str(ROOT / "training" / "finetune.py"), "--config", str(CONFIG)),
        *(
            f"out={folder}",
            "stages=[grpo]",
            f"model.pretrained={options.policy}",
            "evaluate_questions=0",
        ),
        *(f"grpo.steps={options.steps}", f"grpo.learning_rate={options.rate}"),
        *(f"grpo.advantage={advantage}", f"grpo.group={group}"),
        f"grpo.questions={options.traces // group}",
    ]
    subprocess.run(command, check=True)
    return folder / "policy"


def asked(name: str, policy: str | Path, count: int) -> Column:
    """Ask a policy test questions."""
    controller = PolicyController.from_pretrained(policy, max_batch=256)
    items = [asked.item for asked in known(Setting(count))]
    return Column.of(name, roll_out(items, controller))


def row(name: str, ours: Column, start: Column) -> str:
    """Return a line of the table."""
    bootstrap = Bootstrap(len(ours.reward))
    gain = bootstrap.difference(ours.reward, start.reward)
    return (
        f"| {name} | {bootstrap.mean(ours.exact_match)} | {ours.format:.3f} | "
        f"{1000 * ours.cost_usd.mean():.4f} | {ours.calls.mean():.2f} | {ours.reward.mean():.3f} | "
        f"{signed(gain)} |"
    )


def main() -> None:
    """Train every variant and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policy", nargs="?", default="runs/demo/warm_start/policy")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--traces", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    arguments = parser.parse_args()
    policies = {name: train(name, arguments) for name in VARIANTS}
    torch.set_num_threads(1)
    start = asked("where all begin", arguments.policy, arguments.questions)
    columns = [asked(name, folder, arguments.questions) for name, folder in policies.items()]
    lines = [row(column.name, column, start) for column in (start, *columns)]
    print(
        f"\n{arguments.steps} steps of {arguments.traces} traces, rate {arguments.rate:g}, "
        f"{arguments.questions} test questions:\n\n"
        "| | exact match | format | USD per 1,000 | calls | reward | against the start |\n"
        "|---|---|---|---|---|---|---|"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
