"""The rules of pairing in virtual time: no sockets, no sleeping, exact moments."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from greentaps.taps.rendezvous.ice import (
    ANSWER_TIME,
    FIRST_RETRY,
    LAST_RETRY,
    MAX_PAIRS,
    PATIENCE,
    SETTLE,
    TA,
    Agent,
    Credentials,
    Election,
    Facts,
    Punch,
    State,
    candidate_priority,
    controls,
    in_fair_order,
    pair_priority,
    read_candidate,
    write_candidate,
)
from greentaps.taps.rendezvous.stun import KEEPALIVE, codec, encode, parse
from hypothesis import example, given, settings
from hypothesis import strategies as st

A = Credentials("aaaa", "a" * 22)
B = Credentials("bbbb", "b" * 22)
STRANGER = Credentials("evil", "e" * 22)

Address = tuple[str, int]


def tokens(seed: int) -> Callable[[], bytes]:
    count = itertools.count(1)
    return lambda: bytes([seed]) + next(count).to_bytes(11, "big")


def facts(credentials: Credentials | None, kind: str = "host", preference: int = 65535) -> Facts:
    return Facts(kind, candidate_priority(kind, preference), kind[0], None, credentials)


def agent(controlling: bool, *, tie_breaker: int = 1, now: float = 0.0) -> Agent:
    return Agent(
        controlling=controlling,
        tie_breaker=tie_breaker,
        token=tokens(1 if controlling else 2),
        now=now,
    )


class World:
    """Agents and the network between them.  *way* says of a datagram from and to where it comes
    out: an address, as which it appears there, or None if it is lost; it takes *delay* seconds."""

    def __init__(self, delay: float = 0.01) -> None:
        self.now = 0.0
        self.delay = delay
        self.agents: dict[Address, tuple[Agent, int]] = {}
        self.way: Callable[[Address, Address], tuple[Address, Address] | None] = lambda s, d: (s, d)
        self.sent: list[tuple[float, Address, Address, bytes]] = []
        self.data: list[tuple[Address, bytes]] = []
        self._due: list[tuple[float, int, Address, Address, bytes]] = []
        self._count = itertools.count()

    def place(self, agent: Agent, base: int, address: Address, mine: Facts) -> None:
        agent.add_local(base, address, mine, self.now)
        self.agents[address] = (agent, base)

    def post(self, source: Address, target: Address, data: bytes) -> None:
        self.sent.append((self.now, source, target, data))
        passed = self.way(source, target)
        if passed is not None:
            heapq.heappush(self._due, (self.now + self.delay, next(self._count), *passed, data))

    def flush(self) -> None:
        for agent in {id(one): one for one, _ in self.agents.values()}.values():
            addresses = {
                base: address for address, (one, base) in self.agents.items() if one is agent
            }
            outgoing, agent.outgoing = agent.outgoing, []
            for base, target, data in outgoing:
                self.post(addresses[base], target, data)

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        agents = list({id(one): one for one, _ in self.agents.values()}.values())
        while not done():
            self.flush()
            due = [one.wake_at for one in agents]
            if self._due:
                due.append(self._due[0][0])
            self.now = max(self.now, min(due))
            if self.now > until:
                return
            while self._due and self._due[0][0] <= self.now:
                _, _, source, target, data = heapq.heappop(self._due)
                if target in self.agents:
                    agent, base = self.agents[target]
                    mine = agent.received(base, data, source, self.now)
                    if mine is not None:
                        self.data.append((target, mine))
            for one in agents:
                one.wake(self.now)

    def requests(self, source: Address) -> list[tuple[float, Address]]:
        found = []
        for time, sender, target, data in self.sent:
            message = parse(data)
            if sender == source and message and message.message_class == codec().Class.REQUEST:
                found.append((round(time, 6), target))
        return found


HERE, THERE = ("192.0.2.1", 1000), ("192.0.2.2", 2000)


def two(keyed: bool = True, world: World | None = None) -> tuple[World, Agent, Agent]:
    world = world or World()
    one, other = agent(True), agent(False, tie_breaker=2)
    world.place(one, 0, HERE, facts(A))
    world.place(other, 0, THERE, facts(B))
    one.add_remote(THERE, facts(B) if keyed else None, 0.0)
    other.add_remote(HERE, facts(A) if keyed else None, 0.0)
    return world, one, other


def both_selected(one: Agent, other: Agent) -> Callable[[], bool]:
    return lambda: one.selected is not None and other.selected is not None


# -- Formulas --


@pytest.mark.rfc("RZ-07")
def test_priorities_of_candidates() -> None:
    # RFC 8445 section 5.1.2: 2^24 * type + 2^8 * local + 256 - component
    assert candidate_priority("host", 65535) == (126 << 24) + (65535 << 8) + 255 == 2130706431
    assert candidate_priority("prflx", 65535) == 1862270975
    assert candidate_priority("srflx", 65535) == 1694498815
    assert candidate_priority("relay", 65535) == 16777215
    assert candidate_priority("relay", 0, component=256) == 0


@pytest.mark.rfc("RZ-08")
def test_priorities_of_pairs() -> None:
    assert pair_priority(5, 3) == 3 * 2**32 + 10 + 1
    assert pair_priority(3, 5) == 3 * 2**32 + 10
    assert pair_priority(4, 4) == 4 * 2**32 + 8


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_both_sides_compute_the_same_order(ours: int, theirs: int) -> None:
    low, high = min(ours, theirs), max(ours, theirs)
    assert pair_priority(ours, theirs) == 2**32 * low + 2 * high + (1 if ours > theirs else 0)


@pytest.mark.rfc("RZ-06")
def test_no_family_and_no_interface_starves() -> None:
    bases = [(f"192.0.2.{n}", "eth0") for n in range(5)]
    bases += [("2001:db8::1", "eth0"), ("198.51.100.1", "wlan0")]
    order = in_fair_order(bases)
    assert sorted(order) == list(range(7))
    # After three turns each family and each interface has had one.
    assert {bases[index] for index in order[:3]} == {
        ("2001:db8::1", "eth0"),
        ("192.0.2.0", "eth0"),
        ("198.51.100.1", "wlan0"),
    }


@given(
    st.sampled_from(["udp", "tcp"]),
    st.ip_addresses(),
    st.integers(1, 65535),
    st.sampled_from(["host", "srflx", "prflx", "relay"]),
    st.integers(0, 2**31 - 1),
    st.none() | st.just(A),
    st.none() | st.just(HERE),
)
def test_what_is_signalled_comes_back(
    transport: str,
    ip: Any,
    port: int,
    kind: str,
    priority: int,
    credentials: Credentials | None,
    related: Address | None,
) -> None:
    said = Facts(kind, priority, "f1", related, credentials)
    line = write_candidate(transport, (str(ip), port), said)
    assert read_candidate(line) == (transport, (str(ip), port), said)
    assert read_candidate(f"a={line} generation 0\r\n") == (transport, (str(ip), port), said)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "candidate:1 1 UDP 1 192.0.2.1 1",
        "candidate:1 2 UDP 1 192.0.2.1 1 typ host",
        "candidate:1 1 SCTP 1 192.0.2.1 1 typ host",
        "candidate:1 1 UDP 1 192.0.2.1 65536 typ host",
        "candidate:1 1 UDP 1 example.org 1 typ host",
        "candidate:1 1 UDP x 192.0.2.1 1 typ host",
        "candidate:1 1 UDP 1 192.0.2.1 1 typ guest",
        "candidate:1 1 UDP 1 192.0.2.1 1 typ host ufrag abcd",
        "candidate:1 1 UDP 1 192.0.2.1 1 typ host ufrag abcd pwd short",
        "candidate:1 1 UDP 1 192.0.2.1 1 typ host pwd " + "p" * 300,
        "candidate:" + "1" * 2000 + " 1 UDP 1 192.0.2.1 1 typ host",
    ],
)
def test_lines_that_are_none(line: str) -> None:
    with pytest.raises(ValueError, match=r"not|has"):
        read_candidate(line)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_candidate(text)
    except ValueError:
        pass


def test_one_side_controls_and_both_know_which() -> None:
    assert controls(B, A, [HERE], [THERE]) is not controls(A, B, [THERE], [HERE])
    mixed = [("192.0.2.9", 5), ("2001:db8::1", 1)]
    assert controls(None, None, mixed, [THERE]) is True
    assert controls(None, None, [THERE], mixed) is False


# -- Checks --


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.rfc("R-03", "RZ-04")
def test_two_that_can_reach_each_other(keyed: bool) -> None:
    world, one, other = two(keyed)
    world.run(5, both_selected(one, other))
    for which, remote in ((one, THERE), (other, HERE)):
        assert which.selected is not None
        assert which.selected.remote.address == remote
    # A check there and back, and one that nominates.
    assert world.now == pytest.approx(4 * world.delay, abs=world.delay)


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("delay", [0.03, 0.1, 0.3, 0.7, 3.0])
@pytest.mark.rfc("R-03")
def test_on_a_long_way_each_waits_for_its_own_answer(delay: float, keyed: bool) -> None:
    """The check of one side comes while the other's is under way, which is repeated for that; the
    answer to the first one counts all the same (RFC 8445 section 7.3.1.4)."""
    world, one, other = two(keyed, World(delay))
    world.run(60, both_selected(one, other))
    assert both_selected(one, other)()
    assert world.now == pytest.approx(4 * delay)


def test_when_one_check_is_answered_the_others_are_not_repeated() -> None:
    world, _, other = two(world=World(0.2))
    world.way = lambda source, target: (
        None if source == HERE and world.now > 0.3 else (source, target)
    )
    world.run(30)
    assert other.pairs[0].state is State.SUCCEEDED
    assert world.requests(THERE) == [(0.0, HERE), (0.2, HERE)]


def test_many_requests_of_the_peer_cause_one_check_at_a_time() -> None:
    world, _, other = two()
    world.way = lambda source, target: None
    other.wake(0.0)
    world.flush()
    for _ in range(1000):
        other.received(0, request("bbbb:aaaa", B), HERE, TA)
    other.outgoing.clear()  # a thousand answers
    world.run(0.49)
    assert world.requests(THERE) == [(0.0, HERE), (TA, HERE)]


@pytest.mark.rfc("R-03", "RZ-02")
def test_the_first_pair_is_dead_and_the_second_works() -> None:
    world = World()
    one, other = agent(True), agent(False)
    dead = ("198.51.100.1", 1)
    world.place(one, 0, HERE, facts(A))
    world.place(other, 0, THERE, facts(B, preference=1))
    one.add_remote(dead, facts(B, preference=65535), 0.0)
    one.add_remote(THERE, facts(B, preference=1), 0.0)
    other.add_remote(HERE, facts(A), 0.0)
    world.run(5, both_selected(one, other))
    assert one.selected is not None
    assert one.selected.remote.address == THERE
    requests = world.requests(HERE)
    assert requests[0] == (0.0, dead)
    assert requests[1][1] == THERE
    assert requests[1][0] <= TA


@pytest.mark.rfc("RZ-08")
def test_checks_are_paced_and_at_most_a_hundred() -> None:
    one = agent(True)
    world = World()
    world.place(one, 0, HERE, facts(A))
    for number in range(150):
        one.add_remote((f"198.51.100.{number}", 9), facts(B, preference=number), 0.0)
    assert len(one.pairs) == MAX_PAIRS
    assert {pair.remote.address[0] for pair in one.pairs} == {
        f"198.51.100.{number}" for number in range(50, 150)
    }
    world.run(TA * MAX_PAIRS * 0.999)
    times = [time for time, _ in world.requests(HERE)]
    # Each is repeated after 5 seconds, TA for each of a hundred, which is at least 500 ms.
    assert times == [pytest.approx(TA * number) for number in range(MAX_PAIRS)]


@pytest.mark.rfc("RZ-09", "R-06")
def test_a_silent_peer_gets_seven_requests_and_39_5_seconds() -> None:
    world, one, _other = two()
    world.way = lambda source, target: None
    world.run(100, lambda: one.failed)
    assert world.now == pytest.approx(PATIENCE)
    times = [time for time, _ in world.requests(HERE)]
    assert times == [pytest.approx(at) for at in (0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5)]
    assert one.pairs[0].state is State.FAILED


def test_a_lost_nomination_is_repeated() -> None:
    world, one, other = two()
    lost: list[bytes] = []

    def lossy(source: Address, target: Address) -> tuple[Address, Address] | None:
        message = parse(world.sent[-1][3])
        if "USE-CANDIDATE" in message.attributes and not lost:
            lost.append(world.sent[-1][3])
            return None
        return source, target

    world.way = lossy
    world.run(5, both_selected(one, other))
    assert lost
    assert both_selected(one, other)()
    assert world.now > 0.5


def test_an_answer_to_the_nomination_that_is_lost() -> None:
    world, one, other = two()
    lost = []

    def lossy(source: Address, target: Address) -> tuple[Address, Address] | None:
        message = parse(world.sent[-1][3])
        if other.selected is not None and source == THERE and not lost:
            lost.append(message)
            return None
        return source, target

    world.way = lossy
    world.run(5, both_selected(one, other))
    assert lost
    assert one.selected is not None


def test_a_peer_that_took_a_pair_unheard_keeps_to_it() -> None:
    world, one, other = two()
    second = ("192.0.2.3", 3000)
    world.place(other, 1, second, facts(B, preference=1))
    one.add_remote(second, facts(B, preference=1), 0.0)

    def lossy(source: Address, target: Address) -> tuple[Address, Address] | None:
        took = other.selected is not None and one.controlling
        if took and source == THERE and world.now < PATIENCE + 1:
            return None
        return source, target

    world.way = lossy
    world.run(3 * PATIENCE, both_selected(one, other))
    assert one.selected is not None
    assert other.selected is not None
    assert one.selected.remote.address == THERE == other.selected.local.address
    tried = [target for _, target in world.requests(HERE)]
    assert second in tried  # it was nominated in the end, and refused


def test_a_peer_that_refuses_every_nomination_is_left_in_the_end() -> None:
    """It first ignores one, which it may have taken: that is nominated once more, and not again."""
    world, one, other = two()
    second = ("192.0.2.3", 3000)
    world.place(other, 1, second, facts(B, preference=1))
    one.add_remote(second, facts(B, preference=1), 0.0)
    nominated: list[Address] = []

    def way(source: Address, target: Address) -> tuple[Address, Address] | None:
        message = parse(world.sent[-1][3])
        if "USE-CANDIDATE" not in message.attributes:
            return source, target
        nominated.append(target)
        if len(set(nominated)) > 1 or nominated.count(THERE) > 7:
            refusal = {"ERROR-CODE": (400, "Another pair is in use")}
            answer = encode("BINDING", "ERROR", message.transaction_id, refusal, b"b" * 22)
            world.post(target, source, answer)
        return None

    world.way = way
    world.run(10 * PATIENCE, lambda: one.failed)
    assert one.failed
    assert nominated == [THERE] * 7 + [second, THERE]


@pytest.mark.parametrize("first", [True, False])
def test_both_believe_that_they_control(first: bool) -> None:
    world = World()
    one = Agent(controlling=first, tie_breaker=9, token=tokens(1), now=0.0)
    other = Agent(controlling=first, tie_breaker=3, token=tokens(2), now=0.0)
    world.place(one, 0, HERE, facts(A))
    world.place(other, 0, THERE, facts(B))
    one.add_remote(THERE, facts(B), 0.0)
    other.add_remote(HERE, facts(A), 0.0)
    world.run(5, both_selected(one, other))
    assert both_selected(one, other)()
    # RFC 8445 section 7.3.1.1: the greater tie-breaker is the controlling one.
    assert one.controlling
    assert not other.controlling


def test_behind_a_nat_that_gives_each_target_its_own_port() -> None:
    """The peer sees an address that nobody has signalled: a peer-reflexive candidate."""
    world, one, other = two()
    ports: dict[Address, int] = {}
    outside = "203.0.113.7"

    def symmetric(source: Address, target: Address) -> tuple[Address, Address] | None:
        if source == HERE:
            return (outside, ports.setdefault(target, 40000 + len(ports))), target
        if target[0] == outside:
            back = [inside for inside, port in ports.items() if port == target[1]]
            return (source, HERE) if back == [source] else None
        return None  # nothing unasked gets in

    world.way = symmetric
    world.run(10, both_selected(one, other))
    assert other.selected is not None
    assert other.selected.remote.address == (outside, 40000)
    assert one.selected is not None
    assert one.selected.mapped == (outside, 40000)
    assert one.needs_keepalive


def test_late_candidates_are_tried() -> None:
    world = World()
    one, other = agent(True), agent(False)
    world.place(one, 0, HERE, facts(A))
    world.place(other, 0, THERE, facts(B))
    one.add_remote(("198.51.100.1", 1), facts(B), 0.0)
    other.add_remote(("198.51.100.2", 1), facts(A), 0.0)
    world.run(3)
    assert one.selected is None
    one.add_remote(THERE, facts(B), world.now)
    other.add_remote(HERE, facts(A), world.now)
    begun = world.now
    world.run(10, both_selected(one, other))
    assert both_selected(one, other)()
    assert world.now - begun < 0.3


def test_what_is_removed_is_tried_no_more() -> None:
    world, one, _ = two()
    world.way = lambda source, target: None
    world.run(1)
    count = len(world.requests(HERE))
    one.remove_remote(THERE, world.now)
    world.run(10)
    assert len(world.requests(HERE)) == count
    one.add_remote(THERE, facts(B), world.now)
    one.remove_local(0, world.now)
    world.run(20)
    assert len(world.requests(HERE)) == count


def test_what_is_removed_is_not_tried_because_the_peer_has_asked() -> None:
    world, _, other = two()
    world.way = lambda source, target: None
    other.wake(0.0)
    world.flush()
    other.received(0, request("bbbb:aaaa", B), HERE, TA)
    other.remove_remote(HERE, TA)
    world.run(5)
    assert world.requests(THERE) == [(0.0, HERE)]


@pytest.mark.parametrize("local", [True, False])
def test_when_what_is_nominated_is_removed_another_one_is(local: bool) -> None:
    world, one, other = two()
    mine, theirs = ("192.0.2.3", 3000), ("192.0.2.4", 4000)
    world.place(one, 1, mine, facts(A, preference=1))
    world.place(other, 1, theirs, facts(B, preference=1))
    one.add_remote(theirs, facts(B, preference=1), 0.0)

    def way(source: Address, target: Address) -> tuple[Address, Address] | None:
        if {source, target} not in ({HERE, THERE}, {mine, theirs}):
            return None
        nominates = "USE-CANDIDATE" in parse(world.sent[-1][3]).attributes
        return None if nominates and target == THERE else (source, target)

    world.way = way
    world.run(3)
    assert [pair.remote.address for pair in one.pairs if pair.nominating] == [THERE]
    if local:
        one.remove_local(0, world.now)
    else:
        one.remove_remote(THERE, world.now)
    begun = world.now
    world.run(10, both_selected(one, other))
    assert one.selected is not None
    assert one.selected.remote.address == theirs
    assert world.now - begun < 1


@pytest.mark.rfc("R-05")
def test_data_that_overtakes_our_own_check() -> None:
    """The first check of the controlled side meets a NAT that is not open yet; when the peer has
    nominated the pair, and talks, that need not be repeated first."""
    world, one, other = two()
    world.way = lambda source, target: (
        None if source == THERE and world.now < 0.005 else (source, target)
    )
    world.run(0.2, lambda: one.selected is not None)
    assert one.selected is not None
    assert other.selected is None
    world.post(HERE, THERE, b"hello")
    world.run(0.2, lambda: other.selected is not None)
    assert world.data == [(THERE, b"hello")]


def test_one_who_was_removed_does_not_come_back_by_himself() -> None:
    world, one, other = two()
    elsewhere = ("198.51.100.3", 3)
    other.add_remote(elsewhere, facts(A), 0.0)
    other.remove_remote(HERE, 0.0)
    world.run(5)
    assert other.selected is None
    assert one.selected is None
    other.add_remote(HERE, facts(A), world.now)
    world.run(10, both_selected(one, other))
    assert both_selected(one, other)()


# -- A peer without STUN --


@pytest.mark.rfc("RZ-05", "R-05")
def test_a_peer_that_knows_no_stun() -> None:
    world, one, _ = two(keyed=False)
    del world.agents[THERE]
    world.post(("192.0.2.99", 2000), HERE, b"a stranger's")
    world.run(2, lambda: one.selected is not None)
    assert one.selected is None
    assert world.data == []
    world.post(THERE, HERE, b"the first Message")
    world.run(5, lambda: one.selected is not None)
    assert world.data == [(HERE, b"the first Message")]
    assert not one.needs_keepalive


def test_a_peer_that_sends_everything_back() -> None:
    """An echo of our own request proves nothing, and is no Message."""
    world, one, _ = two(keyed=False)
    del world.agents[THERE]
    original = world.post

    def echoing(source: Address, target: Address, data: bytes) -> None:
        original(source, target, data)
        if source == HERE:
            original(THERE, HERE, data)

    world.post = echoing  # type: ignore[method-assign]
    world.run(100, lambda: one.failed)
    assert one.failed
    assert world.data == []


# -- Forgeries --


def request(username: str, key: Credentials, **more: Any) -> bytes:
    attributes = {"USERNAME": username, "PRIORITY": 1, "ICE-CONTROLLING": 1, **more}
    return encode("BINDING", "REQUEST", b"s" * 12, attributes, key.password.encode())


@pytest.mark.parametrize(
    "data",
    [
        request("bbbb:aaaa", STRANGER, **{"USE-CANDIDATE": None}),
        request("evil:aaaa", B),
        encode("BINDING", "REQUEST", b"s" * 12, {"USE-CANDIDATE": None}),
        b"\0\1\0\0\x21\x12\xa4\x42" + b"s" * 12,
        b"data of a stranger",
        b"",
        b"\0" * 19,
        b"\0\1\xff\xff\x21\x12\xa4\x42" + b"s" * 12,
    ],
)
@pytest.mark.rfc("RZ-03")
def test_to_a_stranger_nothing_is_said(data: bytes) -> None:
    _, _, other = two()
    other.outgoing.clear()
    for source in (HERE, ("192.0.2.66", 6)):
        assert other.received(0, data, source, 0.0) is None
        assert other.outgoing == []
    assert other.selected is None
    assert len(other.pairs) == 1


def test_answers_that_are_forged() -> None:
    _, one, _ = two()
    one.wake(0.0)
    token = parse(one.outgoing[-1][2]).transaction_id
    key, wrong = B.password.encode(), STRANGER.password.encode()
    mapped = {"XOR-MAPPED-ADDRESS": HERE}

    def answer(token: bytes, key: bytes | None, kind: str = "RESPONSE") -> bytes:
        return encode("BINDING", kind, token, mapped, key)

    for data, source in (
        (answer(token, wrong), THERE),
        (answer(token, None), THERE),
        (answer(b"x" * 12, key), THERE),
        (answer(token, key), ("192.0.2.66", 2000)),
        (answer(token, wrong, "ERROR"), THERE),
    ):
        one.received(0, data, source, 0.0)
        assert one.pairs[0].state is State.IN_PROGRESS
    one.received(0, answer(token, key), THERE, 0.0)
    assert one.pairs[0].state is State.SUCCEEDED


def test_candidates_that_a_peer_shows_are_bounded() -> None:
    _, _, other = two()
    for number in range(200):
        data = request("bbbb:aaaa", B)
        other.received(0, data, ("203.0.113.1", 1000 + number), 0.0)
    assert len(other.pairs) <= 1 + 16


def test_an_answer_is_no_longer_than_the_question() -> None:
    world, one, other = two()
    world.run(5, both_selected(one, other))
    sizes: dict[bytes, list[int]] = {}
    for _, _, _, data in world.sent:
        sizes.setdefault(data[8:20], []).append(len(data))
    for found in sizes.values():
        assert found[-1] <= found[0]


@given(st.binary(max_size=120))
def test_any_bytes_are_survived(data: bytes) -> None:
    _, one, _ = two()
    one.wake(0.0)
    one.received(0, data, THERE, 0.0)
    one.received(0, b"\x01\x01" + data[2:], THERE, 0.0)
    whole = len(data) // 4 * 4
    header = b"\0\1" + whole.to_bytes(2, "big") + b"\x21\x12\xa4\x42" + b"t" * 12
    one.received(0, header + data[:whole], THERE, 0.0)
    assert one.selected is None


# -- After the choice --


@pytest.mark.rfc("RZ-08")
def test_a_pair_through_nat_is_kept_alive_every_15_seconds() -> None:
    world, one, other = two()
    one.pairs[0].remote.facts = facts(B, "srflx")
    world.run(5, both_selected(one, other))
    begun = world.now
    count = len(world.sent)
    world.run(begun + 3.5 * KEEPALIVE)
    kept = [
        round(time - begun, 3)
        for time, source, _, _ in world.sent[count:]
        if source == HERE and time > begun + 1
    ]
    assert kept == [pytest.approx(KEEPALIVE * n, abs=0.1) for n in (1, 2, 3)]
    one.was_sent(world.now)
    last = world.now
    assert one.wake_at == last + KEEPALIVE


def test_a_pair_without_nat_is_left_in_peace() -> None:
    world, one, other = two()
    world.run(5, both_selected(one, other))
    world.run(world.now + 1)
    count = len(world.sent)
    world.run(world.now + 200)
    assert len(world.sent) == count


def test_checks_of_the_peer_are_answered_for_ever() -> None:
    world, one, other = two()
    world.run(5, both_selected(one, other))
    other.received(0, request("bbbb:aaaa", B), HERE, 1000.0)
    assert parse(other.outgoing[-1][2]).message_class == codec().Class.RESPONSE


# -- TCP --


def running(punch: Punch, until: float, *, refuse: bool = True) -> list[tuple[float, int, Address]]:
    """What is started up to *until*, if everything is refused at once."""
    started = []
    while punch.wake_at <= until:
        now = punch.wake_at
        if now >= punch.give_up_at:
            break
        for base, remote in punch.wake(now):
            started.append((round(now, 3), base, remote))
            if refuse:
                punch.ended(base, remote, ConnectionRefusedError(), now)
    return started


@pytest.mark.rfc("RZ-01")
def test_a_refused_connect_is_repeated_with_growing_pauses() -> None:
    punch = Punch(True, 0.0)
    punch.add_local(0, HERE, 1, 0.0)
    punch.add_remote(THERE, None, 0.0)
    times = [time for time, _, _ in running(punch, PATIENCE)]
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(times)]
    assert pauses[:6] == [FIRST_RETRY, 0.2, 0.4, 0.8, 1.6, LAST_RETRY]
    assert set(pauses[6:]) == {LAST_RETRY}
    assert len(times) < 30
    assert punch.failures[0][0] == (0, THERE)


def test_connects_are_paced_the_best_first() -> None:
    punch = Punch(True, 0.0)
    punch.add_local(0, HERE, 7, 0.0)
    for number in range(150):
        punch.add_remote(("198.51.100.7", 1 + number), facts(B, preference=number), 0.0)
    assert len(punch.pairs) == MAX_PAIRS
    started = running(punch, 100 * TA - 0.001, refuse=False)
    assert [time for time, _, _ in started] == [pytest.approx(TA * n) for n in range(MAX_PAIRS)]
    assert [remote[1] for _, _, remote in started] == list(range(150, 50, -1))


def test_no_connection_with_oneself_and_between_families() -> None:
    punch = Punch(True, 0.0)
    punch.add_local(0, HERE, 7, 0.0)
    punch.add_remote(HERE, None, 0.0)
    punch.add_remote(("2001:db8::1", 1), None, 0.0)
    punch.add_remote(("224.0.0.1", 1), None, 0.0)
    punch.add_remote(("0.0.0.0", 1), None, 0.0)
    assert punch.pairs == []


def elections(keyed: bool = True) -> tuple[Election, Election]:
    return (
        Election(B if keyed else None, controlling=True, tie_breaker=1, token=tokens(1)),
        Election(A if keyed else None, controlling=False, tie_breaker=2, token=tokens(2)),
    )


def exchange(one: Election, other: Election, now: float) -> None:
    while one.outgoing or other.outgoing:
        for sender, receiver in ((one, other), (other, one)):
            outgoing, sender.outgoing = sender.outgoing, []
            for number, data in outgoing:
                assert int.from_bytes(data[:2], "big") == len(data) - 2
                receiver.received(number, data[2:], now)


def test_both_sides_take_the_same_of_several_connections() -> None:
    one, other = elections()
    # In the opposite order, as they may well come up.
    for number in (1, 2, 3):
        other.opened(number, 0, B, HERE, 0.0, accepted=False, only=False)
    for number in (3, 2, 1):
        one.opened(number, 0, A, THERE, 0.0, accepted=False, only=False)
    exchange(one, other, 0.0)
    assert one.chosen == other.chosen == 3
    assert sorted(one.dropped) == sorted(other.dropped) == [1, 2]


@pytest.mark.parametrize("from_controlling", [True, False])
def test_a_connection_that_one_side_has_opened(from_controlling: bool) -> None:
    one, other = elections()
    one.opened(1, 0, A, THERE, 0.0, accepted=not from_controlling, only=False)
    other.opened(1, 0, B, HERE, 0.0, accepted=from_controlling, only=False)
    assert bool(one.outgoing) is from_controlling
    assert bool(other.outgoing) is not from_controlling
    exchange(one, other, 0.0)
    assert one.chosen == other.chosen == 1


@pytest.mark.rfc("RZ-03")
def test_to_one_who_has_come_by_himself_nothing_is_said() -> None:
    for election, ours in zip(elections(), (A, B), strict=True):
        election.opened(1, 0, ours, HERE, 0.0, accepted=True, only=False)
        assert election.outgoing == []
        evil = request(f"{ours.name}:evil", STRANGER, **{"USE-CANDIDATE": None})
        election.received(1, evil, 0.0)
        assert election.outgoing == []
        assert election.dropped == [1]


def test_a_connection_whose_peer_does_not_answer_is_left() -> None:
    one, _ = elections()
    one.opened(1, 9, A, THERE, 0.0, accepted=False, only=False)
    one.opened(2, 5, A, THERE, 0.0, accepted=False, only=False)
    assert [number for number, _ in one.outgoing] == [1]
    assert one.wake_at == 5.0
    one.closed(1, 1.0)
    assert [number for number, _ in one.outgoing] == [1, 2]


@pytest.mark.rfc("RZ-03")
def test_a_connection_of_a_stranger_is_dropped() -> None:
    _, other = elections()
    other.opened(1, 0, B, HERE, 0.0, accepted=True, only=False)
    other.received(1, request("bbbb:aaaa", STRANGER, **{"USE-CANDIDATE": None}), 0.0)
    assert other.dropped == [1]
    other.opened(2, 0, B, HERE, 0.0, accepted=True, only=False)
    other.received(2, b"GET / HTTP/1.0\r\n", 0.0)
    assert other.dropped == [1, 2]
    other.opened(3, 0, B, HERE, 0.0, accepted=True, only=False)
    other.wake(other.wake_at)
    assert other.dropped == [1, 2, 3]
    assert other.chosen is None
    assert other.outgoing == []


def test_one_who_has_shown_himself_waits_for_his_turn() -> None:
    one, _ = elections()
    one.opened(1, 9, A, THERE, 0.0, accepted=False, only=False)
    one.opened(2, 5, A, THERE, 0.0, accepted=True, only=False)
    one.opened(3, 7, A, THERE, 0.0, accepted=True, only=False)
    known = {"USERNAME": "aaaa:bbbb", "PRIORITY": 1, "ICE-CONTROLLED": 2}
    one.received(2, encode("BINDING", "REQUEST", b"s" * 12, known, b"a" * 22), 0.1)
    assert one.wake_at == ANSWER_TIME
    one.wake(ANSWER_TIME)
    assert one.dropped == [1, 3]  # the one that was nominated in vain, and one who says nothing
    assert [number for number, _ in one.outgoing] == [1, 2]


def test_connections_that_wait_are_bounded() -> None:
    _, other = elections()
    for number in range(200):
        other.opened(number, 0, B, HERE, 0.0, accepted=False, only=False)
    assert len(other.dropped) == 200 - 64


def test_without_credentials_the_other_side_sees_which_is_left() -> None:
    one, other = elections(keyed=False)
    for number in (1, 2):
        other.opened(number, number, B, HERE, 0.0, accepted=False, only=False)
    one.opened(1, 1, A, THERE, 0.0, accepted=False, only=False)
    one.opened(2, 2, A, THERE, 0.0, accepted=False, only=False)
    assert one.chosen == 1
    assert one.dropped == [2]
    other.closed(2, 0.01)
    other.wake(SETTLE)
    assert other.chosen == 1


def test_without_credentials_the_first_word_decides() -> None:
    _, other = elections(keyed=False)
    for number in (1, 2):
        other.opened(number, number, B, HERE, 0.0, accepted=False, only=False)
    other.readable(1)
    assert other.chosen == 1
    assert other.dropped == [2]


# -- Any network --


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2))),
    st.booleans(),
    st.sampled_from([0.0, 0.2, 0.4]),
    st.sampled_from([0.02, 0.2, 1.0]),
    st.integers(0, 2**16),
)
@example(3, 2, {(0, 1), (1, 1), (2, 0)}, False, 0.4, 0.02, 1)
@example(1, 3, {(0, 0), (0, 1), (0, 2)}, True, 0.4, 0.02, 292)
@example(1, 3, {(0, 0), (0, 1), (0, 2)}, False, 0.4, 0.02, 292)
def test_where_there_is_a_way_both_take_the_same(
    ours: int,
    theirs: int,
    open_: set[tuple[int, int]],
    keyed: bool,
    loss: float,
    delay: float,
    seed: int,
) -> None:
    chance = random.Random(seed)
    here = [(f"192.0.2.{n}", 1000 + n) for n in range(ours)]
    there = [(f"198.51.100.{n}", 2000 + n) for n in range(theirs)]
    ways = {(here[a], there[b]) for a, b in open_ if a < ours and b < theirs}
    world = World(delay)

    def way(source: Address, target: Address) -> tuple[Address, Address] | None:
        fits = (source, target) in ways or (target, source) in ways
        return (source, target) if fits and chance.random() >= loss else None

    world.way = way
    one, other = agent(True), agent(False, tie_breaker=2)
    for mine, addresses, secret in ((one, here, A), (other, there, B)):
        for number, address in enumerate(addresses):
            world.place(mine, number, address, facts(secret, preference=65535 - number))
    for mine, addresses, secret in ((one, there, B), (other, here, A)):
        for number, address in enumerate(addresses):
            known = facts(secret, preference=65535 - number) if keyed else None
            mine.add_remote(address, known, 0.0)
    world.run(200, lambda: one.failed and other.failed)
    if not ways:
        assert one.failed
        assert other.failed
    elif loss == 0.0 or (one.selected and other.selected):
        assert one.selected is not None
        assert other.selected is not None
        assert one.selected.remote.address == other.selected.local.address
        assert other.selected.remote.address == one.selected.local.address
        assert (one.selected.local.address, one.selected.remote.address) in ways


@pytest.mark.parametrize("start", ["candidate:1 2 udp", "no:1 1 udp", "candidate:1 1 sctp"])
def test_no_secret_is_in_what_is_said_of_it(start: str) -> None:
    secret = "s" * 22
    line = f"{start} 1 192.0.2.1 1 typ host ufrag abcd pwd {secret}"
    with pytest.raises(ValueError, match=r"not ") as caught:
        read_candidate(line)
    assert secret not in str(caught.value)
    assert secret not in repr(Facts("host", 1, "1", None, Credentials("abcd", secret)))
