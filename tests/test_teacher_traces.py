"""The teacher's traces are the same, however many processes make them."""

from __future__ import annotations

import pytest

from extras import needs

needs("train")

from router_r1_graph import read_traces
from training import teacher_traces
from training.config import RunConfig
from training.items import draw_items
from training.run import Run
from training.teacher_traces import write_teacher_traces

DATA = {"pools": ["drawn"], "wordings": {"free": 1.0}, "facts": ["embedded"]}


@pytest.mark.long
def test_several_processes_write_the_same_traces_in_the_same_order(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_traces, "_BATCH", 8)
    written = []
    for many in (100, 2):
        monkeypatch.setattr(teacher_traces, "_MANY", many)
        out = tmp_path / str(many)
        warm = {"teacher": "english"}
        run = Run(RunConfig(out=out, stages=["warm_start"], data=DATA, warm_start=warm))
        pairs = [(0, item) for item in draw_items(run.config.data, 44, 3, same_pool=4)]
        file = out / "traces.jsonl"
        write_teacher_traces(run, "warm_start", file, pairs[:8], 3, "first", judged=False)
        write_teacher_traces(run, "warm_start", file, pairs, 3, "all", judged=False)
        written.append([(t.id, t.turns, t.answer) for t in read_traces(file)])
    assert len(written[0]) == 44
    assert written[0] == written[1]
