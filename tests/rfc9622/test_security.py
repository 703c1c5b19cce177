"""Security Parameters (RFC 9622 section 6.3) on the wire, with OpenSSL's own client and server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from conftest import Certificates
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from gevent import socket as gsocket
from gevent.event import Event
from gevent.socket import wait_read
from greentaps import (
    CertificateError,
    Connection,
    EstablishmentError,
    Listener,
    Preconnection,
    Reason,
    RemoteEndpoint,
    Resolver,
    SecurityParameters,
    SystemPolicy,
    Timeout,
    TlsError,
    TransportProperties,
    set_system_policy,
)
from greentaps.certificates import CertificateAuthority
from greentaps.plugins import Attempt, register, unregister
from greentaps.plugins.tls import Tls
from greentaps.taps import listener as listener_module
from greentaps.taps.choosing import gathering as choosing
from greentaps.taps.properties import UnknownPropertyError
from OpenSSL import SSL
from taps.helpers import (
    Stopwatch,
    in_greenlet,
    local,
    owned,
    plain_client,
    plain_listener,
    port_of,
    read_all,
    read_exactly,
    remote,
    until,
)
from transports.helpers import Process

HANDSHAKE, ALERT = 0x16, 0x15
SERVER_NAME, GROUPS, SIGNATURES, ALPN, PRE_SHARED_KEY, VERSIONS = 0, 10, 13, 16, 41, 43
PSK_KEY = bytes(range(16))
VERSION_OPTIONS = {"tls_1_2": "-tls1_2", "tls_1_3": "-tls1_3"}
both_versions = pytest.mark.parametrize("version", list(VERSION_OPTIONS))


# -- Peers --


class OpenSslServer(Process):
    """OpenSSL's server, on a port of the system's choice."""

    def port(self) -> int:
        descriptor = self._process.stdout.fileno()
        while (found := re.search(rb"ACCEPT 127.0.0.1:([0-9]+)\s", self.output)) is None:
            wait_read(descriptor, 10, TimeoutError(f"no port in {self.output!r}"))
            piece = os.read(descriptor, 65536)
            assert piece, self.output
            self.output += piece
        return int(found[1])


@contextlib.contextmanager
def s_server(
    certificates: Certificates, *options: str, name: str | None = "server"
) -> Iterator[tuple[Process, int]]:
    """OpenSSL's server, and its port."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", *options]
    command += ["-nocert"] if name is None else ["-cert", str(getattr(certificates, name))]
    with OpenSslServer(*command) as process:
        yield process, process.port()


