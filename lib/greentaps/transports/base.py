"""The contract between transports and protocols: read this file first.

It is the split of PEP 3156.  A *transport* is seen from above: verbs that an application or a
layer calls, none of which blocks.  A *protocol* is seen from below: callbacks that the transport
makes, none of which may switch to another greenlet.  There is one protocol for each transport.

The order of the callbacks is law, and ``greentaps.testing.check_transport`` checks it over every
transport of the package::

    connection_made  (data_received | pause_writing resume_writing)*  eof_received?
                     (pause_writing resume_writing)*  connection_lost

* Nothing flows up before `start`, and nothing after ``connection_lost``.
* ``connection_lost`` comes once, never from inside ``close`` or ``abort``: with None for every
  normal end, local or remote, and else with the `TransportError` that ended it.
* ``eof_received`` comes once.  A false answer closes the transport, a true one leaves the sending
  direction open.
* An exception in a callback ends this transport with it, and is reported; nobody else's.
* ``connection_made`` of an SslTransport comes after the handshake (unless the application said
  that it will start the handshake itself), so nothing that it writes can leave in clear.

Every verb is legal in every state.  What a state does not allow answers with a
`TransportError`, and the answer is the same for all verbs: the error that ended the transport if
one did, else "not started", "closed", or what the mode forbids.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from enum import Enum
from math import inf
from typing import Any, ClassVar, Protocol

from ..errors import TransportError
from ..hub import Parked, Runner, now, switchpoint

__all__ = [
    "CLOSED",
    "CLOSE_TIMEOUT",
    "CLOSING",
    "DEFAULT_HIGH",
    "DEFAULT_LOW",
    "NEW",
    "OPEN",
    "BaseTransport",
    "ProtocolLike",
    "State",
    "StreamTransport",
    "as_bytes",
]

# What `close` grants the peer to take what is left.  A minute is longer than any healthy path
# needs and shorter than anybody waits for a server to stop; asyncio and uvloop chose 30 s for
# the like.
CLOSE_TIMEOUT = 30.0
DEFAULT_HIGH = 65536  # bytes
DEFAULT_LOW = 32768  # bytes


class State(Enum):
    """Where a transport is in its life.  It only ever moves down this list."""

    NEW = "new"  # made; `start` has not been called
    OPEN = "open"  # started
    CLOSING = "closing"  # close or abort was called, or something failed
    CLOSED = "closed"  # connection_lost has been called


NEW, OPEN, CLOSING, CLOSED = State


class ProtocolLike(Protocol):
    """The callbacks that every transport makes.  Protocols are duck-typed: no base class and no
    ``super()`` call is needed."""

    def connection_made(self, transport: Any) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class BaseTransport:
    """What all transports share: life cycle, flow control, extra information.

    There is no public constructor: use a subclass, or `create_connection`.
    """

    __slots__ = (
        "__weakref__",
        "_close_at",
        "_close_timer",
        "_closers",
        "_error",
        "_high",
        "_low",
        "_on_lost",
        "_peer",
        "_protocol",
        "_reading",
        "_runner",
        "_state",
        "_waiters",
        "_writing_paused",
    )

    _extra_info: ClassVar[dict[str, str]] = {}

    starts_ready: ClassVar[bool] = False
    """Whether `start` itself calls ``connection_made``: there is nothing to wait for."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._protocol: Any = None
        self._state = NEW
        self._error: BaseException | None = None
        self._high = DEFAULT_HIGH
        self._low = DEFAULT_LOW
        self._reading = True  # the application's wish, whatever the handle does
        self._writing_paused = False
        self._waiters: list[Parked[None]] | None = None
        self._close_timer: Any = None
        self._close_at = inf
        self._closers: list[Parked[None]] | None = None
        self._on_lost: Callable[[Any, BaseException | None], None] | None = None
        self._peer: Any = None

    def __repr__(self) -> str:
        peer = f" {self._peer!r}" if self._peer else ""
        return f"<{type(self).__name__}{peer} {self._state.value}>"

    # -- Life cycle --

    def start(self, protocol: Any) -> None:
        """Bind to *protocol*, call its ``connection_made``, and begin to read.

        Works once: TransportError after that.  What ``connection_made`` raises ends the transport
        and is raised from here.  Not a switchpoint.
        """
        raise NotImplementedError

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Close the transport after all outstanding data has been written.

        Returns at once; ``connection_lost`` follows.  No more data is handed to the protocol.
        *timeout* (seconds, None for ever) is how long the peer may take over what is still
        buffered; then the transport is aborted and ``connection_lost`` gets a TransportError
        (ETIMEDOUT).  May be called in every state and again; a later call can only shorten
        the time.
        """
        raise NotImplementedError

    def close_after_delivery(self) -> None:
        """Let a `close` also wait until the peer's system has acknowledged all data, where the
        protocol below can tell (TCP on Linux); elsewhere it changes nothing.  To be called before
        it.  A connection that breaks meanwhile is lost with its error, and not with None."""

    def abort(self, error: BaseException | None = None) -> None:
        """Close the transport immediately and drop what was not sent.

        ``connection_lost`` follows, with *error*.  On TCP the peer sees a reset.  May be called
        in every state and again.
        """
        raise NotImplementedError

    def is_closing(self) -> bool:
        """Whether the transport has ended or is about to."""
        return self._state is CLOSING or self._state is CLOSED

    def is_ending(self) -> bool:
        """Whether ``connection_lost`` is due, and waits for nobody."""
        return self._state is CLOSED

    def is_closed_well(self) -> bool:
        """Whether `is_ending`, and not because of an error: all that is left is to hear of it."""
        return self._error is None and self.is_ending()

    @switchpoint
    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until ``connection_lost`` has been called.  It does not close: call `close` or
        `abort` for that.  *timeout* is in seconds; raises `Timeout`, and nothing else."""
        if self._state is not CLOSED:
            if self._closers is None:
                self._closers = []
            _wait_in(self._closers, Parked(self._runner), timeout)

    def get_protocol(self) -> Any:
        """The protocol that gets the callbacks now; None before the start and after the end."""
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        """Give all further callbacks to *protocol*.  Its ``connection_made`` is not called."""
        if self._state is NEW or self._state is CLOSED:
            self._refuse()
        self._protocol = protocol

    def call_when_lost(self, callback: Callable[[Any, BaseException | None], None]) -> None:
        """Call ``callback(transport, exc)`` once at the end, just before ``connection_lost``; and
        also if ``connection_made`` was never called, because a handshake failed.  For whoever
        keeps a list of transports.  One callback only; a second one replaces it."""
        self._on_lost = callback

    # -- Flow control --

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the transport holds because the layer below has not taken them."""
        raise NotImplementedError

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the write buffer limits, in bytes, as a ``(low, high)`` tuple."""
        return (self._low, self._high)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the protocol is paused and resumed, in bytes.

        ``pause_writing`` is called when the buffer holds more than *high*, ``resume_writing`` when
        it holds *low* or less again.  Where only one is given, low is half of high; where none
        is, the defaults (65536, 32768) are restored.  Raises ValueError unless
        ``high >= low >= 0``.
        """
        if high is None:
            high = DEFAULT_HIGH if low is None else 2 * low
        if low is None:
            low = high // 2
        if not high >= low >= 0:
            raise ValueError(f"write buffer limits must be high >= low >= 0: {high!r}, {low!r}")
        self._high = high
        self._low = low
        if self._state is OPEN:
            size = self.get_write_buffer_size()
            if self._writing_paused and size <= low:
                self._resume_writing()
            elif not self._writing_paused and size > high:
                self._pause_writing()

    @switchpoint
    def wait_writable(self, timeout: float | None = None) -> None:
        """Wait until the protocol is not paused for writing: back-pressure for greenlets.

        *timeout* is in seconds.  Raises `Timeout`, or what ended the transport.  For greenlets;
        together with `wait_closed` the only call of a transport that may switch.
        """
        if self._state is not OPEN:
            self._refuse()
        if not self._writing_paused:
            return
        if self._waiters is None:
            self._waiters = []
        _wait_in(self._waiters, Parked(self._runner), timeout)

    def _pause_writing(self) -> None:
        self._writing_paused = True
        self._call(self._protocol.pause_writing)

    def _resume_writing(self) -> None:
        self._writing_paused = False
        self._wake_waiters(None)
        self._call(self._protocol.resume_writing)

    def _wake_waiters(self, error: BaseException | None) -> None:
        waiters, self._waiters = self._waiters, None
        for parked in waiters or ():
            if error is None:
                parked.finish(None)
            else:
                parked.fail(error)

    # -- Information --

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return transport-specific information, or *default* if there is none (any more).

        The names are in the reference; unknown ones give *default*.
        """
        method = self._extra_info.get(name)
        if method is None:
            return default
        value = getattr(self, method)()
        return default if value is None else value

    # -- For subclasses --

    def _call(self, callback: Any, *args: Any) -> Any:
        """Make a callback.  An exception in it ends this transport, and is reported."""
        try:
            return callback(*args)
        except BaseException as error:
            self._callback_failed(error)

    def _callback_failed(self, error: BaseException) -> None:
        self._runner.collect(error)
        self.abort(error)

    def _lost(self) -> None:
        """The last step: everything below is closed."""
        if self._state is CLOSED:
            return
        self._state = CLOSED
        if self._close_timer is not None:
            self._stop_close_timer()
        self._runner.release(self)
        protocol, self._protocol = self._protocol, None
        on_lost, self._on_lost = self._on_lost, None
        if self._waiters:
            self._wake_waiters(self._ended())
        try:
            if on_lost is not None:
                on_lost(self, self._error)
        except BaseException as error:
            self._runner.collect(error)
        try:
            if protocol is not None:
                protocol.connection_lost(self._error)
        except BaseException as error:
            self._runner.collect(error)

        closers = self._closers
        if closers:
            self._closers = None
            for parked in closers:
                parked.finish(None)

    def _start_close_timer(self, timeout: float | None) -> None:
        if timeout is None or self._state is CLOSED:
            return
        close_at = now() + timeout
        if close_at < self._close_at:
            self._stop_close_timer()
            self._close_at = close_at
            self._close_timer = self._runner.call_later(timeout, self._close_timed_out)

    def _stop_close_timer(self) -> None:
        if self._close_timer is not None:
            self._close_timer.close()
            self._close_timer = None

    def _close_timed_out(self) -> None:
        self.abort(
            TransportError(
                "the peer did not take what was left before the close", errno.ETIMEDOUT, self._peer
            )
        )

    def hub_lost(self, error: BaseException) -> None:
        raise NotImplementedError

    def _ended(self) -> TransportError:
        """What an operation raises after the end."""
        if isinstance(self._error, TransportError):
            return self._error.again()
        made = TransportError("the transport is closed", errno.ENOTCONN, self._peer)
        made.__cause__ = self._error
        return made

    def _begin(self) -> None:
        """The first step of `start`."""
        if self._state is OPEN:
            raise TransportError("the transport has already been started", errno.EISCONN)
        if self._state is not NEW:
            raise self._ended()
        self._state = OPEN

    def _refuse(self, what: str | None = None) -> None:
        """Raise what the state calls for."""
        if self._state is NEW:
            raise TransportError("the transport has not been started", errno.ENOTCONN)
        if self._state is not OPEN:
            raise self._ended()
        if what is not None:
            raise TransportError(what, errno.EPIPE, self._peer)


