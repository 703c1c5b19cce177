"""WebSocket (RFC 6455) as a framer: real Messages over TCP or TLS, through what HTTP lets pass.

The opening handshake is the framer's start, so the Connection is ready when it has succeeded; a
server that refuses makes the candidate fail, and another may be tried.  The closing handshake is
its stop.  Whether a Message is text or binary is its metadatum ``"type"``::

    framer = WebSocketFramer("client", target="/chat")
    context = MessageContext().add(framer, "type", "text")
    connection.send("grüß dich".encode(), context)

The grammar is wsproto's, which must be installed.  Pings are answered here and not seen above; of
those that come while the peer does not read what we answer, the newest one is answered, as RFC
6455 section 5.5.3 allows.

Messages are delivered as they come, frame by frame or less, so nothing is held but the head of the
handshake (*max_head*).  Compression is never offered and never accepted: a compressed Message may
grow a thousandfold while it is unpacked, in one step.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from .base import Buffer, DeframingError, Framer, FramingError, MessageTooLongError

if TYPE_CHECKING:
    from .stack import FramerLink

__all__ = ["WebSocketFramer"]

_END_OF_HEAD = b"\r\n\r\n"
# Close codes of RFC 6455 section 7.4.1.
_NORMAL, _GOING_AWAY, _NO_CODE, _TOO_BIG = 1000, 1001, 1005, 1009


def _load_wsproto() -> ModuleType:
    try:
        import wsproto
        import wsproto.connection
        import wsproto.events
        import wsproto.utilities
    except ImportError as error:
        raise ImportError(
            "WebSocketFramer needs the wsproto package; it comes with the extra "
            "greentaps[websocket]"
        ) from error
    return wsproto


class _State:
    """What the framer remembers of one Connection."""

    __slots__ = (
        "closing",
        "context",
        "cut",
        "decoder",
        "ended",
        "in_message",
        "open",
        "ping",
        "received",
        "request",
        "sent",
        "subprotocol",
        "wire",
    )

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self.open = False  # the opening handshake is done
        self.closing = False  # we have sent a close frame
        self.ended = False  # the peer has
        self.context: Any = None  # of the Message that is being received
        self.received = 0  # its bytes so far
        self.in_message = False  # a Message has begun to be sent, and has not ended
        self.sent = 0  # its bytes so far
        self.cut = False  # its end will not come
        self.decoder: Any = None  # if it is text
        self.ping: Any = None  # to be answered when the peer reads again
        self.request: Any = None
        self.subprotocol: str | None = None


class WebSocketFramer(Framer):
    """WebSocket Messages.

    *role* is ``"client"`` or ``"server"``.  For clients: *host* (str) is the Host header, by
    default the Connection's property ``hostname``; *target* (str) the resource, *headers* pairs of
    str for the request.  *subprotocols* (str) are what we offer or, as a server, what we accept,
    best first; which one it became stands in the metadatum ``"subprotocol"`` of each Message.  A
    server's *accept* is called with the request's target (str) and headers (list of pairs of
    bytes) and returns whether to accept it; without one every request is accepted, wherever its
    page comes from, so servers for browsers should look at ``origin``.

    *default_type* ("binary" or "text") is the type of Messages that are sent without one.
    *max_length* (bytes, or None) is the longest Message that is sent or accepted, *max_head*
    (bytes) the longest head of the handshake.

    Raises ImportError if wsproto is not installed, ValueError for an unknown role or type.
    """

    def __init__(
        self,
        role: Literal["client", "server"],
        *,
        host: str | None = None,
        target: str = "/",
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        accept: Callable[[str, list[tuple[bytes, bytes]]], bool] | None = None,
        default_type: Literal["binary", "text"] = "binary",
        max_length: int | None = None,
        max_head: int = 16384,
    ) -> None:
        if role not in ("client", "server"):
            raise ValueError(f"role must be 'client' or 'server', not {role!r}")
        if default_type not in ("binary", "text"):
            raise ValueError(f"default_type must be 'binary' or 'text', not {default_type!r}")
        self._wsproto = _load_wsproto()
        self.role = role
        self.host = host
        self.target = target
        self.headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        self.subprotocols = list(subprotocols)
        self.accept = accept
        self.default_type = default_type
        self.max_length = max_length
        self.max_head = max_head

    # -- The handshakes --

    def start(self, link: FramerLink) -> None:
        """Begin the opening handshake."""
        ws = self._wsproto
        client = self.role == "client"
        kind = ws.ConnectionType.CLIENT if client else ws.ConnectionType.SERVER
        state = link.state = _State(ws.WSConnection(kind))
        link.delay_ready()
        if client:
            host = self.host or link.get_property("hostname")
            if not host:
                raise FramingError("a WebSocket client needs to know its host")
            link.send(
                state.wire.send(
                    ws.events.Request(
                        host=host,
                        target=self.target,
                        subprotocols=self.subprotocols,
                        extra_headers=self.headers,
                    )
                )
            )

    def _shake(self, link: FramerLink, state: _State) -> None:
        """Hand the head of the request or the response to the parser, and no byte more."""
        ws = self._wsproto
        at = link.find(_END_OF_HEAD, 0, self.max_head)
        if at < 0:
            if link.received >= self.max_head:
                raise DeframingError(f"the handshake has more than {self.max_head} bytes")
            return
        head = link.take(at + len(_END_OF_HEAD))
        try:
            state.wire.receive_data(head)
            events = list(state.wire.events())
        except ws.utilities.RemoteProtocolError as error:
            hint = error.event_hint
            if self.role == "server" and isinstance(hint, ws.events.RejectConnection):
                link.send_last(state.wire.send(hint))
            raise DeframingError(f"no WebSocket handshake: {error}") from error
        except ws.utilities.LocalProtocolError as error:
            raise DeframingError(f"no WebSocket handshake: {error}") from error
        for event in events:
            if isinstance(event, ws.events.Request):
                self._answer(link, state, event)
            elif isinstance(event, ws.events.AcceptConnection):
                if event.extensions:
                    raise DeframingError("the server wants an extension that was not offered")
                state.subprotocol = event.subprotocol
                self._opened(link, state)
            elif isinstance(event, ws.events.RejectConnection):
                raise DeframingError(
                    f"the server refuses WebSocket with status {event.status_code}"
                )

    def _answer(self, link: FramerLink, state: _State, request: Any) -> None:
        ws = self._wsproto
        if self.accept is not None:
            headers = [*request.extra_headers, (b"host", request.host.encode("idna"))]
            if not self.accept(request.target, headers):
                link.send_last(state.wire.send(ws.events.RejectConnection(status_code=403)))
                raise DeframingError("the request was not accepted")
        state.request = request
        state.subprotocol = next(
            (name for name in self.subprotocols if name in request.subprotocols), None
        )
        link.send(state.wire.send(ws.events.AcceptConnection(subprotocol=state.subprotocol)))
        self._opened(link, state)

    def _opened(self, link: FramerLink, state: _State) -> None:
        state.open = True
        link.make_connection_ready()

    def stop(self, link: FramerLink) -> None:
        """Begin the closing handshake, or finish the peer's."""
        state: _State = link.state
        if state.open and not state.closing:
            self._close(link, state, _NORMAL)
            if not state.ended:
                link.delay_closed()

    def _close(
        self,
        link: FramerLink,
        state: _State,
        code: int,
        reason: str = "",
        *,
        failing: bool = False,
    ) -> None:
        state.closing = True
        event = self._wsproto.events.CloseConnection(code=code, reason=reason or None)
        (link.send_last if failing else link.send)(state.wire.send(event))

    # -- Sending --

    def new_sent_message(
        self, link: FramerLink, data: Buffer, context: Any, end_of_message: bool
    ) -> None:
        """Send a frame: the Message, or a part of one."""
        events = self._wsproto.events
        state: _State = link.state
        if state.closing:
            raise FramingError("the WebSocket is closed")
        if state.cut:
            raise FramingError("a Message has begun to leave, and its end could not be sent")
        if not state.in_message:
            kind = None if context is None else context.get(self, "type")
            if kind is None:
                kind = self.default_type
            elif kind not in ("binary", "text"):
                raise FramingError(f"a type is 'binary' or 'text', not {kind!r}")
            state.sent = 0
            state.decoder = codecs.getincrementaldecoder("utf-8")() if kind == "text" else None
        state.sent += len(data)
        if self.max_length is not None and state.sent > self.max_length:
            raise MessageTooLongError(f"a Message may have {self.max_length} bytes at most")
        if state.decoder is None:
            event = events.BytesMessage(data=data, message_finished=end_of_message)
        else:
            try:
                text = state.decoder.decode(data, end_of_message)
            except UnicodeDecodeError as error:
                raise FramingError(f"a text Message must be UTF-8: {error}") from error
            event = events.TextMessage(data=text, message_finished=end_of_message)
        state.in_message = not end_of_message
        if state.ping is not None:
            self._pong(link, state)
        link.send(state.wire.send(event))

    def forget_sent(self, link: FramerLink, *, left: bool) -> None:
        """Nothing can follow frames of a Message without its end, but control frames."""
        link.state.cut = link.state.in_message

    # -- Receiving --

    def handle_received_data(self, link: FramerLink) -> None:
        """Hand the bytes to the parser, and deliver what comes out."""
        state: _State = link.state
        if not state.open:
            self._shake(link, state)
            return
        data = link.take(link.received)
        if not data or state.ended:
            return
        ws = self._wsproto
        events = ws.events
        state.wire.receive_data(data)
        if state.ping is not None:
            self._pong(link, state)
        for event in state.wire.events():
            if isinstance(event, events.Message):
                self._piece(link, state, event)
            elif isinstance(event, events.Ping):
                state.ping = event.response()
                self._pong(link, state)
            elif isinstance(event, events.CloseConnection):
                self._closed(link, state, event)
                return

    def _piece(self, link: FramerLink, state: _State, event: Any) -> None:
        context = state.context
        text = isinstance(event, self._wsproto.events.TextMessage)
        if context is None:
            context = state.context = link.new_context()
            context.add(self, "type", "text" if text else "binary")
            if state.subprotocol is not None:
                context.add(self, "subprotocol", state.subprotocol)
        data = event.data.encode() if text else bytes(event.data)
        if self.max_length is not None:
            state.received += len(data)
            if state.received > self.max_length:
                if not state.closing:
                    self._close(link, state, _TOO_BIG, failing=True)
                raise DeframingError(f"a Message of more than {self.max_length} bytes")
        if event.message_finished:
            state.context = None
            state.received = 0
        elif not data:
            return
        link.deliver(context, data, event.message_finished)

    def _pong(self, link: FramerLink, state: _State) -> None:
        """Answer the newest ping, unless the peer does not read."""
        if state.closing:
            state.ping = None
        elif not link.write_blocked:
            pong, state.ping = state.ping, None
            link.send(state.wire.send(pong))

    def _closed(self, link: FramerLink, state: _State, event: Any) -> None:
        """The peer closes, or, as wsproto says it in the same way, breaks the protocol."""
        states = self._wsproto.connection.ConnectionState
        code = int(event.code)
        if state.wire.state in (states.OPEN, states.LOCAL_CLOSING):
            if not state.closing:
                self._close(link, state, code, event.reason or "", failing=True)
            raise DeframingError(f"the peer breaks the WebSocket protocol: {event.reason}")
        state.ended = True
        cut = state.context is not None
        if not state.closing:
            state.closing = True
            failing = cut or code not in (_NORMAL, _GOING_AWAY, _NO_CODE)
            (link.send_last if failing else link.send)(state.wire.send(event.response()))
        if cut:
            raise DeframingError("the peer closed the WebSocket in the middle of a Message")
        if code not in (_NORMAL, _GOING_AWAY, _NO_CODE):
            raise DeframingError(
                f"the peer closed the WebSocket with code {code}: {event.reason or 'no reason'}"
            )
        link.make_connection_closed()
        link.end_receiving()

    def handle_end(self, link: FramerLink) -> None:
        """A stream that ends without a closing handshake may have been cut."""
        if not link.state.ended:
            raise DeframingError("the stream ended without a closing handshake")
