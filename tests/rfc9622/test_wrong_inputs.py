"""Every public call of the API with values of the wrong type and range, and at the wrong moment.

What is wrong is said at once, in Python's own terms, and nothing has happened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from greentaps import (
    Connection,
    ConnectionError,  # noqa: A004 - RFC 9622's own name
    ConnectionState,
    EstablishmentError,
    LengthPrefixFramer,
    Listener,
    LocalEndpoint,
    MessageContext,
    Preconnection,
    RemoteEndpoint,
    SwitchpointError,
    TransportProperties,
)
from greentaps.hub import get_runner
from rfc9622.world import joined, listening
from taps.helpers import local, owned, remote, until

NOT_NUMBERS = ["1", b"1", [1], True, object()]
NEGATIVE = [-1, -0.5, float("nan"), float("-inf")]


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    with joined() as both:
        yield both


# -- Endpoints --


@pytest.mark.rfc("T-01")
@pytest.mark.parametrize("wrong", ["localhost:80", ("localhost", 80), [None]])
def test_what_is_no_endpoint_is_told_as_it_was_given(wrong: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Preconnection(remote_endpoint=wrong)
    assert str(caught.value).endswith(f"not {wrong!r}")


@pytest.mark.rfc("T-01", "E-04", "E-05", "E-06", "E-07", "E-09", "E-12")
@pytest.mark.parametrize("kind", [LocalEndpoint, RemoteEndpoint])
@pytest.mark.parametrize(
    ("method", "types", "values"),
    [
        ("with_hostname", [None, 1, b"a"], ["", "a b", "a\0", "x" * 300]),
        ("with_port", [None, 1.0, True, "http"], [-1, 65536, 10**20]),
        ("with_service", [None, 80, b"http"], ["", "a b", "70000"]),
        ("with_ip_address", [None, 1, 1.5], ["", "1.2.3", "1.2.3.4%lo", "::1%", b"123", "a.b"]),
        ("with_address", [None, 1], ["nonsense"]),
        ("with_interface", [None, 1, b"lo"], ["", "a b", "a/b", "a%b"]),
        ("with_protocol", [None, 6, b"tcp"], ["", "t c p"]),
        ("with_hop_limit", [None, "1", 1.0, True], [0, -1, 256]),
    ],
)
def test_endpoints(kind: type, method: str, types: list[Any], values: list[Any]) -> None:
    end = kind()
    for wrong, error in [(one, TypeError) for one in types] + [(one, ValueError) for one in values]:
        with pytest.raises(error):
            getattr(end, method)(wrong)
    assert end == kind()


# -- Preconnections --


@pytest.mark.rfc("T-01", "PC-02")
@pytest.mark.parametrize(
    "arguments",
    [
        {"local_endpoint": 1},
        {"local_endpoint": [1]},
        {"local_endpoint": remote(1)},
        {"remote_endpoint": "localhost:80"},
        {"remote_endpoint": local()},
        {"remote_endpoint": [remote(1), local()]},
        {"transport_properties": {"reliability": "require"}},
        {"transport_properties": LocalEndpoint()},
        {"security_parameters": 1},
        {"security_parameters": {}},
        {"unfulfilled_handler": 1, "x": 1},
    ],
    ids=str,
)
def test_preconnections(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Preconnection(**arguments)


@pytest.mark.rfc("T-01", "PC-04", "PC-05")
def test_additions_to_preconnections() -> None:
    made = Preconnection()
    for wrong in (None, 1, LengthPrefixFramer, "framer"):
        with pytest.raises(TypeError):
            made.add_framer(wrong)  # type: ignore[arg-type]
    for wrong in (1, local(), [local()], "name"):
        with pytest.raises(TypeError):
            made.add_remote(wrong)  # type: ignore[arg-type]
    assert made.remote_endpoints == []


@pytest.mark.rfc("T-01", "I-01")
@pytest.mark.parametrize(
    "action",
    [
        lambda made, timeout: made.initiate(timeout),
        lambda made, timeout: made.initiate(timeout, wait=False),
        lambda made, timeout: made.initiate_with_send(b"x", timeout=timeout),
        lambda made, timeout: made.listen(timeout),
    ],
    ids=["initiate", "soon", "with_send", "listen"],
)
def test_time_outs_of_actions(action: Callable[..., Any]) -> None:
    before = owned()
    made = Preconnection(local(), remote(1))
    for wrong in NOT_NUMBERS:
        with pytest.raises(TypeError):
            action(made, wrong)
    for wrong in NEGATIVE:
        with pytest.raises(ValueError, match="timeout"):
            action(made, wrong)
    assert owned() == before


@pytest.mark.rfc("T-01", "I-09", "I-11")
def test_the_message_of_initiate_with_send() -> None:
    made = Preconnection(None, remote(1))
    for wrong in ("text", None, 1, [b"x"]):
        with pytest.raises(TypeError):
            made.initiate_with_send(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        made.initiate_with_send(b"x", {"final": True})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        made.initiate_with_send(b"x", sent_handler=7)  # type: ignore[arg-type]


@pytest.mark.rfc("I-05", "ER-01", "E-04")
@pytest.mark.parametrize(
    "end",
    [RemoteEndpoint(), RemoteEndpoint().with_port(1), RemoteEndpoint().with_hostname("localhost")],
    ids=["empty", "port", "name"],
)
@pytest.mark.parametrize("wait", [True, False])
def test_half_a_remote_endpoint(end: RemoteEndpoint, wait: bool) -> None:
    failures: list[Any] = []
    made = Preconnection(None, end)
    made.on_establishment_error(lambda _, error: failures.append(error))
    if wait:
        with pytest.raises(EstablishmentError):
            made.initiate()
    else:
        with contextlib.suppress(EstablishmentError):
            made.initiate(wait=False)
    until(lambda: failures)
    assert failures[0].reason.value == "InvalidConfiguration"


# -- Listeners --


@pytest.mark.rfc("T-01", "L-06")
def test_listeners() -> None:
    with listening() as listener:
        for wrong in ("1", 1.5, None, True, [1]):
            with pytest.raises(TypeError):
                listener.set_new_connection_limit(wrong)
        with pytest.raises(ValueError, match="negative"):
            listener.set_new_connection_limit(-1)
        for wrong in ("x", True):
            with pytest.raises(TypeError):
                listener.accept(timeout=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            listener.accept(timeout=-1)
        with pytest.raises(TypeError):
            listener.on_connection_received(1)
        assert not listener.stopped
    with pytest.raises(EstablishmentError):
        listener.accept()
    listener.set_new_connection_limit(1)
    listener.stop()


# -- Connections --


@pytest.mark.rfc("T-01", "SN-01", "MC-01")
def test_send(ends: tuple[Connection, Connection]) -> None:
    client, server = ends
    for wait in (True, False):
        for wrong in ("text", None, 1, [b"x"]):
            with pytest.raises(TypeError):
                client.send(wrong, wait=wait)  # type: ignore[arg-type]
        for wrong in ({"final": True}, "final", 1):
            with pytest.raises(TypeError):
                client.send(b"x", wrong, wait=wait)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            client.send(b"x", sent_handler=1, wait=wait)  # type: ignore[arg-type]
        for wrong in (None, 1, "no"):
            with pytest.raises(TypeError):
                client.send(b"x", None, wrong, wait=wait)  # type: ignore[arg-type]
    for wrong in NOT_NUMBERS:
        with pytest.raises(TypeError):
            client.send(b"x", MessageContext(), timeout=wrong)
    with pytest.raises(ValueError, match="timeout"):
        client.send(b"x", MessageContext(), timeout=-1)
    client.send(b"good")
    assert server.receive(timeout=10, min_incomplete_length=1).data == b"good"


@pytest.mark.rfc("T-01", "RV-01")
def test_receive(ends: tuple[Connection, Connection]) -> None:
    client, server = ends
    for wait in (True, False):
        for name in ("min_incomplete_length", "max_length"):
            for wrong in ("1", 1.0, True, [1]):
                with pytest.raises(TypeError):
                    server.receive(wait=wait, **{name: wrong})  # type: ignore[arg-type]
            for wrong in (0, -1):
                with pytest.raises(ValueError, match="length"):
                    server.receive(wait=wait, **{name: wrong})
    with pytest.raises(TypeError):
        server.receive(handler=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        server.receive(print, 5, 5, 5)  # type: ignore[call-overload]
    for wrong in NOT_NUMBERS:
        with pytest.raises(TypeError):
            server.receive(timeout=wrong)
    for wrong in NEGATIVE:
        with pytest.raises(ValueError, match="timeout"):
            server.receive(timeout=wrong)
    client.send(b"good")
    assert server.receive(1, timeout=10).data == b"good"
    assert server._requests == []


@pytest.mark.rfc("T-01", "TM-01", "G-01")
def test_close_and_clone(ends: tuple[Connection, Connection]) -> None:
    client, _ = ends
    for call in (client.close, client.close_group, client.clone):
        for wrong in NOT_NUMBERS:
            with pytest.raises(TypeError):
                call(timeout=wrong)
        with pytest.raises(ValueError, match="timeout"):
            call(timeout=-1)
    for wrong in (1, "framer", LengthPrefixFramer()):
        if not isinstance(wrong, LengthPrefixFramer):
            with pytest.raises(TypeError):
                client.clone(wrong)  # type: ignore[arg-type]
    for wrong in (1, ["connPriority"], "connPriority"):
        with pytest.raises(TypeError):
            client.clone(connection_properties=wrong)  # type: ignore[arg-type]
    assert client.grouped_connections() == [client]
    assert client.state is ConnectionState.ESTABLISHED


@pytest.mark.rfc("T-01", "CM-01", "CM-03", "CM-04")
def test_properties(ends: tuple[Connection, Connection]) -> None:
    client, _ = ends
    properties = client.get_properties()
    for wrong in (None, 1, b"connTimeout", ["connTimeout"]):
        with pytest.raises((TypeError, KeyError)):
            client.set_property(wrong, 1)  # type: ignore[arg-type]
        with pytest.raises((TypeError, KeyError)):
            properties.get(wrong)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        properties.get("noSuchThing")
    with pytest.raises(TypeError):
        properties.has("connTimeout")
    for wrong in (1.5, "no such profile", [1]):
        with pytest.raises((TypeError, ValueError)):
            TransportProperties(wrong)  # type: ignore[arg-type]


# -- The wrong moment --


@pytest.mark.rfc("B-01", "B-05")
def test_blocking_calls_in_a_callback(ends: tuple[Connection, Connection]) -> None:
    client, _ = ends
    with listening() as listener:
        calls = [
            lambda: client.send(b"x"),
            lambda: client.send(b"x", MessageContext()),
            client.receive,
            client.close,
            client.close_group,
            client.clone,
            listener.accept,
            Preconnection(None, remote(1)).initiate,
            lambda: Preconnection(None, remote(1)).initiate_with_send(b"x"),
            Preconnection(local()).listen,
        ]
        results: list[Any] = []

        def in_callback() -> None:
            for call in calls:
                try:
                    results.append(call())
                except Exception as error:
                    results.append(type(error))

        get_runner().call_soon(in_callback)
        until(lambda: len(results) == len(calls))
        assert set(results) == {SwitchpointError}
        assert client.state is ConnectionState.ESTABLISHED
        assert isinstance(listener, Listener)


@pytest.mark.rfc("CM-02", "OR-03", "TM-08", "SN-06", "RV-13", "G-10")
def test_every_call_after_the_end(ends: tuple[Connection, Connection]) -> None:
    client, _ = ends
    client.abort()
    until(lambda: client.state is ConnectionState.CLOSED)
    for call in (
        lambda: client.send(b"x"),
        lambda: client.send(b"x", MessageContext()),
        lambda: client.send(b"x", end_of_message=False),
        lambda: client.receive(),
        lambda: client.receive(1),
    ):
        errors = []
        for _ in range(2):
            with pytest.raises(ConnectionError) as caught:
                call()
            errors.append(caught.value)
        assert errors[0] is not errors[1]
        assert errors[0].reason is errors[1].reason
    with pytest.raises(Exception, match="clone"):
        client.clone()
    client.close()
    client.close(wait=False)
    client.abort()
    client.close_group()
    client.abort_group()
    client.start_batch()
    client.end_batch()
    client.end_batch()
    with client.batch():
        pass
    assert client.grouped_connections() == [client]
    client.set_property("connPriority", 5)
    assert client.get_properties().get("connPriority") == 5
    gevent.sleep(0)
    assert client.state is ConnectionState.CLOSED


@pytest.mark.rfc("ST-01")
def test_a_connection_takes_no_transport_that_is_not_ready(
    ends: tuple[Connection, Connection],
) -> None:
    with pytest.raises(AssertionError):
        ends[0].connection_made(None)
    with pytest.raises(AssertionError):
        ends[0].framers_ready()
