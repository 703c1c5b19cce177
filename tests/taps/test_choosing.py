"""Choosing, end to end over loopback: names that come late, are shared or fail; what is learned."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import pytest
from conftest import live_greenlets
from greentaps import (
    Connection,
    ConnectionState,
    EstablishmentError,
    History,
    LocalEndpoint,
    Preconnection,
    Reason,
    RemoteEndpoint,
    ResolutionError,
    Resolver,
    SecurityParameters,
    TransportProperties,
)
from greentaps.errors import TransportError
from greentaps.hub import Deadline
from greentaps.plugins.tcp import Tcp
from greentaps.taps.choosing import gathering as choosing
from greentaps.taps.naming import resolving as naming
from greentaps.taps.naming.answers import Target
from greentaps.taps.naming.resolving import News
from greentaps.testing import reported_errors
from taps.helpers import (
    HERE,
    Stopwatch,
    blackhole,
    free_port,
    in_greenlet,
    local,
    plain_listener,
    remote,
    until,
)

Answer = Callable[[str, int], Sequence[str]]
V4, V6 = socket.AF_INET, socket.AF_INET6


class Names(Resolver):
    """Answers by a function; knows what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []
        self.broken_off = 0

    def addresses(
        self, name: str, family: int, *, interface: str | None, network: str
    ) -> Sequence[str]:
        self.asked.append((name, family))
        try:
            return self.answer(name, family)
        except gevent.GreenletExit:
            self.broken_off += 1
            raise


def unknown(name: str, family: int) -> Sequence[str]:
    raise ResolutionError("no such name", socket.EAI_NONAME, (name, None))


def named(port: int, name: str = "peer.example") -> RemoteEndpoint:
    return RemoteEndpoint().with_hostname(name).with_port(port)


def both_families() -> tuple[socket.socket, socket.socket, int]:
    """A listener for each family, on one port."""
    with plain_listener() as spare:
        port = spare.getsockname()[1]
    made = []
    for family, address in ((V4, HERE), (V6, "::1")):
        here = gevent.socket.socket(family)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        here.bind((address, port))
        here.listen(8)
        made.append(here)
    return made[0], made[1], port


@pytest.mark.rfc("TT-07", "HE-01", "HE-07", "CG-02", "CG-06")
@pytest.mark.parametrize(("late", "winner"), [(0.02, "::1"), (0.4, HERE)])
def test_an_address_that_comes_a_little_late_still_goes_first(late: float, winner: str) -> None:
    """20 ms after the other family is early enough, 400 ms are not (RFC 8305 section 3)."""

    def answer(name: str, family: int) -> Sequence[str]:
        if family == V6:
            gevent.sleep(late)
            return ["::1"]
        return [HERE]

    four, six, port = both_families()
    with four, six:
        connection = Preconnection(None, named(port), resolver=Names(answer)).initiate(timeout=10)
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.ip_address == winner
        assert connection.remote_endpoint.hostname == "peer.example"
        assert dict(connection.phases)["resolution"] < 0.39
        connection.abort()


@pytest.mark.rfc("TT-06", "HE-07", "CR-02")
def test_what_is_refused_makes_room_for_what_comes_late() -> None:
    """The only address that is known refuses; the race waits for the rest of the answer."""

    def answer(name: str, family: int) -> Sequence[str]:
        if family == V4:
            gevent.sleep(0.3)
            return [HERE]
        return ["::1"]

    with plain_listener() as listener:
        names = Names(answer)
        preconnection = Preconnection(None, named(listener.getsockname()[1]), resolver=names)
        connection = preconnection.initiate(timeout=10)
        assert connection.history is not None
        fates = [attempt.fate for attempt in connection.history.attempts]
        assert fates == ["failed", "won"]
        connection.abort()


@pytest.mark.rfc("CT-04", "CG-06")
def test_stacks_on_one_path_share_a_look_up() -> None:
    wish = TransportProperties().set("safelyReplayable", True)
    for name in ("reliability", "preserveOrder", "congestionControl"):
        wish.no_preference(name)
    names = Names(lambda name, family: [HERE] if family == V4 else [])
    preconnection = Preconnection(None, named(free_port()), wish, resolver=names)
    connection = preconnection.initiate(timeout=10)  # TCP is refused, and UDP is not
    assert connection.stack == "udp"
    assert sorted(names.asked) == [("peer.example", V4), ("peer.example", V6)]
    connection.abort()


