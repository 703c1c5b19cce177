"""One peer of a rendezvous in a process of its own.

Its candidates go to standard output, a line each, and then an empty line; the other peer's come
from standard input in the same way.  Then it says what it has got, sends a Message, and shows the
one that it receives.

    peer.py udp|tcp [--stun HOST:PORT] [--turn HOST:PORT USER PASSWORD] [--pem FILE CA]
"""

from __future__ import annotations

import argparse
import json
import sys

from greentaps import (
    EstablishmentError,
    LocalEndpoint,
    Preconnection,
    RemoteEndpoint,
    SecurityParameters,
    TransportProperties,
)


def server(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["udp", "tcp"])
    parser.add_argument("--stun", type=server)
    parser.add_argument("--turn", nargs=3)
    parser.add_argument("--pem", nargs=2)
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--idle", type=float, default=0.0)
    options = parser.parse_args()
    end = LocalEndpoint()
    if options.stun:
        end.with_stun_server(*options.stun)
    if options.turn:
        end.with_turn_server(*server(options.turn[0]), tuple(options.turn[1:]))
    security = None
    if options.pem:
        security = SecurityParameters().add_identity(options.pem[0]).add_trust_ca(options.pem[1])
    preconnection = Preconnection(
        end,
        transport_properties=(
            TransportProperties("unreliable-datagram") if options.kind == "udp" else None
        ),
        security_parameters=security,
    )
    locals_, _ = preconnection.resolve()
    for one in locals_:
        print(one.to_text())
    print(flush=True)
    for line in iter(sys.stdin.readline, ""):
        if not line.strip():
            break
        preconnection.add_remote(RemoteEndpoint.from_text(line))
    try:
        connection = preconnection.rendezvous(options.timeout)
    except EstablishmentError as error:
        say(error=str(error), reason=error.reason.value)
        return 1
    with connection:
        say(
            local=connection.local_endpoint.ip_address,
            remote=connection.remote_endpoint.ip_address,
            stack=connection.stack,
        )
        # A datagram may be lost: until both have said that they have heard, each says it again.
        connection.send(b"hello")
        message = connection.receive(min_incomplete_length=1, timeout=10)
        say(received=bytes(message.data).decode())
        sys.stdin.readline()  # the test ends it: nobody goes before the other has heard
    return 0


if __name__ == "__main__":
    sys.exit(main())
