"""DnsResolver with real name servers: dnsmasq, and one of ours that misbehaves."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import pytest
from conftest import descriptors, live_greenlets
from greentaps import (
    LocalEndpoint,
    Preconnection,
    ResolutionError,
    flush_caches,
    set_default_resolver,
)
from greentaps.hub import get_runner, now
from greentaps.taps.naming import dns as dns_module
from greentaps.taps.naming.answers import MAX_ADDRESSES
from greentaps.taps.naming.dns import (
    EDNS_SIZE,
    LINGER,
    MAX_RECORDS,
    MAX_SERVERS,
    MAX_STRANGERS,
    DnsResolver,
    _bounded,
    _Exchange,
    _ServerError,
    _svcb_record,
)
from greentaps.taps.paths import survey
from hypothesis import given
from hypothesis import strategies as st
from peers import running, script
from taps.helpers import Stopwatch
from taps.resolving import Heard, addresses, named

pytest.importorskip("dns.message", reason="dnspython is not installed")

HERE = "127.0.0.1"
V6, V4 = socket.AF_INET6, socket.AF_INET

pytestmark = pytest.mark.peer


@dataclass
class Bad:
    """The server that misbehaves."""

    port: int
    log: Path

    def questions(self, name: str) -> list[list[str]]:
        """What was asked for *name*: transport, type, the asker's port, the size it takes."""
        rows = [line.split() for line in self.log.read_text().splitlines()]
        return [[row[0], *row[2:]] for row in rows if row[1] == name + "."]

    def resolver(self, **options: Any) -> DnsResolver:
        options = {"timeout": 0.5, "attempts": 1, **options}
        return DnsResolver([HERE], port=self.port, **options)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bad]:
    log = tmp_path_factory.mktemp("names") / "log"
    with script("nameserver", HERE, log) as peer:
        yield Bad(int(peer.line()), log)
        peer.end_input()


def ask(resolver: DnsResolver, name: str, family: int = V4, **options: Any) -> list[str]:
    options = {"interface": None, "network": "", **options}
    return list(resolver.addresses(name, family, **options))


def failure(resolver: DnsResolver, name: str, family: int = V4) -> ResolutionError:
    with pytest.raises(ResolutionError) as caught:
        ask(resolver, name, family)
    assert name in str(caught.value)
    return caught.value


# -- Ordinary records, with dnsmasq --


def free_port() -> int:
    """A port that nobody has, neither for UDP nor for TCP."""
    while True:
        with socket.socket(V4, socket.SOCK_DGRAM) as one, socket.socket(V4) as other:
            one.bind((HERE, 0))
            port = int(one.getsockname()[1])
            with contextlib.suppress(OSError):
                other.bind((HERE, port))
                return port


@contextlib.contextmanager
def serving(port: int, *records: str) -> Iterator[int]:
    """A dnsmasq on *port* that knows *records*, which are below ``test``."""
    # Not quiet: that it is ready is known from what it says.
    with running(
        "dnsmasq",
        "--keep-in-foreground",
        "--log-facility=-",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        f"--port={port}",
        f"--listen-address={HERE}",
        "--bind-interfaces",
        "--pid-file",
        "--local=/test/",
        *(["--user=root"] if os.geteuid() == 0 else []),
        *records,
        errors=True,
    ) as peer:
        peer.wait_for("started")
        yield port


@pytest.fixture(scope="module")
def dnsmasq() -> Iterator[int]:
    """The port of a dnsmasq that knows some names."""
    with serving(
        free_port(),
        "--host-record=both.test,192.0.2.1,2001:db8::1",
        "--host-record=four.test,192.0.2.4",
        "--host-record=six.test,2001:db8::6",
        "--host-record=chat1.test,192.0.2.11",
        "--host-record=chat2.test,192.0.2.12,2001:db8::12",
        "--cname=alias.test,both.test",
        "--srv-host=_chat._tcp.test,chat2.test,5222,20,1",
        "--srv-host=_chat._tcp.test,chat1.test,5223,10,1",
        "--srv-host=_none._tcp.test",
    ) as port:
        yield port


@pytest.fixture
def good(dnsmasq: int) -> DnsResolver:
    return DnsResolver([(HERE, dnsmasq)])


