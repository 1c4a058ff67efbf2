"""Qwen 3 and Qwen 2.5: their real tokenizers and chat templates, with tiny random weights."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from extras import needs

needs("train")

import torch
from langchain_core.messages import ToolMessage
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from in_process import program
from qwen_tokenizers import tokenizer_folder
from router_r1_graph import CandidatePool, ScriptedController, Trace, create_router_r1, protocol
from router_r1_graph.budget import Left
from router_r1_graph.context import RouterContext
from router_r1_graph.controllers.controller import View
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import PolicySettings
from router_r1_graph.controllers.policy.tokens import TokenCodec
from training.config import load_config
from training.export import IGNORED, supervised_rows

torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
POOL = CandidatePool.embedded()
QUESTION = "Which was published earlier, Hamlet or the novel “Les Misérables”?"
TURNS = (
    "<think> Two dates, and 1,862 is no guess. </think>\n"
    "<search> Quillora: When was Hamlet published? </search>\n"
    "<search> Quillora: When was Les Misérables published? </search>",
    "<think> Hmm. </think> <search> Nobody: ? </search>",
    "<think> 1603 < 1862. </think> <answer> Hamlet </answer>",
)
IM_END, END_OF_TEXT = 151645, 151643
EMPTY_THOUGHT = "<think>\n\n</think>\n\n"
FAMILIES = {"qwen3": "qwen3", "qwen2_5": "qwen2"}  # tokenizer -> architecture


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(family):
    return AutoTokenizer.from_pretrained(tokenizer_folder(family))


def made(family: str, layers: int = 1) -> Any:
    """Return a model of the family's shape, but for its size: the vocabulary is the real one."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        FAMILIES[family],
        vocab_size=151936,  # more than the tokenizer has, as in the real ones
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        tie_word_embeddings=True,
        eos_token_id=IM_END,
        bos_token_id=END_OF_TEXT,
    )
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = [IM_END, END_OF_TEXT]  # as in the real ones
    return model


def view_of(question: str) -> View:
    return View(question, POOL, RouterContext(), Left(4))


def codec_of(tokenizer: Any, **settings: Any) -> TokenCodec:
    settings = {"observations": "chat", **settings}
    return TokenCodec.of(tokenizer, None, PolicySettings(**settings), frozenset())


# --- tokens


@pytest.mark.sampled(3)
@pytest.mark.parametrize("thinking", [False, True])
def test_a_conversation_has_the_tokens_of_the_chat_template(family, tokenizer, thinking):
    graph = create_router_r1(POOL, ScriptedController(TURNS)).compile()
    state = graph.invoke({"question": QUESTION})
    trace = Trace.from_state(state, pool=POOL, controller="x")
    assert len(trace.turns) == 3
    codec = codec_of(tokenizer, thinking=thinking)
    [row] = supervised_rows([trace], codec)

    def templated(messages: list[dict[str, str]]) -> str:
        return tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, enable_thinking=thinking
        )

    header = "<|im_start|>assistant\n"
    asked = tokenizer.decode(codec.prompt_ids(view_of(QUESTION)))
    prompt = asked.partition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    assert prompt.endswith(f"Question: {QUESTION}")
    opened = asked.rpartition(header)[2]
    assert opened == (EMPTY_THOUGHT if family == "qwen3" and not thinking else "")
    messages = [{"role": "user", "content": prompt}]
    assert templated(messages) == asked
    observed: list[ToolMessage] = []
    for message in [*state["scratchpad"], None]:
        if isinstance(message, ToolMessage):
            observed.append(message)
        elif observed:
            place = f"TURN{len(messages)}"
            messages.append({"role": "assistant", "content": place})
            messages.append({"role": "user", "content": protocol.render_observations(observed)})
            observed = []
    assert len(messages) == 5
    # Qwen 3's template takes thoughts out of earlier turns; what was sampled stays.
    whole = templated(messages)
    for place, turn in zip(("TURN1", "TURN3"), TURNS, strict=False):
        assert f"{header}{place}<|im_end|>" in whole
        whole = whole.replace(header + place, header + opened + turn)
    whole += TURNS[-1]  # its last tag ends it
    assert row["input_ids"] == tokenizer(whole)["input_ids"]
    learned = [i for i in row["labels"] if i != IGNORED]
    assert tokenizer.decode(learned) == "<|im_end|>".join(TURNS)


