"""System Policy: what the administrator of a machine, or the author of a program, has to say about
the choice of candidates (RFC 9623 section 3.2).  Pure, but for reading a file when asked to.

A candidate must agree with the application's properties and with the policy.  The policy is looked
up anew at each establishment (section 3.2), so a change counts from the next one on.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from ...errors import EstablishmentError, Reason
from ..properties import InterfaceType

__all__ = [
    "Branch",
    "RaceMode",
    "SystemPolicy",
    "get_system_policy",
    "policy_in_force",
    "set_system_policy",
]

# Names the file of an administrator's policy; read when a policy is first needed.
VARIABLE = "GREENTAPS_POLICY"

# RFC 8305 section 8: the Connection Attempt Delay where no round-trip time is known, and its
# bounds.
ATTEMPT_DELAY = 0.25  # seconds
MINIMUM_ATTEMPT_DELAY = 0.1  # seconds
MAXIMUM_ATTEMPT_DELAY = 2.0  # seconds
LEAST_DELAY = 0.01  # seconds: RFC 8305 section 5 allows no smaller one


class Branch(Enum):
    """What the children of a node of the candidate tree differ in (RFC 9623 section 4.1.1)."""

    PATHS = "paths"
    STACKS = "stacks"
    ENDPOINTS = "endpoints"


class RaceMode(Enum):
    """How the children of one node are raced (RFC 9623 sections 4.3.1 to 4.3.3)."""

    STAGGERED = "staggered"  # each one a delay after the one before, or when one fails
    FAILOVER = "failover"  # each one when all before have failed
    SIMULTANEOUS = "simultaneous"  # all at once


@dataclass(frozen=True)
class SystemPolicy:
    """What is allowed, and what goes first.  The default allows everything and has no wishes.

    *allowed_interfaces* (None for all), *prohibited_interfaces* and *preferred_interfaces* hold
    names (str) and `InterfaceType` values; *allowed_protocols*, *prohibited_protocols* and
    *preferred_protocols* names of plugins: a stack has to be made of allowed ones.  What is
    preferred goes first, in the given order, where the application's explicit wishes are equal.

    *equivalent_security* holds groups of names of security protocols that may be raced with each
    other; without it only stacks of identical security are (RFC 9621 section 3.3).

    *modes* (a dict from `Branch` to `RaceMode`) says how each kind of branch is raced.
    *path_delay*, *protocol_delay* and *address_delay* are seconds until the next child of such a
    branch is started; for addresses of known round-trip time that is used instead, within
    *minimum_delay* and *maximum_delay*.  *use_history* (bool) says whether what worked before may
    decide.

    A subclass may override the methods, to decide by what is the case at the moment.

    Raises TypeError or ValueError for what cannot be.
    """

    allowed_interfaces: Sequence[str | InterfaceType] | None = None
    prohibited_interfaces: Sequence[str | InterfaceType] = ()
    preferred_interfaces: Sequence[str | InterfaceType] = ()
    allowed_protocols: Sequence[str] | None = None
    prohibited_protocols: Sequence[str] = ()
    preferred_protocols: Sequence[str] = ()
    equivalent_security: Sequence[Iterable[str]] = ()
    modes: Mapping[Branch, RaceMode] = field(default_factory=dict)
    path_delay: float = ATTEMPT_DELAY
    protocol_delay: float = ATTEMPT_DELAY
    address_delay: float = ATTEMPT_DELAY
    minimum_delay: float = MINIMUM_ATTEMPT_DELAY
    maximum_delay: float = MAXIMUM_ATTEMPT_DELAY
    use_history: bool = True

    def __post_init__(self) -> None:
        for name in ("interfaces", "protocols"):
            kinds = (str, InterfaceType) if name == "interfaces" else (str,)
            for which in ("allowed", "prohibited", "preferred"):
                value = getattr(self, f"{which}_{name}")
                if value is None and which == "allowed":
                    continue
                self._keep(f"{which}_{name}", _names(f"{which}_{name}", value, kinds))
        groups = [_names("equivalent_security", one, (str,)) for one in self.equivalent_security]
        self._keep("equivalent_security", tuple(groups))
        self._keep("modes", dict(self.modes))
        for branch, mode in self.modes.items():
            if not isinstance(branch, Branch) or not isinstance(mode, RaceMode):
                raise TypeError(f"modes are a dict from Branch to RaceMode, not {self.modes!r}")
        for name in ("path_delay", "protocol_delay", "address_delay", "minimum_delay",
                     "maximum_delay"):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} is a number of seconds, not {value!r}")
            if not LEAST_DELAY <= value <= 60:
                raise ValueError(f"{name} must be from {LEAST_DELAY} to 60 seconds, not {value!r}")
        if self.minimum_delay > self.maximum_delay:
            raise ValueError("minimum_delay must not be above maximum_delay")
        if not isinstance(self.use_history, bool):
            raise TypeError(f"use_history is a bool, not {self.use_history!r}")

    def _keep(self, name: str, value: Any) -> None:
        """Of what can be read only once, or be changed, a policy has a copy."""
        object.__setattr__(self, name, value)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> SystemPolicy:
        """The policy in the TOML file *path*, whose keys are the arguments of this class: names
        and types of interfaces are strings, ``modes`` is a table as ``{paths = "failover"}``.

        Raises OSError, and ValueError which says what is wrong in the file.
        """
        with Path(path).open("rb") as file:
            try:
                said = tomllib.load(file)
                return cls(**_from_toml(said, {one.name for one in fields(cls)}))
            except (TypeError, ValueError) as error:
                raise ValueError(f"the policy in {path}: {error}") from error

    # -- What is asked at each establishment --

    def restricts_interfaces(self) -> bool:
        """Whether there is anything to say about interfaces: without it the system's routes
        decide where no application has a wish."""
        return bool(
            self.allowed_interfaces is not None
            or self.prohibited_interfaces
            or self.preferred_interfaces
        )

    def against_interface(self, name: str, kind: InterfaceType) -> str | None:
        """Why the interface *name* of the type *kind* may not be used; None if it may."""
        if name in self.prohibited_interfaces or kind in self.prohibited_interfaces:
            return f"policy prohibits the interface {name}"
        allowed = self.allowed_interfaces
        if allowed is not None and name not in allowed and kind not in allowed:
            return f"policy does not allow the interface {name}"
        return None

    def against_stack(self, protocols: Sequence[str]) -> str | None:
        """Why a stack of these *protocols* (names, top first) may not be used; None if it may."""
        for name in protocols:
            if name in self.prohibited_protocols:
                return f"policy prohibits {name}"
            if self.allowed_protocols is not None and name not in self.allowed_protocols:
                return f"policy does not allow {name}"
        return None

    def rank_interface(self, name: str, kind: InterfaceType) -> int:
        """The place of an interface among the preferred ones; lower goes first."""
        preferred = list(self.preferred_interfaces)
        places = [preferred.index(one) for one in (name, kind) if one in preferred]
        return min(places, default=len(preferred))

    def rank_stack(self, protocols: Sequence[str]) -> int:
        """The place of a stack by its most preferred protocol; lower goes first."""
        preferred = list(self.preferred_protocols)
        places = [preferred.index(name) for name in protocols if name in preferred]
        return min(places, default=len(preferred))

    def equivalent(self, one: Sequence[str], other: Sequence[str]) -> bool:
        """Whether stacks with the security protocols *one* and *other* may be raced."""
        if tuple(one) == tuple(other):
            return True
        groups = [frozenset(group) for group in self.equivalent_security]
        return (
            bool(one)
            and bool(other)
            and any(group.issuperset(one) and group.issuperset(other) for group in groups)
        )

    def delay(self, branch: Branch | None, expected: float | None = None) -> float:
        """How many seconds after a child of *branch* the next one may start.  *expected* is how
        long the child should need, by what was measured before, or None."""
        if branch is Branch.ENDPOINTS and expected is not None:
            return min(max(expected, self.minimum_delay), self.maximum_delay)
        delays = {Branch.PATHS: self.path_delay, Branch.STACKS: self.protocol_delay}
        return self.address_delay if branch is None else delays.get(branch, self.address_delay)


def _names(name: str, value: Any, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is a list of names, not {value!r}")
    names = tuple(value)
    for one in names:
        if not isinstance(one, kinds):
            raise TypeError(f"{name} is a list of names, and {one!r} is none")
    return names


def _from_toml(said: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    unknown = sorted(set(said) - known)
    if unknown:
        raise ValueError(
            f"no such setting: {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )
    made = dict(said)
    for name, value in said.items():
        if name.endswith("_interfaces") and isinstance(value, list):
            made[name] = [_interface(one) for one in value]
    modes = said.get("modes", {})
    if not isinstance(modes, Mapping):
        raise TypeError(f"modes is a table, not {modes!r}")
    made["modes"] = {Branch(branch): RaceMode(mode) for branch, mode in modes.items()}
    return made


def _interface(name: Any) -> Any:
    """A type of interface by its name, else the name of an interface."""
    for kind in InterfaceType:
        if isinstance(name, str) and name.lower() in (kind.name.lower(), str(kind.value).lower()):
            return kind
    return name


_policy: SystemPolicy | None = None


def get_system_policy() -> SystemPolicy:
    """The policy that counts for every establishment from now on: the one that was set, else that
    of the file which the environment variable ``GREENTAPS_POLICY`` names, else the default.

    Raises OSError or ValueError if that file cannot be used.
    """
    global _policy
    if _policy is None:
        path = os.environ.get(VARIABLE)
        _policy = SystemPolicy.from_file(path) if path else SystemPolicy()
    return _policy


def policy_in_force() -> SystemPolicy:
    """`get_system_policy`, for an establishment.  Raises EstablishmentError."""
    try:
        return get_system_policy()
    except (OSError, ValueError) as error:
        raise EstablishmentError(
            f"the policy that {VARIABLE} names cannot be used: {error}",
            Reason.INVALID_CONFIGURATION,
        ) from error


def set_system_policy(policy: SystemPolicy | None) -> None:
    """Let *policy* count in this process from now on; None for the one of the environment again.

    Raises TypeError for anything else.
    """
    global _policy
    if policy is not None and not isinstance(policy, SystemPolicy):
        raise TypeError(f"not a SystemPolicy: {policy!r}")
    _policy = policy
