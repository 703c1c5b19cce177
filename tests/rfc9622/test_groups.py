"""Connection Groups (RFC 9622 section 7.4): Clone, what is shared, and what is not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import pytest
from conftest import Certificates, live_greenlets
from gevent import socket as gsocket
from greentaps import (
    CloneError,
    Connection,
    ConnectionError,  # noqa: A004 - RFC 9622's own name
    ConnectionState,
    EstablishmentError,
    Framer,
    LengthPrefixFramer,
    Preconnection,
    Reason,
    TransportProperties,
    statistics,
)
from greentaps.plugins.tcp import Tcp
from greentaps.taps.properties import DISABLED, PropertyError, PropertyRefusedError
from rfc9622.world import Log, datagrams, joined, listening, option, towards
from taps.helpers import (
    in_greenlet,
    plain_listener,
    port_of,
    read_exactly,
    remote,
    reset,
    securities,
    until,
)


@contextlib.contextmanager
def group(size: int = 3) -> Iterator[tuple[list[Connection], list[gsocket.socket]]]:
    """A Connection and its clones, and the plain sockets at their other ends."""
    with plain_listener() as listener:
        preconnection = Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
        members = [preconnection.initiate(timeout=10)]
        peers = [listener.accept()[0]]
        while len(members) < size:
            members.append(members[-1].clone(timeout=10))
            peers.append(listener.accept()[0])
    for peer in peers:
        peer.settimeout(20)
    try:
        yield members, peers
    finally:
        for member in members:
            member.abort()
        for peer in peers:
            peer.close()


# -- Clone --


@pytest.mark.rfc("G-01", "G-02", "G-08", "G-09", "TC-03", "TC-11", "ST-01", "AC-07", "A-18")
def test_clones_are_connections_of_their_own_in_one_group() -> None:
    with group() as (members, peers):
        for member in members:
            assert member.state is ConnectionState.ESTABLISHED
            assert member.grouped_connections() == members
        assert len({member.local_endpoint.port for member in members if member.local_endpoint}) == 3
        for number, (member, peer) in enumerate(zip(members, peers, strict=True)):
            member.send(bytes([number]))
            assert peer.recv(10) == bytes([number])


@pytest.mark.rfc("UD-11", "Q-07", "G-09")
def test_a_clone_over_udp_is_another_socket() -> None:
    with listening(datagrams()) as listener:
        parent = towards(listener, datagrams()).initiate(timeout=10)
        clone = parent.clone(timeout=10)
        assert parent.local_endpoint != clone.local_endpoint
        clone.send(b"from the clone")
        server = listener.accept(timeout=10)
        assert server.receive(timeout=10).data == b"from the clone"
        parent.set_property("connTimeout", 4)
        assert clone.get_properties().get("connTimeout") == 4
        for connection in (parent, clone, server):
            connection.abort()


@pytest.mark.rfc("G-01", "EV-01", "I-02")
def test_a_clone_that_is_not_waited_for() -> None:
    with plain_listener() as listener:
        preconnection = Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
        log = Log(preconnection)
        parent = preconnection.initiate(timeout=10)
        clone = parent.clone(wait=False)
        assert clone.state is ConnectionState.ESTABLISHING
        clone.send(b"early", wait=False)
        listener.accept()[0].close()
        peer, _ = listener.accept()
        assert read_exactly(peer, 5) == b"early"
        until(lambda: len(log) == 3)
        assert sorted(log.names) == ["ready", "ready", "sent"]
        peer.close()
        parent.abort()
        clone.abort()


@pytest.mark.rfc("G-13", "G-01")
def test_security_is_inherited(certificates: Certificates) -> None:
    ours, theirs = securities("tls", certificates)
    from taps.helpers import local

    with Preconnection(local(), security_parameters=theirs).listen() as listener:
        parent = Preconnection(
            remote_endpoint=remote(port_of(listener)), security_parameters=ours
        ).initiate(timeout=10)
        servers = [listener.accept(timeout=10)]
        clone = parent.clone(timeout=10)
        servers.append(listener.accept(timeout=10))
        assert clone.stack == "tls/tcp"
        clone.send(b"secret")
        assert servers[1].receive(1, timeout=10).data == b"secret"
        for connection in (parent, clone, *servers):
            connection.abort()


# -- What they share --


@pytest.mark.rfc("G-03", "G-04", "P-20", "TT-13", "CM-01", "TC-11", "TP-10")
def test_connection_properties_are_shared_but_for_the_priority() -> None:
    with group() as (members, _):
        first, second, third = members
        first.set_property("connTimeout", 21)
        second.set_property("connCapacityProfile", "scavenger")
        for member in members:
            assert member.get_properties().get("connTimeout") == 21
            assert option(member, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 21_000
            assert option(member, socket.IPPROTO_IP, socket.IP_TOS) == 1 << 2
        third.set_property("connPriority", 3)
        assert [one.get_properties().get("connPriority") for one in members] == [100, 100, 3]


@pytest.mark.rfc("G-04", "P-20", "TP-10")
def test_a_clone_begins_with_its_parents_properties() -> None:
    with listening() as listener:
        parent = towards(listener).initiate(timeout=10)
        parent.set_property("connPriority", 3)
        parent.set_property("connTimeout", 21)
        clone = parent.clone(timeout=10)
        assert clone.get_properties().get("connPriority") == 3
        assert option(clone, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 21_000
        clone.set_property("connPriority", 4)
        assert parent.get_properties().get("connPriority") == 3
        parent.abort()
        clone.abort()


@pytest.mark.rfc("G-05")
def test_message_defaults_are_each_connections_own() -> None:
    with group(2) as ((parent, clone), _):
        clone.set_property("msgLifetime", 5)
        assert parent.get_properties().get("msgLifetime") != 5
        assert clone.get_properties().get("msgLifetime") == 5


@pytest.mark.rfc("G-07", "G-04", "G-03")
def test_properties_of_a_clone_are_set_before_it_opens() -> None:
    with listening() as listener:
        parent = towards(listener).initiate(timeout=10)
        with pytest.raises(PropertyError):
            parent.clone(connection_properties={"connTimeout": 8, "connPriority": -1})
        assert parent.grouped_connections() == [parent]
        assert parent.get_properties().get("connTimeout") is DISABLED
        clone = parent.clone(connection_properties={"connTimeout": 8, "connPriority": 1})
        assert option(clone, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000
        assert parent.get_properties().get("connTimeout") == 8
        assert parent.get_properties().get("connPriority") == 100
        parent.abort()
        clone.abort()


@pytest.mark.rfc("G-06", "F-02")
def test_framers_are_copied_or_replaced() -> None:
    from taps.helpers import local

    with Preconnection(local()).add_framer(LengthPrefixFramer(1)).listen() as listener:
        parent = towards(listener).add_framer(LengthPrefixFramer(1)).initiate(timeout=10)
        servers = [listener.accept(timeout=10)]
        same = parent.clone(timeout=10)
        servers.append(listener.accept(timeout=10))
        other = parent.clone(LengthPrefixFramer(2), timeout=10)
        servers.append(listener.accept(timeout=10))
        parent.send(b"abc")
        same.send(b"xy")
        assert servers[0].receive(timeout=10).data == b"abc"
        assert servers[1].receive(timeout=10).data == b"xy"
        other.send(b"z")  # as two bytes of length: of one byte each, an empty Message and one
        assert [servers[2].receive(timeout=10).data for _ in range(2)] == [b"", b"z"]
        for connection in (parent, same, other, *servers):
            connection.abort()


# -- Failing and leaving --


@pytest.mark.rfc("G-10", "N-14", "EV-06", "ER-06", "B-03")
def test_what_was_accepted_or_has_ended_cannot_be_cloned() -> None:
    with joined() as (client, server):
        for connection in (server, client):
            log = Log(connection)
            if connection is client:
                client.abort()
            with pytest.raises(CloneError) as caught:
                connection.clone()
            assert caught.value.reason is Reason.NOT_CLONEABLE
            until(lambda: log)  # noqa: B023
            if connection is server:
                assert log.of("clone_error") == [(caught.value,)]


@pytest.mark.rfc("N-14", "G-01", "EV-02", "ST-05")
@pytest.mark.parametrize("wait", [True, False])
def test_a_clone_that_cannot_be_established_is_no_member(wait: bool) -> None:
    with group(1) as ((parent,), _):  # whose listener is closed by now
        log = Log(parent, ("clone_error", "establishment_error"))
        if wait:
            with pytest.raises(EstablishmentError):
                parent.clone(timeout=10)
        else:
            clone = parent.clone(wait=False)
            until(lambda: clone.state is ConnectionState.CLOSED)
        assert parent.grouped_connections() == [parent]
        parent.set_property("connTimeout", 3)
        assert parent.state is ConnectionState.ESTABLISHED
        assert log == []


@pytest.mark.rfc("G-11", "EV-06", "N-14")
def test_a_member_that_cannot_follow_leaves_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    with group() as (members, _):
        first, second, third = members
        stubborn = second.transport
        original = Tcp.apply

        def apply(self: Tcp, transport: Any, name: str, value: Any) -> None:
            if transport is stubborn:
                raise OSError("not here")
            original(self, transport, name, value)

        monkeypatch.setattr(Tcp, "apply", apply)
        log = Log(second)
        first.set_property("connTimeout", 9)
        until(lambda: log)
        ((error,),) = log.of("clone_error")
        assert isinstance(error, CloneError)
        assert first.grouped_connections() == third.grouped_connections() == [first, third]
        assert second.grouped_connections() == [second]
        assert second.state is ConnectionState.ESTABLISHED
        values = [member.get_properties().get("connTimeout") for member in members]
        assert values == [9, DISABLED, 9]
        # The one that is asked itself refuses, and nothing has happened.
        with pytest.raises(PropertyRefusedError):
            second.set_property("connTimeout", 10)
        assert second.state is ConnectionState.ESTABLISHED


@pytest.mark.rfc("TM-01", "TM-02", "G-08")
def test_ending_one_member_leaves_the_others_untouched() -> None:
    with group() as (members, peers):
        first, second, third = members
        second.abort()
        closing = in_greenlet(third.close)
        peers[2].close()
        assert closing.get() is None
        assert first.grouped_connections() == [first]
        first.send(b"alive")
        assert peers[0].recv(10) == b"alive"


@pytest.mark.rfc("TM-03", "TC-16", "AC-07", "EV-15")
def test_close_group() -> None:
    with group() as (members, peers):
        logs = [Log(member) for member in members]
        for member in members:
            member.send(b"delivered")
        closing = in_greenlet(members[1].close_group)
        for peer in peers:
            assert read_exactly(peer, 9) == b"delivered"
            assert peer.recv(10) == b""
            peer.close()
        assert closing.get() is None
        until(lambda: all(log.ended for log in logs))
        assert [log.names for log in logs] == [["closed"]] * 3
        assert {member.state for member in members} == {ConnectionState.CLOSED}


@pytest.mark.rfc("TM-04", "TC-17", "TT-14", "OR-03", "AC-07", "EV-16", "Q-01")
@pytest.mark.parametrize("properties", [None, datagrams()], ids=["tcp", "udp"])
def test_abort_group(properties: TransportProperties | None) -> None:
    with listening(properties) as listener:
        members = [towards(listener, properties).initiate(timeout=10)]
        members += [members[0].clone(timeout=10) for _ in range(2)]
        logs = [Log(member) for member in members]
        members[2].abort_group()
        until(lambda: all(log.ended for log in logs))
        for log, member in zip(logs, members, strict=True):
            ((name, error),) = log
            assert name == "connection_error"
            assert isinstance(error, ConnectionError)
            assert error.reason is Reason.LOCAL_ABORT
            assert member.state is ConnectionState.CLOSED
            assert member.grouped_connections() == [member]


@pytest.mark.rfc("TM-03", "CX-01")
def test_close_group_tells_of_a_member_that_failed() -> None:
    with group(2) as (members, peers):
        # More than both kernels hold, so the second cannot be closed before its peer reads.
        members[1].send(bytes(16 * 1024 * 1024), wait=False)
        peers[0].close()
        closing = in_greenlet(members[0].close_group)
        reset(peers[1])
        result = closing.get()
        assert isinstance(result, ConnectionError)
        assert result.reason is Reason.CONNECTION_ABORTED
        assert {member.state for member in members} == {ConnectionState.CLOSED}


class Waiting(Framer):
    """Is ready when the peer has spoken."""

    def start(self, link: Any) -> None:
        link.delay_ready()

    def handle_received_data(self, link: Any) -> None:
        link.make_connection_ready()


@pytest.mark.parametrize("how", ["abort_group", "close_group", "kill"])
def test_a_clone_that_is_waited_for_ends_with_its_group(how: str) -> None:
    """The peer says nothing, and nobody has set a limit."""
    with plain_listener() as listener:
        connection = Preconnection(None, remote(listener.getsockname()[1])).initiate(10)
        before = len(live_greenlets())
        cloning = gevent.spawn(connection.clone, Waiting())
        until(lambda: len(connection.grouped_connections()) == 2)
        gevent.sleep(0.05)
        clone = connection.grouped_connections()[1]
        assert clone.state is ConnectionState.ESTABLISHING
        if how == "kill":
            cloning.kill()
            until(lambda: connection.grouped_connections() == [connection])
            connection.abort()
        else:
            getattr(connection, how)()
            with pytest.raises(ConnectionError if how == "abort_group" else EstablishmentError):
                cloning.get(timeout=5)
        until(lambda: clone.state is ConnectionState.CLOSED)
        until(lambda: len(live_greenlets()) <= before)


@pytest.mark.rfc("G-01", "N-14")
def test_a_clone_that_is_broken_off_at_once_is_no_member() -> None:
    """Before the greenlet that establishes it has run."""
    with group(1) as ((connection,), _):
        begin = gevent.event.Event()

        def make() -> None:
            begin.wait()
            connection.clone()

        cloning = gevent.spawn(make)
        gevent.sleep(0)
        before = statistics().not_established.get("LocalAbort", 0)
        begin.set()
        cloning.kill()
        assert statistics().not_established["LocalAbort"] == before + 1
        assert connection.grouped_connections() == [connection]


@pytest.mark.rfc("G-01", "N-14")
def test_a_clone_that_succeeds_while_its_maker_is_killed_is_no_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with plain_listener() as listener:
        port = listener.getsockname()[1]
        connection = Preconnection(remote_endpoint=remote(port)).initiate(timeout=10)
        adopt = Connection.adopt

        def adopt_late(clone: Connection, established: Any) -> None:
            cloning.kill(block=False)  # which comes when the clone has been established
            adopt(clone, established)

        monkeypatch.setattr(Connection, "adopt", adopt_late)
        cloning = gevent.spawn(connection.clone, timeout=10)
        cloning.join()
        assert isinstance(cloning.value, gevent.GreenletExit)
        until(lambda: connection.grouped_connections() == [connection])
        connection.abort()
