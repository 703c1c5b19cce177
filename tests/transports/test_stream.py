"""What TCP, Pipe and TTY add to the contract: resets, modes, what the kernel knows, cargo."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import resource
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import Any

import gevent
import pytest
import pyuv
from greentaps.errors import TransportError
from greentaps.hub import get_loop, get_runner
from greentaps.testing import RecordingProtocol, pattern, settle, wait_until
from greentaps.transports import Transport, options
from greentaps.transports.options import socket_of
from greentaps.transports.peek import Peek
from transports.helpers import (
    OLD_LIBUV,
    PLAIN,
    Process,
    pipe_handle,
    receive_all,
    receive_some,
    tcp_handle,
    tcp_pair,
    tcp_sockets,
)

PAUSED: dict[str, Any] = {"connection_made": lambda protocol, transport: transport.pause_reading()}


def tcp_and_socket(
    protocol: RecordingProtocol | None = None, **settings: Any
) -> tuple[Transport, RecordingProtocol, socket.socket]:
    """A started transport, and the plain socket at its other end."""
    one, two = tcp_sockets()
    transport = Transport(tcp_handle(one), **settings)
    protocol = protocol or RecordingProtocol()
    transport.start(protocol)
    return transport, protocol, two


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# -- Ends, as the peer's kernel sees them --


def test_abort_resets() -> None:
    transport, protocol, peer = tcp_and_socket()
    with peer:
        transport.write(b"data")
        transport.abort()
        assert protocol.wait_lost() is None
        with pytest.raises(ConnectionResetError):
            receive_all(peer)


def test_abort_resets_also_without_a_descriptor_to_spare() -> None:
    transport, protocol, peer = tcp_and_socket()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = max(map(int, os.listdir("/proc/self/fd")))
    with contextlib.ExitStack() as held:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.enter_context(open(os.devnull, "rb"))
            transport.abort()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    protocol.wait_lost()
    with peer, pytest.raises(ConnectionResetError):
        receive_all(peer)


def test_close_does_not_reset() -> None:
    transport, protocol, peer = tcp_and_socket()
    with peer:
        transport.write(b"data")
        transport.close()
        assert receive_all(peer) == b"data"
        assert protocol.wait_lost() is None


@pytest.mark.parametrize("kind", ["tcp", "socketpair"])
def test_close_with_unread_data_does_not_reset(kind: str) -> None:
    one, two = tcp_sockets() if kind == "tcp" else socket.socketpair()
    transport = Transport(tcp_handle(one) if kind == "tcp" else pipe_handle(one))
    protocol = RecordingProtocol(**PAUSED)
    transport.start(protocol)
    with two:
        two.sendall(bytes(100_000))
        for _ in range(10):
            transport.write(b"small")  # of which the kernel may hold back some
        transport.close()
        assert receive_all(two) == b"small" * 10
        assert protocol.wait_lost() is None
    assert not protocol.received


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("size", [0, 9, 200_000])
def test_a_reset_is_never_an_end_of_file(paused: bool, size: int) -> None:
    """Also right behind data, where libuv takes the hang-up for an orderly end."""
    transport, protocol, peer = tcp_and_socket(RecordingProtocol(**(PAUSED if paused else {})))
    peer.sendall(pattern(size))
    if not paused:
        settle()
    reset(peer)
    transport.resume_reading()
    assert isinstance(protocol.wait_lost(), ConnectionResetError)
    assert not protocol.eof
    assert protocol.received == pattern(len(protocol.received))
    with pytest.raises(ConnectionResetError) as caught:
        transport.write(b"x")
    assert caught.value.__cause__ is protocol.error


@pytest.mark.parametrize("data", [b"", b"\x16"])
@pytest.mark.parametrize("early", [False, True])
def test_a_peek_does_not_take_the_reset_away(early: bool, data: bytes) -> None:
    one, peer = tcp_sockets()
    transport = Transport(tcp_handle(one))
    peer.send(data)
    told: list[bytes | None] = []
    if early:
        reset(peer)
        settle()
        Peek(transport, 5, told.append)
    else:
        Peek(transport, 5, told.append)
        reset(peer)
    with gevent.Timeout(10):
        while not told:
            gevent.sleep(0.001)
    assert told == [data]
    protocol = RecordingProtocol()
    transport.start(protocol)
    assert isinstance(protocol.wait_lost(), ConnectionResetError)
    assert not protocol.eof


def test_a_closed_transport_has_nothing_to_peek_at() -> None:
    transport, protocol, peer = tcp_and_socket()
    transport.close()
    with peer, pytest.raises(TransportError):
        Peek(transport, 5, lambda _: None)
    protocol.wait_lost()


@pytest.mark.parametrize("pause", [False, True])
def test_data_in_front_of_a_hang_up(pause: bool) -> None:
    """... all of it, although a hang-up follows at once, and with a pause after each chunk."""
    one, two = socket.socketpair()
    transport = Transport(pipe_handle(one))
    hooks: dict[str, Any] = dict(PAUSED)
    if pause:
        hooks["data_received"] = lambda protocol, data: transport.pause_reading()
    protocol = RecordingProtocol(**hooks)
    transport.start(protocol)
    two.sendall(pattern(150_000))
    two.close()
    while not protocol.lost:
        seen = len(protocol.events)
        transport.resume_reading()
        protocol.wait(lambda: len(protocol.events) > seen)  # noqa: B023
        settle(3)
    assert protocol.received == pattern(150_000)
    assert protocol.eof
    assert protocol.error is None
    protocol.check()


def test_a_write_to_a_dead_peer_ends_with_its_error() -> None:
    one, two = socket.socketpair()
    transport = Transport(pipe_handle(one), mode="w")
    protocol = RecordingProtocol()
    transport.start(protocol)
    assert transport.write(b"taken") is None
    two.close()
    # An old libuv tells it a turn late.
    assert transport.write(b"into the void") is (None if OLD_LIBUV else True)
    error = protocol.wait_lost()
    assert isinstance(error, BrokenPipeError)
    with pytest.raises(BrokenPipeError):
        transport.write(b"again")
    assert isinstance(error, TransportError)


def test_a_queued_write_to_a_dying_peer_ends_with_its_error() -> None:
    transport, protocol, peer = tcp_and_socket(RecordingProtocol(**PAUSED))
    while not transport.get_write_buffer_size():
        transport.write(bytes(100_000))
    reset(peer)
    assert isinstance(protocol.wait_lost(), ConnectionResetError)


def test_close_while_the_peer_stays_and_does_not_read() -> None:
    transport, protocol, peer = tcp_and_socket()
    with peer:
        while not transport.get_write_buffer_size():
            transport.write(bytes(100_000))
        transport.close(timeout=0.02)
        error = protocol.wait_lost()
        assert isinstance(error, TimeoutError)
        assert isinstance(error, TransportError)
        assert error.address == peer.getsockname()


@pytest.mark.parametrize("paused", [False, True])
def test_close_after_delivery_to_a_peer_that_is_gone(paused: bool) -> None:
    """Its reset comes behind its end: what it did not acknowledge it never will."""
    transport, protocol, peer = tcp_and_socket(
        RecordingProtocol(keep_open=True, **(PAUSED if paused else {}))
    )
    peer.close()
    settle()
    transport.write(b"into the void")
    transport.close_after_delivery()
    transport.close(timeout=1000)
    error = protocol.wait_lost()
    assert error is None or isinstance(error, ConnectionResetError)


def test_close_after_delivery_waits_for_the_peer_to_take_it() -> None:
    transport, protocol, peer = tcp_and_socket()
    with peer:
        transport.write(b"last words")
        transport.close_after_delivery()
        transport.close()
        assert receive_all(peer) == b"last words"
        assert protocol.wait_lost() is None


def test_close_after_delivery_has_a_deadline() -> None:
    """Also where our kernel has taken all: the peer's has not."""
    transport, protocol, peer = tcp_and_socket()
    with peer:
        transport.write(bytes(2_000_000))
        assert not transport.get_write_buffer_size()
        transport.close_after_delivery()
        transport.close(timeout=0.02)
        error = protocol.wait_lost()
        assert isinstance(error, TransportError)
        assert error.errno == errno.ETIMEDOUT


