"""One server program for every library that is compared: the part of it that is measured.

    python servers.py KIND ROLE [--tls PEM] [--engine ENGINE] [--framers N]

KIND is one of `KINDS`.  ROLE is what the server does with what it gets: ``echo`` (TCP), ``udp``
(echo of datagrams), ``sink`` and ``source`` (bulk data in one direction; load.c describes the
protocol).  It prints its port and serves until it is killed.

Each server is written as the library's own documentation would have it, and does nothing besides.
They import what they need when they are chosen, since what is not there must not be missed, and so
that nothing else is in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import ssl
from typing import Any

HOST = "127.0.0.1"
BACKLOG = 1024
CHUNK = 65536  # bytes to read at once, where a library lets us choose
HEAD = 8  # bytes of a number in the bulk protocol


def announce(port: int) -> None:
    print(port, flush=True)


def server_context(pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context


def openssl_context(pem: str) -> Any:
    from OpenSSL import SSL

    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate_chain_file(pem)
    context.use_privatekey_file(pem)
    return context


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


# -- Bulk data, in the three styles --


class SinkParser:
    """Counts what comes; `feed` says when the announced number of bytes is complete."""

    def __init__(self) -> None:
        self.left = 0

    def feed(self, data: bytes) -> bool:
        size = len(data)
        if not self.left:  # the number comes in one piece: nothing goes before it
            self.left = number(data[:HEAD])
            size -= HEAD
        self.left -= size
        return not self.left


def blocking_sink(read: Any, write: Any) -> None:
    parser = SinkParser()
    while data := read():
        if parser.feed(data):
            write(b".")


def blocking_source(read: Any, write: Any) -> None:
    while data := read():
        total, size = number(data[:HEAD]), number(data[HEAD:])
        piece = bytes(size)
        while total:
            write(piece if total >= size else piece[:total])
            total -= min(size, total)


async def async_sink(read: Any, write: Any) -> None:
    parser = SinkParser()
    while data := await read():
        if parser.feed(data):
            await write(b".")


async def async_source(read: Any, write: Any) -> None:
    while data := await read():
        total, size = number(data[:HEAD]), number(data[HEAD:])
        piece = bytes(size)
        while total:
            await write(piece if total >= size else piece[:total])
            total -= min(size, total)


def protocol_class(base: type, role: str) -> type:
    """The protocol of *role* in callback style: one text for asyncio, uvloop and greentaps."""

    class Echo(base):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    class Sink(Echo):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.parser = SinkParser()

        def data_received(self, data: bytes) -> None:
            if self.parser.feed(data):
                self.transport.write(b".")

    class Source(Echo):
        paused = False

        def data_received(self, data: bytes) -> None:
            self.left, self.size = number(data[:HEAD]), number(data[HEAD:])
            self.piece = bytes(self.size)
            self.go_on()

        def go_on(self) -> None:
            while self.left and not self.paused:
                piece = self.piece if self.left >= self.size else self.piece[: self.left]
                self.left -= len(piece)
                self.transport.write(piece)

        def pause_writing(self) -> None:
            self.paused = True

        def resume_writing(self) -> None:
            self.paused = False
            self.go_on()

    class EchoDatagrams(base):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data, addr)

    return {"echo": Echo, "sink": Sink, "source": Source, "udp": EchoDatagrams}[role]


# -- greentaps --


def greentaps_protocol(words: argparse.Namespace) -> None:
    """Callbacks."""
    import greentaps as taps

    context: Any = False
    if words.tls:
        make = openssl_context if words.engine == "pyopenssl" else server_context
        context = make(words.tls)
    server = taps.create_server(
        protocol_class(taps.Protocol, words.role), (HOST, 0), ssl=context, backlog=BACKLOG
    )
    announce(server.addresses[0][1])
    server.run()


def greentaps_server(words: argparse.Namespace) -> None:
    """A Server whose messages are handled in a greenlet per connection."""
    import greentaps as taps

    class Pieces(taps.MessageProtocol):
        def __init__(self) -> None:
            super().__init__(handle)

        def data_received(self, data: bytes) -> None:
            self.message_received(data)

    def handle(message: bytes, transport: Any, protocol: Any) -> None:
        transport.write(message)

    server = taps.Server(Pieces)
    server.listen((HOST, 0), backlog=BACKLOG)
    announce(server.addresses[0][1])
    server.run()


def greentaps_connection(words: argparse.Namespace) -> None:
    """RFC 9622's Connection, a greenlet each, in blocking style."""
    import gevent
    import greentaps as taps

    security = taps.SecurityParameters.disabled()
    if words.tls:
        security = taps.SecurityParameters().set("serverCertificate", words.tls)
        if words.engine == "pyopenssl":
            # Something that only this engine can do: to name more than one group.
            security.set("supportedGroup", "x25519", "secp256r1")
    here = taps.Preconnection(
        taps.LocalEndpoint().with_ip_address(HOST), security_parameters=security
    )
    for _ in range(words.framers):
        here.add_framer(taps.LengthPrefixFramer())

    def echo(connection: Any) -> None:
        receive, send = connection.receive, connection.send
        with contextlib.suppress(taps.TapsError):
            while True:
                message = receive(1)
                if not message.data:
                    break
                send(message.data)
        connection.close()

    def echo_messages(connection: Any) -> None:
        receive, send = connection.receive, connection.send
        with contextlib.suppress(taps.TapsError):
            while True:
                send(receive().data)
        connection.close()

    def bulk(connection: Any) -> None:
        work = blocking_sink if words.role == "sink" else blocking_source
        with contextlib.suppress(taps.TapsError):
            work(lambda: connection.receive(1).data, connection.send)
        connection.close()

    serve = bulk if words.role != "echo" else echo_messages if words.framers else echo
    listener = here.listen()
    announce(listener.local_endpoints[0].port)
    # gevent notes for each greenlet where it was spawned, line by line up to the root.  From a
    # greenlet of its own that is as short as in gevent's server, without this program's levels.
    gevent.spawn(serve_each, listener, serve).join()


