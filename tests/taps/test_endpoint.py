"""Endpoints: one identifier of each kind, checked when it is set."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from greentaps import LocalEndpoint, RemoteEndpoint
from greentaps.taps.endpoint import endpoint_of
from hypothesis import given
from hypothesis import strategies as st

KINDS = [LocalEndpoint, RemoteEndpoint]
both = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.rfc("E-01", "E-02")
@both
def test_a_new_one_is_empty(kind: type) -> None:
    end = kind()
    assert (end.hostname, end.port, end.service, end.ip_address) == (None,) * 4
    assert repr(end) == f"{kind.__name__}()"


@pytest.mark.rfc("E-15", "MU-10")
@both
def test_a_kind_that_is_set_again_is_replaced(kind: type) -> None:
    end = kind()
    assert end.with_hostname("a.example").with_hostname("b.example") is end
    end.with_port(1).with_port("2").with_service("http").with_service("https")
    end.with_ip_address("fe80::1%eth0").with_ip_address("192.0.2.1")
    assert (end.hostname, end.port, end.service, end.ip_address) == (
        "b.example",
        2,
        "https",
        "192.0.2.1",
    )


@pytest.mark.rfc("E-04", "T-01")
@pytest.mark.parametrize("good", [0, 1, 65535, "0", "00080", "65535"])
def test_ports(good: int | str) -> None:
    assert LocalEndpoint().with_port(good).port == int(good)


@pytest.mark.rfc("E-04", "T-01")
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (-1, ValueError),
        (65536, ValueError),
        (70000, ValueError),
        ("70000", ValueError),
        ("9" * 100, ValueError),
        (10**100, ValueError),
        ("x", TypeError),
        ("", TypeError),
        ("-1", TypeError),
        ("+1", TypeError),
        (" 1", TypeError),
        ("1_0", TypeError),
        ("\u0663", TypeError),  # a digit, but not one of ours
        ("https", TypeError),
        (1.0, TypeError),
        (True, TypeError),
        (None, TypeError),
        (b"80", TypeError),
    ],
)
def test_wrong_ports(wrong: object, error: type[Exception]) -> None:
    end = LocalEndpoint().with_port(5)
    with pytest.raises(error):
        end.with_port(wrong)  # type: ignore[arg-type]
    assert end.port == 5


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("", ValueError),
        ("a b", ValueError),
        ("a\0b", ValueError),
        ("a\n", ValueError),
        ("a" * 254, ValueError),
        ("localhost:80", ValueError),
        (b"a.example", TypeError),
        (None, TypeError),
        (5, TypeError),
    ],
)
def test_wrong_host_names(wrong: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        RemoteEndpoint().with_hostname(wrong)  # type: ignore[arg-type]


@pytest.mark.rfc("E-05")
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("", ValueError),
        ("a b", ValueError),
        ("a\0", ValueError),
        ("65536", ValueError),
        ("9" * 5000, ValueError),
        (80, TypeError),
        (None, TypeError),
        (b"http", TypeError),
    ],
)
def test_wrong_services(wrong: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        RemoteEndpoint().with_service(wrong)  # type: ignore[arg-type]


@pytest.mark.rfc("E-06")
@given(st.ip_addresses())
def test_addresses_in_every_form(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    forms = [address, str(address), address.packed]
    if address.version == 6:
        forms.append(address.exploded.upper())
    ends = [RemoteEndpoint().with_ip_address(form) for form in forms]
    assert {end.ip_address for end in ends} == {str(address)}
    assert len(set(ends)) == 1


@pytest.mark.rfc("E-08")
def test_zones() -> None:
    text = RemoteEndpoint().with_ip_address("fe80::1%eth0")
    made = RemoteEndpoint().with_ip_address(ipaddress.IPv6Address("fe80::1%eth0"))
    assert text == made
    assert text.ip_address == "fe80::1%eth0"
    assert text != RemoteEndpoint().with_ip_address("fe80::1")
    assert text != RemoteEndpoint().with_ip_address("fe80::1%eth1")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("", ValueError),
        ("localhost", ValueError),
        ("256.0.0.1", ValueError),
        ("1.2.3", ValueError),
        ("::1::", ValueError),
        ("127.0.0.1%eth0", ValueError),
        ("fe80::1%eth0%eth1", ValueError),
        ("fe80::1%", ValueError),
        ("fe80::1%a b", ValueError),
        ("fe80::1%a\0", ValueError),
        (" 127.0.0.1", ValueError),
        (b"\x7f\0\0", ValueError),
        (0x7F000001, TypeError),
        (None, TypeError),
        (True, TypeError),
        (("127.0.0.1", 80), TypeError),
    ],
)
def test_wrong_addresses(wrong: object, error: type[Exception]) -> None:
    end = RemoteEndpoint().with_ip_address("fe80::1%eth0")
    with pytest.raises(error):
        end.with_ip_address(wrong)
    assert end.ip_address == "fe80::1%eth0"


@pytest.mark.rfc("T-02")
@both
def test_a_copy_is_equal_and_independent(kind: type) -> None:
    end = kind().with_hostname("a.example").with_port(1).with_ip_address("fe80::1%lo")
    copy = end.copy()
    assert copy == end
    assert type(copy) is kind
    assert hash(copy) == hash(end)
    end.with_port(2)
    assert copy.port == 1
    assert copy != end


def test_the_two_kinds_are_never_equal() -> None:
    assert LocalEndpoint().with_port(1) != RemoteEndpoint().with_port(1)
    assert LocalEndpoint() != "LocalEndpoint()"


def test_repr_shows_what_is_set() -> None:
    end = RemoteEndpoint().with_hostname("a.example").with_port(443)
    assert repr(end) == "RemoteEndpoint(hostname='a.example', port=443)"


# -- From the kernel's addresses --


@pytest.mark.parametrize("given_", [None, "/path", b"", 7])
def test_what_is_no_internet_address_has_no_endpoint(given_: object) -> None:
    assert endpoint_of(given_, LocalEndpoint) is None


def test_from_socket_addresses() -> None:
    assert endpoint_of(("192.0.2.1", 80), LocalEndpoint) == (
        LocalEndpoint().with_ip_address("192.0.2.1").with_port(80)
    )
    named = endpoint_of(("2001:db8::1", 80, 0, 0), RemoteEndpoint, "a.example")
    assert (named.ip_address, named.hostname) == ("2001:db8::1", "a.example")
    index, name = socket.if_nameindex()[0]
    assert endpoint_of(("fe80::1", 1, 0, index), RemoteEndpoint).ip_address == f"fe80::1%{name}"
    assert endpoint_of((f"fe80::1%{name}", 1, 0, index), RemoteEndpoint).ip_address == (
        f"fe80::1%{name}"
    )
    assert endpoint_of(("fe80::1", 1, 0, 999_999), RemoteEndpoint).ip_address == "fe80::1%999999"
