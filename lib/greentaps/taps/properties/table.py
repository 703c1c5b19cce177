"""The table of all properties, and how their names are read.

`TABLE` is the only place that knows the properties of RFC 9622.  Names, validation, defaults,
who may set what and when, read-back and the reference page all derive from it.

A name is ``[namespace.]name`` (RFC 9622 section 4.1).  It is matched without regard to case and,
after the namespace, to hyphens, underscores and spaces.  Generic properties have no namespace,
those of a protocol its acronym, those of a vendor one that begins with ``_``.  Applications and
plugins add the last kind with `register_property`.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from .errors import (
    PropertyMomentError,
    PropertyNameError,
    PropertyNameWarning,
    PropertyReadOnlyError,
    PropertyTypeError,
    PropertyValueError,
    UnknownPropertyError,
)
from .values import (
    AVOID,
    BIDIRECTIONAL,
    BOOLEAN,
    DISABLED,
    ESTABLISHING,
    FULL_COVERAGE,
    HANDOVER,
    INFINITE,
    NO_PREFERENCE,
    NOT_APPLICABLE,
    PREFER,
    PREFERENCE,
    REQUIRE,
    UNLIMITED,
    CapacityProfile,
    ConnectionState,
    Direction,
    Enumeration,
    InterfaceType,
    MultipathMode,
    MultipathPolicy,
    PreferenceSet,
    Role,
    Scheduler,
    ValueType,
    fold,
    integer,
    numeric,
)

__all__ = [
    "BEYOND",
    "COMBINED",
    "RESERVED_KEYWORDS",
    "TABLE",
    "Combined",
    "Group",
    "Place",
    "Property",
    "all_properties",
    "assignments",
    "find_property",
    "register_property",
    "unregister_property",
]

Get = Callable[[str], Any]


class Place(Enum):
    """Where an application may set a property."""

    PRECONNECTION = "TransportProperties, before establishment"
    CONNECTION = "the Connection"
    MESSAGE = "the MessageContext, before Send"


class Group(Enum):
    """The classes of properties (RFC 9622 section 4), and those that are only read."""

    SELECTION = "Selection Property"
    CONNECTION = "Connection Property"
    READ_ONLY = "read-only Connection Property"
    MESSAGE = "Message Property"
    RECEIVED = "read-only Message Property"

    @property
    def places(self) -> frozenset[Place]:
        """Where properties of this class may be set."""
        return _PLACES[self]


_PLACES = {
    Group.SELECTION: frozenset({Place.PRECONNECTION}),
    Group.CONNECTION: frozenset({Place.PRECONNECTION, Place.CONNECTION}),
    Group.READ_ONLY: frozenset[Place](),
    Group.MESSAGE: frozenset(Place),
    Group.RECEIVED: frozenset[Place](),
}


@dataclass(frozen=True)
class Property:
    """One row of the table."""

    id: str
    """Number in the conformance checklist; empty for properties that the RFC does not have."""
    name: str
    section: str
    """Of RFC 9622."""
    group: Group
    type: ValueType
    default: Any
    about: str
    aliases: tuple[str, ...] = ()
    """Other names for the same."""
    opposites: tuple[str, ...] = ()
    """Older names that ask for the opposite: their Preference is turned round."""
    unit: str = ""
    by_role: Mapping[Role, Any] = field(default_factory=dict)
    """Defaults of some roles that differ from `default`."""
    derive: Callable[[Get], Any] | None = None
    """The default where it follows other properties, which it gets through a function."""
    derived: str = ""
    """The same in words."""
    alone: bool = False
    """Of a Connection Property: not shared in a Connection Group (RFC 9622 section 7.4)."""

    @property
    def namespace(self) -> str:
        """The part of the name before the dot, or an empty str."""
        return self.name.rpartition(".")[0]

    @property
    def entangled(self) -> bool:
        """Whether all Connections of a group share the value (RFC 9622 section 7.4)."""
        return self.group is Group.CONNECTION and not self.alone

    @cached_property
    def is_preference(self) -> bool:
        """Whether it is a Preference, and so a Boolean once there is a Connection."""
        return self.type == PREFERENCE

    def check(self, value: Any) -> Any:
        """*value* as it is stored.  Raises PropertyTypeError or PropertyValueError."""
        return self.type.check(self.name, value)

    def default_for(self, role: Role | None) -> Any:
        """The default in *role*, where it does not follow other properties."""
        if self.by_role and role is not None:
            return self.by_role.get(role, self.default)
        return self.default

    def must_be_settable(self, place: Place) -> None:
        """Raise PropertyReadOnlyError or PropertyMomentError if it cannot be set at *place*."""
        places = self.group.places
        if place in places:
            return
        if not places:
            raise PropertyReadOnlyError(
                f"{self.name} is a {self.group.value}: it is read, not set", self.name
            )
        right = " or ".join(sorted(found.value for found in places))
        raise PropertyMomentError(
            f"{self.name} is a {self.group.value}: it is set on {right}", self.name
        )


def _certain(name: str) -> Callable[[Get], bool]:
    """Whether the Selection Property *name* is sure to be had: what a Connection says of its
    stack; before there is one, whether it is required."""

    def derive(get: Get) -> bool:
        value = get(name)
        return value is REQUIRE or value is True

    return derive


_S, _C, _R, _M, _X = Group
_INTERFACE = PreferenceSet((str, InterfaceType), "an interface's name (str) or an InterfaceType")
_PVD = PreferenceSet((str, int), "a Provisioning Domain's name (str) or number (int)")
_PROFILE = Enumeration(CapacityProfile)

TABLE: tuple[Property, ...] = (
    # -- Selection Properties (section 6.2) --
    Property(
        "P-01", "reliability", "6.2.1", _S, PREFERENCE, REQUIRE,
        "all data arrives, once, without loss; the peer's close or abort is noticed",
    ),
    Property(
        "P-02", "preserveMsgBoundaries", "6.2.2", _S, PREFERENCE, NO_PREFERENCE,
        "the transport itself, without a framer, keeps the boundaries of Messages",
    ),
    Property(
        "P-03", "perMsgReliability", "6.2.3", _S, PREFERENCE, NO_PREFERENCE,
        "reliability can be chosen for each Message",
        aliases=("per-message-reliability",),
    ),
    Property(
        "P-04", "preserveOrder", "6.2.4", _S, PREFERENCE, REQUIRE,
        "data arrives in the order in which it was sent",
    ),
    Property(
        "P-05", "zeroRttMsg", "6.2.5", _S, PREFERENCE, NO_PREFERENCE,
        "a first Message travels with the establishment, and may arrive more than once",
    ),
    Property(
        "P-06", "multistreaming", "6.2.6", _S, PREFERENCE, PREFER,
        "the Connections of a group are streams of one transport connection",
    ),
    Property(
        "P-07", "fullChecksumSend", "6.2.7", _S, PREFERENCE, REQUIRE,
        "all that is sent is protected against corruption",
        opposites=("per-msg-checksum-len-send",),
    ),
    Property(
        "P-08", "fullChecksumRecv", "6.2.8", _S, PREFERENCE, REQUIRE,
        "all that is received was protected against corruption",
        opposites=("per-msg-checksum-len-recv",),
    ),
    Property(
        "P-09", "congestionControl", "6.2.9", _S, PREFERENCE, REQUIRE,
        "the Connection is congestion controlled; if not, the application must be careful itself",
    ),
    Property(
        "P-10", "keepAlive", "6.2.10", _S, PREFERENCE, NO_PREFERENCE,
        "the stack sends keep-alives on an idle Connection; the application then sends none",
    ),
    Property(
        "P-11", "interface", "6.2.11", _S, _INTERFACE, frozenset(),
        "which network interfaces, or types of them, to use or to keep from",
    ),
    Property(
        "P-12", "pvd", "6.2.12", _S, _PVD, frozenset(),
        "which Provisioning Domains to use or to keep from",
    ),
    Property(
        "P-13", "useTemporaryLocalAddress", "6.2.13", _S, PREFERENCE, PREFER,
        "the local address is a temporary one (RFC 8981), which tells less about us",
        aliases=("local-address-preference",),
        by_role={Role.LISTEN: AVOID, Role.RENDEZVOUS: AVOID},
    ),
    Property(
        "P-14", "multipath", "6.2.14", _S, Enumeration(MultipathMode), MultipathMode.DISABLED,
        "whether several paths may be used: not at all, at our asking, or at the peer's",
        by_role={Role.LISTEN: MultipathMode.PASSIVE},
    ),
    Property(
        "P-15", "advertisesAltaddr", "6.2.15", _S, BOOLEAN, False,
        "our other addresses are told to the peer, so that it can open paths to them",
    ),
    Property(
        "P-16", "direction", "6.2.16", _S, Enumeration(Direction), BIDIRECTIONAL,
        "which way data goes",
    ),
    Property(
        "P-17", "softErrorNotify", "6.2.17", _S, PREFERENCE, NO_PREFERENCE,
        "ICMP errors that are not fatal are reported as SoftError events",
    ),
    Property(
        "P-18", "activeReadBeforeSend", "6.2.18", _S, PREFERENCE, NO_PREFERENCE,
        "the side that initiates reads first; ignored for Rendezvous",
    ),
    # -- Connection Properties (section 8.1) --
    Property(
        "P-19", "recvChecksumLen", "8.1.1", _C, integer(0, FULL_COVERAGE), FULL_COVERAGE,
        "how much of a received Message a checksum must cover; with less it is not delivered",
        unit="bytes",
    ),
    Property(
        "P-20", "connPriority", "8.1.2", _C, integer(0), 100,
        "rank among the Connections of the same group: lower goes first",
        aliases=("conn-prio",), alone=True,
    ),
    Property(
        "P-21", "connTimeout", "8.1.3", _C, numeric(DISABLED), DISABLED,
        "how long data of a reliable Connection may stay undelivered before it is given up",
        unit="seconds",
    ),
    Property(
        "P-22", "keepAliveTimeout", "8.1.4", _C, numeric(DISABLED), DISABLED,
        "the longest silence before a keep-alive is sent; above connTimeout, or set to Disabled: "
        "none are sent; not set: the system's time",
        unit="seconds",
    ),
    Property(
        "P-23", "connScheduler", "8.1.5", _C, Enumeration(Scheduler),
        Scheduler.WEIGHTED_FAIR_QUEUEING,
        "how the Connections of a group share its capacity",
    ),
    Property(
        "P-24", "connCapacityProfile", "8.1.6", _C, _PROFILE, CapacityProfile.DEFAULT,
        "the treatment that is wanted from the network",
    ),
    Property(
        "P-25", "multipathPolicy", "8.1.7", _C, Enumeration(MultipathPolicy), HANDOVER,
        "how paths are used; of no effect while multipath is Disabled",
    ),
    Property(
        "P-26", "minSendRate", "8.1.8", _C, numeric(UNLIMITED), UNLIMITED,
        "slower than this, sending is of no use to the application",
        unit="bit/s",
    ),
    Property(
        "P-27", "minRecvRate", "8.1.8", _C, numeric(UNLIMITED), UNLIMITED,
        "slower than this, receiving is of no use to the application",
        unit="bit/s",
    ),
    Property(
        "P-28", "maxSendRate", "8.1.8", _C, numeric(UNLIMITED), UNLIMITED,
        "the most that is sent in any second, headers not counted",
        unit="bit/s",
    ),
    Property(
        "P-29", "maxRecvRate", "8.1.8", _C, numeric(UNLIMITED), UNLIMITED,
        "the most that is received in any second, headers not counted",
        unit="bit/s",
    ),
    Property(
        "P-30", "groupConnLimit", "8.1.9", _C, numeric(UNLIMITED), UNLIMITED,
        "how many Connections the peer may add to the group",
        unit="Connections",
    ),
    Property(
        "P-31", "isolateSession", "8.1.10", _C, BOOLEAN, False,
        "no state (tickets, cookies) from outside the group is used, and none leaves it",
    ),
    # -- read-only Connection Properties (section 8.1.11) --
    Property(
        "P-32", "connState", "8.1.11.1", _R, Enumeration(ConnectionState), ESTABLISHING,
        "the state of the Connection",
        aliases=("state",),
    ),
    Property(
        "P-33", "canSend", "8.1.11.2", _R, BOOLEAN, True,
        "false if direction is Unidirectional receive, or a final Message was sent",
        aliases=("send",),
    ),
    Property(
        "P-34", "canReceive", "8.1.11.3", _R, BOOLEAN, True,
        "false if direction is Unidirectional send, or a final Message was received",
        aliases=("receive",),
    ),
    Property(
        "P-35", "singularTransmissionMsgMaxLen", "8.1.11.4", _R, integer(0, NOT_APPLICABLE),
        NOT_APPLICABLE,
        "the longest Message that travels in one packet",
        unit="bytes",
    ),
    Property(
        "P-36", "sendMsgMaxLen", "8.1.11.5", _R, integer(0, NOT_APPLICABLE), NOT_APPLICABLE,
        "the longest Message that can be sent; 0 if none can",
        unit="bytes",
    ),
    Property(
        "P-37", "recvMsgMaxLen", "8.1.11.6", _R, integer(0, NOT_APPLICABLE), NOT_APPLICABLE,
        "the longest Message that can be received; 0 if none can",
        unit="bytes",
    ),
    # -- TCP's own (section 8.2, after RFC 5482) --
    Property(
        "P-38", "tcp.userTimeoutValue", "8.2.1", _C, integer(1), 300,
        "the time-out that is advertised to the peer; the default is RFC 793's five minutes",
        unit="seconds",
    ),
    Property(
        "P-39", "tcp.userTimeoutEnabled", "8.2.2", _C, BOOLEAN, False,
        "whether the TCP User Timeout Option is sent, and obeyed",
        aliases=("tcp.user-timeout",),
    ),
    Property(
        "P-40", "tcp.userTimeoutChangeable", "8.2.3", _C, BOOLEAN, True,
        "whether the peer's option may change connTimeout",
        aliases=("tcp.user-timeout-recv",),
        derive=lambda get: get("connTimeout") is DISABLED,
        derived="false once connTimeout is used",
    ),
    # -- Message Properties (section 9.1.3) --
    Property(
        "P-41", "msgLifetime", "9.1.3.1", _M, numeric(INFINITE), INFINITE,
        "how long the Message may wait to be sent; afterwards it is dropped and Expired",
        unit="seconds",
    ),
    Property(
        "P-42", "msgPriority", "9.1.3.2", _M, integer(0), 100,
        "rank among the Messages of the same Connection: lower goes first",
        aliases=("msg-prio",),
    ),
    Property(
        "P-43", "msgOrdered", "9.1.3.3", _M, BOOLEAN, True,
        "delivered in the order of the Send calls, among all such Messages",
        derive=_certain("preserveOrder"), derived="what preserveOrder reads as",
    ),
    Property(
        "P-44", "safelyReplayable", "9.1.3.4", _M, BOOLEAN, False,
        "it does no harm if the peer gets the Message more than once; must be true as a default "
        "for stacks that do not protect against duplicates (UDP)",
        aliases=("idempotent",),
    ),
    Property(
        "P-45", "final", "9.1.3.5", _M, BOOLEAN, False,
        "the last Message that we send: goes behind all others, and ends our direction",
    ),
    Property(
        "P-46", "msgChecksumLen", "9.1.3.6", _M, integer(0, FULL_COVERAGE), FULL_COVERAGE,
        "how many of the Message's first bytes must arrive undamaged",
        unit="bytes",
    ),
    Property(
        "P-47", "msgReliable", "9.1.3.7", _M, BOOLEAN, True,
        "all bytes of the Message must arrive; needs perMsgReliability to differ from the default",
        derive=_certain("reliability"), derived="what reliability reads as",
    ),
    Property(
        "P-48", "msgCapacityProfile", "9.1.3.8", _M, _PROFILE, CapacityProfile.DEFAULT,
        "the treatment that is wanted for this Message",
        derive=lambda get: get("connCapacityProfile"), derived="connCapacityProfile",
    ),
    Property(
        "P-49", "noFragmentation", "9.1.3.9", _M, BOOLEAN, False,
        "no fragmentation by the network layer: what does not fit is segmented or refused",
    ),
    Property(
        "P-50", "noSegmentation", "9.1.3.10", _M, BOOLEAN, False,
        "neither segmentation by the transport nor fragmentation: what does not fit is refused",
        aliases=("singular-transmission",),
    ),
    # -- read from a received Message's context (section 9.3.3); the RFC gives no names --
    Property(
        "P-51", "_greentaps.ecn", "9.3.3.1", _X, integer(0, NOT_APPLICABLE, 3), NOT_APPLICABLE,
        "the ECN field that the Message came with, where the stack tells",
        aliases=("ecn",),
    ),
    Property(
        "P-52", "_greentaps.earlyData", "9.3.3.2", _X, BOOLEAN, False,
        "the Message came as early data, which an attacker may have replayed",
        aliases=("early-data",),
    ),
    Property(
        "P-53", "_greentaps.finalMessage", "9.3.3.3", _X, BOOLEAN, False,
        "the last Message of the Connection; peers need not mark it",
        aliases=("receiving-final-messages",),
    ),
)  # fmt: skip

# What RFC 9622 has not: one of our own, for what it has and gives no way to ask for (section
# 9.3.3.1); and what older systems have, which is accepted and read back, and of no use to a stack.
BEYOND: tuple[Property, ...] = (
    Property(
        "", "_greentaps.receiveEcn", "", _S, BOOLEAN, False,
        "the ECN field of each received datagram is told, which makes receiving slower",
    ),
    Property(
        "", "_greentaps.retransmitNotify", "", _S, PREFERENCE, NO_PREFERENCE,
        "excessive retransmissions are reported; RFC 9622 has softErrorNotify instead",
        aliases=("retransmit-notify",),
    ),
    Property(
        "", "_greentaps.retransmitNotifyThreshold", "", _C, integer(0, DISABLED), DISABLED,
        "after how many retransmissions that happens",
        aliases=("retransmit-notify-threshold",),
    ),
    Property(
        "", "_greentaps.zeroRttMsgMaxLen", "", _R, integer(0, NOT_APPLICABLE), NOT_APPLICABLE,
        "the longest Message that can travel with the establishment",
        aliases=("zero-rtt-msg-max-len",), unit="bytes",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Combined:
    """An older name whose value is several properties: a dict of *keys*, or a tuple if there are
    none.  A dict may leave some out."""

    name: str
    members: tuple[str, ...]
    keys: tuple[str, ...] = ()

    def split(self, value: Any) -> list[tuple[Property, Any]]:
        """The members' rows and checked values.  Raises PropertyError."""
        if self.keys:
            if not isinstance(value, Mapping):
                raise PropertyTypeError(
                    f"{self.name} is a dict with keys among {', '.join(self.keys)}, not {value!r}",
                    self.name,
                )
            found = []
            for key, one in value.items():
                row = find_property(key)
                if row.name not in self.members:
                    raise PropertyValueError(
                        f"in {self.name} stand {', '.join(self.keys)}, not {key!r}", self.name
                    )
                found.append((row, row.check(one)))
            return found
        if not isinstance(value, (tuple, list)) or len(value) != len(self.members):
            raise PropertyTypeError(
                f"{self.name} is a tuple of {' and '.join(self.members)}, not {value!r}", self.name
            )
        rows = [find_property(name) for name in self.members]
        return [(row, row.check(one)) for row, one in zip(rows, value, strict=True)]

    def join(self, get: Get) -> Any:
        """The value under the older name."""
        values = tuple(get(name) for name in self.members)
        return dict(zip(self.keys, values, strict=True)) if self.keys else values


