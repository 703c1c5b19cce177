"""A group: Connections to one peer that share their properties.  Both ends in one program."""

import gevent
import greentaps as taps


def serve(listener):
    for connection in listener:
        gevent.spawn(echo, connection)


def echo(connection):
    with connection:
        for line in connection:
            connection.send(line.data)


def main():
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    server = taps.Preconnection(local_endpoint=here).add_framer(taps.LineFramer())
    with server.listen() as listener:
        gevent.spawn(serve, listener)
        there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
        there.with_port(listener.local_endpoints[0].port)
        client = taps.Preconnection(remote_endpoint=there).add_framer(taps.LineFramer())
        first = client.initiate(timeout=10)
        second = first.clone(timeout=10)  # over TCP: one more TCP connection
        urgent = first.clone(connection_properties={"connPriority": 1}, timeout=10)
        print(len(first.grouped_connections()), "in the group")

        first.set_property("connTimeout", 30)  # counts for all of them
        for connection in (first, second, urgent):
            get = connection.get_properties().get
            print("connTimeout", get("connTimeout"), "connPriority", get("connPriority"))

        urgent.send(b"through the clone")
        print(urgent.receive(timeout=10).data.decode())
        first.close_group()
        print(first.state, second.state, urgent.state)


if __name__ == "__main__":
    main()
