"""Rendezvous on loopback: two Preconnections of ours over each stack, and plain sockets of other
processes as peers."""

from __future__ import annotations

import contextlib
import copy
import errno
import gc
import os
import pickle
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from conftest import Certificates
from gevent import socket as gsocket
from greentaps import (
    AVOID,
    NO_PREFERENCE,
    PREFER,
    PROHIBIT,
    REQUIRE,
    Connection,
    ConnectionError,  # noqa: A004 - RFC 9622's own name
    ConnectionState,
    EstablishmentError,
    Framer,
    InterfaceType,
    LengthPrefixFramer,
    LocalEndpoint,
    Preconnection,
    Reason,
    RemoteEndpoint,
    SecurityParameters,
    TransportError,
    TransportProperties,
)
from greentaps.hub import get_runner
from greentaps.taps.choosing.policy import SystemPolicy, set_system_policy
from greentaps.taps.paths import survey as paths
from greentaps.taps.rendezvous import driver as rendezvous
from greentaps.taps.rendezvous import stun
from greentaps.taps.rendezvous.stun import encode, parse
from greentaps.transports import punching
from peers import running, script
from rfc9622.world import Log, option
from taps.helpers import (
    HERE,
    Stopwatch,
    free_port,
    in_greenlet,
    local,
    outcome,
    owned,
    remote,
    until,
)

KINDS = ("udp", "tcp")
pytestmark = pytest.mark.usefixtures("ends_in_time")


@pytest.fixture
def ends_in_time() -> Iterator[None]:
    with gevent.Timeout(60):
        yield


def properties(kind: str) -> TransportProperties:
    return TransportProperties("unreliable-datagram") if kind == "udp" else TransportProperties()


def ends(
    kind: str, *, address: str = HERE, **arguments: Any
) -> tuple[Preconnection, Preconnection]:
    """Two Preconnections, each of which was told the other's address."""
    ports = (free_port(), free_port())
    made = [
        Preconnection(local(ours, address), remote(theirs, address), properties(kind), **arguments)
        for ours, theirs in (ports, ports[::-1])
    ]
    return made[0], made[1]


def resolved(kind: str, *ends_: LocalEndpoint, **arguments: Any) -> tuple[Preconnection, list[str]]:
    """A Preconnection that was resolved, and what it has to tell its peer."""
    made = Preconnection(ends_ or local(0), None, properties(kind), **arguments)
    return made, [end.to_text() for end in made.resolve(timeout=5)[0]]


def told(preconnection: Preconnection, lines: list[str]) -> Preconnection:
    return preconnection.add_remote([RemoteEndpoint.from_text(line) for line in lines])


def both(one: Preconnection, other: Preconnection) -> tuple[Connection, Connection]:
    """Have both make their rendezvous."""
    runs = [gevent.spawn(each.rendezvous, 15) for each in (one, other)]
    return runs[0].get(), runs[1].get()


def say(sender: Connection, receiver: Connection, data: bytes) -> None:
    sender.send(data)
    message = receiver.receive(min_incomplete_length=1, timeout=10)
    assert message is not None
    assert message.data == data


def talk(one: Connection, other: Connection) -> None:
    """A Message each way."""
    say(one, other, b"there")
    say(other, one, b"and back")


# -- Two of ours --


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("address", [HERE, "::1"])
@pytest.mark.rfc("R-02", "RZ-01")
def test_two_host_candidates(kind: str, address: str) -> None:
    one, other = ends(kind, address=address)
    with_one, with_other = both(one, other)
    with with_one, with_other:
        assert with_one.stack == with_other.stack == kind
        for mine, theirs in ((with_one, with_other), (with_other, with_one)):
            assert mine.local_endpoint is not None
            assert theirs.remote_endpoint is not None
            assert mine.local_endpoint.port == theirs.remote_endpoint.port
            assert mine.local_endpoint.ip_address == theirs.remote_endpoint.ip_address == address
        talk(with_one, with_other)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_data_is_refused(kind: str) -> None:
    """As by any Connection: 5 is not five bytes."""
    one, other = both(*ends(kind))
    with one, other:
        for wrong in (5, [1, 2], "text", None):
            with pytest.raises(TypeError):
                one.send(wrong)  # type: ignore[arg-type]
        say(one, other, b"this is")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.rfc("PC-06", "PC-05", "RZ-10", "CG-02")
