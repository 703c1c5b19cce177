"""Races over real paths: hosts that are dead, slow or refuse, and what each of them sees.

The client is another process on another host.  When its attempts began and how they ended is taken
from its own history; what arrived is counted where it arrived.  The names are in the client's
hosts file.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import greentaps as taps
import pytest
from conftest import Certificates
from netns import Host, Networks, Task, heard, networks, say
from taps.helpers import until

pytestmark = pytest.mark.netns

PORT = 7000
DELAY = 0.25  # the Connection Attempt Delay of RFC 8305
SLACK = 2.0  # seconds: that a busy machine may be late, but not how late the race may be
V6 = ["2001:db8:1::2", "2001:db8:1::3", "2001:db8:1::4"]
V4 = ["192.0.1.2", "192.0.1.3", "192.0.1.4", "192.0.1.5"]


# -- What runs on the client --


def reaches(
    name: str,
    wishes: Sequence[Sequence[str]] = (),
    ca: str | None = None,
    times: int = 1,
) -> list[dict[str, Any]]:
    """Connect; tell how that went, and keep the Connection until the test says otherwise.  As
    often as asked, and the last answer is returned too."""
    properties = taps.TransportProperties()
    for level, what in wishes:
        getattr(properties, level)("interface", what)
    preconnection = taps.Preconnection(
        remote_endpoint=taps.RemoteEndpoint().with_hostname(name).with_port(PORT),
        transport_properties=properties,
        security_parameters=None if ca is None else taps.SecurityParameters().add_trust_ca(ca),
    )
    told = []
    for _ in range(times):
        connection = None
        try:
            connection = preconnection.initiate(timeout=30)
            history: Any = connection.history
        except taps.EstablishmentError as error:
            history = error.history
        told.append(
            {
                "attempts": [
                    {
                        "to": one.candidate.remote[0],
                        "through": one.candidate.interface,
                        "started": one.started,
                        "ended": one.ended,
                        "fate": one.fate,
                    }
                    for one in (history.attempts if history else ())
                ],
                "ready": connection is not None,
            }
        )
        say(told[-1])
        heard()
        if connection is not None:
            connection.close(timeout=10)
    return told


def learns(name: str) -> dict[str, Any]:
    """What a Connection over which much is sent leaves behind."""
    history = taps.default_history()
    network = taps.survey().network

    def seen() -> dict[str, Any]:
        now = taps.hub.now()
        return {
            "rtt": history.rtt(network, name, now=now),
            "throughput": history.throughput(network, now=now),
            "latency": history.latency(network, name, "tcp", now=now),
            "used": history.used(network, name, now=now),
        }

    found = {"before": seen()}
    properties = taps.TransportProperties()
    preconnection = taps.Preconnection(
        remote_endpoint=taps.RemoteEndpoint().with_ip_address(name).with_port(PORT),
        transport_properties=properties,
    )
    with preconnection.initiate(timeout=30) as connection:
        found["ready"] = seen()
        connection.send(bytes(100_000), timeout=30)
        connection.receive(min_incomplete_length=1, timeout=30)
    found["end"] = seen()
    taps.flush_caches()
    found["flushed"] = seen()
    properties.set("isolateSession", True)
    preconnection.initiate(timeout=30).abort()
    found["isolated"] = seen()
    return found


# -- What runs on the server --


def listens(*addresses: str) -> None:
    """Listen, and take nobody: the kernel makes the connections."""
    listeners = []
    for address in addresses:
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, PORT))
        listener.listen(20)
        listeners.append(listener)
    say("ready")
    heard()


def secures(address: str, certificate: str) -> None:
    """A TLS server."""
    local = taps.LocalEndpoint().with_ip_address(address).with_port(PORT)
    security = taps.SecurityParameters().add_identity(certificate, role="server")
    with taps.Preconnection(local, security_parameters=security).listen() as listener:
        say("ready")
        listener.accept(timeout=60)
        heard()


def keeps_silent(address: str) -> str:
    """Accept, and never say a word; returns how the peer goes."""
    with socket.create_server(
        (address, PORT), family=socket.AF_INET6 if ":" in address else socket.AF_INET
    ) as listener:
        listener.settimeout(60)
        say("ready")
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(60)
            try:
                while peer.recv(65536):
                    pass
            except ConnectionResetError:
                return "reset"
            return "end"


def swallows(address: str, size: int) -> None:
    """Read so much of one peer, and answer; then accept one more."""
    with socket.create_server((address, PORT)) as listener:
        listener.settimeout(60)
        say("ready")
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(60)
            while size > 0:
                size -= len(peer.recv(65536))
            peer.sendall(b"thanks")
            peer.recv(1)
        listener.accept()[0].close()


# -- The two hosts --


class Scene:
    """A client, a server, and a cable."""

    def __init__(self, world: Networks) -> None:
        self.world = world
        self.client = world.host("client")
        self.server = world.host("server")
        world.cable(
            self.client,
            self.server,
            *("192.0.1.1/24", f"{V4[0]}/24", "2001:db8:1::1/64", f"{V6[0]}/64"),
            names=("cable", "cable"),
        )
        for address in (*V4[1:], *V6[1:]):
            self.server.address("cable", f"{address}/{64 if ':' in address else 24}")

    def serve(self, *addresses: str) -> Task:
        task = self.server.start(listens, *addresses)
        task.told()
        return task

    def connections(self) -> list[str]:
        """The states of the server's TCP connections."""
        return [state for state, _, _ in self.server.tcp_states()]

    def has_given_up_the_others(self) -> None:
        """Wait until the client has the one Connection, and nothing that is under way."""
        until(lambda: [state for state, _, _ in self.client.tcp_states()] == ["ESTAB"])


