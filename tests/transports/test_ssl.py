"""What TLS adds to the contract: secrecy from the first byte, honest ends, unwrap, STARTTLS."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from conftest import Certificates
from gevent.socket import wait_write
from greentaps.engines import Terms, make_engine
from greentaps.engines.judging import note_peer
from greentaps.errors import CertificateError, TlsError, TransportError
from greentaps.testing import (
    RecordingProtocol,
    memory_pair,
    pattern,
    reported_errors,
    settle,
    wait_until,
)
from greentaps.transports import SslTransport, Transport, create_default_context
from greentaps.transports import ssl as ssl_module
from greentaps.transports.ssl import choose_context
from OpenSSL import SSL
from transports.helpers import (
    ENGINES,
    OLD_LIBUV,
    TLS12,
    Process,
    RawTls,
    client_context,
    receive_all,
    receive_some,
    server_context,
    socketpair_pair,
    tcp_handle,
    tcp_pair,
    tcp_sockets,
    tls_pair,
)

both_engines = pytest.mark.parametrize("engine", ENGINES)
both_sides = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
HANDSHAKE_RECORD, ALERT_RECORD, DATA_RECORD = 0x16, 0x15, 0x17


def make(
    certificates: Certificates,
    engine: str,
    server_side: bool = False,
    *,
    highest: Any = None,
    hostname: str | None = "localhost",
    certificate: str = "server",
    **options: Any,
) -> tuple[SslTransport, socket.socket]:
    """One SslTransport over TCP, and the plain socket at the other end."""
    ours, theirs = tcp_sockets()
    if server_side:
        context = server_context(engine, certificates, certificate, highest=highest)
        hostname = None
    else:
        context = client_context(engine, certificates, highest=highest)
    return SslTransport(tcp_handle(ours), context, server_side, hostname, **options), theirs


def secured(
    certificates: Certificates,
    engine: str,
    server_side: bool = False,
    *,
    protocol: RecordingProtocol | None = None,
    highest: Any = None,
    **options: Any,
) -> tuple[SslTransport, RecordingProtocol, RawTls]:
    """An SslTransport that has finished its handshake with a `RawTls`."""
    transport, sock = make(certificates, engine, server_side, highest=highest, **options)
    protocol = protocol or RecordingProtocol()
    transport.start(protocol)
    if server_side:
        peer = RawTls(sock, client_context("stdlib", certificates), False, "localhost")
    else:
        peer = RawTls(sock, server_context("stdlib", certificates, highest=highest), True)
    peer.handshake()
    protocol.wait(lambda: protocol.made)
    return transport, protocol, peer


class Shaken:
    """An *on_handshake* that counts."""

    def __init__(self) -> None:
        self.results: list[BaseException | None] = []

    def __call__(self, error: BaseException | None) -> None:
        self.results.append(error)


def closed(transport: Any) -> None:
    transport.close()
    transport.wait_closed(5)


# -- Nothing in clear --


@both_engines
def test_only_a_client_hello_leaves_before_the_handshake(
    certificates: Certificates, engine: str
) -> None:
    transport, peer = make(certificates, engine)
    protocol = RecordingProtocol(
        connection_made=lambda protocol, transport: transport.write(b"SECRET in made")
    )
    with peer:
        transport.start(protocol)
        transport.write(b"SECRET")
        transport.writelines([b"SECRET"])
        transport.write(bytearray(b"SECRET"))
        settle()
        peer.setblocking(False)
        seen = peer.recv(65536)
        assert seen[0] == HANDSHAKE_RECORD
        assert len(seen) == 5 + int.from_bytes(seen[3:5], "big"), "one record and no more"
        assert b"SECRET" not in seen
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        assert not protocol.events
        transport.abort()
        transport.wait_closed(5)
        assert not protocol.events


@both_engines
def test_a_server_says_nothing_first(certificates: Certificates, engine: str) -> None:
    transport, peer = make(certificates, engine, True)
    with peer:
        transport.start(RecordingProtocol())
        transport.write(b"SECRET")
        settle()
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        transport.close()
        transport.abort()
        transport.wait_closed(5)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_nothing_in_clear_while_a_layer_below_still_connects(certificates: Certificates) -> None:
    """TLS in TLS: what is written while the inner handshake runs is meant for the outer one."""
    inner, other = tls_pair(certificates)
    peer = RecordingProtocol()
    outer = SslTransport(inner, client_context("stdlib", certificates), False, "localhost")
    outer.start(RecordingProtocol())
    outer.write(b"SECRET")
    other.start(peer)
    peer.wait(lambda: peer.received)
    settle()
    assert peer.received[0] == HANDSHAKE_RECORD
    assert b"SECRET" not in peer.received
    for transport in (outer, other):
        transport.abort()
        transport.wait_closed(5)


@both_engines
def test_data_written_before_the_handshake_counts(certificates: Certificates, engine: str) -> None:
    transport, sock = make(certificates, engine)
    protocol = RecordingProtocol()
    transport.start(protocol)
    transport.write(bytes(65536))
    assert transport.get_write_buffer_size() == 65536
    transport.wait_writable(0)
    transport.write(b"x")
    assert transport.get_write_buffer_size() == 65537
    with pytest.raises(TimeoutError):
        transport.wait_writable(0)
    waiter = gevent.spawn(transport.wait_writable, 5)
    with RawTls(sock, server_context("stdlib", certificates), True) as peer:
        peer.handshake()
        assert peer.receive(65537) == bytes(65536) + b"x"
        waiter.get(timeout=5)
        assert protocol.names[:3] == ["connection_made", "pause_writing", "resume_writing"]
        assert transport.get_write_buffer_size() == 0
        closed(transport)
    protocol.check()


@both_engines
def test_a_protocol_that_writes_at_once_is_not_resumed_before_it_was_paused(
    certificates: Certificates, engine: str
) -> None:
    transport, sock = make(certificates, engine)
    protocol = RecordingProtocol(connection_made=lambda _, transport: transport.write(b"last"))
    transport.start(protocol)
    transport.write(bytes(65537))
    waiter = gevent.spawn(transport.wait_writable, 5)
    gevent.sleep(0)
    with RawTls(sock, server_context("stdlib", certificates), True) as peer:
        peer.handshake()
        assert peer.receive(65541)[-5:] == b"\0last"
        waiter.get(timeout=5)
        closed(transport)
    protocol.check()


# -- Handshakes that fail --


@both_engines
@both_sides
def test_eof_during_the_handshake(
    certificates: Certificates, engine: str, server_side: bool
) -> None:
    shaken = Shaken()
    transport, peer = make(certificates, engine, server_side, on_handshake=shaken)
    protocol = RecordingProtocol()
    transport.start(protocol)
    peer.close()
    transport.wait_closed(5)
    assert not protocol.events
    [error] = shaken.results
    assert isinstance(error, TransportError)
    with pytest.raises(type(error)):
        transport.write(b"x")


@both_engines
@both_sides
def test_reset_during_the_handshake(
    certificates: Certificates, engine: str, server_side: bool
) -> None:
    shaken = Shaken()
    transport, peer = make(certificates, engine, server_side, on_handshake=shaken)
    protocol = RecordingProtocol()
    transport.start(protocol)
    RawTls(peer, client_context("stdlib", certificates), False, "localhost").reset()
    transport.wait_closed(5)
    assert not protocol.events
    assert isinstance(shaken.results[0], ConnectionResetError)
    assert len(shaken.results) == 1


@both_engines
@both_sides
def test_handshake_timeout(certificates: Certificates, engine: str, server_side: bool) -> None:
    shaken = Shaken()
    transport, peer = make(
        certificates, engine, server_side, on_handshake=shaken, handshake_timeout=0.02
    )
    with peer:
        protocol = RecordingProtocol()
        transport.start(protocol)
        transport.write(b"never sent")
        transport.wait_closed(5)
        assert not protocol.events
        [error] = shaken.results
        assert isinstance(error, TransportError)
        assert error.errno == errno.ETIMEDOUT
        assert isinstance(error, TimeoutError)


@both_engines
@pytest.mark.parametrize("what", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 40, b"\xff" * 40])
def test_garbage_to_a_server(certificates: Certificates, engine: str, what: bytes) -> None:
    shaken = Shaken()
    transport, peer = make(certificates, engine, True, on_handshake=shaken)
    with peer:
        protocol = RecordingProtocol()
        transport.start(protocol)
        peer.sendall(what)
        try:
            answer = receive_all(peer)
        except ConnectionResetError:  # OpenSSL has no alert for some of these
            answer = b""
        assert not answer or answer[0] == ALERT_RECORD
    transport.wait_closed(5)
    assert not protocol.events
    [error] = shaken.results
    assert isinstance(error, TlsError)
    assert error.reason
    assert error.__cause__ is not None


@both_engines
def test_garbage_to_a_client(certificates: Certificates, engine: str) -> None:
    shaken = Shaken()
    transport, peer = make(certificates, engine, on_handshake=shaken)
    with peer:
        transport.start(RecordingProtocol())
        peer.sendall(b"220 mail.example ESMTP\r\n")
    transport.wait_closed(5)
    assert isinstance(shaken.results[0], TlsError)


BAD = {
    "expired": ("expired", "localhost", {10}),
    "wrong name": ("elsewhere", "localhost", {62}),
    "wrong address": ("elsewhere", "127.0.0.1", {64}),
    "untrusted": ("stranger", "localhost", {18, 19, 20}),
}


@both_engines
@pytest.mark.parametrize("server", ENGINES)
@pytest.mark.parametrize("bad", BAD)
def test_unacceptable_certificates(
    certificates: Certificates, engine: str, server: str, bad: str
) -> None:
    certificate, hostname, codes = BAD[bad]
    shaken, served = Shaken(), Shaken()
    one, two = tls_pair(
        certificates,
        engine,
        server,
        lower=tcp_pair,
        certificate=certificate,
        hostname=hostname,
        client_options={"on_handshake": shaken},
        server_options={"on_handshake": served},
    )
    first = RecordingProtocol()
    second = RecordingProtocol()
    one.start(first)
    two.start(second)
    one.write(b"SECRET")
    one.wait_closed(5)
    two.wait_closed(5)
    assert not first.events
    [error] = shaken.results
    assert isinstance(error, CertificateError)
    assert error.verify_code in codes
    assert error.verify_message
    assert error.__cause__ is not None
    assert not second.received
    # The server has learnt why, by the alert.
    told = served.results[0] or second.error
    assert isinstance(told, TlsError)
    assert "ALERT" in (told.reason or ""), told.reason


@pytest.mark.parametrize(
    ("certificate", "hostname"),
    [("elsewhere", "localhost"), ("elsewhere", "127.0.0.1"), ("stranger", "localhost")],
)
def test_pyopenssl_without_its_private_binding(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, certificate: str, hostname: str
) -> None:
    """Without it the name is checked by service_identity, before anything of ours is sent."""
    monkeypatch.setattr("greentaps.engines.pyopenssl._lib", None)
    shaken, served = Shaken(), Shaken()
    one, two = tls_pair(
        certificates,
        "pyopenssl",
        lower=tcp_pair,
        certificate=certificate,
        hostname=hostname,
        client_options={"on_handshake": shaken},
        server_options={"on_handshake": served},
    )
    first, second = RecordingProtocol(), RecordingProtocol()
    one.start(first)
    one.write(b"SECRET")
    two.start(second)
    one.wait_closed(5)
    two.wait_closed(5)
    assert not first.events
    assert not second.events, "the server's handshake came to its end"
    assert isinstance(shaken.results[0], CertificateError)
    if certificate == "elsewhere":
        assert shaken.results[0].verify_code == (62 if hostname == "localhost" else 64)


@pytest.mark.parametrize("hostname", ["localhost", "127.0.0.1"])
def test_pyopenssl_without_its_private_binding_accepts_the_right_name(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, hostname: str
) -> None:
    monkeypatch.setattr("greentaps.engines.pyopenssl._lib", None)
    one, two = tls_pair(certificates, "pyopenssl", hostname=hostname)
    first, second = RecordingProtocol(), RecordingProtocol()
    one.start(first)
    two.start(second)
    wait_until(lambda: first.made and second.made, first, second)
    one.write(b"x")
    second.wait_received(1)
    one.abort()
    two.wait_closed(5)


@both_engines
@pytest.mark.parametrize("hostname", ["", ".localhost", "local\0host"])
def test_names_that_would_mean_any_name(
    certificates: Certificates, engine: str, hostname: str
) -> None:
    one, two = memory_pair()
    with pytest.raises((ValueError, TypeError)):
        SslTransport(one, client_context(engine, certificates), False, hostname)
    one.close()
    two.close()
    one.wait_closed(5)
    two.wait_closed(5)


# -- Other programs --


@both_engines
def test_the_alert_reaches_s_server(certificates: Certificates, engine: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Process(
        "openssl",
        "s_server",
        "-accept",
        f"127.0.0.1:{port}",
        "-cert",
        certificates.expired,
        "-naccept",
        "1",
    ) as server:
        server.read_until(b"ACCEPT")
        sock = socket.create_connection(("127.0.0.1", port))
        shaken = Shaken()
        transport = SslTransport(
            tcp_handle(sock),
            client_context(engine, certificates),
            False,
            "localhost",
            on_handshake=shaken,
        )
        transport.start(RecordingProtocol())
        assert b"alert certificate expired" in server.read_until(b"alert certificate expired")
        transport.wait_closed(5)
        assert isinstance(shaken.results[0], CertificateError)


@both_engines
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_talks_and_is_refused(
    certificates: Certificates, engine: str, version: str
) -> None:
    for name, good in (("server", True), ("stranger", False)):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            port = listener.getsockname()[1]
            with Process(
                "openssl",
                "s_client",
                "-connect",
                f"127.0.0.1:{port}",
                "-CAfile",
                certificates.ca,
                "-verify_return_error",
                "-verify_hostname",
                "localhost",
                "-quiet",
                "-no_ign_eof",
                version,
            ) as client:
                gevent.socket.wait_read(listener.fileno(), 10)
                sock, _ = listener.accept()
                protocol = RecordingProtocol()
                shaken = Shaken()
                transport = SslTransport(
                    tcp_handle(sock),
                    server_context(engine, certificates, name),
                    True,
                    on_handshake=shaken,
                )
                transport.start(protocol)
                if good:
                    wait_until(lambda: protocol.made, protocol)  # noqa: B023
                    client.say(b"hello\n")
                    assert protocol.wait_received(6) == b"hello\n"
                    transport.write(b"good evening\n")
                    client.read_until(b"good evening")
                    client.end_input()
                    assert protocol.wait_lost() is None
                    assert protocol.eof
                else:
                    transport.wait_closed(5)
                    error = shaken.results[0] or protocol.error
                    assert isinstance(error, TlsError)
                    assert "ALERT" in error.reason
                    assert not protocol.received


# -- The end --


@both_engines
@both_sides
@pytest.mark.parametrize("paused", [False, True])
def test_an_end_without_close_notify_is_an_error(
    certificates: Certificates, engine: str, server_side: bool, paused: bool
) -> None:
    transport, protocol, peer = secured(certificates, engine, server_side)
    with peer:
        if paused:
            transport.pause_reading()
        peer.send(b"half a messa")
        peer.sock.shutdown(socket.SHUT_WR)
        if paused:
            settle()
            transport.resume_reading()
        error = protocol.wait_lost()
    assert isinstance(error, TlsError)
    assert protocol.received == b"half a messa"
    assert not protocol.eof
    with pytest.raises(TlsError):
        transport.write(b"x")


@both_engines
def test_an_end_in_the_middle_of_a_record_is_an_error(
    certificates: Certificates, engine: str
) -> None:
    _transport, protocol, peer = secured(certificates, engine)
    peer.engine.write(b"cut off")
    peer.send_raw(peer.engine.drain()[:-1])
    peer.sock.close()
    assert isinstance(protocol.wait_lost(), TlsError)
    assert not protocol.eof
    assert not protocol.received


@both_engines
def test_a_forged_record_is_an_error(certificates: Certificates, engine: str) -> None:
    _transport, protocol, peer = secured(certificates, engine)
    with peer:
        peer.engine.write(b"good")
        record = bytearray(peer.engine.drain())
        record[-1] ^= 1
        peer.send_raw(record)
        answer = receive_all(peer.sock)
        assert answer, "no alert"
    error = protocol.wait_lost()
    assert isinstance(error, TlsError)
    assert error.reason
    assert not protocol.received


@both_engines
@both_sides
@pytest.mark.parametrize("highest", [None, TLS12], ids=["1.3", "1.2"])
def test_close_notify_answered_into_a_dead_socket(
    certificates: Certificates, engine: str, server_side: bool, highest: Any
) -> None:
    _transport, protocol, peer = secured(certificates, engine, server_side, highest=highest)
    peer.engine.write(b"last words")
    data = peer.engine.drain() + peer.goodbye()
    peer.send_raw(data)
    protocol.wait_received(10)  # and then the reset, instead of the end
    peer.reset()
    assert protocol.wait_lost() is None
    assert protocol.received == b"last words"
    assert protocol.count("eof_received") == 1


@both_engines
@both_sides
def test_a_peer_that_does_not_take_what_was_said_before_the_close_notify(
    certificates: Certificates, engine: str, server_side: bool
) -> None:
    """Our kernel has taken all, and drops it: that is no normal end."""
    transport, protocol, peer = secured(certificates, engine, server_side)
    with peer:
        transport.write(bytes(1_500_000))
        assert not transport.get_write_buffer_size()
        transport.close_after_delivery()
        transport.close(timeout=0.02)
        error = protocol.wait_lost()
        assert isinstance(error, TransportError)
        assert error.errno == errno.ETIMEDOUT


@both_engines
@both_sides
def test_clear_text_that_waited_meets_a_dead_peer(
    certificates: Certificates, engine: str, server_side: bool
) -> None:
    """It is the connection's error, and not one of a callback."""
    transport, protocol, peer = secured(certificates, engine, server_side)
    with reported_errors() as reports:
        transport.unwrap()
        transport.write(b"in clear,")
        transport.write(b"and once more")
        peer.receive(1)
        peer.send_raw(peer.goodbye())
        peer.reset()
        error = protocol.wait_lost()
    assert isinstance(error, TransportError)
    assert error.errno in (errno.ECONNRESET, errno.EPIPE)
    assert not reports


