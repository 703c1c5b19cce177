"""One process accepts a connection, another one serves it: ``python pass_connection.py``."""

import os
import socket
import subprocess
import sys

import gevent.socket
import greentaps as taps


class Hello(taps.Protocol):
    def connection_made(self, transport):
        transport.write(b"served by process %d\n" % os.getpid())
        transport.close()


class Arrivals(taps.Protocol):
    def connection_made(self, transport):
        self.pipe = transport.get_extra_info("handle")
        self.server = taps.Server(Hello)

    def data_received(self, data):
        for _ in data:  # a byte for each connection
            self.server.accept_connection(self.pipe)


class Acceptor(taps.Server):
    def handle_connection(self, client, ssl):
        gevent.spawn(self.pass_on, client)

    def pass_on(self, client):
        try:
            self.pipe.write(b"c", client)
            self.pipe.wait_writable()  # with a high mark of 0: until it has gone
        finally:
            client.close()


def main():
    ours, theirs = socket.socketpair()
    command = [sys.executable, __file__, str(theirs.fileno())]
    with theirs, Acceptor(taps.Protocol) as server:
        worker = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        print("accepted by process", os.getpid(), flush=True)
        server.pipe, _ = taps.create_connection(taps.Protocol, ours.detach(), ipc=True)
        server.pipe.set_write_buffer_limits(high=0)
        server.listen(("127.0.0.1", 0))
        with gevent.socket.create_connection(server.addresses[0], timeout=10) as client:
            print(client.recv(100).decode(), end="")
        server.pipe.close()  # which ends the worker
    worker.wait()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:  # we are the worker, and our argument is a descriptor
        taps.create_connection(Arrivals, int(sys.argv[1]), ipc=True)[0].wait_closed()
