"""The paths of this machine: what is seen of them, when it is seen anew, and what is done where
nothing can be seen."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import pytest
from greentaps.taps.paths import netlink
from greentaps.taps.paths import survey as paths
from greentaps.taps.paths.history import History, default_history, set_default_history
from greentaps.taps.paths.survey import (
    Path,
    Survey,
    forget_survey,
    interfaces,
    look,
    path_of,
    survey,
)
from greentaps.taps.properties import InterfaceType
from netns import Host, networks
from peers import LIBRARY
from taps.helpers import until

V4, V6 = socket.AF_INET, socket.AF_INET6
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(LIBRARY)}
UP_AND_RUNNING = 0x41


@pytest.fixture
def host() -> Iterator[Host]:
    """A host with two cables and nothing else."""
    with networks() as world:
        here = world.host("here")
        for name in ("west", "east"):
            world.cable(here, world.host(name), names=(name, "end"))
        yield here


def seen(host: Host) -> Survey:
    with host.entered():
        return survey()


def path(host: Host, name: str) -> Path:
    found = seen(host).find(name)
    assert found is not None
    return found


def texts(path: Path) -> set[str]:
    return {address.text for address in path.addresses if address.scope != "link"}


# -- What is seen --


@pytest.mark.rfc("CG-03")
@pytest.mark.netns
def test_two_interfaces_with_two_families(host: Host) -> None:
    for name, net in (("west", 1), ("east", 2)):
        host.address(name, f"192.0.{net}.5/24")
        host.address(name, f"2001:db8:{net}::5/64")
    host.address("west", "fe80::5/64")
    host.default("192.0.1.1", "2001:db8:1::1")
    found = seen(host)
    assert found.complete
    a, b = found.find("west"), found.find("east")
    assert a is not None
    assert b is not None
    assert texts(a) == {"192.0.1.5", "2001:db8:1::5"}
    assert texts(b) == {"192.0.2.5", "2001:db8:2::5"}
    # Each with its families: the four simple candidates.
    assert {(each.interface, one.family) for each in (a, b) for one in each.addresses} == {
        ("west", V4), ("west", V6), ("east", V4), ("east", V6),
    }  # fmt: skip
    assert (a.default_routes, b.default_routes) == ({V4, V6}, frozenset())
    assert a.gateways == ("192.0.1.1", "2001:db8:1::1")
    assert (a.up, a.mtu, a.type) == (True, 1500, InterfaceType.WIRED)
    assert a.network != b.network
    assert found.holder("192.0.2.5") == b
    assert found.holder("192.0.2.6") is None
    assert found.find("c") is None
    assert "fe80::5%west" in {one.text for one in a.addresses if one.scope == "link"}
    assert found.holder("fe80::5%west") == a
    assert found.holder("fe80::5%east") is None
    lo = found.find("lo")
    assert lo is not None
    assert lo.type is InterfaceType.LOOPBACK
    assert {one.scope for one in lo.addresses} == {"host"}
    with host.entered():
        assert dict(interfaces())["east"] is InterfaceType.WIRED


@pytest.mark.netns
def test_the_name_of_a_network(host: Host) -> None:
    host.address("west", "192.0.1.5/24")
    host.default("192.0.1.1")
    first = seen(host)
    host.ip("addr del 192.0.1.5/24 dev west", "addr add 192.0.1.77/24 dev west")
    host.default("192.0.1.1")
    again = seen(host)
    assert again.generation > first.generation
    assert again.find("west") != first.find("west")
    assert again.network == first.network  # another lease, the same network
    host.ip("route del default")
    host.default("192.0.1.2")
    assert seen(host).network != first.network
    host.address("east", "192.0.2.5/24")
    changed = seen(host)
    host.address("east", "198.51.100.5/24")
    assert seen(host).network == changed.network  # only what leads somewhere counts


@pytest.mark.netns
def test_a_machine_without_a_way_out_has_a_network_too(host: Host) -> None:
    bare = seen(host).network
    host.address("west", "192.0.1.5/24")
    assert seen(host).network not in ("", bare)


@pytest.mark.netns
def test_kinds_of_address(host: Host) -> None:
    with host.entered():
        for name, value in {"use_tempaddr": "2", "accept_dad": "0"}.items():
            File(f"/proc/sys/net/ipv6/conf/west/{name}").write_text(value)
    host.ip(
        "-6 addr add 2001:db8::5/64 dev west nodad mngtmpaddr valid_lft 3600 preferred_lft 1800",
        "-6 addr add 2001:db8::6/64 dev west nodad valid_lft 3600 preferred_lft 0",
        "addr add 192.0.2.5/24 dev west",
        "addr add 192.0.2.6/24 dev west",  # "secondary": the flag that means "temporary" in IPv6
    )
    until(lambda: any(one.temporary for one in path(host, "west").addresses))
    found = {one.text: one for one in path(host, "west").addresses if one.scope == "global"}
    temporary = [one for one in found.values() if one.temporary]
    assert len(temporary) == 1
    assert temporary[0].text not in ("2001:db8::5", "2001:db8::6")
    assert temporary[0].prefix == 64
    assert [one.text for one in found.values() if one.deprecated] == ["2001:db8::6"]
    assert not found["192.0.2.6"].temporary
    assert len(found) == 5
    # It has the same prefix, so it does not make another network.
    before = path(host, "west").network
    host.ip(f"-6 addr del {temporary[0].text}/64 dev west")
    assert path(host, "west").network == before


@pytest.mark.netns
def test_an_address_that_is_being_probed_cannot_be_used_yet(host: Host) -> None:
    host.ip(
        "link set east down", "-6 addr add 2001:db8::5/64 dev east"
    )  # tentative while it is down
    assert texts(path(host, "east")) == set()


@pytest.mark.rfc("CT-09")
@pytest.mark.netns
def test_a_vpn_is_a_path() -> None:
    """A tunnel that takes all traffic by two halves, as VPNs do."""
    with networks() as world:
        here, gate, far = world.host("here"), world.host("gate"), world.host("far")
        world.cable(here, gate, "192.0.2.5/24", "192.0.2.1/24", names=("eth", "end"))
        here.default("192.0.2.1")
        world.line(here, far, "10.9.0.2/32", "10.9.0.1/32", "fd00::2/64", names=("vpn", "end"))
        here.ip("route add 0.0.0.0/1 dev vpn", "route add 128.0.0.0/1 dev vpn")
        here.ip("-6 route add 2000::/3 dev vpn")
        vpn, eth = path(here, "vpn"), path(here, "eth")
        assert vpn.type is InterfaceType.TUNNEL
        assert (vpn.default_routes, eth.default_routes) == ({V4, V6}, {V4})
        assert vpn.up
        here.ip("route del 128.0.0.0/1 dev vpn")  # one half is not everything
        assert path(here, "vpn").default_routes == {V6}


@pytest.mark.netns
def test_a_cable_that_is_out(host: Host) -> None:
    host.address("west", "192.0.1.5/24")
    host.default("192.0.1.1")
    assert path(host, "west").up
    host.ip("link set west down")
    gone = path(host, "west")
    assert not gone.up
    assert gone.default_routes == frozenset()
    assert texts(gone) == {"192.0.1.5"}  # it may come back with it


@pytest.mark.netns
def test_routes_of_several_next_hops_and_of_other_tables(host: Host) -> None:
    host.address("west", "192.0.1.5/24")
    host.address("east", "192.0.2.5/24")
    host.ip("route add default nexthop via 192.0.1.1 dev west nexthop via 192.0.2.1 dev east")
    assert path(host, "west").gateways == ("192.0.1.1",)
    assert path(host, "east").default_routes == {V4}
    host.ip("route del default", "route add default via 192.0.2.1 table 100")
    assert path(host, "west").default_routes == frozenset()
    assert path(host, "east").default_routes == {V4}
    host.ip("route flush table 100", "route add unreachable default metric 4000")
    assert path(host, "east").default_routes == frozenset()


@pytest.mark.netns
def test_an_ipv4_route_through_an_ipv6_neighbour(host: Host) -> None:
    host.address("west", "192.0.1.5/24")
    host.ip("route add default via inet6 fe80::1 dev west")
    assert path(host, "west").gateways == ("fe80::1",)


@pytest.mark.netns
def test_where_a_packet_would_go(host: Host) -> None:
    host.address("west", "192.0.1.5/24")
    host.address("east", "192.0.2.5/24")
    host.ip("route add 198.51.100.0/24 via 192.0.1.1 mtu 1300")
    number = path(host, "west").index
    with host.entered():
        way = netlink.route_to("198.51.100.7")
        assert way is not None
        assert (way.index, way.gateway, way.source, way.mtu) == (
            number, "192.0.1.1", "192.0.1.5", 1300,
        )  # fmt: skip
        assert netlink.route_to("203.0.113.1") is None
        assert netlink.route_to("198.51.100.7", source="192.0.7.7") is None
        assert netlink.route_to("2001:db8::1") is None
        loop = netlink.route_to("127.0.0.1")
        assert loop is not None
        assert loop.source == "127.0.0.1"


@pytest.mark.netns
def test_hundreds_of_interfaces_are_read_to_the_end() -> None:
    """More than fits into one answer of the kernel."""
    with networks() as world:
        here = world.host("here")
        here.run(
            "ip",
            "-b",
            "-",
            stdin="".join(f"link add v{n} type veth peer w{n}\n" for n in range(200)),
        )
        found = seen(here)
        assert len(found.paths) == 401
        assert found.complete


# -- When it is seen anew --


def test_it_is_remembered_until_something_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(paths, "look", lambda: looked.append(1) or look())
    first = survey()
    assert survey() is first
    assert survey() is first
    assert len(looked) == 1
    forget_survey()
    again = survey()
    assert (again.paths, len(looked)) == (first.paths, 2)


@pytest.mark.netns
def test_each_change_is_seen_at_once(host: Host) -> None:
    generations = [seen(host).generation]
    for change in (
        "addr add 192.0.1.5/24 dev west",
        "-6 addr add 2001:db8::5/64 dev west nodad",
        "route add default via 192.0.1.1",
        "link set west mtu 1400",
        "route del default",
        "addr del 192.0.1.5/24 dev west",
        "link set east down",
        "link del east",
    ):
        host.ip(change)
        generations.append(seen(host).generation)
    assert generations == sorted(set(generations))
    # News that change nothing of a path are none.
    last = seen(host)
    host.address("west", "192.0.1.5/24")
    host.ip("addr del 192.0.1.5/24 dev west")
    assert seen(host) is last


@pytest.mark.netns
def test_a_flood_of_news(host: Host) -> None:
    """More than the socket can hold: what was missed counts as a change."""
    before = seen(host)
    with host.entered():
        host.run(
            "ip",
            "-b",
            "-",
            stdin="".join(f"addr add 10.{n // 250}.{n % 250}.1/32 dev west\n" for n in range(3000)),
        )
    after = seen(host)
    assert after.generation == before.generation + 1
    assert len(texts(path(host, "west"))) == 3000
    assert seen(host) is after


@pytest.mark.netns
def test_each_namespace_has_its_own(host: Host) -> None:
    ours = survey()
    theirs = seen(host)
    assert ours.find("west") is None
    assert theirs.find("west") is not None
    assert survey().paths == ours.paths


def test_threads_share_it() -> None:
    first = survey()
    found: list[Survey] = []
    thread = threading.Thread(target=lambda: found.append(survey()))
    thread.start()
    thread.join(20)
    assert found == [first]


@pytest.mark.netns
def test_a_forked_child_has_its_own_news(host: Host) -> None:
    """Neither takes the other's."""
    with host.entered():
        before = survey()
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                same = survey().paths == before.paths
                os.write(write, b"y" if same else b"n")
                # The child looks, and hears what comes now.
                host.address("west", "192.0.1.5/24")
                os.write(write, b"y" if survey().paths != before.paths else b"n")
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as answers:
            assert answers.read() == b"yy"
        assert os.waitpid(pid, 0)[1] == 0
        assert survey().generation == before.generation + 1


