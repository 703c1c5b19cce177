"""What refused, unknown, silent and untrusted servers look like to a client."""

import socket
import tempfile

import greentaps as taps
from greentaps.certificates import CertificateAuthority


def attempt(what, host, port, security=None, timeout=10):
    """Connect, and print what went wrong."""
    there = taps.RemoteEndpoint().with_hostname(host).with_port(port)
    preconnection = taps.Preconnection(remote_endpoint=there, security_parameters=security)
    try:
        preconnection.initiate(timeout).close()
    except taps.EstablishmentError as error:
        print(f"{what}: {error.reason.value}")
        for candidate, cause in error.attempts:
            print(f"  {candidate}: {type(cause).__name__}: {cause}")


def listen(security=None):
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    listener = taps.Preconnection(local_endpoint=here, security_parameters=security).listen()
    return listener, listener.local_endpoints[0].port


def main():
    with socket.socket() as unused:  # bound, but it does not listen
        unused.bind(("127.0.0.1", 0))
        attempt("refused", "127.0.0.1", unused.getsockname()[1])

    attempt("unknown host", "nowhere.invalid", 7000)

    silent, port = listen()  # TCP without TLS: it never answers a handshake
    with silent:
        attempt("silent", "127.0.0.1", port, taps.SecurityParameters(), timeout=0.5)

    with tempfile.TemporaryDirectory() as folder:
        identity = CertificateAuthority("a stranger").issue("localhost").write(folder, "server")
        secured, port = listen(taps.SecurityParameters().add_identity(identity))
    with secured:
        attempt("wrong certificate", "localhost", port, taps.SecurityParameters())


if __name__ == "__main__":
    main()
