"""echo_client.py in event-driven form: ``python echo_client_events.py [PORT [TEXT]]``."""

import sys

import greentaps as taps


def main(port=7000, text="hello"):
    def ready(connection):
        print("connected by", connection.stack)
        connection.send(text.encode(), taps.MessageContext().add("final", True), wait=False)
        connection.receive(wait=False)

    def received(connection, message):
        print("received", message.data.decode())
        connection.close(wait=False)

    server = taps.RemoteEndpoint().with_hostname("localhost").with_port(port)
    preconnection = taps.Preconnection(remote_endpoint=server)
    preconnection.on_ready(ready)
    preconnection.on_establishment_error(lambda connection, error: print(error))
    preconnection.on_received(received)
    preconnection.on_connection_error(lambda connection, error: print(error))
    preconnection.on_closed(lambda connection: print("closed"))
    preconnection.initiate(timeout=10, wait=False)
    preconnection.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
