"""Both sides of a rendezvous over TCP in virtual time, on networks of all kinds: whatever happens,
two Elections never take different connections."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from greentaps.taps.rendezvous.ice import (
    ANSWER_TIME,
    PATIENCE,
    Credentials,
    Election,
    Facts,
    Punch,
    candidate_priority,
)
from hypothesis import given, settings
from hypothesis import strategies as st

SECRETS = (Credentials("aaaa", "a" * 22), Credentials("bbbb", "b" * 22))
Address = tuple[str, int]


def tokens(seed: int) -> Callable[[], bytes]:
    count = itertools.count(1)
    return lambda: bytes([seed]) + next(count).to_bytes(11, "big")


@dataclass
class Way:
    """What is between a base of each side: *kind* is ``open``, ``closed``, ``hole`` (whatever is
    said on a connection gets lost), ``stranger`` (somebody else has the address here, and is
    silent) or ``dies`` (*life* seconds after a connection was begun)."""

    kind: str
    delay: float
    life: float


@dataclass
class Cable:
    """A connection; *ends* are the sides that still have it."""

    way: Way
    at: tuple[int, int]
    ends: set[int]
    busy_until: dict[int, float] = field(default_factory=dict)


class Side:
    def __init__(self, number: int, addresses: list[Address], begins: float) -> None:
        self.election = Election(
            SECRETS[1 - number],
            controlling=number == 0,
            tie_breaker=number,
            token=tokens(number),
        )
        self.punch = Punch(number == 0, begins)
        self.number = number
        self.addresses = addresses
        self.begins = begins
        self.links: dict[int, tuple[int, Address]] = {}
        self.ended_at: float | None = None
        self.lost = False  # what it has chosen

    def wake_at(self, now: float) -> float:
        if self.ended_at is not None:
            return float("inf")
        if now >= self.punch.give_up_at:
            return min(self.election.wake_at, self.punch.give_up_at + ANSWER_TIME)
        return min(self.punch.wake_at, self.election.wake_at)


class Network:
    """Does for two sides what `_StreamDriver` does, with cables instead of sockets."""

    def __init__(self, ways: dict[tuple[int, int], Way], starts: list[float], seed: int) -> None:
        self.now = 0.0
        self.ways = ways
        self._chance = random.Random(seed)
        self._due: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self._count = itertools.count()
        self.cables: dict[int, Cable] = {}
        sizes = [1 + max(pair[side] for pair in ways) for side in (0, 1)]
        addresses = [
            [(f"192.0.{side}.{n}", 1000 + n) for n in range(sizes[side])] for side in (0, 1)
        ]
        self.sides = [Side(side, addresses[side], starts[side]) for side in (0, 1)]
        for side in self.sides:
            for n, address in enumerate(side.addresses):
                priority = candidate_priority("host", 8191 - n)
                side.punch.add_local(n, address, priority, side.begins)
            for n, address in enumerate(addresses[1 - side.number]):
                priority = candidate_priority("host", 8191 - n)
                side.punch.add_remote(address, Facts("host", priority, "f"), side.begins)

    def later(self, seconds: float, what: Any, *args: Any) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._count), what, args))

    def connect(self, me: Side, base: int, remote: Address) -> None:
        peer = self.sides[1 - me.number]
        there = peer.addresses.index(remote)
        at = (base, there) if me.number == 0 else (there, base)
        way = self.ways[at]
        taken = any(one.at == at and one.ends for one in self.cables.values())
        absent = peer.ended_at is not None or self.now + way.delay < peer.begins
        if way.kind == "closed" or (way.kind != "stranger" and (absent or taken)):
            self.later(2 * way.delay, me.punch.ended, base, remote, OSError(), self.now)
            return
        number = next(self._count)
        ends = {me.number} if way.kind == "stranger" else {0, 1}
        self.cables[number] = Cable(way, at, ends)
        self.later(2 * way.delay, self.opened, me, number, base, remote, False)
        if way.kind != "stranger":
            accepted = self._chance.random() < 0.7  # else both have connected
            slow = self._chance.choice([1, 3]) * way.delay
            source = me.addresses[base]
            self.later(slow, self.opened, peer, number, there, source, accepted)
        if way.kind == "dies":
            for side in self.sides:
                self.later(way.life, self.cut, side, number)

    def opened(self, me: Side, number: int, base: int, remote: Address, accepted: bool) -> None:
        if me.ended_at is not None:
            self.reset(me, number)
        elif me.number not in self.cables[number].ends:
            me.punch.ended(base, remote, OSError(), self.now)
        else:
            me.links[number] = (base, remote)
            me.election.opened(
                number,
                me.punch.priority(base, remote),
                SECRETS[me.number],
                remote,
                self.now,
                accepted=accepted,
                only=len(me.punch.pairs) == 1,
            )
            self.settle(me)

    def gone(self, me: Side, number: int) -> None:
        me.punch.ended(*me.links.pop(number), None, self.now)

    def reset(self, me: Side, number: int) -> None:
        cable = self.cables[number]
        cable.ends.discard(me.number)
        if cable.way.kind not in ("hole", "stranger"):
            self.later(cable.way.delay, self.cut, self.sides[1 - me.number], number)

    def cut(self, me: Side, number: int) -> None:
        self.cables[number].ends.discard(me.number)
        me.lost |= me.election.chosen == number
        if number in me.links and me.ended_at is None:
            self.gone(me, number)
            me.election.closed(number, self.now)
            self.settle(me)

    def heard(self, me: Side, number: int, data: bytes) -> None:
        if me.number not in self.cables[number].ends or me.ended_at is not None:
            return
        if number not in me.links:  # it is in the kernel's buffer
            self.later(0.01, self.heard, me, number, data)
            return
        me.election.received(number, data, self.now)
        self.settle(me)

    def settle(self, me: Side) -> None:
        outgoing, me.election.outgoing = me.election.outgoing, []
        for number, data in outgoing:
            cable = self.cables[number]
            if number in me.links and cable.way.kind not in ("hole", "stranger"):
                arrives = max(self.now + cable.way.delay, cable.busy_until.get(me.number, 0.0))
                cable.busy_until[me.number] = arrives
                peer = self.sides[1 - me.number]
                self.later(arrives - self.now, self.heard, peer, number, data[2:])
        dropped, me.election.dropped = me.election.dropped, []
        for number in dropped:
            if number in me.links:
                self.gone(me, number)
                self.reset(me, number)
        if me.election.chosen is not None:
            self.end(me)

    def end(self, me: Side) -> None:
        if me.ended_at is None:
            me.ended_at = self.now
            for number in me.links:
                if number != me.election.chosen:
                    self.reset(me, number)

    def run(self) -> None:
        while any(side.ended_at is None for side in self.sides) or self._due:
            due = [max(side.wake_at(self.now), side.begins) for side in self.sides]
            if self._due:
                due.append(self._due[0][0])
            self.now = max(self.now, min(due))
            while self._due and self._due[0][0] <= self.now:
                _, _, what, args = heapq.heappop(self._due)
                what(*args)
            for side in self.sides:
                if side.ended_at is not None or self.now < side.begins:
                    continue
                for base, remote in side.punch.wake(self.now):
                    self.connect(side, base, remote)
                side.election.wake(self.now)
                self.settle(side)
                if self.now >= side.punch.give_up_at + (ANSWER_TIME if side.links else 0.0):
                    self.end(side)


def check(network: Network) -> None:
    """What holds on each network."""
    network.run()
    one, other = network.sides
    kinds = {way.kind for way in network.ways.values()}
    for side in network.sides:
        assert side.ended_at is not None
        assert side.ended_at <= side.begins + PATIENCE + ANSWER_TIME
    if one.election.chosen is not None and other.election.chosen is not None:
        assert one.election.chosen == other.election.chosen
    elif one.election.chosen is not None or other.election.chosen is not None:
        assert one.lost or other.lost  # and whoever has it hears of it
    if "dies" not in kinds:
        assert (one.election.chosen is not None) is ("open" in kinds)
        assert (other.election.chosen is not None) is ("open" in kinds)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 2), st.integers(0, 2)),
        st.builds(
            Way,
            st.sampled_from(["open", "closed", "hole", "stranger", "dies"]),
            st.sampled_from([0.01, 0.1, 0.4, 1.0]),
            st.floats(0.0, 3.0),
        ),
        min_size=1,
        max_size=6,  # a silent one takes 5 seconds: the time is enough for all
    ),
    st.sampled_from([0.0, 0.05, 2.0]),
    st.integers(0, 2**16),
)
def test_both_sides_take_the_same_connection(
    some: dict[tuple[int, int], Way], starts: float, seed: int
) -> None:
    closed = Way("closed", 0.1, 0.0)
    ways = {pair: some.get(pair, closed) for pair in itertools.product(range(3), range(3))}
    check(Network(ways, [0.0, starts], seed))


@pytest.mark.parametrize("kind", ["hole", "stranger"])
def test_those_that_are_silent_do_not_keep_the_others_from_their_turn(kind: str) -> None:
    ways = {(0, there): Way(kind, 0.3, 0.0) for there in range(4)}
    ways[0, 4] = Way("open", 0.3, 0.0)
    network = Network(ways, [0.0, 0.0], 1)
    check(network)
    assert network.sides[0].ended_at < 4 * ANSWER_TIME + 2
