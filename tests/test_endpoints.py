"""`create_connection`: every form of address, every failure, and that each leaves nothing."""

from __future__ import annotations

import errno
import os
import pty
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial

import gevent
import greentaps
import pytest
import pyuv
from greentaps import endpoints
from greentaps.endpoints import create_connection, create_server
from greentaps.errors import CertificateError, ResolutionError, TlsError, TransportError
from greentaps.hub import Deadline, get_runner
from greentaps.transports import SslTransport, Transport, handles
from OpenSSL import SSL
from peers.recorder import Echo, Recorder

LOCAL = ("127.0.0.1", 0)


@contextmanager
def serving(address=LOCAL, factory=Echo, **options):
    server = create_server(factory, address, **options)
    try:
        yield server
    finally:
        for transport, _ in list(server.connections):
            transport.abort()
        server.close()


def check_echo(transport, protocol, data=b"hello"):
    transport.write(data)
    protocol.until_data(data)
    transport.close()
    transport.wait_closed(10)
    assert protocol.lost is None


@pytest.fixture
def blackhole():
    """The address of a listener whose queue is full: nobody answers a connect."""
    listener = socket.socket()
    listener.bind(LOCAL)
    listener.listen(0)
    fillers = []
    for _ in range(2):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    yield listener.getsockname()
    for opened in (listener, *fillers):
        opened.close()


@pytest.fixture
def mute():
    """The address of a listener that accepts in the kernel and says nothing."""
    with socket.create_server(LOCAL) as listener:
        yield listener.getsockname()


@pytest.fixture
def refused():
    """An address where nobody listens, and nobody will."""
    with socket.socket() as bound:
        bound.bind(LOCAL)
        yield bound.getsockname()


@pytest.fixture
def names(monkeypatch):
    """A host name with chosen addresses: ``names("host", "127.0.0.1", ...)``."""
    table = {}

    def resolve(host, port, *, family=0, kind=0, protocol=0, flags=0):
        if callable(table.get(host)):
            return table[host]()
        found = []
        for address in table[host]:
            its = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            if family in (0, its):
                found.append((its, kind, 6, "", address))
        return found

    monkeypatch.setattr(handles, "resolve", resolve)

    def add(host, *addresses):
        table[host] = addresses[0] if callable(addresses[0]) else addresses

    return add


# -- Forms of address --


@pytest.mark.parametrize(
    "form",
    [
        lambda path: str(path),
        lambda path: os.fsencode(path),
    ],
    ids=["str", "bytes"],
)
def test_a_path(tmp_path, form):
    path = form(tmp_path / "socket")
    with serving(path) as server:
        assert server.addresses == [path]
        transport, protocol = create_connection(Recorder, path)
        assert type(transport) is Transport
        assert isinstance(transport.get_extra_info("handle"), pyuv.Pipe)
        check_echo(transport, protocol)


def test_a_path_that_is_not_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe"
    with serving(path):
        check_echo(*create_connection(Recorder, path))
        assert os.path.exists(path)
    assert not os.path.exists(path)


@pytest.mark.parametrize("kind", [str, bytes])
def test_an_abstract_name(kind):
    name = f"\0greentaps-test-{os.getpid()}"
    if kind is bytes:
        name = name.encode()
    with serving(name):
        check_echo(*create_connection(Recorder, name))
    with pytest.raises(ConnectionRefusedError, match="@greentaps-test"):
        create_connection(Recorder, name)


def test_a_path_that_is_too_long(tmp_path):
    path = str(tmp_path / ("x" * 120))
    for act in (create_connection, create_server):
        with pytest.raises(TransportError) as caught:
            act(Recorder, path)
        assert caught.value.errno == errno.ENAMETOOLONG
        assert caught.value.address == path


def test_an_empty_path():
    for act in (create_connection, create_server):
        for path in ("", b""):
            with pytest.raises(ValueError, match="empty"):
                act(Recorder, path)


