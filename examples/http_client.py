"""Two requests on one connection: ``python http_client.py [PORT [HOST]]``."""

import sys

import greentaps as taps
from greentaps.framers.http1 import Http1Framer

http = Http1Framer("client")


def request(connection, method, target, body=b""):
    context = taps.MessageContext().add(http, "method", method).add(http, "target", target)
    connection.send(body, context)
    response = connection.receive(timeout=10)
    get = response.context.get
    print(get(http, "status"), get(http, "reason"), dict(get(http, "headers")))
    print(response.data.decode(), end="")


def main(port=7000, host="localhost"):
    there = taps.RemoteEndpoint().with_hostname(host).with_port(port)
    preconnection = taps.Preconnection(remote_endpoint=there).add_framer(http)
    with preconnection.initiate(timeout=10) as connection:
        request(connection, "GET", "/")
        request(connection, "PUT", "/teapot", b"tea")


if __name__ == "__main__":
    main(*sys.argv[1:])
