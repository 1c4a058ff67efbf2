"""Is routing per step worth it? The fitted controller in the embedded world of agents.

    python -m benchmarks.agents --seeds 3

Prints, for each seed, the table of `router-r1 evaluate agents`, and fails unless the fitted
controller solves what the best constant solves at no more than half of its cost, and is worth more
than `sticky` and the rule by difficulty, with intervals clear of zero.
"""

from __future__ import annotations

import argparse
import sys

from router_r1_graph.agents.comparison import compare
from router_r1_graph.cli.agents import AGENT_TASKS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=AGENT_TASKS)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    missed = 0
    for seed in range(given.seeds):
        result = compare(count=given.tasks, seed=seed)
        ours, best = result.rows[0], result.best_constant
        print(f"seed {seed}, cost weight {ours.cost_weight}")
        for row in result.rows:
            print(
                f"  {row.controller:15} solved {row.solved.mean:.3f}  USD {row.cost_usd}  "
                f"lost caches {row.cache_loss_usd:.3f}  calls {row.calls:.1f}  "
                f"changes {row.changes:.1f}  steps is ahead by {row.ahead or '-'}"
            )
        rivals = [r for r in result.rows if r.controller in ("sticky", "difficulty")]
        bars = {
            "solves as many": ours.solved.mean >= best.solved.mean,
            "at half of the cost": ours.cost_usd.mean <= best.cost_usd.mean / 2,
            "beats sticky and difficulty": all(r.ahead and r.ahead.low > 0 for r in rivals),
        }
        print("  " + ", ".join(f"{name}: {'yes' if ok else 'NO'}" for name, ok in bars.items()))
        missed += not all(bars.values())
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
