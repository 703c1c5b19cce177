"""The Preconnection: everything that is known before there is a Connection (RFC 9622 section 6).

It is a passive record.  Each action works on a copy of all it holds, so that nothing that is
changed afterwards, here or in an object that was handed in, reaches what the action has made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import EstablishmentError, Reason, Timeout, TransportError
from ..framers import Framer
from ..hub import Deadline, now, switchpoint
from ..plugins import Attempt, Stack, stacks
from .candidates import choose_stacks, gather
from .connection import Connection
from .endpoint import Endpoint, LocalEndpoint, RemoteEndpoint
from .establishing import establish
from .listener import Listener
from .naming import resolve_local, resolve_remote
from .properties import REQUIRE, PREFER, TransportProperties
from .security import SecurityParameters

__all__ = ["Preconnection"]

E = TypeVar("E", bound=Endpoint)


class Preconnection:
    """``NewPreconnection`` of RFC 9622 section 6.

    *local_endpoint* and *remote_endpoint* are one Endpoint or several; *transport_properties* are
    the defaults if left out.  Without *security_parameters* the library adds no security;
    ``SecurityParameters()`` adds TLS with verification.  Nothing is sent or opened.

    Raises TypeError for arguments of another type.
    """

    def __init__(
        self,
        local_endpoint: LocalEndpoint | Iterable[LocalEndpoint] | None = None,
        remote_endpoint: RemoteEndpoint | Iterable[RemoteEndpoint] | None = None,
        transport_properties: TransportProperties | None = None,
        security_parameters: SecurityParameters | None = None,
    ) -> None:
        self.local_endpoints = _endpoints(local_endpoint, LocalEndpoint)
        self.remote_endpoints = _endpoints(remote_endpoint, RemoteEndpoint)
        if transport_properties is None:
            transport_properties = TransportProperties()
        if not isinstance(transport_properties, TransportProperties):
            raise TypeError(f"not TransportProperties: {transport_properties!r}")
        if security_parameters is not None and not isinstance(
            security_parameters, SecurityParameters
        ):
            raise TypeError(f"not SecurityParameters: {security_parameters!r}")
        self.transport_properties = transport_properties
        self.security_parameters = security_parameters
        self._framers: list[Framer] = []

    def add_framer(self, framer: Framer) -> Preconnection:
        """Put *framer* on top of the stack of every Connection made from now on (RFC 9622 section
        9.1.2.1).  The one added last is the first to see what is sent.  Returns this object."""
        if not isinstance(framer, Framer):
            raise TypeError(f"not a Framer: {framer!r}")
        self._framers.append(framer)
        return self

    @switchpoint
    def initiate(self, timeout: float | None = None) -> Connection:
        """Establish a Connection to the Remote Endpoint and return it when it is ready (RFC 9622
        section 7.1).

        *timeout* (seconds) covers name resolution, every attempt, and the handshakes.  Raises
        EstablishmentError, which tells what was tried and why each attempt failed.
        """
        deadline = Deadline(timeout)
        framers, properties, security = self._snapshot()
        template = _template(properties, security, deadline)
        chosen = _choose(properties, security)
        _check(chosen, template, server_side=False)
        if not self.remote_endpoints:
            raise EstablishmentError(
                "Initiate needs a Remote Endpoint", Reason.INVALID_CONFIGURATION
            )
        begun = now()
        remotes = resolve_remote([end.copy() for end in self.remote_endpoints], deadline)
        locals_ = resolve_local(
            [end.copy() for end in self.local_endpoints], deadline, passive=False
        )
        candidates = gather(chosen, remotes, locals_)
        if not candidates:
            raise EstablishmentError(
                "the Local and the Remote Endpoints have no address family in common",
                Reason.INVALID_CONFIGURATION,
            )
        resolved = now() - begun
        established = establish(candidates, template)
        phases = (("resolution", resolved), *established.phases)
        try:
            return Connection(replace(established, phases=phases), framers, properties)
        except BaseException as error:
            established.transport.abort()
            if isinstance(error, TransportError):
                raise EstablishmentError(
                    "the connection was lost at once",
                    Reason.ESTABLISHMENT_FAILED,
                    [(established.candidate, error)],
                ) from error
            raise

    @switchpoint
    def listen(self, timeout: float | None = None) -> Listener:
        """Listen on the Local Endpoint and return the Listener (RFC 9622 section 7.2).

        A Local Endpoint without an address means every address of this machine, one without a
        port a port of the system's choice.  *timeout* (seconds) is for the resolution of names.
        Raises EstablishmentError.
        """
        deadline = Deadline(timeout)
        framers, properties, security = self._snapshot()
        template = _template(properties, security, Deadline(None))
        chosen = _choose(properties, security)[:1]
        _check(chosen, template, server_side=True)
        if not self.local_endpoints:
            raise EstablishmentError("Listen needs a Local Endpoint", Reason.INVALID_CONFIGURATION)
        locals_ = resolve_local(
            [end.copy() for end in self.local_endpoints], deadline, passive=True
        )
        listener = Listener(template, framers, properties)
        try:
            for stack in chosen:
                for local in locals_:
                    _open(listener, stack, local)
        except BaseException:
            listener.stop()
            raise
        return listener

    def _snapshot(
        self,
    ) -> tuple[tuple[Framer, ...], TransportProperties, SecurityParameters | None]:
        security = self.security_parameters
        return (
            tuple(self._framers),
            self.transport_properties.copy(),
            None if security is None or security.is_disabled else security.copy(),
        )

    def __repr__(self) -> str:
        return (
            f"<Preconnection local={self.local_endpoints!r} remote={self.remote_endpoints!r} "
            f"{self.transport_properties!r} "
            f"security={'none' if self.security_parameters is None else 'set'}>"
        )


def _endpoints(given: Any, kind: type[E]) -> list[E]:
    if given is None:
        return []
    found = [given] if isinstance(given, Endpoint) else list(given)
    for endpoint in found:
        if not isinstance(endpoint, kind):
            raise TypeError(f"a {kind.__name__} is needed, not {endpoint!r}")
    return found


def _choose(
    properties: TransportProperties, security: SecurityParameters | None
) -> list[Stack]:
    return choose_stacks(properties, stacks(), secured=security is not None)


def _template(
    properties: TransportProperties, security: SecurityParameters | None, deadline: Deadline
) -> Attempt:
    # An option of the stack is switched on for whoever wants it.
    wanted = {name: level in (REQUIRE, PREFER) for name, level in properties}
    return Attempt(properties=wanted, security=security, deadline=deadline)


def _check(chosen: Sequence[Stack], template: Attempt, *, server_side: bool) -> None:
    """Fail before anything is opened if a stack can never work as configured."""
    for stack in chosen:
        for plugin in stack:
            try:
                plugin.check(template, server_side=server_side)
            except (ValueError, OSError) as error:
                raise EstablishmentError(
                    str(error), Reason.INVALID_CONFIGURATION, [(plugin.name, error)]
                ) from error


def _open(listener: Listener, stack: Stack, local: Any) -> None:
    try:
        listener.open(stack, local)
    except (TransportError, Timeout) as error:
        raise EstablishmentError(
            "cannot listen", Reason.ESTABLISHMENT_FAILED, [(local, error)]
        ) from error
