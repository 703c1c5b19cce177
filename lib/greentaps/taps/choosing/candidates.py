"""The candidate tree: every way to reach the peer, in the order of the attempts, and what was cut
with its reason (RFC 9623 sections 4.1 and 4.2).

::

    1        root
    1.k      a path: an interface, or whatever the system's routes take, with a Local Endpoint
    1.k.k    a protocol stack on that path
    1.k.k.k  a Remote Endpoint: an address, which is an attempt; or a name, with addresses below

Pure: everything that counts is passed in, and the same input gives the same tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ...errors import EstablishmentError, Reason, show_address
from ...plugins import ALWAYS, NEVER, Plugin, Stack, duplicates, lacks, offer, stack_name
from ..endpoint import Endpoint, LocalEndpoint, RemoteEndpoint
from ..properties import (
    AVOID,
    PREFER,
    PROHIBIT,
    REQUIRE,
    InterfaceType,
    Preference,
    Role,
    TransportProperties,
    contradictions,
)
from .policy import Branch, SystemPolicy

if TYPE_CHECKING:
    from ..naming.resolving import Derived
    from ..paths.survey import Path, Survey

__all__ = [
    "Branch",
    "Candidate",
    "Node",
    "Performance",
    "Score",
    "Verdict",
    "Way",
    "attach",
    "choose_stacks",
    "choose_ways",
    "graft",
    "interleave",
    "judge_stacks",
    "leaves",
    "plugins_of",
    "tree",
]

T = TypeVar("T")

# How many children of one node may come from the network (RFC 9623 section 12.2).
MAX_CHILDREN = 64


class Candidate:
    """One coherent attempt: a stack, a Remote Endpoint's address, and a local one or None.

    *interface* is the name of the one to use, *hop_limit* how many hops a packet may go; None
    leaves either to the system.
    """

    __slots__ = ("hop_limit", "hostname", "interface", "local", "remote", "stack")

    def __init__(
        self,
        stack: Stack,
        remote: Any,
        local: Any = None,
        hostname: str | None = None,
        interface: str | None = None,
        hop_limit: int | None = None,
    ) -> None:
        self.stack = stack
        self.remote = remote
        self.local = local
        self.hostname = hostname
        self.interface = interface
        self.hop_limit = hop_limit

    def __str__(self) -> str:
        text = stack_name(self.stack)
        if self.remote is not None:
            text += f" to {show_address(self.remote)}"
        if self.local is not None:
            text += f" from {show_address(self.local)}"
        if self.interface is not None:
            text += f" on {self.interface}"
        return text

    def __repr__(self) -> str:
        return f"<Candidate {self}>"


class Node:
    """One node of the tree.

    *what* names it within its parent; *cut* is why it is not tried, or None; *why* are the reasons
    for its place.  *branch* says what its children differ in, and is None for a leaf, which has a
    *candidate*.  *endpoint* is the Remote Endpoint of the nodes of the last level.
    """

    __slots__ = (
        "branch",
        "candidate",
        "children",
        "cut",
        "endpoint",
        "index",
        "parent",
        "path",
        "place",
        "stack",
        "unresolved",
        "what",
        "why",
    )

    def __init__(
        self,
        parent: Node | None,
        what: str,
        branch: Branch | None = None,
        *,
        cut: str | None = None,
        why: Sequence[str] = (),
        candidate: Candidate | None = None,
        endpoint: RemoteEndpoint | None = None,
        path: Way | None = None,
        stack: Stack | None = None,
        unresolved: bool = False,
    ) -> None:
        self.parent = parent
        self.what = what
        self.branch = branch
        self.cut = cut
        self.why = why
        self.candidate = candidate
        self.endpoint = endpoint
        self.place = 0  # among its siblings, where that may change
        self.unresolved = unresolved
        """Whether its children come from a name that has to be looked up."""
        self.children: list[Node] = []
        if parent is None:
            self.index = 1
            self.path, self.stack = path, stack
        else:
            self.path = path or parent.path
            self.stack = stack or parent.stack
            parent.children.append(self)
            self.index = len(parent.children)

    @property
    def number(self) -> str:
        """Its place in the tree: ``"1.2.1"`` (RFC 9623 section 4.1)."""
        return str(self.index) if self.parent is None else f"{self.parent.number}.{self.index}"

    def host(self) -> str:
        """The address of a leaf, without the port."""
        assert self.candidate is not None
        return str(self.candidate.remote[0])

    def walk(self) -> Iterator[Node]:
        """This node and all below it, each before its children."""
        yield self
        for child in self.children:
            yield from child.walk()

    def __str__(self) -> str:
        """The tuple of RFC 9623 section 4.1: ``1.1.2 [example.org:443, eth0, tls/tcp]``."""
        end = "any" if self.endpoint is None else show_endpoint(self.endpoint)
        if self.candidate is not None:
            end = show_address(self.candidate.remote)
        path = "any" if self.path is None else str(self.path)
        stack = "any" if self.stack is None else stack_name(self.stack)
        return f"{self.number} [{end}, {path}, {stack}]"

    def __repr__(self) -> str:
        return f"<Node {self}{f' cut: {self.cut}' if self.cut else ''}>"


def leaves(root: Node) -> list[Node]:
    """The leaves below *root* that may be tried, in their order."""
    found: list[Node] = []
    for child in root.children:
        if child.cut is None:
            found += [child] if child.branch is None else leaves(child)
    return found


def show_endpoint(endpoint: RemoteEndpoint) -> str:
    """A Remote Endpoint as people write it."""
    host = endpoint.hostname or endpoint.ip_address or "?"
    if ":" in host:
        host = f"[{host}]"
    port = endpoint.service if endpoint.port is None else endpoint.port
    return host if port is None else f"{host}:{port}"


# -- Paths --


@dataclass(frozen=True, slots=True)
class Way:
    """One way out: the *interface* to use, or None for whichever the system's routes take, with a
    *local* Endpoint or None, and its resolved *addresses* (none where the system chooses).

    *network* is what is behind it: the key of what was learned before.  *versions* are those of
    IP, 4 and 6, that the interface has addresses of; None if nobody looked.  *lacks_ipv4* says
    that it leads to IPv6 alone, as far as was looked.  *why* are the reasons for its place, and
    *cut* is why it is not used.
    """

    interface: str | None = None
    local: LocalEndpoint | None = None
    addresses: tuple[Any, ...] = ()
    network: str = ""
    versions: frozenset[int] | None = None
    why: tuple[str, ...] = ()
    cut: str | None = None
    lacks_ipv4: bool = False

    def __str__(self) -> str:
        text = self.interface or "system"
        if self.addresses:
            text += f" from {', '.join(show_address(name) for name in self.addresses)}"
        elif self.local is not None and self.local.port:
            text += f" from port {self.local.port}"
        return text


# Of a network, by its key: how good it should be for what the application has said it will do;
# lower is better, and 0 is what nothing is known of.
Performance = Callable[[str], float]


def choose_ways(
    ends: Sequence[tuple[LocalEndpoint | None, tuple[Any, ...]]],
    properties: TransportProperties,
    policy: SystemPolicy,
    survey: Survey | None,
    performance: Performance | None = None,
) -> list[Way]:
    """The ways out: for each Local Endpoint, with its resolved addresses, the interfaces in their
    order, and those that are cut.

    *survey* is what is known of the interfaces; without one the system's routes decide.  A
    Connection without a wish about interfaces is left to them, and is never moved to another
    interface behind the back of the one who has set them up.
    """
    wishes = [
        (level, what, name)
        for name in ("interface", "pvd")
        for level, what in properties.get(name)
        if level in _MATTERS
    ]
    found: list[Way] = []
    for local, addresses in ends:
        own = None if local is None else local.interface
        if survey is None or (not wishes and not policy.restricts_interfaces()):
            known = None if survey is None or own is None else survey.find(own)
            found.append(
                Way(
                    own,
                    local,
                    addresses,
                    known.network if known else survey.network if survey else "",
                    versions=_versions(known) if known else None,
                    lacks_ipv4=_lack_ipv4([known] if known else survey.paths if survey else ()),
                )
            )
        else:
            found += _ways_of(local, addresses, own, wishes, policy, survey, performance)
    return found


def _ways_of(
    local: LocalEndpoint | None,
    addresses: tuple[Any, ...],
    own: str | None,
    wishes: Sequence[tuple[Preference, Any, str]],
    policy: SystemPolicy,
    survey: Survey,
    performance: Performance | None,
) -> list[Way]:
    """The ways of one Local Endpoint where somebody has a wish about interfaces."""
    among: list[Any] = [one for one in survey.paths if own in (None, one.interface)]
    if own is not None and not among:
        among = [_Unknown(own)]
    kept: list[tuple[tuple[float, ...], Way]] = []
    cut: list[Way] = []
    preferred: set[str] = set()
    for one in among:
        name, kind = one.interface, one.type
        reason = _against_path(one, wishes) or policy.against_interface(name, kind)
        likes, dislikes = _hits(one, wishes, PREFER), _hits(one, wishes, AVOID)
        why = [f"{what} is preferred" for what in likes]
        why += [f"{what} is to be avoided" for what in dislikes]
        versions = _versions(one)
        lacks = _lack_ipv4([one])
        way = Way(name, local, addresses, one.network, versions, tuple(why), reason, lacks)
        if reason is not None:
            cut.append(way)
            continue
        place = policy.rank_interface(name, kind)
        if likes or place < len(policy.preferred_interfaces):
            preferred.add(name)
        value = performance(one.network) if performance else 0.0
        kept.append(((-len(likes), len(dislikes), place, value), way))
    kept.sort(key=lambda item: item[0])
    ways = [way for _, way in kept]
    must = policy.restricts_interfaces() and (
        policy.allowed_interfaces is not None or policy.prohibited_interfaces
    )
    if not must and own is None and not any(level in (REQUIRE, PROHIBIT) for level, _, _ in wishes):
        # Mere wishes: first where they lead, then wherever there is a way.
        avoided = [way for way in ways if any("avoided" in word for word in way.why)]
        if preferred:
            ways = [way for way in ways if way.interface in preferred and way not in avoided]
        else:
            ways = [way for way in ways if way not in avoided] if avoided else []
        lacks = _lack_ipv4(survey.paths)
        ways.append(Way(None, local, addresses, survey.network, lacks_ipv4=lacks))
    return ways + cut


class _Unknown(NamedTuple):
    """An interface that a Local Endpoint names, and the system does not."""

    interface: str
    type: InterfaceType = InterfaceType.OTHER
    addresses: tuple[Any, ...] = ()
    up: bool = True
    network: str = ""
    pvds: tuple[str, ...] = ()


def _versions(path: Path | _Unknown) -> frozenset[int] | None:
    return frozenset(6 if ":" in address.text else 4 for address in path.addresses) or None


def _lack_ipv4(paths: Iterable[Path | _Unknown]) -> bool:
    """Whether there are addresses of IPv6 alone.  Those of the loopback interface lead nowhere."""
    there = [_versions(path) for path in paths if path.type is not InterfaceType.LOOPBACK]
    known = frozenset[int]().union(*(versions for versions in there if versions))
    return known == {6}


def _fits(path: Path | _Unknown, what: Any, name: str) -> bool:
    if name == "pvd":  # a domain, which has no case
        return str(what).rstrip(".").lower() in path.pvds
    return what in (path.interface, path.type)


def _hits(
    path: Path | _Unknown, wishes: Sequence[tuple[Preference, Any, str]], wanted: Preference
) -> list[str]:
    found = [
        f"{name} {what}"
        for level, what, name in wishes
        if level is wanted and _fits(path, what, name)
    ]
    return sorted(found)


def _against_path(
    path: Path | _Unknown, wishes: Sequence[tuple[Preference, Any, str]]
) -> str | None:
    for level, what, name in wishes:
        fits = _fits(path, what, name)
        if level is REQUIRE and not fits:
            return f"{name} {what} is required"
        if level is PROHIBIT and fits:
            return f"{name} {what} is prohibited"
    if not path.up:
        return "it is down"
    return None


# -- Stacks --


class Verdict:
    """What is to be said of one stack: *cut* is why it cannot be used, or None; *key* is its place
    (lower goes first), and *why* the reasons for it."""

    __slots__ = ("cut", "key", "stack", "why")

    def __init__(
        self, stack: Stack, cut: str | None, key: tuple[int, ...], why: tuple[str, ...]
    ) -> None:
        self.stack = stack
        self.cut = cut
        self.key = key
        self.why = why


# Of one stack on one network: from -1, has always failed, to 1, has always worked; 0 unknown.
Score = Callable[[Stack], float]


def judge_stacks(
    properties: TransportProperties,
    among: Iterable[Stack],
    *,
    secured: bool,
    policy: SystemPolicy,
    score: Score | None = None,
) -> list[Verdict]:
    """What is to be said of each stack: first those that agree with every Require and Prohibit and
    with the *policy*, best first, then the others.

    *secured* says whether the stack must bring security, or must not: a secured stack and one
    without are never alternatives (RFC 9621 section 3.3), and those of other security than the
    best one only if the *policy* calls them equivalent.  *score* tells of the past.
    """
    explicit = properties.explicit()
    wishes = [
        (name, level, name in explicit)
        for name, level in properties.preferences()
        if level in _MATTERS
    ]
    replayable = bool(properties.get("safelyReplayable"))
    listens = properties.role is Role.LISTEN
    kept: list[Verdict] = []
    cut: list[Verdict] = []
    for stack in among:
        names: list[str] = []
        reason = _reason_against(stack, wishes, secured, replayable, listens)
        if reason is None:
            names += [plugin.name for plugin in stack]
            reason = policy.against_stack(names)
        if reason is not None:
            cut.append(Verdict(stack, reason, (), ()))
            continue
        past = 0 if score is None else round(score(stack))
        key, why = _merits(stack, wishes, policy.rank_stack(names), past, listens)
        kept.append(Verdict(stack, None, key, why))
    # Sorting is stable: what is equal stays in the order of the plugins.
    kept.sort(key=lambda verdict: verdict.key)
    for verdict in kept[1:]:
        if not policy.equivalent(_security(kept[0].stack), _security(verdict.stack)):
            best = stack_name(kept[0].stack)
            verdict.cut = f"its security is another than that of {best} (RFC 9621 section 3.3)"
        elif verdict.key[_PAST] > 0 > kept[0].key[_PAST]:
            verdict.cut = f"has not worked on this path, and {stack_name(kept[0].stack)} has"
    return [one for one in kept if not one.cut] + [one for one in kept if one.cut] + cut


_MATTERS = (REQUIRE, PREFER, AVOID, PROHIBIT)
_PAST = 3  # where the past is in the key of `_merits`


def _reason_against(
    stack: Stack,
    wishes: Sequence[tuple[str, Preference, bool]],
    secured: bool,
    replayable: bool,
    listens: bool,
) -> str | None:
    """Prohibit and Require cut (RFC 9623 section 4.1.3)."""
    if _layers_of_security(stack) != secured:
        return "adds no security" if secured else "adds security that was not asked for"
    for plugin in stack:
        if not plugin.available():
            return f"this machine has no {plugin.name}"
    if not replayable and duplicates(stack):
        return "may deliver a Message twice, and safelyReplayable is not set"
    for name, level, said in wishes:
        if level is REQUIRE:
            if offer(stack, name) is NEVER or (said and lacks(stack, name, server_side=listens)):
                return f"{name} is required"
        elif level is PROHIBIT and offer(stack, name) is ALWAYS:
            return f"{name} is prohibited"
    return None


def _merits(
    stack: Stack,
    wishes: Sequence[tuple[str, Preference, bool]],
    place: int,
    past: int,
    listens: bool,
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Prefer first, Avoid to break ties; what the application has said counts before policy and
    past, and these before what is merely a default (RFC 9623 section 4.1.3)."""
    hits = {True: [0, 0], False: [0, 0]}
    why: list[str] = []
    for name, level, said in wishes:
        if level is PREFER and offer(stack, name) is not NEVER:
            if said and lacks(stack, name, server_side=listens):
                continue
            hits[said][0] += 1
            if said:
                why.append(f"{name} is preferred, and it has it")
        elif level is AVOID and offer(stack, name) is ALWAYS:
            hits[said][1] += 1
            if said:
                why.append(f"{name} is to be avoided, and it has it")
    if past:
        why.append("has worked here before" if past > 0 else "has failed here before")
    (prefer, avoid), (usual, unusual) = hits[True], hits[False]
    return (-prefer, avoid, place, -past, -usual, unusual), tuple(why)


