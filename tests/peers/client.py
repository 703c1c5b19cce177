"""A client with plain blocking sockets: ``client.py HOST PORT|PATH ACTION``.

Actions: ``echo`` sends the lines of its input and prints what comes back; ``mute`` connects,
says "connected", and then neither sends nor receives until its input ends; ``reset`` sends half a
message and resets the connection.
"""

import socket
import struct
import sys


def connect(host: str, port: str) -> socket.socket:
    if host == "-":
        made = socket.socket(socket.AF_UNIX)
        made.connect(port)
        return made
    return socket.create_connection((host, int(port)), timeout=20)


def main(host: str, port: str, action: str) -> None:
    with connect(host, port) as connection:
        print("connected", flush=True)
        if action == "echo":
            for line in sys.stdin:
                connection.sendall(line.encode())
                print(connection.recv(65536).decode().rstrip("\n"), flush=True)
        elif action == "mute":
            sys.stdin.read()
        elif action == "reset":
            connection.sendall(b"half a mess")
            sys.stdin.readline()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


main(*sys.argv[1:])
