import re
import subprocess
import sys
from importlib.metadata import version
from types import ModuleType

import pytest

import router_r1_graph
from extras import missing
from router_r1_graph import Candidate, GenAISpans, RouterR1Error
from router_r1_graph.candidates.providers import make_chat_model


def modules_after(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


#: Of each part of the library that needs no extra and no simulation, a name.
USED = (
    "from router_r1_graph import AbsoluteCost, ChatRouterR1, Recorder, Source, Trace\n"
    "from router_r1_graph import create_router_r1, parse_controller, read_langsmith"
)


def test_using_the_library_imports_no_training_stack_and_reads_no_data_file():
    loaded = modules_after(
        "import sys\n"
        "def audit(event, args):\n"
        "    path = str(args[0])\n"
        "    if event == 'open' and 'router_r1_graph/' in path and '.py' not in path:\n"
        "        raise SystemExit(f'opened {args[0]}')\n"
        "sys.addaudithook(audit)\n"
        f"{USED}"
    )
    assert "langgraph" in loaded
    assert not loaded & {
        "torch",
        "transformers",
        "trl",
        "datasets",
        "langchain_openai",
        "matplotlib",
        "numpy",
    }
    assert not [name for name in loaded if name.startswith("router_r1_graph.simulation")]


@pytest.mark.long
def test_no_name_but_those_of_the_embedded_world_loads_the_simulation():
    names = {name for name in router_r1_graph.__all__ if _can_be_had(name)}
    names -= {"KeywordController", "OracleController"}
    assert {"evaluate", "Evaluation"} <= names or missing("eval")
    loaded = modules_after(f"from router_r1_graph import {', '.join(sorted(names))}")
    assert not [name for name in loaded if name.startswith("router_r1_graph.simulation")]


def _can_be_had(name):
    extra = router_r1_graph._EXTRAS.get(name)
    return extra not in router_r1_graph._PACKAGES or not missing(extra)


def test_the_version_is_the_packages():
    assert router_r1_graph.__version__ == version("router-r1-graph")


def test_the_library_and_its_command_line_wait_for_nothing_that_is_not_used():
    assert not modules_after("import router_r1_graph.cli") & {"langgraph", "langchain_core"}


@pytest.mark.long
def test_a_star_takes_what_can_be_had():
    program = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Finder(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, *rest):\n"
        "        return None if name in ('torch', 'sklearn') else super().find_spec(name, *rest)\n"
        "sys.meta_path = [f for f in sys.meta_path if f is not PathFinder] + [Finder]\n"
        "from router_r1_graph import *\n"
        "print('create_router_r1' in globals(), 'evaluate' in globals(), 'torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.split() == ["True", "False", "False"], run.stderr


def test_every_exported_name_exists_once():
    names = router_r1_graph.__all__
    assert all(hasattr(router_r1_graph, name) for name in names if _can_be_had(name))
    assert len(set(names)) == len(names)


def test_a_name_whose_extra_is_missing_says_which():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "try:\n    from router_r1_graph import PolicyController\n"
        "except ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.startswith("PolicyController: ")
    assert run.stdout.rstrip().endswith("pip install 'router-r1-graph[local]'")


def test_the_exported_names_are_the_front_door():
    optional = {name for name, extra in router_r1_graph._EXTRAS.items() if missing(extra)}
    assert {*router_r1_graph.__all__, *optional} == {
        *("Candidate", "CandidatePool", "CandidateTool", "candidate_tool", "pool_tools"),
        *("ControllerSettings", "Controller", "RuleController", "ScriptedController"),
        *("ChatModelController", "parse_controller", "ConstantController", "CheapestController"),
        *("RandomController", "KeywordController", "OracleController"),
        *("CascadeController", "VoteController", "Recorder", "ChatRouterR1"),
        *("create_router_r1", "create_router_r1_agent", "RouterContext", "RouterInput"),
        *("RouterOutput", "StopReason", "View", "Ledger", "Reply", "ReplyError", "ReplyStore"),
        *("TraceWriter", "Trace", "read_traces", "write_traces"),
        *("RouterR1Error", "ConfigError", "PoolError", "ControllerError", "MissingExtraError"),
        *("QuestionError", "TraceError", "MatrixError"),
        *("Bill", "Call", "CallRecord", "Left", "Turn", "exact_match", "f1_score", "total"),
        *("AbsoluteCost", "PercentileCost", "reward", "Source", "pool_from_records"),
        *("CompletionsController", "LearnedController", "PolicyController", "create_app"),
        *("Evaluation", "Reader", "evaluate", "StickyController"),
        *("AgentBill", "AgentStep", "RouterDecisionModel", "RouterMiddleware"),
        *("route_only", "aroute_only", "Routing", "PlannedCall", "Choice", "Effect"),
        *("GenAISpans", "TextlessClient", "log_feedback", "question_config", "read_langsmith"),
        *("BudgetLeft", "Decision", "RouteEnd", "RouteStart", "ScoreMatrix", "StepController"),
        *("replayed", "step_text", "visible", "write_experiment"),
        *("AnswerStyle", "BilledError", "CandidateContext", "Cell", "ChatModel", "CostScale"),
        *("DecidedStep", "Decides", "ErrorKind", "EvaluationQuestion", "Gain", "Interval"),
        *("Knobs", "LedgerLine", "LedgerTotals", "Measurement", "Mistake", "ModelSettings"),
        *("PolicySettings", "PoolResilience", "Reason", "RewardBreakdown", "RouterState"),
        *("Setup", "StoreLine", "StoredReply", "Summary", "SummaryRow", "Verdict"),
    }


MCP = Candidate(name="Lookup", provider="mcp", options={"command": "server"})
OTHER = Candidate(name="Other", provider="langchain", model="anthropic:m")


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("langchain_mcp_adapters.tools", lambda: make_chat_model(MCP)),
        ("opentelemetry", GenAISpans),
        ("langchain.chat_models", lambda: make_chat_model(OTHER)),
    ],
    ids=["mcp", "otel", "langchain"],
)
def test_a_package_that_cannot_be_imported_is_not_called_missing(monkeypatch, module, use):
    package = module.partition(".")[0]
    for loaded in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setitem(sys.modules, module, ModuleType(module))  # a version without the name
    with pytest.raises(RouterR1Error, match="cannot be imported: cannot import name"):
        use()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RouterR1Error, match=r"needs the optional extra '\w+': pip install"):
        use()


