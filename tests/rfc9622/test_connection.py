"""Managing Connections (RFC 9622 section 8): properties, and what they do on the network."""

from __future__ import annotations

import socket
import time

import pytest
from gevent import socket as gsocket
from greentaps import (
    ConnectionError,  # noqa: A004 - RFC 9622's own name
    ConnectionState,
    MessageContext,
    Preconnection,
    Reason,
    ReceiveError,
    SendError,
    TransportProperties,
)
from greentaps.taps.properties import (
    DISABLED,
    NOT_APPLICABLE,
    UNLIMITED,
    CapacityProfile,
    ErrorCode,
    PropertyError,
)
from rfc9622.world import (
    Log,
    datagram_peer,
    datagrams,
    ip,
    joined,
    listening,
    network,
    option,
    plain,
)
from taps.helpers import (
    HERE,
    Stopwatch,
    in_greenlet,
    plain_client,
    plain_listener,
    port_of,
    read_all,
    read_exactly,
    remote,
    until,
    with_plain_peer,
)

USER_TIMEOUT = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
TOS = (socket.IPPROTO_IP, socket.IP_TOS)
KEEP_ALIVE = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
KEEP_IDLE = (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)


def asked(**properties: object) -> TransportProperties:
    return TransportProperties(**properties)


# -- Reading and setting --


@pytest.mark.rfc("CM-01", "MU-18", "MU-19", "MG-03", "AC-07", "T-06")
@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("noSuchThing", 1, ErrorCode.UNKNOWN),
        ("connTimeout", "soon", ErrorCode.TYPE),
        ("connTimeout", 0, ErrorCode.VALUE),
        ("connState", "Closed", ErrorCode.READ_ONLY),
        ("canSend", True, ErrorCode.READ_ONLY),
        ("sendMsgMaxLen", 5, ErrorCode.READ_ONLY),
        ("reliability", "avoid", ErrorCode.MOMENT),
        ("tcp.userTimeoutEnabled", True, ErrorCode.REFUSED),
    ],
)
def test_a_property_that_cannot_be_set_never_ends_the_connection(
    name: str, value: object, code: ErrorCode
) -> None:
    with joined() as (client, server):
        before = dict(client.get_properties().items())
        with pytest.raises(PropertyError) as caught:
            client.set_property(name, value)
        assert caught.value.code is code
        assert dict(client.get_properties().items()) == before
        client.send(b"alive")
        assert server.receive(1, timeout=10).data == b"alive"


@pytest.mark.rfc("TT-19", "P-38", "MU-18", "MU-19", "CM-01")
def test_a_property_of_another_protocol_is_refused() -> None:
    with datagram_peer() as (connection, peer):
        with pytest.raises(PropertyError) as caught:
            connection.set_property("tcp.userTimeoutValue", 30)
        assert caught.value.code is ErrorCode.UNSUPPORTED
        connection.send(b"alive")
        assert peer.recv(10) == b"alive"


@pytest.mark.rfc("P-38", "P-39", "P-40", "SO-03", "MS-08")
def test_the_user_timeout_option() -> None:
    """This system cannot send it: that is refused, all else is taken."""
    with joined(asked(**{"tcp.userTimeoutValue": 30})) as (client, _):
        properties = client.get_properties()
        assert properties.get("tcp.userTimeoutValue") == 30
        client.set_property("tcp.userTimeoutValue", 40)
        client.set_property("tcp.userTimeoutEnabled", False)
        with pytest.raises(PropertyError, match="User Timeout Option"):
            client.set_property("tcp.userTimeoutEnabled", True)
        assert properties.get("tcp.userTimeoutEnabled") is False
        assert properties.get("tcp.userTimeoutChangeable") is True
        client.set_property("connTimeout", 5)
        assert properties.get("tcp.userTimeoutChangeable") is False


