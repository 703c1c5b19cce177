"""Message contexts and Message Properties (RFC 9622 sections 9.1.1 and 9.1.3)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from greentaps import (
    LengthPrefixFramer,
    MessageContext,
    Preconnection,
    Reason,
    SendError,
    TransportProperties,
)
from greentaps.framers.tlv import TlvFramer
from greentaps.taps.properties import (
    FULL_COVERAGE,
    INFINITE,
    CapacityProfile,
    PropertyError,
    PropertyMomentError,
    PropertyReadOnlyError,
)
from rfc9622.world import Log, datagram_peer, joined, towards
from taps.helpers import HERE, local, plain_listener, read_exactly, remote, until, with_plain_peer


def context(**properties: Any) -> MessageContext:
    made = MessageContext()
    for name, value in properties.items():
        made.add(name, value)
    return made


# -- Contexts --


@pytest.mark.rfc("MC-01", "AC-01", "SN-01")
def test_an_empty_context_is_as_none() -> None:
    with joined() as (client, server):
        assert repr(MessageContext()) == "MessageContext()"
        client.send(b"a")
        client.send(b"b", MessageContext())
        client.send(b"c", MessageContext(), True)
        until(lambda: server._inbox.size)
        received = b""
        while len(received) < 3:
            received += server.receive(1, timeout=10).data
        assert received == b"abc"


@pytest.mark.rfc("MC-02", "AC-09", "T-03")
def test_properties_of_a_context() -> None:
    made = MessageContext()
    assert made.add("MSG-PRIORITY", 3) is made
    assert made.get("msgPriority") == 3
    assert made.get("msgLifetime") is None
    assert made.get("msgLifetime", default=7) == 7
    assert made.has("msgPriority")
    made.add("msgPriority", 4)
    assert made.get("msgPriority") == 4
    for name, value, error in (
        ("noSuch", 1, KeyError),
        ("msgPriority", "x", TypeError),
        ("msgPriority", -1, ValueError),
        ("connTimeout", 1, PropertyMomentError),
        ("ecn", 1, PropertyReadOnlyError),
    ):
        with pytest.raises(error):
            made.add(name, value)
    assert made.get("msgPriority") == 4


@pytest.mark.rfc("MC-03", "F-07", "SH-18")
def test_each_framer_has_its_own_metadata() -> None:
    one, other = TlvFramer(), TlvFramer()
    made = MessageContext().add(one, "type", 1).add(other, "type", 2)
    assert (made.get(one, "type"), made.get(other, "type")) == (1, 2)
    assert made.get(one, "nothing") is None
    assert made.settings() == {}


@pytest.mark.rfc("MC-04", "MC-05", "SN-03", "AC-09", "EV-09")
def test_the_ends_are_on_the_contexts_of_both_sides() -> None:
    with joined() as (client, server):
        log = Log(client)
        sent = client.send(b"x", wait=False)
        until(lambda: log)
        assert log.of("sent") == [(sent,)]
        received = server.receive(1, timeout=10).context
        assert sent is not None
        assert sent.get_local_endpoint() == client.local_endpoint
        assert received.get_remote_endpoint() == server.remote_endpoint
        assert sent.get_remote_endpoint() == client.remote_endpoint
        assert received.get_local_endpoint() == server.local_endpoint
        # Also of one that was given and waited for.
        given = MessageContext()
        assert given.get_remote_endpoint() is None
        assert client.send(b"x", given) is given
        assert given.get_remote_endpoint() == client.remote_endpoint


@pytest.mark.rfc("MC-06")
def test_what_is_changed_after_a_send_is_too_late_for_it() -> None:
    with plain_listener() as listener:
        connection = Preconnection(remote_endpoint=remote(listener.getsockname()[1])).initiate(
            wait=False
        )
        low = context(msgPriority=200)
        connection.send(b"low ", low, wait=False)
        low.add("msgPriority", 0).add("final", True)
        connection.send(b"usual ", wait=False)
        connection.send(b"high ", low.add("final", False), wait=False)
        peer, _ = listener.accept()
        assert read_exactly(peer, 15) == b"high usual low "
        peer.close()
        connection.abort()


@pytest.mark.rfc("MC-06", "MC-03")
def test_what_is_changed_for_a_framer_after_a_send_is_too_late() -> None:
    framer = TlvFramer()
    with Preconnection(local()).add_framer(framer).listen() as listener:
        client = towards(listener).add_framer(framer).initiate(wait=False)
        made = MessageContext().add(framer, "type", 1)
        client.send(b"x", made, wait=False)
        made.add(framer, "type", 2)
        client.send(b"y", made, wait=False)
        server = listener.accept(timeout=10)
        kinds = [server.receive(timeout=10).context.get(framer, "type") for _ in range(2)]
        assert kinds == [1, 2]
        client.abort()
        server.abort()


@pytest.mark.rfc("MC-07", "N-08")
def test_one_context_serves_several_messages() -> None:
    framer = LengthPrefixFramer()
    with Preconnection(local()).add_framer(framer).listen() as listener:
        client = towards(listener).add_framer(framer).initiate(timeout=10)
        server = listener.accept(timeout=10)
        made = context(msgPriority=1)
        for data in (b"one", b"two"):
            client.send(data, made)
        client.send(b"th", made, False)
        client.send(b"ree", made)
        assert [server.receive(timeout=10).data for _ in range(3)] == [b"one", b"two", b"three"]
        client.abort()
        server.abort()


# -- Defaults and contradictions --


@pytest.mark.rfc("MC-08", "P-41", "P-42", "P-43", "P-46", "P-47", "P-48", "P-49", "P-50")
def test_defaults_follow_the_connection() -> None:
    with joined(TransportProperties(connCapacityProfile="scavenger")) as (client, _):
        get = client.get_properties().get
        assert get("msgLifetime") is INFINITE
        assert get("msgPriority") == 100
        assert get("msgOrdered") is get("msgReliable") is True
        assert get("msgChecksumLen") is FULL_COVERAGE
        assert get("msgCapacityProfile") is CapacityProfile.SCAVENGER
        assert get("noFragmentation") is get("noSegmentation") is get("safelyReplayable") is False
    with datagram_peer() as (connection, _):
        get = connection.get_properties().get
        assert get("msgOrdered") is get("msgReliable") is False
        assert get("safelyReplayable") is True


@pytest.mark.rfc("T-07", "TP-04", "P-42", "DS-05")
@pytest.mark.parametrize("where", ["pre", "conn", "msg"])
def test_message_properties_can_be_set_in_three_places(where: str) -> None:
    wishes = TransportProperties()
    if where == "pre":
        wishes.set("msgPriority", 7)
    with plain_listener() as listener:
        connection = Preconnection(
            remote_endpoint=remote(listener.getsockname()[1]), transport_properties=wishes
        ).initiate(wait=False)
        if where == "conn":
            connection.set_property("msgPriority", 7)
        given = context(msgPriority=7) if where == "msg" else None
        connection.send(b"after ", context(msgPriority=8), wait=False)
        connection.send(b"seven ", given, wait=False)
        peer, _ = listener.accept()
        assert read_exactly(peer, 12) == b"seven after "
        peer.close()
        connection.abort()


@pytest.mark.rfc("MC-09", "P-43", "P-44", "P-47", "MU-20", "N-02", "ER-09", "TT-04", "EV-11")
@pytest.mark.parametrize(
    ("name", "value"), [("msgOrdered", True), ("msgReliable", True), ("safelyReplayable", False)]
)
@pytest.mark.parametrize("way", ["wait", "event", "handler"])
def test_what_udp_cannot_promise_is_a_send_error(name: str, value: bool, way: str) -> None:
    with datagram_peer() as (connection, peer):
        wrong = context(**{name: value})
        log = Log(connection)
        if way == "wait":
            with pytest.raises(SendError) as caught:
                connection.send(b"x", wrong)
            error: Any = caught.value
        elif way == "event":
            assert connection.send(b"x", wrong, wait=False) is wrong
            until(lambda: log)
            ((told, error),) = log.of("send_error")
            assert told is wrong
        else:
            errors: list[Any] = []
            connection.send(b"x", wrong, sent_handler=lambda _, error: errors.append(error))
            until(lambda: errors)
            (error,) = errors
            assert log == []
        assert error.reason is Reason.INVALID_MESSAGE_PROPERTIES
        assert name in str(error)
        connection.send(b"fine")
        assert peer.recv(10) == b"fine"


@pytest.mark.rfc("P-47", "MC-09", "N-02", "DS-10")
def test_msg_reliable_needs_per_msg_reliability() -> None:
    with joined() as (client, server):
        with pytest.raises(SendError) as caught:
            client.send(b"x", context(msgReliable=False))
        assert caught.value.reason is Reason.INVALID_MESSAGE_PROPERTIES
        client.send(b"reliable", context(msgReliable=True))
        assert server.receive(1, timeout=10).data == b"reliable"


@pytest.mark.rfc("P-43", "DS-06", "OR-07", "MS-23")
def test_unordered_messages_over_tcp_are_ordered_all_the_same() -> None:
    with with_plain_peer() as (connection, peer):
        for number in range(10):
            connection.send(b"%d" % number, context(msgOrdered=bool(number % 2)))
        assert read_exactly(peer, 10) == b"0123456789"


@pytest.mark.rfc("DS-07", "P-44")
def test_a_replayable_message_over_tcp_arrives_once() -> None:
    with with_plain_peer() as (connection, peer):
        connection.send(b"once", context(safelyReplayable=True, final=True))
        assert read_exactly(peer, 4) == b"once"
        assert peer.recv(10) == b""


@pytest.mark.rfc("DS-09", "P-46", "P-49", "P-50", "DS-12", "DS-13")
def test_what_a_byte_stream_has_no_use_for_does_no_harm() -> None:
    with with_plain_peer() as (connection, peer):
        connection.send(
            bytes(5000), context(msgChecksumLen=0, noFragmentation=True, noSegmentation=True)
        )
        assert read_exactly(peer, 5000) == bytes(5000)


@pytest.mark.rfc("MC-11", "P-42")
def test_the_properties_of_a_message_are_those_of_its_first_part() -> None:
    with plain_listener() as listener:
        connection = Preconnection(remote_endpoint=remote(listener.getsockname()[1])).initiate(
            wait=False
        )
        made = context(msgPriority=200)
        connection.send(b"slow ", made, False, wait=False)
        made.add("msgPriority", 0)
        connection.send(b"end ", made, wait=False)
        connection.send(b"fast ", wait=False)
        peer, _ = listener.accept()
        assert read_exactly(peer, 14) == b"fast slow end "
        peer.close()
        connection.abort()


@pytest.mark.rfc("P-52", "P-53", "RV-14", "TC-13")
def test_marks_of_a_received_message() -> None:
    with with_plain_peer() as (connection, peer):
        peer.sendall(b"all")
        first = connection.receive(1, timeout=10)
        assert first.final is False
        assert not first.context.get("early-data")
        peer.close()
        last = connection.receive(timeout=10)
        assert (last.data, last.end_of_message, last.final) == (b"", True, True)
        assert last.context is first.context
        assert last.context.get_remote_endpoint().ip_address == HERE  # type: ignore[union-attr]


@pytest.mark.rfc("T-02", "SN-01")
def test_a_buffer_may_be_changed_after_the_call() -> None:
    with plain_listener() as listener:
        connection = Preconnection(remote_endpoint=remote(listener.getsockname()[1])).initiate(
            wait=False
        )
        buffer = bytearray(b"before")
        connection.send(buffer, wait=False)
        buffer[:] = b"after!"
        peer, _ = listener.accept()
        assert read_exactly(peer, 6) == b"before"
        peer.close()
        connection.abort()


@pytest.mark.rfc("MC-02")
@pytest.mark.parametrize("name", ["_vendor.note", "msgNothing"])
def test_unknown_properties_of_messages(name: str) -> None:
    with pytest.raises(PropertyError):
        MessageContext().add(name, 1)


@pytest.mark.rfc("MC-01", "T-02")
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_copies_are_of_their_own(how: Any) -> None:
    framer = TlvFramer()
    made = MessageContext().add("msgPriority", 7).add(framer, "type", 5)
    other = how(made)
    other.add("msgPriority", 8)
    assert (made.get("msgPriority"), other.get("msgPriority")) == (7, 8)
    assert other.get(framer, "type") == 5
    with joined() as (client, server):
        server.send(b"a piece")
        message = client.receive(1, timeout=10)
        assert message is not None
        for again in (how(message), how(how(message))):
            assert (again.data, again.end_of_message, again.partial) == (b"a piece", False, True)
            assert again.context.get_remote_endpoint() == client.remote_endpoint
