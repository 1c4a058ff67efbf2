"""The router inside LangChain's agents: who answers each step, what it is sent, what it costs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from extras import missing, needs

needs("agents")

from langchain.agents import create_agent
from langchain.agents.middleware import ModelChoice, ModelRetryMiddleware, ModelRouterMiddleware
from langchain_core.decisions import Choice, Noul
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langsmith import tracing_context

from fakes import FakeChat, make_pool
from in_process import cli
from langsmith_sink import LangSmithSink
from openai_server import Reply, Status
from router_r1_graph import (
    AgentStep,
    Call,
    ConfigError,
    ControllerError,
    Left,
    PoolError,
    QuestionError,
    RouterContext,
    RouterDecisionModel,
    RouterMiddleware,
    Turn,
    View,
    parse_controller,
    total,
)
from router_r1_graph.agents.prefixes import prefix_of, warm_tokens
from yaml_pool import ONE_DOLLAR, both_ways, yaml_pool

QUESTION = "Make the tests pass."
CACHED = {**ONE_DOLLAR, "cached_input_usd_per_mtok": 0.1, "cache_ttl_seconds": 300}
BOTH = {"Ada": CACHED, "Bob": {**CACHED, "input_usd_per_mtok": 10.0, "output_usd_per_mtok": 20.0}}


@tool
def run_tests(path: str) -> str:
    """Run the tests of a folder."""
    return "error: 2 failed" if path == "broken" else "all passed"


class Escalates:
    """A controller of one's own: Bob after a failed step, else Ada."""

    def __init__(self) -> None:
        self.views: list[Any] = []

    def decide(self, view: Any) -> Turn:
        self.views.append(view)
        name = "Bob" if view.step.failed else "Ada"
        return Turn(("I choose.",), (Call(name, view.question),))


def wants(path: str, **usage: int) -> Reply:
    return Reply("", tool_calls=[("run_tests", {"path": path})], **usage)


SCRIPT = {
    "ada": [wants("broken", input_tokens=100), Reply("Done.", input_tokens=300)],
    "bob": wants("fixed", input_tokens=200),
}


def ask(agent: Any, how: str, config: Any = None, question: str = QUESTION) -> Any:
    given = {"messages": [("user", question)]}
    if how == "invoke":
        return agent.invoke(given, config)
    return asyncio.run(agent.ainvoke(given, config))


def agent_of(router: RouterMiddleware, *others: Any, **options: Any) -> Any:
    prompt = "You mend code."
    model = FakeChat(text=AssertionError("the agent's own model is not asked"))
    return create_agent(
        model, [run_tests], system_prompt=prompt, middleware=[router, *others], **options
    )


