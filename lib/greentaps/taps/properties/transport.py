"""`TransportProperties`: what an application asks of a Connection before there is one, and the
contradictions that such wishes can hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import PropertyTypeError
from .profiles import PROFILES, TransportPropertyProfiles
from .table import (
    Place,
    Property,
    all_properties,
    assignments,
    combined,
    find_property,
    locate,
    selection_preferences,
)
from .values import (
    AVOID,
    DISABLED,
    NO_PREFERENCE,
    PREFER,
    PROHIBIT,
    REQUIRE,
    UNIDIRECTIONAL_RECEIVE,
    Preference,
    PreferenceSet,
    Role,
)

__all__ = ["TransportProperties", "contradictions"]

_NOTHING: Any = object()


def _plain_defaults(role: Role | None) -> dict[str, Any]:
    return {
        row.name: row.default_for(role)
        for row in all_properties()
        if row.derive is None and row.group.places
    }


_DEFAULTS = {role: _plain_defaults(role) for role in (None, *Role)}


class TransportProperties:
    """What is asked of a Connection (RFC 9622 section 6.2): Selection Properties, first values of
    Connection Properties, and defaults of Message Properties.

    *profile* is one of `TransportPropertyProfiles` or its name; *property_profile* is another name
    for the argument.  *values* are set after it: ``TransportProperties(keepAlive="Require")``,
    ``TransportProperties(**{"tcp.userTimeoutEnabled": True})``.  A property that is not set has
    its default.  Times are seconds, rates bit/s, lengths bytes.

    Raises PropertyError as `set` does.
    """

    __slots__ = ("_all", "_role", "_values")

    def __init__(
        self,
        profile: TransportPropertyProfiles | str | int | None = None,
        *,
        property_profile: TransportPropertyProfiles | str | int | None = None,
        **values: Any,
    ) -> None:
        self._role: Role | None = None
        self._values: dict[str, Any] = {}  # what was set
        self._all: dict[str, Any] = dict(_DEFAULTS[None])  # with the defaults that are fixed
        if profile is None:
            profile = property_profile
        if profile is not None:
            chosen = PROFILES[TransportPropertyProfiles.of(profile, "profile")]
            self._values.update(chosen)
            self._all.update(chosen)
        for name, value in values.items():
            self.set(name, value)

    # -- setting --

    def set(self, prop: str, value: Any) -> TransportProperties:
        """``Set`` of RFC 9622 section 6.2; the last value counts.  Returns this object.

        *prop* (str) is a name in any spelling, or a constant for one; what *value* may be, the
        table says.  Raises UnknownPropertyError, PropertyTypeError, PropertyValueError, each
        telling what would be right, and PropertyReadOnlyError.
        """
        rows = assignments(prop, value)
        for row, _ in rows:
            row.must_be_settable(Place.PRECONNECTION)
        for row, checked in rows:
            self._put(row, checked)
        return self

    def add(self, prop: str, value: Any) -> TransportProperties:
        """Another name for `set`, from older systems."""
        return self.set(prop, value)

    def _put(self, row: Property, value: Any) -> None:
        self._values[row.name] = self._all[row.name] = value
        if row.name == "connTimeout" and value is not DISABLED:
            # RFC 9622 section 8.2.3: back to the derived default, which is now false.
            self._values.pop("tcp.userTimeoutChangeable", None)
            self._all.pop("tcp.userTimeoutChangeable", None)

    def _level(self, prop: str, level: Preference, value: Any) -> TransportProperties:
        if value is _NOTHING:
            return self.set(prop, level)
        row = find_property(prop)
        if not isinstance(row.type, PreferenceSet):
            raise PropertyTypeError(f"{row.name} takes no value beside the preference", row.name)
        value = row.type.check_value(row.name, value)
        others = {pair for pair in self.get(row.name) if pair[1] != value}
        return self.set(row.name, others | {(level, value)})

    def require(self, prop: str, value: Any = _NOTHING) -> TransportProperties:
        """``Require``: the property must be there (RFC 9622 appendix B.1).

        With *value*, for `interface` and `pvd`: that one and no other.  It replaces what the set
        says of the same value.  Returns this object; raises as `set`.
        """
        return self._level(prop, REQUIRE, value)

    def prefer(self, prop: str, value: Any = _NOTHING) -> TransportProperties:
        """``Prefer``: better with it.  Otherwise as `require`."""
        return self._level(prop, PREFER, value)

    def no_preference(self, prop: str, value: Any = _NOTHING) -> TransportProperties:
        """``NoPreference``: it does not matter.  Otherwise as `require`."""
        return self._level(prop, NO_PREFERENCE, value)

    ignore = no_preference

    def avoid(self, prop: str, value: Any = _NOTHING) -> TransportProperties:
        """``Avoid``: better without it.  Otherwise as `require`."""
        return self._level(prop, AVOID, value)

    def prohibit(self, prop: str, value: Any = _NOTHING) -> TransportProperties:
        """``Prohibit``: it must not be there.  Otherwise as `require`."""
        return self._level(prop, PROHIBIT, value)

    def default(self, prop: str) -> TransportProperties:
        """Forget what was set for *prop* (str), which then has its default again.

        Returns this object.  Raises UnknownPropertyError or PropertyTypeError.
        """
        group = None if _is_one(prop) else combined(prop)
        for name in group.members if group else (find_property(prop).name,):
            row = find_property(name)
            self._values.pop(name, None)
            self._all.pop(name, None)
            if row.derive is None and row.group.places:
                self._all[name] = row.default_for(self._role)
        return self

    # -- reading --

    def get(self, prop: str) -> Any:
        """The value of *prop* (str): what was set, or else the default.

        A Selection Property of type Preference is a `Preference` here, before establishment.
        Raises UnknownPropertyError or PropertyTypeError.
        """
        try:
            return self._all[prop]
        except (KeyError, TypeError):
            pass
        group = None if _is_one(prop) else combined(prop)
        if group is not None:
            return group.join(self.get)
        row, opposite = locate(prop)
        if row.name in self._all:
            value = self._all[row.name]
        elif row.derive is not None:
            value = row.derive(self.get)
        else:
            value = row.default_for(self._role)
        return value.opposite if opposite else value

    __getitem__ = get

    def is_set(self, prop: str) -> bool:
        """Whether *prop* (str) was set, if only to its default.

        keepAliveTimeout makes a difference of it: not set, the system's period is used; set to
        Disabled, no keep-alives are sent.  Raises UnknownPropertyError or PropertyTypeError.
        """
        return find_property(prop).name in self._values

    def explicit(self) -> Mapping[str, Any]:
        """Only what was set, by the RFC's names: a copy."""
        return dict(self._values)

    def for_role(self, role: Role | str) -> TransportProperties:
        """A copy with the defaults of *role*: ``"initiate"``, ``"listen"`` or ``"rendezvous"``.

        multipath and useTemporaryLocalAddress depend on it (RFC 9622 sections 6.2.13, 6.2.14);
        without a role they have the defaults of Initiate.  Raises PropertyTypeError or
        PropertyValueError.
        """
        made = TransportProperties.__new__(TransportProperties)
        made._role = role = Role.of(role, "role")
        made._values = dict(self._values)
        made._all = {**_DEFAULTS[role], **self._values}
        return made

    @property
    def role(self) -> Role | None:
        """The role whose defaults are read, or None."""
        return self._role

    def copy(self) -> TransportProperties:
        """An object that later changes of this one do not reach."""
        made = TransportProperties.__new__(TransportProperties)
        made._role = self._role
        made._values = dict(self._values)
        made._all = dict(self._all)
        return made

    __copy__ = copy

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """(name, value) of every property that can be set here, in the table's order."""
        return ((row.name, self.get(row.name)) for row in all_properties() if row.group.places)

    def preferences(self) -> list[tuple[str, Preference]]:
        """(name, Preference) of every Selection Property of that type."""
        known = self._all  # what is derived from other properties is not among them
        return [
            (name, known[name] if name in known else self.get(name))
            for name in selection_preferences()
        ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TransportProperties) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={_shown(value)}" for name, value in self._values.items())
        return f"TransportProperties({inside})"