@pytest.mark.rfc("CG-06", "E-19")
def test_local_endpoints_of_both_families_each_have_a_look_up() -> None:
    """What was looked up for the one does not do for the other, which has another family."""
    names = Names(lambda name, family: ["::1"] if family == V6 else [])
    four, six, port = both_families()
    with four, six:
        locals_ = [local(0, HERE), local(0, "::1")]
        connection = Preconnection(locals_, named(port), resolver=names).initiate(timeout=10)
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.ip_address == "::1"
        connection.abort()


class Services(Names):
    """Knows which protocols services were asked for."""

    def __init__(self) -> None:
        super().__init__(lambda name, family: [])
        self.protocols: list[str] = []

    def asks_for(self, service: str) -> bool | None:
        return True

    def targets(
        self, name: str, service: str, protocol: str, port: int | None, **more: Any
    ) -> Sequence[Target]:
        self.protocols.append(protocol)
        return ()


@pytest.mark.rfc("CT-03")
@pytest.mark.parametrize(
    ("stream", "says", "asked"),
    [(True, None, "tcp"), (False, None, "udp"), (True, "udp", "udp")],
)
def test_services_are_asked_for_under_the_protocol_that_they_are_registered_for(
    monkeypatch: pytest.MonkeyPatch, stream: bool, says: str | None, asked: str
) -> None:
    """A plugin is called as it likes: no service is registered for ``_like-tcp``."""
    kind = type("Alike", (Tcp,), {"name": "like-tcp", "stream": stream, "service_protocol": says})
    monkeypatch.setattr("greentaps.taps.setup.stacks", lambda: [(kind(),)])
    names = Services()
    end = RemoteEndpoint().with_hostname("peer.example").with_service("svc")
    with pytest.raises(EstablishmentError):
        Preconnection(None, end, resolver=names).initiate(timeout=10)
    assert names.protocols == [asked]


# -- What is added meanwhile --


def never(name: str, family: int) -> Sequence[str]:
    gevent.sleep(3600)
    return []


def under_way(names: Names, *locals_: LocalEndpoint, secured: bool = False) -> Connection:
    """A Connection that is being established, and waits for a name."""
    security = SecurityParameters.opportunistic() if secured else None
    made = Preconnection(locals_ or None, named(1), None, security, resolver=names)
    connection = made.initiate(timeout=30, wait=False)
    until(lambda: len(names.asked) >= 2)
    return connection


@pytest.mark.rfc("AE-01", "CR-02")
def test_a_remote_endpoint_that_is_added_enters_the_race() -> None:
    connection = under_way(Names(never))
    with plain_listener() as listener:
        port = listener.getsockname()[1]
        connection.add_remote([remote(port), remote(port)])
        until(lambda: connection.state is ConnectionState.ESTABLISHED)
        assert connection.remote_endpoint is not None
        assert connection.remote_endpoint.port == port
        assert connection.history is not None
        assert [one.fate for one in connection.history.attempts] == ["won"]
        assert connection.history.attempts[0].number.startswith("1.2.")
        connection.abort()


@pytest.mark.rfc("AE-01")
def test_what_is_added_before_the_race_has_begun_is_a_candidate_like_the_others() -> None:
    with plain_listener() as listener:
        port = listener.getsockname()[1]
        made = Preconnection(None, named(1), resolver=Names(unknown))
        connection = made.initiate(timeout=30, wait=False)
        connection.add_remote(remote(port))
        until(lambda: connection.state is ConnectionState.ESTABLISHED)
        assert connection.history is not None
        assert len(connection.history.tree.children) == 1
        connection.abort()


@pytest.mark.rfc("AE-03")
def test_a_local_endpoint_that_is_added_enters_the_race() -> None:
    """Nothing can be tried from the first one, whose address is of another family."""
    names = Names(lambda name, family: [HERE] if family == V4 else never(name, family))
    with plain_listener() as listener:
        end = named(listener.getsockname()[1])
        made = Preconnection(local(0, "::1"), end, resolver=names)
        connection = made.initiate(timeout=30, wait=False)
        until(lambda: names.asked)
        connection.add_local(local(0, "127.0.0.7"))
        until(lambda: connection.state is ConnectionState.ESTABLISHED)
        assert connection.local_endpoint is not None
        assert connection.local_endpoint.ip_address == "127.0.0.7"
        connection.abort()


