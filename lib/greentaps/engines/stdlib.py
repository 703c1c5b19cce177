"""The default TLS engine: the standard library's ``ssl`` over two memory BIOs.

The one trick is in `read`.  A read from an empty SSLObject ends in an exception, which costs
more than the decryption of a small record; so we look first whether there is anything to read.
And OpenSSL gives one record at most for each read: where it gave less than it was asked for, there
is nothing more in that record.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from ..errors import CertificateError, TlsError
from .terms import Resumable

__all__ = ["StdlibEngine"]

_RECORD_SIZE = 16384  # bytes of plaintext, at most


class StdlibEngine:
    """`Engine` over ``ssl.SSLObject``."""

    __slots__ = (
        "__weakref__",
        "_core",
        "_full",
        "_incoming",
        "_object",
        "_on_shutdown",
        "_outgoing",
        "_shut",
        "more",
        "short",
    )

    asking = False

    def __init__(
        self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None
    ) -> None:
        if not server_side and server_hostname is None and context.check_hostname:
            # An SSLSocket refuses this; an SSLObject would accept a certificate for any name.
            raise ValueError("a context with check_hostname needs a server_hostname")
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._shut = False
        self._on_shutdown: Callable[[Any], None] | None = None
        self._object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=None if server_side else server_hostname,
        )
        # What the SSLObject passes its calls on to: a Python call less for each of them.
        self._core: Any = getattr(self._object, "_sslobj", self._object)
        self._full = False  # the last read got all it had asked for: there may be more inside
        self.more = False
        self.short = 0

    def feed(self, data: bytes) -> None:
        self._incoming.write(data)

    def drain(self) -> bytes:
        outgoing = self._outgoing
        return outgoing.read() if outgoing.pending else b""

    def handshake(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise _translate(error, "handshake") from error
        return True

    def read(self) -> bytes | None:
        incoming = self._incoming
        core = self._core
        if not incoming.pending and not (self._full and core.pending()):
            return b""
        try:
            # On a close_notify this gives b"" or SSLZeroReturnError, by the state of the session.
            data: bytes = core.read(_RECORD_SIZE)
            self._full = full = len(data) == _RECORD_SIZE
            self.more = full or incoming.pending > 0
            return data or None
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLZeroReturnError:
            return None
        except ssl.SSLError as error:
            raise _translate(error, "read") from error

    def write(self, data: bytes | bytearray | memoryview) -> int:
        size = len(data)
        if not size:
            return 0
        sent: int = 0
        try:
            sent += self._core.write(data)
            if sent != size:  # one record at a time
                view = memoryview(data)
                while sent != size:
                    sent += self._core.write(view[sent:])
        except ssl.SSLWantReadError:
            return sent
        except ssl.SSLError as error:
            raise _translate(error, "write") from error
        return sent

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        size = len(data)
        if size and size <= _RECORD_SIZE:
            try:
                self.short = size - self._core.write(data)
            except ssl.SSLWantReadError:
                self.short = size
            except ssl.SSLError as error:
                raise _translate(error, "write") from error
        else:
            self.short = size - self.write(data)
        return self._outgoing.read()

    def shutdown(self) -> None:
        if self._shut:
            return
        self._shut = True
        if self._on_shutdown is not None:
            self._on_shutdown(self)
        # `unwrap` sends ours and then looks for the peer's at once, to which data of the peer that
        # is still to be read is an error.  So it sees no input; the peer's is found by `read`.
        held_back = self._incoming.read()
        try:
            self._object.unwrap()
        except (ssl.SSLError, ValueError, OSError):
            pass
        if held_back:
            self._incoming.write(held_back)

    def leftover(self) -> bytes:
        return self._incoming.read()

    def has_input(self) -> bool:
        return bool(self._incoming.pending or self._object.pending())

    def truncated(self, during: str) -> Exception:
        return TlsError(f"the peer ended the stream {during} without a TLS close_notify")

    def half_close(self) -> bool:
        return self._object.version() == "TLSv1.3"

    @property
    def object(self) -> Any:
        return self._object

    def version(self) -> str | None:
        return self._object.version()

    def cipher(self) -> str | None:
        cipher = self._object.cipher()
        return cipher[0] if cipher else None

    def alpn(self) -> str | None:
        return self._object.selected_alpn_protocol()

    def peer_certificate(self) -> bytes | None:
        return self._object.getpeercert(binary_form=True)

    def authenticated(self) -> bool:
        context = self._object.context
        if context.verify_mode is ssl.CERT_NONE or self._object.version() is None:
            return False
        if not self._object.server_side and not context.check_hostname:
            return False
        return self.peer_certificate() is not None

    def reused(self) -> bool:
        return bool(self._object.session_reused)

    def resume(self, session: Any) -> None:
        self._object.session = session

    def resumable(self) -> Resumable | None:
        version = self._object.version()
        try:
            session = self._object.session if version is not None else None
        except ValueError:  # a handshake that was broken off has left one that is not whole
            return None
        if session is None or not (session.has_ticket or session.id):
            return None
        once = version == "TLSv1.3"
        if once and not session.has_ticket:
            return None
        lifetime = session.ticket_lifetime_hint or session.timeout
        return Resumable(session, lifetime, once)

    def on_progress(self, callback: Callable[[], None]) -> None:
        pass  # it never waits

    def on_shutdown(self, callback: Callable[[Any], None]) -> None:
        self._on_shutdown = callback


def _translate(error: Exception, action: str) -> TlsError:
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLCertVerificationError):
        made: TlsError = CertificateError(
            f"the peer's certificate is not acceptable: {error.verify_message}"
        )
        assert isinstance(made, CertificateError)
        made.verify_code = error.verify_code
        made.verify_message = error.verify_message
    else:
        what = reason.replace("_", " ").lower() if reason else str(error)
        made = TlsError(f"TLS {action} failed: {what}")
    made.reason = reason
    return made
