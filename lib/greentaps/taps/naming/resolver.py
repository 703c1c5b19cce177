"""What asks for names: the system's resolver, or another one in its place.

A `Resolver` answers one question at a time, in blocking style; `naming.resolve` asks several at
once, each in a greenlet, and decides what is done with the answers.  So a resolver needs to know
nothing of Happy Eyeballs, of orders and of deadlines of others.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from ...errors import ResolutionError
from ...hub import Parked, Runner, ThreadLocal, get_runner, spawn
from ...hub import resolve as ask_system
from .answers import Target

__all__ = [
    "Resolver",
    "Sharing",
    "SystemResolver",
    "default_resolver",
    "set_default_resolver",
]

T = TypeVar("T")

# RFC 6761 section 6.3: these are this machine's, and no server is asked for them.
LOOPBACK: dict[int, str] = {socket.AF_INET6: "::1", socket.AF_INET: "127.0.0.1"}


def is_loopback_name(name: str) -> bool:
    """Whether *name* is ``localhost``, or a name below it."""
    name = name.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


class Resolver:
    """How host names are resolved.  Subclass it for another way.

    Both methods are switchpoints, may be broken off at any time (``kill``, ``gevent.Timeout``),
    and must then leave nothing behind.  They may be called by several greenlets at once.
    """

    def addresses(
        self, name: str, family: int, *, interface: str | None, network: str
    ) -> Sequence[str]:
        """The addresses of the host *name*, which are text, with ``%scope`` if they need one.

        *family* is AF_INET or AF_INET6.  *interface* is the one that the question should leave
        through, None for any; *network* tells networks apart, for caches.  No addresses are an
        empty sequence, or a `ResolutionError` with the resolver's `code`.
        """
        raise NotImplementedError

    def asks_for(self, service: str) -> bool | None:
        """Whether `targets` is to be called for *service* (str): None says no; True, that its
        answer must be waited for; False, that the host's own addresses go as well."""
        return None

    def targets(
        self,
        name: str,
        service: str,
        protocol: str,
        port: int | None,
        *,
        interface: str | None,
        network: str,
    ) -> Sequence[Target]:
        """The hosts that offer *service* for the domain *name*, best first; none if nothing is
        said of it.

        *protocol* is what carries it, ``"tcp"`` or ``"udp"``; *port* its usual port, if known.
        Raises `ResolutionError`, with the code ``EAI_SERVICE`` if the service is decidedly not to
        be had there.
        """
        raise NotImplementedError


