"""The command line: ``greentaps info``, ``greentaps explain`` and ``greentaps demo``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import EstablishmentError, GreentapsError

if TYPE_CHECKING:
    from .taps import Preconnection
    from .taps.choosing.candidates import Node

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # Properties may also stand behind an option, which argparse does not do for itself.
    if rest and not (options.command is _explain and not any(one.startswith("-") for one in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        try:
            options.properties += [_property(one) for one in rest]
        except argparse.ArgumentTypeError as error:
            parser.error(str(error))
    with contextlib.suppress(AttributeError):  # it need not be a file
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except OSError as error:  # nobody reads what we print, or it has no room
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"greentaps: {error}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="greentaps", description="Transport services in blocking style."
    )
    parser.add_argument("--version", action="version", version=f"greentaps {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="say what is installed, and what this machine offers")
    info.set_defaults(command=_info)

    _add_explain(commands)

    demo = commands.add_parser(
        "demo",
        help="send a file there and back over TLS, and see a wrong certificate refused",
        description=(
            "Without options: starts a listener in another process, connects to it, sends a file "
            "there and back, checks it, and shows a wrong certificate being refused. With --listen "
            "or --connect: one of the two sides, to be run by hand."
        ),
    )
    demo.add_argument("--file", type=_file, help="the file to send (default: made on the spot)")
    demo.add_argument(
        "--size", type=_size, default=32, metavar="MB", help="size of the file made (default: 32)"
    )
    side = demo.add_mutually_exclusive_group()
    side.add_argument(
        "--listen", type=_port, metavar="PORT", help="only listen, on this port of 127.0.0.1"
    )
    side.add_argument(
        "--connect", type=_place, metavar="HOST:PORT", help="only connect to a listening one"
    )
    demo.add_argument(
        "--identity", type=_file, metavar="PEM", help="with --listen: certificate and private key"
    )
    demo.add_argument("--trust", type=_file, metavar="PEM", help="with --connect: whom to trust")
    demo.set_defaults(command=_demo)
    return parser


def _add_explain(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        help="say which ways there are to a peer, in which order, and why",
        description=(
            "Prints the tree of candidates for a connection to HOST and PORT: paths, protocol "
            "stacks, addresses. Each has the reason for its place, or why it is not tried. Nothing "
            "is sent but questions to name servers; with --race connections are made, and closed."
        ),
    )
    explain.add_argument("host", metavar="HOST", help="a name or an address")
    explain.add_argument("port", metavar="PORT", help="a number, or the name of a service")
    explain.add_argument(
        "properties",
        nargs="*",
        type=_property,
        metavar="PROPERTY=VALUE",
        help="a transport property: keepAlive=prefer, interface=require:eth0, connTimeout=10",
    )
    explain.add_argument("--secure", action="store_true", help="ask for security (TLS)")
    explain.add_argument(
        "--trust", type=_file, metavar="PEM", help="ask for it, and trust whom this file names"
    )
    explain.add_argument("--race", action="store_true", help="run the race, and draw its time line")
    explain.add_argument("--svg", type=Path, metavar="FILE", help="with --race: draw it there too")
    explain.add_argument(
        "--offline", action="store_true", help="do not look up names: nothing is sent at all"
    )
    explain.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="(default: 10)"
    )
    explain.set_defaults(command=_explain)


# What argparse makes of an argument.  It says what is wrong, and exits with status 2.


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    if not path.stat().st_size:
        raise argparse.ArgumentTypeError(f"the file {text!r} is empty")
    return path


def _size(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= len(text) <= 6 and int(text)):
        raise argparse.ArgumentTypeError(f"a size is a number of megabytes from 1 on, not {text!r}")
    return int(text)


def _port(text: str) -> str:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return text


def _place(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError(f"HOST:PORT is needed, not {text!r}")
    _port(port)
    return text


def _property(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"PROPERTY=VALUE is needed, not {text!r}")
    return name, value


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86400:
        raise argparse.ArgumentTypeError(f"a number of seconds is needed, not {text!r}")
    return seconds


def _value(text: str) -> Any:
    """The value of a property as people type it: a number, true or false, or a word; and
    ``level:what`` for those that are sets of such pairs."""
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if ":" in text:
        return [_pair(pair) for pair in text.split(",")]
    return text


def _pair(text: str) -> tuple[str, Any]:
    """``require:eth0``, or ``prefer:Wi-Fi``, which is a type of interface."""
    from .taps.properties import InterfaceType

    level, _, what = text.partition(":")
    try:
        return level, InterfaceType(what)
    except ValueError:
        return level, what


def _explain(options: argparse.Namespace) -> int:
    from .taps import Preconnection, RemoteEndpoint, SecurityParameters, TransportProperties

    if options.svg is not None and not options.race:
        print("greentaps explain: --svg needs --race", file=sys.stderr)
        return 2
    try:
        remote = RemoteEndpoint().with_hostname(options.host)
        try:
            remote = RemoteEndpoint().with_ip_address(options.host)
        except ValueError:
            pass
        port = options.port
        remote = remote.with_port(port) if port.isdecimal() else remote.with_service(port)
        properties = TransportProperties()
        for name, value in options.properties:
            properties.set(name, _value(value))
        security = SecurityParameters() if options.secure or options.trust else None
        if security is not None and options.trust is not None:
            security.add_trust_ca(options.trust)
    except (GreentapsError, LookupError, OSError, TypeError, ValueError) as error:
        print(f"greentaps explain: {error}", file=sys.stderr)
        return 2
    preconnection = Preconnection(None, remote, properties, security)
    try:
        if options.race:
            return _race(preconnection, options)
        explanation = preconnection.explain(options.timeout, resolve=not options.offline)
    except EstablishmentError as error:
        print(f"greentaps explain: {error}", file=sys.stderr)
        return 1
    print(explanation.text())
    return 0 if _has_candidate(explanation.tree) else 1


def _has_candidate(node: Node) -> bool:
    """Whether *node*, or one below it, can be tried, or may be when its name is looked up."""
    if node.cut is not None:
        return False
    return node.branch is None or node.unresolved or any(map(_has_candidate, node.children))


def _race(preconnection: Preconnection, options: argparse.Namespace) -> int:
    """Run the race and draw it, whoever wins it."""
    failure = None
    try:
        connection = preconnection.initiate(options.timeout)
    except EstablishmentError as error:
        if error.history is None:
            raise
        failure, story = error, error.history
    else:
        story = connection.history
        connection.abort()
    print(story.text(), story.timeline(), sep="\n\n")
    if options.svg is not None:
        try:
            options.svg.write_text(story.svg(), encoding="utf-8")
        except OSError as error:
            print(f"greentaps explain: {error}", file=sys.stderr)
            return 2
    if failure is not None:
        print(f"greentaps explain: {failure}", file=sys.stderr)
    return 1 if failure is not None else 0


def _info(options: argparse.Namespace) -> int:
    import platform
    import ssl
    from importlib.metadata import version

    import OpenSSL.SSL

    from .hub import describe_loop
    from .plugins import plugins, stack_name, stacks

    openssl = OpenSSL.SSL.OpenSSL_version(OpenSSL.SSL.OPENSSL_VERSION).decode()
    rows = [
        ("greentaps", __version__),
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        *describe_loop(),
        ("ssl", ssl.OPENSSL_VERSION),
        ("pyopenssl", f"{version('pyopenssl')}, {openssl}"),
        ("protocols", ", ".join(name for name, one in plugins().items() if one.available())),
        ("stacks", ", ".join(stack_name(stack) for stack in stacks())),
    ]
    for name, text in rows:
        print(f"{name:<10} {text}")
    return 0


def _demo(options: argparse.Namespace) -> int:
    if options.listen is not None and options.identity is None:
        print("greentaps demo: --listen needs --identity", file=sys.stderr)
        return 2
    if options.connect is not None and options.trust is None:
        print("greentaps demo: --connect needs --trust", file=sys.stderr)
        return 2
    try:
        from . import demo
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        print("greentaps demo: needs rich: pip install 'greentaps[demo]'", file=sys.stderr)
        return 2
    try:
        if options.listen is not None:
            return demo.listen(options.listen, options.identity)
        if options.connect is not None:
            return demo.connect(options.connect, options.trust, options.file, options.size)
        return demo.both(options.file, options.size)
    except ValueError as error:  # what is in a file, or a name, cannot be used
        print(f"greentaps demo: {error}", file=sys.stderr)
        return 2
    except (GreentapsError, OSError) as error:
        print(f"greentaps demo: {error}", file=sys.stderr)
        return 1
