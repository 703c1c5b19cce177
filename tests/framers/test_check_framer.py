"""`check_framer` finds what it is there to find: framers that are each broken in one way."""

from __future__ import annotations

import pytest
from greentaps.framers import DeframingError, Framer, FramingError
from greentaps.framers.length import LengthPrefixFramer
from greentaps.testing_framers import check_framer, framer_checks


class Two(Framer):
    """A small correct framer, to be broken: two bytes of length."""

    def new_sent_message(self, link, data, context, end_of_message):
        link.state = (link.state or b"") + bytes(data)
        if end_of_message:
            whole, link.state = link.state, b""
            self.put(link, whole)

    def put(self, link, whole):
        link.send(len(whole).to_bytes(2, "big") + whole)

    def forget_sent(self, link, *, left):
        link.state = None

    def handle_received_data(self, link):
        prefix = link.parse(2, 2)
        if prefix is None:
            return
        length = int.from_bytes(prefix, "big")
        if link.received >= 2 + length:
            link.advance_receive_cursor(2)
            link.deliver_and_advance_receive_cursor(None, length)


class Greedy(Two):
    """Takes the prefix of the next Message for the end of this one."""

    def handle_received_data(self, link):
        prefix = link.parse(2, 2)
        if prefix is not None and link.received >= 2 + int.from_bytes(prefix, "big"):
            link.advance_receive_cursor(2)
            link.deliver_and_advance_receive_cursor(None, link.received)


class Impatient(Two):
    """Thinks that what has arrived is all there is."""

    def handle_received_data(self, link):
        prefix = link.parse(2, 2)
        if prefix is not None:
            link.advance_receive_cursor(2)
            length = min(int.from_bytes(prefix, "big"), link.received)
            link.deliver_and_advance_receive_cursor(None, length)


class Nervous(Two):
    """Wants the whole prefix at once."""

    def handle_received_data(self, link):
        if link.received < 2:
            raise DeframingError("too short")
        super().handle_received_data(link)


class Lagging(Two):
    """Delivers a Message when the next one begins."""

    def handle_received_data(self, link):
        prefix = link.parse(2, 2)
        if prefix is not None and link.received > 2 + int.from_bytes(prefix, "big"):
            super().handle_received_data(link)


class Deaf(Two):
    """Does not mind where the stream ends."""

    def at_boundary(self, link):
        return True


class Faithful(Two):
    """Sends the parts of a Message that was given up with the next one."""

    def forget_sent(self, link, *, left):
        pass


class Whole(Two):
    """Cannot send in parts."""

    def new_sent_message(self, link, data, context, end_of_message):
        if not end_of_message:
            raise FramingError("whole Messages only")
        self.put(link, data)


class Lazy(Two):
    """Keeps the sender's own buffer."""

    def new_sent_message(self, link, data, context, end_of_message):
        link.state = [*(link.state or []), data]
        if end_of_message:
            parts, link.state = link.state, None
            self.put(link, b"".join(parts))


class NoEmpty(Two):
    """Has no empty Messages."""

    def put(self, link, whole):
        if whole:
            super().put(link, whole)


class Together(Two):
    """Keeps the state of all Connections in one place."""

    def __init__(self):
        self.held = b""

    def handle_received_data(self, link):
        self.held += link.parse() or b""
        link.advance_receive_cursor(link.received)
        while len(self.held) >= 2:
            length = int.from_bytes(self.held[:2], "big")
            if len(self.held) < 2 + length:
                return
            data, self.held = self.held[2 : 2 + length], self.held[2 + length :]
            link.deliver(None, data)


class Hoarder(Two):
    """Holds all that comes if it makes no sense."""

    def start(self, link):
        link.state = b""

    def handle_received_data(self, link):
        if (link.parse(1) or b"").startswith(b"\xff"):
            return
        super().handle_received_data(link)


class Endless(Two):
    """Has a loop that rubbish does not end."""

    def handle_received_data(self, link):
        while link.parse(1) == b"a" * link.received:
            pass
        super().handle_received_data(link)


class Slow(Two):
    """Is never ready."""

    def start(self, link):
        link.delay_ready()


class Stubborn(Two):
    """Is never done."""

    def stop(self, link):
        link.delay_closed()


class Late(Two):
    """Sends what it was given the last time but one."""

    def start(self, link):
        link.state = None
        self.last = b""

    def put(self, link, whole):
        if self.last:
            link.send(self.last)
        self.last = len(whole).to_bytes(2, "big") + whole


class Changing(Two):
    """Gives each piece another context."""

    def handle_received_data(self, link):
        prefix = link.parse(2, 2)
        if prefix is None or link.received < 2 + int.from_bytes(prefix, "big"):
            return
        link.advance_receive_cursor(2)
        link.deliver_and_advance_receive_cursor(
            link.new_context(), int.from_bytes(prefix, "big"), False
        )
        link.deliver(link.new_context(), b"")


MESSAGES = [b"first", b"", b"the third", b"x" * 300]


def test_a_correct_framer_passes() -> None:
    check_framer(Two, MESSAGES)


@pytest.mark.parametrize(
    ("framer", "name"),
    [
        (Greedy, "several_in_one_piece"),
        (Greedy, "with_a_tail"),
        (Impatient, "cut_in_two"),
        (Impatient, "any_pieces"),
        (Nervous, "byte_by_byte"),
        (Lagging, "round_trip"),
        (Deaf, "truncated"),
        (Whole, "partial_sends"),
        (Faithful, "given_up"),
        (Lazy, "bytes_like"),
        (NoEmpty, "empty_message"),
        (Together, "shared"),
        (Hoarder, "rubbish"),
        (Endless, "rubbish"),
        (Slow, "round_trip"),
        (Stubborn, "stop"),
        (Late, "datagrams"),
        (Changing, "round_trip"),
    ],
)
def test_a_broken_framer_is_found(framer: type[Framer], name: str) -> None:
    with pytest.raises((AssertionError, FramingError)):
        check_framer(framer, MESSAGES, names=[name])


def test_metadata_must_arrive() -> None:
    with pytest.raises(AssertionError, match="metadatum"):
        check_framer(LengthPrefixFramer, [(b"a", {"type": 7})], names=["round_trip"])


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="no check is called"):
        check_framer(LengthPrefixFramer, names=["nonsense"])
    with pytest.raises(ValueError, match="no check is called"):
        check_framer(LengthPrefixFramer, skip=["nonsense"])
    assert "round_trip" in framer_checks()
