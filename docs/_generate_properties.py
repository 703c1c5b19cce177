"""Writes docs/reference/properties.rst from the table of properties.

The page is committed; a test compares it with what this writes.  After a change of the table::

    PYTHONPATH=lib python docs/_generate_properties.py
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from greentaps.taps import properties as taps
from greentaps.taps.properties import Group, Place, Property

PAGE = Path(__file__).parent / "reference" / "properties.rst"

# Where the older systems mean something else than RFC 9622.
DIFFERENCES = (
    (
        "``preserve-msg-boundaries``",
        "default Prefer",
        "default No Preference",
    ),
    (
        "``zero-rtt-msg``",
        "default Prefer in one of them",
        "default No Preference",
    ),
    (
        "``multipath``",
        "a Preference, by default Prefer",
        (
            "Disabled, Active or Passive, by default Disabled (Passive for Listen); a Preference "
            "is refused"
        ),
    ),
    (
        "``per-msg-checksum-len-send``, ``per-msg-checksum-len-recv``",
        "whether it is wanted that a checksum covers only part of a Message, by default Ignore",
        (
            "fullChecksumSend and fullChecksumRecv ask for the opposite, by default Require; under "
            "the older names the Preference is turned round"
        ),
    ),
    (
        "``conn-prio``, ``msg-prio``",
        "a larger number goes first",
        "a lower number goes first; nothing is translated",
    ),
    (
        (
            "``conn-timeout``, ``recv-checksum-len``, ``msg-checksum-len``, "
            "``max-send-rate / max-recv-rate``"
        ),
        "-1 for none or all",
        "Disabled, Full Coverage, Unlimited; -1 is still taken for these",
    ),
    (
        "``singular-transmission-msg-max-len``, ``send-msg-max-len``, ``recv-msg-max-len``",
        "-1 where unknown",
        "Not applicable",
    ),
    (
        "``singular-transmission``",
        "in one packet, or not at all",
        "noSegmentation, which says that; noFragmentation alone says less",
    ),
    (
        "``msg-ordered``, ``msg-reliable``",
        "default true",
        "default is what preserveOrder and reliability read as",
    ),
    (
        "``msg-capacity-profile``",
        "default Default",
        "default is connCapacityProfile",
    ),
    (
        "``tcp.user-timeout-value``",
        "default 300 seconds",
        "default what the system's TCP has; no option of RFC 5482 can be sent from here",
    ),
    (
        "``tcp.user-timeout``",
        "whether the option is used",
        (
            "tcp.userTimeoutEnabled (in one place the RFC's prose confuses it with "
            "tcp.userTimeoutValue)"
        ),
    ),
    (
        "``retransmit-notify``, ``retransmit-notify-threshold``, ``zero-rtt-msg-max-len``",
        "in the API, mostly without effect",
        "not in the RFC; accepted and read back, used by no stack",
    ),
)


def write(path: str | Path = PAGE) -> None:
    """Write the page to *path*."""
    Path(path).write_text(page(), encoding="utf-8")


def page() -> str:
    """The page as reStructuredText."""
    out = io.StringIO()
    out.write(
        """\
.. Written by docs/_generate_properties.py: do not edit.

Properties
==========

Every Transport Property of :rfc:`9622`, from the one table that the library itself works with
(``greentaps.taps.properties.TABLE``).  Names are found in any case, and with or without hyphens
and underscores: ``connTimeout``, ``conn-timeout`` and ``CONN_TIMEOUT`` are the same.  Times are in
seconds, rates in bit/s, lengths in bytes.

Every default is the RFC's.  Where it leaves one to the implementation, this is ours:
``tcp.userTimeoutValue`` is 300 seconds, the five minutes of :rfc:`793`.

