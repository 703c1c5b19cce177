"""The race between candidates: what to start, and when (RFC 9623 section 4.3, RFC 8305).  Pure.

A `Race` is told the time and what happened, and answers which attempts to start now.  It knows
neither sockets nor greenlets nor clocks, so a race of a minute is tested in no time.
"""

from __future__ import annotations

__all__ = ["ATTEMPT_DELAY", "Race"]

# RFC 8305 section 8: the Connection Attempt Delay where no round-trip time is known.
ATTEMPT_DELAY = 0.25  # seconds


class Race:
    """A staggered race of *count* candidates, which are known by their index.

    The first starts at once, each further one *delay* seconds after the one before, or as soon
    as an attempt fails.  The first to succeed ends it.
    """

    def __init__(self, count: int, delay: float = ATTEMPT_DELAY) -> None:
        self._count = count
        self._delay = delay
        self._next = 0
        self._running: set[int] = set()
        self._won = False
        self.wake_at: float | None = None
        """When `wake` is to be called; None if only events count."""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen: won, or every candidate has failed."""
        return self._won or (not self._running and self._next >= self._count)

    def start(self, now: float) -> list[int]:
        """Begin.  Returns the candidates to start."""
        return self._start_next(now)

    def wake(self, now: float) -> list[int]:
        """The time is *now*.  Returns the candidates to start."""
        if self.wake_at is None or now < self.wake_at:
            return []
        return self._start_next(now)

    def failed(self, index: int, now: float) -> list[int]:
        """Candidate *index* has failed.  Returns the candidates to start: the next one need not
        wait any longer (RFC 8305 section 5)."""
        self._running.discard(index)
        return self._start_next(now)

    def succeeded(self, index: int) -> list[int]:
        """Candidate *index* has won.  Returns the candidates to stop."""
        self._running.discard(index)
        self._won = True
        self.wake_at = None
        return sorted(self._running)

    def _start_next(self, now: float) -> list[int]:
        if self._won or self._next >= self._count:
            self.wake_at = None
            return []
        index = self._next
        self._next += 1
        self._running.add(index)
        self.wake_at = now + self._delay if self._next < self._count else None
        return [index]
