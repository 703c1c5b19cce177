"""Datagram flows: the datagrams to and from one peer, as a transport of its own.

A flow is what a Connection over UDP stands on.  An initiator's flow owns its socket, which is
connected, so that the kernel filters strangers and reports ICMP errors.  A listener's flows share
one socket through a `FlowListener`, which tells peers apart by their address (RFC 9623 section
4.7.2).

A listener cannot know who is real.  So what strangers can make it hold is bounded: the number of
flows, what each holds while nobody reads, and the time for which a silent one is kept.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import pyuv

from ..errors import TransportError
from ..hub import PlainSocket, Runner, check_timeout, get_runner
from . import options
from .base import CLOSE_TIMEOUT, CLOSED, CLOSING, NEW, OPEN, BaseTransport, as_bytes
from .datagram import DatagramTransport
from .marked import MarkedDatagramTransport

__all__ = ["IDLE_TIMEOUT", "MAX_FLOWS", "Flow", "FlowListener", "connect_flow"]

# A NAT may forget a UDP mapping after two minutes (RFC 4787 section 4.3), so a peer that has been
# silent for longer may well have another address by now.
IDLE_TIMEOUT = 120.0  # seconds
MAX_FLOWS = 10_000  # of one listener
# What one flow holds while nobody reads; more is dropped.  The size is what a kernel keeps for one
# socket: as many as that of the largest datagrams would be 16 MiB, of each stranger.
MAX_HELD = 256  # datagrams
MAX_HELD_SIZE = 262_144  # bytes
_TICKS = 8  # parts of the idle time-out at which silence is looked for

_EAGAIN = pyuv.errno.UV_EAGAIN
_UVError = pyuv.error.UVError
# What the network says of an earlier datagram when the next one is sent (ICMP).
_SOFT_ERRORS = frozenset(
    -number
    for number in (
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EPROTO,
        errno.ENOPROTOOPT,
    )
)
_HEADERS = {False: 28, True: 48}  # IP and UDP, by whether it is IPv6
_LARGEST = {False: 65507, True: 65527}


class Flow(BaseTransport):
    """What both kinds of flow have: `write` sends one datagram, and the protocol gets
    ``datagram_received(data, addr)`` and ``error_received(exc)``."""

    __slots__ = ("_held", "_held_size", "_remote", "dropped")

    starts_ready = True

    _extra_info: ClassVar[dict[str, str]] = {
        "handle": "_get_handle",
        "sockname": "_get_sockname",
        "peername": "_get_peername",
    }

    def __init__(self, runner: Runner, remote: Any) -> None:
        super().__init__(runner)
        self._remote = self._peer = remote
        self._held: deque[bytes] = deque()
        self._held_size = 0
        self.dropped = 0
        """How many datagrams were dropped because nobody read them."""

    def start(self, protocol: Any) -> None:
        if self._state is not NEW:
            raise TransportError("the transport has already been started", errno.EISCONN)
        self._state = OPEN
        self._protocol = protocol
        try:
            protocol.connection_made(self)
        except BaseException as error:
            self.abort(error)
            raise
        if self._reading:
            self.resume_reading()

    def pause_reading(self) -> None:
        """Hold what arrives, up to 256 datagrams or 256 KiB, instead of calling
        ``datagram_received``."""
        self._reading = False

    def resume_reading(self) -> None:
        """Undo `pause_reading`; what is held comes first, in a later turn."""
        self._reading = True
        if self._held:
            self._runner.call_soon(self._release)

    def _release(self) -> None:
        while self._held and self._reading and self._state is OPEN:
            data = self._held.popleft()
            self._held_size -= len(data)
            self._hand_up(data)

    def _arrived(self, data: bytes) -> None:
        if self._reading and self._state is OPEN and not self._held:
            self._hand_up(data)
        elif len(self._held) < MAX_HELD and self._held_size + len(data) <= MAX_HELD_SIZE:
            self._held.append(data)
            self._held_size += len(data)
        else:
            self.dropped += 1

    def _hand_up(self, data: bytes) -> None:
        try:
            self._protocol.datagram_received(data, self._remote)
        except BaseException as failure:
            self._callback_failed(failure)

    def _failed(self, error: TransportError) -> None:
        if self._state is OPEN:
            self._call(self._protocol.error_received, error)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data* as one datagram.

        Raises TransportError at once if it cannot be sent: too large (EMSGSIZE), no route.  What
        the network says later, or of an earlier datagram, goes to ``error_received``.
        """
        raise NotImplementedError

    def write_marked(
        self, data: bytes, *, dscp: int | None = None, dont_fragment: bool = False
    ) -> None:
        """As `write`, with IP options for this datagram alone.  Raises also OSError."""
        if self._state is not OPEN:
            self._refuse()
        handle = self._get_handle()
        before = _dscp_of(handle) if dscp is not None else 0
        try:
            if dscp is not None:
                options.set_capacity(handle, dscp)
            if dont_fragment:
                options.set_dont_fragment(handle, True)
            self._write_unmarked(data)
        finally:
            if dont_fragment:
                options.set_dont_fragment(handle, False)
            if dscp is not None:
                options.set_capacity(handle, before)

    def set_capacity(self, dscp: int) -> None:
        """Mark all further datagrams with a DSCP (0 to 63).  Raises OSError."""
        options.set_capacity(self._get_handle(), dscp)

    def _write_unmarked(self, data: bytes) -> None:
        self.write(data)

    def can_write_eof(self) -> bool:
        """UDP has no end to send: False."""
        return False

    def largest_unfragmented(self) -> int | None:
        """The most data that a datagram can have without fragmentation at our end (bytes)."""
        path = options.mtu(self._remote)
        return None if path is None else max(path - _HEADERS[":" in self._remote[0]], 0)

    def largest(self) -> int:
        """The most data that a datagram can have (bytes)."""
        return _LARGEST[":" in self._remote[0]]

    def _get_handle(self) -> Any:
        raise NotImplementedError

    def _get_sockname(self) -> Any:
        handle = self._get_handle()
        if handle is None or handle.closed:
            return None
        return handle.getsockname()

    def _get_peername(self) -> Any:
        return None if self._state is CLOSED else self._remote


