"""Asking for properties, and seeing what has come of it: both ends in one program."""

import greentaps as taps


def main():
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    with taps.Preconnection(local_endpoint=here).listen() as listener:
        there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
        there.with_port(listener.local_endpoints[0].port)

        # A profile to begin with, then what is different.
        wanted = taps.TransportProperties(taps.TransportPropertyProfiles.RELIABLE_INORDER_STREAM)
        wanted.prefer("keepAlive").avoid("multistreaming")
        wanted.set("keepAliveTimeout", 20).set("connCapacityProfile", "low-latency-interactive")
        client = taps.Preconnection(None, there, wanted)
        with client.initiate(timeout=10) as connection, listener.accept(timeout=10):
            properties = connection.get_properties()
            # Selection Properties now say whether the stack has the feature.
            for name in ("reliability", "preserveMsgBoundaries", "keepAlive", "keepAliveTimeout"):
                print(name, properties.get(name))

            connection.set_property("connTimeout", 30)
            for name, value in (("reliability", taps.AVOID), ("connTimeout", "soon")):
                try:
                    connection.set_property(name, value)
                except taps.PropertyError as error:
                    print(error.code.name, error)

        # What no stack has fails before anything is sent.
        wanted.require("preserveMsgBoundaries")
        try:
            client.initiate(timeout=10)
        except taps.EstablishmentError as error:
            print(error)


if __name__ == "__main__":
    main()
