"""Receiving (RFC 9622 section 9.3): one event per Receive, lengths, pieces, back-pressure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, get_overloads

import gevent
import pytest
from greentaps import (
    Connection,
    ConnectionState,
    LengthPrefixFramer,
    Preconnection,
    Reason,
    ReceiveError,
    Timeout,
)
from greentaps.taps import connection as module
from greentaps.taps.properties import INFINITE
from hypothesis import given, settings
from hypothesis import strategies as st
from rfc9622.world import Log, datagram_peer, datagrams, listening, towards
from taps.helpers import (
    in_greenlet,
    local,
    read_all,
    reset,
    until,
    with_plain_peer,
)


def framed(*messages: bytes) -> bytes:
    return b"".join(bytes([len(data)]) + data for data in messages)


def test_to_a_type_checker_a_receive_that_waits_gives_a_message() -> None:
    waiting = get_overloads(Connection.receive)[0].__annotations__
    assert (waiting["wait"], waiting["handler"], waiting["return"]) == (
        "Literal[True]",
        "None",
        "Message",
    )


# -- One event per Receive --


@pytest.mark.rfc("RV-01", "RV-02", "RV-08", "EV-12", "DR-01", "B-02", "MS-25")
def test_requests_are_queued_and_served_in_their_order() -> None:
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        log = Log(connection)
        calls: list[Any] = []
        connection.receive(wait=False)
        connection.receive(handler=lambda *args: calls.append(args))
        connection.receive(wait=False)
        waiting = in_greenlet(connection.receive)
        peer.sendall(framed(b"1", b"2", b"3", b"4", b"5"))
        assert waiting.get().data == b"4"
        until(lambda: len(log) == 2 and calls)
        assert [message.data for (message,) in log.of("received")] == [b"1", b"3"]
        ((told, message, context, end, error),) = calls
        assert (told, message.data, end, error) == (connection, b"2", None, None)
        assert context is message.context
        assert connection.receive(timeout=10).data == b"5"


@pytest.mark.rfc("RV-03")
def test_what_came_before_the_call_comes_first() -> None:
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        log = Log(connection)
        peer.sendall(framed(b"before"))
        until(lambda: connection._inbox.size)
        connection.receive(wait=False)
        peer.sendall(framed(b"after"))
        connection.receive(wait=False)
        until(lambda: len(log) == 2)
        assert [message.data for (message,) in log.of("received")] == [b"before", b"after"]


@pytest.mark.rfc("B-04", "RV-02")
def test_a_request_that_times_out_takes_nothing_with_it() -> None:
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        with pytest.raises(Timeout):
            connection.receive(timeout=0.01)
        killed = in_greenlet(connection.receive)
        following = in_greenlet(connection.receive)
        peer.sendall(framed(b"one", b"two"))
        killed.kill()
        first = following.get()
        second = connection.receive(timeout=10)
        assert [first.data, second.data] == [b"one", b"two"]


@pytest.mark.rfc("RV-04", "MS-16", "TC-13")
def test_without_receive_the_peer_is_held_back() -> None:
    with with_plain_peer() as (connection, peer):
        size = 32 * 1024 * 1024
        sending = in_greenlet(peer.sendall, bytes(size))
        until(lambda: connection._paused)
        held = connection._inbox.size
        for _ in range(20):
            gevent.sleep(0)
        assert connection._inbox.size == held < 1024 * 1024
        assert not sending.ready()
        received = 0
        while received < size:
            received += len(connection.receive(1, timeout=10).data)
        assert sending.get() is None


# -- Lengths --


@pytest.mark.rfc("RV-05", "RV-09", "EV-13", "MS-26", "DR-02")
def test_min_incomplete_length() -> None:
    with with_plain_peer() as (connection, peer):
        waiting = in_greenlet(connection.receive, 10)
        peer.sendall(b"12345")
        until(lambda: connection._inbox.size)
        assert not waiting.ready()
        peer.sendall(b"67890")
        piece = waiting.get()
        assert (piece.data, piece.end_of_message, piece.partial) == (b"1234567890", False, True)
        peer.sendall(b"end")
        peer.close()
        last = connection.receive(10, timeout=10)
        assert (last.data, last.end_of_message) == (b"end", True)


@pytest.mark.rfc("RV-06", "DR-02", "EV-13", "OR-06")
def test_max_length() -> None:
    with with_plain_peer(LengthPrefixFramer(2)) as (connection, peer):
        log = Log(connection)
        peer.sendall((1500).to_bytes(2, "big") + bytes(1500))
        for _ in range(2):
            connection.receive(1, 1000, wait=False)
        until(lambda: len(log) == 2)
        assert log.names == ["received_partial"] * 2
        pieces = [message for (message,) in log.of("received_partial")]
        assert [(len(one), one.end_of_message) for one in pieces] == [(1000, False), (500, True)]
        assert pieces[0].context is pieces[1].context


@pytest.mark.rfc("RV-01", "T-20")
@pytest.mark.parametrize("infinite", [None, math.inf, INFINITE])
def test_both_lengths_are_infinite_by_default(infinite: Any) -> None:
    with with_plain_peer() as (connection, peer):
        waiting = in_greenlet(connection.receive, infinite, infinite)
        peer.sendall(b"all of ")
        until(lambda: connection._inbox.size)
        assert not waiting.ready()
        peer.sendall(b"it")
        peer.close()
        message = waiting.get()
        assert (message.data, message.end_of_message, message.final) == (b"all of it", True, True)


@pytest.mark.rfc("RV-09", "RV-12", "RV-11", "OR-06", "DS-01", "X-04")
def test_a_bare_stream_is_one_message_in_pieces_of_one_context() -> None:
    with with_plain_peer() as (connection, peer):
        log = Log(connection)
        for data in (b"one", b"two"):
            connection.receive(1, wait=False)
            peer.sendall(data)
            until(lambda: connection._requests == [])
        connection.receive(1, wait=False)
        peer.close()
        until(lambda: len(log) == 3)
        assert log.names == ["received_partial"] * 3
        pieces = [message for (message,) in log.of("received_partial")]
        assert [one.data for one in pieces] == [b"one", b"two", b""]
        assert [one.end_of_message for one in pieces] == [False, False, True]
        assert len({id(one.context) for one in pieces}) == 1


@pytest.mark.rfc("RV-11")
def test_a_message_larger_than_what_is_held_comes_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MESSAGE_LIMIT", 300_000)
    with with_plain_peer() as (connection, peer):
        sending = in_greenlet(peer.sendall, bytes(1_000_000))
        piece = connection.receive(timeout=10)
        assert len(piece) + 128 * 100 >= 300_000
        assert (piece.end_of_message, piece.partial) == (False, True)
        received = len(piece)
        while received < 1_000_000:
            received += len(connection.receive(1, timeout=10).data)
        sending.get()


@pytest.mark.rfc("RV-10", "OR-06", "RV-06", "RV-07")
@settings(max_examples=25, deadline=None)
@given(
    messages=st.lists(st.binary(max_size=60), min_size=1, max_size=8),
    cuts=st.lists(st.integers(1, 40), max_size=12),
    asked=st.lists(
        st.tuples(st.integers(1, 30) | st.none(), st.integers(1, 25) | st.none()), max_size=40
    ),
)
def test_pieces_of_a_message_are_contiguous_and_in_order(
    messages: list[bytes], cuts: list[int], asked: list[tuple[int | None, int | None]]
) -> None:
    with joined_framed() as (client, server):
        wire = framed(*messages)
        feed = server.transport.get_protocol().data_received
        for cut in [*cuts, len(wire)]:
            if wire:
                feed(wire[:cut])
                wire = wire[cut:]
        requests = iter(asked)
        for expected in messages:
            data, context = b"", None
            while True:
                minimum, maximum = next(requests, (None, None))
                piece = server.receive(minimum, maximum, timeout=10)
                assert maximum is None or len(piece) <= maximum
                assert context is None or piece.context is context
                data, context = data + piece.data, piece.context
                if piece.end_of_message:
                    break
                assert len(piece) >= min(minimum or math.inf, maximum or math.inf)
            assert data == expected
        assert client.state is ConnectionState.ESTABLISHED


@contextlib.contextmanager
def joined_framed() -> Iterator[tuple[Connection, Connection]]:
    framer = LengthPrefixFramer(1)
    with listening(of=Preconnection(local()).add_framer(framer)) as listener:
        client = towards(listener).add_framer(framer).initiate(timeout=10)
        server = listener.accept(timeout=10)
    try:
        yield client, server
    finally:
        client.abort()
        server.abort()


# -- Errors and ends --


@pytest.mark.rfc("RV-13", "ER-10", "EV-14", "MS-29", "RV-02")
@pytest.mark.parametrize("wait", [True, False])
def test_what_is_not_framed_is_a_receive_error(wait: bool) -> None:
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        log = Log(connection)
        peer.sendall(b"\x09cut")
        if wait:
            waiting = in_greenlet(connection.receive)
            peer.close()
            error = waiting.get()
        else:
            connection.receive(wait=False)
            peer.close()
            until(lambda: log.ended)
            ((error,),) = log.of("receive_error")
        assert isinstance(error, ReceiveError)
        assert error.reason is Reason.DEFRAMING_FAILED
        until(lambda: log.ended)
        assert log.names[-1] == "connection_error"


@pytest.mark.rfc("RV-13", "F-05", "UD-13")
def test_a_datagram_that_is_not_framed_spoils_no_other() -> None:
    framer = LengthPrefixFramer(1)
    wishes = datagrams()
    with listening(of=Preconnection(local(), None, wishes).add_framer(framer)) as listener:
        client = towards(listener, wishes).initiate(timeout=10)
        client.send(framed(b"good", b"two in one"))
        server = listener.accept(timeout=10)
        assert [server.receive(timeout=10).data for _ in range(2)] == [b"good", b"two in one"]
        waiting = in_greenlet(server.receive)
        client.send(b"\x09cut")
        assert waiting.get().reason is Reason.DEFRAMING_FAILED
        client.send(framed(b"again"))
        assert server.receive(timeout=10).data == b"again"
        client.abort()
        server.abort()


@pytest.mark.rfc("RV-14", "RV-16", "P-34", "P-53", "TC-13", "DR-03")
def test_after_the_peers_end_there_is_nothing_to_receive() -> None:
    with with_plain_peer() as (connection, peer):
        log = Log(connection)
        waiting = [in_greenlet(connection.receive, 1) for _ in range(3)]
        peer.sendall(b"last")
        peer.shutdown(1)
        outcomes = [one.get() for one in waiting]
        assert [getattr(one, "data", None) for one in outcomes] == [b"last", b"", None]
        assert outcomes[2].reason is Reason.CLOSED
        assert connection.get_properties().get("canReceive") is False
        with pytest.raises(ReceiveError):
            connection.receive()
        connection.receive(wait=False)
        until(lambda: log)
        assert log.names == ["receive_error"]
        # The other direction is open still.
        connection.send(b"answer")
        assert peer.recv(100) == b"answer"


@pytest.mark.rfc("RV-16", "DR-03", "X-04")
def test_what_is_left_of_a_message_that_was_cut_is_told_from_a_whole_one() -> None:
    with with_plain_peer() as (connection, peer):
        peer.sendall(b"part of")
        first = connection.receive(1, timeout=10)
        waiting = in_greenlet(connection.receive, 1)
        reset(peer)
        assert first.end_of_message is False
        assert waiting.get().reason is Reason.CONNECTION_ABORTED


@pytest.mark.rfc("UD-13", "RV-08", "FM-02")
def test_over_udp_whole_messages_only() -> None:
    with datagram_peer() as (connection, peer):
        connection.send(b"hello")
        _, address = peer.recvfrom(100)
        for data in (b"one", b"", b"three"):
            peer.sendto(data, address)
        received = [connection.receive(1, timeout=10) for _ in range(3)]
        assert [one.data for one in received] == [b"one", b"", b"three"]
        assert all(one.end_of_message and not one.partial for one in received)


@pytest.mark.rfc("TM-08", "MU-21")
def test_nothing_is_received_after_our_close() -> None:
    with with_plain_peer() as (connection, peer):
        log = Log(connection)
        waiting = in_greenlet(connection.receive)
        peer.sendall(b"in flight")
        until(lambda: connection._inbox.size)
        closing = in_greenlet(connection.close)
        assert waiting.get().reason is Reason.CLOSED
        for wait in (True, False):
            if wait:
                with pytest.raises(ReceiveError):
                    connection.receive(1)
            else:
                connection.receive(1, wait=False)
        peer.sendall(b"more")
        read_all(peer)
        peer.close()
        assert closing.get() is None
        until(lambda: log.ended)
        assert log.names == ["receive_error", "closed"]


def test_the_iteration_ends_with_the_stream() -> None:
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        peer.sendall(framed(b"1", b"2"))
        peer.close()
        assert [message.data for message in connection] == [b"1", b"2"]
