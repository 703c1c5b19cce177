"""Which stacks and addresses are worth an attempt, and in which order (RFC 9623 section 4).

Pure: everything that counts is passed in, and the same input gives the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import EstablishmentError, Reason, show_address
from ..plugins import ALWAYS, NEVER, Plugin, Stack, duplicates, offer, stack_name
from .properties import AVOID, PREFER, PROHIBIT, REQUIRE, TransportProperties, contradictions

__all__ = ["Candidate", "choose_stacks", "gather", "interleave"]


@dataclass(frozen=True)
class Candidate:
    """One coherent attempt: a stack, a Remote Endpoint's address, and a local one or None.

    *interface* is the name of the one to use, *hop_limit* how many hops a packet may go; None
    leaves either to the system.
    """

    stack: Stack
    remote: Any
    local: Any = None
    hostname: str | None = None
    interface: str | None = None
    hop_limit: int | None = None

    def __str__(self) -> str:
        text = stack_name(self.stack)
        if self.remote is not None:
            text += f" to {show_address(self.remote)}"
        if self.local is not None:
            text += f" from {show_address(self.local)}"
        if self.interface is not None:
            text += f" on {self.interface}"
        return text


def choose_stacks(
    properties: TransportProperties, among: Iterable[Stack], *, secured: bool
) -> list[Stack]:
    """The stacks of *among* that agree with every Require and Prohibit, best first.

    *secured* says whether the stack must bring security, or must not: a secured stack and one
    without are never alternatives (RFC 9621 section 3.3).  Raises EstablishmentError.
    """
    wrong = contradictions(properties)
    if wrong:
        raise EstablishmentError("; ".join(wrong), Reason.INVALID_CONFIGURATION)
    kept: list[Stack] = []
    reasons: list[str] = []
    for stack in among:
        reason = _reason_against(stack, properties, secured)
        if reason is None:
            kept.append(stack)
        else:
            reasons.append(f"{stack_name(stack)}: {reason}")
    if not kept:
        raise EstablishmentError(
            "no protocol stack has what is asked for (" + "; ".join(reasons) + ")",
            Reason.NO_CANDIDATES,
        )
    # Sorting is stable: what is equal stays in the order of the plugins.
    return sorted(kept, key=lambda stack: _rank(stack, properties))


def _reason_against(stack: Stack, properties: TransportProperties, secured: bool) -> str | None:
    if sum(plugin.secure for plugin in stack) != secured:
        return "adds no security" if secured else "adds security that was not asked for"
    missing = next((plugin for plugin in stack if not plugin.available()), None)
    if missing is not None:
        return f"this machine has no {missing.name}"
    if duplicates(stack) and not properties.get("safelyReplayable"):
        return "may deliver a Message twice, and safelyReplayable is not set"
    for name, level in properties.preferences():
        offered = offer(stack, name)
        if level is REQUIRE and offered is NEVER:
            return f"{name} is required"
        if level is PROHIBIT and offered is ALWAYS:
            return f"{name} is prohibited"
    return None


def _rank(stack: Stack, properties: TransportProperties) -> tuple[int, ...]:
    """Prefer first, Avoid to break ties; what the application has said counts before what is
    merely a default (RFC 9623 section 4.1.3)."""
    explicit = properties.explicit()
    hits = {True: [0, 0], False: [0, 0]}
    for name, level in properties.preferences():
        offered = offer(stack, name)
        said = name in explicit
        if level is PREFER and offered is not NEVER:
            hits[said][0] += 1
        elif level is AVOID and offered is ALWAYS:
            hits[said][1] += 1
    return (-hits[True][0], hits[True][1], -hits[False][0], hits[False][1])


def interleave(addresses: Sequence[Any]) -> list[Any]:
    """Socket addresses with their families alternating, each family in the given order,
    beginning with the first one's (RFC 8305 section 4)."""
    if not addresses:
        return []
    first_is_v6 = ":" in addresses[0][0]
    leading = [name for name in addresses if (":" in name[0]) is first_is_v6]
    trailing = [name for name in addresses if (":" in name[0]) is not first_is_v6]
    mixed = []
    for index in range(max(len(leading), len(trailing))):
        mixed += leading[index : index + 1] + trailing[index : index + 1]
    return mixed


def gather(
    stacks: Sequence[Stack],
    remotes: Sequence[tuple[Any, str | None]],
    locals_: Sequence[Any],
) -> list[Candidate]:
    """All candidates, in the order of the attempts: stacks first, then addresses.

    *remotes* are (socket address, host name) pairs, *locals_* socket addresses; where there are
    none of these the system chooses.  Families are never mixed.
    """
    found = []
    for stack in stacks:
        for remote, hostname in remotes:
            found += [
                Candidate(stack, remote, local, hostname)
                for local in locals_ or (None,)
                if local is None or (":" in local[0]) == (":" in remote[0])
            ]
    return found


def plugins_of(candidate: Candidate) -> tuple[Plugin, ...]:
    """The candidate's plugins in the order in which they open: from the bottom up."""
    return tuple(reversed(candidate.stack))
