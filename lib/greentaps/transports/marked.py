"""Datagrams with the ECN field that they came with (RFC 3168).

It is in a control message of recvmsg(2), and libuv reads without those.  So this transport reads
by itself, which costs more for each datagram; it is used only where somebody wants to know.
"""

from __future__ import annotations

import socket
from typing import Any

import pyuv

from ..errors import TransportError
from . import options
from .datagram import DatagramTransport

__all__ = ["MarkedBytes", "MarkedDatagramTransport"]

_BATCH = 16  # datagrams that are read in one turn
_LARGEST = 65535  # bytes
# Not all of these are in every Python's socket module; the numbers are Linux's ABI.
_IP_RECVTOS, _IPV6_RECVTCLASS, _IPV6_TCLASS = 13, 66, 67
_NOTES = {(socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, _IPV6_TCLASS)}
_ECN = 0b11  # the two low bits of the byte


class MarkedBytes(bytes):
    """A datagram, and in `ecn` (0 to 3, or None) how it was marked."""

    ecn: int | None = None


class MarkedDatagramTransport(DatagramTransport):
    """A DatagramTransport whose data are `MarkedBytes`.  Raises TransportError also if the system
    does not tell."""

    __slots__ = ("_socket", "_watch")

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self._watch: Any = None
        self._socket: socket.socket | None = None
        try:
            with options.socket_of(handle) as here:
                if here.family == socket.AF_INET6:
                    here.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVTCLASS, 1)
                else:
                    here.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)
        except BaseException as error:
            self.abort()
            if isinstance(error, OSError) and not isinstance(error, TransportError):
                raise TransportError.from_errno(error.errno or 0, "socket option") from error
            raise

    def pause_reading(self) -> None:
        """As `DatagramTransport.pause_reading`."""
        self._reading = False
        if self._handle_reads and self._watch is not None and not self._watch.closed:
            self._handle_reads = False
            self._watch.stop()

    def _start_handle(self) -> None:
        if self._handle_reads or self._handle.closed:
            return
        if self._watch is None:
            self._socket = self._make_duplicate()
            self._watch = pyuv.Poll(self._runner.loop, self._socket.fileno())
        self._watch.start(pyuv.UV_READABLE, self._on_readable)
        self._handle_reads = True
        self._runner.kick()

    def _on_readable(self, poll: Any, events: int, error: int | None) -> None:
        if error is not None:  # the socket has news for us, upon which libuv stops looking
            self._handle_reads = False
            self._start_handle()
        for _ in range(_BATCH):
            here = self._socket
            if here is None or not self._handle_reads:
                return
            try:
                data, notes, _, address = here.recvmsg(_LARGEST, socket.CMSG_SPACE(4))
            except BlockingIOError:
                return
            except OSError as failure:  # what the network says of an earlier datagram
                self._error_received(-(failure.errno or 0), "receive", self._remote)
                continue
            marked = MarkedBytes(data)
            for level, kind, value in notes:
                if (level, kind) in _NOTES:
                    marked.ecn = value[0] & _ECN
            self._on_received(self._handle, address, 0, marked, None)

    def _close_duplicate(self) -> None:
        super()._close_duplicate()
        self._handle_reads = False
        if self._watch is not None and not self._watch.closed:
            self._watch.close(self._on_watch_closed)

    def _on_watch_closed(self, watch: Any) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