def s_client(port: int, *options: str) -> Process:
    return Process("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options)


def trusting(certificates: Certificates) -> SecurityParameters:
    return SecurityParameters().add_trust_ca(certificates.ca)


def serving(certificates: Certificates, name: str = "server") -> SecurityParameters:
    return SecurityParameters().set("serverCertificate", getattr(certificates, name))


def connect(
    port: int, security: SecurityParameters, host: str | None = None, **properties: Any
) -> Connection:
    where = remote(port)
    if host is not None:
        where = RemoteEndpoint().with_hostname(host).with_port(port)
    wanted = TransportProperties()
    for name, value in properties.items():
        wanted.set(name, value)
    return Preconnection(None, where, wanted, security).initiate(timeout=10)


def listening(security: SecurityParameters) -> Listener:
    return Preconnection(local(), None, None, security).listen()


def failure(port: int, security: SecurityParameters, **options: Any) -> EstablishmentError:
    """How an attempt fails, which it must."""
    with pytest.raises(EstablishmentError) as caught:
        connect(port, security, **options)
    return caught.value


def info(connection: Connection, name: str) -> Any:
    return connection.transport.get_extra_info(name)


def of_openssl(connection: Connection) -> bool:
    """Whether pyOpenSSL is the engine."""
    return type(info(connection, "ssl")).__module__ == "OpenSSL.SSL"


# -- The wire --


class ClientHello:
    """What a client says first; the only thing that it says in clear."""

    def __init__(self, data: bytes) -> None:
        assert data[0] == HANDSHAKE
        assert data[5] == 1
        rest = data[9 + 2 + 32 :]
        rest = rest[1 + rest[0] :]
        size = int.from_bytes(rest[:2], "big")
        self.suites = struct.unpack(f">{size // 2}H", rest[2 : 2 + size])
        rest = rest[2 + size :]
        rest = rest[1 + rest[0] :]
        rest = rest[2:]
        self.extensions: dict[int, bytes] = {}
        while rest:
            kind, size = struct.unpack(">HH", rest[:4])
            self.extensions[kind] = rest[4 : 4 + size]
            rest = rest[4 + size :]

    def numbers(self, extension: int) -> list[int]:
        data = self.extensions[extension]
        skip = 1 if extension == VERSIONS else 2
        data = data[skip:]
        return list(struct.unpack(f">{len(data) // 2}H", data))


def read_record(peer: gsocket.socket) -> bytes:
    head = read_exactly(peer, 5)
    return head + read_exactly(peer, int.from_bytes(head[3:], "big"))


def client_hello(security: SecurityParameters) -> ClientHello:
    """What *security* makes a client say."""
    with plain_listener() as listener:
        attempt = in_greenlet(connect, listener.getsockname()[1], security)
        peer, _ = listener.accept()
        with peer:
            record = read_record(peer)
        assert isinstance(attempt.get(timeout=10), EstablishmentError)
    return ClientHello(record)


# -- Objects --


@pytest.mark.rfc("SP-01", "SH-13")
@pytest.mark.peer
@both_versions
def test_the_defaults_need_a_trust_store_and_no_more(
    certificates: Certificates, version: str
) -> None:
    with (
        s_server(certificates, VERSION_OPTIONS[version]) as (process, port),
        connect(port, trusting(certificates)) as connection,
    ):
        connection.send(b"hello there\n")
        process.read_until(b"hello there")
        assert connection.stack == "tls/tcp"
        assert info(connection, "peer_authenticated") is True
        assert info(connection, "session_reused") is False
        assert info(connection, "tls_version") == version.replace("tls_1_", "TLSv1.")
        assert not of_openssl(connection)


@pytest.mark.rfc("SP-01", "SP-21", "A-02")
@pytest.mark.parametrize("name", ["expired", "elsewhere", "stranger"])
@pytest.mark.parametrize("groups", [None, "secp256r1"], ids=["stdlib", "pyopenssl"])
def test_the_peer_is_verified(certificates: Certificates, name: str, groups: Any) -> None:
    security = trusting(certificates).set("supportedGroup", groups)
    with listening(serving(certificates, name)) as listener:
        error = failure(port_of(listener), security)
        assert isinstance(error.__cause__, CertificateError)
        assert [str(candidate)[:7] for candidate, _ in error.attempts] == ["tls/tcp"]


@pytest.mark.rfc("SP-02")
@pytest.mark.parametrize("security", [None, SecurityParameters.disabled()], ids=["none", "off"])
def test_disabled_security_adds_nothing(security: Any) -> None:
    with plain_listener() as listener:
        connection = connect(listener.getsockname()[1], security)
        peer, _ = listener.accept()
        with connection, peer:
            assert connection.stack == "tcp"
            connection.send(b"in clear")
            assert read_exactly(peer, 8) == b"in clear"
            assert info(connection, "peer_authenticated") is None


# -- Opportunistic --


@pytest.mark.rfc("SP-03")
@pytest.mark.peer
@pytest.mark.parametrize("name", ["server", "stranger"])
def test_opportunistic_with_a_tls_peer(certificates: Certificates, name: str) -> None:
    """Whoever it is: nobody is verified, also if it would be possible."""
    with (
        s_server(certificates, name=name) as (process, port),
        connect(port, SecurityParameters.opportunistic()) as connection,
    ):
        connection.send(b"hello there\n")
        process.read_until(b"hello there")
        assert connection.stack == "tls/tcp"
        assert info(connection, "peer_authenticated") is False


def plain_peer(listener: gsocket.socket, reaction: str) -> bytes:
    """A peer without TLS: it sees a ClientHello, and then a connection with plain data."""
    first, _ = listener.accept()
    with first:
        hello = read_record(first)
        with contextlib.suppress(ConnectionError):
            if reaction == "answers":
                first.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            if reaction != "closes":
                read_all(first)
    assert hello[0] == HANDSHAKE
    second, _ = listener.accept()
    with second:
        second.sendall(b"welcome")
        return read_all(second)


@pytest.mark.rfc("SP-03")
@pytest.mark.parametrize("reaction", ["answers", "closes", "is silent"])
def test_opportunistic_with_a_peer_without_tls(
    monkeypatch: pytest.MonkeyPatch, reaction: str
) -> None:
    monkeypatch.setattr(choosing, "OPPORTUNITY", 0.2)
    with plain_listener() as listener:
        peer = gevent.spawn(plain_peer, listener, reaction)
        with Stopwatch() as took:
            connection = connect(listener.getsockname()[1], SecurityParameters.opportunistic())
        assert took.seconds < 5, "the time for TLS is limited"
        with connection:
            assert connection.stack == "tcp"
            assert not info(connection, "peer_authenticated")
            assert bytes(connection.receive(min_incomplete_length=7).data) == b"welcome"
            connection.send(b"thanks")
        assert peer.get(timeout=10) == b"thanks"


@pytest.mark.rfc("SP-03")
def test_opportunistic_with_nobody() -> None:
    with plain_listener() as listener:
        port = listener.getsockname()[1]
    error = failure(port, SecurityParameters.opportunistic())
    assert [str(candidate).split()[0] for candidate, _ in error.attempts] == ["tls/tcp", "tcp"]


def opportune(certificates: Certificates) -> SecurityParameters:
    return SecurityParameters.opportunistic().set("serverCertificate", certificates.server)


@pytest.mark.rfc("SP-03")
def test_an_opportunistic_listener_has_tls_with_those_who_begin_it(
    certificates: Certificates,
) -> None:
    with listening(opportune(certificates)) as listener:
        port = port_of(listener)
        with (
            connect(port, trusting(certificates)) as client,
            listener.accept(timeout=10) as server,
        ):
            assert (client.stack, server.stack) == ("tls/tcp", "tls/tcp")
            client.send(b"secret")
            assert server.receive(1, timeout=10).data == b"secret"
        with plain_client(port) as peer:
            peer.sendall(b"G")  # one byte is enough, and is not lost
            server = listener.accept(timeout=10)
            assert server.stack == "tcp"
            peer.sendall(b"ET /")
            got = b""
            while len(got) < 5:
                got += server.receive(1, timeout=10).data
            assert got == b"GET /"
            server.abort()
        with s_client(port, "-tls1_3") as process:
            server = listener.accept(timeout=10)
            assert server.stack == "tls/tcp"
            server.send(b"welcome")
            process.read_until(b"welcome")
            server.abort()
        # With two that are opportunistic there is TLS.
        with (
            connect(port, SecurityParameters.opportunistic()) as client,
            listener.accept(timeout=10) as server,
        ):
            assert client.stack == server.stack == "tls/tcp"


@pytest.mark.rfc("SP-03", "SR-03")
def test_silent_clients_of_an_opportunistic_listener(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "OPPORTUNITY", 0.2)
    with listening(opportune(certificates)) as listener, plain_client(port_of(listener)) as peer:
        with pytest.raises(Timeout):
            listener.accept(timeout=0.05)
        server = listener.accept(timeout=10)
        assert server.stack == "tcp"
        server.send(b"you first")
        assert peer.recv(9) == b"you first"
        server.abort()
    # They take the places of handshakes, and the end of the Listener is theirs.
    monkeypatch.setattr(listener_module, "OPPORTUNITY", 20)
    before = owned()
    with listening(opportune(certificates)) as listener:
        silent = [plain_client(port_of(listener)) for _ in range(3)]
        until(lambda: len(listener._handshakes) == 3)
        silent[0].close()  # without a word
        with contextlib.suppress(EstablishmentError, Timeout):
            listener.accept(timeout=5).abort()
        assert len(listener._handshakes) == 2
    for peer in silent[1:]:
        with peer, contextlib.suppress(ConnectionError):
            assert peer.recv(1) == b""
    until(lambda: owned() <= before)


@pytest.mark.rfc("SP-03", "P-18")
@pytest.mark.parametrize("level", ["require", "prefer"])
def test_an_opportunistic_listener_cannot_promise_to_speak_first(
    level: str, certificates: Certificates
) -> None:
    wishes = TransportProperties().set("activeReadBeforeSend", level)
    with pytest.raises(EstablishmentError, match="speaks first") as caught:
        Preconnection(local(), None, wishes, opportune(certificates)).listen()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("SP-03")
def test_an_opportunistic_listener_needs_an_identity() -> None:
    with pytest.raises(EstablishmentError) as caught:
        listening(SecurityParameters.opportunistic())
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("SP-03", "A-01")
def test_opportunistic_parameters_refuse_what_would_have_no_effect(
    certificates: Certificates,
) -> None:
    security = SecurityParameters.opportunistic()
    refused: list[Callable[[], Any]] = [
        lambda: security.add_trust_ca(certificates.ca),
        lambda: security.add_pin(certificates.server),
        lambda: security.set("pinnedServerCertificate", certificates.server),
        lambda: security.set_pre_shared_key(PSK_KEY, "me"),
        lambda: security.set_trust_verification_callback(lambda question: True),
    ]
    for call in refused:
        with pytest.raises(ValueError, match="opportunistic"):
            call()
    security.set("alpn", "h2").add_identity(certificates.client, role="client")
    with pytest.raises(ValueError, match="disabled"):
        SecurityParameters.disabled().set("alpn", "h2")


# -- Set and get --


@pytest.mark.rfc("SP-04", "SH-14")
@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("allowedSecurityProtocols", ["tls_1_3"], ("tls_1_3",)),
        ("allowed-security-protocols", ["TLS_1_3", "tls-1-2"], ("tls_1_2", "tls_1_3")),
        ("allowed_security_protocols", [["tls_1_3", "tls_1_2"]], ("tls_1_2", "tls_1_3")),
        ("alpn", ["h2"], ("h2",)),
        ("ALPN", ["h2", "http/1.1"], ("h2", "http/1.1")),
        ("alpn", [["h2", "http/1.1"]], ("h2", "http/1.1")),
        ("alpn", [("h2",)], ("h2",)),
        ("alpn", [[]], ()),
        ("supportedGroup", ["X25519"], ("x25519",)),
        ("supported_group", [["P-256", "secp384r1"]], ("secp256r1", "secp384r1")),
        ("ciphersuite", ["TLS_AES_128_GCM_SHA256"], ("TLS_AES_128_GCM_SHA256",)),
        ("signature-algorithm", ["ed25519", "ed25519"], ("ed25519",)),
        ("maxCachedSessions", [16], 16),
        ("max-cached-sessions", [0], 0),
        ("cachedSessionLifetimeSeconds", [60], 60),
    ],
)
def test_set_and_get(name: str, given: list[Any], read: Any) -> None:
    security = SecurityParameters()
    default = security.get(name)
    assert security.set(name, *given) is security
    assert security.get(name) == read
    assert security.copy().get(name) == read
    security.set(name, None)
    assert security.get(name) == default


