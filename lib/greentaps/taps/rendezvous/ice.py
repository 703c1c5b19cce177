"""Which pairs of addresses are tried in a rendezvous, in which order, and what makes one usable.

Pure: candidates, the checklist and the election are told ``now``, the bytes and what happened to
sockets, and answer what to send, to connect and to drop.  The rules are those of ICE (RFC 8445)
with one stream and one component; RFC 8421 orders families and interfaces, RFC 6544 is where those
for TCP come from.

A peer that we have credentials of is *keyed*: nothing counts that is not signed with them.  A peer
that was given as a mere address is not; then only its address speaks for it, and over UDP its first
datagram will do, so that it need not know STUN.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from math import inf
from typing import Any

from .stun import KEEPALIVE, RTO, Transaction, codec, encode, looks_like_stun, parse

__all__ = [
    "ANSWER_TIME",
    "MAX_PAIRS",
    "PATIENCE",
    "TA",
    "Agent",
    "Credentials",
    "Election",
    "Facts",
    "Link",
    "Punch",
    "candidate_priority",
    "controls",
    "in_fair_order",
    "pair_priority",
    "read_candidate",
    "write_candidate",
]

Address = tuple[str, int]

MAX_PAIRS = 100  # RFC 8445 section 6.1.2.5
TA = 0.05  # seconds from one check to the next: RFC 8445 section 14.2
# 7 requests whose wait doubles, and 16 RTO at last: RFC 8489 section 6.2.1.
PATIENCE = 39.5  # seconds
MAX_REFLEXIVE = 16  # remote candidates that nobody has signalled, but a signed check has shown

_TYPE_PREFERENCES = {
    "host": 126,
    "prflx": 110,
    "srflx": 100,
    "relay": 0,
}  # RFC 8445 section 5.1.2.2


def candidate_priority(kind: str, preference: int, component: int = 1) -> int:
    """RFC 8445 section 5.1.2.1.  *preference* is from 0 to 65535."""
    return (_TYPE_PREFERENCES[kind] << 24) + (preference << 8) + (256 - component)


def pair_priority(controlling: int, controlled: int) -> int:
    """RFC 8445 section 6.1.2.3, from the priorities of the two candidates."""
    low, high = sorted((controlling, controlled))
    return (low << 32) + 2 * high + (controlling > controlled)


def in_fair_order(bases: Sequence[tuple[str, Any]]) -> list[int]:
    """The indexes of *bases*, which are (address, interface) pairs, so that no family and no
    interface has to wait for all others (RFC 8421 section 4): interfaces in turn, IPv6 first, and
    families alternating."""
    queues: dict[tuple[bool, Any], deque[int]] = {}
    for index, (address, interface) in enumerate(bases):
        queues.setdefault((":" in address, interface), deque()).append(index)
    interfaces = list(dict.fromkeys(interface for _, interface in bases))
    turns = [
        queues[family, interface]
        for interface in interfaces
        for family in (True, False)
        if (family, interface) in queues
    ]
    order = []
    while turns:
        order += [queue.popleft() for queue in turns]
        turns = [queue for queue in turns if queue]
    return order


# -- What is signalled --


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the checks of one side are signed with: a name and a secret (RFC 8445 section 5.3)."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a resolved Endpoint says beside its address and port: *kind* is ``host``, ``srflx``,
    ``prflx`` or ``relay``; *related* is the address behind it, where that is another one."""

    kind: str
    priority: int
    foundation: str
    related: Address | None = None
    credentials: Credentials | None = None


_TOKEN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_LONGEST = 1024  # characters of a candidate's line


def write_candidate(transport: str, address: Address, facts: Facts) -> str:
    """One line in the grammar of RFC 8839 section 5.1, with ``ufrag`` and ``pwd`` as extensions."""
    words = [
        f"candidate:{facts.foundation}",
        "1",
        transport.upper(),
        str(facts.priority),
        address[0],
        str(address[1]),
        "typ",
        facts.kind,
    ]
    if facts.related is not None:
        words += ["raddr", facts.related[0], "rport", str(facts.related[1])]
    if transport == "tcp":
        words += ["tcptype", "so"]  # RFC 6544: simultaneous open
    if facts.credentials is not None:
        words += ["ufrag", facts.credentials.name, "pwd", facts.credentials.password]
    return " ".join(words)