def test_a_number_and_a_name():
    with serving() as server:
        port = server.addresses[0][1]
        for host in ("127.0.0.1", b"127.0.0.1", "localhost"):
            transport, protocol = create_connection(Recorder, (host, port), family=socket.AF_INET)
            assert transport.get_extra_info("server_hostname") == (
                host.decode() if isinstance(host, bytes) else host
            )
            assert transport.get_extra_info("peername") == ("127.0.0.1", port)
            check_echo(transport, protocol)
        check_echo(*create_connection(Recorder, ("127.0.0.1", str(port))))


def test_the_name_of_a_service():
    found = handles.resolve_stream(("127.0.0.1", "http"), 0, 0, Deadline(10))
    assert found == [("127.0.0.1", 80)]
    with pytest.raises(ResolutionError, match="no-such-service"):
        create_connection(Recorder, ("127.0.0.1", "no-such-service"))


def test_ipv6():
    with serving(("::1", 0)) as server:
        port = server.addresses[0][1]
        for address in (("::1", port), ("::1", port, 0, 0)):
            transport, protocol = create_connection(Recorder, address)
            assert transport.get_extra_info("peername")[:2] == ("::1", port)
            check_echo(transport, protocol)


def _link_local():
    """An interface with a link-local address: (name, index, address), or None."""
    try:
        with open("/proc/net/if_inet6") as lines:
            for line in lines:
                raw, index, _, scope, _, name = line.split()
                if scope == "20":
                    return name, int(index, 16), socket.inet_ntop(10, bytes.fromhex(raw))
    except OSError:
        pass
    return None


@pytest.mark.skipif(_link_local() is None, reason="no interface has a link-local address")
def test_a_scoped_address():
    name, index, address = _link_local()
    with serving((address, 0, 0, index)) as server:
        port = server.addresses[0][1]
        check_echo(*create_connection(Recorder, (address, port, 0, index)))
        check_echo(*create_connection(Recorder, (f"{address}%{name}", port)))


def test_the_scope_of_a_four_tuple_is_kept():
    found = handles.resolve_stream(("fe80::1", 80, 0, 7), 0, 0, Deadline(10))
    assert found == [("fe80::1", 80, 0, 7)]


def test_a_connected_stream():
    with serving() as server:
        connected = handles.connect_tcp(server.addresses[0], Deadline(10))
        transport, protocol = create_connection(Recorder, connected)
        assert transport.get_extra_info("handle") is connected
        check_echo(transport, protocol)


def test_a_stream_that_is_not_connected():
    loop = get_runner().loop
    bound = pyuv.TCP(loop)
    bound.bind(LOCAL)
    made = [pyuv.TCP(loop), pyuv.TCP(loop, socket.AF_INET), pyuv.Pipe(loop), bound]
    for handle in made:
        with pytest.raises(TransportError, match="not connected") as caught:
            create_connection(Recorder, handle)
        assert caught.value.errno == errno.ENOTCONN
        assert not handle.closed  # it remains ours
        handle.close()
        with pytest.raises(TransportError, match="closed"):
            create_connection(Recorder, handle)
    get_runner().kick()


def test_a_stream_of_another_loop():
    loop = pyuv.Loop()
    handle = pyuv.Pipe(loop)
    a, b = socket.socketpair()
    handle.open(a.detach())
    with pytest.raises(ValueError, match="another loop"):
        create_connection(Recorder, handle)
    with pytest.raises(ValueError, match="another loop"):
        create_server(Recorder, handle)
    assert not handle.closed
    handle.close()
    loop.run()
    b.close()


def test_the_descriptor_of_a_tcp_socket():
    with serving() as server, socket.create_connection(server.addresses[0]) as plain:
        transport, protocol = create_connection(Recorder, plain.detach())
        assert isinstance(transport.get_extra_info("handle"), pyuv.TCP)
        check_echo(transport, protocol)


def test_the_descriptor_of_a_socketpair():
    a, b = socket.socketpair()
    number = a.detach()
    transport, protocol = create_connection(Recorder, number)
    assert transport.get_extra_info("unix_creds") == (os.getpid(), os.getuid(), os.getgid())
    b.sendall(b"hello")
    protocol.until_data(b"hello")
    transport.close()
    transport.wait_closed()
    with pytest.raises(OSError, match="Bad file"):  # adopted: closed with the transport
        os.fstat(number)
    b.close()


