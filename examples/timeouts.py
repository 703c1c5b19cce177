"""Giving up waiting, and going on afterwards: both ends in one program."""

import gevent
import greentaps as taps


def connected_pair():
    """A Connection to ourselves, and the other end of it."""
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    with taps.Preconnection(local_endpoint=here).listen() as listener:
        port = listener.local_endpoints[0].port
        there = taps.RemoteEndpoint().with_ip_address("127.0.0.1").with_port(port)
        near = taps.Preconnection(remote_endpoint=there).initiate(timeout=10)
        return near, listener.accept(timeout=10)


def main():
    near, far = connected_pair()
    far.send(b"half a ")

    # timeout= covers one call.  What has arrived is not lost.
    try:
        near.receive(min_incomplete_length=14, timeout=0.05)
    except taps.Timeout:
        print("no 14 bytes yet")

    # gevent.Timeout covers as many calls as you like, ours and others.
    with gevent.Timeout(0.05, False):
        near.receive(min_incomplete_length=14)
        print("not reached")

    far.send(b"message")
    print(near.receive(min_incomplete_length=14, timeout=10).data.decode())
    near.close(timeout=5)
    far.close(timeout=5)


if __name__ == "__main__":
    main()
