"""`DatagramTransport`: errors belong to datagrams, and a default remote address works whenever the
socket was connected."""

from __future__ import annotations

import errno
import os
import socket

import gevent
import pytest
import pyuv
from greentaps.errors import TransportError
from greentaps.hub import get_loop, get_runner
from greentaps.transports import DatagramTransport
from greentaps.transports.marked import MarkedDatagramTransport
from peers.recorder import Echo, Recorder

LOCAL = ("127.0.0.1", 0)


class Ends:
    """Makes transports and plain sockets, and closes them."""

    def __init__(self):
        self.made = []

    def plain(self, host="127.0.0.1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.bind((host, 0))
        made.settimeout(10)
        self.made.append(made)
        return made

    def start(self, handle, protocol=None, **options):
        transport = DatagramTransport(handle, **options)
        protocol = protocol or Recorder()
        transport.start(protocol)
        self.made.append(transport)
        return transport, protocol

    def bound(self, protocol=None, host="127.0.0.1", **options):
        handle = pyuv.UDP(get_runner().loop)
        handle.bind((host, 0))
        return self.start(handle, protocol, **options)

    def connected(self, remote, when, protocol=None, **options):
        """A transport whose socket was connected to *remote* before or after the handle got it."""
        family = socket.AF_INET6 if ":" in remote[0] else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_DGRAM)
        opened.setblocking(False)
        if when == "before":
            opened.connect(remote)
        handle = pyuv.UDP(get_runner().loop)
        handle.open(opened.detach())
        if when == "after":
            connect(handle, remote)
        return self.start(handle, protocol, **options)


def connect(handle, remote):
    with socket.socket(fileno=os.dup(handle.fileno())) as duplicate:
        duplicate.connect(remote)


@pytest.fixture
def ends():
    made = Ends()
    yield made
    for end in made.made:
        if isinstance(end, DatagramTransport):
            end.abort()
        else:
            end.close()


@pytest.fixture(params=["before", "after"])
def when(request):
    return request.param