def read_candidate(line: str) -> tuple[str, Address, Facts]:
    """Undo `write_candidate`; ``a=`` in front is taken, and unknown extensions are left out.
    Raises ValueError."""
    words = line.strip().removeprefix("a=").split()
    shown = " ".join(words[:8])  # what comes behind may be a secret
    if len(line) > _LONGEST or len(words) < 8 or not words[0].startswith("candidate:"):
        raise ValueError(f"not the line of a candidate: {shown[:_LONGEST]!r}")
    foundation, component, transport, priority, host, port, typ, kind = words[:8]
    foundation = foundation.removeprefix("candidate:")
    extra = dict(zip(words[8::2], words[9::2], strict=False))
    if not (1 <= len(foundation) <= 32 and set(foundation) <= _TOKEN):
        raise ValueError(f"not a foundation: {foundation!r}")
    if component != "1" or typ != "typ" or kind not in _TYPE_PREFERENCES or len(words) % 2:
        raise ValueError(f"not a candidate of the first component: {shown!r}")
    if transport.lower() not in ("udp", "tcp"):
        raise ValueError(f"not a transport of candidates: {transport!r}")
    related = None
    if "raddr" in extra and "rport" in extra:
        related = (str(ip_address(extra["raddr"])), _number(extra["rport"], 65535))
    credentials = None
    if "ufrag" in extra or "pwd" in extra:
        credentials = read_credentials(extra.get("ufrag", ""), extra.get("pwd", ""))
    facts = Facts(kind, _number(priority, 2**31 - 1), foundation, related, credentials)
    address = (str(ip_address(host)), _number(port, 65535))
    return transport.lower(), address, facts


def read_credentials(name: str, password: str) -> Credentials:
    """Credentials of the lengths that RFC 8839 section 5.4 asks for.  Raises ValueError."""
    if not (4 <= len(name) <= 256 and set(name) <= _TOKEN):
        raise ValueError("the name (ufrag) of a peer has 4 to 256 letters and digits")
    if not (22 <= len(password) <= 256 and set(password) <= _TOKEN):
        raise ValueError("the password (pwd) of a peer has 22 to 256 letters and digits")
    return Credentials(name, password)


def _number(text: str, largest: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= largest):
        raise ValueError(f"not a number up to {largest}: {text!r}")
    return int(text)


def controls(
    ours: Credentials | None,
    theirs: Credentials | None,
    our_addresses: Iterable[Address],
    their_addresses: Iterable[Address],
) -> bool:
    """Whether we are the controlling side: the one that chooses the pair, and that is the client
    of what wants a client.  Both sides compare the same two things: the credentials, or, where
    those are not known to both, the highest address of each side."""
    if ours is not None and theirs is not None:
        return (ours.name, ours.password) > (theirs.name, theirs.password)
    return max(map(_order, our_addresses)) > max(map(_order, their_addresses))


def _order(address: Address) -> tuple[int, int, int]:
    parsed = ip_address(address[0].partition("%")[0])
    return (parsed.version, int(parsed), address[1])


# -- UDP: the checklist --


_OTHER_PAIR = (400, "Another pair is in use")


class State(Enum):
    """Of a pair (RFC 8445 section 6.1.2.6)."""

    FROZEN = "frozen"  # another pair of its foundation goes first
    WAITING = "waiting"
    IN_PROGRESS = "in progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


_UNFINISHED = (State.FROZEN, State.WAITING, State.IN_PROGRESS)


@dataclass(slots=True)
class _Local:
    base: int
    address: Address
    facts: Facts

    @property
    def credentials(self) -> Credentials:
        assert self.facts.credentials is not None
        return self.facts.credentials


@dataclass(slots=True)
class _Remote:
    address: Address
    facts: Facts | None

    @property
    def credentials(self) -> Credentials | None:
        return None if self.facts is None else self.facts.credentials

    @property
    def priority(self) -> int:
        return candidate_priority("host", 65535) if self.facts is None else self.facts.priority


@dataclass(slots=True)
class Pair:
    """One local base and one remote address."""

    local: _Local
    remote: _Remote
    state: State = State.FROZEN
    asked_for: bool = False  # the controlling peer has nominated it
    nominating: bool = False  # our check does
    unanswered: bool = False  # we have nominated it, and not heard what came of that
    mapped: Address | None = None  # how the peer sees us
    token: bytes | None = None  # of the check under way

    @property
    def foundation(self) -> tuple[str, str]:
        """Pairs that are alike in this probably share their fate (RFC 8445 section 6.1.2.6)."""
        theirs = "" if self.remote.facts is None else self.remote.facts.foundation
        return (self.local.facts.foundation, theirs or self.remote.address[0])


@dataclass(slots=True)
class _Check:
    pair: Pair
    transaction: Transaction
    nominates: bool
    role: bool


