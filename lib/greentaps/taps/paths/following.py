"""A Listener that is bound to interfaces follows them as they come and go (RFC 9623 section 4.7).

One that listens on every interface needs nothing of this, and neither does an interface that gets
another address: the kernel sees to both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from ...errors import EstablishmentError, Timeout, TransportError
from ...hub import spawn
from ...plugins import Stack
from ..endpoint import LocalEndpoint
from .survey import survey
from .watching import unwatch, watch

__all__ = ["Follower", "Paths", "Place", "Plan", "place"]

_log = logging.getLogger("greentaps.listener")

Paths = Callable[[LocalEndpoint], Sequence[str | None]]
"""Says which interfaces to use with a Local Endpoint now; None is any.  May raise
EstablishmentError: there is none."""


class Place(NamedTuple):
    """Where something listens: at a socket address, on an interface with a number."""

    stack: Stack
    address: Any
    interface: str | None
    number: int


class Plan(NamedTuple):
    """To listen with *stack* at *address* on each interface for *endpoint*."""

    stack: Stack
    address: Any
    endpoint: LocalEndpoint


class Opener(Protocol):
    """What a Follower needs of its Listener."""

    @property
    def stopped(self) -> bool:
        """Whether it is over."""

    def open(self, stack: Stack, local: Any, endpoint: LocalEndpoint) -> Any:
        """Listen at one more place."""


def place(stack: Stack, address: Any, interface: str | None) -> Place:
    """The place that is there now.  An interface that has gone and come back is another one."""
    path = None if interface is None else survey().find(interface)
    return Place(stack, address[:2], interface, 0 if path is None else path.index)


def _is_gone(where: Place) -> bool:
    """Whether its interface exists no more.  One that is down may come back, and Connections over
    UDP would end with its socket."""
    if where.interface is None:
        return False
    path = survey().find(where.interface)
    return path is None or path.index != where.number


class Follower:
    """Keeps *sources*, which belongs to *listener*, as *plans* want it."""

    def __init__(
        self, listener: Opener, sources: dict[Place, Any], plans: Sequence[Plan], paths: Paths
    ) -> None:
        self._listener = listener
        self._sources = sources
        self._plans = plans
        self._paths = paths
        self._working = False
        self._again = False
        watch(self, self._changed)

    def stop(self) -> None:
        """Follow no longer."""
        unwatch(self)

    def _changed(self) -> None:
        self._again = True
        if not self._working:
            self._working = True
            spawn(self._work)

    def _work(self) -> None:
        try:
            while self._again and not self._listener.stopped:
                self._again = False
                self._bring_up_to_date()
        finally:
            self._working = False

    def _bring_up_to_date(self) -> None:
        for gone in [each for each in self._sources if _is_gone(each)]:
            _log.info("no longer listening on %s", gone.interface)
            self._sources.pop(gone).close()
        for new, plan in dict(self._wanted()).items():
            if new in self._sources or self._listener.stopped:
                continue
            try:
                self._listener.open(*plan)
                _log.info("now listening on %s", new.interface)
            except (TransportError, Timeout) as error:
                _log.warning("cannot listen on %s: %s", new.interface, error)

    def _wanted(self) -> Iterator[tuple[Place, Plan]]:
        """Where to listen now, and what on: with the interface in the endpoint."""
        for plan in self._plans:
            try:
                names = self._paths(plan.endpoint)
            except EstablishmentError:
                continue  # no interface fits now; one may come
            for name in names:
                if name is None:
                    continue
                found = place(plan.stack, plan.address, name)
                if found.number:
                    yield found, plan._replace(endpoint=plan.endpoint.copy().with_interface(name))
