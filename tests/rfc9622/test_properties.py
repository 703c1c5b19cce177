"""The property system: names, values, who may set what and when, and read-back.

Pure: no Connection is made here.  The effect of a property on the network is proved elsewhere.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import math
import pickle
import random
import re
import warnings
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from greentaps.errors import GreentapsError
from greentaps.taps import names, properties
from greentaps.taps.properties import (
    AVOID,
    BEYOND,
    BOOLEAN,
    DISABLED,
    FULL_COVERAGE,
    INFINITE,
    MESSAGE_DEFAULTS,
    NO_PREFERENCE,
    NOT_APPLICABLE,
    PREFER,
    PREFERENCE,
    PROHIBIT,
    REQUIRE,
    RESERVED_KEYWORDS,
    TABLE,
    UNLIMITED,
    CapacityProfile,
    ConnectionProperties,
    ConnectionState,
    Direction,
    Enumeration,
    ErrorCode,
    Group,
    InterfaceType,
    MultipathMode,
    MultipathPolicy,
    Place,
    Preference,
    Property,
    PropertyError,
    PropertyMomentError,
    PropertyNameError,
    PropertyNameWarning,
    PropertyReadOnlyError,
    PropertyRefusedError,
    PropertyTypeError,
    PropertyUnsupportedError,
    PropertyValueError,
    Role,
    Scheduler,
    Special,
    TransportProperties,
    UnknownPropertyError,
    check_message_property,
    contradictions,
    find_property,
    integer,
    message_contradictions,
    message_value,
    numeric,
    resolve_message,
)
from hypothesis import given, settings
from hypothesis import strategies as st

SETTABLE = [row for row in TABLE if row.group.places]
READ_ONLY = [row for row in TABLE if not row.group.places]
PREFERENCES = [row for row in TABLE if row.is_preference]
of = pytest.mark.parametrize


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Instead of the check of the same name: nothing here opens anything."""


def by_name(rows: list[Property] | tuple[Property, ...]) -> pytest.MarkDecorator:
    return of("row", rows, ids=[row.name for row in rows])


def other_than_default(row: Property) -> Any:
    """A value of *row* that is not its default."""
    if row.type == BOOLEAN:
        return not row.default
    if isinstance(row.type, Enumeration):
        return next(one for one in row.type.words if one is not row.default)
    return row.type.example


# -- names --


@pytest.mark.rfc("T-09", "T-15")
@settings(max_examples=600)
@given(row=st.sampled_from(TABLE), data=st.data())
def test_names_are_found_in_any_spelling(row: Property, data: st.DataObject) -> None:
    namespace, dot, part = row.name.rpartition(".")
    words = re.findall(r"[A-Z]?[a-z0-9]+", part)
    separators = [data.draw(st.sampled_from(["", "-", "_", " "])) for _ in words]
    spelled = words[0] + "".join(
        separator + word for separator, word in zip(separators, words[1:], strict=False)
    )
    spelled = "".join(
        letter.upper() if data.draw(st.booleans()) else letter.lower()
        for letter in namespace + dot + spelled
    )
    assert find_property(spelled) is row


@pytest.mark.rfc("T-09")
def test_connTIMEOUT() -> None:
    properties = TransportProperties(CONNTIMEOUT=5)
    assert properties.get("connTimeout") == properties.get("conn-timeout") == 5
    assert properties.get("conn_timeout") == properties.get("ConnTimeout") == 5


@pytest.mark.rfc("T-10")
def test_the_form_of_a_name() -> None:
    assert find_property("tcp.userTimeoutValue").namespace == "tcp"
    assert find_property("TCP.user-timeout-value").name == "tcp.userTimeoutValue"
    for wrong in (
        "userTimeoutValue",
        "udp.userTimeoutValue",
        "tcp.tcp.userTimeoutValue",
        "tcp.",
        ".reliability",
        "_reliability",
        "reliability_",
        "relia--bility!",
        "reliab\u0131lity",
        "",
        " reliability",
        "x.reliability",
    ):
        with pytest.raises(UnknownPropertyError):
            find_property(wrong)


@pytest.mark.rfc("T-11", "MU-01")
def test_generic_names_have_no_namespace() -> None:
    generic = [row for row in TABLE if not row.name.startswith(("tcp.", "_"))]
    assert len(generic) == 47
    for row in generic:
        assert not row.namespace
        assert re.fullmatch(r"[a-z][A-Za-z]*", row.name)


@pytest.mark.rfc("T-12", "MU-02", "MU-04", "N-10")
def test_names_of_protocols_are_the_rfcs_and_ours_are_vendors() -> None:
    for row in (*TABLE, *BEYOND):
        if row.namespace and row.namespace != "tcp":
            assert row.namespace == "_greentaps"
    assert [row.name for row in TABLE if row.namespace == "tcp"] == [
        "tcp.userTimeoutValue",
        "tcp.userTimeoutEnabled",
        "tcp.userTimeoutChangeable",
    ]
    # What section 9.3.3 leaves without a name is not given one of the IETF's.
    assert {row.namespace for row in TABLE if row.group is Group.RECEIVED} == {"_greentaps"}


