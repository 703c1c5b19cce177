"""Every reason of RFC 9623 appendix B has a cause, and every error tells what happened."""

from __future__ import annotations

import builtins
import pickle
from collections.abc import Callable

import pytest
from greentaps import (
    CloneError,
    ConnectionError,  # noqa: A004 - RFC 9622's own name
    EstablishmentError,
    Expired,
    LengthPrefixFramer,
    MessageContext,
    Preconnection,
    Reason,
    ReceiveError,
    SendError,
    TapsError,
    TransportProperties,
)
from rfc9622.world import joined
from taps.helpers import blackhole, free_port, in_greenlet, remote, reset, with_plain_peer

# Reasons that other tests prove, as they need more than a few lines: the system's prohibitions.
ELSEWHERE = {Reason.POLICY_PROHIBITED}


def error_of(call: Callable[[], object]) -> TapsError:
    with pytest.raises(TapsError) as caught:
        call()
    return caught.value


def without_remote() -> TapsError:
    return error_of(Preconnection().initiate)


def without_candidates() -> TapsError:
    wishes = TransportProperties("reliable-message")
    return error_of(Preconnection(None, remote(1), wishes).initiate)


def unresolved() -> TapsError:
    end = remote(1)
    end = type(end)().with_hostname("nowhere.invalid").with_port(1)
    return error_of(Preconnection(None, end).initiate)


def refused() -> TapsError:
    return error_of(Preconnection(None, remote(free_port())).initiate)


def timed_out() -> TapsError:
    with blackhole() as port:
        return error_of(lambda: Preconnection(None, remote(port)).initiate(timeout=0.05))


def not_cloneable() -> TapsError:
    with joined() as (_, server):
        return error_of(server.clone)


def too_large() -> TapsError:
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, _):
        return error_of(lambda: connection.send(bytes(300)))


def contradictory_message() -> TapsError:
    with joined() as (client, _):
        wrong = MessageContext().add("msgReliable", False)
        return error_of(lambda: client.send(b"x", wrong))


def expired() -> TapsError:
    with with_plain_peer(small=True) as (connection, _):
        connection.send(bytes(16 * 1024 * 1024), wait=False)
        brief = MessageContext().add("msgLifetime", 0.01)
        return error_of(lambda: connection.send(b"x", brief))


def not_framed() -> TapsError:
    with with_plain_peer(LengthPrefixFramer(1)) as (connection, peer):
        peer.sendall(b"\x05cut")
        peer.close()
        return error_of(connection.receive)


def was_reset() -> TapsError:
    with with_plain_peer() as (connection, peer):
        waiting = in_greenlet(connection.receive)
        reset(peer)
        found: TapsError = waiting.get()
        return found


def was_reset_before_the_shutdown() -> TapsError:
    with with_plain_peer() as (connection, peer):
        connection.send(b"", MessageContext().add("final", True))
        reset(peer)  # the hub has not run, so the shutdown is still to be made
        return error_of(lambda: connection.receive(timeout=10))


def aborted_by_us() -> TapsError:
    with joined() as (client, _):
        client.abort()
        return error_of(client.receive)


def closed() -> TapsError:
    with joined() as (client, server):
        server.close(wait=False)
        assert client.receive(timeout=10).final
        return error_of(client.receive)


def callback_failed() -> TapsError:
    """A framer that breaks at an end is a protocol that failed."""
    with joined() as (client, _):
        client.transport.abort(OSError("a stack that fails"))
        return error_of(client.receive)


CASES: dict[Callable[[], TapsError], tuple[type[TapsError], Reason]] = {
    without_remote: (EstablishmentError, Reason.INVALID_CONFIGURATION),
    without_candidates: (EstablishmentError, Reason.NO_CANDIDATES),
    unresolved: (EstablishmentError, Reason.RESOLUTION_FAILED),
    refused: (EstablishmentError, Reason.ESTABLISHMENT_FAILED),
    timed_out: (EstablishmentError, Reason.TIMEOUT),
    not_cloneable: (CloneError, Reason.NOT_CLONEABLE),
    too_large: (SendError, Reason.MESSAGE_TOO_LARGE),
    contradictory_message: (SendError, Reason.INVALID_MESSAGE_PROPERTIES),
    expired: (Expired, Reason.TIMEOUT),
    not_framed: (ReceiveError, Reason.DEFRAMING_FAILED),
    was_reset: (ConnectionError, Reason.CONNECTION_ABORTED),
    was_reset_before_the_shutdown: (ConnectionError, Reason.CONNECTION_ABORTED),
    aborted_by_us: (ConnectionError, Reason.LOCAL_ABORT),
    closed: (ReceiveError, Reason.CLOSED),
    callback_failed: (ConnectionError, Reason.PROTOCOL_FAILED),
}


@pytest.mark.rfc("ER-01", "ER-02", "ER-03", "ER-04", "ER-06", "ER-07", "ER-08", "ER-09", "ER-10")
@pytest.mark.rfc("ER-11", "ER-12", "T-06", "B-01", "SN-06", "TM-02")
@pytest.mark.parametrize("cause", CASES, ids=lambda cause: cause.__name__)
def test_each_reason_has_its_error(cause: Callable[[], TapsError]) -> None:
    kind, reason = CASES[cause]
    error = cause()
    assert isinstance(error, kind)
    assert error.reason is reason
    assert reason.value in str(error)
    assert error.message
    # It can be sent to another process, as whoever logs it may do.
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.reason, again.message) == (type(error), reason, error.message)


@pytest.mark.rfc("T-06")
def test_every_reason_is_proved() -> None:
    assert {reason for _, reason in CASES.values()} | ELSEWHERE == set(Reason)


@pytest.mark.rfc("SH-03", "T-17")
def test_the_errors_of_the_rfc_are_python_errors_too() -> None:
    assert issubclass(ConnectionError, builtins.ConnectionError)
    assert issubclass(Expired, SendError)
    for kind in (EstablishmentError, CloneError, SendError, ReceiveError, ConnectionError):
        assert issubclass(kind, TapsError)


@pytest.mark.rfc("I-07", "I-08", "X-02")
def test_an_establishment_error_tells_of_each_attempt() -> None:
    ports = [free_port(), free_port()]
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(None, [remote(port) for port in ports]).initiate(timeout=10)
    tried = [candidate.remote[1] for candidate, _ in caught.value.attempts]
    assert tried == ports
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    for port in ports:
        assert f"127.0.0.1:{port}" in str(caught.value)
