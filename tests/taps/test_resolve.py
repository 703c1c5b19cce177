"""resolve(): what is delivered when, in which order, and that nothing is left behind."""

from __future__ import annotations

import errno
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import gevent
import pytest
from conftest import live_greenlets
from greentaps import EstablishmentError, Reason, RemoteEndpoint, ResolutionError
from greentaps.hub import Deadline
from greentaps.taps.naming import resolving as naming
from greentaps.taps.naming.answers import MAX_ADDRESSES, MAX_TARGETS, Target
from greentaps.taps.naming.ordering import Source
from greentaps.taps.naming.resolver import (
    Resolver,
    Sharing,
    SystemResolver,
    both,
    default_resolver,
    set_default_resolver,
)
from greentaps.taps.naming.resolving import News, resolve
from taps.helpers import Stopwatch
from taps.resolving import Heard, Scripted, addresses, after, named, never

V6, V4 = socket.AF_INET6, socket.AF_INET


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, Source | None]:
    """Where the kernel would send from: from everywhere, but for what a test says."""
    known: dict[str, Source | None] = {}

    def find(self: Any, remote: tuple[Any, ...]) -> Source | None:
        address = remote[0]
        default = Source("2001:db8::ffff" if ":" in address else "192.0.2.254")
        return known.get(address, default)

    monkeypatch.setattr(naming.SourceFinder, "find", find)
    return known


# -- Without a question --


@pytest.mark.rfc("E-06", "E-17")
def test_addresses_are_delivered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "spawn", None)
    for end, address in (
        (RemoteEndpoint().with_ip_address("127.0.0.1").with_port(80), ("127.0.0.1", 80)),
        (RemoteEndpoint().with_ip_address("::1").with_service("80"), ("::1", 80, 0, 0)),
        (named("127.0.0.2", "http"), ("127.0.0.2", 80)),
        (named("2001:db8::1"), ("2001:db8::1", 1, 0, 0)),
    ):
        heard = Heard(end)
        (news,) = heard.news
        assert [one.address for one in news.added] == [address]
        assert news.order == news.added
        assert news.complete
        assert news.added[0].via == "literal"
        assert news.added[0].hostname == end.hostname
        heard.resolution.cancel()


@pytest.mark.rfc("E-07", "E-08")
def test_zones_and_scopes() -> None:
    index, name = socket.if_nameindex()[0]
    end = RemoteEndpoint().with_ip_address(f"fe80::1%{name}").with_port(1)
    assert Heard(end).news[0].added[0].address == ("fe80::1", 1, 0, index)
    (news,) = Heard(named("fe80::1%no-such-interface")).news
    assert isinstance(news.error, ResolutionError)


def test_a_link_local_answer_is_on_the_interface_that_is_used() -> None:
    index, name = socket.if_nameindex()[0]
    resolver = Scripted(a_AAAA=["fe80::1", "fe80::2%7", "2001:db8::1"])
    (news,) = Heard(named("a"), resolver=resolver, interface=name, families={V6}).all()
    assert {one.address for one in news.added} == {
        ("fe80::1", 1, 0, index),
        ("fe80::2", 1, 0, 7),
        ("2001:db8::1", 1, 0, 0),
    }
    assert resolver.options == [(name, "")]


@pytest.mark.rfc("E-17")
@pytest.mark.parametrize("name", ["localhost", "LocalHost.", "a.b.localhost"])
def test_localhost_is_here_and_nobody_is_asked(name: str) -> None:
    """RFC 6761 section 6.3."""
    resolver = Scripted()
    (news,) = Heard(named(name, 7), resolver=resolver).news
    assert {one.address for one in news.order} <= {("127.0.0.1", 7), ("::1", 7, 0, 0)}
    assert ("127.0.0.1", 7) in {one.address for one in news.order}
    assert resolver.asked == []
    (news,) = Heard(named(name, 7), families={V4}).news
    assert [one.address for one in news.order] == [("127.0.0.1", 7)]
    assert SystemResolver().addresses(name, V6, interface=None, network="") == ("::1",)


def test_a_machine_without_ipv6_has_no_ipv6_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        naming, "source_address", lambda remote: None if ":" in remote[0] else remote[0]
    )
    (news,) = Heard(named("localhost")).news
    assert addresses(news) == ["127.0.0.1"]


