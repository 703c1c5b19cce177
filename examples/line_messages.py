"""A server that counts words, line by line: ``python line_messages.py [PORT]``."""

import contextlib
import sys

import gevent
import greentaps as taps


def serve(connection):
    with connection:
        for line in connection:
            connection.send(b"%d words" % len(line.data.split()))


def main(port=7000):
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(port)
    preconnection = taps.Preconnection(local_endpoint=here).add_framer(taps.LineFramer())
    with preconnection.listen() as listener:
        print("listening on port", listener.local_endpoints[0].port, flush=True)
        for connection in listener:
            gevent.spawn(serve, connection)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
