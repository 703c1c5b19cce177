"""The race over a tree, in virtual time, to the exact moment."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import process_time
from typing import Any

import pytest
from greentaps.plugins import find
from greentaps.taps.choosing.candidates import Branch, Candidate, Node
from greentaps.taps.choosing.policy import ATTEMPT_DELAY, RaceMode, SystemPolicy
from greentaps.taps.choosing.racing import PREPARATION, Order, Race, Verb
from hypothesis import given
from hypothesis import strategies as st

Ends = list[tuple[float, bool]]  # of each candidate: how long it takes, whether it succeeds

TCP = (find("tcp"),)


def leaf(parent: Node, name: str = "192.0.2.1", *, cut: str | None = None) -> Node:
    return Node(parent, name, cut=cut, candidate=Candidate(TCP, (name, 1)))


def inner(parent: Node | None, branch: Branch, what: str = "", *, unresolved: bool = False) -> Node:
    return Node(parent, what, branch, unresolved=unresolved)


def group_of(node: Node, name: str) -> Node:
    """Where an address belongs: ``2/192.0.2.1`` to the second target of a service."""
    number, slash, _ = name.partition("/")
    if not slash:
        return node
    found = [child for child in node.children if child.what == f"target {number}"]
    return found[0] if found else inner(node, Branch.ENDPOINTS, f"target {number}")


def flat(count: int) -> Node:
    """A root with so many leaves, whose indexes count from 1."""
    root = inner(None, Branch.ENDPOINTS)
    for number in range(count):
        leaf(root, f"192.0.2.{number}")
    return root


@dataclass
class World:
    """What happens to each node: leaves take a while and then succeed or fail; names are answered
    by (when, addresses, complete)."""

    race: Race
    ends: Callable[[Node], tuple[float, bool]]
    answers: Callable[[Node], Iterable[tuple[float, list[str], bool]]] = lambda node: ()
    last_resort: tuple[float, list[str]] | None = None  # when it is answered, and how
    now: float = 0.0
    starts: list[tuple[float, Node]] = field(default_factory=list)
    asked: list[tuple[float, Node]] = field(default_factory=list)
    resorted: list[float] = field(default_factory=list)
    cancelled: list[Node] = field(default_factory=list)
    coming: list[tuple[float, int, Node, Any]] = field(default_factory=list)
    count: int = 0

    def later(self, seconds: float, node: Node, what: Any) -> None:
        self.count += 1
        heapq.heappush(self.coming, (self.now + seconds, self.count, node, what))

    def obey(self, orders: Sequence[Order]) -> None:
        for verb, node in orders:
            if verb is Verb.ATTEMPT:
                self.starts.append((self.now, node))
                seconds, good = self.ends(node)
                self.later(seconds, node, good)
            elif verb is Verb.DERIVE:
                self.asked.append((self.now, node))
                for seconds, names, complete in self.answers(node):
                    self.later(seconds, node, (names, complete))
            elif verb is Verb.RESORT:
                self.resorted.append(self.now)
                assert self.last_resort is not None
                seconds, names = self.last_resort
                self.later(seconds, node, (names, True))
            else:
                self.cancelled.append(node)

    def run(self) -> Node | None:
        race = self.race
        self.obey(race.start(self.now))
        while not race.over:
            wake_at = race.wake_at
            if wake_at is not None and (not self.coming or wake_at <= self.coming[0][0]):
                self.now = wake_at
                self.obey(race.wake(self.now))
                continue
            assert self.coming, "a race that nothing can end"
            self.now, _, node, what = heapq.heappop(self.coming)
            if what is True:
                self.obey(race.succeeded(node, self.now))
            elif what is False:
                self.obey(race.failed(node, self.now, OSError("no")))
            else:
                names, complete = what
                if complete and not names and not node.children:
                    self.obey(race.failed(node, self.now, OSError("no such name")))
                    continue
                added = [leaf(group_of(node, name), name) for name in names]
                last_resort = complete and self.last_resort is not None and not self.resorted
                self.obey(
                    race.derived(node, added, self.now, complete=complete, last_resort=last_resort)
                )
        return race.winner

    def times(self) -> list[tuple[float, str]]:
        return [(round(when, 6), node.number) for when, node in self.starts]


def run(
    ends: Ends, delay: float = ATTEMPT_DELAY
) -> tuple[list[tuple[float, int]], float, int | None]:
    """Run a race of leaves; when each candidate started, when it was over, and who won."""
    root = flat(len(ends))
    race = Race(root, delay=lambda parent, child: delay)
    world = World(race, lambda node: ends[node.index - 1])
    winner = world.run()
    starts = [(when, node.index - 1) for when, node in world.starts]
    return starts, world.now, None if winner is None else winner.index - 1


# -- One branch --


@pytest.mark.rfc("CR-02", "HE-03", "HE-10")
def test_a_hundred_seconds_in_no_time() -> None:
    """Four hundred dead addresses, and the last one answers."""
    begun = process_time()
    starts, now, winner = run([(1000.0, False)] * 400 + [(0.5, True)])
    assert starts == [(index * 0.25, index) for index in range(401)]
    assert (now, winner) == (100.5, 400)
    assert process_time() - begun < 2


@pytest.mark.rfc("CR-02", "TT-06", "DN-02")
def test_a_failure_starts_the_next_at_once_and_the_delay_anew() -> None:
    starts, now, winner = run([(0.1, False), (9.0, False), (9.0, False), (0.1, True)])
    assert starts == [(0.0, 0), (0.1, 1), (0.35, 2), (0.6, 3)]
    assert winner == 3
    assert now == pytest.approx(0.7)


def test_a_late_failure_starts_the_next_one_too() -> None:
    starts, _, _ = run([(0.3, False), (9.0, False), (9.0, True)])
    assert starts == [(0.0, 0), (0.25, 1), (0.3, 2)]


def test_the_first_to_succeed_wins_although_it_started_late() -> None:
    _, now, winner = run([(5.0, True), (0.1, True)])
    assert (now, winner) == (0.35, 1)


@pytest.mark.rfc("CR-08")
def test_refusals_cost_a_round_trip_each_and_no_delay() -> None:
    starts, now, winner = run([(0.01, False)] * 3 + [(0.01, True)])
    assert starts == [(0.0, 0), (0.01, 1), (0.02, 2), (0.03, 3)]
    assert (now, winner) == (0.04, 3)


@pytest.mark.rfc("DN-01", "DN-02")
@given(
    st.lists(
        st.tuples(st.integers(0, 80).map(lambda n: n / 16), st.booleans()), min_size=1, max_size=12
    ),
    st.sampled_from([0.125, 0.25, 2.0]),
)
def test_any_race(ends: Ends, delay: float) -> None:
    starts, now, winner = run(ends, delay)
    # In order, each at most once, never later than the delay after the one before.
    assert [index for _, index in starts] == list(range(len(starts)))
    for (before, _), (after, _) in pairwise(starts):
        assert 0 <= after - before <= delay
    outcomes = {index: (when + ends[index][0], ends[index][1]) for when, index in starts}
    # A start before its time has a failure at that moment as its cause.
    failures = {end for end, good in outcomes.values() if not good}
    for (before, _), (after, _) in pairwise(starts):
        assert after == before + delay or after in failures
    if winner is None:
        assert len(starts) == len(ends)
        assert not any(good for _, good in ends)
        assert now == max(end for end, _ in outcomes.values())
    else:
        assert ends[winner][1]
        assert now == min(end for end, good in outcomes.values() if good)
        assert all(when <= now for when, _ in starts)


def test_the_winner_stops_the_others() -> None:
    root = flat(4)
    race = Race(root)
    race.start(0.0)
    race.wake(0.25)
    race.wake(0.5)
    first, second, third, _ = root.children
    assert race.succeeded(second, 0.6) == [(Verb.CANCEL, first), (Verb.CANCEL, third)]
    assert race.over
    assert race.winner is second
    assert race.wake_at is None
    assert race.failed(first, 0.6) == []
    assert race.succeeded(third, 0.6) == []
    assert race.wake(9.0) == []
    assert [(moment.what, moment.node.index) for moment in race.story] == [
        ("begun", 1), ("begun", 2), ("begun", 3), ("won", 2), ("stopped", 1), ("stopped", 3),
    ]  # fmt: skip


def test_waking_early_starts_nothing() -> None:
    root = flat(2)
    race = Race(root, delay=lambda parent, child: 1.0)
    assert race.start(10.0) == [(Verb.ATTEMPT, root.children[0])]
    assert race.wake(10.5) == []
    assert race.wake_at == 11.0
    assert race.wake(11.0) == [(Verb.ATTEMPT, root.children[1])]
    assert race.wake_at is None


@pytest.mark.rfc("DN-01")
def test_a_race_of_none_is_over() -> None:
    race = Race(flat(0))
    assert race.start(0.0) == []
    assert race.over


def test_what_was_cut_is_never_started() -> None:
    root = inner(None, Branch.ENDPOINTS)
    for number in range(4):
        leaf(root, f"192.0.2.{number}", cut="no" if number % 2 else None)
    world = World(Race(root), lambda node: (9.0, False))
    world.run()
    assert [node.index for _, node in world.starts] == [1, 3]


def test_not_over_while_somebody_runs_or_waits() -> None:
    root = flat(2)
    race = Race(root)
    assert not race.over
    race.start(0.0)
    assert race.failed(root.children[0], 0.0) == [(Verb.ATTEMPT, root.children[1])]
    assert not race.over
    assert race.failed(root.children[1], 1.0) == []
    assert race.over


def test_giving_up_stops_all() -> None:
    root = flat(3)
    race = Race(root)
    race.start(0.0)
    race.wake(0.25)
    assert race.give_up(0.3) == [(Verb.CANCEL, root.children[0]), (Verb.CANCEL, root.children[1])]
    assert race.over
    assert race.winner is None


# -- Modes --


@pytest.mark.rfc("CR-01")
def test_simultaneous() -> None:
    root = flat(5)
    race = Race(root, modes={Branch.ENDPOINTS: RaceMode.SIMULTANEOUS})
    world = World(race, lambda node: (float(node.index), node.index == 4))
    assert world.run() is root.children[3]
    assert [when for when, _ in world.starts] == [0.0] * 5
    assert world.cancelled == [root.children[4]]


@pytest.mark.rfc("CR-03")
def test_failover_waits_for_the_failure() -> None:
    root = flat(3)
    race = Race(root, modes={Branch.ENDPOINTS: RaceMode.FAILOVER})
    world = World(race, lambda node: (5.0, node.index == 3))
    world.run()
    assert world.times() == [(0.0, "1.1"), (5.0, "1.2"), (10.0, "1.3")]


@pytest.mark.rfc("CR-03", "DN-02")
def test_failover_of_branches_waits_until_all_children_have_failed() -> None:
    root = inner(None, Branch.STACKS)
    for _ in range(2):
        stack = inner(root, Branch.ENDPOINTS)
        for _ in range(2):
            leaf(stack)
    race = Race(root, modes={Branch.STACKS: RaceMode.FAILOVER})
    world = World(race, lambda node: (1.0, False))
    assert world.run() is None
    assert world.times() == [(0.0, "1.1.1"), (0.25, "1.1.2"), (1.25, "1.2.1"), (1.5, "1.2.2")]


# -- Trees --


def two_paths() -> Node:
    """Two paths, each with a stack and two addresses."""
    root = inner(None, Branch.PATHS)
    for _ in range(2):
        path = inner(root, Branch.STACKS)
        stack = inner(path, Branch.ENDPOINTS)
        for _ in range(2):
            leaf(stack)
    return root


@pytest.mark.rfc("CR-04", "CT-03", "TT-08")
def test_each_parent_has_its_own_timer() -> None:
    """The first path is dead: its second address starts by one timer, and the second path by
    another, which runs from the last attempt on the first path."""
    delays = {Branch.PATHS: 0.4, Branch.ENDPOINTS: 0.25}
    race = Race(two_paths(), delay=lambda parent, child: delays[parent.branch])  # type: ignore[index]
    world = World(race, lambda node: (0.05, True) if node.number == "1.2.1.1" else (99.0, False))
    winner = world.run()
    assert world.times() == [(0.0, "1.1.1.1"), (0.25, "1.1.1.2"), (0.65, "1.2.1.1")]
    assert winner is not None
    assert winner.number == "1.2.1.1"
    assert world.now == pytest.approx(0.7)


@pytest.mark.rfc("CT-11", "DN-02")
def test_success_and_failure_climb() -> None:
    race = Race(two_paths())
    world = World(race, lambda node: (0.01, node.number == "1.2.1.2"))
    winner = world.run()
    assert winner is not None
    assert winner.number == "1.2.1.2"
    # A path fails when its last address has, and the next one starts at that moment.
    assert world.times() == [
        (0.0, "1.1.1.1"), (0.01, "1.1.1.2"), (0.02, "1.2.1.1"), (0.03, "1.2.1.2"),
    ]  # fmt: skip


def named(*children: int) -> tuple[Node, Node]:
    """A root, and a node below it whose name is not resolved."""
    root = inner(None, Branch.ENDPOINTS)
    return root, inner(root, Branch.ENDPOINTS, "name", unresolved=True)


@pytest.mark.rfc("HE-07", "HE-12", "TT-07")
def test_late_addresses_join_the_untried() -> None:
    root, name = named()
    race = Race(root)
    world = World(
        race,
        lambda node: (9.0, False),
        lambda node: [(0.02, ["192.0.2.1", "192.0.2.2"], False), (0.1, ["2001:db8::1"], True)],
    )
    world.run()
    assert world.asked == [(0.0, name)]
    assert world.times() == [(0.02, "1.1.1"), (0.27, "1.1.2"), (0.52, "1.1.3")]


@pytest.mark.rfc("HE-12")
def test_a_place_decides_where_late_ones_go() -> None:
    root, name = named()
    race = Race(root)
    race.start(0.0)
    first, second = leaf(name), leaf(name)
    race.derived(name, [first, second], 0.0, complete=False)
    late = leaf(name)
    second.place = 2
    late.place = 1
    race.derived(name, [late], 0.1, complete=True)
    assert race.wake(0.25) == [(Verb.ATTEMPT, late)]
    assert race.wake(0.5) == [(Verb.ATTEMPT, second)]


@pytest.mark.rfc("HE-12")
def test_an_address_that_goes_is_dropped_unless_it_has_begun() -> None:
    root, name = named()
    race = Race(root)
    race.start(0.0)
    first, second, third = leaf(name), leaf(name), leaf(name)
    race.derived(name, [first, second, third], 0.0, complete=False)
    race.derived(name, [], 0.1, removed=[first, second], complete=True)
    assert race.wake(0.25) == [(Verb.ATTEMPT, third)]
    race.succeeded(first, 0.3)
    assert race.winner is first


@pytest.mark.rfc("HE-06")
def test_the_last_resort_comes_two_seconds_after_the_last_attempt() -> None:
    root, name = named()
    world = World(
        Race(root),
        lambda node: (9.0, node.index == 4),
        lambda node: [(0.1, ["2001:db8::1", "2001:db8::2", "2001:db8::3"], True)],
        (0.05, ["64:ff9b::1", "64:ff9b::2"]),
    )
    assert world.run() is name.children[3]
    assert [round(when, 6) for when in world.resorted] == [0.1 + 2 * 0.25 + 2.0]
    assert world.times() == [
        (0.1, "1.1.1"), (0.35, "1.1.2"), (0.6, "1.1.3"), (2.65, "1.1.4"), (2.9, "1.1.5"),
    ]  # fmt: skip


@pytest.mark.rfc("HE-06")
@pytest.mark.parametrize("names", [[], ["64:ff9b::1"]])
def test_the_last_resort_comes_at_once_if_all_others_have_failed(names: list[str]) -> None:
    root, _ = named()
    world = World(
        Race(root),
        lambda node: (0.3, False),
        lambda node: [(0.1, ["2001:db8::1", "2001:db8::2"], True)],
        (0.05, names),
    )
    assert world.run() is None
    assert [round(when, 6) for when in world.resorted] == [0.65]
    assert [number for _, number in world.times()] == [
        f"1.1.{n + 1}" for n in range(2 + len(names))
    ]
    assert world.now == pytest.approx(0.7 + 0.3 * len(names))


@pytest.mark.rfc("HE-06")
@pytest.mark.parametrize("mode", RaceMode)
def test_whoever_wins_needs_no_last_resort(mode: RaceMode) -> None:
    root, name = named()
    world = World(
        Race(root, modes={Branch.ENDPOINTS: mode}),
        lambda node: (1.9, node.index == 1),
        lambda node: [(0.0, ["2001:db8::1"], True)],
        (0.0, []),
    )
    assert world.run() is name.children[0]
    assert world.resorted == []


def test_the_last_resort_keeps_no_other_name_waiting() -> None:
    root, _ = named()
    leaf(root, "192.0.2.9")
    world = World(
        Race(root),
        lambda node: (9.0, node.parent is root),
        lambda node: [(0.0, ["2001:db8::1"], True)],
        (0.0, ["64:ff9b::1"]),
    )
    winner = world.run()
    assert winner is root.children[1]
    assert world.times() == [(0.0, "1.1.1"), (0.25, "1.2"), (2.0, "1.1.2")]


def test_after_the_last_known_one_failed_the_rest_of_the_answers_counts() -> None:
    root, name = named()
    race = Race(root)
    world = World(
        race,
        lambda node: (0.01, node.index == 2),
        lambda node: [(0.0, ["192.0.2.1"], False), (3.0, ["2001:db8::1"], True)],
    )
    winner = world.run()
    assert winner is name.children[1]
    assert world.times() == [(0.0, "1.1.1"), (3.0, "1.1.2")]


@pytest.mark.parametrize("before", [[], ["192.0.2.1"]])
def test_a_name_without_more_addresses_ends(before: list[str]) -> None:
    root, _ = named()
    world = World(
        Race(root),
        lambda node: (0.01, False),
        lambda node: [(0.0, before, False), (1.0, [], True)],
    )
    assert world.run() is None
    assert world.now == 1.0


def test_a_failed_look_up_goes_on_to_the_next_name() -> None:
    root, first = named()
    second = inner(root, Branch.ENDPOINTS, "other", unresolved=True)
    world = World(
        Race(root),
        lambda node: (0.01, True),
        lambda node: [(0.3, [] if node is first else ["192.0.2.1"], True)],
    )
    winner = world.run()
    assert winner is not None
    assert winner.parent is second
    assert world.asked == [(0.0, first), (0.3, second)]


@pytest.mark.rfc("CR-06", "CR-07")
def test_a_branch_that_prepares_gets_its_delay_afterwards_but_not_for_ever() -> None:
    """The path's delay runs from its first attempt on; names may take until the bound."""

    def path_times(resolution: float) -> list[tuple[float, str]]:
        root = inner(None, Branch.PATHS)
        for _ in range(2):
            path = inner(root, Branch.STACKS)
            stack = inner(path, Branch.ENDPOINTS)
            inner(stack, Branch.ENDPOINTS, "name", unresolved=True)
        world = World(
            Race(root),
            lambda node: (9.0, node.number.startswith("1.2")),
            lambda node: [(resolution, ["192.0.2.1"], True)],
        )
        world.run()
        return [(round(when, 6), node.number) for when, node in world.asked]

    assert path_times(0.5) == [(0.0, "1.1.1.1"), (0.75, "1.2.1.1")]
    assert path_times(60.0) == [(0.0, "1.1.1.1"), (PREPARATION, "1.2.1.1")]


