"""Netstrings: the length in decimal digits, a colon, the Message, a comma: ``5:hello,``.

The length stands in front, as in ``length``, so nothing need be escaped or searched for; yet a
person can read it, and the comma shows at once when the two ends have lost step.  Read strictly:
no sign, no space, no leading zero, so that each Message has one form only.

A Message of which the end is here is delivered with its comma checked.  Of a longer one the bytes
are delivered as they come; its end only when the comma has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Buffer, DeframingError, Framer, MessageTooLongError
from .length import JOIN_LIMIT

if TYPE_CHECKING:
    from .stack import FramerLink

__all__ = ["NetstringFramer"]

_DIGITS = frozenset(b"0123456789")


class _State:
    """What the framer remembers of one Connection."""

    __slots__ = ("comma", "parts", "size")

    def __init__(self) -> None:
        self.comma = False  # the next byte must be the comma of a Message that was delivered
        self.parts: list[bytes] | None = None  # of a Message that is sent in parts
        self.size = 0


class NetstringFramer(Framer):
    """Each Message is a netstring.

    *max_length* (bytes) is the longest Message that is sent or accepted.  Raises ValueError if it
    is negative.
    """

    def __init__(self, max_length: int = 2**32 - 1) -> None:
        if max_length < 0:
            raise ValueError(f"max_length must not be negative: {max_length!r}")
        self.max_length = max_length
        self._most_digits = len(str(max_length))

    def start(self, link: FramerLink) -> None:
        """Nothing has been sent or received."""
        link.state = _State()

    def new_sent_message(
        self, link: FramerLink, data: Buffer, context: Any, end_of_message: bool
    ) -> None:
        """Send length, colon, data, comma.  The parts of a Message are kept until its end."""
        state = link.state
        if state.parts is not None or not end_of_message:
            parts = state.parts or []
            state.parts = None
            state.size += len(data)
            if state.size > self.max_length:
                state.size = 0
                raise self._too_long()
            parts.append(bytes(data))
            if not end_of_message:
                state.parts = parts
                return
            state.size = 0
            data = b"".join(parts)
        length = len(data)
        if length > self.max_length:
            raise self._too_long()
        if length <= JOIN_LIMIT:
            link.send(b"%d:" % length + data + b",")
        else:
            link.send(b"%d:" % length)
            link.send(data)
            link.send(b",")

    def forget_sent(self, link: FramerLink, *, left: bool) -> None:
        """Drop the parts."""
        link.state.parts = None
        link.state.size = 0

    def _too_long(self) -> MessageTooLongError:
        return MessageTooLongError(f"a Message may have {self.max_length} bytes at most")

    def handle_received_data(self, link: FramerLink) -> None:
        """Read a length and deliver what follows; or check the comma of what was delivered."""
        state = link.state
        if state.comma:
            if link.take(1) != b",":
                raise DeframingError("a netstring does not end in a comma")
            state.comma = False
            link.deliver(None, b"")
            return
        colon = link.find(b":", 0, self._most_digits + 1)
        if colon < 0:
            self._check_digits(link.parse(0, self._most_digits + 1) or b"")
            return
        digits = link.parse(colon, colon) or b""
        self._check_digits(digits)
        if not digits:
            raise DeframingError("a netstring begins without a length")
        length = int(digits)
        if length > self.max_length:
            raise DeframingError(
                f"the peer announces a Message of {length} bytes, more than {self.max_length}"
            )
        behind = colon + 1 + length
        if link.received > behind:
            if link.find(b",", behind, behind + 1) < 0:
                raise DeframingError("a netstring does not end in a comma")
            link.advance_receive_cursor(colon + 1)
            link.deliver_and_advance_receive_cursor(None, length)
            link.advance_receive_cursor(1)
            return
        link.advance_receive_cursor(colon + 1)
        state.comma = True
        link.deliver_and_advance_receive_cursor(None, length, end_of_message=False)

    def forget_received(self, link: FramerLink) -> None:
        """No comma is due."""
        link.state.comma = False

    def _check_digits(self, digits: bytes) -> None:
        """Refuse what cannot be, or become, a length."""
        if not _DIGITS.issuperset(digits) or (len(digits) > 1 and digits[0] == 0x30):
            raise DeframingError(f"a netstring begins with {digits!r}, which is no length")
        if len(digits) > self._most_digits:
            raise DeframingError(f"a netstring is longer than {self.max_length} bytes")