def dead_address():
    """An address where nobody is, though somebody was."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(LOCAL)
        return gone.getsockname()


# -- To and fro --


def test_to_and_fro(ends):
    transport, protocol = ends.bound()
    peer = ends.plain()
    transport.sendto(b"hello", peer.getsockname())
    data, addr = peer.recvfrom(100)
    assert data == b"hello"
    assert addr == transport.get_extra_info("sockname")
    peer.sendto(b"back", addr)
    protocol.until_called("datagram_received")
    assert protocol.datagrams == [(b"back", peer.getsockname())]
    assert protocol.calls == ["connection_made", "datagram_received"]


def test_boundaries_and_order_are_kept(ends):
    transport, protocol = ends.bound(Echo())
    peer = ends.plain()
    sent = [b"a", b"b" * 1000, b"", b"c" * 9000, b"d"]
    for data in sent:
        peer.sendto(data, transport.get_extra_info("sockname"))
    protocol.until_called("datagram_received", len(sent))
    assert [data for data, _ in protocol.datagrams] == sent
    assert [peer.recv(10000) for _ in sent] == sent


def test_empty_datagrams(ends, when):
    transport, protocol = ends.bound()
    peer = ends.plain()
    peer.sendto(b"", transport.get_extra_info("sockname"))
    protocol.until_called("datagram_received")
    assert protocol.datagrams == [(b"", peer.getsockname())]
    transport.sendto(b"", peer.getsockname())
    assert peer.recv(100) == b""
    connected, _ = ends.connected(peer.getsockname(), when)
    connected.sendto(b"")
    assert peer.recv(100) == b""


def test_the_largest_datagram(ends):
    transport, protocol = ends.bound()
    sender, _ = ends.bound()
    largest = b"x" * 65507
    sender.sendto(largest, transport.get_extra_info("sockname"))
    protocol.until_called("datagram_received")
    assert protocol.datagrams[0][0] == largest


def test_ipv6(ends, when):
    peer = ends.plain("::1")
    transport, _protocol = ends.bound(host="::1")
    transport.sendto(b"six", peer.getsockname())
    transport.sendto(b"two-part", peer.getsockname()[:2])
    assert peer.recv(100) == b"six"
    assert peer.recv(100) == b"two-part"
    connected, _ = ends.connected(peer.getsockname(), when)
    connected.sendto(b"default")
    data, _addr = peer.recvfrom(100)
    assert data == b"default"
    connected.sendto(b"spelled out", ("0:0:0:0:0:0:0:1", peer.getsockname()[1]))
    assert peer.recv(100) == b"spelled out"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_kinds_of_data(ends, kind, when):
    peer = ends.plain()
    for transport, addr in (
        (ends.bound()[0], peer.getsockname()),
        (ends.connected(peer.getsockname(), when)[0], None),
    ):
        transport.sendto(kind(b"data"), addr)
        assert peer.recv(100) == b"data"
        for wrong in ("text", 5, None, ["x"]):
            with pytest.raises(TypeError):
                transport.sendto(wrong, addr)


# -- A default remote address --


def test_sending_without_an_address(ends, when):
    peer, stranger = ends.plain(), ends.plain()
    transport, protocol = ends.connected(peer.getsockname(), when)
    assert transport.get_extra_info("peername") == peer.getsockname()
    transport.sendto(b"no address")
    data, ours = peer.recvfrom(100)
    assert data == b"no address"
    transport.sendto(b"the same address", peer.getsockname())
    assert peer.recv(100) == b"the same address"
    with pytest.raises(ValueError, match="only to its remote"):
        transport.sendto(b"x", stranger.getsockname())
    with pytest.raises(ValueError, match="host name"):
        transport.sendto(b"x", ("localhost", 5))
    for wrong in (5, "127.0.0.1", (), ("127.0.0.1",), [b"x"], (None, 5)):
        with pytest.raises((TypeError, ValueError)):
            transport.sendto(b"x", wrong)
    stranger.sendto(b"from a stranger", ours)
    peer.sendto(b"from the peer", ours)
    protocol.until_called("datagram_received")
    assert protocol.datagrams == [(b"from the peer", peer.getsockname())]
    assert protocol.errors == []


def test_a_socket_that_is_connected_after_the_start(ends):
    peer = ends.plain()
    transport, _ = ends.bound()
    with pytest.raises(ValueError, match="addr is needed"):
        transport.sendto(b"x")
    assert transport.get_extra_info("peername") is None
    connect(transport.get_extra_info("handle"), peer.getsockname())
    transport.sendto(b"now")
    assert peer.recv(100) == b"now"
    assert transport.get_extra_info("peername") == peer.getsockname()


def test_a_refusal_reaches_error_received_and_the_transport_stays(ends, when):
    gone = dead_address()
    transport, protocol = ends.connected(gone, when)
    transport.sendto(b"to nobody")
    protocol.until_called("error_received")
    (error,) = protocol.errors
    assert isinstance(error, ConnectionRefusedError)
    assert isinstance(error, TransportError)
    assert error.address == gone
    assert not transport.is_closing()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
        back.bind(gone)
        back.settimeout(10)
        transport.sendto(b"to somebody")
        data, ours = back.recvfrom(100)
        assert data == b"to somebody"
        back.sendto(b"hello", ours)
        protocol.until_called("datagram_received")


def test_a_marked_transport_still_reads_after_a_refusal(ends):
    address = dead_address()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(LOCAL)
        handle = pyuv.UDP(get_runner().loop)
        handle.open(opened.detach())
    connect(handle, address)
    transport, protocol = MarkedDatagramTransport(handle), Recorder()
    ends.made.append(transport)
    transport.start(protocol)
    transport.sendto(b"nobody is there")
    protocol.until_called("error_received")
    assert protocol.errors[0].errno == errno.ECONNREFUSED
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(address)
        peer.sendto(b"now somebody is", transport.get_extra_info("sockname"))
        protocol.until_called("datagram_received")
    assert protocol.datagrams == [(b"now somebody is", address)]


def test_a_refusal_of_an_earlier_datagram_meets_the_next_send(ends, when):
    """The kernel reports it once, with whatever call comes first."""
    gone = dead_address()
    transport, protocol = ends.connected(gone, when, mode="w")
    transport.sendto(b"to nobody")
    transport.sendto(b"tells")
    assert [error.errno for error in protocol.errors] == [errno.ECONNREFUSED]
    assert not transport.is_closing()


# -- Errors --


def test_too_large(ends, when):
    peer = ends.plain()
    for transport, protocol, addr in (
        (*ends.bound(), peer.getsockname()),
        (*ends.connected(peer.getsockname(), when), None),
    ):
        transport.sendto(b"x" * 70_000, addr)
        (error,) = protocol.errors
        assert error.errno == errno.EMSGSIZE
        assert error.address == peer.getsockname()
        assert not transport.is_closing()
        assert transport.get_write_buffer_size() == 0
        transport.sendto(b"fits", addr)
        assert peer.recv(100) == b"fits"


@pytest.mark.parametrize(
    ("addr", "error", "text"),
    [
        (("localhost", 80), ValueError, "host name"),
        (("127.0.0.1", 70_000), ValueError, "valid"),
        (("127.0.0.1", -1), ValueError, "valid"),
        (("127.0.0.1", "80"), TypeError, "valid"),
        ("127.0.0.1", TypeError, "tuple"),
        (5, TypeError, "tuple"),
        (("127.0.0.1",), TypeError, "tuple"),
        ((), TypeError, "tuple"),
    ],
)
def test_wrong_addresses(ends, addr, error, text):
    transport, protocol = ends.bound()
    with pytest.raises(error, match=text):
        transport.sendto(b"x", addr)
    assert protocol.errors == []
    assert transport.get_write_buffer_size() == 0


def test_an_address_of_the_other_family(ends):
    transport, protocol = ends.bound()
    transport.sendto(b"x", ("::1", 80))
    assert len(protocol.errors) == 1
    assert not transport.is_closing()


def test_an_exception_in_a_callback_ends_the_transport(ends, monkeypatch):
    reports = []
    monkeypatch.setattr(
        gevent.get_hub(), "handle_error", lambda context, kind, value, tb: reports.append(value)
    )

    class Breaks(Recorder):
        def datagram_received(self, data, addr):
            raise KeyError("received")

        def error_received(self, exc):
            raise KeyError("error")

    peer = ends.plain()
    transport, protocol = ends.bound(Breaks())
    peer.sendto(b"x", transport.get_extra_info("sockname"))
    protocol.until_called("connection_lost")
    assert protocol.lost.args == ("received",)
    transport, protocol = ends.bound(Breaks())
    transport.sendto(b"x" * 70_000, peer.getsockname())
    protocol.until_called("connection_lost")
    assert protocol.lost.args == ("error",)
    assert [error.args for error in reports] == [("received",), ("error",)]


def test_connection_made_raises(ends):
    class Breaks(Recorder):
        def connection_made(self, transport):
            raise KeyError("made")

    protocol = Breaks()
    with pytest.raises(KeyError, match="made"):
        ends.bound(protocol)
    protocol.until_called("connection_lost")
    assert isinstance(protocol.lost, KeyError)


# -- Life cycle --


def test_arguments():
    loop = get_loop()
    for wrong in (None, 5, "udp"):
        with pytest.raises(TypeError, match=r"pyuv\.UDP"):
            DatagramTransport(wrong)
    tcp, udp = pyuv.TCP(loop), pyuv.UDP(loop)
    with pytest.raises(TypeError):
        DatagramTransport(tcp)
    with pytest.raises(ValueError, match="mode"):
        DatagramTransport(udp, mode="x")
    for handle in (tcp, udp):
        handle.close()
    with pytest.raises(TransportError, match="closed"):
        DatagramTransport(udp)
    other = pyuv.Loop()
    foreign = pyuv.UDP(other)
    with pytest.raises(ValueError, match="another loop"):
        DatagramTransport(foreign)
    foreign.close()
    other.run()


def test_before_and_after(ends):
    handle = pyuv.UDP(get_runner().loop)
    handle.bind(LOCAL)
    transport = DatagramTransport(handle)
    with pytest.raises(TransportError, match="not been started"):
        transport.sendto(b"x", LOCAL)
    protocol = Recorder()
    transport.start(protocol)
    with pytest.raises(TransportError, match="already"):
        transport.start(protocol)
    assert transport.get_extra_info("handle") is handle
    assert transport.get_extra_info("sockname") == handle.getsockname()
    assert transport.get_extra_info("peername", "none") == "none"
    assert transport.get_extra_info("unknown", 5) == 5
    for _ in range(2):
        transport.close()
        transport.abort()
    assert transport.is_closing()
    assert protocol.lost == "not yet"  # never from inside close
    transport.wait_closed(10)
    assert protocol.lost is None
    assert protocol.calls == ["connection_made", "connection_lost"]
    with pytest.raises(TransportError, match="closed"):
        transport.sendto(b"x", LOCAL)
    assert transport.get_extra_info("sockname", "gone") == "gone"
    assert transport.get_write_buffer_size() == 0
    transport.close()
    transport.abort()
    transport.pause_reading()
    transport.resume_reading()


def test_closing_a_transport_that_was_not_started():
    for how in ("close", "abort"):
        handle = pyuv.UDP(get_runner().loop)
        transport = DatagramTransport(handle)
        getattr(transport, how)()
        transport.wait_closed(10)
        assert handle.closed


def test_abort_with_an_error(ends):
    transport, protocol = ends.bound()
    mine = TransportError("enough")
    transport.abort(mine)
    protocol.until_called("connection_lost")
    assert protocol.lost is mine
    with pytest.raises(TransportError, match="enough"):
        transport.sendto(b"x", LOCAL)


def test_modes(ends):
    peer = ends.plain()
    reader, received = ends.bound(mode="r")
    with pytest.raises(TransportError, match="not writable"):
        reader.sendto(b"x", peer.getsockname())
    peer.sendto(b"x", reader.get_extra_info("sockname"))
    received.until_called("datagram_received")
    writer, _ = ends.bound(mode="w")
    for call in (writer.pause_reading, writer.resume_reading):
        with pytest.raises(TransportError, match="not readable"):
            call()
    writer.sendto(b"y", peer.getsockname())
    assert peer.recv(10) == b"y"


# -- Flow control --


def test_pausing_to_read(ends):
    transport, protocol = ends.bound()
    peer = ends.plain()
    name = transport.get_extra_info("sockname")
    for _ in range(2):
        transport.pause_reading()
    peer.sendto(b"1", name)
    for _ in range(3):
        gevent.sleep(0)
    assert protocol.datagrams == []
    for _ in range(2):
        transport.resume_reading()
    protocol.until_called("datagram_received")
    assert protocol.datagrams[0][0] == b"1"


def test_a_pause_in_connection_made_and_in_datagram_received(ends):
    class Pauses(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.pause_reading()

    transport, protocol = ends.bound(Pauses())
    peer = ends.plain()
    for number in (b"1", b"2", b"3"):
        peer.sendto(number, transport.get_extra_info("sockname"))
    for count in range(3):
        for _ in range(3):
            gevent.sleep(0)
        assert len(protocol.datagrams) == count
        transport.resume_reading()
        protocol.until_called("datagram_received", count + 1)
    assert [data for data, _ in protocol.datagrams] == [b"1", b"2", b"3"]


class Jam:
    """Stands between a transport and its socket: while it is on, the kernel's buffer is full."""

    def __init__(self, transport, monkeypatch):
        self.on = True
        self.handle = transport._handle
        transport._handle = self
        self.held = []

    def __getattr__(self, name):
        return getattr(self.handle, name)

    def try_send(self, addr, data):
        if self.on:
            raise pyuv.error.UDPError(pyuv.errno.UV_EAGAIN, "try again")
        return self.handle.try_send(addr, data)

    def send(self, addr, data, callback):
        assert isinstance(data, bytes)
        self.held.append((addr, data, callback))

    def release(self, count=None):
        """Let the kernel take what is held, or *count* of it."""
        count = len(self.held) if count is None else count
        now, self.held = self.held[:count], self.held[count:]
        for addr, data, callback in now:
            self.handle.send(addr, data, callback)
        get_runner().kick()


