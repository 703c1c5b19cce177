"""PyTAPS's listener, in today's names: ``python older_pytaps_listener.py [PORT [server.pem]]``."""

import contextlib
import sys

import greentaps as taps


def handle_connection_received(connection):
    connection.on_received_partial(handle_received_partial)
    connection.on_received(handle_received_partial)  # all of it has come at once
    connection.on_receive_error(lambda connection, error: connection.close(wait=False))
    connection.receive(min_incomplete_length=1, wait=False)


def handle_received_partial(connection, message):
    connection.send(message.data, wait=False)
    connection.receive(min_incomplete_length=1, wait=False)


def main(port=6666, local_identity=None):
    local_endpoint = taps.LocalEndpoint()
    local_endpoint.with_ip_address("127.0.0.1")
    local_endpoint.with_port(port)

    security = None
    if local_identity:
        security = taps.SecurityParameters()
        security.add_identity(local_identity)

    preconnection = taps.Preconnection(local_endpoint=local_endpoint, security_parameters=security)
    preconnection.on_connection_received(handle_connection_received)
    with preconnection.listen() as listener:
        print("listening on port", listener.local_endpoints[0].port, flush=True)
        preconnection.start()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
