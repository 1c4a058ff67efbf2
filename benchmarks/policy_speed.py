"""How fast a policy is: loading, the first answer, and questions at once against one at a time.

    python -m benchmarks.policy_speed POLICY [--device cpu]

In a process of its own, so that nothing is loaded or kept beforehand. The questions have two hops,
in test wordings, in the embedded pool. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_AT_ONCE = 8


@dataclass(frozen=True)
class Speed:
    """Seconds, and questions per second.

    Attributes:
        device: what computed.
        import_seconds: importing torch, transformers and the router.
        load_seconds: loading the policy.
        first_seconds: from the first question to its answer.
        alone: questions per second, one at a time.
        together: questions per second, eight at once.
        load_average: of the machine, before anything was measured.
    """

    device: str
    import_seconds: float
    load_seconds: float
    first_seconds: float
    alone: float
    together: float
    load_average: float


def speed(policy: str, device: str) -> Speed | None:
    """Measure in a process of its own; None where there is no such device, or it failed."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return None
    command = [sys.executable, "-m", "benchmarks.policy_speed", policy, "--device", device]
    root = Path(__file__).parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    run = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, cwd=root, env=environment
    )
    return None if run.returncode else Speed(**json.loads(run.stdout.splitlines()[-1]))


def measure(policy: str, device: str, threads: int = 2, count: int = _AT_ONCE) -> Speed:
    """Measure in this process, with as many threads; `count` questions alone and at once."""
    load_average = os.getloadavg()[0]
    start = time.perf_counter()
    import torch

    from router_r1_graph import CandidatePool, RouterContext
    from router_r1_graph.controllers.policy.controller import PolicyController
    from router_r1_graph.simulation import World, generate
    from training.items import Item
    from training.rollouts import roll_out

    imported = time.perf_counter()
    torch.set_num_threads(threads)
    controller = PolicyController.from_pretrained(policy, device=device)
    loaded = time.perf_counter()
    pool, knobs = CandidatePool.embedded(), RouterContext()
    drawn = generate(World.embedded(), split="test", n=count + 1, seed=1, hops=2, wordings="test")
    first, *items = [Item(q.id, q.text, q.gold, pool, knobs) for q in drawn]

    def seconds(asked: list[Item], at_once: int) -> float:
        controller.generator.forget()  # the prompt of an earlier question may be kept
        began = time.perf_counter()
        roll_out(asked, controller, in_flight=at_once)
        return time.perf_counter() - began

    return Speed(
        torch.cuda.get_device_name() if device == "cuda" else f"{threads} threads",
        imported - start,
        loaded - imported,
        seconds([first], 1),
        count / seconds(items, 1),
        count / seconds(items, count),
        load_average,
    )


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policy")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(json.dumps(asdict(measure(arguments.policy, arguments.device))))


if __name__ == "__main__":
    main()
