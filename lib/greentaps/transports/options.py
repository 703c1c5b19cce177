"""Socket options of a handle, through a duplicate of its descriptor.

pyuv has calls for three or four options.  All others are set and asked here, by one table of what
this system's ``socket`` module knows; an option that a kernel lacks is an `OSError` to the caller.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyuv

from ..errors import TransportError
from ..hub import PlainSocket

__all__ = [
    "Measure",
    "allow_fast_open",
    "bind_to_interface",
    "defer_connect",
    "early_data",
    "fast_open",
    "fast_open_room",
    "is_temporary",
    "limit_unsent",
    "measure",
    "mtu",
    "prefer_temporary_address",
    "set_capacity",
    "set_dont_fragment",
    "set_hop_limit",
    "set_keep_alive",
    "set_user_timeout",
    "socket_of",
    "unacknowledged",
]

# Not all of these are in every Python's socket module; the numbers are Linux's ABI.
_IP_MTU, _IPV6_MTU = 14, 24
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23
_PMTUDISC_WANT, _PMTUDISC_DO = 1, 2
_SO_BINDTODEVICE = 25
_TCP_NOTSENT_LOWAT = 25
_IPV6_ADDR_PREFERENCES, _PREFER_TEMPORARY, _PREFER_PUBLIC = 72, 1, 2
_IFA_F_TEMPORARY = 1
_INT_MAX = 2**31 - 1
# Of struct tcp_info: the smoothed round-trip time in microseconds, and the rate of delivery in
# bytes per second.
_RTT = struct.Struct("=68xI")
_DELIVERY_RATE = struct.Struct("=160xQ")
_INT = struct.Struct("i")
# TCP Fast Open (RFC 7413): the options of sockets, the bits of net.ipv4.tcp_fastopen, and of struct
# tcp_info: the options in use, the size of segments, and how many bytes were received.
_TCP_FASTOPEN, _TCP_FASTOPEN_CONNECT = 23, 30
_FAST_OPEN_SETTING = "/proc/sys/net/ipv4/tcp_fastopen"
_CLIENTS_MAY, _SERVERS_MAY = 1, 2
_OPTIONS = struct.Struct("=5xB")
_HAS_TIMESTAMPS, _HAS_SYN_DATA = 1, 32
_SEGMENT = struct.Struct("=16xI")
_RECEIVED = struct.Struct("=128xQ")
_TIMESTAMPS_SIZE, _OPTIONS_LIMIT = 12, 40  # bytes in a segment
_SYN_DATA_LIMIT = 32768  # bytes that the kernel copies for one at most


@contextlib.contextmanager
def socket_of(handle: Any) -> Iterator[socket.socket]:
    """A socket object for *handle*'s descriptor, for as long as the block lasts.

    Raises TransportError if the handle has none (any more).
    """
    try:
        duplicate = PlainSocket(fileno=os.dup(handle.fileno()))
    except pyuv.error.UVError as error:
        raise TransportError.from_errno(errno.EBADF, "the handle has no socket") from error
    except OSError as error:
        raise TransportError.from_errno(error.errno or 0, "the handle has no socket") from error
    with duplicate:
        yield duplicate


def set_capacity(handle: Any, dscp: int) -> None:
    """Mark what is sent with a DSCP (0 to 63).  Raises OSError."""
    with socket_of(handle) as here:
        if here.family == socket.AF_INET6:
            here.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
        else:
            here.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)


def set_user_timeout(handle: Any, seconds: float | None) -> None:
    """How long TCP tolerates unacknowledged data; None for the system's default.  Raises
    OSError."""
    milliseconds = 0 if seconds is None else max(int(min(seconds * 1000, _INT_MAX)), 1)
    with socket_of(handle) as here:
        here.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def set_keep_alive(handle: Any, on: bool, seconds: float | None = None) -> None:
    """Switch TCP's keep-alives; *seconds* of silence before the first probe, and between probes,
    None for the system's defaults.  Raises OSError."""
    with socket_of(handle) as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, on)
        if on and seconds is not None:
            # The kernel takes whole seconds, from 1 to 32767.
            whole = round(min(max(seconds, 1), 32767))
            here.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, whole)
            here.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, whole)


def limit_unsent(handle: Any, size: int) -> None:
    """Let the kernel take data of a TCP connection only while fewer than *size* bytes wait there
    to be sent the first time.  Raises OSError."""
    with socket_of(handle) as here:
        here.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, size)


def set_dont_fragment(handle: Any, on: bool) -> None:
    """Whether datagrams may be fragmented on the way (the DF bit of IPv4).  Raises OSError."""
    with socket_of(handle) as here:
        value = _PMTUDISC_DO if on else _PMTUDISC_WANT
        if here.family == socket.AF_INET6:
            here.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, value)
        else:
            here.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, value)


