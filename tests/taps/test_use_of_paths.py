"""Which path and which local address a Connection really has: seen at the other end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from greentaps import (
    EstablishmentError,
    InterfaceType,
    LocalEndpoint,
    Preconnection,
    Reason,
    RemoteEndpoint,
    TransportProperties,
    survey,
)
from greentaps.taps.paths import survey as paths
from netns import Host, Networks, networks
from taps.helpers import until

pytestmark = pytest.mark.netns

PORT = 7000
HOME = "198.51.100.1"
PUBLIC = "2001:db8::5"


class Scene:
    """The test's own host, with two cables and a tunnel to a server that listens everywhere."""

    def __init__(self, world: Networks) -> None:
        self.here = world.host("here")
        self.server = world.host("server")
        for number, (name, join) in enumerate(
            (("west", world.cable), ("east", world.cable), ("tun", world.line)), 1
        ):
            join(
                self.here,
                self.server,
                *(f"192.0.{number}.1/24", f"192.0.{number}.2/24"),
                names=(name, name),
            )
            self.here.ip(f"route add default via 192.0.{number}.2 metric {number}")
        self.server.address("lo", f"{HOME}/32")
        self.server.address("west", "2001:db8::2/64")
        with self.server.entered():
            self.listener = socket.create_server(
                ("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True
            )
        self.listener.settimeout(20)

    def seen(self, preconnection: Preconnection) -> str:
        """The address that a Connection has, as the server sees it."""
        connection = preconnection.initiate(timeout=20)
        peer, name = self.listener.accept()
        peer.close()
        assert connection.local_endpoint is not None
        connection.abort()
        address: str = name[0].removeprefix("::ffff:")
        assert connection.local_endpoint.ip_address == address
        return address


@pytest.fixture
def scene() -> Iterator[Scene]:
    with networks() as world:
        made = Scene(world)
        with made.here.entered(), made.listener:
            yield made


def towards(
    address: str = HOME,
    properties: TransportProperties | None = None,
    local: LocalEndpoint | None = None,
) -> Preconnection:
    remote = RemoteEndpoint().with_ip_address(address).with_port(PORT)
    return Preconnection(local, remote, properties)


@pytest.mark.rfc("P-11", "BR-06", "CT-09")
@pytest.mark.parametrize(
    ("level", "what", "source"),
    [
        ("no-preference", "east", "192.0.1.1"),  # what the system's routes say
        ("require", "east", "192.0.2.1"),
        ("prefer", "east", "192.0.2.1"),
        ("prohibit", "west", "192.0.2.1"),
        ("require", InterfaceType.TUNNEL, "192.0.3.1"),
        ("prohibit", InterfaceType.WIRED, "192.0.3.1"),
        ("avoid", InterfaceType.WIRED, "192.0.3.1"),
    ],
    ids=str,
)
def test_by_name_and_by_type(scene: Scene, level: str, what: object, source: str) -> None:
    wanted = TransportProperties()
    if level != "no-preference":
        wanted.set("interface", [(level, what), ("prohibit", "lo")])
    assert scene.seen(towards(properties=wanted)) == source


@pytest.mark.rfc("P-12")
@pytest.mark.parametrize(
    ("level", "domain", "source"),
    [
        ("require", "corp.example", "192.0.2.1"),
        ("prefer", "Corp.Example.", "192.0.2.1"),
        ("require", "home.example", "192.0.1.1"),
        ("prohibit", "home.example", "192.0.2.1"),
        ("require", "no-such.example", None),
    ],
)
def test_by_provisioning_domain(
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    domain: str,
    source: str | None,
) -> None:
    monkeypatch.setattr(paths, "_DOMAINS", (str(tmp_path),))
    for name, said in (("west", "home.example"), ("east", "corp.example")):
        (tmp_path / str(socket.if_nametoindex(name))).write_text(f"DOMAINS={said}\n")
    wanted = TransportProperties().set("pvd", [(level, domain)])
    wanted.set("interface", [("prohibit", "lo")])
    if source is None:
        with pytest.raises(EstablishmentError) as caught:
            towards(properties=wanted).initiate(timeout=20)
        assert caught.value.reason is Reason.NO_CANDIDATES
    else:
        assert scene.seen(towards(properties=wanted)) == source


@pytest.fixture
def temporary(scene: Scene) -> str:
    """A temporary address beside a public one."""
    host: Host = scene.here
    for name, value in {"use_tempaddr": "1", "accept_dad": "0"}.items():
        Path(f"/proc/sys/net/ipv6/conf/west/{name}").write_text(value)
    host.ip(f"-6 addr add {PUBLIC}/64 dev west nodad mngtmpaddr valid_lft 3600 preferred_lft 1800")

    def made() -> list[str]:
        found = survey().find("west")
        assert found is not None
        return [one.text for one in found.addresses if one.temporary]

    until(made)  # the kernel makes it in its own time
    return made()[0]


@pytest.mark.rfc("P-13", "CT-08", "SO-19")
@pytest.mark.parametrize("level", ["require", "prefer", None, "avoid", "prohibit"])
def test_temporary_addresses(scene: Scene, temporary: str, level: str | None) -> None:
    """They are preferred by default (RFC 9622 section 6.2.13)."""
    wanted = TransportProperties()
    if level is not None:
        wanted.set("useTemporaryLocalAddress", level)
    preconnection = towards("2001:db8::2", wanted)
    public = level in ("avoid", "prohibit")
    assert scene.seen(preconnection) == (PUBLIC if public else temporary)


@pytest.mark.rfc("E-22", "CG-03")
def test_an_address_and_an_interface_of_ones_own(scene: Scene) -> None:
    local = LocalEndpoint().with_ip_address("192.0.2.1")
    assert scene.seen(towards(local=local)) == "192.0.2.1"
    assert scene.seen(towards(local=LocalEndpoint().with_interface("tun"))) == "192.0.3.1"
