"""Security Parameters: wrong ones fail when they are set, and none weakens what was asked for."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Certificates
from cryptography.hazmat.primitives import serialization
from greentaps import Preconnection, SecurityParameters
from greentaps.certificates import CertificateAuthority
from peers import LIBRARY
from taps.helpers import local, port_of, remote


@pytest.fixture
def locked(certificates: Certificates, tmp_path: Path) -> Path:
    """An identity whose private key needs the password "open"."""
    identity = CertificateAuthority().issue("localhost")
    key = serialization.load_pem_private_key(identity.private_key, None)
    path = tmp_path / "locked.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open"),
        )
        + identity.certificate
    )
    return path


# -- Defaults --


@pytest.mark.rfc("SP-01", "SH-13")
def test_the_defaults_are_secure() -> None:
    context = SecurityParameters().context(server_side=False)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.maximum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.rfc("SP-02")
def test_disabled_ones() -> None:
    assert SecurityParameters.disabled().is_disabled
    assert not SecurityParameters().is_disabled
    assert SecurityParameters.disabled().copy().is_disabled


def test_trust_replaces_the_systems(certificates: Certificates) -> None:
    parameters = SecurityParameters().add_trust_ca(certificates.ca)
    assert parameters.context(server_side=False).cert_store_stats()["x509_ca"] == 1


# -- Trust --


def test_trust_in_every_form(certificates: Certificates) -> None:
    data = certificates.ca.read_bytes()
    for form in (certificates.ca, str(certificates.ca), data, bytearray(data)):
        parameters = SecurityParameters().add_trust_ca(form)
        stats = parameters.context(server_side=False).cert_store_stats()
        assert stats["x509_ca"] == 1


def test_a_bundle_may_have_remarks_in_any_script(
    certificates: Certificates, tmp_path: Path
) -> None:
    """As the bundles of operating systems do."""
    path = tmp_path / "bundle.pem"
    bundle = "# Főtanúsítvány 証明書\n".encode() + certificates.ca.read_bytes() + b"\n# \xff\xfe\n"
    path.write_bytes(bundle)
    for form in (path, bundle):
        parameters = SecurityParameters().add_trust_ca(form)
        assert parameters.context(server_side=False).cert_store_stats()["x509_ca"] == 1


def test_several_authorities(certificates: Certificates) -> None:
    parameters = SecurityParameters().add_trust_ca(certificates.ca)
    parameters.add_trust_ca(CertificateAuthority().certificate.rstrip(b"\n"))
    parameters.add_trust_ca(CertificateAuthority().certificate)
    assert parameters.context(server_side=False).cert_store_stats()["x509_ca"] == 3


@pytest.mark.parametrize(
    "garbage",
    [b"", b"no certificate", b"\x30\x82\xff\xff\xff", b"-----BEGIN CERTIFICATE-----\n", b"\n" * 99],
    ids=["empty", "text", "binary", "cut", "lines"],
)
def test_what_is_no_certificate_cannot_be_trusted(garbage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "garbage.pem"
    path.write_bytes(garbage)
    for form in (garbage, path):
        parameters = SecurityParameters()
        with pytest.raises(ValueError, match="no certificate"):
            parameters.add_trust_ca(form)
        assert not parameters._trust


def test_a_key_is_no_certificate(certificates: Certificates) -> None:
    pem = certificates.server.read_bytes()
    key = pem[: pem.index(b"-----BEGIN CERT")]
    with pytest.raises(ValueError, match="no certificate"):
        SecurityParameters().add_trust_ca(key)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for method in (SecurityParameters().add_trust_ca, SecurityParameters().add_identity):
        with pytest.raises(FileNotFoundError):
            method(tmp_path / "nothing.pem")
        with pytest.raises(OSError, match="directory"):
            method(tmp_path)


@pytest.mark.parametrize("wrong", [None, 5, [], object()])
def test_wrong_types(wrong: object) -> None:
    for method in (SecurityParameters().add_trust_ca, SecurityParameters().add_identity):
        with pytest.raises(TypeError):
            method(wrong)  # type: ignore[arg-type]


# -- Identities --


@pytest.mark.rfc("SP-06", "SP-07", "A-04")
@pytest.mark.parametrize(
    ("role", "server", "client"),
    [("both", True, True), ("server", True, False), ("client", False, True)],
)
def test_an_identity_is_used_in_its_role_only(
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    server: bool,
    client: bool,
) -> None:
    """A key that is loaded into a context would be presented."""
    loaded = []
    original = ssl.SSLContext.load_cert_chain

    def load(context: ssl.SSLContext, *arguments: Any) -> None:
        loaded.append(arguments)
        original(context, *arguments)

    parameters = SecurityParameters().add_identity(certificates.server, role=role)
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load)
    parameters.context(server_side=False)
    assert len(loaded) == client
    if server:
        parameters.context(server_side=True)
        assert len(loaded) == client + 1
    else:
        with pytest.raises(ValueError, match="identity"):
            parameters.context(server_side=True)


@pytest.mark.parametrize("role", ["", "Server", None, 1])
def test_there_are_three_roles(certificates: Certificates, role: object) -> None:
    with pytest.raises(ValueError, match="role"):
        SecurityParameters().add_identity(certificates.server, role=role)  # type: ignore[arg-type]


def test_a_key_that_does_not_fit(certificates: Certificates) -> None:
    parameters = SecurityParameters()
    with pytest.raises(ValueError, match="not an identity"):
        parameters.add_identity(certificates.server, certificates.client)
    with pytest.raises(ValueError, match="not an identity"):
        parameters.add_identity(certificates.ca)  # no key at all
    with pytest.raises(ValueError, match="identity"):
        parameters.context(server_side=True)


def test_a_locked_key(locked: Path) -> None:
    parameters = SecurityParameters().add_identity(locked, password="open")
    parameters.context(server_side=True)
    with pytest.raises(ValueError, match="not an identity"):
        SecurityParameters().add_identity(locked, password="wrong")


ASKING = """
import fcntl, sys, termios
from greentaps import SecurityParameters
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
try:
    SecurityParameters().add_identity(sys.argv[1])
