"""The router inside a LangChain agent: a small model answers the steps, a big one mends failures.

The candidates' models are scripted here, so that this runs offline; leave `models` out to use what
your pool names.

Prints:
    Junior: run_tests {'path': 'tests'}
    tool: error: 2 failed
    Senior: edit {'file': 'sums.py'}
    tool: changed
    Senior: run_tests {'path': 'tests'}
    tool: all passed
    Senior: All tests pass.
    4 steps, $0.0084; Junior $0.0002, Senior $0.0083
"""

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from router_r1_graph import CandidatePool, RouterMiddleware, total

results = iter(["error: 2 failed", "all passed"])


@tool
def run_tests(path: str) -> str:
    """Run the tests in a folder."""
    return next(results)


@tool
def edit(file: str) -> str:
    """Change a file."""
    return "changed"


class Scripted(GenericFakeChatModel):
    """A chat model that says its messages one after the other."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        """Take any tools: the script knows which to call."""
        return self


def says(text: str, tool_name: str = "", **args: Any) -> AIMessage:
    usage = {"input_tokens": 500, "output_tokens": 100, "total_tokens": 600}
    calls = [{"name": tool_name, "args": args, "id": tool_name}] if tool_name else []
    return AIMessage(text, tool_calls=calls, usage_metadata=usage)


models = {
    "Junior": Scripted(messages=iter([says("", "run_tests", path="tests")])),
    "Senior": Scripted(
        messages=iter(
            [
                says("", "edit", file="sums.py"),
                says("", "run_tests", path="tests"),
                says("All tests pass."),
            ]
        )
    ),
}
cache = {"cached_input_usd_per_mtok": 0.3, "cache_ttl_seconds": 300}
prices = {
    "Junior": {"input_usd_per_mtok": 0.2, "output_usd_per_mtok": 0.8},
    "Senior": {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 15, **cache},
}
pool = CandidatePool.model_validate({"candidates": [{"name": n, **p} for n, p in prices.items()]})

# `sticky`: the cheapest, after a failed step the next in price; nobody is left for a cheaper one.
router = RouterMiddleware(pool, "sticky", models=models)
agent = create_agent(router.default_model, [run_tests, edit], middleware=[router])
state = agent.invoke({"messages": [("user", "Make the tests pass.")]})

for message in state["messages"][1:]:
    if isinstance(message, AIMessage):
        said = message.text or "{name} {args}".format(**message.tool_calls[0])
        print(f"{message.response_metadata['router_r1']['candidate']}: {said}")
    else:
        print(f"tool: {message.text}")
bill = state["router_r1"]
each = [f"{n} ${line['cost_usd']:.4f}" for n, line in bill["ledger"]["candidates"].items()]
usd = total(bill["ledger"])["cost_usd"]
print(f"{len(bill['steps'])} steps, ${usd:.4f}; {', '.join(each)}")