@pytest.mark.rfc("CT-06", "HE-07")
def test_both_families(good: DnsResolver) -> None:
    (last,) = Heard(named("both.test", 80), resolver=good).all()[-1:]
    assert {(one.address[:2], one.via) for one in last.order} == {
        (("192.0.2.1", 80), "A"),
        (("2001:db8::1", 80), "AAAA"),
    }
    assert {one.hostname for one in last.order} == {"both.test"}
    assert addresses(*Heard(named("four.test"), resolver=good).all()) == ["192.0.2.4"]
    assert addresses(*Heard(named("six.test"), resolver=good).all()) == ["2001:db8::6"]


def test_an_alias_is_followed(good: DnsResolver) -> None:
    assert ask(good, "alias.test") == ["192.0.2.1"]
    assert ask(good, "alias.test", V6) == ["2001:db8::1"]
    assert ask(good, "BOTH.test.") == ["192.0.2.1"]


def test_no_such_name_and_no_such_address(good: DnsResolver) -> None:
    assert failure(good, "nobody.test").code == socket.EAI_NONAME
    assert failure(good, "six.test").code == socket.EAI_NODATA
    (news,) = Heard(named("nobody.test", 7), resolver=good).all()
    assert isinstance(news.error, ResolutionError)
    assert news.error.code == socket.EAI_NONAME


@pytest.mark.rfc("CT-06", "CT-07", "CG-06")
def test_a_service_by_its_srv_records(good: DnsResolver) -> None:
    last = Heard(named("test", "chat"), resolver=good).all()[-1]
    found = [(one.group, *one.address[:2], one.hostname) for one in last.order]
    assert found[0] == (1, "192.0.2.11", 5223, "test")
    assert sorted(found[1:]) == [
        (2, "192.0.2.12", 5222, "test"),
        (2, "2001:db8::12", 5222, "test"),
    ]
    assert last.order[0].via == "SRV _chat._tcp.test -> chat1.test:5223 A"


def test_a_service_without_records_is_on_the_host(good: DnsResolver) -> None:
    last = Heard(named("four.test", "http"), resolver=good).all()[-1]
    assert [(one.address, one.group) for one in last.order] == [(("192.0.2.4", 80), 0)]


def test_a_service_that_is_not_offered(good: DnsResolver) -> None:
    (news,) = Heard(named("test", "none"), resolver=good).all()
    assert isinstance(news.error, ResolutionError)
    assert news.error.code == socket.EAI_SERVICE
    assert "none" in str(news.error)


# -- Slow, missing, wrong --


@pytest.mark.rfc("HE-01", "HE-07")
def test_a_slow_aaaa_delays_nothing_for_long(bad: Bad) -> None:
    heard = Heard(named("slow6.test"), resolver=bad.resolver())
    first, last = heard.all()
    assert addresses(first) == ["192.0.2.1"]
    assert heard.times[0] >= 0.05
    assert [one.address[0] for one in last.added] == ["2001:db8::1"]
    assert [row[:2] for row in bad.questions("slow6.test")] == [["udp", "AAAA"], ["udp", "A"]]


@pytest.mark.rfc("HE-07")
def test_a_missing_aaaa_delays_nothing(bad: Bad) -> None:
    heard = Heard(named("no6.test"), resolver=bad.resolver())
    assert addresses(*heard.all()) == ["192.0.2.1"]


@pytest.mark.rfc("HE-01")
def test_an_aaaa_that_never_comes(bad: Bad) -> None:
    first, last = Heard(named("silent6.test"), resolver=bad.resolver()).all()
    assert addresses(first) == addresses(last) == ["192.0.2.1"]
    assert (last.added, last.error) == ((), None)


def test_servers_that_fail(bad: Bad) -> None:
    for name, text in (("servfail.test", "SERVFAIL"), ("refused.test", "REFUSED")):
        error = failure(bad.resolver(), name)
        assert error.code == socket.EAI_AGAIN
        assert text in str(error)
    with Stopwatch() as took:
        error = failure(bad.resolver(timeout=0.1, attempts=2), "silent.test")
    assert 0.2 <= took.seconds < 2
    assert error.code == socket.EAI_AGAIN
    assert isinstance(error.__cause__, ExceptionGroup)
    assert all(isinstance(one, TimeoutError) for one in error.__cause__.exceptions)
    assert len(bad.questions("silent.test")) == 2


def test_nobody_is_there() -> None:
    """The system says so at once, and nobody waits for the time to be over."""
    with Stopwatch() as took:
        error = failure(DnsResolver([(HERE, free_port())], timeout=9, attempts=1), "a.test")
    assert took.seconds < 5
    assert isinstance(error.__cause__, ConnectionRefusedError)


