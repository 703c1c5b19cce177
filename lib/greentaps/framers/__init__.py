"""Framers: bytes <-> Messages (RFC 9622 section 9.1.2, RFC 9623 section 6).

A framer gives Messages to a protocol that has none of its own, or gives it others than it has.  It
sits between the Connection and the transport::

    Connection.send            Message -> framer -> bytes -> transport
    Connection.receive         Message <- framer <- bytes <- transport

`Framer` is the class to inherit from.  It is written once and shared by all Connections of a
Preconnection, and holds no state of theirs.  For each Connection there is one `FramerLink` per
framer, which is the Connection as the framer sees it: the received bytes with their cursor, the
actions that a framer can take, and a `state` attribute for whatever the framer wants to remember.
All links of a Connection are a `FramerStack`, which is what a Connection knows of framers.

Two families (RFC 9623 section 6): the length stands before the Message (``length``, ``tlv``,
``netstring``), or something ends it (``delimiter``).  ``http1`` and ``websocket`` are whole
protocols, each on a parser of others that must be installed.

Pure: no I/O, no clock, no greenlets.  A framer never blocks; it is called when there is something,
and everything that a peer can make it hold has a limit.

The events and actions of RFC 9623 section 6 are methods of the same name in snake_case.  Events are
methods of `Framer`: ``start``, ``stop``, ``new_sent_message``, ``handle_received_data``; actions
are methods of `FramerLink`: ``send``, ``parse``, ``deliver_and_advance_receive_cursor`` and so on.
What differs: a framer is ready and closed by returning from ``start`` and ``stop``, unless it asks
for time (``delay_ready``, ``delay_closed``), so that nobody waits for a framer that has nothing to
negotiate and forgot to say so; and there is an event for the end of the stream (``handle_end``).
"""

from __future__ import annotations

from .base import Buffer, DeframingError, Framer, FramingError, MessageTooLongError
from .stack import FramerHost, FramerLink, FramerStack

__all__ = [
    "Buffer",
    "DeframingError",
    "Framer",
    "FramerHost",
    "FramerLink",
    "FramerStack",
    "FramingError",
    "MessageTooLongError",
]
