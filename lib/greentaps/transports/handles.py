"""Making handles: connected ones, listening ones, and ones from a file descriptor.

Everything that may fail between "an address" and "a handle to wrap" is here, so that each
failure is a `TransportError` with errno and address, and leaves no handle behind.

Unix sockets are made with ``socket`` and given to pyuv afterwards: libuv cuts long names silently,
crashes on abstract ones with some Pythons, and removes the path when a forked child closes its
copy.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable
from typing import Any

import pyuv

from ..errors import Timeout, TransportError
from ..hub import (
    Deadline,
    Parked,
    PlainSocket,
    Runner,
    get_runner,
    getaddrinfo,
    resolution_error,
    resolve,
    sleep,
    time_limit,
)
from . import options

__all__ = [
    "check_address",
    "connect_early",
    "connect_pipe",
    "connect_tcp",
    "from_descriptor",
    "listen_pipe",
    "listen_tcp",
    "resolve_stream",
]

_UVError = pyuv.error.UVError
_PIPE_RETRY_SECONDS = 0.01


def check_address(address: Any) -> tuple[Any, ...]:
    """*address*, if it is a ``(host, port)`` or a four-part IPv6 tuple with a possible port.

    Raises TypeError or ValueError that says what would be right.
    """
    if not isinstance(address, tuple) or len(address) not in (2, 3, 4):
        raise TypeError(f"an address is a (host, port) tuple, not {address!r}")
    host, port = address[:2]
    if host is not None and not isinstance(host, str | bytes):
        raise TypeError(f"a host is a str, not {host!r}")
    if b"\0" in host if isinstance(host, bytes) else "\0" in (host or ""):
        # The resolver would see only what is in front of it.
        raise ValueError(f"a host must not contain a NUL: {host!r}")
    check_port(port)
    return address


def check_port(port: Any) -> None:
    """Raise TypeError or ValueError unless *port* is 0 to 65535 or the name of a service."""
    if isinstance(port, bool) or not isinstance(port, int | str):
        raise TypeError(f"a port is an int or the name of a service, not {port!r}")
    number = port if isinstance(port, int) else int(port) if port.isdecimal() else None
    if number is not None and not 0 <= number <= 65535:
        raise ValueError(f"a port is a number from 0 to 65535, not {port!r}")
    if isinstance(port, str) and "\0" in port:
        raise ValueError(f"the name of a service must not contain a NUL: {port!r}")
    if port == "":
        raise ValueError("the name of a service must not be empty")


def resolve_stream(
    address: tuple[Any, ...], family: int, flags: int, deadline: Deadline
) -> list[tuple[Any, ...]]:
    """The socket addresses that *address* stands for, in the resolver's order.

    A switchpoint unless the address is numeric.  Raises ResolutionError, or TransportError
    (ETIMEDOUT) at the deadline.
    """
    check_address(address)
    host, port = address[:2]
    numeric = socket.AI_NUMERICHOST
    if not isinstance(port, str) or port.isdecimal():
        numeric |= socket.AI_NUMERICSERV
    try:
        # Without I/O, and so without a trip to the resolver's threads.
        found = getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags | numeric)
    except (OSError, UnicodeError):
        if flags & socket.AI_NUMERICHOST:
            raise resolution_error(host, port, ValueError("not a numeric address")) from None
        try:
            with time_limit(deadline.left()):
                found = resolve(host, port, family=family, kind=socket.SOCK_STREAM, flags=flags)
        except Timeout:
            raise TransportError(
                f"the resolution of {host!r} timed out", errno.ETIMEDOUT, address
            ) from None
    names: list[tuple[Any, ...]] = []
    for entry in found:
        sockaddr = entry[4]
        if len(address) == 4 and len(sockaddr) == 4:
            sockaddr = (*sockaddr[:2], *address[2:])
        if sockaddr not in names:
            names.append(sockaddr)
    return names


class _Attempt:
    """The owner of a handle that is not connected yet."""

    def __init__(self, runner: Runner, handle: Any) -> None:
        self.handle = handle
        runner.adopt(self)

    def hub_lost(self, error: BaseException) -> None:
        if not self.handle.closed:
            self.handle.close()


def connect_tcp(
    remote: tuple[Any, ...],
    deadline: Deadline,
    *,
    local: tuple[Any, ...] | None = None,
    prepare: Callable[[Any], None] | None = None,
) -> Any:
    """Connect to the socket address *remote* and return the pyuv.TCP.  A switchpoint.

    *local* is the address to bind to; *prepare* is called with the handle before the connect.
    Raises TransportError.
    """
    runner = get_runner()
    family = socket.AF_INET6 if ":" in remote[0] else socket.AF_INET
    action = "socket"
    address = remote
    handle = None
    try:
        handle = pyuv.TCP(runner.loop, family)
        attempt = _Attempt(runner, handle)
        try:
            if local is not None:
                action, address = "bind", local
                # Not by libuv: it keeps the error for later, and older ones forget it.
                with options.socket_of(handle) as here:
                    here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    here.bind(local)
            if prepare is not None:
                prepare(handle)
            action, address = "connect", remote
            parked: Parked[int | None] = Parked(runner)
            handle.connect(remote, lambda _handle, result: parked.finish(result))
            runner.kick()
            result = parked.wait(deadline.left())
            if result is not None:
                raise TransportError.from_errno(result, action, address)
        finally:
            runner.release(attempt)
    except BaseException as error:
        if handle is not None:
            runner.discard(handle)
        if isinstance(error, Timeout):
            deadline.end()
            raise TransportError.from_errno(errno.ETIMEDOUT, action, address) from None
        if isinstance(error, _UVError):
            raise TransportError.from_errno(error.args[0], action, address) from error
        if isinstance(error, OSError) and not isinstance(error, TransportError):
            raise _from_oserror(error, action, address) from error
        raise
    return handle


def connect_early(
    remote: tuple[Any, ...],
    deadline: Deadline,
    data: bytes | memoryview,
    *,
    local: tuple[Any, ...] | None = None,
    prepare: Callable[[Any], None] | None = None,
) -> tuple[Any, int]:
    """`connect_tcp`, with *data* in the first packet if the system has the peer's cookie for that
    (RFC 7413); else the packet asks for one.  Returns the pyuv.TCP, and how many bytes the system
    has taken: these it delivers, also if the peer refused to have them so early.  A switchpoint.

    *prepare* is called with the socket.  Raises TransportError; the peer may have had the data all
    the same.
    """
    family = socket.AF_INET6 if ":" in remote[0] else socket.AF_INET
    action, address = "socket", remote
    try:
        with socket.socket(family, socket.SOCK_STREAM) as made:
            made.setblocking(False)
            if local is not None:
                action, address = "bind", local
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(local)
            if prepare is not None:
                prepare(made)
            action, address = "connect", remote
            taken = 0
            try:
                taken = made.sendto(data, socket.MSG_FASTOPEN, remote)
            except BlockingIOError:
                pass  # EINPROGRESS: it goes without
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                with contextlib.suppress(BlockingIOError):
                    made.connect(remote)
            _wait_connected(made, deadline)
            handle = _opened(pyuv.TCP(get_runner().loop), made.fileno())
            made.detach()
            return handle, taken
    except Timeout:
        deadline.end()
        raise TransportError.from_errno(errno.ETIMEDOUT, action, address) from None
    except TransportError:
        raise
    except OSError as error:
        raise _from_oserror(error, action, address) from error


def _wait_connected(made: socket.socket, deadline: Deadline) -> None:
    """Wait until the handshake of a socket is over.  A switchpoint.  Raises OSError, or Timeout."""
    connecting = _Connecting(made)
    try:
        connecting.done.wait(deadline.left())
    finally:
        connecting.end()


class _Connecting:
    """The owner of a socket whose handshake is under way."""

    def __init__(self, made: socket.socket) -> None:
        runner = get_runner()
        self.done: Parked[None] = Parked(runner)
        self._runner = runner
        self._socket = made
        runner.adopt(self)
        self._watcher = runner.when_writable(made.fileno(), self._over)

    def _over(self) -> None:
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self.done.fail(OSError(number, os.strerror(number)))
        else:
            self.done.finish(None)

    def end(self) -> None:
        self._watcher.close()
        self._runner.release(self)

    def hub_lost(self, error: BaseException) -> None:
        self._watcher.close()
        self._socket.close()
        self.done.fail(error)


def connect_pipe(path: str | bytes, deadline: Deadline, *, ipc: bool = False) -> Any:
    """Connect to the Unix socket at *path* (abstract where it begins with a NUL) and return the
    pyuv.Pipe.  A switchpoint.  Raises TransportError."""
    path = os.fsdecode(path)
    with _unix_socket(path) as connecting:
        while True:
            try:
                connecting.connect(path)
                break
            except BlockingIOError:
                # The listener's backlog is full, of which the kernel has no event to wait for.
                if deadline.passed():
                    raise TransportError.from_errno(errno.ETIMEDOUT, "connect", path) from None
                sleep(_PIPE_RETRY_SECONDS)
            except OSError as error:
                raise _from_oserror(error, "connect", path) from error
        handle = _open_pipe(connecting.fileno(), ipc)
        connecting.detach()
        return handle


def _unix_socket(path: str) -> socket.socket:
    if not path:
        raise ValueError("the path of a pipe must not be empty")
    try:
        made = PlainSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise _from_oserror(error, "socket", path) from error
    made.setblocking(False)
    return made


def _open_pipe(descriptor: int, ipc: bool) -> Any:
    return _opened(pyuv.Pipe(get_runner().loop, ipc), descriptor)


def _opened(handle: Any, descriptor: int) -> Any:
    """*handle*, to which *descriptor* belongs now; it remains the caller's if this fails."""
    try:
        handle.open(descriptor)
    except _UVError as error:
        get_runner().discard(handle)
        raise TransportError.from_errno(error.args[0], "open") from error
    return handle


