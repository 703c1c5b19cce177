"""Early data: the first Message of a Connection that travels with its establishment (RFC 9622
sections 6.2.5 and 9.2.5, RFC 9623 section 5.3).

Whoever initiates frames the Message before there is a transport, anew for each candidate, since
each has framers of its own (`Ahead`).  What the first packet did not take is sent before all else.
A Listener cannot know how many bytes came so, but it knows a limit: those that were there when the
connection was accepted.  The Messages that these belong to are marked (`EarlyMarks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..framers import Framer, FramerHost, FramerStack
from .message import MessageContext, fresh_context

__all__ = ["EARLY", "Ahead", "EarlyMarks", "First"]

EARLY = "_greentaps.earlyData"


class First(NamedTuple):
    """A Message that may be sent before there is a Connection: whole, and safely replayable."""

    data: bytes
    context: MessageContext | None  # for the framers


class Ahead(FramerHost):
    """A first Message on its way over one candidate: the host of its framers, until there is a
    transport.

    `data` is what is to go over the wire, with what the framers say before it; `stack` the framers,
    which have started.  `usable` says whether all that was possible without an answer of the peer;
    if not, this object is to be forgotten, and framers start when there is a transport.
    """

    data: bytes | memoryview

    def __init__(self, first: First, framers: Sequence[Framer], hostname: str | None) -> None:
        self._hostname = hostname
        self._written: list[bytes] = []
        self.stack: FramerStack | None = None
        self.usable = True
        if not framers:
            self.data = first.data
            return
        self.stack = FramerStack(framers, self)
        self.stack.start()
        self.usable = self.stack.ready and self._frame(first)
        self.data = self._take_written()

    def _frame(self, first: First) -> bool:
        assert self.stack is not None
        try:
            self.stack.send(first.data, first.context, True)
        except Exception:  # who sends it in the usual way is told
            return False
        return self.stack.error is None

    def _take_written(self) -> bytes:
        written, self._written = self._written, []
        return b"".join(written)

    def sent(self, rest: bytes | memoryview) -> bool:
        """Of `data` only *rest* is left; returns whether some of it has gone."""
        gone = len(rest) < len(self.data)
        self.data = rest
        return gone

    def take_rest(self) -> bytes | memoryview:
        """What is left of `data`, and what the framers have written since."""
        written = self._take_written()
        return b"".join((self.data, written)) if written else self.data

    # -- From the framers --

    def write(self, data: Any) -> None:
        self._written.append(bytes(data))

    def new_context(self, below: Any = None) -> MessageContext:
        return fresh_context(below)

    def get_property(self, name: str, default: Any = None) -> Any:
        return self._hostname if name == "hostname" and self._hostname else default

    def framers_failed(self, error: Exception) -> None:
        pass  # the stack knows, which is looked at when there is a transport


class EarlyMarks:
    """Stands between a transport, the framers and their Connection while Messages arrive that may
    have come with the establishment, and marks these (RFC 9622 section 9.3.3.2).

    *size* is how many of the bytes to come may have come so.  It goes away by itself.
    """

    def __init__(self, connection: Any, framers: FramerStack, size: int) -> None:
        self._connection = connection
        self._framers = framers
        self._left = size
        self._over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def data_received(self, data: bytes) -> None:
        """From the transport."""
        connection = self._connection
        early, data = data[: self._left], data[self._left :]
        if early:
            if self._framers.passthrough:  # what follows is one Message, and does not come by us
                connection.marked_early(None, False)
            connection.data_received(early)
            self._left -= len(early)
        self.step_aside()
        if data:
            connection.data_received(data)
            self.step_aside()

    def step_aside(self) -> None:
        """Be gone, if all that may be early has become Messages."""
        if self._left > 0:
            return
        if self._over or self._framers.at_boundary:
            self._over = True
            self._connection.no_more_is_early(self)

    def deliver(self, data: bytes, context: Any, end_of_message: bool) -> None:
        """From the framers."""
        if not self._over:
            context = self._connection.marked_early(context, end_of_message)
            self._over = end_of_message and self._left <= 0
        self._connection.deliver(data, context, end_of_message)
