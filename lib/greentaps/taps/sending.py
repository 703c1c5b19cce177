"""Sending that is not the usual case: Messages that wait, expire, are limited, or are watched.

A `Sending` belongs to one Connection, and exists only from the first send that needs it.  It takes
`Outgoing` items, hands them to the Connection when the transport is free, and reports exactly one
outcome for each of them: sent, expired, or failed (RFC 9622 section 9.2.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

from ..errors import Reason, SendError
from ..hub import Runner, now
from .outbox import Outbox, Outgoing
from .rates import RateLimit

__all__ = ["Sending", "Throttle"]

# A batch is sent before its end if it has grown to this.
BATCH_LIMIT = 1024 * 1024  # bytes


class SendingHost(Protocol):
    """What a `Sending` needs of its Connection."""

    def may_transmit(self) -> bool:
        """Whether the transport is ready, and holds nothing."""

    def transmit(self, item: Outgoing) -> None:
        """Hand the data down.  What it raises is the item's failure."""

    def holds_data(self) -> bool:
        """Whether something that was handed down has not been taken by the system."""

    def begin_collecting(self) -> None:
        """Keep what is handed down together until `end_collecting`."""

    def end_collecting(self) -> None:
        """Write what was kept, as one write."""

    def drop_parts(self) -> None:
        """What is kept of the Message that was handed down in parts last is not to be sent."""

    def was_sent(self, item: Outgoing) -> None: ...
    def has_expired(self, item: Outgoing) -> None: ...
    def has_failed(self, item: Outgoing, error: BaseException) -> None: ...
    def ran_dry(self) -> None: ...