@pytest.mark.rfc("SP-04")
@pytest.mark.parametrize(
    ("name", "given", "error"),
    [
        ("nothing", ["x"], UnknownPropertyError),
        (5, ["x"], TypeError),
        ("allowedSecurityProtocols", ["tls_1_1"], ValueError),
        ("allowedSecurityProtocols", [[]], ValueError),
        ("allowedSecurityProtocols", [13], TypeError),
        ("alpn", [b"h2"], TypeError),
        ("alpn", ["x" * 256], ValueError),
        ("alpn", [["x" * 255] * 300], ValueError),
        ("supportedGroup", ["secp192r1"], ValueError),
        ("supportedGroup", [[]], ValueError),
        ("ciphersuite", ["TLS_RSA_WITH_NULL_MD5"], ValueError),
        ("signatureAlgorithm", ["rsa_pkcs1_sha1"], ValueError),
        ("maxCachedSessions", [-1], ValueError),
        ("maxCachedSessions", [True], TypeError),
        ("maxCachedSessions", [1, 2], TypeError),
        ("maxCachedSessions", ["many"], TypeError),
        ("cachedSessionLifetimeSeconds", [1 << 40], ValueError),
        ("preSharedKey", [PSK_KEY], TypeError),
        ("preSharedKey", [b"short", "me"], ValueError),
        ("preSharedKey", [PSK_KEY, ""], ValueError),
        ("preSharedKey", [PSK_KEY, "a\0b"], ValueError),
        ("preSharedKey", ["text" * 8, "me"], TypeError),
        ("pinnedServerCertificate", ["sha256/short"], ValueError),
        ("pinnedServerCertificate", ["sha256/!"], ValueError),
        ("pinnedServerCertificate", ["sha256:12"], ValueError),
        ("pinnedServerCertificate", [b"nothing"], ValueError),
        ("pinnedServerCertificate", [5], TypeError),
        ("pinnedServerCertificate", [], ValueError),
        ("pinnedServerCertificate", ["/nowhere/at/all.pem"], OSError),
        ("serverCertificate", [5], TypeError),
        ("serverCertificate", [("a", "b", 5)], TypeError),
        ("serverCertificate", [("a", "b", "c", "d")], ValueError),
        ("serverCertificate", [b"nothing"], ValueError),
        ("clientCertificate", ["/nowhere/at/all.pem"], OSError),
    ],
)
def test_set_refuses(name: Any, given: list[Any], error: type[Exception]) -> None:
    security = SecurityParameters().set("alpn", "kept").set("maxCachedSessions", 7)
    with pytest.raises(error):
        security.set(name, *given)
    assert security.get("alpn") == ("kept",)
    assert security.get("maxCachedSessions") == 7
    with contextlib.suppress(UnknownPropertyError, TypeError):
        assert security.get(name) == SecurityParameters().set("alpn", "kept").set(
            "maxCachedSessions", 7
        ).get(name)


def test_nothing_secret_is_shown() -> None:
    security = SecurityParameters().set_pre_shared_key(b"sixteen letters!", "me")
    for shown in (repr(security), repr(security.get("preSharedKey"))):
        assert "sixteen" not in shown


@pytest.mark.rfc("SP-20")
def test_what_is_supported_can_be_asked_for() -> None:
    assert SecurityParameters.supported("allowedSecurityProtocols") == ("tls_1_2", "tls_1_3")
    assert {"x25519", "secp256r1"} <= set(SecurityParameters.supported("supportedGroup"))
    assert "ed25519" in SecurityParameters.supported("signature_algorithm")
    assert "TLS_AES_128_GCM_SHA256" in SecurityParameters.supported("ciphersuite")
    assert bytes in SecurityParameters.supported("serverCertificate")
    assert SecurityParameters.supported("maxCachedSessions") == (int,)
    with pytest.raises(KeyError):
        SecurityParameters.supported("nothing")


@pytest.mark.rfc("SP-20")
@pytest.mark.parametrize("name", ["supportedGroup", "ciphersuite", "signatureAlgorithm"])
def test_each_supported_value_can_be_had(name: str) -> None:
    for value in SecurityParameters.supported(name):
        security = SecurityParameters().set(name, value)
        if "_PSK_" in value:
            security.set_pre_shared_key(PSK_KEY, "me")
        assert security.context(server_side=False)


# -- Versions --


@pytest.mark.rfc("SP-05", "SP-21", "MU-12", "MU-13", "A-02", "A-05", "SR-02")
@pytest.mark.peer
def test_no_older_version_than_allowed(certificates: Certificates) -> None:
    security = trusting(certificates).set("allowedSecurityProtocols", "tls_1_3")
    with s_server(certificates, "-tls1_2") as (process, port):
        error = failure(port, security)
        assert isinstance(error.__cause__, TlsError)
        assert "ersion" in str(error.__cause__)
        process.read_until(b"ERROR")
    with s_server(certificates, "-tls1_3") as (_, port), connect(port, security) as connection:
        assert info(connection, "tls_version") == "TLSv1.3"


