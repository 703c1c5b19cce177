"""The other TLS engine: pyOpenSSL over its memory BIOs.

For what the standard library's ``ssl`` has no way to: verification callbacks, OCSP stapling,
exporters, cipher suites of TLS 1.3.

pyOpenSSL has no public call that checks a host name.  Here a client with a *server_hostname*
always does: by OpenSSL itself, so that the peer gets the fitting alert, where pyOpenSSL's private
binding lets us ask for it; else with service_identity as soon as the handshake is complete, and
then the last flight of the handshake is kept back.  The private names used are all in the last
section of this file; each has a way to do without.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

import service_identity
from OpenSSL import SSL
from service_identity.pyopenssl import verify_hostname, verify_ip_address

from ..errors import CertificateError, TlsError
from .terms import Resumable

__all__ = ["PyOpenSslEngine", "verify_words"]

_READ_SIZE = 66560  # bytes: 64 KiB, and what TLS adds to them
# OpenSSL reports a write of more than one record that cannot be finished as "want read"; one
# record at a time always can.
_RECORD_SIZE = 16384
_HOSTNAME_MISMATCH = 62  # X509_V_ERR_HOSTNAME_MISMATCH
_IP_ADDRESS_MISMATCH = 64  # X509_V_ERR_IP_ADDRESS_MISMATCH
# X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS and X509_CHECK_FLAG_NEVER_CHECK_SUBJECT: RFC 9525, and what
# service_identity does.
_HOST_FLAGS = 0x4 | 0x20


class PyOpenSslEngine:
    """`Engine` over ``OpenSSL.SSL.Connection``."""

    __slots__ = (
        "__weakref__",
        "_closed",
        "_complete",
        "_connection",
        "_fed",
        "_from_ssl",
        "_hostname",
        "_into_ssl",
        "_named",
        "_on_shutdown",
        "_rest",
        "_rest_error",
        "_shut",
        "_ssl",
        "short",
    )

    more = True  # `read` tells
    asking = False

    def __init__(
        self, context: SSL.Context, server_side: bool, server_hostname: str | None
    ) -> None:
        connection = SSL.Connection(context, None)
        self._connection = connection
        # Where OpenSSL is asked without pyOpenSSL's help; None where that cannot be.
        self._ssl, self._into_ssl, self._from_ssl = _below(connection)
        self.short = 0
        self._hostname: Any = None
        self._shut = False
        self._complete = False
        self._closed = False
        self._fed = False
        self._rest = b""  # what was fed behind the peer's close_notify
        self._rest_error: TlsError | None = None
        self._on_shutdown: Callable[[Any], None] | None = None
        self._named = server_side  # who the peer must be is settled
        if server_side:
            connection.set_accept_state()
            return
        connection.set_connect_state()
        if server_hostname is not None:
            self._hostname = _identity(server_hostname)
            self._named = True
            if isinstance(self._hostname, str):
                connection.set_tlsext_host_name(self._hostname.encode("ascii"))
            if _let_openssl_check(connection, self._hostname):
                self._hostname = None

    def feed(self, data: bytes) -> None:
        if self._closed:
            self._rest += data
            return
        if self._into_ssl is not None:
            if _lib.BIO_write(self._into_ssl, data, len(data)) == len(data):
                self._fed = True
                return
            raise TlsError("OpenSSL has not taken what was received")
        view = memoryview(data)
        while view:
            view = view[self._connection.bio_write(bytes(view)) :]
        self._fed = True

    def drain(self) -> bytes:
        source = self._from_ssl
        if source is not None:
            try:
                buffer = _buffers.pop()
            except IndexError:
                buffer = _new_buffer()
            size = _lib.BIO_read(source, buffer, _READ_SIZE)
            data: bytes = _ffi.unpack(buffer, size) if size > 0 else b""
            if size == _READ_SIZE:  # joined once: a long Message would be copied for each piece
                read = [data]
                while size == _READ_SIZE:
                    size = _lib.BIO_read(source, buffer, _READ_SIZE)
                    if size > 0:
                        read.append(_ffi.unpack(buffer, size))
                data = b"".join(read)
            _buffers.append(buffer)
            return data
        pieces = []
        try:
            while True:
                pieces.append(self._connection.bio_read(_READ_SIZE))
                if len(pieces[-1]) < _READ_SIZE:
                    break
        except SSL.WantReadError:
            pass
        except SSL.Error:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def handshake(self) -> bool:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._fed = False
            return False
        except SSL.WantX509LookupError:  # our certificate is not known yet
            return False
        except SSL.Error as error:
            raise self._translate(error, "handshake") from error
        if not self._complete:
            self._check_hostname()
            self._complete = True
        return True

    def _check_hostname(self) -> None:
        """Fail closed: a client that verifies the peer also verifies who the peer is."""
        if self._hostname is None:
            return
        if self._connection.get_context().get_verify_mode() == SSL.VERIFY_NONE:
            return
        by_name = isinstance(self._hostname, str)
        try:
            if by_name:
                verify_hostname(self._connection, self._hostname)
            else:
                verify_ip_address(self._connection, str(self._hostname))
        except (
            service_identity.VerificationError,
            service_identity.CertificateError,
        ) as error:
            text = f"the certificate is not valid for {str(self._hostname)!r}"
            made = CertificateError(f"the peer's certificate is not acceptable: {text}")
            made.verify_code = _HOSTNAME_MISMATCH if by_name else _IP_ADDRESS_MISMATCH
            made.verify_message = text
            self.drain()
            raise made from error

    def read(self) -> bytes | None:
        if self._closed:
            return None
        if not self._fed and not self._connection.pending():
            return b""
        try:
            if self._ssl is None:
                data: bytes = self._connection.recv(_READ_SIZE)
            else:
                try:
                    buffer = _buffers.pop()
                except IndexError:
                    buffer = _new_buffer()
                size = _lib.SSL_read(self._ssl, buffer, _READ_SIZE)
                if size > 0:
                    data = _ffi.unpack(buffer, size)
                    _buffers.append(buffer)
                else:
                    _buffers.append(buffer)
                    if _lib.SSL_get_error(self._ssl, size) == SSL_ERROR_WANT_READ:
                        self._fed = False
                        return b""
                    self._connection._raise_ssl_error(self._ssl, size)
                    return b""
        except SSL.WantReadError:
            self._fed = False
            return b""
        except SSL.ZeroReturnError:
            self._closed = True
            self._fed = False
            try:
                self._rest = _unread_input(self._connection)
            except TlsError as error:
                self._rest_error = error
            return None
        except SSL.Error as error:
            raise self._translate(error, "read") from error
        return data

    def write(self, data: bytes | bytearray | memoryview) -> int:
        size = len(data)
        try:
            if size <= _RECORD_SIZE:
                if not size:
                    return 0
                if self._ssl is not None and type(data) is bytes:
                    sent = int(_lib.SSL_write(self._ssl, data, size))
                    if sent <= 0:
                        self._connection._raise_ssl_error(self._ssl, sent)
                    return sent
                return self._connection.send(data)
            sent = 0
            if self._ssl is not None and type(data) is bytes:
                start = _ffi.from_buffer(data)
                while sent < size:
                    length = min(size - sent, _RECORD_SIZE)
                    done = int(_lib.SSL_write(self._ssl, start + sent, length))
                    if done <= 0:
                        self._connection._raise_ssl_error(self._ssl, done)
                    sent += done
                return sent
            view = memoryview(data)
            while sent < size:
                sent += self._connection.send(view[sent : sent + _RECORD_SIZE])
        except SSL.WantReadError:
            return sent if size > _RECORD_SIZE else 0
        except SSL.Error as error:
            raise self._translate(error, "write") from error
        return sent

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        self.short = len(data) - self.write(data)
        return self.drain()

    def shutdown(self) -> None:
        if self._shut:
            return
        self._shut = True
        if self._on_shutdown is not None:
            self._on_shutdown(self)
        try:
            self._connection.shutdown()
        except SSL.Error:
            pass

    def leftover(self) -> bytes:
        if self._rest_error is not None:
            raise self._rest_error
        return self._rest

    def has_input(self) -> bool:
        return bool(self._fed or self._rest or self._connection.pending())

    def truncated(self, during: str) -> Exception:
        return TlsError(f"the peer ended the stream {during} without a TLS close_notify")

    def half_close(self) -> bool:
        return self.version() == "TLSv1.3"

    @property
    def object(self) -> Any:
        return self._connection

    def version(self) -> str | None:
        return self._connection.get_protocol_version_name() if self._complete else None

    def cipher(self) -> str | None:
        return self._connection.get_cipher_name()

    def alpn(self) -> str | None:
        return self._connection.get_alpn_proto_negotiated().decode("ascii", "replace") or None

    def peer_certificate(self) -> bytes | None:
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return None
        from cryptography.hazmat.primitives.serialization import Encoding

        return certificate.public_bytes(Encoding.DER)

    def authenticated(self) -> bool:
        connection = self._connection
        if not self._complete or not self._named:
            return False
        if connection.get_verify_mode() == SSL.VERIFY_NONE:
            return False
        return self.peer_certificate() is not None and not _verify_result(connection)[0]

    def reused(self) -> bool:
        try:
            return bool(_lib.SSL_session_reused(self._connection._ssl))
        except AttributeError:
            return False

    def resume(self, session: Any) -> None:
        self._connection.set_session(session)

    def resumable(self) -> Resumable | None:
        session = self._connection.get_session() if self._complete else None
        if session is None:
            return None
        once = self.version() == "TLSv1.3"
        ticket, lifetime = _ticket(session)
        return Resumable(session, lifetime, once) if ticket or not once else None

    def on_progress(self, callback: Callable[[], None]) -> None:
        pass  # it never waits

    def on_shutdown(self, callback: Callable[[Any], None]) -> None:
        self._on_shutdown = callback

    def _translate(self, error: SSL.Error, action: str) -> TlsError:
        details = error.args[0] if error.args and isinstance(error.args[0], list) else []
        words = str(details[-1][-1]) if details else str(error) or type(error).__name__
        if action == "handshake" and "certificate verify failed" in words:
            return self._certificate_error(words)
        made = TlsError(f"TLS {action} failed: {words}")
        made.reason = words.upper().replace(" ", "_")
        return made

    def _certificate_error(self, words: str) -> CertificateError:
        code, message = _verify_result(self._connection)
        made = CertificateError(f"the peer's certificate is not acceptable: {message or words}")
        made.reason = words.upper().replace(" ", "_")
        made.verify_code = code
        made.verify_message = message
        return made


def _identity(server_hostname: str) -> Any:
    """What to verify: a host name in A-label form, or an address."""
    if not server_hostname or server_hostname.startswith(".") or "\0" in server_hostname:
        # OpenSSL would take these for "any name" and "any name below".
        raise ValueError(f"server_hostname must be a host name or an address: {server_hostname!r}")
    try:
        return ipaddress.ip_address(server_hostname)
    except ValueError:
        pass
    if server_hostname.isascii():
        return server_hostname
    return server_hostname.encode("idna").decode("ascii")


# -- What pyOpenSSL does not say in public --

_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)

# Buffers of _READ_SIZE that nobody uses now.  A call of OpenSSL's lets other threads run, so each
# call takes one; there are never more of them than threads.
_buffers: list[Any] = []


def _new_buffer() -> Any:
    return _ffi.new("char[]", _READ_SIZE)


def _below(connection: SSL.Connection) -> tuple[Any, Any, Any]:
    """OpenSSL's session of *connection* and its two BIOs, for what is done with each record: half
    of its cost is pyOpenSSL's.  Three times None if this pyOpenSSL does not show them all."""
    try:
        if all(hasattr(_lib, name) for name in _CALLS) and hasattr(connection, "_raise_ssl_error"):
            return connection._ssl, connection._into_ssl, connection._from_ssl
    except AttributeError:
        pass
    return None, None, None


