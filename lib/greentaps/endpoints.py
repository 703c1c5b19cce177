"""Making transport/protocol pairs, and the `Client` and `Server` that keep them.

`create_connection` and `create_server` are the functions; `Client` and `Server` are the same with
state.  All blocking here is in the functions marked as switchpoints; one `timeout` covers name
resolution, every address that is tried, and the TLS handshake together.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from itertools import product
from typing import Any

import pyuv

from .engines import is_context
from .errors import Timeout, TransportError
from .hub import (
    Deadline,
    Parked,
    check_timeout,
    current_greenlet,
    get_runner,
    signals_wake,
    switchpoint,
)
from .transports.base import CLOSE_TIMEOUT, BaseTransport
from .transports.handles import (
    check_address,
    connect_pipe,
    connect_tcp,
    from_descriptor,
    listen_pipe,
    listen_tcp,
    resolve_stream,
)
from .transports.listening import Listening
from .transports.ssl import HANDSHAKE_TIMEOUT, SslTransport, choose_context
from .transports.stream import MODES, Transport

__all__ = ["Client", "Endpoint", "Server", "create_connection", "create_server"]

_UVError = pyuv.error.UVError


@switchpoint
def create_connection(
    protocol_factory: Callable[[], Any],
    address: Any,
    ssl: Any = False,
    server_hostname: str | None = None,
    local_address: tuple[Any, ...] | None = None,
    family: int = 0,
    flags: int = 0,
    ipc: bool = False,
    timeout: float | None = None,
    mode: str = "rw",
    *,
    do_handshake_on_connect: bool = True,
    close_on_unwrap: bool = True,
) -> tuple[Any, Any]:
    """Create a new client connection and return it as a ``(transport, protocol)`` tuple.

    *protocol_factory* is called without arguments once there is a connection.  *address* is

    - a str or bytes: the path of a Unix socket (abstract if it begins with a NUL);
    - a ``(host, port)`` tuple: a TCP service, by name or number; its addresses are tried in turn;
    - a connected pyuv.Stream; or
    - an int: a file descriptor, adopted and not duplicated.  A terminal needs mode "r" or "w", and
      is opened anew, so that its descriptor remains yours.

    *ssl* is False, True (the default context: verifying), an ssl.SSLContext, an
    OpenSSL.SSL.Context, or a function that is called with the handle and returns a context.
    *server_hostname* is the name to ask for and to verify; by default the host of *address*.
    *local_address* is a ``(host, port)`` to bind to, for TCP.  *family* and *flags* are those of
    ``getaddrinfo``.  *ipc* makes a Pipe that can carry handles.  *mode* is "r", "w" or "rw".
    *timeout* (seconds) is one deadline over everything; for the last two arguments see
    `SslTransport`.

    Raises TransportError (with the fitting OSError class) when there is no connection in time:
    ResolutionError, TlsError and CertificateError are among them.  TypeError and ValueError are
    for wrong arguments.  What *protocol_factory* and ``connection_made`` raise is raised from
    here.  Whatever is raised, nothing is left open, except that an *address* that could not be
    adopted remains yours.
    """
    deadline = Deadline(timeout)
    _check_callable(protocol_factory)
    _check_mode(mode, ssl)
    _check_ssl(ssl)
    if local_address is not None:
        if not isinstance(address, tuple):
            raise ValueError("local_address is for TCP: address must be a (host, port) tuple")
        check_address(local_address)
    handle, hostname, mode = _open(address, local_address, family, flags, ipc, mode, deadline)
    if not ssl:
        return _finish_plain(protocol_factory, handle, server_hostname or hostname, mode, timeout)
    return _finish_tls(
        protocol_factory,
        handle,
        ssl,
        server_hostname or hostname,
        deadline,
        timeout,
        do_handshake_on_connect,
        close_on_unwrap,
    )


def _open(
    address: Any,
    local_address: tuple[Any, ...] | None,
    family: int,
    flags: int,
    ipc: bool,
    mode: str,
    deadline: Deadline,
) -> tuple[Any, str | None, str]:
    """A connected handle, the host name that it belongs to, and the mode it can be used in."""
    if isinstance(address, str | bytes):
        return connect_pipe(address, deadline, ipc=ipc), None, mode
    if isinstance(address, tuple):
        handle = _connect_any(address, local_address, family, flags, deadline)
        host = address[0]
        return handle, host.decode() if isinstance(host, bytes) else host, mode
    if isinstance(address, int) and not isinstance(address, bool):
        handle, mode = from_descriptor(address, mode, ipc=ipc)
        return handle, None, mode
    if isinstance(address, pyuv.Stream):
        _check_connected(address)
        return address, None, mode
    raise TypeError(
        "address must be a path (str), a (host, port) tuple, a file descriptor (int) or a "
        f"pyuv.Stream, not {address!r}"
    )


def _connect_any(
    address: tuple[Any, ...],
    local_address: tuple[Any, ...] | None,
    family: int,
    flags: int,
    deadline: Deadline,
) -> Any:
    remotes = resolve_stream(address, family, flags, deadline)
    locals_ = [None]
    if local_address is not None:
        locals_ = resolve_stream(local_address, family, flags, deadline)  # type: ignore[assignment]
    failures: list[TransportError] = []
    for remote, local in product(remotes, locals_):
        if local is not None and (":" in local[0]) != (":" in remote[0]):
            continue
        try:
            return connect_tcp(remote, deadline, local=local)
        except TransportError as error:
            failures.append(error)
        if deadline.passed():
            break
    if not failures:
        raise TransportError(
            "no address of the host is of local_address's family", errno.EAFNOSUPPORT, address
        )
    last = failures[-1]
    if len(failures) > 1:
        raise last.again() from ExceptionGroup(f"no address of {address[0]!r} answers", failures)
    raise last


def _finish_plain(
    factory: Callable[[], Any],
    handle: Any,
    hostname: str | None,
    mode: str,
    timeout: float | None,
) -> tuple[Any, Any]:
    transport: BaseTransport | None = None
    try:
        transport = Transport(handle, hostname, mode)
        protocol = factory()
        _lend_timeout(protocol, timeout)
        transport.start(protocol)
    except BaseException as error:
        _drop(transport, handle, error)
        raise
    return transport, protocol


def _finish_tls(
    factory: Callable[[], Any],
    handle: Any,
    ssl: Any,
    hostname: str | None,
    deadline: Deadline,
    timeout: float | None,
    do_handshake_on_connect: bool,
    close_on_unwrap: bool,
) -> tuple[Any, Any]:
    transport: BaseTransport | None = None
    shaken: Parked[BaseException | None] = Parked(get_runner())
    try:
        context = choose_context(ssl, handle, server_side=False)
        if hostname is None and getattr(context, "check_hostname", False):
            # Python's ssl would skip the check in silence.
            raise ValueError("server_hostname is needed: the TLS context checks host names")
        transport = SslTransport(
            handle,
            context,
            False,
            _without_scope(hostname),
            do_handshake_on_connect,
            close_on_unwrap,
            handshake_timeout=HANDSHAKE_TIMEOUT if timeout is None else None,
            on_handshake=shaken.finish if do_handshake_on_connect else None,  # type: ignore[arg-type]
        )
        protocol = factory()
        _lend_timeout(protocol, timeout)
        transport.start(protocol)
        if do_handshake_on_connect:
            try:
                error = shaken.wait(deadline.left())
            except Timeout:
                error = TransportError(
                    "the TLS handshake timed out",
                    errno.ETIMEDOUT,
                    transport.get_extra_info("peername"),
                )
            if error is not None:
                raise error
    except BaseException as error:
        _drop(transport, handle, error)
        raise
    return transport, protocol


def _drop(transport: BaseTransport | None, handle: Any, error: BaseException) -> None:
    """Close what a failed attempt has opened."""
    if transport is None:
        get_runner().discard(handle)
    elif not transport.is_closing():
        transport.abort(error if isinstance(error, Exception) else None)


def _lend_timeout(protocol: Any, timeout: float | None) -> None:
    """Give the protocol our timeout, unless its factory gave it one."""
    if timeout is not None and getattr(protocol, "timeout", None) is None:
        try:
            protocol.timeout = timeout
        except AttributeError:  # a duck-typed protocol need not have it
            pass


def _without_scope(hostname: str | None) -> str | None:
    """A certificate knows nothing of a link-local address's zone."""
    return hostname.partition("%")[0] if hostname else None


