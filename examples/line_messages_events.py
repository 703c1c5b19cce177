"""line_messages.py in event-driven form: ``python line_messages_events.py [PORT]``."""

import contextlib
import sys

import greentaps as taps


def begin(connection):
    connection.receive(wait=False)


def answer(connection, line):
    connection.send(b"%d words" % len(line.data.split()))
    begin(connection)


def main(port=7000):
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(port)
    preconnection = taps.Preconnection(local_endpoint=here).add_framer(taps.LineFramer())
    preconnection.on_connection_received(begin)
    preconnection.on_received(answer)
    preconnection.on_receive_error(lambda connection, error: connection.close(wait=False))
    with preconnection.listen() as listener:
        print("listening on port", listener.local_endpoints[0].port, flush=True)
        preconnection.start()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