@lru_cache(maxsize=256)
def _layers_of_security(stack: Stack) -> int:
    return sum(plugin.secure for plugin in stack)


def _security(stack: Stack) -> tuple[str, ...]:
    return tuple(plugin.name for plugin in stack if plugin.secure)


def choose_stacks(
    properties: TransportProperties,
    among: Iterable[Stack],
    *,
    secured: bool,
    policy: SystemPolicy | None = None,
) -> list[Stack]:
    """The stacks of *among* that may be tried, best first: see `judge_stacks`.  Raises
    EstablishmentError if there is none, or if the properties contradict each other."""
    check_properties(properties)
    policy = policy or SystemPolicy()
    verdicts = judge_stacks(properties, among, secured=secured, policy=policy)
    require_one(verdicts, policy)
    return [verdict.stack for verdict in verdicts if verdict.cut is None]


def check_properties(properties: TransportProperties) -> None:
    """Raise EstablishmentError if *properties* contradict each other: nothing could ever meet them
    (RFC 9623 section 3.1)."""
    wrong = contradictions(properties)
    if wrong:
        raise EstablishmentError("; ".join(wrong), Reason.INVALID_CONFIGURATION)


def require_one(verdicts: Sequence[Verdict], policy: SystemPolicy) -> None:
    """Raise EstablishmentError if every one of *verdicts* is cut."""
    if any(verdict.cut is None for verdict in verdicts):
        return
    reasons = "; ".join(f"{stack_name(one.stack)}: {one.cut}" for one in verdicts)
    forbidden = any(
        one.cut == policy.against_stack([plugin.name for plugin in one.stack]) for one in verdicts
    )
    raise EstablishmentError(
        f"no protocol stack has what is asked for ({reasons})",
        Reason.POLICY_PROHIBITED if forbidden else Reason.NO_CANDIDATES,
    )


