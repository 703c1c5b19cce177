"""The Preconnection: everything that is known before there is a Connection (RFC 9622 section 6).

It is a passive record.  Each action works on a copy of all it holds, so that nothing that is
changed afterwards, here or in an object that was handed in, reaches what the action has made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import EstablishmentError, Reason, Timeout, TransportError
from ..framers import Framer
from ..hub import Deadline, switchpoint, wait_until_idle
from ..plugins import Plugin, Stack
from . import monitoring
from .choosing.candidates import for_stack
from .choosing.establishing import failure_reason
from .choosing.explaining import Explanation
from .choosing.gathering import explain
from .connection import Connection, SentHandler
from .endpoint import Endpoint, LocalEndpoint, RemoteEndpoint, endpoints_of
from .events import ConnectionHandlers, Events, ListenerHandlers
from .listener import Listener
from .message import MessageContext
from .naming.resolver import Resolver
from .naming.resolving import resolve_local, resolve_remote
from .paths.following import Plan
from .properties import Role, TransportProperties
from .rendezvous.driver import Gathering, Rendezvous, resolved_remotes, setup_of
from .security import SecurityParameters
from .setup import Setup

__all__ = ["Preconnection"]


class Preconnection(ConnectionHandlers, ListenerHandlers):
    """``NewPreconnection`` of RFC 9622 section 6.

    *local_endpoint* and *remote_endpoint* are one Endpoint or several; *transport_properties* are
    the defaults if left out.  Without *security_parameters* the library adds no security;
    ``SecurityParameters()`` adds TLS with verification, and so does ``security_needed=True``
    alone, or True in its place.  *unfulfilled_handler* is called, without arguments, when an
    establishment fails.  *resolver* is what asks for names, the default one if left out: see
    `DnsResolver`.  Nothing is sent or opened.

    Handlers that are set here are those of every Connection and Listener made afterwards.

    Raises TypeError for arguments of another type.
    """

    def __init__(
        self,
        local_endpoint: LocalEndpoint | Iterable[LocalEndpoint] | None = None,
        remote_endpoint: RemoteEndpoint | Iterable[RemoteEndpoint] | None = None,
        transport_properties: TransportProperties | None = None,
        security_parameters: SecurityParameters | bool | None = None,
        unfulfilled_handler: Callable[[], Any] | None = None,
        *,
        security_needed: bool = False,
        resolver: Resolver | None = None,
    ) -> None:
        if isinstance(security_parameters, bool):  # its place in older systems
            security_needed = security_parameters
            security_parameters = None
        self.local_endpoints = endpoints_of(local_endpoint, LocalEndpoint)
        self.remote_endpoints = endpoints_of(remote_endpoint, RemoteEndpoint)
        if transport_properties is None:
            transport_properties = TransportProperties()
        if not isinstance(transport_properties, TransportProperties):
            raise TypeError(f"not TransportProperties: {transport_properties!r}")
        if security_parameters is None and security_needed:
            security_parameters = SecurityParameters()
        if security_parameters is not None and not isinstance(
            security_parameters, SecurityParameters
        ):
            raise TypeError(f"not SecurityParameters: {security_parameters!r}")
        self.transport_properties = transport_properties
        self.security_parameters = security_parameters
        if resolver is not None and not isinstance(resolver, Resolver):
            raise TypeError(f"not a Resolver: {resolver!r}")
        self.resolver = resolver
        self._framers: list[Framer] = []
        self._events: Events | None = None
        self._gathering: Gathering | None = None
        self._rendezvous: Rendezvous | None = None  # the last one
        if unfulfilled_handler is not None:
            self.on_establishment_error(lambda _made, _error: unfulfilled_handler())

    def add_framer(self, framer: Framer) -> Preconnection:
        """Put *framer* on top of the stack of every Connection made from now on (RFC 9622 section
        9.1.2.1).  The one added last is the first to see what is sent.  Returns this object."""
        if not isinstance(framer, Framer):
            raise TypeError(f"not a Framer: {framer!r}")
        self._framers.append(framer)
        return self

    def add_remote(
        self, remote_endpoint: RemoteEndpoint | Iterable[RemoteEndpoint]
    ) -> Preconnection:
        """Add Remote Endpoints (RFC 9622 section 7.3); those that are known already are ignored.
        Returns this object."""
        _add(self.remote_endpoints, endpoints_of(remote_endpoint, RemoteEndpoint))
        return self

    def add_local(self, local_endpoint: LocalEndpoint | Iterable[LocalEndpoint]) -> Preconnection:
        """Add Local Endpoints, as `add_remote` does Remote ones.  Returns this object."""
        _add(self.local_endpoints, endpoints_of(local_endpoint, LocalEndpoint))
        return self

    def remove_remote(
        self, remote_endpoint: RemoteEndpoint | Iterable[RemoteEndpoint]
    ) -> Preconnection:
        """Undo `add_remote`; those that are not there are ignored.  Returns this object."""
        _remove(self.remote_endpoints, endpoints_of(remote_endpoint, RemoteEndpoint))
        return self

    def remove_local(
        self, local_endpoint: LocalEndpoint | Iterable[LocalEndpoint]
    ) -> Preconnection:
        """Undo `add_local`; those that are not there are ignored.  Returns this object."""
        _remove(self.local_endpoints, endpoints_of(local_endpoint, LocalEndpoint))
        return self

    @switchpoint
    def initiate(self, timeout: float | None = None, *, wait: bool = True) -> Connection:
        """Establish a Connection to the Remote Endpoint (RFC 9622 section 7.1).

        Returns it when it is ready; with ``wait=False`` at once, in the state Establishing, and
        Ready or EstablishmentError tells of the outcome.  *timeout* (seconds) covers name
        resolution, every attempt, and the handshakes.

        Raises EstablishmentError, which tells what was tried and why each attempt failed.  Without
        waiting it raises nothing but TypeError and ValueError for its own arguments: a failure is
        told once, by the event, also one that is seen before anything is opened; and then by each
        later call on the Connection.
        """
        deadline = Deadline(timeout)
        connection = Connection(self._setup(Role.INITIATE))
        if wait:
            connection.establish(deadline)
        else:
            connection.establish_soon(deadline)
        return connection

    @switchpoint
    def initiate_with_send(
        self,
        data: bytes | bytearray | memoryview,
        context: MessageContext | None = None,
        timeout: float | None = None,
        *,
        wait: bool = True,
        sent_handler: SentHandler | None = None,
    ) -> Connection:
        """`initiate`, with a first Message (RFC 9622 section 9.2.5).

        *context* should have ``safelyReplayable`` where it is true: with ``zeroRttMsg`` the Message
        then travels with the handshake if the stack has a way to (section 6.2.5), and else follows
        at once.  Returns when the Connection is ready and the Message sent; with ``wait=False`` at
        once.  If the establishment fails, EstablishmentError is all that is told; a Message that
        was to travel early may have arrived all the same.  The order of older systems,
        ``initiate_with_send(data, handler, context)``, is taken too.

        Raises what `initiate` and `Connection.send` raise.  If the Message that it waits for is not
        sent, the Connection is aborted.
        """
        if callable(context):
            sent_handler, context = context, None
        if isinstance(timeout, MessageContext):
            context, timeout = timeout, None
        deadline = Deadline(timeout)
        connection = Connection(self._setup(Role.INITIATE))
        connection.send_first(data, context, sent_handler, wait=wait)
        if wait:
            connection.establish(deadline)
            try:
                connection.wait_first(deadline)
            except BaseException:
                connection.abort()  # nobody gets it
                raise
        else:
            connection.establish_soon(deadline)
        return connection

    @switchpoint
    def listen(self, timeout: float | None = None) -> Listener:
        """Listen on the Local Endpoint and return the Listener (RFC 9622 section 7.2).

        A Local Endpoint without an address means every address of this machine, one without a
        port a port of the system's choice.  Remote Endpoints, if there are any, are the only
        peers that are let in.  Of several stacks over one protocol, as TCP, the best is used.
        *timeout* (seconds) is for the resolution of names.  Raises EstablishmentError, after the
        event of the same name.
        """
        try:
            return self._listen(Deadline(timeout))
        except EstablishmentError as error:
            self._emit("establishment_error", error)
            raise

    def _listen(self, deadline: Deadline) -> Listener:
        setup = self._setup(Role.LISTEN)
        chosen = setup.choose(server_side=True)
        locals_ = [
            (end, resolve_local([end], deadline, passive=True)) for end in setup.local_endpoints
        ]
        listener = Listener(setup, setup.attempt(Deadline(None), admit=_filter(setup, deadline)))
        try:
            taken = set()
            bound: list[Plan] = []  # what is on some interfaces only
            for end, names in locals_:
                stacks = _one_for_each_port(
                    stack for stack in chosen if end in for_stack(setup.local_endpoints, stack)
                )
                for address in names:
                    key = (address, end.interface, end.protocol)
                    if key in taken:
                        continue
                    for at in _at_each(end, setup.paths(end)):
                        for stack in stacks:
                            taken.add(key)
                            # One port for all, also where the system has chosen it.
                            port = _open(listener, stack, address, at)[1]
                            address = (address[0], port, *address[2:])
                    if None not in setup.paths(end):
                        bound += [Plan(stack, address, end) for stack in stacks]
            if not taken:
                raise EstablishmentError(
                    "no Local Endpoint is for a protocol that has what is asked for",
                    Reason.INVALID_CONFIGURATION,
                )
            if bound:
                listener.follow(bound, setup.paths)
        except BaseException:
            listener.give_up()
            raise
        monitoring.listening(listener)
        return listener

    @switchpoint
    def explain(self, timeout: float | None = None, *, resolve: bool = True) -> Explanation:
        """What `initiate` would try now, and in which order: the tree of candidates, with the
        reason for each place and for what is cut (RFC 9623 section 4.1).

        With *resolve* names are looked up, for at most *timeout* seconds; without it nothing
        leaves this machine, and names stay names.  Nothing is opened.  Raises EstablishmentError
        if there is no candidate.
        """
        return explain(self._setup(Role.INITIATE), Deadline(timeout), names=resolve)

    @switchpoint
    def resolve(
        self, timeout: float | None = None
    ) -> tuple[list[LocalEndpoint], list[RemoteEndpoint]]:
        """The concrete addresses of both ends (RFC 9622 section 7.3), to tell the peer of: see
        `Endpoint.to_text`.

        The Local Endpoints are those of this machine's interfaces, and what the STUN and TURN
        servers add; a server that does not answer within *timeout* (seconds; 5 if left out) adds
        nothing.  The Remote Endpoints have addresses for their names.  Nothing is sent to the
        peer.  Name servers, STUN and TURN servers learn that somebody asks.

        The sockets behind the Local Endpoints stay open until the `rendezvous` that uses them, or
        `release`, or for five minutes; so what the peer is told stays true.  It holds a secret
        that the checks are signed with, a new one for each rendezvous: tell it to one peer only.
        Raises EstablishmentError.
        """
        deadline = Deadline(timeout)
        setup, chosen = setup_of(self._setup(Role.RENDEZVOUS))
        remotes = resolved_remotes(setup.remote_endpoints, deadline, setup.resolver)
        bases = self._hold().gather(setup, chosen, deadline)
        return [end for base in bases for end in base.endpoints()], remotes

    @switchpoint
    def rendezvous(self, timeout: float | None = None, *, wait: bool = True) -> Connection:
        """Open a Connection together with a peer that does the same (RFC 9622 section 7.3): listen
        on all Local Endpoints for the Remote Endpoints alone, and connect from each to each; the
        first pair that works is taken.

        Returns the Connection when it is established (the RendezvousDone event): over UDP when the
        peer has been heard.  With ``wait=False`` it returns at once, in the state Establishing,
        and the events tell of the outcome.  *timeout* (seconds) covers everything; without, it
        ends 39.5 seconds after the last pair was added.

        Raises EstablishmentError, which tells what was tried; without waiting that is only an
        event.
        """
        deadline = Deadline(timeout)
        connection = Connection(self._setup(Role.RENDEZVOUS))
        gathering, self._gathering = self._gathering, None
        try:
            connection.begin_rendezvous(lambda setup: self._join(Rendezvous(setup, gathering)))
        except EstablishmentError:
            if wait:
                raise
            return connection
        if wait:
            connection.establish(deadline)
        else:
            connection.establish_soon(deadline)
        return connection

    def release(self) -> None:
        """Close what `resolve` holds open, if no rendezvous has used it."""
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            gathering.release()

    def _join(self, rendezvous: Rendezvous) -> Rendezvous:
        self._rendezvous = rendezvous
        return rendezvous

    def _hold(self) -> Gathering:
        if self._gathering is None:
            # What is resolved while a rendezvous is under way is for that one (RFC 8838).
            running = self._rendezvous
            self._gathering = Gathering(
                running.credentials if running is not None and running.is_running else None
            )
            self._gathering.belongs_to(self)
        return self._gathering

    @switchpoint
    def start(self) -> None:
        """Run until nothing is left to do: no Connection, no Listener and no greenlet.

        For programs that consist of handlers only, as the last call of the main greenlet.
        """
        wait_until_idle()

    def _setup(self, role: Role) -> Setup:
        security = self.security_parameters
        events = None
        if self._events is not None:
            events = Events()
            events.inherit(self._events)
        return Setup(
            role=role,
            local_endpoints=tuple(endpoint.copy() for endpoint in self.local_endpoints),
            remote_endpoints=tuple(endpoint.copy() for endpoint in self.remote_endpoints),
            properties=self.transport_properties.for_role(role),
            security=None if security is None or security.is_disabled else security.copy(),
            framers=tuple(self._framers),
            events=events,
            resolver=self.resolver,
        )

    def __repr__(self) -> str:
        return (
            f"<Preconnection local={self.local_endpoints!r} remote={self.remote_endpoints!r} "
            f"{self.transport_properties!r} "
            f"security={'none' if self.security_parameters is None else 'set'}>"
        )


def _add(known: list[Any], new: Iterable[Endpoint]) -> None:
    for endpoint in new:
        if endpoint not in known:
            known.append(endpoint)


def _remove(known: list[Any], old: Iterable[Endpoint]) -> None:
    for endpoint in old:
        if endpoint in known:
            known.remove(endpoint)


def _filter(setup: Setup, deadline: Deadline) -> Callable[[Any], bool] | None:
    """What says whether a peer's socket address is one of the Remote Endpoints; None if all are
    welcome."""
    if not setup.remote_endpoints:
        return None
    named = [  # without a port and a service any port will do
        end.copy().with_port(end.port or 0) if end.service is None or end.port is not None else end
        for end in setup.remote_endpoints
    ]
    names = resolve_remote(named, deadline, resolver=setup.resolver)
    allowed = {(name[0], name[1]) for name, _ in names}

    def admit(peer: Any) -> bool:
        return bool(peer) and ((peer[0], 0) in allowed or (peer[0], peer[1]) in allowed)

    return admit


def _at_each(end: LocalEndpoint, interfaces: list[str | None]) -> list[LocalEndpoint]:
    """*end* on each interface; as it is where any will do."""
    if None in interfaces:
        return [end]
    return [end.copy().with_interface(name) for name in interfaces if name is not None]


def _one_for_each_port(stacks: Iterable[Stack]) -> list[Stack]:
    """The best of *stacks* over each protocol at the bottom.  Of what comes in on one port of one
    protocol nobody could say for which of several stacks it is."""
    best: dict[Plugin, Stack] = {}
    for stack in stacks:
        best.setdefault(stack[-1], stack)
    return list(best.values())


def _open(listener: Listener, stack: Stack, local: Any, endpoint: LocalEndpoint) -> Any:
    try:
        return listener.open(stack, local, endpoint)
    except (TransportError, Timeout) as error:
        raise EstablishmentError(
            "cannot listen", failure_reason([error]), [(endpoint, error)]
        ) from error
