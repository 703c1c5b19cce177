"""Transactions and allocations in virtual time, against a server that is a function."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from greentaps.taps.rendezvous import stun
from greentaps.taps.rendezvous.stun import (
    CHANNEL_RENEWED,
    MAX_ANSWERS,
    MAX_PEERS,
    PERMISSION_RENEWED,
    Client,
    Relay,
    Transaction,
    codec,
    encode,
    looks_like_stun,
    parse,
    reflexive_address,
)
from hypothesis import given
from hypothesis import strategies as st

SERVER = ("203.0.113.10", 3478)
OURS = ("203.0.113.1", 40000)
RELAYED = ("203.0.113.10", 50000)
PEER = ("198.51.100.7", 7)
USER = ("user", "secret")
KEY = hashlib.md5(b"user:realm:secret").digest()


def tokens() -> Callable[[], bytes]:
    count = itertools.count(1)
    return lambda: next(count).to_bytes(12, "big")


class Server:
    """Answers what a client sends, as a TURN server does."""

    def __init__(self, *, asks: bool = True) -> None:
        self.asks = asks
        self.nonce = b"first"
        self.seen: list[tuple[float, Any]] = []
        self.answers: Callable[[Any], bytes | None] = self.answer
        self.lifetime = 600

    def of(self, method: str) -> list[float]:
        """When the signed requests of a method have come."""
        return [
            time
            for time, message in self.seen
            if message.message_method.name == method and "USERNAME" in message.attributes
        ]

    def answer(self, message: Any) -> bytes | None:
        if message.message_class != codec().Class.REQUEST:
            return None
        name, token = message.message_method.name, message.transaction_id
        if self.asks and message.attributes.get("NONCE") != self.nonce:
            code = 438 if "NONCE" in message.attributes else 401
            asked = {"ERROR-CODE": (code, "who?"), "REALM": "realm", "NONCE": self.nonce}
            return encode(name, "ERROR", token, asked)
        key = KEY if self.asks else None
        facts: dict[str, dict[str, Any]] = {
            "BINDING": {"XOR-MAPPED-ADDRESS": OURS},
            "ALLOCATE": {
                "XOR-RELAYED-ADDRESS": RELAYED,
                "XOR-MAPPED-ADDRESS": OURS,
                "LIFETIME": self.lifetime,
            },
            "REFRESH": {"LIFETIME": min(self.lifetime, message.attributes.get("LIFETIME", 0))},
        }
        return encode(name, "RESPONSE", token, facts.get(name, {}), key)


def run(what: Relay | Client, server: Server, until: float, now: float = 0.0) -> float:
    """Let time pass; a datagram takes none."""
    client = what.client if isinstance(what, Relay) else what
    while True:
        while client.outgoing:
            data = client.outgoing.pop(0)
            message = parse(data)
            if message is None:
                continue
            server.seen.append((round(now, 6), message))
            answer = server.answers(message)
            if answer is not None:
                if isinstance(what, Relay):
                    assert what.received(answer, now) is None
                else:
                    client.received(parse(answer), now)
        if what.wake_at > until:
            return until
        now = max(now, what.wake_at)
        what.wake(now)


# -- Transactions --


@pytest.mark.rfc("RZ-09")
def test_a_request_is_sent_seven_times_and_given_up_after_39_5_seconds() -> None:
    transaction = Transaction(b"data", 100.0)
    sent = []
    now = 100.0
    while True:
        now = transaction.due
        if transaction.step(now) is None:
            break
        sent.append(now - 100)
    assert sent == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert now - 100 == 39.5
    assert transaction.due == float("inf")


@pytest.mark.rfc("RZ-08")
def test_the_first_wait_is_never_shorter_than_half_a_second() -> None:
    transaction = Transaction(b"data", 0.0, 0.1)
    transaction.step(0.0)
    assert transaction.due == 0.5


def test_over_tcp_a_request_is_sent_once() -> None:
    transaction = Transaction(b"data", 0.0, reliable=True)
    assert transaction.step(0.0) == b"data"
    assert transaction.due == 39.5
    assert transaction.step(39.5) is None


# -- Clients --


def ask(client: Client, now: float = 0.0) -> list[Any]:
    answers: list[Any] = []
    client.request("BINDING", {}, lambda answer, _now: answers.append(answer), now)
    return answers


@pytest.mark.rfc("E-10", "CG-04")
@pytest.mark.parametrize("asks", [False, True])
def test_how_a_server_sees_us(asks: bool) -> None:
    client = Client(SERVER, USER, tokens())
    answers = ask(client)
    run(client, Server(asks=asks), 1)
    assert [reflexive_address(answer) for answer in answers] == [OURS]
    assert client.wake_at == float("inf")


def test_a_server_that_is_silent() -> None:
    server = Server()
    server.answers = lambda message: None
    client = Client(SERVER, None, tokens())
    answers = ask(client)
    run(client, server, 100)
    assert answers == [None]
    assert [time for time, _ in server.seen] == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]


def test_a_server_that_asks_who_we_are_and_need_not_know() -> None:
    client = Client(SERVER, None, tokens())
    answers = ask(client)
    run(client, Server(), 1)
    assert answers[0].error_code == 401
    assert reflexive_address(answers[0]) is None


def test_a_server_that_does_not_believe_us() -> None:
    server = Server()
    client = Client(SERVER, USER, tokens())

    def unbelieving(message: Any) -> bytes | None:
        message.attributes.pop("NONCE", None)
        return server.answer(message)

    server.answers = unbelieving
    answers = ask(client)
    run(client, server, 100)
    assert answers[0].error_code == 401
    assert len(server.seen) == 2


def test_a_server_whose_nonce_is_always_old() -> None:
    server = Server()
    client = Client(SERVER, USER, tokens())
    count = itertools.count()

    def forgetful(message: Any) -> bytes | None:
        server.nonce = b"nonce %d" % next(count)
        return server.answer(message)

    server.answers = forgetful
    answers = ask(client)
    run(client, server, 100)
    assert answers[0].error_code == 438
    assert len(server.seen) == MAX_ANSWERS + 1


def test_an_old_nonce_is_replaced() -> None:
    server = Server()
    client = Client(SERVER, USER, tokens())
    ask(client)
    run(client, server, 1)
    server.nonce = b"second"
    answers = ask(client, 2.0)
    run(client, server, 3, 2.0)
    assert reflexive_address(answers[0]) == OURS


@pytest.mark.parametrize("key", [None, b"x" * 16])
def test_answers_that_are_not_signed_do_not_count(key: bytes | None) -> None:
    server = Server()
    client = Client(SERVER, USER, tokens())
    ask(client)
    run(client, server, 1)
    evil = {"XOR-MAPPED-ADDRESS": ("192.0.2.66", 6)}
    server.answers = lambda message: encode(
        "BINDING", "RESPONSE", message.transaction_id, evil, key
    )
    answers = ask(client, 2.0)
    run(client, server, 200, 2.0)
    assert answers == [None]


def test_answers_to_what_was_not_asked() -> None:
    client = Client(SERVER, None, tokens())
    answers = ask(client)
    token = parse(client.outgoing[0]).transaction_id
    mapped = {"XOR-MAPPED-ADDRESS": OURS}
    for data in (
        encode("BINDING", "RESPONSE", b"x" * 12, mapped),
        encode("ALLOCATE", "RESPONSE", token, mapped),
        encode("BINDING", "REQUEST", token, mapped),
        encode("BINDING", "INDICATION", token, mapped),
    ):
        client.received(parse(data), 0.1)
    assert answers == []


@given(st.binary(max_size=200))
def test_any_bytes_are_no_message_or_one(data: bytes) -> None:
    message = parse(data)
    assert message is None or looks_like_stun(data)
    header = b"\1\1" + (len(data) // 4 * 4).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + b"t" * 12
    parse(header + data[: len(data) // 4 * 4])


# -- Allocations --


def test_a_message_of_very_many_attributes_is_none() -> None:
    def of(count: int) -> bytes:
        attributes = b"\0\x25\0\0" * count  # USE-CANDIDATE, which is empty
        size = len(attributes).to_bytes(2, "big")
        return b"\0\1" + size + b"\x21\x12\xa4\x42" + b"t" * 12 + attributes

    assert parse(of(stun.MAX_ATTRIBUTES)) is not None
    assert parse(of(stun.MAX_ATTRIBUTES + 1)) is None
    assert parse(of(16000)) is None


def allocated(server: Server | None = None) -> tuple[Relay, Server]:
    server = server or Server()
    relay = Relay(Client(SERVER, USER, tokens()), 0.0)
    assert relay.pending
    run(relay, server, 0.5)
    return relay, server


@pytest.mark.rfc("CG-04")
def test_an_allocation() -> None:
    relay, _ = allocated()
    assert (relay.address, relay.mapped, relay.pending) == (RELAYED, OURS, False)


def test_an_allocation_that_is_refused() -> None:
    server = Server()

    def full(message: Any) -> bytes:
        return encode("ALLOCATE", "ERROR", message.transaction_id, {"ERROR-CODE": (486, "quota")})

    server.answers = full
    relay, _ = allocated(server)
    assert relay.address is None
    assert relay.failure == "the server says 486 quota"


def test_an_allocation_that_nobody_grants() -> None:
    server = Server()
    server.answers = lambda message: None
    relay, _ = allocated(server)
    run(relay, server, 100, 0.5)
    assert relay.failure == "the server does not answer"
    assert not relay.pending


def test_an_allocation_is_renewed_in_time() -> None:
    relay, server = allocated()
    run(relay, server, 2000, 0.5)
    assert server.of("REFRESH") == [540.0, 1080.0, 1620.0]
    relay.release(2000)
    run(relay, server, 2001, 2000)
    assert server.seen[-1][1].attributes["LIFETIME"] == 0
    run(relay, server, 10_000, 2001)
    assert server.seen[-1][0] == 2000


def test_a_lifetime_of_a_second_does_not_make_us_busy() -> None:
    server = Server()
    server.lifetime = 1
    relay, _ = allocated(server)
    run(relay, server, 60, 0.5)
    assert 50 <= len(server.of("REFRESH")) <= 60


def test_an_allocation_that_is_lost() -> None:
    relay, server = allocated()
    server.answers = lambda message: encode(
        "REFRESH", "ERROR", message.transaction_id, {"ERROR-CODE": (437, "gone")}, KEY
    )
    run(relay, server, 600, 0.5)
    assert relay.address is None
    assert relay.failure == "the server says 437 gone"


def test_what_is_sent_waits_for_the_permission() -> None:
    relay, server = allocated()
    relay.send(PEER, b"one", 1.0)
    relay.send(PEER, b"two", 1.0)
    run(relay, server, 2, 1.0)
    kinds = [message.message_method.name for _, message in server.seen[-3:]]
    assert kinds == ["CREATE_PERMISSION", "SEND", "SEND"]
    sent = [message.attributes for _, message in server.seen[-2:]]
    assert [one["DATA"] for one in sent] == [b"one", b"two"]
    assert {one["XOR-PEER-ADDRESS"] for one in sent} == {PEER}
    run(relay, server, 1 + 3.5 * PERMISSION_RENEWED, 2)
    assert server.of("CREATE_PERMISSION") == [
        pytest.approx(1 + PERMISSION_RENEWED * n) for n in range(4)
    ]


@pytest.mark.parametrize("method", ["REFRESH", "CREATE_PERMISSION"])
@pytest.mark.parametrize("silent", [True, False])
def test_what_is_not_renewed_is_said(method: str, silent: bool) -> None:
    relay, server = allocated()
    relay.send(PEER, b"x", 1.0)
    run(relay, server, 100, 1.0)
    assert relay.failure_with(PEER) is None

    def answers(message: Any) -> bytes | None:
        if message.message_method.name != method:
            return server.answer(message)
        refusal = {"ERROR-CODE": (437, "Gone")}
        return None if silent else encode(method, "ERROR", message.transaction_id, refusal, KEY)

    server.answers = answers
    run(relay, server, 600, 100.0)
    assert relay.failure_with(PEER) == (
        "the server does not answer" if silent else "the server says 437 Gone"
    )


def test_what_waits_is_bounded() -> None:
    relay, server = allocated()
    for number in range(300):
        for _ in range(20):
            relay.send((f"198.51.{number // 250}.{number % 250}", 7), b"x", 1.0)
    server.seen.clear()
    run(relay, server, 1.1, 1.0)
    assert len(server.of("CREATE_PERMISSION")) == MAX_PEERS
    sends = [one for _, one in server.seen if one.message_method.name == "SEND"]
    assert len(sends) == MAX_PEERS * stun.MAX_HELD


def test_a_channel_carries_more() -> None:
    relay, server = allocated()
    relay.send(PEER, b"x", 1.0)
    run(relay, server, 1, 1.0)
    assert looks_like_stun(relay.wrapped(PEER, b"data"))
    relay.bind(PEER, 1.0)
    relay.bind(PEER, 1.0)
    run(relay, server, 1.5, 1.0)
    assert relay.wrapped(PEER, b"data") == b"\x40\0\0\4data"
    assert relay.received(b"\x40\0\0\4back", 2.0) == (PEER, b"back")
    run(relay, server, 1 + 2.5 * CHANNEL_RENEWED, 2)
    assert server.of("CHANNEL_BIND") == [pytest.approx(1 + CHANNEL_RENEWED * n) for n in range(3)]


def test_a_channel_that_is_refused() -> None:
    relay, server = allocated()
    relay.send(PEER, b"x", 1.0)
    run(relay, server, 1, 1.0)
    server.answers = lambda message: encode(
        message.message_method.name,
        "ERROR",
        message.transaction_id,
        {"ERROR-CODE": (400, "no")},
        KEY,
    )
    relay.bind(PEER, 1.0)
    run(relay, server, 1.5, 1.0)
    message = parse(relay.wrapped(PEER, b"data"))
    assert message.attributes["DATA"] == b"data"


@pytest.mark.parametrize(
    "data",
    [
        b"\x40\1\0\4back",  # a channel that is not bound
        b"\x40\0\0\5back",  # shorter than it says
        b"\x40",
        encode("DATA", "INDICATION", b"t" * 12, {"DATA": b"x"}),
        encode("DATA", "INDICATION", b"t" * 12, {"XOR-PEER-ADDRESS": PEER}),
        encode("SEND", "INDICATION", b"t" * 12, {"XOR-PEER-ADDRESS": PEER, "DATA": b"x"}),
        encode(
            "DATA", "INDICATION", b"t" * 12, {"XOR-PEER-ADDRESS": ("192.0.2.66", 6), "DATA": b"x"}
        ),
        b"",
        b"junk",
    ],
)
def test_what_no_server_sends(data: bytes) -> None:
    relay, server = allocated()
    relay.send(PEER, b"x", 1.0)
    run(relay, server, 1, 1.0)
    relay.bind(PEER, 1.0)
    run(relay, server, 1.5, 1.0)
    assert relay.received(data, 2.0) is None


def test_the_word_of_a_peer_with_permission() -> None:
    relay, server = allocated()
    relay.send(PEER, b"x", 1.0)
    run(relay, server, 1, 1.0)
    data = encode("DATA", "INDICATION", b"t" * 12, {"XOR-PEER-ADDRESS": PEER, "DATA": b"word"})
    assert relay.received(data, 2.0) == (PEER, b"word")


def test_without_the_library_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    from greentaps import EstablishmentError, Preconnection, TransportProperties
    from taps.helpers import local, remote

    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "aioice":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    asked = TransportProperties("unreliable-datagram")
    for action in ("resolve", "rendezvous"):
        with pytest.raises(EstablishmentError, match=r"greentaps\[ice\]"):
            getattr(Preconnection(local(), remote(1), asked), action)()
    preconnection = Preconnection(local())  # TCP does without
    assert len(preconnection.resolve()[0]) == 1
    preconnection.release()