def _check_callable(factory: Any) -> None:
    if not callable(factory):
        raise TypeError(f"protocol_factory must be callable, not {factory!r}")


def _check_mode(mode: str, ssl: Any) -> None:
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}: {mode!r}")
    if ssl and mode != "rw":
        raise ValueError("TLS needs both directions: mode must be 'rw'")


def _check_ssl(ssl: Any) -> None:
    if ssl and ssl is not True and not is_context(ssl) and not callable(ssl):
        raise TypeError(f"ssl must be a bool, a TLS context or a callable, not {ssl!r}")


def _check_handle(handle: Any) -> None:
    """Raise unless *handle* is one that can be adopted here."""
    if handle.closed:
        raise TransportError("the handle is closed", errno.EBADF)
    if handle.loop is not get_runner().loop:
        raise ValueError("the handle belongs to another loop than this thread's get_loop()")


def _check_connected(handle: Any) -> None:
    _check_handle(handle)
    try:
        if isinstance(handle, pyuv.TCP):
            handle.getpeername()
        handle.fileno()
    except _UVError as error:
        raise TransportError("the handle is not connected", errno.ENOTCONN, None) from error
    if not handle.readable and not handle.writable:
        raise TransportError("the handle is not connected", errno.ENOTCONN)


# -- Endpoints --