@pytest.mark.rfc("T-13", "MU-03", "SH-02")
def test_properties_of_ones_own(register: Callable[..., Property]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        register("_acme.colour", integer(0), 7, "how it looks", unit="nm")
    assert not caught
    asked = TransportProperties(**{"_acme.colour": 9})
    assert asked.get("_ACME.Colour") == 9
    assert dict(asked)["_acme.colour"] == 9
    assert TransportProperties().get("_acme.colour") == 7
    assert asked.default("_acme.colour").get("_acme.colour") == 7
    live = ConnectionProperties(asked)
    live.established({}, ["udp"])  # a vendor's property is no protocol's
    live.set("_acme.colour", 3)
    assert live.get("_acme.colour") == 3
    with pytest.raises(PropertyValueError):
        live.set("_acme.colour", -1)


@pytest.mark.rfc("MU-03", "MU-04")
@of("name", ["colour", "tcp.colour", "acme.colour", "sctp.streams", "_acme", "_acme.", "._x", 7])
def test_own_names_need_a_vendors_namespace(name: Any) -> None:
    with pytest.raises(PropertyNameError):
        properties.register_property(name, BOOLEAN, False)
    assert issubclass(PropertyNameError, ValueError)


@pytest.mark.rfc("T-14", "MU-05")
@of("keyword", sorted(RESERVED_KEYWORDS))
def test_registry_keywords_are_refused_as_a_namespace(keyword: str) -> None:
    for namespace in (keyword, f"_{keyword}", f"_{keyword.upper()}"):
        with pytest.raises(PropertyNameError):
            properties.register_property(f"{namespace}.colour", BOOLEAN, False)
    with pytest.raises(UnknownPropertyError):
        find_property(f"_{keyword}.colour")


@pytest.mark.rfc("T-14", "SH-02")
@of("name", ["_x.tcpFoo", "_x.fooTCP", "_x.foo_udp", "_acme-sctp.foo", "_x.fooUDPLite"])
def test_registry_keywords_are_flagged_elsewhere(
    name: str, register: Callable[..., Property]
) -> None:
    with pytest.warns(PropertyNameWarning, match=re.escape(name)):
        register(name, BOOLEAN, False)


def test_a_name_is_taken_once(register: Callable[..., Property]) -> None:
    register("_acme.colour", BOOLEAN, False, aliases=("_acme.color",))
    for name in ("_acme.colour", "_ACME.co-lour", "_acme.Color", "_greentaps.ecn"):
        with pytest.raises(PropertyNameError, match="taken"):
            properties.register_property(name, BOOLEAN, False)
    with pytest.raises(PropertyNameError):
        properties.unregister_property("reliability")


def test_a_registered_default_is_checked() -> None:
    with pytest.raises(PropertyTypeError):
        properties.register_property("_acme.colour", BOOLEAN, "red")
    with pytest.raises(UnknownPropertyError):
        find_property("_acme.colour")


def test_a_registered_selection_property(register: Callable[..., Property]) -> None:
    register("_acme.shiny", PREFERENCE, "avoid", group=Group.SELECTION)
    assert dict(TransportProperties().preferences())["_acme.shiny"] is AVOID
    live = ConnectionProperties(TransportProperties().require("_acme.shiny"))
    live.established({"_acme.shiny": True})
    assert live.has("_acme.shiny")


# -- errors --


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(UnknownPropertyError) as caught:
        TransportProperties(realiability="Require")
    text = str(caught.value)
    assert text.startswith("no property is called 'realiability' (did you mean reliability?)")
    assert all(row.name in text for row in TABLE)
    assert caught.value.name == "realiability"
    with pytest.raises(UnknownPropertyError, match="did you mean keepAlive"):
        TransportProperties(keep_alives="Require")
    wrong: Any
    for wrong in (None, 7, b"reliability", [], Preference.AVOID):
        with pytest.raises(PropertyTypeError):
            TransportProperties().get(wrong)
        with pytest.raises(PropertyTypeError):
            TransportProperties().set(wrong, 1)


ERRORS = [
    (UnknownPropertyError, KeyError, ErrorCode.UNKNOWN),
    (PropertyNameError, ValueError, ErrorCode.NAME),
    (PropertyTypeError, TypeError, ErrorCode.TYPE),
    (PropertyValueError, ValueError, ErrorCode.VALUE),
    (PropertyReadOnlyError, AttributeError, ErrorCode.READ_ONLY),
    (PropertyMomentError, AttributeError, ErrorCode.MOMENT),
    (PropertyUnsupportedError, NotImplementedError, ErrorCode.UNSUPPORTED),
    (PropertyRefusedError, RuntimeError, ErrorCode.REFUSED),
]


@of(("kind", "builtin", "code"), ERRORS)
def test_errors_are_pythons_too(
    kind: type[PropertyError], builtin: type[Exception], code: ErrorCode
) -> None:
    error = kind("it's so", "final")
    assert isinstance(error, builtin)
    assert isinstance(error, (PropertyError, GreentapsError))
    assert str(error) == error.message == "it's so"
    assert error.name == "final"
    assert error.code is code
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.name) == (kind, "it's so", "final")


def test_there_is_one_error_for_each_code() -> None:
    assert {code for _, _, code in ERRORS} == set(ErrorCode)


# -- values --

WRONG_TYPES: list[Any] = [None, b"x", object(), 2 + 1j, (1,), [1], {}, {"a": 1}, print, float]


@pytest.mark.rfc("T-01")
@by_name(SETTABLE)
@of("wrong", WRONG_TYPES, ids=repr)
def test_every_setter_rejects_other_types(row: Property, wrong: Any) -> None:
    made = TransportProperties()
    with pytest.raises(PropertyTypeError, match=re.escape(row.name)):
        made.set(row.name, wrong)
    assert not made.is_set(row.name)
    assert made == TransportProperties()


@pytest.mark.rfc("T-01")
@by_name([row for row in SETTABLE if row.type != BOOLEAN])
@of("wrong", [True, False])
def test_only_booleans_take_booleans(row: Property, wrong: bool) -> None:
    with pytest.raises(PropertyTypeError):
        TransportProperties().set(row.name, wrong)


@pytest.mark.rfc("T-01")
@by_name([row for row in SETTABLE if row.type == BOOLEAN])
@of("wrong", [0, 1, "true", "yes", 1.0, REQUIRE], ids=repr)
def test_booleans_take_nothing_that_is_merely_true(row: Property, wrong: Any) -> None:
    with pytest.raises(PropertyTypeError, match="True or False"):
        TransportProperties().set(row.name, wrong)


NUMBERS = [row for row in SETTABLE if row.type.label in ("Integer", "Numeric")]


@pytest.mark.rfc("T-01")
@by_name(NUMBERS)
def test_ranges_of_numbers(row: Property) -> None:
    made = TransportProperties()
    whole = row.type.label == "Integer"
    least = row.type.least  # type: ignore[attr-defined]
    special = row.type.special  # type: ignore[attr-defined]
    good = [least, least + 1, 10**12] if whole else [1, 0.001, 1e300, 10**400]
    for value in good:
        assert made.set(row.name, value).get(row.name) == value
        assert type(made.get(row.name)) is type(value)
    bad = [-2, -(10**400), -0.5] if not whole else [least - 2, -(10**400)]
    bad += [0, 0.0] if least or not whole else []
    bad += [math.nan, -math.inf] if not whole else []
    bad += [] if special else [-1]
    if not special and not whole:
        bad.append(math.inf)
    for value in bad:
        with pytest.raises(PropertyError) as caught:
            made.set(row.name, value)
        assert row.type.allowed in str(caught.value)
    if whole:
        for value in (1.0, 2.5, math.nan):
            with pytest.raises(PropertyTypeError):
                made.set(row.name, value)
    assert made.get(row.name) == good[-1]  # nothing of this has stuck


@pytest.mark.rfc("T-01")
@by_name([row for row in SETTABLE if isinstance(row.type, Enumeration)])
def test_enumerations(row: Property) -> None:
    assert isinstance(row.type, Enumeration)
    for member in row.type.words:
        for spelling in (
            member,
            member.value,
            member.name,
            member.name.lower().replace("_", "-"),
            member.value.upper(),
        ):
            made = TransportProperties().set(row.name, spelling)
            assert made.get(row.name) is member
            assert TransportProperties().set(row.name, made.get(row.name)) == made
    with pytest.raises(PropertyValueError) as caught:
        TransportProperties().set(row.name, "perhaps")
    assert all(member.value in str(caught.value) for member in row.type.words)
    with pytest.raises(PropertyValueError):
        TransportProperties().set(row.name, 99)
    stranger = next(
        one
        for one in (Preference.PREFER, Scheduler.ROUND_ROBIN)
        if not isinstance(one, row.type.words)
    )
    with pytest.raises(PropertyTypeError):
        TransportProperties().set(row.name, stranger)


@pytest.mark.rfc("T-16")
def test_five_preferences() -> None:
    assert [one.value for one in Preference] == [
        "Prohibit",
        "Avoid",
        "No Preference",
        "Prefer",
        "Require",
    ]
    assert [one.opposite for one in Preference] == list(reversed(Preference))


@pytest.mark.rfc("T-20")
@of("special", list(Special), ids=repr)
def test_special_values(special: Special) -> None:
    assert copy.copy(special) is copy.deepcopy(special) is special
    assert pickle.loads(pickle.dumps(special)) is special
    assert repr(special) == special.name
    assert str(special) == special.value
    assert special == special
    assert [one for one in Special if one == special] == [special]
    assert special not in (math.inf, 0, None, special.value)