@both_ways
def test_each_step_goes_to_the_chosen_candidate_with_tools_and_messages_as_they_are(
    serve, tmp_path, how
):
    server = serve(SCRIPT)
    controller = Escalates()
    router = RouterMiddleware(yaml_pool(tmp_path, server, BOTH), controller)
    with LangSmithSink() as sink:
        client = sink.client()
        with tracing_context(enabled=True, client=client, project_name="test"):
            state = ask(agent_of(router), how)
        client.flush()

    assert [r.model for r in server.requests] == ["ada", "bob", "ada"]
    for request in server.requests:
        assert [t["function"]["name"] for t in request.body["tools"]] == ["run_tests"]
    roles = [m["role"] for m in server.requests[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert server.requests[1].body["messages"][:2] == server.requests[0].body["messages"]
    assert state["messages"][-1].text == "Done."

    # What the controller read: the step as its question, and who has read which prefix.
    first, second, third = controller.views
    assert (first.question, first.step.last, first.step.warm_tokens) == (QUESTION, "", {})
    assert second.question == f'{QUESTION}\nAda: run_tests {{"path": "broken"}}: error: 2 failed'
    assert (second.step.number, second.step.last) == (1, "Ada")
    assert second.step.warm_tokens == {"Ada": 100}
    assert third.step.warm_tokens == {"Ada": 100, "Bob": 200}

    # The bill: in the state, on each message, and in LangSmith.
    bill = state["router_r1"]
    candidates = bill["ledger"]["candidates"]
    usd = (400 * 1 + 10 * 2 + 200 * 10 + 5 * 20) / 1e6
    assert total(bill["ledger"])["cost_usd"] == pytest.approx(usd)
    assert {name: line["calls"] for name, line in candidates.items()} == {"Ada": 2, "Bob": 1}
    # Bob read the 100 tokens at full price that Ada had in her cache; then the 200 that he had.
    losses = [100 * (10 - 0.1) / 1e6, 100 * (1 - 0.1) / 1e6]
    assert candidates["Bob"]["cache_loss_usd"] == pytest.approx(losses[0])
    assert candidates["Ada"]["cache_loss_usd"] == pytest.approx(losses[1])
    assert [s["candidate"] for s in bill["steps"]] == ["Ada", "Bob", "Ada"]
    assert bill["stop_reason"] == "answered"
    written = [m.response_metadata["router_r1"] for m in state["messages"] if m.type == "ai"]
    assert sum(told["cost_usd"] for told in written) == pytest.approx(usd)
    runs = sink.tree()
    metadata = [(run, (run.get("extra") or {}).get("metadata", {})) for run in runs]
    assert metadata[0][1]["cost_usd"] == pytest.approx(usd)
    assert metadata[0][1]["candidates"] == ["Ada", "Bob", "Ada"]
    assert "router-r1" in runs[0]["tags"]
    costs = [
        run["outputs"]["generations"][0][0]["message"]["kwargs"]["usage_metadata"]["total_cost"]
        for run in runs
        if run["run_type"] == "llm"
    ]
    assert sum(costs) == pytest.approx(usd)
    assert len(costs) == 3


@both_ways
def test_a_failed_candidate_is_billed_and_the_next_one_answers(serve, tmp_path, how, caplog):
    server = serve({"ada": Status(500), "bob": Reply("Done.")})
    pool = yaml_pool(tmp_path, server, BOTH)
    state = ask(agent_of(RouterMiddleware(pool, "constant:Ada")), how)
    assert state["messages"][-1].text == "Done."
    (step,) = state["router_r1"]["steps"]
    assert (step["chosen"], step["candidate"]) == ("Ada", "Bob")
    assert total(state["router_r1"]["ledger"])["failed_calls"] == 1
    assert "candidate Ada failed: server_error" in caplog.text

    server = serve({"ada": Status(401), "bob": Status(401)})
    pool = yaml_pool(tmp_path, server, BOTH)
    with pytest.raises(RuntimeError, match="candidate Bob failed: auth"):
        ask(agent_of(RouterMiddleware(pool, "constant:Ada")), how)


@both_ways
def test_the_budget_ends_the_agent_and_is_never_exceeded(serve, tmp_path, how):
    server = serve(lambda request: wants("broken"))  # it would go on for ever
    pool = yaml_pool(tmp_path, server, BOTH, max_tokens=100)
    context = RouterContext(budget_usd=0.006)
    router = RouterMiddleware(pool, "constant:Bob", context=context)
    state = ask(agent_of(router, checkpointer=InMemorySaver()), how, THREAD)
    assert state["messages"][-1].text == "(no answer: budget_usd)"
    bill = state["router_r1"]
    assert bill["stop_reason"] == "budget_usd"
    assert 0 < total(bill["ledger"])["cost_usd"] <= 0.006
    # Where Bob, the chosen one, may cost more than is left, the cheaper Ada answers.
    assert {s["candidate"] for s in bill["steps"]} == {"Ada", "Bob"}


THREAD = {"configurable": {"thread_id": "1"}}


def test_each_run_on_a_thread_has_its_own_bill_and_the_caches_stay_warm(serve, tmp_path):
    server = serve({"ada": Reply("Done.", input_tokens=70), "bob": Reply("No.")})
    controller = Escalates()
    router = RouterMiddleware(yaml_pool(tmp_path, server, BOTH), controller)
    agent = agent_of(router, checkpointer=InMemorySaver())
    ask(agent, "invoke", THREAD)
    state = ask(agent, "invoke", THREAD, "And now?")
    assert total(state["router_r1"]["ledger"])["calls"] == 1
    assert controller.views[1].step.warm_tokens == {"Ada": 70}
    assert controller.views[1].question == "And now?"
    assert [m.text for m in controller.views[1].conversation] == [QUESTION, "Done."]


def test_a_controller_that_chooses_nobody_leaves_the_step_to_the_last_one(caplog):
    class Silent:
        def decide(self, view: Any) -> str:
            if view.step.number == 0:
                return "<search> Bob: x </search>"
            if view.step.number == 1:
                return "<answer> I know it myself. </answer>"
            raise KeyError("broken")

    pool = make_pool()
    call = AIMessage("", tool_calls=[{"name": "run_tests", "args": {"path": "x"}, "id": "1"}])
    turns = iter([call, call.model_copy(), AIMessage("Done.")])
    router = RouterMiddleware(pool, Silent(), models={"Ada": FakeChat(), "Bob": Scripted(turns)})
    state = ask(agent_of(router, ModelRetryMiddleware(max_retries=0)), "invoke")
    assert [s["candidate"] for s in state["router_r1"]["steps"]] == ["Bob"] * 3
    assert [s["chosen"] for s in state["router_r1"]["steps"]] == ["Bob", "", ""]
    chosen, silent, broken = (s["error"] for s in state["router_r1"]["steps"])
    assert (chosen, silent) == ("", "it made no call that can be used")
    assert broken.startswith("bug: KeyError: 'broken' (test_agents.py, line ")
    assert caplog.text.count("chose no candidate for a step of an agent") == 2


class Scripted(FakeChat):
    turns: Any = None

    def __init__(self, turns: Any) -> None:
        super().__init__()
        self.turns = turns

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _result(self, query: str) -> Any:
        result = super()._result(query)
        said = next(self.turns)
        usage = result.generations[0].message.usage_metadata
        result.generations[0].message = said.model_copy(update={"usage_metadata": usage})
        return result


def test_what_cannot_be_in_an_agent_is_refused_by_name():
    with pytest.raises(PoolError, match="Wiki is a tool; only models answer the steps"):
        RouterMiddleware(make_pool("Ada", {"name": "Wiki", "provider": "tool"}), "cheapest")
    with pytest.raises(PoolError, match=r"models: no candidate 'Adda' \(did you mean 'Ada'\?\)"):
        RouterMiddleware(make_pool(), "cheapest", models={"Adda": FakeChat()})
    both = {"Ada": FakeChat(), "Bob": FakeChat()}
    router = RouterMiddleware(make_pool(), "cheapest", models=both)
    with pytest.raises(ConfigError, match=r"candidate Ada \(FakeChat\) cannot call tools"):
        ask(agent_of(router), "invoke")


def test_a_prefix_is_warm_for_its_time_and_only_to_the_letter():
    pool = make_pool({"name": "Ada", "cache_ttl_seconds": 60}, "Bob")
    sent = [SystemMessage("s"), HumanMessage("q")]
    more = [*sent, AIMessage("a"), ToolMessage("r", tool_call_id="1")]
    read = {name: prefix_of(sent, "[]", 50, 1000.0) for name in ("Ada", "Bob")}

    def warm(messages: Any = more, tools: str = "[]", now: float = 1060.0) -> dict[str, int]:
        return warm_tokens(read, pool, messages, tools, now)

    assert warm() == {"Ada": 50}  # Bob has no cache that is counted on
    assert warm(now=1061.0) == {}
    assert warm(tools="[1]") == {}
    assert warm([SystemMessage("other"), *more[1:]]) == {}
    assert warm(sent[:1]) == {}


# ----------------------------------------------------------------------------- the world of agents


@pytest.mark.parametrize(
    "options",
    [
        ("--limit", "20", "--cost-weight", "0.1"),
        pytest.param(("--limit", "60"), marks=pytest.mark.long),  # chooses the weight itself
    ],
    ids=["small", "whole"],
)
def test_what_is_fitted_on_traces_halves_the_cost_and_beats_sticky_and_a_rule(tmp_path, options):
    needs("eval")
    out = tmp_path / "run"
    run = cli("evaluate", "agents", *options, "--out", out, "--json")
    assert run.returncode == 0, run.stderr
    rows = {row["controller"]: row for row in json.loads(run.stdout)["controllers"]}
    ours, best = rows["steps"], rows["constant:Tarn"]
    assert ours["solved"]["mean"] >= best["solved"]["mean"] == 1
    assert ours["cost_usd"]["mean"] <= best["cost_usd"]["mean"] / 2
    for rival in ("sticky", "difficulty", "random", "constant:Flit"):
        assert rows[rival]["ahead"]["low"] > 0
    assert ours["cache_loss_usd"] < rows["difficulty"]["cache_loss_usd"]

    # The saved one decides as the fitted one, and in a real agent.
    from router_r1_graph.agents.comparison import world_pool
    from router_r1_graph.agents.episodes import play
    from router_r1_graph.simulation.agent_world import tasks

    pool, spec = world_pool(), f"steps:{out / 'steps'}"
    context = RouterContext(cost_weight=ours["cost_weight"])
    steps = parse_controller(spec, pool)
    task = tasks("test", 1)[0]
    episode = play(task, pool, steps, context)
    assert episode == play(task, pool, steps, context)
    assert 10 <= len(task.plan) <= len(episode.steps) <= 45
    turns = {c.name: Scripted(iter([AIMessage("Done.")])) for c in pool.candidates}
    router = RouterMiddleware(pool, spec, models=turns, context=context)
    state = ask(agent_of(router), "invoke", None, episode.steps[0].question)
    (decided,) = state["router_r1"]["steps"]
    assert decided["chosen"] == decided["candidate"] != "Tarn"  # an easy step


def test_a_broken_folder_of_steps_is_an_error_that_names_it(tmp_path):
    needs("eval")
    with pytest.raises(ControllerError, match="no fitted controller there"):
        parse_controller(f"steps:{tmp_path}", make_pool())
    held = '"method": "steps", "version"'
    for text in ["{", "[]", f"{{{held}: 9}}", f'{{{held}: 1, "names": ["Ada"], "words": ["x"]}}']:
        (tmp_path / "learned.json").write_text(text, encoding="utf-8")
        with pytest.raises(ControllerError, match=r": (a broken fitted|version 9)"):
            parse_controller(f"steps:{tmp_path}", make_pool())


def test_sticky_stays_and_goes_up_in_price_only_after_a_failure():
    pool = make_pool("Ada", {"name": "Bob", "input_usd_per_mtok": 5.0}, "Eve")
    failed = (ToolMessage("error: no", tool_call_id="1"),)

    def chosen(spec: str, step: AgentStep | None) -> str:
        view = View("q", pool, RouterContext(), Left(1), step=step)
        return parse_controller(spec, pool).choose(view).name

    assert chosen("sticky", None) == chosen("sticky", AgentStep()) == "Ada"
    assert chosen("sticky:constant:Bob", AgentStep()) == "Bob"
    assert chosen("sticky:constant:Bob", AgentStep(number=1, last="Eve")) == "Eve"
    assert chosen("sticky", AgentStep(number=1, last="Ada", messages=failed)) == "Eve"
    assert chosen("sticky", AgentStep(number=2, last="Bob", messages=failed)) == "Bob"
    with pytest.raises(ControllerError, match="decided by a rule or a fitted controller"):
        parse_controller(
            "sticky:openai:gpt-4o-mini",
            make_pool(controller={"model": "m", "base_url": "http://x"}),
        )


def test_a_long_prompt_is_no_reason_for_a_weaker_candidate():
    needs("eval")
    import numpy as np

    from router_r1_graph.controllers.learned.controller import LearnedController
    from router_r1_graph.controllers.learned.matrix import ScoreMatrix

    pool = make_pool(*({"name": name, **settings} for name, settings in BOTH.items()))
    costs = np.tile([1e-6, 1e-5], (20, 1))  # of short questions
    right = np.tile([0.2, 0.9], (20, 1))
    questions = tuple(f"question {n}" for n in range(20))
    controller = LearnedController.fit("linear", ScoreMatrix(questions, pool, right, costs))
    for input_tokens in (10, 1_000, 100_000):
        for weight, name in ((0.3, "Bob"), (0.9, "Ada")):
            step = AgentStep(input_tokens=input_tokens)
            view = View("question 3", pool, RouterContext(cost_weight=weight), Left(1), step=step)
            assert controller.choose(view).name == name, (input_tokens, weight)


# ------------------------------------------------------------------------ LangChain's own router


def controllers() -> dict[str, Any]:
    needs("eval")
    import numpy as np

    from router_r1_graph.controllers.learned.controller import METHODS, LearnedController
    from router_r1_graph.controllers.learned.matrix import ScoreMatrix

    questions = tuple(f"{what} number {n}" for n in range(8) for what in ("proof of", "verse of"))
    right = np.array([[1.0, 0.0], [0.0, 1.0]] * 8)
    matrix = ScoreMatrix(questions, make_pool(), right, np.ones((16, 2)))
    found: dict[str, Any] = {}
    for method, kind in METHODS.items():
        options = {"clusters": 2} if method == "features" else {}
        if "epochs" in kind.options and missing("local"):
            continue
        options |= {"k": 4} if method == "knn" else {}
        found[method] = LearnedController.fit(method, matrix, options=options)
    return found


@pytest.mark.filterwarnings("ignore:The middleware `ModelRouterMiddleware` is in beta")
def test_every_fitted_controller_decides_for_langchains_own_router():
    context = RouterContext(cost_weight=0.0)
    for name, controller in controllers().items():
        model = RouterDecisionModel(pool=make_pool(), controller=controller, context=context)
        which = Choice(instructions="Which?", criteria={"Bob": None, "Ada": "cheap"})
        only = Choice(instructions="Which?", criteria={"Bob": None})
        both = {"q": which, "only": only}
        found = model.invoke({"state": "proof of number 1", "questions": both}).choices
        assert (found["q"].choice, found["only"].choice) == ("Ada", "Bob")
        for state, label in [
            ("proof of number 1", "Ada"),
            (HumanMessage("verse of number 1"), "Bob"),
            ({"messages": [HumanMessage("verse of number 2"), AIMessage("?")]}, "Bob"),
        ]:
            response = model.invoke({"state": state, "questions": {"q": which}})
            answer = response.choices["q"]
            assert (name, answer.choice) == (name, label)
            assert sum(answer.probabilities.values()) == pytest.approx(1)
            assert answer.confidence == answer.probabilities[label] > 0.5
        assert (
            asyncio.run(model.ainvoke({"state": "proof of number 1", "questions": {"q": which}}))
            .choices["q"]
            .choice
            == "Ada"
        )
        said = {"Ada": FakeChat(text="Ada says"), "Bob": FakeChat(text="Bob says")}
        router = ModelRouterMiddleware(
            choices={n: ModelChoice(model=m, criteria=n) for n, m in said.items()},
            instructions="Choose.",
            classifier=model,
        )
        state = ask(create_agent(said["Ada"], middleware=[router]), "invoke", None, "verse of 3")
        assert state["messages"][-1].text == "Bob says"


def test_the_policy_decides_with_its_own_probabilities():
    needs("local")
    model = RouterDecisionModel(pool="embedded", controller="policy:demo")
    names = [candidate.name for candidate in model.pool.candidates]
    which = Choice(instructions="Which?", criteria=dict.fromkeys(names))
    answer = model.invoke({"state": "Who wrote Hamlet?", "questions": {"q": which}}).choices["q"]
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert (
        answer.confidence
        == answer.probabilities[answer.choice]
        == max(answer.probabilities.values())
    )


@pytest.mark.parametrize("spec", ["keyword", "oracle", "cascade", "vote"])
def test_a_rule_decides_among_the_labels(spec):
    model = RouterDecisionModel(pool="embedded", controller=spec)
    which = Choice(instructions="?", criteria={"Vantegro": None, "Magnivor": None})
    asked = {"state": "Who wrote Hamlet?", "questions": {"q": which}}
    expected = "Magnivor" if spec in ("keyword", "oracle") else "Vantegro"
    assert model.invoke(asked).choices["q"].choice == expected


def test_a_decision_is_among_the_labels_and_what_is_no_choice_is_refused():
    pool = make_pool("Ada", {"name": "Bob", "aliases": ["strong"]}, "Eve")
    random = RouterDecisionModel(pool=pool, controller="random")
    labels = Choice(instructions="?", criteria={"strong": None, "Eve": None})
    answers = {
        random.invoke({"state": f"question {n}", "questions": {"q": labels}}).choices["q"].choice
        for n in range(20)
    }
    assert answers == {"strong", "Eve"}
    fixed = RouterDecisionModel(pool=pool, controller="constant:Ada")
    with pytest.raises(ControllerError, match=r"chose no candidate: .*no candidate 'Ada'"):
        fixed.invoke({"state": "x", "questions": {"q": labels}})
    with pytest.raises(ConfigError, match="the label 'strongg' is no candidate"):
        wrong = Choice(instructions="?", criteria={"strongg": None})
        fixed.invoke({"state": "x", "questions": {"q": wrong}})
    with pytest.raises(ConfigError, match="of the type Choice, not Noul"):
        fixed.invoke({"state": "x", "questions": {"q": Noul(instructions="?")}})
    assert fixed.model == "constant:Ada"


def test_a_decision_needs_something_to_decide_on():
    model = RouterDecisionModel(pool=make_pool("Ada", "Bob"), controller="constant:Bob")
    which = {"q": Choice(instructions="?", criteria={"Ada": None, "Bob": None})}
    for nothing in None, 5, 0.5, True, {}, b"x", {"messages": None}, {"messages": 5}:
        with pytest.raises(ConfigError, match="decides on a text, on messages"):
            model.invoke({"state": nothing, "questions": which})
        with pytest.raises(ConfigError, match="decides on a text, on messages"):
            asyncio.run(model.ainvoke({"state": nothing, "questions": which}))
    for empty in "", [], {"messages": []}:
        with pytest.raises(QuestionError, match="there is no question"):
            model.invoke({"state": empty, "questions": which})
    for something in "x", {"ticket": "x"}, [("user", "x")], {"messages": "x"}, [1, 2]:
        found = model.invoke({"state": something, "questions": which}).choices
        assert found["q"].choice == "Bob"


def test_a_limit_that_the_router_does_not_read_is_named_once(caplog, monkeypatch):
    monkeypatch.setattr("router_r1_graph.context.beside._said", set())  # of this process
    model = FakeChat(text="Done.")
    router = RouterMiddleware(make_pool("Ada"), models={"Ada": model})
    agent = create_agent(model, middleware=[router])
    asked = {"messages": [("user", QUESTION)]}
    for context in (
        None,
        {"user": "ada"},
        {"router_r1": {"budget_usd": 5}},
        {"budget_usd": 5, "router_r1": {"budget_usd": 5}},
        RouterContext(budget_usd=5),
    ):
        agent.invoke(asked, context=context)
    assert "does not read" not in caplog.text
    for _ in range(2):
        agent.invoke(asked, context={"budget_usd": 1e-9, "deadline_seconds": 0})
        agent.invoke(asked, context={"router-r1": {"budget_usd": 1e-9}})
    assert caplog.text.count("the key 'router-r1', which the router does not read") == 1
    for right in '{"router_r1": {"budget_usd": 1e-09}}', '{"router_r1": {"deadline_seconds": 0}}':
        assert caplog.text.count(f"are given as context={right}") == 1
