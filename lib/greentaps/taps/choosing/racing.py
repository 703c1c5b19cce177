"""The race over a candidate tree: what to start, and when (RFC 9623 section 4.3, RFC 8305).  Pure.

A `Race` is told the time and what happened, and answers with orders.  It knows neither sockets nor
greenlets nor clocks, so a race of a minute is tested in no time and to the exact moment.

Each inner node of the tree runs its own children, and its timer is its own (RFC 9623 section 4.3).
Success and failure climb: the first leaf to succeed makes the root ready, and a node has failed
when all its children have (section 4.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from .candidates import Node
from .policy import ATTEMPT_DELAY, MAXIMUM_ATTEMPT_DELAY, Branch, RaceMode

__all__ = ["Moment", "Order", "Race", "RaceMode", "Verb"]

# RFC 8305 section 8: how long the last attempt has before other addresses are looked for.
LAST_RESORT = 2.0  # seconds

# A branch may resolve its names, and try one address after the other, before its sibling starts;
# but not for longer than this (RFC 9623 section 4.3.2 asks for a bound).
PREPARATION = MAXIMUM_ATTEMPT_DELAY


class Verb(Enum):
    """What the driver of a race is told to do with a node."""

    ATTEMPT = "attempt"  # to connect: a leaf
    DERIVE = "derive"  # its endpoints: an inner node whose name was not resolved
    RESORT = "resort"  # to derive, once more, what is only there as the last resort
    CANCEL = "cancel"  # what was begun


class Order(NamedTuple):
    """One thing to do."""

    verb: Verb
    node: Node


class Moment(NamedTuple):
    """One line of the story of a race: at *time* (seconds of the caller's clock) *node* was
    ``"begun"``, ``"derived"``, ``"failed"`` (with the *error*), ``"won"`` or ``"stopped"``."""

    time: float
    node: Node
    what: str
    error: BaseException | None = None


Delay = Callable[[Node, Node], float]


def _standard_delay(parent: Node, child: Node) -> float:
    return ATTEMPT_DELAY


def _depth(node: Node) -> int:
    return 0 if node.parent is None else 1 + _depth(node.parent)


def _place(node: Node) -> int:
    return node.place


class _Runs:
    """An inner node that has begun: which of its children wait, and which run."""

    __slots__ = ("latest", "latest_at", "open", "resort", "running", "since", "waiting")

    def __init__(self, waiting: list[Node], *, open_: bool) -> None:
        self.waiting = waiting
        self.running: set[Node] = set()
        self.open = open_  # more children may come
        self.resort = False  # they may, as the last resort
        self.latest: Node | None = None  # the child that was started last
        self.since = 0.0  # when it was
        self.latest_at: float | None = None  # when it, or a leaf below it, was last attempted


class Race:
    """A race over the tree of *root*.

    *modes* (a dict from `Branch` to `RaceMode`) says how the children of each kind of branch are
    run, staggered where it is silent.  *delay* (a function of the parent and of the child that was
    started last, returning seconds) says how long the next child waits.
    """

    def __init__(
        self,
        root: Node,
        *,
        modes: Mapping[Branch, RaceMode] | None = None,
        delay: Delay = _standard_delay,
    ) -> None:
        self.root = root
        self.winner: Node | None = None
        self.story: list[Moment] = []
        self._modes = modes or {}
        self._delay = delay
        self._inner: dict[Node, _Runs] = {}
        self._begun: dict[Node, None] = {}  # leaves under way, and nodes being derived, in order
        self._timers: dict[Node, float] = {}
        self._exhausted = False

    @property
    def over(self) -> bool:
        """Whether nothing more will happen: won, or every candidate has failed."""
        return self._exhausted or self.winner is not None

    @property
    def all_begun(self) -> bool:
        """Whether every candidate there will ever be has begun."""
        return not any(runs.waiting or runs.open for runs in self._inner.values())

    @property
    def wake_at(self) -> float | None:
        """When `wake` is to be called; None if only events count."""
        return min(self._timers.values(), default=None)

    def start(self, now: float) -> list[Order]:
        """Begin.  Returns what to do."""
        orders: list[Order] = []
        self._begin(self.root, now, orders)
        return orders

    def wake(self, now: float) -> list[Order]:
        """The time is *now*.  Returns what to do."""
        orders: list[Order] = []
        due = [(time, -_depth(node), node) for node, time in self._timers.items() if time <= now]
        for time, _, node in sorted(due, key=lambda item: item[:2]):
            if self._timers.get(node) == time:  # else what began below has put it off
                self._next(node, now, orders)
        return orders

    def join(self, added: Iterable[Node], now: float) -> list[Order]:
        """The root has got the branches *added*, which are tried behind those that wait.  Returns
        what to do."""
        orders: list[Order] = []
        if self.root in self._inner and not self.over:  # else `start` finds them, or it is too late
            new = [node for node in added if not node.cut]
            self._grow(self.root, new, set(), now, orders, complete=False)
        return orders

    def failed(self, node: Node, now: float, error: BaseException | None = None) -> list[Order]:
        """The attempt, or the derivation, of *node* has failed.  Returns what to do: the next
        child of its parent need not wait any longer (RFC 8305 section 5)."""
        orders: list[Order] = []
        if node not in self._begun:
            return orders
        del self._begun[node]
        runs = self._inner.get(node)
        if runs is None:
            self._fail(node, now, error, orders)
        else:
            self._note(now, node, "failed", error)
            self._grow_all(node, {}, set(), now, orders, complete=True)
        return orders

    def derived(
        self,
        node: Node,
        added: Iterable[Node],
        now: float,
        *,
        removed: Iterable[Node] = (),
        complete: bool,
        last_resort: bool = False,
    ) -> list[Order]:
        """*node* has got the children *added*; those *removed* are none any more, but go on if
        they have begun (RFC 8305 section 6).  With *complete* there will be no further ones; but
        for those of the *last_resort*, which is to be ordered when all others have failed, or 2 s
        after the last of them has begun (RFC 8305 section 7.2).  Returns what to do."""
        orders: list[Order] = []
        if node not in self._begun:
            return orders
        if complete:
            del self._begun[node]
        self._note(now, node, "derived")
        self._inner[node].resort = last_resort
        gone = set(removed)
        new: dict[Node, list[Node]] = {node: []}
        for child in added:
            group = child.parent
            assert group is not None
            if group is not node and group not in self._inner:
                if group not in new[node] and group not in self._inner[node].waiting:
                    new[node].append(group)
            elif not child.cut:
                new.setdefault(group, []).append(child)
        self._grow_all(node, new, gone, now, orders, complete=complete)
        return orders

    def _grow_all(
        self,
        node: Node,
        new: Mapping[Node, list[Node]],
        gone: set[Node],
        now: float,
        orders: list[Order],
        *,
        complete: bool,
    ) -> None:
        """More children for *node* and for the groups below it."""
        groups = [child for child in node.children if child in self._inner and child.branch]
        for parent in (*groups, node):
            self._grow(parent, new.get(parent, []), gone, now, orders, complete=complete)

    def _grow(
        self,
        node: Node,
        added: list[Node],
        gone: set[Node],
        now: float,
        orders: list[Order],
        *,
        complete: bool,
    ) -> None:
        """More children for one node; it may have failed, or may go on, because of that."""
        runs = self._inner[node]
        if complete:
            # The end of its groups may have had the last resort ordered already.
            runs.open = runs.resort or node in self._begun
        untried = [child for child in runs.waiting if child not in gone]
        runs.waiting = sorted([*untried, *added], key=_place)
        if not runs.waiting and not runs.resort:
            self._timers.pop(node, None)
            if not runs.running and not runs.open and not self.over:
                self._fail(node, now, None, orders)
        elif not runs.running or self._mode(node) is RaceMode.SIMULTANEOUS:
            self._next(node, now, orders)
        elif node not in self._timers:
            self._set_timer(node, runs, now)

    def succeeded(self, node: Node, now: float) -> list[Order]:
        """The leaf *node* has won.  Returns what to cancel; nothing is started any more."""
        if self.over or node not in self._begun:
            return []
        del self._begun[node]
        self.winner = node
        self._note(now, node, "won")
        return self._stop(now)

    def give_up(self, now: float) -> list[Order]:
        """Whoever waited does not any more.  Returns what to cancel."""
        self._exhausted = True
        return self._stop(now)

    def _stop(self, now: float) -> list[Order]:
        self._timers.clear()
        begun, self._begun = self._begun, {}
        for node in begun:
            self._note(now, node, "stopped")
        return [Order(Verb.CANCEL, node) for node in begun]

    def _mode(self, node: Node) -> RaceMode:
        branch = node.branch
        if branch is None or not self._modes:
            return RaceMode.STAGGERED
        return self._modes.get(branch, RaceMode.STAGGERED)

    def _begin(self, node: Node, now: float, orders: list[Order]) -> None:
        if node.branch is None:
            self._begun[node] = None
            self._note(now, node, "begun")
            orders.append(Order(Verb.ATTEMPT, node))
            self._attempted(node, now)
            return
        unresolved = node.unresolved
        waiting = [child for child in node.children if not child.cut]
        # The addresses of a group come with those of the name that it belongs to.
        self._inner[node] = _Runs(waiting, open_=unresolved or node.parent in self._begun)
        if unresolved:
            self._begun[node] = None
            self._note(now, node, "begun")
            orders.append(Order(Verb.DERIVE, node))
        elif waiting:
            self._next(node, now, orders)
        elif not self._inner[node].open:
            self._fail(node, now, None, orders)

    def _attempted(self, leaf: Node, now: float) -> None:
        """A branch gets on: the siblings of those that *leaf* belongs to wait from now on."""
        child = leaf
        parent = leaf.parent
        while parent is not None:
            runs = self._inner.get(parent)
            if runs is not None and runs.latest is child:
                runs.latest_at = now
                if parent in self._timers:
                    self._set_timer(parent, runs, now)
            child, parent = parent, parent.parent

    def _next(self, node: Node, now: float, orders: list[Order]) -> None:
        """Start the next child of *node*; all of them in simultaneous mode."""
        runs = self._inner[node]
        mode = self._mode(node)
        self._timers.pop(node, None)
        if runs.resort and not runs.waiting and not self.over:
            runs.resort = False
            self._begun[node] = None
            orders.append(Order(Verb.RESORT, node))
        while runs.waiting and not self.over:
            child = runs.waiting.pop(0)
            runs.running.add(child)
            runs.latest, runs.latest_at, runs.since = child, None, now
            if (runs.waiting or runs.resort) and mode is RaceMode.STAGGERED:
                self._set_timer(node, runs, now)
            self._begin(child, now, orders)
            if mode is not RaceMode.SIMULTANEOUS:
                return

    def _set_timer(self, node: Node, runs: _Runs, now: float) -> None:
        if self._mode(node) is not RaceMode.STAGGERED or runs.latest is None:
            return
        if not runs.waiting:
            self._timers[node] = max(now, runs.since + LAST_RESORT)
            return
        bound = runs.since + PREPARATION
        if runs.latest_at is None:
            self._timers[node] = max(now, bound)
            return
        time = runs.latest_at + self._delay(node, runs.latest)
        if runs.latest.branch is not None:
            time = min(time, bound)
        self._timers[node] = max(now, time)

    def _fail(
        self, node: Node, now: float, error: BaseException | None, orders: list[Order]
    ) -> None:
        if error is not None:
            self._note(now, node, "failed", error)
        parent = node.parent
        if parent is None or node is self.root:
            self._exhausted = True
            self._timers.clear()
            return
        runs = self._inner[parent]
        runs.running.discard(node)
        if runs.waiting or (runs.resort and not runs.running):
            self._next(parent, now, orders)
        elif not runs.running and not runs.open:
            self._fail(parent, now, None, orders)

    def _note(self, now: float, node: Node, what: str, error: BaseException | None = None) -> None:
        self.story.append(Moment(now, node, what, error))
