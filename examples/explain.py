"""Which ways there are to a peer, and how the race between them went.  Run it: it needs no peer."""

import greentaps as taps


def main() -> None:
    local = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    with taps.Preconnection(local).listen() as listener:
        open_port = listener.local_endpoints[0].port
        dead, alive = (
            taps.RemoteEndpoint().with_ip_address("127.0.0.1").with_port(port)
            for port in (1, open_port)
        )
        race(taps.Preconnection(remote_endpoint=[dead, alive]))


def race(preconnection: taps.Preconnection) -> None:
    explanation = preconnection.explain(timeout=5)
    print(explanation.text())
    for node in explanation.tree.walk():
        if node.cut:
            print(f"{node.what} is not tried: {node.cut}")

    # A race, and what became of each candidate.
    with preconnection.initiate(timeout=5) as connection:
        for attempt in connection.history.attempts:
            print(f"{attempt.number} {attempt.candidate}: {attempt.fate}")
        print(connection.history.timeline())


if __name__ == "__main__":
    main()
