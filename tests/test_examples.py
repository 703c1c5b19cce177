"""Every file in examples/ runs, says what it should, and ends in time."""

from __future__ import annotations

import contextlib
import re
import select
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import greentaps
import pytest
from greentaps import framers, plugins, testing
from greentaps.taps.events import ConnectionHandlers, ListenerHandlers

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
LONGEST = 40.0  # seconds that an example may take on a busy machine; each takes less than two
LINES = 60  # an example has fewer

shown: set[str] = set()


def shows(*names: str) -> Callable[[Any], Any]:
    """Say which examples a test runs."""
    shown.update(names)
    return lambda test: test


def command(name: str, *arguments: object) -> list[str]:
    # In development mode, what was not closed is told of on stderr.
    return [sys.executable, "-X", "dev", str(EXAMPLES / f"{name}.py"), *map(str, arguments)]


def run(name: str, *arguments: object) -> str:
    """Run an example to its end and return what it printed."""
    done = subprocess.run(
        command(name, *arguments), capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@contextmanager
def serving(name: str, *arguments: object) -> Iterator[int]:
    """Run an example that is a server, give its port, and end it with CTRL-C."""
    with subprocess.Popen(
        command(name, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], LONGEST)[0], "it says nothing"
            line = process.stdout.readline()
            found = re.fullmatch(r"listening on port (\d+)\n", line)
            assert found, line
            yield int(found[1])
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=LONGEST)
        finally:
            process.kill()
    assert output == ""
    # gevent may print where the CTRL-C struck; nothing else is in order.
    assert not re.search(r"^\S.*(Error|Warning)", errors, re.MULTILINE), errors
    assert process.returncode == 0


def talk(port: int, data: bytes) -> bytes:
    """Send *data* to a local server, and return all it says until it ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST) as client:
        client.sendall(data)
        with contextlib.suppress(OSError):  # a reset may be here already, which recv() tells
            client.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := client.recv(65536):
            pieces.append(piece)
        return b"".join(pieces)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem and server.pem."""
    folder = tmp_path_factory.mktemp("pems")
    printed = run("make_certificates", folder)
    assert printed.split() == ["trust", f"{folder}/ca.pem", "identity", f"{folder}/server.pem"]
    return folder


def test_each_example_is_tested_and_short() -> None:
    files = {path.stem: path for path in EXAMPLES.glob("*.py")}
    assert set(files) == shown
    long = [name for name, path in files.items() if len(path.read_text().splitlines()) >= LINES]
    assert long == []


@shows("echo_server", "echo_client")
def test_echo() -> None:
    with serving("echo_server", 0) as port:
        assert run("echo_client", port, "good day") == "connected by tcp\nreceived good day\n"
        data = bytes(range(256)) * 4096
        assert talk(port, data) == data


@shows("secure_echo_server", "secure_echo_client", "make_certificates")
def test_secure_echo(pems: Path) -> None:
    with serving("secure_echo_server", "--port", 0, "--identity", pems / "server.pem") as port:
        printed = run("secure_echo_client", "--port", port, "--trust", pems / "ca.pem")
        assert printed == "connected by tls/tcp with TLSv1.3\nreceived hello\n"