@pytest.mark.rfc("T-20")
@of("special", [one for one in Special if one is not NOT_APPLICABLE], ids=repr)
@of("number", [0, -5, 10**400, 1.5, 1e308])
def test_special_values_are_above_all_numbers(special: Special, number: float) -> None:
    assert number < special
    assert number <= special
    assert special > number
    assert special >= number
    assert not special < number
    assert not number >= special
    assert min(special, number) == number
    assert special >= special
    assert not special > special
    assert float(special) == math.inf


def test_not_applicable_is_no_number() -> None:
    with pytest.raises(TypeError):
        float(NOT_APPLICABLE)
    with pytest.raises(TypeError):
        NOT_APPLICABLE < 3  # noqa: B015
    with pytest.raises(TypeError):
        DISABLED < UNLIMITED  # noqa: B015


SPECIAL_ROWS = [row for row in NUMBERS if row.type.special]  # type: ignore[attr-defined]


@pytest.mark.rfc("T-20")
@by_name(SPECIAL_ROWS)
def test_special_values_round_trip(row: Property) -> None:
    special = row.type.special  # type: ignore[attr-defined]
    for spelling in (special, str(special), special.name.lower(), -1, math.inf):
        made = TransportProperties().set(row.name, spelling)
        assert made.get(row.name) is special
        assert made.is_set(row.name)
        assert TransportProperties().set(row.name, made.get(row.name)) == made
        live = ConnectionProperties()
        live.set(row.name, spelling)
        assert live.get(row.name) is special
    for other in Special:
        if other is not special:
            with pytest.raises(PropertyValueError, match=str(special)):
                TransportProperties().set(row.name, other)


def test_which_special_value_belongs_where() -> None:
    found = {row.name: row.type.special for row in SPECIAL_ROWS}  # type: ignore[attr-defined]
    assert found == {
        "recvChecksumLen": FULL_COVERAGE,
        "connTimeout": DISABLED,
        "keepAliveTimeout": DISABLED,
        "minSendRate": UNLIMITED,
        "minRecvRate": UNLIMITED,
        "maxSendRate": UNLIMITED,
        "maxRecvRate": UNLIMITED,
        "groupConnLimit": UNLIMITED,
        "msgLifetime": INFINITE,
        "msgChecksumLen": FULL_COVERAGE,
    }


def test_disabled_is_a_word_of_multipath_too() -> None:
    assert TransportProperties(multipath=DISABLED).get("multipath") is MultipathMode.DISABLED
    with pytest.raises(PropertyValueError):
        TransportProperties(multipath=UNLIMITED)
    with pytest.raises(PropertyTypeError):
        TransportProperties(connTimeout=MultipathMode.DISABLED)


def test_multipath_is_not_a_preference() -> None:
    with pytest.raises(PropertyTypeError, match="Disabled, Active, Passive"):
        TransportProperties().prefer("multipath")


@pytest.mark.rfc("T-21")
def test_one_unit_for_all_times() -> None:
    times = [row for row in TABLE if re.search("timeout|lifetime", row.name, re.IGNORECASE)]
    assert {row.unit for row in times if row.type != BOOLEAN} == {"seconds"}
    assert {row.unit for row in TABLE if "Rate" in row.name} == {"bit/s"}
    assert {row.unit for row in TABLE if row.name.endswith("Len")} == {"bytes"}


# -- value tables --

DSCPS = [
    ("CP-01", "Default", (0,)),
    ("CP-02", "Scavenger", (1,)),
    ("CP-03", "Low Latency/Interactive", (34, 36, 38, 46, 44)),
    ("CP-04", "Low Latency/Non-Interactive", (18, 20, 22)),
    ("CP-05", "Constant-Rate Streaming", (26, 28, 30)),
    ("CP-06", "Capacity-Seeking", (10, 12, 14)),
]


@pytest.mark.rfc("N-03")
@of(
    ("word", "dscps"),
    [pytest.param(word, dscps, marks=pytest.mark.rfc(one)) for one, word, dscps in DSCPS],
)
@of("name", ["connCapacityProfile", "msgCapacityProfile"])
def test_capacity_profiles(name: str, word: str, dscps: tuple[int, ...]) -> None:
    profile = TransportProperties().set(name, word).get(name)
    assert isinstance(profile, CapacityProfile)
    assert profile.value == word
    assert profile.dscps == dscps
    assert profile.dscp == dscps[0]
    # RFC 2597 has three drop precedences in each class: x1 to x3, never x4.
    assured = [dscp for dscp in profile.dscps if 10 <= dscp <= 38]
    assert all((dscp >> 1) & 3 in (1, 2, 3) and not dscp & 1 for dscp in assured)


def test_there_are_six_profiles() -> None:
    assert len(CapacityProfile) == len(DSCPS)


@pytest.mark.rfc("P-23")
@of(
    ("word", "section", "short"),
    [
        pytest.param(*rest, marks=pytest.mark.rfc(one))
        for one, *rest in (
            ("CS-01", "First-Come, First-Served", "3.1", "fcfs"),
            ("CS-02", "Round-Robin", "3.2", "rr"),
            ("CS-03", "Round-Robin per packet", "3.3", "rr-pkt"),
            ("CS-04", "Priority-based", "3.4", "prio"),
            ("CS-05", "Fair capacity", "3.5", "fair bandwidth"),
            ("CS-06", "Weighted Fair Queueing", "3.6", "wfq"),
        )
    ],
)
def test_schedulers(word: str, section: str, short: str) -> None:
    live = ConnectionProperties()
    live.set("connScheduler", word)
    scheduler = live.get("connScheduler")
    assert scheduler.section == section
    assert Scheduler.of(short) is scheduler
    assert len(Scheduler) == 6


def test_multipath_policies() -> None:
    for word in ("Handover", "Interactive", "Aggregate"):
        made = TransportProperties(multipathPolicy=word)
        assert made.get("multipathPolicy") is MultipathPolicy(word)
        assert made.get("multipath") is MultipathMode.DISABLED  # it asks for no second path
    assert len(MultipathPolicy) == 3


def test_states_have_their_older_numbers() -> None:
    assert [ConnectionState(number).name for number in (1, 2, 3, 4)] == [
        "ESTABLISHING",
        "ESTABLISHED",
        "CLOSING",
        "CLOSED",
    ]


# -- interface and pvd --


@of("name", ["interface", "pvd"])
def test_sets_of_preferences(name: str) -> None:
    made = TransportProperties().set(name, [("require", "a"), (AVOID, "b"), ("avoid", "b")])
    assert made.get(name) == {(REQUIRE, "a"), (AVOID, "b")}
    made.require(name, "b").prohibit(name, "c").avoid(name, "d").prefer(name, "e")
    made.no_preference(name, "a")
    assert made.get(name) == {
        (NO_PREFERENCE, "a"),
        (REQUIRE, "b"),
        (PROHIBIT, "c"),
        (AVOID, "d"),
        (PREFER, "e"),
    }
    assert TransportProperties().set(name, made.get(name)) == made
    before = made.get(name)
    copied = made.copy().require(name, "z")
    assert made.get(name) is before != copied.get(name)
    assert made.set(name, ()).get(name) == frozenset()