def test_an_endpoint_that_says_too_little() -> None:
    end = RemoteEndpoint()
    for wrong in (end, end.copy().with_port(1), end.copy().with_hostname("a")):
        with pytest.raises(EstablishmentError) as caught:
            resolve(wrong, deadline=Deadline(None), deliver=never)
        assert caught.value.reason is Reason.INVALID_CONFIGURATION


def test_a_family_that_is_not_wanted() -> None:
    for end, families in ((named("127.0.0.1"), {V6}), (named("::1"), {V4}), (named("a"), set())):
        (news,) = Heard(end, families=families).news
        assert isinstance(news.error, ResolutionError)
        assert news.error.code == socket.EAI_ADDRFAMILY
        assert news.error.address == (end.hostname, 1)


def test_a_service_that_nobody_knows() -> None:
    for name in ("127.0.0.1", "localhost", "a"):
        news = Heard(named(name, "no-such-service"), resolver=Scripted()).all()[-1]
        assert isinstance(news.error, ResolutionError)
        assert news.error.code == socket.EAI_SERVICE
        assert "no-such-service" in str(news.error)


def test_the_port_is_that_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {("x", "tcp"): 1, ("x", "udp"): 2}
    monkeypatch.setattr(socket, "getservbyname", lambda *asked: known[asked])
    for protocol, port in (("tcp", 1), ("udp", 2)):
        (news,) = Heard(named("127.0.0.1", "x"), protocol=protocol).news
        assert news.order[0].address == ("127.0.0.1", port)


# -- With questions --


@pytest.mark.rfc("HE-07", "CT-06")
def test_aaaa_and_a_are_asked_for_at_the_same_time() -> None:
    resolver = Scripted(a_AAAA=never, a_A=after(0, ["192.0.2.1"]))
    heard = Heard(named("a"), resolver=resolver, limit=0.3)
    first = heard.next()
    assert resolver.asked == [("a", "AAAA"), ("a", "A")]
    assert addresses(first) == ["192.0.2.1"]
    assert not first.complete
    last = heard.next()
    assert (last.added, last.complete, last.error) == ((), True, None)
    assert addresses(last) == ["192.0.2.1"]


@pytest.mark.rfc("HE-01")
def test_the_delay_in_real_time() -> None:
    """The exact moment is `Answers`'s; here, that the driver keeps to it."""
    resolver = Scripted(a_AAAA=after(0.25, ["2001:db8::1"]), a_A=["192.0.2.1"])
    heard = Heard(named("a"), resolver=resolver)
    news = heard.all()
    assert addresses(news[0]) == ["192.0.2.1"]
    assert heard.times[0] >= 0.05
    assert heard.times[1] >= 0.25
    assert [one.address[0] for one in news[1].added] == ["2001:db8::1"]
    assert news[1].complete


@pytest.mark.rfc("HE-08", "HE-09", "HE-12")
def test_late_addresses_have_their_place(sources: dict[str, Source | None]) -> None:
    sources["2001:db8::9"] = None
    resolver = Scripted(
        a_AAAA=after(0.2, ["2001:db8::9", "2001:db8::1", "2001:db8::2"]),
        a_A=["192.0.2.1", "192.0.2.2"],
    )
    first, second = Heard(named("a"), resolver=resolver).all()
    assert addresses(first) == ["192.0.2.1", "192.0.2.2"]
    assert [one.address[0] for one in second.added] == [
        "2001:db8::1",
        "2001:db8::2",
        "2001:db8::9",
    ]
    assert addresses(second) == [
        "2001:db8::1",
        "192.0.2.1",
        "2001:db8::2",
        "192.0.2.2",
        "2001:db8::9",  # there is no way to it
    ]
    assert {one.via for one in second.order} == {"A", "AAAA"}


@dataclass
class Remembered:
    """A history."""

    rtts: dict[tuple[str, str], float] = field(default_factory=dict)
    uses: set[tuple[str, str]] = field(default_factory=set)

    def rtt(self, network: str, address: str, *, now: float, near: bool) -> float | None:
        assert near  # of what is elsewhere in the network nothing follows for an address
        return self.rtts.get((network, address))

    def used(self, network: str, address: str, *, now: float) -> bool:
        return (network, address) in self.uses


