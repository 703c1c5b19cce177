"""Active open (RFC 9622 sections 7.1 and 9.2.5): Ready, EstablishmentError, and early Messages."""

from __future__ import annotations

import socket

import gevent
import pytest
from conftest import Certificates
from gevent import socket as gsocket
from greentaps import (
    ConnectionState,
    EstablishmentError,
    MessageContext,
    Preconnection,
    Reason,
    RemoteEndpoint,
    SendError,
    Timeout,
    TransportProperties,
)
from rfc9622.world import Log, datagrams, ip, listening, network, plain, towards
from taps.helpers import (
    HERE,
    Stopwatch,
    blackhole,
    ended_by_us,
    free_port,
    in_greenlet,
    owned,
    plain_listener,
    read_all,
    read_exactly,
    remote,
    securities,
    until,
)


def asking_for(port: int) -> Preconnection:
    return Preconnection(remote_endpoint=remote(port))


# -- Ready --


@pytest.mark.rfc("I-01", "ST-01", "CM-05", "B-02")
def test_without_waiting_the_connection_is_there_at_once() -> None:
    with plain_listener() as listener:
        connection = asking_for(listener.getsockname()[1]).initiate(wait=False)
        properties = connection.get_properties()
        assert connection.state is properties.get("connState") is ConnectionState.ESTABLISHING
        assert properties.get("canSend") is properties.get("canReceive") is False
        assert (connection.stack, connection.local_endpoint) == (None, None)
        connection.abort()


@pytest.mark.rfc("I-02", "I-03", "EV-01", "ST-02", "OR-02", "TC-06", "MS-01")
def test_one_ready_and_nothing_received_before_it() -> None:
    with plain_listener() as listener:
        preconnection = asking_for(listener.getsockname()[1])
        log = Log(preconnection)
        connection = preconnection.initiate(wait=False)
        connection.receive(1, wait=False)
        peer, _ = listener.accept()
        peer.sendall(b"first word")
        until(lambda: len(log) > 1)
        assert log.names == ["ready", "received_partial"]
        assert connection.state is ConnectionState.ESTABLISHED
        peer.close()
        connection.abort()


@pytest.mark.rfc("P-18", "FM-12")
def test_a_server_that_speaks_first() -> None:
    wishes = TransportProperties(activeReadBeforeSend="require")
    with listening(wishes) as listener:
        client = towards(listener, wishes).initiate(timeout=10)
        server = listener.accept(timeout=10)
        server.send(b"welcome")
        assert client.receive(1, timeout=10).data == b"welcome"
        assert client.get_properties().get("activeReadBeforeSend") is True
        client.abort()
        server.abort()


@pytest.mark.rfc("DN-06", "EV-01")
def test_with_tls_ready_waits_for_the_handshake(certificates: Certificates) -> None:
    ours, _ = securities("tls", certificates)
    with plain_listener() as listener:
        preconnection = Preconnection(
            remote_endpoint=remote(listener.getsockname()[1]), security_parameters=ours
        )
        log = Log(preconnection)
        connection = preconnection.initiate(wait=False)
        peer, _ = listener.accept()
        assert read_exactly(peer, 1) == b"\x16"  # its hello; we keep silent
        assert log == []
        assert connection.state is ConnectionState.ESTABLISHING
        connection.abort()
        peer.close()


@pytest.mark.rfc("UD-04", "UD-06", "DN-05", "O-07", "DN-07")
def test_over_udp_ready_needs_no_packet() -> None:
    with plain(HERE, socket.SOCK_DGRAM) as peer:
        connection = Preconnection(
            remote_endpoint=remote(peer.getsockname()[1]), transport_properties=datagrams()
        ).initiate(timeout=10)
        assert connection.state is ConnectionState.ESTABLISHED
        connection.close()
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(10)


# -- Failing --


@pytest.mark.rfc("I-07", "ER-04", "ST-05", "EV-02", "TC-07", "B-01", "T-06")
def test_refused() -> None:
    port = free_port()
    preconnection = asking_for(port)
    log = Log(preconnection)
    with pytest.raises(EstablishmentError) as caught:
        preconnection.initiate(timeout=10)
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    connection = preconnection.initiate(wait=False)
    until(lambda: len(log) == 2)
    assert log.names == ["establishment_error"] * 2
    assert connection.state is ConnectionState.CLOSED
    # Nobody waits in vain for a Connection that never was.
    for call in (lambda: connection.send(b"x"), connection.receive):
        with pytest.raises(EstablishmentError) as again:
            call()
        assert again.value.reason is Reason.ESTABLISHMENT_FAILED
    connection.close()


