"""Turns in a Connection Group: the rules without a network, and Connections that keep to them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket as gsocket
from greentaps import (
    Connection,
    ConnectionState,
    LengthPrefixFramer,
    MessageContext,
    Preconnection,
    Timeout,
)
from greentaps.hub import now
from greentaps.taps.properties import Scheduler
from greentaps.taps.scheduling import PATIENCE, UNSENT_LIMIT, Turns
from taps.helpers import in_greenlet, plain_listener, read_exactly, remote, until

KIB = 1024


# -- The rules --


class Line:
    """Members with queues, of which one Message at a time is sent by whoever may."""

    def __init__(self, scheduler: Scheduler, **priorities: int) -> None:
        self.turns = Turns(scheduler)
        self.queues: dict[str, list[int]] = {name: [] for name in priorities}
        for name, priority in priorities.items():
            self.turns.set_priority(name, priority)
        self.time = 0.0

    def queue(self, name: str, *sizes: int) -> None:
        for size in sizes:
            self.turns.queued(name, self.time)
            self.queues[name].append(size)

    def may(self) -> str:
        return "".join(
            name
            for name, queue in self.queues.items()
            if queue and self.turns.may_send(name, self.time)
        )

    def send(self, name: str) -> None:
        self.turns.sent(name, self.queues[name].pop(0), self.time)
        if not self.queues[name]:
            self.turns.done(name)

    def run(self) -> str:
        """Who sends, if whoever may and is named first does, until all is sent."""
        order = ""
        while name := self.may()[:1]:
            self.send(name)
            order += name
            self.time += 0.001
        assert not any(self.queues.values())
        return order


@pytest.mark.rfc("CS-04", "G-12", "P-20", "P-23")
def test_by_priority_the_lower_number_goes_first() -> None:
    line = Line(Scheduler.PRIORITY_BASED, a=2, b=1, c=1)
    line.queue("a", 1, 1)
    assert line.may() == "a"
    line.queue("b", 1, 1)
    line.queue("c", 1)
    assert line.may() == "bc"  # equals do not wait for each other
    assert line.run() == "bbcaa"


@pytest.mark.rfc("CS-01")
def test_first_come_first_served() -> None:
    line = Line(Scheduler.FIRST_COME_FIRST_SERVED, a=100, b=0)
    for name in "abbaab":
        line.queue(name, 1000)
    assert line.run() == "abbaab"


@pytest.mark.rfc("CS-02")
def test_round_robin_is_by_messages() -> None:
    line = Line(Scheduler.ROUND_ROBIN, a=0, b=100)
    line.queue("a", *[1] * 3)
    line.queue("b", *[100 * KIB] * 3)
    assert line.run() == "ababab"


@pytest.mark.rfc("CS-03", "CS-05")
@pytest.mark.parametrize("kind", [Scheduler.ROUND_ROBIN_PER_PACKET, Scheduler.FAIR_CAPACITY])
def test_shares_of_bytes_are_equal(kind: Scheduler) -> None:
    line = Line(kind, a=0, b=100)
    line.queue("a", *[64 * KIB] * 8)
    line.queue("b", *[128 * KIB] * 4)
    order = line.run()
    for cut in range(len(order)):
        had = [order[:cut].count("a") * 64, order[:cut].count("b") * 128]
        assert abs(had[0] - had[1]) <= 192 or "a" not in order[cut:] or "b" not in order[cut:]


@pytest.mark.rfc("CS-06", "P-23")
def test_weights_are_shares_of_bytes() -> None:
    line = Line(Scheduler.WEIGHTED_FAIR_QUEUEING, a=0, b=2)  # three times as important
    line.queue("a", *[64 * KIB] * 60)
    line.queue("b", *[64 * KIB] * 60)
    order = line.run()
    begun = order[:60]
    assert 43 <= begun.count("a") <= 47


def test_who_was_idle_claims_nothing_for_it() -> None:
    line = Line(Scheduler.FAIR_CAPACITY, a=1, b=1)
    line.queue("a", *[64 * KIB] * 50)
    for _ in range(40):
        line.send("a")
    line.queue("b", *[64 * KIB] * 10)
    assert line.run()[:6].count("a") == 3


@pytest.mark.rfc("G-12")
def test_who_does_not_get_on_is_not_waited_for() -> None:
    line = Line(Scheduler.PRIORITY_BASED, a=0, b=1)
    line.queue("a", 1, 1)
    line.queue("b", 1)
    assert line.may() == "a"
    line.time = PATIENCE + 0.01
    assert line.may() == "ab"
    line.turns.moved("a", line.time)
    assert line.may() == "a"
    line.turns.remove("a")
    assert line.turns.may_send("b", line.time)


# -- Connections --


@contextlib.contextmanager
def members(
    *priorities: int, scheduler: str | None = None
) -> Iterator[tuple[list[Connection], list[gsocket.socket]]]:
    """Connections of one group, with these priorities, and the plain sockets at their ends."""
    with plain_listener(small=True) as listener:
        made = Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
        made.add_framer(LengthPrefixFramer())
        found = [made.initiate(timeout=10)]
        peers = [listener.accept()[0]]
        for _ in priorities[1:]:
            found.append(found[0].clone(timeout=10))
            peers.append(listener.accept()[0])
    if scheduler is not None:
        found[0].set_property("connScheduler", scheduler)
    for connection, priority, peer in zip(found, priorities, peers, strict=True):
        connection.set_property("connPriority", priority)
        peer.settimeout(20)
    try:
        yield found, peers
    finally:
        for end in found:
            end.abort()
        for peer in peers:
            peer.close()


def reading(peer: gsocket.socket) -> Any:
    def work() -> int:
        total = 0
        while piece := peer.recv(65536):
            total += len(piece)
        return total

    return gevent.spawn(work)


@pytest.mark.rfc("G-12", "PR-01", "PR-03", "P-20", "P-42")
def test_a_member_of_higher_priority_is_served_first_whatever_its_messages_have() -> None:
    """A Message of priority 1 on the Connection of priority 0 goes before one of priority 0 on
    the Connection of priority 1."""
    with members(1, 0, scheduler="priority-based") as ((low, high), peers):
        sent: list[str] = []
        for _ in range(30):
            for name, connection, priority in (("low", low, 0), ("high", high, 1)):
                connection.send(
                    bytes(256 * KIB),
                    MessageContext().add("msgPriority", priority),
                    sent_handler=lambda made, error, name=name: sent.append(name),
                )
        # Nobody reads: the first is stuck, and the other has gone on as far as it can.
        until(lambda: low._blocked and high._blocked)
        gevent.sleep(2 * PATIENCE)
        begun = len(sent)
        readers = [reading(peer) for peer in peers]
        until(lambda: len(sent) == 60)
        last_high = len(sent) - 1 - sent[::-1].index("high")
        between = sent[begun:last_high].count("low")
        assert between <= 3  # what it had handed down already
        for connection in (low, high):
            connection.close()
        assert [reader.get(timeout=20) for reader in readers] == [30 * (256 * KIB + 4)] * 2


@pytest.mark.rfc("G-12")
def test_a_peer_that_does_not_read_keeps_no_other_member_for_long() -> None:
    with members(1, 0, scheduler="priority-based") as ((low, high), peers):
        for _ in range(20):
            high.send(bytes(256 * KIB), wait=False)
        until(lambda: high._blocked)
        reader = reading(peers[0])
        begun = now()
        for _ in range(20):
            low.send(bytes(64 * KIB), timeout=20)
        assert now() - begun < 10
        low.close()
        assert reader.get(timeout=20) == 20 * (64 * KIB + 4)


@pytest.mark.rfc("G-12", "CS-06")
def test_turns_are_taken_only_where_they_make_a_difference() -> None:
    with members(100, 100) as ((one, other), peers):
        assert one._group is not None
        assert one._group.turns is None
        assert one._fast
        other.get_properties().set("connPriority", 1)  # in any way that there is
        until(lambda: one._group.turns is not None)  # type: ignore[union-attr]
        assert not one._fast
        with socket.socket(
            fileno=socket.dup(one.transport.get_extra_info("handle").fileno())
        ) as at:
            assert at.getsockopt(socket.IPPROTO_TCP, 25) == UNSENT_LIMIT
        # The blocking form keeps to them as well.
        one.send(b"in turn", timeout=10)
        assert read_exactly(peers[0], 11)[4:] == b"in turn"
        other.abort()
        until(lambda: one._group.turns is None)  # type: ignore[union-attr]
        assert one._fast
        one.send(b"alone")
        assert read_exactly(peers[0], 9)[4:] == b"alone"


def test_the_end_of_a_member_lets_the_others_go_on() -> None:
    with members(1, 0, scheduler="priority-based") as ((low, high), peers):
        for _ in range(20):
            high.send(bytes(256 * KIB), wait=False)
        until(lambda: high._blocked)
        low.send(b"waits", wait=False)
        high.abort()
        assert read_exactly(peers[0], 9)[4:] == b"waits"


def test_a_send_that_is_given_up_keeps_nobody() -> None:
    with members(1, 0, scheduler="priority-based") as ((low, high), peers):
        with contextlib.suppress(Timeout):
            while True:
                high.send(bytes(256 * KIB), timeout=0.05)
        closing = in_greenlet(high.close)
        low.send(b"goes", timeout=10)
        assert read_exactly(peers[0], 8)[4:] == b"goes"
        reader = reading(peers[1])
        assert closing.get() is None
        reader.get(timeout=20)


@pytest.mark.rfc("TM-01")
def test_a_close_does_not_wait_for_a_send_that_was_given_up() -> None:
    """It waits for what is queued; the last of that is withdrawn."""
    with members(100) as ((only,), (peer,)):
        while only._fast:
            only.send(bytes(256 * KIB), wait=False)
        until(lambda: only._blocked)
        waiting = in_greenlet(only.send, b"given up", MessageContext(), timeout=0.2)
        until(lambda: len(only._sending) > 1)  # type: ignore[arg-type]
        closing = in_greenlet(only.close)
        assert isinstance(waiting.get(), Timeout)
        reader = reading(peer)
        assert closing.get() is None
        assert only.state is ConnectionState.CLOSED
        assert reader.get(timeout=20) % (256 * KIB + 4) == 0


def test_many_that_wait_go_on_one_after_another() -> None:
    """However many they are: each that has run dry lets the next go on."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(plain_listener())
        first = Preconnection(remote_endpoint=remote(listener.getsockname()[1])).initiate()
        stack.callback(first.abort_group)
        peers = [stack.enter_context(listener.accept()[0])]
        others = []
        while len(others) < 300:
            others.append(first.clone(timeout=10))
            peers.append(stack.enter_context(listener.accept()[0]))
        first.set_property("connPriority", 0)
        first.set_property("connScheduler", "priority-based")
        large = bytes(16 * 1024 * KIB)
        first.send(large, wait=False)
        until(lambda: first._blocked)
        outcomes: list[Any] = []
        for other in others:
            other.send(b"waits", sent_handler=lambda _, error: outcomes.append(error))
        assert not outcomes
        read_exactly(peers[0], len(large))
        until(lambda: len(outcomes) == len(others))
        assert outcomes == [None] * len(others)
        assert [peer.recv(10) for peer in peers[1:]] == [b"waits"] * len(others)
