"""The notebook runs offline from top to bottom, and its outputs are those of today.

Its cells are run in order in a namespace of their own; Jupyter is not needed. Write new outputs by
`jupyter execute --inplace examples/00_tour.ipynb` (pip install nbclient ipykernel).
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "00_tour.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def shown(cell: dict[str, Any]) -> str:
    """Return what the notebook says that a cell prints."""
    parts = (output["text"] for output in cell["outputs"] if output["output_type"] == "stream")
    return "".join(line for part in parts for line in part)


@pytest.mark.long
@pytest.mark.timeout(180)  # thirteen controllers on fifty questions
def test_every_cell_of_the_notebook_prints_what_it_shows(monkeypatch, tmp_path):
    matplotlib = pytest.importorskip("matplotlib", reason="the notebook draws (extra 'eval')")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    matplotlib.use("Agg")
    pyplot.close("all")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(CODE, 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"code cell {number}", "exec"), namespace)
        assert printed.getvalue() == shown(cell), f"code cell {number}"
    assert len(pyplot.get_fignums()) == 1
    pyplot.close("all")
    assert list(tmp_path.iterdir()) == []


def test_the_notebook_is_short_and_holds_its_outputs():
    assert 10 <= len(CELLS) <= 15
    assert all(cell["outputs"] for cell in CODE)
    kinds = {output["output_type"] for cell in CODE for output in cell["outputs"]}
    assert kinds == {"stream", "display_data"}, "no errors, no reprs"
    assert NOTEBOOK.stat().st_size < 100_000
