"""The ready-made sets of properties (RFC 9622 appendix B.2)."""

from __future__ import annotations

from typing import Any

import pytest
from greentaps.taps.properties import (
    TABLE,
    PropertyTypeError,
    PropertyValueError,
    TransportProperties,
    TransportPropertyProfiles,
    contradictions,
)

COLUMNS = (
    "reliability",
    "preserveOrder",
    "congestionControl",
    "preserveMsgBoundaries",
    "safelyReplayable",
)
REQUIRE, AVOID, NONE = "Require", "Avoid", "No Preference"
CASES = [
    pytest.param(
        "reliable-inorder-stream",
        (REQUIRE, REQUIRE, REQUIRE, NONE, "False"),
        marks=pytest.mark.rfc("PF-01"),
    ),
    pytest.param(
        "reliable-message",
        (REQUIRE, REQUIRE, REQUIRE, REQUIRE, "False"),
        marks=pytest.mark.rfc("PF-02"),
    ),
    pytest.param(
        "unreliable-datagram",
        (AVOID, AVOID, NONE, REQUIRE, "True"),
        marks=pytest.mark.rfc("PF-03"),
    ),
]


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Instead of the check of the same name: nothing here opens anything."""


@pytest.mark.rfc("SH-07")
@pytest.mark.parametrize(("profile", "values"), CASES)
def test_a_profile_sets_its_column_and_nothing_else(profile: str, values: tuple[str, ...]) -> None:
    properties = TransportProperties(profile)
    assert tuple(str(properties.get(name)) for name in COLUMNS) == values
    for row in TABLE:
        if row.name not in COLUMNS and row.group.places and row.derive is None:
            assert properties.get(row.name) == TransportProperties().get(row.name)
    assert set(properties.explicit()) <= set(COLUMNS)
    assert contradictions(properties) == []


@pytest.mark.parametrize(("profile", "values"), CASES)
def test_what_was_left_out_of_a_profile_is_not_set(profile: str, values: tuple[str, ...]) -> None:
    set_ = TransportProperties(profile).is_set("safelyReplayable")
    assert set_ is (values[-1] == "True")


@pytest.mark.parametrize(
    ("spelling", "member"),
    [
        (1, "RELIABLE_INORDER_STREAM"),
        (2, "RELIABLE_MESSAGE"),
        (3, "UNRELIABLE_DATAGRAM"),
        ("reliable_inorder_stream", "RELIABLE_INORDER_STREAM"),
        ("RELIABLE_MESSAGE", "RELIABLE_MESSAGE"),
        ("Unreliable Datagram", "UNRELIABLE_DATAGRAM"),
        ("unrealiable-datagram", "UNRELIABLE_DATAGRAM"),
    ],
)
def test_spellings(spelling: Any, member: str) -> None:
    profile = TransportPropertyProfiles[member]
    assert TransportPropertyProfiles(spelling) is profile
    assert TransportProperties(spelling) == TransportProperties(profile)
    assert TransportProperties(property_profile=spelling) == TransportProperties(profile)


def test_the_misspelt_constant() -> None:
    assert (
        TransportPropertyProfiles["UNREALIABLE_DATAGRAM"]
        is TransportPropertyProfiles.UNRELIABLE_DATAGRAM
    )
    assert len(TransportPropertyProfiles) == 3


def test_values_are_set_after_the_profile() -> None:
    properties = TransportProperties("unreliable-datagram", reliability="prohibit")
    assert str(properties.get("reliability")) == "Prohibit"
    assert str(properties.default("reliability").get("reliability")) == "Require"


def test_no_such_profile() -> None:
    with pytest.raises(PropertyValueError, match="reliable-message"):
        TransportProperties("reliable-carrier-pigeon")
    with pytest.raises(PropertyTypeError, match="reliable-message"):
        TransportProperties(1.5)  # type: ignore[arg-type]
