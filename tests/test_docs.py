"""The documentation builds without a warning, its reference is whole, and its programs run."""

from __future__ import annotations

import ast
import html
import inspect
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import router_r1_graph
from in_process import cli, program
from router_r1_graph import (
    Candidate,
    CandidatePool,
    ControllerSettings,
    RouterContext,
    StopReason,
)
from router_r1_graph.cli import app
from router_r1_graph.controllers.spec import SPECS

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCKS = [
    (page.relative_to(ROOT / "docs").as_posix(), block)
    for page in PAGES
    for block in re.findall(
        r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S
    )
    if "--8<--" not in block  # those are files of examples/
]


@pytest.fixture(scope="module")
def reference() -> str:
    hook: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    text: str = hook["page"]()
    return text


def test_the_reference_has_every_setting_with_its_default(reference):
    names = [field.name for field in fields(RouterContext)]
    names += [*Candidate.model_fields, *ControllerSettings.model_fields]
    assert [name for name in names if f"| `{name}` |" not in reference] == []
    assert "| `cost_weight` | number ≥ 0, ≤ 1 | `0.5` | The paper's alpha" in reference
    assert "| `max_retries` | whole number ≥ 0, ≤ 10 | `2` | Retries after a" in reference
    assert "| `grpo.group` | whole number" in reference


def test_the_reference_in_the_repository_is_that_of_the_code(reference):
    assert page("configuration.md") == reference, "python -m docs.reference --write"


def test_every_setting_is_explained(reference):
    (table,) = re.findall(r"## A run .*?\n\n.*?\n\n(.*?)\n\n", reference, re.S)
    assert len(table.splitlines()) == 2 + len(fields(RouterContext))
    rows = [row for row in reference.splitlines() if row.startswith("| `")]
    assert [row for row in rows if len(row.rpartition(" | ")[2]) < 8] == []


@pytest.mark.parametrize("block", [b for _, b in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_a_program_of_a_page_runs_and_prints_what_it_says(block, tmp_path):
    (tmp_path / "program.py").write_text(block, encoding="utf-8")
    run = program(tmp_path / "program.py", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    if expected := re.findall(r"^# -> (.*)$", block, re.M):
        assert run.stdout.splitlines() == expected


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page(name), re.M | re.S)


def test_each_line_of_works_with_names_tests_that_exist():
    files = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("tests/test_*.py")}
    known = set(re.findall(r"^(?:async )?def (test_\w+)", "\n".join(files.values()), re.M))
    known |= {f"tests/{name}" for name in files}
    known |= {f"examples/{path.name}" for path in ROOT.glob("examples/*.py")}  # test_examples
    rows = re.findall(r"^\|(?!-).*\| (.*) \|$", page("how-to/works-with.md"), re.M)
    rows = [row for row in rows if row != "shown by"]
    assert len(rows) > 50
    for row in rows:
        named = re.findall(r"`((?:tests/)?test_[\w.]+|examples/[\w.]+)`", row)
        assert named or row == "by hand", row
        assert set(named) <= known, set(named) - known


def test_every_path_in_the_file_tree_exists():
    (tree,) = blocks("contributing.md", "text")
    above: list[str] = []  # the folders that a line stands in
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth:] = [line.split()[0]]
        assert (ROOT / "".join(above)).exists(), "".join(above)


def test_the_pool_of_the_pages_is_a_pool(tmp_path):
    (block,) = (b for b in blocks("how-to/pool.md", "yaml") if "--8<--" not in b)
    (tmp_path / "mine.yaml").write_text(block)
    pool = CandidatePool.from_yaml(tmp_path / "mine.yaml")
    assert [c.name for c in pool.candidates] == ["Small", "Large"]
    assert pool.controller is not None
    assert pool.controller.protocol == "tools"


def test_the_pool_of_tools_is_a_pool(tmp_path):
    (block,) = blocks("how-to/sources.md", "yml")
    (tmp_path / "tools.yaml").write_text(block)
    pool = CandidatePool.from_yaml(tmp_path / "tools.yaml")
    assert [c.kind for c in pool.candidates] == ["retriever", "tool", "graph"]


