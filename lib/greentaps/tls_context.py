"""TLS contexts from plain values: which of the two libraries, and how it is told.

`Settings` say what is wanted in words that belong to no library; `make_context` makes the context.
The standard library's ``ssl`` it is, unless something is wanted that it has no way to: see
`beyond_the_standard_library`.  What the other one cannot do either is a ValueError that names it,
never a context without it.

Names are those of the RFCs: ``secp256r1``, ``TLS_AES_128_GCM_SHA256``, ``ecdsa_secp256r1_sha256``.
"""

from __future__ import annotations

import re
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .errors import TlsError

__all__ = [
    "CIPHER_SUITES",
    "GROUPS",
    "SIGNATURES",
    "VERSIONS",
    "Identity",
    "PresharedKey",
    "Settings",
    "beyond_the_standard_library",
    "make_context",
    "supported",
]

VERSIONS = {"tls_1_2": ssl.TLSVersion.TLSv1_2, "tls_1_3": ssl.TLSVersion.TLSv1_3}

# Only what keeps its secrets when a key is stolen later, and authenticates what it encrypts.
# The RFCs' name -> OpenSSL's, which for TLS 1.3 is the same.
_SUITES_1_3 = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
)
_SUITES_1_2 = {
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384": "DHE-RSA-AES256-GCM-SHA384",
    "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256": "DHE-RSA-AES128-GCM-SHA256",
}
_SUITES_PSK = {
    "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-PSK-CHACHA20-POLY1305",
    "TLS_DHE_PSK_WITH_CHACHA20_POLY1305_SHA256": "DHE-PSK-CHACHA20-POLY1305",
    "TLS_DHE_PSK_WITH_AES_256_GCM_SHA384": "DHE-PSK-AES256-GCM-SHA384",
    "TLS_DHE_PSK_WITH_AES_128_GCM_SHA256": "DHE-PSK-AES128-GCM-SHA256",
}
CIPHER_SUITES = (*_SUITES_1_3, *_SUITES_1_2, *_SUITES_PSK)

GROUPS = (
    "X25519MLKEM768",
    "SecP256r1MLKEM768",
    "SecP384r1MLKEM1024",
    "x25519",
    "secp256r1",
    "x448",
    "secp384r1",
    "secp521r1",
    "ffdhe2048",
    "ffdhe3072",
    "ffdhe4096",
)

SIGNATURES = (
    "ecdsa_secp256r1_sha256",
    "ecdsa_secp384r1_sha384",
    "ecdsa_secp521r1_sha512",
    "ed25519",
    "ed448",
    "rsa_pss_rsae_sha256",
    "rsa_pss_rsae_sha384",
    "rsa_pss_rsae_sha512",
    "rsa_pss_pss_sha256",
    "rsa_pss_pss_sha384",
    "rsa_pss_pss_sha512",
    "rsa_pkcs1_sha256",
    "rsa_pkcs1_sha384",
    "rsa_pkcs1_sha512",
    "mldsa44",
    "mldsa65",
    "mldsa87",
)

# As CPython's default: forward secrecy, authenticated encryption before CBC, no SHA-1.
_DEFAULT_CIPHERS = (
    "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
)
# A ticket is bound to what the server demands of clients; each context has its own keys anyway.
_SESSION_CONTEXT = b"greentaps"
_PEM_KEY = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

Password = str | Callable[[], str]


def _no_password() -> str:
    """Without this OpenSSL would ask at the terminal, and the whole program would wait."""
    raise ValueError("the private key needs a password")


@dataclass(frozen=True)
class Identity:
    """A certificate (chain) and its private key: paths of PEM files, or PEM data (bytes).

    Without *private_key* the key is with the certificate.
    """

    certificate: str | bytes = field(repr=False)
    private_key: str | bytes | None = field(default=None, repr=False)
    password: Password = field(default=_no_password, repr=False)

    def check(self) -> None:
        """Raise OSError, or ValueError if the two do not fit."""
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except (ssl.SSLError, ValueError) as error:
            shown = self.certificate if isinstance(self.certificate, str) else "the PEM data"
            raise ValueError(f"not an identity: {shown}: {error}") from error

    def _load(self, context: ssl.SSLContext) -> None:
        with _as_file(self.certificate) as certificate, _as_file(self.private_key) as key:
            assert certificate is not None
            context.load_cert_chain(certificate, key, self.password)

    def _load_other(self, context: Any) -> None:
        with _as_file(self.certificate) as certificate:
            assert certificate is not None
            context.use_certificate_chain_file(certificate)
        with _as_file(self.private_key or self.certificate) as path:
            assert path is not None
            with open(path, "rb") as file:
                found = _PEM_KEY.search(file.read())
        if found is None:
            raise ValueError("there is no private key")
        context.use_privatekey(self._unlocked(found[0]))
        context.check_privatekey()

    def _unlocked(self, pem: bytes) -> Any:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            return load_pem_private_key(pem, None)
        except TypeError:  # it has a password
            password = self.password if isinstance(self.password, str) else self.password()
            return load_pem_private_key(pem, password.encode())