ENDING = """
import atexit, os, sys
atexit.register(lambda: print(paths._watched._news))  # which runs last
from greentaps.taps.paths import survey as paths
paths.survey()
if not os.fork():
    paths.survey()
    sys.exit()
assert os.wait()[1] == 0
"""


def test_a_program_that_ends_has_closed_the_socket() -> None:
    """Else Python's development mode warns of it.  So does a forked child."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", ENDING],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )
    assert (done.stdout, done.stderr) == ("None\nNone\n", "")


@pytest.mark.rfc("HE-08")
@pytest.mark.netns
def test_a_change_of_the_network_drops_round_trip_times(host: Host) -> None:
    host.address("west", "192.0.1.5/24")
    host.default("192.0.1.1")
    at_home = path(host, "west").network
    history = History()
    usual = default_history()
    set_default_history(history)
    try:
        seen(host)
        history.note_success(at_home, ("192.0.2.7", 80), None, "tcp", now=0, latency=0.2, rtt=0.1)
        host.address("east", "198.51.100.5/24")
        seen(host)
        assert history.rtt(at_home, "192.0.2.7", now=0) == 0.1
        host.ip("addr del 192.0.1.5/24 dev west")
        host.address("west", "203.0.113.5/24")
        elsewhere = path(host, "west").network
        assert elsewhere != at_home
        assert history.rtt(at_home, "192.0.2.7", now=0) is None
        assert history.rtt(elsewhere, "192.0.2.7", now=0) is None
        assert history.score(at_home, "192.0.2.7", "tcp", now=0) > 0
        assert history.score(elsewhere, "192.0.2.7", "tcp", now=0) == 0
    finally:
        set_default_history(usual)


# -- Where nothing can be seen --


@pytest.fixture
def no_netlink(monkeypatch: pytest.MonkeyPatch) -> None:
    real = netlink.PlainSocket

    def refuse(family: int = -1, *args: Any, **kwargs: Any) -> Any:
        if family == socket.AF_NETLINK:
            raise PermissionError(errno.EPERM, "a sandbox")
        return real(family, *args, **kwargs)

    monkeypatch.setattr(netlink, "PlainSocket", refuse)
    forget_survey()


@pytest.mark.usefixtures("no_netlink")
def test_without_netlink_there_are_names() -> None:
    found = survey()
    assert not found.complete
    assert [each.interface for each in found.paths] == [name for _, name in socket.if_nameindex()]
    lo = found.find("lo")
    assert lo is not None
    assert (lo.type, lo.default_routes) == (InterfaceType.LOOPBACK, frozenset())
    assert all(each.default_routes == {V4, V6} for each in found.paths if each is not lo)
    assert all(each.up and each.addresses == () for each in found.paths)
    assert survey() is found  # looked at again, and the same
    assert found.network


def test_a_system_without_such_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(netlink.socket, "AF_NETLINK")
    forget_survey()
    with pytest.raises(OSError, match="no netlink"):
        netlink.links()
    assert not survey().complete


def test_news_that_fail_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    first = survey()
    monkeypatch.setattr(netlink.Notifications, "changed", _fails)
    second = survey()
    assert second.paths == first.paths
    monkeypatch.undo()
    third = survey()
    assert survey() is third


def _fails(self: Any) -> bool:
    raise OSError(errno.EBADF, "closed by somebody")


def test_a_kernel_that_is_silent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits."""
    monkeypatch.setattr(netlink, "_GET_LINK", 16384)  # no such question: an error is the answer
    with pytest.raises(OSError, match=r"."):
        netlink.links()


