"""Establishing: the driver of a race, and of a single attempt (RFC 9623 sections 4.3 and 4.4).

Each attempt is a greenlet that opens a stack from the bottom up and waits until the top is ready,
and the framers on it.  An `Establishment` starts them as the `Race` says, and ends what did not
win.  A single candidate needs no greenlet.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...errors import EstablishmentError, Reason, ResolutionError, Timeout, TransportError
from ...framers import Framer, FramerHost, FramerStack
from ...hub import Bell, Deadline, Parked, get_runner, now, spawn
from ...plugins import Attempt, lacks
from .. import monitoring
from ..early import Ahead, First
from ..message import MessageContext, fresh_context
from ..naming.resolving import News
from .candidates import NO_ENDPOINT, NO_FAMILY, NO_LOCAL, Candidate, Node, Way, attach, plugins_of
from .racing import Order, Race, Verb

__all__ = [
    "GOODBYE_TIMEOUT",
    "Established",
    "Establishment",
    "Readying",
    "drop",
    "failure_of",
    "failure_reason",
]


# How long a framer's last words before a failure may take to arrive.
GOODBYE_TIMEOUT = 5.0  # seconds


class _PoliteRefusal(TransportError):
    """A framer has told the peer why it refuses: the transport ends by itself."""


def drop(transport: Any, error: BaseException | None) -> None:
    """Abort a *transport* that is not to be used because of *error*; unless it is about to carry
    a framer's last words, and ends then."""
    if not isinstance(error, _PoliteRefusal):
        transport.abort()


# What we are short of ourselves says nothing of the peer.
_OUR_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Established:
    """A ready transport with its framers, the candidate that it came from, how long each step took
    (in seconds), and the explanation of how it was chosen, if it was.

    *remember*, if it is not None, is to be called when the transport is about to end: it keeps what
    the system has measured of it.

    *ahead* is the first Message, if that is under way already.  *early* is None if no data has
    travelled with the establishment, else how many of the bytes to be received have, at most.
    """

    __slots__ = (
        "ahead",
        "candidate",
        "early",
        "framers",
        "history",
        "phases",
        "remember",
        "transport",
    )

    def __init__(
        self,
        candidate: Candidate,
        transport: Any,
        phases: tuple[tuple[str, float], ...],
        framers: FramerStack | None = None,
    ) -> None:
        self.candidate = candidate
        self.transport = transport
        self.phases = phases
        self.framers = framers
        self.history: Any = None
        self.remember: Callable[[], None] | None = None
        self.ahead: Ahead | None = None
        self.early: int | None = None


