"""The minimal set of RFC 8923 (RFC 9622 appendix C): each of its features is to be had here.

One row for each: what offers it, and that this is there.  What each does is proved where its own
item is; here it is that none is missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from greentaps import Connection, Listener, MessageContext, Preconnection, TransportProperties
from greentaps.taps.properties import (
    DISABLED,
    CapacityProfile,
    Scheduler,
    find_property,
)
from rfc9622.world import EVENTS, joined
from taps.helpers import in_greenlet


def property_takes(name: str, *values: Any) -> Callable[[], bool]:
    """Before establishment, and if it is a Connection Property also afterwards."""

    def check() -> bool:
        for value in values:
            TransportProperties().set(name, value)
        return bool(values)

    return check


def message_takes(name: str, value: Any) -> Callable[[], bool]:
    return lambda: MessageContext().add(name, value).get(name) == find_property(name).check(value)


def argument(function: Any, name: str) -> Callable[[], bool]:
    return lambda: name in inspect.signature(function).parameters


def event(name: str) -> Callable[[], bool]:
    return lambda: name in EVENTS and callable(getattr(Connection, f"on_{name}"))


def readable(name: str) -> Callable[[], bool]:
    return lambda: bool(find_property(name))


ROWS: dict[str, list[Callable[[], bool]]] = {
    "MS-01": [argument(Preconnection.initiate, "timeout")],
    "MS-02": [argument(Preconnection.listen, "timeout"), argument(Listener.accept, "timeout")],
    "MS-03": [
        argument(Preconnection.initiate, "timeout"),
        argument(Preconnection.initiate_with_send, "timeout"),
    ],
    "MS-04": [property_takes("multipath", "disabled", "active", "passive")],
    "MS-05": [
        argument(Preconnection.initiate_with_send, "context"),
        message_takes("safelyReplayable", True),
    ],
    "MS-06": [property_takes("connTimeout", 1, 2.5, DISABLED)],
    "MS-07": [event("connection_error")],
    "MS-08": [
        property_takes("tcp.userTimeoutValue", 30),
        property_takes("tcp.userTimeoutEnabled", True, False),
        property_takes("tcp.userTimeoutChangeable", True, False),
    ],
    "MS-09": [property_takes("softErrorNotify", "require"), event("soft_error")],
    "MS-10": [property_takes("connScheduler", *Scheduler)],
    "MS-11": [property_takes("connPriority", 0, 100)],
    "MS-12": [message_takes("msgChecksumLen", 0), property_takes("fullChecksumSend", "avoid")],
    "MS-13": [property_takes("recvChecksumLen", 0), property_takes("fullChecksumRecv", "avoid")],
    "MS-14": [message_takes("noFragmentation", True)],
    "MS-15": [readable("singularTransmissionMsgMaxLen")],
    "MS-16": [readable("recvMsgMaxLen")],
    "MS-17": [readable("ecn")],
    "MS-18": [
        property_takes("connCapacityProfile", *CapacityProfile),
        message_takes("msgCapacityProfile", "low-latency/interactive"),
    ],
    "MS-19": [argument(Connection.close, "timeout")],
    "MS-20": [lambda: callable(Connection.abort), event("connection_error")],
    "MS-21": [
        argument(Connection.send, "data"),
        property_takes("reliability", "require", "avoid"),
        property_takes("congestionControl", "require", "prohibit"),
        message_takes("msgReliable", False),
    ],
    "MS-22": [message_takes("msgLifetime", 0.5)],
    "MS-23": [message_takes("msgOrdered", False)],
    "MS-24": [property_takes("connCapacityProfile", "low-latency/interactive")],
    "MS-25": [argument(Connection.receive, "handler"), event("received")],
    "MS-26": [argument(Connection.receive, "min_incomplete_length"), event("received_partial")],
    "MS-27": [event("expired"), event("send_error")],
    "MS-28": [event("sent")],
    "MS-29": [event("receive_error")],
    "MS-30": [event("soft_error")],
}


@pytest.mark.rfc("A-07", *ROWS)
@pytest.mark.parametrize("row", ROWS)
def test_the_feature_is_there(row: str) -> None:
    for check in ROWS[row]:
        assert check()


@pytest.mark.rfc("A-06", "A-07", "AC-07", "T-03")
def test_the_actions_of_a_connection_are_all_there() -> None:
    with joined() as (client, server):
        client.start_batch()
        client.send(b"one", wait=False)
        client.end_batch()
        assert server.receive(1, timeout=10).data == b"one"
        client.set_property("connPriority", 1)
        assert client.get_properties().get("connPriority") == 1
        assert client.grouped_connections() == [client]
        closing = in_greenlet(client.close_group)
        assert server.receive(timeout=10).final
        server.abort_group()
        closing.get()
