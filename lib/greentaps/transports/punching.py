"""Sockets for two peers that open one connection towards each other (RFC 9622 section 7.3).

What is here is held, tried and dropped while nobody has a Connection yet: bound UDP sockets that
talk to many, TCP sockets that connect from and listen on one port at the same time, and links of
which one will be taken.  All are plain sockets under gevent's watchers; the one that wins becomes a
pyuv handle under a transport, and the reading stops before that on an exact byte.

Everything here works by callbacks, which never switch.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol

import pyuv

from ..errors import TransportError
from ..hub import PlainSocket, get_runner
from .base import CLOSE_TIMEOUT, as_bytes
from .datagram import DatagramTransport
from .flow import Flow, _bound, _connected, _Lift, _OwnFlow
from .handles import _opened as _opened_stream
from .stream import Transport

__all__ = [
    "DatagramPort",
    "PunchedFlow",
    "Route",
    "StreamLink",
    "StreamPort",
    "StreamQuery",
    "punched_flow",
]

Address = tuple[str, int]
Prepare = Callable[[socket.socket], None]

_READ, _WRITE = 1, 2
_LINGER_NONE = struct.pack("ii", 1, 0)
_BATCH = 64  # datagrams that one turn of the loop takes from one socket
_LARGEST_DATAGRAM = 65536
_LARGEST_MESSAGE = 2048  # bytes of one framed message: a check has a tenth of that
_STUN_HEADER = 20
BACKLOG = 16
# What the system says if it has no room for another socket, and how long nobody is accepted then.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
EXHAUSTED_PAUSE = 0.1  # seconds


class _Watched:
    """A socket under a watcher of gevent's, owned until it is closed or taken."""

    def __init__(self, here: socket.socket) -> None:
        self._socket: socket.socket | None = here
        self._runner = get_runner()
        self._watcher: Any = None
        self._runner.adopt(self)

    def _watch(self, events: int, callback: Callable[[], None], *, ref: bool = True) -> None:
        assert self._socket is not None
        self._watcher = self._runner.hub.loop.io(self._socket.fileno(), events, ref=ref)
        self._watcher.start(self._guarded, callback)

    def _guarded(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self.close()
            self._runner.collect(error)

    def _unwatch(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            # Stopped at once, so that the descriptor may be closed; but its memory must outlive
            # its own callback, which this may be.
            watcher.stop()
            self._runner.call_soon(watcher.close)

    @property
    def is_open(self) -> bool:
        """Whether the socket is still here."""
        return self._socket is not None

    def take(self) -> socket.socket:
        """The socket, which is the caller's from now on.  Nothing more is called back."""
        taken, self._socket = self._socket, None
        assert taken is not None
        self._unwatch()
        self._runner.release(self)
        return taken

    def close(self) -> None:
        """Close the socket, if it is still here."""
        if self._socket is not None:
            self.take().close()

    def hub_lost(self, error: BaseException) -> None:
        here, self._socket = self._socket, None
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()
        if here is not None:
            here.close()
        self._runner.release(self)


class DatagramPort(_Watched):
    """A UDP socket bound to *local*.  *received* is called with each datagram and its source.

    While it is *idle* it does not keep the program from ending.  Raises TransportError.
    """

    def __init__(
        self,
        local: tuple[Any, ...],
        received: Callable[[bytes, Address], None],
        prepare: Prepare | None = None,
    ) -> None:
        here = _bound(local, local, prepare)
        self.address: Address = here.getsockname()[:2]
        self.received = received
        super().__init__(here)
        self._watch(_READ, self._on_readable, ref=False)

    def be_busy(self, busy: bool) -> None:
        """Whether somebody waits for what comes: then the program goes on as long."""
        if self._watcher is not None:
            self._unwatch()
            self._watch(_READ, self._on_readable, ref=busy)

    def _on_readable(self) -> None:
        for _ in range(_BATCH):
            if self._socket is None:
                return
            try:
                data, source = self._socket.recvfrom(_LARGEST_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:  # what the network says of a datagram: the next one may be welcome
                continue
            self.received(data, source[:2])

    def send(self, data: bytes, remote: Address) -> OSError | None:
        """Send one datagram; returns what prevented it.  It is lost if the system is busy, as it
        can be on every way."""
        if self._socket is None:
            return OSError(errno.EBADF, os.strerror(errno.EBADF))
        for _ in range(2):  # the first error may be about an earlier datagram
            try:
                self._socket.sendto(data, remote)
                return None
            except BlockingIOError:
                return None
            except OSError as error:
                failure = error
        return failure


class StreamPort(_Watched):
    """A local TCP address from which connections are opened, and on which others are accepted, at
    the same time.  It is held from the beginning.  Raises TransportError."""

    def __init__(self, local: tuple[Any, ...], prepare: Prepare | None = None) -> None:
        self._prepare = prepare
        self._pause: Any = None
        self._connecting: set[_Connecting] = set()
        here = _shared(local, prepare, exclusive=not local[1])
        self._local = here.getsockname()
        self.address: Address = self._local[:2]
        super().__init__(here)

    def listen(self, accepted: Callable[[socket.socket, Address], None]) -> None:
        """Call *accepted* with the socket of each connection and the peer's address.  Raises
        TransportError."""
        assert self._socket is not None
        try:
            self._socket.listen(BACKLOG)
        except OSError as error:
            raise TransportError.from_errno(error.errno or 0, "listen", self.address) from error
        self._listen_on(accepted)

    def _listen_on(self, accepted: Callable[[socket.socket, Address], None]) -> None:
        self._unwatch()
        self._watch(_READ, lambda: self._accept(accepted))

    def _unwatch(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.close()
        super()._unwatch()

    def _accept(self, accepted: Callable[[socket.socket, Address], None]) -> None:
        for _ in range(BACKLOG):
            if self._socket is None:
                return
            try:
                made, peer = self._socket.accept()
            except OSError as error:  # gone again, or none left
                if error.errno in _EXHAUSTED:  # who waits still does, so do not look all the time
                    self._unwatch()
                    self._pause = self._runner.call_later(
                        EXHAUSTED_PAUSE, self._listen_on, accepted
                    )
                return
            made.setblocking(False)
            accepted(made, peer[:2])

    def connect(
        self,
        remote: Address,
        done: Callable[[socket.socket | None, BaseException | None], None],
    ) -> None:
        """Connect to *remote* from here; *done* is called, later, with the connected socket or
        with the error."""
        _Connecting(self, remote, done)

    def close(self) -> None:
        for one in list(self._connecting):
            one.close()
        super().close()

    def hub_lost(self, error: BaseException) -> None:
        for one in list(self._connecting):
            one.hub_lost(error)
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.close()
        super().hub_lost(error)


class _Connecting(_Watched):
    """One connect of a `StreamPort`."""

    def __init__(self, port: StreamPort, remote: Address, done: Any) -> None:
        self._port = port
        self._remote = remote
        self._done = done
        failure: OSError | None = None
        try:
            here = _shared(port._local, port._prepare)
        except TransportError as error:
            get_runner().call_soon(done, None, error)
            return
        super().__init__(here)
        number = here.connect_ex(remote)
        if number not in (0, errno.EINPROGRESS):
            failure = OSError(number, os.strerror(number))
        port._connecting.add(self)
        if failure is not None:
            self._runner.call_soon(self._finish, number)
        else:
            self._watch(_WRITE, self._on_writable)

    def _on_writable(self) -> None:
        assert self._socket is not None
        self._finish(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _finish(self, number: int) -> None:
        if self._socket is None:
            return
        self._port._connecting.discard(self)
        if number:
            self.close()
            self._done(None, TransportError.from_errno(number, "connect", self._remote))
        else:
            self._done(self.take(), None)

    def close(self) -> None:
        self._port._connecting.discard(self)
        super().close()


def _shared(
    local: tuple[Any, ...], prepare: Prepare | None, *, exclusive: bool = False
) -> socket.socket:
    """A TCP socket bound to *local*, beside others of ours; where it is *exclusive*, which only a
    port of the system's choice can be, beside no others.  Raises TransportError."""
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    try:
        made = PlainSocket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise TransportError.from_errno(error.errno or 0, "socket", local) from error
    try:
        made.setblocking(False)
        # Both: a socket that listens is in the way of one that only reuses the address, and a
        # connection that has ended of one that only shares the port.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, not exclusive)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if prepare is not None:
            prepare(made)
        made.bind(local)
    except OSError as error:
        made.close()
        raise TransportError.from_errno(error.errno or 0, "bind", local) from error
    return made


class StreamLink(_Watched):
    """A TCP connection that is not chosen yet.

    With *message*, that is called with each message of those that two bytes of length go before,
    and not a byte is read beyond the one that leads to `take`.  Without, nothing is read at all,
    and *readable* is called when something has come.  *closed* is called when the peer has ended
    it; the socket is closed then.
    """

    def __init__(
        self,
        here: socket.socket,
        *,
        message: Callable[[bytes], None] | None,
        readable: Callable[[], None],
        closed: Callable[[], None],
    ) -> None:
        super().__init__(here)
        self._message = message
        self._readable = readable
        self._closed = closed
        self._buffer = b""
        self._watch(_READ, self._on_readable)

    def _on_readable(self) -> None:
        while self._socket is not None:
            try:
                if self._message is None:
                    self._peek(self._socket)
                    return
                if not self._read_some(self._socket):
                    return
            except OSError:
                self._lose()

    def _peek(self, here: socket.socket) -> None:
        if here.recv(1, socket.MSG_PEEK):
            self._readable()
        else:
            self._lose()

    def _read_some(self, here: socket.socket) -> bool:
        """Read as much as the message that is under way still needs; whether to go on."""
        size = int.from_bytes(self._buffer[:2], "big") if len(self._buffer) >= 2 else 0
        if size > _LARGEST_MESSAGE:
            self._lose()
            return False
        try:
            data = here.recv(2 + size - len(self._buffer))
        except BlockingIOError:
            return False
        if not data:
            self._lose()
            return False
        self._buffer += data
        if len(self._buffer) > 2 and len(self._buffer) == 2 + int.from_bytes(
            self._buffer[:2], "big"
        ):
            whole, self._buffer = self._buffer[2:], b""
            assert self._message is not None
            self._message(whole)
        elif self._buffer == b"\0\0":
            self._lose()  # an empty message is none
        return True

    def _lose(self) -> None:
        if self._socket is not None:
            self.close()
            self._closed()

    def send(self, data: bytes) -> None:
        """Send a message.  A connection that cannot take it at once is of no use."""
        if self._socket is None:
            return
        try:
            sent = self._socket.send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self._runner.call_soon(self._lose)

    def drop(self) -> None:
        """End the connection with a reset: the peer sees at once that it is not the one."""
        if self._socket is not None:
            reset(self._socket)
            self.close()

    def into_transport(self, hostname: str | None) -> Transport:
        """A transport over the connection, which has not been started.  Raises TransportError."""
        taken = self.take()
        try:
            handle = _opened_stream(pyuv.TCP(get_runner().loop), taken.fileno())
        except BaseException:
            taken.close()
            raise
        taken.detach()
        return Transport(handle, hostname)


class StreamQuery(_Watched):
    """A TCP connection to a STUN server, from an address that `StreamPort` holds.  *message* is
    called with each whole message, *closed* when the server has ended the connection."""

    def __init__(
        self,
        here: socket.socket,
        message: Callable[[bytes], None],
        closed: Callable[[], None],
    ) -> None:
        super().__init__(here)
        self._message = message
        self._closed = closed
        self._buffer = b""
        self._watch(_READ, self._on_readable, ref=False)

    def send(self, data: bytes) -> None:
        """Send a message.  A server that does not take it at once is of no use."""
        if self._socket is not None:
            try:
                self._socket.send(data)
            except OSError:
                self._runner.call_soon(self._lose)

    def _on_readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_LARGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._buffer += data
        if not data or len(self._buffer) > 2 * _LARGEST_MESSAGE:
            self._lose()
        while self._socket is not None and len(self._buffer) >= _STUN_HEADER:
            size = _STUN_HEADER + int.from_bytes(self._buffer[2:4], "big")
            if len(self._buffer) < size:
                return
            whole, self._buffer = self._buffer[:size], self._buffer[size:]
            self._message(whole)

    def _lose(self) -> None:
        if self._socket is not None:
            self.close()
            self._closed()

    def close(self) -> None:
        if self._socket is not None:
            reset(self._socket)  # or the kernel would keep the local address for a while
        super().close()


def reset(here: socket.socket) -> None:
    """Make the close of a TCP socket a reset."""
    with contextlib.suppress(OSError):
        here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)


# -- The datagram transport of the pair that was chosen --


class Route(Protocol):
    """What stands between a `PunchedFlow` and its socket, for as long as that lives."""

    @property
    def overhead(self) -> int:
        """How many bytes `outgoing` adds at most."""

    def outgoing(self, data: bytes) -> bytes:
        """What is to be sent instead of *data* of the application."""

    def incoming(self, data: bytes, source: Address) -> bytes | None:
        """What of a datagram is the application's, or None."""

    def ending(self) -> None:
        """The flow is about to be closed."""

    def lost(self) -> None:
        """The flow has ended, and its socket with it."""


class PunchedFlow(_OwnFlow):
    """A flow over the socket and the pair of addresses that have won.  Checks and keep-alives of
    the peer, and a relay's wrapping, are taken out and put in by *route*.

    *below* is where the datagrams go to, the peer or a relay; *remote* is the peer.
    """

    __slots__ = ("_below", "_route", "_shown")

    def __init__(
        self,
        lower: DatagramTransport,
        below: Address,
        remote: Address,
        shown: Address,
        route: Route,
    ) -> None:
        Flow.__init__(self, get_runner(), below)
        self._lower = lower
        self._below = below
        self._peer = remote
        self._shown = shown
        self._route = route
        lower.start(_Sorting(self))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(self._route.outgoing(bytes(as_bytes(data))))

    def largest(self) -> int:
        return super().largest() - self._route.overhead

    def largest_unfragmented(self) -> int | None:
        whole = super().largest_unfragmented()
        return None if whole is None else max(whole - self._route.overhead, 0)

    def hold(self, data: bytes) -> None:
        """Take in a datagram of the peer that has come before there was a flow."""
        self._arrived(data)

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        if not self.is_closing():
            self._route.ending()
        super().close(timeout)

    def abort(self, error: BaseException | None = None) -> None:
        if not self.is_closing():
            self._route.ending()
        super().abort(error)

    def send_below(self, data: bytes) -> None:
        """Send something of the route's own.  What prevents it does not matter."""
        handle = self._get_handle()
        if handle is None or handle.closed:
            return
        with contextlib.suppress(pyuv.error.UVError):
            handle.try_send(self._below, data)

    def _hand_up(self, data: bytes) -> None:
        try:
            self._protocol.datagram_received(data, self._peer)
        except BaseException as failure:
            self._callback_failed(failure)

    def _get_peername(self) -> Any:
        return None if self._lower.is_closing() else self._peer

    def _get_sockname(self) -> Any:
        return self._shown or super()._get_sockname()

    def _lost(self) -> None:
        super()._lost()
        self._route.lost()


class _Sorting(_Lift):
    """The protocol of the DatagramTransport below a `PunchedFlow`: checks are not for its user."""

    _flow: PunchedFlow

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if addr[:2] == self._flow._below:
            mine = self._flow._route.incoming(data, addr[:2])
            if mine is not None:
                self._flow._arrived(mine)


def punched_flow(
    port: DatagramPort,
    below: Address,
    remote: Address,
    shown: Address,
    route: Route,
    *,
    marked: bool = False,
) -> PunchedFlow:
    """A flow over *port*'s socket, which is taken.  With *marked* the data that arrive are
    `MarkedBytes`, but for those that a relay has unpacked.  Raises TransportError."""
    lower = _connected(port.take(), below, marked=marked)
    return PunchedFlow(lower, below, remote, shown, route)
