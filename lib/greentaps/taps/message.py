"""Messages and their contexts (RFC 9622 section 9.1).

Both are made for each receive, so they are kept small: a Message makes its context when somebody
asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .endpoint import LocalEndpoint, RemoteEndpoint

__all__ = ["Message", "MessageContext"]


class MessageContext:
    """What goes with a Message and is not its data (RFC 9622 section 9.1.1).

    Framers keep their metadata here: ``context.add(framer, "type", 7)``.
    """

    __slots__ = ("_ends", "_values")

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}
        self._ends: Callable[[], tuple[Any, Any]] | None = None

    def add(self, *args: Any) -> MessageContext:
        """``add("final", True)`` sets a Message Property, ``add(framer, key, value)`` a framer's
        own metadatum.  Returns this object.  Raises KeyError for unknown properties."""
        if len(args) == 3:
            framer, key, value = args
            self._values[framer, key] = value
            return self
        name, value = args
        if name != "final":
            raise KeyError(f"no Message Property is called {name!r}; there is final")
        if not isinstance(value, bool):
            raise TypeError(f"final is a bool, not {value!r}")
        self._values["final"] = value
        return self

    def get(self, *args: Any, default: Any = None) -> Any:
        """``get("final")``, or ``get(framer, key)``; *default* if it was not set."""
        key = args[0] if len(args) == 1 else args
        return self._values.get(key, default)

    def get_remote_endpoint(self) -> RemoteEndpoint | None:
        """Where the Message comes from, or goes to."""
        return self._ends()[1] if self._ends else None

    def get_local_endpoint(self) -> LocalEndpoint | None:
        """Our end of the Connection that the Message belongs to."""
        return self._ends()[0] if self._ends else None

    def belongs_to(self, ends: Callable[[], tuple[Any, Any]]) -> MessageContext:
        """For the Connection: *ends* gives the Local and the Remote Endpoint."""
        self._ends = ends
        return self


class Message:
    """What `Connection.receive` returns: a Message, or a piece of one.

    `data` is bytes.  `end_of_message` tells a whole Message, or the last piece of one, from a
    piece that more will follow.
    """

    __slots__ = ("_context", "_ends", "data", "end_of_message")

    def __init__(
        self,
        data: bytes,
        end_of_message: bool,
        context: MessageContext | None,
        ends: Callable[[], tuple[Any, Any]] | None = None,
    ) -> None:
        self.data = data
        self.end_of_message = end_of_message
        self._context = context
        self._ends = ends

    @property
    def context(self) -> MessageContext:
        """The MessageContext; the same object for all pieces of one Message."""
        if self._context is None:
            self._context = MessageContext()
        if self._ends is not None:
            self._context.belongs_to(self._ends)
            self._ends = None
        return self._context

    def __bytes__(self) -> bytes:
        return self.data

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        shown = repr(self.data) if len(self.data) <= 32 else f"<{len(self.data)} bytes>"
        return f"Message({shown}, end_of_message={self.end_of_message})"
