"""The inbox of a Connection: what has arrived and nobody has asked for yet.  Pure.

Pieces of Messages go in at one end, in order; whole Messages, or as much of one as is wanted, come
out at the other.  No operation costs more as the inbox grows.

It is bounded by its size, and what a peer can fill it with need not be data: a million empty
Messages are a million objects.  So each piece counts for more than its bytes.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Any

__all__ = ["PIECE_COST", "Inbox"]

# What a piece takes beside its data, in bytes: a tuple, the head of a bytes object, their places.
PIECE_COST = 128

Piece = tuple[bytes, Any, bool]  # data, context, end of message


class Inbox:
    """`size` is how much is held, in bytes: the data, and `PIECE_COST` for each piece."""

    __slots__ = ("_head_ended", "_head_size", "_pieces", "size")

    def __init__(self) -> None:
        # A tuple of one piece or none, which is the usual case, or a deque.
        self._pieces: tuple[Piece, ...] | deque[Piece] = ()
        self._head_size = 0  # bytes that are here of the first Message
        self._head_ended = False  # ... and whether that is all of it
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def put(self, data: bytes, context: Any, end_of_message: bool) -> None:
        """Add the next piece."""
        size = len(data)
        self.size += size + PIECE_COST
        if not self._pieces:
            self._pieces = ((data, context, end_of_message),)
            self._head_size = size
            self._head_ended = end_of_message
            return
        self._several().append((data, context, end_of_message))
        if not self._head_ended:
            self._head_size += size
            self._head_ended = end_of_message

    def put_back(self, data: bytes, context: Any, end_of_message: bool, position: int = 0) -> None:
        """Undo a `take` whose result nobody wanted after all.  *position* is how many pieces that
        were put back already go before this one."""
        if position:
            self._several().insert(position, (data, context, end_of_message))
            self.size += len(data) + PIECE_COST
            self._next_head()
            return
        if end_of_message:
            self._head_size = len(data)
            self._head_ended = True
        else:
            self._head_size += len(data)
        self._several().appendleft((data, context, end_of_message))
        self.size += len(data) + PIECE_COST

    def take(self, minimum: float = inf, maximum: float = inf) -> Piece | None:
        """The first Message, or what there is of it.

        None if fewer than *minimum* bytes of it are here and it has not ended.  Never more than
        *maximum* bytes: the rest stays for the next call.
        """
        if not self._head_ended and (self._head_size < minimum or not self._pieces):
            return None
        if self._head_size <= maximum:
            if type(self._pieces) is tuple:
                (piece,) = self._pieces
                self._pieces = ()
                self.size = self._head_size = 0
                self._head_ended = False
                return piece
            wanted = self._head_size
            ended = self._head_ended
        else:
            wanted = int(maximum)
            ended = False
        pieces = self._several()
        data, context, end = pieces.popleft()
        self.size -= wanted + PIECE_COST
        if len(data) != wanted or end is not ended:
            data = self._gather(data, context, end, wanted, ended)
        if not pieces:
            self._pieces = ()
            self._head_size = 0
            self._head_ended = False
        elif ended:
            self._next_head()
        else:
            self._head_size -= wanted
        return (data, context, ended)

    def mark_head(self, context: Any) -> None:
        """Give the first piece a context."""
        pieces = self._several()
        data, _, end = pieces[0]
        pieces[0] = (data, context, end)

    def _gather(self, data: bytes, context: Any, end: bool, wanted: int, ended: bool) -> bytes:
        """Join pieces until there are *wanted* bytes, and the end if that is *ended*."""
        pieces = self._several()
        parts = []
        while True:
            if len(data) > wanted or (len(data) == wanted and end and not ended):
                pieces.appendleft((data[wanted:], context, end))
                self.size += PIECE_COST
                parts.append(data[:wanted])
                break
            parts.append(data)
            wanted -= len(data)
            if end or (not wanted and not ended):
                break
            data, context, end = pieces.popleft()
            self.size -= PIECE_COST
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _several(self) -> deque[Piece]:
        """The pieces, as something that more can be put into."""
        pieces = self._pieces
        if not isinstance(pieces, deque):
            pieces = self._pieces = deque(pieces)
        return pieces

    def _next_head(self) -> None:
        self._head_size = 0
        self._head_ended = False
        for data, _, end in self._pieces:
            self._head_size += len(data)
            if end:
                self._head_ended = True
                break
