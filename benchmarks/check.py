"""Instruction counts of the hot paths, against those that were recorded last: `make bench-check`.

    python -m benchmarks.check [--record] [--only PATH ...]

Times drift with the machine and with whoever else uses it; the number of instructions that the
server executes for one request, or whoever connects for one connection, hardly does.  So this is
how to see whether a change has made a hot path longer or shorter.  It is not the whole truth: an
instruction that misses the cache costs many, and what the kernel does is not counted at all.

Each of these runs under ``valgrind --tool=callgrind``.  Counts can only be compared with the same
Python and the same libraries: recorded.json has one set for each such combination.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .measuring import Program, ProgramError, Workshop, build
from .questions import Question, contender
from .report import aligned

HERE = Path(__file__).parent
RECORDED = HERE / "recorded.json"
WORKSHOP = HERE.parent / "build" / "bench"
TOLERANCE = 0.03  # how many events come with one wake-up makes about 0.01 of difference
STARTED = 600.0  # seconds that a server may take to start under valgrind, on a busy machine
CONNECTIONS = 10


@dataclass(frozen=True)
class HotPath:
    """What is counted: *count* units of *question*, after *warm* that are not counted."""

    name: str
    who: str
    question: Question
    warm: int = 500
    count: int = 2000


def _path(name: str, who: str, warm: int = 500, count: int = 2000, **more: Any) -> HotPath:
    question = replace(Question(name, 0, name, (who,), connections=CONNECTIONS), **more)
    return HotPath(name, who, question, warm, count)


PATHS = (
    _path("tcp protocol", "protocol"),
    _path("tcp connection", "connection"),
    _path("tcp connection, framer", "framer"),
    _path("tls connection, stdlib", "connection", tls=True),
    _path("tls connection, pyopenssl", "connection-pyopenssl", tls=True),
    _path("udp transport", "datagram", mode="udp", role="udp", size=512),
    _path("udp connection", "datagram-connection", mode="udp", role="udp", size=512),
    _path(
        "accept, echo, close", "connection", 100, 400, mode="connect", size=64, unit="connection"
    ),
    _path("initiate, close", "initiate", 100, 400, shape="initiate", unit="connection"),
    _path("connect, close", "client", 100, 400, shape="initiate", unit="connection"),
)


@dataclass(frozen=True)
class Verdict:
    """One path's count, and what was recorded (None: nothing yet)."""

    name: str
    count: int
    before: int | None

    @property
    def change(self) -> float | None:
        """By which part it has grown."""
        return None if not self.before else self.count / self.before - 1

    @property
    def word(self) -> str:
        """The verdict."""
        change = self.change
        if change is None:
            return "new"
        return "LONGER" if change > TOLERANCE else "shorter" if change < -TOLERANCE else "same"


def verdicts(counts: dict[str, int], recorded: dict[str, int]) -> list[Verdict]:
    """What *counts* say beside those *recorded* with the same libraries."""
    return [Verdict(name, count, recorded.get(name)) for name, count in counts.items()]


def table(found: list[Verdict]) -> str:
    """The verdicts as text."""
    rows = [["hot path", "instructions/unit", "recorded", "change", "verdict"]]
    for each in found:
        before = "-" if each.before is None else f"{each.before}"
        change = "-" if each.change is None else f"{each.change:+.1%}"
        rows.append([each.name, f"{each.count}", before, change, each.word])
    return aligned(rows)


def total(dump: str) -> int:
    """The number of instructions in a file that callgrind has written."""
    found = re.search(r"^(?:totals|summary): (\d+)", dump, re.MULTILINE)
    if found is None:
        raise ProgramError("callgrind has written a file without a total")
    return int(found[1])


def combination() -> str:
    """Counts compare only where all of these are the same."""
    from importlib.metadata import version

    import pyuv

    packages = [f"{name} {version(name)}" for name in ("gevent", "greenlet", "cryptography")]
    return ", ".join(
        (
            f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}",
            f"libuv {pyuv.LIBUV_VERSION}",
            *packages,
            ssl.OPENSSL_VERSION,
        )
    )


# -- Counting --


def count(path: HotPath, workshop: Workshop) -> int:
    """Instructions for each unit of *path*."""
    who = contender(path.who)
    out = workshop.directory / "callgrind.out"
    for old in workshop.directory.glob("callgrind.out*"):
        old.unlink()
    wrapper = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}"]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    counting = replace(workshop, wrapper=wrapper, environment=environment)
    initiates = path.question.shape == "initiate"
    server = (workshop if initiates else counting).server(
        contender("c") if initiates else who, path.question.role, path.question.tls
    )
    driver = None
    try:
        port = int(server.hear(STARTED))
        if initiates:
            driver = counted = counting.initiator(who, port, STARTED)
        else:
            driver, counted = workshop.load(path.question, who, port), server
            if path.question.mode != "connect":
                _drive(driver, f"open {CONNECTIONS}")
        _drive(driver, f"run {path.warm} {CONNECTIONS}")
        _control(counted, "--zero")
        _drive(driver, f"run {path.count} {CONNECTIONS}")
        _control(counted, "--dump")
        return round(total(_dumped(out)) / path.count)
    finally:
        if driver is not None:
            driver.close()
        server.close()


def _drive(driver: Program, line: str) -> None:
    driver.tell(line)
    driver.hear(STARTED)


def _control(counted: Program, what: str) -> None:
    done = subprocess.run(
        ["callgrind_control", what, str(counted.pid)], capture_output=True, text=True, check=False
    )
    if done.returncode or "Error" in done.stdout + done.stderr:
        raise ProgramError(f"callgrind_control {what}: {done.stdout}{done.stderr}".strip())


def _dumped(out: Path) -> str:
    """The dump, once it is complete."""
    for _ in range(100):
        for file in out.parent.glob(f"{out.name}*"):
            written = file.read_text(errors="replace")
            if re.search(r"^totals: ", written, re.MULTILINE):
                return written
        time.sleep(0.1)
    raise ProgramError("callgrind has written no dump")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument("--record", action="store_true", help="keep these counts for the next time")
    parser.add_argument("--only", nargs="+", metavar="PATH", help="paths with this in their name")
    words = parser.parse_args()
    for program in ("valgrind", "callgrind_control"):
        if shutil.which(program) is None:
            sys.exit(f"benchmarks: {program} is needed (Debian: apt-get install valgrind)")
    from .run import certificate  # it imports greentaps, which the tests of this file need not

    tls = build(WORKSHOP)
    workshop = Workshop(WORKSHOP, certificate(WORKSHOP), tls)
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    ours = recorded.setdefault(combination(), {})
    counts: dict[str, int] = {}
    for path in PATHS:
        if words.only and not any(part in path.name for part in words.only):
            continue
        if path.question.tls and not tls:
            print(f"{path.name}: not counted: the load generator is without TLS", file=sys.stderr)
            continue
        print(f"counting: {path.name}", file=sys.stderr, flush=True)
        try:
            counts[path.name] = count(path, workshop)
        except ProgramError as error:
            sys.exit(f"benchmarks: {path.name}: {error}")
    found = verdicts(counts, ours)
    print(combination())
    print(table(found))
    if words.record:
        ours.update(counts)
        RECORDED.write_text(json.dumps(recorded, indent=1) + "\n")
        print(f"recorded in {RECORDED.name}")
    elif not any(each.before for each in found):
        print("Nothing is recorded for these versions: --record does, best on the unchanged tree.")
    elif any(each.word == "LONGER" for each in found):
        sys.exit(
            "A hot path has become longer: if that is meant, record it (--record) and say why."
        )


if __name__ == "__main__":
    main()
