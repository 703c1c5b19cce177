"""Which hosts a service's records name, and in which order (RFC 2782, RFC 9460).  Pure.

The records come as plain values, and so does the source of randomness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .answers import MAX_TARGETS, Target

__all__ = [
    "Random",
    "SrvRecord",
    "SvcbRecord",
    "alias_of",
    "order_srv",
    "srv_targets",
    "svcb_targets",
]

T = TypeVar("T")

# RFC 9460 section 14.3.2: the keys that count here; no other key may be mandatory.
MANDATORY, ALPN, NO_DEFAULT_ALPN, PORT, IPV4HINT, IPV6HINT = 0, 1, 2, 3, 4, 6
_UNDERSTOOD = frozenset({MANDATORY, ALPN, NO_DEFAULT_ALPN, PORT, IPV4HINT, IPV6HINT})
# ALPN names of protocols over QUIC.  All others are over TCP.
_OVER_QUIC = frozenset({"h3", "doq"})
# What a service speaks if its record does not say otherwise (RFC 9460 section 9.1).
DEFAULT_ALPN = {"https": "http/1.1"}


class Random(Protocol):
    """What is needed of a ``random.Random``."""

    def randint(self, a: int, b: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """An SRV record; *target* is the host's name with its final dot, ``"."`` for none."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class SvcbRecord:
    """An SVCB or HTTPS record: in AliasMode if *priority* is 0, else in ServiceMode.

    *mandatory* has the numbers of the keys that a client must understand to use the record.
    """

    priority: int
    target: str
    mandatory: frozenset[int] = frozenset()
    alpn: tuple[str, ...] = ()
    no_default_alpn: bool = False
    port: int | None = None
    hints: tuple[str, ...] = ()


def order_srv(records: Iterable[SrvRecord], random: Random) -> list[SrvRecord]:
    """The first `MAX_TARGETS` of *records* in the order in which to try them: by priority, and
    among those of one priority by chance, as their weights say (RFC 2782)."""
    by_priority: dict[int, list[SrvRecord]] = {}
    for record in records:
        by_priority.setdefault(record.priority, []).append(record)
    ordered: list[SrvRecord] = []
    for _, equal in sorted(by_priority.items()):
        # Those of no weight come first, so that they have a small chance at all.
        left = sorted(equal, key=lambda record: record.weight > 0)
        while left and len(ordered) < MAX_TARGETS:
            ordered.append(left.pop(_pick(left, random)))
    return ordered


def _pick(left: Sequence[SrvRecord], random: Random) -> int:
    point = random.randint(0, sum(record.weight for record in left))
    running = 0
    for index, record in enumerate(left):
        running += record.weight
        if running >= point:
            return index
    return len(left) - 1


def srv_targets(records: Iterable[SrvRecord], random: Random, origin: str) -> list[Target] | None:
    """The targets of SRV records, best first; None if they say that the service is not available.
    *origin* is where they were found."""
    records = list(records)
    if records and all(record.target == "." for record in records):
        return None
    return [
        Target(
            record.target,
            record.port,
            origin=f"{origin} -> {record.target.rstrip('.')}:{record.port}",
        )
        for record in order_srv((one for one in records if one.target != "."), random)
    ]


def alias_of(records: Sequence[SvcbRecord], random: Random) -> str | None:
    """The name that the records are an alias for; None if they are none.  Beside an AliasMode
    record the others do not count (RFC 9460 section 2.4.1)."""
    aliases = [record.target for record in records if record.priority == 0]
    return aliases[random.randint(0, len(aliases) - 1)] if aliases else None


def svcb_targets(
    records: Sequence[SvcbRecord],
    *,
    service: str,
    protocol: str,
    owner: str,
    port: int | None,
    random: Random,
    origin: str,
) -> list[Target]:
    """The targets of ServiceMode records that can be used over *protocol* (``"tcp"`` or
    ``"udp"``), best first.

    *owner* is the name that has the records, *port* the usual port of the service if there is one,
    *origin* where they were found.
    """
    found: list[tuple[SvcbRecord, tuple[str, ...], int]] = []
    for record in records:
        spoken = _spoken(record, service, protocol)
        there = record.port if record.port is not None else port
        if record.priority and record.mandatory <= _UNDERSTOOD and there and spoken is not None:
            found.append((record, spoken, there))
    targets = []
    # The order of those of one priority is to be random (RFC 9460 section 2.4.1).
    for record, spoken, there in sorted(_shuffled(found, random), key=lambda one: one[0].priority):
        name = owner if record.target == "." else record.target
        targets.append(
            Target(
                name,
                there,
                alpn=spoken,
                hints=record.hints,
                origin=f"{origin} -> {name.rstrip('.')}:{there}",
            )
        )
    return targets[:MAX_TARGETS]


def _spoken(record: SvcbRecord, service: str, protocol: str) -> tuple[str, ...] | None:
    """What the target speaks over *protocol*; None if nothing (RFC 9460 section 7.1.2)."""
    spoken = record.alpn
    default = DEFAULT_ALPN.get(service)
    if default is not None and not record.no_default_alpn and default not in spoken:
        spoken = (*spoken, default)
    if not spoken:
        return ()
    over_udp = protocol == "udp"
    return tuple(name for name in spoken if (name in _OVER_QUIC) is over_udp) or None


def _shuffled(items: Sequence[T], random: Random) -> list[T]:
    left = list(items)
    return [left.pop(random.randint(0, len(left) - 1)) for _ in items]
