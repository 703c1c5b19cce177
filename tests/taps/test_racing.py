"""The race, in virtual time, to the exact moment."""

from __future__ import annotations

import heapq
from itertools import pairwise
from time import process_time

import pytest
from greentaps.taps.racing import ATTEMPT_DELAY, Race
from hypothesis import given
from hypothesis import strategies as st

Ends = list[tuple[float, bool]]  # of each candidate: how long it takes, whether it succeeds


def run(
    ends: Ends, delay: float = ATTEMPT_DELAY
) -> tuple[list[tuple[float, int]], float, int | None]:
    """Run a race; when each candidate started, when it was over, and who won."""
    race = Race(len(ends), delay)
    starts: list[tuple[float, int]] = []
    running: list[tuple[float, int]] = []

    def start(indexes: list[int]) -> None:
        for index in indexes:
            starts.append((now, index))
            heapq.heappush(running, (now + ends[index][0], index))

    now = 0.0
    start(race.start(now))
    while not race.over:
        wake_at = race.wake_at
        if wake_at is not None and (not running or wake_at <= running[0][0]):
            now = wake_at
            start(race.wake(now))
            continue
        now, index = heapq.heappop(running)
        if ends[index][1]:
            race.succeeded(index)
            return starts, now, index
        start(race.failed(index, now))
    return starts, now, None


@pytest.mark.rfc("CR-02", "HE-03", "HE-10", "CR-05")
def test_a_hundred_seconds_in_no_time() -> None:
    """Four hundred dead addresses, and the last one answers."""
    begun = process_time()
    starts, now, winner = run([(1000.0, False)] * 400 + [(0.5, True)])
    assert starts == [(index * 0.25, index) for index in range(401)]
    assert (now, winner) == (100.5, 400)
    assert process_time() - begun < 2


@pytest.mark.rfc("CR-02", "TT-06", "DN-02")
def test_a_failure_starts_the_next_at_once_and_the_delay_anew() -> None:
    starts, now, winner = run([(0.1, False), (9.0, False), (9.0, False), (0.1, True)])
    assert starts == [(0.0, 0), (0.1, 1), (0.35, 2), (0.6, 3)]
    assert winner == 3
    assert now == pytest.approx(0.7)


def test_a_late_failure_starts_the_next_one_too() -> None:
    starts, _, _ = run([(0.3, False), (9.0, False), (9.0, True)])
    assert starts == [(0.0, 0), (0.25, 1), (0.3, 2)]


def test_the_first_to_succeed_wins_although_it_started_late() -> None:
    _, now, winner = run([(5.0, True), (0.1, True)])
    assert (now, winner) == (0.35, 1)


@pytest.mark.rfc("DN-01", "DN-02")
@given(
    st.lists(
        st.tuples(st.integers(0, 80).map(lambda n: n / 16), st.booleans()), min_size=1, max_size=12
    ),
    st.sampled_from([0.125, 0.25, 2.0]),
)
def test_any_race(ends: Ends, delay: float) -> None:
    starts, now, winner = run(ends, delay)
    # In order, each at most once, never later than the delay after the one before.
    assert [index for _, index in starts] == list(range(len(starts)))
    for (before, _), (after, _) in pairwise(starts):
        assert 0 <= after - before <= delay
    outcomes = {index: (when + ends[index][0], ends[index][1]) for when, index in starts}
    # A start before its time has a failure at that moment as its cause.
    failures = {end for end, good in outcomes.values() if not good}
    for (before, _), (after, _) in pairwise(starts):
        assert after == before + delay or after in failures
    if winner is None:
        assert len(starts) == len(ends)
        assert not any(good for _, good in ends)
        assert now == max(end for end, _ in outcomes.values())
    else:
        assert ends[winner][1]
        assert now == min(end for end, good in outcomes.values() if good)
        assert all(when <= now for when, _ in starts)


def test_the_winner_stops_the_others() -> None:
    race = Race(4)
    race.start(0.0)
    race.wake(0.25)
    race.wake(0.5)
    assert race.succeeded(1) == [0, 2]
    assert race.over
    assert race.wake_at is None
    assert race.failed(0, 0.6) == []
    assert race.wake(9.0) == []


def test_waking_early_starts_nothing() -> None:
    race = Race(2, 1.0)
    assert race.start(10.0) == [0]
    assert race.wake(10.5) == []
    assert race.wake_at == 11.0
    assert race.wake(11.0) == [1]
    assert race.wake_at is None


@pytest.mark.rfc("DN-01")
def test_a_race_of_none_is_over() -> None:
    race = Race(0)
    assert race.start(0.0) == []
    assert race.over


def test_not_over_while_somebody_runs_or_waits() -> None:
    race = Race(2)
    assert not race.over
    race.start(0.0)
    assert race.failed(0, 0.0) == [1]
    assert not race.over
    assert race.failed(1, 1.0) == []
    assert race.over
