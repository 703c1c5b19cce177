"""Rate limits: no window of a second ever holds more, and no time is wasted."""

from __future__ import annotations

from math import inf

import pytest
from greentaps.taps.rates import RateLimit
from hypothesis import given
from hypothesis import strategies as st

rates = st.one_of(st.integers(8, 10_000), st.floats(8, 1e6))


def most_in_a_second(passed: list[tuple[float, int]]) -> int:
    """The most that any half-open window of one second holds."""
    return max(
        (sum(size for then, size in passed if start <= then < start + 1.0) for start, _ in passed),
        default=0,
    )


@pytest.mark.rfc("P-28", "P-29", "SO-20")
@given(
    rates,
    st.lists(st.tuples(st.floats(0, 0.7), st.integers(1, 2000)), max_size=40),
)
def test_no_second_holds_more(rate: float, wishes: list[tuple[float, int]]) -> None:
    limit = RateLimit(rate)
    now = 1000.0
    passed = []
    for pause, wish in wishes:
        now += pause
        size = min(wish, limit.allowed(now))
        if size:
            limit.spend(size, now)
            passed.append((now, size))
    assert 8 * most_in_a_second(passed) <= rate


@given(
    rates,
    st.lists(st.tuples(st.floats(0, 0.7), st.integers(1, 2000)), max_size=15),
    st.integers(1, 2000),
)
def test_wait_is_exact(rate: float, wishes: list[tuple[float, int]], size: int) -> None:
    limit = RateLimit(rate)
    now = 1000.0
    for pause, wish in wishes:
        now += pause
        if wish <= limit.allowed(now):
            limit.spend(wish, now)
    wait = limit.wait(now, size)
    assert 0.0 <= wait <= 1.0
    if wait > 0.001:
        assert limit.allowed(now + wait - 0.0005) < size
    later = now + wait + 1e-6
    assert limit.allowed(later) >= size or limit.idle(later)


def test_the_whole_budget_comes_back_after_a_second() -> None:
    limit = RateLimit(8000)
    assert limit.allowed(0.0) == 1000
    limit.spend(1000, 0.0)
    assert limit.allowed(0.999) == 0
    assert limit.wait(0.25) == 0.75
    assert not limit.idle(0.999)
    assert limit.allowed(1.0) == 1000
    assert limit.idle(1.0)
    assert limit.wait(1.0) == 0.0


def test_more_than_is_allowed_is_paid_back() -> None:
    """A datagram larger than the budget, or what a peer has sent before it noticed."""
    limit = RateLimit(8000)
    limit.spend(5000, 0.0)
    limit.spend(10, 0.5)
    assert limit.allowed(0.9) == 0
    assert limit.wait(0.5) == 0.5
    assert limit.allowed(1.0) == 990
    assert limit.wait(1.0, 5000) == 0.5


@pytest.mark.parametrize("rate", [0.001, 1, 7.9, 8])
def test_a_very_low_rate_is_a_byte_each_second(rate: float) -> None:
    limit = RateLimit(rate)
    assert limit.allowed(0.0) == 1
    limit.spend(1, 0.0)
    assert limit.allowed(0.5) == 0
    assert limit.allowed(1.0) == 1


def test_an_infinite_rate_limits_nothing() -> None:
    limit = RateLimit(inf)
    for _ in range(3):
        assert limit.allowed(0.0) > 10**12
        assert limit.wait(0.0, 10**9) == 0.0
        limit.spend(10**9, 0.0)
