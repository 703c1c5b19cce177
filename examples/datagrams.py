"""Datagrams there and back with DatagramTransport: both ends in one program."""

import greentaps as taps
import pyuv
from gevent.queue import Queue


class Echo(taps.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


class Collect(taps.DatagramProtocol):
    """Puts datagrams and errors where a greenlet can wait for them."""

    def connection_made(self, transport):
        self.arrived = Queue()

    def datagram_received(self, data, addr):
        self.arrived.put(data)

    def error_received(self, exc):
        self.arrived.put(exc)


def open_datagrams(protocol):
    handle = pyuv.UDP(taps.get_loop())
    handle.bind(("127.0.0.1", 0))
    transport = taps.DatagramTransport(handle)
    transport.start(protocol)
    return transport


def main():
    server = open_datagrams(Echo())
    collect = Collect()
    client = open_datagrams(collect)
    there = server.get_extra_info("sockname")
    for data in (b"one", b"", b"three", b"x" * 70_000):
        client.sendto(data, there)
        print(collect.arrived.get(timeout=10))
    for transport in (client, server):
        transport.close()
        transport.wait_closed()


if __name__ == "__main__":
    main()
