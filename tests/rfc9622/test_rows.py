"""Items of the lists that needed a test of their own, and nothing else in common."""

from __future__ import annotations

import socket
from typing import Any

import gevent
import pytest
from conftest import Certificates
from gevent import socket as gsocket
from greentaps import (
    ConnectionState,
    EstablishmentError,
    Framer,
    LengthPrefixFramer,
    MessageContext,
    Preconnection,
    PropertyError,
    Reason,
    SecurityParameters,
    TlvFramer,
    TransportProperties,
)
from greentaps.plugins import NEVER, register, unregister
from greentaps.plugins.tcp import Tcp
from greentaps.plugins.tls import Tls
from greentaps.taps.properties import TABLE, Group
from rfc9622.world import (
    Log,
    Network,
    datagram_peer,
    datagrams,
    ip,
    joined,
    listening,
    network,
    towards,
)
from taps.helpers import (
    HERE,
    free_port,
    local,
    pair,
    plain_listener,
    port_of,
    read_all,
    read_exactly,
    remote,
    until,
)


@pytest.mark.rfc("N-06", "P-02")
@pytest.mark.parametrize("action", ["initiate", "listen"])
def test_a_framer_does_not_make_tcp_a_transport_of_messages(action: str) -> None:
    """Only what the transport itself keeps counts for preserveMsgBoundaries."""
    wishes = TransportProperties().require("preserveMsgBoundaries")
    made = Preconnection(local(), remote(free_port()), wishes).add_framer(LengthPrefixFramer())
    with pytest.raises(EstablishmentError) as caught:
        getattr(made, action)()
    assert caught.value.reason is Reason.NO_CANDIDATES
    with (
        listening(of=Preconnection(local()).add_framer(LengthPrefixFramer())) as listener,
        towards(listener).add_framer(LengthPrefixFramer()).initiate() as connection,
    ):
        assert connection.get_properties().get("preserveMsgBoundaries") is False


@pytest.mark.rfc("N-11", "SP-02")
@pytest.mark.parametrize("security", [None, SecurityParameters.disabled()])
def test_security_is_only_added_where_it_was_asked_for(security: Any) -> None:
    """Without SecurityParameters it is as with disabled ones, and both say so."""
    with plain_listener() as listener:
        made = Preconnection(
            remote_endpoint=remote(listener.getsockname()[1]), security_parameters=security
        )
        assert ("security=none" in repr(made)) is (security is None)
        connection = made.initiate(timeout=10)
        peer, _ = listener.accept()
        connection.send(b"in clear")
        assert read_exactly(peer, 8) == b"in clear"
        assert connection.stack == "tcp"
        connection.abort()
        peer.close()
    # And where it was, there is no way around it.
    with pytest.raises(EstablishmentError), plain_listener() as listener:
        Preconnection(
            remote_endpoint=remote(listener.getsockname()[1]),
            security_parameters=SecurityParameters(),
        ).initiate(timeout=0.2)


@pytest.mark.rfc("A-08", "A-06")
def test_the_common_properties_have_defaults_and_are_there_on_every_stack(
    certificates: Certificates,
) -> None:
    common = [row for row in TABLE if not row.namespace and row.group is not Group.RECEIVED]
    assert len(common) > 40
    defaults = TransportProperties()
    for row in common:
        if row.group is not Group.READ_ONLY:
            assert defaults.get(row.name) == row.default, row.name
            assert not defaults.is_set(row.name)
    with (
        joined() as (tcp, _),
        pair("tls/tcp", certificates) as (tls, _),
        datagram_peer() as (udp, _),
    ):
        for connection in (tcp, tls, udp):
            properties = connection.get_properties()
            for row in common:
                assert properties.get(row.name) is not None, (connection.stack, row.name)


@pytest.mark.rfc("A-12", "SP-05", "MU-12", "MU-13")
@pytest.mark.parametrize("versions", [("tls_1_3",), ("tls_1_2",), ("tls_1_2", "tls_1_3")])
def test_the_application_says_which_versions_are_allowed(
    versions: tuple[str, ...], certificates: Certificates
) -> None:
    server = SecurityParameters().add_identity(certificates.server, role="server")
    client = SecurityParameters().add_trust_ca(certificates.ca).allow_protocols(*versions)
    with Preconnection(local(), None, None, server).listen() as listener:
        made = Preconnection(None, remote(port_of(listener)), None, client)
        with made.initiate(timeout=10) as connection, listener.accept(timeout=10):
            spoken = connection.transport.get_extra_info("tls_version")
            assert spoken == max(versions).replace("tls_1_", "TLSv1.")


