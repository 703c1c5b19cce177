"""rendezvous.py in event-driven form: two peers, neither of which is a server.

rendezvous_events.py [LOCAL_ADDRESS]
"""

import sys
from itertools import takewhile

import greentaps as taps


def main():
    def done(connection):
        print("found the peer over", connection.stack, flush=True)
        connection.receive(wait=False)
        connection.send(b"hello", wait=False)

    def received(connection, message):
        print("the peer says", message.data, flush=True)
        connection.close(wait=False)

    def failed(connection, error):
        print(error, flush=True)

    wanted = taps.TransportProperties(taps.TransportPropertyProfiles.UNRELIABLE_DATAGRAM)
    end = taps.LocalEndpoint()  # every address of every interface
    if len(sys.argv) > 1:
        end = end.with_ip_address(sys.argv[1])
    preconnection = taps.Preconnection(end, transport_properties=wanted)
    preconnection.on_rendezvous_done(done)
    preconnection.on_received(received)
    preconnection.on_establishment_error(failed)

    ours, _ = preconnection.resolve()
    for end in ours:
        print(end.to_text())
    print(flush=True)
    first, *later = takewhile(str.strip, sys.stdin)
    preconnection.add_remote(taps.RemoteEndpoint.from_text(first))
    connection = preconnection.rendezvous(timeout=30, wait=False)
    # What comes later, as with trickle ICE, is told to the Connection.
    connection.add_remote([taps.RemoteEndpoint.from_text(line) for line in later])
    preconnection.start()


if __name__ == "__main__":
    main()