@pytest.mark.rfc("HE-08")
def test_the_history_of_this_network_counts(sources: dict[str, Source | None]) -> None:
    resolver = Scripted(a_A=["192.0.2.1", "192.0.2.2", "192.0.2.3"])
    history = Remembered(
        {("here", "192.0.2.3"): 0.1, ("there", "192.0.2.1"): 0.001}, {("here", "192.0.2.2")}
    )
    for network, expected in (("here", "321"), ("there", "123"), ("elsewhere", "123")):
        (news,) = Heard(
            named("a"), resolver=resolver, families={V4}, history=history, network=network
        ).all()
        assert [address[-1] for address in addresses(news)] == list(expected)
    assert {network for _, network in resolver.options} == {"here", "there", "elsewhere"}


@pytest.mark.rfc("CT-12", "SR-03")
def test_ten_thousand_addresses_of_each_family() -> None:
    resolver = Scripted(
        a_A=[f"10.0.{n >> 8}.{n & 255}" for n in range(10_000)],
        a_AAAA=[f"2001:db8::{n:x}" for n in range(1, 10_001)],
    )
    news = Heard(named("a"), resolver=resolver).all()
    assert len(news[-1].order) == MAX_ADDRESSES


def test_addresses_that_are_none() -> None:
    """0.0.0.0 would be this machine, and so may be others in disguise."""
    resolver = Scripted(
        a_A=["0.0.0.0", "0.1.2.3", "nonsense", "::1", "192.0.2.1"],
        a_AAAA=["::", "::ffff:127.0.0.1", "192.0.2.9", "2001:db8::1"],
    )
    news = Heard(named("a"), resolver=resolver).all()
    assert sorted(addresses(*news)) == ["192.0.2.1", "2001:db8::1"]


# -- Failures --


def gone(code: int, text: str) -> ResolutionError:
    made = ResolutionError(text)
    made.code = code
    return made


@pytest.mark.parametrize("swapped", [False, True])
def test_the_reason_that_says_most(swapped: bool) -> None:
    no_name = gone(socket.EAI_NONAME, "no such name")
    no_answer = gone(socket.EAI_AGAIN, "no answer")
    first, second = (no_answer, no_name) if swapped else (no_name, no_answer)
    (news,) = Heard(named("a"), resolver=Scripted(a_AAAA=first, a_A=second)).all()
    assert news.error is no_answer


def test_no_address_at_all() -> None:
    (news,) = Heard(named("a", 7), resolver=Scripted()).all()
    assert isinstance(news.error, ResolutionError)
    assert news.error.code == socket.EAI_NODATA
    assert news.error.address == ("a", 7)
    assert "'a'" in str(news.error)


def test_a_resolver_with_a_mistake_is_no_hang() -> None:
    (news,) = Heard(named("a"), resolver=Scripted(a_AAAA=ZeroDivisionError(), a_A=KeyError())).all()
    assert isinstance(news.error, ZeroDivisionError)

    class Broken(Remembered):
        def rtt(self, network: str, address: str, *, now: float, near: bool) -> float | None:
            raise ZeroDivisionError

    resolver = Scripted(a_A=["192.0.2.1"])
    news = Heard(named("a"), resolver=resolver, history=Broken()).all()[-1]
    assert isinstance(news.error, ZeroDivisionError)


def test_questions_that_somebody_kills_are_no_hang() -> None:
    for turns in (0, 1, 2):
        heard = Heard(named("a"), resolver=Scripted(a_AAAA=never, a_A=never))
        gevent.sleep(0)
        for _ in range(turns):
            gevent.sleep(0)
        for greenlet in live_greenlets():
            if greenlet is not heard.resolution._greenlet:
                greenlet.kill(block=False)
        (news,) = heard.all()
        assert isinstance(news.error, ResolutionError)


@pytest.mark.rfc("I-06", "ER-12")
def test_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stopwatch() as took:
        (news,) = Heard(named("a"), resolver=Scripted(a_AAAA=never, a_A=never), limit=0.1).all()
    assert 0.1 <= took.seconds < 5
    assert isinstance(news.error, TimeoutError)
    assert getattr(news.error, "errno", None) == errno.ETIMEDOUT
    assert "'a'" in str(news.error)


def test_the_system_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *asked: never())
    (news,) = Heard(named("a.example"), limit=0.1).all()
    assert isinstance(news.error, TimeoutError)


# -- Cancelling --


