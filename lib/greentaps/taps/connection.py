"""The Connection: a PEP 3156 protocol directly on a transport, and RFC 9622's object to its user.

The data path::

    send      Connection.send -> framers, if any -> transport.write
    receive   transport -> Connection.data_received -> framers, if any -> a parked receiver, or
              the inbox

`send` returns when the kernel has taken the Message, which it has in the usual case when ``write``
returns: the transport's marks are set so that it pauses us as soon as it holds anything.
Back-pressure on the way in is the inbox: above its high mark the transport stops reading.

Whatever is not the usual case (Message Properties, priorities, a Connection that is not ready, a
batch, a handler) goes through a `Sending`; ``_fast`` is true while there is no such thing, so that
nobody pays for what is not in use.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import inf
from typing import Any, Literal, overload

from ..errors import (
    CloneError,
    ConnectionError,  # noqa: A004 - RFC 9622's own name
    EstablishmentError,
    Expired,
    Reason,
    ReceiveError,
    SendError,
    SwitchpointError,
    TapsError,
    TransportError,
    show_address,
)
from ..framers import Framer, FramerHost, FramingError, MessageTooLongError
from ..hub import (
    Deadline,
    Parked,
    ParkedAgain,
    Runner,
    check_timeout,
    current_greenlet,
    get_runner,
    marks_switchpoint,
    now,
    spawn,
    switchpoint,
)
from ..plugins import ALWAYS, EITHER, duplicates, lacks, offer, stack_name
from ..transports.base import CLOSE_TIMEOUT, as_bytes
from ..transports.options import is_temporary
from . import monitoring
from .choosing.establishing import GOODBYE_TIMEOUT, Established
from .choosing.explaining import Explanation
from .choosing.gathering import Additions
from .early import EARLY, EarlyMarks, First
from .endpoint import LocalEndpoint, RemoteEndpoint, endpoint_of, endpoints_of
from .events import ConnectionHandlers, Events
from .inbox import Inbox
from .message import Message, MessageContext, Piece, fresh_context
from .outbox import Outgoing
from .paths.watching import follow, unwatch
from .properties import (
    CLOSED,
    CLOSING,
    DISABLED,
    ESTABLISHED,
    ESTABLISHING,
    INFINITE,
    NOT_APPLICABLE,
    PREFER,
    REQUIRE,
    UNIDIRECTIONAL_RECEIVE,
    UNIDIRECTIONAL_SEND,
    UNLIMITED,
    ConnectionProperties,
    ConnectionState,
    Group,
    Role,
    find_property,
    message_contradictions,
    resolve_message,
)
from .rates import RateLimit
from .scheduling import PATIENCE, UNSENT_LIMIT, ConnectionGroup, Turns
from .sending import Sending, Throttle
from .setup import SPECIAL_MESSAGES, Setup, plain
from .states import TRANSITIONS

__all__ = ["Connection"]

# The inbox: above the first, the transport stops reading; at or below the second it goes on.
INBOX_HIGH = 131072  # bytes
INBOX_LOW = 65536  # bytes
# The most that is held of one Message for a receiver that wants it whole.  A longer one comes in
# pieces (RFC 9622 section 9.3.2.2), so that no peer decides how much memory we use.
MESSAGE_LIMIT = 64 * 1024 * 1024  # bytes

# For lengths: more than there ever is of one Message, and still among CPython's fast integers.
_UNBOUNDED = (1 << 30) - 1
# The inbox of a Connection for which nothing has had to wait yet; nothing is put into it.
_NOTHING = Inbox()
# A Message made by hand costs half of one made by its __init__.
_new_message = Message.__new__

SentHandler = Callable[[Any, Any], Any]
ReceiveHandler = Callable[[Any, Any, Any, Any, Any], Any]


class _Request(ParkedAgain[Message]):
    """A greenlet in `receive`, and what it asked for.

    `number` is its place among those that wait together.
    """

    __slots__ = ("maximum", "minimum", "number")

    minimum: int
    maximum: int
    number: int


class _WatchedRequest:
    """A `receive` that does not wait: its outcome is an event."""

    __slots__ = ("_connection", "_handler", "done", "maximum", "minimum", "number")

    def __init__(
        self,
        connection: Connection,
        handler: ReceiveHandler | None,
        minimum: int,
        maximum: int,
        number: int,
    ) -> None:
        self._connection = connection
        self._handler = handler
        self.number = number
        self.minimum = minimum
        self.maximum = maximum
        self.done = False

    def finish(self, message: Message) -> bool:
        self.done = True
        self._connection.report_received(self._handler, message)
        return True

    def fail(self, error: BaseException) -> bool:
        self.done = True
        self._connection.report_receive_error(self._handler, error)
        return True


class _Send:
    """Whom to tell of one send, and how the datagram is to be marked."""

    __slots__ = (
        "context",
        "dont_fragment",
        "dscp",
        "first",
        "frozen",
        "handler",
        "parked",
        "unchecked",
    )

    def __init__(
        self, parked: Parked[None] | None, handler: SentHandler | None, context: Any
    ) -> None:
        self.parked = parked
        self.handler = handler
        self.context = context
        self.dscp: int | None = None
        self.dont_fragment = False
        self.first = False  # of InitiateWithSend
        self.frozen: MessageContext | None = None  # what the framers see
        self.unchecked: Any = None  # what was set, if no stack was there to check it against


class _Marks:
    """Stands between a transport and its Connection where the ECN field of datagrams is asked
    for (RFC 9622 section 9.3.3.1), so that others need not look for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.connection_made = connection.connection_made
        self.data_received = connection.data_received
        self.eof_received = connection.eof_received
        self.error_received = connection.error_received
        self.pause_writing = connection.pause_writing
        self.resume_writing = connection.resume_writing
        self.connection_lost = connection.connection_lost

    def datagram_received(self, data: bytes, addr: Any) -> None:
        ecn = getattr(data, "ecn", None)
        context = None if ecn is None else MessageContext().note("_greentaps.ecn", ecn)
        self._connection.datagram_received(bytes(data), addr, context)


