"""UDP (RFC 768): datagrams, without any promise.

The mapping of RFC 9623 section 10.3, in the words of its template:

===================  ========================================================================
Connectedness        Connectionless
Data unit            Datagram
Connection object    an address and a port at both ends
Initiate             a connected socket; nothing is sent
InitiateWithSend     Initiate, then Send
Ready                at once
EstablishmentError   no route, or the local port is taken
ConnectionError      only after an Abort; ICMP errors are SoftErrors
Listen               bind(2)
ConnectionReceived   the first datagram of a peer that was not heard of
Clone                another socket
Send                 one Message is one datagram
Receive              one datagram is one Message
Close                the port is given back, then Closed; an idle peer of a listener after 120 s
Abort                as Close, with a ConnectionError
===================  ========================================================================

It duplicates, loses and reorders.  So Messages must be ``safelyReplayable``, and the stack is no
candidate unless the application says that they are (RFC 9622 section 9.1.3.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..transports import options
from ..transports.flow import FlowListener, connect_flow
from . import ALWAYS, EITHER, NEVER, Attempt, Offer, Plugin
from .tcp import configure

__all__ = ["Udp"]

_RECEIVE_ECN = "_greentaps.receiveEcn"


class Udp(Plugin):
    """The kernel's UDP."""

    name: ClassVar[str] = "udp"
    duplicates: ClassVar[bool] = True
    confirms: ClassVar[bool] = False
    offers: ClassVar[dict[str, Offer]] = {
        "reliability": NEVER,
        "preserveMsgBoundaries": ALWAYS,
        "perMsgReliability": NEVER,
        "preserveOrder": NEVER,
        "zeroRttMsg": NEVER,
        "multistreaming": NEVER,
        "fullChecksumSend": ALWAYS,
        "fullChecksumRecv": ALWAYS,
        "congestionControl": NEVER,
        "keepAlive": NEVER,
        "softErrorNotify": ALWAYS,
        "activeReadBeforeSend": NEVER,
        "useTemporaryLocalAddress": EITHER,
    }

    def open(self, attempt: Attempt, below: Any) -> Any:
        flow = connect_flow(
            attempt.remote,
            attempt.local,
            lambda here: configure(here, attempt),
            marked=bool(attempt.options.get(_RECEIVE_ECN)),
        )
        self._configure(flow.get_extra_info("handle"), attempt)
        return flow

    def listen(self, attempt: Attempt, deliver: Callable[[Any], None]) -> Any:
        listener = FlowListener(
            attempt.local,
            deliver,
            admit=attempt.admit,
            prepare=lambda here: configure(here, attempt),
            marked=bool(attempt.options.get(_RECEIVE_ECN)),
        )
        self._configure(listener.handle, attempt)
        return listener

    def apply(self, transport: Any, name: str, value: Any) -> None:
        if name == "connCapacityProfile":
            transport.set_capacity(value)

    def _configure(self, handle: Any, attempt: Attempt) -> None:
        dscp = attempt.options.get("connCapacityProfile")
        if dscp:
            options.set_capacity(handle, dscp)