@pytest.mark.rfc("CR-06", "CR-07", "CR-08")
def test_a_branch_with_many_addresses_holds_its_sibling_back_but_not_for_ever() -> None:
    root = inner(None, Branch.PATHS)
    for count in (20, 1):
        stack = inner(inner(root, Branch.STACKS), Branch.ENDPOINTS)
        for _ in range(count):
            leaf(stack)
    world = World(Race(root), lambda node: (99.0, node.number == "1.2.1.1"))
    world.run()
    assert {number: when for when, number in world.times()}["1.2.1.1"] == PREPARATION


@pytest.mark.rfc("CT-07")
def test_each_target_of_a_service_is_a_branch() -> None:
    root, name = named()
    race = Race(root)
    world = World(race, lambda node: (99.0, False))
    world.obey(race.start(0.0))
    one = inner(name, Branch.ENDPOINTS, "target 1")
    two = inner(name, Branch.ENDPOINTS, "target 2")
    world.obey(race.derived(name, [leaf(one), leaf(two)], 0.0, complete=False))
    assert world.times() == [(0.0, "1.1.1.1")]
    world.now = 0.1
    world.obey(race.derived(name, [leaf(one), leaf(two)], 0.1, complete=True))
    for _ in range(3):
        assert race.wake_at is not None
        world.now = race.wake_at
        world.obey(race.wake(world.now))
    assert world.times() == [
        (0.0, "1.1.1.1"), (0.25, "1.1.1.2"), (0.5, "1.1.2.1"), (0.75, "1.1.2.2"),
    ]  # fmt: skip
    for child in (one, two):
        for attempt in child.children:
            race.failed(attempt, 1.0)
    assert race.over


