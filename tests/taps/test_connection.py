"""The blocking Connection: that nothing hangs, nothing is lost, and every end has its reason."""

from __future__ import annotations

import builtins
import contextlib
import gc
import os
import socket
import threading
import weakref
from typing import Any

import gevent
import greentaps
import pytest
from conftest import Certificates
from greentaps import (
    ConnectionError,  # noqa: A004 - RFC 9622's own name
    ConnectionState,
    LengthPrefixFramer,
    MessageContext,
    Preconnection,
    Reason,
    ReceiveError,
    SendError,
    SwitchpointError,
    Timeout,
    TransportError,
)
from greentaps.hub import get_runner
from greentaps.taps import connection as connection_module
from greentaps.testing import pattern
from peers import script
from taps.helpers import (
    Stopwatch,
    ended_by_us,
    in_greenlet,
    outcome,
    pair,
    plain_client,
    port_of,
    read_all,
    read_exactly,
    reset,
    until,
    with_plain_peer,
)
from taps.helpers import local as local_end

MEGABYTE = 1024 * 1024
# More than the buffers of both kernels, and of a small peer, can hold.
TOO_MUCH = 16 * MEGABYTE


def final() -> MessageContext:
    return MessageContext().add("final", True)


# -- There and back --


@pytest.mark.rfc("RV-08", "RV-09", "SN-01")
def test_a_stream_is_one_message_that_comes_in_pieces_or_whole(
    stack: str, certificates: Certificates
) -> None:
    with pair(stack, certificates) as (client, server):
        client.send(b"one ")
        piece = server.receive(min_incomplete_length=1)
        assert (piece.data, piece.end_of_message) == (b"one ", False)
        client.send(b"two", final())
        rest = server.receive()
        assert (rest.data, rest.end_of_message) == (b"two", True)
        assert rest.context is piece.context


def test_both_ways_at_once(stack: str, certificates: Certificates) -> None:
    data = pattern(3 * MEGABYTE)
    with pair(stack, certificates) as (client, server):
        senders = [in_greenlet(end.send, data, final()) for end in (client, server)]
        assert client.receive().data == data
        assert server.receive().data == data
        assert all(isinstance(one.get(), MessageContext) for one in senders)


@pytest.mark.rfc("F-01", "L-08", "MS-25")
def test_framed_messages_keep_their_boundaries(stack: str, certificates: Certificates) -> None:
    messages = [b"", b"a", b"bc" * 40_000, b"", pattern(300_000)]
    with pair(stack, certificates, LengthPrefixFramer()) as (client, server):
        for data in messages:
            sender = in_greenlet(client.send, data)
            message = server.receive()
            assert (message.data, message.end_of_message) == (data, True)
            assert sender.get() is None


def test_all_kinds_of_buffers_can_be_sent_and_changed_afterwards(
    stack: str, certificates: Certificates
) -> None:
    with pair(stack, certificates) as (client, server):
        buffer = bytearray(b"bytearray ")
        client.send(buffer)
        buffer[:] = b"XXXXXXXXXX"
        client.send(memoryview(b"memoryview "))
        client.send(b"bytes", final())
        assert server.receive().data == b"bytearray memoryview bytes"


@pytest.mark.parametrize("wrong", ["text", None, 7, 1.5, [b"x"], object()])
def test_other_things_cannot_be_sent(stack: str, certificates: Certificates, wrong: object) -> None:
    with pair(stack, certificates) as (client, server):
        with pytest.raises(TypeError):
            client.send(wrong)  # type: ignore[arg-type]
        client.send(b"still good")
        assert server.receive(1).data == b"still good"


