"""What the conformance tests stand on: a log of events, and a network of two hosts.

The two hosts are network namespaces of this very process: a socket belongs to the namespace that
the thread is in when it is made, so a test can hold both ends, cut the cable between them, and
needs no second process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from gevent import socket as gsocket
from greentaps import (
    Connection,
    Listener,
    Preconnection,
    RemoteEndpoint,
    TransportProperties,
)
from taps.helpers import HERE, local, port_of, remote

EVENTS = (
    "ready",
    "establishment_error",
    "sent",
    "expired",
    "send_error",
    "received",
    "received_partial",
    "receive_error",
    "closed",
    "connection_error",
    "clone_error",
    "soft_error",
    "path_change",
)
LAST = {"closed", "connection_error", "establishment_error"}


class Log(list[tuple[Any, ...]]):
    """The events of an object in their order, each as (name, what the handler got...)."""

    def __init__(self, subject: Any, names: tuple[str, ...] = EVENTS) -> None:
        super().__init__()
        for name in names:
            getattr(subject, f"on_{name}")(self._noting(name))

    def _noting(self, name: str) -> Any:
        return lambda _subject, *args: self.append((name, *args))

    @property
    def names(self) -> list[str]:
        return [event[0] for event in self]

    @property
    def ended(self) -> bool:
        return bool(self) and self[-1][0] in LAST

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self if event[0] == name]


def datagrams() -> TransportProperties:
    return TransportProperties("unreliable-datagram")


def listening(
    properties: TransportProperties | None = None, *, of: Preconnection | None = None
) -> Listener:
    return (of or Preconnection(local(), transport_properties=properties)).listen()


def towards(listener: Listener, properties: TransportProperties | None = None) -> Preconnection:
    return Preconnection(remote_endpoint=remote(port_of(listener)), transport_properties=properties)


@contextlib.contextmanager
def joined(
    ours: TransportProperties | None = None, theirs: TransportProperties | None = None
) -> Iterator[tuple[Connection, Connection]]:
    """A client's and a server's Connection over TCP, aborted at the end."""
    with listening(theirs) as listener:
        client = towards(listener, ours).initiate(timeout=10)
        server = listener.accept(timeout=10)
    try:
        yield client, server
    finally:
        client.abort()
        server.abort()


@contextlib.contextmanager
def datagram_peer(
    properties: TransportProperties | None = None,
) -> Iterator[tuple[Connection, gsocket.socket]]:
    """A Connection over UDP, and the plain socket at its other end."""
    with gsocket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(20)
        peer.bind((HERE, 0))
        connection = Preconnection(
            remote_endpoint=remote(peer.getsockname()[1]),
            transport_properties=properties or datagrams(),
        ).initiate(timeout=10)
        try:
            yield connection, peer
        finally:
            connection.abort()


def option(connection: Connection, level: int, name: int) -> int:
    """What the socket below *connection* says."""
    handle = connection.transport.get_extra_info("handle")
    with socket.socket(fileno=os.dup(handle.fileno())) as probe:
        return probe.getsockopt(level, name)


# -- Networks --

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """Two hosts and the cable between them.  The test runs on the first.

    *here* is 192.0.2.1, 2001:db8::1 and fe80::1 on the interface ``here0``, *there* is 192.0.2.2,
    2001:db8::2 and fe80::2 on ``there0``.
    """

    HERE = "192.0.2.1"
    THERE = "192.0.2.2"
    HERE6 = "2001:db8::1"
    THERE6 = "2001:db8::2"

    def __init__(self, here: int, there: int) -> None:
        self._here = here
        self._there = there

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """Sockets that are made in this block belong to the other host.  It must not switch."""
        _enter(self._there)
        try:
            yield
        finally:
            _enter(self._here)

    def cut(self) -> None:
        """Pull the cable, so that neither end hears of it."""
        with self.there():
            ip("link set there0 down")

    def remote(self, port: int) -> RemoteEndpoint:
        return remote(port, self.THERE)


def ip(*commands: str) -> str:
    """Run these; returns what they say."""
    return "".join(
        subprocess.run(
            ["ip", *command.split()], check=True, timeout=20, stdout=subprocess.PIPE, text=True
        ).stdout
        for command in commands
    )


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _new_namespace() -> int:
    if _libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A `Network`, entered; skips the test where none can be made."""
    if os.geteuid():
        pytest.skip("making network namespaces needs root")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    opened = [before]
    try:
        try:
            opened += [_new_namespace(), _new_namespace()]
            there, here = opened[1:]
            ip("link add here0 type veth peer name there0")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        ip(
            f"link set there0 netns /proc/{os.getpid()}/fd/{there}",
            "link set lo up",
            "addr add 192.0.2.1/24 dev here0",
            "-6 addr add 2001:db8::1/64 dev here0 nodad",
            "-6 addr add fe80::1/64 dev here0 nodad",
            "link set here0 up",
        )
        made = Network(here, there)
        with made.there():
            ip(
                "link set lo up",
                "addr add 192.0.2.2/24 dev there0",
                "-6 addr add 2001:db8::2/64 dev there0 nodad",
                "-6 addr add fe80::2/64 dev there0 nodad",
                "link set there0 up",
            )
        deadline = time.monotonic() + 20
        while "LOWER_UP" not in ip("link show here0"):
            assert time.monotonic() < deadline, "the cable has no carrier"
        yield made
    finally:
        _enter(before)
        for descriptor in opened:
            os.close(descriptor)


def plain(address: str, kind: int = socket.SOCK_STREAM, port: int = 0) -> gsocket.socket:
    """A plain socket, bound to *address*; a stream's listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = gsocket.socket(family, kind)
    made.settimeout(20)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind == socket.SOCK_STREAM:
        made.listen(16)
    return made