@of("name", ["interface", "pvd"])
@of(
    ("wrong", "kind"),
    [
        ("eth0", PropertyTypeError),
        ({"require": "eth0"}, PropertyTypeError),
        (["eth0"], PropertyTypeError),
        ([("require",)], PropertyTypeError),
        ([("require", "eth0", 1)], PropertyTypeError),
        ([("require", None)], PropertyTypeError),
        ([("require", True)], PropertyTypeError),
        ([("require", "")], PropertyValueError),
        ([("perhaps", "eth0")], PropertyValueError),
        ([(None, "eth0")], PropertyTypeError),
    ],
)
def test_wrong_sets_of_preferences(name: str, wrong: Any, kind: type[PropertyError]) -> None:
    made = TransportProperties().require(name, "lo")
    with pytest.raises(kind):
        made.set(name, wrong)
    assert made.get(name) == {(REQUIRE, "lo")}


def test_types_of_interfaces_exist_whether_or_not_this_machine_has_them() -> None:
    for kind in InterfaceType:
        made = TransportProperties().avoid("interface", kind)
        assert made.get("interface") == {(AVOID, kind)}
    assert InterfaceType("wifi") is InterfaceType.WIFI
    with pytest.raises(PropertyTypeError):
        TransportProperties().avoid("pvd", InterfaceType.WIFI)


def test_provisioning_domains_may_be_numbers() -> None:
    assert TransportProperties().require("pvd", 7).get("pvd") == {(REQUIRE, 7)}
    with pytest.raises(PropertyTypeError):
        TransportProperties().require("interface", 7)


def test_a_preference_takes_no_second_value() -> None:
    with pytest.raises(PropertyTypeError, match="no value"):
        TransportProperties().require("reliability", "eth0")
    with pytest.raises(PropertyTypeError):
        TransportProperties().require("interface")


# -- TransportProperties --


@pytest.mark.rfc("TP-01")
def test_a_new_object_has_all_defaults() -> None:
    made = TransportProperties()
    assert made.explicit() == {}
    found = dict(made)
    assert list(found) == [row.name for row in (*TABLE, *BEYOND) if row.group.places]
    for row in SETTABLE:
        assert found[row.name] == row.default == made[row.name]
        assert not made.is_set(row.name)
    assert made == TransportProperties()
    assert repr(made) == "TransportProperties()"


@pytest.mark.rfc("TP-02", "T-18")
@by_name(SETTABLE)
def test_the_last_value_counts(row: Property) -> None:
    value = other_than_default(row)
    made = TransportProperties().set(row.name, row.default).set(row.name, value)
    assert made.get(row.name) == value
    assert made.explicit()[row.name] == value
    assert made.is_set(row.name)
    assert made != TransportProperties()
    made.default(row.name)
    assert made == TransportProperties()
    assert not made.is_set(row.name)


@pytest.mark.rfc("TP-03", "AC-03")
@by_name(PREFERENCES)
def test_convenience_calls(row: Property) -> None:
    for call, level in (
        (TransportProperties.require, REQUIRE),
        (TransportProperties.prefer, PREFER),
        (TransportProperties.no_preference, NO_PREFERENCE),
        (TransportProperties.ignore, NO_PREFERENCE),
        (TransportProperties.avoid, AVOID),
        (TransportProperties.prohibit, PROHIBIT),
    ):
        made = call(TransportProperties(), row.name)
        assert made == TransportProperties().set(row.name, level)
        assert made == TransportProperties().add(row.name, level)
        assert made.explicit() == {row.name: level}


@by_name([row for row in SETTABLE if not row.is_preference])
def test_convenience_calls_are_for_preferences(row: Property) -> None:
    with pytest.raises(PropertyTypeError):
        TransportProperties().require(row.name)


@given(
    steps=st.lists(
        st.sampled_from(SETTABLE).flatmap(
            lambda row: st.tuples(
                st.just(row), st.sampled_from([row.default, row.type.example, None])
            )
        )
    )
)
def test_any_history_of_setting_and_resetting(steps: list[tuple[Property, Any]]) -> None:
    made = TransportProperties()
    kept: dict[str, Any] = {}
    for row, value in steps:
        if value is None:
            made.default(row.name)
            kept.pop(row.name, None)
        else:
            made.set(row.name, value)
            kept[row.name] = value
            if row.name == "connTimeout" and value is not DISABLED:
                kept.pop("tcp.userTimeoutChangeable", None)
    assert made.explicit() == kept
    again = TransportProperties(**kept)
    assert again == made == made.copy() == pickle.loads(pickle.dumps(made))
    assert dict(made.for_role("initiate")) == dict(made)


@of(
    ("role", "multipath", "temporary"),
    [
        ("initiate", "Disabled", "Prefer"),
        ("listen", "Passive", "Avoid"),
        ("rendezvous", "Disabled", "Avoid"),
        (Role.LISTEN, "Passive", "Avoid"),
    ],
)
def test_defaults_of_the_role(role: str, multipath: str, temporary: str) -> None:
    plain = TransportProperties()
    made = plain.for_role(role)
    assert made.role is Role(role)
    assert plain.role is None
    assert str(made.get("multipath")) == multipath
    assert str(made.get("useTemporaryLocalAddress")) == temporary
    assert made.explicit() == {}
    assert made.copy().get("multipath") is made.get("multipath")
    assert str(ConnectionProperties(made).get("multipath")) == multipath
    made.set("multipath", "active").default("multipath")
    assert str(made.get("multipath")) == multipath
    said = TransportProperties(multipath="Active").require("local-address-preference")
    assert said.for_role(role).get("multipath") is MultipathMode.ACTIVE
    assert said.for_role(role).get("useTemporaryLocalAddress") is REQUIRE


def test_there_are_three_roles() -> None:
    assert len(Role) == 3
    with pytest.raises(PropertyValueError, match="Initiate, Listen, Rendezvous"):
        TransportProperties().for_role("resolve")


def test_copies_are_apart() -> None:
    made = TransportProperties(keepAlive="prefer")
    copied, other = made.copy(), copy.copy(made)
    made.require("keepAlive").set("connTimeout", 9)
    assert copied.explicit() == other.explicit() == {"keepAlive": PREFER}
    explicit = made.explicit()
    explicit["final"] = True  # type: ignore[index]
    assert not made.is_set("final")


def test_repr_shows_what_was_set() -> None:
    made = TransportProperties(keepAlive="prefer", connTimeout=3).set("maxSendRate", "unlimited")
    assert repr(made) == (
        "TransportProperties(keepAlive='Prefer', connTimeout=3, maxSendRate=UNLIMITED)"
    )


# -- derived defaults --


@of(("level", "certain"), [(one, one is REQUIRE) for one in Preference])
@of(("name", "follows"), [("msgOrdered", "preserveOrder"), ("msgReliable", "reliability")])
def test_message_defaults_follow_selection(
    name: str, follows: str, level: Preference, certain: bool
) -> None:
    made = TransportProperties().set(follows, level)
    assert made.get(name) is certain
    live = ConnectionProperties(made)
    assert live.get(name) is certain
    for offered in (True, False):
        live.established({follows: offered})
        assert live.get(name) is offered
    live.set(name, not certain)
    assert live.get(name) is (not certain)