except ValueError as error:
    print("refused:", error)
"""


def test_a_locked_key_without_a_password_asks_nobody(locked: Path) -> None:
    """OpenSSL would ask at the terminal, and stop the whole program meanwhile."""
    ours, terminal = os.openpty()
    command = [sys.executable, "-c", ASKING, locked]
    env = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    try:
        with subprocess.Popen(
            command, stdin=terminal, stdout=subprocess.PIPE, start_new_session=True, env=env
        ) as process:
            try:
                output, _ = process.communicate(timeout=10)
            finally:
                process.kill()
    finally:
        os.close(ours)
        os.close(terminal)
    assert output.startswith(b"refused:")
    assert b"password" in output


# -- Versions, ALPN --


@pytest.mark.rfc("SP-05", "MU-12", "MU-13")
@pytest.mark.parametrize(
    ("names", "least", "most"),
    [
        (["tls_1_2"], "TLSv1_2", "TLSv1_2"),
        (["tls_1_3"], "TLSv1_3", "TLSv1_3"),
        (["tls_1_3", "tls_1_2"], "TLSv1_2", "TLSv1_3"),
    ],
)
def test_versions(certificates: Certificates, names: list[str], least: str, most: str) -> None:
    parameters = SecurityParameters().add_identity(certificates.server).allow_protocols(*names)
    for server_side in (False, True):
        context = parameters.context(server_side=server_side)
        assert context.minimum_version is ssl.TLSVersion[least]
        assert context.maximum_version is ssl.TLSVersion[most]


@pytest.mark.parametrize("names", [[], ["tls_1_1"], ["ssl_3"], ["tls_1_3", ""], ["TLSv1.3"]])
def test_versions_that_are_not_to_be_had(names: list[str]) -> None:
    parameters = SecurityParameters().allow_protocols("tls_1_3")
    with pytest.raises(ValueError, match="protocol"):
        parameters.allow_protocols(*names)
    assert parameters.context(server_side=False).minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.rfc("SP-09")
def test_application_protocols_are_negotiated(certificates: Certificates) -> None:
    server = SecurityParameters().add_identity(certificates.server).offer_alpn("two", "one")
    client = SecurityParameters().add_trust_ca(certificates.ca).offer_alpn("one", "two")
    with Preconnection(local(), None, None, server).listen() as listener:
        ours = Preconnection(None, remote(port_of(listener)), None, client).initiate(timeout=10)
        with ours, listener.accept(timeout=5) as theirs:
            assert ours.transport.get_extra_info("alpn") in ("one", "two")
            assert ours.transport.get_extra_info("alpn") == theirs.transport.get_extra_info("alpn")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [("", ValueError), ("x" * 256, ValueError), ("h\u00fc", ValueError), (b"h2", TypeError),
     (None, TypeError)],
)  # fmt: skip
def test_wrong_application_protocols(wrong: object, error: type[Exception]) -> None:
    parameters = SecurityParameters().offer_alpn("h2")
    with pytest.raises(error):
        parameters.offer_alpn("good", wrong)  # type: ignore[arg-type]
    parameters.context(server_side=False)


# -- Copies, and the context --


def test_the_context_is_made_once_and_again_after_a_change(certificates: Certificates) -> None:
    parameters = SecurityParameters().add_identity(certificates.server)
    client = parameters.context(server_side=False)
    assert parameters.context(server_side=False) is client
    assert parameters.context(server_side=True) is not client
    parameters.allow_protocols("tls_1_3")
    assert parameters.context(server_side=False) is not client


@pytest.mark.rfc("T-02", "O-02")
def test_changes_do_not_reach_a_copy_nor_the_original(certificates: Certificates) -> None:
    original = SecurityParameters().add_trust_ca(certificates.ca)
    copy = original.copy()
    original.add_trust_ca(CertificateAuthority().certificate).allow_protocols("tls_1_2")
    copy.add_identity(certificates.server).offer_alpn("x")
    assert copy.context(server_side=False).cert_store_stats()["x509_ca"] == 1
    assert copy.context(server_side=False).maximum_version is ssl.TLSVersion.TLSv1_3
    with pytest.raises(ValueError, match="identity"):
        original.context(server_side=True)
    assert original.context(server_side=False).cert_store_stats()["x509_ca"] == 2


def test_every_method_returns_the_object(certificates: Certificates) -> None:
    made = SecurityParameters()
    assert made.add_trust_ca(certificates.ca) is made
    assert made.add_identity(certificates.server) is made
    assert made.allow_protocols("tls_1_3") is made
    assert made.offer_alpn("h2") is made


def test_an_authority_issues_for_a_long_host_name(tmp_path: Path) -> None:
    """A common name has 64 characters at most; a host name may have more."""
    name = f"{'a' * 60}.{'b' * 60}.example"
    path = CertificateAuthority().issue(name).write(tmp_path, "long")
    SecurityParameters().add_identity(path).context(server_side=True)
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_context_is_shared_by_copies(certificates: Certificates) -> None:
    """Each action works on a copy, and making a context costs milliseconds."""
    parameters = SecurityParameters().add_trust_ca(certificates.ca)
    copy = parameters.copy()
    context = copy.context(server_side=False)
    assert parameters.context(server_side=False) is context
    assert parameters.copy().copy().context(server_side=False) is context
    copy.offer_alpn("x")
    assert copy.context(server_side=False) is not context
    assert parameters.context(server_side=False) is context


@pytest.mark.rfc("SP-01")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("supportedGroup", "x25519"),
        ("ciphersuite", "TLS_AES_128_GCM_SHA256"),
        ("signatureAlgorithm", "ed25519"),
        ("preSharedKey", (bytes(16), "me")),
        ("pinnedServerCertificate", "sha256:" + "00" * 32),
    ],
)
def test_which_engine(name: str, value: Any) -> None:
    """The standard library's, unless something is wanted that it cannot do."""
    parameters = SecurityParameters().set("alpn", "h2").set("allowedSecurityProtocols", "tls_1_3")
    assert isinstance(parameters.context(server_side=False), ssl.SSLContext)
    parameters.set(name, value)
    assert not isinstance(parameters.context(server_side=False), ssl.SSLContext)
    parameters.set(name, None)
    assert isinstance(parameters.context(server_side=False), ssl.SSLContext)