def test_the_last_acknowledgement_may_come_while_we_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the connection, and that is no reset."""
    transport, protocol, peer = tcp_and_socket()
    peer.settimeout(10)
    unacknowledged = options.unacknowledged
    looks: list[int | None] = []

    def look(handle: object) -> int | None:
        looks.append(unacknowledged(handle))
        if len(looks) == 2:  # the first is whether there is something to wait for
            while peer.recv(65536):
                pass
            peer.close()
            deadline = time.monotonic() + 10
            with socket_of(handle) as here:
                while not has_ended(here):
                    assert time.monotonic() < deadline
        return looks[-1]

    monkeypatch.setattr(options, "unacknowledged", look)
    transport.write(bytes(2_000_000))  # the kernel takes it, the peer does not
    transport.close_after_delivery()
    transport.close()
    assert protocol.wait_lost() is None
    assert all(looks[:2])
    assert looks[-1] == 0


def has_ended(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == bytes([7])  # TCP_CLOSE


def test_the_peer_name_is_in_the_error() -> None:
    _transport, protocol, peer = tcp_and_socket()
    address = peer.getsockname()
    reset(peer)
    error = protocol.wait_lost()
    assert isinstance(error, TransportError)
    assert error.address == address
    assert f"127.0.0.1:{address[1]}" in str(error)
    assert error.errno == errno.ECONNRESET


def test_small_writes_do_not_wait_for_each_other() -> None:
    one, two = tcp_pair()
    for end in (one, two):
        end.start(RecordingProtocol())
        with socket_of(end.get_extra_info("handle")) as here:
            assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    for end in (one, two):
        end.abort()
        end.wait_closed()


def test_an_unconnected_handle() -> None:
    transport = Transport(pyuv.TCP(get_loop()))
    protocol = RecordingProtocol()
    transport.start(protocol)
    error = protocol.wait_lost()
    assert isinstance(error, TransportError)
    assert error.errno in (errno.ENOTCONN, errno.EBADF)
    protocol.check()


# -- Another process at the other end --


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_process_as_peer(size: int) -> None:
    """Nothing in this process wakes the loop by accident."""
    one, two = socket.socketpair()
    with subprocess.Popen(["cat"], stdin=two.fileno(), stdout=two.fileno()) as process:
        two.close()
        transport = Transport(pipe_handle(one))
        protocol = RecordingProtocol()
        transport.start(protocol)
        transport.write(pattern(size))
        protocol.wait_received(size)
        transport.write_eof()
        assert protocol.wait_lost() is None
        assert protocol.received == pattern(size)
        assert process.wait(10) == 0


def test_a_process_over_tcp() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        script = (
            "import socket, sys\n"
            "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
            "print(s.recv(5), flush=True)\n"
            "s.sendall(b'from a process')\n"
            "s.shutdown(1)\n"
            "print(s.recv(5), flush=True)\n"
        )
        port = listener.getsockname()[1]
        with Process(sys.executable, "-c", script, str(port)) as process:
            sock, _ = listener.accept()
            transport = Transport(tcp_handle(sock))
            protocol = RecordingProtocol(keep_open=True)
            transport.start(protocol)
            settle()
            transport.write(b"first")
            process.read_until(b"first")
            protocol.wait(lambda: protocol.eof)
            assert protocol.received == b"from a process"
            transport.write(b"later")
            process.read_until(b"later")
            transport.close()
            assert protocol.wait_lost() is None


# -- Arguments and modes --


def test_arguments() -> None:
    loop = get_runner().loop
    for wrong in (None, 5, "handle", socket):
        with pytest.raises(TypeError, match=r"pyuv\.Stream"):
            Transport(wrong)
    udp = pyuv.UDP(loop)
    with pytest.raises(TypeError, match=r"pyuv\.Stream"):
        Transport(udp)
    get_runner().discard(udp)
    one, two = tcp_sockets()
    handle = tcp_handle(one)
    for mode in ("", "x", "wr", "rwx", "R"):
        with pytest.raises(ValueError, match="mode"):
            Transport(handle, mode=mode)
    transport = Transport(handle)
    transport.close()
    two.close()
    transport.wait_closed(5)
    with pytest.raises(TransportError) as caught:
        Transport(handle)
    assert caught.value.errno == errno.EBADF


def test_a_handle_of_another_loop() -> None:
    other = pyuv.Loop()
    handle = pyuv.TCP(other)
    with pytest.raises(ValueError, match="loop"):
        Transport(handle)
    handle.close()
    other.run()


def test_mode_r() -> None:
    transport, protocol, peer = tcp_and_socket(mode="r")
    with peer:
        for verb in (
            lambda: transport.write(b"x"),
            lambda: transport.writelines([b"x"]),
            transport.write_eof,
        ):
            with pytest.raises(TransportError, match="not writable"):
                verb()
        assert not transport.can_write_eof()
        assert not transport.is_closing()
        peer.sendall(b"data")
        assert protocol.wait_received(4) == b"data"
    assert protocol.wait_lost() is None


def test_mode_w() -> None:
    transport, protocol, peer = tcp_and_socket(mode="w")
    with peer:
        for verb in (transport.pause_reading, transport.resume_reading):
            with pytest.raises(TransportError, match="not readable"):
                verb()
        transport.write(b"data")
        assert receive_some(peer, 4) == b"data"
        peer.sendall(b"never read")
        settle()
        assert protocol.names == ["connection_made"]
        transport.close()
        assert protocol.wait_lost() is None


def test_fifo() -> None:
    """The ends of an os.pipe: one direction each."""
    reading, writing = os.pipe()
    ends = []
    for descriptor, mode in ((reading, "r"), (writing, "w")):
        os.set_blocking(descriptor, False)
        handle = pyuv.Pipe(get_runner().loop)
        handle.open(descriptor)
        ends.append(Transport(handle, mode=mode))
    first, second = RecordingProtocol(), RecordingProtocol()
    ends[0].start(first)
    ends[1].start(second)
    ends[1].write(pattern(300_000))
    ends[1].close()
    wait_until(lambda: first.lost and second.lost, first, second)
    assert first.received == pattern(300_000)
    assert first.eof
    assert first.error is None
    assert second.error is None


def test_tty() -> None:
    master, slave = pty.openpty()
    try:
        termios.tcsetwinsize(slave, (24, 80))
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        loop = get_runner().loop
        reader = Transport(pyuv.TTY(loop, slave, True), mode="r")
        writer = Transport(pyuv.TTY(loop, slave, False), mode="w")
        first, second = RecordingProtocol(), RecordingProtocol()
        reader.start(first)
        writer.start(second)
        assert writer.get_extra_info("winsize") == (80, 24)
        assert writer.get_extra_info("sockname") is None
        assert writer.get_extra_info("peername", 5) == 5
        assert not writer.can_write_eof()
        with pytest.raises(TransportError) as caught:
            writer.write_eof()
        assert caught.value.errno == errno.EOPNOTSUPP
        os.write(master, b"typed")
        assert first.wait_received(5) == b"typed"
        writer.write(b"shown")
        assert os.read(master, 100) == b"shown"
        for transport in (reader, writer):
            transport.close()
        wait_until(lambda: first.lost and second.lost, first, second)
        assert first.error is None
        assert second.error is None
    finally:
        os.close(master)
        os.close(slave)


# -- Information --


def test_extra_info_of_tcp() -> None:
    transport, protocol, peer = tcp_and_socket(server_hostname="example.org")
    with peer:
        ours, theirs = peer.getpeername(), peer.getsockname()
        assert transport.get_extra_info("sockname") == ours
        assert transport.get_extra_info("peername") == theirs
        assert transport.get_extra_info("server_hostname") == "example.org"
        assert isinstance(transport.get_extra_info("handle"), pyuv.TCP)
        assert transport.get_extra_info("unix_creds", "none") == "none"
        assert transport.get_extra_info("winsize") is None
        assert str(theirs) in repr(transport)
        transport.close()
        protocol.wait_lost()
    for name in ("sockname", "peername"):
        assert transport.get_extra_info(name, "gone") == "gone"


def test_extra_info_of_a_pipe() -> None:
    one, two = PLAIN["socketpair"]()
    first, second = RecordingProtocol(), RecordingProtocol()
    one.start(first)
    two.start(second)
    assert one.get_extra_info("unix_creds") == (os.getpid(), os.getuid(), os.getgid())
    assert one.get_extra_info("server_hostname", "none") == "none"
    one.close()
    assert one.get_extra_info("unix_creds", "gone") == "gone"
    wait_until(lambda: first.lost and second.lost, first, second)


# -- Handles as cargo --


def ipc_pair() -> tuple[Transport, Transport]:
    one, two = socket.socketpair()
    return Transport(pipe_handle(one, ipc=True)), Transport(pipe_handle(two, ipc=True))


def test_a_handle_is_sent_along() -> None:
    received: list[Any] = []

    def take(protocol: RecordingProtocol, data: bytes) -> None:
        pipe = protocol.transport.get_extra_info("handle")
        while pipe.pending_handle_type() == pyuv.UV_TCP:
            handle = pyuv.TCP(get_runner().loop)
            pipe.accept(handle)
            received.append(handle)

    one, two = ipc_pair()
    first, second = RecordingProtocol(), RecordingProtocol(data_received=take)
    one.start(first)
    two.start(second)
    ours, theirs = tcp_sockets()
    with theirs:
        cargo = tcp_handle(ours)
        one.write(b"here it comes: ")
        one.write(b"x", cargo)
        one.write(b"and more")
        assert second.wait_received(24) == b"here it comes: xand more"
        get_runner().discard(cargo)
        [handle] = received
        passed = Transport(handle)
        third = RecordingProtocol()
        passed.start(third)
        passed.write(b"through a passed handle")
        assert receive_some(theirs, 23) == b"through a passed handle"
        passed.close()
        one.close()
        wait_until(lambda: all(p.lost for p in (first, second, third)), first, second, third)
    assert second.error is None


def test_handles_that_cannot_be_sent() -> None:
    one, two = ipc_pair()
    plain, other = tcp_pair()
    protocols = [RecordingProtocol() for _ in range(4)]
    for transport, protocol in zip((one, two, plain, other), protocols, strict=True):
        transport.start(protocol)
    cargo = plain.get_extra_info("handle")
    with pytest.raises(ValueError, match="ipc"):
        plain.write(b"x", cargo)
    with pytest.raises(ValueError, match="at least one byte"):
        one.write(b"", cargo)
    with pytest.raises(TypeError):
        one.write(b"x", 5)
    plain.close()
    with pytest.raises(ValueError, match="closed"):
        one.write(b"x", cargo)
    one.write(b"unharmed")
    protocols[1].wait_received(8)
    one.close()
    wait_until(lambda: all(p.lost for p in protocols), *protocols)
    assert protocols[0].error is None


# -- The rest --


def test_a_short_chain_of_transports_leaves_nothing() -> None:
    """No handle, descriptor or owner stays, however it ends; the fixture counts them."""
    for number in range(30):
        one, two = tcp_pair()
        first, second = RecordingProtocol(), RecordingProtocol()
        one.start(first)
        two.start(second)
        one.write(b"x")
        [one.close, one.abort, two.close, two.abort][number % 4]()
        wait_until(lambda: first.lost and second.lost, first, second)  # noqa: B023


def test_another_thread_has_another_loop() -> None:
    results: list[Any] = []

    def run() -> None:
        one, two = PLAIN["socketpair"]()
        first, second = RecordingProtocol(), RecordingProtocol()
        one.start(first)
        two.start(second)
        one.write(b"in a thread")
        results.append(second.wait_received(11))
        one.close()
        wait_until(lambda: first.lost and second.lost, first, second)
        import gevent

        gevent.get_hub().destroy()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert results == [b"in a thread"]
