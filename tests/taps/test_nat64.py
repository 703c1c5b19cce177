"""IPv4 addresses behind IPv6 prefixes: RFC 6052's examples, and RFC 7050's way to the prefix."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from greentaps.taps.naming.nat64 import Prefix, prefixes_in, translated
from hypothesis import given
from hypothesis import strategies as st

# RFC 6052 section 2.4: a prefix, its length, and what 192.0.2.33 becomes.
EXAMPLES = [
    ("2001:db8::", 32, "2001:db8:c000:221::"),
    ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
    ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::", 96, "2001:db8:122:344::c000:221"),
]


def prefix(text: str, length: int) -> Prefix:
    return (IPv6Address(text).packed[: length // 8], length)


@pytest.mark.rfc("HE-13")
@pytest.mark.parametrize(("text", "length", "expected"), EXAMPLES)
def test_the_examples_of_rfc_6052(text: str, length: int, expected: str) -> None:
    found = translated("192.0.2.33", prefix(text, length))
    assert found is not None
    assert IPv6Address(found) == IPv6Address(expected)


@pytest.mark.rfc("HE-13")
def test_the_well_known_prefix_is_for_public_addresses() -> None:
    well_known = prefix("64:ff9b::", 96)
    assert translated("198.51.99.1", well_known) == "64:ff9b::c633:6301"
    assert translated("10.0.0.1", well_known) is None
    assert translated("10.0.0.1", prefix("2001:db8::", 96)) == "2001:db8::a00:1"


@pytest.mark.rfc("HE-13")
@given(st.binary(min_size=16, max_size=16), st.sampled_from([32, 40, 48, 56, 64, 96]))
def test_a_prefix_is_found_in_what_was_made_with_it(bits: bytes, length: int) -> None:
    bits = bits[:8] + b"\0" + bits[9:]
    made = (bits[: length // 8], length)
    answer = [translated(f"192.0.0.{n}", made) for n in (170, 171)]
    assert None not in answer
    assert made in prefixes_in([str(one) for one in answer])


def test_other_addresses_have_no_prefix() -> None:
    assert prefixes_in(["2001:db8::1", "::1"]) == []


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.9.9.9", "169.254.1.1", "224.0.0.1", "0.0.0.0"]
)
def test_what_is_not_to_leave_this_machine_or_link_is_not_translated(address: str) -> None:
    (prefix,) = prefixes_in(["2001:db8:64::c000:aa"])
    assert translated("198.51.99.1", prefix) is not None
    assert translated(address, prefix) is None
