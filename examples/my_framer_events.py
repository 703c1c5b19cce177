"""my_framer.py in event-driven form.  The framer is the same: it does not know the difference."""

import greentaps as taps
from my_framer import END, ESCAPED_END, Slip


def main():
    to_send = [b"hello", b"", END + ESCAPED_END]

    def connection_received(connection):
        listener.stop()
        connection.on_received(lambda connection, message: echo(connection, message.data))
        connection.receive(wait=False)

    def echo(connection, data):
        connection.send(data, wait=False)
        connection.receive(wait=False)

    def send_next(connection):
        if to_send:
            connection.send(to_send.pop(0), wait=False)
            connection.receive(wait=False)
        else:
            connection.close(wait=False)

    def received(connection, message):
        print(message.data)
        send_next(connection)

    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    listener = taps.Preconnection(local_endpoint=here).add_framer(Slip()).listen()
    listener.on_connection_received(connection_received)

    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
    there.with_port(listener.local_endpoints[0].port)
    client = taps.Preconnection(remote_endpoint=there).add_framer(Slip())
    client.on_ready(send_next)
    client.on_received(received)
    client.initiate(timeout=10, wait=False)
    client.start()


if __name__ == "__main__":
    main()
