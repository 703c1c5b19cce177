"""What the answers about one name allow to be tried, and when (RFC 8305 sections 3 and 6).  Pure.

`Answers` is told the time, what was answered and what failed, and says which questions to ask,
which addresses may be used from now on, and when to look again.  It knows no resolver, no greenlet
and no clock, so its 50 milliseconds are tested to the exact moment.

A name is one *branch* with addresses below it.  If its service has records of its own (SRV, SVCB,
HTTPS), these name several *targets*, each of which is a branch (RFC 9623 section 4.1.1.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

__all__ = [
    "AAAA",
    "MAX_ADDRESSES",
    "MAX_TARGETS",
    "RESOLUTION_DELAY",
    "SERVICE",
    "A",
    "Answers",
    "Found",
    "Question",
    "Release",
    "Target",
]

# RFC 8305 section 8: how long an A record waits for the AAAA record.
RESOLUTION_DELAY = 0.05  # seconds
# What a name server can make us hold and try (RFC 9623 section 12.2 asks for a bound).
MAX_ADDRESSES = 64  # of one name
MAX_TARGETS = 8  # of one service

AAAA = "AAAA"
A = "A"
SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Target:
    """A host of a service, and the port there.

    *group* is its number from 1 on, 0 for the name itself.  *hints* are addresses to use until the
    name's own are known (RFC 9460 section 7.3).  *origin* says what record it is from.
    """

    name: str
    port: int
    group: int = 0
    alpn: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask: the *kind* is `AAAA`, `A` or `SERVICE`."""

    kind: str
    target: Target


@dataclass(frozen=True, slots=True)
class Found:
    """An address (text), of which target, and by which kind of question."""

    address: str
    target: Target
    kind: str


@dataclass(frozen=True, slots=True)
class Release:
    """What is new: addresses to use, and addresses to use no more.  *complete* says that nothing
    will follow."""

    added: tuple[Found, ...]
    removed: tuple[Found, ...]
    complete: bool


@dataclass(slots=True)
class _Half:
    """What is known of one family of one branch."""

    kind: str
    limit: int
    settled: bool = False
    at: float = 0.0  # when the addresses came, or when it was known that there are none
    addresses: tuple[str, ...] = ()

    def tell(self, addresses: Iterable[str], now: float) -> None:
        # A dict keeps the order, and an address that is there twice counts once.
        found: dict[str, None] = {}
        for address in addresses:
            if len(found) == self.limit:
                break
            found[address] = None
        if not self.addresses or not found:
            self.at = now
        self.addresses = tuple(found)


class _Branch:
    """A target, and the addresses below it."""

    def __init__(self, target: Target, kinds: Sequence[str], now: float) -> None:
        self.target = target
        # Neither family can crowd the other out.
        limit = MAX_ADDRESSES // len(kinds)
        self.halves = {kind: _Half(kind, limit) for kind in kinds}
        self.released: dict[str, Found] = {}
        self.opened = False
        for kind, half in self.halves.items():
            half.tell((hint for hint in target.hints if (":" in hint) is (kind == AAAA)), now)

    @property
    def settled(self) -> bool:
        return all(half.settled for half in self.halves.values())

    def ready_at(self) -> float | None:
        """From when on its addresses may be used; None if there are none (RFC 8305 section 3)."""
        v6, v4 = self.halves.get(AAAA), self.halves.get(A)
        if v6 is not None and v6.addresses:
            return v6.at
        if v4 is None or not v4.addresses:
            return None
        if v6 is None:
            return v4.at
        if v6.settled:
            return max(min(v6.at, v4.at + RESOLUTION_DELAY), v4.at)
        return v4.at + RESOLUTION_DELAY

    def began(self) -> float:
        """When its first addresses came, if there are any."""
        return min(half.at for half in self.halves.values() if half.addresses)

    def update(self) -> tuple[list[Found], list[Found]]:
        """What was added to the released addresses, and what removed."""
        stands: dict[str, Found] = {}
        for kind, half in self.halves.items():
            for address in half.addresses:
                stands.setdefault(address, Found(address, self.target, kind))
        added = [found for address, found in stands.items() if address not in self.released]
        removed = [found for address, found in self.released.items() if address not in stands]
        self.released = stands
        return added, removed


@dataclass(slots=True)
class _Service:
    """The question for a service's own records.  If it is *decisive*, nothing is used before it
    is answered; else its answer is waited for as that of an AAAA question is."""

    decisive: bool
    settled: bool = False
    branches: list[_Branch] = field(default_factory=list)