# -- What the kernel says, read without a kernel --


def link(name: str = "x", hardware: int = 1, kind: str = "", flags: int = UP_AND_RUNNING) -> Any:
    return netlink.Link(7, name, hardware, kind, flags, 1500)


@pytest.mark.parametrize(
    ("hardware", "kind", "type_"),
    [
        (1, "", InterfaceType.WIRED),
        (1, "veth", InterfaceType.WIRED),
        (1, "bridge", InterfaceType.WIRED),
        (65534, "wireguard", InterfaceType.TUNNEL),
        (65534, "tun", InterfaceType.TUNNEL),
        (1, "tun", InterfaceType.TUNNEL),
        (768, "ipip", InterfaceType.TUNNEL),
        (769, "ip6tnl", InterfaceType.TUNNEL),
        (776, "sit", InterfaceType.TUNNEL),
        (778, "gre", InterfaceType.TUNNEL),
        (1, "vxlan", InterfaceType.TUNNEL),
        (65534, "", InterfaceType.TUNNEL),
        (519, "", InterfaceType.CELLULAR),
        (1, "wwan", InterfaceType.CELLULAR),
        (803, "", InterfaceType.WIFI),
        (772, "", InterfaceType.LOOPBACK),
        (280, "can", InterfaceType.OTHER),
        (512, "ppp", InterfaceType.OTHER),
    ],
)
def test_types(hardware: int, kind: str, type_: InterfaceType) -> None:
    assert path_of(link(hardware=hardware, kind=kind), [], []).type is type_


