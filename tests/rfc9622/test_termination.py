"""The end of a Connection (RFC 9622 section 10): Close, Abort, and what the peer does."""

from __future__ import annotations

import socket

import gevent
import pytest
from conftest import Certificates
from greentaps import (
    ConnectionError,  # noqa: A004 - RFC 9622's own name
    ConnectionState,
    LengthPrefixFramer,
    MessageContext,
    Preconnection,
    Reason,
    SendError,
    TransportProperties,
    statistics,
)
from greentaps.framers import FramerLink
from rfc9622.world import Log, datagram_peer, datagrams, joined, listening, network, plain, towards
from taps.helpers import (
    Stopwatch,
    in_greenlet,
    pair,
    read_all,
    read_exactly,
    reset,
    until,
    with_plain_peer,
)

TOO_MUCH = bytes(16 * 1024 * 1024)


def turn(times: int = 5) -> None:
    """Let everything that is due happen."""
    for _ in range(times):
        gevent.sleep(0)


# -- Close --


@pytest.mark.rfc("TM-01", "TT-15", "TM-05", "SN-02", "ST-06", "ST-07", "EV-15", "TC-14", "AC-07")
@pytest.mark.rfc("MS-19", "SO-22", "Q-05")
def test_close_delivers_what_was_handed_over_to_a_slow_reader() -> None:
    with with_plain_peer(small=True) as (connection, peer):
        log = Log(connection)
        for _ in range(3):
            connection.send(TOO_MUCH, wait=False)
        closing = in_greenlet(connection.close, None)
        assert connection.state is ConnectionState.ESTABLISHED  # there is still something to do
        with pytest.raises(SendError):
            connection.send(b"too late")
        assert len(read_all(peer)) == 3 * len(TOO_MUCH)
        assert closing.get() is None
        until(lambda: log.ended)
        assert log.names == ["sent"] * 3 + ["closed"]
        assert connection.state is ConnectionState.CLOSED


@pytest.mark.rfc("TM-01", "SO-22", "TC-14", "MS-19")
def test_closed_only_after_the_peer_has_acknowledged() -> None:
    """All that was sent fits into our kernel, and the peer's takes only a part of it."""
    with with_plain_peer(small=True) as (connection, peer):
        handle = connection.transport.get_extra_info("handle")
        with socket.socket(fileno=socket.dup(handle.fileno())) as here:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
        log = Log(connection)
        connection.send(bytes(500_000))  # Sent: the kernel has it
        closing = in_greenlet(connection.close, None)
        for _ in range(10):
            gevent.sleep(0.005)  # it is the absence of an event that counts
            assert not closing.ready()
        assert connection.state is ConnectionState.CLOSING
        assert log == []
        assert read_exactly(peer, 500_000) == bytes(500_000)
        assert closing.get() is None
        until(lambda: log)
        assert log.names == ["closed"]


def test_a_close_with_nothing_left_to_deliver_needs_no_turn_of_the_hub() -> None:
    with with_plain_peer() as (connection, peer):
        open_before = statistics().total_open
        turned: list[int] = []
        gevent.spawn(turned.append, 1)
        connection.close()
        assert connection.state is ConnectionState.CLOSED
        assert not turned
        assert statistics().total_open == open_before - 1
        turn()
        assert statistics().total_open == open_before - 1  # it is not counted twice
        assert read_all(peer) == b""


@pytest.mark.rfc("TM-01", "TM-06", "ER-12")
@pytest.mark.netns
def test_a_close_that_nobody_acknowledges() -> None:
    with network() as net:
        with net.there():
            listener = plain(net.THERE)
        with listener:
            connection = Preconnection(
                remote_endpoint=net.remote(listener.getsockname()[1])
            ).initiate(timeout=10)
            peer, _ = listener.accept()
            log = Log(connection)
            net.cut()
            connection.send(b"lost")
            with pytest.raises(ConnectionError) as caught, Stopwatch() as took:
                connection.close(timeout=0.3)
            assert caught.value.reason is Reason.TIMEOUT
            assert 0.29 < took.seconds < 5
            until(lambda: "connection_error" in log.names)
            # The cable was cut, which may be told first.
            assert [name for name in log.names if name != "path_change"] == ["connection_error"]
            peer.close()


