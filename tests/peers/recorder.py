"""A protocol that writes down its callbacks, and on which a test can wait for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

PATIENCE = 20.0  # seconds


class Recorder:
    """Duck-typed for streams and datagrams alike.  `calls` has the names in order."""

    def __init__(self, *, keep_open: bool = False, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.keep_open = keep_open
        self.calls: list[str] = []
        self.data = b""
        self.datagrams: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost: Any = "not yet"
        self.transport: Any = None
        self._changed = Event()

    def _note(self, name: str) -> None:
        self.calls.append(name)
        self._changed.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._note("connection_made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._note("data_received")

    def eof_received(self) -> bool:
        self._note("eof_received")
        return self.keep_open

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams.append((data, addr))
        self._note("datagram_received")

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self._note("error_received")

    def pause_writing(self) -> None:
        self._note("pause_writing")

    def resume_writing(self) -> None:
        self._note("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = exc
        self._note("connection_lost")

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait until *condition*, which is asked again after each callback."""
        with gevent.Timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                self._changed.wait()

    def until_called(self, name: str, times: int = 1) -> None:
        """Wait until the callback *name* has been called so often."""
        self.until(lambda: self.calls.count(name) >= times)

    def until_data(self, data: bytes) -> None:
        """Wait until all data together is *data*, and no more."""
        self.until(lambda: len(self.data) >= len(data))
        assert self.data == data


class Echo(Recorder):
    """A recorder that sends everything back."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.transport.sendto(data, addr)
