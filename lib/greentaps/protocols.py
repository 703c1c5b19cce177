"""Base classes for protocols: the callbacks, and what to do by default.

Protocols are duck-typed.  These classes spare you the callbacks that you do not need; their
``__init__`` need not run, and none of their callbacks needs a ``super()`` call, except in
`MessageProtocol`, which has a machinery of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .errors import ProtocolError, TransportError
from .hub import Parked, get_runner, spawn

__all__ = ["BaseProtocol", "DatagramProtocol", "MessageProtocol", "Protocol", "ProtocolError"]


class BaseProtocol:
    """Base class for all protocols.

    *timeout* (seconds or None) is the default for operations that the protocol itself offers;
    `create_connection` sets it where the factory did not.
    """

    timeout: float | None = None

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout

    def connection_made(self, transport: Any) -> None:
        """Called once, when the connection is there."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called once, at the end: *exc* is None for a normal one, else what ended it."""

    def pause_writing(self) -> None:
        """Called when the write buffer has risen above the high mark: stop writing."""

    def resume_writing(self) -> None:
        """Called when the write buffer has fallen to the low mark: go on writing."""


class Protocol(BaseProtocol):
    """Base class for connection-oriented protocols."""

    def data_received(self, data: bytes) -> None:
        """Called with each chunk of data: never empty, and cut at no particular place."""

    def eof_received(self) -> bool | None:
        """Called once, when the peer will send no more.  Return True to keep the transport open
        for writing; else it is closed."""


class DatagramProtocol(BaseProtocol):
    """Base class for datagram-oriented protocols."""

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Called with each datagram, which may be empty, and its sender."""

    def error_received(self, exc: TransportError) -> None:
        """Called when a datagram could not be sent, or the network said so of an earlier one."""


class MessageProtocol(Protocol):
    """Base class for protocols that turn bytes into messages.

    A subclass parses in ``data_received`` and calls `message_received` for each message.
    *message_handler*, if given, is called as ``message_handler(message, transport, protocol)``
    for one message after the other, in a greenlet that belongs to the connection, so it may
    block.  While `max_queued` messages wait for it, reading is paused.

    An exception in the handler is reported and ends the connection with it.  The loss of the
    connection drops what waits, and ends a handler that is at work at its next switchpoint (it
    gets ``GreenletExit``).
    """

    max_queued = 10

    def __init__(
        self,
        message_handler: Callable[[Any, Any, Any], Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__(timeout)
        self._message_handler = message_handler
        self._messages: deque[Any] = deque()
        self._idle: Parked[None] | None = None
        self._dispatcher: Any = None
        self._transport: Any = None
        self._reading_paused = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._message_handler is not None:
            self._dispatcher = spawn(self._dispatch)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._messages.clear()
        self._transport = None
        dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None:
            dispatcher.kill(block=False)

    def message_received(self, message: Any) -> None:
        """Queue *message* for the handler: to be called by the subclass."""
        if self._message_handler is None or self._transport is None:
            return
        self._messages.append(message)
        if len(self._messages) >= self.max_queued and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.finish(None)

    def _dispatch(self) -> None:
        runner = get_runner()
        transport = self._transport
        handler = self._message_handler
        assert handler is not None
        try:
            while self._transport is not None:
                if not self._messages:
                    self._idle = Parked(runner)
                    self._idle.wait()
                    continue
                message = self._messages.popleft()
                if self._reading_paused and len(self._messages) < self.max_queued:
                    self._reading_paused = False
                    transport.resume_reading()
                handler(message, transport, self)
        except BaseException as error:
            if self._transport is None:
                return  # `connection_lost` has ended us
            # Also for a kill or a gevent.Timeout from elsewhere: nobody takes messages any more.
            self._dispatcher = None
            runner.collect(error)
            transport.abort(error)
