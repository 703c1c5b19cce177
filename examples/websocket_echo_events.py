"""websocket_echo.py in event-driven form: both ends in one program."""

import greentaps as taps
from greentaps.framers.websocket import WebSocketFramer

server_side = WebSocketFramer("server", accept=lambda target, headers: target == "/echo")
client_side = WebSocketFramer("client", target="/echo")


def echo(connection, message):
    kind = message.context.get(server_side, "type")
    connection.send(message.data, taps.MessageContext().add(server_side, "type", kind), wait=False)
    connection.receive(wait=False)


def ready(connection):
    text = taps.MessageContext().add(client_side, "type", "text")
    connection.send("grüß dich".encode(), text, wait=False)
    connection.send(bytes(5), wait=False)
    connection.receive(wait=False)


def answered(connection, message):
    kind = message.context.get(client_side, "type")
    print(kind, message.data)
    if kind == "text":
        connection.receive(wait=False)
    else:
        connection.close(wait=False)


def main():
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    server = taps.Preconnection(local_endpoint=here).add_framer(server_side)
    server.on_connection_received(lambda connection: connection.receive(wait=False))
    server.on_received(echo)
    server.on_receive_error(lambda connection, error: connection.close(wait=False))
    listener = server.listen()

    there = taps.RemoteEndpoint().with_hostname("localhost")
    there.with_port(listener.local_endpoints[0].port)
    client = taps.Preconnection(remote_endpoint=there).add_framer(client_side)
    client.on_ready(ready)
    client.on_received(answered)
    client.on_closed(lambda connection: listener.stop())
    client.initiate(timeout=10, wait=False)
    client.start()


if __name__ == "__main__":
    main()
