"""Transport services in blocking style: say what a connection must do, and get one.

The levels, each of which imports only from those before it::

    errors <- hub <- engines, transports, protocols <- endpoints <- plugins <- taps <- cli
"""

from ._version import __version__
from .endpoints import Client, Endpoint, Server, create_connection, create_server
from .errors import *  # noqa: F403
from .hub import get_loop, switchpoint
from .protocols import BaseProtocol, DatagramProtocol, MessageProtocol, Protocol
from .transports import *  # noqa: F403
