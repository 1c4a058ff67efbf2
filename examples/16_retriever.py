"""A retriever as a candidate beside LLMs: search first, or ask an LLM at once.

The documents reach the LLM because of `candidate_context="memory"`. The LLM is a fake one here, so
that this runs offline; in a pool file, `options: {object: "my_app.search:handbook"}` replaces
`models=`.

Prints:
    How many days of leave do we have? 30 days
      asked: Handbook $0.000100, Writer $0.000032
    Who wrote Hamlet? Shakespeare
      asked: Writer $0.000016
"""

from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.retrievers import BaseRetriever

from router_r1_graph import Call, Candidate, CandidatePool, Turn, View, create_router_r1

LINES = ("Leave: 30 days a year.", "Expenses: within 4 weeks.", "Sick leave: call first.")


class Handbook(BaseRetriever):
    """Finds the lines of a handbook that share a word with the query."""

    def _get_relevant_documents(self, query: str, **_: object) -> list[Document]:
        words = set(query.lower().split())
        shared = (line for line in LINES if words & set(line.lower().replace(":", "").split()))
        return [Document(line) for line in shared]


class LookUpFirst:
    """Sends questions about "us" to the handbook first; the other choice is not to retrieve."""

    def decide(self, view: View) -> Turn:
        """Ask the handbook, then the writer, then answer with the writer's reply."""
        asked = [reply.candidate for reply in view.replies]
        if "Writer" in asked:
            return Turn(answer=view.replies[-1].reply)
        look_up = " we " in view.question and not asked
        return Turn(calls=(Call("Handbook" if look_up else "Writer", view.question),))


handbook = Candidate(name="Handbook", provider="retriever", usd_per_call=0.0001)
writer = Candidate(name="Writer", input_usd_per_mtok=0.5, output_usd_per_mtok=2.0)
pool = CandidatePool(candidates=(handbook, writer))
models = {"Handbook": Handbook(), "Writer": FakeListChatModel(responses=["30 days", "Shakespeare"])}
graph = create_router_r1(pool, LookUpFirst(), models=models).compile()
for question in ("How many days of leave do we have?", "Who wrote Hamlet?"):
    result = graph.invoke({"question": question}, context={"candidate_context": "memory"})
    lines = result["ledger"]["candidates"].items()
    print(question, result["answer"])
    print("  asked:", ", ".join(f"{name} ${line['cost_usd']:.6f}" for name, line in lines))
