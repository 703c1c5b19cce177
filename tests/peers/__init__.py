"""Programs that run beside the tests, in processes of their own.

A peer in the same process can hide a lost wake-up: its own traffic wakes the loop.  These
cannot.  Python peers are the files of this folder; `script` runs one of them.  All waiting here is
cooperative and has an end.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
import pyuv
from gevent import subprocess
from greentaps.hub import get_runner

HERE = Path(__file__).parent
LIBRARY = HERE.parent.parent / "lib"
PATIENCE = 20.0  # seconds: far more than any step of a peer takes

# Made on first use, and then kept: not to be mistaken for something that a test left open.
# libuv opens one more descriptor for the first stream of a loop.
gevent.get_hub().loop.install_sigchld()
get_runner().discard(pyuv.TCP(get_runner().loop))


class Peer:
    """A running program.  Its standard error goes where ours goes unless *errors* is set."""

    def __init__(self, *command: Any, env: dict[str, str] | None = None, errors: bool = False):
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else None,
            env=None if env is None else {**os.environ, **env},
        )

    def say(self, data: bytes) -> None:
        """Write *data* to its standard input."""
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Close its standard input."""
        self.process.stdin.close()

    def line(self) -> str:
        """The next line of its output, without the newline; ``""`` at its end."""
        with gevent.Timeout(PATIENCE):
            return self.process.stdout.readline().decode(errors="replace").rstrip("\n")

    def read(self, size: int = -1) -> bytes:
        """*size* bytes of its output, or all."""
        with gevent.Timeout(PATIENCE):
            return self.process.stdout.read(size)

    def wait_for(self, text: str) -> str:
        """Read lines up to one that contains *text*, and return that."""
        seen = []
        while True:
            line = self.line()
            if text in line:
                return line
            seen.append(line)
            assert line or self.process.poll() is None, f"{text!r} never came: {seen}"

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status."""
        with gevent.Timeout(PATIENCE):
            return self.process.wait()

    def stop(self) -> None:
        """Kill it if it runs, and release what it holds here."""
        if self.process.poll() is None:
            # It may have ended without gevent having noticed yet.
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            self.wait()
        for stream in (self.process.stdin, self.process.stdout):
            stream.close()


@contextmanager
def running(*command: Any, **options: Any) -> Iterator[Peer]:
    """*command* as a `Peer`, for the length of a with statement.  Skips the test if there is no
    such program."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"the program {command[0]} is not installed")
    peer = Peer(*command, **options)
    try:
        yield peer
    finally:
        peer.stop()


@contextmanager
def script(name: str, *arguments: Any, **options: Any) -> Iterator[Peer]:
    """The Python program *name*.py of this folder as a `Peer`."""
    env = {"PYTHONPATH": str(LIBRARY), **options.pop("env", {})}
    with running(
        sys.executable, "-W", "error", HERE / f"{name}.py", *arguments, env=env, **options
    ) as peer:
        yield peer
