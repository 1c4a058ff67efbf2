"""What a training leaves behind: curves, report, model card, trackers, and the policy on a hub."""

from __future__ import annotations

import base64
import json
import shutil
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from extras import needs

needs("train")

import huggingface_hub.constants
import yaml

import router_r1_graph
from in_process import cli, program
from openai_server import Reply
from router_r1_graph import CandidatePool, ConfigError, RouterContext, ScriptedController
from router_r1_graph.simulation import World, generate
from training.config import HubConfig, load_config
from training.history import read_history
from training.hub import UploadError, require_token, upload
from training.items import Item
from training.measurement import at_weights, by_weight, summary
from training.program import CONFIGS, remember
from training.report import write_card, write_report
from training.rollouts import roll_out
from training.shares import Shares
from training.spending import Paid, Spending

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

DEMO = Path(router_r1_graph.__file__).parent / "policies" / "demo"
SETTINGS = json.loads((DEMO / "router_r1.json").read_text(encoding="utf-8"))
DOMAINS = ("literature", "geography", "music", "science", "film", "biography", "art")
TOKEN = "hf_averysecrettoken"


# -------------------------------------------------------------------------------- a run on disk


def validated(step, weight, reward):
    return {
        **{"stage": "grpo_validation", "step": step, "cost_weight": weight, "reward": reward},
        **{"exact_match": reward, "exact_match_low": reward - 0.1, "exact_match_high": 1.0},
        **{"cost_usd": 1e-4, "cost_usd_low": 1e-5, "cost_usd_high": 2e-4, "share/Ada": 1.0},
    }


def measured(weight, exact=0.5):
    return {
        **{"cost_weight": weight, "questions": 40, "exact_match": exact},
        **{"exact_match_low": exact - 0.125, "exact_match_high": exact + 0.125},
        **{"cost_usd": 2e-4, "cost_usd_low": 1e-4, "cost_usd_high": 3e-4},
        **{"calls": 1.5, "rounds": 1.25, "format": 1.0},
    }


def left_by_a_run(folder, *overrides, stages=("grpo",)):
    """A folder as a run leaves it that was killed in its fourth step and has gone on from two."""
    out = folder / "mine"
    config = load_config(
        CONFIGS / "smoke.yaml", [f"out={out}", f"stages=[{', '.join(stages)}]", *overrides]
    )
    for stage in stages:
        (out / stage).mkdir(parents=True)
        rows = [measured(0), measured(0.9, exact=0.25)]
        (out / stage / "done.json").write_text(json.dumps(rows))
    remember(config)
    step = {"stage": "grpo", "exact_match": 0.5, "cost_usd": 1e-4, "usd": 0.01, "entropy": 1.0}
    lines = [
        {"stage": "warm_start_rows", "step": 0, "learned": 1200, "left_out": 3},
        *(step | {"step": n, "reward": 0.1 * n, "share/Ada": 1.0} for n in (1, 2, 3)),
        *(step | {"step": n, "reward": 0.5, "share/Bob": 0.5, "loss": None} for n in (3, 4)),
        {"stage": "grpo", "step": 4, "train_runtime": 1.0},
        *(validated(0, weight, 0.6) for weight in (0, 0.9)),
        *(validated(2, weight, reward) for weight, reward in ((0, 0.9), (0.9, 0.3))),
        *(validated(4, weight, reward) for weight, reward in ((0, 0.5), (0.9, 0.6))),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "grpo", "ste'
    (out / "metrics.jsonl").write_text(text)
    checkpoints = out / stages[-1] / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "validation.json").write_text('{"0": 0.6, "2": 0.6, "4": 0.55}')
    return out


def test_a_run_that_went_on_has_each_step_once_and_its_best_step(tmp_path):
    history = read_history(left_by_a_run(tmp_path))
    assert [line["step"] for line in history.steps] == [1, 2, 3, 4]
    assert history.steps[2]["reward"] == 0.5
    assert history.best_step == 2  # the last of two that are equally good
    with pytest.raises(ConfigError, match="no run of router-r1 train has begun there"):
        read_history(tmp_path / "nowhere")


