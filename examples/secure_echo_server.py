"""The echo server, over TLS: ``python secure_echo_server.py --identity server.pem``.

make_certificates.py makes an identity to try it with.
"""

import argparse
import contextlib

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


def main(port, identity):
    preconnection = taps.Preconnection(
        local_endpoint=taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(port),
        security_parameters=taps.SecurityParameters().add_identity(identity, role="server"),
    )
    with preconnection.listen() as listener:
        print("listening on port", listener.local_endpoints[0].port, flush=True)
        for connection in listener:  # each after its handshake
            gevent.spawn(echo, connection)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--identity", required=True, help="PEM file: certificate and key")
    with contextlib.suppress(KeyboardInterrupt):
        main(**vars(parser.parse_args()))
