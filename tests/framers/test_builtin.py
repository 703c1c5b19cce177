"""What each built-in framer has of its own, beyond the contract that all keep."""

from __future__ import annotations

from typing import Any

import pytest
from greentaps.framers import (
    DeframingError,
    Framer,
    FramerStack,
    FramingError,
    MessageTooLongError,
)
from greentaps.framers.delimiter import DelimiterFramer, LineFramer
from greentaps.framers.length import LengthPrefixFramer
from greentaps.framers.netstring import NetstringFramer
from greentaps.framers.tlv import ExampleFramer, TlvFramer
from greentaps.testing_framers import FramerRecorder


def ready(*framers: Framer) -> tuple[FramerStack, FramerRecorder]:
    host = FramerRecorder()
    stack = FramerStack(framers, host)
    stack.start()
    return stack, host


def encoded(framer: Framer, *parts: bytes, context: Any = None) -> bytes:
    """What a Message in these parts looks like."""
    stack, host = ready(framer)
    for index, part in enumerate(parts):
        stack.send(part, context, index == len(parts) - 1)
    return host.take()


def received(framer: Framer, data: bytes) -> list[bytes] | str:
    """The Messages that come out of *data*, or what is wrong with it."""
    stack, host = ready(framer)
    stack.feed(data)
    if host.error is not None:
        assert isinstance(host.error, DeframingError), repr(host.error)
        return str(host.error)
    return [message for message, _ in host.messages]


# -- Length --


@pytest.mark.parametrize(
    ("width", "order", "prefix"),
    [
        (1, "big", b"\x02"),
        (2, "big", b"\0\x02"),
        (4, "big", b"\0\0\0\x02"),
        (8, "big", b"\0\0\0\0\0\0\0\x02"),
        (1, "little", b"\x02"),
        (2, "little", b"\x02\0"),
        (4, "little", b"\x02\0\0\0"),
        (8, "little", b"\x02\0\0\0\0\0\0\0"),
    ],
)
def test_length_prefix(width: int, order: Any, prefix: bytes) -> None:
    assert encoded(LengthPrefixFramer(width, order), b"hi") == prefix + b"hi"
    assert received(LengthPrefixFramer(width, order), prefix + b"hi") == [b"hi"]


def test_length_limits() -> None:
    framer = LengthPrefixFramer(2, max_length=5)
    assert encoded(framer, b"12345") == b"\0\x0512345"
    assert encoded(framer, b"12", b"345") == b"\0\x0512345"
    for parts in ((b"123456",), (b"123", b"456"), (b"123456", b"")):
        with pytest.raises(MessageTooLongError):
            encoded(framer, *parts)
    assert received(framer, b"\0\x0512345") == [b"12345"]
    assert "6 bytes" in received(framer, b"\0\x06")
    with pytest.raises(MessageTooLongError):
        encoded(LengthPrefixFramer(1), bytes(256))


def test_a_refused_part_takes_the_ones_before_with_it() -> None:
    for framer, wire in (
        (LengthPrefixFramer(1), b"\x01c"),
        (TlvFramer(1, 1), b"\0\x01c"),
        (NetstringFramer(255), b"1:c,"),
    ):
        stack, host = ready(framer)
        stack.send(bytes(200), None, False)
        with pytest.raises(MessageTooLongError):
            stack.send(bytes(100), None, False)
        stack.send(b"c", None, True)
        assert host.take() == wire