class Connection(ConnectionHandlers, FramerHost):
    """A Connection (RFC 9622 section 8); made by a `Preconnection` and by a `Listener`.

    A context manager: leaving it closes the Connection, or aborts it if an exception is on its
    way.  Iterating gives Messages until the peer has ended its stream.
    """

    __slots__ = (
        "__weakref__",
        "_additions",
        "_blocked",
        "_close_at",
        "_close_timer",
        "_closed_by_us",
        "_closers",
        "_collected",
        "_deaf",
        "_early",
        "_end_due",
        "_ending",
        "_ends",
        "_eof",
        "_established",
        "_establisher",
        "_fast",
        "_first",
        "_framers",
        "_group",
        "_hub",
        "_inbox",
        "_live",
        "_lost",
        "_may_receive",
        "_may_send",
        "_part_context",
        "_parts",
        "_paused",
        "_piecewise",
        "_receive_limit",
        "_receive_timer",
        "_rendezvous",
        "_requests",
        "_returned",
        "_runner",
        "_senders",
        "_sending",
        "_setup",
        "_soft_timer",
        "_spare",
        "_state",
        "_stopping",
        "_stream_context",
        "_throttle",
        "_transport",
        "_whole",
    )

    def __init__(self, setup: Setup, runner: Runner | None = None) -> None:
        if runner is None:
            runner = get_runner()
        self._runner = runner
        self._hub = runner.hub
        self._setup = setup
        self._events = None
        if setup.events is not None:
            self._events = Events()
            self._events.inherit(setup.events)
        self._state = ESTABLISHING
        self._established: Established | None = None
        self._establisher: Any = None  # the greenlet that establishes, if it is another one
        self._rendezvous: Any = None  # while one is under way
        self._additions: Additions | None = None  # while a race is, and we do not wait for it
        self._transport: Any = None
        self._framers: Any = None
        self._group: ConnectionGroup | None = None  # made by the first clone
        self._live: ConnectionProperties | None = None  # made when somebody asks
        # Sending
        self._fast = False
        self._blocked = False  # something handed down has not been taken by the system
        self._senders: list[Parked[None]] | None = None
        self._sending: Sending | None = None
        self._throttle: Throttle | None = None
        self._collected: list[bytes] | None = None
        self._part_context: MessageContext | None = None  # of parts sent without a context
        self._parts: list[bytes] = []  # of a datagram whose end has not been sent
        self._first: Parked[None] | None = None  # of initiate_with_send
        self._early: Outgoing | None = None  # that Message, while it may travel before we are ready
        direction = setup.direction
        self._may_send = direction is not UNIDIRECTIONAL_RECEIVE
        # Receiving
        self._inbox = _NOTHING
        self._requests: list[Any] = []
        self._spare: _Request | None = None  # one that has been served, for the next receive
        self._returned: list[int] | None = None  # requests whose Message went back into the inbox
        self._paused = True  # the transport is not reading
        self._eof = False  # the peer has ended its stream
        self._piecewise = False  # a piece of the first Message has been given out
        self._receive_limit: RateLimit | None = None
        self._receive_timer: Any = None
        self._may_receive = direction is not UNIDIRECTIONAL_SEND
        self._deaf = not self._may_receive  # nothing will come that is not here
        # Of the Message that is arriving in pieces.  Without a framer, all that is received is
        # one (RFC 9622 section 9.3.2.2).
        self._stream_context: MessageContext | None = None
        # Ending
        self._stopping = False  # `close` was called: what was handed over still goes out
        self._closed_by_us = False
        self._end_due = False  # of our stream, when the throttle holds nothing any more
        self._lost = False  # the transport has ended
        self._ending: BaseException | None = None  # why it ended, if not by a close
        self._closers: list[Parked[None]] | None = None
        self._close_timer: Any = None
        self._close_at = inf  # when it fires
        self._soft_timer: Any = None
        self._whole: int | None = None  # what went without fragmentation when last asked
        self._ends: tuple[Any, Any] | None = None

    # -- Establishment --

    def send_first(
        self, data: Any, context: MessageContext | None, handler: SentHandler | None, *, wait: bool
    ) -> None:
        """For `Preconnection.initiate_with_send`: the Message that goes with the establishment."""
        waits = wait and handler is None
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"a bytes-like object is required, not {type(data).__name__}")
        _check_handler(handler)
        _check_context(context)
        self._first = Parked(self._runner) if waits else None
        send = _Send(self._first, handler, context or MessageContext())
        send.first = True
        item = self._outgoing(data, send.context, True, send)
        if self._setup.zero_rtt and self._may_go_early(item):
            self._early = item
        self._submit(item)

    def _may_go_early(self, item: Outgoing) -> bool:
        """Whether a Message may be sent before all is ready, perhaps more than once, and without a
        way back: then it can neither expire, nor be refused for what it asks of the stack."""
        message = resolve_message(item.context.settings(), self.get_properties())
        return message["safelyReplayable"] and message["msgReliable"] and item.expires_at == inf

    def wait_first(self, deadline: Deadline) -> None:
        """For `Preconnection.initiate_with_send`: wait until that Message is sent.  A
        switchpoint."""
        if self._first is not None:
            self._first.wait(deadline.left())

    def establish(self, deadline: Deadline) -> None:
        """For `Preconnection`: establish, in this greenlet.  A switchpoint.  Raises
        EstablishmentError."""
        try:
            established = self._find_transport(deadline)
            if self._given_up(established):
                raise self._end_error()
            self.adopt(established)
        except BaseException as error:
            self._not_established(_broken_off(error))
            raise

    def _establish_apart(self, deadline: Deadline) -> None:
        """For a clone: `establish`, in a greenlet of its own, since others know this Connection and
        may end it meanwhile."""
        failures: list[Exception] = []

        def work() -> None:
            try:
                self.establish(deadline)
            except Exception as error:
                failures.append(error)

        done: Parked[None] = Parked(self._runner)
        greenlet = self._establisher = spawn(work)
        greenlet.rawlink(lambda _: done.finish(None))
        try:
            done.wait()
        except BaseException as error:
            self._not_established(_broken_off(error))  # perhaps the other one has not begun
            self.abort()  # ... or has succeeded just now
            raise
        finally:
            self._establisher = None
            greenlet.kill(block=False)
        if failures:
            raise failures[0]
        if self._established is None:  # it was killed, by a close or an abort
            if self._ending is not None:
                raise self._end_error()
            raise EstablishmentError("the Connection was closed meanwhile", Reason.CLOSED)

    def _find_transport(
        self, deadline: Deadline, additions: Additions | None = None
    ) -> Established:
        if self._rendezvous is None:
            setup = self._setup
            if self._early is not None:
                setup = replace(setup, first=First(self._early.data, self._early.owner.frozen))
            self._additions = additions
            try:
                return setup.establish(deadline, additions)
            finally:
                self._additions = None
        try:
            return self._rendezvous.run(deadline)  # type: ignore[no-any-return]
        finally:
            self._rendezvous = None

    def establish_soon(self, deadline: Deadline) -> None:
        """For `Preconnection`: establish, in a greenlet of its own; events tell of the outcome,
        also of what can be seen before anything is opened."""
        if self._rendezvous is None:
            try:
                self._setup.choose(server_side=False)
            except EstablishmentError as error:
                self._not_established_soon(error)
                return

        def work() -> None:
            try:
                established = self._find_transport(deadline, Additions())
            except EstablishmentError as error:
                self._establisher = None
                self._not_established(error)
                return
            except BaseException as error:  # nobody may wait for ever
                self._establisher = None
                self._not_established(_broken_off(error))
                raise
            self._establisher = None
            if self._given_up(established):
                return
            try:
                self.adopt(established)
            except EstablishmentError as error:
                self._not_established(error)

        self._establisher = spawn(work)

    def _given_up(self, established: Established) -> bool:
        """Whether the end was faster than the news that all is ready."""
        if self._state is ESTABLISHING:
            return False
        established.transport.abort()
        return True

    def adopt(self, established: Established) -> None:
        """Become the protocol of a transport that is ready and paused.  Raises
        EstablishmentError if it has been lost meanwhile."""
        transport = established.transport
        marks = self._early_marks(established) if established.early else None
        try:
            transport.set_protocol(self._as_protocol() if marks is None else marks)
        except TransportError as error:
            raise EstablishmentError(
                "the connection was lost at once",
                Reason.ESTABLISHMENT_FAILED,
                [(established.candidate, error)],
            ) from error
        self._established = established
        self._transport = transport
        self._framers = established.framers
        self._to(ESTABLISHED)
        if self._framers is not None:
            # Which gets at once what has arrived already.
            self._framers.host = self if marks is None else marks
        # As soon as the transport holds one byte it tells us; and again when it holds none.
        transport.set_write_buffer_limits(high=0, low=0)
        self._begin_properties()
        if established.ahead is not None:
            rest = established.ahead.take_rest()
            with suppress(TransportError):  # it has been lost, which connection_lost tells
                self.write(rest)
        if self._framers is None or not self._framers.paused:
            self._paused = False
            transport.resume_reading()
        initiated = self._setup.role is Role.INITIATE
        monitoring.opened(self, stack_name(established.candidate.stack), received=not initiated)
        if initiated:
            self._emit("ready")
        elif self._setup.role is Role.RENDEZVOUS:
            self._emit("rendezvous_done")
        if self._events is not None:
            self._watch_path()
        self._set_fast()
        if self._group is not None:
            self._review_turns(self._group)
        if self._sending is not None:
            if established.ahead is not None and self._early is not None:
                if self._early.final:
                    self._say_final()
                self._sending.went_down(self._early)
            self._early = None
            self._sending.pump()
        if marks is not None:
            marks.step_aside()
        if self._stopping:
            self._go_on_closing()

    def begin(self, established: Established) -> None:
        """For a Listener: `adopt` a transport that is new, and ready as soon as it is started.
        Raises TransportError if it cannot be started."""
        transport = established.transport
        self._established = established
        self._transport = transport
        self._state = ESTABLISHED  # from Establishing, where a new Connection is
        transport.set_write_buffer_limits(0, 0)
        if not self._setup.unlimited:
            self._begin_properties()
        self._paused = False
        if established.early:
            self._early_marks(established)
        self._fast = self._may_send and self._throttle is None and not self._setup.special_messages
        monitoring.opened(self, stack_name(established.candidate.stack), received=True)
        try:
            transport.start(self._as_protocol())
        except BaseException:
            self._stop_timers()
            monitoring.lost(stack_name(established.candidate.stack), failed=True)
            raise

    def _as_protocol(self) -> Any:
        """What the transport is to call back."""
        return _Marks(self) if self._setup.receive_ecn and self._may_receive else self

    def _early_marks(self, established: Established) -> EarlyMarks | None:
        """What marks the Messages that may have come with the establishment, where there may be
        several.  A stream without framers is one, and is marked."""
        if established.framers is None or established.framers.passthrough:
            self._stream_context = MessageContext().note(EARLY, True)
            return None
        assert established.early is not None
        return EarlyMarks(self, established.framers, established.early)

    def marked_early(self, context: Any, end_of_message: bool) -> Any:
        """For `EarlyMarks`: the context, marked, that a Message or a piece of one with *context* is
        to be delivered with."""
        if context is not None:
            return context.note(EARLY, True)
        if self._stream_context is None:
            context = MessageContext().note(EARLY, True)
            if end_of_message:
                return context
            self._stream_context = context
        return None

    def no_more_is_early(self, marks: EarlyMarks) -> None:
        """For `EarlyMarks`: it is not needed any more."""
        if self._framers is not None:
            self._framers.host = self
        if self._transport.get_protocol() is marks:
            self._transport.set_protocol(self._as_protocol())

    def begin_events(self, events: Events | None) -> None:
        """For a Listener, when it hands this Connection over: events from now on, first the
        closing one if the end was there before."""
        if events is not None:
            if self._events is None:
                self._events = Events()
            self._events.inherit(events)
            if self._state is CLOSED:
                self._emit_end()
            self._watch_path()

    def begin_rendezvous(self, make: Callable[[Setup], Any]) -> None:
        """For `Preconnection`: what *make* returns finds the transport.  Raises
        EstablishmentError."""
        try:
            self._rendezvous = make(self._setup)
        except EstablishmentError as error:
            self._not_established_soon(error)
            raise

    def _not_established_soon(self, error: EstablishmentError) -> None:
        """`_not_established`, when the caller has had the time to set handlers."""
        self._runner.call_soon(self._not_established, error)

    def _not_established(self, error: BaseException) -> None:
        if self._state is not ESTABLISHING:
            return
        self._ending = error
        if self._sending is not None:
            self._sending.fail_all(lambda: _again(error))
        self._to(CLOSED)
        self._stop_timers()
        self._leave_group()
        self._fail_requests()
        monitoring.not_established(self, error)
        self._emit_last("establishment_error", error)
        self._wake_closers()

    def _to(self, state: ConnectionState) -> None:
        assert (self._state, state) in TRANSITIONS, (self._state, state)
        self._state = state
        if state is not ESTABLISHED:
            self._deaf = True

    def _set_fast(self) -> None:
        self._fast = (
            self._state is ESTABLISHED
            and self._may_send
            and not self._stopping
            and (self._sending is None or self._sending.idle)
            and self._throttle is None
            and self._collected is None
            and self._part_context is None
            and (self._group is None or self._group.turns is None)
            and not self._special_defaults()
        )

    def _special_defaults(self) -> bool:
        """Whether a Message without a context is not just data, because of what the application
        has set for all Messages."""
        if self._setup.special_messages:
            return True
        live = self._live
        return live is not None and any(live.is_set(name) for name in SPECIAL_MESSAGES)

    # -- Sending --

    @marks_switchpoint
    def send(
        self,
        data: bytes | bytearray | memoryview,
        context: MessageContext | None = None,
        end_of_message: bool = True,
        *,
        timeout: float | None = None,
        wait: bool = True,
        sent_handler: SentHandler | None = None,
    ) -> MessageContext | None:
        """Send a Message, or with ``end_of_message=False`` a part of one (RFC 9622 section 9.2).

        *data* is bytes-like; *context* may carry Message Properties.  The parts of one Message
        are sent with the same context, or all without one.  Returns the context when the system
        has taken all of it (the Sent event).  *timeout* is in seconds.

        With ``wait=False`` it returns at once, and the outcome is one event: Sent, Expired or
        SendError.  *sent_handler*, if given, is called with it as ``handler(connection, error)``,
        *error* being None for Sent; this form does not wait either.  After the closing event
        there are no events any more, so then the error is raised.  The order of older systems,
        ``send(data, handler, context)``, is taken too.

        Raises TypeError for other data.  When waiting: SendError if the Message cannot be sent,
        Expired if its lifetime was over first, ConnectionError if the Connection has failed, and
        Timeout if the peer does not take it in time: a Message that had not begun to leave is
        then withdrawn, one that had stays queued.  A switchpoint when it waits.
        """
        if (
            self._fast
            and context is None
            and end_of_message is True
            and sent_handler is None
            and wait
        ):
            if not self._runner.resuming and current_greenlet() is self._hub:
                raise SwitchpointError("Connection.send() cannot be called in a callback")
            try:
                framers = self._framers
                if framers is None:
                    failed = self._transport.write(data)
                else:
                    if type(data) is not bytes:
                        data = as_bytes(data)
                    framers.send(data, None, True)
                    failed = self._transport.is_closing()
            except (TransportError, ValueError) as error:
                raise self._send_error(error) from error
            if self._blocked:
                self._wait_taken(timeout)
            elif failed:
                # connection_lost knows the reason.
                self._transport.wait_closed()
                raise self._send_refusal()
            return None
        return self._send_slowly(data, context, end_of_message, timeout, wait, sent_handler)

    def _wait_taken(self, timeout: float | None) -> None:
        if timeout is not None:
            check_timeout(timeout)
        parked: Parked[None] = Parked(self._runner)
        if self._senders is None:
            self._senders = []
        self._senders.append(parked)
        try:
            parked.wait(timeout)
        except BaseException:
            if self._senders is not None and parked in self._senders:
                self._senders.remove(parked)
            raise

    def _send_slowly(
        self,
        data: Any,
        context: MessageContext | None,
        end: bool,
        timeout: float | None,
        wait: bool,
        handler: SentHandler | None,
    ) -> MessageContext | None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"a bytes-like object is required, not {type(data).__name__}")
        if callable(context):
            handler, context = context, None
        if isinstance(end, MessageContext):
            context, end = end, True
        if not isinstance(end, bool):
            raise TypeError(f"whether a Message ends is a bool, not {end!r}")
        _check_handler(handler)
        _check_context(context)
        waits = wait and handler is None
        if waits:
            if current_greenlet() is self._hub:
                raise SwitchpointError("Connection.send() cannot be called in a callback")
            if timeout is not None:
                check_timeout(timeout)
        given = context
        if context is None:
            context = self._part_context or MessageContext()
            self._part_context = None if end else context
        send = _Send(Parked(self._runner) if waits else None, handler, context)
        try:
            item = self._outgoing(data, context, end, send)
        except TapsError as error:
            self._refuse_part(context, end, waits)
            if waits or self._told_all:
                raise
            self._report_sent(send, error)
            return context
        self._submit(item)
        if send.parked is not None:
            self._wait_sent(send.parked, item, timeout)
            return given
        return context

    def _refuse_part(self, context: MessageContext, end: bool, told: bool) -> None:
        """*told* says that the caller hears of it at once, and may try a first part again."""
        if self._sending is None:
            if told or end or self._state not in (ESTABLISHING, ESTABLISHED):
                return
            self._sending = Sending(self, self._runner)
        if not told or self._sending.has_part_of(context):
            self._sending.refuse(context, end)

    def _submit(self, item: Outgoing) -> None:
        if self._sending is None:
            self._sending = Sending(self, self._runner)
        self._fast = False
        if self._group is not None and self._group.turns is not None:
            self._group.turns.queued(self, now())
        self._sending.submit(item)

    def _wait_sent(self, parked: Parked[None], item: Outgoing, timeout: float | None) -> None:
        sending = self._sending
        assert sending is not None
        hurries = sending.begin_wait(current_greenlet())
        try:
            parked.wait(timeout)
        except BaseException:
            if sending.withdraw(item):
                self._was_not_sent(item)
                if sending.idle:
                    self.ran_dry()  # a close may have waited for it
            raise
        finally:
            if hurries:
                sending.end_wait()

    def _outgoing(self, data: Any, context: MessageContext, end: bool, send: _Send) -> Outgoing:
        """The item for one send.  Raises SendError or ConnectionError if it cannot be sent."""
        if self._state not in (ESTABLISHING, ESTABLISHED) or not self._may_send or self._stopping:
            raise self._send_refusal()
        settings = context.settings()
        live = self.get_properties()
        message = resolve_message(settings, live)
        get = message.__getitem__
        if self._established is None:
            send.unchecked = settings
        else:
            self._check_message(send, settings, message, len(data), self._established)
        if self._setup.framers:
            send.frozen = context.frozen()
        context.belongs_to(self.ends)
        lifetime = get("msgLifetime")
        final = get("final")
        if final and end:
            self._may_send = False
            self._fast = False
        return Outgoing(
            bytes(data),
            context,
            end,
            send,
            priority=get("msgPriority"),
            expires_at=inf if lifetime is INFINITE else now() + lifetime,
            final=final,
        )

    def _check_message(
        self, send: _Send, settings: Any, message: Any, size: int, established: Established
    ) -> None:
        """Whether the stack can honour the properties of a Message; and what they mean to it."""
        wrong = message_contradictions(
            settings,
            self.get_properties(),
            protects_against_duplicates=not duplicates(established.candidate.stack),
        )
        if wrong:
            raise SendError("; ".join(wrong), Reason.INVALID_MESSAGE_PROPERTIES)
        largest = self._largest_message()
        if largest is not None and size > largest:
            raise SendError(
                f"a Message may have {largest} bytes at most, not {size}",
                Reason.MESSAGE_TOO_LARGE,
            )
        if message["noFragmentation"] or message["noSegmentation"]:
            whole = self._largest_unfragmented()
            if whole is not None and size > whole:
                raise SendError(
                    f"{size} bytes do not go in one packet: {whole} would",
                    Reason.MESSAGE_TOO_LARGE,
                )
            send.dont_fragment = True
        if "msgCapacityProfile" in settings or self.get_properties().is_set("msgCapacityProfile"):
            send.dscp = message["msgCapacityProfile"].dscp

    def _largest_message(self) -> int | None:
        largest = getattr(self._transport, "largest", None)
        return None if largest is None or self._framers is not None else largest()

    def _largest_unfragmented(self) -> int | None:
        largest = getattr(self._transport, "largest_unfragmented", None)
        if largest is None:
            return None
        whole: int | None = largest()
        if whole != self._whole:
            if self._whole is not None:
                monitoring.happened(self, "PathChange")
                self._emit("path_change")
            self._whole = whole
        return whole

    def _send_refusal(self) -> BaseException:
        if self._ending is not None:
            return self._end_error()
        if self._stopping or self._closed_by_us or self._state in (CLOSING, CLOSED):
            return SendError("the Connection is closed", Reason.CLOSED)
        if self._setup.properties.get("direction") is UNIDIRECTIONAL_RECEIVE:
            return SendError("the Connection is for receiving only", Reason.INVALID_CONFIGURATION)
        return SendError("the final Message has been sent", Reason.INVALID_MESSAGE_PROPERTIES)

    def _send_error(self, error: Exception) -> BaseException:
        """The SendError for what the layers below have raised."""
        if isinstance(error, FramingError):
            too_long = isinstance(error, MessageTooLongError)
            reason = Reason.MESSAGE_TOO_LARGE if too_long else Reason.INVALID_MESSAGE_PROPERTIES
            return SendError(str(error), reason)
        if isinstance(error, TapsError):
            return error
        if isinstance(error, ValueError):
            return SendError(str(error), Reason.INVALID_MESSAGE_PROPERTIES)
        if isinstance(error, OSError) and error.errno == errno.EMSGSIZE:
            self._largest_unfragmented()  # maybe the path takes less than it did
            return SendError(str(error), Reason.MESSAGE_TOO_LARGE)
        if self._ending is not None or self._lost:
            return self._send_refusal()
        return SendError(str(error), Reason.PROTOCOL_FAILED)

    # As the host of a Sending:

    def may_transmit(self) -> bool:
        return (
            not self._blocked
            and self._transport is not None
            and not self._lost
            and not self._closed_by_us
            and not self._transport.is_closing()
            and (self._group is None or self._group.turns is None or self._has_the_turn())
        )

    def holds_data(self) -> bool:
        # Of a transport that is closing nobody knows yet what it took: connection_lost tells.
        if self._blocked or self._collected is not None:
            return True
        return self._transport is not None and bool(self._transport.is_closing())

    def transmit(self, item: Outgoing) -> None:
        send = item.owner
        if send.unchecked is not None:
            settings, send.unchecked = send.unchecked, None
            message = resolve_message(settings, self.get_properties())
            assert self._established is not None
            self._check_message(send, settings, message, len(item.data), self._established)
        if self._framers is not None:
            self._framers.send(item.data, send.frozen, item.end)
        elif item.end or not hasattr(self._transport, "largest"):
            self._transmit_plain(send, item.data)
        else:
            self._keep_part(item.data)
        if item.final and item.end:
            self._say_final()
        if self._group is not None and self._group.turns is not None:
            self._group.turns.sent(self, len(item.data), now())

    def _transmit_plain(self, send: _Send, data: bytes) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            data = b"".join((*parts, data))
        if send.dscp is None and not send.dont_fragment:
            self.write(data)
            return
        marked = getattr(self._transport, "write_marked", None)
        if marked is None:
            self.write(data)
        else:
            marked(data, dscp=send.dscp, dont_fragment=send.dont_fragment)

    def _keep_part(self, data: bytes) -> None:
        """A Message is one datagram, also one that is sent in parts."""
        largest = self._largest_message()
        size = len(data) + sum(map(len, self._parts))
        if largest is not None and size > largest:
            raise SendError(
                f"a Message may have {largest} bytes at most, not {size} and more",
                Reason.MESSAGE_TOO_LARGE,
            )
        self._parts.append(data)

    def drop_parts(self) -> None:
        self._parts.clear()
        if self._framers is not None:
            self._framers.forget_sent()

    def _say_final(self) -> None:
        if self._collected is not None:
            self.end_collecting()
        if self._throttle is not None and self._throttle.holds_data:
            self._end_due = True
        elif self._transport.can_write_eof():
            self._transport.write_eof()

    def begin_collecting(self) -> None:
        # Datagrams are Messages: to join them would change them.
        if self._transport is not None and not hasattr(self._transport, "largest"):
            self._collected = []
            self._rewire()

    def end_collecting(self) -> None:
        collected, self._collected = self._collected, None
        self._rewire()
        if collected and not self._transport.is_closing():
            self.write(b"".join(collected))

    def _rewire(self) -> None:
        """What the framers write goes another way now."""
        if self._framers is not None:
            self._framers.rewire()

    def was_sent(self, item: Outgoing) -> None:
        self._report_sent(item.owner, None)

    def has_expired(self, item: Outgoing) -> None:
        self._was_not_sent(item)
        self._report_sent(item.owner, Expired())

    def _was_not_sent(self, item: Outgoing) -> None:
        if item.final and item.end:  # so it was not the last one
            self._may_send = True

    def has_failed(self, item: Outgoing, error: BaseException) -> None:
        self._was_not_sent(item)
        if item.owner.first and isinstance(error, EstablishmentError):
            return  # of InitiateWithSend only the EstablishmentError is told
        if isinstance(error, Exception) and not isinstance(error, TapsError):
            error = self._send_error(error)
        self._report_sent(item.owner, error)

    def ran_dry(self) -> None:
        self._set_fast()
        if self._group is not None and self._group.turns is not None:
            self._group.turns.done(self)
            self._pass_the_turn(self._group)
        if self._stopping:
            self._go_on_closing()

    def _report_sent(self, send: _Send, error: BaseException | None) -> None:
        """The one event of a send."""
        if error is not None:
            monitoring.happened(self, type(error).__name__, error)
        if send.parked is not None:
            if error is None:
                send.parked.finish(None)
            else:
                send.parked.fail(error)
        elif send.handler is not None:
            self._call_handler(send.handler, error)
        elif error is None:
            self._emit("sent", send.context)
        elif isinstance(error, Expired):
            self._emit("expired", send.context)
        else:
            self._emit("send_error", send.context, error)

    # Batches (RFC 9622 section 9.2.4):

    def start_batch(self) -> None:
        """Hint that several Messages follow: they are held back until `end_batch`, and then
        leave in as few writes as possible.  May be nested.  Whoever has begun it should send with
        ``wait=False`` until its end: with a send that waits leaves what was held back.  What other
        greenlets send waits for the end."""
        if self._sending is None:
            self._sending = Sending(self, self._runner)
        self._fast = False
        self._sending.begin_batch(current_greenlet())

    def end_batch(self) -> None:
        """End what `start_batch` has begun."""
        if self._sending is not None:
            self._sending.end_batch()
            self._set_fast()

    def batch(self, block: Callable[[], Any] | None = None) -> Any:
        """`start_batch` and `end_batch` around a block: ``with connection.batch():``.  Older
        systems give the block as a function, which is called at once."""
        if block is None:
            return self._batch()
        with self._batch():
            return block()

    @contextmanager
    def _batch(self) -> Iterator[None]:
        self.start_batch()
        try:
            yield
        finally:
            self.end_batch()

    # -- Receiving --

    @overload
    def receive(
        self,
        min_incomplete_length: float | None = None,
        max_length: float | None = None,
        *,
        timeout: float | None = None,
        wait: Literal[True] = True,
        handler: None = None,
    ) -> Message: ...

    @overload
    def receive(
        self,
        min_incomplete_length: float | None = None,
        max_length: float | None = None,
        *,
        timeout: float | None = None,
        wait: bool = True,
        handler: ReceiveHandler | None = None,
    ) -> Message | None: ...

    @overload
    def receive(
        self,
        handler: ReceiveHandler,
        /,
        min_incomplete_length: float | None = None,
        max_length: float | None = None,
    ) -> None: ...

    @marks_switchpoint  # type: ignore[misc]  # what is first has either name
    def receive(
        self,
        _first: Any = None,
        _second: Any = None,
        _third: Any = None,
        /,
        min_incomplete_length: Any = None,
        max_length: Any = None,
        *,
        timeout: float | None = None,
        wait: bool = True,
        handler: ReceiveHandler | None = None,
    ) -> Message | None:
        """Receive a Message (RFC 9622 section 9.3).

        Waits for a complete one; with *min_incomplete_length* (bytes) for as many bytes of one,
        or its end.  *max_length* (bytes) is the most to return at once.  A piece has a false
        ``end_of_message``.  Without a framer a TCP stream is one Message, so use
        ``min_incomplete_length=1`` to get data as it comes.  *timeout* is in seconds.

        With ``wait=False`` it returns None at once, and the outcome is one event: Received,
        ReceivedPartial or ReceiveError.  *handler*, if given, is called with it as
        ``handler(connection, message, context, end_of_message, error)``, *end_of_message* being
        None for a Message that comes whole; this form does not wait either.  Several may be
        outstanding; they are served in order.  After the closing event there are no events any
        more, so then the error is raised.  ``receive(handler, min_incomplete_length,
        max_length)``, as older systems have it, is taken too.

        Raises, when waiting: ReceiveError when there is none any more (reason Closed), or when
        the data cannot be made a Message (DeframingFailed); ConnectionError if the Connection
        has failed; Timeout, upon which nothing is lost.  A switchpoint when it waits.
        """
        if _first is not None or _second is not None or _third is not None:
            if (
                type(_first) is int
                and _second is None
                and _third is None
                and min_incomplete_length is None
            ):
                min_incomplete_length = _first
            else:
                if callable(_first):
                    if handler is not None:
                        raise TypeError("receive() takes one handler")
                    handler, _first, _second, _third = _first, _second, _third, None
                min_incomplete_length = _one_of(_first, min_incomplete_length)
                max_length = _one_of(_second, max_length)
                if _third is not None:
                    raise TypeError("receive() takes two lengths")
        if type(min_incomplete_length) is int and min_incomplete_length > 0:
            minimum = min_incomplete_length
        elif min_incomplete_length is None:
            minimum = _UNBOUNDED
        else:
            minimum = _length(min_incomplete_length)
        maximum = _UNBOUNDED if max_length is None else _length(max_length)
        if not wait or handler is not None:
            self._receive_watched(handler, minimum, maximum)
            return None
        if not self._runner.resuming and current_greenlet() is self._hub:
            raise SwitchpointError("Connection.receive() cannot be called in a callback")
        if self._inbox.size and not self._requests and not self._stopping:
            message = self._from_inbox(minimum, maximum)
            if message is not None:
                if self._lost and not self._inbox:
                    self._terminate()
                return message
        if self._deaf:
            raise self._receive_error()
        if timeout is not None:
            check_timeout(timeout)
        request = self._spare
        if request is None:
            request = _Request(self._runner)
        else:
            self._spare = None
        request.minimum = minimum
        request.maximum = maximum
        requests = self._requests
        request.number = requests[-1].number + 1 if requests else 0
        requests.append(request)
        if self._paused:  # it wants more than the inbox holds
            self._resume()
        try:
            message = request.wait(timeout)
        except BaseException:
            self._withdraw(request)
            raise
        self._spare = request  # nobody else holds it any more
        return message

    def _receive_watched(self, handler: ReceiveHandler | None, minimum: int, maximum: int) -> None:
        _check_handler(handler)
        if self._told_all:
            raise self._receive_error()
        requests = self._requests
        number = requests[-1].number + 1 if requests else 0
        request = _WatchedRequest(self, handler, minimum, maximum, number)
        requests.append(request)
        if not self._stopping:
            self._serve()
        if not request.done:
            if self._deaf:
                self._requests.remove(request)
                request.fail(self._receive_error())
            elif self._paused and self._state is ESTABLISHED:
                self._resume()

    def _withdraw(self, request: _Request) -> None:
        """The greenlet was broken off in `receive`.  What was on its way to it stays."""
        message = request.result
        if message is not None:
            # Others may have been broken off too: their Messages keep their order.
            if self._returned is None:
                self._returned = []
            before = sum(number < request.number for number in self._returned)
            self._returned.append(request.number)
            self._put_back(message.data, message.own_context, message.end_of_message, before)
            self._piecewise = message.partial
        elif request in self._requests:
            self._requests.remove(request)
        if not self._stopping:
            self._serve()

    def _from_inbox(self, minimum: int, maximum: int) -> Message | None:
        inbox = self._inbox
        piece = inbox.take(minimum, maximum)
        if piece is None and inbox.size >= MESSAGE_LIMIT:
            piece = inbox.take(1, maximum)
        if piece is None:
            return None
        if self._paused and inbox.size <= INBOX_LOW:
            self._resume()
        self._returned = None
        data, context, ended = piece
        if context is None and not ended:
            context = MessageContext()  # one for all pieces
            inbox.mark_head(context)
        message = _new_message(Message)
        message.data = data
        message.end_of_message = ended
        message.partial = self._piecewise or not ended
        message._context = context
        message._connection = self
        self._piecewise = not ended
        return message

    def _put_back(self, data: bytes, context: Any, ended: bool, position: int = 0) -> None:
        if self._inbox is _NOTHING:
            self._inbox = Inbox()
        self._inbox.put_back(data, context, ended, position)

    def _resume(self) -> None:
        if self._receive_timer is not None:  # maxRecvRate decides
            return
        if self._framers is not None and self._framers.paused:
            return
        self._paused = False
        if self._transport is not None and not self._lost:
            self._transport.resume_reading()

    def report_received(self, handler: ReceiveHandler | None, message: Message) -> None:
        """For a `receive` that does not wait: its Received or ReceivedPartial event."""
        if handler is not None:
            end = message.end_of_message if message.partial else None
            self._call_handler(handler, message, message.context, end, None)
        elif message.partial:
            self._emit("received_partial", message)
        else:
            self._emit("received", message)

    def report_receive_error(self, handler: ReceiveHandler | None, error: BaseException) -> None:
        """For a `receive` that does not wait: its ReceiveError event."""
        monitoring.happened(self, type(error).__name__, error)
        if handler is not None:
            self._call_handler(handler, None, None, None, error)
        else:
            self._emit("receive_error", error)

    def __iter__(self) -> Iterator[Message]:
        """Messages, until the peer has ended its stream.  Each step is a switchpoint."""
        while True:
            try:
                message = self.receive()
            except ReceiveError as error:
                if error.reason is Reason.CLOSED:
                    return
                raise
            assert message is not None
            yield message

    # -- From the transport --

    def connection_made(self, transport: Any) -> None:
        if transport is None or transport is not self._transport:  # else `begin` has started it
            raise AssertionError("a Connection takes only transports that are ready")

    def data_received(self, data: bytes) -> None:
        if self._framers is not None:
            self._framers.feed(data)
        else:
            context = self._stream_context
            if context is None:
                context = self._stream_context = MessageContext()
            requests = self._requests
            if requests and not self._inbox.size:
                first = requests[0]
                size = len(data)
                if first.minimum <= size and size <= first.maximum:
                    self._piecewise = True
                    del requests[0]
                    message = _new_message(Piece)
                    message.data = data
                    message._context = context
                    message._connection = self
                    if first.finish(message):
                        if self._receive_limit is not None:
                            self._limit_receiving(len(data))
                        return
            self.deliver(data, context, False)
        if self._receive_limit is not None:
            self._limit_receiving(len(data))

    def datagram_received(self, data: bytes, addr: Any, context: Any = None) -> None:
        if self._framers is not None:
            self._framers.feed_datagram(data, context)
        else:
            self.deliver(data, context, True)
        if self._receive_limit is not None:
            self._limit_receiving(len(data))

    def error_received(self, exc: TransportError) -> None:
        """The network says something about an earlier datagram: not the end of anything (RFC
        9622 section 8.3.1)."""
        monitoring.happened(self, "SoftError", exc)
        self._emit("soft_error", exc)

    # As the host of the framers:

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._collected is not None:
            self._collected.append(bytes(data))
        elif self._throttle is not None:
            self._throttle.write(data)
        else:
            self._transport.write(data)

    @property
    def writer(self) -> Any:
        simple = self._transport is not None and self._collected is None and self._throttle is None
        return self._transport.write if simple else self.write

    @property
    def write_blocked(self) -> bool:  # type: ignore[override]
        return self._blocked

    def new_context(self, below: Any = None) -> MessageContext:
        return fresh_context(below)

    def get_property(self, name: str, default: Any = None) -> Any:
        if name == "hostname":
            hostname = self._established.candidate.hostname if self._established else None
            return hostname or default
        try:
            return self.get_properties().get(name)
        except LookupError:
            return default

    def framers_ended(self) -> None:
        self._eof = self._deaf = True
        self._fail_requests()

    def framers_passthrough(self) -> None:
        self._framers = None

    def datagram_refused(self, error: Exception, context: Any) -> None:
        failure = ReceiveError(f"a datagram is not framed: {error}", Reason.DEFRAMING_FAILED)
        failure.__cause__ = error
        self._stream_context = None  # if a part of it was delivered, its end will not come
        if self._requests:
            self._requests.pop(0).fail(failure)

    def deliver(self, data: bytes, context: Any, end_of_message: bool) -> None:
        """A Message, or a piece of one, has arrived."""
        requests = self._requests  # none when we are closing, or are for sending only
        if requests and end_of_message and not self._inbox.size and self._stream_context is None:
            first = requests[0]
            if len(data) <= first.maximum:
                del requests[0]
                message = _new_message(Message)
                message.data = data
                message.end_of_message = True
                message.partial = False
                message._context = context
                message._connection = self
                if first.finish(message):
                    return
        if self._closed_by_us or self._stopping or not self._may_receive:
            return
        if context is None:
            context = self._context_of_piece(end_of_message)
        if self._inbox is _NOTHING:
            self._inbox = Inbox()
        self._inbox.put(data, context, end_of_message)
        if requests:
            self._serve()
        if self._inbox.size > INBOX_HIGH and not requests and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def framers_ready(self) -> None:
        raise AssertionError("a Connection takes only framers that are ready")

    def framers_failed(self, error: BaseException) -> None:
        if isinstance(error, ReceiveError):
            made = error
        else:
            made = ReceiveError(
                f"the data received is not framed: {error}", Reason.DEFRAMING_FAILED
            )
            made.__cause__ = error
        self._fail_with(made, politely=self._framers is not None and self._framers.said_goodbye)

    def pause_receiving(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume_receiving(self) -> None:
        if self._paused and not self._lost and self._inbox.size <= INBOX_HIGH:
            self._resume()

    def framers_closed(self) -> None:
        self._close_transport()

    def _context_of_piece(self, end_of_message: bool) -> MessageContext | None:
        """All pieces of a Message share one context; a whole one makes its own when asked."""
        context = self._stream_context
        if end_of_message:
            self._stream_context = None
        elif context is None:
            context = self._stream_context = MessageContext()
        return context

    def _serve(self) -> None:
        """Give requests, first come first served, what the inbox has for them."""
        requests = self._requests
        while requests and self._inbox:
            first = requests[0]
            if first.done:
                del requests[0]
                continue
            before = self._piecewise
            message = self._from_inbox(first.minimum, first.maximum)
            if message is None:
                return
            del requests[0]
            if not first.finish(message):
                self._put_back(message.data, message.context, message.end_of_message)
                self._piecewise = before
        if self._lost and not self._inbox and self._state is CLOSING:
            self._terminate()

    def eof_received(self) -> bool:
        if self._framers is not None and self._framers.paused:
            return self._framers.eof()  # type: ignore[no-any-return]  # told by framers_ended()
        self._eof = self._deaf = True
        if self._framers is not None:
            self._framers.eof()  # reports a Message that was cut
            if self._ending is not None:
                return False
        elif self._may_receive:
            self._deliver_end()
        if self._requests:
            self._fail_requests()
        return True  # we may still send

    def _deliver_end(self) -> None:
        """The end of a stream is the end of its one Message."""
        context = self._stream_context or MessageContext()
        context.note("_greentaps.finalMessage", True)
        requests = self._requests
        if requests and not self._inbox.size and not self._paused:
            message = Message(b"", True, context, self, partial=self._piecewise)
            if requests.pop(0).finish(message):
                self._piecewise = False
                return
        self.deliver(b"", context, True)

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        throttle = self._throttle
        if throttle is not None and throttle.holds_data:
            return
        self._taken()

    def _taken(self) -> None:
        self._blocked = False
        senders = self._senders
        if senders:
            self._senders = None
            for parked in senders:
                parked.finish(None)
        if self._sending is not None:
            self._sending.taken()
        if self._group is not None and self._group.turns is not None:
            self._group.turns.moved(self, now())
            self._pass_the_turn(self._group)
        if self._stopping:
            self._go_on_closing()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._lost:  # as `close` has seen
            return
        if exc is not None and self._ending is None:
            self._ending = exc
        if self._state is ESTABLISHED:
            self._to(CLOSING)
        self._note_loss()
        self._stop_timers()
        if self._senders is not None or self._sending is not None:
            self._fail_senders()
        if self._requests:
            self._fail_requests()
        if self._closed_by_us or self._stopping or not self._inbox or self._ending is not None:
            self._terminate()

    def _note_loss(self) -> None:
        self._lost = True
        self._eof = self._deaf = True
        self._fast = False
        assert self._established is not None
        stack = stack_name(self._established.candidate.stack)
        monitoring.lost(stack, failed=self._ending is not None)

    def _fail_senders(self) -> None:
        senders, self._senders = self._senders, None
        for parked in senders or ():
            parked.fail(self._send_refusal())
        if self._sending is not None:
            self._sending.fail_all(self._send_refusal)

    def _fail_requests(self) -> None:
        if not self._requests:
            return
        if not (self._closed_by_us or self._stopping):
            self._serve()
        requests, self._requests = self._requests, []
        for request in requests:
            request.fail(self._receive_error())

    # -- Ends --

    def _receive_error(self) -> BaseException:
        if self._ending is not None:
            return self._end_error()
        if self._stopping or self._closed_by_us:
            return ReceiveError("the Connection is closed", Reason.CLOSED)
        if not self._may_receive:
            return ReceiveError("the Connection is for sending only", Reason.INVALID_CONFIGURATION)
        return ReceiveError("the peer has sent its last Message", Reason.CLOSED)

    def _end_error(self) -> BaseException:
        """What every call raises after a failure: new each time, always with the same cause."""
        cause = self._ending
        if isinstance(cause, TapsError):
            return _again(cause)
        made = ConnectionError(f"the Connection has ended: {cause}", _reason_of(cause))
        made.__cause__ = cause
        return made

    def _terminate(self) -> None:
        """The last transition, and the last event."""
        if self._state is CLOSED:
            return
        if self._state is ESTABLISHED:
            self._to(CLOSING)
        self._to(CLOSED)
        self._stop_timers()
        if self._group is not None:
            self._leave_group()
        monitoring.ended(self, None if self._ending is None else self._end_error())
        if self._events is not None:
            self._emit_end()
        if self._closers is not None:
            self._wake_closers()

    def _emit_end(self) -> None:
        if self._ending is None:
            self._emit_last("closed")
        else:
            self._emit_last("connection_error", self._end_error())

    def _wake_closers(self) -> None:
        closers, self._closers = self._closers, None
        for parked in closers or ():
            parked.finish(None)

    def _stop_timers(self) -> None:
        if self._close_timer is not None:
            self._close_timer.close()
            self._close_timer = None
        if self._soft_timer is not None:
            self._soft_timer.close()
            self._soft_timer = None
        if self._receive_timer is not None:
            self._receive_timer.close()
            self._receive_timer = None
        if self._throttle is not None:
            self._throttle.close()
        if self._events is not None:
            unwatch(self)

    def _fail_with(self, error: BaseException, *, politely: bool = False) -> None:
        """End the Connection because of *error*; *politely* lets leave what has been written."""
        if self._ending is None:
            self._ending = error
        if self._state is ESTABLISHED:
            self._to(CLOSING)
        self._fast = False
        self._remember()
        if politely:
            self._end_politely()
        else:
            self._transport.abort(error)
        self._fail_senders()
        self._fail_requests()

    def _end_politely(self) -> None:
        """End our stream, and wait for the end of the peer's, whose data nobody wants: what it
        finds unread, the kernel answers with a reset, which can overtake our last words."""
        transport = self._transport
        if self._eof or not transport.can_write_eof():
            transport.close_after_delivery()
            transport.close(GOODBYE_TIMEOUT)
            return
        self._end_within(GOODBYE_TIMEOUT)
        transport.write_eof()
        transport.resume_reading()  # eof_received() then lets it close

    # Close (RFC 9622 section 10):

    @marks_switchpoint
    def close(self, timeout: float | None = CLOSE_TIMEOUT, *, wait: bool = True) -> None:
        """Close the Connection (RFC 9622 section 10): after all Messages handed over have been
        delivered, as far as the protocol can tell.  What the peer still sends is not received.

        Returns when it is closed (the Closed event), or at once with ``wait=False``.  *timeout*
        (seconds, None for ever) is how long the peer may take; then the Connection is aborted,
        and this raises ConnectionError.  May be called again, when the earliest of these moments
        counts, and after the end, when it does nothing.  A switchpoint when it waits.

        It ends a batch.  A Message whose last part was not handed over ends with the Connection.
        """
        if timeout is not None and timeout is not CLOSE_TIMEOUT:
            check_timeout(timeout)
        if wait and current_greenlet() is self._hub:
            raise SwitchpointError("Connection.close() cannot be called in a callback")
        if self._state is CLOSED:
            return
        failed_before = self._ending is not None
        if not self._stopping:
            self._stopping = self._deaf = True
            self._fast = False
            if self._requests:
                self._fail_requests()
            if self._sending is not None:
                self._sending.finish()
            self._go_on_closing()
            if wait and self._events is None and self._is_closed_well():
                self._note_loss()  # connection_lost is due, and will say nothing new
                self._terminate()
        if timeout is not None and self._state is not CLOSED and not self._ends_now():
            self._end_within(timeout)
        if not wait:
            return
        if self._state is not CLOSED:
            self._wait_closed()
        if self._ending is not None and not failed_before:
            raise self._end_error()

    def _end_within(self, seconds: float) -> None:
        """Abort after *seconds*, if that is not due earlier."""
        at = now() + seconds
        if self._close_timer is not None:
            if self._close_at <= at:
                return
            self._close_timer.close()
        self._close_at = at
        self._close_timer = self._runner.call_later(seconds, self._close_timed_out)

    def _is_closed_well(self) -> bool:
        """Whether the close has been completed, and nothing has failed."""
        if self._state is not CLOSING or not self._closed_by_us or self._ending is not None:
            return False
        closed_well = getattr(self._transport, "is_closed_well", None)
        return closed_well is not None and bool(closed_well())

    def _ends_now(self) -> bool:
        """Whether the end waits for nobody any more."""
        ending = getattr(self._transport, "is_ending", None)
        return self._closed_by_us and ending is not None and bool(ending())

    def _wait_closed(self) -> None:
        parked: Parked[None] = Parked(self._runner)
        if self._closers is None:
            self._closers = []
        self._closers.append(parked)
        parked.wait()

    def _go_on_closing(self) -> None:
        """Do the next step of a close, if it is due."""
        if self._closed_by_us or self._state is CLOSED:
            return
        if self._lost:
            self._terminate()
            return
        if self._senders or (self._sending is not None and not self._sending.idle):
            return
        if self._state is ESTABLISHING:
            self._give_up_establishing()
            return
        if self._blocked and self._throttle is not None and self._throttle.holds_data:
            return
        self._closed_by_us = True
        if self._state is ESTABLISHED:
            self._to(CLOSING)
        if self._framers is not None:
            if self._paused:  # the peer's goodbye may be behind what nobody wants any more
                self._resume()
            self._framers.stop()  # answers with framers_closed()
        else:
            self._close_transport()

    def _give_up_establishing(self) -> None:
        self._closed_by_us = True
        if self._establisher is not None:
            self._establisher.kill(block=False)
            self._establisher = None
        if self._rendezvous is not None:
            self._rendezvous.cancel()
        self._fail_senders()
        self._fail_requests()
        self._to(CLOSED)
        self._stop_timers()
        self._leave_group()
        self._emit_end()
        self._wake_closers()

    def _remember(self) -> None:
        """The transport is about to end: what was measured counts for later Connections."""
        established = self._established
        if established is not None and established.remember is not None and not self._lost:
            remember, established.remember = established.remember, None
            try:
                remember()
            except Exception as error:  # a bug, of a plugin or a History: no reason not to end
                self._runner.collect(error)

    def _close_transport(self) -> None:
        self._remember()
        if not self._lost:
            self._transport.close_after_delivery()
            self._transport.close(None)

    def _close_timed_out(self) -> None:
        self._close_timer = None
        self._end_by(
            ConnectionError("the peer did not take in time what was left to send", Reason.TIMEOUT)
        )

    def abort(self) -> None:
        """End the Connection at once (RFC 9622 section 10): what was not sent is dropped, and
        the peer learns of it where the protocol can tell it.  Every call, also one that waits
        in another greenlet, then raises ConnectionError (LocalAbort).  Not a switchpoint."""
        if self._state is not CLOSED:
            self._end_by(ConnectionError("aborted by us", Reason.LOCAL_ABORT))

    def _end_by(self, error: BaseException) -> None:
        if self._ending is None:
            self._ending = error
        self._inbox = _NOTHING
        if self._state is ESTABLISHING:
            self._give_up_establishing()
        elif self._lost:
            self._terminate()
        else:
            self._fail_with(error)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if kind is None:
            self.close()
        elif self._ending is None:
            self.abort()  # else it is ending, perhaps with a framer's goodbye

    # -- Endpoints (RFC 9622 section 7.5) --

    @switchpoint
    def add_remote(self, remote_endpoint: RemoteEndpoint | Iterable[RemoteEndpoint]) -> None:
        """Add Remote Endpoints (RFC 9622 section 7.5); those that are known already are ignored.

        A `rendezvous` that is under way tries them at once (RFC 8838), an `initiate` that is, with
        ``wait=False``, behind the candidates that it has.  Otherwise a Connection over a protocol
        with one path, as all built-in ones are, keeps its path, and what is added counts for its
        clones.  Raises ConnectionError after the end, EstablishmentError if nothing can be tried
        with what was added, or if a name cannot be resolved that is needed at once.
        """
        self._add_ends("remote_endpoints", endpoints_of(remote_endpoint, RemoteEndpoint))

    @switchpoint
    def add_local(self, local_endpoint: LocalEndpoint | Iterable[LocalEndpoint]) -> None:
        """Add Local Endpoints, as `add_remote` does Remote ones.  Those of `Preconnection.resolve`
        bring their sockets along."""
        self._add_ends("local_endpoints", endpoints_of(local_endpoint, LocalEndpoint))

    @switchpoint
    def remove_remote(self, remote_endpoint: RemoteEndpoint | Iterable[RemoteEndpoint]) -> None:
        """Use Remote Endpoints no longer (RFC 9622 section 7.5); unknown ones are ignored.

        A rendezvous that is under way drops what it tries with them; an `initiate` that is goes on
        with what it has.  An established Connection has one path: without the Endpoint that it is
        connected to it is aborted, so that all its calls raise ConnectionError (LocalAbort).

        Raises ConnectionError after the end.
        """
        self._remove_ends("remote_endpoints", endpoints_of(remote_endpoint, RemoteEndpoint))

    @switchpoint
    def remove_local(self, local_endpoint: LocalEndpoint | Iterable[LocalEndpoint]) -> None:
        """Use Local Endpoints no longer, as `remove_remote` does Remote ones."""
        self._remove_ends("local_endpoints", endpoints_of(local_endpoint, LocalEndpoint))

    def _add_ends(self, which: str, given: Sequence[Any]) -> None:
        known = self._live_ends(which)
        new = [end.copy() for end in dict.fromkeys(given) if end not in known]
        if self._rendezvous is not None:
            self._rendezvous.add(new)
        elif self._additions is not None and new:
            self._additions.add(
                {
                    "local_endpoints": self._setup.local_endpoints,
                    "remote_endpoints": self._setup.remote_endpoints,
                    which: tuple(new),
                }
            )
        known = getattr(self._setup, which)  # meanwhile others may have added some
        self._set_ends(which, (*known, *(end for end in new if end not in known)))

    def _remove_ends(self, which: str, given: Sequence[Any]) -> None:
        known = self._live_ends(which)
        self._set_ends(which, tuple(end for end in known if end not in given))
        if self._rendezvous is not None:
            self._rendezvous.remove(given)
        elif self._established is not None:
            hostname = self._established.candidate.hostname
            active = self.ends()[which == "remote_endpoints"]
            if active is not None and any(end.covers(active, hostname) for end in given):
                self._end_by(
                    ConnectionError(f"its {active!r} has been removed", Reason.LOCAL_ABORT)
                )

    def _live_ends(self, which: str) -> tuple[Any, ...]:
        if self._state in (CLOSING, CLOSED):
            if self._ending is not None:
                raise self._end_error()
            raise ConnectionError("the Connection is closed", Reason.CLOSED)
        return getattr(self._setup, which)  # type: ignore[no-any-return]

    def _set_ends(self, which: str, ends: tuple[Any, ...]) -> None:
        changes: dict[str, Any] = {which: ends}
        self._setup = replace(self._setup, **changes)

    # -- Groups (RFC 9622 section 7.4) --

    @switchpoint
    def clone(
        self,
        framer: Framer | None = None,
        connection_properties: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        wait: bool = True,
    ) -> Connection:
        """Make another Connection to the same peer, in the same group (RFC 9622 section 7.4).

        *framer* replaces the parent's framers; *connection_properties* (a dict) are set on the
        clone before it is established, and so on the whole group but for connPriority.  *timeout*
        is in seconds.  Returns the clone when it is ready; with ``wait=False`` at once, and the
        clone's events tell of the outcome.  Older systems give the handler of CloneError first,
        which is called as ``handler(connection)``; that is taken.

        Raises CloneError, which is also an event of this Connection, if no clone can be made;
        EstablishmentError if it cannot be established, ConnectionError if the group is aborted
        meanwhile; PropertyError for wrong properties.
        """
        deadline = Deadline(timeout)
        if connection_properties is not None and not isinstance(connection_properties, Mapping):
            raise TypeError(f"properties are a dict, not {connection_properties!r}")
        if framer is not None and not isinstance(framer, Framer):
            if not callable(framer):
                raise TypeError(f"a framer is a Framer, not {framer!r}")
            framer, _ = None, self.on_clone_error(_without_error(framer))
        if self._state is not ESTABLISHED or self._setup.role is not Role.INITIATE:
            error = CloneError(
                "only an established Connection that we have initiated can be cloned",
                Reason.NOT_CLONEABLE,
            )
            monitoring.happened(self, "CloneError", error)
            self._emit("clone_error", error)
            raise error
        setup = self._setup if framer is None else self._setup.with_framers([framer])
        clone = Connection(setup)
        clone._live = self.get_properties().clone(
            connection_properties,
            supply=clone._supply(),
            change=clone._apply_property,
            split=clone._split_off,
        )
        clone._setup = setup.with_properties(clone._live)
        if self._group is None:
            self._group = ConnectionGroup([self])
        clone._group = self._group
        self._group.append(clone)
        self._review_turns(self._group)
        if wait:
            clone._establish_apart(deadline)
        else:
            clone.establish_soon(deadline)
        return clone

    def grouped_connections(self) -> list[Connection]:
        """All Connections of the group, this one among them (RFC 9622 section 7.4)."""
        return [self] if self._group is None else list(self._group)

    def _leave_group(self) -> None:
        if self._group is not None:
            self._leave_members()
            if self._live is not None:
                self._live.leave()

    def _leave_members(self) -> None:
        group, self._group = self._group, None
        if group is not None and self in group:
            group.remove(self)
            if group.turns is not None:
                group.turns.remove(self)
            self._review_turns(group)

    def _review_turns(self, group: ConnectionGroup) -> None:
        """The members or their priorities have changed: whether they have to take turns."""
        priorities = [one.get_properties().get("connPriority") for one in group]
        chosen = bool(group) and group[0].get_properties().is_set("connScheduler")
        if len(group) > 1 and (len(set(priorities)) > 1 or chosen):
            scheduler = group[0].get_properties().get("connScheduler")
            changed = group.turns is None or group.turns.scheduler is not scheduler
            turns = group.turns = Turns(scheduler) if changed else group.turns
            assert turns is not None
            for member, priority in zip(group, priorities, strict=True):
                turns.set_priority(member, priority)
                member.take_turns(turns, begin=changed)
        elif group.turns is not None:
            group.turns = None
            if group.timer is not None:
                group.timer.close()
                group.timer = None
        self._pass_the_turn(group)

    def _review_soon(self) -> None:
        if self._group is not None:
            self._review_turns(self._group)

    def take_turns(self, turns: Turns, *, begin: bool) -> None:
        """For another member of the group: what is sent here from now on may have to wait."""
        self._fast = False
        if begin and self._sending is not None:
            for _ in range(len(self._sending)):
                turns.queued(self, now())
        if self._established is not None and not self._lost:
            for plugin in self._established.candidate.stack:
                with suppress(OSError, ValueError):
                    plugin.apply(self._transport, "_greentaps.unsentLimit", UNSENT_LIMIT)

    def _has_the_turn(self) -> bool:
        group = self._group
        assert group is not None
        assert group.turns is not None
        if group.turns.may_send(self, now()):
            return True
        if group.timer is None:
            group.timer = self._runner.call_later(PATIENCE, self._turn_again, group)
        return False

    def _turn_again(self, group: ConnectionGroup) -> None:
        group.timer = None
        self._pass_the_turn(group)

    def _pass_the_turn(self, group: ConnectionGroup) -> None:
        if group.passing:  # it is what they do that has brought us here
            group.passing_again = True
            return
        group.passing = group.passing_again = True
        try:
            while group.passing_again:
                group.passing_again = False
                for member in list(group):
                    member.go_on_sending()
        finally:
            group.passing = False

    def go_on_sending(self) -> None:
        """For another member of the group: perhaps it is our turn now."""
        if self._sending is not None and not self._sending.idle:
            self._sending.pump()
        self._set_fast()

    def _split_off(self, error: BaseException) -> None:
        """A change that another member has made could not be followed here (RFC 9622 section
        7.4): no member any more."""
        self._leave_members()
        made = CloneError(f"the Connection has left its group: {error}", Reason.NOT_CLONEABLE)
        made.__cause__ = error
        monitoring.happened(self, "CloneError", made)
        self._emit("clone_error", made)

    @switchpoint
    def close_group(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """`close` every Connection of the group (RFC 9622 section 10).  When all have ended,
        raises the first ConnectionError, if there is one."""
        members = [one for one in self.grouped_connections() if one._state is not CLOSED]
        if timeout is not None:
            check_timeout(timeout)
        for member in members:
            member.close(timeout, wait=False)
        failures = []
        for member in members:
            if member._state is not CLOSED:
                member._wait_closed()
            if member._ending is not None:
                failures.append(member._end_error())
        if failures:
            raise failures[0]

    def abort_group(self) -> None:
        """`abort` every Connection of the group (RFC 9622 section 10).  Not a switchpoint."""
        for member in self.grouped_connections():
            member.abort()

    # -- Properties (RFC 9622 section 8) --

    def get_properties(self) -> ConnectionProperties:
        """The properties of this Connection: a view that always tells the present values.

        Selection Properties read as whether the chosen stack has the feature.
        """
        if self._live is None:
            self._live = ConnectionProperties(
                self._setup.properties,
                supply=self._supply(),
                change=self._apply_property,
                split=self._split_off,
            )
            self._tell_live()
        return self._live

    def set_property(self, name: str, value: Any) -> None:
        """Set a Connection Property, or the default of a Message Property (RFC 9622 section 8).

        Connection Properties but for connPriority count for the whole group.  Raises
        PropertyError, which has the RFC's ErrorCode; it never ends the Connection.
        """
        self.get_properties().set(name, value)
        if self._group is not None:
            self._review_turns(self._group)
        self._set_fast()

    def _tell_live(self) -> None:
        if self._live is not None and self._established is not None:
            stack = self._established.candidate.stack
            self._live.established(self._has_feature, [plugin.name for plugin in stack])

    def _has_feature(self, name: str) -> bool:
        """Whether the chosen stack has, or the path is, what a Selection Property is about."""
        assert self._established is not None
        if name == "useTemporaryLocalAddress":
            local = self.local_endpoint
            return local is not None and is_temporary(local.ip_address)
        if name == "zeroRttMsg":
            return self._established.early is not None
        offered = offer(self._established.candidate.stack, name)
        if offered is EITHER:
            return self._setup.properties.get(name) in (REQUIRE, PREFER)
        return offered is ALWAYS

    def _supply(self) -> dict[str, Any]:
        """What is read only: the names, and what tells the values."""
        return {
            "connState": lambda: self._state,
            "canSend": lambda: self._may_send and self._state is ESTABLISHED,
            "canReceive": lambda: (
                self._may_receive and self._state is ESTABLISHED and not self._eof
            ),
            "singularTransmissionMsgMaxLen": self._singular_length,
            "sendMsgMaxLen": self._send_length,
            "recvMsgMaxLen": self._receive_length,
            "_greentaps.zeroRttMsgMaxLen": self._early_length,
        }

    def _singular_length(self) -> Any:
        whole = None if self._lost else self._largest_unfragmented()
        return NOT_APPLICABLE if whole is None else whole

    def _send_length(self) -> int:
        if not self._may_send or self._state is not ESTABLISHED:
            return 0
        return self._largest_message() or MESSAGE_LIMIT

    def _receive_length(self) -> int:
        if not self._may_receive:
            return 0
        return self._largest_message() or MESSAGE_LIMIT

    def _early_length(self) -> Any:
        """Of a Connection like this one: what is framed of the first Message counts."""
        established = self._established
        if not self._setup.zero_rtt or established is None or self._lost:
            return NOT_APPLICABLE
        stack = established.candidate.stack
        if lacks(stack, "zeroRttMsg", server_side=self._setup.role is Role.LISTEN):
            return NOT_APPLICABLE
        room = stack[0].early_room(self._transport)
        return NOT_APPLICABLE if room is None else room

    def _begin_properties(self) -> None:
        """What was asked for before there was a transport counts from now on."""
        self._tell_live()
        send_rate, receive_rate, soft_errors = self._setup.limits
        if self._live is not None:  # maybe something was changed meanwhile
            asked = self._setup.properties
            get = self._live.get
            for name in self._live:
                if find_property(name).group is Group.CONNECTION and get(name) != asked.get(name):
                    self._catch_up(name, get(name))
            send_rate, receive_rate = get("maxSendRate"), get("maxRecvRate")
        if send_rate is not UNLIMITED:
            self._limit_sending(send_rate)
        if receive_rate is not UNLIMITED:
            self._receive_limit = RateLimit(receive_rate)
        if soft_errors:
            self._soft_timer = self._runner.call_later(1.0, self._look_for_soft_errors, None)

    def _catch_up(self, name: str, value: Any) -> None:
        """Apply what was set before there was a stack; too late to refuse it."""
        assert self._established is not None
        for plugin in self._established.candidate.stack:
            try:
                if plugin.apply(self._transport, name, plain(value)):
                    return
            except (OSError, ValueError):
                continue

    def _apply_property(self, name: str, value: Any, old: Any) -> None:
        """A Connection Property has a new value: refuse it by raising."""
        if name in ("connPriority", "connScheduler") and self._group is not None:
            self._runner.call_soon(self._review_soon)
        elif name in SPECIAL_MESSAGES:
            self._fast = False
        if self._established is None or self._lost or self._state is CLOSED:
            return
        changes = [(name, value)]
        if name in ("keepAliveTimeout", "connTimeout") and self._live is not None:
            new = {each: self._live.get(each) for each in ("keepAliveTimeout", "connTimeout")}
            new[name] = value
            if name == "keepAliveTimeout" or self._live.is_set("keepAliveTimeout"):
                # One that would come after the end is none (RFC 9622 section 8.1.4).
                late = new["keepAliveTimeout"] > new["connTimeout"]
                changes = [change for change in changes if change[0] != "keepAliveTimeout"]
                changes.append(("keepAliveTimeout", DISABLED if late else new["keepAliveTimeout"]))
        for each, now_is in changes:
            for plugin in self._established.candidate.stack:
                try:
                    if plugin.apply(self._transport, each, plain(now_is)):
                        break
                except OSError:
                    if not self._transport.is_closing():  # else there is nothing to apply it to
                        raise
        if name == "maxSendRate":
            self._limit_sending(value)
        elif name == "maxRecvRate":
            self._receive_limit = None if value is UNLIMITED else RateLimit(value)
            if self._receive_timer is not None:
                self._receive_timer.close()
                self._receive_again()

    def _limit_sending(self, rate: Any) -> None:
        if self._throttle is not None:
            self._throttle.set_rate(inf if rate is UNLIMITED else rate)
            if rate is UNLIMITED:
                self._throttle = None
        elif rate is not UNLIMITED:
            self._throttle = Throttle(
                rate,
                self._transport.write,
                self._throttled,
                self._runner,
                whole=hasattr(self._transport, "largest"),
            )
        self._rewire()
        self._set_fast()

    def _throttled(self, holds: bool) -> None:
        if holds:
            self._blocked = True
        else:
            if self._end_due:
                self._end_due = False
                self._say_final()
            if not self._transport.get_write_buffer_size():
                self._taken()

    def _limit_receiving(self, size: int) -> None:
        assert self._receive_limit is not None
        time = now()
        self._receive_limit.spend(size, time)
        wait = self._receive_limit.wait(time)
        if wait > 0 and self._receive_timer is None and not self._lost:
            self._paused = True
            self._transport.pause_reading()
            self._receive_timer = self._runner.call_later(wait, self._receive_again)

    def _receive_again(self) -> None:
        self._receive_timer = None
        if self._inbox.size <= INBOX_HIGH or self._requests:
            self._resume()

    def _look_for_soft_errors(self, last: str | None) -> None:
        self._soft_timer.close()
        self._soft_timer = None
        if self._lost or self._established is None:
            return
        warning = None
        for plugin in self._established.candidate.stack:
            try:
                warning = warning or plugin.warning(self._transport)
            except OSError:
                continue
        if warning is not None and last is None:
            remote = self._established.candidate.remote
            self.error_received(TransportError(warning, None, remote))
        self._soft_timer = self._runner.call_later(1.0, self._look_for_soft_errors, warning)

    # -- Changes of the path (RFC 9622 section 8.3.2, RFC 9623 section 7.2) --

    def on_path_change(self, handler: Callable[[Connection], Any] | None) -> None:
        """PathChange (section 8.3.2): ``handler(connection)``."""
        super().on_path_change(handler)
        self._watch_path()

    def _watch_path(self) -> None:
        """Follow the path while somebody wants to know.  A path that is gone does not end the
        Connection: it may come back."""
        if self._events is None or "path_change" not in self._events.handlers:
            unwatch(self)
        elif self._state is ESTABLISHED and not self._lost:
            info = self._transport.get_extra_info
            follow(self, info("sockname"), info("peername"), lambda: self._emit("path_change"))

    # -- Information --

    @property
    def state(self) -> ConnectionState:
        """The state (RFC 9622 section 11)."""
        return self._state

    @property
    def stack(self) -> str | None:
        """The protocol stack that was chosen, as ``"tls/tcp"``; None before."""
        return stack_name(self._established.candidate.stack) if self._established else None

    @property
    def phases(self) -> tuple[tuple[str, float], ...]:
        """How long each step of the establishment took: (name, seconds) pairs."""
        return self._established.phases if self._established else ()

    @property
    def history(self) -> Explanation | None:
        """Which candidates there were, and how their race went (RFC 9623 section 4); None before
        it is over, and for a Connection that a Listener has made."""
        return self._established.history if self._established else None

    @property
    def transport(self) -> Any:
        """The transport below, for `get_extra_info`; None before there is one."""
        return self._transport

    @property
    def local_endpoint(self) -> LocalEndpoint | None:
        """Our end; None before it is known."""
        return self.ends()[0]  # type: ignore[no-any-return]

    @property
    def remote_endpoint(self) -> RemoteEndpoint | None:
        """The peer's end; None before it is known."""
        return self.ends()[1]  # type: ignore[no-any-return]

    def ends(self) -> tuple[Any, Any]:
        """`local_endpoint` and `remote_endpoint`."""
        if self._ends is not None:
            return self._ends
        if self._established is None:
            return (None, None)
        info = self._transport.get_extra_info
        candidate = self._established.candidate
        ends = (
            endpoint_of(info("sockname"), LocalEndpoint),
            endpoint_of(info("peername", candidate.remote), RemoteEndpoint, candidate.hostname),
        )
        if not self._lost:
            self._ends = ends
        return ends

    def __repr__(self) -> str:
        where = ""
        if self._established is not None:
            remote = self._established.candidate.remote
            where = f" {self.stack}"
            if isinstance(remote, tuple):
                where += f" {show_address(remote)}"
        return f"<Connection{where} {str(self._state).lower()}>"

    # The names of older systems:

    send_message = send
    stop = close


def _without_error(handler: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """A handler of two arguments that calls *handler* with the first."""
    return lambda connection, error: handler(connection)


def _check_handler(handler: Any) -> None:
    if handler is not None and not callable(handler):
        raise TypeError(f"a handler must be callable, not {handler!r}")


def _check_context(context: Any) -> None:
    if context is not None and not isinstance(context, MessageContext):
        raise TypeError(f"a context is a MessageContext, not {context!r}")


def _one_of(first: Any, named: Any) -> Any:
    """An argument that may be given by its place or by its name."""
    if first is not None and named is not None:
        raise TypeError("receive() got the same length twice")
    return named if first is None else first


def _length(value: Any) -> int:
    if type(value) is int and value > 0:
        return value
    if value == inf or value is INFINITE:
        return _UNBOUNDED
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"a length is a number of bytes, not {value!r}")
    if value < 1:
        raise ValueError(f"a length must be at least 1 byte: {value!r}")
    return int(value)


def _again(error: BaseException) -> BaseException:
    """A fresh error that tells the same, for the next caller."""
    if isinstance(error, EstablishmentError):
        failure = EstablishmentError(error.message, error.reason, error.attempts)
        failure.history = error.history
        made: BaseException = failure
    elif isinstance(error, TapsError):
        made = type(error)(error.message, error.reason)
    else:
        return error
    made.__cause__ = error
    return made


def _broken_off(error: BaseException) -> BaseException:
    """The EstablishmentError for what has broken an establishment off: a bug, of a plugin or a
    resolver, or the application itself, by a kill."""
    if isinstance(error, TapsError):
        return error
    what = f"the establishment was broken off: {error!r}"
    if isinstance(error, Exception):
        return EstablishmentError(what, Reason.ESTABLISHMENT_FAILED, [(None, error)])
    made = EstablishmentError(what, Reason.LOCAL_ABORT)
    made.__cause__ = error
    return made


# The last is what a shutdown is told when the reset was faster.
_PEER_HAS_GONE = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN)


def _reason_of(cause: BaseException | None) -> Reason:
    if isinstance(cause, OSError):
        if cause.errno in _PEER_HAS_GONE:
            return Reason.CONNECTION_ABORTED
        if cause.errno == errno.ETIMEDOUT:
            return Reason.TIMEOUT
    return Reason.PROTOCOL_FAILED
