"""Passive open (RFC 9622 section 7.2): ConnectionReceived, limits, Stopped."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import gevent
import pytest
from conftest import Certificates
from gevent import socket as gsocket
from greentaps import (
    ConnectionState,
    EstablishmentError,
    LengthPrefixFramer,
    LocalEndpoint,
    Preconnection,
    Reason,
    RemoteEndpoint,
    SecurityParameters,
    Timeout,
    TransportProperties,
)
from greentaps.plugins import NEVER, STREAMS, Attempt, Plugin, register, unregister
from greentaps.taps.properties import INFINITE
from rfc9622.world import Log, datagrams, listening, plain, towards
from taps.helpers import (
    HERE,
    ended_by_us,
    in_greenlet,
    local,
    outcome,
    plain_client,
    port_of,
    reset,
    until,
)


def refusal(preconnection: Preconnection) -> EstablishmentError:
    with pytest.raises(EstablishmentError) as caught:
        preconnection.listen(timeout=10)
    return caught.value


# -- ConnectionReceived --


@pytest.mark.rfc("L-02", "L-03", "EV-03", "ST-03", "TC-09", "TC-10", "MS-02", "B-07", "LS-04")
def test_a_connection_is_ready_for_use_when_it_is_handed_over() -> None:
    with listening() as listener:
        received: list[Any] = []

        def handle(connection: Any) -> None:
            received.append((connection, connection.state))
            connection.send(b"welcome")

        listener.on_connection_received(handle)
        with plain_client(port_of(listener)) as client:
            assert client.recv(100) == b"welcome"
            ((connection, state),) = received
            assert state is ConnectionState.ESTABLISHED
            connection.abort()


@pytest.mark.rfc("L-03", "EV-01", "ST-03")
def test_no_ready_follows() -> None:
    preconnection = Preconnection(local())
    log = Log(preconnection)
    with preconnection.listen() as listener:
        with plain_client(port_of(listener)) as client:
            server = listener.accept(timeout=10)
            server.receive(1, wait=False)
            client.sendall(b"x")
            until(lambda: log)
        server.receive(1, wait=False)
        until(lambda: len(log) > 1)
        server.close()
        until(lambda: log.ended)
    assert log.names == ["received_partial", "received_partial", "closed"]


@pytest.mark.rfc("OR-02", "OR-03")
def test_events_wait_until_the_application_has_the_connection() -> None:
    """Also where the end was there first; and none comes of one that is never handed over."""
    preconnection = Preconnection(local())
    heard: list[Any] = []
    preconnection.on_connection_error(lambda *args: heard.append("error"))
    with preconnection.listen() as listener:
        for _ in range(2):
            client = plain_client(port_of(listener))
            until(lambda: len(listener._waiting) == 1)
            (waiting,) = listener._waiting
            reset(client)
            until(lambda: waiting.state is ConnectionState.CLOSED)  # noqa: B023
            gevent.sleep(0)
            if not heard:
                listener.on_connection_received(lambda connection: heard.append("received"))
                until(lambda: len(heard) > 1)
                assert heard == ["received", "error"]
                listener.on_connection_received(None)
    gevent.sleep(0)
    assert heard == ["received", "error"]


@pytest.mark.rfc("UD-09", "UD-10", "L-02", "LS-05", "OR-02", "UD-03", "MS-02")
def test_over_udp_the_first_datagram_of_a_peer_makes_a_connection() -> None:
    with listening(datagrams()) as listener:
        here = (HERE, port_of(listener))
        with (
            gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        ):
            with pytest.raises(Timeout):
                listener.accept(timeout=0)
            one.sendto(b"one", here)
            first = listener.accept(timeout=10)
            one.sendto(b"again", here)
            other.sendto(b"other", here)
            second = listener.accept(timeout=10)
            assert [first.receive(timeout=10).data for _ in range(2)] == [b"one", b"again"]
            assert second.receive(timeout=10).data == b"other"
            assert first.remote_endpoint is not None
            assert second.remote_endpoint is not None
            assert first.remote_endpoint.port == one.getsockname()[1]
            assert second.remote_endpoint.port == other.getsockname()[1]
            first.send(b"to one")
            one.settimeout(10)
            assert one.recv(100) == b"to one"
            first.abort()
            second.abort()


@pytest.mark.rfc("DN-06", "LS-04", "Q-09", "L-02")
def test_with_tls_it_is_handed_over_after_the_handshake(certificates: Certificates) -> None:
    theirs = SecurityParameters().add_identity(certificates.server, role="server")
    with (
        Preconnection(local(), security_parameters=theirs).listen() as listener,
        plain_client(port_of(listener)) as silent,
    ):
        silent.sendall(b"\x16")
        with pytest.raises(Timeout):
            listener.accept(timeout=0.05)


@pytest.mark.rfc("L-08", "F-02", "G-06")
def test_framers_reach_each_connection() -> None:
    framer = LengthPrefixFramer(1)
    with (
        Preconnection(local()).add_framer(framer).listen() as listener,
        plain_client(port_of(listener)) as one,
        plain_client(port_of(listener)) as other,
    ):
        servers = [listener.accept(timeout=10) for _ in range(2)]
        one.sendall(b"\x03ab")
        other.sendall(b"\x02xy")
        assert servers[1].receive(timeout=10).data == b"xy"
        one.sendall(b"c")
        assert servers[0].receive(timeout=10).data == b"abc"
        for server in servers:
            server.abort()


@pytest.mark.rfc("L-10", "P-14")
def test_defaults_of_the_role() -> None:
    with listening() as listener, plain_client(port_of(listener)):
        server = listener.accept(timeout=10)
        client = towards(listener).initiate(timeout=10)
        properties = server.get_properties().requested
        assert str(properties.get("multipath")) == "Passive"
        assert str(properties.get("useTemporaryLocalAddress")) == "Avoid"
        assert str(client.get_properties().requested.get("multipath")) == "Disabled"
        client.abort()
        server.abort()


# -- Who is let in --


@pytest.mark.rfc("L-01")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_a_remote_endpoint_limits_who_comes_in(kind: int) -> None:
    properties = datagrams() if kind == socket.SOCK_DGRAM else None
    friends = RemoteEndpoint().with_ip_address("127.0.0.2")
    with (
        Preconnection(local(), friends, properties).listen() as listener,
        gsocket.socket(socket.AF_INET, kind) as stranger,
        gsocket.socket(socket.AF_INET, kind) as friend,
    ):
        friend.bind(("127.0.0.2", 0))
        for client in (stranger, friend):
            client.settimeout(10)
            outcome(client.connect, (HERE, port_of(listener)))
            outcome(client.send, b"hello")
        server = listener.accept(timeout=10)
        assert server.remote_endpoint is not None
        assert server.remote_endpoint.ip_address == "127.0.0.2"
        with pytest.raises(Timeout):
            listener.accept(timeout=0.05)
        if kind == socket.SOCK_STREAM:
            assert not isinstance(outcome(stranger.recv, 10), TimeoutError)
        server.abort()


@pytest.mark.rfc("L-01")
def test_a_service_limits_who_comes_in_as_its_port_does() -> None:
    port, service = _free_service()
    peer = RemoteEndpoint().with_ip_address(HERE).with_service(service)
    with listening(of=Preconnection(local(), peer)) as listener:
        with plain_client(port_of(listener)) as stranger:
            assert ended_by_us(stranger)
        with gsocket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind((HERE, port))
            client.connect((HERE, port_of(listener)))
            with listener.accept(timeout=10) as connection:
                assert connection.remote_endpoint is not None
                assert connection.remote_endpoint.port == port
                client.close()


def _free_service() -> tuple[int, str]:
    for port in range(1024, 65536):
        try:
            service = socket.getservbyport(port, "tcp")
            with socket.socket() as probe:
                probe.bind((HERE, port))
        except OSError:
            continue
        return port, service
    raise AssertionError("this machine knows no service")


@pytest.mark.rfc("L-06", "TT-12", "N-12", "B-07", "AC-06")
def test_the_limit_counts_what_is_delivered() -> None:
    with listening() as listener:
        received: list[Any] = []
        listener.set_new_connection_limit(2)
        listener.on_connection_received(received.append)
        clients = [plain_client(port_of(listener)) for _ in range(4)]
        until(lambda: len(listener._waiting) == 2)
        assert len(received) == 2
        listener.set_new_connection_limit(1)
        until(lambda: len(received) == 3)
        gevent.sleep(0)
        assert len(received) == 3
        listener.set_new_connection_limit(INFINITE)
        until(lambda: len(received) == 4)
        for end in clients:
            end.close()
        for connection in received:
            connection.abort()


@pytest.mark.rfc("L-06", "B-04")
def test_the_limit_and_accept() -> None:
    with listening() as listener:
        listener.set_new_connection_limit(1)
        clients = [plain_client(port_of(listener)) for _ in range(2)]
        first = listener.accept(timeout=10)
        with pytest.raises(Timeout):
            listener.accept(timeout=0.05)
        accepting = in_greenlet(listener.accept)
        broken_off = in_greenlet(listener.accept)
        broken_off.kill()
        listener.set_new_connection_limit(1)
        second = accepting.get()
        assert second.state is ConnectionState.ESTABLISHED
        for end in clients:
            end.close()
        first.abort()
        second.abort()


# -- Stopped --


@pytest.mark.rfc("L-04", "L-05", "EV-04", "AC-06")
@pytest.mark.parametrize("properties", [None, datagrams()], ids=["tcp", "udp"])
def test_stop(properties: TransportProperties | None) -> None:
    listener = listening(properties)
    heard: list[Any] = []
    listener.on_stopped(heard.append)
    port = port_of(listener)
    client = towards(listener, properties).initiate(timeout=10)
    client.send(b"x")
    server = listener.accept(timeout=10)
    accepting = in_greenlet(listener.accept)
    listener.stop()
    listener.stop()
    error = accepting.get()
    assert isinstance(error, EstablishmentError)
    assert error.reason is Reason.CLOSED
    assert list(listener) == []
    until(lambda: heard)
    assert heard == [listener]
    # What was delivered lives on.
    server.send(b"still here")
    assert client.receive(1, timeout=10).data == b"still here"
    server.abort()
    client.abort()
    # And the port is free, as soon as nothing uses it any more.
    until(lambda: properties is None or not server.transport or not _taken(port))
    with Preconnection(local(port), transport_properties=properties).listen():
        pass


def _taken(port: int) -> bool:
    with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return isinstance(outcome(probe.bind, (HERE, port)), OSError)


# -- Failing --


@pytest.mark.rfc("L-07", "ER-03", "EV-02")
@pytest.mark.parametrize("which", ["local", "remote"])
def test_ends_that_cannot_be_resolved(which: str) -> None:
    nowhere = "no-such-host.invalid"
    if which == "local":
        preconnection = Preconnection(LocalEndpoint().with_hostname(nowhere))
    else:
        preconnection = Preconnection(local(), RemoteEndpoint().with_hostname(nowhere))
    log = Log(preconnection, ("establishment_error",))
    error = refusal(preconnection)
    assert error.reason is Reason.RESOLUTION_FAILED
    until(lambda: log)
    assert log.of("establishment_error") == [(error,)]


@pytest.mark.rfc("L-07", "ER-04", "UD-07")
@pytest.mark.parametrize("properties", [None, datagrams()], ids=["tcp", "udp"])
def test_an_address_that_is_taken_or_not_ours(properties: TransportProperties | None) -> None:
    with listening(properties) as holder:
        taken = local(port_of(holder))
        for here in (taken, local(0, "192.0.2.99")):
            error = refusal(Preconnection(here, transport_properties=properties))
            assert error.reason is Reason.ESTABLISHMENT_FAILED
            assert isinstance(error.__cause__, OSError)
            assert f"\n  {here!r}: bind: " in str(error)


@pytest.mark.rfc("L-07", "EV-04", "OR-05")
@pytest.mark.parametrize("first_is_free", [False, True])
def test_a_listener_that_never_was_is_not_stopped(first_is_free: bool) -> None:
    with listening() as listener:
        ends = [local(port_of(listener))]
        if first_is_free:
            ends.insert(0, local())
        preconnection = Preconnection(ends)
        log = Log(preconnection, ("stopped", "establishment_error"))
        refusal(preconnection)
        until(lambda: log)
        for _ in range(3):
            gevent.sleep(0)
        assert log.names == ["establishment_error"]


@pytest.mark.rfc("L-07", "A-04", "ER-01")
def test_tls_without_an_identity(certificates: Certificates) -> None:
    client_only = SecurityParameters().add_identity(certificates.client, role="client")
    error = refusal(Preconnection(local(), security_parameters=client_only))
    assert error.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("LS-01", "LS-02", "A-22")
def test_without_an_address_it_listens_on_all_and_on_a_port_of_the_systems() -> None:
    with Preconnection(LocalEndpoint().with_port(0)).listen() as listener:
        found = {(end.ip_address, end.port) for end in listener.local_endpoints}
        assert {address for address, _ in found} <= {"0.0.0.0", "::"}
        assert all(port for _, port in found)


@pytest.mark.rfc("LS-03", "A-22")
def test_tcp_and_udp_on_one_port() -> None:
    either = TransportProperties(
        reliability="ignore", preserveOrder="ignore", congestionControl="ignore"
    ).set("safelyReplayable", True)
    with Preconnection(local(), transport_properties=either).listen() as listener:
        ports = {end.port for end in listener.local_endpoints}
        assert len(ports) == 1
        with (
            plain_client(ports.pop()) as stream,
            gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        ):
            first = listener.accept(timeout=10)
            assert first.stack == "tcp"
            datagram.sendto(b"x", stream.getpeername())
            second = listener.accept(timeout=10)
            assert second.stack == "udp"
            first.abort()
            second.abort()


class Layer(Plugin):
    """One that stands on any stream, and does nothing."""

    name = "layer"
    over = (STREAMS,)
    stream = True
    offers: ClassVar = {"fullChecksumSend": NEVER}

    def open(self, attempt: Attempt, below: Any) -> Any:
        return below

    def accept(self, attempt: Attempt, below: Any) -> Any:
        return below


@pytest.fixture
def layer() -> Iterator[None]:
    plugin = Layer()
    register(plugin)
    yield
    unregister(plugin)


@pytest.mark.rfc("L-07")
@pytest.mark.parametrize("interface", [None, "lo"])
@pytest.mark.parametrize(("wish", "stack"), [("prefer", "tcp"), ("avoid", "layer/tcp")])
def test_of_several_stacks_over_one_protocol_the_best_has_the_port(
    layer: None, wish: str, stack: str, interface: str | None
) -> None:
    wanted = TransportProperties(fullChecksumSend=wish)
    here = local() if interface is None else local().with_interface(interface)
    with Preconnection(here, transport_properties=wanted).listen() as listener:
        assert len(listener.local_endpoints) == 1
        with plain_client(port_of(listener)) as client:
            client.sendall(b"x")
            with listener.accept(timeout=10) as connection:
                assert connection.stack == stack
                assert connection.receive(min_incomplete_length=1, timeout=10).data == b"x"


@pytest.mark.rfc("L-02")
def test_a_burst_of_clients_has_room() -> None:
    """Whom the kernel has no room for tries again after a second, and then after two more."""
    burst = min(200, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    with listening() as listener, ExitStack() as clients:
        for _ in range(burst):  # the hub does not run meanwhile, so that nothing is accepted
            address = (HERE, port_of(listener))
            client = clients.enter_context(socket.create_connection(address, timeout=0.9))
            reset(client)


@pytest.mark.rfc("L-05", "T-04")
@pytest.mark.leaves_things
def test_a_listener_ends_with_the_hub() -> None:
    """The global context of this library is the thread's hub."""
    import threading

    ports: list[int] = []

    def elsewhere() -> None:
        listener = listening()
        ports.append(port_of(listener))
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(20)
    with gsocket.socket() as client:
        client.settimeout(10)
        with pytest.raises(ConnectionRefusedError):
            client.connect((HERE, ports[0]))


@pytest.mark.rfc("P-16", "P-34", "RV-15")
def test_a_listener_that_only_sends() -> None:
    one_way = TransportProperties(direction="unidirectional-send")
    with listening(one_way) as listener, plain_client(port_of(listener)) as client:
        server = listener.accept(timeout=10)
        server.send(b"one way")
        assert client.recv(100) == b"one way"
        assert server.get_properties().get("canReceive") is False
        server.abort()


@pytest.mark.rfc("UD-09")
def test_a_taken_datagram_port_says_so() -> None:
    with plain(HERE, socket.SOCK_DGRAM) as holder:
        end = local(holder.getsockname()[1])
        error = refusal(Preconnection(end, transport_properties=datagrams()))
        assert "in use" in str(error)
