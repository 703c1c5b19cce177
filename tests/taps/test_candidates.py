"""Candidates: what is required is there, what is prohibited is not, and nothing is by chance."""

from __future__ import annotations

from itertools import pairwise
from socket import AF_INET, AF_INET6
from time import process_time
from typing import Any

import pytest
from greentaps import (
    EstablishmentError,
    InterfaceType,
    LocalEndpoint,
    Preference,
    Reason,
    RemoteEndpoint,
    SystemPolicy,
    TransportProperties,
)
from greentaps.plugins import ALWAYS, EITHER, NEVER, Plugin, find, offer, stacks
from greentaps.taps.choosing.candidates import (
    MAX_CHILDREN,
    NO_FAMILY,
    Candidate,
    Node,
    Verdict,
    Way,
    attach,
    choose_stacks,
    choose_ways,
    interleave,
    judge_stacks,
    leaves,
    plugins_of,
    tree,
)
from greentaps.taps.naming.resolving import Derived
from greentaps.taps.paths.survey import LocalAddress, Path, Survey
from hypothesis import given
from hypothesis import strategies as st

LEVELS = list(Preference)
FEATURES = (
    "reliability",
    "preserveMsgBoundaries",
    "perMsgReliability",
    "preserveOrder",
    "zeroRttMsg",
    "multistreaming",
    "fullChecksumSend",
    "fullChecksumRecv",
    "congestionControl",
    "keepAlive",
    "softErrorNotify",
    "activeReadBeforeSend",
)


def made(name: str, *, over: tuple[str, ...] = (), safe: bool = False, **offers: Any) -> Plugin:
    kind = type(
        name,
        (Plugin,),
        {
            "name": name,
            "over": over,
            "secure": safe,
            "offers": offers,
            "available": lambda self: "gone" not in name,
        },
    )
    return kind()  # type: ignore[no-any-return]


offers = st.dictionaries(st.sampled_from(FEATURES), st.sampled_from([ALWAYS, NEVER, EITHER]))
wishes = st.dictionaries(st.sampled_from(FEATURES), st.sampled_from(LEVELS))


def properties_of(wished: dict[str, Preference], **more: Any) -> TransportProperties:
    properties = TransportProperties().set("safelyReplayable", True)
    for name in FEATURES:
        properties.set(name, wished.get(name, Preference.NO_PREFERENCE))
    return properties


def names(chosen: list[Any]) -> list[str]:
    return ["/".join(plugin.name for plugin in stack) for stack in chosen]


@pytest.mark.rfc("MU-11", "TP-05", "A-01", "BR-01", "BR-02", "CG-01")
@given(st.lists(offers, min_size=1, max_size=5), wishes, st.booleans())
def test_every_stack_respects_require_and_prohibit(
    offered: list[dict[str, Any]], wished: dict[str, Preference], secured: bool
) -> None:
    below = [made(f"p{number}", **one) for number, one in enumerate(offered)]
    top = made("safe", over=tuple(plugin.name for plugin in below), safe=True, keepAlive=EITHER)
    among = stacks([*below, top])
    properties = properties_of(wished)

    def fits(stack: Any) -> bool:
        return any(plugin.secure for plugin in stack) is secured and all(
            not (level is Preference.REQUIRE and offer(stack, name) is NEVER)
            and not (level is Preference.PROHIBIT and offer(stack, name) is ALWAYS)
            for name, level in wished.items()
        )

    good = [stack for stack in among if fits(stack)]
    try:
        chosen = choose_stacks(properties, among, secured=secured)
    except EstablishmentError as error:
        refused = error.reason
    else:
        refused = None
        assert sorted(names(chosen)) == sorted(names(good))
    if refused is Reason.NO_CANDIDATES:
        assert not good
    else:
        assert refused in (None, Reason.INVALID_CONFIGURATION)


