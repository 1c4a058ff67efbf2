"""A person approves or refuses each call above a price; the other calls are made at once.

The run waits in its checkpoint, for seconds or for days, and then continues with its own settings.

Prints:
    waiting: Orrinthal may cost $0.002803; approved
    waiting: Magnivor may cost $0.004245; refused
    William Shakespeare
    Dovrekin: $0.000017, 0 failed
    Orrinthal: $0.000544, 0 failed
    Magnivor: $0.000000, 1 failed
"""

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from router_r1_graph import CandidatePool, VoteController, create_router_r1

router = create_router_r1(CandidatePool.embedded(), VoteController())
graph = router.compile(checkpointer=InMemorySaver())
thread = {"configurable": {"thread_id": "1"}}
settings = {"approve_above_usd": 0.001, "max_calls_per_round": 8}

result = graph.invoke({"question": "Who wrote Hamlet?"}, thread, context=settings)
verdicts = {}
# The calls were stopped at once, in any order.
for waiting in sorted(result["__interrupt__"], key=lambda w: w.value["worst_case_usd"]):
    call = waiting.value
    verdicts[waiting.id] = call["worst_case_usd"] < 0.004  # a person would be asked here
    verdict = "approved" if verdicts[waiting.id] else "refused"
    print(f"waiting: {call['candidate']} may cost ${call['worst_case_usd']:.6f}; {verdict}")

result = graph.invoke(Command(resume=verdicts), thread)
print(result["answer"])
for name in ("Dovrekin", "Orrinthal", "Magnivor"):
    line = result["ledger"]["candidates"][name]
    print(f"{name}: ${line['cost_usd']:.6f}, {line['failed_calls']} failed")
