"""Message Properties (RFC 9622 section 9.1.3): checked when added to a context, resolved when a
Message is sent.

Pure functions over a plain dict of what a context holds, so that a Send without a context needs
none of them: the Connection resolves the empty dict once, and again when a default changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import PropertyMomentError
from .live import ConnectionProperties
from .table import TABLE, Group, Place, assignments, find_property

__all__ = [
    "MESSAGE_DEFAULTS",
    "check_message_property",
    "message_contradictions",
    "message_value",
    "resolve_message",
]

MESSAGE_DEFAULTS: Mapping[str, Any] = {
    row.name: row.default for row in TABLE if row.group is Group.MESSAGE
}
"""The defaults of a Message that no Connection is known of."""


def check_message_property(prop: str, value: Any) -> tuple[str, Any]:
    """``MessageContext.add``: the RFC's name of *prop* (str), and *value* as it is stored.

    Raises UnknownPropertyError, PropertyTypeError, PropertyValueError, PropertyReadOnlyError for
    what is only read from received Messages, and PropertyMomentError for what is not a property
    of Messages.
    """
    (row, checked), *rest = assignments(prop, value) or [(find_property(prop), value)]
    for one in (row, *(other for other, _ in rest)):
        one.must_be_settable(Place.MESSAGE)
    return row.name, checked


def message_value(
    prop: str, values: Mapping[str, Any], connection: ConnectionProperties | None = None
) -> Any:
    """``MessageContext.get``: from *values* (what the context holds, by the RFC's names), else the
    Connection's default, else the table's.

    Raises UnknownPropertyError, PropertyTypeError, and PropertyMomentError for what is not a
    property of Messages.
    """
    row = find_property(prop)
    if row.name in values:
        return values[row.name]
    if row.group is Group.MESSAGE:
        return row.default if connection is None else connection.get(row.name)
    if row.group is Group.RECEIVED:
        return row.default
    raise PropertyMomentError(f"{row.name} is a {row.group.value}, not one of Messages", row.name)


def resolve_message(
    values: Mapping[str, Any], connection: ConnectionProperties
) -> Mapping[str, Any]:
    """Every Message Property of a Message on *connection*: what *values* hold, else what was set
    as a default, else what follows from the Connection and its stack."""
    return {name: connection.get(name) for name in MESSAGE_DEFAULTS} | dict(values)


def message_contradictions(
    values: Mapping[str, Any],
    connection: ConnectionProperties,
    *,
    protects_against_duplicates: bool,
) -> list[str]:
    """Why a Message with *values* cannot be sent on *connection* as it asks; an empty list if it
    can.  Each is a reason (str) for a SendError (RFC 9622 sections 9.1.3.3 to 9.1.3.7).

    *protects_against_duplicates* says whether the stack delivers a Message once at the most.
    """
    found = []
    message = resolve_message(values, connection)
    if message["msgOrdered"] and not connection.has("preserveOrder"):
        found.append("msgOrdered is true, and the stack does not preserve order")
    reliable = connection.has("reliability")
    if message["msgReliable"] != reliable and not connection.has("perMsgReliability"):
        found.append(
            f"msgReliable is {str(message['msgReliable']).lower()} where reliability is "
            f"{str(reliable).lower()}, and perMsgReliability is not to be had"
        )
    if not message["safelyReplayable"] and not protects_against_duplicates:
        found.append("safelyReplayable is false, and the stack does not protect against duplicates")
    return found
