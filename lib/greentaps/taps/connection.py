"""The Connection: a PEP 3156 protocol directly on a transport, and RFC 9622's object to its user.

The data path::

    send      Connection.send -> framer, if any -> transport.write
    receive   transport -> Connection.data_received -> framer, if any -> a parked receiver, or
              the inbox

`send` returns when the kernel has taken the Message, which it has in the usual case when ``write``
returns: the transport's marks are set so that it pauses us as soon as it holds anything.
Back-pressure on the way in is the inbox: above its high mark the transport stops reading.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import partial
from math import inf
from typing import Any

from ..errors import (
    ConnectionError,
    Reason,
    ReceiveError,
    SendError,
    SwitchpointError,
    Timeout,
    TransportError,
)
from ..framers import Framer, FramerLink
from ..hub import Parked, Runner, current_greenlet, get_runner, marks_switchpoint, switchpoint
from ..plugins import ALWAYS, offer, stack_name
from ..transports.base import CLOSE_TIMEOUT
from .endpoint import LocalEndpoint, RemoteEndpoint, endpoint_of
from .establishing import Established
from .inbox import Inbox
from .message import Message, MessageContext
from .properties import TABLE, TransportProperties

__all__ = ["Connection", "ConnectionState"]

# The inbox: above the first, the transport stops reading; at or below the second it goes on.
INBOX_HIGH = 131072  # bytes
INBOX_LOW = 65536  # bytes
# The most that is held of one Message for a receiver that wants it whole.  A longer one comes in
# pieces (RFC 9622 section 9.3.2.2), so that no peer decides how much memory we use.
MESSAGE_LIMIT = 64 * 1024 * 1024  # bytes


class ConnectionState(Enum):
    """The states of RFC 9622 section 11."""

    ESTABLISHING = "Establishing"
    ESTABLISHED = "Established"
    CLOSING = "Closing"
    CLOSED = "Closed"


ESTABLISHING, ESTABLISHED, CLOSING, CLOSED = ConnectionState


class _Receiver(Parked[Message]):
    """A greenlet in `receive`, and what it asked for."""

    __slots__ = ("maximum", "minimum")

    def __init__(self, runner: Runner, minimum: float, maximum: float) -> None:
        super().__init__(runner)
        self.minimum = minimum
        self.maximum = maximum


class Connection:
    """An established Connection (RFC 9622 section 8); made by `Preconnection.initiate` and by a
    `Listener`.

    A context manager: leaving it closes the Connection, or aborts it if an exception is on its
    way.  Iterating gives Messages until the peer has ended its stream.
    """

    __slots__ = (
        "__weakref__",
        "_blocked",
        "_candidate",
        "_closed_by_us",
        "_ending",
        "_ends",
        "_eof",
        "_final_sent",
        "_hub",
        "_inbox",
        "_links",
        "_paused",
        "_phases",
        "_properties",
        "_receivers",
        "_runner",
        "_senders",
        "_state",
        "_stream_context",
        "_transport",
    )

    def __init__(
        self,
        established: Established,
        framers: Sequence[Framer] = (),
        properties: TransportProperties | None = None,
    ) -> None:
        runner = get_runner()
        self._runner = runner
        self._hub = runner.hub
        self._candidate = established.candidate
        self._phases = established.phases
        self._properties = properties
        self._transport: Any = None
        self._state = ESTABLISHING
        self._inbox = Inbox()
        self._receivers: deque[_Receiver] = deque()
        self._senders: deque[Parked[None]] | None = None
        self._blocked = False  # the transport holds data that the kernel has not taken
        self._paused = True  # the transport is not reading
        self._eof = False  # the peer has ended its stream
        self._final_sent = False
        self._closed_by_us = False
        self._ending: BaseException | None = None  # why it ended, if not by a close
        self._ends: tuple[Any, Any] | None = None
        # Of the Message that is arriving in pieces.  Without a framer, all that is received is
        # one (RFC 9622 section 9.3.2.2).
        self._stream_context: MessageContext | None = None
        self._links = _chain(framers, self._write_down, self._message_up)
        for link in self._links:
            link.framer.start(link)
        self._take(established.transport)

    def _take(self, transport: Any) -> None:
        """Become the protocol of a transport that is ready and paused."""
        transport.set_protocol(self)
        self._transport = transport
        self._state = ESTABLISHED
        # As soon as the transport holds one byte it tells us; and again when it holds none.
        transport.set_write_buffer_limits(high=0, low=0)
        self._paused = False
        transport.resume_reading()

    # -- Sending --

    @marks_switchpoint
    def send(
        self,
        data: bytes | bytearray | memoryview,
        context: MessageContext | None = None,
        end_of_message: bool = True,
        *,
        timeout: float | None = None,
    ) -> None:
        """Send a Message, or with ``end_of_message=False`` a part of one (RFC 9622 section 9.2).

        Returns when the system has taken all of it (the Sent event).  *data* is bytes-like,
        *context* may carry Message Properties (``final``).  *timeout* is in seconds.

        Raises TypeError for other data; SendError if the Message cannot be sent;
        ConnectionError if the Connection has failed; Timeout if the peer does not read: the
        Message then stays queued, and must not be sent again.  A switchpoint.
        """
        if current_greenlet() is self._hub:
            raise SwitchpointError("Connection.send() cannot be called in a callback")
        if self._state is not ESTABLISHED or self._final_sent:
            self._refuse_send()
        try:
            if self._links:
                self._send_framed(data, context, end_of_message)
            else:
                self._transport.write(data)
        except TransportError as error:
            raise SendError(str(error), Reason.PROTOCOL_FAILED) from error
        if context is not None and end_of_message and context.get("final"):
            self._send_final()
        if self._blocked:
            self._wait_taken(timeout)
        elif self._transport.is_closing():
            # The write has failed, or met the end; connection_lost knows the reason.
            self._transport.wait_closed()
            self._refuse_send()

    def _send_framed(self, data: Any, context: Any, end_of_message: bool) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"a bytes-like object is required, not {type(data).__name__}")
        top = self._links[-1]
        try:
            top.framer.new_sent_message(top, bytes(data), context, end_of_message)
        except ValueError as error:
            raise SendError(str(error), Reason.MESSAGE_TOO_LARGE) from error

    def _write_down(self, data: bytes) -> None:
        self._transport.write(data)

    def _send_final(self) -> None:
        self._final_sent = True
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _wait_taken(self, timeout: float | None) -> None:
        parked: Parked[None] = Parked(self._runner)
        if self._senders is None:
            self._senders = deque()
        self._senders.append(parked)
        try:
            parked.wait(timeout)
        except BaseException:
            if parked in self._senders:
                self._senders.remove(parked)
            raise

    def _refuse_send(self) -> None:
        if self._ending is not None:
            raise self._end_error()
        if self._state in (CLOSING, CLOSED):
            raise SendError("the Connection is closed", Reason.CLOSED)
        raise SendError("the final Message has been sent", Reason.INVALID_MESSAGE_PROPERTIES)

    # -- Receiving --

    @marks_switchpoint
    def receive(
        self,
        min_incomplete_length: int | None = None,
        max_length: int | None = None,
        *,
        timeout: float | None = None,
    ) -> Message:
        """Receive a Message (RFC 9622 section 9.3).

        Waits for a complete one; with *min_incomplete_length* (bytes) for as many bytes of one,
        or its end.  *max_length* (bytes) is the most to return at once.  A piece has a false
        ``end_of_message``.  Without a framer a TCP stream is one Message, so use
        ``min_incomplete_length=1`` to get data as it comes.  *timeout* is in seconds.

        Raises ReceiveError when there is none any more (reason Closed), or when the data cannot
        be made a Message (DeframingFailed); ConnectionError if the Connection has failed;
        Timeout, upon which nothing is lost.  A switchpoint.
        """
        if current_greenlet() is self._hub:
            raise SwitchpointError("Connection.receive() cannot be called in a callback")
        minimum = inf if min_incomplete_length is None else _length(min_incomplete_length)
        maximum = inf if max_length is None else _length(max_length)
        if self._inbox and not self._receivers and not self._closed_by_us:
            message = self._from_inbox(minimum, maximum)
            if message is not None:
                return message
        if self._eof or self._state is not ESTABLISHED:
            raise self._receive_error()
        return self._wait_message(minimum, maximum, timeout)

    def _from_inbox(self, minimum: float, maximum: float) -> Message | None:
        inbox = self._inbox
        piece = inbox.take(minimum, maximum)
        if piece is None and inbox.size >= MESSAGE_LIMIT:
            piece = inbox.take(1, maximum)
        if piece is None:
            return None
        if self._paused and inbox.size <= INBOX_LOW:
            self._resume()
        data, context, ended = piece
        return Message(data, ended, context, self._get_ends)

    def _wait_message(self, minimum: float, maximum: float, timeout: float | None) -> Message:
        receiver = _Receiver(self._runner, minimum, maximum)
        self._receivers.append(receiver)
        if self._paused:  # it wants more than the inbox holds
            self._resume()
        try:
            return receiver.wait(timeout)
        except BaseException:
            message = receiver.result
            if message is not None:
                # It was on its way to us when we were broken off: back to the front.
                self._inbox.put_back(message.data, message.context, message.end_of_message)
                self._serve()
            elif receiver in self._receivers:
                self._receivers.remove(receiver)
            raise

    def _resume(self) -> None:
        self._paused = False
        if self._state is ESTABLISHED:
            self._transport.resume_reading()

    def __iter__(self) -> Iterator[Message]:
        """Messages, until the peer has ended its stream.  Each step is a switchpoint."""
        while True:
            try:
                message = self.receive()
            except ReceiveError as error:
                if error.reason is Reason.CLOSED:
                    return
                raise
            yield message

    # -- From the transport --

    def connection_made(self, transport: Any) -> None:
        raise AssertionError("a Connection takes only transports that are ready")

    def data_received(self, data: bytes) -> None:
        if self._links:
            try:
                self._links[0].feed(data)
            except Exception as error:
                self._deframing_failed(error)
            return
        context = self._stream_context
        if context is None:
            context = self._stream_context = MessageContext()
        receivers = self._receivers
        if receivers and not self._inbox:
            first = receivers[0]
            if first.minimum <= len(data) <= first.maximum:
                del receivers[0]
                if first.finish(Message(data, False, context, self._get_ends)):
                    return
        self._message_up(data, context, False)

    def _message_up(self, data: bytes, context: Any, end_of_message: bool) -> None:
        """A Message, or a piece of one, has come out of the last framer."""
        if self._closed_by_us:
            return
        receivers = self._receivers
        if receivers and end_of_message and not self._inbox and self._stream_context is None:
            first = receivers[0]
            if len(data) <= first.maximum:
                del receivers[0]
                if first.finish(Message(data, True, context, self._get_ends)):
                    return
        if context is None:
            context = self._context_of_piece(end_of_message)
        self._inbox.put(data, context, end_of_message)
        if receivers:
            self._serve()
        if self._inbox.size > INBOX_HIGH and not receivers and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _context_of_piece(self, end_of_message: bool) -> MessageContext | None:
        """All pieces of a Message share one context; a whole one makes its own when asked."""
        context = self._stream_context
        if end_of_message:
            self._stream_context = None
        elif context is None:
            context = self._stream_context = MessageContext()
        return context

    def _serve(self) -> None:
        """Give receivers, first come first served, what the inbox has for them."""
        receivers = self._receivers
        while receivers:
            first = receivers[0]
            if first.done:
                del receivers[0]
                continue
            message = self._from_inbox(first.minimum, first.maximum)
            if message is None:
                return
            del receivers[0]
            if not first.finish(message):
                self._inbox.put_back(message.data, message.context, message.end_of_message)

    def eof_received(self) -> bool:
        self._eof = True
        if self._links:
            if not all(link.framer.at_boundary(link) for link in self._links):
                self._deframing_failed(EOFError("the stream ended in the middle of a Message"))
                return False
        else:
            context = self._stream_context or MessageContext()
            self._message_up(b"", context, True)
        self._fail_receivers()
        return True  # we may still send

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        while self._senders:
            self._senders.popleft().finish(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._state = CLOSED
        if exc is not None and self._ending is None:
            self._ending = exc
        self._eof = True
        self._fail_receivers()
        while self._senders:
            self._senders.popleft().fail(self._end_error())

    def _deframing_failed(self, error: Exception) -> None:
        made = ReceiveError(f"the data received is not framed: {error}", Reason.DEFRAMING_FAILED)
        made.__cause__ = error
        self._ending = made
        self._state = CLOSING
        self._transport.abort(made)
        self._fail_receivers()

    def _fail_receivers(self) -> None:
        self._serve()
        while self._receivers:
            self._receivers.popleft().fail(self._receive_error())

    def _receive_error(self) -> BaseException:
        if self._ending is not None and not self._closed_by_us:
            return self._end_error()
        if self._closed_by_us:
            return ReceiveError("the Connection is closed", Reason.CLOSED)
        return ReceiveError("the peer has sent its last Message", Reason.CLOSED)

    def _end_error(self) -> BaseException:
        """What every call raises after a failure: new each time, always with the same cause."""
        cause = self._ending
        if isinstance(cause, ReceiveError):
            again: BaseException = ReceiveError(cause.message, cause.reason)
        else:
            again = ConnectionError(
                f"the Connection has ended: {cause}" if cause else "the Connection has ended",
                _reason_of(cause),
            )
        again.__cause__ = cause
        return again

    # -- Ending --

    @switchpoint
    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Close the Connection (RFC 9622 section 10): after all Messages handed over have been
        sent.  What the peer still sends is not received any more.

        Returns when it is closed (the Closed event).  *timeout* (seconds, None for ever) is how
        long the peer may take over what is still queued; then the Connection is aborted, and this
        raises ConnectionError.  May be called again, and after the end, when it does nothing.
        """
        if self._state is CLOSED:
            return
        was_established = self._state is ESTABLISHED
        self._closed_by_us = True
        if was_established:
            for link in reversed(self._links):
                link.framer.stop(link)
            self._state = CLOSING
            self._fail_receivers()
        self._transport.close(timeout)
        self._transport.wait_closed()
        if was_established and self._ending is not None:
            raise self._end_error()

    def abort(self) -> None:
        """End the Connection at once (RFC 9622 section 10): what was not sent is dropped, and
        the peer learns of it where the protocol can tell it.  Every call, also one that waits
        in another greenlet, then raises ConnectionError (LocalAbort).  Not a switchpoint."""
        if self._state is CLOSED:
            return
        if self._ending is None:
            self._ending = ConnectionError("aborted by us", Reason.LOCAL_ABORT)
        self._state = CLOSING
        self._transport.abort(self._ending)
        self._fail_receivers()
        while self._senders:
            self._senders.popleft().fail(self._end_error())

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    # -- Information --

    @property
    def state(self) -> ConnectionState:
        """The state (RFC 9622 section 11)."""
        return self._state

    @property
    def stack(self) -> str:
        """The protocol stack that was chosen, as ``"tls/tcp"``."""
        return stack_name(self._candidate.stack)

    @property
    def phases(self) -> tuple[tuple[str, float], ...]:
        """How long each step of the establishment took: (name, seconds) pairs."""
        return self._phases

    @property
    def transport(self) -> Any:
        """The transport below, for `get_extra_info`."""
        return self._transport

    @property
    def local_endpoint(self) -> LocalEndpoint | None:
        """Our end."""
        return self._get_ends()[0]  # type: ignore[no-any-return]

    @property
    def remote_endpoint(self) -> RemoteEndpoint | None:
        """The peer's end."""
        return self._get_ends()[1]  # type: ignore[no-any-return]

    def _get_ends(self) -> tuple[Any, Any]:
        if self._ends is None:
            info = self._transport.get_extra_info
            ends = (
                endpoint_of(info("sockname"), LocalEndpoint),
                endpoint_of(
                    info("peername", self._candidate.remote),
                    RemoteEndpoint,
                    self._candidate.hostname,
                ),
            )
            if self._state is CLOSED:
                return ends
            self._ends = ends
        return self._ends

    def get_properties(self) -> dict[str, Any]:
        """The Connection's properties now (RFC 9622 section 8).

        Selection Properties read as whether the chosen stack has the feature; ``connState``,
        ``canSend`` and ``canReceive`` tell the state.
        """
        stack = self._candidate.stack
        found: dict[str, Any] = {row.name: offer(stack, row.name) is ALWAYS for row in TABLE}
        found["connState"] = self._state
        found["canSend"] = self._state is ESTABLISHED and not self._final_sent
        found["canReceive"] = self._state is ESTABLISHED and not self._eof
        return found

    def __repr__(self) -> str:
        remote = self._candidate.remote
        where = f" {remote[0]} {remote[1]}" if isinstance(remote, tuple) else ""
        return f"<Connection {self.stack}{where} {self._state.value.lower()}>"


