"""The paths of this machine: its interfaces with their addresses and routes (RFC 9623 section 4.1).

`survey` is asked at each establishment, so it is remembered, and looked at again only when the
kernel has said that something changed; that costs two system calls, and needs no watcher and no
greenlet.  A VPN is a path like any other.

Where the kernel does not answer (no netlink: another system, or a sandbox) there are names and
types only.  ``Survey.complete`` tells, and what is not known then rules nothing out.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import TypeVar

from ..properties import InterfaceType
from . import netlink
from .history import default_history

__all__ = [
    "LocalAddress",
    "Path",
    "Survey",
    "forget_survey",
    "interfaces",
    "survey",
]

# Of <linux/if.h>, <linux/if_addr.h> and <linux/rtnetlink.h>.
_UP, _RUNNING, _LOOPBACK = 0x1, 0x40, 0x8
_TEMPORARY, _OPTIMISTIC, _DAD_FAILED, _DEPRECATED, _TENTATIVE = 0x01, 0x04, 0x08, 0x20, 0x40
_SCOPES = {253: "link", 254: "host"}

# The kernel's kinds of virtual interface that are tunnels, and the numbers of <linux/if_arp.h>.
_TUNNELS = {
    "erspan", "geneve", "gre", "gretap", "ip6erspan", "ip6gre", "ip6gretap", "ip6tnl", "ipip",
    "l2tp", "ovpn", "ovpn-dco", "sit", "tun", "vti", "vti6", "vxlan", "wireguard", "xfrm",
}  # fmt: skip
_CELLULAR = {"mhi_net", "rmnet", "wwan"}
_HARDWARE = {
    1: InterfaceType.WIRED,
    519: InterfaceType.CELLULAR,  # raw IP, as modems speak it
    768: InterfaceType.TUNNEL,
    769: InterfaceType.TUNNEL,
    772: InterfaceType.LOOPBACK,
    776: InterfaceType.TUNNEL,
    778: InterfaceType.TUNNEL,
    801: InterfaceType.WIFI,
    802: InterfaceType.WIFI,
    803: InterfaceType.WIFI,
    823: InterfaceType.TUNNEL,
    65534: InterfaceType.TUNNEL,  # no link layer: tun, WireGuard
}
_SYSTEM = File("/sys/class/net")

# What leads to everywhere: one route, or two halves as VPNs set them to go before another's.
_EVERYWHERE = {
    socket.AF_INET: ({("", 0)}, {("0.0.0.0", 1), ("128.0.0.0", 1)}),
    socket.AF_INET6: ({("", 0)}, {("::", 1), ("8000::", 1)}, {("2000::", 3)}),
}

# Where systemd's networkd and resolved note the domains of a link, by its index.
_DOMAINS = ("/run/systemd/netif/links", "/run/systemd/resolve/netif")


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of this machine that can be used."""

    text: str
    """``192.0.2.1``, or ``fe80::1%eth0``."""
    family: int
    """``socket.AF_INET`` or ``socket.AF_INET6``."""
    temporary: bool = False
    """Whether it is there for privacy, and for a while (RFC 8981)."""
    deprecated: bool = False
    """Whether new connections should rather not use it (RFC 4862)."""
    scope: str = "global"
    """``global``, ``link`` or ``host``."""
    prefix: int = 0
    """How many bits of it name its network."""


@dataclass(frozen=True, slots=True)
class Path:
    """An interface, and the network that it is attached to."""

    interface: str
    """Its name."""
    type: InterfaceType = InterfaceType.OTHER
    addresses: tuple[LocalAddress, ...] = ()
    """Those that can be used: none that is still being probed (RFC 4862), or was found twice."""
    up: bool = True
    """Whether it is switched on and has a carrier."""
    default_routes: frozenset[int] = frozenset()
    """The families (``socket.AF_INET``...) with a route through it to everywhere."""
    gateways: tuple[str, ...] = ()
    """The routers of these routes."""
    mtu: int = 0
    """In bytes; 0 if it is not known."""
    network: str = ""
    """A short name for the network, always the same for the same interface, prefixes and
    gateways: the key of what is remembered of it."""
    pvds: tuple[str, ...] = ()
    """The domains that the system has for this interface, which name its provisioning domain
    (RFC 7556)."""
    index: int = 0
    """The interface's number."""


