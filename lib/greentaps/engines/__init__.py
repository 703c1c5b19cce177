"""TLS engines: bytes in, bytes out, no I/O, no clock, no greenlets.

An engine is what `SslTransport` needs of a TLS library and no more, so that the standard
library's ``ssl`` and pyOpenSSL serve one transport.  The calls come in one order: hand in what
arrived (`feed`), ask for progress (`handshake`, `read`, `write`, `shutdown`), and send what there
is to send (`drain`), also after an error: an alert may be in it.

Which engine is meant follows from the type of the context: `make_engine` holds the table.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from .terms import IdentityChallenge, Resumable, Terms, TrustVerification

__all__ = [
    "Engine",
    "IdentityChallenge",
    "Resumable",
    "Terms",
    "TrustVerification",
    "context_of",
    "is_context",
    "make_engine",
]


class Engine(Protocol):
    """One side of one TLS session over memory."""

    more: bool
    """After `read` has given a piece: whether it may have another one."""

    short: int
    """How much of what `seal` was given last it has not taken."""

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

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        """`write` and `drain` in one, for the data path; `short` tells what was not taken."""

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

    def authenticated(self) -> bool:
        """Whether we know for certain who the peer is: its certificate, and for a client the
        server's name, have been verified, or it has the pre-shared key."""

    def reused(self) -> bool:
        """Whether the session is an earlier one's, resumed."""

    def resume(self, session: Any) -> None:
        """Before the handshake of a client: try to go on with *session*, which is of the same
        context.  If the server does not want it, the handshake is as ever."""

    def resumable(self) -> Resumable | None:
        """What a later connection could go on with, as far as the server has sent it yet."""

    @property
    def asking(self) -> bool:
        """Whether the handshake waits for somebody's answer, and not for input."""

    def on_progress(self, callback: Callable[[], None]) -> None:
        """Call *callback* whenever a handshake that waits for somebody's answer can go on."""

    def on_shutdown(self, callback: Callable[[Any], None]) -> None:
        """Call *callback* with the engine, once, when `shutdown` is called."""


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


def context_of(value: Any) -> Any:
    """The TLS context in *value*, which is one, or `Terms`."""
    return value.context if isinstance(value, Terms) else value


def is_context(value: Any) -> bool:
    """Whether *value* is a TLS context that an engine is known for."""
    return _find(value) is not None


def make_engine(context: Any, server_side: bool, server_hostname: str | None) -> Engine:
    """The engine for *context* (ssl.SSLContext or OpenSSL.SSL.Context), or for `Terms`.

    *server_hostname* (str or None) is what a client asks for (SNI) and checks the certificate
    against.  Raises TypeError for other contexts.
    """
    if isinstance(context, Terms):
        return _engine_on_terms(context, server_side, server_hostname)
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


def _engine_on_terms(terms: Terms, server_side: bool, server_hostname: str | None) -> Engine:
    if terms.pins or terms.judge or terms.challenge or terms.preshared:
        from .judging import JudgingEngine

        engine: Engine = JudgingEngine(terms, server_side, server_hostname)
    else:
        engine = make_engine(terms.context, server_side, server_hostname)
    if terms.prepare is not None:
        terms.prepare(engine)
    return engine
