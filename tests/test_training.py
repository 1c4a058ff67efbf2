"""`training/finetune.py` as it is run: real TRL trainers, small models, all stages."""

import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import pytest

from extras import needs

needs("train")

import torch
import yaml
from accelerate.state import AcceleratorState

from in_process import forked, program
from openai_server import Cut, Reply
from router_r1_graph import (
    CandidatePool,
    ConfigError,
    RouterContext,
    ScriptedController,
    create_router_r1,
    parse_controller,
    read_traces,
)
from router_r1_graph.controllers.policy.sampling import Sample
from router_r1_graph.ledger import total
from router_r1_graph.simulation import (
    Ask,
    Compare,
    World,
    YesNo,
    generate,
    known_world,
    read_question,
    relation_domain,
    true_answer,
)
from training.best_of_n import _best_rows, rows_from_before
from training.checkpoints import last_checkpoint
from training.config import GRPOConfig, ModelConfig, RewardConfig, load_config
from training.export import IGNORED
from training.grpo import grpo_trainer
from training.items import Item, draw_items
from training.judge import Judge
from training.learned_rows import LeftOut
from training.models import load_learner, make_learner
from training.pools import DOMAINS, draw_pool
from training.rollouts import roll_out
from training.run import Run
from training.spending import Spending
from training.teacher import HABITS, TeacherController, fits

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "training" / "configs").glob("*.yaml"))
TINY = [
    "model.scratch={vocabulary: 400, hidden_size: 32, layers: 1, heads: 2}",
    "warm_start.traces=48",
    "warm_start.epochs=1",
    "warm_start.save_steps=2",
    "evaluate_questions=4",
    "grpo.validate_questions=4",
    "model.max_new_tokens=16",
    "best_of_n.questions=2",
    "best_of_n.samples=2",
    "best_of_n.teacher_questions=2",
    "best_of_n.teacher_samples=2",
]


pytestmark = pytest.mark.timeout(1800)  # whole trainings


def finetune(*args):
    return program(ROOT / "training" / "finetune.py", *args, cwd=ROOT)


