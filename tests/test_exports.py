"""What is public: the lists of names, their docstrings, and the documented low-level API."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import greentaps
import pytest

MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(greentaps.__path__, "greentaps.")
    if not found.name.rpartition(".")[2].startswith("_")
)


def module(name):
    return importlib.import_module(name)


def own_names(where):
    """The public classes and functions that a module defines itself."""
    return {
        name
        for name, value in vars(where).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == where.__name__
    }


@pytest.mark.parametrize("name", ["greentaps", *MODULES])
def test_all_is_sorted_without_repetition_and_true(name):
    where = module(name)
    names = getattr(where, "__all__", None)
    if names is None:
        pytest.skip("has no list")
    assert list(names) == sorted(set(names), key=sort_key)
    for public in names:
        assert hasattr(where, public), public


def sort_key(name):
    """Constants, then classes, then functions, each in order: as ruff sorts such lists."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return (kind, name)


def test_the_modules_of_the_low_level_have_lists():
    for name in (
        "errors", "hub", "protocols", "endpoints", "certificates", "transports", "engines",
        "transports.base", "transports.stream", "transports.datagram", "transports.ssl",
        "transports.memory", "transports.handles",
    ):  # fmt: skip
        assert module(f"greentaps.{name}").__all__, name


@pytest.mark.parametrize("name", ["errors", "protocols", "endpoints"])
def test_all_is_complete(name):
    """Where the whole module is for users, what it does not list is a helper with a `_`, or
    named here."""
    helpers = {"errors": {"show_address"}}.get(name, set())
    where = module(f"greentaps.{name}")
    assert own_names(where) - set(where.__all__) == helpers


@pytest.mark.parametrize("name", ["greentaps", *MODULES])
def test_every_public_name_has_a_docstring(name):
    where = module(name)
    assert inspect.getdoc(where), f"{name} itself"
    for public in getattr(where, "__all__", ()):
        value = getattr(where, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, public


# -- The low-level API as it is documented: names, and arguments with their defaults --

API = {
    "create_connection": "protocol_factory, address, ssl=False, server_hostname=None, "
    "local_address=None, family=0, flags=0, ipc=False, timeout=None, mode='rw'",
    "create_server": "protocol_factory, address=None, ssl=False, family=0, flags=0, ipc=False, "
    "backlog=128",
    "create_default_context": "purpose=None, **kwargs",
    "BaseTransport.start": "protocol",
    "BaseTransport.get_write_buffer_size": "",
    "BaseTransport.get_write_buffer_limits": "",
    "BaseTransport.set_write_buffer_limits": "high=None, low=None",
    "BaseTransport.close": "",
    "BaseTransport.abort": "",
    "BaseTransport.get_extra_info": "name, default=None",
    "Transport": "handle, server_hostname=None, mode='rw'",
    "Transport.start": "protocol",
    "Transport.get_write_buffer_size": "",
    "Transport.resume_reading": "",
    "Transport.pause_reading": "",
    "Transport.write": "data, handle=None",
    "Transport.writelines": "seq",
    "Transport.write_eof": "",
    "Transport.can_write_eof": "",
    "Transport.close": "",
    "Transport.abort": "",
    "Transport.get_extra_info": "name, default=None",
    "DatagramTransport": "handle, mode='rw'",
    "DatagramTransport.start": "protocol",
    "DatagramTransport.get_write_buffer_size": "",
    "DatagramTransport.resume_reading": "",
    "DatagramTransport.pause_reading": "",
    "DatagramTransport.sendto": "data, addr=None",
    "DatagramTransport.close": "",
    "DatagramTransport.abort": "",
    "SslTransport": "handle, context, server_side, server_hostname=None, "
    "do_handshake_on_connect=True, close_on_unwrap=True",
    "SslTransport.get_extra_info": "name, default=None",
    "SslTransport.pause_reading": "",
    "SslTransport.resume_reading": "",
    "SslTransport.do_handshake": "",
    "SslTransport.unwrap": "",
    "SslTransport.close": "",
    "BaseProtocol": "timeout=None",
    "BaseProtocol.connection_made": "transport",
    "BaseProtocol.connection_lost": "exc",
    "BaseProtocol.pause_writing": "",
    "BaseProtocol.resume_writing": "",
    "Protocol": "timeout=None",
    "Protocol.data_received": "data",
    "Protocol.eof_received": "",
    "DatagramProtocol": "timeout=None",
    "DatagramProtocol.datagram_received": "data, addr",
    "DatagramProtocol.error_received": "exc",
    "MessageProtocol": "message_handler=None, timeout=None",
    "Endpoint": "protocol_factory, timeout=None",
    "Endpoint.close": "",
    "Client": "protocol_factory, timeout=None",
    "Client.connect": "address, **kwargs",
    "Client.close": "",
    "Server": "protocol_factory, timeout=None",
    "Server.accept_connection": "handle, ssl=False",
    "Server.handle_connection": "client, ssl",
    "Server.connection_made": "transport, protocol",
    "Server.connection_lost": "transport, protocol, exc=None",
    "Server.listen": "address, ssl=False, family=0, flags=0, ipc=False, backlog=128",
    "Server.close": "",
    "Server.run": "",
    "get_loop": "",
    "switchpoint": "function",
}
PROPERTIES = [
    "Endpoint.timeout",
    "Client.transport",
    "Client.protocol",
    "Server.addresses",
    "Server.connections",
]
SWITCHPOINTS = [
    "create_connection",
    "create_server",
    "Client.connect",
    "Client.close",
    "Server.listen",
    "Server.close",
    "Server.run",
]


def find(path):
    found = greentaps
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("path", API)
def test_the_documented_arguments(path):
    thing = find(path)
    assert inspect.getdoc(thing)  # for an overriding method the base's counts
    documented = inspect.signature(eval(f"lambda {API[path]}: None")).parameters
    ours = list(inspect.signature(thing).parameters.values())
    if ours and ours[0].name == "self":
        del ours[0]
    for wanted, got in zip(documented.values(), ours, strict=False):
        assert (wanted.name, wanted.default, wanted.kind) == (got.name, got.default, got.kind)
    assert len(ours) >= len(documented)
    for extra in ours[len(documented) :]:  # ours may have more, that nobody must give
        assert extra.default is not extra.empty or extra.kind is extra.VAR_KEYWORD, extra


def test_the_documented_classes_and_their_kinship():
    assert issubclass(greentaps.Transport, greentaps.BaseTransport)
    assert issubclass(greentaps.DatagramTransport, greentaps.BaseTransport)
    assert issubclass(greentaps.SslTransport, greentaps.BaseTransport)
    for kind in ("Protocol", "DatagramProtocol", "MessageProtocol"):
        assert issubclass(getattr(greentaps, kind), greentaps.BaseProtocol)
    assert issubclass(greentaps.MessageProtocol, greentaps.Protocol)
    for kind in ("Client", "Server"):
        assert issubclass(getattr(greentaps, kind), greentaps.Endpoint)
    for error in (greentaps.TransportError, greentaps.ProtocolError):
        assert issubclass(error, Exception)
    for path in PROPERTIES:
        assert isinstance(find(path), property)


@pytest.mark.parametrize("path", SWITCHPOINTS)
def test_the_documented_switchpoints(path):
    assert find(path).__switchpoint__ is True
    assert find(path).__doc__.endswith("This function is a switchpoint.")


def test_everything_documented_is_exported():
    names = {path.partition(".")[0] for path in API} | {"TransportError", "ProtocolError"}
    assert names <= set(greentaps.__all__)
