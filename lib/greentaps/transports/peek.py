"""Looking at the first byte that a peer sends, without taking it.

For a listener that does not know yet what its client speaks.  The transport must not have been
started: nobody reads it meanwhile, and whoever starts it then gets the byte as well.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import termios
from collections.abc import Callable
from typing import Any

import pyuv

from ..errors import TransportError
from ..hub import PlainSocket, get_runner

__all__ = ["Peek"]

_INT_SIZE = 4  # bytes


class Peek:
    """Calls ``told(byte)`` once: with the first byte (bytes of length 1) that *transport*'s peer
    has sent, ``b""`` if it has ended without one, or None after *seconds* of silence.

    `close` breaks it off.  Never calls back from within the constructor, which raises
    TransportError if there is nothing (any more) to look at.
    """

    def __init__(
        self, transport: Any, seconds: float, told: Callable[[bytes | None], None]
    ) -> None:
        self._told: Callable[[bytes | None], None] | None = told
        self._runner = get_runner()
        # A watcher of its own needs a descriptor of its own.
        handle = transport.get_extra_info("handle")
        if handle is None:
            raise TransportError("a transport without a handle cannot be looked at", errno.ENOTCONN)
        try:
            self._socket = PlainSocket(fileno=os.dup(handle.fileno()))
        except pyuv.error.UVError as error:
            raise TransportError.from_errno(errno.EBADF, "peek") from error
        except OSError as error:
            raise TransportError.from_errno(error.errno or 0, "peek") from error
        self._poll = pyuv.Poll(self._runner.loop, self._socket.fileno())
        self._runner.adopt(self)
        self._poll.start(pyuv.UV_READABLE, self._readable)
        self._runner.kick()
        self._timer = self._runner.call_later(seconds, self._tell, None)

    def _readable(self, poll: Any, events: int, error: int | None) -> None:
        byte = b""
        # To ask for data where there is an error would take it away from who reads next.
        if error is None or self._has_data():
            try:
                byte = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                pass
        self._tell(byte)

    def _has_data(self) -> bool:
        amount = bytearray(_INT_SIZE)
        fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, amount)
        return any(amount)

    def _tell(self, byte: bytes | None) -> None:
        told = self._told
        self.close()
        if told is not None:
            told(byte)

    def close(self) -> None:
        """Look no further, and call nobody.  May be repeated."""
        self._told = None
        self._timer.close()
        if not self._poll.closed:
            self._poll.close(self._closed)
            self._runner.kick()

    def _closed(self, poll: Any) -> None:
        self._socket.close()
        self._runner.release(self)

    def hub_lost(self, error: BaseException) -> None:
        """The loop goes."""
        self.close()
