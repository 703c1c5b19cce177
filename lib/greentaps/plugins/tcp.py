"""TCP (RFC 9293): a reliable, ordered stream of bytes.

The mapping of RFC 9623 section 10.1, in the words of its template:

===================  ========================================================================
Connectedness        Connected
Data unit            Byte stream
Connection object    one TCP connection
Initiate             connect(2); ready when the three-way handshake is done
InitiateWithSend     as Initiate, then Send (no TCP Fast Open yet)
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

from collections.abc import Callable
from typing import Any, ClassVar

import pyuv

from ..transports import Transport
from ..transports.handles import connect_tcp, listen_tcp
from ..transports.listening import Listening
from . import ALWAYS, EITHER, NEVER, Attempt, Offer, Plugin

__all__ = ["Tcp"]

BACKLOG = 128
# Seconds of silence before the first keep-alive probe, where the application has set none: the
# default of RFC 1122 section 4.2.3.6 and of Linux.
KEEP_ALIVE_SECONDS = 7200


class Tcp(Plugin):
    """The kernel's TCP."""

    name: ClassVar[str] = "tcp"
    offers: ClassVar[dict[str, Offer]] = {
        "reliability": ALWAYS,
        "preserveMsgBoundaries": NEVER,
        "perMsgReliability": NEVER,
        "preserveOrder": ALWAYS,
        "zeroRttMsg": NEVER,
        "multistreaming": NEVER,
        "fullChecksumSend": ALWAYS,
        "fullChecksumRecv": ALWAYS,
        "congestionControl": ALWAYS,
        "keepAlive": EITHER,
        "softErrorNotify": NEVER,
        "activeReadBeforeSend": ALWAYS,
    }

    def open(self, attempt: Attempt, below: Any) -> Any:
        handle = connect_tcp(attempt.remote, attempt.deadline, local=attempt.local)
        _prepare(handle, attempt)
        return Transport(handle, attempt.hostname)

    def listen(self, attempt: Attempt, deliver: Callable[[Any], None]) -> Any:
        def accepted(handle: Any) -> None:
            _prepare(handle, attempt)
            deliver(Transport(handle))

        handle = listen_tcp(attempt.local)
        listening = Listening(handle, handle.getsockname(), accepted)
        try:
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
        return listening


def _prepare(handle: Any, attempt: Attempt) -> None:
    try:
        # A Message is on its way when it is sent; what should wait is sent as a batch.
        handle.nodelay(True)
        if attempt.properties.get("keepAlive"):
            handle.keepalive(True, KEEP_ALIVE_SECONDS)
    except pyuv.error.UVError:
        pass  # the connection is gone already, which its first use tells better
