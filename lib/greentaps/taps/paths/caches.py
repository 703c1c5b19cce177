"""All that is remembered from one connection for the next, and how to forget it (RFC 9623
section 9)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from ...engines.sessions import SessionCache
from .history import default_history
from .survey import forget_survey

__all__ = ["flush_caches", "register_cache"]

_flushes: list[Callable[[], object]] = []


def register_cache(flush: Callable[[], object]) -> None:
    """Have `flush_caches` call *flush* too.  For caches of plugins and of name resolution."""
    if not callable(flush):
        raise TypeError(f"a function is needed, not {flush!r}")
    if flush not in _flushes:
        _flushes.append(flush)


def flush_caches() -> None:
    """Forget everything that earlier connections have left: TLS sessions, the default `History`
    with its file, and what plugins keep.

    Connections that are open stay as they are, and the sessions that they have under way are not
    used by others.  Not a switchpoint.  Raises OSError if the file of the History cannot be
    written; all else is forgotten then too.
    """
    with ExitStack() as last_first:  # and each, whatever the others raise
        last_first.callback(default_history().flush)
        for flush in _flushes:
            last_first.callback(flush)
        SessionCache.clear_all()
        forget_survey()
