"""TCP (RFC 9293): a reliable, ordered stream of bytes.

The mapping of RFC 9623 section 10.1, in the words of its template:

===================  ========================================================================
Connectedness        Connected
Data unit            Byte stream
Connection object    one TCP connection
Initiate             connect(2); ready when the three-way handshake is done
InitiateWithSend     as Initiate, then Send; with zeroRttMsg as much as fits of a Message that is
                     safelyReplayable goes in the SYN (RFC 7413)
Ready                the handshake is done
EstablishmentError   connect failed, or the deadline has passed
ConnectionError      a reset, or a time-out of the kernel's
Listen               bind(2) and listen(2) on each local address
ConnectionReceived   accept(2)
Clone                another connect(2)
Send                 bytes in the stream; without a framer all of it is one Message
Receive              bytes of the stream
Close                FIN after all that was sent
Abort                RST
===================  ========================================================================
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pyuv

from ..errors import TransportError
from ..hub import get_runner
from ..transports import Transport, options
from ..transports.handles import connect_early, connect_tcp, listen_tcp
from ..transports.listening import Listening
from . import ALWAYS, EITHER, NEVER, Attempt, Offer, Plugin

__all__ = ["Tcp", "configure"]

BACKLOG = 0xFFFF  # the kernel makes it net.core.somaxconn, which is the administrator's to say
# So many retransmissions in a row are worth a SoftError.
RETRANSMISSIONS = 3
# So many peers whose data came in the SYN may be served before their handshakes are done (RFC 7413
# section 5.1); the data of others is taken after the handshake.
FAST_OPENS = 64


class Tcp(Plugin):
    """The kernel's TCP."""

    name: ClassVar[str] = "tcp"
    stream: ClassVar[bool] = True
    offers: ClassVar[dict[str, Offer]] = {
        "reliability": ALWAYS,
        "preserveMsgBoundaries": NEVER,
        "perMsgReliability": NEVER,
        "preserveOrder": ALWAYS,
        "zeroRttMsg": EITHER,
        "multistreaming": NEVER,
        "fullChecksumSend": ALWAYS,
        "fullChecksumRecv": ALWAYS,
        "congestionControl": ALWAYS,
        "keepAlive": EITHER,
        "softErrorNotify": EITHER,
        "activeReadBeforeSend": ALWAYS,
        "useTemporaryLocalAddress": EITHER,
    }

    def lacks(self, name: str, *, server_side: bool) -> bool:
        return name == "zeroRttMsg" and not options.fast_open(server_side=server_side)

    def open(self, attempt: Attempt, below: Any) -> Any:
        def prepare(handle: Any) -> None:
            _configure(handle, attempt, local=False)

        early = attempt.early
        if early:
            handle, taken = connect_early(
                attempt.remote, attempt.deadline, early, local=attempt.local, prepare=prepare
            )
            attempt.early = memoryview(early)[taken:]
        else:
            handle = connect_tcp(
                attempt.remote,
                attempt.deadline,
                local=attempt.local,
                prepare=None if _is_plain(attempt) else prepare,
            )
        return Transport(handle, attempt.hostname)

    def listen(self, attempt: Attempt, deliver: Callable[[Any], None]) -> Any:
        runner = get_runner()
        asked = not _CONFIGURED.isdisjoint(attempt.options)

        def accepted(handle: Any) -> None:
            if asked:
                try:
                    _configure(handle, attempt, local=True)
                except (OSError, pyuv.error.UVError):
                    pass  # the connection is gone already, which its first use tells better
            deliver(Transport.accepted(handle, runner))

        handle = listen_tcp(attempt.local, lambda here: _configure_listener(here, attempt))
        listening = Listening(handle, handle.getsockname(), accepted)
        try:
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
        return listening

    def apply(self, transport: Any, name: str, value: Any) -> None:
        change = _CHANGES.get(name)
        handle = transport.get_extra_info("handle")
        if change is not None and handle is not None:
            change(handle, value)

    def warning(self, transport: Any) -> str | None:
        handle = transport.get_extra_info("handle")
        if handle is None:
            return None
        with options.socket_of(handle) as here:
            # struct tcp_info begins with state, ca_state, retransmits, probes, backoff.
            retransmits: int = here.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[2]
        if retransmits < RETRANSMISSIONS:
            return None
        return f"{retransmits} retransmissions without an acknowledgement"

    def early(self, transport: Any) -> int | None:
        handle = transport.get_extra_info("handle")
        return None if handle is None else options.early_data(handle)

    def early_room(self, transport: Any) -> int | None:
        handle = transport.get_extra_info("handle")
        return None if handle is None else options.fast_open_room(handle)

    def measure(self, transport: Any) -> options.Measure | None:
        handle = transport.get_extra_info("handle")
        return None if handle is None else options.measure(handle)


