"""The Listener: that one bad peer does not keep the others out, and that what waits is bounded."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
import warnings
from collections.abc import Iterator

import gevent
import gevent.event
import pytest
from conftest import Certificates
from greentaps import (
    Connection,
    ConnectionError,  # noqa: A004 - RFC 9622's own name
    ConnectionState,
    EstablishmentError,
    LengthPrefixFramer,
    Listener,
    LocalEndpoint,
    Preconnection,
    Reason,
    ReceiveError,
    SecurityParameters,
    SwitchpointError,
    Timeout,
    Transport,
    TransportError,
)
from greentaps.hub import get_runner
from greentaps.taps import listener as listener_module
from greentaps.transports import SslTransport
from greentaps.transports import ssl as ssl_module
from peers import LIBRARY, running
from taps.helpers import (
    Stopwatch,
    ended_by_us,
    in_greenlet,
    local,
    outcome,
    plain_client,
    port_of,
    read_all,
    remote,
    reset,
    until,
)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Preconnection(local()).listen() as made:
        yield made


@pytest.fixture
def secured(certificates: Certificates) -> Iterator[Listener]:
    parameters = SecurityParameters().add_identity(certificates.server, role="server")
    with Preconnection(local(), security_parameters=parameters).listen() as made:
        yield made


def tls_client(port: int, certificates: Certificates) -> Connection:
    return Preconnection(
        remote_endpoint=remote(port),
        security_parameters=SecurityParameters().add_trust_ca(certificates.ca),
    ).initiate(timeout=10)


def quicken_handshakes(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(ssl_module, "HANDSHAKE_TIMEOUT", seconds)
    defaults = SslTransport.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "handshake_timeout", seconds)


def accepted() -> int:
    """How many connections of peers are open here, delivered or not."""
    return sum(isinstance(owner, Transport) for owner in get_runner().owners)


# -- Listening --


@pytest.mark.rfc("L-01", "L-02", "L-03", "TC-10")
def test_connections_are_ready_when_they_are_delivered(listener: Listener) -> None:
    with plain_client(port_of(listener)) as peer, listener.accept(timeout=5) as connection:
        assert connection.state is ConnectionState.ESTABLISHED
        connection.send(b"welcome")
        assert peer.recv(100) == b"welcome"
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.port == peer.getsockname()[1]


def test_the_system_chooses_a_port_where_none_is_given() -> None:
    with (
        Preconnection(LocalEndpoint().with_ip_address("127.0.0.1")).listen() as one,
        Preconnection(local(0)).listen() as two,
    ):
        assert 0 < port_of(one) != port_of(two) > 0
        assert str(port_of(one)) in repr(one)


def test_without_an_address_it_listens_on_all() -> None:
    with Preconnection(LocalEndpoint().with_port(0)).listen() as listener:
        where = {end.ip_address for end in listener.local_endpoints}
        assert "0.0.0.0" in where
        port = next(end.port for end in listener.local_endpoints if end.ip_address == "0.0.0.0")
        assert port
        with plain_client(port), listener.accept(timeout=5) as connection:
            assert connection.remote_endpoint is not None


def test_several_local_endpoints() -> None:
    ends = [local(address="127.0.0.1"), local(address="127.0.0.2"), local(address="::1")]
    with Preconnection(ends).listen() as listener:
        found = [(end.ip_address, end.port) for end in listener.local_endpoints]
        assert [address for address, _ in found] == ["127.0.0.1", "127.0.0.2", "::1"]
        for address, port in found:
            assert port
            with plain_client(port, str(address)), listener.accept(timeout=5) as connection:
                assert connection.local_endpoint is not None
                assert connection.local_endpoint.ip_address == address


def test_ipv6_to_ours() -> None:
    with Preconnection(local(address="::1")).listen() as listener:
        client = Preconnection(remote_endpoint=remote(port_of(listener), "::1")).initiate(10)
        with client, listener.accept(timeout=5) as server:
            client.send(b"six")
            assert server.receive(3, timeout=5).data == b"six"
            assert server.remote_endpoint is not None
            assert server.remote_endpoint.ip_address == "::1"


@pytest.mark.rfc("L-07")
def test_a_port_that_is_taken(listener: Listener) -> None:
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(local(port_of(listener))).listen()
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
    ((where, error),) = caught.value.attempts
    assert str(port_of(listener)) in str(where)
    assert isinstance(error, OSError)
    assert caught.value.__cause__ is error


def test_the_second_of_two_ports_is_taken(listener: Listener) -> None:
    """Then the first one is given back."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    with pytest.raises(EstablishmentError):
        Preconnection([local(free), local(port_of(listener))]).listen()
    until(lambda: outcome(lambda: plain_client(free).close()) is not None)
    with Preconnection(local(free)).listen() as again:
        assert port_of(again) == free


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(local(address="192.0.2.1")).listen()
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED


