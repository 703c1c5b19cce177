"""secure_echo_server.py in event-driven form: ``... --identity server.pem``.

Only the SecurityParameters differ from echo_server_events.py.
"""

import argparse
import contextlib

import greentaps as taps


def begin(connection):
    connection.receive(min_incomplete_length=1, wait=False)


def echo(connection, message):
    connection.send(message.data)
    if message.end_of_message:
        connection.close(wait=False)
    else:
        begin(connection)


def main(port, identity):
    preconnection = taps.Preconnection(
        local_endpoint=taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(port),
        security_parameters=taps.SecurityParameters().add_identity(identity, role="server"),
    )
    preconnection.on_connection_received(begin)  # after its handshake
    preconnection.on_received_partial(echo)
    preconnection.on_received(echo)
    with preconnection.listen() as listener:
        print("listening on port", listener.local_endpoints[0].port, flush=True)
        preconnection.start()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--identity", required=True, help="PEM file: certificate and key")
    with contextlib.suppress(KeyboardInterrupt):
        main(**vars(parser.parse_args()))
