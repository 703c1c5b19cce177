"""What one establishment learns from earlier ones, and teaches later ones (RFC 9623 section 9).

Between the choice of candidates, which asks for scores, and the `History`, which has observations.
The clock is handed in, so that tests need none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ...plugins import Measure, Stack, measure, stack_name
from ..endpoint import RemoteEndpoint
from ..paths.history import History
from ..properties import UNLIMITED, CapacityProfile, TransportProperties
from .candidates import Node, Way

__all__ = ["Learning", "is_here"]

_log = logging.getLogger("greentaps.establishment")

# What an unknown network is taken for, when others are known.
_USUAL_RTT = 0.1  # seconds

_LOW_LATENCY = (
    CapacityProfile.LOW_LATENCY_INTERACTIVE,
    CapacityProfile.LOW_LATENCY_NON_INTERACTIVE,
)


def is_here(address: str) -> bool:
    """Whether the text of an address means this machine: of that nothing has to be learned."""
    return address.startswith("127.") or address == "::1"


class Learning:
    """The view that one establishment has of a *history*.  *clock* tells the time."""

    def __init__(self, history: History, clock: Callable[[], float]) -> None:
        self.history = history
        self._clock = clock

    # -- Asking --

    def score(self, way: Way, stack: Stack, endpoint: str) -> float:
        """From -1, has failed, to 1, has worked; 0 unknown."""
        return self.history.score(way.network, endpoint, stack_name(stack), now=self._clock())

    def score_of_stack(self, way: Way, stack: Stack, ends: tuple[RemoteEndpoint, ...]) -> float:
        """The best score that any of the Remote Endpoints has with a stack."""
        scores = [self.score(way, stack, end.hostname or end.ip_address or "") for end in ends]
        return max(scores, key=abs, default=0.0)

    def expected(self, leaf: Node) -> float | None:
        """How many seconds an attempt should need: a round trip for each layer, and one to spare;
        None where no round-trip time is known (RFC 8305 section 5)."""
        candidate, way = leaf.candidate, leaf.path
        if candidate is None or way is None:
            return None
        # Not the network's average: a server in the next room says nothing of one far away.
        rtt = self.history.rtt(way.network, candidate.remote[0], now=self._clock(), near=True)
        return None if rtt is None else (len(candidate.stack) + 1) * rtt

    def performance(self, properties: TransportProperties) -> Callable[[str], float] | None:
        """How good a network should be for what *properties* say will be done: see
        `candidates.Performance`.  None if they say nothing (RFC 9623 section 4.1.3)."""
        said = properties.explicit()
        profile = said.get("connCapacityProfile")
        if profile in _LOW_LATENCY:
            return self._round_trip
        if profile is CapacityProfile.CAPACITY_SEEKING:
            return self._capacity
        rate = _rate(said)
        if rate is None:
            return None
        return lambda network: 0.0 if self._known_capacity(network) >= rate else 1.0

    def _round_trip(self, network: str) -> float:
        rtt = self.history.rtt(network, now=self._clock())
        return _USUAL_RTT if rtt is None else rtt

    def _capacity(self, network: str) -> float:
        return -self._known_capacity(network)

    def _known_capacity(self, network: str) -> float:
        return self.history.throughput(network, now=self._clock()) or 0.0

    # -- Teaching --

    def succeeded(self, leaf: Node, seconds: float, transport: Any) -> None:
        """The attempt of *leaf* was ready after *seconds*, with *transport*.  That teaches nothing
        where nobody has answered yet."""
        candidate = leaf.candidate
        if candidate is None or not any(plugin.confirms for plugin in candidate.stack):
            return
        found = _measure(leaf, transport)
        self._note(leaf, lambda *what: self.history.note_success(
            *what, now=self._clock(), latency=seconds, rtt=found.rtt))  # fmt: skip

    def measured(self, leaf: Node, transport: Any) -> None:
        """The *transport* of *leaf* is about to end: what the system has measured of it counts for
        others (RFC 9040)."""
        found = _measure(leaf, transport)

        def note(network: str, remote: Any, hostname: str | None, stack: str) -> None:
            if found.rtt is not None:
                self.history.note_rtt(network, remote[0], found.rtt, now=self._clock())
            if found.delivery_rate is not None:
                self.history.note_throughput(
                    network, remote[0], found.delivery_rate, now=self._clock()
                )

        self._note(leaf, note)

    def failed(self, leaf: Node) -> None:
        """The attempt of *leaf* has failed by itself."""
        self._note(leaf, lambda *what: self.history.note_failure(*what, now=self._clock()))

    def _note(self, leaf: Node, note: Callable[..., None]) -> None:
        candidate, way = leaf.candidate, leaf.path
        assert candidate is not None
        assert way is not None
        if is_here(candidate.remote[0]):
            return
        try:
            note(way.network, candidate.remote, candidate.hostname, stack_name(candidate.stack))
        except OSError as error:  # a file that cannot be written must not cost a Connection
            _log.warning("what was learned cannot be kept: %s", error)


def _measure(leaf: Node, transport: Any) -> Measure:
    assert leaf.candidate is not None
    return measure(leaf.candidate.stack, transport) or Measure()


def _rate(said: Mapping[str, Any]) -> float | None:
    """The bytes per second that a path has to carry.  The properties are bits per second."""
    rates = [
        said[name]
        for name in ("minSendRate", "minRecvRate", "maxSendRate", "maxRecvRate")
        if said.get(name, UNLIMITED) is not UNLIMITED
    ]
    return max(rates) / 8 if rates else None
