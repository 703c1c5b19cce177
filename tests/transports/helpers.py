"""Pairs of connected transports, TLS contexts of both engines, and peers in other processes."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyuv
from conftest import Certificates
from gevent.socket import wait_read, wait_write
from greentaps.engines import make_engine
from greentaps.hub import get_runner
from greentaps.testing import PATIENCE, memory_pair
from greentaps.transports import SslTransport, Transport
from OpenSSL import SSL

# A libuv from before it told a failed write at once: there the error comes a turn later, and a
# peer that closes a Unix socket behind its last word can be taken for one that broke it.
OLD_LIBUV = tuple(map(int, pyuv.LIBUV_VERSION.split("-")[0].split("."))) < (1, 43)


ENGINES = ("stdlib", "pyopenssl")
TLS12 = ssl.TLSVersion.TLSv1_2
# Small socket buffers make a peer that does not read felt soon.
SMALL = 16384


# -- Plain pairs --


def tcp_sockets(*, small: bool = False) -> tuple[socket.socket, socket.socket]:
    """A connected pair of TCP sockets: client and server."""
    with socket.socket() as listener:
        if small:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = socket.socket()
        if small:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    if small:
        for end in (client, server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    return client, server


def tcp_handle(sock: socket.socket) -> Any:
    """A pyuv.TCP that takes over *sock*."""
    handle = pyuv.TCP(get_runner().loop)
    handle.open(sock.detach())
    return handle


def pipe_handle(sock: socket.socket, ipc: bool = False) -> Any:
    """A pyuv.Pipe that takes over *sock*."""
    sock.setblocking(False)
    handle = pyuv.Pipe(get_runner().loop, ipc)
    handle.open(sock.detach())
    return handle


def tcp_pair() -> tuple[Transport, Transport]:
    one, two = tcp_sockets()
    return Transport(tcp_handle(one)), Transport(tcp_handle(two))


def small_tcp_pair() -> tuple[Transport, Transport]:
    one, two = tcp_sockets(small=True)
    return Transport(tcp_handle(one)), Transport(tcp_handle(two))


def socketpair_pair() -> tuple[Transport, Transport]:
    one, two = socket.socketpair()
    return Transport(pipe_handle(one)), Transport(pipe_handle(two))


@contextlib.contextmanager
def path_pair() -> Iterator[tuple[Transport, Transport]]:
    """A Pipe that was connected by its path."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
            server, _ = listener.accept()
        yield Transport(pipe_handle(client)), Transport(pipe_handle(server))


def small_memory_pair() -> Any:
    return memory_pair(capacity=4096)


PLAIN: dict[str, Callable[[], Any]] = {
    "memory": memory_pair,
    "memory with capacity": small_memory_pair,
    "tcp": tcp_pair,
    "tcp with small buffers": small_tcp_pair,
    "socketpair": socketpair_pair,
    "path": path_pair,
}


# -- TLS --


def server_context(
    engine: str, certificates: Certificates, name: str = "server", *, highest: Any = None
) -> Any:
    """A server's context with the certificate *name*, up to the version *highest*."""
    pem = str(getattr(certificates, name))
    if engine == "stdlib":
        context: Any = certificates.server_context(name)
        if highest is not None:
            context.maximum_version = highest
        return context
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate_chain_file(pem)
    context.use_privatekey_file(pem)
    if highest is not None:
        context.set_max_proto_version(highest.value)
    return context


def client_context(engine: str, certificates: Certificates, *, highest: Any = None) -> Any:
    """A client's context that trusts our authority and nobody else."""
    if engine == "stdlib":
        context: Any = certificates.client_context()
        if highest is not None:
            context.maximum_version = highest
        return context
    context = SSL.Context(SSL.TLS_METHOD)
    context.load_verify_locations(str(certificates.ca))
    context.set_verify(SSL.VERIFY_PEER)
    if highest is not None:
        context.set_max_proto_version(highest.value)
    return context


