"""The controller is one argument: rules, a chat model, a trained policy, or your own class.

Prints:
    fastest: Mark Twain | calls: 1, $0.000002
    cheapest: Mark Twain | calls: 1, $0.000002
    cascade: Mark Twain | calls: 1, $0.000002
    vote:3: Mark Twain | calls: 3, $0.000015
    keyword: pound sterling | calls: 3, $0.000010
    oracle: pound sterling | calls: 3, $0.000010
"""

from router_r1_graph import (
    Call,
    CandidatePool,
    RuleController,
    Turn,
    View,
    create_router_r1,
    parse_controller,
    total,
)


class Fastest(RuleController):
    """Asks the candidate with the lowest latency, and believes it."""

    name = "fastest"

    def turn(self, view: View) -> Turn:
        """Make one call, then answer with its reply."""
        if view.replies:
            return Turn(answer=view.replies[-1].reply)
        fastest = min(view.pool.candidates, key=lambda c: c.latency_seconds or 0)
        return Turn(calls=(Call(fastest.name, view.question),))


pool = CandidatePool.embedded()
question = "What is the currency of the country where the author of Hamlet was born?"
specs = ["cheapest", "cascade", "vote:3", "keyword", "oracle"]
for controller in [Fastest(), *(parse_controller(spec, pool) for spec in specs)]:
    result = create_router_r1(pool, controller).compile().invoke({"question": question})
    bill = total(result["ledger"])
    print(
        f"{controller.name}: {result['answer']} | calls: {bill['calls']}, ${bill['cost_usd']:.6f}"
    )
