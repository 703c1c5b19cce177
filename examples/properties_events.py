"""properties.py in event-driven form: both ends in one program."""

import greentaps as taps


def main():
    def ready(connection):
        properties = connection.get_properties()
        # Selection Properties now say whether the stack has the feature.
        for name in ("reliability", "preserveMsgBoundaries", "keepAlive", "keepAliveTimeout"):
            print(name, properties.get(name))
        for name, value in (("reliability", taps.AVOID), ("connTimeout", "soon")):
            try:
                connection.set_property(name, value)  # at once, in either form
            except taps.PropertyError as error:
                print(error.code.name, error)
        connection.close(wait=False)

    def failed(connection, error):
        print(error)

    def closed(connection):
        listener.stop()
        # What no stack has fails before anything is sent.
        wanted.require("preserveMsgBoundaries")
        client.initiate(timeout=10, wait=False)

    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    listener = taps.Preconnection(local_endpoint=here).listen()
    listener.on_connection_received(lambda connection: connection.close(wait=False))

    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
    there.with_port(listener.local_endpoints[0].port)
    wanted = taps.TransportProperties(taps.TransportPropertyProfiles.RELIABLE_INORDER_STREAM)
    wanted.prefer("keepAlive").set("keepAliveTimeout", 20)
    client = taps.Preconnection(None, there, wanted)
    client.on_ready(ready)
    client.on_establishment_error(failed)
    client.on_closed(closed)
    client.initiate(timeout=10, wait=False)
    client.start()


if __name__ == "__main__":
    main()
