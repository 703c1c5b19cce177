"""``greentaps explain``: the tree, the race and its picture, as one gets them at a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from conftest import Certificates
from greentaps import Preconnection, SecurityParameters
from greentaps.cli import main
from greentaps.taps.choosing.policy import set_system_policy
from peers import LIBRARY
from taps.helpers import HERE, free_port, local, plain_listener


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["explain", *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def run(stdout: Any, **env: str) -> tuple[int, bytes, str]:
    """The same in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "greentaps", "explain", "--offline", HERE, "80"],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(LIBRARY), **env},
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


def test_a_terminal_that_cannot_show_the_tree() -> None:
    status, out, err = run(subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert (status, err) == (0, "")
    assert b"1.1.1 tcp" in out


def test_an_output_that_takes_nothing() -> None:
    with Path("/dev/full").open("wb") as full:
        status, _, err = run(full)
    assert (status, err.count("\n")) == (1, 1)
    assert "No space left" in err
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        assert run(closed)[::2] == (1, "")


def test_the_tree(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = explain(capsys, HERE, "80", "keepAlive=prefer")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "1 127.0.0.1:80  (asked for: prefer keepAlive)",
        "└── 1.1 system",
        "    ├── 1.1.1 tcp  (keepAlive is preferred, and it has it)",
        "    │   └── 1.1.1.1 127.0.0.1:80",
        "    ├── 1.1.2 tls/tcp  (cut: adds security that was not asked for)",
        "    └── 1.1.3 udp  (cut: may deliver a Message twice, and safelyReplayable is not set)",
    ]


def test_security_and_interfaces(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = explain(capsys, HERE, "https", "--secure", "interface=require:Loopback")
    assert status == 0
    assert "1.1 lo" in out
    assert "1.1.1 tls/tcp" in out
    assert "127.0.0.1:443" in out


def test_offline_nothing_is_looked_up(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = explain(capsys, "name.invalid", "80", "--offline")
    assert status == 0
    assert "1.1.1.1 name.invalid:80\n" in out


def test_the_race(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "race.svg"
    with plain_listener() as listener:
        port = str(listener.getsockname()[1])
        status, out, err = explain(capsys, HERE, port, "--race", "--svg", str(picture))
        listener.accept()[0].close()
    assert (status, err) == (0, "")
    assert "won after" in out
    assert "=" in out.splitlines()[-1] or ">" in out.splitlines()[-1]
    ET.parse(picture)


def test_whom_to_trust(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, certificates: Certificates
) -> None:
    security = SecurityParameters().add_identity(certificates.server, role="server")
    with Preconnection(local(), None, None, security).listen() as listener:
        port = str(listener.local_endpoints[0].port)
        trust = str(certificates.ca)
        status, out, err = explain(capsys, HERE, port, "--race", "--trust", trust)
        assert (status, err) == (0, "")
        assert out.startswith(f"1 {HERE}:{port}  (asked for: security)\n")
        status, _, err = explain(capsys, HERE, port, "--race", "--secure")
        assert status == 1
        assert "not acceptable" in err
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nothing of that kind")
    status, _, err = explain(capsys, HERE, "1", "--trust", str(wrong))
    assert status == 2
    assert err.startswith("greentaps explain: ")


def test_a_picture_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = str(tmp_path / "no" / "race.svg")
    with plain_listener() as listener:
        port = str(listener.getsockname()[1])
        status, out, err = explain(capsys, HERE, port, "--race", "--svg", picture)
    assert status == 2
    assert "won after" in out
    assert picture in err


def test_a_name_that_leads_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = explain(capsys, "localhost", "no-such-service")
    assert (status, err) == (1, "")
    assert "no port is known" in out
    status, out, err = explain(capsys, "localhost", "no-such-service", "--offline")
    assert (status, err) == (0, "")  # nobody knows yet


def test_a_race_that_nobody_wins(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = explain(capsys, HERE, str(free_port()), "--race")
    assert status == 1
    assert "failed after" in out
    assert "ECONNREFUSED" in err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((HERE, "80", "nonsense=1"), 2, "nonsense"),
        ((HERE, "80", "reliability=perhaps"), 2, "reliability"),
        ((HERE, "70000"), 2, "65535"),
        ((HERE, "80", "--svg", "x.svg"), 2, "--race"),
        ((HERE, "80", "multistreaming=require"), 1, "multistreaming is required"),
        ((HERE, "80", "interface=require:no-such0"), 1, "no interface"),
    ],
)
def test_mistakes(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, words: str
) -> None:
    found, out, err = explain(capsys, *arguments)
    assert found == status
    assert words in err
    assert out == ""


@pytest.mark.parametrize(
    "wrong", [["x"], ["--secure", "x"], ["--nonsense"], ["--timeout", "0"], ["--timeout", "x"]]
)
def test_what_argparse_says(capsys: pytest.CaptureFixture[str], wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["explain", HERE, "80", *wrong])
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_policy_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_system_policy(None)
    for name, content in (("missing", None), ("wrong", "no_such_setting = 1")):
        if content is not None:
            (tmp_path / name).write_text(content)
        monkeypatch.setenv("GREENTAPS_POLICY", str(tmp_path / name))
        status, out, err = explain(capsys, HERE, "80")
        assert (status, out) == (1, "")
        assert err.startswith("greentaps explain: ")
        assert name in err
