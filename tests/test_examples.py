"""Every example runs offline, as it stands, and prints what its docstring says."""

import ast
import os
import re
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from in_process import program

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
#: What an example needs that is optional.
NEEDS = {
    "08_supervisor": "langgraph_supervisor",
    "13_evaluate": "sklearn",
    "14_serve_and_call": "uvicorn",
    "21_litellm_strategy": "litellm",
}
#: Run as users run them; the others in this process.
PROCESSES = {"01_ask"}


def docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def printed(file: Path) -> str:
    """Return what the docstring says that the example prints."""
    block = re.search(r"^Prints:\n((?:    .*\n?|\n)+)", docstring(file), re.M)
    assert block is not None, "an example says what it prints"
    return textwrap.dedent(block[1]).strip() + "\n"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_prints_what_it_says(file, tmp_path):
    needs = NEEDS.get(file.stem)
    if needs and find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    env = {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    if file.stem in PROCESSES:
        command, env = [sys.executable, str(file)], {**os.environ, **env}
        pipes = {"capture_output": True, "text": True}
        run = subprocess.run(command, cwd=tmp_path, env=env, **pipes, check=False)
    else:
        run = program(file, cwd=tmp_path, env=env)
    assert run.returncode == 0, run.stderr
    assert run.stdout == printed(file)
    assert list(tmp_path.iterdir()) == []


def test_the_strategy_for_litellm_chooses_the_deployments_without_litellm_too(monkeypatch):
    """The example's own code; `litellm`, for which our environment is too new, has a stand-in."""
    if find_spec("litellm") is not None:
        pytest.skip("litellm is installed: the example itself runs")
    import litellm_stand_in

    for name in ("litellm", "litellm.types", "litellm.types.router"):
        monkeypatch.setitem(sys.modules, name, litellm_stand_in)
    (file,) = (file for file in EXAMPLES if file.stem == "21_litellm_strategy")
    run = program(file)
    assert (run.returncode, run.stdout) == (0, printed(file)), run.stderr


def test_examples_have_numbers_of_their_own_and_fit_on_a_screen():
    numbers = [file.name[:2] for file in EXAMPLES]
    assert len(set(numbers)) == len(numbers) >= 18
    for file in EXAMPLES:
        assert len(file.read_text(encoding="utf-8").splitlines()) < 60, file.name


def test_every_example_is_in_the_documentation():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert [file.name for file in EXAMPLES if f"examples/{file.name}" not in pages] == []
