"""From an address to a handle: each failure has its number and address, and leaves no handle."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket

import gevent
import pytest
import pyuv
from greentaps.errors import ResolutionError, TransportError
from greentaps.hub import Deadline, get_runner
from greentaps.transports import handles
from greentaps.transports.handles import (
    check_address,
    check_port,
    connect_pipe,
    connect_tcp,
    from_descriptor,
    listen_pipe,
    listen_tcp,
    resolve_stream,
)

LOCAL = ("127.0.0.1", 0)
NOW = Deadline(None)


def discard(handle):
    get_runner().discard(handle)


@pytest.fixture
def uv_fails(monkeypatch):
    """pyuv's ``open`` fails: (number of handles that were made, which were closed)."""
    made = []

    def broken(kind):
        class Broken(kind):
            def __new__(cls, *args):
                self = super().__new__(cls, *args)
                made.append(self)
                return self

            def open(self, descriptor):
                raise pyuv.error.StreamError(pyuv.errno.UV_ENOMEM, "no memory")

        return Broken

    for name in ("TCP", "Pipe"):
        monkeypatch.setattr(handles.pyuv, name, broken(getattr(pyuv, name)))
    return made


def test_good_ports_and_addresses():
    for port in (0, 80, 65535, "80", "http"):
        check_port(port)
    for address in (("::1", 80, 0, 0), ("host", "http"), (None, 5), (b"host", 5)):
        assert check_address(address) is address


@pytest.mark.parametrize(
    ("port", "error"),
    [(-1, ValueError), (65536, ValueError), ("65536", ValueError), ("", ValueError),
     (None, TypeError), (1.5, TypeError), (False, TypeError), (b"80", TypeError)],
)  # fmt: skip
def test_bad_ports(port, error):
    with pytest.raises(error, match=r"port|service"):
        check_port(port)


@pytest.mark.parametrize(
    "address", [("127.0.0.1\0.example.com", 80), (b"127.0.0.1\0.", 80), ("127.0.0.1", "80\0x")]
)
def test_a_nul_does_not_cut_an_address_short(address):
    with pytest.raises(ValueError, match="NUL"):
        check_address(address)


def test_numeric_addresses_need_no_trip_to_the_resolver(monkeypatch):
    def trip(*_args, **_options):
        raise AssertionError("asked the resolver")

    monkeypatch.setattr(handles, "resolve", trip)
    assert resolve_stream(("192.0.2.1", 80), 0, 0, NOW) == [("192.0.2.1", 80)]
    assert resolve_stream(("192.0.2.1", "80"), 0, 0, NOW) == [("192.0.2.1", 80)]
    assert resolve_stream(("2001:db8::1", 80), 0, 0, NOW) == [("2001:db8::1", 80, 0, 0)]
    assert resolve_stream(("2001:db8::1", 80, 3, 4), 0, 0, NOW) == [("2001:db8::1", 80, 3, 4)]
    assert ("127.0.0.1", 80) in resolve_stream((None, 80), 0, 0, NOW)
    with pytest.raises(ResolutionError, match="numeric"):
        resolve_stream(("host.example", 80), 0, socket.AI_NUMERICHOST, NOW)


def test_the_resolver_is_asked_cooperatively_and_within_the_deadline(monkeypatch):
    monkeypatch.setattr(handles, "resolve", lambda *_args, **_options: gevent.sleep(60))
    with pytest.raises(TransportError, match="resolution") as caught:
        resolve_stream(("slow.example", 80), 0, 0, Deadline(0.01))
    assert caught.value.errno == errno.ETIMEDOUT
    assert caught.value.address == ("slow.example", 80)


def test_repeated_addresses_are_tried_once(monkeypatch):
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))
    monkeypatch.setattr(handles, "resolve", lambda *_args, **_options: [entry, entry])
    assert resolve_stream(("host.example", 80), 0, 0, NOW) == [("192.0.2.1", 80)]


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b", "\udcff"])
def test_names_that_cannot_be(host, capfd):
    with pytest.raises(ResolutionError):
        resolve_stream((host, 80), 0, 0, NOW)
    assert capfd.readouterr().err == ""  # a thread's traceback, for example


def test_prepare_sees_the_handle_before_the_connect():
    with socket.create_server(LOCAL) as listener:
        seen = []

        def prepare(handle):
            with pytest.raises(pyuv.error.TCPError):
                handle.getpeername()
            seen.append(handle)

        handle = connect_tcp(listener.getsockname(), NOW, prepare=prepare)
        assert seen == [handle]
        discard(handle)

        def breaks(handle):
            seen.append(handle)
            raise KeyError("prepare")

        with pytest.raises(KeyError, match="prepare"):
            connect_tcp(listener.getsockname(), NOW, prepare=breaks)
        assert seen[1].closed


