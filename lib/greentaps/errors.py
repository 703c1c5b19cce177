"""Every exception of greentaps, in one tree, importing nothing else of the package.

One rule orders it: *an error says what failed, why, and with whom*.  A failing system call
keeps its ``errno`` and is at the same time the ``OSError`` subclass that Python would have
raised, so ``except ConnectionRefusedError`` works as it does with plain sockets.  The original
exception, where there is one, is always the ``__cause__``.

::

    GreentapsError
    ├── SwitchpointError (RuntimeError)       a blocking call where none may be made
    ├── Timeout (TimeoutError)                the caller's own patience ran out; nothing was lost
    ├── ProtocolError                         the peer broke a protocol
    ├── TransportError (OSError)              the transport failed, or is closed
    │   ├── ... (ConnectionRefusedError, ConnectionResetError, TimeoutError, ...)
    │   ├── ResolutionError (socket.gaierror) a host or service name has no address
    │   └── TlsError                          handshake or record layer failed
    │       └── CertificateError              the peer's certificate is not acceptable
    └── TapsError                             an error event of RFC 9622, with its `reason`
        ├── EstablishmentError                no candidate became a Connection
        ├── ConnectionError (ConnectionError) an established Connection ended in failure
        ├── CloneError                        a Connection could not be cloned
        ├── SendError                         a Message could not be sent
        │   └── Expired                       its lifetime was over before it was sent
        └── ReceiveError                      a Message could not be received
"""

from __future__ import annotations

import builtins
import errno as _errno
import os
import socket
from collections.abc import Iterable
from enum import Enum
from typing import Any

__all__ = [
    "CertificateError",
    "CloneError",
    "ConnectionError",
    "EstablishmentError",
    "Expired",
    "GreentapsError",
    "ProtocolError",
    "Reason",
    "ReceiveError",
    "ResolutionError",
    "SendError",
    "SwitchpointError",
    "TapsError",
    "Timeout",
    "TlsError",
    "TransportError",
]


class GreentapsError(Exception):
    """The base of everything that greentaps raises of its own."""


class SwitchpointError(GreentapsError, RuntimeError):
    """A switchpoint was called where no greenlet may be switched: inside a callback, or from a
    thread that does not own the object."""


class Timeout(GreentapsError, TimeoutError):
    """The `timeout=` of a blocking call ran out.

    The object is as it was before the call: no data was lost, and the call may be repeated.
    """


class ProtocolError(GreentapsError):
    """The peer, or the application, broke the rules of an application protocol."""


class TransportError(GreentapsError, OSError):
    """A transport failed, or was used after its end.

    *message* (str) says what happened, *errno* (int or None) is the platform's positive error
    number, *address* the peer's address if there is one.  Constructing it with an errno that
    Python has an ``OSError`` subclass for gives an exception that is an instance of both.
    """

    address: Any
    message: str

    def __new__(
        cls, message: str = "", errno: int | None = None, address: Any = None
    ) -> TransportError:
        if errno is None:
            return super().__new__(cls, message)
        chosen = _subclass_for(cls, errno)
        return super().__new__(chosen, errno, message)

    def __init__(self, message: str = "", errno: int | None = None, address: Any = None) -> None:
        self.message = message
        self.address = address

    @classmethod
    def from_errno(
        cls, errno: int, action: str | None = None, address: Any = None
    ) -> TransportError:
        """The error for a failed system call: *errno* may be the platform's or libuv's (which is
        the same number, negative); *action* (str) says what was tried."""
        errno = abs(errno)
        text = os.strerror(errno)
        return cls(f"{action}: {text}" if action else text, errno, address)

    def again(self) -> TransportError:
        """A fresh exception that tells the same, with this one as its cause."""
        copy = type(self)(self.message, self.errno, self.address)
        copy.__dict__.update(self.__dict__)
        copy.__cause__ = self
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        base: type = type(self)
        while base in _GENERATED:
            base = base.__bases__[0]
        return (base, (self.message, self.errno, self.address), self.__dict__)

    def __str__(self) -> str:
        text = self.message
        if self.errno is not None:
            text += f" [{_errno.errorcode.get(self.errno, self.errno)}]"
        if self.address:
            text += f" ({show_address(self.address)})"
        return text


class ResolutionError(TransportError, socket.gaierror):
    """A host name or a service name could not be resolved to an address.

    `code` is the resolver's ``EAI_*`` number, or None.
    """

    code: int | None = None


class TlsError(TransportError):
    """TLS failed: during the handshake, or later in the record layer.

    `reason` is the TLS library's own word for it (``"WRONG_VERSION_NUMBER"``), or None.
    """

    reason: str | None = None


class CertificateError(TlsError):
    """The peer's certificate was not accepted.

    `verify_code` (int) and `verify_message` (str) are the verifier's, for example
    ``10, "certificate has expired"``.
    """

    verify_code: int | None = None
    verify_message: str | None = None


