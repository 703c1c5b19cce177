"""Answers of name servers, for as long as they hold (RFC 9623 section 9.1).  Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

__all__ = ["AnswerCache"]

# A server may say that its answer holds for 68 years.
MAX_TTL = 86400.0  # seconds


class AnswerCache:
    """A bounded number of answers, of which the one that was not used for the longest time goes
    first.  *limit* 0 keeps none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, now: float) -> Any:
        """The answer, None if there is none that still holds."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        ends, answer = entry
        if now >= ends:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return answer

    def put(self, key: Hashable, answer: Any, ttl: float, now: float) -> None:
        """Keep *answer* for *ttl* seconds, but not for longer than a day."""
        self._entries.pop(key, None)
        if ttl <= 0:
            return
        self._entries[key] = (now + min(ttl, MAX_TTL), answer)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def flush(self) -> None:
        """Forget all."""
        self._entries.clear()