@pytest.mark.rfc("SP-05", "MU-12")
@both_versions
@pytest.mark.parametrize("groups", [None, "secp256r1"], ids=["stdlib", "pyopenssl"])
def test_versions_on_the_wire(version: str, groups: Any) -> None:
    security = SecurityParameters().set("allowedSecurityProtocols", version)
    hello = client_hello(security.set("supportedGroup", groups))
    assert (VERSIONS in hello.extensions) == (version == "tls_1_3")
    if version == "tls_1_3":
        assert hello.numbers(VERSIONS) == [0x0304]


@pytest.mark.rfc("SP-05", "A-02")
@pytest.mark.peer
def test_a_listener_keeps_to_its_versions(certificates: Certificates) -> None:
    security = serving(certificates).set("allowedSecurityProtocols", "tls_1_3")
    with listening(security) as listener:
        with s_client(port_of(listener), "-tls1_2") as process:
            assert b"alert protocol version" in process.read_all()
        with s_client(port_of(listener), "-tls1_3"), listener.accept(timeout=10) as connection:
            assert info(connection, "tls_version") == "TLSv1.3"


@pytest.mark.rfc("SP-21", "A-02", "A-05", "SR-01", "SR-02", "A-11")
@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"", bytes((ALERT, 3, 3, 0, 2, 2, 70))],
    ids=["clear", "nothing", "alert"],
)
def test_a_failure_of_tls_yields_nothing_in_clear(answer: bytes) -> None:
    """One attempt, of which the peer sees TLS records and nothing else."""

    def serve(listener: gsocket.socket) -> bytes:
        peer, _ = listener.accept()
        with peer:
            data = read_record(peer)
            with contextlib.suppress(ConnectionError):
                peer.sendall(answer)
                peer.shutdown(1)
                while piece := peer.recv(65536):
                    data += piece
        return data

    with plain_listener() as listener:
        server = gevent.spawn(serve, listener)
        made = Preconnection(None, remote(listener.getsockname()[1]), None, SecurityParameters())
        with pytest.raises(EstablishmentError) as caught:
            made.initiate_with_send(b"SECRET", timeout=10)
        assert isinstance(caught.value.__cause__, TlsError)
        data = server.get(timeout=10)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert b"SECRET" not in data
    while data:
        assert data[0] in (HANDSHAKE, ALERT)
        data = data[5 + int.from_bytes(data[3:5], "big") :]


# -- Certificates --


@pytest.mark.rfc("SP-06", "SP-07", "A-04")
@pytest.mark.peer
@both_versions
def test_identities_in_their_roles(certificates: Certificates, version: str) -> None:
    security = trusting(certificates).set("clientCertificate", certificates.client)
    options = ("-Verify", "1", "-CAfile", str(certificates.ca), VERSION_OPTIONS[version])
    with s_server(certificates, *options) as (process, port), connect(port, security):
        assert b"CN=client.example" in process.read_until(b"client.example").replace(b" ", b"")
    with pytest.raises(EstablishmentError, match="identity") as caught:
        listening(security)
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("SP-07", "A-04")
@pytest.mark.peer
def test_a_server_identity_is_not_shown_by_a_client(certificates: Certificates) -> None:
    security = trusting(certificates).set("serverCertificate", certificates.server)
    options = ("-verify", "1", "-CAfile", str(certificates.ca))
    with (
        s_server(certificates, *options) as (process, port),
        connect(port, security) as connection,
    ):
        connection.send(b"hello\n")
        assert b"Client certificate" not in process.read_until(b"hello")


@pytest.mark.rfc("SP-06")
@pytest.mark.peer
@pytest.mark.parametrize("groups", [None, "secp256r1"], ids=["stdlib", "pyopenssl"])
@pytest.mark.parametrize("form", ["path", "pem", "tuple", "object", "array"])
def test_a_listener_presents_its_certificate(
    certificates: Certificates, form: str, groups: Any
) -> None:
    authority = CertificateAuthority("of this test")
    issued = authority.issue("localhost")
    value: Any = {
        "path": certificates.server,
        "pem": issued.private_key + issued.certificate,
        "tuple": (issued.certificate, issued.private_key),
        "object": issued,
        "array": [(issued.certificate, issued.private_key)],
    }[form]
    security = SecurityParameters().set("serverCertificate", value).set("supportedGroup", groups)
    with (
        listening(security) as listener,
        s_client(port_of(listener)) as process,
        listener.accept(timeout=10),
    ):
        wanted = b"throw-away" if form == "path" else b"of this test"
        process.read_until(wanted)


@pytest.mark.rfc("SP-06", "SP-08")
@pytest.mark.peer
@pytest.mark.parametrize("groups", [None, "secp256r1"], ids=["stdlib", "pyopenssl"])
def test_trust_on_a_listener_means_that_clients_authenticate(
    certificates: Certificates, groups: Any
) -> None:
    security = serving(certificates).add_trust_ca(certificates.ca).set("supportedGroup", groups)
    with listening(security) as listener:
        with s_client(port_of(listener), "-tls1_2") as process:
            assert b"alert" in process.read_all()
        cert = ("-cert", str(certificates.client))
        with s_client(port_of(listener), *cert), listener.accept(timeout=10) as connection:
            assert info(connection, "peer_authenticated") is True


# -- Pins --


def digests(certificates: Certificates) -> tuple[str, str]:
    """The pins of the server's key and certificate."""
    found = x509.load_pem_x509_certificate(certificates.server.read_bytes())
    key = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    whole = hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest()
    return (
        "sha256/" + base64.b64encode(hashlib.sha256(key).digest()).decode(),
        "sha256:" + ":".join(whole[at : at + 2] for at in range(0, 64, 2)).upper(),
    )


@pytest.mark.rfc("SP-08")
@pytest.mark.peer
@pytest.mark.parametrize("form", ["path", "pem", "der", "authority", "key", "digest", "several"])
def test_a_pin_that_fits(certificates: Certificates, form: str) -> None:
    key, digest = digests(certificates)
    pem = certificates.server.read_bytes()
    values: list[Any] = {
        "path": [certificates.server],
        "pem": [pem],
        "der": [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)],
        "authority": [certificates.ca],
        "key": [key],
        "digest": [digest],
        "several": [certificates.stranger, certificates.server],
    }[form]
    security = trusting(certificates).set("pinnedServerCertificate", *values)
    with s_server(certificates) as (process, port), connect(port, security) as connection:
        connection.send(b"hello there\n")
        process.read_until(b"hello there")
        assert info(connection, "peer_authenticated") is True


@pytest.mark.rfc("SP-08")
@pytest.mark.peer
@both_versions
def test_a_pin_that_does_not_fit(certificates: Certificates, version: str) -> None:
    security = trusting(certificates).add_pin(certificates.stranger)
    with s_server(certificates, VERSION_OPTIONS[version]) as (process, port):
        error = failure(port, security)
        assert isinstance(error.__cause__, CertificateError)
        assert "pinned" in str(error.__cause__)
        assert b"alert bad certificate" in process.read_until(b"alert bad certificate")


