"""http_client.py in event-driven form: ``python http_client_events.py [PORT [HOST]]``."""

import sys

import greentaps as taps
from greentaps.framers.http1 import Http1Framer

http = Http1Framer("client")


def main(port=7000, host="localhost"):
    requests = [("GET", "/", b""), ("PUT", "/teapot", b"tea")]

    def ask(connection):
        method, target, body = requests.pop(0)
        context = taps.MessageContext().add(http, "method", method).add(http, "target", target)
        connection.send(body, context, wait=False)
        connection.receive(wait=False)

    def answered(connection, response):
        print(response.context.get(http, "status"), response.data.decode(), end="")
        if requests:
            ask(connection)
        else:
            connection.close(wait=False)

    there = taps.RemoteEndpoint().with_hostname(host).with_port(port)
    preconnection = taps.Preconnection(remote_endpoint=there).add_framer(http)
    preconnection.on_ready(ask)
    preconnection.on_received(answered)
    preconnection.initiate(timeout=10, wait=False)
    preconnection.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
