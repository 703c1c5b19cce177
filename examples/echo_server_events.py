"""echo_server.py in event-driven form: handlers only: ``python echo_server_events.py [PORT]``."""

import contextlib
import sys

import greentaps as taps


def begin(connection):
    connection.receive(min_incomplete_length=1, wait=False)


def echo(connection, message):
    connection.send(message.data)  # a handler may block; the next event of this one waits
    if message.end_of_message:
        connection.close(wait=False)
    else:
        begin(connection)


def main(port=7000):
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(port)
    preconnection = taps.Preconnection(local_endpoint=here)
    # Set here, they are the handlers of each Connection that comes of it.
    preconnection.on_connection_received(begin)
    preconnection.on_received_partial(echo)
    preconnection.on_received(echo)  # all of it came at once
    with preconnection.listen() as listener:
        print("listening on port", listener.local_endpoints[0].port, flush=True)
        preconnection.start()  # as long as there is something left to do


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