class Agent:
    """The checks of one rendezvous over UDP, and after it the peer's checks of the chosen pair.

    *controlling* says whether we choose; *tie_breaker* decides where both sides think the same of
    that; *token* makes transaction ids.  The credentials of a local candidate sign what is sent to
    it, those of a remote one what we send there.

    What is to be sent is in `outgoing`, as (base, remote address, data); `selected` is the pair
    that was chosen, `failed` says that there will be none.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        tie_breaker: int,
        token: Callable[[], bytes],
        now: float,
    ) -> None:
        self.controlling = controlling
        self.outgoing: list[tuple[int, Address, bytes]] = []
        self.selected: Pair | None = None
        self.speaks_stun = False
        """Whether the peer has shown that it knows STUN, so that it takes keepalives."""
        self._tie_breaker = tie_breaker
        self._token = token
        self._locals: dict[int, _Local] = {}
        self._remotes: dict[Address, _Remote] = {}
        self._reflexive = 0
        self._removed: set[Address] = set()
        self._pairs: dict[tuple[int, Address], Pair] = {}
        self._triggered: deque[Pair] = deque()
        self._checks: dict[bytes, _Check] = {}
        self._next_check = now
        self._give_up_at = now + PATIENCE
        self._keepalive_at = inf
        self.failed = False

    # Candidates, also late ones (RFC 8838):

    def add_local(self, base: int, address: Address, facts: Facts, now: float) -> None:
        """What is sent from the socket *base* comes from *address*."""
        if base not in self._locals:
            self._locals[base] = _Local(base, address, facts)
            self._form_pairs(now)

    def remove_local(self, base: int, now: float) -> None:
        """Try nothing more from *base*."""
        if self._locals.pop(base, None) is not None:
            self._drop_pairs(now)

    def add_remote(self, address: Address, facts: Facts | None, now: float) -> None:
        """The peer may be at *address*."""
        self._removed.discard(address)
        known = self._remotes.get(address)
        if known is None:
            self._remotes[address] = _Remote(address, facts)
        elif facts is not None:
            changed = known.credentials != facts.credentials
            known.facts = facts  # signalled now, and seen before
            if changed and self.selected is None:
                self._begin_again(known)
        self._form_pairs(now)

    def _begin_again(self, remote: _Remote) -> None:
        """What was said and heard so far was not signed, or with another secret."""
        for pair in self._pairs.values():
            if pair.remote is remote:
                self._cancel(pair)
                pair.asked_for = pair.nominating = False
                self._check_again(pair)

    def remove_remote(self, address: Address, now: float) -> None:
        """Try nothing more towards *address*."""
        if self._remotes.pop(address, None) is not None:
            if len(self._removed) < MAX_PAIRS:
                self._removed.add(address)
            self._drop_pairs(now)

    def _drop_pairs(self, now: float) -> None:
        for key, pair in list(self._pairs.items()):
            if pair is self.selected:
                continue
            if key[0] not in self._locals or key[1] not in self._remotes:
                self._cancel(pair)
                del self._pairs[key]
                self._triggered = deque(one for one in self._triggered if one is not pair)
        if self.selected is None and self.controlling:
            self._nominate_next(now)  # another one, if it was one of these

    def _form_pairs(self, now: float) -> None:
        """Pair what is new (RFC 8445 section 6.1.2), the most promising up to the limit."""
        if self.selected is not None or self.failed:
            return
        for local in self._locals.values():
            for remote in self._remotes.values():
                key = (local.base, remote.address)
                if key not in self._pairs and _fit(local.address, remote.address):
                    self._pairs[key] = Pair(local, remote)
                    self._give_up_at = now + PATIENCE
        for pair in self._ordered()[MAX_PAIRS:]:
            if pair.state in (State.FROZEN, State.WAITING):
                del self._pairs[pair.local.base, pair.remote.address]
        seen = {pair.foundation for pair in self._pairs.values() if pair.state is not State.FROZEN}
        for pair in self._ordered():
            if pair.state is State.FROZEN and pair.foundation not in seen:
                seen.add(pair.foundation)
                pair.state = State.WAITING

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, the most promising first."""
        return self._ordered()

    def _ordered(self) -> list[Pair]:
        return sorted(self._pairs.values(), key=self._priority, reverse=True)

    def _priority(self, pair: Pair) -> int:
        ours, theirs = pair.local.facts.priority, pair.remote.priority
        return pair_priority(*((ours, theirs) if self.controlling else (theirs, ours)))

    # Time:

    @property
    def wake_at(self) -> float:
        """When `wake` is to be called."""
        if self.selected is not None:
            return min(
                [self._keepalive_at, *(one.transaction.due for one in self._checks.values())]
            )
        if self.failed:
            return inf
        due = [self._give_up_at, *(check.transaction.due for check in self._checks.values())]
        if self._triggered or self._next_pair() is not None:
            due.append(self._next_check)
        return min(due)

    def wake(self, now: float) -> None:
        """The time is *now*."""
        for token, check in list(self._checks.items()):
            if check.transaction.due <= now:
                data = check.transaction.step(now)
                if data is not None:
                    self._send(check.pair, data)
                else:
                    del self._checks[token]
                    check.pair.unanswered |= check.nominates
                    if check.pair.token == token:
                        self._check_failed(check, now)
        if self.selected is not None:
            if self._keepalive_at <= now:
                self._keep_alive(now)
            return
        if now >= self._next_check:
            pair = self._next_triggered() or self._next_pair()
            if pair is not None:
                self._check(pair, now)
                self._next_check = now + TA
        if now >= self._give_up_at:
            self._fail()

    def _next_triggered(self) -> Pair | None:
        while self._triggered:
            pair = self._triggered.popleft()
            if pair.state is not State.SUCCEEDED:
                return pair
        return None

    def _next_pair(self) -> Pair | None:
        """The next one in turn: a waiting pair, else a frozen one (RFC 8445 section 6.1.4.2)."""
        for state in (State.WAITING, State.FROZEN):
            pairs = [pair for pair in self._pairs.values() if pair.state is state]
            if pairs:
                return max(pairs, key=self._priority)
        return None

    def _fail(self) -> None:
        if self.selected is None:
            self.failed = True
            self._checks.clear()

    # Checks:

    def _check(self, pair: Pair, now: float, *, nominates: bool = False) -> None:
        token = self._token()
        theirs = pair.remote.credentials
        role = "ICE-CONTROLLING" if self.controlling else "ICE-CONTROLLED"
        attributes: dict[str, Any] = {}
        if theirs is not None:
            attributes["USERNAME"] = f"{theirs.name}:{pair.local.credentials.name}"
        preference = (pair.local.facts.priority >> 8) & 0xFFFF
        attributes["PRIORITY"] = candidate_priority("prflx", preference)
        attributes[role] = self._tie_breaker
        if nominates:
            attributes["USE-CANDIDATE"] = None
        key = None if theirs is None else theirs.password.encode()
        data = encode("BINDING", "REQUEST", token, attributes, key)
        busy = sum(pair.state in _UNFINISHED for pair in self._pairs.values())
        # RFC 8445 section 14.3: the more there is to send, the slower each is repeated.
        check = _Check(
            pair, Transaction(data, now, max(RTO, TA * busy)), nominates, self.controlling
        )
        if pair.token in self._checks:
            # RFC 8445 section 7.3.1.4: it is not repeated, and its answer still counts.  Where the
            # way is long, that of the new one would come too late to count before the next.
            self._checks[pair.token].transaction.cease(now)
        pair.token = token
        if pair.state is not State.SUCCEEDED:
            pair.state = State.IN_PROGRESS
        self._checks[token] = check
        step = check.transaction.step(now)
        assert step is not None
        self._send(pair, step)

    def _cancel(self, pair: Pair) -> None:
        """No answer to a check of *pair* counts any more."""
        pair.token = None
        self._checks = {token: one for token, one in self._checks.items() if one.pair is not pair}

    def _send(self, pair: Pair, data: bytes) -> None:
        self.outgoing.append((pair.local.base, pair.remote.address, data))

    def _check_failed(self, check: _Check, now: float) -> None:
        pair = check.pair
        pair.token = None
        pair.state = State.FAILED
        pair.nominating = False
        if self.selected is None and self.controlling:
            self._nominate_next(now)

    def _nominate_next(self, now: float) -> None:
        if any(pair.nominating for pair in self._pairs.values()):
            return
        valid = [pair for pair in self._ordered() if pair.state is State.SUCCEEDED]
        if valid:
            valid[0].nominating = True
            self._give_up_at = max(self._give_up_at, now + PATIENCE)
            self._check(valid[0], now, nominates=True)

    def _nominate_again(self, now: float) -> None:
        """The peer has refused a nomination, so it has taken one that we thought was lost."""
        self._give_up_at = max(self._give_up_at, now + PATIENCE)
        for pair in self._pairs.values():
            if pair.unanswered and pair.state is State.FAILED:
                self._check_again(pair)

    def _check_again(self, pair: Pair) -> None:
        pair.state = State.WAITING
        self._triggered.append(pair)

    def _select(self, pair: Pair, now: float) -> None:
        if self.selected is None:
            self.selected = pair
            for other in list(self._pairs.values()):
                if other is not pair:
                    self._cancel(other)
            self._triggered.clear()
            self._keepalive_at = now + KEEPALIVE

    # What comes:

    def received(self, base: int, data: bytes, source: Address, now: float) -> bytes | None:
        """A datagram has come.  What of it is the application's, or None."""
        if not looks_like_stun(data):
            return self._application_data(base, data, source, now)
        message = parse(data)
        if message is not None and message.message_method.name == "BINDING":
            stun = codec()
            if message.message_class == stun.Class.REQUEST:
                self._on_request(base, message, source, now)
            elif message.message_class in (stun.Class.RESPONSE, stun.Class.ERROR):
                self._on_response(base, message, source, now)
        return None

    def _application_data(
        self, base: int, data: bytes, source: Address, now: float
    ) -> bytes | None:
        pair = self._pairs.get((base, source))
        if pair is None:
            return None
        if self.selected is None:
            # RFC 9622 section 7.3: without a connection, the first Message makes one.  A peer that
            # has credentials must have passed a check, or have nominated the pair: then it has
            # had our answer, and does not wait for ours to come through.
            passed = pair.state is State.SUCCEEDED or pair.asked_for
            if pair.remote.credentials is not None and not passed:
                return None
            self._select(pair, now)
        return data if pair is self.selected else None

    def _on_request(self, base: int, message: Any, source: Address, now: float) -> None:
        local = self._locals.get(base)
        if message.transaction_id in self._checks or local is None or source in self._removed:
            return  # our own, which somebody sends back; or from whom we want nothing any more
        signed = _is_signed(message, local.credentials)
        remote = self._remotes.get(source)
        # To a stranger nothing is said, not even what is wrong.
        if not signed and (remote is None or remote.credentials is not None):
            return
        key = local.credentials.password.encode() if signed else None
        conflict = self._role_conflict(message)
        if conflict:
            self._answer(
                base, message, source, "ERROR", {"ERROR-CODE": (487, "Role Conflict")}, key
            )
            return
        pair = self._pair_of(base, message, source, now)
        if pair is None:
            return  # an answer would let the peer take a pair that we cannot take
        wanted = "USE-CANDIDATE" in message.attributes and not self.controlling
        if wanted and self.selected not in (None, pair):
            # RFC 8445 section 7.3.1.5: a nomination that is not accepted has to be rejected.
            self._answer(base, message, source, "ERROR", {"ERROR-CODE": _OTHER_PAIR}, key)
            return
        self._answer(base, message, source, "RESPONSE", {"XOR-MAPPED-ADDRESS": source}, key)
        self.speaks_stun = True
        if wanted:
            for other in self._pairs.values():
                other.asked_for = other is pair  # the peer has given up what it asked for before
        if self.selected is not None:
            return
        if pair.state is State.SUCCEEDED or (signed and pair.remote.credentials is None):
            # Of a peer that signs, but has not told us what to sign with, this is all we can know.
            if wanted:
                self._select(pair, now)
        elif pair.state is not State.IN_PROGRESS and pair not in self._triggered:
            pair.state = State.WAITING
            self._triggered.append(pair)
            self._next_check = min(self._next_check, now + TA)
        elif (
            pair not in self._triggered
            and pair.token in self._checks
            and self._checks[pair.token].transaction.due > now + TA
        ):
            # It is heard of now, so what was sent before may have been too early: RFC 8445 section
            # 7.3.1.4 repeats the check.
            self._triggered.append(pair)

    def _role_conflict(self, message: Any) -> bool:
        """Whether the peer has to give in (RFC 8445 section 7.3.1.1); if we have to, we do."""
        theirs = message.attributes.get("ICE-CONTROLLING" if self.controlling else "ICE-CONTROLLED")
        if theirs is None or self.selected is not None:
            return False
        if (self._tie_breaker >= theirs) is self.controlling:
            return True
        self._switch_role()
        return False

    def _switch_role(self) -> None:
        self.controlling = not self.controlling
        for pair in self._pairs.values():
            pair.nominating = False

    def _answer(
        self,
        base: int,
        message: Any,
        source: Address,
        kind: str,
        attributes: dict[str, Any],
        key: bytes | None,
    ) -> None:
        data = encode("BINDING", kind, message.transaction_id, attributes, key)
        self.outgoing.append((base, source, data))

    def _pair_of(self, base: int, message: Any, source: Address, now: float) -> Pair | None:
        """The pair that a request has come through; a new one if its source was not known."""
        if source not in self._remotes:
            name = message.attributes.get("USERNAME", "").partition(":")[2]
            credentials = next(
                (
                    remote.credentials
                    for remote in self._remotes.values()
                    if remote.credentials is not None and remote.credentials.name == name
                ),
                None,
            )
            if credentials is None or self._reflexive >= MAX_REFLEXIVE:
                return None
            self._reflexive += 1
            priority = message.attributes.get("PRIORITY", 0)
            facts = Facts("prflx", priority, f"p{self._reflexive}", None, credentials)
            self._remotes[source] = _Remote(source, facts)
            self._form_pairs(now)
        return self._pairs.get((base, source))

    def _on_response(self, base: int, message: Any, source: Address, now: float) -> None:
        check = self._checks.get(message.transaction_id)
        if check is None:
            return
        pair = check.pair
        if (base, source) != (pair.local.base, pair.remote.address):
            return  # from elsewhere: forged, or a path that does not lead back
        theirs = pair.remote.credentials
        if theirs is not None and not message.check_message_integrity(theirs.password.encode()):
            return
        del self._checks[message.transaction_id]
        is_latest = pair.token == message.transaction_id
        if is_latest:
            pair.token = None
        self.speaks_stun = True
        if message.message_class == codec().Class.ERROR:
            if message.error_code == 487:
                if check.role is self.controlling:
                    self._switch_role()
                self._check_again(pair)
            elif is_latest:
                self._check_failed(check, now)
                if check.nominates:
                    pair.unanswered = False
                    self._nominate_again(now)
            return
        self._cancel(pair)  # those that were sent as well need no answer
        self._succeeded(check, message, now)

    def _succeeded(self, check: _Check, message: Any, now: float) -> None:
        pair = check.pair
        pair.state = State.SUCCEEDED
        pair.mapped = message.attributes.get("XOR-MAPPED-ADDRESS")
        for other in self._pairs.values():
            if other.state is State.FROZEN and other.foundation == pair.foundation:
                other.state = State.WAITING
        if self.selected is not None:
            return
        self._give_up_at = max(self._give_up_at, now + PATIENCE)
        if not self.controlling:
            if pair.asked_for:
                self._select(pair, now)
        elif check.nominates:
            self._select(pair, now)
        else:
            self._nominate_next(now)

    # After the choice:

    @property
    def needs_keepalive(self) -> bool:
        """Whether something on the way may forget the chosen pair: a NAT, or a relay."""
        pair = self.selected
        if pair is None or not self.speaks_stun:
            return False
        kinds = {
            pair.local.facts.kind,
            "host" if pair.remote.facts is None else pair.remote.facts.kind,
        }
        return kinds != {"host"} or pair.mapped not in (None, pair.local.address)

    def _keep_alive(self, now: float) -> None:
        self._keepalive_at = now + KEEPALIVE if self.needs_keepalive else inf
        if self.selected is not None and self.needs_keepalive:
            self._send(self.selected, encode("BINDING", "INDICATION", self._token(), {}))

    def was_sent(self, now: float) -> None:
        """Data of the application has gone over the chosen pair, which keeps it alive as well."""
        self._keepalive_at = now + KEEPALIVE