def test_a_full_buffer(ends, monkeypatch):
    peer = ends.plain()
    transport, protocol = ends.bound()
    transport.set_write_buffer_limits(high=100, low=50)
    jam = Jam(transport, monkeypatch)
    data = bytearray(b"1" * 60)
    transport.sendto(data, peer.getsockname())
    data[:] = b"x" * 60  # it was copied
    assert transport.get_write_buffer_size() == 60
    assert "pause_writing" not in protocol.calls
    transport.sendto(b"2" * 40, peer.getsockname())
    assert "pause_writing" not in protocol.calls  # high itself is allowed
    transport.sendto(b"3", peer.getsockname())
    assert protocol.calls.count("pause_writing") == 1
    jam.on = False  # what comes next must not overtake
    transport.sendto(b"4", peer.getsockname())
    waiting = gevent.spawn(transport.wait_writable, 10)
    gevent.sleep(0)
    jam.release(1)
    protocol.until_called("resume_writing")
    waiting.get(timeout=10)
    assert transport.get_write_buffer_size() == 42
    jam.release()
    while transport.get_write_buffer_size():
        gevent.sleep(0)
    assert [peer.recv(100)[:1] for _ in range(4)] == [b"1", b"2", b"3", b"4"]
    transport.sendto(b"direct", peer.getsockname())
    assert peer.recv(100) == b"direct"
    assert jam.held == []


