"""The comparison of this project's versions: what it reads, and what it says."""

import re

import pytest

from benchmarks.versions import FIGURES, check_out, table

SAID = {
    "overhead cpu, 4 rounds": (
        "CPU a question of 4 rounds: graph 7.96 ms, bare loop 2.17 ms, ratio 3.70",
        "7.96",
    ),
    "evaluate, 1 round": ("1.742 ms\n", "1.742"),
    "evaluate, 1 to 4 rounds": ("3.390 ms\n", "3.390"),
    "tracing, traced": ("CPU a question of 4 rounds: traced 17.52 ms, not traced 7.94 ms", "17.52"),
    "serving, a request": (
        "  requests/s    p50 s   CPU ms of the server a request\n         147     0.40    6.0\n",
        "6.0",
    ),
    "serving, alone": (
        "    alone   in a parent graph   ratio\n     4.72      5.30    1.14\n",
        "4.72",
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_is_found_in_what_its_benchmark_prints(name):
    said, figure = SAID[name]
    assert re.findall(FIGURES[name][1], said) == [figure]


def test_versions_are_compared_with_the_first_by_their_means():
    rounds = [
        {"a": dict.fromkeys(FIGURES, low), "b": dict.fromkeys(FIGURES, high)}
        for low, high in ((1.0, 3.0), (3.0, 2.0))
    ]
    assert "| tracing, traced | 2.00 | 2.50 (+25%) |" in table(["a", "b"], rounds)


def test_a_commit_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"nowhere: .*nowhere"):
        check_out("nowhere", tmp_path / "0")
