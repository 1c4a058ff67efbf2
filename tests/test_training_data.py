"""What is trained on: the questions of every config, those held out, and pools that differ."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from extras import needs

needs("train")

import torch

from in_process import program
from openai_server import Reply
from router_r1_graph import (
    CandidatePool,
    ConfigError,
    ScriptedController,
    parse_controller,
    pool_tools,
    read_traces,
    write_traces,
)
from router_r1_graph.ledger import total
from training.best_of_n import rows_from_before
from training.config import GRPOConfig, ModelConfig, RewardConfig, load_config
from training.data_config import DataConfig, VaryConfig
from training.grpo import grpo_trainer
from training.items import draw_items
from training.models import load_learner, make_learner
from training.pools import vary
from training.questions import check_questions, how_held_out, question_key, read_questions
from training.rollouts import roll_out
from training.run import Run
from training.spending import Spending
from training.teacher_traces import warm_traces
from yaml_pool import yaml_pool

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "training" / "configs").glob("*.yaml"))
ALIKE = ("smollm2", "qwen3-0.6b-lora")  # the data of smollm2-gpu, which draws more of it
OWN = ["data.source=files", "data.pools=[embedded]", "stages=[grpo]"]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def questions(path, count, prefix="question"):
    """Write a file of so many questions in FlashRAG's schema."""
    rows = ({"id": i, "question": f"{prefix} {i}?", "golden_answers": ["x"]} for i in range(count))
    return write(path, *rows)


def data_of(*files, **settings):
    return DataConfig(source="files", files=files, pools=("embedded",), **settings)


def asked(items):
    return {question_key(item.question) for item in items}


# --- every config draws its items


@pytest.mark.long
@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem not in ALIKE], ids=lambda p: p.stem)
def test_a_shipped_config_draws_the_items_of_each_of_its_stages(path, tmp_path):
    config = load_config(path)
    data, parts = config.data, 1
    if data.source == "hub":  # files of the same size instead
        files = [questions(tmp_path / f"{i}", data.per_source, f"q{i}") for i in range(2)]
        data = data.model_copy(update={"source": "files", "files": tuple(files)})
        assert len(files) == len(data.hub)
    if data.worlds:  # all draw alike: two stand for them
        parts = data.worlds / 2
        data = data.model_copy(update={"worlds": 2})
    counts = {
        "warm_start": config.warm_start.traces,
        "best_of_n": config.best_of_n.teacher_questions or config.best_of_n.questions,
        "grpo": config.grpo.steps * config.grpo.questions,
    }
    held_out = draw_items(data, config.evaluate_questions, config.seed, split="test")
    assert len(held_out) == config.evaluate_questions
    for number, stage in enumerate(config.stages):
        count = round(counts[stage] / parts)
        same_pool = config.warm_start.same_pool if stage == "warm_start" else 1
        items = draw_items(data, count, config.seed + number, same_pool=same_pool)
        assert len(items) == count
        assert all(item.gold for item in items)
        assert not asked(items) & asked(held_out)


def test_pretrained_policies_learn_from_the_same_teacher_and_data():
    most, *others = (
        load_config(ROOT / "training" / "configs" / f"{name}.yaml")
        for name in ("smollm2-gpu", *ALIKE)
    )
    for config in others:
        for name in ("data", "reward", "stages", "evaluate_questions"):
            assert getattr(config, name) == getattr(most, name)
        assert config.warm_start.teacher == most.warm_start.teacher == "english"
        assert config.warm_start.traces <= most.warm_start.traces
        assert config.grpo.steps * config.grpo.questions <= most.grpo.steps * most.grpo.questions