def test_after_cancel_nothing_is_delivered() -> None:
    heard = Heard(named("a"), resolver=Scripted(a_AAAA=never, a_A=after(0.02, ["192.0.2.1"])))
    gevent.sleep(0)
    assert len(live_greenlets()) == 3
    heard.resolution.cancel()
    heard.resolution.cancel()
    gevent.sleep(0.1)
    assert heard.news == []
    assert live_greenlets() == []


def test_cancel_before_anything_ran() -> None:
    resolver = Scripted(a_A=["192.0.2.1"])
    heard = Heard(named("a"), resolver=resolver)
    heard.resolution.cancel()
    gevent.sleep(0.01)
    assert resolver.asked == []
    assert heard.news == []


def test_cancel_while_being_told() -> None:
    """As the race does when the first address has won."""
    resolver = Scripted(a_AAAA=["2001:db8::1"], a_A=after(0.05, ["192.0.2.1"]))
    told: list[News] = []

    def deliver(news: News) -> None:
        told.append(news)
        made.cancel()
        gevent.sleep(0)  # it may block

    made = resolve(named("a"), deadline=Deadline(None), deliver=deliver, resolver=resolver)
    gevent.sleep(0.1)
    assert len(told) == 1
    assert live_greenlets() == []


def test_delivered_in_a_greenlet_of_its_own() -> None:
    heard = Heard(named("a"), resolver=Scripted(a_A=["192.0.2.1"]))
    heard.all()
    hub = gevent.get_hub()
    assert all(one is not hub and one is not gevent.getcurrent() for one in heard.greenlets)


# -- Services --


ONE = Target("one", 7001, alpn=("h2",), origin="SRV _x._tcp.a -> one:7001")
TWO = Target("two", 7002, hints=("192.0.2.2", "0.0.0.0"), origin="SRV _x._tcp.a -> two:7002")


@pytest.mark.rfc("CT-07", "CG-06")
def test_targets_are_branches_with_addresses_below(sources: dict[str, Source | None]) -> None:
    resolver = Scripted(
        True,
        a_x=[ONE, TWO],
        a_A=["192.0.2.99"],
        one_AAAA=["2001:db8::1"],
        one_A=["192.0.2.1"],
        two_A=["192.0.2.2", "192.0.2.3"],
    )
    last = Heard(named("a", "x"), resolver=resolver).all()[-1]
    assert [(one.address[:2], one.group, one.hostname) for one in last.order] == [
        (("2001:db8::1", 7001), 1, "a"),
        (("192.0.2.1", 7001), 1, "a"),
        (("192.0.2.2", 7002), 2, "a"),
        (("192.0.2.3", 7002), 2, "a"),
    ]
    assert last.order[0].via == "SRV _x._tcp.a -> one:7001 AAAA"
    assert last.order[0].alpn == ("h2",)


@pytest.mark.rfc("CT-06")
def test_the_name_itself_if_there_are_no_records() -> None:
    for said in ((), gone(socket.EAI_AGAIN, "no answer")):
        resolver = Scripted(True, a_http=said, a_A=["192.0.2.1"])
        (news,) = Heard(named("a", "http"), resolver=resolver, families={V4}).all()
        assert [one.address for one in news.order] == [("192.0.2.1", 80)]


def test_a_port_or_a_number_asks_for_no_service() -> None:
    resolver = Scripted(True, a_A=["192.0.2.1"])
    Heard(named("a", 80), resolver=resolver).all()
    Heard(named("a", "80"), resolver=resolver).all()
    assert {kind for _, kind in resolver.asked} == {"A", "AAAA"}


def test_a_service_that_is_refused() -> None:
    error = gone(socket.EAI_SERVICE, "not here")
    resolver = Scripted(True, a_http=after(0.02, error), a_A=["192.0.2.1"])
    (news,) = Heard(named("a", "http"), resolver=resolver).all()
    assert news.error is error
    assert news.order == ()


def test_an_address_of_two_targets_is_tried_once(sources: dict[str, Source | None]) -> None:
    same = Target("one", 80)
    resolver = Scripted(False, a_http=[same], one_A=["192.0.2.1"], a_A=["192.0.2.1", "192.0.2.2"])
    news = Heard(named("a", "http"), resolver=resolver, families={V4}).all()
    assert [(one.address[0], one.group) for one in news[-1].order] == [
        ("192.0.2.1", 1),
        ("192.0.2.2", 0),
    ]
    assert sum(len(one.added) for one in news) == 2


