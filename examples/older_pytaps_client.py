"""PyTAPS's client, in today's names: ``python older_pytaps_client.py [PORT [ca.pem]]``.

There each handler and each action was a coroutine.  Here they are functions, and may block.
"""

import sys

import greentaps as taps


def handle_ready(connection):
    print("Connection has been successfully established")
    connection.on_sent(handle_sent)
    connection.on_received_partial(handle_received_partial)
    connection.on_received(handle_received_partial)  # all of it has come at once
    connection.on_closed(lambda connection: print("Connection has been closed"))
    connection.send(b"Hello", wait=False)
    connection.receive(min_incomplete_length=1, wait=False)


def handle_sent(connection, context):
    print("Message has been sent")


def handle_received_partial(connection, message):
    print("Received data:", message.data)
    connection.close(wait=False)


def main(port=6666, trust_ca=None):
    remote_endpoint = taps.RemoteEndpoint()
    remote_endpoint.with_hostname("localhost")
    remote_endpoint.with_port(port)

    properties = taps.TransportProperties()

    security = None
    if trust_ca:
        security = taps.SecurityParameters()
        security.add_trust_ca(trust_ca)

    preconnection = taps.Preconnection(
        remote_endpoint=remote_endpoint,
        local_endpoint=None,
        transport_properties=properties,
        security_parameters=security,
    )
    preconnection.on_ready(handle_ready)
    preconnection.on_establishment_error(lambda connection, error: print(error))
    preconnection.initiate(wait=False)
    preconnection.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
