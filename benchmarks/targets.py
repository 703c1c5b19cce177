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
        "Protocol takes 6 000 instructions for a request and uvloop, which is compiled, 4 200. "
        "Of ours 2 100 are the bytecode of three short functions, and the rest is pyuv's. "
        "Compiled with Cython it was 4 900 (docs/design/decisions.rst says why it is not)",
    ),
    Target(
        "Connection, no framer / uvloop streams",
        (_TCP, "connection"),
        (_TCP, "uvloop-streams"),
        0.9,
        0.65,
        why="the kernel's part is the same for both, and most of it. Outside of the kernel a "
        "request takes 22 400 instructions, and 24 900 with uvloop. 6 000 of ours are the "
        "transport's, about 3 000 two switches of greenlets; the rest is some 250 bytecodes. "
        "Compiled with Cython it was 17 700 (docs/design/decisions.rst says why it is not)",
    ),
    Target(
        "Connection, no framer / gevent",
        (_TCP, "connection"),
        (_TCP, "gevent"),
        0.65,
        0.5,
        why="the kernel's part is most of both. gevent takes 21 800 instructions outside of it, "
        "we take 22 400, and we win by system calls. For what was tried see the line above",
    ),
    Target(
        "Connection, no framer / C epoll",
        (_TCP, "connection"),
        (_TCP, "c"),
        2.5,
        1.75,
    ),
    Target(
        "Connection, no framer / Protocol with a greenlet",
        (_TCP, "connection"),
        (_TCP, "server"),
        1.25,
        1.1,
    ),
    Target(
        "Connection, length framer / no framer",
        (_TCP, "framer"),
        (_TCP, "connection"),
        1.25,
        1.1,
        why="35 300 instructions outside of the kernel instead of 22 400: a Message passes six "
        "functions more, and is copied once each way. Both sides have become shorter by the "
        "same amount, so the ratio has grown",
    ),
    Target(
        "TLS echo: Connection, stdlib engine / gevent.ssl",
        (_TLS, "connection"),
        (_TLS, "gevent"),
        0.65,
        0.5,
        why="a request takes 55 900 instructions outside of the kernel, ciphers included, and "
        "50 000 with gevent.ssl, which lets OpenSSL read from the socket, so that no byte "
        "passes a BIO in memory. 22 400 are what a Connection takes over TCP as well. Tried: "
        "to size each read by what is there; no difference",
    ),
    Target(
        "TLS echo: Connection, pyOpenSSL engine / gevent.ssl",
        (_TLS, "connection-pyopenssl"),
        (_TLS, "gevent"),
        0.9,
        0.75,
        why="a request takes 67 500 instructions outside of the kernel, 11 600 more than with "
        "the stdlib engine: what passes cffi is converted there, and one call of four only "
        "says that there is no more",
    ),
    Target(
        "TLS bulk, sender: throughput / stdlib engine in memory",
        ("tls-memory", "memory-send"),
        ("tls-bulk-sender-65536", "connection"),
        0.6,
        0.8,
        at_least=True,
        why="the kernel's part of sending 64 KiB is about 0.7 of what their encryption costs: C "
        "that sent the records of our in-memory limit would come to 0.58. It is no worse for "
        "us than for others: in the last whole run, on a slower machine, our Protocol came to "
        "0.51, uvloop to 0.46 and gevent to 0.39. With both ends on one core it has been 0.75",
    ),
    Target(
        "TLS bulk, receiver: throughput / stdlib engine in memory",
        ("tls-memory", "memory-receive"),
        ("tls-bulk-receiver-65536", "connection"),
        0.6,
        0.8,
        at_least=True,
        why="the kernel's part again. In the last whole run, on a slower machine, gevent, which "
        "lets OpenSSL read from the socket, came to 0.65, our Protocol to 0.58 and uvloop to 0.33; "
        "on a faster one the Connection has been 0.69. It takes a fifth more than Protocol: a "
        "wake-up and a Message for each piece",
    ),
    Target(
        "UDP echo: DatagramTransport / uvloop",
        (_UDP, "datagram"),
        (_UDP, "uvloop-protocol"),
        0.8,
        0.65,
        why="the kernel's part is two thirds of both. Outside of it a datagram takes 9 500 "
        "instructions, and 8 300 with uvloop. 2 400 of ours are bytecode. 3 000 are addresses: "
        "pyuv makes a str of each and back, which the socket module does as well. There is one "
        "system call to receive and one to send: libuv could receive several datagrams with one "
        "(recvmmsg), but pyuv lends it room for one, and ends the process when told of more",
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
        "Memory of an idle Connection / gevent, of 15 000",
        ("idle-15000", "connection"),
        ("idle-15000", "gevent"),
        1.0,
        0.6,
    ),
    Target(
        "Accept, echo, close: Connection / gevent StreamServer",
        ("accept", "connection"),
        ("accept", "gevent"),
        0.75,
        0.6,
        why="160 000 instructions outside of the kernel for a connection, where gevent takes "
        "102 000. 57 000 of ours are the transport's, 24 000 the spawning of a greenlet, as in "
        "gevent: more than 0.75 leaves beside the kernel's part, which is C's figure. "
        "The rest is the bytecode of some eighty short functions: two objects with 45 and 25 "
        "attributes, two waits, two Messages, a close that makes sure that all was delivered. "
        "There are as many system calls as with gevent. Compiled with Cython it was 153 000 "
        "instead of 200 000",
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
