"""udp_echo.py in event-driven form: both ends in one program."""

import greentaps as taps


def main():
    peers = []
    answers = []

    def begin(connection):
        peers.append(connection)
        connection.receive(wait=False)

    def echo(connection, message):
        connection.send(message.data, wait=False)
        connection.receive(wait=False)

    def ready(connection):
        print("over", connection.stack)
        for data in (b"one", b"", b"three", b"x" * 70_000):
            connection.send(data, wait=False)
        connection.receive(wait=False)

    def answered(connection, message):
        print(message.data)
        answers.append(message)
        if len(answers) < 3:
            connection.receive(wait=False)
        else:
            connection.close(wait=False)

    def closed(connection):
        listener.stop()
        for peer in peers:  # UDP does not tell them
            peer.close(wait=False)

    wanted = taps.TransportProperties(taps.TransportPropertyProfiles.UNRELIABLE_DATAGRAM)
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    server = taps.Preconnection(here, transport_properties=wanted)
    server.on_connection_received(begin)
    server.on_received(echo)
    listener = server.listen()

    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
    there.with_port(listener.local_endpoints[0].port)
    client = taps.Preconnection(None, there, wanted)
    client.on_ready(ready)
    client.on_send_error(lambda connection, context, error: print(error.reason.value))
    client.on_received(answered)
    client.on_closed(closed)
    client.initiate(timeout=10, wait=False)
    client.start()


if __name__ == "__main__":
    main()
