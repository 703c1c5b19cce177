"""Sending (RFC 9622 section 9.2): one event per Send, parts, batches, priorities, lifetimes."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from greentaps import (
    Connection,
    ConnectionState,
    Expired,
    Framer,
    LengthPrefixFramer,
    MessageContext,
    NetstringFramer,
    Preconnection,
    Reason,
    SendError,
    Timeout,
    TlvFramer,
)
from greentaps.taps.properties import INFINITE
from rfc9622.world import Log, datagram_peer, joined, listening, option, towards
from taps.helpers import (
    Stopwatch,
    blackhole,
    in_greenlet,
    local,
    plain_listener,
    read_all,
    read_exactly,
    remote,
    reset,
    until,
    with_plain_peer,
)

MEGABYTE = 1024 * 1024
IP_MTU_DISCOVER = 10  # in no Python's socket module
# More than the kernels of both ends hold when the peer has small buffers.
TOO_MUCH = bytes(16 * MEGABYTE)


def context(**properties: Any) -> MessageContext:
    made = MessageContext()
    for name, value in properties.items():
        made.add(name, value)
    return made


@pytest.fixture
def blocked() -> Iterator[tuple[Connection, Any, Log]]:
    """A Connection whose peer does not read, so that what is sent now waits."""
    with with_plain_peer(small=True) as (connection, peer):
        connection.send(TOO_MUCH, sent_handler=lambda *args: None)
        yield connection, peer, Log(connection)


# -- One event per Send --


@pytest.mark.rfc("SN-01", "SN-02", "SN-03", "SN-15", "EV-09", "OR-05", "B-02", "T-03")
def test_a_hundred_sends_and_their_events() -> None:
    with with_plain_peer(small=True) as (connection, peer):
        log = Log(connection)
        contexts = [connection.send(bytes(50_000), wait=False) for _ in range(100)]
        assert len(set(map(id, contexts))) == 100
        assert read_exactly(peer, 5_000_000) == bytes(5_000_000)
        until(lambda: len(log) == 100)
        assert log.of("sent") == [(one,) for one in contexts]


@pytest.mark.rfc("SN-04", "SN-02", "DS-14", "MS-28")
def test_sent_comes_when_the_system_has_taken_it(blocked: tuple[Connection, Any, Log]) -> None:
    connection, peer, log = blocked
    connection.send(b"waits", wait=False)
    with pytest.raises(Timeout):
        connection.send(b"also", timeout=0.05)
    assert log == []
    size = len(TOO_MUCH) + 5
    assert read_exactly(peer, size)[-5:] == b"waits"
    until(lambda: log)
    assert log.names == ["sent"]


@pytest.mark.rfc("B-04", "SN-02")
def test_a_message_whose_sender_gives_up_is_withdrawn_or_sent_but_never_doubled(
    blocked: tuple[Connection, Any, Log],
) -> None:
    connection, peer, _ = blocked
    killed = in_greenlet(connection.send, b"killed", context(msgPriority=1))
    with pytest.raises(Timeout):
        connection.send(b"timed out", context(msgPriority=2), timeout=0.02)
    killed.kill()
    done = in_greenlet(connection.send, b"stays", context(final=True))
    rest = read_all(peer)[len(TOO_MUCH) :]
    assert rest == b"stays"
    assert isinstance(done.get(), MessageContext)


@pytest.mark.rfc("SN-06", "SN-02", "OR-05", "ER-11", "MS-27", "EV-11", "TM-06")
def test_pending_sends_fail_before_the_end_is_told(
    blocked: tuple[Connection, Any, Log],
) -> None:
    connection, peer, log = blocked
    contexts = [connection.send(b"never", wait=False) for _ in range(3)]
    waiting = in_greenlet(connection.send, b"never")
    reset(peer)
    assert getattr(waiting.get(), "reason", None) is Reason.CONNECTION_ABORTED
    until(lambda: log.ended)
    assert log.names == ["send_error"] * 3 + ["connection_error"]
    assert [one for one, _ in log.of("send_error")] == contexts


@pytest.mark.rfc("SN-07", "SN-06", "P-36", "ER-07", "P-50")
@pytest.mark.parametrize("wait", [True, False])
def test_what_is_too_large_for_a_datagram(wait: bool) -> None:
    with datagram_peer() as (connection, peer):
        log = Log(connection)
        connection.send(bytes(65_507))
        assert len(peer.recv(70_000)) == 65_507
        for size, properties in ((65_508, {}), (65_508, {"noSegmentation": True})):
            if wait:
                with pytest.raises(SendError) as caught:
                    connection.send(bytes(size), context(**properties))
                error = caught.value
            else:
                log.clear()
                connection.send(bytes(size), context(**properties), wait=False)
                until(lambda: log)
                ((_, error),) = log.of("send_error")
            assert error.reason is Reason.MESSAGE_TOO_LARGE
        connection.send(b"alive")
        assert peer.recv(100) == b"alive"


@pytest.mark.rfc("SN-07", "SN-06", "ER-07")
def test_what_is_too_large_for_a_framer() -> None:
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        with pytest.raises(SendError) as caught:
            connection.send(bytes(256))
        assert caught.value.reason is Reason.MESSAGE_TOO_LARGE
        connection.send(b"fits")
        assert read_exactly(peer, 5) == b"\x04fits"


@pytest.mark.rfc("SN-08", "DS-01", "DS-02", "DS-03", "UD-12", "TC-12")
def test_what_a_message_is_depends_on_the_stack() -> None:
    with datagram_peer() as (connection, peer):
        for data in (b"one", b"", b"three"):
            connection.send(data)
        assert [peer.recv(100) for _ in range(3)] == [b"one", b"", b"three"]
    with with_plain_peer() as (connection, peer):
        connection.send(b"one")
        connection.send(b"")
        connection.send(b"two")
        assert read_exactly(peer, 6) == b"onetwo"
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        connection.send(b"one")
        connection.send(b"")
        assert read_exactly(peer, 5) == b"\x03one\x00"


# -- Parts --


@pytest.mark.rfc("SN-09", "MS-25")
def test_parts_are_one_message() -> None:
    framer = LengthPrefixFramer()
    with listening(of=Preconnection(local()).add_framer(framer)) as listener:
        client = towards(listener).add_framer(framer).initiate(timeout=10)
        server = listener.accept(timeout=10)
        made = MessageContext()
        client.send(b"hel", made, False)
        client.send(b"lo", made)
        client.send(b"without ", end_of_message=False)
        client.send(b"a context")
        client.send(b"next")
        received = [server.receive(timeout=10).data for _ in range(3)]
        assert received == [b"hello", b"without a context", b"next"]
        client.abort()
        server.abort()


@pytest.mark.rfc("SN-09", "SN-02", "OR-06")
def test_between_the_parts_of_a_message_comes_no_other() -> None:
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        log = Log(connection)
        made = MessageContext()
        connection.send(b"a1", made, False, wait=False)
        connection.send(b"urgent", context(msgPriority=0), wait=False)
        connection.send(b"a2", made, wait=False)
        assert read_exactly(peer, 12) == b"\x04a1a2\x06urgent"
        until(lambda: len(log) == 3)
        assert log.names == ["sent"] * 3


@pytest.mark.rfc("SN-10", "SN-05", "EV-10", "MC-11", "N-13", "P-41", "DS-04", "MS-22")
def test_each_part_of_an_expired_message_expires(blocked: tuple[Connection, Any, Log]) -> None:
    connection, peer, log = blocked
    brief = context(msgLifetime=0.05)
    connection.send(b"one", brief, False, wait=False)
    connection.send(b"two", brief, False, wait=False)
    until(lambda: len(log) == 2)
    connection.send(b"three", brief, wait=False)
    until(lambda: len(log) == 3)
    assert list(log) == [("expired", brief)] * 3
    connection.send(b"after", context(final=True), wait=False)
    assert read_all(peer)[len(TOO_MUCH) :] == b"after"


@pytest.mark.rfc("SN-05", "P-41", "EV-10", "MS-27", "ER-12")
def test_a_lifetime_that_ends_while_waiting(blocked: tuple[Connection, Any, Log]) -> None:
    connection, _, log = blocked
    with pytest.raises(Expired), Stopwatch() as took:
        connection.send(b"x", context(msgLifetime=0.1))
    assert 0.09 < took.seconds < 5
    errors: list[Any] = []
    connection.send(
        b"x", context(msgLifetime=0.01), sent_handler=lambda _, error: errors.append(error)
    )
    until(lambda: errors)
    assert isinstance(errors[0], Expired)
    assert log == []
    assert connection.state is ConnectionState.ESTABLISHED


@pytest.mark.rfc("P-41", "SN-04")
def test_a_lifetime_is_not_over_before_its_time() -> None:
    with with_plain_peer() as (connection, peer):
        for lifetime in (5, INFINITE):
            connection.send(b"x", context(msgLifetime=lifetime))
        assert read_exactly(peer, 2) == b"xx"


@pytest.mark.rfc("P-41", "SN-05", "N-05")
def test_a_lifetime_counts_before_the_connection_is_ready() -> None:
    with blackhole() as port:
        preconnection = Preconnection(remote_endpoint=remote(port))
        log = Log(preconnection)
        connection = preconnection.initiate(wait=False)
        connection.send(b"x", context(msgLifetime=0.02), wait=False)
        until(lambda: log)
        assert log.names == ["expired"]
        connection.abort()


@pytest.mark.rfc("SN-09", "SN-06", "SN-02")
@pytest.mark.parametrize("framer", [LengthPrefixFramer(1), TlvFramer(1, 1), NetstringFramer(255)])
def test_a_message_of_which_a_part_fails_does_not_go_without_it(framer: Framer) -> None:
    with with_plain_peer(framer) as (connection, peer):
        log = Log(connection)
        made = MessageContext()
        for part, end in ((bytes(200), False), (bytes(100), False), (b"c", False), (b"d", True)):
            connection.send(part, made, end, wait=False)
        connection.send(b"next", wait=False)
        until(lambda: len(log) == 5)
        assert log.names == ["sent", *["send_error"] * 3, "sent"]
        reasons = [error.reason for _, error in log.of("send_error")]
        assert reasons == [Reason.MESSAGE_TOO_LARGE, *[Reason.INVALID_MESSAGE_PROPERTIES] * 2]
        connection.send(b"later", made)  # the context may serve another Message
        connection.close(wait=False)
        wire = read_all(peer)
        assert b"next" in wire
        assert b"later" in wire
        assert not set(wire) & set(b"cd")


@pytest.mark.rfc("SN-09", "SN-06", "SN-02", "DS-04")
@pytest.mark.parametrize("ready", [False, True])
def test_a_part_with_wrong_properties_takes_its_message_with_it(ready: bool) -> None:
    with plain_listener() as listener:
        preconnection = Preconnection(None, remote(listener.getsockname()[1]))
        connection = preconnection.add_framer(LengthPrefixFramer(1)).initiate(wait=ready)
        log = Log(connection)
        made = MessageContext()
        connection.send(b"a1", made, False, wait=False)
        made.add("msgReliable", False)
        connection.send(b"a2", made, False, wait=False)
        made.add("msgReliable", True)
        connection.send(b"a3", made, wait=False)
        connection.send(b"next", wait=False)
        peer, _ = listener.accept()
        until(lambda: log.names.count("sent") + log.names.count("send_error") == 4)
        assert log.names.count("send_error") == 2
        connection.close(wait=False)
        assert read_all(peer) == b"\x04next"
        peer.close()


@pytest.mark.rfc("SN-09", "SN-06")
@pytest.mark.parametrize("end", [False, True])
def test_a_refused_part_holds_up_nothing(end: bool) -> None:
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        made = context(msgReliable=False)
        with pytest.raises(SendError):
            connection.send(b"a", made, False)
        made.add("msgReliable", True)
        connection.send(b"a", made, False)  # nothing had begun, so it can begin now
        made.add("msgReliable", False)
        with pytest.raises(SendError):
            connection.send(b"b", made, end)
        made.add("msgReliable", True)
        if not end:
            with pytest.raises(SendError):
                connection.send(b"c", made)
        connection.send(b"next", timeout=10)
        connection.send(b"de", made, timeout=10)
        assert read_exactly(peer, 8) == b"\x04next\x02de"


@pytest.mark.rfc("SN-09", "SN-06")
def test_a_last_part_that_is_refused_leaves_nobody_waiting() -> None:
    """Without a context nobody could name that Message again, to end it."""
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        connection.send(b"begun", end_of_message=False)
        connection.set_property("msgReliable", False)
        with pytest.raises(SendError):
            connection.send(b"end")
        connection.set_property("msgReliable", True)
        keep = [MessageContext() for _ in range(3)]  # so that no new one has the old one's id
        connection.send(b"next", timeout=10)
        assert read_exactly(peer, 5) == b"\x04next"
        assert keep


@pytest.mark.rfc("P-45", "SN-15", "CS-06")
def test_a_default_counts_in_whatever_way_it_is_set() -> None:
    with joined() as (client, server):
        client.send(b"one")
        client.get_properties().set("final", True)
        client.send(b"two")
        with pytest.raises(SendError):
            client.send(b"three")
        assert server.receive(timeout=10).data == b"onetwo"


# -- Priorities --


@pytest.mark.rfc("P-42", "PR-03", "OR-01", "DS-05")
def test_priorities_and_the_order_of_sent(blocked: tuple[Connection, Any, Log]) -> None:
    connection, peer, log = blocked
    sent = {
        priority: connection.send(b"%d" % priority, context(msgPriority=priority), wait=False)
        for priority in (2, 0, 1)
    }
    assert read_exactly(peer, len(TOO_MUCH) + 3)[-3:] == b"012"
    until(lambda: len(log) == 3)
    assert log.of("sent") == [(sent[number],) for number in range(3)]


@pytest.mark.rfc("PR-04", "OR-08", "P-45", "SN-13", "MS-19")
def test_final_comes_last_whatever_its_priority(blocked: tuple[Connection, Any, Log]) -> None:
    connection, peer, log = blocked
    connection.send(b"usual ", wait=False)
    connection.send(b"final", context(final=True, msgPriority=0), wait=False)
    with pytest.raises(SendError) as caught:
        connection.send(b"too late")
    assert caught.value.reason is Reason.INVALID_MESSAGE_PROPERTIES
    assert connection.get_properties().get("canSend") is False
    assert read_all(peer)[len(TOO_MUCH) :] == b"usual final"
    until(lambda: len(log) == 2)
    assert log.names == ["sent", "sent"]
    # Receiving goes on.
    peer.sendall(b"answer")
    assert connection.receive(1, timeout=10).data == b"answer"


@pytest.mark.rfc("P-45", "TC-12", "A-17", "DS-08", "P-33")
def test_final_ends_our_direction_only() -> None:
    with with_plain_peer() as (connection, peer):
        log = Log(connection)
        made = context(final=True)
        connection.send(b"fi", made, False)
        assert connection.get_properties().get("canSend") is True
        connection.send(b"nal", made)
        assert read_all(peer) == b"final"
        connection.send(b"late", wait=False)
        until(lambda: log)
        assert log.names == ["send_error"]
        assert connection.state is ConnectionState.ESTABLISHED
        peer.sendall(b"answer")
        assert connection.receive(1, timeout=10).data == b"answer"


@pytest.mark.rfc("P-45", "UD-12")
def test_final_changes_nothing_on_the_wire_of_udp() -> None:
    with datagram_peer() as (connection, peer):
        connection.send(b"last", context(final=True))
        assert peer.recv(100) == b"last"
        with pytest.raises(SendError):
            connection.send(b"more")
        _, port = connection.transport.get_extra_info("sockname")
        peer.sendto(b"answer", ("127.0.0.1", port))
        assert connection.receive(timeout=10).data == b"answer"


@pytest.mark.rfc("P-45", "SN-05", "B-04")
@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_a_final_message_that_never_went_was_not_the_last(
    blocked: tuple[Connection, Any, Log], how: str
) -> None:
    connection, peer, _ = blocked
    made = context(final=True)
    if how == "expired":
        with pytest.raises(Expired):
            connection.send(b"x", made.add("msgLifetime", 0.01))
    else:
        with pytest.raises(Timeout):
            connection.send(b"x", made, timeout=0.01)
    assert connection.get_properties().get("canSend") is True
    connection.send(b"the last", context(final=True), wait=False)
    assert read_all(peer)[len(TOO_MUCH) :] == b"the last"


# -- Batches --


@pytest.mark.rfc("SN-11", "DS-15", "AC-07", "SN-02", "OR-05")
def test_a_batch_leaves_in_one_segment() -> None:
    with with_plain_peer() as (connection, peer):
        log = Log(connection)
        connection.start_batch()
        contexts = [connection.send(b"%d" % number, wait=False) for number in range(10)]
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        connection.end_batch()
        peer.settimeout(10)
        assert peer.recv(100) == b"0123456789"
        until(lambda: len(log) == 10)
        assert log.of("sent") == [(one,) for one in contexts]


@pytest.mark.rfc("SN-11", "P-42")
def test_batches_nest_and_sort() -> None:
    with with_plain_peer() as (connection, peer):
        with connection.batch():
            connection.send(b"b", wait=False)
            with connection.batch():
                connection.send(b"a", context(msgPriority=1), wait=False)
            connection.send(b"c", wait=False)
        assert peer.recv(100) == b"abc"
        connection.end_batch()  # one too many is none
        connection.send(b"d")
        assert peer.recv(100) == b"d"


@pytest.mark.rfc("SN-11")
def test_a_send_that_waits_in_a_batch_does_not_wait_for_its_end() -> None:
    with with_plain_peer() as (connection, peer):
        with connection.batch():
            connection.send(b"a", wait=False)
            connection.send(b"b", timeout=10)
            assert peer.recv(100) == b"ab"
            connection.send(b"c", wait=False)
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            peer.settimeout(10)
        assert peer.recv(100) == b"c"


@pytest.mark.rfc("SN-11")
def test_a_send_that_waits_in_a_batch_for_a_slow_peer(
    blocked: tuple[Connection, Any, Log],
) -> None:
    connection, peer, _ = blocked
    reading = in_greenlet(read_exactly, peer, len(TOO_MUCH) + 2)
    with connection.batch():
        connection.send(b"a", wait=False)
        connection.send(b"b", timeout=20)
    assert reading.get(timeout=10)[-2:] == b"ab"


@pytest.mark.rfc("SN-11")
def test_a_send_that_waits_in_the_batch_of_another_waits_for_its_end() -> None:
    with with_plain_peer() as (connection, peer):
        with connection.batch():
            connection.send(b"a", wait=False)
            sending = in_greenlet(connection.send, b"b", timeout=20)
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)
        peer.settimeout(10)
        assert peer.recv(100) == b"ab"
        assert sending.get(timeout=10) is None


@pytest.mark.rfc("SN-11", "UD-12")
def test_a_batch_of_datagrams_stays_datagrams() -> None:
    with datagram_peer() as (connection, peer):
        with connection.batch():
            for data in (b"one", b"two"):
                connection.send(data, wait=False)
        assert [peer.recv(100) for _ in range(2)] == [b"one", b"two"]


@pytest.mark.rfc("SN-11", "TM-01")
def test_closing_in_a_batch_sends_it() -> None:
    with with_plain_peer() as (connection, peer):
        connection.start_batch()
        connection.send(b"held back", wait=False)
        connection.end_batch()
        closing = in_greenlet(connection.close)
        assert read_all(peer) == b"held back"
        peer.close()
        assert closing.get() is None


# -- Datagrams --


@pytest.mark.rfc("SN-09", "SN-08", "DS-01", "UD-12")
def test_the_parts_of_a_message_are_one_datagram() -> None:
    with datagram_peer() as (connection, peer):
        log = Log(connection)
        made = MessageContext()
        for part, end in ((b"a", False), (b"", False), (b"bc", True)):
            connection.send(part, made, end, wait=False)
        connection.send(b"without ", end_of_message=False)
        connection.send(b"a context")
        assert [peer.recv(100) for _ in range(2)] == [b"abc", b"without a context"]
        until(lambda: len(log) == 3)
        for size in (50_000, 20_000, 1):
            connection.send(bytes(size), made, size == 1, wait=False)
        connection.send(b"next", wait=False)
        assert peer.recv(100) == b"next"
        until(lambda: len(log) == 7)
        assert log.names[3:] == ["sent", "send_error", "send_error", "sent"]
        assert log.of("send_error")[0][1].reason is Reason.MESSAGE_TOO_LARGE
        # One that is not ended is not sent.
        connection.send(b"half", end_of_message=False)
        connection.close()
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(100)


@pytest.mark.rfc("P-49", "MS-14", "DS-12", "SO-11", "UD-12")
def test_do_not_fragment_is_on_one_datagram_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with datagram_peer() as (connection, peer):
        seen: list[int] = []
        kind = type(connection.transport)
        original = kind.write

        def write(transport: Any, data: bytes) -> None:
            seen.append(option(connection, socket.IPPROTO_IP, IP_MTU_DISCOVER))
            original(transport, data)

        monkeypatch.setattr(kind, "write", write)
        connection.send(b"whole", context(noFragmentation=True))
        connection.send(b"usual")
        assert seen == [2, 1]  # IP_PMTUDISC_DO, IP_PMTUDISC_WANT
        assert [peer.recv(100) for _ in range(2)] == [b"whole", b"usual"]


@pytest.mark.rfc("SN-12", "SN-04")
def test_nothing_is_kept_of_what_was_sent() -> None:
    with joined() as (client, server):
        for _ in range(3):
            client.send(b"x", wait=False)
        assert server.receive(1, timeout=10)
        until(lambda: client._sending is not None and client._sending.idle)
        gc.collect()
        assert len(client._sending) == 0  # type: ignore[arg-type]
