"""A resolver of our own: asks name servers itself, also for the records of services.

The system's resolver knows only addresses, cannot be told an interface, and does not say for how
long an answer holds.  This one can; dnspython (the extra ``dns``) encodes and parses the messages
and reads ``/etc/resolv.conf``.  Its own I/O would block the hub, so the I/O is here, in blocking
style on sockets that park the greenlet.

What comes from the network is not believed before it was checked (RFC 5452): each question has a
random id and a socket of its own with a random port, connected so that the kernel drops what is
from elsewhere; an answer must have the same id and question; and after many that have not, the
question is asked again over TCP.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random as random_module
import secrets
import socket
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ...errors import ResolutionError, Timeout, TransportError
from ...hub import Runner, check_timeout, get_runner, getaddrinfo, now, open_socket, time_limit
from ...transports.options import bind_to_interface
from ..paths.caches import register_cache
from ..paths.survey import survey
from .answers import MAX_ADDRESSES, MAX_TARGETS, Target
from .dnscache import AnswerCache
from .hosts import HostsFile
from .resolver import LOOPBACK, Resolver, Sharing, both, is_loopback_name, not_available
from .services import Random, SrvRecord, SvcbRecord, alias_of, srv_targets, svcb_targets

__all__ = ["DnsResolver"]

Server = tuple[str | bytes, int]

RESOLV_CONF = "/etc/resolv.conf"
# Where systemd keeps what it knows of an interface, by its index: for its resolver, and for its
# network manager.
_LINK_FILES = ("/run/systemd/resolve/netif", "/run/systemd/netif/links")

# The UDP message size that passes everywhere without fragments.
EDNS_SIZE = 1232
MAX_SERVERS = 8
MAX_ALIASES = 8  # of CNAME records that are not in one message, and of SVCB records
MAX_STRANGERS = 32  # wrong answers to one question, before it is asked over TCP
MAX_RECORDS = 256  # looked at in one answer
_MAX_SEARCH = 6  # domains, as in the system's resolver
# Seconds that it is believed that there is nothing (RFC 2308 section 5): at most, and where the
# answer does not say for how long.
_MAX_NEGATIVE_TTL, _UNSAID_NEGATIVE_TTL = 900.0, 5.0

# RFC 8305 section 5: for how long an answer that came too late is still waited for, in seconds.
# The next Connection finds it in the cache.
LINGER = 1.0

# RFC 6761 section 6.4, RFC 7686: no server is asked for these.
_NOWHERE = ("invalid", "onion")


@dataclass(frozen=True, slots=True)
class _Records:
    """The answer to one question.  *exists* tells a name without such records from no name;
    *owner* is the name at the end of the chain of CNAMEs."""

    records: tuple[Any, ...]
    owner: str
    exists: bool
    ttl: float


class _ServerError(Exception):
    """A name server did not give an answer that can be used."""


class DnsResolver(Resolver):
    """Resolves names by asking name servers, without the system's resolver.  Needs the extra
    ``dns``.

    *nameservers* are addresses (str) or ``(address, port)`` pairs, to be asked in this order; None
    takes those of ``/etc/resolv.conf``, with its search list and options, and notices when it
    changes.  *port* is theirs where they name none.  *search* are domains (str) that names with
    fewer dots than *ndots* are tried in.  *timeout* is in seconds, for one question to one server;
    each server is asked *attempts* times.  *cache_size* is how many answers are kept, at most as
    long as each says that it holds; none are with 0.  *hosts* is the path of the hosts file, whose
    names no server is asked for; None for no such file.  *random* (a ``random.Random``) decides
    among equal services.

    Names are sent as they are, without encryption, to these servers.  One object can be used by any
    number of greenlets and threads.  Raises ModuleNotFoundError without dnspython; TypeError or
    ValueError if an argument is wrong.
    """

    def __init__(
        self,
        nameservers: Iterable[str | tuple[str, int]] | None = None,
        *,
        port: int = 53,
        search: Iterable[str] | None = None,
        ndots: int | None = None,
        timeout: float | None = None,
        attempts: int = 2,
        cache_size: int = 1024,
        hosts: str | None = "/etc/hosts",
        random: Random | None = None,
    ) -> None:
        self._dns = _dnspython()
        if isinstance(nameservers, str):
            raise TypeError("nameservers are a sequence of addresses, not one str")
        if timeout is not None and not check_timeout(timeout):
            raise ValueError("timeout must be more than zero")
        if attempts < 1:
            raise ValueError(f"attempts must be at least one, not {attempts!r}")
        if cache_size < 0:
            raise ValueError(f"cache_size must not be negative: {cache_size!r}")
        self._port = port
        self._search = None if search is None else tuple(search)
        self._ndots = ndots
        self._timeout = timeout
        self._attempts = attempts
        self._hosts = None if hosts is None else HostsFile(hosts)
        self._random: Random = random or random_module.SystemRandom()
        self._cache = AnswerCache(cache_size)
        self._lock = threading.Lock()  # never held over a switch
        self._sharing = Sharing(LINGER if cache_size else 0.0)
        _all.add(self)
        register_cache(_flush_all)
        self._configuration: _Configuration | None = None
        self._fixed = False
        if nameservers is not None:
            servers = tuple(_server(one, port) for one in nameservers)
            if not 0 < len(servers) <= MAX_SERVERS:
                raise ValueError(f"nameservers must be 1 to {MAX_SERVERS} addresses")
            self._fixed = True
            self._configuration = self._configured(servers, (), 1, 2.0, None)

    def flush(self) -> None:
        """Forget all answers.  `flush_caches` does it for every resolver."""
        with self._lock:
            self._cache.flush()

    # -- What is asked of a resolver --

    def addresses(
        self, name: str, family: int, *, interface: str | None, network: str
    ) -> Sequence[str]:
        v6 = family == socket.AF_INET6
        if is_loopback_name(name):
            return (LOOPBACK[family],)
        given = None if self._hosts is None else self._hosts.addresses(name, v6=v6)
        if given is not None:
            if not given:
                raise _negative(name, exists=True)
            return given[:MAX_ADDRESSES]
        found = self._look_up("", name, "AAAA" if v6 else "A", interface, network)
        if not found.records:
            raise _negative(name, exists=found.exists)
        return [record.address for record in found.records[:MAX_ADDRESSES]]

    def asks_for(self, service: str) -> bool | None:
        return service.lower() != "https"

    def targets(
        self,
        name: str,
        service: str,
        protocol: str,
        port: int | None,
        *,
        interface: str | None,
        network: str,
    ) -> Sequence[Target]:
        service = service.lower()

        def bindings() -> Sequence[Target]:
            return self._bindings(name, service, protocol, port, interface, network)

        if service == "https":
            return bindings()
        bound, located = both(
            bindings, lambda: self._located(name, service, protocol, interface, network)
        )
        for outcome in (bound, located):
            if isinstance(outcome, Exception):
                if getattr(outcome, "code", None) == socket.EAI_SERVICE:
                    raise outcome
            elif outcome:
                return outcome
        if isinstance(located, Exception):
            raise located
        return ()

    # -- Records of services --

    def _located(
        self, name: str, service: str, protocol: str, interface: str | None, network: str
    ) -> Sequence[Target]:
        """What SRV records say (RFC 2782)."""
        prefix = f"_{service}._{protocol}"
        found = self._look_up(prefix, name, "SRV", interface, network)
        targets = srv_targets(
            (
                SrvRecord(one.priority, one.weight, one.port, one.target.to_text())
                for one in found.records
            ),
            self._random,
            f"SRV {prefix}.{name}",
        )
        if targets is None:
            raise not_available(name, service)
        return targets

    def _bindings(
        self,
        name: str,
        service: str,
        protocol: str,
        port: int | None,
        interface: str | None,
        network: str,
    ) -> Sequence[Target]:
        """What SVCB or HTTPS records say (RFC 9460 section 3)."""
        prefix, kind = ("", "HTTPS") if service == "https" else (f"_{service}", "SVCB")
        asked, origin = name, f"{kind} {prefix + '.' if prefix else ''}{name}"
        for _ in range(MAX_ALIASES):
            found = self._look_up(prefix, asked, kind, interface, network)
            records = [_svcb_record(one) for one in found.records]
            alias = alias_of(records, self._random)
            if alias == ".":
                raise not_available(name, service)
            if alias is None:
                targets = svcb_targets(
                    records,
                    service=service,
                    protocol=protocol,
                    owner=found.owner,
                    port=port,
                    random=self._random,
                    origin=origin,
                )
                if not targets and asked is not name and port is not None:
                    # The end of the aliases is a plain host.
                    at = f"{origin} -> {asked.rstrip('.')}:{port}"
                    return (Target(asked, port, origin=at),)
                return targets
            asked, prefix = alias, ""
        error = ResolutionError(f"{name!r} is an alias of too many others", address=(name, service))
        error.code = socket.EAI_FAIL
        raise error

    # -- One question --

    def _look_up(
        self, prefix: str, name: str, kind: str, interface: str | None, network: str
    ) -> _Records:
        """The records of *name*, which is tried in the domains of the search list if it is short.
        A switchpoint.  Raises ResolutionError if there is no answer at all."""
        configuration = self._configure(interface)
        found = None
        for candidate in self._candidates(prefix, name, configuration):
            answer = self._cached(candidate, kind, configuration, interface, network)
            if answer.records:
                return answer
            if found is None or answer.exists:
                found = answer
        if found is None:
            raise _error(name, socket.EAI_NONAME, "not a name that can be asked for")
        return found

    def _candidates(self, prefix: str, name: str, configuration: _Configuration) -> list[Any]:
        """The full names to ask for, in order."""
        dns = self._dns
        texts = [name]
        if not name.endswith("."):
            searched = [f"{name}.{domain}" for domain in configuration.search]
            many_dots = name.count(".") >= configuration.ndots
            texts = [name, *searched] if many_dots else [*searched, name]
        if name.lower().rstrip(".").rpartition(".")[2] in _NOWHERE:
            return []
        found = []
        for text in texts:
            try:
                made = dns.name.from_text(text)
                found.append(dns.name.from_text(prefix, made) if prefix else made)
            except (dns.exception.DNSException, UnicodeError) as error:
                if text == name:
                    raise _error(name, socket.EAI_NONAME, str(error)) from error
        return found

    def _cached(
        self,
        name: Any,
        kind: str,
        configuration: _Configuration,
        interface: str | None,
        network: str,
    ) -> _Records:
        # An answer is one network's, and one interface's: elsewhere it may be another one.  Not all
        # who ask have looked which network it is.
        key = (name, kind, interface, network or survey().network, configuration.servers)
        with self._lock:
            known: _Records | None = self._cache.get(key, now())
        if known is not None:
            return known
        return self._sharing.ask(
            key, lambda: self._fetch(key, name, kind, configuration, interface)
        )

    def _fetch(
        self, key: Any, name: Any, kind: str, configuration: _Configuration, interface: str | None
    ) -> _Records:
        answer = self._chase(name, kind, configuration, interface)
        with self._lock:
            self._cache.put(key, answer, answer.ttl, now())
        return answer

    def _chase(
        self, name: Any, kind: str, configuration: _Configuration, interface: str | None
    ) -> _Records:
        """Ask, and follow CNAMEs that the server has not followed itself."""
        dns = self._dns
        ttl = float("inf")
        asked = name
        for _ in range(MAX_ALIASES):
            response = self._exchange(asked, kind, configuration, interface)
            try:
                chain = response.resolve_chaining()
            except dns.exception.DNSException as error:
                raise _error(name, socket.EAI_FAIL, _text(error)) from error
            ttl = min(ttl, chain.minimum_ttl)
            owner = chain.canonical_name
            if chain.answer is not None:
                return _Records(tuple(chain.answer), owner.to_text(), True, ttl)
            exists = response.rcode() == dns.rcode.NOERROR
            ended = any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)
            if not exists or ended or owner == asked:
                limit = _MAX_NEGATIVE_TTL if ended else _UNSAID_NEGATIVE_TTL
                return _Records((), owner.to_text(), exists, min(ttl, limit))
            asked = owner
        raise _error(name, socket.EAI_FAIL, "an alias of too many others")

    def _exchange(
        self, name: Any, kind: str, configuration: _Configuration, interface: str | None
    ) -> Any:
        """The response of the first server that has one.  A switchpoint.  Raises ResolutionError
        after each was asked as often as allowed."""
        failures: list[Exception] = []
        runner = get_runner()  # the same for all: what was begun on a hub ends with it
        for _ in range(self._attempts):
            for server in configuration.servers:
                try:
                    return self._ask_server(
                        runner, server, name, kind, configuration.timeout, interface
                    )
                except Timeout:
                    shown = f"{server[0]} port {server[1]}"
                    failures.append(TransportError(f"no answer from {shown}", errno.ETIMEDOUT))
                except (OSError, _ServerError) as error:
                    failures.append(error)
        text = f"no name server has answered: {failures[-1]}"
        raise _error(name, socket.EAI_AGAIN, text) from (
            failures[0] if len(failures) == 1 else ExceptionGroup("every server failed", failures)
        )

    def _ask_server(
        self,
        runner: Runner,
        server: Any,
        name: Any,
        kind: str,
        timeout: float,
        interface: str | None,
    ) -> Any:
        dns = self._dns
        edns: int | bool = 0
        while True:
            query = dns.message.make_query(
                name,
                kind,
                use_edns=edns,
                payload=EDNS_SIZE if edns is not False else None,
                id=secrets.randbelow(1 << 16),
            )
            exchange = _Exchange(runner, dns, query, server, interface)
            with time_limit(timeout):
                response = exchange.over_udp()
            if response is None or response.flags & dns.flags.TC:
                with time_limit(timeout):
                    response = exchange.over_tcp()
            rcode = response.rcode()
            if rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return response
            if edns is False or rcode not in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
                raise _ServerError(f"{server[0]} answered {dns.rcode.to_text(rcode)}")
            edns = False  # an old server (RFC 6891 section 7)

    # -- Whom to ask --

    def _configure(self, interface: str | None) -> _Configuration:
        configuration = self._configuration
        if not self._fixed:
            try:
                changed = os.stat(RESOLV_CONF).st_mtime_ns
            except OSError:
                changed = 0
            if configuration is None or configuration.changed != changed:
                configuration = self._configuration = self._read(changed)
            if interface is not None and configuration.local:
                # The servers are a stub on this machine, which decides for itself whom it asks.
                servers = tuple(_server(one, 53) for one in _servers_of_link(interface))
                if servers:
                    return self._configured(
                        servers,
                        configuration.search,
                        configuration.ndots,
                        configuration.timeout,
                        changed,
                    )
        assert configuration is not None
        return configuration

    def _read(self, changed: int) -> _Configuration:
        from dns.resolver import NoResolverConfiguration
        from dns.resolver import Resolver as Reader

        reader = Reader(configure=False)
        try:
            reader.read_resolv_conf(StringIO(self._understood(RESOLV_CONF)))
            servers = tuple(_server(str(one), self._port) for one in reader.nameservers)
        except (NoResolverConfiguration, ValueError):
            servers = ()
        search = [domain.to_text(omit_final_dot=True) for domain in reader.search]
        return self._configured(
            servers[:MAX_SERVERS] or (_server("127.0.0.1", self._port),),  # resolv.conf(5)
            tuple(search[:_MAX_SEARCH]),
            1 if reader.ndots is None else reader.ndots,
            min(max(float(reader.timeout), 1.0), 30.0),  # resolv.conf(5)
            changed,
        )

    def _understood(self, path: str) -> str:
        """What is in ``/etc/resolv.conf`` but for what is no address of a server and no domain,
        which the system's resolver passes over as well."""
        try:
            text = Path(path).read_text("utf-8", "replace")
        except OSError:
            return ""
        found = []
        for line in text.splitlines():
            key, *words = line.split() or [""]
            if key == "nameserver":
                words = [word for word in words[:1] if _is_address(word)]
            elif key in ("domain", "search"):
                words = [word for word in words if self._is_domain(word)]
            found.append(" ".join([key, *words]))
        return "\n".join(found)

    def _is_domain(self, text: str) -> bool:
        try:
            self._dns.name.from_text(text)
        except (self._dns.exception.DNSException, UnicodeError):
            return False
        return True

    def _configured(
        self,
        servers: tuple[Any, ...],
        search: tuple[str, ...],
        ndots: int,
        timeout: float,
        changed: int | None,
    ) -> _Configuration:
        """What was found, unless the application has said otherwise."""
        return _Configuration(
            servers,
            search if self._search is None else self._search,
            ndots if self._ndots is None else self._ndots,
            timeout if self._timeout is None else self._timeout,
            changed,
        )


