"""Transport services in blocking style: say what a connection must do, and get one.

The levels, each of which imports only from those before it::

    errors <- hub <- engines <- transports, protocols <- endpoints
           <- framers, plugins <- taps <- cli
"""

from ._version import __version__
from .endpoints import Client, Endpoint, Server, create_connection, create_server
from .errors import (
    CertificateError,
    CloneError,
    ConnectionError,  # noqa: A004 - RFC 9622's own name
    EstablishmentError,
    Expired,
    GreentapsError,
    ProtocolError,
    Reason,
    ReceiveError,
    ResolutionError,
    SendError,
    SwitchpointError,
    TapsError,
    Timeout,
    TlsError,
    TransportError,
)
from .framers import Framer
from .framers.length import LengthPrefixFramer
from .hub import get_loop, switchpoint
from .protocols import BaseProtocol, DatagramProtocol, MessageProtocol, Protocol
from .taps import (
    Connection,
    ConnectionState,
    Listener,
    LocalEndpoint,
    Message,
    MessageContext,
    Preconnection,
    Preference,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from .transports import (
    BaseTransport,
    DatagramTransport,
    SslTransport,
    Transport,
    create_default_context,
)

__all__ = [
    "BaseProtocol",
    "BaseTransport",
    "CertificateError",
    "Client",
    "CloneError",
    "Connection",
    "ConnectionError",
    "ConnectionState",
    "DatagramProtocol",
    "DatagramTransport",
    "Endpoint",
    "EstablishmentError",
    "Expired",
    "Framer",
    "GreentapsError",
    "LengthPrefixFramer",
    "Listener",
    "LocalEndpoint",
    "Message",
    "MessageContext",
    "MessageProtocol",
    "Preconnection",
    "Preference",
    "Protocol",
    "ProtocolError",
    "Reason",
    "ReceiveError",
    "RemoteEndpoint",
    "ResolutionError",
    "SecurityParameters",
    "SendError",
    "Server",
    "SslTransport",
    "SwitchpointError",
    "TapsError",
    "Timeout",
    "TlsError",
    "Transport",
    "TransportError",
    "TransportProperties",
    "__version__",
    "create_connection",
    "create_default_context",
    "create_server",
    "get_loop",
    "switchpoint",
]