@pytest.mark.rfc("BR-03", "BR-04")
@given(st.lists(offers, min_size=2, max_size=6), wishes)
def test_more_preferences_met_come_first_and_avoid_breaks_ties(
    offered: list[dict[str, Any]], wished: dict[str, Preference]
) -> None:
    among = stacks([made(f"p{number}", **one) for number, one in enumerate(offered)])
    try:
        chosen = choose_stacks(properties_of(wished), among, secured=False)
    except EstablishmentError:
        return

    def score(stack: Any) -> tuple[int, int]:
        preferred = sum(
            level is Preference.PREFER and offer(stack, name) is not NEVER
            for name, level in wished.items()
        )
        avoided = sum(
            level is Preference.AVOID and offer(stack, name) is ALWAYS
            for name, level in wished.items()
        )
        return (-preferred, avoided)

    scores = [score(stack) for stack in chosen]
    assert scores == sorted(scores)
    # Where all is equal the order of the plugins stays.
    for (one, first), (two, second) in zip(
        zip(scores, chosen, strict=True), zip(scores[1:], chosen[1:], strict=True), strict=False
    ):
        if one == two:
            assert among.index(first) < among.index(second)


@pytest.mark.rfc("BR-09", "P-06", "TT-01")
def test_with_the_defaults_tcp_is_it() -> None:
    assert names(choose_stacks(TransportProperties(), stacks(), secured=False)) == ["tcp"]
    assert names(choose_stacks(TransportProperties(), stacks(), secured=True)) == ["tls/tcp"]


@pytest.mark.rfc("BR-04", "BR-09")
def test_what_is_said_counts_before_what_is_default() -> None:
    """multistreaming is preferred by default; an explicit wish must beat it."""
    streams = made("streams", multistreaming=ALWAYS, reliability=ALWAYS, preserveOrder=ALWAYS,
                   congestionControl=ALWAYS, fullChecksumSend=ALWAYS, fullChecksumRecv=ALWAYS,
                   keepAlive=NEVER)  # fmt: skip
    plain = made("plain", reliability=ALWAYS, preserveOrder=ALWAYS, congestionControl=ALWAYS,
                 fullChecksumSend=ALWAYS, fullChecksumRecv=ALWAYS, keepAlive=ALWAYS)  # fmt: skip
    among = stacks([plain, streams])
    assert names(choose_stacks(TransportProperties(), among, secured=False)) == ["streams", "plain"]
    wish = TransportProperties().prefer("keepAlive")
    assert names(choose_stacks(wish, among, secured=False)) == ["plain", "streams"]
    wish = TransportProperties().avoid("multistreaming")
    assert names(choose_stacks(wish, among, secured=False)) == ["plain", "streams"]


@pytest.mark.rfc("A-02", "A-11", "SR-01", "CG-08")
def test_secured_and_plain_stacks_never_race() -> None:
    tcp, tls = find("tcp"), find("tls")
    both = stacks([tcp, tls])
    assert names(choose_stacks(TransportProperties(), both, secured=True)) == ["tls/tcp"]
    assert names(choose_stacks(TransportProperties(), both, secured=False)) == ["tcp"]
    with pytest.raises(EstablishmentError) as caught:
        choose_stacks(TransportProperties(), stacks([tcp]), secured=True)
    assert caught.value.reason is Reason.NO_CANDIDATES


@pytest.mark.rfc("P-44", "TT-04")
def test_what_may_double_a_message_needs_leave() -> None:
    wish = (
        TransportProperties()
        .no_preference("reliability")
        .no_preference("preserveOrder")
        .no_preference("congestionControl")
        .require("preserveMsgBoundaries")
    )
    with pytest.raises(EstablishmentError) as caught:
        choose_stacks(wish, stacks(), secured=False)
    assert "safelyReplayable" in str(caught.value)
    wish.set("safelyReplayable", True)
    assert "udp" in names(choose_stacks(wish, stacks(), secured=False))


def test_what_this_machine_has_not_is_left_out() -> None:
    good = dict.fromkeys(FEATURES, EITHER)
    among = stacks([made("gone", **good), made("here", **good)])
    assert names(choose_stacks(TransportProperties(), among, secured=False)) == ["here"]
    with pytest.raises(EstablishmentError) as caught:
        choose_stacks(TransportProperties(), among[:1], secured=False)
    assert "gone" in str(caught.value)


# -- Addresses --

V4 = [(f"192.0.2.{number}", 1) for number in range(9)]
V6 = [(f"2001:db8::{number}", 1, 0, 0) for number in range(9)]


