"""A client of protocol_server.py: ``python protocol_client.py [PORT [TEXT]]``.

Callbacks collect; a greenlet waits for what they have collected.
"""

import sys

import greentaps as taps
from gevent.event import AsyncResult


class Collect(taps.Protocol):
    """All that the peer sends, when it has ended."""

    def connection_made(self, transport):
        self.received = []
        self.result = AsyncResult()

    def data_received(self, data):
        self.received.append(data)

    def connection_lost(self, exc):
        if exc is None:
            self.result.set(b"".join(self.received))
        else:
            self.result.set_exception(exc)


def main(port=7000, text="hello"):
    with taps.Client(Collect, timeout=10) as client:
        client.connect(("localhost", int(port)))
        client.transport.write(text.encode())
        client.transport.write_eof()
        print("received", client.protocol.result.get(timeout=10).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