BLOCKED = ("numpy", "sklearn", "scipy", "pandas", "matplotlib", "torch", "transformers", "trl")
IN_CORE = (  # a command, and whether it needs no extra
    ("ask --pool embedded --controller keyword --json Hi", True),
    ("ask --route-only --pool embedded --controller keyword Hi", True),
    ("pool check {pool}", True),
    ("pool measure {pool} --dry-run", True),
    ("traces --help", True),
    ("evaluate demo --limit 1", False),
    ("fit knn --data x --out y", False),
    ("report .", False),
    ("demo --questions 1", True),
    ("bench routerbench x.csv", False),
    ("train smoke", False),
)


@pytest.mark.long
@pytest.mark.parametrize(("command", "works"), IN_CORE, ids=lambda v: str(v).split(" -")[0])
def test_a_command_works_in_a_core_install_or_names_its_extra(tmp_path, command, works):
    pool = tmp_path / "pool.yaml"
    pool.write_text("candidates:\n  - {name: Ada, base_url: http://127.0.0.1:9/v1}\n")
    program = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        f"blocked = {BLOCKED}\n"
        "class Finder(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, *rest):\n"
        "        return None if name.split('.')[0] in blocked else super().find_spec(name, *rest)\n"
        "sys.meta_path = [f for f in sys.meta_path if f is not PathFinder] + [Finder]\n"
        "from router_r1_graph.cli import main\n"
        "main()\n"
    )
    args = [arg.format(pool=pool) for arg in command.split()]
    run = subprocess.run(
        [sys.executable, "-c", program, *args], capture_output=True, text=True, cwd=tmp_path
    )
    assert "Traceback" not in run.stderr
    if works:
        assert run.returncode == 0, run.stderr
    else:
        assert run.returncode == 2
        assert re.search(r"needs the optional extra '\w+'|no such (file|folder)", run.stderr)
