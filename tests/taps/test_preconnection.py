"""The Preconnection: what it takes, what it refuses before anything is open, and what it copies."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import gevent
import pytest
from conftest import Certificates
from greentaps import (
    EstablishmentError,
    LengthPrefixFramer,
    LocalEndpoint,
    Preconnection,
    Reason,
    RemoteEndpoint,
    SecurityParameters,
    SwitchpointError,
    Timeout,
    TransportProperties,
)
from greentaps.hub import get_runner
from peers import LIBRARY, running
from taps.helpers import (
    HERE,
    Stopwatch,
    free_port,
    in_greenlet,
    local,
    outcome,
    owned,
    plain_client,
    plain_listener,
    port_of,
    read_all,
    remote,
    until,
)

NOWHERE = RemoteEndpoint().with_hostname("no-such-host.invalid").with_port(1)


@contextlib.contextmanager
def nothing_is_opened():
    """Neither a socket nor a look-up: both would need a turn of the loop."""
    before = owned()
    hub = gevent.get_hub()
    turns = []
    hub.loop.run_callback(turns.append, 1)
    yield
    assert not turns, "it switched"
    assert owned() == before


# -- Making one --


@pytest.mark.rfc("PC-01", "PC-02", "T-03")
def test_one_endpoint_or_several_or_none() -> None:
    with nothing_is_opened():
        assert Preconnection().remote_endpoints == []
        assert Preconnection(local(), NOWHERE).remote_endpoints == [NOWHERE]
        assert len(Preconnection([local(), local()], (NOWHERE,)).local_endpoints) == 2
        assert len(Preconnection(remote_endpoint=iter([NOWHERE, NOWHERE])).remote_endpoints) == 2
        assert "no-such-host" in repr(Preconnection(remote_endpoint=NOWHERE))


@pytest.mark.parametrize(
    "arguments",
    [
        {"local_endpoint": NOWHERE},
        {"remote_endpoint": LocalEndpoint()},
        {"remote_endpoint": "example.org"},
        {"remote_endpoint": [NOWHERE, ("127.0.0.1", 80)]},
        {"remote_endpoint": 5},
        {"transport_properties": {"reliability": "Require"}},
        {"transport_properties": SecurityParameters()},
        {"security_parameters": "tls"},
        {"resolver": "192.0.2.53"},
        {"security_parameters": 1},
        {"security_parameters": TransportProperties()},
    ],
)
def test_arguments_of_a_wrong_type(arguments: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Preconnection(**arguments)  # type: ignore[arg-type]


def test_only_framers_can_be_added() -> None:
    preconnection = Preconnection()
    for wrong in (None, LengthPrefixFramer, "length", object()):
        with pytest.raises(TypeError):
            preconnection.add_framer(wrong)  # type: ignore[arg-type]
    assert preconnection.add_framer(LengthPrefixFramer()) is preconnection


# -- What fails before anything is opened --


@pytest.mark.rfc("PC-07", "MU-07", "ER-01")
def test_initiate_needs_a_remote_endpoint() -> None:
    with nothing_is_opened(), pytest.raises(EstablishmentError) as caught:
        Preconnection(local()).initiate()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("PC-07", "MU-06", "ER-01")
def test_listen_needs_a_local_endpoint() -> None:
    with nothing_is_opened(), pytest.raises(EstablishmentError) as caught:
        Preconnection(remote_endpoint=NOWHERE).listen()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.parametrize(
    "end",
    [
        RemoteEndpoint(),
        RemoteEndpoint().with_port(80),
        RemoteEndpoint().with_ip_address("127.0.0.1"),
        RemoteEndpoint().with_hostname("localhost"),
    ],
    ids=["nothing", "port", "address", "name"],
)
def test_a_remote_endpoint_without_a_host_or_a_port(end: RemoteEndpoint) -> None:
    with nothing_is_opened(), pytest.raises(EstablishmentError) as caught:
        Preconnection(remote_endpoint=end).initiate()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("PE-03", "I-05", "P-03", "P-09")
@pytest.mark.parametrize(
    "properties",
    [
        TransportProperties().prohibit("reliability").require("perMsgReliability"),
        TransportProperties().require("reliability").prohibit("congestionControl"),
    ],
)
def test_contradictions(properties: TransportProperties) -> None:
    for action in ("initiate", "listen"):
        preconnection = Preconnection(local(), NOWHERE, properties)
        with nothing_is_opened(), pytest.raises(EstablishmentError) as caught:
            getattr(preconnection, action)()
        assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.rfc("PE-03", "I-05", "ER-02", "TT-03", "DN-01")
@pytest.mark.parametrize(
    "properties",
    [
        TransportProperties().require("preserveMsgBoundaries").require("reliability"),
        TransportProperties().require("multistreaming"),
        TransportProperties().prohibit("preserveOrder").require("reliability"),
        TransportProperties().require("perMsgReliability"),
    ],
)
def test_what_no_stack_has(properties: TransportProperties) -> None:
    for action in ("initiate", "listen"):
        preconnection = Preconnection(local(), NOWHERE, properties)
        with nothing_is_opened(), pytest.raises(EstablishmentError) as caught:
            getattr(preconnection, action)()
        assert caught.value.reason is Reason.NO_CANDIDATES
        assert "tcp" in str(caught.value)  # it says of each stack why not


def test_a_secured_listener_needs_an_identity() -> None:
    preconnection = Preconnection(local(), security_parameters=SecurityParameters())
    with nothing_is_opened(), pytest.raises(EstablishmentError) as caught:
        preconnection.listen()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


@pytest.mark.parametrize("wrong", ["1", -1, True, float("nan"), b"2"])
@pytest.mark.parametrize("action", ["initiate", "listen"])
def test_wrong_timeouts(wrong: object, action: str) -> None:
    preconnection = Preconnection(local(), NOWHERE)
    with nothing_is_opened(), pytest.raises((TypeError, ValueError)):
        getattr(preconnection, action)(timeout=wrong)


def test_families_that_do_not_meet() -> None:
    preconnection = Preconnection(local(address="::1"), remote(9))
    with pytest.raises(EstablishmentError) as caught:
        preconnection.initiate()
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


# -- Copies --


@pytest.mark.rfc("PC-08", "MU-15", "T-02", "O-02", "O-04", "MU-09", "PC-04")
def test_later_changes_do_not_reach_a_listener(certificates: Certificates) -> None:
    end, properties = local(), TransportProperties()
    preconnection = Preconnection(end, None, properties)
    with preconnection.listen() as listener:
        port = port_of(listener)
        end.with_port(1)
        properties.require("multistreaming")
        preconnection.add_framer(LengthPrefixFramer())
        preconnection.local_endpoints.clear()
        preconnection.security_parameters = SecurityParameters()
        with plain_client(port) as peer, listener.accept(timeout=5) as connection:
            peer.sendall(b"plain")
            assert connection.receive(5, timeout=5).data == b"plain"


def test_later_handlers_do_not_reach_what_was_made_before() -> None:
    events: list[str] = []

    def noting(what: str) -> Any:
        return lambda *_: events.append(what)

    preconnection = Preconnection(local())
    preconnection.on_closed(noting("closed"))
    with preconnection.listen() as listener:
        preconnection.on_closed(noting("not this one"))
        preconnection.on_receive_error(noting("nor this"))
        preconnection.on_stopped(noting("nor that"))
        with plain_client(port_of(listener)) as peer:
            connection = listener.accept(timeout=10)
            connection.receive(wait=False)
            connection.close(wait=False)
            assert read_all(peer) == b""
        until(lambda: events)
    for _ in range(3):
        gevent.sleep(0)
    assert events == ["closed"]


@pytest.mark.rfc("PC-08", "MU-14", "T-02", "PC-04", "F-06")
def test_later_changes_do_not_reach_a_connection() -> None:
    with plain_listener() as listener:
        end, properties = remote(listener.getsockname()[1]), TransportProperties()
        preconnection = Preconnection(None, end, properties)
        with preconnection.initiate(timeout=5) as connection:
            peer, _ = listener.accept()
            end.with_port(1).with_ip_address("192.0.2.1")
            properties.prohibit("reliability")
            preconnection.add_framer(LengthPrefixFramer())
            connection.send(b"no prefix")
            assert connection.get_properties()["reliability"] is True
            assert connection.remote_endpoint is not None
            assert connection.remote_endpoint.ip_address == HERE
        with peer:
            assert read_all(peer) == b"no prefix"


@pytest.mark.rfc("PC-08", "PC-09")
def test_changes_during_the_establishment_do_not_reach_it(certificates: Certificates) -> None:
    """While the handshake waits, everything is changed."""
    parameters = SecurityParameters().add_trust_ca(certificates.ca)
    with plain_listener() as listener:
        end = remote(listener.getsockname()[1])
        preconnection = Preconnection(None, end, None, parameters)
        initiating = in_greenlet(preconnection.initiate, timeout=10)
        peer, _ = listener.accept()
        end.with_port(1)
        parameters.allow_protocols("tls_1_2").offer_alpn("changed")
        preconnection.security_parameters = None
        preconnection.add_framer(LengthPrefixFramer())
        tunnel = _tunnel(peer, certificates)
        connection = initiating.get()
        assert not isinstance(connection, Exception), connection
        assert connection.transport.get_extra_info("tls_version") == "TLSv1.3"
        connection.send(b"x")
        assert tunnel.recv(10) == b"x"
        connection.abort()
        tunnel.close()


def _tunnel(peer, certificates: Certificates):
    from gevent import ssl as gssl

    context = gssl.SSLContext(gssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    return context.wrap_socket(peer, server_side=True)


@pytest.mark.rfc("PC-03")
def test_it_can_be_used_again(certificates: Certificates) -> None:
    with plain_listener() as listener:
        preconnection = Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
        preconnection.add_framer(LengthPrefixFramer(1))
        for _ in range(2):
            one, two = preconnection.initiate(timeout=5), preconnection.initiate(timeout=5)
            assert one is not two
            for connection in (one, two):
                peer, _ = listener.accept()
                peer.sendall(b"\x02")  # no state of one framer link shows in another
                peer.sendall(b"ok")
                assert connection.receive(timeout=5).data == b"ok"
                connection.close()
                peer.close()


def test_it_can_listen_twice() -> None:
    preconnection = Preconnection(local())
    with preconnection.listen() as one, preconnection.listen() as two:
        assert port_of(one) != port_of(two)


def test_it_works_in_several_greenlets_at_once() -> None:
    with plain_listener(64) as listener:
        preconnection = Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
        found = [in_greenlet(preconnection.initiate, timeout=10) for _ in range(20)]
        ports = set()
        for one in found:
            with one.get() as connection:
                assert connection.local_endpoint is not None
                ports.add(connection.local_endpoint.port)
        assert len(ports) == 20


# -- Where from --


@pytest.mark.rfc("E-18", "E-20")
def test_the_local_endpoint_is_where_it_comes_from() -> None:
    with plain_listener() as listener:
        for end, port in ((local(address="127.0.0.5"), None), (local(free_port()), True)):
            with Preconnection(end, remote(listener.getsockname()[1])).initiate(5) as connection:
                peer, address = listener.accept()
                peer.close()
                assert address[0] == end.ip_address
                assert port is None or address[1] == end.port
                assert connection.local_endpoint is not None
                assert (connection.local_endpoint.ip_address, connection.local_endpoint.port) == (
                    address[0],
                    address[1],
                )


def test_a_local_port_that_is_taken() -> None:
    with plain_listener() as listener:
        port = listener.getsockname()[1]
        with pytest.raises(EstablishmentError) as caught:
            Preconnection(local(port), remote(port)).initiate(timeout=5)
        assert caught.value.reason is Reason.ESTABLISHMENT_FAILED


# -- Names --


@pytest.mark.rfc("E-03", "E-21", "I-06", "ER-03")
def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(remote_endpoint=NOWHERE).initiate(timeout=20)
    assert caught.value.reason is Reason.RESOLUTION_FAILED
    assert "no-such-host.invalid" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["a" * 64 + ".invalid", "a..b", "-", "münchen..invalid", "1.2.3.4.5", "\u20ac.invalid"],
)
def test_strange_names_are_unknown_and_nothing_worse(name: str) -> None:
    end = RemoteEndpoint().with_hostname(name).with_port(9)
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(remote_endpoint=end).initiate(timeout=20)
    assert caught.value.reason is Reason.RESOLUTION_FAILED


def test_an_unknown_service() -> None:
    end = RemoteEndpoint().with_ip_address(HERE).with_service("no-such-service")
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(remote_endpoint=end).initiate(timeout=20)
    assert caught.value.reason is Reason.RESOLUTION_FAILED


def test_one_endpoint_that_cannot_be_resolved_does_not_spoil_the_others() -> None:
    with plain_listener() as listener:
        ends = [NOWHERE, remote(listener.getsockname()[1])]
        Preconnection(remote_endpoint=ends).initiate(timeout=20).close()


def test_a_name_that_stands_for_several_addresses() -> None:
    """localhost may be ::1 as well, where nobody listens."""
    with plain_listener() as listener:
        end = RemoteEndpoint().with_hostname("localhost").with_port(listener.getsockname()[1])
        with Preconnection(remote_endpoint=end).initiate(timeout=10) as connection:
            assert connection.remote_endpoint is not None
            assert connection.remote_endpoint.hostname == "localhost"
            assert connection.remote_endpoint.ip_address == HERE


# -- Broken off --


def test_in_a_callback_both_actions_are_refused() -> None:
    preconnection = Preconnection(local(), NOWHERE)
    found = gevent.event.AsyncResult()
    calls = (preconnection.initiate, preconnection.listen)
    get_runner().call_soon(lambda: found.set([outcome(call) for call in calls]))
    assert [type(error) for error in found.get()] == [SwitchpointError] * 2


@pytest.mark.parametrize("how", ["kill", "timeout"])
def test_a_broken_off_initiate_leaves_nothing(certificates: Certificates, how: str) -> None:
    parameters = SecurityParameters().add_trust_ca(certificates.ca)
    with plain_listener() as listener:
        end = remote(listener.getsockname()[1])
        preconnection = Preconnection(None, [end, end.copy()], None, parameters)
        if how == "kill":
            initiating = in_greenlet(preconnection.initiate)
            peer, _ = listener.accept()
            initiating.kill()
        else:
            with gevent.Timeout(0.05, False):
                preconnection.initiate()
            peer, _ = listener.accept()
        with peer, contextlib.suppress(ConnectionResetError):
            assert read_all(peer).startswith(b"\x16\x03")  # its hello, and then the end


def test_a_timeout_of_zero_is_over_at_once() -> None:
    with plain_listener() as listener, Stopwatch() as took:
        error = outcome(Preconnection(None, remote(listener.getsockname()[1])).initiate, timeout=0)
        if isinstance(error, EstablishmentError):
            assert error.reason is Reason.TIMEOUT
        else:
            error.close()
    assert took.seconds < 5
    assert not isinstance(error, Timeout)


UNREACHABLE = """
import sys
from greentaps import *
for address in sys.argv[1:]:
    end = RemoteEndpoint().with_ip_address(address).with_port(9)
    try:
        Preconnection(remote_endpoint=end).initiate(timeout=10)
    except EstablishmentError as error:
        print(error.reason.value, type(error.__cause__.errno).__name__, error.__cause__.errno)
"""


@pytest.mark.netns
@pytest.mark.rfc("I-07", "ER-04")
def test_a_network_that_cannot_be_reached() -> None:
    """In a network namespace of its own a process has no network at all."""
    with running("unshare", "-n", "true", errors=True) as probe:
        if probe.wait():
            pytest.skip("this process may not make network namespaces")
    with running(
        "unshare", "-n", sys.executable, "-W", "error", "-c", UNREACHABLE,
        "192.0.2.1", "2001:db8::1", HERE,
        env={"PYTHONPATH": str(LIBRARY)}, errors=True,
    ) as program:  # fmt: skip
        lines = program.read().decode().splitlines()
    assert [line.split()[0] for line in lines] == ["EstablishmentFailed"] * 3, lines
    assert lines[0].endswith("int 101")  # ENETUNREACH
