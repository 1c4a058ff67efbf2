"""Limits of a run: rounds, USD and seconds. Every run ends with an answer and says why it ended.

Prints:
    {}: answered, $0.000010, 'pound sterling'
    {'max_rounds': 1}: round_limit, $0.000002, 'William Shakespeare'
    {'budget_usd': 0.00012}: budget_usd, $0.000002, 'William Shakespeare'
    {'deadline_seconds': 0}: deadline, $0.000000, ''
"""

from router_r1_graph import CandidatePool, KeywordController, create_router_r1, total

graph = create_router_r1(CandidatePool.embedded(), KeywordController()).compile()
question = "What is the currency of the country where the author of Hamlet was born?"
for context in (
    {},
    {"max_rounds": 1},
    {"budget_usd": 0.00012},
    {"deadline_seconds": 0},
):
    result = graph.invoke({"question": question}, context=context)
    cost = total(result["ledger"])["cost_usd"]
    print(f"{context}: {result['stop_reason']}, ${cost:.6f}, {result['answer']!r}")
