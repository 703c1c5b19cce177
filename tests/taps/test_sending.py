"""The slow path of sending: exactly one outcome for each item, batches, lifetimes, and rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from greentaps.hub import get_runner, now
from greentaps.taps import rates
from greentaps.taps import sending as sending_module
from greentaps.taps.outbox import Outgoing
from greentaps.taps.sending import Sending, Throttle
from greentaps.testing import reported_errors
from taps.helpers import until


class Host:
    """A Connection whose kernel the test plays."""

    def __init__(self) -> None:
        self.sending = Sending(self, get_runner())
        self.takes = True  # whether the kernel takes what is written at once
        self.held = False
        self.collected: list[bytes] | None = None
        self.writes: list[bytes] = []
        self.outcomes: list[tuple[str, bytes]] = []
        self.dry = 0
        self.dropped = 0
        self.failing: set[bytes] = set()

    def may_transmit(self) -> bool:
        return not self.held

    def transmit(self, item: Outgoing) -> None:
        if item.data in self.failing:
            raise ValueError(item.data)
        if self.collected is not None:
            self.collected.append(item.data)
            return
        self.writes.append(item.data)
        self.held = not self.takes

    def holds_data(self) -> bool:
        return self.held or bool(self.collected)

    def begin_collecting(self) -> None:
        self.collected = []

    def end_collecting(self) -> None:
        collected, self.collected = self.collected, None
        if collected:
            self.writes.append(b"+".join(collected))
            self.held = not self.takes

    def drop_parts(self) -> None:
        self.dropped += 1

    def was_sent(self, item: Outgoing) -> None:
        self.outcomes.append(("sent", item.data))

    def has_expired(self, item: Outgoing) -> None:
        self.outcomes.append(("expired", item.data))

    def has_failed(self, item: Outgoing, error: BaseException) -> None:
        self.outcomes.append(("failed", item.data))

    def ran_dry(self) -> None:
        self.dry += 1

    # What the test does:

    def send(self, data: bytes, **options: Any) -> Outgoing:
        item = Outgoing(data, options.pop("context", None), options.pop("end", True), **options)
        self.sending.submit(item)
        return item

    def take(self) -> None:
        self.held = False
        self.sending.taken()


@pytest.fixture
def host() -> Host:
    return Host()


def sent(*data: bytes) -> list[tuple[str, bytes]]:
    return [("sent", one) for one in data]


@pytest.mark.rfc("SN-02", "SN-04")
def test_what_the_kernel_takes_is_sent_at_once(host: Host) -> None:
    host.send(b"a")
    host.send(b"b")
    assert host.writes == [b"a", b"b"]
    assert host.outcomes == sent(b"a", b"b")
    assert host.sending.idle
    assert host.dry == 2


@pytest.mark.rfc("SN-02", "P-42")
def test_what_waits_leaves_by_priority_and_is_sent_when_it_is_taken(host: Host) -> None:
    host.takes = False
    for data, priority in ((b"first", 100), (b"low", 200), (b"high", 0), (b"same", 0)):
        host.send(data, priority=priority)
    assert host.writes == [b"first"]
    assert host.outcomes == []
    assert len(host.sending) == 4
    for _ in range(4):
        host.take()
    assert host.writes == [b"first", b"high", b"same", b"low"]
    assert host.outcomes == sent(*host.writes)
    assert host.sending.idle


def test_a_failure_is_one_items_own(host: Host) -> None:
    host.takes = False
    host.send(b"first")
    host.failing = {b"bad"}
    host.send(b"bad")
    host.send(b"good")
    host.take()
    assert host.outcomes == [("sent", b"first"), ("failed", b"bad")]
    assert host.writes == [b"first", b"good"]
    host.take()
    assert host.outcomes[2:] == sent(b"good")


@pytest.mark.rfc("SN-06", "SN-02")
def test_the_end_fails_all_in_the_order_in_which_they_would_have_left(host: Host) -> None:
    host.takes = False
    context = object()
    host.send(b"flying")
    host.send(b"later", priority=200)
    host.send(b"sooner", expires_at=now() + 1000)
    host.send(b"part", context=context, end=False, priority=0)
    errors: list[BaseException] = []

    def error() -> BaseException:
        errors.append(KeyError(len(errors)))
        return errors[-1]

    host.sending.fail_all(error)
    assert host.outcomes == [("failed", name) for name in (b"flying", b"part", b"sooner", b"later")]
    assert len(errors) == 4
    assert host.sending.idle
    host.sending.fail_all(error)
    assert len(errors) == 4


@pytest.mark.rfc("P-41", "SN-05", "MS-22", "MS-27")
def test_what_waits_too_long_expires_by_itself(host: Host) -> None:
    host.takes = False
    host.send(b"flying", expires_at=now() + 0.02)
    host.send(b"patient")
    host.send(b"short", expires_at=now() + 0.02)
    host.send(b"shorter", expires_at=now() + 0.01)
    until(lambda: len(host.outcomes) == 2)
    assert host.outcomes == [("expired", b"shorter"), ("expired", b"short")]
    host.take()
    host.take()
    assert host.outcomes[2:] == sent(b"flying", b"patient")


@pytest.mark.rfc("MC-11")
def test_all_parts_of_an_expired_message_expire(host: Host) -> None:
    host.takes = False
    context = object()
    host.send(b"flying")
    host.send(b"1", context=context, end=False, expires_at=now() + 0.01)
    host.send(b"2", context=context, end=False)
    until(lambda: host.outcomes)
    host.send(b"3", context=context)
    assert host.outcomes == [("expired", b"1"), ("expired", b"2"), ("expired", b"3")]
    host.send(b"4", context=context)
    host.take()
    assert host.writes == [b"flying", b"4"]
    host.take()


def test_something_expired_before_it_was_submitted(host: Host) -> None:
    host.send(b"late", expires_at=now() - 1)
    assert host.outcomes == [("expired", b"late")]
    assert host.sending.idle


@pytest.mark.rfc("SN-11")
def test_a_batch_is_one_write(host: Host) -> None:
    host.sending.begin_batch()
    host.sending.begin_batch()
    for data in (b"a", b"b", b"c"):
        host.send(data)
    host.sending.end_batch()
    assert host.writes == []
    assert not host.sending.idle
    host.sending.end_batch()
    assert host.writes == [b"a+b+c"]
    assert host.outcomes == sent(b"a", b"b", b"c")
    assert host.sending.idle
    host.sending.end_batch()  # one too many


def test_a_batch_that_the_kernel_does_not_take_at_once(host: Host) -> None:
    host.takes = False
    host.sending.begin_batch()
    host.send(b"a")
    host.send(b"b", priority=0)
    host.sending.end_batch()
    assert host.writes == [b"b+a"]
    assert host.outcomes == []
    host.take()
    assert host.outcomes == sent(b"b", b"a")


def test_an_empty_batch(host: Host) -> None:
    host.sending.begin_batch()
    host.sending.end_batch()
    assert host.writes == []
    assert host.sending.idle


def test_a_large_batch_does_not_wait_for_its_end(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending_module, "BATCH_LIMIT", 10)
    host.sending.begin_batch()
    host.send(b"12345")
    assert host.writes == []
    host.send(b"67890")
    assert host.writes == [b"12345", b"67890"]
    host.send(b"x")
    host.sending.end_batch()
    assert host.outcomes == sent(b"12345", b"67890", b"x")


def test_lifetimes_end_in_a_batch_too(host: Host) -> None:
    host.sending.begin_batch()
    host.send(b"short", expires_at=now() + 0.01)
    host.send(b"long")
    until(lambda: host.outcomes)
    host.sending.end_batch()
    assert host.outcomes == [("expired", b"short"), ("sent", b"long")]
    assert host.writes == [b"long"]


def test_taking_back(host: Host) -> None:
    host.takes = False
    flying, waiting = host.send(b"flying"), host.send(b"waiting")
    assert not host.sending.withdraw(flying)
    assert host.sending.withdraw(waiting)
    assert not host.sending.withdraw(waiting)
    host.take()
    assert host.outcomes == sent(b"flying")


def test_a_message_half_sent_is_not_idle(host: Host) -> None:
    context = object()
    host.send(b"1", context=context, end=False)
    assert not host.sending.idle
    assert host.dry == 0
    host.send(b"2", context=context)
    assert host.sending.idle
    assert host.dry == 1


def test_an_outcome_that_sends_the_next(host: Host) -> None:
    """A handler may send again: neither recursion nor disorder."""
    left = list(range(1000))
    original = host.was_sent

    def was_sent(item: Outgoing) -> None:
        original(item)
        if left:
            host.send(b"%d" % left.pop(0))

    host.was_sent = was_sent  # type: ignore[method-assign]
    host.send(b"go")
    assert host.outcomes == sent(b"go", *(b"%d" % number for number in range(1000)))


@pytest.mark.rfc("SN-09", "SN-06", "SN-02")
def test_a_part_that_fails_takes_the_later_ones_with_it(host: Host) -> None:
    host.takes = False
    context = object()
    host.send(b"first")
    host.failing = {b"a2"}
    for data, end in ((b"a1", False), (b"a2", False), (b"a3", False)):
        host.send(data, context=context, end=end)
    host.send(b"b")
    host.take()  # a1
    host.take()  # a2, which fails, and b
    assert host.writes == [b"first", b"a1", b"b"]
    host.send(b"a4", context=context)
    host.take()
    assert host.sending.idle
    assert host.outcomes == [
        *sent(b"first", b"a1"),
        *(("failed", data) for data in (b"a2", b"a3", b"a4")),
        *sent(b"b"),
    ]
    assert host.dropped == 1
    host.send(b"another", context=context)
    host.take()
    assert host.outcomes[-1:] == sent(b"another")


@pytest.mark.rfc("SN-09", "SN-06", "SN-02")
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("end", [False, True])
def test_a_part_that_was_not_submitted_takes_the_others_with_it(
    host: Host, begun: bool, end: bool
) -> None:
    host.takes = False
    context = object()
    host.send(b"first")
    host.send(b"a1", context=context, end=False)
    if begun:
        host.take()
    host.send(b"a2", context=context, end=False)
    host.send(b"b")
    host.takes = True
    host.sending.refuse(context, end)
    if not end:
        host.send(b"a4", context=context)
    host.take()
    assert host.writes == [b"first", *([b"a1"] if begun else []), b"b"]
    assert host.dropped == begun
    assert ("failed", b"a2") in host.outcomes
    assert (("failed", b"a4") in host.outcomes) is not end
    assert host.sending.idle
    host.send(b"another", context=context)
    assert host.outcomes[-1:] == sent(b"another")


@pytest.mark.rfc("SN-11", "TM-01")
def test_at_the_end_nothing_is_held_back_and_no_end_is_waited_for(host: Host) -> None:
    host.sending.begin_batch()
    host.sending.begin_batch()
    host.send(b"one")
    host.send(b"two")
    host.send(b"begun", context=object(), end=False)
    host.send(b"behind")
    host.sending.finish()
    assert host.writes == [b"one+two+begun"]
    assert host.sending.idle
    assert host.outcomes == [("failed", b"behind"), *sent(b"one", b"two", b"begun")]
    host.sending.end_batch()
    assert host.writes == [b"one+two+begun"]


@pytest.mark.rfc("TM-01")
def test_at_the_end_what_waits_goes_first(host: Host) -> None:
    host.takes = False
    host.send(b"first")
    host.send(b"begun", context=object(), end=False)
    host.send(b"behind")
    host.sending.finish()
    assert not host.sending.idle
    host.take()
    assert host.writes == [b"first", b"begun"]
    host.take()
    assert host.sending.idle
    assert host.outcomes == [*sent(b"first", b"begun"), ("failed", b"behind")]


def test_a_batch_runs_dry_when_it_is_written(host: Host) -> None:
    """Who then closes must find nothing that is still being collected."""
    seen = []
    dry = host.ran_dry
    host.ran_dry = lambda: (seen.append(host.collected), dry())  # type: ignore[method-assign]
    host.sending.begin_batch()
    host.sending.end_batch()
    assert seen == [None]


# -- Rates --

WINDOW = 0.1  # seconds, in the place of one


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_WINDOW", WINDOW)


class Pipe:
    """Where a Throttle writes to: what has passed, and when."""

    def __init__(self, rate: float, *, whole: bool, failing: bytes = b"?") -> None:
        self.passed: list[tuple[float, bytes]] = []
        self.changes: list[bool] = []
        self.failing = failing
        self.throttle = Throttle(rate, self.write, self.changes.append, get_runner(), whole=whole)

    def write(self, data: bytes | memoryview) -> None:
        if data == self.failing:
            raise OSError("too long")
        self.passed.append((now(), bytes(data)))

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.passed)


@pytest.mark.rfc("P-28", "SO-20")
@pytest.mark.usefixtures("quick")
def test_a_stream_is_cut_to_the_rate() -> None:
    pipe = Pipe(8000, whole=False)
    pipe.throttle.write(b"x" * 1500)
    assert [len(data) for _, data in pipe.passed] == [1000]
    assert pipe.throttle.holds_data
    assert pipe.changes == [True]
    pipe.throttle.write(b"y" * 10)
    until(lambda: not pipe.throttle.holds_data)
    assert pipe.data == b"x" * 1500 + b"y" * 10
    assert pipe.changes == [True, False]
    assert pipe.passed[1][0] - pipe.passed[0][0] >= WINDOW


@pytest.mark.usefixtures("quick")
def test_a_datagram_is_never_cut() -> None:
    pipe = Pipe(8 * 20_000, whole=True)
    for data in (b"a" * 15_000, b"b" * 15_000):
        pipe.throttle.write(data)
    assert pipe.data == b"a" * 15_000
    until(lambda: not pipe.throttle.holds_data)
    assert [len(data) for _, data in pipe.passed] == [15_000] * 2
    assert pipe.passed[1][0] - pipe.passed[0][0] >= WINDOW


def test_a_datagram_larger_than_the_rate_goes_alone() -> None:
    pipe = Pipe(8000, whole=True)
    pipe.throttle.write(b"a" * 1500)
    assert pipe.data == b"a" * 1500
    assert pipe.changes == []
    pipe.throttle.write(b"b")
    assert pipe.throttle.holds_data
    pipe.throttle.close()


@pytest.mark.usefixtures("quick")
def test_waiting_for_a_datagrams_turn_costs_no_turns_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It knows when there is room for all of it, and sleeps until then."""
    pipe = Pipe(8000, whole=True)
    pipe.throttle.write(b"a" * 400)
    looks: list[Any] = []
    look: Callable[[], None] = pipe.throttle._go_on
    monkeypatch.setattr(Throttle, "_go_on", lambda self: (looks.append(1), look()))
    pipe.throttle.write(b"b" * 700)
    until(lambda: not pipe.throttle.holds_data)
    assert len(looks) < 5
    assert pipe.data == b"a" * 400 + b"b" * 700


