"""The cache of TLS sessions: how many, how old, for whom, and how often."""

from __future__ import annotations

from typing import Any

import pytest
from greentaps.engines import Resumable
from greentaps.engines.sessions import SessionCache


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Instead of the check of the same name: nothing here opens anything."""


class FakeEngine:
    """An engine with a session that can be resumed, or none yet."""

    def __init__(self, session: Any = None, lifetime: float | None = None, once: bool = True):
        self.session = session
        self.lifetime = lifetime
        self.once = once
        self.resumed: Any = None
        self.ended: Any = None

    def resumable(self) -> Resumable | None:
        return self.session and Resumable(self.session, self.lifetime, self.once)

    def resume(self, session: Any) -> None:
        if session == "of another context":
            raise ValueError(session)
        self.resumed = session

    def on_shutdown(self, callback: Any) -> None:
        self.ended = callback


def store(cache: SessionCache, key: str, engine: FakeEngine, now: float = 0) -> None:
    cache.watch(key, engine)
    cache.hand_in(key, engine, now)


@pytest.mark.rfc("SP-13")
def test_the_seventeenth_evicts_the_first_of_sixteen() -> None:
    cache = SessionCache(16, 100)
    for number in range(17):
        store(cache, str(number), FakeEngine(f"session {number}"))
    assert len(cache) == 16
    assert cache.take("0", 1) is None
    assert cache.take("1", 1) == "session 1"
    assert cache.take("16", 1) == "session 16"


@pytest.mark.rfc("SP-13")
def test_what_was_used_last_is_evicted_last() -> None:
    cache = SessionCache(2, 100)
    for key in "ab":
        store(cache, key, FakeEngine(key, once=False))
    assert cache.take("a", 1) == "a"
    store(cache, "c", FakeEngine("c"))
    assert cache.take("b", 1) is None
    assert cache.take("a", 1) == "a"


@pytest.mark.rfc("SP-14", "CA-02")
@pytest.mark.parametrize(("lifetime", "end"), [(None, 10), (5, 5), (50, 10)])
def test_no_session_is_used_beyond_its_age(lifetime: float | None, end: float) -> None:
    """The shorter of what we allow and what the server does."""
    for once in (False, True):
        cache = SessionCache(4, 10)
        store(cache, "a", FakeEngine("s", lifetime, once), now=100)
        assert cache.take("a", 100 + end) is None
        assert len(cache) == 0
        store(cache, "a", FakeEngine("s", lifetime, once), now=100)
        assert cache.take("a", 100 + end - 0.1) == "s"


def test_tickets_of_tls_1_3_are_used_once() -> None:
    cache = SessionCache(4, 10)
    store(cache, "a", FakeEngine("once"))
    store(cache, "b", FakeEngine("often", once=False))
    assert [cache.take("a", 1), cache.take("a", 1)] == ["once", None]
    assert [cache.take("b", 1), cache.take("b", 1)] == ["often", "often"]


def test_a_later_session_takes_the_place_of_an_earlier() -> None:
    cache = SessionCache(4, 10)
    store(cache, "a", FakeEngine("old"))
    store(cache, "a", FakeEngine("new"))
    assert len(cache) == 1
    assert cache.take("a", 1) == "new"


@pytest.mark.rfc("SP-13", "SP-14")
@pytest.mark.parametrize(("capacity", "lifetime"), [(0, 10), (10, 0)])
def test_a_cache_for_nothing(capacity: int, lifetime: float) -> None:
    cache = SessionCache(capacity, lifetime)
    store(cache, "a", FakeEngine("s"))
    assert len(cache) == 0
    assert cache.take("a", 0) is None


def test_an_engine_that_lives_is_asked() -> None:
    """Once: what has been fetched from it is not handed in again at its end."""
    cache = SessionCache(4, 10)
    engine = FakeEngine()
    cache.watch("a", engine)
    assert cache.take("b", 1) is None
    engine.session = "ticket"
    assert cache.take("a", 1) == "ticket"
    assert cache.take("a", 1) is None
    cache.hand_in("a", engine, 1)
    assert len(cache) == 0


def test_an_engine_that_is_gone_is_forgotten() -> None:
    cache = SessionCache(4, 10)
    cache.watch("a", FakeEngine("s"))
    assert cache.take("a", 1) is None
    alive = [FakeEngine(f"session {number}") for number in range(200)]
    for number, engine in enumerate(alive):
        cache.watch(number, engine)
    for number in range(10_000):
        cache.watch(f"gone {number}", FakeEngine("s"))
        assert len(cache._watched) < 500
    assert cache.take(150, 1) == "session 150"


@pytest.fixture
def clock() -> Any:
    times = [0.0]

    def now() -> float:
        return times[0]

    now.set = lambda at: times.__setitem__(0, at)  # type: ignore[attr-defined]
    return now


def test_an_engine_is_served(clock: Any) -> None:
    cache = SessionCache(4, 10)
    first, second, third = FakeEngine("s", once=False), FakeEngine(), FakeEngine()
    cache.serve("a", first, clock)
    assert first.resumed is None
    first.ended(first)
    cache.serve("a", second, clock)
    assert second.resumed == "s"
    clock.set(10)
    cache.serve("a", third, clock)
    assert third.resumed is None


def test_a_session_of_another_context_is_no_harm(clock: Any) -> None:
    cache = SessionCache(4, 10)
    store(cache, "a", FakeEngine("of another context"))
    engine = FakeEngine("s")
    cache.serve("a", engine, clock)
    engine.ended(engine)
    assert cache.take("a", 0) == "s"
