"""PyOuroboros' echo, in today's names: ``python older_ouroboros_echo.py [-l] [PORT]``."""

import argparse
import contextlib

import greentaps as taps


def client(port):
    peer = taps.RemoteEndpoint().with_hostname("localhost").with_port(port)
    preconnection = taps.Preconnection(remote_endpoint=peer).add_framer(taps.LineFramer())
    with preconnection.initiate(timeout=10) as flow:
        flow.send(b"Hello, PyOuroboros!")
        print(flow.receive().data.decode())


def server(port):
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1").with_port(port)
    with taps.Preconnection(here).add_framer(taps.LineFramer()).listen() as listener:
        print("listening on port", listener.local_endpoints[0].port, flush=True)
        for flow in listener:
            with flow:
                line = flow.receive().data
                flow.send(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A simple echo client/server")
    parser.add_argument("-l", "--listen", help="run as a server", action="store_true")
    parser.add_argument("port", type=int, nargs="?", default=7000)
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        server(args.port) if args.listen else client(args.port)
