"""A Connection's framers, joined: `FramerLink` is one framer's end, `FramerStack` all of them.

What passes from layer to layer is a function call and nothing else.  Which function is found out
when the stack changes (`FramerStack._wire`), not when data passes: with one framer over a byte
stream, the usual case, a sent Message meets one Python function of ours, the framer's own, and
received bytes meet none that do not work for the framer.  Everything rarer has its own wiring and
costs others nothing:

* Over datagrams, or over another framer, there are Messages below as well.  What a framer sends
  during one event is then one Message below, so that framers nest as ``A(B(message))`` and one
  datagram is never two; and the framer is told where the Messages below end (`end_of_message`)
  and what came with them (`context`).
* Before a Connection is there to take Messages they are kept for it.
* A framer that has gone into passthrough is taken out, and is on no path any more.

Received bytes are held once, in one buffer per framer, and joined so that no number of small
pieces makes the work grow faster than the data.

RFC 9623 section 6.1 asks for all events and actions of framers to be serialised.  They are, since
nothing in here switches greenlets: each handler runs to its end before anything else happens to
the same Connection.  The host must keep to that: its methods do not switch, and it does not call
`feed` from within them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from struct import Struct
from typing import Any

from .base import Buffer, DeframingError, Framer

__all__ = ["FramerHost", "FramerLink", "FramerStack"]

# A delivered piece: the data, the context that the framer gave, whether the Message ends here.
Deliver = Callable[[bytes, Any, bool], None]

# A link's life.  GONE: in passthrough, so not in the stack any more.
NEW, STARTING, READY, STOPPING, STOPPED, GONE = range(6)

# Whether a link is paused, and whether bytes that it should look at have passed it by since.
_RUNNING, _PAUSED, _PASSED_BY = range(3)

# Held bytes are joined to new ones by copying up to this size; see `FramerLink._join`.
_COPY_FREELY = 512  # bytes
# The most that is kept for a Connection which is not there yet.
EARLY_LIMIT = 1024 * 1024  # bytes
# What an early Message costs besides its bytes, so that empty ones are not free.
_EARLY_OVERHEAD = 64  # bytes


class _Growing(bytearray):
    """Held bytes that more are added to.  Its slices are bytes, as those of bytes are."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        return bytes(memoryview(self)[key])


def _ignore(*_arguments: Any) -> None:
    """The end of every path of a stack that has failed."""


def _refuse(*_arguments: Any) -> None:
    raise RuntimeError("the framers are not ready, or have failed")


class FramerHost:
    """What a `FramerStack` needs of whoever drives it: a Connection, or before there is one, the
    code that establishes it.  A base class for hosts, though nothing depends on being one.

    None of the methods may switch greenlets or call the stack's `feed`.
    """

    __slots__ = ()

    # Takes a piece of a Message: (data, context or None, end_of_message).  With None for the
    # context the host makes one when somebody asks; the pieces of one Message come with the same
    # one.  A host whose `deliver` is None takes no Messages: they wait for the next host.
    deliver: Any = None

    # Whether the transport holds data because the peer does not read.
    write_blocked: bool = False

    def pause_receiving(self) -> None:
        """A framer wants no more data for now: have the transport read no further, until
        `resume_receiving`.  What is fed all the same is held."""

    def resume_receiving(self) -> None:
        """All framers want data again."""

    def write(self, data: Buffer) -> None:
        """Hand *data* to the transport: bytes of the stream, or one whole datagram."""
        raise NotImplementedError

    @property
    def writer(self) -> Callable[[Buffer], Any]:
        """`write`, or what does the same with fewer calls at present.  A host that changes its
        mind calls `FramerStack.rewire`."""
        return self.write

    def framers_ready(self) -> None:
        """All framers are ready; said once, perhaps from within `FramerStack.start`."""

    def framers_failed(self, error: Exception) -> None:
        """A framer failed the Connection, or raised *error*; said once, and the last thing said.
        If the stack's `said_goodbye` is true, what was written should still leave."""
        raise NotImplementedError

    def framers_closed(self) -> None:
        """All framers have said their last words, after `FramerStack.stop`; said once."""

    def framers_ended(self) -> None:
        """A framer knows that no more Messages will come, though the transport has not ended."""

    def framers_passthrough(self) -> None:
        """No framer is left in the stack: from now on it need not be asked."""

    def datagram_refused(self, error: Exception, context: Any) -> None:
        """The rest of a datagram was dropped, since it makes no sense; *context* came with it."""

    def new_context(self, below: Any = None) -> Any:
        """A fresh MessageContext for a received Message; with *below*, one that begins with what
        that context has."""
        raise NotImplementedError

    def get_property(self, name: str, default: Any = None) -> Any:
        """A property of the Connection, or *default*."""
        return default


