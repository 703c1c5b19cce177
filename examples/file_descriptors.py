"""Another program's input and output as a transport: ``python file_descriptors.py [COMMAND...]``.

The program gets one end of a socket pair; ours is given to create_connection by its number.
"""

import socket
import subprocess
import sys

import greentaps as taps
from gevent.event import AsyncResult


class Collect(taps.Protocol):
    def connection_made(self, transport):
        self.received = []
        self.ended = AsyncResult()

    def data_received(self, data):
        self.received.append(data)

    def connection_lost(self, exc):
        self.ended.set(b"".join(self.received))


def main(*command):
    ours, theirs = socket.socketpair()
    with theirs:
        program = subprocess.Popen(command or ["sort"], stdin=theirs, stdout=theirs)
    # The descriptor belongs to the transport from here on, hence detach().
    transport, protocol = taps.create_connection(Collect, ours.detach())
    transport.writelines([b"pear\n", b"fig\n", b"apple\n"])
    transport.write_eof()
    print(protocol.ended.get(timeout=10).decode(), end="")
    program.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
