"""Establishing: races over real sockets, refusals, silence, and handshakes that fail."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from conftest import Certificates
from gevent import ssl as gssl
from greentaps import (
    CertificateError,
    EstablishmentError,
    LocalEndpoint,
    Preconnection,
    Reason,
    RemoteEndpoint,
    SecurityParameters,
    TlsError,
    TransportError,
)
from greentaps.taps.choosing import establishing
from peers import running
from taps.helpers import (
    HERE,
    Stopwatch,
    blackhole,
    ended_by_us,
    free_port,
    in_greenlet,
    local,
    outcome,
    plain_listener,
    port_of,
    remote,
    reset,
    until,
)


def trusting(certificates: Certificates) -> SecurityParameters:
    return SecurityParameters().add_trust_ca(certificates.ca)


def named(port: int, name: str = "localhost") -> RemoteEndpoint:
    """An endpoint that needs no look-up, and whose certificate must be for *name*."""
    return remote(port).with_hostname(name)


# -- Refused, silent --


@pytest.mark.rfc("I-07", "ER-04")
def test_a_refusal_says_who_and_why() -> None:
    port = free_port()
    with pytest.raises(EstablishmentError) as caught, Stopwatch() as took:
        Preconnection(remote_endpoint=remote(port)).initiate(timeout=10)
    assert took.seconds < 2
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
    ((candidate, error),) = caught.value.attempts
    assert str(candidate) == f"tcp to {HERE}:{port}"
    assert isinstance(error, ConnectionRefusedError)
    assert isinstance(error, TransportError)
    assert caught.value.__cause__ is error
    assert f"{HERE}:{port}" in str(caught.value)


@pytest.mark.rfc("I-01", "I-07", "TT-10", "ER-12", "MS-03")
def test_a_host_that_does_not_answer() -> None:
    with blackhole() as port, pytest.raises(EstablishmentError) as caught, Stopwatch() as took:
        Preconnection(remote_endpoint=remote(port)).initiate(timeout=0.3)
    assert 0.25 < took.seconds < 5
    assert caught.value.reason is Reason.TIMEOUT
    assert len(caught.value.attempts) == 1


@pytest.mark.rfc("TT-10", "ER-12")
@pytest.mark.parametrize("count", [1, 3])
def test_a_server_that_says_nothing_to_our_hello(certificates: Certificates, count: int) -> None:
    with plain_listener() as listener:
        ends = [remote(listener.getsockname()[1]) for _ in range(count)]
        preconnection = Preconnection(None, ends, None, trusting(certificates))
        with pytest.raises(EstablishmentError) as caught, Stopwatch() as took:
            preconnection.initiate(timeout=0.3)
        assert 0.25 < took.seconds < 5
        assert caught.value.reason is Reason.TIMEOUT
        peer, _ = listener.accept()
        assert ended_by_us(peer)
        peer.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_server_that_ends_during_the_handshake(certificates: Certificates, how: str) -> None:
    with plain_listener() as listener:
        preconnection = Preconnection(
            None, remote(listener.getsockname()[1]), None, trusting(certificates)
        )
        initiating = in_greenlet(preconnection.initiate, timeout=10)
        peer, _ = listener.accept()
        assert peer.recv(1)
        peer.close() if how == "close" else reset(peer)
        error = initiating.get()
    assert isinstance(error, EstablishmentError)
    assert error.reason is Reason.ESTABLISHMENT_FAILED
    assert isinstance(error.__cause__, TransportError)


# -- Handshakes that must not succeed --


@pytest.mark.rfc("A-02", "A-05", "SP-21", "TT-09")
@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 smtp ready\r\n", b"\0" * 100, b"\xff" * 70_000],
    ids=["http", "smtp", "zeros", "ones"],
)
def test_garbage_instead_of_a_handshake(certificates: Certificates, answer: bytes) -> None:
    with plain_listener() as listener:
        preconnection = Preconnection(
            None, remote(listener.getsockname()[1]), None, trusting(certificates)
        )
        initiating = in_greenlet(preconnection.initiate, timeout=10)
        peer, _ = listener.accept()
        hello = peer.recv(65536)
        assert hello.startswith(b"\x16\x03")  # and nothing in clear before it
        with contextlib.suppress(OSError):
            peer.sendall(answer)
        error = initiating.get()
        assert isinstance(error, EstablishmentError)
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert isinstance(error.__cause__, TlsError)
        assert not isinstance(error.__cause__, CertificateError)
        assert ended_by_us(peer)
        peer.close()
        # There was no second attempt, with anything less.
        listener.settimeout(0.02)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.rfc("SP-01", "SP-06")
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("expired", 10, "expired"),
        ("elsewhere", 62, "mismatch"),
        ("stranger", 20, "issuer"),
    ],
)
def test_certificates_that_are_not_acceptable(
    certificates: Certificates, name: str, code: int, words: str
) -> None:
    identity = SecurityParameters().add_identity(getattr(certificates, name), role="server")
    with Preconnection(local(), None, None, identity).listen() as listener:
        end = named(port_of(listener))
        with pytest.raises(EstablishmentError) as caught:
            Preconnection(None, end, None, trusting(certificates)).initiate(timeout=10)
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
    ((candidate, error),) = caught.value.attempts
    assert "tls/tcp" in str(candidate)
    assert isinstance(error, CertificateError)
    assert error.verify_code == code
    assert words in (error.verify_message or "").lower()
    assert caught.value.__cause__ is error


def test_an_authority_that_only_the_system_could_know(certificates: Certificates) -> None:
    """Without a trust anchor of ours the system's count, and ours is not among them."""
    identity = SecurityParameters().add_identity(certificates.server, role="server")
    with Preconnection(local(), None, None, identity).listen() as listener:
        error = outcome(
            Preconnection(None, named(port_of(listener)), None, SecurityParameters()).initiate,
            timeout=10,
        )
    assert isinstance(error, EstablishmentError)
    assert isinstance(error.__cause__, CertificateError)