COMBINED: tuple[Combined, ...] = (
    Combined(
        "tcp-uto",
        ("tcp.userTimeoutValue", "tcp.userTimeoutEnabled", "tcp.userTimeoutChangeable"),
        ("tcp.user-timeout-value", "tcp.user-timeout", "tcp.user-timeout-recv"),
    ),
    Combined("max-send-rate / max-recv-rate", ("maxSendRate", "maxRecvRate")),
)


# -- names --

_PART = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_ ]+[A-Za-z0-9]+)*")
_NAMESPACE = re.compile(r"_?[A-Za-z][A-Za-z0-9_-]*")

_rows: dict[str, Property] = {}  # by the RFC's spelling
_preferences: list[str] = []  # the Selection Properties that are Preferences
_exact: dict[str, tuple[Property, bool]] = {}  # by each spelling in the table
_folded: dict[str, tuple[Property, bool]] = {}  # by each name in its folded form
_combined = {fold(one.name): one for one in COMBINED}


def _fold_name(name: str) -> str | None:
    """The form in which names are compared, or None if *name* is not formed like one."""
    namespace, dot, part = name.rpartition(".")
    if not _PART.fullmatch(part) or (dot and not _NAMESPACE.fullmatch(namespace)):
        return None
    return f"{namespace.lower()}.{fold(part)}" if dot else fold(part)