def _dscp_of(handle: Any) -> int:
    with options.socket_of(handle) as here:
        if here.family == socket.AF_INET6:
            return here.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) >> 2
        return here.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) >> 2


Prepare = Callable[[socket.socket], None]


def _bound(local: Any, remote: Any, prepare: Prepare | None) -> socket.socket:
    """A non-blocking UDP socket bound to *local*, or of *remote*'s family; *prepare* is called
    with it before that."""
    name = local or remote
    family = socket.AF_INET6 if ":" in name[0] else socket.AF_INET
    try:
        made = PlainSocket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise TransportError.from_errno(error.errno or 0, "socket", name) from error
    try:
        made.setblocking(False)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if prepare is not None:
            prepare(made)
        if local is not None:
            made.bind(local)
    except OSError as error:
        made.close()
        raise TransportError.from_errno(error.errno or 0, "bind", name) from error
    return made


def _opened(made: socket.socket) -> Any:
    """The pyuv handle for a socket, which belongs to it from then on."""
    handle = pyuv.UDP(get_runner().loop)
    handle.open(made.fileno())
    made.detach()
    return handle


# -- Initiators --


class _OwnFlow(Flow):
    """A flow with a connected socket of its own."""

    __slots__ = ("_lower",)

    def __init__(self, lower: DatagramTransport, remote: Any) -> None:
        super().__init__(get_runner(), remote)
        self._lower = lower
        lower.start(_Lift(self))

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        if timeout is not None:
            check_timeout(timeout)
        if self._state is CLOSED:
            return
        self._state = CLOSING
        self._lower.close(timeout)

    def abort(self, error: BaseException | None = None) -> None:
        if self._state is CLOSED:
            return
        if self._error is None:
            self._error = error
        self._state = CLOSING
        self._lower.abort(error)

    def hub_lost(self, error: BaseException) -> None:
        """The transport below is told itself."""

    def is_ending(self) -> bool:
        return self._lower.is_ending()

    def is_closed_well(self) -> bool:
        return self._error is None and bool(self._lower.is_closed_well())

    def get_write_buffer_size(self) -> int:
        return self._lower.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super().set_write_buffer_limits(high, low)
        self._lower.set_write_buffer_limits(self._high, self._low)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if type(data) is not bytes:
            data = as_bytes(data)
        if self._state is not OPEN:
            self._refuse()
        handle = self._lower.get_extra_info("handle")
        if not self._lower.get_write_buffer_size():
            for last in (False, True):
                try:
                    handle.try_send(self._remote, data)
                    return
                except _UVError as error:
                    if handle.closed:  # of which we shall hear soon
                        self._lower._refuse()
                    number = error.args[0]
                if number in _SOFT_ERRORS and not last:
                    # It was said of an earlier datagram; this one has not been tried.
                    self._failed(TransportError.from_errno(number, "send", self._remote))
                    if self._state is not OPEN:
                        self._refuse()
                    continue
                if number != _EAGAIN:
                    raise TransportError.from_errno(number, "send", self._remote)
                break
        self._lower.sendto(data, self._remote)

    def _get_handle(self) -> Any:
        return self._lower.get_extra_info("handle")


