"""HTTP/1.1 as a framer: a Message is the body of a request or a response.

RFC 9623 section 6 names HTTP/1.1 as a protocol that frames by delimiters.  What stands before a
body is the Message's metadata, in its MessageContext::

    framer = Http1Framer("client")
    context = MessageContext().add(framer, "method", "GET").add(framer, "target", "/index.html")
    connection.send(b"", context)
    answer = connection.receive()
    answer.context.get(framer, "status")        # 200
    answer.context.get(framer, "headers")       # [(b"content-type", b"text/html"), ...]

The grammar is h11's, which must be installed; this file turns its events into Messages and back.
Requests and responses take turns, as HTTP wants it: a client's next request may be sent when the
response to the one before has been received to its end; a server's next request is parsed when
the response to the one before has been sent to its end.

A body is delivered as it comes and held nowhere.  What a peer can make us hold is the head of a
message (*max_head*) and, of requests sent ahead of their turn, *max_ahead*.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from .base import Buffer, DeframingError, Framer, FramingError
from .length import JOIN_LIMIT

if TYPE_CHECKING:
    from .stack import FramerLink

__all__ = ["Http1Framer"]


def _load_h11() -> ModuleType:
    try:
        import h11
    except ImportError as error:
        raise ImportError(
            "Http1Framer needs the h11 package; it comes with the extra greentaps[http]"
        ) from error
    return h11


class _State:
    """What the framer remembers of one Connection."""

    __slots__ = ("context", "ended", "eof", "method", "parser", "sending")

    def __init__(self, parser: Any) -> None:
        self.parser = parser
        self.context: Any = None  # of the Message that is being received
        self.method = b""  # of the request that is being answered
        self.sending = False  # a Message has begun to be sent, and has not ended
        self.eof = False  # the stream has ended, behind bytes that wait for their turn
        self.ended = False  # the peer will send no other Message


class Http1Framer(Framer):
    """HTTP/1.1 bodies as Messages.

    *role* is ``"client"`` (sends requests) or ``"server"`` (sends responses).  Metadata of sent
    Messages, all optional: ``"method"`` (str; "GET", or "POST" if there is a body), ``"target"``
    (str; "/"), ``"status"`` (int; 200), ``"reason"`` (str), ``"headers"`` (pairs of str or bytes),
    which includes ``host`` if *host* (str) is not the right one.  Of received Messages:
    ``"method"`` and ``"target"`` or ``"status"`` and ``"reason"``, ``"headers"`` (list of pairs of
    bytes, names in lower case), ``"http_version"`` (str), ``"keep_alive"`` (bool: whether the peer
    would exchange more), and on the last piece of a body ``"trailers"`` (like headers) if any.

    A Message that is sent whole gets a Content-Length, one that is sent in parts goes in chunks,
    unless the headers say otherwise.  A server answers ``Expect: 100-continue`` by itself, and does
    not send the body of an answer to HEAD, only its length.  When CONNECT has succeeded the framer
    goes into passthrough; other changes of protocol are refused.

    *host* (str) is the default of a client's Host header; without it the Connection's property
    ``hostname`` is taken.  *max_head* (bytes) limits what is held of a head that has not come whole
    (one that comes in a single read may be longer), *max_ahead* (bytes) what a client may send
    before its turn.

    Raises ImportError if h11 is not installed, ValueError for an unknown role.
    """

    def __init__(
        self,
        role: Literal["client", "server"],
        *,
        host: str | None = None,
        max_head: int = 16384,
        max_ahead: int = 1024 * 1024,
    ) -> None:
        if role not in ("client", "server"):
            raise ValueError(f"role must be 'client' or 'server', not {role!r}")
        self._h11 = _load_h11()
        self.role = role
        self.host = host
        self.max_head = max_head
        self.max_ahead = max_ahead

    def start(self, link: FramerLink) -> None:
        """A parser for this Connection."""
        h11 = self._h11
        link.state = _State(
            h11.Connection(
                h11.CLIENT if self.role == "client" else h11.SERVER,
                max_incomplete_event_size=self.max_head,
            )
        )

    # -- Sending --

    def new_sent_message(
        self, link: FramerLink, data: Buffer, context: Any, end_of_message: bool
    ) -> None:
        """Send the head with the first part of a body, and the body."""
        h11 = self._h11
        state: _State = link.state
        parser = state.parser
        out: list[Buffer] = []
        try:
            if not state.sending:
                head = self._head(link, len(data), context, end_of_message)
                out += parser.send_with_data_passthrough(head)
                state.sending = parser.our_state is h11.SEND_BODY
            if state.sending:
                if data and state.method != b"HEAD":
                    out += parser.send_with_data_passthrough(h11.Data(data=data))
                if end_of_message:
                    out += parser.send_with_data_passthrough(h11.EndOfMessage())
                    state.sending = False
        except h11.LocalProtocolError as error:
            state.sending = False
            raise FramingError(str(error)) from error
        if sum(map(len, out)) <= JOIN_LIMIT:
            link.send(b"".join(out))
        else:
            for part in out:
                if part:
                    link.send(part)
        if parser.our_state is h11.SWITCHED_PROTOCOL:
            self._switch(link, state)
        elif self._next_cycle(state):
            try:
                self._go_on(link, state)
            except DeframingError as error:
                link.fail_connection(error)

    def forget_sent(self, link: FramerLink, *, left: bool) -> None:
        """Nothing can follow a part of a body without its end: the parser refuses another head."""
        link.state.sending = False

    def _head(self, link: FramerLink, length: int, context: Any, whole: bool) -> Any:
        def given(key: str, default: Any) -> Any:
            value = None if context is None else context.get(self, key)
            return default if value is None else value

        headers = [(_octets(name), _octets(value)) for name, value in given("headers", ())]
        names = {name.lower() for name, _ in headers}
        framed = not names.isdisjoint((b"content-length", b"transfer-encoding"))
        make = self._request if self.role == "client" else self._response
        return make(link, length if whole else None, given, headers, framed)

    def _request(
        self,
        link: FramerLink,
        length: int | None,
        given: Callable[[str, Any], Any],
        headers: list[tuple[bytes, bytes]],
        framed: bool,
    ) -> Any:
        h11 = self._h11
        state: _State = link.state
        if state.parser.our_state is not h11.IDLE:
            if state.parser.our_state in (h11.DONE, h11.MIGHT_SWITCH_PROTOCOL):
                raise FramingError("the next request must wait for the response to this one")
            raise FramingError("no request can be sent any more")
        if all(name.lower() != b"host" for name, _ in headers):
            host = self.host or link.get_property("hostname")
            if not host:
                raise FramingError("a request needs a Host header")
            headers.insert(0, (b"host", _octets(host)))
        method = _octets(given("method", "POST" if length != 0 else "GET"))
        if not framed:
            if length is None:
                headers.append((b"transfer-encoding", b"chunked"))
            elif length or method in (b"POST", b"PUT", b"PATCH"):
                headers.append((b"content-length", b"%d" % length))
        return h11.Request(method=method, target=_octets(given("target", "/")), headers=headers)

    def _response(
        self,
        link: FramerLink,
        length: int | None,
        given: Callable[[str, Any], Any],
        headers: list[tuple[bytes, bytes]],
        framed: bool,
    ) -> Any:
        h11 = self._h11
        state: _State = link.state
        if state.parser.our_state is not h11.SEND_RESPONSE:
            raise FramingError("there is no request to respond to")
        status = given("status", 200)
        reason = _octets(given("reason", _reason(status)))
        if status < 200:
            if length != 0:
                raise FramingError(f"a response with status {status} has no body")
            return h11.InformationalResponse(status_code=status, reason=reason, headers=headers)
        connects = state.method == b"CONNECT" and status < 300
        if length is not None and not framed and status not in (204, 304) and not connects:
            if length or state.method != b"HEAD":
                headers.append((b"content-length", b"%d" % length))
        return h11.Response(status_code=status, reason=reason, headers=headers)

    # -- Receiving --

    def handle_received_data(self, link: FramerLink) -> None:
        """Hand the bytes to the parser, and deliver what comes out."""
        state: _State = link.state
        if state.ended:
            link.advance_receive_cursor(link.received)  # nothing that is sent now means anything
        elif self._ahead(state):
            if link.received > self.max_ahead:
                raise DeframingError(f"more than {self.max_ahead} bytes came before their turn")
        else:
            self._go_on(link, state)

    def handle_end(self, link: FramerLink) -> None:
        """The end of the stream may be the end of a response's body."""
        state: _State = link.state
        state.eof = True
        if not state.ended and not self._ahead(state):
            self._go_on(link, state)

    def _ahead(self, state: _State) -> bool:
        """Whether what the peer sends now must wait for its turn, and is not parsed."""
        h11 = self._h11
        return state.parser.their_state in (h11.DONE, h11.MIGHT_SWITCH_PROTOCOL)

    def _go_on(self, link: FramerLink, state: _State) -> None:
        """Parse what the link holds, and what the parser has held back."""
        h11 = self._h11
        parser = state.parser
        data = link.take(link.received)
        try:
            if data:
                parser.receive_data(data)
            if state.eof:
                parser.receive_data(b"")
            self._events(link, state)
        except h11.RemoteProtocolError as error:
            if self.role == "server" and parser.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                self._refuse(link, parser, error.error_status_hint)
            raise DeframingError(str(error)) from error

    def _events(self, link: FramerLink, state: _State) -> None:
        """Deliver a body's bytes as they come.  The newest are delivered when the next event tells
        whether they are the last; at once if there is none."""
        h11 = self._h11
        parser = state.parser
        newest: bytes | None = None
        while True:
            event = parser.next_event()
            kind = type(event)
            if kind is h11.Data:
                if newest is not None:
                    link.deliver(state.context, newest, False)
                newest = bytes(event.data)
            elif kind is h11.EndOfMessage:
                if event.headers:
                    state.context.add(self, "trailers", list(event.headers))
                context, state.context = state.context, None
                link.deliver(context, newest or b"")
                newest = None
                if parser.their_state in (h11.MUST_CLOSE, h11.CLOSED):
                    self._ended(link, state)
                    return
                self._next_cycle(state)
            elif kind is h11.Request or kind is h11.Response:
                self._received_head(link, state, event)
                if parser.their_state is h11.SWITCHED_PROTOCOL:
                    context, state.context = state.context, None
                    link.deliver(context, b"")
                    self._switch(link, state)
                    return
            elif kind is h11.InformationalResponse:
                if parser.their_state is h11.SWITCHED_PROTOCOL:
                    raise DeframingError("the server switches to another protocol")
            elif kind is h11.ConnectionClosed:
                self._ended(link, state)
                return
            else:  # NEED_DATA, or PAUSED
                if newest is not None:
                    link.deliver(state.context, newest, False)
                return

    def _received_head(self, link: FramerLink, state: _State, head: Any) -> None:
        h11 = self._h11
        parser = state.parser
        context = state.context = link.new_context()
        context.add(self, "headers", list(head.headers))
        context.add(self, "http_version", head.http_version.decode("ascii"))
        context.add(self, "keep_alive", _stays(head))
        if self.role == "server":
            state.method = head.method
            context.add(self, "method", head.method.decode("ascii"))
            context.add(self, "target", head.target.decode("ascii"))
            if parser.they_are_waiting_for_100_continue:
                link.send(parser.send(h11.InformationalResponse(status_code=100, headers=[])))
        else:
            context.add(self, "status", head.status_code)
            context.add(self, "reason", bytes(head.reason).decode("latin-1"))

    def _next_cycle(self, state: _State) -> bool:
        """Begin the next exchange if this one is over, and tell whether it was."""
        h11 = self._h11
        parser = state.parser
        if parser.our_state is h11.DONE and parser.their_state is h11.DONE:
            parser.start_next_cycle()
            return True
        return False

    def _switch(self, link: FramerLink, state: _State) -> None:
        """CONNECT has succeeded: from here on it is not HTTP."""
        taken, _ = state.parser.trailing_data
        link.start_passthrough(taken)

    def _ended(self, link: FramerLink, state: _State) -> None:
        if not state.ended:
            state.ended = True
            link.end_receiving()

    def _refuse(self, link: FramerLink, parser: Any, status: int) -> None:
        """Tell the client what was wrong before the Connection ends."""
        h11 = self._h11
        head = h11.Response(
            status_code=status,
            reason=_octets(_reason(status)),
            headers=[(b"connection", b"close"), (b"content-length", b"0")],
        )
        link.send_last(parser.send(head) + parser.send(h11.EndOfMessage()))


def _octets(value: str | bytes) -> bytes:
    return value.encode("latin-1") if isinstance(value, str) else bytes(value)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _stays(head: Any) -> bool:
    return head.http_version >= b"1.1" and not any(
        name == b"connection" and b"close" in value.lower() for name, value in head.headers
    )