def _add(row: Property) -> None:
    _rows[row.name] = row
    if row.is_preference and row.group is Group.SELECTION:
        _preferences.append(row.name)
    for spelling in (row.name, *row.aliases, *row.opposites):
        entry = (row, spelling in row.opposites)
        folded = _fold_name(spelling)
        assert folded is not None
        _folded[folded] = entry
        for written in _written(spelling):
            _exact[written] = entry


def _written(spelling: str) -> tuple[str, str, str]:
    """The usual ways to write a name, which are then found without folding."""
    namespace, dot, part = spelling.rpartition(".")
    kebab = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", part).lower()
    return spelling, f"{namespace}{dot}{kebab}", f"{namespace}{dot}{kebab.replace('-', '_')}"


for _row in (*TABLE, *BEYOND):
    _add(_row)


def all_properties() -> tuple[Property, ...]:
    """Every row: the RFC's, those of older systems, and those that were registered."""
    return tuple(_rows.values())


def selection_preferences() -> tuple[str, ...]:
    """The names of all Selection Properties that are Preferences."""
    return tuple(_preferences)


def locate(name: str) -> tuple[Property, bool]:
    """The row of *name*, and whether the name means its opposite.  Raises PropertyError."""
    try:
        return _exact[name]
    except (KeyError, TypeError):
        pass
    if not isinstance(name, str):
        raise PropertyTypeError(f"the name of a property is a str, not {name!r}", name)
    entry = _folded.get(_fold_name(name) or "")
    if entry is None:
        raise UnknownPropertyError(_unknown(name), name)
    return entry


