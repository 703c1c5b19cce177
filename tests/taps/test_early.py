"""Early data over real paths: what is in the first packet, and what becomes of the rest.

The server is a bare socket on another host, in another process.  The kernel tells it whether data
came with the SYN (`TCPI_OPT_SYN_DATA`), and how much had come when the connection was accepted:
packets take a while on the line between the two, so that at that moment nothing else can have.
The first connection between two addresses gets the cookie, so the second one is looked at.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
import greentaps as taps
import pytest
from greentaps.certificates import CertificateAuthority
from greentaps.hub import Deadline, get_runner
from greentaps.plugins import Attempt
from greentaps.plugins.tcp import Tcp
from greentaps.protocols import Protocol
from netns import Host, Networks, Task, heard, networks, say
from taps.helpers import until

pytestmark = pytest.mark.netns

PORT = 7000
CLOSED = 7001
DELAY = 0.03  # seconds that a packet takes
CLIENT, SERVER, SECOND = "192.0.2.1", "192.0.2.2", "192.0.2.3"
FAR = "203.0.113.1"
CLIENT6, SERVER6 = "2001:db8::1", "2001:db8::2"
IN_A_SYN = 1420  # bytes: an MTU of 1500, less the headers of IPv4 and TCP, and all options
TCP_INFO_SIZE = 136
TCP_FASTOPEN = 23
SYN_DATA = 32
RECORD_OF_A_HANDSHAKE = b"\x16\x03"


# -- What runs on the server --


def early_part(peer: socket.socket) -> int | None:
    """How much has come, if some of it came with the SYN."""
    said = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    received: int = struct.unpack_from("=Q", said, 128)[0]
    return received if said[5] & SYN_DATA else None


def listens(address: str, fast: bool) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if fast:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    listener.bind((address, PORT))
    listener.listen(16)
    return listener


def reads(addresses: Sequence[str], fast: bool = True) -> None:
    """Tell of each connection: who came, how much was early, and all that came."""

    def serve(peer: socket.socket, address: str) -> None:
        early = early_part(peer)
        data = b""
        with peer:
            try:
                while piece := peer.recv(65536):
                    data += piece
            except OSError:
                return  # the loser of a race
        say({"at": address, "early": early, "data": zlib.compress(data).hex()})  # fits in a pipe

    def accept(address: str) -> None:
        listener = gevent.socket.socket(fileno=listens(address, fast).detach())
        while True:
            peer, _ = listener.accept()
            gevent.spawn(serve, peer, address)

    for address in addresses:
        gevent.spawn(accept, address)
    gevent.sleep(0)
    say("ready")
    heard()


def secures(addresses: Sequence[str], certificate: str) -> None:
    """A TLS server on each address, one connection at a time: what was early, what came by TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = listens(addresses[0], True)
    say("ready")
    while True:
        peer, _ = listener.accept()
        early = early_part(peer)
        first = peer.recv(65536, socket.MSG_PEEK) if early else b""
        with context.wrap_socket(peer, server_side=True) as session:
            data = session.recv(65536)
            session.sendall(b"answer")
        say({"early": early, "first": first.hex(), "data": data.hex()})


def receives(address: str, level: str, framed: bool, messages: int, times: int) -> None:
    """A Listener of ours: tell of each connection's Messages whether they were early."""
    local = taps.LocalEndpoint().with_ip_address(address).with_port(PORT)
    preconnection = taps.Preconnection(
        local, transport_properties=taps.TransportProperties(zeroRttMsg=level)
    )
    if framed:
        preconnection.add_framer(taps.LengthPrefixFramer(2))
    with preconnection.listen() as listener:
        say("ready")
        for _ in range(times):
            with listener.accept(timeout=60) as connection:
                told = []
                for _ in range(messages):
                    message = connection.receive(
                        min_incomplete_length=None if framed else 1, timeout=30
                    )
                    assert message is not None
                    told.append([message.data.hex(), message.context.get("early-data")])
                say([connection.get_properties().get("zeroRttMsg"), told])