def _chain(framers: Sequence[Framer], down: Any, up: Any) -> tuple[FramerLink, ...]:
    """The links of a framer stack, bottom first.

    The framer added last is the first to see what is sent, and the last to see what is received
    (RFC 9622 section 9.1.2.1).
    """
    links: list[FramerLink] = []
    for index, framer in enumerate(framers):
        send = partial(_send_through, links, index - 1) if index else down
        deliver = partial(_feed_to, links, index + 1) if index + 1 < len(framers) else up
        links.append(FramerLink(framer, send, deliver))
    return tuple(links)


def _send_through(links: list[FramerLink], index: int, data: bytes) -> None:
    link = links[index]
    link.framer.new_sent_message(link, data, None, True)


def _feed_to(
    links: list[FramerLink], index: int, data: bytes, context: Any, end_of_message: bool
) -> None:
    links[index].feed(data)


def _length(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"a length is a number of bytes, not {value!r}")
    if value < 1:
        raise ValueError(f"a length must be at least 1 byte: {value!r}")
    return value


def _reason_of(cause: BaseException | None) -> Reason:
    if isinstance(cause, ConnectionError):
        return cause.reason
    if isinstance(cause, OSError):
        if cause.errno in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED):
            return Reason.CONNECTION_ABORTED
        if cause.errno == errno.ETIMEDOUT or isinstance(cause, Timeout):
            return Reason.TIMEOUT
    return Reason.PROTOCOL_FAILED
