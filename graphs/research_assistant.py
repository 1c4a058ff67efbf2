"""A small research assistant that embeds the router: plan -> (one Send per question) ask -> write.

It shows the router as a part of a larger graph: each question of the brief is a run of the router,
in parallel; the settings of the assistant (`context`) are the router's; the costs are added up.
"""

from __future__ import annotations

import operator
import re
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Overwrite, Send
from typing_extensions import TypedDict

from graphs import pool_and_controller, served
from router_r1_graph import QuestionError, RouterContext, create_router_r1, total

router = create_router_r1(*pool_and_controller(), stream_steps=False).compile(name="router")


class Finding(TypedDict):
    """The router's answer to one question."""

    question: str
    answer: str
    stop_reason: str
    calls: int
    cost_usd: float


class Brief(TypedDict):
    """The conversation; its last human message is the brief: questions, in any number."""

    messages: Annotated[list[AnyMessage], add_messages]


class Research(Brief, total=False):
    """The state of the assistant."""

    questions: list[str]
    findings: Annotated[list[Finding], operator.add]


class Ask(TypedDict):
    """The payload of one `Send` to the router."""

    question: str


def plan(state: Research) -> dict[str, Any]:
    """Split the brief into questions: at question marks, semicolons and line breaks.

    Raises:
        QuestionError: there is none.
    """
    humans = (m for m in reversed(state["messages"]) if isinstance(m, HumanMessage))
    brief = next((m.text for m in humans), "")
    parts = (part.strip(" -*;\t") for part in re.split(r"(?<=\?)\s+|[;\n]+", brief))
    questions = list(dict.fromkeys(part for part in parts if part))
    if not questions:
        raise QuestionError("the brief is empty: the last human message holds no question")
    return {"questions": questions, "findings": Overwrite([])}


def fan_out(state: Research) -> list[Send]:
    """Send each question to the router."""
    return [Send("ask", Ask(question=question)) for question in state["questions"]]


async def ask(state: Ask) -> dict[str, Any]:
    """Run the router on one question; it takes the assistant's context over."""
    result = await router.ainvoke({"question": state["question"]})
    bill = total(result["ledger"])
    finding = Finding(
        question=state["question"],
        answer=result["answer"],
        stop_reason=result["stop_reason"],
        calls=bill["calls"],
        cost_usd=bill["cost_usd"],
    )
    return {"findings": [finding]}


def write(state: Research) -> dict[str, Any]:
    """Write the findings up, in the order of the brief, with their cost."""
    findings = state["findings"]
    lines = [f"- {f['question']} {f['answer'] or '(no answer)'}" for f in findings]
    cost, calls = sum(f["cost_usd"] for f in findings), sum(f["calls"] for f in findings)
    bill = f"{len(findings)} questions, {calls} calls, ${cost:.6f}"
    message = AIMessage(
        "\n".join([*lines, "", bill]),
        name="research_assistant",
        response_metadata={"cost_usd": cost, "calls": calls},
    )
    return {"messages": [message]}


graph = (
    StateGraph(Research, context_schema=RouterContext, input_schema=Brief)
    .add_node("plan", plan)
    .add_node("ask", ask, input_schema=Ask)
    .add_node("write", write)
    .add_edge(START, "plan")
    .add_conditional_edges("plan", fan_out, ["ask"])
    .add_edge("ask", "write")
    .set_finish_point("write")
    .compile(name="research_assistant")
)
serve = served(graph)
