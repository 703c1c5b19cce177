"""A Setup: the copy of everything that a Preconnection holds, made at the moment of an action.

Nothing that is changed afterwards, in the Preconnection or in an object that was handed to it,
reaches what the action has made (RFC 9622 sections 7.1 to 7.3).  A Connection keeps its Setup,
and a clone of it is established from the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..errors import EstablishmentError, Reason
from ..framers import Framer
from ..hub import Deadline, now
from ..plugins import Attempt, Stack, secured, stack_name, stacks
from .candidates import Candidate, choose_stacks, gather
from .endpoint import Endpoint, LocalEndpoint, RemoteEndpoint
from .establishing import Established, establish
from .events import Events
from .naming import resolve_local, resolve_remote
from .paths import choose_interfaces, interfaces
from .properties import (
    PREFER,
    REQUIRE,
    CapacityProfile,
    ConnectionProperties,
    Group,
    InterfaceType,
    Preference,
    Role,
    Special,
    TransportProperties,
    find_property,
)
from .security import SecurityParameters

__all__ = ["Setup", "for_stack"]

E = TypeVar("E", bound=Endpoint)

# How long opportunistic security tries TLS with a peer that may not understand it.
OPPORTUNITY = 5.0  # seconds


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

    def choose(self, *, server_side: bool) -> list[Stack]:
        """The stacks to try, best first.  Fails, before anything is opened, if there is none that
        can work as configured.  Raises EstablishmentError."""
        if self.role is Role.INITIATE and not self.remote_endpoints:
            raise EstablishmentError(
                "Initiate needs a Remote Endpoint", Reason.INVALID_CONFIGURATION
            )
        if self.role is Role.LISTEN and not self.local_endpoints:
            raise EstablishmentError("Listen needs a Local Endpoint", Reason.INVALID_CONFIGURATION)
        self._check_paths()
        if self.security is None or not self.security.is_opportunistic:
            return self._usable(server_side, secured=self.security is not None)
        if server_side:
            raise EstablishmentError(
                "a listener cannot be opportunistic: a client without TLS may wait for our first "
                "word, and nothing tells it from one with TLS",
                Reason.INVALID_CONFIGURATION,
            )
        plain = self._usable(server_side, secured=False)
        try:
            return [*self._usable(server_side, secured=True), *plain]
        except EstablishmentError as error:
            if error.reason is not Reason.NO_CANDIDATES:
                raise
            return plain

    def _usable(self, server_side: bool, *, secured: bool) -> list[Stack]:
        """The stacks that agree with the properties, and that can do what the application wants
        of them (RFC 9622 section 6.3: Security Parameters may narrow the choice)."""
        attempt = self.attempt(Deadline(None))
        kept = []
        failures: list[tuple[Any, BaseException]] = []
        for stack in choose_stacks(self.properties, stacks(), secured=secured):
            for plugin in stack:
                try:
                    plugin.check(attempt, server_side=server_side)
                except (ValueError, OSError) as error:
                    failures.append((stack_name(stack), error))
                    break
            else:
                kept.append(stack)
        if not kept:
            why = failures[0][1]
            raise EstablishmentError(str(why), Reason.INVALID_CONFIGURATION, failures) from why
        return kept

    def attempt(self, deadline: Deadline, admit: Callable[[Any], bool] | None = None) -> Attempt:
        """What plugins are told, but for the addresses."""
        wanted = {name: plain(value) for name, value in self.properties.explicit().items()}
        return Attempt(options=wanted, security=self.security, deadline=deadline, admit=admit)

    def establish(self, deadline: Deadline) -> Established:
        """Resolve, gather and race.  A switchpoint.  Raises EstablishmentError."""
        chosen = self.choose(server_side=False)
        begun = now()
        candidates = self._candidates(chosen, deadline)
        if not candidates:
            raise EstablishmentError(
                "the Local and the Remote Endpoints have no address family in common",
                Reason.INVALID_CONFIGURATION,
            )
        resolved = now() - begun
        if self.security is not None and self.security.is_opportunistic:
            established = self._establish_opportunistically(candidates, deadline)
        else:
            established = establish(candidates, self.attempt(deadline), self.framers)
        return replace(established, phases=(("resolution", resolved), *established.phases))

    def _establish_opportunistically(
        self, candidates: Sequence[Candidate], deadline: Deadline
    ) -> Established:
        """TLS first, and what is without only when that has failed: never in one race, which an
        attacker could decide by a delay (RFC 9623 section 12.1)."""
        better = [candidate for candidate in candidates if secured(candidate.stack)]
        others = [candidate for candidate in candidates if not secured(candidate.stack)]
        attempts: tuple[tuple[Any, BaseException], ...] = ()
        if better:
            left = deadline.left()
            limit = OPPORTUNITY if left is None else min(OPPORTUNITY, left / 2)
            try:
                return establish(better, self.attempt(Deadline(limit)), self.framers)
            except EstablishmentError as error:
                attempts = error.attempts
        try:
            return establish(others, self.attempt(deadline), self.framers)
        except EstablishmentError as error:
            raise EstablishmentError(
                error.message, error.reason, (*attempts, *error.attempts)
            ) from error

    def _check_paths(self) -> None:
        """Whether the properties that choose paths agree with this machine, and with the Local
        Endpoints.  Raises EstablishmentError."""
        for level, domain in self.properties.get("pvd"):
            if level is REQUIRE:
                raise EstablishmentError(
                    f"this machine knows no provisioning domain {domain}", Reason.NO_CANDIDATES
                )
        for endpoint in self.local_endpoints or (None,):
            self.paths(endpoint)

    def paths(self, local: LocalEndpoint | None) -> list[str | None]:
        """The interfaces to use with a Local Endpoint, best first; None is whichever the system
        takes.  Raises EstablishmentError if there is none."""
        own = None if local is None else local.interface
        wishes = self.properties.get("interface")
        if not wishes:
            return [own]
        found = interfaces()
        if own is None:
            return choose_interfaces(wishes, found)
        here = [one for one in found if one[0] == own] or [(own, InterfaceType.OTHER)]
        try:
            choose_interfaces(wishes, here)
        except EstablishmentError as error:
            said = ", ".join(f"{str(level).lower()} {what}" for level, what in wishes)
            raise EstablishmentError(
                f"the Local Endpoint is on {own}, and the property interface says: {said}",
                Reason.INVALID_CONFIGURATION,
            ) from error
        return [own]

    def _candidates(self, chosen: Sequence[Stack], deadline: Deadline) -> list[Candidate]:
        """All candidates in the order of the attempts: for each Local Endpoint the interfaces, for
        each of these the stacks, and for these the addresses.  A switchpoint.  Raises
        EstablishmentError."""
        resolved: dict[tuple[RemoteEndpoint, ...], list[Any]] = {}
        locals_ = self._locals(deadline)
        found = []
        ways = [(end, names, way) for end, names in locals_ for way in self.paths(end)]
        for local, names, interface in ways:
            for stack in chosen:
                if local is not None and not _is_for(local, stack):
                    continue
                ends = for_stack(self.remote_endpoints, stack)
                if ends and ends not in resolved:
                    resolved[ends] = resolve_remote(ends, deadline)
                found += [
                    replace(
                        candidate,
                        local=candidate.local or _from_port(local, candidate.remote),
                        interface=interface,
                        hop_limit=_hop_limit(ends, local),
                    )
                    for candidate in gather([stack], resolved.get(ends, ()), names)
                ]
        if self.properties.get("useTemporaryLocalAddress") is REQUIRE:
            found = [candidate for candidate in found if ":" in candidate.remote[0]]
            if not found:
                raise EstablishmentError(
                    "only IPv6 has temporary addresses, and there is no IPv6 address to connect to",
                    Reason.NO_CANDIDATES,
                )
        return found

    def _locals(self, deadline: Deadline) -> list[tuple[LocalEndpoint | None, list[Any]]]:
        """The Local Endpoints with their socket addresses, which are none where the system
        chooses."""
        if not self.local_endpoints:
            return [(None, [])]
        return [
            (
                end,
                []
                if end.hostname is None and end.ip_address is None
                else resolve_local([end], deadline, passive=False),
            )
            for end in self.local_endpoints
        ]

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


def for_stack(endpoints: Sequence[E], stack: Stack) -> tuple[E, ...]:
    """Those of *endpoints* that count for *stack*: the ones made for a protocol in it, if there
    are any, else those that are for all (RFC 9622 section 6.1.3)."""
    special = tuple(end for end in endpoints if end.protocol is not None and _is_for(end, stack))
    return special or tuple(end for end in endpoints if end.protocol is None)


def _is_for(endpoint: Endpoint, stack: Stack) -> bool:
    return endpoint.protocol is None or any(plugin.name == endpoint.protocol for plugin in stack)


def _hop_limit(remotes: Sequence[RemoteEndpoint], local: LocalEndpoint | None) -> int | None:
    ends: tuple[Endpoint, ...] = (*remotes, *([] if local is None else [local]))
    return next((end.hop_limit for end in ends if end.hop_limit is not None), None)


def _from_port(local: LocalEndpoint | None, remote: Any) -> Any:
    """The address to bind to if a Local Endpoint has a port alone; else None."""
    if local is None or not local.port:
        return None
    return ("::" if ":" in remote[0] else "0.0.0.0", local.port)


def plain(value: Any) -> Any:
    """The value of a property as plugins get it: see `Attempt`."""
    if isinstance(value, Preference):
        return value in (REQUIRE, PREFER)
    if isinstance(value, CapacityProfile):
        return value.dscp
    if isinstance(value, Special):
        return None
    return value
