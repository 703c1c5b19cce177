"""Transports over pyuv's stream handles: TCP, Pipe and TTY.

The data path is two calls long.  Out: ``write`` tries the kernel first (``try_write``) and queues
only what it did not take.  In: ``_on_read`` hands the chunk to the protocol.  Everything else here
is about ends and errors.

What this file knows about pyuv 1.4, so that nobody else needs to:

* never pass it a sequence of buffers (each call leaks them), so ``writelines`` joins;
* an empty chunk without an error means "nothing yet", and is not an EOF;
* an EOF may be a guess: libuv takes a hang-up after a short read for one, without reading on,
  so that a reset looks like an orderly end, and data before it is lost.  We ask the kernel;
* it cannot close a TCP handle with a reset, so ``abort`` sets SO_LINGER behind its back;
* a mutable buffer is sent as it is when the kernel gets to it, so what is queued is copied.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any, ClassVar

import pyuv

from ..errors import TransportError
from ..hub import PlainSocket, Runner, check_timeout, get_runner
from . import options
from .base import (
    CLOSE_TIMEOUT,
    CLOSED,
    CLOSING,
    OPEN,
    BaseTransport,
    StreamTransport,
    as_bytes,
)

__all__ = ["Transport"]

# How long after each other it is looked whether the peer has acknowledged all.
_FIRST_LOOK = 0.001  # seconds
_LAST_LOOK = 0.1  # seconds

# Not now: also of a first packet which was to have the data, and cannot any more.
_LATER = (pyuv.errno.UV_EAGAIN, -errno.EINPROGRESS)
_EOF = pyuv.errno.UV_EOF
_ECANCELED = pyuv.errno.UV_ECANCELED
_UVError = pyuv.error.UVError
_LINGER_NONE = struct.pack("ii", 1, 0)
_READ_SIZE = 65536
_TCP_CLOSE = 7  # the state in struct tcp_info of a connection that is over
_DRAIN_READS = 16  # 1 MiB: more than this is not there by chance
MODES = ("r", "w", "rw")


class Transport(StreamTransport):
    """A connection-oriented transport over a pyuv handle.

    *handle* is a connected pyuv.TCP or pyuv.Pipe, or a pyuv.TTY, which belongs to the transport
    from then on.  *server_hostname* (str or None) is the peer's name before resolution, for
    `get_extra_info`.  *mode* is ``"r"``, ``"w"`` or ``"rw"``.  A ``"w"`` transport never reads and
    so learns of the peer's end only when a write fails.

    Raises TypeError or ValueError for wrong arguments.
    """

    __slots__ = (
        "_await_delivery",
        "_delivery_timer",
        "_got_eof",
        "_handle",
        "_handle_reads",
        "_hostname",
        "_queued",
        "_readable",
        "_sent_eof",
        "_writable",
    )

    _extra_info: ClassVar[dict[str, str]] = {
        "handle": "_get_handle",
        "sockname": "_get_sockname",
        "peername": "_get_peername",
        "winsize": "_get_winsize",
        "unix_creds": "_get_unix_creds",
        "server_hostname": "_get_server_hostname",
    }

    starts_ready = True

    def __init__(self, handle: Any, server_hostname: str | None = None, mode: str = "rw") -> None:
        if not isinstance(handle, pyuv.Stream):
            raise TypeError(f"handle must be a pyuv.Stream, not {type(handle).__name__}")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}: {mode!r}")
        runner = get_runner()
        if handle.closed:
            raise TransportError("the handle is closed", errno.EBADF)
        if handle.loop is not runner.loop:
            raise ValueError("the handle belongs to another loop than this thread's get_loop()")
        self._take(runner, handle, server_hostname, mode)
        self._send_at_once()

    @classmethod
    def accepted(cls, handle: Any, runner: Runner) -> Transport:
        """For listeners: a transport over *handle*, a pyuv.TCP of *runner*'s loop that was accepted
        just now from a socket with TCP_NODELAY, which it inherits.  So there is nothing to check,
        and nothing to set."""
        made = cls.__new__(cls)
        made._take(runner, handle, None, "rw")
        return made

    def _take(self, runner: Runner, handle: Any, hostname: str | None, mode: str) -> None:
        BaseTransport.__init__(self, runner)
        self._handle = handle
        self._hostname = hostname
        self._readable = "r" in mode
        self._writable = "w" in mode  # may write now: mode allows it, and no EOF was sent
        self._handle_reads = False
        self._queued = 0  # requests that libuv has not completed
        self._got_eof = False
        self._sent_eof = False
        self._await_delivery = False
        self._delivery_timer: Any = None
        runner.adopt(self)

    # -- Life cycle --

    def start(self, protocol: Any) -> None:
        self._begin()
        self._protocol = protocol
        if self._peer is None:
            self._get_peername()
        try:
            protocol.connection_made(self)
        except BaseException as error:
            self.abort(error)
            raise
        if self._reading and self._readable:
            self._start_handle()

    def _send_at_once(self) -> None:
        """Without Nagle's delay, which with the peer's delayed acknowledgement costs 40 ms for each
        small write behind another: for TLS, in every handshake."""
        if isinstance(self._handle, pyuv.TCP):
            try:
                self._handle.nodelay(True)
            except _UVError:
                pass  # it is not connected, which reading or writing will tell

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        if timeout is not None:
            check_timeout(timeout)
        if self._state is CLOSED:
            return
        if self._state is not CLOSING:
            self._state = CLOSING
            if not self._queued:
                self._finish_close()
                if self._handle.closed:
                    return
            elif self._readable and not self._got_eof:
                # Read on, to discard: a peer that is stuck writing would never take our rest,
                # and unread data would turn our close into a reset.
                self._start_handle()
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
        if isinstance(self._handle, pyuv.TCP):
            self._arm_reset()
        self._close_handle()

    def _fail(self, number: int, action: str) -> None:
        """Something failed below: this is the error that ends the transport."""
        if self._error is None and not self._handle.closed:
            self._error = TransportError.from_errno(number, action, self._peer)
        if not self._handle.closed:
            self._state = CLOSING
            self._close_handle()

    def _finish_close(self) -> None:
        """Close the handle in an orderly way: all that was written has been taken by the kernel."""
        if self._await_delivery and options.unacknowledged(self._handle):
            self._wait_for_delivery()
            return
        if self._readable and not self._got_eof and _is_socket(self._handle):
            # Unread data would make it a reset, which also drops what the kernel has not sent yet.
            try:
                descriptor = self._handle.fileno()
                for _ in range(_DRAIN_READS):
                    if len(os.read(descriptor, _READ_SIZE)) < _READ_SIZE:
                        break
            except (OSError, _UVError):
                pass
        self._close_handle()

    def is_ending(self) -> bool:
        return bool(self._handle.closed)

    def close_after_delivery(self) -> None:
        self._await_delivery = isinstance(self._handle, pyuv.TCP)

    def _wait_for_delivery(self) -> None:
        """Say that no more will come, and look now and then whether all has been acknowledged: the
        kernel has no event for it."""
        if not self._sent_eof:
            self._sent_eof = True
            try:
                with options.socket_of(self._handle) as here:
                    here.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the connection is broken, which reading will tell
        if self._readable:
            self._start_handle()
        self._look_for_delivery(_FIRST_LOOK)

    def _look_for_delivery(self, seconds: float) -> None:
        self._stop_delivery_timer()
        if self._handle.closed:
            return
        # In this order: the last acknowledgement, too, ends the connection, at any moment.
        dead = _is_dead(self._handle)
        if not options.unacknowledged(self._handle):
            self._await_delivery = False
            self._finish_close()
        elif dead:
            # A reset that came behind the peer's end, where nobody reads any more.
            self._fail(errno.ECONNRESET, "close")
        else:
            self._delivery_timer = self._runner.call_later(
                seconds, self._look_for_delivery, min(2 * seconds, _LAST_LOOK)
            )

    def _stop_delivery_timer(self) -> None:
        if self._delivery_timer is not None:
            self._delivery_timer.close()
            self._delivery_timer = None

    def _close_handle(self) -> None:
        if self._delivery_timer is not None:
            self._stop_delivery_timer()
        self._handle.close(self._on_closed)
        self._runner.kick()

    def _on_closed(self, handle: Any) -> None:
        self._lost()

    def hub_lost(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._state = CLOSING
        self._stop_close_timer()
        if not self._handle.closed:
            self._handle.close(self._on_closed)

    def _arm_reset(self) -> None:
        """Make the close of a TCP handle send a reset instead of an orderly end."""
        try:
            # Without a duplicate: there may be no descriptor left for one.
            here = PlainSocket(socket.AF_INET, socket.SOCK_STREAM, 0, self._handle.fileno())
        except (OSError, _UVError):
            return
        try:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        except OSError:
            pass
        finally:
            here.detach()

    # -- Reading --

    def pause_reading(self) -> None:
        self._gate(self._readable, "readable")
        self._reading = False
        if self._handle_reads and self._state is OPEN:
            self._handle_reads = False
            self._handle.stop_read()

    def resume_reading(self) -> None:
        self._gate(self._readable, "readable")
        self._reading = True
        if self._state is OPEN and self._readable:
            self._start_handle()

    def _gate(self, allowed: bool, what: str) -> None:
        if not allowed:
            raise TransportError(f"the transport is not {what}", errno.EBADF, self._peer)

    def _start_handle(self) -> None:
        if self._handle_reads or self._got_eof or self._handle.closed:
            return
        try:
            self._handle.fileno()  # older libuvs end the process where there is none
            self._handle.start_read(self._on_read)
        except _UVError as error:
            self._fail(error.args[0], "read")
            return
        self._handle_reads = True
        self._runner.kick()

    def _on_read(self, handle: Any, data: bytes | None, error: int | None) -> None:
        if data:
            if self._state is OPEN:
                try:
                    self._protocol.data_received(data)
                except BaseException as failure:
                    self._callback_failed(failure)
        elif error is not None:
            self._handle_reads = False
            if error == _EOF:
                self._on_hang_up(handle)
            else:
                self._fail(error, "read")

    def _on_hang_up(self, handle: Any) -> None:
        data = b""
        if _is_socket(handle):
            try:
                data = os.read(handle.fileno(), _READ_SIZE)
            except (BlockingIOError, _UVError):
                pass
            except OSError as error:
                self._fail(error.errno or errno.EIO, "read")
                return
        if not data:
            self._on_eof()
            return
        if self._state is OPEN:
            self._call(self._protocol.data_received, data)
        if self._reading or self._state is CLOSING:
            self._start_handle()

    def _on_eof(self) -> None:
        if self._got_eof:
            return
        self._got_eof = True
        if self._state is not OPEN:
            return
        keep_open = self._call(self._protocol.eof_received)
        if not keep_open and self._state is OPEN:
            self.close()

    # -- Writing --

    def get_write_buffer_size(self) -> int:
        return 0 if self._handle.closed else self._handle.write_queue_size

    def write(self, data: bytes | bytearray | memoryview, handle: Any = None) -> bool | None:
        if type(data) is not bytes:
            data = as_bytes(data)
        if self._state is not OPEN or not self._writable:
            self._refuse_write()
        if handle is not None:
            self._check_passing(data, handle)
            return self._queue(data, handle)
        if not self._queued:
            try:
                sent = self._handle.try_write(data)
            except _UVError as error:
                if error.args[0] not in _LATER:
                    self._fail(error.args[0], "write")
                    return True
                sent = 0
            if sent == len(data):
                return None
            if sent:
                data = memoryview(data)[sent:]
        elif not data:
            return None
        return self._queue(data)

    def _queue(self, data: bytes | bytearray | memoryview, handle: Any = None) -> bool | None:
        if type(data) is not bytes and not (type(data) is memoryview and type(data.obj) is bytes):
            data = bytes(data)
        try:
            if handle is None:
                self._handle.write(data, self._on_written)
            else:
                self._handle.write(data, self._on_written, handle)
        except _UVError as error:
            self._fail(error.args[0], "write")
            return True
        self._queued += 1
        self._runner.kick()
        if not self._writing_paused and self._handle.write_queue_size > self._high:
            self._pause_writing()
        return None

    def _check_passing(self, data: Any, handle: Any) -> None:
        if not isinstance(self._handle, pyuv.Pipe) or not self._handle.ipc:
            super()._check_passing(data, handle)
        if not isinstance(handle, pyuv.Handle):
            raise TypeError(f"handle must be a pyuv handle, not {type(handle).__name__}")
        if handle.closed:
            raise ValueError("the handle to be sent is closed")
        if not data:
            raise ValueError("a handle needs at least one byte of data to go with")

    def _on_written(self, handle: Any, error: int | None) -> None:
        self._queued -= 1
        if error is not None:
            if error != _ECANCELED:
                self._fail(error, "write")
            return
        if self._state is OPEN:
            if self._writing_paused and handle.write_queue_size <= self._low:
                self._resume_writing()
        elif not self._queued and not self._handle.closed:
            self._finish_close()

    def can_write_eof(self) -> bool:
        return self._state is OPEN and self._writable and not isinstance(self._handle, pyuv.TTY)

    def write_eof(self) -> None:
        if self._state is not OPEN or not self._writable:
            self._refuse_write()
        if not self.can_write_eof():
            raise TransportError("a terminal has no end of file to send", errno.EOPNOTSUPP)
        try:
            self._handle.shutdown(self._on_written)
        except _UVError as error:
            raise TransportError.from_errno(error.args[0], "shutdown", self._peer) from error
        self._sent_eof = True
        self._writable = False
        self._queued += 1
        self._runner.kick()

    def _refuse_write(self) -> None:
        if self._state is OPEN and not self._sent_eof:
            self._gate(False, "writable")
        self._refuse("write_eof() has closed the sending direction")

    # -- Information --

    def _get_handle(self) -> Any:
        return self._handle

    def _get_server_hostname(self) -> str | None:
        return self._hostname

    def _get_sockname(self) -> Any:
        return self._ask("getsockname")

    def _get_peername(self) -> Any:
        if self._handle.closed:
            return None
        if self._peer is None:
            self._peer = self._ask("getpeername")
        return self._peer

    def _get_winsize(self) -> Any:
        return self._ask("get_winsize")

    def _ask(self, question: str) -> Any:
        if self._handle.closed:
            return None
        method = getattr(self._handle, question, None)
        if method is None:
            return None
        try:
            return method()
        except (_UVError, UnicodeDecodeError):
            return None

    def _get_unix_creds(self) -> tuple[int, int, int] | None:
        if not isinstance(self._handle, pyuv.Pipe) or not hasattr(socket, "SO_PEERCRED"):
            return None
        try:
            duplicate = PlainSocket(fileno=os.dup(self._handle.fileno()))
        except (OSError, _UVError):
            return None
        with duplicate:
            size = struct.calcsize("3i")
            try:
                raw = duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            except OSError:
                return None
        pid, uid, gid = struct.unpack("3i", raw)
        return (pid, uid, gid)


def _is_socket(handle: Any) -> bool:
    """Whether *handle* may be read behind libuv's back.  Not a Pipe for IPC, where that would lose
    handles, nor a TTY, where it might block."""
    return isinstance(handle, pyuv.TCP) or (isinstance(handle, pyuv.Pipe) and not handle.ipc)


def _is_dead(handle: Any) -> bool:
    """Whether a TCP connection has ended: nothing that is unacknowledged ever will be."""
    try:
        with options.socket_of(handle) as here:
            return here.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
    except (OSError, AttributeError):  # closed, or a system without TCP_INFO
        return False
