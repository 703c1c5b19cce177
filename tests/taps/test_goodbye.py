"""What framers say to the peer before they end a Connection, and framers that have to wait."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import greentaps as taps
import pytest
from conftest import Certificates
from gevent import socket as gsocket
from greentaps import (
    Connection,
    ConnectionState,
    DeframingError,
    Framer,
    LengthPrefixFramer,
    Preconnection,
    Reason,
    ReceiveError,
    SecurityParameters,
)
from greentaps.framers.http1 import Http1Framer
from greentaps.framers.websocket import WebSocketFramer
from greentaps.hub import now
from greentaps.taps import connection as connection_module
from rfc9622.world import Log, datagram_peer, datagrams
from taps.helpers import HERE, local, plain_client, port_of, read_all, remote, until


class Polite(Framer):
    """Ends the Connection with the answer to the first byte it gets."""

    def __init__(self, goodbye: bytes, *, calls: bool = False) -> None:
        self.goodbye = goodbye
        self.calls = calls

    def new_sent_message(self, link: Any, data: Any, context: Any, end: bool) -> None:
        link.send(data)

    def handle_received_data(self, link: Any) -> None:
        link.send_last(self.goodbye)
        if self.calls:
            link.fail_connection(DeframingError("no"))
        else:
            raise DeframingError("no")


@contextlib.contextmanager
def served(*framers: Framer) -> Iterator[tuple[Connection, gsocket.socket]]:
    """A Connection that a Listener has made, and the plain client at its other end."""
    made = Preconnection(local())
    for framer in framers:
        made.add_framer(framer)
    with made.listen() as listener, plain_client(port_of(listener)) as client:
        connection = listener.accept(timeout=10)
        try:
            yield connection, client
        finally:
            connection.abort()


@pytest.mark.rfc("F-01", "MF-05", "RV-13", "ER-10")
@pytest.mark.parametrize("calls", [True, False], ids=["fail_connection", "raises"])
def test_last_words_arrive_though_the_peer_still_sends(calls: bool) -> None:
    words = b"go away: " + bytes(100_000)
    with served(Polite(words, calls=calls)) as (connection, client):
        log = Log(connection)
        client.sendall(b"x" * 50_000)
        with pytest.raises(ReceiveError) as caught:
            connection.receive(timeout=10)
        assert caught.value.reason is Reason.DEFRAMING_FAILED
        client.sendall(b"y" * 50_000)
        assert read_all(client) == words
        client.close()
        until(lambda: connection.state is ConnectionState.CLOSED)
        assert log.names == ["connection_error"]
        with pytest.raises(ReceiveError):
            connection.receive()


def test_leaving_the_block_with_the_error_does_not_cut_them_off() -> None:
    words = bytes(3_000_000)
    with served(Polite(words)) as (connection, client):
        client.sendall(b"x")
        with pytest.raises(ReceiveError), connection:
            connection.receive(timeout=10)
        assert read_all(client) == words


def test_a_peer_that_does_not_read_them_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "GOODBYE_TIMEOUT", 0.3)
    with served(Polite(bytes(30_000_000))) as (connection, client):
        begun = now()
        client.sendall(b"x")
        with pytest.raises(ReceiveError):
            connection.receive(timeout=10)
        until(lambda: connection.state is ConnectionState.CLOSED)
        assert 0.2 < now() - begun < 5


def test_abort_and_close_end_them_at_once_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "GOODBYE_TIMEOUT", 0.5)
    with served(Polite(bytes(30_000_000))) as (connection, client):
        client.sendall(b"x")
        with pytest.raises(ReceiveError):
            connection.receive(timeout=10)
        assert connection.state is ConnectionState.CLOSING
        connection.abort()
        until(lambda: connection.state is ConnectionState.CLOSED)
    with served(Polite(b"bye")) as (connection, client):
        client.sendall(b"x")
        with pytest.raises(ReceiveError):
            connection.receive(timeout=10)
        connection.close(timeout=10)
        assert connection.state is ConnectionState.CLOSED
        assert read_all(client) == b"bye"


def test_through_another_framer() -> None:
    ours, theirs = Polite(b"words"), LengthPrefixFramer(1)
    with served(theirs, ours) as (connection, peer):
        peer.sendall(b"\x03abc")
        with pytest.raises(ReceiveError):
            connection.receive(timeout=10)
        assert read_all(peer) == b"\x05words"


def test_over_tls(certificates: Certificates) -> None:
    security = SecurityParameters().add_identity(certificates.server, role="server")
    listening = Preconnection(local(), security_parameters=security)
    with listening.add_framer(Polite(bytes(200_000))).listen() as listener:
        client = Preconnection(
            remote_endpoint=remote(port_of(listener)),
            security_parameters=SecurityParameters().add_trust_ca(certificates.ca),
        ).initiate(timeout=10)
        server = listener.accept(timeout=10)
        client.send(b"x" * 100_000)
        with pytest.raises(ReceiveError), server:
            server.receive(timeout=10)
        message = client.receive(timeout=10)
        assert message.data == bytes(200_000)
        assert message.end_of_message
        client.close()
        until(lambda: server.state is ConnectionState.CLOSED)


# -- The framers that have something to say --


@pytest.mark.rfc("MF-05")
def test_a_bad_request_is_answered() -> None:
    pytest.importorskip("h11")
    with served(Http1Framer("server")) as (connection, client):
        client.sendall(b"rubbish\r\n\r\n" + bytes(200_000))
        with pytest.raises(ReceiveError), connection:
            connection.receive(timeout=10)
        answer = read_all(client)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert answer.endswith(b"\r\n\r\n")


@pytest.mark.rfc("MF-05")
def test_a_websocket_says_why_it_closes() -> None:
    pytest.importorskip("wsproto")
    framer = WebSocketFramer("server", max_length=10)
    listening = Preconnection(local()).add_framer(framer)
    with listening.listen() as listener, plain_client(port_of(listener)) as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        connection = listener.accept(timeout=10)
        client.sendall(b"\x82\xff" + (100_000).to_bytes(8) + bytes(4) + bytes(100_000))
        with pytest.raises(ReceiveError), connection:
            connection.receive(timeout=10)
        assert (1009).to_bytes(2) in read_all(client)


@pytest.mark.rfc("MF-05")
def test_a_refused_handshake_is_answered_through_the_listener() -> None:
    pytest.importorskip("wsproto")
    framer = WebSocketFramer("server", accept=lambda target, headers: False)
    listening = Preconnection(local()).add_framer(framer)
    with listening.listen() as listener, plain_client(port_of(listener)) as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert read_all(client).startswith(b"HTTP/1.1 403 ")
        with pytest.raises(taps.Timeout):
            listener.accept(timeout=0.05)


# -- Framers that wait --


class Asking(Framer):
    """Asks somebody else about each Message of one byte before it takes the next."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, bytes]] = []
        self.called = 0
        self.ended = False

    def new_sent_message(self, link: Any, data: Any, context: Any, end: bool) -> None:
        link.send(data)

    def handle_received_data(self, link: Any) -> None:
        self.called += 1
        byte = link.take(1)
        if byte == b".":  # needs nobody
            link.resume_receiving()  # was not paused
            link.pause_receiving()
            link.resume_receiving()
            link.deliver(None, byte)
            return
        link.pause_receiving()
        link.pause_receiving()  # twice is once
        self.asked.append((link, byte))

    def handle_end(self, link: Any) -> None:
        self.ended = True

    def answer(self) -> None:
        link, byte = self.asked.pop(0)
        link.deliver(None, byte.upper())
        link.resume_receiving()


