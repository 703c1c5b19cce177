"""Not to receive is how to slow the peer down: over every stack, and through every framer.

And a Message of any length passes through a framer without being held.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from conftest import Certificates
from greentaps import (
    Connection,
    DelimiterFramer,
    Framer,
    LengthPrefixFramer,
    LineFramer,
    MessageContext,
    NetstringFramer,
    Preconnection,
    Timeout,
    TlvFramer,
    TransportProperties,
)
from greentaps.taps.connection import INBOX_HIGH
from greentaps.transports.flow import MAX_HELD
from rfc9622.world import listening, towards
from taps.helpers import local, port_of, remote, securities, until, with_framers, with_plain_peer

SIZE = 60_000  # bytes of one Message; what a read delivers at once is not more
GIB = 1 << 30


def http(role: Any) -> Framer:
    pytest.importorskip("h11")
    from greentaps.framers.http1 import Http1Framer

    return Http1Framer(role, host="test")


def websocket(role: Any) -> Framer:
    pytest.importorskip("wsproto")
    from greentaps.framers.websocket import WebSocketFramer

    return WebSocketFramer(role, host="test")


FRAMERS: dict[str, Callable[[Any], Framer] | None] = {
    "none": None,
    "length": lambda role: LengthPrefixFramer(),
    "delimiter": lambda role: DelimiterFramer(b"\0", max_length=SIZE),
    "line": lambda role: LineFramer(max_length=SIZE),
    "netstring": lambda role: NetstringFramer(),
    "tlv": lambda role: TlvFramer(),
    "http": http,
    "websocket": websocket,
}


@contextlib.contextmanager
def connected(
    stack: str, certificates: Certificates, framer: Callable[[Any], Framer] | None
) -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = securities(stack, certificates)
    framers = [() if framer is None else (framer(role),) for role in ("client", "server")]
    listening = with_framers(Preconnection(local(), security_parameters=theirs), framers[1])
    with listening.listen() as listener:
        client = with_framers(
            Preconnection(remote_endpoint=remote(port_of(listener)), security_parameters=ours),
            framers[0],
        ).initiate(timeout=10)
        server = listener.accept(timeout=10)
    try:
        yield client, server
    finally:
        client.abort()
        server.abort()


@pytest.mark.rfc("RV-04")
@pytest.mark.parametrize("stack", ["tcp", "tls/tcp"])
@pytest.mark.parametrize("framer", FRAMERS)
def test_nobody_receives(stack: str, framer: str, certificates: Certificates) -> None:
    with connected(stack, certificates, FRAMERS[framer]) as (client, server):
        context = MessageContext() if framer == "http" else None  # one long body in parts
        sent = 0
        with contextlib.suppress(Timeout):
            while sent < 120_000_000:
                client.send(b"x" * SIZE, context, context is None, timeout=0.3)
                sent += SIZE
        assert sent < 100_000_000
        # What is here is bounded, and does not grow any more.
        assert server._inbox.size < INBOX_HIGH + 5 * SIZE
        if server._framers is not None:
            assert server._framers.held < 5 * SIZE
        held = server._inbox.size
        gevent.sleep(0.05)
        assert server._inbox.size == held
        # Receiving lets the rest come, in order and whole.
        got = 0
        while got < sent:
            message = server.receive(1, timeout=10)
            assert message is not None
            assert message.data.count(b"x") == len(message.data)
            got += len(message.data)


@pytest.mark.rfc("RV-04", "UD-13")
def test_nobody_receives_datagrams() -> None:
    """Nothing holds a sender of datagrams back: what is too much is dropped."""
    properties = TransportProperties("unreliable-datagram")
    with listening(properties) as listener:
        client = towards(listener, properties).initiate(timeout=10)
        client.send(b"first")
        server = listener.accept(timeout=10)

        def dropped() -> bool:
            for _ in range(50):  # the kernel, too, holds and drops some
                client.send(bytes(1000))
            return bool(server.transport.dropped)

        until(dropped)
        assert server._inbox.size <= INBOX_HIGH + 2000
        assert len(server.transport._held) <= MAX_HELD
        assert server.receive(timeout=10).data == b"first"
        client.abort()
        server.abort()


# -- A Message of one GiB --


def high_water() -> int:
    """The most memory that this process has had, in bytes, since it was last asked."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def count_all(connection: Connection, expected: int) -> None:
    got = 0
    while got < expected:
        message = connection.receive(1, 1 << 20, timeout=20)
        assert message is not None
        got += len(message.data)
        assert message.end_of_message is (got == expected)
    assert got == expected


@pytest.mark.slow
@pytest.mark.rfc("RV-06", "RV-09", "SN-09")
@pytest.mark.parametrize("framer", ["http", "websocket"])
def test_a_gibibyte_in_parts(framer: str, certificates: Certificates) -> None:
    size = GIB if framer == "http" else GIB // 4  # the other looks at each byte
    with connected("tcp", certificates, FRAMERS[framer]) as (client, server):

        def send() -> None:
            context = MessageContext()
            part = b"x" * (1 << 20)
            for number in range(1, size // len(part) + 1):
                client.send(part, context, number * len(part) == size, timeout=20)

        high_water()
        before = high_water()
        sender = gevent.spawn(send)
        got = 0
        while True:
            message = server.receive(1, 1 << 20, timeout=20)
            assert message is not None
            got += len(message.data)
            if message.end_of_message:
                break
        sender.get(timeout=20)
        assert got == size
        assert high_water() - before < 48 * 1024 * 1024


@pytest.mark.slow
@pytest.mark.rfc("RV-06", "RV-09")
def test_a_gibibyte_whose_length_is_told_first() -> None:
    with with_plain_peer(LengthPrefixFramer(8, max_length=None)) as (connection, peer):
        part = b"x" * (1 << 20)

        def send() -> None:
            peer.sendall(GIB.to_bytes(8))
            for _ in range(GIB // len(part)):
                peer.sendall(part)

        high_water()
        before = high_water()
        sender = gevent.spawn(send)
        count_all(connection, GIB)
        sender.get(timeout=20)
        assert high_water() - before < 48 * 1024 * 1024