def test_a_locked_key_with_either_engine(locked: Path) -> None:
    for groups in (None, "x25519"):
        parameters = SecurityParameters().set("supportedGroup", groups)
        parameters.add_identity(locked, password="open").context(server_side=True)
        parameters.set("serverCertificate", [(locked, None, "open")]).context(server_side=True)


def test_a_key_with_remarks_and_either_engine(certificates: Certificates, tmp_path: Path) -> None:
    path = tmp_path / "remarks.pem"
    path.write_bytes(b"a remark \xff\n" + certificates.server.read_bytes() + b"another\n")
    trust = "# Főtanúsítvány\n".encode() + certificates.ca.read_bytes()
    for groups in (None, "x25519"):
        parameters = SecurityParameters().set("supportedGroup", groups)
        parameters.add_trust_ca(trust).add_identity(path).context(server_side=True)


def test_the_older_systems_names(certificates: Certificates) -> None:
    made = SecurityParameters()
    assert made.addTrustCA(certificates.ca) is made
    assert made.addIdentity(certificates.server) is made
    assert len(made.get("serverCertificate")) == len(made.get("clientCertificate")) == 1


@pytest.mark.parametrize("wrong", [5, "f", object()])
def test_callbacks_can_be_called(wrong: Any) -> None:
    made = SecurityParameters()
    for method in (made.set_trust_verification_callback, made.set_identity_challenge_callback):
        with pytest.raises(TypeError, match="callback"):
            method(wrong)
        assert method(None) is made


@pytest.mark.parametrize("first", [0, 252, 253, 255])
def test_pins_whose_digest_begins_with_a_slash(first: int) -> None:
    digest = bytes([first]) * 32
    text = base64.b64encode(digest).decode()
    for prefix in ("sha256/", "sha256//"):
        parameters = SecurityParameters().add_pin(prefix + text)
        assert parameters.get("pinnedServerCertificate") == (digest,)
