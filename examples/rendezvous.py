"""Two peers, neither of which is a server: run it twice, and paste the lines of each to the other.

rendezvous.py [STUN_SERVER | LOCAL_ADDRESS]
"""

import ipaddress
import sys
from itertools import takewhile

import greentaps as taps


def our_end(where):
    """What this machine is to be reached at."""
    end = taps.LocalEndpoint()
    if where is None:
        return end  # every address of every interface
    try:
        ipaddress.ip_address(where)
    except ValueError:
        return end.with_stun_server(where)  # and how the world sees them
    return end.with_ip_address(where)


def tell_the_peer(preconnection):
    """Show our candidates; any way to send them to the peer will do, if nobody else can read it."""
    ours, _ = preconnection.resolve()
    for end in ours:
        print(end.to_text())
    print(flush=True)


def hear_the_peer(preconnection):
    """Read the peer's candidates, up to an empty line."""
    for line in takewhile(str.strip, sys.stdin):
        preconnection.add_remote(taps.RemoteEndpoint.from_text(line))


def main():
    end = our_end(sys.argv[1] if len(sys.argv) > 1 else None)
    wanted = taps.TransportProperties(taps.TransportPropertyProfiles.UNRELIABLE_DATAGRAM)
    preconnection = taps.Preconnection(end, transport_properties=wanted)
    tell_the_peer(preconnection)
    hear_the_peer(preconnection)
    with preconnection.rendezvous(timeout=30) as connection:
        print("found the peer over", connection.stack)
        connection.send(b"hello")
        print("the peer says", connection.receive(timeout=10).data)


if __name__ == "__main__":
    main()
