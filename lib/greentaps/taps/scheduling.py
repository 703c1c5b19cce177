"""Whose turn it is to send in a Connection Group (RFC 9622 sections 7.4, 8.1.5 and 9.2.6).  Pure.

The members of a group over TCP or UDP are connections of their own, and the kernel serves them
alike.  What can be put in order is what waits in this process: while a member has Messages queued
and comes first, the others keep theirs, and so leave it the way.  Who comes first is for
connScheduler to say, by connPriority; `_KEYS` has the rules of RFC 8260 section 3.

A member that comes first and does not get on, since its peer does not read, must not keep the
others for ever: after `PATIENCE` without progress they go on without it.

Turns are taken only in a group where it makes a difference: that has members of different
priority, or whose scheduler was chosen.  In other groups there is no `Turns`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from .properties import Scheduler

__all__ = ["PATIENCE", "UNSENT_LIMIT", "ConnectionGroup", "Turns"]

PATIENCE = 0.1  # seconds that others wait for a member that does not get on
# How much of a member's data may wait in the kernel, where no order is kept, while turns are taken.
UNSENT_LIMIT = 131072  # bytes
_QUANTUM = 65536  # bytes that one may be ahead of another, where bytes are shared


class _Share:
    """What one member has had, and when it last got on."""

    __slots__ = ("had", "messages", "moved", "numbers", "priority")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.numbers: deque[int] = deque()  # of the Messages that wait, in the order of the group
        self.messages = 0
        self.had = 0  # bytes, each counted as often as the scheduler says
        self.moved = 0.0


_KEYS: dict[Scheduler, Callable[[_Share], float]] = {
    Scheduler.FIRST_COME_FIRST_SERVED: lambda share: share.numbers[0] if share.numbers else inf,
    Scheduler.ROUND_ROBIN: lambda share: share.messages,
    Scheduler.ROUND_ROBIN_PER_PACKET: lambda share: share.had // _QUANTUM,
    Scheduler.PRIORITY_BASED: lambda share: share.priority,
    Scheduler.FAIR_CAPACITY: lambda share: share.had // _QUANTUM,
    # Who is twice as important has had twice as much when they are even.
    Scheduler.WEIGHTED_FAIR_QUEUEING: lambda share: share.had * (share.priority + 1) // _QUANTUM,
}


class Turns:
    """The turns of one group.  *scheduler* is its connScheduler.

    Members are whatever the caller uses for them; those that have something to send are told by
    `queued`, and until `done`.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._key = _KEYS[scheduler]
        self._shares: dict[Any, _Share] = {}
        self._waiting: dict[Any, _Share] = {}
        self._count = 0

    def set_priority(self, member: Any, priority: int) -> None:
        """*member* is in the group, with this connPriority."""
        share = self._shares.get(member)
        if share is None:
            self._shares[member] = _Share(priority)
        else:
            share.priority = priority

    def remove(self, member: Any) -> None:
        """*member* is not in the group any more."""
        self._shares.pop(member, None)
        self._waiting.pop(member, None)

    def queued(self, member: Any, now: float) -> None:
        """*member* has one more Message to send."""
        self._count += 1
        share = self._shares[member]
        share.numbers.append(self._count)
        if member not in self._waiting:
            share.moved = now
            # What it did not want while it was idle, it cannot claim now.
            for name in ("messages", "had"):
                others = [getattr(other, name) for other in self._waiting.values()]
                if others:
                    setattr(share, name, max(getattr(share, name), min(others)))
            self._waiting[member] = share

    def sent(self, member: Any, size: int, now: float) -> None:
        """A Message of *size* bytes of *member*'s has been handed down."""
        share = self._shares[member]
        if share.numbers:
            share.numbers.popleft()
        share.messages += 1
        share.had += size
        share.moved = now

    def moved(self, member: Any, now: float) -> None:
        """The system has taken what *member* had handed down."""
        share = self._shares.get(member)
        if share is not None:
            share.moved = now

    def done(self, member: Any) -> None:
        """*member* has nothing to send any more."""
        share = self._waiting.pop(member, None)
        if share is not None:
            share.numbers.clear()

    def may_send(self, member: Any, now: float) -> bool:
        """Whether it is *member*'s turn, or nobody else's."""
        mine = self._key(self._shares[member])
        return not any(
            other is not member and self._key(share) < mine and now - share.moved < PATIENCE
            for other, share in self._waiting.items()
        )


class ConnectionGroup(list[Any]):
    """The Connections of a group, and their turns if they take any.  *timer* is the one that lets
    those that were kept waiting look again."""

    __slots__ = ("passing", "passing_again", "timer", "turns")

    def __init__(self, members: list[Any]) -> None:
        super().__init__(members)
        self.turns: Turns | None = None
        self.timer: Any = None
        self.passing = False  # the members are being asked whether they can go on
        self.passing_again = False  # ... and something has changed since