@pytest.mark.parametrize("wrong", ["text", None, 7])
def test_other_things_cannot_be_sent_through_a_framer(
    certificates: Certificates, wrong: object
) -> None:
    with pair("tcp", certificates, LengthPrefixFramer()) as (client, server):
        with pytest.raises(TypeError):
            client.send(wrong)  # type: ignore[arg-type]
        client.send(b"still good")
        assert server.receive().data == b"still good"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [("1", TypeError), (1.0, TypeError), (True, TypeError), (0, ValueError), (-1, ValueError)],
)
@pytest.mark.parametrize("name", ["min_incomplete_length", "max_length"])
def test_wrong_lengths(
    certificates: Certificates, name: str, wrong: object, error: type[Exception]
) -> None:
    with pair("tcp", certificates) as (client, server):
        client.send(b"data")
        with pytest.raises(error):
            server.receive(**{name: wrong})  # type: ignore[arg-type]
        assert server.receive(1).data == b"data"


@pytest.mark.parametrize("wrong", ["1", True, -1, float("nan")])
def test_wrong_timeouts_of_close(certificates: Certificates, wrong: object) -> None:
    with pair("tcp", certificates) as (client, _), pytest.raises((TypeError, ValueError)):
        client.close(timeout=wrong)  # type: ignore[arg-type]


# -- Lengths --


@pytest.mark.rfc("RV-03", "RV-04")
@pytest.mark.parametrize("framed", [False, True])
def test_no_more_than_the_maximum_comes(certificates: Certificates, framed: bool) -> None:
    framers = [LengthPrefixFramer()] if framed else []
    with pair("tcp", certificates, *framers) as (client, server):
        client.send(b"0123456789", final())
        pieces = [server.receive(max_length=4) for _ in range(3)]
        assert [piece.data for piece in pieces] == [b"0123", b"4567", b"89"]
        assert [piece.end_of_message for piece in pieces] == [False, False, True]


@pytest.mark.rfc("RV-05")
def test_a_minimum_is_waited_for_and_the_end_ends_the_wait(certificates: Certificates) -> None:
    with pair("tcp", certificates) as (client, server):
        receiver = in_greenlet(server.receive, 5)
        client.send(b"1234")
        with pytest.raises(Timeout):
            server.receive(timeout=0.02)
        assert not receiver.ready()
        client.send(b"5")
        assert receiver.get().data == b"12345"
        receiver = in_greenlet(server.receive, 5)
        client.send(b"67", final())
        last = receiver.get()
        assert (last.data, last.end_of_message) == (b"67", True)


def test_a_minimum_above_the_maximum_is_a_maximum(certificates: Certificates) -> None:
    with pair("tcp", certificates) as (client, server):
        client.send(b"0123456789")
        assert server.receive(min_incomplete_length=8, max_length=4).data == b"0123"
        client.send(b"x", final())
        assert server.receive(min_incomplete_length=8, max_length=4).data == b"4567"
        assert server.receive(min_incomplete_length=8, max_length=4).data == b"89x"


def test_a_minimum_larger_than_the_inbox_is_reached(stack: str, certificates: Certificates) -> None:
    data = pattern(2 * MEGABYTE)
    with pair(stack, certificates) as (client, server):
        sender = in_greenlet(client.send, data)
        until(lambda: not server.transport._reading)  # the inbox is full
        message = server.receive(min_incomplete_length=len(data))
        assert message.data == data
        assert sender.get() is None


