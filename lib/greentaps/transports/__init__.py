"""The transports: one file for each kind of thing below them.

``base.py`` is the contract, to be read first.
"""

from .base import BaseTransport, State, StreamTransport
from .datagram import DatagramTransport
from .memory import MemoryTransport, memory_pair
from .ssl import SslTransport, create_default_context
from .stream import Transport

__all__ = [
    "BaseTransport",
    "DatagramTransport",
    "MemoryTransport",
    "SslTransport",
    "State",
    "StreamTransport",
    "Transport",
    "create_default_context",
    "memory_pair",
]
