"""http_server.py in event-driven form: ``python http_server_events.py [PORT]``."""

import contextlib
import sys

import greentaps as taps
from greentaps.framers.http1 import Http1Framer

http = Http1Framer("server")


def answer(connection, request):
    get = request.context.get
    context = taps.MessageContext()
    context.add(http, "headers", [("content-type", "text/plain")])
    if get(http, "target") == "/teapot":
        context.add(http, "status", 418)
    text = f"{get(http, 'method')} {get(http, 'target')}: {request.length} bytes\n"
    connection.send(text.encode(), context, wait=False)
    connection.receive(wait=False)


def main(port=7000):
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(port)
    preconnection = taps.Preconnection(local_endpoint=here).add_framer(http)
    preconnection.on_connection_received(lambda connection: connection.receive(wait=False))
    preconnection.on_received(answer)
    # The client has sent its last request, or something that is not HTTP.
    preconnection.on_receive_error(lambda connection, error: connection.close(wait=False))
    with preconnection.listen() as listener:
        print("listening on port", listener.local_endpoints[0].port, flush=True)
        preconnection.start()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