@pytest.mark.rfc("TM-01", "TM-05", "A-17")
def test_close_may_be_repeated_and_comes_after_everything() -> None:
    with joined() as (client, server):
        log = Log(client)
        closing = [in_greenlet(client.close) for _ in range(3)]
        client.close()
        assert [one.get() for one in closing] == [None] * 3
        client.close()
        client.abort()
        turn()
        assert log.names == ["closed"]
        assert server.receive(timeout=10).data == b""


@pytest.mark.rfc("UD-14", "UD-16", "TM-05", "TM-03")
@pytest.mark.parametrize("action", ["close", "close_group"])
def test_close_over_udp_frees_the_port(action: str) -> None:
    with datagram_peer() as (connection, peer):
        log = Log(connection)
        connection.send(b"last")
        here = connection.transport.get_extra_info("sockname")
        getattr(connection, action)()
        assert connection.state is ConnectionState.CLOSED
        until(lambda: log)
        assert log.names == ["closed"]
        assert peer.recv(10) == b"last"
        plain(here[0], socket.SOCK_DGRAM, here[1]).close()


@pytest.mark.rfc("TM-01", "SN-11")
def test_close_ends_a_batch() -> None:
    with with_plain_peer() as (connection, peer):
        log = Log(connection)
        with connection.batch():
            for _ in range(2):
                connection.send(b"held", wait=False)
            closing = in_greenlet(connection.close, None)
            assert read_all(peer) == b"heldheld"
            peer.close()
            assert closing.get(timeout=10) is None
        until(lambda: log.ended)
        assert log.names == ["sent", "sent", "closed"]


@pytest.mark.rfc("TM-01")
def test_a_close_in_an_empty_batch_lets_the_framers_say_goodbye() -> None:
    class Goodbye(LengthPrefixFramer):
        def stop(self, link: FramerLink) -> None:
            link.send(b"goodbye")

    with with_plain_peer(Goodbye()) as (connection, peer):
        with connection.batch():
            connection.close(wait=False)
        assert read_all(peer) == b"goodbye"


@pytest.mark.rfc("TM-01", "SN-09", "SN-02")
def test_close_does_not_wait_for_the_rest_of_a_message() -> None:
    """Nobody may hand it over any more."""
    with with_plain_peer() as (connection, peer):
        log = Log(connection)
        connection.send(b"part", MessageContext(), False, wait=False)
        connection.send(b"behind", wait=False)
        closing = in_greenlet(connection.close, None)
        assert read_all(peer) == b"part"
        peer.close()
        assert closing.get(timeout=10) is None
        until(lambda: log.ended)
        assert log.names == ["sent", "send_error", "closed"]
        ((_, error),) = log.of("send_error")
        assert error.reason is Reason.CLOSED


@pytest.mark.rfc("TM-01", "SN-02", "SN-04")
@pytest.mark.parametrize("framers", [(), (LengthPrefixFramer(),)])
@pytest.mark.parametrize("killed", [False, True])
def test_a_send_that_waits_succeeds_though_another_greenlet_closes(
    framers: tuple[LengthPrefixFramer, ...], killed: bool
) -> None:
    with with_plain_peer(*framers, small=True) as (connection, peer):
        sending = in_greenlet(connection.send, TOO_MUCH)
        closing = in_greenlet(connection.close)
        if killed:  # what it has begun to send leaves all the same
            sending.kill()
        assert len(read_all(peer)) == len(TOO_MUCH) + 4 * len(framers)
        peer.close()
        assert closing.get(timeout=10) is None
        if not killed:
            assert sending.get(timeout=10) is None


