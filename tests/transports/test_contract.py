"""Every stream transport keeps the contract, alone and in layers."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import pytest
from conftest import Certificates
from greentaps.testing import check_transport, transport_checks
from transports.helpers import (
    ENGINES,
    OLD_LIBUV,
    PLAIN,
    TLS12,
    memory_pair,
    small_tcp_pair,
    socketpair_pair,
    tls_pair,
)

# What runs TLS: the engines of client and server, what is below, and the highest version.
LOWER = {"memory": memory_pair, "tcp": small_tcp_pair, "pipe": socketpair_pair}
TLS: dict[str, dict[str, Any]] = {
    **{
        f"{client} to {server} over tcp": {"client": client, "server": server, "lower": "tcp"}
        for client, server in product(ENGINES, repeat=2)
    },
    **{
        f"{engine} over {lower}": {"client": engine, "server": engine, "lower": lower}
        for engine, lower in product(ENGINES, ("memory", "pipe"))
    },
    **{
        f"{engine} with TLS 1.2": {
            "client": engine,
            "server": engine,
            "lower": "tcp",
            "highest": TLS12,
        }
        for engine in ENGINES
    },
}


@pytest.mark.parametrize("name", transport_checks())
@pytest.mark.parametrize("kind", ["memory", "tcp", "socketpair"])
def test_plain(kind: str, name: str) -> None:
    check_transport(PLAIN[kind], names=[name])


@pytest.mark.parametrize("kind", ["memory with capacity", "tcp with small buffers", "path"])
def test_more_plain(kind: str) -> None:
    check_transport(PLAIN[kind])


@pytest.mark.parametrize("name", transport_checks())
def test_tls_over_tcp(certificates: Certificates, name: str) -> None:
    check_transport(partial(tls_pair, certificates, lower=small_tcp_pair), names=[name])


@pytest.mark.parametrize("kind", TLS)
def test_tls(certificates: Certificates, kind: str) -> None:
    arguments = {**TLS[kind], "lower": LOWER[TLS[kind]["lower"]]}
    names = set(transport_checks())
    if OLD_LIBUV and "pipe" in kind:
        names.discard("end_before_the_peer_starts")
    check_transport(partial(tls_pair, certificates, **arguments), names=sorted(names))


@pytest.mark.parametrize("engine", ENGINES)
def test_swapped(certificates: Certificates, engine: str) -> None:
    """The server's side of TLS in the part of the first transport."""

    def swapped() -> Any:
        client, server = tls_pair(certificates, engine, engine, lower=small_tcp_pair)
        return server, client

    check_transport(swapped)


def test_tls_in_tls(certificates: Certificates) -> None:
    check_transport(partial(tls_pair, certificates, lower=partial(tls_pair, certificates)))


def test_clear_phase(certificates: Certificates) -> None:
    """An SslTransport before its handshake is a plain transport."""
    check_transport(
        partial(tls_pair, certificates, lower=small_tcp_pair, do_handshake_on_connect=False)
    )