@pytest.mark.rfc("HE-09")
@given(st.lists(st.sampled_from(V4 + V6), unique=True))
def test_interleaving_keeps_all_and_alternates(addresses: list[Any]) -> None:
    mixed = interleave(addresses)
    assert sorted(mixed) == sorted(addresses)
    if addresses:
        assert mixed[0] == addresses[0]
    for family in (V4, V6):
        assert [one for one in mixed if one in family] == [
            one for one in addresses if one in family
        ]
    # As long as there are both, neighbours differ.
    few = min(sum(one in V4 for one in addresses), sum(one in V6 for one in addresses))
    for one, two in pairwise(mixed[: 2 * few]):
        assert (one in V4) is not (two in V4)


@pytest.mark.rfc("CT-02")
def test_a_candidate_says_what_it_is() -> None:
    stack = (find("tls"), find("tcp"))
    candidate = Candidate(stack, ("2001:db8::1", 443, 0, 0), ("::", 0, 0, 0), "a.example")
    assert str(candidate) == "tls/tcp to [2001:db8::1]:443 from [::]:0"
    assert [plugin.name for plugin in plugins_of(candidate)] == ["tcp", "tls"]


# -- Paths --


def path(name: str, kind: InterfaceType = InterfaceType.WIRED, **more: Any) -> Path:
    address = LocalAddress("192.0.2.9", AF_INET)
    return Path(name, kind, more.pop("addresses", (address,)), network=f"net-{name}", **more)


WIRED, WIFI, VPN = (
    path("eth0"),
    path("wlan0", InterfaceType.WIFI, addresses=(LocalAddress("2001:db8::9", AF_INET6),)),
    path("tun0", InterfaceType.TUNNEL, pvds=("corp.example",)),
)
MACHINE = Survey((WIRED, WIFI, VPN))
ANYWHERE: list[tuple[LocalEndpoint | None, tuple[Any, ...]]] = [(None, ())]


def wishing(**wishes: list[tuple[str, Any]]) -> TransportProperties:
    properties = TransportProperties()
    for name, pairs in wishes.items():
        properties.set(name, pairs)
    return properties


def ways(
    properties: TransportProperties, policy: SystemPolicy | None = None, **more: Any
) -> list[str | None]:
    found = choose_ways(ANYWHERE, properties, policy or SystemPolicy(), MACHINE, **more)
    return [way.interface for way in found if way.cut is None]


@pytest.mark.rfc("BR-06", "P-11", "P-12", "BR-02", "CT-09", "CG-03")
@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({}, [None]),
        ({"interface": [("require", "eth0")]}, ["eth0"]),
        ({"interface": [("prohibit", "eth0")]}, ["wlan0", "tun0"]),
        ({"interface": [("require", InterfaceType.TUNNEL)]}, ["tun0"]),
        (
            {"interface": [("prohibit", InterfaceType.WIFI), ("prohibit", InterfaceType.TUNNEL)]},
            ["eth0"],
        ),
        ({"interface": [("prefer", "wlan0")]}, ["wlan0", None]),
        ({"interface": [("avoid", "eth0")]}, ["wlan0", "tun0", None]),
        ({"interface": [("prohibit", "eth0"), ("prefer", "tun0")]}, ["tun0", "wlan0"]),
        ({"interface": [("prohibit", "eth0"), ("avoid", "wlan0")]}, ["tun0", "wlan0"]),
        ({"pvd": [("require", "corp.example")]}, ["tun0"]),
        ({"pvd": [("prefer", "corp.example")]}, ["tun0", None]),
        ({"pvd": [("prohibit", "corp.example")]}, ["eth0", "wlan0"]),
        ({"pvd": [("require", "elsewhere.example")]}, []),
    ],
)
def test_wishes_about_paths(
    wishes: dict[str, list[tuple[str, Any]]], expected: list[str | None]
) -> None:
    assert ways(wishing(**wishes)) == expected


NAMES = st.sampled_from(["eth0", "wlan0", "tun0", "no0", *InterfaceType])
PAIRS = st.lists(st.tuples(st.sampled_from(LEVELS), NAMES), max_size=4)


