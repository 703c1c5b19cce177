"""PathChange, and Listeners that follow interfaces: in networks that change under them."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from greentaps import (
    Connection,
    ConnectionState,
    InterfaceType,
    Listener,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    TransportProperties,
)
from greentaps.hub import get_runner
from greentaps.taps.paths import netlink, watching
from greentaps.taps.paths.watching import unwatch, view, watch
from netns import Host, Networks, networks
from taps.helpers import until

pytestmark = pytest.mark.netns

PORT = 7000


@pytest.fixture
def world() -> Iterator[Networks]:
    with networks() as made:
        yield made


@pytest.fixture
def here(world: Networks) -> Iterator[Host]:
    """The host that the test is on: with a cable to ``west``, and one to ``east``."""
    here = world.host("here")
    for net, name in enumerate(("west", "east"), 1):
        world.cable(
            here,
            world.host(name),
            *(f"192.0.{net}.1/24", f"192.0.{net}.2/24"),
            *(f"2001:db8:{net}::1/64", f"2001:db8:{net}::2/64"),
            names=(name, "end"),
        )
    with here.entered():
        yield here


def named(world: Networks, name: str) -> Host:
    return next(host for host in world.hosts if host.name == name)


def plain(kind: int, address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    made.bind((address, PORT))
    if kind == socket.SOCK_STREAM:
        made.listen(5)
    return made


class Joined:
    """A Connection to a plain socket on another host, and its PathChange events."""

    def __init__(self, there: Host, address: str, kind: int = socket.SOCK_STREAM) -> None:
        with there.entered():
            self.peer = plain(kind, address)
        datagrams = TransportProperties("unreliable-datagram")
        self.connection: Connection = Preconnection(
            remote_endpoint=RemoteEndpoint().with_ip_address(address).with_port(PORT),
            transport_properties=None if kind == socket.SOCK_STREAM else datagrams,
        ).initiate(timeout=10)
        self.changes: list[Connection] = []

    def __enter__(self) -> Joined:
        self.connection.on_path_change(self.changes.append)
        return self

    def __exit__(self, *exc: object) -> None:
        self.connection.abort()
        self.peer.close()

    def changed(self, times: int) -> bool:
        """Wait until there were so many events; and after some time there are no more."""
        until(lambda: len(self.changes) >= times)
        gevent.sleep(2 * watching.SETTLING)
        return len(self.changes) == times


def watchers() -> list[Any]:
    return [each for each in get_runner().owners if isinstance(each, watching._Watcher)]


# -- PathChange --


@pytest.mark.rfc("LE-02", "PX-01", "PX-03", "EV-08")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("address", ["192.0.1.2", "2001:db8:1::2"])
def test_the_link_goes_down_and_up(world: Networks, here: Host, kind: int, address: str) -> None:
    with Joined(named(world, "west"), address, kind) as joined:
        named(world, "west").ip("link set end down")  # the cable is pulled at the other end
        assert joined.changed(1)
        named(world, "west").ip("link set end up")
        assert joined.changed(2)
        assert joined.changes == [joined.connection] * 2
        assert joined.connection.state is ConnectionState.ESTABLISHED


@pytest.mark.rfc("LE-02", "PX-01")
@pytest.mark.parametrize(
    "commands",
    [
        ["link set west mtu 1300"],
        ["addr del 192.0.1.1/24 dev west"],
        ["route add 192.0.1.2 via 192.0.1.9"],
        ["route add 192.0.1.2 dev west mtu 1300"],
        ["route add 192.0.1.2 via 192.0.2.2"],
        ["route add unreachable 192.0.1.2"],
        ["link set west down"],
        ["link del west"],
    ],
    ids=lambda commands: commands[0],
)
def test_what_changes_a_path(world: Networks, here: Host, commands: list[str]) -> None:
    """Each once, and the Connection lives on."""
    with Joined(named(world, "west"), "192.0.1.2") as joined:
        here.ip(*commands)
        assert joined.changed(1)
        assert joined.connection.state is ConnectionState.ESTABLISHED


def test_the_path_of_a_link_local_address(world: Networks, here: Host) -> None:
    here.address("west", "fe80::1/64")
    here.address("east", "fe80::1/64")
    there = named(world, "west")
    there.address("end", "fe80::2/64")
    with there.entered():
        peer = socket.socket(socket.AF_INET6)
        peer.bind(("fe80::2", PORT, 0, socket.if_nametoindex("end")))
        peer.listen()
    remote = RemoteEndpoint().with_ip_address("fe80::2%west").with_port(PORT)
    connection = Preconnection(remote_endpoint=remote).initiate(timeout=10)
    changes: list[Connection] = []
    connection.on_path_change(changes.append)
    with peer:
        here.ip("link set east down")
        gevent.sleep(3 * watching.SETTLING)
        assert changes == []
        here.ip("link set west mtu 1300")
        until(lambda: changes)
        connection.abort()


def test_what_does_not(world: Networks, here: Host) -> None:
    with Joined(named(world, "west"), "192.0.1.2") as joined:
        heard = len(joined.changes)
        here.ip(
            "link set east mtu 1300",
            "addr add 192.0.1.77/24 dev west",
            "route add 198.51.100.0/24 via 192.0.2.2",
            "link set east down",
        )
        gevent.sleep(3 * watching.SETTLING)
        assert len(joined.changes) == heard
        here.ip("link set west mtu 1300")  # it was listening all the time
        assert joined.changed(1)


@pytest.mark.rfc("PX-03", "TT-22")
def test_data_waits_for_the_path_to_come_back(world: Networks, here: Host) -> None:
    with Joined(named(world, "west"), "192.0.1.2") as joined:
        accepted, _ = joined.peer.accept()
        with accepted:
            here.ip("link set west down")
            assert joined.changed(1)
            joined.connection.send(b"later", timeout=10)
            here.ip("link set west up")
            until(lambda: len(joined.changes) >= 2)  # link and route may come one by one
            accepted.settimeout(30)
            assert accepted.recv(10) == b"later"
            accepted.sendall(b"yes")
            message = joined.connection.receive(min_incomplete_length=1, timeout=30)
            assert message.data == b"yes"


def test_only_who_wants_to_know_pays(world: Networks, here: Host) -> None:
    with Joined(named(world, "west"), "192.0.1.2") as joined:
        assert len(watchers()) == 1
        joined.connection.on_path_change(None)
        assert watchers() == []
        joined.connection.on_path_change(joined.changes.append)
        assert len(watchers()) == 1
    until(lambda: not watchers())
    without = Joined(named(world, "west"), "192.0.1.2")
    assert watchers() == []
    without.__exit__()


@pytest.mark.parametrize("end", ["abort", "close", "reset"])
def test_nothing_is_left_of_it_at_the_end(world: Networks, here: Host, end: str) -> None:
    with Joined(named(world, "west"), "192.0.1.2") as joined:
        accepted, _ = joined.peer.accept()
        if end == "reset":
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted.close()
        if end != "reset":
            getattr(joined.connection, end)()
        until(lambda: joined.connection.state is ConnectionState.CLOSED)
        assert watchers() == []
        here.ip("link set west down")
        gevent.sleep(2 * watching.SETTLING)
        assert joined.changes == []


def test_handlers_that_were_set_before(world: Networks, here: Host) -> None:
    """On the Preconnection, for its Connections and for those that a Listener accepts."""
    there = named(world, "west")
    changes: list[Connection] = []
    with there.entered():
        peer = plain(socket.SOCK_STREAM, "192.0.1.2")
    initiating = Preconnection(
        remote_endpoint=RemoteEndpoint().with_ip_address("192.0.1.2").with_port(PORT)
    )
    initiating.on_path_change(changes.append)
    connection = initiating.initiate(timeout=10)
    listening = Preconnection(LocalEndpoint().with_ip_address("192.0.1.1").with_port(PORT))
    listening.on_path_change(changes.append)
    with peer, listening.listen() as listener:
        with there.entered():
            client = socket.create_connection(("192.0.1.1", PORT), 10)
        with client:
            accepted = listener.accept(timeout=10)
            here.ip("link set west mtu 1300")
            until(lambda: len(changes) == 2)
            assert set(changes) == {connection, accepted}
            accepted.abort()
    connection.abort()


def test_a_way_over_loopback_and_other_transports(here: Host) -> None:
    assert view("127.0.0.1", "127.0.0.1") == view("127.0.0.1", "127.0.0.1")
    watching.follow("memory", "left", "right", lambda: None)
    assert watchers() == []


# -- The watcher --


def test_many_news_are_one(here: Host) -> None:
    calls: list[int] = []
    assert watch("me", lambda: calls.append(1))
    here.run(
        "ip",
        "-b",
        "-",
        stdin="".join(f"addr add 10.0.0.{n}/32 dev west\naddr del 10.0.0.{n}/32 dev west\n"
                      for n in range(1, 100)),
    )  # fmt: skip
    until(lambda: calls)
    gevent.sleep(3 * watching.SETTLING)
    assert 1 <= len(calls) <= 3
    unwatch("me")
    unwatch("me")


def test_one_that_fails_does_not_harm_the_others(
    here: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[BaseException] = []
    monkeypatch.setattr(
        get_runner().hub, "handle_error", lambda context, kind, value, tb: reported.append(value)
    )
    calls: list[int] = []

    def fail() -> None:
        raise RuntimeError("on purpose")

    watch("one", fail)
    watch("two", lambda: unwatch("three") or calls.append(2))
    watch("three", lambda: calls.append(3))
    here.ip("link set west mtu 1300")
    until(lambda: calls)
    assert calls == [2]
    assert [str(error) for error in reported] == ["on purpose"]
    unwatch("one")
    unwatch("two")


def test_so_many_that_it_takes_several_turns(here: Host) -> None:
    """Each hears once, and none after it has gone."""
    calls: list[int] = []
    turns: list[int] = []

    def called(number: int) -> None:
        calls.append(number)
        if number == 0:
            unwatch(3 * watching.AT_ONCE)
            get_runner().call_soon(lambda: turns.append(len(calls)))

    for number in range(3 * watching.AT_ONCE + 1):
        watch(number, lambda number=number: called(number))
    here.ip("link set west mtu 1300")
    until(lambda: len(calls) == 3 * watching.AT_ONCE)
    gevent.sleep(2 * watching.SETTLING)
    assert calls == list(range(3 * watching.AT_ONCE))
    assert turns[0] <= 2 * watching.AT_ONCE
    for number in range(3 * watching.AT_ONCE):
        unwatch(number)
    assert watchers() == []


def test_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise OSError(errno.EPERM, "a sandbox")

    monkeypatch.setattr(netlink, "Notifications", refuse)
    assert not watch("me", lambda: None)
    unwatch("me")


def test_news_that_break_off(
    here: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch("me", lambda: None)

    def fail(self: Any) -> bool:
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(netlink.Notifications, "changed", fail)
    with caplog.at_level(logging.WARNING, "greentaps.paths"):
        here.ip("link set west mtu 1300")
        until(lambda: not watchers())
    assert "no longer heard" in caplog.text


def test_the_parent_hears_on_after_a_fork(here: Host) -> None:
    calls: list[int] = []
    watch("me", lambda: calls.append(1))
    pid = os.fork()
    if not pid:
        try:
            left = watchers()
        finally:
            os._exit(1 if left else 0)
    assert os.waitpid(pid, 0)[1] == 0
    here.ip("link set west mtu 1300")
    until(lambda: calls)
    unwatch("me")


# -- Listeners --


def listening(
    *wishes: tuple[str, Any], interface: str | None = None, udp: bool = False
) -> Listener:
    local = LocalEndpoint().with_port(PORT)
    if interface is not None:
        local = local.with_interface(interface)
    properties = TransportProperties("unreliable-datagram") if udp else TransportProperties()
    for level, what in wishes:
        getattr(properties, level)("interface", what)
    return Preconnection(local, transport_properties=properties).listen()


def knock(there: Host, address: str) -> str:
    """What a TCP client finds, which does not wait for long."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with there.entered(), socket.socket(family) as client:
        client.settimeout(5)
        try:
            client.connect((address, PORT))
        except OSError as error:
            return type(error).__name__
        return "connected"


