"""A Setup: the copy of everything that a Preconnection holds, made at the moment of an action.

Nothing that is changed afterwards, in the Preconnection or in an object that was handed to it,
reaches what the action has made (RFC 9622 sections 7.1 to 7.3).  A Connection keeps its Setup,
and a clone of it is established from the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ..errors import EstablishmentError, Reason
from ..framers import Framer
from ..hub import Deadline
from ..plugins import Attempt, Stack, stack_name, stacks
from .choosing.candidates import (
    Performance,
    Score,
    Verdict,
    Way,
    check_properties,
    choose_ways,
    judge_stacks,
    require_one,
)
from .choosing.establishing import Established
from .choosing.gathering import Additions, establish
from .choosing.policy import SystemPolicy, policy_in_force
from .early import First
from .endpoint import LocalEndpoint, RemoteEndpoint
from .events import Events
from .naming.resolver import Resolver
from .paths.survey import survey
from .properties import (
    MESSAGE_DEFAULTS,
    PREFER,
    REQUIRE,
    UNLIMITED,
    CapacityProfile,
    ConnectionProperties,
    Group,
    Preference,
    Role,
    Special,
    TransportProperties,
    find_property,
)
from .security import SecurityParameters

__all__ = ["SPECIAL_MESSAGES", "Setup", "plain"]

# Message Properties that make a Message more than data when they are set for all Messages.
SPECIAL_MESSAGES = frozenset(MESSAGE_DEFAULTS) - {"safelyReplayable", "msgChecksumLen"}


T = TypeVar("T")


class _Once(Generic[T]):
    """A property that is found out when it is asked for first; as functools' in newer Pythons,
    which takes no lock."""

    def __init__(self, find: Callable[[Any], T]) -> None:
        self.__doc__ = find.__doc__
        self._find = find
        self._name = find.__name__

    def __get__(self, one: Any, kind: Any = None) -> T:
        found = one.__dict__[self._name] = self._find(one)
        return found


@dataclass(frozen=True)
class Setup:
    """What a Connection or a Listener is made of.  *security* is None where none is added."""

    role: Role
    local_endpoints: tuple[LocalEndpoint, ...]
    remote_endpoints: tuple[RemoteEndpoint, ...]
    properties: TransportProperties
    security: SecurityParameters | None
    framers: tuple[Framer, ...]
    events: Events | None = None
    resolver: Resolver | None = None
    first: First | None = None  # what may be sent during the establishment

    # What each Connection asks at its beginning, found out once for all that a Listener makes:

    @_Once
    def direction(self) -> Any:
        """The property of this name."""
        return self.properties.get("direction")

    @_Once
    def special_messages(self) -> bool:
        """Whether a Message without a context is not just data, because of what the application
        has set for all Messages."""
        return not SPECIAL_MESSAGES.isdisjoint(self.properties.explicit())

    @_Once
    def receive_ecn(self) -> bool:
        """Whether the ECN field of received datagrams is asked for."""
        return bool(self.properties.get("_greentaps.receiveEcn"))

    @_Once
    def zero_rtt(self) -> bool:
        """Whether data is to travel with the establishment where that can be had."""
        return self.properties.get("zeroRttMsg") in (REQUIRE, PREFER)

    @_Once
    def limits(self) -> tuple[Any, Any, bool]:
        """The properties maxSendRate and maxRecvRate, and whether soft errors are wanted."""
        get = self.properties.get
        soft = get("softErrorNotify") in (REQUIRE, PREFER)
        return (get("maxSendRate"), get("maxRecvRate"), soft)

    @_Once
    def unlimited(self) -> bool:
        """Whether nothing of `limits` needs any doing."""
        return self.limits == (UNLIMITED, UNLIMITED, False)

    def choose(self, *, server_side: bool) -> list[Stack]:
        """The stacks to try, best first.  Fails, before anything is opened, if there is none that
        can work as configured.  Raises EstablishmentError."""
        self.check()
        policy = policy_in_force()
        secured = self.security is not None
        if self.security is None or not self.security.is_opportunistic:
            return self._usable(server_side, policy, secured=secured)
        if server_side:
            return self._usable_opportunistically(policy)
        plain = self._usable(server_side, policy, secured=False)
        try:
            return [*self._usable(server_side, policy, secured=True), *plain]
        except EstablishmentError as error:
            if error.reason is not Reason.NO_CANDIDATES:
                raise
            return plain

    def _usable_opportunistically(self, policy: SystemPolicy) -> list[Stack]:
        """For a Listener, which finds out for each client whether it speaks TLS: by the client's
        first word, so it cannot promise to have the first one itself (RFC 9622 section 6.2.18)."""
        if self.properties.get("activeReadBeforeSend") in (REQUIRE, PREFER):
            raise EstablishmentError(
                "an opportunistic listener knows by a client's first word whether it speaks TLS, "
                "and activeReadBeforeSend asks for a listener that speaks first",
                Reason.INVALID_CONFIGURATION,
            )
        self._usable(True, policy, secured=True)  # with what TLS needs of a server
        return self._usable(True, policy, secured=False)

    def secured(self, stack: Stack) -> Stack | None:
        """With opportunistic security: the stack that adds it to *stack*, if there is one."""
        if self.security is None or not self.security.is_opportunistic:
            return None
        better = self._usable(True, policy_in_force(), secured=True)
        return next((one for one in better if one[1:] == stack), None)

    def check(self) -> None:
        """Whether the Endpoints and the properties fit the role, each other and this machine: what
        can be said before anything is opened.  Raises EstablishmentError."""
        self.check_wishes()
        self.ways([(local, ()) for local in self.local_endpoints or (None,)], policy_in_force())

    def check_wishes(self) -> None:
        """`check`, without a look at the ways out.  Raises EstablishmentError."""
        if self.role is Role.INITIATE and not self.remote_endpoints:
            raise EstablishmentError(
                "Initiate needs a Remote Endpoint", Reason.INVALID_CONFIGURATION
            )
        if self.role is Role.LISTEN and not self.local_endpoints:
            raise EstablishmentError("Listen needs a Local Endpoint", Reason.INVALID_CONFIGURATION)
        for end in self.remote_endpoints:
            if end.hostname is None and end.ip_address is None:
                raise EstablishmentError(
                    f"a Remote Endpoint needs a host name or an address: {end!r}",
                    Reason.INVALID_CONFIGURATION,
                )
            if self.role is Role.INITIATE and end.port is None and end.service is None:
                raise EstablishmentError(
                    f"a Remote Endpoint needs a port or a service: {end!r}",
                    Reason.INVALID_CONFIGURATION,
                )
        check_properties(self.properties)
        if self.role is Role.RENDEZVOUS and self.properties.get("zeroRttMsg") is REQUIRE:
            raise EstablishmentError(
                "zeroRttMsg is required, and nothing is sent before a rendezvous is done",
                Reason.INVALID_CONFIGURATION,
            )

    def _usable(self, server_side: bool, policy: SystemPolicy, *, secured: bool) -> list[Stack]:
        verdicts = self.judge(server_side, policy, secured=secured)
        return [verdict.stack for verdict in verdicts if verdict.cut is None]

    def judge(
        self,
        server_side: bool,
        policy: SystemPolicy,
        *,
        secured: bool,
        score: Score | None = None,
    ) -> list[Verdict]:
        """The stacks that agree with the properties, and that can do what the application wants
        of them (RFC 9622 section 6.3: Security Parameters may narrow the choice), and the others
        with what is against them.  Raises EstablishmentError if none is left."""
        verdicts = judge_stacks(
            self.properties, stacks(), secured=secured, policy=policy, score=score
        )
        require_one(verdicts, policy)
        attempt = self.attempt(Deadline(None))
        failures: list[tuple[Any, BaseException]] = []
        for verdict in verdicts:
            if verdict.cut is not None:
                continue
            for plugin in verdict.stack:
                try:
                    plugin.check(attempt, server_side=server_side)
                except (ValueError, OSError) as error:
                    verdict.cut = str(error)
                    failures.append((stack_name(verdict.stack), error))
                    break
        if all(verdict.cut is not None for verdict in verdicts):
            why = failures[0][1]
            raise EstablishmentError(str(why), Reason.INVALID_CONFIGURATION, failures) from why
        return verdicts

    def attempt(self, deadline: Deadline, admit: Callable[[Any], bool] | None = None) -> Attempt:
        """What plugins are told, but for the addresses."""
        return Attempt(options=self.options, security=self.security, deadline=deadline, admit=admit)

    @_Once
    def options(self) -> Mapping[str, Any]:
        """What the application has set, as plugins get it."""
        return {name: plain(value) for name, value in self.properties.explicit().items()}

    def establish(self, deadline: Deadline, additions: Additions | None = None) -> Established:
        """Resolve, gather and race.  A switchpoint.  Raises EstablishmentError."""
        return establish(self, deadline, additions)

    def paths(self, end: LocalEndpoint) -> list[str | None]:
        """The interfaces to listen on for a Local Endpoint; None is all of them.  Raises
        EstablishmentError if there is none."""
        ways = self.ways([(end, ())], policy_in_force())
        return [way.interface for way in ways if way.cut is None]

    @_Once
    def temporary(self) -> Preference | None:
        """What the application itself has said of temporary addresses."""
        level = self.properties.explicit().get("useTemporaryLocalAddress")
        return level if isinstance(level, Preference) else None

    def ways(
        self,
        ends: Sequence[tuple[LocalEndpoint | None, tuple[Any, ...]]],
        policy: SystemPolicy,
        *,
        look: bool = False,
        performance: Performance | None = None,
    ) -> list[Way]:
        """The ways out, best first, and those that are cut.  The interfaces are looked at only if
        somebody has a wish, or with *look*.  Raises EstablishmentError if all are cut."""
        wishes = [*self.properties.get("interface"), *self.properties.get("pvd")]
        look = look or bool(wishes) or policy.restricts_interfaces()
        found = choose_ways(ends, self.properties, policy, survey() if look else None, performance)
        if all(way.cut is not None for way in found):
            raise _no_way(found, [local for local, _ in ends], wishes, policy)
        return found

    def with_framers(self, framers: Sequence[Framer]) -> Setup:
        """The same with other framers."""
        return replace(self, framers=tuple(framers))

    def with_properties(self, live: ConnectionProperties) -> Setup:
        """The same with the Connection Properties that *live* has now."""
        properties = self.properties.copy()
        for name, value in live.items():
            if live.is_set(name) and find_property(name).group is Group.CONNECTION:
                properties.set(name, value)
        return replace(self, properties=properties)


def _no_way(
    found: Sequence[Way],
    locals_: Sequence[LocalEndpoint | None],
    wishes: Sequence[tuple[Any, Any]],
    policy: SystemPolicy,
) -> EstablishmentError:
    """Why there is no path."""
    reasons = "; ".join(f"{way.interface}: {way.cut}" for way in found)
    if any("policy" in str(way.cut) for way in found):
        return EstablishmentError(
            f"policy leaves no interface ({reasons})", Reason.POLICY_PROHIBITED
        )
    own = next((end.interface for end in locals_ if end is not None and end.interface), None)
    if own is not None:
        said = ", ".join(f"{str(level).lower()} {what}" for level, what in wishes)
        return EstablishmentError(
            f"the Local Endpoint is on {own}, and the properties interface and pvd say: {said} "
            f"({reasons})",
            Reason.INVALID_CONFIGURATION,
        )
    return EstablishmentError(
        f"no interface of this machine is as required, and not prohibited ({reasons})",
        Reason.NO_CANDIDATES,
    )


def plain(value: Any) -> Any:
    """The value of a property as plugins get it: see `Attempt`."""
    if isinstance(value, Preference):
        return value in (REQUIRE, PREFER)
    if isinstance(value, CapacityProfile):
        return value.dscp
    if isinstance(value, Special):
        return None
    return value
