"""The policy that comes with the package: small, safe, described, and it routes.

The bars of its table are measured by `python -m benchmarks.policy`; here are a few questions of it.
"""

import subprocess
import sys

import pytest

from extras import needs

needs("local")

import torch

from router_r1_graph import CandidatePool, RouterContext, parse_controller
from router_r1_graph.controllers.policy.controller import PolicyController
from router_r1_graph.controllers.policy.folder import SHIPPED
from router_r1_graph.controllers.spec import default_spec
from router_r1_graph.ledger import total
from router_r1_graph.simulation import World, generate
from training.items import Item
from training.rollouts import roll_out

FOLDER = SHIPPED / "demo"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="no policy meets its bars yet, so none is shipped"
)


@pytest.fixture(scope="module")
def policy():
    torch.set_num_threads(1)
    return PolicyController.from_pretrained("demo")


def ask(policy, *, pool="embedded", cost_weight=0.5, count=24):
    pool = CandidatePool.from_yaml(pool)
    questions = generate(World.embedded(), split="test", n=count, seed=1)
    context = RouterContext(cost_weight=cost_weight)
    return roll_out([Item(q.id, q.text, q.gold, pool, context) for q in questions], policy)


def right(traces):
    return sum(trace.answer in trace.gold for trace in traces) / len(traces)


def cost(traces):
    return sum(total(trace.ledger)["cost_usd"] for trace in traces) / len(traces)


def test_it_is_small_and_safe_and_says_where_it_comes_from():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000
    assert (FOLDER / "model.safetensors").is_file()
    assert not [p for p in FOLDER.iterdir() if p.suffix in (".bin", ".pt", ".pkl", ".py")]
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "commit" in card
    assert "training/configs/demo.yaml" in card


def test_it_is_the_default_where_torch_is_installed():
    assert default_spec(CandidatePool.embedded()) == ("policy:demo", "")
    assert default_spec(CandidatePool.from_yaml("router_r1"))[0] == "keyword"
    assert parse_controller("policy:demo", CandidatePool.embedded()).name == "policy:demo"


@pytest.mark.long
def test_without_torch_the_command_says_so_and_uses_the_rule():
    hide = "import sys; sys.modules['torch'] = None; sys.argv[0] = 'router-r1'; "
    code = (
        "import importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda n, *a: None if n == 'torch' else find(n, *a); "
        "from router_r1_graph.cli import main; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", hide + code, "ask", "Who wrote Hamlet?"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'router-r1-graph[local]'" in run.stderr
    assert "William Shakespeare" in run.stdout


def test_it_routes(policy):
    traces = ask(policy)
    assert right(traces) >= 0.8
    assert cost(traces) < 5e-5, "a twentieth of always asking the best"


@pytest.mark.long
def test_it_reads_the_cost_weight(policy):
    dear, cheap = (cost(ask(policy, cost_weight=weight, count=8)) for weight in (0.0, 0.9))
    assert cheap < dear


@pytest.mark.long
def test_it_uses_candidates_that_it_has_never_seen(policy):
    assert right(ask(policy, pool="embedded_unseen")) >= 0.7
