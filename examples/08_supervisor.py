"""The router as an agent of a supervisor (`pip install langgraph-supervisor`).

The supervisor's own model is scripted here, so that this runs offline; give it yours.

Prints:
    human: What is the capital of the country where the author of Hamlet was born?
    supervisor: ['transfer_to_facts']
    transfer_to_facts: Successfully transferred to facts
    facts: London
    facts: Transferring back to supervisor
    transfer_back_to_supervisor: Successfully transferred back to supervisor
    supervisor: It is London.
"""

from typing import Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph_supervisor import create_supervisor

from router_r1_graph import CandidatePool, KeywordController, create_router_r1_agent


class Scripted(GenericFakeChatModel):
    """A chat model that says its messages one after the other."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        """Take any tools: the script knows which to call."""
        return self


facts = create_router_r1_agent(CandidatePool.embedded(), KeywordController(), name="facts")
hand_over = {"name": "transfer_to_facts", "args": {}, "id": "1"}
said = [AIMessage("", tool_calls=[hand_over]), AIMessage("It is London.")]
supervisor = create_supervisor([facts], model=Scripted(messages=iter(said))).compile()

question = "What is the capital of the country where the author of Hamlet was born?"
for message in supervisor.invoke({"messages": [("user", question)]})["messages"]:
    calls = [call["name"] for call in getattr(message, "tool_calls", [])]
    print(f"{message.name or message.type}: {message.text or calls}")