class Readying(FramerHost):
    """The protocol of a transport that nobody has taken yet.

    It waits for ``connection_made``, and for the framers to be ready; then it keeps the transport
    from reading until somebody takes it.  *done* is called once, with the error or None.
    *hostname* is the peer's name, for framers that ask.  Of framers that have started *ahead* it
    holds back what they write, since it goes behind the first Message.
    """

    def __init__(
        self,
        transport: Any,
        done: Any,
        framers: Sequence[Framer] = (),
        hostname: str | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self._transport = transport
        self._done = done
        self._hostname = hostname
        self._ahead = ahead
        self.framers: FramerStack | None = None
        self.received = 0  # bytes that the framers have had
        if ahead is not None:
            self.framers = ahead.stack
            if self.framers is not None:
                self.framers.host = self
        elif framers:
            datagrams = hasattr(transport, "largest")
            self.framers = FramerStack(framers, self, datagrams=datagrams)
        transport.call_when_lost(self._lost)

    # -- From the transport --

    def connection_made(self, transport: Any) -> None:
        if self.framers is None:
            self._ready()
        elif self._ahead is None:
            self.framers.start()
        elif self.framers.error is not None:
            self.framers_failed(self.framers.error)
        else:
            self._ready()

    def _ready(self) -> None:
        self._transport.pause_reading()
        self._tell(None)

    def _lost(self, transport: Any, error: BaseException | None) -> None:
        if self._done is not None:
            self._tell(
                error
                or TransportError("the peer closed the connection at once", errno.ECONNABORTED)
            )

    def _tell(self, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)

    def connection_lost(self, exc: BaseException | None) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        if self.framers is not None:
            self.received += len(data)
            self.framers.feed(data)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.framers is not None:
            self.framers.feed_datagram(data)

    def error_received(self, exc: TransportError) -> None:
        pass

    def eof_received(self) -> bool:
        self._tell(
            TransportError(
                "the peer ended its stream while the connection was being made",
                errno.ECONNABORTED,
            )
        )
        return False

    def pause_writing(self) -> None:
        self.write_blocked = True

    def resume_writing(self) -> None:
        self.write_blocked = False

    # -- From the framers --

    def write(self, data: Any) -> None:
        if self._ahead is not None:
            self._ahead.write(data)
        else:
            self._transport.write(data)

    def new_context(self, below: Any = None) -> MessageContext:
        return fresh_context(below)

    def get_property(self, name: str, default: Any = None) -> Any:
        return self._hostname if name == "hostname" and self._hostname else default

    def framers_ready(self) -> None:
        self._ready()

    def pause_receiving(self) -> None:
        self._transport.pause_reading()

    def resume_receiving(self) -> None:
        if self._done is not None:  # else whoever takes the transport decides
            self._transport.resume_reading()

    def framers_failed(self, error: Exception) -> None:
        made: TransportError
        if self.framers is not None and self.framers.said_goodbye:
            made = _PoliteRefusal(f"a framer has refused the connection: {error}", errno.EPROTO)
            self._transport.close_after_delivery()
            self._transport.close(GOODBYE_TIMEOUT)
        else:
            made = TransportError(f"a framer has refused the connection: {error}", errno.EPROTO)
            self._transport.abort(made)
        made.__cause__ = error
        self._tell(made)


def attempt_one(
    candidate: Candidate,
    template: Attempt,
    framers: Sequence[Framer] = (),
    first: First | None = None,
) -> Established:
    """Open *candidate*'s stack and wait until it and the framers are ready.  A switchpoint.

    *first* may be sent meanwhile.  Raises TransportError, with nothing left open.
    """
    attempt = Attempt(
        candidate.remote,
        candidate.local,
        candidate.hostname,
        template.options,
        template.security,
        template.deadline,
        template.admit,
        candidate.interface,
        candidate.hop_limit,
    )
    ahead = None
    if template.options.get("zeroRttMsg") and not template.options.get("isolateSession"):
        ahead = _go_ahead(candidate, attempt, framers, first)
    monitoring.attempt_began(candidate)
    started = begun = now()
    phases = []
    transport = None
    try:
        for plugin in plugins_of(candidate):
            transport = plugin.open(attempt, transport)
            phases.append((plugin.name, now() - begun))
            begun = now()
        stack = made_ready(transport, attempt.deadline, framers, attempt.hostname, ahead)
    except BaseException as error:
        monitoring.attempt_failed(candidate, error)
        if transport is not None:
            drop(transport, error)
        raise
    monitoring.attempt_won(candidate, now() - started)
    name, seconds = phases.pop()
    phases.append((name, seconds + now() - begun))
    established = Established(candidate, transport, tuple(phases), stack)
    if ahead is not None:
        assert attempt.early is not None
        established.ahead = ahead
        if ahead.sent(attempt.early) and candidate.stack[0].early(transport) is not None:
            established.early = 0  # it is ours
    return established


def _go_ahead(
    candidate: Candidate, attempt: Attempt, framers: Sequence[Framer], first: First | None
) -> Ahead | None:
    """Where early data is wanted: let go what may, of *first* or of a layer's greeting."""
    stack = candidate.stack
    if first is not None and not lacks(stack, "zeroRttMsg", server_side=False):
        ahead = Ahead(first, framers, attempt.hostname)
        if ahead.usable:
            attempt.early = ahead.data
            return ahead
    attempt.greets = len(stack) > 1 and stack[-2].greets
    return None


def made_ready(
    transport: Any,
    deadline: Deadline,
    framers: Sequence[Framer],
    hostname: str | None = None,
    ahead: Ahead | None = None,
) -> FramerStack | None:
    """Start *transport* and wait until it and *framers* are ready; returns their stack.  Those that
    have started *ahead* are ready already.  A switchpoint.  Raises what prevented it."""
    parked: Parked[BaseException | None] = Parked(get_runner())
    readying = Readying(transport, parked.finish, framers, hostname, ahead)
    transport.start(readying)
    try:
        error = parked.wait(deadline.left())
    except Timeout:
        error = TransportError(
            "the handshake timed out", errno.ETIMEDOUT, transport.get_extra_info("peername")
        )
    if error is not None:
        raise error
    return readying.framers


class Establishment:
    """One race: the greenlets of its attempts and the look-ups of its names.

    *race* says what to do, *template* is what each attempt is told but for its candidate, *derive*
    starts the look-up of a node's name: it is called as ``derive(node, deliver, last_resort)`` and
    returns what has a ``cancel``.  *learn* is told how each attempt has ended.  With *may_grow*
    others may call `join` meanwhile.  *first* is a Message that may be sent by each attempt on the
    path that is tried first: who watches several paths shall not see it on all of them.
    """

    def __init__(
        self,
        race: Race,
        template: Attempt,
        framers: Sequence[Framer],
        derive: Callable[[Node, Callable[[News], None], bool], Any],
        learn: Callable[[Node, float, Established | None], None] | None = None,
        temporary: Any = None,
        may_grow: bool = False,
        first: First | None = None,
    ) -> None:
        self._race = race
        self._may_grow = may_grow
        self._first = first
        self._first_path: Way | None = None
        self._template = template
        self._framers = framers
        self._derive = derive
        self._learn = learn
        self._temporary = temporary
        self._under_way: dict[Node, Any] = {}  # greenlets, and look-ups
        self._events: deque[tuple[Node, Established | News | BaseException]] = deque()
        self._bell = Bell()
        self._stopped = False
        self._failures: list[tuple[Any, BaseException]] = []

    def run(self) -> Established:
        """Race, and return the winner.  A switchpoint.

        Raises EstablishmentError with every attempt's error.  However it ends, nothing of the
        others is left open.
        """
        race = self._race
        deadline = self._template.deadline
        try:
            orders = race.start(now())
            only = self._only(orders)
            if only is not None:
                return self._run_alone(only)
            self._obey(orders)
            while not race.over:
                self._bell.wait(deadline, race.wake_at)
                winner = self._handle_events()
                if winner is not None:
                    return winner
                if deadline.passed():
                    break
                self._obey(race.wake(now()))
            raise self._failure()
        finally:
            race.give_up(now())
            self._stop_all()

    def join(self, added: Sequence[Node]) -> None:
        """The root of the tree has got the branches *added*.  Not a switchpoint."""
        self._obey(self._race.join(added, now()))
        self._bell.ring()  # when to wake has changed

    def _only(self, orders: Sequence[Order]) -> Node | None:
        """The one candidate, if there is just one and will be no other: it needs no greenlet."""
        if self._may_grow:
            return None
        if len(orders) == 1 and orders[0].verb is Verb.ATTEMPT and self._race.all_begun:
            return orders[0].node
        return None

    def _run_alone(self, node: Node) -> Established:
        result = self._attempt(node)
        if isinstance(result, Established):
            self._race.succeeded(node, now())
            return result
        self._has_failed(node, result)
        raise self._failure()

    def _obey(self, orders: Sequence[Order]) -> None:
        for verb, node in orders:
            if verb is Verb.ATTEMPT:
                self._under_way[node] = greenlet = spawn(self._attempt_and_tell, node)
                greenlet.rawlink(partial(self._ended, node))
            else:
                self._look_up(node, last_resort=verb is Verb.RESORT)

    def _look_up(self, node: Node, *, last_resort: bool) -> None:
        def deliver(news: News) -> None:
            self._tell(node, news)

        look_up = self._derive(node, deliver, last_resort)
        if look_up is not None:
            self._under_way[node] = look_up

    def _attempt(self, node: Node) -> Established | Exception:
        """Attempt one candidate; returns what came of it.  A switchpoint."""
        assert node.candidate is not None
        begun = now()
        try:
            first = None if self._first is None else self._first_on(node.path)
            result = attempt_one(node.candidate, self._template, self._framers, first)
        except TransportError as error:
            if error.errno not in _OUR_OWN:
                self._teach(node, begun, None)
            return error
        self._teach(node, begun, result)
        return result

    def _first_on(self, path: Way | None) -> First | None:
        if self._first_path is None:
            self._first_path = path
        return self._first if path == self._first_path else None

    def _teach(self, node: Node, begun: float, result: Established | None) -> None:
        if self._learn is not None:
            try:
                self._learn(node, begun, result)
            except Exception as error:  # a bug, of a plugin or a History: it costs no Connection
                get_runner().collect(error)

    def _attempt_and_tell(self, node: Node) -> None:
        try:
            result: Established | BaseException = self._attempt(node)
        except Exception as error:
            result = error
        self._tell(node, result)

    def _ended(self, node: Node, greenlet: Any) -> None:
        """The greenlet of an attempt has ended; if it has not said how, then somebody killed it."""
        untold = all(told is not node for told, _ in self._events)
        if untold and self._under_way.get(node) is greenlet:
            self._tell(node, TransportError("the attempt was broken off", errno.ECANCELED))

    def _tell(self, node: Node, event: Established | News | BaseException) -> None:
        if self._stopped:  # its greenlet was faster than the news that it is to be killed
            _drop(event)
            return
        self._events.append((node, event))
        self._bell.ring()

    def _handle_events(self) -> Established | None:
        while self._events:
            node, event = self._events.popleft()
            if isinstance(event, Established):
                self._under_way.pop(node, None)
                self._race.succeeded(node, now())
                return event
            if isinstance(event, BaseException):
                self._under_way.pop(node, None)
                self._obey(self._has_failed(node, event))
            else:
                self._handle_news(node, event)
        return None

    def _handle_news(self, node: Node, news: News) -> None:
        if news.complete:
            self._under_way.pop(node, None)
        if news.error is not None:
            self._obey(self._has_failed(node, news.error))
            return
        removed = [
            child
            for group in (node, *node.children)
            for child in group.children
            if child.candidate is not None and child.candidate.remote in news.removed
        ]
        added = attach(node, news.added, news.order, temporary=self._temporary)
        orders = self._race.derived(
            node,
            added,
            now(),
            removed=removed,
            complete=news.complete,
            last_resort=news.last_resort,
        )
        self._obey(orders)

    def _has_failed(self, node: Node, error: BaseException) -> list[Order]:
        if not isinstance(error, TransportError):
            raise error
        self._failures.append((node.candidate or node.endpoint, error))
        return self._race.failed(node, now(), error)

    def _stop_all(self) -> None:
        for node, one in self._under_way.items():
            if node.candidate is None:
                one.cancel()
            else:
                one.kill(block=False)
        self._stopped = True
        # Of two that finished in one turn only the first was taken.
        for _, event in self._events:
            _drop(event)

    def _failure(self) -> EstablishmentError:
        return failure_of(self._race.root, self._failures, self._template.deadline)


def _drop(event: Established | News | BaseException) -> None:
    """Nobody wants what an attempt has come to any more."""
    if isinstance(event, Established):
        event.transport.abort()


def failure_of(
    root: Node, failures: Sequence[tuple[Any, BaseException]], deadline: Deadline
) -> EstablishmentError:
    """The error for a race over the tree of *root* that nobody has won."""
    if deadline.passed():
        return EstablishmentError("the time is over", Reason.TIMEOUT, failures)
    tried = [error for what, error in failures if isinstance(what, Candidate)]
    if tried:
        reason = failure_reason(tried)
        return EstablishmentError("no candidate could be connected", reason, failures)
    if failures:
        unresolved = all(isinstance(error, ResolutionError) for _, error in failures)
        return EstablishmentError(
            "no Remote Endpoint could be resolved",
            Reason.RESOLUTION_FAILED if unresolved else Reason.TIMEOUT,
            failures,
        )
    cuts = list(dict.fromkeys(node.cut for node in root.walk() if node.cut and node.endpoint))
    if any(node.cut in (NO_ENDPOINT, NO_LOCAL) for node in root.walk()):
        return EstablishmentError(
            "no Local and no Remote Endpoint is for a protocol that has what is asked for",
            Reason.INVALID_CONFIGURATION,
        )
    if NO_FAMILY in cuts:
        return EstablishmentError(
            "the Local and the Remote Endpoints have no address family in common",
            Reason.INVALID_CONFIGURATION,
        )
    why = "; ".join(cuts) or "no address was found"
    return EstablishmentError(f"there is no candidate: {why}", Reason.NO_CANDIDATES)


def failure_reason(errors: Sequence[BaseException]) -> Reason:
    """What several failed attempts amount to: that the system forbids it, if it forbids all; that
    time ran out, if it did for all."""
    if errors and all(isinstance(error, PermissionError) for error in errors):
        return Reason.POLICY_PROHIBITED
    if errors and all(isinstance(error, TimeoutError) for error in errors):
        return Reason.TIMEOUT
    return Reason.ESTABLISHMENT_FAILED
