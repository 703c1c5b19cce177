"""`check_framer`: the contract of framers, as a function for whoever writes one.

It joins two ends of a framer without a network, and then does to them what networks and
applications do: cuts the bytes everywhere, sends in parts, ends the stream in the middle, sends
rubbish.  Our own framers run it, and so can yours::

    def test_my_framer():
        check_framer(MyFramer, [b"a message", b"", b"another"])

or, for one test result each::

    @pytest.mark.parametrize("name", framer_checks())
    def test_my_framer(name):
        check_framer(MyFramer, [b"a message", b"", b"another"], names=[name])

`FramerRecorder` is the host that it uses, and stands alone as well: it records what the framers
do, and fails at what they must not do.  Like framers themselves, nothing in here does I/O.
"""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

from .framers import Framer, FramerHost, FramerStack
from .framers.length import LengthPrefixFramer

__all__ = ["FramerRecorder", "check_framer", "framer_checks"]

# A Message to send: its bytes, or its bytes and the framer's metadata for it.
Sample = bytes | tuple[bytes, Mapping[str, Any]]
Cut = Callable[[bytes], Iterable[bytes]]

# Rubbish comes in pieces of this size, and is so many times what a framer may hold.
_PIECE = 8192  # bytes
_TOO_MUCH = 2
# A framer that has made so many pieces of Messages out of rubbish does not hold it.
_ENOUGH = 5_000
# Calls are counted, which is slow, while so many bytes are fed.
_COUNTED = 2048
# The Python calls that a piece of data may cause before it counts as an endless loop.
_CALLS = 10_000
_CALLS_PER_BYTE = 200
# Positions to cut at are tried one by one up to so many, else so many of them.
_POSITIONS = 200


class _Context:
    """A MessageContext, as far as framers know it."""

    def __init__(self, values: Mapping[Any, Any] = {}) -> None:
        self.values = dict(values)

    def add(self, framer: Any, key: str, value: Any) -> _Context:
        self.values[framer, key] = value
        return self

    def get(self, framer: Any, key: str, default: Any = None) -> Any:
        return self.values.get((framer, key), default)


class FramerRecorder(FramerHost):
    """A host for a `FramerStack` that records.

    `out` is what was written (a list of bytes), `messages` the complete Messages as (bytes,
    context) pairs, `pieces` all pieces as (bytes, end_of_message) pairs, `error` why the framers
    failed.  `ready`, `closed`, `ended` and `passing` tell what was said, `refused` lists the errors
    of refused datagrams.  *properties* are what ``get_property`` finds.
    """

    def __init__(self, properties: Mapping[str, Any] | None = None, *, keep: bool = True) -> None:
        self.out: list[bytes] = []
        self.messages: list[tuple[bytes, Any]] = []
        self.pieces: list[tuple[bytes, bool]] = []
        self.error: Exception | None = None
        self.ready = self.closed = self.ended = self.passing = False
        self.refused: list[Exception] = []
        self.properties = dict(properties or {})
        self.keep = keep  # without it deliveries are counted and dropped
        self.deliveries = 0
        self._begun: list[bytes] | None = None
        self._context: Any = None

    def deliver(self, data: bytes, context: Any, end_of_message: bool) -> None:
        """Take a piece of a Message."""
        assert self.error is None, "data was delivered after the framers had failed"
        assert type(data) is bytes, f"delivered data must be bytes, not {type(data).__name__}"
        assert isinstance(end_of_message, bool)
        self.deliveries += 1
        if not self.keep:
            return
        self.pieces.append((data, end_of_message))
        if self._begun is None:
            self._begun = []
            self._context = context
        assert context is self._context, "the pieces of a Message came with different contexts"
        self._begun.append(data)
        if end_of_message:
            self.messages.append((b"".join(self._begun), context))
            self._begun = None

    def write(self, data: Any) -> None:
        """Take data for the transport."""
        assert isinstance(data, bytes | bytearray | memoryview), f"not bytes-like: {data!r}"
        assert self.error is None, "data was sent after the framers had failed"
        if self.keep:
            self.out.append(bytes(data))

    def take(self) -> bytes:
        """What was written since the last call."""
        data = b"".join(self.out)
        self.out.clear()
        return data

    def framers_ready(self) -> None:
        assert not self.ready, "framers_ready was said twice"
        self.ready = True

    def framers_failed(self, error: Exception) -> None:
        assert self.error is None, "framers_failed was said twice"
        assert isinstance(error, Exception)
        self.error = error
        if isinstance(error, AssertionError):
            raise error  # one of ours: the stack has taken it for the framer's

    def framers_closed(self) -> None:
        assert not self.closed, "framers_closed was said twice"
        self.closed = True

    def framers_ended(self) -> None:
        self.ended = True

    def framers_passthrough(self) -> None:
        self.passing = True

    def datagram_refused(self, error: Exception, context: Any) -> None:
        self.refused.append(error)
        self._begun = None

    def new_context(self, below: Any = None) -> Any:
        return _Context() if below is None else _Context(below.values)

    def get_property(self, name: str, default: Any = None) -> Any:
        return self.properties.get(name, default)


