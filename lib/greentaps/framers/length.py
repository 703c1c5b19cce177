"""Length-prefix framing: a fixed-size length, then so many bytes of Message."""

from __future__ import annotations

from typing import Any, Literal

from . import Framer, FramerLink

__all__ = ["LengthPrefixFramer"]

# Up to here one joined write is cheaper than two; above, copying the data costs more.
_JOIN_LIMIT = 16384  # bytes


class LengthPrefixFramer(Framer):
    """Each Message goes behind its length in *width* bytes (1, 2, 4 or 8), in *byteorder* ("big"
    or "little").

    *max_length* (bytes, None for what the prefix can say) is the longest Message that is sent or
    accepted; a longer one from the peer fails the Connection before any of it is delivered.
    Messages longer than what is at hand are delivered piece by piece, and not held here.
    """

    def __init__(
        self,
        width: int = 4,
        byteorder: Literal["big", "little"] = "big",
        max_length: int | None = None,
    ) -> None:
        if width not in (1, 2, 4, 8):
            raise ValueError(f"width must be 1, 2, 4 or 8 bytes, not {width!r}")
        if byteorder not in ("big", "little"):
            raise ValueError(f"byteorder must be 'big' or 'little', not {byteorder!r}")
        possible = 256**width - 1
        if max_length is not None and not 0 <= max_length <= possible:
            raise ValueError(f"max_length must be from 0 to {possible}: {max_length!r}")
        self.width = width
        self.byteorder: Literal["big", "little"] = byteorder
        self.max_length = possible if max_length is None else max_length

    def new_sent_message(
        self, link: FramerLink, data: bytes, context: Any, end_of_message: bool
    ) -> None:
        """The length must come first, so the parts of a Message are kept until its end."""
        if link.state is not None or not end_of_message:
            parts = link.state or []
            parts.append(bytes(data))
            if sum(map(len, parts)) > self.max_length:
                link.state = None
                raise ValueError(f"a Message may have {self.max_length} bytes at most")
            if not end_of_message:
                link.state = parts
                return
            link.state = None
            data = b"".join(parts)
        length = len(data)
        if length > self.max_length:
            raise ValueError(f"a Message may have {self.max_length} bytes at most, not {length}")
        prefix = length.to_bytes(self.width, self.byteorder)
        if length <= _JOIN_LIMIT:
            link.send(prefix + data)
        else:
            link.send(prefix)
            link.send(data)

    def handle_received_data(self, link: FramerLink) -> None:
        prefix = link.parse(self.width, self.width)
        if prefix is None:
            return
        length = int.from_bytes(prefix, self.byteorder)
        if length > self.max_length:
            raise ValueError(f"the peer announces {length} bytes, more than {self.max_length}")
        link.advance_receive_cursor(self.width)
        link.deliver_and_advance_receive_cursor(None, length)
