"""Asking the kernel of Linux about its network: links, addresses and routes, over rtnetlink (RFC
3549).

Only what the choice of paths needs.  No call here waits: the kernel has its answer ready when the
question has been handed over, so all sockets are non-blocking, and a kernel that stays silent is an
`OSError` like any other refusal (no such address family, a sandbox that forbids it).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice

from ...hub import PlainSocket

__all__ = [
    "WIDE",
    "Address",
    "Link",
    "Notifications",
    "Route",
    "addresses",
    "links",
    "route_to",
    "wide_routes",
]

# The numbers of <linux/netlink.h> and <linux/rtnetlink.h>; Python has none of them.
_NETLINK_ROUTE = 0
_SOL_NETLINK = 270
_STRICT_CHECK = 12
_ERROR, _DONE, _OVERRUN = 2, 3, 4
_REQUEST, _DUMP = 0x1, 0x300
_DUMP_INTERRUPTED = 0x10
_GET_LINK, _GET_ADDRESS, _GET_ROUTE = 18, 22, 26
_NEW_ROUTE = 24
# Which changes are notified: links, addresses and routes of both families.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_LINK = struct.Struct("=BxHiII")  # family, kind of hardware, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, bits of the prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, bits of dst and src, tos, table, ..., scope, type
_NEXT_HOP = struct.Struct("=HBBi")  # length, flags, hops, index
_NUMBER = struct.Struct("=I")
_TYPE_MASK = 0x3FFF  # without the marks "nested" and "in network order"

_IFLA_NAME, _IFLA_MTU, _IFLA_INFO, _IFLA_MASK, _INFO_KIND = 3, 4, 18, 29, 1
_SKIP_STATISTICS = 8
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 2, 4, 5, 7
_RTA_METRICS, _RTA_MULTIPATH, _RTA_VIA, _METRIC_MTU = 8, 9, 18, 2
_UNICAST, _LOCAL = 1, 2
_ROUTE_DEAD = 0x1 | 0x10  # dead, or its link is down

_BUFFER = 1 << 18  # bytes: more than the kernel puts into one answer
_RETRIES = 5
# The kernel tells routes in the order of their prefixes, so the default ones come first.  A router
# with a million of them is not read to the end.
_MAX_ROUTES = 4096

WIDE = 3  # bits: 2000::/3 is all of the public IPv6 Internet

_sequence = count(1)


@dataclass(frozen=True, slots=True)
class Link:
    """An interface.  *hardware* is a number of <linux/if_arp.h>, *kind* the kernel's word for a
    virtual one ("veth", "wireguard"; else "")."""

    index: int
    name: str
    hardware: int
    kind: str
    flags: int
    mtu: int


@dataclass(frozen=True, slots=True)
class Address:
    """An address of this machine; *peer* is the other end's where the link has only two."""

    index: int
    family: int
    address: str
    peer: str
    prefix: int
    flags: int
    scope: int


@dataclass(frozen=True, slots=True)
class Route:
    """A way: the interface's *index*, the *gateway* and the *source* address ("" if there is
    none), and the *mtu* that belongs to it alone (0: the interface's)."""

    family: int
    prefix: int
    destination: str
    index: int
    gateway: str
    source: str = ""
    mtu: int = 0


def links() -> list[Link]:
    """All interfaces, in the kernel's order.  Raises OSError."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(
        _IFLA_MASK, _NUMBER.pack(_SKIP_STATISTICS)
    )
    found = []
    for _, payload in _dump(_GET_LINK, body):
        _, hardware, index, flags, _ = _LINK.unpack_from(payload)
        said = _attributes(payload, _LINK.size)
        kind = _attributes(said.get(_IFLA_INFO, b""), 0).get(_INFO_KIND, b"")
        found.append(
            Link(
                index,
                _text(said.get(_IFLA_NAME, b"")),
                hardware,
                _text(kind),
                flags,
                _number(said.get(_IFLA_MTU)),
            )
        )
    return found


def addresses() -> list[Address]:
    """All addresses of all interfaces, in the kernel's order.  Raises OSError."""
    found = []
    for _, payload in _dump(_GET_ADDRESS, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, prefix, flags, scope, index = _ADDRESS.unpack_from(payload)
        if family not in _LENGTHS:
            continue
        said = _attributes(payload, _ADDRESS.size)
        peer = _ip(family, said.get(_IFA_ADDRESS, b""))
        # With a link of two ends IFA_ADDRESS is the other end's.
        own = _ip(family, said.get(_IFA_LOCAL, b"")) or peer
        flags = _number(said.get(_IFA_FLAGS), flags)
        found.append(Address(index, family, own, peer, prefix, flags, scope))
    return found


def wide_routes() -> list[Route]:
    """The routes of all tables whose prefix has at most `WIDE` bits: those that may lead to
    everywhere.  Raises OSError."""
    found = []
    for family in _LENGTHS:
        body = _ROUTE.pack(family, *[0] * 8)
        for _, payload in _dump(_GET_ROUTE, body, most=_MAX_ROUTES):
            found += [route for route in _routes(payload, {_UNICAST}) if route.prefix <= WIDE]
    return found


def route_to(destination: str, *, source: str = "", index: int = 0) -> Route | None:
    """The way that a packet to the address *destination* would take now, from the address *source*
    and through the interface *index* if they are given; None if there is none.  Sends nothing.
    Raises OSError if the kernel does not say."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    bits = 8 * _LENGTHS[family]
    body = _ROUTE.pack(family, bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
    body += _attribute(_RTA_DST, _packed(family, destination))
    if source:
        body += _attribute(_RTA_SRC, _packed(family, source))
    if index:
        body += _attribute(_RTA_OIF, _NUMBER.pack(index))
    try:
        for kind, payload in _ask(_GET_ROUTE, _REQUEST, body):
            if kind == _NEW_ROUTE:
                return next(_routes(payload, {_UNICAST, _LOCAL}), None)
    except OSError as error:
        if error.errno in _NO_ROUTE:
            return None
        raise
    return None


# What the kernel answers where there is no way, or where the address or the interface is gone.
_NO_ROUTE = (
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENODEV,
    errno.EINVAL,
    errno.EACCES,
)


class Notifications:
    """A socket on which the kernel tells of changes.  Not to be shared with a forked child."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._socket = _open(_GROUPS)

    def fileno(self) -> int:
        """The descriptor, to be waited on."""
        return self._socket.fileno()

    def changed(self) -> bool:
        """Whether anything has changed since the last time.  Never waits.  Raises OSError."""
        try:
            self._socket.recv(1)  # a message is cut off, and that it was there is all we want
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # there were too many
                raise
        self._drain()
        return True

    def _drain(self) -> None:
        for _ in range(_MAX_ROUTES):
            try:
                self._socket.recv(1)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


# -- Asking --


def _open(groups: int = 0) -> socket.socket:
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, "this system has no netlink")
    made = PlainSocket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    try:
        made.setblocking(False)
        made.bind((0, groups))
        if not groups:
            try:
                made.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
            except OSError:
                pass  # a kernel before 4.20 checks less, and answers the same
    except BaseException:
        made.close()
        raise
    return made