@pytest.mark.rfc("L-07", "ER-03")
def test_a_local_name_that_does_not_exist() -> None:
    end = LocalEndpoint().with_hostname("no-such-host.invalid").with_port(0)
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(end).listen(timeout=20)
    assert caught.value.reason is Reason.RESOLUTION_FAILED


# -- Accepting --


def test_accept_times_out_and_loses_nothing(listener: Listener) -> None:
    with pytest.raises(Timeout), Stopwatch() as took:
        listener.accept(timeout=0.05)
    assert 0.04 < took.seconds < 5
    with gevent.Timeout(0.02, False):
        listener.accept()
    killed = in_greenlet(listener.accept)
    killed.kill()
    with plain_client(port_of(listener)):
        listener.accept(timeout=5).close()


def test_acceptors_are_served_in_their_order(listener: Listener) -> None:
    acceptors = [in_greenlet(listener.accept) for _ in range(3)]
    for acceptor in acceptors:
        with plain_client(port_of(listener)) as peer:
            connection = acceptor.get()
            assert connection.remote_endpoint.port == peer.getsockname()[1]
            connection.close()


def test_connections_that_came_before_accept_wait(listener: Listener) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(plain_client(port_of(listener))) for _ in range(5)]
        until(lambda: accepted() == 5)
        ports = []
        for _ in peers:
            connection = stack.enter_context(listener.accept(timeout=5))
            ports.append(connection.remote_endpoint.port)  # type: ignore[union-attr]
        assert ports == [peer.getsockname()[1] for peer in peers]


def test_what_a_peer_said_before_accept_is_kept(listener: Listener) -> None:
    with plain_client(port_of(listener)) as peer:
        peer.sendall(b"early")
        peer.shutdown(socket.SHUT_WR)
        until(lambda: accepted() == 1)
        with listener.accept(timeout=5) as connection:
            assert connection.receive(timeout=5).data == b"early"


def test_a_peer_that_resets_before_accept_harms_nobody(listener: Listener) -> None:
    reset(plain_client(port_of(listener)))
    with plain_client(port_of(listener)) as peer:
        port = peer.getsockname()[1]
        while True:
            connection = listener.accept(timeout=5)
            end = connection.remote_endpoint
            if end is not None and end.port == port:
                break
            connection.abort()
        connection.close()


def test_in_a_callback_accept_is_refused(listener: Listener) -> None:
    found = gevent.event.AsyncResult()
    get_runner().call_soon(lambda: found.set(outcome(listener.accept)))
    assert isinstance(found.get(), SwitchpointError)


# -- Stopping --


@pytest.mark.rfc("L-04", "EV-04")
def test_stop_ends_an_iteration_and_wakes_acceptors(listener: Listener) -> None:
    everybody = in_greenlet(lambda: list(listener))
    waiting = in_greenlet(listener.accept)
    listener.stop()
    listener.stop()
    assert everybody.get() == []
    assert waiting.get().reason is Reason.CLOSED
    with pytest.raises(EstablishmentError) as caught:
        listener.accept()
    assert caught.value.reason is Reason.CLOSED
    assert "stopped" in repr(listener)


@pytest.mark.rfc("L-04")
def test_stop_frees_the_port_and_spares_what_was_delivered(listener: Listener) -> None:
    port = port_of(listener)
    with plain_client(port) as peer, listener.accept(timeout=5) as connection:
        listener.stop()
        connection.send(b"alive")
        assert peer.recv(10) == b"alive"
        with Preconnection(local(port)).listen() as again, plain_client(port):
            again.accept(timeout=5).close()


