"""A TCP peer of a rendezvous with nothing but a socket: it binds, and connects until it gets
through, without ever listening.  It says hello and shows what it is told.

    bare_tcp.py OUR_PORT THEIR_PORT
"""

import socket
import sys
import time

ours, theirs = int(sys.argv[1]), int(sys.argv[2])
end = time.monotonic() + 20
while True:
    here = socket.socket()
    here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    here.bind(("127.0.0.1", ours))
    try:
        here.connect(("127.0.0.1", theirs))
        break
    except OSError:
        here.close()
        if time.monotonic() > end:
            raise
        time.sleep(0.01)
here.sendall(b"hello")
print(here.recv(100).decode(), flush=True)
sys.stdin.readline()
