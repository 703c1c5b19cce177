"""Rendezvous: two peers that open one Connection towards each other (RFC 9622 section 7.3).

`Gathering` finds and holds the local ends: sockets, how STUN servers see them, and what TURN
servers relay for them.  `Rendezvous` pairs them with the remote ends and tries.  What is tried and
when is decided in `ice` and `stun`, which know no sockets; here are the sockets and the timers.
"""

from __future__ import annotations

import errno
import logging
import secrets
import socket
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any
from zlib import crc32

from ...errors import EstablishmentError, Reason, Timeout, TransportError, show_address
from ...hub import Deadline, Parked, get_ident, get_runner, now
from ...plugins import Attempt, Stack, stack_name
from ...plugins.tcp import configure
from ...transports.handles import resolve_stream
from ...transports.options import is_temporary
from ...transports.punching import (
    DatagramPort,
    StreamLink,
    StreamPort,
    StreamQuery,
    punched_flow,
    reset,
)
from ..choosing.candidates import Candidate, for_stack
from ..choosing.establishing import Established, made_ready
from ..endpoint import LocalEndpoint, NatServer, RemoteEndpoint
from ..naming.resolver import Resolver
from ..naming.resolving import resolve_local, resolve_remote
from ..paths import survey as paths
from ..properties import NO_PREFERENCE, PREFER, PROHIBIT, REQUIRE, Preference
from ..setup import Setup
from .ice import (
    ANSWER_TIME,
    Address,
    Agent,
    Credentials,
    Election,
    Facts,
    Pair,
    Punch,
    State,
    candidate_priority,
    controls,
    in_fair_order,
)
from .stun import KEEPALIVE, WRAPPING, Client, Relay, codec, has_codec, parse, reflexive_address

__all__ = ["GATHER_TIME", "HOLD_TIME", "Gathering", "Rendezvous", "setup_of"]

GATHER_TIME = 5.0  # seconds that servers get to answer, if the application says nothing
HOLD_TIME = 300.0  # seconds for which resolved Local Endpoints stay true
MAX_BASES = 32  # local sockets of one gathering
MAX_EARLY = 16  # datagrams that one of them keeps for the rendezvous
MAX_EARLY_SIZE = 1500  # bytes of each
MAX_FIRST = 256  # datagrams of the peer that wait for the Connection

_log = logging.getLogger("greentaps.rendezvous")

_TCP_PREFERENCE = 4 << 13  # RFC 6544 section 4.2: simultaneous open of host candidates


def _token() -> bytes:
    return secrets.token_bytes(12)


def _new_credentials() -> Credentials:
    """RFC 8445 section 5.3 asks for 24 and 128 bits of chance."""
    return Credentials(secrets.token_hex(4), secrets.token_hex(16))


def setup_of(setup: Setup) -> tuple[Setup, list[Stack]]:
    """The Setup of a rendezvous, and its stacks, best first, as far as the local end alone shows.
    Raises EstablishmentError."""
    if setup.security is not None and setup.security.is_opportunistic:
        raise EstablishmentError(
            "a rendezvous cannot be opportunistic: it has one connection, with security or without",
            Reason.INVALID_CONFIGURATION,
        )
    # RFC 9622 section 6.2.18: ignored for Rendezvous.
    properties = setup.properties.copy()
    properties.set("activeReadBeforeSend", NO_PREFERENCE)
    setup = replace(setup, properties=properties)
    # Which side is the client of TLS shows only when the peer is known: both must be possible.
    as_server = setup.choose(server_side=True)
    chosen = [stack for stack in setup.choose(server_side=False) if stack in as_server]
    chosen = [stack for stack in chosen if stack[-1].name in ("tcp", "udp")]
    if not chosen:
        raise EstablishmentError(
            "no protocol stack that has what is asked for can make a rendezvous",
            Reason.NO_CANDIDATES,
        )
    if not has_codec() and any(stack[-1].name == "tcp" for stack in chosen):
        chosen = [stack for stack in chosen if stack[-1].name == "tcp"]
    return setup, chosen


def host_addresses(
    among: Sequence[paths.Path], interface: str | None, temporary: Preference
) -> list[str]:
    """The addresses that a peer could reach us at, on *interface* or on all of *among*; those of
    the loopback interface only where it was named, or is all that there is.

    *temporary* is the property useTemporaryLocalAddress: what an interface has of the other kind
    is left out.  Pure.
    """
    found: dict[str, list[str]] = {"global": [], "host": []}
    for path in among:
        if not path.up or interface not in (None, path.interface):
            continue
        usable = [address for address in path.addresses if not address.deprecated]
        for address in usable:
            if address.scope in found and _is_of_wanted_kind(address, usable, temporary):
                found[address.scope].append(address.text)
    return found["global"] or found["host"]


def _is_of_wanted_kind(
    address: paths.LocalAddress, among: Sequence[paths.LocalAddress], temporary: Preference
) -> bool:
    if temporary is REQUIRE:
        return address.temporary
    if temporary is PROHIBIT:
        return not address.temporary
    if temporary is NO_PREFERENCE or address.scope != "global":
        return True
    kinds = {one.temporary for one in among if (one.family, one.scope) == _kind(address)}
    return len(kinds) == 1 or address.temporary is (temporary is PREFER)


def _kind(address: paths.LocalAddress) -> tuple[int, str]:
    return (address.family, address.scope)


# -- The local ends --


