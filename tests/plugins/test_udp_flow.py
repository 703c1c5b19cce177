"""Datagram flows: what belongs to one peer reaches one flow, and strangers take no more than they
may."""

from __future__ import annotations

import errno
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
import pyuv
from gevent import socket as gsocket
from gevent.socket import wait_read
from greentaps import Timeout, TransportError
from greentaps.hub import get_runner
from greentaps.testing import reported_errors, settle
from greentaps.transports import flow as flow_module
from greentaps.transports import options
from greentaps.transports.flow import Flow, FlowListener, connect_flow
from peers import LIBRARY, running
from peers.recorder import Recorder

HERE = "127.0.0.1"
FAMILIES = {"IPv4": (socket.AF_INET, HERE), "IPv6": (socket.AF_INET6, "::1")}


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def plain(family: str = "IPv4") -> gsocket.socket:
    """A plain socket of gevent's, bound."""
    number, address = FAMILIES[family]
    made = gsocket.socket(number, socket.SOCK_DGRAM)
    made.bind((address, 0))
    made.settimeout(20)
    return made


def started(flow: Flow, **options: Any) -> Recorder:
    recorder = Recorder(**options)
    flow.start(recorder)
    return recorder


@pytest.fixture
def peer(family: str) -> Iterator[gsocket.socket]:
    with plain(family) as made:
        yield made


@pytest.fixture
def flow(peer: gsocket.socket) -> Iterator[Flow]:
    made = connect_flow(peer.getsockname())
    yield made
    made.abort()


