"""timeouts.py in event-driven form: a timer beside the handlers.  Both ends in one program."""

import gevent
import greentaps as taps


def main():
    def ready(connection):
        connection.receive(min_incomplete_length=14, wait=False)
        timers.append(gevent.spawn_later(0.05, too_late, connection))

    def too_late(connection):
        print("no 14 bytes yet")  # the request stands, and nothing is lost
        for peer in peers:
            peer.send(b"message", wait=False)
        timers.append(gevent.spawn_later(10, connection.abort))

    def received(connection, message):
        for timer in timers:
            timer.kill()
        print(message.data.decode())
        listener.stop()
        for one in (connection, *peers):
            one.close(timeout=5, wait=False)

    def begin(connection):
        peers.append(connection)
        connection.send(b"half a ", wait=False)

    timers, peers = [], []
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    listener = taps.Preconnection(local_endpoint=here).listen()
    listener.on_connection_received(begin)

    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
    there.with_port(listener.local_endpoints[0].port)
    client = taps.Preconnection(remote_endpoint=there)
    client.on_ready(ready)
    client.on_received_partial(received)
    client.initiate(timeout=10, wait=False)
    client.start()


if __name__ == "__main__":
    main()
