"""A listening handle, and the one thing it does: hand over accepted handles.

Accepting can be paused.  Then connections wait in the kernel's backlog, which is how a limit on
what a listener holds reaches the peers.

It pauses by itself when the system has no descriptor left for one more.  libuv would try again at
once, without end, and in there nobody can free one; only closing the handle stops it.  So there is
a second handle for the same socket, with which it goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pyuv

from ..errors import TransportError
from ..hub import get_runner

__all__ = ["Listening"]

_UVError = pyuv.error.UVError
# The peer has gone again, or another process was faster: nothing to report.
_HARMLESS = (pyuv.errno.UV_EAGAIN, pyuv.errno.UV_ECONNABORTED)
# How long nobody is accepted after an error.
_REST = 0.1  # seconds


class Listening:
    """*handle* is a bound pyuv.TCP or pyuv.Pipe, *address* where it is bound to.

    *accepted* is called with the pyuv handle of each new connection, from a callback.  *ipc*
    makes accepted Pipes that can carry handles.  *closed*, if given, is called at `close`, and
    *lost* with this object and the error when the hub goes.
    """

    def __init__(
        self,
        handle: Any,
        address: Any,
        accepted: Callable[[Any], None],
        *,
        ipc: bool = False,
        closed: Callable[[], None] | None = None,
        lost: Callable[[Listening, BaseException], None] | None = None,
    ) -> None:
        self.address = address
        self._handle = handle
        self._accepted = accepted
        self._ipc = ipc
        self._at_close = closed
        self._at_loss = lost
        self._paused = False
        self._waiting = False  # libuv has announced a connection that we have not accepted
        self._closed = False
        self._backlog = 0
        self._told: int | None = None  # the error of which we have told since the last one accepted
        self._spare: Any = None
        self._rest: Any = None
        self._runner = get_runner()
        self._runner.adopt(self)

    def listen(self, backlog: int) -> None:
        """Begin to accept; *backlog* is the length of the kernel's queue.  Raises
        TransportError."""
        self._backlog = backlog
        try:
            self._handle.listen(self._on_connection, backlog)
            if self._spare is None:
                self._spare = self._another()
        except (_UVError, OSError) as error:
            raise TransportError.from_errno(error.args[0], "listen", self.address) from error
        self._runner.kick()

    def _another(self) -> Any:
        """Another handle for our socket.  Raises OSError or UVError."""
        descriptor = os.dup((self._spare or self._handle).fileno())
        loop = self._runner.loop
        made = pyuv.TCP(loop) if isinstance(self._handle, pyuv.TCP) else pyuv.Pipe(loop)
        try:
            made.open(descriptor)
        except _UVError:
            os.close(descriptor)
            self._runner.discard(made)
            raise
        return made

    def pause(self) -> None:
        """Leave new connections in the kernel's backlog until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Accept again, beginning with what waits."""
        self._paused = False
        if self._waiting and not self._handle.closed:
            self._waiting = False
            self._runner.call_soon(self._accept_waiting)

    def _accept_waiting(self) -> None:
        if not self._handle.closed:
            self._on_connection(self._handle, None)
            self._runner.kick()

    def _on_connection(self, handle: Any, error: int | None) -> None:
        if error is not None:
            if error != self._told:
                self._told = error
                self._runner.collect(TransportError.from_errno(error, "accept", self.address))
            self._take_a_rest()
            return
        if self._paused:
            # libuv asks for no further connection before this one is accepted.
            self._waiting = True
            return
        loop = self._runner.loop
        client = pyuv.TCP(loop) if isinstance(handle, pyuv.TCP) else pyuv.Pipe(loop, self._ipc)
        try:
            handle.accept(client)
        except _UVError as failure:
            self._runner.discard(client)
            if failure.args[0] not in _HARMLESS:
                self._runner.collect(
                    TransportError.from_errno(failure.args[0], "accept", self.address)
                )
            return
        self._told = None
        self._accepted(client)

    def _take_a_rest(self) -> None:
        self._runner.discard(self._handle)
        self._rest = self._runner.call_later(_REST, self._go_on)

    def _go_on(self) -> None:
        self._rest.close()
        self._rest = None
        try:
            another = self._another()
            self._handle, self._spare = self._spare, another
            self.listen(self._backlog)
        except (_UVError, OSError):  # as before, of which we have told
            self._take_a_rest()

    def close(self) -> None:
        """Stop listening.  Connections in the backlog are reset by the kernel."""
        if self._closed:
            return
        self._closed = True
        if self._at_close is not None:
            self._at_close()
        if self._rest is not None:
            self._rest.close()
            self._rest = None
        for handle in (self._handle, self._spare):
            if handle is not None:
                self._runner.discard(handle)
        self._runner.release(self)

    def hub_lost(self, error: BaseException) -> None:
        self.close()
        if self._at_loss is not None:
            self._at_loss(self, error)
