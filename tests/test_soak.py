"""The soak: what it takes for a fault of ours, and for growth."""

from __future__ import annotations

from collections import Counter

from benchmarks.soak import Soak


def soaked(*, last_seconds: float = 1.0, last_mb: float = 100.0, last_files: int = 7) -> Soak:
    answers = [(at / 10, 1.0 if at < 600 else last_seconds) for at in range(900)]
    memory = [(float(at), 100.0 if at < 60 else last_mb) for at in range(90)]
    files = [(float(at), 7 if at < 60 else last_files) for at in range(90)]
    return Soak(answers, memory, files, Counter({200: 890, 503: 5}))


def test_what_is_flat_and_steady_meets_every_bar():
    assert soaked().problems(90) == []
    assert soaked().line(0, 30) == "| 0.0 to 0.5 | 300 | 1.00 | 1.00 | 100 | 7 |"


def test_growth_slowness_and_faults_are_named():
    assert soaked(last_mb=120).problems(90) == ["memory grew from 100 to 120 MB"]
    assert soaked(last_seconds=2).problems(90) == ["p99 grew from 1.00 to 2.00 s"]
    soak = soaked()
    soak.faults += ["status 500: oops"] * 2
    assert soak.problems(90) == ["2 x status 500: oops"]


def test_a_server_that_answers_nobody_is_named():
    soak = soaked()
    soak.statuses = Counter({503: 339})
    assert soak.problems(90) == ["status 503 for 339 of 339 requests"]


def test_open_files_that_grow_are_named():
    assert soaked(last_files=10).problems(90) == []
    assert soaked(last_files=14).problems(90) == ["open files grew from 7 to 14"]
