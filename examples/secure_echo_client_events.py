"""secure_echo_client.py in event-driven form: ``... --trust ca.pem``.

It decides itself whether to trust the server, and prints what it was asked.
"""

import argparse

import greentaps as taps


def judge(question):
    """In a greenlet of its own: nothing of ours is sent before this returns True."""
    print("is this", question.server_name, "- the verification says:", question.error or "yes")
    return question.error is None


def ready(connection):
    info = connection.transport.get_extra_info
    print("connected by", connection.stack, "with", info("tls_version"))
    connection.send(b"hello", taps.MessageContext().add("final", True), wait=False)
    connection.receive(wait=False)


def received(connection, message):
    print("received", message.data.decode())
    connection.close(wait=False)


def main(host, port, trust):
    security = taps.SecurityParameters().set_trust_verification_callback(judge)
    if trust:
        security.add_trust_ca(trust)
    preconnection = taps.Preconnection(
        remote_endpoint=taps.RemoteEndpoint().with_hostname(host).with_port(port),
        security_parameters=security,
    )
    preconnection.on_ready(ready)
    preconnection.on_received(received)
    preconnection.on_establishment_error(lambda connection, error: print(error.reason.value))
    preconnection.initiate(timeout=10, wait=False)
    preconnection.start()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--trust", help="PEM file: the authority that has signed the server")
    main(**vars(parser.parse_args()))