def test_groups_end_with_their_name() -> None:
    """One target has failed before the answers were complete: nothing waits for it after."""
    root, name = named()
    race = Race(root)
    race.start(0.0)
    group = inner(name, Branch.ENDPOINTS, "target 1")
    only = leaf(group)
    race.derived(name, [only], 0.0, complete=False)
    assert race.failed(only, 0.1) == []
    assert not race.over
    assert race.failed(name, 0.2, OSError("the rest is lost")) == []
    assert race.over


@pytest.mark.rfc("HE-06")
def test_the_last_resort_is_waited_for_when_all_targets_have_failed_before() -> None:
    root, name = named()
    race = Race(root)
    race.start(0.0)
    group = inner(name, Branch.ENDPOINTS, "target 1")
    only = leaf(group)
    race.derived(name, [only], 0.0, complete=False)
    race.failed(only, 0.1)
    orders = race.derived(name, [], 0.2, complete=True, last_resort=True)
    assert [(order.verb, order.node) for order in orders] == [(Verb.RESORT, name)]
    assert not race.over
    late = leaf(name, "64:ff9b::1")
    orders = race.derived(name, [late], 0.3, complete=True)
    assert [(order.verb, order.node) for order in orders] == [(Verb.ATTEMPT, late)]
    race.succeeded(late, 0.4)
    assert race.winner is late


