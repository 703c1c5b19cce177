"""States and ordering (RFC 9622 section 11), by a machine that does whatever may be done.

Random sequences of calls, and of what a peer does, over a real connection: whatever the order, no
rule of section 11 is broken, every Send and every Receive has one event, nothing hangs, and nothing
is left.
"""

from __future__ import annotations

import itertools
import socket
from typing import Any

import gevent
import greentaps
import pytest
from gevent import socket as gsocket
from greentaps import (
    Connection,
    ConnectionState,
    Framer,
    LengthPrefixFramer,
    MessageContext,
    Preconnection,
    TapsError,
)
from greentaps.hub import get_runner
from greentaps.taps.properties import CLOSED, CLOSING, ESTABLISHED, ESTABLISHING
from greentaps.taps.states import TRANSITIONS
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from rfc9622.world import LAST, Log
from taps.helpers import HERE, RESET, remote, until

ANSWERS = {
    "sent": "send",
    "expired": "send",
    "send_error": "send",
    "received": "receive",
    "received_partial": "receive",
    "receive_error": "receive",
}


@pytest.mark.rfc("ST-01", "ST-02", "ST-05", "ST-06", "ST-07", "ST-08", "CM-05", "P-32")
def test_the_table_is_that_of_the_rfc() -> None:
    assert set(TRANSITIONS) == {
        (ESTABLISHING, ESTABLISHED),
        (ESTABLISHING, CLOSED),
        (ESTABLISHED, CLOSING),
        (CLOSING, CLOSED),
    }
    assert not any(before is CLOSED for before, _ in TRANSITIONS)
    assert {state for pair in TRANSITIONS for state in pair} == set(ConnectionState)


