"""Message Framers through the public API: RFC 9622 section 9.1.2 and RFC 9623 section 6.

What framers do among themselves is proved without a network in ``tests/framers``; here it is
proved that Preconnections, Connections and Listeners let them do it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from conftest import Certificates
from greentaps import (
    Connection,
    DelimiterFramer,
    EstablishmentError,
    Framer,
    LengthPrefixFramer,
    MessageContext,
    Preconnection,
    Reason,
    ReceiveError,
    RemoteEndpoint,
    SendError,
    Timeout,
    TlvFramer,
    TransportProperties,
)
from greentaps.framers import DeframingError, FramerLink
from greentaps.framers.websocket import WebSocketFramer
from taps.helpers import (
    local,
    pair,
    plain_client,
    plain_listener,
    port_of,
    read_all,
    read_exactly,
    remote,
    until,
    with_framers,
    with_plain_peer,
)

WAIT = 10  # seconds


@contextlib.contextmanager
def datagrams(*framers: Framer) -> Iterator[tuple[Connection, Connection]]:
    """A client's and a server's Connection over UDP; the first Message has been exchanged."""
    properties = TransportProperties("unreliable-datagram")
    listening = with_framers(Preconnection(local(), transport_properties=properties), framers)
    with listening.listen() as listener:
        client = with_framers(
            Preconnection(
                remote_endpoint=remote(port_of(listener)), transport_properties=properties
            ),
            framers,
        ).initiate(timeout=WAIT)
        client.send(b"hello")
        server = listener.accept(timeout=WAIT)
        assert server.receive(timeout=WAIT).data == b"hello"
        try:
            yield client, server
        finally:
            client.abort()
            server.abort()


# -- RFC 9622 --


@pytest.mark.rfc("F-01", "F-08", "MF-01", "DS-01", "DS-02")
@pytest.mark.parametrize("stack", ["tcp", "tls"])
def test_a_framer_gives_messages_to_a_stream(stack: str, certificates: Certificates) -> None:
    with pair(stack, certificates, LengthPrefixFramer()) as (client, server):
        for data in (b"one", b"", b"x" * 1_000_000):
            sender = gevent.spawn(client.send, data)
            message = server.receive(timeout=WAIT)
            sender.get(timeout=WAIT)
            assert message.data == data
            assert message.end_of_message
        client.send(b"in ", None, False)
        client.send(b"parts")
        assert server.receive(timeout=WAIT).data == b"in parts"


@pytest.mark.rfc("F-02")
def test_one_framer_serves_several_preconnections() -> None:
    framer = TlvFramer(1, 1)
    with (
        with_plain_peer(framer) as (first, first_peer),
        with_plain_peer(framer) as (second, second_peer),
    ):
        first_peer.sendall(b"\x01\x03o")
        second_peer.sendall(b"\x02\x03two")
        assert second.receive(timeout=WAIT).data == b"two"
        first_peer.sendall(b"ne")
        message = first.receive(timeout=WAIT)
        assert message.data == b"one"
        assert message.context.get(framer, "type") == 1


@pytest.mark.rfc("F-03", "TT-17")
def test_the_framer_added_last_is_the_first_to_send_and_the_last_to_receive() -> None:
    with with_plain_peer(LengthPrefixFramer(1), DelimiterFramer(b"!")) as (connection, peer):
        connection.send(b"msg")
        assert read_exactly(peer, 5) == b"\x04msg!"
        peer.sendall(b"\x06one!tw\x02o!")
        assert connection.receive(timeout=WAIT).data == b"one"
        assert connection.receive(timeout=WAIT).data == b"two"


class Greeting(Framer):
    """Says *hello* when it starts and *goodbye* when it stops; lines otherwise.

    It is ready when the peer has said *wanted*, if anything is wanted, and fails when the peer
    says ``no``.
    """

    def __init__(self, hello: bytes = b"", goodbye: bytes = b"", wanted: bytes = b"") -> None:
        self.hello = hello
        self.goodbye = goodbye
        self.wanted = wanted
        self.starts = 0
        self.stops = 0

    def start(self, link: FramerLink) -> None:
        self.starts += 1
        link.state = bool(self.wanted)
        if self.wanted:
            link.delay_ready()
        if self.hello:
            link.send(self.hello)

    def stop(self, link: FramerLink) -> None:
        self.stops += 1
        link.send(self.goodbye)

    def new_sent_message(
        self, link: FramerLink, data: Any, context: Any, end_of_message: bool
    ) -> None:
        link.send(data + b"\n" if end_of_message else data)

    def handle_received_data(self, link: FramerLink) -> None:
        at = link.find(b"\n")
        if at < 0:
            return
        line = link.take(at + 1) or b""
        if link.state:
            if line == b"no\n":
                link.fail_connection(DeframingError("the peer said no"))
            elif line == self.wanted:
                link.state = False
                link.make_connection_ready()
        else:
            link.deliver(link.new_context().add(self, "length", at), line[:-1])


@pytest.mark.rfc("F-04", "MF-02")
def test_bytes_before_the_first_message() -> None:
    with with_plain_peer(Greeting(b"hello\n")) as (connection, peer):
        assert read_exactly(peer, 6) == b"hello\n"
        connection.send(b"first")
        assert read_exactly(peer, 6) == b"first\n"


@pytest.mark.rfc("F-05", "DS-01")
def test_over_datagrams_messages_stay_whole_and_several_may_share_one() -> None:
    with datagrams(LengthPrefixFramer(2)) as (client, server):
        for data in (b"one", b"", b"x" * 20_000):
            client.send(data)
            assert server.receive(timeout=WAIT).data == data
        server.send(b"in ", None, False)
        server.send(b"parts")
        assert client.receive(timeout=WAIT).data == b"in parts"
    with datagrams() as (client, server):
        client.send(b"\0\x01a\0\x02bc")
        assert server.receive(timeout=WAIT).data == b"\0\x01a\0\x02bc"


class Packing(LengthPrefixFramer):
    """Two Messages a datagram, but for the first."""

    def start(self, link: FramerLink) -> None:
        link.state = None

    def new_sent_message(
        self, link: FramerLink, data: Any, context: Any, end_of_message: bool
    ) -> None:
        encoded = bytes([0, len(data)]) + data
        if data == b"hello":
            link.send(encoded)
        elif link.state is None:
            link.state = encoded
        else:
            first, link.state = link.state, None
            link.send(first)
            link.send(encoded)


@pytest.mark.rfc("F-05")
def test_a_framer_may_pack_several_messages_into_a_datagram() -> None:
    with datagrams(Packing(2)) as (client, server):
        client.send(b"one")
        with pytest.raises(Timeout):
            server.receive(timeout=0.05)
        client.send(b"two")
        assert server.receive(timeout=WAIT).data == b"one"
        assert server.receive(timeout=WAIT).data == b"two"


@pytest.mark.rfc("F-05", "RV-13")
def test_a_datagram_that_is_not_framed_harms_no_other() -> None:
    class Careless(LengthPrefixFramer):
        """Sends ``bad`` without its end."""

        def new_sent_message(
            self, link: FramerLink, data: Any, context: Any, end_of_message: bool
        ) -> None:
            if data == b"bad":
                link.send(b"\0\x03ba")
            else:
                super().new_sent_message(link, data, context, end_of_message)

    with datagrams(Careless(2)) as (client, server):
        client.send(b"bad")
        client.send(b"good")
        with contextlib.suppress(ReceiveError):  # it may be told, or not
            assert server.receive(timeout=WAIT).data == b"good"
            return
        assert server.receive(timeout=WAIT).data == b"good"


@pytest.mark.rfc("F-06", "PC-04")
def test_a_framer_that_is_added_later_does_not_touch_what_is_there() -> None:
    with plain_listener() as listener:
        preconnection = Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
        connection = preconnection.initiate(timeout=WAIT)
        peer, _ = listener.accept()
        preconnection.add_framer(LengthPrefixFramer(1))
        later = preconnection.initiate(timeout=WAIT)
        later_peer, _ = listener.accept()
    with peer, later_peer:
        connection.send(b"plain")
        later.send(b"framed")
        assert read_exactly(peer, 5) == b"plain"
        assert read_exactly(later_peer, 7) == b"\x06framed"
        connection.abort()
        later.abort()
    with pytest.raises(TypeError):
        Preconnection().add_framer("a framer")  # type: ignore[arg-type]


@pytest.mark.rfc("F-07", "MC-03", "SH-18")
def test_metadata_go_with_the_message(certificates: Certificates) -> None:
    low, high = TlvFramer(), TlvFramer()
    with pair("tcp", certificates, low, high) as (client, server):
        client.send(b"x", MessageContext().add(low, "type", 1).add(high, "type", 2))
        context = server.receive(timeout=WAIT).context
        assert context.get(low, "type") == 1
        assert context.get(high, "type") == 2
        assert context.get(TlvFramer(), "type") is None
        with pytest.raises(SendError) as caught:
            client.send(b"x", MessageContext().add(high, "type", 256))
        assert caught.value.reason is Reason.INVALID_MESSAGE_PROPERTIES
        client.send(b"y", MessageContext().add(high, "type", 3))
        assert server.receive(timeout=WAIT).data == b"y"


# -- RFC 9623 --


@pytest.mark.rfc("MF-03")
def test_a_framer_delays_ready() -> None:
    with plain_listener() as listener:
        preconnection = Preconnection(remote_endpoint=remote(listener.getsockname()[1])).add_framer(
            Greeting(b"hello\n", wanted=b"welcome\n")
        )
        with pytest.raises((Timeout, EstablishmentError)):
            preconnection.initiate(timeout=0.2)
        with listener.accept()[0]:
            pass
        establishing = gevent.spawn(preconnection.initiate, timeout=WAIT)
        with listener.accept()[0] as peer:
            assert read_exactly(peer, 6) == b"hello\n"
            assert not establishing.ready()
            # What follows in the same piece is a Message already.
            peer.sendall(b"welcome\nfirst\n")
            connection = establishing.get(timeout=WAIT)
            message = connection.receive(timeout=WAIT)
            assert message.data == b"first"
            connection.abort()


@pytest.mark.rfc("MF-03", "F-07")
def test_an_early_message_has_its_metadata() -> None:
    framer = Greeting(wanted=b"welcome\n")
    with plain_listener() as listener:
        establishing = gevent.spawn(
            Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
            .add_framer(framer)
            .initiate,
            timeout=WAIT,
        )
        with listener.accept()[0] as peer:
            peer.sendall(b"welcome\nfirst\n")
            connection = establishing.get(timeout=WAIT)
            assert connection.receive(timeout=WAIT).context.get(framer, "length") == 5
            connection.abort()


@pytest.mark.rfc("MF-03", "LS-04")
def test_a_listener_waits_for_the_framers_too() -> None:
    framers = (Greeting(b"220\n", wanted=b"EHLO\n"),)
    with (
        with_framers(Preconnection(local()), framers).listen() as listener,
        plain_client(port_of(listener)) as peer,
    ):
        assert read_exactly(peer, 4) == b"220\n"
        with pytest.raises(Timeout):
            listener.accept(timeout=0.05)
        peer.sendall(b"EHLO\n")
        connection = listener.accept(timeout=WAIT)
        connection.abort()


@pytest.mark.rfc("MF-04", "MF-05")
def test_last_words_come_before_closed() -> None:
    framer = Greeting(goodbye=b"QUIT\n")
    with with_plain_peer(framer) as (connection, peer):
        connection.send(b"data")
        closing = gevent.spawn(connection.close)
        assert read_all(peer) == b"data\nQUIT\n"
        peer.close()
        closing.get(timeout=WAIT)
        assert framer.stops == 1


class Asking(DelimiterFramer):
    """Is closed when the peer has said ``bye``."""

    def stop(self, link: FramerLink) -> None:
        link.send(b"bye?\n")
        link.delay_closed()

    def _received(self, link: FramerLink, length: int) -> None:
        if link.parse(length, length) == b"bye":
            link.advance_receive_cursor(length + 1)
            link.make_connection_closed()
        else:
            super()._received(link, length)


@pytest.mark.rfc("MF-05")
def test_a_framer_delays_closed() -> None:
    with with_plain_peer(Asking()) as (connection, peer):
        closing = gevent.spawn(connection.close)
        assert read_exactly(peer, 5) == b"bye?\n"
        gevent.sleep(0)
        assert not closing.ready()
        peer.sendall(b"data\nbye\n")
        assert read_all(peer) == b""
        peer.close()
        closing.get(timeout=WAIT)


@pytest.mark.rfc("MF-05")
def test_a_full_inbox_does_not_keep_a_framer_from_its_peers_last_words() -> None:
    with with_plain_peer(Asking(max_length=2**20)) as (connection, peer):
        flood = gevent.spawn(peer.sendall, (b"x" * 1000 + b"\n") * 20_000)
        until(lambda: connection._paused)
        closing = gevent.spawn(connection.close)
        flood.get(timeout=WAIT)
        assert read_exactly(peer, 5) == b"bye?\n"
        peer.sendall(b"bye\n")
        assert read_all(peer) == b""
        peer.close()
        closing.get(timeout=WAIT)


@pytest.mark.rfc("MF-06", "DN-09", "TT-18")
def test_a_framer_that_refuses_a_candidate_leaves_the_others() -> None:
    framer = Greeting(wanted=b"welcome\n")
    with plain_listener() as bad, plain_listener() as good:
        ends = [remote(listener.getsockname()[1]) for listener in (bad, good)]
        establishing = gevent.spawn(
            Preconnection(remote_endpoint=ends).add_framer(framer).initiate, timeout=WAIT
        )
        with bad.accept()[0] as refusing:
            refusing.sendall(b"no\n")
            with good.accept()[0] as peer:
                peer.sendall(b"welcome\n")
                connection = establishing.get(timeout=WAIT)
                assert connection.remote_endpoint.port == good.getsockname()[1]
                assert framer.starts == 2
                connection.abort()


@pytest.mark.rfc("MF-06", "DN-09")
def test_no_candidate_is_left() -> None:
    with plain_listener() as listener:
        establishing = gevent.spawn(
            Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
            .add_framer(Greeting(wanted=b"welcome\n"))
            .initiate,
            timeout=WAIT,
        )
        with listener.accept()[0] as peer:
            peer.sendall(b"no\n")
            with pytest.raises(EstablishmentError) as caught:
                establishing.get(timeout=WAIT)
    assert "the peer said no" in str(caught.value)


@pytest.mark.rfc("MF-06", "RV-13")
def test_a_framer_fails_an_established_connection() -> None:
    with with_plain_peer(LengthPrefixFramer(max_length=10)) as (connection, peer):
        peer.sendall(b"\0\0\0\x02ok\0\0\0\x0b")
        assert connection.receive(timeout=WAIT).data == b"ok"
        with pytest.raises(ReceiveError) as caught:
            connection.receive(timeout=WAIT)
        assert caught.value.reason is Reason.DEFRAMING_FAILED


class Passing(Framer):
    """A proxy's handshake (an ``ok``), and then nothing more."""

    def __init__(self, above: Framer | None = None) -> None:
        self.above = above

    def start(self, link: FramerLink) -> None:
        link.delay_ready()
        link.send(b"CONNECT\n")

    def new_sent_message(
        self, link: FramerLink, data: Any, context: Any, end_of_message: bool
    ) -> None:
        raise AssertionError("not in the path")

    def handle_received_data(self, link: FramerLink) -> None:
        if link.take(3) is not None:
            if self.above is not None:
                link.prepend_framer(self.above)
            link.start_passthrough()