@pytest.mark.rfc("CM-02", "CM-03", "CM-05", "P-32", "P-33", "P-34", "AC-08", "ST-06")
def test_properties_can_be_read_in_every_state() -> None:
    seen = {}

    def note() -> None:
        properties = connection.get_properties()
        assert len(dict(properties.items())) == len(properties)
        names = ("canSend", "canReceive")
        seen[properties.get("connState")] = tuple(map(properties.get, names))

    with plain_listener() as listener:
        connection = Preconnection(remote_endpoint=remote(listener.getsockname()[1])).initiate(
            wait=False
        )
        note()
        peer, _ = listener.accept()
        until(lambda: connection.state is ConnectionState.ESTABLISHED)
        note()
        connection.close(wait=False)
        assert connection.state is ConnectionState.CLOSING
        note()
        peer.close()
        connection.close()
        note()
    assert seen == {
        ConnectionState.ESTABLISHING: (False, False),
        ConnectionState.ESTABLISHED: (True, True),
        ConnectionState.CLOSING: (False, False),
        ConnectionState.CLOSED: (False, False),
    }


@pytest.mark.rfc("CM-04", "CM-06", "TP-08", "X-06", "TT-01", "P-01", "P-04", "P-06", "AC-08")
def test_selection_properties_read_as_what_the_stack_has() -> None:
    with joined(asked(preserveMsgBoundaries="prefer")) as (client, _):
        properties = client.get_properties()
        assert properties.has("reliability") is properties.get("reliability") is True
        assert properties.get("preserveOrder") is True
        assert properties.get("preserveMsgBoundaries") is False
        assert properties.has("multistreaming") is False
        assert str(properties.get("direction")) == "Bidirectional"
        assert client.stack == "tcp"
    with datagram_peer() as (connection, _):
        properties = connection.get_properties()
        assert properties.get("preserveMsgBoundaries") is True
        assert properties.get("reliability") is properties.get("congestionControl") is False
        assert connection.stack == "udp"


@pytest.mark.rfc("CM-07", "A-14", "X-06", "O-05")
def test_the_path_in_use_is_told() -> None:
    with joined() as (client, server):
        assert client.local_endpoint is not None
        assert client.remote_endpoint is not None
        assert client.local_endpoint.ip_address == HERE
        assert server.remote_endpoint is not None
        assert server.remote_endpoint.port == client.local_endpoint.port
        assert [name for name, _ in client.phases] == ["resolution", "tcp"]


@pytest.mark.rfc("T-18", "SH-04", "P-19", "P-23", "P-25", "P-26", "P-27", "P-30", "P-31", "CS-01")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recvChecksumLen", 0),
        ("connScheduler", "first-come, first-served"),
        ("multipathPolicy", "aggregate"),
        ("minSendRate", 1000),
        ("minRecvRate", 1000),
        ("groupConnLimit", 3),
        ("isolateSession", True),
        ("connPriority", 0),
        ("msgChecksumLen", 8),
    ],
)
def test_what_has_no_effect_here_is_taken_all_the_same(name: str, value: object) -> None:
    with joined() as (client, server):
        client.set_property(name, value)
        assert client.get_properties().is_set(name)
        client.send(b"x")
        assert server.receive(1, timeout=10).data == b"x"


@pytest.mark.rfc("P-07", "P-08", "P-19", "P-46", "MS-12", "MS-13", "SO-10")
def test_without_udp_lite_everything_is_covered() -> None:
    """A lower coverage is a permission, which this system makes no use of."""
    wishes = datagrams().set("fullChecksumSend", "avoid").set("recvChecksumLen", 0)
    with datagram_peer(wishes) as (connection, peer):
        connection.send(b"covered", MessageContext().add("msgChecksumLen", 0))
        assert peer.recv(100) == b"covered"
        assert connection.get_properties().get("fullChecksumSend") is True


# -- Keep-alives and time-outs --


@pytest.mark.rfc("P-10", "SO-04", "N-07")
@pytest.mark.parametrize("level", ["require", "prefer", "avoid", "prohibit", "no-preference"])
def test_keep_alive_is_visible_on_the_socket(level: str) -> None:
    wanted = level in ("require", "prefer")
    with joined(asked(keepAlive=level), asked(keepAlive=level)) as ends:
        for connection in ends:
            assert bool(option(connection, *KEEP_ALIVE)) is wanted
            assert connection.get_properties().get("keepAlive") is wanted


