"""explain.py with handlers: how the race between the ways to a peer went."""

import greentaps as taps


def ready(connection: taps.Connection) -> None:
    for attempt in connection.history.attempts:
        print(f"{attempt.number} {attempt.candidate}: {attempt.fate}")
    print(connection.history.timeline())
    connection.close()


def failed(connection: taps.Connection, error: taps.EstablishmentError) -> None:
    print(f"nobody answered: {error}")
    if error.history is not None:
        print(error.history.text())


def race(port: int) -> None:
    ends = [
        taps.RemoteEndpoint().with_ip_address("127.0.0.1").with_port(number) for number in (1, port)
    ]
    preconnection = taps.Preconnection(remote_endpoint=ends)
    preconnection.on_ready(ready)
    preconnection.on_establishment_error(failed)
    print(preconnection.explain(timeout=5).text())
    preconnection.initiate(timeout=5, wait=False)


def main() -> None:
    listening = taps.Preconnection(taps.LocalEndpoint().with_ip_address("127.0.0.1"))
    listener = listening.listen()
    listener.on_connection_received(lambda connection: listener.stop())
    race(listener.local_endpoints[0].port)
    listening.start()


if __name__ == "__main__":
    main()
