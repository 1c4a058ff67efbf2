"""The advantage of GRPO: what each trace of a group earns."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extras import needs

needs("train")

import torch

from training.credit import Judged, credit_of_groups, of_tokens


def judged(outcome, usd, *, weight=0.5, scale=1e-3):
    """A trace of one turn, on an absolute scale."""
    return Judged(weight, outcome, (max(0.0, 1 - usd / scale),), (usd,))


def first(credit):
    return [turns[0] for turns in credit]


one = st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(0, 1))


@given(
    st.lists(one, min_size=2, max_size=16),
    st.floats(0, 1),
)
def test_right_is_never_worth_less_than_wrong_and_a_group_sums_to_nothing(traces, weight):
    group = [Judged(weight, outcome, (1 - cost,), (cost,)) for outcome, cost in traces]
    credit = first(credit_of_groups(group, len(group)))
    right = [c for c, (outcome, _) in zip(credit, traces, strict=True) if outcome > 0]
    wrong = [c for c, (outcome, _) in zip(credit, traces, strict=True) if outcome <= 0]
    if right and wrong:
        assert min(right) >= max(wrong) - 1e-9
    assert sum(credit) == pytest.approx(0, abs=1e-9)
    assert all(abs(c) < 20 for c in credit)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0, 1), st.floats(0.05, 1))
def test_a_grade_is_worth_its_share_of_what_cheapness_adds(costs, weight, grade):
    group = [Judged(weight, grade, (1 - cost,), (cost,)) for cost in costs]
    whole = first(credit_of_groups([replace(one, outcome=1.0) for one in group], len(group)))
    part = first(credit_of_groups(group, len(group)))
    assert part == pytest.approx([grade * one for one in whole], abs=1e-6)


def test_the_cheaper_of_two_right_answers_earns_more_and_the_more_the_cost_weighs():
    def gap(weight):
        dear, cheap, _ = first(
            credit_of_groups(
                [judged(1, 5e-4, weight=weight), judged(1, 1e-4, weight=weight), judged(0, 0)], 3
            )
        )
        return cheap - dear

    assert gap(0) == 0
    assert 0 < gap(0.25) < gap(0.5) < gap(0.9)


def test_a_spread_that_is_worth_nothing_in_dollars_earns_nothing():
    noise = [20.0, 20.1, 20.1, 20.1]
    spread = [2.0, 20.0, 20.0, 20.0]

    def signal(costs):
        # A scale that follows the costs would make full use of either.
        low, high = min(costs), max(costs)
        group = [Judged(0.5, 1.0, (1 - (c - low) / (high - low),), (c * 1e-6,)) for c in costs]
        credit = first(credit_of_groups(group, 4))
        return max(credit) - min(credit)

    assert signal(noise) < 0.06
    assert signal(spread) > 1
    # On a scale of dollars, millionths of it are nothing, whatever their ratio.
    tiny = first(credit_of_groups([judged(1, c * 1e-9) for c in spread], 4))
    assert max(tiny) - min(tiny) < 1e-3


def test_what_is_left_out_is_no_part_of_its_group():
    rest = [judged(1, 1e-4), judged(1, 5e-4), judged(0, 0)]
    whole = first(credit_of_groups(rest, 3))
    assert first(credit_of_groups([*rest, None], 4)) == pytest.approx([*whole, 0.0])
    assert first(credit_of_groups([None] * 4, 4)) == [0.0] * 4
    assert first(credit_of_groups([judged(1, 0), None, None, None], 4)) == [0.0] * 4


def test_groups_are_apart():
    credit = first(credit_of_groups([judged(1, 0), judged(0, 0), judged(1, 0), judged(1, 0)], 2))
    assert credit == pytest.approx([0.5, -0.5, 0, 0], abs=1e-3)


def test_a_turn_is_compared_with_the_same_turn_of_the_others():
    def two(first_usd, second_usd):
        spent = (first_usd + second_usd, second_usd)
        return Judged(0.5, 1.0, tuple(1 - usd / 1e-3 for usd in spent), spent)

    credit = credit_of_groups([two(5e-4, 1e-4), two(1e-4, 5e-4), two(1e-4, 1e-4)], 3)
    dear_then_cheap, cheap_then_dear, cheapest = credit
    assert dear_then_cheap[0] == pytest.approx(cheap_then_dear[0])
    assert dear_then_cheap[0] < cheapest[0]
    assert dear_then_cheap[1] == pytest.approx(cheapest[1])
    assert dear_then_cheap[1] > cheap_then_dear[1]
    for turn in (0, 1):
        assert fmean(turns[turn] for turns in credit) == pytest.approx(0)


def test_credit_is_spread_over_the_tokens_of_its_turn():
    mask = torch.tensor([[1, 1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0]])
    spread = of_tokens([[1.0, 2.0, 3.0], [4.0]], mask)
    assert spread.tolist() == [[1, 1, 0, 2, 0, 0, 3], [4, 0, 0, 0, 0, 0, 0]]
