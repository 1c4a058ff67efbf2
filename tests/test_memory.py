"""What a candidate is told beside its query, and what a round keeps of its replies."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from fakes import FakeChat, PaidController, answer, make_pool, models, search
from router_r1_graph import (
    ChatModelController,
    ChatRouterR1,
    ConfigError,
    RouterContext,
    ScriptedController,
    create_router_r1,
)
from router_r1_graph.budget import Left
from router_r1_graph.candidates import CandidatePool
from router_r1_graph.cli.live import LiveRun
from router_r1_graph.controllers.controller import View
from router_r1_graph.ledger import total
from router_r1_graph.nodes.background import background
from router_r1_graph.trace import Trace

QUESTION = "Where was the author of Hamlet born?"


class Listener(FakeChat):
    """Keeps the whole prompt of each call in `queries`."""

    def _result(self, query: str) -> Any:
        return super()._result(query)

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.queries.append(" | ".join(f"{m.type}: {m.text}" for m in messages))
        return self._result(str(messages[-1].text))


def run(controller: Any, pool: CandidatePool, given: Any = None, **context: Any) -> dict[str, Any]:
    if isinstance(controller, list):
        controller = ScriptedController(controller)
    graph = create_router_r1(pool, controller, models=given or models(pool)).compile()
    return graph.invoke({"question": QUESTION}, context=context)


def shown(result: dict[str, Any]) -> list[str]:
    return [m.text.split("\n(left")[0] for m in result["scratchpad"] if isinstance(m, ToolMessage)]


# --------------------------------------------------------------------------- what is told


def prompts(**context: Any) -> list[str]:
    """Return what Bob is sent in a second round, after Ada was asked in the first."""
    pool = make_pool()
    bob = Listener()
    script = [search("Ada: who wrote Hamlet?"), search("Bob: where was he born?"), answer()]
    run(script, pool, models(pool, Ada=FakeChat(text="Shakespeare"), Bob=bob), **context)
    return bob.queries


def test_a_candidate_is_told_the_query_alone():
    assert prompts() == ["human: where was he born?"]


def test_a_candidate_may_be_told_the_question_too():
    assert prompts(candidate_context="question") == [
        f"system: The query is a part of this question: {QUESTION} | human: where was he born?"
    ]


def test_a_candidate_may_be_told_what_is_known():
    assert prompts(candidate_context="memory") == [
        f"system: The query is a part of this question: {QUESTION}\n"
        "What is known so far:\n- who wrote Hamlet? Shakespeare | human: where was he born?"
    ]


def test_a_tool_and_a_retriever_are_told_nothing_beside_the_query():
    pool = make_pool(*({"name": p, "provider": p} for p in ("tool", "retriever", "graph")))
    context = RouterContext(candidate_context="memory")
    view = View(QUESTION, pool, context, Left(4))
    told = [background(candidate, "?", view) for candidate in pool.candidates]
    assert told == ["", "", f"The query is a part of this question: {QUESTION}"]


def remembered(tokens: int, *, strengths: list[str] | None = None, query: str = "?") -> list[str]:
    pool = make_pool({"name": "Ada", "strengths": strengths or []})
    known = {"the plot of Hamlet": "revenge", "rivers of Denmark": "Gudena", "3 + 4": "7"}
    made = [
        ToolMessage(
            "shown",
            tool_call_id=str(n),
            artifact={"ok": True, "query": query, "reply": reply, "candidate": "Ada"},
        )
        for n, (query, reply) in enumerate(known.items())
    ]
    failed = made[0].model_copy(
        update={"artifact": {"ok": False, "query": "no", "reply": "error: no"}}
    )
    context = RouterContext(candidate_context="memory", memory_tokens=tokens)
    view = View(QUESTION, pool, context, Left(4), scratchpad=(AIMessage(""), *made, failed))
    return background(pool.candidates[0], query, view).splitlines()[2:]


def test_what_is_known_stands_in_the_order_it_came_in_and_without_failures():
    assert remembered(300) == [
        "- the plot of Hamlet revenge",
        "- rivers of Denmark Gudena",
        "- 3 + 4 7",
    ]


def test_a_small_memory_keeps_what_fits_the_query():
    assert remembered(7, query="who dies in Hamlet?") == ["- the plot of Hamlet revenge"]


def test_a_small_memory_keeps_what_fits_the_candidates_strengths():
    assert remembered(7, strengths=["rivers and lakes"]) == ["- rivers of Denmark Gudena"]


def test_where_nothing_fits_better_the_latest_is_kept():
    assert remembered(3) == ["- 3 + 4 7"]


def test_what_does_not_fit_into_the_memory_is_not_told():
    assert remembered(1) == []


def test_what_a_candidate_is_told_counts_in_the_worst_case():
    pool = make_pool("Ada")
    script = [search("Ada: ?"), answer()]
    alone = pool.candidates[0].worst_case_usd("?")
    assert total(run(script, pool, budget_usd=alone)["ledger"])["calls"] == 1
    told = run(script, pool, budget_usd=alone, candidate_context="question")
    assert (total(told["ledger"])["calls"], told["stop_reason"]) == (0, "budget_usd")


# ---------------------------------------------------------------------------- what is kept: vote


def voters(**said: str) -> tuple[CandidatePool, dict[str, Any]]:
    pool = make_pool(*said)
    return pool, {name: FakeChat(text=text) for name, text in said.items()}


def test_of_replies_to_one_query_the_one_that_most_agree_with_is_kept():
    pool, given = voters(Ada="Oslo", Bob="The answer is Paris.", Eve="Paris")
    result = run([search("Ada: ?", "Bob: ?", "Eve: ?"), answer()], pool, given, keep="vote")
    assert shown(result) == [
        "(not kept: 2 of 3 say as Bob)",
        "The answer is Paris.",
        "(not kept: 2 of 3 say as Bob)",
    ]
    artifacts = [m.artifact for m in result["scratchpad"] if isinstance(m, ToolMessage)]
    assert [a["reply"] for a in artifacts] == ["Oslo", "The answer is Paris.", "Paris"]
    assert total(result["ledger"])["calls"] == 3


def test_where_nobody_agrees_the_first_is_kept():
    pool, given = voters(Ada="I do not know.", Bob="Oslo", Eve="Paris")
    result = run([search("Ada: ?", "Bob: ?", "Eve: ?"), answer()], pool, given, keep="vote")
    assert shown(result)[1] == "Oslo"


def test_replies_to_different_queries_do_not_compete():
    pool, given = voters(Ada="Oslo", Bob="Paris")
    result = run([search("Ada: one", "Bob: two"), answer()], pool, given, keep="vote")
    assert shown(result) == ["Oslo", "Paris"]


def test_a_failed_call_has_no_vote():
    pool, given = voters(Ada="Oslo", Bob="Paris")
    given["Bob"] = FakeChat(text=ConnectionError("gone"))
    result = run([search("Bob: ?", "Ada: ?"), answer()], pool, given, keep="vote")
    assert shown(result)[0].startswith("error: ")
    assert shown(result)[1] == "Oslo"


def test_an_outvoted_reply_is_never_the_answer():
    pool, given = voters(Ada="Paris", Bob="Paris", Eve="Oslo")
    script = [search("Ada: ?", "Bob: ?", "Eve: ?"), "nothing that can be read"]
    result = run(script, pool, given, keep="vote", max_rounds=1)
    assert (result["stop_reason"], result["answer"]) == ("invalid", "Paris")


# ------------------------------------------------------------------------- what is kept: summary


def summarized(**context: Any) -> tuple[dict[str, Any], Any]:
    pool, given = voters(Ada="He was born in Stratford.", Bob="Stratford is in England.")
    pool = make_pool("Ada", "Bob", {"name": "Eve", "output_usd_per_mtok": 10.0})
    given["Eve"] = eve = FakeChat(text="Stratford, England.", input_tokens=100)
    script = [search("Ada: where?", "Bob: which country?"), answer()]
    return run(script, pool, given, keep="summary:eve", **context), eve


def test_a_round_may_be_summarised_by_a_candidate():
    result, eve = summarized()
    assert shown(result) == [
        "(summary of the round by Eve) Stratford, England.",
        "(in the summary)",
    ]
    assert eve.queries == [
        "Summarise in a few sentences what these replies say that helps to answer the question.\n\n"
        f"Question: {QUESTION}\n\n"
        "Ada on 'where?': He was born in Stratford.\n\n"
        "Bob on 'which country?': Stratford is in England."
    ]
    assert (result["round"], result["stop_reason"]) == (1, "answered")


def test_the_summary_is_on_the_ledger_and_in_the_trace():
    result, _ = summarized()
    assert result["ledger"]["candidates"]["Eve"]["cost_usd"] == pytest.approx(150e-6)
    pool = make_pool("Ada", "Bob", "Eve")
    trace = Trace.from_state(result, pool=pool, controller="scripted")
    assert [call.candidate for call in trace.calls] == ["Ada", "Eve", "Bob"]
    assert trace.calls[1].reply == "Stratford, England."
    paid = sum(call.cost_usd for call in trace.calls)
    assert paid == pytest.approx(total(result["ledger"])["cost_usd"])
    assert len(trace.calls) == total(result["ledger"])["calls"]
    again = Trace.model_validate_json(trace.model_dump_json())
    assert again == trace


def test_what_the_controller_saw_is_what_stands_in_the_scratchpad():
    pool = make_pool("Ada", "Eve")
    chat = FakeChat(text=lambda text: answer() if "(left: " in text else search("Ada: ?"))
    given = {"Ada": FakeChat(text="a long reply"), "Eve": FakeChat(text="short")}
    result = run(ChatModelController(chat), pool, given, keep="summary:Eve")
    (observation,) = [m for m in result["scratchpad"] if isinstance(m, ToolMessage)]
    assert chat.queries[-1] == f"<information> Ada: {observation.text} </information>"
    assert "a long reply" not in chat.queries[-1]


def test_a_summary_that_fails_leaves_all_and_is_on_the_ledger():
    pool = make_pool("Ada", "Eve")
    given = {"Ada": FakeChat(text="Paris"), "Eve": FakeChat(text=ConnectionError("gone"))}
    result = run([search("Ada: ?"), answer()], pool, given, keep="summary:Eve")
    assert shown(result) == ["Paris"]
    assert result["ledger"]["candidates"]["Eve"]["failed_calls"] == 1


def test_a_summary_that_could_cost_more_than_is_left_is_not_made():
    result, eve = summarized(budget_usd=0.0006)
    assert eve.queries == []
    assert shown(result) == ["He was born in Stratford.", "Stratford is in England."]


def test_a_round_without_a_usable_reply_is_not_summarised():
    pool = make_pool("Ada", "Eve")
    given = {"Ada": FakeChat(text=ConnectionError("gone")), "Eve": (eve := FakeChat())}
    run([search("Ada: ?"), search("Bob: ?"), answer()], pool, given, keep="summary:Eve")
    assert eve.queries == []


@pytest.mark.parametrize("limit", range(3, 16))
def test_a_low_recursion_limit_ends_in_an_answer_with_summaries_too(limit):
    pool = make_pool()
    controller = ScriptedController([search("Ada: 1"), search("Ada: 2"), search("Ada: 3")])
    graph = create_router_r1(pool, controller, models=models(pool)).compile()
    context = {"keep": "summary:Bob", "max_rounds": 100}
    result = graph.invoke({"question": "?"}, {"recursion_limit": limit}, context=context)
    assert result["stop_reason"] in ("round_limit", "invalid")


def test_a_reply_of_an_earlier_round_is_summarised_once():
    """A repeated call is answered from the scratchpad, without the summary that stood there."""
    pool = make_pool("Ada", "Eve")
    given = {"Ada": FakeChat(text="Paris"), "Eve": FakeChat(text="short")}
    script = [search("Ada: ?"), search("Ada: ?"), answer()]
    result = run(script, pool, given, keep="summary:Eve")
    trace = Trace.from_state(result, pool=pool, controller="scripted")
    assert len([c for c in trace.calls if not c.cached]) == total(result["ledger"])["calls"]


def test_memory_is_of_what_was_kept():
    pool = make_pool("Ada", "Bob", "Eve")
    given = {"Ada": FakeChat(text="a long reply"), "Eve": FakeChat(text="short")}
    given["Bob"] = bob = Listener()
    script = [search("Ada: one"), search("Bob: two"), answer()]
    run(script, pool, given, keep="summary:Eve", candidate_context="memory")
    assert "- one short |" in bob.queries[0]


async def test_a_followed_run_shows_the_summary_too():
    pool = make_pool("Ada", "Eve")
    context = RouterContext(keep="summary:Eve")
    graph = create_router_r1(
        pool, ScriptedController([search("Ada: ?"), answer()]), models=models(pool)
    )
    live = LiveRun(graph.compile(), pool, QUESTION, context)
    await live.run()
    assert [call["candidate"] for call in live.known()["calls"]] == ["Ada", "Eve"]
    assert total(live.ledger()) == total(live.state["ledger"])


# ------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("knob", "value", "says"),
    [
        ("keep", "some", "keep is all, vote, or summary:CANDIDATE, not 'some'"),
        ("keep", "summary:", "not 'summary:'"),
        ("keep", None, "not None"),
        ("candidate_context", "querry", "did you mean 'query'"),
        ("memory_tokens", 0, "memory_tokens is a whole number of at least 1"),
        ("memory_tokens", 2.5, "memory_tokens is a whole number"),
        ("approve_above_usd", -1, "approve_above_usd is a number of at least 0"),
    ],
)
def test_a_knob_that_makes_no_sense_is_named(knob, value, says):
    with pytest.raises(ConfigError) as raised:
        RouterContext(**{knob: value})
    assert says in str(raised.value)


def test_a_summary_by_nobody_is_an_error_before_anything_is_asked():
    pool = make_pool()
    controller = PaidController([search("Ada: ?")])
    with pytest.raises(ConfigError, match="keep: no candidate 'Adda'"):
        run(controller, pool, keep="summary:Adda")
    assert controller.views == []
    with pytest.raises(ConfigError, match="keep: no candidate 'Adda'"):
        ChatRouterR1(pool=pool, controller=controller, models=models(pool), keep="summary:Adda")


def test_a_chat_model_has_these_knobs_too():
    pool, given = voters(Ada="Paris", Bob="Paris", Eve="Oslo")
    script = [search("Ada: ?", "Bob: ?", "Eve: ?"), "nothing"]
    model = ChatRouterR1(
        pool=pool, controller=ScriptedController(script), models=given, max_rounds=1
    )
    assert model.invoke([HumanMessage("?")], keep="vote").text == "Paris"
