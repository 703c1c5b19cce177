"""From Endpoints to socket addresses (RFC 9623 section 4.2.1).

Resolution happens when a Connection or a Listener is made and not before: it tells name servers
whom we want to talk to.  `resolve` is for a Connection: it delivers addresses while others are
still being asked for.  `resolve_local` and `resolve_remote` wait for all.

What may be used when is decided by `Answers`, in which order by `ordering`, and what asks is a
`Resolver`: here are only the greenlets.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from ...errors import EstablishmentError, Reason, ResolutionError, TransportError
from ...hub import (
    Bell,
    Deadline,
    Parked,
    current_greenlet,
    get_runner,
    getaddrinfo,
    now,
    resolution_error,
    spawn,
    time_limit,
)
from ...transports.handles import resolve_stream
from ..endpoint import Endpoint, LocalEndpoint, RemoteEndpoint
from . import nat64
from .answers import (
    AAAA,
    MAX_ADDRESSES,
    MAX_TARGETS,
    SERVICE,
    A,
    Answers,
    Found,
    Question,
    Release,
    Target,
)
from .ordering import Past, interleave, sort_key
from .resolver import LOOPBACK, Resolver, both, default_resolver, is_loopback_name
from .sources import SourceFinder, policy, source_address

__all__ = [
    "MAX_ADDRESSES",
    "Derived",
    "News",
    "Resolution",
    "resolve",
    "resolve_local",
    "resolve_remote",
]

_KINDS = {socket.AF_INET6: AAAA, socket.AF_INET: A}
_FAMILIES = {kind: family for family, kind in _KINDS.items()}
BOTH_FAMILIES = frozenset(_KINDS)
_NO_PORT = -1


@dataclass(frozen=True, slots=True)
class Derived:
    """A socket address that a Remote Endpoint stands for (RFC 9623 section 4.1.1.1).

    *hostname* is the name that certificates are checked against: the one that the application
    gave, never one that a name server did.  *via* says how the address was found.  *group* is the
    number of the service's target that it belongs to, 0 for the name itself: each target is a
    branch, with addresses below it.  *alpn* has the protocols that the target says it speaks.
    """

    address: tuple[Any, ...]
    hostname: str | None = None
    via: str = "literal"
    group: int = 0
    alpn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class News:
    """What has become known of a Remote Endpoint.

    *added* are addresses to try, best first; *removed* are socket addresses not to be tried any
    more (attempts that run go on, RFC 8305 section 6).  *complete* says that nothing will follow;
    *error* is then why there are no addresses, if there are none at all.  *order* has every
    address that stands, in the order in which to try them: it says where late ones belong among
    the untried.  With *last_resort* it is worth while to `resolve` once more, as the last resort.
    """

    added: tuple[Derived, ...] = ()
    removed: tuple[tuple[Any, ...], ...] = ()
    complete: bool = False
    error: Exception | None = None
    order: tuple[Derived, ...] = ()
    last_resort: bool = False


class History(Protocol):
    """What of the past counts for the order of addresses (RFC 8305 section 4)."""

    def rtt(self, network: str, address: str, *, now: float, near: bool) -> float | None: ...
    def used(self, network: str, address: str, *, now: float) -> bool: ...


def resolve(
    endpoint: RemoteEndpoint,
    *,
    interface: str | None = None,
    families: frozenset[int] = BOTH_FAMILIES,
    protocol: str = "tcp",
    history: History | None = None,
    network: str = "",
    deadline: Deadline,
    deliver: Callable[[News], None],
    resolver: Resolver | None = None,
    translate: bool = True,
    last_resort: bool = False,
) -> Resolution:
    """Find the socket addresses of *endpoint*, and call *deliver* with what is found, each time
    that there is something new (RFC 8305 section 3).

    *interface* (str or None) is the one that will be used, and *network* tells what it is attached
    to; *families* has AF_INET, AF_INET6 or both; *protocol* is what carries the service, ``"tcp"``
    or ``"udp"``; *history* is what is remembered of addresses, per network.  *resolver* is None
    for the default one.  With *translate* an IPv4 address that there is no way to becomes what the
    network translates it to, if it does.  As a *last_resort* nothing is looked for but what the
    network translates the name's IPv4 addresses to (RFC 8305 section 7.2).

    An address in the Endpoint is delivered before this returns, and so is ``localhost``.  For a
    name, *deliver* is called in a greenlet of its own, where it may block, and the last `News` is
    `complete`, at the latest at the *deadline*.  Not a switchpoint itself.

    Returns an object with ``cancel()``, after which nothing is delivered.  Raises
    EstablishmentError (InvalidConfiguration) if the Endpoint has no name or address, or no port
    or service.
    """
    _check_remote(endpoint)
    made = Resolution(
        endpoint,
        interface=interface,
        families=families,
        protocol=protocol,
        history=history,
        network=network,
        deadline=deadline,
        deliver=deliver,
        resolver=resolver or default_resolver(),
        translate=translate,
    )
    if last_resort:
        made._begin_last_resort()
    else:
        made._begin()
    return made


class Resolution:
    """One Remote Endpoint that is being resolved.  Made by `resolve`."""

    def __init__(
        self,
        endpoint: RemoteEndpoint,
        *,
        interface: str | None,
        families: frozenset[int],
        protocol: str,
        history: History | None,
        network: str,
        deadline: Deadline,
        deliver: Callable[[News], None],
        resolver: Resolver,
        translate: bool,
    ) -> None:
        self._endpoint = endpoint
        self._interface = interface
        self._kinds = tuple(kind for family, kind in _KINDS.items() if family in families)
        self._protocol = protocol
        self._history = history
        self._network = network
        self._deadline = deadline
        self._deliver = deliver
        self._resolver = resolver
        self._translate = translate
        self._finder = SourceFinder(interface)
        self._keys: dict[tuple[Any, ...], tuple[float, ...]] = {}
        self._stands: dict[Found, tuple[Any, ...]] = {}
        self._delivered: dict[tuple[Any, ...], Derived] = {}
        self._asking: dict[Question, Any] = {}
        self._greenlet: Any = None
        self._complete = False  # the last news was given
        self._bell = Bell()
        self._cancelled = False

    def cancel(self) -> None:
        """Ask nothing more, and deliver nothing more.  Harmless to repeat; never switches."""
        self._cancelled = True
        self._stop_asking()
        greenlet = self._greenlet
        if greenlet is not None and greenlet is not current_greenlet():
            greenlet.kill(block=False)

    def _begin_greenlet(self, function: Callable[..., None], *args: Any) -> None:
        self._greenlet = spawn(function, *args)
        self._greenlet.rawlink(self._ended)

    def _ended(self, greenlet: Any) -> None:
        """The greenlet has ended; if its last News was not complete, then somebody killed it."""
        if not (self._complete or self._cancelled) and greenlet is self._greenlet:
            error = ResolutionError("the resolution was broken off", address=_shown(self._endpoint))
            spawn(self._give, News(complete=True, error=error))

    def _give(self, news: News) -> None:
        self._complete = news.complete
        self._deliver(news)

    # -- What needs no question --

    def _begin(self) -> None:
        address, name = self._endpoint.ip_address, self._endpoint.hostname or ""
        if address is None and is_loopback_name(name):
            self._begin_here()
            return
        literal: tuple[Any, ...] | ResolutionError | None
        if address is not None and "%" not in address:
            literal = (address, 0, 0, 0) if ":" in address else (address, 0)
        else:
            literal = _literal(address or name)
        if literal is None and self._kinds:
            self._begin_greenlet(self._run, self._answers())
            return
        port = self._port()
        if port is None:
            self._end(_unknown_service(self._endpoint, self._protocol))
        elif isinstance(literal, ResolutionError):
            self._end(literal)
        elif literal is not None and self._needs_translation(literal):
            self._begin_greenlet(self._run_translation, (literal[0], port))
        elif literal is None or _kind(literal[0]) not in self._kinds:
            self._end(self._no_family())
        else:
            self._deliver_all([(literal[0], port, *literal[2:])], "literal")

    def _begin_here(self) -> None:
        port = self._port()
        if port is None:
            self._end(_unknown_service(self._endpoint, self._protocol))
            return
        mine = [
            (address, port, 0, 0) if ":" in address else (address, port)
            for address in LOOPBACK.values()
            if _kind(address) in self._kinds
        ]
        # A machine without IPv6 has no ::1 either.
        usable = [address for address in mine if source_address(address) is not None]
        self._deliver_all(usable or mine, "localhost")

    def _needs_translation(self, literal: tuple[Any, ...]) -> bool:
        """Whether this is an IPv4 address that only an IPv6 network could lead to."""
        if not self._translate or AAAA not in self._kinds or ":" in literal[0]:
            return False
        if literal[0].startswith("127."):
            return False
        return A not in self._kinds or source_address(literal, self._interface) is None

    def _run_translation(self, literal: tuple[Any, ...]) -> None:
        """Deliver what the network translates an IPv4 address to, if it does (RFC 8305 section
        7.1)."""
        address, port = literal
        found = self._translated(lambda: [address], port, "NAT64")
        if self._cancelled:
            return
        if not found and A in self._kinds:
            found = [Derived(literal, self._endpoint.hostname)]
        if found:
            self._give(News(added=tuple(found), complete=True, order=tuple(found)))
        else:
            self._end(self._no_family())

    def _translating(self, last: News, base: Target) -> News:
        """The *last* news of a name, where only IPv6 leads anywhere: with what the network
        translates its IPv4 addresses to if it has no others, which is a last resort if it has."""
        if not self._translate or AAAA not in self._kinds or base.port == _NO_PORT:
            return last
        if any(one.group for one in last.order):
            return last
        v4 = [one for one in last.order if _kind(one.address[0]) == A]
        if A in self._kinds:
            if not v4 or any(len(self._keys[one.address]) > 1 for one in v4):
                return last
        elif last.error is not None and getattr(last.error, "code", None) != socket.EAI_NODATA:
            return last
        if len(v4) < len(last.order):
            return replace(last, last_resort=True)
        found = tuple(self._translated(self._ask_for_v4, base.port, "A, NAT64"))
        if A in self._kinds:  # it is for the routes to say what leads anywhere
            found = tuple(one for one in found if self._finder.find(one.address) is not None)
        if not found:
            return last
        return News((*found, *last.added), last.removed, True, None, (*found, *last.order))

    def _ask_for_v4(self) -> Sequence[str]:
        found = self._ask_resolver(self._endpoint.hostname or "", socket.AF_INET)
        return [one for one in found[:MAX_ADDRESSES] if _is_usable(one, socket.AF_INET)]

    def _begin_last_resort(self) -> None:
        self._begin_greenlet(self._run_last_resort, self._port())

    def _run_last_resort(self, port: int | None) -> None:
        found: tuple[Derived, ...] = ()
        if port is not None:
            found = tuple(self._translated(self._ask_for_v4, port, "A, NAT64"))
        if not self._cancelled:
            self._give(News(added=found, complete=True, order=found))

    def _translated(self, ask: Callable[[], Sequence[str]], port: int, via: str) -> list[Derived]:
        """What the network translates the IPv4 addresses to that *ask* answers with: nothing if it
        does not, or if there is nobody to say so.  A switchpoint."""
        try:
            with time_limit(self._deadline.left()):
                answer, addresses = both(
                    lambda: self._ask_resolver(nat64.KNOWN_NAME, socket.AF_INET6), ask
                )
            if isinstance(answer, Exception) or isinstance(addresses, Exception):
                return []
            prefixes = nat64.prefixes_in(answer)[:MAX_TARGETS]
            made = [nat64.translated(one, prefix) for one in addresses for prefix in prefixes]
        except Exception:  # of a resolver of others, also of what it answers: no reason to hang
            return []
        return [
            Derived((address, port, 0, 0), self._endpoint.hostname, via)
            for address in made[:MAX_ADDRESSES]
            if address is not None
        ]

    def _deliver_all(self, addresses: Sequence[tuple[Any, ...]], via: str) -> None:
        found = tuple(Derived(address, self._endpoint.hostname, via) for address in addresses)
        self._give(News(added=found, complete=True, order=found))

    def _end(self, error: Exception) -> None:
        self._give(News(complete=True, error=error))

    def _no_family(self) -> ResolutionError:
        made = ResolutionError(
            "no address of a family that may be used", address=_shown(self._endpoint)
        )
        made.code = socket.EAI_ADDRFAMILY
        return made

    def _port(self) -> int | None:
        """The port, as the Endpoint or this machine's table of services says."""
        return _port_of(self._endpoint, self._protocol)

    # -- What does --

    def _run(self, answers: Answers) -> None:
        try:
            complete = False
            while not (complete or self._cancelled):
                news = self._next(answers)
                if news is not None:
                    complete = news.complete
                    if complete:
                        news = self._translating(news, answers.base)
                    if not self._cancelled:
                        self._give(news)
        finally:
            self._stop_asking()

    def _next(self, answers: Answers) -> News | None:
        """Ask, wait, and look whether there is something new.  A switchpoint."""
        try:
            for question in answers.ask():
                self._asking[question] = greenlet = spawn(self._ask, answers, question)
                greenlet.rawlink(partial(self._asked, answers, question))
            self._bell.wait(self._deadline, answers.wake_at)
            if self._deadline.passed():
                self._give_up(answers)
            release = answers.take(now())
            return None if release is None else self._news_of(release, answers)
        except Exception as error:  # of a resolver or a history of others: no reason to hang
            return News(complete=True, error=error)

    def _answers(self) -> Answers:
        end = self._endpoint
        port = self._port()
        service = None
        if end.port is None and end.service is not None and not end.service.isdecimal():
            service = self._resolver.asks_for(end.service)
        base = Target(end.hostname or "", _NO_PORT if port is None else port)
        return Answers(base, self._kinds, service)

    def _ask(self, answers: Answers, question: Question) -> None:
        try:
            if question.kind == SERVICE:
                answers.tell_targets(self._ask_for_targets(question.target), now())
            else:
                answers.tell(question, self._ask_for_addresses(question), now())
        except Exception as error:
            code = getattr(error, "code", None)
            if question.kind == SERVICE and code == socket.EAI_SERVICE:
                answers.refuse(error)
            else:
                answers.fail(question, error, now(), certain=code in _NEGATIVE)
        self._asking.pop(question, None)
        self._bell.ring()

    def _asked(self, answers: Answers, question: Question, _greenlet: Any) -> None:
        """The greenlet that asked has ended; if it has not said how, then somebody killed it."""
        if self._asking.pop(question, None) is not None:
            answers.fail(question, ResolutionError("the resolution was broken off"), now())
            self._bell.ring()

    def _ask_for_targets(self, base: Target) -> Sequence[Target]:
        found = self._resolver.targets(
            base.name,
            self._endpoint.service or "",
            self._protocol,
            None if base.port == _NO_PORT else base.port,
            interface=self._interface,
            network=self._network,
        )
        return [
            replace(
                target,
                hints=tuple(
                    hint for hint in target.hints if _is_usable(hint, _FAMILIES[_kind(hint)])
                ),
            )
            for target in found[:MAX_TARGETS]
        ]

    def _ask_for_addresses(self, question: Question) -> Iterable[str]:
        if question.target.port == _NO_PORT:
            raise _unknown_service(self._endpoint, self._protocol)
        family = _FAMILIES[question.kind]
        found = self._ask_resolver(question.target.name, family)
        return (address for address in found if _is_usable(address, family))

    def _ask_resolver(self, name: str, family: int) -> Sequence[str]:
        return self._resolver.addresses(
            name, family, interface=self._interface, network=self._network
        )

    def _give_up(self, answers: Answers) -> None:
        """The time is over: nothing that is still being asked counts."""
        late = list(self._asking)
        self._stop_asking()
        error = TransportError(
            f"the resolution of {self._endpoint.hostname!r} timed out",
            errno.ETIMEDOUT,
            _shown(self._endpoint),
        )
        for question in sorted(late, key=lambda question: question.kind != SERVICE):
            answers.fail(question, error, now())
        for question in answers.ask():
            answers.fail(question, error, now())

    def _stop_asking(self) -> None:
        while self._asking:
            _, greenlet = self._asking.popitem()
            greenlet.kill(block=False)

    # -- What is told --

    def _news_of(self, release: Release, answers: Answers) -> News | None:
        for found in release.removed:
            del self._stands[found]
        for found in release.added:
            self._stands[found] = self._socket_address(found)
        order = self._order(answers)
        stands = {derived.address: derived for derived in order}
        added = tuple(one for one in order if one.address not in self._delivered)
        removed = tuple(address for address in self._delivered if address not in stands)
        self._delivered = stands
        if not (added or removed or release.complete):
            return None
        error = None
        if release.complete and not stands:
            error = self._failure(answers.errors)
        return News(added, removed, release.complete, error, order)

    def _order(self, answers: Answers) -> tuple[Derived, ...]:
        """All that stands: the targets in their order, and in each the addresses by RFC 6724, the
        families alternating, and those that there is no way to last."""
        groups: dict[int, list[Found]] = {}
        for found in self._stands:
            groups.setdefault(found.target.group, []).append(found)
        ordered: dict[tuple[Any, ...], Derived] = {}
        for target in answers.order():
            members = groups.get(target.group, [])
            members.sort(key=self._key)
            usable = [found for found in members if len(self._key(found)) > 1]
            for found in interleave(usable, _is_v6) + members[len(usable) :]:
                address = self._stands[found]
                ordered.setdefault(address, self._derived(found, address))
        return tuple(ordered.values())

    def _key(self, found: Found) -> tuple[float, ...]:
        address = self._stands[found]
        key = self._keys.get(address)
        if key is None:
            source = self._finder.find(address)
            key = self._keys[address] = sort_key(address[0], source, self._past(address), policy())
        return key

    def _past(self, address: tuple[Any, ...]) -> Past:
        if self._history is None:
            return Past()
        return Past(
            self._history.rtt(self._network, address[0], now=now(), near=True),
            self._history.used(self._network, address[0], now=now()),
        )

    def _derived(self, found: Found, address: tuple[Any, ...]) -> Derived:
        target = found.target
        via = f"{target.origin} {found.kind}" if target.origin else found.kind
        return Derived(address, self._endpoint.hostname, via, target.group, target.alpn)

    def _socket_address(self, found: Found) -> tuple[Any, ...]:
        host, _, zone = found.address.partition("%")
        if found.kind == A:
            return (host, found.target.port)
        # A link-local address is on the interface that is used, if no zone says otherwise.
        if not zone and self._interface is not None and _is_link_local(host):
            zone = self._interface
        return (host, found.target.port, 0, _scope_id(zone))

    def _failure(self, errors: Sequence[Exception]) -> Exception:
        """Of several reasons the one that says most: no time and no answer before no address."""
        if not errors:
            host = self._endpoint.hostname
            nothing = socket.gaierror(socket.EAI_NODATA, "the name has no address")
            return resolution_error(host, _shown(self._endpoint)[1], nothing)
        return min(errors, key=lambda error: getattr(error, "code", None) in _NEGATIVE)


