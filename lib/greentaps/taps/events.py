"""Events for handlers: the event-driven form of the API (RFC 9622 appendix A).

Objects that send events mix in `Handlers`.  Each registered handler is called from one greenlet
that belongs to the object, in the order of the events; so a handler may block, and then the later
events of this object wait.  What a handler raises is reported, and the next event goes on.

The closing event comes after all others (RFC 9622 section 11), also after those that are due only
while it waits for its turn.

An object with no handler pays one attribute for this, and an event without a handler costs one
test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ..hub import get_runner, spawn

__all__ = ["ConnectionHandlers", "Events", "Handlers", "ListenerHandlers"]

Handler = Callable[..., Any] | None


class Handlers:
    """Mixin: `_on(event, f)` registers, `_emit(event, ...)` calls.  A subclass sets ``_events`` to
    None at first."""

    __slots__ = ("_events",)

    _events: Events | None

    def _on(self, event: str, handler: Callable[..., Any] | None) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"a handler must be callable, not {handler!r}")
        if self._events is None:
            if handler is None:
                return
            self._events = Events()
        self._events.register(event, handler)

    def _emit(self, event: str, *args: Any) -> None:
        events = self._events
        if events is not None:
            handler = events.handlers.get(event)
            if handler is not None:
                events.call(handler, self, *args)

    def _emit_last(self, event: str, *args: Any) -> None:
        """`_emit` for the closing event."""
        events = self._events
        if events is not None:
            handler = events.handlers.get(event)
            if handler is not None:
                events.call_last(handler, self, *args)

    @property
    def _told_all(self) -> bool:
        """Whether the handler of the closing event has been called: nothing may follow."""
        return self._events is not None and self._events.over

    def _call_handler(self, handler: Callable[..., Any], *args: Any) -> None:
        """Call a handler that belongs to one call, in its turn among the events."""
        if self._events is None:
            self._events = Events()
        self._events.call(handler, self, *args)


class Events:
    """The handlers of one object, and the calls that are due."""

    __slots__ = ("_due", "_last", "_runner", "_running", "handlers", "over")

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[..., Any]] = {}
        self._due: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._last: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
        self.over = False
        """Whether the last call has been made, or is under way."""
        self._runner = get_runner()
        self._running = False

    def register(self, event: str, handler: Callable[..., Any] | None) -> None:
        """Set the handler of *event*, or remove it with None."""
        if handler is None:
            self.handlers.pop(event, None)
        else:
            self.handlers[event] = handler

    def inherit(self, other: Events) -> None:
        """Take over the handlers of *other* that are not set here."""
        for event, handler in other.handlers.items():
            self.handlers.setdefault(event, handler)

    def call(self, handler: Callable[..., Any], *args: Any) -> None:
        """Call *handler* after all calls that are due already; not at all after the last one.
        Never switches."""
        if self.over:
            return
        self._due.append((handler, args))
        self._start()

    def call_last(self, handler: Callable[..., Any], *args: Any) -> None:
        """Call *handler* when nothing else is due, and nothing after it.  Never switches."""
        self._last = (handler, args)
        self._start()

    def _start(self) -> None:
        if not self._running:
            self._running = True
            spawn(self._run)

    @property
    def idle(self) -> bool:
        """Whether no call is due or under way."""
        return not self._running

    def _run(self) -> None:
        try:
            while self._due or self._last is not None:
                if self._due:
                    handler, args = self._due.popleft()
                else:
                    assert self._last is not None
                    handler, args = self._last
                    self._last = None
                    self.over = True
                try:
                    handler(*args)
                except Exception as error:
                    self._runner.report(handler, error)
        finally:
            self._running = False
            if self._due or self._last is not None:  # killed in a handler: the rest is still owed
                self._start()


class _OnlyTheSubject:
    """A handler of an older system, which gets the Connection and nothing else."""

    __slots__ = ("handler",)

    def __init__(self, handler: Callable[[Any], Any]) -> None:
        self.handler = handler

    def __call__(self, subject: Any, *_: Any) -> Any:
        return self.handler(subject)


def _attribute(event: str) -> Any:
    """The handler of *event* as older systems have it: an attribute, which is assigned."""

    def get(self: Handlers) -> Any:
        found = None if self._events is None else self._events.handlers.get(event)
        return found.handler if isinstance(found, _OnlyTheSubject) else found

    def put(self: Handlers, handler: Any) -> None:
        if callable(handler):
            handler = _OnlyTheSubject(handler)
        getattr(self, f"on_{event}")(handler)

    return property(get, put)


class ConnectionHandlers(Handlers):
    """The events of a Connection, each as a method that sets its handler (None removes it).

    They can be set on a Preconnection too, for all Connections made from it.  A handler is called
    with the Connection first.
    """

    __slots__ = ()

    def on_ready(self, handler: Handler) -> None:
        """Ready (RFC 9622 section 7.1): ``handler(connection)``."""
        self._on("ready", handler)

    def on_rendezvous_done(self, handler: Handler) -> None:
        """RendezvousDone (section 7.3): ``handler(connection)``."""
        self._on("rendezvous_done", handler)

    def on_establishment_error(self, handler: Handler) -> None:
        """EstablishmentError (section 7.1): ``handler(connection, error)``."""
        self._on("establishment_error", handler)

    def on_sent(self, handler: Handler) -> None:
        """Sent (section 9.2.2.1), for sends that do not wait: ``handler(connection, context)``."""
        self._on("sent", handler)

    def on_expired(self, handler: Handler) -> None:
        """Expired (section 9.2.2.2), for sends that do not wait: ``handler(connection,
        context)``."""
        self._on("expired", handler)

    def on_send_error(self, handler: Handler) -> None:
        """SendError (section 9.2.2.3), for sends that do not wait: ``handler(connection, context,
        error)``."""
        self._on("send_error", handler)

    def on_received(self, handler: Handler) -> None:
        """Received (section 9.3.2.1), for receives that do not wait: ``handler(connection,
        message)``."""
        self._on("received", handler)

    def on_received_partial(self, handler: Handler) -> None:
        """ReceivedPartial (section 9.3.2.2), for receives that do not wait: ``handler(connection,
        message)``; ``message.end_of_message`` tells the last piece."""
        self._on("received_partial", handler)

    def on_receive_error(self, handler: Handler) -> None:
        """ReceiveError (section 9.3.2.3), for receives that do not wait: ``handler(connection,
        error)``."""
        self._on("receive_error", handler)

    def on_closed(self, handler: Handler) -> None:
        """Closed (section 10): ``handler(connection)``.  The last event, unless there is a
        ConnectionError."""
        self._on("closed", handler)

    def on_connection_error(self, handler: Handler) -> None:
        """ConnectionError (section 10): ``handler(connection, error)``.  The last event."""
        self._on("connection_error", handler)

    def on_clone_error(self, handler: Handler) -> None:
        """CloneError (section 7.4): ``handler(connection, error)``."""
        self._on("clone_error", handler)

    # The names of older systems:

    on_initiate_error = on_establishment_error
    HANDLE_STATE_READY = _attribute("ready")
    HANDLE_STATE_CLOSED = _attribute("closed")
    HANDLE_STATE_CONNECTION_ERROR = _attribute("connection_error")

    def on_soft_error(self, handler: Handler) -> None:
        """SoftError (section 8.3.1): ``handler(connection, error)``."""
        self._on("soft_error", handler)

    def on_path_change(self, handler: Handler) -> None:
        """PathChange (section 8.3.2): ``handler(connection)``."""
        self._on("path_change", handler)


class ListenerHandlers(Handlers):
    """The events of a Listener; they can be set on a Preconnection too."""

    __slots__ = ()

    def on_connection_received(self, handler: Handler) -> None:
        """ConnectionReceived (RFC 9622 section 7.2): ``handler(connection)``.  While it is set,
        it gets every new Connection, and `Listener.accept` none."""
        self._on("connection_received", handler)

    HANDLE_CONNECTION_RECEIVED = _attribute("connection_received")

    def on_stopped(self, handler: Handler) -> None:
        """Stopped (section 7.2): ``handler(listener)``.  The last event."""
        self._on("stopped", handler)
