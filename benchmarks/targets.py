"""The ratios that greentaps means to reach, and what stands in the way of those that it does not.

Pure.  Each is a ratio of two figures of one question (or of two questions of one run).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .figures import median, ratio

__all__ = ["TARGETS", "Outcome", "Target", "outcomes"]

Place = tuple[str, str]  # a question's key, a contender's name


@dataclass(frozen=True)
class Target:
    """*top* / *bottom* should be *limit* at most, better still *stretch*; with *at_least* those are
    the other way round.  *why* is what we know about it if it is not met."""

    what: str
    top: Place
    bottom: Place
    limit: float
    stretch: float
    at_least: bool = False
    why: str = ""


_TCP, _TLS, _UDP = "echo-1024-100", "tls-1024-100", "udp-512-100"

TARGETS: tuple[Target, ...] = (
    Target(
        "Protocol callbacks / uvloop protocol",
        (_TCP, "protocol"),
        (_TCP, "uvloop-protocol"),
        1.0,
        0.9,
        why="the kernel's part is the same for both, and most of it. Outside of the kernel "
        "Protocol takes 5 900 instructions for a request and uvloop 4 200",
    ),
    Target(
        "Connection, no framer / uvloop streams",
        (_TCP, "connection"),
        (_TCP, "uvloop-streams"),
        0.9,
        0.65,
        why="the kernel's part is the same for both, and most of it. Outside of the kernel a "
        "request takes 29 000 instructions, and 24 900 with uvloop. 5 900 of ours are the "
        "transport's; parking and waking a greenlet, the request and the Message are the "
        "rest. Tried: to use the request object again, to make Messages without a Python "
        "call, and to check the thread more cheaply; together 24 700",
    ),
    Target(
        "Connection, no framer / gevent",
        (_TCP, "connection"),
        (_TCP, "gevent"),
        0.65,
        0.5,
        why="the kernel's part is most of both. gevent takes 21 800 instructions outside of it, "
        "we take 29 000, and we win by system calls. For what was tried see the line above",
    ),
    Target(
        "Connection, no framer / C epoll",
        (_TCP, "connection"),
        (_TCP, "c"),
        2.5,
        1.75,
    ),
    Target(
        "Connection, length framer / no framer",
        (_TCP, "framer"),
        (_TCP, "connection"),
        1.25,
        1.1,
    ),
    Target(
        "TLS echo: Connection, stdlib engine / gevent.ssl",
        (_TLS, "connection"),
        (_TLS, "gevent"),
        0.65,
        0.5,
        why="a request takes 67 000 instructions outside of the kernel, ciphers included, and "
        "50 000 with gevent.ssl, which lets OpenSSL read from the socket. 43 000 are those "
        "of Protocol over TLS; the rest is what a Connection takes over TCP as well",
    ),
    Target(
        "TLS echo: Connection, pyOpenSSL engine / gevent.ssl",
        (_TLS, "connection-pyopenssl"),
        (_TLS, "gevent"),
        0.9,
        0.75,
        why="a request takes 130 000 instructions outside of the kernel, 63 000 more than with "
        "the stdlib engine: each call of pyOpenSSL passes Python and cffi, and two of them "
        "end in an exception that says that there is no more. Tried: to ask the BIOs first "
        "how much they hold, which saves the exceptions; 116 000",
    ),
    Target(
        "TLS bulk, sender: throughput / stdlib engine in memory",
        ("tls-memory", "memory-send"),
        ("tls-bulk-sender-65536", "connection"),
        0.6,
        0.8,
        at_least=True,
        why="it has been 0.75 with both ends on one core, where the receiver is below its target: "
        "the split between kernel and library was not looked at yet",
    ),
    Target(
        "TLS bulk, receiver: throughput / stdlib engine in memory",
        ("tls-memory", "memory-receive"),
        ("tls-bulk-receiver-65536", "connection"),
        0.6,
        0.8,
        at_least=True,
        why="with both ends on one core it has been 0.52, and 0.69 on cores of their own",
    ),
    Target(
        "UDP echo: DatagramTransport / uvloop",
        (_UDP, "datagram"),
        (_UDP, "uvloop-protocol"),
        0.8,
        0.65,
        why="the kernel's part is two thirds of both. Outside of it a datagram takes 9 500 "
        "instructions, and 8 300 with uvloop",
    ),
    Target(
        "UDP echo: Connection / gevent DatagramServer",
        (_UDP, "datagram-connection"),
        (_UDP, "gevent"),
        0.5,
        0.3,
    ),
    Target(
        "Memory of an idle Connection / gevent",
        ("idle-1000", "connection"),
        ("idle-1000", "gevent"),
        1.0,
        0.6,
    ),
    Target(
        "Accept, echo, close: Connection / gevent StreamServer",
        ("accept", "connection"),
        ("accept", "gevent"),
        0.75,
        0.6,
        why="325 000 instructions outside of the kernel for a connection, where gevent takes "
        "100 000 and our Protocol 56 000. Each Connection copies its setup, hashes its "
        "states in Python and asks twice for the peer's address. Tried: one copy for each "
        "Listener, the name of the stack once, states that hash in C, plain classes for "
        "frozen ones; 278 000",
    ),
    Target(
        "100 active: with 10 000 idle Connections / alone",
        ("idle-10000", "connection@10100"),
        ("idle-10000", "connection@100"),
        1.1,
        1.0,
    ),
)


@dataclass(frozen=True)
class Outcome:
    """A target and what was measured: *ratio* is None if its questions were not asked."""

    target: Target
    ratio: float | None

    @property
    def met(self) -> bool | None:
        """Whether the ratio is within the limit, as it is shown: to two places."""
        return self._within(self.target.limit)

    @property
    def stretched(self) -> bool | None:
        """Whether it is within the better one too."""
        return self._within(self.target.stretch)

    def _within(self, limit: float) -> bool | None:
        if self.ratio is None:
            return None
        shown = round(self.ratio, 2)
        return shown >= limit if self.target.at_least else shown <= limit

    @property
    def word(self) -> str:
        """The verdict."""
        if self.ratio is None:
            return "not measured"
        return "met, stretch too" if self.stretched else "met" if self.met else "NOT MET"


def outcomes(
    costs: Mapping[str, Mapping[str, Sequence[float]]], targets: Sequence[Target] = TARGETS
) -> list[Outcome]:
    """What *costs* (per question and contender, one per round) say about *targets*."""
    found = []
    for target in targets:
        top = costs.get(target.top[0], {}).get(target.top[1])
        bottom = costs.get(target.bottom[0], {}).get(target.bottom[1])
        if not top or not bottom:
            found.append(Outcome(target, None))
        elif target.top[0] == target.bottom[0]:
            found.append(Outcome(target, ratio(top, bottom)))
        else:
            # Rounds of different questions have not met the same moments.
            found.append(Outcome(target, median(top) / median(bottom)))
    return found