# -- Delays --


@pytest.mark.rfc("AE-01", "AE-03")
def test_branches_that_join_go_behind_the_others() -> None:
    root = flat(2)
    race = Race(root)
    first, second = root.children
    assert race.join([leaf(root, "early")], 0.0) == []  # `start` finds it
    assert race.start(0.0) == [Order(Verb.ATTEMPT, first)]
    late, cut = leaf(root, "late"), leaf(root, "cut", cut="no")
    assert race.join([late, cut], 0.1) == []
    assert race.wake_at == ATTEMPT_DELAY
    assert race.wake(ATTEMPT_DELAY) == [Order(Verb.ATTEMPT, second)]
    (order,) = race.failed(second, 0.3)
    assert order.node.what == "early"
    assert race.failed(order.node, 0.3) == [Order(Verb.ATTEMPT, late)]
    assert race.failed(late, 0.4) == []
    again = leaf(root, "again")
    assert race.join([again], 0.5) == []  # one still runs
    assert race.wake_at is not None
    assert race.failed(first, 0.6) == [Order(Verb.ATTEMPT, again)]
    assert race.failed(again, 0.7) == []
    assert race.over
    assert race.join([leaf(root, "too late")], 0.8) == []


@pytest.mark.rfc("HE-03", "HE-04", "HE-05", "HE-11", "CR-06", "CR-09")
def test_the_bounds_of_delays() -> None:
    policy = SystemPolicy()
    for branch in Branch:
        assert policy.delay(branch) == 0.25
    assert policy.delay(Branch.ENDPOINTS, 0.001) == 0.1
    assert policy.delay(Branch.ENDPOINTS, 0.4) == 0.4
    assert policy.delay(Branch.ENDPOINTS, 30.0) == 2.0
    with pytest.raises(ValueError, match=r"0\.01"):
        SystemPolicy(minimum_delay=0.009)
    with pytest.raises(ValueError, match=r"0\.01"):
        SystemPolicy(address_delay=0.0)


