"""The table of states: RFC 9622 section 11, and nothing beside it."""

from __future__ import annotations

import pytest
from greentaps import ConnectionState
from greentaps.taps.states import TRANSITIONS

ESTABLISHING, ESTABLISHED, CLOSING, CLOSED = ConnectionState


@pytest.mark.rfc("ST-01", "P-32")
def test_there_are_four_states() -> None:
    assert [state.value for state in ConnectionState] == [
        "Establishing",
        "Established",
        "Closing",
        "Closed",
    ]


@pytest.mark.rfc("ST-01")
def test_a_connection_only_moves_forward() -> None:
    order = list(ConnectionState)
    assert all(order.index(before) < order.index(after) for before, after in TRANSITIONS)


def test_every_state_is_reached_and_only_closed_is_the_end() -> None:
    assert {after for _, after in TRANSITIONS} == {ESTABLISHED, CLOSING, CLOSED}
    assert {before for before, _ in TRANSITIONS} == {ESTABLISHING, ESTABLISHED, CLOSING}


def test_an_established_connection_is_never_closed_at_a_stroke() -> None:
    assert (ESTABLISHED, CLOSED) not in TRANSITIONS
    assert (ESTABLISHING, CLOSED) in TRANSITIONS
    assert all(TRANSITIONS.values())
