"""Plugins: one file for each transport protocol that a Connection can stand on.

A plugin says what its protocol offers, what it can stand over, whether this machine has it, and
how to open and to listen.  Stacks are derived from that and never listed: whoever adds ``mptcp``
gets ``tls/mptcp`` for nothing.

Built-ins are an explicit list, imported when first asked for.  Strangers register a plugin class
or object in the entry-point group ``greentaps.plugins``; a stranger cannot take a built-in's name.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, ClassVar

from ..hub import Deadline
from ..transports.options import Measure

__all__ = [
    "ALWAYS",
    "EITHER",
    "NEVER",
    "STREAMS",
    "Attempt",
    "Measure",
    "Offer",
    "Plugin",
    "Stack",
    "duplicates",
    "find",
    "has",
    "lacks",
    "measure",
    "offer",
    "plugins",
    "register",
    "secured",
    "service_protocol",
    "stack_name",
    "stacks",
    "unregister",
]

ENTRY_POINT_GROUP = "greentaps.plugins"

# In `Plugin.over`: any plugin that offers an ordered, reliable stream of bytes.
STREAMS = "streams"

_BUILT_IN = {
    "tcp": "greentaps.plugins.tcp:Tcp",
    "tls": "greentaps.plugins.tls:Tls",
    "udp": "greentaps.plugins.udp:Udp",
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
    before resolution; *security* is the SecurityParameters, or None where the stack is to add
    none.  *options* has the properties that the application has set, by the RFC's names, as plain
    values: a Preference is a bool (wanted or not), a capacity profile its DSCP, and Disabled,
    Unlimited and Infinite are None.  *admit*, for a listener, says of a peer's socket address
    whether it may come in; None if all may.  *interface* (str or None) is the only one to use;
    *hop_limit* (int or None) is for what is sent.

    *early* is data that may travel with the establishment, and arrive more than once (RFC 9622
    section 6.2.5): bytes, a memoryview, or None.  What a plugin has handed to the system in
    `Plugin.open`, it takes away here.  *greets* allows a plugin to return a transport that is not
    sure of its peer yet, so that the greeting of the plugin above travels likewise.
    """

    remote: Any = None
    local: Any = None
    hostname: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    security: Any = None
    deadline: Deadline = field(default_factory=lambda: Deadline(None))
    admit: Callable[[Any], bool] | None = None
    interface: str | None = None
    hop_limit: int | None = None
    early: bytes | memoryview | None = None
    greets: bool = False