def _is_one(prop: Any) -> bool:
    try:
        locate(prop)
    except KeyError:
        return False
    return True


def _shown(value: Any) -> str:
    return repr(str(value)) if isinstance(value, Preference) else repr(value)


# -- contradictions --

# What cannot be had together: (property, level, property, level, why).
_PAIRS: tuple[tuple[str, Any, str, Any], ...] = (
    ("perMsgReliability", REQUIRE, "reliability", PROHIBIT),
    ("reliability", REQUIRE, "congestionControl", PROHIBIT),
    ("msgReliable", True, "reliability", PROHIBIT),
    ("msgOrdered", True, "preserveOrder", PROHIBIT),
    ("zeroRttMsg", REQUIRE, "direction", UNIDIRECTIONAL_RECEIVE),
    ("zeroRttMsg", REQUIRE, "isolateSession", True),
)


# What `contradictions` looks at.
_OPPOSED = frozenset(
    (
        *(name for one, _, other, _ in _PAIRS for name in (one, other)),
        *("interface", "pvd"),
        *("minSendRate", "maxSendRate", "minRecvRate", "maxRecvRate"),
    )
)


def contradictions(properties: TransportProperties) -> list[str]:
    """Why *properties* can never be met, whatever protocols there are; an empty list if they can.

    One sentence (str) for each contradiction; Initiate, Listen and Rendezvous refuse such
    properties (RFC 9622 section 6.2, RFC 9623 section 3.1).
    """
    get, explicit = properties.get, properties.explicit()
    if _OPPOSED.isdisjoint(explicit):
        return []  # the defaults agree with each other
    found = []
    for one, level, other, against in _PAIRS:
        # A derived default agrees with what it follows.
        if get(one) == level and get(other) == against and (level is not True or one in explicit):
            found.append(f"{one} is {_said(level)}, and {other} is {_said(against)}")
    if (
        explicit.get("msgReliable") is False
        and get("reliability") is REQUIRE
        and get("perMsgReliability") is PROHIBIT
    ):
        found.append(
            "msgReliable is false, reliability is Require, and perMsgReliability is Prohibit"
        )
    for name in ("interface", "pvd"):
        found += _within(name, get(name))
    for way in ("Send", "Recv"):
        least, most = get(f"min{way}Rate"), get(f"max{way}Rate")
        if isinstance(least, (int, float)) and least > most:
            found.append(f"min{way}Rate is {least}, and max{way}Rate is {most}")
    return found


def _within(name: str, pairs: frozenset[tuple[Preference, Any]]) -> list[str]:
    required = sorted({str(what) for level, what in pairs if level is REQUIRE})
    prohibited = {str(what) for level, what in pairs if level is PROHIBIT}
    found = [
        f"{name} {what} is both Require and Prohibit" for what in required if what in prohibited
    ]
    # A type and an instance of it may well go together.
    instances = sorted(
        {str(what) for level, what in pairs if level is REQUIRE and isinstance(what, (str, int))}
    )
    if len(instances) > 1:
        found.append(f"{name} is Require for more than one: {', '.join(instances)}")
    return found


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