@dataclass(frozen=True, slots=True)
class Survey:
    """The paths of this machine at one moment."""

    paths: tuple[Path, ...]
    generation: int = 0
    """Grows whenever the paths have changed."""
    complete: bool = True
    """False where the system tells names only.  Then there are no addresses, and the default
    routes are guessed: every path but loopback has one of each family."""

    def find(self, interface: str) -> Path | None:
        """The path of the interface of that name."""
        return next((path for path in self.paths if path.interface == interface), None)

    def holder(self, address: str) -> Path | None:
        """The path that has the local *address*."""
        bare, _, interface = address.partition("%")
        for path in self.paths:
            if interface and path.interface != interface:
                continue
            if any(one.text.partition("%")[0] == bare for one in path.addresses):
                return path
        return None

    @property
    def network(self) -> str:
        """The name of what this machine is attached to as a whole: the networks with a default
        route; without any, all that are up."""
        leading = [path.network for path in self.paths if path.default_routes and path.up]
        return _short(leading or [path.network for path in self.paths if path.up])


def survey() -> Survey:
    """The paths of this machine now.  Not a switchpoint, and never waits.

    Almost free while nothing changes.  The answer belongs to the network namespace that the
    calling thread is in.
    """
    with _lock:
        return _watched.survey()


def forget_survey() -> None:
    """Forget what `survey` remembers, and close the socket on which it hears of changes.  The next
    call begins afresh."""
    with _lock:
        _watched.forget()


def interfaces() -> list[tuple[str, InterfaceType]]:
    """The name and the type of each interface, in the system's order."""
    return [(path.interface, path.type) for path in survey().paths]


# -- What is remembered --


class _Domains:
    """Whether systemd has noted something since: it replaces files, so the folder changes."""

    def __init__(self) -> None:
        self._times = {folder: _changed_at(folder) for folder in _DOMAINS if os.path.isdir(folder)}

    def changed(self) -> bool:
        return any(_changed_at(folder) != time for folder, time in self._times.items())


def _changed_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


class _Watched:
    """The last survey, and how to tell that it still holds."""

    def __init__(self) -> None:
        self._news: netlink.Notifications | None = None
        self._last: Survey | None = None
        self._where: str | None = None
        self._domains = _Domains()
        self._generation = 0

    def survey(self) -> Survey:
        where = _namespace()
        if where != self._where:
            self.forget()
            self._where = where
        if self._last is None or self._changed() or self._domains.changed():
            self._domains = _Domains()
            self._renew()
        assert self._last is not None
        return self._last

    def _changed(self) -> bool:
        if self._news is None:
            return True  # nobody tells: look each time
        try:
            return self._news.changed()
        except OSError:
            self.forget()
            return True

    def _renew(self) -> None:
        if self._news is None:
            try:
                self._news = netlink.Notifications()  # first, so that nothing is missed
            except OSError:
                pass
        try:
            paths, complete = look(), True
        except OSError:
            paths, complete = _names_only(), False
        last = self._last
        if last is not None and (last.paths, last.complete) == (paths, complete):
            return
        self._generation += 1
        self._last = Survey(paths, self._generation, complete)
        default_history().attached({self._last.network, *(path.network for path in paths)})

    def forget(self) -> None:
        if self._news is not None:
            self._news.close()
        self._news = self._last = None


_watched = _Watched()
_lock = threading.Lock()


def _after_fork_in_child() -> None:
    """The notifications are the parent's, and another thread may have held the lock."""
    global _lock
    _lock = threading.Lock()
    _watched.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
# Else Python would warn, in its development mode, of a socket that nobody has closed.
atexit.register(forget_survey)


def _namespace() -> str | None:
    """Which network this thread sees."""
    try:
        return os.readlink("/proc/thread-self/ns/net")
    except OSError:
        return None


# -- Looking --


def look() -> tuple[Path, ...]:
    """The paths of this machine, asked of the kernel now.  Raises OSError."""
    links = netlink.links()
    routes = _by_link(netlink.wide_routes())
    addresses = _by_link(netlink.addresses())
    return tuple(path_of(link, addresses[link.index], routes[link.index]) for link in links)


L = TypeVar("L", netlink.Address, netlink.Route)


def _by_link(all_: Iterable[L]) -> defaultdict[int, list[L]]:
    found: defaultdict[int, list[L]] = defaultdict(list)
    for one in all_:
        found[one.index].append(one)
    return found