@pytest.mark.rfc("RV-04", "MF-06")
def test_a_framer_that_waits_holds_the_peer_back() -> None:
    framer = Asking()
    with served(framer) as (connection, client):
        client.sendall(b"a..b")
        until(lambda: framer.asked)
        assert framer.called == 1
        # The peer is stuck with all that does not fit into the kernel, and nothing grows here.
        client.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 200_000_000:
                sent += client.send(bytes(1_000_000))
                gevent.sleep(0)
        assert sent < 100_000_000
        assert connection._framers.held < 200_000
        framer.answer()
        assert [connection.receive(timeout=10).data for _ in range(3)] == [b"A", b".", b"."]
        until(lambda: framer.asked)
        assert framer.asked[0][1] == b"b"
        framer.answer()
        assert connection.receive(timeout=10).data == b"B"


def test_the_end_of_the_stream_waits_too() -> None:
    framer = Asking()
    with served(framer) as (connection, client):
        client.sendall(b"ab")
        client.shutdown(socket.SHUT_WR)
        for byte in (b"A", b"B"):
            until(lambda: framer.asked)
            gevent.sleep(0.02)
            assert not framer.ended
            framer.answer()
            assert connection.receive(timeout=10).data == byte
        with pytest.raises(ReceiveError) as caught:
            connection.receive(timeout=10)
        assert caught.value.reason is Reason.CLOSED
        assert framer.ended


def test_a_connection_can_be_ended_while_its_framer_waits() -> None:
    framer = Asking()
    with served(framer) as (connection, client):
        client.sendall(b"ab")
        until(lambda: framer.asked)
        with pytest.raises(taps.Timeout):
            connection.receive(timeout=0.02)
        connection.close(timeout=10)
        assert connection.state is ConnectionState.CLOSED
        framer.answer()  # too late, and no harm
        assert framer.called <= 2


def test_where_nothing_can_be_held_back() -> None:
    framer = Asking()
    with served(LengthPrefixFramer(1), framer) as (connection, client):
        client.sendall(b"\x01a")
        with pytest.raises(ReceiveError, match="lowest"):
            connection.receive(timeout=10)
    made = Preconnection(
        remote_endpoint=taps.RemoteEndpoint().with_ip_address(HERE).with_port(9),
        transport_properties=datagrams(),
    ).add_framer(framer)
    with made.initiate(timeout=10) as connection, pytest.raises(RuntimeError, match="lowest"):
        connection._framers.lowest.pause_receiving()


def test_nothing_changes_for_datagrams() -> None:
    with datagram_peer() as (connection, peer):
        connection.send(b"x")
        assert peer.recv(10) == b"x"