def find_property(name: str) -> Property:
    """The row of the property called *name* (str), in any spelling (RFC 9622 section 4.1).

    Raises UnknownPropertyError, which lists the names that there are, or PropertyTypeError.
    """
    return locate(name)[0]


def combined(name: Any) -> Combined | None:
    """The combination called *name*, if it is one."""
    return _combined.get(fold(name)) if isinstance(name, str) else None


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _exact, n=1)
    hint = ""
    if near:
        row, opposite = _exact[near[0]]
        hint = f" (did you mean {near[0] if opposite else row.name}?)"
    return f"no property is called {name!r}{hint}; there are {', '.join(_rows)}"


def assignments(name: str, value: Any) -> list[tuple[Property, Any]]:
    """What setting *name* to *value* means: rows, and values as they are stored.

    It is one row but for the names in `COMBINED`.  Raises PropertyError.
    """
    try:
        row, opposite = locate(name)
    except UnknownPropertyError:
        group = combined(name)
        if group is None:
            raise
        return group.split(value)
    checked = row.check(value)
    return [(row, checked.opposite if opposite else checked)]


# -- properties of one's own --

_KEYWORDS = """
    3pc a/n ah aggfrag argus aris ax.25 bbn-rcc-mon bit-emu bna br-sat-mon cbt cftp chaos
    compaq-peer cphb cpnx crtp crudp dccp dcn-meas ddp ddx dgp dsr egp eigrp emcon encap esp
    etherip ethernet fc fire ggp gmtp gre hip hmp homa hopopt i-nlsp iatp icmp idpr idpr-cmtp
    idrp ifmp igmp igp il ipcomp ipcv ipip iplt ippc iptm ipv4 ipv6 ipv6-frag ipv6-icmp
    ipv6-nonxt ipv6-opts ipv6-route ipx-in-ip irtp isis iso-ip iso-tp4 kryptolan l2tp larp
    leaf-1 leaf-2 manet merit-inp mfe-nsp micp min-ipv4 mobile mobility-header mpls-in-ip mtp
    mux narp netblt nsfnet-igp nsh nvp-ii ospfigp pgm pim pipe pnni prm ptp pup pvp qnx rdp rohc
    rsvp rsvp-e2e-ignore rvd sat-expak sat-mon scc-sp scps sctp sdrp secure-vmtp shim6 skip sm
    smp snp sprite-rpc sps srp sscopmce st stp sun-nd swipe tcf tcp tlsp tp++ trunk-1 trunk-2
    ttp udp udplite uti vines visa vmtp vrrp wb-expak wb-mon wesp wsn xnet xns-idp xtp
"""
RESERVED_KEYWORDS = frozenset(_KEYWORDS.split())
"""The keywords of IANA's registry of Protocol Numbers, in lower case."""

