"""Type-length-value framing: each Message carries a small number that says what it is.

The "simple TLV framer", and the example of how a framer uses metadata (RFC 9622 section 9.1.2.2):
the type does not stand in the Message's data but beside it, in its MessageContext::

    framer = TlvFramer()
    context = MessageContext().add(framer, "type", 7)
    connection.send(b"...", context)
    ...
    message.context.get(framer, "type")     # 7 at the other end

Older programs know it as ``ExampleFramer``, from a TAPS library that came before RFC 9622.  Its
framers had one handler of another form: ``new_sent_message(connection, message_data,
message_context, sent_handler, is_end_of_message)``.  Here that is RFC 9623's, without the
*sent_handler*: the Sent event is the Connection's affair.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Literal

from .base import Buffer, DeframingError, Framer, FramingError, MessageTooLongError
from .length import JOIN_LIMIT

if TYPE_CHECKING:
    from .stack import FramerLink

__all__ = ["ExampleFramer", "TlvFramer"]

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_ORDERS = {"big": ">", "little": "<"}


class _Partial:
    """A Message that is being sent in parts."""

    __slots__ = ("kind", "parts", "size")

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.parts: list[bytes] = []
        self.size = 0


class TlvFramer(Framer):
    """Each Message goes behind its type and its length, of *type_width* and *length_width* bytes
    (1, 2, 4 or 8), in *byteorder* ("big" or "little").

    The type is the metadatum ``"type"`` (int), and *default_type* where the sender gives none.
    *max_length* (bytes, None for what the length can say) is the longest Message that is sent or
    accepted.  Long Messages are delivered piece by piece, and not held here.

    Raises ValueError for arguments that are none of these.
    """

    def __init__(
        self,
        type_width: int = 1,
        length_width: int = 4,
        byteorder: Literal["big", "little"] = "big",
        *,
        default_type: int = 0,
        max_length: int | None = None,
    ) -> None:
        for width in (type_width, length_width):
            if width not in _CODES:
                raise ValueError(f"a width must be 1, 2, 4 or 8 bytes, not {width!r}")
        if byteorder not in _ORDERS:
            raise ValueError(f"byteorder must be 'big' or 'little', not {byteorder!r}")
        possible = 256**length_width - 1
        if max_length is not None and not 0 <= max_length <= possible:
            raise ValueError(f"max_length must be from 0 to {possible}: {max_length!r}")
        self.max_length = possible if max_length is None else max_length
        self.max_type = 256**type_width - 1
        self._header = Struct(_ORDERS[byteorder] + _CODES[type_width] + _CODES[length_width])
        self.default_type = self._checked(default_type)

    def _checked(self, kind: Any) -> int:
        if isinstance(kind, bool) or not isinstance(kind, int) or not 0 <= kind <= self.max_type:
            raise FramingError(f"a type must be a number from 0 to {self.max_type}, not {kind!r}")
        return kind

    def new_sent_message(
        self, link: FramerLink, data: Buffer, context: Any, end_of_message: bool
    ) -> None:
        """Send type, length and data.  The parts of a Message are kept until its end; its type is
        the one that came with the first part."""
        partial: _Partial | None = link.state
        if partial is not None:
            kind = partial.kind
        else:
            kind = self.default_type
            given = None if context is None else context.get(self, "type")
            if given is not None:
                kind = self._checked(given)
        length = len(data)
        if partial is not None or not end_of_message:
            if partial is None:
                partial = _Partial(kind)
            link.state = None
            length += partial.size
        if length > self.max_length:
            raise MessageTooLongError(
                f"a Message may have {self.max_length} bytes at most, not {length}"
            )
        if partial is not None:
            partial.size = length
            partial.parts.append(bytes(data))
            if not end_of_message:
                link.state = partial
                return
            data = b"".join(partial.parts)
        header = self._header.pack(kind, length)
        if length <= JOIN_LIMIT:
            link.send(header + data)
        else:
            link.send(header)
            link.send(data)

    def forget_sent(self, link: FramerLink, *, left: bool) -> None:
        """Drop the parts."""
        link.state = None

    def handle_received_data(self, link: FramerLink) -> None:
        """Take type and length, and have so many bytes delivered."""
        header = link.take(self._header.size)
        if header is None:
            return
        kind, length = self._header.unpack(header)
        if length > self.max_length:
            raise DeframingError(
                f"the peer announces a Message of {length} bytes, more than {self.max_length}"
            )
        context = link.new_context()
        context.add(self, "type", kind)
        link.deliver_and_advance_receive_cursor(context, length)


# The name that programs written for an older TAPS library use.
ExampleFramer = TlvFramer
