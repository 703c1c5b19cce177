"""Local and Remote Endpoints: who and where the two ends are (RFC 9622 section 6.1).

One object identifies one host, with at most one identifier of each kind: setting a kind again
replaces it.  Several addresses are several objects.  Nothing is resolved here.
"""

from __future__ import annotations

import copy
import dataclasses
import ipaddress
import socket
from typing import Any, Self, TypeVar

from .rendezvous.ice import (
    Facts,
    candidate_priority,
    read_candidate,
    read_credentials,
    write_candidate,
)

__all__ = ["Endpoint", "LocalEndpoint", "NatServer", "RemoteEndpoint", "endpoints_of"]

E = TypeVar("E", bound="Endpoint")


class Endpoint:
    """What both kinds of Endpoint can have.  All ``with_`` methods return the object itself."""

    __slots__ = (
        "_facts",
        "_hop_limit",
        "_hostname",
        "_interface",
        "_ip_address",
        "_ip_text",
        "_port",
        "_protocol",
        "_service",
    )

    def __init__(self) -> None:
        self._hostname: str | None = None
        self._ip_address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
        self._ip_text: str | None = None
        self._interface: str | None = None
        self._port: int | None = None
        self._service: str | None = None
        self._protocol: str | None = None
        self._hop_limit: int | None = None
        self._facts: Facts | None = None  # of a resolved one

    def with_hostname(self, hostname: str) -> Self:
        """The host's name (str), to be resolved when a Connection is made; should be fully
        qualified.  An address in text form is taken as `with_ip_address` does."""
        if not isinstance(hostname, str):
            raise TypeError(f"a host name is a str, not {hostname!r}")
        if not hostname or len(hostname) > 253 or any(c.isspace() or c == "\0" for c in hostname):
            raise ValueError(f"not a host name: {hostname!r}")
        if ":" in hostname and not _is_address(hostname):
            raise ValueError(f"not a host name: {hostname!r}; a port is set with with_port()")
        self._hostname = hostname
        return self

    def with_port(self, port: int | str) -> Self:
        """The port, 0 to 65535, as an int or in digits."""
        if isinstance(port, str) and port.isdecimal() and port.isascii():
            port = int(port)
        if isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(f"a port is an int or a str of digits, not {port!r}")
        if not 0 <= port <= 65535:
            raise ValueError(f"a port is a number from 0 to 65535, not {port!r}")
        self._port = port
        return self

    def with_service(self, service: str) -> Self:
        """The name of a service (str), which stands for its port: ``"https"``."""
        if not isinstance(service, str):
            raise TypeError(f"a service is a str, not {service!r}")
        if not service or any(c.isspace() or c == "\0" for c in service):
            raise ValueError(f"not the name of a service: {service!r}")
        if service.isdecimal() and service.isascii():
            if len(service) > 5 or int(service) > 65535:
                raise ValueError(f"a port is a number from 0 to 65535, not {service!r}")
        self._service = service
        return self

    def with_ip_address(self, address: Any) -> Self:
        """An IPv4 or IPv6 address: text, packed bytes, or an ``ipaddress`` object.  Only this
        address is used then, whatever the host name would resolve to.  IPv6 text may have a zone,
        ``fe80::1%eth0``, which is the same as `with_interface`."""
        scope = None
        if isinstance(address, str):
            address, percent, zone = address.partition("%")
            scope = zone if percent else None
        elif not isinstance(address, bytes | ipaddress.IPv4Address | ipaddress.IPv6Address):
            raise TypeError(f"an IP address is text, packed bytes or an object, not {address!r}")
        found = ipaddress.ip_address(address)
        if isinstance(found, ipaddress.IPv6Address) and found.scope_id:
            scope = found.scope_id
            found = ipaddress.IPv6Address(int(found))
        if scope is not None:
            if found.version == 4:
                raise ValueError(f"an IPv4 address has no zone: {address!r}%{scope}")
            self.with_interface(scope)
        self._ip_address = found
        self._ip_text = str(found)
        return self

    with_address = with_ip_address  # its name in older systems

    def with_interface(self, interface: str) -> Self:
        """The name of an interface (str), ``"eth0"``; ``"any"`` stands for all, as none does.

        A Local Endpoint's is the one that is used.  A Remote Endpoint's is only the zone of its
        link-local address.
        """
        if not isinstance(interface, str):
            raise TypeError(f"the name of an interface is a str, not {interface!r}")
        if not interface or any(c.isspace() or c in "%/\0" for c in interface):
            raise ValueError(f"not a zone, and not an interface: {interface!r}")
        self._interface = None if interface == "any" else interface
        return self

    def with_protocol(self, protocol: str) -> Self:
        """The protocol (str: the name of a plugin, ``"tcp"``) that this Endpoint is for: it counts
        for stacks that have it, and there it goes before Endpoints that name none (RFC 9622
        section 6.1.3)."""
        if not isinstance(protocol, str):
            raise TypeError(f"the name of a protocol is a str, not {protocol!r}")
        if not protocol or any(c.isspace() for c in protocol):
            raise ValueError(f"not the name of a protocol: {protocol!r}")
        self._protocol = protocol.lower()
        return self

    def with_hop_limit(self, hops: int) -> Self:
        """How many hops a packet may go, 1 to 255: IPv4's TTL, IPv6's hop limit."""
        if isinstance(hops, bool) or not isinstance(hops, int):
            raise TypeError(f"a hop limit is an int, not {hops!r}")
        if not 1 <= hops <= 255:
            raise ValueError(f"a hop limit is a number from 1 to 255, not {hops!r}")
        self._hop_limit = hops
        return self

    def with_ice_credentials(self, name: str, password: str) -> Self:
        """What checks in a rendezvous are signed with (RFC 8445 section 5.3): the *name*
        (``ufrag``) has 4 to 256, the *password* 22 to 256 letters and digits.  Only needed with
        a peer that signals them by another way than `to_text`.  Raises ValueError."""
        facts = self._facts or Facts("host", candidate_priority("host", 65535), "1")
        self._facts = dataclasses.replace(facts, credentials=read_credentials(name, password))
        return self

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The Endpoint that *text* is about: one line of `to_text`, or of an ICE agent (RFC 8839
        section 5.1).  Raises ValueError."""
        if not isinstance(text, str):
            raise TypeError(f"the text of an Endpoint is a str, not {text!r}")
        transport, address, facts = read_candidate(text)
        made = cls().with_ip_address(address[0]).with_port(address[1]).with_protocol(transport)
        made._facts = facts
        return made

    def to_text(self) -> str:
        """A line of text for the peer, who makes a RemoteEndpoint of it with `from_text`: the
        address, the port, and what a resolved Endpoint knows beside them, its secret included; so
        it is for the peer alone.  Raises ValueError without an address and a port."""
        if self._ip_address is None or not self._port:
            raise ValueError(f"only an address and a port can be told to a peer: {self!r}")
        facts = self._facts or Facts("host", candidate_priority("host", 65535), "1")
        transport = "udp" if self._protocol == "udp" else "tcp"
        return write_candidate(transport, (str(self._ip_address), self._port), facts)

    @property
    def candidate_type(self) -> str | None:
        """What a resolved Endpoint is: ``"host"`` (an address of this machine), ``"srflx"`` (how a
        server sees it), ``"relay"`` (a server's, for it); None for others."""
        return None if self._facts is None else self._facts.kind

    @property
    def ice_credentials(self) -> tuple[str, str] | None:
        """The name and the password of `with_ice_credentials`, or those of a resolved Endpoint."""
        facts = self._facts
        if facts is None or facts.credentials is None:
            return None
        return facts.credentials.name, facts.credentials.password

    @property
    def facts(self) -> Facts | None:
        """For the rendezvous: what is known of a candidate beside its address."""
        return self._facts

    @property
    def hostname(self) -> str | None:
        """The host's name, if one was given."""
        return self._hostname

    @property
    def port(self) -> int | None:
        """The port, if one was given."""
        return self._port

    @property
    def service(self) -> str | None:
        """The service, if one was given."""
        return self._service

    @property
    def ip_address(self) -> str | None:
        """The address in text form, with its zone if it needs one, if one was given."""
        address = self._ip_address
        if address is None:
            return None
        # Only there the address alone does not say which host is meant (RFC 4007 section 6).
        if self._interface and address.version == 6:
            if address.is_link_local or address.is_multicast:
                return f"{address}%{self._interface}"
        return self._ip_text

    @property
    def interface(self) -> str | None:
        """The interface, if one was given."""
        return self._interface

    @property
    def protocol(self) -> str | None:
        """The protocol that this is for, if one was given."""
        return self._protocol

    @property
    def hop_limit(self) -> int | None:
        """The hop limit, if one was given."""
        return self._hop_limit

    def covers(self, active: Endpoint, hostname: str | None) -> bool:
        """Whether this is what has led to *active*, the end of a Connection whose peer was looked
        up by *hostname*."""
        if self._ip_address is not None:
            same = self._ip_address == active._ip_address
        else:
            same = self._hostname is not None and self._hostname == hostname
        return same and (self._port is None or self._port == active._port)

    def copy(self) -> Self:
        """An object that later changes of this one do not reach."""
        return copy.copy(self)

    def _identity(self) -> tuple[Any, ...]:
        return (type(self), *(getattr(self, name) for name in Endpoint.__slots__))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        inside = ", ".join(
            f"{name}={value!r}"
            for name in (
                "hostname",
                "ip_address",
                "port",
                "service",
                "interface",
                "protocol",
                "hop_limit",
                "candidate_type",
            )
            if (value := getattr(self, name)) is not None
        )
        return f"{type(self).__name__}({inside})"


@dataclasses.dataclass(frozen=True, slots=True)
class NatServer:
    """A STUN or TURN server that a Local Endpoint is to be resolved through."""

    host: str
    port: int
    credentials: tuple[str, str] | None = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return f"server {self.host} {self.port}"


class LocalEndpoint(Endpoint):
    """Our end (RFC 9622 section 6.1): what to listen on, or where to come from."""

    __slots__ = ("_stun", "_turn", "held")

    def __init__(self) -> None:
        super().__init__()
        self._stun: NatServer | None = None
        self._turn: NatServer | None = None
        self.held: Any = None
        """The socket of a resolved one, until it is used or given back."""

    def with_stun_server(
        self, address: Any, port: int = 3478, credentials: tuple[str, str] | None = None
    ) -> Self:
        """Ask the STUN server at *address* (a name, or an IP address) and *port* how it sees us
        (RFC 9622 section 6.1.4): `Preconnection.resolve` then also gives the server-reflexive
        address.  *credentials* are a user name and a password, for a server that asks for them."""
        self._stun = _nat_server(address, port, credentials)
        return self

    def with_turn_server(
        self, address: Any, port: int = 3478, credentials: tuple[str, str] | None = None
    ) -> Self:
        """Have the TURN server at *address* and *port* relay for us (RFC 8656) where nothing else
        leads to the peer: `Preconnection.resolve` then also gives the relayed address.  It serves
        as a STUN server, too.  Over UDP only.  An extension of RFC 9622."""
        self._turn = _nat_server(address, port, credentials)
        return self

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        state: Any = object.__getstate__(self)
        for values in state if isinstance(state, tuple) else (state,):
            for name, value in (values or {}).items():
                setattr(made, name, value)
        return made

    def __deepcopy__(self, memo: Any) -> Self:
        return copy.copy(self)  # nothing in it is ever changed

    def __getstate__(self) -> Any:
        """What a pickle has: all but the socket, which stays in its process."""
        bare = copy.copy(self)
        bare.held = None
        return object.__getstate__(bare)

    def resolved_to(self, facts: Facts, held: Any) -> None:
        """For the rendezvous: what was found out, and the socket that it is about."""
        self._facts = facts
        self.held = held

    @property
    def stun_server(self) -> NatServer | None:
        """The STUN server, if one was given."""
        return self._stun

    @property
    def turn_server(self) -> NatServer | None:
        """The TURN server, if one was given."""
        return self._turn

    def _identity(self) -> tuple[Any, ...]:
        return (*super()._identity(), self._stun, self._turn)


def _nat_server(address: Any, port: int, credentials: tuple[str, str] | None) -> NatServer:
    named = Endpoint()
    if isinstance(address, str):
        try:
            named.with_ip_address(address)
        except ValueError:
            named.with_hostname(address)
    else:
        named.with_ip_address(address)
    named.with_port(port)
    if not named.port:
        raise ValueError("the port of a server is not 0")
    if credentials is not None:
        name, password = (None, None) if isinstance(credentials, str) else credentials
        if not isinstance(name, str) or not isinstance(password, str):
            raise TypeError("credentials are a user name and a password, both str")
        credentials = (name, password)
    host = named.ip_address or named.hostname
    assert host is not None
    return NatServer(host, named.port, credentials)


class RemoteEndpoint(Endpoint):
    """The peer's end (RFC 9622 section 6.1)."""

    __slots__ = ()

    def copy(self) -> Self:
        if type(self) is not RemoteEndpoint:
            return super().copy()
        # Each Connection has copies of its own, and the general way takes five times as long.
        made = type(self).__new__(type(self))
        made._hostname = self._hostname
        made._ip_address = self._ip_address
        made._ip_text = self._ip_text
        made._interface = self._interface
        made._port = self._port
        made._service = self._service
        made._protocol = self._protocol
        made._hop_limit = self._hop_limit
        made._facts = self._facts
        return made


def endpoints_of(given: Any, kind: type[E]) -> list[E]:
    """*given* is one Endpoint, several, or None: a list of them.  Raises TypeError."""
    if given is None:
        return []
    found: list[Any] = [given] if isinstance(given, Endpoint | str) else list(given)
    for endpoint in found:
        if not isinstance(endpoint, kind):
            raise TypeError(f"a {kind.__name__} is needed, or several, not {given!r}")
    return found


def endpoint_of(sockaddr: Any, kind: type[Endpoint], hostname: str | None = None) -> Any:
    """The Endpoint for a socket address of the kernel's."""
    if not isinstance(sockaddr, tuple):
        return None
    made = kind().with_port(sockaddr[1])
    address = str(sockaddr[0])
    if len(sockaddr) == 4 and sockaddr[3] and "%" not in address:
        try:
            address += "%" + socket.if_indextoname(sockaddr[3])
        except OSError:
            address += f"%{sockaddr[3]}"
    made.with_ip_address(address)
    if hostname is not None:
        made.with_hostname(hostname)
    return made


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
