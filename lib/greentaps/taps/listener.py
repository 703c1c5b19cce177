"""The Listener: incoming Connections (RFC 9622 section 7.2).

A transport that is accepted becomes a Connection when its stack is ready, so after the handshake.
What waits is bounded: when too many Connections wait for the application, or too many handshakes
are under way, further ones stay in the kernel's backlog.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import EstablishmentError, Reason
from ..framers import Framer
from ..hub import Parked, get_runner, now, switchpoint
from ..plugins import Attempt, Stack
from .candidates import Candidate
from .connection import Connection
from .endpoint import LocalEndpoint, endpoint_of
from .establishing import Established, Readying
from .properties import TransportProperties

__all__ = ["Listener"]

MAX_WAITING = 128  # Connections that the application has not accepted
MAX_HANDSHAKES = 1024  # connections whose stack is not ready

_log = logging.getLogger("greentaps.listener")


class Listener:
    """Made by `Preconnection.listen`.  Iterate over it, or call `accept`.

    A context manager: leaving it stops it.
    """

    def __init__(
        self, attempt: Attempt, framers: Sequence[Framer], properties: TransportProperties
    ) -> None:
        self._attempt = attempt
        self._framers = tuple(framers)
        self._properties = properties
        self._runner = get_runner()
        self._sources: list[Any] = []
        self._waiting: deque[Connection] = deque()
        self._acceptors: deque[Parked[Connection]] = deque()
        self._handshakes: set[Any] = set()
        self._paused = False
        self._stopped = False

    def open(self, stack: Stack, local: Any) -> None:
        """For `Preconnection.listen`: listen at the socket address *local* with *stack*.
        A switchpoint.  Raises TransportError."""
        bottom = stack[-1]
        attempt = Attempt(
            local=local,
            properties=self._attempt.properties,
            security=self._attempt.security,
            deadline=self._attempt.deadline,
        )

        def deliver(transport: Any) -> None:
            self._arrived(stack, transport)

        self._sources.append(bottom.listen(attempt, deliver))

    # -- From below, in callbacks --

    def _arrived(self, stack: Stack, transport: Any) -> None:
        begun = now()
        try:
            for plugin in reversed(stack[:-1]):
                transport = plugin.accept(self._attempt, transport)
        except Exception as error:
            transport.abort()
            self._runner.collect(error)
            return

        def done(error: BaseException | None) -> None:
            self._handshakes.discard(transport)
            if error is not None:
                peer = transport.get_extra_info("peername")
                _log.info("a connection from %s was not established: %s", peer, error)
            elif self._stopped:
                transport.abort()
            else:
                phases = (("/".join(plugin.name for plugin in stack), now() - begun),)
                self._ready(stack, transport, phases)
            self._regulate()

        self._handshakes.add(transport)
        transport.start(Readying(transport, done))
        self._regulate()

    def _ready(self, stack: Stack, transport: Any, phases: Any) -> None:
        candidate = Candidate(stack, transport.get_extra_info("peername"))
        connection = Connection(
            Established(candidate, transport, phases), self._framers, self._properties
        )
        while self._acceptors:
            if self._acceptors.popleft().finish(connection):
                return
        self._waiting.append(connection)

    def _regulate(self) -> None:
        """Stop or resume accepting, by what is waiting."""
        full = len(self._waiting) >= MAX_WAITING or len(self._handshakes) >= MAX_HANDSHAKES
        if full is not self._paused:
            self._paused = full
            for source in self._sources:
                source.pause() if full else source.resume()

    # -- For the application --

    @switchpoint
    def accept(self, timeout: float | None = None) -> Connection:
        """Wait for the next Connection (the ConnectionReceived event) and return it.

        *timeout* is in seconds.  Raises Timeout, upon which nothing is lost, and
        EstablishmentError (reason Closed) when the Listener has been stopped.
        """
        if self._waiting:
            connection = self._waiting.popleft()
            self._regulate()
            return connection
        if self._stopped:
            raise _stopped()
        parked: Parked[Connection] = Parked(self._runner)
        self._acceptors.append(parked)
        try:
            return parked.wait(timeout)
        except BaseException:
            if parked.result is not None:
                self._waiting.appendleft(parked.result)
            elif parked in self._acceptors:
                self._acceptors.remove(parked)
            raise

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

    def stop(self) -> None:
        """Stop listening (the Stopped event).

        Connections that were accepted live on; those that were not are aborted, and greenlets
        in `accept` are woken.  May be repeated.  Not a switchpoint.
        """
        if self._stopped:
            return
        self._stopped = True
        for source in self._sources:
            source.close()
        for transport in list(self._handshakes):
            transport.abort()
        while self._waiting:
            self._waiting.popleft().abort()
        while self._acceptors:
            self._acceptors.popleft().fail(_stopped())

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def local_endpoints(self) -> list[LocalEndpoint]:
        """Where it listens: with the ports that the system has chosen."""
        return [endpoint_of(source.address, LocalEndpoint) for source in self._sources]

    def __repr__(self) -> str:
        where = ", ".join(f"{end.ip_address} {end.port}" for end in self.local_endpoints)
        return f"<Listener {where} {'stopped' if self._stopped else 'listening'}>"


def _stopped() -> EstablishmentError:
    return EstablishmentError("the Listener has been stopped", Reason.CLOSED)
