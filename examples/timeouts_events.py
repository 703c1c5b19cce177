"""timeouts.py in event-driven form: a timer beside the handlers.  Both ends in one program."""

import gevent
import greentaps as taps


def begin(connection):
    connection.send(b"half a ", wait=False)
    connection.receive(min_incomplete_length=1, wait=False)


def go_on(connection, message):
    connection.send(b"message", wait=False)
    connection.close(timeout=5, wait=False)  # after what was sent


def main():
    def ready(connection):
        connection.receive(min_incomplete_length=14, wait=False)
        timers.append(gevent.spawn_later(0.05, too_late, connection))
        timers.append(gevent.spawn_later(10, connection.abort))

    def too_late(connection):
        print("no 14 bytes yet")  # the request stands, and nothing is lost
        connection.send(b"go on", wait=False)

    def received(connection, message):
        print(message.data.decode())
        gevent.killall(timers)
        listener.stop()
        connection.close(timeout=5, wait=False)

    timers = []
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    server = taps.Preconnection(local_endpoint=here)
    server.on_received_partial(go_on)
    listener = server.listen()
    listener.on_connection_received(begin)

    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
    there.with_port(listener.local_endpoints[0].port)
    client = taps.Preconnection(remote_endpoint=there)
    client.on_ready(ready)
    client.on_received_partial(received)
    client.on_received(received)  # it has come with the end
    client.initiate(timeout=10, wait=False)
    client.start()


if __name__ == "__main__":
    main()
