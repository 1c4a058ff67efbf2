"""Compare controllers over questions with gold answers: 95% intervals, and controls beside them.

`router-r1 evaluate` is the same as a command; with `out=` it writes a report (extra `eval`).

Prints:
    40 questions, best single candidate: constant:Magnivor
    keyword: 0.95 (0.88 to 1.00), $0.0513 per 1,000
    constant:Magnivor: 0.88 (0.78 to 0.95), $0.2083 per 1,000
    random: 0.38 (0.23 to 0.53), $0.2079 per 1,000
    oracle: 1.00 (1.00 to 1.00), $0.0121 per 1,000
"""

from router_r1_graph import CandidatePool, Evaluation, Reader, evaluate

plan = Evaluation(
    pool=CandidatePool.embedded(),
    questions=Reader(["demo"], limit=40).read(),  # or files: Reader(["mine.jsonl"])
    controllers=["keyword"],
)
summary = evaluate(plan)
print(f"{summary.questions} questions, best single candidate: {summary.constant_best}")
for row in summary.rows:
    if row.controller in ("keyword", summary.constant_best, "random", "oracle"):
        score, cost = row.measures["exact_match"], row.measures["cost_usd"]
        interval = f"{score.mean:.2f} ({score.low:.2f} to {score.high:.2f})"
        print(f"{row.controller}: {interval}, ${1000 * cost.mean:.4f} per 1,000")
