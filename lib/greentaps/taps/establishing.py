"""Establishing: the driver of a race, and of a single attempt (RFC 9623 sections 4.3 and 4.4).

Each attempt is a greenlet that opens a stack from the bottom up and waits until the top is ready,
and the framers on it.  `establish` starts them as the `Race` says, and ends what did not win.  A
single candidate needs neither a race nor a greenlet.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import EstablishmentError, Reason, Timeout, TransportError
from ..framers import Framer, FramerHost, FramerStack
from ..hub import Deadline, Parked, get_runner, now, spawn
from ..plugins import Attempt
from .candidates import Candidate, plugins_of
from .message import MessageContext, fresh_context
from .racing import Race

__all__ = ["Established", "Readying", "establish", "failure_reason"]


@dataclass(frozen=True)
class Established:
    """A ready transport with its framers, the candidate that it came from, and how long each step
    took, in seconds."""

    candidate: Candidate
    transport: Any
    phases: tuple[tuple[str, float], ...]
    framers: FramerStack | None = None


class Readying(FramerHost):
    """The protocol of a transport that nobody has taken yet.

    It waits for ``connection_made``, and for the framers to be ready; then it keeps the transport
    from reading until somebody takes it.  *done* is called once, with the error or None.
    *hostname* is the peer's name, for framers that ask.
    """

    def __init__(
        self,
        transport: Any,
        done: Any,
        framers: Sequence[Framer] = (),
        hostname: str | None = None,
    ) -> None:
        self._transport = transport
        self._done = done
        self._hostname = hostname
        self.framers: FramerStack | None = None
        if framers:
            datagrams = hasattr(transport, "largest")
            self.framers = FramerStack(framers, self, datagrams=datagrams)
        transport.call_when_lost(self._lost)

    # -- From the transport --

    def connection_made(self, transport: Any) -> None:
        if self.framers is None:
            self._ready()
        else:
            self.framers.start()

    def _ready(self) -> None:
        self._transport.pause_reading()
        self._tell(None)

    def _lost(self, transport: Any, error: BaseException | None) -> None:
        self._tell(
            error or TransportError("the peer closed the connection at once", errno.ECONNABORTED)
        )

    def _tell(self, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)

    def connection_lost(self, exc: BaseException | None) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        if self.framers is not None:
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
        self._transport.write(data)

    def new_context(self, below: Any = None) -> MessageContext:
        return fresh_context(below)

    def get_property(self, name: str, default: Any = None) -> Any:
        return self._hostname if name == "hostname" and self._hostname else default

    def framers_ready(self) -> None:
        self._ready()

    def framers_failed(self, error: Exception) -> None:
        made = TransportError(f"a framer has refused the connection: {error}", errno.EPROTO)
        made.__cause__ = error
        self._tell(made)
        self._transport.abort(made)


def attempt_one(
    candidate: Candidate, template: Attempt, framers: Sequence[Framer] = ()
) -> Established:
    """Open *candidate*'s stack and wait until it and the framers are ready.  A switchpoint.

    Raises TransportError, with nothing left open.
    """
    attempt = replace(
        template,
        remote=candidate.remote,
        local=candidate.local,
        hostname=candidate.hostname,
        interface=candidate.interface,
        hop_limit=candidate.hop_limit,
    )
    begun = now()
    phases = []
    transport = None
    try:
        for plugin in plugins_of(candidate):
            transport = plugin.open(attempt, transport)
            phases.append((plugin.name, now() - begun))
            begun = now()
        stack = made_ready(transport, attempt.deadline, framers, attempt.hostname)
    except BaseException:
        if transport is not None:
            transport.abort()
        raise
    name, seconds = phases.pop()
    phases.append((name, seconds + now() - begun))
    return Established(candidate, transport, tuple(phases), stack)


def made_ready(
    transport: Any,
    deadline: Deadline,
    framers: Sequence[Framer],
    hostname: str | None = None,
) -> FramerStack | None:
    """Start *transport* and wait until it and *framers* are ready; returns their stack.  A
    switchpoint.  Raises what prevented it."""
    parked: Parked[BaseException | None] = Parked(get_runner())
    readying = Readying(transport, parked.finish, framers, hostname)
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


def establish(
    candidates: Sequence[Candidate], template: Attempt, framers: Sequence[Framer] = ()
) -> Established:
    """Race *candidates* and return the winner.  A switchpoint.

    Raises EstablishmentError with every attempt's error.  However it ends, nothing of the others
    is left open.
    """
    if len(candidates) == 1:
        try:
            return attempt_one(candidates[0], template, framers)
        except TransportError as error:
            raise _failure([(candidates[0], error)], template.deadline) from error
    return _Runners(candidates, template, framers).run()


class _Runners:
    """The greenlets of one race."""

    def __init__(
        self, candidates: Sequence[Candidate], template: Attempt, framers: Sequence[Framer]
    ) -> None:
        self._candidates = candidates
        self._template = template
        self._framers = framers
        self._race = Race(len(candidates))
        self._greenlets: dict[int, Any] = {}
        self._events: list[tuple[int, Established | BaseException]] = []
        self._news: Parked[None] | None = None
        self._failures: list[tuple[Candidate, BaseException]] = []

    def run(self) -> Established:
        race = self._race
        deadline = self._template.deadline
        try:
            self._start(race.start(now()))
            while not race.over:
                self._wait(deadline)
                winner = self._handle_events()
                if winner is not None:
                    return winner
                if deadline.passed():
                    break
                self._start(race.wake(now()))
            raise _failure(self._failures, deadline)
        finally:
            self._stop_all()

    def _start(self, indexes: list[int]) -> None:
        for index in indexes:
            self._greenlets[index] = spawn(self._attempt, index)

    def _attempt(self, index: int) -> None:
        try:
            result: Established | BaseException = attempt_one(
                self._candidates[index], self._template, self._framers
            )
        except Exception as error:
            result = error
        self._events.append((index, result))
        if self._news is not None:
            self._news.finish(None)

    def _wait(self, deadline: Deadline) -> None:
        if self._events:
            return
        limits = [limit for limit in (deadline.left(), self._until_wake()) if limit is not None]
        self._news = Parked(get_runner())
        try:
            self._news.wait(min(limits) if limits else None)
        except Timeout:
            pass
        finally:
            self._news = None

    def _until_wake(self) -> float | None:
        wake_at = self._race.wake_at
        return None if wake_at is None else max(wake_at - now(), 0.0)

    def _handle_events(self) -> Established | None:
        while self._events:
            index, result = self._events.pop(0)
            del self._greenlets[index]
            if isinstance(result, Established):
                self._race.succeeded(index)
                return result
            if not isinstance(result, TransportError):
                raise result
            self._failures.append((self._candidates[index], result))
            self._start(self._race.failed(index, now()))
        return None

    def _stop_all(self) -> None:
        for greenlet in self._greenlets.values():
            greenlet.kill(block=False)
        # Of two that finished in one turn only the first was taken.
        for _, result in self._events:
            if isinstance(result, Established):
                result.transport.abort()


def _failure(
    failures: Sequence[tuple[Candidate, BaseException]], deadline: Deadline
) -> EstablishmentError:
    if deadline.passed():
        return EstablishmentError("the time is over", Reason.TIMEOUT, failures)
    reason = failure_reason([error for _, error in failures])
    return EstablishmentError("no candidate could be connected", reason, failures)


def failure_reason(errors: Sequence[BaseException]) -> Reason:
    """What several failed attempts amount to: that the system forbids it, if it forbids all."""
    if errors and all(isinstance(error, PermissionError) for error in errors):
        return Reason.POLICY_PROHIBITED
    return Reason.ESTABLISHMENT_FAILED
