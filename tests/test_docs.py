"""The documentation builds without a warning, its reference is whole, and its programs run."""

from __future__ import annotations

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
def test_a_program_of_a_page_runs(page, block, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(
    find_spec("material") is None or find_spec("mkdocstrings") is None,
    reason="mkdocs-material is not installed (the extra 'docs')",
)
def test_the_documentation_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    for page in ("index.html", "configuration/index.html", "how-to/embed/index.html"):
        assert (tmp_path / page).is_file()
    assert "create_router_r1_agent" in (tmp_path / "api" / "index.html").read_text()