# What a resolver says of a name that is not there, or has no address of the family.
_NEGATIVE = (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY)


def _is_v6(found: Found) -> bool:
    return found.kind == AAAA


def _kind(address: str) -> str:
    return AAAA if ":" in address else A


def _is_link_local(address: str) -> bool:
    return 0xFE80 <= int(address.partition(":")[0] or "0", 16) <= 0xFEBF


def _is_usable(address: str, family: int) -> bool:
    """Whether a name may stand for *address*.  Not for one that means "here" to the kernel without
    being this machine's, nor for an IPv4 address in disguise (RFC 4291 section 2.5.5.2)."""
    try:
        packed = socket.inet_pton(family, address.partition("%")[0])
    except OSError:
        return False
    if family == socket.AF_INET:
        return packed[0] != 0
    return not packed.startswith((bytes(15) + b"\0", bytes(10) + b"\xff\xff"))


def _scope_id(zone: str) -> int:
    if not zone or zone.isdecimal():
        return int(zone or 0)
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        return 0


def _literal(host: str) -> tuple[Any, ...] | ResolutionError | None:
    """The socket address, with port 0, that *host* is the text of; None if it is a name; the error
    if it is neither."""
    if ":" not in host and not host[:1].isdigit():
        return None
    try:
        found = getaddrinfo(host, None, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError) as error:
        return resolution_error(host, None, error) if ":" in host else None
    return found[0][4]