class Sending:
    """The slow path of sending, of one Connection."""

    __slots__ = (
        "_batches",
        "_finishing",
        "_host",
        "_in_flight",
        "_outbox",
        "_pumping",
        "_runner",
        "_timer",
        "_waiters",
    )

    def __init__(self, host: SendingHost, runner: Runner) -> None:
        self._host = host
        self._runner = runner
        self._outbox = Outbox()
        self._in_flight: deque[Outgoing] = deque()  # handed down, not taken by the system yet
        self._batches: list[Any] = []  # by whom each was begun
        self._waiters = 0  # those of them that block until their Message has left
        self._finishing = False
        self._timer: Any = None
        self._pumping = False

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nothing is held back, and no Message is half sent."""
        outbox = self._outbox
        return not (outbox or self._in_flight or self._batches or outbox.sending_parts)

    def __len__(self) -> int:
        return len(self._outbox) + len(self._in_flight)

    def submit(self, item: Outgoing) -> None:
        """Send *item* in its turn."""
        if self._outbox.given_up(item):
            self._host.has_failed(item, _broken())
        elif not self._outbox.push(item):
            self._host.has_expired(item)
        self.pump()

    def has_part_of(self, context: Any) -> bool:
        """Whether the end of the Message of *context* is missing, and its beginning is not."""
        return self._outbox.has_part_of(context)

    def refuse(self, context: Any, end: bool) -> None:
        """A part of the Message of *context*, its last one if *end*, cannot be sent, and was not
        submitted: no other part is sent without it."""
        begun = self._outbox.sending_parts
        items = self._outbox.refuse(context, end)
        if begun and not self._outbox.sending_parts:
            self._host.drop_parts()
        for item in items:
            self._host.has_failed(item, _broken())
        self.pump()

    def pump(self) -> None:
        """Hand down what may go."""
        if self._pumping:
            return
        if self._batches and not self._waiters and self._outbox.size < BATCH_LIMIT:
            self._set_timer()
            return
        self._pumping = True
        try:
            self._expire()
            self._pump()
        finally:
            self._pumping = False
        self._set_timer()
        if self.idle:
            self._host.ran_dry()

    def _pump(self) -> None:
        host = self._host
        while host.may_transmit():
            item = self._outbox.pop()
            if item is None:
                if self._finishing and self._outbox.sending_parts:
                    self._cut()
                return
            try:
                host.transmit(item)
            except Exception as error:
                host.has_failed(item, error)
                host.drop_parts()
                for part in self._outbox.give_up(item):
                    host.has_failed(part, _broken())
                continue
            if host.holds_data():
                self._in_flight.append(item)
            else:
                host.was_sent(item)

    def finish(self) -> None:
        """Nothing more will be handed in: send what a batch holds back, and wait for no end of a
        Message that was not handed in."""
        self._finishing = True
        if self._batches:
            del self._batches[1:]
            self.end_batch()
        elif self._outbox.sending_parts:
            self.pump()

    def _cut(self) -> None:
        """The end of the Message that is being sent will not come; nothing can go behind it."""
        for item in self._outbox.clear():
            self._host.has_failed(item, SendError("the Connection is closed", Reason.CLOSED))

    def taken(self) -> None:
        """The system has taken all that was handed down."""
        while self._in_flight:
            self._host.was_sent(self._in_flight.popleft())
        self.pump()

    def went_down(self, item: Outgoing) -> None:
        """*item*, which has waited here, was handed down another way."""
        self._outbox.withdraw(item)
        if self._host.holds_data():
            self._in_flight.append(item)
        else:
            self._host.was_sent(item)

    def withdraw(self, item: Outgoing) -> bool:
        """Take *item* back; False if it has begun to leave."""
        return self._outbox.withdraw(item)

    def fail_all(self, error: Callable[[], BaseException]) -> None:
        """Nothing will be sent any more: each item gets an error of its own."""
        self._stop_timer()
        items = [*self._in_flight, *self._outbox.clear()]
        self._in_flight.clear()
        self._batches.clear()
        for item in items:
            self._host.has_failed(item, error())

    # -- Batches (RFC 9622 section 9.2.4) --

    def begin_batch(self, by: Any = None) -> None:
        """Hold back what is sent until `end_batch`; batches may be nested.  *by* is whose it is to
        end it, a greenlet."""
        self._batches.append(by)

    def end_batch(self) -> None:
        """Undo `begin_batch`; with the last one goes what was held back."""
        if not self._batches:
            return
        self._batches.pop()
        if not self._batches:
            self._flush()

    def begin_wait(self, by: Any) -> bool:
        """*by* waits until what was submitted last has left.  If the end of a batch waits for *by*,
        nothing is held back until `end_wait`, which is to be called then: returns True."""
        if by not in self._batches:
            return False
        self._waiters += 1
        self._flush()
        return True

    def end_wait(self) -> None:
        """Undo `begin_wait`."""
        self._waiters -= 1

    def _flush(self) -> None:
        """Send what was held back, in as few writes as possible."""
        self._host.begin_collecting()
        self._pumping = True  # that it has run dry is known when all is written
        try:
            self._expire()
            self._pump()
        finally:
            self._pumping = False
            self._host.end_collecting()
        if self._host.holds_data():
            self.pump()
        else:
            self.taken()

    # -- Lifetimes --

    def _expire(self) -> None:
        for item in self._outbox.expire(now()):
            self._host.has_expired(item)

    def _set_timer(self) -> None:
        expiry = self._outbox.next_expiry()
        self._stop_timer()
        if expiry != inf:
            self._timer = self._runner.call_later(expiry - now(), self._timer_fired)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _timer_fired(self) -> None:
        self._expire()
        self.pump()


def _broken() -> SendError:
    return SendError(
        "an earlier part of this Message could not be sent", Reason.INVALID_MESSAGE_PROPERTIES
    )


class Throttle:
    """A limit on the rate at which bytes go down (maxSendRate, RFC 9622 section 8.1.8).

    *write* is what it passes data to; *changed* is called when it begins or ceases to hold some.
    A stream's data may be cut, a datagram (*whole*) may not, and goes when the whole of it may, or
    when nothing at all has gone for a second.
    """

    __slots__ = ("_changed", "_limit", "_runner", "_timer", "_waiting", "_whole", "_write")

    def __init__(
        self,
        rate: float,
        write: Callable[[bytes | memoryview], None],
        changed: Callable[[bool], None],
        runner: Runner,
        *,
        whole: bool,
    ) -> None:
        self._limit = RateLimit(rate)
        self._write = write
        self._changed = changed
        self._runner = runner
        self._whole = whole
        self._waiting: deque[bytes | memoryview] = deque()
        self._timer: Any = None

    @property
    def holds_data(self) -> bool:
        """Whether something waits here."""
        return bool(self._waiting)

    def set_rate(self, rate: float) -> None:
        """From now on *rate* bit/s."""
        self._limit = RateLimit(rate)
        self._go_on()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Pass *data* on, as the limit allows."""
        had = bool(self._waiting)
        self._waiting.append(bytes(data))
        if not had:
            self._pass_on()
            if self._waiting:
                self._changed(True)

    def close(self) -> None:
        """Drop what waits."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if not self._waiting:
            return
        try:
            self._pass_on()
        except Exception as error:
            # Its sender has gone on long ago; those behind it must not wait for ever.
            self._runner.collect(error)
            if self._waiting:
                self._timer = self._runner.call_later(0, self._go_on)
                return
        if not self._waiting:
            self._changed(False)

    def _pass_on(self) -> None:
        time = now()
        waiting = self._waiting
        while waiting:
            data = waiting[0]
            allowed = self._limit.allowed(time)
            if allowed < len(data) and (self._whole or not allowed):
                if not self._whole or not self._limit.idle(time):
                    wait = self._limit.wait(time, len(data) if self._whole else 1)
                    self._timer = self._runner.call_later(max(wait, 0.001), self._go_on)
                    return
                allowed = len(data)
            waiting.popleft()
            if allowed < len(data):
                rest = memoryview(data)  # of a large Message only what goes is copied
                waiting.appendleft(rest[allowed:])
                data = bytes(rest[:allowed])
            self._limit.spend(len(data), time)
            self._write(data)
