"""`Listening` when the system has nothing left to accept with."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from greentaps.errors import TransportError
from greentaps.hub import get_runner
from greentaps.testing import PATIENCE, reported_errors
from greentaps.transports.handles import listen_pipe, listen_tcp
from greentaps.transports.listening import Listening
from peers import LIBRARY


def listening_on(kind: str, path: Path, accepted: list[Any]) -> Listening:
    if kind == "tcp":
        handle = listen_tcp(("127.0.0.1", 0))
        return Listening(handle, handle.getsockname(), accepted.append)
    handle, remove = listen_pipe(str(path))
    return Listening(handle, str(path), accepted.append, closed=remove)


def until(condition: Callable[[], Any]) -> None:
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.001)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def without_descriptors(kind: str, path: str) -> None:
    """In a process of its own, and on a new loop, for which libuv has no descriptor in reserve."""
    signal.alarm(int(PATIENCE))  # for a loop that never comes back
    gevent.get_hub().destroy(destroy_loop=True)
    get_runner()
    accepted: list[Any] = []
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    with reported_errors() as reports, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(family)) for _ in range(3)]
        gevent.sleep(0.001)
        before = descriptors()
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 20, before + 20))
        held: list[int] = []
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        os.close(held.pop())
        listening = listening_on(kind, Path(path), accepted)
        try:
            listening.listen(5)
        except TransportError as error:
            print("refused", error.errno, flush=True)
        os.close(held.pop())
        listening.listen(5)
        for client in clients:
            client.setblocking(False)
            client.connect_ex(listening.address)
        gevent.sleep(0.25)
        print("held", len(accepted), len(reports), flush=True)
        while held:
            os.close(held.pop())
        until(lambda: len(accepted) == len(clients))
        for handle in accepted:
            get_runner().discard(handle)
        listening.close()
        gevent.sleep(0.001)
        # libuv has one in reserve from now on.
        print("accepted", len(accepted), len(reports), descriptors() - before - 1, flush=True)


@pytest.mark.parametrize("kind", ["tcp", "pipe"])
def test_without_descriptors_they_wait_in_the_backlog(kind: str, tmp_path: Path) -> None:
    here = Path(__file__)
    code = f"import transports.test_listening as here; here.without_descriptors({kind!r}, 'path')"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": f"{LIBRARY}{os.pathsep}{here.parent.parent}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.splitlines() == ["refused 24", "held 0 1", "accepted 3 1 0"], result


@pytest.mark.parametrize("kind", ["tcp", "pipe"])
@pytest.mark.parametrize("paused", [False, True])
def test_an_error_is_followed_by_a_rest(kind: str, paused: bool, tmp_path: Path) -> None:
    accepted: list[Any] = []
    listening = listening_on(kind, tmp_path / "path", accepted)
    listening.listen(5)
    with reported_errors() as reports:
        listening._on_connection(listening._handle, -12)
        family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
        with socket.socket(family) as client:
            client.connect(listening.address)
            if paused:
                listening.pause()
                gevent.sleep(0.15)
                assert not accepted
                listening.resume()
            until(lambda: accepted)
        get_runner().discard(accepted[0])
        assert len(reports) == 1
    listening.close()
    assert not (tmp_path / "path").exists()


def test_the_end_during_the_rest(tmp_path: Path) -> None:
    accepted: list[Any] = []
    listening = listening_on("tcp", tmp_path, accepted)
    listening.listen(5)
    with reported_errors():
        listening._on_connection(listening._handle, -12)
        with socket.socket() as client:
            client.connect(listening.address)
            listening.close()
            listening.close()
            gevent.sleep(0.15)
            assert not accepted
            with pytest.raises(ConnectionResetError):
                client.recv(1)