@contextmanager
def _as_file(value: str | bytes | None) -> Iterator[str | None]:
    """The path of a file with *value*; PEM data is in one that nobody else can read, and only as
    long as it takes."""
    if not isinstance(value, bytes):
        yield value
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(value)
        file.flush()
        yield file.name


@dataclass(frozen=True)
class PresharedKey:
    """A key that both ends have, and the name that they have for it."""

    key: bytes
    identity: bytes

    def __repr__(self) -> str:
        return f"<PresharedKey {self.identity!r}>"


@dataclass(frozen=True)
class Settings:
    """What a context is to be made of; an empty tuple says that the library may choose.

    *trust* is PEM texts in place of the system's trust store; on a server they say that clients
    have to authenticate.  *verify* is false for a client that takes any server.  *notes_peer* and
    *asks_identity* say that the session has `greentaps.engines.Terms` which need that.
    """

    versions: tuple[str, ...] = tuple(VERSIONS)
    verify: bool = True
    trust: tuple[str, ...] = ()
    identities: tuple[Identity, ...] = ()
    alpn: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    preshared: PresharedKey | None = None
    pinned: bool = False
    judged: bool = False
    challenged: bool = False
    keeps_sessions: bool = True
    session_lifetime: int | None = None


def beyond_the_standard_library(settings: Settings, server_side: bool) -> list[str]:
    """What in *settings* makes it necessary to use pyOpenSSL, in RFC 9622's words."""
    wanted = {
        "supportedGroup": settings.groups,
        "ciphersuite": settings.suites,
        "signatureAlgorithm": settings.signatures,
        "preSharedKey": settings.preshared,
        "pinnedServerCertificate": settings.pinned and not server_side,
        "the trust verification callback": settings.judged,
        "the identity challenge callback": settings.challenged,
        # The standard library goes on without if no name is common to both.
        "alpn on a server": server_side and settings.alpn,
        "cachedSessionLifetimeSeconds on a server": server_side and settings.session_lifetime,
    }
    return [name for name, value in wanted.items() if value]


def make_context(settings: Settings, *, server_side: bool) -> Any:
    """An ssl.SSLContext or an OpenSSL.SSL.Context, as *settings* demand.

    Raises ValueError, which says what cannot be had; OSError for files.
    """
    if server_side and not (settings.identities or settings.preshared or settings.challenged):
        raise ValueError("a secured listener needs a server identity: see add_identity()")
    if settings.preshared:
        without_use = {
            "pinnedServerCertificate": settings.pinned,
            "a trust verification callback": settings.judged,
            "an identity challenge callback": settings.challenged,
        }
        for name, wanted in without_use.items():
            if wanted:
                raise ValueError(f"with preSharedKey there is no certificate for {name}")
    versions = _usable_versions(settings)
    beyond = beyond_the_standard_library(settings, server_side)
    if not beyond:
        return _standard(settings, versions, server_side)
    try:
        return _Maker(settings, versions, server_side).make()
    except (AttributeError, ImportError) as error:
        raise ValueError(f"this build cannot do {', '.join(beyond)}: {error}") from error


def _usable_versions(settings: Settings) -> tuple[str, ...]:
    """The versions for which suites are left."""
    if not settings.suites:
        return settings.versions
    usable = {"tls_1_3": _SUITES_1_3, "tls_1_2": (*_SUITES_1_2, *_SUITES_PSK)}
    kept = tuple(name for name in settings.versions if set(usable[name]) & set(settings.suites))
    if not kept:
        raise ValueError(
            f"ciphersuite {', '.join(settings.suites)} leaves nothing of "
            f"allowedSecurityProtocols {', '.join(settings.versions)}"
        )
    return kept


