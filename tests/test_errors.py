"""The exception tree: what an error is an instance of, says, and keeps when it travels."""

from __future__ import annotations

import builtins
import copy
import errno
import os
import pickle
import socket

import pytest
from greentaps import errors
from greentaps.errors import (
    CertificateError,
    EstablishmentError,
    GreentapsError,
    Reason,
    ReceiveError,
    ResolutionError,
    SendError,
    SwitchpointError,
    TapsError,
    Timeout,
    TlsError,
    TransportError,
    show_address,
)

# What PEP 3151 says, and not what the code has read back from Python.
TABLE = {
    errno.EAGAIN: BlockingIOError,
    errno.EALREADY: BlockingIOError,
    errno.EINPROGRESS: BlockingIOError,
    errno.EWOULDBLOCK: BlockingIOError,
    errno.EPIPE: BrokenPipeError,
    errno.ESHUTDOWN: BrokenPipeError,
    errno.ECHILD: ChildProcessError,
    errno.ECONNABORTED: ConnectionAbortedError,
    errno.ECONNREFUSED: ConnectionRefusedError,
    errno.ECONNRESET: ConnectionResetError,
    errno.EEXIST: FileExistsError,
    errno.ENOENT: FileNotFoundError,
    errno.EINTR: InterruptedError,
    errno.EISDIR: IsADirectoryError,
    errno.ENOTDIR: NotADirectoryError,
    errno.EACCES: PermissionError,
    errno.EPERM: PermissionError,
    errno.ESRCH: ProcessLookupError,
    errno.ETIMEDOUT: TimeoutError,
}


@pytest.mark.parametrize("kind", [TransportError, TlsError, CertificateError])
@pytest.mark.parametrize(("number", "builtin"), TABLE.items(), ids=errno.errorcode.get)
def test_the_fitting_class_of_oserror(kind, number, builtin):
    for made in (kind("text", number), kind.from_errno(number), kind.from_errno(-number)):
        assert isinstance(made, kind)
        assert isinstance(made, builtin)
        assert isinstance(made, GreentapsError)
        assert made.errno == number
        assert type(made).__name__ == kind.__name__
        assert type(made) is type(kind("other", number))
        assert builtin.__name__ in type(made).__doc__


def test_other_numbers_have_no_class_of_their_own():
    for number in (errno.EMSGSIZE, errno.EADDRINUSE, 4095, 100_000):
        made = TransportError.from_errno(-number, "send")
        assert type(made) is TransportError
        assert made.errno == number
    made = TransportError("only text")
    assert type(made) is TransportError
    assert made.errno is None
    assert made.address is None
    assert str(made) == "only text"
    assert str(TransportError()) == ""


def test_the_tree():
    assert issubclass(TransportError, OSError)
    assert issubclass(ResolutionError, (TransportError, socket.gaierror))
    assert issubclass(CertificateError, TlsError)
    assert issubclass(TlsError, TransportError)
    assert issubclass(Timeout, TimeoutError)
    assert not issubclass(Timeout, TransportError)
    assert issubclass(SwitchpointError, RuntimeError)
    assert issubclass(errors.ConnectionError, builtins.ConnectionError)
    assert not issubclass(errors.ConnectionError, TransportError)
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert kind is Reason or issubclass(kind, GreentapsError)


def test_what_it_says():
    refused = os.strerror(errno.ECONNREFUSED)
    made = TransportError.from_errno(errno.ECONNREFUSED, "connect", ("192.0.2.1", 80))
    assert str(made) == f"connect: {refused} [ECONNREFUSED] (192.0.2.1:80)"
    assert made.message == f"connect: {refused}"
    assert str(TransportError("odd", 4095)) == "odd [4095]"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("192.0.2.1", 80), "192.0.2.1:80"),
        (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80"),
        (("fe80::1%eth0", 80, 0, 2), "[fe80::1%eth0]:80"),
        (("example.org", "https"), "example.org:https"),
        (("example.org", None), "example.org"),
        ("/run/socket", "/run/socket"),
        (b"/run/socket", "/run/socket"),
        ("\0abstract", "@abstract"),
        (b"\0abstract", "@abstract"),
        ((), "()"),
    ],
)
def test_addresses(address, text):
    assert show_address(address) == text
    if address:
        assert str(TransportError("x", None, address)) == f"x ({text})"


def _samples():
    certificate = CertificateError("bad", None, ("192.0.2.1", 443))
    certificate.verify_code, certificate.verify_message = 10, "certificate has expired"
    tls = TlsError("bad", errno.ECONNRESET)
    tls.reason = "WRONG_VERSION_NUMBER"
    resolution = ResolutionError("no address", address=("nowhere", 80))
    resolution.code = socket.EAI_NONAME
    return [
        TransportError("plain"),
        TransportError("with number", errno.ECONNREFUSED, ("192.0.2.1", 80)),
        TransportError("other number", errno.EMSGSIZE, "/path"),
        certificate,
        tls,
        resolution,
    ]


@pytest.mark.parametrize("made", _samples(), ids=repr)
@pytest.mark.parametrize("how", ["pickle", "copy", "again"])
def test_what_survives(made, how):
    if how == "pickle":
        other = pickle.loads(pickle.dumps(made))
    elif how == "copy":
        other = copy.copy(made)
    else:
        other = made.again()
        assert other.__cause__ is made
        assert other.__traceback__ is None
    assert other is not made
    assert type(other) is type(made)
    assert str(other) == str(made)
    assert other.errno == made.errno
    assert other.args == made.args
    assert vars(other) == vars(made)


def test_events():
    for kind in (SendError, ReceiveError, errors.ConnectionError):
        made = kind("text", Reason.TIMEOUT)
        assert isinstance(made, TapsError)
        assert str(made) == "text [Timeout]"
        other = pickle.loads(pickle.dumps(made))
        assert (other.message, other.reason) == ("text", Reason.TIMEOUT)


def test_establishment():
    one, two = TransportError("one"), TransportError("two")
    made = EstablishmentError("failed", Reason.ESTABLISHMENT_FAILED, [("a", one)])
    assert made.__cause__ is one
    made = EstablishmentError("failed", Reason.ESTABLISHMENT_FAILED, iter([("a", one), ("b", two)]))
    assert made.__cause__.exceptions == (one, two)
    assert str(made) == "failed [EstablishmentFailed]\n  a: one\n  b: two"
    other = pickle.loads(pickle.dumps(made))
    assert str(other) == str(made)
    assert [name for name, _ in other.attempts] == ["a", "b"]
    assert EstablishmentError("none", Reason.NO_CANDIDATES).__cause__ is None
