"""What establishments learn from each other, with a clock of our own."""

from __future__ import annotations

from typing import Any

import pytest
from greentaps import CapacityProfile, History, RemoteEndpoint, TransportProperties
from greentaps.plugins import find
from greentaps.taps.choosing import learning as learning_module
from greentaps.taps.choosing.candidates import Node, Verdict, Way, leaves, tree
from greentaps.taps.choosing.learning import Learning, is_here
from greentaps.transports.options import Measure

TCP, TLS = (find("tcp"),), (find("tls"), find("tcp"))
UDP = (find("udp"),)
HOME = Way(network="home")


def made(clock: float = 1000.0) -> Learning:
    return Learning(History(), lambda: clock)


def leaf(address: str = "192.0.2.1", stack: Any = TCP, way: Way = HOME) -> Node:
    end = RemoteEndpoint().with_ip_address(address).with_port(1)
    (found,) = leaves(tree([way], lambda way: [Verdict(stack, None, (), ())], [end]))
    return found


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_module, "measure", lambda stack, transport: transport)


@pytest.mark.rfc("CA-03", "CA-05", "CA-06", "CA-08")
def test_success_and_failure_become_scores() -> None:
    learning = made()
    for _ in range(5):
        learning.succeeded(leaf("192.0.2.1"), 0.1, Measure(0.05))
        learning.failed(leaf("192.0.2.2"))
    assert learning.score(HOME, TCP, "192.0.2.1") > 0.5
    assert learning.score(HOME, TCP, "192.0.2.2") < -0.5
    assert learning.score(HOME, TCP, "192.0.2.3") == 0.0
    # Neither another network nor another stack knows of it.
    assert learning.score(Way(network="road"), TCP, "192.0.2.1") == 0.0
    assert learning.score(HOME, TLS, "192.0.2.1") == 0.0
    ends = tuple(RemoteEndpoint().with_ip_address(f"192.0.2.{n}") for n in (2, 3))
    assert learning.score_of_stack(HOME, TCP, ends) < -0.5


def test_a_datagram_socket_that_is_ready_proves_nothing() -> None:
    learning = made()
    learning.succeeded(leaf(stack=UDP), 0.0, Measure())
    assert len(learning.history) == 0
    learning.failed(leaf(stack=UDP))
    assert learning.score(HOME, UDP, "192.0.2.1") < 0


@pytest.mark.rfc("HE-11", "CR-05", "CA-05")
def test_delays_come_from_round_trip_times() -> None:
    learning = made()
    assert learning.expected(leaf()) is None
    learning.succeeded(leaf(), 0.1, Measure(0.08))
    assert learning.expected(leaf()) == pytest.approx(0.16)
    assert learning.expected(leaf(stack=TLS)) == pytest.approx(0.24)
    # Of an address nearby its subnet says it.
    assert learning.expected(leaf("192.0.2.200")) == pytest.approx(0.16)
    assert learning.expected(leaf("198.51.100.1")) is None
    assert learning.expected(leaf(way=Way(network="road"))) is None
    root = leaf().parent
    assert root is not None
    assert learning.expected(root) is None


@pytest.mark.rfc("BR-07", "BR-08")
def test_what_a_network_is_good_for() -> None:
    learning = made()
    learning.measured(leaf(way=Way(network="near")), Measure(0.01, 1e5))
    learning.measured(leaf(way=Way(network="far")), Measure(0.5, 1e7))

    def order(**said: Any) -> list[str] | None:
        properties = TransportProperties()
        for name, value in said.items():
            properties.set(name, value)
        rank = learning.performance(properties)
        return None if rank is None else sorted(["far", "new", "near"], key=rank)

    assert order() is None
    assert order(keepAlive="prefer") is None
    for profile in (
        CapacityProfile.LOW_LATENCY_INTERACTIVE,
        CapacityProfile.LOW_LATENCY_NON_INTERACTIVE,
    ):
        assert order(connCapacityProfile=profile) == ["near", "new", "far"]
    assert order(connCapacityProfile=CapacityProfile.CAPACITY_SEEKING) == ["far", "near", "new"]
    assert order(connCapacityProfile=CapacityProfile.SCAVENGER) is None
    # 1 Mbit/s are 125 kB/s: the near one has less.
    assert order(minSendRate=1_000_000) == ["far", "new", "near"]
    assert order(minSendRate=500_000) == ["far", "near", "new"]
    assert order(
        connCapacityProfile=CapacityProfile.CONSTANT_RATE_STREAMING, maxSendRate=1_000_000
    ) == ["far", "new", "near"]


def test_of_this_machine_nothing_is_learned() -> None:
    learning = made()
    for address in ("127.0.0.1", "127.9.9.9", "::1"):
        assert is_here(address)
        learning.succeeded(leaf(address), 0.1, Measure(0.05))
        learning.failed(leaf(address))
    assert not is_here("::2")
    assert len(learning.history) == 0


def test_a_file_that_cannot_be_written_costs_no_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    learning = made()

    def full(*args: Any, **more: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(learning.history, "note_success", full)
    learning.succeeded(leaf(), 0.1, Measure())
    assert "no space" in caplog.text