def test_the_next_server_is_asked(bad: Bad, dnsmasq: int) -> None:
    resolver = DnsResolver([(HERE, free_port()), (HERE, dnsmasq)], timeout=0.3)
    assert ask(resolver, "four.test") == ["192.0.2.4"]
    resolver = DnsResolver([(HERE, bad.port), (HERE, dnsmasq)])
    assert failure(resolver, "servfail.test").code == socket.EAI_NONAME  # dnsmasq's word


@pytest.mark.rfc("SR-03")
def test_garbage(bad: Bad) -> None:
    """Garbage with our id is that server's last word; it is no crash and no hang."""
    with Stopwatch() as took:
        error = failure(bad.resolver(timeout=9), "garbage.test")
    assert took.seconds < 5
    assert "garbage" in str(error)


def test_an_answer_that_is_truncated_in_the_midst_of_a_record(bad: Bad) -> None:
    assert ask(bad.resolver(), "torn.test") == ["192.0.2.1"]
    assert [row[0] for row in bad.questions("torn.test")] == ["udp", "tcp"]


@pytest.mark.rfc("SR-03")
def test_answers_to_other_questions_do_not_count(bad: Bad) -> None:
    """Empty ones, wrong ids, wrong questions, and the question itself come before the answer."""
    assert ask(bad.resolver(), "liar.test") == ["192.0.2.1"]
    assert len(bad.questions("liar.test")) == 1


@pytest.mark.rfc("SR-03")
def test_answers_from_elsewhere_do_not_count(bad: Bad) -> None:
    assert ask(bad.resolver(), "forged.test") == ["192.0.2.1"]
    assert ask(bad.resolver(), "forged.test", V6) == ["2001:db8::1"]


@pytest.mark.rfc("SR-03")
def test_somebody_who_guesses_ids_is_left_for_tcp(bad: Bad) -> None:
    assert ask(bad.resolver(), "flood.test") == ["192.0.2.1"]
    assert [row[0] for row in bad.questions("flood.test")] == ["udp", "tcp"]
    assert MAX_STRANGERS < 64  # as many as the server sends


@pytest.mark.rfc("SR-03")
def test_each_question_has_its_own_port_and_a_moderate_size(bad: Bad) -> None:
    resolver = bad.resolver(cache_size=0)
    for _ in range(20):
        ask(resolver, "plain.test")
    rows = bad.questions("plain.test")
    assert len({row[2] for row in rows}) > 15
    assert {row[3] for row in rows} == {str(EDNS_SIZE)}


def test_a_server_that_does_not_know_edns(bad: Bad) -> None:
    assert ask(bad.resolver(), "old.test") == ["192.0.2.1"]
    assert [row[3] for row in bad.questions("old.test")] == [str(EDNS_SIZE), "0"]


def test_what_is_cut_short_is_asked_for_over_tcp(bad: Bad) -> None:
    assert ask(bad.resolver(), "cut.test") == ["192.0.2.1"]
    assert [row[0] for row in bad.questions("cut.test")] == ["udp", "tcp"]
    assert "closed the connection" in str(failure(bad.resolver(), "shut.test"))


def test_a_server_that_stops_in_the_middle(bad: Bad) -> None:
    with Stopwatch() as took:
        error = failure(bad.resolver(timeout=0.2), "stall.test")
    assert 0.2 <= took.seconds < 5
    assert error.code == socket.EAI_AGAIN
    asking = gevent.spawn(ask, bad.resolver(timeout=30, cache_size=0), "stall.test")
    while len(bad.questions("stall.test")) < 4:
        gevent.sleep(0.01)
    asking.kill()
    gevent.sleep(0)
    assert live_greenlets() == []


@pytest.mark.rfc("SR-03")
def test_records_without_end_are_not_even_parsed() -> None:
    import dns.message
    import dns.rdata
    import dns.rrset

    query = dns.message.make_query("a.test", "A")
    response = dns.message.make_response(query)
    many = [dns.rdata.from_text("IN", "A", f"10.0.{n >> 8}.{n & 255}") for n in range(1000)]
    for section in (response.answer, response.authority):
        section.append(dns.rrset.from_rdata_list("a.test.", 60, many))
    wire = response.to_wire(max_size=65535)
    parsed = dns.message.from_wire(_bounded(wire), ignore_trailing=True)
    assert [len(parsed.answer[0]), len(parsed.authority)] == [MAX_RECORDS, 0]
    small = query.to_wire()
    assert _bounded(small) == small
    assert _bounded(b"short") == b"short"


