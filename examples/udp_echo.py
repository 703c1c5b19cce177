"""Messages as datagrams: UDP is chosen by what is asked for.  Both ends in one program."""

import gevent
import greentaps as taps


def echo(listener):
    """A listener makes one Connection for each peer; this one has one."""
    with listener.accept(timeout=10) as connection:
        for _ in range(3):
            connection.send(connection.receive(timeout=10).data)


def main():
    # The profile asks for datagrams, and says that they may arrive twice (safelyReplayable).
    wanted = taps.TransportProperties(taps.TransportPropertyProfiles.UNRELIABLE_DATAGRAM)
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    with taps.Preconnection(here, transport_properties=wanted).listen() as listener:
        serving = gevent.spawn(echo, listener)
        there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
        there.with_port(listener.local_endpoints[0].port)
        client = taps.Preconnection(None, there, wanted)
        with client.initiate(timeout=10) as connection:
            print("over", connection.stack)
            for data in (b"one", b"", b"three"):
                connection.send(data)
                print(connection.receive(timeout=10).data)
            try:
                connection.send(b"x" * 70_000)
            except taps.SendError as error:
                print(error.reason.value)
    serving.join()


if __name__ == "__main__":
    main()