# -- Endpoints --


def interleave(
    addresses: Sequence[T],
    key: Callable[[T], str] = lambda address: address[0],  # type: ignore[index]
) -> list[T]:
    """*addresses* with their families alternating, each family in the given order, beginning with
    the first one's (RFC 8305 section 4).  *key* gives the text of an address."""
    if not addresses:
        return []
    first_is_v6 = ":" in key(addresses[0])
    leading = [one for one in addresses if (":" in key(one)) is first_is_v6]
    trailing = [one for one in addresses if (":" in key(one)) is not first_is_v6]
    mixed = []
    for index in range(max(len(leading), len(trailing))):
        mixed += leading[index : index + 1] + trailing[index : index + 1]
    return mixed


# Of an endpoint on a way over a stack: what was learned before; see `Score`.
Past = Callable[[Way, Stack, str], float]


def tree(
    ways: Sequence[Way],
    judge: Callable[[Way], Sequence[Verdict]],
    remotes: Sequence[RemoteEndpoint],
    *,
    temporary: Preference | None = None,
    past: Past | None = None,
) -> Node:
    """The tree of all candidates: *ways*, on each of these the stacks that *judge* gives, and for
    these the Remote Endpoints, where names are still to be resolved.

    *temporary* is what the application has said of useTemporaryLocalAddress, if it has.
    """
    root = Node(None, "", Branch.PATHS)
    for way in ways:
        at = Node(root, str(way), Branch.STACKS, cut=way.cut, why=way.why, path=way)
        if way.cut is None:
            for verdict in judge(way):
                _plant_stack(at, way, verdict, remotes, temporary, past)
    return root


