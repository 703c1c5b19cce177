"""Transport Properties: the table, and the object that applications fill in (RFC 9622 section 4).

`TABLE` is the only place that knows the properties.  Names, validation, defaults, read-back and
the reference page all derive from it.  Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = [
    "AVOID",
    "NO_PREFERENCE",
    "PREFER",
    "PROHIBIT",
    "REQUIRE",
    "TABLE",
    "Preference",
    "Property",
    "TransportProperties",
    "find_property",
]


class Preference(Enum):
    """How much a Selection Property is wanted (RFC 9622 section 4.2)."""

    PROHIBIT = "Prohibit"
    AVOID = "Avoid"
    NO_PREFERENCE = "No Preference"
    PREFER = "Prefer"
    REQUIRE = "Require"

    @classmethod
    def of(cls, value: Any) -> Preference:
        """*value* as a Preference: a member, or its name in any spelling.

        Raises TypeError or ValueError that lists what would be right.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise TypeError(f"a preference is one of {_PREFERENCE_WORDS}, not {value!r}")
        found = _PREFERENCES.get(_fold(value))
        if found is None:
            raise ValueError(f"a preference is one of {_PREFERENCE_WORDS}, not {value!r}")
        return found


PROHIBIT, AVOID, NO_PREFERENCE, PREFER, REQUIRE = Preference


def _fold(name: str) -> str:
    """Names compare without case, hyphen, underscore and space (RFC 9622 section 4.1 asks for
    the first; the rest forgives the spellings that the RFC itself mixes)."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


_PREFERENCES = {_fold(member.value): member for member in Preference} | {
    "ignore": NO_PREFERENCE,  # what the drafts called it
    "none": NO_PREFERENCE,
}
_PREFERENCE_WORDS = ", ".join(member.value for member in Preference)


@dataclass(frozen=True)
class Property:
    """One row of the table."""

    name: str
    section: str
    default: Preference
    about: str
    aliases: tuple[str, ...] = ()


TABLE: tuple[Property, ...] = (
    Property("reliability", "6.2.1", REQUIRE, "all data arrives, without loss or duplication"),
    Property(
        "preserveMsgBoundaries",
        "6.2.2",
        NO_PREFERENCE,
        "the transport itself keeps the boundaries of Messages",
    ),
    Property(
        "perMsgReliability", "6.2.3", NO_PREFERENCE, "reliability can be chosen for each Message"
    ),
    Property("preserveOrder", "6.2.4", REQUIRE, "data arrives in the order in which it was sent"),
    Property(
        "zeroRttMsg", "6.2.5", NO_PREFERENCE, "a first Message can be handed over with Initiate"
    ),
    Property(
        "multistreaming", "6.2.6", PREFER, "the Connections of a group are streams of one transport"
    ),
    Property("fullChecksumSend", "6.2.7", REQUIRE, "all that is sent is protected by a checksum"),
    Property(
        "fullChecksumRecv", "6.2.8", REQUIRE, "all that is received was protected by a checksum"
    ),
    Property("congestionControl", "6.2.9", REQUIRE, "the Connection is congestion controlled"),
    Property("keepAlive", "6.2.10", NO_PREFERENCE, "the stack sends keep-alives when idle"),
    Property("softErrorNotify", "6.2.17", NO_PREFERENCE, "ICMP errors are reported"),
    Property(
        "activeReadBeforeSend",
        "6.2.18",
        NO_PREFERENCE,
        "the side that initiates may read before it sends",
    ),
)

_BY_NAME = {
    _fold(spelling): row for row in TABLE for spelling in (row.name, *row.aliases)
}


def find_property(name: str) -> Property:
    """The row of the property called *name*, in any spelling.

    Raises TypeError, or KeyError with the names that there are.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a property is a str, not {name!r}")
    row = _BY_NAME.get(_fold(name))
    if row is None:
        known = ", ".join(row.name for row in TABLE)
        raise KeyError(f"no property is called {name!r}; there are {known}")
    return row


class TransportProperties:
    """What an application asks of a Connection (RFC 9622 section 6.2).

    *values* may give properties at once: ``TransportProperties(keepAlive="Require")``.  Every
    property that is not set has its default.
    """

    def __init__(self, **values: Any) -> None:
        self._values: dict[str, Preference] = {}
        for name, value in values.items():
            self.set(name, value)

    def set(self, name: str, value: Any) -> TransportProperties:
        """Set a property; the last value counts.  Returns this object.

        Raises KeyError for unknown names, TypeError or ValueError for wrong values, each with
        the list of what would be right.
        """
        row = find_property(name)
        self._values[row.name] = Preference.of(value)
        return self

    def get(self, name: str) -> Preference:
        """The value of a property: what was set, or else the default."""
        row = find_property(name)
        return self._values.get(row.name, row.default)

    def require(self, name: str) -> TransportProperties:
        """The property must be there: ``set(name, REQUIRE)``."""
        return self.set(name, REQUIRE)

    def prefer(self, name: str) -> TransportProperties:
        """The property is wanted."""
        return self.set(name, PREFER)

    def no_preference(self, name: str) -> TransportProperties:
        """The property does not matter."""
        return self.set(name, NO_PREFERENCE)

    def avoid(self, name: str) -> TransportProperties:
        """The property is not wanted."""
        return self.set(name, AVOID)

    def prohibit(self, name: str) -> TransportProperties:
        """The property must not be there."""
        return self.set(name, PROHIBIT)

    def explicit(self) -> Mapping[str, Preference]:
        """Only what was set, by the properties' names."""
        return dict(self._values)

    def copy(self) -> TransportProperties:
        """An object that later changes of this one do not reach."""
        made = TransportProperties()
        made._values = dict(self._values)
        return made

    def __iter__(self) -> Iterator[tuple[str, Preference]]:
        return ((row.name, self.get(row.name)) for row in TABLE)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TransportProperties) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value.value!r}" for name, value in self._values.items())
        return f"TransportProperties({inside})"
