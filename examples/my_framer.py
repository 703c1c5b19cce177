"""A framer of one's own: SLIP (RFC 1055), where a byte ends each packet.  Both ends in here."""

import gevent
import greentaps as taps

END, ESCAPE = b"\xc0", b"\xdb"
ESCAPED_END, ESCAPED_ESCAPE = b"\xdb\xdc", b"\xdb\xdd"
LONGEST = 8192  # bytes of one packet as it travels, with its END


class Slip(taps.Framer):
    def new_sent_message(self, link, data, context, end_of_message):
        packet = bytes(data).replace(ESCAPE, ESCAPED_ESCAPE).replace(END, ESCAPED_END) + END
        if not end_of_message or len(packet) > LONGEST:
            raise ValueError(f"a packet is sent whole, and has {LONGEST} bytes at most")
        link.send(packet)

    def handle_received_data(self, link):
        received = link.parse(1, LONGEST)
        packet, end, _ = received.partition(END)
        if end:
            link.advance_receive_cursor(len(packet) + 1)
            data = packet.replace(ESCAPED_END, END).replace(ESCAPED_ESCAPE, ESCAPE)
            link.deliver(None, data)
        elif len(received) == LONGEST:
            raise ValueError("a packet without an end")
        # Else the cursor has not moved: we are called again when more has come.


def echo(listener):
    with listener.accept() as connection:
        for message in connection:
            connection.send(message.data)


def main():
    here = taps.LocalEndpoint().with_ip_address("127.0.0.1")
    with taps.Preconnection(local_endpoint=here).add_framer(Slip()).listen() as listener:
        serving = gevent.spawn(echo, listener)
        there = taps.RemoteEndpoint().with_ip_address("127.0.0.1")
        there.with_port(listener.local_endpoints[0].port)
        client = taps.Preconnection(remote_endpoint=there).add_framer(Slip())
        with client.initiate(timeout=10) as connection:
            for data in (b"hello", b"", END + ESCAPED_END):
                connection.send(data)
                print(connection.receive(timeout=10).data)
    serving.join()


if __name__ == "__main__":
    main()
