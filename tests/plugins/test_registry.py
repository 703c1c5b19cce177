"""The registry of plugins: built-ins, strangers from entry points, and the stacks they form."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from greentaps import plugins as registry
from greentaps.plugins import (
    ALWAYS,
    EITHER,
    NEVER,
    STREAMS,
    Attempt,
    Plugin,
    duplicates,
    find,
    has,
    lacks,
    offer,
    plugins,
    register,
    secured,
    stack_name,
    stacks,
    unregister,
)
from greentaps.taps.properties import TABLE
from greentaps.transports import options
from peers import LIBRARY

NAMES = ["tcp", "tls", "udp"]


def made(plugin_name: str, **attributes: Any) -> Plugin:
    kind = type(plugin_name.title(), (Plugin,), {"name": plugin_name, **attributes})
    return kind()  # type: ignore[no-any-return]


@pytest.fixture
def registered() -> Iterator[Any]:
    added = []

    def add(plugin: Plugin) -> Plugin:
        register(plugin)
        added.append(plugin)
        return plugin

    yield add
    for plugin in added:
        unregister(plugin)


# -- Built-ins --


def test_the_built_ins_are_there_in_their_order() -> None:
    found = plugins()
    assert [name for name in found if name in NAMES] == NAMES
    for name in NAMES:
        assert find(name) is found[name]
        assert found[name].name == name
        assert found[name].available()


def test_the_answer_is_a_copy() -> None:
    plugins().clear()
    assert "tcp" in plugins()


@pytest.mark.parametrize("name", ["", "TCP", "no-such-plugin"])
def test_a_plugin_that_does_not_exist(name: str) -> None:
    with pytest.raises(LookupError) as caught:
        find(name)
    assert "tcp" in str(caught.value)


@pytest.mark.rfc("PE-02")
@pytest.mark.parametrize("name", NAMES)
def test_every_offer_is_about_a_property_that_there_is(name: str) -> None:
    known = {row.name for row in TABLE}
    assert set(find(name).offers) <= known
    assert set(find(name).offers.values()) <= {ALWAYS, NEVER, EITHER}


@pytest.mark.rfc(
    "FM-01",
    "FM-02",
    "FM-03",
    "FM-04",
    "FM-06",
    "FM-07",
    "FM-08",
    "FM-05",
    "FM-09",
    "FM-11",
    "FM-12",
)
def test_the_feature_vectors_of_tcp_and_udp() -> None:
    tcp, udp = (find("tcp"),), (find("udp"),)
    for name, over_tcp, over_udp in (
        ("reliability", True, False),
        ("preserveMsgBoundaries", False, True),
        ("perMsgReliability", False, False),
        ("zeroRttMsg", True, False),
        ("keepAlive", True, False),
        ("softErrorNotify", True, True),
        ("activeReadBeforeSend", True, False),
        ("preserveOrder", True, False),
        ("multistreaming", False, False),
        ("fullChecksumSend", True, True),
        ("fullChecksumRecv", True, True),
        ("congestionControl", True, False),
    ):
        assert (offer(tcp, name) is not NEVER) is over_tcp, name
        assert (offer(udp, name) is not NEVER) is over_udp, name
        assert has(tcp, name) is (offer(tcp, name) is ALWAYS)
    assert offer((find("tls"), find("tcp")), "zeroRttMsg") is NEVER
    assert not duplicates(tcp)
    assert duplicates(udp)
    assert not secured(tcp)
    assert secured((find("tls"), find("tcp")))


@pytest.mark.rfc("FM-05")
@pytest.mark.parametrize("server_side", [False, True])
def test_what_the_system_is_set_up_for(server_side: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tcp, udp = (find("tcp"),), (find("udp"),)
    for allowed in (False, True):
        monkeypatch.setattr(
            options,
            "fast_open",
            lambda *, server_side, side=server_side, yes=allowed: yes and server_side is side,
        )
        assert lacks(tcp, "zeroRttMsg", server_side=server_side) is not allowed
        assert lacks(udp, "zeroRttMsg", server_side=server_side)
        assert lacks((find("tls"), *tcp), "zeroRttMsg", server_side=server_side)
        assert not lacks(tcp, "keepAlive", server_side=server_side)
        assert lacks(tcp, "no such property", server_side=server_side)


@pytest.mark.rfc("SO-17")
@pytest.mark.parametrize(
    ("text", "client", "server"),
    [("0", 0, 0), ("1", 1, 0), ("2", 0, 1), ("1027", 1, 1), ("", 0, 0), (None, 0, 0)],
)
def test_what_the_setting_means(
    text: str | None, client: int, server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tmp_path / "tcp_fastopen"
    if text is not None:
        setting.write_text(f"{text}\n")
    monkeypatch.setattr(options, "_FAST_OPEN_SETTING", str(setting))
    assert options.fast_open(server_side=False) is bool(client)
    assert options.fast_open(server_side=True) is bool(server)


# -- Stacks --


def test_stacks_are_derived() -> None:
    base = made("base", stream=True)
    other = made("other", stream=True)
    datagrams = made("datagrams")
    layer = made("layer", over=(STREAMS,))
    picky = made("picky", over=("other",))
    found = sorted(map(stack_name, stacks([base, other, datagrams, layer, picky])))
    assert found == ["base", "datagrams", "layer/base", "layer/other", "other", "picky/other"]


def test_a_new_stream_gets_tls_for_nothing(registered: Any) -> None:
    registered(made("mptcp", stream=True))
    assert "tls/mptcp" in map(stack_name, stacks())


def test_layers_over_each_other_end_somewhere() -> None:
    one = made("one", over=("two", "base"))
    two = made("two", over=("one", "base"))
    found = sorted(map(stack_name, stacks([one, two, made("base")])))
    assert found == ["base", "one/base", "one/two/base", "two/base", "two/one/base"]


def test_a_layer_without_what_is_below_is_no_stack() -> None:
    assert stacks([made("layer", over=("nothing",))]) == []


def test_the_topmost_that_says_counts() -> None:
    base = made("base", offers={"keepAlive": EITHER, "reliability": ALWAYS})
    layer = made("layer", over=("base",), offers={"keepAlive": NEVER})
    assert offer((layer, base), "keepAlive") is NEVER
    assert offer((layer, base), "reliability") is ALWAYS
    assert offer((layer, base), "multistreaming") is NEVER
    assert has((layer, base), "reliability")
    assert not has((base,), "keepAlive")  # either is not for certain


# -- Strangers --


def test_registering_and_taking_back() -> None:
    plugin = made("stranger")
    register(plugin)
    try:
        assert find("stranger") is plugin
        assert list(plugins())[-1] == "stranger"
        with pytest.raises(ValueError, match="stranger"):
            register(made("stranger"))
    finally:
        unregister(plugin)
    unregister(plugin)
    assert "stranger" not in plugins()


@pytest.mark.parametrize("wrong", [None, "tcp", Plugin, object()])
def test_only_plugins_can_be_registered(wrong: Any) -> None:
    with pytest.raises(TypeError):
        register(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_nobody_takes_a_built_ins_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        register(made(name))
    assert type(find(name)).__module__ == f"greentaps.plugins.{name}"


def test_one_stranger_cannot_take_anothers_place(registered: Any) -> None:
    first = registered(made("stranger"))
    unregister(made("stranger"))
    assert find("stranger") is first


class Entry:
    """An entry point whose package is not installed."""

    def __init__(self, name: str, loaded: Any) -> None:
        self.name = name
        self.value = f"somewhere:{name}"
        self._loaded = loaded

    def load(self) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registry that has not looked yet, and finds these entry points."""

    def find_entries(*entries: Entry) -> None:
        monkeypatch.setattr(registry, "_looked", False)
        monkeypatch.setattr(registry, "_instances", {})
        monkeypatch.setattr(registry, "_registered", {})
        monkeypatch.setattr(registry, "entry_points", lambda *, group: entries)

    return find_entries


