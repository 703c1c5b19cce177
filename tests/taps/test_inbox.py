"""The inbox against a model that is too simple to be wrong."""

from __future__ import annotations

from math import inf
from time import process_time

import pytest
from greentaps.taps.inbox import PIECE_COST, Inbox
from hypothesis import given
from hypothesis import strategies as st

sizes = st.integers(0, 6)
lengths = st.one_of(st.just(inf), st.integers(1, 9))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), sizes, st.booleans()),
        st.tuples(st.just("take"), lengths, lengths),
        st.tuples(st.just("take and put back"), lengths, lengths),
    ),
    max_size=40,
)


class Model:
    """Messages as lists of single bytes, each with its end or without."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bool]] = []

    def put(self, data: bytes, end: bool) -> None:
        if self.messages and not self.messages[-1][1]:
            self.messages[-1] = (self.messages[-1][0] + data, end)
        else:
            self.messages.append((data, end))

    def take(self, minimum: float, maximum: float) -> tuple[bytes, bool] | None:
        if not self.messages:
            return None
        data, end = self.messages[0]
        if not end and len(data) < minimum:
            return None
        if len(data) <= maximum:
            if end:
                del self.messages[0]
            else:
                self.messages[0] = (b"", False)
            return data, end
        self.messages[0] = (data[int(maximum) :], end)
        return data[: int(maximum)], False

    @property
    def size(self) -> int:
        return sum(len(data) for data, _ in self.messages)


@given(steps)
def test_like_the_model(steps: list[tuple[str, int, int]]) -> None:
    inbox, model = Inbox(), Model()
    number = 0
    message = 0
    for name, first, second in steps:
        if name == "put":
            data = bytes((number + index) % 256 for index in range(first))
            number += first
            inbox.put(data, message, bool(second))
            model.put(data, bool(second))
            message += bool(second)
            continue
        before = inbox.size
        found = inbox.take(first, second)
        if name == "take":
            expected = model.take(first, second)
            assert (None if found is None else (found[0], found[2])) == expected
        elif found is not None:
            assert inbox.size < before
            inbox.put_back(*found)
        _size_is_right(inbox, model)
    # All that is left comes out, in order, and each piece with its own Message's context.
    while (found := inbox.take(1)) is not None:
        assert (found[0], found[2]) == model.take(1, inf)
    assert not inbox or model.messages in ([(b"", False)], [])


def _size_is_right(inbox: Inbox, model: Model) -> None:
    pieces, overhead = divmod(inbox.size - model.size, PIECE_COST)
    assert overhead == 0
    assert bool(pieces) is bool(inbox)


@given(st.lists(st.lists(st.binary(max_size=5), min_size=1, max_size=4), max_size=8), lengths)
def test_every_piece_has_its_messages_context(messages: list[list[bytes]], maximum: float) -> None:
    inbox = Inbox()
    for number, parts in enumerate(messages):
        for index, part in enumerate(parts):
            inbox.put(part, number, index == len(parts) - 1)
    for number, parts in enumerate(messages):
        data, end = b"", False
        while not end:
            found = inbox.take(1, maximum)
            assert found is not None
            piece, context, end = found
            assert context == number
            assert len(piece) <= maximum
            data += piece
        assert data == b"".join(parts)
    assert inbox.size == 0
    assert not inbox


def test_several_pieces_put_back_in_reverse_are_as_before() -> None:
    inbox = Inbox()
    inbox.put(b"abc", 1, True)
    inbox.put(b"de", 2, False)
    taken = [inbox.take(1, 2), inbox.take(1, 2), inbox.take(1, 2)]
    assert taken == [(b"ab", 1, False), (b"c", 1, True), (b"de", 2, False)]
    for piece in reversed(taken):
        assert piece is not None
        inbox.put_back(*piece)
    inbox.put(b"f", 2, True)
    assert [inbox.take(), inbox.take(), inbox.take()] == [
        (b"abc", 1, True),
        (b"def", 2, True),
        None,
    ]


@given(st.lists(st.tuples(st.binary(max_size=3), st.booleans()), min_size=1, max_size=8))
def test_pieces_put_back_one_behind_the_other_are_as_before(
    pieces: list[tuple[bytes, bool]],
) -> None:
    """As by receivers that are killed in their order."""
    inbox, same = Inbox(), Inbox()
    for number, (data, end) in enumerate(pieces):
        inbox.put(data, number, end)
        same.put(data, number, end)
    taken = []
    while (piece := inbox.take(1, 2)) is not None:
        taken.append(piece)
    for position, piece in enumerate(taken):
        inbox.put_back(*piece, position=position)
    for box in (inbox, same):
        box.put(b"the end", None, True)
    while (expected := same.take()) is not None:
        found = inbox.take()
        assert found is not None
        assert (found[0], found[2]) == (expected[0], expected[2])
    assert not inbox
    assert inbox.size == 0


def test_the_first_piece_can_be_given_a_context() -> None:
    inbox = Inbox()
    inbox.put(b"abcd", None, True)
    inbox.mark_head("context")
    assert inbox.take(1, 2) == (b"ab", "context", False)
    assert inbox.take(1, 2) == (b"cd", "context", True)


def test_an_empty_message_is_a_message() -> None:
    inbox = Inbox()
    inbox.put(b"", None, True)
    inbox.put(b"x", None, True)
    assert inbox.take() == (b"", None, True)
    assert inbox.take() == (b"x", None, True)
    assert inbox.take() is None


def test_empty_messages_count() -> None:
    inbox = Inbox()
    for _ in range(1000):
        inbox.put(b"", None, True)
    assert inbox.size >= 100_000
    while inbox.take():
        pass
    assert inbox.size == 0


def test_a_piece_that_is_taken_as_it_is_is_not_copied() -> None:
    inbox = Inbox()
    data = bytes(1000)
    inbox.put(data, None, True)
    found = inbox.take()
    assert found is not None
    assert found[0] is data


@pytest.mark.parametrize("count", [100_000])
def test_a_large_inbox_is_not_slow(count: int) -> None:
    """One Message in many pieces, and many Messages: neither costs more than its share."""
    begun = process_time()
    inbox = Inbox()
    for _ in range(count):
        inbox.put(b"x", None, False)
    for _ in range(count // 2):
        inbox.take(1, 1)
    inbox.put(b"", None, True)
    found = inbox.take()
    assert found is not None
    assert len(found[0]) == count - count // 2
    for _ in range(count):
        inbox.put(b"x", None, True)
    for _ in range(count):
        assert inbox.take()
    # A second is ten times what it takes; what grows with the square would take minutes.
    assert process_time() - begun < 5