@both_engines
@both_sides
def test_close_sends_close_notify_behind_the_data(
    certificates: Certificates, engine: str, server_side: bool
) -> None:
    transport, protocol, peer = secured(certificates, engine, server_side)
    with peer:
        transport.write(b"last words")
        transport.close()
        assert peer.receive(100) == b"last words"  # and then the close_notify
        assert peer.receive_raw() == b""
    assert protocol.wait_lost() is None


@both_engines
def test_abort_sends_no_close_notify(certificates: Certificates, engine: str) -> None:
    transport, protocol, peer = secured(certificates, engine)
    with peer:
        transport.abort()
        protocol.wait_lost()
        with pytest.raises(ConnectionResetError):
            receive_all(peer.sock)


@both_engines
def test_data_behind_the_close_notify_is_dropped(certificates: Certificates, engine: str) -> None:
    """... where we may not unwrap: it is neither delivered nor kept."""
    transport, protocol, peer = secured(
        certificates, engine, protocol=RecordingProtocol(keep_open=True)
    )
    with peer:
        peer.send_raw(peer.goodbye())
        protocol.wait(lambda: protocol.eof)
        for _ in range(20):
            peer.send_raw(b"GARBAGE" * 1000)
            settle(2)
        assert not protocol.received
        transport.write(b"still here")
        assert peer.receive(10) == b"still here"
        closed(transport)
    assert protocol.error is None


