"""The test kit itself: it notices what it is there for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from greentaps.errors import TransportError
from greentaps.hub import get_runner
from greentaps.testing import (
    RecordingProtocol,
    check_chunks,
    check_transport,
    memory_pair,
    pattern,
    reported_errors,
    settle,
    transport_checks,
    wait_until,
)
from greentaps.transports import Transport
from greentaps.transports.base import CLOSED, OPEN
from greentaps.transports.memory import MemoryTransport
from transports.helpers import OLD_LIBUV, tcp_handle, tcp_sockets

# -- Transports that break one promise each, and the check that must notice --


class Forgetful(MemoryTransport):
    """Broken by the tests below, which override one method."""


def _close_loses_data(self: Any, timeout: Any = None) -> None:
    self._drop()
    MemoryTransport.close(self)


def _lost_inside_close(self: Any, timeout: Any = None) -> None:
    MemoryTransport.close(self, timeout)
    if not self._buffered and self._state is not CLOSED:
        self._lost()


def _write_aliases(self: Any, data: Any, handle: Any = None) -> None:
    if isinstance(data, bytearray):
        MemoryTransport.write(self, b"-")
        self._buffer[-1] = data
        self._buffered += len(data) - 1
    else:
        MemoryTransport.write(self, data, handle)


def _paused_at_low(self: Any) -> tuple[int, int]:
    return (self._high, self._low)


def _eof_twice(self: Any) -> None:
    MemoryTransport._on_eof(self)
    if self._state is OPEN:
        MemoryTransport._on_eof(self)


def _never_resumes(self: Any) -> None:
    pass


def _close_forever(self: Any, timeout: Any = None) -> None:
    MemoryTransport.close(self, None)


def _second_eof_aborts(self: Any) -> None:
    if self._eof_queued:
        self.abort()
    MemoryTransport.write_eof(self)


def _abort_is_not_told(self: Any, error: Any = None) -> None:
    if self._state is not CLOSED:
        self._error = self._error or error
        self._drop()
        self._runner.call_soon(self._lost)


def _swallows(self: Any, error: BaseException) -> None:
    self._runner.collect(error)


def _unending_wake(self: Any, error: Any) -> None:
    if error is None:
        MemoryTransport._wake_waiters(self, error)


def _wrong_types_are_fine(self: Any, data: Any, handle: Any = None) -> None:
    MemoryTransport.write(self, data.encode() if isinstance(data, str) else data, handle)


def _pauses_one_early(self: Any, data: Any, handle: Any = None) -> None:
    self._high -= 1
    try:
        MemoryTransport.write(self, data, handle)
    finally:
        self._high += 1


def _deaf_to_pause(self: Any) -> None:
    pass


BROKEN: list[tuple[str, Callable[..., Any], str]] = [
    ("close", _close_loses_data, "close_flushes"),
    ("close", _lost_inside_close, "close_at_once"),
    ("close", _close_forever, "close_has_a_deadline"),
    ("write", _write_aliases, "mutable_buffers_may_be_changed"),
    ("write", _wrong_types_are_fine, "wrong_types"),
    ("write", _pauses_one_early, "paused_just_over_high"),
    ("get_write_buffer_limits", _paused_at_low, "limits_in_all_forms"),
    ("_on_eof", _eof_twice, "write_eof"),
    ("_resume_writing", _never_resumes, "wait_writable"),
    ("write_eof", _second_eof_aborts, "write_eof"),
    ("abort", _abort_is_not_told, "abort"),
    ("_callback_failed", _swallows, "exception_in_data_received"),
    ("_wake_waiters", _unending_wake, "wait_writable_ends_with_the_transport"),
    ("pause_reading", _deaf_to_pause, "pause_in_data_received"),
    ("pause_reading", _deaf_to_pause, "paused_from_connection_made_on"),
    ("resume_reading", _deaf_to_pause, "end_while_paused"),
]


@pytest.mark.parametrize(
    ("method", "replacement", "name"), BROKEN, ids=[f"{b[1].__name__}-{b[2]}" for b in BROKEN]
)
def test_a_broken_promise_is_noticed(
    monkeypatch: pytest.MonkeyPatch, method: str, replacement: Any, name: str
) -> None:
    monkeypatch.setattr(
        "greentaps.transports.memory.MemoryTransport",
        type("Broken", (Forgetful,), {"__slots__": (), method: replacement}),
    )
    with pytest.raises((AssertionError, TimeoutError, TransportError)) as caught:
        check_transport(memory_pair, names=[name], timeout=0.05)
    assert name in "".join(caught.value.__notes__)
    for owner in get_runner().owners:
        owner.hub_lost(TransportError("left by a broken transport"))


class SilentTransport(Transport):
    """Keeps to itself that a write has failed."""

    __slots__ = ()

    def write(self, data: Any, handle: Any = None) -> None:
        super().write(data, handle)


@pytest.mark.skipif(OLD_LIBUV, reason="here a failed write is told a turn later")
def test_a_write_that_fails_silently_is_noticed() -> None:
    def make() -> tuple[Transport, Transport]:
        one, two = tcp_sockets()
        return SilentTransport(tcp_handle(one)), Transport(tcp_handle(two))

    with pytest.raises(AssertionError, match="did not say so"):
        check_transport(make, names=["write_tells_its_own_failure"])


def test_all_checks_have_names_and_run() -> None:
    names = transport_checks()
    assert len(names) == len(set(names)) > 50
    check_transport(memory_pair, names=names[:2])
    with pytest.raises(KeyError):
        check_transport(memory_pair, names=["no such check"])


def test_a_context_manager_makes_the_pair() -> None:
    entered: list[str] = []

    @contextmanager
    def make() -> Iterator[Any]:
        entered.append("in")
        yield memory_pair()
        entered.append("out")

    check_transport(make, names=["connection_made_comes_first"])
    assert entered == ["in", "out"]


# -- The recording protocol --


@pytest.mark.parametrize(
    "calls",
    [
        ["data_received"],
        ["connection_lost"],
        ["connection_made", "connection_made"],
        ["connection_made", "resume_writing"],
        ["connection_made", "pause_writing", "pause_writing"],
        ["connection_made", "eof_received", "eof_received"],
        ["connection_made", "eof_received", "data_received"],
        ["connection_made", "connection_lost", "data_received"],
        ["connection_made", "connection_lost", "resume_writing"],
        ["connection_made", "connection_lost", "connection_lost"],
    ],
    ids=" ".join,
)
def test_an_illegal_order_is_noticed(calls: list[str]) -> None:
    protocol = RecordingProtocol()
    arguments = {"data_received": (b"x",), "connection_lost": (None,), "connection_made": (None,)}
    for name in calls[:-1]:
        getattr(protocol, name)(*arguments.get(name, ()))
    protocol.check()
    getattr(protocol, calls[-1])(*arguments.get(calls[-1], ()))
    with pytest.raises(AssertionError, match=calls[-1]):
        protocol.check()


def test_recording() -> None:
    protocol = RecordingProtocol(keep_open=True, data_received=lambda protocol, data: None)
    protocol.connection_made("a transport")
    protocol.data_received(b"a")
    protocol.pause_writing()
    assert protocol.paused
    protocol.resume_writing()
    assert protocol.eof_received() is True
    assert not protocol.lost
    error = TransportError("x")
    protocol.connection_lost(error)
    assert protocol.lost
    assert protocol.eof
    assert protocol.error is error
    assert protocol.received == b"a"
    assert protocol.count("data_received") == 1
    assert protocol.events[0] == ("connection_made", "a transport")
    protocol.check()
    with pytest.raises(TypeError, match="no_such"):
        RecordingProtocol(no_such=print)


@pytest.mark.parametrize("data", [b"", bytearray(b"x"), "text"])
def test_data_is_bytes_and_not_empty(data: Any) -> None:
    protocol = RecordingProtocol()
    protocol.connection_made(None)
    try:
        protocol.data_received(data)
    except TypeError:
        return
    with pytest.raises(AssertionError):
        protocol.check()


def test_wait_until() -> None:
    protocol = RecordingProtocol()
    with pytest.raises(AssertionError, match="in vain for rain"):
        wait_until(lambda: protocol.made, protocol, timeout=0.01, what="rain")
    waiter = gevent.spawn(wait_until, lambda: protocol.made, protocol)
    settle(3)
    protocol.connection_made(None)
    waiter.get(timeout=5)
    assert not protocol.watchers


def test_reported_errors() -> None:
    boom = RuntimeError("boom")

    def fail() -> None:
        raise boom

    with reported_errors() as reports:
        gevent.spawn(fail)
        get_runner().call_soon(fail)
        settle(3)
    assert reports == [boom, boom]
    assert "handle_error" not in gevent.get_hub().__dict__


def test_pattern() -> None:
    whole = pattern(1000)
    assert len(whole) == 1000
    for start in (0, 1, 7, 8, 9, 500):
        for size in (0, 1, 8, 100):
            assert pattern(size, start) == whole[start : start + size]


# -- Parsers --


def lines(*, lossy: bool = False, eager: bool = False) -> Callable[[], Any]:
    """A parser of lines, with faults on request."""

    def make() -> Any:
        rest = b""

        def feed(data: bytes) -> list[bytes]:
            nonlocal rest
            *found, rest = (rest + data).split(b"\n")
            if lossy and found:
                rest = b""
            if eager and rest:
                found.append(rest)
                rest = b""
            return found

        return feed

    return make


def test_check_chunks() -> None:
    check_chunks(lines(), b"a\nbc\n\nd\n", [b"a", b"bc", b"", b"d"])
    check_chunks(lines(), b"a\nbc\n", [b"a", b"bc"], tail=b"unfinished")
    check_chunks(lambda: lambda data: None, b"", [])


@pytest.mark.parametrize("fault", ["lossy", "eager"])
def test_check_chunks_notices(fault: str) -> None:
    with pytest.raises(AssertionError, match="instead of"):
        check_chunks(lines(**{fault: True}), b"a\nbc\n", [b"a", b"bc"])
    with pytest.raises(AssertionError, match="instead of"):
        check_chunks(lines(**{fault: True}), b"a\nbc\n", [b"a", b"bc"], tail=b"x")
    with pytest.raises(AssertionError, match="whole"):
        check_chunks(lines(), b"a\n", [b"b"])