@pytest.mark.rfc("TM-01")
def test_of_several_closes_the_earliest_deadline_counts() -> None:
    with with_plain_peer(small=True) as (connection, _):
        connection.send(TOO_MUCH, wait=False)
        connection.close(None, wait=False)
        patient = in_greenlet(connection.close, None)
        with Stopwatch() as took, pytest.raises(ConnectionError) as caught:
            connection.close(0.2)
        assert caught.value.reason is Reason.TIMEOUT
        assert 0.1 < took.seconds < 5
        assert patient.get(timeout=10).reason is Reason.TIMEOUT
    with with_plain_peer(small=True) as (connection, _):
        connection.send(TOO_MUCH, wait=False)
        with Stopwatch() as took:
            connection.close(0.2, wait=False)
            with pytest.raises(ConnectionError):
                connection.close(60)
        assert took.seconds < 5


# -- Abort --


@pytest.mark.rfc("TM-02", "TC-15", "SO-23", "ST-06", "ST-08", "EV-16", "ER-11", "AC-07", "MS-20")
def test_abort_is_at_once_and_has_a_reason_of_its_own() -> None:
    with with_plain_peer(small=True) as (connection, peer):
        log = Log(connection)
        lost = connection.send(TOO_MUCH, wait=False)
        receiving = in_greenlet(connection.receive)
        connection.abort()
        assert receiving.get().reason is Reason.LOCAL_ABORT
        until(lambda: log.ended)
        assert log.names == ["send_error", "connection_error"]
        context, error = log.of("send_error")[0]
        assert context is lost
        assert error.reason is log.of("connection_error")[0][0].reason is Reason.LOCAL_ABORT
        with pytest.raises(ConnectionResetError):
            read_all(peer)


@pytest.mark.rfc("UD-15", "UD-17", "UD-08", "TM-02", "TM-04", "Q-01")
@pytest.mark.parametrize("action", ["abort", "abort_group"])
def test_abort_over_udp(action: str) -> None:
    with datagram_peer() as (connection, _):
        log = Log(connection)
        getattr(connection, action)()
        until(lambda: log)
        assert log.names == ["connection_error"]
        assert log[0][1].reason is Reason.LOCAL_ABORT


@pytest.mark.rfc("TM-02", "OR-03", "N-05")
def test_abort_breaks_off_a_close() -> None:
    with with_plain_peer(small=True) as (connection, _):
        log = Log(connection)
        connection.send(TOO_MUCH, wait=False)
        closing = in_greenlet(connection.close, None)
        connection.abort()
        assert closing.get().reason is Reason.LOCAL_ABORT
        until(lambda: log.ended)
        assert log.names == ["send_error", "connection_error"]


# -- The peer --


@pytest.mark.rfc("TM-06", "ST-08", "TC-08", "ER-11", "MS-20", "EV-16")
def test_a_reset() -> None:
    with with_plain_peer() as (connection, peer):
        log = Log(connection)
        reset(peer)
        until(lambda: log.ended)
        assert log.names == ["connection_error"]
        ((error,),) = log.of("connection_error")
        assert isinstance(error, ConnectionError)
        assert error.reason is Reason.CONNECTION_ABORTED
        assert isinstance(error.__cause__, ConnectionResetError)
        for call in (lambda: connection.send(b"x"), connection.receive):
            with pytest.raises(ConnectionError) as caught:
                call()
            assert caught.value.reason is Reason.CONNECTION_ABORTED
        connection.close()


@pytest.mark.rfc("TC-12", "TC-13", "TM-05", "A-17")
def test_the_peers_end_is_no_closed() -> None:
    with with_plain_peer() as (connection, peer):
        log = Log(connection)
        peer.shutdown(socket.SHUT_WR)
        assert connection.receive(timeout=10).final
        turn()
        assert log == []
        assert connection.state is ConnectionState.ESTABLISHED
        connection.send(b"still sending", MessageContext().add("final", True))
        assert read_all(peer) == b"still sending"


