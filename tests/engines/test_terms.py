"""Engines on `Terms`: who is judged, what leaves before the verdict, and what a session leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Certificates
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from greentaps.engines import Engine, Terms, context_of, make_engine
from greentaps.engines.judging import JudgingEngine
from greentaps.errors import CertificateError, TlsError
from greentaps.tls_context import Identity, PresharedKey, Settings, make_context
from OpenSSL import SSL
from transports.helpers import ENGINES, client_context, server_context

both_versions = pytest.mark.parametrize("version", ["tls_1_2", "tls_1_3"])


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Instead of the check of the same name: nothing here opens anything."""


class Asked:
    """An ``ask`` that keeps the questions, to be answered by the test."""

    def __init__(self) -> None:
        self.questions: list[Any] = []
        self._answers: list[Callable[[Any], None]] = []

    def __call__(self, function: Any, question: Any, answer: Callable[[Any], None]) -> None:
        self.questions.append(question)
        self._answers.append(answer)

    def answer(self, value: Any) -> None:
        self._answers.pop(0)(value)


def never(question: Any) -> Any:
    raise AssertionError("asked in the middle of the handshake")


def settings(certificates: Certificates, **options: Any) -> Settings:
    options.setdefault("trust", (certificates.ca.read_text(),))
    return Settings(**options)


def client_on(certificates: Certificates, version: str, **terms: Any) -> Engine:
    made = settings(
        certificates,
        versions=(version,),
        pinned="pins" in terms,
        judged="judge" in terms,
        challenged="challenge" in terms,
    )
    return make_engine(Terms(make_context(made, server_side=False), **terms), False, "localhost")


def server_for(certificates: Certificates, engine: str = "stdlib", **options: Any) -> Engine:
    return make_engine(server_context(engine, certificates, **options), True, None)


def step(one: Engine, two: Engine) -> tuple[bool, bool]:
    """Each goes as far as it can."""
    done = (False, False)
    for _ in range(4):
        first = one.handshake()
        two.feed(one.drain())
        second = two.handshake()
        one.feed(two.drain())
        done = (first, second)
    return done


def digest(certificates: Certificates, name: str = "server") -> bytes:
    found = x509.load_pem_x509_certificate(getattr(certificates, name).read_bytes())
    return hashlib.sha256(found.public_bytes(Encoding.DER)).digest()


@both_versions
@pytest.mark.parametrize("server", ENGINES)
def test_nothing_leaves_before_the_verdict(
    certificates: Certificates, version: str, server: str
) -> None:
    asked, progress = Asked(), []
    one = client_on(certificates, version, judge=never, ask=asked)
    one.on_progress(lambda: progress.append(True))
    two = server_for(certificates, server)
    assert step(one, two) == (False, False)
    (question,) = asked.questions
    assert question.server_name == "localhost"
    assert question.error is None
    assert one.drain() == b""
    assert one.resumable() is None
    assert not one.authenticated()
    asked.answer(True)
    assert progress == [True]
    assert step(one, two) == (True, True)
    assert one.authenticated()
    assert len(asked.questions) == 1
    assert one.read() == b""
    assert one.resumable() is None, "a session that is resumed would not be judged"


@both_versions
@pytest.mark.parametrize("server", ENGINES)
@pytest.mark.parametrize("verdict", [False, "yes", RuntimeError("boom")], ids=repr)
def test_after_a_no_there_is_an_alert_and_nothing_else(
    certificates: Certificates, version: str, server: str, verdict: Any
) -> None:
    asked = Asked()
    one = client_on(certificates, version, judge=never, ask=asked)
    two = server_for(certificates, server)
    step(one, two)
    asked.answer(verdict)
    for _ in range(2):
        with pytest.raises(CertificateError, match="callback"):
            one.handshake()
    alert = one.drain()
    assert len(alert) == 7
    assert one.drain() == b""
    assert one.resumable() is None
    assert not one.authenticated()
    two.feed(alert)
    with pytest.raises(TlsError, match="certificate unknown"):
        two.handshake()