def graft(root: Node, other: Node) -> list[Node]:
    """Put the branches of *other*, a tree of its own, behind those of *root*.  Returns them."""
    for node in other.children:
        node.parent = root
        root.children.append(node)
        node.index = len(root.children)
    return other.children


def _plant_stack(
    parent: Node,
    way: Way,
    verdict: Verdict,
    remotes: Sequence[RemoteEndpoint],
    temporary: Preference | None,
    past: Past | None,
) -> None:
    stack, cut = verdict.stack, verdict.cut
    if cut is None and way.local is not None and not is_for(way.local, stack):
        cut = NO_LOCAL
    node = Node(parent, stack_name(stack), Branch.ENDPOINTS, cut=cut, why=verdict.why, stack=stack)
    if cut is not None:
        return
    ends = list(for_stack(remotes, stack))
    if not ends:
        node.cut = NO_ENDPOINT
    if past is not None and len(ends) > 1:
        ends.sort(key=lambda end: -round(past(way, stack, end.hostname or end.ip_address or "")))
    if temporary is PREFER:
        ends.sort(key=lambda end: end.ip_address is not None and ":" not in end.ip_address)
    for end in ends:
        address = _literal(end)
        # Where IPv6 is all, an IPv4 address may have to be translated (RFC 8305 section 7.1).
        if address is not None and not (way.lacks_ipv4 and ":" not in address[0]):
            _plant_leaves(node, end, address, end.hostname, temporary)
        else:
            Node(node, show_endpoint(end), Branch.ENDPOINTS, endpoint=end, unresolved=True)