def test_connections_that_wait_are_aborted_at_stop(listener: Listener) -> None:
    with plain_client(port_of(listener)) as one, plain_client(port_of(listener)) as two:
        until(lambda: accepted() == 2)
        listener.stop()
        for peer in (one, two):
            with pytest.raises(ConnectionResetError):
                read_all(peer)


def test_handshakes_under_way_are_aborted_at_stop(secured: Listener) -> None:
    with plain_client(port_of(secured)) as peer:
        until(lambda: accepted() == 1)
        secured.stop()
        assert ended_by_us(peer)


def test_the_with_statement_stops(listener: Listener) -> None:
    port = port_of(listener)
    with listener:
        pass
    with pytest.raises(ConnectionRefusedError):
        until(lambda: plain_client(port).close())


# -- Limits --


def test_too_many_that_wait_stay_in_the_backlog(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "MAX_WAITING", 2)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(plain_client(port_of(listener))) for _ in range(6)]
        until(lambda: accepted() >= 2)
        for _ in range(20):
            gevent.sleep(0)
        assert accepted() == 2
        for number, peer in enumerate(peers):
            connection = listener.accept(timeout=5)
            assert connection.remote_endpoint is not None
            assert connection.remote_endpoint.port == peer.getsockname()[1]
            connection.close()
            assert accepted() <= 4, number


def test_who_waits_for_a_slow_handler_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "MAX_WAITING", 2)
    received: list[Connection] = []
    proceed = gevent.event.Event()

    def handle(connection: Connection) -> None:
        received.append(connection)
        proceed.wait()

    with Preconnection(local()).listen() as listener, contextlib.ExitStack() as stack:
        listener.on_connection_received(handle)
        for _ in range(6):
            stack.enter_context(plain_client(port_of(listener)))
        until(lambda: accepted() >= 3)
        for _ in range(20):
            gevent.sleep(0)
        assert accepted() == 3  # one in the handler, and two that wait
        assert len(received) == 1
        proceed.set()
        until(lambda: len(received) == 6)
        for connection in received:
            connection.abort()


def test_a_connection_that_was_on_its_way_to_a_killed_greenlet_ends_with_the_listener(
    listener: Listener,
) -> None:
    listener.set_new_connection_limit(0)
    with plain_client(port_of(listener)) as peer:
        until(lambda: accepted() == 1)
        waiting = in_greenlet(listener.accept)
        waiting.kill(block=False)
        listener.set_new_connection_limit(1)
        listener.stop()
        waiting.join()
        assert ended_by_us(peer)
    with pytest.raises(EstablishmentError):
        listener.accept()


def test_too_many_handshakes_stay_in_the_backlog(
    secured: Listener, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "MAX_HANDSHAKES", 2)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(plain_client(port_of(secured))) for _ in range(4)]
        until(lambda: accepted() >= 2)
        waiting = in_greenlet(tls_client, port_of(secured), certificates)
        for _ in range(20):
            gevent.sleep(0)
        assert accepted() == 3  # and one is the client's own
        assert not waiting.ready()
        for peer in silent:
            peer.close()
        server = secured.accept(timeout=10)
        client = waiting.get()
        client.close()
        server.close()


# -- Peers that misbehave at a TLS listener --


def test_a_silent_peer_does_not_keep_others_out(
    secured: Listener, certificates: Certificates
) -> None:
    with plain_client(port_of(secured)) as silent:
        client = in_greenlet(tls_client, port_of(secured), certificates)
        server = secured.accept(timeout=10)
        client.get().send(b"served")
        assert server.receive(6, timeout=5).data == b"served"
        client.get().close()
        server.close()
        silent.settimeout(0.02)
        with pytest.raises(TimeoutError):
            silent.recv(1)


