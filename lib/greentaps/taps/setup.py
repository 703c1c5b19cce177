"""A Setup: the copy of everything that a Preconnection holds, made at the moment of an action.

Nothing that is changed afterwards, in the Preconnection or in an object that was handed to it,
reaches what the action has made (RFC 9622 sections 7.1 to 7.3).  A Connection keeps its Setup, and a
clone of it is established from the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import EstablishmentError, Reason
from ..framers import Framer
from ..hub import Deadline, now
from ..plugins import Attempt, Stack, stacks
from .candidates import choose_stacks, gather
from .endpoint import LocalEndpoint, RemoteEndpoint
from .establishing import Established, establish
from .events import Events
from .naming import resolve_local, resolve_remote
from .properties import (
    PREFER,
    REQUIRE,
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

__all__ = ["Setup"]


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
        """The stacks to try, best first.  Fails, before anything is opened, if there is none, or
        if one can never work as configured.  Raises EstablishmentError."""
        chosen = choose_stacks(self.properties, stacks(), secured=self.security is not None)
        attempt = self.attempt(Deadline(None))
        for stack in chosen:
            for plugin in stack:
                try:
                    plugin.check(attempt, server_side=server_side)
                except (ValueError, OSError) as error:
                    raise EstablishmentError(
                        str(error), Reason.INVALID_CONFIGURATION, [(plugin.name, error)]
                    ) from error
        return chosen

    def attempt(
        self, deadline: Deadline, admit: Callable[[Any], bool] | None = None
    ) -> Attempt:
        """What plugins are told, but for the addresses."""
        wanted = {name: plain(value) for name, value in self.properties.explicit().items()}
        return Attempt(options=wanted, security=self.security, deadline=deadline, admit=admit)

    def establish(self, deadline: Deadline) -> Established:
        """Resolve, gather and race.  A switchpoint.  Raises EstablishmentError."""
        chosen = self.choose(server_side=False)
        if not self.remote_endpoints:
            raise EstablishmentError(
                "Initiate needs a Remote Endpoint", Reason.INVALID_CONFIGURATION
            )
        begun = now()
        remotes = resolve_remote(self.remote_endpoints, deadline)
        locals_ = resolve_local(self.local_endpoints, deadline, passive=False)
        candidates = gather(chosen, remotes, locals_)
        if not candidates:
            raise EstablishmentError(
                "the Local and the Remote Endpoints have no address family in common",
                Reason.INVALID_CONFIGURATION,
            )
        resolved = now() - begun
        established = establish(candidates, self.attempt(deadline), self.framers)
        return replace(established, phases=(("resolution", resolved), *established.phases))

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


def plain(value: Any) -> Any:
    """The value of a property as plugins get it: see `Attempt`."""
    if isinstance(value, Preference):
        return value in (REQUIRE, PREFER)
    if isinstance(value, CapacityProfile):
        return value.dscp
    if isinstance(value, Special):
        return None
    return value
