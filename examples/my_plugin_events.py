"""my_plugin.py in event-driven form.  The plugin is the same: it does not know the difference."""

import greentaps as taps


def main():
    def connection_received(connection):
        listener.stop()
        connection.send(b"hello", wait=False)
        connection.close(wait=False)

    def ready(connection):
        connection.receive(min_incomplete_length=1, wait=False)

    def received(connection, message):
        print(connection.stack, message.data)
        connection.close(wait=False)

    wanted = taps.TransportProperties().avoid("fullChecksumSend").avoid("fullChecksumRecv")
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(7000)
    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1").with_port(7000)
    listener = taps.Preconnection(here, transport_properties=wanted).listen()
    listener.on_connection_received(connection_received)
    client = taps.Preconnection(None, there, wanted)
    client.on_ready(ready)
    client.on_received_partial(received)
    client.on_received(received)  # if its end has come as well
    client.initiate(timeout=10, wait=False)
    client.start()


if __name__ == "__main__":
    main()