def _from_oserror(error: OSError, action: str, address: Any) -> TransportError:
    if error.errno is None:  # "AF_UNIX path too long" has no number
        return TransportError(f"{action}: {error}", errno.ENAMETOOLONG, address)
    return TransportError.from_errno(error.errno, action, address)


def from_descriptor(descriptor: int, mode: str, *, ipc: bool = False) -> tuple[Any, str]:
    """Wrap a file descriptor, which belongs to the handle from then on.

    Returns the handle (pyuv.TTY for a terminal, pyuv.TCP for a TCP socket, else pyuv.Pipe) and
    *mode* without the direction that the descriptor is not open for.  Raises TransportError, or
    ValueError where the descriptor or the mode cannot be used.
    """
    loop = get_runner().loop
    try:
        kind = os.fstat(descriptor).st_mode
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or errno.EBADF
        raise TransportError.from_errno(number, f"file descriptor {descriptor}") from error
    if os.isatty(descriptor):
        if mode not in ("r", "w"):
            raise ValueError("a terminal is opened with mode 'r' or 'w'")
        try:
            return pyuv.TTY(loop, descriptor, mode == "r"), mode
        except _UVError as error:
            raise TransportError.from_errno(error.args[0], "open") from error
    if not (stat.S_ISSOCK(kind) or stat.S_ISFIFO(kind)):
        raise ValueError(f"file descriptor {descriptor} is neither a socket, a pipe nor a terminal")
    forbidden = {os.O_RDONLY: "w", os.O_WRONLY: "r"}.get(access, "")
    usable = mode.replace(forbidden, "") if forbidden else mode
    if not usable:
        raise ValueError(f"file descriptor {descriptor} is not open for mode {mode!r}")
    if stat.S_ISSOCK(kind) and _is_tcp(descriptor):
        return _opened(pyuv.TCP(loop), descriptor), usable
    os.set_blocking(descriptor, False)
    return _open_pipe(descriptor, ipc), usable