@both_engines
def test_tls_1_2_cannot_end_one_direction_alone(certificates: Certificates, engine: str) -> None:
    transport, protocol, peer = secured(
        certificates, engine, highest=TLS12, protocol=RecordingProtocol(keep_open=True)
    )
    with peer:
        assert transport.get_extra_info("tls_version") == "TLSv1.2"
        assert not transport.can_write_eof()
        with pytest.raises(TransportError) as caught:
            transport.write_eof()
        assert caught.value.errno == errno.EOPNOTSUPP
        transport.write(b"open")
        assert peer.receive(4) == b"open"
        peer.send_raw(peer.goodbye())  # to which keep_open is no legal answer
        assert peer.receive(1) == b""
    assert protocol.wait_lost() is None


# -- Close, abort and pause in every phase --


def in_clear(certificates: Certificates, engine: str) -> Any:
    protocol = RecordingProtocol()
    transport, sock = make(certificates, engine, do_handshake_on_connect=False)
    transport.start(protocol)
    return transport, protocol, sock


def in_handshake(certificates: Certificates, engine: str) -> Any:
    protocol = RecordingProtocol()
    transport, sock = make(certificates, engine)
    transport.start(protocol)
    return transport, protocol, sock


def in_late_handshake(certificates: Certificates, engine: str) -> Any:
    transport, protocol, sock = in_clear(certificates, engine)
    transport.do_handshake()
    return transport, protocol, sock


