"""A server that looks up host names, one on each line: ``python lines.py [PORT]``.

The protocol parses in a callback; the handler runs in a greenlet, so it may block.
"""

import sys

import greentaps as taps
from gevent.socket import gaierror, gethostbyname

LONGEST = 255  # bytes
END = None  # the message that says: no more lines


class Lines(taps.MessageProtocol):
    """Lines of text, each a message."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.transport = transport
        self.rest = b""

    def data_received(self, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.message_received(line.decode("ascii", "replace").strip())
        if len(self.rest) > LONGEST:
            self.transport.abort(taps.ProtocolError("a line is too long"))

    def eof_received(self):
        self.message_received(END)
        return True  # stay open: the handler is not through with the lines before


def look_up(name, transport, protocol):
    if name is END:
        transport.close()
        return
    try:
        answer = gethostbyname(name)  # blocks this connection, and no other
    except gaierror:
        answer = "unknown"
    transport.write(f"{name} {answer}\n".encode())
    transport.wait_writable()


def main(port=7000):
    with taps.Server(lambda: Lines(look_up)) as server:
        server.listen(("127.0.0.1", int(port)))
        print("listening on port", server.addresses[0][1], flush=True)
        server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
