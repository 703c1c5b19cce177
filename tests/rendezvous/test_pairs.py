"""Rendezvous of two Preconnections of ours on loopback, over each stack."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from greentaps import Connection, LocalEndpoint, Preconnection, RemoteEndpoint, TransportProperties
from taps.helpers import HERE, free_port, local, remote

KINDS = ("udp", "tcp")


def properties(kind: str) -> TransportProperties:
    return TransportProperties("unreliable-datagram") if kind == "udp" else TransportProperties()


def ends(kind: str, **arguments: Any) -> tuple[Preconnection, Preconnection]:
    """Two Preconnections, each of which was told the other's address."""
    ports = (free_port(), free_port())
    made = [
        Preconnection(local(ours), remote(theirs), properties(kind), **arguments)
        for ours, theirs in (ports, ports[::-1])
    ]
    return made[0], made[1]


def both(one: Preconnection, other: Preconnection) -> tuple[Connection, Connection]:
    """Have both make their rendezvous."""
    runs = [gevent.spawn(each.rendezvous, 15) for each in (one, other)]
    return runs[0].get(), runs[1].get()


def talk(one: Connection, other: Connection) -> None:
    """A Message each way."""
    for sender, receiver, data in ((one, other, b"there"), (other, one, b"and back")):
        sender.send(data)
        message = receiver.receive(min_incomplete_length=1, timeout=10)
        assert message is not None
        assert message.data == data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.rfc("R-02", "RZ-01")
def test_two_host_candidates(kind: str) -> None:
    one, other = ends(kind)
    with_one, with_other = both(one, other)
    with with_one, with_other:
        assert with_one.stack == with_other.stack == kind
        talk(with_one, with_other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.rfc("PC-06", "RZ-10")
def test_what_is_resolved_is_told_and_used(kind: str) -> None:
    pair = [
        Preconnection(LocalEndpoint().with_ip_address(HERE), None, properties(kind)) for _ in "ab"
    ]
    resolved = []
    for each in pair:
        locals_, remotes = each.resolve(timeout=5)
        assert remotes == []
        assert [(end.ip_address, end.candidate_type) for end in locals_] == [(HERE, "host")]
        resolved.append([end.to_text() for end in locals_])
    for each, lines in zip(pair, resolved[::-1], strict=True):
        each.add_remote([RemoteEndpoint.from_text(line) for line in lines])
    one, other = both(*pair)
    with one, other:
        assert [one.local_endpoint.port] == [int(line.split()[5]) for line in resolved[0]]
        talk(one, other)