_all: weakref.WeakSet[DnsResolver] = weakref.WeakSet()


def _flush_all() -> None:
    for resolver in list(_all):
        resolver.flush()


def _after_fork_in_child() -> None:
    """Another thread, which is not here, may have held a lock."""
    for resolver in list(_all):
        resolver._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


@dataclass(frozen=True, slots=True)
class _Configuration:
    servers: tuple[Any, ...]
    search: tuple[str, ...]
    ndots: int
    timeout: float
    changed: int | None

    @property
    def local(self) -> bool:
        return all(_is_loopback(server) for server in self.servers)


class _Owner:
    """Closes a socket when its hub goes."""

    def __init__(self, link: Any) -> None:
        self._link = link

    def hub_lost(self, error: BaseException) -> None:
        self._link.close()


class _Exchange:
    """One query to one server, and its answer."""

    def __init__(
        self, runner: Runner, dns: Any, query: Any, server: Any, interface: str | None
    ) -> None:
        self._runner = runner
        self._dns = dns
        self._query = query
        self._wire: bytes = query.to_wire()
        self._server = server
        self._interface = interface

    def over_udp(self) -> Any:
        """The response; None if so many others came that somebody seems to be guessing.  A
        switchpoint."""
        with self._open(socket.SOCK_DGRAM) as link:
            link.connect(self._server)
            link.send(self._wire)
            for _ in range(MAX_STRANGERS):
                wire = link.recv(65535)
                response = self._accepted(wire, truncated=_is_truncated(wire))
                if response is not None:
                    return response
        return None

    def over_tcp(self) -> Any:
        """The response.  A switchpoint.  Raises _ServerError."""
        with self._open(socket.SOCK_STREAM) as link:
            link.connect(self._server)
            link.sendall(len(self._wire).to_bytes(2) + self._wire)
            length = int.from_bytes(_read_exactly(link, 2))
            response = self._accepted(_read_exactly(link, length))
        if response is None:
            raise _ServerError(f"{self._server[0]} answered another question")
        return response

    @contextlib.contextmanager
    def _open(self, kind: int) -> Iterator[Any]:
        family = socket.AF_INET6 if ":" in self._server[0] else socket.AF_INET
        with open_socket(family, kind) as link:
            # A server on this machine cannot be reached through another interface.
            if self._interface is not None and not _is_loopback(self._server):
                bind_to_interface(link, self._interface)
            owner = _Owner(link)
            self._runner.adopt(owner)
            try:
                yield link
            finally:
                self._runner.release(owner)

    def _accepted(self, wire: bytes, *, truncated: bool = False) -> Any:
        """The message in *wire*; None if it is not an answer to this query.  Raises _ServerError
        if it seems to be one and cannot be understood, unless it is said to be *truncated*."""
        dns = self._dns
        if wire[:2] != self._wire[:2]:
            return None
        try:
            # One that is truncated may end in the midst of a record (RFC 1035 section 4.1.1).
            response = dns.message.from_wire(
                _bounded(wire), ignore_trailing=True, continue_on_error=truncated
            )
        # dnspython has many errors for what it cannot parse, and not all are its own.
        except Exception as error:
            raise _ServerError(f"{self._server[0]} answered garbage: {_text(error)}") from error
        return response if self._query.is_response(response) else None