class FramerLink:
    """One framer's end of one Connection: RFC 9623's "connection" in the hands of a framer.

    `framer` is the framer, `state` whatever it wants to remember.  ``send(data)`` hands encoded
    bytes to the next protocol (section 6.2, Send); data passes without being copied.
    `context` and `end_of_message` tell about the protocol below if it has Messages, a datagram
    protocol or another framer: the context of the Message that the newest bytes belong to (or
    None), and whether they end it.  Over a byte stream they stay None and False, and
    `end_of_message` is true at its end.
    """

    __slots__ = (
        "_below",
        "_buffer",
        "_collecting",
        "_cursor",
        "_delayed",
        "_deliver",
        "_down_open",
        "_expected",
        "_expected_context",
        "_expected_end",
        "_message_open",
        "_open",
        "_paused",
        "_pending",
        "_phase",
        "_stack",
        "_up",
        "_up_context",
        "_write",
        "context",
        "end_of_message",
        "framer",
        "send",
        "state",
    )

    send: Callable[[Buffer], None]

    def __init__(
        self,
        framer: Framer,
        send: Callable[[Buffer], None],
        deliver: Deliver,
        stack: FramerStack | None = None,
    ) -> None:
        self.framer = framer
        self.state: Any = None
        self.context: Any = None
        self.end_of_message = False
        self.send = send
        self._deliver = deliver
        self._stack = stack
        self._phase = NEW
        self._delayed = False
        self._buffer: bytes | _Growing = b""
        self._cursor = 0
        self._expected = 0  # bytes that are delivered as they come, before the framer looks
        self._expected_context: Any = None
        self._expected_end = False
        self._open = False  # a Message has begun to be delivered, and has not ended
        self._paused = _RUNNING
        # Where there are Messages below:
        self._below: FramerLink | None = None
        self._write: Callable[[Buffer], None] = send
        self._up = deliver
        self._up_context: Any = None  # of the Message that is being delivered
        self._collecting = False  # during an event: what is sent goes to the next
        self._pending: list[Buffer] = []
        self._message_open = False  # the sender's Message has begun, and has not ended
        self._down_open = False  # ... and so has the Message below

    # -- What a framer does: the life of the Connection (RFC 9623 section 6.1) --

    def delay_ready(self) -> None:
        """In `Framer.start`: the framer will be ready later (a handshake, say), and the Connection
        not before that."""
        self._delayed = True

    def make_connection_ready(self) -> None:
        """The framer is ready (MakeConnectionReady); then the framer above it starts."""
        if self._phase == STARTING:
            self._phase = READY
            self._owner.start_next()

    def delay_closed(self) -> None:
        """In `Framer.stop`: the framer will be done later, and the Connection closed not before
        that."""
        self._delayed = True

    def make_connection_closed(self) -> None:
        """The framer is done (MakeConnectionClosed).  Before `Framer.stop` it does nothing."""
        if self._phase == STOPPING:
            self._phase = STOPPED
            self._owner.stop_next()

    def fail_connection(self, error: Exception) -> None:
        """End the Connection with *error* (FailConnection).  A candidate that fails before it is
        ready is not used; another may be."""
        self._owner.fail(error)

    def send_last(self, data: Buffer) -> None:
        """Send *data*, and say that these are the last words before `fail_connection`, or before
        the error that the handler is about to raise: an HTTP status, a close code.  The Connection
        then is not aborted at once, but ends when the peer has acknowledged them, or after some
        seconds."""
        self._owner.said_goodbye = True
        self.send(data)
        if self._pending:
            self._flush(None, True)

    def end_receiving(self) -> None:
        """The peer has said that its last Message was its last.  For protocols that end before
        their transport does; RFC 9623 has no word for it."""
        self._owner.end_above(self)

    def prepend_framer(self, framer: Framer) -> None:
        """Put *framer* directly above this one (PrependFramer); it starts when this one is ready.

        Raises RuntimeError if this one is ready already.
        """
        self._owner.prepend(self, framer)

    def start_passthrough(self, taken: bytes = b"") -> None:
        """Take this framer out of the path (StartPassthrough): bytes that it has not parsed, and
        all that come, go to the layer above as they are.  A framer that was not ready is.

        *taken* is what the framer has moved the cursor past and must give back.  Raises
        RuntimeError in the middle of a Message.
        """
        self._owner.pass_through(self, taken)

    def get_property(self, name: str, default: Any = None) -> Any:
        """The Connection's property *name* (str), or *default*."""
        return self._owner.host.get_property(name, default)

    def pause_receiving(self) -> None:
        """Take no more data until `resume_receiving`: for a framer that has to wait for something
        else than bytes.  The framer is not called again meanwhile, and what has not arrived stays
        with the peer; the end of the stream waits too.

        For the lowest framer over a byte stream; raises RuntimeError elsewhere: nothing holds
        datagrams back, and Messages that other framers deliver must not run together.
        """
        if self._owner.datagrams or self._owner.lowest is not self:
            raise RuntimeError("only the lowest framer over a byte stream can pause")
        if not self._paused:
            self._paused = _PAUSED
            self._owner.pause_changed()

    def resume_receiving(self) -> None:
        """Take data again, beginning with what is held.  Does nothing if it is not paused."""
        paused, self._paused = self._paused, _RUNNING
        if paused:
            self._owner.resumed(self, again=paused == _PASSED_BY)

    @property
    def write_blocked(self) -> bool:
        """Whether sent data is waiting for the peer to read; a framer that answers the peer of its
        own accord should not pile up more."""
        return bool(self._owner.host.write_blocked)

    # -- What a framer does: received data (section 6.3) --

    @property
    def received(self) -> int:
        """How many bytes there are at the cursor."""
        return len(self._buffer) - self._cursor

    def parse(self, minimum: int = 1, maximum: int | None = None) -> bytes | None:
        """The bytes at the cursor without moving it (Parse): at most *maximum* of them, None if
        there are fewer than *minimum*.

        This copies, so ask for a header and not for all there is.  The RFC's two other results
        are `context` and `end_of_message`.
        """
        cursor = self._cursor
        if len(self._buffer) - cursor < minimum:
            return None
        return self._buffer[cursor : None if maximum is None else cursor + maximum]

    def take(self, length: int) -> bytes | None:
        """The next *length* bytes, moving the cursor past them: Parse and AdvanceReceiveCursor in
        one.  None, and nothing moved, if they have not all been received."""
        cursor = self._cursor
        end = cursor + length
        buffer = self._buffer
        if len(buffer) < end:
            return None
        self._cursor = end
        return buffer[cursor:end]

    def take_unpacked(self, layout: Struct) -> tuple[Any, ...] | None:
        """As `take` of so many bytes as *layout* (a ``struct.Struct``) has, unpacked."""
        cursor = self._cursor
        end = cursor + layout.size
        buffer = self._buffer
        if len(buffer) < end:
            return None
        self._cursor = end
        return layout.unpack_from(buffer, cursor)

    def find(self, what: bytes, start: int = 0, stop: int | None = None) -> int:
        """How many bytes after the cursor *what* (bytes) is, or -1.  It must lie between *start*
        and *stop*, counted in the same way."""
        cursor = self._cursor
        end = len(self._buffer) if stop is None else cursor + stop
        at = self._buffer.find(what, cursor + start, end)
        return at if at < 0 else at - cursor

    def advance_receive_cursor(self, length: int) -> None:
        """Discard *length* bytes, which must have been received (AdvanceReceiveCursor).

        Raises ValueError if they have not.
        """
        cursor = self._cursor + length
        if not self._cursor <= cursor <= len(self._buffer):
            raise ValueError(f"cannot move the cursor by {length} bytes")
        self._cursor = cursor

    def deliver_and_advance_receive_cursor(
        self, context: Any, length: int, end_of_message: bool = True
    ) -> None:
        """Deliver the next *length* bytes (DeliverAndAdvanceReceiveCursor).

        They need not have arrived: the rest follows piece by piece as it comes, and is never held
        here.  The framer is called again after the last of them; until then it may deliver
        nothing.  *context* is None, or one from `new_context`; *end_of_message* tells whether the
        Message ends with them.
        """
        buffer = self._buffer
        cursor = self._cursor
        end = cursor + length
        if cursor <= end <= len(buffer):
            self._cursor = end
            self._open = not end_of_message
            self._deliver(buffer[cursor:end], context, end_of_message)
        else:
            self._expect(context, length, end_of_message)

    def deliver(self, context: Any, data: bytes, end_of_message: bool = True) -> None:
        """Deliver bytes of the framer's own making (Deliver)."""
        if self._expected:
            raise RuntimeError("bytes that were to be delivered earlier have not arrived")
        self._open = not end_of_message
        self._deliver(data, context, end_of_message)

    def new_context(self) -> Any:
        """A fresh MessageContext for a Message to be delivered.  It has what came with the data
        from below; the framer may ``add(framer, key, value)`` to it."""
        host = self._owner.host
        return host.new_context() if self.context is None else host.new_context(self.context)

    @property
    def idle(self) -> bool:
        """Whether no byte is held and no Message is half delivered."""
        return not self._open and self._cursor == len(self._buffer)

    # -- What drives it --

    @property
    def _owner(self) -> FramerStack:
        if self._stack is None:
            raise RuntimeError("this link is not in a FramerStack")
        return self._stack

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived, and deliver what they complete."""
        try:
            if self._expected and not self._paused:
                data = self._take_expected(data)
                if not data:
                    return
            self._buffer = self._join(data) if self._buffer else data
            self._cursor = before = 0
            if self._paused:
                self._paused = _PASSED_BY
                return
            size = len(self._buffer)
            handle = self.framer.handle_received_data
            while before < size:
                handle(self)
                cursor = self._cursor
                if self._paused:
                    self._paused = _PASSED_BY
                    return
                if cursor == before:
                    # It waits for more.
                    if cursor * 2 > size:
                        self._buffer = self._buffer[cursor:]
                        self._cursor = 0
                    return
                before = cursor
            self._buffer = b""
            self._cursor = 0
        except Exception as error:
            if self._stack is None:
                raise
            self._stack.layer_failed(error)

    def _join(self, data: bytes) -> bytes | _Growing:
        """The held bytes and *data*.

        A plain copy where that costs little more than *data* itself; else *data* goes behind the
        held bytes, in place.
        """
        held = self._buffer
        cursor = self._cursor
        have = len(held) - cursor
        if have <= len(data) or have <= _COPY_FREELY:
            return held[cursor:] + data
        if not isinstance(held, _Growing):
            held = _Growing(held[cursor:])
        elif cursor:
            del held[:cursor]
        held += data
        return held

    def _expect(self, context: Any, length: int, end_of_message: bool) -> None:
        """Deliver what there is of the next *length* bytes, and the rest when it comes."""
        if length < 0:
            raise ValueError(f"cannot deliver {length} bytes")
        if self._expected:
            raise RuntimeError("bytes that were to be delivered earlier have not arrived")
        if self._stack is not None and self._stack.datagrams:
            raise DeframingError("the datagram ends in the middle of a Message")
        rest = self._buffer[self._cursor :]
        self._cursor = len(self._buffer)
        self._expected = length - len(rest)
        self._expected_context = context
        self._expected_end = end_of_message
        self._open = True
        if rest:
            self._deliver(rest, context, False)

    def _take_expected(self, data: bytes) -> bytes:
        """Deliver *data* as far as it is expected; return what is left."""
        length = self._expected
        if len(data) < length:
            self._expected = length - len(data)
            self._deliver(data, self._expected_context, False)
            return b""
        self._expected = 0
        self._open = not self._expected_end
        context, self._expected_context = self._expected_context, None
        self._deliver(data[:length], context, self._expected_end)
        return data[length:]

    def _forget(self) -> None:
        """Drop all received bytes.  A `feed` that is under way then ends by itself."""
        self._cursor = len(self._buffer)
        self._expected = 0
        self._expected_context = None
        self._open = False
        self._up_context = None

    # -- Where there are Messages below --

    def _feed_piece(self, data: bytes, context: Any, end_of_message: bool) -> None:
        """Take a piece of a Message that the layer below delivers."""
        if self._phase == NEW:
            raise RuntimeError("a framer delivered data before it was ready")
        self.context = context
        self.end_of_message = end_of_message
        outer, self._collecting = self._collecting, True
        try:
            if data:
                self.feed(data)
            elif end_of_message and not self._expected:
                self._at_end_below()
        finally:
            self._collecting = outer
        if self._pending and not outer:
            self._flush_reply()

    def _at_end_below(self) -> None:
        """An empty piece ends a Message below: the framer may want to know."""
        try:
            self.framer.handle_received_data(self)
        except Exception as error:
            self._owner.layer_failed(error)

    def _flush_reply(self) -> None:
        try:
            self._flush(None, not self._message_open)
        except Exception as error:
            self._owner.layer_failed(error)

    def _deliver_inheriting(self, data: bytes, context: Any, end_of_message: bool) -> None:
        """Deliver; without a context of the framer's, a Message has that of the Message below
        that was the newest when its delivery began."""
        if context is None:
            context = self._up_context
            if context is None:
                context = self.context
        self._up_context = None if end_of_message else context
        self._up(data, context, end_of_message)

    def _collect(self, data: Buffer) -> None:
        """`send`: outside an event each piece is a Message below, and needs no collecting."""
        self._pending.append(data)
        if not self._collecting:
            self._flush(None, not self._message_open)

    def _take_message(self, data: Buffer, context: Any, end_of_message: bool) -> None:
        """Have a Message, or a part of one, encoded and sent."""
        outer, self._collecting = self._collecting, True
        self._message_open = not end_of_message
        try:
            self.framer.new_sent_message(self, data, context, end_of_message)
        except BaseException:
            self._pending.clear()
            raise
        finally:
            self._collecting = outer
        if self._pending or self._down_open:
            self._flush(context, end_of_message)

    def _flush(self, context: Any, end: bool) -> None:
        """Send what was collected: a Message below, or without *end* a part of one."""
        below = self._below
        if below is None:
            if not end:
                # A datagram goes as a whole.  What the sender may change meanwhile is copied.
                self._pending = [bytes(part) for part in self._pending]
                return
            parts, self._pending = self._pending, []
            self._write(parts[0] if len(parts) == 1 else b"".join(parts))
            return
        parts, self._pending = self._pending, []
        if not parts:
            parts.append(b"")
        self._down_open = not end
        last = len(parts) - 1
        for index, part in enumerate(parts):
            below._take_message(part, context, end and index == last)


class FramerStack:
    """All framers of one Connection.

    *framers* is in the order in which they were added: the first is the lowest.  The one added
    last sees first what is sent, and last what is received (RFC 9622 section 9.1.2.1).  *host* is
    a `FramerHost`; it may be replaced, when a Connection takes over from the code that has
    established it.  With *datagrams* the transport keeps boundaries: call `feed_datagram` then, and
    each ``host.write`` is one datagram.

    ``send(data, context, end_of_message)`` sends a Message or a part of one, and raises what the
    framers raise (a ValueError, mostly a FramingError, where the Message is at fault) and what
    ``host.write`` raises.  ``feed(data)`` takes bytes (of type bytes) from the transport, and
    raises nothing: what goes wrong is told by ``host.framers_failed``.  Both are attributes that
    change as the stack does, so they must be looked up for each call.

    `ready` (bool) says whether all framers are ready, `error` (Exception or None) why they failed,
    `said_goodbye` (bool) whether one of them has told the peer before it did, and `paused` (bool)
    whether one of them wants no data for now.
    """

    __slots__ = (
        "_busy",
        "_datagram_error",
        "_early",
        "_early_size",
        "_ended",
        "_eof_due",
        "_host",
        "_links",
        "_stopped",
        "_stopping",
        "datagrams",
        "error",
        "feed",
        "paused",
        "ready",
        "said_goodbye",
        "send",
    )

    send: Callable[[Buffer, Any, bool], None]
    feed: Callable[[bytes], None]

    def __init__(self, framers: Iterable[Framer], host: Any, *, datagrams: bool = False) -> None:
        self.datagrams = datagrams
        self.ready = False
        self.error: Exception | None = None
        self.said_goodbye = False
        self.paused = False
        self._eof_due = False
        self._host = host
        self._early: list[tuple[bytes, Any, bool]] = []
        self._early_size = 0
        self._busy = False  # in the loop of start_next or stop_next
        self._stopping = False
        self._stopped = False
        self._ended = False
        self._datagram_error: Exception | None = None
        self._links = [FramerLink(framer, _ignore, _ignore, self) for framer in framers]
        self._wire()

    # -- What a host calls --

    @property
    def host(self) -> Any:
        """Who drives the stack.  A new host at once gets the Messages that were kept for it, and
        is told if no framer is left."""
        return self._host

    @host.setter
    def host(self, host: Any) -> None:
        self._host = host
        self._wire()
        if self._early and host.deliver is not None:
            early, self._early = self._early, []
            self._early_size = 0
            for piece in early:
                host.deliver(*piece)
        if not self._links and self.error is None:
            host.framers_passthrough()

    @property
    def passthrough(self) -> bool:
        """Whether no framer is left, so that the stack need not be asked any more."""
        return not self._links

    @property
    def framers(self) -> tuple[Framer, ...]:
        """The framers, lowest first."""
        return tuple(link.framer for link in self._links)

    @property
    def at_boundary(self) -> bool:
        """Whether no Message is half received, as far as the framers can tell."""
        return all(link.framer.at_boundary(link) for link in self._links)

    @property
    def held(self) -> int:
        """How many received bytes the stack holds."""
        return sum(link.received for link in self._links) + self._early_size

    def start(self) -> None:
        """Start the framers, the lowest first, each when the one below it is ready (RFC 9623
        section 6.1).  Calls ``host.framers_ready`` when all are, which may be before it returns,
        or ``host.framers_failed``."""
        self.start_next()

    def feed_datagram(self, data: bytes, context: Any = None) -> None:
        """Take a datagram from the transport: one Message, or several, but whole ones.

        One that makes no sense is dropped and told to ``host.datagram_refused``: anybody may have
        sent it.  *context* is what is known of the datagram, and becomes that of its Messages.
        """
        if self.error is not None:
            return
        links = self._links
        if not links:
            self._top(data, context, True)
            return
        links[0]._feed_piece(data, context, True)
        error, self._datagram_error = self._datagram_error, None
        for link in tuple(links):
            if error is None and not link.framer.at_boundary(link):
                error = DeframingError("the datagram ends in the middle of a Message")
        if error is not None and self.error is None:
            for link in links:
                link._forget()
                link.framer.forget_received(link)
            self._host.datagram_refused(error, context)

    def forget_sent(self) -> None:
        """A part of the Message that is being sent cannot be sent, so its end will not come: the
        framers drop what they hold of it."""
        for link in self._links:
            link._pending.clear()
            link._message_open = link._down_open = False
            link.framer.forget_sent(link, left=not self.datagrams)

    def eof(self) -> bool:
        """The peer has ended its stream.  Returns whether it may end here; if not,
        ``host.framers_failed`` has been called, with a DeframingError as a rule.  While a framer
        is pausing, that is only known later."""
        if self.paused:
            self._eof_due = True
            return True
        for link in tuple(self._links):
            self._end_of(link)
        if self.error is None and not self.ready:
            self.fail(DeframingError("the stream ended before the framers were ready"))
        return self.error is None

    def stop(self) -> None:
        """Let the framers say their last words, the topmost first, each when the one above it is
        done.  Calls ``host.framers_closed`` when all are, which may be before it returns; those
        that wait for an answer need `feed` for it.  May be called again."""
        if not self._stopping and self.error is None:
            self._stopping = True
            self.stop_next()

    # -- What links call --

    def start_next(self) -> None:
        """Start the next framer, if the one below it is ready."""
        if self._busy or self.ready:
            return
        self._busy = True
        try:
            while self.error is None:
                link = next((link for link in self._links if link._phase < READY), None)
                if link is None:
                    break
                if link._phase == STARTING:
                    return
                link._phase = STARTING
                link._delayed = False
                self._event(link, link.framer.start)
                if link._phase == STARTING and not link._delayed:
                    link._phase = READY
        finally:
            self._busy = False
        if self.error is None:
            self.ready = True
            self._wire()
            self._host.framers_ready()

    def stop_next(self) -> None:
        """Stop the next framer, if the one above it is done."""
        if self._busy or self._stopped or not self._stopping:
            return
        self._busy = True
        try:
            for link in reversed(self._links):
                if link._phase == STOPPING:
                    return
                if link._phase == READY:
                    link._phase = STOPPING
                    link._delayed = False
                    self._event(link, link.framer.stop)
                    if self.error is not None:
                        return
                    if link._phase == STOPPING:
                        if link._delayed:
                            return
                        link._phase = STOPPED
        finally:
            self._busy = False
        self._stopped = True
        self._host.framers_closed()

    def pause_changed(self) -> None:
        """A link pauses, or goes on."""
        paused = any(link._paused for link in self._links)
        if paused is not self.paused and self.error is None:
            self.paused = paused
            if paused:
                self._host.pause_receiving()
            else:
                self._host.resume_receiving()

    @property
    def lowest(self) -> FramerLink | None:
        """The lowest framer's link."""
        return self._links[0] if self._links else None

    def resumed(self, link: FramerLink, *, again: bool) -> None:
        """*link* takes data again: first what it holds, if *again*; then the end, if it came
        meanwhile."""
        if again and self.lowest is link and self.error is None:
            held = link._buffer[link._cursor :]
            link._buffer, link._cursor = b"", 0
            if held:
                self.feed(held)
        self.pause_changed()
        if self._eof_due and not self.paused and self.error is None:
            self._eof_due = False
            if self.eof():
                self._host.framers_ended()

    def fail(self, error: Exception) -> None:
        """End it all with *error*."""
        if self.error is not None:
            return
        self.error = error
        for link in self._links:
            link._forget()
        self._early.clear()
        self._early_size = 0
        self._wire()
        self._host.framers_failed(error)

    def layer_failed(self, error: Exception) -> None:
        """A framer could not make sense of what it received."""
        if not self.datagrams:
            self.fail(error)
            return
        if self._datagram_error is None:
            self._datagram_error = error
        for link in self._links:
            link._forget()

    def prepend(self, below: FramerLink, framer: Framer) -> None:
        """Put *framer* above *below*."""
        if below._phase != STARTING:
            raise RuntimeError("a framer can be prepended only before the one below is ready")
        link = FramerLink(framer, _ignore, _ignore, self)
        self._links.insert(self._links.index(below) + 1, link)
        self._wire()

    def pass_through(self, link: FramerLink, taken: bytes) -> None:
        """Take *link* out, and pass *taken* and what it holds upward."""
        if link not in self._links:
            return
        if link._open or link._message_open:
            raise RuntimeError("passthrough cannot begin in the middle of a Message")
        if link._pending:
            link._flush(None, True)
        rest = taken + link._buffer[link._cursor :]
        link._forget()
        link._phase = GONE
        index = self._links.index(link)
        del self._links[index]
        self._wire()
        self.pause_changed()
        self.start_next()
        if not self._links:
            self._host.framers_passthrough()
        if rest:
            if index == 0 and not self.datagrams:
                self.feed(rest)
            elif index < len(self._links):
                self._links[index]._feed_piece(rest, link.context, link.end_of_message)
            else:
                self._top(rest, link.context, link.end_of_message)

    def end_above(self, link: FramerLink) -> None:
        """No more Messages come out of *link*."""
        if self._ended or self.error is not None:
            return
        self._ended = True
        if link in self._links:
            for above in self._links[self._links.index(link) + 1 :]:
                self._end_of(above)
        if self.error is None:
            self._host.framers_ended()

    def rewire(self) -> None:
        """The host's `writer` is another one now."""
        self._wire()

    # -- Inside --

    def _end_of(self, link: FramerLink) -> None:
        if self.error is None and STARTING <= link._phase < GONE:
            link.end_of_message = True
            self._event(link, link.framer.handle_end)

    def _event(self, link: FramerLink, handler: Callable[[FramerLink], None]) -> None:
        """Call a handler; what it sends is one Message below."""
        outer, link._collecting = link._collecting, True
        try:
            handler(link)
        except Exception as error:
            link._pending.clear()
            self.fail(error)
            return
        finally:
            link._collecting = outer
        if link._pending and not outer:
            link._flush_reply()

    def _wire(self) -> None:
        """Find the way from each layer to the next."""
        links = self._links
        if self.error is not None:
            self.feed = _ignore
            self.send = _refuse
            for link in links:
                link.send = _ignore
                link._deliver = link._up = link._write = _ignore
            return
        write = getattr(self._host, "writer", None) or self._host.write
        top = self._top
        if not links:
            self.feed = partial(_feed_through, top)
            self.send = partial(_send_through, write)
            return
        bottom = links[0]
        self.feed = bottom.feed
        if len(links) == 1 and not self.datagrams:
            bottom._below = None
            bottom.send = bottom._write = write
            bottom._deliver = bottom._up = top
            self.send = partial(bottom.framer.new_sent_message, bottom)
        else:
            self.send = links[-1]._take_message
            below = None
            for link in links:
                link._below = below
                link._write = write
                link.send = link._collect if below is not None or self.datagrams else write
                link._deliver = link._deliver_inheriting
                link._up = top
                if below is not None:
                    below._up = link._feed_piece
                below = link
        if not self.ready:
            self.send = _refuse

    @property
    def _top(self) -> Deliver:
        """Where Messages go."""
        deliver: Deliver | None = self._host.deliver
        return self._keep if deliver is None else deliver

    def _keep(self, data: bytes, context: Any, end_of_message: bool) -> None:
        """Keep a piece of a Message for a host that takes Messages."""
        self._early_size += len(data) + _EARLY_OVERHEAD
        if self._early_size > EARLY_LIMIT:
            raise DeframingError("the peer sends too much before the Connection is ready")
        self._early.append((data, context, end_of_message))

    def __repr__(self) -> str:
        names = "/".join(type(link.framer).__name__ for link in reversed(self._links))
        if self.error is not None:
            state = "failed"
        elif self._stopping:
            state = "stopped" if self._stopped else "stopping"
        else:
            state = "ready" if self.ready else "starting"
        return f"<FramerStack {names or 'passthrough'} {state}>"


def _feed_through(deliver: Deliver, data: bytes) -> None:
    """`feed` without a framer: the rest of the stream is one Message of unknown length."""
    deliver(data, None, False)


def _send_through(
    write: Callable[[Buffer], None], data: Buffer, _context: Any, _end_of_message: bool
) -> None:
    """`send` without a framer."""
    write(data)