@pytest.mark.parametrize("name", ["localhost", HERE, "LOCALHOST"])
def test_a_good_certificate(certificates: Certificates, name: str) -> None:
    identity = SecurityParameters().add_identity(certificates.server, role="server")
    with Preconnection(local(), None, None, identity).listen() as listener:
        end = named(port_of(listener), name)
        client = Preconnection(None, end, None, trusting(certificates)).initiate(timeout=10)
        with client, listener.accept(timeout=5) as server:
            assert client.stack == "tls/tcp"
            server.send(b"x")
            assert client.receive(1, timeout=5).data == b"x"


def test_a_name_that_is_not_in_the_certificate(certificates: Certificates) -> None:
    identity = SecurityParameters().add_identity(certificates.server, role="server")
    with Preconnection(local(), None, None, identity).listen() as listener:
        end = named(port_of(listener), "localhost.evil.example")
        with pytest.raises(EstablishmentError) as caught:
            Preconnection(None, end, None, trusting(certificates)).initiate(timeout=10)
    assert isinstance(caught.value.__cause__, CertificateError)


@pytest.mark.rfc("SP-05", "MU-12", "MU-13", "A-02", "A-05", "TT-09")
@pytest.mark.parametrize(("client", "server"), [("tls_1_3", "tls_1_2"), ("tls_1_2", "tls_1_3")])
def test_versions_that_do_not_meet(certificates: Certificates, client: str, server: str) -> None:
    identity = (
        SecurityParameters()
        .add_identity(certificates.server, role="server")
        .allow_protocols(server)
    )
    with Preconnection(local(), None, None, identity).listen() as listener:
        limited = trusting(certificates).allow_protocols(client)
        with pytest.raises(EstablishmentError) as caught:
            Preconnection(None, named(port_of(listener)), None, limited).initiate(timeout=10)
    assert isinstance(caught.value.__cause__, TlsError)


def test_a_plain_client_gets_no_secured_service(certificates: Certificates) -> None:
    """With disabled security nothing encrypts, and TLS's answer is mere data."""
    identity = SecurityParameters().add_identity(certificates.server, role="server")
    with Preconnection(local(), None, None, identity).listen() as listener:
        end = remote(port_of(listener))
        plain = Preconnection(None, end, None, SecurityParameters.disabled()).initiate(timeout=10)
        assert plain.stack == "tcp"
        plain.send(b"hello in clear\r\n")
        assert outcome(plain.receive, timeout=10) is not None
        plain.abort()