def test_message_profile_follows_the_connections() -> None:
    made = TransportProperties(connCapacityProfile="scavenger")
    assert made.get("msgCapacityProfile") is CapacityProfile.SCAVENGER
    live = ConnectionProperties(made)
    live.set("connCapacityProfile", "default")
    assert live.get("msgCapacityProfile") is CapacityProfile.DEFAULT
    live.set("msgCapacityProfile", "capacity-seeking")
    assert live.get("connCapacityProfile") is CapacityProfile.DEFAULT
    assert live.get("msgCapacityProfile") is CapacityProfile.CAPACITY_SEEKING


@pytest.mark.rfc("P-40")
def test_using_connTimeout_makes_the_user_timeout_unchangeable() -> None:
    name = "tcp.userTimeoutChangeable"
    made = TransportProperties(**{name: True})
    assert made.get(name) is True
    assert made.set("connTimeout", 30).get(name) is False
    assert made.set(name, True).get(name) is True  # said afterwards, it holds
    live = ConnectionProperties()
    assert live.get(name) is True
    live.set("connTimeout", 30)
    assert live.get(name) is False
    live.set(name, True)
    assert live.get(name) is True
    live.set("connTimeout", 40)
    assert live.get(name) is False


@pytest.mark.rfc("P-39", "N-01")
def test_the_user_timeout_can_be_enabled_alone() -> None:
    made = TransportProperties(**{"tcp.userTimeoutEnabled": True})
    assert not made.is_set("tcp.userTimeoutValue")
    assert made.get("tcp.userTimeoutValue") == 300
    with pytest.raises(PropertyTypeError):  # the value is the number, whatever the prose says
        made.set("tcp.userTimeoutValue", True)


@pytest.mark.rfc("P-38")
@of("name", ["tcp.userTimeoutValue", "tcp.userTimeoutEnabled", "tcp.userTimeoutChangeable"])
def test_tcps_properties_on_other_stacks(name: str) -> None:
    made = TransportProperties()
    made.set(name, made.get(name))  # beforehand that is no mistake
    live = ConnectionProperties(made, supply={"connState": ConnectionState.ESTABLISHED})
    live.established({}, ("dtls", "udp"))
    with pytest.raises(PropertyUnsupportedError, match="TCP's own") as caught:
        live.set(name, made.get(name))
    assert caught.value.code is ErrorCode.UNSUPPORTED
    assert live.get("connState") is ConnectionState.ESTABLISHED
    live.established({}, ("TLS", "TCP"))
    live.set(name, made.get(name))


@pytest.mark.rfc("N-07")
def test_a_keep_alive_timeout_that_is_not_set_is_not_disabled() -> None:
    def interval(made: TransportProperties) -> float | None:
        return ConnectionProperties(made).keep_alive_interval(7200)

    assert TransportProperties().get("keepAliveTimeout") is DISABLED
    assert interval(TransportProperties()) is None
    assert interval(TransportProperties().prefer("keepAlive")) == 7200
    made = TransportProperties().require("keepAlive")
    assert interval(made) == 7200
    assert interval(made.set("keepAliveTimeout", DISABLED)) is None
    assert interval(made.default("keepAliveTimeout")) == 7200
    assert interval(made.set("keepAliveTimeout", 20)) == 20.0
    assert interval(made.set("connTimeout", 20)) == 20.0
    assert interval(made.set("connTimeout", 19)) is None
    assert interval(made.set("connTimeout", "Disabled")) == 20.0


# -- combined and opposite older names --


def test_tcp_uto_is_a_dict() -> None:
    keys = names.TCPUserTimeout
    made = TransportProperties().add(
        names.ConnectionProperties.USER_TIMEOUT_TCP, {keys.ADVERTISED_USER_TIMEOUT: 150}
    )
    assert made.explicit() == {"tcp.userTimeoutValue": 150}
    assert made.get("tcp-uto") == {
        keys.ADVERTISED_USER_TIMEOUT: 150,
        keys.USER_TIMEOUT_ENABLED: False,
        keys.CHANGEABLE: True,
    }
    assert TransportProperties().set("TCP_UTO", made.get("tcp-uto")).get("tcp-uto") == made.get(
        "tcp-uto"
    )
    assert made.default("tcp-uto").explicit() == {}
    live = ConnectionProperties()
    live.set("tcp-uto", {"tcp.user-timeout": True})
    assert live.get("tcp-uto")["tcp.user-timeout"] is True
    for wrong, kind in (
        (150, PropertyTypeError),
        ({"reliability": 1}, PropertyValueError),
        ({"x": 1}, UnknownPropertyError),
        ({keys.CHANGEABLE: 1}, PropertyTypeError),
    ):
        with pytest.raises(kind):
            made.set("tcp-uto", wrong)
    assert made.explicit() == {}


def test_both_rates_are_a_tuple() -> None:
    name = names.ConnectionProperties.BOUNDS_ON_SEND_OR_RECEIVE_RATE
    made = TransportProperties().set(name, (1000, -1))
    assert made.get("maxSendRate") == 1000
    assert made.get(name) == (1000, UNLIMITED)
    for wrong in (1000, (1, 2, 3), (1, None), "ab"):
        with pytest.raises(PropertyError):
            made.set(name, wrong)
    assert made.get(name) == (1000, UNLIMITED)


@of(
    ("older", "name"),
    [
        ("per-msg-checksum-len-send", "fullChecksumSend"),
        ("per-msg-checksum-len-recv", "fullChecksumRecv"),
    ],
)
def test_opposites(older: str, name: str) -> None:
    for level in Preference:
        made = TransportProperties().set(older, level)
        assert made.get(older) is level
        assert made.get(name) is level.opposite
    live = ConnectionProperties(TransportProperties().require(older))
    assert live.get(name) is PROHIBIT
    assert live.get(older) is REQUIRE
    live.established({name: False})
    assert live.get(name) is False
    assert live.get(older) is True
    assert live.has(older)
    assert not live.has(name)


# -- contradictions --


@of(
    "values",
    [
        {"reliability": "Prohibit", "perMsgReliability": "Require", "msgReliable": False},
        {"reliability": "Require", "congestionControl": "Prohibit"},
        {"reliability": "Prohibit", "msgReliable": True},
        {"reliability": "Require", "perMsgReliability": "Prohibit", "msgReliable": False},
        {"preserveOrder": "Prohibit", "msgOrdered": True},
        {"direction": "Unidirectional receive", "zeroRttMsg": "Require"},
        {"interface": [("Require", "a"), ("Prohibit", "a")]},
        {"interface": [("Require", "a"), ("Require", "b")]},
        {"interface": [("Require", InterfaceType.WIFI), ("Prohibit", InterfaceType.WIFI)]},
        {"pvd": [("Require", 1), ("Prohibit", 1)]},
        {"minSendRate": 2000, "maxSendRate": 1000},
        {"minRecvRate": 2000, "maxRecvRate": 1000},
    ],
)
def test_contradictions(values: dict[str, Any]) -> None:
    found = contradictions(TransportProperties(**values))
    assert len(found) == 1
    assert all(name in found[0] for name in list(values)[:2])