def serve_each(listener: Any, serve: Any) -> None:
    """A greenlet for each Connection."""
    import gevent

    for connection in listener:
        gevent.spawn(serve, connection)


def greentaps_datagram(words: argparse.Namespace) -> None:
    """DatagramTransport, callbacks."""
    import gevent.event
    import greentaps as taps
    import pyuv

    handle = pyuv.UDP(taps.get_loop())
    handle.bind((HOST, 0))
    transport = taps.DatagramTransport(handle)
    transport.start(protocol_class(taps.DatagramProtocol, "udp")())
    announce(handle.getsockname()[1])
    gevent.event.Event().wait()


def greentaps_datagram_connection(words: argparse.Namespace) -> None:
    """A Connection over UDP for each peer, in blocking style."""
    import gevent
    import greentaps as taps

    wishes = taps.TransportProperties()
    wishes.set("reliability", taps.Preference.PROHIBIT)
    wishes.set("preserveOrder", taps.Preference.NO_PREFERENCE)
    wishes.set("congestionControl", taps.Preference.NO_PREFERENCE)
    wishes.set("safelyReplayable", True)
    here = taps.Preconnection(
        taps.LocalEndpoint().with_ip_address(HOST),
        transport_properties=wishes,
        security_parameters=taps.SecurityParameters.disabled(),
    )

    def echo(connection: Any) -> None:
        receive, send = connection.receive, connection.send
        with contextlib.suppress(taps.TapsError):
            while True:
                send(receive().data)

    listener = here.listen()
    announce(listener.local_endpoints[0].port)
    gevent.spawn(serve_each, listener, echo).join()


# -- gevent --


def gevent_server(words: argparse.Namespace) -> None:
    """gevent's own servers."""
    from gevent.server import DatagramServer, StreamServer

    if words.role == "udp":

        class EchoDatagrams(DatagramServer):  # type: ignore[misc]
            def handle(self, data: bytes, address: Any) -> None:
                self.socket.sendto(data, address)

        datagrams = EchoDatagrams(f"{HOST}:0")
        datagrams.start()
        announce(datagrams.address[1])
        datagrams.serve_forever()
        return

    def echo(sock: Any, address: Any) -> None:
        with contextlib.suppress(OSError):
            while data := sock.recv(CHUNK):
                sock.sendall(data)

    def bulk(sock: Any, address: Any) -> None:
        work = blocking_sink if words.role == "sink" else blocking_source
        with contextlib.suppress(OSError):
            work(lambda: sock.recv(CHUNK), sock.sendall)

    options = {"ssl_context": _gevent_context(words.tls)} if words.tls else {}
    server = StreamServer(
        (HOST, 0), echo if words.role == "echo" else bulk, backlog=BACKLOG, **options
    )
    server.init_socket()
    announce(server.address[1])
    server.serve_forever()


