"""Events (RFC 9622 section 22 of the checklist): each is reachable, in its order, as a handler."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from greentaps import Connection, ConnectionState, Listener, Preconnection, Reason
from greentaps.testing import reported_errors
from rfc9622.world import EVENTS, Log, joined, listening, towards
from taps.helpers import local, plain_client, port_of, until, with_plain_peer


@pytest.mark.rfc("T-05", "T-17", "SH-03", "B-03")
@pytest.mark.parametrize("event", EVENTS)
def test_each_event_has_a_method_that_sets_its_handler(event: str) -> None:
    preconnection = Preconnection(local())
    with joined() as (client, _):
        for subject in (client, preconnection):
            register = getattr(subject, f"on_{event}")
            register(lambda *args: None)
            assert event in subject._events.handlers
            register(None)
            assert event not in subject._events.handlers
            with pytest.raises(TypeError):
                register("no function")


@pytest.mark.rfc("T-05", "EV-03", "EV-04")
@pytest.mark.parametrize("event", ["connection_received", "stopped"])
def test_the_events_of_listeners(event: str) -> None:
    heard: list[Any] = []
    preconnection = Preconnection(local())
    getattr(preconnection, f"on_{event}")(heard.append)
    with preconnection.listen() as listener, plain_client(port_of(listener)):
        if event == "stopped":
            listener.stop()
        until(lambda: heard)
    (subject,) = heard
    assert isinstance(subject, Connection if event == "connection_received" else Listener)
    if isinstance(subject, Connection):
        subject.abort()


@pytest.mark.rfc("T-05", "OR-03", "OR-05")
def test_handlers_may_block_and_keep_the_order() -> None:
    with with_plain_peer() as (connection, peer):
        order: list[Any] = []

        def handle(_connection: Connection, message: Any) -> None:
            order.append(("begin", message.data))
            gevent.sleep(0.005)
            order.append(("end", message.data))

        connection.on_received_partial(handle)
        connection.on_connection_error(lambda *args: order.append("over"))
        for data in (b"1", b"2", b"3"):
            connection.receive(1, 1, wait=False)
            peer.sendall(data)
        until(lambda: not connection._requests)
        connection.abort()
        until(lambda: order and order[-1] == "over")
        assert order == [
            (what, data) for data in (b"1", b"2", b"3") for what in ("begin", "end")
        ] + ["over"]


@pytest.mark.rfc("T-05", "T-22")
def test_a_handler_that_fails_is_reported_and_stops_nothing() -> None:
    with with_plain_peer() as (connection, peer), reported_errors() as errors:
        log = Log(connection)

        def fail(*args: Any) -> None:
            raise RuntimeError("in a handler")

        connection.on_received_partial(fail)
        connection.receive(1, wait=False)
        peer.sendall(b"x")
        until(lambda: errors)
        connection.abort()
        until(lambda: log)
        assert log.names == ["connection_error"]
        assert [str(error) for error in errors] == ["in a handler"]


@pytest.mark.rfc("T-22", "T-05")
def test_a_program_without_handlers_is_told_nothing_and_lives() -> None:
    with with_plain_peer() as (connection, peer), reported_errors() as errors:
        connection.receive(1, wait=False)
        connection.send(b"x", wait=False)
        peer.close()
        until(lambda: connection._eof)
        connection.abort()
        until(lambda: connection.state is ConnectionState.CLOSED)
        assert connection._events is None
        assert errors == []


@pytest.mark.rfc("T-05", "OR-03")
def test_a_handler_that_is_killed_does_not_take_the_others_with_it() -> None:
    with with_plain_peer() as (connection, peer):
        log = Log(connection)

        dead: list[bool] = []

        def die(*args: Any) -> None:
            dead.append(True)
            raise gevent.GreenletExit

        connection.on_received_partial(die)
        connection.receive(1, wait=False)
        peer.sendall(b"x")
        until(lambda: dead)
        connection.abort()
        until(lambda: log)
        assert log.names == ["connection_error"]


@pytest.mark.rfc("B-02", "B-01", "OR-05")
def test_blocking_and_event_driven_calls_may_be_mixed() -> None:
    with listening() as listener:
        client = towards(listener).initiate(timeout=10)
        server = listener.accept(timeout=10)
        log = Log(client)
        client.send(b"blocking")
        client.send(b"event", wait=False)
        until(lambda: log)
        assert log.names == ["sent"]  # of the one that did not wait
        received = b""
        while len(received) < 13:
            received += server.receive(1, timeout=10).data
        assert received == b"blockingevent"
        client.abort()
        server.abort()
        until(lambda: log.ended)
        assert log[-1][1].reason is Reason.LOCAL_ABORT


@pytest.mark.rfc("B-02", "T-05", "L-03", "I-02")
def test_an_echo_server_of_handlers_only() -> None:
    """The whole API without one blocking call."""
    echoed: list[bytes] = []
    service = Preconnection(local())

    def received(connection: Connection, message: Any) -> None:
        if message.data:
            connection.send(message.data.upper(), wait=False)
        if message.end_of_message:
            connection.close(wait=False)
        else:
            connection.receive(1, wait=False)

    service.on_connection_received(lambda connection: connection.receive(1, wait=False))
    service.on_received_partial(received)
    with service.listen() as listener:
        caller = towards(listener)
        caller.on_ready(lambda connection: connection.send(b"hello", wait=False))
        caller.on_sent(lambda connection, context: connection.receive(1, wait=False))

        def answered(connection: Connection, message: Any) -> None:
            echoed.append(message.data)
            connection.close(wait=False)

        caller.on_received_partial(answered)
        log = Log(caller, ("closed", "connection_error"))
        caller.initiate(wait=False)
        until(lambda: log)
    assert echoed == [b"HELLO"]
    assert log.names == ["closed"]
