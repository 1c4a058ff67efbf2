"""How often the warm start's teacher is right, by kind of question, and what that costs.

    python -m benchmarks.teacher                       1,500 drawn questions of training
    python -m benchmarks.teacher -n 500 --split test

It knows the plans and asks at random: a policy that imitates it cannot be much better before its
rewards teach it whom to ask.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from router_r1_graph.answers import exact_match
from router_r1_graph.ledger import price_usd, total
from training.config import load_config
from training.english_teacher import EnglishTeacher
from training.items import TaughtItem, draw_items
from training.rollouts import roll_out


def main() -> None:
    """Draw questions as the config says, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("training/configs/smollm2.yaml"))
    parser.add_argument("-n", "--questions", type=int, default=1500)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    data = load_config(given.config).data
    items = draw_items(data, given.questions, given.seed, split=given.split)
    lessons = {i.question: i.lesson for i in items if isinstance(i, TaughtItem) and i.lesson}
    traces = roll_out(items, EnglishTeacher(lessons, given.seed), name="teacher")
    rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for item, trace in zip(items, traces, strict=True):
        lesson = lessons.get(item.question)
        cost = price_usd(total(trace.ledger))
        figures = (float(exact_match(trace.answer, trace.gold)), cost, float(trace.rounds))
        for row in ("all", *((lesson.kind, f"{lesson.hops} hops") if lesson else ("none to ask",))):
            rows[row].append(figures)
    print("| questions | number | exact match | USD a question | rounds |\n|---|---|---|---|---|")
    for row, found in sorted(rows.items()):
        right, usd, rounds = map(fmean, zip(*found, strict=True))
        print(f"| {row} | {len(found):,} | {right:.3f} | {usd:.6f} | {rounds:.2f} |")


if __name__ == "__main__":
    main()