_FOLDED_KEYWORDS = {fold(keyword) for keyword in RESERVED_KEYWORDS}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def reserved_words(name: str) -> list[str]:
    """The keywords of IANA's registry among the words of *name*.

    Words are what camelCase, dots, hyphens and underscores part: ``_x.tcpFoo`` has tcp, while
    ``_greentaps.x`` has no gre.
    """
    return [word for word in map(str.lower, _WORD.findall(name)) if word in _FOLDED_KEYWORDS]


def register_property(
    name: str,
    type: ValueType,  # noqa: A002 - as the field is called
    default: Any,
    about: str = "",
    *,
    group: Group = Group.CONNECTION,
    unit: str = "",
    aliases: tuple[str, ...] = (),
    alone: bool = False,
) -> Property:
    """Add a property of one's own, and return its row (RFC 9622 section 4.1).

    *name* (str) is ``_vendor.name``: the namespace begins with ``_`` and names the vendor or the
    program.  *type* is `BOOLEAN`, `PREFERENCE`, ``integer(...)``, ``numeric(...)`` or another
    ValueType, *default* a value of it, *about* (str) one line for people, *group* the class of
    property, *unit* (str) what numbers count, *alone* whether it stays out of a Connection
    Group's shared properties.  *aliases* are names formed by the same rules.

    Raises PropertyNameError for a name without such a namespace, for one whose namespace is a
    keyword of IANA's registry of Protocol Numbers, and for one that is taken; warns with
    PropertyNameWarning of such a keyword elsewhere in the name.
    """
    for spelling in (name, *aliases):
        _must_be_vendors(spelling)
    row = Property(
        "", name, "", group, type, default, about, aliases=aliases, unit=unit, alone=alone
    )
    checked = row.check(default)
    row = Property(
        "", name, "", group, type, checked, about, aliases=aliases, unit=unit, alone=alone
    )
    for spelling in (name, *aliases):
        words = reserved_words(spelling)
        if words:
            warnings.warn(
                f"{spelling} contains {', '.join(words)}, which IANA's registry of Protocol "
                f"Numbers has as a keyword (RFC 9622 section 4.1)",
                PropertyNameWarning,
                stacklevel=2,
            )
    _add(row)
    return row


