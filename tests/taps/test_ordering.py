"""RFC 6724's order of destinations, with what is remembered of them."""

from __future__ import annotations

import itertools

import pytest
from greentaps.taps.naming.ordering import (
    DEFAULT_POLICY,
    Past,
    Policy,
    Source,
    interleave,
    read_policy,
    scope_of,
    sort_key,
)
from hypothesis import given
from hypothesis import strategies as st

World = dict[str, Source | None]


def ordered(world: World, pasts: dict[str, Past] | None = None, **more: Policy) -> list[str]:
    pasts = pasts or {}
    return sorted(world, key=lambda one: sort_key(one, world[one], pasts.get(one, Past()), **more))


def check(*best_first: tuple[str, Source | None], **more: Policy) -> None:
    """The order is this one, whatever order the answer had."""
    names = [name for name, _ in best_first]
    for answer in itertools.permutations(best_first):
        assert ordered(dict(answer), **more) == names


@pytest.mark.rfc("HE-08")
@pytest.mark.parametrize(
    "best_first",
    [
        pytest.param(
            [("2001:db8:1::1", Source("2001:db8:1::2")), ("198.51.100.121", None)],
            id="1 unusable",
        ),
        pytest.param(
            [
                ("2001:db8:1::1", Source("2001:db8:1::2")),
                ("198.51.100.121", Source("169.254.13.78")),
            ],
            id="2 scope",
        ),
        pytest.param(
            [("198.51.100.121", Source("198.51.100.117")), ("2001:db8:1::1", Source("fe80::1"))],
            id="2 scope of IPv4",
        ),
        pytest.param(
            [
                ("2001:db8:1::1", Source("2001:db8:1::2")),
                ("fe80::1", Source("fe80::2", deprecated=True)),
            ],
            id="3 deprecated",
        ),
        pytest.param(
            [
                ("2001:db8:1::1", Source("2001:db8:3::1", home=True)),
                ("fe80::1", Source("fe80::2")),
            ],
            id="4 home",
        ),
        pytest.param(
            [
                ("2002:c633:6401::1", Source("2002:c633:6401::2")),
                ("2001:db8:1::1", Source("2002:c633:6401::2")),
            ],
            id="5 label",
        ),
        pytest.param(
            [("2001:db8:1::1", Source("2001:db8:1::2")), ("10.1.2.3", Source("10.1.2.4"))],
            id="6 precedence",
        ),
        pytest.param(
            [
                ("2001:db8:1::1", Source("2001:db8:1::2")),
                ("2002:c633:6401::1", Source("2002:c633:6401::2")),
            ],
            id="6 precedence of 6to4",
        ),
        pytest.param(
            [
                ("2001:db8:9::1", Source("2001:db8:8::1")),
                ("2001:db8:1::1", Source("2001:db8:1::2", tunnel=True)),
            ],
            id="7 native",
        ),
        pytest.param(
            [("fe80::1", Source("fe80::2")), ("2001:db8:1::1", Source("2001:db8:1::2"))],
            id="8 smaller scope",
        ),
        pytest.param(
            [
                ("2001:db8:1::1", Source("2001:db8:1::2")),
                ("2001:db8:3ffe::1", Source("2001:db8:3f44::2")),
            ],
            id="9 prefix",
        ),
    ],
)
def test_each_rule(best_first: list[tuple[str, Source | None]]) -> None:
    """The examples of RFC 6724 section 10.2, and others where it has none."""
    check(*best_first)


@pytest.mark.rfc("HE-08")
def test_history_counts_between_rules_eight_and_nine() -> None:
    near = ("2001:db8:1::1", Source("2001:db8:1::2"))
    far = ("2001:db8:9::1", Source("2001:db8:1::2"))
    world = dict([near, far])
    assert ordered(world) == [near[0], far[0]]  # rule 9
    assert ordered(world, {far[0]: Past(used=True)}) == [far[0], near[0]]
    assert ordered(world, {far[0]: Past(0.2), near[0]: Past(0.1, used=True)}) == [near[0], far[0]]
    # Times count before mere use, and before no time at all.
    assert ordered(world, {far[0]: Past(0.2), near[0]: Past(used=True)}) == [far[0], near[0]]
    # And nothing that is remembered counts before rule 8.
    assert ordered({"fe80::1": Source("fe80::2"), **world}, {far[0]: Past(0.001, used=True)}) == [
        "fe80::1",
        far[0],
        near[0],
    ]


