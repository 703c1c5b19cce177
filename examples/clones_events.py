"""clones.py in event-driven form: both ends in one program."""

import greentaps as taps


def main():
    def echo(connection, line):
        connection.send(line.data, wait=False)
        connection.receive(wait=False)

    def ready(connection):
        group = connection.grouped_connections()
        if len(group) < 3:
            connection.clone(wait=False)  # whose Ready comes here too
        else:
            group[0].set_property("connTimeout", 30)  # counts for all of them
            connection.send(b"through the clone", wait=False)
            connection.receive(wait=False)

    def answered(connection, line):
        group = connection.grouped_connections()
        for member in group:
            print("connTimeout", member.get_properties().get("connTimeout"))
        print(line.data.decode())
        listener.stop()
        for member in group:
            member.close(wait=False)

    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    server = taps.Preconnection(local_endpoint=here).add_framer(taps.LineFramer())
    server.on_connection_received(lambda connection: connection.receive(wait=False))
    server.on_received(echo)
    server.on_receive_error(lambda connection, error: connection.close(wait=False))
    listener = server.listen()

    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
    there.with_port(listener.local_endpoints[0].port)
    client = taps.Preconnection(remote_endpoint=there).add_framer(taps.LineFramer())
    client.on_ready(ready)
    client.on_clone_error(lambda connection, error: print(error))
    client.on_received(answered)
    client.on_closed(lambda connection: print("closed"))
    client.initiate(timeout=10, wait=False)
    client.start()


if __name__ == "__main__":
    main()
