"""The System Policy: what it says, where it comes from, and that it is asked each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from greentaps import (
    EstablishmentError,
    InterfaceType,
    LocalEndpoint,
    Preconnection,
    Reason,
)
from greentaps.taps.choosing.policy import (
    Branch,
    RaceMode,
    SystemPolicy,
    get_system_policy,
    set_system_policy,
)
from taps.helpers import HERE, free_port, local, plain_listener, remote, until


@pytest.fixture(autouse=True)
def _default_policy() -> Iterator[None]:
    set_system_policy(None)
    yield
    set_system_policy(None)


def test_the_default_allows_everything_and_has_no_wishes() -> None:
    policy = SystemPolicy()
    assert not policy.restricts_interfaces()
    assert policy.against_interface("eth0", InterfaceType.WIRED) is None
    assert policy.against_stack(["tls", "tcp"]) is None
    assert policy.rank_stack(["tcp"]) == policy.rank_stack(["udp"])
    assert policy.equivalent(["tls"], ["tls"])
    assert not policy.equivalent(["tls"], ["quic"])
    assert not policy.equivalent([], ["tls"])


def test_names_and_types_of_interfaces() -> None:
    policy = SystemPolicy(
        allowed_interfaces=["eth0", InterfaceType.WIFI],
        prohibited_interfaces=["wlan1"],
        preferred_interfaces=[InterfaceType.WIFI, "eth0"],
    )
    assert policy.restricts_interfaces()
    assert policy.against_interface("eth0", InterfaceType.WIRED) is None
    assert policy.against_interface("wlan0", InterfaceType.WIFI) is None
    assert policy.against_interface("wlan1", InterfaceType.WIFI) == (
        "policy prohibits the interface wlan1"
    )
    assert policy.against_interface("eth1", InterfaceType.WIRED) == (
        "policy does not allow the interface eth1"
    )
    ranks = [
        policy.rank_interface(*one)
        for one in (("wlan0", InterfaceType.WIFI), ("eth0", InterfaceType.WIRED),
                    ("tun0", InterfaceType.TUNNEL))
    ]  # fmt: skip
    assert ranks == [0, 1, 2]


@pytest.mark.rfc("A-11", "SR-02")
def test_nothing_makes_plaintext_equivalent_to_security() -> None:
    policy = SystemPolicy(equivalent_security=[("tls", "tcp", "quic")])
    assert policy.equivalent(["tls"], ["quic"])
    assert not policy.equivalent(["tls"], [])
    assert not policy.equivalent([], ["quic"])


def test_names_are_kept_whatever_they_come_from() -> None:
    """A generator can be read once, and a list may be changed: neither loosens a policy."""
    names = ["tcp"]
    for given in ((name for name in names), names):
        policy = SystemPolicy(
            prohibited_protocols=given,  # type: ignore[arg-type]
            equivalent_security=[(name for name in ("tls", "quic"))],
        )
        if given is names:
            names.clear()
        for _ in range(2):
            assert policy.against_stack(["tcp"]) == "policy prohibits tcp"
            assert policy.equivalent(["tls"], ["quic"])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"allowed_interfaces": "eth0"}, TypeError),
        ({"allowed_interfaces": [7]}, TypeError),
        ({"prohibited_interfaces": None}, TypeError),
        ({"preferred_protocols": [InterfaceType.WIFI]}, TypeError),
        ({"equivalent_security": ["tls"]}, TypeError),
        ({"modes": {"paths": RaceMode.FAILOVER}}, TypeError),
        ({"modes": {Branch.PATHS: "failover"}}, TypeError),
        ({"path_delay": "1"}, TypeError),
        ({"path_delay": True}, TypeError),
        ({"address_delay": 0.001}, ValueError),
        ({"maximum_delay": 61}, ValueError),
        ({"minimum_delay": 3.0}, ValueError),
        ({"use_history": 1}, TypeError),
    ],
)
def test_what_cannot_be(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        SystemPolicy(**wrong)


def test_a_policy_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(
        'prohibited_interfaces = ["cellular", "tun0"]\n'
        'preferred_protocols = ["udp"]\n'
        'equivalent_security = [["tls", "quic"]]\n'
        "path_delay = 1.5\n"
        "[modes]\n"
        'paths = "failover"\n'
    )
    expected = SystemPolicy(
        prohibited_interfaces=[InterfaceType.CELLULAR, "tun0"],
        preferred_protocols=["udp"],
        equivalent_security=[["tls", "quic"]],
        path_delay=1.5,
        modes={Branch.PATHS: RaceMode.FAILOVER},
    )
    assert SystemPolicy.from_file(file) == expected
    monkeypatch.setenv("GREENTAPS_POLICY", str(file))
    set_system_policy(None)
    assert get_system_policy() == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path_dealy = 1", "path_dealy"),
        ("path_delay = 'x'", "number of seconds"),
        ("modes = 3", "table"),
        ("[modes]\npaths = 'never'", "never"),
        ("[modes]\nnowhere = 'failover'", "nowhere"),
        ("= ", "policy"),
    ],
)
def test_a_file_that_is_wrong_is_never_half_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    """Who has a policy must not connect without it."""
    file = tmp_path / "policy.toml"
    file.write_text(text)
    monkeypatch.setenv("GREENTAPS_POLICY", str(file))
    set_system_policy(None)
    with plain_listener() as listener:
        preconnection = Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
        for _ in range(2):
            with pytest.raises(EstablishmentError, match=words) as caught:
                preconnection.initiate(timeout=10)
            assert caught.value.reason is Reason.INVALID_CONFIGURATION
    monkeypatch.setenv("GREENTAPS_POLICY", str(tmp_path / "missing"))
    with pytest.raises(EstablishmentError, match=r"GREENTAPS_POLICY.*missing") as caught:
        preconnection.initiate(timeout=10)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(EstablishmentError):
        Preconnection(LocalEndpoint().with_ip_address(HERE)).listen()
    told: list[Reason] = []
    preconnection.on_establishment_error(lambda connection, error: told.append(error.reason))
    preconnection.initiate(timeout=10, wait=False)
    until(lambda: bool(told))
    assert told == [Reason.INVALID_CONFIGURATION]


def test_only_a_policy_can_be_set() -> None:
    with pytest.raises(TypeError):
        set_system_policy("all")  # type: ignore[arg-type]


@pytest.mark.rfc("PE-05", "PE-06", "ER-05", "I-07")
def test_it_is_asked_at_each_establishment() -> None:
    with plain_listener() as listener:
        preconnection = Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
        preconnection.initiate(timeout=10).abort()
        for policy in (
            SystemPolicy(prohibited_protocols=["tcp"]),
            SystemPolicy(prohibited_interfaces=[InterfaceType.LOOPBACK], allowed_interfaces=["lo"]),
            SystemPolicy(allowed_interfaces=["no-such0"]),
        ):
            set_system_policy(policy)
            with pytest.raises(EstablishmentError) as caught:
                preconnection.initiate(timeout=10)
            assert caught.value.reason is Reason.POLICY_PROHIBITED
            assert "policy" in str(caught.value)
        set_system_policy(None)
        preconnection.initiate(timeout=10).abort()


@pytest.mark.rfc("PE-04", "PE-05", "L-05")
def test_it_counts_for_listeners() -> None:
    set_system_policy(SystemPolicy(prohibited_protocols=["tcp"]))
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(local()).listen()
    assert caught.value.reason is Reason.POLICY_PROHIBITED
    set_system_policy(SystemPolicy(allowed_interfaces=["lo"]))
    with Preconnection(local()).listen() as listener:
        end = remote(listener.local_endpoints[0].port or 0)
        with Preconnection(None, end).initiate(timeout=10) as connection:
            connection.send(b"x")


@pytest.mark.rfc("PE-04", "PE-06")
def test_a_subclass_decides_at_the_moment() -> None:
    class Metered(SystemPolicy):
        used_up = False

        def against_stack(self, protocols: Any) -> str | None:
            return "the quota is used up" if self.used_up else None

    set_system_policy(Metered())
    with plain_listener() as listener:
        preconnection = Preconnection(None, remote(listener.getsockname()[1]))
        preconnection.initiate(timeout=10).abort()
        Metered.used_up = True
        with pytest.raises(EstablishmentError) as caught:
            preconnection.initiate(timeout=10)
        assert caught.value.reason is Reason.POLICY_PROHIBITED
        assert "the quota is used up" in str(caught.value)


@pytest.mark.rfc("CR-01", "CR-03")
def test_the_modes_of_a_race_are_the_policys() -> None:
    """All at once: the second listener is reached although the first one answers."""
    with plain_listener() as one, plain_listener() as two:
        ends = [remote(here.getsockname()[1]) for here in (one, two)]
        set_system_policy(SystemPolicy(modes={Branch.ENDPOINTS: RaceMode.SIMULTANEOUS}))
        connection = Preconnection(None, ends).initiate(timeout=10)
        assert connection.history is not None
        assert len(connection.history.attempts) == 2
        connection.abort()
        set_system_policy(SystemPolicy(modes={Branch.ENDPOINTS: RaceMode.FAILOVER}))
        ends = [remote(free_port()), remote(one.getsockname()[1])]
        connection = Preconnection(None, ends).initiate(timeout=10)
        assert connection.history is not None
        assert [attempt.fate for attempt in connection.history.attempts] == ["failed", "won"]
        connection.abort()
