"""From Endpoints to socket addresses (RFC 9623 section 4.2.1).

Resolution happens when a Connection or a Listener is made and not before.  What a name server
can make us try is bounded here.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from ..errors import EstablishmentError, Reason, ResolutionError, TransportError
from ..hub import Deadline
from ..transports.handles import resolve_stream
from .candidates import interleave
from .endpoint import Endpoint

__all__ = ["MAX_ADDRESSES", "resolve_local", "resolve_remote"]

# How many addresses of one name are used (RFC 9623 section 12.2 asks for a bound).
MAX_ADDRESSES = 64


def resolve_remote(
    endpoints: Iterable[Endpoint], deadline: Deadline
) -> list[tuple[Any, str | None]]:
    """The (socket address, host name) pairs of all Remote Endpoints, families alternating.

    An Endpoint that cannot be resolved is left out if another one can.  A switchpoint.  Raises
    EstablishmentError.
    """
    found: list[tuple[Any, str | None]] = []
    failures: list[tuple[Endpoint, BaseException]] = []
    for endpoint in endpoints:
        if endpoint.hostname is None and endpoint.ip_address is None:
            raise EstablishmentError(
                f"a Remote Endpoint needs a host name or an address: {endpoint!r}",
                Reason.INVALID_CONFIGURATION,
            )
        if endpoint.port is None and endpoint.service is None:
            raise EstablishmentError(
                f"a Remote Endpoint needs a port or a service: {endpoint!r}",
                Reason.INVALID_CONFIGURATION,
            )
        try:
            names = _resolve(endpoint, 0, deadline)
        except TransportError as error:
            failures.append((endpoint, error))
            continue
        found += [(name, endpoint.hostname) for name in interleave(names)[:MAX_ADDRESSES]]
    if not found:
        raise _unresolved("Remote", failures)
    return found


def resolve_local(endpoints: Iterable[Endpoint], deadline: Deadline, *, passive: bool) -> list[Any]:
    """The socket addresses of all Local Endpoints.  With *passive* they are for listening: an
    Endpoint without a host or address means every address of the machine.  A switchpoint.
    Raises EstablishmentError."""
    found: list[Any] = []
    for endpoint in endpoints:
        if not passive and endpoint.hostname is None and endpoint.ip_address is None:
            raise EstablishmentError(
                f"a Local Endpoint needs an address to initiate from: {endpoint!r}",
                Reason.INVALID_CONFIGURATION,
            )
        try:
            names = _resolve(endpoint, socket.AI_PASSIVE if passive else 0, deadline)
        except TransportError as error:
            raise _unresolved("Local", [(endpoint, error)]) from error
        found += [name for name in names[:MAX_ADDRESSES] if name not in found]
    return found


def _resolve(endpoint: Endpoint, flags: int, deadline: Deadline) -> list[Any]:
    host = endpoint.ip_address or endpoint.hostname
    port: int | str = endpoint.port if endpoint.port is not None else endpoint.service or 0
    return resolve_stream((host, port), 0, flags, deadline)


def _unresolved(which: str, failures: list[tuple[Endpoint, BaseException]]) -> EstablishmentError:
    unresolved = all(isinstance(error, ResolutionError) for _, error in failures)
    return EstablishmentError(
        f"no {which} Endpoint could be resolved",
        Reason.RESOLUTION_FAILED if unresolved else Reason.TIMEOUT,
        failures,
    )