class Answers:
    """All that is known of one Remote Endpoint's name.

    *base* is the name itself; *kinds* are the address families to ask for, `AAAA` before `A`.
    *service* is None if no records of a service are asked for, else whether they are decisive:
    an SRV record replaces the name's own addresses (RFC 2782), an HTTPS record only goes before
    them (RFC 9460 section 3).

    Each question of `ask` is to be followed by `tell`, `tell_targets` or `fail`, and then by
    `take`.
    """

    def __init__(self, base: Target, kinds: Sequence[str], service: bool | None = None) -> None:
        self._kinds = tuple(kind for kind in (AAAA, A) if kind in kinds)
        if not self._kinds:
            raise ValueError("there is no address family to ask for")
        self._base = _Branch(base, self._kinds, 0.0)
        self._service = None if service is None else _Service(service)
        self._unasked = [Question(kind, base) for kind in self._kinds]
        if self._service is not None:
            self._unasked.insert(0, Question(SERVICE, base))
        self._complete = False
        self._refusal: Exception | None = None
        self._errors: list[Exception] = []

    # -- Told --

    def ask(self) -> list[Question]:
        """The questions that are to be asked now, all at once and in this order: AAAA before A
        (RFC 8305 section 3)."""
        asked, self._unasked = self._unasked, []
        return asked

    def tell(self, question: Question, addresses: Iterable[str], now: float) -> None:
        """The answer to a question for addresses; none if the name has none of this family."""
        half = self._branch(question.target).halves[question.kind]
        half.settled = True
        half.tell(addresses, now)

    def tell_targets(self, targets: Sequence[Target], now: float) -> None:
        """The answer to the question for a service: its targets, best first; none if it has no
        records."""
        service = self._service
        if service is None:
            raise ValueError("no service was asked for")
        service.settled = True
        service.branches = [
            _Branch(replace(target, group=number), self._kinds, now)
            for number, target in enumerate(targets[:MAX_TARGETS], 1)
        ]
        self._unasked = [
            Question(kind, branch.target) for branch in service.branches for kind in self._kinds
        ]

    def refuse(self, error: Exception) -> None:
        """The service is decidedly not available there (RFC 2782: the target is the root)."""
        self._refusal = error

    def fail(
        self, question: Question, error: Exception, now: float, *, certain: bool = False
    ) -> None:
        """A question has no answer; or one, if that is *certain*, that there is nothing."""
        self._errors.append(error)
        if question.kind == SERVICE:
            self.tell_targets((), now)
            return
        half = self._branch(question.target).halves[question.kind]
        # Hints are better than nothing, but not if the name has nothing.
        if certain or not half.addresses:
            half.tell((), now)
        half.settled = True

    def _branch(self, target: Target) -> _Branch:
        service = self._service
        if target.group and service is not None:
            return service.branches[target.group - 1]
        return self._base

    # -- Asked --

    @property
    def base(self) -> Target:
        """The name itself."""
        return self._base.target

    @property
    def errors(self) -> tuple[Exception, ...]:
        """Why there are no addresses, if there are none."""
        return (self._refusal,) if self._refusal is not None else tuple(self._errors)

    def order(self) -> list[Target]:
        """The targets in the order in which to try them."""
        return [branch.target for branch in self._order()]

    def _order(self) -> list[_Branch]:
        service = self._service
        if service is None or not service.branches:
            return [self._base]
        return service.branches if service.decisive else [*service.branches, self._base]

    @property
    def _finished(self) -> bool:
        if self._refusal is not None:
            return True
        if self._service is not None and not self._service.settled:
            return False
        return all(branch.settled for branch in self._order())

    def _openings(self) -> list[tuple[_Branch, float]]:
        """The branches that are not open yet although they have addresses, and when each may be.

        A target does not overtake a better one that is still being asked for, for as long as an
        A record waits for the AAAA record.
        """
        service = self._service
        waits = service is not None and not service.settled
        if self._refusal is not None or (service is not None and service.decisive and waits):
            return []
        found = []
        for branch in self._order():
            if branch.opened:
                continue
            ready = branch.ready_at()
            if ready is not None:
                found.append((branch, max(ready, branch.began() + RESOLUTION_DELAY * waits)))
            waits = waits or ready is not None or not branch.settled
        return found

    def take(self, now: float) -> Release | None:
        """What may be used since the last time; None if there is nothing new."""
        if self._complete:
            return None
        while due := [branch for branch, at in self._openings() if now >= at]:
            for branch in due:
                branch.opened = True
        added: list[Found] = []
        removed: list[Found] = []
        if self._refusal is None:
            for branch in self._order():
                if branch.opened:
                    more, less = branch.update()
                    added += more
                    removed += less
        self._complete = self._finished
        if not (added or removed or self._complete):
            return None
        return Release(tuple(added), tuple(removed), self._complete)

    @property
    def wake_at(self) -> float | None:
        """When to `take` again even if nothing is told; None if only answers count."""
        if self._complete:
            return None
        return min((at for _, at in self._openings()), default=None)
