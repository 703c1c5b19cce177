"""All framers of ours keep the contract that we ask of others."""

from __future__ import annotations

from typing import Any

import pytest
from greentaps.framers.delimiter import DelimiterFramer, LineFramer
from greentaps.framers.http1 import Http1Framer
from greentaps.framers.length import LengthPrefixFramer
from greentaps.framers.netstring import NetstringFramer
from greentaps.framers.tlv import ExampleFramer, TlvFramer
from greentaps.framers.websocket import WebSocketFramer
from greentaps.testing_framers import check_framer, framer_checks

# Name -> how to make it, and how to check it.
FRAMERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "length": (LengthPrefixFramer, {}),
    "length-1": (lambda: LengthPrefixFramer(1), {"messages": [b"a", b"", b"x" * 255]}),
    "length-2-little": (lambda: LengthPrefixFramer(2, "little"), {}),
    "length-8": (lambda: LengthPrefixFramer(8), {"messages": [b"a", b"", b"x" * 40000]}),
    "delimiter": (DelimiterFramer, {}),
    "delimiter-long": (
        lambda: DelimiterFramer(b"aab"),
        {"messages": [b"hello", b"", b"aa", b"baa", b"a" * 50]},
    ),
    "line": (LineFramer, {"messages": [b"first", b"", b"with \r inside", b"\r", b"x" * 3000]}),
    "line-short": (lambda: LineFramer(b"\n"), {}),
    "tlv": (
        TlvFramer,
        {"messages": [(b"a", {"type": 7}), (b"", {"type": 255}), (b"x" * 3000, {"type": 0})]},
    ),
    "tlv-wide": (
        lambda: ExampleFramer(4, 8, "little", default_type=9),
        {"messages": [(b"a", {"type": 70000}), b"x" * 20000]},
    ),
    "netstring": (NetstringFramer, {}),
    "http-client": (
        lambda: Http1Framer("client", host="example.org"),
        {
            "make_peer": lambda: Http1Framer("server"),
            "messages": [
                (b"hi", {"target": "/x", "method": "PUT"}),
                (b"", {"target": "/y"}),
                b"z" * 3000,
            ],
            "answer": (b"well", {"status": 201}),
            "skip": ["datagrams"],
            "limit": 3 * 1024 * 1024,  # requests before their turn
        },
    ),
    "websocket-client": (
        lambda: WebSocketFramer("client", host="example.org"),
        {
            "make_peer": lambda: WebSocketFramer("server"),
            "messages": [
                b"first",
                b"",
                (b"binary \xff", {"type": "binary"}),
                ("gr\u00fc\u00df dich".encode(), {"type": "text"}),
                b"x" * 3000,
            ],
            "skip": ["datagrams"],
        },
    ),
    "websocket-server": (
        lambda: WebSocketFramer("server", subprotocols=["b", "a"]),
        {
            "make_peer": lambda: WebSocketFramer(
                "client", host="example.org", subprotocols=["a", "b"], default_type="text"
            ),
            "messages": [(b"first", {"type": "binary", "subprotocol": "b"}), b"", b"x" * 70000],
            "skip": ["datagrams"],
        },
    ),
}

CASES = [
    pytest.param(name, check, id=f"{name}-{check}")
    for name, (_, options) in FRAMERS.items()
    for check in framer_checks()
    if check not in options.get("skip", ())
]


@pytest.mark.rfc("F-01", "MF-01")
@pytest.mark.parametrize(("name", "check"), CASES)
def test_contract(name: str, check: str) -> None:
    make, options = FRAMERS[name]
    check_framer(make, names=[check], **{key: options[key] for key in options if key != "skip"})
