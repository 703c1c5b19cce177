"""The WebSocket framer: handshakes, Messages, control frames, and `websockets` as a real peer."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from greentaps.framers import DeframingError, FramerStack, FramingError, MessageTooLongError
from greentaps.framers.websocket import WebSocketFramer
from greentaps.testing_framers import FramerRecorder

PATIENCE = 20.0  # seconds


def end(role: Any, **options: Any) -> tuple[FramerStack, FramerRecorder, WebSocketFramer]:
    framer = WebSocketFramer(role, **options)
    host = FramerRecorder({"hostname": "example.org"})
    stack = FramerStack([framer], host)
    stack.start()
    return stack, host, framer


class Pair:
    """A client and a server, joined."""

    def __init__(self, client: Any = None, server: Any = None) -> None:
        self.client, self.client_host, self.client_framer = end("client", **(client or {}))
        self.server, self.server_host, self.server_framer = end("server", **(server or {}))
        self.pass_on()

    def pass_on(self) -> None:
        while self.client_host.out or self.server_host.out:
            self.server.feed(self.client_host.take())
            self.client.feed(self.server_host.take())

    def ready(self) -> Pair:
        assert self.client.ready, self.client_host.error
        assert self.server.ready, self.server_host.error
        return self


def context(framer: WebSocketFramer, kind: Any) -> Any:
    return FramerRecorder().new_context().add(framer, "type", kind)


# -- The opening handshake --


@pytest.mark.rfc("MF-02", "MF-03", "F-04")
def test_the_handshake_delays_ready() -> None:
    client, host, _ = end("client", target="/chat", headers=[("Origin", "https://o.example")])
    request = host.take()
    assert request.startswith(b"GET /chat HTTP/1.1\r\nHost: example.org\r\n")
    assert b"\r\nOrigin: https://o.example\r\n" in request
    assert b"xtensions" not in request
    assert not client.ready
    server, server_host, _ = end("server")
    assert not server.ready
    server.feed(request)
    assert server.ready
    client.feed(server_host.take())
    assert client.ready
    assert not host.out


@pytest.mark.rfc("MF-06")
def test_a_refused_handshake_fails_the_candidate() -> None:
    asked = []

    def accept(target: str, headers: list[tuple[bytes, bytes]]) -> bool:
        asked.append((target, dict(headers)[b"host"]))
        return False

    pair = Pair({"target": "/x"}, {"accept": accept})
    assert asked == [("/x", b"example.org")]
    for host in (pair.client_host, pair.server_host):
        assert isinstance(host.error, DeframingError)
        assert not host.ready
    assert "403" in str(pair.client_host.error)


def test_an_accepted_handshake() -> None:
    Pair({"host": "h:8080"}, {"accept": lambda target, headers: target == "/"}).ready()


@pytest.mark.parametrize(
    ("offered", "accepted", "chosen"),
    [(["a", "b"], ["b", "a"], "b"), (["a"], ["b"], None), ([], ["b"], None), (["a"], [], None)],
)
def test_subprotocols(offered: list[str], accepted: list[str], chosen: str | None) -> None:
    pair = Pair({"subprotocols": offered}, {"subprotocols": accepted}).ready()
    pair.client.send(b"x", None, True)
    pair.server.feed(pair.client_host.take())
    assert pair.server_host.messages[0][1].get(pair.server_framer, "subprotocol") == chosen


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: wrong\r\n\r\n"
        ),
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"a" * 20000,
    ],
)
def test_responses_that_are_none(response: bytes) -> None:
    client, host, _ = end("client")
    client.feed(response)
    assert isinstance(host.error, DeframingError), host.error
    assert not host.ready


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", b"400"),
        (
            (
                b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: x\r\n\r\n"
            ),
            b"426",
        ),
        (b"rubbish\r\n\r\n", b""),
        (b"a" * 20000, b""),
    ],
)
def test_requests_that_are_none(request_: bytes, status: bytes) -> None:
    server, host, _ = end("server")
    server.feed(request_)
    assert isinstance(host.error, DeframingError)
    if status:
        assert host.take().startswith(b"HTTP/1.1 " + status)


def test_the_stream_ends_during_the_handshake() -> None:
    client, host, _ = end("client")
    assert not client.eof()
    assert isinstance(host.error, DeframingError)


def test_a_client_needs_a_host() -> None:
    host = FramerRecorder()
    stack = FramerStack([WebSocketFramer("client")], host)
    stack.start()
    assert isinstance(host.error, FramingError)


# -- Messages --


@pytest.mark.rfc("F-07")
def test_types() -> None:
    pair = Pair({"default_type": "text"}).ready()
    pair.client.send("gr\u00fc\u00df".encode(), None, True)
    pair.client.send(b"\xff", context(pair.client_framer, "binary"), True)
    pair.pass_on()
    got = pair.server_host.messages
    assert [data for data, _ in got] == ["gr\u00fc\u00df".encode(), b"\xff"]
    assert [found.get(pair.server_framer, "type") for _, found in got] == ["text", "binary"]


def test_text_must_be_text() -> None:
    for parts in ((b"\xff",), (b"\xc3",), (b"\xc3", b"x")):
        pair = Pair({"default_type": "text"}).ready()
        for part in parts[:-1]:
            pair.client.send(part, None, False)
        with pytest.raises(FramingError, match="UTF-8"):
            pair.client.send(parts[-1], None, True)
    pair = Pair({"default_type": "text"}).ready()
    pair.client.send(b"\xc3", None, False)
    pair.client.send(b"\xbc", None, True)
    pair.pass_on()
    assert pair.server_host.messages[0][0] == b"\xc3\xbc"
    with pytest.raises(FramingError, match="type"):
        pair.client.send(b"", context(pair.client_framer, "poem"), True)


def test_a_long_message_is_not_held() -> None:
    pair = Pair().ready()
    pair.server_host.keep = False
    chunk = bytes(65536)
    tracemalloc.start()
    try:
        for index in range(200):
            pair.client.send(chunk, None, index == 199)
            pair.server.feed(pair.client_host.take())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pair.server_host.deliveries >= 200
    assert peak < 2_000_000


def test_limits() -> None:
    pair = Pair({"max_length": 5}).ready()
    pair.client.send(b"12345", None, True)
    with pytest.raises(MessageTooLongError):
        pair.client.send(b"123456", None, True)
    pair.client.send(b"123", None, False)
    with pytest.raises(MessageTooLongError):
        pair.client.send(b"456", None, True)
    pair = Pair(None, {"max_length": 5}).ready()
    pair.client.send(b"12345", None, True)
    pair.client.send(b"12345", None, True)
    pair.client.send(b"123456", None, True)
    pair.pass_on()
    assert [data for data, _ in pair.server_host.messages] == [b"12345", b"12345"]
    assert isinstance(pair.server_host.error, DeframingError)
    assert "1009" in str(pair.client_host.error)


# -- Control frames --

PING = b"\x89\x81\0\0\0\0"


def test_a_ping_is_answered() -> None:
    pair = Pair().ready()
    pair.server.feed(PING + b"1")
    assert pair.server_host.take() == b"\x8a\x011"
    pair.client.feed(b"\x89\x00\x8a\x00")
    assert pair.client_host.take()[:2] == b"\x8a\x80"
    assert not pair.client_host.messages


def test_pings_are_not_piled_up() -> None:
    pair = Pair().ready()
    pair.server_host.write_blocked = True
    for number in b"123":
        pair.server.feed(PING + bytes([number]))
    assert pair.server_host.take() == b""
    pair.server_host.write_blocked = False
    pair.server.send(b"x", None, True)
    assert pair.server_host.take() == b"\x8a\x013\x82\x01x"
    pair.server_host.write_blocked = True
    pair.server.feed(PING + b"4")
    pair.server_host.write_blocked = False
    pair.server.feed(b"\x8a\x80\0\0\0\0")
    assert pair.server_host.take() == b"\x8a\x014"


# -- The closing handshake --


@pytest.mark.rfc("MF-04", "MF-05")
@pytest.mark.parametrize("first", ["client", "server"])
def test_closing(first: str) -> None:
    pair = Pair().ready()
    getattr(pair, first).stop()
    host = getattr(pair, f"{first}_host")
    other = "server" if first == "client" else "client"
    assert not host.closed
    pair.pass_on()
    assert host.closed
    assert host.ended
    assert getattr(pair, f"{other}_host").ended
    assert not getattr(pair, f"{other}_host").closed
    with pytest.raises(FramingError, match="closed"):
        getattr(pair, other).send(b"x", None, True)
    getattr(pair, other).stop()
    assert getattr(pair, f"{other}_host").closed
    assert pair.client.eof()
    assert pair.server.eof()


def test_closing_at_both_ends_at_once() -> None:
    pair = Pair().ready()
    pair.client.stop()
    pair.server.stop()
    pair.pass_on()
    assert pair.client_host.closed
    assert pair.server_host.closed
    pair.server.feed(PING + b"1")
    assert pair.server_host.take() == b""


def test_messages_and_pings_while_closing() -> None:
    pair = Pair().ready()
    pair.client.stop()
    pair.client.feed(b"\x82\x01x\x89\x00")
    assert pair.client_host.messages[0][0] == b"x"
    pair.pass_on()
    assert pair.client_host.closed


def test_a_stream_that_is_cut() -> None:
    pair = Pair().ready()
    assert not pair.client.eof()
    assert isinstance(pair.client_host.error, DeframingError)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x82\x01x", 1002),  # not masked
        (b"\xc2\x81\0\0\0\0x", 1002),  # a reserved bit
        (b"\x83\x80\0\0\0\0", 1002),  # a reserved opcode
        (b"\x80\x81\0\0\0\0x", 1002),  # nothing to continue
        (b"\x89\xfe\x00\x7e\0\0\0\0", 1002),  # a long ping
        (b"\x81\x81\0\0\0\0\xff", 1007),  # no UTF-8
    ],
)
def test_frames_that_break_the_protocol(frames: bytes, code: int) -> None:
    pair = Pair().ready()
    pair.server.feed(frames)
    assert isinstance(pair.server_host.error, DeframingError)
    sent = pair.server_host.take()
    assert sent[0] == 0x88
    assert int.from_bytes(sent[2:4], "big") == code


def test_a_close_that_is_no_good_bye() -> None:
    for closing in (b"\x88\x82\0\0\0\0\x03\xf3", b"\x02\x81\0\0\0\0x\x88\x82\0\0\0\0\x03\xe8"):
        pair = Pair().ready()
        pair.server.feed(closing)
        assert isinstance(pair.server_host.error, DeframingError)
        assert pair.server_host.take()[0] == 0x88
    pair = Pair().ready()
    pair.server.feed(b"\x88\x80\0\0\0\0")
    assert pair.server_host.error is None
    assert pair.server_host.ended


# -- Construction --


def test_arguments() -> None:
    with pytest.raises(ValueError, match="role"):
        WebSocketFramer("peer")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="default_type"):
        WebSocketFramer("client", default_type="poem")  # type: ignore[arg-type]


def test_without_wsproto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wsproto", None)
    with pytest.raises(ImportError, match=r"greentaps\[websocket\]"):
        WebSocketFramer("client")


# -- A real peer --

needs_websockets = pytest.mark.skipif(
    importlib.util.find_spec("websockets") is None, reason="the package websockets is missing"
)

SERVER = """
import socket
from websockets.sync.server import serve
def echo(peer):
    for message in peer:
        peer.ping().wait()
        peer.send(message)
