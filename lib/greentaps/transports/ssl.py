"""TLS as a layer: a protocol to the transport below it, and a transport to the protocol above.

The TLS library is behind `greentaps.engines`; this file decides *when* what happens.  It knows
four phases, and one queue keeps the order in which the application asked for things::

               do_handshake()                      unwrap()
      CLEAR ------------------> HANDSHAKE -> SECURE ---------> SHUTDOWN -> CLEAR
                                                |  close_notify both ways
                                                +-- close() -> the transport below is closed

Data written in HANDSHAKE and SHUTDOWN waits in the queue, behind the marker of what it waits for,
and counts as write buffer.  So nothing that was written before the handshake's end can leave
in clear, and nothing that was written after `unwrap` leaves encrypted.

Why a layer, and not a subclass of `Transport`: it costs one Python call each way, and in return
TLS runs over anything that is a stream (TCP, MPTCP, a Pipe, memory in tests), and neither side
has to lie to the other about being closed.
"""

from __future__ import annotations

import errno
import ssl as _ssl
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar

import pyuv

from ..engines import Engine, context_of, is_context, make_engine
from ..errors import TlsError, TransportError
from ..hub import check_timeout
from .base import CLOSE_TIMEOUT, CLOSED, CLOSING, NEW, OPEN, StreamTransport, as_bytes
from .stream import Transport

__all__ = ["HANDSHAKE_TIMEOUT", "SslTransport", "create_default_context"]

HANDSHAKE_TIMEOUT = 30.0  # seconds
# How long a failed session reads on so that the peer can fetch our alert before the descriptor
# goes: closing with unread data would reset the connection and destroy it.
_ALERT_LINGER = 1.0  # seconds
# How much is read of a peer who need not have said anything, while somebody judges it.
_MOST_UNASKED = 65536  # bytes
# The peer has closed its end already, and so wants no close_notify.
_GONE = (ConnectionResetError, BrokenPipeError)


class Phase(Enum):
    """Where a TLS session is."""

    CLEAR = "clear"
    HANDSHAKE = "handshake"
    SECURE = "secure"
    SHUTDOWN = "shutdown"
    ENDED = "ended"


CLEAR, HANDSHAKE, SECURE, SHUTDOWN, ENDED = Phase

# Markers in the queue, between the data.
_DO_HANDSHAKE = object()
_DO_UNWRAP = object()
_DO_EOF = object()
_DO_CLOSE = object()