def _is_signed(message: Any, ours: Credentials) -> bool:
    """Whether a request is from somebody who was told *ours*."""
    name = message.attributes.get("USERNAME", "").partition(":")[0]
    return name == ours.name and bool(message.check_message_integrity(ours.password.encode()))


def _fit(ours: Address, theirs: Address) -> bool:
    """Whether two addresses can be a pair: one family and one scope (RFC 8445 section 6.1.2.2),
    and not the same end twice."""
    if (":" in ours[0]) is not (":" in theirs[0]) or ours == theirs:
        return False
    here, there = (ip_address(one[0].partition("%")[0]) for one in (ours, theirs))
    if there.is_multicast or there.is_unspecified:
        return False  # nobody is there
    return here.is_link_local == there.is_link_local


# -- TCP: simultaneous open --

FIRST_RETRY, LAST_RETRY = 0.1, 2.0  # seconds after a connect that was refused; doubled each time


@dataclass(slots=True)
class _Try:
    local: int
    remote: Address
    priority: int
    due: float
    wait: float = FIRST_RETRY
    running: bool = False
    error: BaseException | None = None
    in_vain: int = 0  # connections that have led to nothing


class Punch:
    """Which connects to start, from which socket to where, and when again (RFC 6544 section 7.1).

    A peer that is not there yet refuses us, and so may a NAT: that is no end, but a reason to try
    again, with pauses that grow.  What is to be started is the answer of `wake`.
    """

    def __init__(self, controlling: bool, now: float) -> None:
        self._controlling = controlling
        self._locals: dict[int, tuple[Address, int]] = {}
        self._remotes: dict[Address, int] = {}
        self._tries: dict[tuple[int, Address], _Try] = {}
        self._next = now
        self.give_up_at = now + PATIENCE

    def add_local(self, base: int, address: Address, priority: int, now: float) -> None:
        """Connect from *base*, too."""
        self._locals.setdefault(base, (address, priority))
        self._form(now)

    def add_remote(self, address: Address, facts: Facts | None, now: float) -> None:
        """Connect to *address*, too."""
        priority = candidate_priority("host", 65535) if facts is None else facts.priority
        self._remotes.setdefault(address, priority)
        self._form(now)

    def remove_local(self, base: int) -> None:
        """Connect no more from *base*."""
        self._locals.pop(base, None)
        self._tries = {key: one for key, one in self._tries.items() if key[0] != base}

    def remove_remote(self, address: Address) -> None:
        """Connect no more to *address*."""
        self._remotes.pop(address, None)
        self._tries = {key: one for key, one in self._tries.items() if key[1] != address}

    def _form(self, now: float) -> None:
        for base, (address, ours) in self._locals.items():
            for remote, theirs in self._remotes.items():
                if (base, remote) not in self._tries and _fit(address, remote):
                    pair = (ours, theirs) if self._controlling else (theirs, ours)
                    self._tries[base, remote] = _Try(base, remote, pair_priority(*pair), now)
                    self.give_up_at = now + PATIENCE
        for extra in self._ordered()[MAX_PAIRS:]:
            if not extra.running:
                del self._tries[extra.local, extra.remote]

    def _ordered(self) -> list[_Try]:
        return sorted(self._tries.values(), key=lambda one: one.priority, reverse=True)

    @property
    def pairs(self) -> list[tuple[int, Address]]:
        """All of them, the most promising first."""
        return [(one.local, one.remote) for one in self._ordered()]

    @property
    def failures(self) -> list[tuple[tuple[int, Address], BaseException]]:
        """What each pair met with last."""
        return [
            ((one.local, one.remote), one.error) for one in self._ordered() if one.error is not None
        ]

    def priority(self, base: int, remote: Address) -> int:
        """Of a pair, behind all that were connected in vain less often; 0 for one that was not
        formed."""
        found = self._tries.get((base, remote))
        return 0 if found is None else found.priority - (found.in_vain << 64)

    @property
    def wake_at(self) -> float:
        """When `wake` is to be called."""
        due = min((one.due for one in self._tries.values() if not one.running), default=inf)
        return min(self.give_up_at, max(due, self._next))

    def wake(self, now: float) -> list[tuple[int, Address]]:
        """The time is *now*.  Which (base, remote address) to connect: one at a time."""
        if now < self._next or now >= self.give_up_at:
            return []
        for one in self._ordered():
            if not one.running and one.due <= now:
                one.running = True
                self._next = now + TA
                return [(one.local, one.remote)]
        return []

    def ended(self, base: int, remote: Address, error: BaseException | None, now: float) -> None:
        """A connect, or what it had led to, is over."""
        one = self._tries.get((base, remote))
        if one is not None:
            one.running = False
            one.error = error or one.error
            one.in_vain += error is None
            one.due = now + one.wait
            one.wait = min(2 * one.wait, LAST_RETRY)


