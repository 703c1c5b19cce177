"""Endpoints (RFC 9622 section 6.1): what each identifier does to what is opened."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any

import pytest
from gevent import socket as gsocket
from greentaps import (
    EstablishmentError,
    LocalEndpoint,
    Preconnection,
    Reason,
    RemoteEndpoint,
    TransportProperties,
)
from greentaps.taps.choosing.candidates import choose_ways
from greentaps.taps.choosing.policy import SystemPolicy
from greentaps.taps.endpoint import Endpoint
from greentaps.taps.paths.survey import Path, Survey, interfaces
from greentaps.taps.properties import InterfaceType
from rfc9622.world import datagrams, ip, listening, network, option, plain
from taps.helpers import HERE, Stopwatch, free_port, local, plain_listener, port_of, remote

KINDS = pytest.mark.parametrize("kind", [LocalEndpoint, RemoteEndpoint])
IP_RECVTTL = 12  # in no Python's socket module


def refused(preconnection: Preconnection, action: str = "initiate") -> EstablishmentError:
    with pytest.raises(EstablishmentError) as caught:
        getattr(preconnection, action)(timeout=10)
    return caught.value


# -- What an Endpoint can say --


@pytest.mark.rfc("E-01", "E-02", "AC-01")
@KINDS
def test_a_new_endpoint_says_nothing(kind: type[Endpoint]) -> None:
    end = kind()
    said = (end.hostname, end.port, end.service, end.ip_address)
    assert (*said, end.interface, end.protocol, end.hop_limit) == (None,) * 7


@pytest.mark.rfc("E-15", "MU-10", "AC-02")
@KINDS
def test_each_identifier_is_held_once(kind: type[Endpoint]) -> None:
    end = kind()
    for turn in (1, 2):
        end.with_hostname(f"h{turn}.example").with_port(turn).with_service(f"s{turn}")
        end.with_ip_address(f"192.0.2.{turn}").with_interface(f"eth{turn}")
        end.with_protocol(f"p{turn}").with_hop_limit(turn)
    assert end.hostname == "h2.example"
    assert end.port == end.hop_limit == 2
    assert (end.service, end.ip_address, end.interface) == ("s2", "192.0.2.2", "eth2")
    assert end.protocol == "p2"


@pytest.mark.rfc("E-06")
@KINDS
@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1"])
def test_an_address_is_text_or_binary(kind: type[Endpoint], text: str) -> None:
    address = ipaddress.ip_address(text)
    forms = [kind().with_ip_address(form) for form in (text, address.packed, address)]
    assert {form.ip_address for form in forms} == {text}
    assert forms[0] == forms[1] == forms[2]
    assert kind().with_address(text) == forms[0]


@pytest.mark.rfc("E-08", "E-07")
@KINDS
def test_a_zone_is_an_interface(kind: type[Endpoint]) -> None:
    scoped = kind().with_ip_address("fe80::1%eth0").with_port(1)
    apart = kind().with_interface("eth0").with_ip_address("fe80::1").with_port(1)
    assert scoped == apart
    assert hash(scoped) == hash(apart)
    assert scoped.ip_address == apart.ip_address == "fe80::1%eth0"
    assert scoped.interface == "eth0"
    # A global address needs no zone to be clear.
    assert kind().with_interface("eth0").with_ip_address("2001:db8::1").ip_address == "2001:db8::1"
    assert kind().with_interface("any") == kind()


@pytest.mark.rfc("E-24", "E-16", "PC-02")
def test_alternatives_are_further_objects() -> None:
    scoped = RemoteEndpoint().with_ip_address("fe80::1%eth0").with_port(1)
    unscoped = RemoteEndpoint().with_ip_address("fe80::1").with_port(1)
    both = Preconnection(remote_endpoint=[scoped, unscoped])
    assert both.remote_endpoints == [scoped, unscoped]
    assert scoped != unscoped


# -- What they do --


@pytest.mark.rfc("E-06")
def test_with_an_address_the_name_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsocket, "getaddrinfo", None)
    with plain_listener() as listener:
        end = remote(listener.getsockname()[1]).with_hostname("elsewhere.invalid")
        connection = Preconnection(remote_endpoint=end).initiate(timeout=10)
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.hostname == "elsewhere.invalid"
        connection.abort()


@pytest.mark.rfc("E-21", "E-17", "PC-09")
def test_a_name_is_looked_up_by_the_action_and_all_its_addresses_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    dead = free_port()

    def answer(host: str, port: int, *args: object, **kwargs: object) -> list[object]:
        asked.append(host)
        kind = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, kind, 6, "", ("::1", dead, 0, 0)),
            (socket.AF_INET, kind, 6, "", (HERE, port)),
        ]

    monkeypatch.setattr(gsocket, "getaddrinfo", answer)
    with plain_listener() as listener:
        end = RemoteEndpoint().with_hostname("name.example").with_port(listener.getsockname()[1])
        preconnection = Preconnection(remote_endpoint=end)
        assert asked == []
        connection = preconnection.initiate(timeout=10)
        assert asked == ["name.example"] * 2  # once for each family
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.ip_address == HERE
        connection.abort()


@pytest.mark.rfc("E-03", "I-06", "ER-03")
def test_a_name_that_does_not_exist() -> None:
    end = RemoteEndpoint().with_hostname("no-such-host.invalid").with_port(1)
    assert refused(Preconnection(remote_endpoint=end)).reason is Reason.RESOLUTION_FAILED


@pytest.mark.rfc("E-05")
def test_a_service_stands_for_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, port in (("https", 443), ("http", 80)):
        end = RemoteEndpoint().with_ip_address("127.0.0.77").with_service(name)
        error = refused(Preconnection(remote_endpoint=end))
        ((candidate, _),) = error.attempts
        assert candidate.remote == ("127.0.0.77", port)


@pytest.mark.rfc("E-19", "E-16")
def test_the_second_remote_endpoint_serves_if_the_first_is_dead() -> None:
    with plain_listener() as listener:
        ends = [remote(free_port()), remote(listener.getsockname()[1])]
        connection = Preconnection(remote_endpoint=ends).initiate(timeout=10)
        assert connection.remote_endpoint == ends[1]
        connection.abort()


@pytest.mark.rfc("E-18")
def test_any_of_several_local_endpoints_may_be_the_source() -> None:
    taken = free_port()
    with gsocket.socket() as holder, plain_listener() as listener:
        holder.bind(("127.0.0.2", taken))
        holder.listen(1)
        sources = [local(taken, "127.0.0.2"), local(0, "127.0.0.3")]
        connection = Preconnection(sources, remote(listener.getsockname()[1])).initiate(timeout=10)
        peer, address = listener.accept()
        assert address[0] == "127.0.0.3"
        connection.abort()
        peer.close()


@pytest.mark.rfc("E-20", "SH-09", "TC-04")
def test_without_a_local_endpoint_the_system_chooses_a_port() -> None:
    with plain_listener() as listener:
        connection = Preconnection(remote_endpoint=remote(listener.getsockname()[1])).initiate()
        assert connection.local_endpoint is not None
        assert connection.local_endpoint.port
        connection.abort()


@pytest.mark.parametrize("properties", [None, datagrams()], ids=["tcp", "udp"])
def test_a_local_port_alone_is_where_we_come_from(properties: TransportProperties | None) -> None:
    port = free_port()
    with plain_listener() as listener:
        connection = Preconnection(
            LocalEndpoint().with_port(port), remote(listener.getsockname()[1]), properties
        ).initiate(timeout=10)
        assert connection.local_endpoint is not None
        assert connection.local_endpoint.port == port
        connection.abort()


@pytest.mark.rfc("E-09")
def test_an_endpoint_for_one_protocol() -> None:
    """TCP goes to one port, UDP to another, as the two Endpoints say."""
    with plain_listener() as stream, plain(HERE, socket.SOCK_DGRAM) as datagram:
        tcp_port, udp_port = (here.getsockname()[1] for here in (stream, datagram))
        ends = [remote(tcp_port), remote(udp_port).with_protocol("UDP")]
        for properties, port in ((None, tcp_port), (datagrams(), udp_port)):
            connection = Preconnection(
                remote_endpoint=ends, transport_properties=properties
            ).initiate(timeout=10)
            assert connection.remote_endpoint is not None
            assert connection.remote_endpoint.port == port
            connection.abort()


@pytest.mark.rfc("E-09")
def test_endpoints_for_protocols_that_are_not_used() -> None:
    only_udp = remote(1).with_protocol("udp")
    assert refused(Preconnection(remote_endpoint=only_udp)).reason is Reason.INVALID_CONFIGURATION
    only_udp_here = local().with_protocol("udp")
    assert refused(Preconnection(only_udp_here), "listen").reason is Reason.INVALID_CONFIGURATION
    assert refused(Preconnection(only_udp_here, remote(1))).reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("E-09", "LS-03")
def test_listening_with_two_protocols_on_ports_of_their_own() -> None:
    either = TransportProperties(
        reliability="ignore", preserveOrder="ignore", congestionControl="ignore"
    ).set("safelyReplayable", True)
    ends = [local().with_protocol("tcp"), local().with_protocol("udp")]
    with Preconnection(ends, transport_properties=either).listen() as listener:
        first, second = (end.port for end in listener.local_endpoints)
        assert first != second
        for port, kind in ((first, socket.SOCK_STREAM), (second, socket.SOCK_DGRAM)):
            with gsocket.socket(socket.AF_INET, kind) as probe, pytest.raises(OSError):  # noqa: PT011
                probe.bind((HERE, port))
        with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((HERE, first))


@pytest.mark.rfc("E-12", "SO-15")
@pytest.mark.parametrize("side", ["local", "remote"])
def test_the_hop_limit_is_on_what_is_sent(side: str) -> None:
    with plain(HERE, socket.SOCK_DGRAM) as peer:
        peer.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        ours, theirs = local(), remote(peer.getsockname()[1])
        (ours if side == "local" else theirs).with_hop_limit(7)
        connection = Preconnection(ours, theirs, datagrams()).initiate(timeout=10)
        connection.send(b"seven")
        data, [(_, kind, value)], _, _ = peer.recvmsg(100, socket.CMSG_SPACE(4))
        assert (data, kind, struct.unpack("i", value)) == (b"seven", socket.IP_TTL, (7,))
        connection.abort()


@pytest.mark.rfc("E-12", "SO-15")
def test_the_hop_limit_of_tcp_and_of_what_a_listener_accepts() -> None:
    with Preconnection(local().with_hop_limit(9)).listen() as listener:
        client = Preconnection(
            remote_endpoint=remote(port_of(listener)).with_hop_limit(8)
        ).initiate(timeout=10)
        server = listener.accept(timeout=10)
        assert option(client, socket.IPPROTO_IP, socket.IP_TTL) == 8
        assert option(server, socket.IPPROTO_IP, socket.IP_TTL) == 9
        client.abort()
        server.abort()


@pytest.mark.rfc("E-07", "SO-18", "E-22")
@pytest.mark.netns
@pytest.mark.parametrize("properties", [None, datagrams()], ids=["tcp", "udp"])
def test_a_local_interface_binds_to_the_device(properties: TransportProperties | None) -> None:
    with network() as net:
        kind = socket.SOCK_DGRAM if properties else socket.SOCK_STREAM
        with net.there():
            peer = plain(net.THERE, kind)
        with peer:
            end = net.remote(peer.getsockname()[1])
            here = LocalEndpoint().with_interface("here0")
            connection = Preconnection(here, end, properties).initiate(timeout=10)
            assert connection.local_endpoint is not None
            assert connection.local_endpoint.ip_address == net.HERE
            connection.abort()
            if properties is not None:
                return
            # From the loopback interface there is no way to the other host.
            nowhere = Preconnection(LocalEndpoint().with_interface("lo"), end, properties)
            with pytest.raises(EstablishmentError):
                nowhere.initiate(timeout=0.2)


@pytest.mark.rfc("E-07", "L-01", "SO-18")
@pytest.mark.netns
def test_a_listener_on_an_interface_does_not_hear_the_others() -> None:
    with network() as net:
        here = LocalEndpoint().with_interface("here0").with_ip_address("0.0.0.0")
        with Preconnection(here).listen() as listener:
            port = port_of(listener)
            with gsocket.socket() as stranger:
                stranger.settimeout(10)
                with pytest.raises(ConnectionRefusedError):
                    stranger.connect((HERE, port))
            with net.there():
                friend = gsocket.socket()
            with friend:
                friend.settimeout(10)
                friend.connect((net.HERE, port))
                listener.accept(timeout=10).abort()
            # The other interfaces' port is still free.
            with Preconnection(
                LocalEndpoint().with_interface("lo").with_ip_address("0.0.0.0").with_port(port)
            ).listen():
                pass


@pytest.mark.rfc("E-07")
@pytest.mark.parametrize("properties", [None, datagrams()], ids=["tcp", "udp"])
def test_no_such_interface(properties: TransportProperties | None) -> None:
    here = LocalEndpoint().with_interface("no-such-thing0")
    for preconnection, action in (
        (Preconnection(here, remote(free_port()), properties), "initiate"),
        (Preconnection(here, transport_properties=properties), "listen"),
    ):
        error = refused(preconnection, action)
        assert error.reason is Reason.ESTABLISHMENT_FAILED
        assert "no-such-thing0" in str(error) or "device" in str(error)


@pytest.mark.rfc("E-08", "E-07")
@pytest.mark.netns
def test_link_local_addresses_with_their_zone() -> None:
    with network() as net:
        with net.there():
            peer = gsocket.socket(socket.AF_INET6)
            peer.settimeout(10)
            peer.bind(("::", 0))
            peer.listen(1)
        address = "fe80::2"
        end = RemoteEndpoint().with_ip_address(address).with_port(peer.getsockname()[1])
        with peer:
            connection = Preconnection(remote_endpoint=end.with_interface("here0")).initiate(
                timeout=20
            )
            assert connection.remote_endpoint is not None
            assert connection.remote_endpoint.ip_address == f"{address}%here0"
            connection.abort()


@pytest.mark.rfc("E-23", "E-22", "I-05", "ER-01", "PE-03")
@pytest.mark.parametrize(
    ("level", "wish"), [("require", "eth7"), ("prohibit", "lo")], ids=["required", "prohibited"]
)
@pytest.mark.parametrize("action", ["initiate", "listen"])
def test_a_local_interface_against_the_property(level: str, wish: str, action: str) -> None:
    properties = TransportProperties().set("interface", [(level, wish)])
    here = LocalEndpoint().with_interface("lo")
    error = refused(Preconnection(here, remote(1), properties), action)
    assert error.reason is Reason.INVALID_CONFIGURATION
    assert "lo" in error.message
    assert wish in error.message


# -- The property `interface` --


@pytest.mark.rfc("P-11", "BR-06")
@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ([], [None]),
        ([("require", "b")], ["b"]),
        ([("require", "Wired")], ["a", "b"]),
        ([("require", "Wired"), ("prohibit", "a")], ["b"]),
        ([("prohibit", "Wired")], ["lo"]),
        ([("require", "Wired"), ("prefer", "b")], ["b", "a"]),
        ([("require", "Wired"), ("avoid", "a")], ["b", "a"]),
        ([("prefer", "b")], ["b", None]),
        ([("avoid", "Wired")], ["lo", None]),
        ([("prefer", "Wired"), ("avoid", "a")], ["b", None]),
        ([("no-preference", "a")], [None]),
        ([("require", "Cellular")], None),
        ([("require", "c")], None),
        ([("prohibit", "Wired"), ("prohibit", "lo")], None),
    ],
    ids=str,
)
def test_the_choice_of_interfaces(wishes: list[Any], expected: list[Any] | None) -> None:
    among = Survey(
        (
            Path("lo", InterfaceType.LOOPBACK),
            Path("a", InterfaceType.WIRED),
            Path("b", InterfaceType.WIRED),
        )
    )
    kinds = {kind.value: kind for kind in InterfaceType}
    said = [(level, kinds.get(what, what)) for level, what in wishes]
    properties = TransportProperties().set("interface", said)
    ways = choose_ways([(None, ())], properties, SystemPolicy(), among)
    assert [way.interface for way in ways if way.cut is None] == (expected or [])


@pytest.mark.rfc("P-11", "MU-11", "ER-02", "SO-18")
@pytest.mark.netns
def test_interfaces_are_required_and_prohibited() -> None:
    with network() as net:
        assert dict(interfaces())["lo"] is InterfaceType.LOOPBACK
        with net.there():
            peer = plain(net.THERE)
        with peer, plain_listener() as here:
            far, near = net.remote(peer.getsockname()[1]), remote(here.getsockname()[1])

            def asking(*wishes: tuple[str, str]) -> Preconnection:
                properties = TransportProperties().set("interface", list(wishes))
                return Preconnection(None, [near, far], properties)

            for wishes, address in (
                ([("require", "lo")], HERE),
                ([("require", "here0")], net.THERE),
                ([("prohibit", "lo")], net.THERE),
                ([("prefer", "here0")], net.THERE),
                ([], HERE),
            ):
                connection = asking(*wishes).initiate(timeout=20)
                assert connection.remote_endpoint is not None
                assert connection.remote_endpoint.ip_address == address
                connection.abort()
            with pytest.raises(EstablishmentError) as caught:
                asking(("require", "no-such0")).initiate()
            assert caught.value.reason is Reason.NO_CANDIDATES


@pytest.mark.rfc("TT-08", "SH-06", "P-11", "CR-02")
@pytest.mark.netns
def test_a_preferred_interface_that_leads_nowhere_is_tried_first() -> None:
    with network() as net:
        ip("link add dead0 type veth peer name dead1", "link set dead1 up")
        ip("link set dead0 up", "addr add 198.51.100.1/24 dev dead0")
        ip("route add 192.0.2.0/24 dev dead0 metric 500")
        with net.there():
            peer = plain(net.THERE)
        with peer:
            properties = TransportProperties().set("interface", [("prefer", "dead0")])
            end = net.remote(peer.getsockname()[1])
            with Stopwatch() as took:
                connection = Preconnection(None, end, properties).initiate(timeout=20)
            assert took.seconds > 0.2
            assert connection.local_endpoint is not None
            assert connection.local_endpoint.ip_address == net.HERE
            connection.abort()


@pytest.mark.rfc("P-11", "LS-02")
@pytest.mark.netns
def test_a_listener_keeps_to_the_interfaces_that_are_left() -> None:
    with network() as net:
        properties = TransportProperties().set("interface", [("prohibit", "lo")])
        anywhere = LocalEndpoint().with_ip_address("0.0.0.0")
        with Preconnection(anywhere, transport_properties=properties).listen() as listener:
            with gsocket.socket() as stranger:
                stranger.settimeout(10)
                with pytest.raises(ConnectionRefusedError):
                    stranger.connect((HERE, port_of(listener)))
            with net.there():
                friend = gsocket.socket()
            with friend:
                friend.settimeout(10)
                friend.connect((net.HERE, port_of(listener)))
                listener.accept(timeout=10).abort()


@pytest.mark.rfc("E-22")
def test_a_local_interface_that_agrees_with_the_property() -> None:
    properties = TransportProperties().set("interface", [("require", "lo")])
    here = LocalEndpoint().with_interface("lo").with_ip_address(HERE)
    with listening(of=Preconnection(here, transport_properties=properties)) as listener:
        client = Preconnection(here, remote(port_of(listener)), properties).initiate(timeout=10)
        listener.accept(timeout=10).abort()
        client.abort()
