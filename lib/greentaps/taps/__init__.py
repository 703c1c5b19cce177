"""The nouns of RFC 9622, one in each file."""

from .choosing.explaining import AttemptRecord, Explanation
from .choosing.policy import Branch, RaceMode, SystemPolicy, get_system_policy, set_system_policy
from .connection import Connection
from .endpoint import LocalEndpoint, RemoteEndpoint
from .listener import Listener
from .message import Message, MessageContext
from .preconnection import Preconnection
from .properties import ConnectionState, Preference, TransportProperties
from .security import SecurityParameters

__all__ = [
    "AttemptRecord",
    "Branch",
    "Connection",
    "ConnectionState",
    "Explanation",
    "Listener",
    "LocalEndpoint",
    "Message",
    "MessageContext",
    "Preconnection",
    "Preference",
    "RaceMode",
    "RemoteEndpoint",
    "SecurityParameters",
    "SystemPolicy",
    "TransportProperties",
    "get_system_policy",
    "set_system_policy",
]