@of(
    "values",
    [
        {},
        {"reliability": "Prohibit"},
        {"preserveOrder": "Prohibit", "reliability": "Prohibit"},
        {"congestionControl": "Prohibit", "reliability": "Avoid"},
        {"interface": [("Require", "a"), ("Prohibit", "b"), ("Avoid", "c"), ("Prefer", "c")]},
        {"interface": [("Require", "a"), ("Require", InterfaceType.WIRED)]},
        {"minSendRate": 1000, "maxSendRate": 1000},
        {"minSendRate": 1000},
        {"maxSendRate": 1000},
        {"multipathPolicy": "aggregate", "multipath": "disabled"},
        {"msgReliable": False, "perMsgReliability": "Prefer"},
    ],
)
def test_what_can_be_had_together(values: dict[str, Any]) -> None:
    assert contradictions(TransportProperties(**values)) == []


@given(st.randoms(use_true_random=False))
def test_contradictions_takes_whatever_can_be_set(source: random.Random) -> None:
    made = TransportProperties()
    for row in SETTABLE:
        if source.random() < 0.5:
            values = [row.default, row.type.example]
            if isinstance(row.type, Enumeration):
                values = list(row.type.words)
            made.set(row.name, source.choice(values))
    found = contradictions(made)
    assert all(isinstance(line, str) for line in found)
    assert contradictions(made.copy()) == found


# -- who may set what, and when --


@pytest.mark.rfc("T-07", "TP-07")
@by_name(TABLE)
def test_each_class_can_be_set_in_its_places_only(row: Property) -> None:
    value = other_than_default(row)

    def on_transport() -> Any:
        return TransportProperties().set(row.name, value).get(row.name)

    def on_connection() -> Any:
        live = ConnectionProperties()
        live.set(row.name, value)
        return live.get(row.name)

    def on_message() -> Any:
        name, stored = check_message_property(row.name, value)
        return message_value(row.name, {name: stored})

    for place, attempt in (
        (Place.PRECONNECTION, on_transport),
        (Place.CONNECTION, on_connection),
        (Place.MESSAGE, on_message),
    ):
        if place in row.group.places:
            assert attempt() == value
        else:
            with pytest.raises(PropertyReadOnlyError, match=re.escape(row.name)) as caught:
                attempt()
            moment = bool(row.group.places)
            assert caught.value.code is (ErrorCode.MOMENT if moment else ErrorCode.READ_ONLY)


def test_the_classes_have_the_rfcs_places() -> None:
    before, connection, message = Place
    assert Group.SELECTION.places == {before}
    assert Group.CONNECTION.places == {before, connection}
    assert Group.MESSAGE.places == {before, connection, message}
    assert not Group.READ_ONLY.places
    assert not Group.RECEIVED.places


# -- ConnectionProperties --


@pytest.mark.rfc("TP-04", "TP-10")
def test_one_object_carries_all_three_classes_to_the_connection() -> None:
    made = TransportProperties(keepAlive="Require", connTimeout=5, msgPriority=7)
    live = ConnectionProperties(made)
    assert live.get("keepAlive") is REQUIRE
    assert (live.get("connTimeout"), live.get("msgPriority")) == (5, 7)
    made.set("connTimeout", 6).prohibit("keepAlive")
    assert live.get("connTimeout") == 5
    assert live.get("keepAlive") is REQUIRE
    assert live.requested == TransportProperties(keepAlive="Require", connTimeout=5, msgPriority=7)
    live.set("connTimeout", 8)
    assert live.get("connTimeout") == 8
    assert live.clone().get("connTimeout") == 8
    assert live.requested.get("connTimeout") == 5


@pytest.mark.rfc("TP-08")
def test_preferences_read_as_what_the_stack_has() -> None:
    tcp = {
        row.name: row.name in {"reliability", "preserveOrder", "congestionControl"}
        for row in PREFERENCES
    }
    made = TransportProperties(
        direction="unidirectional send",
        multipath="active",
        advertisesAltaddr=True,
        interface=[("avoid", "lo")],
    ).prefer("preserveMsgBoundaries")
    live = ConnectionProperties(made)
    assert live.get("preserveMsgBoundaries") is PREFER
    for offers in (tcp, tcp.__getitem__):
        live.established(offers)
        for row in PREFERENCES:
            assert live.get(row.name) is tcp[row.name]
        assert live.get("direction") is Direction.UNIDIRECTIONAL_SEND
        assert live.get("multipath") is MultipathMode.ACTIVE
        assert live.get("advertisesAltaddr") is True
        assert live.get("interface") == {(AVOID, "lo")}
    live.established({})
    assert live.get("reliability") is False


@pytest.mark.rfc("CM-02", "CM-03", "AC-08")
@of("state", list(ConnectionState))
def test_get_in_every_state(state: ConnectionState) -> None:
    live = ConnectionProperties(supply={"connState": lambda: state, "canSend": False})
    if state is not ConnectionState.ESTABLISHING:
        live.established({"reliability": True}, ["tcp"])
    assert live.get("connState") is live["state"] is state
    assert live.get("canSend") is False
    assert live.get("canReceive") is True
    found = dict(live.items())
    assert list(found) == list(live) == list(live.keys())
    assert len(live) == len(found) == 50 + len(BEYOND)
    assert found["connState"] is state
    assert "connTimeout" in live
    assert "final" in live
    assert "ecn" not in live
    assert "nonsense" not in live
    assert state.value.lower() in repr(live)


@pytest.mark.rfc("CM-04", "AC-08")
def test_has() -> None:
    live = ConnectionProperties(TransportProperties().prefer("keepAlive"))
    assert live.has("reliability")  # required
    assert not live.has("keepAlive")  # wanted, which is not certain
    assert not live.has("preserve-msg-boundaries")
    live.established({"reliability": True, "keepAlive": True})
    assert live.has("reliability")
    assert live.has("keepAlive")
    assert not live.has("preserveOrder")
    assert live.has("canSend")
    assert not live.has("isolateSession")
    for row in TABLE:
        if row.group is Group.RECEIVED:
            continue
        if row.is_preference or row.type == BOOLEAN:
            assert isinstance(live.has(row.name), bool)
        else:
            with pytest.raises(PropertyTypeError, match="neither"):
                live.has(row.name)


def test_what_only_a_received_message_has() -> None:
    for name in ("ecn", "early-data", "receiving-final-messages"):
        with pytest.raises(PropertyMomentError):
            ConnectionProperties().get(name)
        assert message_value(name, {}) in (NOT_APPLICABLE, False)
    assert message_value("ecn", {"_greentaps.ecn": 2}) == 2


@of(
    ("direction", "send", "receive"),
    [
        ("Bidirectional", True, True),
        ("Unidirectional send", True, False),
        ("Unidirectional receive", False, True),
    ],
)
def test_direction_decides_over_what_the_connection_says(
    direction: str, send: bool, receive: bool
) -> None:
    supply = {"canSend": True, "canReceive": True, "sendMsgMaxLen": 99, "recvMsgMaxLen": 98}
    live = ConnectionProperties(TransportProperties(direction=direction), supply=supply)
    assert live.get("canSend") is send
    assert live.get("canReceive") is receive
    assert live.get("sendMsgMaxLen") == (99 if send else 0)
    assert live.get("recvMsgMaxLen") == (98 if receive else 0)
    supply.update(canSend=False, canReceive=False)
    assert not live.has("canSend")
    assert not live.has("canReceive")


