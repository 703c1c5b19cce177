"""What a History remembers, for how long, and of whom."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import OpenSSL.SSL
import pytest
from greentaps import flush_caches, register_cache
from greentaps.engines.sessions import SessionCache
from greentaps.taps.paths import caches
from greentaps.taps.paths.history import HALF_LIFE, RATE, RTT, History, default_history
from greentaps.taps.paths.history import set_default_history as use
from hypothesis import given
from hypothesis import strategies as st

HOUR = 3600.0
HERE = ("192.0.2.7", 443)
NEIGHBOUR = ("192.0.2.8", 443)
FAR = ("198.51.100.1", 443)


def success(
    history: History,
    remote: Any = HERE,
    *,
    network: str = "home",
    hostname: str | None = "example.org",
    stack: str = "tls/tcp",
    now: float = 0.0,
    latency: float = 0.1,
    rtt: float | None = None,
) -> None:
    history.note_success(network, remote, hostname, stack, now=now, latency=latency, rtt=rtt)


def failure(history: History, remote: Any = HERE, stack: str = "tls/tcp", now: float = 0.0) -> None:
    history.note_failure("home", remote, "example.org", stack, now=now)


# -- Success --


@pytest.mark.rfc("CA-08")
def test_success_and_failure_of_an_endpoint() -> None:
    history = History()
    for endpoint in (HERE[0], "example.org", "192.0.2.0/24", ""):
        assert history.score("home", endpoint, "tls/tcp", now=0) == 0.0
    success(history)
    for endpoint in (HERE[0], "example.org", "192.0.2.0/24", ""):
        assert history.score("home", endpoint, "tls/tcp", now=0) == 0.5
    assert history.score("home", HERE[0], "tcp", now=0) == 0.0
    assert history.score("home", HERE[0], "", now=0) == 0.5
    failure(history, FAR)
    assert history.score("home", FAR[0], "tls/tcp", now=0) == -0.5
    assert history.score("home", HERE[0], "tls/tcp", now=0) == 0.5
    assert history.score("home", "", "tls/tcp", now=0) < 0.5


def test_the_last_few_count() -> None:
    history = History()
    for _ in range(1000):
        success(history)
    best = history.score("home", HERE[0], "tls/tcp", now=0)
    assert 0.8 < best < 1
    scores = [best]
    for _ in range(5):
        failure(history)
        scores.append(history.score("home", HERE[0], "tls/tcp", now=0))
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0


@pytest.mark.rfc("CA-02", "CA-07")
def test_success_lasts_for_hours_and_round_trip_times_for_minutes() -> None:
    history = History()
    success(history, rtt=0.05)
    score = history.score("home", HERE[0], "tls/tcp", now=0)
    later = history.score("home", HERE[0], "tls/tcp", now=6 * HOUR)
    assert score / 2 < later < score
    assert history.score("home", HERE[0], "tls/tcp", now=48 * HOUR) < 0.01
    assert history.used("home", HERE[0], now=6 * HOUR)
    assert not history.used("home", HERE[0], now=48 * HOUR)
    assert history.rtt("home", HERE[0], now=600) == 0.05
    assert history.rtt("home", HERE[0], now=HOUR) is None
    assert history.latency("home", HERE[0], "tls/tcp", now=HOUR) == 0.1
    assert history.latency("home", HERE[0], "tls/tcp", now=48 * HOUR) is None


@pytest.mark.rfc("HE-08")
def test_used_addresses() -> None:
    history = History()
    success(history)
    failure(history, FAR)
    assert history.used("home", HERE[0], now=0)
    assert not history.used("home", NEIGHBOUR[0], now=0)
    assert not history.used("home", FAR[0], now=0)
    assert not history.used("elsewhere", HERE[0], now=0)


# -- Times --


@pytest.mark.rfc("CA-05", "CA-01")
def test_of_the_address_else_the_subnet_else_the_network() -> None:
    history = History()
    success(history, rtt=0.010, latency=0.03)
    success(history, FAR, rtt=0.100, latency=0.3)
    assert history.rtt("home", HERE[0], now=0) == 0.010
    assert history.rtt("home", NEIGHBOUR[0], now=0) == 0.010
    mean = history.rtt("home", "203.0.113.1", now=0)
    assert mean is not None
    assert 0.010 < mean < 0.100
    assert history.rtt("home", "a.name.example", now=0) == mean == history.rtt("home", now=0)
    assert history.rtt("home", NEIGHBOUR[0], now=0, near=True) == 0.010
    assert history.rtt("home", "203.0.113.1", now=0, near=True) is None
    assert history.rtt("elsewhere", HERE[0], now=0) is None
    assert history.latency("home", NEIGHBOUR[0], "tls/tcp", now=0) == 0.03
    assert history.latency("home", "203.0.113.1", "tls/tcp", now=0) is None
    assert history.latency("home", "example.org", "tls/tcp", now=0) is not None
    assert history.latency("home", HERE[0], "tcp", now=0) is None


def test_subnets_of_ipv6_have_64_bits() -> None:
    history = History()
    history.note_rtt("home", "2001:db8:0:1::1", 0.02, now=0)
    history.note_rtt("home", "2001:db8:0:2::1", 0.2, now=0)
    assert history.rtt("home", "2001:db8:0:1:ffff::", now=0) == 0.02
    assert history.rtt("home", "2001:db8:0:2:ffff::", now=0) == 0.2


@pytest.mark.rfc("CA-07")
def test_old_values_weigh_less_in_the_average() -> None:
    def after(seconds: float) -> float:
        history = History()
        for _ in range(20):
            history.note_rtt("home", HERE[0], 0.1, now=0)
        history.note_rtt("home", HERE[0], 0.2, now=seconds)
        found = history.rtt("home", HERE[0], now=seconds)
        assert found is not None
        return found

    assert after(0) == pytest.approx(0.1125)  # an eighth of the way
    assert after(0) < after(HALF_LIFE[RTT]) < after(3 * HALF_LIFE[RTT]) < 0.2


@pytest.mark.rfc("CA-05")
def test_throughput_is_the_most_that_was_seen_lately() -> None:
    history = History()
    assert history.throughput("home", now=0) is None
    history.note_throughput("home", HERE[0], 1e6, now=0)
    history.note_throughput("home", FAR[0], 5e6, now=0)
    history.note_throughput("home", FAR[0], 2e6, now=1)
    assert history.throughput("home", now=1) == 5e6
    assert history.throughput("home", NEIGHBOUR[0], now=1) == 1e6
    history.note_throughput("home", FAR[0], 3e6, now=HOUR)  # what was more is an hour old
    assert history.throughput("home", now=HOUR) == 3e6
    assert history.throughput("home", now=24 * HOUR) is None
    assert history.throughput("elsewhere", now=0) is None


# -- Names --


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("example.org", "EXAMPLE.org."),
        ("2001:db8::1", "2001:DB8:0:0::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_one_endpoint_has_one_name(one: str, other: str) -> None:
    history = History()
    history.note_success("home", (one, 1), one, "tcp", now=0, latency=1)
    assert history.score("home", other, "tcp", now=0) > 0
    assert history.used("home", other, now=0)


@pytest.mark.rfc("CA-01", "HE-08")
def test_networks_are_apart() -> None:
    history = History()
    success(history, network="home", rtt=0.1)
    success(history, network="work", rtt=0.2)
    assert history.rtt("home", HERE[0], now=0) == 0.1
    history.flush("home")
    assert history.rtt("home", HERE[0], now=0) is None
    assert history.score("home", "example.org", "tls/tcp", now=0) == 0
    assert history.rtt("work", HERE[0], now=0) == 0.2
    history.flush()
    assert len(history) == 0


@pytest.mark.rfc("HE-08")
def test_when_the_network_changes_what_is_quick_is_forgotten() -> None:
    history = History()
    for network in ("home", "work"):
        success(history, network=network, rtt=0.1)
        history.note_throughput(network, HERE[0], 1e6, now=0)
    history.attached({"work"})
    assert history.rtt("home", HERE[0], now=0) is None
    assert history.throughput("home", now=0) is None
    assert history.score("home", HERE[0], "tls/tcp", now=0) > 0
    assert history.rtt("work", HERE[0], now=0) == 0.1
    assert history.throughput("work", now=0) == 1e6


# -- Bounds, and bad input --


def test_it_is_bounded_and_the_oldest_goes_first() -> None:
    history = History(limit=50)
    for number in range(1000):
        success(history, (f"10.0.{number // 250}.{number % 250}", 80), hostname=None)
        assert len(history) <= 50
    assert history.score("home", "10.0.3.249", "tls/tcp", now=0) > 0
    assert history.score("home", "10.0.0.0", "tls/tcp", now=0) == 0
    assert "50" in repr(history)


def test_time_that_stands_still_or_goes_back() -> None:
    history = History()
    success(history, now=100, rtt=0.1)
    assert history.score("home", HERE[0], "tls/tcp", now=50) == 0.5
    success(history, now=50, rtt=0.1)
    assert 0.5 < history.score("home", HERE[0], "tls/tcp", now=50) <= 1


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_no_such_times(value: float) -> None:
    history = History()
    with pytest.raises(ValueError, match="finite"):
        success(history, latency=value)
    with pytest.raises(ValueError, match="finite"):
        history.note_rtt("home", HERE[0], value, now=0)
    with pytest.raises(ValueError, match="finite"):
        history.note_throughput("home", HERE[0], value, now=0)
    assert len(history) == 0


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="limit"):
        History(limit=0)
    for wrong in (True, 1.5, "1"):
        with pytest.raises(TypeError, match="limit"):
            History(limit=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rtt"):
        History().note_rtt("home", "192.0.2.1", "1", now=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="History"):
        use(None)  # type: ignore[arg-type]


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "198.51.100.1"]),
            st.floats(0, 1e6),
            st.floats(0, 1e3),
        ),
        max_size=40,
    ),
    st.floats(0, 1e6),
)
def test_scores_and_averages_keep_within_what_was_seen(
    notes: list[tuple[bool, str, float, float]], later: float
) -> None:
    history = History()
    now = 0.0
    for good, address, step, time in notes:
        now += step
        if good:
            history.note_success("n", (address, 1), None, "tcp", now=now, latency=time, rtt=time)
        else:
            history.note_failure("n", (address, 1), None, "tcp", now=now)
    seen = [time for good, _, _, time in notes if good]
    for endpoint in ("192.0.2.1", "2001:db8::1", "192.0.2.0/24", ""):
        score = history.score("n", endpoint, "tcp", now=now + later)
        assert -1 < score < 1
        assert abs(score) <= abs(history.score("n", endpoint, "tcp", now=now)) + 1e-9
        rtt = history.rtt("n", endpoint, now=now + later)
        assert rtt is None or min(seen) - 1e-6 <= rtt <= max(seen) + 1e-6
    if all(good for good, *_ in notes):
        assert history.score("n", "", "tcp", now=now) >= 0


# -- All caches together --


@pytest.fixture
def history() -> Iterator[History]:
    before = default_history()
    made = History()
    use(made)
    yield made
    use(before)


@pytest.mark.rfc("CA-04", "A-20")
def test_one_call_forgets_everything(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    success(history)
    sessions = SessionCache(10, 100)
    sessions._put("example.org", _resumable(), 0)
    monkeypatch.setattr(caches, "_flushes", [])
    flushed = []

    def flush() -> None:
        flushed.append(1)

    register_cache(flush)
    register_cache(flush)
    flush_caches()
    assert (len(history), len(sessions), flushed) == (0, 0, [1])
    with pytest.raises(TypeError, match="function"):
        register_cache(None)  # type: ignore[arg-type]


def test_one_cache_that_fails_does_not_save_the_others(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    success(history)

    def fail() -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(caches, "_flushes", [fail])
    with pytest.raises(RuntimeError, match="on purpose"):
        flush_caches()
    assert len(history) == 0


def _resumable() -> Any:
    from greentaps.engines import Resumable

    return Resumable("session", None, True)


def test_sessions_cannot_be_stored() -> None:
    """Why they are in memory only: neither library gives one out, or takes one, as bytes."""
    assert [name for name in dir(OpenSSL.SSL.Session) if not name.startswith("_")] == []
    said = {name for name in dir(ssl.SSLSession) if not name.startswith("_")}
    assert said == {"has_ticket", "id", "ticket_lifetime_hint", "time", "timeout"}
    with pytest.raises(TypeError):
        ssl.SSLSession()


def test_the_names_of_the_half_lives() -> None:
    assert HALF_LIFE[RATE] >= HOUR > HALF_LIFE[RTT]
