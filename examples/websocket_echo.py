"""WebSocket in both directions: both ends in one program."""

import gevent
import greentaps as taps
from greentaps.framers.websocket import WebSocketFramer


def echo(listener, framer):
    with listener.accept(timeout=10) as connection:
        for message in connection:
            kind = message.context.get(framer, "type")
            connection.send(message.data, taps.MessageContext().add(framer, "type", kind))


def main():
    server_side = WebSocketFramer("server", accept=lambda target, headers: target == "/echo")
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    with taps.Preconnection(local_endpoint=here).add_framer(server_side).listen() as listener:
        serving = gevent.spawn(echo, listener, server_side)
        there = taps.RemoteEndpoint().with_hostname("localhost")
        there.with_port(listener.local_endpoints[0].port)
        framer = WebSocketFramer("client", target="/echo")
        client = taps.Preconnection(remote_endpoint=there).add_framer(framer)
        # The framer's handshake is part of the establishment, and its goodbye of the close.
        with client.initiate(timeout=10) as connection:
            text = taps.MessageContext().add(framer, "type", "text")
            connection.send("grüß dich".encode(), text)
            connection.send(bytes(5))
            for _ in range(2):
                message = connection.receive(timeout=10)
                print(message.context.get(framer, "type"), message.data)
    serving.join()


if __name__ == "__main__":
    main()