@pytest.mark.rfc("I-07", "EV-02", "B-01")
@pytest.mark.parametrize("action", ["initiate", "rendezvous"])
def test_a_failure_before_anything_is_opened_is_told_to_handlers_of_the_connection(
    action: str,
) -> None:
    """Which can be set only when there is one."""
    nowhere = TransportProperties().require("multistreaming")
    preconnection = Preconnection(remote_endpoint=remote(1), transport_properties=nowhere)
    connection = getattr(preconnection, action)(wait=False)
    log = Log(connection)
    connection.send(b"too early", wait=False)
    until(lambda: log.ended)
    assert log.names == ["send_error", "establishment_error"]
    assert connection.state is ConnectionState.CLOSED
    for end in ("close", "abort"):
        connection = getattr(preconnection, action)(wait=False)
        log = Log(connection)
        getattr(connection, end)()
        until(lambda: log.ended)  # noqa: B023
        assert log.names == ["closed" if end == "close" else "connection_error"]


@pytest.mark.rfc("I-07", "EV-02")
def test_an_application_that_breaks_it_off_is_told_so() -> None:
    """The event has an EstablishmentError like any other, whatever has ended the wait."""
    with blackhole() as port:
        preconnection = asking_for(port)
        log = Log(preconnection)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05) as limit:
            preconnection.initiate()
        initiating = gevent.spawn(preconnection.initiate)
        gevent.sleep(0.01)
        initiating.kill()
        until(lambda: len(log) == 2)
        assert log.names == ["establishment_error"] * 2
        (first,), (second,) = log.of("establishment_error")
        for error in (first, second):
            assert isinstance(error, EstablishmentError)
            assert error.reason is Reason.LOCAL_ABORT
        assert first.__cause__ is limit


@pytest.mark.rfc("I-07", "ER-12", "TT-10", "MS-03", "SO-01")
@pytest.mark.parametrize("wait", [True, False])
def test_a_time_out_leaves_nothing_open(wait: bool) -> None:
    with blackhole() as port:
        before = owned()
        preconnection = asking_for(port)
        log = Log(preconnection)
        with Stopwatch() as took:
            if wait:
                with pytest.raises(EstablishmentError) as caught:
                    preconnection.initiate(timeout=0.2)
                error = caught.value
            else:
                preconnection.initiate(timeout=0.2, wait=False)
                until(lambda: log)
                ((error,),) = log.of("establishment_error")
        assert error.reason is Reason.TIMEOUT
        assert 0.19 < took.seconds < 5
        until(lambda: owned() == before)


@pytest.mark.rfc("I-07", "ER-05", "UD-07")
@pytest.mark.netns
def test_what_the_system_forbids_and_where_there_is_no_way() -> None:
    with network():
        ip("route add prohibit 198.51.100.0/24", "route add unreachable 203.0.113.0/24")
        for properties in (None, datagrams()):
            for address, reason in (
                ("198.51.100.1", Reason.POLICY_PROHIBITED),
                ("203.0.113.1", Reason.ESTABLISHMENT_FAILED),
            ):
                with pytest.raises(EstablishmentError) as caught:
                    Preconnection(
                        remote_endpoint=remote(1, address), transport_properties=properties
                    ).initiate(timeout=10)
                assert caught.value.reason is reason


@pytest.mark.rfc("UD-07")
def test_a_local_port_that_is_taken() -> None:
    from taps.helpers import local

    with plain(HERE, socket.SOCK_DGRAM) as holder:
        with pytest.raises(EstablishmentError) as caught:
            Preconnection(local(holder.getsockname()[1]), remote(1), datagrams()).initiate(
                timeout=10
            )
        assert caught.value.reason is Reason.ESTABLISHMENT_FAILED


@pytest.mark.rfc("I-05", "ER-01")
def test_ends_of_different_families() -> None:
    from taps.helpers import local

    with pytest.raises(EstablishmentError) as caught:
        Preconnection(local(0, "::1"), remote(1)).initiate()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("I-08", "OR-03", "DN-01", "DN-03")
def test_several_attempts_and_one_event() -> None:
    with blackhole() as dead, plain_listener() as listener:
        ends = [remote(dead), remote(free_port()), remote(listener.getsockname()[1])]
        preconnection = Preconnection(remote_endpoint=ends)
        log = Log(preconnection)
        before = owned()
        connection = preconnection.initiate(wait=False, timeout=20)
        peer, _ = listener.accept()
        until(lambda: connection.state is ConnectionState.ESTABLISHED)
        until(lambda: owned() == before + 1)
        assert log.names == ["ready"]
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        connection.abort()
        peer.close()


# -- Sending before Ready --


