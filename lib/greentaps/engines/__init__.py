"""TLS engines: bytes in, bytes out, no I/O, no clock, no greenlets.

An engine is what `SslTransport` needs of a TLS library and no more, so that the standard
library's ``ssl`` and pyOpenSSL serve one transport.  The calls come in one order: hand in what
arrived (`feed`), ask for progress (`handshake`, `read`, `write`, `shutdown`), and send what there
is to send (`drain`), also after an error: an alert may be in it.

Which engine is meant follows from the type of the context: `make_engine` holds the table.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

__all__ = ["Engine", "is_context", "make_engine"]


class Engine(Protocol):
    """One side of one TLS session over memory."""

    def feed(self, data: bytes) -> None:
        """Take ciphertext that arrived."""

    def drain(self) -> bytes:
        """Give all ciphertext that is to be sent; ``b""`` if there is none."""

    def handshake(self) -> bool:
        """Go on with the handshake.  True when it is complete, False for "more input, please".

        Raises TlsError or CertificateError.
        """

    def read(self) -> bytes | None:
        """Give the next piece of plaintext: ``b""`` for "more input, please", None when the peer
        has said that it will send no more (close_notify).  Raises TlsError."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypt *data*; returns how much of it was taken: all, but for a renegotiation of the
        peer's that needs input first.  Raises TlsError."""

    def shutdown(self) -> None:
        """Say close_notify, once.  Harmless in every state."""

    def leftover(self) -> bytes:
        """After the peer's close_notify: what arrived behind it, which is not TLS any more."""

    def has_input(self) -> bool:
        """Whether input is held that `read` has not consumed."""

    def truncated(self, during: str) -> Exception:
        """The error for a stream that ended without a close_notify."""

    def half_close(self) -> bool:
        """Whether one direction can be ended alone: in TLS 1.3 (RFC 8446 section 6.1)."""

    @property
    def object(self) -> Any:
        """The library's own connection object."""

    def version(self) -> str | None:
        """The protocol version in use, ``"TLSv1.3"``; None before the handshake."""

    def cipher(self) -> str | None:
        """The cipher suite in use; None before the handshake."""

    def alpn(self) -> str | None:
        """The application protocol agreed on (RFC 7301); None if there is none."""

    def peer_certificate(self) -> bytes | None:
        """The peer's certificate in DER form; None if it sent none."""


# Context class -> engine.  By name, so that pyOpenSSL is imported only by who uses it.
_ENGINES = {
    ("ssl", "SSLContext"): ("greentaps.engines.stdlib", "StdlibEngine"),
    ("OpenSSL.SSL", "Context"): ("greentaps.engines.pyopenssl", "PyOpenSslEngine"),
}


def _find(context: Any) -> tuple[str, str] | None:
    for base in type(context).__mro__:
        found = _ENGINES.get((base.__module__, base.__name__))
        if found:
            return found
    return None


def is_context(value: Any) -> bool:
    """Whether *value* is a TLS context that an engine is known for."""
    return _find(value) is not None


def make_engine(context: Any, server_side: bool, server_hostname: str | None) -> Engine:
    """The engine for *context* (ssl.SSLContext or OpenSSL.SSL.Context).

    *server_hostname* (str or None) is what a client asks for (SNI) and checks the certificate
    against.  Raises TypeError for other contexts.
    """
    found = _find(context)
    if found is None:
        raise TypeError(
            "a TLS context must be an ssl.SSLContext or an OpenSSL.SSL.Context, "
            f"not {type(context).__name__}"
        )
    module, name = found
    engine: Engine = getattr(importlib.import_module(module), name)(
        context, server_side, server_hostname
    )
    return engine
