"""Ask the questions: what `make bench` and `make bench-short` run.

    python -m benchmarks.run [--short] [--only PART ...] [--record DIRECTORY]

Prints the tables.  With --record it also writes them, the chart and the raw figures.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import greentaps

from . import report
from .measuring import Pace, ProgramError, Programs, Workshop, ask, build
from .questions import Question, questions

ROOT = Path(__file__).parents[1]
WORKSHOP = ROOT / "build" / "bench"
FULL = Pace(turn=0.3, rounds=5)
SHORT = Pace(turn=0.12, rounds=3)
PACKAGES = ("pyuv", "gevent", "greenlet", "uvloop", "trio", "pyOpenSSL", "cryptography")
KEPT = ("key", "number", "title", "unit", "chart")  # of a question, in the results
BUSY = 0.75  # of the cores: at a higher load average a run is marked


def certificate(directory: Path) -> Path:
    """A certificate for localhost and its key, in one file."""
    from greentaps.certificates import CertificateAuthority

    return CertificateAuthority().issue("localhost", "127.0.0.1").write(directory, "server")


def processor() -> str:
    """What the system calls this machine's processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def versions() -> dict[str, str]:
    """Of everything that is compared."""
    found = {
        "greentaps": greentaps.__version__ + revision(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    try:
        import _pyuv_build

        found["libuv"] = f"{_pyuv_build.LIBUV_VERSION} ({_pyuv_build.LIBUV})"
    except ImportError:
        found["libuv"] = "as pyuv has it"
    found["OpenSSL of ssl"] = ssl.OPENSSL_VERSION
    return found


def revision() -> str:
    """Which state of the source this is, if that is known."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        same = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "lib"], check=False)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({commit}{', changed' if same.returncode else ''})"


def load_average() -> float:
    return round(os.getloadavg()[0], 2)


def chosen(words: argparse.Namespace) -> list[Question]:
    """The questions to ask: with ``--only`` those of that name, or with it in theirs."""
    found = questions()
    if words.only:
        keys = {each.key for each in found}
        return [
            each
            for each in found
            if any(
                part == each.key or (part not in keys and part in each.key) for part in words.only
            )
        ]
    return [each for each in found if each.short] if words.short else found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(asked: list[Question], pace: Pace, about: dict[str, Any]) -> dict[str, Any]:
    """Ask *asked*, and return the results."""
    if not build(WORKSHOP):
        say("The load generator is without TLS: for that, install OpenSSL's headers (libssl-dev).")
    workshop = Workshop(WORKSHOP, certificate(WORKSHOP), tls=True)
    programs = Programs(workshop)
    results: dict[str, Any] = {"about": about, "questions": []}
    begun = time.monotonic()
    try:
        for index, question in enumerate(asked):
            say(f"[{time.monotonic() - begun:4.0f} s] {index + 1}/{len(asked)} {question.title}")
            answer = ask(question, programs, pace)
            about_it = {
                name: getattr(question, name)
                for name in ("key", "number", "title", "unit", "chart")
            }
            results["questions"].append(about_it | answer)
    finally:
        programs.close()
    about["seconds"] = round(time.monotonic() - begun)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Benchmarks.")
    parser.add_argument("--short", action="store_true", help="the main questions, in a minute")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", help="the question PART, or all with PART in the name"
    )
    parser.add_argument("--list", action="store_true", help="the keys of the questions")
    parser.add_argument("--turn", type=float, metavar="SECONDS", help="how long one turn takes")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many rounds there are")
    parser.add_argument("--record", type=Path, metavar="DIRECTORY", help="write all files there")
    parser.add_argument("--note", default="", help="to be shown with the results")
    words = parser.parse_args()
    asked = chosen(words)
    if words.list:
        for question in asked:
            print(f"{question.key:24} {question.title}")
        return
    if not asked:
        parser.error("no question is called so: see --list")
    default = SHORT if words.short else FULL
    pace = Pace(words.turn or default.turn, words.rounds or default.rounds)
    part = "a part" if words.only else "the short form" if words.short else "all questions"
    about: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "form": f"{part}, {pace.rounds} rounds of {pace.turn:g} s turns",
        "versions": versions(),
        "note": words.note,
    }
    before = load_average()
    try:
        results = run(asked, pace, about)
    except ProgramError as error:
        sys.exit(f"benchmarks: {error}")
    about["load"] = [before, load_average()]
    if before > BUSY * (os.cpu_count() or 1):
        about["note"] = " ".join(
            filter(None, (about["note"], "The machine was busy with other work: preliminary."))
        )
    if words.record:
        report.write(results, words.record)
    print(report.text(results), end="")


if __name__ == "__main__":
    main()
