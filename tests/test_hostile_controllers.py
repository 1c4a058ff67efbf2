"""Every hostile text meets every kind of controller: as the question, as replies, as its turns.

`make test` gives each kind a share of the corpus, `make test-long` each kind all of it.
"""

from __future__ import annotations

import pytest

from extras import needs

needs("eval")
needs("local")

import numpy as np

from fakes import FakeChat, make_pool
from hostile import TEXTS
from openai_server import Completion
from router_r1_graph import (
    CandidatePool,
    ChatModelController,
    RouterContext,
    create_router_r1,
    parse_controller,
)
from router_r1_graph.candidates import ModelSettings
from router_r1_graph.controllers.learned.controller import LearnedController
from router_r1_graph.controllers.learned.matrix import ScoreMatrix
from router_r1_graph.controllers.learned.reader import ReaderController
from router_r1_graph.controllers.learned.steps import StepController
from router_r1_graph.controllers.policy.completions import CompletionsController
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import PolicySettings
from router_r1_graph.controllers.spec import SPECS
from router_r1_graph.evaluation.recorded_replies import load_recorded
from router_r1_graph.outside import writable
from router_r1_graph.trace import Trace
from test_reader import USD, lines, written
from tiny_policy import make_model, make_tokenizer

POOL = make_pool(*USD)
RULES = ("keyword", "cheapest", "random", "cascade", "sticky", "vote")
LEARNED = ("knn", "linear", "mf", "irt", "features", "encoder")
MODELS = ("policy", "completions", "openai")
KINDS = (*RULES, *LEARNED, *MODELS, "constant", "oracle", "auto", "reader", "steps")
SHORT = 8 * len(KINDS)  # of every eighth text, a part for each kind


def test_all_kinds_are_tried():
    assert set(KINDS) == {spec.partition(":")[0].partition("[")[0] for spec in SPECS} - {"pool"}


def matrix():
    """Return scores of the pool's candidates at twenty questions."""
    questions = tuple(f"Who rules the {word} {n}?" for n in range(10) for word in ("land", "sea"))
    costs = np.tile(list(USD.values()), (len(questions), 1))
    return ScoreMatrix(questions, POOL, np.eye(3)[np.arange(len(questions)) % 3], costs)


def controller_of(kind, pool, chat, said, serve, folder):
    """Return a controller of a kind; `said` returns what servers and models say now."""
    if kind in LEARNED:
        options = {"epochs": 2} if kind in ("mf", "irt", "encoder") else {}
        return LearnedController.fit(kind, matrix(), options=options)
    if kind == "auto":
        return LearnedController.fit("auto", matrix(), methods=("knn", "linear"))
    if kind == "reader":
        return ReaderController.fit(load_recorded(written(folder, lines(20))))
    if kind == "steps":
        return StepController.fit(matrix())
    if kind == "openai":
        return ChatModelController(chat)
    if kind in ("policy", "completions"):
        tokenizer, settings = (
            make_tokenizer(),
            PolicySettings(max_context_tokens=1024, max_new_tokens=12),
        )
        if kind == "policy":
            return PolicyController(make_model(tokenizer), tokenizer, settings)

        def written_out(request):
            ids = tokenizer.encode(writable(said()), add_special_tokens=False)
            return Completion(writable(said()), ids, [-0.5] * len(ids))

        server = ModelSettings(base_url=serve(written_out).base_url, model="m", max_retries=0)
        return CompletionsController(tokenizer, server, settings)
    return parse_controller("constant:Dear" if kind == "constant" else kind, pool)


@pytest.mark.parametrize("every", [SHORT, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_text_ends_no_run_of_any_controller(serve, tmp_path, kind, every):
    now, reasons = [""], set()
    chat = FakeChat(text=lambda _: now[0])
    pool = CandidatePool.embedded() if kind == "oracle" else POOL
    asked = {candidate.name: chat for candidate in pool.candidates}
    controller = controller_of(kind, pool, chat, lambda: now[0], serve, tmp_path)
    graph = create_router_r1(pool, controller, models=asked).compile()
    met = TEXTS[8 * KINDS.index(kind) % every :: every]
    assert len(met) >= len(TEXTS) // every
    for now[0] in met:
        question = now[0] if now[0].strip() else "What is the capital of France?"
        state = graph.invoke({"question": question}, context=RouterContext(max_rounds=2))
        too_long = kind in MODELS and str(state.get("error")).startswith("context_length: ")
        reasons.add("too long" if too_long else state["stop_reason"])
        assert Trace.model_validate_json(Trace.from_state(state).model_dump_json()), now[0]
    # Only a model may write what nobody can read, or have no place for a text.
    ended = {"answered", "round_limit", "no_reply"}
    assert reasons <= (ended | {"invalid", "too long"} if kind in MODELS else ended)