def test_questions_come_again_in_another_order_with_other_pools_and_cost_weights(tmp_path):
    data = data_of(questions(tmp_path / "q.jsonl", 60), vary={"names": 1})
    there = read_questions(data).train
    items = draw_items(data, 3 * len(there), seed=1)
    first, second, third = (
        items[start : start + len(there)] for start in range(0, len(items), len(there))
    )
    assert (
        asked(first) == asked(second) == asked(third) == {question_key(q.question) for q in there}
    )
    assert [i.id for i in first] != [i.id for i in second] != [i.id for i in third]
    assert [i.id for i in first] != [i.id for i in draw_items(data, len(there), seed=2)]
    assert items == draw_items(data, 3 * len(there), seed=1)
    again = {item.id: item for item in second}
    assert all(again[item.id].pool != item.pool for item in first)
    assert any(again[i.id].context.cost_weight != i.context.cost_weight for i in first)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_very_same_prompt_twice_in_a_step_is_two_groups(tmp_path):
    torch.set_num_threads(1)
    data = data_of(questions(tmp_path / "q.jsonl", 1), held_out=0, cost_weights=(0.5,))
    items = draw_items(data, 4, seed=0)
    assert len(asked(items)) == 1
    model = ModelConfig(
        scratch={"vocabulary": 400, "hidden_size": 32, "layers": 1, "heads": 2},
        stop=("</answer>",),
        max_new_tokens=8,
    )
    trainer, _ = grpo_trainer(
        make_learner(model, [item.question for item in items], seed=0),
        items,
        GRPOConfig(steps=2, questions=2, group=2, micro_batch=4, learning_rate=1e-4),
        reward=RewardConfig(),
        folder=tmp_path,
        metrics=tmp_path / "m.jsonl",
        seed=0,
        spending=Spending(tmp_path),
    )
    steps, roll = [], trainer.rollout_func

    def rolling(prompts, trainer):
        steps.append(roll(prompts, trainer))
        return steps[-1]

    trainer.rollout_func = rolling
    trainer.train()
    assert [len(step["trace"]) for step in steps] == [4, 4]
    assert trainer.state.global_step == 2
    for step in steps:  # each of them with randomness of its own
        assert len({tuple(ids) for ids in step["completion_ids"]}) == 4


# --- what is held out


def test_a_hash_holds_the_same_questions_out_whatever_seed_file_order_and_spelling(tmp_path):
    data = data_of(questions(tmp_path / "all.jsonl", 2000))
    train, held_out = read_questions(data)
    assert 150 < len(held_out) < 250
    assert len(train) + len(held_out) == 2000
    keys = {question_key(q.question) for q in held_out}
    assert asked(draw_items(data, 5000, seed=0, split="test")) == keys
    assert asked(draw_items(data, 5000, seed=1, split="test")) == keys
    assert not asked(draw_items(data, 4000, seed=3)) & keys
    rows = [{"q": f" QUESTION  {i} ", "a": "x"} for i in random.Random(0).sample(range(2000), 1000)]
    parts = [write(tmp_path / "a.jsonl", *rows[:400]), write(tmp_path / "b.jsonl", *rows[400:])]
    other = data_of(*parts, fields={"question": "q", "gold": "a"}, per_source=300)
    chosen = {question_key(row["q"]) for row in rows}
    assert {question_key(q.question) for q in read_questions(other).held_out} == chosen & keys
    assert len(read_questions(other).train) == 600
    fewer = data.model_copy(update={"held_out": 0.02})
    assert {question_key(q.question) for q in read_questions(fewer).held_out} < keys
    told = check_questions(data.model_copy(update={"held_out": 0.0}), 0)
    assert "0 held out. All questions of" in told
    assert told.endswith("are trained on (data.held_out: 0).")