def refuses_to_listen(address: str) -> list[str]:
    """What is said of a Listener that requires early data."""
    local = taps.LocalEndpoint().with_ip_address(address).with_port(PORT)
    wishes = taps.TransportProperties(zeroRttMsg="require")
    try:
        taps.Preconnection(local, transport_properties=wishes).listen().stop()
    except taps.EstablishmentError as error:
        return [str(error), error.reason.name]
    return []


# -- What runs on the client --


class Greets(taps.LengthPrefixFramer):
    """Says a word before the first Message; and one more while the connection is being made."""

    def start(self, link: Any) -> None:
        link.send(b"hello")
        gevent.spawn_later(DELAY / 2, link.send, b"behind")


class Asks(taps.LengthPrefixFramer):
    """Is ready only when the peer has answered, or after a while."""

    def start(self, link: Any) -> None:
        link.send(b"question")
        link.delay_ready()
        gevent.spawn_later(4 * DELAY, link.make_connection_ready)


class Fails(taps.LengthPrefixFramer):
    """Changes its mind while the connection is being made."""

    def start(self, link: Any) -> None:
        gevent.spawn_later(DELAY / 2, link.fail_connection, RuntimeError("no more"))


class Refuses(taps.LengthPrefixFramer):
    def new_sent_message(self, link: Any, data: Any, context: Any, end: bool) -> None:
        raise taps.FramingError("not in this form")


ENDS = ("closed", "connection_error", "establishment_error")
FRAMERS = {
    "greets": Greets,
    "asks": Asks,
    "fails": Fails,
    "refuses": Refuses,
    "plain": taps.LengthPrefixFramer,
}


def wishing(given: dict[str, Any]) -> taps.Preconnection:
    """What a client asks for.  *given* is JSON."""
    properties = taps.TransportProperties(**given.get("properties", {"zeroRttMsg": "prefer"}))
    for name in given.get("interfaces", ()):
        properties.prefer("interface", name)
    address = given.get("to", SERVER)
    end = taps.RemoteEndpoint().with_port(given.get("port", PORT))
    if address[0].isdigit():
        end.with_ip_address(address)
    else:
        end.with_hostname(address)
    local = None
    if "from" in given:
        local = taps.LocalEndpoint().with_ip_address(given["from"])
    security = None
    if "ca" in given:
        security = taps.SecurityParameters().add_trust_ca(given["ca"])
    made = taps.Preconnection(local, end, properties, security)
    if "framer" in given:
        made.add_framer(FRAMERS[given["framer"]](2))
    return made


