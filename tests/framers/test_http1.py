"""The HTTP/1.1 framer: bodies, their metadata, and curl and http.server as real peers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from greentaps.framers import DeframingError, FramerStack, FramingError, http1
from greentaps.framers.http1 import Http1Framer
from greentaps.testing_framers import FramerRecorder

PATIENCE = 20.0  # seconds


def end(role: Any, **options: Any) -> tuple[FramerStack, FramerRecorder, Http1Framer]:
    framer = Http1Framer(role, **options)
    host = FramerRecorder({"hostname": "example.org"})
    stack = FramerStack([framer], host)
    stack.start()
    return stack, host, framer


def context(framer: Http1Framer, **values: Any) -> Any:
    made = FramerRecorder().new_context()
    for key, value in values.items():
        made.add(framer, key, value)
    return made


# -- A client --


def test_requests() -> None:
    stack, host, framer = end("client")
    stack.send(b"", None, True)
    assert host.take() == b"GET / HTTP/1.1\r\nhost: example.org\r\n\r\n"
    stack, host, framer = end("client", host="other.example")
    stack.send(b"hi", context(framer, target="/x?y", headers=[("X-Y", "z")]), True)
    assert host.take() == (
        b"POST /x?y HTTP/1.1\r\nhost: other.example\r\nX-Y: z\r\ncontent-length: 2\r\n\r\nhi"
    )
    stack, host, framer = end("client")
    stack.send(b"", context(framer, method="PUT", headers=[(b"Host", b"h")]), True)
    assert host.take() == b"PUT / HTTP/1.1\r\nHost: h\r\ncontent-length: 0\r\n\r\n"


def test_a_request_in_parts_goes_in_chunks() -> None:
    stack, host, framer = end("client")
    stack.send(b"hello", None, False)
    stack.send(b"", None, False)
    stack.send(b"!", None, True)
    head, _, body = host.take().partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    stack, host, framer = end("client")
    given = context(framer, headers=[("content-length", "6")])
    stack.send(b"hello", given, False)
    stack.send(b"!", given, True)
    assert host.take().endswith(b"content-length: 6\r\n\r\nhello!")


def test_a_large_body_is_not_copied() -> None:
    written: list[Any] = []

    class Host(FramerRecorder):
        def write(self, data: Any) -> None:
            written.append(data)

    stack = FramerStack([Http1Framer("client", host="h")], Host())
    stack.start()
    body = bytearray(100_000)
    stack.send(body, None, True)
    assert any(data is body for data in written)


def test_responses() -> None:
    stack, host, framer = end("client")
    for _ in range(2):
        stack.send(b"", None, True)
        stack.feed(
            b"HTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 404 Not There\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nsorry"
        )
    assert [data for data, _ in host.messages] == [b"sorry", b"sorry"]
    got = host.messages[0][1]
    assert got.get(framer, "status") == 404
    assert got.get(framer, "reason") == "Not There"
    assert (b"content-type", b"text/plain") in got.get(framer, "headers")
    assert got.get(framer, "http_version") == "1.1"
    assert got.get(framer, "keep_alive") is True
    assert got.get(framer, "trailers") is None


def test_a_chunked_response_with_trailers() -> None:
    stack, host, framer = end("client")
    stack.send(b"", None, True)
    stack.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert host.pieces == [(b"abc", False)]
    stack.feed(b"2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")
    assert host.pieces == [(b"abc", False), (b"de", True)]
    assert host.messages[0][1].get(framer, "trailers") == [(b"x-sum", b"5")]


def test_the_end_of_the_stream_ends_a_response() -> None:
    stack, host, framer = end("client")
    stack.send(b"", None, True)
    stack.feed(b"HTTP/1.0 200 OK\r\n\r\nall there is")
    assert not host.messages
    assert stack.eof()
    assert [data for data, _ in host.messages] == [b"all there is"]
    assert host.messages[0][1].get(framer, "keep_alive") is False
    assert host.ended
    with pytest.raises(FramingError, match="no request can be sent"):
        stack.send(b"", None, True)


def test_a_response_to_head_has_no_body() -> None:
    stack, host, framer = end("client")
    stack.send(b"", context(framer, method="HEAD"), True)
    stack.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    assert [data for data, _ in host.messages] == [b""]


def test_requests_wait_for_their_turn() -> None:
    stack, host, _ = end("client")
    stack.send(b"", None, True)
    host.take()
    with pytest.raises(FramingError, match="must wait"):
        stack.send(b"", None, True)
    stack.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    stack.send(b"", None, True)
    assert host.take()


def test_a_server_that_closes() -> None:
    stack, host, framer = end("client")
    stack.send(b"", None, True)
    stack.feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nxrubbish")
    assert host.ended
    assert host.messages[0][1].get(framer, "keep_alive") is False
    stack.feed(b"more rubbish")
    assert host.error is None
    assert stack.held == 0
    with pytest.raises(FramingError):
        stack.send(b"", None, True)
    assert stack.eof()


@pytest.mark.parametrize(
    "response",
    [
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 20000,
    ],
)
def test_responses_that_make_no_sense(response: bytes) -> None:
    stack, host, _ = end("client")
    stack.send(b"", None, True)
    stack.feed(response)
    assert isinstance(host.error, DeframingError)


def test_requests_that_cannot_be_sent() -> None:
    for values in ({"target": "/a b"}, {"headers": [("a b", "c")]}, {"headers": [("a", "b\r\nc")]}):
        stack, _, framer = end("client")
        with pytest.raises(FramingError):
            stack.send(b"", context(framer, **values), True)
        stack.send(b"", None, True)
    stack, host, framer = end("client")
    host.properties.clear()
    with pytest.raises(FramingError, match="Host"):
        stack.send(b"", None, True)
    with pytest.raises(FramingError):
        stack.send(b"abc", context(framer, headers=[("host", "h"), ("content-length", "2")]), True)


# -- A server --

REQUEST = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


def test_a_request_and_its_response() -> None:
    stack, host, framer = end("server")
    stack.feed(REQUEST)
    data, got = host.messages[0]
    assert data == b""
    assert got.get(framer, "method") == "GET"
    assert got.get(framer, "target") == "/x"
    assert got.get(framer, "headers") == [(b"host", b"h")]
    stack.send(b"hi", None, True)
    assert host.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    stack.feed(REQUEST)
    stack.send(b"", context(framer, status=204), True)
    assert host.take() == b"HTTP/1.1 204 No Content\r\n\r\n"
    stack.feed(REQUEST)
    stack.send(b"", context(framer, status=799, reason="Odd"), True)
    assert host.take() == b"HTTP/1.1 799 Odd\r\ncontent-length: 0\r\n\r\n"
    with pytest.raises(FramingError, match="no request"):
        stack.send(b"", None, True)


def test_a_response_in_parts() -> None:
    stack, host, _ = end("server")
    stack.feed(REQUEST)
    stack.send(b"ab", None, False)
    stack.send(b"c", None, True)
    assert host.take().endswith(b"chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
    stack, host, framer = end("server")
    stack.feed(b"GET / HTTP/1.0\r\n\r\n")
    stack.send(b"ab", None, False)
    stack.send(b"c", None, True)
    assert host.take() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"
    assert host.messages[0][1].get(framer, "keep_alive") is False
    assert host.ended


def test_early_hints_and_head() -> None:
    stack, host, framer = end("server")
    stack.feed(REQUEST.replace(b"GET", b"HEAD"))
    stack.send(b"", context(framer, status=103), True)
    assert host.take() == b"HTTP/1.1 103 Early Hints\r\n\r\n"
    with pytest.raises(FramingError, match="no body"):
        stack.send(b"x", context(framer, status=103), True)
    stack.send(b"hello", None, True)
    assert host.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    stack.feed(REQUEST)
    assert len(host.messages) == 2


def test_requests_ahead_of_their_turn() -> None:
    stack, host, framer = end("server", max_ahead=100)
    stack.feed(REQUEST + b"POST /y HTTP/1.1\r\nHost: h\r\nContent-Le")
    assert len(host.messages) == 1
    stack.feed(b"ngth: 2\r\n\r\nhi" + REQUEST)
    assert len(host.messages) == 1
    stack.send(b"1", None, True)
    assert [data for data, _ in host.messages] == [b"", b"hi"]
    stack.send(b"2", None, True)
    assert [got.get(framer, "target") for _, got in host.messages] == ["/x", "/y", "/x"]
    stack.send(b"3", None, True)
    assert host.take().count(b"200 OK") == 3
    stack.feed(REQUEST)
    stack.feed(bytes(101))
    assert isinstance(host.error, DeframingError)


def test_a_client_that_sends_all_and_ends() -> None:
    stack, host, _ = end("server")
    stack.feed(REQUEST + REQUEST)
    assert stack.eof()
    stack.send(b"1", None, True)
    assert len(host.messages) == 2
    stack.send(b"2", None, True)
    assert host.ended
    stack, host, _ = end("server")
    stack.feed(REQUEST + REQUEST[:5])
    assert stack.eof()
    stack.send(b"1", None, True)
    assert isinstance(host.error, DeframingError)


def test_a_response_before_the_end_of_the_request() -> None:
    stack, host, _ = end("server")
    stack.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
    stack.send(b"", None, True)
    stack.feed(b"cd" + REQUEST)
    assert [data for data, _ in host.messages] == [b"abcd", b""]


def test_expect_100_continue() -> None:
    stack, host, _ = end("server")
    stack.feed(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert host.take().startswith(b"HTTP/1.1 100")
    stack.feed(b"ab")
    assert host.messages[0][0] == b"ab"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"b" * 20000, b"431"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n", b"400"),
    ],
)
def test_requests_that_make_no_sense_are_told_so(request_: bytes, status: bytes) -> None:
    stack, host, _ = end("server")
    stack.feed(request_)
    assert isinstance(host.error, DeframingError)
    assert host.take().startswith(b"HTTP/1.1 " + status)


def test_a_body_is_not_held() -> None:
    stack, host, _ = end("server")
    host.keep = False
    size = 2**26
    chunk = bytes(65536)
    tracemalloc.start()
    try:
        stack.feed(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(chunk)):
            stack.feed(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert host.error is None
    assert host.deliveries >= size // len(chunk)
    assert peak < 1_000_000
    stack.send(b"", None, True)


# -- CONNECT --


@pytest.mark.rfc("MF-08")
def test_connect_ends_in_passthrough() -> None:
    client, client_host, framer = end("client")
    server, server_host, server_framer = end("server")
    client.send(
        b"", context(framer, method="CONNECT", target="h:443", headers=[("host", "h:443")]), True
    )
    server.feed(client_host.take() + b"early")
    assert server_host.messages[0][1].get(server_framer, "method") == "CONNECT"
    server.send(b"", None, True)
    response = server_host.take()
    assert b"content-length" not in response
    assert server.passthrough
    assert server_host.passing
    assert server_host.pieces[1:] == [(b"early", False)]
    client.feed(response + b"tunnel")
    assert client.passthrough
    assert client_host.messages[0][1].get(framer, "status") == 200
    assert client_host.pieces[1:] == [(b"tunnel", False)]
    client.send(b"raw", None, True)
    assert client_host.take() == b"raw"


def test_connect_that_is_refused() -> None:
    client, client_host, framer = end("client")
    server, server_host, server_framer = end("server")
    given = context(framer, method="CONNECT", target="h:443", headers=[("host", "h:443")])
    for _ in range(2):
        client.send(b"", given, True)
        server.feed(client_host.take())
        server.send(b"no", context(server_framer, status=403), True)
        client.feed(server_host.take())
    assert [data for data, _ in client_host.messages] == [b"no", b"no"]
    assert not client.passthrough


# -- Construction --


def test_arguments() -> None:
    with pytest.raises(ValueError, match="role"):
        Http1Framer("proxy")  # type: ignore[arg-type]


def test_without_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h11", None)
    with pytest.raises(ImportError, match=r"greentaps\[http\]"):
        Http1Framer("client")
    assert http1.Http1Framer is Http1Framer


# -- Real peers --


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(range(256)) * 8192)  # 2 MiB: curl waits for "100 Continue"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        curl = subprocess.Popen(
            [
                *("curl", "--silent", "--show-error", "--max-time", str(PATIENCE)),
                *("--noproxy", "*", "--upload-file", str(upload), f"{base}/one"),
                *("--next", "--silent", "--noproxy", "*", f"{base}/two"),
                *("--next", "--silent", "--noproxy", "*", "--head", f"{base}/three"),
                *("--next", "--silent", "--noproxy", "*", "--data", "abc"),
                *("--header", "Transfer-Encoding: chunked", f"{base}/four"),
            ],
            stdout=subprocess.PIPE,
        )
        framer = Http1Framer("server")
        connections = 0
        seen: list[tuple[str, str, int]] = []
        try:
            while len(seen) < 4:
                peer, _ = listener.accept()
                connections += 1
                with peer:
                    peer.settimeout(PATIENCE)
                    _serve(peer, framer, seen)
            output, _ = curl.communicate(timeout=PATIENCE)
        finally:
            curl.kill()
            curl.wait()
    assert curl.returncode == 0
    assert connections == 1
    assert seen == [
        ("PUT", "/one", 2**21),
        ("GET", "/two", 0),
        ("HEAD", "/three", 0),
        ("POST", "/four", 3),
    ]
    assert output.startswith(b"you are at /oneyou are at /twoHTTP/1.1 200 OK\r\n")
    assert output.endswith(b"you are at /four")


def _serve(peer: socket.socket, framer: Http1Framer, seen: list[tuple[str, str, int]]) -> None:
    """Answer requests, every other response in parts, until the client ends."""
    host = FramerRecorder()
    stack = FramerStack([framer], host)
    stack.start()
    while data := peer.recv(65536):
        stack.feed(data)
        assert host.error is None
        for body, got in host.messages:
            target = got.get(framer, "target")
            seen.append((got.get(framer, "method"), target, len(body)))
            parts = [b"you are at ", target.encode()]
            if len(seen) % 2:
                stack.send(parts[0], None, False)
                stack.send(parts[1], None, True)
            else:
                stack.send(b"".join(parts), None, True)
        host.messages.clear()
        peer.sendall(host.take())
    assert stack.eof()


SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])
    def log_message(self, *arguments):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.handle_request()
"""


@pytest.mark.peer
def test_a_real_server() -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        stack, host, framer = end("client")
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
            for count in range(1, 4):
                body = bytes(range(256)) * 1000 * count
                stack.send(body, None, True)
                peer.sendall(host.take())
                while len(host.messages) < count:
                    data = peer.recv(65536)
                    assert data
                    stack.feed(data)
                    assert host.error is None
                received, got = host.messages[-1]
                assert received == body[::-1]
                assert got.get(framer, "status") == 201
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
