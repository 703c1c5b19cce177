"""A server in callbacks, on the low level: ``python protocol_server.py [PORT]``."""

import sys

import greentaps as taps


class Shout(taps.Protocol):
    """Sends everything back in capitals, and reads only as fast as the peer does."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data.upper())

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


def main(port=7000):
    with taps.Server(Shout) as server:
        server.listen(("127.0.0.1", int(port)))
        print("listening on port", server.addresses[0][1], flush=True)
        server.run()  # until CTRL-C


if __name__ == "__main__":
    main(*sys.argv[1:])