def sends(each: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Initiate with a first Message, and close; tell what happened.  Nothing is left open."""
    told = []
    for given in each:
        before = get_runner().owners
        preconnection = wishing(given)
        events: list[str] = []
        for name in ("ready", "sent", "send_error", "expired", *ENDS):
            getattr(preconnection, f"on_{name}")(
                lambda *_args, name=name, events=events: events.append(name)  # type: ignore[misc]
            )
        context = taps.MessageContext()
        for name, value in given.get("message", {"safelyReplayable": True}).items():
            context.add(name, value)
        data = b"m" * given.get("size", 5)
        found: dict[str, Any] = {"attempts": []}
        begun = time.monotonic()
        connection = preconnection.initiate_with_send(
            data, context, given.get("timeout", 30), wait=False
        )
        for more in given.get("more", ()):
            urgent = taps.MessageContext().add("msgPriority", 0)
            connection.send(more.encode(), urgent, wait=False)
        if "close" in given:
            gevent.sleep(given["close"])
            getattr(connection, given["how"])(**given.get("with", {}))
        until(lambda: {"sent", "send_error", *ENDS} & {*events})  # noqa: B023
        found["seconds"] = time.monotonic() - begun
        live = connection.get_properties()
        found["early"] = str(live.get("zeroRttMsg"))
        found["room"] = str(live.get("_greentaps.zeroRttMsgMaxLen"))
        history: Any = connection.history
        try:
            connection.receive(wait=False)
            connection.close()
        except taps.TapsError as error:
            found["error"] = str(error)
            found["reason"] = error.reason.name
            attempts = getattr(error, "attempts", ())
            found["causes"] = [errno.errorcode[cause.errno] for _, cause in attempts]
        if history is not None:
            found["attempts"] = [
                [one.candidate.remote[0], one.candidate.interface, one.fate]
                for one in history.attempts
            ]
        until(lambda: {*ENDS} & {*events})  # noqa: B023
        until(lambda: get_runner().owners == before)  # noqa: B023
        found["events"] = events
        told.append(found)
    return told


def is_killed(given: dict[str, Any]) -> str:
    """Kill a greenlet in the middle of an `initiate_with_send`, and fork in the middle of another.
    Returns how the child has ended."""
    context = taps.MessageContext().add("safelyReplayable", True)
    preconnection = wishing(given)
    before = get_runner().owners
    greenlet = gevent.spawn(preconnection.initiate_with_send, b"x", context, 30)
    gevent.sleep(0.1)
    assert get_runner().owners != before
    greenlet.kill()
    assert isinstance(greenlet.value, gevent.GreenletExit)
    assert get_runner().owners == before
    greenlet = gevent.spawn(preconnection.initiate_with_send, b"x", context, 30)
    gevent.sleep(0.1)
    child = gevent.os.fork()
    if not child:
        try:
            with pytest.raises(taps.EstablishmentError):
                greenlet.get(timeout=5)
            os._exit(0)
        finally:
            os._exit(1)
    status = gevent.os.waitpid(child, 0)[1]
    greenlet.kill()
    assert get_runner().owners == before
    return str(os.waitstatus_to_exitcode(status))


def is_secured(given: dict[str, Any], times: int = 2) -> list[dict[str, Any]]:
    """The same over TLS, and an answer is waited for."""
    told = []
    for _ in range(times):
        found: dict[str, Any] = {}
        context = taps.MessageContext().add("safelyReplayable", True)
        try:
            with wishing(given).initiate_with_send(
                b"secret", context, given.get("timeout", 20)
            ) as connection:
                message = connection.receive(min_incomplete_length=1, timeout=20)
                assert message is not None
                found["answer"] = message.data.decode()
                found["early"] = str(connection.get_properties().get("zeroRttMsg"))
                found["room"] = str(connection.get_properties().get("zero-rtt-msg-max-len"))
                history: Any = connection.history
                found["attempts"] = [
                    [one.candidate.remote[0], one.fate] for one in history.attempts
                ]
        except taps.EstablishmentError as error:
            found["error"] = str(error)
            found["reason"] = error.reason.name
            found["causes"] = [getattr(cause, "errno", None) for _, cause in error.attempts]
        until(lambda: not get_runner().owners)
        told.append(found)
    return told


def sends_bare(address: str, data: str, later: str, times: int) -> None:
    """A client without this library: *data* in the SYN if there is a cookie, *later* at once."""
    for _ in range(times):
        with socket.socket() as client:
            client.sendto(bytes.fromhex(data), socket.MSG_FASTOPEN, (address, PORT))
            client.sendall(bytes.fromhex(later))
            client.shutdown(socket.SHUT_WR)
            client.settimeout(30)
            while client.recv(1024):
                pass


# -- The two hosts --


class Scene:
    """A client, a server, and a slow line."""

    def __init__(self, world: Networks) -> None:
        self.world = world
        self.client = world.host("client")
        self.server = world.host("server")
        allow(self.client, 1)
        allow(self.server, 3)
        world.line(
            self.client,
            self.server,
            *(f"{CLIENT}/24", f"{SERVER}/24", f"{CLIENT6}/64", f"{SERVER6}/64"),
            delay=DELAY,
            names=("line", "line"),
        )
        self.server.address("line", f"{SECOND}/24")

    def serve(self, *addresses: str, fast: bool = True) -> Task:
        task = self.server.start(reads, addresses or (SERVER,), fast)
        assert task.told() == "ready"
        return task

    def send(self, times: int = 2, **given: Any) -> list[dict[str, Any]]:
        return self.send_each(*[given] * times)

    def send_each(self, *each: dict[str, Any]) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self.client.call(sends, each)
        return told

    def secure(self, certificates: Files, address: str = SERVER) -> Task:
        task = self.server.start(secures, [address], str(certificates.server))
        assert task.told() == "ready"
        return task

    def ask(self, certificates: Files, times: int = 1, **given: Any) -> list[dict[str, Any]]:
        if "to" not in given:
            self.client.names(server=[SERVER])
        given = {"to": "server", "ca": str(certificates.ca), **given}
        told: list[dict[str, Any]] = self.client.call(is_secured, given, times)
        return told

    def nothing_is_open(self) -> None:
        until(
            lambda: not [state for state, _, _ in self.client.tcp_states() if "WAIT" not in state]
        )


def allow(host: Host, bits: int) -> None:
    with host.entered():
        Path("/proc/sys/net/ipv4/tcp_fastopen").write_text(str(bits))


@pytest.fixture
def scene() -> Iterator[Scene]:
    with networks() as world:
        yield Scene(world)


class Files:
    """The file of an authority, and that of a server which is called "server"."""

    def __init__(self, directory: Path) -> None:
        authority = CertificateAuthority()
        self.ca = authority.write(directory, "ca")
        self.server = authority.issue("server", SERVER).write(directory, "server")


@pytest.fixture
def certificates(tmp_path: Path) -> Files:
    return Files(tmp_path)


def all_of(task: Task, times: int = 2) -> list[tuple[int | None, bytes]]:
    told = [task.told() for _ in range(times)]
    return [(one["early"], zlib.decompress(bytes.fromhex(one["data"]))) for one in told]


WELL = ["ready", "sent", "closed"]


# -- One that initiates --


@pytest.mark.rfc("ZR-01", "TC-05", "SO-17", "I-09", "P-05", "P-44", "DS-07")
@pytest.mark.parametrize("level", ["prefer", "require"])
@pytest.mark.parametrize("to", [SERVER, SERVER6])
def test_the_first_message_is_in_the_syn(scene: Scene, level: str, to: str) -> None:
    server = scene.serve(to)
    first, second = scene.send(to=to, properties={"zeroRttMsg": level})
    assert all_of(server) == [(None, b"mmmmm"), (5, b"mmmmm")]
    assert (first["early"], second["early"]) == ("False", "True")
    assert first["room"] == second["room"] == str(IN_A_SYN if to == SERVER else IN_A_SYN - 20)
    assert first["events"] == second["events"] == WELL


CONDITIONS: list[dict[str, Any]] = [
    {"message": {}},
    {"message": {"safelyReplayable": False}},
    {"properties": {}},
    {"properties": {"zeroRttMsg": "no preference"}},
    {"properties": {"zeroRttMsg": "avoid"}},
    {"properties": {"zeroRttMsg": "prohibit"}},
    {"properties": {"zeroRttMsg": "prefer", "isolateSession": True}},
    {"message": {"safelyReplayable": True, "msgLifetime": 20}},
]


@pytest.mark.rfc("ZR-01", "X-03", "I-10", "P-05", "P-44", "P-31")
def test_without_one_of_the_conditions_all_is_as_ever(scene: Scene) -> None:
    server = scene.serve()
    found = scene.send_each({}, {}, *CONDITIONS, {})
    told = all_of(server, len(found))
    assert [early for early, _ in told] == [None, 5, *[None for _ in CONDITIONS], 5]
    assert {data for _, data in told} == {b"mmmmm"}
    assert {one["early"] for one in found[2:-1]} == {"False"}
    assert [one["events"] for one in found] == [WELL for _ in found]


def test_a_default_of_all_messages_counts(scene: Scene) -> None:
    server = scene.serve()
    scene.send(message={}, properties={"zeroRttMsg": "prefer", "safelyReplayable": True})
    assert all_of(server)[1] == (5, b"mmmmm")


def test_nobody_speaks_before_the_first_message(scene: Scene) -> None:
    """A final one ends the stream, when all of it has gone."""
    server = scene.serve()
    found = scene.send(size=3000, message={"safelyReplayable": True, "final": True})
    assert all_of(server) == [(None, b"m" * 3000), (IN_A_SYN, b"m" * 3000)]
    assert found[1]["events"] == WELL


@pytest.mark.rfc("ZR-03", "OR-09", "TC-05")
@pytest.mark.parametrize("size", [IN_A_SYN, IN_A_SYN + 1, 300_000])
def test_the_rest_goes_before_all_later_messages(scene: Scene, size: int) -> None:
    """Also before those that are more urgent."""
    server = scene.serve()
    _, found = scene.send(size=size, more=["one", "two"])
    data = b"m" * size + b"onetwo"
    assert all_of(server) == [(None, data), (IN_A_SYN, data)]
    assert found["early"] == "True"
    assert found["events"].count("ready") == 1
    assert found["events"].count("sent") == 3


def test_an_empty_message_is_one(scene: Scene) -> None:
    server = scene.serve()
    found = scene.send(size=0, more=["one"])
    assert all_of(server) == [(None, b"one"), (None, b"one")]
    assert found[1]["events"] == ["ready", "sent", "sent", "closed"]


@pytest.mark.rfc("ZR-03")
@pytest.mark.parametrize(
    ("framer", "early", "data"),
    [
        ("plain", 7, b"\0\5mmmmm"),
        ("greets", 12, b"hello\0\5mmmmmbehind"),
        ("asks", None, b"question\0\5mmmmm"),
    ],
)
def test_framers_see_it_first(scene: Scene, framer: str, early: int | None, data: bytes) -> None:
    """As far as that can be without an answer of the peer."""
    server = scene.serve()
    found = scene.send(framer=framer)
    told = all_of(server)
    assert [one for _, one in told] == [data, data]
    assert told[1][0] == early
    assert [one["events"] for one in found] == [WELL, WELL]
    assert found[1]["early"] == str(early is not None)


def test_a_framer_that_refuses_the_message(scene: Scene) -> None:
    server = scene.serve()
    found = scene.send(framer="refuses")
    assert all_of(server) == [(None, b""), (None, b"")]
    assert [one["events"] for one in found] == 2 * [["ready", "send_error", "closed"]]


def test_a_framer_that_fails_meanwhile(scene: Scene) -> None:
    server = scene.serve()
    scene.send(times=1)
    all_of(server, 1)
    (found,) = scene.send(times=1, framer="fails")
    assert found["events"] == ["establishment_error"]
    assert "no more" in found["error"]
    scene.nothing_is_open()


@pytest.mark.rfc("TC-05", "SO-17", "I-10")
@pytest.mark.parametrize("where", ["client", "server", "listener"])
def test_where_it_cannot_be_had_the_message_follows(scene: Scene, where: str) -> None:
    if where == "client":
        allow(scene.client, 2)
    elif where == "server":
        allow(scene.server, 1)
    server = scene.serve(fast=where != "listener")
    found = scene.send(size=3000)
    assert all_of(server) == 2 * [(None, b"m" * 3000)]
    assert [(one["events"], one["early"]) for one in found] == 2 * [(WELL, "False")]


def test_a_server_that_has_forgotten_its_cookies(scene: Scene) -> None:
    """It does not take what is in the SYN, and it is sent once more."""
    server = scene.serve()
    scene.send(times=1)
    with scene.server.entered():
        Path("/proc/sys/net/ipv4/tcp_fastopen_key").write_text("1-2-3-4")
    found = scene.send(size=3000)
    assert all_of(server, 3)[1:] == [(None, b"m" * 3000), (IN_A_SYN, b"m" * 3000)]
    assert [one["early"] for one in found] == ["False", "True"]
    assert [one["events"] for one in found] == [WELL, WELL]


@pytest.mark.rfc("P-05", "ER-02", "PE-03", "L-07")
def test_what_is_required_and_cannot_be_had(scene: Scene) -> None:
    """Said before any packet, for each end by itself."""
    counter = scene.server.counter(SERVER)
    allow(scene.client, 2)
    (found,) = scene.send(times=1, properties={"zeroRttMsg": "require"})
    assert found["events"] == ["establishment_error"]
    assert found["reason"] == "NO_CANDIDATES"
    assert "tcp: zeroRttMsg is required" in found["error"]
    assert counter.syns == 0
    message, reason = scene.client.call(refuses_to_listen, CLIENT) or ("", "")
    assert not message
    allow(scene.client, 1)
    message, reason = scene.client.call(refuses_to_listen, CLIENT)
    assert reason == "NO_CANDIDATES"
    assert "tcp: zeroRttMsg is required" in message


# -- Races --


@pytest.mark.rfc("ZR-02", "I-09")
def test_each_attempt_has_a_copy(scene: Scene) -> None:
    """Also one that comes to nothing; and it is sent once, as far as the application can tell."""
    server = scene.serve(SERVER, SECOND)
    for address in (SERVER, SECOND):
        scene.send(times=1, to=address)
    all_of(server)
    hole = scene.server.blackhole(SERVER)
    scene.server.nft(
        f"table ip sizes {{ chain in {{ type filter hook input priority -1; "
        f"ip daddr {SERVER} tcp flags & (syn | ack) == syn meta length > 70 "
        f'counter comment "syn"; }}\n}}'
    )
    scene.client.names(server=[SERVER, SECOND])
    (found,) = scene.send(times=1, to="server", size=50)
    assert found["attempts"] == [[SERVER, None, "stopped"], [SECOND, None, "won"]]
    assert found["events"] == WELL
    assert found["early"] == "True"
    assert all_of(server, 1) == [(50, b"m" * 50)]
    assert hole.syns == 1
    assert "packets 1 " in scene.server.run("nft", "list", "table", "ip", "sizes")
    scene.nothing_is_open()


@pytest.mark.rfc("TC-05", "I-12")
@pytest.mark.parametrize("port", [PORT, CLOSED])
def test_a_port_that_is_closed(scene: Scene, port: int) -> None:
    """With a cookie, and without one."""
    if port == CLOSED:
        server = scene.serve()
        scene.send(times=1)
        all_of(server, 1)
    (found,) = scene.send(times=1, port=port)
    assert found["events"] == ["establishment_error"]
    assert found["reason"] == "ESTABLISHMENT_FAILED"
    assert found["causes"] == ["ECONNREFUSED"]
    assert found["seconds"] < 1
    scene.nothing_is_open()


@pytest.mark.parametrize(
    ("given", "events", "reason"),
    [
        ({"timeout": 0.5}, ["establishment_error"], "TIMEOUT"),
        ({"close": 0.3, "how": "abort"}, ["send_error", "connection_error"], "LOCAL_ABORT"),
        (
            {"close": 0.3, "how": "close", "with": {"wait": False, "timeout": 0.3}},
            ["send_error", "connection_error"],
            "TIMEOUT",
        ),
    ],
    ids=["timeout", "abort", "close"],
)
@pytest.mark.parametrize("cookie", [False, True])
def test_a_peer_that_does_not_answer(
    scene: Scene, given: dict[str, Any], events: list[str], reason: str, cookie: bool
) -> None:
    if cookie:
        server = scene.serve()
        scene.send(times=1)
        all_of(server, 1)
    hole = scene.server.blackhole(SERVER)
    (found,) = scene.send(times=1, **given)
    assert (found["events"], found["reason"]) == (events, reason)
    assert found["seconds"] < 5
    assert hole.syns
    scene.nothing_is_open()


@pytest.mark.parametrize("cookie", [False, True])
def test_it_may_be_killed_and_forked(scene: Scene, cookie: bool) -> None:
    if cookie:
        server = scene.serve()
        scene.send(times=1)
        all_of(server, 1)
    scene.server.blackhole(SERVER)
    assert scene.client.call(is_killed, {}) == "0"
    scene.nothing_is_open()


# -- Several paths --


class Paths(Scene):
    """As before, with two cables in the place of the line, each with a network of its own."""

    OTHER_CLIENT, OTHER_SERVER = "198.51.100.1", "198.51.100.2"

    def __init__(self, world: Networks) -> None:
        super().__init__(world)
        world.line(
            self.client,
            self.server,
            *(f"{self.OTHER_CLIENT}/24", f"{self.OTHER_SERVER}/24"),
            delay=DELAY,
            names=("other", "other"),
        )
        for interface, gateway in (("line", SERVER), ("other", self.OTHER_SERVER)):
            self.client.ip(
                f"route add 203.0.113.0/24 via {gateway} dev {interface} metric {len(interface)}"
            )
        self.server.ip("addr add 203.0.113.1/32 dev lo")
        for host in (self.client, self.server):
            with host.entered():
                for name in ("all", "line", "other"):
                    Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")


@pytest.mark.rfc("X-03", "SR-04", "ZR-05", "CA-02")
def test_the_message_is_seen_on_one_path_only() -> None:
    """And what the peer has given on one path is not shown to it on another."""
    with networks() as world:
        scene = Paths(world)
        server = scene.serve(FAR)
        for name in ("line", "other"):
            scene.send(to=FAR, interfaces=[name])
            # Each path has a cookie of its own.
            assert all_of(server) == [(None, b"mmmmm"), (5, b"mmmmm")]
        scene.server.nft(
            "table ip hole { chain in { type filter hook input priority filter; "
            'iifname "line" drop; }\n}'
        )
        (found,) = scene.send(times=1, to=FAR, interfaces=["line", "other"])
        assert found["attempts"] == [[FAR, "line", "stopped"], [FAR, "other", "won"]]
        assert found["early"] == "False"
        assert all_of(server, 1) == [(None, b"mmmmm")]
        (found,) = scene.send(times=1, to=FAR, interfaces=["other"])
        assert found["early"] == "True"


# -- TLS --


@pytest.mark.rfc("ZR-04")
@pytest.mark.peer
def test_the_hello_of_tls_may_be_in_the_syn(scene: Scene, certificates: Files) -> None:
    """And never the Message, which is not for all eyes."""
    server = scene.secure(certificates)
    found = scene.ask(certificates, times=2)
    first, second = server.told(), server.told()
    assert first["early"] is None
    assert second["early"] > 100
    hello = bytes.fromhex(second["first"])
    assert len(hello) == second["early"]
    assert hello.startswith(RECORD_OF_A_HANDSHAKE)
    assert b"secret" not in hello
    assert [bytes.fromhex(one["data"]) for one in (first, second)] == 2 * [b"secret"]
    assert [one["answer"] for one in found] == 2 * ["answer"]
    assert {one["early"] for one in found} == {"False"}
    assert {one["room"] for one in found} == {"Not applicable"}


@pytest.mark.rfc("ZR-04", "P-31")
@pytest.mark.peer
@pytest.mark.parametrize("properties", [{}, {"zeroRttMsg": "prefer", "isolateSession": True}])
def test_only_where_it_is_wanted(
    scene: Scene, certificates: Files, properties: dict[str, Any]
) -> None:
    server = scene.secure(certificates)
    scene.ask(certificates)
    scene.ask(certificates, properties=properties)
    assert [server.told()["early"], server.told()["early"]] == [None, None]


@pytest.mark.rfc("ZR-04", "ZR-02")
@pytest.mark.peer
def test_a_hello_that_nobody_answers_wins_no_race(scene: Scene, certificates: Files) -> None:
    """The kernel calls a connection open before its first packet has left."""
    server = scene.secure(certificates)
    scene.ask(certificates)
    assert server.told()["early"] is None
    hole = scene.server.blackhole(SERVER)
    other = scene.secure(certificates, SECOND)
    scene.client.names(server=[SERVER, SECOND])
    (found,) = scene.ask(certificates, to="server")
    assert found["attempts"] == [[SERVER, "stopped"], [SECOND, "won"]]
    assert hole.syns == 1
    assert other.told()["early"] is None
    (found,) = scene.ask(certificates, to=SERVER, timeout=0.5)
    assert (found["reason"], found["causes"]) == ("TIMEOUT", [errno.ETIMEDOUT])
    scene.nothing_is_open()


@pytest.mark.rfc("ZR-04")
@pytest.mark.peer
def test_a_port_without_tls_that_is_closed(scene: Scene, certificates: Files) -> None:
    scene.secure(certificates)
    scene.ask(certificates)
    (found,) = scene.ask(certificates, port=CLOSED)
    assert found["reason"] == "ESTABLISHMENT_FAILED"
    assert found["causes"] == [errno.ECONNREFUSED]
    scene.nothing_is_open()


@pytest.mark.rfc("P-05", "ER-02")
def test_tls_cannot_have_what_is_required(scene: Scene, certificates: Files) -> None:
    (found,) = scene.ask(certificates, properties={"zeroRttMsg": "require"})
    assert found["reason"] == "NO_CANDIDATES"
    assert "tls/tcp: zeroRttMsg is required" in found["error"]


# -- One that listens --


FRAMED = b"\0\3one\0\3two\0\5three"


@pytest.mark.rfc("P-52", "SO-17", "P-05")
@pytest.mark.parametrize("level", ["prefer", "require", "no preference"])
def test_messages_that_came_in_the_syn_are_marked(scene: Scene, level: str) -> None:
    """Also one of which only the beginning did."""
    server = scene.server.start(receives, SERVER, level, True, 4, 2)
    server.told()
    early, late = FRAMED[:13], FRAMED[13:] + b"\0\4four"
    client = scene.client.start(sends_bare, SERVER, early.hex(), late.hex(), 2)
    first, second = server.told(), server.told()
    words = [b"one".hex(), b"two".hex(), b"three".hex(), b"four".hex()]
    assert first == [False, [[word, None] for word in words]]
    marks = [True, True, True, None] if level != "no preference" else 4 * [None]
    assert second == [marks[0] is True, [list(one) for one in zip(words, marks, strict=True)]]
    client.result()


@pytest.mark.rfc("P-52")
@pytest.mark.parametrize("cut", [5, 10])
def test_the_mark_ends_where_a_message_does(scene: Scene, cut: int) -> None:
    server = scene.server.start(receives, SERVER, "prefer", True, 3, 2)
    server.told()
    client = scene.client.start(sends_bare, SERVER, FRAMED[:cut].hex(), FRAMED[cut:].hex(), 2)
    server.told()
    marks = [mark for _, mark in server.told()[1]]
    assert marks == [True, True if cut == 10 else None, None]
    client.result()


@pytest.mark.rfc("P-52")
def test_a_stream_that_began_early_is_one_message(scene: Scene) -> None:
    server = scene.server.start(receives, SERVER, "prefer", False, 2, 2)
    server.told()
    client = scene.client.start(sends_bare, SERVER, b"early".hex(), b"late".hex(), 2)
    assert [mark for _, mark in server.told()[1]] == [None, None]
    assert server.told() == [True, [[b"early".hex(), True], [b"late".hex(), True]]]
    client.result()


def test_between_two_of_ours(scene: Scene) -> None:
    server = scene.server.start(receives, SERVER, "prefer", True, 1, 2)
    server.told()
    found = scene.send(framer="plain", size=3000)
    message = (b"m" * 3000).hex()
    assert [server.told(), server.told()] == [[False, [[message, None]]], [True, [[message, True]]]]
    assert [one["early"] for one in found] == ["False", "True"]


@pytest.mark.rfc("ZR-03", "OR-09")
def test_the_rest_keeps_to_the_limit_of_the_rate(scene: Scene) -> None:
    server = scene.serve()
    properties = {"zeroRttMsg": "prefer", "maxSendRate": 80_000}  # bit/s
    found = scene.send(size=20_000, properties=properties, more=["one"])
    assert all_of(server) == [(None, b"m" * 20_000 + b"one"), (IN_A_SYN, b"m" * 20_000 + b"one")]
    assert found[1]["events"] == ["ready", "sent", "sent", "closed"]
    assert found[1]["seconds"] > 0.5


def greets(address: str, size: int, lost: bool) -> None:
    """Open a connection below a layer that greets, perhaps lose the cookie, and only then write."""
    plugin = Tcp()
    attempt = Attempt((address, PORT), greets=True, deadline=Deadline(20))
    transport = plugin.open(attempt, None)
    assert transport.get_extra_info("peername") is None  # nothing has been sent yet
    if lost:
        subprocess.run(["ip", "tcp_metrics", "flush"], check=True)
    transport.start(Protocol())
    transport.write(b"g" * size)
    until(lambda: transport.get_extra_info("peername"))  # such a layer waits for its peer
    transport.close()
    transport.wait_closed(20)


@pytest.mark.rfc("ZR-04")
@pytest.mark.parametrize("size", [5, 100_000])
def test_what_a_layer_says_first(scene: Scene, size: int) -> None:
    """As much as fits goes in the SYN; all of it later, if the cookie is lost before it is used."""
    server = scene.serve()
    scene.send(times=1)
    all_of(server, 1)
    for lost in (False, True):
        scene.client.call(greets, SERVER, size, lost)
        early = None if lost else min(size, IN_A_SYN)
        assert all_of(server, 1) == [(early, b"g" * size)]
