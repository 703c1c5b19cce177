"""Connections of all kinds for the tests: pairs of ours, and ours with a plain socket at the end.

Plain sockets are gevent's, so that a test can hold both ends in one process; what only shows with
a process of its own is tested with one.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from conftest import Certificates
from gevent import socket as gsocket
from greentaps import (
    Connection,
    Framer,
    Listener,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
)
from greentaps.hub import get_runner

HERE = "127.0.0.1"
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: close with a reset


def local(port: int | str = 0, address: str = HERE) -> LocalEndpoint:
    return LocalEndpoint().with_ip_address(address).with_port(port)


def remote(port: int | str, address: str = HERE) -> RemoteEndpoint:
    return RemoteEndpoint().with_ip_address(address).with_port(port)


def securities(
    stack: str, certificates: Certificates, name: str = "server"
) -> tuple[SecurityParameters | None, SecurityParameters | None]:
    """The Security Parameters of a client and of a server for *stack*."""
    if stack == "tcp":
        return None, None
    return (
        SecurityParameters().add_trust_ca(certificates.ca),
        SecurityParameters().add_identity(getattr(certificates, name), role="server"),
    )


def with_framers(preconnection: Preconnection, framers: tuple[Framer, ...]) -> Preconnection:
    for framer in framers:
        preconnection.add_framer(framer)
    return preconnection


def port_of(listener: Listener) -> int:
    port = listener.local_endpoints[0].port
    assert port
    return port


@contextlib.contextmanager
def pair(
    stack: str, certificates: Certificates, *framers: Framer
) -> Iterator[tuple[Connection, Connection]]:
    """A client's and a server's Connection; aborted at the end if they are still there."""
    ours, theirs = securities(stack, certificates)
    listening = with_framers(Preconnection(local(), security_parameters=theirs), framers)
    with listening.listen() as listener:
        client = with_framers(
            Preconnection(remote_endpoint=remote(port_of(listener)), security_parameters=ours),
            framers,
        ).initiate(timeout=10)
        server = listener.accept(timeout=10)
    try:
        yield client, server
    finally:
        client.abort()
        server.abort()


@contextlib.contextmanager
def plain_listener(backlog: int = 16, *, small: bool = False) -> Iterator[gsocket.socket]:
    """A gevent socket that listens, with small buffers if asked for."""
    with gsocket.socket() as listener:
        if small:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        listener.bind((HERE, 0))
        listener.listen(backlog)
        listener.settimeout(20)
        yield listener


@contextlib.contextmanager
def with_plain_peer(
    *framers: Framer, small: bool = False
) -> Iterator[tuple[Connection, gsocket.socket]]:
    """A Connection of ours, and the plain socket at its other end."""
    with plain_listener(small=small) as listener:
        connection = with_framers(
            Preconnection(remote_endpoint=remote(listener.getsockname()[1])), framers
        ).initiate(timeout=10)
        peer, _ = listener.accept()
    peer.settimeout(20)
    try:
        yield connection, peer
    finally:
        connection.abort()
        peer.close()


def plain_client(port: int, address: str = HERE) -> gsocket.socket:
    """A plain socket connected to *port*."""
    return gsocket.create_connection((address, port), timeout=20)


def reset(peer: Any) -> None:
    """Close *peer* so that the other end sees a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()


def read_all(peer: gsocket.socket) -> bytes:
    """Read a plain socket to its end."""
    pieces = []
    while piece := peer.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def read_exactly(peer: gsocket.socket, size: int) -> bytes:
    """Read *size* bytes from a plain socket."""
    pieces = []
    while size:
        piece = peer.recv(min(size, 65536))
        assert piece, "the end came too early"
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def ended_by_us(peer: gsocket.socket) -> bool:
    """Wait until the other end of a plain socket is gone, in whatever way."""
    try:
        while peer.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """A port of this machine where nobody answers: a listener whose backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HERE, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        while True:
            filler = stack.enter_context(gsocket.socket())
            filler.settimeout(0.05)
            try:
                filler.connect((HERE, port))
            except TimeoutError:
                break
        yield port


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


class Stopwatch:
    """How long something took: ``with Stopwatch() as took: ...``, then ``took.seconds``."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._begun = time.monotonic()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = time.monotonic() - self._begun


def in_greenlet(function: Callable[..., Any], *args: Any, **kwargs: Any) -> gevent.Greenlet:
    """Run *function* in a greenlet, up to its first wait; ``outcome`` gives how it ended."""
    greenlet = gevent.spawn(outcome, function, *args, **kwargs)
    gevent.sleep(0)
    return greenlet


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What *function* returns, or the exception that it raises."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return error


def owned() -> int:
    """How many transports, listeners and attempts are open here."""
    return sum(type(owner).__name__ != "_Watcher" for owner in get_runner().owners)


def until(condition: Callable[[], Any]) -> None:
    """Let the loop turn until *condition*: for what nobody can wait on.  The test's own limit
    ends it."""
    while not condition():
        gevent.sleep(0.001)