class Arrivals:
    """A FlowListener, and the flows that it has delivered."""

    def __init__(self, address: str = HERE, **options: Any) -> None:
        self.flows: list[Flow] = []
        self.came = gevent.event.Event()
        self.listener = FlowListener((address, 0), self.deliver, **options)
        self.address = self.listener.address

    def deliver(self, flow: Flow) -> None:
        self.flows.append(flow)
        self.came.set()

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(self, *exc: object) -> None:
        self.listener.close()
        for flow in self.flows:
            flow.abort()

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait for *condition*, which is asked as often as the loop turns."""
        while not condition():
            gevent.sleep(0.001)

    def next(self, count: int = 1) -> Flow:
        """The flow that is number *count* from the first on."""
        self.until(lambda: len(self.flows) >= count)
        return self.flows[count - 1]


# -- An initiator's flow --


@pytest.mark.rfc("UD-03", "UD-04", "UD-06", "O-07")
def test_opening_a_flow_sends_nothing(peer: gsocket.socket, flow: Flow) -> None:
    recorder = started(flow)
    assert recorder.calls == ["connection_made"]
    peer.settimeout(0.02)
    with pytest.raises(TimeoutError):
        peer.recvfrom(10)
    assert flow.get_extra_info("peername") == peer.getsockname()
    assert flow.get_extra_info("sockname")[1] > 0


@pytest.mark.rfc("UD-12", "UD-13")
def test_there_and_back(peer: gsocket.socket, flow: Flow) -> None:
    recorder = started(flow)
    for data in (b"one", b"", bytearray(b"two"), memoryview(b"three")):
        flow.write(data)
        received, address = peer.recvfrom(100)
        assert received == bytes(data)
        peer.sendto(b"re: " + received, address)
    recorder.until_called("datagram_received", 4)
    assert [data for data, _ in recorder.datagrams] == [
        b"re: one",
        b"re: ",
        b"re: two",
        b"re: three",
    ]
    assert {addr for _, addr in recorder.datagrams} == {peer.getsockname()}


def test_strangers_are_not_heard(peer: gsocket.socket, flow: Flow, family: str) -> None:
    recorder = started(flow)
    flow.write(b"hello")
    _, address = peer.recvfrom(100)
    with plain(family) as stranger:
        stranger.sendto(b"psst", address)
        peer.sendto(b"good", address)
        recorder.until_called("datagram_received")
    assert [data for data, _ in recorder.datagrams] == [b"good"]


@pytest.mark.rfc("UD-07")
def test_a_local_port_that_is_taken() -> None:
    with plain() as taken, pytest.raises(TransportError) as caught:
        connect_flow((HERE, 9), taken.getsockname())
    assert caught.value.errno == errno.EADDRINUSE


def test_a_local_address(peer: gsocket.socket, family: str) -> None:
    flow = connect_flow(peer.getsockname(), (FAMILIES[family][1], 0))
    started(flow)
    flow.write(b"x")
    assert peer.recvfrom(10)[1][:2] == flow.get_extra_info("sockname")[:2]
    flow.close()


@pytest.mark.rfc("UD-08", "LE-01", "P-17", "MS-09")
def test_a_refusal_is_an_error_received_and_no_failure(family: str) -> None:
    with plain(family) as gone:
        address = gone.getsockname()
    flow = connect_flow(address)
    recorder = started(flow)
    flow.write(b"anybody?")
    recorder.until_called("error_received")
    assert recorder.errors[0].errno == errno.ECONNREFUSED  # type: ignore[attr-defined]
    assert isinstance(recorder.errors[0], ConnectionRefusedError)
    # The flow lives: as soon as there is somebody, all is well.
    with gsocket.socket(FAMILIES[family][0], socket.SOCK_DGRAM) as back:
        back.bind(address)
        back.settimeout(20)
        flow.write(b"now?")
        assert back.recvfrom(10)[0] == b"now?"
    assert "connection_lost" not in recorder.calls
    flow.close()
    recorder.until_called("connection_lost")
    assert recorder.lost is None


def test_a_refusal_that_the_next_write_meets_belongs_to_the_one_before() -> None:
    """The kernel tells of it at whatever call comes first; the datagram goes all the same."""
    with plain() as gone:
        address = gone.getsockname()
    flow = connect_flow(address)
    recorder = started(flow)
    flow.write(b"refused")
    with gsocket.socket(type=socket.SOCK_DGRAM) as back:
        back.bind(address)
        back.settimeout(20)
        flow.write(b"heard")  # without a turn of the loop between the two
        assert back.recvfrom(10)[0] == b"heard"
    assert recorder.calls.count("error_received") == 1
    flow.close()


@pytest.mark.rfc("P-36", "ER-07", "SO-11")
def test_too_large_a_datagram_raises_at_once(peer: gsocket.socket, flow: Flow) -> None:
    recorder = started(flow)
    with pytest.raises(TransportError) as caught:
        flow.write(bytes(70_000))
    assert caught.value.errno == errno.EMSGSIZE
    assert caught.value.address == peer.getsockname()
    flow.write(b"small")
    assert peer.recvfrom(10)[0] == b"small"
    assert recorder.errors == []


@pytest.mark.rfc("P-36", "SO-13")
def test_the_largest_datagram_goes_and_one_byte_more_does_not(
    peer: gsocket.socket, flow: Flow
) -> None:
    started(flow)
    largest = flow.largest()
    flow.write(bytes(largest))
    assert len(peer.recvfrom(70_000)[0]) == largest
    with pytest.raises(TransportError):
        flow.write(bytes(largest + 1))


@pytest.mark.rfc("P-35", "SO-12", "MS-15")
def test_what_needs_no_fragments(flow: Flow) -> None:
    unfragmented = flow.largest_unfragmented()
    assert unfragmented is not None
    assert 1000 < unfragmented <= flow.largest()


@pytest.mark.parametrize("wrong", ["text", None, 5, [b"x"]])
def test_other_things_cannot_be_written(flow: Flow, wrong: Any) -> None:
    started(flow)
    with pytest.raises(TypeError):
        flow.write(wrong)


def test_a_flow_is_started_once_and_not_written_to_before(flow: Flow) -> None:
    with pytest.raises(TransportError):
        flow.write(b"early")
    started(flow)
    with pytest.raises(TransportError):
        flow.start(Recorder())


@pytest.mark.rfc("UD-14")
def test_the_end(peer: gsocket.socket, flow: Flow) -> None:
    recorder = started(flow)
    assert not flow.can_write_eof()
    flow.close()
    flow.close()
    flow.abort()
    recorder.until_called("connection_lost")
    assert recorder.calls == ["connection_made", "connection_lost"]
    assert recorder.lost is None
    with pytest.raises(TransportError):
        flow.write(b"x")
    assert flow.get_extra_info("peername") is None
    assert flow.get_extra_info("sockname") is None
    flow.wait_closed(timeout=5)


@pytest.mark.rfc("UD-15")
def test_abort_hands_over_its_error(flow: Flow) -> None:
    recorder = started(flow)
    boom = TransportError("boom")
    flow.abort(boom)
    recorder.until_called("connection_lost")
    assert recorder.lost is boom
    with pytest.raises(TransportError, match="boom"):
        flow.write(b"x")


def test_a_flow_that_was_never_started_ends_too(peer: gsocket.socket) -> None:
    for end in ("close", "abort"):
        flow = connect_flow(peer.getsockname())
        getattr(flow, end)()
        flow.wait_closed(timeout=5)


def test_what_came_before_the_start_comes_after_it(peer: gsocket.socket, flow: Flow) -> None:
    address = flow.get_extra_info("sockname")
    for number in range(3):
        peer.sendto(b"%d" % number, address)
    settle()
    recorder = started(flow)
    recorder.until_called("datagram_received", 3)
    assert [data for data, _ in recorder.datagrams] == [b"0", b"1", b"2"]


def test_pausing_holds_so_many_and_no_more(
    peer: gsocket.socket, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "MAX_HELD", 4)
    recorder = started(flow)
    flow.pause_reading()
    address = flow.get_extra_info("sockname")
    for number in range(6):
        peer.sendto(b"%d" % number, address)
    while flow.dropped < 2:
        gevent.sleep(0)
    flow.resume_reading()
    recorder.until_called("datagram_received", 4)
    peer.sendto(b"6", address)
    recorder.until_called("datagram_received", 5)
    assert [data for data, _ in recorder.datagrams] == [b"0", b"1", b"2", b"3", b"6"]
    assert flow.dropped == 2


def test_pausing_in_a_callback_keeps_the_order(peer: gsocket.socket, flow: Flow) -> None:
    class OneByOne(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.pause_reading()

    recorder = OneByOne()
    flow.start(recorder)
    address = flow.get_extra_info("sockname")
    for number in range(5):
        peer.sendto(b"%d" % number, address)
    for number in range(5):
        recorder.until_called("datagram_received", number + 1)
        settle(3)
        assert len(recorder.datagrams) == number + 1
        flow.resume_reading()
    assert [data for data, _ in recorder.datagrams] == [b"0", b"1", b"2", b"3", b"4"]


def test_an_exception_in_a_callback_ends_this_flow_alone(peer: gsocket.socket, flow: Flow) -> None:
    class Broken(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            raise KeyError(data)

    recorder = Broken()
    flow.start(recorder)
    with reported_errors() as reports:
        peer.sendto(b"x", flow.get_extra_info("sockname"))
        recorder.until_called("connection_lost")
    assert [type(error) for error in reports] == [KeyError]
    assert isinstance(recorder.lost, KeyError)


# -- Marks on the wire --


def marks(peer: gsocket.socket) -> tuple[bytes, int]:
    """The next datagram, and the DSCP that it came with."""
    wait_read(peer.fileno(), 20)
    data, ancillary, _, _ = peer.recvmsg(100, 100)
    ((_, _, value),) = ancillary
    return data, int.from_bytes(value, sys.byteorder) >> 2


def want_marks(peer: gsocket.socket) -> None:
    if peer.family == socket.AF_INET6:
        peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    else:
        peer.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)


@pytest.mark.rfc("P-24", "SO-05", "UD-12", "MS-18")
@pytest.mark.parametrize("listening", [False, True])
def test_the_mark_of_one_datagram_is_its_own(
    peer: gsocket.socket, flow: Flow, family: str, listening: bool
) -> None:
    want_marks(peer)
    with Arrivals(FAMILIES[family][1]) as arrivals:
        if listening:
            peer.sendto(b"hello", arrivals.address)
            flow = arrivals.next()
        started(flow)
        options.set_capacity(flow.get_extra_info("handle"), 10)
        flow.write(b"plain")
        assert marks(peer) == (b"plain", 10)
        flow.write_marked(b"marked", dscp=46)
        assert marks(peer) == (b"marked", 46)
        flow.write(b"plain again")
        assert marks(peer) == (b"plain again", 10)
        flow.write_marked(b"zero", dscp=0)
        assert marks(peer) == (b"zero", 0)
        flow.write_marked(b"none")
        assert marks(peer) == (b"none", 10)


def test_marks_are_restored_after_a_failure(peer: gsocket.socket, flow: Flow) -> None:
    want_marks(peer)
    started(flow)
    with pytest.raises(TransportError):
        flow.write_marked(bytes(70_000), dscp=46, dont_fragment=True)
    flow.write(b"x")
    assert marks(peer) == (b"x", 0)
    flow.write_marked(b"y", dont_fragment=True)
    assert marks(peer) == (b"y", 0)


FRAGMENTS = """
import socket, subprocess, sys
from greentaps.errors import TransportError
from greentaps.transports.flow import connect_flow
import gevent