def test_which_child_a_delay_is_asked_for() -> None:
    """The delay until the next one is that of the child that was started last."""
    root = flat(3)
    race = Race(root, delay=lambda parent, child: child.index / 10)
    world = World(race, lambda node: (9.0, False))
    world.run()
    assert world.times()[:3] == [(0.0, "1.1"), (0.1, "1.2"), (0.3, "1.3")]


# -- Any tree --

worlds = st.recursive(
    st.tuples(st.integers(0, 40).map(lambda n: n / 16), st.booleans()),
    lambda children: st.lists(children, max_size=4),
    max_leaves=12,
)


def plant(parent: Node | None, shape: Any, ends: dict[Node, tuple[float, bool]]) -> None:
    if isinstance(shape, tuple):
        assert parent is not None
        ends[leaf(parent)] = shape
        return
    branch = [Branch.PATHS, Branch.STACKS, Branch.ENDPOINTS][min(parent is not None, 2)]
    node = inner(parent, branch)
    for child in shape:
        plant(node, child, ends)


@pytest.mark.rfc("DN-02", "DN-03", "CT-11")
@given(worlds, st.fixed_dictionaries(dict.fromkeys(Branch, st.sampled_from(RaceMode))))
def test_any_tree_in_any_mode(shape: Any, modes: dict[Branch, RaceMode]) -> None:
    """Every race ends; it is won if any leaf can succeed; nothing starts twice, and nothing after
    the end."""
    ends: dict[Node, tuple[float, bool]] = {}
    root = inner(None, Branch.PATHS)
    plant(root, shape, ends)
    race = Race(root, modes=modes)
    world = World(race, lambda node: ends[node])
    winner = world.run()
    started = [node for _, node in world.starts]
    assert len(set(started)) == len(started)
    assert (winner is not None) is any(good for _, good in ends.values())
    if winner is None:
        assert set(started) == set(ends)
    else:
        assert ends[winner][1]
        ended = {m.node for m in race.story if m.what in ("failed", "won", "stopped")}
        assert set(started) <= ended
    assert race.wake_at is None
    assert race.wake(world.now + 100) == []


