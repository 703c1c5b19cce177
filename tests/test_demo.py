"""The command line, in processes of its own: what it prints, and its exit status."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Certificates
from greentaps import __version__
from peers import LIBRARY, Peer, running

LONGEST = 60  # seconds that a command may take on a busy machine; each takes about one
ENV = {**os.environ, "PYTHONPATH": str(LIBRARY), "COLUMNS": "200", "NO_COLOR": "1"}


def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "greentaps", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LONGEST,
        env={**ENV, **(env or {})},
        check=False,
    )


@contextmanager
def listening(identity: Path) -> Iterator[tuple[int, Peer]]:
    """``demo --listen`` in another process: its port, and the process."""
    with running(
        sys.executable, "-W", "error", "-m", "greentaps", "demo", "--listen", "0",
        "--identity", identity, env={"PYTHONPATH": str(LIBRARY)},
    ) as peer:  # fmt: skip
        line = peer.line()
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)", line)
        assert found, line
        yield int(found[1]), peer


# -- info, and the rest --


def test_info_says_what_there_is() -> None:
    done = run("info")
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["greentaps"] == __version__
    assert rows["python"].endswith(platform.python_version())
    assert "libuv" in rows["pyuv"]
    assert "OpenSSL" in rows["ssl"]
    assert rows["protocols"].startswith("tcp, tls")
    assert "tls/tcp" in rows["stacks"].split(", ")
    assert "gevent" in rows


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"greentaps {__version__}\n")


def test_help() -> None:
    done = run("demo", "--help")
    assert done.returncode == 0
    for option in ("--file", "--size", "--listen", "--connect", "--identity", "--trust"):
        assert option in done.stdout


def test_without_a_command() -> None:
    done = run()
    assert done.returncode == 2
    assert "usage" in done.stderr


# -- The whole demo --


def test_the_demo_shows_what_it_should() -> None:
    done = run("demo", "--size", "1")
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "tls/tcp",
        "localhost = 127.0.0.1",
        "TLSv1.3",
        "resolution",
        "1.0 MB each way",
        "came back",
        "refused, as it should be",
        "unable to get local issuer certificate",
        "all is well",
    ):
        assert text in done.stdout, text


@pytest.mark.parametrize("size", [1, 300_000])
def test_the_demo_sends_a_file_of_ones_own(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file with a name"
    path.write_bytes(os.urandom(size))
    done = run("demo", "--file", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "came back" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "0"],
        ["--size", "-1"],
        ["--size", "x"],
        ["--size", "1.5"],
        ["--size", "9999999999"],
        ["--file", "/no/such/file"],
        ["--file", "/"],
        ["--file", "/dev/null"],
        ["--file", "EMPTY"],
        ["--listen", "0"],
        ["--listen", "x", "--identity", "PEM"],
        ["--listen", "70000", "--identity", "PEM"],
        ["--listen", "-1", "--identity", "PEM"],
        ["--listen", "0", "--identity", "/no/such/file"],
        ["--listen", "0", "--identity", "GARBAGE"],
        ["--connect", "localhost:1"],
        ["--connect", "localhost", "--trust", "PEM"],
        ["--connect", ":1", "--trust", "PEM"],
        ["--connect", "localhost:", "--trust", "PEM"],
        ["--connect", "localhost:x", "--trust", "PEM"],
        ["--connect", "two words:1", "--trust", "PEM"],
        ["--connect", "localhost:1", "--trust", "/no/such/file"],
        ["--connect", "localhost:1", "--trust", "GARBAGE"],
        ["--connect", "localhost:1", "--trust", "PEM", "--listen", "0"],
        ["--wrong"],
    ],
    ids=" ".join,
)
def test_wrong_arguments(certificates: Certificates, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "garbage").write_bytes(b"\xff garbage \0")
    places = {
        "EMPTY": tmp_path / "empty",
        "GARBAGE": tmp_path / "garbage",
        "PEM": certificates.server,
    }
    done = run("demo", *(places.get(argument, argument) for argument in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.search("^greentaps( demo)?: ", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


def test_without_rich(tmp_path: Path) -> None:
    """Only the demo needs it, and says so."""
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError(name='rich')\n")
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(LIBRARY)])}
    done = run("demo", env=path)
    assert done.returncode == 2
    assert "greentaps[demo]" in done.stderr
    assert run("info", env=path).returncode == 0


# -- By hand --


def test_both_sides_by_hand(certificates: Certificates) -> None:
    with listening(certificates.server) as (port, peer):
        for _ in range(2):
            done = run(
                "demo", "--connect", f"localhost:{port}", "--trust", certificates.ca, "--size", 1
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert "came back" in done.stdout
        # Somebody who cannot be served does not keep others out.
        refused = run(
            "demo", "--connect", f"localhost:{port}", "--trust", certificates.stranger, "--size", 1
        )
        assert refused.returncode == 1
        assert "EstablishmentError" in refused.stdout
        assert "[EstablishmentFailed]" in refused.stdout
        assert "Traceback" not in refused.stderr
        peer.signal(signal.SIGINT)
        assert peer.wait() == 0


def test_nobody_listens(certificates: Certificates) -> None:
    done = run("demo", "--connect", "127.0.0.1:1", "--trust", certificates.ca, "--size", 1)
    assert done.returncode == 1
    assert "ECONNREFUSED" in done.stdout
    assert "127.0.0.1:1" in done.stdout


def test_a_port_that_is_taken(certificates: Certificates) -> None:
    with listening(certificates.server) as (port, _):
        done = run("demo", "--listen", port, "--identity", certificates.server)
    assert done.returncode == 1
    assert "EADDRINUSE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_listener_that_goes_in_the_middle(certificates: Certificates, tmp_path: Path) -> None:
    """The client says so, and does not wait for the rest."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(8_000_000_000)  # of holes
    with listening(certificates.server) as (port, peer), running(
        sys.executable, "-m", "greentaps", "demo", "--connect", f"localhost:{port}",
        "--trust", certificates.ca, "--file", path, env=ENV, errors=True,
    ) as client:  # fmt: skip
        client.wait_for("tls")
        peer.stop()
        assert client.wait() == 1
        output = client.read().decode()
    assert "Error:" in output
    assert "Traceback" not in output
