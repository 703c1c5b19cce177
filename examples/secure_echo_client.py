"""A client of secure_echo_server.py: ``python secure_echo_client.py --trust ca.pem``.

Without --trust the system's certificates decide, as they should for a server on the Internet.
"""

import argparse

import greentaps as taps


def main(host, port, trust, text):
    security = taps.SecurityParameters()
    if trust:
        security.add_trust_ca(trust)
    preconnection = taps.Preconnection(
        remote_endpoint=taps.RemoteEndpoint().with_hostname(host).with_port(port),
        security_parameters=security,
    )
    with preconnection.initiate(timeout=10) as connection:
        info = connection.transport.get_extra_info
        print("connected by", connection.stack, "with", info("tls_version"))
        connection.send(text.encode(), taps.MessageContext().add("final", True))
        print("received", connection.receive(timeout=10).data.decode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--trust", help="PEM file: the authority that has signed the server")
    parser.add_argument("--text", default="hello")
    main(**vars(parser.parse_args()))