def at(listener: Listener) -> int:
    return len(listener.local_endpoints)


@pytest.mark.rfc("LS-02")
def test_a_new_interface_that_fits_is_listened_on(world: Networks, here: Host) -> None:
    with listening(("require", InterfaceType.WIRED)) as listener:
        assert at(listener) == 4  # two interfaces, two families
        south = world.host("south")
        world.cable(here, south, "192.0.3.1/24", "192.0.3.2/24", names=("south", "end"))
        until(lambda: at(listener) == 6)
        assert {end.port for end in listener.local_endpoints} == {PORT}
        assert knock(south, "192.0.3.1") == "connected"
        assert listener.accept(timeout=10).abort() is None
        world.line(here, world.host("vpn"), "10.9.0.1/24", "10.9.0.2/24", names=("vpn", "end"))
        gevent.sleep(2 * watching.SETTLING)
        assert at(listener) == 6  # a tunnel does not fit
        assert knock(named(world, "vpn"), "10.9.0.1") == "ConnectionRefusedError"
        here.ip("link del south")
        until(lambda: at(listener) == 4)
        assert knock(named(world, "west"), "192.0.1.1") == "connected"
        listener.accept(timeout=10).abort()
    assert watchers() == []


@pytest.mark.rfc("LS-02")
@pytest.mark.parametrize("udp", [False, True])
def test_an_interface_that_goes_and_comes_back(world: Networks, here: Host, udp: bool) -> None:
    with listening(interface="west", udp=udp) as listener:
        assert at(listener) == 2
        here.ip("link del west")
        until(lambda: at(listener) == 0)
        west = named(world, "west")
        world.cable(here, west, "192.0.1.1/24", "192.0.1.2/24", names=("west", "end"))
        until(lambda: at(listener) == 2)
        if udp:
            with west.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"hello", ("192.0.1.1", PORT))
        else:
            assert knock(west, "192.0.1.1") == "connected"
        listener.accept(timeout=10).abort()


