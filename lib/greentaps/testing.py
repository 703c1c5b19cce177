"""The test kit for authors of transports and parsers: the contracts, as functions to call.

`check_transport` holds everything that ``transports/base.py`` promises against a pair of connected
transports, one small check after the other; our own transports run it, and so can yours.
`RecordingProtocol` is the protocol that it uses, and it stands alone as well: it records what is
called, notices an order that the contract forbids, and wakes whoever waits for something to
happen.  `check_chunks` feeds a parser in all the ways in which a stream may be cut.

Nothing in here sleeps to wait for something.  A wait is ended by a callback, or fails loudly at
its deadline.  Usage, with any test runner::

    def test_my_transport():
        check_transport(lambda: my_connected_pair())

or, for one test result each::

    @pytest.mark.parametrize("name", transport_checks())
    def test_my_transport(name):
        check_transport(my_connected_pair, names=[name])
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import gevent
from gevent.event import Event

from .errors import SwitchpointError, Timeout, TransportError
from .hub import Deadline, get_runner
from .testing_framers import FramerRecorder, check_framer, framer_checks
from .transports.memory import memory_pair

__all__ = [
    "FramerRecorder",
    "RecordingProtocol",
    "check_chunks",
    "check_framer",
    "check_transport",
    "framer_checks",
    "memory_pair",
    "pattern",
    "reported_errors",
    "settle",
    "transport_checks",
    "wait_until",
]

# How long anything in here may take, in seconds: far more than a busy machine needs.
PATIENCE = 10.0
# No sane layer below takes more than this (in bytes) from a writer whose peer does not read.
_NEVER_FULL = 256 * 1024 * 1024
_BLOCK = 65536  # bytes
# After so many writes the layers below have noticed that the peer is gone, if they ever do.
_WRITES = 50

# Stage -> callback -> next stage: the order that the contract allows.
_ORDER: dict[str, dict[str, str]] = {
    "new": {"connection_made": "open"},
    "open": {
        "data_received": "open",
        "pause_writing": "open, paused",
        "eof_received": "eof",
        "connection_lost": "lost",
    },
    "open, paused": {
        "data_received": "open, paused",
        "resume_writing": "open",
        "eof_received": "eof, paused",
        "connection_lost": "lost",
    },
    "eof": {"pause_writing": "eof, paused", "connection_lost": "lost"},
    "eof, paused": {"resume_writing": "eof", "connection_lost": "lost"},
    "lost": {},
}


# -- Waiting, and seeing what was reported --


def wait_until(
    condition: Callable[[], Any],
    *protocols: RecordingProtocol,
    timeout: float = PATIENCE,
    what: str = "a condition",
) -> None:
    """Wait until *condition()* is true, looking again after each callback of *protocols*.

    Fails with an AssertionError that shows their events when *timeout* (seconds) is over.
    """
    changed = Event()
    for protocol in protocols:
        protocol.watchers.append(changed)
    deadline = Deadline(timeout)
    try:
        while not condition():
            changed.clear()
            if not changed.wait(deadline.left()) and not condition():
                seen = "; ".join(map(repr, protocols))
                raise AssertionError(f"waited {timeout} s in vain for {what}: {seen}")
    finally:
        for protocol in protocols:
            protocol.watchers.remove(changed)


def settle(turns: int = 20) -> None:
    """Let everything happen that can happen by itself now: some turns of the loop, no time.

    For proving that something does *not* come; to wait for something use `wait_until`.
    """
    for _ in range(turns):
        gevent.sleep(0)


@contextmanager
def reported_errors() -> Iterator[list[BaseException]]:
    """Collect what is reported to the hub in the body (exceptions in callbacks and greenlets),
    instead of printing it.  KeyboardInterrupt and SystemExit go on to the main greenlet."""
    hub = get_runner().hub
    original = hub.handle_error
    reports: list[BaseException] = []

    def handle_error(context: Any, kind: Any, value: Any, traceback: Any) -> None:
        if isinstance(value, Exception):
            reports.append(value)
        else:
            original(context, kind, value, traceback)

    had_own = "handle_error" in hub.__dict__
    hub.handle_error = handle_error
    try:
        yield reports
    finally:
        if had_own:
            hub.handle_error = original
        else:
            del hub.handle_error


def pattern(size: int, start: int = 0) -> bytes:
    """*size* bytes of an endless pattern from offset *start* on, in which no two places look
    alike, so that loss, doubling and disorder all show."""
    first = start // 8
    numbers = array("Q", range(first, (start + size) // 8 + 1))
    return numbers.tobytes()[start - 8 * first :][:size]


class RecordingProtocol:
    """A protocol that records its callbacks in `events`, as ``(name, *arguments)``.

    A callback that the contract does not allow at its place is noted in `violations`; `check`
    raises if there is one.  *hooks* are functions by the name of a callback, called as
    ``hook(protocol, *arguments)`` after the event was recorded; the hook of ``eof_received``
    gives its answer, which is *keep_open* where there is none.
    """

    def __init__(self, *, keep_open: bool = False, **hooks: Callable[..., Any]) -> None:
        unknown = set(hooks) - {name for stage in _ORDER.values() for name in stage}
        if unknown:
            raise TypeError(f"there are no such callbacks: {', '.join(sorted(unknown))}")
        self.keep_open = keep_open
        self.hooks = hooks
        self.events: list[tuple[Any, ...]] = []
        self.violations: list[str] = []
        self.stage = "new"
        self.transport: Any = None
        self.received = bytearray()
        self.error: BaseException | None = None
        self.watchers: list[Event] = []

    def __repr__(self) -> str:
        names = self.names
        shown = ", ".join([*names[:3], "...", *names[-9:]] if len(names) > 12 else names)
        return (
            f"<{type(self).__name__} {self.stage}, {len(self.received)} bytes, "
            f"error {self.error!r}: {shown}>"
        )

    @property
    def names(self) -> list[str]:
        """The names of all callbacks so far."""
        return [event[0] for event in self.events]

    @property
    def made(self) -> bool:
        """Whether ``connection_made`` has come."""
        return self.stage != "new"

    @property
    def eof(self) -> bool:
        """Whether ``eof_received`` has come."""
        return "eof_received" in self.names

    @property
    def paused(self) -> bool:
        """Whether writing is paused."""
        return self.stage.endswith("paused")

    @property
    def lost(self) -> bool:
        """Whether ``connection_lost`` has come."""
        return self.stage == "lost"

    def count(self, name: str) -> int:
        """How often the callback *name* has come."""
        return self.names.count(name)

    def check(self) -> None:
        """Raise AssertionError if the contract was broken."""
        if self.violations:
            raise AssertionError(f"{'; '.join(self.violations)}: {self!r}")

    def wait(self, condition: Callable[[], Any], what: str = "a condition") -> None:
        """`wait_until` for this protocol alone."""
        wait_until(condition, self, what=what)

    def wait_lost(self) -> BaseException | None:
        """Wait for ``connection_lost`` and return what it was given."""
        self.wait(lambda: self.lost, "connection_lost")
        return self.error

    def wait_received(self, size: int) -> bytes:
        """Wait for *size* bytes in all and return what has come, which may be more."""
        self.wait(lambda: len(self.received) >= size, f"{size} bytes")
        return bytes(self.received)

    # -- The callbacks --

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._record("connection_made", transport)

    def data_received(self, data: bytes) -> None:
        if not isinstance(data, bytes) or not data:
            self.violations.append(f"data_received({data!r}) must be bytes, and not empty")
        self.received += data
        self._record("data_received", data)

    def eof_received(self) -> Any:
        answer = self._record("eof_received")
        return answer if "eof_received" in self.hooks else self.keep_open

    def pause_writing(self) -> None:
        self._record("pause_writing")

    def resume_writing(self) -> None:
        self._record("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        self._record("connection_lost", exc)

    def _record(self, name: str, *arguments: Any) -> Any:
        following = _ORDER[self.stage].get(name)
        if following is None:
            self.violations.append(f"{name} came in stage {self.stage!r}")
        else:
            self.stage = following
        self.events.append((name, *arguments))
        hook = self.hooks.get(name)
        try:
            return hook(self, *arguments) if hook is not None else None
        finally:
            for event in self.watchers:
                event.set()


# -- The contract of a stream transport --

_CHECKS: dict[str, Callable[[_Pair], None]] = {}


def _check(function: Callable[[_Pair], None]) -> Callable[[_Pair], None]:
    _CHECKS[function.__name__.strip("_")] = function
    return function


def transport_checks() -> list[str]:
    """The names of the checks that `check_transport` consists of."""
    return list(_CHECKS)


def check_transport(
    make_pair: Callable[[], Any],
    *,
    names: Iterable[str] | None = None,
    timeout: float = PATIENCE,
) -> None:
    """Check a stream transport against the contract of ``transports/base.py``.

    *make_pair* is called for each check.  It returns two new transports that are each other's
    peer and were not started, as a tuple or as a context manager that gives the tuple.  *names*
    picks some of `transport_checks`; *timeout* (seconds) bounds each single wait.

    Raises AssertionError, with a note that names the check, at the first broken promise; what a
    transport raises against the contract comes through with the same note.
    """
    for name in _CHECKS if names is None else names:
        try:
            with ExitStack() as stack, reported_errors() as reports:
                pair = _Pair(make_pair, stack, reports, timeout)
                try:
                    _CHECKS[name](pair)
                    pair.finish()
                finally:
                    pair.clear()
        except BaseException as error:
            error.add_note(f"in the transport check {name!r}")
            raise


class _BoomError(Exception):
    """What the checks raise in callbacks."""


class _Pair:
    """The two transports of one check, and what all checks need."""

    def __init__(
        self,
        make_pair: Callable[[], Any],
        stack: ExitStack,
        reports: list[BaseException],
        timeout: float,
    ) -> None:
        self._make_pair = make_pair
        self._stack = stack
        self._transports: list[Any] = []
        self._protocols: list[RecordingProtocol] = []
        self.reports = reports
        self.expected: list[BaseException] = []
        self.timeout = timeout
        self.one, self.two = self.make()

    def make(self) -> tuple[Any, Any]:
        made = self._make_pair()
        if isinstance(made, AbstractContextManager):
            made = self._stack.enter_context(made)
        one, two = made
        self._transports += (one, two)
        return one, two

    def protocol(self, **arguments: Any) -> RecordingProtocol:
        made = RecordingProtocol(**arguments)
        self._protocols.append(made)
        return made

    def start(
        self, one: dict[str, Any] | None = None, two: dict[str, Any] | None = None
    ) -> tuple[RecordingProtocol, RecordingProtocol]:
        """Start both, with protocols made from these arguments, and wait until both are made."""
        first, second = self.protocol(**(one or {})), self.protocol(**(two or {}))
        self.one.start(first)
        self.two.start(second)
        self.until(lambda: first.made and second.made, "both connection_made")
        return first, second

    def until(self, condition: Callable[[], Any], what: str) -> None:
        wait_until(condition, *self._protocols, timeout=self.timeout, what=what)

    def until_lost(self, *protocols: RecordingProtocol) -> None:
        self.until(lambda: all(protocol.lost for protocol in protocols), "connection_lost")

    def until_received(self, protocol: RecordingProtocol, data: bytes) -> None:
        """Wait until *protocol* has received *data*, and nothing else."""
        self.until(lambda: len(protocol.received) >= len(data), f"{len(data)} bytes")
        _same(protocol.received, data)

    def fill(self, transport: Any) -> int:
        """Write the pattern to a transport whose peer does not read, until its buffer holds
        something.  Returns how much was written."""
        written = 0
        while not transport.get_write_buffer_size():
            transport.write(pattern(_BLOCK, written))
            written += _BLOCK
            assert written < _NEVER_FULL, "the transport takes everything from a peerless writer"
        return written

    def talk(self, one: Any, first: RecordingProtocol, two: Any, second: RecordingProtocol) -> None:
        """Show that two transports work, both ways."""
        there, back = len(first.received), len(second.received)
        one.write(b"ping")
        two.write(b"pong!")
        self.until(
            lambda: len(first.received) >= there + 5 and len(second.received) >= back + 4,
            "an exchange",
        )
        assert first.received[there:] == b"pong!"
        assert second.received[back:] == b"ping"

    def finish(self) -> None:
        """End what is open, and look whether everything was in order."""
        for transport in self._transports:
            transport.abort()
        for transport in self._transports:
            transport.wait_closed(self.timeout)
        for protocol in self._protocols:
            assert protocol.lost or not protocol.made, f"never lost: {protocol!r}"
            protocol.check()
        settle(3)
        for protocol in self._protocols:
            protocol.check()
        unexpected = [error for error in self.reports if error not in self.expected]
        if unexpected:
            raise AssertionError(f"reported unexpectedly: {unexpected}") from unexpected[0]
        missing = [error for error in self.expected if error not in self.reports]
        assert not missing, f"not reported: {missing}"

    def clear(self) -> None:
        for transport in self._transports:
            with suppress(Exception):
                transport.abort()
        for transport in self._transports:
            with suppress(Exception):
                transport.wait_closed(self.timeout)


_PAUSED: dict[str, Any] = {"connection_made": lambda protocol, transport: transport.pause_reading()}


def _raising(error: BaseException) -> Callable[..., Any]:
    def hook(*arguments: Any) -> Any:
        raise error

    return hook


def _same(received: bytes | bytearray, expected: bytes) -> None:
    """Compare without printing megabytes."""
    if received == expected:
        return
    size = min(len(received), len(expected))
    place = next((at for at in range(size) if received[at] != expected[at]), size)
    raise AssertionError(
        f"{len(received)} bytes instead of {len(expected)}, different from offset {place} on: "
        f"{bytes(received[place : place + 20])!r} instead of {expected[place : place + 20]!r}"
    )


def _refused(what: Callable[[], Any], *numbers: int) -> TransportError:
    """*what* raises a TransportError, with one of *numbers* as errno if any are given."""
    try:
        what()
    except TransportError as error:
        refusal = error
    else:
        raise AssertionError("no TransportError was raised")
    assert not numbers or refusal.errno in numbers, f"wrong errno: {refusal!r}"
    return refusal


# Data


@_check
def _connection_made_comes_first(pair: _Pair) -> None:
    first, second = pair.start()
    assert first.events[0] == ("connection_made", pair.one)
    assert second.events[0] == ("connection_made", pair.two)
    assert pair.one.get_protocol() is first
    assert not pair.one.is_closing()
    pair.talk(pair.one, first, pair.two, second)


@_check
def _written_in_connection_made(pair: _Pair) -> None:
    first, second = pair.start(
        {"connection_made": lambda protocol, transport: transport.write(b"from one")},
        {"connection_made": lambda protocol, transport: transport.write(b"from two")},
    )
    pair.until_received(first, b"from two")
    pair.until_received(second, b"from one")


@_check
def _nothing_before_start(pair: _Pair) -> None:
    first = pair.protocol()
    pair.one.start(first)
    pair.one.write(b"early")
    settle()
    second = pair.protocol()
    pair.two.start(second)
    pair.until(lambda: second.made, "connection_made")
    pair.until_received(second, b"early")


@_check
def _byte_by_byte(pair: _Pair) -> None:
    _, second = pair.start()
    data = pattern(300)
    for at in range(len(data)):
        pair.one.write(data[at : at + 1])
    pair.until_received(second, data)


@_check
def _single_bytes_in_single_turns(pair: _Pair) -> None:
    _, second = pair.start()
    for at in range(20):
        pair.one.write(bytes([at]))
        pair.until_received(second, bytes(range(at + 1)))


@_check
def _large_both_ways(pair: _Pair) -> None:
    size = 3_000_000
    first, second = pair.start()
    pair.one.write(pattern(size))
    pair.two.write(pattern(size, 8))
    pair.until_received(first, pattern(size, 8))
    pair.until_received(second, pattern(size))


@_check
def _back_pressure_both_ways(pair: _Pair) -> None:
    """Two greenlets send as fast as `wait_writable` lets them."""
    size, piece = 3_000_000, 50_000
    first, second = pair.start()
    highest = [0]

    def send(transport: Any) -> None:
        for start in range(0, size, piece):
            transport.wait_writable(pair.timeout)
            transport.write(pattern(piece, start))
            highest[0] = max(highest[0], transport.get_write_buffer_size())

    senders = [gevent.spawn(send, transport) for transport in (pair.one, pair.two)]
    try:
        pair.until(
            lambda: len(first.received) >= size and len(second.received) >= size, "all the data"
        )
        gevent.joinall(senders, pair.timeout, raise_error=True)
    finally:
        gevent.killall(senders)
    _same(first.received, pattern(size))
    _same(second.received, pattern(size))
    # One piece may lift the buffer over the mark (the layer may add something of its own).
    assert highest[0] <= 65536 + 2 * piece, f"{highest[0]} bytes were buffered"


@_check
def _kinds_of_buffers(pair: _Pair) -> None:
    _, second = pair.start()
    grid = memoryview(bytes(range(12))).cast("B", (3, 4))
    numbers = array("I", [1, 2, 3])
    pieces: list[tuple[Any, bytes]] = [
        (b"bytes", b"bytes"),
        (bytearray(b"bytearray"), b"bytearray"),
        (memoryview(b"view"), b"view"),
        (memoryview(b"a-b-c-")[::2], b"abc"),
        (memoryview(b"cba")[::-1], b"abc"),
        (memoryview(numbers), numbers.tobytes()),
        (grid, bytes(range(12))),
        (memoryview(bytearray(b"changeable")), b"changeable"),
    ]
    for piece, _ in pieces:
        pair.one.write(piece)
    pair.one.writelines([piece for piece, _ in pieces])
    pair.until_received(second, 2 * b"".join(expected for _, expected in pieces))


@_check
def _empty_writes(pair: _Pair) -> None:
    _, second = pair.start()
    for empty in (b"", bytearray(), memoryview(b"")):
        pair.one.write(empty)
    pair.one.writelines([])
    pair.one.writelines([b"", b""])
    assert pair.one.get_write_buffer_size() == 0
    settle(5)
    pair.one.write(b"x")
    pair.one.write(b"")
    pair.one.write(b"y")
    pair.until_received(second, b"xy")


@_check
def _wrong_types(pair: _Pair) -> None:
    first, second = pair.start()
    for wrong in ("text", 7, None, [b"x"], object()):
        _type_error(pair.one.write, wrong)
    for wrong in ("text", b"bytes", [b"good", "bad"], [b"good", 7], 5, None):
        _type_error(pair.one.writelines, wrong)
    assert not pair.one.is_closing()
    settle(5)
    pair.one.write(b"right")
    pair.until_received(second, b"right")
    assert not first.received


def _type_error(function: Callable[[Any], Any], argument: Any) -> None:
    try:
        function(argument)
    except TypeError:
        return
    raise AssertionError(f"{argument!r} raised no TypeError")


@_check
def _writelines_is_one_write(pair: _Pair) -> None:
    _, second = pair.start()
    pair.one.writelines(piece for piece in (b"a", bytearray(b"b"), memoryview(b"c")))

    def spoilt() -> Iterator[bytes]:
        yield b"never sent"
        raise _BoomError

    with suppress(_BoomError):
        pair.one.writelines(spoilt())
    pair.one.writelines((b"d", b"e"))
    pair.until_received(second, b"abcde")


@_check
def _mutable_buffers_may_be_changed(pair: _Pair) -> None:
    _, second = pair.start(two=_PAUSED)
    written = pair.fill(pair.one)
    expected = pattern(written)
    for size in (10, 200_000):
        for view in (False, True):
            buffer = bytearray(b"-" * size)
            pair.one.write(memoryview(buffer) if view else buffer)
            buffer[:] = b"X" * size
            del buffer
            expected += b"-" * size
    buffer = bytearray(b"=" * 100)
    pair.one.writelines([buffer, memoryview(buffer)])
    buffer[:] = b"X" * 100
    pair.two.resume_reading()
    pair.until_received(second, expected + b"=" * 200)


# Reading


@_check
def _paused_from_connection_made_on(pair: _Pair) -> None:
    _, second = pair.start(two=_PAUSED)
    pair.one.write(b"waits")
    settle()
    assert second.names == ["connection_made"]
    pair.two.resume_reading()
    pair.until_received(second, b"waits")


@_check
def _paused_before_start(pair: _Pair) -> None:
    pair.two.pause_reading()
    _, second = pair.start()
    pair.one.write(b"waits")
    settle()
    assert second.names == ["connection_made"]
    pair.two.resume_reading()
    pair.until_received(second, b"waits")


@_check
def _pause_and_resume_may_be_repeated(pair: _Pair) -> None:
    first, second = pair.start()
    for _ in range(3):
        pair.two.pause_reading()
    pair.one.write(b"a")
    settle()
    assert not second.received
    for _ in range(3):
        pair.two.resume_reading()
    pair.until_received(second, b"a")
    pair.two.pause_reading()
    pair.two.resume_reading()
    pair.two.pause_reading()
    pair.two.resume_reading()
    pair.one.write(b"b")
    pair.until_received(second, b"ab")
    pair.talk(pair.one, first, pair.two, second)


@_check
def _pause_in_data_received(pair: _Pair) -> None:
    """Each chunk is the last one until reading is resumed."""
    size = 500_000

    def pause(protocol: RecordingProtocol, data: bytes) -> None:
        protocol.transport.pause_reading()

    _, second = pair.start(two={"data_received": pause})
    pair.one.write(pattern(size))
    chunks = 0
    while len(second.received) < size:
        chunks += 1
        pair.until(lambda: second.count("data_received") >= chunks, "a chunk")  # noqa: B023
        settle(4)
        assert second.count("data_received") == chunks, "data came in spite of the pause"
        pair.two.resume_reading()
    _same(second.received, pattern(size))


@_check
def _end_while_paused(pair: _Pair) -> None:
    """What the peer sent before its end is not lost, and the end is not overlooked."""
    first, second = pair.start(two=_PAUSED)
    pair.one.write(b"last words")
    pair.one.close()
    settle()
    assert second.names == ["connection_made"]
    pair.two.resume_reading()
    pair.until_lost(first, second)
    assert second.received == b"last words"
    assert second.eof
    assert first.error is None
    assert second.error is None


@_check
def _paused_at_the_last_chunk(pair: _Pair) -> None:
    """A pause between the data and the end of the stream, which came together."""

    def pause(protocol: RecordingProtocol, data: bytes) -> None:
        protocol.transport.pause_reading()

    _, second = pair.start(two={"data_received": pause})
    pair.one.write(b"last words")
    pair.one.close()
    pair.until_received(second, b"last words")
    settle()
    assert not second.eof
    assert not second.lost
    pair.two.resume_reading()
    pair.until_lost(second)
    assert second.eof
    assert second.error is None


@_check
def _end_before_the_peer_starts(pair: _Pair) -> None:
    first = pair.protocol()
    pair.one.start(first)
    pair.one.write(b"early")
    pair.one.close()
    settle()
    second = pair.protocol()
    pair.two.start(second)
    pair.until_lost(second)
    assert second.received == b"early"
    assert second.eof
    assert second.error is None


# Flow control


@_check
def _limits_in_all_forms(pair: _Pair) -> None:
    one = pair.one
    assert one.get_write_buffer_limits() == (32768, 65536)
    forms: list[tuple[dict[str, Any], tuple[int, int]]] = [
        ({"high": 100}, (50, 100)),
        ({"low": 100}, (100, 200)),
        ({"high": 10, "low": 5}, (5, 10)),
        ({"high": 7, "low": 7}, (7, 7)),
        ({"high": 0}, (0, 0)),
        ({"low": 0}, (0, 0)),
        ({"high": None, "low": None}, (32768, 65536)),
    ]
    for arguments, limits in forms:
        one.set_write_buffer_limits(**arguments)
        assert one.get_write_buffer_limits() == limits, arguments
    one.set_write_buffer_limits(20, 10)
    assert one.get_write_buffer_limits() == (10, 20), "the order of arguments is high, low"
    for high, low in ((5, 6), (-1, None), (5, -1), (None, -1)):
        try:
            one.set_write_buffer_limits(high, low)
        except ValueError:
            assert one.get_write_buffer_limits() == (10, 20)
        else:
            raise AssertionError(f"high {high} and low {low} raised no ValueError")
    one.set_write_buffer_limits()
    assert one.get_write_buffer_limits() == (32768, 65536)
    first, second = pair.start()
    one.set_write_buffer_limits(low=1)
    assert one.get_write_buffer_limits() == (1, 2)
    pair.talk(one, first, pair.two, second)
    assert first.count("pause_writing") == first.count("resume_writing")


@_check
def _paused_just_over_high(pair: _Pair) -> None:
    first, second = pair.start(two=_PAUSED)
    one = pair.one
    one.set_write_buffer_limits(_NEVER_FULL)
    written = pair.fill(one)
    high = one.get_write_buffer_size() + 100
    one.set_write_buffer_limits(high, high // 2)
    assert not first.paused
    while not first.paused:
        one.write(pattern(1, written))
        written += 1
        over = one.get_write_buffer_size() > high
        assert first.paused == over, f"{one.get_write_buffer_size()} of {high}: {first!r}"
    one.write(pattern(1000, written))  # legal all the same
    written += 1000
    assert first.count("pause_writing") == 1
    pair.two.resume_reading()
    pair.until_received(second, pattern(written))
    pair.until(lambda: not first.paused, "resume_writing")
    assert first.count("resume_writing") == 1


@_check
def _limits_take_effect_at_once(pair: _Pair) -> None:
    first, _ = pair.start(two=_PAUSED)
    one = pair.one
    one.set_write_buffer_limits(_NEVER_FULL)
    pair.fill(one)
    one.write(bytes(1000))
    size = one.get_write_buffer_size()
    one.set_write_buffer_limits(size)
    assert not first.paused, "paused at the mark, and not over it"
    one.set_write_buffer_limits(size - 1)
    assert first.paused, "not paused over the mark"
    one.set_write_buffer_limits(size + 10, size - 1)
    assert first.paused, "resumed over the low mark"
    one.set_write_buffer_limits(size + 10, size)
    assert not first.paused, "not resumed at the low mark"
    assert first.count("pause_writing") == first.count("resume_writing") == 1


@_check
def _resumed_at_or_below_low(pair: _Pair) -> None:
    sizes: list[int] = []
    first, second = pair.start(
        {"resume_writing": lambda protocol: sizes.append(pair.one.get_write_buffer_size())}, _PAUSED
    )
    one = pair.one
    one.set_write_buffer_limits(200_000, 100_000)
    written = pair.fill(one)
    while not first.paused:
        one.write(pattern(1000, written))
        written += 1000
    settle()
    assert first.paused
    assert not sizes
    pair.two.resume_reading()
    pair.until_received(second, pattern(written))
    pair.until(lambda: sizes, "resume_writing")
    assert len(sizes) == 1
    assert sizes[0] <= 100_000
    pair.until(lambda: not one.get_write_buffer_size(), "an empty buffer")


@_check
def _writing_in_resume_writing(pair: _Pair) -> None:
    """The usual producer: write until paused, go on when resumed."""
    size, piece = 1_000_000, 30_000
    start = [0]

    def produce(protocol: RecordingProtocol, *arguments: Any) -> None:
        while start[0] < size and not protocol.paused:
            at = start[0]
            start[0] += piece
            protocol.transport.write(pattern(piece, at))

    first, second = pair.start({"connection_made": produce, "resume_writing": produce})
    pair.until(lambda: len(second.received) >= start[0] >= size, "all the data")
    _same(second.received, pattern(start[0]))
    pair.until(lambda: not first.paused, "resume_writing")
    assert first.count("pause_writing") == first.count("resume_writing")


@_check
def _wait_writable(pair: _Pair) -> None:
    first, second = pair.start(two=_PAUSED)
    one = pair.one
    one.wait_writable(0)  # nothing to wait for
    one.set_write_buffer_limits(0)
    written = pair.fill(one)
    assert first.paused
    _times_out(one.wait_writable)
    pair.two.resume_reading()
    one.wait_writable(pair.timeout)
    assert not first.paused
    pair.until_received(second, pattern(written))


def _times_out(function: Callable[[float], Any]) -> None:
    try:
        function(0)
    except Timeout:
        return
    raise AssertionError("no Timeout was raised")


@_check
def _blocking_calls_are_refused_in_callbacks(pair: _Pair) -> None:
    seen: list[type] = []

    def call_both(protocol: RecordingProtocol, data: bytes) -> None:
        for function in (pair.two.wait_writable, pair.two.wait_closed):
            try:
                function()
            except SwitchpointError as error:
                seen.append(type(error))

    first, second = pair.start(two={"data_received": call_both})
    pair.one.write(b"x")
    pair.until_received(second, b"x")
    assert len(seen) == 2
    pair.talk(pair.one, first, pair.two, second)


@_check
def _wait_writable_ends_with_the_transport(pair: _Pair) -> None:
    for by_peer in (False, True):
        one, two = pair.make()
        first, second = pair.protocol(), pair.protocol(**_PAUSED)
        one.start(first)
        two.start(second)
        pair.until(lambda: first.made and second.made, "both connection_made")  # noqa: B023
        one.set_write_buffer_limits(0)
        pair.fill(one)
        results: list[BaseException] = []
        waiter = gevent.spawn(_catch, one.wait_writable, results)
        settle(3)
        assert not results
        (two if by_peer else one).abort()
        waiter.join(pair.timeout)
        waiter.kill()
        assert results, "the waiter was not woken"
        assert isinstance(results[0], TransportError), results
        _refused(one.wait_writable)


def _catch(function: Callable[[], Any], results: list[BaseException]) -> None:
    try:
        function()
    except Exception as error:
        results.append(error)


# The end of one direction


@_check
def _write_eof(pair: _Pair) -> None:
    first, second = pair.start(two={"keep_open": True})
    one, two = pair.one, pair.two
    one.write(b"question")
    if not one.can_write_eof():
        _refused(one.write_eof)
        assert not one.is_closing()
        pair.until_received(second, b"question")
        pair.talk(one, first, two, second)
        return
    one.write_eof()
    assert not one.can_write_eof()
    _refused(one.write_eof, errno.EPIPE)
    _refused(lambda: one.write(b"too late"), errno.EPIPE)
    _refused(lambda: one.writelines([b"too late"]), errno.EPIPE)
    assert not one.is_closing()
    pair.until(lambda: second.eof, "eof_received")
    assert second.received == b"question"
    assert not two.is_closing()
    two.pause_reading()
    two.resume_reading()
    settle()
    assert second.count("eof_received") == 1
    two.write(pattern(200_000))
    two.close()
    pair.until_lost(first, second)
    _same(first.received, pattern(200_000))
    assert first.eof
    assert first.error is None
    assert second.error is None
    assert second.received == b"question"


@_check
def _write_eof_behind_a_full_buffer(pair: _Pair) -> None:
    first, second = pair.start(two=_PAUSED)
    if not pair.one.can_write_eof():
        return
    written = pair.fill(pair.one)
    pair.one.write_eof()
    pair.one.close()
    pair.two.resume_reading()
    pair.until_lost(first, second)
    _same(second.received, pattern(written))
    assert first.error is None
    assert second.error is None


@_check
def _both_write_eof(pair: _Pair) -> None:
    """With both directions ended and both answers true, the transports wait for their close."""
    first, second = pair.start({"keep_open": True}, {"keep_open": True})
    if not (pair.one.can_write_eof() and pair.two.can_write_eof()):
        return
    pair.one.write_eof()
    pair.until(lambda: second.eof, "eof_received")
    pair.two.write_eof()
    pair.until(lambda: first.eof, "eof_received")
    pair.one.close()
    pair.two.close()
    pair.until_lost(first, second)
    assert first.error is None
    assert second.error is None


@_check
def _eof_answered_with_false_closes(pair: _Pair) -> None:
    """... but not before what is buffered has gone."""
    size = 1_000_000

    def answer(protocol: RecordingProtocol) -> bool:
        protocol.transport.write(pattern(size))
        return False

    first, second = pair.start(two={"eof_received": answer})
    if not pair.one.can_write_eof():
        return
    pair.one.write_eof()
    pair.until_lost(first, second)
    _same(first.received, pattern(size))
    assert first.eof
    assert first.error is None
    assert second.error is None


# The end


@_check
def _close_flushes(pair: _Pair) -> None:
    size = 3_000_000
    first, second = pair.start()
    pair.one.write(pattern(size))
    pair.one.close()
    assert pair.one.is_closing()
    assert not first.lost, "connection_lost came from inside close"
    _refused(lambda: pair.one.write(b"x"), errno.ENOTCONN)
    pair.until_lost(first, second)
    _same(second.received, pattern(size))
    assert second.eof
    assert first.error is None
    assert second.error is None
    assert not first.eof


@_check
def _close_at_once(pair: _Pair) -> None:
    first, second = pair.start()
    pair.one.close()
    assert not first.lost, "connection_lost came from inside close"
    pair.until_lost(first, second)
    assert first.error is None
    assert second.error is None
    assert second.names == ["connection_made", "eof_received", "connection_lost"]


@_check
def _close_on_both_sides_at_once(pair: _Pair) -> None:
    first, second = pair.start()
    pair.one.close()
    pair.two.close()
    pair.until_lost(first, second)
    assert first.error is None
    assert second.error is None


@_check
def _close_flushes_although_the_peer_writes(pair: _Pair) -> None:
    """Two sides that both write and only then read do not wait for each other for ever.  (What the
    peer writes after our end may cost it our last data: TCP answers it with a reset.)"""
    size = 3_000_000

    def answer(protocol: RecordingProtocol, data: bytes) -> None:
        if not protocol.transport.is_closing():
            protocol.transport.write(b"still here")

    first, second = pair.start(_PAUSED, {"data_received": answer})
    pair.one.write(pattern(size))
    pair.one.close()
    pair.until_lost(first)
    assert first.error is None
    assert not first.received, "data came after close"
    pair.until_lost(second)
    _same(second.received, pattern(len(second.received)))


@_check
def _no_data_after_close(pair: _Pair) -> None:
    def close(protocol: RecordingProtocol, data: bytes) -> None:
        protocol.transport.close()
        assert not protocol.lost

    _, second = pair.start(two={"data_received": close})
    pair.one.write(pattern(400_000))
    pair.until_lost(second)
    assert second.count("data_received") == 1
    assert second.error is None


@_check
def _close_and_abort_in_all_orders(pair: _Pair) -> None:
    for verbs in ("cc", "ca", "ac", "aa", "cac", "aca"):
        one, two = pair.make()
        first, second = pair.protocol(), pair.protocol()
        one.start(first)
        two.start(second)
        pair.until(lambda: first.made and second.made, "both connection_made")  # noqa: B023
        for verb in verbs:
            one.close() if verb == "c" else one.abort()
        assert not first.lost
        pair.until_lost(first, second)
        assert first.error is None
        for verb in verbs:
            one.close() if verb == "c" else one.abort()
        assert first.count("connection_lost") == 1


@_check
def _close_in_connection_made(pair: _Pair) -> None:
    def close(protocol: RecordingProtocol, transport: Any) -> None:
        transport.write(b"bye")
        transport.close()
        assert not protocol.lost

    first, second = pair.start({"connection_made": close})
    pair.until_lost(first, second)
    assert first.error is None
    assert second.received == b"bye"
    assert first.names == ["connection_made", "connection_lost"]


@_check
def _abort_in_connection_made(pair: _Pair) -> None:
    first = pair.protocol(connection_made=lambda protocol, transport: transport.abort())
    second = pair.protocol()
    pair.one.start(first)
    pair.two.start(second)
    pair.until_lost(first)
    assert first.error is None
    pair.two.wait_closed(pair.timeout)
    assert second.lost or not second.made


@_check
def _close_before_start(pair: _Pair) -> None:
    pair.one.close()
    assert pair.one.is_closing()
    pair.one.close()
    pair.one.abort()
    pair.one.wait_closed(pair.timeout)
    first = pair.protocol()
    _refused(lambda: pair.one.start(first))
    assert not first.events
    second = pair.protocol()
    pair.two.start(second)
    pair.two.wait_closed(pair.timeout)
    assert second.lost or not second.made


@_check
def _abort_before_start(pair: _Pair) -> None:
    pair.one.abort()
    pair.one.close()
    pair.one.wait_closed(pair.timeout)
    settle()
    second = pair.protocol()
    pair.two.start(second)
    pair.two.wait_closed(pair.timeout)
    assert second.lost or not second.made


@_check
def _abort(pair: _Pair) -> None:
    """... drops what was not sent, and the peer hears of it."""
    first, second = pair.start(two=_PAUSED)
    pair.fill(pair.one)
    pair.one.abort()
    assert pair.one.is_closing()
    assert not first.lost, "connection_lost came from inside abort"
    pair.until_lost(first)
    assert first.error is None
    pair.two.resume_reading()
    pair.until_lost(second)
    assert second.eof or second.error is not None
    assert second.error is None or isinstance(second.error, TransportError)


@_check
def _abort_with_an_error(pair: _Pair) -> None:
    error = TransportError("the reason", errno.EBADMSG)
    first, second = pair.start()
    pair.one.abort(error)
    pair.one.abort(TransportError("a later one"))
    pair.until_lost(first, second)
    assert first.error is error
    for again in (
        _refused(lambda: pair.one.write(b"x"), errno.EBADMSG),
        _refused(pair.one.wait_writable, errno.EBADMSG),
    ):
        assert again is not error
        assert again.__cause__ is error


@_check
def _write_tells_its_own_failure(pair: _Pair) -> None:
    """... by a true answer: a Connection takes any other one for "sent"."""
    first, second = pair.start(two=_PAUSED)
    pair.one.pause_reading()
    pair.two.abort()
    pair.until_lost(second)
    for _ in range(_WRITES):
        if pair.one.is_closing():
            break
        try:
            answer = pair.one.write(pattern(_BLOCK))
        except TransportError:
            break
        assert answer or not pair.one.is_closing(), "write has failed, and did not say so"
        settle(1)
    pair.one.abort()
    pair.until_lost(first)


@_check
def _abort_in_data_received(pair: _Pair) -> None:
    def abort(protocol: RecordingProtocol, data: bytes) -> None:
        protocol.transport.abort()
        assert not protocol.lost

    first, second = pair.start(two={"data_received": abort})
    pair.one.write(pattern(400_000))
    pair.until_lost(second, first)
    assert second.count("data_received") == 1
    assert second.error is None


@_check
def _close_has_a_deadline(pair: _Pair) -> None:
    first, _ = pair.start(two=_PAUSED)
    pair.fill(pair.one)
    pair.one.close(timeout=0.03)
    pair.until_lost(first)
    assert isinstance(first.error, TransportError)
    assert isinstance(first.error, TimeoutError)
    assert first.error.errno == errno.ETIMEDOUT


@_check
def _a_later_close_shortens_the_deadline(pair: _Pair) -> None:
    first, _ = pair.start(two=_PAUSED)
    pair.fill(pair.one)
    pair.one.close(timeout=None)
    pair.one.close(timeout=1000)
    pair.one.close(timeout=0)
    pair.one.close(timeout=1000)
    pair.until_lost(first)
    assert isinstance(first.error, TimeoutError)


@_check
def _close_refuses_a_wrong_timeout(pair: _Pair) -> None:
    first, second = pair.start()
    _type_error(lambda wrong: pair.one.close(timeout=wrong), "1")
    try:
        pair.one.close(timeout=-1)
    except ValueError:
        pass
    else:
        raise AssertionError("a negative timeout raised no ValueError")
    assert not pair.one.is_closing()
    pair.talk(pair.one, first, pair.two, second)


@_check
def _wait_closed(pair: _Pair) -> None:
    first, _ = pair.start()
    _times_out(pair.one.wait_closed)
    results: list[str] = []

    def wait() -> None:
        pair.one.wait_closed()
        results.append(first.stage)

    waiters = [gevent.spawn(wait) for _ in range(2)]
    settle(3)
    pair.one.close()
    gevent.joinall(waiters, pair.timeout, raise_error=True)
    gevent.killall(waiters)
    assert results == ["lost", "lost"]
    pair.one.wait_closed(0)


@_check
def _call_when_lost(pair: _Pair) -> None:
    calls: list[Any] = []
    first, _ = pair.start()
    pair.one.call_when_lost(lambda *arguments: calls.append("replaced"))
    pair.one.call_when_lost(lambda *arguments: calls.append((arguments, first.lost)))
    pair.one.close()
    pair.until_lost(first)
    assert calls == [((pair.one, None), False)]


# Verbs in the wrong state


@_check
def _start_works_once(pair: _Pair) -> None:
    first, second = pair.start()
    stranger = pair.protocol()
    _refused(lambda: pair.one.start(stranger))
    assert not stranger.events
    assert pair.one.get_protocol() is first
    pair.talk(pair.one, first, pair.two, second)


@_check
def _verbs_before_start(pair: _Pair) -> None:
    one = pair.one
    for verb in (
        lambda: one.write(b"x"),
        lambda: one.writelines([b"x"]),
        one.write_eof,
        one.wait_writable,
        lambda: one.set_protocol(pair.protocol()),
    ):
        _refused(verb, errno.ENOTCONN)
    one.pause_reading()
    one.resume_reading()
    assert one.get_write_buffer_size() == 0
    assert not one.is_closing()
    assert one.get_protocol() is None
    assert one.get_extra_info("no such thing", 5) == 5
    first, second = pair.start()
    pair.talk(one, first, pair.two, second)


@_check
def _verbs_after_the_end(pair: _Pair) -> None:
    first, second = pair.start()
    one = pair.one
    one.close()
    for _ in range(2):  # while it closes, and when it is closed
        _refused(lambda: one.write(b"x"), errno.ENOTCONN)
        _refused(lambda: one.write(b""), errno.ENOTCONN)
        _refused(lambda: one.writelines([b"x"]), errno.ENOTCONN)
        _refused(one.write_eof, errno.ENOTCONN)
        _refused(one.wait_writable, errno.ENOTCONN)
        _refused(lambda: one.start(first))
        one.pause_reading()
        one.resume_reading()
        one.set_write_buffer_limits(10)
        one.close()
        assert one.is_closing()
        assert not one.can_write_eof()
        assert one.get_extra_info("no such thing", 5) == 5
        pair.until_lost(first, second)
    assert one.get_write_buffer_size() == 0
    assert one.get_protocol() is None
    assert one.get_extra_info("sockname", "gone") == "gone"
    _refused(lambda: one.set_protocol(first))
    _type_error(one.write, "text")
    repr(one)


@_check
def _extra_info(pair: _Pair) -> None:
    first, _ = pair.start()
    for name in ("no such thing", "", "winsize"):
        assert pair.one.get_extra_info(name) is None
        default = object()
        assert pair.one.get_extra_info(name, default) is default
    assert not first.lost


@_check
def _set_protocol(pair: _Pair) -> None:
    first, second = pair.start()
    pair.one.write(b"a")
    pair.until_received(second, b"a")
    other = RecordingProtocol()
    other.stage = "open"
    pair.two.set_protocol(other)
    assert pair.two.get_protocol() is other
    pair.one.write(b"b")
    wait_until(lambda: other.received, other, timeout=pair.timeout, what="data")
    assert other.received == b"b"
    assert second.received == b"a"
    pair.one.close()
    wait_until(lambda: other.lost, other, timeout=pair.timeout, what="connection_lost")
    other.check()
    assert other.names == ["data_received", "eof_received", "connection_lost"]
    second.stage = "lost"  # it has handed over
    pair.until_lost(first)


# Exceptions in callbacks


@_check
def _exception_in_connection_made(pair: _Pair) -> None:
    """It ends the transport, and is raised from `start` or else reported."""
    boom = _BoomError("in connection_made")
    first, second = pair.protocol(connection_made=_raising(boom)), pair.protocol()
    results: list[BaseException] = []
    _catch(lambda: pair.one.start(first), results)
    assert results in ([], [boom])
    if not results:
        pair.expected.append(boom)
    pair.two.start(second)
    pair.until_lost(first)
    assert first.error is boom
    pair.two.wait_closed(pair.timeout)
    assert second.lost or not second.made


def _ends_alone(pair: _Pair, protocol: RecordingProtocol, boom: BaseException) -> None:
    """*protocol* is lost with *boom*, which is reported; a bystander does not notice."""
    pair.expected.append(boom)
    pair.until_lost(protocol)
    assert protocol.error is boom
    one, two = pair.make()
    first, second = pair.protocol(), pair.protocol()
    one.start(first)
    two.start(second)
    pair.until(lambda: first.made and second.made, "both connection_made")
    pair.talk(one, first, two, second)


@_check
def _exception_in_data_received(pair: _Pair) -> None:
    boom = _BoomError("in data_received")
    first, second = pair.start(two={"data_received": _raising(boom)})
    pair.one.write(pattern(200_000))
    _ends_alone(pair, second, boom)
    assert second.count("data_received") == 1
    again = _refused(lambda: pair.two.write(b"x"), errno.ENOTCONN)
    assert again.__cause__ is boom
    pair.until_lost(first)


@_check
def _exception_in_eof_received(pair: _Pair) -> None:
    boom = _BoomError("in eof_received")
    _, second = pair.start(two={"eof_received": _raising(boom)})
    pair.one.close()
    _ends_alone(pair, second, boom)


@_check
def _exception_in_pause_writing(pair: _Pair) -> None:
    boom = _BoomError("in pause_writing")
    first, _ = pair.start({"pause_writing": _raising(boom)}, _PAUSED)
    pair.one.set_write_buffer_limits(0)
    with suppress(TransportError):  # it may end before it is full
        pair.fill(pair.one)
    _ends_alone(pair, first, boom)


@_check
def _exception_in_resume_writing(pair: _Pair) -> None:
    boom = _BoomError("in resume_writing")
    first, _ = pair.start({"resume_writing": _raising(boom)}, _PAUSED)
    pair.one.set_write_buffer_limits(0)
    pair.fill(pair.one)
    pair.two.resume_reading()
    _ends_alone(pair, first, boom)


@_check
def _exception_in_connection_lost(pair: _Pair) -> None:
    boom = _BoomError("in connection_lost")
    pair.expected.append(boom)
    first, second = pair.start({"connection_lost": _raising(boom)})
    pair.one.close()
    pair.one.wait_closed(pair.timeout)
    pair.until_lost(first, second)
    assert first.error is None
    assert second.error is None


# -- Parsers --


def check_chunks(
    make_parser: Callable[[], Callable[[bytes], Iterable[Any] | None]],
    stream: bytes,
    expected: Sequence[Any],
    *,
    tail: bytes | None = None,
) -> None:
    """Check that a parser gives the same results however its input is cut.

    *make_parser()* returns a fresh ``feed(data)``, which returns the results that *data* has
    completed (None stands for none).  *stream* must yield *expected*: in one piece, byte by byte,
    and cut in two at each place.  Then with a tail in the same piece: *tail*, the beginning of
    something that must yield nothing yet, or, without it, the stream once more, which must
    yield *expected* once more.
    """

    def feed(*pieces: bytes) -> list[Any]:
        parser = make_parser()
        results: list[Any] = []
        for piece in pieces:
            results += parser(piece) or ()
        return results

    def compare(how: str, results: list[Any], wanted: list[Any]) -> None:
        assert results == wanted, f"fed {how}: {results!r} instead of {wanted!r}"

    once = list(expected)
    compare("whole", feed(stream), once)
    compare("byte by byte", feed(*(stream[at : at + 1] for at in range(len(stream)))), once)
    step = max(len(stream) // 1000, 1)
    for at in range(1, len(stream), step):
        compare(f"cut at {at}", feed(stream[:at], stream[at:]), once)
    if tail is None:
        compare("twice in one piece", feed(stream + stream), once + once)
        return
    compare("with a tail", feed(stream + tail), once)
    compare("with a tail byte by byte", feed(stream, *(bytes([byte]) for byte in tail)), once)