@pytest.mark.rfc("SP-08")
def test_a_pin_does_not_replace_verification(certificates: Certificates) -> None:
    security = trusting(certificates).add_pin(certificates.stranger, certificates.elsewhere)
    for name in ("stranger", "elsewhere"):
        with listening(serving(certificates, name)) as listener:
            error = failure(port_of(listener), security)
            assert isinstance(error.__cause__, CertificateError)
            assert "pinned" not in str(error.__cause__)


@pytest.mark.rfc("SP-08")
def test_a_pinned_certificate_that_is_merely_sent_along_is_no_match(
    certificates: Certificates,
) -> None:
    """Certificates are public: anybody can append one to the own chain."""
    pem = certificates.server.read_bytes()
    stranger = certificates.stranger.read_bytes()
    chain = pem + stranger[stranger.index(b"-----BEGIN CERT") :]
    security = trusting(certificates).add_pin(certificates.stranger)
    with listening(SecurityParameters().set("serverCertificate", chain)) as listener:
        assert "pinned" in str(failure(port_of(listener), security).__cause__)
        security.set_trust_verification_callback(lambda question: True)
        assert "pinned" in str(failure(port_of(listener), security).__cause__)


# -- ALPN, groups, suites, signatures --


@pytest.mark.rfc("SP-09")
def test_alpn_on_the_wire() -> None:
    assert ALPN not in client_hello(SecurityParameters()).extensions
    hello = client_hello(SecurityParameters().set("alpn", ["h2", "http/1.1"]))
    assert hello.extensions[ALPN][2:] == b"\x02h2\x08http/1.1"


@pytest.mark.rfc("SP-09")
@pytest.mark.peer
def test_a_server_chooses_by_its_own_order(certificates: Certificates) -> None:
    with listening(serving(certificates).set("alpn", ["two", "one"])) as listener:
        with (
            s_client(port_of(listener), "-alpn", "one,two,three"),
            listener.accept(timeout=10) as connection,
        ):
            assert info(connection, "alpn") == "two"
        with s_client(port_of(listener)), listener.accept(timeout=10) as connection:
            assert info(connection, "alpn") is None
        with s_client(port_of(listener), "-alpn", "three") as process:
            assert b"no application protocol" in process.read_all()
        error = failure(port_of(listener), trusting(certificates).set("alpn", "three"))
        assert "no application protocol" in str(error.__cause__)


@pytest.mark.rfc("SP-10")
@pytest.mark.peer
def test_groups(certificates: Certificates) -> None:
    security = trusting(certificates).set("supportedGroup", "secp256r1")
    assert client_hello(security).numbers(GROUPS) == [23]
    hello = client_hello(security.copy().set("supportedGroup", ["x25519", "secp384r1"]))
    assert hello.numbers(GROUPS) == [29, 24]
    with (
        s_server(certificates, "-groups", "P-256") as (_, port),
        connect(port, security) as connection,
    ):
        assert info(connection, "ssl").get_group_name() == "secp256r1"
    with s_server(certificates, "-groups", "X25519") as (_, port):
        assert isinstance(failure(port, security).__cause__, TlsError)


@pytest.mark.rfc("SP-11")
@pytest.mark.peer
@pytest.mark.parametrize(
    ("suite", "number", "version"),
    [
        ("TLS_AES_128_GCM_SHA256", 0x1301, "-tls1_3"),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xC02B, "-tls1_2"),
    ],
)
def test_suites(certificates: Certificates, suite: str, number: int, version: str) -> None:
    """They also decide on the version: none without a suite is offered."""
    security = trusting(certificates).set("ciphersuite", suite)
    assert set(client_hello(security).suites) - {0x00FF} == {number}
    with s_server(certificates) as (_, port), connect(port, security) as connection:
        assert info(connection, "tls_version") == version.replace("-tls1_", "TLSv1.")
    other = {"-tls1_2": "-tls1_3", "-tls1_3": "-tls1_2"}[version]
    with s_server(certificates, other) as (_, port):
        assert isinstance(failure(port, security).__cause__, TlsError)


@pytest.mark.rfc("SP-11", "SP-05")
def test_suites_that_leave_no_version() -> None:
    security = SecurityParameters().set("ciphersuite", "TLS_AES_128_GCM_SHA256")
    error = failure(1, security.set("allowedSecurityProtocols", "tls_1_2"))
    assert error.reason is Reason.INVALID_CONFIGURATION
    assert "ciphersuite" in str(error)
    assert "allowedSecurityProtocols" in str(error)


@pytest.mark.rfc("SP-12")
@pytest.mark.peer
def test_signatures(certificates: Certificates) -> None:
    security = trusting(certificates).set("signatureAlgorithm", "ecdsa_secp256r1_sha256")
    assert client_hello(security).numbers(SIGNATURES) == [0x0403]
    with s_server(certificates) as (_, port), connect(port, security):
        pass
    with s_server(certificates) as (_, port):
        security.set("signatureAlgorithm", "ed25519")
        assert isinstance(failure(port, security).__cause__, TlsError)


@pytest.mark.rfc("SP-10", "SP-12")
@pytest.mark.peer
def test_a_listeners_groups_and_suites(certificates: Certificates) -> None:
    security = serving(certificates).set("supportedGroup", "secp384r1")
    security.set("ciphersuite", "TLS_CHACHA20_POLY1305_SHA256")
    with listening(security) as listener:
        with s_client(port_of(listener)), listener.accept(timeout=10) as connection:
            assert info(connection, "tls_cipher") == "TLS_CHACHA20_POLY1305_SHA256"
            assert info(connection, "ssl").get_group_name() == "secp384r1"
        with s_client(port_of(listener), "-groups", "X25519") as process:
            assert b"alert" in process.read_all()


# -- Sessions --


def visit(process: Process, port: int, security: SecurityParameters, **options: Any) -> bool:
    """One connection, with a word each way; whether its session was an earlier one's."""
    with connect(port, security, **options) as connection:
        process.say(b"word\n")
        assert connection.receive(min_incomplete_length=5).data
        reused = info(connection, "session_reused")
        assert info(connection, "peer_authenticated") is True
    assert isinstance(reused, bool)
    return reused


@pytest.mark.rfc("SP-13", "CA-01")
@pytest.mark.peer
@both_versions
@pytest.mark.parametrize("groups", [None, "secp256r1"], ids=["stdlib", "pyopenssl"])
def test_sessions_are_resumed(certificates: Certificates, version: str, groups: Any) -> None:
    """Also by another Preconnection with the same parameters, but for no other name or port."""
    security = trusting(certificates).set("supportedGroup", groups)
    with s_server(certificates, VERSION_OPTIONS[version]) as (process, port):
        assert not visit(process, port, security)
        assert visit(process, port, security)
        process.read_until(b"Reused session-id")
        assert not visit(process, port, security, host="localhost")
        with s_server(certificates, VERSION_OPTIONS[version]) as (other, another_port):
            assert not visit(other, another_port, security)
        assert visit(process, port, security.copy())
        changed = security.copy().set("alpn", "x")
        assert not visit(process, port, changed)
        assert visit(process, port, security)


