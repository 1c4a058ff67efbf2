"""The documentation builds without a warning, its reference is whole, and its programs run."""

from __future__ import annotations

import html
import re
import runpy
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from router_r1_graph import Candidate, ControllerSettings, RouterContext

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
    page: str = hook["page"]()
    return page


def test_the_reference_has_every_setting_with_its_default(reference):
    names = [field.name for field in fields(RouterContext)]
    names += [*Candidate.model_fields, *ControllerSettings.model_fields]
    assert [name for name in names if f"| `{name}` |" not in reference] == []
    assert "| `cost_weight` | number | `0.5` | the paper's alpha in [0, 1]" in reference
    assert "| `max_retries` | whole number ≥ 0, ≤ 10 | `2` | Retries after a" in reference
    assert "| `grpo.group` | whole number" in reference


def test_every_knob_is_explained(reference):
    (table,) = re.findall(r"## A run .*?\n\n.*?\n\n(.*?)\n\n", reference, re.S)
    rows = [[cell.strip() for cell in row.split(" | ")] for row in table.splitlines()[2:]]
    assert len(rows) == len(fields(RouterContext))
    assert all(len(row[-1]) > 5 for row in rows)


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[page for page, _ in BLOCKS])
def test_a_program_of_a_page_runs_and_prints_what_it_says(page, block, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    if expected := re.findall(r"^# -> (.*)$", block, re.M):
        assert run.stdout.splitlines() == expected


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


def test_the_documentation_builds_without_a_warning(site):
    for page in ("index.html", "configuration/index.html", "how-to/embed/index.html"):
        assert (site / page).is_file()
    assert "create_router_r1_agent" in (site / "api" / "index.html").read_text()
    assert not (site / "policy.json").exists()


def test_no_page_makes_a_request_to_anybody_else(site):
    loads = re.compile(r"""<(?:script|img|iframe|source)[^>]+src=["']?((?:https?:)?//[^\s"'>]+)""")
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert loads.findall(text) == []
        assert 'class="mermaid"' not in text, "the theme would load Mermaid from unpkg.com"
        links = re.findall(r"<link[^>]+>", text)
        assert [link for link in links if re.search(r"""href=["']?(https?:)?//""", link)] == []


def test_the_examples_of_the_reference_are_shown_as_programs(site):
    text = (site / "api" / "index.html").read_text(encoding="utf-8")
    shown = html.unescape(re.sub(r"<[^>]+>", "", text))
    assert (
        '>>> graph = create_router_r1(pool, ScriptedController(["<answer> 42 </answer>"]))' in shown
    )
    assert "<blockquote>" not in text, ">>> became a quotation"
