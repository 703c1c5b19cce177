"""Names in network namespaces: questions that leave through one interface, networks without IPv4,
and what the kernel says of source addresses."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
import pytest
from conftest import live_greenlets
from gevent import socket as gsocket
from greentaps import (
    EstablishmentError,
    Preconnection,
    ResolutionError,
    Resolver,
    TransportProperties,
)
from greentaps.taps.naming.dns import DnsResolver
from greentaps.taps.naming.ordering import Source
from greentaps.taps.naming.sources import SourceFinder, source_address
from peers import HERE as PEERS
from peers import LIBRARY, running
from rfc9622.world import Network, ip, network
from taps.helpers import in_greenlet, remote, until
from taps.resolving import Heard, addresses, named

pytest.importorskip("dns.message", reason="dnspython is not installed")
pytestmark = [pytest.mark.netns, pytest.mark.peer]

V6, V4 = socket.AF_INET6, socket.AF_INET


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def serving(net: Network, address: str, log: Path) -> Any:
    """A name server on the other host, at port 53."""
    return running(
        "nsenter",
        f"--net=/proc/{os.getpid()}/fd/{net._there}",
        sys.executable,
        PEERS / "nameserver.py",
        address,
        log,
        53,
    )


@pytest.mark.rfc("CG-06", "CT-04")
def test_a_question_leaves_through_the_interface_that_is_used(net: Network, tmp_path: Path) -> None:
    """The routes lead to a network where nobody answers.  The other one has the name server."""
    with serving(net, net.THERE, tmp_path / "log") as peer:
        assert peer.line() == "53"
        ip(
            "link add dead0 type veth peer name dead1",  # the other end has no address
            "addr add 198.51.100.1/24 dev dead0",
            "link set dead0 up",
            "link set dead1 up",
            f"route add {net.THERE}/32 dev dead0",
        )
        resolver = DnsResolver([net.THERE], timeout=0.3, attempts=1)
        (news,) = Heard(named("plain.test"), resolver=resolver, interface="dead0").all()
        assert isinstance(news.error, ResolutionError)
        (news,) = Heard(named("plain.test"), resolver=resolver).all()
        assert isinstance(news.error, ResolutionError)
        assert not (tmp_path / "log").read_text()
        news = Heard(named("plain.test"), resolver=resolver, interface="here0").all()[-1]
        assert sorted(addresses(news)) == ["192.0.2.1", "2001:db8::1"]
        # Over TCP as well.
        news = Heard(named("cut.test"), resolver=resolver, interface="here0").all()[-1]
        assert sorted(addresses(news)) == ["192.0.2.1", "2001:db8::1"]
        peer.end_input()


def test_an_interface_that_is_not_there(net: Network) -> None:
    resolver = DnsResolver([net.THERE], timeout=0.3, attempts=1)
    (news,) = Heard(named("plain.test"), resolver=resolver, interface="no0").all()
    assert isinstance(news.error, ResolutionError)
    assert "No such device" in str(news.error)


SYSTEM = """
import gevent
from greentaps.hub import now
from greentaps.taps.naming.resolver import SystemResolver
from peers import script
from taps.helpers import in_greenlet, remote, until
from taps.resolving import Heard, addresses, named

def show(name, *more):
    print(name, *more, flush=True)

with script("nameserver", "127.0.0.1", LOG, 53) as peer:
    peer.line()
    heard = Heard(named("slow6.test"), resolver=SystemResolver())
    first, last = heard.all()
    show("slow6", *addresses(first), sorted(addresses(last)))
    for name in ("no6", "silent6", "nowhere", "servfail", "null"):
        news = Heard(named(name + ".test"), resolver=SystemResolver(), limit=20).all()[-1]
        show(name, *addresses(news), getattr(news.error, "code", None))
    peer.end_input()
"""


@pytest.mark.rfc("HE-01", "HE-07", "CT-06")
def test_the_systems_resolver(tmp_path: Path) -> None:
    """This machine's own resolver, which is led to a name server that misbehaves."""
    if os.geteuid():
        pytest.skip("another configuration of the system's resolver needs root")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\n")
    code = SYSTEM.replace("LOG", repr(str(tmp_path / "log")))
    setup = (
        f"ip link set lo up && mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && "
        f"mount --bind {tmp_path}/nsswitch.conf /etc/nsswitch.conf && "
        'echo led && exec "$@"'
    )
    with running(
        "unshare",
        *("--net", "--mount", "sh", "-c", setup, "sh", sys.executable, "-W", "error", "-c", code),
        env={"PYTHONPATH": f"{PEERS.parent}{os.pathsep}{LIBRARY}"},
    ) as peer:
        if peer.line() != "led":
            pytest.skip("the system's resolver cannot be led elsewhere here")
        assert peer.line() == "slow6 192.0.2.1 ['192.0.2.1', '2001:db8::1']"
        assert peer.line() == "no6 192.0.2.1 None"
        assert peer.line() == "silent6 192.0.2.1 None"
        assert peer.line() == f"nowhere {socket.EAI_NONAME}"
        assert peer.line() == f"servfail {socket.EAI_AGAIN}"
        assert peer.line() == "null 192.0.2.7 None"
        assert peer.wait() == 0


@pytest.mark.rfc("HE-13")
def test_a_network_without_ipv4(net: Network, tmp_path: Path) -> None:
    """The kernel has no way to an IPv4 address, and the network's name server has the prefix."""
    ip("addr del 192.0.2.1/24 dev here0")
    with serving(net, net.THERE6, tmp_path / "log") as peer:
        assert peer.line() == "53"
        resolver = DnsResolver([net.THERE6], timeout=2)
        (news,) = Heard(named("198.51.99.1", 7), resolver=resolver).all()
        assert [one.address for one in news.order] == [("2001:db8:64::c633:6301", 7, 0, 0)]
        assert news.order[0].via == "NAT64"
        peer.end_input()


