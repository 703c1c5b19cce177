"""Candidates: what is required is there, what is prohibited is not, and nothing is by chance."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from greentaps import EstablishmentError, Preference, Reason, TransportProperties
from greentaps.plugins import ALWAYS, EITHER, NEVER, Plugin, find, offer, stacks
from greentaps.taps.candidates import (
    Candidate,
    choose_stacks,
    interleave,
    plugins_of,
)
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