@pytest.mark.parametrize(
    "arguments",
    [(3,), (0,), (4, "middle"), (1, "big", 256), (1, "big", -1)],
)
def test_length_arguments(arguments: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        LengthPrefixFramer(*arguments)


# -- Delimiter --


def test_delimiter() -> None:
    assert encoded(DelimiterFramer(b"--"), b"a-b") == b"a-b--"
    assert encoded(DelimiterFramer(b"--"), b"a", b"", b"b") == b"ab--"
    assert encoded(DelimiterFramer(b"--"), b"a" * 20000) == b"a" * 20000 + b"--"
    assert received(DelimiterFramer(b"--"), b"a-b--c----d") == [b"a-b", b"c", b""]


@pytest.mark.parametrize(
    ("delimiter", "parts"),
    [
        (b"\n", (b"a\nb",)),
        (b"\n", (b"a", b"b\n")),
        (b"\n", (b"a\n", b"b")),
        (b"ab", (b"xaby",)),
        (b"ab", (b"xa", b"by")),
        (b"ab", (b"xa", b"", b"by")),
        (b"aa", (b"xa",)),  # would end one byte early
        (b"aa", (b"x", b"a")),
        (b"aba", (b"ab",)),
        (b"aba", (b"a", b"b")),
        (b"\r\n\r\n", (b"x\r\n",)),
    ],
)
def test_a_message_must_not_contain_the_delimiter(
    delimiter: bytes, parts: tuple[bytes, ...]
) -> None:
    with pytest.raises(FramingError, match="must not contain"):
        encoded(DelimiterFramer(delimiter), *parts)


@pytest.mark.parametrize(
    ("framer", "wrong"),
    [
        (DelimiterFramer(b"--", max_length=9), b"0123456789"),
        (DelimiterFramer(b"--"), b"x--y"),
        (LineFramer(max_length=9), b"0123456789"),
        (LineFramer(), b"x\ny"),
        (LineFramer(b"\n"), b"x\r"),
    ],
)
def test_nothing_follows_a_message_that_has_left_without_its_end(
    framer: Framer, wrong: bytes
) -> None:
    """It would be taken for the rest of that Message."""
    stack, host = ready(framer)
    stack.send(b"begun", None, False)
    with pytest.raises(FramingError):
        stack.send(wrong, None, True)
    stack.forget_sent()
    for part, end in ((b"rest", True), (b"more", False), (b"next", True)):
        with pytest.raises(FramingError, match="begun to leave"):
            stack.send(part, None, end)
    assert host.take() == b"begun"
    # What is refused before anything has left harms no other Message; nor does what a datagram
    # has held back.
    for datagrams in (False, True):
        host = FramerRecorder()
        stack = FramerStack([framer], host, datagrams=datagrams)
        stack.start()
        if datagrams:
            stack.send(b"begun", None, False)
        with pytest.raises(FramingError):
            stack.send(wrong, None, True)
        stack.forget_sent()
        stack.send(b"next", None, True)
        assert host.take().startswith(b"next")


@pytest.mark.parametrize(
    ("framer", "wire"),
    [
        (LengthPrefixFramer(1), b"\x04next"),
        (TlvFramer(1, 1), b"\0\x04next"),
        (NetstringFramer(255), b"4:next,"),
    ],
)
def test_parts_that_are_held_can_be_forgotten(framer: Framer, wire: bytes) -> None:
    stack, host = ready(framer)
    stack.forget_sent()
    stack.send(b"begun", None, False)
    stack.forget_sent()
    stack.send(b"next", None, True)
    assert host.take() == wire
    assert stack.error is None


def test_delimiter_limits() -> None:
    framer = DelimiterFramer(b"--", max_length=4)
    assert encoded(framer, b"1234") == b"1234--"
    for parts in ((b"12345",), (b"123", b"45"), (b"1", b"2345")):
        with pytest.raises(MessageTooLongError):
            encoded(framer, *parts)
    assert received(framer, b"1234--1234--") == [b"1234", b"1234"]
    assert received(framer, b"1234-") == []
    assert "within 4 bytes" in received(framer, b"12345-")
    assert "within 4 bytes" in received(framer, b"12345--")


def test_the_end_of_the_stream_may_end_a_message() -> None:
    for kind in (DelimiterFramer, LineFramer):
        stack, host = ready(kind(allow_unterminated=True))
        stack.feed(b"one\ntwo")
        assert stack.eof()
        assert [data for data, _ in host.messages] == [b"one", b"two"]
        stack, host = ready(kind(allow_unterminated=True))
        stack.feed(b"one\n")
        assert stack.eof()
        assert [data for data, _ in host.messages] == [b"one"]
        stack, host = ready(kind())
        stack.feed(b"one\ntwo")
        assert not stack.eof()


def test_delimiter_arguments() -> None:
    with pytest.raises(TypeError):
        DelimiterFramer("\n")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one byte"):
        DelimiterFramer(b"")
    with pytest.raises(ValueError, match="at least 1 byte"):
        DelimiterFramer(b"\n", 0)
    with pytest.raises(ValueError, match="a line ends in"):
        LineFramer(b"\r")


# -- Lines --


def test_lines() -> None:
    assert received(LineFramer(), b"a\nb\r\n\r\nc\r\r\n\n") == [b"a", b"b", b"", b"c\r", b""]
    assert encoded(LineFramer(), b"a") == b"a\r\n"
    assert encoded(LineFramer(), b"a\r") == b"a\r\r\n"
    assert encoded(LineFramer(b"\n"), b"a") == b"a\n"
    assert encoded(LineFramer(b"\n"), b"a\r", b"b") == b"a\rb\n"


def test_lines_that_cannot_be_sent() -> None:
    for framer, parts in (
        (LineFramer(), (b"a\nb",)),
        (LineFramer(), (b"a", b"\n")),
        (LineFramer(b"\n"), (b"a\r",)),
        (LineFramer(b"\n"), (b"a\r", b"")),
        (LineFramer(max_length=3), (b"1234",)),
        (LineFramer(max_length=3), (b"12", b"34")),
    ):
        with pytest.raises(FramingError):
            encoded(framer, *parts)


def test_long_lines() -> None:
    framer = LineFramer(max_length=3)
    assert received(framer, b"123\r\n123\n") == [b"123", b"123"]
    assert "3 bytes" in received(framer, b"1234\n")
    assert "3 bytes" in received(framer, b"12345")
    assert received(framer, b"123\r") == []


# -- Type, length, value --


@pytest.mark.rfc("F-07")
def test_tlv_type() -> None:
    framer = TlvFramer(2, 1, default_type=300)
    context = FramerRecorder().new_context().add(framer, "type", 5)
    assert encoded(framer, b"hi", context=context) == b"\0\x05\x02hi"
    assert encoded(framer, b"h", b"i", context=context) == b"\0\x05\x02hi"
    assert encoded(framer, b"hi") == b"\x01\x2c\x02hi"
    other = FramerRecorder().new_context().add(TlvFramer(), "type", 5)
    assert encoded(framer, b"hi", context=other) == b"\x01\x2c\x02hi"
    stack, host = ready(framer)
    stack.feed(b"\0\x05\x02hi\0\x06\0")
    assert [(data, context.get(framer, "type")) for data, context in host.messages] == [
        (b"hi", 5),
        (b"", 6),
    ]


def test_the_first_part_has_the_type() -> None:
    framer = TlvFramer()
    stack, host = ready(framer)
    context = host.new_context().add(framer, "type", 5)
    stack.send(b"h", context, False)
    context.add(framer, "type", 6)
    stack.send(b"i", context, True)
    assert host.take() == b"\x05\0\0\0\x02hi"


def test_tlv_limits() -> None:
    framer = TlvFramer(1, 1, max_length=3)
    for kind in (256, -1, "5", 1.0, True):
        context = FramerRecorder().new_context().add(framer, "type", kind)
        with pytest.raises(FramingError):
            encoded(framer, b"", context=context)
    with pytest.raises(MessageTooLongError):
        encoded(framer, b"1234")
    assert "4 bytes" in received(framer, b"\0\x041234")
    assert encoded(TlvFramer(), b"x" * 20000)[5:] == b"x" * 20000
    for arguments in ((3,), (1, 3), (1, 1, "middle")):
        with pytest.raises(ValueError, match="must be"):
            TlvFramer(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be"):
        TlvFramer(1, 1, max_length=256)
    with pytest.raises(ValueError, match="must be"):
        TlvFramer(1, default_type=256)


def test_the_older_name() -> None:
    assert ExampleFramer is TlvFramer


# -- Netstrings --


def test_netstring() -> None:
    assert encoded(NetstringFramer(), b"hello") == b"5:hello,"
    assert encoded(NetstringFramer(), b"") == b"0:,"
    assert encoded(NetstringFramer(), b"x" * 20000) == b"20000:" + b"x" * 20000 + b","
    assert received(NetstringFramer(), b"5:hello,0:,2:,,,") == [b"hello", b"", b",,"]


@pytest.mark.parametrize(
    "data",
    [
        b":,",
        b"05:hello,",
        b"00:,",
        b"5:hello;",
        b"5:hell,,x",
        b"+5:hello,",
        b"-1:,",
        b" 5:hello,",
        b"5 :hello,",
        b"x",
        b"0x1:a,",
        b"\xb2:ab,",
        b"11:",  # longer than allowed here
        b"111",
    ],
)
def test_netstrings_that_are_none(data: bytes) -> None:
    assert isinstance(received(NetstringFramer(10), data), str), received(NetstringFramer(10), data)
    stack, host = ready(NetstringFramer(10))
    for at in range(len(data)):
        stack.feed(data[at : at + 1])
    assert isinstance(host.error, DeframingError)


def test_netstring_limits() -> None:
    with pytest.raises(ValueError, match="negative"):
        NetstringFramer(-1)
    with pytest.raises(MessageTooLongError):
        encoded(NetstringFramer(3), b"1234")
    assert received(NetstringFramer(0), b"0:,") == [b""]


def test_a_long_netstring_is_not_held() -> None:
    stack, host = ready(NetstringFramer())
    stack.feed(b"100000:x")
    for _ in range(99_999):
        stack.feed(b"x")
        if stack.held:
            break
    assert stack.held == 0
    assert not host.messages
    stack.feed(b",")
    assert [len(data) for data, _ in host.messages] == [100_000]
