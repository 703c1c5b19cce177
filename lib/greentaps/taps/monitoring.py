"""What operators see: a log of events, and counts (RFC 9622 section 13, RFC 9621 section 3.5).

The log is Python's ``logging``; nothing is written unless the program turns it on.  What is in it:

=========================  =======  ===========================================================
logger                     level    what
=========================  =======  ===========================================================
``greentaps.establishing`` DEBUG    each attempt: that it began, won, or why it failed
``greentaps.connection``   INFO     Ready; ConnectionReceived; EstablishmentError, with every
                                    attempt's failure; Closed; ConnectionError; CloneError
``greentaps.connection``   DEBUG    SoftError, PathChange, and the SendErrors, Expired Messages and
                                    ReceiveErrors that are events
``greentaps.listener``     INFO     where it listens, that it has stopped, whom it has turned away
``greentaps.plugins``      WARNING  a plugin of another package that cannot be used
=========================  =======  ===========================================================

Addresses, host names, stacks, times and reasons are logged: no data, no keys, no names of users.
Nothing here is on the way of data.  Counts cost a few additions for each Connection.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Statistics", "statistics"]

_attempts = logging.getLogger("greentaps.establishing")
_connections = logging.getLogger("greentaps.connection")
_listeners = logging.getLogger("greentaps.listener")


@dataclass(frozen=True)
class Statistics:
    """Counts of this process, over all threads, since it began or was forked.

    `open` is how many Connections are open by stack (``{"tls/tcp": 3}``), `established` how many
    have been, `failed` how many were ended otherwise than by a close.  `not_established` counts
    EstablishmentErrors of Connections by their reason (``{"Timeout": 1}``), `listeners` the
    Listeners that listen.
    """

    open: Mapping[str, int]
    established: Mapping[str, int]
    failed: Mapping[str, int]
    not_established: Mapping[str, int]
    listeners: int

    @property
    def total_open(self) -> int:
        """How many Connections are open."""
        return sum(self.open.values())


class _Counts:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        # By stack; and by reason.  A Counter's items are set by Python code.
        self.open: defaultdict[str, int] = defaultdict(int)
        self.established: defaultdict[str, int] = defaultdict(int)
        self.failed: defaultdict[str, int] = defaultdict(int)
        self.not_established: defaultdict[str, int] = defaultdict(int)
        self.listeners: set[int] = set()


_counts = _Counts()


def _forget() -> None:
    global _counts
    _counts = _Counts()  # the parent's connections are not the child's


os.register_at_fork(after_in_child=_forget)


def statistics() -> Statistics:
    """The counts of Connections and Listeners (RFC 9621 section 3.5): see `Statistics`.  May be
    called in any thread.  Not a switchpoint."""
    counts = _counts
    with counts.lock:
        return Statistics(
            open={stack: number for stack, number in counts.open.items() if number},
            established=dict(counts.established),
            failed=dict(counts.failed),
            not_established=dict(counts.not_established),
            listeners=len(counts.listeners),
        )


# -- For those who know of something --


def attempt_began(candidate: Any) -> None:
    """An attempt to establish *candidate* begins."""
    _attempts.debug("attempt: %s", candidate)


def attempt_won(candidate: Any, seconds: float) -> None:
    """*candidate* is ready."""
    _attempts.debug("ready after %.1f ms: %s", seconds * 1000, candidate)


def attempt_failed(candidate: Any, error: BaseException) -> None:
    """*candidate* is not to be had."""
    _attempts.debug("failed: %s: %s", candidate, error)


def opened(connection: Any, stack: str, *, received: bool) -> None:
    """A Connection is established."""
    counts = _counts
    with counts.lock:  # by hand a CTRL-C could come between acquire() and try
        counts.open[stack] += 1
        counts.established[stack] += 1
    if _connections.isEnabledFor(logging.INFO):
        _connections.info("%s: %r", "ConnectionReceived" if received else "Ready", connection)


def lost(stack: str, *, failed: bool) -> None:
    """The transport of an established Connection has ended."""
    counts = _counts
    with counts.lock:
        if counts.open[stack]:  # else it was the parent's, before a fork
            counts.open[stack] -= 1
            if failed:
                counts.failed[stack] += 1


def not_established(connection: Any, error: BaseException) -> None:
    """A Connection could not be established."""
    reason = getattr(error, "reason", None)
    counts = _counts
    with counts.lock:
        counts.not_established[reason.value if reason is not None else type(error).__name__] += 1
    _connections.info("EstablishmentError: %s", error)


def ended(connection: Any, error: BaseException | None) -> None:
    """The closing event of a Connection that was established."""
    if not _connections.isEnabledFor(logging.INFO):
        return
    if error is None:
        _connections.info("Closed: %r", connection)
    else:
        _connections.info("ConnectionError: %r: %s", connection, error)


def happened(connection: Any, event: str, error: BaseException | None = None) -> None:
    """An event of a Connection that it survives."""
    level = logging.INFO if event == "CloneError" else logging.DEBUG
    if _connections.isEnabledFor(level):
        _connections.log(
            level, "%s: %r%s", event, connection, "" if error is None else f": {error}"
        )


def listening(listener: Any) -> None:
    """A Listener listens."""
    counts = _counts
    with counts.lock:
        counts.listeners.add(id(listener))
    if _listeners.isEnabledFor(logging.INFO):
        _listeners.info("listening: %r", listener)


def stopped(listener: Any) -> None:
    """A Listener listens no more."""
    counts = _counts
    with counts.lock:
        listened = id(listener) in counts.listeners
        counts.listeners.discard(id(listener))
    if listened:
        _listeners.info("stopped: %r", listener)


def turned_away(peer: Any, why: object) -> None:
    """A Listener has not made a Connection of what *peer* began."""
    _listeners.info("a connection from %s was not established: %s", peer, why)
