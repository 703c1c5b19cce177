"""What every test gets: certificates, and a check that it leaves nothing behind."""

from __future__ import annotations

import gc
import os
import ssl
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gevent
import pytest
import pyuv
from greentaps.certificates import CertificateAuthority
from greentaps.hub import Runner, get_runner, now
from greentaps.taps.paths.history import default_history
from greentaps.taps.paths.survey import forget_survey

# How long a test's handles and greenlets may take to be gone after its end, in seconds.  A failed
# TLS session lingers for one second so that its alert arrives.
PATIENCE = 3.0


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files.  `server` is for localhost, 127.0.0.1 and ::1."""

    ca: Path
    server: Path
    client: Path
    expired: Path
    elsewhere: Path  # for other.example only
    stranger: Path  # for localhost, from an authority that nobody trusts

    def server_context(self, name: str = "server") -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(getattr(self, name))
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("certificates")
    authority = CertificateAuthority()
    here = ("localhost", "127.0.0.1", "::1")
    return Certificates(
        ca=authority.write(directory),
        server=authority.issue(*here).write(directory, "server"),
        client=authority.issue("client.example").write(directory, "client"),
        expired=authority.issue(*here, expired=True).write(directory, "expired"),
        elsewhere=authority.issue("other.example").write(directory, "elsewhere"),
        stranger=CertificateAuthority().issue(*here).write(directory, "stranger"),
    )


def descriptors() -> dict[int, str]:
    """The open file descriptors of this process, and what each is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found


_spawned: weakref.WeakSet[gevent.Greenlet] = weakref.WeakSet()
gevent.Greenlet.add_spawn_callback(_spawned.add)


def live_greenlets() -> list[gevent.Greenlet]:
    """The greenlets that were spawned in this test and have not ended."""
    return [found for found in _spawned if not found.dead]


_warm: weakref.WeakSet[Runner] = weakref.WeakSet()


def _warm_up(runner: Runner) -> None:
    """Have made what is made on first use and then kept: the descriptors of gevent's thread pool
    and child watcher, and the spare one that libuv opens with a loop's first stream."""
    if runner not in _warm:
        _warm.add(runner)
        runner.hub.threadpool  # noqa: B018
        runner.hub.loop.install_sigchld()
        runner.discard(pyuv.TCP(runner.loop))


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a transport, a descriptor or a greenlet open."""
    if request.node.get_closest_marker("leaves_things"):
        yield
        return
    runner = get_runner()
    _warm_up(runner)
    forget_survey()  # with the descriptor on which it hears of changes
    default_history().flush()
    _spawned.clear()
    owned = runner.owners
    before = descriptors()
    yield
    forget_survey()
    deadline = now() + PATIENCE
    while True:
        owners = [] if runner.closed else list(runner.owners - owned)
        left = live_greenlets()
        extra = {
            number: what
            for number, what in descriptors().items()
            if before.get(number) != what and "/proc/" not in what
        }
        if not owners and not left and not extra:
            return
        if now() > deadline:
            pytest.fail(f"left open: {owners} {left} {extra}")
        gevent.sleep(0.01)
        gc.collect()


@pytest.fixture(autouse=True)
def printed_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Fail a test in which a callback has raised something that was only printed; a test that
    expects it takes it out of this list."""
    printed: list[BaseException] = []
    report = Runner.report

    def watched(runner: Runner, context: object, error: BaseException) -> None:
        if "handle_error" not in runner.hub.__dict__:  # else the test has its own eye on it
            printed.append(error)
        report(runner, context, error)

    monkeypatch.setattr(Runner, "report", watched)
    yield printed
    if printed:
        pytest.fail(f"printed: {printed}")