class _Lift:
    """The protocol of the DatagramTransport below an `_OwnFlow`."""

    def __init__(self, flow: _OwnFlow) -> None:
        self._flow = flow

    def connection_made(self, transport: Any) -> None:
        pass

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._flow._arrived(data)

    def error_received(self, exc: TransportError) -> None:
        self._flow._failed(exc)

    def pause_writing(self) -> None:
        if self._flow._state is OPEN:
            self._flow._pause_writing()

    def resume_writing(self) -> None:
        if self._flow._state is OPEN:
            self._flow._resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._flow._error is None:
            self._flow._error = exc
        self._flow._lost()


def connect_flow(
    remote: Any, local: Any = None, prepare: Prepare | None = None, *, marked: bool = False
) -> Flow:
    """A flow to the socket address *remote*, from *local* if given.  Nothing is sent.  *prepare*
    is called with the socket before it is bound, and may raise OSError.  With *marked* the data
    that arrive are `MarkedBytes`.

    Raises TransportError: no route, or the local port is taken.
    """
    return _OwnFlow(_connected(_bound(local, remote, prepare), remote, marked=marked), remote)


def _connected(made: socket.socket, remote: Any, *, marked: bool) -> DatagramTransport:
    """A transport over the socket *made*, which is taken, connected to *remote*: so the kernel
    keeps strangers out, and tells what the network says.  Raises TransportError."""
    try:
        handle = _opened(made)
    except BaseException:
        made.close()
        raise
    try:
        # After open(): a socket connected before it could never send through pyuv.
        with options.socket_of(handle) as here:
            here.connect(remote)
    except OSError as error:
        get_runner().discard(handle)
        raise TransportError.from_errno(error.errno or 0, "connect", remote) from error
    return (MarkedDatagramTransport if marked else DatagramTransport)(handle)


# -- Listeners --


