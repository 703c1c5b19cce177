"""The datagram transport, over pyuv.UDP.

A datagram is sent with ``try_send`` and queued in libuv only if the kernel's buffer is full.
Errors belong to datagrams and not to the transport: they go to ``error_received``, and the
transport stays open.

A handle may have a default remote address.  pyuv 1.4 has no call to make one, and always passes
an address when it sends; the kernel and libuv differ in when they accept that.  So:

* a socket connected *after* it was given to the handle takes the address again with each send;
* one connected *before* is known to libuv (1.27 and later) as connected, which refuses every
  address; its datagrams go out through a duplicate of the socket, and a pyuv.Poll waits for it
  when its buffer is full.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from ipaddress import ip_address
from typing import Any, ClassVar

import pyuv

from ..errors import TransportError
from ..hub import PlainSocket, check_timeout, get_runner
from .base import CLOSE_TIMEOUT, CLOSED, CLOSING, NEW, OPEN, BaseTransport, as_bytes
from .stream import MODES

__all__ = ["DatagramTransport"]

_EAGAIN = pyuv.errno.UV_EAGAIN
_ECANCELED = pyuv.errno.UV_ECANCELED
_EISCONN = pyuv.errno.UV_EISCONN
_UVError = pyuv.error.UVError


class DatagramTransport(BaseTransport):
    """A datagram transport.

    *handle* is a bound or opened pyuv.UDP, which belongs to the transport from then on.  *mode*
    is ``"r"``, ``"w"`` or ``"rw"``.  The protocol gets ``datagram_received(data, addr)`` and
    ``error_received(exc)``.
    """

    __slots__ = (
        "_duplicate",
        "_handle",
        "_handle_reads",
        "_poll",
        "_queue",
        "_queued",
        "_queued_bytes",
        "_readable",
        "_remote",
        "_writable",
    )

    _extra_info: ClassVar[dict[str, str]] = {
        "handle": "_get_handle",
        "sockname": "_get_sockname",
        "peername": "_get_peername",
    }

    def __init__(self, handle: Any, mode: str = "rw") -> None:
        if not isinstance(handle, pyuv.UDP):
            raise TypeError(f"handle must be a pyuv.UDP, not {type(handle).__name__}")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}: {mode!r}")
        runner = get_runner()
        if handle.closed:
            raise TransportError("the handle is closed", errno.EBADF)
        if handle.loop is not runner.loop:
            raise ValueError("the handle belongs to another loop than this thread's get_loop()")
        super().__init__(runner)
        self._handle = handle
        self._readable = "r" in mode
        self._writable = "w" in mode
        self._handle_reads = False
        self._queued = 0  # datagrams that libuv has not sent
        self._queued_bytes = 0
        self._remote: Any = None
        # For sockets that libuv knows as connected:
        self._duplicate: socket.socket | None = None
        self._poll: Any = None
        self._queue: deque[bytes] = deque()
        runner.adopt(self)

    # -- Life cycle --

    def start(self, protocol: Any) -> None:
        if self._state is not NEW:
            raise TransportError("the transport has already been started", errno.EISCONN)
        self._state = OPEN
        self._protocol = protocol
        self._remote = self._peer = self._find_remote()
        try:
            protocol.connection_made(self)
        except BaseException as error:
            self.abort(error)
            raise
        if self._reading and self._readable:
            self._start_handle()

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        if timeout is not None:
            check_timeout(timeout)
        if self._state is CLOSED:
            return
        if self._state is not CLOSING:
            self._state = CLOSING
            if not self._queued:
                self._close_handle()
                return
        elif self._handle.closed:
            return
        self._start_close_timer(timeout)

    def abort(self, error: BaseException | None = None) -> None:
        if self._state is CLOSED:
            return
        self._state = CLOSING
        if self._handle.closed:
            return
        if self._error is None:
            self._error = error
        self._close_handle()

    def is_ending(self) -> bool:
        return bool(self._handle.closed)

    def _close_handle(self) -> None:
        self._close_duplicate()
        self._handle.close(self._on_closed)
        self._runner.kick()

    def _close_duplicate(self) -> None:
        self._queue.clear()
        if self._poll is not None and not self._poll.closed:
            self._poll.close(self._on_poll_closed)
        elif self._duplicate is not None:
            self._duplicate.close()
            self._duplicate = None

    def _on_poll_closed(self, poll: Any) -> None:
        if self._duplicate is not None:
            self._duplicate.close()
            self._duplicate = None

    def _on_closed(self, handle: Any) -> None:
        self._lost()

    def hub_lost(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._state = CLOSING
        self._stop_close_timer()
        self._close_duplicate()
        if not self._handle.closed:
            self._handle.close(self._on_closed)

    # -- Reading --

    def pause_reading(self) -> None:
        """Stop calling ``datagram_received`` until `resume_reading`.

        May be called in every state and repeatedly.  What the kernel's buffer cannot hold
        meanwhile is lost.
        """
        self._gate(self._readable, "readable")
        self._reading = False
        if self._handle_reads and self._state is OPEN:
            self._handle_reads = False
            self._handle.stop_recv()

    def resume_reading(self) -> None:
        """Undo `pause_reading`.  May be called in every state and repeatedly."""
        self._gate(self._readable, "readable")
        self._reading = True
        if self._state is OPEN:
            self._start_handle()

    def _gate(self, allowed: bool, what: str) -> None:
        if not allowed:
            raise TransportError(f"the transport is not {what}", errno.EBADF, self._peer)

    def _start_handle(self) -> None:
        if self._handle_reads or self._handle.closed:
            return
        try:
            self._handle.start_recv(self._on_received)
        except _UVError as error:
            self.abort(TransportError.from_errno(error.args[0], "receive", self._peer))
            return
        self._handle_reads = True
        self._runner.kick()

    def _on_received(
        self, handle: Any, addr: Any, flags: int, data: bytes | None, error: int | None
    ) -> None:
        if self._state is not OPEN:
            return
        if error is not None:
            self._error_received(error, "receive", self._remote)
            return
        try:
            self._protocol.datagram_received(data, addr)
        except BaseException as failure:
            self._callback_failed(failure)

    def _error_received(self, number: int, action: str, addr: Any) -> None:
        if self._state is OPEN:
            error = TransportError.from_errno(number, action, addr)
            self._call(self._protocol.error_received, error)

    # -- Writing --

    def get_write_buffer_size(self) -> int:
        return 0 if self._handle.closed else self._queued_bytes

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        """Send a datagram containing *data* to *addr*, an ``(address, port)`` tuple with a numeric
        address (or the four-tuple of a scoped IPv6 one).

        *addr* may be omitted only if the socket has a default remote address, and must be that
        one if it is given then.  Raises TypeError or ValueError for wrong arguments and
        TransportError after the end.  What the network says (too large, refused, unreachable)
        goes to ``error_received``.
        """
        if type(data) is not bytes:
            data = as_bytes(data)
        if self._state is not OPEN:
            self._refuse()
        if not self._writable:
            self._gate(False, "writable")
        if addr is None:
            if self._remote is None:
                self._remote = self._peer = self._find_remote()
                if self._remote is None:
                    raise ValueError("addr is needed: the socket has no default remote address")
            addr = self._remote
        elif self._remote is not None and addr != self._remote:
            _check_same(addr, self._remote)
        if self._duplicate is not None:
            self._send_connected(bytes(data))
            return
        if not self._queued:
            try:
                self._handle.try_send(addr, data)
                return
            except _UVError as error:
                number = error.args[0]
            except (ValueError, TypeError, OverflowError) as error:
                raise _bad_address(addr, error) from error
            if number == _EISCONN:
                self._remote = self._remote or self._find_remote()
                self._duplicate = self._make_duplicate()
                self._send_connected(bytes(data))
                return
            if number != _EAGAIN:
                self._error_received(number, "send", addr)
                return
        self._queue_send(bytes(data), addr)

    def _queue_send(self, data: bytes, addr: Any) -> None:
        size = len(data)

        def on_sent(handle: Any, error: int | None) -> None:
            self._sent(size)
            if error is not None and error != _ECANCELED:
                self._error_received(error, "send", addr)

        try:
            self._handle.send(addr, data, on_sent)
        except _UVError as error:
            self._error_received(error.args[0], "send", addr)
            return
        except (ValueError, TypeError, OverflowError) as error:
            raise _bad_address(addr, error) from error
        self._runner.kick()
        self._count(size)

    def _count(self, size: int) -> None:
        self._queued += 1
        self._queued_bytes += size
        if not self._writing_paused and self._queued_bytes > self._high:
            self._pause_writing()

    def _sent(self, size: int) -> None:
        self._queued -= 1
        self._queued_bytes -= size
        if self._state is OPEN:
            if self._writing_paused and self._queued_bytes <= self._low:
                self._resume_writing()
        elif not self._queued and not self._handle.closed:
            self._close_handle()

    # -- Sockets that libuv knows as connected --

    def _make_duplicate(self) -> socket.socket:
        duplicate = PlainSocket(fileno=os.dup(self._handle.fileno()))
        duplicate.setblocking(False)
        return duplicate

    def _find_remote(self) -> Any:
        try:
            duplicate = self._make_duplicate()
        except (OSError, _UVError):
            return None
        with duplicate:
            try:
                return duplicate.getpeername()
            except OSError:
                return None

    def _send_connected(self, data: bytes) -> None:
        assert self._duplicate is not None
        if not self._queue:
            try:
                self._duplicate.send(data)
                return
            except BlockingIOError:
                pass
            except OSError as error:
                self._error_received(error.errno or 0, "send", self._remote)
                return
        self._queue.append(data)
        self._count(len(data))
        if self._poll is None:
            self._poll = pyuv.Poll(self._runner.loop, self._duplicate.fileno())
        if len(self._queue) == 1:
            self._poll.start(pyuv.UV_WRITABLE, self._on_writable)
            self._runner.kick()

    def _on_writable(self, poll: Any, events: int, error: int | None) -> None:
        if error is not None:  # of an earlier datagram, upon which libuv stops looking
            poll.start(pyuv.UV_WRITABLE, self._on_writable)
            self._runner.kick()
        while self._queue and self._duplicate is not None:
            data = self._queue[0]
            try:
                self._duplicate.send(data)
            except BlockingIOError:
                return
            except OSError as failure:
                self._error_received(failure.errno or 0, "send", self._remote)
            if self._queue:
                self._queue.popleft()
                if not self._queue:
                    poll.stop()
                self._sent(len(data))

    # -- Information --

    def _get_handle(self) -> Any:
        return self._handle

    def _get_sockname(self) -> Any:
        if self._handle.closed:
            return None
        try:
            return self._handle.getsockname()
        except _UVError:
            return None

    def _get_peername(self) -> Any:
        return None if self._handle.closed else self._remote


def _check_same(addr: Any, remote: Any) -> None:
    """Raise ValueError unless both are one address, maybe spelled in two ways."""
    try:
        same = _host(addr) == _host(remote) and addr[1] == remote[1]
    except (ValueError, TypeError, LookupError) as error:
        raise _bad_address(addr, error) from error
    if not same:
        raise ValueError(f"the socket sends only to its remote address {remote!r}")


def _bad_address(addr: Any, cause: Exception) -> Exception:
    if not isinstance(addr, tuple) or len(addr) < 2:
        return TypeError(f"addr must be an (address, port) tuple, not {addr!r}")
    try:
        _host(addr)
    except ValueError:
        return ValueError(f"addr must have a numeric address, not a host name: {addr!r}")
    kind = TypeError if isinstance(cause, TypeError) else ValueError
    return kind(f"addr is not valid: {addr!r}: {cause}")


def _host(addr: tuple[Any, ...]) -> Any:
    """The numeric address of *addr*, without a zone; ValueError if it is a name."""
    return ip_address(str(addr[0]).partition("%")[0])
