"""Your own candidates: a YAML file has their endpoints and prices.

`models=` replaces the real chat models with fake ones, so that this runs offline; leave it out to
ask the endpoints in the file. Any LangChain chat model may be passed there.

Prints:
    Small: $0.05 in, $0.1 out per 1M tokens; good at everyday questions
    Large: $2 in, $8 out per 1M tokens; good at mathematics, law
    391 | asked: Small, Large
"""

from pathlib import Path

from langchain_core.language_models import FakeListChatModel

from router_r1_graph import CandidatePool, CascadeController, create_router_r1

pool = CandidatePool.from_yaml(Path(__file__).with_name("pool.yaml"))
for candidate in pool.candidates:
    print(f"{candidate.name}: {candidate.describe()}")

fakes = {
    "Small": FakeListChatModel(responses=["I am not sure."]),
    "Large": FakeListChatModel(responses=["The answer is 391."]),
}
# A cascade asks the cheapest first, then the next in price while replies are doubtful.
graph = create_router_r1(pool, CascadeController(), models=fakes).compile()
result = graph.invoke({"question": "What is 17 x 23?"})
print(result["answer"], "| asked:", ", ".join(result["ledger"]["candidates"]))
