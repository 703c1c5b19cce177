"""The table against a second writing-down of RFC 9622: a slip of the pen in one shows here.

Also every name, constant and default that the older systems document.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import Any

import pytest
from greentaps.taps import names
from greentaps.taps.properties import (
    BEYOND,
    DISABLED,
    FULL_COVERAGE,
    NOT_APPLICABLE,
    TABLE,
    UNLIMITED,
    CapacityProfile,
    ConnectionProperties,
    Direction,
    Group,
    Preference,
    Scheduler,
    TransportProperties,
    find_property,
)

# number, name, section, class, type, default as a word
EXPECTED = """
01 reliability                   6.2.1    S Preference  Require
02 preserveMsgBoundaries         6.2.2    S Preference  No Preference
03 perMsgReliability             6.2.3    S Preference  No Preference
04 preserveOrder                 6.2.4    S Preference  Require
05 zeroRttMsg                    6.2.5    S Preference  No Preference
06 multistreaming                6.2.6    S Preference  Prefer
07 fullChecksumSend              6.2.7    S Preference  Require
08 fullChecksumRecv              6.2.8    S Preference  Require
09 congestionControl             6.2.9    S Preference  Require
10 keepAlive                     6.2.10   S Preference  No Preference
11 interface                     6.2.11   S Set         frozenset()
12 pvd                           6.2.12   S Set         frozenset()
13 useTemporaryLocalAddress      6.2.13   S Preference  Prefer
14 multipath                     6.2.14   S Enumeration Disabled
15 advertisesAltaddr             6.2.15   S Boolean     False
16 direction                     6.2.16   S Enumeration Bidirectional
17 softErrorNotify               6.2.17   S Preference  No Preference
18 activeReadBeforeSend          6.2.18   S Preference  No Preference
19 recvChecksumLen               8.1.1    C Integer     Full Coverage
20 connPriority                  8.1.2    C Integer     100
21 connTimeout                   8.1.3    C Numeric     Disabled
22 keepAliveTimeout              8.1.4    C Numeric     Disabled
23 connScheduler                 8.1.5    C Enumeration Weighted Fair Queueing
24 connCapacityProfile           8.1.6    C Enumeration Default
25 multipathPolicy               8.1.7    C Enumeration Handover
26 minSendRate                   8.1.8    C Numeric     Unlimited
27 minRecvRate                   8.1.8    C Numeric     Unlimited
28 maxSendRate                   8.1.8    C Numeric     Unlimited
29 maxRecvRate                   8.1.8    C Numeric     Unlimited
30 groupConnLimit                8.1.9    C Numeric     Unlimited
31 isolateSession                8.1.10   C Boolean     False
32 connState                     8.1.11.1 R Enumeration Establishing
33 canSend                       8.1.11.2 R Boolean     True
34 canReceive                    8.1.11.3 R Boolean     True
35 singularTransmissionMsgMaxLen 8.1.11.4 R Integer     Not applicable
36 sendMsgMaxLen                 8.1.11.5 R Integer     Not applicable
37 recvMsgMaxLen                 8.1.11.6 R Integer     Not applicable
38 tcp.userTimeoutValue          8.2.1    C Integer     300
39 tcp.userTimeoutEnabled        8.2.2    C Boolean     False
40 tcp.userTimeoutChangeable     8.2.3    C Boolean     True
41 msgLifetime                   9.1.3.1  M Numeric     Infinite
42 msgPriority                   9.1.3.2  M Integer     100
43 msgOrdered                    9.1.3.3  M Boolean     True
44 safelyReplayable              9.1.3.4  M Boolean     False
45 final                         9.1.3.5  M Boolean     False
46 msgChecksumLen                9.1.3.6  M Integer     Full Coverage
47 msgReliable                   9.1.3.7  M Boolean     True
48 msgCapacityProfile            9.1.3.8  M Enumeration Default
49 noFragmentation               9.1.3.9  M Boolean     False
50 noSegmentation                9.1.3.10 M Boolean     False
51 _greentaps.ecn                9.3.3.1  X Integer     Not applicable
52 _greentaps.earlyData          9.3.3.2  X Boolean     False
53 _greentaps.finalMessage       9.3.3.3  X Boolean     False
"""
LETTERS = dict(zip("SCRMX", Group, strict=True))
ROWS = [line.split(maxsplit=5) for line in EXPECTED.strip().splitlines()]


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Instead of the check of the same name: nothing here opens anything."""