@pytest.mark.rfc("SP-13")
@pytest.mark.peer
def test_a_session_is_resumed_while_the_first_connection_lives(
    certificates: Certificates,
) -> None:
    security = trusting(certificates)
    with listening(serving(certificates)) as listener:
        port = port_of(listener)
        with connect(port, security) as first, listener.accept(timeout=5) as theirs:
            theirs.send(b"x")
            first.receive(min_incomplete_length=1)
            with connect(port, security) as second:
                assert info(second, "session_reused") is True
            with connect(port, security) as third:
                # The ticket of TLS 1.3 was used up, and the second had no data to bring another.
                assert info(third, "tls_version") == "TLSv1.3"


@pytest.mark.rfc("ZR-05", "SR-04")
@pytest.mark.parametrize("groups", [None, "secp256r1"], ids=["stdlib", "pyopenssl"])
def test_of_two_attempts_one_shows_the_ticket(certificates: Certificates, groups: Any) -> None:
    """Whoever watches two paths must not see the same ticket on both of them."""

    class Two(Resolver):
        def addresses(self, name: str, family: int, **_more: Any) -> list[str]:
            return ["127.0.0.1", "127.0.0.2"] if family == socket.AF_INET else []

    security = trusting(certificates).set("supportedGroup", groups)
    with listening(serving(certificates, "elsewhere")) as listener:
        port = port_of(listener)
        end = RemoteEndpoint().with_hostname("other.example").with_port(port)
        preconnection = Preconnection(None, end, None, security, resolver=Two())
        with preconnection.initiate(timeout=10) as client, listener.accept(timeout=10) as server:
            server.send(b"x")
            assert client.receive(min_incomplete_length=1, timeout=10)
            assert info(client, "tls_version") == "TLSv1.3"
    with contextlib.ExitStack() as stack:
        peers = []
        for address in ("127.0.0.1", "127.0.0.2"):
            silent = stack.enter_context(gsocket.socket())
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            silent.bind((address, port))
            silent.listen(1)
            silent.settimeout(10)
            peers.append(silent)
        attempt = in_greenlet(preconnection.initiate, timeout=10)
        hellos = []
        for silent in peers:
            peer, _ = silent.accept()
            hellos.append(ClientHello(read_record(stack.enter_context(peer))))
        attempt.kill()
    assert [PRE_SHARED_KEY in hello.extensions for hello in hellos] == [True, False]


@pytest.mark.rfc("SP-13", "SP-14")
@pytest.mark.peer
@pytest.mark.parametrize("name", ["maxCachedSessions", "cachedSessionLifetimeSeconds"])
def test_sessions_can_be_turned_off(certificates: Certificates, name: str) -> None:
    security = trusting(certificates).set(name, 0)
    with s_server(certificates) as (process, port):
        for _ in range(2):
            assert not visit(process, port, security)


@pytest.mark.rfc("P-31", "CA-04", "A-19", "TT-20")
@pytest.mark.peer
def test_isolated_connections_leave_and_take_no_session(certificates: Certificates) -> None:
    security = trusting(certificates)
    with s_server(certificates) as (process, port):
        assert not visit(process, port, security, isolateSession=True)
        assert not visit(process, port, security)
        assert not visit(process, port, security, isolateSession=True)
        assert visit(process, port, security)


@pytest.mark.rfc("SP-13", "SP-14")
@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "value", "reused"),
    [("maxCachedSessions", 0, False), ("cachedSessionLifetimeSeconds", 100, True)],
)
def test_a_listeners_tickets(
    certificates: Certificates, name: str, value: int, reused: bool
) -> None:
    client = trusting(certificates)
    with listening(serving(certificates).set(name, value)) as listener:
        for expected in (False, reused):
            with connect(port_of(listener), client) as ours, listener.accept(timeout=5) as theirs:
                theirs.send(b"x")
                ours.receive(min_incomplete_length=1)
                assert info(ours, "session_reused") is expected
                assert info(theirs, "session_reused") is expected
                session = info(ours, "ssl").session
                assert value == 0 or session.ticket_lifetime_hint == value


# -- Pre-shared keys --


@pytest.mark.rfc("SP-15", "SP-04")
@pytest.mark.peer
@both_versions
def test_a_client_with_a_preshared_key(certificates: Certificates, version: str) -> None:
    options = (VERSION_OPTIONS[version], "-psk", PSK_KEY.hex(), "-psk_identity", "me")
    security = SecurityParameters().set("preSharedKey", PSK_KEY, "me")
    with s_server(certificates, *options, name=None) as (process, port):
        with connect(port, security) as connection:
            connection.send(b"hello there\n")
            process.read_until(b"hello there")
            assert info(connection, "peer_authenticated") is True
            assert info(connection, "peer_certificate") is None
        wrong = SecurityParameters().set_pre_shared_key(PSK_KEY[::-1], "me")
        assert isinstance(failure(port, wrong).__cause__, TlsError)


@pytest.mark.rfc("SP-15")
@pytest.mark.peer
@both_versions
def test_a_listener_with_a_preshared_key(version: str) -> None:
    security = SecurityParameters().set_pre_shared_key(PSK_KEY, b"me")
    right = (VERSION_OPTIONS[version], "-psk", PSK_KEY.hex(), "-psk_identity", "me")
    wrong = (VERSION_OPTIONS[version], "-psk", PSK_KEY[::-1].hex(), "-psk_identity", "me")
    other = (VERSION_OPTIONS[version], "-psk", PSK_KEY.hex(), "-psk_identity", "you")
    with listening(security) as listener:
        with (
            s_client(port_of(listener), *right) as process,
            listener.accept(timeout=10) as connection,
        ):
            process.say(b"hello\n")
            assert connection.receive(min_incomplete_length=6).data == b"hello\n"
            assert info(connection, "peer_authenticated") is True
        for options in (wrong, other, (VERSION_OPTIONS[version],)):
            with s_client(port_of(listener), *options) as process:
                assert b"alert" in process.read_all()


@pytest.mark.rfc("SP-15", "SP-21", "A-02")
@pytest.mark.peer
@both_versions
def test_a_certificate_is_no_substitute_for_the_key(
    certificates: Certificates, version: str
) -> None:
    security = trusting(certificates).set_pre_shared_key(PSK_KEY, "me")
    with s_server(certificates, VERSION_OPTIONS[version]) as (_, port):
        assert isinstance(failure(port, security).__cause__, TlsError)