@pytest.mark.rfc("LS-02")
@pytest.mark.parametrize("interface", [None, "west"])
def test_a_new_address_is_listened_on(world: Networks, here: Host, interface: str | None) -> None:
    """The kernel does it; on every interface there is not even a watcher."""
    with listening(interface=interface) as listener:
        assert len(watchers()) == (interface is not None)
        here.ip("addr add 192.0.1.77/24 dev west")
        here.address("west", "2001:db8:1::77/64")
        for address in ("192.0.1.77", "2001:db8:1::77"):
            assert knock(named(world, "west"), address) == "connected"
            listener.accept(timeout=10).abort()


@pytest.mark.rfc("PX-03")
@pytest.mark.parametrize("wishes", [[], [("require", InterfaceType.WIRED)]])
def test_a_listener_keeps_its_sockets_while_a_link_is_down(
    world: Networks, here: Host, wishes: list[tuple[str, Any]]
) -> None:
    with listening(*wishes, interface=None if wishes else "west") as listener:
        before = at(listener)
        here.ip("link set west down")
        gevent.sleep(2 * watching.SETTLING)
        assert at(listener) == before
        here.ip("link set west up")
        assert knock(named(world, "west"), "192.0.1.1") == "connected"
        listener.accept(timeout=10).abort()


