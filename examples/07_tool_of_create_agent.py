"""The router as a tool of a LangChain agent: the answer is its content, the bill its artifact.

The agent's own model is scripted here, so that this runs offline; give `create_agent` yours.

Prints:
    human: Who wrote Hamlet?
    ai: {'question': 'Who wrote Hamlet?'}
    tool: William Shakespeare
    bill: 1 call, $0.000002
    ai: Shakespeare did.
"""

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from router_r1_graph import CandidatePool, KeywordController, create_router_r1

router = create_router_r1(CandidatePool.embedded(), KeywordController()).compile(name="router")


@tool(response_format="content_and_artifact")
def ask_router(question: str) -> tuple[str, dict[str, Any]]:
    """Find a fact out by asking the right language models."""
    result = router.invoke({"question": question})
    return result["answer"], result["messages"][-1].response_metadata["router_r1"]


class Scripted(GenericFakeChatModel):
    """A chat model that says its messages one after the other."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        """Take any tools: the script knows which to call."""
        return self


call = {"name": "ask_router", "args": {"question": "Who wrote Hamlet?"}, "id": "1"}
model = Scripted(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("Shakespeare did.")]))
agent = create_agent(model, [ask_router])
for message in agent.invoke({"messages": [("user", "Who wrote Hamlet?")]})["messages"]:
    print(f"{message.type}: {message.text or message.tool_calls[0]['args']}")
    if message.type == "tool":
        print(f"bill: {message.artifact['calls']} call, ${message.artifact['cost_usd']:.6f}")