@dataclass(eq=False)
class Base:
    """One local socket, and what servers say of it."""

    protocol: str
    port: Any
    source: LocalEndpoint
    interface: str | None
    credentials: Credentials
    owner: Gathering
    preference: int = 0
    clients: list[Client] = field(default_factory=list)
    reflexive: list[tuple[Address, Address]] = field(default_factory=list)  # with the server
    relays: list[Relay] = field(default_factory=list)
    early: deque[tuple[bytes, Address]] = field(default_factory=lambda: deque(maxlen=MAX_EARLY))
    query: StreamQuery | None = None  # of TCP
    pending: int = 0  # servers that have not answered
    failures: list[tuple[NatServer, str]] = field(default_factory=list)

    @property
    def address(self) -> Address:
        address: Address = self.port.address
        return address

    def facts(
        self, kind: str, related: Address | None = None, server: Address | None = None
    ) -> Facts:
        """What is said of one of its candidates."""
        foundation = f"{kind[0]}{crc32(repr((self.protocol, self.address[0], server)).encode())}"
        priority = candidate_priority(kind, self.preference)
        return Facts(kind, priority, foundation, related, self.credentials)

    def candidates(self) -> list[tuple[Address, Facts]]:
        """All of its candidates."""
        found = [(self.address, self.facts("host"))]
        reflexive = [*self.reflexive]
        reflexive += [(one.mapped, one.client.server) for one in self.relays if one.mapped]
        for address, server in reflexive:
            if address not in [known for known, _ in found]:
                found.append((address, self.facts("srflx", self.address, server)))
        for relay in self.relays:
            if relay.address is not None:
                related = relay.mapped or self.address
                found.append((relay.address, self.facts("relay", related, relay.client.server)))
        return found

    def endpoints(self) -> list[LocalEndpoint]:
        """The Local Endpoints that it is resolved to."""
        made = []
        for address, facts in self.candidates():
            end = LocalEndpoint().with_ip_address(address[0]).with_port(address[1])
            end.with_protocol(self.protocol)
            if self.interface is not None:
                end.with_interface(self.interface)
            if self.source.hop_limit is not None:
                end.with_hop_limit(self.source.hop_limit)
            end.resolved_to(facts, self)
            made.append(end)
        return made

    def missing(self) -> list[tuple[str, str]]:
        """Which servers have given no address, and why."""
        found = [(str(server), why) for server, why in self.failures]
        for relay in self.relays:
            if relay.address is None:
                why = relay.failure or "no answer so far"
                found.append((f"TURN server {show_address(relay.client.server)}", why))
        seen = {server for _, server in self.reflexive}
        found += [
            (f"STUN server {show_address(client.server)}", "no answer so far")
            for client in self.clients
            if client.server not in seen
        ]
        return found

    # For UDP:

    def received(self, data: bytes, source: Address, time: float) -> None:
        """A datagram while nobody tries anything: of a server, or kept for later."""
        if not self.from_server(data, source, time) and len(data) <= MAX_EARLY_SIZE:
            self.early.append((data, source))

    def from_server(self, data: bytes, source: Address, time: float) -> bool:
        """Let the servers' transactions have a datagram; whether it was one's."""
        return self.unwrapped(data, source, time) is None

    def unwrapped(
        self, data: bytes, source: Address, time: float
    ) -> tuple[Relay | None, bytes, Address] | None:
        """What has come, from whom, and through which relay; None if it was a server's word."""
        was_servers = False
        for relay in self.relays:
            if relay.client.server == source:
                inner = relay.received(data, time)
                if inner is not None:
                    return relay, inner[1], inner[0]
                was_servers = True
        for client in self.clients:
            if client.server == source:
                message = parse(data)
                if message is not None:
                    client.received(message, time)
                was_servers = True
        return None if was_servers else (None, data, source)

    @property
    def wake_at(self) -> float:
        return min(
            [*(one.wake_at for one in self.clients), *(one.wake_at for one in self.relays)],
            default=inf,
        )

    def wake(self, time: float) -> None:
        for client in self.clients:
            client.wake(time)
        for relay in self.relays:
            relay.wake(time)
        self.flush()

    def flush(self) -> None:
        """Send what waits to go to servers."""
        for client in (*self.clients, *(relay.client for relay in self.relays)):
            outgoing, client.outgoing = client.outgoing, []
            for data in outgoing:
                if self.protocol == "udp":
                    self.port.send(data, client.server)
                elif self.query is not None:
                    self.query.send(data)

    def close(self, time: float) -> None:
        """Give back what servers hold for it, and close the socket."""
        if self.port.is_open:
            for relay in self.relays:
                relay.release(time)
            self.flush()
            self.port.close()
        if self.query is not None:
            self.query.close()