@pytest.mark.rfc("OR-04", "TT-16", "B-06")
def test_closed_waits_until_what_has_arrived_is_taken() -> None:
    """The peer ends, then we: nobody has asked for what came before."""
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        log = Log(connection)
        peer.sendall(b"\x03one\x03two")
        until(lambda: connection._inbox.size)
        peer.close()
        until(lambda: connection._eof)
        connection._transport.close()  # as an end that is nobody's fault
        until(lambda: connection._lost)
        turn()
        assert log == []
        assert connection.state is ConnectionState.CLOSING
        connection.receive(wait=False)
        until(lambda: log)
        turn()
        assert log.names == ["received"]
        connection.receive(wait=False)
        until(lambda: log.ended)
        assert log.names == ["received", "received", "closed"]


@pytest.mark.rfc("OR-04", "OR-03")
def test_the_closing_event_comes_after_those_that_are_due() -> None:
    """Also after those that come while a handler still works on an earlier one."""
    with with_plain_peer() as (connection, peer):
        log = Log(connection)

        def slow(_connection: object, message: object) -> None:
            connection.abort()
            gevent.sleep(0.01)
            connection.receive(1, wait=False)
            log.append(("received_partial", message))

        connection.on_received_partial(slow)
        connection.receive(1, wait=False)
        peer.sendall(b"x")
        until(lambda: log.ended)
        assert log.names == ["received_partial", "receive_error", "connection_error"]
        # After that nothing is an event any more.
        with pytest.raises(ConnectionError):
            connection.receive(1, wait=False)
        with pytest.raises(ConnectionError):
            connection.send(b"x", wait=False)
        turn()
        assert len(log) == 3


@pytest.mark.rfc("CX-01", "TM-01", "TM-07")
@pytest.mark.parametrize("order", ["client", "server", "both"])
def test_who_closes_first_makes_no_difference(
    order: str, stack: str, certificates: Certificates
) -> None:
    with pair(stack, certificates) as (client, server):
        client.send(b"from the client")
        server.send(b"from the server")
        assert server.receive(1, timeout=10).data == b"from the client"
        assert client.receive(1, timeout=10).data == b"from the server"
        first, second = (client, server) if order == "client" else (server, client)
        closing = in_greenlet(first.close)
        if order == "both":
            second.close()
        else:
            assert second.receive(timeout=10).final
            second.close()
        assert closing.get() is None
        assert client.state is server.state is ConnectionState.CLOSED


def test_the_block_closes_or_aborts() -> None:
    with listening() as listener:
        with towards(listener).initiate(timeout=10) as client:
            server = listener.accept(timeout=10)
        assert client.state is ConnectionState.CLOSED
        assert server.receive(timeout=10).final
        server.close()
        failing = towards(listener).initiate(timeout=10)
        server = listener.accept(timeout=10)
        with pytest.raises(RuntimeError), failing as client:
            raise RuntimeError
        until(lambda: client.state is ConnectionState.CLOSED)
        with pytest.raises(ConnectionError):
            server.receive(timeout=10)


@pytest.mark.rfc("TM-01", "P-28")
@pytest.mark.parametrize("final", [False, True])
def test_close_waits_for_what_a_rate_limit_holds_back(final: bool) -> None:
    wishes = TransportProperties(maxSendRate=8_000)
    with listening() as listener:
        client = towards(listener, wishes).initiate(timeout=10)
        server = listener.accept(timeout=10)
        client.send(bytes(1_500), MessageContext().add("final", final), wait=False)
        closing = in_greenlet(client.close)
        assert len(server.receive(timeout=10).data) == 1_500
        server.close()
        assert closing.get() is None


@pytest.mark.rfc("UD-14")
def test_a_flow_of_a_listener_ends_alone() -> None:
    with listening(datagrams()) as listener:
        clients = [towards(listener, datagrams()).initiate(timeout=10) for _ in range(2)]
        for client in clients:
            client.send(b"hello")
        servers = [listener.accept(timeout=10) for _ in range(2)]
        servers[0].close()
        assert servers[0].state is ConnectionState.CLOSED
        servers[1].receive(timeout=10)
        servers[1].send(b"alive")
        assert clients[1].receive(timeout=10).data == b"alive"
        # The peer of the first is a new one now.
        clients[0].send(b"again")
        again = listener.accept(timeout=10)
        assert again.receive(timeout=10).data == b"again"
        for connection in (*clients, servers[1], again):
            connection.abort()
