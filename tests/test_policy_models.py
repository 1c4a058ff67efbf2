"""Any causal model of transformers is a policy: tiny random ones of many families."""

from __future__ import annotations

from typing import Any

import pytest

from extras import needs

needs("local")

import torch
from transformers import CONFIG_MAPPING, AutoConfig

from router_r1_graph import ControllerError
from router_r1_graph.controllers.policy.generation import Generator
from router_r1_graph.controllers.policy.sampling import Sample
from router_r1_graph.controllers.policy.scoring import EndingScorer
from router_r1_graph.controllers.policy.weights import class_of

torch.set_num_threads(1)

TOKENS = 300
SIZES: dict[str, Any] = {
    "vocab_size": TOKENS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "depth": 1,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 14,
    "image_size": 28,
}
WINDOW = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 512},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mistral": {"sliding_window": 16},
    "gemma3_text": WINDOW,
    "gpt_oss": WINDOW | {"num_local_experts": 2, "num_experts_per_tok": 1},
    # Keys and values of two sizes.
    "deepseek_v3": EXPERTS
    | {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    | {"v_head_dim": 8, "n_routed_experts": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1}
    | {"num_key_value_heads": 4, "first_k_dense_replace": 1},
    # Layers that remember something else.
    "qwen3_5_text": LINEAR,
    "qwen3_5_moe_text": LINEAR | EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3_next": LINEAR | EXPERTS | {"shared_expert_intermediate_size": 16},
    "olmo_hybrid": LINEAR,
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "granitemoehybrid": MAMBA
    | {"layer_types": ["mamba", "attention"] * 2, "mamba_expand": 2}
    | {"num_local_experts": 2, "num_experts_per_tok": 1, "shared_intermediate_size": 32},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64},
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1}
    | {"layers_block_type": ["mamba", "attention", "mamba", "mlp"]},
    "bamba": MAMBA | {"attn_layer_indices": [1, 3]},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "num_experts": 1}
    | {"mamba_dt_rank": 4, "mamba_d_state": 8},
    "mamba": {"state_size": 8},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": 32}
    | {"attention_window_size": 16},
    # No cache that can be given back.
    "rwkv": {},
    # Configs with a part for text, one for images.
    "gemma3": WINDOW,
    "gemma4": WINDOW | {"global_head_dim": 8, "hidden_size_per_layer_input": 4}
    | {"vocab_size_per_layer_input": TOKENS, "num_kv_shared_layers": 2},
    "qwen3_5": LINEAR,
    "qwen3_vl": {},
    "mistral3": {},
}  # fmt: skip


def made(kind: str) -> Any:
    config = AutoConfig.for_model(kind)
    wanted = {**SIZES, **FAMILIES[kind]}
    text = config.get_text_config()
    if text is config:
        config = AutoConfig.for_model(kind, **wanted)
    else:
        config.text_config = type(text)(**wanted)
        if vision := config.vision_config:
            sizes = {name: VISION.get(name, value) for name, value in vision.to_dict().items()}
            config.vision_config = type(vision)(**sizes)
    torch.manual_seed(0)
    model = class_of(config).from_config(config).float().eval()
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.3)
    return model


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    given = torch.tensor([ids])
    options = {"attention_mask": torch.ones_like(given), "max_new_tokens": count}
    made = model.generate(
        given, **options, do_sample=False, min_new_tokens=count, pad_token_id=0, eos_token_id=None
    )
    return list(made[0, len(ids) :].tolist())


@pytest.mark.sampled(5)
@pytest.mark.parametrize("kind", FAMILIES)
def test_two_turns_of_any_family_are_those_of_its_own_greedy_generation(kind):
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {kind}")
    model = made(kind)
    numbers = torch.Generator().manual_seed(1)

    def text(length: int) -> list[int]:
        return torch.randint(3, TOKENS, (length,), generator=numbers).tolist()

    generator = Generator(model, pad_id=0, stop_ids=frozenset())
    first = [Sample(text(length), 0, 6) for length in (9, 31, 20)]
    generator.generate(first)
    second = [
        Sample([*turn.so_far, *text(length)], len(turn.so_far), 6)
        for turn, length in zip(first, (7, 3, 11), strict=True)
    ]
    generator.generate(second)
    for turn in (*first, *second):
        assert turn.ids == greedy(model, list(turn.context), 6)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "deepseek_v3", "lfm2", "mamba", "rwkv"])
def test_endings_are_as_likely_as_in_a_forward_pass_of_their_own(kind):
    model = made(kind)
    numbers = torch.Generator().manual_seed(2)

    def text(length: int) -> list[int]:
        return torch.randint(3, TOKENS, (length,), generator=numbers).tolist()

    common = text(20)
    contexts = [[*common, *text(9)], [*common, *text(4)], text(30), text(1)]
    endings = [text(1), text(3), text(2)]
    found = EndingScorer(model, 0).logprobs(contexts, endings)
    assert found.shape == (4, 3)
    for context, row in zip(contexts, found.tolist(), strict=True):
        for ending, logprob in zip(endings, row, strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([context + ending]), use_cache=False).logits[0]
            alone = logits[len(context) - 1 : -1].log_softmax(-1)
            assert logprob == pytest.approx(
                sum(one[token].item() for one, token in zip(alone, ending, strict=True)), abs=1e-3
            )


def test_a_model_that_writes_no_text_is_refused_by_its_type():
    with pytest.raises(ControllerError, match="models of type 't5' are no causal language models"):
        class_of(AutoConfig.for_model("t5"))