class SslTransport(StreamTransport):
    """A stream transport secured by TLS.

    *handle* is a connected pyuv.Stream, or a stream transport that was not started; it belongs
    to this transport from then on.  *context* is an ssl.SSLContext or an OpenSSL.SSL.Context.
    *server_side* (bool) says which part we play.  *server_hostname* (str or None) is sent to the
    server (SNI) and checked against its certificate.

    With *do_handshake_on_connect* (the default) the handshake starts at `start`, and
    ``connection_made`` comes when it is complete; else ``connection_made`` comes at once, and data
    goes in clear until `do_handshake`.  With *close_on_unwrap* (the default) the transport closes
    when the peer says close_notify; else see `unwrap`.

    *handshake_timeout* is in seconds, None for ever.  *on_handshake*, if given, is called once
    with None when the first handshake is complete, or with the error that prevents it.

    Raises TypeError, ValueError, or ssl.SSLError, for a context that does not fit the arguments.
    """

    __slots__ = (
        "_backlog",
        "_backlog_size",
        "_close_on_unwrap",
        "_closes_on_unwrap",
        "_context",
        "_engine",
        "_got_eof",
        "_handshake_now",
        "_handshake_timeout",
        "_handshake_timer",
        "_hostname",
        "_lower",
        "_made",
        "_on_handshake",
        "_only_goodbye",
        "_peer_said_close",
        "_phase",
        "_ready",
        "_rest",
        "_sent_eof",
        "_server_side",
        "_unasked",
    )

    _extra_info: ClassVar[dict[str, str]] = {
        "ssl": "_get_ssl",
        "sslctx": "_get_context",
        "tls_version": "_get_version",
        "tls_cipher": "_get_cipher",
        "alpn": "_get_alpn",
        "peer_certificate": "_get_peer_certificate",
        "peer_authenticated": "_get_peer_authenticated",
        "session_reused": "_get_session_reused",
    }

    def __init__(
        self,
        handle: Any,
        context: Any,
        server_side: bool,
        server_hostname: str | None = None,
        do_handshake_on_connect: bool = True,
        close_on_unwrap: bool = True,
        *,
        handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
        on_handshake: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        if handshake_timeout is not None:
            check_timeout(handshake_timeout)
        if server_side and server_hostname is not None:
            raise ValueError("server_hostname is what a client asks for; a server has none")
        # Made here, so that a context that does not fit fails before anything is open.
        self._engine: Engine = make_engine(context, server_side, server_hostname)
        self._engine.on_progress(self._answered)
        lower = handle
        if not isinstance(lower, StreamTransport | pyuv.Stream):
            raise TypeError(
                f"handle must be a pyuv.Stream or a StreamTransport, not {type(handle).__name__}"
            )
        if not isinstance(lower, StreamTransport):
            lower = Transport(handle, server_hostname)
        elif lower._state is not NEW:
            raise ValueError("the transport below must be new: it is started by this one")
        super().__init__(lower._runner)
        self._lower: StreamTransport = lower
        self._context = context
        self._server_side = server_side
        self._hostname = server_hostname
        self._handshake_now = do_handshake_on_connect
        self._closes_on_unwrap = close_on_unwrap  # of each session; an `unwrap` suspends it
        self._close_on_unwrap = close_on_unwrap
        self._handshake_timeout = handshake_timeout
        self._handshake_timer: Any = None
        self._on_handshake = on_handshake
        self._phase = CLEAR
        self._backlog: deque[Any] = deque()
        self._backlog_size = 0
        self._ready = False  # the transport below has made its connection
        self._made = False
        self._got_eof = False  # eof_received has been called
        self._sent_eof = False
        self._peer_said_close = False
        self._only_goodbye = False
        self._rest = b""  # what came in clear right behind a close_notify
        self._unasked = 0  # bytes that came while the handshake waits for somebody's answer
        lower.set_write_buffer_limits(self._low, self._low)
        # Its protocol hears nothing of a loss before `start`, nor of a handshake that failed below.
        lower.call_when_lost(lambda lower, exc: self.connection_lost(exc))

    def __repr__(self) -> str:
        peer = f" {self._peer!r}" if self._peer else ""
        return f"<{type(self).__name__}{peer} {self._state.value} {self._phase.value}>"

    # -- Life cycle --

    def start(self, protocol: Any) -> None:
        self._begin()
        self._protocol = protocol
        self._peer = self._lower.get_extra_info("peername")
        if self._handshake_now:
            # From here on: the transport below may have a handshake of its own before ours.
            self._phase = HANDSHAKE
            self._backlog.append(_DO_HANDSHAKE)
            self._start_handshake_timer()
        elif not self._reading:
            self._lower.pause_reading()
        self._lower.start(self)

    def connection_made(self, transport: Any) -> None:
        self._ready = True
        if not self._handshake_now:
            self._made = True
            try:
                self._protocol.connection_made(self)
            except BaseException as error:
                self.abort(error)
                raise
        self._advance()

    def do_handshake(self) -> None:
        """Start the TLS handshake: for a transport made with ``do_handshake_on_connect=False``,
        or after an `unwrap`.

        Both ends must agree on the moment.  What is written from now on waits for the end of the
        handshake.  Raises TransportError if the transport is secured already.
        """
        if self._state is not OPEN:
            self._refuse()
        if self._phase is not CLEAR and not (
            self._phase is SHUTDOWN and self._backlog and self._backlog[-1] is not _DO_HANDSHAKE
        ):
            raise TransportError(f"TLS is in phase {self._phase.value}", errno.EISCONN, self._peer)
        self._backlog.append(_DO_HANDSHAKE)
        self._start_handshake_timer()
        self._advance()

    def unwrap(self) -> None:
        """Remove the security layer, to go on in clear.  To end the connection use `close`.

        If we are first: our close_notify goes out behind what was written before; what the
        peer still sends encrypted is delivered; what we write from now on waits for its
        close_notify.  If the peer was first (its close_notify is not announced: the application
        protocol must know): this answers it, and clear data behind it is delivered next.
        Raises TransportError if there is no session to end.
        """
        if self._state is not OPEN:
            self._refuse()
        if self._phase is not SECURE and self._phase is not HANDSHAKE:
            raise TransportError("there is no TLS session to unwrap", errno.ENOTCONN, self._peer)
        self._close_on_unwrap = False
        self._backlog.append(_DO_UNWRAP)
        self._advance()

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Cleanly shut down TLS (close_notify, behind all that was written) and close the
        transport.  The peer's own close_notify is not awaited.  Else as `BaseTransport.close`."""
        if timeout is not None:
            check_timeout(timeout)
        if self._state is CLOSED:
            return
        if self._phase is ENDED:
            if self._lower.is_closing():
                self._lower.close(timeout)
            return
        if self._state is NEW:
            self._state = CLOSING
            self._phase = ENDED
            self._lower.close()
            return
        if self._state is OPEN:
            self._state = CLOSING
            self._backlog.append(_DO_CLOSE)
            if self._phase is HANDSHAKE and not self._backlog_size:
                # Nobody waits for this session any more.
                self._tell_handshake(
                    TransportError("closed during the handshake", errno.ECONNABORTED, self._peer)
                )
                self._phase = ENDED
                self._lower.close(timeout)
                return
            self._advance()
        if self._lower.is_closing():
            self._lower.close(timeout)
        else:
            self._lower.resume_reading()
            self._start_close_timer(timeout)

    def close_after_delivery(self) -> None:
        self._lower.close_after_delivery()

    def abort(self, error: BaseException | None = None) -> None:
        if self._state is CLOSED:
            return
        if self._error is None:
            self._error = error
        self._state = CLOSING
        self._phase = ENDED
        self._lower.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._state is CLOSED:
            return
        if self._error is None and not (self._only_goodbye and isinstance(exc, _GONE)):
            self._error = exc
        self._phase = ENDED
        self._tell_handshake(self._error or self._ended())
        self._backlog.clear()
        self._backlog_size = 0
        if not self._made:
            self._protocol = None
        self._lost()

    def is_closing(self) -> bool:
        """Whether the transport has ended or is about to."""
        return (self._state is not OPEN and self._state is not NEW) or self._lower.is_closing()

    def is_ending(self) -> bool:
        return self._lower.is_ending()

    def is_closed_well(self) -> bool:
        return self._error is None and self._lower.is_closed_well()

    # -- The handshake --

    def _start_handshake_timer(self) -> None:
        self._stop_handshake_timer()
        if self._handshake_timeout is not None:
            self._handshake_timer = self._runner.call_later(
                self._handshake_timeout, self._handshake_timed_out
            )

    def _handshake_timed_out(self) -> None:
        self._handshake_timer = None
        self._fail(TransportError("the TLS handshake timed out", errno.ETIMEDOUT, self._peer))

    def _stop_handshake_timer(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.close()
            self._handshake_timer = None

    def _tell_handshake(self, error: BaseException | None) -> None:
        self._stop_handshake_timer()
        callback, self._on_handshake = self._on_handshake, None
        if callback is not None:
            callback(error)

    def _secured(self) -> None:
        """The handshake is complete."""
        self._phase = SECURE
        self._stop_handshake_timer()
        if self._state is OPEN and not self._made:
            self._made = True
            # Of a pause from before the protocol has heard nothing.
            was_paused, self._writing_paused = self._writing_paused, False
            try:
                self._protocol.connection_made(self)
            except BaseException as error:
                if self._on_handshake is None:
                    self._runner.collect(error)
                self.abort(error)
                self._tell_handshake(error)
                return
            if was_paused and not self._writing_paused and self._state is OPEN:
                if self.get_write_buffer_size() > self._high:
                    self._pause_writing()
                else:
                    self._wake_waiters(None)
        self._tell_handshake(None)
        if not self._reading and self._state is OPEN and self._phase is SECURE:
            self._lower.pause_reading()

    # -- The queue --

    def _advance(self) -> None:
        """Do what is queued, as far as the phase allows."""
        if not self._ready:
            return
        backlog = self._backlog
        try:
            while backlog:
                item = backlog[0]
                if item is _DO_HANDSHAKE:
                    done = self._step_handshake()
                elif item is _DO_UNWRAP:
                    done = self._step_unwrap()
                elif item is _DO_EOF:
                    self._engine.shutdown()
                    done = True
                elif item is _DO_CLOSE:
                    self._step_close()
                    return
                else:
                    done = self._step_data(*item)
                self._flush()
                if not done:
                    return
                if backlog and backlog[0] is item:  # an exception may have cleared it
                    backlog.popleft()
        except TlsError as error:
            self._fail(error)
            return
        self._after_progress()

    def _step_handshake(self) -> bool:
        if self._phase is CLEAR:
            if self._engine is None:
                self._engine = make_engine(self._context, self._server_side, self._hostname)
                self._engine.on_progress(self._answered)
            self._phase = HANDSHAKE
            self._peer_said_close = False
            rest, self._rest = self._rest, b""
            if rest:  # it was not clear text then
                self._engine.feed(rest)
            self._lower.resume_reading()
        if self._phase is HANDSHAKE:
            if not self._engine.handshake():
                return False
            self._flush()
            self._secured()
        return self._phase is SECURE

    def _answered(self) -> None:
        """The handshake has waited for somebody, not for the peer, and can go on."""
        self._runner.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._phase is HANDSHAKE:
            self._unasked = 0
            self._lower.resume_reading()
            self._advance()
            if self._phase is SECURE or self._phase is SHUTDOWN:
                self._pump()

    def _step_unwrap(self) -> bool:
        if self._phase is SECURE:
            if not self._peer_said_close and self._engine.has_input():
                # Held back by a pause, and the peer's close_notify may be in it.
                self._runner.call_soon(self._pump_held_back)
            self._engine.shutdown()
            self._phase = SHUTDOWN
            self._lower.resume_reading()
        if not self._peer_said_close:
            return False
        self._flush()
        self._phase = CLEAR
        self._close_on_unwrap = self._closes_on_unwrap
        self._rest = self._engine.leftover()
        self._engine = None  # type: ignore[assignment]
        if self._rest:
            self._runner.call_soon(self._deliver_rest)
        if not self._reading:
            self._lower.pause_reading()
        return True

    def _step_close(self) -> None:
        self._backlog.clear()
        self._backlog_size = 0
        if self._phase is SECURE or self._phase is SHUTDOWN:
            # If all data has gone, a close_notify that meets a dead peer is a normal end.
            self._only_goodbye = not self._lower.get_write_buffer_size()
            self._engine.shutdown()
            self._flush()
        self._phase = ENDED
        self._lower.close(None)

    def _step_data(self, data: bytes, handle: Any) -> bool:
        size = len(data)
        if self._phase is SECURE:
            sent = self._engine.write(data)
            self._backlog_size -= sent
            if sent < size:
                self._backlog[0] = (data[sent:], handle)
                return False
            self._flush(handle)
        elif self._phase is CLEAR:
            if not self._lower.is_closing():  # else we shall hear of it
                self._lower.write(data, handle)
            self._backlog_size -= size
        else:
            return False
        return True

    def _flush(self, handle: Any = None) -> None:
        """Send the ciphertext that the engine has made."""
        out = self._engine.drain() if self._engine is not None else b""
        if out and not self._lower.is_closing():
            # If this fails we go on with what has been received: it may end in a close_notify.
            self._lower.write(out, handle)

    def _after_progress(self) -> None:
        if self._writing_paused and self._state is OPEN:
            if self.get_write_buffer_size() <= self._low:
                self._resume_writing()

    def _fail(self, error: TransportError) -> None:
        """TLS cannot go on: tell the peer why, then end."""
        if self._phase is ENDED:
            return
        alert = self._engine.drain() if self._engine is not None else b""
        error.address = error.address or self._peer
        if self._error is None:
            self._error = error
        self._state = CLOSING
        self._phase = ENDED
        self._tell_handshake(error)
        lower = self._lower
        if not alert or lower.is_closing():
            lower.abort()
            return
        lower.write(alert)
        if lower.can_write_eof():
            lower.write_eof()
            lower.resume_reading()
            self._start_close_timer(_ALERT_LINGER)
        elif not lower.is_closing():
            lower.close(_ALERT_LINGER)

    def _close_timed_out(self) -> None:
        if self._phase is ENDED and self._error is not None:
            self._lower.abort()
        else:
            super()._close_timed_out()

    # -- From below --

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase is SECURE or phase is SHUTDOWN:
            if self._peer_said_close:
                self._hold_behind_close_notify(data)
                return
            self._engine.feed(data)
            self._pump()
        elif phase is CLEAR:
            if self._rest:
                self._rest += data
                self._deliver_rest()
            elif self._state is OPEN:
                try:
                    self._protocol.data_received(data)
                except BaseException as failure:
                    self._callback_failed(failure)
        elif phase is HANDSHAKE:
            self._engine.feed(data)
            self._advance()
            if self._phase is SECURE or self._phase is SHUTDOWN:
                self._pump()
            elif self._phase is HANDSHAKE and self._engine.asking:
                self._unasked += len(data)
                if self._unasked > _MOST_UNASKED:
                    self._lower.pause_reading()

    def _deliver_rest(self) -> None:
        """Hand up the clear text that came in one piece with the end of the session."""
        if self._rest and self._reading and self._phase is CLEAR and self._state is OPEN:
            rest, self._rest = self._rest, b""
            self._call(self._protocol.data_received, rest)

    def _hold_behind_close_notify(self, data: bytes) -> None:
        """Data of a peer that has ended its session.  If we may unwrap ours, it is for after that;
        we keep one piece and read no more.  Else it is nothing."""
        if not self._close_on_unwrap and self._state is OPEN:
            self._engine.feed(data)
            self._lower.pause_reading()

    def _pump(self) -> None:
        """Hand up plaintext for as long as there is some and it is wanted."""
        engine = self._engine
        try:
            while self._reading or self._phase is SHUTDOWN or self._state is CLOSING:
                plain = engine.read()
                if plain:
                    if self._state is OPEN:
                        try:
                            self._protocol.data_received(plain)
                        except BaseException as failure:
                            self._callback_failed(failure)
                    if engine is not self._engine or self._phase is ENDED:
                        return
                    if not engine.more:
                        break
                elif plain is None:
                    self._on_close_notify()
                    return
                else:
                    break
        except TlsError as error:
            self._fail(error)
            return
        out = engine.drain()
        if out and not self._lower.is_closing():
            self._lower.write(out)
        if self._backlog:  # a write that waited for input
            self._advance()

    def _on_close_notify(self) -> None:
        if self._peer_said_close:
            return
        self._peer_said_close = True
        if self._phase is SHUTDOWN:
            self._advance()
        elif self._state is not OPEN:
            pass
        elif self._close_on_unwrap:
            self._on_eof(may_stay_open=self._engine.half_close())
        elif self._backlog:
            self._advance()
        elif self._engine.has_input():
            self._lower.pause_reading()  # what follows is for after our unwrap()

    def _on_eof(self, may_stay_open: bool) -> None:
        keep_open: Any = False
        if not self._got_eof:
            self._got_eof = True
            keep_open = self._call(self._protocol.eof_received)
        if self._state is OPEN and not (keep_open and may_stay_open and not self._sent_eof):
            self.close()

    def eof_received(self) -> bool:
        phase = self._phase
        if phase is CLEAR and self._state is OPEN:
            self._deliver_rest()
            if self._state is OPEN:
                self._on_eof(may_stay_open=True)
            return self._state is OPEN
        if phase is HANDSHAKE:
            self._fail(self._truncated("during the handshake"))
        elif phase in (SECURE, SHUTDOWN):
            if not self._peer_said_close and self._engine.has_input():
                self._pump()  # held back until now
            if not self._peer_said_close:
                self._fail(self._truncated("in the middle"))
            elif self._phase is SECURE and self._state is OPEN and not self._got_eof:
                self._on_eof(may_stay_open=True)  # it did not end its session alone
        return self._state is OPEN and not self._lower.is_closing()

    def _truncated(self, during: str) -> TransportError:
        error = self._engine.truncated(during)
        assert isinstance(error, TransportError)
        return error

    def pause_writing(self) -> None:
        """From below; our own marks count, so there is nothing to do."""

    def resume_writing(self) -> None:
        """From below, which holds no more than our low mark now."""
        self._after_progress()

    # -- From above --

    def pause_reading(self) -> None:
        """Stop reading data.

        A handshake, and an `unwrap` of ours, need input: reading goes on below until they are
        done, and the pause takes effect then.  It is not forgotten.
        """
        self._reading = False
        if self._state is OPEN and self._phase in (CLEAR, SECURE):
            self._lower.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading data.  See `pause_reading`."""
        self._reading = True
        if self._state is not OPEN:
            return
        if self._phase is SECURE and self._engine.has_input():
            # First what is held here, then what is below, which may be the end of the stream.
            if not self._peer_said_close:
                self._runner.call_soon(self._pump_held_back)
            return
        self._lower.resume_reading()
        if self._rest:
            self._runner.call_soon(self._deliver_rest)

    def _pump_held_back(self) -> None:
        if self._phase is SHUTDOWN and not self._peer_said_close:
            self._pump()
        elif self._phase is SECURE and self._state is OPEN and self._reading:
            if not self._peer_said_close:
                self._pump()
            if self._phase is SECURE and self._state is OPEN and self._reading:
                if not (self._peer_said_close and self._engine.has_input()):
                    self._lower.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Return the total number of bytes in the write buffer: what waits for TLS in clear, and
        what waits for the peer encrypted."""
        return self._backlog_size + self._lower.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super().set_write_buffer_limits(high, low)
        # Below, whatever rises over our low mark must be told when it is back.
        self._lower.set_write_buffer_limits(self._low, self._low)

    def write(self, data: bytes | bytearray | memoryview, handle: Any = None) -> bool | None:
        if type(data) is not bytes:
            data = as_bytes(data)
        if self._state is not OPEN or self._sent_eof:
            self._refuse("write_eof() has closed the sending direction")
        if handle is not None:
            self._check_passing(data, handle)
        failed = None
        if self._phase is SECURE and not self._backlog and handle is None:
            engine = self._engine
            try:
                failed = self._lower.write(engine.seal(data))
            except TlsError as error:
                self._fail(error)
                return True
            if engine.short:
                self._enqueue(data[-engine.short :], None)
        elif self._phase is CLEAR and not self._backlog:
            failed = self._lower.write(data, handle)
        else:
            self._enqueue(data, handle)
            self._advance()
            failed = self.is_closing()
        # Below, no more than our low mark is held as long as it is not paused.
        if (self._lower._writing_paused or self._backlog_size) and not self._writing_paused:
            if self._state is OPEN and self.get_write_buffer_size() > self._high:
                self._pause_writing()
        return failed or None

    def _check_passing(self, data: Any, handle: Any) -> None:
        self._lower._check_passing(data, handle)

    def _pause_writing(self) -> None:
        if self._made:
            super()._pause_writing()
        else:  # the protocol hears of it after its connection_made
            self._writing_paused = True

    def _resume_writing(self) -> None:
        if self._made:
            super()._resume_writing()
        else:
            self._writing_paused = False
            self._wake_waiters(None)

    def _enqueue(self, data: Any, handle: Any) -> None:
        self._backlog.append((bytes(data), handle))
        self._backlog_size += len(data)

    def can_write_eof(self) -> bool:
        """Whether this transport can close the write direction alone: only a TLS 1.3 session
        can (RFC 8446 section 6.1), once its handshake is complete; and a transport in clear."""
        if self._state is not OPEN or self._sent_eof:
            return False
        if self._phase is CLEAR:
            return self._lower.can_write_eof()
        return self._phase is SECURE and self._engine.half_close()

    def write_eof(self) -> None:
        if self._state is not OPEN or self._sent_eof:
            self._refuse("write_eof() has closed the sending direction")
        if not self.can_write_eof():
            raise TransportError(
                "only TLS 1.3 can end one direction alone; use close()",
                errno.EOPNOTSUPP,
                self._peer,
            )
        if self._phase is CLEAR:
            self._lower.write_eof()
        else:
            self._backlog.append(_DO_EOF)
            self._advance()
        self._sent_eof = True

    # -- Information --

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return transport-specific information: ``'ssl'`` (the TLS library's connection object,
        None while in clear), ``'sslctx'``, ``'tls_version'``, ``'tls_cipher'``, ``'alpn'``,
        ``'peer_certificate'`` (DER), ``'peer_authenticated'`` (whether we know for certain who
        the peer is), ``'session_reused'``, and all that the transport below has."""
        if name in self._extra_info:
            return super().get_extra_info(name, default)
        return self._lower.get_extra_info(name, default)

    def _session(self) -> Engine | None:
        return None if self._phase is CLEAR else self._engine

    def _get_context(self) -> Any:
        return context_of(self._context)

    def _get_ssl(self) -> Any:
        engine = self._session()
        return engine and engine.object

    def _get_version(self) -> Any:
        engine = self._session()
        return engine and engine.version()

    def _get_cipher(self) -> Any:
        engine = self._session()
        return engine and engine.cipher()

    def _get_alpn(self) -> Any:
        engine = self._session()
        return engine and engine.alpn()

    def _get_peer_certificate(self) -> Any:
        engine = self._session()
        return engine and engine.peer_certificate()

    def _get_peer_authenticated(self) -> Any:
        engine = self._session()
        return engine and engine.authenticated()

    def _get_session_reused(self) -> Any:
        engine = self._session()
        return engine and engine.reused()


_PURPOSES: dict[Any, _ssl.Purpose] = {
    None: _ssl.Purpose.SERVER_AUTH,
    False: _ssl.Purpose.SERVER_AUTH,
    True: _ssl.Purpose.CLIENT_AUTH,
}


def create_default_context(purpose: Any = None, **kwargs: Any) -> _ssl.SSLContext:
    """Create a new ssl.SSLContext with the most secure settings of this Python.

    *purpose* is None or False for a client's (which verifies the server against the system's
    trust store), True for a server's, or an ``ssl.Purpose``.  *kwargs* are those of
    ``ssl.create_default_context``.
    """
    if not isinstance(purpose, _ssl.Purpose):
        if purpose not in _PURPOSES:
            raise TypeError(f"purpose must be None, a bool or an ssl.Purpose, not {purpose!r}")
        purpose = _PURPOSES[purpose]
    return _ssl.create_default_context(purpose, **kwargs)


def choose_context(ssl: Any, handle: Any, server_side: bool) -> Any:
    """The context that an ``ssl=`` argument means: itself, a callable's answer for *handle*, or
    the default one for True (clients only: a server has no default certificate)."""
    if is_context(ssl):
        return ssl
    if callable(ssl):
        made = ssl(handle)
        if not is_context(made):
            raise TypeError(f"the ssl function must return a TLS context, not {made!r}")
        return made
    if ssl is True:
        if server_side:
            raise ValueError("ssl=True is for clients: a server needs a context with a certificate")
        return create_default_context()
    raise TypeError(f"ssl must be a bool, a TLS context or a callable, not {ssl!r}")