@pytest.mark.rfc("MU-11", "A-01", "P-11", "BR-01", "BR-02", "CG-01")
@given(st.lists(offers, min_size=1, max_size=3), wishes, PAIRS, st.lists(NAMES, max_size=2))
def test_every_leaf_of_any_tree_respects_require_prohibit_and_the_policy(
    offered: list[dict[str, Any]],
    wished: dict[str, Preference],
    about: list[tuple[Preference, Any]],
    forbidden: list[Any],
) -> None:
    properties = properties_of(wished).set("interface", about)
    policy = SystemPolicy(prohibited_interfaces=forbidden)
    among = stacks([made(f"p{number}", **one) for number, one in enumerate(offered)])
    root = tree(
        choose_ways(ANYWHERE, properties, policy, MACHINE),
        lambda way: judge_stacks(properties, among, secured=False, policy=policy),
        [remote("192.0.2.1"), remote("2001:db8::1")],
    )
    kinds = {one.interface: {one.interface, one.type} for one in MACHINE.paths}
    strict = [one for one in about if one[0] in (Preference.REQUIRE, Preference.PROHIBIT)]
    for leaf in leaves(root):
        assert leaf.candidate is not None
        if leaf.candidate.interface is None:
            assert not strict
            assert not forbidden
        else:
            fits = kinds[leaf.candidate.interface]
            assert not fits & set(forbidden)
            for level, what in strict:
                assert (what in fits) is (level is Preference.REQUIRE)
        for name, level in wished.items():
            found = offer(leaf.candidate.stack, name)
            assert not (level is Preference.REQUIRE and found is NEVER)
            assert not (level is Preference.PROHIBIT and found is ALWAYS)
    # And whatever is left out says why.
    for node in root.walk():
        if node.candidate is not None and node not in leaves(root):
            assert node.cut


def test_each_path_that_is_cut_says_why() -> None:
    down = path("eth1", up=False)
    found = choose_ways(
        ANYWHERE,
        wishing(interface=[("prohibit", "eth0")]),
        SystemPolicy(prohibited_interfaces=["wlan0"]),
        Survey((*MACHINE.paths, down)),
    )
    assert {way.interface: way.cut for way in found} == {
        "tun0": None,
        "eth0": "interface eth0 is prohibited",
        "wlan0": "policy prohibits the interface wlan0",
        "eth1": "it is down",
    }


@pytest.mark.rfc("PE-04", "BR-05")
def test_a_policy_has_its_say_about_paths() -> None:
    nothing = TransportProperties()
    assert ways(nothing, SystemPolicy(prohibited_interfaces=["eth0"])) == ["wlan0", "tun0"]
    assert ways(nothing, SystemPolicy(allowed_interfaces=[InterfaceType.WIFI])) == ["wlan0"]
    assert ways(nothing, SystemPolicy(preferred_interfaces=["tun0"])) == ["tun0", None]
    both = SystemPolicy(preferred_interfaces=["tun0", "eth0"], prohibited_interfaces=["wlan0"])
    assert ways(nothing, both) == ["tun0", "eth0"]
    # The application's explicit wish counts first among what the policy allows.
    assert ways(wishing(interface=[("prefer", "eth0")]), both) == ["eth0", "tun0"]
    assert ways(wishing(interface=[("require", "wlan0")]), both) == []


@pytest.mark.rfc("BR-07", "BR-05", "CA-06", "SH-15")
def test_what_the_application_will_do_ranks_paths() -> None:
    """By what was measured, only among paths that are otherwise equal."""
    times = {"net-eth0": 0.2, "net-wlan0": 0.01, "net-tun0": 0.05}
    wish = wishing(interface=[("prohibit", "lo")])
    assert ways(wish) == ["eth0", "wlan0", "tun0"]
    assert ways(wish, performance=times.__getitem__) == ["wlan0", "tun0", "eth0"]
    wish = wishing(interface=[("prohibit", "lo"), ("prefer", "eth0")])
    assert ways(wish, performance=times.__getitem__) == ["eth0", "wlan0", "tun0"]


# -- The tree --


def verdicts(*stacks_: Any) -> list[Verdict]:
    return [Verdict(stack, None, (), ()) for stack in stacks_]


def grown(
    remotes: list[RemoteEndpoint], way: list[Way] | None = None, stacks_: Any = None, **more: Any
) -> Node:
    judged = verdicts(*(stacks_ or [(find("tcp"),)]))
    return tree(way or [Way()], lambda way: judged, remotes, **more)


def remote(text: str, port: int = 1) -> RemoteEndpoint:
    return RemoteEndpoint().with_ip_address(text).with_port(port)


