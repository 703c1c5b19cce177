"""The memory pair behaves as a socket does where the contract leaves a choice."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from greentaps.errors import TransportError
from greentaps.testing import RecordingProtocol, memory_pair, pattern, settle, wait_until
from greentaps.transports.peek import Peek

PAUSED: dict[str, Any] = {"connection_made": lambda protocol, transport: transport.pause_reading()}


def started(capacity: int = 0, **hooks: Any) -> Any:
    one, two = memory_pair(capacity)
    first, second = RecordingProtocol(), RecordingProtocol(**hooks)
    one.start(first)
    two.start(second)
    return one, two, first, second


def test_names() -> None:
    one, two = memory_pair(names=("left", "right"))
    for transport in (one, two):
        transport.start(RecordingProtocol())
    assert one.get_extra_info("sockname") == two.get_extra_info("peername") == "left"
    assert one.get_extra_info("peername") == "right"
    assert "right" in repr(one)
    one.close()
    one.wait_closed(5)
    two.wait_closed(5)
    assert one.get_extra_info("peername", "gone") == "gone"


def test_capacity_is_taken_at_once() -> None:
    one, two, first, second = started(1000, **PAUSED)
    one.write(bytes(1000))
    assert one.get_write_buffer_size() == 0
    one.write(b"x")
    assert one.get_write_buffer_size() == 1
    two.resume_reading()
    second.wait_received(1001)
    one.close()
    wait_until(lambda: first.lost and second.lost, first, second)


def test_what_was_taken_arrives_after_the_end() -> None:
    """... of its writer: data, and then the end of the stream."""
    one, two, first, second = started(1000, **PAUSED)
    one.write(pattern(1000))
    one.close()
    assert first.wait_lost() is None
    settle()
    assert second.names == ["connection_made"]
    two.resume_reading()
    assert second.wait_lost() is None
    assert second.received == pattern(1000)
    assert second.eof


def test_nothing_is_delivered_inside_write() -> None:
    one, _two, first, second = started()
    one.write(b"x")
    assert not second.received
    one.close()
    assert not first.lost
    wait_until(lambda: first.lost and second.lost, first, second)
    assert second.received == b"x"


def test_a_write_to_a_peer_that_is_gone() -> None:
    one, two, first, second = started()
    first.keep_open = True
    two.close()
    wait_until(lambda: first.eof and second.lost, first, second)
    one.write(b"into the void")
    error = first.wait_lost()
    assert isinstance(error, BrokenPipeError)
    assert isinstance(error, TransportError)


def test_a_write_to_a_peer_that_still_flushes() -> None:
    """It reads on to discard, so we lose nothing of what it has to say."""
    one, two, first, second = started()
    one.pause_reading()
    two.write(pattern(500_000))
    two.close()
    settle()
    one.write(b"anybody there?")
    settle()
    assert not first.lost
    one.resume_reading()
    wait_until(lambda: first.lost and second.lost, first, second)
    assert first.received == pattern(500_000)
    assert not second.received
    assert first.error is None
    assert second.error is None


def test_an_abort_before_the_peer_has_started() -> None:
    one, two = memory_pair()
    one.abort()
    one.wait_closed(5)
    settle()
    second = RecordingProtocol()
    two.start(second)
    assert isinstance(second.wait_lost(), ConnectionResetError)
    second.check()


def test_no_handles() -> None:
    one, _two, first, second = started()
    with pytest.raises(ValueError, match="handle"):
        one.write(b"x", object())
    one.close()
    wait_until(lambda: first.lost and second.lost, first, second)


def test_nobody_can_look_at_what_it_will_read() -> None:
    """It has no descriptor: an opportunistic listener turns such a client away, and goes on."""
    one, two = memory_pair()
    with pytest.raises(TransportError) as caught:
        Peek(one, 1.0, lambda byte: None)
    assert caught.value.errno == errno.ENOTCONN
    one.abort()
    two.abort()