@pytest.mark.rfc("I-04", "SN-12", "TT-11", "SN-15", "OR-01")
def test_early_messages_arrive_once_each() -> None:
    with blackhole() as dead, plain_listener() as listener:
        ends = [remote(dead), remote(listener.getsockname()[1])]
        preconnection = Preconnection(remote_endpoint=ends)
        log = Log(preconnection)
        connection = preconnection.initiate(wait=False)
        contexts = [connection.send(b"%02d" % number, wait=False) for number in range(20)]
        assert log == []
        peer, _ = listener.accept()
        data = read_exactly(peer, 40)
        assert data == b"".join(b"%02d" % number for number in range(20))
        until(lambda: len(log) == 21)
        assert log.names == ["ready"] + ["sent"] * 20
        assert [context for (context,) in log.of("sent")] == contexts
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        connection.abort()
        peer.close()


@pytest.mark.rfc("SN-12", "MU-20", "P-43", "MC-09", "ER-09", "OR-05")
def test_early_messages_are_held_against_the_stack_that_wins() -> None:
    with plain(HERE, socket.SOCK_DGRAM) as peer:
        preconnection = Preconnection(
            remote_endpoint=remote(peer.getsockname()[1]), transport_properties=datagrams()
        )
        log = Log(preconnection)
        connection = preconnection.initiate(wait=False)
        wrong = [
            connection.send(b"w", MessageContext().add(name, value), wait=False)
            for name, value in (("safelyReplayable", False), ("msgOrdered", True))
        ]
        wrong.append(connection.send(bytes(70_000), wait=False))
        right = connection.send(b"right", wait=False)
        until(lambda: len(log) == 5)
        assert log.names == ["ready", "send_error", "send_error", "send_error", "sent"]
        assert [context for context, _ in log.of("send_error")] == wrong
        reasons = [error.reason for _, error in log.of("send_error")]
        assert reasons[:2] == [Reason.INVALID_MESSAGE_PROPERTIES] * 2
        assert reasons[2] is Reason.MESSAGE_TOO_LARGE
        assert log.of("sent") == [(right,)]
        assert peer.recv(100) == b"right"
        connection.abort()


@pytest.mark.rfc("SN-12", "B-01")
def test_a_send_that_waits_may_begin_before_ready() -> None:
    with plain_listener() as listener:
        connection = asking_for(listener.getsockname()[1]).initiate(wait=False)
        sending = in_greenlet(connection.send, b"early")
        receiving = in_greenlet(connection.receive, 1)
        peer, _ = listener.accept()
        assert peer.recv(100) == b"early"
        peer.sendall(b"answer")
        assert receiving.get().data == b"answer"
        assert sending.get() is None
        peer.close()
        connection.abort()


# -- InitiateWithSend --


@pytest.mark.rfc("I-09", "I-10", "AC-05", "MS-05", "UD-05")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_initiate_with_send_is_both_in_one(kind: int) -> None:
    with plain(HERE, kind) as peer:
        preconnection = Preconnection(
            remote_endpoint=remote(peer.getsockname()[1]),
            transport_properties=datagrams() if kind == socket.SOCK_DGRAM else None,
        )
        log = Log(preconnection)
        context = MessageContext().add("safelyReplayable", True)
        connection = preconnection.initiate_with_send(b"first", context, wait=False)
        if kind == socket.SOCK_STREAM:
            accepted, _ = peer.accept()
            assert read_exactly(accepted, 5) == b"first"
            accepted.close()
        else:
            assert peer.recv(100) == b"first"
        until(lambda: len(log) == 2)
        assert list(log) == [("ready",), ("sent", context)]
        connection.abort()


@pytest.mark.rfc("I-09", "I-10")
def test_initiate_with_send_waits_for_both() -> None:
    with plain_listener() as listener:
        connection = asking_for(listener.getsockname()[1]).initiate_with_send(b"x", timeout=10)
        assert connection.state is ConnectionState.ESTABLISHED
        peer, _ = listener.accept()
        assert peer.recv(10) == b"x"
        peer.close()
        connection.abort()


@pytest.mark.rfc("I-11")
def test_initiate_with_send_takes_one_whole_message() -> None:
    with pytest.raises(TypeError):
        asking_for(1).initiate_with_send(b"x", end_of_message=False)  # type: ignore[call-arg]