def test_what_is_resolved_is_told_and_used(kind: str) -> None:
    made = [Preconnection(local(0), None, properties(kind)) for _ in "ab"]
    lines = []
    for each in made:
        locals_, remotes = each.resolve(timeout=5)
        assert remotes == []
        assert [(end.ip_address, end.candidate_type) for end in locals_] == [(HERE, "host")]
        assert locals_[0].port
        lines.append([end.to_text() for end in locals_])
    for each, theirs in zip(made, lines[::-1], strict=True):
        told(each, theirs)
    one, other = both(*made)
    with one, other:
        assert one.local_endpoint is not None
        assert f"{HERE} {one.local_endpoint.port}" in lines[0][0]
        talk(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.rfc("R-05", "EV-05", "ST-04", "I-04")
def test_the_events(kind: str) -> None:
    one, other = ends(kind)
    done: list[Connection] = []
    one.on_rendezvous_done(done.append)
    one.on_ready(lambda connection: pytest.fail("that is Initiate's event"))
    connection = one.rendezvous(15, wait=False)
    assert connection.state is ConnectionState.ESTABLISHING
    gevent.sleep(0.05)
    assert done == []
    with other.rendezvous(15) as theirs, connection:
        say(theirs, connection, b"usable at once")
        until(lambda: done)
        assert done == [connection]
        assert connection.state is ConnectionState.ESTABLISHED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.rfc("R-03", "RZ-04")
def test_several_ends_on_both_sides(kind: str) -> None:
    """The same connection is taken on both sides, and the others leave nothing."""
    addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    one, lines = resolved(kind, *(local(0, address) for address in addresses))
    other, theirs = resolved(kind, *(local(0, address) for address in addresses))
    assert len(lines) == len(theirs) == 3
    told(one, theirs)
    told(other, lines)
    done: list[Connection] = []
    one.on_rendezvous_done(done.append)
    before = owned()
    mine, peers = both(one, other)
    with mine, peers:
        talk(mine, peers)
        assert mine.local_endpoint is not None
        assert peers.remote_endpoint is not None
        assert mine.local_endpoint.ip_address == peers.remote_endpoint.ip_address
        assert mine.local_endpoint.port == peers.remote_endpoint.port
        until(lambda: done)
        assert done == [mine]
        # Of the six sockets two are still open.
        until(lambda: owned() == before - len(lines + theirs) + 2)


@pytest.mark.parametrize("kind", KINDS)
def test_several_ends_that_were_never_signalled(kind: str) -> None:
    """Without credentials the same must come out."""
    ports = [free_port() for _ in range(4)]
    made = [
        Preconnection(
            [local(port, address) for port, address in zip(ports[ours:][:2], side, strict=True)],
            [
                remote(port, address)
                for port, address in zip(ports[theirs:][:2], facing, strict=True)
            ],
            properties(kind),
        )
        for ours, theirs, side, facing in (
            (0, 2, ("127.0.0.1", "127.0.0.2"), ("127.0.0.3", "127.0.0.4")),
            (2, 0, ("127.0.0.3", "127.0.0.4"), ("127.0.0.1", "127.0.0.2")),
        )
    ]
    one, other = both(*made)
    with one, other:
        talk(one, other)


@pytest.mark.rfc("R-03")
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_pair_leads_nowhere(kind: str) -> None:
    one, other = ends(kind)
    one.remote_endpoints.insert(0, remote(free_port(), "127.0.0.9"))
    mine, theirs = both(one, other)
    with mine, theirs:
        talk(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_that_comes_late(kind: str) -> None:
    one, other = ends(kind)
    running = gevent.spawn(one.rendezvous, 15)
    gevent.sleep(0.3)
    with other.rendezvous(15) as theirs, running.get() as mine:
        talk(mine, theirs)


def test_framers() -> None:
    one, other = ends("tcp")
    for each in (one, other):
        each.add_framer(LengthPrefixFramer())
    mine, theirs = both(one, other)
    with mine, theirs:
        mine.send(b"first")
        mine.send(b"second")
        assert [theirs.receive(timeout=5).data for _ in "12"] == [b"first", b"second"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", ["Require", "Prohibit", "Prefer", "Avoid"])
@pytest.mark.rfc("R-08")
def test_active_read_before_send_is_ignored(kind: str, value: str) -> None:
    one, other = ends(kind)
    for each in (one, other):
        each.transport_properties.set("activeReadBeforeSend", value)
    mine, theirs = both(one, other)
    with mine, theirs:
        assert mine.stack == kind
        say(theirs, mine, b"either side may begin")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.rfc("E-12")
def test_options_of_the_socket(kind: str) -> None:
    one, other = ends(kind)
    one.local_endpoints[0].with_hop_limit(7)
    one.transport_properties.set("connCapacityProfile", "Scavenger")
    mine, theirs = both(one, other)
    with mine, theirs:
        assert option(mine, socket.IPPROTO_IP, socket.IP_TTL) == 7
        assert option(mine, socket.IPPROTO_IP, socket.IP_TOS) == 1 << 2
        assert option(theirs, socket.IPPROTO_IP, socket.IP_TTL) != 7


def test_how_datagrams_were_marked() -> None:
    one, other = ends("udp")
    one.transport_properties.set("_greentaps.receiveEcn", True)
    mine, theirs = both(one, other)
    with mine, theirs:
        handle = theirs.transport.get_extra_info("handle")
        with socket.socket(fileno=os.dup(handle.fileno())) as marking:
            marking.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 3)
        theirs.send(b"congested")
        message = mine.receive(timeout=5)
        assert (message.data, message.context.get("ecn")) == (b"congested", 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.rfc("MU-17", "PC-08", "PC-03")
def test_changes_come_too_late(kind: str) -> None:
    one, other = ends(kind)
    running = gevent.spawn(one.rendezvous, 15)
    gevent.sleep(0.05)
    one.local_endpoints[0].with_port(1)
    one.remote_endpoints[0].with_ip_address("192.0.2.1")
    one.remote_endpoints.clear()
    one.transport_properties.require("preserveMsgBoundaries" if kind == "tcp" else "reliability")
    one.add_framer(LengthPrefixFramer())
    with other.rendezvous(15) as theirs, running.get() as mine:
        talk(mine, theirs)


def test_a_hundred_datagrams_there_and_back() -> None:
    mine, theirs = both(*ends("udp"))
    with mine, theirs:
        for number in range(100):
            talk_ = (mine, theirs) if number % 2 else (theirs, mine)
            say(*talk_, b"%d" % number * 10)


# -- What is refused --


@pytest.mark.rfc("R-01", "MU-08", "MU-16", "PC-07", "R-06")
@pytest.mark.parametrize(("ours", "theirs"), [(None, remote(1)), (local(), None), (None, None)])
@pytest.mark.parametrize("wait", [True, False])
def test_both_ends_are_needed(ours: Any, theirs: Any, wait: bool) -> None:
    preconnection = Preconnection(ours, theirs)
    errors: list[Any] = []
    preconnection.on_establishment_error(lambda _connection, error: errors.append(error))
    before = owned()
    if wait:
        with pytest.raises(EstablishmentError, match="Local and a Remote"):
            preconnection.rendezvous()
    else:
        connection = preconnection.rendezvous(wait=False)
        until(lambda: connection.state is ConnectionState.CLOSED)
    assert owned() == before
    until(lambda: errors)
    assert [error.reason for error in errors] == [Reason.INVALID_CONFIGURATION]


@pytest.mark.rfc("R-06")
def test_properties_that_clash() -> None:
    asked = TransportProperties().require("reliability").prohibit("preserveOrder")
    preconnection = Preconnection(local(), remote(1), asked)
    for action in (preconnection.rendezvous, preconnection.resolve):
        with pytest.raises(EstablishmentError) as caught:
            action()
        assert caught.value.reason is Reason.NO_CANDIDATES


@pytest.mark.rfc("R-06")
def test_a_remote_end_that_cannot_be_resolved() -> None:
    nowhere = RemoteEndpoint().with_hostname("no-such-host.invalid").with_port(1)
    preconnection = Preconnection(local(), nowhere)
    for action in (preconnection.rendezvous, preconnection.resolve):
        with pytest.raises(EstablishmentError) as caught:
            action(timeout=10)
        assert caught.value.reason is Reason.RESOLUTION_FAILED


@pytest.mark.rfc("R-06")
def test_a_local_end_that_is_not_here() -> None:
    with pytest.raises(EstablishmentError, match="bind") as caught:
        Preconnection(local(0, "192.0.2.77"), remote(1)).rendezvous()
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED


@pytest.mark.rfc("R-06", "N-09")
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_comes(kind: str) -> None:
    """The call of the Preconnection tells of it, since there is no Connection."""
    one, _ = ends(kind)
    with Stopwatch() as took, pytest.raises(EstablishmentError) as caught:
        one.rendezvous(0.5)
    assert 0.5 <= took.seconds < 5
    assert caught.value.reason is Reason.TIMEOUT
    ((candidate, error),) = caught.value.attempts
    assert candidate.remote == (HERE, one.remote_endpoints[0].port)
    assert isinstance(error, OSError)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_limit_it_ends_by_itself(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greentaps.taps.rendezvous.ice.PATIENCE", 0.4)
    one, _ = ends(kind)
    with pytest.raises(EstablishmentError, match="no pair of addresses") as caught:
        one.rendezvous()
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
    assert len(caught.value.attempts) == 1


def test_families_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greentaps.taps.rendezvous.ice.PATIENCE", 0.2)
    with pytest.raises(EstablishmentError):
        Preconnection(local(0, HERE), remote(1, "::1")).rendezvous()


def test_ends_for_protocols_that_are_not_chosen() -> None:
    with pytest.raises(EstablishmentError, match="both a Local and a Remote") as caught:
        Preconnection(local(), remote(1).with_protocol("udp")).rendezvous()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["close", "abort", "kill"])
def test_it_can_be_given_up(kind: str, how: str) -> None:
    one, _ = ends(kind)
    before = owned()
    if how == "kill":
        running = gevent.spawn(one.rendezvous)
        gevent.sleep(0.1)
        running.kill()
    else:
        connection = one.rendezvous(wait=False)
        log = Log(connection, ("closed", "connection_error", "establishment_error"))
        gevent.sleep(0.1)
        getattr(connection, how)()
        gevent.sleep(0.05)
        assert log.names == ["closed" if how == "close" else "connection_error"]
    gevent.sleep(0.05)
    assert owned() == before


# -- Strangers --


@pytest.mark.rfc("RZ-03")
def test_a_stranger_is_refused_over_tcp() -> None:
    one, other = ends("tcp")
    running = gevent.spawn(one.rendezvous, 15)
    gevent.sleep(0.05)
    with gsocket.socket() as stranger:
        stranger.settimeout(10)
        stranger.bind((HERE, 0))
        with contextlib.suppress(ConnectionResetError):
            stranger.connect((HERE, one.local_endpoints[0].port))
            assert stranger.recv(10) == b""
    assert not running.ready()
    with other.rendezvous(15) as theirs, running.get() as mine:
        talk(mine, theirs)


@pytest.mark.rfc("RZ-03")
def test_a_stranger_who_has_no_credentials_is_refused_over_tcp() -> None:
    """He comes from an address that is expected, and from a port that might be a NAT's."""
    one, lines = resolved("tcp")
    other, theirs_ = resolved("tcp")
    told(one, theirs_)
    told(other, lines)
    running = gevent.spawn(one.rendezvous, 15)
    gevent.sleep(0.05)
    with gsocket.socket() as stranger:
        stranger.settimeout(10)
        stranger.connect((HERE, int(lines[0].split()[5])))
        stranger.sendall(b"\0\x14" + b"\0\1\0\0\x21\x12\xa4\x42" + b"t" * 12)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(10) == b""
        assert not running.ready()
        with other.rendezvous(15) as theirs, running.get() as mine:
            talk(mine, theirs)


@pytest.mark.rfc("RZ-03")
def test_a_stranger_is_not_heard_over_udp() -> None:
    one, other = ends("udp")
    running = gevent.spawn(one.rendezvous, 15)
    gevent.sleep(0.05)
    port = one.local_endpoints[0].port
    with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(5):
            stranger.sendto(b"let me in", (HERE, port))
        gevent.sleep(0.05)
        assert not running.ready()
        with other.rendezvous(15) as theirs, running.get() as mine:
            stranger.sendto(b"and now", (HERE, port))
            talk(mine, theirs)
            talk(theirs, mine)


@pytest.mark.rfc("CG-05")
def test_gathering_does_not_talk_to_the_peer() -> None:
    with (
        gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        gsocket.socket() as tcp,
    ):
        for peer in (udp, tcp):
            peer.bind((HERE, 0))
            peer.settimeout(0.3)
        tcp.listen()
        for kind, peer in (("udp", udp), ("tcp", tcp)):
            preconnection = Preconnection(local(), remote(peer.getsockname()[1]), properties(kind))
            _, remotes = preconnection.resolve()
            assert remotes[0].port == peer.getsockname()[1]
            with pytest.raises(TimeoutError):
                peer.recv(10) if peer is udp else peer.accept()
            preconnection.release()


@pytest.mark.rfc("RZ-03")
def test_a_stranger_who_stays_does_not_make_us_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for new attempts is over, and somebody is still there who says nothing."""
    monkeypatch.setattr("greentaps.taps.rendezvous.ice.PATIENCE", 0.3)
    monkeypatch.setattr("greentaps.taps.rendezvous.ice.ANSWER_TIME", 1.0)
    one, lines = resolved("tcp")
    _, theirs_ = resolved("tcp")
    told(one, theirs_)
    wakes = []
    before = rendezvous._StreamDriver.wake
    monkeypatch.setattr(
        rendezvous._StreamDriver,
        "wake",
        lambda driver, time: (wakes.append(time), before(driver, time)),
    )
    running = in_greenlet(one.rendezvous)
    gevent.sleep(0.1)
    with gsocket.socket() as stranger:
        stranger.connect((HERE, int(lines[0].split()[5])))
        assert isinstance(running.get(), EstablishmentError)
    # It has a second where we control, and else as long as the peer may need.
    assert 0.35 < wakes[-1] - wakes[0] < 10
    assert len(wakes) < 30


# -- Plain sockets of other processes --


@pytest.mark.rfc("RZ-01", "R-02")
def test_a_plain_tcp_socket_that_only_connects() -> None:
    ours, theirs = free_port(), free_port()
    with (
        script("bare_tcp", theirs, ours) as peer,
        Preconnection(local(ours), remote(theirs)).rendezvous(15) as connection,
    ):
        message = connection.receive(min_incomplete_length=1, timeout=10)
        assert message.data == b"hello"
        connection.send(b"from us")
        assert peer.line() == "from us"
        peer.say(b"\n")


def test_a_plain_tcp_socket_that_only_listens() -> None:
    with gsocket.socket() as peer:
        peer.settimeout(10)
        peer.bind((HERE, 0))
        peer.listen()
        ours = free_port()
        running = gevent.spawn(
            Preconnection(local(ours), remote(peer.getsockname()[1])).rendezvous, 15
        )
        accepted, source = peer.accept()
        assert source == (HERE, ours)
        with accepted, running.get() as connection:
            accepted.sendall(b"hello")
            assert connection.receive(min_incomplete_length=1, timeout=5).data == b"hello"


@pytest.mark.rfc("R-05", "RZ-05")
def test_a_plain_udp_socket() -> None:
    """It is done when the first Message has come, and not before."""
    ours, theirs = free_port(), free_port()
    with script("bare_udp", theirs, ours) as peer:
        assert peer.line() == "ready"
        running = gevent.spawn(
            Preconnection(local(ours), remote(theirs), properties("udp")).rendezvous, 15
        )
        gevent.sleep(0.2)
        assert not running.ready()
        peer.say(b"\n")
        with running.get() as connection:
            assert connection.receive(timeout=10).data == b"hello"
            connection.send(b"from us")
            assert peer.line() == "from us"
            peer.say(b"\n")


@pytest.mark.rfc("OR-02")
def test_a_message_that_was_there_before() -> None:
    with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((HERE, 0))
        preconnection = Preconnection(local(), None, properties("udp"))
        end = preconnection.resolve()[0][0]
        peer.sendto(b"early", (HERE, end.port))
        gevent.sleep(0.05)
        preconnection.add_remote(remote(peer.getsockname()[1]))
        with preconnection.rendezvous(10) as connection:
            assert connection.receive(timeout=5).data == b"early"


# -- TLS --


def secure(certificates: Certificates) -> SecurityParameters:
    return SecurityParameters().add_identity(certificates.server).add_trust_ca(certificates.ca)


@pytest.mark.parametrize("signalled", [True, False])
def test_tls(certificates: Certificates, signalled: bool) -> None:
    for _ in range(3):  # with signalled credentials, chance decides who is the client
        if signalled:
            one, lines = resolved("tcp", security_parameters=secure(certificates))
            other, theirs_ = resolved("tcp", security_parameters=secure(certificates))
            told(one, theirs_)
            told(other, lines)
        else:
            one, other = ends("tcp", security_parameters=secure(certificates))
        mine, theirs = both(one, other)
        with mine, theirs:
            assert mine.stack == theirs.stack == "tls/tcp"
            talk(mine, theirs)


def test_tls_needs_an_identity_on_both_sides(certificates: Certificates) -> None:
    """Either side may turn out to be the server."""
    only_client = SecurityParameters().add_trust_ca(certificates.ca)
    before = owned()
    for action in ("resolve", "rendezvous"):
        with pytest.raises(EstablishmentError) as caught:
            getattr(Preconnection(local(), remote(1), None, only_client), action)()
        assert caught.value.reason is Reason.INVALID_CONFIGURATION
    assert owned() == before


def test_nothing_in_clear_with_a_peer_without_tls(certificates: Certificates) -> None:
    one, other = ends("tcp")
    one.security_parameters = secure(certificates)
    runs = [in_greenlet(each.rendezvous, 3) for each in (one, other)]
    mine, theirs = (run.get() for run in runs)
    assert isinstance(mine, EstablishmentError)
    if isinstance(theirs, Connection):
        theirs.abort()


def test_a_certificate_of_somebody_else(certificates: Certificates) -> None:
    one, other = ends("tcp")
    for each in (one, other):
        each.security_parameters = (
            SecurityParameters().add_identity(certificates.stranger).add_trust_ca(certificates.ca)
        )
    runs = [in_greenlet(each.rendezvous, 5) for each in (one, other)]
    results = [run.get() for run in runs]
    assert any(isinstance(result, EstablishmentError) for result in results)
    for result in results:
        if isinstance(result, Connection):
            result.abort()


def test_opportunistic_security_is_refused() -> None:
    with pytest.raises(EstablishmentError, match="opportunistic"):
        Preconnection(local(), remote(1), None, SecurityParameters.opportunistic()).rendezvous()


# -- Late candidates --


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.rfc("R-09", "RZ-10", "AE-01")
def test_a_remote_end_that_comes_late(kind: str) -> None:
    # Over UDP a signed check would be enough to know the peer; over TCP, without a signature, the
    # peer would take the connection that is about to be refused.
    if kind == "udp":
        one, other = ends(kind)
        late = one.remote_endpoints[0]
        one.remote_endpoints[0] = remote(free_port(), "127.0.0.9")
    else:
        one, lines = resolved(kind)
        other, theirs_ = resolved(kind)
        told(other, lines)
        late = RemoteEndpoint.from_text(theirs_[0])
        told(one, [theirs_[0].replace(HERE, "127.0.0.9")])
    connection = one.rendezvous(20, wait=False)
    theirs = other.rendezvous(20, wait=False)
    gevent.sleep(0.3)
    assert connection.state is ConnectionState.ESTABLISHING
    connection.add_remote([late, late])
    with connection, theirs:
        say(theirs, connection, b"found")


@pytest.mark.rfc("RZ-10", "AE-01")
def test_credentials_that_come_late_count_for_an_address_that_was_known() -> None:
    with datagram_socket() as peer:
        port = peer.getsockname()[1]
        connection = Preconnection(local(0), remote(port), properties("udp")).rendezvous(
            20, wait=False
        )
        _, ours = peer.recvfrom(2000)
        line = f"candidate:1 1 UDP 9 {HERE} {port} typ host ufrag abcd pwd {'s' * 22}"
        connection.add_remote(RemoteEndpoint.from_text(line))
        asked = None
        while asked is None or "USERNAME" not in asked.attributes:
            asked = parse(peer.recv(2000))
            peer.sendto(b"not signed", ours)
        assert connection.state is ConnectionState.ESTABLISHING
        connection.abort()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.rfc("R-09", "RZ-10", "AE-03")
def test_a_local_end_that_comes_late(kind: str) -> None:
    """Resolve again, tell the peer, AddLocal (RFC 9622 section 3.1.3)."""
    one, _ = resolved(kind)
    other, theirs_ = resolved(kind)
    dead = [theirs_[0].replace(theirs_[0].split()[5], str(free_port()))]
    told(one, dead)
    # So far neither knows an address of the other where somebody is.
    other.add_remote(remote(free_port(), "127.0.0.9"))
    connection = one.rendezvous(20, wait=False)
    theirs = other.rendezvous(20, wait=False)
    gevent.sleep(0.2)
    one.local_endpoints[:] = [local(0, "127.0.0.2")]
    found, _ = one.resolve(timeout=5)
    connection.add_local(found)
    theirs.add_remote([RemoteEndpoint.from_text(end.to_text()) for end in found])
    connection.add_remote([RemoteEndpoint.from_text(line) for line in theirs_])
    with connection, theirs:
        say(theirs, connection, b"found")
        assert connection.local_endpoint is not None
        assert connection.local_endpoint.ip_address == "127.0.0.2"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.rfc("AE-02", "AE-04")
def test_what_is_removed_is_not_tried(kind: str) -> None:
    one, lines = resolved(kind)
    other, theirs_ = resolved(kind)
    told(one, theirs_)
    told(other, lines)
    port = int(lines[0].split()[5])
    connection = one.rendezvous(20, wait=False)
    gevent.sleep(0.05)
    connection.remove_remote(one.remote_endpoints[0])
    theirs = in_greenlet(other.rendezvous, 0.8)
    assert isinstance(theirs.get(), EstablishmentError)
    assert connection.state is ConnectionState.ESTABLISHING
    connection.remove_local(one.local_endpoints[0])
    if kind == "tcp":  # its socket is closed
        with gsocket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect((HERE, port))
    connection.close()


def datagram_socket() -> Any:
    made = gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((HERE, 0))
    made.settimeout(10)
    return made


@pytest.mark.rfc("AE-03")
def test_what_is_removed_while_servers_are_asked_is_not_tried() -> None:
    with datagram_socket() as server, datagram_socket() as removed, datagram_socket() as kept:
        end = local(0).with_stun_server(HERE, server.getsockname()[1])
        remotes = [remote(one.getsockname()[1]) for one in (removed, kept)]
        connection = Preconnection(end, remotes, properties("udp")).rendezvous(2, wait=False)
        server.recv(2000)
        connection.remove_remote(remotes[0])
        for _ in range(2):  # the second one is a repetition: the other would have had its turn
            kept.recv(2000)
        removed.setblocking(False)
        with pytest.raises(BlockingIOError):
            removed.recv(2000)
        connection.abort()


@pytest.mark.rfc("AE-03")
def test_a_late_end_without_an_address_does_not_end_what_has_begun() -> None:
    with datagram_socket() as server, datagram_socket() as peer:
        end = local(0).with_stun_server(HERE, server.getsockname()[1])
        one = Preconnection(end, remote(peer.getsockname()[1]), properties("udp"))
        connection = one.rendezvous(2, wait=False)
        server.recv(2000)
        unknown = RemoteEndpoint().with_hostname("no-such-host.invalid").with_port(9)
        connection.add_remote(unknown)
        peer.recv(2000)
        assert connection.state is ConnectionState.ESTABLISHING
        connection.abort()


@pytest.mark.rfc("AE-03")
def test_a_connect_to_what_was_removed_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []
    connect = punching.StreamPort.connect
    monkeypatch.setattr(punching.StreamPort, "connect", lambda *args: held.append(args))
    with gsocket.socket() as listening:
        listening.bind((HERE, 0))
        listening.listen()
        port = listening.getsockname()[1]
        # Without credentials the higher address controls, and takes the first connection.
        mine = next(one for one in iter(free_port, None) if one > port)
        connection = Preconnection(local(mine), remote(port)).rendezvous(20, wait=False)
        until(lambda: bool(held))
        connection.remove_remote(remote(port))
        connect(*held[0])
        accepted, _ = listening.accept()
        with accepted, pytest.raises(ConnectionResetError):
            accepted.recv(1)
        assert connection.state is ConnectionState.ESTABLISHING
        connection.abort()


@pytest.mark.rfc("AE-03")
@pytest.mark.parametrize("end", ["kill", "error"])
def test_a_late_local_end_that_is_given_up_leaves_nothing(end: str) -> None:
    one, _ = ends("udp")
    connection = one.rendezvous(30, wait=False)
    until(lambda: connection._rendezvous._driver is not None)
    before = owned()
    with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((HERE, 0))
        first = local(0).with_stun_server(HERE, silent.getsockname()[1])
        if end == "kill":
            adding = gevent.spawn(connection.add_local, first)
            until(lambda: owned() > before)
            adding.kill()
        else:
            unknown = LocalEndpoint().with_hostname("no-such-host.invalid")
            with pytest.raises(EstablishmentError):
                connection.add_local([first, unknown])
    until(lambda: owned() == before)
    connection.abort()


class Waiting(Framer):
    """Is never ready."""

    def start(self, link: Any) -> None:
        link.delay_ready()


@pytest.mark.parametrize("kind", KINDS)
def test_framers_that_are_never_ready_end_it_too(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has set a limit."""
    monkeypatch.setattr(rendezvous, "HANDSHAKE_TIME", 0.3)
    one, other = ends(kind)
    one.add_framer(Waiting())
    other.add_framer(Waiting())
    runs = [in_greenlet(each.rendezvous) for each in (one, other)]
    gevent.joinall(runs, timeout=20)
    for run in runs:
        failure = run.get(timeout=0)
        assert isinstance(failure, EstablishmentError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_driver_that_cannot_be_made_leaves_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise TransportError("no more of this", errno.EADDRINUSE)

    monkeypatch.setattr(punching.StreamPort, "listen", fail)
    monkeypatch.setattr(punching.DatagramPort, "be_busy", fail)
    before = owned()
    one, _ = ends(kind)
    with pytest.raises(EstablishmentError, match="no more of this") as caught:
        one.rendezvous(5)
    assert caught.value.reason is Reason.ESTABLISHMENT_FAILED
    until(lambda: owned() == before)


def test_a_flow_that_cannot_be_made_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(port: Any, *args: Any, **more: Any) -> None:
        port.close()
        raise TransportError("no more of this", errno.ENETDOWN)

    monkeypatch.setattr(rendezvous, "punched_flow", fail)
    before = owned()
    one, other = ends("udp")
    runs = [in_greenlet(each.rendezvous, 5) for each in (one, other)]
    for run in runs:
        failure = run.get()
        assert isinstance(failure, EstablishmentError)
        assert failure.reason in (Reason.ESTABLISHMENT_FAILED, Reason.TIMEOUT)
    until(lambda: owned() == before)


# -- Endpoints of a Connection that is there (RFC 9622 section 7.5) --


@pytest.fixture
def established() -> Iterator[tuple[Connection, Connection]]:
    with Preconnection(local()).listen() as listener:
        port = listener.local_endpoints[0].port
        client = Preconnection(None, remote(port)).initiate(10)
        server = listener.accept(10)
        yield client, server
        client.abort()
        server.abort()


@pytest.mark.rfc("AE-01", "AE-03", "AC-07")
def test_what_is_added_serves_clones(established: tuple[Connection, Connection]) -> None:
    client, server = established
    client.add_remote(client.remote_endpoint)  # known: nothing changes
    with Preconnection(local(0, "127.0.0.8")).listen() as elsewhere:
        port = elsewhere.local_endpoints[0].port
        first = client.remote_endpoint
        client.add_remote(remote(port, "127.0.0.8"))
        client.add_local(local(0, "127.0.0.7"))
        say(client, server, b"the path is as it was")
        server_port = first.port
        # The first is refused from now on, so the clone takes what was added.
        client.remove_remote(remote(1, "192.0.2.9"))  # unknown: nothing changes
        say(client, server, b"still")
        assert server_port
        with client.clone(timeout=10) as clone:
            assert clone.local_endpoint.ip_address == "127.0.0.7"


@pytest.mark.rfc("AE-02")
def test_without_its_remote_end_it_is_aborted(established: tuple[Connection, Connection]) -> None:
    client, server = established
    log = Log(client, ("closed", "connection_error"))
    client.remove_remote(client.remote_endpoint)
    with pytest.raises(ConnectionError, match="removed") as caught:
        client.send(b"?")
    assert caught.value.reason is Reason.LOCAL_ABORT
    gevent.sleep(0.05)
    assert log.names == ["connection_error"]
    with pytest.raises(ConnectionError):
        client.add_remote(remote(1))
    with pytest.raises(ConnectionError):
        server.receive(timeout=5)


@pytest.mark.rfc("AE-04")
def test_without_its_local_end_it_is_aborted(established: tuple[Connection, Connection]) -> None:
    client, _ = established
    client.remove_local(local(1))
    assert client.state is ConnectionState.ESTABLISHED
    client.remove_local(LocalEndpoint().with_ip_address(HERE))
    with pytest.raises(ConnectionError, match="removed"):
        client.receive()


@pytest.mark.rfc("AE-01")
@pytest.mark.parametrize("name", ["add_remote", "add_local", "remove_remote", "remove_local"])
def test_wrong_ends(established: tuple[Connection, Connection], name: str) -> None:
    client, server = established
    wrong: Any = local(1) if "remote" in name else remote(1)
    for subject in (client, Preconnection()):
        for value in (wrong, [wrong], 5, "127.0.0.1"):
            with pytest.raises(TypeError):
                getattr(subject, name)(value)
    client.close()
    with pytest.raises(ConnectionError, match="closed"):
        getattr(client, name)([])
    assert server is not client


def test_ends_of_a_preconnection() -> None:
    one, two = remote(1), remote(2)
    preconnection = Preconnection(local(1), one)
    assert preconnection.add_remote([one, two]).remote_endpoints == [one, two]
    assert preconnection.remove_remote([one, remote(3)]).remote_endpoints == [two]
    assert preconnection.add_local(local(2)).local_endpoints == [local(1), local(2)]
    assert preconnection.remove_local(local(1)).local_endpoints == [local(2)]


# -- What is held --


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_resolved_is_held_until_it_is_released(kind: str) -> None:
    before = owned()
    preconnection, lines = resolved(kind)
    port = int(lines[0].split()[5])
    assert owned() == before + 1
    with pytest.raises(EstablishmentError, match="in use"):
        Preconnection(local(port), None, properties("udp")).resolve() if kind == "udp" else (
            Preconnection(local(port)).listen()
        )
    again = [end.to_text() for end in preconnection.resolve()[0]]
    assert again == lines
    assert owned() == before + 1
    preconnection.release()
    preconnection.release()
    assert owned() == before


def test_copies_of_what_is_resolved() -> None:
    """Copies share the socket.  A pickle, which may go anywhere, has none."""
    preconnection = Preconnection(local(0), None, properties("udp"))
    (end,) = preconnection.resolve(timeout=5)[0]
    assert end.held is not None
    for same in (copy.copy(end), copy.deepcopy(end), end.copy()):
        assert same == end
        assert same.held is end.held
        assert same.to_text() == end.to_text()
    gone = pickle.loads(pickle.dumps(end))
    assert gone == end
    assert gone.to_text() == end.to_text()
    assert gone.held is None
    preconnection.release()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_resolved_goes_with_the_preconnection(kind: str) -> None:
    before = owned()
    preconnection, _ = resolved(kind)
    del preconnection
    gc.collect()
    gevent.sleep(0.01)
    assert owned() == before


def test_what_is_resolved_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "HOLD_TIME", 0.1)
    before = owned()
    preconnection, _ = resolved("udp")
    assert owned() == before + 1
    gevent.sleep(0.3)
    assert owned() == before
    assert preconnection.resolve(1)[0]
    preconnection.release()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_held_does_not_keep_the_program_alive(kind: str) -> None:
    profile = "unreliable-datagram" if kind == "udp" else "reliable-inorder-stream"
    program = f"""
from greentaps import *
end = LocalEndpoint().with_ip_address("{HERE}")
preconnection = Preconnection(end, None, TransportProperties("{profile}"))
preconnection.resolve()
preconnection.start()
print("over")
"""
    with running(sys.executable, "-W", "error", "-c", program) as peer:
        assert peer.line() == "over"
        assert peer.wait() == 0


def test_what_strangers_send_meanwhile_is_bounded() -> None:
    preconnection, lines = resolved("udp")
    with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for number in range(300):
            stranger.sendto(b"%d" % number * 400, (HERE, int(lines[0].split()[5])))
            if not number % 50:
                gevent.sleep(0.001)
        gevent.sleep(0.05)
    (base,) = preconnection._gathering.bases.values()
    assert len(base.early) <= rendezvous.MAX_EARLY
    assert all(len(data) <= rendezvous.MAX_EARLY_SIZE for data, _ in base.early)
    preconnection.release()


@pytest.mark.rfc("CG-03")
def test_addresses_of_this_machine() -> None:
    preconnection = Preconnection(LocalEndpoint().with_interface("lo"), None, properties("udp"))
    found = {end.ip_address for end in preconnection.resolve()[0]}
    assert HERE in found
    preconnection.release()


def test_only_temporary_addresses_if_they_are_required() -> None:
    asked = properties("udp").set("useTemporaryLocalAddress", REQUIRE)
    with pytest.raises(EstablishmentError):
        Preconnection(local(), None, asked).resolve()


def test_a_stun_server_that_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "greentaps.rendezvous")
    with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((HERE, 0))
        end = local(0).with_stun_server(HERE, silent.getsockname()[1])
        preconnection = Preconnection(end, None, properties("udp"))
        with Stopwatch() as took:
            found, _ = preconnection.resolve(timeout=0.3)
        assert took.seconds < 3
        assert [one.candidate_type for one in found] == ["host"]
        assert f"STUN server {HERE}:{silent.getsockname()[1]}" in caplog.text
        preconnection.release()


def test_two_who_resolve_at_once_both_hear_of_the_answer() -> None:
    with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HERE, 0))

        def answer() -> None:
            data, source = server.recvfrom(2000)
            gevent.sleep(0.3)
            mapped = {"XOR-MAPPED-ADDRESS": ("192.0.2.1", 7)}
            server.sendto(encode("BINDING", "RESPONSE", data[8:20], mapped), source)

        serving = gevent.spawn(answer)
        end = local(0).with_stun_server(HERE, server.getsockname()[1])
        preconnection = Preconnection(end, None, properties("udp"))
        before = owned()
        with Stopwatch() as took:
            runs = [gevent.spawn(preconnection.resolve, 10) for _ in range(3)]
            gevent.joinall(runs, raise_error=True)
        serving.get()
        assert took.seconds < 5
        assert owned() == before + 1
        for run in runs:
            assert [one.candidate_type for one in run.get()[0]] == ["host", "srflx"]
        preconnection.release()


