"""Ask one question. The pool is simulated: no key, no network.

Prints:
    London
    answered: 3 rounds, 3 calls
    Quillora: 8 + 3 tokens, $0.000002
    Ancestil: 13 + 9 tokens, $0.000006
    Vantegro: 12 + 1 tokens, $0.000001
"""

from router_r1_graph import CandidatePool, KeywordController, create_router_r1, total

graph = create_router_r1(CandidatePool.embedded(), KeywordController()).compile()
question = "What is the capital of the country where the author of Hamlet was born?"
result = graph.invoke({"question": question})
bill = total(result["ledger"])
print(result["answer"])
print(f"{result['stop_reason']}: {result['round']} rounds, {bill['calls']} calls")
for name, line in result["ledger"]["candidates"].items():
    print(
        f"{name}: {line['input_tokens']} + {line['output_tokens']} tokens, ${line['cost_usd']:.6f}"
    )
