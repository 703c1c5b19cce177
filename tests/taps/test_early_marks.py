"""Which received Messages are marked as early, whatever framers make of the bytes.

What the kernel says is made up here, so that it can be any number; that it is true is seen in
``test_early``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gevent import socket as gsocket
from greentaps import (
    Connection,
    Framer,
    LengthPrefixFramer,
    LineFramer,
    Preconnection,
    TransportProperties,
)
from greentaps.plugins.tcp import Tcp
from taps.helpers import local, plain_client, port_of, until, with_framers

pytestmark = pytest.mark.rfc("P-52")


class Door(Framer):
    """Reads a line, and leaves everything else to those above."""

    def start(self, link: Any) -> None:
        link.delay_ready()

    def handle_received_data(self, link: Any) -> None:
        if link.take(5) is not None:
            link.start_passthrough()

    def new_sent_message(self, link: Any, data: Any, context: Any, end: bool) -> None:
        link.send(data)


class Hatch(LengthPrefixFramer):
    """One Message, and then no framing any more."""

    def handle_received_data(self, link: Any) -> None:
        super().handle_received_data(link)
        if link.idle and not link.received:
            link.start_passthrough()


class Stamps(LengthPrefixFramer):
    """Makes contexts of its own."""

    def handle_received_data(self, link: Any) -> None:
        size = link.parse(1, 1)
        if size and link.received > size[0]:
            context = link.new_context().add(self, "stamp", 1)
            link.advance_receive_cursor(1)
            link.deliver_and_advance_receive_cursor(context, size[0])


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int | None]]:
    """What the kernel says of each connection."""
    answers: list[int | None] = []
    monkeypatch.setattr(Tcp, "early", lambda _self, _transport: answers.pop(0))
    yield answers
    assert not answers


def accepted(*framers: Framer) -> tuple[Connection, gsocket.socket]:
    wishes = TransportProperties(zeroRttMsg="prefer")
    preconnection = with_framers(Preconnection(local(), None, wishes), framers)
    with preconnection.listen() as listener:
        peer = plain_client(port_of(listener))
        if any(isinstance(framer, Door) for framer in framers):
            peer.sendall(b"open!")
        return listener.accept(timeout=10), peer


def marks(connection: Connection, count: int, **how: Any) -> list[Any]:
    found = []
    for _ in range(count):
        message = connection.receive(timeout=10, **how)
        assert message is not None
        found.append((message.data, message.context.get("early-data")))
    return found


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 8, 9, 12])
@pytest.mark.parametrize("step", [1, 5, 12])
def test_all_of_which_a_part_was_there(said: list[int | None], size: int, step: int) -> None:
    said.append(size)
    connection, peer = accepted(LineFramer())
    with peer, connection:
        for at in range(0, 12, step):
            peer.sendall(b"one\ntwo\nthr\n"[at : at + step])
            if step < 12:
                until(lambda: not peer_unread(connection))
        expected = [(word, True if 4 * n < size else None) for n, word in enumerate(WORDS)]
        assert marks(connection, 3) == expected
        assert connection.get_properties().get("zeroRttMsg") is True


WORDS = [b"one", b"two", b"thr"]


def peer_unread(connection: Connection) -> int:
    """How many bytes of the peer's the kernel still has."""
    import array
    import fcntl
    import termios

    amount = array.array("i", [0])
    fcntl.ioctl(connection.transport.get_extra_info("handle").fileno(), termios.FIONREAD, amount)
    return amount[0]


def test_nothing_was_early(said: list[int | None]) -> None:
    said.append(None)
    connection, peer = accepted(LineFramer())
    with peer, connection:
        peer.sendall(b"one\n")
        assert marks(connection, 1) == [(b"one", None)]
        assert connection.get_properties().get("zeroRttMsg") is False


def test_the_pieces_of_a_long_message_share_the_mark(said: list[int | None]) -> None:
    said.append(10)
    connection, peer = accepted(LengthPrefixFramer(2))
    with peer, connection:
        peer.sendall(b"\x75\x30" + bytes(30_000) + b"\0\3two")
        found = []
        while sum(len(data) for data, _ in found) < 30_000:
            found += marks(connection, 1, min_incomplete_length=1, max_length=9000)
        assert len(found) > 1
        assert {mark for _, mark in found} == {True}
        assert marks(connection, 1) == [(b"two", None)]


def test_contexts_that_framers_make(said: list[int | None]) -> None:
    said.append(4)
    stamps = Stamps(1)
    connection, peer = accepted(stamps)
    with peer, connection:
        peer.sendall(b"\3one\3two")
        one, two = (connection.receive(timeout=10) for _ in range(2))
        assert one is not None
        assert two is not None
        assert [each.context.get("early-data") for each in (one, two)] == [True, None]
        assert [each.context.get(stamps, "stamp") for each in (one, two)] == [1, 1]


def test_several_framers(said: list[int | None]) -> None:
    said.append(5)
    connection, peer = accepted(LineFramer(), LengthPrefixFramer(1))
    with peer, connection:
        peer.sendall(b"\3one\n\3two\n")
        assert marks(connection, 2) == [(b"one", True), (b"two", None)]


@pytest.mark.parametrize(("size", "expected"), [(5, [None, None]), (7, [True, None])])
def test_what_a_handshake_took_is_no_message(
    said: list[int | None], size: int, expected: list[Any]
) -> None:
    said.append(size)
    connection, peer = accepted(Door(), LineFramer())
    with peer, connection:
        peer.sendall(b"one\ntwo\n")
        assert [mark for _, mark in marks(connection, 2)] == expected


@pytest.mark.parametrize(("size", "expected"), [(4, [True, None]), (5, [True, True])])
def test_a_stream_after_framers_is_one_message(
    said: list[int | None], size: int, expected: list[Any]
) -> None:
    said.append(size)
    connection, peer = accepted(Hatch(1))
    with peer, connection:
        peer.sendall(b"\3one")
        first = marks(connection, 1)
        peer.sendall(b"stream")
        second = marks(connection, 1, min_incomplete_length=6)
        assert [mark for _, mark in (*first, *second)] == expected


@pytest.mark.parametrize("size", [0, 3])
def test_without_a_framer(said: list[int | None], size: int) -> None:
    said.append(size)
    connection, peer = accepted()
    with connection:
        peer.sendall(b"one")
        peer.close()
        assert marks(connection, 1) == [(b"one", True if size else None)]


def test_a_connection_that_ends_meanwhile(said: list[int | None]) -> None:
    said.append(100)
    connection, peer = accepted(LineFramer())
    with connection:
        peer.sendall(b"one\n")
        peer.close()
        assert marks(connection, 1) == [(b"one", True)]
        assert list(connection) == []