class _Kit:
    """What `check_framer` was given."""

    def __init__(
        self,
        make_framer: Callable[[], Framer],
        make_peer: Callable[[], Framer],
        samples: Sequence[Sample],
        answer: Sample | None,
        properties: Mapping[str, Any],
        limit: int,
    ) -> None:
        self.make_framer = make_framer
        self.make_peer = make_peer
        self.samples = [_sample(each) for each in samples]
        self.answer = None if answer is None else _sample(answer)
        self.properties = properties
        self.limit = limit

    def pair(self, cut: Cut | None = None, **options: Any) -> _Pair:
        """Two joined ends, ready."""
        pair = _Pair(self, **options)
        pair.start(cut or _whole)
        return pair


def _sample(sample: Sample) -> tuple[bytes, dict[str, Any]]:
    if isinstance(sample, bytes):
        return (sample, {})
    data, metadata = sample
    return (data, dict(metadata))


class _Pair:
    """Two ends of a framer."""

    def __init__(
        self,
        kit: _Kit,
        *,
        framer: Framer | None = None,
        peer: Framer | None = None,
        below: Callable[[], Framer] | None = None,
        datagrams: bool = False,
    ) -> None:
        self.kit = kit
        self.datagrams = datagrams
        self.framer = framer or kit.make_framer()
        self.peer = peer or kit.make_peer()
        self.here = FramerRecorder(kit.properties)
        self.there = FramerRecorder(kit.properties)
        self.sender, self.receiver = (
            FramerStack([below(), framer] if below else [framer], host, datagrams=datagrams)
            for framer, host in ((self.framer, self.here), (self.peer, self.there))
        )

    def start(self, cut: Cut) -> None:
        self.sender.start()
        self.receiver.start()
        self.pass_on(cut)
        for host, stack in ((self.here, self.sender), (self.there, self.receiver)):
            assert host.error is None, f"a framer failed to start: {host.error!r}"
            assert host.ready, "a framer is not ready though there is no more to read"
            assert stack.ready

    def pass_on(self, cut: Cut) -> None:
        """Give each end what the other has sent, until neither sends any more."""
        for _ in range(1000):
            if not (self.here.out or self.there.out):
                return
            for host, stack in ((self.here, self.receiver), (self.there, self.sender)):
                if self.datagrams:
                    sent, host.out = host.out, []
                    for datagram in sent:
                        stack.feed_datagram(datagram)
                else:
                    for piece in cut(host.take()):
                        stack.feed(piece)
        raise AssertionError("the two ends do not stop answering each other")

    def send(self, sample: tuple[bytes, dict[str, Any]], parts: Cut | None = None) -> None:
        data, metadata = sample
        context = _Context()
        for key, value in metadata.items():
            context.add(self.framer, key, value)
        pieces = [data] if parts is None else list(parts(data))
        for index, piece in enumerate(pieces):
            self.sender.send(piece, context, index == len(pieces) - 1)

    def answer(self) -> None:
        if self.kit.answer is not None:
            data, metadata = self.kit.answer
            context = _Context()
            for key, value in metadata.items():
                context.add(self.peer, key, value)
            self.receiver.send(data, context, True)
            self.pass_on(_whole)

    def expect(self, samples: Sequence[tuple[bytes, dict[str, Any]]], how: str) -> None:
        """The receiver has got these Messages and no other."""
        assert self.there.error is None, f"{how}: the receiver failed: {self.there.error!r}"
        assert self.here.error is None, f"{how}: the sender failed: {self.here.error!r}"
        got = [data for data, _ in self.there.messages]
        wanted = [data for data, _ in samples]
        assert got == wanted, f"{how}: received {_short(got)} instead of {_short(wanted)}"
        for (_, context), (_, metadata) in zip(self.there.messages, samples, strict=True):
            for key, value in metadata.items():
                found = None if context is None else context.get(self.peer, key)
                assert found == value, f"{how}: the metadatum {key!r} is {found!r}, not {value!r}"

    def converse(self, cut: Cut, how: str, parts: Cut | None = None) -> None:
        """Send each sample, and see each arrive before the next is sent."""
        samples = self.kit.samples
        for count, sample in enumerate(samples, 1):
            self.send(sample, parts)
            self.pass_on(cut)
            self.expect(samples[:count], f"{how}, after {count} Messages")
            self.answer()
        held = self.receiver.held
        assert held == 0, f"{how}: {held} bytes are held after the last Message"