@pytest.mark.rfc("HE-12")
def test_hints_that_were_wrong_are_removed() -> None:
    resolver = Scripted(True, a_x=[TWO], two_A=after(0.05, ["192.0.2.3"]))
    first, *_, last = Heard(named("a", "x"), resolver=resolver, families={V4}).all()
    assert addresses(first) == ["192.0.2.2"]
    assert last.removed == (("192.0.2.2", 7002),)
    assert addresses(last) == ["192.0.2.3"]


@pytest.mark.rfc("CT-12", "SR-03")
def test_ten_thousand_targets_of_ten_thousand_addresses() -> None:
    many = [f"10.0.{n >> 8}.{n & 255}" for n in range(10_000)]
    resolver = Scripted(
        True,
        a_x=[Target(f"t{n}", 1000 + n) for n in range(10_000)],
        **{f"t{n}_A": many for n in range(10_000)},
    )
    last = Heard(named("a", "x"), resolver=resolver, families={V4}).all()[-1]
    assert len(last.order) == MAX_TARGETS * MAX_ADDRESSES
    assert len(resolver.asked) == 1 + MAX_TARGETS  # no port is known for the name itself


# -- IPv4 addresses on networks with IPv6 alone --


@pytest.mark.rfc("HE-13")
def test_an_ipv4_literal_behind_a_translator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's part: the network has no way to IPv4, and says which prefix it translates."""
    monkeypatch.setattr(naming, "source_address", lambda *asked: None)
    known = {"ipv4only_AAAA": ["64:ff9b::c000:aa", "64:ff9b::c000:ab"]}
    (news,) = Heard(named("198.51.99.1", 7), resolver=Scripted(**known)).all()
    (one,) = news.order
    assert (one.address, one.via) == (("64:ff9b::c633:6301", 7, 0, 0), "NAT64")
    for none in ({}, {"ipv4only_AAAA": ["nonsense"]}, {"ipv4only_AAAA": gone(-2, "no")}):
        (news,) = Heard(named("198.51.99.1", 7), resolver=Scripted(**none)).all()
        assert [one.address for one in news.order] == [("198.51.99.1", 7)]
        (news,) = Heard(named("198.51.99.1", 7), resolver=Scripted(**none), families={V6}).all()
        assert isinstance(news.error, ResolutionError)


@pytest.mark.rfc("HE-13")
def test_a_name_with_ipv4_alone_behind_a_translator() -> None:
    """Where no name server does that for us (DNS64), we do."""
    prefix = {"ipv4only_AAAA": ["64:ff9b::c000:aa"]}
    known = {"a_A": ["198.51.99.1", "0.0.0.0", "10.0.0.1"], **prefix}
    (news,) = Heard(named("a", 7), resolver=Scripted(**known), families={V6}).all()
    assert [(one.address[:2], one.via) for one in news.order] == [
        (("64:ff9b::c633:6301", 7), "A, NAT64")
    ]
    # Not if the name is not there, has no address, if there is no translator, or IPv4 goes too.
    no_name = gone(socket.EAI_NONAME, "no such name")
    for said, families in (
        ({"a_AAAA": no_name, **known}, {V6}),
        (prefix, {V6}),
        ({"a_A": ["198.51.99.1"]}, {V6}),
        ({"a_A": no_name, **prefix}, {V6, V4}),
    ):
        (news,) = Heard(named("a", 7), resolver=Scripted(**said), families=families).all()
        assert isinstance(news.error, ResolutionError)
    resolver = Scripted(ipv4only_AAAA=never, a_A=["198.51.99.1"])
    (news,) = Heard(named("a", 7), resolver=resolver, families={V6}, limit=0.1).all()
    assert isinstance(news.error, ResolutionError)
    heard = Heard(named("a", 7), resolver=resolver, families={V6})
    while len(resolver.asked) < 6:
        gevent.sleep(0)
    heard.resolution.cancel()
    for _ in range(5):
        gevent.sleep(0)
    assert live_greenlets() == []
    assert heard.news == []