class Endpoint:
    """A communications endpoint: what `Client` and `Server` share.

    *protocol_factory* makes a new protocol for each connection.  *timeout* (seconds or None) is
    the default for the network operations of the endpoint.
    """

    def __init__(self, protocol_factory: Callable[[], Any], timeout: float | None = None) -> None:
        _check_callable(protocol_factory)
        if timeout is not None:
            check_timeout(timeout)
        self._protocol_factory = protocol_factory
        self._timeout = timeout

    @property
    def timeout(self) -> float | None:
        """The network timeout in seconds, or None."""
        return self._timeout

    def close(self) -> None:
        """Close the endpoint."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Client(Endpoint):
    """A client endpoint: one connection at a time.

    >>> with Client(MyProtocol, timeout=10) as client:
    ...     client.connect(("localhost", 7000))
    ...     client.transport.write(b"hello")
    """

    def __init__(self, protocol_factory: Callable[[], Any], timeout: float | None = None) -> None:
        super().__init__(protocol_factory, timeout)
        self._transport: Any = None
        self._protocol: Any = None
        self._connecting: Any = None  # the greenlet that does
        self._breaking_off: Any = None  # the callback that will strike it

    @property
    def transport(self) -> Any:
        """The transport, or None if not connected.  It stays when the peer goes away, until
        `close` or the next `connect`."""
        return self._transport

    @property
    def protocol(self) -> Any:
        """The protocol, or None if not connected."""
        return self._protocol

    @switchpoint
    def connect(self, address: Any, **kwargs: Any) -> None:
        """Connect to *address* and wait for the connection to be established.

        *kwargs* are those of `create_connection`, which also says what is raised; *timeout* is
        the endpoint's by default.  Raises RuntimeError if there is a connection already, and
        TransportError (ECONNABORTED) if another greenlet calls `close` meanwhile.
        """
        if self._connecting is not None or (self._transport and not self._transport.is_closing()):
            raise RuntimeError("the client is connected already: close() it first")
        kwargs.setdefault("timeout", self._timeout)
        self._connecting = current_greenlet()
        try:
            transport, protocol = create_connection(self._protocol_factory, address, **kwargs)
        except _ClosedMeanwhile:
            raise _closed_meanwhile() from None
        finally:
            self._connecting = None
            breaking_off, self._breaking_off = self._breaking_off, None
            if breaking_off is not None:
                breaking_off.stop()
        if breaking_off is not None:  # it came too late to strike
            transport.abort()
            raise _closed_meanwhile()
        self._transport, self._protocol = transport, protocol

    @switchpoint
    def close(self, timeout: float | None = None) -> None:
        """Close the connection: flush, and wait until ``connection_lost`` has been called.

        *timeout* (seconds; by default the endpoint's, or 30) is how long the peer may take;
        then the connection is aborted.  A `connect` under way fails.  Does nothing if there is
        neither.
        """
        if self._connecting is not None and self._breaking_off is None:
            self._breaking_off = get_runner().hub.loop.run_callback(
                self._connecting.throw, _ClosedMeanwhile()
            )
        transport, self._transport, self._protocol = self._transport, None, None
        if transport is not None:
            _close_all([transport], self._timeout if timeout is None else timeout)


class _ClosedMeanwhile(BaseException):
    """Ends a connect, as a kill does: no attempt to the next address is made."""


def _closed_meanwhile() -> TransportError:
    return TransportError("the client was closed meanwhile", errno.ECONNABORTED)


class Server(Endpoint):
    """A server endpoint: any number of addresses, any number of connections.

    Subclasses may override `connection_made`, `connection_lost` and `handle_connection`.  Set
    `max_connections` to close what is over that number right after it was accepted.
    """

    max_connections: int | None = None

    def __init__(self, protocol_factory: Callable[[], Any], timeout: float | None = None) -> None:
        super().__init__(protocol_factory, timeout)
        self._listeners: list[Listening] = []
        self._connections: dict[Any, Any] = {}
        self._waiting: list[Parked[None]] = []  # in `run`
        self._ssl_options: dict[str, Any] = {}

    @property
    def addresses(self) -> list[Any]:
        """The addresses this server is listening on: socket addresses, and paths."""
        return [listening.address for listening in self._listeners]

    @property
    def connections(self) -> Any:
        """The ``(transport, protocol)`` pairs of all connections: a view that can be iterated,
        and has a length."""
        return self._connections.items()

    @switchpoint
    def listen(
        self,
        address: Any,
        ssl: Any = False,
        family: int = 0,
        flags: int = 0,
        ipc: bool = False,
        backlog: int | None = 128,
        *,
        do_handshake_on_connect: bool = True,
        close_on_unwrap: bool = True,
        handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
    ) -> None:
        """Start listening for new connections on *address*; may be called for several.

        *address* is a path (str or bytes), a ``(host, port)`` tuple, of which each resolved
        address that this machine has is listened on (``("", port)`` for all), a bound pyuv.TCP or
        pyuv.Pipe, or the file descriptor of a bound stream socket.  *ssl* as in
        `create_connection`, but True is not enough: a server needs a certificate.  With *ipc*,
        accepted Pipes can carry handles, and their protocols call `accept_connection` for each
        that arrives.  *backlog* is the length of the kernel's queue; None does not listen at all.

        Raises TransportError, with nothing left open, TypeError and ValueError.
        """
        if ssl is True:
            choose_context(ssl, None, server_side=True)
        _check_ssl(ssl)
        if handshake_timeout is not None:
            check_timeout(handshake_timeout)
        if backlog is not None and (not isinstance(backlog, int) or backlog < 0):
            raise ValueError(f"backlog must be a number from 0 on, or None: {backlog!r}")
        options = {
            "do_handshake_on_connect": do_handshake_on_connect,
            "close_on_unwrap": close_on_unwrap,
            "handshake_timeout": handshake_timeout,
        }

        def accepted(client: Any) -> None:
            self._welcome(client, ssl, options)

        made: list[Listening] = []
        try:
            for handle, where, remove in _bound_handles(address, family, flags, self._timeout):
                made.append(
                    Listening(
                        handle,
                        where,
                        accepted,
                        ipc=ipc,
                        closed=remove,
                        lost=self._listener_lost,
                    )
                )
            for listening in made:
                if backlog is not None:
                    listening.listen(backlog)
        except BaseException:
            for listening in made:
                listening.close()
            raise
        self._listeners += made

    def accept_connection(self, handle: Any, ssl: Any = False) -> None:
        """Accept a connection that was passed over *handle*, a pyuv.Pipe for IPC.

        To be called once for each handle that arrives, inside ``data_received``.  Raises
        TransportError (EAGAIN) if none is pending, TypeError if it is not a stream.
        """
        if not isinstance(handle, pyuv.Pipe):
            raise TypeError(f"handle must be a pyuv.Pipe, not {type(handle).__name__}")
        kind = handle.pending_handle_type()
        loop = get_runner().loop
        makers: dict[int, Callable[[], Any]] = {
            pyuv.UV_TCP: lambda: pyuv.TCP(loop),
            pyuv.UV_NAMED_PIPE: lambda: pyuv.Pipe(loop),
            pyuv.UV_UDP: lambda: pyuv.UDP(loop),
        }
        if kind not in makers:
            raise TransportError.from_errno(errno.EAGAIN, "no handle is pending")
        client = makers[kind]()
        try:
            handle.accept(client)
        except _UVError as error:
            get_runner().discard(client)
            raise TransportError.from_errno(error.args[0], "accept") from error
        if kind == pyuv.UV_UDP:
            get_runner().discard(client)
            raise TypeError("the handle that was passed is a UDP socket, not a stream")
        self._welcome(client, ssl, {})

    def handle_connection(self, client: Any, ssl: Any) -> None:
        """Handle a new connection with handle *client*; for subclasses to override, and not to
        be called directly.  What it raises is reported, and closes the connection."""
        transport: Any
        if ssl:
            context = choose_context(ssl, client, server_side=True)
            transport = SslTransport(client, context, True, **self._ssl_options)
        else:
            transport = Transport(client)
        try:
            protocol = self._protocol_factory()
            _lend_timeout(protocol, self._timeout)
            self._connections[transport] = protocol
            transport.call_when_lost(self._forget)
            self.connection_made(transport, protocol)
            transport.start(protocol)
        except BaseException as error:
            transport.abort(error)
            raise

    def connection_made(self, transport: Any, protocol: Any) -> None:
        """Called when a new connection is made, before the transport is started."""

    def connection_lost(
        self, transport: Any, protocol: Any, exc: BaseException | None = None
    ) -> None:
        """Called when a connection is lost, before the protocol's ``connection_lost``; for TLS
        also when the handshake failed, of which the protocol hears nothing."""

    def _welcome(self, client: Any, ssl: Any, options: dict[str, Any]) -> None:
        if self.max_connections is not None and len(self._connections) >= self.max_connections:
            get_runner().discard(client)
            return
        self._ssl_options = options
        try:
            self.handle_connection(client, ssl)
        except BaseException as error:
            get_runner().discard(client)
            get_runner().collect(error)

    def _forget(self, transport: Any, exc: BaseException | None) -> None:
        protocol = self._connections.pop(transport, None)
        if protocol is not None:
            self.connection_lost(transport, protocol, exc)

    @switchpoint
    def close(self, timeout: float | None = None) -> None:
        """Close the listening sockets and all accepted connections.

        Connections are flushed; *timeout* (seconds; by default the endpoint's, or 30) is how long
        their peers may take before they are aborted.  Returns when every ``connection_lost`` has
        been called.  May be repeated, and `listen` may be called again.
        """
        listeners, self._listeners = self._listeners, []
        for listening in listeners:
            listening.close()
        try:
            _close_all(list(self._connections), self._timeout if timeout is None else timeout)
        finally:
            for waiting in self._waiting:
                waiting.finish(None)

    @switchpoint
    def run(self) -> None:
        """Serve until `close` is called elsewhere, or until CTRL-C (SIGINT), upon which this
        method closes the server itself and returns.  Raises TransportError if the server is not
        listening."""
        if not self._listeners:
            raise TransportError("the server is not listening", errno.ENOTCONN)
        waiting: Parked[None] = Parked(get_runner())
        self._waiting.append(waiting)
        try:
            with signals_wake():
                waiting.wait()
        except KeyboardInterrupt:
            self.close()
        finally:
            self._waiting.remove(waiting)

    def _listener_lost(self, listening: Listening, error: BaseException) -> None:
        """The hub has gone."""
        if listening in self._listeners:
            self._listeners.remove(listening)
        for waiting in self._waiting:
            waiting.fail(error)


@switchpoint
def create_server(
    protocol_factory: Callable[[], Any],
    address: Any = None,
    ssl: Any = False,
    family: int = 0,
    flags: int = 0,
    ipc: bool = False,
    backlog: int | None = 128,
    **options: Any,
) -> Server:
    """Create a new network server and return it.

    If *address* is None it does not listen yet.  For the arguments, and what is raised, see
    `Server.listen`.
    """
    server = Server(protocol_factory)
    if address is not None:
        server.listen(address, ssl, family, flags, ipc, backlog, **options)
    return server


def _close_all(transports: list[Any], timeout: float | None) -> None:
    """Close all of *transports* and wait until each is lost."""
    for transport in transports:
        transport.close(CLOSE_TIMEOUT if timeout is None else timeout)
    for transport in transports:
        transport.wait_closed()


def _bound_handles(
    address: Any, family: int, flags: int, timeout: float | None
) -> list[tuple[Any, Any, Callable[[], None]]]:
    """The handles to listen on for *address*, each with its own address, and what removes it."""

    def nothing() -> None:
        pass

    if isinstance(address, str | bytes):
        handle, remove = listen_pipe(address)
        return [(handle, address, remove)]
    if isinstance(address, tuple):
        handles = _bind_all(address, family, flags, timeout)
        return [(handle, _sockname(handle), nothing) for handle in handles]
    if isinstance(address, int) and not isinstance(address, bool):
        handle, _ = from_descriptor(address, "rw")
        return [(handle, _sockname(handle), nothing)]
    if isinstance(address, pyuv.TCP | pyuv.Pipe):
        _check_handle(address)
        return [(address, _sockname(address), nothing)]
    raise TypeError(
        "address must be a path (str), a (host, port) tuple, a file descriptor (int), a pyuv.TCP "
        f"or a pyuv.Pipe, not {address!r}"
    )


def _bind_all(
    address: tuple[Any, ...], family: int, flags: int, timeout: float | None
) -> list[Any]:
    check_address(address)
    host = address[0] or None
    names = resolve_stream(
        (host, *address[1:]), family, flags | socket.AI_PASSIVE, Deadline(timeout)
    )
    handles: list[Any] = []
    failure: TransportError | None = None
    try:
        for name in names:
            try:
                handles.append(listen_tcp(name))
            except TransportError as error:
                # A name may have addresses of a family that this machine is without.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                failure = failure or error
    except BaseException:
        for handle in handles:
            get_runner().discard(handle)
        raise
    if failure is not None and not handles:
        raise failure
    return handles


def _sockname(handle: Any) -> Any:
    try:
        name = handle.getsockname()
    except UnicodeDecodeError:
        return ""
    except _UVError as error:
        raise TransportError.from_errno(error.args[0], "the handle is not bound") from error
    return name
