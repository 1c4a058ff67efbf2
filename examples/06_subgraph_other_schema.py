"""The router inside a graph whose state has other keys: call it in a node, and take what you need.

Prints:
    Who wrote Hamlet? William Shakespeare
    Who wrote Emma? Jane Austen
    $0.000004
"""

import operator
from typing import Annotated

from langgraph.graph import START, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from router_r1_graph import CandidatePool, KeywordController, create_router_r1, total

router = create_router_r1(CandidatePool.embedded(), KeywordController()).compile(name="router")


class Quiz(TypedDict):
    """Questions in, a line for each out, and the cost of all."""

    questions: list[str]
    lines: Annotated[list[str], operator.add]
    cost_usd: Annotated[float, operator.add]


class Ask(TypedDict):
    """One question of the quiz."""

    question: str


def ask(state: Ask) -> dict[str, object]:
    """Run the router on one question; context and tracing go along by themselves."""
    result = router.invoke({"question": state["question"]})
    line = f"{state['question']} {result['answer']}"
    return {"lines": [line], "cost_usd": total(result["ledger"])["cost_usd"]}


def each(state: Quiz) -> list[Send]:
    """Ask all questions at once."""
    return [Send("ask", Ask(question=question)) for question in state["questions"]]


graph = (
    StateGraph(Quiz)
    .add_node("ask", ask, input_schema=Ask)
    .add_conditional_edges(START, each, ["ask"])
    .compile()
)
result = graph.invoke({"questions": ["Who wrote Hamlet?", "Who wrote Emma?"]})
print(*result["lines"], f"${result['cost_usd']:.6f}", sep="\n")
