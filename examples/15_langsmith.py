"""The look of a run in LangSmith: here a client shows its runs instead of sending them.

With `LANGSMITH_TRACING=true` and a key in the environment, any run is traced with no code at all.
`TextlessClient` sends names, numbers and metadata, but no text.

Prints:
    router_r1
      think
      route:Quillora
        Quillora
          Quillora $0.000002
      think
"""

from typing import Any

from langsmith import Client, tracing_context

from router_r1_graph import CandidatePool, KeywordController, create_router_r1


class Shown(Client):
    """Keeps the runs that a real client would send, by their place in the tree."""

    tree: dict[str, dict[str, Any]]

    def create_run(self, name: str, inputs: Any, run_type: Any, **run: Any) -> None:
        """Ignore a run's start: its end has everything."""

    def update_run(self, run_id: Any, **run: Any) -> None:
        """Keep a finished run."""
        self.tree[run["dotted_order"]] = run


client = Shown(api_key="unused", auto_batch_tracing=False)
client.tree = {}
graph = create_router_r1(CandidatePool.embedded(), KeywordController()).compile(name="router_r1")
with tracing_context(enabled=True, client=client, project_name="examples"):
    graph.invoke({"question": "Who wrote Hamlet?"})
for place, run in sorted(client.tree.items()):
    # Nodes that ask nobody: LangSmith's own client receives them only if they fail.
    if "langsmith:hidden" not in run["tags"] and run["name"] not in ("aggregate", "answer"):
        usage = run["extra"].get("metadata", {}).get("usage_metadata")
        cost = f" ${usage['total_cost']:.6f}" if usage else ""
        print("  " * place.count(".") + run["name"] + cost)