def test_the_handshake_of_a_silent_peer_times_out(
    secured: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    quicken_handshakes(monkeypatch, 0.2)
    with plain_client(port_of(secured)) as silent, Stopwatch() as took:
        assert ended_by_us(silent)
    assert 0.15 < took.seconds < 5
    with pytest.raises(Timeout):
        secured.accept(timeout=0)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\0" * 1000,
        b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000,
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x80",
        b"",
    ],
    ids=["http", "zeros", "huge record", "alert", "one byte", "nothing"],
)
@pytest.mark.rfc("L-03", "A-02")
def test_garbage_instead_of_a_handshake(
    secured: Listener, certificates: Certificates, garbage: bytes
) -> None:
    """It is never delivered, and the next one is."""
    with plain_client(port_of(secured)) as bad:
        with contextlib.suppress(OSError):  # one that is refused early may see its sending fail
            bad.sendall(garbage)
        if len(garbage) < 2:
            bad.shutdown(socket.SHUT_WR)
        client = in_greenlet(tls_client, port_of(secured), certificates)
        with secured.accept(timeout=10) as server, client.get() as ours:
            assert server.remote_endpoint is not None
            assert ours.local_endpoint is not None
            assert server.remote_endpoint.port == ours.local_endpoint.port
        assert ended_by_us(bad)


def test_a_tls_client_at_a_plain_listener(listener: Listener, certificates: Certificates) -> None:
    """We are handed its hello as data; and the client must not take our answer for a server's."""
    client = in_greenlet(tls_client, port_of(listener), certificates)
    with listener.accept(timeout=5) as connection:
        assert connection.receive(5, timeout=5).data.startswith(b"\x16\x03")
        connection.send(b"220 welcome\r\n")
        error = client.get()
    assert isinstance(error, EstablishmentError)
    assert error.reason is Reason.ESTABLISHMENT_FAILED


@pytest.mark.rfc("SP-06", "SP-07", "A-04")
def test_a_client_must_have_a_certificate_where_the_listener_trusts_an_authority(
    certificates: Certificates,
) -> None:
    parameters = (
        SecurityParameters()
        .add_identity(certificates.server, role="server")
        .add_trust_ca(certificates.ca)
    )
    with Preconnection(local(), security_parameters=parameters).listen() as listener:
        for name in (None, "stranger"):
            theirs = SecurityParameters().add_trust_ca(certificates.ca)
            if name:
                theirs.add_identity(getattr(certificates, name), role="client")
            preconnection = Preconnection(
                remote_endpoint=remote(port_of(listener)), security_parameters=theirs
            )
            # With TLS 1.3 a client is done before the server has looked at its certificate.
            try:
                refused = preconnection.initiate(timeout=10)
            except EstablishmentError:
                continue
            with pytest.raises((ConnectionError, ReceiveError)) as caught:
                refused.receive(timeout=10)
            assert caught.value.reason is not Reason.CLOSED
            refused.abort()
        welcome = (
            SecurityParameters()
            .add_trust_ca(certificates.ca)
            .add_identity(certificates.client, role="client")
        )
        client = Preconnection(
            remote_endpoint=remote(port_of(listener)), security_parameters=welcome
        ).initiate(timeout=10)
        with client, listener.accept(timeout=5) as server:
            assert server.remote_endpoint is not None
            assert client.local_endpoint is not None
            assert server.remote_endpoint.port == client.local_endpoint.port
            certificate = server.transport.get_extra_info("peer_certificate")
            assert "client.example" in str(certificate)
            with pytest.raises(Timeout):
                listener.accept(timeout=0)  # the two others were never delivered


@pytest.mark.rfc("A-04")
def test_a_clients_identity_is_none_for_a_listener(certificates: Certificates) -> None:
    parameters = SecurityParameters().add_identity(certificates.server, role="client")
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(local(), security_parameters=parameters).listen()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