class _PeerFlow(Flow):
    """A flow through the socket of a `FlowListener`."""

    __slots__ = ("_dscp", "_listener", "tick")

    def __init__(self, listener: FlowListener, remote: Any) -> None:
        super().__init__(listener.runner, remote)
        self._listener = listener
        self._dscp: int | None = None  # where it is not the listener's
        self.tick = listener.tick
        self._runner.adopt(self)

    def start(self, protocol: Any) -> None:
        super().start(protocol)
        if self._listener.is_full() and self._state is OPEN:
            self._pause_writing()

    def _arrived(self, data: bytes) -> None:
        self.tick = self._listener.tick
        if self._reading and self._state is OPEN and not self._held:
            try:  # as `_hand_up`
                self._protocol.datagram_received(data, self._remote)
            except BaseException as failure:
                self._callback_failed(failure)
        else:
            super()._arrived(data)

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        if timeout is not None:
            check_timeout(timeout)
        self._end()

    def abort(self, error: BaseException | None = None) -> None:
        if self._error is None and self._state is not CLOSED:
            self._error = error
        self._end()

    def is_ending(self) -> bool:
        return self._state is CLOSING or self._state is CLOSED

    def _end(self) -> None:
        if self._state is CLOSED or self._state is CLOSING:
            return
        self._state = CLOSING
        self._held.clear()
        self._listener.forget(self._remote)
        self._runner.call_soon(self._lost)

    def hub_lost(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._state = CLOSING
        self._runner.call_when_drained(self._lost)

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if type(data) is not bytes:
            data = as_bytes(data)
        if self._state is not OPEN:
            self._refuse()
        if self._dscp is None:
            listener = self._listener
            self.tick = listener.tick
            listener.send(data, self._remote)
        else:
            self.write_marked(data)

    def _write_unmarked(self, data: Any) -> None:
        self.tick = self._listener.tick
        self._listener.send(data, self._remote)

    def write_marked(
        self, data: Any, *, dscp: int | None = None, dont_fragment: bool = False
    ) -> None:
        super().write_marked(
            data, dscp=self._dscp if dscp is None else dscp, dont_fragment=dont_fragment
        )

    def set_capacity(self, dscp: int) -> None:
        self._dscp = dscp  # the socket is not this flow's alone

    def _get_handle(self) -> Any:
        return self._listener.handle


class FlowListener:
    """One bound UDP socket, and a flow for each peer that sends to it.

    *deliver* is called with each new flow, which holds its first datagram until it is started.
    *admit*, if given, says of a peer's address whether it may have one.  *idle_timeout* (seconds)
    and *max_flows* bound what is kept.  *prepare* is called with the socket before it is bound, and
    may raise OSError.  With *marked* the data that arrive are `MarkedBytes`.  Raises
    TransportError.
    """

    def __init__(
        self,
        local: Any,
        deliver: Callable[[Flow], None],
        *,
        admit: Callable[[Any], bool] | None = None,
        idle_timeout: float = IDLE_TIMEOUT,
        max_flows: int = MAX_FLOWS,
        prepare: Prepare | None = None,
        marked: bool = False,
    ) -> None:
        self.runner = get_runner()
        made = _bound(local, None, prepare)
        try:
            self.handle = _opened(made)
        except BaseException:
            made.close()
            raise
        self.address = self.handle.getsockname()
        self.tick = 0
        self.refused = 0
        """How many datagrams of strangers were dropped."""
        self._deliver = deliver
        self._admit = admit
        self._flows: dict[Any, _PeerFlow] = {}
        self._max_flows = max_flows
        self._paused = False
        self._closing = False
        self._ticking: Any = None
        self._tick_seconds = idle_timeout / _TICKS
        kind = MarkedDatagramTransport if marked else DatagramTransport
        self._transport = kind(self.handle)
        self._transport.start(self)
        self._wind()

    # -- As the protocol of the DatagramTransport --

    def connection_made(self, transport: Any) -> None:
        pass

    def datagram_received(self, data: bytes, addr: Any) -> None:
        flow = self._flows.get(addr)
        if flow is not None:
            flow._arrived(data)
            return
        try:
            self._welcome(data, addr)
        except Exception as error:
            # It concerns this peer, and must not end the socket of all the others.
            self.runner.collect(error)
            flow = self._flows.get(addr)
            if flow is not None:
                flow.abort(error)

    def _welcome(self, data: bytes, addr: Any) -> None:
        if (
            self._closing
            or self._paused
            or len(self._flows) >= self._max_flows
            or (self._admit is not None and not self._admit(addr))
        ):
            self.refused += 1
            return
        flow = self._flows[addr] = _PeerFlow(self, addr)
        flow._arrived(data)
        self._deliver(flow)

    def error_received(self, exc: TransportError) -> None:
        flow = self._flows.get(exc.address)
        if flow is not None:
            flow._failed(exc)

    def pause_writing(self) -> None:
        for flow in list(self._flows.values()):
            if flow._state is OPEN:
                flow._pause_writing()

    def resume_writing(self) -> None:
        for flow in list(self._flows.values()):
            if flow._state is OPEN and flow._writing_paused:
                flow._resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._ticking is not None:
            self._ticking.close()
            self._ticking = None
        for flow in list(self._flows.values()):
            flow.abort(exc)

    # -- For the flows --

    def send(self, data: bytes | bytearray | memoryview, remote: Any) -> None:
        """Send one datagram.  Raises TransportError if it cannot go at once or be queued."""
        if not self._transport._queued:
            try:
                self.handle.try_send(remote, data)
                return
            except _UVError as error:
                if self.handle.closed:  # of which the flows will hear soon
                    self._transport._refuse()
                if error.args[0] != _EAGAIN:
                    raise TransportError.from_errno(error.args[0], "send", remote) from error
        self._transport.sendto(data, remote)

    def is_full(self) -> bool:
        """Whether the flows are to wait before they send more."""
        return self._transport._writing_paused

    def forget(self, remote: Any) -> None:
        """The flow with *remote* has ended."""
        self._flows.pop(remote, None)
        if self._closing and not self._flows:
            self._transport.close()

    # -- For the plugin --

    def pause(self) -> None:
        """Drop the datagrams of new peers until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Welcome new peers again."""
        self._paused = False

    def close(self) -> None:
        """Take no new peers.  The socket is closed when the last flow has ended."""
        self._closing = True
        if not self._flows:
            self._transport.close()

    # -- Silence --

    def _wind(self) -> None:
        self._ticking = self.runner.call_later(self._tick_seconds, self._tick_over)

    def _tick_over(self) -> None:
        self.tick += 1
        silent = [flow for flow in self._flows.values() if self.tick - flow.tick > _TICKS]
        for flow in silent:
            flow.close()
        self._ticking.close()
        self._ticking = None
        if not self._transport.is_closing():
            self._wind()
