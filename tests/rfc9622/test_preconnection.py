"""Preconnections (RFC 9622 section 6): a passive record, copied at each action."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from conftest import Certificates
from gevent import socket as gsocket
from greentaps import (
    ConnectionState,
    EstablishmentError,
    LengthPrefixFramer,
    LocalEndpoint,
    Preconnection,
    Reason,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from greentaps.taps.properties import PropertyMomentError
from greentaps.transports import options
from rfc9622.world import Log, datagrams, joined, listening, towards
from taps.helpers import (
    HERE,
    free_port,
    local,
    owned,
    plain_client,
    plain_listener,
    port_of,
    read_all,
    remote,
    until,
)


def refusal(preconnection: Preconnection, action: str) -> EstablishmentError:
    with pytest.raises(EstablishmentError) as caught:
        getattr(preconnection, action)()
    return caught.value


# -- A passive record --


@pytest.mark.rfc("PC-01", "E-21", "AC-01", "AC-05", "T-03", "PE-01")
def test_making_one_opens_and_looks_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsocket, "getaddrinfo", None)
    before = owned()
    made = Preconnection(
        LocalEndpoint().with_hostname("nowhere.invalid"),
        RemoteEndpoint().with_hostname("nowhere.invalid").with_port(1),
        TransportProperties(),
        SecurityParameters(),
    )
    gevent.sleep(0)
    assert owned() == before
    # Unset properties read as the RFC's defaults.
    assert str(made.transport_properties.get("reliability")) == "Require"


@pytest.mark.rfc("PC-02", "T-03")
def test_one_endpoint_several_or_none() -> None:
    one, other = remote(1), remote(2)
    assert Preconnection(remote_endpoint=one).remote_endpoints == [one]
    assert Preconnection(remote_endpoint=[one, other]).remote_endpoints == [one, other]
    assert Preconnection().remote_endpoints == Preconnection().local_endpoints == []


@pytest.mark.rfc("O-01")
def test_what_was_put_in_reads_back_and_can_be_changed() -> None:
    properties, security = TransportProperties(), SecurityParameters()
    made = Preconnection(local(), remote(1), properties, security)
    assert made.transport_properties is properties
    assert made.security_parameters is security
    made.transport_properties.set("connTimeout", 5)
    assert properties.get("connTimeout") == 5
    made.local_endpoints.append(local(1))
    assert len(made.local_endpoints) == 2


# -- What each action needs --


@pytest.mark.rfc("PC-07", "MU-07", "ER-01", "I-05")
def test_initiate_needs_a_remote_endpoint() -> None:
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(local()).initiate()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("PC-07", "MU-07", "EV-02", "ST-05")
def test_without_waiting_even_an_early_failure_is_told_once_and_by_the_event() -> None:
    made = Preconnection(local())
    log = Log(made)
    connection = made.initiate(wait=False)  # raises nothing
    assert connection.state is ConnectionState.ESTABLISHING
    until(lambda: log)
    assert connection.state is ConnectionState.CLOSED
    assert log.names == ["establishment_error"]
    assert log[0][1].reason is Reason.INVALID_CONFIGURATION
    for call in (lambda: connection.send(b"x"), lambda: connection.receive(1)):
        with pytest.raises(EstablishmentError) as caught:
            call()
        assert caught.value.reason is Reason.INVALID_CONFIGURATION
    connection.close()
    assert log.names == ["establishment_error"]


@pytest.mark.rfc("PC-07", "MU-06", "ER-01", "L-07")
def test_listen_needs_a_local_endpoint() -> None:
    made = Preconnection(remote_endpoint=remote(1))
    assert refusal(made, "listen").reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("PE-03", "ER-02", "I-05", "L-07", "TT-03", "P-02", "P-03", "P-05")
@pytest.mark.parametrize("action", ["initiate", "listen"])
@pytest.mark.parametrize(
    "wishes",
    [
        TransportProperties("reliable-message"),
        TransportProperties(perMsgReliability="require"),
        TransportProperties(zeroRttMsg="require"),
        TransportProperties(multistreaming="require"),
        TransportProperties(pvd=[("require", "pvd.example")]),
    ],
    ids=["message", "perMsgReliability", "zeroRttMsg", "multistreaming", "pvd"],
)
def test_no_candidates_is_said_before_anything_is_opened(
    action: str, wishes: TransportProperties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gsocket, "getaddrinfo", None)
    monkeypatch.setattr(options, "fast_open", lambda *, server_side: False)
    with plain_listener() as listener:
        nowhere = RemoteEndpoint().with_hostname("nowhere.invalid").with_port(1)
        ends = [remote(listener.getsockname()[1]), nowhere]
        before = owned()
        error = refusal(Preconnection(local(), ends, wishes), action)
        assert error.reason is Reason.NO_CANDIDATES
        assert owned() == before
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.rfc("PE-03", "ER-01", "I-05", "P-03", "P-09", "T-06")
@pytest.mark.parametrize(
    "wishes",
    [
        TransportProperties(reliability="prohibit", perMsgReliability="require"),
        TransportProperties(congestionControl="prohibit"),
        TransportProperties(minSendRate=10, maxSendRate=5),
        TransportProperties(zeroRttMsg="require", isolateSession=True),
    ],
    ids=["perMsgReliability", "congestionControl", "rates", "zeroRttMsg"],
)
@pytest.mark.parametrize("action", ["initiate", "listen"])
def test_contradictions(action: str, wishes: TransportProperties) -> None:
    error = refusal(Preconnection(local(), remote(1), wishes), action)
    assert error.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("P-05")
@pytest.mark.parametrize("action", ["initiate", "listen"])
def test_each_end_needs_another_permission(action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fast_open(*, server_side: bool) -> bool:
        asked.append(server_side)
        return server_side is (action == "initiate")

    monkeypatch.setattr(options, "fast_open", fast_open)
    wishes = TransportProperties(zeroRttMsg="require")
    error = refusal(Preconnection(local(), remote(1), wishes), action)
    assert error.reason is Reason.NO_CANDIDATES
    assert "tcp: zeroRttMsg is required" in str(error)
    assert set(asked) == {action == "listen"}


@pytest.mark.rfc("P-05")
def test_a_rendezvous_has_no_first_message() -> None:
    wishes = TransportProperties(zeroRttMsg="require")
    error = refusal(Preconnection(local(), remote(1), wishes), "rendezvous")
    assert error.reason is Reason.INVALID_CONFIGURATION
    assert "zeroRttMsg" in str(error)


@pytest.mark.rfc("P-12")
def test_a_prohibited_provisioning_domain_is_none_that_is_used() -> None:
    wishes = TransportProperties(pvd=[("prohibit", "pvd.example")])
    with joined(wishes, wishes):
        pass


@pytest.mark.rfc("P-13", "ER-02", "SO-19")
def test_temporary_addresses_are_ipv6() -> None:
    wishes = TransportProperties(useTemporaryLocalAddress="require")
    error = refusal(Preconnection(None, remote(1), wishes), "initiate")
    assert error.reason is Reason.NO_CANDIDATES


@pytest.mark.rfc("P-13", "SO-19")
@pytest.mark.parametrize(("level", "flag"), [("require", 1), ("prohibit", 2)])
def test_the_system_is_told_of_temporary_addresses(level: str, flag: int) -> None:
    import socket

    from rfc9622.world import option

    wishes = TransportProperties(useTemporaryLocalAddress=level)
    with gsocket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        listener.listen(1)
        end = remote(listener.getsockname()[1], "::1")
        connection = Preconnection(remote_endpoint=end, transport_properties=wishes).initiate()
        assert option(connection, socket.IPPROTO_IPV6, 72) & 3 == flag
        connection.abort()


# -- Used again, and changed afterwards --


@pytest.mark.rfc("PC-03", "O-06", "G-14", "MX-01")
def test_one_preconnection_makes_several_connections() -> None:
    with listening() as listener:
        preconnection = towards(listener)
        first = preconnection.initiate(timeout=10)
        listener.accept(timeout=10).abort()
        first.abort()
        second, third = (preconnection.initiate(timeout=10) for _ in range(2))
        accepted = [listener.accept(timeout=10) for _ in range(2)]
        assert second is not third
        assert second.local_endpoint != third.local_endpoint
        second.set_property("connTimeout", 7)
        assert third.get_properties().get("connTimeout") != 7
        assert second.grouped_connections() == [second]
        for connection in (second, third, *accepted):
            connection.abort()


@pytest.mark.rfc("PC-08", "MU-14", "T-02", "B-08", "O-02", "PC-09", "PC-04", "F-06", "MU-09")
def test_changes_after_initiate_do_not_reach_the_connection() -> None:
    framers = LengthPrefixFramer(2)
    with plain_listener() as listener:
        end = remote(listener.getsockname()[1])
        properties = TransportProperties(connTimeout=30)
        preconnection = Preconnection(remote_endpoint=end, transport_properties=properties)
        connection = preconnection.initiate(wait=False)
        # It has not even begun.
        end.with_port(free_port()).with_ip_address("192.0.2.99")
        preconnection.remote_endpoints.clear()
        properties.set("connTimeout", 1).set("msgPriority", 3)
        preconnection.security_parameters = SecurityParameters()
        preconnection.add_framer(framers)
        log = Log(preconnection)
        peer, _ = listener.accept()
        connection.send(b"plain")
        assert peer.recv(100) == b"plain"
        assert connection.get_properties().get("connTimeout") == 30
        assert connection.get_properties().get("msgPriority") == 100
        peer.close()
        connection.close()
        assert log == []


@pytest.mark.rfc("PC-08", "MU-15", "T-02", "B-08", "O-04", "PC-04", "MU-09", "F-06")
def test_changes_after_listen_do_not_reach_the_listener(certificates: Certificates) -> None:
    here = local()
    properties = TransportProperties(connTimeout=30)
    preconnection = Preconnection(here, transport_properties=properties)
    with preconnection.listen() as listener:
        here.with_port(1)
        preconnection.local_endpoints.clear()
        preconnection.add_remote(remote(1, "192.0.2.99"))
        properties.set("connTimeout", 1)
        preconnection.security_parameters = SecurityParameters().add_identity(certificates.server)
        preconnection.add_framer(LengthPrefixFramer())
        client = plain_client(port_of(listener))
        server = listener.accept(timeout=10)
        client.sendall(b"plain")
        assert server.receive(1, timeout=10).data == b"plain"
        assert server.get_properties().get("connTimeout") == 30
        client.close()
        server.abort()


@pytest.mark.rfc("O-03", "CM-01")
def test_properties_set_while_establishing_apply_to_what_wins() -> None:
    import socket

    from rfc9622.world import option

    with plain_listener() as listener:
        end = remote(listener.getsockname()[1])
        connection = Preconnection(remote_endpoint=end).initiate(wait=False)
        connection.set_property("connTimeout", 12)
        connection.set_property("connCapacityProfile", "scavenger")
        until(lambda: connection.state is ConnectionState.ESTABLISHED)
        assert option(connection, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_000
        assert option(connection, socket.IPPROTO_IP, socket.IP_TOS) == 1 << 2
        connection.abort()


@pytest.mark.rfc("T-07", "T-08", "A-10")
def test_properties_of_another_protocol_do_no_harm() -> None:
    wishes = datagrams().set("tcp.userTimeoutValue", 30)
    with listening(wishes) as listener:
        connection = towards(listener, wishes).initiate(timeout=10)
        assert connection.stack == "udp"
        connection.abort()


@pytest.mark.rfc("TP-07", "T-07", "TP-10", "O-04")
def test_selection_properties_are_frozen_when_there_is_a_connection() -> None:
    with joined() as (client, _):
        with pytest.raises(PropertyMomentError):
            client.set_property("reliability", "avoid")
        assert client.get_properties().get("reliability") is True
        assert str(client.state) == "Established"


# -- Endpoints and framers added later --


@pytest.mark.rfc("PC-05", "AC-05")
def test_added_remotes_count_for_the_next_action() -> None:
    with plain_listener() as listener:
        end = remote(listener.getsockname()[1])
        preconnection = Preconnection(remote_endpoint=remote(free_port()))
        assert preconnection.add_remote(end) is preconnection
        preconnection.add_remote([end])
        assert preconnection.remote_endpoints.count(end) == 1
        connection = preconnection.initiate(timeout=10)
        assert connection.remote_endpoint == end
        connection.abort()


@pytest.mark.rfc("PC-04", "F-02")
def test_one_framer_on_several_preconnections() -> None:
    framer = LengthPrefixFramer()
    with Preconnection(local()).add_framer(framer).listen() as listener:
        clients = [towards(listener).add_framer(framer).initiate(timeout=10) for _ in range(2)]
        servers = [listener.accept(timeout=10) for _ in range(2)]
        for client in clients:
            client.send(b"one")
            client.send(b"two")
        for server in servers:
            assert [server.receive(timeout=10).data for _ in range(2)] == [b"one", b"two"]
        for connection in (*clients, *servers):
            connection.abort()


@pytest.mark.rfc("EV-02", "T-22")
def test_the_handlers_of_a_preconnection_are_those_of_its_connections() -> None:
    heard: list[Any] = []
    preconnection = Preconnection(
        remote_endpoint=remote(free_port()), unfulfilled_handler=lambda: heard.append("unfulfilled")
    )
    connection = preconnection.initiate(wait=False)
    until(lambda: heard)
    assert heard == ["unfulfilled"]
    assert str(connection.state) == "Closed"
    # A program that listens to nothing lives on as well.
    silent = Preconnection(remote_endpoint=remote(free_port())).initiate(wait=False)
    until(lambda: silent.state is ConnectionState.CLOSED)


@pytest.mark.rfc("A-03", "SN-08")
def test_nothing_of_ours_is_on_the_wire() -> None:
    """The peer needs no library at all: what it gets is what was sent, and nothing else."""
    with plain_listener() as listener:
        end = remote(listener.getsockname()[1])
        connection = Preconnection(remote_endpoint=end).initiate(timeout=10)
        peer, _ = listener.accept()
        connection.send(b"bytes and no more")
        closing = gevent.spawn(connection.close)
        assert read_all(peer) == b"bytes and no more"
        peer.close()
        closing.get()
    with listening() as ours, plain_client(port_of(ours), HERE) as client:
        server = ours.accept(timeout=10)
        client.sendall(b"same")
        assert server.receive(1, timeout=10).data == b"same"
        server.abort()