@pytest.mark.rfc("AE-01")
def test_what_is_added_counts_for_the_second_race_of_opportunistic_security(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one, with TLS, has no time for it."""
    monkeypatch.setattr(choosing, "OPPORTUNITY", 0.2)
    connection = under_way(Names(never), secured=True)
    with plain_listener() as listener:
        connection.add_remote(remote(listener.getsockname()[1]))
        until(lambda: connection.state is ConnectionState.ESTABLISHED)
        assert connection.stack == "tcp"
        connection.abort()


@pytest.mark.rfc("AE-01", "TT-10")
def test_what_is_added_and_fails_too_ends_the_race() -> None:
    names = Names(never)
    before = len(live_greenlets())
    connection = under_way(names)
    connection.add_remote(remote(free_port()))
    with pytest.raises(EstablishmentError) as caught:
        connection.add_remote(RemoteEndpoint().with_ip_address(HERE))
    assert caught.value.reason is Reason.INVALID_CONFIGURATION
    connection.abort()
    until(lambda: len(live_greenlets()) <= before)


@pytest.mark.rfc("AE-01")
def test_two_who_add_at_once_both_count() -> None:
    """To add a Local Endpoint with a name takes time."""
    connection = under_way(Names(never))
    first = in_greenlet(connection.add_local, LocalEndpoint().with_hostname("localhost"))
    second = in_greenlet(connection.add_local, local(0, "127.0.0.9"))
    gevent.joinall([first, second], timeout=20, raise_error=True)
    with plain_listener() as listener:
        connection.add_remote(remote(listener.getsockname()[1]))
        until(lambda: connection.state is ConnectionState.ESTABLISHED)
        assert {end.ip_address or end.hostname for end in connection._setup.local_endpoints} == {
            "localhost",
            "127.0.0.9",
        }
        connection.abort()


@pytest.mark.rfc("ER-03", "I-07", "DN-02")
def test_a_name_that_is_unknown() -> None:
    names = Names(unknown)
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(None, named(1), resolver=names).initiate(timeout=10)
    assert caught.value.reason is Reason.RESOLUTION_FAILED
    ((what, error),) = caught.value.attempts
    assert isinstance(what, RemoteEndpoint)
    assert isinstance(error, ResolutionError)
    assert "not resolved" in caught.value.history.text()


@pytest.mark.rfc("E-19", "DN-02")
def test_an_unknown_name_does_not_spoil_another_one() -> None:
    def answer(name: str, family: int) -> Sequence[str]:
        return unknown(name, family) if name == "no.example" else [HERE] if family == V4 else []

    with plain_listener() as listener:
        port = listener.getsockname()[1]
        ends = [named(port, "no.example"), named(port)]
        with Stopwatch() as took:
            connection = Preconnection(None, ends, resolver=Names(answer)).initiate(timeout=10)
        connection.abort()
    assert took.seconds < 1.5  # the second name did not wait out the bound of the first


@pytest.mark.rfc("I-07", "ER-12", "TT-10")
def test_a_resolver_that_never_answers() -> None:
    names = Names(lambda name, family: gevent.sleep(3600) or [])
    before = len(live_greenlets())
    with pytest.raises(EstablishmentError) as caught:
        Preconnection(None, named(1), resolver=names).initiate(timeout=0.2)
    assert caught.value.reason is Reason.TIMEOUT
    until(lambda: names.broken_off == 2)
    until(lambda: len(live_greenlets()) <= before)


@pytest.mark.rfc("B-05", "DN-03")
@pytest.mark.parametrize("how", ["kill", "close", "abort"])
def test_giving_up_during_a_look_up_leaves_nothing(how: str) -> None:
    names = Names(lambda name, family: gevent.sleep(3600) or [])
    preconnection = Preconnection(None, named(1), resolver=names)
    before = len(live_greenlets())
    if how == "kill":
        waiting = in_greenlet(preconnection.initiate)
        until(lambda: len(names.asked) == 2)
        waiting.kill()
    else:
        connection = preconnection.initiate(wait=False)
        until(lambda: len(names.asked) == 2)
        getattr(connection, how)()
        assert connection.state is ConnectionState.CLOSED
    until(lambda: names.broken_off == 2)
    until(lambda: len(live_greenlets()) <= before)


def _kill(which: str) -> None:
    """Be the stranger who kills the greenlets that run a function of that name."""
    for one in live_greenlets():
        if getattr(getattr(one, "_run", None), "__name__", "") == which:
            one.kill(block=False)


def test_a_stranger_who_kills_an_attempt_or_a_look_up_makes_nobody_wait() -> None:
    with blackhole() as dead, plain_listener() as alive:
        ends = [remote(dead), remote(dead), remote(alive.getsockname()[1])]
        waiting = in_greenlet(Preconnection(None, ends).initiate)
        gevent.sleep(0)
        _kill("_attempt_and_tell")  # so the second one starts at once
        connection = waiting.get()
        assert connection.history is not None
        assert "broken off" in connection.history.text()
        connection.abort()
    names = Names(lambda name, family: gevent.sleep(3600) or [])
    waiting = in_greenlet(Preconnection(None, named(1), resolver=names).initiate)
    until(lambda: len(names.asked) == 2)
    _kill("_run")
    error = waiting.get()
    assert isinstance(error, EstablishmentError)
    assert error.reason is Reason.RESOLUTION_FAILED
    until(lambda: names.broken_off == 2)


def test_a_resolver_that_is_broken_is_reported_and_ends_the_wait(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(name: str, family: int) -> Sequence[str]:
        raise RuntimeError("a bug")

    preconnection = Preconnection(None, named(1), resolver=Names(broken))
    with pytest.raises(RuntimeError, match="a bug"):
        preconnection.initiate(timeout=10)
    errors: list[BaseException] = []
    preconnection.on_establishment_error(lambda made, error: errors.append(error))
    connection = preconnection.initiate(timeout=10, wait=False)
    until(lambda: errors)
    assert connection.state is ConnectionState.CLOSED
    assert isinstance(errors[0], EstablishmentError)
    assert isinstance(errors[0].__cause__, RuntimeError)
    assert "RuntimeError: a bug" in capsys.readouterr().err


@pytest.mark.rfc("HE-13")
@pytest.mark.parametrize("garbage", [None, [3], ["no address"]])
def test_a_resolver_that_talks_nonsense_of_translation_ends_the_wait(garbage: Any) -> None:
    """An IPv4 address that there is no way to, and no time limit."""

    def answer(name: str, family: int) -> Any:
        return garbage

    end = RemoteEndpoint().with_ip_address("192.0.2.1").with_service("http")
    heard: list[News] = []
    resolution = naming.resolve(
        end,
        families=frozenset((V6,)),
        resolver=Names(answer),
        deadline=Deadline(None),
        deliver=heard.append,
    )
    until(lambda: heard)
    assert heard[-1].complete
    assert heard[-1].error is not None
    resolution.cancel()


@pytest.mark.rfc("CT-12", "SR-03", "CG-01")
def test_a_name_with_ten_thousand_addresses() -> None:
    many = [
        f"127.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(1 << 16, (1 << 16) + 10_000)
    ]
    names = Names(lambda name, family: many if family == V4 else [])
    wish = Preconnection(None, named(free_port()), resolver=names)
    explained = wish.explain(timeout=10)
    assert sum(node.candidate is not None for node in explained.tree.walk()) <= 64
    with pytest.raises(EstablishmentError) as caught:
        wish.initiate(timeout=20)
    assert 0 < len(caught.value.attempts) <= 64


def test_a_resolver_must_be_one() -> None:
    with pytest.raises(TypeError, match="Resolver"):
        Preconnection(None, named(1), resolver="192.0.2.53")  # type: ignore[arg-type]


# -- What is learned --


class Spy(History):
    """A History that tells what it is asked and told."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []
        self.asked = 0

    def note_success(self, *args: Any, **more: Any) -> None:
        self.noted.append("success")
        super().note_success(*args, **more)

    def note_failure(self, *args: Any, **more: Any) -> None:
        self.noted.append("failure")
        super().note_failure(*args, **more)

    def score(self, *args: Any, **more: Any) -> float:
        self.asked += 1
        return super().score(*args, **more)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """The history that counts, also for this machine."""
    made = Spy()
    monkeypatch.setattr(choosing, "default_history", lambda: made)
    monkeypatch.setattr(choosing, "is_here", lambda address: False)
    monkeypatch.setattr("greentaps.taps.choosing.learning.is_here", lambda address: False)
    return made


@pytest.mark.rfc("A-19", "A-20", "CA-04", "P-31", "TT-20")
def test_an_isolated_connection_neither_uses_nor_makes_history(spy: Spy) -> None:
    names = Names(lambda name, family: [HERE] if family == V4 else [])
    with plain_listener() as listener:
        end = named(listener.getsockname()[1])
        for isolated in (True, False):
            wish = TransportProperties().set("isolateSession", isolated)
            Preconnection(None, end, wish, resolver=names).initiate(timeout=10).abort()
            assert bool(spy.noted) is bool(spy.asked) is not isolated
    with pytest.raises(EstablishmentError):
        Preconnection(None, named(free_port()), resolver=names).initiate(timeout=10)
    assert spy.noted == ["success", "failure"]


def test_what_we_are_short_of_ourselves_is_not_learned_of_the_peer(
    monkeypatch: pytest.MonkeyPatch, spy: Spy
) -> None:
    names = Names(lambda name, family: [HERE] if family == V4 else [])
    for number, noted in ((errno.EMFILE, []), (errno.ECONNREFUSED, ["failure"])):
        error = TransportError.from_errno(number, "connect", (HERE, 1))

        def fail(*args: Any, error: Any = error, **more: Any) -> Any:
            raise error

        monkeypatch.setattr("greentaps.plugins.tcp.connect_tcp", fail)
        with pytest.raises(EstablishmentError):
            Preconnection(None, named(1), resolver=names).initiate(timeout=10)
        assert spy.noted == noted


class Forgetful(Tcp):
    """A plugin that cannot measure, and takes no property that it does not know."""

    def measure(self, transport: Any) -> Any:
        raise KeyError("rtt")

    def apply(self, transport: Any, name: str, value: Any) -> None:
        raise ValueError(f"{name} is not mine")


@pytest.mark.parametrize("how", ["close", "abort"])
def test_what_cannot_be_learned_costs_no_connection(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("greentaps.taps.choosing.learning.is_here", lambda address: False)
    monkeypatch.setattr("greentaps.taps.setup.stacks", lambda: [(Forgetful(),)])
    names = Names(lambda name, family: [HERE] if family == V4 else [])
    with plain_listener() as listener, reported_errors() as reports:
        end = named(listener.getsockname()[1])
        connection = Preconnection(None, end, resolver=names).initiate(timeout=10)
        assert [type(error) for error in reports] == [KeyError]
        server = listener.accept()[0]
        server.shutdown(socket.SHUT_WR)
        getattr(connection, how)()
        assert [type(error) for error in reports] == [KeyError, KeyError]
        until(lambda: connection.state is ConnectionState.CLOSED)
        server.close()


def test_a_plugin_that_takes_no_unknown_property_can_be_cloned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("greentaps.taps.setup.stacks", lambda: [(Forgetful(),)])
    with plain_listener() as listener:
        connection = Preconnection(None, remote(listener.getsockname()[1])).initiate(timeout=10)
        clone = connection.clone(None, {"connPriority": 7}, timeout=10)
        assert len(connection.grouped_connections()) == 2
        clone.abort()
        connection.abort()


@pytest.mark.rfc("CG-06")
def test_the_resolver_of_a_preconnection_is_asked_for_all_names_of_others() -> None:
    """Those of a rendezvous, of its servers, and of whom a Listener lets in, too."""
    names = Names(lambda name, family: [HERE] if family == V4 else [])
    end = local(0).with_stun_server("stun.example", free_port())
    datagrams = TransportProperties("unreliable-datagram")
    preconnection = Preconnection(end, named(7), datagrams, resolver=names)
    _, remotes = preconnection.resolve(timeout=0.2)
    assert [one.ip_address for one in remotes] == [HERE]
    preconnection.release()
    assert {name for name, _ in names.asked} == {"peer.example", "stun.example"}
    names.asked.clear()
    with pytest.raises(EstablishmentError):
        Preconnection(local(0), named(7), datagrams, resolver=names).rendezvous(0.2)
    Preconnection(local(0), named(7), resolver=names).listen(timeout=10).stop()
    assert {name for name, _ in names.asked} == {"peer.example"}
    assert len(names.asked) == 4