moments = st.integers(0, 60).map(lambda n: n / 16)
addresses = st.lists(st.sampled_from(["", "1/", "2/"]), max_size=3)
names = st.lists(st.tuples(moments, addresses), min_size=1, max_size=4)


@given(
    st.lists(names, min_size=1, max_size=3),
    st.none() | st.tuples(moments, st.integers(0, 2)),
    st.lists(st.tuples(moments, st.booleans()), min_size=1, max_size=8),
    st.fixed_dictionaries(dict.fromkeys(Branch, st.sampled_from(RaceMode))),
)
def test_any_names_in_any_mode(
    answers: list[list[tuple[float, list[str]]]],
    last: tuple[float, int] | None,
    fates: list[tuple[float, bool]],
    modes: dict[Branch, RaceMode],
) -> None:
    """The same where addresses come bit by bit, in the targets of services, and as a last resort:
    each one that has come is tried, unless another one has won."""
    root = inner(None, Branch.ENDPOINTS)
    heard: dict[Node, list[tuple[float, list[str], bool]]] = {}
    for said in answers:
        name = inner(root, Branch.ENDPOINTS, unresolved=True)
        times = sorted(when for when, _ in said)
        heard[name] = [
            (when, [f"{group}192.0.2.{n}" for n, group in enumerate(groups)], place == len(said))
            for place, (when, (_, groups)) in enumerate(zip(times, said, strict=True), 1)
        ]
    race = Race(root, modes=modes)
    world = World(
        race,
        lambda node: fates[sum(map(ord, node.number)) % len(fates)],
        heard.__getitem__,
        last and (last[0], [f"64:ff9b::{n}" for n in range(last[1])]),
    )
    winner = world.run()
    started = [node for _, node in world.starts]
    assert len(set(started)) == len(started)
    leaves = [node for node in root.walk() if node.candidate is not None]
    if winner is None:
        assert world.coming == []
        assert set(started) == set(leaves)
        assert not any(world.ends(node)[1] for node in leaves)
    else:
        assert world.ends(winner)[1]