def test_the_ends_of_a_pipe():
    read, write = os.pipe()
    reader, received = create_connection(Recorder, read)
    writer, _ = create_connection(Recorder, write)
    # Each can do what its descriptor is open for.
    with pytest.raises(TransportError, match="not writable"):
        reader.write(b"x")
    with pytest.raises(TransportError, match="not readable"):
        writer.pause_reading()
    writer.write(b"through the pipe")
    writer.close()
    received.until_called("connection_lost")
    assert received.data == b"through the pipe"
    assert received.lost is None


def test_the_wrong_end_of_a_pipe():
    read, write = os.pipe()
    for number, mode in ((read, "w"), (write, "r")):
        with pytest.raises(ValueError, match="not open for mode"):
            create_connection(Recorder, number, mode=mode)
        os.close(number)


def test_a_terminal():
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    with pytest.raises(ValueError, match="terminal"):
        create_connection(Recorder, slave)
    writer, _ = create_connection(Recorder, slave, mode="w")
    reader, protocol = create_connection(Recorder, slave, mode="r")
    assert isinstance(reader.get_extra_info("handle"), pyuv.TTY)
    columns, rows = reader.get_extra_info("winsize")
    assert isinstance(columns, int)
    assert isinstance(rows, int)
    writer.write(b"to the screen\n")
    os.write(master, b"a line\n")
    protocol.until_data(b"a line\n")
    assert b"to the screen" in os.read(master, 1000)
    with pytest.raises(TransportError, match="not writable"):
        reader.write(b"x")
    assert not writer.can_write_eof()
    with pytest.raises(TransportError, match="terminal"):
        writer.write_eof()
    for transport in (reader, writer):
        transport.close()
        transport.wait_closed(10)
    os.fstat(slave)  # the caller's still
    os.close(slave)
    os.close(master)


def test_descriptors_that_cannot_be_used(tmp_path):
    with open(tmp_path / "file", "w") as file, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        with pytest.raises(ValueError, match="neither"):
            create_connection(Recorder, file.fileno())
        with pytest.raises(ValueError, match="stream socket"):
            create_connection(Recorder, datagram.fileno())
        os.fstat(file.fileno())
        os.fstat(datagram.fileno())
        closed = os.dup(file.fileno())
        os.close(closed)
    for number in (closed, -1, 2**40):
        with pytest.raises(TransportError, match="descriptor") as caught:
            create_connection(Recorder, number)
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("address", [None, True, 1.5, ["127.0.0.1", 1], object(), {}])
def test_addresses_of_the_wrong_type(address):
    with pytest.raises(TypeError, match="address must be"):
        create_connection(Recorder, address)
    if address is not None:
        with pytest.raises(TypeError, match="address must be"):
            create_server(Recorder, address)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (("127.0.0.1", 70000), ValueError),
        (("127.0.0.1", -1), ValueError),
        (("127.0.0.1", "70000"), ValueError),
        (("127.0.0.1", ""), ValueError),
        (("127.0.0.1", None), TypeError),
        (("127.0.0.1", 1.0), TypeError),
        (("127.0.0.1", True), TypeError),
        ((127, 80), TypeError),
        (("127.0.0.1",), TypeError),
        ((), TypeError),
    ],
)
def test_tuples_that_are_no_address(address, error):
    for act in (create_connection, create_server):
        with pytest.raises(error):
            act(Recorder, address)


def test_wrong_arguments_come_before_anything_is_opened(monkeypatch):
    def opened(*_args, **_options):
        raise AssertionError("too late")

    monkeypatch.setattr(endpoints, "_open", opened)
    monkeypatch.setattr(endpoints, "_bound_handles", opened)
    for options, error in [
        ({"mode": "x"}, ValueError),
        ({"mode": ""}, ValueError),
        ({"mode": "r", "ssl": True}, ValueError),
        ({"ssl": 42}, TypeError),
        ({"ssl": "yes"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"timeout": True}, TypeError),
        ({"local_address": 5}, TypeError),
        ({"local_address": ("127.0.0.1", -5)}, ValueError),
    ]:
        with pytest.raises(error):
            create_connection(Recorder, LOCAL, **options)
    with pytest.raises(TypeError, match="callable"):
        create_connection(None, LOCAL)
    with pytest.raises(ValueError, match="local_address"):
        create_connection(Recorder, "/path", local_address=LOCAL)
    for options, error in [
        ({"ssl": True}, ValueError),
        ({"ssl": 42}, TypeError),
        ({"backlog": -1}, ValueError),
        ({"backlog": "many"}, ValueError),
        ({"handshake_timeout": -1}, ValueError),
    ]:
        with pytest.raises(error):
            create_server(Recorder, LOCAL, **options)
    with pytest.raises(TypeError, match="callable"):
        create_server(None)