@pytest.mark.rfc("MF-08")
def test_passthrough_makes_a_plain_stream() -> None:
    with plain_listener() as listener:
        establishing = gevent.spawn(
            Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
            .add_framer(Passing())
            .initiate,
            timeout=WAIT,
        )
        with listener.accept()[0] as peer:
            assert read_exactly(peer, 8) == b"CONNECT\n"
            peer.sendall(b"ok\nearly ")
            connection = establishing.get(timeout=WAIT)
            assert connection.receive(min_incomplete_length=1, timeout=WAIT).data == b"early "
            connection.send(b"raw")
            assert read_exactly(peer, 3) == b"raw"
            peer.sendall(b"data")
            peer.close()
            message = connection.receive(timeout=WAIT)
            assert message.data == b"data"
            assert message.end_of_message
            connection.close()


@pytest.mark.rfc("MF-07", "MF-08")
def test_a_framer_is_put_above_another() -> None:
    with plain_listener() as listener:
        establishing = gevent.spawn(
            Preconnection(remote_endpoint=remote(listener.getsockname()[1]))
            .add_framer(Passing(LengthPrefixFramer(1)))
            .initiate,
            timeout=WAIT,
        )
        with listener.accept()[0] as peer:
            assert read_exactly(peer, 8) == b"CONNECT\n"
            peer.sendall(b"ok\n\x05early\x04la")
            connection = establishing.get(timeout=WAIT)
            assert connection.receive(timeout=WAIT).data == b"early"
            peer.sendall(b"te")
            assert connection.receive(timeout=WAIT).data == b"late"
            connection.abort()


