"""Two hosts on one cable: link-local addresses, several interfaces of which one is dead, and what
is seen of all this on the wire."""

from __future__ import annotations

import pytest
from greentaps import LocalEndpoint, Preconnection, RemoteEndpoint, TransportProperties
from netns import networks

pytestmark = [pytest.mark.netns]
PORT = 7000


def end(kind: type, text: str, port: int = PORT) -> LocalEndpoint | RemoteEndpoint:
    return kind().with_ip_address(text).with_port(port)


def meet(kind: str, ours: list[str], theirs: list[str]) -> list[str]:
    """On a host: a rendezvous, a Message each way; the ends, and what came."""
    preconnection = Preconnection(
        [end(LocalEndpoint, text) for text in ours],
        [end(RemoteEndpoint, text) for text in theirs],
        TransportProperties("unreliable-datagram") if kind == "udp" else None,
    )
    with preconnection.rendezvous(20) as connection:
        connection.send(b"hello")
        message = connection.receive(min_incomplete_length=1, timeout=10)
        return [
            connection.local_endpoint.ip_address,
            connection.remote_endpoint.ip_address,
            bytes(message.data).decode(),
        ]


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_link_local_addresses(kind: str) -> None:
    with networks() as world:
        one, other = world.host("one"), world.host("other")
        world.cable(one, other, "fe80::1/64", "fe80::2/64")
        ours, theirs = ("fe80::1%to-other", "fe80::2%to-one")
        tasks = [
            one.start(meet, kind, [ours], ["fe80::2%to-other"]),
            other.start(meet, kind, [theirs], ["fe80::1%to-one"]),
        ]
        results = [task.result() for task in tasks]
        assert [result[2] for result in results] == ["hello", "hello"]
        assert results[0][0].startswith("fe80::1")


@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.rfc("R-03", "RZ-06")
def test_the_better_interface_is_dead(kind: str) -> None:
    """Packets over the first cable vanish: the second is found without waiting for that."""
    with networks() as world:
        one, other = world.host("one"), world.host("other")
        for net in ("192.0.2", "198.51.100"):
            names = (f"a{net[:3]}", f"b{net[:3]}")
            world.cable(one, other, f"{net}.1/24", f"{net}.2/24", names=names)
        for host in (one, other):
            host.blackhole("192.0.2.1", "192.0.2.2")
        here, there = ([f"192.0.2.{n}", f"198.51.100.{n}"] for n in (1, 2))
        tasks = [one.start(meet, kind, here, there), other.start(meet, kind, there, here)]
        for task in tasks:
            local, remote, said = task.result()
            assert local.startswith("198.51.100.")
            assert remote.startswith("198.51.100.")
            assert said == "hello"