# -- TCP: which of several connections --

ANSWER_TIME = 5.0  # seconds in which a peer has to prove itself, or to answer a nomination
SETTLE = 0.5  # seconds in which a peer without credentials may drop what it does not want
MAX_LINKS = 64  # connections that are held while none is chosen


@dataclass(slots=True)
class Link:
    """A TCP connection that may become the one.  *expires_at* is when the peer's time is over."""

    number: int
    priority: int
    expires_at: float
    ours: Credentials
    source: Address
    proven: bool  # we have gone to the peer, or it has shown that it knows our secret
    token: bytes | None = None
    settled_at: float = inf
    nominated: bool = False


class Election:
    """Which of the TCP connections of a rendezvous is taken, so that both sides take the same.

    With credentials the controlling side sends a signed Binding request with USE-CANDIDATE over
    one of them, and takes it when the signed answer has come; the other side takes the one that
    it has answered on.  Over a connection that was accepted nobody speaks first, since it may be
    a stranger's; so the other side begins those that it has opened with a signed request of its
    own.  Messages are framed by two bytes of length (RFC 4571), as RFC 6544 does
    it; after them the connection is the application's.  Without, the controlling side takes the
    first and drops the others, and the other side waits for a moment to see which is left.

    `chosen` is the number of the connection; `outgoing` what to send, as (number, data);
    `dropped` the numbers of those to close.
    """

    def __init__(
        self,
        theirs: Credentials | None,
        *,
        controlling: bool,
        tie_breaker: int,
        token: Callable[[], bytes],
    ) -> None:
        self.controlling = controlling
        self.chosen: int | None = None
        self.outgoing: list[tuple[int, bytes]] = []
        self.dropped: list[int] = []
        self._theirs = theirs
        self._tie_breaker = tie_breaker
        self._token = token
        self._links: dict[int, Link] = {}

    @property
    def keyed(self) -> bool:
        """Whether messages are exchanged."""
        return self._theirs is not None

    def learn(self, theirs: Credentials, *, controlling: bool) -> None:
        """The peer's credentials have come with a late candidate."""
        if self._theirs is None and self.chosen is None:
            self._theirs = theirs
            self.controlling = controlling
            self.dropped += self._links
            self._links.clear()

    def opened(
        self,
        number: int,
        priority: int,
        ours: Credentials,
        source: Address,
        now: float,
        *,
        accepted: bool,
        only: bool,
    ) -> None:
        """There is a new connection.  *ours* signs what comes over it, *source* is the peer's
        address; *accepted* says who has opened it, *only* that there cannot be another one."""
        if self.chosen is not None or len(self._links) >= MAX_LINKS:
            self.dropped.append(number)
            return
        # One who has come to the controlling side speaks at once; all others may have to wait until
        # those before them have been nominated in vain.
        time = ANSWER_TIME if accepted and self.controlling else PATIENCE
        link = Link(number, priority, now + time, ours, source, not accepted)
        self._links[number] = link
        if self.keyed:
            if self.controlling:
                self._ask_best(now)
            elif not accepted:
                self._ask(link, {"ICE-CONTROLLED": self._tie_breaker})
        elif self.controlling or only:
            self._choose(number)
        else:
            link.expires_at = inf
            link.settled_at = now + SETTLE

    def _ask_best(self, now: float) -> None:
        proven = [link for link in self._links.values() if link.proven]
        if not proven or any(link.nominated for link in proven):
            return
        link = max(proven, key=lambda one: one.priority)
        link.nominated = True
        link.expires_at = now + ANSWER_TIME
        self._ask(link, {"ICE-CONTROLLING": self._tie_breaker, "USE-CANDIDATE": None})

    def _ask(self, link: Link, role: dict[str, Any]) -> None:
        assert self._theirs is not None
        link.token = self._token()
        attributes = {
            "USERNAME": f"{self._theirs.name}:{link.ours.name}",
            "PRIORITY": candidate_priority("prflx", 65535),
            **role,
        }
        key = self._theirs.password.encode()
        self._write(link, encode("BINDING", "REQUEST", link.token, attributes, key))

    def _write(self, link: Link, data: bytes) -> None:
        self.outgoing.append((link.number, len(data).to_bytes(2, "big") + data))

    def received(self, number: int, data: bytes, now: float) -> None:
        """A message, without its length, has come over a connection."""
        link = self._links.get(number)
        if link is None or self.chosen is not None:
            return
        message = parse(data)
        if message is None or message.message_method.name != "BINDING":
            self._drop(link, now)
        elif message.message_class == codec().Class.REQUEST and _is_signed(message, link.ours):
            self._on_request(link, message, now)
        elif self._is_answer(link, message):
            self._choose(number)
        else:
            self._drop(link, now)

    def _on_request(self, link: Link, message: Any, now: float) -> None:
        link.proven = True
        if not link.nominated:
            link.expires_at = now + PATIENCE  # until its turn comes
        if self.controlling:
            self._ask_best(now)
        elif "USE-CANDIDATE" in message.attributes:
            key = link.ours.password.encode()
            mapped = {"XOR-MAPPED-ADDRESS": link.source}
            answer = encode("BINDING", "RESPONSE", message.transaction_id, mapped, key)
            self._write(link, answer)
            self._choose(link.number)

    def _is_answer(self, link: Link, message: Any) -> bool:
        """Whether the peer has taken the connection that we have nominated."""
        return (
            self._theirs is not None
            and link.nominated
            and message.message_class == codec().Class.RESPONSE
            and message.transaction_id == link.token
            and bool(message.check_message_integrity(self._theirs.password.encode()))
        )

    def readable(self, number: int) -> None:
        """Without credentials: the peer has begun to talk over this connection."""
        if number in self._links and self.chosen is None and not self.keyed:
            self._choose(number)

    def closed(self, number: int, now: float) -> None:
        """A connection has ended by itself."""
        if self._links.pop(number, None) is None or self.chosen is not None:
            return
        if self.keyed and self.controlling:
            self._ask_best(now)

    def _drop(self, link: Link, now: float) -> None:
        self.dropped.append(link.number)
        self.closed(link.number, now)

    def _choose(self, number: int) -> None:
        self.chosen = number
        self.dropped += [other for other in self._links if other != number]
        self._links.clear()

    @property
    def wake_at(self) -> float:
        """When `wake` is to be called."""
        if self.chosen is not None:
            return inf
        return min(
            (min(one.expires_at, one.settled_at) for one in self._links.values()), default=inf
        )

    def wake(self, now: float) -> None:
        """The time is *now*."""
        if self.chosen is not None:
            return
        settled = [link for link in self._links.values() if link.settled_at <= now]
        if settled:
            self._choose(max(self._links.values(), key=lambda link: link.priority).number)
            return
        for link in [link for link in self._links.values() if link.expires_at <= now]:
            self._drop(link, now)
