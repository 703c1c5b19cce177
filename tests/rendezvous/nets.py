"""Two peers behind two NATs, and a public network with a server between them.

Five network namespaces, made by the test::

    left 10.0.1.2 -- left NAT 203.0.113.1 --+
                                            +-- public 203.0.113.10 (the server)
    right 10.0.2.2 - right NAT 203.0.113.2 -+
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

SERVER = "203.0.113.10"
SIDES = {"left": ("10.0.1", "203.0.113.1"), "right": ("10.0.2", "203.0.113.2")}

# What a NAT does: to whom it gives which port.  Linux keeps the port where it can, so that all
# targets see the same one; with fully-random each has its own.
CONE, SYMMETRIC = "masquerade", "masquerade fully-random"

_RULES = """
table ip nat {{
    chain out {{
        type nat hook postrouting priority srcnat;
        oifname "outside" {how}
    }}
}}
table ip filter {{
    chain in {{
        type filter hook input priority filter;
        iifname "outside" ct state new drop
    }}
    chain forward {{
        type filter hook forward priority filter;
        iifname "outside" ct state new drop
    }}
}}
"""


@dataclass(frozen=True)
class Nets:
    """The names of the namespaces."""

    prefix: str

    def inside(self, side: str) -> tuple[str, ...]:
        """The command that runs another one on a peer's host, or on ``public``."""
        return ("ip", "netns", "exec", f"{self.prefix}-{side}")


def run(*command: str, given: str | None = None) -> None:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=20
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@contextlib.contextmanager
def two_nats(left: str = CONE, right: str = CONE) -> Iterator[Nets]:
    """The network; skips the test where it cannot be made."""
    if os.geteuid():
        pytest.skip("making network namespaces needs root")
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    nets = Nets(f"taps{os.getpid()}")
    names = ["public", "left", "left-nat", "right", "right-nat"]
    made = []
    try:
        try:
            for name in names:
                run("ip", "netns", "add", f"{nets.prefix}-{name}")
                made.append(name)
            _wire(nets)
            for side, how in (("left", left), ("right", right)):
                run(*nets.inside(f"{side}-nat"), "nft", "-f", "-", given=_RULES.format(how=how))
        except OSError as error:
            pytest.skip(f"network namespaces with NAT cannot be made here: {error}")
        yield nets
    finally:
        for name in made:
            run("ip", "netns", "del", f"{nets.prefix}-{name}")


def _wire(nets: Nets) -> None:
    def at(name: str, *lines: str) -> None:
        for line in lines:
            run(*nets.inside(name), *line.split())

    at(
        "public",
        "ip link set lo up",
        "ip link add middle type bridge",
        f"ip addr add {SERVER}/24 dev middle",
        "ip link set middle up",
        # As in the world, what is for private addresses goes somewhere and is not heard of.
        "ip link add void type veth peer name nowhere",
        "ip link set void arp off up",
        "ip link set nowhere up",
        "ip route add default dev void",
    )
    for side, (prefix, public) in SIDES.items():
        nat = f"{nets.prefix}-{side}-nat"
        at(
            "public",
            f"ip link add {side} type veth peer name outside netns {nat}",
            f"ip link set {side} master middle up",
        )
        at(
            f"{side}-nat",
            f"ip link add inside type veth peer name eth0 netns {nets.prefix}-{side}",
            f"ip addr add {prefix}.1/24 dev inside",
            "ip link set inside up",
            f"ip addr add {public}/24 dev outside",
            "ip link set outside up",
            "sysctl -q -w net.ipv4.ip_forward=1",
        )
        at(
            side,
            "ip link set lo up",
            f"ip addr add {prefix}.2/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {prefix}.1",
        )
