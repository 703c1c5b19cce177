"""Imports point downward only, and the parts that are to be pure import nothing impure.

Read from the source, so that an import inside a function counts as well; one that is only for
type checkers does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import greentaps
import pytest

ROOT = Path(greentaps.__file__).parent

# Each unit may import units of the lines above its own, and itself.
LEVELS = [
    {"_version", "errors", "certificates"},
    {"hub"},
    {"engines"},
    {"tls_context"},
    {"transports", "protocols"},
    {"endpoints"},
    {"framers", "plugins"},
    {"taps"},
    {"flow", "yang", "testing_framers"},
    {"testing"},
    {"demo", "cli", "__main__", "__init__"},
]
LEVEL = {unit: number for number, units in enumerate(LEVELS) for unit in units}

GEVENT_IN = {"hub", "testing"}
PYUV_IN = {"hub", "transports", "endpoints", "plugins"}
# No I/O, no clock, no greenlets.
PURE = [
    "engines/",
    "framers/",
    "taps/naming/answers",
    "taps/choosing/candidates",
    "taps/paths/history",
    "taps/choosing/explaining",
    "taps/choosing/policy",
    "taps/naming/dnscache",
    "taps/naming/nat64",
    "taps/naming/ordering",
    "taps/rendezvous/ice",
    "taps/rendezvous/stun",
    "taps/properties",
    "taps/choosing/racing",
    "taps/naming/services",
]
IMPURE = {
    "asyncio", "gevent", "greenlet", "pyuv", "select", "selectors", "socket", "threading", "time",
}  # fmt: skip

FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


class _Imports(ast.NodeVisitor):
    """The modules that a file imports, with absolute names."""

    def __init__(self, file: str) -> None:
        parts = ["greentaps", *Path(file).with_suffix("").parts]
        self.package = parts[:-1]
        self.found: list[tuple[str, int]] = []

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(alias.name, node.lineno) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self.package[: len(self.package) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        if module == "greentaps":  # from . import name
            self.found += [(f"greentaps.{alias.name}", node.lineno) for alias in node.names]
        else:
            self.found.append((module, node.lineno))


def imports(file: str, text: str | None = None) -> Iterator[tuple[str, int]]:
    visitor = _Imports(file)
    visitor.visit(ast.parse((ROOT / file).read_text() if text is None else text))
    yield from visitor.found


def unit_of(file: str) -> str:
    return Path(file).with_suffix("").parts[0]


def violations(file: str, text: str | None = None) -> list[str]:
    """What *file* imports against the rules."""
    unit = unit_of(file)
    found = []
    for module, line in imports(file, text):
        top, _, rest = module.partition(".")
        where = f"{file}:{line}: {unit} imports {module}"
        if top == "greentaps":
            other = rest.partition(".")[0] or "__init__"
            if other == "__version__":
                other = "_version"
            if other != unit and LEVEL.get(other, len(LEVELS)) >= LEVEL[unit]:
                # The package itself may gather everything, and so may what is on top of it.
                if LEVEL[unit] < len(LEVELS) - 1:
                    found.append(where)
        elif (top == "gevent" and unit not in GEVENT_IN) or (top == "pyuv" and unit not in PYUV_IN):
            found.append(where)
        if file.startswith(tuple(PURE)) and (top in IMPURE or module == "greentaps.hub"):
            found.append(f"{where}, and is to be pure")
    return found


def test_every_unit_has_its_level():
    assert {unit_of(file) for file in FILES} <= set(LEVEL)


@pytest.mark.parametrize("file", FILES)
def test_imports_point_downward(file):
    assert violations(file) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("errors.py", "from .hub import now"),
        ("hub.py", "from greentaps.transports import stream"),
        ("protocols.py", "def f():\n    from .transports.base import OPEN"),
        ("transports/stream.py", "from ..endpoints import Server"),
        ("transports/stream.py", "import gevent"),
        ("transports/stream.py", "from .. import protocols"),
        ("framers/length.py", "from ..plugins import tcp"),
        ("protocols.py", "import pyuv"),
        ("taps/connection.py", "from gevent.event import Event"),
        ("taps/choosing/racing.py", "import time"),
        ("taps/choosing/candidates.py", "from ...hub import now"),
        ("engines/stdlib.py", "import socket"),
        ("framers/length.py", "from time import monotonic"),
        ("framers/length.py", "if True:\n    pass\nelse:\n    import pyuv"),
    ],
)
def test_the_rules_find_what_they_forbid(file, text):
    assert violations(file, text)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("hub.py", "import gevent, pyuv\nfrom .errors import Timeout"),
        (
            "taps/choosing/racing.py",
            "from .candidates import Candidate\nfrom ...errors import Reason",
        ),
        ("cli.py", "from . import __version__, demo"),
        ("framers/x.py", "if TYPE_CHECKING:\n    from ..taps.message import Message"),
    ],
)
def test_the_rules_allow_the_rest(file, text):
    assert violations(file, text) == []
