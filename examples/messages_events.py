"""messages.py in event-driven form: both ends frame with a length, in one program."""

import greentaps as taps


def shout(connection, message):
    connection.send(message.data.upper(), wait=False)
    connection.receive(wait=False)


def ask(connection):
    for text in (b"one", b"", b"three" * 3):
        connection.send(text, wait=False)
    connection.receive(wait=False)


def main():
    answers = []

    def answered(connection, message):
        print(message)
        answers.append(message)
        if len(answers) < 3:
            connection.receive(wait=False)
        else:
            connection.close(wait=False)

    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    server = taps.Preconnection(local_endpoint=here).add_framer(taps.LengthPrefixFramer())
    server.on_connection_received(lambda connection: connection.receive(wait=False))
    server.on_received(shout)
    server.on_receive_error(lambda connection, error: connection.close(wait=False))
    listener = server.listen()
    port = listener.local_endpoints[0].port

    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1").with_port(port)
    client = taps.Preconnection(remote_endpoint=there).add_framer(taps.LengthPrefixFramer())
    client.on_ready(ask)
    client.on_received(answered)
    client.on_closed(lambda connection: listener.stop())
    client.initiate(timeout=10, wait=False)
    client.start()


if __name__ == "__main__":
    main()
