"""`FramerStack` and `FramerLink`: everything that RFC 9623 section 6 says, without a network."""

from __future__ import annotations

import ssl
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from greentaps.framers import (
    DeframingError,
    Framer,
    FramerHost,
    FramerLink,
    FramerStack,
    FramingError,
)
from greentaps.framers.delimiter import DelimiterFramer
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
    """Is ready when it has received ``ok``, and closed when it has received ``bye`` and its name;
    can be told to do other things as well."""

    def start(self, link):
        super().start(link)
        link.send(b"hello " + self.name.encode())
        link.delay_ready()

    def handle_received_data(self, link):
        words: dict[bytes, Callable[[], None]] = {
            b"ok": link.make_connection_ready,
            b"bye " + self.name.encode(): link.make_connection_closed,
            b"fail": lambda: link.fail_connection(ValueError("told to")),
            b"pass": link.start_passthrough,
            b"reply": lambda: (link.send(b"1"), link.send(b"2")),
        }
        for word, action in words.items():
            if link.parse(len(word), len(word)) == word:
                link.advance_receive_cursor(len(word))
                action()
                return
        super().handle_received_data(link)

    def stop(self, link):
        super().stop(link)
        link.send(b"bye " + self.name.encode())
        link.delay_closed()


class Bracket(Plain):
    """``name(data)`` around what is sent, in three pieces."""

    def new_sent_message(self, link, data, context, end_of_message):
        if not link.state:
            link.send(self.name.encode() + b"(")
        link.send(data)
        link.state = not end_of_message
        if end_of_message:
            link.send(b")")


# -- Order --


@pytest.mark.rfc("F-03", "MF-10", "MF-11")
def test_the_framer_added_last_encodes_first() -> None:
    stack, host = ready(Bracket("A"), Bracket("B"), Bracket("C"))
    stack.send(b"msg", None, True)
    assert host.take() == b"A(B(C(msg)))"
    stack.send(b"in ", None, False)
    stack.send(b"parts", None, True)
    assert host.take() == b"A(B(C(in parts)))"
    stack, host = ready(LengthPrefixFramer(1), DelimiterFramer(b"!"))
    stack.send(b"msg", None, True)
    assert host.take() == b"\x04msg!"
    stack, host = ready(DelimiterFramer(b"!"), LengthPrefixFramer(1))
    stack.send(b"msg", None, True)
    assert host.take() == b"\x03msg!"
    assert [type(framer) for framer in stack.framers] == [DelimiterFramer, LengthPrefixFramer]


@pytest.mark.rfc("F-03", "MF-12")
def test_the_framer_added_last_decodes_last() -> None:
    stack, host = ready(LengthPrefixFramer(1), DelimiterFramer(b"!"))
    stack.feed(b"\x06one!tw\x02o!")
    assert [data for data, _ in host.messages] == [b"one", b"two"]


@pytest.mark.rfc("MF-02", "MF-04")
def test_start_goes_up_and_stop_goes_down() -> None:
    log: list[str] = []
    stack, host = ready(Plain("A", log), Plain("B", log), Plain("C", log))
    stack.stop()
    stack.stop()
    assert host.closed
    assert log == ["start A", "start B", "start C", "stop C", "stop B", "stop A"]


@pytest.mark.rfc("F-02", "MF-02")
def test_a_framer_starts_anew_for_each_attempt() -> None:
    framer = Plain()
    ready(framer)
    ready(framer)
    assert len(framer.links) == 2
    assert framer.links[0] is not framer.links[1]
    assert framer.links[0].get_property("hostname") == "example.org"
    assert framer.links[0].get_property("nonsense", 5) == 5


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
    stack.feed(b"ok")
    assert log == ["start A", "start B"]
    assert not host.ready
    assert host.take() == b"hello B"
    stack.feed(b"ok")  # for A, to which it means nothing any more
    assert not host.ready
    log.clear()
    host.take()
    stack._links[1].make_connection_ready()
    assert stack.ready
    assert host.ready
    stack.send(b"data", None, True)
    assert host.take() == b"data"