class Plugin:
    """Base class of plugins.

    Its docstring fills in the mapping template of RFC 9623 appendix A.
    """

    name: ClassVar[str]
    """The protocol's acronym, in lower case: also the namespace of its own properties."""

    over: ClassVar[tuple[str, ...]] = ()
    """The names of the plugins that it can stand on, or `STREAMS` for all that are one; empty for
    what the system offers."""

    stream: ClassVar[bool] = False
    """Whether it offers an ordered, reliable stream of bytes, so a `StreamTransport`."""

    offers: ClassVar[Mapping[str, Offer]] = {}
    """For each Selection Property of type Preference: what a stack with this on top offers.
    A layer names only what it changes; the rest is that of the stack below."""

    secure: ClassVar[bool] = False
    """Whether it adds confidentiality, integrity and authentication of the peer."""

    duplicates: ClassVar[bool] = False
    """Whether a Message may arrive twice: then it is no candidate unless all Messages are
    ``safelyReplayable`` (RFC 9622 section 9.1.3.4)."""

    greets: ClassVar[bool] = False
    """Whether it speaks first when it initiates, is ready only when the peer has answered, and does
    no harm if the peer hears that first word twice.  Then it may be given a transport below that is
    not sure of the peer (RFC 9623 section 5.3)."""

    confirms: ClassVar[bool] = True
    """Whether being ready proves that the peer is there: not so without a handshake."""

    service_protocol: ClassVar[str | None] = None
    """``"tcp"`` or ``"udp"``: for which of the two the names of services over it are registered
    (RFC 6335 section 5.2), and so under which they are looked up, as in ``_imap._tcp``.  None is
    ``"tcp"`` for a `stream`, else ``"udp"``.  The plugin at the bottom of a stack says it."""

    def available(self) -> bool:
        """Whether this machine has the protocol.  Asked before anything is opened."""
        return True

    def lacks(self, name: str, *, server_side: bool) -> bool:
        """Whether this machine, as it is set up now, keeps the protocol from the Selection Property
        *name*, of which `offers` says that it can be had.  Not a switchpoint."""
        return False

    def open(self, attempt: Attempt, below: Any) -> Any:
        """Return a transport that was not started, for *attempt* over the transport *below*
        (None at the bottom).  Its ``connection_made`` means that the protocol is ready.

        A switchpoint; within ``attempt.deadline``.  Raises TransportError.
        """
        raise NotImplementedError

    def listen(self, attempt: Attempt, deliver: Callable[[Any], None]) -> Any:
        """At the bottom of a stack: listen at ``attempt.local`` and call *deliver* with an
        unstarted transport for each peer.  Returns an object with ``address``, where it listens,
        ``pause()``, ``resume()`` and ``close()``.  A switchpoint.  Raises TransportError."""
        raise NotImplementedError

    def accept(self, attempt: Attempt, below: Any) -> Any:
        """In a layer: wrap the transport of an incoming connection.  Not a switchpoint."""
        raise NotImplementedError

    def check(self, attempt: Attempt, *, server_side: bool) -> None:
        """Raise ValueError or OSError, before anything is opened, if what *attempt* asks for can
        never work."""

    def apply(self, transport: Any, name: str, value: Any) -> bool | None:
        """A Connection Property of the live *transport*, the top of the stack, is to have a new
        value, which is plain as in `Attempt.options`.  The plugin on top is asked first.  Returns
        True if it has been seen to in a way of its own, and the plugins below are not to hear of it
        (RFC 9623 section 7).  Raises OSError or ValueError if that is impossible here: the old
        value stays."""

    def warning(self, transport: Any) -> str | None:
        """What a SoftError should say about the live *transport* now; None if all is well.  Asked
        once a second where the application wants soft errors (RFC 9622 section 8.3.1)."""
        return None

    def early(self, transport: Any) -> int | None:
        """Whether data has travelled with the establishment of the live *transport*, the top of the
        stack: None if not, else how many bytes have been received so far, among which it is if the
        peer has sent it.  Asked once, where zeroRttMsg is wanted.  Not a switchpoint."""
        return None

    def early_room(self, transport: Any) -> int | None:
        """How many bytes could travel with the establishment of another connection like the live
        *transport*, the top of the stack; None if that is not known."""
        return None

    def measure(self, transport: Any) -> Measure | None:
        """What is known of the path of the live *transport*, the top of the stack; None if
        nothing is.  Asked once or twice in a Connection's life; cheap, and never a switchpoint."""
        return None


_log = logging.getLogger("greentaps.plugins")
_instances: dict[str, Plugin] = {}
_registered: dict[str, Plugin] = {}
_looked = False


def plugins() -> dict[str, Plugin]:
    """All plugins by name, in their order of preference: built-ins, then strangers'.

    A stranger's plugin that cannot be imported is logged and left out.
    """
    if not _looked:
        _look()
    return {**_instances, **_registered}


def _look() -> None:
    """Import the built-ins and what is installed; once, since it takes a millisecond."""
    global _looked
    for name, where in _BUILT_IN.items():
        module, _, attribute = where.partition(":")
        _instances[name] = getattr(importlib.import_module(module), attribute)()
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name in _BUILT_IN:
            _log.warning("the plugin %s is left out: the name is a built-in's", entry.value)
            continue
        try:
            loaded = entry.load()
            plugin = loaded() if isinstance(loaded, type) else loaded
            if not isinstance(plugin, Plugin) or plugin.name != entry.name:
                raise TypeError(f"not a Plugin called {entry.name!r}: {plugin!r}")
            _instances[entry.name] = plugin
        except Exception:
            _log.warning("the plugin %s cannot be loaded", entry.value, exc_info=True)
    _looked = True


