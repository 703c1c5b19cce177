"""Messages and their contexts (RFC 9622 section 9.1).

Both are made for each receive, so they are kept small: a Message makes its context when somebody
asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .endpoint import LocalEndpoint, RemoteEndpoint
from .properties import check_message_property, find_property

__all__ = ["Message", "MessageContext", "MessageDataObject", "Piece"]

Ends = Callable[[], tuple[Any, Any]]


class MessageContext:
    """What goes with a Message and is not its data (RFC 9622 section 9.1.1).

    ``add("msgPriority", 5)`` sets a Message Property, ``add(framer, "type", 7)`` a framer's own
    metadatum; framers have a namespace each.  A send takes what is set at that moment; later
    changes count for later Messages, and the same context may serve several of them.
    """

    __slots__ = ("_ends", "_values")

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}
        self._ends: Ends | None = None

    def add(self, *args: Any) -> MessageContext:
        """``add(property, value)`` or ``add(framer, key, value)``.  Returns this object.

        Raises PropertyError for unknown Message Properties, wrong values, and read-only ones.
        """
        if len(args) == 3:
            framer, key, value = args
            self._values[framer, key] = value
        else:
            if len(args) != 2:
                raise TypeError(f"add() takes 2 or 3 arguments, not {len(args)}")
            name, value = args
            name, value = check_message_property(name, value)
            self._values[name] = value
        return self

    def get(self, *args: Any, default: Any = None) -> Any:
        """``get(property)`` or ``get(framer, key)``: what was set, or came with the Message; else
        *default*.  Raises PropertyError for unknown properties."""
        if len(args) == 2:
            return self._values.get(args, default)
        if len(args) != 1:
            raise TypeError(f"get() takes 1 or 2 arguments, not {len(args)}")
        return self._values.get(find_property(args[0]).name, default)

    def has(self, name: str) -> bool:
        """Whether the property called *name*, in the RFC's spelling, was set here."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a property is a str, not {name!r}")
        return name in self._values

    def settings(self) -> dict[str, Any]:
        """The properties that were set here, by name."""
        return {name: value for name, value in self._values.items() if isinstance(name, str)}

    def note(self, name: str, value: Any) -> MessageContext:
        """For the library: the value of a read-only property of a received Message."""
        self._values[name] = value
        return self

    def frozen(self) -> MessageContext:
        """For the Connection: a copy that later changes of this one do not reach."""
        return MessageContext().inheriting(self)

    def __copy__(self) -> MessageContext:
        return self.frozen()

    def __deepcopy__(self, memo: Any) -> MessageContext:
        return self.frozen()  # framers are names in here, and the Connection is not of the Message

    def inheriting(self, below: MessageContext) -> MessageContext:
        """For framers: begin with all that *below* has."""
        self._values.update(below._values)
        self._ends = below._ends
        return self

    def get_remote_endpoint(self) -> RemoteEndpoint | None:
        """Where the Message comes from, or goes to; None before that is known."""
        return self._ends()[1] if self._ends else None

    def get_local_endpoint(self) -> LocalEndpoint | None:
        """Our end of the Connection that the Message belongs to; None before that is known."""
        return self._ends()[0] if self._ends else None

    def belongs_to(self, ends: Ends) -> MessageContext:
        """For the Connection: *ends* gives the Local and the Remote Endpoint."""
        self._ends = ends
        return self

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
        return f"MessageContext({inside})"


def fresh_context(below: MessageContext | None = None) -> MessageContext:
    """For framers: a context of a received Message, which begins with all that *below* has."""
    made = MessageContext()
    return made if below is None else made.inheriting(below)


class Message:
    """What `Connection.receive` returns: a Message, or a piece of one.

    `data` is bytes.  `end_of_message` tells a whole Message, or the last piece of one, from a
    piece that more will follow.  `partial` is true for each piece of a Message that comes in
    several.
    """

    __slots__ = ("_connection", "_context", "data", "end_of_message", "partial")

    def __init__(
        self,
        data: bytes,
        end_of_message: bool,
        context: MessageContext | None,
        connection: Any = None,
        partial: bool = False,
    ) -> None:
        self.data = data
        self.end_of_message = end_of_message
        self.partial = partial
        self._context = context
        self._connection = connection

    @property
    def context(self) -> MessageContext:
        """The MessageContext; the same object for all pieces of one Message."""
        if self._context is None:
            self._context = MessageContext()
        if self._connection is not None:
            self._context.belongs_to(self._connection.ends)
            self._connection = None
        return self._context

    @property
    def own_context(self) -> MessageContext | None:
        """For the Connection: the context, if it has been made."""
        return self._context

    def __copy__(self) -> Message:
        return Message(self.data, self.end_of_message, self.context, partial=self.partial)

    def __deepcopy__(self, memo: Any) -> Message:
        context = self.context.frozen()
        return Message(self.data, self.end_of_message, context, partial=self.partial)

    @property
    def final(self) -> bool:
        """Whether the peer has marked this as its last Message (RFC 9622 section 9.3.3.3)."""
        return bool(self._context is not None and self._context.has("_greentaps.finalMessage"))

    @property
    def length(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    def __bytes__(self) -> bytes:
        return self.data

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return True  # an empty Message is one

    def __repr__(self) -> str:
        shown = repr(self.data) if len(self.data) <= 32 else f"<{len(self.data)} bytes>"
        return f"Message({shown}, end_of_message={self.end_of_message})"


MessageDataObject = Message  # its name in older systems


class Piece(Message):
    """A `Message` that is a piece of one which goes on: of a stream, what is received most."""

    __slots__ = ()

    end_of_message = False
    partial = True