class Gathering:
    """The local ends of a Preconnection, found by `gather` and held until they are used in a
    rendezvous, given back, or for `HOLD_TIME`."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self.credentials = credentials or _new_credentials()
        self.bases: dict[tuple[Any, ...], Base] = {}
        self._runner = get_runner()
        self._thread = get_ident()
        self._timer: Any = None
        self._waiting: list[Parked[None]] = []  # several may resolve at once
        self._finalizer: Any = None
        self._ends_at = inf
        self._keepalive_at = inf

    def gather(self, setup: Setup, chosen: Sequence[Stack], deadline: Deadline) -> list[Base]:
        """Open what is not open yet, and ask the servers.  A switchpoint.  Raises
        EstablishmentError.  Servers that do not answer in time are left out."""
        limit = Deadline(GATHER_TIME) if deadline.at is None else deadline
        wanted: dict[tuple[Any, ...], Base] = {}
        failures: list[tuple[Any, BaseException]] = []
        try:
            for protocol in dict.fromkeys(stack[-1].name for stack in chosen):
                for end in setup.local_endpoints or (LocalEndpoint(),):
                    if end.protocol in (None, *_names_with(chosen, protocol)):
                        room = MAX_BASES - len(wanted)
                        wanted |= self._open(setup, end, protocol, limit, failures, room)
        except BaseException:
            self.bases |= wanted  # for `release`
            raise
        for key, base in self.bases.items():
            if key not in wanted:
                base.close(now())
            elif wanted[key] is not base and base.port.is_open:
                wanted[key].close(now())  # somebody else has opened it meanwhile
                wanted[key] = base
        self.bases = wanted
        if not wanted:
            raise EstablishmentError(
                "no Local Endpoint could be opened", Reason.ESTABLISHMENT_FAILED, failures
            )
        for rank, index in enumerate(_fair(list(wanted.values()))):
            base = list(wanted.values())[index]
            top = 65535 if base.protocol == "udp" else _TCP_PREFERENCE + (1 << 13) - 1
            base.preference = top - rank
        self._ends_at = now() + HOLD_TIME
        self._keepalive_at = now() + KEEPALIVE
        names = _ServerNames(limit, setup.resolver)
        for base in wanted.values():
            self._ask_servers(base, names)
        self._wait(limit)
        for base in wanted.values():
            for which, why in base.missing():
                _log.info("%s has given nothing for %s: %s", which, show_address(base.address), why)
        return list(wanted.values())

    def _open(
        self,
        setup: Setup,
        end: LocalEndpoint,
        protocol: str,
        limit: Deadline,
        failures: list[tuple[Any, BaseException]],
        room: int,
    ) -> dict[tuple[Any, ...], Base]:
        """The bases for one Local Endpoint and one protocol: *room* of them at most."""
        held = end.held
        if held is not None:
            if held.protocol != protocol or not held.port.is_open:
                return {}
            if held.interface not in setup.paths(end):  # they are asked for anew each time
                raise EstablishmentError(
                    f"{end!r} was resolved without the interface that is asked for now",
                    Reason.NO_CANDIDATES,
                )
            if not room:
                return {}
            held.owner.hand_over(held)
            held.owner = self
            return {("held", id(held)): held}
        found: dict[tuple[Any, ...], Base] = {}
        temporary = setup.properties.get("useTemporaryLocalAddress")
        for interface in setup.paths(end):
            for address, name in self._addresses(end, interface, temporary, limit):
                key = (protocol, end, address, name)
                known = self.bases.get(key)
                if known is not None and known.port.is_open:
                    found[key] = known
                    continue
                if len(found) >= room:
                    return found
                here = replace(
                    setup.attempt(limit), interface=name, hop_limit=_hop_limit(end, setup)
                )
                try:
                    base = self._opened(protocol, address, here, end)
                except TransportError as error:
                    failures.append((end, error))
                else:
                    base.interface = name
                    found[key] = base
        return found

    def _addresses(
        self, end: LocalEndpoint, interface: str | None, temporary: Preference, limit: Deadline
    ) -> list[tuple[Any, str | None]]:
        """The socket addresses of a Local Endpoint, each with the interface to bind it to."""
        if end.ip_address is not None or end.hostname is not None:
            return [
                (address, interface)
                for address in resolve_local([end], limit, passive=False)
                if temporary is not REQUIRE or is_temporary(address[0])
            ]
        port = end.port or (
            resolve_stream((None, end.service), 0, socket.AI_PASSIVE, limit)[0][1]
            if end.service
            else 0
        )
        found = host_addresses(paths.survey().paths, interface, temporary)
        return [((text, port), interface) for text in found]

    def _opened(self, protocol: str, address: Any, attempt: Attempt, end: LocalEndpoint) -> Base:
        def prepare(here: socket.socket) -> None:
            configure(here, attempt)

        if protocol == "tcp":
            return Base("tcp", StreamPort(address, prepare), end, None, self.credentials, self)
        codec()
        port = DatagramPort(
            address, lambda data, source: base.owner.received(base, data, source), prepare
        )
        base = Base("udp", port, end, None, self.credentials, self)
        return base

    def received(self, base: Base, data: bytes, source: Address) -> None:
        """A datagram has come to a base."""
        base.received(data, source, now())
        self.received_of_server(base)

    def hand_over(self, base: Base) -> None:
        """*base* belongs to somebody else from now on."""
        self.bases = {key: one for key, one in self.bases.items() if one is not base}

    def _ask_servers(self, base: Base, names: _ServerNames) -> None:
        """Begin what each server is to be asked, once for each base.  *names* remembers what they
        were resolved to.  A switchpoint, for that."""
        if base.clients or base.relays:
            return
        if base.protocol == "tcp":
            server = base.source.stun_server or base.source.turn_server
            if server is not None and has_codec():
                self._ask_over_tcp(base, server, names.address(server, base))
            return
        for server, relays in ((base.source.stun_server, False), (base.source.turn_server, True)):
            if server is None:
                continue
            address = names.address(server, base)
            if address is None:
                continue
            client = Client(address, server.credentials, _token)
            if relays:
                base.relays.append(Relay(client, now()))
            else:
                base.clients.append(client)
                self._ask_binding(base, client)
        base.flush()

    def _ask_over_tcp(self, base: Base, server: NatServer, address: Address | None) -> None:
        """The same for TCP: how a server sees a connection that comes from the base's own port.  It
        stays open, so that a NAT remembers it."""
        if address is None:
            return
        client = Client(address, server.credentials, _token, reliable=True)
        base.clients.append(client)
        base.pending += 1

        def connected(here: socket.socket | None, error: BaseException | None) -> None:
            base.pending -= 1
            if here is None:
                base.failures.append((server, str(error)))
                base.owner.received_of_server(base)
                return
            base.query = StreamQuery(here, received, ended)
            self._ask_binding(base, client)
            base.flush()

        def received(data: bytes) -> None:
            message = parse(data)
            if message is not None:
                client.received(message, now())
            base.owner.received_of_server(base)

        def ended() -> None:
            client.lost(now())
            base.owner.received_of_server(base)

        base.port.connect(address, connected)

    def received_of_server(self, base: Base) -> None:
        """A server has said something about a base."""
        base.flush()
        self._changed()

    def _ask_binding(self, base: Base, client: Client) -> None:
        base.pending += 1

        def done(answer: Any, _time: float) -> None:
            base.pending -= 1
            address = reflexive_address(answer)
            if address is not None:
                base.reflexive = [one for one in base.reflexive if one[1] != client.server]
                base.reflexive.append((address, client.server))

        client.request("BINDING", {}, done, now())

    def _wait(self, limit: Deadline) -> None:
        """Until each server has answered, or the time is over.  A switchpoint."""
        self._arm()
        while self._pending():
            news = Parked[None](self._runner)
            self._waiting.append(news)
            try:
                news.wait(limit.left())
            except Timeout:
                return
            finally:
                self._waiting.remove(news)

    def _pending(self) -> bool:
        return any(
            base.port.is_open and (base.pending or any(relay.pending for relay in base.relays))
            for base in self.bases.values()
        )

    def _changed(self) -> None:
        if self._waiting and not self._pending():
            for news in self._waiting:
                news.finish(None)
        self._arm()

    # -- Holding --

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        due = min(
            [self._ends_at, self._keepalive_at, *(base.wake_at for base in self.bases.values())]
        )
        if due < inf and self.bases:
            # What is only held does not keep the program alive.
            self._timer = self._runner.hub.loop.timer(max(due - now(), 0.001), ref=False)
            self._timer.start(self._wake)

    def _wake(self) -> None:
        time = now()
        if time >= self._ends_at:
            self.release()
            return
        if time >= self._keepalive_at:
            self._keepalive_at = time + KEEPALIVE
            for base in self.bases.values():
                for client in base.clients:
                    if base.protocol == "udp" and not base.pending:
                        self._ask_binding(base, client)
        for base in self.bases.values():
            base.wake(time)
        self._changed()

    def belongs_to(self, owner: Any) -> None:
        """Give everything back when *owner* is collected."""
        self._finalizer = weakref.finalize(owner, self.collected)
        self._finalizer.atexit = False

    def take(self) -> list[Base]:
        """Everything that it holds, which is the caller's from now on."""
        if self._finalizer is not None:
            self._finalizer.detach()
        taken, self.bases = list(self.bases.values()), {}
        self._ends_at = self._keepalive_at = inf
        self._arm()
        return taken

    def release(self) -> None:
        """Give everything back."""
        for base in self.take():
            base.close(now())

    def collected(self) -> None:
        """`release`, from wherever the garbage collector has run."""
        if self._runner.closed or not self.bases:
            return
        if get_ident() == self._thread:
            self._runner.call_soon(self.release)
        else:
            self._runner.hub.loop.run_callback_threadsafe(self.release)