def _standard(settings: Settings, versions: tuple[str, ...], server_side: bool) -> ssl.SSLContext:
    trust = "\n".join(settings.trust)
    purpose = ssl.Purpose.CLIENT_AUTH if server_side else ssl.Purpose.SERVER_AUTH
    if not server_side and not settings.verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(
            purpose, cadata=trust if trust and not server_side else None
        )
    if server_side and trust:
        context.load_verify_locations(cadata=trust)
        context.verify_mode = ssl.CERT_REQUIRED
    for identity in settings.identities:
        identity._load(context)
    context.minimum_version = VERSIONS[versions[0]]
    context.maximum_version = VERSIONS[versions[-1]]
    if settings.alpn:
        context.set_alpn_protocols(list(settings.alpn))
    if server_side and not settings.keeps_sessions:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


class _Maker:
    """Makes one pyOpenSSL context.  The private names of that library are all in here."""

    def __init__(self, settings: Settings, versions: tuple[str, ...], server_side: bool) -> None:
        from OpenSSL import SSL

        self._ssl: Any = SSL
        self._settings = settings
        self._versions = versions
        self._server_side = server_side
        self._context: Any = SSL.Context(SSL.TLS_METHOD)

    def make(self) -> Any:
        settings = self._settings
        context = self._context
        context.set_min_proto_version(VERSIONS[self._versions[0]].value)
        context.set_max_proto_version(VERSIONS[self._versions[-1]].value)
        context.set_options(self._ssl.OP_NO_COMPRESSION | self._ssl.OP_NO_RENEGOTIATION)
        if settings.challenged:
            _ = self._ssl._lib.SSL_set_cert_cb  # what the engine will need
        self._set_suites()
        if settings.groups:
            self._set_list("SSL_CTX_set1_curves_list", "supportedGroup", settings.groups)
        if settings.signatures:
            self._set_list("SSL_CTX_set1_sigalgs_list", "signatureAlgorithm", settings.signatures)
        if settings.alpn:
            self._set_alpn([name.encode("ascii") for name in settings.alpn])
        if settings.preshared is not None:
            self._set_preshared(settings.preshared)
        else:
            self._set_trust()
            for identity in settings.identities:
                self._load(identity)
        self._set_sessions()
        return context

    def _load(self, identity: Identity) -> None:
        try:
            identity._load_other(self._context)
        except self._ssl.Error as error:
            raise ValueError(f"not an identity: {error}") from error

    def _set_suites(self) -> None:
        settings = self._settings
        older = _SUITES_PSK if settings.preshared else _SUITES_1_2
        wanted = settings.suites or (*_SUITES_1_3, *older)
        newer = [name for name in wanted if name in _SUITES_1_3]
        names = [older[name] for name in wanted if name in older]
        if settings.preshared:
            # A key without a hash of its own goes with SHA-256 (RFC 8446 section 4.2.11).
            newer = [name for name in newer if name.endswith("SHA256")]
        fits = {"tls_1_3": newer, "tls_1_2": names}
        if not any(fits[version] for version in self._versions):
            raise ValueError(
                f"ciphersuite {', '.join(wanted)} does not fit "
                + ("preSharedKey" if settings.preshared else "certificates")
            )
        try:
            if newer:
                self._context.set_tls13_ciphersuites(":".join(newer).encode())
            if names:
                listed = names if settings.suites or settings.preshared else [_DEFAULT_CIPHERS]
                self._context.set_cipher_list(":".join(listed).encode())
        except self._ssl.Error as error:
            raise ValueError(f"this build cannot do ciphersuite {', '.join(wanted)}") from error

    def _set_list(self, function: str, parameter: str, names: tuple[str, ...]) -> None:
        for name in names:  # one by one, since OpenSSL passes over some that it does not know
            if not _accepts(self._ssl, function, self._context, name):
                raise ValueError(f"this build cannot do {parameter} {name}")
        if not _accepts(self._ssl, function, self._context, ":".join(names)):
            raise ValueError(f"this build cannot do {parameter} {', '.join(names)} together")

    def _set_trust(self) -> None:
        settings = self._settings
        context = self._context
        library = self._ssl
        if self._server_side:
            mode = library.VERIFY_NONE
            if settings.trust or settings.judged:
                mode = library.VERIFY_PEER | library.VERIFY_FAIL_IF_NO_PEER_CERT
        else:
            mode = library.VERIFY_PEER if settings.verify else library.VERIFY_NONE
        if mode == library.VERIFY_NONE:
            return
        if settings.trust:
            from OpenSSL import crypto

            store = context.get_cert_store()
            for text in settings.trust:
                for pem in _PEM.findall(text.encode("ascii", "backslashreplace")):
                    certificate = crypto.load_certificate(crypto.FILETYPE_PEM, pem)
                    store.add_cert(certificate)
                    if self._server_side:  # said to clients, who may have several identities
                        context.add_client_ca(certificate.to_cryptography())
        elif not self._server_side:
            context.set_default_verify_paths()
        if settings.pinned or settings.judged:
            from .engines.judging import note_peer

            context.set_verify(mode, note_peer)
        else:
            context.set_verify(mode)

    def _set_alpn(self, names: list[bytes]) -> None:
        if not self._server_side:
            self._context.set_alpn_protos(names)
            return

        def choose(_connection: Any, offered: list[bytes]) -> bytes:
            for name in names:
                if name in offered:
                    return name
            # Which makes OpenSSL send the alert no_application_protocol.
            raise TlsError(f"the client offers no application protocol of ours: {offered!r}")

        self._context.set_alpn_select_callback(choose)

    def _set_preshared(self, preshared: PresharedKey) -> None:
        lib, ffi, context = self._ssl._lib, self._ssl._ffi, self._context
        key, identity = preshared.key, preshared.identity

        def of_client(_ssl: Any, _hint: Any, name: Any, most: int, out: Any, size: int) -> int:
            if len(identity) >= most or len(key) > size:
                return 0
            ffi.memmove(name, identity + b"\0", len(identity) + 1)
            ffi.memmove(out, key, len(key))
            return len(key)

        def of_server(_ssl: Any, name: Any, out: Any, size: int) -> int:
            if name == ffi.NULL or ffi.string(name) != identity or len(key) > size:
                return 0
            ffi.memmove(out, key, len(key))
            return len(key)

        if self._server_side:
            callback = ffi.callback(
                "unsigned int (*)(SSL *, char *, unsigned char *, unsigned int)", of_server
            )
            lib.SSL_CTX_set_psk_server_callback(context._context, callback)
        else:
            callback = ffi.callback(
                "unsigned int (*)"
                "(SSL *, char *, char *, unsigned int, unsigned char *, unsigned int)",
                of_client,
            )
            lib.SSL_CTX_set_psk_client_callback(context._context, callback)
            # With nobody to trust, a server that comes with a certificate instead is refused.
            context.set_verify(self._ssl.VERIFY_PEER)
        context.set_app_data(callback)  # as long as the context lives, so must this

    def _set_sessions(self) -> None:
        library, context, settings = self._ssl, self._context, self._settings
        context.set_session_cache_mode(library.SESS_CACHE_OFF)  # ours is elsewhere
        if not self._server_side:
            return
        context.set_session_id(_SESSION_CONTEXT)
        if not settings.keeps_sessions or settings.judged:
            # What is resumed shows no certificate, and so nothing to judge.
            context.set_options(library.OP_NO_TICKET)
        if settings.session_lifetime is not None:
            context.set_timeout(settings.session_lifetime)


