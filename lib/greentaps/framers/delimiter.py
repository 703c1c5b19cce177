"""Delimiter framing: a Message ends where certain bytes stand, at the end of a line for example.

The second family of RFC 9623 section 6.  Nothing escapes the delimiter, so a Message that contains
it cannot be sent, and that is checked rather than hoped for: what a Message must not contain is
also what an attacker would like to put into it.  The check covers the seams: between two parts
of a Message, and between its last bytes and the delimiter (a Message that ends in ``a`` in front of
the delimiter ``aa``).

On the way in the end of a Message shows only when it is there, so an incomplete Message is held,
up to *max_length*.  Bytes are searched once, however many pieces they arrive in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Buffer, DeframingError, Framer, FramingError, MessageTooLongError
from .length import JOIN_LIMIT

if TYPE_CHECKING:
    from .stack import FramerLink

__all__ = ["DelimiterFramer", "LineFramer"]


class _State:
    """What a framer remembers of one Connection."""

    __slots__ = ("cut", "searched", "sent", "tail")

    def __init__(self) -> None:
        self.searched = 0  # so many bytes at the cursor need not be searched again
        self.sent = 0  # the size of the sender's Message so far
        self.tail = b""  # ... and its last bytes, where they could begin a delimiter
        self.cut = False  # ... of which the end will not come


class DelimiterFramer(Framer):
    """Each Message is followed by *delimiter* (bytes, at least one), which it must not contain.

    *max_length* (bytes) is the longest Message, without its delimiter, that is sent or accepted.
    With *allow_unterminated* the end of the stream ends a last Message too; otherwise a stream
    that ends without a delimiter has been cut, and that is an error.

    Raises TypeError and ValueError for arguments that are none of these.
    """

    def __init__(
        self,
        delimiter: bytes = b"\n",
        max_length: int = 65536,
        *,
        allow_unterminated: bool = False,
    ) -> None:
        if not isinstance(delimiter, bytes):
            raise TypeError(f"a delimiter is bytes, not {delimiter!r}")
        if not delimiter:
            raise ValueError("a delimiter must have at least one byte")
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1 byte: {max_length!r}")
        self.delimiter = delimiter
        self.max_length = max_length
        self.allow_unterminated = allow_unterminated
        self._seam = len(delimiter) - 1  # how many bytes of a delimiter may hide at an end
        self._furthest = max_length + len(delimiter)

    def start(self, link: FramerLink) -> None:
        """Nothing has been sent or searched."""
        link.state = _State()

    # -- Sending --

    def new_sent_message(
        self, link: FramerLink, data: Buffer, context: Any, end_of_message: bool
    ) -> None:
        """Check the Message and send it with the delimiter.  Parts go out as they come."""
        if not isinstance(data, bytes):
            data = bytes(data)
        state = link.state
        if not end_of_message or state.sent:
            self._send_part(link, state, data, end_of_message)
            return
        if len(data) > self.max_length:
            raise self._too_long()
        delimiter = self.delimiter
        if delimiter in data:
            raise self._contained()
        if self._seam and (data[-self._seam :] + delimiter).find(delimiter) < min(
            self._seam, len(data)
        ):
            raise self._contained()
        if len(data) <= JOIN_LIMIT:
            link.send(data + delimiter)
        else:
            link.send(data)
            link.send(delimiter)

    def _send_part(
        self, link: FramerLink, state: _State, data: bytes, end_of_message: bool
    ) -> None:
        if state.cut:
            raise self._cut()
        if state.sent + len(data) > self.max_length:
            raise self._too_long()
        seam = self._seam
        delimiter = self.delimiter
        joined = state.tail + data
        whole = joined + delimiter if end_of_message else joined
        at = whole.find(delimiter)
        if at >= 0 and (at < len(joined) or not end_of_message):
            raise self._contained()
        if end_of_message:
            state.sent = 0
            state.tail = b""
            link.send(data + delimiter)
            return
        state.sent += len(data)
        state.tail = joined[-seam:] if seam else b""
        if data:
            link.send(data)

    def forget_sent(self, link: FramerLink, *, left: bool) -> None:
        """Nothing can follow bytes that have left without their delimiter."""
        state = link.state
        if left and state.sent:
            state.cut = True
        else:
            state.sent = 0
            state.tail = b""

    def _cut(self) -> FramingError:
        return FramingError("a Message has begun to leave, and its end could not be sent")

    def _too_long(self) -> MessageTooLongError:
        return MessageTooLongError(f"a Message may have {self.max_length} bytes at most")

    def _contained(self) -> FramingError:
        return FramingError(
            f"a Message must not contain the delimiter {self.delimiter!r}, not at its end either"
        )

    # -- Receiving --

    def handle_received_data(self, link: FramerLink) -> None:
        """Look for the delimiter where it has not been looked for."""
        state = link.state
        at = link.find(self.delimiter, state.searched, self._furthest)
        if at < 0:
            received = link.received
            if received >= self._furthest:
                raise DeframingError(
                    f"no delimiter within {self.max_length} bytes of a Message's beginning"
                )
            state.searched = max(received - self._seam, 0)
            return
        state.searched = 0
        self._received(link, at)

    def _received(self, link: FramerLink, length: int) -> None:
        """A Message of *length* bytes is at the cursor, and the delimiter behind it."""
        link.deliver_and_advance_receive_cursor(None, length)
        link.advance_receive_cursor(len(self.delimiter))

    def handle_end(self, link: FramerLink) -> None:
        """What is left is the last Message, if that is allowed."""
        if self.allow_unterminated and link.received:
            link.deliver_and_advance_receive_cursor(None, link.received)
        super().handle_end(link)

    def forget_received(self, link: FramerLink) -> None:
        """Nothing has been searched."""
        link.state.searched = 0


class LineFramer(DelimiterFramer):
    """Each Message is a line.  On the way in ``\\n`` and ``\\r\\n`` both end one; on the way out
    *newline* does, which is ``b"\\r\\n"`` (what Internet protocols want) or ``b"\\n"``.

    A line must not contain ``\\n``; nor, with the short newline, end in ``\\r``, which would be
    taken for half of an ending.  *max_length* (bytes, without the ending) and
    *allow_unterminated* are those of `DelimiterFramer`.
    """

    def __init__(
        self,
        newline: bytes = b"\r\n",
        max_length: int = 65536,
        *,
        allow_unterminated: bool = False,
    ) -> None:
        if newline not in (b"\r\n", b"\n"):
            raise ValueError(f"a line ends in b'\\r\\n' or b'\\n', not {newline!r}")
        super().__init__(b"\n", max_length, allow_unterminated=allow_unterminated)
        self.newline = newline
        self._furthest = max_length + 2

    def new_sent_message(
        self, link: FramerLink, data: Buffer, context: Any, end_of_message: bool
    ) -> None:
        """Check the line, and send it with the newline."""
        if not isinstance(data, bytes):
            data = bytes(data)
        state = link.state
        if state.cut:
            raise self._cut()
        size = state.sent + len(data)
        if size > self.max_length:
            raise self._too_long()
        if b"\n" in data:
            raise self._contained()
        if not end_of_message:
            state.sent = size
            state.tail = data[-1:] or state.tail
            if data:
                link.send(data)
            return
        if len(self.newline) == 1 and (data[-1:] or state.tail) == b"\r":
            raise FramingError("a line must not end in \\r if \\n alone ends it")
        state.sent = 0
        state.tail = b""
        link.send(data + self.newline)

    def _received(self, link: FramerLink, length: int) -> None:
        line = link.parse(length, length)
        if line is None:
            return
        if line.endswith(b"\r"):
            line = line[:-1]
        if len(line) > self.max_length:
            raise DeframingError(f"a line of more than {self.max_length} bytes")
        link.advance_receive_cursor(length + 1)
        link.deliver(None, line)