def test_files_of_their_own_and_rows_by_their_value_are_held_out(tmp_path):
    train, test = (questions(tmp_path / f"{name}.jsonl", 9, name) for name in ("train", "test"))
    data = data_of(train, eval_files=[test])
    assert asked(draw_items(data, 30, seed=0)) == {f"train {i}" for i in range(9)}
    assert asked(draw_items(data, 30, seed=0, split="test")) == {f"test {i}" for i in range(9)}
    assert how_held_out(data) == f"They are the questions of {test}."
    rows = [{"question": f"q{i}", "gold": "x", "split": "ab"[i % 2], "n": i} for i in range(8)]
    both = write(tmp_path / "both.jsonl", *rows)
    data = data_of(both, where={"split": "a"}, eval_where={"split": "b", "n": 3})
    assert asked(draw_items(data, 9, seed=0)) == {"q0", "q2", "q4", "q6"}
    assert asked(draw_items(data, 9, seed=0, split="test")) == {"q3"}
    assert how_held_out(data) == f"They are the questions of {both} with split b and n 3."
    none = data.model_copy(update={"where": {"split": "c"}})
    with pytest.raises(ConfigError, match="no question in it with split c"):
        read_questions(none)


def test_a_question_that_is_trained_on_and_held_out_is_refused(tmp_path):
    train = questions(tmp_path / "train.jsonl", 9)
    test = write(
        tmp_path / "test.jsonl",
        {"id": "new", "question": "Something else?", "gold": "y"},
        {"id": "t7", "question": "Question  “7”", "gold": "y"},
    )
    for split in ("train", "test"):
        with pytest.raises(ConfigError) as refused:
            draw_items(data_of(train, eval_files=[test]), 3, 0, split=split)
        assert str(refused.value) == (
            "data: 1 question of 2 held-out ones would be trained on too, such as 'Question  “7”' "
            f"(id '7' in {train}, 't7' in {test}); take them out of one of the two, or name no "
            "data.eval_files, eval_hub or eval_where: then the share data.held_out is split off by "
            "a hash"
        )


def test_a_question_of_several_rows_is_one_with_the_gold_answers_of_all(tmp_path):
    one = write(
        tmp_path / "one.jsonl",
        {"id": 1, "question": "Who wrote Hamlet?", "gold": ["Shakespeare"]},
        {"id": 2, "question": "who wrote “Hamlet”", "gold": ["W. Shakespeare", "Shakespeare"]},
    )
    two = write(tmp_path / "two.jsonl", {"id": 1, "question": "Who wrote  Hamlet", "gold": "Will"})
    (question,) = read_questions(data_of(one, two, held_out=0)).train
    assert question.gold == ("Shakespeare", "W. Shakespeare", "Will")
    assert question.id == f"{one}/1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "q?", "golden_answers": []}', "d.jsonl:2: no gold answer for 'q?'"),
        ('{"question": "q?"}', "data.fields"),
        ("{oops", "d.jsonl:2: "),
    ],
)
def test_a_row_without_a_gold_answer_is_named_with_file_and_line(tmp_path, line, message):
    (tmp_path / "d.jsonl").write_text('{"question": "p?", "golden_answers": ["x"]}\n' + line)
    with pytest.raises(ConfigError) as error:
        draw_items(data_of(tmp_path / "d.jsonl"), 1, seed=0)
    assert message in str(error.value)


def test_too_few_held_out_questions_are_said_and_none_is_refused(tmp_path):
    data = data_of(questions(tmp_path / "q.jsonl", 200), held_out=0.05)
    there = len(read_questions(data).held_out)
    assert 0 < there < 20
    assert len(draw_items(data, 50, seed=0, split="test")) == there
    told = check_questions(data, 50)
    assert f"{200 - there} to train on, {there} held out, fewer than are asked for (50)" in told
    assert f"They are 5% of the questions of {data.files[0]}, split off by a hash" in told
    few = data_of(questions(tmp_path / "few.jsonl", 3), held_out=1e-9)
    assert check_questions(few, 0)
    for refused in (lambda: check_questions(few, 1), lambda: draw_items(few, 1, 0, split="test")):
        with pytest.raises(
            ConfigError, match=r"none of 3 questions is held out.* data\.eval_files"
        ):
            refused()
    most = few.model_copy(update={"held_out": 0.9999999})
    with pytest.raises(ConfigError, match=r"all 3 of .*few\.jsonl are held out; lower"):
        draw_items(most, 1, 0)


