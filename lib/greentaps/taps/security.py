"""Security Parameters: what a Connection's security must be (RFC 9622 section 6.3).

Secure by default: a SecurityParameters object without anything set verifies the peer against the
system's trust store, by name, with TLS 1.2 or later.  What is set wrongly fails when it is set,
and what cannot be had fails the establishment; nothing falls back.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["SecurityParameters"]

# RFC 9622 leaves the names of security protocols to the implementation.
_VERSIONS = {
    "tls_1_2": ssl.TLSVersion.TLSv1_2,
    "tls_1_3": ssl.TLSVersion.TLSv1_3,
}
# Between the certificates of a bundle there may be remarks in any script; `ssl` takes only ASCII.
_REMARKS = "backslashreplace"
# The file of the certificate, that of the key, and the key's password.
_Identity = tuple[str, str | None, str | Callable[[], str]]


def _no_password() -> str:
    """Without this OpenSSL would ask at the terminal, and the whole program would wait."""
    raise ValueError("the private key needs a password")


class SecurityParameters:
    """Parameters for secured Connections (RFC 9622 section 6.3.1 ff.).

    Every method returns the object itself.
    """

    def __init__(self) -> None:
        self._disabled = False
        self._trust: list[str] = []
        self._versions: tuple[str, ...] = tuple(_VERSIONS)
        self._alpn: tuple[str, ...] = ()
        self._server_identities: list[_Identity] = []
        self._client_identities: list[_Identity] = []
        self._contexts: dict[bool, ssl.SSLContext] = {}

    @classmethod
    def disabled(cls) -> SecurityParameters:
        """Parameters that say: add no security (``NewDisabledSecurityParameters``)."""
        made = cls()
        made._disabled = True
        return made

    @property
    def is_disabled(self) -> bool:
        """Whether no security is to be added."""
        return self._disabled

    def add_trust_ca(self, ca: str | os.PathLike[str] | bytes) -> SecurityParameters:
        """Trust the certificates in *ca*, a path or PEM data, and no longer the system's.

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
        self._trust.append(text)
        return self._changed()

    def add_identity(
        self,
        certificate: str | os.PathLike[str],
        private_key: str | os.PathLike[str] | None = None,
        password: str | None = None,
        *,
        role: str = "both",
    ) -> SecurityParameters:
        """Present the certificate (chain) in the file *certificate* with its *private_key* (a
        file; by default the same one).

        *role* is "server", "client" or "both".  An identity is never used in a role it was not
        given for (RFC 9621 section 6).  Raises OSError, or ValueError if the two do not fit.
        """
        if role not in ("server", "client", "both"):
            raise ValueError(f"role must be 'server', 'client' or 'both', not {role!r}")
        identity: _Identity = (
            os.fspath(certificate),
            None if private_key is None else os.fspath(private_key),
            _no_password if password is None else password,
        )
        probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            probe.load_cert_chain(*identity)
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"not an identity: {identity[0]}: {error}") from error
        if role != "client":
            self._server_identities.append(identity)
        if role != "server":
            self._client_identities.append(identity)
        return self._changed()

    def allow_protocols(self, *names: str) -> SecurityParameters:
        """Use only these (``allowedSecurityProtocols``): "tls_1_2", "tls_1_3"."""
        for name in names:
            if name not in _VERSIONS:
                known = ", ".join(_VERSIONS)
                raise ValueError(f"a security protocol is one of {known}, not {name!r}")
        if not names:
            raise ValueError("at least one security protocol must be allowed")
        self._versions = tuple(name for name in _VERSIONS if name in names)
        return self._changed()

    def offer_alpn(self, *names: str) -> SecurityParameters:
        """Offer these application protocols (``alpn``, RFC 7301), in order of preference."""
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"an ALPN name is a str, not {name!r}")
            if not 1 <= len(name) <= 255 or not name.isascii():
                raise ValueError(f"an ALPN name has 1 to 255 ASCII characters: {name!r}")
        self._alpn = names
        return self._changed()

    def context(self, *, server_side: bool) -> ssl.SSLContext:
        """The TLS context that these parameters stand for; made once for each role.

        Raises ValueError if they cannot work in that role.
        """
        if server_side not in self._contexts:
            self._contexts[server_side] = self._make_context(server_side)
        return self._contexts[server_side]

    def _make_context(self, server_side: bool) -> ssl.SSLContext:
        identities = self._server_identities if server_side else self._client_identities
        if server_side and not identities:
            raise ValueError("a secured listener needs a server identity: see add_identity()")
        purpose = ssl.Purpose.CLIENT_AUTH if server_side else ssl.Purpose.SERVER_AUTH
        context = ssl.create_default_context(
            purpose, cadata="\n".join(self._trust) if self._trust and not server_side else None
        )
        if server_side and self._trust:
            # Trust anchors on a listener say that clients have to authenticate.
            context.load_verify_locations(cadata="\n".join(self._trust))
            context.verify_mode = ssl.CERT_REQUIRED
        for identity in identities:
            context.load_cert_chain(*identity)
        context.minimum_version = _VERSIONS[self._versions[0]]
        context.maximum_version = _VERSIONS[self._versions[-1]]
        if self._alpn:
            context.set_alpn_protocols(list(self._alpn))
        return context

    def _changed(self) -> SecurityParameters:
        self._contexts = {}
        return self

    def copy(self) -> SecurityParameters:
        """An object that later changes of this one do not reach."""
        made = SecurityParameters()
        made.__dict__.update(
            {
                name: list(value) if isinstance(value, list) else value
                for name, value in self.__dict__.items()
            }
        )
        return made


def _shown(value: Any) -> str:
    return "the PEM data" if isinstance(value, bytes | bytearray) else os.fspath(value)
