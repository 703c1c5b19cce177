"""The demo: a file there and back over TLS, between two processes, and a refusal.

What it shows is checked and not merely printed: the exit status is 0 only if the file came back
unchanged and the wrong certificate was refused for the right reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from .certificates import CertificateAuthority
from .errors import CertificateError, EstablishmentError, GreentapsError
from .framers.length import LengthPrefixFramer
from .hub import spawn, time_limit
from .taps import (
    Connection,
    LocalEndpoint,
    MessageContext,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
)

__all__ = ["both", "connect", "listen"]

MESSAGE_SIZE = 256 * 1024  # bytes
TIMEOUT = 10.0  # seconds, for each thing that should take milliseconds
LONGEST = 600.0  # seconds, for the whole transfer

console = Console(highlight=False)


def listen(port: str, identity: Path) -> int:
    """Echo Messages on *port*, one greenlet for each Connection, until interrupted."""
    preconnection = Preconnection(
        local_endpoint=LocalEndpoint().with_ip_address("127.0.0.1").with_port(port),
        security_parameters=SecurityParameters().add_identity(identity, role="server"),
    ).add_framer(LengthPrefixFramer())
    with preconnection.listen() as listener:
        sys.stdout.write(f"listening on 127.0.0.1:{listener.local_endpoints[0].port}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            for connection in listener:
                spawn(_echo, connection)
    return 0


def _echo(connection: Connection) -> None:
    with contextlib.suppress(GreentapsError), connection:
        for message in connection:
            connection.send(message.data)


def both(file: Path | None, megabytes: int) -> int:
    """The whole demo, with a listener in another process."""
    with tempfile.TemporaryDirectory(prefix="greentaps-demo-") as folder:
        authority = CertificateAuthority("greentaps demo CA")
        trust = authority.write(folder)
        identity = authority.issue("localhost").write(folder, "server")
        stranger = CertificateAuthority("somebody else").issue("localhost")
        wrong = stranger.write(folder, "stranger")
        console.print("[bold]A file there and back[/], between two processes")
        with _listener(identity) as port:
            status = connect(f"localhost:{port}", trust, file, megabytes)
        console.print(
            "\n[bold]The same client, and a listener with a certificate it cannot trust[/]"
        )
        with _listener(wrong) as port:
            status |= _refused(port, trust)
    verdict = "[red]something is not as it should be[/]" if status else "[green]all is well[/]"
    console.print(f"\n{verdict}")
    return status


@contextlib.contextmanager
def _listener(identity: Path) -> Iterator[int]:
    """Another process that listens; gives its port."""
    command = [sys.executable, "-m", "greentaps", "demo", "--listen", "0"]
    command += ["--identity", str(identity)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("listening on"):
                raise RuntimeError(f"the listener did not start: {line!r}")
            yield int(line.rpartition(":")[2])
        finally:
            process.terminate()


def _preconnection(host: str, port: str, trust: Path) -> Preconnection:
    return Preconnection(
        remote_endpoint=RemoteEndpoint().with_hostname(host).with_port(port),
        security_parameters=SecurityParameters().add_trust_ca(trust),
    ).add_framer(LengthPrefixFramer())


def connect(where: str, trust: Path, file: Path | None, megabytes: int) -> int:
    """Send a file to an echoing listener at *where* ("host:port") and check what comes back."""
    host, _, port = where.rpartition(":")
    preconnection = _preconnection(host, port, trust)
    try:
        with contextlib.ExitStack() as stack:
            if file is None:
                file = stack.enter_context(_made_file(megabytes))
            connection = stack.enter_context(preconnection.initiate(timeout=TIMEOUT))
            _describe(connection)
            with time_limit(LONGEST):
                return _there_and_back(connection, file)
    except (GreentapsError, OSError) as error:
        console.print(f"[red]{type(error).__name__}:[/] {escape(str(error))}")
        return 1


@contextlib.contextmanager
def _made_file(megabytes: int) -> Iterator[Path]:
    """A file of random bytes: nothing on the way can compress or guess it."""
    with tempfile.NamedTemporaryFile(prefix="greentaps-demo-") as made:
        for _ in range(megabytes):
            made.write(os.urandom(1_000_000))
        made.flush()
        yield Path(made.name)


def _describe(connection: Connection) -> None:
    info = connection.transport.get_extra_info
    local, remote = connection.local_endpoint, connection.remote_endpoint
    assert local is not None
    assert remote is not None
    console.print(f"  stack      {connection.stack}")
    console.print(f"  from       {local.ip_address} port {local.port}")
    console.print(f"  to         {remote.hostname} = {remote.ip_address} port {remote.port}")
    console.print(f"  security   {info('tls_version')}, {info('tls_cipher')}")
    for name, seconds in connection.phases:
        console.print(f"  {name:<10} {seconds * 1000:.2f} ms")


def _there_and_back(connection: Connection, file: Path) -> int:
    size = file.stat().st_size
    sent, received = hashlib.sha256(), hashlib.sha256()
    begun = time.perf_counter()
    with _progress() as progress:
        out = progress.add_task("there", total=size)
        back = progress.add_task("back", total=size)

        def send_all() -> None:
            with file.open("rb") as source:
                left = size
                while left:
                    data = source.read(min(MESSAGE_SIZE, left))
                    if not data:
                        raise OSError(f"{file} has become shorter meanwhile")
                    sent.update(data)
                    left -= len(data)
                    final = MessageContext().add("final", not left)
                    connection.send(data, final, timeout=TIMEOUT)
                    progress.advance(out, len(data))

        failures: list[Exception] = []

        def sending() -> None:
            try:
                send_all()
            except Exception as error:
                failures.append(error)
                connection.abort()  # so that nobody waits for the rest

        sender = spawn(sending)
        try:
            for message in connection:
                received.update(message.data)
                progress.advance(back, len(message.data))
        except GreentapsError:
            if failures:
                raise failures[0] from None
            raise
        sender.join()
    seconds = time.perf_counter() - begun
    same = sent.digest() == received.digest()
    console.print(f"  transfer   {size / 1e6:.1f} MB each way in {seconds:.2f} s")
    console.print(f"  throughput {size / 1e6 / seconds:.0f} MB/s each way")
    console.print(f"  SHA-256    {sent.hexdigest()[:16]}... {'came back' if same else 'CHANGED'}")
    return 0 if same and size else 1


def _progress() -> Progress:
    return Progress(
        TextColumn("  {task.description:<10}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _refused(port: int, trust: Path) -> int:
    try:
        connection = _preconnection("localhost", str(port), trust).initiate(timeout=TIMEOUT)
    except EstablishmentError as error:
        console.print("  refused, as it should be:")
        for line in str(error).splitlines():
            console.print(f"    {line}", markup=False)
        refused = any(isinstance(cause, CertificateError) for _, cause in error.attempts)
        return 0 if refused else 1
    connection.abort()
    console.print("  [red]connected, which must not happen[/]")
    return 1