def show_address(address: Any) -> str:
    """A socket address as people write it: ``192.0.2.1:80``, ``[2001:db8::1]:80``, a path,
    ``@name`` for an abstract one."""
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[0], address[1]
        if port is None:
            return str(host)
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    if isinstance(address, bytes):
        address = os.fsdecode(address)
    text = str(address)
    return "@" + text[1:] if text.startswith("\0") else text


_GENERATED: set[type] = set()
_BY_ERRNO: dict[tuple[type, type], type] = {}

# Python's own table, read back from Python: which OSError subclass belongs to which errno.
_OSERROR_CLASSES = {
    number: type(OSError(number, ""))
    for number in _errno.errorcode
    if type(OSError(number, "")) is not OSError
}


def _subclass_for(cls: type, errno: int) -> type:
    builtin = _OSERROR_CLASSES.get(abs(errno))
    if builtin is None or issubclass(cls, builtin):
        return cls
    found = _BY_ERRNO.get((cls, builtin))
    if found is None:
        found = type(cls.__name__, (cls, builtin), {"__module__": cls.__module__})
        found.__doc__ = f"{cls.__name__} that is also a {builtin.__name__}."
        _BY_ERRNO[cls, builtin] = found
        _GENERATED.add(found)
    return found


# -- The error events of RFC 9622 --


class Reason(Enum):
    """Why an RFC 9622 error event was sent: the reasons of RFC 9623 appendix B, and two of
    our own: a local Abort, which RFC 9622 section 10 asks to be told apart, and a normal end."""

    INVALID_CONFIGURATION = "InvalidConfiguration"
    NO_CANDIDATES = "NoCandidates"
    RESOLUTION_FAILED = "ResolutionFailed"
    ESTABLISHMENT_FAILED = "EstablishmentFailed"
    POLICY_PROHIBITED = "PolicyProhibited"
    NOT_CLONEABLE = "NotCloneable"
    MESSAGE_TOO_LARGE = "MessageTooLarge"
    PROTOCOL_FAILED = "ProtocolFailed"
    INVALID_MESSAGE_PROPERTIES = "InvalidMessageProperties"
    DEFRAMING_FAILED = "DeframingFailed"
    CONNECTION_ABORTED = "ConnectionAborted"
    LOCAL_ABORT = "LocalAbort"
    TIMEOUT = "Timeout"
    CLOSED = "Closed"


class TapsError(GreentapsError):
    """An error event of RFC 9622: *message* (str) and *reason* (`Reason`)."""

    reason: Reason

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message, reason)
        self.message = message
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.message} [{self.reason.value}]"


class EstablishmentError(TapsError):
    """No Connection or Listener could be made (RFC 9622 sections 7.1 to 7.3).

    `attempts` is a tuple of ``(candidate, error)`` pairs in the order of the attempts: what was
    tried and why each failed.  Where several attempts failed, ``__cause__`` is an
    `ExceptionGroup` of their errors; where one did, it is that error.  `history` is an
    `Explanation` with the fate of every candidate, also of those that were cut or not started; None
    if it did not come to candidates.
    """

    attempts: tuple[tuple[Any, BaseException], ...]
    history: Any = None

    def __init__(
        self,
        message: str,
        reason: Reason,
        attempts: Iterable[tuple[Any, BaseException]] = (),
    ) -> None:
        super().__init__(message, reason)
        self.attempts = tuple(attempts)
        errors = [error for _, error in self.attempts if isinstance(error, Exception)]
        if len(errors) == 1:
            self.__cause__ = errors[0]
        elif errors:
            self.__cause__ = ExceptionGroup("every attempt failed", errors)

    def __str__(self) -> str:
        lines = [super().__str__()]
        lines += [f"  {candidate}: {error}" for candidate, error in self.attempts]
        return "\n".join(lines)


class ConnectionError(TapsError, builtins.ConnectionError):  # noqa: A001 - RFC 9622's own name
    """An established Connection ended otherwise than by a Close (RFC 9622 section 10)."""


class CloneError(TapsError):
    """A Connection could not be cloned, or had to leave its group (RFC 9622 section 7.4)."""


class SendError(TapsError):
    """A Message could not be sent (RFC 9622 section 9.2.2.3)."""


class Expired(SendError):
    """The lifetime of a Message was over before it was sent (RFC 9622 section 9.2.2.2).

    Not an error for the RFC; a call that waits for the Message has to say so all the same.
    """

    def __init__(
        self,
        message: str = "the lifetime of the Message is over",
        reason: Reason = Reason.TIMEOUT,
    ) -> None:
        super().__init__(message, reason)


class ReceiveError(TapsError):
    """A Message could not be received, or there is none any more (RFC 9622 section 9.3.2.3)."""
