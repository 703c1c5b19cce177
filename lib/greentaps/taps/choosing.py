"""Choosing: from what an application wants to the transport that it gets (RFC 9623 section 4).

Here the pure parts meet the world: the tree of candidates is grown from the Setup, the interfaces
and the policy, its names are looked up, and the race over it is run.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import EstablishmentError
from ..hub import Deadline, now
from .candidates import Node, Way, tree
from .endpoint import LocalEndpoint
from .establishing import Established, Establishment
from .explaining import Explanation
from .naming import News, resolve, resolve_local
from .policy import SystemPolicy, get_system_policy
from .racing import Race

if TYPE_CHECKING:
    from .setup import Setup

__all__ = ["establish", "grow"]

# How long opportunistic security tries TLS with a peer that may not understand it.
OPPORTUNITY = 5.0  # seconds


def establish(setup: Setup, deadline: Deadline) -> Established:
    """Resolve, gather and race.  A switchpoint.  Raises EstablishmentError."""
    begun = now()
    if setup.security is not None and setup.security.is_opportunistic:
        return _establish_opportunistically(setup, begun, deadline)
    root = grow(setup, deadline, secured=setup.security is not None)
    return _race(setup, root, begun, deadline)


def _establish_opportunistically(setup: Setup, begun: float, deadline: Deadline) -> Established:
    """TLS first, and what is without only when that has failed: never in one race, which an
    attacker could decide by a delay (RFC 9623 section 12.1)."""
    setup.choose(server_side=False)
    left = deadline.left()
    first = Deadline(OPPORTUNITY if left is None else min(OPPORTUNITY, left / 2))
    try:
        return _race(setup, grow(setup, first, secured=True), begun, first)
    except EstablishmentError as error:
        attempts = error.attempts
    try:
        return _race(setup, grow(setup, deadline, secured=False), begun, deadline)
    except EstablishmentError as error:
        made = EstablishmentError(error.message, error.reason, (*attempts, *error.attempts))
        made.history = error.history
        raise made from error


def grow(setup: Setup, deadline: Deadline, *, secured: bool) -> Node:
    """The tree of all candidates, where names are still to be resolved (RFC 9623 section 4.2).  A
    switchpoint where a Local Endpoint has a name.  Raises EstablishmentError."""
    setup.check()
    policy = get_system_policy()
    judged = setup.judge(False, policy, secured=secured)
    ends = [
        (local, _local_addresses(local, deadline)) for local in setup.local_endpoints or (None,)
    ]
    return tree(
        setup.ways(ends, policy),
        lambda way: judged,
        setup.remote_endpoints,
        temporary=setup.temporary,
    )


def _local_addresses(local: LocalEndpoint | None, deadline: Deadline) -> tuple[Any, ...]:
    """The socket addresses of a Local Endpoint; none where the system chooses."""
    if local is None or (local.hostname is None and local.ip_address is None):
        return ()
    return tuple(resolve_local([local], deadline, passive=False))


def _race(setup: Setup, root: Node, begun: float, deadline: Deadline) -> Established:
    policy = get_system_policy()
    race = Race(root, modes=policy.modes, delay=_delay(policy))
    history = Explanation(root, race.story, begun)
    running = Establishment(
        race,
        setup.attempt(deadline),
        setup.framers,
        _LookUps(deadline).derive,
        temporary=setup.temporary,
    )
    try:
        established = running.run()
    except EstablishmentError as error:
        error.history = history
        raise
    established.history = history
    established.phases = (("resolution", history.preparation), *established.phases)
    return established


def _delay(policy: SystemPolicy) -> Callable[[Node, Node], float]:
    """How long the next child of a node waits."""

    def delay(parent: Node, child: Node) -> float:
        return policy.delay(parent.branch)

    return delay


# -- Names --


class _LookUps:
    """The look-ups of one establishment: the same name on the same path is asked for once."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._shared: dict[Any, _Shared] = {}

    def derive(self, node: Node, deliver: Callable[[News], None]) -> _Listening:
        """Look up the name of *node*; see `Establishment`."""
        way, stack, end = node.path, node.stack, node.endpoint
        assert way is not None
        assert stack is not None
        assert end is not None
        protocol = stack[-1].name
        key = (end, way.interface, protocol if end.service else None)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _Shared()
            shared.look_up = resolve(
                end,
                interface=way.interface,
                families=_families(way),
                protocol=protocol,
                network=way.network,
                deadline=self._deadline,
                deliver=shared.tell,
            )
        return shared.join(deliver)


def _families(way: Way) -> frozenset[int]:
    """The address families that make sense on a way."""
    if way.addresses:
        versions = frozenset(6 if ":" in here[0] else 4 for here in way.addresses)
    else:
        versions = way.versions or frozenset((4, 6))
    return frozenset(_FAMILIES[version] for version in versions)


_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class _Shared:
    """One look-up, and those who listen to it."""

    def __init__(self) -> None:
        self.look_up: Any = None
        self._told: list[News] = []
        self._listeners: list[Callable[[News], None]] = []

    def tell(self, news: News) -> None:
        self._told.append(news)
        for deliver in list(self._listeners):
            deliver(news)

    def join(self, deliver: Callable[[News], None]) -> _Listening:
        for news in self._told:
            deliver(news)
        self._listeners.append(deliver)
        return _Listening(self, deliver)

    def leave(self, deliver: Callable[[News], None]) -> None:
        if deliver in self._listeners:
            self._listeners.remove(deliver)
        if not self._listeners:
            self.look_up.cancel()


class _Listening:
    """What somebody who listens to a look-up can cancel."""

    def __init__(self, shared: _Shared, deliver: Callable[[News], None]) -> None:
        self._shared = shared
        self._deliver = deliver

    def cancel(self) -> None:
        self._shared.leave(self._deliver)