# --- what a config may say about questions of one's own


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages=[warm_start, grpo]"], "name traces in warm_start.trace_files, or leave"),
        (["stages=[best_of_n]", "best_of_n.teacher_questions=8"], "set it to 0"),
        (["data.held_out=0"], "data.held_out is 0"),
        (["data.held_out=1"], "data.held_out"),
        (["data.eval_where={split: test}"], "set where, such as {split: train}"),
        (["data.source=world", "data.eval_files=[t.jsonl]"], "set source to files or hub"),
        (["data.vary={name: 1}"], "unknown key data.vary.name (did you mean 'names'?)"),
        (["data.vary.prices=2"], "data.vary.prices"),
        (["data.cost_weights=[]"], "data.cost_weights"),
    ],
)
def test_what_cannot_be_is_refused_when_the_config_is_read(overrides, message):
    with pytest.raises(ConfigError) as refused:
        load_config(
            ROOT / "training/configs/smoke.yaml", [*OWN, "data.files=[q.jsonl]", *overrides]
        )
    assert message in str(refused.value)


def test_the_default_stages_on_own_questions_are_refused_with_the_fix(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "out: runs/own\ndata: {source: files, files: [q.jsonl], pools: [embedded]}\n"
    )
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path / "own.yaml")
    assert "the teacher knows the embedded world only, and data.source is files" in str(
        refused.value
    )
    fixed = load_config(tmp_path / "own.yaml", ["warm_start.trace_files=[t.jsonl]"])
    assert fixed.stages[0] == "warm_start"


def test_best_of_n_alone_asks_for_no_traces_of_a_warm_start(tmp_path):
    file = questions(tmp_path / "q.jsonl", 9)
    config = load_config(
        ROOT / "training/configs/smoke.yaml",
        [
            *OWN,
            f"data.files=[{file}]",
            f"out={tmp_path}",
            "stages=[best_of_n]",
            "best_of_n={keep: 1}",
        ],
    )
    learner = make_learner(config.model, ["q"], 0)
    assert rows_from_before(Run(config), learner) == []
    assert not (tmp_path / "warm_start").exists()
    with pytest.raises(ConfigError, match="names no model, and one from scratch begins"):
        load_learner(config.model)


def test_what_varied_names_were_called_still_loads():
    path = ROOT / "training/configs/smoke.yaml"
    assert load_config(path, ["data.renamed=0.6"]).data.vary == VaryConfig(names=0.6)
    both = load_config(path, ["data.renamed=0.6", "data.vary={order: true}"]).data
    assert both.vary == VaryConfig(names=0.6, order=1)


# --- pools that differ


def recorded_pool(folder, how):
    """Write records of three candidates, 100 tokens a reply, and a pool of them; return it."""
    rows = [
        {
            "question": f"question {i}?",
            "candidate": name,
            "reply": f"{name} says x",
            "output_tokens": 100,
            "cost_usd": price * 1e-4,
        }
        for name, price in (("Ada", 1.0), ("Bob", 1.5), ("Cleo", 2.0))
        for i in range(40)
    ]
    write(folder / "records.jsonl", *rows)
    known_by = {
        "name": lambda name: f"name: {name}, model: lab/{name}-1",
        "model": lambda name: f"name: {name}-7b, model: {name}",
        "alias": lambda name: f"name: {name}-7b, aliases: [{name}]",
    }[how]
    lines = [
        f"- {{{known_by(name)}, provider: recorded, output_usd_per_mtok: {price}, "
        "options: {records: records.jsonl}}"
        for name, price in (("Ada", 1.0), ("Bob", 1.5), ("Cleo", 2.0))
    ]
    (folder / "pool.yaml").write_text("candidates:\n" + "\n".join(lines))
    return folder / "pool.yaml"


