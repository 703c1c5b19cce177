"""The nouns of RFC 9622, one in each file."""

from .connection import Connection
from .endpoint import LocalEndpoint, RemoteEndpoint
from .explaining import AttemptRecord, Explanation
from .listener import Listener
from .message import Message, MessageContext
from .policy import Branch, RaceMode, SystemPolicy, get_system_policy, set_system_policy
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
