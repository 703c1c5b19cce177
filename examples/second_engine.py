"""TLS with pyOpenSSL instead of the standard library: ``second_engine.py server.pem ca.pem``.

The client sees each certificate of the chain.  The server keeps to the standard library: the two
engines speak the same TLS.
"""

import sys

import greentaps as taps
from gevent.event import AsyncResult
from OpenSSL import SSL


class Hello(taps.Protocol):
    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


class Collect(taps.Protocol):
    def connection_made(self, transport):
        self.received = AsyncResult()

    def data_received(self, data):
        self.received.set(data)


def show(connection, certificate, error, depth, ok):
    subject = certificate.to_cryptography().subject.rfc4514_string()
    print(f"depth {depth}: {subject}: {'good' if ok else f'error {error}'}")
    return ok


def main(identity, trust):
    server_context = taps.create_default_context(True)
    server_context.load_cert_chain(identity)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.load_verify_locations(trust)
    context.set_verify(SSL.VERIFY_PEER, show)  # pyOpenSSL verifies nothing by default
    with taps.Server(Hello) as server, taps.Client(Collect, timeout=10) as client:
        server.listen(("127.0.0.1", 0), ssl=server_context)
        client.connect(("localhost", server.addresses[0][1]), ssl=context)
        print("received", client.protocol.received.get(timeout=10).decode())
        print(type(client.transport.get_extra_info("ssl")))


if __name__ == "__main__":
    main(*sys.argv[1:])
