"""From Endpoints to socket addresses: bounded, in order, and only as far as was asked for."""

from __future__ import annotations

import errno
import socket
from typing import Any

import gevent
import pytest
from greentaps import EstablishmentError, LocalEndpoint, Reason, RemoteEndpoint, ResolutionError
from greentaps.hub import Deadline
from greentaps.taps.naming import resolver
from greentaps.taps.naming import resolving as naming
from greentaps.taps.naming.ordering import Source
from greentaps.taps.naming.resolver import Resolver
from greentaps.taps.naming.resolving import MAX_ADDRESSES, resolve_local, resolve_remote
from taps.helpers import Stopwatch

FOREVER = Deadline(None)


@pytest.fixture(autouse=True)
def everywhere_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has a way to every address."""

    def find(self: Any, remote: tuple[Any, ...]) -> Source:
        return Source("2001:db8::ffff" if ":" in remote[0] else "192.0.2.254")

    monkeypatch.setattr(naming.SourceFinder, "find", find)


class Names(Resolver):
    """A name server in the place of the system's, for Remote Endpoints and for Local ones."""

    def __init__(self, **known: list[str]) -> None:
        self.known = known
        self.asked: list[str] = []

    def addresses(
        self, name: str, family: int, *, interface: str | None, network: str
    ) -> list[str]:
        self.asked.append(name)
        if name not in self.known:
            made = ResolutionError("unknown", address=(name, None))
            made.code = socket.EAI_NONAME
            raise made
        return [one for one in self.known[name] if (":" in one) is (family == socket.AF_INET6)]

    def stream(
        self, address: tuple[Any, ...], family: int, flags: int, deadline: Deadline
    ) -> list[tuple[Any, ...]]:
        host, port = address[:2]
        if host not in self.known:
            raise ResolutionError("unknown", socket.EAI_NONAME, address)
        return [(one, port, 0, 0) if ":" in one else (one, port) for one in self.known[host]]


def use(monkeypatch: pytest.MonkeyPatch, **known: list[str]) -> Names:
    names = Names(**known)
    monkeypatch.setattr(resolver, "_default", names)
    monkeypatch.setattr(naming, "resolve_stream", names.stream)
    return names


def named(name: str, port: int = 1) -> RemoteEndpoint:
    return RemoteEndpoint().with_hostname(name).with_port(port)


@pytest.mark.rfc("E-17", "HE-09")
def test_families_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, a=["2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2", "192.0.2.3"])
    found = resolve_remote([named("a")], FOREVER)
    assert [address[0] for address, _ in found] == [
        "2001:db8::1",
        "192.0.2.1",
        "2001:db8::2",
        "192.0.2.2",
        "192.0.2.3",
    ]
    assert {hostname for _, hostname in found} == {"a"}


@pytest.mark.rfc("E-06")
def test_with_an_address_only_that_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    names = use(monkeypatch, a=["192.0.2.1"])
    end = named("a").with_ip_address("192.0.2.9")
    assert resolve_remote([end], FOREVER) == [(("192.0.2.9", 1), "a")]
    assert names.asked == []


def test_the_port_counts_before_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, a=["192.0.2.1"])
    end = RemoteEndpoint().with_hostname("a").with_service("http")
    assert resolve_remote([end], FOREVER) == [(("192.0.2.1", 80), "a")]
    assert resolve_remote([end.with_port(0)], FOREVER) == [(("192.0.2.1", 0), "a")]


@pytest.mark.rfc("CT-12", "SR-03")
def test_a_name_server_cannot_make_us_try_ten_thousand_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(
        monkeypatch,
        a=[f"192.1.{high}.{low}" for high in range(40) for low in range(250)] + ["2001:db8::1"],
        b=["198.51.100.1"],
    )
    found = resolve_remote([named("a"), named("b")], FOREVER)
    assert len(found) == MAX_ADDRESSES // 2 + 2
    assert found[0][0][0] == "2001:db8::1"  # no family crowds the other one out
    assert found[-1][0][0] == "198.51.100.1"
    assert len(resolve_local([LocalEndpoint().with_hostname("a")], FOREVER, passive=True)) <= (
        MAX_ADDRESSES
    )