# -- Races --


@pytest.mark.rfc("E-19", "CR-02", "HE-03", "HE-10", "I-08", "TT-05")
def test_a_dead_address_costs_one_attempt_delay() -> None:
    with blackhole() as dead, plain_listener() as alive:
        ends = [remote(dead), remote(alive.getsockname()[1])]
        with Stopwatch() as took:
            connection = Preconnection(remote_endpoint=ends).initiate(timeout=10)
        assert 0.2 < took.seconds < 0.9  # the first retransmission would come after a second
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.port == alive.getsockname()[1]
        connection.close()


@pytest.mark.rfc("E-19", "CR-02", "TT-06", "DN-02")
def test_a_refusal_costs_nothing() -> None:
    with plain_listener() as alive:
        ends = [*(remote(free_port()) for _ in range(5)), remote(alive.getsockname()[1])]
        with Stopwatch() as took:
            connection = Preconnection(remote_endpoint=ends).initiate(timeout=10)
        connection.close()
    assert took.seconds < 0.2


@pytest.mark.rfc("HE-10", "DN-03", "CR-02", "I-08")
def test_losers_leave_nothing_at_their_peers(certificates: Certificates) -> None:
    """The first server says nothing, the second answers: then the first sees an end."""
    identity = SecurityParameters().add_identity(certificates.server, role="server")
    with (
        plain_listener() as silent,
        Preconnection(local(), None, None, identity).listen() as listener,
    ):
        ends = [remote(silent.getsockname()[1]), remote(port_of(listener))]
        with Stopwatch() as took:
            client = Preconnection(None, ends, None, trusting(certificates)).initiate(timeout=10)
        assert 0.2 < took.seconds < 5
        loser, _ = silent.accept()
        assert ended_by_us(loser)
        loser.close()
        with client, listener.accept(timeout=5) as server:
            client.send(b"the winner lives")
            assert server.receive(16, timeout=5).data == b"the winner lives"
        silent.settimeout(0.02)
        with pytest.raises(TimeoutError):
            silent.accept()


@pytest.mark.rfc("DN-03", "HE-10")
@pytest.mark.parametrize("wait", [True, False])
def test_an_attempt_that_is_faster_than_its_end_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    """It succeeds although nobody waits any more: between the kill and its arrival."""
    aborted: list[str] = []

    class Late:
        def __init__(self, name: str) -> None:
            self.name = name

        def abort(self) -> None:
            aborted.append(self.name)

    def attempt(candidate: Any, *_rest: Any) -> Any:
        with contextlib.suppress(gevent.GreenletExit):
            gevent.sleep(3600)
        return establishing.Established(candidate, Late(str(candidate.remote[1])), ())

    monkeypatch.setattr(establishing, "attempt_one", attempt)
    ends = [remote(1), remote(2)]
    preconnection = Preconnection(None, ends)
    if wait:
        waiting = in_greenlet(preconnection.initiate)
        gevent.sleep(0.3)  # so that both run
        waiting.kill()
    else:
        connection = preconnection.initiate(wait=False)
        gevent.sleep(0.3)
        connection.abort()
    until(lambda: sorted(aborted) == ["1", "2"])


def test_what_was_not_started_is_never_tried() -> None:
    with plain_listener() as first, plain_listener() as second:
        ends = [remote(first.getsockname()[1]), remote(second.getsockname()[1])]
        Preconnection(remote_endpoint=ends).initiate(timeout=10).close()
        second.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.accept()


@pytest.mark.rfc("DN-01", "DN-02", "I-07")
def test_all_fail_and_each_reason_is_told() -> None:
    ports = [free_port() for _ in range(4)]
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(remote_endpoint=[remote(port) for port in ports]).initiate(timeout=10)
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
    assert [
        str(port) in str(one) for port, (one, _) in zip(ports, caught.value.attempts, strict=True)
    ] == [True] * 4
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert all(isinstance(error, ConnectionRefusedError) for _, error in caught.value.attempts)


