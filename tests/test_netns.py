"""The networks that other tests stand on do what they say, and leave nothing."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import pytest
from netns import Host, heard, networks, say

pytestmark = pytest.mark.netns


def connects(address: str, port: int, timeout: float = 5) -> str:
    try:
        with socket.create_connection((address, port), timeout):
            return "connected"
    except OSError as error:
        return type(error).__name__


def serves(address: str, port: int, kind: int = socket.SOCK_STREAM) -> list[Any]:
    """One peer, whose address is returned."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as here:
        here.bind((address, port))
        here.settimeout(20)
        if kind == socket.SOCK_STREAM:
            here.listen()
            say("ready")
            with here.accept()[0] as peer:
                return list(peer.getpeername())
        say("ready")
        data, peer_name = here.recvfrom(100)
        here.sendto(data, peer_name)
        return list(peer_name)


def echoes(address: str, port: int) -> float:
    """How long a datagram takes there and back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.settimeout(20)
        begun = time.monotonic()
        here.sendto(b"x", (address, port))
        here.recv(10)
        return time.monotonic() - begun


def fails() -> None:
    raise ValueError("on purpose")


def talks() -> str:
    say({"number": 1})
    return heard()


@pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"])
def test_two_hosts_and_a_cable(address: str) -> None:
    with networks() as world:
        here, there = world.host("here"), world.host("there")
        ends = world.cable(
            here, there, "192.0.2.1/24", "192.0.2.2/24", "2001:db8::1/64", "2001:db8::2/64"
        )
        assert ends == ("to-there", "to-here")
        server = there.start(serves, address, 80)
        server.told()
        counter = there.counter(address)
        assert here.call(connects, address, 80) == "connected"
        assert server.result()[0] in ("192.0.2.1", "2001:db8::1")
        assert here.call(connects, address, 80) == "ConnectionRefusedError"
        assert counter.syns == 2
        there.ip("link set to-here down")
        assert not here.carries("to-there")
    assert not [name for name in os.listdir("/run/netns") if f"-{os.getpid()}-" in name]


def test_a_blackhole() -> None:
    with networks() as world:
        here, there = world.host("here"), world.host("there")
        world.cable(here, there, "192.0.2.1/24", "192.0.2.2/24")
        hole = there.blackhole("192.0.2.2")
        assert here.call(connects, "192.0.2.2", 80, 0.2) == "TimeoutError"
        assert hole.syns == 1
        assert hole.datagrams == 0
        hole.close()
        assert here.call(connects, "192.0.2.2", 80) == "ConnectionRefusedError"


def test_a_line_with_delay_and_loss() -> None:
    with networks() as world:
        here, there = world.host("here"), world.host("there")
        world.line(here, there, "192.0.2.1/24", "192.0.2.2/24", delay=0.1)
        server = there.start(serves, "192.0.2.2", 80, socket.SOCK_DGRAM)
        server.told()
        assert here.call(echoes, "192.0.2.2", 80) >= 0.2
        server.result()
        assert here.call(connects, "192.0.2.2", 81) == "ConnectionRefusedError"


def test_all_is_lost() -> None:
    with networks() as world:
        here, there = world.host("here"), world.host("there")
        world.line(here, there, "192.0.2.1/24", "192.0.2.2/24", loss=1.0)
        assert here.call(connects, "192.0.2.2", 81, 0.2) == "TimeoutError"


def test_a_nat() -> None:
    with networks() as world:
        inside, router, outside = world.host("inside"), world.host("nat"), world.host("outside")
        world.cable(inside, router, "10.0.0.2/24", "10.0.0.1/24")
        world.cable(router, outside, "192.0.2.1/24", "192.0.2.2/24")
        inside.default("10.0.0.1")
        router.translate("to-outside")
        server = outside.start(serves, "192.0.2.2", 80)
        server.told()
        assert inside.call(connects, "192.0.2.2", 80) == "connected"
        assert server.result()[0] == "192.0.2.1"


def test_a_function_that_fails_and_one_that_talks() -> None:
    with networks() as world:
        host: Host = world.host("alone")
        with pytest.raises(pytest.fail.Exception, match="on purpose"):
            host.call(fails)
        task = host.start(talks)
        assert task.told() == {"number": 1}
        task.tell("well then")
        assert task.result() == "well then"


def test_the_strays_of_a_killed_run_are_removed() -> None:
    with networks() as world:
        world.host("mine").run("ip", "netns", "add", "gtaps-999999999-1-stray")
        with networks():
            pass
        assert "gtaps-999999999-1-stray" not in os.listdir("/run/netns")
        assert [name for name in os.listdir("/run/netns") if f"-{os.getpid()}-" in name]