@pytest.mark.rfc("T-18", "SH-04", "TP-01", "Q-03", "Q-04")
@pytest.mark.parametrize(
    ("number", "name", "section", "letter", "kind", "default"), ROWS, ids=[row[1] for row in ROWS]
)
def test_the_table_is_the_rfcs(
    number: str, name: str, section: str, letter: str, kind: str, default: str
) -> None:
    row = TABLE[int(number) - 1]
    assert (row.id, row.name, row.section) == (f"P-{number}", name, section)
    assert row.group is LETTERS[letter]
    assert row.type.label.split()[0] == kind
    assert str(row.default) == default
    assert row.about
    if row.group is Group.READ_ONLY or row.group is Group.RECEIVED:
        return
    assert TransportProperties().get(name) == row.default


def test_there_are_no_more_and_no_less() -> None:
    assert len(TABLE) == len(ROWS) == 53


def screaming(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|\.", "_", name).upper()


@pytest.mark.rfc("T-19")
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_property_has_a_constant(row: Any) -> None:
    enumeration = {
        Group.SELECTION: names.SelectionProperties,
        Group.CONNECTION: names.ConnectionProperties,
        Group.READ_ONLY: names.ConnectionProperties,
        Group.MESSAGE: names.MessageProperties,
        Group.RECEIVED: names.MessageProperties,
    }[row.group]
    constant = enumeration[screaming(row.name.removeprefix("_greentaps."))]
    assert find_property(constant) is row


# -- what the older systems document --

SELECTION = {
    "CONGESTION_CONTROL": ("congestion-control", "congestionControl"),
    "DIRECTION": ("direction", "direction"),
    "INTERFACE": ("interface", "interface"),
    "LOCAL_ADDRESS_PREFERENCE": ("local-address-preference", "useTemporaryLocalAddress"),
    "MULTIPATH": ("multipath", "multipath"),
    "MULTISTREAMING": ("multistreaming", "multistreaming"),
    "PER_MSG_CHECKSUM_LEN_RECV": ("per-msg-checksum-len-recv", "fullChecksumRecv"),
    "PER_MSG_CHECKSUM_LEN_SEND": ("per-msg-checksum-len-send", "fullChecksumSend"),
    "PER_MSG_RELIABILITY": ("per-msg-reliability", "perMsgReliability"),
    "PRESERVE_MSG_BOUNDARIES": ("preserve-msg-boundaries", "preserveMsgBoundaries"),
    "PRESERVE_ORDER": ("preserve-order", "preserveOrder"),
    "PVD": ("pvd", "pvd"),
    "RELIABILITY": ("reliability", "reliability"),
    "RETRANSMIT_NOTIFY": ("retransmit-notify", "_greentaps.retransmitNotify"),
    "SOFT_ERROR_NOTIFY": ("soft-error-notify", "softErrorNotify"),
    "ZERO_RTT_MSG": ("zero-rtt-msg", "zeroRttMsg"),
}
CONNECTION = {
    "CAPACITY_PROFILE": ("conn-capacity-profile", "connCapacityProfile"),
    "CONNECTION_GROUP_TRANSMISSION_SCHEDULER": ("conn-scheduler", "connScheduler"),
    "MAXIMUM_MESSAGE_SIZE_BEFORE_FRAGMENTATION_OR_SEGMENTATION": (
        "singular-transmission-msg-max-len",
        "singularTransmissionMsgMaxLen",
    ),
    "MAXIMUM_MESSAGE_SIZE_CONCURRENT_WITH_CONNECTION_ESTABLISHMENT": (
        "zero-rtt-msg-max-len",
        "_greentaps.zeroRttMsgMaxLen",
    ),
    "MAXIMUM_MESSAGE_SIZE_ON_RECEIVE": ("recv-msg-max-len", "recvMsgMaxLen"),
    "MAXIMUM_MESSAGE_SIZE_ON_SEND": ("send-msg-max-len", "sendMsgMaxLen"),
    "PRIORITY": ("conn-prio", "connPriority"),
    "REQUIRED_MINIMUM_CORRUPTION_PROTECTION_COVERAGE_FOR_RECEIVING": (
        "recv-checksum-len",
        "recvChecksumLen",
    ),
    "RETRANSMISSION_THRESHOLD_BEFORE_EXCESSIVE_RETRANSMISSION_NOTIFICATION": (
        "retransmit-notify-threshold",
        "_greentaps.retransmitNotifyThreshold",
    ),
    "TIMEOUT_FOR_ABORTING_CONNECTION": ("conn-timeout", "connTimeout"),
}
MESSAGE = {
    "CORRUPTION_PROTECTION_LENGTH": ("msg-checksum-len", "msgChecksumLen"),
    "EARLY_DATA": ("early-data", "_greentaps.earlyData"),
    "ECN": ("ecn", "_greentaps.ecn"),
    "FINAL": ("final", "final"),
    "IDEMPOTENT": ("idempotent", "safelyReplayable"),
    "LIFETIME": ("msg-lifetime", "msgLifetime"),
    "MESSAGE_CAPACITY_PROFILE_OVERRIDE": ("msg-capacity-profile", "msgCapacityProfile"),
    "ORDERED": ("msg-ordered", "msgOrdered"),
    "PRIORITY": ("msg-prio", "msgPriority"),
    "RECEIVING_FINAL_MESSAGE": ("receiving-final-messages", "_greentaps.finalMessage"),
    "RELIABLE_DATA_TRANSFER": ("msg-reliable", "msgReliable"),
    "SINGULAR_TRANSMISSION": ("singular-transmission", "noSegmentation"),
}
TIMEOUTS = {
    "ADVERTISED_USER_TIMEOUT": ("tcp.user-timeout-value", "tcp.userTimeoutValue"),
    "CHANGEABLE": ("tcp.user-timeout-recv", "tcp.userTimeoutChangeable"),
    "USER_TIMEOUT_ENABLED": ("tcp.user-timeout", "tcp.userTimeoutEnabled"),
}


@pytest.mark.parametrize(
    ("enumeration", "constant", "older", "name"),
    [
        (enumeration, constant, *pair)
        for enumeration, table in (
            (names.SelectionProperties, SELECTION),
            (names.ConnectionProperties, CONNECTION),
            (names.MessageProperties, MESSAGE),
            (names.TCPUserTimeout, TIMEOUTS),
        )
        for constant, pair in table.items()
    ],
)
def test_older_constants_and_names(
    enumeration: type[StrEnum], constant: str, older: str, name: str
) -> None:
    member = enumeration[constant]
    assert member.value == older == member
    assert find_property(older).name == find_property(member.value).name == name


@pytest.mark.parametrize(
    ("key", "name"), [("state", "connState"), ("send", "canSend"), ("receive", "canReceive")]
)
def test_older_keys_of_get_properties(key: str, name: str) -> None:
    assert find_property(key).name == name
    properties = ConnectionProperties()
    assert properties[key] == properties.get(name)
    assert properties["props"] is properties


def test_every_alias_is_tested_here() -> None:
    tested = {
        pair[0] for table in (SELECTION, CONNECTION, MESSAGE, TIMEOUTS) for pair in table.values()
    }
    tested |= {"state", "send", "receive", "per-message-reliability"}
    for row in (*TABLE, *BEYOND):
        assert set(row.aliases) | set(row.opposites) <= tested
    assert find_property("per-message-reliability").name == "perMsgReliability"


def test_constants_of_the_connection_are_attributes_of_its_properties() -> None:
    for member in names.ConnectionProperties:
        assert getattr(ConnectionProperties, member.name) is member


@pytest.mark.parametrize(
    ("name", "number"),
    [("AVOID", -1), ("IGNORE", 0), ("PREFER", 1), ("PROHIBIT", -2), ("REQUIRE", 2)],
)
def test_older_preference_levels(name: str, number: int) -> None:
    level = names.PreferenceLevel[name]
    assert level.value == number
    expected = Preference["NO_PREFERENCE" if name == "IGNORE" else name]
    for value in (level, number, name, name.lower()):
        assert TransportProperties().set("keepAlive", value).get("keepAlive") is expected


@pytest.mark.parametrize("profile", names.CapacityProfiles)
def test_older_capacity_profiles(profile: names.CapacityProfiles) -> None:
    set_to = TransportProperties().add(names.ConnectionProperties.CAPACITY_PROFILE, profile)
    found = set_to.get("connCapacityProfile")
    assert found is CapacityProfile[profile.name]
    assert profile.value in found.dscps


def test_older_capacity_profiles_are_the_documented_numbers() -> None:
    assert {member.name: member.value for member in names.CapacityProfiles} == {
        "CAPACITY_SEEKING": 10,
        "CONSTANT_RATE_STREAMING": 28,
        "DEFAULT": 0,
        "LOW_LATENCY_INTERACTIVE": 36,
        "LOW_LATENCY_NON_INTERACTIVE": 18,
        "SCAVENGER": 1,
    }


@pytest.mark.parametrize(
    ("name", "older", "value"),
    [
        ("conn-timeout", -1, DISABLED),
        ("recv-checksum-len", -1, FULL_COVERAGE),
        ("retransmit-notify-threshold", -1, DISABLED),
        ("max-send-rate / max-recv-rate", (-1, -1), (UNLIMITED, UNLIMITED)),
        ("msg-checksum-len", -1, FULL_COVERAGE),
        ("msg-lifetime", math.inf, "Infinite"),
        ("conn-scheduler", "Weighted fair queueing", Scheduler.WEIGHTED_FAIR_QUEUEING),
        ("conn-prio", 100, 100),
        ("tcp-uto", {names.TCPUserTimeout.ADVERTISED_USER_TIMEOUT: 300}, None),
        ("msg-prio", 100, 100),
        ("msg-ordered", True, True),
        ("msg-reliable", True, True),
        ("idempotent", False, False),
        ("final", False, False),
        ("singular-transmission", False, False),
        ("msg-capacity-profile", names.CapacityProfiles.DEFAULT, CapacityProfile.DEFAULT),
    ],
)
def test_older_defaults_are_taken_and_mean_ours(name: str, older: Any, value: Any) -> None:
    properties = TransportProperties().add(name, older)
    default = TransportProperties().get(name)
    assert properties.get(name) == default
    if value is not None:
        assert default == value or str(default) == value


def test_older_read_only_defaults() -> None:
    for name in ("singular-transmission-msg-max-len", "send-msg-max-len", "recv-msg-max-len"):
        assert ConnectionProperties().get(name) is NOT_APPLICABLE
    assert ConnectionProperties().get("zero-rtt-msg-max-len") is NOT_APPLICABLE


@pytest.mark.parametrize(
    ("word", "direction"),
    [
        ("bidirectional", Direction.BIDIRECTIONAL),
        ("Bidirectional", Direction.BIDIRECTIONAL),
        ("unidirection-send", Direction.UNIDIRECTIONAL_SEND),
        ("unidirection-receive", Direction.UNIDIRECTIONAL_RECEIVE),
    ],
)
def test_older_directions(word: str, direction: Direction) -> None:
    assert TransportProperties(direction=word).get("direction") is direction