def test_other_endpoints_of_the_same_listener_stay(world: Networks, here: Host) -> None:
    """One Local Endpoint is on an interface, and one on all."""
    ends = [
        LocalEndpoint().with_port(PORT).with_interface("west"),
        LocalEndpoint().with_port(PORT + 1),
    ]
    with Preconnection(ends).listen() as listener:
        assert at(listener) == 4
        here.ip("link del west")
        until(lambda: at(listener) == 2)
        assert {end.port for end in listener.local_endpoints} == {PORT + 1}


def test_a_place_that_cannot_be_had(
    world: Networks, here: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program is there.  The others are listened on, and this one at the next change."""
    with listening(("prohibit", InterfaceType.LOOPBACK)) as listener:
        assert at(listener) == 4
        with socket.socket() as taken:
            here.run("ip", "link", "add", "south", "type", "veth", "peer", "name", "other")
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"south\0")
            taken.bind(("0.0.0.0", PORT))
            taken.listen()
            with caplog.at_level(logging.WARNING, "greentaps.listener"):
                here.ip("link set south up", "link set other up")
                until(lambda: at(listener) == 7)  # "other" in two families, "south" in one
            assert "cannot listen on south" in caplog.text
        here.ip("link set south mtu 1300")
        until(lambda: at(listener) == 8)


def test_a_stopped_listener_follows_nothing(world: Networks, here: Host) -> None:
    listener = listening(("require", InterfaceType.WIRED))
    listener.stop()
    assert watchers() == []
    world.cable(here, world.host("south"), "192.0.3.1/24", "192.0.3.2/24", names=("south", "end"))
    gevent.sleep(2 * watching.SETTLING)
    assert at(listener) == 4
    assert knock(named(world, "south"), "192.0.3.1") == "ConnectionRefusedError"