with serve(echo, "127.0.0.1", 0, subprotocols=["echo"]) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
"""

CLIENT = """
import sys
from websockets.sync.client import connect
with connect(f"ws://127.0.0.1:{sys.argv[1]}/path", subprotocols=["echo"]) as peer:
    assert peer.subprotocol == "echo"
    for message in ("text \\u00fc", b"binary", "x" * 100000, ["in ", "frag", "ments"], b""):
        peer.send(message)
        peer.ping().wait()
        got = peer.recv()
        assert got == ("".join(message) if isinstance(message, list) else message), got
print("all is well")
"""


@contextmanager
def running(script: str, *arguments: str) -> Iterator[Any]:
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def drive(peer: socket.socket, stack: FramerStack, host: FramerRecorder) -> bool:
    """One step: send what there is, read what comes.  False at the end of the stream."""
    peer.sendall(host.take())
    data = peer.recv(65536)
    if data:
        stack.feed(data)
    assert host.error is None, repr(host.error)
    return bool(data)


@needs_websockets
@pytest.mark.peer
def test_a_real_server() -> None:
    with running(SERVER) as process:
        port = int(process.stdout.readline())
        stack, host, framer = end("client", host=f"127.0.0.1:{port}", subprotocols=["echo"])
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
            while not stack.ready:
                assert drive(peer, stack, host)
            for count, (kind, data) in enumerate(
                [("text", b"hello"), ("binary", bytes(100_000)), ("binary", b"")], 1
            ):
                stack.send(data[:3], context(framer, kind), False)
                stack.send(data[3:], context(framer, kind), True)
                while len(host.messages) < count:
                    assert drive(peer, stack, host)
                received, got = host.messages[-1]
                assert received == data
                assert got.get(framer, "type") == kind
                assert got.get(framer, "subprotocol") == "echo"
            stack.stop()
            while not host.closed:
                assert drive(peer, stack, host)
            assert not drive(peer, stack, host)
            assert stack.eof()


@needs_websockets
@pytest.mark.peer
def test_a_real_client() -> None:
    stack, host, framer = end("server", subprotocols=["echo"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        with running(CLIENT, str(listener.getsockname()[1])) as process:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(PATIENCE)
                while not host.ended:
                    assert drive(peer, stack, host)
                    for data, got in host.messages:
                        stack.send(data, context(framer, got.get(framer, "type")), True)
                    host.messages.clear()
                stack.stop()
                assert host.closed
                peer.sendall(host.take())
            assert process.stdout.read() == b"all is well\n"


@pytest.mark.parametrize(
    ("options", "kind", "wrong"),
    [({"max_length": 9}, "binary", b"0123456789"), ({}, "text", b"\xff")],
)
def test_nothing_follows_a_message_that_has_left_without_its_end(
    options: Any, kind: str, wrong: bytes
) -> None:
    """It would be taken for the rest of that Message."""
    pair = Pair(options).ready()
    made = context(pair.client_framer, kind)
    with pytest.raises(FramingError):
        pair.client.send(wrong, made, True)
    pair.client.forget_sent()
    pair.client.send(b"whole", made, True)
    pair.client.send(b"begun", made, False)
    with pytest.raises(FramingError):
        pair.client.send(wrong, made, False)
    pair.client.forget_sent()
    for part in (b"rest", b"next"):
        with pytest.raises(FramingError, match="begun to leave"):
            pair.client.send(part, made, True)
    pair.pass_on()
    assert [data for data, _ in pair.server_host.messages] == [b"whole"]
