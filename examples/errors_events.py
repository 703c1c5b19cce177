"""errors.py in event-driven form: what went wrong comes to a handler."""

import socket

import greentaps as taps


def attempt(what, host, port):
    def failed(connection, error):
        print(f"{what}: {error.reason.value}, the connection is {connection.state}")
        for candidate, cause in error.attempts:
            print(f"  {candidate}: {type(cause).__name__}: {cause}")

    there = taps.RemoteEndpoint().with_hostname(host).with_port(port)
    preconnection = taps.Preconnection(remote_endpoint=there)
    preconnection.on_establishment_error(failed)
    preconnection.on_send_error(lambda connection, context, error: print("not sent"))
    connection = preconnection.initiate(timeout=10, wait=False)
    connection.send(b"kept until Ready, which does not come", wait=False)
    preconnection.start()


def main():
    with socket.socket() as unused:  # bound, but it does not listen
        unused.bind(("127.0.0.1", 0))
        attempt("refused", "127.0.0.1", unused.getsockname()[1])
    attempt("unknown host", "nowhere.invalid", 7000)


if __name__ == "__main__":
    main()