def _is_truncated(wire: bytes) -> bool:
    return len(wire) > 2 and bool(wire[2] & 0x02)


def _bounded(wire: bytes) -> bytes:
    """A message that claims to have no more records than are looked at: to parse thousands would
    keep everybody else waiting."""
    if len(wire) < 12:
        return wire  # it claims nothing
    counts = [int.from_bytes(wire[at : at + 2]) for at in (6, 8, 10)]  # RFC 1035 section 4.1.1
    left = MAX_RECORDS
    for index, count in enumerate(counts):
        # What comes after records that are passed over cannot be found.
        counts[index], left = min(count, left), left - count if count < left else 0
    return wire[:6] + b"".join(count.to_bytes(2) for count in counts) + wire[12:]


def _read_exactly(link: Any, length: int) -> bytes:
    found = b""
    while len(found) < length:
        piece = link.recv(length - len(found))
        if not piece:
            raise _ServerError("the name server closed the connection")
        found += piece
    return found


def _dnspython() -> Any:
    try:
        import dns.exception
        import dns.flags
        import dns.message
        import dns.name
        import dns.rcode
        import dns.rdatatype
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "DnsResolver needs dnspython: install greentaps[dns]", name=error.name
        ) from error
    return dns


def _server(given: Any, port: int) -> tuple[Any, ...]:
    """The socket address of a name server.  Raises ValueError or TypeError."""
    host, port = given if isinstance(given, tuple) else (given, port)
    if not isinstance(host, str) or isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"a name server is an address (str) or (address, port), not {given!r}")
    if not 0 < port < 65536:
        raise ValueError(f"a port is a number from 1 to 65535, not {port!r}")
    try:
        found = getaddrinfo(host, port, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError) as error:
        raise ValueError(f"a name server is given by its address, not by {host!r}") from error
    return found[0][4]


