"""Programs that know nothing of us, at the other end of Connections (RFC 9621 section 3.4).

What `openssl` is asked about security is in ``test_security.py``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from conftest import Certificates
from greentaps import (
    LineFramer,
    MessageContext,
    Preconnection,
    SecurityParameters,
    TransportProperties,
)
from peers import LIBRARY, running
from rfc9622.world import listening, towards
from taps.helpers import HERE, free_port, local, port_of, remote, until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.peer


def datagrams() -> TransportProperties:
    return TransportProperties("unreliable-datagram")


# -- Datagrams --


@pytest.mark.rfc("A-03", "UD-09", "UD-10", "UD-12", "UD-13")
@pytest.mark.parametrize("program", ["socat", "ncat"])
def test_datagrams_of_a_program(program: str) -> None:
    with listening(datagrams()) as listener:
        port = port_of(listener)
        command = {
            "socat": ("socat", "-t10", "-", f"UDP:{HERE}:{port}"),
            "ncat": ("ncat", "--udp", HERE, port),
        }[program]
        with running(*command) as peer:
            peer.say(b"hello\n")
            connection = listener.accept(timeout=20)
            message = connection.receive(timeout=20)
            assert (message.data, message.end_of_message) == (b"hello\n", True)
            connection.send(b"first\n")
            assert peer.line() == "first"
            peer.say(b"again\n")
            assert connection.receive(timeout=20).data == b"again\n"
            connection.close()


@pytest.mark.rfc("A-03", "UD-03", "UD-04", "UD-12", "UD-13")
def test_datagrams_to_a_program() -> None:
    port = free_port()
    with running(
        "socat", "-d", "-d", f"UDP-LISTEN:{port},bind={HERE}", "EXEC:cat", errors=True
    ) as peer:
        peer.wait_for("listening on")
        client = Preconnection(
            remote_endpoint=remote(port), transport_properties=datagrams()
        ).initiate(timeout=10)
        with client:
            for data in (b"one", b"two"):
                client.send(data)
                assert client.receive(timeout=20).data == data


# -- Lines --


@pytest.mark.rfc("A-03", "F-01")
@pytest.mark.parametrize("program", ["socat", "ncat"])
def test_lines_of_a_program(program: str) -> None:
    with listening(of=Preconnection(local()).add_framer(LineFramer())) as listener:
        port = port_of(listener)
        command = {
            "socat": ("socat", "-t10", "-", f"TCP:{HERE}:{port},crlf"),
            "ncat": ("ncat", "-C", HERE, port),  # -C: lines end with CRLF
        }[program]
        with running(*command) as peer:
            connection = listener.accept(timeout=20)
            peer.say(b"one\ntwo\n")
            assert [connection.receive(timeout=20).data for _ in range(2)] == [b"one", b"two"]
            connection.send(b"an answer")
            assert peer.line().rstrip("\r") == "an answer"
            connection.send(b"the last", MessageContext().add("final", True))
            assert peer.line().rstrip("\r") == "the last"
            peer.end_input()
            assert list(connection) == []
            connection.close(timeout=20)
            assert peer.wait() == 0


@pytest.mark.rfc("A-03", "P-45", "TC-12")
def test_lines_to_a_program_that_ends_when_we_do() -> None:
    port = free_port()
    with running(
        "socat", "-d", "-d", f"TCP-LISTEN:{port},bind={HERE},reuseaddr", "EXEC:sort", errors=True
    ) as peer:
        peer.wait_for("listening on")
        client = Preconnection(remote_endpoint=remote(port)).add_framer(LineFramer())
        with client.initiate(timeout=10) as connection:
            connection.send(b"b")
            connection.send(b"a", MessageContext().add("final", True))  # now it can sort
            assert [message.data for message in connection] == [b"a", b"b"]


# -- HTTP --


@pytest.mark.rfc("A-03")
@pytest.mark.parametrize("form", ["http_server", "http_server_events"])
def test_curl_and_the_http_server_of_the_examples(form: str) -> None:
    environment = {"PYTHONPATH": os.pathsep.join([str(LIBRARY)])}
    with running(sys.executable, EXAMPLES / f"{form}.py", 0, env=environment) as server:
        port = int(server.line().rpartition(" ")[2])
        url = f"http://{HERE}:{port}"
        with running(
            *("curl", "-sS", "--noproxy", "*", "--max-time", 20),
            *("-w", "%{http_code} %{num_connects}\\n", f"{url}/one", f"{url}/two"),
        ) as curl:
            # Both over one connection.
            assert curl.line() == "GET /one: 0 bytes"
            assert curl.line() == "200 1"
            assert curl.line() == "GET /two: 0 bytes"
            assert curl.line() == "200 0"
            assert curl.wait() == 0
        with running(
            *("curl", "-sS", "--noproxy", "*", "--max-time", 20, "-T", "-"),
            *("-w", "%{http_code}\\n", f"{url}/teapot"),
        ) as curl:
            curl.say(b"some tea")
            curl.end_input()  # the body goes in chunks, behind "Expect: 100-continue"
            assert curl.line() == "PUT /teapot: 8 bytes"
            assert curl.line() == "418"
            assert curl.wait() == 0


@pytest.mark.rfc("A-03")
def test_curl_is_told_what_is_wrong() -> None:
    with running(
        sys.executable, EXAMPLES / "http_server.py", 0, env={"PYTHONPATH": str(LIBRARY)}
    ) as server:
        port = int(server.line().rpartition(" ")[2])
        with running(
            *("curl", "-sS", "--noproxy", "*", "--max-time", 20, "-o", "/dev/null"),
            *(
                "-w",
                "%{http_code}\\n",
                *(2 * ("-H", "X-Long: " + "x" * 90_000)),
                f"http://{HERE}:{port}/",
            ),
        ) as curl:
            assert curl.line() == "431"


# -- Resumption of TLS sessions, as the client of another library sees it --


@pytest.mark.rfc("A-03", "SP-13")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_client_resumes_with_us(version: str, certificates: Certificates, tmp_path: Path) -> None:
    security = SecurityParameters().set("serverCertificate", certificates.server)
    saved = tmp_path / "session"
    with Preconnection(local(), None, None, security).listen() as listener:
        for options, word in ((("-sess_out", saved), "New"), (("-sess_in", saved), "Reused")):
            with running(
                *("openssl", "s_client", "-connect", f"{HERE}:{port_of(listener)}", version),
                *options,
                errors=True,
            ) as peer:
                connection = listener.accept(timeout=20)
                assert connection.transport.get_extra_info("session_reused") is (word == "Reused")
                connection.send(b"ticket and word\n")
                peer.wait_for("ticket and word")
                connection.close(wait=False)
                peer.end_input()
                peer.wait()
                until(lambda made=connection: made.state.name == "CLOSED")
            assert saved.exists()


@pytest.mark.rfc("A-03", "L-02")
def test_a_listener_and_a_program_that_says_nothing() -> None:
    """TCP's connection is one before a word is said."""
    with (
        listening() as listener,
        running("socat", "-t10", "-", f"TCP:{HERE}:{port_of(listener)}") as peer,
    ):
        connection = listener.accept(timeout=20)
        connection.send(b"you first\n")
        assert peer.line() == "you first"
        with towards(listener).initiate(timeout=10):
            listener.accept(timeout=10).abort()
        connection.abort()