def shown(root: Node) -> list[str]:
    return [str(node.candidate) for node in leaves(root)]


@pytest.mark.rfc("CT-01", "CT-02", "CT-03", "CT-04", "CG-01")
def test_paths_then_stacks_then_endpoints() -> None:
    stacks_ = [(find("tcp"),), (find("udp"),)]
    root = grown(
        [remote("192.0.2.1"), RemoteEndpoint().with_hostname("a.example").with_port(2)],
        [Way("eth0"), Way("wlan0")],
        stacks_,
    )
    assert [str(node) for node in root.walk()] == [
        "1 [any, any, any]",
        "1.1 [any, eth0, any]",
        "1.1.1 [any, eth0, tcp]",
        "1.1.1.1 [192.0.2.1:1, eth0, tcp]",
        "1.1.1.2 [a.example:2, eth0, tcp]",
        "1.1.2 [any, eth0, udp]",
        "1.1.2.1 [192.0.2.1:1, eth0, udp]",
        "1.1.2.2 [a.example:2, eth0, udp]",
        "1.2 [any, wlan0, any]",
        "1.2.1 [any, wlan0, tcp]",
        "1.2.1.1 [192.0.2.1:1, wlan0, tcp]",
        "1.2.1.2 [a.example:2, wlan0, tcp]",
        "1.2.2 [any, wlan0, udp]",
        "1.2.2.1 [192.0.2.1:1, wlan0, udp]",
        "1.2.2.2 [a.example:2, wlan0, udp]",
    ]
    # A node has one kind of children; a leaf is an attempt, and a name is none.
    for node in root.walk():
        assert (node.branch is None) is (node.candidate is not None)
        assert len({child.branch for child in node.children if child.branch}) <= 1
    assert [node.unresolved for node in root.walk()].count(True) == 4


@pytest.mark.rfc("CT-05")
def test_the_path_beats_the_protocol() -> None:
    """The better stack is only there on the second path: the first path goes first all the same."""
    root = tree(
        [Way("wlan0"), Way("lte0")],
        lambda way: verdicts((find("tcp"),)) if way.interface == "wlan0" else
        verdicts((find("udp"),), (find("tcp"),)),
        [remote("192.0.2.1")],
    )  # fmt: skip
    assert shown(root) == [
        "tcp to 192.0.2.1:1 on wlan0", "udp to 192.0.2.1:1 on lte0", "tcp to 192.0.2.1:1 on lte0",
    ]  # fmt: skip


@pytest.mark.rfc("CT-05", "CT-10", "CA-08")
def test_a_stack_that_never_worked_here_is_no_candidate_if_another_did() -> None:
    good = dict.fromkeys(FEATURES, ALWAYS)
    one, two = (made(name, **good) for name in ("one", "two"))
    among = stacks([one, two])
    scores = {"one": -0.9, "two": 0.9}

    def judge(known: dict[str, float]) -> list[tuple[str, str | None]]:
        found = judge_stacks(
            TransportProperties(),
            among,
            secured=False,
            policy=SystemPolicy(),
            score=lambda stack: known.get(stack[0].name, 0.0),
        )
        return [("/".join(p.name for p in verdict.stack), verdict.cut) for verdict in found]

    assert judge({}) == [("one", None), ("two", None)]
    assert judge({"two": 0.9}) == [("two", None), ("one", None)]
    assert judge({"one": -0.9}) == [("two", None), ("one", None)]
    (first, kept), (second, why) = judge(scores)
    assert (first, kept, second) == ("two", None, "one")
    assert why == "has not worked on this path, and two has"
    # A little bad luck decides nothing.
    assert judge({"one": -0.4, "two": 0.4}) == [("one", None), ("two", None)]