def _names_with(chosen: Sequence[Stack], protocol: str) -> set[str]:
    """The names of the plugins in the stacks over *protocol*."""
    return {plugin.name for stack in chosen if stack[-1].name == protocol for plugin in stack}


def _hop_limit(end: LocalEndpoint, setup: Setup) -> int | None:
    """That of the Local Endpoint, else the first that a Remote one has: they share the socket."""
    limits = [one.hop_limit for one in (end, *setup.remote_endpoints)]
    return next((limit for limit in limits if limit is not None), None)


def _fair(bases: Sequence[Base]) -> list[int]:
    return in_fair_order([(base.address[0], base.interface) for base in bases])


class _ServerNames:
    """What the names of servers were resolved to, by *resolver*, within *limit*."""

    def __init__(self, limit: Deadline, resolver: Resolver | None) -> None:
        self._limit = limit
        self._resolver = resolver
        self._found: dict[NatServer, list[Any] | EstablishmentError] = {}

    def address(self, server: NatServer, base: Base) -> Address | None:
        """The address of a server in the family of *base*; None if it has none.  A
        switchpoint."""
        if server not in self._found:
            self._found[server] = self._look_up(server)
        found = self._found[server]
        if isinstance(found, EstablishmentError):
            base.failures.append((server, str(found)))
            return None
        v6 = ":" in base.address[0]
        return next((name[:2] for name in found if (":" in name[0]) is v6), None)

    def _look_up(self, server: NatServer) -> list[Any] | EstablishmentError:
        end = RemoteEndpoint().with_port(server.port)
        try:
            end.with_ip_address(server.host)
        except ValueError:
            end.with_hostname(server.host)
        try:
            return [name for name, _ in resolve_remote([end], self._limit, resolver=self._resolver)]
        except EstablishmentError as error:
            return error


# -- The remote ends --


@dataclass(frozen=True, slots=True)
class Remote:
    """One address of the peer."""

    address: Address
    facts: Facts | None
    hostname: str | None


def remotes_of(
    endpoints: Iterable[RemoteEndpoint], deadline: Deadline, resolver: Resolver | None
) -> list[Remote]:
    """The addresses of Remote Endpoints.  A switchpoint.  Raises EstablishmentError."""
    found: dict[Address, Remote] = {}
    for end in endpoints:
        for name, hostname in resolve_remote([end], deadline, resolver=resolver):
            if not name[1]:
                raise EstablishmentError(
                    f"a Remote Endpoint of a rendezvous needs a port: {end!r}",
                    Reason.INVALID_CONFIGURATION,
                )
            found.setdefault(name[:2], Remote(name[:2], end.facts, hostname))
    return list(found.values())


def resolved_remotes(
    endpoints: Iterable[RemoteEndpoint], deadline: Deadline, resolver: Resolver | None
) -> list[RemoteEndpoint]:
    """Remote Endpoints with addresses for those that have names.  A switchpoint.  Raises
    EstablishmentError."""
    found: list[RemoteEndpoint] = []
    for end in endpoints:
        for name, _ in resolve_remote([end], deadline, resolver=resolver):
            made = end.copy().with_ip_address(name[0]).with_port(name[1])
            if made not in found:
                found.append(made)
    return found


# -- The rendezvous --