def path_of(
    link: netlink.Link, addresses: Sequence[netlink.Address], routes: Sequence[netlink.Route]
) -> Path:
    """What the kernel says of one interface, as a `Path`."""
    usable = [address for address in addresses if _is_usable(address)]
    families = frozenset(
        family
        for family, ways in _EVERYWHERE.items()
        if any(way <= _destinations(routes, family) for way in ways)
    )
    gateways = tuple(
        sorted({route.gateway for route in routes if route.gateway and route.family in families})
    )
    return Path(
        link.name,
        _type_of(link),
        tuple(_local_address(address, link.name) for address in usable),
        bool(link.flags & _UP and link.flags & _RUNNING),
        families,
        gateways,
        link.mtu,
        _short([link.name, *sorted({_network(address) for address in usable}), *gateways]),
        () if link.flags & _LOOPBACK else _pvds(link.index),
        link.index,
    )


def _is_usable(address: netlink.Address) -> bool:
    if address.flags & _DAD_FAILED:
        return False
    return not address.flags & _TENTATIVE or bool(address.flags & _OPTIMISTIC)


def _destinations(routes: Iterable[netlink.Route], family: int) -> set[tuple[str, int]]:
    return {(route.destination, route.prefix) for route in routes if route.family == family}


def _local_address(address: netlink.Address, interface: str) -> LocalAddress:
    v6 = address.family == socket.AF_INET6
    scope = _SCOPES.get(address.scope, "global")
    return LocalAddress(
        f"{address.address}%{interface}" if v6 and scope == "link" else address.address,
        address.family,
        v6 and bool(address.flags & _TEMPORARY),  # to IPv4 this flag means something else
        bool(address.flags & _DEPRECATED),
        scope,
        address.prefix,
    )


def _network(address: netlink.Address) -> str:
    """The prefix that *address* is in; or, on a link of two ends, the other end."""
    if address.peer and address.peer != address.address:
        return f"{address.peer}/{address.prefix}"
    bits = socket.inet_pton(address.family, address.address)
    unused = 8 * len(bits) - address.prefix
    number = int.from_bytes(bits, "big") >> unused << unused
    return f"{socket.inet_ntop(address.family, number.to_bytes(len(bits), 'big'))}/{address.prefix}"


def _short(what: Sequence[str]) -> str:
    return hashlib.blake2s(
        "\n".join(what).encode(errors="surrogateescape"), digest_size=6
    ).hexdigest()


def _type_of(link: netlink.Link) -> InterfaceType:
    if link.kind in _TUNNELS:
        return InterfaceType.TUNNEL
    if link.kind in _CELLULAR:
        return InterfaceType.CELLULAR
    return _type_by_files(link.name, link.index) or _HARDWARE.get(
        link.hardware, InterfaceType.OTHER
    )


def _type_by_files(name: str, index: int | None = None) -> InterfaceType | None:
    """What only the system's files tell.  They may be another namespace's: *index* must agree."""
    folder = _SYSTEM / name
    try:
        if index is not None and int((folder / "ifindex").read_text()) != index:
            return None
        if "DEVTYPE=wwan" in (folder / "uevent").read_text():
            return InterfaceType.CELLULAR
    except (OSError, ValueError):
        return None
    if (folder / "wireless").exists() or (folder / "phy80211").exists():
        return InterfaceType.WIFI
    return None


def _names_only() -> tuple[Path, ...]:
    """What there is without netlink."""
    found = []
    for index, name in socket.if_nameindex():
        try:
            hardware = int((_SYSTEM / name / "type").read_text())
        except (OSError, ValueError):
            hardware = 772 if name in ("lo", "lo0") else 0
        type_ = _type_by_files(name) or _HARDWARE.get(hardware, InterfaceType.OTHER)
        leads = frozenset() if type_ is InterfaceType.LOOPBACK else frozenset(_EVERYWHERE)
        path = Path(name, type_, default_routes=leads, pvds=_pvds(index), index=index)
        found.append(replace(path, network=_short([name])))
    return tuple(found)


def _pvds(index: int) -> tuple[str, ...]:
    """The domains that systemd has noted for an interface.  Linux tells nobody of provisioning
    domains in Router Advertisements (RFC 8801)."""
    found: list[str] = []
    for folder in _DOMAINS:
        try:
            lines = File(folder, str(index)).read_text().splitlines()
        except (OSError, ValueError):
            continue
        for line in lines:
            name, _, value = line.partition("=")
            if name in ("DOMAINS", "ROUTE_DOMAINS"):
                found += [domain.strip("~.").lower() for domain in value.split()]
    return tuple(dict.fromkeys(domain for domain in found if domain))