def test_servers_that_cannot_be_found(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "greentaps.rendezvous")
    for kind in KINDS:
        end = local(0).with_stun_server("no-such-host.invalid")
        preconnection = Preconnection(end, None, properties(kind))
        found, _ = preconnection.resolve(timeout=10)
        assert [one.candidate_type for one in found] == ["host"]
        assert "no-such-host.invalid" in caplog.text
        caplog.clear()
        preconnection.release()


def test_callbacks_may_not_make_one() -> None:
    one, _ = ends("udp")
    caught: list[Any] = []
    get_runner().call_soon(lambda: caught.append(outcome(one.rendezvous)))
    gevent.sleep(0.01)
    assert "switchpoint" in str(caught[0])


# -- Which addresses --

ETH = paths.Path(
    "eth0",
    addresses=(
        paths.LocalAddress("192.0.2.1", socket.AF_INET),
        paths.LocalAddress("2001:db8::1", socket.AF_INET6),
        paths.LocalAddress("2001:db8::dead", socket.AF_INET6, deprecated=True),
        paths.LocalAddress("2001:db8::7777", socket.AF_INET6, temporary=True),
        paths.LocalAddress("fe80::1%eth0", socket.AF_INET6, scope="link"),
    ),
)
WLAN = paths.Path("wlan0", addresses=(paths.LocalAddress("198.51.100.1", socket.AF_INET),))
DOWN = paths.Path("eth1", addresses=(paths.LocalAddress("203.0.113.1", socket.AF_INET),), up=False)
LOOPBACK = paths.Path(
    "lo", addresses=(paths.LocalAddress("127.0.0.1", socket.AF_INET, scope="host"),)
)
ALL = (LOOPBACK, ETH, WLAN, DOWN)


