"""What a framer is: the class to inherit from, and the errors to raise.

The essay is in ``__init__.py``.  A framer holds nothing that belongs to one Connection, because
one framer serves all Connections of all Preconnections that it was added to (RFC 9622 section
9.1.2.1): that belongs in ``link.state``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import GreentapsError, ProtocolError

if TYPE_CHECKING:
    from .stack import FramerLink

__all__ = ["Buffer", "DeframingError", "Framer", "FramingError", "MessageTooLongError"]

# What an application may send.  A memoryview is one of single bytes in one row.
Buffer = bytes | bytearray | memoryview


class FramingError(GreentapsError, ValueError):
    """A Message cannot be sent in this form: raised by a framer's ``new_sent_message``, and seen
    by whoever sends."""


class MessageTooLongError(FramingError):
    """A Message has more bytes than the framer can say or allows."""


class DeframingError(ProtocolError):
    """What the peer sent is not what the framer expects (DeframingFailed in RFC 9623)."""


class Framer:
    """Base class of framers (RFC 9622 section 9.1.2, RFC 9623 section 6).

    The two handlers of data must be written, the others where needed.  *link* is the `FramerLink`
    of one Connection: RFC 9623's "connection", as far as it concerns a framer.  No handler may
    block.  A framer that raises in a handler ends the Connection, or, while it is being
    established, makes its candidate fail; only what `new_sent_message` raises goes to the sender.
    """

    def start(self, link: FramerLink) -> None:
        """A Connection, or a candidate for one, begins (section 6.1, Start).

        The place to set ``link.state`` and to ``link.send`` something.  The framer counts as ready
        when this returns, unless it has called ``link.delay_ready()``: then it is when it calls
        ``link.make_connection_ready()``.
        """

    def stop(self, link: FramerLink) -> None:
        """The Connection is being closed by us (section 6.1, Stop): the last chance to
        ``link.send`` something.

        The framer is done when this returns, unless it has called ``link.delay_closed()``: then
        when it calls ``link.make_connection_closed()``.
        """

    def new_sent_message(
        self, link: FramerLink, data: Buffer, context: Any, end_of_message: bool
    ) -> None:
        """A Message is sent, or without *end_of_message* a part of one (section 6.2,
        NewSentMessage): encode it and ``link.send`` the result.

        *data* is bytes-like and belongs to the sender: what is kept of it after the return must be
        a copy.  *context* is the MessageContext that the sender gave, or None;
        ``context.get(self, key)`` is the sender's metadatum for this framer.  Parts of one Message
        come in order, and no other Message comes between.

        Raises FramingError (or another ValueError) if the Message cannot be sent; it is dropped
        then, with those of its parts that the framer holds.
        """
        raise NotImplementedError

    def handle_received_data(self, link: FramerLink) -> None:
        """There are new bytes at the cursor (section 6.3, HandleReceivedData): look with
        ``link.parse`` or ``link.find``, deliver, and move on.

        Called again for as long as it moves the cursor and bytes are left, so it need not loop;
        a return without having moved it waits for more.  Raises DeframingError if the bytes make
        no sense.
        """
        raise NotImplementedError

    def handle_end(self, link: FramerLink) -> None:
        """The peer has ended its stream; nothing will come after what has been seen.

        As it stands it raises DeframingError unless the stream may end here (`at_boundary`).
        """
        if not self.at_boundary(link):
            raise DeframingError("the stream ended in the middle of a Message")

    def forget_received(self, link: FramerLink) -> None:
        """A datagram made no sense, and what was received of it is dropped: drop also what
        ``link.state`` remembers of it.  Never called over byte streams."""

    def forget_sent(self, link: FramerLink, *, left: bool) -> None:
        """The Message that is being sent, if there is one, will not get its end, since a part of it
        cannot be sent: drop what is held of it.  *left* says whether what the framer has sent of it
        has left; if so, and if the peer would take what comes next for its rest, the framer must
        refuse what comes next."""

    def at_boundary(self, link: FramerLink) -> bool:
        """Whether the stream may end here without cutting a Message.  As it stands: when no bytes
        are left and no Message is half delivered."""
        return link.idle
