"""Plugins: one file for each transport protocol that a Connection can stand on.

A plugin says what its protocol offers, what it can stand over, whether this machine has it, and
how to open and to listen.  Stacks are derived from that and never listed: whoever adds ``mptcp``
gets ``tls/mptcp`` for nothing.

Built-ins are an explicit list, imported when first asked for.  Strangers register a plugin class
or object in the entry-point group ``greentaps.plugins``; a stranger cannot take a built-in's name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import entry_points
from typing import Any, ClassVar

from ..hub import Deadline

__all__ = ["Attempt", "Offer", "Plugin", "find", "plugins", "stack_name", "stacks"]

ENTRY_POINT_GROUP = "greentaps.plugins"

_BUILT_IN = {
    "tcp": "greentaps.plugins.tcp:Tcp",
    "tls": "greentaps.plugins.tls:Tls",
}


class Offer(Enum):
    """Whether a protocol has the feature of a Selection Property."""

    ALWAYS = "always"
    NEVER = "never"
    EITHER = "either"  # can be had or not, as asked for


ALWAYS, NEVER, EITHER = Offer


@dataclass
class Attempt:
    """What a plugin is told for one attempt to open, or for one listener.

    *remote* and *local* are socket addresses (tuples) or None; *hostname* is the peer's name
    before resolution; *properties* maps names of properties to the levels or values asked for;
    *security* is the SecurityParameters, or None where the stack is to add none.
    """

    remote: Any = None
    local: Any = None
    hostname: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    security: Any = None
    deadline: Deadline = field(default_factory=lambda: Deadline(None))


class Plugin:
    """Base class of plugins.

    Its docstring fills in the mapping template of RFC 9623 appendix A.
    """

    name: ClassVar[str]
    """The protocol's acronym, in lower case: also the namespace of its own properties."""

    over: ClassVar[tuple[str, ...]] = ()
    """The plugins that it can stand on; none for what the system offers."""

    offers: ClassVar[Mapping[str, Offer]] = {}
    """For each Selection Property of type Preference: what a stack with this on top offers.
    A layer names only what it changes; the rest is that of the stack below."""

    secure: ClassVar[bool] = False
    """Whether it adds confidentiality, integrity and authentication of the peer."""

    def available(self) -> bool:
        """Whether this machine has the protocol.  Asked before anything is opened."""
        return True

    def open(self, attempt: Attempt, below: Any) -> Any:
        """Return a transport that was not started, for *attempt* over the transport *below*
        (None at the bottom).  Its ``connection_made`` means that the protocol is ready.

        A switchpoint; within ``attempt.deadline``.  Raises TransportError.
        """
        raise NotImplementedError

    def listen(self, attempt: Attempt, deliver: Callable[[Any], None]) -> Any:
        """At the bottom of a stack: listen at ``attempt.local`` and call *deliver* with an
        unstarted transport for each peer.  Returns an object with ``addresses``, ``pause()``,
        ``resume()`` and ``close()``.  A switchpoint.  Raises TransportError."""
        raise NotImplementedError

    def accept(self, attempt: Attempt, below: Any) -> Any:
        """In a layer: wrap the transport of an incoming connection.  Not a switchpoint."""
        raise NotImplementedError

    def check(self, attempt: Attempt, *, server_side: bool) -> None:
        """Raise, before anything is opened, if what *attempt* asks for can never work."""


_instances: dict[str, Plugin] = {}


def plugins() -> dict[str, Plugin]:
    """All plugins by name, in their order of preference: built-ins, then strangers'."""
    for name, where in _BUILT_IN.items():
        if name not in _instances:
            module, _, attribute = where.partition(":")
            _instances[name] = getattr(importlib.import_module(module), attribute)()
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name not in _instances:
            loaded = entry.load()
            _instances[entry.name] = loaded() if isinstance(loaded, type) else loaded
    return dict(_instances)


def find(name: str) -> Plugin:
    """The plugin called *name*.  Raises LookupError with the names that there are."""
    known = plugins()
    if name not in known:
        raise LookupError(f"no plugin is called {name!r}; there are {', '.join(known)}")
    return known[name]


Stack = tuple[Plugin, ...]


def stacks(among: Iterable[Plugin] | None = None) -> list[Stack]:
    """Every stack, top first, that the plugins (*among* them) can form."""
    chosen = {plugin.name: plugin for plugin in (plugins().values() if among is None else among)}

    def standing_on(name: str, above: Stack) -> list[Stack]:
        plugin = chosen.get(name)
        if plugin is None or plugin in above:
            return []
        stack = (*above, plugin)
        if not plugin.over:
            return [stack]
        return [found for lower in plugin.over for found in standing_on(lower, stack)]

    return [stack for name in chosen for stack in standing_on(name, ())]


def stack_name(stack: Stack) -> str:
    """A stack as it is written: ``tls/tcp``."""
    return "/".join(plugin.name for plugin in stack)


def offer(stack: Stack, name: str) -> Offer:
    """What *stack* offers for the Selection Property *name*: the topmost plugin that says."""
    for plugin in stack:
        if name in plugin.offers:
            return plugin.offers[name]
    return NEVER
