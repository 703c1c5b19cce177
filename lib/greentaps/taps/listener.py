"""The Listener: incoming Connections (RFC 9622 section 7.2).

A transport that is accepted becomes a Connection when its stack and its framers are ready, so after
the handshake.  What waits is bounded: when too many Connections wait for the application, or too
many handshakes are under way, further ones stay in the kernel's backlog.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from ..errors import EstablishmentError, Reason, SwitchpointError, TransportError
from ..hub import Parked, check_timeout, current_greenlet, get_runner, marks_switchpoint, now
from ..plugins import Attempt, Stack, stack_name
from ..transports.peek import Peek
from . import monitoring
from .choosing.candidates import Candidate
from .choosing.establishing import Established, Readying, drop
from .choosing.gathering import OPPORTUNITY
from .connection import Connection
from .endpoint import LocalEndpoint, endpoint_of
from .events import Events, ListenerHandlers
from .paths.following import Follower, Paths, Place, Plan, place
from .properties import INFINITE
from .setup import Setup

__all__ = ["Listener"]

MAX_WAITING = 128  # Connections that the application has not accepted
MAX_HANDSHAKES = 1024  # connections whose stack is not ready
_TLS_HANDSHAKE = b"\x16"  # the first byte of a ClientHello's record (RFC 8446 section 5.1)
FRAMERS_TIMEOUT = 30.0  # seconds that the framers of a new connection may take to be ready


class Listener(ListenerHandlers):
    """Made by `Preconnection.listen`.  Iterate over it, call `accept`, or set a handler with
    `on_connection_received`.

    A context manager: leaving it stops it.
    """

    def __init__(self, setup: Setup, attempt: Attempt) -> None:
        self._setup = setup
        self._of_each = replace(setup, events=None)  # the setup of each Connection
        self._attempt = attempt
        self._runner = get_runner()
        self._events = None
        if setup.events is not None:
            self._events = Events()
            self._events.inherit(setup.events)
        self._sources: dict[Place, Any] = {}
        self._follower: Follower | None = None
        self._waiting: deque[Connection] = deque()
        self._handing = 0  # ConnectionReceived events that wait for their turn
        self._acceptors: deque[Parked[Connection]] = deque()
        self._handshakes: dict[Any, Any] = {}  # transport -> the timer of its framers
        self._left: float = inf  # how many more Connections may be delivered
        self._paused = False
        self._stopped = False
        self._runner.adopt(self)

    def open(self, stack: Stack, local: Any, endpoint: LocalEndpoint) -> Any:
        """For `Preconnection.listen`: listen at the socket address *local*, which is one of
        *endpoint*'s, with *stack*; returns the address that it has become.  A switchpoint.
        Raises TransportError."""
        bottom = stack[-1]
        attempt = replace(
            self._attempt,
            local=local,
            interface=endpoint.interface,
            hop_limit=endpoint.hop_limit,
        )

        phases = ((stack_name(stack), 0.0),)  # of those that are ready at once
        secured = self._setup.secured(stack)
        at_once = len(stack) == 1 and not self._setup.framers and secured is None

        def deliver(transport: Any) -> None:
            if at_once and getattr(transport, "starts_ready", False) and not self._stopped:
                self._ready_at_once(stack, transport, phases)
            else:
                self._arrived(stack, transport, secured)

        source = bottom.listen(attempt, deliver)
        if self._stopped:  # meanwhile
            source.close()
            raise TransportError("the Listener has been stopped")
        self._sources[place(stack, source.address, endpoint.interface)] = source
        if self._paused:
            source.pause()
        return source.address

    def follow(self, plans: Sequence[Plan], paths: Paths) -> None:
        """For `Preconnection.listen`: from now on listen on the interfaces that come, and no longer
        on those that go (RFC 9623 section 4.7).  *plans* say what to do on each interface that
        *paths* names for their endpoint."""
        self._follower = Follower(self, self._sources, plans, paths)

    # -- From below, in callbacks --

    def _ready_at_once(
        self, stack: Stack, transport: Any, phases: tuple[tuple[str, float], ...]
    ) -> None:
        """A new connection whose stack needs no time to be ready, as TCP and UDP."""
        peer = transport.get_extra_info("peername")
        admit = self._attempt.admit
        if admit is not None and not admit(peer):
            monitoring.turned_away(peer, "not a Remote Endpoint")
            transport.abort()
            return
        connection = Connection(self._of_each, self._runner)
        established = Established(Candidate(stack, peer), transport, phases)
        if self._setup.zero_rtt:
            established.early = stack[0].early(transport)
        try:
            connection.begin(established)
        except TransportError:
            transport.abort()
            return
        self._waiting.append(connection)
        self._hand_out()
        if self._paused or len(self._waiting) + self._handing >= MAX_WAITING:
            self._regulate()

    def _arrived(self, stack: Stack, transport: Any, secured: Stack | None = None) -> None:
        """A new connection, which is to become ready."""
        begun = now()
        admit = self._attempt.admit
        if admit is not None and not admit(transport.get_extra_info("peername")):
            monitoring.turned_away(transport.get_extra_info("peername"), "not a Remote Endpoint")
            transport.abort()
        elif secured is None:
            self._begin(stack, transport, begun)
        else:
            self._listen_first(stack, secured, transport, begun)

    def _listen_first(self, stack: Stack, secured: Stack, transport: Any, begun: float) -> None:
        """Opportunistic security: TLS with a client whose first byte begins a TLS handshake.  One
        that says nothing waits for our word, and so does not speak TLS."""

        def told(byte: bytes | None) -> None:
            del self._handshakes[transport]
            self._begin(secured if byte == _TLS_HANDSHAKE else stack, transport, begun)

        try:
            self._handshakes[transport] = Peek(transport, OPPORTUNITY, told)
        except OSError:
            transport.abort()  # it has gone already
        self._regulate()

    def _begin(self, stack: Stack, transport: Any, begun: float) -> None:
        try:
            for plugin in reversed(stack[:-1]):
                transport = plugin.accept(self._attempt, transport)
        except Exception as error:
            transport.abort()
            self._runner.collect(error)
            return

        early = stack[0].early(transport) if self._setup.zero_rtt else None

        def done(error: BaseException | None) -> None:
            timer = self._handshakes.pop(transport, None)
            if timer is not None:
                timer.close()
            if error is not None:
                peer = transport.get_extra_info("peername")
                monitoring.turned_away(peer, error)
                drop(transport, error)
            elif self._stopped:
                transport.abort()
            else:
                candidate = Candidate(stack, transport.get_extra_info("peername"))
                phases = ((stack_name(stack), now() - begun),)
                established = Established(candidate, transport, phases, readying.framers)
                if early is not None:
                    established.early = max(early - readying.received, 0)
                self._ready(established)
            self._regulate()

        readying = Readying(transport, done, self._setup.framers)
        timer = None
        if self._setup.framers:
            timer = self._runner.call_later(FRAMERS_TIMEOUT, self._too_slow, transport)
        self._handshakes[transport] = timer
        transport.start(readying)
        self._regulate()

    def _too_slow(self, transport: Any) -> None:
        if transport in self._handshakes:
            transport.abort(TransportError("the framers of the connection took too long"))

    def _ready(self, established: Established) -> None:
        connection = Connection(self._of_each, self._runner)
        try:
            connection.adopt(established)
        except EstablishmentError:
            established.transport.abort()
            return
        self._waiting.append(connection)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give Connections that wait to whoever wants them, as the limit allows."""
        waiting = self._waiting
        while waiting and self._left > 0:
            if self._wants("connection_received"):
                self._left -= 1
                self._handing += 1
                assert self._events is not None
                handler = self._events.handlers["connection_received"]
                self._events.call(self._deliver, handler, waiting.popleft())
                continue
            while self._acceptors and self._acceptors[0].done:
                self._acceptors.popleft()
            if not self._acceptors:
                return
            if self._acceptors.popleft().finish(waiting[0]):
                self._left -= 1
                waiting.popleft()

    def _deliver(self, handler: Any, connection: Connection) -> None:
        """The ConnectionReceived event.  Those of the Connection itself come after it."""
        self._handing -= 1
        if self._paused:
            self._regulate()
        connection.begin_events(self._setup.events)
        handler(connection)

    def _wants(self, event: str) -> bool:
        return self._events is not None and event in self._events.handlers

    def on_connection_received(self, handler: Any) -> None:
        super().on_connection_received(handler)
        self._hand_out()
        self._regulate()

    def _regulate(self) -> None:
        """Stop or resume accepting, by what is waiting."""
        waiting = len(self._waiting) + self._handing
        full = waiting >= MAX_WAITING or len(self._handshakes) >= MAX_HANDSHAKES
        if full is not self._paused:
            self._paused = full
            for source in self._sources.values():
                if full:
                    source.pause()
                else:
                    source.resume()

    # -- For the application --

    @marks_switchpoint
    def accept(self, timeout: float | None = None) -> Connection:
        """Wait for the next Connection (the ConnectionReceived event) and return it.

        *timeout* is in seconds.  Raises Timeout, upon which nothing is lost, and
        EstablishmentError (reason Closed) when the Listener has been stopped.  A switchpoint.
        """
        if current_greenlet() is self._runner.hub:
            raise SwitchpointError("Listener.accept() cannot be called in a callback")
        events = self._setup.events
        if self._waiting and self._left > 0 and not self._acceptors:
            self._left -= 1
            connection = self._waiting.popleft()
            if events is not None:
                connection.begin_events(events)
            if self._paused:
                self._regulate()
            return connection
        if self._stopped:
            raise _stopped()
        if timeout is not None:
            check_timeout(timeout)
        parked: Parked[Connection] = Parked(self._runner)
        self._acceptors.append(parked)
        try:
            connection = parked.wait(timeout)
        except BaseException:
            if parked.result is not None and self._stopped:
                parked.result.abort()
            elif parked.result is not None:
                self._left += 1
                self._waiting.appendleft(parked.result)
                self._hand_out()
            elif parked in self._acceptors:
                self._acceptors.remove(parked)
            raise
        if events is not None:
            connection.begin_events(events)
        if self._paused:
            self._regulate()
        return connection

    def __iter__(self) -> Iterator[Connection]:
        """Connections, until the Listener is stopped.  Each step is a switchpoint."""
        while True:
            try:
                connection = self.accept()
            except EstablishmentError as error:
                if error.reason is Reason.CLOSED:
                    return
                raise
            yield connection

    def set_new_connection_limit(self, value: Any) -> None:
        """Deliver *value* more Connections (an int from 0 on, or INFINITE), and hold back the
        rest until this is called again (RFC 9622 section 7.2).  Each delivery counts it down."""
        if value is INFINITE or value == inf:
            self._left = inf
        elif isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"a limit is an int or INFINITE, not {value!r}")
        elif value < 0:
            raise ValueError(f"a limit must not be negative: {value!r}")
        else:
            self._left = value
        self._hand_out()
        self._regulate()

    def stop(self) -> None:
        """Stop listening (the Stopped event).

        Connections that were delivered live on; those that were not are aborted, and greenlets
        in `accept` are woken.  May be repeated.  Not a switchpoint.
        """
        if not self._stopped:
            self.give_up()
            self._emit("stopped")

    def give_up(self) -> None:
        """For `Preconnection.listen`, which has failed: `stop`, without an event, since nobody has
        got this Listener."""
        self._stopped = True
        monitoring.stopped(self)
        self._runner.release(self)
        if self._follower is not None:
            self._follower.stop()
        for source in self._sources.values():
            source.close()
        for transport, timer in list(self._handshakes.items()):
            if isinstance(timer, Peek):
                timer.close()
                del self._handshakes[transport]
            transport.abort()
        while self._waiting:
            self._waiting.popleft().abort()
        while self._acceptors:
            self._acceptors.popleft().fail(_stopped())

    def hub_lost(self, error: BaseException) -> None:
        """The hub goes, with all that we listen on, or this is a forked child: nobody will come
        any more, and whoever waits for one hears why."""
        self._stopped = True
        monitoring.stopped(self)
        while self._acceptors:
            self._acceptors.popleft().fail(error)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def stopped(self) -> bool:
        """Whether it has been stopped."""
        return self._stopped

    @property
    def local_endpoints(self) -> list[LocalEndpoint]:
        """Where it listens: with the ports that the system has chosen."""
        return [endpoint_of(source.address, LocalEndpoint) for source in self._sources.values()]

    def __repr__(self) -> str:
        where = ", ".join(f"{end.ip_address} {end.port}" for end in self.local_endpoints)
        return f"<Listener {where} {'stopped' if self._stopped else 'listening'}>"


def _stopped() -> EstablishmentError:
    return EstablishmentError("the Listener has been stopped", Reason.CLOSED)
