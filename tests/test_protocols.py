"""The base classes: what they do by default, and the queue of `MessageProtocol`."""

from __future__ import annotations

import gevent
import gevent.event
import pytest
from gevent.lock import Semaphore
from greentaps.hub import in_callback
from greentaps.protocols import BaseProtocol, DatagramProtocol, MessageProtocol, Protocol
from greentaps.transports import memory_pair
from peers.recorder import Recorder


def test_the_defaults():
    for kind in (BaseProtocol, Protocol, DatagramProtocol):
        assert kind().timeout is None
        assert kind(timeout=5).timeout == 5
        protocol = kind()
        protocol.connection_made(None)
        protocol.pause_writing()
        protocol.resume_writing()
        protocol.connection_lost(None)
    protocol = Protocol()
    assert protocol.data_received(b"x") is None
    assert not protocol.eof_received()
    protocol = DatagramProtocol()
    protocol.datagram_received(b"x", ("192.0.2.1", 5))
    protocol.error_received(OSError())


def test_init_need_not_run():
    class Careless(Protocol):
        def __init__(self):
            pass

    ours, theirs = memory_pair()
    assert Careless().timeout is None
    ours.start(Careless())
    theirs.start(Recorder())
    ours.abort()
    theirs.abort()


class Bytes(MessageProtocol):
    """Each byte is a message."""

    def data_received(self, data):
        for byte in data:
            self.message_received(bytes([byte]))


@pytest.fixture
def reports(monkeypatch):
    errors = []
    monkeypatch.setattr(
        gevent.get_hub(), "handle_error", lambda context, kind, value, tb: errors.append(value)
    )
    return errors


@pytest.fixture
def pair():
    """Connects a protocol: returns (its transport, the peer's transport, the peer's protocol)."""
    made = []

    def connect(protocol):
        ours, theirs = memory_pair()
        made.extend([ours, theirs])
        peer = Recorder()
        ours.start(protocol)
        theirs.start(peer)
        return ours, theirs, peer

    yield connect
    for transport in made:
        transport.abort()


def test_messages_are_handled_one_after_the_other_in_one_greenlet(pair):
    handled = []
    greenlets = set()

    def handle(message, transport, protocol):
        assert not in_callback()
        assert (transport, protocol) == (ours, made)
        gevent.sleep(0)
        handled.append(message)
        greenlets.add(gevent.getcurrent())
        transport.write(message.upper())

    made = Bytes(handle, timeout=3)
    assert made.timeout == 3
    ours, theirs, peer = pair(made)
    theirs.write(b"abc")
    peer.until_data(b"ABC")
    theirs.write(b"d")  # the handler was idle
    peer.until_data(b"ABCD")
    assert handled == [b"a", b"b", b"c", b"d"]
    assert len(greenlets) == 1


class Fake:
    """Writes down what the protocol does to its transport."""

    def __init__(self):
        self.calls = []

    def pause_reading(self):
        self.calls.append("pause")

    def resume_reading(self):
        self.calls.append("resume")

    def abort(self, error=None):
        self.calls.append(error)


def settle():
    for _ in range(5):
        gevent.sleep(0)


def test_reading_pauses_while_ten_messages_wait_and_no_message_is_lost():
    go = Semaphore(0)
    handled = []

    def handle(message, transport, protocol):
        go.acquire()
        handled.append(message)

    protocol, transport = Bytes(handle), Fake()
    protocol.connection_made(transport)
    settle()
    protocol.data_received(b"0")  # at work
    settle()
    protocol.data_received(b"123456789")
    assert transport.calls == []
    protocol.data_received(b"abc")  # of one chunk all is kept
    assert transport.calls == ["pause"]
    for _ in range(2):
        go.release()
        settle()
    assert transport.calls == ["pause"]  # ten are left
    go.release()
    settle()
    assert transport.calls == ["pause", "resume"]
    protocol.data_received(b"d")
    assert transport.calls == ["pause", "resume", "pause"]
    for _ in range(20):
        go.release()
    settle()
    assert b"".join(handled) == b"0123456789abcd"
    assert transport.calls == ["pause", "resume", "pause", "resume"]
    protocol.connection_lost(None)
    settle()


def test_the_limit_of_the_queue_can_be_set():
    class Small(Bytes):
        max_queued = 1

    protocol, transport = Small(lambda *_: None), Fake()
    protocol.connection_made(transport)
    protocol.data_received(b"a")
    assert transport.calls == ["pause"]
    settle()
    assert transport.calls == ["pause", "resume"]
    protocol.connection_lost(None)
    settle()


def test_without_a_handler_nothing_is_queued():
    protocol = Bytes()
    protocol.connection_made(Fake())
    protocol.data_received(b"x" * 100)
    assert not protocol._messages
    protocol.connection_lost(None)


@pytest.mark.parametrize(
    "raised",
    [ZeroDivisionError("handler"), gevent.Timeout(5), gevent.GreenletExit()],
    ids=lambda error: type(error).__name__,
)
def test_a_handler_that_raises_ends_the_connection(pair, reports, raised):
    """Whatever it raises: without a handler the connection would be deaf."""

    def handle(message, transport, protocol):
        raise raised

    class Watches(Bytes):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            lost.set(exc)

    lost = gevent.event.AsyncResult()
    _, theirs, peer = pair(Watches(handle))
    theirs.write(b"x")
    assert lost.get(timeout=10) is raised
    peer.until_called("connection_lost")
    assert reports == [raised]


def test_the_loss_of_the_connection_ends_the_handler_at_work(pair, reports):
    begun, ended = gevent.event.Event(), gevent.event.Event()
    handled = []

    def handle(message, transport, protocol):
        handled.append(message)
        begun.set()
        try:
            gevent.event.Event().wait()
        finally:
            ended.set()

    protocol = Bytes(handle)
    ours, theirs, _ = pair(protocol)
    theirs.write(b"abc")
    assert begun.wait(10)
    ours.abort()
    assert ended.wait(10)
    settle()
    assert handled == [b"a"]  # what waited is dropped
    assert not protocol._messages
    assert reports == []
    protocol.message_received(b"late")
    assert not protocol._messages


def test_the_loss_of_the_connection_ends_an_idle_dispatcher_and_one_not_begun(pair):
    for turns in (0, 3):
        protocol = Bytes(lambda *_: None)
        ours, _, _ = pair(protocol)
        for _ in range(turns):
            gevent.sleep(0)
        dispatcher = protocol._dispatcher
        ours.abort()
        ours.wait_closed(10)
        settle()
        assert dispatcher.dead


def test_a_handler_may_close_its_connection(pair, reports):
    def handle(message, transport, protocol):
        transport.write(message)
        transport.close()

    _, theirs, peer = pair(Bytes(handle))
    theirs.write(b"x")
    peer.until_called("connection_lost")
    assert peer.data == b"x"
    assert peer.lost is None
    assert reports == []
