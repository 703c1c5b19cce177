"""What earlier connections have taught: how often, how quickly and how well an endpoint could be
reached (RFC 9623 section 9.2).

All is kept per network, so that nothing learned at home counts on the road, and of addresses also
for their subnet (/24, /64) and for the network as a whole.  What is old counts less, and is
forgotten: round-trip times within half an hour, success within days.  The number of things that are
remembered is bounded.

Pure: `now` is passed in, in seconds of any one clock that does not go back.  `greentaps.taps.store`
keeps a History in a file.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address, ip_network
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .store import Store

__all__ = ["Cell", "History", "Key", "default_history", "set_default_history"]

LIMIT = 16384
"""How many things a History remembers; one connection teaches about ten."""

RATE, LATENCY, RTT, THROUGHPUT = "success", "latency", "rtt", "throughput"

# In seconds, the time in which what is remembered loses half of its weight.
HALF_LIFE = {RATE: 6 * 3600.0, LATENCY: 3600.0, RTT: 300.0, THROUGHPUT: 3600.0}
# Below this weight it is forgotten: that of one observation is 1, and is here after 4.3 half-lives.
FORGOTTEN = 0.05
# A new observation takes this much from the weight of the old ones: about the last five count.
FADING = 0.8
# How much of the old average is left when a new value comes in soon after it (RFC 6298: 7/8).
SMOOTHING = 7.0
_WHOLE_NETWORK = ""
_ANY_STACK = ""


Key = tuple[str, str, str, str]
"""Network, kind, endpoint, stack."""


class Cell(NamedTuple):
    """One thing that is remembered: two numbers, and when."""

    x: float
    y: float
    at: float


class History:
    """What has been seen of networks and of the endpoints in them.

    *path* names a file to keep it in (a database of SQLite); without it, it is in memory only.
    *limit* bounds how much is remembered: the oldest goes first.

    An endpoint is a host name, or an address; also a subnet in the form ``192.0.2.0/24`` or
    ``2001:db8::/64``, and ``""`` for all endpoints of the network together.  A stack is written as
    ``tls/tcp``, and ``""`` is for all stacks together.

    Raises OSError if the file cannot be used, which is a ValueError too if it is something else.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, limit: int = LIMIT) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit must be a number, not {limit!r}")
        if limit <= 0:
            raise ValueError(f"limit must be positive, not {limit!r}")
        self._limit = limit
        self._cells: OrderedDict[Key, Cell] = OrderedDict()
        self._store = None if path is None else _store(path, limit)

    def __len__(self) -> int:
        return len(self._cells)

    # -- Learning --

    def note_success(
        self,
        network: str,
        remote: Any,
        hostname: str | None,
        stack: str,
        *,
        now: float,
        latency: float,
        rtt: float | None = None,
    ) -> None:
        """A connection to the socket address *remote*, which is *hostname*'s, is ready after
        *latency* seconds."""
        _check("latency", latency)
        self._note_attempt(network, remote, hostname, stack, 1.0, 0.0, now)
        for endpoint in _endpoints(remote[0], hostname):
            self._average(network, LATENCY, endpoint, stack, latency, now)
        if rtt is not None:
            self.note_rtt(network, remote[0], rtt, now=now)
        self._save_if_due(now)

    def note_failure(
        self, network: str, remote: Any, hostname: str | None, stack: str, *, now: float
    ) -> None:
        """An attempt to connect has failed by itself; not one that was only given up."""
        self._note_attempt(network, remote, hostname, stack, 0.0, 1.0, now)
        self._save_if_due(now)

    def note_rtt(self, network: str, address: str, rtt: float, *, now: float) -> None:
        """A round-trip time to *address*, in seconds."""
        _check("rtt", rtt)
        for endpoint in _endpoints(address, None):
            self._average(network, RTT, endpoint, _ANY_STACK, rtt, now)

    def note_throughput(
        self, network: str, address: str, bytes_per_second: float, *, now: float
    ) -> None:
        """So much could be sent to *address*."""
        _check("bytes_per_second", bytes_per_second)
        for endpoint in _endpoints(address, None):
            old = self._get(network, THROUGHPUT, endpoint, _ANY_STACK, now)
            if old is None or bytes_per_second >= old.x * _left(old, THROUGHPUT, now):
                self._put(network, THROUGHPUT, endpoint, _ANY_STACK, bytes_per_second, 1.0, now)

    # -- Asking --

    def score(self, network: str, endpoint: str, stack: str, *, now: float) -> float:
        """How likely *stack* works with *endpoint*: above 0 up to 1 if it mostly has, below 0 down
        to -1 if it mostly has not; 0.0 if nothing is known (any more)."""
        cell = self._get(network, RATE, endpoint, stack, now)
        if cell is None:
            return 0.0
        left = _left(cell, RATE, now)
        good, bad = cell.x * left, cell.y * left
        return (good - bad) / (good + bad + 1.0)

    def used(self, network: str, address: str, *, now: float) -> bool:
        """Whether there was a connection to *address* (RFC 8305 section 4)."""
        cell = self._get(network, RATE, address, _ANY_STACK, now)
        return cell is not None and cell.x * _left(cell, RATE, now) >= FORGOTTEN

    def latency(self, network: str, endpoint: str, stack: str, *, now: float) -> float | None:
        """How long it takes until *stack* is ready, in seconds; of an address not seen before, what
        its subnet takes.  None if it is not known."""
        return self._first(network, LATENCY, _narrow(endpoint), stack, now)

    def rtt(
        self, network: str, address: str = _WHOLE_NETWORK, *, now: float, near: bool = False
    ) -> float | None:
        """The round-trip time to *address*, else to its subnet, else the network's average, which
        *near* leaves out; in seconds.  None if nothing is known."""
        endpoints = _narrow(address) if near else (*_narrow(address), _WHOLE_NETWORK)
        return self._first(network, RTT, endpoints, _ANY_STACK, now)

    def throughput(
        self, network: str, address: str = _WHOLE_NETWORK, *, now: float
    ) -> float | None:
        """The most that was seen lately, in bytes per second: to *address*, else to its subnet,
        else anywhere in the network.  None if nothing is known."""
        endpoints = (*_narrow(address), _WHOLE_NETWORK)
        return self._first(network, THROUGHPUT, endpoints, _ANY_STACK, now)

    # -- Forgetting --

    def flush(self, network: str | None = None) -> None:
        """Forget all that was learned in *network*; None for all of it.  The file forgets it too.

        Raises OSError if the file cannot be written: then it is forgotten here only.
        """
        for key in list(self._cells):
            if network is None or key[0] == network:
                self._cells.pop(key, None)
        if self._store is not None:
            self._store.delete(network)

    def attached(self, networks: Collection[str]) -> None:
        """This machine is now attached to *networks*: what changes quickly is forgotten of all
        others (RFC 8305 section 4)."""
        gone = [
            key
            for key in list(self._cells)
            if key[0] not in networks and key[1] in (RTT, THROUGHPUT)
        ]
        for key in gone:
            self._cells.pop(key, None)
        if self._store is not None:
            self._store.drop(gone)

    def save(self) -> None:
        """Write to the file, if there is one, what it does not have yet.  Raises OSError."""
        if self._store is not None:
            self._store.save()

    def close(self) -> None:
        """Write what is left to the file, and no more from now on.  Harmless to repeat.  Raises
        OSError."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<History of {len(self._cells)} observations>"

    # -- Cells --

    def _note_attempt(
        self,
        network: str,
        remote: Any,
        hostname: str | None,
        stack: str,
        good: float,
        bad: float,
        now: float,
    ) -> None:
        keys = [(endpoint, stack) for endpoint in _endpoints(remote[0], hostname)]
        keys.append((_plain(remote[0]), _ANY_STACK))
        for endpoint, which in keys:
            old = self._get(network, RATE, endpoint, which, now)
            left = 0.0 if old is None else _left(old, RATE, now) * FADING
            x, y = (0.0, 0.0) if old is None else (old.x, old.y)
            self._put(network, RATE, endpoint, which, x * left + good, y * left + bad, now)

    def _average(
        self, network: str, kind: str, endpoint: str, stack: str, value: float, now: float
    ) -> None:
        old = self._get(network, kind, endpoint, stack, now)
        weight = 0.0 if old is None else min(old.y, SMOOTHING) * _left(old, kind, now)
        before = 0.0 if old is None else old.x
        average = (before * weight + value) / (weight + 1.0)
        self._put(network, kind, endpoint, stack, average, weight + 1.0, now)

    def _first(
        self, network: str, kind: str, endpoints: Collection[str], stack: str, now: float
    ) -> float | None:
        for endpoint in endpoints:
            cell = self._get(network, kind, endpoint, stack, now)
            if cell is not None and cell.y * _left(cell, kind, now) >= FORGOTTEN:
                return cell.x
        return None

    def _get(self, network: str, kind: str, endpoint: str, stack: str, now: float) -> Cell | None:
        self._load(now)
        if not self._cells:
            return None
        return self._cells.get((network, kind, _plain(endpoint), stack))

    def _put(
        self,
        network: str,
        kind: str,
        endpoint: str,
        stack: str,
        x: float,
        y: float,
        now: float,
    ) -> None:
        key = (network, kind, endpoint, stack)
        cell = Cell(x, y, now)
        # Each line is one step to other threads, whose hubs share this object.
        self._cells.pop(key, None)
        self._cells[key] = cell
        while len(self._cells) > self._limit:
            with suppress(KeyError):
                self._cells.popitem(last=False)
        if self._store is not None:
            self._store.put(key, cell)

    # -- The file --

    def _load(self, now: float) -> None:
        store = self._store
        if store is not None and not store.loaded:
            for key, cell in store.load(now):
                if key[1] in HALF_LIFE:
                    self._cells.setdefault(key, cell)  # else it was learned before this was read

    def _save_if_due(self, now: float) -> None:
        if self._store is not None:
            self._store.save_if_due(now)


def _store(path: str | os.PathLike[str], limit: int) -> Store:
    from .store import Store

    return Store(path, limit)


def _left(cell: Cell, kind: str, now: float) -> float:
    """How much of the weight of *cell* is left."""
    age = now - cell.at
    return 1.0 if age <= 0 else 2.0 ** -(age / HALF_LIFE[kind])


def _check(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number from zero on, not {value!r}")


def _endpoints(address: str, hostname: str | None) -> list[str]:
    """All that an observation with *address* teaches about."""
    found = [*_narrow(address), _WHOLE_NETWORK]
    if hostname is not None and _plain(hostname) not in found:
        found.append(_plain(hostname))
    return found


def _narrow(endpoint: str) -> tuple[str, ...]:
    """*endpoint*, and the subnet that it is in if it is an address."""
    plain = _plain(endpoint)
    subnet = _subnet(plain)
    return (plain,) if subnet is None else (plain, subnet)


@lru_cache(maxsize=4096)
def _plain(endpoint: str) -> str:
    """One spelling for each endpoint: the scope of an address is left out, as the network says
    it."""
    bare = endpoint.partition("%")[0]
    try:
        address = ip_address(bare)
    except ValueError:
        return endpoint.rstrip(".").lower()
    return str(getattr(address, "ipv4_mapped", None) or address)


@lru_cache(maxsize=4096)
def _subnet(plain: str) -> str | None:
    try:
        address = ip_address(plain)
    except ValueError:
        return None
    return str(ip_network((address, 24 if address.version == 4 else 64), strict=False))


_default = History()


def default_history() -> History:
    """The History that connections use unless they are isolated."""
    return _default


def set_default_history(history: History) -> None:
    """Use *history* from now on: one with a file, or an empty one.  The old one is not closed."""
    global _default
    if not isinstance(history, History):
        raise TypeError(f"a History is needed, not {history!r}")
    _default = history