@pytest.fixture
def scene() -> Iterator[Scene]:
    with networks() as world:
        yield Scene(world)


def begun(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["to"], one["fate"]) for one in told["attempts"]]


def waits(told: dict[str, Any]) -> list[float]:
    """How long after the one before it each attempt began."""
    starts = [one["started"] for one in told["attempts"]]
    return [later - earlier for earlier, later in pairwise(starts)]


def nobody_waited(told: dict[str, Any]) -> bool:
    """Whether each attempt began when the one before it had failed, and not a delay later."""
    return all(
        0 <= later["started"] - earlier["ended"] < DELAY * 0.8
        for earlier, later in pairwise(told["attempts"])
    )


@pytest.mark.rfc("TT-05", "HE-08")
def test_ipv6_is_dead(scene: Scene) -> None:
    """It costs a quarter of a second, and one packet."""
    hole = scene.server.blackhole(V6[0])
    scene.serve(V4[0])
    scene.client.names(server=[V6[0], V4[0]])
    client = scene.client.start(reaches, "server")
    told = client.told()
    assert begun(told) == [(V6[0], "stopped"), (V4[0], "won")]
    assert DELAY - 0.001 <= waits(told)[0] < DELAY + SLACK
    assert hole.syns == 1
    assert scene.connections() == ["ESTAB"]
    scene.has_given_up_the_others()
    client.tell("enough")
    client.result()
    assert hole.syns == 1


def test_all_of_ipv6_is_dead(scene: Scene) -> None:
    """However many addresses there are, it costs no more than one, also the next time."""
    hole = scene.server.blackhole(*V6)
    scene.serve(*V4)
    scene.client.names(server=[*V6, *V4])
    client = scene.client.start(reaches, "server", [], None, 2)
    for number in (1, 2):
        told = client.told()
        assert begun(told) == [(V6[0], "stopped"), (V4[0], "won")]
        assert DELAY - 0.001 <= waits(told)[0] < DELAY + SLACK
        assert hole.syns == number
        client.tell("enough")
    client.result()


@pytest.mark.rfc("TT-06")
def test_ipv6_refuses(scene: Scene) -> None:
    """It costs a round trip."""
    count = scene.server.counter(V6[0], V4[0])
    scene.serve(V4[0])
    scene.client.names(server=[V6[0], V4[0]])
    client = scene.client.start(reaches, "server")
    told = client.told()
    assert begun(told) == [(V6[0], "failed"), (V4[0], "won")]
    assert nobody_waited(told)
    assert count.syns == 2
    client.tell("enough")
    client.result()


def test_three_addresses_refuse_before_one_lives(scene: Scene) -> None:
    """A round trip each, and no delay between."""
    scene.serve(V4[3])
    scene.client.names(server=V4)
    client = scene.client.start(reaches, "server")
    told = client.told()
    assert begun(told) == [*((one, "failed") for one in V4[:3]), (V4[3], "won")]
    assert nobody_waited(told)
    client.tell("enough")
    client.result()
    assert scene.connections() in ([], ["CLOSE-WAIT"], ["LAST-ACK"])