def in_secure(certificates: Certificates, engine: str) -> Any:
    transport, protocol, peer = secured(certificates, engine)
    return transport, protocol, peer.sock


def in_shutdown(certificates: Certificates, engine: str) -> Any:
    transport, protocol, sock = in_secure(certificates, engine)
    transport.unwrap()
    return transport, protocol, sock


PHASES = [in_clear, in_handshake, in_late_handshake, in_secure, in_shutdown]


@both_engines
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("verb", ["close", "abort", "reset", "eof"])
def test_the_end_in_every_phase(
    certificates: Certificates, engine: str, phase: Callable[..., Any], verb: str
) -> None:
    transport, protocol, sock = phase(certificates, engine)
    with sock:
        transport.pause_reading()
        transport.resume_reading()
        if verb == "close":
            transport.close(timeout=0.05)
        elif verb == "abort":
            transport.abort()
        elif verb == "eof":
            sock.shutdown(socket.SHUT_WR)
        else:
            RawTls(sock, create_default_context(), False, "x").reset()
        transport.wait_closed(5)
    assert protocol.lost == protocol.made
    protocol.check()
    if verb == "abort":
        assert protocol.error is None
    if verb == "eof" and phase is not in_clear and protocol.made:
        assert isinstance(protocol.error, TlsError)
    if verb == "reset" and protocol.made:
        assert isinstance(protocol.error, ConnectionResetError)


