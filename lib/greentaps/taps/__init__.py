"""The nouns of RFC 9622, one in each file."""

from .connection import Connection
from .endpoint import LocalEndpoint, RemoteEndpoint
from .listener import Listener
from .message import Message, MessageContext
from .preconnection import Preconnection
from .properties import ConnectionState, Preference, TransportProperties
from .security import SecurityParameters

__all__ = [
    "Connection",
    "ConnectionState",
    "Listener",
    "LocalEndpoint",
    "Message",
    "MessageContext",
    "Preconnection",
    "Preference",
    "RemoteEndpoint",
    "SecurityParameters",
    "TransportProperties",
]