def bind_to_interface(here: socket.socket, name: str) -> None:
    """Have a socket use one interface only.  Raises OSError: no such interface, or not allowed."""
    here.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, name.encode() + b"\0")


def set_hop_limit(here: socket.socket, hops: int) -> None:
    """How many hops what is sent may go: IPv4's TTL, IPv6's hop limit.  Raises OSError."""
    if here.family == socket.AF_INET6:
        here.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
    else:
        here.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)


def prefer_temporary_address(here: socket.socket, wanted: bool) -> None:
    """Whether an IPv6 socket that is not bound is to use a temporary address (RFC 8981) or a
    public one (RFC 5014).  Raises OSError."""
    if here.family == socket.AF_INET6:
        which = _PREFER_TEMPORARY if wanted else _PREFER_PUBLIC
        here.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDR_PREFERENCES, which)


def is_temporary(address: str | None) -> bool:
    """Whether an address of this machine is a temporary one (RFC 8981)."""
    if address is None or ":" not in address:
        return False
    digits = socket.inet_pton(socket.AF_INET6, address.partition("%")[0]).hex()
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as table:
            rows = [line.split() for line in table]
    except OSError:
        return False
    return any(row[0] == digits and int(row[4], 16) & _IFA_F_TEMPORARY for row in rows)


def mtu(remote: tuple[Any, ...]) -> int | None:
    """The path MTU towards *remote* as the kernel knows it, in bytes; None if it does not."""
    v6 = ":" in remote[0]
    try:
        with PlainSocket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(remote)  # sends nothing
            if v6:
                return probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
            return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    except OSError:
        return None


def unacknowledged(handle: Any) -> int | None:
    """How many bytes of a TCP handle the peer has not acknowledged; None if the system does not
    say."""
    try:
        amount = bytearray(_INT.size)  # fcntl tries that first; bytes cost it an exception
        fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, amount)
    except (OSError, pyuv.error.UVError):
        return None
    return int(_INT.unpack(amount)[0])


def fast_open(*, server_side: bool) -> bool:
    """Whether this system, as it is set up, lets a TCP client, or a server, have data in the first
    packet (RFC 7413)."""
    try:
        with open(_FAST_OPEN_SETTING, encoding="ascii") as setting:
            bits = int(setting.read())
    except (OSError, ValueError):
        return False
    return bool(bits & (_SERVERS_MAY if server_side else _CLIENTS_MAY))


def allow_fast_open(here: socket.socket, queue: int) -> None:
    """Have a TCP socket that is to listen take data in first packets, of at most *queue* peers
    whose handshakes are under way.  Raises OSError."""
    here.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN, queue)


def defer_connect(here: socket.socket) -> None:
    """Have the connect of a TCP socket succeed at once where the peer's cookie is known: the first
    packet is sent with the first data, and nothing is known of the peer before it answers.  Raises
    OSError."""
    here.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)


def early_data(handle: Any) -> int | None:
    """How many bytes a TCP handle has received so far, if data came, or was taken, with the first
    packet of its connection; None if not, or if the system does not say."""
    said = _tcp_info(handle, _RECEIVED.size)
    if len(said) < _RECEIVED.size or not _OPTIONS.unpack_from(said)[0] & _HAS_SYN_DATA:
        return None
    received: int = _RECEIVED.unpack_from(said)[0]
    return received


def fast_open_room(handle: Any) -> int | None:
    """How many bytes the first packet of another connection like that of a TCP handle has room
    for, beside all the options that there may be; None if the system does not say."""
    said = _tcp_info(handle, _SEGMENT.size)
    if len(said) < _SEGMENT.size:
        return None
    size: int = _SEGMENT.unpack_from(said)[0]
    if _OPTIONS.unpack_from(said)[0] & _HAS_TIMESTAMPS:
        size += _TIMESTAMPS_SIZE
    return min(max(size - _OPTIONS_LIMIT, 0), _SYN_DATA_LIMIT)


def _tcp_info(handle: Any, size: int) -> bytes:
    try:
        with socket_of(handle) as here:
            return here.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except OSError:
        return b""


class Measure(NamedTuple):
    """What the system has measured of one connection; None for what it has not."""

    rtt: float | None = None
    """The smoothed round-trip time, in seconds."""
    delivery_rate: float | None = None
    """What has been delivered to the peer lately, in bytes per second.  Less was not possible; more
    might have been, had there been more to send."""


def measure(handle: Any) -> Measure | None:
    """What the system has measured of a TCP handle; None if it does not say.  One system call."""
    said = _tcp_info(handle, _DELIVERY_RATE.size)
    if not said:
        return None
    rtt = _RTT.unpack_from(said)[0] if len(said) >= _RTT.size else 0
    rate = _DELIVERY_RATE.unpack_from(said)[0] if len(said) >= _DELIVERY_RATE.size else 0
    return Measure(rtt / 1e6 if rtt else None, float(rate) if rate else None)