def unregister_property(name: str) -> None:
    """Take back a `register_property`.  Raises UnknownPropertyError, or PropertyNameError for a
    property that was not registered."""
    row = find_property(name)
    if row in TABLE or row in BEYOND:
        raise PropertyNameError(f"{row.name} is not a registered property", name)
    del _rows[row.name]
    if row.name in _preferences:
        _preferences.remove(row.name)
    for spelling in (row.name, *row.aliases):
        for written in _written(spelling):
            _exact.pop(written, None)
        _folded.pop(_fold_name(spelling) or "", None)


def _must_be_vendors(name: str) -> None:
    folded = _fold_name(name) if isinstance(name, str) else None
    if folded is None:
        raise PropertyNameError(f"a property's name has the form _vendor.name, not {name!r}", name)
    namespace = name.rpartition(".")[0]
    if not namespace.startswith("_"):
        raise PropertyNameError(
            f"the namespace of a property of one's own begins with _, unlike that of {name!r}: "
            f"others are the IETF's (RFC 9622 section 4.1)",
            name,
        )
    if fold(namespace) in _FOLDED_KEYWORDS:
        raise PropertyNameError(
            f"{namespace} is a keyword of IANA's registry of Protocol Numbers, and so not a "
            f"vendor's namespace (RFC 9622 section 4.1)",
            name,
        )
    if folded in _folded:
        raise PropertyNameError(f"{name!r} is taken by {_folded[folded][0].name}", name)
