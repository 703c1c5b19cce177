"""A name server that misbehaves: what the first label of a name says, is done to its questions.

Run as a program of its own: ``python nameserver.py ADDRESS LOG [PORT]``.  It prints its port, which
is the same for UDP and TCP, and writes a line for each question to LOG: transport, name, type,
the asker's port and the size that it takes.  It ends when its standard input does.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset

Message = dns.message.Message
asked: Counter[tuple[str, str]] = Counter()


def answer(query: Message, *texts: str, ttl: int = 60, kind: str | None = None) -> Message:
    """A response to *query* with records of the type that it asks for, or of *kind*."""
    response = dns.message.make_response(query, recursion_available=True)
    question = query.question[0]
    wanted = kind or dns.rdatatype.to_text(question.rdtype)
    if texts:
        response.answer.append(dns.rrset.from_text(question.name, ttl, "IN", wanted, *texts))
    return response


def addresses(query: Message) -> Message:
    """One address of each family, and nothing else."""
    found = {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]}
    return answer(query, *found.get(kind_of(query), []))


def kind_of(query: Message) -> str:
    return dns.rdatatype.to_text(query.question[0].rdtype)


def failing(code: dns.rcode.Rcode) -> Callable[[Message], Message]:
    def fail(query: Message) -> Message:
        response = answer(query)
        response.set_rcode(code)
        return response

    return fail


def denied(query: Message, *, ttl: int) -> Message:
    """There is no such name, and that holds for *ttl* seconds."""
    response = failing(dns.rcode.NXDOMAIN)(query)
    response.authority.append(
        dns.rrset.from_text("test.", ttl, "IN", "SOA", f"ns.test. me.test. 1 9 9 9 {ttl}")
    )
    return response


def counted(query: Message, ttl: int) -> Message:
    """An address that says how often it was asked for."""
    if kind_of(query) != "A":
        return answer(query)
    number = asked[query.question[0].name.to_text(), "A"]
    return answer(query, f"192.0.2.{number}", ttl=ttl)


def chained(query: Message) -> Message:
    """``chain-3.x`` is an alias of ``chain-2.x``, which has to be asked for, and so on."""
    name = query.question[0].name.to_text()
    label, _, rest = name.partition(".")
    number = int(label.partition("-")[2])
    if number == 0:
        return addresses(query)
    return answer(query, f"chain-{number - 1}.{rest}", kind="CNAME")


def many(query: Message) -> Message:
    if kind_of(query) != "A":
        return answer(query)
    response = answer(query)
    response.answer.append(dns.rrset.from_rdata_list(query.question[0].name, 60, CROWD))
    return response


def old(query: Message) -> Message:
    """A server that does not know EDNS."""
    return failing(dns.rcode.FORMERR)(query) if query.edns >= 0 else addresses(query)


def cut(query: Message) -> Message:
    response = answer(query)
    response.flags |= dns.flags.TC
    return response


CROWD = [
    dns.rdata.from_text("IN", "A", f"10.9.{n >> 8}.{n & 255}") for n in range(4000)
]  # as many as a message holds
SVC = {
    "SVCB": ['1 one.test. alpn="x" port=7001', '2 two.test. mandatory="key9" key9="z" port=7002'],
    "A": ["192.0.2.99"],
}
HTTPS = {
    "HTTPS": [
        '1 hinted.test. alpn="h2,h3" port=8443 ipv4hint="192.0.2.50" ipv6hint="2001:db8::50"',
        '2 . alpn="h2"',
    ],
    "A": ["192.0.2.80"],
}
STATIC: dict[str, dict[str, list[str]]] = {
    "service.test.": {"A": ["192.0.2.99"]},
    "_svc.service.test.": SVC,
    "one.test.": {"AAAA": ["2001:db8::71"]},
    "web.test.": HTTPS,
    "hinted.test.": {"A": ["192.0.2.51"]},
    "aliased.test.": {"HTTPS": ["0 web.test."]},
    "round.test.": {"HTTPS": ["0 round.test."], "A": ["192.0.2.1"]},
    "shop.test.": {"HTTPS": ["0 plain.test."]},
    "closed.test.": {"HTTPS": ["0 ."], "A": ["192.0.2.1"]},
    "ipv4only.arpa.": {"AAAA": ["2001:db8:64::c000:aa", "2001:db8:64::c000:ab"]},
    "short.corp.test.": {"A": ["192.0.2.61"]},
    "null.test.": {"A": ["0.0.0.0", "192.0.2.7"], "AAAA": ["::", "::ffff:192.0.2.7"]},
}

# The first label, and what is answered over UDP; None is nothing.
BEHAVIOURS: dict[str, Callable[[Message], Message | None]] = {
    "plain": addresses,
    "slow6": addresses,
    "no6": lambda query: answer(query) if kind_of(query) == "AAAA" else addresses(query),
    "silent6": lambda query: None if kind_of(query) == "AAAA" else addresses(query),
    "silent": lambda query: None,
    "servfail": failing(dns.rcode.SERVFAIL),
    "refused": failing(dns.rcode.REFUSED),
    "nowhere": lambda query: denied(query, ttl=60),
    "gone": lambda query: denied(query, ttl=1),
    "old": old,
    "second": lambda query: counted(query, 1),
    "minute": lambda query: counted(query, 60),
    "never": lambda query: counted(query, 0),
    "loop": lambda query: answer(query, query.question[0].name.to_text(), kind="CNAME"),
    "many": cut,
    "cut": cut,
    "flood": lambda query: None,
    "shut": cut,
    "stall": cut,
}
OVER_TCP: dict[str, Callable[[Message], Message | None]] = {
    "many": many,
    "cut": addresses,
    "flood": addresses,
    "torn": addresses,
    "shut": lambda query: None,
}
SLOW = 0.4  # seconds


def label_of(query: Message) -> str:
    """The first label of a name, but for those of a service."""
    labels = query.question[0].name.to_text().lower().split(".")
    return next(label for label in labels if not label.startswith("_"))


def behaviour(query: Message, over_tcp: bool) -> Message | None:
    name = query.question[0].name.to_text().lower()
    label = label_of(query)
    if name in STATIC:
        return answer(query, *STATIC[name].get(kind_of(query), []))
    if label.startswith("chain-"):
        return chained(query)
    known = OVER_TCP.get(label) if over_tcp else None
    known = known or BEHAVIOURS.get(label, failing(dns.rcode.NXDOMAIN))
    return known(query)


def misleading(query: Message, label: str) -> list[bytes]:
    """Wrong answers that come before, or instead of, the right one."""
    if label not in ("liar", "garbage", "flood", "torn"):
        return []
    right = addresses(query).to_wire()
    other_id = bytes([right[0] ^ 1]) + right[1:]
    lie = answer(query, *({"A": ["192.0.2.66"], "AAAA": ["2001:db8::66"]}[kind_of(query)]))
    lie.question = [dns.rrset.from_text("other.test.", 0, "IN", kind_of(query))]
    query_itself = query.to_wire()
    return {
        "liar": [b"", b"\0", other_id, lie.to_wire(), query_itself, right],
        "garbage": [right[:12] + b"\xff" * 40],
        "torn": [right[:2] + bytes([right[2] | 0x02]) + right[3:-3]],  # truncated in a record
        "flood": [other_id] * 64,
    }[label]


class Server:
    def __init__(self, address: str, log: str, port: int) -> None:
        self.log = open(log, "a", encoding="ascii")  # noqa: SIM115
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        while True:  # the port has to be free for TCP as well
            self.udp = socket.socket(family, socket.SOCK_DGRAM)
            self.udp.bind((address, port))
            try:
                self.tcp = socket.create_server(self.udp.getsockname()[:2], family=family)
                break
            except OSError:
                self.udp.close()
                if port:
                    raise
        self.elsewhere = socket.socket(family, socket.SOCK_DGRAM)
        self.elsewhere.bind((address, 0))

    def note(self, transport: str, query: Message, asker: int) -> None:
        name = query.question[0].name.to_text()
        asked[name, kind_of(query)] += 1
        self.log.write(f"{transport} {name} {kind_of(query)} {asker} {query.payload}\n")
        self.log.flush()

    def serve_udp(self) -> None:
        while True:
            wire, peer = self.udp.recvfrom(65535)
            query = dns.message.from_wire(wire)
            self.note("udp", query, peer[1])
            label = label_of(query)
            if label == "forged":  # the right answer, but from somebody else; then the right one
                forged = answer(query, {"A": "192.0.2.66", "AAAA": "2001:db8::66"}[kind_of(query)])
                self.elsewhere.sendto(forged.to_wire(), peer)
                self.udp.sendto(addresses(query).to_wire(), peer)
                continue
            for wrong in misleading(query, label):
                self.udp.sendto(wrong, peer)
            response = None if label in ("liar", "garbage", "torn") else behaviour(query, False)
            if response is None:
                continue
            late = label == "slow6" and kind_of(query) == "AAAA"
            threading.Timer(
                SLOW if late else 0.0, self.udp.sendto, (response.to_wire(), peer)
            ).start()

    def serve_tcp(self) -> None:
        while True:
            link, peer = self.tcp.accept()
            with link, link.makefile("rb") as stream:
                wire = stream.read(int.from_bytes(stream.read(2)))
                query = dns.message.from_wire(wire)
                self.note("tcp", query, peer[1])
                if label_of(query) == "stall":  # the length, and then nothing until they go
                    link.sendall(b"\1\0")
                    stream.read()
                    continue
                response = behaviour(query, True)
                if response is not None:
                    found = response.to_wire(max_size=65535)
                    link.sendall(len(found).to_bytes(2) + found)


def main() -> None:
    server = Server(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    for serve in (server.serve_udp, server.serve_tcp):
        threading.Thread(target=serve, daemon=True).start()
    print(server.udp.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