@pytest.mark.rfc("CM-01", "MU-18", "MU-19")
@of(
    ("name", "value", "code"),
    [
        ("nonsense", 1, ErrorCode.UNKNOWN),
        ("connTimeout", "soon", ErrorCode.TYPE),
        ("connTimeout", 0, ErrorCode.VALUE),
        ("connState", "Closed", ErrorCode.READ_ONLY),
        ("canSend", False, ErrorCode.READ_ONLY),
        ("ecn", 1, ErrorCode.READ_ONLY),
        ("reliability", "Avoid", ErrorCode.MOMENT),
        ("interface", (), ErrorCode.MOMENT),
        ("sctp.x", 1, ErrorCode.UNKNOWN),
        ("tcp.userTimeoutEnabled", True, ErrorCode.UNSUPPORTED),
        ("maxSendRate", 5, ErrorCode.REFUSED),
    ],
)
def test_a_failing_set_tells_its_code_and_changes_nothing(
    name: str, value: Any, code: ErrorCode
) -> None:
    def change(name: str, value: Any, old: Any) -> None:
        if name == "maxSendRate":
            raise OSError("not by this kernel")

    state = ConnectionState.ESTABLISHED
    live = ConnectionProperties(
        TransportProperties(connTimeout=5), supply={"connState": lambda: state}, change=change
    )
    live.established({"reliability": True}, ["udp"])
    before = dict(live.items())
    with pytest.raises(PropertyError) as caught:
        live.set(name, value)
    assert caught.value.code is code
    assert dict(live.items()) == before
    assert live.get("connState") is ConnectionState.ESTABLISHED
    live.set("connTimeout", 6)
    assert live.get("connTimeout") == 6


@by_name([row for row in TABLE if Place.CONNECTION in row.group.places])
def test_changes_are_told_before_they_are_so(row: Property) -> None:
    told: list[tuple[str, Any, Any, Any]] = []

    def change(name: str, value: Any, old: Any) -> None:
        told.append((name, value, old, live.get(row.name)))

    live = ConnectionProperties(change=change)
    value = other_than_default(row)
    live.set(row.name.upper(), value)
    assert told == [(row.name, value, row.default, row.default)]
    assert live.is_set(row.name)


def test_a_refusal_says_what_the_stack_said() -> None:
    def refuse(name: str, value: Any, old: Any) -> None:
        raise OSError("no such option")

    live = ConnectionProperties(change=refuse)
    with pytest.raises(PropertyRefusedError, match="connTimeout stays Disabled: no such") as caught:
        live.set("connTimeout", 5)
    assert isinstance(caught.value.__cause__, OSError)
    assert live.get("connTimeout") is DISABLED
    assert not live.is_set("connTimeout")


def test_a_stack_may_raise_a_property_error_of_its_choice() -> None:
    def refuse(name: str, value: Any, old: Any) -> None:
        raise PropertyUnsupportedError("none here", name)

    with pytest.raises(PropertyUnsupportedError, match="none here"):
        ConnectionProperties(change=refuse).set("connTimeout", 5)


def test_a_combined_set_is_whole_or_not_at_all() -> None:
    told = []

    def change(name: str, value: Any, old: Any) -> None:
        told.append((name, value))
        if name == "maxRecvRate":
            raise OSError("no")

    live = ConnectionProperties(change=change)
    with pytest.raises(PropertyRefusedError):
        live.set("max-send-rate / max-recv-rate", (5, 6))
    assert live.get("max-send-rate / max-recv-rate") == (UNLIMITED, UNLIMITED)
    assert not live.is_set("maxSendRate")
    assert told == [("maxSendRate", 5), ("maxRecvRate", 6), ("maxSendRate", UNLIMITED)]


# -- groups --

ENTANGLED = [row for row in TABLE if row.entangled]


def test_all_connection_properties_but_connPriority_are_entangled() -> None:
    names = {row.name for row in TABLE if row.group is Group.CONNECTION}
    assert {row.name for row in ENTANGLED} == names - {"connPriority"}


@by_name(ENTANGLED)
def test_entangled_properties_are_the_groups(row: Property) -> None:
    one = ConnectionProperties()
    two = one.clone()
    three = two.clone()
    value = other_than_default(row)
    three.set(row.name, value)
    assert one.get(row.name) == two.get(row.name) == three.get(row.name) == value
    assert one.group() == two.group() == [one, two, three]
    assert ConnectionProperties().get(row.name) == row.default


@pytest.mark.rfc("P-20")
def test_connPriority_is_copied_and_then_apart() -> None:
    one = ConnectionProperties()
    two = one.clone()
    two.set("connPriority", 1)
    assert one.get("connPriority") == 100
    three = two.clone()
    assert three.get("connPriority") == 1
    two.set("connPriority", 2)
    assert three.get("connPriority") == 1


@by_name([row for row in TABLE if row.group is Group.MESSAGE])
def test_message_defaults_stay_with_their_connection(row: Property) -> None:
    one = ConnectionProperties()
    two = one.clone()
    two.set(row.name, other_than_default(row))
    assert one.get(row.name) == row.default
    assert two.clone().get(row.name) == other_than_default(row)


def test_the_stack_of_a_clone_is_its_parents_until_it_says() -> None:
    one = ConnectionProperties()
    one.established({"reliability": True}, ["udp"])
    two = one.clone(supply={"connState": ConnectionState.ESTABLISHING})
    assert two.get("reliability") is True
    with pytest.raises(PropertyUnsupportedError):
        two.set("tcp.userTimeoutEnabled", True)


class Member:
    """Notes what its stack is told, and refuses some."""

    def __init__(self, refuses: tuple[Any, ...] = ()) -> None:
        self.told: list[tuple[str, Any]] = []
        self.split: list[BaseException] = []
        self.refuses = refuses

    def change(self, name: str, value: Any, old: Any) -> None:
        if value in self.refuses:
            raise OSError("cannot")
        self.told.append((name, value))


def test_a_change_reaches_every_stack_of_the_group() -> None:
    members = [Member(), Member(), Member()]
    one = ConnectionProperties(change=members[0].change)
    two = one.clone(change=members[1].change)
    one.clone(change=members[2].change)  # nobody holds it
    two.set("connTimeout", 5)
    assert [member.told for member in members] == [[("connTimeout", 5)]] * 2 + [[]]


def test_a_refusal_in_the_group_is_rolled_back() -> None:
    first, second = Member(), Member(refuses=(5,))
    one = ConnectionProperties(TransportProperties(connTimeout=3), change=first.change)
    two = one.clone(change=second.change)
    with pytest.raises(PropertyRefusedError):
        one.set("connTimeout", 5)
    assert first.told == [("connTimeout", 5), ("connTimeout", 3)]
    assert second.told == []
    assert one.get("connTimeout") == two.get("connTimeout") == 3
    assert one.group() == [one, two]