def _wait_in(line: list[Parked[None]], parked: Parked[None], timeout: float | None) -> None:
    """Stand in *line* while waiting."""
    line.append(parked)
    try:
        parked.wait(timeout)
    finally:
        if parked in line:
            line.remove(parked)


class StreamTransport(BaseTransport):
    """A connection-oriented transport: an ordered stream of bytes in each direction.

    The abstract base of `Transport`, `SslTransport` and the memory transport.
    """

    __slots__ = ()

    def write(self, data: bytes | bytearray | memoryview, handle: Any = None) -> bool | None:
        """Write *data* to the transport.

        What the layer below does not take at once is kept; a mutable buffer may be changed
        afterwards.  *handle*, a pyuv handle, is sent along on a Pipe made for it (``ipc=True``),
        for which *data* must not be empty.  Raises TypeError for other types, TransportError if
        the transport cannot be written to.  A failure of the write itself ends the transport
        and reaches ``connection_lost``; then this returns True, and else None.  That answer
        counts: whoever gets None takes the data for sent, as `Connection.send` and SslTransport
        do, and does not look at `is_closing`.
        """
        raise NotImplementedError

    def writelines(self, seq: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write all elements of *seq* to the transport, as one write.

        Raises TypeError, with nothing sent, if an element is not bytes-like.
        """
        self.write(b"".join(map(as_bytes, seq)))

    def can_write_eof(self) -> bool:
        """Whether this transport can close the write direction alone, now: it was started, is not
        closing, and has not done so before."""
        raise NotImplementedError

    def write_eof(self) -> None:
        """Shut down the write direction, after what was written before.

        Raises TransportError where this is impossible (see `can_write_eof`) or was done before;
        the transport stays as it was.
        """
        raise NotImplementedError

    def _check_passing(self, data: Any, handle: Any) -> None:
        """Raise ValueError or TypeError if *handle* cannot be sent along with *data*."""
        raise ValueError("a handle can be sent only over a Pipe made with ipc=True")

    def pause_reading(self) -> None:
        """Stop calling ``data_received`` until `resume_reading`.

        May be called in every state and repeatedly; counts also from ``connection_made`` on.
        """
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Undo `pause_reading`.  May be called in every state and repeatedly."""
        raise NotImplementedError


def as_bytes(data: Any) -> bytes | bytearray | memoryview:
    """*data* as something with one byte per item; TypeError if it is not a bytes-like object."""
    if isinstance(data, bytes | bytearray):
        return data
    if isinstance(data, memoryview):
        if not data.contiguous:
            return data.tobytes()
        return data if data.itemsize == 1 and data.ndim == 1 else data.cast("B")
    raise TypeError(f"a bytes-like object is required, not {type(data).__name__}")