def _port_of(endpoint: Endpoint, protocol: str) -> int | None:
    """The port of *endpoint*; None if it has a service that this machine does not know."""
    if endpoint.port is not None:
        return endpoint.port
    service = endpoint.service or ""
    if service.isdecimal():
        return int(service)
    # A protocol that is not in the table, as one that looks like TCP, has TCP's ports.
    for asked in ((service, protocol), (service,)):
        try:
            return socket.getservbyname(*asked)
        except OSError:
            continue
    return None


def _shown(endpoint: Endpoint) -> tuple[Any, Any]:
    """An Endpoint as errors name it: what was to be looked up, and for which port or service."""
    port = endpoint.port if endpoint.port is not None else endpoint.service
    return (endpoint.hostname or endpoint.ip_address, port)


def _unknown_service(endpoint: Endpoint, protocol: str) -> ResolutionError:
    made = ResolutionError(
        f"no port is known for the service {endpoint.service!r} over {protocol}",
        address=_shown(endpoint),
    )
    made.code = socket.EAI_SERVICE
    return made


def _check_remote(endpoint: Endpoint) -> None:
    """Raise EstablishmentError unless *endpoint* says whom to connect to."""
    if endpoint.hostname is None and endpoint.ip_address is None:
        raise EstablishmentError(
            f"a Remote Endpoint needs a host name or an address: {endpoint!r}",
            Reason.INVALID_CONFIGURATION,
        )
    if endpoint.port is None and endpoint.service is None:
        raise EstablishmentError(
            f"a Remote Endpoint needs a port or a service: {endpoint!r}",
            Reason.INVALID_CONFIGURATION,
        )


