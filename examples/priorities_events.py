"""priorities.py in event-driven form: both ends in one program."""

import gevent
import greentaps as taps

TEXTS = {}  # MessageContext -> what was sent with it


def send(connection, text, name, value):
    context = taps.MessageContext().add(name, value)
    TEXTS[context] = text
    connection.send(text.encode(), context, wait=False)


def ready(connection):
    with connection.batch():  # holds Messages back, as a slow peer would
        send(connection, "slow", "msgPriority", 200)
        send(connection, "stale", "msgLifetime", 0.01)  # seconds
        send(connection, "urgent", "msgPriority", 1)
        send(connection, "last", "final", True)  # nothing may be sent after it
        gevent.sleep(0.1)


def expired(connection, context):
    print(TEXTS[context], "expired")


def received(connection, message):
    print(message.data.decode())
    connection.receive(wait=False)


def close(connection, error):
    connection.close(wait=False)


def main():
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    server = taps.Preconnection(local_endpoint=here).add_framer(taps.LineFramer())
    server.on_connection_received(lambda connection: connection.receive(wait=False))
    server.on_received(received)
    server.on_receive_error(close)
    listener = server.listen()

    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
    there.with_port(listener.local_endpoints[0].port)
    client = taps.Preconnection(remote_endpoint=there).add_framer(taps.LineFramer())
    client.on_ready(ready)
    client.on_expired(expired)
    client.on_receive_error(close)  # the server has nothing to say
    client.on_closed(lambda connection: listener.stop())
    client.initiate(timeout=10, wait=False).receive(wait=False)
    client.start()


if __name__ == "__main__":
    main()
