"""Medians, ratios and counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import calibrated, ratio, spread

costs = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=9)


def test_a_ratio_is_taken_within_the_rounds() -> None:
    # In the second round the machine was three times as slow, for both.
    assert ratio([1.0, 3.0, 1.0], [2.0, 6.0, 2.0]) == 0.5
    # One round in which only one side was disturbed counts for nothing.
    assert ratio([1.0, 9.0, 1.0], [2.0, 2.0, 2.0]) == 0.5


def test_a_ratio_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0], [1.0, 2.0])


@given(costs)
def test_whatever_is_compared_with_itself_is_one(values: list[float]) -> None:
    assert ratio(values, values) == 1.0


def test_the_spread_is_that_of_the_middle_half() -> None:
    assert spread([10.0, 10.0, 10.0, 10.0, 99.0]) == 0.0
    assert spread([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(0.1)
    assert spread([1.0, 5.0]) == 0.0  # too few to say
    assert spread([0.0, 0.0, 0.0]) == 0.0


@given(costs)
def test_a_spread_is_never_negative(values: list[float]) -> None:
    assert spread(values) >= 0


def test_counts_make_turns_of_the_wanted_length() -> None:
    assert calibrated(100, 0.1, 0.3, 1, 10_000) == 300
    assert calibrated(100, 0.0, 0.3, 1, 10_000) == 10_000  # too fast to be timed
    assert calibrated(100, 100.0, 0.3, 5, 10_000) == 5
