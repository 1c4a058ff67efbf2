"""The router as a node of a graph that shares `messages`: it adds one message, with its bill.

Prints:
    human: What is the capital of the country where the author of Hamlet was born?
    ai: London
    ai: That took 3 calls (answered).
"""

from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

from router_r1_graph import CandidatePool, KeywordController, create_router_r1

router = create_router_r1(CandidatePool.embedded(), KeywordController()).compile(name="router")


def thank(state: MessagesState) -> dict[str, list[AIMessage]]:
    """Say something after the router has."""
    bill = state["messages"][-1].response_metadata["router_r1"]
    return {"messages": [AIMessage(f"That took {bill['calls']} calls ({bill['stop_reason']}).")]}


graph = (
    StateGraph(MessagesState)
    .add_node("router", router)
    .add_node("thank", thank)
    .add_edge(START, "router")
    .add_edge("router", "thank")
    .compile()
)
question = "What is the capital of the country where the author of Hamlet was born?"
for message in graph.invoke({"messages": [("user", question)]})["messages"]:
    print(f"{message.type}: {message.text}")
