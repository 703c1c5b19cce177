"""NEATPy's client, here with the older names kept: ``python older_neatpy_client.py [PORT]``.

They are aliases: HANDLE_STATE_READY is `on_ready`, with_address is `with_ip_address`, stop is
`close`, and the handler of receive may come first.
"""

import sys

from greentaps import (
    Preconnection,
    RemoteEndpoint,
    TransportProperties,
    TransportPropertyProfiles,
)


def receive_handler(connection, message, message_context, is_end_of_message, error):
    print(f"Got message {len(message.data)}: {message.data.decode()}")
    connection.stop(wait=False)


def ready_handler(connection):
    connection.send(b"Hello server", None, wait=False)
    connection.receive(receive_handler)


def main(port=5000):
    remote_specifier = RemoteEndpoint()
    remote_specifier.with_address("127.0.0.1")
    remote_specifier.with_port(port)

    transport_properties = TransportProperties(TransportPropertyProfiles.RELIABLE_INORDER_STREAM)

    new_preconnection = Preconnection(
        remote_endpoint=remote_specifier, transport_properties=transport_properties
    )
    new_connection = new_preconnection.initiate(wait=False)
    new_connection.HANDLE_STATE_READY = ready_handler
    new_preconnection.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