def test_wifi_and_modems_are_told_by_files(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_SYSTEM", tmp_path)
    for name, index in (("wlan", 7), ("modem", 7), ("other", 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ifindex").write_text(f"{index}\n")
        (tmp_path / name / "uevent").write_text("DEVTYPE=wwan\n" if name == "modem" else "\n")
        (tmp_path / name / "wireless").mkdir()
    assert path_of(link("wlan"), [], []).type is InterfaceType.WIFI
    assert path_of(link("modem"), [], []).type is InterfaceType.CELLULAR
    # An interface of that name in another namespace, whose files are to be seen here.
    assert path_of(link("other"), [], []).type is InterfaceType.WIRED


@pytest.mark.rfc("P-12")
def test_domains_name_the_provisioning_domain(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "links", tmp_path / "resolve"
    first.mkdir()
    monkeypatch.setattr(paths, "_DOMAINS", (str(first), str(second)))
    (first / "7").write_text("ADMIN_STATE=configured\nDOMAINS=Corp.Example ~lab.example\n")
    assert path_of(link(), [], []).pvds == ("corp.example", "lab.example")
    assert path_of(link(flags=UP_AND_RUNNING | 0x8), [], []).pvds == ()
    second.mkdir()
    (second / "7").write_text("DOMAINS=corp.example home.example\n")
    assert path_of(link(), [], []).pvds == ("corp.example", "lab.example", "home.example")
    # What systemd notes later is seen too.
    forget_survey()
    index = socket.if_nameindex()[-1][0]
    assert {each.pvds for each in survey().paths if each.index == index} == {()}
    os.utime(first, ns=(1, 1))
    (first / str(index)).write_text("DOMAINS=late.example\n")
    assert [each.pvds for each in survey().paths if each.index == index] == [("late.example",)]


def test_what_is_cut_off_or_strange_is_left_out() -> None:
    good = b"\x08\x00\x04\x00\x07\x00\x00\x00"
    assert netlink._attributes(good, 0) == {4: b"\x07\x00\x00\x00"}
    for cut in range(len(good)):
        assert netlink._attributes(good[:cut], 0) == {}
    assert netlink._attributes(b"\x00\x00\x04\x00" + good, 0) == {}
    assert netlink._attributes(good + b"\xff\xff\x05\x00", 0) == {4: b"\x07\x00\x00\x00"}
    message = netlink._HEADER.pack(20, 16, 0, 1, 0) + b"abcd"
    assert list(netlink._messages(message)) == [(16, 0, 1, b"abcd")]
    assert list(netlink._messages(message[:-1])) == []
    assert list(netlink._messages(netlink._HEADER.pack(0, 16, 0, 1, 0))) == []
