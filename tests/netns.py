"""Networks for the tests: hosts that are network namespaces, cables, routers with NAT, hosts that
do not answer or refuse, and lines with delay and loss.

    with networks() as world:
        here, there = world.host("here"), world.host("there")
        world.cable(here, there, "192.0.2.1/24", "192.0.2.2/24")
        there.serve(...)
        assert here.call(what_a_client_finds, "192.0.2.2") == ...

The test itself stays outside.  What is to run on a host is a function of the test's module: `call`
runs it there, in a process of its own, and returns its result, which must be JSON.

All is removed at the end, also after a failure; and what a test run that was killed has left is
removed by the next one.  A test that cannot have this (root, iproute2, nftables) is skipped.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import importlib.util
import inspect
import itertools
import json
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import gevent
import pytest

__all__ = ["Blackhole", "Host", "Networks", "Task", "networks"]

_MARK = "gtaps"
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)
# What iproute2 puts in the place of files of /etc for programs in a namespace.
_SETTINGS = Path("/etc/netns")
_TIMEOUT = 60.0  # seconds for anything that runs on a host


@contextlib.contextmanager
def networks() -> Iterator[Networks]:
    """A world without hosts.  Skips the test where none can be made."""
    if os.geteuid():
        pytest.skip("network namespaces need root")
    for program in ("ip", "nft", "ss"):
        if shutil.which(program) is None:
            pytest.skip(f"the program {program} is not installed")
    _remove_strays()
    made = Networks()
    try:
        yield made
    finally:
        made.close()


class Networks:
    """Hosts, and what connects them."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        self._lines: list[subprocess.Popen[bytes]] = []

    def host(self, name: str) -> Host:
        """A new host, with nothing but its loopback."""
        namespace = f"{_MARK}-{os.getpid()}-{next(_numbers)}-{name}"
        try:
            _run("ip", "netns", "add", namespace)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr}")
        made = Host(name, namespace)
        self.hosts.append(made)
        made.ip("link set lo up")
        return made

    def cable(
        self, one: Host, other: Host, *addresses: str, names: tuple[str, str] | None = None
    ) -> tuple[str, str]:
        """A cable between two hosts; returns the names of its ends.

        *addresses* are with their prefixes, in turn one host's and the other's.  Unless *names*
        says otherwise, an end is called by the host at the other one.
        """
        ends = names or (f"to-{other.name}"[:15], f"to-{one.name}"[:15])
        _run(
            *f"ip link add name {ends[0]} netns {one.namespace} type veth".split(),
            *f"peer name {ends[1]} netns {other.namespace}".split(),
        )
        self._addresses(one, other, ends, addresses)
        return ends

    def line(
        self,
        one: Host,
        other: Host,
        *addresses: str,
        delay: float = 0.0,
        loss: float = 0.0,
        seed: int = 1,
        names: tuple[str, str] | None = None,
    ) -> tuple[str, str]:
        """Like `cable`, but each packet takes *delay* seconds, and *loss* of them are lost (0 to
        1; which ones, *seed* decides).  The ends are tun devices."""
        ends = names or (f"to-{other.name}"[:15], f"to-{one.name}"[:15])
        settings = [one.namespace, ends[0], other.namespace, ends[1], delay, loss, seed]
        process = subprocess.Popen(
            [sys.executable, __file__, "--line", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._lines.append(process)
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            pytest.fail("the line with delay and loss did not come up")
        self._addresses(one, other, ends, addresses)
        return ends

    def _addresses(
        self, one: Host, other: Host, ends: tuple[str, str], addresses: tuple[str, ...]
    ) -> None:
        for (host, end), address in zip(
            itertools.cycle(((one, ends[0]), (other, ends[1]))), addresses, strict=False
        ):
            host.address(end, address)
        one.ip(f"link set {ends[0]} up")
        other.ip(f"link set {ends[1]} up")
        for host, end in ((one, ends[0]), (other, ends[1])):
            _until(lambda host=host, end=end: host.carries(end))  # type: ignore[misc]

    def close(self) -> None:
        """Remove it all."""
        for host in self.hosts:
            host.stop()
        for process in self._lines:
            _end(process)
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host.namespace], check=False, timeout=20)