def test_unknown_names_are_left_out_if_another_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, a=["192.0.2.1"])
    assert resolve_remote([named("no"), named("a")], FOREVER) == [(("192.0.2.1", 1), "a")]
    with pytest.raises(EstablishmentError) as caught:
        resolve_remote([named("no"), named("neither")], FOREVER)
    assert caught.value.reason is Reason.RESOLUTION_FAILED
    assert [end.hostname for end, _ in caught.value.attempts] == ["no", "neither"]
    assert isinstance(caught.value.__cause__, ExceptionGroup)


def test_an_unknown_local_name_is_an_error_even_beside_a_known_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is listened on is not a choice of the system's."""
    use(monkeypatch, a=["192.0.2.1"])
    ends = [LocalEndpoint().with_hostname(name) for name in ("a", "no")]
    with pytest.raises(EstablishmentError) as caught:
        resolve_local(ends, FOREVER, passive=True)
    assert caught.value.reason is Reason.RESOLUTION_FAILED


def test_local_addresses_are_not_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, a=["192.0.2.1", "192.0.2.2"], b=["192.0.2.2", "192.0.2.3"])
    ends = [LocalEndpoint().with_hostname(name).with_port(5) for name in ("a", "b")]
    found = resolve_local(ends, FOREVER, passive=True)
    assert [address[0] for address in found] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_to_initiate_from_nowhere_in_particular(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EstablishmentError) as caught:
        resolve_local([LocalEndpoint().with_port(5)], FOREVER, passive=False)
    assert caught.value.reason is Reason.INVALID_CONFIGURATION


def test_to_listen_anywhere() -> None:
    found = resolve_local([LocalEndpoint().with_port(5)], FOREVER, passive=True)
    assert ("0.0.0.0", 5) in found
    assert {address[0] for address in found} <= {"0.0.0.0", "::"}


@pytest.mark.rfc("I-06", "ER-12")
def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline holds there too, and says that it was the time."""

    def silent(*args: Any, **kwargs: Any) -> Any:
        gevent.sleep(30)

    monkeypatch.setattr(gevent.socket, "getaddrinfo", silent)
    with pytest.raises(EstablishmentError) as caught, Stopwatch() as took:
        resolve_remote([named("a.invalid")], Deadline(0.1))
    assert 0.08 < took.seconds < 5
    assert caught.value.reason is Reason.TIMEOUT
    ((_, error),) = caught.value.attempts
    assert isinstance(error, TimeoutError)
    assert getattr(error, "errno", None) == errno.ETIMEDOUT


def test_numbers_need_no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent.socket, "getaddrinfo", None)
    ends = [
        RemoteEndpoint().with_ip_address("192.0.2.1").with_port(1),
        RemoteEndpoint().with_hostname("192.0.2.2").with_port(2),
        RemoteEndpoint().with_ip_address("2001:db8::1").with_service("3"),
    ]
    assert resolve_remote(ends, FOREVER) == [
        (("192.0.2.1", 1), None),
        (("192.0.2.2", 2), "192.0.2.2"),
        (("2001:db8::1", 3, 0, 0), None),
    ]


@pytest.mark.rfc("E-07", "E-08")
def test_a_zone_becomes_a_scope() -> None:
    index, name = socket.if_nameindex()[0]
    end = RemoteEndpoint().with_ip_address(f"fe80::1%{name}").with_port(1)
    ((address, _),) = resolve_remote([end], FOREVER)
    assert address[1:] == (1, 0, index)
    with pytest.raises(EstablishmentError) as caught:
        resolve_remote([end.with_ip_address("fe80::1%no-such-interface")], FOREVER)
    assert caught.value.reason is Reason.RESOLUTION_FAILED