def _is_tcp(descriptor: int) -> bool:
    probe = PlainSocket(fileno=descriptor)
    try:
        if probe.type != socket.SOCK_STREAM:
            raise ValueError(f"file descriptor {descriptor} is not a stream socket")
        return probe.family in (socket.AF_INET, socket.AF_INET6)
    finally:
        probe.detach()


# -- Listening --


def listen_tcp(
    local: tuple[Any, ...], prepare: Callable[[socket.socket], None] | None = None
) -> Any:
    """A pyuv.TCP bound to the socket address *local*, not yet listening.  *prepare* is called
    with the socket before it is bound, and may raise OSError.

    Raises TransportError: what bind(2) says, said here and not only at listen(2).
    """
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    try:
        bound = PlainSocket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _from_oserror(error, "socket", local) from error
    with bound:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # for those that it accepts
        if family == socket.AF_INET6:
            # An address of one family is one family: "::" beside "0.0.0.0" must both work.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            if prepare is not None:
                prepare(bound)
            bound.bind(local)
        except OSError as error:
            raise _from_oserror(error, "bind", local) from error
        handle = _opened(pyuv.TCP(get_runner().loop), bound.fileno())
        bound.detach()
        return handle


def listen_pipe(path: str | bytes) -> tuple[Any, Callable[[], None]]:
    """A pyuv.Pipe bound to *path*, not yet listening, and a function that removes the path if it
    is still ours.  Raises TransportError."""
    path = os.fsdecode(path)
    with _unix_socket(path) as bound:
        try:
            bound.bind(path)
        except OSError as error:
            raise _from_oserror(error, "bind", path) from error
        remove = _remover(path)
        # Not for IPC itself: since libuv 1.35 such a pipe cannot listen.  What it accepts can be.
        handle = _open_pipe(bound.fileno(), False)
        bound.detach()
        return handle, remove


def _remover(path: str) -> Callable[[], None]:
    if path.startswith("\0"):
        return lambda: None
    owner = os.getpid()
    made = os.stat(path)

    def remove() -> None:
        if os.getpid() != owner:
            return
        with contextlib.suppress(OSError):
            now_there = os.stat(path)
            if (now_there.st_dev, now_there.st_ino) == (made.st_dev, made.st_ino):
                os.unlink(path)

    return remove