def test_entry_points_may_name_a_class_or_an_object(fresh: Any) -> None:
    plugin = made("two")
    fresh(Entry("one", type(made("one"))), Entry("two", plugin))
    assert list(plugins()) == [*NAMES, "one", "two"]
    assert isinstance(find("one"), Plugin)
    assert find("two") is plugin


@pytest.mark.parametrize("error", [ImportError("gone"), SyntaxError("bad"), KeyError("x")])
def test_a_stranger_that_cannot_be_loaded_spares_the_others(
    fresh: Any, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    fresh(Entry("broken", error), Entry("good", made("good")))
    with caplog.at_level(logging.WARNING, "greentaps.plugins"):
        assert list(plugins()) == [*NAMES, "good"]
    assert "broken" in caplog.text


def test_an_entry_point_cannot_take_a_built_ins_name(
    fresh: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fresh(Entry("tls", made("tls")))
    with caplog.at_level(logging.WARNING, "greentaps.plugins"):
        assert type(find("tls")).__module__ == "greentaps.plugins.tls"
    assert "built-in" in caplog.text


@pytest.mark.parametrize("loaded", [None, "text", dict, made("another-name")])
def test_what_is_no_plugin_is_left_out(
    fresh: Any, caplog: pytest.LogCaptureFixture, loaded: Any
) -> None:
    fresh(Entry("odd", loaded))
    with caplog.at_level(logging.WARNING, "greentaps.plugins"):
        assert list(plugins()) == NAMES
        stacks()
    assert "odd" in caplog.text


PACKAGE = {
    "stranger_plugin.py": """
from greentaps.plugins import Plugin
class Stranger(Plugin):
    name = "stranger"
    stream = True
""",
    "stranger-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: stranger\nVersion: 1\n",
    "stranger-1.dist-info/entry_points.txt": (
        "[greentaps.plugins]\nstranger = stranger_plugin:Stranger\n"
    ),
}


def test_an_installed_package_is_found(tmp_path: Path) -> None:
    for name, text in PACKAGE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    code = (
        "from greentaps.plugins import stacks, stack_name\n"
        "print(*map(stack_name, stacks()), sep='\\n')\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(LIBRARY), str(tmp_path)])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, timeout=30, env=env, check=True,
    )  # fmt: skip
    lines = done.stdout.split()
    assert "stranger" in lines
    assert "tls/stranger" in lines


# -- What a base class answers --


def test_a_plugin_that_does_nothing() -> None:
    plugin = made("nothing")
    assert plugin.available()
    plugin.check(Attempt(), server_side=True)
    assert plugin.warning(None) is None
    for call in (
        lambda: plugin.open(Attempt(), None),
        lambda: plugin.listen(Attempt(), print),
        lambda: plugin.accept(Attempt(), None),
    ):
        with pytest.raises(NotImplementedError):
            call()