def _dump(kind: int, body: bytes, most: int | None = None) -> list[tuple[int, bytes]]:
    """All that the kernel has of one kind, or the first *most*.  A change in the midst of it means
    to begin again."""
    for _ in range(_RETRIES):
        with closing(_ask(kind, _REQUEST | _DUMP, body)) as answers:
            try:
                return list(islice(answers, most))
            except InterruptedError:
                continue
    raise OSError(errno.EAGAIN, "the network changes faster than it can be read")


def _ask(kind: int, flags: int, body: bytes) -> Generator[tuple[int, bytes], None, None]:
    """The answers to one question, as (type, payload).  Raises OSError."""
    sequence = next(_sequence) & 0xFFFFFFFF
    with _open() as asking:
        request = _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body
        asking.sendto(request, (0, 0))
        while True:
            data, sender = asking.recvfrom(_BUFFER)
            if sender[0] != 0:  # not from the kernel
                continue
            for type_, marks, number, payload in _messages(data):
                if number != sequence:
                    continue
                if marks & _DUMP_INTERRUPTED:
                    raise InterruptedError(errno.EINTR, "the answer is not of one moment")
                if type_ in (_ERROR, _DONE):
                    code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                    if code > 0:
                        raise OSError(code, os.strerror(code))
                    return
                if type_ != _OVERRUN:
                    yield type_, payload
                if not flags & _DUMP:
                    return


# -- Reading --

_LENGTHS: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, payload) of each whole message in *data*."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += _aligned(length)


def _attributes(data: bytes, at: int) -> dict[int, bytes]:
    found = {}
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _routes(payload: bytes, kinds: Collection[int]) -> Iterator[Route]:
    """The routes of one message, if it is of one of *kinds*: several if it names several next
    hops."""
    family, prefix, _, _, _, _, _, kind, flags = _ROUTE.unpack_from(payload)
    if family not in _LENGTHS or kind not in kinds or flags & _ROUTE_DEAD:
        return
    said = _attributes(payload, _ROUTE.size)
    destination = _ip(family, said.get(_RTA_DST, b""))
    source = _ip(family, said.get(_RTA_PREFSRC, b""))
    mtu = _number(_attributes(said.get(_RTA_METRICS, b""), 0).get(_METRIC_MTU))
    if _RTA_OIF in said:
        index = _number(said[_RTA_OIF])
        yield Route(family, prefix, destination, index, _gateway(family, said), source, mtu)
    hops = said.get(_RTA_MULTIPATH, b"")
    at = 0
    while at + _NEXT_HOP.size <= len(hops):
        length, marks, _, index = _NEXT_HOP.unpack_from(hops, at)
        if length < _NEXT_HOP.size or at + length > len(hops):
            return
        if not marks & _ROUTE_DEAD:
            inside = _attributes(hops[: at + length], at + _NEXT_HOP.size)
            yield Route(family, prefix, destination, index, _gateway(family, inside), source, mtu)
        at += _aligned(length)


def _gateway(family: int, said: dict[int, bytes]) -> str:
    if _RTA_GATEWAY in said:
        return _ip(family, said[_RTA_GATEWAY])
    via = said.get(_RTA_VIA, b"")  # an IPv4 route through an IPv6 neighbour
    if len(via) > 2:
        return _ip(struct.unpack_from("=H", via)[0], via[2:])
    return ""


def _packed(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address.partition("%")[0])


def _ip(family: int, value: bytes) -> str:
    return socket.inet_ntop(family, value) if len(value) == _LENGTHS.get(family) else ""


def _number(value: bytes | None, otherwise: int = 0) -> int:
    if value is None or len(value) < _NUMBER.size:
        return otherwise
    number: int = _NUMBER.unpack_from(value)[0]
    return number


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))