@both_versions
def test_pins(certificates: Certificates, version: str) -> None:
    for pins in ({digest(certificates)}, {digest(certificates, "stranger"), digest(certificates)}):
        one = client_on(certificates, version, pins=frozenset(pins))
        assert step(one, server_for(certificates)) == (True, True)
        assert one.authenticated()
    one = client_on(certificates, version, pins=frozenset({digest(certificates, "stranger")}))
    two = server_for(certificates)
    with pytest.raises(CertificateError, match="pinned"):
        step(one, two)
    assert one.resumable() is None
    two.feed(one.drain())
    with pytest.raises(TlsError, match="bad certificate"):
        two.handshake()


def forged(certificates: Certificates) -> bytes:
    """A certificate (with its key) that names our authority as its issuer, which it is not."""
    authority = x509.load_pem_x509_certificate(certificates.ca.read_bytes())
    genuine = x509.load_pem_x509_certificate(certificates.server.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    names = genuine.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    made = (
        x509.CertificateBuilder()
        .subject_name(genuine.subject)
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(genuine.not_valid_before_utc)
        .not_valid_after(genuine.not_valid_after_utc)
        .add_extension(names.value, critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM) + key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def test_a_pinned_authority_is_no_match_for_a_forged_certificate(
    certificates: Certificates,
) -> None:
    """Also where a callback would let it in: a pin is on top of everything else."""
    asked = Asked()
    server = make_context(Settings(identities=(Identity(forged(certificates)),)), server_side=True)
    pins = frozenset({digest(certificates, "ca")})
    one = client_on(certificates, "tls_1_3", pins=pins, judge=never, ask=asked)
    with pytest.raises(CertificateError, match="pinned"):
        step(one, make_engine(server, True, None))
    assert not asked.questions
    one = client_on(certificates, "tls_1_3", pins=pins, judge=never, ask=asked)
    step(one, server_for(certificates))
    assert len(asked.questions) == 1


def test_a_context_that_notes_nothing_lets_nobody_in(certificates: Certificates) -> None:
    """Terms that ask for more than their context can give."""
    context = client_context("pyopenssl", certificates)
    one = make_engine(Terms(context, pins=frozenset({digest(certificates)})), False, "localhost")
    with pytest.raises(CertificateError, match="no certificate"):
        step(one, server_for(certificates))


def test_a_context_for_terms_is_strict_without_them(certificates: Certificates) -> None:
    context = make_context(settings(certificates, judged=True), server_side=False)
    with pytest.raises(CertificateError):
        step(make_engine(context, False, "localhost"), server_for(certificates, name="stranger"))


@both_versions
def test_the_handshake_waits_for_the_identity(certificates: Certificates, version: str) -> None:
    asked = Asked()
    one = client_on(certificates, version, challenge=never, ask=asked)
    context = server_context("pyopenssl", certificates)
    context.load_verify_locations(str(certificates.ca))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    two = make_engine(context, True, None)
    assert step(one, two) == (False, False)
    assert len(asked.questions) == 1
    identity = Identity(str(certificates.client))
    asked.answer(
        make_context(
            settings(certificates, versions=(version,), identities=(identity,), challenged=True),
            server_side=False,
        )
    )
    assert step(one, two) == (True, True)
    assert two.authenticated()
    assert two.peer_certificate() is not None
    assert len(asked.questions) == 1


def test_a_server_of_tls_1_3_has_no_alert_for_whom_it_does_not_trust(
    certificates: Certificates,
) -> None:
    asked = Asked()
    made = settings(certificates, identities=(Identity(str(certificates.server)),), judged=True)
    two = make_engine(
        Terms(make_context(made, server_side=True), judge=never, ask=asked), True, None
    )
    context = client_context("pyopenssl", certificates)
    context.use_certificate_chain_file(str(certificates.client))
    context.use_privatekey_file(str(certificates.client))
    one = make_engine(context, False, "localhost")
    assert step(one, two) == (True, False)
    assert asked.questions[0].server_side
    asked.answer(False)
    with pytest.raises(CertificateError):
        two.handshake()
    assert two.drain() == b""


# -- Sessions, and who is authenticated --


@pytest.mark.parametrize("engine", ENGINES)
@both_versions
def test_what_can_be_resumed(certificates: Certificates, engine: str, version: str) -> None:
    made = settings(
        certificates,
        versions=(version,),
        groups=("secp256r1",) if engine == "pyopenssl" else (),
    )
    context = make_context(made, server_side=False)
    server = server_context("stdlib", certificates)
    seen: list[Engine] = []
    first = make_engine(Terms(context, prepare=seen.append), False, "localhost")
    assert seen == [first]
    assert context_of(Terms(context)) is context
    assert first.resumable() is None
    first.handshake()
    assert first.resumable() is None, "in the middle of the handshake"
    two = make_engine(server, True, None)
    step(first, two)
    ended: list[Any] = []
    first.on_shutdown(ended.append)
    first.read()
    found = first.resumable()
    assert found is not None
    assert found.once == (version == "tls_1_3")
    assert found.lifetime
    for _ in range(2):
        first.shutdown()
    assert ended == [first]
    second = make_engine(context, False, "localhost")
    second.resume(found.session)
    third = make_engine(server, True, None)
    assert step(second, third) == (True, True)
    assert second.reused()
    assert third.reused()
    assert second.authenticated()
    assert not third.authenticated(), "clients have no certificate here"


@pytest.mark.parametrize("engine", ENGINES)
def test_whom_we_do_not_verify_is_not_authenticated(
    certificates: Certificates, engine: str
) -> None:
    groups = ("secp256r1",) if engine == "pyopenssl" else ()
    context = make_context(Settings(verify=False, groups=groups), server_side=False)
    one = make_engine(context, False, "localhost")
    assert step(one, server_for(certificates)) == (True, True)
    assert not one.authenticated()
    context = make_context(settings(certificates, groups=groups), server_side=False)
    if engine == "stdlib":
        context.check_hostname = False
    one = make_engine(context, False, None)
    assert step(one, server_for(certificates)) == (True, True)
    assert not one.authenticated(), "it might be anybody with a certificate"


@both_versions
def test_a_preshared_key_needs_no_certificate(version: str) -> None:
    made = Settings(versions=(version,), preshared=PresharedKey(bytes(16), b"me"))
    one = make_engine(
        Terms(make_context(made, server_side=False), preshared=True), False, "localhost"
    )
    two = make_engine(Terms(make_context(made, server_side=True), preshared=True), True, None)
    assert not one.authenticated()
    assert step(one, two) == (True, True)
    assert one.authenticated()
    assert two.authenticated()


def test_a_binding_without_the_private_names_is_told(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Poor:
        """pyOpenSSL's binding, but for what the tests take away."""

        def __getattr__(self, name: str) -> Any:
            if name in ("SSL_CTX_set1_curves_list", "SSL_CTX_set_psk_client_callback"):
                raise AttributeError(name)
            if name == "SSL_set_cert_cb":
                raise AttributeError(name)
            return getattr(original, name)

    context = make_context(Settings(challenged=True), server_side=False)
    original = SSL._lib
    monkeypatch.setattr(SSL, "_lib", Poor())
    with pytest.raises(ValueError, match="supportedGroup"):
        make_context(Settings(groups=("x25519",)), server_side=False)
    with pytest.raises(ValueError, match="preSharedKey"):
        make_context(Settings(preshared=PresharedKey(bytes(16), b"me")), server_side=False)
    with pytest.raises(ValueError, match="the identity challenge callback"):
        make_context(Settings(challenged=True), server_side=False)
    with pytest.raises(ValueError, match="SSL_set_cert_cb"):
        JudgingEngine(Terms(context, challenge=never), False, "localhost")
