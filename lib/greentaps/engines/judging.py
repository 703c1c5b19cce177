"""The pyOpenSSL engine with somebody who judges: pins, and callbacks that may take their time.

OpenSSL calls back in the middle of its work, where nobody may wait.  So:

*Trust.*  The verify callback notes what OpenSSL found and lets it go on; what OpenSSL would send
from then on is held here until the verdict.  A peer that is turned down therefore gets nothing
but an alert: no Finished, no certificate of ours, no data.  The alert goes out in clear, as it
may while we have not sent anything encrypted (RFC 8446 section 6); only a server of TLS 1.3 has,
so there the stream just ends.

*Identity.*  OpenSSL's certificate callback can suspend the handshake where the certificate is
needed, and is called again when it goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from ..errors import CertificateError, TlsError
from .pyopenssl import PyOpenSslEngine, verify_words
from .terms import IdentityChallenge, Resumable, Terms, TrustVerification

__all__ = ["JudgingEngine", "note_peer"]

BAD_CERTIFICATE, CERTIFICATE_UNKNOWN, INTERNAL_ERROR = 42, 46, 80


class _Peer:
    """What OpenSSL's callbacks have noted about the peer; the app data of the connection."""

    def __init__(self, lenient: bool) -> None:
        self.lenient = lenient  # the last word is not OpenSSL's
        self.fresh = False  # something has been noted that nobody has judged
        self.code = 0
        self.chain: dict[int, Any] = {}
        self.challenged = False
        self.may_go_on = False
        self.kept_alive: Any = None

    def certificates(self) -> list[Any]:
        """Whom the peer is known to be: the verified chain, its own certificate first.  Of a
        chain that is not verified only the first counts: anybody can send the others."""
        return [self.chain[depth] for depth in sorted(self.chain) if not self.code or depth == 0]


def note_peer(connection: Any, certificate: Any, code: int, depth: int, ok: int) -> bool:
    """The verify callback of contexts for this engine."""
    peer = connection.get_app_data()
    if not isinstance(peer, _Peer):  # the context is in use for something else
        return bool(ok)
    peer.fresh = True
    peer.chain.setdefault(depth, certificate)
    if not ok and not peer.code:
        peer.code = code
    return bool(ok) or peer.lenient