@pytest.mark.rfc("SR-03")
@given(st.data())
def test_no_message_is_a_crash(data: st.DataObject) -> None:
    """Whatever follows the right id: an answer, somebody else's, or garbage, and then said so."""
    import dns.message
    import dns.rrset

    query = dns.message.make_query("a.test", "HTTPS", use_edns=0)
    response = dns.message.make_response(query)
    response.answer += [
        dns.rrset.from_text("a.test.", 9, "IN", "CNAME", "b.test."),
        dns.rrset.from_text("b.test.", 9, "IN", "HTTPS", '1 . alpn="h2" ipv4hint="192.0.2.1"'),
    ]
    wire = bytearray(response.to_wire())
    for at, octet in data.draw(
        st.lists(st.tuples(st.integers(2, len(wire) - 1), st.integers(0, 255)), max_size=6)
    ):
        wire[at] = octet
    end = data.draw(st.one_of(st.just(len(wire)), st.integers(0, len(wire))))
    exchange = _Exchange(get_runner(), dns, query, (HERE, 53), None)
    try:
        found = exchange._accepted(bytes(wire[:end]))
        if found is not None:
            chain = found.resolve_chaining()
            records = [_svcb_record(record) for record in chain.answer or ()]
            assert all(record.target for record in records)
    except (_ServerError, dns.exception.DNSException):
        pass


@pytest.mark.rfc("CT-12", "SR-03")
def test_as_many_addresses_as_a_message_holds(bad: Bad) -> None:
    resolver = bad.resolver()
    assert len(ask(resolver, "many.test")) == MAX_ADDRESSES
    (news,) = Heard(named("many.test"), resolver=resolver).all()
    assert len(news.order) == MAX_ADDRESSES // 2


@pytest.mark.rfc("SR-03")
def test_aliases_have_an_end(bad: Bad) -> None:
    assert ask(bad.resolver(), "chain-3.test") == ["192.0.2.1"]
    for name in ("chain-99.test", "loop.test"):
        error = failure(bad.resolver(), name)
        assert error.code == socket.EAI_FAIL
    assert [len(bad.questions(f"chain-{n}.test")) for n in (99, 92, 91)] == [1, 1, 0]


def test_names_that_cannot_be_asked_for(bad: Bad) -> None:
    for name in ("a..test", "x" * 64 + ".test", ".".join(["x" * 60] * 5)):
        assert failure(bad.resolver(), name).code == socket.EAI_NONAME


def test_names_that_nobody_is_asked_for(bad: Bad) -> None:
    """RFC 6761 sections 6.3 and 6.4, RFC 7686."""
    resolver = bad.resolver(search=["test"])
    assert ask(resolver, "x.localhost") == [HERE]
    assert ask(resolver, "localhost.", V6) == ["::1"]
    for name in ("x.invalid", "x.onion", "X.INVALID."):
        assert failure(resolver, name).code == socket.EAI_NONAME
        assert bad.questions(name.rstrip(".")) == []
        assert bad.questions(f"{name}.test") == []


@pytest.mark.rfc("X-05", "CG-07")
def test_what_name_servers_learn(bad: Bad) -> None:
    """Nothing of addresses; of names, all of it, in clear text, and which services are wanted."""

    def learnt() -> set[tuple[str, ...]]:
        return {tuple(line.split()[1:3]) for line in bad.log.read_text().splitlines()} - before

    before: set[tuple[str, ...]] = set()
    before = learnt()
    resolver = bad.resolver()
    for end in (named("192.0.2.7", 443), named("localhost", "https")):
        Heard(end.with_interface("lo"), resolver=resolver).all()
    Heard(named("secret.test", 443).with_ip_address("2001:db8::7"), resolver=resolver).all()
    assert learnt() == set()
    Heard(named("plain.secret.test", "https"), resolver=resolver).all()
    assert learnt() == {("plain.secret.test.", kind) for kind in ("HTTPS", "AAAA", "A")}