def _short(messages: list[bytes]) -> str:
    return repr([data if len(data) <= 40 else f"<{len(data)} bytes>" for data in messages])


def _whole(data: bytes) -> list[bytes]:
    return [data] if data else []


def _bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def _at(*positions: int) -> Cut:
    def cut(data: bytes) -> list[bytes]:
        places = [0, *sorted(min(at, len(data)) for at in positions), len(data)]
        return [data[first:last] for first, last in pairwise(places) if first < last]

    return cut


def _places(size: int) -> Iterator[int]:
    """Positions in *size* bytes, all of them or many."""
    return iter(range(0, size, max(size // _POSITIONS, 1)))


# -- The checks --

_CHECKS: dict[str, Callable[[_Kit], None]] = {}


def _check(function: Callable[[_Kit], None]) -> Callable[[_Kit], None]:
    _CHECKS[function.__name__.strip("_")] = function
    return function


@_check
def _round_trip(kit: _Kit) -> None:
    """A Message arrives as soon as its bytes have, and nothing is left over."""
    kit.pair().converse(_whole, "whole")


@_check
def _byte_by_byte(kit: _Kit) -> None:
    kit.pair(_bytewise).converse(_bytewise, "byte by byte")


@_check
def _several_in_one_piece(kit: _Kit) -> None:
    if kit.answer is not None:
        return  # they take turns
    pair = kit.pair()
    for _ in range(3):
        for sample in kit.samples:
            pair.send(sample)
    pair.pass_on(_whole)
    pair.expect(kit.samples * 3, "several in one piece")


@_check
def _with_a_tail(kit: _Kit) -> None:
    """The beginning of the next Message in the same piece neither hinders nor is lost."""
    if kit.answer is not None:
        return
    first, second = kit.samples[0], kit.samples[-1]
    pair = kit.pair()
    pair.send(first)
    size = len(pair.here.take())
    pair.send(second)
    for tail in _places(len(pair.here.take())):
        pair = kit.pair()
        pair.send(first)
        pair.send(second)
        data = pair.here.take()
        if size + tail > len(data):
            return  # random things are in it
        pair.receiver.feed(data[: size + tail])
        assert pair.there.messages, f"with a tail of {tail} bytes: the first Message is not there"
        pair.receiver.feed(data[size + tail :])
        pair.expect([first, second], f"with a tail of {tail} bytes")


@_check
def _cut_in_two(kit: _Kit) -> None:
    for at in _places(max(map(len, _encoded(kit)), default=0)):
        kit.pair(_at(at)).converse(_at(at), f"cut at {at}")


@_check
def _any_pieces(kit: _Kit) -> None:
    """However the bytes are cut, and however the Messages are sent (with hypothesis)."""
    try:
        from hypothesis import HealthCheck, given, settings
        from hypothesis import strategies as st
    except ImportError as error:
        raise ImportError(
            "this check needs hypothesis; it comes with the extra greentaps[test]"
        ) from error
    longest = max(map(len, _encoded(kit)), default=1)
    positions = st.lists(st.integers(0, longest), max_size=12)

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(positions, positions, st.booleans())
    def run(cuts: list[int], parts: list[int], in_parts: bool) -> None:
        pair = kit.pair(_at(*cuts))
        pair.converse(
            _at(*cuts), f"cut at {cuts}, sent in {parts}", _parts(parts) if in_parts else None
        )

    run()


def _parts(positions: Sequence[int]) -> Cut:
    """Cut a Message to send; empty parts may be among them."""

    def cut(data: bytes) -> list[bytes]:
        places = [0, *sorted(min(at, len(data)) for at in positions), len(data)]
        return [data[first:last] for first, last in pairwise(places)]

    return cut


@_check
def _empty_message(kit: _Kit) -> None:
    pair = kit.pair()
    pair.send((b"", {}))
    pair.pass_on(_whole)
    pair.expect([(b"", {})], "an empty Message")


@_check
def _partial_sends(kit: _Kit) -> None:
    """A Message sent in parts arrives as one."""
    for how, parts in (
        ("an empty last part", lambda data: [data, b""]),
        ("an empty first part", lambda data: [b"", data]),
        ("two halves", lambda data: [data[: len(data) // 2], data[len(data) // 2 :]]),
        ("single bytes", lambda data: _bytewise(data) or [b""]),
    ):
        kit.pair().converse(_whole, f"sent in {how}", parts)


@_check
def _given_up(kit: _Kit) -> None:
    """What follows a Message without an end is refused, or arrives as it was sent."""
    for data, metadata in kit.samples:
        pair = kit.pair()
        context = _Context({(pair.framer, key): metadata[key] for key in metadata})
        arrived = 0
        with suppress(ValueError):  # if it takes no parts
            pair.sender.send(data, context, False)
        pair.sender.forget_sent()
        try:
            for sample in kit.samples:
                pair.send(sample)
                pair.pass_on(_whole)
                arrived += 1
                pair.answer()
        except ValueError:
            pass
        pair.expect(kit.samples[:arrived], "after a Message that was given up")


@_check
def _bytes_like(kit: _Kit) -> None:
    """Bytearrays and memoryviews can be sent, and changed when they have been."""
    for sample in kit.samples:
        data, metadata = sample
        for whole in (True, False):
            for kind in (bytearray, lambda data: memoryview(bytearray(data))):
                pair = kit.pair()
                changing = kind(data)
                context = _Context({(pair.framer, key): metadata[key] for key in metadata})
                pair.sender.send(changing, context, whole)
                for at in range(len(changing)):
                    changing[at] = 0
                if not whole:
                    pair.sender.send(kind(b""), context, True)
                pair.pass_on(_whole)
                pair.expect([sample], "bytes-like data")


@_check
def _truncated(kit: _Kit) -> None:
    """A stream that ends within a Message is told from one that ends between two."""
    for index, encoded in enumerate(_encoded(kit)):
        for at in _places(len(encoded)):
            if at == 0:
                continue
            pair = kit.pair()
            pair.send(kit.samples[index])
            data = pair.here.take()
            if at >= len(data):
                continue
            pair.receiver.feed(data[:at])
            assert pair.there.error is None, f"failed {at} bytes into a Message"
            assert not pair.there.messages, f"a Message was complete after {at} of its bytes"
            whole = pair.receiver.eof()
            assert not whole, f"the end of the stream after {at} bytes went unnoticed"
            assert pair.there.error is not None
            assert not isinstance(pair.there.error, AssertionError), pair.there.error
    pair = kit.pair()
    pair.converse(_whole, "before the end")
    pair.sender.stop()
    pair.pass_on(_whole)
    assert pair.receiver.eof(), f"an orderly end was taken for a cut: {pair.there.error!r}"
    assert pair.there.error is None


@_check
def _stop(kit: _Kit) -> None:
    """A framer that is stopped gets done, whichever end begins, or both."""
    for ends in (("sender",), ("receiver",), ("sender", "receiver")):
        pair = kit.pair()
        for end in ends:
            getattr(pair, end).stop()
        pair.pass_on(_bytewise)
        for host, end in ((pair.here, "sender"), (pair.there, "receiver")):
            assert host.error is None, f"a stopped framer failed: {host.error!r}"
            assert host.closed == (end in ends), "a stopped framer is not done"


@_check
def _shared(kit: _Kit) -> None:
    """One framer serves several Connections at a time, and keeps them apart."""
    framer, peer = kit.make_framer(), kit.make_peer()
    pairs = [kit.pair(framer=framer, peer=peer) for _ in range(2)]
    for count, sample in enumerate(kit.samples, 1):
        for pair in pairs:
            pair.send(sample)
        data = [pair.here.take() for pair in pairs]
        for half in (0, 1):
            for pair, encoded in zip(pairs, data, strict=True):
                middle = len(encoded) // 2
                pair.receiver.feed(encoded[middle:] if half else encoded[:middle])
        for pair in pairs:
            pair.pass_on(_whole)
            pair.expect(kit.samples[:count], "two Connections in turns")
            pair.answer()


@_check
def _over_a_framer(kit: _Kit) -> None:
    """The framer works over another one."""
    kit.pair(below=LengthPrefixFramer).converse(_whole, "over a framer")
    kit.pair(below=LengthPrefixFramer).converse(_bytewise, "over a framer, byte by byte")


@_check
def _datagrams(kit: _Kit) -> None:
    """Over datagrams a Message is one datagram, several may be in one, and a broken one does no
    harm to the next."""
    pair = kit.pair(datagrams=True)
    wire: list[bytes] = []
    for sample in kit.samples:
        pair.send(sample)
        assert len(pair.here.out) == 1, f"a Message became {len(pair.here.out)} datagrams"
        wire += pair.here.out
        pair.here.out.clear()
    for datagram in wire:
        pair.receiver.feed_datagram(datagram)
    pair.expect(kit.samples, "in datagrams")
    pair.receiver.feed_datagram(b"".join(wire))
    pair.expect(kit.samples * 2, "several in one datagram")
    count = len(pair.there.messages)
    for datagram in wire:
        if datagram:
            pair.receiver.feed_datagram(datagram[:-1])
    assert pair.there.refused, "cut datagrams were not refused"
    del pair.there.messages[count:]
    for datagram in wire:
        pair.receiver.feed_datagram(datagram)
    pair.expect(kit.samples * 3, "after cut datagrams")


@_check
def _rubbish(kit: _Kit) -> None:
    """Rubbish neither hangs nor fills memory, at any point."""
    chance = random.Random(0)
    fillers = [bytes(_PIECE), b"\xff" * _PIECE, b"a" * _PIECE, b"1" * _PIECE]
    fillers += [chance.randbytes(_PIECE), b"\r\n" * (_PIECE // 2), b"a: b\r\n" * (_PIECE // 6)]
    longest = max(_encoded(kit), key=len, default=b"")
    # None: before the framer is ready
    for beginning in (None, b"", longest[:1], longest[: len(longest) // 2], longest[:-1]):
        for filler in fillers:
            host = FramerRecorder(kit.properties, keep=False)
            if beginning is None:
                stack = FramerStack([kit.make_peer()], host)
                stack.start()
            else:
                stack = kit.pair().receiver
                stack.host = host
            with _bounded_memory(kit.limit):
                with _bounded_calls(_COUNTED):
                    if beginning:
                        stack.feed(beginning)
                    stack.feed(filler[:_COUNTED])
                for _ in range(_TOO_MUCH * kit.limit // len(filler)):
                    if host.error is not None or host.deliveries > _ENOUGH:
                        break
                    stack.feed(filler)
                    assert stack.held <= kit.limit, f"{stack.held} bytes of rubbish are held"


@contextmanager
def _bounded_calls(piece: int) -> Iterator[None]:
    """Fail if far more calls are made than *piece* bytes can be good for."""
    left = _CALLS + _CALLS_PER_BYTE * piece

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal left
        if event == "call":
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise AssertionError("this seems to go on for ever")

    outer = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(outer)
    assert left >= 0, "this seems to go on for ever"


@contextmanager
def _bounded_memory(memory: int) -> Iterator[None]:
    """Fail if more than *memory* bytes are newly in use."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    try:
        yield
    finally:
        _, peak = tracemalloc.get_traced_memory()
        if not was_tracing:
            tracemalloc.stop()
    assert peak - before <= memory, f"{peak - before} bytes are in use for a peer's rubbish"


def _encoded(kit: _Kit) -> list[bytes]:
    """What each sample looks like on the wire.  (Not twice the same, perhaps.)"""
    pair = kit.pair()
    found = []
    for sample in kit.samples:
        pair.send(sample)
        found.append(b"".join(pair.here.out))
        pair.pass_on(_whole)
        pair.answer()
    return found


# -- What is called --


def framer_checks() -> tuple[str, ...]:
    """The names of the checks, for *names* and *skip* of `check_framer`."""
    return tuple(_CHECKS)


def check_framer(
    make_framer: Callable[[], Framer],
    messages: Sequence[Sample] = (b"first", b"", b"the third Message", b"x" * 3000),
    *,
    make_peer: Callable[[], Framer] | None = None,
    answer: Sample | None = None,
    properties: Mapping[str, Any] | None = None,
    limit: int = 256 * 1024,
    names: Iterable[str] | None = None,
    skip: Iterable[str] = (),
) -> None:
    """Check that a framer keeps the contract of `Framer`.

    *make_framer()* returns a framer, *make_peer()* one for the other end, if that is of another
    kind.  *messages* are Messages that it can carry: bytes, or (bytes, metadata) pairs, where the
    metadata (dict) are sent along and must arrive.  For protocols that take turns *answer* is what
    the other end sends back after each.  *properties* are the Connection's, for framers that ask.
    *limit* (bytes) is how much memory the framer may use for what a peer sends.

    *names* are the checks to run, all by default; *skip* those to leave out, since a framer for
    streams need not be able to do ``datagrams``, say.  `framer_checks` tells the names.

    Raises AssertionError where the contract is broken, ValueError for unknown names, ImportError if
    hypothesis is not installed and ``any_pieces`` is to be run.
    """
    wanted = list(_CHECKS if names is None else names)
    left_out = set(skip)
    for name in (*wanted, *left_out):
        if name not in _CHECKS:
            raise ValueError(f"no check is called {name!r}; there are {', '.join(_CHECKS)}")
    kit = _Kit(
        make_framer, make_peer or make_framer, messages, answer, dict(properties or {}), limit
    )
    for name in wanted:
        if name not in left_out:
            _CHECKS[name](kit)