class Rendezvous:
    """One rendezvous: made by `Preconnection.rendezvous`, run in some greenlet, and told of late
    candidates meanwhile."""

    def __init__(self, setup: Setup, gathering: Gathering | None) -> None:
        """Raises EstablishmentError for what can be seen before anything is opened."""
        if not setup.local_endpoints or not setup.remote_endpoints:
            raise EstablishmentError(
                "Rendezvous needs a Local and a Remote Endpoint", Reason.INVALID_CONFIGURATION
            )
        self.setup, self._chosen = setup_of(setup)
        self._chosen = [stack for stack in self._chosen if for_stack(setup.remote_endpoints, stack)]
        self._chosen = [stack for stack in self._chosen if for_stack(setup.local_endpoints, stack)]
        if not self._chosen:
            raise EstablishmentError(
                "no protocol stack is one that both a Local and a Remote Endpoint are for",
                Reason.INVALID_CONFIGURATION,
            )
        self._chosen = self._chosen[:1]
        if self._chosen[0][-1].name == "udp":
            codec()
        self._gathering = gathering or Gathering()
        self._driver: _Driver | None = None
        # What was added, and removed, before there was a driver.
        self._late: list[Any] = []
        self._removed: list[Any] = []
        self.is_running = True

    @property
    def credentials(self) -> Credentials:
        """What the peer's checks are signed with."""
        return self._gathering.credentials

    def run(self, deadline: Deadline) -> Established:
        """Find the Connection's transport.  A switchpoint.  Raises EstablishmentError, with nothing
        left open."""
        begun = now()
        driver: _Driver | None = None
        stack = self._chosen[0]
        try:
            gathered = self._gathering.gather(self.setup, self._chosen, _first_part(deadline))
            for_us = for_stack(self.setup.remote_endpoints, stack)
            remotes = remotes_of(for_us, deadline, self.setup.resolver)
            self._gathering.take()
            gathering_took = now() - begun
            kind = _DatagramDriver if stack[-1].name == "udp" else _StreamDriver
            driver = self._driver = _made(kind, self.setup, stack, gathered, remotes, deadline)
            self.remove(self._removed)
            self._add_late()
            established = driver.run()
        except BaseException:
            if driver is not None:
                driver.close()
            raise
        finally:
            self._driver = None
            self.is_running = False
            self._gathering.release()
        established.phases = (("gathering", gathering_took), *established.phases)
        return established

    def cancel(self) -> None:
        """It is given up, perhaps before its greenlet has begun."""
        self.is_running = False
        self._gathering.release()

    def add(self, ends: Sequence[Any]) -> None:
        """More Local or Remote Endpoints (RFC 8838).  A switchpoint.  Raises EstablishmentError."""
        if self._driver is None:
            self._late += ends
            self._removed = [end for end in self._removed if end not in ends]
            return
        stack = self._chosen[0]
        locals_ = [end for end in ends if isinstance(end, LocalEndpoint)]
        for_us = for_stack([end for end in ends if isinstance(end, RemoteEndpoint)], stack)
        resolver = self.setup.resolver
        remotes = remotes_of(for_us, self._driver.deadline, resolver) if for_us else []
        bases: list[Base] = []
        if locals_:
            late = Gathering(self.credentials)
            setup = replace(self.setup, local_endpoints=tuple(locals_))
            try:
                late.gather(setup, [stack], _first_part(self._driver.deadline))
                bases = late.take()
            finally:
                late.release()
        if self._driver is None:  # it was over meanwhile
            for base in bases:
                base.close(now())
            return
        for base in bases:
            self._driver.add_base(base)
        for remote in remotes:
            self._driver.add_remote(remote)
        self._driver.start()
        self._driver.changed()

    def _add_late(self) -> None:
        late, self._late = self._late, []
        try:
            if late:
                self.add(late)
        except EstablishmentError as error:  # what was there from the beginning goes on without
            _log.info("%s cannot be used: %s", late, error)

    def remove(self, ends: Sequence[Any]) -> None:
        """Local or Remote Endpoints are to be used no longer."""
        self._late = [end for end in self._late if end not in ends]
        if self._driver is None:
            self._removed += ends
            return
        for end in ends:
            if isinstance(end, LocalEndpoint):
                self._driver.remove_bases(end)
            else:
                self._driver.remove_remotes(end)
        self._driver.changed()


def _first_part(deadline: Deadline) -> Deadline:
    """How long the servers may take of *deadline*: at most half."""
    left = deadline.left()
    return Deadline(GATHER_TIME if left is None else min(GATHER_TIME, left / 2))