def _literal(end: RemoteEndpoint) -> Any:
    """The socket address of an Endpoint that needs no look-up of any kind; else None."""
    text, port = end.ip_address, end.port
    if text is None or port is None or "%" in text:
        return None
    return (text, port, 0, 0) if ":" in text else (text, port)


def _plant_leaves(
    parent: Node,
    end: RemoteEndpoint,
    remote: Any,
    hostname: str | None,
    temporary: Preference | None,
    why: Sequence[str] = (),
) -> list[Node]:
    """The attempts at one address: one for each local address of its family."""
    way, stack = parent.path, parent.stack
    assert way is not None
    assert stack is not None
    is_v6 = ":" in remote[0]
    cut = None
    if temporary is REQUIRE and not is_v6:
        cut = "only IPv6 has temporary addresses, and one is required"
    elif way.versions is not None and (6 if is_v6 else 4) not in way.versions:
        cut = f"{way.interface} has no {'IPv6' if is_v6 else 'IPv4'} address"
    locals_: list[Any] = [here for here in way.addresses if (":" in here[0]) is is_v6]
    if way.addresses and not locals_:
        cut = cut or NO_FAMILY
    if not locals_:
        port = None if way.local is None else way.local.port
        locals_ = [("::" if is_v6 else "0.0.0.0", port) if port else None]
    hop_limit = end.hop_limit
    if hop_limit is None and way.local is not None:
        hop_limit = way.local.hop_limit
    what = show_address(remote)
    made = []
    for here in locals_:
        candidate = Candidate(stack, remote, here, hostname, way.interface, hop_limit)
        made.append(Node(parent, what, cut=cut, why=why, candidate=candidate, endpoint=end))
    return made