@pytest.mark.rfc("A-21", "O-05", "CM-01", "MU-19")
def test_late_changes_are_made_as_far_as_the_protocol_can() -> None:
    with joined() as (client, server):
        client.set_property("connTimeout", 30)  # TCP can
        option = socket.TCP_USER_TIMEOUT
        handle = client.transport.get_extra_info("handle")
        with socket.socket(fileno=socket.dup(handle.fileno())) as probe:
            assert probe.getsockopt(socket.IPPROTO_TCP, option) == 30_000
        client.set_property("recvChecksumLen", 8)  # TCP cannot, and lives
        assert client.get_properties().get("recvChecksumLen") == 8
        with pytest.raises(PropertyError):
            client.set_property("reliability", "ignore")  # too late for those
        client.send(b"alive")
        assert server.receive(1, timeout=10).data == b"alive"
    with datagram_peer() as (connection, peer):
        connection.set_property("connTimeout", 30)  # UDP has nothing to time out
        connection.set_property("keepAliveTimeout", 5)
        connection.send(b"alive")
        assert peer.recv(10) == b"alive"


@pytest.mark.rfc("AC-04", "SP-04", "SP-16", "SP-17")
def test_the_actions_of_security_parameters(certificates: Certificates) -> None:
    asked: list[str] = []

    def judge(question: Any) -> bool:
        asked.append("trust")
        return True

    def identify(question: Any) -> Any:
        asked.append("identity")
        return certificates.client

    client = (
        SecurityParameters()
        .set("allowedSecurityProtocols", "tls_1_3")
        .set_trust_verification_callback(judge)
        .set_identity_challenge_callback(identify)
    )
    server = SecurityParameters().add_identity(certificates.server, role="server")
    server.add_trust_ca(certificates.ca)
    with Preconnection(local(), None, None, server).listen() as listener:
        made = Preconnection(None, remote(port_of(listener)), None, client)
        with made.initiate(timeout=10), listener.accept(timeout=10) as accepted:
            assert accepted.transport.get_extra_info("peer_authenticated") is True
    assert asked == ["trust", "identity"]


@pytest.mark.rfc("G-13", "SP-16")
def test_a_clone_asks_the_same_callback(certificates: Certificates) -> None:
    asked: list[Any] = []
    client = SecurityParameters().set_trust_verification_callback(lambda q: not asked.append(q))
    server = SecurityParameters().add_identity(certificates.server, role="server")
    with Preconnection(local(), None, None, server).listen() as listener:
        parent = Preconnection(None, remote(port_of(listener)), None, client).initiate(timeout=10)
        clone = parent.clone(timeout=10)
        assert len(asked) == 2
        for _ in range(2):
            listener.accept(timeout=10).abort()
        parent.abort()
        clone.abort()


@pytest.mark.rfc("X-01")
def test_what_the_peer_need_not_know_stays_here() -> None:
    framer = TlvFramer()
    wishes = TransportProperties().set("connPriority", 3).set("msgLifetime", 100)
    wishes.set("minSendRate", 1000).set("interface", [("avoid", "no-such0")])
    with plain_listener() as listener:
        end = remote(listener.getsockname()[1]).with_interface("any")
        made = Preconnection(None, end, wishes)
        context = MessageContext().add("msgPriority", 7).add(framer, "type", 9)
        connection = made.initiate_with_send(b"data", context, timeout=10)
        connection.send(b"more", MessageContext().add("safelyReplayable", True))
        peer, _ = listener.accept()
        connection.close(wait=False)
        with peer:
            assert read_all(peer) == b"datamore"
        until(lambda: connection.state is ConnectionState.CLOSED)