@pytest.mark.parametrize("how", ["name", "model", "alias"])
def test_a_recorded_pool_is_cheapest_elsewhere_each_time_and_costs_follow(tmp_path, how):
    data = DataConfig(
        source="files",
        files=[questions(tmp_path / "q.jsonl", 40)],
        pools=[str(recorded_pool(tmp_path, how))],
        vary={"names": 1, "prices": 1, "order": 1, "subset": 0.5},
    )
    items = draw_items(data, 60, seed=0)
    traces = roll_out(items, parse_controller("cheapest", items[0].pool))
    says = Counter()
    for item, trace in zip(items, traces, strict=True):
        (call,) = trace.calls
        assert call.ok, call
        asked = item.pool.find(call.candidate)
        assert asked == min(item.pool.candidates, key=lambda c: c.output_usd_per_mtok)
        assert f"${asked.output_usd_per_mtok:g} out" in asked.describe()
        assert total(trace.ledger)["cost_usd"] == pytest.approx(asked.output_usd_per_mtok * 1e-4)
        says[call.reply.split()[0]] += 1
    assert set(says) == {"Ada", "Bob", "Cleo"}
    assert max(says.values()) < 40
    assert {len(item.pool.candidates) for item in items} == {2, 3}
    names = {c.name for item in items for c in item.pool.candidates}
    assert not names & {"Ada", "Bob", "Cleo", "Ada-7b", "Bob-7b", "Cleo-7b"}
    assert len(names) > 100


def test_held_out_questions_have_the_pool_as_its_file_says(tmp_path):
    file = recorded_pool(tmp_path, "name")
    data = DataConfig(
        source="files",
        files=[questions(tmp_path / "q.jsonl", 40)],
        pools=[str(file)],
        vary={"names": 1, "prices": 1},
    )
    pool = CandidatePool.from_yaml(file)
    held_out = draw_items(data, 40, seed=0, split="test")
    assert [item.pool for item in held_out] == [pool] * len(held_out)
    assert all(item.pool != pool for item in draw_items(data, 40, seed=0))


def test_each_kind_of_variation_comes_as_often_as_its_share_and_alone():
    pool, rng = CandidatePool.embedded(), random.Random(0)
    assert vary(rng, pool, VaryConfig()) is pool

    def with_share(**shares):
        pools = [vary(rng, pool, VaryConfig(**shares)) for _ in range(200)]
        varied = [other for other in pools if other != pool]
        assert 70 < len(varied) < 130
        return varied

    def but_for(candidate, *names):
        return candidate.model_dump(exclude=set(names))

    for other in with_share(names=0.5):
        assert not {c.name for c in other.candidates} & {c.name for c in pool.candidates}
        for ours, theirs in zip(pool.candidates, other.candidates, strict=True):
            assert theirs.model_name == ours.model_name
            assert but_for(theirs, "name", "model") == but_for(ours, "name", "model")
    prices = ("input_usd_per_mtok", "output_usd_per_mtok", "prices_checked")
    cheapest = Counter()
    for other in with_share(prices=0.5):
        cheapest[min(other.candidates, key=lambda c: c.price_usd_per_mtok).name] += 1
        for ours, theirs in zip(pool.candidates, other.candidates, strict=True):
            assert 1 / 9 < theirs.price_usd_per_mtok / ours.price_usd_per_mtok < 9
            assert but_for(theirs, *prices) == but_for(ours, *prices)
    assert len(cheapest) > 2
    sizes = set()
    for other in with_share(subset=0.5):
        sizes.add(len(other.candidates))
        assert [c for c in pool.candidates if c in other.candidates] == list(other.candidates)
    assert sizes == set(range(2, len(pool.candidates)))
    for other in with_share(order=0.5):
        assert sorted(c.name for c in other.candidates) == sorted(c.name for c in pool.candidates)


