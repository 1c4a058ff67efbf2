"""An application that embeds the router, and the reward of its outcome; see train.yaml."""

from typing import Any, TypedDict

from langgraph.graph import START, StateGraph

from router_r1_graph import Trace


class State(TypedDict, total=False):
    """The application's state for a reader's question."""

    question: str
    answer: str
    letter: str


def make_app(router: Any) -> Any:
    """Return the application around a compiled router; serve it by the same function.

    router = create_router_r1("mine.yaml", "policy:runs/own_graph/policy").compile()
    app = make_app(router)
    """

    async def ask(state: State) -> State:
        found = await router.ainvoke({"question": state["question"]})
        return {"answer": found["answer"]}

    def write(state: State) -> State:
        return {"letter": f"Dear reader, the answer is {state['answer']}. Yours, the library"}

    graph = StateGraph(State).add_node("ask", ask).add_node("write", write)
    return graph.add_edge(START, "ask").add_edge("ask", "write").compile()


def helpful(trace: Trace) -> dict[str, float]:
    """Judge the letter, not the router's answer: it has to be right, and short."""
    letter = trace.metadata["graph"]["letter"]
    right = any(gold.casefold() in letter.casefold() for gold in trace.gold)
    return {"right": float(right), "short": 1.0 if len(letter.split()) <= 12 else 0.5}