@both_engines
@pytest.mark.parametrize("verb", ["close", "abort"])
def test_on_handshake_hears_of_an_end(certificates: Certificates, engine: str, verb: str) -> None:
    for started in (False, True):
        shaken = Shaken()
        transport, sock = make(certificates, engine, on_handshake=shaken)
        with sock:
            if started:
                transport.start(RecordingProtocol())
            getattr(transport, verb)()
            transport.wait_closed(5)
        assert len(shaken.results) == 1
        assert isinstance(shaken.results[0], TransportError)


@both_engines
def test_pause_over_the_handshake(certificates: Certificates, engine: str) -> None:
    transport, sock = make(certificates, engine)
    protocol = RecordingProtocol()
    transport.start(protocol)
    transport.pause_reading()
    with RawTls(sock, server_context("stdlib", certificates), True) as peer:
        peer.handshake()
        peer.send(b"early")
        protocol.wait(lambda: protocol.made)
        peer.send(b" and late")
        settle()
        assert not protocol.received
        transport.resume_reading()
        assert protocol.wait_received(14) == b"early and late"
        closed(transport)


# -- Data --


@both_engines
@both_sides
def test_many_records_in_one_chunk_and_bytes_one_by_one(
    certificates: Certificates, engine: str, server_side: bool
) -> None:
    transport, protocol, peer = secured(certificates, engine, server_side)
    with peer:
        for number in range(500):
            peer.engine.write(b"%03d," % number)
        chunk = peer.engine.drain()
        expected = b"".join(b"%03d," % number for number in range(500))
        peer.send_raw(chunk)
        assert protocol.wait_received(2000) == expected
        peer.engine.write(b"byte by byte")
        for byte in peer.engine.drain():
            peer.send_raw(bytes([byte]))
            settle(1)
        assert protocol.wait_received(2012) == expected + b"byte by byte"
        closed(transport)
    protocol.check()


@both_engines
def test_ten_megabytes_each_way(certificates: Certificates, engine: str) -> None:
    size, piece = 10_000_000, 250_000
    one, two = tls_pair(certificates, engine, engine, lower=tcp_pair)
    first, second = RecordingProtocol(), RecordingProtocol()
    one.start(first)
    two.start(second)
    wait_until(lambda: first.made and second.made, first, second)

    def send(transport: Any) -> int:
        highest = 0
        for start in range(0, size, piece):
            transport.wait_writable(10)
            transport.write(pattern(piece, start))
            highest = max(highest, transport.get_write_buffer_size())
        return highest

    senders = [gevent.spawn(send, transport) for transport in (one, two)]
    for sender in senders:
        assert sender.get(timeout=30) < 65536 + 2 * piece
    one.write(b"")
    first.wait_received(size)
    second.wait_received(size)
    assert first.received == pattern(size)
    assert second.received == pattern(size)
    one.close()
    wait_until(lambda: first.lost and second.lost, first, second)
    assert first.error is None
    assert second.error is None
    first.check()
    second.check()


# -- Unwrap --


def joined(
    certificates: Certificates, engine: str, other: str, lower: Any = tcp_pair, **options: Any
) -> Any:
    one, two = tls_pair(certificates, engine, other, lower=lower, close_on_unwrap=False, **options)
    first, second = RecordingProtocol(), RecordingProtocol()
    one.start(first)
    two.start(second)
    wait_until(lambda: first.made and second.made, first, second)
    return one, two, first, second


@both_engines
@pytest.mark.parametrize("other", ENGINES)
@pytest.mark.parametrize("highest", [None, TLS12], ids=["1.3", "1.2"])
def test_unwrap_and_a_new_handshake(
    certificates: Certificates, engine: str, other: str, highest: Any
) -> None:
    one, two, first, second = joined(certificates, engine, other, highest=highest)
    two.write(pattern(200_000))  # in flight when we unwrap
    one.write(b"secret")
    one.unwrap()
    one.write(b"clear from one")
    assert second.wait_received(6) == b"secret"
    settle()
    assert second.received == b"secret", "clear text before the peer has unwrapped"
    two.unwrap()
    two.write(b"clear from two")
    second.wait_received(6 + 14)
    first.wait_received(200_000 + 14)
    assert second.received == b"secretclear from one"
    assert first.received == pattern(200_000) + b"clear from two"
    assert one.get_extra_info("ssl") is None
    assert two.get_extra_info("tls_version") is None
    one.do_handshake()
    one.write(b"secret again")
    two.do_handshake()
    second.wait_received(20 + 12)
    assert second.received[20:] == b"secret again"
    assert one.get_extra_info("tls_version") == ("TLSv1.2" if highest else "TLSv1.3")
    two.write(b"!")
    first.wait_received(200_000 + 15)
    first.check()
    second.check()
    one.abort()
    two.abort()
    one.wait_closed(5)
    two.wait_closed(5)


@both_engines
@pytest.mark.parametrize("ours_first", [False, True])
@pytest.mark.parametrize("paused", [False, True])
def test_clear_text_right_behind_the_close_notify(
    certificates: Certificates, engine: str, ours_first: bool, paused: bool
) -> None:
    """... in one chunk with it, and more after that, stays in order and honours a pause."""
    transport, protocol, peer = secured(certificates, engine, close_on_unwrap=False)
    clear = pattern(300_000)
    with peer:
        if ours_first:
            transport.unwrap()
        peer.engine.write(b"secret")
        start = peer.engine.drain() + peer.goodbye() + clear[:5000]
        sender = gevent.spawn(peer.send_raw, start + clear[5000:])
        protocol.wait_received(6)
        if paused:
            transport.pause_reading()
        if not ours_first:
            settle()
            assert protocol.received == b"secret", "clear text before our unwrap"
            transport.unwrap()
        if paused and not ours_first:
            settle()
            assert protocol.received == b"secret", "clear text in spite of the pause"
        transport.resume_reading()
        protocol.wait_received(6 + len(clear))
        assert protocol.received == b"secret" + clear
        sender.get(timeout=5)
        transport.write(b"clear answer")
        data = b""
        while not data.endswith(b"clear answer"):
            data += peer.receive_raw()
    protocol.wait_lost()
    assert protocol.error is None
    protocol.check()