def test_an_interrupted_change_is_rolled_back_too() -> None:
    def interrupted(name: str, value: Any, old: Any) -> None:
        raise KeyboardInterrupt

    first, last = Member(), Member()
    one = ConnectionProperties(change=first.change)
    two = one.clone(change=interrupted, split=last.split.append)
    with pytest.raises(KeyboardInterrupt):
        one.set("max-send-rate / max-recv-rate", (5, 6))
    assert first.told == [("maxSendRate", 5), ("maxSendRate", UNLIMITED)]
    assert one.get("maxSendRate") is two.get("maxSendRate") is UNLIMITED
    assert one.group() == [one, two]
    assert not last.split


def test_a_member_that_cannot_follow_may_leave_instead() -> None:
    first, second = Member(), Member(refuses=(5,))
    one = ConnectionProperties(TransportProperties(connTimeout=3), change=first.change)
    two = one.clone(change=second.change, split=second.split.append)
    three = one.clone()
    one.set("connTimeout", 5)
    assert one.get("connTimeout") == three.get("connTimeout") == 5
    assert two.get("connTimeout") == 3
    assert len(second.split) == 1
    assert isinstance(second.split[0], PropertyRefusedError)
    assert one.group() == [one, three]
    assert two.group() == [two]
    one.set("connTimeout", 6)
    assert two.get("connTimeout") == 3
    with pytest.raises(PropertyRefusedError):  # its own wish is refused, not answered by leaving
        two.set("connTimeout", 5)


def test_values_for_a_clone() -> None:
    one = ConnectionProperties()
    two = one.clone({"connPriority": 3, "msg-prio": 4, "connTimeout": 9})
    assert (one.get("connPriority"), two.get("connPriority")) == (100, 3)
    assert (one.get("msgPriority"), two.get("msgPriority")) == (100, 4)
    assert one.get("connTimeout") == two.get("connTimeout") == 9


@of("wrong", [{"nonsense": 1}, {"reliability": "avoid"}, {"connState": 1}, {"connPriority": -1}])
def test_a_clone_with_wrong_values_is_not_made(wrong: dict[str, Any]) -> None:
    member = Member()
    one = ConnectionProperties(change=member.change)
    with pytest.raises(PropertyError):
        one.clone({"connTimeout": 9, **wrong})
    assert one.get("connTimeout") is DISABLED
    assert one.group() == [one]
    assert member.told == [("connTimeout", 9), ("connTimeout", DISABLED)]


def test_leaving_keeps_the_values() -> None:
    one = ConnectionProperties()
    two = one.clone()
    one.set("connTimeout", 9)
    two.leave()
    one.set("connTimeout", 10)
    assert (one.get("connTimeout"), two.get("connTimeout")) == (10, 9)
    assert one.group() == [one]


# -- Message Properties --


def test_message_properties_without_a_connection() -> None:
    assert len(MESSAGE_DEFAULTS) == 10
    for name, default in MESSAGE_DEFAULTS.items():
        assert message_value(name, {}) == default
    assert check_message_property("IDEMPOTENT", True) == ("safelyReplayable", True)
    assert message_value("idempotent", {"safelyReplayable": True}) is True
    with pytest.raises(UnknownPropertyError):
        message_value("nonsense", {})
    with pytest.raises(PropertyMomentError):
        message_value("connTimeout", {})
    with pytest.raises(PropertyMomentError):
        check_message_property("tcp-uto", {"tcp.user-timeout": True})
    with pytest.raises(PropertyReadOnlyError):
        check_message_property("ecn", 1)


def test_message_properties_are_resolved_on_the_connection() -> None:
    live = ConnectionProperties(
        TransportProperties("unreliable-datagram", connCapacityProfile="scavenger")
    )
    live.established({"preserveMsgBoundaries": True})
    live.set("msgPriority", 5)
    found = resolve_message({"msgLifetime": 3}, live)
    assert dict(found) == {
        "msgLifetime": 3,
        "msgPriority": 5,
        "msgOrdered": False,
        "safelyReplayable": True,
        "final": False,
        "msgChecksumLen": FULL_COVERAGE,
        "msgReliable": False,
        "msgCapacityProfile": CapacityProfile.SCAVENGER,
        "noFragmentation": False,
        "noSegmentation": False,
    }
    for name, value in found.items():
        assert message_value(name, {"msgLifetime": 3}, live) == value


TCP_HAS = {"reliability": True, "preserveOrder": True}
UDP_HAS = {"preserveMsgBoundaries": True}
PARTLY = {**TCP_HAS, "perMsgReliability": True}


@pytest.mark.rfc("N-02")
@of(
    ("has", "protects", "values", "about"),
    [
        (TCP_HAS, True, {}, None),
        (TCP_HAS, True, {"msgOrdered": False, "safelyReplayable": True}, None),
        (TCP_HAS, True, {"msgReliable": False}, "perMsgReliability"),
        (PARTLY, True, {"msgReliable": False}, None),
        (UDP_HAS, False, {}, "safelyReplayable"),
        (UDP_HAS, False, {"safelyReplayable": True}, None),
        (UDP_HAS, False, {"safelyReplayable": True, "msgReliable": True}, "perMsgReliability"),
        (UDP_HAS, False, {"safelyReplayable": True, "msgOrdered": True}, "order"),
    ],
)
def test_messages_that_the_stack_cannot_send(
    has: dict[str, bool], protects: bool, values: dict[str, Any], about: str | None
) -> None:
    live = ConnectionProperties()
    live.established(has)
    found = message_contradictions(values, live, protects_against_duplicates=protects)
    if about is None:
        assert found == []
    else:
        assert len(found) == 1
        assert about in found[0]


# -- the page, and the purity --


def generator() -> Any:
    path = Path(__file__).parents[2] / "docs" / "_generate_properties.py"
    if not path.exists():
        pytest.skip("the documentation is not here")
    spec = importlib.util.spec_from_file_location("generate_properties", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.rfc("TP-11", "SH-08", "T-21")
def test_the_page_is_the_table(tmp_path: Path) -> None:
    module = generator()
    module.write(tmp_path / "properties.rst")
    written = (tmp_path / "properties.rst").read_text(encoding="utf-8")
    assert module.PAGE.read_text(encoding="utf-8") == written, (
        "run: PYTHONPATH=lib python docs/_generate_properties.py"
    )
    for row in (*TABLE, *BEYOND):
        for name in (row.name, *row.aliases, *row.opposites):
            assert f"``{name}``" in written
    assert "seconds, rates in bit/s" in written
    assert "300 seconds" in written  # the one default that the RFC leaves open


def modules() -> Iterator[Path]:
    folder = Path(properties.__file__).parent
    yield from folder.glob("*.py")
    yield Path(names.__file__)


@of("path", list(modules()), ids=lambda path: path.name)
def test_properties_are_pure(path: Path) -> None:
    allowed = {"__future__", "collections", "dataclasses", "difflib", "enum", "functools"}
    allowed |= {"itertools", "math", "re", "typing", "warnings", "weakref"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                assert (node.module or "").partition(".")[0] in allowed
            elif node.level == 2:
                assert [alias.name for alias in node.names] == ["names"]
            elif node.level == 3:
                assert node.module == "errors"


def test_everything_public_is_exported_and_documented() -> None:
    for name in properties.__all__:
        found = getattr(properties, name)
        if callable(found) and not isinstance(found, Enum):
            assert found.__doc__, name
    assert numeric(DISABLED).allowed == "a number above 0, or Disabled"
    assert READ_ONLY
