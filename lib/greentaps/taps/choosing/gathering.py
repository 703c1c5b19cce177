"""Choosing: from what an application wants to the transport that it gets (RFC 9623 section 4).

Here the pure parts meet the world: the tree of candidates is grown from the Setup, the interfaces
and the policy, its names are looked up, and the race over it is run.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import EstablishmentError
from ...hub import Deadline, Parked, get_runner, now
from ...plugins import service_protocol
from ..endpoint import LocalEndpoint, RemoteEndpoint
from ..naming.resolving import News, resolve, resolve_local
from ..paths.history import default_history
from .candidates import Node, Score, Verdict, Way, attach, graft, tree
from .establishing import Established, Establishment
from .explaining import Explanation
from .learning import Learning, is_here
from .policy import SystemPolicy, policy_in_force
from .racing import Moment, Race

if TYPE_CHECKING:
    from ..setup import Setup

__all__ = ["Additions", "establish", "explain", "grow"]

# An attempt that was broken off because the application's time was over says something about the
# peer only if it had this long.
PATIENCE = 1.0  # seconds

# How long opportunistic security tries TLS with a peer that may not understand it.
OPPORTUNITY = 5.0  # seconds


class Additions:
    """What is added to an establishment that is under way (RFC 9622 section 7.5)."""

    def __init__(self) -> None:
        self._added: list[dict[str, Any]] = []
        self._join: Callable[[dict[str, Any]], None] | None = None

    def add(self, ends: dict[str, Any]) -> None:
        """Try with *ends*, too: the new ones of one kind, and all of the other, by their names in a
        `Setup`.  A switchpoint where a Local Endpoint has a name.  Raises EstablishmentError if
        nothing can be tried with them."""
        if self._join is not None:
            self._join(ends)
        self._added.append(ends)  # for the race that may follow, of opportunistic security

    @contextmanager
    def going_to(self, join: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """In the body, let *join* have what is added, and at first what was added before."""
        for ends in list(self._added):
            with suppress(EstablishmentError):
                join(ends)
        self._join = join
        try:
            yield
        finally:
            self._join = None


def establish(setup: Setup, deadline: Deadline, additions: Additions | None = None) -> Established:
    """Resolve, gather and race.  A switchpoint.  Raises EstablishmentError."""
    begun = now()
    if setup.security is not None and setup.security.is_opportunistic:
        return _establish_opportunistically(setup, begun, deadline, additions)
    return _race(setup, setup.security is not None, begun, deadline, additions)


def _establish_opportunistically(
    setup: Setup, begun: float, deadline: Deadline, additions: Additions | None
) -> Established:
    """TLS first, and what is without only when that has failed: never in one race, which an
    attacker could decide by a delay (RFC 9623 section 12.1)."""
    setup.choose(server_side=False)
    left = deadline.left()
    first = Deadline(OPPORTUNITY if left is None else min(OPPORTUNITY, left / 2))
    try:
        return _race(setup, True, begun, first, additions)
    except EstablishmentError as error:
        attempts, earlier = error.attempts, error.history
    try:
        established = _race(setup, False, begun, deadline, additions)
    except EstablishmentError as error:
        made = EstablishmentError(error.message, error.reason, (*attempts, *error.attempts))
        made.history = error.history
        if made.history is not None:
            made.history.earlier = earlier
        raise made from error
    established.history.earlier = earlier
    return established


def explain(setup: Setup, deadline: Deadline, *, names: bool) -> Explanation:
    """The tree, with the addresses of its *names* if they are wanted.  A switchpoint.  Raises
    EstablishmentError if there is no candidate."""
    setup.choose(server_side=False)
    kinds = [setup.security is not None]
    if setup.security is not None and setup.security.is_opportunistic:
        kinds = [True, False]
    policy = policy_in_force()
    learning = _learning(setup, policy)
    root = grow(setup, deadline, kinds, policy, learning)
    if names:
        _look_up_all(setup, root, learning, deadline)
    return _explanation(setup, root)


def _explanation(
    setup: Setup, root: Node, story: Sequence[Moment] | None = None, begun: float = 0.0
) -> Explanation:
    security = setup.security
    words = "" if security is None else "opportunistic " * security.is_opportunistic + "security"
    return Explanation(
        root,
        story,
        begun,
        remotes=setup.remote_endpoints,
        properties=setup.properties,
        security=words,
    )


def grow(
    setup: Setup,
    deadline: Deadline,
    kinds: Sequence[bool],
    policy: SystemPolicy,
    learning: Learning | None,
) -> Node:
    """The tree of all candidates, where names are still to be resolved (RFC 9623 section 4.2).

    *kinds* are whether stacks must bring security, or must not; of several, those that come later
    are for when the earlier ones have failed.  A switchpoint where a Local Endpoint has a name.
    Raises EstablishmentError.
    """
    if setup.local_endpoints:
        setup.check()  # before the names of these are looked up
    else:
        setup.check_wishes()  # the ways are looked at below
    ends = [
        (local, _local_addresses(local, deadline)) for local in setup.local_endpoints or (None,)
    ]
    performance = None if learning is None else learning.performance(setup.properties)
    look = learning is not None or any(_is_far_ipv4(end) for end in setup.remote_endpoints)
    ways = setup.ways(ends, policy, look=look, performance=performance)
    same: list[Verdict] = []

    def judge(way: Way) -> Sequence[Verdict]:
        if learning is None:
            if not same:
                same.extend(_judge_all(setup, policy, kinds, None))
            return same
        score = partial(learning.score_of_stack, way, ends=setup.remote_endpoints)
        return _judge_all(setup, policy, kinds, score)

    return tree(
        ways,
        judge,
        setup.remote_endpoints,
        temporary=setup.temporary,
        past=None if learning is None else learning.score,
    )


def _is_far_ipv4(end: RemoteEndpoint) -> bool:
    """Whether it is an IPv4 address of another machine, which not every network leads to."""
    address = end.ip_address
    return address is not None and ":" not in address and not is_here(address)


def _judge_all(
    setup: Setup, policy: SystemPolicy, kinds: Sequence[bool], score: Score | None
) -> list[Verdict]:
    found: list[Verdict] = []
    for number, secured in enumerate(kinds):
        verdicts = setup.judge(False, policy, secured=secured, score=score)
        if len(kinds) > 1:  # what one leaves out the other has
            verdicts = [one for one in verdicts if one.cut is None]
        for verdict in verdicts if number else ():
            verdict.why = (*verdict.why, "only when all before have failed")
        found += verdicts
    return found


def _learning(setup: Setup, policy: SystemPolicy) -> Learning | None:
    """What counts of the past: nothing for a Connection that is isolated (RFC 9622 section
    8.1.10), nor for one to this machine."""
    ends = setup.remote_endpoints
    if not policy.use_history or setup.properties.get("isolateSession"):
        return None
    if all(end.ip_address is not None and is_here(end.ip_address) for end in ends):
        return None
    return Learning(default_history(), now)


def _local_addresses(local: LocalEndpoint | None, deadline: Deadline) -> tuple[Any, ...]:
    """The socket addresses of a Local Endpoint; none where the system chooses."""
    if local is None or (local.hostname is None and local.ip_address is None):
        return ()
    return tuple(resolve_local([local], deadline, passive=False))


def _race(
    setup: Setup, secured: bool, begun: float, deadline: Deadline, additions: Additions | None
) -> Established:
    policy = policy_in_force()
    learning = _learning(setup, policy)
    root = grow(setup, deadline, [secured], policy, learning)

    def delay(parent: Node, child: Node) -> float:
        return policy.delay(parent.branch, None if learning is None else learning.expected(child))

    def learn(node: Node, since: float, result: Established | None) -> None:
        assert learning is not None
        seconds = now() - since
        if result is not None:
            result.remember = partial(learning.measured, node, result.transport)
            learning.succeeded(node, seconds, result.transport)
        elif seconds >= PATIENCE or not deadline.passed():
            learning.failed(node)

    race = Race(root, modes=policy.modes, delay=delay)
    history = _explanation(setup, root, race.story, begun)
    running = Establishment(
        race,
        setup.attempt(deadline),
        setup.framers,
        _LookUps(setup, learning, deadline).derive,
        None if learning is None else learn,
        temporary=setup.temporary,
        may_grow=additions is not None,
        first=setup.first,
    )

    def join(ends: dict[str, Any]) -> None:
        more = grow(replace(setup, **ends), deadline, [secured], policy, learning)
        running.join(graft(root, more))

    try:
        with nullcontext() if additions is None else additions.going_to(join):
            established = running.run()
    except EstablishmentError as error:
        error.history = history
        raise
    established.history = history
    established.phases = (("resolution", history.preparation), *established.phases)
    return established


def _look_up_all(setup: Setup, root: Node, learning: Learning | None, deadline: Deadline) -> None:
    """Look up every name of a tree that may be tried.  A switchpoint."""
    look_ups = _LookUps(setup, learning, deadline)
    open_ = [node for node in root.walk() if node.unresolved]
    waiting = Parked[None](get_runner())
    listening: list[_Listening] = []

    def deliver(node: Node, news: News) -> None:
        attach(node, news.added, news.order, temporary=setup.temporary)
        if news.error is not None:
            node.cut = f"not resolved: {news.error}"
        if news.complete:
            open_.remove(node)
            if not open_:
                waiting.finish(None)

    try:
        listening.extend(look_ups.derive(node, partial(deliver, node)) for node in list(open_))
        if open_:
            waiting.wait()  # the look-ups have the deadline
    finally:
        for one in listening:
            one.cancel()


# -- Names --


class _LookUps:
    """The look-ups of one establishment: the same name on the same path is asked for once."""

    def __init__(self, setup: Setup, learning: Learning | None, deadline: Deadline) -> None:
        self._resolver = setup.resolver
        self._history = None if learning is None else learning.history
        self._deadline = deadline
        self._shared: dict[Any, _Shared] = {}

    def derive(
        self, node: Node, deliver: Callable[[News], None], last_resort: bool = False
    ) -> _Listening:
        """Look up the name of *node*; see `Establishment`."""
        way, stack, end = node.path, node.stack, node.endpoint
        assert way is not None
        assert stack is not None
        assert end is not None
        protocol = service_protocol(stack)
        families = _families(way)
        key = (end, way.interface, families, protocol if end.service else None, last_resort)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _Shared()
            shared.look_up = resolve(
                end,
                interface=way.interface,
                families=families,
                protocol=protocol,
                history=self._history,
                network=way.network,
                deadline=self._deadline,
                deliver=shared.tell,
                resolver=self._resolver,
                last_resort=last_resort,
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
