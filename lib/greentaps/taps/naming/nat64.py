"""IPv4 addresses as a network with IPv6 alone reaches them (RFC 8305 section 7.1).  Pure.

Such a network translates: an IPv4 address is part of an IPv6 address with the network's prefix
(RFC 6052), and that prefix is found by asking for a name that has IPv4 addresses only (RFC 7050).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

__all__ = ["KNOWN_NAME", "Prefix", "prefixes_in", "translated"]

Prefix = tuple[bytes, int]

KNOWN_NAME = "ipv4only.arpa."
_KNOWN_ADDRESSES = (IPv4Address("192.0.0.170"), IPv4Address("192.0.0.171"))
_LENGTHS = (96, 64, 56, 48, 40, 32)  # RFC 6052 section 2.2; the commonest one first
_WELL_KNOWN = IPv6Address("64:ff9b::").packed[:12]


def prefixes_in(addresses: Iterable[str]) -> list[Prefix]:
    """The prefixes that *addresses* were made with, if they are what a translating network says
    that `KNOWN_NAME` has."""
    found: dict[Prefix, None] = {}
    for address in addresses:
        packed = IPv6Address(address).packed
        for length in _LENGTHS:
            prefix = (packed[: length // 8], length)
            if any(packed == _embedded(prefix, known) for known in _KNOWN_ADDRESSES):
                found[prefix] = None
                break
    return list(found)


def translated(address: str, prefix: Prefix) -> str | None:
    """The IPv6 address that *address* has behind *prefix*; None if it must have none, as a private
    one with the prefix that is the same everywhere (RFC 6052 section 3.1), or one that means this
    machine, this link or many."""
    v4 = IPv4Address(address)
    if v4.is_loopback or v4.is_link_local or v4.is_multicast or v4.is_unspecified:
        return None
    if prefix[0] == _WELL_KNOWN and not v4.is_global:
        return None
    return str(IPv6Address(_embedded(prefix, v4)))


def _embedded(prefix: Prefix, address: IPv4Address) -> bytes:
    made = bytearray(prefix[0])
    for octet in address.packed:
        if len(made) == 8:  # bits 64 to 71 are zero
            made.append(0)
        made.append(octet)
    return bytes(made.ljust(16, b"\0"))
