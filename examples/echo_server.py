"""A server that sends back what it gets, over TCP: ``python echo_server.py [PORT]``."""

import contextlib
import sys

import gevent
import greentaps as taps


def echo(connection):
    """Serve one client, in a greenlet of its own."""
    with connection:
        ended = False
        while not ended:
            piece = connection.receive(min_incomplete_length=1)
            connection.send(piece.data)
            ended = piece.end_of_message


def main(port=7000):
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(port)
    with taps.Preconnection(local_endpoint=here).listen() as listener:
        print("listening on port", listener.local_endpoints[0].port, flush=True)
        for connection in listener:
            gevent.spawn(echo, connection)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