@pytest.mark.rfc("DN-04", "TC-06")
def test_tcp_is_ready_when_its_handshake_is_done_and_not_before() -> None:
    with gsocket.socket() as full:
        full.bind((HERE, 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = []
        for _ in range(2):  # nobody accepts: what comes now waits in its handshake
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((HERE, port))
            fillers.append(filler)
        made = Preconnection(remote_endpoint=remote(port))
        log = Log(made)
        connection = made.initiate(wait=False, timeout=20)
        gevent.sleep(0.05)
        assert connection.state is ConnectionState.ESTABLISHING
        assert log == []
        full.settimeout(20)
        accepted = [full.accept()[0] for _ in range(2)]  # now there is room
        until(lambda: log)
        assert log.names == ["ready"]
        connection.abort()
        for end in (*fillers, *accepted):
            end.close()


class Knock(Framer):
    """Is ready when the peer has answered."""

    def start(self, link: Any) -> None:
        link.delay_ready()
        link.send(b"knock")

    def new_sent_message(self, link: Any, data: Any, context: Any, end: bool) -> None:
        link.send(data)

    def handle_received_data(self, link: Any) -> None:
        data = link.take(link.received)
        if data == b"who is there?":
            link.make_connection_ready()
        else:
            link.deliver(None, data)


@pytest.mark.rfc("DN-08", "MF-03", "F-05")
def test_a_framer_finds_out_whether_a_datagram_peer_is_there() -> None:
    with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((HERE, 0))
        peer.settimeout(20)
        made = Preconnection(
            remote_endpoint=remote(peer.getsockname()[1]), transport_properties=datagrams()
        ).add_framer(Knock())
        with pytest.raises(EstablishmentError) as caught:
            made.initiate(timeout=0.1)
        assert caught.value.reason is Reason.TIMEOUT
        assert peer.recv(10) == b"knock"
        log = Log(made)
        connection = made.initiate(wait=False, timeout=20)
        data, address = peer.recvfrom(10)
        assert (data, log) == (b"knock", [])
        peer.sendto(b"who is there?", address)
        until(lambda: log)
        assert log.names == ["ready"]
        peer.sendto(b"a word", address)
        assert connection.receive(timeout=10).data == b"a word"
        connection.abort()


@pytest.mark.rfc("MG-01", "G-03")
def test_a_change_is_told_to_the_whole_stack(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str, Any]] = []
    for kind in (Tcp, Tls):
        original = kind.apply

        def apply(
            self: Any, transport: Any, name: str, value: Any, original: Any = original
        ) -> None:
            told.append((self.name, name, value))
            original(self, transport, name, value)

        monkeypatch.setattr(kind, "apply", apply)
    with pair("tls/tcp", certificates) as (client, server):
        client.set_property("connCapacityProfile", "scavenger")
        assert told == [("tls", "connCapacityProfile", 1), ("tcp", "connCapacityProfile", 1)]
        # One store for all of it, and another one for each Connection outside the group.
        assert server.get_properties().get("connCapacityProfile").value == "Default"
        told.clear()
        # What belongs to TCP changes TCP alone.
        client.set_property("tcp.userTimeoutValue", 9)
        assert {name for _, name, _ in told} == {"tcp.userTimeoutValue"}
        client.send(b"x")
        assert server.receive(1, timeout=10).data == b"x"


@pytest.mark.rfc("MG-02")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_protocol_on_top_can_keep_a_change_from_those_below(
    when: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if TLS had keep-alives of its own: TCP sends none then."""
    seen_to: list[tuple[str, Any]] = []

    def apply(self: Any, transport: Any, name: str, value: Any) -> bool:
        if name == "keepAliveTimeout":
            seen_to.append((name, value))
        return name == "keepAliveTimeout"

    monkeypatch.setattr(Tls, "apply", apply)
    wish = TransportProperties().require("keepAlive").set("connTimeout", 600)
    server = SecurityParameters().add_identity(certificates.server, role="server")
    client = SecurityParameters().add_trust_ca(certificates.ca)
    with Preconnection(local(), None, None, server).listen() as listener:
        made = Preconnection(None, remote(port_of(listener)), wish, client)
        connection = made.initiate(timeout=20, wait=False)
        if when == "before":  # the stack is there
            connection.set_property("keepAliveTimeout", 77)
            connection.set_property("connTimeout", 500)
        until(lambda: connection.state is ConnectionState.ESTABLISHED)
        if when == "after":
            connection.set_property("keepAliveTimeout", 77)
            connection.set_property("connTimeout", 500)
        assert ("keepAliveTimeout", 77) in seen_to
        handle = connection.transport.get_extra_info("handle")
        with socket.socket(fileno=socket.dup(handle.fileno())) as here:
            assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) != 77
            assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 500_000
        listener.accept(timeout=10).abort()
        connection.abort()


@pytest.mark.rfc("FM-14", "P-16", "P-33", "P-34", "P-36", "P-37")
@pytest.mark.parametrize("properties", [TransportProperties, datagrams], ids=["tcp", "udp"])
@pytest.mark.parametrize(
    ("direction", "sends", "receives"),
    [
        ("bidirectional", True, True),
        ("unidirectional-send", True, False),
        ("unidirectional-receive", False, True),
    ],
)
def test_every_protocol_offers_every_direction(
    properties: Any, direction: str, sends: bool, receives: bool
) -> None:
    theirs = properties()
    with listening(theirs) as listener:
        client = towards(listener, properties().set("direction", direction)).initiate(timeout=10)
        get = client.get_properties().get
        assert (get("canSend"), get("canReceive")) == (sends, receives)
        assert (get("sendMsgMaxLen") > 0, get("recvMsgMaxLen") > 0) == (sends, receives)
        client.abort()


class SecondTcp(Tcp):
    """TCP once more, without keep-alives."""

    name = "tcp2"
    offers = {**Tcp.offers, "keepAlive": NEVER}  # noqa: RUF012 - as the base class has it


@pytest.mark.rfc("TP-06", "SH-06")
def test_the_path_is_chosen_before_the_protocol() -> None:
    """The protocol that is preferred is tried over the other path after the one that is not has
    been tried over the preferred path."""
    with network():
        ip(
            "link add other0 type veth peer name other1",
            "link set other1 up",
            "link set other0 up",
            "addr add 198.51.100.1/24 dev other0",
        )
        wishes = TransportProperties().prefer("keepAlive")
        left = [("prohibit", "lo"), ("prohibit", "other1")]
        wishes.set("interface", [("prefer", "here0"), *left])
        second = SecondTcp()
        register(second)
        try:
            with pytest.raises(EstablishmentError) as caught:
                Preconnection(None, remote(free_port(), Network.THERE), wishes).initiate(timeout=2)
        finally:
            unregister(second)
    order = [
        (candidate.interface, candidate.stack[0].name) for candidate, _ in caught.value.attempts
    ]
    assert order[:2] == [("here0", "tcp"), ("here0", "tcp2")]
    assert set(order[2:]) == {("other0", "tcp"), ("other0", "tcp2")}
