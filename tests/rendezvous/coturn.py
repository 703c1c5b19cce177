"""Debian's coturn as the STUN and TURN server of a test."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from netns import Host

USER = ("user", "secret")
REALM = "example.org"
START_SECONDS = 15


@dataclass(frozen=True)
class Server:
    """Where it listens."""

    address: str
    port: int
    log: Path

    def says(self, what: str, *, times: int) -> bool:
        """Whether it has noted *what*, a regular expression, so often; waits for it."""
        end = time.monotonic() + START_SECONDS
        while len(re.findall(what, self.log.read_text())) < times:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True


@contextlib.contextmanager
def turn_server(
    folder: Path,
    address: str = "127.0.0.1",
    port: int = 0,
    *options: str,
    host: Host | None = None,
) -> Iterator[Server]:
    """A server in a process of its own, on *host* if given."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("coturn (turnserver) is not installed")
    if not port:
        with socket.socket() as probe:
            probe.bind((address, 0))
            port = probe.getsockname()[1]
    prefix = [] if host is None else ["ip", "netns", "exec", host.namespace]
    log = folder / f"turnserver-{port}.log"
    command = [
        *prefix, program, "-n", "--no-cli", "--no-tls", "--no-dtls", "--no-multicast-peers",
        "--lt-cred-mech", f"--user={USER[0]}:{USER[1]}", f"--realm={REALM}", "--fingerprint",
        f"--listening-ip={address}", f"--relay-ip={address}", f"--listening-port={port}",
        "--min-port=49160", "--max-port=49259", "--relay-threads=1", "--simple-log",
        f"--log-file={log}", f"--pidfile={folder / 'turnserver.pid'}",
        f"--userdb={folder / 'turnserver.db'}", *options,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(log, process)
            yield Server(address, port, log)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    """Until it says that it listens."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"turnserver has ended: {log.read_text() if log.exists() else ''}")
        if log.exists() and "Total General servers" in log.read_text():
            return
        time.sleep(0.02)
    pytest.fail(f"turnserver does not say that it listens: {log.read_text()}")