def test_three_addresses_are_dead_before_one_lives(scene: Scene) -> None:
    hole = scene.server.blackhole(*V4[:3])
    scene.serve(V4[3])
    scene.client.names(server=V4)
    client = scene.client.start(reaches, "server")
    told = client.told()
    assert begun(told) == [*((one, "stopped") for one in V4[:3]), (V4[3], "won")]
    assert all(DELAY - 0.001 <= wait < DELAY + SLACK for wait in waits(told))
    assert scene.connections() == ["ESTAB"]
    scene.has_given_up_the_others()
    seen = hole.syns
    client.tell("enough")
    client.result()
    assert hole.syns == seen <= 3 + 3  # the kernel may have repeated one that waited a second


def test_all_are_dead(scene: Scene) -> None:
    scene.server.blackhole(*V4[:2])
    scene.client.names(server=V4[:2])
    client = scene.client.start(times_out, "server")
    told = client.told()
    assert told["reason"] == "TIMEOUT"
    assert len(told["fates"]) == 2
    assert set(told["fates"]) <= {"failed", "stopped"}
    until(lambda: scene.client.tcp_states() == [])
    client.tell("enough")
    client.result()


def times_out(name: str) -> None:
    remote = taps.RemoteEndpoint().with_hostname(name).with_port(PORT)
    try:
        taps.Preconnection(remote_endpoint=remote).initiate(timeout=1)
    except taps.EstablishmentError as error:
        history: Any = error.history
        say({"reason": error.reason.name, "fates": [one.fate for one in history.attempts]})
    heard()


def test_the_slower_one_leaves_nothing(scene: Scene) -> None:
    """Its answer comes when the race is over: the server sees no connection of it."""
    far = scene.world.host("far")
    scene.world.line(
        scene.client,
        far,
        *("2001:db8:9::1/64", "2001:db8:9::2/64"),
        delay=0.4,
        names=("line", "line"),
    )
    slow = far.start(listens, "2001:db8:9::2")
    slow.told()
    count = far.counter("2001:db8:9::2")
    scene.serve(V4[0])
    scene.client.names(server=["2001:db8:9::2", V4[0]])
    client = scene.client.start(reaches, "server")
    told = client.told()
    assert begun(told) == [("2001:db8:9::2", "stopped"), (V4[0], "won")]
    until(lambda: count.syns == 1 and far.tcp_states() == [])
    scene.has_given_up_the_others()
    client.tell("enough")
    client.result()
    until(lambda: far.tcp_states() == [])


def test_a_handshake_that_loses_is_ended(scene: Scene, certificates: Certificates) -> None:
    """TCP is ready over IPv6, and TLS is not: the peer there sees the end at once."""
    silent = scene.server.start(keeps_silent, V6[0])
    silent.told()
    server = scene.server.start(secures, V4[0], str(certificates.elsewhere))
    server.told()
    scene.client.names(**{"other.example": [V6[0], V4[0]]})
    client = scene.client.start(reaches, "other.example", [], str(certificates.ca))
    told = client.told()
    assert begun(told) == [(V6[0], "stopped"), (V4[0], "won")]
    assert DELAY - 0.001 <= waits(told)[0] < DELAY + SLACK
    assert silent.result() in ("end", "reset")
    client.tell("enough")
    server.tell("enough")
    client.result()
    server.result()


@pytest.mark.rfc("CA-05", "CA-06", "CA-09", "CA-04", "A-19", "A-20")
def test_what_a_connection_leaves_behind(scene: Scene) -> None:
    """Over a line whose round trip takes a fifth of a second."""
    far = scene.world.host("far")
    scene.world.line(
        scene.client, far, "192.0.9.1/24", "192.0.9.2/24", delay=0.1, names=("line", "line")
    )
    server = far.start(swallows, "192.0.9.2", 100_000)
    server.told()
    found = scene.client.call(learns, "192.0.9.2")
    nothing = {"rtt": None, "throughput": None, "latency": None, "used": False}
    assert found["before"] == found["flushed"] == found["isolated"] == nothing
    for moment in ("ready", "end"):
        assert found[moment]["used"]
        assert 0.2 <= found[moment]["rtt"] < 0.2 + SLACK
        assert 0.2 <= found[moment]["latency"] < 0.2 + SLACK
    assert found["ready"]["throughput"] is None
    assert 0 < found["end"]["throughput"] < 1e8
    server.result()


def marked(name: str, profile: str) -> None:
    remote = taps.RemoteEndpoint().with_ip_address(name).with_port(PORT)
    properties = taps.TransportProperties().set("connCapacityProfile", profile)
    taps.Preconnection(None, remote, properties).initiate(timeout=30).abort()


