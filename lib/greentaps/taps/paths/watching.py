"""Telling those who want to know that the network has changed: Connections with a handler for
PathChange (RFC 9622 section 8.3.2), and Listeners that follow interfaces (RFC 9623 section 4.7).

There is one watcher for each hub, and only while somebody is interested.  It puts what comes in
quick succession into one call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from ...hub import Runner, get_runner
from . import netlink
from .survey import survey

__all__ = ["follow", "unwatch", "view", "watch"]

# After a first change, so long others may come: a link that goes down takes its addresses and its
# routes with it, one by one.
SETTLING = 0.05  # seconds

# Each who is told may ask the kernel for a route.  So many are told in one turn of the hub.
AT_ONCE = 50

_log = logging.getLogger("greentaps.paths")


class _Watcher:
    """What waits for the kernel's news in one hub."""

    def __init__(self, runner: Runner) -> None:
        """Raises OSError if the kernel tells nothing."""
        self.interested: dict[Hashable, Callable[[], None]] = {}
        self._runner = runner
        self._news = netlink.Notifications()
        self._timer: Any = None
        self._due: dict[Hashable, Callable[[], None]] = {}
        self._watcher = runner.when_readable(self._news.fileno(), self._heard)
        runner.adopt(self)

    def _heard(self) -> None:
        try:
            changed = self._news.changed()
        except OSError as error:
            _log.warning("changes of the network are no longer heard of: %s", error)
            self.close()
            return
        if changed and self._timer is None:
            self._timer = self._runner.call_later(SETTLING, self._tell)

    def _tell(self) -> None:
        self._timer.close()
        self._timer = None
        self._due.update(self.interested)
        self._go_on()

    def _go_on(self) -> None:
        """Tell the next few, and let the hub turn before the others."""
        for key in list(islice(self._due, AT_ONCE)):
            function = self._due.pop(key)
            if self.interested.get(key) is function:  # still
                try:
                    function()
                except Exception as error:
                    self._runner.collect(error)
        if self._due:
            self._runner.call_soon(self._go_on)

    def close(self) -> None:
        if _watchers.get(self._runner) is self:
            del _watchers[self._runner]
        for each in (self._timer, self._watcher, self._news):
            if each is not None:
                each.close()
        self._timer = None
        self._due.clear()
        self.interested.clear()
        self._runner.release(self)

    def hub_lost(self, error: BaseException) -> None:
        """The hub goes, or this is a forked child: the news are the parent's."""
        self.close()


_watchers: WeakKeyDictionary[Runner, _Watcher] = WeakKeyDictionary()


def watch(who: Hashable, function: Callable[[], None]) -> bool:
    """Call *function* from the hub after each change of the network, until `unwatch` of *who*.

    It must not switch.  Answers whether the system tells of changes at all.
    """
    runner = get_runner()
    watcher = _watchers.get(runner)
    if watcher is None:
        try:
            watcher = _watchers[runner] = _Watcher(runner)
        except OSError as error:
            _log.info("this system does not tell of changes of the network: %s", error)
            return False
    watcher.interested[who] = function
    return True


def unwatch(who: Hashable) -> None:
    """Undo `watch`; nothing happens if *who* does not watch."""
    for watcher in list(_watchers.values()):
        if watcher.interested.pop(who, None) is not None and not watcher.interested:
            watcher.close()


def view(local: str, remote: str) -> tuple[Any, ...]:
    """What there is to see of the way from the address *local* of this machine to *remote*: it
    differs if the path has changed."""
    path = survey().holder(local)
    bare, _, interface = remote.partition("%")
    scope = survey().find(interface) if interface else None
    here = (path.interface, path.up, path.mtu) if path is not None else None
    try:
        source = "" if path is None else local
        route = netlink.route_to(bare, source=source, index=0 if scope is None else scope.index)
    except OSError:
        route = None
    there = None if route is None else (route.index, route.gateway, route.mtu)
    return here, there


def follow(who: Hashable, local: Any, remote: Any, function: Callable[[], None]) -> None:
    """`watch`, with *function* called only when the way between two socket addresses has changed.
    Only addresses of IP have ways that change."""
    if not (isinstance(local, tuple) and isinstance(remote, tuple) and local and remote):
        return
    here, there = _text(local), _text(remote)
    seen = view(here, there)

    def look() -> None:
        nonlocal seen
        found = view(here, there)
        if found != seen:
            seen = found
            function()

    watch(who, look)


def _text(name: tuple[Any, ...]) -> str:
    """The address in a socket's name, with the interface if it is one of a link."""
    address: str = name[0]
    if len(name) == 4 and name[3] and "%" not in address:
        path = next((path for path in survey().paths if path.index == name[3]), None)
        if path is not None:
            return f"{address}%{path.interface}"
    return address