"""
    )
    for group in Group:
        _properties(out, group)
    _values(out)
    _profiles(out)
    _older(out)
    _own(out)
    _errors(out)
    return out.getvalue().rstrip() + "\n"


_TITLES = {
    Group.SELECTION: (
        "Selection Properties",
        (
            "Set on `TransportProperties`, and frozen once there is a Connection.  There those of "
            "type Preference read as true or false: whether the chosen stack has the feature."
        ),
    ),
    Group.CONNECTION: (
        "Connection Properties",
        (
            "Set on `TransportProperties` or on the Connection, at any time.  The Connections of a "
            "group share them, but for connPriority.  Those with a namespace take effect only if "
            "that protocol is chosen, and never choose it."
        ),
    ),
    Group.READ_ONLY: ("Read-only Connection Properties", "Read from a Connection."),
    Group.MESSAGE: (
        "Message Properties",
        (
            "Set on a MessageContext before Send; as defaults on `TransportProperties` or on a "
            "Connection, for which they hold alone."
        ),
    ),
    Group.RECEIVED: (
        "Read from a received Message",
        "Read from the MessageContext.  The RFC gives them no names, so these are ours.",
    ),
}


def _properties(out: io.StringIO, group: Group) -> None:
    title, about = _TITLES[group]
    _heading(out, title)
    out.write(f"{about}\n\n")
    rows = [row for row in taps.TABLE if row.group is group]
    _table(
        out,
        ("Name", "Values", "Default", "What it says (and the RFC's section)"),
        (
            (
                f"``{row.name}``",
                "Preference"
                if row.is_preference
                else f"{row.type.label}: {row.type.allowed}"
                + (f" ({row.unit})" if row.unit else ""),
                _default(row),
                f"{row.about} ({row.section})",
            )
            for row in rows
        ),
        "26 26 14 34",
    )


def _default(row: Property) -> str:
    if row.derived:
        return row.derived
    if row.group is Group.READ_ONLY:
        return "\\-"
    text = _word(row.default)
    for role, value in row.by_role.items():
        text += f"; for {role} {_word(value)}"
    return text


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, frozenset):
        return "empty set"
    return str(value)


def _values(out: io.StringIO) -> None:
    _heading(out, "Values")
    out.write(
        "Every enumeration takes its members, their words in any spelling, and the numbers that "
        "older\nsystems had for them.\n\n"
    )
    _table(
        out,
        ("connCapacityProfile, msgCapacityProfile", "DSCPs that fit", "used here"),
        ((str(one), ", ".join(map(str, one.dscps)), str(one.dscp)) for one in taps.CapacityProfile),
        "50 30 20",
    )
    _table(
        out,
        ("connScheduler", "Defined in"),
        ((str(one), f":rfc:`8260#section-{one.section}`") for one in taps.Scheduler),
        "50 50",
    )
    kinds = (taps.Preference, taps.MultipathMode, taps.Direction, taps.MultipathPolicy)
    _table(
        out,
        ("Enumeration", "Members"),
        (
            (f"``{kind.__name__}``", kind.words())
            for kind in (*kinds, taps.ConnectionState, taps.InterfaceType)
        ),
        "30 70",
    )
    out.write("Values that stand outside a property's numbers:\n\n")
    _table(
        out,
        ("Constant", "Word", "Properties"),
        (
            (
                f"``{special!r}``",
                str(special),
                ", ".join(
                    row.name for row in taps.TABLE if getattr(row.type, "special", None) is special
                ),
            )
            for special in taps.Special
        ),
        "20 20 60",
    )


def _profiles(out: io.StringIO) -> None:
    _heading(out, "Profiles")
    out.write("For ``TransportProperties(profile)``; what is not listed keeps its default.\n\n")
    names = sorted({name for values in taps.PROFILES.values() for name in values})
    _table(
        out,
        ("Property", *(str(profile) for profile in taps.PROFILES)),
        (
            (f"``{name}``", *(_word(one.get(name, "default")) for one in taps.PROFILES.values()))
            for name in names
        ),
        "25 25 25 25",
    )


def _older(out: io.StringIO) -> None:
    _heading(out, "Older names")
    out.write(
        "Taken wherever a property's name is; ``greentaps.taps.names`` has the constants.\n\n"
    )
    rows = []
    for row in (*taps.TABLE, *taps.BEYOND):
        rows += [(f"``{name}``", f"``{row.name}``") for name in row.aliases]
        rows += [(f"``{name}``", f"the opposite of ``{row.name}``") for name in row.opposites]
    for one in taps.COMBINED:
        form = "a dict" if one.keys else "a tuple"
        rows.append((f"``{one.name}``", f"{form} of ``{'``, ``'.join(one.members)}``"))
    _table(out, ("Older", "Here"), rows, "45 55")
    out.write("Where the meaning differs, the RFC's holds:\n\n")
    _table(out, ("Name", "Older meaning", "Here"), DIFFERENCES, "30 30 40")


def _own(out: io.StringIO) -> None:
    _heading(out, "Properties of one's own")
    out.write(
        """\
``greentaps.taps.properties.register_property("_acme.colour", ...)`` adds one.  Its namespace
begins with ``_`` and names the vendor or the program; keywords of IANA's registry of Protocol
Numbers are refused as a namespace, and warned of elsewhere in the name (:rfc:`9622#section-4.1`).

This library has one: ``_greentaps.receiveEcn``, a Selection Property (Boolean, by default False).
With it the context of each received datagram tells its ECN field, ``context.get("ecn")``: 0 to 3.
It makes receiving slower.

"""
    )


def _errors(out: io.StringIO) -> None:
    _heading(out, "Errors")
    out.write(
        "Nothing is changed by a call that raises one of these, and no Connection ends by it.\n\n"
    )
    kinds = [
        taps.UnknownPropertyError,
        taps.PropertyNameError,
        taps.PropertyTypeError,
        taps.PropertyValueError,
        taps.PropertyReadOnlyError,
        taps.PropertyMomentError,
        taps.PropertyUnsupportedError,
        taps.PropertyRefusedError,
    ]
    _table(
        out,
        ("Exception", "ErrorCode", "Means"),
        ((f"``{kind.__name__}``", kind.code.name, kind.code.value) for kind in kinds),
        "35 20 45",
    )
    rows = [(place.name, place.value) for place in Place]
    out.write("Where a property may be set:\n\n")
    _table(out, ("Place", "Is"), rows, "30 70")


def _heading(out: io.StringIO, text: str) -> None:
    out.write(f"{text}\n{'-' * len(text)}\n\n")


def _table(
    out: io.StringIO, head: Sequence[str], rows: Iterable[Sequence[str]], widths: str
) -> None:
    out.write(f".. list-table::\n   :header-rows: 1\n   :widths: {widths}\n\n")
    for row in (head, *rows):
        for index, cell in enumerate(row):
            out.write(f"   {'-' if index else '* -'} {cell}\n".replace("   - ", "     - ", 1))
    out.write("\n")


if __name__ == "__main__":
    write()