def test_what_a_real_endpoint_costs_is_never_redrawn(tmp_path, serve):
    server = serve([Reply("Paris")])
    prices = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
    real = yaml_pool(tmp_path, server, {"Ada": {}, "Bob": {}, "Cleo": {}}, **prices)
    file = tmp_path / "pool.yaml"
    q = questions(tmp_path / "q.jsonl", 40)
    data = DataConfig(source="files", files=[q], pools=[str(file)], vary={"prices": 0.5})
    with pytest.raises(ConfigError, match=r"data\.vary\.prices: .*pool\.yaml has no recorded or"):
        draw_items(data, 1, seed=0)
    data = data.model_copy(update={"vary": VaryConfig(names=1, subset=1, order=1)})
    (item,) = draw_items(data, 1, seed=0)
    assert len(item.pool.candidates) == 2
    (tool, *_) = pool_tools(item.pool)
    assert tool.invoke({"query": "What is the capital of France?"}) == "Paris"
    assert server.requests[-1].model in ("ada", "bob", "cleo")
    assert tool.name not in {c.name for c in real.candidates}


def test_traces_of_questions_of_the_world_that_are_measured_are_not_learned(tmp_path):
    smoke = ROOT / "training" / "configs" / "smoke.yaml"
    traces, out = tmp_path / "t.jsonl", f"out={tmp_path}/run"
    config = load_config(smoke, [out, f"warm_start.trace_files=[{traces}]"])
    measured = draw_items(config.data, config.evaluate_questions, config.seed, split="test")
    validated = draw_items(config.data, config.grpo.validate_questions, config.seed, split="test")
    trained = draw_items(config.data, 5, config.seed)
    script = ScriptedController(["<answer> x </answer>"])
    write_traces(traces, roll_out([*measured, *trained, *validated], script))
    learned = [trace.question for trace in warm_traces(Run(config))()]
    assert learned == [item.question for item in trained]


def test_a_run_on_own_questions_learns_and_measures_apart_and_says_how(tmp_path, caplog):
    file, pool_file = questions(tmp_path / "q.jsonl", 40), recorded_pool(tmp_path, "name")
    train, held_out = read_questions(data_of(file, held_out=0.2))
    ask = "<think> . </think> <search> Ada: {} </search>"
    everything = data_of(file, held_out=0).model_copy(update={"pools": (str(pool_file),)})
    traces = [
        roll_out([item], ScriptedController([ask.format(item.question), "<answer> x </answer>"]))[0]
        for item in draw_items(everything, 40, seed=0)
    ]
    write_traces(tmp_path / "t.jsonl", traces)
    out = tmp_path / "run"
    command = [
        *("--config", "training/configs/smoke.yaml", f"out={out}", "stages=[warm_start]"),
        "model.scratch={vocabulary: 400, hidden_size: 32, layers: 1, heads: 2}",
        *("model.max_new_tokens=8", "warm_start.epochs=1", f"data.files=[{file}]"),
        *("data.source=files", f"data.pools=[{pool_file}]", "data.held_out=0.2"),
        f"warm_start.trace_files=[{tmp_path}/t.jsonl]",
    ]
    run = program(ROOT / "training" / "finetune.py", *command, cwd=ROOT)
    assert run.returncode == 0, run.stderr[-3000:]
    sentence = f"They are 20% of the questions of {file}, split off by a hash of their text."
    assert f"{len(train)} to train on, {len(held_out)} held out" in run.stdout
    assert f"{len(held_out)} traces left out: their questions are held out" in caplog.text
    for text in (
        run.stdout,
        (out / "report.md").read_text(),
        (out / "policy/README.md").read_text(),
    ):
        assert sentence in text
    measured = [trace.question for trace in read_traces(out / "warm_start" / "test_traces.jsonl")]
    wanted = [q.question for q in held_out]
    assert len(measured) == 3 * min(16, len(held_out))  # at each cost weight
    assert set(measured) <= set(wanted)
    write_traces(tmp_path / "t.jsonl", [t for t in traces if t.question in wanted])
    refused = program(
        ROOT / "training" / "finetune.py", *command, "out=" + str(tmp_path / "b"), cwd=ROOT
    )
    assert refused.returncode == 2
    assert "every trace has a question that is held out" in refused.stderr
