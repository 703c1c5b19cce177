"""`Server` and `Client`: hooks and their order, ends with a deadline, passed handles, signals; and
real programs as peers."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import socket
import ssl
import threading
import time

import gevent
import gevent.event
import greentaps
import pytest
import pyuv
from greentaps.endpoints import Client, Endpoint, Server, create_connection, create_server
from greentaps.errors import CertificateError, Timeout, TlsError, TransportError
from greentaps.hub import get_loop, get_runner
from peers import running, script
from peers.recorder import Echo, Recorder

LOCAL = ("127.0.0.1", 0)


@pytest.fixture
def reports(monkeypatch):
    """The errors that were reported, instead of printed."""
    errors = []
    monkeypatch.setattr(
        gevent.get_hub(), "handle_error", lambda context, kind, value, tb: errors.append(value)
    )
    return errors


@contextlib.contextmanager
def serving(factory=Echo, address=LOCAL, **options):
    server = create_server(factory, address, **options)
    try:
        yield server
    finally:
        for transport, _ in list(server.connections):
            transport.abort()
        server.close()


def until(condition):
    with gevent.Timeout(20):
        while not condition():
            gevent.sleep(0.001)


class Hooked(Server):
    """Writes down its hooks and those of its protocols, in one list."""

    def __init__(self, **options):
        self.log = log = []

        class Logs(Echo):
            def _note(self, name):
                log.append(f"protocol.{name}")
                super()._note(name)

        def factory():
            log.append("factory")
            return Logs()

        super().__init__(factory, **options)

    def handle_connection(self, client, ssl):
        self.log.append("handle_connection")
        super().handle_connection(client, ssl)

    def connection_made(self, transport, protocol):
        assert (transport, protocol) in self.connections
        assert protocol.transport is None
        self.log.append("server.connection_made")

    def connection_lost(self, transport, protocol, exc=None):
        assert (transport, protocol) not in self.connections
        self.log.append("server.connection_lost")
        self.exc = exc


# -- Hooks --


def test_the_hooks_and_their_order():
    server = Hooked()
    server.listen(LOCAL)
    transport, protocol = create_connection(Recorder, server.addresses[0])
    transport.write(b"x")
    protocol.until_data(b"x")
    transport.close()
    until(lambda: "protocol.connection_lost" in server.log)
    assert server.log == [
        "handle_connection",
        "factory",
        "server.connection_made",
        "protocol.connection_made",
        "protocol.data_received",
        "protocol.eof_received",
        "server.connection_lost",
        "protocol.connection_lost",
    ]
    assert server.exc is None
    server.close()


def test_the_hooks_tell_the_error():
    server = Hooked()
    server.listen(LOCAL)
    transport, _ = create_connection(Recorder, server.addresses[0])
    until(lambda: "protocol.connection_made" in server.log)
    transport.abort()
    until(lambda: "protocol.connection_lost" in server.log)
    assert isinstance(server.exc, ConnectionResetError)
    server.close()


@pytest.mark.parametrize("where", ["factory", "server", "protocol", "handle_connection"])
def test_a_hook_that_raises_is_reported_and_costs_one_connection(where, reports):
    broken = [True]

    def maybe(place):
        if place == where and broken[0]:
            raise KeyError(place)

    class Breaks(Echo):
        def __init__(self):
            maybe("factory")
            super().__init__()

        def connection_made(self, transport):
            super().connection_made(transport)
            maybe("protocol")

    class Hooks(Server):
        def connection_made(self, transport, protocol):
            maybe("server")

        def handle_connection(self, client, ssl):
            maybe("handle_connection")
            super().handle_connection(client, ssl)

    server = Hooks(Breaks)
    server.listen(LOCAL)
    with socket.create_connection(server.addresses[0]) as client:
        until(lambda: reports)
        client.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert [error.args for error in reports] == [(where,)]
    until(lambda: not len(server.connections))
    broken[0] = False
    transport, protocol = create_connection(Recorder, server.addresses[0])
    transport.write(b"next")
    protocol.until_data(b"next")
    transport.close()
    server.close()


@pytest.mark.parametrize("where", ["server", "protocol"])
def test_an_exception_in_connection_lost_is_reported_and_no_more(where, reports):
    class Breaks(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            if where == "protocol":
                raise KeyError(where)

    class Hooks(Server):
        def connection_lost(self, transport, protocol, exc=None):
            if where == "server":
                raise KeyError(where)

    server = Hooks(Breaks)
    server.listen(LOCAL)
    transport, _ = create_connection(Recorder, server.addresses[0])
    until(lambda: len(server.connections))
    ((_, protocol),) = server.connections
    transport.close()
    protocol.until_called("connection_lost")
    server.close()
    assert [error.args for error in reports] == [(where,)]


def test_connections_and_addresses():
    with serving() as server:
        assert len(server.addresses) == 1
        clients = [create_connection(Recorder, server.addresses[0])[0] for _ in range(3)]
        until(lambda: len(server.connections) == 3)
        for _ in range(2):  # more than once
            assert all(isinstance(protocol, Echo) for _, protocol in server.connections)
        clients[0].abort()
        until(lambda: len(server.connections) == 2)
        for client in clients:
            client.abort()
        server.close()
        assert server.addresses == []
        assert len(server.connections) == 0


def test_max_connections():
    class Small(Server):
        max_connections = 1

    server = Small(Echo)
    server.listen(LOCAL)
    first, _ = create_connection(Recorder, server.addresses[0])
    until(lambda: len(server.connections) == 1)
    _, refused = create_connection(Recorder, server.addresses[0])
    refused.until_called("connection_lost")
    assert refused.data == b""
    assert len(server.connections) == 1
    first.close()
    until(lambda: not len(server.connections))
    third, protocol = create_connection(Recorder, server.addresses[0])
    third.write(b"room again")
    protocol.until_data(b"room again")
    third.close()
    server.close()


def test_the_timeout_of_the_server_is_lent_to_its_protocols():
    for factory, expected in [(Recorder, 7), (lambda: Recorder(timeout=3), 3)]:
        server = Server(factory, timeout=7)
        assert server.timeout == 7
        server.listen(LOCAL)
        transport, _ = create_connection(Recorder, server.addresses[0])
        until(lambda server=server: len(server.connections))
        ((_, protocol),) = server.connections
        assert protocol.timeout == expected
        transport.close()
        server.close()


# -- Listening --


def test_listening_on_several_addresses(tmp_path):
    path = str(tmp_path / "socket")
    server = create_server(Echo)
    assert server.addresses == []
    server.listen(LOCAL)
    server.listen(("::1", 0))
    server.listen(path)
    assert len(server.addresses) == 3
    for address in server.addresses:
        transport, protocol = create_connection(Recorder, address)
        transport.write(b"x")
        protocol.until_data(b"x")
        transport.close()
    server.close()
    server.close()
    server.listen(LOCAL)
    assert len(server.addresses) == 1
    server.close()


def test_all_addresses():
    with serving(address=("", 0)) as server:
        hosts = {address[0] for address in server.addresses}
        assert "0.0.0.0" in hosts
        for address in server.addresses:
            where = ("::1" if ":" in address[0] else "127.0.0.1", address[1])
            transport, _ = create_connection(Recorder, where)
            transport.abort()
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    with serving(address=("", port)) as server:  # both families on one port
        assert {address[1] for address in server.addresses} == {port}


def test_addresses_that_this_machine_lacks_are_left_out(monkeypatch):
    from greentaps import endpoints

    monkeypatch.setattr(
        endpoints, "resolve_stream", lambda *_: [("192.0.2.1", 0), ("127.0.0.1", 0)]
    )
    with serving(address=("name.example", 0)) as server:
        assert [address[0] for address in server.addresses] == ["127.0.0.1"]
    monkeypatch.setattr(endpoints, "resolve_stream", lambda *_: [("192.0.2.1", 0)])
    with pytest.raises(TransportError) as caught:
        create_server(Echo, ("name.example", 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_port_in_use(monkeypatch):
    from greentaps import endpoints

    with serving() as server:
        address = server.addresses[0]
        with pytest.raises(TransportError) as caught:
            create_server(Recorder, address)
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.address == address
        # Of several addresses, too; and the first is released again.
        with socket.socket() as free:
            free.bind(LOCAL)
            other = free.getsockname()
        monkeypatch.setattr(endpoints, "resolve_stream", lambda *_: [other, address])
        failed = Server(Recorder)
        with pytest.raises(TransportError):
            failed.listen(("name.example", 1))
        assert failed.addresses == []
        monkeypatch.undo()
        with serving(address=other):
            pass


def test_a_listen_that_fails_leaves_nothing():
    """bind succeeds with two sockets that share the port, and then listen fails."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(LOCAL)
    server = Server(Recorder)
    second = socket.socket()
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    second.bind(taken.getsockname())
    taken.listen()
    with pytest.raises(TransportError) as caught:
        server.listen(second.detach())
    assert caught.value.errno == errno.EADDRINUSE
    assert server.addresses == []
    taken.close()