class _Driver:
    """What both kinds of rendezvous share: the greenlet waits, callbacks and one timer work."""

    def __init__(
        self,
        setup: Setup,
        stack: Stack,
        bases: Sequence[Base],
        remotes: Sequence[Remote],
        deadline: Deadline,
    ) -> None:
        self.setup = setup
        self.stack = stack
        self.deadline = deadline
        self.bases: dict[int, Base] = {}
        self.remotes = {remote.address: remote for remote in remotes}
        self._runner = get_runner()
        self._timer: Any = None
        self._news: Parked[None] | None = None
        self._begun = now()
        ours, theirs = self._both_credentials(bases)
        self.controlling = controls(
            ours,
            theirs,
            [address for base in bases for address, _ in base.candidates()],
            self.remotes,
        )
        self.tie_breaker = secrets.randbits(64)

    def _both_credentials(
        self, bases: Sequence[Base]
    ) -> tuple[Credentials | None, Credentials | None]:
        theirs = next(
            (
                remote.facts.credentials
                for remote in self.remotes.values()
                if remote.facts is not None and remote.facts.credentials is not None
            ),
            None,
        )
        return (bases[0].credentials if theirs is not None else None), theirs

    def run(self) -> Established:
        """A switchpoint.  Raises EstablishmentError."""
        self.start()
        while not self.step():
            if self.deadline.passed():
                raise self._failure("the time is over", Reason.TIMEOUT)
            self._news = Parked(self._runner)
            self._arm()
            try:
                self._news.wait(self.deadline.left())
            except Timeout:
                self.deadline.end()
            finally:
                self._news = None
        self._disarm()
        transport, remote = self.winner()
        return self._finish(transport, remote)

    def _finish(self, transport: Any, remote: Remote) -> Established:
        """Put the layers above, and the framers, on the transport."""
        took = now() - self._begun
        begun = now()
        candidate = Candidate(
            self.stack, remote.address, transport.get_extra_info("sockname"), remote.hostname
        )
        attempt = replace(
            self.setup.attempt(self.deadline),
            remote=remote.address,
            hostname=remote.hostname,
        )
        if attempt.deadline.at is None and (len(self.stack) > 1 or self.setup.framers):
            attempt.deadline = Deadline(HANDSHAKE_TIME)
        try:
            for name, value in attempt.options.items():
                self.stack[-1].apply(transport, name, value)
            for plugin in reversed(self.stack[:-1]):
                # RFC 9622 says nothing of who is the client: the side that has chosen the pair.
                if self.controlling:
                    transport = plugin.open(attempt, transport)
                else:
                    transport = plugin.accept(attempt, transport)
            framers = made_ready(transport, attempt.deadline, self.setup.framers, attempt.hostname)
        except (TransportError, Timeout, OSError, ValueError) as error:
            transport.abort()
            raise EstablishmentError(
                f"{candidate} could not be made ready",
                Reason.ESTABLISHMENT_FAILED,
                [(candidate, error)],
            ) from error
        except BaseException:
            transport.abort()
            raise
        phases = (("pairing", took), (stack_name(self.stack), now() - begun))
        return Established(candidate, transport, phases, framers)

    def _failure(self, message: str, reason: Reason) -> EstablishmentError:
        self.close()
        return EstablishmentError(message, reason, self.failures())

    def _candidate(self, base: Base, remote: Address) -> Candidate:
        known = self.remotes.get(remote)
        return Candidate(
            self.stack, remote, base.address, None if known is None else known.hostname
        )

    # -- Late candidates --

    def add_remote(self, remote: Remote) -> None:
        """One more address of the peer, or what is to be known of one: its credentials."""
        known = self.remotes.get(remote.address)
        if known is None or (known.facts is None and remote.facts is not None):
            self.remotes[remote.address] = remote
            self.pair_remote(remote)

    def remove_bases(self, end: LocalEndpoint) -> None:
        """Give up what was opened for *end*, or what *end* was resolved to."""
        for number, base in self.bases.items():
            if base is end.held or base.source == end:
                self.unpair_base(number)
                base.close(now())

    def remove_remotes(self, end: RemoteEndpoint) -> None:
        """Give up the addresses that *end* stands for."""
        for remote in list(self.remotes.values()):
            address = RemoteEndpoint().with_ip_address(remote.address[0])
            if end.covers(address.with_port(remote.address[1]), remote.hostname):
                del self.remotes[remote.address]
                self.unpair_remote(remote.address)

    # -- Timers --

    def changed(self) -> None:
        """Something has happened: the greenlet looks, if it is worth it, and the timer is set."""
        if self._news is None:
            return
        if self.is_over():
            self._news.finish(None)
        else:
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        due = self.wake_at()
        if due < inf:
            self._timer = self._runner.call_later(max(due - now(), 0.0), self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _on_timer(self) -> None:
        self._disarm()
        self.wake(now())
        self.changed()

    def close(self) -> None:
        """Let go of everything."""
        self._disarm()
        for base in self.bases.values():
            base.close(now())

    # -- What differs --

    def add_base(self, base: Base) -> None:
        raise NotImplementedError

    def pair_remote(self, remote: Remote) -> None:
        raise NotImplementedError

    def unpair_base(self, number: int) -> None:
        raise NotImplementedError

    def unpair_remote(self, address: Address) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Begin, or begin with what was added."""
        raise NotImplementedError

    def step(self) -> bool:
        """Whether there is a winner.  Raises EstablishmentError if there cannot be one."""
        raise NotImplementedError

    def is_over(self) -> bool:
        raise NotImplementedError

    def wake_at(self) -> float:
        raise NotImplementedError

    def wake(self, time: float) -> None:
        raise NotImplementedError

    def winner(self) -> tuple[Any, Remote]:
        raise NotImplementedError

    def failures(self) -> list[tuple[Any, BaseException]]:
        raise NotImplementedError


# Seconds until TLS and the framers are ready, where the application sets no limit.
HANDSHAKE_TIME = 30.0


def _made(
    kind: type[_Driver],
    setup: Setup,
    stack: Stack,
    bases: Sequence[Base],
    remotes: Sequence[Remote],
    deadline: Deadline,
) -> _Driver:
    """A driver, which *bases* belong to.  Raises EstablishmentError."""
    try:
        return kind(setup, stack, bases, remotes, deadline)
    except BaseException as error:
        for base in bases:
            base.close(now())
        if not isinstance(error, TransportError):
            raise
        raise _not_made(setup, error) from error


def _not_made(setup: Setup, error: TransportError) -> EstablishmentError:
    return EstablishmentError(
        f"the sockets of the rendezvous cannot be used: {error}",
        Reason.ESTABLISHMENT_FAILED,
        [(setup.local_endpoints[0], error)],
    )


class _DatagramDriver(_Driver):
    """Over UDP: an `Agent` and the sockets that it speaks through.

    In the agent the number of a base is 2n, and that of its relayed address 2n + 1.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        bases: Sequence[Base] = args[2]
        self.agent = Agent(
            controlling=self.controlling,
            tie_breaker=self.tie_breaker,
            token=_token,
            now=now(),
        )
        self.first: deque[bytes] = deque(maxlen=MAX_FIRST)
        for base in bases:
            if base.protocol == "udp":
                self.add_base(base)
        for remote in self.remotes.values():
            self.pair_remote(remote)

    def pair_remote(self, remote: Remote) -> None:
        self.agent.add_remote(remote.address, remote.facts, now())

    def unpair_base(self, number: int) -> None:
        self.agent.remove_local(2 * number, now())
        self.agent.remove_local(2 * number + 1, now())

    def unpair_remote(self, address: Address) -> None:
        self.agent.remove_remote(address, now())

    def add_base(self, base: Base) -> None:
        number = len(self.bases)
        self.bases[number] = base
        time = now()
        self.agent.add_local(2 * number, base.address, base.facts("host"), time)
        for address, facts in base.candidates():
            if facts.kind == "relay":
                self.agent.add_local(2 * number + 1, address, facts, time)

        def received(data: bytes, source: Address) -> None:
            self._received(number, data, source)
            self.flush()
            self.changed()

        base.port.received = received
        base.port.be_busy(True)

    def start(self) -> None:
        for number, base in self.bases.items():
            while base.early:
                self._received(number, *base.early.popleft())
        self.wake(now())

    def _received(self, number: int, data: bytes, source: Address) -> None:
        base = self.bases[number]
        time = now()
        found = base.unwrapped(data, source, time)
        if found is None:
            return
        relay, data, source = found
        mine = self.agent.received(2 * number + (relay is not None), data, source, time)
        if mine is not None:
            self.first.append(mine)

    def flush(self) -> None:
        time = now()
        outgoing, self.agent.outgoing = self.agent.outgoing, []
        for local, remote, data in outgoing:
            base = self.bases[local // 2]
            if local % 2:
                base.relays[0].send(remote, data, time)
            else:
                base.port.send(data, remote)
        for base in self.bases.values():
            base.flush()

    def is_over(self) -> bool:
        return self.agent.selected is not None or self.agent.failed

    def step(self) -> bool:
        if self.agent.failed:
            raise self._failure(
                "no pair of addresses leads to the peer", Reason.ESTABLISHMENT_FAILED
            )
        return self.agent.selected is not None

    def wake_at(self) -> float:
        return min([self.agent.wake_at, *(base.wake_at for base in self.bases.values())])

    def wake(self, time: float) -> None:
        self.agent.wake(time)
        for base in self.bases.values():
            base.wake(time)
        self.flush()

    def winner(self) -> tuple[Any, Remote]:
        pair = self.agent.selected
        assert pair is not None
        self.controlling = self.agent.controlling
        base = self.bases[pair.local.base // 2]
        relay = base.relays[0] if pair.local.base % 2 else None
        for other in self.bases.values():
            if other is not base:
                other.close(now())
        if relay is None:
            for unused in base.relays:
                unused.release(now())
            base.flush()
        route = _Route(self.agent, pair, base, relay)
        below = pair.remote.address if relay is None else relay.client.server
        try:
            flow = punched_flow(
                base.port,
                below,
                pair.remote.address,
                pair.local.address,
                route,
                marked=bool(self.setup.properties.get("_greentaps.receiveEcn")),
            )
        except TransportError as error:
            raise _not_made(self.setup, error) from error
        route.start(flow)
        for data in self.first:
            flow.hold(data)
        remote = self.remotes.get(pair.remote.address)
        known = next((one.hostname for one in self.remotes.values()), None)
        return flow, remote or Remote(pair.remote.address, pair.remote.facts, known)

    def failures(self) -> list[tuple[Any, BaseException]]:
        return [
            (
                self._candidate(self.bases[pair.local.base // 2], pair.remote.address),
                TransportError(_FATES[pair.state], None, pair.remote.address),
            )
            for pair in self.agent.pairs
        ]


_FATES = {
    State.FROZEN: "its turn has not come",
    State.WAITING: "its turn has not come",
    State.IN_PROGRESS: "no answer so far",
    State.SUCCEEDED: "it works, and the peer has not chosen it",
    State.FAILED: "no answer",
}


class _Route:
    """What goes on beside the application's datagrams over the pair that was chosen: the peer's
    checks, keep-alives, and the relay's renewals."""

    def __init__(self, agent: Agent, pair: Pair, base: Base, relay: Relay | None) -> None:
        self._agent = agent
        self._pair = pair
        self._relay = relay
        self._flow: Any = None
        self._timer: Any = None
        self._runner = get_runner()

    @property
    def overhead(self) -> int:
        """How many bytes at most are put around a datagram of the application."""
        return 0 if self._relay is None else WRAPPING

    def start(self, flow: Any) -> None:
        """*flow* carries it from now on."""
        self._flow = flow
        if self._relay is not None:
            self._relay.bind(self._pair.remote.address, now())
        self._flush()

    def outgoing(self, data: bytes) -> bytes:
        self._agent.was_sent(now())
        if self._relay is None:
            return data
        return self._relay.wrapped(self._pair.remote.address, data)

    def incoming(self, data: bytes, source: Address) -> bytes | None:
        time = now()
        if self._relay is not None:
            inner = self._relay.received(data, time)
            if inner is None:
                self._flush()
                return None
            source, data = inner
        mine = self._agent.received(self._pair.local.base, data, source, time)
        if mine is None:
            self._flush()
        return mine

    def _flush(self) -> None:
        """Send what is due, and set the timer for what comes next."""
        if self._relay is not None:
            why = self._relay.failure_with(self._pair.remote.address)
            if why is not None:
                self._end(f"the TURN server relays no longer: {why}", self._relay.client.server)
                return
        time = now()
        outgoing, self._agent.outgoing = self._agent.outgoing, []
        for _, remote, data in outgoing:
            if remote != self._pair.remote.address:
                continue
            if self._relay is None:
                self._flow.send_below(data)
            else:
                self._relay.send(remote, data, time)
        self._flush_relay()
        self._arm()

    def _end(self, why: str, address: Address) -> None:
        if not self._flow.is_closing():
            self._flow.abort(TransportError(why, errno.ECONNABORTED, address))

    def _flush_relay(self) -> None:
        if self._relay is not None:
            client = self._relay.client
            waiting, client.outgoing = client.outgoing, []
            for data in waiting:
                self._flow.send_below(data)

    def _arm(self) -> None:
        self.lost()
        if self._flow.is_closing():
            return
        due = self._agent.wake_at
        if self._relay is not None:
            due = min(due, self._relay.wake_at)
        if due < inf:
            self._timer = self._runner.call_later(max(due - now(), 0.0), self._wake)

    def _wake(self) -> None:
        time = now()
        self._agent.wake(time)
        if self._relay is not None:
            self._relay.wake(time)
        self._flush()

    def ending(self) -> None:
        """The flow is about to be closed: the relay need not be held any longer."""
        if self._relay is not None:
            self._relay.release(now())
            self._flush_relay()

    def lost(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None


@dataclass(eq=False)
class _Linked:
    link: StreamLink
    base: int
    remote: Address


class _StreamDriver(_Driver):
    """Over TCP: connects and accepts at once, until one connection is elected."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        bases: Sequence[Base] = args[2]
        _, theirs = self._both_credentials(bases)
        self.theirs = theirs
        self.punch = Punch(self.controlling, now())
        self.election = Election(
            theirs,
            controlling=self.controlling,
            tie_breaker=self.tie_breaker,
            token=_token,
        )
        self.links: dict[int, _Linked] = {}
        self._count = 0
        for base in bases:
            if base.protocol == "tcp":
                self.add_base(base)
        for remote in self.remotes.values():
            self.pair_remote(remote)

    def pair_remote(self, remote: Remote) -> None:
        theirs = None if remote.facts is None else remote.facts.credentials
        if theirs is not None and not self.election.keyed:
            ours = self.bases[0].credentials
            self.controlling = controls(ours, theirs, (), ())
            self.election.learn(theirs, controlling=self.controlling)
            self._settle()
        self.punch.add_remote(remote.address, remote.facts, now())

    def unpair_base(self, number: int) -> None:
        self.punch.remove_local(number)
        self._drop_links(lambda linked: linked.base == number)

    def unpair_remote(self, address: Address) -> None:
        self.punch.remove_remote(address)
        self._drop_links(lambda linked: linked.remote == address)

    def _drop_links(self, which: Callable[[_Linked], bool]) -> None:
        for number, linked in list(self.links.items()):
            if which(linked):
                linked.link.drop()
                self._closed(number)

    def add_base(self, base: Base) -> None:
        number = len(self.bases)
        self.bases[number] = base
        facts = base.facts("host")
        self.punch.add_local(number, base.address, facts.priority, now())
        base.port.listen(lambda here, peer: self._accepted(number, here, peer))

    def start(self) -> None:
        self.wake(now())

    def _accepted(self, number: int, here: socket.socket, peer: Address) -> None:
        """Somebody has come.  Only the peer may: from its addresses, and without credentials only
        from the ports that were given, too."""
        hosts = {remote[0] for remote in self.remotes}
        if (peer in self.remotes) or (self.election.keyed and peer[0] in hosts):
            self._opened(number, peer, here, accepted=True)
        else:
            reset(here)
            here.close()

    def _opened(self, base: int, remote: Address, here: socket.socket, *, accepted: bool) -> None:
        self._count += 1
        number = self._count
        link = StreamLink(
            here,
            message=(lambda data: self._message(number, data)) if self.election.keyed else None,
            readable=lambda: self._readable(number),
            closed=lambda: self._closed(number),
        )
        self.links[number] = _Linked(link, base, remote)
        self.election.opened(
            number,
            self.punch.priority(base, remote),
            self.bases[base].credentials,
            remote,
            now(),
            accepted=accepted,
            only=len(self.punch.pairs) == 1,
        )
        self._settle()

    def _connected(
        self, base: int, remote: Address, here: Any, error: BaseException | None
    ) -> None:
        if here is None:
            self.punch.ended(base, remote, error, now())
            self.changed()
        elif self.is_over() or remote not in self.remotes:  # it may have been removed meanwhile
            reset(here)
            here.close()
        else:
            self._opened(base, remote, here, accepted=False)

    def _message(self, number: int, data: bytes) -> None:
        self.election.received(number, data, now())
        self._settle()

    def _readable(self, number: int) -> None:
        self.election.readable(number)
        self._settle()

    def _closed(self, number: int) -> None:
        self._gone(number, None)
        self.election.closed(number, now())
        self._settle()

    def _gone(self, number: int, error: BaseException | None) -> None:
        linked = self.links.pop(number, None)
        if linked is not None:
            self.punch.ended(linked.base, linked.remote, error, now())

    def _settle(self) -> None:
        """Do what the election says."""
        outgoing, self.election.outgoing = self.election.outgoing, []
        for number, data in outgoing:
            if number in self.links:
                self.links[number].link.send(data)
        dropped, self.election.dropped = self.election.dropped, []
        for number in dropped:
            if number in self.links:
                self.links[number].link.drop()
                self._gone(number, None)
        chosen = self.election.chosen
        if chosen is not None and self._transport is None:
            # At once: from here on what comes is the application's.
            linked = self.links.pop(chosen)
            self._remote = linked.remote
            known = self.remotes.get(linked.remote) or next(iter(self.remotes.values()))
            self._winner = Remote(linked.remote, known.facts, known.hostname)
            try:
                self._transport = linked.link.into_transport(known.hostname)
            except TransportError as error:
                self._broken = error
            self.close_others()
        self.changed()

    _transport: Any = None
    _winner: Remote
    _remote: Address
    _broken: TransportError | None = None

    def close_others(self) -> None:
        for linked in self.links.values():
            linked.link.drop()
        self.links.clear()
        super().close()

    def close(self) -> None:
        self.close_others()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def is_over(self) -> bool:
        return (
            self._transport is not None
            or self._broken is not None
            or now() >= self.punch.give_up_at + (ANSWER_TIME if self.links else 0.0)
        )

    def step(self) -> bool:
        if self._transport is not None:
            return True
        if self.is_over():
            raise self._failure(
                "no pair of addresses leads to the peer", Reason.ESTABLISHMENT_FAILED
            )
        return False

    def wake_at(self) -> float:
        if now() >= self.punch.give_up_at:  # what is still there may yet be elected
            return min(self.election.wake_at, self.punch.give_up_at + ANSWER_TIME)
        return min(self.punch.wake_at, self.election.wake_at)

    def wake(self, time: float) -> None:
        for base, remote in self.punch.wake(time):
            self.bases[base].port.connect(
                remote,
                lambda here, error, base=base, remote=remote: self._connected(
                    base, remote, here, error
                ),
            )
        self.election.wake(time)
        self._settle()

    def winner(self) -> tuple[Any, Remote]:
        transport, self._transport = self._transport, None
        return transport, self._winner

    def failures(self) -> list[tuple[Any, BaseException]]:
        found: list[tuple[Any, BaseException]] = [
            (self._candidate(self.bases[base], remote), error)
            for (base, remote), error in self.punch.failures
        ]
        if self._broken is not None:
            found.append((self._candidate(self.bases[0], self._remote), self._broken))
        return found