def test_a_framer_that_is_not_ready_delivers_nothing_to_the_next() -> None:
    host = FramerRecorder()
    stack = FramerStack([Patient("A"), Plain("B")], host)
    stack.start()
    stack.feed(b"data")
    assert isinstance(host.error, RuntimeError)


@pytest.mark.rfc("MF-03")
def test_what_follows_the_handshake_in_one_piece_is_kept_for_the_connection() -> None:
    class Establishing(FramerRecorder):
        deliver = None

    first = Establishing()
    stack = FramerStack([Patient()], first)
    stack.start()
    stack.feed(b"okearly")
    assert first.ready
    assert stack.held >= len(b"early")
    connection = FramerRecorder()
    stack.host = connection
    assert stack.host is connection
    assert connection.pieces == [(b"early", False)]
    assert stack.held == 0
    stack.feed(b"later")
    assert connection.pieces == [(b"early", False), (b"later", False)]
    stack.send(b"reply", None, True)
    assert connection.take() == b"reply"
    stack.stop()
    assert connection.take() == b"bye "
    stack.feed(b"bye ")
    assert connection.closed
    assert not first.closed


def test_a_peer_cannot_have_much_kept_before_the_connection() -> None:
    class Establishing(FramerRecorder):
        deliver = None

    for message in (b"\0", b"\x01x"):
        host = Establishing()
        stack = FramerStack([LengthPrefixFramer(1)], host)
        stack.start()
        stack.feed(message * (EARLY_LIMIT // 64 + 1))
        assert isinstance(host.error, DeframingError)
        assert stack.held == 0


@pytest.mark.rfc("MF-04", "MF-05")
def test_a_framer_delays_closed() -> None:
    log: list[str] = []
    host = FramerRecorder()
    stack = FramerStack([Patient("A", log), Patient("B", log)], host)
    stack.start()
    for link in stack._links:
        link.make_connection_ready()
    assert host.ready
    host.take()
    stack.feed(b"bye A")  # nobody has asked yet
    stack.stop()
    stack.stop()
    assert host.take() == b"bye B"
    stack.feed(b"still data")
    assert host.pieces == [(b"still data", False)]
    assert not host.closed
    stack.feed(b"bye B")
    assert host.take() == b"bye A"
    assert not host.closed
    stack.feed(b"bye A")
    assert host.closed
    assert "stopped" in repr(stack)


def test_a_framer_may_say_at_once_that_it_is_done() -> None:
    class Quick(Plain):
        def start(self, link):
            link.delay_ready()
            link.make_connection_ready()
            link.make_connection_ready()

        def stop(self, link):
            link.delay_closed()
            link.make_connection_closed()
            link.make_connection_closed()

    stack, host = ready(Quick(), Quick())
    stack.stop()
    assert host.closed


def test_stop_before_ready_does_not_wait() -> None:
    host = FramerRecorder()
    stack = FramerStack([Patient("A")], host)
    stack.start()
    stack.stop()
    assert host.closed


# -- Failure --


class Raising(Plain):
    """Raises in one handler."""

    def __init__(self, where: str, error: Exception | None = None) -> None:
        super().__init__()
        self.where = where
        self.error = error or ValueError(where)

    def start(self, link):
        if self.where == "start":
            raise self.error

    def stop(self, link):
        if self.where == "stop":
            raise self.error

    def handle_received_data(self, link):
        if self.where == "data":
            raise self.error
        super().handle_received_data(link)

    def handle_end(self, link):
        if self.where == "end":
            raise self.error


@pytest.mark.parametrize("below", [(), (Plain("A"),)])
@pytest.mark.parametrize("where", ["start", "stop", "data", "end"])
def test_what_a_handler_raises_fails_the_connection(where: str, below: tuple[Framer, ...]) -> None:
    framer = Raising(where)
    host = FramerRecorder()
    stack = FramerStack([*below, framer, Plain("C")], host)
    stack.start()
    if where == "stop":
        stack.stop()
    elif where == "data":
        stack.feed(b"x")
    elif where == "end":
        assert not stack.eof()
    assert host.error is framer.error
    assert stack.error is framer.error
    assert host.ready == (where != "start")
    assert not host.closed
    assert "failed" in repr(stack)
    # ... and that is the last of it.
    stack.feed(b"more")
    stack.stop()
    assert not stack.eof()
    stack.feed_datagram(b"more")
    assert not host.closed
    with pytest.raises(RuntimeError):
        stack.send(b"data", None, True)
    for link in framer.links:
        link.send(b"data")
        link.deliver(None, b"data")
    stack.fail(ValueError("again"))


@pytest.mark.rfc("MF-06")
@pytest.mark.parametrize("when", ["before ready", "after"])
def test_a_framer_fails_the_connection(when: str) -> None:
    host = FramerRecorder()
    stack = FramerStack([Patient("A")], host)
    stack.start()
    if when == "after":
        stack.feed(b"ok")
    stack.feed(b"failand more")
    assert isinstance(host.error, ValueError)
    assert str(host.error) == "told to"
    assert host.ready == (when == "after")
    assert not host.pieces


def test_what_new_sent_message_raises_goes_to_the_sender_alone() -> None:
    stack, host = ready(LengthPrefixFramer(1))
    with pytest.raises(FramingError):
        stack.send(bytes(256), None, True)
    assert host.error is None
    stack.send(b"x", None, True)
    assert host.take() == b"\x01x"


def test_a_framer_below_may_be_the_one_that_refuses() -> None:
    stack, host = ready(LengthPrefixFramer(1), DelimiterFramer())
    with pytest.raises(FramingError):
        stack.send(bytes(255), None, True)
    assert host.take() == b""
    stack.send(b"x", None, True)
    assert host.take() == b"\x02x\n"


def test_a_refused_message_leaves_nothing_behind_in_a_stack() -> None:
    class HalfWay(Plain):
        def new_sent_message(self, link, data, context, end_of_message):
            link.send(b"half")
            if data == b"bad":
                raise FramingError("no")

    stack, host = ready(LengthPrefixFramer(1), HalfWay())
    with pytest.raises(FramingError):
        stack.send(b"bad", None, True)
    stack.send(b"good", None, True)
    assert host.take() == b"\x04half"


def test_a_failing_write_fails_the_receiving_framer_that_replies() -> None:
    class Broken(FramerRecorder):
        def write(self, data):
            raise OSError("gone")

    host = Broken()
    framer = Patient()
    stack = FramerStack([framer], host)
    stack.start()
    assert isinstance(host.error, OSError)
    host = Broken()
    stack = FramerStack([DelimiterFramer(), Bracket("B")], host)
    stack.start()
    with pytest.raises(OSError, match="gone"):
        stack.send(b"data", None, True)


# -- The end of the stream --


@pytest.mark.rfc("RV-13")
def test_the_stream_ends_in_a_message() -> None:
    for cut in (b"\x05", b"\x05hel", b"\x01a\x01"):
        stack, host = ready(LengthPrefixFramer(1))
        stack.feed(cut)
        assert not stack.eof()
        assert isinstance(host.error, DeframingError)
    stack, host = ready(LengthPrefixFramer(1))
    stack.feed(b"\x01a")
    assert stack.eof()
    assert host.error is None


def test_the_stream_ends_in_a_message_of_the_upper_framer() -> None:
    stack, host = ready(LengthPrefixFramer(1), DelimiterFramer())
    stack.feed(b"\x02ab")
    assert not stack.eof()
    assert isinstance(host.error, DeframingError)


def test_the_stream_ends_before_ready() -> None:
    host = FramerRecorder()
    stack = FramerStack([Patient()], host)
    stack.start()
    assert not stack.eof()
    assert isinstance(host.error, DeframingError)


def test_a_framer_ends_receiving() -> None:
    class Goodbye(Plain):
        def handle_received_data(self, link):
            super().handle_received_data(link)
            link.end_receiving()
            link.end_receiving()

    stack, host = ready(Goodbye())
    stack.feed(b"last")
    assert host.ended
    assert host.error is None
    stack, host = ready(Goodbye(), DelimiterFramer())
    stack.feed(b"cut")
    assert not host.ended
    assert isinstance(host.error, DeframingError)


# -- Received data --


class Scripted(Framer):
    """Calls a function for received data."""

    def __init__(self, function: Callable[[FramerLink], None]) -> None:
        self.function = function

    def new_sent_message(self, link, data, context, end_of_message):
        link.send(data)

    def handle_received_data(self, link):
        self.function(link)


def check_link(data: bytes, function: Callable[[FramerLink], None]) -> FramerRecorder:
    """Call *function* once with a link that holds *data*."""
    called = []

    def once(link: FramerLink) -> None:
        if not called:
            called.append(link)
            function(link)

    stack, host = ready(Scripted(once))
    stack.feed(data)
    assert called
    assert host.error is None, repr(host.error)
    return host


@pytest.mark.rfc("MF-13")
def test_parse() -> None:
    def look(link: FramerLink) -> None:
        assert link.received == 5
        assert link.parse() == b"hello"
        assert link.parse(2) == b"hello"
        assert link.parse(2, 3) == b"hel"
        assert link.parse(5, 100) == b"hello"
        assert link.parse(6) is None
        assert link.parse(0, 0) == b""
        assert link.context is None
        assert link.end_of_message is False
        assert link.received == 5

    check_link(b"hello", look)


def test_take_and_find() -> None:
    def look(link: FramerLink) -> None:
        assert link.find(b"l") == 2
        assert link.find(b"l", 3) == 3
        assert link.find(b"l", 4) == -1
        assert link.find(b"lo", 0, 4) == -1
        assert link.find(b"lo", 0, 5) == 3
        assert link.take(6) is None
        assert link.take(2) == b"he"
        assert link.find(b"l") == 0
        assert link.parse() == b"llo"
        assert link.take(3) == b"llo"
        assert link.take(0) == b""
        assert link.take(1) is None
        assert link.idle

    check_link(b"hello", look)


@pytest.mark.rfc("MF-14")
def test_advance_receive_cursor() -> None:
    def look(link: FramerLink) -> None:
        link.advance_receive_cursor(2)
        assert link.parse() == b"llo"
        with pytest.raises(ValueError, match="cannot move"):
            link.advance_receive_cursor(4)
        with pytest.raises(ValueError, match="cannot move"):
            link.advance_receive_cursor(-1)
        link.advance_receive_cursor(3)
        assert link.parse(1) is None

    check_link(b"hello", look)


@pytest.mark.rfc("MF-15", "MF-16")
def test_deliver() -> None:
    def look(link: FramerLink) -> None:
        context = link.new_context()
        link.deliver_and_advance_receive_cursor(context, 2, False)
        assert not link.idle
        link.deliver(context, b"own")
        link.deliver_and_advance_receive_cursor(None, 0)
        link.deliver_and_advance_receive_cursor(None, 3)
        assert link.idle
        with pytest.raises(ValueError, match="cannot deliver"):
            link.deliver_and_advance_receive_cursor(None, -1)

    host = check_link(b"hello", look)
    assert host.pieces == [(b"he", False), (b"own", True), (b"", True), (b"llo", True)]


@pytest.mark.rfc("MF-15")
def test_what_has_not_arrived_is_delivered_when_it_comes() -> None:
    calls = []

    def handle(link: FramerLink) -> None:
        calls.append(link.parse())
        if len(calls) == 1:
            link.deliver_and_advance_receive_cursor(None, 10)
            with pytest.raises(RuntimeError):
                link.deliver_and_advance_receive_cursor(None, 1)
            with pytest.raises(RuntimeError):
                link.deliver(None, b"out of turn")

    stack, host = ready(Scripted(handle))
    for piece in (b"abcd", b"efg", b"hijK"):
        stack.feed(piece)
    assert host.pieces == [(b"abcd", False), (b"efg", False), (b"hij", True)]
    assert host.messages == [(b"abcdefghij", None)]
    assert calls == [b"abcd", b"K"]


@pytest.mark.rfc("MF-15")
def test_a_gibibyte_passes_without_being_held() -> None:
    size = 2**30
    stack, host = ready(LengthPrefixFramer(4))
    host.keep = False
    total = 0

    def count(data: bytes, context: Any, end_of_message: bool) -> None:
        nonlocal total
        total += len(data)
        assert end_of_message == (total == size)

    host.deliver = count
    stack.host = host
    chunk = bytes(65536)
    tracemalloc.start()
    try:
        stack.feed(size.to_bytes(4, "big") + chunk[4:])
        for _ in range(size // len(chunk) - 1):
            stack.feed(chunk)
        assert stack.held == 0
        stack.feed(chunk[:4])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == size
    assert peak < 1_000_000
    assert host.error is None


def test_small_pieces_do_not_make_the_work_grow() -> None:
    """A megabyte held while it comes in pieces of eight bytes: no copy of all for each."""
    stack, host = ready(DelimiterFramer(max_length=2**20))
    piece = b"12345678"
    for _ in range(2**17 - 1):
        stack.feed(piece)
    link = stack._links[0]
    before = id(link._buffer)
    stack.feed(b"1234567")
    assert id(link._buffer) == before  # in place
    assert stack.held == 2**20 - 1
    stack.feed(b"\nnext")
    assert [len(data) for data, _ in host.messages] == [2**20 - 1]
    assert stack.held == 4
    assert len(link._buffer) == 4
    stack.feed(b"\n")
    assert host.messages[1][0] == b"next"


def test_a_held_rest_does_not_hold_what_went_before_it() -> None:
    stack, _ = ready(LengthPrefixFramer(4))
    stack.feed((65000).to_bytes(4, "big") + bytes(65000) + b"\0\0")
    assert len(stack._links[0]._buffer) == 2


# -- Contexts and boundaries below --


@pytest.mark.rfc("F-07")
def test_metadata_of_a_framer_below_another() -> None:
    tlv = TlvFramer(1, 1)
    stack, host = ready(tlv, DelimiterFramer(b"!"))
    context = host.new_context().add(tlv, "type", 7)
    stack.send(b"one", context, True)
    assert host.take() == b"\x07\x04one!"
    stack.feed(b"\x07\x08one!two!\x09\x03thr\x0a\x03ee!")
    assert [data for data, _ in host.messages] == [b"one", b"two", b"three"]
    assert [context.get(tlv, "type") for _, context in host.messages] == [7, 7, 10]


@pytest.mark.rfc("F-07")
def test_two_framers_have_their_own_metadata() -> None:
    low, high = TlvFramer(1, 1), TlvFramer(1, 1)
    stack, host = ready(low, high)
    context = host.new_context().add(low, "type", 1).add(high, "type", 2)
    stack.send(b"x", context, True)
    data = host.take()
    assert data == b"\x01\x03\x02\x01x"
    stack.feed(data)
    (message,) = host.messages
    assert message[0] == b"x"
    assert message[1].get(low, "type") == 1
    assert message[1].get(high, "type") == 2


@pytest.mark.rfc("MF-13")
def test_a_framer_sees_the_messages_below() -> None:
    seen = []

    def handle(link: FramerLink) -> None:
        seen.append((link.parse(0), link.end_of_message))
        link.advance_receive_cursor(link.received)

    stack, _ = ready(LengthPrefixFramer(1), Scripted(handle))
    stack.feed(b"\x03abc\x04de")
    stack.feed(b"fg")
    assert seen == [(b"abc", True), (b"de", False), (b"fg", True)]

    class InPieces(Plain):
        def handle_received_data(self, link):
            link.deliver_and_advance_receive_cursor(None, link.received, False)
            link.deliver(None, b"")

    seen.clear()
    stack, _ = ready(InPieces(), Scripted(handle))
    stack.feed(b"abc")
    assert seen == [(b"abc", False), (b"", True)]
    stack, host = ready(
        InPieces(), Scripted(lambda link: link.advance_receive_cursor(link.received or 1 // 0))
    )
    stack.feed(b"abc")
    assert isinstance(host.error, ZeroDivisionError)


def test_a_reply_and_a_send_outside_events() -> None:
    framer = Patient("B")
    host = FramerRecorder()
    stack = FramerStack([LengthPrefixFramer(1), framer], host)
    stack.start()
    assert host.take() == b"\x07hello B"
    stack.feed(b"\x02ok")
    stack.feed(b"\x05reply")
    assert host.take() == b"\x0212"
    framer.links[0].send(b"alone")
    assert host.take() == b"\x05alone"


# -- Datagrams --


@pytest.mark.rfc("F-05")
def test_a_message_is_one_datagram() -> None:
    stack, host = ready(Bracket("A"), Bracket("B"), datagrams=True)
    stack.send(b"msg", None, True)
    assert host.out == [b"A(B(msg))"]
    host.out.clear()
    part = bytearray(b"in ")
    stack.send(part, None, False)
    assert host.out == []
    part[:] = b"XXX"
    stack.send(b"parts", None, True)
    assert host.out == [b"A(B(in parts))"]


@pytest.mark.rfc("F-05")
def test_several_messages_in_one_datagram() -> None:
    stack, host = ready(LengthPrefixFramer(1), datagrams=True)
    context = host.new_context()
    stack.feed_datagram(b"\x03one\x03two", context)
    assert host.messages == [(b"one", context), (b"two", context)]


@pytest.mark.rfc("F-05")
def test_a_framer_that_packs_several_messages_into_a_datagram() -> None:
    class Packing(LengthPrefixFramer):
        """Two Messages a datagram."""

        def start(self, link):
            self.packed: list[bytes] = []

        def new_sent_message(self, link, data, context, end_of_message):
            self.packed.append(len(data).to_bytes(1, "big") + data)
            if len(self.packed) == 2:
                for message in self.packed:
                    link.send(message)
                self.packed.clear()

    stack, host = ready(Packing(1), datagrams=True)
    for message in (b"one", b"two", b"three"):
        stack.send(message, None, True)
    assert host.out == [b"\x03one\x03two"]


@pytest.mark.rfc("F-05")
@pytest.mark.parametrize("bad", [b"\x05cut", b"\x03one\x05cut", b"\x05"])
def test_a_datagram_that_makes_no_sense_is_refused_alone(bad: bytes) -> None:
    stack, host = ready(LengthPrefixFramer(1), datagrams=True)
    stack.feed_datagram(bad)
    stack.feed_datagram(b"\x04next")
    assert [type(error) for error in host.refused] == [DeframingError]
    assert host.messages[-1][0] == b"next"
    assert host.error is None
    assert stack.held == 0


def test_a_raising_framer_over_datagrams_refuses_the_datagram() -> None:
    for below in ((), (Plain(),)):
        stack, host = ready(*below, Raising("data"), datagrams=True)
        stack.feed_datagram(b"x")
        assert [str(error) for error in host.refused] == ["data"]


def test_a_framer_may_still_fail_the_connection_over_datagrams() -> None:
    def fail(link: FramerLink) -> None:
        link.fail_connection(ValueError("enough"))

    stack, host = ready(Scripted(fail), datagrams=True)
    stack.feed_datagram(b"x")
    assert str(host.error) == "enough"
    assert host.refused == []


def test_no_framer_over_datagrams() -> None:
    stack, host = ready(datagrams=True)
    stack.feed_datagram(b"x", "context")
    assert host.messages == [(b"x", "context")]
    stack.send(b"y", None, True)
    assert host.out == [b"y"]


# -- Passthrough --


def frames_per_call(function: Callable[[], object]) -> list[str]:
    """The Python functions that *function* calls."""
    names: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            names.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return names[1:]


@pytest.mark.rfc("MF-08")
def test_passthrough_leaves_nothing_on_the_path() -> None:
    host = FramerRecorder()
    stack = FramerStack([Patient("A")], host)
    stack.start()
    host.take()
    stack.feed(b"passrest")
    assert host.ready
    assert host.passing
    assert stack.passthrough
    assert stack.framers == ()
    assert host.pieces == [(b"rest", False)]
    # The host knows that it need not ask; if it does, no framer is asked.
    sent = frames_per_call(lambda: stack.send(b"data", None, True))
    assert sent == ["_send_through", "FramerRecorder.write"]
    assert host.take() == b"data"
    received = frames_per_call(lambda: stack.feed(b"data"))
    assert received == ["_feed_through", "FramerRecorder.deliver"]
    assert stack.eof()
    stack.stop()
    assert host.closed
    assert "passthrough" in repr(stack)


@pytest.mark.rfc("MF-08", "MF-11")
def test_a_single_framer_has_no_stack_on_its_path() -> None:
    stack, _ = ready(Plain())
    assert frames_per_call(lambda: stack.send(b"x", None, True)) == [
        "Plain.new_sent_message",
        "FramerRecorder.write",
    ]


@pytest.mark.rfc("MF-11")
def test_unchanged_data_is_not_copied() -> None:
    written = []

    class Host(FramerHost):
        def write(self, data):
            written.append(data)

        def deliver(self, data, context, end_of_message):
            pass

    data = bytearray(100_000)
    for framers in ((Plain(),), (Plain(), Plain()), (LengthPrefixFramer(),)):
        written.clear()
        stack = FramerStack(framers, Host())
        stack.start()
        stack.send(data, None, True)
        assert written[-1] is data


@pytest.mark.rfc("MF-08")
@pytest.mark.parametrize("position", [0, 1])
def test_passthrough_of_one_of_two(position: int) -> None:
    framers: list[Framer] = [DelimiterFramer(b"!")]
    framers.insert(position, Patient("A"))
    host = FramerRecorder()
    stack = FramerStack(framers, host)
    stack.start()
    assert not stack.ready
    stack.feed(b"passone!two" if position == 0 else b"pass!one!")
    assert stack.ready
    assert not stack.passthrough
    assert not host.passing
    stack.feed(b"!" if position == 0 else b"two!")
    assert [data for data, _ in host.messages] == [b"one", b"two"]
    host.take()
    stack.send(b"out", None, True)
    assert host.take() == b"out!"


def test_passthrough_gives_back_what_was_taken() -> None:
    def handle(link: FramerLink) -> None:
        taken = link.take(3)
        assert taken is not None
        link.send(b"over")
        link.start_passthrough(taken[1:])
        link.start_passthrough()

    for below in ((), (LengthPrefixFramer(1),)):
        stack, host = ready(*below, Scripted(handle))
        stack.feed(b"\x06abcdef" if below else b"abcdef")
        assert b"".join(data for data, _ in host.pieces) == b"bcdef"
        assert host.take() == (b"\x04over" if below else b"over")


def test_no_passthrough_within_a_message() -> None:
    def handle(link: FramerLink) -> None:
        link.deliver(None, b"begun", False)
        with pytest.raises(RuntimeError):
            link.start_passthrough()
        link.advance_receive_cursor(link.received)

    stack, host = ready(Scripted(handle))
    stack.feed(b"x")
    assert host.error is None


# -- PrependFramer --


@pytest.mark.rfc("MF-07")
def test_a_prepended_framer_goes_directly_above() -> None:
    log: list[str] = []

    class Prepending(Patient):
        def start(self, link):
            super().start(link)
            link.prepend_framer(Bracket("1", log))
            link.prepend_framer(Bracket("2", log))

    host = FramerRecorder()
    stack = FramerStack([Prepending("A", log), Bracket("B", log)], host)
    stack.start()
    assert log == ["start A"]
    stack.feed(b"ok")
    assert log == ["start A", "start 2", "start 1", "start B"]
    assert stack.ready
    host.take()
    stack.send(b"msg", None, True)
    assert host.take() == b"2(1(B(msg)))"
    with pytest.raises(RuntimeError):
        stack._links[0].prepend_framer(Plain())


class TlsFramer(Framer):
    """TLS as a framer, to be put above another one when both ends want it."""

    def __init__(self, context: ssl.SSLContext, server_side: bool) -> None:
        self.context = context
        self.server_side = server_side

    def start(self, link):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(
            incoming,
            outgoing,
            server_side=self.server_side,
            server_hostname=None if self.server_side else "localhost",
        )
        link.state = (incoming, outgoing, tls)
        link.delay_ready()
        self.shake(link)

    def shake(self, link):
        _, outgoing, tls = link.state
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            link.make_connection_ready()
        if outgoing.pending:
            link.send(outgoing.read())

    def new_sent_message(self, link, data, context, end_of_message):
        _, outgoing, tls = link.state
        tls.write(data)
        link.send(outgoing.read())

    def handle_received_data(self, link):
        incoming, _, tls = link.state
        incoming.write(link.take(link.received))
        if tls.version() is None or tls.get_channel_binding() is None:
            self.shake(link)
        while True:
            try:
                link.deliver(None, tls.read(16384), False)
            except ssl.SSLWantReadError:
                return

    def at_boundary(self, link):
        return True


class StartTlsFramer(Framer):
    """Asks for TLS in plain text, and goes away when TLS is there."""

    def __init__(self, context: ssl.SSLContext, server_side: bool) -> None:
        self.tls = TlsFramer(context, server_side)

    def start(self, link):
        link.delay_ready()
        if not self.tls.server_side:
            link.send(b"STARTTLS\r\n")

    def new_sent_message(self, link, data, context, end_of_message):
        link.send(data)

    def handle_received_data(self, link):
        at = link.find(b"\r\n")
        if at < 0:
            return
        line = link.take(at + 2)
        if self.tls.server_side:
            link.send(b"OK\r\n")
        elif line != b"OK\r\n":
            raise DeframingError("the server has no TLS")
        link.prepend_framer(self.tls)
        link.start_passthrough()


@pytest.mark.rfc("MF-07", "MF-08")
def test_starttls(certificates: Any) -> None:
    client_host, server_host = FramerRecorder(), FramerRecorder()
    client = FramerStack(
        [StartTlsFramer(certificates.client_context(), False), LengthPrefixFramer()], client_host
    )
    server = FramerStack(
        [StartTlsFramer(certificates.server_context(), True), LengthPrefixFramer()], server_host
    )
    wire = b""

    def pass_on() -> None:
        nonlocal wire
        while client_host.out or server_host.out:
            for host, stack in ((client_host, server), (server_host, client)):
                data = host.take()
                wire += data
                for at in range(0, len(data), 1000):
                    stack.feed(data[at : at + 1000])

    client.start()
    server.start()
    pass_on()
    assert client_host.error is None
    assert server_host.error is None
    assert client.ready
    assert server.ready
    assert wire.startswith(b"STARTTLS\r\nOK\r\n\x16\x03")
    assert [type(framer) for framer in client.framers] == [TlsFramer, LengthPrefixFramer]
    client.send(b"secret" * 1000, None, True)
    server.send(b"answer", None, True)
    pass_on()
    assert server_host.messages == [(b"secret" * 1000, None)]
    assert client_host.messages == [(b"answer", None)]
    assert b"secret" not in wire


# -- The rest --


def test_a_link_without_a_stack() -> None:
    sent: list[Any] = []
    delivered: list[Any] = []
    link = FramerLink(LengthPrefixFramer(1), sent.append, lambda *piece: delivered.append(piece))
    link.feed(b"\x01a")
    assert delivered == [(b"a", None, True)]
    with pytest.raises(RuntimeError):
        link.get_property("x")
    link = FramerLink(Raising("data"), sent.append, lambda *piece: None)
    with pytest.raises(ValueError, match="data"):
        link.feed(b"x")


def test_the_base_classes() -> None:
    host = FramerHost()
    for call in (
        lambda: host.write(b""),
        lambda: host.framers_failed(ValueError()),
        host.new_context,
        lambda: Framer().new_sent_message(FramerRecorder(), b"", None, True),
        lambda: Framer().handle_received_data(FramerRecorder()),
    ):
        with pytest.raises(NotImplementedError):
            call()
    host.framers_ready()
    host.framers_closed()
    host.framers_ended()
    host.framers_passthrough()
    host.datagram_refused(ValueError(), None)
    assert host.get_property("x", 5) == 5
    assert host.deliver is None
    assert not host.write_blocked


def test_write_blocked_is_the_hosts() -> None:
    framer = Plain()
    _, host = ready(framer)
    assert not framer.links[0].write_blocked
    host.write_blocked = True
    assert framer.links[0].write_blocked


def test_repr() -> None:
    host = FramerRecorder()
    stack = FramerStack([LengthPrefixFramer(), Patient()], host)
    assert repr(stack) == "<FramerStack Patient/LengthPrefixFramer starting>"
    stack, _ = ready(LengthPrefixFramer())
    assert repr(stack) == "<FramerStack LengthPrefixFramer ready>"