@pytest.mark.rfc("CG-03", "P-13")
@pytest.mark.parametrize(
    ("among", "interface", "level", "expected"),
    [
        (ALL, None, AVOID, ["192.0.2.1", "2001:db8::1", "198.51.100.1"]),
        (ALL, None, PREFER, ["192.0.2.1", "2001:db8::7777", "198.51.100.1"]),
        (ALL, None, REQUIRE, ["2001:db8::7777"]),
        (ALL, "eth0", PROHIBIT, ["192.0.2.1", "2001:db8::1"]),
        (ALL, "eth0", NO_PREFERENCE, ["192.0.2.1", "2001:db8::1", "2001:db8::7777"]),
        (ALL, "lo", AVOID, ["127.0.0.1"]),
        ((LOOPBACK,), None, AVOID, ["127.0.0.1"]),
        (ALL, "eth1", AVOID, []),
    ],
)
def test_addresses_that_a_peer_could_reach(
    among: Any, interface: str | None, level: Any, expected: list[str]
) -> None:
    assert rendezvous.host_addresses(among, interface, level) == expected


def test_sockets_of_one_gathering_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "MAX_BASES", 3)
    preconnection, lines = resolved("udp", *(local(0, f"127.0.0.{n}") for n in range(1, 9)))
    assert len(lines) == 3
    preconnection.release()