def test_every_spec_of_a_controller_is_explained():
    rows = re.findall(r"^\| `([^`]+)` \| .{9,} \|$", page("how-to/controller.md"), re.M)
    assert rows == list(SPECS)


def test_every_stop_reason_is_explained():
    rows = re.findall(r"^\| `([^`]+)` \| .{9,} \|$", page("concepts.md"), re.M)
    assert rows == [str(reason) for reason in StopReason]


def test_every_make_target_and_file_that_a_page_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        targets = set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", text, re.M))
        names = {name for pair in targets for name in pair if name}
        assert [n for n in names if not re.search(rf"^{n}:", makefile, re.M)] == [], path
        programs = re.findall(r"\b((?:training|examples|benchmarks)/[\w./-]+\.\w+)", text)
        assert [p for p in programs if not (ROOT / p).exists()] == [], path


def test_every_link_of_a_page_leads_to_a_file_of_the_repository():
    for path in [*PAGES, ROOT / "README.md"]:
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        links = set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text))
        assert [link for link in links if not (path.parent / link).exists()] == [], path


ELSEWHERE = {
    *("ChatOpenAI", "Client", "usage_metadata"),  # LangChain's and LangSmith's
    *("route_start", "route_end"),  # events
    *("shutting_down", "best_plan"),  # a code of errors; a policy's name
}
"""What pages name, and what a module of ours happens to call something of its own too."""

OF_THE_CODE = ("experiments.md", "contributing.md")
"""Pages for those who work on the code: of its day, or of today."""


def test_every_commit_that_a_page_names_exists():
    named = {
        (name, page.name)
        for page in PAGES
        for name in re.findall(r"\bcommit `?([0-9a-f]{7,40})\b", page.read_text())
    }
    assert named
    git = {"cwd": ROOT, "capture_output": True, "text": True}
    whole = subprocess.run(["git", "rev-parse", "--is-shallow-repository"], **git)
    if whole.stdout.strip() != "false":
        pytest.skip("this is no clone, or a shallow one")
    commits = subprocess.run(["git", "rev-list", "HEAD"], **git).stdout
    assert {one for one in named if f"\n{one[0]}" not in f"\n{commits}"} == set()


def test_what_the_pages_and_examples_name_is_exported():
    exported = {*router_r1_graph._LATER, "__version__"}
    trees = (ast.parse(path.read_text("utf-8")) for path in ROOT.glob("router_r1_graph/**/*.py"))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    ours = {node.name for tree in trees for node in tree.body if isinstance(node, kinds)}
    ours = {name for name in ours if "_" in name or name[0].isupper()} - exported - ELSEWHERE
    programs = [
        *ROOT.glob("examples/**/*.py"),
        *ROOT.glob("examples/*.ipynb"),
        *ROOT.glob("graphs/*"),
    ]
    for path in [*PAGES, ROOT / "README.md", *(p for p in programs if p.is_file())]:
        text = path.read_text(encoding="utf-8")
        imported = re.findall(r"from router_r1_graph[ \w.]* import|import router_r1_graph\.", text)
        assert set(imported) <= {"from router_r1_graph import"}, path
        if path.suffix == ".md" and path.name not in OF_THE_CODE:
            named = re.findall(r"`router_r1_graph\.(\w+)", text)
            assert [name for name in named if name not in exported] == [], path
            assert ours & set(re.findall(r"`(\w+)[`(.]", text)) == set(), path


def test_the_api_page_has_every_exported_name():
    shown = re.findall(r"^::: router_r1_graph\.(\w+)$", page("api.md"), re.M)
    assert sorted(shown) == sorted([*router_r1_graph._LATER, "errors"])


