"""Rate limits (RFC 9622 section 8.1.8): never more than so many bits in any second.  Pure."""

from __future__ import annotations

import sys
from collections import deque
from math import inf

__all__ = ["RateLimit"]

_WINDOW = 1.0  # seconds


class RateLimit:
    """A sliding window of one second.  *rate* is in bit/s; infinity is no limit.

    A byte is not divided: below 8 bit/s one byte passes each second.
    """

    __slots__ = ("_budget", "_spent", "_times")

    def __init__(self, rate: float) -> None:
        # Bytes in any window.
        self._budget = sys.maxsize if rate == inf else max(int(rate / 8), 1)
        self._times: deque[tuple[float, int]] = deque()
        self._spent = 0

    def allowed(self, now: float) -> int:
        """How many bytes may pass at the time *now*."""
        self._forget(now)
        return max(self._budget - self._spent, 0)

    def spend(self, size: int, now: float) -> None:
        """*size* bytes have passed at the time *now*."""
        self._times.append((now, size))
        self._spent += size

    def idle(self, now: float) -> bool:
        """Whether nothing has passed in the last second."""
        self._forget(now)
        return not self._times

    def wait(self, now: float, size: int = 1) -> float:
        """How many seconds from *now* until *size* bytes may pass, 0.0 if they may; for more than
        may ever pass in a second, until nothing has passed for one."""
        self._forget(now)
        over = self._spent - self._budget + min(size, self._budget)
        if over <= 0:
            return 0.0
        for then, passed in self._times:
            over -= passed
            if over <= 0:
                return then + _WINDOW - now
        return 0.0

    def _forget(self, now: float) -> None:
        times = self._times
        while times and times[0][0] + _WINDOW <= now:
            self._spent -= times.popleft()[1]