@both_engines
@pytest.mark.parametrize("data", [b"", b"held back"])
def test_unwrap_while_the_close_notify_is_held_back_by_a_pause(
    certificates: Certificates, engine: str, data: bytes
) -> None:
    """Both are in the engine already, so nothing more comes from below to wake us."""

    def pause(protocol: RecordingProtocol, data: bytes) -> None:
        protocol.transport.pause_reading()

    protocol = RecordingProtocol(data_received=pause)
    transport, _, peer = secured(certificates, engine, protocol=protocol, close_on_unwrap=False)
    with peer:
        peer.engine.write(b"first")
        if data:
            peer.engine.write(data)
        peer.send_raw(peer.engine.drain() + peer.goodbye())
        protocol.wait_received(5)
        settle()
        assert protocol.received == b"first"
        transport.unwrap()
        transport.write(b"in clear")
        seen = b""
        while not seen.endswith(b"in clear"):
            piece = peer.receive_raw()
            assert piece
            seen += piece
        assert protocol.received == b"first" + data
        protocol.hooks.clear()
        transport.resume_reading()
        peer.send_raw(b"clear too")
        protocol.wait_received(5 + len(data) + 9)
    protocol.wait_lost()


@both_engines
def test_write_eof_while_the_close_notify_is_held_back_by_a_pause(
    certificates: Certificates, engine: str
) -> None:
    def pause(protocol: RecordingProtocol, data: bytes) -> None:
        protocol.transport.pause_reading()

    protocol = RecordingProtocol(data_received=pause)
    transport, _, peer = secured(certificates, engine, protocol=protocol)
    peer.engine.write(b"first")
    peer.send_raw(peer.engine.drain() + peer.goodbye())
    protocol.wait_received(5)
    transport.write_eof()
    peer.sock.close()
    settle()
    assert not protocol.lost
    transport.resume_reading()
    assert protocol.wait_lost() is None
    assert protocol.eof


@both_engines
def test_a_new_handshake_right_behind_the_close_notify(
    certificates: Certificates, engine: str
) -> None:
    transport, protocol, peer = secured(certificates, engine, True, close_on_unwrap=False)
    with peer:
        transport.write(b"a")
        assert peer.receive(1) == b"a"
        goodbye = peer.goodbye()
        answered = peer.engine
        peer.engine = RawTls(
            peer.sock, client_context("stdlib", certificates), False, "localhost"
        ).engine
        peer.engine.handshake()
        peer.send_raw(goodbye + peer.engine.drain())  # the ClientHello does not wait
        settle()
        transport.unwrap()
        transport.do_handshake()
        got = receive_some(peer.sock, 24)
        answered.feed(got[:24])
        assert answered.read() is None
        peer.engine.feed(got[24:])  # the answer to the ClientHello may be right behind
        peer.handshake()
        transport.write(b"b")
        assert peer.receive(1) == b"b"
        peer.send(b"c")
        protocol.wait_received(1)
        closed(transport)


@both_engines
def test_the_close_notify_closes_again_after_a_new_handshake(
    certificates: Certificates, engine: str
) -> None:
    one, two = tls_pair(certificates, engine, engine)
    first, second = RecordingProtocol(), RecordingProtocol()
    one.start(first)
    two.start(second)
    wait_until(lambda: first.made and second.made, first, second)
    one.unwrap()
    two.unwrap()
    one.do_handshake()
    two.do_handshake()
    one.write(b"x")
    second.wait_received(1)
    one.close()
    wait_until(lambda: first.lost and second.lost, first, second)
    assert second.eof
    assert second.error is None


@both_engines
def test_the_close_notify_alone_closes_again_after_a_new_handshake(
    certificates: Certificates, engine: str
) -> None:
    transport, protocol, peer = secured(certificates, engine, True)
    with peer:
        transport.unwrap()
        assert peer.receive(1) == b""
        peer.send_raw(peer.goodbye())
        transport.do_handshake()
        peer.engine = make_engine(client_context("stdlib", certificates), False, "localhost")
        peer.handshake()
        peer.send_raw(peer.goodbye())
        assert peer.receive(1) == b""
        assert protocol.wait_lost() is None
    assert protocol.eof


@both_engines
def test_close_on_unwrap_false(certificates: Certificates, engine: str) -> None:
    """The peer's close_notify is not announced; its end of the stream is."""
    transport, protocol, peer = secured(certificates, engine, close_on_unwrap=False)
    with peer:
        peer.send_raw(peer.goodbye())
        settle()
        assert protocol.names == ["connection_made"]
        transport.write(b"still secret")
        assert peer.receive(12) == b"still secret"
    assert protocol.wait_lost() is None
    assert protocol.eof


@both_engines
def test_an_end_while_we_wait_for_the_close_notify(certificates: Certificates, engine: str) -> None:
    transport, protocol, peer = secured(certificates, engine)
    with peer:
        transport.unwrap()
        transport.write(b"never sent")
        assert transport.get_write_buffer_size() == 10
        peer.sock.shutdown(socket.SHUT_WR)
        assert isinstance(protocol.wait_lost(), TlsError)


# -- STARTTLS --


