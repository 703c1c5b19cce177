"""TLS (RFC 8446 and RFC 5246) over any stream.

The mapping of RFC 9623's template, where it differs from what is below:

===================  ========================================================================
Connectedness        Connected
Data unit            Byte stream
Connection object    one TLS session over one connection below
Initiate             as below, then the handshake as client; with zeroRttMsg its first bytes may
                     go with the handshake below
InitiateWithSend     Initiate, then Send: no early data of TLS
Ready                the handshake is done and the peer is verified
EstablishmentError   the handshake failed: nothing is tried without TLS instead
Listen               as below; each connection then makes its handshake as server
ConnectionReceived   the handshake is done
Close                close_notify, then as below
Abort                as below: no close_notify, which the peer takes for a truncation
===================  ========================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..hub import now, spawn
from ..transports import SslTransport
from . import NEVER, STREAMS, Attempt, Offer, Plugin

__all__ = ["Tls"]


class Tls(Plugin):
    """TLS with the engine that the SecurityParameters call for."""

    name: ClassVar[str] = "tls"
    over: ClassVar[tuple[str, ...]] = (STREAMS,)
    stream: ClassVar[bool] = True
    secure: ClassVar[bool] = True
    greets: ClassVar[bool] = True
    # What is below would carry the Message in clear text, and neither library sends early data.
    offers: ClassVar[dict[str, Offer]] = {"zeroRttMsg": NEVER}

    def check(self, attempt: Attempt, *, server_side: bool) -> None:
        attempt.security.context(server_side=server_side)

    def open(self, attempt: Attempt, below: Any) -> Any:
        hostname = (attempt.hostname or attempt.remote[0]).partition("%")[0]
        # RFC 9622 section 8.1.10: nothing of other Connections, and nothing for them.
        isolated = attempt.options.get("isolateSession")
        return SslTransport(
            below,
            attempt.security.terms(
                server_side=False,
                ask=_ask,
                clock=now,
                key=None if isolated else (hostname, attempt.remote[1]),
            ),
            False,
            hostname,
            handshake_timeout=None,  # the attempt has a deadline
        )

    def accept(self, attempt: Attempt, below: Any) -> Any:
        terms = attempt.security.terms(server_side=True, ask=_ask, clock=now)
        return SslTransport(below, terms, True)


def _ask(function: Callable[[Any], Any], question: Any, answer: Callable[[Any], None]) -> None:
    """Put *question* to the application in a greenlet, where it may block."""

    def run() -> None:
        try:
            answered = function(question)
        except Exception as error:
            answered = error
        except BaseException as error:  # a kill, or a gevent.Timeout: no answer will come
            answer(error)
            raise
        answer(answered)

    spawn(run)
