"""Records of services: their order by chance, what is used of them, and what is passed over."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from greentaps.taps.naming.answers import MAX_TARGETS
from greentaps.taps.naming.services import (
    SrvRecord,
    SvcbRecord,
    alias_of,
    order_srv,
    srv_targets,
    svcb_targets,
)
from hypothesis import given
from hypothesis import strategies as st

SRV = st.builds(
    SrvRecord, st.integers(0, 3), st.integers(0, 9), st.just(1), st.sampled_from("abcdefgh")
)


@pytest.mark.rfc("CT-07")
@given(st.lists(SRV, max_size=20), st.randoms(use_true_random=False))
def test_priorities_are_in_order(records: list[SrvRecord], chance: random.Random) -> None:
    found = order_srv(records, chance)
    assert [one.priority for one in found] == sorted(one.priority for one in records)[:MAX_TARGETS]
    assert not Counter(found) - Counter(records)


def test_weights_are_chances() -> None:
    """Of 4000 draws with weights 1 and 3 the heavier one is first in three of four (RFC 2782)."""
    chance = random.Random(1)
    records = [SrvRecord(1, 1, 1, "light."), SrvRecord(1, 3, 1, "heavy."), SrvRecord(0, 0, 1, "z.")]
    firsts = Counter(order_srv(records, chance)[1].target for _ in range(4000))
    assert all(order_srv(records, chance)[0].target == "z." for _ in range(9))
    # A point from 0 to 4: the light one has 0 and 1.  Six standard deviations either way.
    assert abs(firsts["heavy."] - 2400) < 190


def test_without_weight_there_is_a_small_chance() -> None:
    records = [SrvRecord(1, 0, 1, "none."), SrvRecord(1, 9, 1, "some.")]
    chance = random.Random(2)
    firsts = Counter(order_srv(records, chance)[0].target for _ in range(1000))
    assert 40 < firsts["none."] < 180


@pytest.mark.rfc("CT-12", "SR-03")
def test_ten_thousand_records() -> None:
    many = [SrvRecord(1, 1, 1, f"t{n}.") for n in range(10_000)]
    assert len(order_srv(many, random.Random(1))) == MAX_TARGETS
    bindings = [SvcbRecord(1, f"t{n}.") for n in range(10_000)]
    assert len(bound(bindings)) == MAX_TARGETS


def test_a_service_that_is_not_there() -> None:
    """The root as the only target says so (RFC 2782)."""
    chance = random.Random(1)
    assert srv_targets([SrvRecord(0, 0, 0, ".")], chance, "SRV") is None
    assert srv_targets([], chance, "SRV") == []
    (found,) = srv_targets(
        [SrvRecord(0, 0, 0, "."), SrvRecord(0, 0, 5, "a.example.")], chance, "SRV _x._tcp.b"
    ) or [None]
    assert found is not None
    assert (found.name, found.port) == ("a.example.", 5)
    assert found.origin == "SRV _x._tcp.b -> a.example:5"


def bound(
    records: list[SvcbRecord],
    *,
    service: str = "https",
    protocol: str = "tcp",
    port: int | None = 443,
) -> list[tuple[str, int, tuple[str, ...]]]:
    found = svcb_targets(
        records,
        service=service,
        protocol=protocol,
        owner="owner.",
        port=port,
        random=random.Random(1),
        origin="HTTPS",
    )
    return [(one.name, one.port, one.alpn) for one in found]


@pytest.mark.rfc("CT-06", "CT-07")
def test_targets_by_priority() -> None:
    records = [
        SvcbRecord(3, "c."),
        SvcbRecord(1, ".", port=8443),
        SvcbRecord(2, "b.", alpn=("h2",)),
    ]
    assert bound(records) == [
        ("owner.", 8443, ("http/1.1",)),
        ("b.", 443, ("h2", "http/1.1")),
        ("c.", 443, ("http/1.1",)),
    ]


def test_a_mandatory_key_that_we_do_not_know_takes_the_record_out() -> None:
    known, unknown = frozenset({1, 3}), frozenset({3, 5})
    records = [SvcbRecord(1, "a.", unknown), SvcbRecord(2, "b.", known)]
    assert [name for name, *_ in bound(records)] == ["b."]


def test_what_is_spoken_must_fit_what_carries_it() -> None:
    both = SvcbRecord(1, "a.", alpn=("h3", "h2"))
    quic = SvcbRecord(2, "b.", alpn=("h3",), no_default_alpn=True)
    plain = SvcbRecord(3, "c.")
    assert bound([both, quic, plain]) == [
        ("a.", 443, ("h2", "http/1.1")),
        ("c.", 443, ("http/1.1",)),
    ]
    assert bound([both, quic, plain], protocol="udp") == [
        ("a.", 443, ("h3",)),
        ("b.", 443, ("h3",)),
    ]
    assert bound([plain], service="dns", protocol="udp") == [("c.", 443, ())]


def test_without_a_port_there_is_no_target() -> None:
    records = [SvcbRecord(1, "a."), SvcbRecord(1, "b.", port=9)]
    assert bound(records, service="x", port=None) == [("b.", 9, ())]


def test_those_of_one_priority_share_the_load() -> None:
    records = [SvcbRecord(1, name) for name in ("a.", "b.", "c.")]
    chance = random.Random(3)
    firsts = Counter(
        svcb_targets(
            records,
            service="x",
            protocol="tcp",
            owner="o.",
            port=1,
            random=chance,
            origin="",
        )[0].name
        for _ in range(600)
    )
    assert min(firsts.values()) > 130


def test_an_alias_goes_before_all() -> None:
    chance = random.Random(1)
    assert alias_of([], chance) is None
    assert alias_of([SvcbRecord(1, "a.")], chance) is None
    assert alias_of([SvcbRecord(1, "a."), SvcbRecord(0, "b.")], chance) == "b."
