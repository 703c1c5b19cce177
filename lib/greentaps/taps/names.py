"""Constants for the names of properties, as the older systems of this family have them.

RFC 9622 section 5 lets constants stand for names.  Each member is a str that every call takes as
a property's name, so ``properties.set(SelectionProperties.RELIABILITY, PreferenceLevel.REQUIRE)``
works.  A member has the text that the older systems gave it, or where they have none, the RFC's.
Every property of the RFC has a member here; `greentaps.taps.properties` knows what they mean.

`ConnectionProperties` is here the enumeration; the object of that name, which a Connection
returns, has the same members as attributes.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

__all__ = [
    "CapacityProfiles",
    "ConnectionProperties",
    "MessageProperties",
    "PreferenceLevel",
    "SelectionProperties",
    "TCPUserTimeout",
]


class SelectionProperties(StrEnum):
    """Names of Selection Properties (RFC 9622 section 6.2)."""

    RELIABILITY = "reliability"
    PRESERVE_MSG_BOUNDARIES = "preserve-msg-boundaries"
    PER_MSG_RELIABILITY = "per-msg-reliability"
    PRESERVE_ORDER = "preserve-order"
    ZERO_RTT_MSG = "zero-rtt-msg"
    MULTISTREAMING = "multistreaming"
    FULL_CHECKSUM_SEND = "fullChecksumSend"
    FULL_CHECKSUM_RECV = "fullChecksumRecv"
    CONGESTION_CONTROL = "congestion-control"
    KEEP_ALIVE = "keepAlive"
    INTERFACE = "interface"
    PVD = "pvd"
    USE_TEMPORARY_LOCAL_ADDRESS = "useTemporaryLocalAddress"
    MULTIPATH = "multipath"
    ADVERTISES_ALTADDR = "advertisesAltaddr"
    DIRECTION = "direction"
    SOFT_ERROR_NOTIFY = "soft-error-notify"
    ACTIVE_READ_BEFORE_SEND = "activeReadBeforeSend"
    # Older names for some of these, and one that the RFC has no more.
    LOCAL_ADDRESS_PREFERENCE = "local-address-preference"
    PER_MSG_CHECKSUM_LEN_SEND = "per-msg-checksum-len-send"
    PER_MSG_CHECKSUM_LEN_RECV = "per-msg-checksum-len-recv"
    RETRANSMIT_NOTIFY = "retransmit-notify"


class ConnectionProperties(StrEnum):
    """Names of Connection Properties (RFC 9622 sections 8.1 and 8.2)."""

    RECV_CHECKSUM_LEN = "recvChecksumLen"
    CONN_PRIORITY = "connPriority"
    CONN_TIMEOUT = "connTimeout"
    KEEP_ALIVE_TIMEOUT = "keepAliveTimeout"
    CONN_SCHEDULER = "connScheduler"
    CONN_CAPACITY_PROFILE = "connCapacityProfile"
    MULTIPATH_POLICY = "multipathPolicy"
    MIN_SEND_RATE = "minSendRate"
    MIN_RECV_RATE = "minRecvRate"
    MAX_SEND_RATE = "maxSendRate"
    MAX_RECV_RATE = "maxRecvRate"
    GROUP_CONN_LIMIT = "groupConnLimit"
    ISOLATE_SESSION = "isolateSession"
    CONN_STATE = "connState"
    CAN_SEND = "canSend"
    CAN_RECEIVE = "canReceive"
    SINGULAR_TRANSMISSION_MSG_MAX_LEN = "singularTransmissionMsgMaxLen"
    SEND_MSG_MAX_LEN = "sendMsgMaxLen"
    RECV_MSG_MAX_LEN = "recvMsgMaxLen"
    TCP_USER_TIMEOUT_VALUE = "tcp.userTimeoutValue"
    TCP_USER_TIMEOUT_ENABLED = "tcp.userTimeoutEnabled"
    TCP_USER_TIMEOUT_CHANGEABLE = "tcp.userTimeoutChangeable"
    # Older names for some of these, and two that the RFC has no more.
    BOUNDS_ON_SEND_OR_RECEIVE_RATE = "max-send-rate / max-recv-rate"
    CAPACITY_PROFILE = "conn-capacity-profile"
    CONNECTION_GROUP_TRANSMISSION_SCHEDULER = "conn-scheduler"
    MAXIMUM_MESSAGE_SIZE_BEFORE_FRAGMENTATION_OR_SEGMENTATION = "singular-transmission-msg-max-len"
    MAXIMUM_MESSAGE_SIZE_CONCURRENT_WITH_CONNECTION_ESTABLISHMENT = "zero-rtt-msg-max-len"
    MAXIMUM_MESSAGE_SIZE_ON_RECEIVE = "recv-msg-max-len"
    MAXIMUM_MESSAGE_SIZE_ON_SEND = "send-msg-max-len"
    PRIORITY = "conn-prio"
    REQUIRED_MINIMUM_CORRUPTION_PROTECTION_COVERAGE_FOR_RECEIVING = "recv-checksum-len"
    RETRANSMISSION_THRESHOLD_BEFORE_EXCESSIVE_RETRANSMISSION_NOTIFICATION = (
        "retransmit-notify-threshold"
    )
    TIMEOUT_FOR_ABORTING_CONNECTION = "conn-timeout"
    USER_TIMEOUT_TCP = "tcp-uto"


class TCPUserTimeout(StrEnum):
    """The keys of the dict that ``tcp-uto`` is set to."""

    ADVERTISED_USER_TIMEOUT = "tcp.user-timeout-value"
    USER_TIMEOUT_ENABLED = "tcp.user-timeout"
    CHANGEABLE = "tcp.user-timeout-recv"


class MessageProperties(StrEnum):
    """Names of Message Properties (RFC 9622 sections 9.1.3 and 9.3.3)."""

    MSG_LIFETIME = "msgLifetime"
    MSG_PRIORITY = "msgPriority"
    MSG_ORDERED = "msgOrdered"
    SAFELY_REPLAYABLE = "safelyReplayable"
    FINAL = "final"
    MSG_CHECKSUM_LEN = "msgChecksumLen"
    MSG_RELIABLE = "msgReliable"
    MSG_CAPACITY_PROFILE = "msgCapacityProfile"
    NO_FRAGMENTATION = "noFragmentation"
    NO_SEGMENTATION = "noSegmentation"
    ECN = "ecn"
    EARLY_DATA = "early-data"
    FINAL_MESSAGE = "_greentaps.finalMessage"
    # Older names for some of these.
    CORRUPTION_PROTECTION_LENGTH = "msg-checksum-len"
    IDEMPOTENT = "idempotent"
    LIFETIME = "msg-lifetime"
    MESSAGE_CAPACITY_PROFILE_OVERRIDE = "msg-capacity-profile"
    ORDERED = "msg-ordered"
    PRIORITY = "msg-prio"
    RECEIVING_FINAL_MESSAGE = "receiving-final-messages"
    RELIABLE_DATA_TRANSFER = "msg-reliable"
    SINGULAR_TRANSMISSION = "singular-transmission"


class PreferenceLevel(IntEnum):
    """The older form of `Preference`, which is taken wherever that is."""

    PROHIBIT = -2
    AVOID = -1
    IGNORE = 0
    NO_PREFERENCE = 0
    PREFER = 1
    REQUIRE = 2


class CapacityProfiles(IntEnum):
    """The older form of `CapacityProfile`, whose values are DSCPs; taken wherever that is."""

    DEFAULT = 0
    SCAVENGER = 1
    CAPACITY_SEEKING = 10
    LOW_LATENCY_NON_INTERACTIVE = 18
    CONSTANT_RATE_STREAMING = 28
    LOW_LATENCY_INTERACTIVE = 36