def test_a_suite_that_does_not_go_with_a_key() -> None:
    security = SecurityParameters().set_pre_shared_key(PSK_KEY, "me")
    security.set("ciphersuite", "TLS_AES_256_GCM_SHA384")
    error = failure(1, security)
    assert error.reason is Reason.INVALID_CONFIGURATION
    assert "preSharedKey" in str(error)


@pytest.mark.rfc("SP-15", "A-01")
def test_what_has_no_use_with_a_key_is_refused(certificates: Certificates) -> None:
    for change in (
        lambda made: made.add_pin(certificates.server),
        lambda made: made.set_trust_verification_callback(lambda question: True),
        lambda made: made.set_identity_challenge_callback(lambda question: None),
    ):
        security = SecurityParameters().set_pre_shared_key(PSK_KEY, "me")
        change(security)
        error = failure(1, security)
        assert error.reason is Reason.INVALID_CONFIGURATION
        assert "preSharedKey" in str(error)


# -- The trust callback --


@pytest.mark.rfc("SP-16")
@pytest.mark.peer
@both_versions
@pytest.mark.parametrize("name", ["server", "stranger", "elsewhere"])
def test_the_trust_callback_has_the_last_word(
    certificates: Certificates, version: str, name: str
) -> None:
    questions = []

    def judge(question: Any) -> bool:
        questions.append(question)
        return True

    security = trusting(certificates).set_trust_verification_callback(judge)
    with (
        s_server(certificates, VERSION_OPTIONS[version], name=name) as (process, port),
        connect(port, security, host="localhost") as connection,
    ):
        connection.send(b"hello there\n")
        process.read_until(b"hello there")
        assert info(connection, "peer_authenticated") is True
    (question,) = questions
    presented = x509.load_pem_x509_certificate(getattr(certificates, name).read_bytes())
    assert question.certificates[0] == presented.public_bytes(Encoding.DER)
    assert question.server_name == "localhost"
    assert (question.error is None) == (name == "server")
    assert not question.server_side
    if name == "elsewhere":
        assert question.error_code == 62


