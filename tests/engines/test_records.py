"""What passes through both engines on the data path: every byte, in whatever pieces it comes, and
also where pyOpenSSL does not show what lies below it."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Certificates
from greentaps.engines import Engine, make_engine, pyopenssl
from transports.helpers import client_context, server_context

SIZES = [0, 1, 1000, 16383, 16384, 16385, 32768, 65536, 70000, 200_000]
KINDS = ["stdlib", "pyopenssl", "pyopenssl, public calls only"]


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """Instead of the check of the same name: nothing here opens anything."""


@pytest.fixture(params=KINDS)
def pair(
    request: pytest.FixtureRequest, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> tuple[Engine, Engine]:
    engine, _, only = request.param.partition(", ")
    if only:
        monkeypatch.setattr(pyopenssl, "_below", lambda connection: (None, None, None))
    client = make_engine(client_context(engine, certificates), False, "localhost")
    server = make_engine(server_context(engine, certificates), True, None)
    done = {client: False, server: False}
    for _ in range(10):
        for here, there in ((client, server), (server, client)):
            done[here] = done[here] or here.handshake()
            there.feed(here.drain() or b"")
    assert all(done.values())
    return client, server


def everything(engine: Engine) -> bytes:
    """What `read` gives, as the transport asks for it."""
    pieces = []
    while piece := engine.read():
        pieces.append(piece)
        if not engine.more:
            assert not engine.read()  # it has said so
            break
    return b"".join(pieces)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_sealed_comes_out(pair: tuple[Engine, Engine], size: int, kind: Any) -> None:
    client, server = pair
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for here, there in (pair, (server, client)):
        there.feed(here.seal(kind(data)))
        assert here.short == 0
        assert here.drain() == b""
        assert everything(there) == data


def test_write_and_drain_do_the_same(pair: tuple[Engine, Engine]) -> None:
    client, server = pair
    for size in SIZES:
        assert client.write(bytes(size)) == size
        server.feed(client.drain())
        assert everything(server) == bytes(size)


@pytest.mark.parametrize("step", [1, 5, 21, 1000])
def test_records_in_small_pieces(pair: tuple[Engine, Engine], step: int) -> None:
    client, server = pair
    data = bytes(range(250)) * 70  # two records
    sealed = client.seal(data) + client.seal(b"the end")
    received = b""
    for start in range(0, len(sealed), step):
        server.feed(sealed[start : start + step])
        received += everything(server)
    assert received == data + b"the end"


def test_the_end_behind_data(pair: tuple[Engine, Engine]) -> None:
    client, server = pair
    sealed = client.seal(bytes(20_000))
    client.shutdown()
    server.feed(sealed + client.drain())
    received = b""
    while piece := server.read():
        received += piece
    assert piece is None
    assert received == bytes(20_000)


def test_another_thread_may_take_the_last_buffer(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there when we look, and is gone when we take it."""

    class Taken(list[Any]):
        def __bool__(self) -> bool:
            return True

        def append(self, one: Any) -> None:
            pass

    monkeypatch.setattr(pyopenssl, "_buffers", Taken())
    client = make_engine(client_context("pyopenssl", certificates), False, "localhost")
    server = make_engine(server_context("pyopenssl", certificates), True, None)
    done = {client: False, server: False}
    for _ in range(10):
        for here, there in ((client, server), (server, client)):
            done[here] = done[here] or here.handshake()
            there.feed(here.drain() or b"")
    server.feed(client.seal(b"data"))
    assert everything(server) == b"data"