class JudgingEngine(PyOpenSslEngine):
    """`PyOpenSslEngine` for *terms* with pins or callbacks."""

    __slots__ = (
        "_alert",
        "_done",
        "_held",
        "_name",
        "_peer",
        "_progress",
        "_refused",
        "_server_side",
        "_terms",
        "asking",
    )

    def __init__(self, terms: Terms, server_side: bool, server_hostname: str | None) -> None:
        super().__init__(terms.context, server_side, server_hostname)
        self._terms = terms
        self._server_side = server_side
        self._name = server_hostname
        self._done = False
        self.asking = False
        self._held = False
        self._alert = b""
        self._refused: TlsError | None = None
        self._progress: Callable[[], None] | None = None
        self._peer = _Peer(lenient=terms.judge is not None)
        self._connection.set_app_data(self._peer)
        if terms.challenge is not None:
            self._peer.kept_alive = _suspend_for_identity(self._connection, self._peer)

    def on_progress(self, callback: Callable[[], None]) -> None:
        self._progress = callback

    def handshake(self) -> bool:
        if self._refused is not None:
            raise self._refused
        if self.asking:
            return False
        if not self._done:
            self._done = super().handshake()
        if self._peer.fresh:
            self._judge()
        elif self._done and not self._peer.chain and not self.reused():
            self._no_certificate()
        if not self.asking and self._peer.challenged and not self._peer.may_go_on:
            self._ask_identity()
        return self._done and not self.asking

    def drain(self) -> bytes:
        if self._refused is not None:
            alert, self._alert = self._alert, b""
            return alert
        return b"" if self._held else super().drain()

    # -- Trust --

    def _judge(self) -> None:
        peer = self._peer
        peer.fresh = False
        if self._terms.pins and not any(map(self._is_pinned, peer.certificates())):
            error = CertificateError(
                "the peer's certificate is not acceptable: it matches none of those pinned"
            )
            self._refuse(error, BAD_CERTIFICATE)
            raise error
        if self._terms.judge is not None:
            self._held = True
            question = TrustVerification(
                self._presented(),
                self._name,
                verify_words(peer.code) if peer.code else None,
                peer.code,
                self._server_side,
            )
            self._ask(self._terms.judge, question, self._trust_answered)

    def _no_certificate(self) -> None:
        """Not to be reached: whoever is to be judged is made to show a certificate."""
        if self._terms.pins or self._terms.judge is not None:
            error = CertificateError("the peer has shown no certificate that could be judged")
            self._refuse(error, CERTIFICATE_UNKNOWN)
            raise error

    def _is_pinned(self, certificate: Any) -> bool:
        found = certificate.to_cryptography()
        key = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ways = (found.public_bytes(Encoding.DER), key)
        return any(hashlib.sha256(data).digest() in self._terms.pins for data in ways)

    def _presented(self) -> tuple[bytes, ...]:
        first = self._peer.chain[0].to_cryptography()
        chain = [found.to_cryptography() for found in self._connection.get_peer_cert_chain() or ()]
        those = [first, *(found for found in chain if found != first)]
        return tuple(found.public_bytes(Encoding.DER) for found in those)

    def _trust_answered(self, answer: Any) -> None:
        if answer is True:
            self._held = False
        else:
            why = "has refused it"
            if isinstance(answer, BaseException):
                why = f"has failed: {answer!r}"
            elif answer is not False:
                why = f"has returned {answer!r}, which is neither True nor False"
            error = CertificateError(
                f"the peer's certificate is not acceptable: the trust verification callback {why}"
            )
            error.verify_code = self._peer.code or None
            error.verify_message = verify_words(self._peer.code) if self._peer.code else None
            error.__cause__ = answer if isinstance(answer, BaseException) else None
            self._refuse(error, CERTIFICATE_UNKNOWN)
        self._answered()

    # -- Identity --

    def _ask_identity(self) -> None:
        assert self._terms.challenge is not None
        name = self._name
        authorities: tuple[bytes, ...] = ()
        if self._server_side:
            asked = self._connection.get_servername()
            name = asked.decode("ascii", "replace") if asked else None
        else:
            authorities = _authorities(self._connection)
        question = IdentityChallenge(name, authorities, self._server_side)
        self._ask(self._terms.challenge, question, self._identity_answered)

    def _identity_answered(self, answer: Any) -> None:
        if isinstance(answer, BaseException):
            error = TlsError(f"the identity challenge callback has failed: {answer!r}")
            error.__cause__ = answer
            self._refuse(error, INTERNAL_ERROR)
        else:
            if answer is not None:
                self._connection.set_context(answer)
            self._peer.may_go_on = True
        self._answered()

    # -- Both --

    def _ask(self, function: Any, question: Any, answered: Callable[[Any], None]) -> None:
        assert self._terms.ask is not None
        self.asking = True
        self._terms.ask(function, question, answered)

    def _answered(self) -> None:
        self.asking = False
        if self._progress is not None:
            self._progress()

    def _refuse(self, error: TlsError, alert: int) -> None:
        """Nothing of what OpenSSL has to say leaves from now on: only this *alert* does."""
        self._refused = error
        if not (self._server_side and self._connection.get_protocol_version_name() == "TLSv1.3"):
            self._alert = bytes((21, 3, 3, 0, 2, 2, alert))

    def resumable(self) -> Resumable | None:
        # A session that is resumed brings no certificate, and so nothing to judge.
        if self._terms.judge is not None or self._refused is not None or self.asking:
            return None
        return super().resumable()

    def authenticated(self) -> bool:
        if not self._done or self.asking or self._refused is not None:
            return False
        if self._terms.preshared or (self._terms.judge is not None and self._peer.chain):
            return True
        return super().authenticated()


def _authorities(connection: Any) -> tuple[bytes, ...]:
    """Whose certificates the server says it would take."""
    try:
        names = connection.get_client_ca_list(as_cryptography=True)
    except TypeError:  # an older pyOpenSSL
        return tuple(name.der() for name in connection.get_client_ca_list())
    return tuple(name.public_bytes() for name in names)


def _suspend_for_identity(connection: Any, peer: _Peer) -> Any:
    """Have the handshake stop where our certificate is needed; returns what must be kept."""

    library: Any = SSL

    def needed(_ssl: Any, _argument: Any) -> int:
        peer.challenged = True
        return 1 if peer.may_go_on else -1

    try:
        callback = library._ffi.callback("int (*)(SSL *, void *)", needed)
        library._lib.SSL_set_cert_cb(connection._ssl, callback, library._ffi.NULL)
    except AttributeError as error:
        raise ValueError(
            "an identity challenge callback needs SSL_set_cert_cb, which this pyOpenSSL lacks"
        ) from error
    return callback