def test_an_error_of_a_queued_datagram(ends, monkeypatch):
    transport, protocol = ends.bound()
    jam = Jam(transport, monkeypatch)
    transport.sendto(b"x" * 70_000, ("127.0.0.1", 9))
    jam.release()
    protocol.until_called("error_received")
    assert protocol.errors[0].errno == errno.EMSGSIZE
    assert transport.get_write_buffer_size() == 0
    for wrong in (("localhost", 5), 5):
        with pytest.raises((TypeError, ValueError)):
            jam.handle.send(wrong, b"x", None)


def test_close_flushes_what_is_queued(ends, monkeypatch):
    peer = ends.plain()
    transport, protocol = ends.bound()
    jam = Jam(transport, monkeypatch)
    transport.sendto(b"last words", peer.getsockname())
    transport.close()
    with pytest.raises(TransportError, match="closed"):
        transport.sendto(b"x", peer.getsockname())
    assert transport.is_closing()
    assert not jam.handle.closed
    jam.release()
    protocol.until_called("connection_lost")
    assert peer.recv(100) == b"last words"
    assert protocol.lost is None


def test_close_has_a_deadline_and_abort_drops(ends, monkeypatch):
    peer = ends.plain()
    transport, protocol = ends.bound()
    Jam(transport, monkeypatch)
    transport.sendto(b"never", peer.getsockname())
    transport.close(0.01)
    protocol.until_called("connection_lost")
    assert protocol.lost.errno == errno.ETIMEDOUT
    transport, protocol = ends.bound()
    Jam(transport, monkeypatch)
    transport.sendto(b"never", peer.getsockname())
    transport.abort()
    protocol.until_called("connection_lost")
    assert protocol.lost is None