class Life(RuleBasedStateMachine):
    """One Connection that we initiate, and a plain socket at its other end."""

    framer: Framer | None = None

    def __init__(self) -> None:
        super().__init__()
        self.before = set(get_runner().owners)
        self.calls = {"send": 0, "receive": 0}
        self.over = False  # a closing event was seen
        self.states: list[ConnectionState] = []
        self.handled = 0  # outcomes that went to the handler of one call
        self.clones: list[Connection] = []
        self.waiting: list[Any] = []
        self.peer: gsocket.socket | None = None
        self.listener = gsocket.socket()
        self.listener.bind((HERE, 0))
        self.listener.listen(1)
        self.listener.settimeout(20)

    @initialize(accepting=st.booleans())
    def begin(self, accepting: bool) -> None:
        preconnection = Preconnection(None, remote(self.listener.getsockname()[1]))
        if self.framer is not None:
            preconnection.add_framer(self.framer)
        self.connection: Connection = preconnection.initiate(wait=False)
        self.log = Log(self.connection)
        if not accepting:
            self.listener.close()

    # -- What we do --

    def call(self, what: str, function: Any, *args: Any, **options: Any) -> None:
        """A call without waiting: it answers by an event, or, when all is told, by raising."""
        try:
            function(*args, **options, wait=False)
        except TapsError:
            assert self.log.ended
        else:
            self.calls[what] += 1

    @rule(
        size=st.sampled_from([0, 1, 200, 300_000]),
        properties=st.fixed_dictionaries(
            {},
            optional={
                "final": st.booleans(),
                "msgPriority": st.integers(0, 2),
                "msgLifetime": st.sampled_from([0.000001, 10.0]),
            },
        ),
    )
    def send(self, size: int, properties: dict[str, Any]) -> None:
        context = MessageContext()
        for name, value in properties.items():
            context.add(name, value)
        self.call("send", self.connection.send, bytes(min(size, self.most)), context)

    @property
    def most(self) -> int:
        return 1_000_000

    @rule(then=st.sampled_from(["send", "receive", "close", "abort", "batch", "nothing"]))
    def send_with_a_handler(self, then: str) -> None:
        self.call("send", self.connection.send, b"handled", sent_handler=self.handler(then))

    @rule(then=st.sampled_from(["send", "receive", "close", "abort", "batch", "nothing"]))
    def receive_with_a_handler(self, then: str) -> None:
        self.call("receive", self.connection.receive, 1, handler=self.handler(then))

    def handler(self, then: str) -> Any:
        """A handler that does something, and may block in it."""

        def handle(connection: Connection, *_: Any) -> None:
            assert not self.log.ended
            self.handled += 1
            if then == "send":
                _ends(connection.send, b"from a handler")
            elif then == "receive":
                _ends(connection.receive, 1)
            elif then == "close":
                _ends(connection.close, 5)
            elif then == "abort":
                connection.abort()
            elif then == "batch":
                connection.start_batch()

        return handle

    @rule(sizes=st.lists(st.sampled_from([0, 4, 200]), min_size=1, max_size=4), whole=st.booleans())
    def send_parts(self, sizes: list[int], whole: bool) -> None:
        context = MessageContext()
        for number, size in enumerate(sizes, 1):
            end = whole and number == len(sizes)
            self.call("send", self.connection.send, bytes(size), context, end)

    @rule(minimum=st.none() | st.integers(1, 100), maximum=st.none() | st.integers(1, 100))
    def receive(self, minimum: int | None, maximum: int | None) -> None:
        self.call("receive", self.connection.receive, minimum, maximum)

    @rule(data=st.sampled_from(["send", "receive"]))
    def block(self, data: str) -> None:
        call = self.connection.send if data == "send" else self.connection.receive
        arguments = (b"blocking",) if data == "send" else (1,)
        self.waiting.append(gevent.spawn(_ends, call, *arguments))

    @rule(data=st.sampled_from(["send", "receive"]), seconds=st.sampled_from([0, 0.001]))
    def break_off(self, data: str, seconds: float) -> None:
        call = self.connection.send if data == "send" else self.connection.receive
        arguments = (bytes(min(300_000, self.most)),) if data == "send" else (1,)
        try:
            with gevent.Timeout(seconds, False):
                _ends(call, *arguments)
        except gevent.Timeout:
            pass

    @rule(data=st.sampled_from(["send", "receive"]), seconds=st.sampled_from([0, 0.001]))
    def time_out(self, data: str, seconds: float) -> None:
        if data == "send":
            _ends(lambda: self.connection.send(b"timely", MessageContext(), timeout=seconds))
        else:
            _ends(lambda: self.connection.receive(1, timeout=seconds))

    # What may be done must not depend on what the network has done, or runs cannot be repeated: so
    # there are no preconditions, and some steps do nothing.

    @rule()
    def kill(self) -> None:
        if self.waiting:
            self.waiting.pop(0).kill(block=False)

    @rule()
    def batch(self) -> None:
        with self.connection.batch():
            self.call("send", self.connection.send, b"one")
            self.call("send", self.connection.send, b"two")

    @rule(begin=st.booleans())
    def half_a_batch(self, begin: bool) -> None:
        if begin:
            self.connection.start_batch()
        else:
            self.connection.end_batch()

    @rule(wait=st.booleans(), kill=st.booleans())
    def clone(self, wait: bool, kill: bool) -> None:
        known = self.connection.grouped_connections()
        if wait:
            cloning = gevent.spawn(_ends, lambda: self.connection.clone(timeout=1))
            self.waiting.append(cloning)
            gevent.sleep(0)
            if kill:
                cloning.kill(block=False)
        else:
            _ends(lambda: self.connection.clone(timeout=1, wait=False))
        self.clones += [
            one for one in self.connection.grouped_connections() if one not in known + self.clones
        ]

    @rule(
        what=st.sampled_from(["send", "priority", "close", "abort", "receive"]),
        which=st.integers(0, 9),
    )
    def clone_does(self, what: str, which: int) -> None:
        if not self.clones:
            return
        clone = self.clones[which % len(self.clones)]
        if what == "send":
            _ends(lambda: clone.send(bytes(min(300_000, self.most)), wait=False))
        elif what == "priority":
            clone.set_property("connPriority", which)
        elif what == "close":
            clone.close(5, wait=False)
        elif what == "abort":
            clone.abort()
        else:
            _ends(lambda: clone.receive(1, wait=False))

    @rule(abort=st.booleans())
    def end_the_group(self, abort: bool) -> None:
        if abort:
            self.connection.abort_group()
        else:
            self.waiting.append(gevent.spawn(_ends, self.connection.close_group, 5))

    @rule(name=st.sampled_from(["connTimeout", "msgPriority", "maxSendRate"]))
    def set_property(self, name: str) -> None:
        self.connection.set_property(name, 10_000_000)
        self.connection.get_properties().get("canSend")

    @rule(wait=st.booleans())
    def close(self, wait: bool) -> None:
        if wait:
            self.waiting.append(gevent.spawn(_ends, self.connection.close, 5))
        else:
            self.connection.close(5, wait=False)

    @rule()
    def abort(self) -> None:
        self.connection.abort()

    # -- What happens --

    @rule(turns=st.integers(1, 4))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            gevent.sleep(0)

    @rule()
    def accept(self) -> None:
        if self.peer is not None or self.listener.closed:
            return
        self.listener.setblocking(False)
        try:
            self.peer, _ = self.listener.accept()
        except BlockingIOError:
            return
        self.peer.setblocking(False)

    @rule(what=st.sampled_from(["data", "read", "end", "close", "reset"]))
    def peer_does(self, what: str) -> None:
        peer = self.peer
        if peer is None:
            return
        try:
            if what == "data":
                peer.send(b"\x02ab\x00\x05hello")
            elif what == "read":
                peer.recv(1_000_000)
            elif what == "end":
                peer.shutdown(socket.SHUT_WR)
            else:
                if what == "reset":
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                peer.close()
                self.peer = None
                self.listener.close()
        except (BlockingIOError, OSError):
            pass

    # -- What must be so --

    @invariant()
    def rules_hold(self) -> None:
        if not hasattr(self, "connection"):
            return
        state = self.connection.state
        if not self.states or self.states[-1] is not state:
            self.states.append(state)
        names = self.log.names
        # At most one closing event, and nothing after it.
        assert not any(name in LAST for name in names[:-1]), names
        assert names.count("ready") <= 1
        if "ready" in names:
            received = [index for index, name in enumerate(names) if name.startswith("received")]
            assert not received or received[0] > names.index("ready")
            assert "establishment_error" not in names
        else:
            assert not any(name == "sent" or name.startswith("received") for name in names)
        for what, number in self.answered().items():
            assert number <= self.calls[what], names
        if names and names[-1] in LAST:
            assert state is CLOSED

    def answered(self) -> dict[str, int]:
        found = dict.fromkeys(self.calls, 0)
        for name in self.log.names:
            if name in ANSWERS:
                found[ANSWERS[name]] += 1
        return found

    def all_answered(self) -> bool:
        answered, calls = self.answered(), self.calls
        return sum(answered.values()) + self.handled == sum(calls.values())

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            with gevent.Timeout(30):
                self.connection.abort()
                until(lambda: self.connection.state is CLOSED)
                gevent.joinall(self.waiting)
                until(lambda: self.log.ended)
                for clone in self.clones:
                    clone.abort()
                until(lambda: all(clone.state is CLOSED for clone in self.clones))
                assert self.connection.grouped_connections() == [self.connection]
                for _ in range(3):
                    gevent.sleep(0)
            self.rules_hold()
            assert self.all_answered(), (self.log.names, self.handled, self.calls)
            for before, after in itertools.pairwise(self.states):
                assert _possible(before, after), self.states
        for plain in (self.peer, self.listener):
            if plain is not None:
                plain.close()
        until(lambda: set(get_runner().owners) <= self.before)


def _possible(before: ConnectionState, after: ConnectionState) -> bool:
    """Whether *after* follows *before*, maybe by way of one that nobody looked at."""
    return (before, after) in TRANSITIONS or any(
        first is before and (second is after or _possible(second, after))
        for first, second in TRANSITIONS
    )


def _ends(call: Any, *arguments: Any) -> None:
    """A blocking call, however it ends: but only with what the API knows."""
    try:
        call(*arguments)
    except greentaps.GreentapsError:
        pass


class FramedLife(Life):
    """The same with a framer."""

    framer = LengthPrefixFramer(1)

    @property
    def most(self) -> int:
        return 255


@pytest.mark.rfc("OR-01", "OR-02", "OR-03", "OR-05", "SN-02", "RV-02", "B-04", "ST-01", "ST-05")
@pytest.mark.rfc("ST-06", "ST-07", "ST-08", "TM-05", "TM-06", "B-03")
@pytest.mark.parametrize("machine", [Life, FramedLife])
def test_any_life(machine: type[Life]) -> None:
    # Hypothesis imports its parts when they are first used.
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