@pytest.mark.rfc("P-22", "SO-04", "N-07")
def test_the_keep_alive_period() -> None:
    with joined(asked(keepAlive="require", keepAliveTimeout=17)) as (client, _):
        assert option(client, *KEEP_IDLE) == 17
        client.set_property("keepAliveTimeout", 23)
        assert option(client, *KEEP_IDLE) == 23
        client.set_property("keepAliveTimeout", DISABLED)
        assert not option(client, *KEEP_ALIVE)
    with joined(asked(keepAlive="require", keepAliveTimeout=DISABLED)) as (client, _):
        assert not option(client, *KEEP_ALIVE)
    with joined() as (client, _):
        client.set_property("keepAliveTimeout", 9)
        assert option(client, *KEEP_ALIVE)
        assert option(client, *KEEP_IDLE) == 9


@pytest.mark.rfc("P-22")
def test_keep_alives_that_would_come_too_late_are_not_sent() -> None:
    with joined(asked(keepAlive="require", keepAliveTimeout=20, connTimeout=10)) as (client, _):
        assert not option(client, *KEEP_ALIVE)
        client.set_property("keepAliveTimeout", 5)
        assert option(client, *KEEP_ALIVE)
        client.set_property("keepAliveTimeout", 30)
        assert not option(client, *KEEP_ALIVE)


@pytest.mark.rfc("P-21", "SO-02", "MS-06")
def test_the_connection_timeout_is_on_the_socket() -> None:
    with joined(asked(connTimeout=2.5), asked(connTimeout=3)) as (client, server):
        assert option(client, *USER_TIMEOUT) == 2500
        assert option(server, *USER_TIMEOUT) == 3000
        client.set_property("connTimeout", 1e300)
        assert option(client, *USER_TIMEOUT) == 2**31 - 1
        client.set_property("connTimeout", DISABLED)
        assert option(client, *USER_TIMEOUT) == 0


@pytest.mark.rfc("P-21", "ER-12", "TM-06", "MS-07", "EV-16", "TC-08", "LE-01", "MS-30", "MG-04")
@pytest.mark.rfc("P-17", "SO-08")
@pytest.mark.netns
def test_a_cable_that_is_cut() -> None:
    """First the warnings of retransmissions, then the end, after connTimeout."""
    with network() as net:
        with net.there():
            listener = plain(net.THERE)
        with listener:
            connection = Preconnection(
                remote_endpoint=net.remote(listener.getsockname()[1]),
                transport_properties=asked(connTimeout=3, softErrorNotify="require"),
            ).initiate(timeout=10)
            peer, _ = listener.accept()
            log = Log(connection)
            net.cut()
            connection.send(b"into the void")
            with pytest.raises(ConnectionError) as caught, Stopwatch() as took:
                connection.receive()
            assert caught.value.reason is Reason.TIMEOUT
            assert 2.5 < took.seconds < 20
            until(lambda: log.ended)
            assert log.names == ["path_change", "soft_error", "connection_error"]
            assert "retransmissions" in str(log[1][1])
            peer.close()


@pytest.mark.rfc("PX-01", "PX-03", "TT-22", "LE-02")
@pytest.mark.netns
def test_a_path_that_goes_and_comes_back() -> None:
    with network() as net:
        with net.there():
            listener = plain(net.THERE)
        with listener:
            connection = Preconnection(
                remote_endpoint=net.remote(listener.getsockname()[1])
            ).initiate(timeout=10)
            peer, _ = listener.accept()
            log = Log(connection)
            ip("link set here0 down")
            connection.send(b"later", timeout=10)
            until(lambda: log.names == ["path_change"])
            ip("link set here0 up")
            peer.settimeout(30)
            assert read_exactly(peer, 5) == b"later"
            assert connection.state is ConnectionState.ESTABLISHED
            until(lambda: log.names == ["path_change", "path_change"])
            connection.abort()
            peer.close()


# -- Marks --