def test_names_of_the_hosts_file(bad: Bad, tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("192.0.2.44 plain.hosts.test\n")
    resolver = bad.resolver(hosts=str(file))
    assert ask(resolver, "plain.hosts.test") == ["192.0.2.44"]
    assert failure(resolver, "plain.hosts.test", V6).code == socket.EAI_NODATA
    assert bad.questions("plain.hosts.test") == []
    assert ask(bad.resolver(hosts=None), "plain.hosts.test") == ["192.0.2.1"]


def test_international_names(bad: Bad) -> None:
    failure(bad.resolver(), "bücher.test")
    assert len(bad.questions("xn--bcher-kva.test")) == 1


# -- Search lists --


def test_short_names_are_searched_for(bad: Bad) -> None:
    resolver = bad.resolver(search=["other.test", "corp.test"])
    assert ask(resolver, "short") == ["192.0.2.61"]
    assert failure(resolver, "short.").code == socket.EAI_NONAME
    # With a dot the name itself comes first.
    assert failure(resolver, "silly.name").code == socket.EAI_NONAME
    assert [len(bad.questions(f"silly.name{end}")) for end in ("", ".other.test")] == [1, 1]
    resolver = bad.resolver(search=["corp.test"], ndots=2)
    assert ask(resolver, "plain.tost") == ["192.0.2.1"]
    assert len(bad.questions("plain.tost.corp.test")) == 1
    assert len(bad.questions("plain.tost")) == 0


# -- SVCB and HTTPS --


@pytest.mark.rfc("CT-06", "CT-07")
def test_svcb_goes_before_the_host(bad: Bad) -> None:
    last = Heard(named("service.test", "svc"), resolver=bad.resolver()).all()[-1]
    assert [(one.address[:2], one.group, one.alpn) for one in last.order] == [
        (("2001:db8::71", 7001), 1, ("x",))
    ]
    assert last.order[0].via == "SVCB _svc.service.test -> one.test:7001 AAAA"
    # Its second record has a mandatory key that nobody knows.
    assert bad.questions("two.test") == []
    assert len(bad.questions("_svc._tcp.service.test")) == 1


@pytest.mark.rfc("CT-06", "CT-07", "HE-12")
def test_https_with_hints(bad: Bad) -> None:
    news = Heard(named("web.test", "https"), resolver=bad.resolver()).all()
    assert {(one.address[:2], one.group, one.alpn) for one in news[-1].order} == {
        (("192.0.2.51", 8443), 1, ("h2", "http/1.1")),
        (("192.0.2.80", 443), 2, ("h2", "http/1.1")),
    }
    assert {one.hostname for one in news[-1].order} == {"web.test"}
    gone = {address[0] for one in news for address in one.removed}
    assert gone == {"192.0.2.50", "2001:db8::50"}
    # The name is its own second target: the same question was not asked twice.
    assert len(bad.questions("web.test")) == 3
    last = Heard(named("web.test", "https"), resolver=bad.resolver(), protocol="udp").all()[-1]
    assert {(one.address[1], one.alpn) for one in last.order if one.group} == {(8443, ("h3",))}


def test_https_aliases(bad: Bad) -> None:
    last = Heard(named("aliased.test", "https"), resolver=bad.resolver()).all()[-1]
    assert (last.order[0].address, last.order[0].group) == (("192.0.2.51", 8443), 1)
    last = Heard(named("shop.test", "https"), resolver=bad.resolver()).all()[-1]
    assert {one.address[:2] for one in last.order} == {("192.0.2.1", 443), ("2001:db8::1", 443)}


def test_aliases_that_go_round(bad: Bad) -> None:
    """Then the host's own addresses are left."""
    last = Heard(named("round.test", "https"), resolver=bad.resolver()).all()[-1]
    assert [one.address for one in last.order] == [("192.0.2.1", 443)]


def test_https_that_is_closed(bad: Bad) -> None:
    (news,) = Heard(named("closed.test", "https"), resolver=bad.resolver()).all()
    assert getattr(news.error, "code", None) == socket.EAI_SERVICE


def test_other_services_fail_with_a_reason(bad: Bad) -> None:
    (news,) = Heard(named("servfail.test", "no-such"), resolver=bad.resolver()).all()
    assert isinstance(news.error, ResolutionError)
    assert news.error.code in (socket.EAI_AGAIN, socket.EAI_SERVICE)


@pytest.mark.rfc("HE-13")
def test_the_prefix_of_a_translating_network(bad: Bad) -> None:
    heard = Heard(named("198.51.99.1", 7), resolver=bad.resolver(), families={V6})
    assert [one.address[:2] for one in heard.all()[-1].order] == [("2001:db8:64::c633:6301", 7)]


def test_addresses_that_are_nobodys(bad: Bad) -> None:
    assert addresses(*Heard(named("null.test"), resolver=bad.resolver()).all()) == ["192.0.2.7"]


# -- The cache --


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monkeypatch.setattr(dns_module, "now", lambda: now() + self.ahead)


@pytest.mark.rfc("CA-02")
def test_an_answer_holds_for_its_time(bad: Bad, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    resolver = bad.resolver()
    first = ask(resolver, "second.test")
    before = len(bad.questions("second.test"))
    clock.ahead = 1.1
    assert ask(resolver, "second.test") != first
    assert len(bad.questions("second.test")) == before + 1


@pytest.mark.rfc("CA-02")
def test_an_answer_of_a_minute(bad: Bad, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    resolver = bad.resolver()
    first = ask(resolver, "minute.test")
    clock.ahead = 30
    assert ask(resolver, "minute.test") == first
    clock.ahead = 61
    second = ask(resolver, "minute.test")
    assert second != first
    resolver.flush()
    third = ask(resolver, "minute.test")
    assert third not in (first, second)
    flush_caches()
    assert ask(resolver, "minute.test") not in (first, second, third)


@pytest.mark.rfc("CA-02", "HE-08")
def test_an_answer_is_one_networks(bad: Bad) -> None:
    """And one interface's: another may have other servers, and other answers."""
    resolver = bad.resolver()
    here = ask(resolver, "minute.test", network="here")
    assert ask(resolver, "minute.test", network="here") == here
    there = ask(resolver, "minute.test", network="there")
    assert there != here
    assert ask(resolver, "minute.test", network="there", interface="lo") not in (here, there)


def test_an_answer_of_the_network_before_is_not_used(
    bad: Bad, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for those who do not say where they are, as an isolated Connection or a rendezvous."""
    resolver = bad.resolver()
    here = ask(resolver, "minute.test")
    assert ask(resolver, "minute.test") == here
    elsewhere = survey.Survey((survey.Path("eth7", network="elsewhere"),))
    monkeypatch.setattr(dns_module, "survey", lambda: elsewhere)
    assert ask(resolver, "minute.test") != here


@pytest.mark.rfc("CA-02")
def test_that_there_is_nothing_is_kept_too(bad: Bad, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    resolver = bad.resolver()
    for _ in range(3):
        failure(resolver, "nowhere.test")
    assert len(bad.questions("nowhere.test")) == 1
    clock.ahead = 61
    failure(resolver, "nowhere.test")
    assert len(bad.questions("nowhere.test")) == 2
    ask(resolver, "never.test")
    ask(resolver, "never.test")
    assert len(bad.questions("never.test")) == 2
    failure(resolver, "servfail.test")
    before = len(bad.questions("servfail.test"))
    failure(resolver, "servfail.test")
    assert len(bad.questions("servfail.test")) == before + 1


def test_equal_questions_share_an_answer(bad: Bad) -> None:
    resolver = bad.resolver(cache_size=0)
    waiting = [gevent.spawn(ask, resolver, "minute.shared.test") for _ in range(20)]
    gevent.joinall(waiting, timeout=10)
    assert len({tuple(one.value) for one in waiting}) == 1
    assert len(bad.questions("minute.shared.test")) == 1


def test_threads_share_a_resolver(bad: Bad) -> None:
    resolver = bad.resolver()
    found: list[list[str]] = []

    def run() -> None:
        found.append(ask(resolver, "minute.threads.test"))
        gevent.get_hub().destroy(destroy_loop=True)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            gevent.sleep(0.01)
    assert len(found) == 4
    assert ask(resolver, "minute.threads.test") in found


# -- Ends --


def test_a_killed_question_leaves_nothing(bad: Bad) -> None:
    """The test's own clean-up looks for sockets and greenlets."""
    resolver = bad.resolver(timeout=30, cache_size=0)
    for name in ("silent.test", "flood.test"):
        asking = gevent.spawn(ask, resolver, name)
        gevent.sleep(0.05)
        asking.kill()
        gevent.sleep(0)
        assert live_greenlets() == []
    heard = Heard(named("silent.test", "svc"), resolver=resolver)
    gevent.sleep(0.05)
    assert len(live_greenlets()) > 3
    heard.resolution.cancel()
    for _ in range(9):  # each ends the one that it waits for
        gevent.sleep(0)
    assert live_greenlets() == []


@pytest.mark.rfc("HE-10")
def test_late_answers_are_for_the_next_connection(bad: Bad) -> None:
    resolver = bad.resolver()
    heard = Heard(named("slow6.late.test"), resolver=resolver)
    assert addresses(heard.next()) == ["192.0.2.1"]
    heard.resolution.cancel()  # it is connected
    while live_greenlets():
        gevent.sleep(0.01)
    heard = Heard(named("slow6.late.test"), resolver=resolver)
    assert len(heard.all()[-1].order) == 2
    assert len(bad.questions("slow6.late.test")) == 2


def test_late_answers_have_an_end(bad: Bad) -> None:
    asking = gevent.spawn(ask, bad.resolver(timeout=30), "silent.late.test")
    gevent.sleep(0.05)
    asking.kill()
    with Stopwatch() as took:
        while live_greenlets():
            gevent.sleep(0.01)
    assert LINGER / 2 < took.seconds < 2 * LINGER + 1


@pytest.mark.rfc("I-06")
def test_the_deadline_of_the_connection_counts(bad: Bad) -> None:
    with Stopwatch() as took:
        (news,) = Heard(named("silent.test"), resolver=bad.resolver(timeout=30), limit=0.2).all()
    assert took.seconds < 5
    assert getattr(news.error, "errno", None) == errno.ETIMEDOUT


@pytest.mark.leaves_things
def test_a_hub_that_is_destroyed_takes_the_questions_along(bad: Bad) -> None:
    resolver = bad.resolver(timeout=30)
    survey.survey()  # which keeps a socket
    before = set(descriptors())

    def run() -> None:
        gevent.spawn(ask, resolver, "silent.hub.test")
        gevent.sleep(0.05)
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        gevent.sleep(0.01)
    with gevent.Timeout(10):
        while set(descriptors()) - before:
            gc.collect()
            gevent.sleep(0.05)
    assert len(bad.questions("silent.hub.test")) == 1


FORKED = """
import os, socket, sys
import gevent
import gevent.os
from greentaps import DnsResolver, ResolutionError

resolver = DnsResolver(["127.0.0.1"], port=int(sys.argv[1]), timeout=9)

def ask():
    try:
        return resolver.addresses("slow6.fork.test", socket.AF_INET6, interface=None, network="")
    except ResolutionError as error:
        return [type(error).__name__]

asked = gevent.spawn(ask)
gevent.sleep(0.1)
child = gevent.os.fork()
if not child:
    # What the parent had begun is the parent's; what the child asks is the child's.
    own = gevent.spawn(ask)
    print("child", *own.get(timeout=9), *asked.get(timeout=9), flush=True)
    os._exit(0)
answer = asked.get(timeout=9)
gevent.os.waitpid(child, 0)
print("parent", *answer)
"""


def test_a_forked_child_asks_for_itself(bad: Bad) -> None:
    with running(sys.executable, "-W", "error", "-c", FORKED, bad.port) as peer:
        assert peer.line() == "child 2001:db8::1 ResolutionError"
        assert peer.line() == "parent 2001:db8::1"
        assert peer.wait() == 0


def test_a_fork_while_another_thread_looks_is_no_hang() -> None:
    resolver = DnsResolver([HERE])
    with resolver._lock:
        pid = os.fork()
        if not pid:
            signal.alarm(10)
            try:
                resolver.flush()
            finally:
                os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


# -- A Connection --


@pytest.mark.rfc("CT-07", "CG-06")
@pytest.mark.parametrize("own", [False, True])
def test_a_connection_to_a_service(own: bool) -> None:
    """The whole way: SRV records, a target that refuses, a target that answers."""
    listening = Preconnection(LocalEndpoint().with_ip_address(HERE).with_port(0))
    with listening.listen() as listener:
        port = listener.local_endpoints[0].port
        assert port is not None
        records = (
            f"--srv-host=_talk._tcp.test,dead.test,{free_port()},1",
            f"--srv-host=_talk._tcp.test,live.test,{port},2",
            f"--host-record=dead.test,live.test,{HERE}",
        )
        with serving(free_port(), *records) as at:
            resolver = DnsResolver([(HERE, at)])
            set_default_resolver(None if own else resolver)
            try:
                connection = Preconnection(
                    remote_endpoint=named("test", "talk"), resolver=resolver if own else None
                ).initiate(timeout=9)
            finally:
                set_default_resolver(None)
            server = listener.accept(timeout=9)
        remote = connection.remote_endpoint
        assert remote is not None
        assert (remote.ip_address, remote.port, remote.hostname) == (HERE, port, "test")
        connection.abort()
        server.abort()


# -- What it is made with --


def test_wrong_arguments() -> None:
    for wrong, kind in (
        ({"nameservers": HERE}, TypeError),
        ({"nameservers": [53]}, TypeError),
        ({"nameservers": [(HERE, "53")]}, TypeError),
        ({"nameservers": [(HERE, 0)]}, ValueError),
        ({"nameservers": ["dns.test"]}, ValueError),
        ({"nameservers": []}, ValueError),
        ({"nameservers": [HERE] * (MAX_SERVERS + 1)}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"attempts": 0}, ValueError),
        ({"cache_size": -1}, ValueError),
    ):
        with pytest.raises(kind):
            DnsResolver(**wrong)  # type: ignore[arg-type]


def test_without_dnspython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns.message", None)
    with pytest.raises(ModuleNotFoundError, match=r"greentaps\[dns\]"):
        DnsResolver()


def test_the_systems_configuration(
    bad: Bad, dnsmasq: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(dns_module, "RESOLV_CONF", str(file))
    file.write_text(f"nameserver {HERE}\nsearch corp.test\noptions ndots:2 timeout:1\n")
    resolver = DnsResolver(port=bad.port)
    assert ask(resolver, "short") == ["192.0.2.61"]
    configuration = resolver._configure(None)
    assert (configuration.ndots, configuration.timeout) == (2, 1.0)
    assert configuration.servers == ((HERE, bad.port),)
    # It has changed.
    file.write_text("nameserver 127.0.0.2\nnameserver ::1\noptions timeout:3\n")
    os.utime(file, (1, 1))
    servers = [server[0] for server in resolver._configure(None).servers]
    assert servers == ["127.0.0.2", "::1"]
    file.unlink()
    assert resolver._configure(None).servers == ((HERE, bad.port),)
    # What the application says goes before what the file says.
    file.write_text(f"nameserver {HERE}\nsearch corp.test\noptions ndots:2 timeout:1\n")
    resolver = DnsResolver(port=bad.port, search=[], ndots=1, timeout=0.7)
    configuration = resolver._configure(None)
    assert (configuration.search, configuration.ndots, configuration.timeout) == ((), 1, 0.7)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("search foo..bar corp.test", (("corp.test",), 2.0)),
        (f"search {'a' * 70}.test", ((), 2.0)),
        ("domain \udcff..", ((), 2.0)),
        ("nameserver ns.example", ((), 2.0)),
        ("nameserver", ((), 2.0)),
        ("options timeout:0 ndots", ((), 1.0)),
        ("options timeout:-3", ((), 1.0)),
        ("options timeout:99999", ((), 30.0)),
    ],
)
def test_what_is_wrong_in_resolv_conf_is_passed_over(
    line: str, options: Any, bad: Bad, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(dns_module, "RESOLV_CONF", str(file))
    file.write_text(f"{line}\nnameserver {HERE}\n", "utf-8", "surrogateescape")
    resolver = DnsResolver(port=bad.port)
    assert ask(resolver, "plain.test") == ["192.0.2.1"]
    configuration = resolver._configure(None)
    assert (configuration.search, configuration.timeout) == options


def test_the_servers_of_an_interface(
    bad: Bad, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the system's server is a stub on this machine, systemd knows those behind it."""
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.53\n")
    monkeypatch.setattr(dns_module, "RESOLV_CONF", str(file))
    monkeypatch.setattr(dns_module, "_LINK_FILES", (str(tmp_path / "a"), str(tmp_path / "b")))
    resolver = DnsResolver()
    assert resolver._configure("lo").servers == (("127.0.0.53", 53),)
    number = socket.if_nametoindex("lo")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / str(number)).write_text("LLMNR=yes\nDNS=192.0.2.53 nonsense 2001:db8::53\n")
    assert [server[0] for server in resolver._configure("lo").servers] == [
        "192.0.2.53",
        "2001:db8::53",
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / str(number)).write_text("SERVERS=192.0.2.54\n")
    assert [server[0] for server in resolver._configure("lo").servers] == ["192.0.2.54"]
    assert resolver._configure(None).servers == (("127.0.0.53", 53),)
    assert resolver._configure("no-such0").servers == (("127.0.0.53", 53),)
