"""The interfaces of this machine, and which of them the property `interface` leaves (RFC 9622
section 6.2.11).

Paths are chosen before anything else (RFC 9623 section 4.1): a Connection with no such wish leaves
them to the system's routes, one with a wish is bound to an interface.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import EstablishmentError, Reason
from .properties import AVOID, PREFER, PROHIBIT, REQUIRE, InterfaceType

__all__ = ["choose_interfaces", "interfaces"]

# The numbers of <linux/if_arp.h>, as the system shows them.
_TYPES = {
    "772": InterfaceType.LOOPBACK,
    "65534": InterfaceType.TUNNEL,  # tun, WireGuard
    "768": InterfaceType.TUNNEL,
    "769": InterfaceType.TUNNEL,
    "776": InterfaceType.TUNNEL,
    "778": InterfaceType.TUNNEL,
}
_SYSTEM = Path("/sys/class/net")


def interfaces() -> list[tuple[str, InterfaceType]]:
    """The name and the type of each interface, in the system's order."""
    return [(name, _type_of(_SYSTEM / name)) for _, name in socket.if_nameindex()]


def _type_of(folder: Path) -> InterfaceType:
    try:
        if "DEVTYPE=wwan" in (folder / "uevent").read_text():
            return InterfaceType.CELLULAR
        if (folder / "wireless").exists() or (folder / "phy80211").exists():
            return InterfaceType.WIFI
        number = (folder / "type").read_text().strip()
    except OSError:
        return InterfaceType.OTHER
    if number == "1":
        return InterfaceType.WIRED
    return _TYPES.get(number, InterfaceType.OTHER)


def choose_interfaces(
    wishes: Iterable[tuple[Any, Any]], among: Sequence[tuple[str, InterfaceType]]
) -> list[str | None]:
    """The interfaces to try, best first; None is whichever the system takes.

    *wishes* are pairs of a Preference and a name or an InterfaceType.  Pure.  Raises
    EstablishmentError if none is left.
    """
    said: dict[Any, list[Any]] = {REQUIRE: [], PROHIBIT: [], PREFER: [], AVOID: []}
    for level, what in wishes:
        if level in said:
            said[level].append(what)
    if not any(said.values()):
        return [None]

    def fits(interface: tuple[str, InterfaceType], what: Sequence[Any]) -> bool:
        return interface[0] in what or interface[1] in what

    left = [
        one
        for one in among
        if all(fits(one, [what]) for what in said[REQUIRE]) and not fits(one, said[PROHIBIT])
    ]
    if not left:
        raise EstablishmentError(
            "no interface of this machine is as required, and not prohibited",
            Reason.NO_CANDIDATES,
        )
    left.sort(key=lambda one: (not fits(one, said[PREFER]), fits(one, said[AVOID])))
    if said[REQUIRE] or said[PROHIBIT]:
        return [name for name, _ in left]
    # Mere wishes: first where they lead, then wherever there is a way.
    best = [one for one in left if fits(one, said[PREFER])] if said[PREFER] else left
    return [*(name for name, _ in best if not fits((name, _), said[AVOID])), None]
