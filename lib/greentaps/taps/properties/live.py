"""`ConnectionProperties`: the properties of a live Connection (RFC 9622 section 8).

A pure piece that a Connection is given its view of the world through: *supply* for the read-only
properties, *has* for what the chosen stack offers, *change* for whoever must apply a new value.

Connection Properties of a Connection Group are entangled (section 7.4): the members share one
store, and a change reaches every member's stack.  connPriority and the defaults of Message
Properties stay each Connection's own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count
from typing import Any

from .. import names
from .errors import (
    PropertyError,
    PropertyMomentError,
    PropertyRefusedError,
    PropertyTypeError,
    PropertyUnsupportedError,
)
from .table import Group, Place, Property, all_properties, assignments, combined, locate
from .transport import TransportProperties
from .values import (
    DISABLED,
    PREFER,
    REQUIRE,
    UNIDIRECTIONAL_RECEIVE,
    UNIDIRECTIONAL_SEND,
    Boolean,
    Direction,
    Preference,
    Role,
)

__all__ = ["ConnectionProperties"]

Change = Callable[[str, Any, Any], object]
Split = Callable[[BaseException], object]

_CHANGEABLE = "tcp.userTimeoutChangeable"
_UNKNOWN: Any = object()
_numbers = count()


class _Shared:
    """What the members of a Connection Group have in common."""

    __slots__ = ("members", "values")

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values  # what was set of the entangled properties
        self.members: weakref.WeakValueDictionary[int, ConnectionProperties] | None = None

    def join(self, *joining: ConnectionProperties) -> None:
        if self.members is None:  # most Connections are never cloned
            self.members = weakref.WeakValueDictionary()
        for member in joining:
            self.members[member._number] = member
            member._shared = self


class ConnectionProperties:
    """The properties of one Connection, which `Connection.get_properties` returns.

    It is a view: it always tells the present values.  *properties* (TransportProperties) are what
    the application asked for, with the role's defaults; they are copied.  *supply* maps names of
    read-only properties to values, or to functions without arguments that return them.

    ``change(name, value, old)`` is called before a new value is stored, for the stack to apply it:
    *name* (str) is the RFC's spelling, *value* and *old* are as `get` returns them.  It refuses by
    raising, and then the old value stays; if another member of the group has applied it already,
    its *change* is called once more, with the two values exchanged.

    ``split(error)`` is called when this Connection could not follow a change that another member
    of its group made; it has left the group and kept the old values (the late CloneError of RFC
    9622 section 7.4).  Without *split*, such a Connection refuses the change for the whole group.

    The constants of older systems are attributes: ``ConnectionProperties.PRIORITY``.
    """

    __slots__ = (
        "__weakref__",
        "_change",
        "_has",
        "_number",
        "_own",
        "_protocols",
        "_shared",
        "_split",
        "_supply",
        "_wishes",
    )

    def __init__(
        self,
        properties: TransportProperties | None = None,
        *,
        supply: Mapping[str, Any] | None = None,
        change: Change | None = None,
        split: Split | None = None,
    ) -> None:
        self._wishes = TransportProperties() if properties is None else properties.copy()
        self._supply: Mapping[str, Any] = {} if supply is None else supply
        self._change = change
        self._split = split
        self._has: Callable[[str], bool] | None = None
        self._protocols: Collection[str] | None = None
        shared: dict[str, Any] = {}
        self._own: dict[str, Any] = {}
        for name, value in self._wishes.explicit().items():
            row, _ = locate(name)
            if row.entangled:
                shared[name] = value
            elif row.group is not Group.SELECTION:
                self._own[name] = value
        self._number = next(_numbers)
        self._shared = _Shared(shared)

    def established(
        self,
        has: Callable[[str], bool] | Mapping[str, bool],
        protocols: Collection[str] | None = None,
    ) -> None:
        """For the Connection, when its stack is chosen.

        From now on a Selection Property of type Preference reads as *has* says (a function of the
        RFC's name, or a mapping): whether the stack has the feature, or uses the path.
        *protocols* (acronyms, str) are those of the stack: properties of other protocols are
        refused from now on.  Without it all are taken.
        """
        if isinstance(has, Mapping):
            offers = has

            def has(name: str) -> bool:
                return bool(offers.get(name, False))

        self._has = has
        self._protocols = None if protocols is None else frozenset(map(str.lower, protocols))

    # -- reading --

    def get(self, prop: str) -> Any:
        """``Get``: the present value of *prop* (str).

        Once a stack is chosen, Selection Properties of type Preference are bools, and those of
        other types what the application asked for (RFC 9622 sections 6.2 and 8).  Raises
        UnknownPropertyError, PropertyTypeError, and PropertyMomentError for what only a received
        Message has.
        """
        try:
            row, opposite = locate(prop)
        except KeyError:
            group = combined(prop)
            if group is not None:
                return group.join(self.get)
            if prop == "props":  # an older system's name for the rest of its dict
                return self
            raise
        value = self._read(row)
        if opposite:
            return value.opposite if isinstance(value, Preference) else not value
        return value

    __getitem__ = get

    def _read(self, row: Property) -> Any:
        name = row.name
        if row.group is Group.SELECTION:
            if row.is_preference and self._has is not None:
                return bool(self._has(name))
            return self._wishes.get(name)
        if row.group is Group.READ_ONLY:
            return self._read_only(row)
        if row.group is Group.RECEIVED:
            raise PropertyMomentError(
                f"{name} is a {row.group.value}: it is read from the context of one", name
            )
        value = (self._shared.values if row.entangled else self._own).get(name, _UNKNOWN)
        if value is not _UNKNOWN:
            return value
        return row.default_for(self.role) if row.derive is None else row.derive(self.get)

    def _read_only(self, row: Property) -> Any:
        barred = _BARRED.get(row.name)
        if barred is not None and self._wishes.get("direction") is barred[0]:
            return barred[1]
        value = self._supply.get(row.name, row.default)
        return value() if callable(value) else value

    def has(self, prop: str) -> bool:
        """``Has``: whether a Boolean or a Preference is true (RFC 9622 section 8).

        Before a stack is chosen, a Preference is true if it is required, as nothing else is
        certain.  Raises PropertyTypeError for properties of other types, and as `get`.
        """
        row, _ = locate(prop)
        if not row.is_preference and not isinstance(row.type, Boolean):
            raise PropertyTypeError(
                f"{row.name} is neither a Boolean nor a Preference: use get", row.name
            )
        value = self.get(prop)
        return value is REQUIRE or value is True

    def is_set(self, prop: str) -> bool:
        """Whether the application has set *prop* (str), here or before establishment."""
        row, _ = locate(prop)
        if row.group is Group.SELECTION:
            return self._wishes.is_set(row.name)
        return row.name in (self._shared.values if row.entangled else self._own)

    def keep_alive_interval(self, system: float) -> float | None:
        """The silence in seconds after which a keep-alive is due, or None if none are to be sent.

        *system* (seconds) is the system's own period, which holds where keepAlive is wanted and
        keepAliveTimeout was not set.  Set to Disabled, or to more than connTimeout, the latter
        turns keep-alives off (RFC 9622 sections 6.2.10 and 8.1.4).
        """
        if self.is_set("keepAliveTimeout"):
            interval = self.get("keepAliveTimeout")
            if interval is DISABLED or interval > self.get("connTimeout"):
                return None
            return float(interval)
        return system if self._wishes.get("keepAlive") in (REQUIRE, PREFER) else None

    @property
    def role(self) -> Role | None:
        """The role whose defaults hold."""
        return self._wishes.role

    @property
    def requested(self) -> TransportProperties:
        """What the application asked for: a copy."""
        return self._wishes.copy()

    def keys(self) -> Iterator[str]:
        """The names of all properties of a Connection, in the table's order."""
        return (row.name for row in all_properties() if row.group is not Group.RECEIVED)

    __iter__ = keys

    def items(self) -> Iterator[tuple[str, Any]]:
        """(name, value) of all properties of a Connection."""
        return ((name, self.get(name)) for name in self.keys())

    def __contains__(self, prop: object) -> bool:
        try:
            row, _ = locate(prop)  # type: ignore[arg-type]
        except PropertyError:
            return False
        return row.group is not Group.RECEIVED

    def __len__(self) -> int:
        return sum(1 for _ in self.keys())

    def __repr__(self) -> str:
        state = self.get("connState")
        kept = {**self._shared.values, **self._own}
        inside = "".join(f" {name}={value!s}" for name, value in kept.items())
        return f"<ConnectionProperties {str(state).lower()}{inside}>"

    # -- setting --

    def set(self, prop: str, value: Any) -> None:
        """``SetProperty`` (RFC 9622 section 8): for the whole Connection Group, but for
        connPriority and Message Properties.

        Raises, with everything as it was: UnknownPropertyError, PropertyTypeError,
        PropertyValueError; PropertyReadOnlyError for what is never set; PropertyMomentError for
        Selection Properties; PropertyUnsupportedError for a property of a protocol that is not in
        the stack; PropertyRefusedError if a stack could not apply it.  Each has the RFC's
        ErrorCode as its `code`, and none ends the Connection.
        """
        rows = assignments(prop, value)
        for row, _ in rows:
            self._must_be_settable(row)
        done: list[tuple[Property, Any, dict[str, Any], dict[str, Any]]] = []
        for row, checked in rows:
            before = (dict(self._shared.values), dict(self._own))
            old = self.get(row.name)
            try:
                self._assign(row, checked)
            except BaseException:
                for earlier, was, shared, own in reversed(done):
                    self._tell_back(earlier, was)
                    self._shared.values, self._own = shared, own
                raise
            done.append((row, old, *before))

    def _must_be_settable(self, row: Property) -> None:
        row.must_be_settable(Place.CONNECTION)
        namespace = row.namespace
        if (
            namespace
            and not namespace.startswith("_")
            and self._protocols is not None
            and namespace not in self._protocols
        ):
            raise PropertyUnsupportedError(
                f"{row.name} is {namespace.upper()}'s own, and this Connection runs over "
                f"{'/'.join(sorted(self._protocols))}",
                row.name,
            )

    def _assign(self, row: Property, value: Any) -> None:
        old = self.get(row.name)
        if not row.entangled:
            _apply(self, row.name, value, old)
            self._own[row.name] = value
            return
        leaving = self._apply_to_group(row.name, value, old)
        kept = dict(self._shared.values)
        _store(self._shared.values, row.name, value)
        for member, error in leaving:
            member._leave(dict(kept))
            if member._split is not None:
                member._split(error)

    def _apply_to_group(
        self, name: str, value: Any, old: Any
    ) -> list[tuple[ConnectionProperties, PropertyError]]:
        """Have every member apply a value, this one first; who could not and may leave for it."""
        told: list[ConnectionProperties] = []
        leaving: list[tuple[ConnectionProperties, PropertyError]] = []
        others = [member for member in self.group() if member is not self]
        for member in (self, *others):
            try:
                _apply(member, name, value, old)
            except BaseException as error:
                may_leave = member is not self and member._split is not None
                if may_leave and isinstance(error, PropertyError):
                    leaving.append((member, error))
                    continue
                for one in reversed(told):
                    _quietly(one, name, old, value)
                raise
            told.append(member)
        return leaving

    def _tell_back(self, row: Property, old: Any) -> None:
        value = self.get(row.name)
        for member in self.group() if row.entangled else (self,):
            _quietly(member, row.name, old, value)

    # -- groups --

    def clone(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        supply: Mapping[str, Any] | None = None,
        change: Change | None = None,
        split: Split | None = None,
    ) -> ConnectionProperties:
        """The properties of a Connection that is cloned from this one (RFC 9622 section 7.4).

        Connection Properties are shared from now on.  connPriority and the defaults of Message
        Properties are copied, and each Connection's own from then on.  *values* are set on the
        clone; entangled ones among them change the whole group.  The other arguments are as in
        the constructor.  Raises PropertyError as `set`, with nothing changed and nothing made.
        """
        made = ConnectionProperties(self._wishes, supply=supply, change=change, split=split)
        made._has, made._protocols = self._has, self._protocols
        made._own = dict(self._own)
        self._shared.join(self, made)
        before = dict(self._shared.values)
        try:
            for name, value in (values or {}).items():
                made.set(name, value)
        except BaseException:
            made._leave({})
            self._restore(before)
            raise
        return made

    def _restore(self, before: dict[str, Any]) -> None:
        present = {name: self.get(name) for name in self._shared.values}
        self._shared.values = before
        for name, value in present.items():
            old = self.get(name)
            if old != value:
                for member in self.group():
                    _quietly(member, name, old, value)

    def group(self) -> list[ConnectionProperties]:
        """The members of the Connection Group that are left, oldest first; this one among them."""
        members = self._shared.members
        return [self] if members is None else [one for _, one in sorted(members.items())]

    def leave(self) -> None:
        """Leave the Connection Group and keep the present values: for a Connection that is
        Closed."""
        self._leave(dict(self._shared.values))

    def _leave(self, values: dict[str, Any]) -> None:
        if self._shared.members is not None:
            self._shared.members.pop(self._number, None)
        self._shared = _Shared(values)


def _store(values: dict[str, Any], name: str, value: Any) -> None:
    values[name] = value
    if name == "connTimeout" and value is not DISABLED:
        # RFC 9622 section 8.2.3: back to the derived default, which is now false.
        values.pop(_CHANGEABLE, None)


def _apply(member: ConnectionProperties, name: str, value: Any, old: Any) -> None:
    if member._change is None:
        return
    try:
        member._change(name, value, old)
    except PropertyError:
        raise
    except Exception as error:
        raise PropertyRefusedError(f"{name} stays {old!s}: {error}", name) from error


def _quietly(member: ConnectionProperties, name: str, value: Any, old: Any) -> None:
    """Have a member go back; that it cannot is no news to the caller, who gets the first error."""
    try:
        _apply(member, name, value, old)
    except PropertyError:
        pass


# What the direction of the Connection rules out (RFC 9622 sections 8.1.11.2 to 8.1.11.6).
_BARRED: dict[str, tuple[Direction, Any]] = {
    "canSend": (UNIDIRECTIONAL_RECEIVE, False),
    "canReceive": (UNIDIRECTIONAL_SEND, False),
    "sendMsgMaxLen": (UNIDIRECTIONAL_RECEIVE, 0),
    "recvMsgMaxLen": (UNIDIRECTIONAL_SEND, 0),
}


# The older systems' enumeration of this name, member by member.
for _member in names.ConnectionProperties:
    setattr(ConnectionProperties, _member.name, _member)