def register(plugin: Plugin) -> None:
    """Add *plugin* for this program, without installing anything.

    Raises TypeError if it is not a Plugin, ValueError if its name is taken.
    """
    if not isinstance(plugin, Plugin):
        raise TypeError(f"not a Plugin: {plugin!r}")
    if plugin.name in plugins():
        raise ValueError(f"there is a plugin called {plugin.name!r}")
    _registered[plugin.name] = plugin


def unregister(plugin: Plugin) -> None:
    """Undo `register`; nothing happens if *plugin* is not registered."""
    if _registered.get(plugin.name) is plugin:
        del _registered[plugin.name]


def find(name: str) -> Plugin:
    """The plugin called *name*.  Raises LookupError with the names that there are."""
    known = plugins()
    if name not in known:
        raise LookupError(f"no plugin is called {name!r}; there are {', '.join(known)}")
    return known[name]


Stack = tuple[Plugin, ...]


def stacks(among: Iterable[Plugin] | None = None) -> list[Stack]:
    """Every stack, top first, that the plugins (*among* them) can form."""
    return list(_stacks(tuple(plugins().values() if among is None else among)))


@lru_cache(maxsize=64)
def _stacks(among: tuple[Plugin, ...]) -> tuple[Stack, ...]:
    chosen = {plugin.name: plugin for plugin in among}

    def standing_on(name: str, above: Stack) -> list[Stack]:
        plugin = chosen.get(name)
        if plugin is None or plugin in above:
            return []
        stack = (*above, plugin)
        if not plugin.over:
            return [stack]
        lowers = [
            lower
            for lower, below in chosen.items()
            if lower in plugin.over or (below.stream and STREAMS in plugin.over)
        ]
        return [found for lower in lowers for found in standing_on(lower, stack)]

    return tuple(stack for name in chosen for stack in standing_on(name, ()))


@lru_cache(maxsize=256)
def stack_name(stack: Stack) -> str:
    """A stack as it is written: ``tls/tcp``."""
    return "/".join(plugin.name for plugin in stack)


def secured(stack: Stack) -> bool:
    """Whether *stack* adds security."""
    return any(plugin.secure for plugin in stack)


def service_protocol(stack: Stack) -> str:
    """What services over *stack* are registered for, ``"tcp"`` or ``"udp"``."""
    bottom = stack[-1]
    return bottom.service_protocol or ("tcp" if bottom.stream else "udp")


def duplicates(stack: Stack) -> bool:
    """Whether a Message may arrive twice over *stack*."""
    return any(plugin.duplicates for plugin in stack)


def has(stack: Stack, name: str) -> bool:
    """Whether a Connection over *stack* has the feature of the Selection Property *name*, for
    certain (RFC 9622 section 6.2: what it reads as after establishment)."""
    return offer(stack, name) is ALWAYS


def offer(stack: Stack, name: str) -> Offer:
    """What *stack* offers for the Selection Property *name*: the topmost plugin that says."""
    for plugin in stack:
        if name in plugin.offers:
            return plugin.offers[name]
    return NEVER


def lacks(stack: Stack, name: str, *, server_side: bool) -> bool:
    """Whether *stack* has not got the Selection Property *name*, or this machine, as it is set up
    now, keeps it from that."""
    for plugin in stack:
        if name in plugin.offers:
            never = plugin.offers[name] is NEVER
            return never or plugin.lacks(name, server_side=server_side)
    return True


def measure(stack: Stack, transport: Any) -> Measure | None:
    """What the plugins of *stack* know of the path of *transport*: the topmost that does."""
    for plugin in stack:
        found = plugin.measure(transport)
        if found is not None:
            return found
    return None
