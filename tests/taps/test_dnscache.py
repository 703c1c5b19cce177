"""Answers are kept for as long as they hold, and not more of them than allowed."""

from __future__ import annotations

import pytest
from greentaps.taps.naming.dnscache import MAX_TTL, AnswerCache


@pytest.mark.rfc("CA-02")
def test_an_answer_of_one_second() -> None:
    cache = AnswerCache(9)
    cache.put("a", 1, 1.0, now=100.0)
    assert cache.get("a", now=100.999) == 1
    assert cache.get("a", now=101.0) is None
    assert len(cache) == 0


@pytest.mark.rfc("CA-02")
def test_nothing_holds_for_ever_and_some_things_not_at_all() -> None:
    cache = AnswerCache(9)
    cache.put("a", 1, 2.0**31, now=0.0)
    cache.put("b", 1, 0.0, now=0.0)
    assert cache.get("a", now=MAX_TTL - 1) == 1
    assert cache.get("a", now=MAX_TTL) is None
    assert cache.get("b", now=0.0) is None
    cache.put("a", 1, 9.0, now=0.0)
    cache.put("a", 2, 0.0, now=0.0)
    assert cache.get("a", now=0.0) is None


@pytest.mark.rfc("SR-03")
def test_what_was_not_used_goes_first() -> None:
    cache = AnswerCache(2)
    for key in "ab":
        cache.put(key, key, 9.0, now=0.0)
    assert cache.get("a", now=1.0) == "a"
    cache.put("c", "c", 9.0, now=1.0)
    assert [cache.get(key, now=1.0) for key in "abc"] == ["a", None, "c"]
    for n in range(10_000):
        cache.put(n, n, 9.0, now=1.0)
    assert len(cache) == 2
    cache.flush()
    assert len(cache) == 0


def test_none_at_all() -> None:
    cache = AnswerCache(0)
    cache.put("a", 1, 9.0, now=0.0)
    assert cache.get("a", now=0.0) is None
