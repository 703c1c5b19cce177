"""Passes descriptors over a Unix socket: ``passer.py PATH KIND``.

``tcp``, ``pipe`` and ``udp`` send one connected socket of that kind and then, except for ``udp``,
print what comes back over its other end.  ``none`` sends a byte without a descriptor.  ``take``
waits for a descriptor and writes "from the peer" to it.
"""

import socket
import sys


def pair(kind: str) -> tuple[socket.socket, socket.socket]:
    if kind == "pipe":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


def main(path: str, kind: str) -> None:
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(path)
    if kind == "take":
        _, (number,), _, _ = socket.recv_fds(channel, 100, 1)
        with socket.socket(fileno=number) as taken:
            taken.sendall(b"from the peer")
    elif kind == "none":
        channel.sendall(b"!")
    elif kind == "udp":
        with socket.socket(type=socket.SOCK_DGRAM) as datagram:
            datagram.bind(("127.0.0.1", 0))
            socket.send_fds(channel, [b"!"], [datagram.fileno()])
    else:
        near, far = pair(kind)
        socket.send_fds(channel, [b"!"], [far.fileno()])
        far.close()
        near.sendall(b"hello")
        print(near.recv(100).decode(), flush=True)
        near.close()
    channel.recv(1)
    channel.close()


main(*sys.argv[1:])
