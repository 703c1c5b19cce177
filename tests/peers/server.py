"""A server of ours in a process of its own, to be sent signals: ``server.py HOW``.

It prints its port first.  ``run``: `Server.run` until SIGINT, then says what is left open.
``main``: the main greenlet just waits for an interrupt.  ``beside run``, ``beside start``: another
thread is struck by a SIGINT while `Server.run` or `Preconnection.start` waits.  "interrupt", "exit"
or "error" as data makes the protocol raise KeyboardInterrupt, SystemExit or ValueError inside the
callback.
"""

import gc
import signal
import sys
import threading
import time

import gevent
import greentaps
from greentaps.hub import get_runner


class Echo(greentaps.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data.startswith(b"interrupt"):
            raise KeyboardInterrupt
        if data.startswith(b"exit"):
            raise SystemExit(7)
        if data.startswith(b"error"):
            raise ValueError("a bug of the application")
        self.transport.write(data)

    def connection_lost(self, exc):
        print("lost", repr(exc), flush=True)


def strike() -> None:
    time.sleep(0.2)  # until the main thread waits, most probably
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


def main(how: str, where: str = "") -> None:
    server = greentaps.create_server(Echo, ("127.0.0.1", 0))
    # When the main greenlet waits already: a signal that comes before would find it elsewhere.
    get_runner().call_soon(lambda: print(server.addresses[0][1], flush=True))
    if how == "run":
        server.run()
        print("returned", len(server.addresses), len(server.connections), flush=True)
        for _ in range(3):  # the turns in which the listener's close is told
            gevent.sleep(0)
        print("open", len(get_runner().owners), flush=True)
    elif how == "beside":
        thread = threading.Thread(target=strike, daemon=True)
        get_runner().call_soon(thread.start)
        try:
            if where == "run":
                server.run()
            else:
                greentaps.Preconnection().start()
        except KeyboardInterrupt:
            server.close()
        print("interrupted", signal.set_wakeup_fd(-1), flush=True)
    elif how == "main":
        try:
            gevent.get_hub().join()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            server.close()
    gc.collect()


main(*sys.argv[1:])