def tls_pair(
    certificates: Certificates,
    client: str = "stdlib",
    server: str = "stdlib",
    *,
    lower: Callable[[], Any] = memory_pair,
    highest: Any = None,
    certificate: str = "server",
    hostname: str | None = "localhost",
    client_options: dict[str, Any] | None = None,
    server_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[SslTransport, SslTransport]:
    """Client and server, not started, over a pair made by *lower*."""
    one, two = lower()
    return (
        SslTransport(
            one,
            client_context(client, certificates),
            False,
            hostname,
            **options,
            **(client_options or {}),
        ),
        SslTransport(
            two,
            server_context(server, certificates, certificate, highest=highest),
            True,
            **options,
            **(server_options or {}),
        ),
    )


# -- Peers --


def receive_all(sock: socket.socket, patience: float = PATIENCE) -> bytes:
    """Read a plain socket to its end, letting greenlets run meanwhile.  May raise OSError."""
    pieces = []
    while True:
        wait_read(sock.fileno(), patience, TimeoutError("nothing came"))
        piece = sock.recv(65536)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def receive_some(sock: socket.socket, size: int, patience: float = PATIENCE) -> bytes:
    """Read at least *size* bytes from a plain socket."""
    data = b""
    while len(data) < size:
        wait_read(sock.fileno(), patience, TimeoutError(f"only {data!r} came"))
        piece = sock.recv(65536)
        if not piece:
            break
        data += piece
    return data


class Process:
    """A program in another process, spoken to through its pipes; killed at the end."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.output = b""

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream.close()

    def say(self, data: bytes) -> None:
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def end_input(self) -> None:
        self._process.stdin.close()

    def read_until(self, wanted: bytes, patience: float = PATIENCE) -> bytes:
        """Read its output until *wanted* is in it."""
        descriptor = self._process.stdout.fileno()
        while wanted not in self.output:
            wait_read(descriptor, patience, TimeoutError(f"no {wanted!r} in {self.output!r}"))
            piece = os.read(descriptor, 65536)
            if not piece:
                raise EOFError(f"no {wanted!r} in {self.output!r}")
            self.output += piece
        return self.output

    def read_all(self, patience: float = PATIENCE) -> bytes:
        """Read its output to the end."""
        descriptor = self._process.stdout.fileno()
        while True:
            wait_read(descriptor, patience, TimeoutError(f"no end after {self.output!r}"))
            piece = os.read(descriptor, 65536)
            if not piece:
                return self.output
            self.output += piece


class RawTls:
    """The other end of a TLS connection, driven by hand: an engine over a plain socket."""

    def __init__(
        self, sock: socket.socket, context: Any, server_side: bool, hostname: str | None = None
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.engine = make_engine(context, server_side, hostname)
        self._context = context
        self._server_side = server_side

    def __enter__(self) -> RawTls:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        self.send_raw(self.engine.drain())

    def send_raw(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                wait_write(self.sock.fileno(), PATIENCE, TimeoutError("cannot send"))

    def receive_raw(self) -> bytes:
        """The next chunk as it is; ``b""`` at the end of the stream."""
        wait_read(self.sock.fileno(), PATIENCE, TimeoutError("nothing came"))
        return self.sock.recv(65536)

    def handshake(self) -> None:
        while not self.engine.handshake():
            self.flush()
            data = self.receive_raw()
            if not data:
                raise EOFError("end of the stream in the handshake")
            self.engine.feed(data)
        self.flush()

    def send(self, data: bytes) -> None:
        self.engine.write(data)
        self.flush()

    def receive(self, size: int) -> bytes:
        """*size* bytes of plaintext, or less if a close_notify comes first."""
        data = b""
        while len(data) < size:
            piece = self.engine.read()
            if piece is None:
                break
            if piece:
                data += piece
                continue
            raw = self.receive_raw()
            if not raw:
                raise EOFError(f"the stream ended after {data!r}")
            self.engine.feed(raw)
        return data

    def goodbye(self) -> bytes:
        """Our close_notify, not sent yet."""
        self.engine.shutdown()
        return self.engine.drain()

    def again(self) -> None:
        """A new session, after the old one was ended."""
        self.engine = make_engine(self._context, self._server_side, None)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
