"""What one TLS session is to keep to beyond its context: sessions, pins, and who judges.

`Terms` stand where a TLS context stands, as the first argument of `make_engine`.  The questions
that a handshake may have to wait for are asked through ``Terms.ask``, by whoever has greenlets:
engines have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["IdentityChallenge", "Resumable", "Terms", "TrustVerification"]


@dataclass(frozen=True)
class TrustVerification:
    """The question whether a peer is to be trusted (RFC 9622 section 6.3.8)."""

    certificates: tuple[bytes, ...]
    """The peer's certificate, and behind it the others that it sent, in DER form."""

    server_name: str | None
    """Whom the application wanted to reach; None on a server."""

    error: str | None
    """What the usual verification has against the peer; None if it is content."""

    error_code: int = 0
    """OpenSSL's number for that (``X509_V_ERR_...``); 0 if it is content."""

    server_side: bool = False
    """Whether we are the server, and the peer a client."""


@dataclass(frozen=True)
class IdentityChallenge:
    """The question who we are: the peer asks for a certificate (RFC 9622 section 6.3.8)."""

    server_name: str | None
    """The name of the server: whom a client wanted to reach, whom a server's peer has asked for."""

    authorities: tuple[bytes, ...] = ()
    """The subjects (DER) of the authorities that a server says it would trust."""

    server_side: bool = False
    """Whether we are the server."""


@dataclass(frozen=True)
class Resumable:
    """A session that a later connection can go on with."""

    session: Any
    lifetime: float | None
    """Seconds for which the server wants it to be used; None if it is not known."""

    once: bool
    """Whether it is to be used once only, as the tickets of TLS 1.3 (RFC 8446 appendix C.4)."""


# ask(function, question, answer): call ``function(question)`` where it may block, then *answer*
# with what it has returned, or with the exception that it has raised.
Ask = Callable[[Callable[[Any], Any], Any, Callable[[Any], None]], None]


@dataclass(frozen=True)
class Terms:
    """*context* is the TLS context; all else may be left out.

    *prepare* is called with each new engine, before anything else is.  *pins* are SHA-256 digests:
    of certificates, and of SubjectPublicKeyInfos.  *judge* gets a `TrustVerification` and must
    return True; *challenge* an `IdentityChallenge`, and returns another context, with an identity,
    or None.  *preshared* says that *context* lets nobody in without the key.
    """

    context: Any
    prepare: Callable[[Any], None] | None = None
    pins: frozenset[bytes] = frozenset()
    judge: Callable[[TrustVerification], Any] | None = None
    challenge: Callable[[IdentityChallenge], Any] | None = None
    ask: Ask | None = None
    preshared: bool = False