@pytest.mark.rfc("PE-04")
def test_a_policy_has_its_say_about_stacks() -> None:
    tcp, udp = (find("tcp"),), (find("udp"),)
    wish = properties_of({})
    both = [tcp, udp]

    def chosen(policy: SystemPolicy) -> list[str]:
        return names(choose_stacks(wish, both, secured=False, policy=policy))

    assert chosen(SystemPolicy()) == ["tcp", "udp"]
    assert chosen(SystemPolicy(preferred_protocols=["udp"])) == ["udp", "tcp"]
    assert chosen(SystemPolicy(prohibited_protocols=["tcp"])) == ["udp"]
    assert chosen(SystemPolicy(allowed_protocols=["tcp"])) == ["tcp"]
    with pytest.raises(EstablishmentError) as caught:
        chosen(SystemPolicy(allowed_protocols=["sctp"]))
    assert caught.value.reason is Reason.POLICY_PROHIBITED
    # What is explicitly preferred counts before the policy's order, defaults after it.
    wish = properties_of({"keepAlive": Preference.PREFER})
    assert chosen(SystemPolicy(preferred_protocols=["udp"])) == ["tcp", "udp"]


@pytest.mark.rfc("A-11", "CG-08", "SR-01", "SR-02")
def test_other_security_is_raced_only_if_policy_calls_it_equivalent() -> None:
    one, two = made("one", safe=True), made("two", safe=True)
    wish = properties_of({})

    def chosen(policy: SystemPolicy) -> list[str]:
        return names(choose_stacks(wish, stacks([one, two]), secured=True, policy=policy))

    assert chosen(SystemPolicy()) == ["one"]
    assert chosen(SystemPolicy(preferred_protocols=["two"])) == ["two"]
    assert chosen(SystemPolicy(equivalent_security=[("two", "three", "one")])) == ["one", "two"]
    assert chosen(SystemPolicy(equivalent_security=[("two",), ("one",)])) == ["one"]


@pytest.mark.rfc("CT-08", "P-13")
def test_temporary_addresses() -> None:
    ends = [remote("192.0.2.1"), remote("2001:db8::1")]
    assert shown(grown(ends)) == ["tcp to 192.0.2.1:1", "tcp to [2001:db8::1]:1"]
    assert shown(grown(ends, temporary=Preference.PREFER)) == [
        "tcp to [2001:db8::1]:1", "tcp to 192.0.2.1:1",
    ]  # fmt: skip
    assert shown(grown(ends, temporary=Preference.REQUIRE)) == ["tcp to [2001:db8::1]:1"]


def test_local_addresses_and_families() -> None:
    ends = [remote("192.0.2.1"), remote("2001:db8::1")]
    here = Way(addresses=(("192.0.2.8", 0), ("192.0.2.9", 0)))
    root = grown(ends, [here])
    assert shown(root) == [
        "tcp to 192.0.2.1:1 from 192.0.2.8:0", "tcp to 192.0.2.1:1 from 192.0.2.9:0",
    ]  # fmt: skip
    (cut,) = [node for node in root.walk() if node.cut]
    assert cut.cut == NO_FAMILY
    (leaf,) = leaves(grown([remote("192.0.2.1")], [Way(local=LocalEndpoint().with_port(7))]))
    assert leaf.candidate is not None
    assert leaf.candidate.local == ("0.0.0.0", 7)
    root = grown(ends, [Way("eth0", versions=frozenset((4,)))])
    assert [node.cut for node in root.walk() if node.cut] == ["eth0 has no IPv6 address"]


@pytest.mark.rfc("HE-13")
def test_an_ipv4_address_on_a_network_without_ipv4_is_left_to_be_translated() -> None:
    def kinds(way: Way) -> list[tuple[bool, bool]]:
        root = grown([remote("192.0.2.1"), remote("2001:db8::1")], [way])
        return [(node.unresolved, node.candidate is not None) for node in root.walk()][3:]

    alone = Way("eth0", versions=frozenset((6,)), lacks_ipv4=True)
    assert kinds(alone) == [(True, False), (False, True)]
    assert kinds(Way("eth0", versions=frozenset((4, 6)))) == [(False, True), (False, True)]


@pytest.mark.rfc("HE-13")
@pytest.mark.parametrize(
    ("addresses", "lacks"),
    [
        (("2001:db8::1",), True),
        (("2001:db8::1", "192.0.2.1"), False),
        ((), False),
        (("192.0.2.1",), False),
    ],
)
def test_whether_a_machine_has_ipv6_alone(addresses: tuple[str, ...], lacks: bool) -> None:
    loopback = (LocalAddress("127.0.0.1", AF_INET), LocalAddress("::1", AF_INET6))
    seen = Survey(
        (
            Path("lo", InterfaceType.LOOPBACK, loopback),
            Path("eth0", InterfaceType.WIRED, tuple(LocalAddress(one, 0) for one in addresses)),
        )
    )
    for wishes in (TransportProperties(), TransportProperties().prefer("interface", "eth0")):
        ways = choose_ways([(None, ())], wishes, SystemPolicy(), seen)
        assert {way.lacks_ipv4 for way in ways} == {lacks}


