"""Two routers over different pools in one graph, side by side, each with its own bill.

Prints:
    embedded: London, 3 calls, $0.000009
    embedded_unseen: London, 3 calls, $0.000011
"""

from langgraph.graph import START, MessagesState, StateGraph

from router_r1_graph import CandidatePool, KeywordController, create_router_r1_agent

graph = StateGraph(MessagesState)
for name in ("embedded", "embedded_unseen"):
    pool = CandidatePool.from_yaml(name)
    graph.add_node(name, create_router_r1_agent(pool, KeywordController(), name=name))
    graph.add_edge(START, name)

question = "What is the capital of the country where the author of Hamlet was born?"
_, *answers = graph.compile().invoke({"messages": [("user", question)]})["messages"]
for message in answers:
    bill = message.response_metadata["router_r1"]
    print(f"{message.name}: {message.text}, {bill['calls']} calls, ${bill['cost_usd']:.6f}")