def test_a_failed_connect_closes_its_handle():
    seen = []
    with socket.socket() as bound:
        bound.bind(LOCAL)
        with pytest.raises(ConnectionRefusedError):
            connect_tcp(bound.getsockname(), NOW, prepare=seen.append)
    assert seen[0].closed


def test_a_local_address_in_use_is_told():
    with socket.create_server(LOCAL) as taken, socket.create_server(LOCAL) as listener:
        with pytest.raises(TransportError) as caught:
            connect_tcp(listener.getsockname(), NOW, local=taken.getsockname())
        assert caught.value.errno in (errno.EADDRINUSE, errno.ECONNREFUSED)


def test_listen_tcp_says_at_once_what_bind_says():
    with socket.create_server(LOCAL) as taken:
        with pytest.raises(TransportError) as caught:
            listen_tcp(taken.getsockname())
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.address == taken.getsockname()
    with pytest.raises(TransportError) as caught:
        listen_tcp(("192.0.2.1", 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL
    one = listen_tcp(("0.0.0.0", 0))
    other = listen_tcp(("::", one.getsockname()[1]))  # one family each
    discard(one)
    discard(other)


def test_when_pyuv_fails_nothing_is_left(uv_fails, tmp_path):
    path = str(tmp_path / "socket")
    with socket.create_server(LOCAL) as listener, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        plain = socket.create_connection(listener.getsockname())
        a, b = socket.socketpair()
        calls = [
            lambda: connect_pipe(path, NOW),
            lambda: listen_pipe(path + "2"),
            lambda: listen_tcp(LOCAL),
            lambda: from_descriptor(plain.fileno(), "rw"),
            lambda: from_descriptor(a.fileno(), "rw"),
        ]
        for call in calls:
            with pytest.raises(TransportError) as caught:
                call()
            assert caught.value.errno == errno.ENOMEM
        assert len(uv_fails) == len(calls)
        assert all(handle.closed for handle in uv_fails)
        for kept in (plain, a):  # what could not be adopted remains the caller's
            os.fstat(kept.fileno())
        for end in (plain, a, b):
            end.close()


def test_descriptors(tmp_path):
    a, b = socket.socketpair()
    handle, mode = from_descriptor(a.detach(), "rw", ipc=True)
    assert isinstance(handle, pyuv.Pipe)
    assert handle.ipc
    assert mode == "rw"
    discard(handle)
    b.close()
    read, write = os.pipe()
    for number, usable in ((read, "r"), (write, "w")):
        handle, mode = from_descriptor(number, "rw")
        assert mode == usable
        discard(handle)


def test_the_remover_removes_only_its_own(tmp_path):
    path = tmp_path / "socket"
    handle, remove = listen_pipe(str(path))
    assert path.is_socket()
    path.rename(tmp_path / "moved")
    path.touch()
    remove()
    assert path.exists()
    path.unlink()
    (tmp_path / "moved").rename(path)
    remove()
    assert not path.exists()
    remove()
    discard(handle)
    handle, remove = listen_pipe(f"\0greentaps-handles-{os.getpid()}")
    remove()
    discard(handle)


@pytest.fixture
def nothing_left():
    """Nobody can open a descriptor."""
    "x".encode("idna")  # which Python reads from a file
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = max(map(int, os.listdir("/proc/self/fd")))
    with contextlib.ExitStack() as held:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.enter_context(open(os.devnull, "rb"))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(
    "function",
    [
        lambda: connect_pipe("\0nowhere", NOW),
        lambda: listen_pipe("\0nowhere"),
        lambda: listen_tcp(LOCAL),
        lambda: connect_tcp(("127.0.0.1", 1), NOW),
        lambda: resolve_stream(("localhost", 1), 0, 0, NOW),
    ],
    ids=["connect_pipe", "listen_pipe", "listen_tcp", "connect_tcp", "resolve_stream"],
)
def test_without_descriptors_the_error_is_ours(nothing_left, function):
    with pytest.raises(TransportError) as caught:
        function()
    assert caught.value.errno == errno.EMFILE
    assert caught.value.address


def test_a_descriptor_can_be_adopted_without_another(nothing_left_but_a_pair):
    near, far = nothing_left_but_a_pair
    handle, _ = from_descriptor(near.detach(), "rw")
    handle.try_write(b"x")
    assert far.recv(10) == b"x"
    discard(handle)


@pytest.fixture
def nothing_left_but_a_pair(request):
    near, far = socket.socketpair()
    request.getfixturevalue("nothing_left")
    with near, far:
        yield near, far