def test_a_bad_certificate_at_one_address_does_not_spoil_another(
    certificates: Certificates,
) -> None:
    bad = SecurityParameters().add_identity(certificates.expired, role="server")
    good = SecurityParameters().add_identity(certificates.server, role="server")
    with (
        Preconnection(local(), None, None, bad).listen() as first,
        Preconnection(local(), None, None, good).listen() as second,
    ):
        ends = [named(port_of(first)), named(port_of(second))]
        with Stopwatch() as took:
            client = Preconnection(None, ends, None, trusting(certificates)).initiate(timeout=10)
        with client:
            assert client.remote_endpoint is not None
            assert client.remote_endpoint.port == port_of(second)
        assert took.seconds < 0.24


def test_many_candidates_at_once() -> None:
    """A hundred addresses of this machine, of which all but the last refuse."""
    with plain_listener() as alive:
        ends = [remote(free_port(), f"127.0.0.{number}") for number in range(1, 100)]
        ends.append(remote(alive.getsockname()[1]))
        Preconnection(remote_endpoint=ends).initiate(timeout=20).close()


def test_every_local_address_is_tried() -> None:
    """The first of them cannot be bound."""
    with plain_listener() as listener:
        ends = [
            LocalEndpoint().with_ip_address("192.0.2.1"),
            LocalEndpoint().with_ip_address("127.0.0.9"),
        ]
        port = listener.getsockname()[1]
        with Preconnection(ends, remote(port)).initiate(timeout=10) as connection:
            assert connection.local_endpoint is not None
            assert connection.local_endpoint.ip_address == "127.0.0.9"


def test_phases_tell_where_the_time_went(certificates: Certificates) -> None:
    identity = SecurityParameters().add_identity(certificates.server, role="server")
    with Preconnection(local(), None, None, identity).listen() as listener:
        with Stopwatch() as took:
            client = Preconnection(
                None, named(port_of(listener)), None, trusting(certificates)
            ).initiate(timeout=10)
        with client:
            assert [name for name, _ in client.phases] == ["resolution", "tcp", "tls"]
            total = sum(seconds for _, seconds in client.phases)
            assert 0 < total <= took.seconds


# -- Other implementations --


@pytest.mark.peer
@pytest.mark.rfc("A-03")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_as_server(certificates: Certificates, version: str) -> None:
    port = free_port()
    with running(
        "openssl", "s_server", "-quiet", version, "-cert", certificates.server, "-key",
        certificates.server, "-accept", f"{HERE}:{port}", errors=True,
    ) as server:  # fmt: skip
        preconnection = Preconnection(None, named(port), None, trusting(certificates))
        with _retried(preconnection.initiate) as connection:
            connection.send(b"from us\n")
            server.wait_for("from us")
            server.say(b"from openssl\n")
            assert connection.receive(13, timeout=20).data == b"from openssl\n"


def _retried(initiate: Callable[..., Any]) -> Any:
    """What *initiate* gives as soon as there is a listener: the other program cannot tell when."""
    found: list[Any] = [None]

    def connected() -> bool:
        found[0] = outcome(initiate, timeout=10)
        return not isinstance(found[0], EstablishmentError)

    until(connected)
    return found[0]


@pytest.mark.rfc("A-03")
def test_a_server_of_pythons_own_ssl(certificates: Certificates) -> None:
    context = gssl.SSLContext(gssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    with plain_listener() as listener:
        port = listener.getsockname()[1]
        preconnection = Preconnection(None, named(port), None, trusting(certificates))
        initiating = in_greenlet(preconnection.initiate, timeout=10)
        raw, _ = listener.accept()
        with context.wrap_socket(raw, server_side=True) as peer, initiating.get() as connection:
            peer.sendall(b"x" * 100_000)
            received = b""
            while len(received) < 100_000:
                received += connection.receive(1, timeout=10).data
            connection.send(b"thanks")
            assert peer.recv(6) == b"thanks"
            connection.close()
            assert peer.recv(1) == b""  # a proper end: anything else raises here
