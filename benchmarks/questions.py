"""What is compared with what: the table of contenders and the table of questions.  Pure.

A `Question` is one run: its contenders take turns within each round, so their figures belong
together, and those of different questions belong together less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["CONTENDERS", "Contender", "Question", "contender", "questions", "title_of"]

Unit = Literal[
    "request", "datagram", "connection", "handshake", "GB", "idle connection", "establishment"
]
Shape = Literal["load", "initiate", "memory", "idle"]


@dataclass(frozen=True)
class Contender:
    """One bar of the chart.  *program* is limit, servers or initiators; *words* are for it."""

    name: str
    title: str
    program: str
    words: tuple[str, ...] = ()
    ours: bool = False
    framers: int = 0


def _server(name: str, title: str, *words: str, framers: int = 0, ours: bool = False) -> Contender:
    if framers:
        words = (*words, "--framers", str(framers))
    return Contender(name, title, "servers", words, ours, framers)


def _ours(name: str, title: str, *words: str, framers: int = 0) -> Contender:
    return _server(name, title, *words, framers=framers, ours=True)


def _initiator(name: str, title: str, *words: str, ours: bool = False) -> Contender:
    return Contender(name, title, "initiators", words, ours)


_PYOPENSSL = ("--engine", "pyopenssl")

CONTENDERS: dict[str, Contender] = {
    each.name: each
    for each in (
        Contender("c", "C, epoll (the limit)", "limit"),
        _ours("protocol", "greentaps Protocol", "greentaps-protocol"),
        _ours("server", "greentaps Server, greenlet", "greentaps-server"),
        _ours("connection", "greentaps Connection", "greentaps-connection"),
        _ours("framer", "greentaps Connection, framer", "greentaps-connection", framers=1),
        _ours("framers2", "greentaps Connection, 2 framers", "greentaps-connection", framers=2),
        _ours("framers4", "greentaps Connection, 4 framers", "greentaps-connection", framers=4),
        _ours(
            "protocol-pyopenssl",
            "greentaps Protocol, pyOpenSSL",
            "greentaps-protocol",
            *_PYOPENSSL,
        ),
        _ours(
            "connection-pyopenssl",
            "greentaps Connection, pyOpenSSL",
            "greentaps-connection",
            *_PYOPENSSL,
        ),
        _ours("datagram", "greentaps DatagramTransport", "greentaps-datagram"),
        _ours("datagram-connection", "greentaps Connection, UDP", "greentaps-datagram-connection"),
        _server("gevent", "gevent server", "gevent"),
        _server("gevent-socket", "gevent socket", "gevent-socket"),
        _server("uvloop-protocol", "uvloop protocol", "uvloop-protocol"),
        _server("uvloop-streams", "uvloop streams", "uvloop-streams"),
        _server("asyncio-protocol", "asyncio protocol", "asyncio-protocol"),
        _server("asyncio-streams", "asyncio streams", "asyncio-streams"),
        _server("trio", "trio", "trio"),
        _initiator("connect", "the socket module (the limit)", "socket"),
        _initiator("connect-gevent", "gevent socket", "gevent"),
        _initiator("connect-uvloop", "uvloop streams", "uvloop-streams"),
        _initiator("connect-asyncio", "asyncio streams", "asyncio-streams"),
        _initiator("connect-trio", "trio", "trio"),
        _initiator("client", "greentaps Client", "greentaps-protocol", ours=True),
        _initiator("initiate", "greentaps initiate()", "greentaps-connection", ours=True),
        _initiator("memory-send", "ssl in memory, encrypting", "send-in-memory", "stdlib"),
        _initiator("memory-receive", "ssl in memory, decrypting", "receive-in-memory", "stdlib"),
        _initiator(
            "memory-send-pyopenssl",
            "pyOpenSSL in memory, encrypting",
            "send-in-memory",
            "pyopenssl",
        ),
        _initiator(
            "memory-receive-pyopenssl",
            "pyOpenSSL in memory, decrypting",
            "receive-in-memory",
            "pyopenssl",
        ),
    )
}

_ECHO = (
    "c protocol server connection framer gevent uvloop-protocol uvloop-streams asyncio-protocol "
    "asyncio-streams trio"
)
_TLS = (
    "protocol connection protocol-pyopenssl connection-pyopenssl gevent uvloop-protocol "
    "uvloop-streams asyncio-protocol asyncio-streams"
)
_UDP = "c datagram datagram-connection gevent gevent-socket uvloop-protocol asyncio-protocol trio"
_BULK = "c protocol connection gevent uvloop-protocol uvloop-streams asyncio-streams"
_BULK_TLS = "protocol connection connection-pyopenssl gevent uvloop-protocol asyncio-streams"
_ACCEPT = "c protocol connection gevent uvloop-protocol uvloop-streams asyncio-streams trio"
_INITIATE = "connect client initiate connect-gevent connect-uvloop connect-asyncio connect-trio"
_GROWTH = "c protocol connection gevent uvloop-protocol"

_SIZES = {64: "64 B", 512: "512 B", 1024: "1 KiB", 4096: "4 KiB", 16384: "16 KiB"}
_SIZES |= {65536: "64 KiB", 262144: "256 KiB", 1 << 20: "1 MiB"}
COUNTS = {1: "1 connection", 10: "10 connections", 100: "100 connections"}


@dataclass(frozen=True)
class Question:
    """One run.

    A contender may be "NAME@N": with N connections instead of the question's.  *number* is that
    of the list in docs/performance.rst.  *mode* is one of load.c's, *role* one of
    the servers'.  Of *connections*, *active* have something to say (0: all).  *size* is that of a
    message or a piece (bytes), *most* bounds how many units a turn may have.
    """

    key: str
    number: int
    title: str
    contenders: tuple[str, ...]
    mode: str = "tcp"
    role: str = "echo"
    size: int = 1024
    connections: int = 100
    active: int = 0
    tls: bool = False
    resume: bool = False
    unit: Unit = "request"
    shape: Shape = "load"
    short: bool = False
    chart: bool = False
    first: int = 200
    most: int = 1_000_000

    def connections_of(self, name: str) -> int:
        """How many connections the contender *name* has."""
        _, _, count = name.partition("@")
        return int(count) if count else self.connections


def contender(name: str) -> Contender:
    """The contender called *name*, or "NAME@N"."""
    return CONTENDERS[name.partition("@")[0]]


def title_of(name: str) -> str:
    """What to call it in a table."""
    _, _, count = name.partition("@")
    title = contender(name).title
    return f"{title}, {count} connections" if count else title


def _question(key: str, number: int, title: str, contenders: str, **more: object) -> Question:
    return replace(Question(key, number, title, tuple(contenders.split())), **more)  # type: ignore[arg-type]


def _sized(size: int, connections: int) -> str:
    return f"{_SIZES[size]}, {COUNTS.get(connections, f'{connections} connections')}"


def _echoes() -> list[Question]:
    found = []
    for size in (64, 1024, 65536):
        for connections in (1, 100, 1000):
            main = size == 1024 and connections == 100
            found.append(
                _question(
                    f"echo-{size}-{connections}",
                    1,
                    f"Echo over TCP, {_sized(size, connections)}",
                    _ECHO,
                    size=size,
                    connections=connections,
                    short=main,
                    chart=main,
                )
            )
    return found


def _secure() -> list[Question]:
    found = [
        _question(
            f"tls-{size}-{connections}",
            2,
            f"Echo over TLS, {_sized(size, connections)}",
            _TLS,
            size=size,
            connections=connections,
            tls=True,
            short=size == 1024,
            chart=size == 1024,
        )
        for size, connections in ((64, 100), (1024, 100), (65536, 100), (1024, 1))
    ]
    found[-1] = replace(found[-1], short=False, chart=False)
    for resume in (False, True):
        kind = "resumed" if resume else "full"
        found.append(
            _question(
                f"handshake-{kind}",
                2,
                f"TLS handshakes, {kind}, with one echo of 64 B",
                _TLS,
                mode="connect",
                size=64,
                connections=20,
                tls=True,
                resume=resume,
                unit="handshake",
                first=40,
                most=3000,
            )
        )
    return found


def _datagrams() -> list[Question]:
    return [
        _question(
            f"udp-512-{connections}",
            3,
            f"Echo over UDP, {_SIZES[512]}, {connections} peer{'s' if connections > 1 else ''}",
            _UDP,
            mode="udp",
            role="udp",
            size=512,
            connections=connections,
            unit="datagram",
            short=connections == 100,
            chart=connections == 100,
        )
        for connections in (1, 100)
    ]


def _bulk() -> list[Question]:
    found = [
        _question(
            f"{'tls-' if tls else ''}bulk-{who}-{size}",
            4,
            f"Bulk one way, {'TLS' if tls else 'TCP'}, {_SIZES[size]}, the {who}",
            _BULK_TLS if tls else _BULK,
            mode=role,
            role=role,
            size=size,
            connections=1,
            tls=tls,
            unit="GB",
            first=20_000_000,
            most=2_000_000_000,
            short=tls and size == 65536,
        )
        for tls in (False, True)
        for role, who in (("source", "sender"), ("sink", "receiver"))
        for size in (65536, 1 << 20)
    ]
    found.append(
        _question(
            "tls-memory",
            4,
            f"TLS in memory, {_SIZES[65536]}, without any connection",
            "memory-send memory-receive memory-send-pyopenssl memory-receive-pyopenssl",
            shape="memory",
            size=65536,
            unit="GB",
            first=20_000_000,
            most=300_000_000,
            short=True,
        )
    )
    return found


def _coming_and_going() -> list[Question]:
    return [
        _question(
            "accept",
            5,
            "Connections accepted, echoed (64 B) and closed, 20 at a time",
            _ACCEPT,
            mode="connect",
            size=64,
            connections=20,
            unit="connection",
            first=100,
            most=10_000,
            short=True,
            chart=True,
        ),
        _question(
            "initiate",
            5,
            "Connections initiated and closed, one after the other",
            _INITIATE,
            shape="initiate",
            unit="connection",
            first=50,
            most=4_000,
            short=True,
        ),
        _question(
            "ready",
            5,
            "Time until a connection is ready, one after the other",
            "connect client initiate connect-gevent",
            shape="initiate",
            size=0,
            unit="establishment",
            first=50,
            most=4_000,
        ),
        *(
            _question(
                f"idle-{connections}",
                5,
                f"Memory of an idle connection that has echoed once, of {connections}",
                _ACCEPT,
                shape="idle",
                size=64,
                connections=connections,
                unit="idle connection",
                short=connections == 1000,
                chart=connections == 1000,
            )
            for connections in (1000, 5000, 15000)
        ),
    ]


def _growth() -> list[Question]:
    found = [
        _question(
            f"growth-{connections}",
            6,
            f"Echo over TCP, 1 KiB, {active} active of {connections} connections",
            _GROWTH,
            connections=connections,
            active=active,
        )
        for connections, active in ((100, 1), (1000, 10), (10_000, 100))
    ]
    found.append(
        _question(
            "idle-10000",
            6,
            "Echo over TCP, 1 KiB, 100 active connections, alone and beside 10 000 idle ones",
            " ".join(f"{name}@100 {name}@10100" for name in _GROWTH.split()),
            active=100,
        )
    )
    found += [
        _question(
            f"size-{size}",
            6,
            f"Echo over TCP by size: {_sized(size, 10)}",
            "c protocol connection framer",
            size=size,
            connections=10,
        )
        for size in (64, 512, 4096, 16384, 65536, 262144)
    ]
    found.append(
        _question(
            "framers",
            6,
            "Echo over TCP by framers: 1 KiB, 100 connections",
            "connection framer framers2 framers4",
        )
    )
    return found


def questions() -> list[Question]:
    """All of them, in the order of their numbers."""
    return [*_echoes(), *_secure(), *_datagrams(), *_bulk(), *_coming_and_going(), *_growth()]
