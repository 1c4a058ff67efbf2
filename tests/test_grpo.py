"""GRPO over the graph with the shipped policy: what is sampled is trained, and reward goes up."""

from __future__ import annotations

import copy
import gc
import json
import random
import signal
import time
import weakref
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest

from extras import needs

needs("train")

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

import router_r1_graph
from fakes import answer, search
from openai_server import Reply, Status
from renamed import rename
from router_r1_graph import (
    CandidatePool,
    ConfigError,
    RouterContext,
    ScriptedController,
    read_traces,
)
from router_r1_graph.cost_scales import AbsoluteCost
from router_r1_graph.ledger import total
from router_r1_graph.rewards import reward
from router_r1_graph.simulation import World, generate
from training._compat import require_scoring
from training.checkpoints import last_checkpoint, train
from training.config import GRPOConfig, ModelConfig, RewardConfig
from training.errors import BudgetSpentError, OutsideError, TrainingError
from training.export import rollout_row
from training.graph_trainer import GraphGRPOTrainer
from training.grpo import grpo_trainer, run_grpo
from training.items import Item
from training.judge import Judge
from training.models import load_learner
from training.rollouts import Patience, roll_out, why_left_out
from training.spending import Spending, StageBill
from training.validation import Validation

pytestmark = [
    pytest.mark.timeout(1800),  # trainings
    # TRL still uses the old names of transformers.
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

DEMO = Path(router_r1_graph.__file__).parent / "policies" / "demo"
SETTINGS = json.loads((DEMO / "router_r1.json").read_text(encoding="utf-8"))
SETTINGS["max_new_tokens"] = 160  # enough for a turn that ends
REWARD = RewardConfig(scale="absolute", usd=1e-4)


@cache
def shipped():
    known = ModelConfig.model_fields
    return load_learner(
        ModelConfig(pretrained=str(DEMO), **{k: v for k, v in SETTINGS.items() if k in known})
    )


def learner():
    """Return the shipped policy with weights of its own, for a training to change."""
    return replace(shipped(), model=copy.deepcopy(shipped().model))


def questions(count, pool=None, seed=5, max_rounds=4):
    pool = pool or CandidatePool.embedded()
    asked = generate(World.embedded(), split="train", n=count, seed=seed)
    context = RouterContext(cost_weight=0.5, max_rounds=max_rounds)
    return [Item(q.id, q.text, q.gold, pool, context) for q in asked]


def config(**changes):
    defaults = {
        "steps": 1,
        "questions": 2,
        "group": 8,
        "micro_batch": 16,
        "learning_rate": 3e-4,
        "beta": 0,
        "validate_every": 0,
        "save_steps": 1000,
        "wait_seconds": 0,
    }
    return GRPOConfig(**{**defaults, **changes})


def options(folder, *, rules=REWARD, budget_usd=None, **more):
    return {
        "reward": rules,
        "folder": folder / "checkpoints",
        "metrics": folder / "metrics.jsonl",
        "seed": 0,
        "spending": Spending(folder / "spending", budget_usd),
        **more,
    }


def lines(folder, stage="grpo"):
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [d for d in map(json.loads, text.splitlines()) if d["stage"] == stage]


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


class Gradients(TrainerCallback):
    """Keeps the gradients of each step, before the optimizer takes them."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.steps.append({n: p.grad.clone() for n, p in model.named_parameters()})


@pytest.mark.long
def test_reward_goes_up(tmp_path):
    # The policy answers these two right about every second time.
    items = [questions(13)[which] for which in (9, 12)]
    run_grpo(learner(), items, config(steps=4), **options(tmp_path))
    steps = [line for line in lines(tmp_path) if "reward" in line]
    assert len(steps) == 4
    assert steps[0]["grad_norm"] > 0.01
    assert fmean(s["reward"] for s in steps[-2:]) > steps[0]["reward"] + 0.05


def plain_credit(traces, alpha):
    """The credit of a group on the absolute scale, written down once more."""
    rewards = [reward(trace, AbsoluteCost(REWARD.usd)) for trace in traces]
    outcome = torch.tensor([-1.0 if r.errors else r.outcome for r in rewards])
    credit = (1 - alpha) * (outcome - outcome.mean()) / (outcome.std(correction=0) + 1e-4)
    right = outcome > 0
    cheap = torch.tensor([r.cost for r in rewards])[right]
    usd = torch.tensor([total(trace.ledger)["cost_usd"] for trace in traces])[right]
    if len(cheap) > 1 and usd.mean() > 0:
        share = min(1.0, float(usd.std(correction=0) / usd.mean() / 0.05))
        unit = max(float(cheap.std(correction=0)), 0.05)
        credit[right] += alpha * share * (cheap - cheap.min()) / unit
    return credit - credit.mean()


@pytest.mark.parametrize("micro_batch", [pytest.param(16, marks=pytest.mark.long), 4])
def test_the_gradients_of_a_step_are_those_of_a_plain_loop(tmp_path, micro_batch):
    ours, group = learner(), 8
    model = learner().model
    codec = ours.codec
    step = config(micro_batch=micro_batch)
    trainer, _ = grpo_trainer(ours, questions(2), step, **options(tmp_path))
    kept = Gradients()
    trainer.add_callback(kept)
    train(trainer, tmp_path / "checkpoints", "grpo")

    traces = list(read_traces(tmp_path / "traces" / "000001-0.jsonl.gz"))
    assert len(traces) == 16
    rows = [rollout_row(trace, codec) for trace in traces]
    credit = torch.cat([plain_credit(traces[i : i + group], 0.5) for i in (0, group)])
    tokens = sum(sum(row["env_mask"]) for row in rows)
    model.eval()
    for row, earned in zip(rows, credit, strict=True):
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
        prompt = len(row["prompt_ids"])
        logits = model(input_ids=ids).logits[0, prompt - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(1, ids[0, prompt:, None])[:, 0]
        sampled = torch.tensor(row["env_mask"]) == 1
        # What was sampled in the rollout is what is scored here.
        assert torch.allclose(logprobs[sampled], torch.tensor(row["logprobs"])[sampled], atol=1e-4)
        (-(earned * logprobs[sampled]).sum() / tokens).backward()
    [theirs] = kept.steps
    largest = max(float(g.abs().max()) for g in theirs.values())
    assert largest > 1e-4
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, theirs[name], atol=1e-4 * largest, rtol=1e-3), name


@pytest.mark.long
def test_a_question_whose_samples_are_worth_the_same_is_not_computed(tmp_path):
    hopeless, other = (questions(13)[which] for which in (12, 9))  # see above
    items = [replace(hopeless, gold=("nobody says this",)), other]
    trainer, _ = grpo_trainer(learner(), items, config(micro_batch=8), **options(tmp_path))
    computed, score = [], trainer._get_per_token_logps_and_entropies

    def counted(model, ids, *args, **kwargs):
        if model.training and torch.is_grad_enabled():
            computed.append(len(ids))
        return score(model, ids, *args, **kwargs)

    trainer._get_per_token_logps_and_entropies = counted
    kept = Gradients()
    trainer.add_callback(kept)
    train(trainer, tmp_path / "checkpoints", "grpo")
    assert computed == [8]
    assert any(gradient.any() for gradient in kept.steps[0].values())


def test_the_papers_rule_is_one_setting(tmp_path):
    rules = RewardConfig(scale="percentile")
    trainer, _ = grpo_trainer(
        learner(), questions(2), config(advantage="sum"), **options(tmp_path, rules=rules)
    )
    seen = []
    score = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: seen.append(score(inputs)) or seen[-1]
    train(trainer, tmp_path / "checkpoints", "grpo")
    scale = json.loads((tmp_path / "checkpoints" / "scale.json").read_text())["seen"]
    assert len(scale) == 16
    traces = list(read_traces(tmp_path / "traces" / "000001-0.jsonl.gz"))
    # Before any episode is seen, all are cheap: 0.5 * exact match + 0.5, and 0 or -1 for the rest.
    rewards = torch.tensor([_paper(trace) for trace in traces]).view(2, 8)
    assert rewards.std() > 0
    spread = rewards.std(dim=1, keepdim=True) + 1e-4
    expected = ((rewards - rewards.mean(dim=1, keepdim=True)) / spread).view(-1)
    # TRL shuffles a generation batch before it splits it into steps.
    assert torch.allclose(seen[0]["advantages"].sort().values, expected.sort().values, atol=1e-4)


def _paper(trace):
    parts = reward(trace, AbsoluteCost(1.0))
    return -1.0 if parts.errors else float(parts.outcome > 0)


@pytest.mark.long
def test_one_seed_gives_one_run_and_a_run_that_was_killed_ends_with_the_same_weights(tmp_path):
    settings = config(
        steps=3,
        questions=1,
        group=4,
        micro_batch=2,
        save_steps=1,
        validate_every=2,
        validate_cost_weights=(0.5,),
    )
    held_out = questions(1, seed=77, max_rounds=2)

    # Rewards differ. The second stop is where the first question comes again.
    asked = [questions(13)[which] for which in (9, 12)]

    def whole(folder):
        ours = learner()
        run_grpo(ours, asked, settings, **options(folder, held_out=held_out))
        return weights(ours.model)

    first = whole(tmp_path / "one")

    class Interrupt(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 0:  # the step is finished, and a checkpoint written
                signal.raise_signal(signal.SIGTERM)
            if state.global_step == 2:  # as a kill leaves it
                raise KeyboardInterrupt

    def interrupted():
        trainer, watch = grpo_trainer(
            learner(), asked, settings, **options(tmp_path / "two", held_out=held_out)
        )
        trainer.add_callback(Interrupt())
        train(trainer, tmp_path / "two" / "checkpoints", "grpo")
        return watch.interrupted

    assert interrupted()
    assert last_checkpoint(tmp_path / "two" / "checkpoints").endswith("checkpoint-1")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    second = whole(tmp_path / "two")
    moved = weights(learner().model)
    assert any(not torch.equal(first[name], moved[name]) for name in first)
    for name in first:
        assert torch.equal(first[name], second[name]), name
    for step in (1, 2, 3):
        one, two = (
            [t.turns for t in read_traces(tmp_path / run / "traces" / f"{step:06}-0.jsonl.gz")]
            for run in ("one", "two")
        )
        assert one == two


def test_what_is_sampled_does_not_depend_on_the_time_that_calls_take(serve):
    def sampled(seed):
        delays = random.Random(seed)

        def late(request):
            time.sleep(delays.random() / 20)
            return Reply(f"{request.prompt[:7]} is Carel Fabritius")

        items = asked_of(serve(late), max_rounds=3) * 6
        traces = roll_out(items, learner().controller(temperature=1.0, seed=3))
        assert sum(len(trace.calls) for trace in traces) > 6
        tokens = [
            m.additional_kwargs["tokens"] for t in traces for m in t.scratchpad if m.type == "ai"
        ]
        return [(one["output_ids"], one["logprobs"]) for one in tokens]

    assert sampled(0) == sampled(1)


# ------------------------------------------------------------------------------- what goes wrong


DOMAINS = ("literature", "geography", "music", "science", "film", "biography", "art")


def asked_of(server, max_rounds=1, **resilience):
    """A question of several hops, for real candidates that seem to know everything."""
    candidates = [
        {
            "name": name,
            "base_url": server.base_url,
            "input_usd_per_mtok": 1,
            "output_usd_per_mtok": 2,
            "max_retries": 0,
            "benchmarks": dict.fromkeys(DOMAINS, 0.9),
        }
        for name in ("Quillora", "Ancestil")
    ]
    pool = CandidatePool.model_validate({"candidates": candidates, "resilience": resilience})
    return questions(4, pool, max_rounds=max_rounds)[3:]


def test_an_endpoint_that_is_away_stops_the_run_with_the_cause(tmp_path, serve):
    server = serve(Status(503))
    settings = config(questions=1, micro_batch=8, tries=2)
    with pytest.raises(OutsideError, match=r"(?s) of 8 rollouts of step 1 .* 2 attempts.*503"):
        run_grpo(learner(), asked_of(server), settings, **options(tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_an_endpoint_that_is_left_alone_for_a_while_is_away_too(tmp_path, serve):
    items = asked_of(serve(Status(503)), breaker_failures=2)
    settings = config(questions=1, micro_batch=8, tries=1)
    with pytest.raises(OutsideError, match=r"(?s) of 8 rollouts of step 1 "):
        run_grpo(learner(), items, settings, **options(tmp_path))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("said", [Status(400), Reply("")])
def test_endpoints_that_refuse_whatever_they_are_asked_stop_the_run_with_the_cause(
    tmp_path, serve, said
):
    settings = config(questions=1, micro_batch=8, tries=1)
    with pytest.raises(OutsideError, match=r"none of the last \d rollouts .*to step 1, got a re"):
        run_grpo(learner(), asked_of(serve(said)), settings, **options(tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.long
def test_an_endpoint_that_goes_away_in_mid_run_leaves_a_checkpoint_to_go_on_from(tmp_path, serve):
    server = serve(Reply("Carel Fabritius"))
    settings = config(
        steps=3, questions=1, micro_batch=8, tries=1, validate_every=1, validate_cost_weights=(0.5,)
    )
    items = asked_of(server)
    more = options(tmp_path, held_out=items)

    def away(*_, **__):
        server.answer = Status(503)

    # The first time when step 1 is to be validated, then in the rollouts of step 3.
    for step, event in ((1, "on_optimizer_step"), (2, "on_step_end")):
        server.answer = Reply("Carel Fabritius")
        trainer, _ = grpo_trainer(learner(), items, settings, **more)
        trainer.add_callback(type("Away", (TrainerCallback,), {event: away}))
        with pytest.raises(OutsideError, match=f"the checkpoint of step {step} is written"):
            train(trainer, tmp_path / "checkpoints", "grpo")
        assert last_checkpoint(tmp_path / "checkpoints").endswith(f"checkpoint-{step}")
    server.answer = Reply("Carel Fabritius")
    run_grpo(learner(), items, settings, **more)
    assert [line["step"] for line in lines(tmp_path) if "reward" in line][-2:] == [2, 3]
    assert [line["step"] for line in lines(tmp_path, "grpo_validation")] == [0, 1, 2, 3]


def test_a_rollout_that_fails_from_outside_is_left_out_of_loss_and_group(tmp_path, serve):
    # Eight rollouts ask at once; for three of them nobody ever replies.
    server = serve([*[Reply("Carel Fabritius")] * 5, Status(503)])
    settings = config(questions=1, micro_batch=8, tries=1)
    run_grpo(learner(), asked_of(server), settings, **options(tmp_path))
    [line] = [line for line in lines(tmp_path) if "reward" in line]
    traces = list(read_traces(tmp_path / "traces" / "000001-0.jsonl.gz"))
    failed = [t for t in traces if t.calls and not any(call.ok for call in t.calls)]
    assert 1 <= len(failed) <= 3
    assert line["left_out"] == len(failed) / 8
    rest = [reward(t, AbsoluteCost(REWARD.usd)).total for t in traces if t not in failed]
    assert line["reward"] == pytest.approx(fmean(rest), abs=1e-5)


def test_a_passing_failure_is_tried_again_and_costs_no_rollout(tmp_path, serve):
    server = serve([*[Status(503)] * 8, Reply("Carel Fabritius")])
    settings = config(questions=1, micro_batch=8, tries=3)
    run_grpo(learner(), asked_of(server), settings, **options(tmp_path))
    [line] = [line for line in lines(tmp_path) if "reward" in line]
    assert line["left_out"] == 0


@pytest.mark.parametrize(("tries", "fails"), [(1, True), (2, False)])
def test_a_failure_of_the_sampler_is_never_the_policys(tries, fails):
    ours = learner()
    first = iter([torch.OutOfMemoryError("CUDA out of memory")])

    def full(*_):
        if error := next(first, None):
            raise error

    ours.model.register_forward_pre_hook(full)
    patience = Patience(tries, wait_seconds=0)
    traces = roll_out(questions(1) * 4, ours.controller(temperature=1.0, seed=1), patience=patience)
    left_out = [why_left_out(trace) for trace in traces]
    assert [reason.startswith("the sampler failed: ") for reason in left_out] == [fails] * 4
    assert all("CUDA out of memory" in reason for reason in left_out) == fails


def test_a_prompt_that_is_too_long_is_named_and_left_out(tmp_path, capsys):
    items = questions(2)
    long = replace(items[0], id="the-long-one", question="why " * 3000)
    settings = config(group=2, micro_batch=4)
    run_grpo(learner(), [long, *items], settings, **options(tmp_path))
    assert "1 question left out" in capsys.readouterr().out
    assert lines(tmp_path)[0]["step"] == 1
    traces = list(read_traces(tmp_path / "traces" / "000001-0.jsonl.gz"))
    assert {trace.question for trace in traces} <= {item.question for item in items}
    with pytest.raises(ConfigError, match="every question"):
        run_grpo(learner(), [long], settings, **options(tmp_path / "other"))
    validated = config(group=2, micro_batch=4, validate_every=1, validate_cost_weights=(0, 0.5))
    held_out = options(tmp_path / "validated", held_out=[long, *items])
    trainer, _ = grpo_trainer(learner(), items, validated, **held_out)
    assert "grpo_validation: 1 question left out" in capsys.readouterr().out
    [validation] = [c for c in trainer.callback_handler.callbacks if isinstance(c, Validation)]
    assert {item.id for item in validation.items} == {item.id for item in items}
    with pytest.raises(ConfigError, match="grpo_validation: the prompt of every question"):
        grpo_trainer(learner(), items, validated, **held_out | {"held_out": [long]})


@pytest.mark.long
def test_fewer_questions_than_a_step_needs_are_asked_again(tmp_path):
    run_grpo(learner(), questions(1), config(group=2, micro_batch=4), **options(tmp_path))
    assert lines(tmp_path)[0]["step"] == 1
    assert len(list(read_traces(tmp_path / "traces" / "000001-0.jsonl.gz"))) == 4


@pytest.mark.long
def test_the_budget_stops_a_run_with_a_checkpoint_and_says_what_it_would_cost(
    tmp_path, serve, capsys
):
    items = asked_of(serve(Reply("Carel Fabritius", input_tokens=40, output_tokens=30)))
    limit = config(steps=50, questions=1, micro_batch=8)
    budget = {"budget_usd": 0.002}  # a call costs $0.0001
    with pytest.raises(BudgetSpentError, match=r"budget_usd = \$0\.0020.* are paid.*run again"):
        run_grpo(learner(), items, limit, **options(tmp_path, **budget))
    steps = [line for line in lines(tmp_path) if "usd" in line]
    assert 0 < len(steps) < 20
    paid = sum(line["usd"] for line in steps)
    assert paid == pytest.approx(Spending(tmp_path / "spending").total_usd())
    assert 0.001 < paid <= 0.002 * 1.25
    assert last_checkpoint(tmp_path / "checkpoints").endswith(f"-{len(steps)}")
    assert "the 49 steps to come will cost about $" in capsys.readouterr().out
    # A higher limit goes on; a budget of 0 pays nothing.
    more = config(steps=len(steps) + 1, questions=1, micro_batch=8)
    run_grpo(learner(), items, more, **options(tmp_path, budget_usd=1))
    with pytest.raises(BudgetSpentError, match=r"\$0"):
        run_grpo(learner(), items, limit, **options(tmp_path / "none", budget_usd=0))
    assert not (tmp_path / "none" / "traces").exists()


def test_each_call_is_on_the_bill_before_the_run_goes_on(tmp_path, serve):
    paid = []

    def reply(request):
        paid.append(Spending(tmp_path).total_usd())  # what a kill would leave here
        return Reply("Carel Fabritius", input_tokens=40, output_tokens=30)

    [item] = asked_of(serve(reply), max_rounds=3)
    turns = [search("Quillora: who?"), search("Ancestil: where?"), answer("x")]
    bill = StageBill(Spending(tmp_path), "grpo")
    [trace] = roll_out([item], ScriptedController(turns), bill=bill)
    assert paid == [0, pytest.approx(1e-4)]
    assert bill.spending.total_usd() == pytest.approx(total(trace.ledger)["cost_usd"])
    (tmp_path / "file").touch()  # a bill that cannot be written ends the run
    with pytest.raises(OSError, match="file"):
        broken = StageBill(Spending(tmp_path / "file"), "grpo")
        roll_out([item], ScriptedController(turns), bill=broken)


def test_spending_outlives_a_kill_and_counts_all_processes(tmp_path):
    spending = Spending(tmp_path, 1.0)
    spending.add_usd("grpo", 0.1)
    with (tmp_path / "spending-0.jsonl").open("a") as file:
        file.write('{"stage": "grpo", "us')  # torn
    again = Spending(tmp_path, 1.0)
    assert again.total_usd() == pytest.approx(0.1)
    again.add_usd("grpo", 0.1)
    other = Spending(tmp_path, 1.0, process=1)
    other.add_usd("grpo", 0.1)
    assert again.total_usd() == other.total_usd() == pytest.approx(0.3)
    assert again.left_usd() == pytest.approx(0.7)
    assert again.refuses(0.8)
    assert not again.refuses(0.5)


def test_simulated_candidates_are_not_paid(tmp_path, serve):
    """Beside real ones in one pool, too."""
    real = asked_of(serve(Reply("Carel Fabritius", input_tokens=40, output_tokens=30)))[0].pool
    embedded = CandidatePool.embedded().candidates[:1]
    pool = CandidatePool(candidates=(*embedded, *real.candidates[1:]))
    both = f"{search(f'{embedded[0].name}: who?')}{search('Ancestil: who?')}"
    bill = StageBill(Spending(tmp_path), "grpo")
    [trace] = roll_out(questions(1, pool), ScriptedController([both, answer("x")]), bill=bill)
    assert [line["cost_usd"] > 0 for line in trace.ledger["candidates"].values()] == [True, True]
    assert bill.spending.total_usd() == pytest.approx(1e-4)
    assert bill.spending.by_stage()["grpo"].calls == 1


def test_the_same_answers_are_worth_the_same_at_each_validation(tmp_path):
    # So small a rate changes no answer, while the scale of the training's costs fills.
    settings = config(
        steps=2,
        questions=1,
        group=4,
        micro_batch=4,
        learning_rate=1e-30,
        save_steps=1,
        validate_every=1,
        validate_cost_weights=(0.5,),
    )
    held_out = questions(3, seed=77, max_rounds=2)
    more = options(tmp_path, held_out=held_out, rules=RewardConfig())
    items = questions(8, max_rounds=2)[6:]
    run_grpo(learner(), items, settings, **more)
    longer = settings.model_copy(update={"steps": 3})
    run_grpo(learner(), items, longer, **more)  # the scale is that of before
    seen = lines(tmp_path, "grpo_validation")
    assert [line["step"] for line in seen] == [0, 1, 2, 3]
    assert len({line["reward"] for line in seen}) == 1
    assert seen[0]["reward"] < seen[0]["exact_match"]  # cost counts from the first one on


def test_a_scale_that_stays_begins_where_something_is_paid():
    judge = Judge(RewardConfig())

    def cheapness(*costs):
        judge.fix(costs)
        return [judge.scale.score(cost) for cost in costs]

    assert cheapness(0.0, 0.0) == [1, 1]  # an untrained model asks nobody
    assert cheapness(10.0, 10.0) == [0, 0]  # one that asks the same candidate each time
    assert cheapness(0.0, 5.0, 20.0) == [1, 0.5, 0]
    absolute = Judge(RewardConfig(scale="absolute", usd=1.0))
    absolute.fix([0.5])
    assert absolute.scale.score(0.25) == 0.75


@pytest.mark.long
def test_the_best_weights_on_held_out_questions_are_kept_and_a_stage_stops_early(tmp_path):
    # So large a rate ruins the policy at once.
    settings = config(
        steps=6,
        questions=1,
        micro_batch=8,
        learning_rate=3e-2,
        validate_every=1,
        validate_cost_weights=(0.1, 0.5),
        patience=2,
    )
    ours = learner()
    before = weights(ours.model)
    held_out = questions(1, seed=77, max_rounds=1)
    items = questions(8, max_rounds=1)[7:]  # right at times: rewards differ
    run_grpo(ours, items, settings, **options(tmp_path, held_out=held_out))
    seen = lines(tmp_path, "grpo_validation")
    assert {line["cost_weight"] for line in seen} == {0.1, 0.5}
    steps = sorted({line["step"] for line in seen})
    assert steps == [0, 1, 2]
    rewards = {s: fmean(d["reward"] for d in seen if d["step"] == s) for s in steps}
    assert rewards[0] > max(rewards[1], rewards[2])
    again = learner()  # as after a kill while the stage is measured
    run_grpo(again, items, settings, **options(tmp_path, held_out=held_out))
    assert lines(tmp_path, "grpo_validation") == seen
    for model in (ours.model, again.model):
        for name, best in weights(model).items():
            assert torch.equal(best, before[name]), name


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["_buffered_inputs", "_step", "_save_checkpoint"])
def test_a_trainer_that_keeps_its_own_otherwise_trains(tmp_path, monkeypatch, name):
    missed = rename(monkeypatch, GraphGRPOTrainer, name)
    trainer, _ = grpo_trainer(
        learner(), questions(1), config(questions=1, group=4, micro_batch=2), **options(tmp_path)
    )
    ended = StopAfter(name == "_save_checkpoint")
    trainer.add_callback(ended)
    if name == "_save_checkpoint":
        with pytest.raises(OutsideError, match=r"^no more; see to it, run again to go on$"):
            train(trainer, tmp_path / "checkpoints", "grpo")
        assert last_checkpoint(tmp_path / "checkpoints") is None
    else:
        train(trainer, tmp_path / "checkpoints", "grpo")
    assert missed
    assert ended.steps == 1


class StopAfter(TrainerCallback):
    """Counts steps, and may raise at the end of one what stops a run."""

    def __init__(self, stops):
        self.steps, self._stops = 0, stops

    def on_step_end(self, args, state, control, **_):
        self.steps += 1
        if self._stops:
            raise OutsideError("no more")


def test_an_advantage_that_trl_does_not_ask_for_is_refused():
    require_scoring(GRPOTrainer, "per_call")
    require_scoring(object, "sum")
    with pytest.raises(TrainingError, match=r"grpo\.advantage: per_call cannot be had"):
        require_scoring(object, "per_call")


def test_no_model_is_held_beside_those_of_trl(tmp_path):
    ours = learner()
    held = weakref.ref(ours.model)
    trainer, _ = grpo_trainer(ours, questions(1), config(), **options(tmp_path))
    gc.collect()
    assert trainer.model
    assert held() is None


def test_sharded_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="FSDP splits a model"):
        run_grpo(learner(), questions(1), config(), **options(tmp_path))
