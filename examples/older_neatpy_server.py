"""NEATPy's server, in today's names: ``python older_neatpy_server.py [PORT]``."""

import contextlib
import sys

import greentaps as taps


def received_handler(connection, message, context, is_end, error):
    if error is None:
        connection.send(b"Hello from server", sent_handler=sent_handler)
    else:
        connection.close(wait=False)


def sent_handler(connection, error):
    connection.close(wait=False)


def new_connection_received(connection):
    connection.receive(handler=received_handler, min_incomplete_length=1)


def main(port=5000):
    local_specifier = taps.LocalEndpoint()
    local_specifier.with_ip_address("127.0.0.1")
    local_specifier.with_port(port)

    transport_properties = taps.TransportProperties()
    # Selection Properties can be set with the add call...
    transport_properties.add("reliability", taps.REQUIRE)
    # Or one of the convenient functions:
    transport_properties.prohibit("preserveMsgBoundaries")

    new_preconnection = taps.Preconnection(
        local_endpoint=local_specifier, transport_properties=transport_properties
    )
    with new_preconnection.listen() as new_listener:
        new_listener.on_connection_received(new_connection_received)
        print("listening on port", new_listener.local_endpoints[0].port, flush=True)
        new_preconnection.start()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
