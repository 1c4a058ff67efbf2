"""The router inside a LangChain agent: a small model answers, a big one repairs failures.

The models are scripted; without `models`, the endpoints of the pool are asked.

Prints:
    Junior: run_tests {'fix': False}
    tool: error: 2 failed
    Senior: run_tests {'fix': True}
    tool: all passed
    Senior: All tests pass.
    {'Junior': 0.0002, 'Senior': 0.0055}
"""

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from router_r1_graph import CandidatePool, RouterMiddleware


@tool
def run_tests(fix: bool) -> str:
    """Run the tests."""
    return "all passed" if fix else "error: 2 failed"


class Scripted(GenericFakeChatModel):
    """A chat model that says its messages one after the other, with any tools."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        """Take any tools."""
        return self


def says(text: str, **args: Any) -> AIMessage:
    usage = {"input_tokens": 500, "output_tokens": 100, "total_tokens": 600}
    calls = [{"name": "run_tests", "args": args, "id": "1"}] if args else []
    return AIMessage(text, tool_calls=calls, usage_metadata=usage)


models = {
    "Junior": Scripted(messages=iter([says("", fix=False)])),
    "Senior": Scripted(messages=iter([says("", fix=True), says("All tests pass.")])),
}
junior = {"name": "Junior", "input_usd_per_mtok": 0.2, "output_usd_per_mtok": 0.8}
senior = {"name": "Senior", "input_usd_per_mtok": 2.5, "output_usd_per_mtok": 15}
pool = CandidatePool.model_validate({"candidates": [junior, senior]})
router = RouterMiddleware(pool, "sticky", models=models)  # after a failed step the next in price
agent = create_agent(router.default_model, [run_tests], middleware=[router])
state = agent.invoke({"messages": [("user", "Make the tests pass.")]})
for message in state["messages"][1:]:
    said = message.text or "{name} {args}".format(**message.tool_calls[0])
    print(f"{message.response_metadata.get('router_r1', {}).get('candidate', 'tool')}: {said}")
paid = state["router_r1"]["ledger"]["candidates"]
print({name: round(line["cost_usd"], 4) for name, line in paid.items()})