def resolve_remote(
    endpoints: Iterable[RemoteEndpoint], deadline: Deadline, *, resolver: Resolver | None = None
) -> list[tuple[Any, str | None]]:
    """The (socket address, host name) pairs of all Remote Endpoints, for whoever needs all of them
    at once: a Listener that is to let in only these.  They are looked up at the same time, by
    *resolver* (None is the default one).

    An Endpoint that cannot be resolved is left out if another one can.  A switchpoint.  Raises
    EstablishmentError.
    """
    ends = list(endpoints)
    for end in ends:
        _check_remote(end)
    latest: list[News] = [News()] * len(ends)
    parked: Parked[None] = Parked(get_runner())

    def hear(index: int, news: News) -> None:
        latest[index] = news
        if all(one.complete for one in latest):
            parked.finish(None)

    looked_up = []
    try:
        looked_up += [
            resolve(
                end,
                deadline=deadline,
                deliver=partial(hear, index),
                resolver=resolver,
                translate=False,
            )
            for index, end in enumerate(ends)
        ]
        if ends:
            parked.wait()
    finally:
        for one in looked_up:
            one.cancel()
    found = [(one.address, one.hostname) for news in latest for one in news.order]
    failures = [(end, news.error) for end, news in zip(ends, latest, strict=True) if news.error]
    for _, error in failures:
        if not isinstance(error, TransportError):
            raise error
    if not found:
        raise _unresolved("Remote", failures)
    return found