def _gevent_context(pem: str) -> Any:
    from gevent.ssl import PROTOCOL_TLS_SERVER, SSLContext

    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def gevent_socket(words: argparse.Namespace) -> None:
    """A bare gevent socket: for datagrams, one greenlet and no object for each."""
    from gevent import socket

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))
    announce(sock.getsockname()[1])
    receive, send = sock.recvfrom, sock.sendto
    while True:
        data, address = receive(CHUNK)
        send(data, address)


# -- asyncio, with and without uvloop --


def run_asyncio(main: Any, uvloop: bool) -> None:
    if uvloop:
        import uvloop as fast

        fast.run(main())
    else:
        import asyncio

        asyncio.run(main())


def asyncio_protocol(words: argparse.Namespace, uvloop: bool = False) -> None:
    import asyncio

    factory = protocol_class(
        asyncio.DatagramProtocol if words.role == "udp" else asyncio.Protocol, words.role
    )

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if words.role == "udp":
            transport, _ = await loop.create_datagram_endpoint(factory, (HOST, 0))
            announce(transport.get_extra_info("sockname")[1])
            await asyncio.Event().wait()
        context = server_context(words.tls) if words.tls else None
        server = await loop.create_server(factory, HOST, 0, ssl=context, backlog=BACKLOG)
        announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    run_asyncio(main, uvloop)


def asyncio_streams(words: argparse.Namespace, uvloop: bool = False) -> None:
    import asyncio

    async def echo(reader: Any, writer: Any) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def bulk(reader: Any, writer: Any) -> None:
        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        work = async_sink if words.role == "sink" else async_source
        with contextlib.suppress(OSError):
            await work(lambda: reader.read(CHUNK), write)
        writer.close()

    async def main() -> None:
        context = server_context(words.tls) if words.tls else None
        serve = echo if words.role == "echo" else bulk
        server = await asyncio.start_server(serve, HOST, 0, ssl=context, backlog=BACKLOG)
        announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    run_asyncio(main, uvloop)


def uvloop_protocol(words: argparse.Namespace) -> None:
    asyncio_protocol(words, uvloop=True)


def uvloop_streams(words: argparse.Namespace) -> None:
    asyncio_streams(words, uvloop=True)


# -- trio --


def trio_streams(words: argparse.Namespace) -> None:
    import trio

    async def echo(stream: Any) -> None:
        receive, send = stream.receive_some, stream.send_all
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await receive(CHUNK):
                await send(data)

    async def bulk(stream: Any) -> None:
        work = async_sink if words.role == "sink" else async_source
        await work(lambda: stream.receive_some(CHUNK), stream.send_all)

    async def datagrams() -> None:
        sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        await sock.bind((HOST, 0))
        announce(sock.getsockname()[1])
        while True:
            data, address = await sock.recvfrom(CHUNK)
            await sock.sendto(data, address)

    async def main() -> None:
        if words.role == "udp":
            await datagrams()
        listeners = await trio.open_tcp_listeners(0, host=HOST, backlog=BACKLOG)
        announce(listeners[0].socket.getsockname()[1])
        serve: Any = echo if words.role == "echo" else bulk
        if words.tls:
            context, plain = server_context(words.tls), serve

            async def serve(stream: Any) -> None:
                secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
                await plain(secure)

        await trio.serve_listeners(serve, listeners)

    trio.run(main)


KINDS = {
    "greentaps-protocol": greentaps_protocol,
    "greentaps-server": greentaps_server,
    "greentaps-connection": greentaps_connection,
    "greentaps-datagram": greentaps_datagram,
    "greentaps-datagram-connection": greentaps_datagram_connection,
    "gevent": gevent_server,
    "gevent-socket": gevent_socket,
    "uvloop-protocol": uvloop_protocol,
    "uvloop-streams": uvloop_streams,
    "asyncio-protocol": asyncio_protocol,
    "asyncio-streams": asyncio_streams,
    "trio": trio_streams,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("role", choices=("echo", "udp", "sink", "source"))
    parser.add_argument("--tls", metavar="PEM", help="the certificate and its key")
    parser.add_argument("--engine", choices=("stdlib", "pyopenssl"), default="stdlib")
    parser.add_argument("--framers", type=int, default=0, metavar="N")
    words = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.suppress(KeyboardInterrupt):
        KINDS[words.kind](words)


if __name__ == "__main__":
    main()