@pytest.mark.rfc("CA-06", "CA-03", "BR-05")
def test_endpoints_that_worked_before_go_first() -> None:
    ends = [remote(f"192.0.2.{number}") for number in range(3)]
    past = {"192.0.2.0": -0.9, "192.0.2.2": 0.9}
    root = grown(ends, past=lambda way, stack, end: past.get(end, 0.0))
    assert shown(root) == [f"tcp to 192.0.2.{number}:1" for number in (2, 1, 0)]


# -- What a name turns out to be --


def named_node() -> Node:
    root = grown([RemoteEndpoint().with_hostname("a.example").with_port(1)])
    return root.children[0].children[0].children[0]


@pytest.mark.rfc("CT-06", "CT-01")
def test_addresses_below_their_name() -> None:
    node = named_node()
    first = Derived(("192.0.2.1", 1), "a.example", "A")
    late = Derived(("2001:db8::1", 1, 0, 0), "a.example", "AAAA")
    (one,) = attach(node, [first], [first])
    (two,) = attach(node, [late], [late, first])
    assert [child.number for child in node.children] == ["1.1.1.1.1", "1.1.1.1.2"]
    assert (one.place, two.place) == (1, 0)
    assert one.candidate is not None
    assert one.candidate.hostname == "a.example"
    assert one.why == ("found by A",)


@pytest.mark.rfc("CT-07")
def test_targets_are_branches() -> None:
    node = named_node()
    found = [
        Derived((f"192.0.2.{target}{number}", 1), "a.example", "SRV", target)
        for target in (2, 1)
        for number in (1, 2)
    ]
    attach(node, found, found)
    assert [(group.what, [leaf.what for leaf in group.children]) for group in node.children] == [
        ("target 2", ["192.0.2.21:1", "192.0.2.22:1"]),
        ("target 1", ["192.0.2.11:1", "192.0.2.12:1"]),
    ]
    assert [group.place for group in node.children] == [0, 2]


@pytest.mark.rfc("CT-12", "SR-03")
@pytest.mark.parametrize("targets", [1, 300])
def test_no_node_gets_too_many_children(targets: int) -> None:
    node = named_node()
    found = [
        Derived((f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 1), group=n % targets if n else 0)
        for n in range(10_000)
    ]
    attach(node, found, found)
    for one in node.walk():
        assert len(one.children) <= MAX_CHILDREN


# -- Always the same, and quick --


@pytest.mark.rfc("A-13", "TP-05", "SH-05", "BR-10")
def test_a_thousand_times_the_same() -> None:
    properties = TransportProperties().prefer("keepAlive").avoid("softErrorNotify")
    properties.no_preference("reliability").no_preference("preserveOrder")
    properties.no_preference("congestionControl").set("safelyReplayable", True)
    properties.set("interface", [("avoid", "eth0"), ("prohibit", "lo")])
    remotes = [remote(f"192.0.2.{number}") for number in range(5)]

    def once() -> tuple[str, ...]:
        policy = SystemPolicy(preferred_protocols=["udp"])
        judged = judge_stacks(properties, stacks(), secured=False, policy=policy)
        found = choose_ways(ANYWHERE, properties.copy(), policy, MACHINE)
        return tuple(map(str, tree(found, lambda way: judged, remotes).walk()))

    assert len({once() for _ in range(1000)}) == 1


def test_ten_thousand_candidates_in_a_second() -> None:
    """The bound is for a slow and busy machine; the CPU's time counts, not the clock's."""
    remotes = [remote(f"10.{number >> 8}.{number & 255}.1", number + 1) for number in range(10_000)]
    properties = TransportProperties()
    begun = process_time()
    judged = judge_stacks(properties, stacks(), secured=False, policy=SystemPolicy())
    root = tree([Way()], lambda way: judged, remotes, past=lambda way, stack, end: 0.0)
    assert len(leaves(root)) == 10_000
    assert process_time() - begun < 1