@both_engines
@pytest.mark.parametrize("other", ENGINES)
def test_starttls(certificates: Certificates, engine: str, other: str) -> None:
    def serve(protocol: RecordingProtocol, data: bytes) -> None:
        if data == b"STARTTLS\r\n":
            protocol.transport.write(b"go ahead\r\n")
            protocol.transport.do_handshake()

    one, two = tls_pair(certificates, engine, other, lower=tcp_pair, do_handshake_on_connect=False)
    first, second = RecordingProtocol(), RecordingProtocol(data_received=serve)
    one.start(first)
    two.start(second)
    assert first.made
    assert one.get_extra_info("ssl") is None
    assert one.get_extra_info("sslctx") is not None
    with pytest.raises(TransportError):
        one.unwrap()
    one.write(b"STARTTLS\r\n")
    assert first.wait_received(10) == b"go ahead\r\n"
    one.do_handshake()
    with pytest.raises(TransportError):
        one.do_handshake()
    one.write(b"secret")
    second.wait_received(16)
    assert second.received == b"STARTTLS\r\nsecret"
    assert one.get_extra_info("ssl") is not None
    with pytest.raises(TransportError):
        one.do_handshake()
    assert first.count("connection_made") == 1
    one.close()
    wait_until(lambda: first.lost and second.lost, first, second)
    assert first.error is None
    assert second.error is None


@both_engines
def test_nothing_in_clear_after_do_handshake(certificates: Certificates, engine: str) -> None:
    transport, protocol, peer = in_late_handshake(certificates, engine)
    with peer:
        transport.write(b"SECRET")
        settle()
        peer.setblocking(False)
        seen = peer.recv(65536)
        assert seen[0] == HANDSHAKE_RECORD
        assert b"SECRET" not in seen
        transport.abort()
        protocol.wait_lost()


@both_engines
def test_a_starttls_handshake_that_fails_is_the_end(
    certificates: Certificates, engine: str
) -> None:
    _transport, protocol, peer = in_late_handshake(certificates, engine)
    with peer:
        peer.sendall(b"500 no such command\r\n")
        assert isinstance(protocol.wait_lost(), TlsError)
    assert not protocol.received
    protocol.check()


# -- Information and arguments --


@both_engines
@pytest.mark.parametrize("other", ENGINES)
def test_extra_info(certificates: Certificates, engine: str, other: str) -> None:
    client, server = client_context(engine, certificates), server_context(other, certificates)
    if engine == "stdlib":
        client.set_alpn_protocols(["h2", "echo"])
    else:
        client.set_alpn_protos([b"h2", b"echo"])
    if other == "stdlib":
        server.set_alpn_protocols(["echo"])
    else:
        server.set_alpn_select_callback(lambda connection, offered: b"echo")
    below = tcp_pair()
    one = SslTransport(below[0], client, False, "localhost")
    two = SslTransport(below[1], server, True)
    assert one.get_extra_info("sslctx") is client
    assert one.get_extra_info("ssl") is None
    first, second = RecordingProtocol(), RecordingProtocol()
    one.start(first)
    two.start(second)
    wait_until(lambda: first.made and second.made, first, second)
    expected = (ssl.SSLObject, SSL.Connection)
    assert isinstance(one.get_extra_info("ssl"), expected[ENGINES.index(engine)])
    assert isinstance(two.get_extra_info("ssl"), expected[ENGINES.index(other)])
    for transport in (one, two):
        assert transport.get_extra_info("tls_version") == "TLSv1.3"
        assert transport.get_extra_info("tls_cipher").startswith("TLS_")
        assert transport.get_extra_info("alpn") == "echo"
        assert transport.get_extra_info("no such thing", 3) == 3
        assert transport.get_extra_info("handle") is not None
    pem = ssl.PEM_cert_to_DER_cert(
        "-----BEGIN CERT" + certificates.server.read_text().split("-----BEGIN CERT")[1]
    )
    assert one.get_extra_info("peer_certificate") == pem
    assert two.get_extra_info("peer_certificate") is None
    assert one.get_extra_info("peername") == two.get_extra_info("sockname")
    one.close()
    wait_until(lambda: first.lost and second.lost, first, second)
    assert one.get_extra_info("peername", "gone") == "gone"


def test_arguments(certificates: Certificates) -> None:
    one, two = memory_pair()
    context = client_context("stdlib", certificates)
    for wrong in (None, object(), "context", ssl, True):
        with pytest.raises(TypeError):
            SslTransport(one, wrong, False, "localhost")
    with pytest.raises(ValueError, match="server_hostname"):
        SslTransport(one, server_context("stdlib", certificates), True, "localhost")
    with pytest.raises(ValueError, match="server_hostname"):
        SslTransport(one, context, False)
    with pytest.raises(ValueError, match="timeout"):
        SslTransport(one, context, False, "localhost", handshake_timeout=-1)
    with pytest.raises(TypeError, match="StreamTransport, not str"):
        SslTransport("handle", context, False, "localhost")
    protocol = RecordingProtocol()
    one.start(protocol)  # none of these has touched it
    with pytest.raises(ValueError, match="new"):
        SslTransport(one, context, False, "localhost")
    one.abort()
    one.wait_closed(5)
    two.start(RecordingProtocol())
    two.wait_closed(5)


def test_a_handle_cannot_be_sent_over_tcp(certificates: Certificates) -> None:
    """... and trying does no harm to the session."""
    transport, _protocol, peer = secured(certificates, "stdlib")
    with peer:
        for data in (b"x", b""):
            with pytest.raises(ValueError, match="handle"):
                transport.write(data, transport.get_extra_info("handle"))
        transport.write(b"unharmed")
        assert peer.receive(8) == b"unharmed"
        closed(transport)


