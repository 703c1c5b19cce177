"""A program that patches the standard library, before or after it imports greentaps:
``patched.py before|after PEM CA``.  It prints what it has done."""

# ruff: noqa: E402

import sys

moment, identity, authority = sys.argv[1:]
if moment == "before":
    from gevent import monkey

    monkey.patch_all()

import os
import socket
import ssl
import threading

import gevent
import greentaps as taps

if moment == "after":
    import warnings

    from gevent import monkey

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gevent's, that ssl has been imported
        monkey.patch_all()


def upper(connection):
    with connection:
        for message in connection:
            connection.send(message.data.upper())


def serve(listener):
    for connection in listener:
        gevent.spawn(upper, connection)


def ask(preconnection, data):
    with preconnection.initiate(timeout=10) as connection:
        connection.send(data)
        return connection.receive(timeout=10).data.decode()


def main():
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    secure = taps.SecurityParameters().add_identity(identity, role="server")
    stream = taps.Preconnection(here, None, None, secure).add_framer(taps.LineFramer()).listen()
    wanted = taps.TransportProperties("unreliable-datagram")
    datagrams = taps.Preconnection(here, None, wanted).listen()
    for listener in (stream, datagrams):
        gevent.spawn(serve, listener)

    there = taps.RemoteEndpoint().with_hostname("localhost")
    there.with_port(stream.local_endpoints[0].port)
    trusting = taps.SecurityParameters().add_trust_ca(authority)
    client = taps.Preconnection(None, there, None, trusting).add_framer(taps.LineFramer())
    print(ask(client, b"tls"))

    # In what is a greenlet here, and a thread to the program.
    found = []
    thread = threading.Thread(target=lambda: found.append(ask(client, b"thread")))
    thread.start()
    thread.join(10)
    print(*found)

    there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
    there.with_port(datagrams.local_endpoints[0].port)
    print(ask(taps.Preconnection(None, there, wanted), b"udp"))

    address = ("127.0.0.1", stream.local_endpoints[0].port)
    context = ssl.create_default_context(cafile=authority)
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as peer,
    ):
        peer.sendall(b"socket\n")
        print(peer.recv(100).decode().strip())
        peer.unwrap()

    transport, _ = taps.create_connection(taps.Protocol, address, ssl=context, timeout=10)
    print(transport.get_extra_info("tls_version"))
    transport.abort()
    print("path" if taps.survey().paths else "no path", flush=True)

    child = os.fork()
    if not child:
        gevent.get_hub().exception_stream = None  # the parent's servers end here, and would say so
        fresh = taps.Preconnection(here).add_framer(taps.LineFramer()).listen()
        gevent.spawn(serve, fresh)
        there.with_port(fresh.local_endpoints[0].port)
        print(ask(taps.Preconnection(None, there).add_framer(taps.LineFramer()), b"child"))
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    stream.stop()
    datagrams.stop()


main()
