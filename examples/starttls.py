"""From clear to TLS and back on one connection: ``python starttls.py server.pem ca.pem``.

Both ends in one program.  Each line is answered; STARTTLS and STOPTLS switch.
"""

import sys

import greentaps as taps
from gevent.queue import Queue


class Lines(taps.Protocol):
    def __init__(self):
        super().__init__()
        self.rest, self.lines = b"", Queue()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        for number, line in enumerate(lines, 1):
            self.line_received(line, last=number == len(lines) and not self.rest)

    def line_received(self, line, last):
        self.lines.put(line.decode())


class ServerLines(Lines):
    def line_received(self, line, last):
        version = self.transport.get_extra_info("tls_version") or "clear"
        self.transport.write(b"%b received in %b\n" % (line, version.encode()))
        if line == b"STARTTLS":
            if not last:  # somebody has put commands in clear behind it
                raise taps.ProtocolError("data between STARTTLS and the handshake")
            self.transport.do_handshake()
        elif line == b"STOPTLS":
            self.transport.unwrap()


def main(identity, trust):
    clear_first = {"do_handshake_on_connect": False, "close_on_unwrap": False}
    context = taps.create_default_context(True)
    context.load_cert_chain(identity)
    with taps.Server(ServerLines) as server, taps.Client(Lines, timeout=10) as client:
        server.listen(("127.0.0.1", 0), ssl=context, **clear_first)
        context = taps.create_default_context(cafile=trust)
        client.connect(("localhost", server.addresses[0][1]), ssl=context, **clear_first)
        for line in ("hello", "STARTTLS", "a secret", "STOPTLS", "goodbye"):
            client.transport.write(line.encode() + b"\n")
            print(client.protocol.lines.get(timeout=10))
            if line == "STARTTLS":
                client.transport.do_handshake()
            elif line == "STOPTLS":
                client.transport.unwrap()


if __name__ == "__main__":
    main(*sys.argv[1:])