def test_an_exception_in_connection_made_of_a_client_with_on_handshake(
    certificates: Certificates,
) -> None:
    boom = RuntimeError("boom")

    def fail(protocol: RecordingProtocol, transport: Any) -> None:
        raise boom

    shaken = Shaken()
    one, two = tls_pair(certificates, client_options={"on_handshake": shaken})
    first, second = RecordingProtocol(connection_made=fail), RecordingProtocol()
    with reported_errors() as reports:
        one.start(first)
        two.start(second)
        one.wait_closed(5)
        two.wait_closed(5)
    assert shaken.results == [boom]
    assert reports == []
    assert first.error is boom


def test_create_default_context() -> None:
    for purpose in (None, False, ssl.Purpose.SERVER_AUTH):
        context = create_default_context(purpose)
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
    assert create_default_context(True).verify_mode == ssl.CERT_NONE
    with pytest.raises(TypeError):
        create_default_context("server")


def test_choose_context(certificates: Certificates) -> None:
    for engine in ENGINES:
        context = client_context(engine, certificates)
        assert choose_context(context, None, False) is context
        assert choose_context(lambda handle: context, None, True) is context  # noqa: B023
    assert choose_context(True, None, False).check_hostname
    with pytest.raises(ValueError, match="certificate"):
        choose_context(True, None, True)
    with pytest.raises(TypeError):
        choose_context(lambda handle: None, None, False)
    with pytest.raises(TypeError):
        choose_context(1, None, False)


@pytest.mark.skipif(OLD_LIBUV, reason="this libuv tells a failed write a turn too late")
def test_over_a_unix_socket_that_is_closed_at_once(certificates: Certificates) -> None:
    """The server's session tickets meet a dead socket, while the client's data is still unread."""
    one, two = tls_pair(certificates, lower=socketpair_pair)

    def say(protocol: RecordingProtocol, transport: Any) -> None:
        transport.write(b"all I have to say")
        transport.close()

    first, second = RecordingProtocol(connection_made=say), RecordingProtocol()
    one.start(first)
    two.start(second)
    wait_until(lambda: first.lost and second.lost, first, second)
    assert second.received == b"all I have to say"
    assert second.eof
    assert first.error is None
    assert second.error is None


def test_small_writes_and_an_early_close_over_tcp(certificates: Certificates) -> None:
    """The client closes while the server's session tickets are unread: no reset may follow, or
    what the kernel has held back of the client's data would be dropped."""
    one, two = tls_pair(certificates, lower=tcp_pair)
    first = RecordingProtocol()
    second = RecordingProtocol()
    one.start(first)
    two.start(second)
    wait_until(lambda: first.made and second.made, first, second)
    for _ in range(10):
        one.write(b"small")
    one.close()
    wait_until(lambda: first.lost and second.lost, first, second)
    assert second.received == b"small" * 10
    assert second.error is None


def test_transport_is_what_a_handle_becomes(certificates: Certificates) -> None:
    one, two = tcp_sockets()
    with two:
        handle = tcp_handle(one)
        transport = SslTransport(handle, client_context("stdlib", certificates), False, "localhost")
        assert isinstance(transport._lower, Transport)
        assert transport.get_extra_info("handle") is handle
        assert transport.get_extra_info("server_hostname") == "localhost"
        transport.close()
        transport.wait_closed(5)


# -- While somebody judges the peer --


def judged(
    certificates: Certificates, **options: Any
) -> tuple[SslTransport, RecordingProtocol, RawTls, list[Callable[[Any], None]]]:
    """A client that is asked whether it trusts its peer, whose answer we give."""
    context = client_context("pyopenssl", certificates)
    context.set_verify(SSL.VERIFY_PEER, note_peer)
    answers: list[Callable[[Any], None]] = []
    terms = Terms(
        context,
        judge=lambda _: True,
        ask=lambda _function, _question, answer: answers.append(answer),
    )
    ours, theirs = tcp_sockets(small=True)
    transport = SslTransport(tcp_handle(ours), terms, False, "localhost", **options)
    protocol = RecordingProtocol()
    transport.start(protocol)
    return (
        transport,
        protocol,
        RawTls(theirs, server_context("stdlib", certificates), True),
        answers,
    )


def until(condition: Callable[[], Any]) -> None:
    with gevent.Timeout(10):
        while not condition():
            gevent.sleep(0.001)


def flood(sock: socket.socket, size: int) -> None:
    """Send *size* bytes, or what is taken until it stops."""
    while size > 0:
        wait_write(sock.fileno(), 0.2, TimeoutError("enough"))
        size -= sock.send(bytes(65536))


def test_a_peer_that_is_being_judged_cannot_make_us_hold_much(certificates: Certificates) -> None:
    shaken = Shaken()
    _transport, protocol, peer, answers = judged(certificates, on_handshake=shaken)
    with peer:
        peer.engine.feed(peer.receive_raw())
        peer.engine.handshake()
        peer.flush()
        until(lambda: answers)
        with pytest.raises(TimeoutError, match="enough"):
            flood(peer.sock, 10_000_000)
        assert not protocol.made
        answers[0](False)
        until(lambda: shaken.results)
        assert isinstance(shaken.results[0], CertificateError)


def test_what_is_held_while_a_peer_is_judged_is_read_afterwards(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssl_module, "_MOST_UNASKED", 10)
    transport, protocol, peer, answers = judged(certificates)
    with peer:
        peer.engine.feed(peer.receive_raw())
        peer.engine.handshake()
        flight = peer.engine.drain()
        for start in range(0, len(flight), 100):
            peer.send_raw(flight[start : start + 100])
            gevent.sleep(0.002)
        until(lambda: answers)
        gevent.sleep(0.01)
        assert not protocol.made
        answers[0](True)
        peer.handshake()
        peer.send(b"welcome")
        assert protocol.wait_received(7) == b"welcome"
        closed(transport)