def configure(here: socket.socket, attempt: Attempt) -> None:
    """Set on a new socket of any protocol what the application has asked for of IP.  Raises
    OSError."""
    if attempt.interface is not None:
        options.bind_to_interface(here, attempt.interface)
    if attempt.hop_limit is not None:
        options.set_hop_limit(here, attempt.hop_limit)
    temporary = attempt.options.get("useTemporaryLocalAddress")
    if temporary is not None:
        options.prefer_temporary_address(here, temporary)
    elif here.family == socket.AF_INET6:
        # The defaults of RFC 9622 section 6.2.13: Prefer to initiate, and Avoid to listen.
        with contextlib.suppress(OSError):
            options.prefer_temporary_address(here, attempt.remote is not None)


def _configure_listener(here: socket.socket, attempt: Attempt) -> None:
    configure(here, attempt)
    wanted = attempt.options.get("zeroRttMsg") and not attempt.options.get("isolateSession")
    if wanted and options.fast_open(server_side=True):
        options.allow_fast_open(here, FAST_OPENS)


def _configure(handle: Any, attempt: Attempt, *, local: bool) -> None:
    """Set on a new socket what the application has asked for; *local* says that the addresses are
    chosen.  Raises TransportError."""
    try:
        if not local:
            with options.socket_of(handle) as here:
                configure(here, attempt)
                if attempt.greets and options.fast_open(server_side=False):
                    with contextlib.suppress(OSError):  # only a wish
                        options.defer_connect(here)
        _configure_tcp(handle, attempt.options)
    except TransportError:
        raise
    except OSError as error:
        number = error.errno or 0
        raise TransportError.from_errno(number, "socket option", attempt.remote) from error


# What `_configure_tcp` looks at.
_CONFIGURED = frozenset(("connCapacityProfile", "connTimeout", "keepAlive", "keepAliveTimeout"))


def _is_plain(attempt: Attempt) -> bool:
    """Whether `_configure` would find nothing to do for a new socket to connect."""
    return (
        not attempt.greets
        and attempt.interface is None
        and attempt.hop_limit is None
        and ":" not in attempt.remote[0]
        and _CONFIGURED.isdisjoint(attempt.options)
        and "useTemporaryLocalAddress" not in attempt.options
    )


def _configure_tcp(handle: Any, wanted: Mapping[str, Any]) -> None:
    if wanted.get("connCapacityProfile"):
        options.set_capacity(handle, wanted["connCapacityProfile"])
    if wanted.get("connTimeout") is not None:
        options.set_user_timeout(handle, wanted["connTimeout"])
    # Not set, keepAliveTimeout leaves the period to the system; Disabled, it says no, and so does
    # one that is longer than the Connection would last (RFC 9622 section 8.1.4).
    interval, longest = wanted.get("keepAliveTimeout", 0), wanted.get("connTimeout")
    late = interval is None or (longest is not None and interval > longest)
    if wanted.get("keepAlive") and not late:
        options.set_keep_alive(handle, True, interval or None)


def _change_keep_alive(handle: Any, seconds: float | None) -> None:
    options.set_keep_alive(handle, seconds is not None, seconds)


def _refuse_user_timeout(handle: Any, value: Any) -> None:
    """The kernel does not speak the option of RFC 5482 on the wire."""
    if value is True:
        raise ValueError("this system's TCP has no User Timeout Option to send")


_CHANGES: dict[str, Callable[[Any, Any], None]] = {
    "connTimeout": options.set_user_timeout,
    "keepAliveTimeout": _change_keep_alive,
    "connCapacityProfile": options.set_capacity,
    "tcp.userTimeoutEnabled": _refuse_user_timeout,
    "_greentaps.unsentLimit": options.limit_unsent,
}