NO_LOCAL = "the Local Endpoint is for another protocol"
NO_ENDPOINT = "no Remote Endpoint is for it"
NO_FAMILY = "no local address is of its family"


def attach(
    node: Node,
    found: Iterable[Derived],
    order: Iterable[Derived] = (),
    *,
    temporary: Preference | None = None,
) -> list[Node]:
    """Put what a name has turned out to be below its *node*: addresses, or, where they come in
    groups, a node for each group with its addresses below (RFC 9623 section 4.1.1.1).  *order* has
    all that are known, best first.  Returns the new leaves.  No node gets more than
    `MAX_CHILDREN`."""
    made: list[Node] = []
    end = node.endpoint
    assert end is not None
    for one in found:
        parent = node if not one.group else _group(node, end, one)
        if parent is not None and len(parent.children) < MAX_CHILDREN:
            why = (f"found by {one.via}",) if one.via else ()
            made += _plant_leaves(parent, end, one.address, one.hostname, temporary, why)
    places = {one.address: place for place, one in enumerate(order)}
    for group in node.children:
        for leaf in (group, *group.children):
            if leaf.candidate is not None:
                leaf.place = places.get(leaf.candidate.remote, len(places))
        if group.branch is not None:
            group.place = min((leaf.place for leaf in group.children), default=len(places))
    return made


def _group(node: Node, end: RemoteEndpoint, one: Derived) -> Node | None:
    what = f"target {one.group}"
    for child in node.children:
        if child.what == what:
            return child
    if len(node.children) >= MAX_CHILDREN:
        return None
    return Node(node, what, Branch.ENDPOINTS, endpoint=end)


E = TypeVar("E", bound=Endpoint)


def for_stack(endpoints: Sequence[E], stack: Stack) -> tuple[E, ...]:
    """Those of *endpoints* that count for *stack*: the ones made for a protocol in it, if there
    are any, else those that are for all (RFC 9622 section 6.1.3)."""
    special = tuple(end for end in endpoints if end.protocol is not None and is_for(end, stack))
    return special or tuple(end for end in endpoints if end.protocol is None)


def is_for(endpoint: Endpoint, stack: Stack) -> bool:
    """Whether *endpoint* counts for *stack*."""
    return endpoint.protocol is None or any(plugin.name == endpoint.protocol for plugin in stack)


def plugins_of(candidate: Candidate) -> tuple[Plugin, ...]:
    """The candidate's plugins in the order in which they open: from the bottom up."""
    return tuple(reversed(candidate.stack))
