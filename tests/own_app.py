"""Applications around the router, as a user has them: what `graph: own_app:NAME` names in tests."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt


class Letter(TypedDict, total=False):
    """The state of `letter`, in which nothing is called as in the router's."""

    question: str
    reply: str
    words: int


def letter(router: Any) -> StateGraph[Letter]:
    """Ask the router from a node, and write what it says into a letter."""

    async def ask(state: Letter) -> Letter:
        found = await router.ainvoke({"question": state["question"]})
        return {"reply": found["answer"]}

    def write(state: Letter) -> Letter:
        reply = f"Dear reader, it is {state['reply']}."
        return {"reply": reply, "words": len(reply.split())}

    graph = StateGraph(Letter).add_node("ask", ask).add_node("write", write)
    return graph.add_edge(START, "ask").add_edge("ask", "write")


def chat(router: Any) -> Any:
    """Have the router as a node that shares `messages`, with a checkpointer."""

    def thank(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("You are welcome.")]}

    graph = StateGraph(MessagesState).add_node("router", router).add_node("thank", thank)
    graph.add_edge(START, "router").add_edge("router", "thank")
    return graph.compile(checkpointer=InMemorySaver())


def twice(router: Any) -> Any:
    """Ask the router twice, the second time about what it said; from a plain function."""

    def ask(state: Letter) -> Letter:
        first = router.invoke({"question": state["question"]})["answer"]
        second = router.invoke({"question": f"Who wrote {first or 'Emma'}?"})["answer"]
        return {"reply": f"{first}, {second}"}

    return StateGraph(Letter).add_node("ask", ask).add_edge(START, "ask").compile()


WAITS = [0.0, 0.0]
"""How long each branch of `both` waits before it asks, in seconds."""


def both(router: Any) -> Any:
    """Ask the router twice at once."""

    async def ask(state: Letter) -> Letter:
        async def one(question: str, wait: float) -> str:
            await asyncio.sleep(wait)
            return str((await router.ainvoke({"question": question}))["answer"])

        asked = zip((state["question"], "Who wrote Emma?"), WAITS, strict=True)
        return {"reply": ", ".join(await asyncio.gather(*(one(*a) for a in asked)))}

    return StateGraph(Letter).add_node("ask", ask).add_edge(START, "ask").compile()


def odd(router: Any) -> Any:
    """Leave a state that no file can hold."""

    async def ask(state: Letter) -> Letter:
        await router.ainvoke({"question": state["question"]})
        return {"reply": "half a \ud83d letter"}

    return StateGraph(Letter).add_node("ask", ask).add_edge(START, "ask").compile()


def odd_error(router: Any) -> Any:
    """Fail with a text that no file can hold."""

    async def ask(state: Letter) -> Letter:
        raise ValueError("half a \ud83d letter")

    return StateGraph(Letter).add_node("ask", ask).add_edge(START, "ask").compile()


def threads(router: Any) -> Any:
    """Ask the router in a thread that knows nothing of the run around it."""

    def ask(state: Letter) -> Letter:
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(router.invoke, {"question": state["question"]}).result()
        return {"reply": found["answer"]}

    return StateGraph(Letter).add_node("ask", ask).add_edge(START, "ask").compile()


def never(router: Any) -> Any:
    """Never ask the router."""
    graph = StateGraph(Letter).add_node("ask", lambda state: {"reply": "I know that myself."})
    return graph.add_edge(START, "ask").compile()


def breaks(router: Any) -> Any:
    """Ask the router, then fail."""

    async def ask(state: Letter) -> Letter:
        await router.ainvoke({"question": state["question"]})
        raise ConnectionError("the database is away")

    return StateGraph(Letter).add_node("ask", ask).add_edge(START, "ask").compile()


def waits(router: Any) -> Any:
    """Wait for a person before the router is asked."""

    def ask(state: Letter) -> Letter:
        return {"reply": interrupt("may I?")}

    graph = StateGraph(Letter).add_node("ask", ask).add_edge(START, "ask")
    return graph.compile(checkpointer=InMemorySaver())


class Order(TypedDict):
    """An input that has no question."""

    item: str


def other(router: Any) -> Any:
    """Take something else than a question."""
    return StateGraph(Order).add_node("ask", lambda state: {}).add_edge(START, "ask").compile()


def none(router: Any) -> None:
    """Return no graph."""


def broken(router: Any) -> Any:
    """Cannot be made."""
    raise ValueError("no such index")


def short(trace: Any) -> dict[str, float]:
    """Reward short letters, and bill what the letter cost."""
    return {"short": 1 / trace.metadata["graph"]["words"], "cost_usd": 0.001}


def fixed(trace: Any) -> float:
    """Reward every run alike."""
    return 0.5
