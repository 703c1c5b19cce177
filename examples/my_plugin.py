"""A transport protocol of one's own: connections inside this process, without the kernel.

It is registered by an entry point, here that of my_plugin-1.dist-info beside this file.
"""

import errno

import greentaps as taps
from greentaps.plugins import ALWAYS, Plugin
from greentaps.testing import memory_pair

listening = {}  # port -> Listening


class Listening:
    def __init__(self, address, deliver):
        self.address, self.deliver = address, deliver
        self.resume()

    def resume(self):
        listening[self.address[1]] = self

    def pause(self):
        listening.pop(self.address[1], None)

    close = pause


class InProcess(Plugin):
    """Connectedness: connected.  Data unit: byte stream.  (And so on: RFC 9623, appendix A.)"""

    name = "inproc"
    offers = dict.fromkeys(("reliability", "preserveOrder", "congestionControl"), ALWAYS)

    def open(self, attempt, below):
        there = listening.get(attempt.remote[1])
        if there is None:
            raise taps.TransportError.from_errno(errno.ECONNREFUSED, "connect", attempt.remote)
        ours, theirs = memory_pair(names=("client", "server"))
        there.deliver(theirs)
        return ours

    def listen(self, attempt, deliver):
        return Listening(attempt.local, deliver)


def main():
    wanted = taps.TransportProperties().avoid("fullChecksumSend").avoid("fullChecksumRecv")
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(7000)
    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1").with_port(7000)
    listener = taps.Preconnection(here, transport_properties=wanted).listen()
    connection = taps.Preconnection(None, there, wanted).initiate(timeout=10)
    with listener, connection, listener.accept(timeout=10) as other:
        other.send(b"hello")
        print(connection.stack, connection.receive(min_incomplete_length=1).data)


if __name__ == "__main__":
    main()
