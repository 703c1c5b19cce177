"""UDP below the API (RFC 9623 sections 4.6 and 10.3): what else the mapping promises."""

from __future__ import annotations

import socket

import gevent
import pytest
from gevent import socket as gsocket
from greentaps import (
    ConnectionState,
    EstablishmentError,
    Preconnection,
    Reason,
    TransportProperties,
)
from rfc9622.world import Log, datagram_peer, datagrams, listening, plain, towards
from taps.helpers import HERE, in_greenlet, plain_listener, remote, until


@pytest.mark.rfc("TT-02", "BR-09", "PF-03", "FM-13", "UD-03")
def test_the_datagram_profile_chooses_udp() -> None:
    with plain(HERE, socket.SOCK_DGRAM) as peer:
        connection = Preconnection(
            remote_endpoint=remote(peer.getsockname()[1]), transport_properties=datagrams()
        ).initiate(timeout=10)
        assert connection.stack == "udp"
        assert connection.remote_endpoint == remote(peer.getsockname()[1])
        connection.abort()


@pytest.mark.rfc("TT-04", "P-44", "FM-13")
def test_without_safely_replayable_udp_is_no_candidate() -> None:
    wishes = datagrams().set("safelyReplayable", False)
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(remote_endpoint=remote(1), transport_properties=wishes).initiate()
    assert caught.value.reason is Reason.NO_CANDIDATES
    assert "safelyReplayable" in caught.value.message


@pytest.mark.rfc("P-01", "P-04", "TP-09", "A-09", "TT-01")
@pytest.mark.parametrize("name", ["reliability", "preserveOrder", "congestionControl"])
def test_each_default_requirement_alone_excludes_udp(name: str) -> None:
    wishes = datagrams().set(name, "require").set("preserveMsgBoundaries", "ignore")
    with plain_listener() as listener:
        connection = Preconnection(
            remote_endpoint=remote(listener.getsockname()[1]), transport_properties=wishes
        ).initiate(timeout=10)
        assert connection.stack == "tcp"
        connection.abort()


@pytest.mark.rfc("UD-08", "LE-01", "UD-12")
def test_an_unreachable_peer_ends_nothing() -> None:
    """An ICMP error costs no datagram that comes after it."""
    with datagram_peer() as (connection, peer):
        log = Log(connection)
        address = peer.getsockname()
        peer.close()
        for _ in range(3):
            connection.send(b"nobody")
            until(lambda: log)
            log.clear()
        with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.settimeout(10)
            again.bind(address)
            connection.send(b"somebody")
            assert again.recv(100) == b"somebody"
        assert connection.state is ConnectionState.ESTABLISHED


@pytest.mark.rfc("UD-10", "LS-05", "UD-03")
def test_only_the_peer_is_heard() -> None:
    with datagram_peer() as (connection, peer):
        _, port = connection.transport.get_extra_info("sockname")
        with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"stranger", (HERE, port))
        peer.sendto(b"peer", (HERE, port))
        assert connection.receive(timeout=10).data == b"peer"


@pytest.mark.rfc("RV-04", "UD-13")
def test_datagrams_that_nobody_takes_are_dropped_by_the_kernel_or_held() -> None:
    with datagram_peer() as (connection, peer):
        _, port = connection.transport.get_extra_info("sockname")
        for number in range(5000):
            peer.sendto(number.to_bytes(2, "big") * 500, (HERE, port))
            if not number % 100:
                gevent.sleep(0)
        assert connection._inbox.size < 512 * 1024
        assert connection.receive(timeout=10).data == bytes(1000)


@pytest.mark.rfc("A-16", "A-03")
def test_where_reliability_is_not_needed_tcp_will_do() -> None:
    wishes = TransportProperties(
        reliability="ignore", preserveOrder="ignore", congestionControl="ignore"
    )
    with plain_listener() as listener:
        connection = Preconnection(
            remote_endpoint=remote(listener.getsockname()[1]), transport_properties=wishes
        ).initiate(timeout=10)
        assert connection.stack == "tcp"  # as safelyReplayable was not set
        connection.abort()


@pytest.mark.rfc("A-06", "DS-03")
def test_the_same_calls_over_ipv6() -> None:
    with plain("::1", socket.SOCK_DGRAM) as peer:
        connection = Preconnection(
            remote_endpoint=remote(peer.getsockname()[1], "::1"),
            transport_properties=datagrams(),
        ).initiate(timeout=10)
        waiting = in_greenlet(connection.receive)
        connection.send(b"there")
        data, address = peer.recvfrom(100)
        peer.sendto(data + b" and back", address)
        assert waiting.get().data == b"there and back"
        assert connection.get_properties().get("sendMsgMaxLen") == 65527
        connection.abort()


@pytest.mark.rfc("L-06", "N-12", "UD-10")
def test_the_limit_of_a_listener_holds_for_peers_of_udp() -> None:
    with listening(datagrams()) as listener:
        listener.set_new_connection_limit(1)
        clients = [towards(listener, datagrams()).initiate(timeout=10) for _ in range(2)]
        for number, client in enumerate(clients):
            client.send(bytes([number]))
        first = listener.accept(timeout=10)
        listener.set_new_connection_limit(1)
        second = listener.accept(timeout=10)
        assert [one.receive(timeout=10).data for one in (first, second)] == [b"\0", b"\1"]
        for connection in (*clients, first, second):
            connection.abort()