@pytest.mark.rfc("R-06")
@pytest.mark.parametrize(
    "policy",
    [
        SystemPolicy(prohibited_protocols=["tcp"]),
        SystemPolicy(prohibited_interfaces=[InterfaceType.LOOPBACK]),
    ],
)
def test_policy_forbids_it(policy: SystemPolicy) -> None:
    end = LocalEndpoint().with_interface("lo")
    before = owned()
    set_system_policy(policy)
    try:
        for action in ("rendezvous", "resolve"):
            with pytest.raises(EstablishmentError) as caught:
                getattr(Preconnection(end, remote(1)), action)(timeout=1)
            assert caught.value.reason is Reason.POLICY_PROHIBITED
    finally:
        set_system_policy(None)
    assert owned() == before


@pytest.mark.rfc("R-06")
@pytest.mark.parametrize("kind", KINDS)
def test_policy_counts_for_what_was_resolved_before(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_ = paths.Survey((paths.Path("lo", InterfaceType.LOOPBACK), ETH))
    monkeypatch.setattr("greentaps.taps.setup.survey", lambda: both_)
    one, _ = resolved(kind)
    found, _ = one.resolve()
    before = owned()
    set_system_policy(SystemPolicy(prohibited_interfaces=[InterfaceType.LOOPBACK]))
    try:
        again = Preconnection(found, remote(free_port()), properties(kind))
        with pytest.raises(EstablishmentError, match="was resolved without the interface"):
            again.rendezvous(timeout=1)
    finally:
        set_system_policy(None)
    one.release()
    assert owned() <= before


class Turn:
    """A TURN server that talks to itself in the name of every peer, until it is *over*."""

    def __init__(self) -> None:
        self.socket = datagram_socket()
        self.socket.settimeout(None)
        self.address = self.socket.getsockname()
        self.over = False
        self._serving = gevent.spawn(self._serve)

    def _serve(self) -> None:
        while True:
            data, source = self.socket.recvfrom(2000)
            message = parse(data)
            if message is None:
                continue
            method, token = message.message_method.name, message.transaction_id
            if method == "SEND":
                word = {"XOR-PEER-ADDRESS": message.attributes["XOR-PEER-ADDRESS"], "DATA": b"hi"}
                self.socket.sendto(encode("DATA", "INDICATION", token, word), source)
            elif self.over:
                refusal = {"ERROR-CODE": (437, "Allocation Mismatch")}
                self.socket.sendto(encode(method, "ERROR", token, refusal), source)
            else:
                facts = {"LIFETIME": 2}
                if method == "ALLOCATE":
                    facts |= {"XOR-RELAYED-ADDRESS": (HERE, 7), "XOR-MAPPED-ADDRESS": source}
                self.socket.sendto(encode(method, "RESPONSE", token, facts), source)

    def close(self) -> None:
        self._serving.kill()
        self.socket.close()


def test_a_connection_ends_with_the_allocation_that_it_goes_through() -> None:
    with contextlib.closing(Turn()) as server:
        end = local(0).with_turn_server(*server.address[:2], ("user", "secret"))
        nobody = remote(free_port(), "127.0.0.99")
        connection = Preconnection(end, nobody, properties("udp")).rendezvous(10)
        with connection:
            message = connection.receive(timeout=10)
            assert message is not None
            assert message.data == b"hi"
            server.over = True
            until(lambda: connection.state is ConnectionState.CLOSED)
            with pytest.raises(ConnectionError, match=r"relays no longer.*437") as caught:
                connection.send(b"x")
            assert caught.value.reason is Reason.CONNECTION_ABORTED


def test_a_stun_server_that_hangs_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stun, "TI", 0.2)
    with gsocket.socket() as server:
        server.bind((HERE, 0))
        server.listen()
        end = local(0).with_stun_server(HERE, server.getsockname()[1])
        preconnection = Preconnection(end, None)
        resolving = in_greenlet(preconnection.resolve, 10)
        accepted, _ = server.accept()
        accepted.recv(2000)
        accepted.close()
        with Stopwatch() as took:
            ends_, _ = resolving.get()
            gevent.sleep(0.5)  # when an answer would have been waited for no longer
            preconnection.resolve(10)
        assert took.seconds < 3
        assert [one.candidate_type for one in ends_] == ["host"]
        preconnection.release()


