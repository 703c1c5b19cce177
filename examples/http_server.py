"""An HTTP/1.1 server: each Message is a request or a response: ``python http_server.py [PORT]``."""

import contextlib
import sys

import gevent
import greentaps as taps
from greentaps.framers.http1 import Http1Framer

http = Http1Framer("server")


def answer(request):
    """The body and the context of the response: the request's metadata are in its context."""
    get = request.context.get
    context = taps.MessageContext()
    context.add(http, "headers", [("content-type", "text/plain")])
    if get(http, "target") == "/teapot":
        context.add(http, "status", 418)
    return f"{get(http, 'method')} {get(http, 'target')}: {request.length} bytes\n", context


def serve(connection):
    with connection:
        for request in connection:  # as long as the client keeps the connection
            text, context = answer(request)
            connection.send(text.encode(), context)


def main(port=7000):
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(port)
    with taps.Preconnection(local_endpoint=here).add_framer(http).listen() as listener:
        print("listening on port", listener.local_endpoints[0].port, flush=True)
        for connection in listener:
            gevent.spawn(serve, connection)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