def resolve_local(
    endpoints: Iterable[LocalEndpoint], deadline: Deadline, *, passive: bool
) -> list[Any]:
    """The socket addresses of all Local Endpoints.  With *passive* they are for listening: an
    Endpoint without a host or address means every address of the machine.  A switchpoint.
    Raises EstablishmentError."""
    found: list[Any] = []
    for endpoint in endpoints:
        if not passive and endpoint.hostname is None and endpoint.ip_address is None:
            raise EstablishmentError(
                f"a Local Endpoint needs an address to initiate from: {endpoint!r}",
                Reason.INVALID_CONFIGURATION,
            )
        try:
            names = _resolve(endpoint, socket.AI_PASSIVE if passive else 0, deadline)
        except TransportError as error:
            raise _unresolved("Local", [(endpoint, error)]) from error
        found += [name for name in names[:MAX_ADDRESSES] if name not in found]
    return found


def _resolve(endpoint: LocalEndpoint, flags: int, deadline: Deadline) -> list[Any]:
    host = endpoint.ip_address or endpoint.hostname
    port: int | str = endpoint.port if endpoint.port is not None else endpoint.service or 0
    return resolve_stream((host, port), 0, flags, deadline)


def _unresolved(
    which: str, failures: Sequence[tuple[Endpoint, BaseException]]
) -> EstablishmentError:
    unresolved = all(isinstance(error, ResolutionError) for _, error in failures)
    return EstablishmentError(
        f"no {which} Endpoint could be resolved",
        Reason.RESOLUTION_FAILED if unresolved else Reason.TIMEOUT,
        failures,
    )
