"""Two peers behind two NATs, and a public network with a server between them::

left 10.0.1.2 -- left NAT 203.0.113.1 --+
                                        +-- public 203.0.113.10 (the server)
right 10.0.2.2 - right NAT 203.0.113.2 -+
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from netns import Host, networks

SERVER = "203.0.113.10"

# What a NAT does: all peers see one port, or each has its own.
CONE, SYMMETRIC = False, True

# A NAT has nothing to say to what comes unasked, and does not remember it.
_SILENT = """
table ip silent { chain in {
    type filter hook input priority filter;
    iifname "to-public" ct state new drop;
}
}
"""


@dataclass(frozen=True)
class Nets:
    """The hosts."""

    public: Host
    left: Host
    right: Host


@contextlib.contextmanager
def two_nats(left: bool = CONE, right: bool = CONE) -> Iterator[Nets]:
    """The network; skips the test where it cannot be made."""
    with networks() as world:
        public = world.host("public")
        public.ip("link add middle type bridge", "link set middle up")
        public.address("middle", f"{SERVER}/24")
        sides = []
        for number, (side, per_peer) in enumerate((("left", left), ("right", right)), 1):
            inside, router = world.host(side), world.host(f"{side}-nat")
            world.cable(inside, router, f"10.0.{number}.2/24", f"10.0.{number}.1/24")
            inside.default(f"10.0.{number}.1")
            world.cable(router, public, f"203.0.113.{number}/24")
            public.ip(f"link set to-{side}-nat master middle")
            router.translate("to-public", per_peer=per_peer)
            router.nft(_SILENT)
            sides.append(inside)
        # As in the world, what is for private addresses goes somewhere and is not heard of.
        public.ip(
            "link add void type veth peer name nowhere",
            "link set void arp off up",
            "link set nowhere up",
        )
        public.default(interface="void")
        yield Nets(public, *sides)