def test_a_message_too_long_for_memory_comes_in_pieces(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MESSAGE_LIMIT", 200_000)
    data = pattern(3 * MEGABYTE)
    with pair("tcp", certificates, LengthPrefixFramer()) as (client, server):
        sender = in_greenlet(client.send, data)
        pieces = []
        while not pieces or not pieces[-1].end_of_message:
            pieces.append(server.receive())
        assert b"".join(piece.data for piece in pieces) == data
        assert len(pieces) > 1
        # One read more than the limit, at most.
        assert max(map(len, pieces)) < 200_000 + 2 * 65536 + 131072
        assert sender.get() is None


@pytest.mark.rfc("MC-04", "MC-05")
def test_pieces_of_one_message_share_a_context_and_the_next_has_another(
    certificates: Certificates,
) -> None:
    with pair("tcp", certificates, LengthPrefixFramer()) as (client, server):
        client.send(b"first one")
        client.send(b"second")
        begin, rest = server.receive(max_length=5), server.receive()
        second = server.receive()
        assert (begin.data, rest.data, second.data) == (b"first", b" one", b"second")
        assert begin.context is rest.context
        assert second.context is not rest.context
        assert second.context is second.context
        remote, local = second.context.get_remote_endpoint(), second.context.get_local_endpoint()
        assert remote is not None
        assert local is not None
        assert client.local_endpoint is not None
        assert (remote.ip_address, remote.port) == ("127.0.0.1", client.local_endpoint.port)
        assert server.local_endpoint is not None
        assert local.port == server.local_endpoint.port


# -- Several receivers, and broken-off ones --


@pytest.mark.rfc("RV-02")
def test_receivers_are_served_in_their_order(stack: str, certificates: Certificates) -> None:
    with pair(stack, certificates, LengthPrefixFramer()) as (client, server):
        receivers = [in_greenlet(server.receive) for _ in range(5)]
        for number in range(5):
            client.send(bytes([number]))
        assert [one.get().data for one in receivers] == [bytes([number]) for number in range(5)]


def test_a_late_receiver_does_not_overtake(certificates: Certificates) -> None:
    """One who could be served at once, but for somebody in front who wants more."""
    with pair("tcp", certificates) as (client, server):
        first = in_greenlet(server.receive, 4, 4)
        client.send(b"ab")
        until(lambda: _came_in(server, 2))
        second = in_greenlet(server.receive, 1)
        client.send(b"cdef")
        assert first.get().data == b"abcd"
        assert second.get().data == b"ef"


def test_a_receiver_behind_one_that_gives_up_is_served(certificates: Certificates) -> None:
    with pair("tcp", certificates) as (client, server):
        first = in_greenlet(server.receive, 100)
        client.send(b"ab")
        until(lambda: _came_in(server, 2))
        second = in_greenlet(server.receive, 1, timeout=1)
        first.kill()
        assert second.get().data == b"ab"


def _came_in(connection: greentaps.Connection, size: int) -> bool:
    """Whether the kernel has nothing more for us: what the peer sent is in the inbox."""
    handle = connection.transport.get_extra_info("handle")
    with socket.socket(fileno=os.dup(handle.fileno())) as probe:
        try:
            return not probe.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True


@pytest.mark.parametrize("framed", [False, True])
def test_a_message_on_its_way_to_a_killed_receiver_goes_to_the_next(
    certificates: Certificates, framed: bool
) -> None:
    framers = [LengthPrefixFramer(1)] if framed else []
    with pair("tcp", certificates, *framers) as (_, server):
        killed = in_greenlet(server.receive, 1)
        killed.kill(block=False)
        server.transport.get_protocol().data_received(b"\x04data" if framed else b"data")
        killed.join()
        assert isinstance(killed.value, gevent.GreenletExit)
        assert server.receive(1, timeout=5).data == b"data"


def test_two_killed_receivers_leave_their_messages_in_order(certificates: Certificates) -> None:
    with pair("tcp", certificates, LengthPrefixFramer(1)) as (_, server):
        killed = [in_greenlet(server.receive) for _ in range(3)]
        gevent.killall(killed, block=False)
        server.transport.get_protocol().data_received(b"\x011\x012\x013")
        gevent.joinall(killed)
        assert [server.receive(timeout=5).data for _ in range(3)] == [b"1", b"2", b"3"]


def test_a_time_out_loses_nothing(stack: str, certificates: Certificates) -> None:
    with pair(stack, certificates, LengthPrefixFramer()) as (client, server):
        with pytest.raises(Timeout), Stopwatch() as took:
            server.receive(timeout=0.05)
        assert 0.04 < took.seconds < 5
        client.send(b"later")
        assert server.receive(timeout=5).data == b"later"
        with pytest.raises(Timeout):
            server.receive(timeout=0)


def test_gevents_time_out_and_kill_lose_nothing(stack: str, certificates: Certificates) -> None:
    with pair(stack, certificates, LengthPrefixFramer()) as (client, server):
        with gevent.Timeout(0.02, False):
            server.receive()
        killed = in_greenlet(server.receive)
        killed.kill()
        client.send(b"for the next")
        assert server.receive(timeout=5).data == b"for the next"


# -- Iteration --


def test_iteration_gives_all_messages_and_ends(stack: str, certificates: Certificates) -> None:
    with pair(stack, certificates, LengthPrefixFramer()) as (client, server):
        for number in range(10):
            client.send(b"%d" % number)
        client.close()
        assert [message.data for message in server] == [b"%d" % number for number in range(10)]
        assert list(server) == []


def test_iteration_over_a_stream_gives_it_whole(certificates: Certificates) -> None:
    with pair("tcp", certificates) as (client, server):
        client.send(b"all ")
        client.send(b"of it", final())
        assert [bytes(message) for message in server] == [b"all of it"]


def test_iteration_does_not_hide_a_failure() -> None:
    with with_plain_peer(LengthPrefixFramer()) as (connection, peer):
        peer.sendall(b"\0\0\0\1x\0\0\0\2x")
        assert connection.receive().data == b"x"
        reset(peer)
        with pytest.raises(ConnectionError):
            list(connection)


# -- The peer ends --


@pytest.mark.rfc("TM-06", "ER-11")
def test_a_reset_in_the_middle_of_a_message() -> None:
    with with_plain_peer(LengthPrefixFramer()) as (connection, peer):
        receiver = in_greenlet(connection.receive)
        peer.sendall(b"\0\0\0\5ab")
        reset(peer)
        error = receiver.get()
        assert type(error) is ConnectionError
        assert error.reason is Reason.CONNECTION_ABORTED
        assert isinstance(error, builtins.ConnectionError)
        assert isinstance(error.__cause__, ConnectionResetError)
        assert isinstance(error.__cause__, TransportError)
        # For ever the same, but each time another object.
        for _ in range(2):
            again = outcome(connection.receive)
            assert type(again) is type(error)
            assert again is not error
            assert (again.reason, again.__cause__) == (error.reason, error.__cause__)
        refused = outcome(connection.send, b"x")
        assert (type(refused), refused.reason) == (ConnectionError, Reason.CONNECTION_ABORTED)
        assert connection.state is ConnectionState.CLOSED
        connection.close()  # nothing left to do


@pytest.mark.peer
def test_a_reset_by_another_process() -> None:
    with (
        Preconnection(local_end()).listen() as listener,
        script("client", "127.0.0.1", port_of(listener), "reset") as peer,
    ):
        connection = listener.accept(timeout=20)
        peer.wait_for("connected")
        assert connection.receive(11, timeout=20).data == b"half a mess"
        peer.say(b"now\n")
        with pytest.raises(ConnectionError) as caught:
            connection.receive(timeout=20)
        assert caught.value.reason is Reason.CONNECTION_ABORTED
        assert peer.wait() == 0


@pytest.mark.rfc("ER-10", "RV-13", "X-04")
@pytest.mark.parametrize("part", [b"\0", b"\0\0\0\5", b"\0\0\0\5abcd", b"\0\0\0\1x\0\0\0\2y"])
def test_an_end_in_the_middle_of_a_framed_message(part: bytes) -> None:
    with with_plain_peer(LengthPrefixFramer()) as (connection, peer):
        peer.sendall(part)
        peer.close()
        if part.startswith(b"\0\0\0\1"):
            assert connection.receive(timeout=5).data == b"x"
        for _ in range(2):
            with pytest.raises(ReceiveError) as caught:
                _receive_pieces(connection)
            assert caught.value.reason is Reason.DEFRAMING_FAILED


def _receive_pieces(connection: greentaps.Connection) -> None:
    """Receive until it fails; no piece may be taken for the end of the Message."""
    while True:
        assert not connection.receive(timeout=5).end_of_message


def test_a_message_that_is_longer_than_allowed_ends_the_connection() -> None:
    with with_plain_peer(LengthPrefixFramer(max_length=10)) as (connection, peer):
        peer.sendall(b"\0\0\0\2ok\xff\xff\xff\xffgarbage")
        assert connection.receive(timeout=5).data == b"ok"
        with pytest.raises(ReceiveError) as caught:
            connection.receive(timeout=5)
        assert caught.value.reason is Reason.DEFRAMING_FAILED
        assert ended_by_us(peer)
        with pytest.raises((SendError, ReceiveError, ConnectionError)):
            connection.send(b"x")


def test_too_long_a_message_cannot_be_sent_and_harms_nothing(certificates: Certificates) -> None:
    with pair("tcp", certificates, LengthPrefixFramer(1)) as (client, server):
        with pytest.raises(SendError) as caught:
            client.send(bytes(256))
        assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
        client.send(bytes(255))
        assert server.receive(timeout=5).data == bytes(255)


@pytest.mark.rfc("TM-05", "A-17", "P-34")
def test_after_the_peers_end_we_may_still_send() -> None:
    with with_plain_peer() as (connection, peer):
        peer.sendall(b"question")
        peer.shutdown(socket.SHUT_WR)
        message = connection.receive(timeout=5)
        assert (message.data, message.end_of_message) == (b"question", True)
        for _ in range(3):
            with pytest.raises(ReceiveError) as caught:
                connection.receive(timeout=5)
            assert caught.value.reason is Reason.CLOSED
        connection.send(b"answer")
        connection.close()
        assert read_all(peer) == b"answer"


@pytest.mark.rfc("P-45", "P-33", "A-17", "SN-14")
def test_a_final_message_half_closes(stack: str, certificates: Certificates) -> None:
    with pair(stack, certificates) as (client, server):
        client.send(b"the last", final())
        with pytest.raises(SendError):
            client.send(b"one more")
        assert client.get_properties()["canSend"] is False
        assert client.state is ConnectionState.ESTABLISHED
        assert server.receive(timeout=5).data == b"the last"
        server.send(b"still heard")
        assert client.receive(1, timeout=5).data == b"still heard"
        assert server.get_properties()["canReceive"] is False
        server.send(b"!", final())
        assert client.receive(timeout=5).data == b"!"


def test_an_end_without_any_data() -> None:
    with with_plain_peer() as (connection, peer):
        peer.close()
        message = connection.receive(timeout=5)
        assert (message.data, message.end_of_message) == (b"", True)
        with pytest.raises(ReceiveError):
            connection.receive(timeout=5)


def test_what_came_before_a_reset_can_still_be_received() -> None:
    with with_plain_peer(LengthPrefixFramer()) as (connection, peer):
        peer.sendall(b"\0\0\0\1a\0\0\0\1b")
        assert connection.receive(timeout=5).data == b"a"  # both are here now
        reset(peer)
        connection.transport.wait_closed(timeout=5)
        assert connection.receive(timeout=5).data == b"b"
        with pytest.raises(ConnectionError):
            connection.receive(timeout=5)


def test_truncated_tls_is_no_proper_end(certificates: Certificates) -> None:
    """Without a close_notify somebody else may have cut the stream."""
    with pair("tls", certificates) as (client, server):
        client.send(b"half of it")
        assert server.receive(1, timeout=5).data == b"half of it"
        handle = client.transport.get_extra_info("handle") or client.transport._lower._handle
        with socket.socket(fileno=os.dup(handle.fileno())) as raw:
            raw.shutdown(socket.SHUT_WR)
        with pytest.raises((ConnectionError, ReceiveError)) as caught:
            server.receive(timeout=5)
        assert caught.value.reason is not Reason.CLOSED


# -- We end --


@pytest.mark.rfc("TM-01", "TM-08", "TT-15")
def test_close_delivers_all_to_a_slow_reader() -> None:
    data = pattern(10 * MEGABYTE)
    with with_plain_peer(small=True) as (connection, peer):
        with pytest.raises(Timeout):
            connection.send(data, timeout=0.05)
        closer = in_greenlet(connection.close, timeout=None)
        received = []
        while piece := peer.recv(50_000):
            received.append(piece)
            gevent.sleep(0)
        assert b"".join(received) == data
        assert closer.get() is None
        assert connection.state is ConnectionState.CLOSED


@pytest.mark.rfc("TM-05")
def test_close_may_be_repeated_and_everything_after_it_says_so(
    stack: str, certificates: Certificates
) -> None:
    with pair(stack, certificates) as (client, server):
        client.send(b"bye")
        client.close()
        client.close()
        assert client.state is ConnectionState.CLOSED
        for _ in range(2):
            with pytest.raises(SendError) as refused:
                client.send(b"x")
            assert refused.value.reason is Reason.CLOSED
            with pytest.raises(ReceiveError) as ended:
                client.receive()
            assert ended.value.reason is Reason.CLOSED
        assert server.receive(timeout=5).data == b"bye"
        properties = client.get_properties()
        assert properties["connState"] is ConnectionState.CLOSED
        assert not properties["canSend"]
        assert not properties["canReceive"]


def test_close_in_several_greenlets(certificates: Certificates) -> None:
    with pair("tcp", certificates) as (client, _):
        closers = [in_greenlet(client.close) for _ in range(3)]
        assert [one.get() for one in closers] == [None] * 3


def test_close_wakes_receivers(stack: str, certificates: Certificates) -> None:
    with pair(stack, certificates) as (client, _):
        receivers = [in_greenlet(client.receive) for _ in range(2)]
        client.close()
        assert [one.get().reason for one in receivers] == [Reason.CLOSED] * 2


def test_a_peer_that_stops_reading_does_not_hold_us() -> None:
    with with_plain_peer(small=True) as (connection, peer):
        with pytest.raises(Timeout), Stopwatch() as took:
            connection.send(bytes(TOO_MUCH), timeout=0.1)
        assert took.seconds < 5
        # It waits in front of whatever comes next.
        with pytest.raises(Timeout):
            connection.send(b"x", timeout=0.05)
        with pytest.raises(ConnectionError) as caught, Stopwatch() as took:
            connection.close(timeout=0.1)
        assert caught.value.reason is Reason.TIMEOUT
        assert took.seconds < 5
        assert connection.state is ConnectionState.CLOSED
        assert ended_by_us(peer)


def test_a_peer_that_stops_reading_does_not_hold_tls(certificates: Certificates) -> None:
    with pair("tls", certificates, LengthPrefixFramer()) as (client, server):
        with pytest.raises(Timeout):
            client.send(bytes(TOO_MUCH * 3), timeout=0.3)
        with pytest.raises(ConnectionError) as caught, Stopwatch() as took:
            client.close(timeout=0.1)
        assert caught.value.reason is Reason.TIMEOUT
        assert took.seconds < 5
        with pytest.raises((ConnectionError, ReceiveError)):
            server.receive(timeout=10)


def test_a_message_whose_send_timed_out_arrives_once(certificates: Certificates) -> None:
    data = pattern(TOO_MUCH)
    with with_plain_peer(small=True) as (connection, peer):
        with pytest.raises(Timeout):
            connection.send(data, timeout=0.05)
        sender = in_greenlet(connection.send, b"behind it")
        assert read_exactly(peer, len(data)) == data
        assert read_exactly(peer, 9) == b"behind it"
        assert sender.get() is None


def test_a_killed_sender_leaves_a_whole_message() -> None:
    data = pattern(TOO_MUCH)
    with with_plain_peer(small=True) as (connection, peer):
        killed = in_greenlet(connection.send, data)
        with gevent.Timeout(0.02, False):
            connection.send(b"two")
        killed.kill()
        reader = gevent.spawn(read_all, peer)
        connection.send(b"three", timeout=20)
        connection.close()
        assert reader.get() == data + b"two" + b"three"


@pytest.mark.rfc("TM-02", "TM-03")
def test_abort_wakes_everybody_with_its_own_reason() -> None:
    with with_plain_peer(small=True) as (connection, peer):
        receivers = [in_greenlet(connection.receive) for _ in range(2)]
        senders = [in_greenlet(connection.send, bytes(TOO_MUCH)) for _ in range(2)]
        connection.abort()
        for waiter in (*receivers, *senders):
            error = waiter.get()
            assert type(error) is ConnectionError
            assert error.reason is Reason.LOCAL_ABORT
        for _ in range(2):
            assert outcome(connection.receive).reason is Reason.LOCAL_ABORT
            assert outcome(connection.send, b"x").reason is Reason.LOCAL_ABORT
        connection.abort()
        connection.close()
        assert connection.state is ConnectionState.CLOSED
        with pytest.raises(ConnectionResetError):
            read_all(peer)


def test_abort_wakes_a_close_that_waits() -> None:
    with with_plain_peer(small=True) as (connection, _):
        with pytest.raises(Timeout):
            connection.send(bytes(TOO_MUCH), timeout=0.02)
        closer = in_greenlet(connection.close, None)
        connection.abort()
        error = closer.get()
        assert type(error) is ConnectionError
        assert error.reason is Reason.LOCAL_ABORT


def test_a_broken_off_close_closes_all_the_same() -> None:
    with with_plain_peer(small=True) as (connection, peer):
        with pytest.raises(Timeout):
            connection.send(pattern(TOO_MUCH), timeout=0.02)
        with gevent.Timeout(0.02, False):
            connection.close(None)
        killed = in_greenlet(connection.close, None)
        killed.kill()
        assert read_all(peer) == pattern(TOO_MUCH)
        connection.close(10)
        assert connection.state is ConnectionState.CLOSED


def test_the_peer_sees_what_abort_is(stack: str, certificates: Certificates) -> None:
    with pair(stack, certificates) as (client, server):
        client.abort()
        with pytest.raises(ConnectionError) as caught:
            server.receive(timeout=5)
        assert caught.value.reason in (Reason.CONNECTION_ABORTED, Reason.PROTOCOL_FAILED)


def test_the_with_statement_closes_or_aborts() -> None:
    with with_plain_peer() as (connection, peer):
        with connection:
            connection.send(b"done")
        assert connection.state is ConnectionState.CLOSED
        assert read_all(peer) == b"done"
    with with_plain_peer() as (connection, peer):
        with pytest.raises(KeyError), connection:
            raise KeyError
        with pytest.raises(ConnectionResetError):
            read_all(peer)


def test_close_while_the_peer_sends_is_no_reset_to_it() -> None:
    """Unread data would turn our end into a reset, and destroy what we sent last."""
    with with_plain_peer() as (connection, peer):
        peer.sendall(b"x" * 50_000)
        connection.receive(1, timeout=5)
        connection.send(b"last words")
        connection.close()
        assert read_all(peer) == b"last words"


# -- Back-pressure --


def _send_until_stuck(peer: Any, block: bytes) -> int:
    """Send *block* over and over until the other end takes no more; how many bytes went."""
    sent = 0
    peer.settimeout(0.3)  # no longer than this does it take to find the kernel willing again
    with contextlib.suppress(TimeoutError):
        while sent < TOO_MUCH:
            sent += peer.send(block[sent % len(block) :] + block * (65536 // len(block)))
    return sent


@pytest.mark.parametrize("framed", [False, True])
def test_a_receiver_that_sleeps_stops_the_sender(framed: bool) -> None:
    """The inbox is bounded, whatever the peer sends; and all arrives when it is wanted."""
    framers = [LengthPrefixFramer()] if framed else []
    with with_plain_peer(*framers, small=True) as (connection, peer):
        block = b"\0\0\4\0" + bytes(1024) if framed else bytes(1028)
        sent = _send_until_stuck(peer, block)
        assert sent < TOO_MUCH
        peer.settimeout(20)
        rest = -sent % 1028
        sender = gevent.spawn(peer.sendall, block[-rest:] if rest else b"")
        received = 0
        while received < (sent + rest) // 1028 * (1024 if framed else 1028):
            received += len(connection.receive(1, timeout=10))
        sender.get()
        peer.sendall(block)
        assert connection.receive(1, timeout=10).data


def test_many_tiny_messages_are_bounded_too() -> None:
    """An empty Message takes memory as well, although it has no bytes."""
    with with_plain_peer(LengthPrefixFramer(1), small=True) as (_, peer):
        assert _send_until_stuck(peer, b"\0") < TOO_MUCH


def test_memory_comes_back(certificates: Certificates) -> None:
    """A Connection that has ended and is forgotten is gone, with all that it held."""
    with pair("tcp", certificates) as (client, server):
        client.send(b"x" * 1000)
        server.receive(1, timeout=5)
        gone = [weakref.ref(client), weakref.ref(server)]
        client.close()
        server.close()
        del client, server
    gevent.sleep(0)
    gc.collect()
    assert [one() for one in gone] == [None, None]


# -- Where it must not be called --


def test_in_a_callback_every_blocking_call_is_refused(certificates: Certificates) -> None:
    with pair("tcp", certificates) as (client, _):
        found = gevent.event.AsyncResult()

        def callback() -> None:
            calls = (
                client.receive,
                client.close,
                lambda: client.send(b"x"),
            )
            found.set([outcome(call) for call in calls])

        get_runner().call_soon(callback)
        errors = found.get()
        assert [type(error) for error in errors] == [SwitchpointError] * 3
        assert client.state is ConnectionState.ESTABLISHED
        for error, name in zip(errors, ("receive", "close", "send"), strict=True):
            assert name in str(error)


def test_calls_from_another_thread_are_refused(certificates: Certificates) -> None:
    with pair("tcp", certificates) as (client, _):
        found = []

        def elsewhere() -> None:
            found.append(outcome(client.receive))
            gevent.get_hub().destroy(destroy_loop=True)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert isinstance(found[0], SwitchpointError)


# -- What it says about itself --


@pytest.mark.rfc("CM-02", "CM-05", "CM-06", "P-32", "TT-01", "TP-08")
def test_properties_of_an_established_connection(stack: str, certificates: Certificates) -> None:
    with pair(stack, certificates) as (client, server):
        for end in (client, server):
            found = end.get_properties()
            assert found["reliability"] is True
            assert found["preserveOrder"] is True
            assert found["preserveMsgBoundaries"] is False
            assert found["multistreaming"] is False
            assert found["connState"] is ConnectionState.ESTABLISHED
            assert found["canSend"] is True
            assert found["canReceive"] is True
        assert client.stack == server.stack == ("tls/tcp" if stack == "tls" else "tcp")
        assert client.local_endpoint is not None
        assert server.remote_endpoint is not None
        assert client.local_endpoint.port == server.remote_endpoint.port
        assert all(seconds >= 0 for _, seconds in client.phases)
        assert "127.0.0.1" in repr(client)
        assert "established" in repr(client)


def test_endpoints_outlive_the_connection(certificates: Certificates) -> None:
    with pair("tcp", certificates) as (client, _):
        local, remote = client.local_endpoint, client.remote_endpoint
        client.close()
        assert (client.local_endpoint, client.remote_endpoint) == (local, remote)
        assert "closed" in repr(client)


# -- Peers that are not ours --


@pytest.mark.peer
@pytest.mark.rfc("A-03")
def test_a_mute_peer_in_another_process_harms_nobody(certificates: Certificates) -> None:
    with (
        Preconnection(local_end()).listen() as listener,
        script("client", "127.0.0.1", port_of(listener), "mute") as mute,
    ):
        silent = listener.accept(timeout=20)
        with script("client", "127.0.0.1", port_of(listener), "echo") as talker:
            talking = listener.accept(timeout=20)
            talker.wait_for("connected")
            talker.say(b"hello\n")
            assert talking.receive(6, timeout=20).data == b"hello\n"
            talking.send(b"goodbye\n")
            assert talker.line() == "goodbye"
            with pytest.raises(Timeout):
                silent.receive(timeout=0.02)
        mute.end_input()
        assert silent.receive(timeout=20).end_of_message
        silent.close()
        talking.close()


def test_a_peer_in_the_same_process_with_plain_sockets() -> None:
    with (
        Preconnection(local_end()).listen() as listener,
        plain_client(port_of(listener)) as peer,
    ):
        with listener.accept(timeout=5) as connection:
            peer.sendall(b"GET /\r\n")
            assert connection.receive(7, timeout=5).data == b"GET /\r\n"
            connection.send(b"hello", final())
        assert read_all(peer) == b"hello"
