"""Require and Prohibit hold for every property and whatever protocols offer; same in, same out.

With protocols made up for it, so that all combinations are there (RFC 9622 section 6.2).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from greentaps.errors import EstablishmentError, Reason
from greentaps.plugins import ALWAYS, EITHER, NEVER, Offer, Plugin
from greentaps.taps.choosing.candidates import choose_stacks
from greentaps.taps.properties import (
    NO_PREFERENCE,
    PROHIBIT,
    REQUIRE,
    TABLE,
    Preference,
    TransportProperties,
    contradictions,
)
from hypothesis import given
from hypothesis import strategies as st

# useTemporaryLocalAddress is a matter of paths, not of stacks.
NAMES = [row.name for row in TABLE if row.is_preference and row.name != "useTemporaryLocalAddress"]


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Instead of the check of the same name: nothing here opens anything."""


def made_up(title: str, offered: dict[str, Offer]) -> tuple[Plugin, ...]:
    plugin = Plugin()
    plugin.name = title  # type: ignore[misc]
    plugin.offers = {**dict.fromkeys(NAMES, EITHER), **offered}  # type: ignore[misc]
    return (plugin,)


def asking(levels: dict[str, Any]) -> TransportProperties:
    return TransportProperties(**levels)


def agrees(level: Preference, offered: Offer) -> bool:
    return not (
        (level is REQUIRE and offered is NEVER) or (level is PROHIBIT and offered is ALWAYS)
    )


@pytest.mark.rfc("MU-11", "TP-05", "BR-02")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("level", "offered"), list(product(Preference, Offer)))
def test_every_level_against_every_offer(name: str, level: Preference, offered: Offer) -> None:
    stack = made_up("one", {name: offered})
    properties = asking(dict.fromkeys(NAMES, NO_PREFERENCE)).set(name, level)
    if agrees(level, offered):
        assert choose_stacks(properties, [stack], secured=False) == [stack]
    else:
        with pytest.raises(EstablishmentError, match=name) as caught:
            choose_stacks(properties, [stack], secured=False)
        assert caught.value.reason is Reason.NO_CANDIDATES


LEVELS = st.fixed_dictionaries({name: st.sampled_from(Preference) for name in NAMES})
OFFERS = st.fixed_dictionaries({name: st.sampled_from(Offer) for name in NAMES})


@pytest.mark.rfc("MU-11", "TP-05", "SH-05", "A-13")
@given(levels=LEVELS, offers=st.lists(OFFERS, min_size=1, max_size=6))
def test_any_wishes_against_any_protocols(
    levels: dict[str, Preference], offers: list[dict[str, Offer]]
) -> None:
    properties = asking(levels)
    among = [made_up(f"p{index}", offered) for index, offered in enumerate(offers)]
    fit = [
        stack
        for stack in among
        if all(agrees(level, stack[0].offers[name]) for name, level in levels.items())
    ]
    outcomes = []
    reasons = set()
    for _ in range(3):
        try:
            outcomes.append(choose_stacks(properties.copy(), list(among), secured=False))
        except EstablishmentError as error:
            outcomes.append([])
            reasons.add(error.reason)
    if contradictions(properties):
        assert reasons == {Reason.INVALID_CONFIGURATION}
    else:
        assert reasons == (set() if fit else {Reason.NO_CANDIDATES})
    assert outcomes[0] == outcomes[1] == outcomes[2]
    if not contradictions(properties):
        assert sorted(map(id, outcomes[0])) == sorted(map(id, fit))


@pytest.mark.rfc("TP-05", "SH-05", "A-13")
def test_a_hundred_times_the_same() -> None:
    among = [made_up(f"p{index}", {}) for index in range(5)]
    first = choose_stacks(TransportProperties(), among, secured=False)
    for _ in range(100):
        assert choose_stacks(TransportProperties(), among, secured=False) == first
