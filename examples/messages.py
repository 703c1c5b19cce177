"""Messages instead of bytes: both ends frame with a length, in one program."""

import gevent
import greentaps as taps


def shout(listener):
    """Answer each Message with one of its own."""
    for connection in listener:
        with connection:
            for message in connection:
                connection.send(message.data.upper())


def main():
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    server = taps.Preconnection(local_endpoint=here).add_framer(taps.LengthPrefixFramer())
    with server.listen() as listener:
        serving = gevent.spawn(shout, listener)
        port = listener.local_endpoints[0].port

        there = taps.RemoteEndpoint().with_ip_address("127.0.0.1").with_port(port)
        client = taps.Preconnection(remote_endpoint=there).add_framer(taps.LengthPrefixFramer())
        with client.initiate(timeout=10) as connection:
            for text in (b"one", b"", b"three" * 3):
                connection.send(text)
            for _ in range(3):
                print(connection.receive(timeout=10))
    serving.join()


if __name__ == "__main__":
    main()
