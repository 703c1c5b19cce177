"""A UDP peer of a rendezvous that has never heard of STUN: when it is told to, it sends a Message;
it shows what comes, but for what is no text.

    bare_udp.py OUR_PORT THEIR_PORT
"""

import socket
import sys

here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
here.sendto(b"hello", ("127.0.0.1", int(sys.argv[2])))
while True:
    data = here.recv(2000)
    if data.isascii() and data[:1].isalpha():
        print(data.decode(), flush=True)
        break
sys.stdin.readline()
