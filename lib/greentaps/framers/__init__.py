"""Framers: bytes <-> Messages (RFC 9622 section 9.1.2, RFC 9623 section 6).

A `Framer` is written once and shared by all Connections of a Preconnection; it holds no state of
theirs.  For each Connection there is one `FramerLink`, which is RFC 9623's "connection" as the
framer sees it: the received bytes with their cursor, the actions that a framer can take, and a
`state` attribute for whatever the framer wants to remember.

Pure: no I/O, no clock, no greenlets.  A framer never blocks; it is called when there is something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Framer", "FramerLink"]

# A delivered piece: the data, the context that the framer gave, whether the Message ends here.
Deliver = Callable[[bytes, Any, bool], None]


class Framer:
    """Base class of framers.  Override the two handlers, and `start` and `stop` where needed."""

    def start(self, link: FramerLink) -> None:
        """A Connection begins: set up ``link.state``, perhaps ``link.send`` a prefix."""

    def stop(self, link: FramerLink) -> None:
        """The Connection is closed by us: the last chance to ``link.send`` something."""

    def new_sent_message(
        self, link: FramerLink, data: bytes, context: Any, end_of_message: bool
    ) -> None:
        """The application sends *data* (bytes-like), a Message or, without *end_of_message*, a
        part of one: encode it and call ``link.send``."""
        raise NotImplementedError

    def handle_received_data(self, link: FramerLink) -> None:
        """There are bytes at the cursor: look with ``link.parse``, then move on.

        Called again for as long as it moves the cursor and bytes are left; return without moving
        it to wait for more.  What it raises ends the Connection with a ReceiveError
        (DeframingFailed).
        """
        raise NotImplementedError

    def at_boundary(self, link: FramerLink) -> bool:
        """Whether the stream may end here without cutting a Message.  By default: when no bytes
        are left and no Message is half delivered."""
        return link.idle


class FramerLink:
    """One framer's end of one Connection.

    *send* takes encoded bytes downward; *deliver* takes pieces of Messages upward.
    """

    __slots__ = (
        "_buffer",
        "_cursor",
        "_deliver",
        "_expected",
        "_expected_context",
        "_expected_end",
        "_open",
        "_send",
        "framer",
        "state",
    )

    def __init__(
        self, framer: Framer, send: Callable[[bytes], None], deliver: Deliver
    ) -> None:
        self.framer = framer
        self.state: Any = None
        self._send = send
        self._deliver = deliver
        self._buffer = b""
        self._cursor = 0
        self._expected = 0  # bytes that are delivered as they come, before the framer looks
        self._expected_context: Any = None
        self._expected_end = False
        self._open = False  # a Message has begun and not ended

    # -- What a framer does --

    def send(self, data: bytes) -> None:
        """Hand encoded bytes to the next protocol (RFC 9623 section 6.2, Send)."""
        self._send(data)

    def parse(self, minimum: int = 1, maximum: int | None = None) -> bytes | None:
        """The bytes at the cursor, at most *maximum* of them, without moving it; None if there
        are fewer than *minimum* (section 6.3, Parse)."""
        cursor = self._cursor
        if len(self._buffer) - cursor < minimum:
            return None
        return self._buffer[cursor : None if maximum is None else cursor + maximum]

    def advance_receive_cursor(self, length: int) -> None:
        """Discard *length* bytes, which must have been received (section 6.3)."""
        if not 0 <= length <= len(self._buffer) - self._cursor:
            raise ValueError(f"cannot move the cursor by {length}")
        self._cursor += length

    def deliver_and_advance_receive_cursor(
        self, context: Any, length: int, end_of_message: bool = True
    ) -> None:
        """Deliver the next *length* bytes of the stream (section 6.3).

        They need not have arrived: the rest follows piece by piece as it comes, and is never
        held here.
        """
        cursor = self._cursor
        have = len(self._buffer) - cursor
        if length <= have:
            self._cursor = cursor + length
            self._open = not end_of_message
            self._deliver(self._buffer[cursor : cursor + length], context, end_of_message)
            return
        self._expected = length - have
        self._expected_context = context
        self._expected_end = end_of_message
        self._cursor += have
        self._open = True
        if have:
            self._deliver(self._buffer[cursor:], context, False)

    def deliver(self, context: Any, data: bytes, end_of_message: bool = True) -> None:
        """Deliver bytes of the framer's own making (section 6.3, Deliver)."""
        self._open = not end_of_message
        self._deliver(data, context, end_of_message)

    @property
    def idle(self) -> bool:
        """Whether nothing is held and nothing is half delivered."""
        return not self._open and self._cursor == len(self._buffer)

    # -- What drives it --

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived, and deliver what they complete."""
        if self._expected:
            data = self._take_expected(data)
            if not data:
                return
        if self._cursor != len(self._buffer):
            data = self._buffer[self._cursor :] + data
        self._buffer = data
        self._cursor = 0
        handle = self.framer.handle_received_data
        size = len(data)
        before = 0
        while before < size:
            handle(self)
            if self._cursor == before:
                return
            before = self._cursor
        self._buffer = b""
        self._cursor = 0

    def _take_expected(self, data: bytes) -> bytes:
        length = self._expected
        if len(data) < length:
            self._expected = length - len(data)
            self._deliver(data, self._expected_context, False)
            return b""
        self._expected = 0
        self._open = not self._expected_end
        context, self._expected_context = self._expected_context, None
        self._deliver(data[:length], context, self._expected_end)
        return data[length:]