# -- Failures --


def test_an_unknown_host():
    with pytest.raises(ResolutionError, match="nowhere") as caught:
        create_connection(Recorder, ("nowhere.invalid", 80))
    assert isinstance(caught.value, TransportError)
    assert isinstance(caught.value, socket.gaierror)
    assert caught.value.address == ("nowhere.invalid", 80)
    with pytest.raises(ResolutionError):
        create_connection(Recorder, ("localhost", 80), flags=socket.AI_NUMERICHOST)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_refused_connection(host):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.bind((host, 0))
        address = bound.getsockname()[:2]
        with pytest.raises(ConnectionRefusedError) as caught:
            create_connection(Recorder, address)
    assert isinstance(caught.value, TransportError)
    assert caught.value.errno == errno.ECONNREFUSED
    assert str(address[1]) in str(caught.value)


def test_paths_where_nobody_listens(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        create_connection(Recorder, str(tmp_path / "nothing"))
    assert isinstance(caught.value, TransportError)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    with pytest.raises(ConnectionRefusedError):
        create_connection(Recorder, str(tmp_path / "socket"))
    (tmp_path / "file").touch()
    with pytest.raises(ConnectionRefusedError):
        create_connection(Recorder, str(tmp_path / "file"))


def test_an_unreachable_address():
    """A TCP connection to the broadcast address is refused by the kernel itself."""
    with pytest.raises(TransportError) as caught:
        create_connection(Recorder, ("255.255.255.255", 80), timeout=5)
    assert caught.value.errno in (errno.ENETUNREACH, errno.EACCES, errno.EHOSTUNREACH)


def test_nobody_answers(blackhole):
    begin = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        create_connection(Recorder, blackhole, timeout=0.05)
    assert time.monotonic() - begin < 5
    assert isinstance(caught.value, TransportError)
    assert caught.value.errno == errno.ETIMEDOUT
    assert caught.value.address == blackhole


def test_the_queue_of_a_path_is_full(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        first, _ = create_connection(Recorder, path)
        with pytest.raises(TimeoutError) as caught:
            create_connection(Recorder, path, timeout=0.02)
        assert caught.value.errno == errno.ETIMEDOUT
        waiting = gevent.spawn(create_connection, Recorder, path, timeout=10)
        gevent.sleep(0)
        accepted = listener.accept()[0]
        second, _ = waiting.get(timeout=10)
        for transport in (first, second):
            transport.abort()
        accepted.close()


@pytest.mark.parametrize("stage", ["connect", "handshake", "resolution", "pipe"])
def test_a_timeout_of_zero(stage, blackhole, mute, names, tmp_path, certificates):
    names("slow.example", partial(gevent.sleep, 60))
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        filler = socket.socket(socket.AF_UNIX)
        filler.connect(path)
        address, options = {
            "connect": (blackhole, {}),
            "handshake": (mute, {"ssl": certificates.client_context()}),
            "resolution": (("slow.example", 80), {}),
            "pipe": (path, {}),
        }[stage]
        with pytest.raises(TransportError) as caught:
            create_connection(Recorder, address, timeout=0, **options)
        assert caught.value.errno == errno.ETIMEDOUT
        filler.close()


def test_one_deadline_over_everything(blackhole, mute, names, certificates):
    """Resolution takes a part, the first address a part; the handshake gets what is left."""

    def slow():
        gevent.sleep(0.1)
        return [(2, 1, 6, "", mute)]

    names("slow.example", slow)
    begin = time.monotonic()
    with pytest.raises(TransportError, match="handshake") as caught:
        create_connection(
            Recorder,
            ("slow.example", mute[1]),
            ssl=certificates.client_context(),
            timeout=0.2,
        )
    took = time.monotonic() - begin
    assert caught.value.errno == errno.ETIMEDOUT
    assert 0.19 < took < 0.29, took

    names("many.example", blackhole, ("127.0.0.2", blackhole[1]))
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        create_connection(Recorder, ("many.example", blackhole[1]), timeout=0.1)
    assert 0.09 < time.monotonic() - begin < 0.19


# -- Several addresses --


def test_the_next_address_is_tried(names, refused):
    with serving() as server:
        good = server.addresses[0]
        names("multi.example", refused, good)
        transport, protocol = create_connection(Recorder, ("multi.example", 1))
        assert transport.get_extra_info("peername") == good
        assert transport.get_extra_info("server_hostname") == "multi.example"
        check_echo(transport, protocol)


def test_when_no_address_answers_each_failure_is_told(names, refused, blackhole):
    names("multi.example", refused, ("::1", refused[1], 0, 0))
    with pytest.raises(ConnectionRefusedError) as caught:
        create_connection(Recorder, ("multi.example", 1))
    group = caught.value.__cause__
    if isinstance(group, TransportError):  # the copy's own cause comes between
        group = group.__cause__
    assert isinstance(group, ExceptionGroup)
    assert [error.address[0] for error in group.exceptions] == ["127.0.0.1", "::1"]


def test_family(names):
    with serving(("::1", 0)) as server:
        port = server.addresses[0][1]
        names("both.example", ("127.0.0.1", 1), ("::1", port, 0, 0))
        check_echo(*create_connection(Recorder, ("both.example", port), family=socket.AF_INET6))
    with pytest.raises(ResolutionError):
        create_connection(Recorder, ("127.0.0.1", 1), family=socket.AF_INET6, flags=4)


def test_local_address(refused):
    with serving() as server:
        address = server.addresses[0]
        transport, protocol = create_connection(Recorder, address, local_address=("127.0.0.3", 0))
        assert transport.get_extra_info("sockname")[0] == "127.0.0.3"
        check_echo(transport, protocol)
        with pytest.raises(TransportError, match="family"):
            create_connection(Recorder, address, local_address=("::1", 0))
        with pytest.raises(TransportError) as caught:
            create_connection(Recorder, address, local_address=("192.0.2.1", 0))
        assert caught.value.errno == errno.EADDRNOTAVAIL
        assert caught.value.address[0] == "192.0.2.1"


# -- Breaking off --


@pytest.mark.parametrize("how", ["kill", "gevent.Timeout"])
@pytest.mark.parametrize("stage", ["resolution", "connect", "pipe", "handshake"])
def test_breaking_off_leaves_nothing(stage, how, blackhole, mute, names, tmp_path, certificates):
    names("slow.example", partial(gevent.sleep, 60))
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        address, options = {
            "resolution": (("slow.example", 80), {}),
            "connect": (blackhole, {}),
            "pipe": (path, {}),
            "handshake": (mute, {"ssl": certificates.client_context()}),
        }[stage]
        made = []

        def factory():
            made.append(Recorder())
            return made[0]

        greenlet = gevent.spawn(create_connection, factory, address, **options)
        if stage == "handshake":
            while not made:
                gevent.sleep(0)
            gevent.sleep(0)
        gevent.sleep(0)
        gevent.sleep(0)
        assert not greenlet.dead
        if how == "kill":
            greenlet.kill()
        else:
            limit = gevent.Timeout(1)
            greenlet.kill(limit)
            with pytest.raises(gevent.Timeout) as caught:
                greenlet.get()
            assert caught.value is limit
        # The fixture checks that nothing is left.
        assert not made or made[0].calls == []


def test_a_connect_that_succeeds_in_the_turn_of_the_kill(mute):
    """The connection was there, but nobody takes it any more: it must be closed."""
    for turns in range(4):
        greenlet = gevent.spawn(create_connection, Recorder, mute)
        for _ in range(turns):
            gevent.sleep(0)
        greenlet.kill()
        if isinstance(greenlet.value, tuple):
            greenlet.value[0].abort()


# -- Protocols --


def test_a_factory_that_raises():
    def factory():
        raise KeyError("factory")

    with serving() as server:
        for options in ({}, {"ssl": True}):
            with pytest.raises(KeyError, match="factory"):
                create_connection(factory, server.addresses[0], **options)


def test_connection_made_raises(certificates):
    class Raises(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise KeyError("made")

    with serving() as plain, serving(ssl=certificates.server_context()) as secure:
        for server, context in ((plain, False), (secure, certificates.client_context())):
            protocol = Raises()
            with pytest.raises(KeyError, match="made"):
                create_connection(lambda p=protocol: p, server.addresses[0], ssl=context)
            protocol.until_called("connection_lost")
            assert isinstance(protocol.lost, KeyError)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_connection_made_closes(how, certificates):
    class Closes(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            getattr(transport, how)()

    with serving() as plain, serving(ssl=certificates.server_context()) as secure:
        for server, context in ((plain, False), (secure, certificates.client_context())):
            transport, protocol = create_connection(Closes, server.addresses[0], ssl=context)
            assert transport.is_closing()
            protocol.until_called("connection_lost")
            assert protocol.calls == ["connection_made", "connection_lost"]
            assert protocol.lost is None


def test_connection_made_pauses_reading():
    class Pauses(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    a, b = socket.socketpair()
    b.sendall(b"early")
    transport, protocol = create_connection(Pauses, a.detach())
    gevent.sleep(0)
    gevent.sleep(0)
    assert protocol.calls == ["connection_made"]
    transport.resume_reading()
    protocol.until_data(b"early")
    transport.abort()
    b.close()


def test_the_timeout_is_lent_and_not_forced():
    class Bare:
        """No timeout attribute, and none can be set."""

        __slots__ = ()

        def connection_made(self, transport):
            pass

        data_received = eof_received = connection_lost = connection_made

    with serving() as server:
        for factory, expected in [
            (Recorder, 5),
            (lambda: Recorder(timeout=2), 2),
            (lambda: Recorder(timeout=0), 0),
        ]:
            transport, protocol = create_connection(factory, server.addresses[0], timeout=5)
            assert protocol.timeout == expected
            transport.abort()
        transport, protocol = create_connection(lambda: Recorder(timeout=2), server.addresses[0])
        assert protocol.timeout == 2
        transport.abort()
        transport, protocol = create_connection(Bare, server.addresses[0], timeout=5)
        transport.abort()


def test_modes():
    a, b = socket.socketpair()
    transport, protocol = create_connection(Recorder, a.detach(), mode="r")
    b.sendall(b"x")
    protocol.until_data(b"x")
    for refused in (lambda: transport.write(b"y"), transport.write_eof):
        with pytest.raises(TransportError, match="not writable"):
            refused()
    transport.abort()
    b.close()
    a, b = socket.socketpair()
    transport, protocol = create_connection(Recorder, a.detach(), mode="w")
    transport.write(b"z")
    assert b.recv(10) == b"z"
    with pytest.raises(TransportError, match="not readable"):
        transport.resume_reading()
    transport.abort()
    b.close()


def test_ipc():
    a, b = socket.socketpair()
    for descriptor, ipc in ((a.detach(), True), (b.detach(), False)):
        transport, _ = create_connection(Recorder, descriptor, ipc=ipc)
        assert transport.get_extra_info("handle").ipc is ipc
        transport.abort()


# -- TLS --


def _pyopenssl(certificates):
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(str(certificates.ca))
    context.set_verify(SSL.VERIFY_PEER)
    return context


@pytest.mark.parametrize("kind", ["context", "callable", "pyopenssl", "callable pyopenssl"])
def test_forms_of_ssl(kind, certificates):
    seen = []

    def choose(handle, make):
        seen.append(handle)
        return make()

    argument = {
        "context": certificates.client_context(),
        "callable": lambda handle: choose(handle, certificates.client_context),
        "pyopenssl": _pyopenssl(certificates),
        "callable pyopenssl": lambda handle: choose(handle, lambda: _pyopenssl(certificates)),
    }[kind]
    with serving(ssl=certificates.server_context()) as server:
        port = server.addresses[0][1]
        transport, protocol = create_connection(
            Recorder, ("localhost", port), ssl=argument, family=socket.AF_INET, timeout=10
        )
        assert type(transport) is SslTransport
        assert transport.get_extra_info("tls_version") == "TLSv1.3"
        assert seen == ([transport.get_extra_info("handle")] if "callable" in kind else [])
        check_echo(transport, protocol)


def test_ssl_true_verifies(certificates):
    with serving(ssl=certificates.server_context()) as server:
        with pytest.raises(CertificateError) as caught:
            create_connection(Recorder, server.addresses[0], ssl=True, timeout=10)
        assert caught.value.verify_message


@pytest.mark.parametrize(
    ("argument", "error"),
    [(lambda handle: None, TypeError), (lambda handle: 1 / 0, ZeroDivisionError)],
)
def test_an_ssl_function_that_fails(argument, error, mute):
    with pytest.raises(error):
        create_connection(Recorder, mute, ssl=argument)


def test_a_context_that_needs_a_host_name(tmp_path, certificates):
    path = str(tmp_path / "socket")
    with serving(path, ssl=certificates.server_context()):
        with pytest.raises(ValueError, match="server_hostname"):
            create_connection(Recorder, path, ssl=certificates.client_context(), timeout=10)
        transport, protocol = create_connection(
            Recorder,
            path,
            ssl=certificates.client_context(),
            server_hostname="localhost",
            timeout=10,
        )
        assert transport.get_extra_info("server_hostname") == "localhost"
        check_echo(transport, protocol)


def test_a_peer_that_does_not_speak_tls():
    class Babbles(Recorder):
        def connection_made(self, transport):
            transport.write(b"220 this is no TLS\r\n")

    with serving(factory=Babbles) as server, pytest.raises(TlsError):
        create_connection(Recorder, server.addresses[0], ssl=True, timeout=10)


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_peer_that_goes_in_the_handshake(how):
    class Goes(Recorder):
        def data_received(self, data):
            if how == "end":
                self.transport.close()
            else:
                self.transport.abort()

    with serving(factory=Goes) as server:
        with pytest.raises(TransportError) as caught:
            create_connection(Recorder, server.addresses[0], ssl=True, timeout=10)
        assert not isinstance(caught.value, TimeoutError)
        if how == "reset":
            assert isinstance(caught.value, ConnectionResetError)


def test_no_handshake_until_it_is_asked_for(certificates):
    with serving(ssl=certificates.server_context(), do_handshake_on_connect=False) as server:
        transport, protocol = create_connection(
            Recorder,
            server.addresses[0],
            ssl=certificates.client_context(),
            server_hostname="localhost",
            do_handshake_on_connect=False,
            close_on_unwrap=False,
            timeout=10,
        )
        transport.write(b"in clear")
        protocol.until_data(b"in clear")
        ((other, _),) = server.connections
        transport.do_handshake()
        other.do_handshake()
        transport.write(b" and not")
        protocol.until_data(b"in clear and not")
        assert transport.get_extra_info("tls_version")
        transport.close()
        protocol.until_called("connection_lost")


# -- In namespaces --


@pytest.mark.netns
def test_a_route_that_swallows_everything_and_one_that_says_so():
    probe = ["unshare", "--net", "true"]
    try:
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            pytest.skip("network namespaces cannot be made here")
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    code = """if True:
        import errno, greentaps
        for address in ("192.0.2.1", "198.51.100.1"):
            try:
                greentaps.create_connection(greentaps.Protocol, (address, 80), timeout=0.05)
            except greentaps.TransportError as error:
                print(errno.errorcode[error.errno])
    """
    setup = (
        "ip link set lo up && ip link add veth0 type veth peer name veth1 && ip link set veth0 up"
        " && ip link set veth1 up && ip addr add 192.0.2.2/24 dev veth0 &&"
        " ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev veth0 &&"
        ' ip route add unreachable 198.51.100.0/24 && exec "$@"'
    )
    result = subprocess.run(
        ["unshare", "--net", "sh", "-c", setup, "sh", sys.executable, "-c", code],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(greentaps.__file__))},
    )
    assert result.stdout.split() == [b"ETIMEDOUT", b"EHOSTUNREACH"], result.stderr.decode()
