"""A client of echo_server.py, over TCP: ``python echo_client.py [PORT [TEXT]]``."""

import sys

import greentaps as taps


def main(port=7000, text="hello"):
    server = taps.RemoteEndpoint().with_hostname("localhost").with_port(port)
    preconnection = taps.Preconnection(remote_endpoint=server)
    with preconnection.initiate(timeout=10) as connection:
        print("connected by", connection.stack)
        connection.send(text.encode(), taps.MessageContext().add("final", True))
        print("received", connection.receive(timeout=10).data.decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
