"""The names that the older systems of this family document, and their flows as programs.

Two of them are asyncio's and callbacks' children.  What they do with a coroutine is a blocking call
here, or the same call with ``wait=False``; the names stay.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import greentaps as taps
import pytest
from conftest import Certificates
from greentaps import (
    Connection,
    ConnectionState,
    Framer,
    Listener,
    LocalEndpoint,
    Message,
    MessageContext,
    Preconnection,
    PropertyError,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from greentaps.taps.names import (
    CapacityProfiles,
    ConnectionProperties,
    MessageProperties,
    PreferenceLevel,
    SelectionProperties,
    TCPUserTimeout,
)
from greentaps.taps.properties import CapacityProfile, TransportPropertyProfiles
from rfc9622.world import Log, joined, listening, towards
from taps.helpers import HERE, free_port, local, port_of, remote, until

TESTS = Path(__file__).parents[1]

# class -> its methods and attributes; MessageDataObject is our Message
DOCUMENTED: dict[type, str] = {
    Preconnection: "add_framer initiate initiate_with_send listen start on_ready on_initiate_error "
    "on_connection_received",
    Connection: "HANDLE_STATE_CLOSED HANDLE_STATE_CONNECTION_ERROR HANDLE_STATE_READY abort batch "
    "clone close get_properties receive send set_property stop send_message on_sent on_expired "
    "on_send_error on_received on_received_partial on_receive_error on_closed on_connection_error",
    Listener: "HANDLE_CONNECTION_RECEIVED stop",
    Message: "data length",
    TransportProperties: "add avoid default ignore prefer prohibit require",
    LocalEndpoint: "with_address with_interface with_port with_hostname",
    RemoteEndpoint: "with_address with_hostname with_interface with_port",
    SecurityParameters: "addTrustCA addIdentity",
    Framer: "start new_sent_message handle_received_data",
    MessageContext: "add get",
}


@pytest.mark.rfc("T-17", "T-19", "SH-03")
@pytest.mark.parametrize("kind", DOCUMENTED, ids=lambda kind: kind.__name__)
def test_each_class_has_its_names(kind: type) -> None:
    for name in DOCUMENTED[kind].split():
        assert name in kind.__dict__ or hasattr(kind, name) or name in _slots(kind), name


def _slots(kind: type) -> set[str]:
    return {name for base in kind.__mro__ for name in getattr(base, "__slots__", ())}


@pytest.mark.rfc("T-19")
@pytest.mark.parametrize(
    ("kind", "members"),
    [
        (PreferenceLevel, {"PROHIBIT": -2, "AVOID": -1, "IGNORE": 0, "PREFER": 1, "REQUIRE": 2}),
        (
            CapacityProfiles,
            {
                "DEFAULT": 0,
                "SCAVENGER": 1,
                "CAPACITY_SEEKING": 10,
                "LOW_LATENCY_NON_INTERACTIVE": 18,
                "CONSTANT_RATE_STREAMING": 28,
                "LOW_LATENCY_INTERACTIVE": 36,
            },
        ),
        (
            TCPUserTimeout,
            {
                "ADVERTISED_USER_TIMEOUT": "tcp.user-timeout-value",
                "USER_TIMEOUT_ENABLED": "tcp.user-timeout",
                "CHANGEABLE": "tcp.user-timeout-recv",
            },
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_constants_and_their_values(kind: Any, members: dict[str, Any]) -> None:
    for name, value in members.items():
        assert kind[name] == value


@pytest.mark.rfc("T-19")
def test_the_states_and_the_profiles() -> None:
    for number, name in enumerate(("ESTABLISHING", "ESTABLISHED", "CLOSING", "CLOSED"), 1):
        assert ConnectionState[name] is ConnectionState.of(number, "connState")
    for number, name in enumerate(
        ("RELIABLE_INORDER_STREAM", "RELIABLE_MESSAGE", "UNRELIABLE_DATAGRAM"), 1
    ):
        assert TransportProperties(number) == TransportProperties(TransportPropertyProfiles[name])


@pytest.mark.rfc("T-19", "T-15")
@pytest.mark.parametrize(
    "member",
    [*SelectionProperties, *ConnectionProperties, *MessageProperties],
    ids=lambda one: f"{type(one).__name__}.{one.name}",
)
def test_each_constant_names_a_property_of_a_connection(member: str) -> None:
    with joined() as (client, _):
        properties = client.get_properties()
        try:
            properties.get(member)
        except taps.taps.properties.PropertyMomentError:  # only a received Message has it
            assert MessageContext().get(member) is None


def test_they_are_taken_where_the_older_systems_take_them() -> None:
    properties = TransportProperties(TransportPropertyProfiles.RELIABLE_INORDER_STREAM)
    properties.add(SelectionProperties.RELIABILITY, PreferenceLevel.REQUIRE)
    properties.prohibit(SelectionProperties.PRESERVE_MSG_BOUNDARIES)
    properties.ignore(SelectionProperties.MULTISTREAMING)
    properties.default(SelectionProperties.CONGESTION_CONTROL)
    properties.add(ConnectionProperties.CAPACITY_PROFILE, CapacityProfiles.SCAVENGER)
    properties.add(
        ConnectionProperties.USER_TIMEOUT_TCP, {TCPUserTimeout.ADVERTISED_USER_TIMEOUT: 150}
    )
    with joined(properties) as (client, server):
        returned = client.get_properties()
        assert returned["send"] is returned["receive"] is True
        assert returned["state"] is ConnectionState.ESTABLISHED
        assert returned["props"].get(SelectionProperties.RELIABILITY) is True
        assert returned.get("connCapacityProfile") is CapacityProfile.SCAVENGER
        client.set_property(ConnectionProperties.PRIORITY, 5)
        assert returned.get("connPriority") == 5
        context = MessageContext().add(MessageProperties.PRIORITY, 1)
        context.add(MessageProperties.IDEMPOTENT, True)
        client.send(b"x", context)
        assert server.receive(1, timeout=10).data == b"x"


# name -> its default in the older systems
OLDER_DEFAULTS: dict[str, Any] = {
    "congestion-control": "require",
    "multistreaming": "prefer",
    "per-msg-reliability": "ignore",
    "preserve-msg-boundaries": "prefer",
    "preserve-order": "require",
    "reliability": "require",
    "soft-error-notify": "ignore",
    "zero-rtt-msg": "ignore",
    "conn-capacity-profile": "default",
    "conn-scheduler": "weighted fair queueing",
    "conn-prio": 100,
    "recv-checksum-len": -1,
    "conn-timeout": -1,
    "singular-transmission-msg-max-len": -1,
    "send-msg-max-len": -1,
    "recv-msg-max-len": -1,
    "zero-rtt-msg-max-len": -1,
    "retransmit-notify": "ignore",
    "retransmit-notify-threshold": -1,
    "tcp.user-timeout-value": 300,
    "tcp.user-timeout": False,
    "tcp.user-timeout-recv": True,
    "multipath": "prefer",
    "per-msg-checksum-len-send": "ignore",
    "per-msg-checksum-len-recv": "ignore",
    "msg-checksum-len": -1,
    "final": False,
    "idempotent": False,
    "msg-lifetime": math.inf,
    "msg-ordered": True,
    "msg-prio": 100,
    "msg-reliable": True,
    "msg-capacity-profile": "default",
    "singular-transmission": False,
}


@pytest.mark.rfc("SH-08", "TP-11")
@pytest.mark.parametrize("name", OLDER_DEFAULTS)
def test_each_default_that_differs_is_in_the_table_of_differences(name: str) -> None:
    page = (TESTS.parent / "docs" / "reference" / "properties.rst").read_text()
    differences = page[page.index("Where the meaning differs") :]
    properties = TransportProperties()
    try:
        ours = properties.get(name)
        same = properties.copy().set(name, OLDER_DEFAULTS[name]).get(name) == ours
    except (PropertyError, TypeError, ValueError):
        same = False  # it cannot be said here any more
    if not same:
        assert f"``{name}``" in differences


# -- Flows of the first system --


def test_the_callback_client_and_server() -> None:
    """In a process of its own: ``start`` waits until nothing is left to do there."""
    code = "from rfc9622.test_older_names import callback_program; callback_program()"
    ours = os.path.dirname(os.path.dirname(taps.__file__))
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([ours, str(TESTS)])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.splitlines() == [
        "Hello server",
        "Got message 17: Hello from server",
        "closed",
    ], result.stderr
    assert result.stderr == ""


def callback_program() -> None:
    """Its example: the server says hello to whoever says something, and the client leaves."""

    # The server
    local_specifier = LocalEndpoint()
    local_specifier.with_address(HERE)
    local_specifier.with_port(0)
    transport_properties = TransportProperties()
    transport_properties.add(SelectionProperties.RELIABILITY, PreferenceLevel.REQUIRE)
    transport_properties.prohibit(SelectionProperties.PRESERVE_MSG_BOUNDARIES)
    new_preconnection = Preconnection(
        local_endpoint=local_specifier, transport_properties=transport_properties
    )
    new_listener = new_preconnection.listen()

    def message_handler(
        connection: Connection, message: Any, context: Any, is_end: Any, error: Any
    ) -> None:
        assert error is None
        print(message.data.decode())
        connection.send(b"Hello from server", lambda connection, error: connection.stop())

    def new_connection_received(connection: Connection) -> None:
        new_listener.stop()
        connection.receive(handler=message_handler, min_incomplete_length=1)

    new_listener.HANDLE_CONNECTION_RECEIVED = new_connection_received

    # The client
    remote_specifier = RemoteEndpoint()
    remote_specifier.with_address("127.0.0.1")
    remote_specifier.with_port(port_of(new_listener))
    profile = TransportProperties(TransportPropertyProfiles.RELIABLE_INORDER_STREAM)
    client_preconnection = Preconnection(
        remote_endpoint=remote_specifier, transport_properties=profile
    )

    def receive_handler(
        connection: Connection, message: Any, context: Any, is_end: Any, error: Any
    ) -> None:
        print(f"Got message {message.length}: {message.data.decode()}")
        connection.stop()

    def ready_handler(connection: Connection) -> None:
        connection.send(b"Hello server", None)
        connection.receive(receive_handler)

    new_connection = client_preconnection.initiate(wait=False)
    new_connection.HANDLE_STATE_READY = ready_handler
    client_preconnection.start()  # returns when nothing is left to do
    print(str(new_connection.state).lower())


def test_its_handlers_and_their_arguments() -> None:
    events: list[Any] = []
    with listening() as listener:
        preconnection = towards(listener)
        connection = preconnection.initiate_with_send(
            b"first",
            lambda connection, error: events.append(("sent", error)),
            MessageContext().add("idempotent", True),
        )
        server = listener.accept(timeout=10)
        until(lambda: events)
        assert events == [("sent", None)]
        connection.HANDLE_STATE_CLOSED = lambda connection: events.append("closed")
        connection.HANDLE_STATE_CONNECTION_ERROR = lambda connection: events.append("error")

        def block() -> None:
            connection.send(b"b", lambda *args: None, MessageContext().add("msg-prio", 200))
            connection.send(b"a", None, MessageContext(), wait=False)

        connection.batch(block)
        assert server.receive(7, timeout=10).data == b"firstab"
        connection.close()
        until(lambda: len(events) == 2)
        assert events[-1] == "closed"
        server.abort()


@pytest.mark.parametrize(
    ("arguments", "named", "piece"),
    [
        ((1, 3), {}, b"abc"),
        ((2,), {"max_length": 4}, b"abcd"),
        ((), {"min_incomplete_length": 6, "max_length": 6}, b"abcdef"),
        ((), {"min_incomplete_length": 6}, b"abcdef"),
    ],
)
def test_its_receive_takes_the_handler_first(
    arguments: tuple[int, ...], named: dict[str, int], piece: bytes
) -> None:
    got: list[Any] = []

    def handler(connection: Any, message: Any, context: Any, is_end: Any, error: Any) -> None:
        got.append((message.data, is_end, error))

    with joined() as (client, server):
        client.send(b"abcdef")
        assert server.receive(handler, *arguments, **named) is None
        until(lambda: got)
        assert got == [(piece, False, None)]
        for wrong in (
            lambda: server.receive(handler, 1, min_incomplete_length=1),
            lambda: server.receive(handler, handler=handler),  # type: ignore[call-overload]
            lambda: server.receive(1, 2, 3),  # type: ignore[call-overload]
            lambda: server.receive(1, 2, max_length=2),  # type: ignore[call-overload,misc]
            lambda: server.receive(handler, "1"),  # type: ignore[call-overload]
        ):
            with pytest.raises(TypeError):
                wrong()
        assert server._requests == []


def test_its_handlers_are_attributes() -> None:
    told: list[Any] = []
    with joined() as (client, server):
        assert client.HANDLE_STATE_CONNECTION_ERROR is None
        client.HANDLE_STATE_CONNECTION_ERROR = told.append  # gets the Connection alone
        assert told.append == client.HANDLE_STATE_CONNECTION_ERROR
        client.HANDLE_STATE_CLOSED = told.append
        client.HANDLE_STATE_CLOSED = None
        assert client.HANDLE_STATE_CLOSED is None
        for wrong in (1, "handler"):
            with pytest.raises(TypeError):
                client.HANDLE_STATE_READY = wrong
        server.abort()
        until(lambda: told)
        assert told == [client]


def test_its_preconnection_takes_security_needed_in_its_place() -> None:
    called: list[bool] = []
    made = Preconnection(None, None, None, True, lambda: called.append(True))
    assert made.security_parameters is not None
    assert Preconnection(None, None, None, False).security_parameters is None
    with pytest.raises(taps.EstablishmentError):
        made.initiate()
    until(lambda: called)


def test_its_message_object() -> None:
    assert taps.MessageDataObject(b"data", True, None).length == 4


def test_its_clone_takes_a_handler_of_errors() -> None:
    failures: list[Any] = []
    with joined() as (_, server):
        with pytest.raises(taps.CloneError):
            server.clone(failures.append)
        until(lambda: failures)
        assert failures == [server]


def test_an_unfulfilled_preconnection_calls_its_handler() -> None:
    called: list[bool] = []
    preconnection = Preconnection(
        remote_endpoint=remote(1),
        transport_properties=TransportProperties(TransportPropertyProfiles.RELIABLE_MESSAGE),
        unfulfilled_handler=lambda: called.append(True),
    )
    with pytest.raises(taps.EstablishmentError):
        preconnection.initiate()
    until(lambda: called)


def test_security_needed_is_tls(certificates: Certificates) -> None:
    with Preconnection(
        local(),
        security_parameters=SecurityParameters().add_identity(certificates.server, role="server"),
    ).listen() as listener:
        with pytest.raises(taps.EstablishmentError) as caught:
            Preconnection(remote_endpoint=remote(port_of(listener)), security_needed=True).initiate(
                timeout=10
            )
        # The system trusts no authority of a test's.
        assert isinstance(caught.value.__cause__, taps.CertificateError)


# -- Flows of the second system, whose coroutines are calls here --


def test_the_usage_of_the_second_system(certificates: Certificates) -> None:
    heard: list[Any] = []
    server_security = SecurityParameters()
    server_security.addIdentity(certificates.server)
    service = Preconnection(
        local_endpoint=LocalEndpoint().with_address(HERE).with_port("0"),
        transport_properties=TransportProperties(),
        security_parameters=server_security,
    )

    def handle_connection_received(connection: Connection) -> None:
        heard.append("received")
        message = connection.receive(min_incomplete_length=1)
        assert message is not None
        connection.send_message(message.data.upper())
        connection.close()

    service.on_connection_received(handle_connection_received)
    with service.listen() as listener:
        security = SecurityParameters()
        security.addTrustCA(certificates.ca)
        remote_endpoint = RemoteEndpoint()
        remote_endpoint.with_hostname("localhost")
        remote_endpoint.with_port(str(port_of(listener)))
        preconnection = Preconnection(
            remote_endpoint=remote_endpoint,
            local_endpoint=None,
            transport_properties=TransportProperties(),
            security_parameters=security,
        )
        preconnection.on_ready(lambda connection: heard.append("ready"))
        connection = preconnection.initiate()
        connection.on_closed(lambda connection: heard.append("closed"))
        connection.send_message(b"data")
        message = connection.receive(min_incomplete_length=1)
        assert message is not None
        assert message.data == b"DATA"
        connection.close()
        until(lambda: "closed" in heard)
    assert sorted(heard) == ["closed", "ready", "received"]


def test_to_enforce_udp_as_the_second_system_says() -> None:
    """Where meanings differ, RFC 9622 wins: here Messages must also be safely replayable."""
    properties = TransportProperties()
    properties.add("congestion-control", "ignore")
    properties.add("preserve-order", "ignore")
    properties.add("reliability", "prohibit")
    end = remote(free_port())
    with pytest.raises(taps.EstablishmentError, match="safelyReplayable"):
        Preconnection(remote_endpoint=end, transport_properties=properties).initiate()
    properties.add("idempotent", True)
    connection = Preconnection(remote_endpoint=end, transport_properties=properties).initiate()
    assert connection.stack == "udp"
    log = Log(connection, ("closed",))
    connection.close()
    until(lambda: log)