def test_pages_and_errors_call_a_setting_a_setting():
    for path in PAGES:
        words = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        assert not re.search(r"\bknobs?\b", words), path
    for name in router_r1_graph._LATER:
        if name not in router_r1_graph._EXTRAS:
            ours = getattr(router_r1_graph, name)
            members = inspect.getmembers(ours) if inspect.isclass(ours) else []
            public = [member for of, member in members if not of.startswith("_")]
            told = " ".join(str(one.__doc__) for one in (ours, *public))
            assert not re.search(r"\bknobs?\b", told), name
    for path in (ROOT / "router_r1_graph").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        texts = {id(one.value) for one in nodes if isinstance(one, ast.Expr)}  # of docstrings
        said = [n.value for n in nodes if isinstance(n, ast.Constant) and id(n) not in texts]
        found = [text for text in said if isinstance(text, str) and " knob" in text]
        assert found == [], path


def commands(text: str) -> list[list[str]]:
    """Return the arguments of each `router-r1` in the blocks of commands."""
    lines = "".join(re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)).replace("\\\n", "")
    split = (shlex.split(line, comments=True) for line in lines.splitlines())
    return [line[1:] for line in split if line[:1] == ["router-r1"] and "|" not in line]


def test_every_command_of_a_page_has_options_that_there_are():
    found = [(p.name, c) for p in PAGES for c in commands(p.read_text(encoding="utf-8"))]
    assert len(found) > 60
    whole = get_command(app)
    for name, rest in found:
        command: Any = whole
        context = command.context_class(command, info_name="router-r1")
        while hasattr(command, "resolve_command"):
            if command.name == "train" and rest[0] not in command.commands:
                rest = ["run", *rest]  # `train FILE`
            _, command, rest = command.resolve_command(context, rest)
            context = command.context_class(command, parent=context)
        try:
            command.make_parser(context).parse_args(rest)
        except Exception as error:
            pytest.fail(f"{name}: {rest}: {error!r}")


@pytest.mark.long
def test_the_commands_of_is_it_worth_it_run_one_after_the_other(tmp_path):
    pytest.importorskip("sklearn")
    told = []
    for command in commands(page("how-to/worth-it.md")):
        if command[0] != "serve":  # tests/test_off_policy.py serves with a shadow
            fewer = [
                "20" if before == "--limit" else part for before, part in pairwise(["", *command])
            ]
            run = cli(*fewer, cwd=tmp_path)
            assert run.returncode == 0, f"{fewer}: {run.stderr}"
            told.append(run.stdout)
    recorded, shown, fitted, read, _, judged = told
    assert "The best single candidate is Magnivor" in recorded
    assert "The best single candidate is Magnivor" in shown
    assert "At cost weight 0 routing does not pay: on 20 questions nothing beats Magnivor" in fitted
    assert re.search(r"^reader +0 ", read, re.M)
    assert "auto:runs/auto: " in judged


def test_lines_of_the_pages_wrap():
    for path in PAGES:
        fenced = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            fenced ^= line.startswith("```")
            if not fenced and not line.startswith("|"):
                assert len(line) <= 125, f"{path}, line {number}"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    needed = ("material", "mkdocstrings", "mermaidx")
    if missing := [name for name in needed if find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed (the extra 'docs')")
    folder: Path = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.mark.long
def test_the_documentation_builds_without_a_warning(site):
    for name in ("index.html", "configuration/index.html", "how-to/embed/index.html"):
        assert (site / name).is_file()
    assert "create_router_r1_agent" in (site / "api" / "index.html").read_text()
    assert not (site / "policy.json").exists()


@pytest.mark.long
def test_no_page_makes_a_request_to_anybody_else(site):
    loads = re.compile(r"""<(?:script|img|iframe|source)[^>]+src=["']?((?:https?:)?//[^\s"'>]+)""")
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert loads.findall(text) == []
        assert 'class="mermaid"' not in text, "the theme would load Mermaid from unpkg.com"
        links = re.findall(r"<link[^>]+>", text)
        assert [link for link in links if re.search(r"""href=["']?(https?:)?//""", link)] == []


@pytest.mark.long
def test_the_examples_of_the_reference_are_shown_as_programs(site):
    text = (site / "api" / "index.html").read_text(encoding="utf-8")
    shown = html.unescape(re.sub(r"<[^>]+>", "", text))
    assert '>>> controller = ScriptedController(["<answer> 42 </answer>"])' in shown
    assert "<blockquote>" not in text, ">>> became a quotation"