@shows("secure_echo_client")
def test_secure_echo_with_a_stranger(pems: Path) -> None:
    with serving("secure_echo_server", "--port", 0, "--identity", pems / "server.pem") as port:
        refused = subprocess.run(
            command("secure_echo_client", "--port", port),
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "greentaps.errors.EstablishmentError" in refused.stderr
    assert "CertificateError" in refused.stderr


@shows("secure_echo_server_events", "secure_echo_client_events")
def test_secure_echo_events(pems: Path) -> None:
    identity = pems / "server.pem"
    with serving("secure_echo_server_events", "--port", 0, "--identity", identity) as port:
        assert run("secure_echo_client_events", "--port", port, "--trust", pems / "ca.pem") == (
            "is this localhost - the verification says: yes\n"
            "connected by tls/tcp with TLSv1.3\n"
            "received hello\n"
        )
        asked, reason = run("secure_echo_client_events", "--port", port).splitlines()[-2:]
        assert "the verification says: " in asked
        assert "yes" not in asked
        assert reason == "EstablishmentFailed"


@shows("messages", "messages_events")
@pytest.mark.parametrize("form", ["", "_events"])
def test_messages(form: str) -> None:
    assert run(f"messages{form}").splitlines() == [
        "Message(b'ONE', end_of_message=True)",
        "Message(b'', end_of_message=True)",
        "Message(b'THREETHREETHREE', end_of_message=True)",
    ]


@shows("explain", "explain_events")
@pytest.mark.parametrize("form", ["", "_events"])
def test_explain(form: str) -> None:
    shown = run(f"explain{form}")
    assert re.search(r"1\.1\.2 tls/tcp  \(cut: adds security that was not asked for\)", shown)
    assert re.search(r"^1\.1\.1\.1 tcp to 127\.0\.0\.1:1: failed$", shown, re.MULTILINE)
    assert re.search(r"^1\.1\.1\.2 tcp to 127\.0\.0\.1:\d+: won$", shown, re.MULTILINE)


@shows("timeouts", "timeouts_events")
@pytest.mark.parametrize("form", ["", "_events"])
def test_timeouts(form: str) -> None:
    assert run(f"timeouts{form}") == "no 14 bytes yet\nhalf a message\n"


@shows("errors")
def test_errors() -> None:
    printed = run("errors")
    patterns = [
        r"refused: EstablishmentFailed",
        r"  tcp to 127\.0\.0\.1:\d+: TransportError: connect: .*\[ECONNREFUSED\].*",
        r"unknown host: ResolutionFailed",
        r"  .*nowhere\.invalid.*: ResolutionError: .*",
        r"silent: Timeout",
        r"  tls/tcp to 127\.0\.0\.1:\d+: TransportError: .*\[ETIMEDOUT\].*",
        r"wrong certificate: EstablishmentFailed",
    ]
    lines = printed.splitlines()
    for line, expected in zip(lines, patterns, strict=False):
        assert re.fullmatch(expected, line), printed
    # One for each address of localhost that answers, and the last says what is wrong.
    assert len(lines) > len(patterns)
    assert "CertificateError: the peer's certificate is not acceptable" in lines[-1]


@shows("errors_events")
def test_errors_events() -> None:
    printed = run("errors_events")
    patterns = [
        r"not sent",
        r"refused: EstablishmentFailed, the connection is Closed",
        r"  tcp to 127\.0\.0\.1:\d+: TransportError: connect: .*\[ECONNREFUSED\].*",
        r"not sent",
        r"unknown host: ResolutionFailed, the connection is Closed",
        r"  .*nowhere\.invalid.*: ResolutionError: .*",
    ]
    for line, expected in zip(printed.splitlines(), patterns, strict=True):
        assert re.fullmatch(expected, line), printed


@shows("protocol_server", "protocol_client")
def test_protocols() -> None:
    with serving("protocol_server", 0) as port:
        assert run("protocol_client", port, "good day") == "received GOOD DAY\n"
        assert talk(port, b"x" * 1_000_000) == b"X" * 1_000_000


@shows("lines")
def test_lines() -> None:
    with serving("lines", 0) as port:
        answer = talk(port, b"localhost\n127.0.0.2\nno such name\n")
        assert answer == b"localhost 127.0.0.1\n127.0.0.2 127.0.0.2\nno such name unknown\n"
        assert talk(port, b"") == b""
        with pytest.raises(ConnectionResetError):
            talk(port, b"x" * 300)


@shows("datagrams")
def test_datagrams() -> None:
    *answers, error = run("datagrams").splitlines()
    assert answers == ["b'one'", "b''", "b'three'"]
    assert "[EMSGSIZE]" in error


@shows("file_descriptors")
def test_file_descriptors() -> None:
    assert run("file_descriptors") == "apple\nfig\npear\n"
    assert run("file_descriptors", "tr", "a-z", "A-Z") == "PEAR\nFIG\nAPPLE\n"


@shows("starttls")
def test_starttls(pems: Path) -> None:
    assert run("starttls", pems / "server.pem", pems / "ca.pem").splitlines() == [
        "hello received in clear",
        "STARTTLS received in clear",
        "a secret received in TLSv1.3",
        "STOPTLS received in TLSv1.3",
        "goodbye received in clear",
    ]


@shows("pass_connection")
def test_pass_connection() -> None:
    printed = re.fullmatch(
        r"accepted by process (\d+)\nserved by process (\d+)\n", run("pass_connection")
    )
    assert printed
    assert printed[1] != printed[2]


@shows("my_framer", "my_framer_events")
@pytest.mark.parametrize("form", ["my_framer", "my_framer_events"])
def test_my_framer(form: str) -> None:
    assert run(form).splitlines() == ["b'hello'", "b''", r"b'\xc0\xdb\xdc'"]


@shows("my_plugin", "my_plugin_events")
@pytest.mark.parametrize("form", ["my_plugin", "my_plugin_events"])
def test_my_plugin(form: str) -> None:
    assert run(form) == "inproc b'hello'\n"


@shows("second_engine")
def test_second_engine(pems: Path) -> None:
    assert run("second_engine", pems / "server.pem", pems / "ca.pem").splitlines() == [
        "depth 1: CN=greentaps throw-away CA: good",
        "depth 0: CN=localhost: good",
        "received hello",
        "<class 'OpenSSL.SSL.Connection'>",
    ]


@shows("echo_server_events", "echo_client_events")
def test_echo_events() -> None:
    with serving("echo_server_events", 0) as port:
        printed = run("echo_client_events", port, "good day")
        assert printed == "connected by tcp\nreceived good day\nclosed\n"
        data = bytes(range(256)) * 4096
        assert talk(port, data) == data


def test_an_echo_client_without_a_server() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "[ECONNREFUSED]" in run("echo_client_events", unused.getsockname()[1])


@shows("http_server", "http_client", "http_server_events", "http_client_events")
@pytest.mark.parametrize("form", ["", "_events"])
def test_http(form: str) -> None:
    with serving(f"http_server{form}", 0) as port:
        printed = run("http_client", port)
        assert re.fullmatch(
            r"200 OK \{.*text/plain.*\}\nGET /: 0 bytes\n"
            r"418 I'm a Teapot \{.*\}\nPUT /teapot: 3 bytes\n",
            printed,
        ), printed
        assert run("http_client_events", port) == ("200 GET /: 0 bytes\n418 PUT /teapot: 3 bytes\n")
        answer = talk(port, b"GET /x HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\nGET /x: 0 bytes\n")


@shows("websocket_echo", "websocket_echo_events")
@pytest.mark.parametrize("form", ["", "_events"])
def test_websocket(form: str) -> None:
    assert run(f"websocket_echo{form}").splitlines() == [
        f"text {'grüß dich'.encode()!r}",
        f"binary {bytes(5)!r}",
    ]


@shows("line_messages", "line_messages_events")
@pytest.mark.parametrize("form", ["", "_events"])
def test_line_messages(form: str) -> None:
    with serving(f"line_messages{form}", 0) as port:
        assert talk(port, b"a b c\r\n\nx\n") == b"3 words\r\n0 words\r\n1 words\r\n"


@shows("udp_echo", "udp_echo_events")
@pytest.mark.parametrize("form", ["", "_events"])
def test_udp_echo(form: str) -> None:
    first, *rest = run(f"udp_echo{form}").splitlines()
    assert first == "over udp"
    assert sorted(rest) == ["MessageTooLarge", "b''", "b'one'", "b'three'"]


@shows("rendezvous", "rendezvous_events")
@pytest.mark.parametrize("other", ["rendezvous", "rendezvous_events"])
def test_rendezvous(other: str) -> None:
    """The test is who pastes the lines."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    peers = [
        subprocess.Popen(command(name, "127.0.0.1"), text=True, **pipes)
        for name in ("rendezvous", other)
    ]
    try:
        lines = []
        for peer in peers:
            assert peer.stdout is not None
            lines.append("".join(iter(peer.stdout.readline, "\n")) + "\n")
        for peer, told in zip(peers, reversed(lines), strict=True):
            assert peer.stdin is not None
            peer.stdin.write(told)
            peer.stdin.flush()
        for peer in peers:
            output, errors = peer.communicate(timeout=LONGEST)
            assert (peer.returncode, errors) == (0, "")
            assert output.splitlines() == ["found the peer over udp", "the peer says b'hello'"]
    finally:
        for peer in peers:
            peer.kill()


@shows("clones")
def test_clones() -> None:
    assert run("clones").splitlines() == [
        "3 in the group",
        "connTimeout 30 connPriority 100",
        "connTimeout 30 connPriority 100",
        "connTimeout 30 connPriority 1",
        "through the clone",
        "Closed Closed Closed",
    ]


@shows("clones_events")
def test_clones_events() -> None:
    expected = ["connTimeout 30"] * 3 + ["through the clone"] + ["closed"] * 3
    assert run("clones_events").splitlines() == expected


@shows("priorities", "priorities_events")
@pytest.mark.parametrize("form", ["", "_events"])
def test_priorities(form: str) -> None:
    assert run(f"priorities{form}").splitlines() == ["stale expired", "urgent", "slow", "last"]


@shows("properties")
def test_properties() -> None:
    *values, moment, kind, refused = run("properties").splitlines()
    assert values == [
        "reliability True",
        "preserveMsgBoundaries False",
        "keepAlive True",
        "keepAliveTimeout 20",
    ]
    assert moment.startswith("MOMENT ")
    assert kind.startswith("TYPE ")
    assert "NoCandidates" in refused


@shows("properties_events")
def test_properties_events() -> None:
    blocking, events = (run(name).splitlines() for name in ("properties", "properties_events"))
    assert events == blocking


@shows("older_pytaps_listener", "older_pytaps_client")
def test_the_flow_of_pytaps(pems: Path) -> None:
    expected = [
        "Connection has been successfully established",
        "Message has been sent",
        "Received data: b'Hello'",
        "Connection has been closed",
    ]
    with serving("older_pytaps_listener", 0) as port:
        assert run("older_pytaps_client", port).splitlines() == expected
    with serving("older_pytaps_listener", 0, pems / "server.pem") as port:
        assert run("older_pytaps_client", port, pems / "ca.pem").splitlines() == expected


@shows("older_neatpy_server", "older_neatpy_client")
def test_the_flow_of_neatpy() -> None:
    with serving("older_neatpy_server", 0) as port:
        assert run("older_neatpy_client", port) == "Got message 17: Hello from server\n"


@shows("older_ouroboros_echo")
def test_the_flow_of_ouroboros() -> None:
    with serving("older_ouroboros_echo", "-l", 0) as port:
        for _ in range(2):
            assert run("older_ouroboros_echo", port) == "Hello, PyOuroboros!\n"


@shows("contracts")
def test_contracts() -> None:
    promises, parser, order = run("contracts").splitlines()
    assert re.fullmatch(r"the transport keeps all of \d+ promises", promises)
    assert parser == "the parser does not care how its input is cut"
    assert order == "connection_made data_received eof_received connection_lost"


def test_both_forms_say_how_they_belong_together() -> None:
    """An event-driven example names the blocking one that it goes with."""
    for path in EXAMPLES.glob("*_events.py"):
        twin = path.name.replace("_events", "")
        assert (EXAMPLES / twin).exists(), path
        assert twin in path.read_text().partition("\n")[0], path


# Examples that there is one form of, and why.
ONE_FORM = {
    "older_neatpy_client": "its own is the event-driven one; echo_client has both",
    "older_neatpy_server": "its own is the event-driven one; echo_server has both",
    "older_ouroboros_echo": "its own is the blocking one; echo_client and echo_server have both",
    "older_pytaps_client": "its own is the event-driven one; secure_echo_client has both",
    "older_pytaps_listener": "its own is the event-driven one; secure_echo_server has both",
}


def test_each_example_of_the_upper_api_is_there_in_both_forms() -> None:
    """The lower one, of transports and protocols, has but one form."""
    for path in EXAMPLES.glob("*.py"):
        if "Preconnection(" in path.read_text() and path.stem not in ONE_FORM:
            base = path.stem.removesuffix("_events")
            assert (EXAMPLES / f"{base}.py").exists(), path
            assert (EXAMPLES / f"{base}_events.py").exists(), path
    for name in ONE_FORM:
        assert "Preconnection(" in (EXAMPLES / f"{name}.py").read_text()
        assert not (EXAMPLES / f"{name}_events.py").exists()


def test_each_form_is_one() -> None:
    """An event-driven example waits for nothing but the end; a blocking one has no handlers of
    events."""
    for path in EXAMPLES.glob("*_events.py"):
        text = path.read_text()
        assert re.search(r"\.on_\w+\(|handler=", text), path
        assert not re.search(r"\.(accept|receive)\((?!.*(wait=False|handler))", text), path
        blocking = (EXAMPLES / path.name.replace("_events", "")).read_text()
        assert not re.search(r"\.on_\w+\(|wait=False", blocking), path


def test_the_reference_has_every_public_name() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.rst"))
    words = set(re.findall(r"\w+", pages))
    for module in (greentaps, framers, plugins, testing):
        missing = set(module.__all__) - words - {"__version__"}
        assert missing == set(), module


def test_the_reference_has_every_event() -> None:
    page = (ROOT / "docs" / "reference" / "events.rst").read_text()
    for handlers in (ConnectionHandlers, ListenerHandlers):
        events = {name for name in vars(handlers) if name.startswith("on_")}
        assert events
        assert {name for name in events if f"``{name}" not in page} == set()


def code_blocks() -> list[Any]:
    """The Python in the documentation that is no part of an example."""
    found = []
    for page in sorted((ROOT / "docs").rglob("*.rst")):
        blocks = re.findall(
            r"^\.\. code-block:: python\n\n((?:(?: {3}.*)?\n)+)", page.read_text(), re.MULTILINE
        )
        for number, block in enumerate(blocks):
            name = f"{page.relative_to(ROOT)}-{number}"
            found.append(pytest.param(textwrap.dedent(block), id=name))
    return found


@pytest.mark.parametrize("code", code_blocks())
def test_the_code_in_the_documentation_is_python(code: str) -> None:
    compile(code, "documentation", "exec")


def test_readme_shows_examples() -> None:
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    examples = [path.read_text() for path in EXAMPLES.glob("*.py")]
    assert len(blocks) == 2
    for block in blocks:
        assert any(block in example for example in examples), block
