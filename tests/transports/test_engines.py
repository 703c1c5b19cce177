"""The TLS engines alone: bytes in, bytes out, in all combinations of the two libraries."""

from __future__ import annotations

import ssl
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from conftest import Certificates
from greentaps.certificates import CertificateAuthority
from greentaps.engines import Engine, is_context, make_engine
from greentaps.errors import CertificateError, TlsError
from greentaps.testing import pattern
from OpenSSL import SSL
from transports.helpers import ENGINES, TLS12, client_context, server_context

combinations = pytest.mark.parametrize(
    ("client", "server", "highest"),
    list(product(ENGINES, ENGINES, (None, TLS12))),
    ids=lambda value: {None: "1.3", TLS12: "1.2"}.get(value, value),
)


def make(
    certificates: Certificates, client: str, server: str, highest: Any = None, name: str = "server"
) -> tuple[Engine, Engine]:
    return (
        make_engine(client_context(client, certificates), False, "localhost"),
        make_engine(server_context(server, certificates, name, highest=highest), True, None),
    )


def shake(one: Engine, two: Engine) -> None:
    done = [False, False]
    while not all(done):
        for index, (engine, other) in enumerate(((one, two), (two, one))):
            done[index] = done[index] or engine.handshake()
            other.feed(engine.drain())
    for engine in (one, two):
        assert engine.read() == b""


def read_all(engine: Engine) -> tuple[bytes, bool]:
    """All plaintext there is, and whether the close_notify came behind it."""
    data = b""
    while piece := engine.read():
        data += piece
    return data, piece is None


@combinations
@pytest.mark.parametrize("byte_by_byte", [False, True])
def test_a_session(
    certificates: Certificates, client: str, server: str, highest: Any, byte_by_byte: bool
) -> None:
    one, two = make(certificates, client, server, highest)
    assert one.version() is None
    assert one.drain() == b""
    shake(one, two)
    version = "TLSv1.2" if highest else "TLSv1.3"
    assert one.version() == two.version() == version
    assert one.half_close() == two.half_close() == (highest is None)
    assert one.cipher() == two.cipher()
    assert one.alpn() is None
    assert one.peer_certificate()
    assert two.peer_certificate() is None
    for sender, receiver in ((one, two), (two, one)):
        for data in (b"x", b"", pattern(16384), pattern(16385), pattern(300_000)):
            assert sender.write(data) == len(data)
            assert sender.write(memoryview(bytearray(data))) == len(data)
            out = sender.drain()
            assert (out == b"") == (data == b"")
            if byte_by_byte and len(data) < 1000:
                got = b""
                for at in range(len(out)):
                    receiver.feed(out[at : at + 1])
                    got += read_all(receiver)[0]
                assert got == data + data
            else:
                receiver.feed(out)
                assert read_all(receiver) == (data + data, False)
            assert not receiver.has_input()


@combinations
def test_the_two_ends(certificates: Certificates, client: str, server: str, highest: Any) -> None:
    one, two = make(certificates, client, server, highest)
    shake(one, two)
    one.write(b"last words")
    one.shutdown()
    one.shutdown()
    out = one.drain()
    assert one.drain() == b""
    two.feed(out)
    assert two.has_input()
    assert read_all(two) == (b"last words", True)
    assert not two.has_input()
    assert two.leftover() == b""
    two.shutdown()
    one.feed(two.drain())
    assert read_all(one) == (b"", True)


@combinations
@pytest.mark.parametrize("held", [b"", b"held back", pattern(100_000)])
def test_shutdown_with_input_that_was_not_read(
    certificates: Certificates, client: str, server: str, highest: Any, held: bytes
) -> None:
    """Our close_notify must not cost us what the peer has sent before it, nor its close_notify."""
    for receiver_first in (False, True):
        one, two = make(certificates, client, server, highest)
        shake(one, two)
        sender, receiver = (two, one) if receiver_first else (one, two)
        sender.write(held)
        sender.shutdown()
        receiver.feed(sender.drain())
        receiver.shutdown()
        assert receiver.has_input()
        assert read_all(receiver) == (held, True)
        sender.feed(receiver.drain())
        assert read_all(sender) == (b"", True)


