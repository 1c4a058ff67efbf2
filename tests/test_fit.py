"""Supervised steps: what the loss is of, and in which form weights are trained and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from extras import needs

needs("train")

import torch
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import load_file
from trl import SFTConfig, SFTTrainer

from in_process import program
from router_r1_graph import CandidatePool, ConfigError, ControllerError, create_router_r1
from router_r1_graph.controllers.policy.controller import PolicyController
from training.checkpoints import last_checkpoint
from training.config import FitConfig, load_config
from training.errors import TrainingError
from training.fit import fit
from training.model_config import ModelConfig, ScratchModel
from training.models import Learner, finish, is_adapted, load_learner, make_learner
from training.turn_trainer import TurnTrainer

# Of transformers, about TRL, as in finetune.py.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

ROOT = Path(__file__).parent.parent
SCRATCH = ScratchModel(vocabulary=400, hidden_size=32, layers=2, heads=2)


def made() -> Learner:
    return make_learner(ModelConfig(scratch=SCRATCH), iter(["some text"]), 0)


@pytest.fixture
def pretrained(tmp_path) -> Path:
    """Return the folder of a model in bfloat16, as hubs have them."""
    learner = made()
    learner.model = learner.model.to(torch.bfloat16)
    folder = tmp_path / "pretrained"
    learner.model.save_pretrained(folder)
    learner.tokenizer.save_pretrained(folder)
    return folder


def trainer_of(learner: Learner, folder: Path, **config: Any) -> TurnTrainer:
    return TurnTrainer(
        config=FitConfig(**config),
        model=learner.model,
        processing_class=learner.tokenizer,
        train_dataset=Dataset.from_list([{"input_ids": [5, 6], "labels": [5, 6]}]),
        args=SFTConfig(output_dir=str(folder), use_cpu=True, report_to="none", bf16=False),
    )


#                         prompt, a turn, reply, the last turn, padding
IDS = torch.tensor([[10, 11, 12, 3, 14, 15, 16, 3, 18, 19], [9, 8, 7, 6, 5, 4, 3, 2, 1, 1]])
LABELS = torch.tensor(
    [
        [-100, -100, 12, 3, -100, 15, 16, 3, 18, -100],
        [-100, -100, -100, -100, -100, -100, 3, 2, -100, -100],
    ]
)
SEEN = torch.tensor([[1] * 9 + [0], [1] * 8 + [0] * 2])
BATCH = {"input_ids": IDS, "labels": LABELS, "attention_mask": SEEN}


#: Both rows begin with the same two tokens, which are computed once.
ALIKE = BATCH | {"input_ids": torch.cat([IDS[:1, :2].expand(2, 2), IDS[:, 2:]], dim=1)}


@pytest.mark.parametrize("batch", [BATCH, ALIKE])
@pytest.mark.parametrize("count", [None, torch.tensor(11)])
def test_the_loss_of_the_turns_is_that_of_trl_with_its_gradients(tmp_path, count, batch):
    found = []
    for owner in (TurnTrainer, SFTTrainer):
        learner = made()
        trainer = trainer_of(learner, tmp_path)
        loss = owner.compute_loss(trainer, learner.model, dict(batch), num_items_in_batch=count)
        loss.backward()
        found.append((loss, [p.grad for p in learner.model.parameters() if p.requires_grad]))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert torch.allclose(ours, theirs, rtol=1e-5)
    for our, their in zip(our_gradients, their_gradients, strict=True):
        assert torch.allclose(our, their, atol=1e-6)


def test_logits_are_computed_for_the_tokens_that_count_only(tmp_path):
    learner = made()
    _, outputs = trainer_of(learner, tmp_path).compute_loss(learner.model, dict(BATCH), True)
    assert len(outputs["logits"]) == 8  # the tokens of turns


def test_what_is_thought_last_weighs_more_in_the_loss(tmp_path):
    learner = made()
    end = learner.tokenizer.convert_tokens_to_ids("</think>")
    ids, labels = (torch.where(one == 3, end, one)[:1] for one in (IDS, LABELS))
    batch = {"input_ids": ids, "labels": labels, "attention_mask": SEEN[:1]}
    loss = trainer_of(learner, tmp_path, reasoning_weight=3).compute_loss(learner.model, batch)
    logits = learner.model(input_ids=ids, attention_mask=SEEN[:1]).logits
    each = -logits.log_softmax(-1)[0, [1, 2, 4, 5, 6, 7], [12, end, 15, 16, end, 18]]
    expected = (each * torch.tensor([1, 1, 3, 3, 1, 1])).sum() / 6
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def trained(
    config: ModelConfig, folder: Path, learner: Learner | None = None, **more: Any
) -> Learner:
    learner = learner or load_learner(config)
    row = {"input_ids": [10, 11, 12, 13, 14, 15], "labels": [-100, -100, 12, 13, 14, 15]}
    fit(
        learner,
        [row] * 8,
        FitConfig(**{"batch_size": 4, "learning_rate": 1e-2, "epochs": 2, **more}),
        folder=folder / "checkpoints",
        stage="warm_start",
        metrics=folder / "metrics.jsonl",
        seed=0,
        gradient_checkpointing=config.gradient_checkpointing,
        lora_rank=config.lora_rank,
    )
    learner.model.eval()
    return learner


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[10, 11, 12, 13]])).logits.float()


def types_in(folder: Path) -> set[str]:
    with safe_open(next(folder.glob("*.safetensors")), "pt") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118


@pytest.mark.long
def test_an_adapter_is_trained_from_stage_to_stage_on_a_base_in_bfloat16(pretrained, tmp_path):
    config = ModelConfig(pretrained=str(pretrained), bf16=True, lora_rank=4)
    learner = trained(config, tmp_path / "one")
    assert is_adapted(learner.model)
    weights = learner.model.get_base_model().model.layers[0].self_attn.q_proj
    assert weights.base_layer.weight.dtype is torch.bfloat16
    assert weights.lora_B["default"].weight.dtype is torch.float32
    learner.save(tmp_path / "stage")
    assert not (tmp_path / "stage" / "model.safetensors").exists()
    again = load_learner(config, tmp_path / "stage")
    assert torch.equal(logits_of(again.model.eval()), logits_of(learner.model))
    trained(config, tmp_path / "two", again)
    assert list(again.model.peft_config) == ["default"]
    assert not torch.equal(logits_of(again.model), logits_of(learner.model))


def test_a_loss_that_is_no_number_stops_before_it_is_saved(pretrained, tmp_path):
    config = ModelConfig(pretrained=str(pretrained))
    with pytest.raises(TrainingError, match=r"(loss|grad_norm) is .* at step \d; .*learning rate"):
        trained(config, tmp_path, learning_rate=1e30, save_steps=1, epochs=4)
    saved = load_file(f"{last_checkpoint(tmp_path / 'checkpoints')}/model.safetensors")
    assert all(weights.isfinite().all() for weights in saved.values())


@pytest.mark.long
def test_an_adapter_is_merged_in_float32(pretrained, tmp_path):
    config = ModelConfig(pretrained=str(pretrained), bf16=True, lora_rank=4)
    learner = trained(config, tmp_path)
    exact = logits_of(learner.model.float())
    finish(learner, config)
    learner.save(tmp_path / "policy")
    assert not is_adapted(learner.model)
    assert types_in(tmp_path / "policy") == {"F32"}
    served = PolicyController.from_pretrained(tmp_path / "policy").model
    assert torch.allclose(logits_of(served), exact, atol=1e-5)


@pytest.mark.long
def test_an_adapter_that_is_kept_is_a_policy_with_its_base(pretrained, tmp_path, monkeypatch):
    config = ModelConfig(pretrained=str(pretrained), lora_rank=4, merge=False, max_new_tokens=8)
    learner = trained(config, tmp_path)
    expected = logits_of(learner.model)
    finish(learner, config)
    learner.save(tmp_path / "policy")
    monkeypatch.chdir("/")  # it is found from anywhere
    policy = PolicyController.from_pretrained(tmp_path / "policy", dtype="float32")
    assert torch.allclose(logits_of(policy.model), expected, atol=1e-5)
    assert policy.codec.ends == learner.codec.ends
    graph = create_router_r1(CandidatePool.embedded(), policy).compile()
    assert graph.invoke({"question": "Who wrote Hamlet?"})["stop_reason"]
    for file in (tmp_path / "policy").glob("tokenizer*"):
        file.unlink()  # then the tokenizer is that of its model
    again = PolicyController.from_pretrained(tmp_path / "policy")
    assert again.tokenizer.get_vocab() == policy.tokenizer.get_vocab()


def test_an_adapter_without_its_weights_or_base_is_one_clear_line(pretrained, tmp_path):
    config = ModelConfig(pretrained=str(pretrained), lora_rank=4)
    learner = trained(config, tmp_path)
    learner.save(tmp_path / "policy")
    (pretrained / "config.json").unlink()
    with pytest.raises(ControllerError, match=r"pretrained': no model there \(config.json is"):
        PolicyController.from_pretrained(tmp_path / "policy")
    file = tmp_path / "policy" / "adapter_config.json"
    for broken in ("{", "[]", "{}", '{"base_model_name_or_path": null}'):
        file.write_text(broken, encoding="utf-8")
        with pytest.raises(ControllerError, match=r"no adapter can be loaded|does not name the mo"):
            PolicyController.from_pretrained(tmp_path / "policy")
    (tmp_path / "policy" / "adapter_model.safetensors").unlink()
    (tmp_path / "policy" / "adapter_model.bin").touch()
    with pytest.raises(ControllerError, match=r"adapter_model.safetensors is missing"):
        PolicyController.from_pretrained(tmp_path / "policy")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("bf16", "type_"), [(True, "BF16"), (False, "F32")])
def test_a_policy_is_saved_in_the_type_that_its_steps_computed_with(
    pretrained, tmp_path, bf16, type_, monkeypatch
):
    config = ModelConfig(pretrained=str(pretrained), bf16=bf16)
    learner = trained(config, tmp_path)
    learner.save(tmp_path / "stage")
    assert types_in(tmp_path / "stage") == {"F32"}  # to go on with
    finish(learner, config)
    learner.save(tmp_path / "policy")
    assert types_in(tmp_path / "policy") == {type_}
    # It is served in the type that the CPU is fastest in.
    for cpu, halves in (({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda cpu=cpu: cpu, raising=False)
        served = PolicyController.from_pretrained(tmp_path / "policy", device="cpu").model
        assert served.dtype is (halves if bf16 else torch.float32)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 4])
def test_supervised_steps_recompute_activations_where_the_config_says_so(
    pretrained, tmp_path, rank
):
    options = {"pretrained": str(pretrained), "lora_rank": rank}
    plain = trained(ModelConfig(**options), tmp_path / "plain")
    saving = trained(ModelConfig(**options, gradient_checkpointing=True), tmp_path / "saving")
    assert not plain.model.is_activation_checkpointing
    assert saving.model.is_activation_checkpointing
    assert torch.allclose(logits_of(saving.model), logits_of(plain.model), atol=1e-5)


def test_an_adapter_needs_a_pretrained_model():
    smoke = ROOT / "training" / "configs" / "smoke.yaml"
    with pytest.raises(ConfigError, match="lora_rank: an adapter needs a pretrained model"):
        load_config(smoke, ["model.lora_rank=4"])


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_run_of_all_stages_keeps_its_adapter_to_the_end(pretrained, tmp_path):
    out = tmp_path / "run"
    run = program(
        ROOT / "training" / "finetune.py",
        *("--config", "training/configs/smoke.yaml", f"out={out}"),
        *(f"model.pretrained={pretrained}", "model.lora_rank=4", "model.merge=false"),
        *("stages=[warm_start, grpo]", "warm_start.traces=8", "warm_start.epochs=1"),
        *("model.max_new_tokens=8", "evaluate_questions=2", "grpo.steps=1"),
        "grpo.validate_every=0",
        *(f"model.template={ROOT}/router_r1_graph/prompts/brief.txt", "warm_start.max_length=4000"),
        *("model.max_context_tokens=8000",),
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for folder in ("warm_start/policy", "grpo/policy", "policy"):
        assert (out / folder / "adapter_model.safetensors").is_file()
        assert not (out / folder / "model.safetensors").exists()
    kept = PolicyController.from_pretrained(out / "policy", dtype="float32").model
    assert kept.peft_config.keys() == {"default"}
    merged = PolicyController.from_pretrained(out / "policy", device="cpu").model
    ids = torch.tensor([[5, 6, 7]])
    near = 1e-5 if merged.dtype is torch.float32 else 0.02  # as this CPU is fastest
    assert torch.allclose(merged(ids).logits.float(), kept.cpu()(ids).logits, atol=near)