def test_the_last_64_bits_are_nobodys_prefix() -> None:
    source = Source("2001:db8::1")
    assert sort_key("2001:db8::2", source) == sort_key("2001:db8::ffff:1", source)


def test_a_server_rotates_ipv4_addresses_and_we_leave_that_alone() -> None:
    world: World = {f"198.51.100.{n}": Source("198.51.100.1") for n in (200, 2, 100)}
    assert ordered(world) == list(world)


def test_scopes() -> None:
    assert scope_of("127.0.0.1") == scope_of("::1") == scope_of("fe80::1%1") == 2
    assert scope_of("169.254.1.1") == scope_of("::ffff:169.254.1.1") == 2
    assert scope_of("10.0.0.1") == scope_of("2001:db8::1") == scope_of("fd00::1") == 14
    assert scope_of("fec0::1") == 5
    assert scope_of("ff05::1") == 5


def test_the_policy_of_an_administrator() -> None:
    text = """
    # IPv4 first, please
    precedence  ::ffff:0:0/96  100
    precedence  ::/0 40   # the rest
    label 192.0.2.0/24 7
    scopev4 ::ffff:169.254.0.0/112  2
    precedence nonsense 3
    precedence ::/0 many
    """
    policy = read_policy(text)
    check(
        ("10.1.2.3", Source("10.1.2.4")),
        ("2001:db8:1::1", Source("2001:db8:1::2")),
        policy=policy,
    )
    assert policy.label(0xFFFF_C000_0205) == 7
    assert policy.label(1) == 0
    assert read_policy("") == DEFAULT_POLICY
    assert read_policy("reload yes\n") == DEFAULT_POLICY


ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(["::1", "fe80::1", "2002:c633:6401::1", "fd00::1", "fec0::1", "2001::1"]),
)
V4 = st.ip_addresses(v=4).map(str)
SOURCES = st.one_of(
    st.none(), st.builds(Source, ADDRESSES, st.booleans(), st.booleans(), st.booleans())
)
PASTS = st.builds(Past, st.one_of(st.none(), st.floats(0.001, 3)), st.booleans())


@pytest.mark.rfc("HE-08")
@given(
    st.lists(st.tuples(ADDRESSES, SOURCES, PASTS), max_size=12, unique_by=lambda one: one[0]),
    st.randoms(use_true_random=False),
)
def test_the_same_facts_give_the_same_order(
    facts: list[tuple[str, Source | None, Past]], random: st.DataObject
) -> None:
    """Whatever the order of the answer was, but for addresses that are equal by every rule."""
    keys = {name: sort_key(name, source, past) for name, source, past in facts}
    shuffled = list(facts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = [keys[name] for name in sorted(keys, key=keys.__getitem__)]
    second = [keys[name] for name in sorted((one[0] for one in shuffled), key=keys.__getitem__)]
    assert first == second
    unusable = [source is None for _, source, _ in sorted(facts, key=lambda one: keys[one[0]])]
    assert unusable == sorted(unusable)


@pytest.mark.rfc("HE-02", "HE-09")
@given(st.lists(st.booleans()), st.integers(1, 4))
def test_families_alternate(v6: list[bool], first_count: int) -> None:
    items = list(enumerate(v6))
    mixed = interleave(items, lambda one: one[1], first_count)
    assert sorted(mixed) == items
    for family in (True, False):
        assert [one for one in mixed if one[1] is family] == [
            one for one in items if one[1] is family
        ]
    if not items:
        return
    leading = [one for one in mixed if one[1] is v6[0]]
    trailing = len(items) - len(leading)
    # The first ones, then one of each in turn for as long as there are both.
    pattern = [one[1] is v6[0] for one in mixed]
    head = min(first_count, len(leading))
    assert all(pattern[:head])
    if len(leading) >= first_count:
        both = min(len(leading) - head, trailing)
        assert pattern[head : head + 2 * both] == [False, True] * both


@pytest.mark.rfc("HE-02")
def test_first_address_family_count_is_one() -> None:
    items = ["6a", "6b", "6c", "4a", "4b"]
    assert interleave(items, lambda one: one[0] == "6") == ["6a", "4a", "6b", "4b", "6c"]
    assert interleave(items, lambda one: one[0] == "6", 2) == ["6a", "6b", "4a", "6c", "4b"]
