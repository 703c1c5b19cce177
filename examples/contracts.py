"""The contracts as functions: check a transport, a parser, and what a protocol is told."""

import socket

import greentaps as taps
import pyuv
from greentaps.testing import (
    RecordingProtocol,
    check_chunks,
    check_transport,
    memory_pair,
    transport_checks,
)


def make_pair():
    """Two transports that are each other's peer, not started."""
    ends = []
    for end in socket.socketpair():
        end.setblocking(False)
        handle = pyuv.Pipe(taps.get_loop())
        handle.open(end.detach())
        ends.append(taps.Transport(handle))
    return ends


def make_parser():
    """A parser with an empty buffer: takes bytes, gives lines."""
    rest = b""

    def feed(data):
        nonlocal rest
        *lines, rest = (rest + data).split(b"\n")
        return lines

    return feed


def main():
    check_transport(make_pair)
    print("the transport keeps all of", len(transport_checks()), "promises")

    check_chunks(make_parser, b"one\n\nthree\n", [b"one", b"", b"three"], tail=b"fo")
    print("the parser does not care how its input is cut")

    near, far = memory_pair()
    seen = RecordingProtocol()
    near.start(RecordingProtocol())
    far.start(seen)
    near.write(b"hello")
    near.close()
    seen.wait_lost()
    seen.check()  # in an order that the contract allows
    print(*seen.names)


if __name__ == "__main__":
    main()