@combinations
@pytest.mark.parametrize("rest", [b"", b"clear", b"clear " * 50_000])
@pytest.mark.parametrize("shut_first", [False, True])
def test_what_follows_the_close_notify_is_left_over(
    certificates: Certificates,
    client: str,
    server: str,
    highest: Any,
    rest: bytes,
    shut_first: bool,
) -> None:
    one, two = make(certificates, client, server, highest)
    shake(one, two)
    if shut_first:
        two.shutdown()
    one.write(b"secret")
    one.shutdown()
    two.feed(one.drain() + rest)
    assert read_all(two) == (b"secret", True)
    assert two.has_input() == bool(rest)
    two.feed(b" and more")
    two.shutdown()
    assert two.leftover() == rest + b" and more"


@combinations
def test_a_changed_record(
    certificates: Certificates, client: str, server: str, highest: Any
) -> None:
    one, two = make(certificates, client, server, highest)
    shake(one, two)
    one.write(b"data")
    record = bytearray(one.drain())
    record[-1] ^= 0x80
    two.feed(bytes(record))
    with pytest.raises(TlsError) as caught:
        two.read()
    assert caught.value.reason
    assert caught.value.__cause__ is not None
    assert two.drain(), "no alert"


@pytest.mark.parametrize(("client", "server"), list(product(ENGINES, ENGINES)))
@pytest.mark.parametrize(("name", "code"), [("expired", 10), ("elsewhere", 62), ("stranger", None)])
def test_a_bad_certificate(
    certificates: Certificates, client: str, server: str, name: str, code: int | None
) -> None:
    one, two = make(certificates, client, server, name=name)
    with pytest.raises(CertificateError) as caught:
        shake(one, two)
    assert code is None or caught.value.verify_code == code
    assert caught.value.verify_message
    assert caught.value.reason == "CERTIFICATE_VERIFY_FAILED"
    two.feed(one.drain())
    with pytest.raises(TlsError) as told:
        two.handshake()
    assert "ALERT" in str(told.value.reason)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("name", "good"), [("*.example.org", True), ("f*.example.org", False), ("*.org", False)]
)
def test_wildcards(
    certificates: Certificates, tmp_path: Path, engine: str, name: str, good: bool
) -> None:
    """A whole label and no less, as RFC 9525 says; OpenSSL by itself would take a part of one."""
    authority = CertificateAuthority()
    ours = replace(
        certificates,
        ca=authority.write(tmp_path),
        server=authority.issue(name).write(tmp_path, "server"),
    )
    one = make_engine(client_context(engine, ours), False, "foo.example.org")
    two = make_engine(server_context(engine, ours), True, None)
    if good:
        shake(one, two)
    else:
        with pytest.raises(CertificateError) as caught:
            shake(one, two)
        assert caught.value.verify_code == 62


def test_names() -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    for good in ("localhost", "example.org", "bücher.example", "192.0.2.1", "2001:db8::1"):
        make_engine(context, False, good)
    for bad in ("", ".example.org", "a\0b"):
        with pytest.raises(ValueError, match="server_hostname"):
            make_engine(context, False, bad)


def test_a_name_is_needed_where_it_is_checked(certificates: Certificates) -> None:
    context = certificates.client_context()
    with pytest.raises(ValueError, match="server_hostname"):
        make_engine(context, False, None)
    context.check_hostname = False
    make_engine(context, False, None)
    make_engine(certificates.server_context(), True, None)


def test_which_engine() -> None:
    class Mine(ssl.SSLContext):
        pass

    assert is_context(ssl.create_default_context())
    assert is_context(Mine(ssl.PROTOCOL_TLS_SERVER))
    assert is_context(SSL.Context(SSL.TLS_METHOD))
    for wrong in (None, True, ssl.SSLContext, object(), "ssl"):
        assert not is_context(wrong)
        with pytest.raises(TypeError, match="context"):
            make_engine(wrong, False, None)
