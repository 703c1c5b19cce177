"""Security Parameters: what a Connection's security must be (RFC 9622 section 6.3).

Secure by default: a SecurityParameters object without anything set verifies the peer against the
system's trust store, by name, with TLS 1.2 or later.  What is set wrongly fails when it is set,
and what cannot be had fails the establishment and is named; nothing falls back.

`PARAMETERS` is the table: everything that `SecurityParameters.set` takes, by the RFC's names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines import IdentityChallenge, Terms, TrustVerification
from ..engines.sessions import SessionCache
from ..tls_context import (
    CIPHER_SUITES,
    GROUPS,
    SIGNATURES,
    VERSIONS,
    Identity,
    PresharedKey,
    Settings,
    make_context,
    supported,
)
from .properties import UnknownPropertyError
from .properties.values import fold

__all__ = ["PARAMETERS", "SecurityParameter", "SecurityParameters"]

# The session cache, unless the application says otherwise.
MAX_CACHED_SESSIONS = 64
CACHED_SESSION_LIFETIME = 7200  # seconds

# A shorter key can be found by trying (RFC 9257 section 6); OpenSSL takes no longer ones.
_KEY_SIZES = range(16, 257)  # bytes
_IDENTITY_SIZES = range(1, 129)  # bytes

# Between the certificates of a bundle there may be remarks in any script; `ssl` takes only ASCII.
_REMARKS = "backslashreplace"

_OTHER_NAMES = {
    "p256": "secp256r1",
    "prime256v1": "secp256r1",
    "p384": "secp384r1",
    "p521": "secp521r1",
    "curve25519": "x25519",
}

_DIGEST_CHARACTERS = 44  # of a SHA-256 digest in base64

TrustCallback = Callable[[TrustVerification], bool]
IdentityCallback = Callable[[IdentityChallenge], Any]


# -- Values --


def _protocols(name: str, values: tuple[Any, ...]) -> tuple[str, ...]:
    chosen = _named(name, values, tuple(VERSIONS))
    return tuple(version for version in VERSIONS if version in chosen)


def _named(name: str, values: tuple[Any, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    folded = {fold(each): each for each in known}
    chosen: list[str] = []
    what = "a security protocol" if known == tuple(VERSIONS) else f"a {name}"
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{name} is a str, not {value!r}")
        key = fold(value)
        found = folded.get(fold(_OTHER_NAMES.get(key, key)))
        if found is None:
            raise ValueError(f"{what} is one of {', '.join(known)}, not {value!r}")
        if found not in chosen:
            chosen.append(found)
    if not chosen:
        raise ValueError(f"{what} at least must be allowed; None puts the default back")
    return tuple(chosen)


def _alpn(name: str, values: tuple[Any, ...]) -> tuple[str, ...]:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"an ALPN name is a str, not {value!r}")
        if not 1 <= len(value) <= 255 or not value.isascii():
            raise ValueError(f"an ALPN name has 1 to 255 ASCII characters: {value!r}")
    if sum(len(value) + 1 for value in values) > 65535:
        raise ValueError(f"more ALPN names than fit into a handshake: {len(values)}")
    return values


def _identities(name: str, values: tuple[Any, ...]) -> tuple[Identity, ...]:
    found = tuple(map(_identity, values))
    for identity in found:
        identity.check()
    return found


def _identity(value: Any) -> Identity:
    """An Identity from what stands for one: a path, PEM data, a tuple (certificate, key[,
    password]), or an object with ``certificate`` and ``private_key``."""
    if isinstance(value, Identity):
        return value
    if hasattr(value, "certificate") and hasattr(value, "private_key"):
        value = (value.certificate, value.private_key)
    parts = value if isinstance(value, tuple) else (value,)
    if not 1 <= len(parts) <= 3:
        raise ValueError("an identity is a certificate, a private key and a password, at most")
    certificate, key, password = (*parts, None, None)[:3]
    if password is not None and not isinstance(password, str):
        raise TypeError("the password of a private key is a str")
    made = Identity(_pem_or_path(certificate), None if key is None else _pem_or_path(key))
    return made if password is None else Identity(made.certificate, made.private_key, password)


def _pem_or_path(value: Any) -> str | bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a certificate or a key is a path or PEM data, not {value!r}")


def _pins(name: str, values: tuple[Any, ...]) -> tuple[bytes, ...]:
    if not values:  # a list that was empty by mistake must not lift the demand
        raise ValueError(f"{name} needs at least one certificate or digest")
    return tuple(map(_pin, values))


def _pin(value: Any) -> bytes:
    """The SHA-256 digest that *value* stands for."""
    if isinstance(value, str) and value.startswith("sha256/"):
        text = value.removeprefix("sha256/")
        if len(text) > _DIGEST_CHARACTERS:
            text = text.removeprefix("/")  # curl writes two; one may also be the digest's own
        try:
            digest = base64.b64decode(text, validate=True)
        except binascii.Error:
            digest = b""
    elif isinstance(value, str) and value.startswith("sha256:"):
        text = value.removeprefix("sha256:").replace(":", "")
        digest = bytes.fromhex(text) if re.fullmatch("[0-9A-Fa-f]{64}", text) else b""
    else:
        return hashlib.sha256(_first_certificate(value)).digest()
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError(f"not a SHA-256 digest: {value!r}")
    return digest


def _first_certificate(value: Any) -> bytes:
    data = value
    if isinstance(value, str | os.PathLike):
        data = Path(value).read_bytes()
    elif not isinstance(value, bytes | bytearray):
        raise TypeError(
            f"a pinned certificate is a path, PEM or DER data, or a digest, not {value!r}"
        )
    marker = b"-----END CERTIFICATE-----"
    try:
        if marker not in data:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=bytes(data))
            return bytes(data)
        first = data[data.index(b"-----BEGIN CERTIFICATE-----") : data.index(marker) + len(marker)]
        return ssl.PEM_cert_to_DER_cert(first.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"no certificate can be read from {_shown(value)}: {error}") from error


def _from_zero(name: str, values: tuple[Any, ...]) -> int:
    (value,) = values
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {value!r}")
    if not 0 <= value < 1 << 31:
        raise ValueError(f"{name} is a number from 0 on, not {value!r}")
    return value


def _preshared(name: str, values: tuple[Any, ...]) -> PresharedKey:
    if len(values) == 1 and isinstance(values[0], PresharedKey):
        return values[0]
    if len(values) != 2:
        raise TypeError("preSharedKey takes a key and an identity")
    key, identity = values
    if isinstance(identity, str):
        identity = identity.encode()
    if not isinstance(key, bytes | bytearray) or not isinstance(identity, bytes | bytearray):
        raise TypeError("preSharedKey takes a key (bytes) and an identity (str or bytes)")
    if len(key) not in _KEY_SIZES:
        raise ValueError(f"a pre-shared key has 16 to 256 bytes, not {len(key)}")
    if len(identity) not in _IDENTITY_SIZES or b"\0" in identity:
        raise ValueError("the identity of a pre-shared key has 1 to 128 bytes, none of them 0")
    return PresharedKey(bytes(key), bytes(identity))


# -- The table --


@dataclass(frozen=True)
class SecurityParameter:
    """One row: *parse* makes the value out of what was given, *default* is it if nothing was.
    *array* says that several values may be given.  *takes* are the names that may be values, or
    the types that stand for them."""

    name: str
    parse: Callable[[str, tuple[Any, ...]], Any]
    default: Any
    array: bool
    takes: tuple[Any, ...]
    authenticates: bool = False
    """Whether it is about who the peer is, which opportunistic security does not ask."""


def _from(known: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], tuple[str, ...]]:
    return lambda name, values: _named(name, values, known)


_FILES = (str, os.PathLike, bytes)

PARAMETERS: tuple[SecurityParameter, ...] = (
    SecurityParameter(
        "allowedSecurityProtocols", _protocols, tuple(VERSIONS), True, tuple(VERSIONS)
    ),
    SecurityParameter("serverCertificate", _identities, (), True, (*_FILES, tuple)),
    SecurityParameter("clientCertificate", _identities, (), True, (*_FILES, tuple)),
    SecurityParameter("pinnedServerCertificate", _pins, (), True, _FILES, authenticates=True),
    SecurityParameter("alpn", _alpn, (), True, (str,)),
    SecurityParameter("supportedGroup", _from(GROUPS), (), True, GROUPS),
    SecurityParameter("ciphersuite", _from(CIPHER_SUITES), (), True, CIPHER_SUITES),
    SecurityParameter("signatureAlgorithm", _from(SIGNATURES), (), True, SIGNATURES),
    SecurityParameter("maxCachedSessions", _from_zero, MAX_CACHED_SESSIONS, False, (int,)),
    SecurityParameter(
        "cachedSessionLifetimeSeconds", _from_zero, CACHED_SESSION_LIFETIME, False, (int,)
    ),
    SecurityParameter("preSharedKey", _preshared, None, False, (bytes, str), authenticates=True),
)

_BY_NAME = {fold(row.name): row for row in PARAMETERS}


def _find(name: Any) -> SecurityParameter:
    if not isinstance(name, str):
        raise TypeError(f"the name of a Security Parameter is a str, not {name!r}")
    row = _BY_NAME.get(fold(name))
    if row is None:
        known = ", ".join(each.name for each in PARAMETERS)
        raise UnknownPropertyError(f"no Security Parameter is called {name!r}: {known}", name)
    return row


class _Made:
    """What was made of parameters, for all of their copies: it is lost when one of them is
    changed, to that one."""

    def __init__(self) -> None:
        self.contexts: dict[bool, Any] = {}
        self.sessions: SessionCache | None = None


class SecurityParameters:
    """Parameters for secured Connections (RFC 9622 section 6.3.1 ff.).

    Made by ``SecurityParameters()`` with secure defaults, or by `disabled` or `opportunistic`.
    Every method that changes something returns the object itself.
    """

    def __init__(self) -> None:
        self._disabled = False
        self._opportunistic = False
        self._trust: list[str] = []
        self._values: dict[str, Any] = {}
        self._trust_callback: TrustCallback | None = None
        self._identity_callback: IdentityCallback | None = None
        self._made = _Made()

    @classmethod
    def disabled(cls) -> SecurityParameters:
        """Parameters that say: add no security (``NewDisabledSecurityParameters``)."""
        made = cls()
        made._disabled = True
        return made

    @classmethod
    def opportunistic(cls) -> SecurityParameters:
        """Parameters that allow Connections without security
        (``NewOpportunisticSecurityParameters``).

        TLS is tried first, with whoever answers: the peer is not verified.  Only if that fails
        is the connection made without.  Look at `Connection.stack` for what has come of it.
        An attacker on the path can read and change everything: better than nothing where there
        was nothing.

        A listener has TLS with each client whose first byte begins a TLS handshake (22), and none
        with others.  So it waits for the client's first byte, and takes one that is silent for
        5 seconds for a client without TLS that waits for ours.  With activeReadBeforeSend preferred
        or required, which asks for a listener that speaks first, it cannot be opportunistic.
        """
        made = cls()
        made._opportunistic = True
        return made

    @property
    def is_disabled(self) -> bool:
        """Whether no security is to be added."""
        return self._disabled

    @property
    def is_opportunistic(self) -> bool:
        """Whether there may be Connections without security."""
        return self._opportunistic

    # -- By the RFC's names --

    def set(self, name: str, *values: Any) -> SecurityParameters:
        """``Set``: give the parameter *name*, in any spelling, one value or several; None alone
        puts the default back.  What was set before is replaced.

        ================================ =====================================================
        ``allowedSecurityProtocols``     ``"tls_1_2"``, ``"tls_1_3"``
        ``serverCertificate``            a path, PEM data, or a tuple (certificate, key[,
                                         password]) of those
        ``clientCertificate``            the same
        ``pinnedServerCertificate``      a path, PEM or DER data; ``"sha256/..."`` with the base64
                                         digest of a public key (SubjectPublicKeyInfo), or
                                         ``"sha256:..."`` with the hex digest of a certificate
        ``alpn``                         names in the order of preference
        ``supportedGroup``               the RFCs' names: see `supported`
        ``ciphersuite``                  the same
        ``signatureAlgorithm``           the same
        ``maxCachedSessions``            a number; 0: sessions are not resumed
        ``cachedSessionLifetimeSeconds`` a number
        ``preSharedKey``                 a key (bytes) and an identity
        ================================ =====================================================

        Raises KeyError for other names, TypeError and ValueError for other values, and OSError
        for files, with everything as it was.
        """
        row = _find(name)
        if values == (None,):
            if row.name in self._values:
                self._about_to_change()
                del self._values[row.name]
            return self
        self._about_to_change(row.name if row.authenticates else None)
        self._values[row.name] = row.parse(row.name, _flat(row, values))
        return self

    def get(self, name: str) -> Any:
        """The value of the parameter *name*: an array is a tuple, an empty one leaves the choice
        to the library.  Raises KeyError."""
        row = _find(name)
        return self._values.get(row.name, row.default)

    @staticmethod
    def supported(name: str) -> tuple[Any, ...]:
        """The values of the parameter *name* that this build supports; where they cannot be
        counted, the types of values.  Raises KeyError."""
        row = _find(name)
        if row.takes in (GROUPS, SIGNATURES, CIPHER_SUITES):
            return supported(row.name)
        return row.takes

    # -- In words --

    def add_trust_ca(self, ca: str | os.PathLike[str] | bytes) -> SecurityParameters:
        """Trust the certificates in *ca*, a path or PEM data, and no longer the system's.  On a
        listener: demand that clients have a certificate from there.

        Raises OSError, or ValueError if there is no certificate in it.
        """
        if isinstance(ca, bytes | bytearray):
            text = bytes(ca).decode("ascii", _REMARKS)
        elif isinstance(ca, str | os.PathLike):
            text = Path(ca).read_text("ascii", _REMARKS)
        else:
            raise TypeError(f"ca must be a path or PEM data, not {ca!r}")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"no certificate can be read from {_shown(ca)}: {error}") from error
        self._about_to_change("trust")
        self._trust.append(text)
        return self

    def add_identity(
        self,
        certificate: str | os.PathLike[str] | bytes,
        private_key: str | os.PathLike[str] | bytes | None = None,
        password: str | None = None,
        *,
        role: str = "both",
    ) -> SecurityParameters:
        """Present *certificate* (a chain: a path or PEM data) with its *private_key* (likewise;
        by default in the same place).

        *role* is "server", "client" or "both": this adds to serverCertificate, to
        clientCertificate, or to both.  An identity is never used in a role it was not given for
        (RFC 9621 section 6).  Raises OSError, or ValueError if the two do not fit.
        """
        if role not in ("server", "client", "both"):
            raise ValueError(f"role must be 'server', 'client' or 'both', not {role!r}")
        identity = _identity((certificate, private_key, password))
        identity.check()
        self._about_to_change()
        for name in ("serverCertificate", "clientCertificate"):
            if role == "both" or name.startswith(role):
                self._values[name] = (*self.get(name), identity)
        return self

    def add_pin(self, *pins: str | os.PathLike[str] | bytes) -> SecurityParameters:
        """Add to pinnedServerCertificate: see `set`.

        One of the pins must be in the server's verified chain, or the connection fails before
        anything but an alert is sent.  This is on top of the usual verification.
        """
        digests = _pins("pinnedServerCertificate", pins)
        self._about_to_change("pinnedServerCertificate")
        self._values["pinnedServerCertificate"] = (*self.get("pinnedServerCertificate"), *digests)
        return self

    def set_pre_shared_key(self, key: bytes, identity: str | bytes) -> SecurityParameters:
        """Set preSharedKey: both ends prove that they have *key*, and certificates are neither
        used nor accepted."""
        return self.set("preSharedKey", key, identity)

    def allow_protocols(self, *names: str) -> SecurityParameters:
        """Set allowedSecurityProtocols: "tls_1_2", "tls_1_3"."""
        return self.set("allowedSecurityProtocols", *names)

    def offer_alpn(self, *names: str) -> SecurityParameters:
        """Set alpn (RFC 7301): application protocols in the order of preference, which on a
        server is the one that counts."""
        return self.set("alpn", *names)

    # -- Callbacks --

    def set_trust_verification_callback(self, callback: TrustCallback | None) -> SecurityParameters:
        """Have *callback* judge every peer (``SetTrustVerificationCallback``).

        It gets a `greentaps.engines.TrustVerification`, which says what the usual verification
        found, and has the last word: only True lets the connection be made.  It runs in a greenlet
        of its own and may block; until it returns the peer gets no more from us, and establishing
        waits, within its time limit.  An exception is a no.  Sessions are not resumed then, since
        that shows no certificate.  On a listener: clients have to have a certificate.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"a callback is needed, not {callback!r}")
        self._about_to_change("a trust verification callback")
        self._trust_callback = callback
        return self

    def set_identity_challenge_callback(
        self, callback: IdentityCallback | None
    ) -> SecurityParameters:
        """Have *callback* say who we are (``SetIdentityChallengeCallback``).

        It gets a `greentaps.engines.IdentityChallenge` when the peer asks for a certificate: of a
        client only if the server does, of a server for each new session.  It returns an identity in
        one of the forms that `set` takes for clientCertificate, or None for none.  It runs in a
        greenlet of its own and may block.  An exception ends the attempt.

        The private key has to be handed over: neither TLS library lets Python sign in its place.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"a callback is needed, not {callback!r}")
        self._about_to_change()
        self._identity_callback = callback
        return self

    # The older systems' names.
    addTrustCA = add_trust_ca  # noqa: N815
    addIdentity = add_identity  # noqa: N815

    # -- What comes of it --

    def context(self, *, server_side: bool) -> Any:
        """The TLS context that these parameters stand for; made once for each role.

        Raises ValueError, which says what cannot work in that role, or OSError.
        """
        contexts = self._made.contexts
        if server_side not in contexts:
            contexts[server_side] = make_context(
                self._settings(server_side), server_side=server_side
            )
        return contexts[server_side]

    def terms(
        self, *, server_side: bool, ask: Any, clock: Callable[[], float], key: Any = None
    ) -> Any:
        """For plugins: what `SslTransport` takes as its context.

        *ask* is as in `greentaps.engines.Terms`, *clock* tells the time in seconds.  *key* says
        with whom a client's session can be resumed; None for no resumption.
        """
        context = self.context(server_side=server_side)
        sessions = self._sessions() if key is not None and not server_side else None
        pins = () if server_side else self.get("pinnedServerCertificate")
        preshared = self.get("preSharedKey") is not None
        callbacks = self._trust_callback is not None or self._identity_callback is not None
        if sessions is None and not (pins or preshared or callbacks):
            return context

        def prepare(engine: Any) -> None:
            if sessions is not None:
                sessions.serve(key, engine, clock)

        return Terms(
            context,
            prepare=prepare,
            pins=frozenset(pins),
            judge=self._trust_callback,
            challenge=self._challenge_of(server_side) if self._identity_callback else None,
            ask=ask,
            preshared=preshared,
        )

    def _sessions(self) -> SessionCache | None:
        if self._trust_callback is not None or self.get("preSharedKey") is not None:
            return None
        if self._made.sessions is None:
            self._made.sessions = SessionCache(
                self.get("maxCachedSessions"), self.get("cachedSessionLifetimeSeconds")
            )
        return self._made.sessions if self.get("maxCachedSessions") else None

    def _settings(self, server_side: bool, answer: Identity | None = None) -> Settings:
        identities = self.get("serverCertificate" if server_side else "clientCertificate")
        return Settings(
            versions=self.get("allowedSecurityProtocols"),
            verify=not self._opportunistic,
            trust=tuple(self._trust),
            identities=identities if answer is None else (answer,),
            alpn=self.get("alpn"),
            groups=self.get("supportedGroup"),
            suites=self.get("ciphersuite"),
            signatures=self.get("signatureAlgorithm"),
            preshared=self.get("preSharedKey"),
            pinned=bool(self.get("pinnedServerCertificate")) and not server_side,
            judged=self._trust_callback is not None,
            challenged=self._identity_callback is not None,
            keeps_sessions=self.get("maxCachedSessions") > 0,
            session_lifetime=self._values.get("cachedSessionLifetimeSeconds"),
        )

    def _challenge_of(self, server_side: bool) -> Callable[[IdentityChallenge], Any]:
        """The application's callback, with its answer made into a context."""

        def challenge(question: IdentityChallenge) -> Any:
            assert self._identity_callback is not None
            answer = self._identity_callback(question)
            if answer is None:
                return None
            identity = _identity(answer)
            identity.check()
            return make_context(self._settings(server_side, identity), server_side=server_side)

        return challenge

    def _about_to_change(self, authenticating: str | None = None) -> None:
        if self._disabled:
            raise ValueError("disabled SecurityParameters add no security: nothing can be set")
        if self._opportunistic and authenticating is not None:
            raise ValueError(
                f"opportunistic security does not authenticate the peer: {authenticating} would "
                "have no effect"
            )
        self._made = _Made()

    def copy(self) -> SecurityParameters:
        """An object that later changes of this one do not reach.  What has been made of them,
        and the sessions that can be resumed, both have in common until then."""
        made = type(self)()
        made.__dict__.update(self.__dict__)
        made._trust = list(self._trust)
        made._values = dict(self._values)
        return made

    def __repr__(self) -> str:
        # Not the values: there are keys among them.
        what = "disabled" if self._disabled else "opportunistic" if self._opportunistic else ""
        words = [what, *self._values, *(["trust"] if self._trust else [])]
        return f"<SecurityParameters {' '.join(filter(None, words)) or 'defaults'}>"


def _flat(row: SecurityParameter, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Scalars or one array; a tuple is an identity where identities are wanted."""
    if row.name == "preSharedKey":
        return tuple(values[0]) if len(values) == 1 and isinstance(values[0], tuple) else values
    if not row.array:
        if len(values) != 1:
            raise TypeError(f"{row.name} takes one value, not {len(values)}")
        return values
    if len(values) == 1:
        (value,) = values
        is_identity = row.parse is _identities and isinstance(value, tuple)
        if isinstance(value, Iterable) and not is_identity:
            if not isinstance(value, str | bytes | bytearray | os.PathLike):
                return tuple(value)
    return values


def _shown(value: Any) -> str:
    return "the data" if isinstance(value, bytes | bytearray) else os.fspath(value)