@pytest.mark.rfc("P-24", "CP-02", "SO-05")
@pytest.mark.parametrize(("address", "ip"), [(V4[0], "ip"), (V6[0], "ip6")])
def test_the_first_packet_has_the_mark_of_the_profile(scene: Scene, address: str, ip: str) -> None:
    scene.server.nft(
        "table inet marks { chain in { type filter hook input priority filter; "
        f"{ip} dscp 1 tcp flags & (syn | ack) == syn counter; }}\n}}"
    )
    scene.serve(address)

    def seen() -> int:
        words = scene.server.run("nft", "list", "table", "inet", "marks").split()
        return int(words[words.index("packets") + 1])

    scene.client.call(marked, address, "Default")
    assert seen() == 0
    scene.client.call(marked, address, "Scavenger")
    assert seen() == 1


# -- Two paths to one server --


class TwoPaths:
    """A client with two cables to a server that has an address of its own."""

    HOME = "198.51.100.1"

    def __init__(self, world: Networks) -> None:
        self.client = world.host("client")
        self.server = world.host("server")
        for net, name in enumerate(("west", "east"), 1):
            world.cable(
                self.client,
                self.server,
                *(f"192.0.{net}.1/24", f"192.0.{net}.2/24"),
                names=(name, name),
            )
            self.client.ip(f"route add default via 192.0.{net}.2 metric {net}")
        self.server.address("lo", f"{self.HOME}/32")
        self.client.names(server=[self.HOME])
        self.server.start(listens, self.HOME).told()

    def cut(self, name: str) -> None:
        """What comes that way does not arrive."""
        self.server.nft(
            f"table inet cut {{ chain in {{ type filter hook input priority filter; "
            f'iifname "{name}" counter drop; }}\n}}'
        )

    def arrived(self) -> int:
        """How many packets came the way that is cut."""
        words = self.server.run("nft", "list", "table", "inet", "cut").split()
        return int(words[words.index("packets") + 1])


@pytest.fixture
def paths() -> Iterator[TwoPaths]:
    with networks() as world:
        yield TwoPaths(world)


@pytest.mark.rfc("TT-08", "P-11", "CT-09")
def test_the_preferred_path_is_dead(paths: TwoPaths) -> None:
    paths.cut("east")
    client = paths.client.start(reaches, "server", [["prefer", "east"]])
    told = client.told()
    ways = [(one["through"], one["fate"]) for one in told["attempts"]]
    assert ways[0] == ("east", "stopped")
    assert ways[-1][0] in ("west", None)
    assert ways[-1][1] == "won"
    assert DELAY - 0.001 <= waits(told)[0] < DELAY + SLACK
    assert paths.arrived() == 1
    states = paths.server.tcp_states()
    assert [(state, peer.rpartition(":")[0]) for state, _, peer in states] == [
        ("ESTAB", "192.0.1.1")
    ]
    client.tell("enough")
    client.result()
    assert paths.arrived() == 1


@pytest.mark.rfc("P-11")
def test_the_preferred_path_lives(paths: TwoPaths) -> None:
    client = paths.client.start(reaches, "server", [["prefer", "east"]])
    told = client.told()
    assert [(one["through"], one["fate"]) for one in told["attempts"]] == [("east", "won")]
    ((state, _, peer),) = paths.server.tcp_states()
    assert (state, peer.rpartition(":")[0]) == ("ESTAB", "192.0.2.1")
    client.tell("enough")
    client.result()


@pytest.mark.rfc("P-11")
def test_a_required_path_that_is_dead_has_no_substitute(paths: TwoPaths) -> None:
    paths.client.ip("link set east down")
    client = paths.client.start(reaches, "server", [["require", "east"]])
    told = client.told()
    assert not told["ready"]
    assert {one["through"] for one in told["attempts"]} <= {"east"}
    assert paths.server.tcp_states() == []
    client.tell("enough")
    client.result()


def test_where_the_files_of_a_host_are() -> None:
    """They are gone with it."""
    with networks() as world:
        host: Host = world.host("one")
        host.names(somebody=["192.0.2.1"])
        folder = Path("/etc/netns") / host.namespace
        assert folder.exists()
        assert host.call(socket_address_of, "somebody") == "192.0.2.1"
    assert not folder.exists()


def socket_address_of(name: str) -> str:
    return str(socket.getaddrinfo(name, 1)[0][4][0])