def _accepts(library: Any, function: str, context: Any, names: str) -> bool:
    accepted = bool(getattr(library._lib, function)(context._context, names.encode("ascii")))
    if not accepted:
        library._lib.ERR_clear_error()
    return accepted


def supported(parameter: str) -> tuple[str, ...]:
    """Which names of *parameter* (supportedGroup, ciphersuite or signatureAlgorithm) this build
    takes."""
    from OpenSSL import SSL

    library: Any = SSL
    context = library.Context(library.TLS_METHOD)
    if parameter == "ciphersuite":
        return tuple(name for name in CIPHER_SUITES if _takes_suite(library, context, name))
    function, names = {
        "supportedGroup": ("SSL_CTX_set1_curves_list", GROUPS),
        "signatureAlgorithm": ("SSL_CTX_set1_sigalgs_list", SIGNATURES),
    }[parameter]
    if not hasattr(library._lib, function):
        return ()
    return tuple(name for name in names if _accepts(library, function, context, name))


def _takes_suite(library: Any, context: Any, name: str) -> bool:
    try:
        if name in _SUITES_1_3:
            context.set_tls13_ciphersuites(name.encode())
        else:
            older = {**_SUITES_1_2, **_SUITES_PSK}
            context.set_cipher_list(older[name].encode())
    except library.Error:
        return False
    return True