subprocess.run(["ip", "link", "set", "lo", "mtu", "1500", "up"], check=True)
for family, address, headers in ((2, "127.0.0.1", 28), (10, "::1", 48)):
    peer = socket.socket(family, socket.SOCK_DGRAM)
    peer.bind((address, 0))
    peer.settimeout(10)
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    raw.bind(("lo", 0x0800))
    raw.settimeout(10)
    flow = connect_flow(peer.getsockname())

    class Protocol:
        def connection_made(self, transport): pass
        def connection_lost(self, exc): pass
        def error_received(self, exc): print("unexpected", exc)

    flow.start(Protocol())
    print(address, "unfragmented", flow.largest_unfragmented() + headers)
    try:
        flow.write_marked(bytes(4000), dont_fragment=True)
    except TransportError as error:
        print(address, "refused", error.errno)
    flow.write(bytes(4000))
    print(address, "fragmented", len(peer.recv(5000)))
    fit = flow.largest_unfragmented()
    flow.write_marked(b"y" * fit, dont_fragment=True)
    print(address, "fits", len(peer.recv(5000)))
    if family == 2:
        flags = []
        while True:
            packet = raw.recv(2000)[14:]
            if packet.endswith(b"y" * 100):
                print(address, "DF", bool(packet[6] & 0x40))
                break
    flow.abort()
    peer.close()
    raw.close()
    gevent.sleep(0)
