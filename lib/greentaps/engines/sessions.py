"""A cache of TLS sessions: bounded in number and in age, in memory only.

Pure: the caller says what time it is.  Sessions of TLS 1.3 arrive at any time after the handshake,
so engines are watched: what has not been handed in when the next connection wants it is fetched
from an engine that is still alive.

Not on disk, ever: neither the standard library nor pyOpenSSL gives a session out as bytes, or makes
one from bytes, through its public names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakSet

from .terms import Resumable

__all__ = ["SessionCache"]

# With so many keys of engines, look for the first time whether any of them still live.
_TIDY_FROM = 64


@dataclass(frozen=True)
class _Entry:
    resumable: Resumable
    end: float


class SessionCache:
    """At most *capacity* sessions, none older than *lifetime* seconds.

    Keys must name all that a session depends on: the server's name and port, and the context if
    it is not always the same.
    """

    _all: ClassVar[WeakSet[SessionCache]] = WeakSet()

    def __init__(self, capacity: int, lifetime: float) -> None:
        self._capacity = capacity
        self._lifetime = lifetime
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._watched: dict[Hashable, WeakSet[Any]] = {}
        self._tidy_at = _TIDY_FROM
        SessionCache._all.add(self)

    def __len__(self) -> int:
        return len(self._entries)

    def serve(self, key: Hashable, engine: Any, clock: Callable[[], float]) -> None:
        """Give *engine*, which has not begun, a session for *key*, and take those that it gets."""
        session = self.take(key, clock())
        if session is not None:
            try:
                engine.resume(session)
            except ValueError:
                pass  # of another context; a handshake in full is always right
        self.watch(key, engine)
        engine.on_shutdown(lambda ended: self.hand_in(key, ended, clock()))

    def watch(self, key: Hashable, engine: Any) -> None:
        """*engine* may come by a session for *key*, as long as it lives."""
        if self._capacity <= 0:
            return
        self._watched.setdefault(key, WeakSet()).add(engine)
        if len(self._watched) > self._tidy_at:
            self._watched = {key: those for key, those in self._watched.items() if those}
            self._tidy_at = max(_TIDY_FROM, 2 * len(self._watched))

    def hand_in(self, key: Hashable, engine: Any, now: float) -> None:
        """The session of *engine* is over: keep what can be resumed of it."""
        watched = self._watched.get(key)
        if watched is None or engine not in watched:
            return  # it has given its session already
        watched.discard(engine)
        found = engine.resumable()
        if found is not None:
            self._put(key, found, now)

    def _put(self, key: Hashable, resumable: Resumable, now: float) -> None:
        lifetime = self._lifetime
        if resumable.lifetime is not None:
            lifetime = min(lifetime, resumable.lifetime)
        self._entries.pop(key, None)
        if self._capacity <= 0 or lifetime <= 0:
            return
        self._entries[key] = _Entry(resumable, now + lifetime)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def take(self, key: Hashable, now: float) -> Any:
        """A session for *key*, or None.  One that is to be used once is gone from here then."""
        if key not in self._entries:
            for engine in list(self._watched.get(key, ())):
                self.hand_in(key, engine, now)
                if key in self._entries:
                    break
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.end <= now or entry.resumable.once:
            del self._entries[key]
        else:
            self._entries.move_to_end(key)
        return entry.resumable.session if now < entry.end else None

    def clear(self) -> None:
        """Forget all sessions, also those that engines have not handed in yet."""
        self._entries.clear()
        self._watched.clear()

    @classmethod
    def clear_all(cls) -> None:
        """`clear` every cache of this process."""
        for cache in list(cls._all):
            cache.clear()