_CALLS = ("SSL_read", "SSL_write", "SSL_get_error", "BIO_read", "BIO_write", "SSL_ERROR_WANT_READ")
SSL_ERROR_WANT_READ = getattr(_lib, "SSL_ERROR_WANT_READ", None)


def _let_openssl_check(connection: SSL.Connection, identity: Any) -> bool:
    """Make OpenSSL check *identity* with the chain; False if this pyOpenSSL gives no way to."""
    try:
        parameters = _lib.SSL_get0_param(connection._ssl)
        if isinstance(identity, str):
            name = identity.encode("ascii")
            _lib.X509_VERIFY_PARAM_set_hostflags(parameters, _HOST_FLAGS)
            return bool(_lib.X509_VERIFY_PARAM_set1_host(parameters, name, len(name)))
        raw = identity.packed
        return bool(_lib.X509_VERIFY_PARAM_set1_ip(parameters, raw, len(raw)))
    except AttributeError:
        return False


def _verify_result(connection: SSL.Connection) -> tuple[int | None, str | None]:
    """OpenSSL's verdict on the chain: its code, and its words for it."""
    try:
        code = int(_lib.SSL_get_verify_result(connection._ssl))
    except AttributeError:
        return None, None
    return code, verify_words(code)


def _ticket(session: Any) -> tuple[bool, float | None]:
    """Whether *session* has a ticket, and how many seconds the server wants it to be used."""
    try:
        size = _lib.i2d_SSL_SESSION(session._session, _ffi.NULL)
        buffer = _ffi.new("unsigned char[]", size)
        _lib.i2d_SSL_SESSION(session._session, _ffi.new("unsigned char **", buffer))
    except AttributeError:
        return True, None
    fields = dict(_elements(next(_elements(_ffi.buffer(buffer)[:]))[1]))
    hint = fields.get(_TICKET_LIFETIME)
    lifetime = None if hint is None else int.from_bytes(next(_elements(hint))[1], "big")
    return _TICKET in fields, lifetime or None


# Fields of OpenSSL's session in DER form.
_TICKET_LIFETIME = 0xA9
_TICKET = 0xAA


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (tag, contents) of DER elements that follow one another."""
    while data:
        size, start = data[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[2:start], "big")
        yield data[0], data[start : start + size]
        data = data[start + size :]


def verify_words(code: int) -> str:
    """OpenSSL's words for the number of a verdict."""
    try:
        words: bytes = _ffi.string(_lib.X509_verify_cert_error_string(code))
        return words.decode("ascii", "replace")
    except AttributeError:
        return f"X509 error {code}"


def _unread_input(connection: SSL.Connection) -> bytes:
    """Take what was fed to OpenSSL and not consumed by it."""
    try:
        source = connection._into_ssl
        buffer = _ffi.new("char[]", _READ_SIZE)
        pieces = []
        while (size := _lib.BIO_read(source, buffer, _READ_SIZE)) > 0:
            pieces.append(_ffi.buffer(buffer, size)[:])
        return b"".join(pieces)
    except AttributeError as error:
        raise TlsError(
            "this version of pyOpenSSL cannot go on in clear after a close_notify"
        ) from error