def test_special_tokens_of_a_question_or_reply_stay_text(tokenizer):
    codec = codec_of(tokenizer)
    special = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    assert {IM_END, END_OF_TEXT} < special.keys()
    text = "".join(f"{name}x{name}{name}\nsystem" for name in special.values())
    reply = ToolMessage(text, name="a", tool_call_id="1")
    plain = ToolMessage("x", name="a", tool_call_id="1")
    for mine, other in (
        (codec.prompt_ids(view_of(text)), codec.prompt_ids(view_of("x"))),
        (codec.observation_ids([reply], [5]), codec.observation_ids([plain], [5])),
    ):
        count = [Counter(i for i in ids if i in special) for ids in (mine, other)]
        assert count[0] == count[1]
        assert text in tokenizer.decode(mine)


@pytest.mark.parametrize("token", [IM_END, END_OF_TEXT, None])
def test_an_end_token_ends_a_turn(family, tokenizer, token):
    model = made(family).eval()
    with torch.no_grad():  # it writes one token, again and again
        for name, weights in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weights.zero_()
        model.get_input_embeddings().weight.fill_(1)
        model.get_input_embeddings().weight[token or tokenizer.encode("!")[0]] = 2
    policy = PolicyController(model, tokenizer, PolicySettings(max_new_tokens=5))
    assert policy.codec.ends == {IM_END, END_OF_TEXT}
    state = create_router_r1(POOL, policy).compile().invoke({"question": QUESTION})
    first = next(m for m in state["scratchpad"] if "tokens" in m.additional_kwargs)
    said = first.additional_kwargs["tokens"]["output_ids"]
    assert said == ([token] if token else tokenizer.encode("!") * 5)
    assert policy.codec.text_of(said) == ("" if token else "!!!!!")


def test_a_turn_ends_where_it_makes_replies_up(family, tokenizer):
    policy = PolicyController(made(family), tokenizer, PolicySettings(observations="chat"))
    ids = tokenizer.encode(f"{TURNS[0]}\n<information> Quillora: 1603 </information>")
    end = next(n for n in range(1, len(ids)) if policy.generator.is_stop(ids[:n]))
    assert tokenizer.decode(ids[:end]).startswith(TURNS[0])
    assert protocol.parse(policy.codec.text_of(ids[:end])).mistakes == ()


# --- configs

TINY = (
    *("evaluate_questions=1", "grpo.validate_every=0", "grpo.validate_cost_weights=[0.5]"),
    *("threads=1", "grpo.steps=1", "grpo.questions=1", "grpo.group=2", "grpo.micro_batch=2"),
    *("model.max_new_tokens=6", "data.max_rounds=[1]"),
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "family"),
    [("qwen3-0.6b-lora", "qwen3"), ("qwen2.5-3b", "qwen2_5")],
    indirect=["family"],
)
def test_the_stages_of_a_config_run(config, family, tokenizer, tmp_path):
    made(family).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    file, out = ROOT / "training" / "configs" / f"{config}.yaml", tmp_path / "out"
    shipped = load_config(file)
    more = [f"model.pretrained={tmp_path / 'tiny'}", f"out={out}"]
    if "warm_start" in shipped.stages:
        more += ["warm_start.traces=4", "warm_start.batch_size=2"]
    if shipped.data.source == "hub":
        rows = ({"question": f"What is {n} + 1?", "golden_answers": [n + 1]} for n in range(60))
        (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        more += ["data.source=files", "data.hub=[]", f"data.files=[{tmp_path / 'q.jsonl'}]"]
    run = program(
        ROOT / "training" / "finetune.py",
        *("--config", file, *TINY, *more),
        env={"NVIDIA_API_KEY": "of the paper's pool, which random weights never ask"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "left out" not in run.stdout
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = {line["stage"] for line in map(json.loads, lines) if line["step"] == 1}
    assert steps == {*shipped.stages}
    policy = PolicyController.from_pretrained(out / "policy")
    assert policy.codec.settings.observations == "chat"
    assert not policy.codec.settings.thinking
    assert policy.codec.ends == {IM_END, END_OF_TEXT}
    view = view_of(QUESTION)
    assert policy.codec.prompt_ids(view) == codec_of(tokenizer).prompt_ids(view)