@pytest.mark.rfc("CG-07", "E-21")
def test_nobody_hears_of_it_before_resolve() -> None:
    with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HERE, 0))
        server.settimeout(0.2)
        end = local(0).with_stun_server(HERE, server.getsockname()[1])
        preconnection = Preconnection(end, remote(1), properties("udp"))
        with pytest.raises(TimeoutError):
            server.recv(100)
        preconnection.resolve(timeout=0.2)
        # A Binding request, with nothing in it about us or the peer.
        message = parse(server.recv(100))
        assert message.message_method.name == "BINDING"
        assert set(message.attributes) == {"FINGERPRINT"}
        preconnection.release()


def test_what_a_preconnection_holds_goes_when_the_attempt_is_given_up_at_once() -> None:
    before = owned()
    preconnection, _ = resolved("udp")
    preconnection.add_remote(remote(1))
    preconnection.rendezvous(wait=False).close()
    assert owned() == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_hub_goes(kind: str) -> None:
    """In a thread of its own, whose hub is destroyed while it waits: no hang."""
    ended: list[Any] = []

    def work() -> None:
        one, _ = ends(kind)
        connection = one.rendezvous(wait=False)
        gevent.sleep(0.1)
        get_runner().let_go()
        ended.append(connection)
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert len(ended) == 1


