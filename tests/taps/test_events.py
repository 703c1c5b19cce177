"""Handlers: in the order of the events, one at a time, and none is forgotten."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event
from greentaps.hub import get_runner, in_callback
from greentaps.taps.events import Events, Handlers
from greentaps.testing import reported_errors


class Sender(Handlers):
    """An object that sends events."""

    __slots__ = ()

    def __init__(self) -> None:
        self._events = None


def finished(sender: Sender) -> None:
    """Wait until all that is due has been called."""
    while sender._events is not None and not sender._events.idle:
        gevent.sleep(0)


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.mark.rfc("T-05", "T-22")
def test_without_a_handler_nothing_happens(sender: Sender) -> None:
    sender._emit("anything", 1)
    assert sender._events is None
    sender._on("anything", None)
    assert sender._events is None


def test_the_object_and_the_arguments_are_handed_over(sender: Sender) -> None:
    seen: list[Any] = []
    sender._on("event", lambda *args: seen.append(args))
    sender._emit("event", 1, "two")
    sender._emit("other")
    assert seen == []  # not from inside _emit
    finished(sender)
    assert seen == [(sender, 1, "two")]


@pytest.mark.parametrize("wrong", [5, "name", object()])
def test_a_handler_must_be_callable(sender: Sender, wrong: Any) -> None:
    with pytest.raises(TypeError):
        sender._on("event", wrong)


@pytest.mark.rfc("OR-01")
def test_handlers_run_in_the_order_of_the_events(sender: Sender) -> None:
    """Also if one of them waits: the later ones stand behind it."""
    seen: list[Any] = []
    gate = Event()

    def slow(sender: Sender, number: int) -> None:
        seen.append(("begin", number))
        gate.wait()
        seen.append(("end", number))

    sender._on("slow", slow)
    sender._on("quick", lambda sender, number: seen.append(("quick", number)))
    for number in range(3):
        sender._emit("slow", number)
        sender._emit("quick", number)
    gevent.sleep(0)
    assert seen == [("begin", 0)]
    gate.set()
    finished(sender)
    assert seen == [
        step for number in range(3)
        for step in (("begin", number), ("end", number), ("quick", number))
    ]  # fmt: skip


def test_two_objects_do_not_wait_for_each_other() -> None:
    one, two = Sender(), Sender()
    gate, seen = Event(), []
    one._on("event", lambda sender: gate.wait())
    two._on("event", lambda sender: seen.append("two"))
    one._emit("event")
    two._emit("event")
    finished(two)
    assert seen == ["two"]
    gate.set()
    finished(one)


def test_what_a_handler_raises_is_reported_and_the_next_one_runs(sender: Sender) -> None:
    seen: list[int] = []

    def handler(sender: Sender, number: int) -> None:
        seen.append(number)
        if number == 1:
            raise KeyError(number)

    sender._on("event", handler)
    with reported_errors() as reports:
        for number in range(3):
            sender._emit("event", number)
        finished(sender)
    assert seen == [0, 1, 2]
    assert [type(error) for error in reports] == [KeyError]


def test_a_handler_that_is_killed_takes_no_other_with_it(sender: Sender) -> None:
    seen: list[int] = []

    def handler(sender: Sender, number: int) -> None:
        seen.append(number)
        if number == 0:
            raise gevent.GreenletExit

    sender._on("event", handler)
    for number in range(3):
        sender._emit("event", number)
    finished(sender)
    assert seen == [0, 1, 2]


def test_a_handler_may_send_events_and_change_handlers(sender: Sender) -> None:
    seen: list[Any] = []

    def handler(sender: Sender, number: int) -> None:
        seen.append(number)
        if number < 3:
            sender._emit("event", number + 1)
        else:
            sender._on("event", None)
            sender._emit("event", 99)

    sender._on("event", handler)
    sender._emit("event", 0)
    finished(sender)
    assert seen == [0, 1, 2, 3]


def test_the_handler_counts_that_was_set_when_the_event_came(sender: Sender) -> None:
    seen: list[str] = []
    sender._on("event", lambda sender: seen.append("old"))
    sender._emit("event")
    sender._on("event", lambda sender: seen.append("new"))
    sender._emit("event")
    finished(sender)
    assert seen == ["old", "new"]


def test_a_handler_may_block_although_the_event_came_in_a_callback(sender: Sender) -> None:
    seen: list[bool] = []

    def handler(sender: Sender) -> None:
        gevent.sleep(0)
        seen.append(in_callback())

    sender._on("event", handler)
    get_runner().call_soon(sender._emit, "event")
    gevent.sleep(0)
    finished(sender)
    while not seen:
        gevent.sleep(0)
    assert seen == [False]


def test_a_handler_of_one_call_stands_in_line(sender: Sender) -> None:
    seen: list[str] = []
    sender._on("event", lambda sender: seen.append("event"))
    sender._emit("event")
    sender._call_handler(lambda sender, what: seen.append(what), "call")
    sender._emit("event")
    finished(sender)
    assert seen == ["event", "call", "event"]


def test_inherited_handlers_do_not_replace_own_ones() -> None:
    parent, child = Events(), Events()
    parent.register("a", print)
    parent.register("b", print)
    child.register("a", repr)
    child.inherit(parent)
    assert child.handlers == {"a": repr, "b": print}
    child.register("b", None)
    child.register("never set", None)
    assert parent.handlers == {"a": print, "b": print}