@pytest.mark.rfc("SP-16")
@pytest.mark.peer
@both_versions
@pytest.mark.parametrize(
    "answer", [False, None, 1, ValueError("boom"), gevent.GreenletExit()], ids=repr
)
def test_whom_the_callback_does_not_trust_gets_an_alert(
    certificates: Certificates, version: str, answer: Any
) -> None:
    def judge(question: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    security = trusting(certificates).set_trust_verification_callback(judge)
    with s_server(certificates, VERSION_OPTIONS[version]) as (process, port):
        error = failure(port, security)
        assert isinstance(error.__cause__, CertificateError)
        assert "callback" in str(error.__cause__)
        if isinstance(answer, BaseException):
            assert error.__cause__.__cause__ is answer
        process.read_until(b"alert certificate unknown")


@pytest.mark.rfc("SP-18", "SP-16", "B-05")
@both_versions
def test_a_slow_trust_callback_holds_the_handshake(
    certificates: Certificates, version: str
) -> None:
    """Until it has answered, the server gets nothing more than the ClientHello."""
    asked, may_answer = Event(), Event()

    def judge(question: Any) -> bool:
        asked.set()
        return may_answer.wait(10)

    security = trusting(certificates).set_trust_verification_callback(judge)
    context = certificates.server_context()
    context.maximum_version = ssl.TLSVersion[version.replace("tls_1_", "TLSv1_")]
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    with plain_listener() as listener:
        attempt = in_greenlet(connect, listener.getsockname()[1], security)
        peer, _ = listener.accept()
        with peer:
            incoming.write(read_record(peer))
            with pytest.raises(ssl.SSLWantReadError):
                server.do_handshake()
            peer.sendall(outgoing.read())
            assert asked.wait(10)
            assert not attempt.ready()
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            peer.settimeout(10)
            may_answer.set()
            while True:
                incoming.write(read_record(peer))
                with contextlib.suppress(ssl.SSLWantReadError):
                    server.do_handshake()
                    break
            peer.sendall(outgoing.read())
            connection = attempt.get(timeout=10)
            assert info(connection, "tls_version") == version.replace("tls_1_", "TLSv1.")
            connection.abort()


@pytest.mark.rfc("SP-18")
def test_the_time_limit_covers_the_callback(certificates: Certificates) -> None:
    may_answer = Event()
    security = trusting(certificates)
    security.set_trust_verification_callback(lambda question: may_answer.wait(10))
    with listening(serving(certificates)) as listener:
        made = Preconnection(None, remote(port_of(listener)), None, security)
        with pytest.raises(EstablishmentError) as caught:
            made.initiate(timeout=0.2)
        assert caught.value.reason is Reason.TIMEOUT
    may_answer.set()


@pytest.mark.rfc("SP-16")
@pytest.mark.peer
@both_versions
@pytest.mark.parametrize("verdict", [True, False])
def test_a_listener_judges_clients(certificates: Certificates, version: str, verdict: bool) -> None:
    questions = []

    def judge(question: Any) -> bool:
        questions.append(question)
        return verdict

    security = serving(certificates).set_trust_verification_callback(judge)
    options = (VERSION_OPTIONS[version], "-cert", str(certificates.client))
    with (
        listening(security) as listener,
        s_client(port_of(listener), *options) as process,
    ):
        if verdict:
            with listener.accept(timeout=10) as connection:
                process.say(b"hello\n")
                assert connection.receive(min_incomplete_length=6).data == b"hello\n"
                assert info(connection, "peer_authenticated") is True
        else:
            process.read_all()
            waiting = in_greenlet(listener.accept, 0)
            assert isinstance(waiting.get(timeout=5), TimeoutError)
    (question,) = questions
    assert question.server_side
    assert question.server_name is None
    assert question.error


@pytest.mark.rfc("SP-16")
@pytest.mark.peer
def test_a_resumed_session_would_escape_judgement(certificates: Certificates) -> None:
    questions = []
    security = trusting(certificates)
    security.set_trust_verification_callback(lambda question: not questions.append(question))
    with s_server(certificates) as (process, port):
        for number in (1, 2, 3):
            assert not visit(process, port, security)
            assert len(questions) == number


@pytest.mark.rfc("SP-16")
@both_versions
def test_a_listener_judges_each_client_anew(certificates: Certificates, version: str) -> None:
    questions = []
    security = serving(certificates).set("allowedSecurityProtocols", version)
    security.set_trust_verification_callback(lambda question: not questions.append(question))
    client = trusting(certificates).set("clientCertificate", certificates.client)
    with listening(security) as listener:
        for number in (1, 2):
            with connect(port_of(listener), client) as ours, listener.accept(timeout=5) as theirs:
                theirs.send(b"x")
                ours.receive(min_incomplete_length=1)
                assert info(theirs, "session_reused") is False
            assert len(questions) == number


# -- The identity callback --


@pytest.mark.rfc("SP-17", "SP-07")
@pytest.mark.peer
@both_versions
def test_the_identity_callback_is_asked_once_for_each_request(
    certificates: Certificates, version: str
) -> None:
    questions = []

    def identify(question: Any) -> Any:
        questions.append(question)
        gevent.sleep(0)
        return certificates.client

    security = trusting(certificates).set_identity_challenge_callback(identify)
    with (
        s_server(certificates, VERSION_OPTIONS[version]) as (process, port),
        connect(port, security) as connection,
    ):
        connection.send(b"hello there\n")
        process.read_until(b"hello there")
    assert not questions, "nobody has asked for a certificate"
    options = ("-Verify", "1", "-CAfile", str(certificates.ca), VERSION_OPTIONS[version])
    with s_server(certificates, *options) as (process, port), connect(port, security) as ours:
        ours.send(b"hello there\n")
        process.read_until(b"hello there")
        assert b"CN=client.example" in process.output.replace(b" ", b"")
    (question,) = questions
    assert question.server_name == "127.0.0.1"
    assert not question.server_side
    authority = x509.load_pem_x509_certificate(certificates.ca.read_bytes())
    assert question.authorities in ((), (authority.subject.public_bytes(),))


@pytest.mark.rfc("SP-17")
@pytest.mark.peer
@both_versions
def test_a_client_may_have_no_identity(certificates: Certificates, version: str) -> None:
    security = trusting(certificates).set_identity_challenge_callback(lambda question: None)
    with (
        s_server(certificates, "-verify", "1", VERSION_OPTIONS[version]) as (process, port),
        connect(port, security) as connection,
    ):
        connection.send(b"hello there\n")
        assert b"Client certificate" not in process.read_until(b"hello there")


@pytest.mark.rfc("SP-17")
@pytest.mark.peer
@both_versions
@pytest.mark.parametrize(
    "answer", [KeyError("no key"), gevent.GreenletExit(), "/nowhere/at/all.pem", 5], ids=repr
)
def test_an_identity_callback_that_fails(
    certificates: Certificates, version: str, answer: Any
) -> None:
    def identify(question: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    security = trusting(certificates).set_identity_challenge_callback(identify)
    with s_server(certificates, "-verify", "1", VERSION_OPTIONS[version]) as (_, port):
        error = failure(port, security)
        assert isinstance(error.__cause__, TlsError)
        assert "identity challenge" in str(error.__cause__)


@pytest.mark.rfc("SP-17", "SP-06", "SP-18")
@pytest.mark.peer
@both_versions
def test_a_listener_may_be_somebody_else_for_each_name(
    certificates: Certificates, version: str
) -> None:
    authority = CertificateAuthority("of all names")
    names = []

    def identify(question: Any) -> Any:
        assert question.server_side
        names.append(question.server_name)
        gevent.sleep(0)
        return authority.issue(question.server_name) if question.server_name else None

    security = SecurityParameters().set_identity_challenge_callback(identify)
    with listening(security) as listener:
        for name in ("one.example", "two.example"):
            options = ("-servername", name, VERSION_OPTIONS[version])
            with (
                s_client(port_of(listener), *options) as process,
                listener.accept(timeout=10),
            ):
                process.read_until(name.encode())
                process.read_until(b"of all names")
        with s_client(port_of(listener), "-noservername", VERSION_OPTIONS[version]) as process:
            assert b"alert" in process.read_all()
    assert names == ["one.example", "two.example", None]


@pytest.mark.rfc("SP-16", "SP-17", "SP-18")
@pytest.mark.peer
@both_versions
def test_trust_comes_before_identity(certificates: Certificates, version: str) -> None:
    """Nobody learns who we are before we know who it is."""
    order = []

    def judge(question: Any) -> bool:
        order.append("trust")
        gevent.sleep(0)
        order.append("trusted")
        return True

    def identify(question: Any) -> Any:
        order.append("identity")
        return certificates.client

    security = trusting(certificates).set_trust_verification_callback(judge)
    security.set_identity_challenge_callback(identify)
    options = ("-Verify", "1", "-CAfile", str(certificates.ca), VERSION_OPTIONS[version])
    with s_server(certificates, *options) as (process, port), connect(port, security) as ours:
        ours.send(b"hello there\n")
        process.read_until(b"hello there")
    assert order == ["trust", "trusted", "identity"]


# -- What a build cannot do --


@pytest.mark.rfc("A-05", "SP-21", "SH-14")
def test_what_the_engine_cannot_do_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is opened, and never done without."""

    class Poor:
        def __getattr__(self, name: str) -> Any:
            if name == "SSL_CTX_set1_sigalgs_list":
                raise AttributeError(name)
            return getattr(original, name)

    original = SSL._lib
    monkeypatch.setattr(SSL, "_lib", Poor())
    security = SecurityParameters().set("signatureAlgorithm", "ed25519")
    error = failure(1, security)
    assert error.reason is Reason.INVALID_CONFIGURATION
    assert "signatureAlgorithm" in str(error)
    assert SecurityParameters.supported("signatureAlgorithm") == ()


# -- Effect on selection --


class KeylessTls(Tls):
    """A secure protocol that knows nothing of pre-shared keys."""

    name = "keyless"

    def check(self, attempt: Attempt, *, server_side: bool) -> None:
        if attempt.security.get("preSharedKey") is not None:
            raise ValueError("there is no preSharedKey here")


@pytest.fixture
def keyless() -> Iterator[KeylessTls]:
    plugin = KeylessTls()
    register(plugin)
    yield plugin
    unregister(plugin)


@pytest.mark.rfc("SP-19", "A-01")
def test_a_parameter_may_narrow_the_choice(keyless: KeylessTls) -> None:
    def tried(security: SecurityParameters) -> list[str]:
        with plain_listener() as listener:
            port = listener.getsockname()[1]
        error = failure(port, security)
        return sorted(str(candidate).split()[0] for candidate, _ in error.attempts)

    with_key = SecurityParameters().set_pre_shared_key(PSK_KEY, "me")
    assert tried(SecurityParameters()) == ["tls/tcp"]  # other security is no alternative
    assert tried(with_key) == ["tls/tcp"]
    set_system_policy(SystemPolicy(equivalent_security=[("keyless", "tls")]))
    try:
        assert tried(SecurityParameters()) == ["keyless/tcp", "tls/tcp"]
        assert tried(with_key) == ["tls/tcp"]
    finally:
        set_system_policy(None)


@pytest.mark.rfc("SP-21", "A-02", "A-11")
def test_a_listener_with_security_has_no_use_for_plain_text(certificates: Certificates) -> None:
    with listening(serving(certificates)) as listener:
        with plain_client(port_of(listener)) as peer:
            peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            with contextlib.suppress(ConnectionError):
                while piece := peer.recv(65536):
                    answer += piece
            assert answer[:1] in (b"", bytes((ALERT,)))
        waiting = in_greenlet(listener.accept, 0)
        assert isinstance(waiting.get(timeout=5), TimeoutError)
