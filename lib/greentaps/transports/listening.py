"""A listening handle, and the one thing it does: hand over accepted handles.

Accepting can be paused.  Then connections wait in the kernel's backlog, which is how a limit on
what a listener holds reaches the peers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyuv

from ..errors import TransportError
from ..hub import get_runner

__all__ = ["Listening"]

_UVError = pyuv.error.UVError
# The peer has gone again, or another process was faster: nothing to report.
_HARMLESS = (pyuv.errno.UV_EAGAIN, pyuv.errno.UV_ECONNABORTED)


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
        self._runner = get_runner()
        self._runner.adopt(self)

    def listen(self, backlog: int) -> None:
        """Begin to accept; *backlog* is the length of the kernel's queue.  Raises
        TransportError."""
        try:
            self._handle.listen(self._on_connection, backlog)
        except _UVError as error:
            raise TransportError.from_errno(error.args[0], "listen", self.address) from error
        self._runner.kick()

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
            self._runner.collect(TransportError.from_errno(error, "accept", self.address))
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
        self._accepted(client)

    def close(self) -> None:
        """Stop listening.  Connections in the backlog are reset by the kernel."""
        if not self._handle.closed:
            if self._at_close is not None:
                self._at_close()
            self._handle.close(self._on_closed)
            self._runner.kick()

    def _on_closed(self, handle: Any) -> None:
        self._runner.release(self)

    def hub_lost(self, error: BaseException) -> None:
        self.close()
        if self._at_loss is not None:
            self._at_loss(self, error)
