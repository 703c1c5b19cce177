"""Where the kernel would send from: the facts that the order of addresses depends on (RFC 6724
section 5, which the kernel does itself).

A UDP socket that is connected sends nothing, and its own address tells what the kernel chose.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...hub import PlainSocket
from ...transports.options import bind_to_interface
from ..paths.survey import Survey, survey
from .ordering import DEFAULT_POLICY, Policy, Source, read_policy

__all__ = ["SourceFinder", "policy", "source_address"]

_IF_INET6 = Path("/proc/net/if_inet6")
_INTERFACES = Path("/sys/class/net")
_POLICY = Path("/etc/gai.conf")
# <linux/if_addr.h> and <linux/if_arp.h>
_IFA_F_HOMEADDRESS, _IFA_F_DEPRECATED = 0x10, 0x20
_ARPHRD_SIT = "776"  # IPv6 in IPv4


def source_address(remote: tuple[Any, ...], interface: str | None = None) -> str | None:
    """The address that packets to the socket address *remote* would come from, on *interface* if
    one is named; None if there is no way.  Sends nothing."""
    family = socket.AF_INET6 if ":" in remote[0] else socket.AF_INET
    try:
        with PlainSocket(family, socket.SOCK_DGRAM) as probe:
            if interface is not None:
                with contextlib.suppress(PermissionError):  # then the routes' choice has to do
                    bind_to_interface(probe, interface)
            probe.connect((remote[0], remote[1] or 9, *remote[2:]))  # some port, to be complete
            return str(probe.getsockname()[0])
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class _Facts:
    deprecated: bool
    home: bool
    tunnel: bool


class SourceFinder:
    """The `Source` of each destination, on an interface if one is named."""

    def __init__(self, interface: str | None) -> None:
        self._interface = interface

    def find(self, remote: tuple[Any, ...]) -> Source | None:
        """The Source for the socket address *remote*, None if there is no way to it."""
        address = source_address(remote, self._interface)
        if address is None:
            return None
        if ":" not in address:
            return Source(address)
        facts = _table().get(socket.inet_pton(socket.AF_INET6, address.partition("%")[0]).hex())
        if facts is None:
            return Source(address)
        return Source(address, facts.deprecated, facts.home, facts.tunnel)


_known: tuple[Survey | None, dict[str, _Facts]] = (None, {})


def _table() -> dict[str, _Facts]:
    """What the system says of its IPv6 addresses, read again when the network has changed."""
    global _known
    now = survey()
    if now is not _known[0]:
        _known = (now, _read_table())
    return _known[1]


def _read_table() -> dict[str, _Facts]:
    try:
        rows = [line.split() for line in _IF_INET6.read_text("ascii").splitlines()]
    except OSError:
        return {}
    return {
        digits: _Facts(
            deprecated=bool(int(flags, 16) & _IFA_F_DEPRECATED),
            home=bool(int(flags, 16) & _IFA_F_HOMEADDRESS),
            tunnel=_is_translating(name),
        )
        for digits, _index, _length, _scope, flags, name in rows
    }


def _is_translating(interface: str) -> bool:
    try:
        return (_INTERFACES / interface / "type").read_text("ascii").strip() == _ARPHRD_SIT
    except OSError:
        return False


_read: tuple[float, Policy] = (-1.0, DEFAULT_POLICY)


def policy() -> Policy:
    """The policy table of this machine: ``/etc/gai.conf`` if it has one, else RFC 6724's."""
    global _read
    try:
        changed = _POLICY.stat().st_mtime
    except OSError:
        return DEFAULT_POLICY
    if changed != _read[0]:
        try:
            _read = (changed, read_policy(_POLICY.read_text("utf-8", "replace")))
        except OSError:
            return DEFAULT_POLICY
    return _read[1]