def smoke(out, *overrides):
    return finetune("--config", "training/configs/smoke.yaml", f"out={out}", *TINY, *overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of all stages: what it printed, and its folder."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run = smoke(out)
    assert run.returncode == 0, run.stderr[-3000:]
    return run, out


def test_all_stages_run_and_the_policy_is_a_controller(whole):
    run, out = whole
    assert f"--controller policy:{out}/policy" in run.stdout
    graph = create_router_r1(
        CandidatePool.embedded(), parse_controller(f"policy:{out}/policy", CandidatePool.embedded())
    )
    assert graph.compile().invoke({"question": "Who wrote Hamlet?"})["stop_reason"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"warm_start", "best_of_n", "grpo", "grpo_test"} <= {line["stage"] for line in lines}
    record = yaml.safe_load((out / "config.yaml").read_text())
    assert record["config"]["warm_start"]["traces"] == 48
    assert record["versions"]["trl"].startswith("1.16")
    assert "| warm_start |" in (out / "report.md").read_text()
    assert (out / "policy" / "README.md").is_file()
    assert not list((out / "policy").glob("*.bin"))
    again = smoke(out)
    assert again.returncode == 0
    assert again.stdout.count("done before") == 3


@contextmanager
def _no_file_beyond(size):
    """Let no file grow beyond `size` bytes, as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.long
@pytest.mark.parametrize("missing", [1, 20_000], ids="{} bytes missing".format)
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(tmp_path, whole, missing):
    out = tmp_path / "run"
    shutil.copytree(whole[1], out)
    overrides = ["stages=[warm_start]", "evaluate_questions=0"]
    (out / "warm_start" / "done.json").unlink()
    checkpoints = out / "warm_start" / "checkpoints"
    before = last_checkpoint(checkpoints)
    optimizer = (Path(before) / "optimizer.pt").stat().st_size
    with _no_file_beyond(optimizer - missing):  # the words depend on how many
        full = smoke(out, *overrides, "warm_start.epochs=3")
    assert full.returncode == 2, full.stderr[-2000:]
    assert "is the disk of" in full.stderr
    assert "Traceback" not in full.stderr
    assert last_checkpoint(checkpoints) == before
    again = smoke(out, *overrides, "warm_start.epochs=3")
    assert again.returncode == 0, again.stderr[-2000:]
    assert last_checkpoint(checkpoints) != before


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path):
    out = tmp_path / "run"
    overrides = [
        *TINY,
        "stages=[warm_start]",
        "warm_start.traces=20",
        "warm_start.batch_size=4",
        "warm_start.epochs=800",  # more than it has time for
        "warm_start.save_steps=5",
        "evaluate_questions=0",
    ]
    begin = ("--config", "training/configs/smoke.yaml", f"out={out}", *overrides)
    process = forked(finetune, *begin)
    checkpoints = out / "warm_start" / "checkpoints"
    try:
        while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
            assert process.is_alive(), "ended before it was killed"
            time.sleep(0.05)
    finally:
        process.kill()
        process.join()
    states = checkpoints.glob("checkpoint-*/trainer_state.json")
    last = max(int(path.parent.name.split("-")[1]) for path in states)
    written = (checkpoints / f"checkpoint-{last}" / "trainer_state.json").stat().st_mtime
    run = finetune(*begin, f"warm_start.epochs={(last + 5) / 5}")
    assert run.returncode == 0, run.stderr[-3000:]
    # Begun anew, it would have written this checkpoint again.
    assert (checkpoints / f"checkpoint-{last}" / "trainer_state.json").stat().st_mtime == written
    assert (checkpoints / f"checkpoint-{last + 5}" / "trainer_state.json").is_file()
    assert (out / "warm_start" / "policy" / "model.safetensors").is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_shipped_config_is_valid_and_begins_with_its_command(path):
    load_config(path)
    first = path.read_text().splitlines()[0]
    assert f"training/finetune.py --config training/configs/{path.name}" in first


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grpo.step=3", "unknown key grpo.step (did you mean 'steps'?); allowed: steps, "),
        ("stages=[grpoo]", "stages.0"),
        ("grpo.steps=0", "grpo.steps"),
        ("seed", "an override is key=value"),
        ("data.source=files", "data.files names none"),
        ("grpo.micro_batch=7", "must be a multiple of grpo.micro_batch"),
    ],
)
def test_a_wrong_config_names_the_key(override, message):
    with pytest.raises(ConfigError) as raised:
        load_config(ROOT / "training/configs/smoke.yaml", [override])
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.pretrained=/nowhere/model", "no such folder"),
        ("out=/proc/nowhere", "train: "),
        ("warm_start.trace_files=[/nowhere.jsonl]", "no such trace file"),
    ],
)
def test_what_is_missing_is_one_line_and_no_traceback(tmp_path, override, message):
    run = smoke(tmp_path / "run", "stages=[warm_start]", override)
    assert run.returncode != 0
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_heads_of_a_model_from_scratch_share_keys_and_values_where_told():
    small = {"vocabulary": 400, "hidden_size": 32, "layers": 1, "heads": 4}
    for shared, kept in ((0, 4), (1, 1), (2, 2)):
        model = ModelConfig(scratch={**small, "kv_heads": shared}, max_new_tokens=8)
        learner = make_learner(model, ["Who?"], seed=0)
        assert learner.model.config.num_key_value_heads == kept
        together, alone = (
            [Sample([5, *range(7, 7 + n)], max_new_tokens=6) for n in (3, 9)] for _ in "ab"
        )
        generator = learner.controller().generator
        generator.generate(together)
        generator.forget()
        for turn in alone:
            generator.generate([turn])
        assert [turn.ids for turn in together] == [turn.ids for turn in alone]
    with pytest.raises(ValueError, match="heads: 4 is no multiple of kv_heads: 3"):
        ModelConfig(scratch={**small, "kv_heads": 3})


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_loss_of_trl_sees_the_environments_tokens_masked_and_no_others(tmp_path):
    """A contract with TRL: what it trains on is what the graph says the policy sampled."""
    torch.set_num_threads(1)
    data = load_config(ROOT / "training/configs/smoke.yaml").data
    items = draw_items(data, 2, seed=3)
    model = ModelConfig(
        scratch={"vocabulary": 400, "hidden_size": 32, "layers": 1, "heads": 2},
        stop=("</answer>",),
        max_new_tokens=8,
        max_context_tokens=1024,
    )
    learner = make_learner(model, [item.question for item in items], seed=0)
    config = GRPOConfig(steps=1, questions=2, group=2, micro_batch=4, learning_rate=1e-4)
    trainer, _ = grpo_trainer(
        learner,
        items,
        config,
        reward=RewardConfig(),
        folder=tmp_path,
        metrics=tmp_path / "m.jsonl",
        seed=0,
        spending=Spending(tmp_path),
    )
    rollouts, losses = [], []
    roll, compute = trainer.rollout_func, trainer._compute_loss

    def rolling(prompts, trainer):
        rollouts.append(roll(prompts, trainer))
        return rollouts[-1]

    def computing(model, inputs):
        losses.append(inputs)
        return compute(model, inputs)

    trainer.rollout_func, trainer._compute_loss = rolling, computing
    trainer.train()
    (episodes,), (seen,) = rollouts, losses
    assert len(episodes["completion_ids"]) == 4
    real = seen["completion_mask"].bool()
    trained = (seen["completion_mask"] * seen["tool_mask"]).bool()
    expected = sorted(
        tuple(i for i, m in zip(ids, mask, strict=True) if m)
        for ids, mask in zip(episodes["completion_ids"], episodes["env_mask"], strict=True)
    )
    got = sorted(
        tuple(row[mask].tolist()) for row, mask in zip(seen["completion_ids"], trained, strict=True)
    )
    assert got == expected
    environment = sum(mask.count(0) for mask in episodes["env_mask"])
    assert int((real & ~trained).sum()) == environment > 0


def test_drawn_pools_know_every_domain_and_share_no_name_with_the_shipped_ones():
    rng = random.Random(0)
    shipped = {
        c.name
        for p in ("embedded", "embedded_unseen")
        for c in CandidatePool.from_yaml(p).candidates
    }
    pools = [draw_pool(rng) for _ in range(100)]
    for pool in pools:
        assert all(any(fits(c, domain) for c in pool.candidates) for domain in DOMAINS)
        assert not shipped & {c.name for c in pool.candidates}
    assert len({len(pool.candidates) for pool in pools}) == 5
    assert len({c.name for pool in pools for c in pool.candidates}) > 400


def test_names_may_have_the_form_of_models_ids_with_families_and_one_that_begins_another():
    rng = random.Random(0)
    pools = [draw_pool(rng, model_ids=True) for _ in range(100)]
    names = [[c.name for c in pool.candidates] for pool in pools]
    assert all(re.fullmatch(r"([a-z]+/)?[a-z]+(-[0-9a-z.]+)*", n) for pool in names for n in pool)
    assert all(len({*pool}) == len(pool) for pool in names)
    assert sum(any(a != b and a.startswith(b) for a in n for b in n) for n in names) > 20
    assert sum(len({n.split("-")[0] for n in pool}) < len(pool) for pool in names) > 50
    assert len({name.split("-")[0] for pool in names for name in pool}) > 300
    config = load_config(ROOT / "training/configs/smollm2.yaml", ["data.vary.model_ids=0.5"])
    items = draw_items(config.data, 400, seed=1)
    drawn = {tuple(c.name for c in item.pool.candidates) for item in items}
    ids = [all(name.islower() for name in pool) for pool in drawn]
    assert 0.3 < sum(ids) / len(ids) < 0.7


def test_in_other_worlds_the_facts_have_changed_places_and_the_candidates_know_those():
    data = load_config(ROOT / "training/configs/smoke.yaml", ["data.worlds=3"]).data
    items = draw_items(data, 30, seed=2)
    assert items == draw_items(data, 30, seed=2)
    worlds = {c.options["facts"] for i in items for c in i.pool.candidates}
    assert worlds == {"permuted:1000", "permuted:1001", "permuted:1002"}
    for item in items:
        (facts,) = {c.options["facts"] for c in item.pool.candidates}
        structure = read_question(item.question)
        assert (true_answer(known_world(facts), structure),) == item.gold
    real = [true_answer(World.embedded(), read_question(i.question)) for i in items]
    assert sum((answer,) == i.gold for answer, i in zip(real, items, strict=True)) < 15
    held_out = {i.question for i in draw_items(data, 100, seed=2, split="test")}
    assert not held_out & {i.question for i in items}


def test_the_teachers_habits_are_drawn_in_equal_parts_and_say_nothing_about_which_is_good():
    data = load_config(ROOT / "training/configs/smoke.yaml").data
    traces = roll_out(draw_items(data, 60, seed=5), TeacherController(0), name="teacher")
    fit = total = cheapest = 0
    for trace in traces:
        for call in trace.calls:
            asked = read_question(call.query)
            if isinstance(asked, YesNo):  # whoever knows the fact compares
                asked = asked.ask
            assert isinstance(asked, Ask)  # a teacher asks single hops only
            domain = relation_domain(asked.relation)
            fitting = [c for c in trace.pool.candidates if fits(c, domain)]
            total += 1
            fit += any(c.name == call.candidate for c in fitting)
            low = min(fitting, key=lambda c: c.price_usd_per_mtok)
            cheapest += low.name == call.candidate
    assert len(HABITS) == 4
    gave_up = sum(trace.answer == "unknown" for trace in traces) / len(traces)
    assert 0.02 < gave_up < 0.3
    assert 0.75 < fit / total < 0.95  # three habits fit, and "any at all" now and then
    assert cheapest / total < 0.6


def test_what_a_comparison_ends_with_can_be_read_off_by_its_word():
    data = load_config(ROOT / "training/configs/smoke.yaml").data
    items = [
        i for i in draw_items(data, 200, seed=5) if isinstance(read_question(i.question), Compare)
    ]
    traces = roll_out(items, TeacherController(0, give_up=0, give_up_after=0), name="teacher")
    read = 0
    for trace in traces:
        thought = re.search(
            r"\. first (\d+ .+), last (\d+ .+)\. (first|last) (\d+) (.+) </think>", trace.turns[-1]
        )
        if thought:
            first, last, word, number, name = thought.groups()
            assert f"{number} {name}" == {"first": first, "last": last}[word]
            assert int(first.split()[0]) <= int(last.split()[0])
            assert name == trace.answer
            read += 1
    assert read > len(items) / 3


@pytest.mark.long
def test_the_best_of_the_teachers_traces_cost_less_where_cost_weighs_more(tmp_path):
    config = load_config(
        ROOT / "training/configs/demo.yaml",
        [
            f"out={tmp_path}",
            "best_of_n.teacher_questions=8",
            "best_of_n.teacher_samples=4",
            "best_of_n.teacher_cost_weights=[0.0, 0.9]",
        ],
    )
    learner = make_learner(config.model, (trace.question for trace in []), 0)
    rows = rows_from_before(Run(config), learner)
    calls = {"a 0\n": [], "a 0.9\n": []}
    for row in rows:
        text = learner.tokenizer.decode(row["input_ids"])
        [weight] = [weight for weight in calls if weight in text]
        assert text.count(f". {weight.strip()} </think>") == text.count(". a ") > 0
        calls[weight].append(text.count("<search>"))
    assert min(map(len, calls.values())) >= 4
    assert fmean(calls["a 0.9\n"]) < fmean(calls["a 0\n"])
    assert rows_from_before(Run(config), learner) == rows  # from the file


def test_what_to_do_after_a_first_turn_is_learned_of_those_that_share_it():
    """The best trace asked the one that knows at once; who asked the other one has to go on."""
    pool = draw_pool(random.Random(3), size=4)
    deaf, knows = pool.candidates[0], pool.candidates[1]
    question = generate(World.embedded(), split="train", n=1, seed=3)[0]
    ask = "<think> {} </think> <search> {}: {} </search>"
    say = "<think> so </think> <answer> {} </answer>"
    first, other = (ask.format(c.name, c.name, question.text) for c in (deaf, knows))
    scripts = [
        [other, say.format(question.gold[0])],
        [first, say.format("unknown")],
        [first, other, say.format(question.gold[0])],
        [first, other, say.format("unknown")],
    ]
    traces = [
        roll_out(
            [Item("q", question.text, question.gold, pool, RouterContext(cost_weight=0.1))],
            ScriptedController(script),
        )[0]
        for script in scripts
    ]
    config = load_config(ROOT / "training/configs/smoke.yaml", ["reward.scale=absolute"])
    learner = make_learner(config.model, (turn for script in scripts for turn in script), 0)
    judge, left_out = Judge(config.reward), LeftOut()
    rows = list(_best_rows(traces, judge, learner, random.Random(0), 9000, left_out))
    learned = [learner.tokenizer.decode([i for i in row["labels"] if i != IGNORED]) for row in rows]
    assert [text.count("<search>") for text in learned] == [1, 1]
    assert all(text.startswith(other[:20]) for text in learned)
    went_on = learner.tokenizer.decode(rows[1]["input_ids"])
    assert went_on.index(first) < went_on.index(other)


def test_what_is_trained_is_held_in_float32_also_after_a_resume(tmp_path):
    config = ModelConfig(bf16=True)
    make_learner(config, ["a b c"], 0).save(tmp_path)
    assert load_learner(config, tmp_path).model.dtype is torch.float32
    frozen = config.model_copy(update={"lora_rank": 4})
    assert load_learner(frozen, tmp_path).model.dtype is torch.bfloat16


def one_of_two(rank, port, folder):
    """Be a process of a training as torchrun starts it, and leave what it prints."""
    here = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(here, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    AcceleratorState._reset_state(reset_partial_state=True)  # of this process's trainings before
    few = ("grpo.questions=2", "grpo.validate_every=0", "grpo.micro_batch=4")
    stages = ("stages=[warm_start, grpo]", "evaluate_questions=2")
    run = smoke(folder / "run", *stages, *few)
    (folder / f"{rank}.txt").write_text(run.stdout)
    sys.exit(run.stderr[-3000:] if run.returncode else 0)


@pytest.mark.long
def test_two_processes_train_one_model(tmp_path):
    out = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = [forked(one_of_two, rank, port, tmp_path) for rank in (0, 1)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    printed = "".join((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    assert printed.count("--controller policy:") == 1
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for stage in ("warm_start", "grpo"):
        steps = [line["step"] for line in lines if line["stage"] == stage and "loss" in line]
        assert steps == sorted(set(steps)), "written by one process only"
    # 48 traces in batches of 16 for each of two processes.
    states = sorted((out / "warm_start" / "checkpoints").glob("checkpoint-*/trainer_state.json"))
    assert json.loads(states[-1].read_text())["global_step"] == 2
    # 8 episodes a step, by either process its half; both saw the costs of all.
    seen = json.loads((out / "grpo" / "checkpoints" / "scale.json").read_text())["seen"]
    assert len(seen) == 16
    traces = (out / "warm_start" / "traces.jsonl").read_text().splitlines()
    assert len(traces) == 48
    # Held-out questions are shared out, and asked once at each cost weight.
    asked = [(t.id, t.context.cost_weight) for t in read_traces(out / "grpo" / "test_traces.jsonl")]
    assert len(asked) == len(set(asked)) == 2 * 3
    assert sum(line["stage"] == "grpo_test" for line in lines) == 3


def test_an_endpoint_that_dies_in_mid_run_costs_the_calls_and_no_more(tmp_path, serve):
    server = serve([*[Reply("William Shakespeare")] * 10, Cut()])  # the last one stays
    (tmp_path / "pool.yaml").write_text(
        f"""
name: one
candidates:
  - name: Quillora
    base_url: {server.base_url}
    input_usd_per_mtok: 1
    output_usd_per_mtok: 2
    timeout_seconds: 60
    max_retries: 0
    benchmarks: {{literature: 0.9}}
"""
    )
    out = tmp_path / "run"
    overrides = ["stages=[warm_start]", "warm_start.traces=16", "evaluate_questions=0"]
    run = smoke(out, *overrides, f"data.pools=[{tmp_path}/pool.yaml]")
    assert run.returncode == 0, run.stderr[-2000:]
    traces = list(read_traces(out / "warm_start" / "traces.jsonl"))
    bills = [total(trace.ledger) for trace in traces]
    assert len(traces) == 16
    # A question whose query another one has asked before finds the reply in the store.
    stored = sum(bill["stored_calls"] for bill in bills)
    assert sum(bill["calls"] - bill["failed_calls"] for bill in bills) - stored == 10
    assert sum(bill["failed_calls"] for bill in bills) > 5
    assert (out / "policy" / "model.safetensors").is_file()


def test_a_rollout_by_vllm_is_the_same_episode_as_by_the_model_itself():
    """A contract with TRL's VLLMGeneration, with the model of this process behind it."""
    import inspect

    from trl.generation.vllm_generation import VLLMGeneration

    from training.vllm_rollouts import VLLMGenerator

    wanted = inspect.signature(VLLMGeneration.generate).parameters
    assert list(wanted)[:4] == ["self", "prompts", "images", "num_generations"]
    torch.set_num_threads(1)
    model = ModelConfig(
        scratch={"vocabulary": 400, "hidden_size": 32, "layers": 1, "heads": 2},
        stop=("</answer>",),
        max_new_tokens=8,
    )
    items = draw_items(load_config(ROOT / "training/configs/smoke.yaml").data, 3, seed=4)
    learner = make_learner(model, [item.question for item in items], seed=0)
    own = learner.controller().generator

    class Greedy:
        max_completion_length = 0

        def generate(self, prompts, images, num_generations, profiler=None):
            assert images is None
            assert num_generations == 1
            found = [Sample(ids, max_new_tokens=self.max_completion_length) for ids in prompts]
            own.generate(found)
            scores = [[[score] for score in one.logprobs] for one in found]
            return prompts, [one.ids for one in found], scores, None

    served = learner.controller()
    served.generator = VLLMGenerator(Greedy(), 8, served.generator.stop_ids)
    ours, theirs = (roll_out(items, c) for c in (learner.controller(), served))
    for one, other in zip(ours, theirs, strict=True):
        assert one.turns == other.turns
        tokens = [
            [m.additional_kwargs["tokens"]["output_ids"] for m in t.scratchpad if m.type == "ai"]
            for t in (one, other)
        ]
        assert tokens[0] == tokens[1]