def test_no_backlog_means_no_listening(tmp_path):
    path = str(tmp_path / "socket")
    with serving(address=path, backlog=None) as server:
        assert server.addresses == [path]
        with pytest.raises(ConnectionRefusedError):
            create_connection(Recorder, path)


def test_handles_and_descriptors_as_addresses(tmp_path):
    bound = pyuv.TCP(get_loop())
    bound.bind(LOCAL)
    plain = socket.socket()
    plain.bind(LOCAL)
    name = plain.getsockname()
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "unix"))
    pipe = pyuv.Pipe(get_loop())
    pipe.bind(str(tmp_path / "pipe"))
    server = Server(Echo)
    for address in (bound, plain.detach(), unix.detach(), pipe):
        server.listen(address)
    assert server.addresses[1:] == [name, str(tmp_path / "unix"), str(tmp_path / "pipe")]
    for address in server.addresses:
        transport, protocol = create_connection(Recorder, address)
        transport.write(b"x")
        protocol.until_data(b"x")
        transport.close()
    server.close()
    assert bound.closed
    with pytest.raises(TransportError, match="closed"):
        server.listen(bound)


def test_the_path_is_removed_on_close_if_it_is_still_ours(tmp_path):
    path = tmp_path / "socket"
    create_server(Echo, str(path)).close()
    assert not path.exists()
    replaced = create_server(Echo, str(path))
    path.unlink()
    path.write_text("something else")
    replaced.close()
    assert path.read_text() == "something else"
    with pytest.raises(TransportError) as caught:
        create_server(Echo, str(path))
    assert caught.value.errno == errno.EADDRINUSE
    assert path.read_text() == "something else"
    gone = create_server(Echo, str(tmp_path / "other"))
    (tmp_path / "other").unlink()
    gone.close()


