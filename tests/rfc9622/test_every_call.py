"""No public call is left out: each gets wrong values, and each attribute that is only to be read
refuses to be set.

What is public is what the reference shows: all names of a class but those that its page excludes.
A new method without a row here fails the first test.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import greentaps as taps
import pytest
from greentaps import (
    Connection,
    Listener,
    LocalEndpoint,
    Message,
    MessageContext,
    Preconnection,
    PropertyError,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)
from greentaps.taps.properties import ConnectionProperties
from rfc9622.world import joined, listening
from taps.helpers import local, owned, remote

ROOT = Path(__file__).parents[2]
OBJECT = object()
NOT_STR = (None, 1, 1.5, b"x", ["x"], OBJECT)
NOT_NAMES = (None, 1, b"reliability", ["reliability"], OBJECT)
NOT_HANDLERS = (1, "handler", b"x", [print])
NOT_TIMEOUTS = ("1", b"1", [1], True, OBJECT, -1, float("nan"), float("-inf"))
NOT_DATA = ("text", None, 1, [b"x"], {}, OBJECT)
WRONG = (TypeError, ValueError, KeyError, PropertyError)


@dataclass
class Call:
    """Wrong arguments for one method: each of *first* as the only one, each of *others* as a
    whole."""

    first: tuple[Any, ...] = ()
    others: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    raises: Any = WRONG

    def __iter__(self) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        yield from (((wrong,), {}) for wrong in self.first)
        yield from self.others


def named(name: str, *values: Any, before: tuple[Any, ...] = ()) -> list[Any]:
    return [(before, {name: value}) for value in values]


TIMEOUT = named("timeout", *NOT_TIMEOUTS)
LENGTH = ("1", 1.0, True, [1], 0, -1)
EVENTS = """
clone_error closed connection_error establishment_error expired path_change ready receive_error
received received_partial rendezvous_done send_error sent soft_error
"""
HANDLERS = {f"on_{event}": Call(NOT_HANDLERS) for event in EVENTS.split()}
ENDPOINT = {
    "with_hostname": Call((*NOT_STR, "", "a b", "a\0", "x" * 300, "localhost:80")),
    "with_port": Call((None, 1.0, True, "http", -1, 65536, 10**20, OBJECT)),
    "with_service": Call((*NOT_STR, "", "a b", "70000")),
    "with_ip_address": Call((None, 1, 1.5, OBJECT, "", "1.2.3", "1.2.3.4%lo", b"123", "a.b")),
    "with_interface": Call((*NOT_STR, "", "a b", "a/b", "a%b")),
    "with_protocol": Call((*NOT_STR, "", "t c p")),
    "with_hop_limit": Call((None, "1", 1.0, True, OBJECT, 0, -1, 256)),
    "with_ice_credentials": Call(
        (),
        [((name, "p" * 22), {}) for name in (None, 1, "abc", "a" * 257, "ab cd")]
        + [(("abcd", password), {}) for password in (None, 1, "short", "p" * 257, "p " * 11)],
    ),
    "from_text": Call(
        (None, 1, b"x", "", "candidate:", "a=candidate:1 1 udp 1 192.0.2.1", "x" * 5000)
    ),
}
SERVER = Call(
    (None, 1, 1.5, "", "a b", OBJECT),
    [
        *named("port", "http", 0, -1, 65536, 1.5, None, before=("192.0.2.1",)),
        *named("credentials", "me", ("me",), ("me", 1), 7, before=("192.0.2.1",)),
    ],
)
REMOTES = Call((1, "name", local(), [local()], OBJECT))
LOCALS = Call((1, "name", remote(1), [remote(1)], OBJECT))
ENDS = {
    "add_local": LOCALS,
    "add_remote": REMOTES,
    "remove_local": LOCALS,
    "remove_remote": REMOTES,
}
PREFERENCE = Call((*NOT_NAMES, "noSuchThing", "connTimeout", "multipath"))
CALLS: dict[type, dict[str, Call]] = {
    Preconnection: {
        **HANDLERS,
        "on_connection_received": Call(NOT_HANDLERS),
        "on_stopped": Call(NOT_HANDLERS),
        "add_framer": Call((None, 1, "framer", taps.LengthPrefixFramer)),
        **ENDS,
        "explain": Call(NOT_TIMEOUTS),
        "initiate": Call(NOT_TIMEOUTS),
        "initiate_with_send": Call(
            NOT_DATA,
            [
                *named("context", 1, "x", {"final": True}, before=(b"x",)),
                *named("sent_handler", *NOT_HANDLERS, before=(b"x",)),
                *named("timeout", *NOT_TIMEOUTS, before=(b"x",)),
            ],
        ),
        "listen": Call(NOT_TIMEOUTS),
        "rendezvous": Call(NOT_TIMEOUTS),
        "resolve": Call(NOT_TIMEOUTS),
    },
    Connection: {
        **HANDLERS,
        **ENDS,
        "batch": Call((1, "block", [print])),
        "clone": Call(
            (1, "framer"), [*named("connection_properties", 1, ["x"], "connPriority"), *TIMEOUT]
        ),
        "close": Call(NOT_TIMEOUTS),
        "close_group": Call(NOT_TIMEOUTS),
        "receive": Call(
            LENGTH,
            [
                *named("min_incomplete_length", *LENGTH),
                *named("max_length", *LENGTH),
                *named("handler", *NOT_HANDLERS),
                *TIMEOUT,
            ],
        ),
        "send": Call(
            NOT_DATA,
            [
                *named("context", 1, "x", {"final": True}, before=(b"x",)),
                *named("end_of_message", 1, "yes", b"x", before=(b"x",)),
                *named("sent_handler", *NOT_HANDLERS, before=(b"x",)),
                *((((b"x", MessageContext()), {"timeout": wrong})) for wrong in NOT_TIMEOUTS),
            ],
        ),
        "set_property": Call(
            (), [((name, 1), {}) for name in NOT_NAMES] + [(("connTimeout", "soon"), {})]
        ),
    },
    Listener: {
        "accept": Call(NOT_TIMEOUTS),
        "on_connection_received": Call(NOT_HANDLERS),
        "on_stopped": Call(NOT_HANDLERS),
        "set_new_connection_limit": Call((None, "1", 1.5, True, -1, OBJECT)),
    },
    MessageContext: {
        "add": Call(
            ("final",),
            [
                *(((name, 1), {}) for name in (*NOT_NAMES, "noSuchThing", "connTimeout")),
                *((("msgPriority", wrong), {}) for wrong in (-1, 1.5, "x", True, OBJECT)),
                *((("msgLifetime", wrong), {}) for wrong in (0, -2, "x", True, OBJECT)),
                *((("final", wrong), {}) for wrong in (1, "yes", None)),
                ((), {}),
                ((1, 2, 3, 4), {}),
            ],
        ),
        "get": Call((*NOT_NAMES, "noSuchThing"), [((), {}), ((1, 2, 3), {})]),
        "has": Call((None, 1, b"final", OBJECT)),
    },
    SecurityParameters: {
        "add_identity": Call((1, None, OBJECT), raises=(*WRONG, OSError)),
        "add_pin": Call((1, None, OBJECT, "sha256/short"), raises=(*WRONG, OSError)),
        "add_trust_ca": Call((1, None, OBJECT, "/no/such/file", b"none"), raises=(*WRONG, OSError)),
        "allow_protocols": Call((1, None.__class__, "ssl3", b"tls_1_3")),
        "get": Call((*NOT_STR, "noSuchThing")),
        "offer_alpn": Call((1, "", "x" * 256, OBJECT, b"h2", "\u00fc")),
        "set": Call(
            (),
            [
                *(((name, 1), {}) for name in (*NOT_STR, "noSuchThing")),
                *((("maxCachedSessions", wrong), {}) for wrong in (-1, 1.5, "1", True, OBJECT)),
                *((("ciphersuite", wrong), {}) for wrong in (1, "none", b"x", [])),
                *((("preSharedKey", *wrong), {}) for wrong in ((b"short", "me"), (1, 2), ("k",))),
            ],
        ),
        "set_identity_challenge_callback": Call(NOT_HANDLERS),
        "set_pre_shared_key": Call(
            (), [((b"short", "me"), {}), ((1, 2), {}), ((b"k" * 16, ""), {})]
        ),
        "set_trust_verification_callback": Call(NOT_HANDLERS),
        "supported": Call((*NOT_STR, "noSuchThing")),
    },
    TransportProperties: {
        "add": Call(
            (), [((name, 1), {}) for name in (*NOT_NAMES, "noSuchThing", "connTimeout")][:-1]
        ),
        "set": Call(
            (),
            [((name, 1), {}) for name in (*NOT_NAMES, "noSuchThing")]
            + [(("reliability", wrong), {}) for wrong in (None, "soon", 7, 1.5, OBJECT)],
        ),
        "get": Call((*NOT_NAMES, "noSuchThing")),
        "is_set": Call((*NOT_NAMES, "noSuchThing")),
        "default": Call((*NOT_NAMES, "noSuchThing")),
        **dict.fromkeys(("require", "prefer", "no_preference", "avoid", "prohibit"), PREFERENCE),
    },
    LocalEndpoint: {**ENDPOINT, "with_stun_server": SERVER, "with_turn_server": SERVER},
    RemoteEndpoint: ENDPOINT,
    Message: {},
    ConnectionProperties: {
        "get": Call((*NOT_NAMES, "noSuchThing")),
        "has": Call((*NOT_NAMES, "noSuchThing", "connTimeout")),
        "is_set": Call((*NOT_NAMES, "noSuchThing")),
        "set": Call((), [((name, 1), {}) for name in (*NOT_NAMES, "noSuchThing", "connState")]),
    },
}
PAGES = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.rst"))


def excluded(kind: type) -> set[str]:
    """The names of *kind* that the reference does not show."""
    found: set[str] = set()
    for base in (kind, LocalEndpoint if kind is RemoteEndpoint else kind):
        match = re.search(
            rf"autoclass:: greentaps\.(?:\w+\.)*{base.__name__}(?:\(\))?\n((?:   .*\n)*)", PAGES
        )
        if match:
            shown = re.search(r":members: (.+)", match[1])
            if shown:
                found |= set(dir(kind)) - set(re.findall(r"\w+", shown[1]))
            for names in re.findall(r":exclude-members:((?:.*\n)(?:      .*\n)*)", match[1]):
                found |= set(re.findall(r"\w+", names))
    return found


def public(kind: type) -> dict[str, Any]:
    names = {name for name in dir(kind) if not name.startswith("_")} - excluded(kind)
    return {
        name: inspect.getattr_static(kind, name) for name in sorted(names) if not name.isupper()
    }


def is_call(value: Any) -> bool:
    return inspect.isroutine(value) or isinstance(value, classmethod | staticmethod)


def takes_nothing(kind: type, name: str) -> bool:
    return len(inspect.signature(getattr(kind, name)).parameters) <= (
        0 if isinstance(inspect.getattr_static(kind, name), classmethod | staticmethod) else 1
    )


ALIASES = {"on_initiate_error", "ignore"}


@pytest.mark.rfc("T-01")
@pytest.mark.parametrize("kind", CALLS, ids=lambda kind: kind.__name__)
def test_every_public_call_has_a_row(kind: type) -> None:
    calls = {name for name, value in public(kind).items() if is_call(value)} - ALIASES
    assert {name for name in calls if not takes_nothing(kind, name)} == set(CALLS[kind])


def made(kind: type, connection: Connection, listener: Listener) -> Any:
    if kind is Preconnection:
        return Preconnection(local(), remote(1))
    if kind is Message:
        return Message(b"x", True, None)
    if kind is ConnectionProperties:
        return connection.get_properties()
    return {Connection: connection, Listener: listener}.get(kind) or kind()


@pytest.mark.rfc("T-01", "CM-01", "T-06")
@pytest.mark.parametrize("kind", CALLS, ids=lambda kind: kind.__name__)
def test_wrong_values_are_refused_by_each_and_change_nothing(kind: type) -> None:
    with joined() as (connection, server), listening() as listener:
        subject = made(kind, connection, listener)
        shown = repr(subject)
        before = owned()
        accepted = []
        for name, call in CALLS[kind].items():
            for arguments, keywords in call:
                try:
                    getattr(subject, name)(*arguments, **keywords)
                except call.raises:
                    pass
                else:
                    accepted.append((name, arguments, keywords))
        assert accepted == []
        assert owned() == before
        assert repr(subject) == shown
        connection.send(b"still there")
        assert server.receive(1, timeout=10).data == b"still there"
        assert not listener.stopped


@pytest.mark.rfc("T-01", "CM-01")
@pytest.mark.parametrize("kind", CALLS, ids=lambda kind: kind.__name__)
def test_what_is_only_to_be_read_cannot_be_set(kind: type) -> None:
    with joined() as (connection, _), listening() as listener:
        subject = made(kind, connection, listener)
        for name, value in public(kind).items():
            if isinstance(value, property) and value.fset is None:
                with pytest.raises(AttributeError):
                    setattr(subject, name, 1)