@pytest.mark.rfc("I-12", "OR-03", "OR-05")
@pytest.mark.parametrize("own_handler", [False, True])
def test_of_a_failed_initiate_with_send_only_the_establishment_error_is_told(
    own_handler: bool,
) -> None:
    preconnection = asking_for(free_port())
    log = Log(preconnection)
    calls: list[object] = []
    connection = preconnection.initiate_with_send(
        b"x",
        wait=False,
        sent_handler=(lambda *args: calls.append(args)) if own_handler else None,
    )
    until(lambda: log)
    gevent.sleep(0)
    assert log.names == ["establishment_error"]
    assert calls == []
    assert connection.state is ConnectionState.CLOSED


@pytest.mark.rfc("I-12", "B-01")
def test_a_failed_initiate_with_send_that_waits() -> None:
    with pytest.raises(EstablishmentError):
        asking_for(free_port()).initiate_with_send(b"x", timeout=10)


# -- Ending while it is being established --


@pytest.mark.rfc("N-05", "TM-02", "OR-03")
def test_abort_while_establishing() -> None:
    with blackhole() as port:
        before = owned()
        preconnection = asking_for(port)
        log = Log(preconnection)
        connection = preconnection.initiate(wait=False)
        sending = in_greenlet(connection.send, b"x")
        connection.abort()
        assert connection.state is ConnectionState.CLOSED
        assert getattr(sending.get(), "reason", None) is Reason.LOCAL_ABORT
        until(lambda: log)
        assert log.names == ["connection_error"]
        ((error,),) = log.of("connection_error")
        assert error.reason is Reason.LOCAL_ABORT
        until(lambda: owned() == before)


@pytest.mark.rfc("N-05", "TM-01", "OR-03")
def test_close_while_establishing_with_nothing_to_send() -> None:
    with blackhole() as port:
        before = owned()
        preconnection = asking_for(port)
        log = Log(preconnection)
        connection = preconnection.initiate(wait=False)
        connection.close()
        assert connection.state is ConnectionState.CLOSED
        until(lambda: log)
        assert log.names == ["closed"]
        until(lambda: owned() == before)


@pytest.mark.rfc("N-05", "TM-01", "OR-05")
def test_close_while_establishing_delivers_what_was_sent() -> None:
    with plain_listener() as listener:
        preconnection = asking_for(listener.getsockname()[1])
        log = Log(preconnection)
        connection = preconnection.initiate(wait=False)
        connection.send(b"last words", wait=False)
        closing = in_greenlet(connection.close)
        with pytest.raises(SendError):
            connection.send(b"too late")
        peer, _ = listener.accept()
        assert read_all(peer) == b"last words"
        peer.close()
        assert closing.get() is None
        until(lambda: log.ended)
        assert log.names == ["ready", "sent", "closed"]


@pytest.mark.rfc("N-05", "OR-03", "OR-05")
def test_close_while_establishing_and_that_fails() -> None:
    preconnection = asking_for(free_port())
    log = Log(preconnection)
    connection = preconnection.initiate(wait=False)
    connection.send(b"x", wait=False)
    connection.close(wait=False)
    until(lambda: log.ended)
    assert log.names == ["send_error", "establishment_error"]


@pytest.mark.rfc("B-04")
def test_a_broken_off_initiate_leaves_nothing() -> None:
    with blackhole() as port:
        before = owned()
        waiting = in_greenlet(asking_for(port).initiate)
        until(lambda: owned() > before)
        waiting.kill()
        until(lambda: owned() == before)


@pytest.mark.rfc("E-03", "I-06")
def test_the_resolution_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsocket, "getaddrinfo", lambda *args, **kwargs: gevent.sleep(30))
    slow = RemoteEndpoint().with_hostname("slow.example").with_port(1)
    with pytest.raises((EstablishmentError, Timeout)) as caught:
        Preconnection(remote_endpoint=slow).initiate(timeout=0.1)
    assert getattr(caught.value, "reason", None) is Reason.TIMEOUT


@pytest.mark.rfc("SN-12", "I-07")
@pytest.mark.parametrize("how", ["refused", "timeout", "kill"])
def test_a_first_message_that_is_not_sent_leaves_no_connection(how: str) -> None:
    """The caller gets the error, and so nobody has the Connection."""
    with plain_listener(small=True) as listener:
        preconnection = asking_for(listener.getsockname()[1])
        before = owned()
        if how == "refused":
            wrong = MessageContext().add("msgReliable", False)
            with pytest.raises(SendError):
                preconnection.initiate_with_send(b"x", wrong)
        elif how == "timeout":
            with pytest.raises(Timeout):
                preconnection.initiate_with_send(bytes(16 * 1024 * 1024), timeout=0.2)
        else:
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.2):
                preconnection.initiate_with_send(bytes(16 * 1024 * 1024))
        peer, _ = listener.accept()
        assert ended_by_us(peer)
        peer.close()
        until(lambda: owned() == before)
