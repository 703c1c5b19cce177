"""Two processes behind two NATs find each other, through STUN where the NATs let them and through
TURN where not.  The test is the channel over which they tell each other their candidates."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netns import networks

from rendezvous.coturn import USER, turn_server
from rendezvous.nets import CONE, SERVER, SYMMETRIC, Nets, two_nats

PORT = 3478
PEER = Path(__file__).with_name("peer.py")
pytestmark = [pytest.mark.netns, pytest.mark.peer]


class Peer:
    """A process of `peer.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.candidates = []
        for line in iter(self._line, "\n"):
            self.candidates.append(line)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"a peer has ended early: {self.process.wait(10)}")
        return line

    def tell(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join([*lines, "\n"]))
        self.process.stdin.flush()

    def says(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._line())
        return said

    @property
    def kinds(self) -> dict[str, str]:
        """The type of each candidate, and its address."""
        return {line.split()[7]: line.split()[4] for line in self.candidates}


@contextlib.contextmanager
def peers(
    nets: Nets, *arguments: str, other: tuple[str, ...] = (), status: int = 0
) -> Iterator[tuple[Peer, Peer]]:
    """A process on each side; that on the right runs *other*, if given.  They end with *status*."""
    ours = (str(PEER), *arguments)
    processes = [
        host.spawn(sys.executable, *command)
        for host, command in ((nets.left, ours), (nets.right, other or ours))
    ]
    # What hangs is ended, and then the test says so.
    timer = threading.Timer(60, lambda: [process.kill() for process in processes])
    timer.start()
    try:
        made = [Peer(process) for process in processes]
        yield made[0], made[1]
        for process in processes:
            assert process.wait(20) == status
    finally:
        timer.cancel()


def introduce(left: Peer, right: Peer) -> None:
    left.tell(*right.candidates)
    right.tell(*left.candidates)


def exchange(left: Peer, right: Peer) -> tuple[dict[str, Any], dict[str, Any]]:
    said = left.says(), right.says()
    assert [one.says() for one in (left, right)] == [{"received": "hello"}] * 2
    left.tell()
    right.tell()
    return said


@pytest.mark.rfc("R-04")
@pytest.mark.parametrize("kind", ["udp", "tcp"])
@pytest.mark.parametrize("delay", [0.05, 0.4])
def test_on_a_long_line(kind: str, delay: float) -> None:
    with networks() as world:
        left, right = world.host("left"), world.host("right")
        world.line(left, right, "10.0.0.1/24", "10.0.0.2/24", delay=delay)
        with peers(Nets(left, left, right), kind) as (one, other):
            introduce(one, other)
            begun = time.monotonic()
            exchange(one, other)
            assert time.monotonic() - begun < 20 * delay + 3


@pytest.mark.rfc("R-04", "E-10", "CG-04", "RZ-02", "RZ-10")
def test_through_two_nats_with_stun(tmp_path: Path) -> None:
    with (
        two_nats(CONE, CONE) as nets,
        turn_server(tmp_path, SERVER, PORT, host=nets.public),
        peers(nets, "udp", "--stun", f"{SERVER}:{PORT}") as (left, right),
    ):
        assert left.kinds == {"host": "10.0.1.2", "srflx": "203.0.113.1"}
        assert right.kinds == {"host": "10.0.2.2", "srflx": "203.0.113.2"}
        introduce(left, right)
        one, other = exchange(left, right)
        assert (one["remote"], other["remote"]) == ("203.0.113.2", "203.0.113.1")


@pytest.mark.rfc("R-04", "CG-04", "R-03")
def test_through_two_symmetric_nats_with_turn(tmp_path: Path) -> None:
    with (
        two_nats(SYMMETRIC, SYMMETRIC) as nets,
        turn_server(tmp_path, SERVER, PORT, "--verbose", host=nets.public) as server,
    ):
        with peers(nets, "udp", "--turn", f"{SERVER}:{PORT}", *USER) as (left, right):
            assert left.kinds == {"host": "10.0.1.2", "srflx": "203.0.113.1", "relay": SERVER}
            introduce(left, right)
            one, other = exchange(left, right)
            assert SERVER in (one["remote"], other["remote"])
        # Both allocations were given back, the one that was used and the one that was not.
        assert server.says("refreshed.*lifetime=0", times=2)


@pytest.mark.rfc("R-04", "RZ-01", "RZ-02", "CG-04")
def test_tcp_through_two_nats(tmp_path: Path) -> None:
    """Neither NAT lets a connection in from outside: only two SYNs that cross get through."""
    with (
        two_nats(CONE, CONE) as nets,
        turn_server(tmp_path, SERVER, PORT, host=nets.public),
        peers(nets, "tcp", "--stun", f"{SERVER}:{PORT}") as (left, right),
    ):
        assert left.kinds == {"host": "10.0.1.2", "srflx": "203.0.113.1"}
        introduce(left, right)
        one, other = exchange(left, right)
        assert (one["remote"], other["remote"]) == ("203.0.113.2", "203.0.113.1")
        assert one["stack"] == other["stack"] == "tcp"


@pytest.mark.rfc("R-06")
def test_two_symmetric_nats_without_a_relay(tmp_path: Path) -> None:
    with (
        two_nats(SYMMETRIC, SYMMETRIC) as nets,
        turn_server(tmp_path, SERVER, PORT, host=nets.public),
        peers(nets, "udp", "--stun", f"{SERVER}:{PORT}", "--timeout", "3", status=1) as (
            left,
            right,
        ),
    ):
        introduce(left, right)
        for one in (left, right):
            said = one.says()
            assert said["reason"] == "Timeout"
            assert "203.0.113." in said["error"]


@pytest.mark.parametrize("role", ["controlling", "controlled"])
@pytest.mark.rfc("R-03", "R-04")
def test_with_another_implementation_of_ice(tmp_path: Path, role: str) -> None:
    """Whatever aioice thinks of its role: where it is ours, too, one of the two gives in."""
    aioice = (str(PEER.with_name("aioice_peer.py")), role, SERVER, str(PORT))
    with (
        two_nats(CONE, CONE) as nets,
        turn_server(tmp_path, SERVER, PORT, host=nets.public),
        peers(nets, "udp", "--stun", f"{SERVER}:{PORT}", other=aioice) as (left, right),
    ):
        introduce(left, right)
        one, other = exchange(left, right)
        assert one["remote"] == "203.0.113.2"
        assert other == {"connected": True}
