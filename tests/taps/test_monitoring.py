"""The log of events and the counts: what operators see, and what they must not see."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import greentaps as taps
import pytest
from conftest import Certificates
from gevent import socket as gsocket
from greentaps import (
    EstablishmentError,
    LengthPrefixFramer,
    MessageContext,
    Preconnection,
    SecurityParameters,
    statistics,
)
from rfc9622.world import datagram_peer, joined, listening, towards
from taps.helpers import HERE, free_port, pair, plain_listener, remote, until


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == logger]


@pytest.mark.rfc("SH-20")
def test_the_events_of_each_connection_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "greentaps")
    with listening() as listener:
        client = towards(listener).initiate(timeout=10)
        server = listener.accept(timeout=10)
        client.close(wait=False)
        server.abort()
        until(lambda: len(lines(caplog, "greentaps.connection")) >= 4)
    told = lines(caplog, "greentaps.connection")
    assert sorted(line.partition(":")[0] for line in told[:2]) == ["ConnectionReceived", "Ready"]
    assert any(line.startswith("ConnectionError: ") and "LocalAbort" in line for line in told[2:])
    assert all("<Connection tcp 127.0.0.1:" in line for line in told)
    heard = lines(caplog, "greentaps.listener")
    assert [line.partition(":")[0] for line in heard] == ["listening", "stopped"]
    assert all(record.levelno == logging.INFO for record in caplog.records)


@pytest.mark.rfc("SH-20")
def test_a_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "greentaps.connection")
    with datagram_peer() as (connection, _):
        connection.close()
    assert [line.partition(":")[0] for line in lines(caplog, "greentaps.connection")] == [
        "Ready",
        "Closed",
    ]


@pytest.mark.rfc("SH-20")
def test_attempts_and_their_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "greentaps")
    dead = free_port()
    with plain_listener() as peer:
        ends = [remote(dead), remote(peer.getsockname()[1])]
        Preconnection(remote_endpoint=ends).initiate(timeout=10).abort()
    told = lines(caplog, "greentaps.establishing")
    assert f"attempt: tcp to {HERE}:{dead}" in told
    assert any(line.startswith(f"failed: tcp to {HERE}:{dead}: ") for line in told)
    assert any(line.startswith("ready after ") for line in told)
    with pytest.raises(EstablishmentError):
        Preconnection(remote_endpoint=remote(dead)).initiate(timeout=10)
    (line,) = (
        line
        for line in lines(caplog, "greentaps.connection")
        if line.startswith("EstablishmentError")
    )
    assert f"tcp to {HERE}:{dead}" in line
    assert "ECONNREFUSED" in line


@pytest.mark.rfc("SH-20")
def test_who_is_turned_away_is_logged(
    caplog: pytest.LogCaptureFixture, certificates: Certificates
) -> None:
    caplog.set_level(logging.INFO, "greentaps.listener")
    security = SecurityParameters().add_identity(certificates.server, role="server")
    with (
        Preconnection(
            taps.LocalEndpoint().with_ip_address(HERE), security_parameters=security
        ).listen() as listener,
        gsocket.create_connection((HERE, listener.local_endpoints[0].port)) as stranger,
    ):
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        until(
            lambda: any("was not established" in one for one in lines(caplog, "greentaps.listener"))
        )


@pytest.mark.rfc("SH-20", "X-01")
@pytest.mark.parametrize("stack", ["tcp", "tls/tcp"])
def test_no_data_and_no_keys_are_logged(
    stack: str, caplog: pytest.LogCaptureFixture, certificates: Certificates
) -> None:
    caplog.set_level(logging.DEBUG)
    with pair(stack, certificates, LengthPrefixFramer()) as (client, server):
        client.send(b"the secret of the sender")
        assert server.receive(timeout=10).data == b"the secret of the sender"
        client.send(b"another secret", MessageContext().add("final", True), wait=False)
        server.receive(timeout=10)
        client.receive(wait=False)
        server.close(wait=False)
        client.close(timeout=10)
    assert caplog.records
    for line in caplog.messages:
        assert "secret" not in line
        assert "PRIVATE KEY" not in line


@pytest.mark.rfc("SH-20")
def test_nothing_is_written_unless_it_is_turned_on() -> None:
    code = (
        "import greentaps as taps\n"
        "end = taps.RemoteEndpoint().with_ip_address('127.0.0.1').with_port(1)\n"
        "taps.Preconnection(remote_endpoint=end).initiate(wait=False).close()\n"
        "here = taps.LocalEndpoint().with_ip_address('127.0.0.1')\n"
        "taps.Preconnection(here).listen().stop()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(taps.__file__))},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout + done.stderr == ""


@pytest.mark.rfc("A-14")
def test_connections_are_counted_by_stack(certificates: Certificates) -> None:
    before = statistics()
    with joined() as (client, server), pair("tls/tcp", certificates), datagram_peer():
        now = statistics()
        for stack, more in (("tcp", 2), ("tls/tcp", 2), ("udp", 1)):
            assert now.open[stack] == before.open.get(stack, 0) + more
            assert now.established[stack] == before.established.get(stack, 0) + more
        assert now.total_open == before.total_open + 5
        client.close(wait=False)
        server.close()
        until(lambda: statistics().open.get("tcp", 0) == before.open.get("tcp", 0))
        assert statistics().failed.get("tcp", 0) == before.failed.get("tcp", 0)
    until(lambda: statistics().total_open == before.total_open)
    after = statistics()
    assert after.failed["udp"] == before.failed.get("udp", 0) + 1  # aborted
    assert before.open.keys() == after.open.keys()


@pytest.mark.rfc("A-14")
def test_failures_and_listeners_are_counted() -> None:
    before = statistics()
    with listening(), listening():
        assert statistics().listeners == before.listeners + 2
    assert statistics().listeners == before.listeners
    with pytest.raises(EstablishmentError):
        Preconnection(remote_endpoint=remote(free_port())).initiate(timeout=10)
    with pytest.raises(EstablishmentError):
        Preconnection().initiate()
    now = statistics()
    for reason in ("EstablishmentFailed", "InvalidConfiguration"):
        assert now.not_established[reason] == before.not_established.get(reason, 0) + 1
    assert now.established == before.established


@pytest.mark.rfc("A-14")
def test_a_forked_child_counts_for_itself() -> None:
    with joined():
        assert statistics().total_open >= 2
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            counts = statistics()
            os.write(writing, b"%d %d" % (counts.total_open, counts.listeners))
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as file:
            assert file.read() == b"0 0"
        os.waitpid(child, 0)