"""


@pytest.mark.netns
@pytest.mark.rfc("P-50", "P-35", "SO-11", "SO-12", "MS-14", "MS-15")
def test_what_must_not_be_fragmented_is_not() -> None:
    """In a network of its own whose loopback has the MTU of an Ethernet."""
    with running("unshare", "-n", "true", errors=True) as probe:
        if probe.wait():
            pytest.skip("this process may not make network namespaces")
    with running(
        "unshare", "-n", sys.executable, "-c", FRAGMENTS,
        env={"PYTHONPATH": str(LIBRARY)}, errors=True,
    ) as program:  # fmt: skip
        lines = program.read().decode().splitlines()
    assert lines == [
        "127.0.0.1 unfragmented 1500",
        f"127.0.0.1 refused {errno.EMSGSIZE}",
        "127.0.0.1 fragmented 4000",
        "127.0.0.1 fits 1472",
        "127.0.0.1 DF True",
        "::1 unfragmented 1500",
        f"::1 refused {errno.EMSGSIZE}",
        "::1 fragmented 4000",
        "::1 fits 1452",
    ]


@pytest.mark.netns
@pytest.mark.rfc("UD-07")
def test_without_a_route_there_is_no_flow() -> None:
    code = (
        "from greentaps.transports.flow import connect_flow\n"
        "for address in ('192.0.2.1', '2001:db8::1'):\n"
        "    try:\n"
        "        connect_flow((address, 9))\n"
        "    except OSError as error:\n"
        "        print(error.errno, error.address[0])\n"
    )
    with running("unshare", "-n", "true", errors=True) as probe:
        if probe.wait():
            pytest.skip("this process may not make network namespaces")
    with running(
        "unshare", "-n", sys.executable, "-W", "error", "-c", code,
        env={"PYTHONPATH": str(LIBRARY)}, errors=True,
    ) as program:  # fmt: skip
        lines = program.read().decode().splitlines()
    assert lines[0] == f"{errno.ENETUNREACH} 192.0.2.1"
    assert lines[1].endswith("2001:db8::1")


# -- A listener's flows --


@pytest.mark.rfc("UD-09", "UD-10", "L-02")
def test_each_peer_has_a_flow_of_its_own(family: str) -> None:
    with Arrivals(FAMILIES[family][1]) as arrivals, plain(family) as one, plain(family) as two:
        one.sendto(b"1a", arrivals.address)
        two.sendto(b"2a", arrivals.address)
        arrivals.next(2)
        recorders = [started(flow) for flow in arrivals.flows]
        one.sendto(b"1b", arrivals.address)
        two.sendto(b"2b", arrivals.address)
        for recorder in recorders:
            recorder.until_called("datagram_received", 2)
        for flow, recorder, sock, name in zip(
            arrivals.flows, recorders, (one, two), (b"1", b"2"), strict=True
        ):
            assert [data for data, _ in recorder.datagrams] == [name + b"a", name + b"b"]
            assert flow.get_extra_info("peername")[:2] == sock.getsockname()[:2]
            flow.write(b"to " + name)
            data, address = sock.recvfrom(100)
            assert (data, address[:2]) == (b"to " + name, arrivals.address[:2])
        assert len(arrivals.flows) == 2


def test_the_first_datagram_waits_for_the_start() -> None:
    with Arrivals() as arrivals, plain() as peer:
        for number in range(3):
            peer.sendto(b"%d" % number, arrivals.address)
        flow = arrivals.next()
        settle()
        recorder = started(flow)
        recorder.until_called("datagram_received", 3)
        assert recorder.calls[0] == "connection_made"
        assert [data for data, _ in recorder.datagrams] == [b"0", b"1", b"2"]


@pytest.mark.rfc("L-01")
def test_only_who_is_admitted_has_a_flow() -> None:
    with plain() as good, plain() as bad:
        wanted = good.getsockname()
        with Arrivals(admit=lambda address: address == wanted) as arrivals:
            bad.sendto(b"me?", arrivals.address)
            good.sendto(b"me!", arrivals.address)
            recorder = started(arrivals.next())
            recorder.until_called("datagram_received")
            assert [data for data, _ in recorder.datagrams] == [b"me!"]
            assert len(arrivals.flows) == 1
            assert arrivals.listener.refused == 1


def test_no_more_flows_than_allowed_and_again_when_one_ends() -> None:
    with Arrivals(max_flows=2) as arrivals, plain() as one, plain() as two, plain() as three:
        for peer in (one, two, three):
            peer.sendto(b"x", arrivals.address)
        arrivals.until(lambda: arrivals.listener.refused == 1)
        assert len(arrivals.flows) == 2
        started(arrivals.flows[0])
        arrivals.flows[0].close()
        three.sendto(b"again", arrivals.address)
        assert arrivals.next(3).get_extra_info("peername") == three.getsockname()
        # Who was let go may come back, as somebody new.
        arrivals.flows[1].abort()
        one.sendto(b"me again", arrivals.address)
        recorder = started(arrivals.next(4))
        recorder.until_called("datagram_received")
        assert recorder.datagrams[0][0] == b"me again"


def test_pause_drops_strangers_and_spares_friends() -> None:
    with Arrivals() as arrivals, plain() as friend, plain() as stranger:
        friend.sendto(b"1", arrivals.address)
        recorder = started(arrivals.next())
        arrivals.listener.pause()
        stranger.sendto(b"x", arrivals.address)
        friend.sendto(b"2", arrivals.address)
        recorder.until_called("datagram_received", 2)
        assert len(arrivals.flows) == 1
        assert arrivals.listener.refused == 1
        arrivals.listener.resume()
        stranger.sendto(b"y", arrivals.address)
        newcomer = started(arrivals.next(2))
        newcomer.until_called("datagram_received")
        assert [data for data, _ in newcomer.datagrams] == [b"y"]


@pytest.mark.parametrize("start", [True, False])
def test_the_silent_are_forgotten(start: bool) -> None:
    with Arrivals(idle_timeout=0.16) as arrivals, plain() as silent, plain() as lively:
        silent.sendto(b"x", arrivals.address)
        quiet = arrivals.next()
        lively.sendto(b"x", arrivals.address)
        kept = started(arrivals.next(2))
        recorder = started(quiet) if start else None
        while not quiet.is_closing():
            lively.sendto(b"I am here", arrivals.address)
            gevent.sleep(0.005)
        quiet.wait_closed(timeout=5)
        if recorder is not None:
            assert recorder.lost is None
        assert "connection_lost" not in kept.calls
        silent.sendto(b"back", arrivals.address)
        assert arrivals.next(3).get_extra_info("peername") == silent.getsockname()


def test_one_that_is_written_to_is_not_silent() -> None:
    with Arrivals(idle_timeout=0.08) as arrivals, plain() as one, plain() as two:
        one.sendto(b"x", arrivals.address)
        two.sendto(b"x", arrivals.address)
        written, silent = arrivals.next(1), arrivals.next(2)
        started(written)
        started(silent)
        while not silent.is_closing():
            written.write(b"are you there?")
            gevent.sleep(0.005)
        assert not written.is_closing()


@pytest.mark.rfc("L-04")
def test_after_the_close_live_flows_go_on_until_they_end() -> None:
    with Arrivals() as arrivals, plain() as friend, plain() as stranger:
        friend.sendto(b"1", arrivals.address)
        flow = arrivals.next()
        recorder = started(flow)
        arrivals.listener.close()
        arrivals.listener.close()
        stranger.sendto(b"x", arrivals.address)
        friend.sendto(b"2", arrivals.address)
        recorder.until_called("datagram_received", 2)
        flow.write(b"still here")
        assert friend.recvfrom(100)[0] == b"still here"
        assert len(arrivals.flows) == 1
        flow.close()
        recorder.until_called("connection_lost")
        arrivals.until(lambda: _is_free(arrivals.address))


def _is_free(address: tuple[Any, ...]) -> bool:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(address)
        except OSError:
            return False
        return True


def test_the_port_is_free_after_a_close_without_flows() -> None:
    with Arrivals() as arrivals:
        assert not _is_free(arrivals.address)
        arrivals.listener.close()
        arrivals.until(lambda: _is_free(arrivals.address))


def test_a_port_that_is_taken() -> None:
    with plain() as taken, pytest.raises(TransportError) as caught:
        FlowListener(taken.getsockname(), print)
    assert caught.value.errno == errno.EADDRINUSE


def test_too_large_an_answer_raises_and_harms_nobody() -> None:
    with Arrivals() as arrivals, plain() as peer:
        peer.sendto(b"x", arrivals.address)
        flow = arrivals.next()
        started(flow)
        with pytest.raises(TransportError) as caught:
            flow.write(bytes(70_000))
        assert caught.value.errno == errno.EMSGSIZE
        flow.write(b"fits")
        assert peer.recvfrom(100)[0] == b"fits"


def test_a_peer_that_is_gone_harms_nobody() -> None:
    with Arrivals() as arrivals, plain() as friend:
        with plain() as gone:
            gone.sendto(b"x", arrivals.address)
            dead = arrivals.next()
            started(dead)
        for _ in range(3):
            dead.write(b"anybody?")
            settle(3)
        friend.sendto(b"x", arrivals.address)
        flow = arrivals.next(2)
        started(flow)
        flow.write(b"hello")
        assert friend.recvfrom(100)[0] == b"hello"


@pytest.mark.parametrize("who", ["deliver", "admit"])
def test_an_exception_about_one_newcomer_spares_the_others(who: str) -> None:
    with plain() as bad, plain() as good:
        unwanted = bad.getsockname()

        class Picky(Arrivals):
            def deliver(self, flow: Flow) -> None:
                if who == "deliver" and flow.get_extra_info("peername") == unwanted:
                    raise KeyError("deliver")
                super().deliver(flow)

        def admit(address: Any) -> bool:
            if who == "admit" and address == unwanted:
                raise KeyError("admit")
            return True

        with Picky(admit=admit) as arrivals:
            with reported_errors() as reports:
                bad.sendto(b"x", arrivals.address)
                good.sendto(b"y", arrivals.address)
                flow = arrivals.next()
            assert [error.args for error in reports] == [(who,)]
            recorder = started(flow)
            recorder.until_called("datagram_received")
            assert flow.get_extra_info("peername") == good.getsockname()


def test_an_exception_in_one_flow_spares_the_others() -> None:
    class Broken(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            raise KeyError(data)

    with Arrivals() as arrivals, plain() as one, plain() as two:
        one.sendto(b"x", arrivals.address)
        broken = Broken()
        with reported_errors() as reports:
            arrivals.next().start(broken)
            broken.until_called("connection_lost")
        assert [type(error) for error in reports] == [KeyError]
        two.sendto(b"y", arrivals.address)
        recorder = started(arrivals.next(2))
        recorder.until_called("datagram_received")


@pytest.mark.peer
def test_socat_as_client() -> None:
    with (
        Arrivals() as arrivals,
        running("socat", "-", f"UDP4:{HERE}:{arrivals.address[1]}") as socat,
    ):
        socat.say(b"from socat\n")
        flow = arrivals.next()
        recorder = started(flow)
        recorder.until_called("datagram_received")
        assert recorder.datagrams[0][0] == b"from socat\n"
        flow.write(b"from us\n")
        assert socat.line() == "from us"


def test_the_end_of_the_hub_ends_all() -> None:
    """In a thread, whose hub is destroyed."""
    found: dict[str, Any] = {}

    def elsewhere() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.bind((HERE, 0))
            with Arrivals() as arrivals:
                peer.sendto(b"x", arrivals.address)
                theirs = arrivals.next()
                ours = connect_flow(peer.getsockname())
                recorders = [started(theirs), started(ours)]
                waiter = gevent.spawn(_lost, theirs)
                gevent.sleep(0)
                gevent.get_hub().destroy(destroy_loop=True)
                found["lost"] = [recorder.lost for recorder in recorders]
                found["states"] = [theirs.is_closing(), ours.is_closing()]
                found["waiter"] = waiter.dead
                found["free"] = _is_free(arrivals.address)
                arrivals.flows.clear()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(20)
    assert [type(error) for error in found["lost"]] == [TransportError] * 2
    assert found["states"] == [True, True]
    assert found["free"]


def _lost(flow: Flow) -> None:
    flow.wait_closed()


# -- Options --


def test_options_of_a_closed_handle(flow: Flow) -> None:
    handle = flow.get_extra_info("handle")
    flow.abort()
    flow.wait_closed()
    for call in (
        lambda: options.set_capacity(handle, 1),
        lambda: options.set_dont_fragment(handle, True),
        lambda: options.set_user_timeout(handle, 1.0),
        lambda: options.set_keep_alive(handle, True, 1.0),
    ):
        with pytest.raises(OSError, match="no socket"):
            call()
    assert options.unacknowledged(handle) is None


@pytest.mark.rfc("SO-02", "SO-04")
@pytest.mark.parametrize(
    ("seconds", "timeout", "idle"),
    [(0.0001, 1, 1), (1.5, 1500, 2), (1e12, 2**31 - 1, 32767), (float("inf"), 2**31 - 1, 32767)],
)
def test_times_of_tcp_are_within_what_the_kernel_takes(
    seconds: float, timeout: int, idle: int
) -> None:
    with socket.socket() as listener:
        listener.bind((HERE, 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            handle = pyuv.TCP(get_runner().loop)
            handle.open(client.detach())
    try:
        options.set_user_timeout(handle, seconds)
        options.set_keep_alive(handle, True, seconds)
        with options.socket_of(handle) as here:
            assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == timeout
            assert here.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle
            assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == idle
        options.set_user_timeout(handle, None)
        options.set_keep_alive(handle, False)
        with options.socket_of(handle) as here:
            assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
            assert not here.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert options.unacknowledged(handle) == 0
    finally:
        get_runner().discard(handle)


def test_waiting_for_a_flow_that_lives(flow: Flow) -> None:
    started(flow)
    with pytest.raises(Timeout):
        flow.wait_closed(timeout=0.01)
    flow.wait_writable(timeout=5)


def test_a_flow_that_starts_while_the_socket_is_full_is_paused_and_resumed() -> None:
    with Arrivals() as arrivals, plain() as peer, plain() as other:
        peer.sendto(b"x", arrivals.address)
        first = started(arrivals.next())
        arrivals.listener._transport._pause_writing()
        other.sendto(b"x", arrivals.address)
        flow = arrivals.next(2)
        second = started(flow)
        assert first.calls.count("pause_writing") == second.calls.count("pause_writing") == 1
        with pytest.raises(Timeout):
            flow.wait_writable(0)
        arrivals.listener._transport._resume_writing()
        assert first.calls.count("resume_writing") == second.calls.count("resume_writing") == 1
        flow.wait_writable(0)


def test_the_size_of_what_is_held_is_bounded() -> None:
    with Arrivals() as arrivals, plain() as peer:
        for _ in range(20):
            peer.sendto(bytes(60_000), arrivals.address)
            gevent.sleep(0.001)
        flow = arrivals.next()
        arrivals.until(lambda: len(flow._held) + flow.dropped == 20)
        assert sum(map(len, flow._held)) == 240_000
        recorder = started(flow)
        recorder.until_called("datagram_received", 4)
        flow.pause_reading()
        for _ in range(20):
            peer.sendto(bytes(60_000), arrivals.address)
            gevent.sleep(0.001)
        arrivals.until(lambda: len(flow._held) + flow.dropped == 36)
        assert len(flow._held) == 4


def test_writing_in_the_moment_between_the_end_of_the_socket_and_the_end_of_the_flow(
    peer: gsocket.socket, flow: Flow
) -> None:
    recorder = started(flow)
    flow._lower.abort(TransportError("the end", errno.ENETDOWN))  # type: ignore[attr-defined]
    with pytest.raises(TransportError, match="the end"):
        flow.write(b"x")
    recorder.until_called("connection_lost")
    with pytest.raises(TransportError, match="the end"):
        flow.write_marked(b"x", dscp=46)


def test_writing_to_a_peer_in_the_moment_between_the_end_of_the_socket_and_the_end_of_the_flow(
    peer: gsocket.socket,
) -> None:
    with Arrivals(address=peer.getsockname()[0]) as arrivals:
        peer.sendto(b"x", arrivals.address)
        flow = arrivals.next()
        recorder = started(flow)
        arrivals.listener._transport.abort(TransportError("the end", errno.ENETDOWN))
        with pytest.raises(TransportError, match="the end"):
            flow.write(b"x")
        recorder.until_called("connection_lost")
        with pytest.raises(TransportError, match="the end"):
            flow.write_marked(b"x", dscp=46)