# -- Endpoints --


@pytest.mark.rfc("E-10", "AC-02")
def test_servers_of_a_local_end() -> None:
    end = LocalEndpoint().with_stun_server("stun.example", 3479, ("user", "secret"))
    assert end.with_turn_server("192.0.2.1") is end
    assert end.stun_server is not None
    assert (end.stun_server.host, end.stun_server.port) == ("stun.example", 3479)
    assert end.stun_server.credentials == ("user", "secret")
    assert end.turn_server is not None
    assert (end.turn_server.host, end.turn_server.port) == ("192.0.2.1", 3478)
    assert "secret" not in repr(end)
    assert "secret" not in repr(end.stun_server)
    assert end != LocalEndpoint()
    assert end == end.copy()
    # RFC 9622 section 6.1: a second value of one kind replaces the first.
    assert end.with_stun_server("other.example").stun_server.host == "other.example"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("not a name",), ValueError),
        ((5,), TypeError),
        (("stun.example", 0), ValueError),
        (("stun.example", 70000), ValueError),
        (("stun.example", "x"), TypeError),
        (("stun.example", 1, ("user",)), ValueError),
        (("stun.example", 1, (1, 2)), TypeError),
    ],
)
def test_servers_that_are_none(arguments: Any, kind: type[Exception]) -> None:
    for name in ("with_stun_server", "with_turn_server"):
        with pytest.raises(kind):
            getattr(LocalEndpoint(), name)(*arguments)


