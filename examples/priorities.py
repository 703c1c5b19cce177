"""Urgent, stale and final Messages: both ends in one program."""

import gevent
import greentaps as taps


def connected_pair():
    """A Connection to ourselves, and the other end of it."""
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    with taps.Preconnection(here).add_framer(taps.LineFramer()).listen() as listener:
        there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
        there.with_port(listener.local_endpoints[0].port)
        near = taps.Preconnection(None, there).add_framer(taps.LineFramer()).initiate(timeout=10)
        return near, listener.accept(timeout=10)


def send(connection, text, name, value):
    context = taps.MessageContext().add(name, value)
    try:
        connection.send(text.encode(), context)  # blocks until it is sent
    except taps.Expired:
        print(text, "expired")


def main():
    near, far = connected_pair()
    with near, far:
        with near.batch():  # holds Messages back, as a slow peer would
            gevent.spawn(send, near, "slow", "msgPriority", 200)
            gevent.spawn(send, near, "stale", "msgLifetime", 0.01)  # seconds
            gevent.spawn(send, near, "urgent", "msgPriority", 1)
            gevent.spawn(send, near, "last", "final", True)  # nothing may be sent after it
            gevent.sleep(0.1)
        for message in far:
            print(message.data.decode())


if __name__ == "__main__":
    main()
