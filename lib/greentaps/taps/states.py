"""Which state of a Connection may follow which (RFC 9622 section 11).  Pure."""

from __future__ import annotations

from .properties import CLOSED, CLOSING, ESTABLISHED, ESTABLISHING, ConnectionState

__all__ = ["TRANSITIONS"]

# (from, to) -> what happens then, and the event that tells of it.  What is not here cannot be.
TRANSITIONS: dict[tuple[ConnectionState, ConnectionState], str] = {
    (ESTABLISHING, ESTABLISHED): "active open, passive open or rendezvous succeeded: "
    "Ready, ConnectionReceived or RendezvousDone",
    (ESTABLISHING, CLOSED): "establishment failed: EstablishmentError; "
    "or was given up by us: Closed or ConnectionError",
    (ESTABLISHED, CLOSING): "closed or aborted by either side, or failed: no event",
    (CLOSING, CLOSED): "ended: Closed, or ConnectionError after a failure or an abort",
}
