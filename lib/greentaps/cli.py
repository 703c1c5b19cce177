"""The command line: ``greentaps info`` and ``greentaps demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    status: int = options.command(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="greentaps", description="Transport services in blocking style."
    )
    parser.add_argument("--version", action="version", version=f"greentaps {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="say what is installed, and what this machine offers")
    info.set_defaults(command=_info)

    demo = commands.add_parser(
        "demo",
        help="send a file there and back over TLS, and see a wrong certificate refused",
        description=(
            "Without options: starts a listener in another process, connects to it, sends a file "
            "there and back, checks it, and shows a wrong certificate being refused. With --listen "
            "or --connect: one of the two sides, to be run by hand."
        ),
    )
    demo.add_argument("--file", type=Path, help="the file to send (default: made on the spot)")
    demo.add_argument(
        "--size", type=int, default=32, metavar="MB", help="size of the file made (default: 32)"
    )
    side = demo.add_mutually_exclusive_group()
    side.add_argument("--listen", metavar="PORT", help="only listen, on this port of 127.0.0.1")
    side.add_argument("--connect", metavar="HOST:PORT", help="only connect to a listening one")
    demo.add_argument(
        "--identity", type=Path, metavar="PEM", help="with --listen: certificate and private key"
    )
    demo.add_argument("--trust", type=Path, metavar="PEM", help="with --connect: whom to trust")
    demo.set_defaults(command=_demo)
    return parser


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
    if options.size < 1:
        print("greentaps demo: --size must be at least 1", file=sys.stderr)
        return 2
    try:
        from . import demo
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        print("greentaps demo: needs rich: pip install 'greentaps[demo]'", file=sys.stderr)
        return 2
    if options.listen is not None:
        return demo.listen(options.listen, options.identity)
    if options.connect is not None:
        return demo.connect(options.connect, options.trust, options.file, options.size)
    return demo.both(options.file, options.size)
