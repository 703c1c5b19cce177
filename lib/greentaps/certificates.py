"""Certificates made on the spot, for tests and for the demo; not for production.

A `CertificateAuthority` lives in memory.  What it issues is good for whatever says so and trusts
it, and for a few hours.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["CertificateAuthority", "Identity"]

_HOUR = dt.timedelta(hours=1)
_LONGEST_NAME = 64  # what X.509 allows a common name


@dataclass(frozen=True)
class Identity:
    """A certificate with its private key, both in PEM form (bytes)."""

    certificate: bytes
    private_key: bytes

    def write(self, directory: Path | str, name: str) -> Path:
        """Write both into one file, ``NAME.pem`` in *directory*, and return its path."""
        path = Path(directory) / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_bytes(self.private_key + self.certificate)
        return path


class CertificateAuthority:
    """A root certificate of its own, and what it issues.  *name* (str) is its common name."""

    def __init__(self, name: str = "greentaps throw-away CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        now = _now()
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key(), now - _HOUR, now + 24 * _HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(for_ca=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate(self) -> bytes:
        """The root certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, directory: Path | str, name: str = "ca") -> Path:
        """Write the root certificate to ``NAME.pem`` in *directory* and return its path."""
        path = Path(directory) / f"{name}.pem"
        path.write_bytes(self.certificate)
        return path

    def issue(self, *names: str, expired: bool = False) -> Identity:
        """Issue a certificate for *names*, host names and IP addresses, for both roles.

        With *expired* it has been over for an hour.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        end = _now() + (-_HOUR if expired else 12 * _HOUR)
        certificate = (
            _builder(
                _common_name(names[0][:_LONGEST_NAME]),
                self._name,
                key.public_key(),
                _now() - 48 * _HOUR,
                end,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(for_ca=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return Identity(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: dt.datetime,
    end: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*, for_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=for_ca,
        crl_sign=for_ca,
        encipher_only=False,
        decipher_only=False,
    )
