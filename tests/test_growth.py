"""The benchmark of growth: what it measures grows, and how it tells so."""

from __future__ import annotations

import mmap

import pytest

from benchmarks.growth import SIZES, case, measure, problems, slope, table


@pytest.mark.parametrize("what", SIZES)
def test_a_larger_size_takes_more_and_is_measured(what):
    small, large = (case(what, size)() for size in (1 if what != "pool" else 3, 4))
    if what in ("rounds", "thread"):
        assert 0 < small < large
    else:
        assert small == large == 0  # without checkpoints


def test_what_is_measured():
    held = []

    def run():
        held.append(mmap.mmap(-1, 64 << 20))  # new pages: what is freed in a heap may be used again
        held[-1].write(b"x" * (64 << 20))
        return 3 << 20

    found = measure(run, lambda: 0.0)
    assert found["memory_mb"] > 60  # and more, if the process was larger once
    assert (found["checkpoint_mb"], found["cpu_s"] > 0) == (3, True)
    assert set(measure(lambda: 0.0, lambda: 0.0)) == {"cpu_s", "collector_s", "memory_mb"}


def test_the_slope_is_the_exponent_of_the_growth():
    sizes = (1, 10, 100)
    for exponent in (1, 2):
        assert slope(sizes, [7 + size**exponent for size in sizes]) == pytest.approx(
            exponent, abs=0.1
        )
    assert slope(sizes, [3.0, 3.0, 3.0]) == 0
    rows = {size: {"cpu_s": 1.0 * size, "memory_mb": 2.0} for size in sizes}
    told = table({"pool": rows})
    assert "candidates in the pool: 1, 10, 100 | 1, 10, 100 |  | 2, 2, 2 |  | cpu 1.04, mem" in told


def test_what_grows_faster_than_linearly_and_is_not_known_to_is_a_problem():
    def rows(exponent, unit):
        return {size: {"memory_mb": 2.0, unit: 1 + size**exponent} for size in (3, 30, 300)}

    linear = {"pool": rows(1, "cpu_s"), "flight": rows(1, "memory_mb")}
    known = {"thread": rows(2, "checkpoint_mb"), "flight": rows(2, "collector_s")}
    assert problems(linear) == problems(known) == []
    assert problems({"pool": rows(2, "cpu_s"), "flight": rows(2, "memory_mb")}) == [
        "CPU over candidates in the pool: growth 2.00",
        "memory over questions at once: growth 2.00",
    ]