def test_the_report_has_curves_a_row_for_each_cost_weight_and_the_bill(tmp_path):
    out = left_by_a_run(tmp_path, "budget_usd=3", "grpo.steps=10")
    (out / "spending").mkdir()
    bills = [
        {"stage": "grpo", "usd": 0.5, "saved_usd": 0.25, "calls": 3, "stored_calls": 1},
        {"stage": "grpo_test", "usd": 0.25},
    ]
    text = "".join(json.dumps(bill) + "\n" for bill in bills)
    (out / "spending" / "spending-0.jsonl").write_text(text)
    run = cli("train", "report", out)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(out / "report.md")
    report = (out / "report.md").read_text()
    assert "| grpo | 0 | 40 | 0.500 [0.375, 0.625] | 0.2000 [0.1000, 0.3000] | 1.50 |" in report
    assert "| grpo | 0.9 | 40 | 0.250 [0.125, 0.375] |" in report
    assert "| grpo | $0.500000 | $0.250000 | 3 | 1 |" in report
    assert "| all | $0.750000 | $0.250000 | 3 | 1 |" in report
    assert "The budget: $3.00." in report
    assert "by it, 10 steps would cost about $0.100000. 4 steps cost $0.040000." in report
    assert "4 steps of 10. The best validation is that of step 2" in report
    for picture in ("validation", "steps"):
        assert f"![{picture}](report/{picture}.png)" in report
        assert (out / "report" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_has_just_begun_has_a_report(tmp_path):
    out = tmp_path / "new"
    out.mkdir()
    remember(load_config(CONFIGS / "smoke.yaml", [f"out={out}"]))
    report = write_report(out).read_text()
    assert "Not measured." in report
    assert "Nothing was paid" in report
    assert "![" not in report


def test_without_matplotlib_there_is_a_report_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = write_report(left_by_a_run(tmp_path)).read_text()
    assert "| grpo | 0.9 |" in report
    assert "pip install 'router-r1-graph[train]'" in report
    assert "![" not in report


def test_the_card_says_what_the_run_was_and_no_more(tmp_path):
    pretrained = left_by_a_run(tmp_path / "a", "model.pretrained=some/model")
    write_card(pretrained, pretrained)
    card = (pretrained / "README.md").read_text()
    assert "base_model: some/model" in card
    assert "license" not in card  # that of the base model, which we do not know
    assert "warm start" not in card.lower()
    assert "GRPO: 4 steps of 4 questions" in card
    assert "The weights are those of step 2, the best on validation." in card
    assert "| grpo | 0.9 | 40 | 0.250 [0.125, 0.375] |" in card
    whole = left_by_a_run(tmp_path / "b", stages=("warm_start", "best_of_n", "grpo"))
    write_card(whole, whole)
    card = (whole / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "the teacher's traces, 1,200 traces learned, 3 left out" in card
    assert "Best of n: the best of 4 traces of the teacher for each of 8 questions" in card
    theirs = left_by_a_run(
        tmp_path / "c", "warm_start.trace_files=[t.jsonl]", stages=("warm_start",)
    )
    write_card(theirs, theirs)
    card = (theirs / "README.md").read_text()
    assert "Warm start: 1 file of traces, 1,200 traces learned, 3 left out." in card
    assert "habits" not in card
    assert "The reward" not in card


# ------------------------------------------------------------------------------- whom calls go to


def asking(candidate):
    return ScriptedController(
        [f"<think> . </think> <search> {candidate}: q </search>", "<answer> x </answer>"]
    )


def test_shares_are_by_name_where_names_stay_and_by_price_where_they_vary():
    pool = CandidatePool.embedded()
    dear, *_ = sorted(pool.candidates, key=lambda c: -c.price_usd_per_mtok)
    item = Item("1", "Who wrote Hamlet?", (), pool, RouterContext())
    traces = roll_out([item], asking(dear.name))
    shares = Shares([item])
    assert shares(traces)[dear.name] == 1.0
    assert set(shares(traces)) == {c.name for c in pool.candidates}
    others = [
        CandidatePool(
            candidates=[c.model_copy(update={"name": f"{c.name} {n}"}) for c in pool.candidates]
        )
        for n in range(3)
    ]
    by_price = Shares([replace(item, pool=other) for other in others])
    assert by_price(traces) == {"cheapest": 0.0, "in between": 0.0, "most expensive": 1.0}
    silent = roll_out([item], ScriptedController(["<answer> x </answer>"]))
    assert by_price(silent) == {}


def test_a_question_meets_the_same_candidates_at_every_cost_weight():
    pool = CandidatePool.embedded()
    asked = generate(World.embedded(), split="test", n=6, seed=3)
    items = [Item(q.id, q.text, q.gold, pool, RouterContext()) for q in asked]
    name = pool.candidates[0].name
    traces = by_weight(roll_out(at_weights(items, (0.9, 0)), asking(name)))
    assert list(traces) == [0, 0.9]
    replies = [[call.reply for trace in some for call in trace.calls] for some in traces.values()]
    assert replies[0] == replies[1]
    numbers = summary(traces[0])
    assert numbers["questions"] == 6
    assert numbers["exact_match_low"] <= numbers["exact_match"] <= numbers["exact_match_high"]


# -------------------------------------------------------------------- a whole run, and its trackers

WRITER = """
import json, os
class SummaryWriter:
    def __init__(self, log_dir=None):
        os.makedirs(log_dir, exist_ok=True)
        self.file = open(os.path.join(log_dir, "scalars.jsonl"), "a")
    def add_text(self, *a, **k): pass
    def add_scalar(self, name, value, step):
        self.file.write(json.dumps([name, float(value), step]) + "\\n")
    def flush(self): self.file.flush()
    def close(self): self.file.close()
"""


@pytest.fixture
def tensorboard(tmp_path, monkeypatch):
    """A package that transformers' own callback for TensorBoard writes its numbers with."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "tensorboardX.py").write_text(WRITER)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)


def mine(folder, server):
    """A pool of real candidates, questions of several hops, and a config for the shipped policy."""
    candidates = [
        {
            **{"name": name, "base_url": server.base_url, "input_usd_per_mtok": 1},
            **{"output_usd_per_mtok": price, "max_retries": 0},
            "benchmarks": dict.fromkeys(DOMAINS, 0.9),
        }
        for name, price in (("Quillora", 2), ("Ancestil", 4))
    ]
    (folder / "pool.yaml").write_text(yaml.safe_dump({"candidates": candidates}))
    asked = generate(World.embedded(), split="train", n=12, seed=5)
    rows = [{"question": q.text, "golden_answers": list(q.gold)} for q in asked]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "out": str(folder / "run"),
        "threads": 1,
        "stages": ["grpo"],
        "evaluate_questions": 2,
        "model": {"pretrained": str(DEMO), "stop": SETTINGS["stop"], "max_new_tokens": 160},
        "data": {
            **{"source": "files", "files": [str(folder / "q.jsonl")], "held_out": 0.25},
            **{"pools": [str(folder / "pool.yaml")], "max_rounds": [1]},
        },
        "grpo": {
            **{"steps": 2, "questions": 1, "group": 4, "micro_batch": 4, "beta": 0},
            **{"validate_every": 2, "validate_questions": 2, "validate_cost_weights": [0, 0.9]},
        },
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    return folder / "run"


def train(folder, *overrides):
    finetune = CONFIGS.parent / "finetune.py"
    return program(finetune, "--config", folder / "mine.yaml", *overrides)


@pytest.mark.long
def test_a_run_reports_what_it_paid_and_tells_its_trackers_all(tmp_path, serve, tensorboard):
    server = serve(Reply("Carel Fabritius", input_tokens=40, output_tokens=30))
    out = mine(tmp_path, server)
    run = train(tmp_path, "report_to=[tensorboard]")
    assert run.returncode == 0, run.stderr[-3000:]
    # A bar with the few numbers that matter, and no line of all of them.
    assert "reward " in run.stderr
    assert " a question, $" in run.stderr
    assert "entropy" not in run.stderr + run.stdout
    assert "grpo: cost weight 0.9: exact match" in run.stdout
    bills = Spending(out / "spending").by_stage()
    assert set(bills) == {"grpo", "validation", "grpo_test"}
    every = sum(bills.values(), Paid())
    assert every.calls - every.stored_calls == server.count()
    assert every.usd > 0
    assert every.saved_usd > 0
    report = (out / "report.md").read_text()
    assert f"| {every.calls} | {every.stored_calls} |" in report
    assert "| grpo | 0.9 | 2 |" in report
    assert "![validation](report/validation.png)" in report
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["stage"] == "grpo" and "reward" in line]
    assert [line["step"] for line in steps] == [1, 2]
    for line in steps:
        assert line["share/Quillora"] + line["share/Ancestil"] == pytest.approx(1)
        assert 0 < line["cost_usd"] < 1e-2
    assert not any(name.startswith("eval_") for line in lines for name in line)
    checked = [line for line in lines if line["stage"] == "grpo_validation"]
    assert {(line["step"], line["cost_weight"]) for line in checked} == {
        (step, weight) for step in (0, 2) for weight in (0, 0.9)
    }
    written = [
        json.loads(line)
        for file in out.rglob("scalars.jsonl")
        for line in file.read_text().splitlines()
    ]
    told = {(name, step): value for name, value, step in written}
    for line in checked:
        name = f"eval/reward_at_{line['cost_weight']:g}"
        assert told[name, line["step"]] == pytest.approx(line["reward"])
    assert ("train/reward", 1) in told  # logging a validation takes nothing from the step
    assert ("train/reward", 2) in told
    [last] = [d for d in lines if d["stage"] == "grpo_test" and d["cost_weight"] == 0.9]
    assert told["test/grpo_exact_match_at_0.9", 0] == pytest.approx(last["exact_match"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("report_to=[trackio]", "report_to: trackio is not installed: pip install trackio"),
        ("report_to=[trakio]", "report_to: trakio is not supported, only"),
        ("hub.repo=me/policy", "hub.repo me/policy: there is no token of the hub"),
        ("hub.repo=policy", "hub.repo: "),
        ("hub.prviate=true", "unknown key hub.prviate (did you mean 'private'?)"),
    ],
)
def test_what_cannot_be_used_at_the_end_is_said_before_anything_is_paid(
    tmp_path, serve, monkeypatch, override, message
):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    server = serve(Reply("x"))
    mine(tmp_path, server)
    run = train(tmp_path, override)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert server.count() == 0


# ----------------------------------------------------------------------------------- to the hub


class Hub(BaseHTTPRequestHandler):
    """What the hub's client needs to make a repository and commit to it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, body, self.headers["Authorization"]))
        if self.server.status != 200:
            reply = {"error": f"no entry for {self.headers['Authorization']}"}
        elif self.path.endswith("/repos/create"):
            reply = {"url": f"http://{self.headers['Host']}/me/policy", "id": "me/policy"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            how = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            reply = {"files": [{"path": file["path"], **how} for file in files]}
        else:
            url = f"http://{self.headers['Host']}/me/policy/commit/1"
            reply = {"success": True, "commitOid": "1", "commitUrl": url}
        data = json.dumps(reply).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def hub(monkeypatch, status=200):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.posts, server.status = [], status
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def policy(tmp_path):
    folder = tmp_path / "policy"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "router_r1.json", "README.md"):
        (folder / name).write_text("{}")
    return folder


def test_a_policy_is_uploaded_whole_into_a_private_repository(policy, monkeypatch):
    with hub(monkeypatch) as server:
        config = HubConfig(repo="me/policy")
        require_token(config)
        assert upload(config, policy).endswith("/me/policy")
    created = json.loads(server.posts[0][1])
    assert (created["name"], created["organization"]) == ("policy", "me")
    assert created.get("private") or created["visibility"] == "private"
    path, commit, authorization = server.posts[-1]
    assert path.endswith("/api/models/me/policy/commit/main")
    assert authorization == f"Bearer {TOKEN}"
    lines = [json.loads(line) for line in commit.splitlines()]
    files = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in lines
        if line["key"] == "file"
    }
    assert files == {file.name: file.read_bytes() for file in policy.iterdir()}


def test_an_upload_that_fails_says_how_to_repeat_it_and_shows_no_token(policy, monkeypatch):
    with hub(monkeypatch, status=403), pytest.raises(UploadError) as raised:
        upload(HubConfig(repo="me/policy"), policy)
    message = str(raised.value)
    assert f"hf upload me/policy {policy} . --private" in message
    assert "\n" not in message
    assert TOKEN not in message
    assert raised.value.__cause__ is None
    assert (policy / "model.safetensors").exists()


@pytest.mark.long
def test_a_finished_run_uploads_its_policy_and_loses_nothing_where_that_fails(
    tmp_path, monkeypatch
):
    out = left_by_a_run(tmp_path)
    shutil.copytree(DEMO, out / "grpo" / "policy")
    command = ["--config", CONFIGS / "smoke.yaml", f"out={out}", "stages=[grpo]"]
    command += ["hub.repo=me/policy", "hub.private=false"]
    finetune = CONFIGS.parent / "finetune.py"
    with hub(monkeypatch, status=403):
        failed = program(finetune, *command)
    assert failed.returncode == 1
    assert f"hf upload me/policy {out}/policy .\n" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (out / "policy" / "model.safetensors").exists()
    with hub(monkeypatch) as server:
        again = program(finetune, *command)
    assert again.returncode == 0, again.stderr
    assert "uploaded: " in again.stdout
    assert b"model.safetensors" in server.posts[-1][1]
    assert "--controller policy:me/policy" in (out / "policy" / "README.md").read_text()
    written = [file.read_bytes() for file in out.rglob("*") if file.is_file()]
    shown = failed.stdout + failed.stderr + again.stdout + again.stderr
    assert not any(TOKEN.encode() in data for data in [*written, shown.encode()])