class Host:
    """A network namespace."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.namespace = namespace
        self._processes: list[subprocess.Popen[Any]] = []
        self._files: list[IO[bytes]] = []

    # -- Its network --

    def run(self, *command: str, stdin: str = "") -> str:
        """What a program writes that runs here."""
        return _run("ip", "netns", "exec", self.namespace, *command, stdin=stdin)

    def ip(self, *commands: str) -> None:
        """Commands of iproute2: ``host.ip("route add default via 192.0.2.1")``."""
        for command in commands:
            _run("ip", "-n", self.namespace, *command.split())

    def nft(self, rules: str) -> None:
        """Rules of nftables, as in a file."""
        self.run("nft", "-f", "-", stdin=rules)

    def address(self, interface: str, address: str) -> None:
        """Give *interface* an address with its prefix, which can be used at once."""
        if ":" in address:
            self.ip(f"-6 addr add {address} dev {interface} nodad")
        else:
            self.ip(f"addr add {address} dev {interface}")

    def default(self, *gateways: str, interface: str = "") -> None:
        """Routes to everywhere: through gateways, or through an interface alone."""
        for gateway in gateways:
            on = f" dev {interface}" if interface else ""
            self.ip(f"{'-6 ' if ':' in gateway else ''}route add default via {gateway}{on}")
        if not gateways:
            self.ip(f"route add default dev {interface}")

    def forward(self) -> None:
        """Be a router."""
        with self.entered():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")

    def translate(self, outside: str, *, per_peer: bool = False) -> None:
        """Be a NAT: what leaves through *outside* has that interface's address.  With *per_peer*
        each peer sees another port (an "address-dependent" mapping), else the port is kept."""
        self.forward()
        how = "masquerade fully-random" if per_peer else "masquerade"
        self.nft(
            f"table ip nat {{ chain out {{ type nat hook postrouting priority srcnat; "
            f'oifname "{outside}" {how}; }}\n}}'
        )
        # What comes from outside gets in only as an answer.
        self.nft(
            f"table ip guard {{ chain through {{ type filter hook forward priority filter; "
            f'iifname "{outside}" ct state established,related accept; '
            f'iifname "{outside}" drop; }}\n}}'
        )

    def names(self, **addresses: list[str]) -> None:
        """What names mean to programs that run here: ``host.names(server=["192.0.2.1"])``."""
        lines = [f"{one} {name}" for name, those in addresses.items() for one in those]
        folder = _SETTINGS / self.namespace
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def blackhole(self, *addresses: str) -> Blackhole:
        """Answer nothing that comes for these addresses of ours, and count who knocks."""
        made = Blackhole(self, f"hole{next(_numbers)}")
        made.open(addresses, "drop")
        return made

    def counter(self, *addresses: str) -> Blackhole:
        """Count who knocks at these addresses, and let them in."""
        made = Blackhole(self, f"count{next(_numbers)}")
        made.open(addresses, "accept")
        return made

    def carries(self, interface: str) -> bool:
        """Whether *interface* is up, and has a carrier."""
        said = json.loads(_run("ip", "-j", "-n", self.namespace, "link", "show", interface))
        return "LOWER_UP" in said[0]["flags"]

    def tcp_states(self) -> list[tuple[str, str, str]]:
        """The TCP sockets here that have a peer, or are about to: (state, own end, peer's)."""
        rows = [line.split() for line in self.run("ss", "-Htan").splitlines()]
        return [(row[0], row[3], row[4]) for row in rows if row[0] != "LISTEN"]

    # -- What runs on it --

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is on the host meanwhile: sockets that it makes belong there.  It must not
        switch greenlets."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self.namespace)
            yield
        finally:
            _set_namespace(before)
            os.close(before)

    def call(self, function: Callable[..., Any], *args: Any, timeout: float = _TIMEOUT) -> Any:
        """Run a function of a test module here, in a process of its own; returns its result.
        Arguments and result are JSON.  Fails if it raises, or takes too long."""
        return self.start(function, *args).result(timeout)

    def start(self, function: Callable[..., Any], *args: Any) -> Task:
        """`call` without waiting for the end."""
        what = [inspect.getfile(function), function.__qualname__, args]
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        self._files.append(errors)
        process = subprocess.Popen(
            [
                *("ip", "netns", "exec", self.namespace, sys.executable, __file__),
                *("--call", json.dumps(what)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
        )
        self._processes.append(process)
        return Task(process, function.__qualname__, errors)

    def spawn(self, *command: str) -> subprocess.Popen[str]:
        """Start a program here; it is ended at the end of the test."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def stop(self) -> None:
        """End all that runs here."""
        for process in self._processes:
            _end(process)
        for file in self._files:
            file.close()
        shutil.rmtree(_SETTINGS / self.namespace, ignore_errors=True)
        with contextlib.suppress(OSError):
            _SETTINGS.rmdir()  # unless there is more in it


class Task:
    """A function that runs on a host."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, errors: IO[bytes]) -> None:
        self._process = process
        self._name = name
        self._errors = errors
        self._read = b""

    def tell(self, word: str) -> None:
        """Hand the function a line, which it gets by `heard`."""
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")

    def told(self, timeout: float = _TIMEOUT) -> Any:
        """What the function has said with `say`; waits for it."""
        line = self._line(timeout)
        if "said" not in line:
            self._fail("has ended without a word")
        return line["said"]

    def result(self, timeout: float = _TIMEOUT) -> Any:
        """What the function has returned; waits for it, and for the end of the process."""
        while "result" not in (line := self._line(timeout)):
            pass
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._fail("has returned, and its process does not end")
        if self._process.returncode:
            self._fail("has failed at its end")
        return line["result"]

    def _line(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        end = time.monotonic() + timeout
        while b"\n" not in self._read:
            left = max(end - time.monotonic(), 0.0)
            if not select.select([self._process.stdout], [], [], left)[0]:
                self._fail(f"says nothing for {timeout} s")
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                self._process.wait(20)
                self._fail("has failed")
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _fail(self, how: str) -> NoReturn:
        self._process.kill()
        self._process.wait(20)
        self._errors.seek(0)
        errors = self._errors.read().decode(errors="replace")
        pytest.fail(f"{self._name} {how}\n{errors}")


@dataclass
class Blackhole:
    """Addresses where what arrives is counted, and dropped or not."""

    host: Host
    table: str

    def open(self, addresses: tuple[str, ...], verdict: str) -> None:
        """Begin."""
        rules = []
        for number, address in enumerate(addresses):
            to = f"{'ip6' if ':' in address else 'ip'} daddr {address}"
            rules += [
                f'{to} tcp flags & (syn | ack) == syn counter comment "syn {number}"',
                f'{to} meta l4proto udp counter comment "udp {number}"',
                f"{to} {verdict}",
            ]
        self.host.nft(
            f"table inet {self.table} {{ chain in {{ type filter hook input priority filter; "
            f"{'; '.join(rules)}; }}\n}}"
        )

    def close(self) -> None:
        """The addresses answer (again)."""
        self.host.run("nft", "delete", "table", "inet", self.table)

    @property
    def syns(self) -> int:
        """How many packets came that begin a TCP connection, with those sent again."""
        return self._count("syn")

    @property
    def datagrams(self) -> int:
        """How many packets of UDP came."""
        return self._count("udp")

    def _count(self, what: str) -> int:
        said = json.loads(self.host.run("nft", "-j", "list", "table", "inet", self.table))
        return sum(
            part["counter"]["packets"]
            for each in said["nftables"]
            if each.get("rule", {}).get("comment", "").startswith(what)
            for part in each["rule"]["expr"]
            if "counter" in part
        )


# -- For functions that run on a host --


def say(what: Any) -> None:
    """Tell the test something, which gets it by `Task.told`."""
    _answer({"said": what})


def heard() -> str:
    """The next line that the test tells by `Task.tell`.  Other greenlets go on meanwhile."""
    line: str = gevent.get_hub().threadpool.apply(sys.stdin.readline)
    return line.rstrip("\n")


# -- Below --


def _run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        error.add_note(done.stderr)
        raise error
    return done.stdout


def _end(process: subprocess.Popen[Any]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()
    if process.poll() is None:
        process.kill()
    process.wait(20)


def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def _remove_strays() -> None:
    """Remove the namespaces of processes that live no longer."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/run/netns"):
            mark, _, rest = name.partition("-")
            pid = rest.partition("-")[0]
            if mark == _MARK and not os.path.exists(f"/proc/{pid}"):
                subprocess.run(["ip", "netns", "del", name], check=False, timeout=20)
                shutil.rmtree(_SETTINGS / name, ignore_errors=True)


def _enter(namespace: str) -> None:
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set_namespace(descriptor)
    finally:
        os.close(descriptor)


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _tun(namespace: str, name: str) -> int:
    """A new tun device, and the descriptor of what goes through it."""
    _enter(namespace)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    tun, no_header, set_flags = 0x0001, 0x1000, 0x400454CA
    fcntl.ioctl(descriptor, set_flags, struct.pack("16sH22x", name.encode(), tun | no_header))
    return descriptor


def _line(
    one: str, first: str, other: str, second: str, delay: float, loss: float, seed: int
) -> None:
    """Carry packets between two tun devices until our standard input ends."""
    ends = [_tun(one, first), _tun(other, second)]
    towards = {ends[0]: ends[1], ends[1]: ends[0]}
    dice = random.Random(seed)
    under_way: list[tuple[float, int, int, bytes]] = []
    order = itertools.count()
    print("ready", flush=True)
    while True:
        wait = max(under_way[0][0] - time.monotonic(), 0.0) if under_way else None
        ready, _, _ = select.select([*ends, 0], [], [], wait)
        if 0 in ready and not os.read(0, 1):
            return
        for end in ends:
            if end in ready:
                packet = os.read(end, 65536)
                if dice.random() >= loss and len(under_way) < 1000:
                    due = time.monotonic() + delay
                    heapq.heappush(under_way, (due, next(order), towards[end], packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(under_way)
            with contextlib.suppress(OSError):  # the other end is not up
                os.write(end, packet)


def _answer(what: dict[str, Any]) -> None:
    os.write(_answers, json.dumps(what).encode() + b"\n")


def _called(file: str, name: str, args: list[Any]) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    spec = importlib.util.spec_from_file_location("on_a_host", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["on_a_host"] = module
    spec.loader.exec_module(module)
    function = module
    for part in name.split("."):
        function = getattr(function, part)
    _answer({"result": function(*args)})  # type: ignore[operator]


_answers = 1

if __name__ == "__main__":
    if sys.argv[1] == "--line":
        _line(*json.loads(sys.argv[2]))
    else:
        # What the function prints is for people.
        sys.modules["netns"] = sys.modules["__main__"]
        _answers = os.dup(1)
        os.dup2(2, 1)
        try:
            _called(*json.loads(sys.argv[2]))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        sys.stderr.flush()