@pytest.mark.usefixtures("quick")
def test_one_that_fails_does_not_hold_those_behind_it() -> None:
    pipe = Pipe(8000, whole=True, failing=b"bad")
    pipe.throttle.write(b"a" * 1000)
    pipe.throttle.write(b"bad")
    pipe.throttle.write(b"c")
    with reported_errors() as reports:
        until(lambda: not pipe.throttle.holds_data)
    assert pipe.data == b"a" * 1000 + b"c"
    assert [type(error) for error in reports] == [OSError]
    assert pipe.changes == [True, False]


def test_one_that_fails_at_once_says_so() -> None:
    pipe = Pipe(8000, whole=True, failing=b"bad")
    with pytest.raises(OSError, match="too long"):
        pipe.throttle.write(b"bad")
    pipe.throttle.write(b"good")
    assert pipe.data == b"good"


@pytest.mark.parametrize("rate", [8_000_000, float("inf")])
def test_a_new_rate_counts_at_once(rate: float) -> None:
    pipe = Pipe(8, whole=False)
    pipe.throttle.write(b"x" * 1000)
    assert pipe.throttle.holds_data
    pipe.throttle.set_rate(rate)
    assert pipe.data == b"x" * 1000
    assert pipe.changes == [True, False]


def test_after_its_end_nothing_passes() -> None:
    pipe = Pipe(8 * 10_000, whole=False)
    pipe.throttle.write(b"x" * 10_001)
    pipe.throttle.close()
    pipe.throttle.close()
    assert not pipe.throttle.holds_data
    gevent.sleep(0)
    assert len(pipe.data) == 10_000