def test_the_loss_wakes_whoever_waits_to_write(ends, monkeypatch):
    transport, _protocol = ends.bound()
    transport.set_write_buffer_limits(0)
    Jam(transport, monkeypatch)
    transport.sendto(b"x", ("127.0.0.1", 9))
    waiting = gevent.spawn(transport.wait_writable)
    gevent.sleep(0)
    transport.abort()
    with pytest.raises(TransportError):
        waiting.get(timeout=10)


# -- Flow control of a socket that libuv knows as connected --


class FullSocket:
    """A duplicate whose buffer is full while `full` is set."""

    def __init__(self, real):
        self.real = real
        self.full = True

    def __getattr__(self, name):
        return getattr(self.real, name)

    def send(self, data):
        if self.full:
            raise BlockingIOError(errno.EAGAIN, "full")
        return self.real.send(data)


@pytest.fixture
def full(ends, monkeypatch):
    """(transport, protocol, peer, the full socket)."""
    peer = ends.plain()
    made = []
    make = DatagramTransport._make_duplicate

    def make_full(transport):
        made.append(FullSocket(make(transport)))
        return made[0]

    transport, protocol = ends.connected(peer.getsockname(), "before")
    monkeypatch.setattr(DatagramTransport, "_make_duplicate", make_full)
    transport.sendto(b"1")
    if not made:
        pytest.skip("this libuv does not tell connected sockets from others")
    return transport, protocol, peer, made[0]