def test_out_of_descriptors_is_reported_and_the_server_goes_on():
    """In a thread, because libuv exchanges the descriptor that it keeps in reserve for this."""
    reports = []
    answers = []

    def body():
        hub = gevent.get_hub()
        hub.handle_error = lambda context, kind, value, tb: reports.append(value)
        try:
            with serving() as server:
                answers.append(_after_running_out(server.addresses[0]))
        finally:
            del hub.handle_error
            hub.destroy(destroy_loop=True)

    thread = threading.Thread(target=body)
    thread.start()
    until(lambda: not thread.is_alive())
    assert answers == [b"still there"]
    assert all(isinstance(error, TransportError) for error in reports), reports


def _after_running_out(address):
    client = socket.socket()
    client.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        client.connect_ex(address)
        for _ in range(20):
            gevent.sleep(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    client.close()
    transport, protocol = create_connection(Recorder, address)
    transport.write(b"still there")
    protocol.until_data(b"still there")
    transport.close()
    return protocol.data


# -- Close --


def test_close_flushes_and_waits_for_every_connection_lost():
    big = b"x" * 3_000_000

    class Sends(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(big)

    server = create_server(Sends, LOCAL)
    received = [create_connection(Recorder, server.addresses[0])[1] for _ in range(3)]
    until(lambda: len(server.connections) == 3)
    protocols = [protocol for _, protocol in server.connections]
    server.close()
    assert [protocol.calls[-1] for protocol in protocols] == ["connection_lost"] * 3
    assert [protocol.lost for protocol in protocols] == [None] * 3
    for protocol in received:
        protocol.until_called("connection_lost")
        assert len(protocol.data) == len(big)


def test_close_with_a_peer_that_never_reads_has_a_deadline():
    class Sends(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"x" * 20_000_000)

    for server, timeout in ((Server(Sends), 0.05), (Server(Sends, timeout=0.05), None)):
        server.listen(LOCAL)
        with socket.create_connection(server.addresses[0]):
            until(lambda server=server: len(server.connections))
            ((_, protocol),) = server.connections
            begin = time.monotonic()
            server.close(timeout)
            assert 0.04 < time.monotonic() - begin < 5
            assert protocol.lost.errno == errno.ETIMEDOUT


def test_close_broken_off_can_be_repeated():
    class Sends(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"x" * 20_000_000)

    server = create_server(Sends, LOCAL)
    with socket.create_connection(server.addresses[0]):
        until(lambda: len(server.connections))
        running = gevent.spawn(server.run)
        gevent.sleep(0)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
            server.close()
        running.join(10)
        assert running.ready()
        server.close(0)
        assert not len(server.connections)


def test_the_server_as_a_context():
    with create_server(Echo, LOCAL) as server:
        address = server.addresses[0]
        transport, protocol = create_connection(Recorder, address)
    protocol.until_called("connection_lost")
    with pytest.raises(ConnectionRefusedError):
        create_connection(Recorder, address)
    assert transport.is_closing()


# -- run --


def test_run_ends_at_close():
    server = create_server(Echo, LOCAL)
    greenlets = [gevent.spawn(server.run) for _ in range(2)]
    gevent.sleep(0)
    assert not any(greenlet.ready() for greenlet in greenlets)
    server.close()
    gevent.joinall(greenlets, timeout=10)
    assert all(greenlet.successful() for greenlet in greenlets)
    with pytest.raises(TransportError, match="not listening"):
        server.run()


def test_run_and_ctrl_c():
    with script("server", "run") as server:
        port = int(server.line())
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            server.signal(signal.SIGINT)
            # Where the signal strikes inside a callback, the connection ends with it.
            assert server.wait_for("lost") in ("lost None", "lost KeyboardInterrupt()")
            assert server.wait_for("returned") == "returned 0 0"
            assert server.line() == "open 0"
            assert server.wait() == 0
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""


# -- Handles that are passed --


class Takes(Recorder):
    """Accepts each handle that comes with a byte."""

    server = None

    def data_received(self, data):
        for _ in data:
            try:
                self.server.accept_connection(self.transport.get_extra_info("handle"))
            except Exception as error:
                self.errors.append(error)
        super().data_received(data)


@pytest.fixture
def taking(tmp_path):
    """A server that gets handles at its path: (path, server, the protocol of the channel)."""
    made = []

    def factory():
        made.append(Takes() if not made else Echo())
        made[0].server = server
        return made[-1]

    path = str(tmp_path / "socket")
    server = create_server(factory, path, ipc=True)
    yield path, server, made
    for transport, _ in list(server.connections):
        transport.abort()
    server.close()


@pytest.mark.parametrize("kind", ["tcp", "pipe"])
def test_a_handle_passed_by_another_process(taking, kind):
    path, _, made = taking
    with script("passer", path, kind) as peer:
        assert peer.line() == "hello"  # over the socket that we were passed
        until(lambda: len(made) == 2)
        assert made[0].errors == []
        wanted = pyuv.TCP if kind == "tcp" else pyuv.Pipe
        assert isinstance(made[1].transport.get_extra_info("handle"), wanted)


def test_nothing_is_pending(taking):
    path, server, made = taking
    with script("passer", path, "none"):
        until(lambda: made and "data_received" in made[0].calls)
    (error,) = made[0].errors
    assert isinstance(error, TransportError)
    assert error.errno == errno.EAGAIN
    with pytest.raises(TypeError, match=r"pyuv\.Pipe"):
        server.accept_connection("pipe")


def test_a_datagram_handle_is_refused(taking):
    path, _, made = taking
    with script("passer", path, "udp"):
        until(lambda: made and "data_received" in made[0].calls)
    (error,) = made[0].errors
    assert isinstance(error, TypeError)
    assert "UDP" in str(error)


def test_a_pipe_that_is_not_for_ipc_has_nothing_pending(tmp_path):
    with serving(address=str(tmp_path / "socket")) as server:
        transport, _ = create_connection(Recorder, str(tmp_path / "socket"))
        with pytest.raises(TransportError):
            server.accept_connection(transport.get_extra_info("handle"))
        transport.abort()


def test_passing_a_handle_to_another_process(tmp_path):
    a, b = socket.socketpair()
    passed = pyuv.Pipe(get_loop())
    passed.open(a.detach())
    path = str(tmp_path / "socket")
    with serving(Recorder, path, ipc=True) as server, script("passer", path, "take") as peer:
        until(lambda: len(server.connections))
        ((channel, _),) = server.connections
        with pytest.raises(ValueError, match="at least one byte"):
            channel.write(b"", passed)
        channel.write(b"!", passed)
        receiver, protocol = create_connection(Recorder, b.detach())
        protocol.until(lambda: protocol.data == b"from the peer")
        channel.abort()
        assert peer.wait() == 0
    passed.close()
    get_runner().kick()
    receiver.close()


# -- TLS --


def test_a_tls_server(certificates):
    server = Hooked()
    server.listen(LOCAL, ssl=certificates.server_context())
    transport, protocol = create_connection(
        Recorder, server.addresses[0], ssl=certificates.client_context(), timeout=10
    )
    transport.write(b"secret")
    protocol.until_data(b"secret")
    transport.close()
    until(lambda: "protocol.connection_lost" in server.log)
    assert server.exc is None
    server.close()


def test_the_handshake_has_a_deadline_on_the_server(certificates):
    server = Hooked()
    server.listen(LOCAL, ssl=certificates.server_context(), handshake_timeout=0.05)
    with socket.create_connection(server.addresses[0]) as mute:
        mute.settimeout(10)
        until(lambda: "server.connection_lost" in server.log)
        with contextlib.suppress(ConnectionResetError):
            assert mute.recv(1) == b""
    assert server.exc.errno == errno.ETIMEDOUT
    assert server.log == [
        "handle_connection",
        "factory",
        "server.connection_made",
        "server.connection_lost",
    ]
    server.close()


def test_a_handshake_that_fails_reaches_the_hook_and_not_the_protocol(certificates, reports):
    server = Hooked()
    server.listen(LOCAL, ssl=certificates.server_context())
    with pytest.raises(CertificateError):
        create_connection(
            Recorder, server.addresses[0], ssl=ssl.create_default_context(), timeout=10
        )
    until(lambda: "server.connection_lost" in server.log)
    assert isinstance(server.exc, TlsError), server.exc
    assert "protocol.connection_made" not in server.log
    assert "protocol.connection_lost" not in server.log
    server.log.clear()
    with socket.create_connection(server.addresses[0]) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        until(lambda: "server.connection_lost" in server.log)
    assert isinstance(server.exc, TlsError)
    assert reports == []
    server.close()


@pytest.mark.parametrize("answer", [None, 5, ZeroDivisionError])
def test_an_ssl_function_that_fails_closes_the_connection(answer, reports):
    def choose(handle):
        if answer is ZeroDivisionError:
            raise answer
        return answer

    with serving(ssl=choose) as server:
        with socket.create_connection(server.addresses[0]) as client:
            client.settimeout(10)
            gevent.sleep(0)
            until(lambda: reports)
            assert client.recv(1) == b""
        assert len(server.connections) == 0
    wanted = ZeroDivisionError if answer is ZeroDivisionError else TypeError
    assert [type(error) for error in reports] == [wanted]


def test_each_address_keeps_its_own_tls_options(certificates):
    server = Server(Echo)
    context = certificates.server_context()
    server.listen(LOCAL, ssl=context, do_handshake_on_connect=False)
    server.listen(LOCAL, ssl=context)
    clear, secure = server.addresses
    with socket.create_connection(clear) as client:
        client.settimeout(10)
        client.sendall(b"in clear")
        until(lambda: any(protocol.data for _, protocol in server.connections))
        assert client.recv(100) == b"in clear"
    transport, _ = create_connection(
        Recorder, secure, ssl=certificates.client_context(), timeout=10
    )
    transport.close()
    server.close()


# -- Client --


def test_a_client():
    with serving() as server:
        client = Client(Recorder, timeout=10)
        assert client.transport is None
        assert client.protocol is None
        client.close()
        client.connect(server.addresses[0])
        assert client.protocol.timeout == 10
        with pytest.raises(RuntimeError, match="connected already"):
            client.connect(server.addresses[0])
        client.transport.write(b"x")
        client.protocol.until_data(b"x")
        protocol = client.protocol
        client.close()
        assert protocol.calls[-1] == "connection_lost"
        assert protocol.lost is None
        assert client.transport is None
        client.connect(server.addresses[0])
        client.close()


def test_a_client_whose_peer_has_gone_may_connect_again():
    with serving() as server:
        with Client(Recorder) as client:
            client.connect(server.addresses[0])
            until(lambda: len(server.connections))
            first = client.protocol
            for transport, _ in list(server.connections):
                transport.close()
            first.until_called("connection_lost")
            assert client.protocol is first  # it stays, to be asked
            client.connect(server.addresses[0], timeout=5)
            assert client.protocol is not first
            assert client.protocol.timeout == 5
        assert client.transport is None


def test_a_client_that_is_connecting():
    with socket.socket() as bound:
        bound.bind(LOCAL)
        bound.listen()
        client = Client(Recorder)
        greenlet = gevent.spawn(client.connect, bound.getsockname())
        gevent.sleep(0)
        if not greenlet.ready():
            with pytest.raises(RuntimeError):
                client.connect(bound.getsockname())
        greenlet.get(timeout=10)
        client.close()


@pytest.fixture
def full():
    """The port of two listeners, of each family, whose queues are full: nobody answers."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(LOCAL, backlog=0))
        port = listener.getsockname()[1]
        other = opened.enter_context(
            socket.create_server(("::1", port), family=socket.AF_INET6, backlog=0)
        )
        for full in (listener, other):
            for _ in range(2):
                filler = opened.enter_context(socket.socket(full.family))
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
        yield port


def test_a_client_that_is_closed_while_it_connects(full, monkeypatch):
    tried = []

    def connect(remote, *args, **kwargs):
        tried.append(remote)
        return connect_tcp(remote, *args, **kwargs)

    connect_tcp = greentaps.endpoints.connect_tcp
    monkeypatch.setattr(greentaps.endpoints, "connect_tcp", connect)
    both = [("127.0.0.1", full), ("::1", full, 0, 0)]
    monkeypatch.setattr(greentaps.endpoints, "resolve_stream", lambda *args, **kwargs: both)
    client = Client(Recorder)
    greenlet = gevent.spawn(client.connect, ("localhost", full))
    gevent.sleep(0)
    for _ in range(2):
        client.close()
    with pytest.raises(TransportError, match="closed meanwhile") as caught:
        greenlet.get(timeout=10)
    assert caught.value.errno == errno.ECONNABORTED
    assert len(tried) == 1
    gevent.sleep(0)
    assert not get_runner().owners


def test_a_client_that_is_closed_in_the_turn_in_which_it_is_connected():
    with serving() as server:
        client = Client(Recorder)

        def connect():
            with pytest.raises(TransportError, match="closed meanwhile"):
                client.connect(server.addresses[0], timeout=10)
            gevent.sleep(0.01)  # where nothing may strike it any more

        greenlet = gevent.spawn(connect)
        gevent.sleep(0)
        client.close()
        greenlet.get(timeout=10)
        assert client.transport is None
        client.connect(server.addresses[0], timeout=10)
        client.close()


def test_a_client_that_failed_can_try_again():
    client = Client(Recorder)
    with socket.socket() as bound:
        bound.bind(LOCAL)
        with pytest.raises(ConnectionRefusedError):
            client.connect(bound.getsockname())
        bound.listen()
        client.connect(bound.getsockname())
        client.close()


def test_closing_a_client_has_a_deadline():
    with socket.create_server(LOCAL) as listener:
        client = Client(Recorder, timeout=0.05)
        client.connect(listener.getsockname())
        client.transport.write(b"x" * 20_000_000)
        protocol = client.protocol
        client.close()
        assert protocol.lost.errno == errno.ETIMEDOUT


def test_arguments_of_endpoints():
    for wrong, error in [("1", TypeError), (-1, ValueError), (True, TypeError)]:
        for kind in (Client, Server, Endpoint):
            with pytest.raises(error):
                kind(Recorder, timeout=wrong)
    with pytest.raises(TypeError, match="callable"):
        Client("Recorder")
    with pytest.raises(NotImplementedError):
        Endpoint(Recorder).close()
    with serving() as server:
        transport, _ = create_connection(Recorder, server.addresses[0])
        for wrong, error in [("1", TypeError), (-1, ValueError)]:
            with pytest.raises(error):
                transport.close(wrong)
        transport.abort()


# -- Other programs --

needs = pytest.mark.peer


@needs
@pytest.mark.parametrize("program", ["socat", "ncat"])
@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_echo_to_a_program(program, where, tmp_path):
    with serving(address=LOCAL if where == "tcp" else str(tmp_path / "socket")) as server:
        address = server.addresses[0]
        command = {
            ("socat", "tcp"): ["socat", "-t10", "-", f"TCP:127.0.0.1:{address[1]}"],
            ("socat", "unix"): ["socat", "-t10", "-", f"UNIX-CONNECT:{address}"],
            ("ncat", "tcp"): ["ncat", "127.0.0.1", str(address[1])],
            ("ncat", "unix"): ["ncat", "-U", address],
        }[program, where]
        payload = os.urandom(300_000)
        with running(*command) as peer:
            saying = gevent.spawn(peer.say, payload)
            assert peer.read(len(payload)) == payload
            saying.get(timeout=10)
            peer.end_input()
            assert peer.wait() == 0


@needs
def test_echo_from_a_program():
    with socket.socket() as free:
        free.bind(LOCAL)
        port = free.getsockname()[1]
    with running(
        "socat", "-d", "-d", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr", "EXEC:cat", errors=True
    ) as peer:
        peer.wait_for("listening on")
        transport, protocol = create_connection(Recorder, ("127.0.0.1", port))
        payload = os.urandom(300_000)
        transport.write(payload)
        protocol.until_data(payload)
        transport.close()
        transport.wait_closed(10)
        assert peer.wait() == 0


@needs
def test_half_close_with_a_program():
    """wc answers only when it has seen the end."""
    with socket.socket() as free:
        free.bind(LOCAL)
        port = free.getsockname()[1]
    with running(
        "socat",
        "-d",
        "-d",
        f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr",
        "EXEC:wc -c",
        errors=True,
    ) as peer:
        peer.wait_for("listening on")
        transport, protocol = create_connection(Recorder, ("127.0.0.1", port))
        transport.write(b"x" * 123_456)
        transport.write_eof()
        protocol.until_called("connection_lost")
        assert protocol.data.strip() == b"123456"
        assert protocol.lost is None


class Web(Recorder):
    """Just enough of a web server."""

    def data_received(self, data):
        super().data_received(data)
        if b"\r\n\r\n" in self.data:
            body = b"hello " * 50_000
            self.transport.write(
                b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            self.transport.close()


@needs
@pytest.mark.parametrize("secure", [False, True])
def test_curl(secure, certificates):
    options = {"ssl": certificates.server_context()} if secure else {}
    with serving(Web, **options) as server:
        scheme = "https" if secure else "http"
        url = f"{scheme}://localhost:{server.addresses[0][1]}/"
        with running(
            "curl", "-sS", "--noproxy", "*", "-4", "--cacert", certificates.ca, url, errors=True
        ) as curl:
            assert curl.read() == b"hello " * 50_000
            assert curl.wait() == 0


@needs
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client(version, certificates):
    with (
        serving(ssl=certificates.server_context()) as server,
        running(
            *("openssl", "s_client", "-quiet", "-verify_return_error", version),
            *("-CAfile", certificates.ca, "-servername", "localhost"),
            *("-connect", f"127.0.0.1:{server.addresses[0][1]}"),
            errors=True,
        ) as peer,
    ):
        peer.say(b"over TLS\n")
        peer.wait_for("over TLS")
        ((transport, protocol),) = server.connections
        wanted = "TLSv1.2" if version == "-tls1_2" else "TLSv1.3"
        assert transport.get_extra_info("tls_version") == wanted
        transport.close()
        protocol.until_called("connection_lost")
        assert protocol.lost is None


@needs
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_server(version, certificates):
    with socket.socket() as free:
        free.bind(LOCAL)
        port = free.getsockname()[1]
    with running(
        *("openssl", "s_server", "-quiet", "-rev", version, "-naccept", "1"),
        *("-accept", f"127.0.0.1:{port}", "-cert", certificates.server),
        errors=True,
    ) as peer:
        transport = protocol = None
        with gevent.Timeout(20):
            while transport is None:  # it does not say when it listens
                try:
                    transport, protocol = create_connection(
                        Recorder,
                        ("127.0.0.1", port),
                        ssl=certificates.client_context(),
                        timeout=10,
                    )
                except ConnectionRefusedError:
                    gevent.sleep(0.005)
        transport.write(b"abc\n")
        protocol.until_data(b"cba\n")
        transport.close()
        protocol.until_called("connection_lost")
        assert protocol.lost is None
        peer.stop()


@needs
def test_a_peer_that_says_nothing():
    with serving() as server, script("client", *server.addresses[0], "mute") as peer:
        assert peer.line() == "connected"
        until(lambda: len(server.connections))
        ((transport, protocol),) = server.connections
        with pytest.raises(Timeout):
            transport.wait_closed(0.02)
        peer.end_input()
        protocol.until_called("connection_lost")
        assert protocol.lost is None
        assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]


@needs
def test_a_peer_that_stops_reading():
    with serving(Recorder) as server, script("client", *server.addresses[0], "mute") as peer:
        assert peer.line() == "connected"
        until(lambda: len(server.connections))
        ((transport, protocol),) = server.connections
        while "pause_writing" not in protocol.calls:
            transport.write(b"x" * 100_000)
        with pytest.raises(Timeout):
            transport.wait_writable(0.02)
        waiting = gevent.spawn(transport.wait_writable, 10)
        gevent.sleep(0)
        peer.stop()  # the writer must not sleep on
        with pytest.raises(TransportError):
            waiting.get(timeout=10)
        protocol.until_called("connection_lost")
        assert isinstance(protocol.lost, TransportError)


@needs
def test_a_reset_in_the_middle_of_a_message():
    with serving(Recorder) as server, script("client", *server.addresses[0], "reset") as peer:
        until(lambda: len(server.connections))
        ((transport, protocol),) = server.connections
        protocol.until_data(b"half a mess")
        peer.say(b"\n")
        protocol.until_called("connection_lost")
        assert isinstance(protocol.lost, ConnectionResetError)
        assert isinstance(protocol.lost, TransportError)
        assert "eof_received" not in protocol.calls
        with pytest.raises(ConnectionResetError):
            transport.write(b"x")


@needs
def test_udp_with_a_program():
    handle = pyuv.UDP(get_loop())
    handle.bind(LOCAL)
    transport = greentaps.DatagramTransport(handle)
    protocol = Echo()
    transport.start(protocol)
    port = transport.get_extra_info("sockname")[1]
    if shutil.which("socat") is None:
        transport.abort()
    with running("socat", "-t10", "-", f"UDP:127.0.0.1:{port}") as peer:
        peer.say(b"a datagram")
        assert peer.read(10) == b"a datagram"
        assert [data for data, _ in protocol.datagrams] == [b"a datagram"]
    transport.close()