class _Flight(Generic[T]):
    """One question that is on its way, and who waits for its answer."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.waiting: list[Parked[T]] = []
        self.greenlet: Any = None
        self.end: Any = None  # the timer, while nobody waits
        self.done = False

    def keep(self) -> None:
        """Do not give up, if that was to be."""
        if self.end is not None:
            self.end.close()
            self.end = None


def _succeed(result: T, parked: Parked[T]) -> bool:
    return parked.finish(result)


def _fail(error: Exception, parked: Parked[Any]) -> bool:
    return parked.fail(error)


def _broken_off(parked: Parked[Any]) -> bool:
    return parked.fail(ResolutionError("the resolution was broken off"))


class Sharing(ThreadLocal):
    """Has equal questions that are asked at the same time share one answer.

    The question is asked in a greenlet of its own: that one who waits is killed ends nobody
    else's wait.  When nobody waits any more the question is given up, after *linger* seconds, in
    which the answer may still come and be kept by whoever keeps answers.
    """

    def __init__(self, linger: float = 0.0) -> None:
        self._linger = linger
        # Greenlets belong to a thread, and those of a parent process are not ours.
        self._flights: dict[Hashable, _Flight[Any]] = {}

    def ask(self, key: Hashable, question: Callable[[], T]) -> T:
        """What ``question()`` returns or raises.  A switchpoint."""
        key = (os.getpid(), key)
        flight: _Flight[T] | None = self._flights.get(key)
        runner = get_runner()
        if flight is None or flight.runner is not runner:  # that of a hub that is gone never ends
            flight = self._flights[key] = _Flight(runner)
            flight.greenlet = spawn(self._fly, key, flight, question)
            # One that is killed before it has begun does not even run its `finally`.
            flight.greenlet.rawlink(lambda _: self._land(key, flight, _broken_off))
        parked: Parked[T] = Parked(runner)
        flight.waiting.append(parked)
        flight.keep()
        try:
            return parked.wait()
        finally:
            flight.waiting.remove(parked)
            if not flight.waiting and not flight.done:
                if self._linger:
                    flight.end = runner.call_later(self._linger, self._give_up, key, flight)
                else:
                    self._give_up(key, flight)

    def _give_up(self, key: Hashable, flight: _Flight[Any]) -> None:
        flight.keep()
        self._forget(key, flight)
        flight.greenlet.kill(block=False)

    def _fly(self, key: Hashable, flight: _Flight[T], question: Callable[[], T]) -> None:
        tell: Callable[[Parked[T]], bool] = _broken_off
        try:
            result = question()
            tell = partial(_succeed, result)
        except Exception as error:
            tell = partial(_fail, error)
        finally:
            self._land(key, flight, tell)

    def _land(self, key: Hashable, flight: _Flight[T], tell: Callable[[Parked[T]], bool]) -> None:
        flight.done = True
        flight.keep()
        self._forget(key, flight)
        for parked in flight.waiting:
            tell(parked)

    def _forget(self, key: Hashable, flight: _Flight[Any]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def both(first: Callable[[], T], second: Callable[[], T]) -> list[T | Exception]:
    """What the two functions, called at the same time, return or raise.  A switchpoint."""
    parked: Parked[T | Exception] = Parked(get_runner())
    greenlet = spawn(lambda: parked.finish(_outcome(second)))
    greenlet.rawlink(lambda _: _broken_off(parked))
    try:
        return [_outcome(first), parked.wait()]
    finally:
        greenlet.kill(block=False)


def _outcome(function: Callable[[], T]) -> T | Exception:
    try:
        return function()
    except Exception as error:
        return error


class SystemResolver(Resolver):
    """The resolver of this machine, through gevent: the hosts file, the name servers, and whatever
    else its administrator has configured.

    It cannot be told an interface, and knows no records of services: see `DnsResolver`.
    """

    def __init__(self) -> None:
        self._sharing = Sharing()

    def addresses(
        self, name: str, family: int, *, interface: str | None, network: str
    ) -> Sequence[str]:
        if is_loopback_name(name):
            return (LOOPBACK[family],)
        return self._sharing.ask((name, family), lambda: _ask_system(name, family))


def _ask_system(name: str, family: int) -> Sequence[str]:
    found = ask_system(name, None, family=family, kind=socket.SOCK_STREAM)
    return [
        f"{host}%{rest[1]}" if rest[1:] and rest[1] and "%" not in host else host
        for _, _, _, _, (host, _port, *rest) in found
    ]


_default: Resolver = SystemResolver()


def default_resolver() -> Resolver:
    """The `Resolver` that is used where none is named: a `SystemResolver`, unless
    `set_default_resolver` was called."""
    return _default


def set_default_resolver(resolver: Resolver | None) -> None:
    """From now on use *resolver* where none is named; None for a `SystemResolver` again.

    For the whole process.  Raises TypeError if it is no Resolver.
    """
    global _default
    if resolver is None:
        resolver = SystemResolver()
    if not isinstance(resolver, Resolver):
        raise TypeError(f"a resolver is a Resolver, not {resolver!r}")
    _default = resolver


def not_available(name: str, service: str) -> ResolutionError:
    """The error that says that *service* is decidedly not to be had at *name*."""
    made = ResolutionError(
        f"{name!r} says that it does not offer {service!r}", address=(name, service)
    )
    made.code = socket.EAI_SERVICE
    return made