class Watching(LengthPrefixFramer):
    """Notices if one of its handlers is entered while another runs for the same Connection."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: set[int] = set()
        self.calls = 0

    def new_sent_message(
        self, link: FramerLink, data: Any, context: Any, end_of_message: bool
    ) -> None:
        with self.alone(link):
            super().new_sent_message(link, data, context, end_of_message)

    def handle_received_data(self, link: FramerLink) -> None:
        with self.alone(link):
            super().handle_received_data(link)

    @contextlib.contextmanager
    def alone(self, link: FramerLink) -> Iterator[None]:
        assert id(link) not in self.inside
        self.inside.add(id(link))
        self.calls += 1
        yield
        self.inside.remove(id(link))


@pytest.mark.rfc("MF-09")
def test_framer_events_are_serialised(certificates: Certificates) -> None:
    framer = Watching()
    with pair("tcp", certificates, framer) as (client, server):
        ends = (client, server)
        messages = {bytes([65 + number]) * (100_000 * number + 1) for number in range(8)}
        senders = [gevent.spawn(end.send, data) for data in messages for end in ends]
        for end in ends:
            assert {end.receive(timeout=WAIT).data for _ in messages} == messages
        gevent.joinall(senders, timeout=WAIT, raise_error=True)
    assert framer.calls >= 32
    assert not framer.inside


@pytest.mark.rfc("MF-15")
def test_a_large_message_is_not_held() -> None:
    size = 2**28
    with with_plain_peer(LengthPrefixFramer()) as (connection, peer):

        def send() -> None:
            peer.sendall(size.to_bytes(4, "big"))
            chunk = bytes(2**20)
            for _ in range(size // len(chunk)):
                peer.sendall(chunk)

        sender = gevent.spawn(send)
        total = 0
        ended = False
        while not ended:
            piece = connection.receive(min_incomplete_length=1, timeout=WAIT)
            total += len(piece)
            assert len(piece) <= 2**20
            ended = piece.end_of_message
        assert total == size
        sender.get(timeout=WAIT)


@pytest.mark.rfc("MF-02", "MF-03", "MF-05")
def test_websocket(certificates: Certificates) -> None:
    client_framer = WebSocketFramer("client", host="localhost")
    server_framer = WebSocketFramer("server")
    with Preconnection(local()).add_framer(server_framer).listen() as listener:
        client = (
            Preconnection(remote_endpoint=remote(port_of(listener)))
            .add_framer(client_framer)
            .initiate(timeout=WAIT)
        )
        server = listener.accept(timeout=WAIT)
    client.send(b"text", MessageContext().add(client_framer, "type", "text"))
    message = server.receive(timeout=WAIT)
    assert message.data == b"text"
    assert message.context.get(server_framer, "type") == "text"
    closing = gevent.spawn(client.close)
    with pytest.raises(ReceiveError) as caught:
        server.receive(timeout=WAIT)
    assert caught.value.reason is Reason.CLOSED
    server.close()
    closing.get(timeout=WAIT)


@pytest.mark.rfc("MF-02")
def test_a_framer_may_ask_for_the_hosts_name() -> None:
    seen = []

    class Asking(LengthPrefixFramer):
        def start(self, link: FramerLink) -> None:
            seen.append(link.get_property("hostname"))
            seen.append(link.get_property("no such property", 5))

    with plain_listener() as listener:
        end = RemoteEndpoint().with_hostname("localhost").with_port(listener.getsockname()[1])
        connection = Preconnection(remote_endpoint=end).add_framer(Asking()).initiate(timeout=WAIT)
        connection.abort()
    assert seen[-2:] == ["localhost", 5]