def _is_loopback(server: tuple[Any, ...]) -> bool:
    return ip_address(server[0].partition("%")[0]).is_loopback


def _servers_of_link(interface: str) -> list[str]:
    """The name servers that systemd has for *interface*; none if it has none, or is not there."""
    try:
        number = str(socket.if_nametoindex(interface))
    except OSError:
        return []
    for folder in _LINK_FILES:
        try:
            lines = (Path(folder) / number).read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition("=")
            found = [word for word in value.split() if _is_address(word)]
            if key in ("SERVERS", "DNS") and found:
                return found[:MAX_SERVERS]
    return []


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _svcb_record(record: Any) -> SvcbRecord:
    """What counts of dnspython's record."""
    parameters = {int(key): value for key, value in record.params.items()}
    mandatory, alpn, port = (parameters.get(key) for key in (0, 1, 3))
    hints = [hint for key in (6, 4) if key in parameters for hint in parameters[key].addresses]
    return SvcbRecord(
        record.priority,
        record.target.to_text(),
        frozenset() if mandatory is None else frozenset(int(key) for key in mandatory.keys),
        () if alpn is None else tuple(name.decode("latin-1") for name in alpn.ids)[:MAX_TARGETS],
        2 in parameters,
        None if port is None else port.port,
        tuple(hints[:MAX_ADDRESSES]),
    )


def _negative(name: str, *, exists: bool) -> ResolutionError:
    if exists:
        return _error(name, socket.EAI_NODATA, "the name has no such address")
    return _error(name, socket.EAI_NONAME, "there is no such name")


def _error(name: Any, code: int, text: str) -> ResolutionError:
    shown = name if isinstance(name, str) else name.to_text(omit_final_dot=True)
    made = ResolutionError(f"cannot resolve {shown!r}: {text}", address=(shown, None))
    made.code = code
    return made


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