def test_connected_a_full_buffer(full):
    transport, protocol, peer, duplicate = full
    transport.set_write_buffer_limits(high=10, low=5)
    data = bytearray(b"2" * 9)
    transport.sendto(data)
    data[:] = b"x" * 9
    assert transport.get_write_buffer_size() == 10
    assert "pause_writing" not in protocol.calls
    transport.sendto(b"3")
    assert "pause_writing" in protocol.calls
    waiting = gevent.spawn(transport.wait_writable, 10)
    for _ in range(3):  # said to be writable, and full again: it must not give up
        gevent.sleep(0)
    assert transport.get_write_buffer_size() == 11
    duplicate.full = False
    waiting.get(timeout=10)
    protocol.until_called("resume_writing")
    assert [peer.recv(100)[:1] for _ in range(3)] == [b"1", b"2", b"3"]
    transport.sendto(b"4")
    assert peer.recv(100) == b"4"
    assert transport.get_write_buffer_size() == 0
    duplicate.full = True  # and a second time
    transport.sendto(b"5")
    assert transport.get_write_buffer_size() == 1
    duplicate.full = False
    while transport.get_write_buffer_size():
        gevent.sleep(0)
    assert peer.recv(100) == b"5"


def test_connected_a_full_buffer_and_a_refusal(full):
    """libuv stops to look for room when the network says something."""
    transport, protocol, peer, duplicate = full
    address = peer.getsockname()
    peer.close()
    duplicate.real.send(b"nobody is there")
    protocol.until_called("error_received")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(address)
        again.settimeout(10)
        duplicate.full = False
        with gevent.Timeout(10):
            while transport.get_write_buffer_size():
                gevent.sleep(0)
        assert again.recv(100) == b"1"


def test_connected_close_flushes(full):
    transport, protocol, peer, duplicate = full
    transport.close()
    gevent.sleep(0)
    assert protocol.lost == "not yet"
    duplicate.full = False
    protocol.until_called("connection_lost")
    assert peer.recv(100) == b"1"
    assert protocol.lost is None


def test_connected_close_has_a_deadline(full):
    transport, protocol, _, _ = full
    transport.close(0.01)
    protocol.until_called("connection_lost")
    assert protocol.lost.errno == errno.ETIMEDOUT


def test_connected_abort_and_loss_of_the_hub(full):
    transport, protocol, _, _ = full
    transport.abort()
    protocol.until_called("connection_lost")
    assert protocol.lost is None


def test_connected_an_error_of_a_queued_datagram(full):
    transport, protocol, peer, duplicate = full
    transport.sendto(b"x" * 70_000)
    transport.sendto(b"3")
    duplicate.full = False
    protocol.until_called("error_received")
    assert protocol.errors[0].errno == errno.EMSGSIZE
    assert peer.recv(100) == b"1"
    assert peer.recv(100) == b"3"
    while transport.get_write_buffer_size():
        gevent.sleep(0)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_connected_ending_in_error_received(full, how):
    transport, _protocol, peer, duplicate = full

    class Ends(Recorder):
        def error_received(self, exc):
            super().error_received(exc)
            getattr(transport, how)()

    ends = Ends()
    transport.set_protocol(ends)
    transport.sendto(b"x" * 70_000)
    transport.sendto(b"last")
    duplicate.full = False
    ends.until_called("connection_lost")
    assert ends.lost is None
    assert peer.recv(100) == b"1"
    if how == "close":
        assert peer.recv(100) == b"last"


def test_a_really_full_buffer(ends):
    """A receiver that does not read, over a pair that blocks: Unix datagrams do.  libuv takes
    them as UDP, which is good enough to see the Poll work with a real kernel."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sent = 0
    near.setblocking(False)
    transport, protocol = ends.bound()
    transport._remote = ("127.0.0.1", 9)
    transport._duplicate = near
    while "pause_writing" not in protocol.calls:
        transport.sendto(b"%07d" % sent + b"x" * 8000)
        sent += 1
    far.setblocking(False)
    received = []
    with gevent.Timeout(10):
        while len(received) < sent:
            try:
                received.append(int(far.recv(10000)[:7]))
            except BlockingIOError:
                gevent.sleep(0)
    assert received == list(range(sent))
    protocol.until_called("resume_writing")
    assert transport.get_write_buffer_size() == 0
    transport.abort()
    far.close()
