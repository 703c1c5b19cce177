"""What properties can be set to: enumerations, special values, and the check for each type.

The types are those of RFC 9622 sections 1.1 and 4.2.  Every enumeration takes its own members,
the RFC's words in any spelling, and the numbers that older systems used for them.  A check
returns the one form in which a value is stored, or raises an error that lists what is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf, isfinite
from typing import Any, Self

from .errors import PropertyError, PropertyTypeError, PropertyValueError

__all__ = [
    "ACTIVE",
    "AGGREGATE",
    "AVOID",
    "BIDIRECTIONAL",
    "BOOLEAN",
    "CLOSED",
    "CLOSING",
    "DISABLED",
    "ESTABLISHED",
    "ESTABLISHING",
    "FULL_COVERAGE",
    "HANDOVER",
    "INFINITE",
    "INTERACTIVE",
    "NOT_APPLICABLE",
    "NO_PREFERENCE",
    "PASSIVE",
    "PREFER",
    "PREFERENCE",
    "PROHIBIT",
    "REQUIRE",
    "UNIDIRECTIONAL_RECEIVE",
    "UNIDIRECTIONAL_SEND",
    "UNLIMITED",
    "CapacityProfile",
    "ConnectionState",
    "Direction",
    "Enumeration",
    "InterfaceType",
    "MultipathMode",
    "MultipathPolicy",
    "Number",
    "Preference",
    "PreferenceSet",
    "Role",
    "Scheduler",
    "Special",
    "ValueType",
    "fold",
    "integer",
    "numeric",
]


def fold(text: str) -> str:
    """*text* without what spellings differ in: case, and everything but letters and digits."""
    return "".join(filter(str.isalnum, text.lower()))


class Words(Enum):
    """Base of the enumerations: ``Scheduler("round robin")`` works in any spelling, and so do the
    numbers and words of `also`."""

    __hash__ = object.__hash__  # Enum's is a function in Python

    @classmethod
    def also(cls) -> Mapping[Any, Self]:
        """Other words (folded) and numbers, and the members they stand for."""
        return {}

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if isinstance(value, str):
            word = fold(value)
            for member in cls:
                if word in (fold(member.value), fold(member.name)):
                    return member
            return cls.also().get(word)
        if isinstance(value, int) and not isinstance(value, bool):
            return cls.also().get(int(value))
        return None

    @classmethod
    def of(cls, value: Any, name: str = "") -> Self:
        """*value* as a member.

        *value* is a member, a word for one (str), or an older system's number (int); *name* (str)
        is the property, for the message.  Raises PropertyTypeError or PropertyValueError, which
        list the members.
        """
        try:
            return cls(value)
        except ValueError:
            kind: type[PropertyError] = PropertyTypeError
            if isinstance(value, (str, int)) and not isinstance(value, bool):
                kind = PropertyValueError
            about = f"{name} is" if name else f"a {cls.__name__} is"
            raise kind(f"{about} one of {cls.words()}, not {value!r}", name) from None

    @classmethod
    def words(cls) -> str:
        """The members' words, for messages and for the documentation."""
        return ", ".join(str(member.value) for member in cls)

    def __str__(self) -> str:
        return str(self.value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class Preference(Words):
    """How much a Selection Property is wanted (RFC 9622 sections 4.2 and 6.2)."""

    PROHIBIT = "Prohibit"
    AVOID = "Avoid"
    NO_PREFERENCE = "No Preference"
    PREFER = "Prefer"
    REQUIRE = "Require"

    @classmethod
    def also(cls) -> Mapping[Any, Preference]:
        return {
            "ignore": cls.NO_PREFERENCE,
            "none": cls.NO_PREFERENCE,
            -2: cls.PROHIBIT,
            -1: cls.AVOID,
            0: cls.NO_PREFERENCE,
            1: cls.PREFER,
            2: cls.REQUIRE,
        }

    @property
    def opposite(self) -> Preference:
        """What to ask of a feature in order to ask this of its absence."""
        return _OPPOSITES[self]


PROHIBIT, AVOID, NO_PREFERENCE, PREFER, REQUIRE = Preference
_OPPOSITES = dict(zip(Preference, reversed(Preference), strict=True))


class MultipathMode(Words):
    """Whether several paths may carry one Connection (RFC 9622 section 6.2.14)."""

    DISABLED = "Disabled"
    ACTIVE = "Active"
    PASSIVE = "Passive"


ACTIVE, PASSIVE = MultipathMode.ACTIVE, MultipathMode.PASSIVE


class Direction(Words):
    """Which way data may go (RFC 9622 section 6.2.16)."""

    BIDIRECTIONAL = "Bidirectional"
    UNIDIRECTIONAL_SEND = "Unidirectional send"
    UNIDIRECTIONAL_RECEIVE = "Unidirectional receive"

    @classmethod
    def also(cls) -> Mapping[Any, Direction]:
        return {
            "unidirectionsend": cls.UNIDIRECTIONAL_SEND,
            "unidirectionreceive": cls.UNIDIRECTIONAL_RECEIVE,
        }


BIDIRECTIONAL, UNIDIRECTIONAL_SEND, UNIDIRECTIONAL_RECEIVE = Direction


class Scheduler(Words):
    """How a Connection Group shares capacity (RFC 9622 section 8.1.5, RFC 8260 section 3)."""

    FIRST_COME_FIRST_SERVED = "First-Come, First-Served"
    ROUND_ROBIN = "Round-Robin"
    ROUND_ROBIN_PER_PACKET = "Round-Robin per Packet"
    PRIORITY_BASED = "Priority-Based"
    FAIR_CAPACITY = "Fair Capacity"
    WEIGHTED_FAIR_QUEUEING = "Weighted Fair Queueing"

    @classmethod
    def also(cls) -> Mapping[Any, Scheduler]:
        return {
            "fcfs": cls.FIRST_COME_FIRST_SERVED,
            "rr": cls.ROUND_ROBIN,
            "rrpkt": cls.ROUND_ROBIN_PER_PACKET,
            "prio": cls.PRIORITY_BASED,
            "priority": cls.PRIORITY_BASED,
            "fairbandwidth": cls.FAIR_CAPACITY,
            "fb": cls.FAIR_CAPACITY,
            "wfq": cls.WEIGHTED_FAIR_QUEUEING,
            "weightedfairqueuing": cls.WEIGHTED_FAIR_QUEUEING,
        }

    @property
    def section(self) -> str:
        """Where RFC 8260 defines it."""
        return f"3.{list(type(self)).index(self) + 1}"


class CapacityProfile(Words):
    """What treatment by the network is wanted (RFC 9622 section 8.1.6).

    Each names the DSCPs that its packets may carry; `dscp` is the one that this library uses.
    """

    DEFAULT = "Default"
    SCAVENGER = "Scavenger"
    LOW_LATENCY_INTERACTIVE = "Low Latency/Interactive"
    LOW_LATENCY_NON_INTERACTIVE = "Low Latency/Non-Interactive"
    CONSTANT_RATE_STREAMING = "Constant-Rate Streaming"
    CAPACITY_SEEKING = "Capacity-Seeking"

    @classmethod
    def also(cls) -> Mapping[Any, CapacityProfile]:
        return {number: profile for profile, numbers in _DSCPS.items() for number in numbers}

    @property
    def dscps(self) -> tuple[int, ...]:
        """The Differentiated Services code points that fit (int, 0 to 63), best first."""
        return _DSCPS[self]

    @property
    def dscp(self) -> int:
        """The code point to mark packets with (int, 0 to 63)."""
        return _DSCPS[self][0]


_DSCPS: dict[CapacityProfile, tuple[int, ...]] = {
    CapacityProfile.DEFAULT: (0,),  # CS0, RFC 2474
    CapacityProfile.SCAVENGER: (1,),  # LE, RFC 8622
    # AF41 to AF43, RFC 2597; for inelastic traffic EF, RFC 3246, and VOICE-ADMIT, RFC 5865
    CapacityProfile.LOW_LATENCY_INTERACTIVE: (34, 36, 38, 46, 44),
    CapacityProfile.LOW_LATENCY_NON_INTERACTIVE: (18, 20, 22),  # AF21 to AF23
    CapacityProfile.CONSTANT_RATE_STREAMING: (26, 28, 30),  # AF31 to AF33
    CapacityProfile.CAPACITY_SEEKING: (10, 12, 14),  # AF11 to AF13
}


class MultipathPolicy(Words):
    """How the paths of a multipath Connection are used (RFC 9622 section 8.1.7)."""

    HANDOVER = "Handover"
    INTERACTIVE = "Interactive"
    AGGREGATE = "Aggregate"


HANDOVER, INTERACTIVE, AGGREGATE = MultipathPolicy


class ConnectionState(Words):
    """The states of a Connection (RFC 9622 sections 8.1.11.1 and 11)."""

    ESTABLISHING = "Establishing"
    ESTABLISHED = "Established"
    CLOSING = "Closing"
    CLOSED = "Closed"

    # Each is there once.  Enum hashes the name, in Python, and each Connection looks up four.
    __hash__ = object.__hash__

    @classmethod
    def also(cls) -> Mapping[Any, ConnectionState]:
        return dict(enumerate(cls, 1))


ESTABLISHING, ESTABLISHED, CLOSING, CLOSED = ConnectionState


class InterfaceType(Words):
    """Kinds of interface, for the `interface` property (RFC 9622 section 6.2.11).

    All that systems of this family know, whether or not this machine has one.
    """

    WIFI = "Wi-Fi"
    CELLULAR = "Cellular"
    WIRED = "Wired"
    LOOPBACK = "Loopback"
    TUNNEL = "Tunnel"
    OTHER = "Other"


class Role(Words):
    """Which action a set of properties is for; some defaults depend on it."""

    INITIATE = "Initiate"
    LISTEN = "Listen"
    RENDEZVOUS = "Rendezvous"


class Special(Enum):
    """Values that stand outside a property's numbers (RFC 9622 sections 6.2 to 9).

    All but NOT_APPLICABLE are greater than every number, and ``float()`` of them is infinite:
    ``min(timeout, DISABLED)`` is *timeout*.  Each equals only itself.
    """

    FULL_COVERAGE = "Full Coverage"
    DISABLED = "Disabled"
    UNLIMITED = "Unlimited"
    INFINITE = "Infinite"
    NOT_APPLICABLE = "Not applicable"

    def __float__(self) -> float:
        if self is NOT_APPLICABLE:
            raise TypeError("Not applicable is no number")
        return inf

    def __lt__(self, other: object) -> bool:
        return False if self._above(other) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self is other if self._above(other) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return self is not other if self._above(other) else NotImplemented

    def __ge__(self, other: object) -> bool:
        return True if self._above(other) else NotImplemented

    def _above(self, other: object) -> bool:
        return self is not NOT_APPLICABLE and (isinstance(other, (int, float)) or other is self)

    def __str__(self) -> str:
        return str(self.value)

    def __repr__(self) -> str:
        return self.name


FULL_COVERAGE, DISABLED, UNLIMITED, INFINITE, NOT_APPLICABLE = Special
_SPECIALS = {fold(special.value): special for special in Special}


class ValueType:
    """The type of a property's values: how they are checked, and described."""

    def check(self, name: str, value: Any) -> Any:
        """*value* in the form in which it is stored.

        *name* (str) is the property's, for messages.  Raises PropertyTypeError or
        PropertyValueError.
        """
        raise NotImplementedError

    @property
    def label(self) -> str:
        """The RFC's word for the type."""
        raise NotImplementedError

    @property
    def allowed(self) -> str:
        """The values that fit, in words."""
        raise NotImplementedError

    @property
    def example(self) -> Any:
        """A value that fits, and that is seldom the default."""
        raise NotImplementedError


@dataclass(frozen=True)
class Boolean(ValueType):
    """True or False, and nothing that is merely as true as them."""

    def check(self, name: str, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise PropertyTypeError(f"{name} is True or False, not {value!r}", name)

    @property
    def label(self) -> str:
        return "Boolean"

    @property
    def allowed(self) -> str:
        return "true, false"

    @property
    def example(self) -> bool:
        return True


@dataclass(frozen=True)
class Enumeration(ValueType):
    """One of the members of *words*."""

    words: type[Words]

    def check(self, name: str, value: Any) -> Words:
        if isinstance(value, self.words):
            return value
        if isinstance(value, Special):  # MultipathMode has a Disabled of its own
            value = str(value)
        return self.words.of(value, name)

    @property
    def label(self) -> str:
        return "Preference" if self.words is Preference else "Enumeration"

    @property
    def allowed(self) -> str:
        return self.words.words()

    @property
    def example(self) -> Words:
        return list(self.words)[-1]


@dataclass(frozen=True)
class Number(ValueType):
    """An Integer or Numeric, with a lower limit and perhaps a special value.

    For the special value, its name in any spelling and the -1 and the infinity of older systems
    are taken too.
    """

    whole: bool
    least: int
    special: Special | None = None
    most: int | None = None

    def check(self, name: str, value: Any) -> Any:
        if isinstance(value, Special):
            if value is self.special:
                return value
            raise PropertyValueError(f"{name} is {self.allowed}, not {value!r}", name)
        if isinstance(value, str) and self.special and _SPECIALS.get(fold(value)) is self.special:
            return self.special
        if isinstance(value, (bool, Enum)) or not isinstance(value, (int, float)):
            raise PropertyTypeError(f"{name} is {self.allowed}, not {value!r}", name)
        if self.special is not None and value in (-1, inf):
            return self.special
        if self.whole and not isinstance(value, int):
            raise PropertyTypeError(f"{name} is {self.allowed}, not {value!r}", name)
        low = value < self.least if self.whole else value <= self.least
        odd = isinstance(value, float) and not isfinite(value)
        if low or odd or (self.most is not None and value > self.most):
            raise PropertyValueError(f"{name} is {self.allowed}, not {value!r}", name)
        return value

    @property
    def label(self) -> str:
        return "Integer" if self.whole else "Numeric"

    @property
    def allowed(self) -> str:
        if self.most is not None:
            text = f"an integer from {self.least} to {self.most}"
        elif self.whole:
            text = f"an integer of at least {self.least}"
        else:
            text = f"a number above {self.least}"
        return f"{text}, or {self.special}" if self.special else text

    @property
    def example(self) -> int:
        return self.least + 3


@dataclass(frozen=True)
class PreferenceSet(ValueType):
    """A set of (Preference, value) pairs, where *values* are the types of the second part."""

    values: tuple[type, ...]
    what: str

    def check(self, name: str, value: Any) -> frozenset[tuple[Preference, Any]]:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise PropertyTypeError(f"{name} is {self.allowed}, not {value!r}", name)
        return frozenset(self._pair(name, pair) for pair in value)

    def _pair(self, name: str, pair: Any) -> tuple[Preference, Any]:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise PropertyTypeError(f"{name} is {self.allowed}; {pair!r} is no such pair", name)
        level, what = pair
        return Preference.of(level, f"the preference in {name}"), self.check_value(name, what)

    def check_value(self, name: str, what: Any) -> Any:
        """The second part of a pair.  Raises PropertyTypeError or PropertyValueError."""
        if isinstance(what, bool) or not isinstance(what, self.values):
            raise PropertyTypeError(f"in {name} stands {self.what}, not {what!r}", name)
        if what == "":
            raise PropertyValueError(f"in {name} stands {self.what}, not an empty str", name)
        return what

    @property
    def label(self) -> str:
        return "Set of (Preference, Enumeration)"

    @property
    def allowed(self) -> str:
        return f"a set of pairs of a Preference and {self.what}"

    @property
    def example(self) -> frozenset[tuple[Preference, Any]]:
        return frozenset({(PREFER, "lo")})


BOOLEAN = Boolean()
PREFERENCE = Enumeration(Preference)


def integer(least: int, special: Special | None = None, most: int | None = None) -> Number:
    """Integers from *least* (int) on, up to *most* (int or None), or the *special* value."""
    return Number(True, least, special, most)


def numeric(special: Special | None = None) -> Number:
    """Numbers above 0, or the *special* value."""
    return Number(False, 0, special)