def test_text_of_ends() -> None:
    end = local(1000).with_protocol("udp")
    line = end.to_text()
    made = RemoteEndpoint.from_text(line)
    assert (made.ip_address, made.port, made.protocol) == (HERE, 1000, "udp")
    assert made.candidate_type == "host"
    assert made.ice_credentials is None
    made.with_ice_credentials("name", "p" * 22)
    assert RemoteEndpoint.from_text(made.to_text()).ice_credentials == ("name", "p" * 22)
    assert "p" * 22 not in repr(made)
    for wrong in (LocalEndpoint(), local(0), LocalEndpoint().with_port(5)):
        with pytest.raises(ValueError, match="address and a port"):
            wrong.to_text()
    for name, password in (("abc", "p" * 22), ("name", "short"), ("na me", "p" * 22)):
        with pytest.raises(ValueError, match=r"name|password"):
            made.with_ice_credentials(name, password)


@pytest.mark.rfc("AC-05")
def test_actions_of_a_preconnection() -> None:
    names = (
        "initiate", "initiate_with_send", "listen", "rendezvous", "resolve", "add_remote",
        "add_framer",
    )  # fmt: skip
    assert all(callable(getattr(Preconnection(), name)) for name in names)


def test_no_more_descriptors_for_what_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says again and again that somebody waits; that must not keep us busy."""
    tried: list[int] = []

    class Full(socket.socket):
        def accept(self) -> Any:
            tried.append(1)
            if len(tried) < 3:
                raise OSError(errno.EMFILE, "too many")
            return super().accept()

    port = punching.StreamPort((HERE, 0))
    assert port._socket is not None
    here = port._socket
    port._socket = Full(fileno=here.detach())
    came: list[Any] = []
    port.listen(lambda made, peer: came.append(made))
    with gsocket.create_connection(port.address), Stopwatch() as took:
        until(lambda: came)
    assert 0.15 < took.seconds < 5
    port.close()
    came[0].close()
    assert len(tried) < 10
    tried.clear()
    port = punching.StreamPort((HERE, 0))
    assert port._socket is not None
    here = port._socket
    port._socket = Full(fileno=here.detach())
    port.listen(lambda made, peer: None)
    with gsocket.create_connection(port.address):
        until(lambda: tried)
    port.close()  # while it pauses
