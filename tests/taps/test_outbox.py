"""The outbox: against a model, and the rules of order, togetherness and expiry one by one."""

from __future__ import annotations

import weakref
from math import inf
from time import process_time

from greentaps.taps.outbox import Outbox, Outgoing
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule


class Context:
    """Stands for a MessageContext: only its identity counts."""


def item(
    data: bytes = b"x", context: object = None, end: bool = True, **options: object
) -> Outgoing:
    return Outgoing(data, context, end, **options)  # type: ignore[arg-type]


def drained(outbox: Outbox) -> list[bytes]:
    found = []
    while (one := outbox.pop()) is not None:
        found.append(one.data)
    return found


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30),
)
def test_whole_messages_leave_by_final_priority_and_age(given_: list[tuple[bool, int]]) -> None:
    outbox = Outbox()
    items = [
        item(b"%d" % number, priority=priority, final=final)
        for number, (final, priority) in enumerate(given_)
    ]
    for one in items:
        assert outbox.push(one)
    expected = sorted(items, key=lambda one: (one.final, one.priority, int(one.data)))
    assert drained(outbox) == [one.data for one in expected]
    assert outbox.size == len(outbox) == 0
    assert not outbox


class Model(RuleBasedStateMachine):
    """An outbox beside a list of Messages that is searched from the front each time."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.now = 0.0
        self.number = 0
        # Each: [key, expires_at, context, parts still here, ended, begun]
        self.messages: list[list] = []
        self.open: list[list] = []
        self.expired: list[object] = []

    def _item(
        self, context: object, end: bool, priority: int, life: float, final: bool
    ) -> Outgoing:
        self.number += 1
        return item(
            b"%d" % self.number,
            context,
            end,
            priority=priority,
            expires_at=self.now + life,
            final=final,
        )

    @rule(
        end=st.booleans(),
        priority=st.integers(0, 2),
        life=st.sampled_from([inf, inf, 1.0, 3.0]),
        final=st.sampled_from([False, False, False, True]),
    )
    def begin_message(self, end: bool, priority: int, life: float, final: bool) -> None:
        context = Context()
        one = self._item(context, end, priority, life, final)
        assert self.outbox.push(one)
        message = [(final, priority, self.number), one.expires_at, context, [one], end, False]
        self.messages.append(message)
        if not end:
            self.open.append(message)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), end=st.booleans())
    def go_on_with_message(self, data: st.DataObject, end: bool) -> None:
        message = data.draw(st.sampled_from(self.open))
        # Whatever a later part says, its Message was promised the place of the first.
        one = self._item(message[2], end, 0, inf, False)
        assert self.outbox.push(one)
        message[3].append(one)
        if end:
            message[4] = True
            self.open.remove(message)

    @precondition(lambda self: self.expired)
    @rule(data=st.data(), end=st.booleans())
    def go_on_with_expired(self, data: st.DataObject, end: bool) -> None:
        context = data.draw(st.sampled_from(self.expired))
        assert not self.outbox.push(self._item(context, end, 0, inf, False))
        if end:
            self.expired.remove(context)

    @rule()
    def pop(self) -> None:
        begun = [message for message in self.messages if message[5]]
        candidates = begun or sorted(self.messages, key=lambda message: message[0])
        expected = None
        if candidates:
            message = candidates[0]
            message[5] = True
            if message[3]:
                expected = message[3].pop(0)
            if message[4] and not message[3]:
                self.messages.remove(message)
        assert self.outbox.pop() is expected

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0]))
    def expire(self, seconds: float) -> None:
        self.now += seconds
        over = sorted(
            (message for message in self.messages if not message[5] and message[1] <= self.now),
            key=lambda message: message[0],
        )
        for message in over:
            self.messages.remove(message)
            if message in self.open:
                self.open.remove(message)
                self.expired.append(message[2])
        assert self.outbox.expire(self.now) == [one for message in over for one in message[3]]

    @precondition(lambda self: any(message[3] for message in self.messages))
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from([message for message in self.messages if message[3]]))
        one = data.draw(st.sampled_from(message[3]))
        possible = not message[5] and message[4] and len(message[3]) == 1
        assert self.outbox.withdraw(one) is possible
        if possible:
            self.messages.remove(message)

    @rule()
    def clear(self) -> None:
        order = sorted(self.messages, key=lambda message: (not message[5], message[0]))
        expected = [one for message in order for one in message[3]]
        assert self.outbox.clear() == expected
        self.messages.clear()
        self.open.clear()
        self.expired.clear()

    @invariant()
    def counts_agree(self) -> None:
        parts = [one for message in self.messages for one in message[3]]
        assert len(self.outbox) == len(parts)
        assert self.outbox.size == sum(len(one.data) for one in parts)
        assert bool(self.outbox) is bool(parts)
        assert self.outbox.sending_parts is any(message[5] for message in self.messages)
        assert self.outbox.next_expiry() == min(
            (message[1] for message in self.messages if not message[5]), default=inf
        )


TestModel = Model.TestCase


def test_nothing_goes_between_the_parts_of_a_message() -> None:
    outbox, context = Outbox(), Context()
    outbox.push(item(b"a1", context, end=False))
    assert outbox.pop().data == b"a1"  # type: ignore[union-attr]
    outbox.push(item(b"urgent", priority=0))
    assert outbox.pop() is None  # the first Message has begun
    assert outbox.sending_parts
    outbox.push(item(b"a2", context, end=False))
    outbox.push(item(b"a3", context))
    assert drained(outbox) == [b"a2", b"a3", b"urgent"]


def test_what_has_begun_does_not_expire() -> None:
    outbox, context = Outbox(), Context()
    outbox.push(item(b"a1", context, end=False, expires_at=1.0))
    outbox.pop()
    outbox.push(item(b"a2", context, end=True, expires_at=1.0))
    assert outbox.expire(2.0) == []
    assert drained(outbox) == [b"a2"]


def test_a_context_is_free_again_after_its_message() -> None:
    """RFC 9622 section 9.1.3 allows one for several Messages."""
    outbox, context = Outbox(), Context()
    outbox.push(item(b"a1", context, end=False, expires_at=1.0))
    outbox.expire(1.0)
    assert not outbox.push(item(b"a2", context, end=True))
    assert outbox.push(item(b"b1", context, end=False))
    assert outbox.push(item(b"b2", context, end=True))
    assert outbox.push(item(b"c", context))
    assert drained(outbox) == [b"b1", b"b2", b"c"]


def test_a_new_context_at_the_place_of_an_old_one_is_new() -> None:
    """Identity is compared by address; an address must not be used again meanwhile."""
    outbox = Outbox()
    for _ in range(100):
        outbox.push(item(b"x", Context(), end=False, expires_at=1.0))
        outbox.expire(1.0)
        assert outbox.push(item(b"y", Context()))
        outbox.pop()


def test_a_long_queue_is_not_slow() -> None:
    """As a Connection uses it: each push is followed by a look for what expires."""
    begun = process_time()
    outbox = Outbox()
    count = 20_000
    for number in range(count):
        outbox.push(item(priority=number % 7, expires_at=inf if number % 2 else 1e9 + number))
        outbox.expire(0.0)
        outbox.next_expiry()
    for _ in range(count):
        assert outbox.pop()
        outbox.expire(0.0)
        outbox.next_expiry()
    assert not outbox
    # It takes a fifth of a second; looking through the queue each time would take a minute.
    assert process_time() - begun < 5


def test_after_a_failed_part_no_other_part_of_its_message_leaves() -> None:
    outbox, context = Outbox(), Context()
    outbox.push(item(b"a1", context, end=False))
    outbox.push(item(b"a2", context, end=False))
    outbox.push(item(b"b"))
    first = outbox.pop()
    assert first is not None
    assert [one.data for one in outbox.give_up(first)] == [b"a2"]
    assert not outbox.sending_parts
    assert outbox.size == 1
    assert outbox.given_up(item(b"a3", context, end=False))
    assert outbox.given_up(item(b"a4", context))
    assert not outbox.given_up(item(b"another", context))  # its end has been handed in
    last = outbox.pop()
    assert last is not None
    assert last.data == b"b"
    assert outbox.give_up(last) == []
    assert not outbox.given_up(last)


def test_a_failed_part_whose_message_is_all_here() -> None:
    outbox, context = Outbox(), Context()
    outbox.push(item(b"a1", context, end=False))
    outbox.push(item(b"a2", context))
    first = outbox.pop()
    assert first is not None
    assert [one.data for one in outbox.give_up(first)] == [b"a2"]
    assert outbox.size == 0
    assert not outbox
    assert not outbox.given_up(item(b"another", context))


def test_a_message_that_has_begun_keeps_its_context() -> None:
    """Another one must not have its id, and be taken for it."""
    outbox, context = Outbox(), Context()
    outbox.push(item(b"a1", context, end=False))
    outbox.pop()
    gone = weakref.ref(context)
    del context
    assert gone() is not None
    outbox.clear()
    assert gone() is None
