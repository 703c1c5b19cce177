"""One program that opens connections, for every library that is compared; and TLS without any
connection, which is the limit for those with.

    python initiators.py KIND HOST PORT
    python initiators.py send-in-memory|receive-in-memory ENGINE PEM

It is driven as load.c is: ``run COUNT SIZE`` on standard input is answered with
``ok SECONDS LOST RESUMED CPU``.  COUNT connections are opened and closed one after the other; or
COUNT bytes in pieces of SIZE are made into TLS records (``send-in-memory``), or back into data.
With 0 for SIZE the SECONDS are those until the connections were ready, without their ends.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

READ_SIZE = 65536

# What has its own idea of how long it took returns the seconds.
Work = Callable[[int, int], float | None]


def one_by_one(connect: Callable[[], Any]) -> Work:
    """Work for a *connect* that returns something to close."""

    def work(count: int, size: int) -> float | None:
        if size:
            for _ in range(count):
                connect().close()
            return None
        spent = 0.0
        for _ in range(count):
            begun = time.perf_counter()
            made = connect()
            spent += time.perf_counter() - begun
            made.close()
        return spent

    return work


def with_socket(host: str, port: int) -> Work:
    """The limit for Python: the blocking calls of the system, and nothing else."""
    import socket

    def connect() -> Any:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.connect((host, port))
        return made

    return one_by_one(connect)


def with_gevent(host: str, port: int) -> Work:
    from gevent import socket

    return one_by_one(lambda: socket.create_connection((host, port)))


def with_asyncio(host: str, port: int, uvloop: bool = False) -> Work:
    import asyncio

    if uvloop:
        import uvloop as fast

        loop = fast.new_event_loop()
    else:
        loop = asyncio.new_event_loop()

    async def connect(count: int) -> None:
        for _ in range(count):
            _reader, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()

    return lambda count, _size: loop.run_until_complete(connect(count))


def with_uvloop(host: str, port: int) -> Work:
    return with_asyncio(host, port, uvloop=True)


def with_trio(host: str, port: int) -> Work:
    import trio

    async def connect(count: int) -> None:
        for _ in range(count):
            stream = await trio.open_tcp_stream(host, port)
            await stream.aclose()

    return lambda count, _size: trio.run(connect, count)


def with_create_connection(host: str, port: int) -> Work:
    import greentaps as taps

    client = taps.Client(taps.Protocol)

    def connect() -> Any:
        client.connect((host, port))
        return client

    return one_by_one(connect)


def with_initiate(host: str, port: int) -> Work:
    import greentaps as taps

    there = taps.Preconnection(
        remote_endpoint=taps.RemoteEndpoint().with_ip_address(host).with_port(port),
        security_parameters=taps.SecurityParameters.disabled(),
    )

    return one_by_one(there.initiate)


def _pair(engine: str, pem: str) -> tuple[Any, Any]:
    """A client's and a server's engine, past their handshake."""
    from greentaps.engines import make_engine

    if engine == "pyopenssl":
        from OpenSSL import SSL

        server_context: Any = SSL.Context(SSL.TLS_SERVER_METHOD)
        server_context.use_certificate_chain_file(pem)
        server_context.use_privatekey_file(pem)
        client_context: Any = SSL.Context(SSL.TLS_CLIENT_METHOD)
    else:
        import ssl

        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(pem)
        client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_context.check_hostname = False
        client_context.verify_mode = ssl.CERT_NONE
    client = make_engine(client_context, False, "localhost")
    server = make_engine(server_context, True, None)
    done = [False, False]
    while not all(done):
        for index, (here, there) in enumerate(((client, server), (server, client))):
            done[index] = done[index] or here.handshake()
            if out := here.drain():
                there.feed(out)
    client.read()  # the tickets
    return client, server


def sending_in_memory(engine: str, pem: str) -> Work:
    client, _server = _pair(engine, pem)

    def work(count: int, size: int) -> None:
        piece = bytes(size)
        for _ in range(max(count // size, 1)):
            client.write(piece)
            client.drain()

    return work


def receiving_in_memory(engine: str, pem: str) -> Work:
    client, server = _pair(engine, pem)
    records: list[bytes] = []

    def prepare(count: int, size: int) -> None:
        piece = bytes(size)
        for _ in range(max(count // size, 1)):
            client.write(piece)
            records.append(client.drain())

    def work(count: int, size: int) -> None:
        for record in records:
            for start in range(0, len(record), READ_SIZE):
                server.feed(record[start : start + READ_SIZE])
                while server.read():
                    pass
        records.clear()

    work.prepare = prepare  # type: ignore[attr-defined]
    return work


KINDS: dict[str, Callable[..., Work]] = {
    "socket": with_socket,
    "gevent": with_gevent,
    "uvloop-streams": with_uvloop,
    "asyncio-streams": with_asyncio,
    "trio": with_trio,
    "greentaps-protocol": with_create_connection,
    "greentaps-connection": with_initiate,
    "send-in-memory": sending_in_memory,
    "receive-in-memory": receiving_in_memory,
}


def main() -> None:
    kind, first, second = sys.argv[1:]
    work = KINDS[kind](first, int(second) if second.isdigit() else second)
    prepare = getattr(work, "prepare", None)
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        seconds = cpu = 0.0
        if words[0] == "run":
            count, size = int(words[1]), int(words[2])
            if prepare is not None:
                prepare(count, size)
            before, before_cpu = time.perf_counter(), time.process_time()
            own = work(count, size)
            seconds = time.perf_counter() - before if own is None else own
            cpu = time.process_time() - before_cpu
        print(f"ok {seconds:.6f} 0 0 {cpu:.9f}", flush=True)


if __name__ == "__main__":
    main()
