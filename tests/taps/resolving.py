"""For tests that resolve: what was delivered, and a resolver that does what a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import Event
from greentaps import RemoteEndpoint
from greentaps.hub import Deadline, now
from greentaps.taps.naming.answers import Target
from greentaps.taps.naming.resolver import Resolver
from greentaps.taps.naming.resolving import News, Resolution, resolve

PATIENCE = 20.0  # seconds


def named(name: str, port: int | str = 1) -> RemoteEndpoint:
    """A host by its *name*, with a port (int) or a service (str)."""
    end = RemoteEndpoint().with_hostname(name)
    return end.with_port(port) if isinstance(port, int) else end.with_service(port)


class Heard:
    """What `resolve` delivers, and when."""

    def __init__(self, endpoint: RemoteEndpoint, *, limit: float | None = None, **options: Any):
        self.news: list[News] = []
        self.times: list[float] = []
        self.greenlets: list[Any] = []
        self._changed = Event()
        self.begun = now()
        self.resolution: Resolution = resolve(
            endpoint, deadline=Deadline(limit), deliver=self._hear, **options
        )

    def _hear(self, news: News) -> None:
        self.news.append(news)
        self.times.append(now() - self.begun)
        self.greenlets.append(gevent.getcurrent())
        self._changed.set()

    def next(self) -> News:
        """The news after those that were asked for before."""
        with gevent.Timeout(PATIENCE):
            while not self.news:
                self._changed.clear()
                self._changed.wait()
        return self.news.pop(0)

    def all(self) -> list[News]:
        """All news, when they are complete."""
        heard = [self.next()]
        while not heard[-1].complete:
            heard.append(self.next())
        return heard


def addresses(*news: News) -> list[str]:
    """The addresses that stand after *news*, in order."""
    return [one.address[0] for one in news[-1].order]


class Scripted(Resolver):
    """Answers what it is told to: text, functions that return or raise it, or errors."""

    def __init__(self, services: bool | None = None, **known: Any) -> None:
        self.known = known
        self.services = services
        self.asked: list[tuple[str, str]] = []
        self.options: list[tuple[str | None, str]] = []

    def addresses(
        self, name: str, family: int, *, interface: str | None, network: str
    ) -> Sequence[str]:
        self.options.append((interface, network))
        return self._say(name, "AAAA" if family == 10 else "A")

    def asks_for(self, service: str) -> bool | None:
        return self.services

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
        return self._say(name, service)

    def _say(self, name: str, kind: str) -> Any:
        self.asked.append((name, kind))
        said = self.known.get(f"{name.partition('.')[0]}_{kind}", ())
        if isinstance(said, Exception):
            raise said
        return said() if callable(said) else said


def after(seconds: float, said: Any) -> Callable[[], Any]:
    """An answer that takes its time."""

    def answer() -> Any:
        gevent.sleep(seconds)
        if isinstance(said, Exception):
            raise said
        return said

    return answer


def never() -> Any:
    """An answer that does not come."""
    Event().wait()