@pytest.mark.rfc("HE-13", "HE-06")
def test_translations_where_the_routes_lead_to_ipv6_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both families were asked for, and there is no way to the IPv4 addresses."""

    def way(remote: Any, interface: str | None = None) -> str | None:
        return "2001:db8::99" if ":" in remote[0] else None

    monkeypatch.setattr("greentaps.taps.naming.sources.source_address", way)
    known = {"ipv4only_AAAA": ["64:ff9b::c000:aa"], "a_A": ["198.51.99.1"], "b_A": ["198.51.99.1"]}
    known["b_AAAA"] = ["2001:db8::b"]
    resolver = Scripted(**known)
    last = Heard(named("a", 7), resolver=resolver).all()[-1]
    assert [one.address[0] for one in last.order] == ["64:ff9b::c633:6301", "198.51.99.1"]
    assert not last.last_resort
    # With an address of its own the name needs none, until that has failed.
    for families in ({V6, V4}, {V6}):
        last = Heard(named("b", 7), resolver=resolver, families=families).all()[-1]
        assert last.last_resort
        assert last.order[0].address[0] == "2001:db8::b"
        more = Heard(named("b", 7), resolver=resolver, families=families, last_resort=True).all()
        ((one,),) = [news.order for news in more]
        assert (one.address[:2], one.via) == (("64:ff9b::c633:6301", 7), "A, NAT64")
        assert more[0].complete
    # There is nothing to translate, nobody to say how, or a way to IPv4.
    last = Heard(named("c", 7), resolver=Scripted(c_AAAA=["2001:db8::c"])).all()[-1]
    assert not last.last_resort
    (news,) = Heard(named("b", 7), resolver=Scripted(), last_resort=True).all()
    assert (news.order, news.complete, news.error) == ((), True, None)
    (news,) = Heard(
        named("b", 7), resolver=Scripted(ipv4only_AAAA=never), limit=0.1, last_resort=True
    ).all()
    assert (news.order, news.complete, news.error) == ((), True, None)
    monkeypatch.setattr(
        "greentaps.taps.naming.sources.source_address", lambda *asked: "192.0.2.254"
    )
    for name in ("a", "b"):
        last = Heard(named(name, 7), resolver=resolver).all()[-1]
        assert not last.last_resort
        assert "NAT64" not in str(last.order)


@pytest.mark.rfc("HE-13")
def test_a_translator_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "source_address", lambda *asked: None)
    silent = Scripted(ipv4only_AAAA=never)
    (news,) = Heard(named("198.51.99.1", 7), resolver=silent, limit=0.1).all()
    assert addresses(news) == ["198.51.99.1"]
    heard = Heard(named("198.51.99.1", 7), resolver=silent)
    gevent.sleep(0)
    heard.resolution.cancel()
    gevent.sleep(0)
    assert heard.news == []
    assert live_greenlets() == []


def test_with_a_way_to_ipv4_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "source_address", lambda *asked: "192.0.2.254")
    resolver = Scripted()
    assert addresses(*Heard(named("192.0.2.1"), resolver=resolver).news) == ["192.0.2.1"]
    monkeypatch.setattr(naming, "source_address", lambda *asked: None)
    for name, translate in (("127.0.0.1", True), ("192.0.2.1", False)):
        heard = Heard(named(name), resolver=resolver, translate=translate)
        assert addresses(*heard.news) == [name]
    assert resolver.asked == []


# -- The default resolver, and sharing --


def test_the_default_resolver() -> None:
    assert isinstance(default_resolver(), SystemResolver)
    mine = Scripted(a_A=["192.0.2.1"])
    set_default_resolver(mine)
    try:
        assert default_resolver() is mine
        assert addresses(*Heard(named("a"), families={V4}).all()) == ["192.0.2.1"]
    finally:
        set_default_resolver(None)
    assert isinstance(default_resolver(), SystemResolver)
    with pytest.raises(TypeError):
        set_default_resolver("8.8.8.8")  # type: ignore[arg-type]


@pytest.mark.rfc("CT-06")
def test_the_system_is_asked_once_for_each_family(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def getaddrinfo(host: str, port: Any, family: int, *rest: Any) -> Any:
        asked.append((host, family))
        gevent.sleep(0.02)
        if family == V6:
            return [(V6, 1, 6, "", ("fe80::1", 0, 0, 3))]
        raise gevent.socket.gaierror(socket.EAI_NODATA, "no address")

    monkeypatch.setattr(gevent.socket, "getaddrinfo", getaddrinfo)
    resolver = SystemResolver()
    hearers = [Heard(named("a.example", n), resolver=resolver) for n in (1, 2, 3)]
    for n, heard in enumerate(hearers, 1):
        assert heard.all()[-1].order[0].address == ("fe80::1", n, 0, 3)
    assert asked == [("a.example", V6), ("a.example", V4)]


def test_names_that_cannot_be_asked_for() -> None:
    (news,) = Heard(named("a" * 70 + ".example")).all()
    assert isinstance(news.error, ResolutionError)


def test_a_shared_question_outlives_one_who_waits() -> None:
    sharing = Sharing()
    asked = []

    def question() -> int:
        asked.append(1)
        gevent.sleep(0.05)
        return 7

    first = gevent.spawn(sharing.ask, "k", question)
    second = gevent.spawn(sharing.ask, "k", question)
    gevent.sleep(0)
    first.kill()
    assert second.get(timeout=5) == 7
    assert asked == [1]
    assert sharing.ask("k", question) == 7  # the next one is a new one
    assert len(asked) == 2


def test_a_question_that_nobody_waits_for_is_given_up() -> None:
    sharing = Sharing()
    waiting = [gevent.spawn(sharing.ask, "k", never) for _ in range(3)]
    gevent.sleep(0)
    gevent.killall(waiting)
    gevent.sleep(0)
    assert live_greenlets() == []


@pytest.mark.rfc("HE-10")
def test_a_question_may_be_given_up_later() -> None:
    sharing = Sharing(0.1)
    answered: list[int] = []

    def question() -> int:
        gevent.sleep(0.05)
        answered.append(1)
        return 7

    for waited_for in (question, never):
        waiting = gevent.spawn(sharing.ask, waited_for, waited_for)
        gevent.sleep(0)
        waiting.kill()
        assert len(live_greenlets()) == 1
        with Stopwatch() as took:
            while live_greenlets():
                gevent.sleep(0.005)
        assert (0.1 if waited_for is never else 0.05) <= took.seconds + 0.02
        assert took.seconds < 3
    assert answered == [1]
    # One who comes in the meantime keeps it alive.
    first = gevent.spawn(sharing.ask, "k", after(0.2, 8))
    gevent.sleep(0)
    first.kill()
    assert sharing.ask("k", never) == 8


def test_a_question_that_somebody_kills_is_no_hang() -> None:
    sharing = Sharing()
    waiting = gevent.spawn(sharing.ask, "k", never)
    gevent.sleep(0)
    for greenlet in live_greenlets():
        if greenlet is not waiting:
            greenlet.kill(block=False)
    with pytest.raises(ResolutionError):
        waiting.get(timeout=5)


@pytest.mark.leaves_things
def test_a_question_of_a_hub_that_is_gone_is_asked_again() -> None:
    """The greenlet that asked ended with its hub, or will never run again."""
    sharing = Sharing()
    found: list[int] = []

    def run() -> None:
        gevent.spawn(sharing.ask, "k", never)
        gevent.sleep(0.01)
        gevent.get_hub().destroy(destroy_loop=True)
        with gevent.Timeout(5, False):
            found.append(sharing.ask("k", lambda: 7))
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        gevent.sleep(0.01)
    assert found == [7]


def test_errors_are_shared_too() -> None:
    sharing = Sharing()

    def question() -> int:
        gevent.sleep(0.01)
        raise KeyError("x")

    waiting = [gevent.spawn(sharing.ask, "k", question) for _ in range(2)]
    gevent.joinall(waiting)
    assert all(isinstance(one.exception, KeyError) for one in waiting)


def test_two_at_once() -> None:
    error = KeyError()
    with Stopwatch() as took:
        assert both(after(0.5, 1), after(0.5, error)) == [1, error]
    assert took.seconds < 0.95
    waiting = gevent.spawn(both, never, never)
    gevent.sleep(0)
    waiting.kill()
    gevent.sleep(0)
    assert live_greenlets() == []


def test_a_resolver_of_ones_own_must_say_how() -> None:
    with pytest.raises(NotImplementedError):
        Resolver().addresses("a", V4, interface=None, network="")
    with pytest.raises(NotImplementedError):
        Resolver().targets("a", "x", "tcp", 1, interface=None, network="")
    assert Resolver().asks_for("x") is None
