"""The order in which to try the addresses of one name (RFC 6724 section 6, RFC 8305 section 4).

Pure: what the kernel would do for each address, and what happened before, is passed in.  The rules
are the elements of one key, compared one after the other; so the order is total, and the same
facts give the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from math import inf
from typing import TypeVar

__all__ = [
    "DEFAULT_POLICY",
    "FIRST_ADDRESS_FAMILY_COUNT",
    "Past",
    "Policy",
    "Source",
    "interleave",
    "read_policy",
    "scope_of",
    "sort_key",
]

T = TypeVar("T")

# RFC 8305 section 8: how many addresses of the better family come before the first of the other.
FIRST_ADDRESS_FAMILY_COUNT = 1

_MAPPED = 0xFFFF << 32  # ::ffff:0:0
_LINK_LOCAL, _SITE_LOCAL, _GLOBAL = 0x2, 0x5, 0xE


@dataclass(frozen=True, slots=True)
class Source:
    """The local address that the kernel uses for a destination, and what counts of it: whether it
    is *deprecated*, a mobile node's *home* address, or leads into a *tunnel* that only translates
    between the families."""

    address: str
    deprecated: bool = False
    home: bool = False
    tunnel: bool = False


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of a destination, on this network: its round-trip time in seconds, None
    if there is none; and whether it was used."""

    rtt: float | None = None
    used: bool = False


UNKNOWN = Past()


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy table of RFC 6724 section 2.1: rows of a prefix's bits, its length, and a number,
    longest prefix first."""

    precedences: tuple[tuple[int, int, int], ...]
    labels: tuple[tuple[int, int, int], ...]

    def precedence(self, address: int) -> int:
        return _look_up(self.precedences, address)

    def label(self, address: int) -> int:
        return _look_up(self.labels, address)


def _look_up(table: Iterable[tuple[int, int, int]], address: int) -> int:
    for bits, length, number in table:
        if address >> (128 - length) == bits:
            return number
    return 0  # a table of an administrator's may lack ::/0


def _row(prefix: str, number: int) -> tuple[int, int, int]:
    network = ip_network(prefix, strict=False)
    if network.version == 4:
        length = network.prefixlen + 96
        return ((_MAPPED | int(network.network_address)) >> (128 - length), length, number)
    length = network.prefixlen
    return (int(network.network_address) >> (128 - length), length, number)


def _table(rows: Iterable[tuple[str, int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple(sorted((_row(*row) for row in rows), key=lambda row: -row[1]))


# RFC 6724 section 2.1: prefix, precedence, label.
_DEFAULT_ROWS = (
    ("::1/128", 50, 0),
    ("::/0", 40, 1),
    ("::ffff:0:0/96", 35, 4),
    ("2002::/16", 30, 2),
    ("2001::/32", 5, 5),
    ("fc00::/7", 3, 13),
    ("::/96", 1, 3),
    ("fec0::/10", 1, 11),
    ("3ffe::/16", 1, 12),
)
DEFAULT_POLICY = Policy(
    _table((prefix, precedence) for prefix, precedence, _ in _DEFAULT_ROWS),
    _table((prefix, label) for prefix, _, label in _DEFAULT_ROWS),
)


def read_policy(text: str) -> Policy:
    """The policy table of an administrator, in the form of ``/etc/gai.conf``.

    As there, the first row of a kind replaces the whole default table of its kind.  Rows that
    cannot be understood are passed over.
    """
    found: dict[str, list[tuple[str, int]]] = {"precedence": [], "label": []}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) != 3 or words[0] not in found:
            continue
        try:
            row = (words[1], int(words[2]))
            _row(*row)
        except ValueError:
            continue
        found[words[0]].append(row)
    return Policy(
        _table(found["precedence"]) or DEFAULT_POLICY.precedences,
        _table(found["label"]) or DEFAULT_POLICY.labels,
    )


def sort_key(
    destination: str,
    source: Source | None,
    past: Past = UNKNOWN,
    policy: Policy = DEFAULT_POLICY,
) -> tuple[float, ...]:
    """What *destination* is sorted by, lowest first: one number for each rule.

    *source* is None if there is no way to it.  Rule 10, to leave the order as it is, is the
    caller's stable sort.
    """
    if source is None:
        return (1.0,)  # rule 1: avoid unusable destinations
    there, v4 = _bits(destination)
    here, _ = _bits(source.address)
    scope = _scope(there, v4)
    return (
        0.0,
        scope != scope_of(source.address),  # rule 2: prefer matching scope
        source.deprecated,  # rule 3: avoid deprecated addresses
        not source.home,  # rule 4: prefer home addresses
        policy.label(there) != policy.label(here),  # rule 5: prefer matching label
        -policy.precedence(there),  # rule 6: prefer higher precedence
        source.tunnel,  # rule 7: prefer native transport
        scope,  # rule 8: prefer smaller scope
        # RFC 8305 section 4: lower round-trip times, then what was used before.
        inf if past.rtt is None else past.rtt,
        not past.used,
        # Rule 9: the longest matching prefix.  Of a source only its own prefix counts, which has
        # 64 bits.  Not in IPv4, where it says nothing and would undo a server's rotation.
        0 if v4 else -min(128 - (there ^ here).bit_length(), 64),
    )


def _bits(address: str) -> tuple[int, bool]:
    """An address as the number of its IPv6 form, and whether it is an IPv4 address."""
    if ":" in address:
        return int(IPv6Address(address.partition("%")[0])), False
    return _MAPPED | int(IPv4Address(address)), True


def scope_of(address: str) -> int:
    """The scope of an address as RFC 6724 sections 3.1 and 3.2 compare it."""
    return _scope(*_bits(address))


def _scope(bits: int, v4: bool) -> int:
    if v4 or bits >> 32 == 0xFFFF:
        high = bits >> 16 & 0xFFFF
        return _LINK_LOCAL if high >> 8 == 127 or high == 0xA9FE else _GLOBAL
    if bits >> 120 == 0xFF:
        return bits >> 112 & 0xF
    if bits == 1 or bits >> 118 == 0xFE80 >> 6:
        return _LINK_LOCAL
    return _SITE_LOCAL if bits >> 118 == 0xFEC0 >> 6 else _GLOBAL


def interleave(
    items: Sequence[T],
    is_v6: Callable[[T], bool],
    first_count: int = FIRST_ADDRESS_FAMILY_COUNT,
) -> list[T]:
    """*items* with their families alternating, each family in the given order, after *first_count*
    of the family that the first one is of (RFC 8305 section 4)."""
    if not items:
        return []
    first = is_v6(items[0])
    leading = [item for item in items if is_v6(item) is first]
    trailing = [item for item in items if is_v6(item) is not first]
    mixed = leading[: first_count - 1]
    del leading[: first_count - 1]
    for index in range(max(len(leading), len(trailing))):
        mixed += leading[index : index + 1] + trailing[index : index + 1]
    return mixed
