"""Two joined stream transports without a kernel between them.

For tests, of applications and of layers: a peer that behaves exactly as the contract says, with
no port, no descriptor and no luck involved.  It runs the same contract test as the real ones.

What is written to one end waits in that end's write buffer until the other one reads.  Transfer
happens in the hub's turn, never inside ``write``, so that callbacks come as they do from a socket.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import Any, ClassVar

from ..errors import TransportError
from ..hub import Runner, check_timeout, get_runner
from .base import CLOSE_TIMEOUT, CLOSED, CLOSING, NEW, OPEN, StreamTransport, as_bytes

__all__ = ["MemoryTransport", "memory_pair"]

_CHUNK = 65536  # bytes, as a read from a socket would give at most


class MemoryTransport(StreamTransport):
    """One end of a `memory_pair`.  *capacity* (bytes) stands for the kernel's socket buffer:
    so much is taken from a writer at once although the reader is not reading."""

    __slots__ = (
        "_buffer",
        "_buffered",
        "_eof_queued",
        "_eof_sent",
        "_got_eof",
        "_name",
        "_other",
        "_reset_early",
        "_scheduled",
        "capacity",
    )

    _extra_info: ClassVar[dict[str, str]] = {
        "sockname": "_get_sockname",
        "peername": "_get_peername",
    }

    _other: MemoryTransport

    def __init__(self, runner: Runner, name: str, capacity: int) -> None:
        super().__init__(runner)
        self._name = name
        self.capacity = capacity
        self._buffer: deque[bytes] = deque()  # written, not yet read by the other end
        self._buffered = 0
        self._eof_queued = False
        self._eof_sent = False
        self._got_eof = False
        self._reset_early = False  # the other end aborted before we started
        self._scheduled = False
        runner.adopt(self)

    # -- Life cycle --

    def start(self, protocol: Any) -> None:
        self._begin()
        self._protocol = protocol
        self._peer = self._other._name
        try:
            protocol.connection_made(self)
        except BaseException as error:
            self.abort(error)
            raise
        if self._reset_early:
            self._runner.call_soon(self._reset)
        self._other._schedule()

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        if timeout is not None:
            check_timeout(timeout)
        if self._state is CLOSED:
            return
        if self._state is not CLOSING:
            self._state = CLOSING
            self._eof_queued = True
            self._schedule()
            self._other._schedule()  # what comes in now is taken and dropped
        if self.get_write_buffer_size():
            self._start_close_timer(timeout)

    def abort(self, error: BaseException | None = None) -> None:
        if self._state is CLOSED:
            return
        if self._error is None:
            self._error = error
        self._state = CLOSING
        self._drop()
        self._runner.call_soon(self._lost)
        self._runner.call_soon(self._other._reset)

    def _reset(self) -> None:
        if self._state is CLOSED:
            return
        if self._state is NEW:  # as with a socket, `start` will show it
            self._reset_early = True
            return
        if self._error is None and not (self._got_eof and not self._buffered):
            self._error = TransportError.from_errno(errno.ECONNRESET, "read", self._peer)
        self._state = CLOSING
        self._drop()
        self._lost()

    def _drop(self) -> None:
        self._buffer.clear()
        self._buffered = 0

    def hub_lost(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._state = CLOSING
        self._drop()
        self._runner.call_when_drained(self._lost)

    # -- The transfer --

    def _schedule(self) -> None:
        """Transfer soon; also after our own end: what was taken is still delivered."""
        if not self._scheduled:
            self._scheduled = True
            self._runner.call_soon(self._transfer)

    def _transfer(self) -> None:
        self._scheduled = False
        other = self._other
        while self._buffer and other._takes():
            chunk = self._buffer.popleft()
            self._buffered -= len(chunk)
            if other._state is OPEN:
                other._call(other._protocol.data_received, chunk)
        if self._writing_paused and self._state is OPEN:
            if self.get_write_buffer_size() <= self._low:
                self._resume_writing()
        if not self._buffer and self._eof_queued and not self._eof_sent and other._hears_eof():
            self._eof_sent = True
            other._on_eof()
        if self._state is CLOSING and not self.get_write_buffer_size():
            self._lost()

    def _takes(self) -> bool:
        if self._state is OPEN:
            return self._reading
        return self._state is not NEW

    def _hears_eof(self) -> bool:
        return self._state is not NEW and (self._reading or self._state is not OPEN)

    def _on_eof(self) -> None:
        self._got_eof = True
        if self._state is OPEN:
            keep_open = self._call(self._protocol.eof_received)
            if not keep_open and self._state is OPEN:
                self.close()

    # -- Reading --

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._other._schedule()

    # -- Writing --

    def get_write_buffer_size(self) -> int:
        return max(self._buffered - self.capacity, 0)

    def write(self, data: bytes | bytearray | memoryview, handle: Any = None) -> bool | None:
        data = as_bytes(data)
        if self._state is not OPEN or self._eof_queued:
            self._refuse("write_eof() has closed the sending direction")
        if handle is not None:
            self._check_passing(data, handle)
        if not data:
            return None
        if self._other._state is CLOSED:
            error = TransportError.from_errno(errno.EPIPE, "write", self._peer)
            self._runner.call_soon(self.abort, error)
            return True
        for start in range(0, len(data), _CHUNK):
            self._buffer.append(bytes(data[start : start + _CHUNK]))
        self._buffered += len(data)
        self._schedule()
        if not self._writing_paused and self.get_write_buffer_size() > self._high:
            self._pause_writing()
        return None

    def can_write_eof(self) -> bool:
        return self._state is OPEN and not self._eof_queued

    def write_eof(self) -> None:
        if self._state is not OPEN or self._eof_queued:
            self._refuse("write_eof() has closed the sending direction")
        self._eof_queued = True
        self._schedule()

    # -- Information --

    def _get_sockname(self) -> str | None:
        return None if self._state is CLOSED else self._name

    def _get_peername(self) -> str | None:
        return None if self._state is CLOSED else self._other._name


def memory_pair(
    capacity: int = 0, names: tuple[str, str] = ("memory:a", "memory:b")
) -> tuple[MemoryTransport, MemoryTransport]:
    """Return two new transports, each the other's peer.  *capacity* is in bytes."""
    runner = get_runner()
    one, two = (MemoryTransport(runner, name, capacity) for name in names)
    one._other, two._other = two, one
    return one, two
