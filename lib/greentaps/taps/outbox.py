"""The outbox of a Connection: Messages that wait for their turn to be sent.  Pure.

It decides the order (RFC 9622 section 9.1.3): Messages of a lower ``msgPriority`` number first,
equal ones as they came, the final one behind all.  The parts of one Message stay together: once its
first part is on its way, nothing else goes before its end.  A Message whose lifetime is over before
its first part has left is expired, and so are all of its parts, also those still to come.

Time is passed in; nothing is sent from here.
"""

from __future__ import annotations

import heapq
from collections import deque
from math import inf
from typing import Any

__all__ = ["Outbox", "Outgoing"]


class Outgoing:
    """One Send: the data, and whom to tell.

    *expires_at* is on the clock that `Outbox` is given; *owner* is whatever the Connection wants
    to find here again.
    """

    __slots__ = ("context", "data", "end", "expires_at", "final", "owner", "priority")

    def __init__(
        self,
        data: Any,
        context: Any,
        end: bool,
        owner: Any = None,
        *,
        priority: int = 100,
        expires_at: float = inf,
        final: bool = False,
    ) -> None:
        self.data = data
        self.context = context
        self.end = end
        self.owner = owner
        self.priority = priority
        self.expires_at = expires_at
        self.final = final


class _Series:
    """The parts of one Message."""

    __slots__ = ("context", "ended", "expires_at", "key", "parts", "waits")

    def __init__(self, first: Outgoing, number: int) -> None:
        self.parts: deque[Outgoing] = deque()
        self.context = first.context  # which nobody else can have the id of meanwhile
        self.ended = False
        self.waits = True  # has neither begun to leave, nor been taken out
        self.expires_at = first.expires_at
        self.key = (first.final, first.priority, number)

    def __lt__(self, other: _Series) -> bool:
        return self.key < other.key


class Outbox:
    """`size` is the number of bytes that wait."""

    __slots__ = (
        "_broken",
        "_count",
        "_current",
        "_expired",
        "_expiries",
        "_open",
        "_waiting",
        "size",
    )

    def __init__(self) -> None:
        self._waiting: list[_Series] = []  # a heap
        # A heap of those that expire; what is in it and does not wait any more is passed over.
        self._expiries: list[tuple[float, int, _Series]] = []
        self._current: _Series | None = None  # begun, and not ended
        self._open: dict[int, _Series] = {}  # by context: Messages whose end was not handed in
        self._expired: dict[int, Any] = {}  # contexts of expired Messages that have not ended
        self._broken: dict[int, Any] = {}  # ... and of those that were given up
        self._count = 0
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._waiting) or (self._current is not None and bool(self._current.parts))

    def __len__(self) -> int:
        waiting = sum(len(series.parts) for series in self._waiting)
        return waiting + (len(self._current.parts) if self._current else 0)

    @property
    def sending_parts(self) -> bool:
        """Whether a Message has begun to leave and its end has not."""
        return self._current is not None

    def push(self, item: Outgoing) -> bool:
        """Take *item*.  False if it belongs to a Message that has expired already."""
        key = id(item.context)
        if item.context is not None and key in self._expired:
            if item.end:
                del self._expired[key]
            return False
        series = self._open.get(key) if item.context is not None else None
        if series is None:
            self._count += 1
            series = _Series(item, self._count)
            heapq.heappush(self._waiting, series)
            if series.expires_at != inf:
                heapq.heappush(self._expiries, (series.expires_at, self._count, series))
            if not item.end and item.context is not None:
                self._open[key] = series
        series.parts.append(item)
        series.ended = item.end or item.context is None
        if series.ended:
            self._open.pop(key, None)
        self.size += len(item.data)
        return True

    def pop(self) -> Outgoing | None:
        """The next item to send; None if there is none, or if the Message that is being sent
        waits for its next part."""
        series = self._current
        if series is None:
            if not self._waiting:
                return None
            series = self._current = heapq.heappop(self._waiting)
            series.waits = False
        if not series.parts:
            return None
        item = series.parts.popleft()
        self.size -= len(item.data)
        if series.ended and not series.parts:
            self._current = None
        return item

    def give_up(self, item: Outgoing) -> list[Outgoing]:
        """*item*, which was popped last, could not be sent: remove and return the parts of its
        Message that wait.  Those still to come are `given_up`."""
        series, self._current = self._current, None
        if series is None:  # it was the last part
            return []
        if not series.ended:
            self._open.pop(id(item.context), None)
            self._broken[id(item.context)] = item.context
        return self._parts_of(series)

    def has_part_of(self, context: Any) -> bool:
        """Whether parts of the Message of *context* were handed in, but not its end."""
        return id(context) in self._open

    def refuse(self, context: Any, end: bool) -> list[Outgoing]:
        """A part of the Message of *context*, its last one if *end*, was not handed in, since it
        cannot be sent: remove and return the parts that wait.  Those still to come are
        `given_up`."""
        if not end:
            self._broken[id(context)] = context
        series = self._open.pop(id(context), None)
        if series is None:
            return []
        if series is self._current:
            self._current = None
        else:
            series.waits = False
            self._waiting.remove(series)
            heapq.heapify(self._waiting)
        return self._parts_of(series)

    def _parts_of(self, series: _Series) -> list[Outgoing]:
        items = list(series.parts)
        self.size -= sum(len(one.data) for one in items)
        return items

    def given_up(self, item: Outgoing) -> bool:
        """Whether *item* is a part of a Message of which an earlier part could not be sent."""
        key = id(item.context)
        if not self._broken or key not in self._broken:
            return False
        if item.end:
            del self._broken[key]
        return True

    def expire(self, now: float) -> list[Outgoing]:
        """Remove and return every item of a Message whose lifetime is over."""
        over = []
        while self.next_expiry() <= now:
            series = heapq.heappop(self._expiries)[2]
            series.waits = False
            over.append(series)
        if not over:
            return []
        self._waiting = [series for series in self._waiting if series.waits]
        heapq.heapify(self._waiting)
        items = [item for series in sorted(over) for item in series.parts]
        for series in over:
            if not series.ended:
                context = series.parts[0].context
                self._open.pop(id(context), None)
                self._expired[id(context)] = context
        self.size -= sum(len(item.data) for item in items)
        return items

    def next_expiry(self) -> float:
        """When `expire` will next have something to do; infinity if never."""
        expiries = self._expiries
        while expiries and not expiries[0][2].waits:
            heapq.heappop(expiries)
        return expiries[0][0] if expiries else inf

    def withdraw(self, item: Outgoing) -> bool:
        """Take *item* back, if its Message has not begun to leave; whether that was possible."""
        for series in self._waiting:
            if item in series.parts and len(series.parts) == 1 and series.ended:
                self._waiting.remove(series)
                series.waits = False
                heapq.heapify(self._waiting)
                self.size -= len(item.data)
                return True
        return False

    def clear(self) -> list[Outgoing]:
        """Remove and return everything, in the order in which it would have been sent."""
        items = list(self._current.parts) if self._current else []
        items += [item for series in sorted(self._waiting) for item in series.parts]
        self._waiting = []
        self._expiries = []
        self._current = None
        self._open.clear()
        self._expired.clear()
        self._broken.clear()
        self.size = 0
        return items
