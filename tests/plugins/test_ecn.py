"""The ECN field of received datagrams (RFC 9622 section 9.3.3.1), for those who ask for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from gevent import socket as gsocket
from greentaps import Connection, Preconnection, TransportProperties
from greentaps.transports.datagram import DatagramTransport
from greentaps.transports.marked import MarkedDatagramTransport
from rfc9622.world import Log, datagrams, listening
from taps.helpers import local, port_of, remote, until

TCLASS = (socket.IPPROTO_IPV6, 67)
TOS = (socket.IPPROTO_IP, socket.IP_TOS)


def asking() -> TransportProperties:
    return datagrams().set("_greentaps.receiveEcn", True)


@contextmanager
def peer_at(address: str) -> Iterator[tuple[gsocket.socket, tuple[int, int]]]:
    six = ":" in address
    with gsocket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((address, 0))
        peer.settimeout(20)
        yield peer, TCLASS if six else TOS


@contextmanager
def client_of(peer: gsocket.socket, properties: TransportProperties) -> Iterator[Connection]:
    host, port = peer.getsockname()[:2]
    made = Preconnection(remote_endpoint=remote(port, host), transport_properties=properties)
    connection = made.initiate(timeout=10)
    try:
        yield connection
    finally:
        connection.abort()


@pytest.mark.rfc("P-51", "MS-17", "SO-14", "UD-13", "N-10")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_client_is_told_how_datagrams_were_marked(address: str) -> None:
    with peer_at(address) as (peer, option), client_of(peer, asking()) as connection:
        connection.send(b"who are you?")
        _, sender = peer.recvfrom(100)
        for mark in (0, 1, 2, 3):
            peer.setsockopt(*option, 0b101000 << 2 | mark)  # the DSCP beside it is another matter
            peer.sendto(b"%d" % mark, sender)
            message = connection.receive(timeout=10)
            assert message.data == b"%d" % mark
            assert type(message.data) is bytes
            assert message.context.get("ecn") == mark
            assert message.context.get_remote_endpoint().ip_address == address  # type: ignore[union-attr]


@pytest.mark.rfc("P-51", "SO-14")
def test_the_connections_of_a_listener_are_told() -> None:
    with listening(asking()) as listener, peer_at("127.0.0.1") as (peer, option):
        peer.setsockopt(*option, 3)
        peer.connect(("127.0.0.1", port_of(listener)))
        peer.send(b"congested")  # before there is a Connection
        server = listener.accept(timeout=10)
        assert server.receive(timeout=10).context.get("ecn") == 3
        peer.setsockopt(*option, 2)
        for _ in range(40):  # more than are read in one turn, while nobody receives
            peer.send(b"x")
        server.send(b"answer")
        assert peer.recv(10) == b"answer"
        assert {server.receive(timeout=10).context.get("ecn") for _ in range(40)} == {2}
        server.abort()


@pytest.mark.rfc("P-51")
def test_who_does_not_ask_pays_nothing() -> None:
    with peer_at("127.0.0.1") as (peer, option), client_of(peer, datagrams()) as connection:
        assert connection.get_properties().get("_greentaps.receiveEcn") is False
        assert type(connection.transport._lower) is DatagramTransport
        assert connection.transport.get_protocol() is connection
        peer.setsockopt(*option, 2)
        connection.send(b"x")
        peer.sendto(b"y", peer.recvfrom(10)[1])
        assert connection.receive(timeout=10).context.get("ecn") is None


def test_what_else_a_connection_does_stays_the_same() -> None:
    with peer_at("127.0.0.1") as (peer, _), client_of(peer, asking()) as connection:
        assert type(connection.transport._lower) is MarkedDatagramTransport
        log = Log(connection, ("soft_error", "closed"))
        connection.send(b"hello")
        address = peer.recvfrom(10)[1]
        peer.sendto(b"", address)  # an empty one is one
        assert connection.receive(timeout=10).data == b""
        connection.transport.pause_reading()
        connection.transport.resume_reading()
        peer.close()
        connection.send(b"to nobody")
        until(lambda: log)
        assert isinstance(log[0][1], ConnectionRefusedError)
        connection.close()
        until(lambda: len(log) == 2)
        assert log.names == ["soft_error", "closed"]


def test_over_a_byte_stream_there_is_nothing_to_tell() -> None:
    wishes = TransportProperties().set("_greentaps.receiveEcn", True)
    with listening(wishes) as listener:
        made = Preconnection(local(), remote(port_of(listener)), wishes)
        client = made.initiate(timeout=10)
        server = listener.accept(timeout=10)
        client.send(b"x")
        assert server.receive(1, timeout=10).context.get("ecn") is None
        client.abort()
        server.abort()
