"""The ground: one pyuv loop inside each gevent hub, and the only place where a greenlet parks.

Everything above this file is either a callback (which never switches) or blocking-looking code
(which switches only through `Parked`).  This file joins the two worlds by five rules, each of
which was paid for by a hang or a corrupted connection when it was missing:

1. *The uv loop runs inside gevent's.*  An io watcher on uv's backend descriptor, active exactly
   while uv has something alive, calls ``loop.run(UV_RUN_NOWAIT)``.  That it is inactive
   otherwise keeps gevent's "this operation would block forever" detection right.
2. *Whoever arms something kicks.*  libuv tells the kernel about a new handle only when its loop
   runs the next time, so `Runner.kick` schedules a run.  At most one is pending; it is needed
   from a greenlet and from inside a callback alike.
3. *Callbacks never switch.*  libuv keeps live structures on the C stack of the hub greenlet
   while it dispatches; a switch there swaps that stack away and has been seen to deliver a stale
   event to a reused descriptor.  Callbacks append to a ready list, and the runner switches to the
   ready greenlets when ``loop.run`` has returned.
4. *An exception in a callback is nobody else's.*  It is collected, and reported through
   ``hub.handle_error`` after the run, so that KeyboardInterrupt and SystemExit reach the main
   greenlet and all other errors are printed, while the remaining callbacks are served.
5. *What is open is owned.*  Owners of handles are registered here until their close callback has
   run: that keeps the handles alive, and lets a destroyed hub or a forked child end them all.

Only this file and ``testing.py`` import gevent.  Timers are gevent's, not uv's.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from functools import wraps
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, Protocol, TypeVar

import gevent
import gevent.socket
import greenlet
import pyuv
from gevent import Timeout as _GeventTimeout
from gevent import get_hub, getcurrent
from gevent.exceptions import InvalidSwitchError
from gevent.monkey import get_original

from .errors import ResolutionError, SwitchpointError, Timeout, TransportError

__all__ = [
    "Bell",
    "Deadline",
    "Owner",
    "Parked",
    "ParkedAgain",
    "PlainSocket",
    "Runner",
    "ThreadLocal",
    "current_greenlet",
    "get_ident",
    "get_loop",
    "get_runner",
    "getaddrinfo",
    "in_callback",
    "marks_switchpoint",
    "now",
    "open_socket",
    "resolve",
    "signals_wake",
    "sleep",
    "spawn",
    "switchpoint",
    "time_limit",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

now = time.monotonic
current_greenlet = getcurrent
sleep = gevent.sleep

# A program may have patched the standard library (``gevent.monkey``).  In here a thread is a thread
# and not a greenlet, and no call that looks harmless switches.
get_ident = get_original("_thread", "get_ident")
_epoll = get_original("select", "epoll")
_socketpair = get_original("socket", "socketpair")
if TYPE_CHECKING:
    from socket import getaddrinfo
    from socket import socket as PlainSocket  # noqa: N812
    from threading import local as ThreadLocal  # noqa: N812
else:
    getaddrinfo = get_original("socket", "getaddrinfo")
    PlainSocket = get_original("socket", "socket")
    ThreadLocal = get_original("_thread", "_local")

# What ``hub.switch()`` is when the caller is not the hub, which `Parked` has made sure of.
_switch = greenlet.greenlet.switch
_NOWAIT = pyuv.UV_RUN_NOWAIT
# Since libuv 1.43 a loop says through its timeout that handles wait to be told to the kernel.
_TIMEOUT_SHOWS_NEW_HANDLES = tuple(map(int, pyuv.LIBUV_VERSION.split("-")[0].split("."))) >= (
    1,
    43,
)
# Where gevent's loop has no prepare watchers (its libuv), how often raw handles are looked for.
_RAW_POLL_SECONDS = 0.02
_CALLBACK = "a callback"  # what gevent is told has failed
_LONGEST = 1e9  # seconds that a timer runs at most: 31 years


class Owner(Protocol):
    """What `Runner.adopt` keeps: something with open handles."""

    def hub_lost(self, error: BaseException) -> None:
        """The loop ends, or this is a forked child: close every handle now, without touching
        what the handles share with others (no shutdown, no reset, no unlink), and make no
        callback (see `Runner.call_when_drained`)."""


class Runner:
    """The uv loop of one gevent hub, and what runs it.  Get it with `get_runner`."""

    _all: ClassVar[weakref.WeakSet[Runner]] = weakref.WeakSet()

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.loop: Any = pyuv.Loop()
        self.loop.excepthook = self._collect
        self.closed = False
        self._thread = get_ident()
        self._ending = False
        self._watcher = hub.loop.io(self.loop.fileno(), 1)
        self._watching = False
        self._kicked = False
        self._running = False
        self._resume_scheduled = False
        self.resuming = False
        """Whether the hub has switched to a greenlet in here and waits for it: then this thread is
        in no callback, whoever asks."""
        self._ready: list[Parked[Any]] = []
        self._failures: list[BaseException] = []
        self._owners: set[Owner] = set()
        self._closing: set[Any] = set()
        self._raw: list[Any] = []  # watchers, while raw handles are looked after
        self._nudge: Any = None  # of them, the one that keeps gevent from waiting
        self._raw_timer: Any = None
        self._raw_at = inf
        hub.destroy = self._destroy = _destroying(hub.destroy, weakref.ref(self))
        Runner._all.add(self)

    # -- Running uv --

    def kick(self) -> None:
        """Run the uv loop soon: to be called after each call that arms something new."""
        if not self._kicked:
            if get_ident() != self._thread:
                raise _other_thread_error()
            # In this order a CTRL-C between the two costs one run, and not every later one.
            self.hub.loop.run_callback(self._run)
            self._kicked = True

    def _run(self, from_watcher: bool = False) -> None:
        if self._running or self.closed:
            return
        self._kicked = False
        self._running = True
        try:
            self.loop.run(_NOWAIT)
        except BaseException as error:  # a CTRL-C that no callback got
            self._failures.append(error)
        finally:
            self._running = False
        alive = self.loop.alive
        if alive is not self._watching:
            self._watch(alive)
        if self._raw:
            self._after_run(from_watcher)
        if self._failures:
            self._report_failures()
        if self._ready:
            self._resume()

    def _watch(self, on: bool) -> None:
        self._watching = on
        if on:
            self._watcher.start(self._run, True)
        else:
            self._watcher.stop()

    # -- Waking greenlets --

    # `Parked` appends itself to `_ready`; inside a run `_run` sees to it, else this does.

    def _schedule_resume(self) -> None:
        self._resume_scheduled = True
        self.hub.loop.run_callback(self._resume)

    def _resume(self) -> None:
        self._resume_scheduled = False
        ready = iter(self._ready)
        self._ready = []
        self.resuming = True
        try:
            for parked in ready:
                greenlet = parked.greenlet
                if greenlet is not None:
                    try:
                        _switch(greenlet, parked)
                    except BaseException as error:  # a raw greenlet died of it: we are its parent
                        self.resuming = False
                        self.report(greenlet, error)
                        self.resuming = True
        finally:
            self.resuming = False
            self._ready[:0] = ready  # nobody, unless a CTRL-C came in between
            if self._ready and not self._resume_scheduled:
                self._schedule_resume()

    # -- Services for callbacks --

    def call_soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function(*args)`` from the hub, in a later turn.  It must not switch."""
        self.hub.loop.run_callback(function, *args)

    def call_later(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        """Call ``function(*args)`` from the hub in *seconds*; the answer's ``close()`` cancels."""
        timer = self.hub.loop.timer(_seconds(seconds))
        timer.start(function, *args)
        return timer

    def when_readable(self, descriptor: int, function: Callable[[], Any]) -> Any:
        """Call ``function()`` from the hub whenever *descriptor* can be read, until the answer's
        ``close()``.  It must not switch."""
        watcher = self.hub.loop.io(descriptor, 1)
        watcher.start(function)
        return watcher

    def when_writable(self, descriptor: int, function: Callable[[], Any]) -> Any:
        """As `when_readable`, whenever *descriptor* can be written to."""
        watcher = self.hub.loop.io(descriptor, 2)
        watcher.start(function)
        return watcher

    def adopt(self, owner: Owner) -> None:
        """Keep *owner* alive, and tell it when the loop goes, until `release`."""
        if self.closed or self._ending:
            raise TransportError("the hub of this transport has been destroyed")
        self._owners.add(owner)

    def discard(self, handle: Any) -> None:
        """Close *handle*, which nobody owns any more, and keep it until it is closed."""
        if not handle.closed:
            self._closing.add(handle)
            handle.close(self._closing.discard)
            self.kick()

    def call_when_drained(self, function: Callable[[], Any]) -> None:
        """For `Owner.hub_lost`, where no callback may be made: call *function* as if it were a
        handle's close callback."""
        handle = pyuv.Idle(self.loop)
        self._closing.add(handle)

        def closed(handle: Any) -> None:
            self._closing.discard(handle)
            function()

        handle.close(closed)

    def release(self, owner: Owner) -> None:
        """Forget *owner*: all of its handles are closed."""
        self._owners.discard(owner)

    @property
    def owners(self) -> frozenset[Owner]:
        """Whatever is open on this loop: transports, listeners, attempts to connect."""
        return frozenset(self._owners)

    def collect(self, error: BaseException) -> None:
        """Report *error* as soon as no callback is on the stack."""
        if self._running:
            self._failures.append(error)
        else:
            self.report(_CALLBACK, error)

    def report(self, context: Any, error: BaseException) -> None:
        """Hand *error* to gevent's ``hub.handle_error``, which prints it, and throws
        KeyboardInterrupt and the like into the main greenlet.  *context*, what has failed, is
        printed with it; with None gevent would throw every error there.  May switch: for code
        outside of uv callbacks."""
        self.hub.handle_error(context, type(error), error, error.__traceback__)

    def _collect(self, kind: Any, value: BaseException, traceback: Any) -> None:
        if value is None:
            value = kind()
        self._failures.append(value.with_traceback(traceback))

    def _report_failures(self) -> None:
        while self._failures:
            self.report(_CALLBACK, self._failures.pop(0))

    # -- Handles that an application starts on the loop by itself --

    def serve_raw_handles(self) -> None:
        """From now on look after handles that are armed without a kick.

        Where gevent's loop is libev this is one callback before each wait, and a uv run only if
        something new is there; on gevent's libuv it is a kick now and a coarse timer.
        """
        self.kick()
        if self._raw:
            return
        loop = self.hub.loop
        try:
            # gevent's own prepare watcher runs the greenlets of this turn.  libev runs those of
            # one priority last-in-first-out, so only a lower one comes after it.
            before = loop.prepare(priority=-1)
        except TypeError:
            before = loop.timer(_RAW_POLL_SECONDS, _RAW_POLL_SECONDS, ref=False)
        # uv's timers count from uv's idea of the time, which stands still while uv does not run.
        after = loop.check()
        for watcher in (before, after):
            # Neither must keep the program alive or hide a deadlock.
            with contextlib.suppress(AttributeError, NotImplementedError, ValueError):
                watcher.ref = False
        self._nudge = loop.timer(0)
        self._raw = [before, after, self._nudge]
        before.start(self._before_wait)
        after.start(self.loop.update_time)

    def _before_wait(self) -> None:
        loop = self.loop
        if not loop.alive:
            return
        if _TIMEOUT_SHOWS_NEW_HANDLES:
            timeout = loop.get_timeout()
            if timeout:
                self._wake_in(timeout)
                return
        self._run()
        if self.hub.loop._callbacks:
            # Called by what ran just now.  gevent has had its turn: it must not wait.
            self._nudge.start(_nothing)

    def _after_run(self, from_watcher: bool) -> None:
        timeout = self.loop.get_timeout() if self.loop.alive else -1
        if timeout == 0 or from_watcher:
            self.kick()
        self._wake_in(timeout)

    def _wake_in(self, seconds: float) -> None:
        """Have uv run when its next timer is due; a negative number says that it has none."""
        at = now() + seconds if seconds > 0 else inf
        if self._raw_timer is not None:
            if abs(at - self._raw_at) < 0.001:  # seconds; uv counts whole milliseconds
                return
            self._raw_timer.close()
            self._raw_timer = None
        self._raw_at = at
        if seconds > 0:
            self._raw_timer = self.call_later(seconds, self._raw_timer_fired)

    def _raw_timer_fired(self) -> None:
        self._raw_timer.close()
        self._raw_timer = None
        self.loop.update_time()
        self._run()

    # -- The end --

    def let_go(self) -> None:
        """`close`, and give the greenlets that this wakes one turn each to hear of it."""
        if self.closed:
            return
        self.close()
        if getcurrent() is not self.hub and not self.hub.dead:
            with contextlib.suppress(BaseException):
                gevent.sleep(0)
                gevent.sleep(0)

    def close(self) -> None:
        """Close every handle on the loop and give its descriptors back.

        Transports are lost with a `TransportError`, and their waiters wake with it.  Called by
        itself when the hub is destroyed; harmless to repeat.
        """
        if self.closed or self._running:
            return
        self._kicked = self._ending = True  # no kick has an effect from now on
        self._stop_watchers()
        self._lose_owners(TransportError("the hub of this transport has been destroyed"))
        self._drain_loop()
        self.closed = True
        self.loop.excepthook = None
        self.loop = None  # the last reference: its descriptors are closed here
        self._failures.clear()
        if self.hub.__dict__.get("destroy") is self._destroy:
            del self.hub.destroy
        if self._ready:  # woken while a run was under way
            self._resume_scheduled = True
            self.hub.loop.run_callback(self._resume)

    def _stop_watchers(self) -> None:
        for watcher in (self._watcher, self._raw_timer, *self._raw):
            if watcher is not None:
                watcher.close()
        self._raw.clear()
        self._raw_timer = None
        self._watching = False

    def _lose_owners(self, error: BaseException) -> None:
        for owner in tuple(self._owners):
            owner.hub_lost(error)

    def _drain_loop(self) -> None:
        self._running = True
        try:
            alive = True
            while alive:
                for handle in self.loop.handles:  # also what a callback opens meanwhile
                    if not handle.closed:
                        handle.close()
                alive = self.loop.run(_NOWAIT)
        finally:
            self._running = False
        self._owners.clear()

    # -- In a forked child --

    def forked(self) -> None:
        """We are the child now.  Let go of all that is the parent's, at once; make no callback.

        The descriptors are closed here: a connection that the parent ends must end, although the
        child does nothing more than to call exec.  Protocols hear of it only if the child goes
        on to run its hub.
        """
        self._detach()
        if self._thread != get_ident():
            self._blank_out()
            return
        for watcher in (self._raw_timer, *self._raw):
            if watcher is not None:
                watcher.close()
        self._raw.clear()
        self._raw_timer = None
        self._lose_owners(TransportError("the transport belongs to the parent process"))
        for handle in self.loop.handles:
            if not handle.closed:
                handle.close()
        self.call_soon(self._finish_in_child)

    def _detach(self) -> None:
        """Leave the epoll set that is shared with the parent: it would go deaf if we closed a
        handle before."""
        fresh = _epoll()
        os.dup2(fresh.fileno(), self.loop.fileno(), inheritable=False)
        fresh.close()

    def _blank_out(self) -> None:
        """The loop of a thread that does not exist here, in whatever state the fork caught it:
        put something harmless in the place of its descriptors, and never touch it again."""
        self.closed = self._kicked = True
        _abandoned.append(self)
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for handle in self.loop.handles:
            with contextlib.suppress(AttributeError, OSError, pyuv.error.UVError):
                os.dup2(nowhere, handle.fileno(), inheritable=False)
        os.close(nowhere)

    def _finish_in_child(self) -> None:
        if self.closed:
            return
        self._run()
        if self.loop.alive:
            self.call_soon(self._finish_in_child)
        else:
            self.close()


# Loops of the parent's other threads.  Without a reference they would be torn down.
_abandoned: list[Runner] = []


def _nothing() -> None:
    pass


def _seconds(seconds: float) -> float:
    """*seconds* as gevent's timers want them: where its loop is libuv it warns of less than one
    millisecond, other than zero, and cannot count to infinity."""
    return min(seconds, _LONGEST) if seconds >= 0.001 else 0.001 if seconds > 0 else 0.0


def _other_thread_error() -> SwitchpointError:
    return SwitchpointError("this object belongs to another thread's hub")


def _destroying(destroy: Callable[..., Any], runner: weakref.ref[Runner]) -> Callable[..., Any]:
    """gevent's ``hub.destroy``, after our own end.  It must not hold the runner: gevent keeps
    the frame that called it alive for as long as the thread."""

    def destroy_hub(*args: Any, **kwargs: Any) -> Any:
        ours = runner()
        if ours is not None:
            ours.let_go()
            del ours
        return destroy(*args, **kwargs)

    return destroy_hub


class _Local(ThreadLocal):
    runner: Runner | None = None


_local = _Local()


def get_runner() -> Runner:
    """The `Runner` of the current thread's gevent hub; made on first use."""
    hub = get_hub()
    runner = _local.runner
    if runner is None or runner.hub is not hub or runner.closed:
        if runner is not None:
            runner.close()
        runner = _local.runner = Runner(hub)
    return runner


def get_loop() -> Any:
    """Return the pyuv.Loop that runs inside the current thread's gevent hub.

    For handles of your own.  They are served from then on without further ado; callbacks run
    in the hub, so they must not call a switchpoint.  Not a switchpoint itself.
    """
    runner = get_runner()
    runner.serve_raw_handles()
    runner.loop.update_time()
    return runner.loop


def _after_fork_in_child() -> None:
    for runner in list(Runner._all):
        if not runner.closed:
            runner.forked()
    _local.runner = None


os.register_at_fork(after_in_child=_after_fork_in_child)


# -- Parking --


class Parked(Generic[T]):
    """One greenlet's wait for one result: what every blocking call here is made of.

    The waiting side calls `wait`, once; the other side calls `finish` or `fail`, and the first
    call counts.  Both answer whether anybody takes the result: False means that the waiter has
    gone (timeout, kill) and the result is still the caller's to keep.

    If `wait` is broken off by an exception thrown into the greenlet (``gevent.Timeout``,
    ``kill``) at the moment a result was already on its way, `done` is True and `result` holds it,
    for the waiting side to put back.
    """

    __slots__ = ("_error", "_runner", "_waited", "done", "greenlet", "result")

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._error: BaseException | None = None
        self._waited = False
        self.greenlet: Any = None
        self.done = False
        self.result: T | None = None

    def finish(self, result: T) -> bool:
        """Wake the waiter with *result*.  Never switches."""
        if self.done or self._waited:
            return False
        self.done = True
        self.result = result
        if self.greenlet is not None:
            runner = self._runner
            runner._ready.append(self)
            if not runner._running and not runner._resume_scheduled:
                runner._schedule_resume()
        return True

    def fail(self, error: BaseException) -> bool:
        """Wake the waiter with an exception.  Never switches."""
        if self.done or self._waited:
            return False
        self.done = True
        self._error = error
        if self.greenlet is not None:
            runner = self._runner
            runner._ready.append(self)
            if not runner._running and not runner._resume_scheduled:
                runner._schedule_resume()
        return True

    def wait(self, timeout: float | None = None) -> T:
        """Park until there is a result, and return it.  A switchpoint.

        *timeout* is in seconds, None for ever.  Raises what `fail` was given, `Timeout` when
        the time is over, `SwitchpointError` in a callback, `TransportError` if the hub is gone.
        """
        if not self.done:
            runner = self._runner
            hub = runner.hub
            current = getcurrent()
            if current is hub or runner.closed or get_ident() != runner._thread:
                raise _cannot_park(runner)
            timer = None if timeout is None else runner.call_later(timeout, self._expire)
            self.greenlet = current
            try:
                if _switch(hub) is not self:
                    raise InvalidSwitchError("a parked greenlet was switched to by a stranger")
            finally:
                self._waited = True
                self.greenlet = None
                if timer is not None:
                    timer.close()
        if self._error is not None:
            raise self._error
        return self.result  # type: ignore[return-value]

    def _expire(self) -> None:
        self.fail(Timeout("timed out"))


class ParkedAgain(Parked[T]):
    """A `Parked` that is new again when `wait` has returned: for whoever waits once for each
    piece of data.  After `wait` has raised it is done for, like any other."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> T:
        """As `Parked.wait`."""
        if not self.done:
            runner = self._runner
            hub = runner.hub
            current = getcurrent()
            if current is hub or runner.closed or get_ident() != runner._thread:
                raise _cannot_park(runner)
            timer = None if timeout is None else runner.call_later(timeout, self._expire)
            self.greenlet = current
            try:
                if _switch(hub) is not self:
                    raise InvalidSwitchError("a parked greenlet was switched to by a stranger")
            except BaseException:
                self._waited = True
                raise
            finally:
                self.greenlet = None
                if timer is not None:
                    timer.close()
        if self._error is not None:
            self._waited = True
            raise self._error
        result: Any = self.result
        self.result = None
        self.done = False
        return result  # type: ignore[no-any-return]


# -- Switchpoints --

_switchpoints: dict[Any, str] = {}


def in_callback() -> bool:
    """Whether we are inside a callback, where nothing may switch."""
    return getcurrent() is get_hub()


def marks_switchpoint(function: Callable[P, R]) -> Callable[P, R]:
    """Mark *function* as a switchpoint without wrapping it: for the hottest calls, whose body
    makes sure itself that it is not in a callback."""
    function.__switchpoint__ = True  # type: ignore[attr-defined]
    _switchpoints[function.__code__] = function.__qualname__
    return function


def switchpoint(function: Callable[P, R]) -> Callable[P, R]:
    """Mark *function* as one that may switch to another greenlet before it returns.

    Calling it inside a callback raises `SwitchpointError` with its name, always, and not only
    when it would have had to wait.  The docstring gains a line that says so.
    """

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if getcurrent() is get_hub():
            raise SwitchpointError(
                f"{function.__qualname__}() is a switchpoint: it cannot be called in a callback"
            )
        return function(*args, **kwargs)

    _switchpoints[function.__code__] = function.__qualname__
    checked.__switchpoint__ = True  # type: ignore[attr-defined]
    checked.__doc__ = (inspect.getdoc(function) or "") + "\n\nThis function is a switchpoint."
    return checked


def _cannot_park(runner: Runner) -> Exception:
    """Why this greenlet cannot wait for what belongs to *runner*."""
    if getcurrent() is runner.hub:
        return _in_callback_error()
    if runner.closed:
        return TransportError("the hub of this transport has been destroyed")
    return _other_thread_error()


def _in_callback_error() -> SwitchpointError:
    frame: Any = sys._getframe(1)
    name = None
    while frame is not None:
        name = _switchpoints.get(frame.f_code, name)
        frame = frame.f_back
    what = f"{name}()" if name else "a blocking call"
    return SwitchpointError(f"{what} is a switchpoint: it cannot be called in a callback")


# -- Time --


class Deadline:
    """One span of time that several waits share.  *timeout* is in seconds, None for no end."""

    __slots__ = ("at",)

    def __init__(self, timeout: float | None) -> None:
        self.at = None if timeout is None else now() + check_timeout(timeout)

    def left(self) -> float | None:
        """Seconds that are left, never negative; None for no end."""
        return None if self.at is None else max(self.at - now(), 0.0)

    def end(self) -> None:
        """The time is over: a timer has said so, which may be a little early."""
        self.at = now()

    def passed(self) -> bool:
        """Whether the time is over."""
        return self.at is not None and now() >= self.at


class Bell:
    """What one greenlet waits for, again and again: that somebody rings, or that it is time."""

    __slots__ = ("_parked", "_rung")

    def __init__(self) -> None:
        self._parked: Parked[None] | None = None
        self._rung = False

    def ring(self) -> None:
        """There is news: wake who waits, or whoever waits next.  Never switches."""
        self._rung = True
        if self._parked is not None:
            self._parked.finish(None)

    def wait(self, deadline: Deadline, wake_at: float | None = None) -> None:
        """Park until somebody has rung since the last call has returned, but not beyond the
        *deadline*, nor the moment *wake_at*.  A switchpoint."""
        if not self._rung:
            limits = [] if wake_at is None else [max(wake_at - now(), 0.0)]
            left = deadline.left()
            if left is not None:
                limits.append(left)
            self._parked = Parked(get_runner())
            try:
                self._parked.wait(min(limits, default=None))
            except Timeout:
                pass
            finally:
                self._parked = None
        self._rung = False


def check_timeout(timeout: float) -> float:
    """*timeout*, if it is a number of seconds from zero on; else TypeError or ValueError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout must not be negative: {timeout!r}")
    if timeout > sys.float_info.max and timeout != inf:
        raise ValueError("timeout is too large")
    return timeout


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Break off the body, wherever it waits, after *seconds*: it raises `Timeout`."""
    limit = _GeventTimeout(None if seconds is None else _seconds(seconds))
    with limit:
        try:
            yield
        except _GeventTimeout as caught:
            if caught is not limit:
                raise
            raise Timeout("timed out") from None


# -- gevent's services, for the files above --


class _Greenlet(gevent.Greenlet):  # type: ignore[type-arg]
    """One that does not note where it was spawned: it always was in here, and from a callback that
    note costs as much as the rest of it."""

    spawning_stack_limit = 0


def spawn(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Start a greenlet that runs ``function(*args, **kwargs)``; returns the gevent.Greenlet."""
    return _Greenlet.spawn(function, *args, **kwargs)


def resolve(
    host: str | bytes | None,
    port: int | str | None,
    *,
    family: int = 0,
    kind: int = 0,
    protocol: int = 0,
    flags: int = 0,
) -> list[tuple[Any, ...]]:
    """gevent's cooperative ``getaddrinfo``.  A switchpoint; limit it with `time_limit`.

    Raises `ResolutionError`.
    """
    try:
        if isinstance(host, str):
            host.encode("idna")  # as getaddrinfo will: a failure there is printed by its thread
        found: list[tuple[Any, ...]] = gevent.socket.getaddrinfo(
            host, port, family, kind, protocol, flags
        )
        return found
    except (OSError, UnicodeError, OverflowError) as error:
        raise resolution_error(host, port, error) from error


def open_socket(family: int, kind: int) -> Any:
    """A socket of gevent's, whose calls park the greenlet: for short exchanges that need none of a
    transport's services.  Limit it with `time_limit`, and close it."""
    return gevent.socket.socket(family, kind)


def resolution_error(host: Any, port: Any, error: Exception) -> ResolutionError:
    """The `ResolutionError` for a failed look-up of *host* and *port*."""
    text = error.args[-1] if error.args else str(error)
    what = repr(host) if port is None else f"{host!r}, {port!r}"
    number = error.errno if isinstance(error, OSError) else None
    from_resolver = isinstance(error, gevent.socket.gaierror)  # else the system's, as EMFILE
    made = ResolutionError(
        f"cannot resolve {what}: {text}", None if from_resolver else number, (host, port)
    )
    made.code = number if from_resolver else None
    return made


def describe_loop() -> list[tuple[str, str]]:
    """What the ground is made of, as (name, text) pairs: for ``greentaps info``."""
    hub_loop = type(get_hub().loop)
    try:
        import _pyuv_build

        libuv = f"{_pyuv_build.LIBUV} libuv {_pyuv_build.LIBUV_VERSION}"
    except ImportError:  # a pyuv that others have built
        libuv = f"libuv {pyuv.LIBUV_VERSION}"
    return [
        ("gevent", f"{gevent.__version__}, loop {hub_loop.__module__}"),
        ("pyuv", f"{pyuv.__version__}, {libuv}"),
    ]


def wait_until_idle() -> None:
    """Let the hub run until nothing is left that could wake anybody: no handle, no timer, no
    greenlet that may still run.  A switchpoint."""
    with signals_wake():
        gevent.wait()


@contextlib.contextmanager
def signals_wake() -> Iterator[None]:
    """For what runs as long as the program does: let each signal wake the hub.

    Python runs a signal's handler when it runs anything.  One that comes just before the hub begins
    to wait, or in another thread, would not be noticed before the next event: a CTRL-C would be
    lost.  Does nothing outside of the main thread, and where another library sees to it, as does
    gevent's libuv.
    """
    loop = get_hub().loop
    if "libuv" in type(loop).__module__:
        yield
        return
    near, far = _socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        if not _wakes(far):
            yield
            return
        watcher = loop.io(near.fileno(), 1, ref=False)
        watcher.start(_drain, near)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            watcher.stop()
            watcher.close()


def _wakes(far: PlainSocket) -> bool:
    try:
        previous = signal.set_wakeup_fd(far.fileno(), warn_on_full_buffer=False)
    except ValueError:  # this is not the main thread
        return False
    if previous != -1:
        signal.set_wakeup_fd(previous)
    return previous == -1


def _drain(near: PlainSocket) -> None:
    with contextlib.suppress(BlockingIOError):
        near.recv(4096)