@pytest.mark.rfc(
    "P-24", "SO-05", "CP-01", "CP-02", "CP-03", "CP-04", "CP-05", "CP-06", "SH-15", "MS-18", "SH-17"
)
@pytest.mark.parametrize("profile", list(CapacityProfile))
def test_the_capacity_profile_is_on_the_packets(profile: CapacityProfile) -> None:
    dscp = {
        "Default": {0},
        "Scavenger": {1},
        "Low Latency/Interactive": {34, 36, 38, 44, 46},
        "Low Latency/Non-Interactive": {18, 20, 22},
        "Constant-Rate Streaming": {26, 28, 30},
        "Capacity-Seeking": {10, 12, 14},
    }[profile.value]
    with joined(asked(connCapacityProfile=profile)) as (client, server):
        assert option(client, *TOS) >> 2 in dscp
        # Nagle's algorithm never delays a Message, at neither end.
        assert option(client, socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option(server, socket.IPPROTO_TCP, socket.TCP_NODELAY)
        server.set_property("connCapacityProfile", profile)
        assert option(server, *TOS) >> 2 in dscp
    with datagram_peer(datagrams().set("connCapacityProfile", profile)) as (connection, peer):
        peer.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        connection.send(b"x")
        assert tos_of(peer)[1] >> 2 in dscp
        connection.set_property("connCapacityProfile", "default")
        connection.send(b"x")
        assert tos_of(peer)[1] == 0


def tos_of(peer: gsocket.socket) -> tuple[bytes, int]:
    data, [(_, kind, value)], _, _ = peer.recvmsg(100, socket.CMSG_SPACE(4))
    assert kind == socket.IP_TOS
    return data, value[0]


@pytest.mark.rfc("P-48", "DS-11", "MC-10", "SO-05", "UD-12")
def test_a_message_has_a_mark_of_its_own_over_udp() -> None:
    with datagram_peer(datagrams().set("connCapacityProfile", "scavenger")) as (connection, peer):
        peer.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        urgent = MessageContext().add("msgCapacityProfile", "low-latency/interactive")
        connection.send(b"urgent", urgent)
        connection.send(b"usual")
        marks = [tos_of(peer)[1] >> 2 for _ in range(2)]
        assert marks == [CapacityProfile.LOW_LATENCY_INTERACTIVE.dscp, 1]
        connection.set_property("msgCapacityProfile", "capacity-seeking")
        connection.send(b"default")
        assert tos_of(peer)[1] >> 2 == 10


@pytest.mark.rfc("DS-11", "P-48", "MC-08")
def test_over_tcp_no_message_changes_the_mark() -> None:
    with joined(asked(connCapacityProfile="scavenger")) as (client, server):
        assert client.get_properties().get("msgCapacityProfile") is CapacityProfile.SCAVENGER
        client.send(b"x", MessageContext().add("msgCapacityProfile", "capacity-seeking"))
        assert server.receive(1, timeout=10).data == b"x"
        assert option(client, *TOS) == 1 << 2


@pytest.mark.rfc("O-06", "P-24")
def test_the_marks_of_a_listeners_flows_are_their_own() -> None:
    """They share one socket."""
    with listening(datagrams()) as listener:
        peers = [gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        servers = []
        for peer in peers:
            peer.settimeout(10)
            peer.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            peer.sendto(b"hello", (HERE, port_of(listener)))
            servers.append(listener.accept(timeout=10))
        servers[0].set_property("connCapacityProfile", "scavenger")
        for server in servers:
            server.send(b"marked?")
        assert [tos_of(peer)[1] >> 2 for peer in peers] == [1, 0]
        servers[0].send(b"x", MessageContext().add("msgCapacityProfile", "capacity-seeking"))
        servers[0].send(b"x")
        assert [tos_of(peers[0])[1] >> 2 for _ in range(2)] == [10, 1]
        for peer in peers:
            peer.close()
        for server in servers:
            server.abort()


# -- Sizes --


@pytest.mark.rfc("P-35", "P-36", "P-37", "MS-15", "MS-16", "SO-12", "SO-13", "CM-07")
@pytest.mark.netns
def test_lengths_over_udp_follow_the_mtu() -> None:
    with network() as net:
        with net.there():
            peers = [plain(address, socket.SOCK_DGRAM) for address in (net.THERE, net.THERE6)]
        for peer, headers, largest in zip(peers, (28, 48), (65507, 65527), strict=True):
            address, port = peer.getsockname()[:2]
            connection = Preconnection(
                remote_endpoint=remote(port, address), transport_properties=datagrams()
            ).initiate(timeout=10)
            get = connection.get_properties().get
            assert get("singularTransmissionMsgMaxLen") == 1500 - headers
            assert get("sendMsgMaxLen") == get("recvMsgMaxLen") == largest
            ip("link set here0 mtu 1400")
            assert get("singularTransmissionMsgMaxLen") == 1400 - headers
            ip("link set here0 mtu 1500")
            connection.abort()
            peer.close()


@pytest.mark.rfc("P-35", "P-36", "P-37")
def test_lengths_over_tcp() -> None:
    with joined() as (client, _):
        get = client.get_properties().get
        assert get("singularTransmissionMsgMaxLen") is NOT_APPLICABLE
        assert get("sendMsgMaxLen") > 0
        assert get("recvMsgMaxLen") > 0


@pytest.mark.rfc("P-16", "P-33", "P-36", "SN-14", "ER-01")
def test_a_connection_that_only_receives() -> None:
    wishes = asked(direction="unidirectional-receive")
    with joined(wishes) as (client, server):
        get = client.get_properties().get
        assert get("canSend") is False
        assert get("sendMsgMaxLen") == 0
        with pytest.raises(SendError) as caught:
            client.send(b"x")
        assert caught.value.reason is Reason.INVALID_CONFIGURATION
        server.send(b"one way")
        assert client.receive(1, timeout=10).data == b"one way"


@pytest.mark.rfc("P-16", "P-34", "P-37", "RV-15")
def test_a_connection_that_only_sends() -> None:
    wishes = asked(direction="unidirectional-send")
    with joined(wishes) as (client, server):
        get = client.get_properties().get
        assert get("canReceive") is False
        assert get("recvMsgMaxLen") == 0
        server.send(b"unwanted")
        with pytest.raises(ReceiveError) as caught:
            client.receive()
        assert caught.value.reason is Reason.INVALID_CONFIGURATION
        client.send(b"one way")
        assert server.receive(1, timeout=10).data == b"one way"


# -- Rates --


@pytest.mark.rfc("P-28", "SO-20")
def test_the_send_rate_holds_in_every_second() -> None:
    rate = 80_000  # bit/s, so 10 000 bytes in any second
    with plain_listener() as listener:
        connection = Preconnection(
            remote_endpoint=remote(listener.getsockname()[1]),
            transport_properties=asked(maxSendRate=rate),
        ).initiate(timeout=10)
        peer, _ = listener.accept()
        peer.settimeout(20)
        final = MessageContext().add("final", True)
        sending = in_greenlet(connection.send, bytes(25_000), final)
        arrivals: list[tuple[float, int]] = []
        while data := peer.recv(65536):
            arrivals.append((time.monotonic(), len(data)))
        assert sum(size for _, size in arrivals) == 25_000
        for begin, _ in arrivals:
            # What two bursts bring into one window is what the kernel's clock may shift them by.
            within = sum(size for at, size in arrivals if begin <= at < begin + 0.9)
            assert within <= 10_000
        assert arrivals[-1][0] - arrivals[0][0] > 1.8
        assert sending.get() is final
        peer.close()
        connection.abort()


@pytest.mark.rfc("P-28", "P-45", "TM-01")
def test_the_limit_of_sending_can_be_lifted() -> None:
    with plain_listener() as listener:
        connection = Preconnection(
            remote_endpoint=remote(listener.getsockname()[1]),
            transport_properties=asked(maxSendRate=8),
        ).initiate(timeout=10)
        peer, _ = listener.accept()
        peer.settimeout(20)
        connection.send(bytes(100_000), wait=False)
        connection.send(b"end", MessageContext().add("final", True), wait=False)
        assert len(peer.recv(100)) == 1
        connection.set_property("maxSendRate", UNLIMITED)
        assert len(read_all(peer)) == 100_002
        peer.close()
        connection.abort()


@pytest.mark.rfc("P-29", "SO-20", "RV-04")
def test_the_receive_rate_holds_back_the_peer() -> None:
    with listening(asked(maxRecvRate=800_000)) as listener, plain_client(port_of(listener)) as peer:
        server = listener.accept(timeout=10)
        sending = in_greenlet(peer.sendall, bytes(200_000))
        received, begun, moments = 0, time.monotonic(), []
        while received < 200_000:
            received += len(server.receive(1, timeout=10).data)
            moments.append((time.monotonic() - begun, received))
        # One chunk of 64 KiB may go beyond the 100 000 bytes that a second allows.
        assert all(size <= 100_000 + 65_536 for at, size in moments if at < 0.9)
        assert moments[-1][0] > 0.9
        sending.get()
        server.abort()


@pytest.mark.rfc("P-29")
def test_the_limit_of_receiving_can_be_lifted() -> None:
    with with_plain_peer() as (connection, peer):
        connection.set_property("maxRecvRate", 8)
        peer.sendall(b"one")
        assert connection.receive(1, timeout=10).data == b"one"
        connection.set_property("maxRecvRate", UNLIMITED)
        peer.sendall(b"two")
        with Stopwatch() as took:
            assert connection.receive(1, timeout=10).data == b"two"
        assert took.seconds < 0.5


# -- Events of its life --


@pytest.mark.rfc("LE-01", "EV-07", "P-17", "UD-08", "MG-04", "MS-09", "SO-08")
def test_an_icmp_error_is_a_soft_error() -> None:
    with datagram_peer() as (connection, peer):
        log = Log(connection)
        address = peer.getsockname()
        peer.close()
        connection.send(b"to nobody")
        until(lambda: log)
        ((error,),) = log.of("soft_error")
        assert isinstance(error, ConnectionRefusedError)
        assert log.names == ["soft_error"]
        assert connection.state is ConnectionState.ESTABLISHED
        with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.settimeout(10)
            again.bind(address)
            connection.send(b"to somebody")
            assert again.recv(100) == b"to somebody"


@pytest.mark.rfc("LE-02", "EV-08", "SO-11", "SO-24")
@pytest.mark.netns
def test_a_smaller_path_mtu_is_a_path_change() -> None:
    with network() as net:
        with net.there():
            peer = plain(net.THERE, socket.SOCK_DGRAM)
        with peer:
            connection = Preconnection(
                remote_endpoint=net.remote(peer.getsockname()[1]),
                transport_properties=datagrams(),
            ).initiate(timeout=10)
            log = Log(connection)
            assert connection.get_properties().get("singularTransmissionMsgMaxLen") == 1472
            connection.send(bytes(1400), MessageContext().add("noFragmentation", True))
            ip("link set here0 mtu 1280")
            connection.send(bytes(1300))  # in fragments
            with pytest.raises(SendError) as caught:
                connection.send(bytes(1300), MessageContext().add("noFragmentation", True))
            assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
            until(lambda: log)
            assert log.names == ["path_change"]
            assert connection.state is ConnectionState.ESTABLISHED
            connection.abort()


@pytest.mark.rfc("P-15", "P-14", "P-25")
def test_no_other_paths_are_used_or_told_of() -> None:
    with joined(asked(multipath="active", advertisesAltaddr=True)) as (client, server):
        assert client.stack == "tcp"
        assert str(client.get_properties().get("multipath")) == "Active"
        client.set_property("multipathPolicy", "interactive")
        client.send(b"x")
        assert server.receive(1, timeout=10).data == b"x"


@pytest.mark.rfc("N-10")
def test_the_ecn_field_is_not_known_unless_it_is_asked_for() -> None:
    """It has a name of our own, and no IETF protocol's; the property says that there is nothing."""
    with datagram_peer() as (connection, peer):
        peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 2)
        connection.send(b"who are you?")
        _, address = peer.recvfrom(100)
        peer.sendto(b"ect(0)", address)
        message = connection.receive(timeout=10)
        assert message.data == b"ect(0)"
        assert message.context.get("ecn") is None