def test_too_old_a_client(secured: Listener, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is meant to be too old
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with plain_client(port_of(secured)) as raw:
        outgoing = ssl.MemoryBIO()
        session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            session.do_handshake()
        raw.sendall(outgoing.read())
        assert ended_by_us(raw)
    with pytest.raises(Timeout):
        secured.accept(timeout=0)


@pytest.mark.peer
def test_openssl_as_client(secured: Listener, certificates: Certificates) -> None:
    with running(
        "openssl", "s_client", "-quiet", "-verify_return_error", "-no_ign_eof",
        "-CAfile", certificates.ca, "-connect", f"127.0.0.1:{port_of(secured)}",
        errors=True,
    ) as peer, secured.accept(timeout=20) as connection:  # fmt: skip
        peer.say(b"from openssl\n")
        assert connection.receive(13, timeout=20).data == b"from openssl\n"
        connection.send(b"from us\n")
        peer.wait_for("from us")
        peer.end_input()
        assert connection.receive(timeout=20).end_of_message


@pytest.mark.peer
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_curl_as_client(
    listener: Listener, secured: Listener, certificates: Certificates, scheme: str
) -> None:
    ours = secured if scheme == "https" else listener
    url = f"{scheme}://localhost:{port_of(ours)}/"
    with running(
        "curl", "-sS", "-4", "--http1.1", "--max-time", 20, "--cacert", certificates.ca, url,
        errors=True,
    ) as curl:  # fmt: skip
        with ours.accept(timeout=20) as connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.receive(1, timeout=20).data
            assert request.startswith(b"GET / HTTP/1.1\r\n")
            connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello, curl")
        assert curl.read() == b"hello, curl"
        assert curl.wait() == 0


@pytest.mark.peer
def test_socat_as_client(listener: Listener) -> None:
    with (
        running("socat", "-", f"TCP4:127.0.0.1:{port_of(listener)}") as socat,
        listener.accept(timeout=20) as connection,
    ):
        socat.say(b"framed?\n")
        assert connection.receive(8, timeout=20).data == b"framed?\n"
        connection.send(b"no\n")
        assert socat.line() == "no"


def test_framers_reach_every_connection() -> None:
    preconnection = Preconnection(local()).add_framer(LengthPrefixFramer(1))
    with (
        preconnection.listen() as listener,
        plain_client(port_of(listener)) as one,
        plain_client(port_of(listener)) as two,
    ):
        one.sendall(b"\x03one\x02ha")
        two.sendall(b"\x03two")
        first, second = listener.accept(timeout=5), listener.accept(timeout=5)
        assert first.receive(timeout=5).data == b"one"
        assert second.receive(timeout=5).data == b"two"
        two.sendall(b"\x00")
        assert second.receive(timeout=5).data == b""
        assert first.receive(timeout=5).data == b"ha"
        first.close()
        second.close()


def test_a_listener_in_a_greenlet_serves_many() -> None:
    """The program of the README: a greenlet for each Connection."""
    with Preconnection(local()).listen() as listener:

        def echo(connection: Connection) -> None:
            with connection:
                connection.send(connection.receive(timeout=10).data)

        def serve() -> None:
            for connection in listener:
                gevent.spawn(echo, connection)

        server = gevent.spawn(serve)

        def ask(number: int) -> bytes:
            with plain_client(port_of(listener)) as peer:
                peer.sendall(b"%d" % number)
                peer.shutdown(socket.SHUT_WR)
                return read_all(peer)

        clients = [gevent.spawn(ask, number) for number in range(50)]
        assert [one.get() for one in clients] == [b"%d" % number for number in range(50)]
        listener.stop()
        server.get()


WITHOUT_DESCRIPTORS = """
import os, resource, socket
import gevent, greentaps

end = greentaps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(0)
with greentaps.Preconnection(end).listen() as listener:
    address = ("127.0.0.1", listener.local_endpoints[0].port)
    peers = [socket.socket() for _ in range(3)]
    highest = max(map(int, os.listdir("/proc/self/fd")))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, limits[1]))
    fillers = []
    try:
        while True:
            fillers.append(os.dup(0))
    except OSError:
        pass
    for peer in peers[:2]:
        peer.connect(address)
    for _ in range(50):
        gevent.sleep(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for filler in fillers:
        os.close(filler)
    peers[2].connect(address)
    while True:
        connection = listener.accept(timeout=10)
        if connection.remote_endpoint.port == peers[2].getsockname()[1]:
            print("accepted")
            break
"""


@pytest.mark.peer
def test_descriptors_run_out_and_come_back() -> None:
    """A listener survives that there is no descriptor for a while."""
    with running(
        sys.executable, "-c", WITHOUT_DESCRIPTORS, env={"PYTHONPATH": str(LIBRARY)}, errors=True
    ) as program:
        program.wait_for("accepted")
        assert program.wait() == 0


def test_a_hub_that_goes_wakes_whoever_waits_for_a_connection() -> None:
    heard: list[BaseException] = []

    def wait(listener: Listener) -> None:
        try:
            listener.accept()
        except TransportError as error:
            heard.append(error)

    def life() -> None:
        listener = Preconnection(local()).listen()
        gevent.spawn(wait, listener)
        gevent.sleep(0)
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=life)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert "destroyed" in str(heard[0])