@pytest.mark.rfc("HE-13")
@pytest.mark.parametrize("wish", [False, True])
def test_an_ipv4_address_of_an_endpoint_is_translated(
    net: Network, tmp_path: Path, wish: bool
) -> None:
    """Also where the application names the interface, which has no IPv4 address."""
    ip("addr del 192.0.2.1/24 dev here0", "-6 route add 2001:db8:64::/96 dev here0")
    with net.there():
        ip("addr add 2001:db8:64::c633:6301/128 dev there0 nodad")
        server = gsocket.create_server(("2001:db8:64::c633:6301", 0), family=V6)
    wishes = TransportProperties()
    if wish:
        wishes.require("interface", "here0")
    end = remote(server.getsockname()[1], "198.51.99.1")
    with server, serving(net, net.THERE6, tmp_path / "log") as peer:
        assert peer.line() == "53"
        resolver = DnsResolver([net.THERE6], timeout=2)
        connection = Preconnection(None, end, wishes, resolver=resolver).initiate(timeout=20)
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.ip_address == "2001:db8:64::c633:6301"
        connection.abort()
        peer.end_input()


@pytest.mark.rfc("HE-06", "HE-13")
def test_a_connection_through_a_translator(net: Network, tmp_path: Path) -> None:
    """To a name with an IPv4 address alone; and to one whose IPv6 address refuses, where it is the
    last resort and comes at once."""
    outside = "2001:db8:64::c000:201"  # 192.0.2.1, as this network translates it
    ip("addr del 192.0.2.1/24 dev here0", "route add 2001:db8:64::/96 dev here0")
    with net.there():
        ip(f"addr add {outside}/128 dev there0 nodad")
        listener = gsocket.socket(V6)
    with listener, serving(net, net.THERE6, tmp_path / "log") as peer:
        assert peer.line() == "53"
        listener.bind((outside, 0))
        listener.listen()
        resolver = DnsResolver([net.THERE6], timeout=2)
        for name, refused in (("no6.test", 0), ("plain.test", 1)):
            end = named(name, listener.getsockname()[1])
            connection = Preconnection(None, end, resolver=resolver).initiate(timeout=20)
            assert connection.remote_endpoint is not None
            assert connection.remote_endpoint.ip_address == outside
            assert connection.remote_endpoint.hostname == name
            assert connection.history is not None
            won = connection.history.attempts[-1]
            assert (won.fate, won.candidate.remote[0]) == ("won", outside)
            assert "found by A, NAT64" in connection.history.text()
            fates = [(one.candidate.remote[0], one.fate) for one in connection.history.attempts]
            assert fates.count((net.HERE6, "failed")) == refused
            assert won.started < 1.5
            listener.accept()[0].close()
            connection.abort()
        peer.end_input()


@pytest.mark.rfc("HE-06")
@pytest.mark.parametrize("how", ["kill", "timeout"])
def test_the_last_resort_can_be_given_up(net: Network, how: str) -> None:
    ip("addr del 192.0.2.1/24 dev here0")
    asked: list[str] = []

    class Names(Resolver):
        def addresses(
            self, name: str, family: int, *, interface: str | None, network: str
        ) -> Sequence[str]:
            asked.append(name)
            if name.startswith("ipv4only"):
                gevent.sleep(3600)
            return [net.HERE6] if family == V6 else ["198.51.99.1"]

    before = len(live_greenlets())
    made = Preconnection(None, named("a.test", 9), resolver=Names())
    running = in_greenlet(made.initiate, 1.0 if how == "timeout" else None)
    until(lambda: "ipv4only.arpa." in asked)
    if how == "kill":
        running.kill()
    else:
        error = running.get()
        assert isinstance(error, EstablishmentError)
        assert {one.fate for one in error.history.attempts} == {"failed"}
    until(lambda: len(live_greenlets()) <= before)


@pytest.mark.rfc("HE-08")
def test_what_the_kernel_says_of_sources(net: Network) -> None:
    assert source_address(("192.0.2.2", 80)) == "192.0.2.1"
    assert source_address(("2001:db8::2", 80, 0, 0), "here0") == "2001:db8::1"
    assert source_address(("192.0.2.2", 80), "no0") is None
    assert source_address(("198.51.100.1", 80)) is None
    assert SourceFinder(None).find(("192.0.2.2", 80)) == Source("192.0.2.1")
    assert SourceFinder(None).find(("2001:db8::2", 80, 0, 0)) == Source("2001:db8::1")
    ip("-6 addr change 2001:db8::1/64 dev here0 preferred_lft 0 valid_lft forever")
    found = SourceFinder(None).find(("2001:db8::2", 80, 0, 0))
    assert found == Source("2001:db8::1", deprecated=True)


@pytest.mark.rfc("HE-08")
def test_an_order_that_the_kernel_decides(net: Network, tmp_path: Path) -> None:
    """Without a way to IPv6 the IPv4 address goes first (rule 1), in spite of rule 6."""
    with serving(net, net.THERE, tmp_path / "log") as peer:
        assert peer.line() == "53"
        resolver = DnsResolver([net.THERE], timeout=2)
        news = Heard(named("plain.test"), resolver=resolver).all()[-1]
        assert addresses(news) == ["2001:db8::1", "192.0.2.1"]
        ip("-6 addr flush dev here0")
        news = Heard(named("plain.test"), resolver=resolver).all()[-1]
        assert addresses(news) == ["192.0.2.1", "2001:db8::1"]
        peer.end_input()
