"""Which items of RFC 9622 and RFC 9623 are proved, and by which tests.

The items are in ``checklist.csv`` (RFC 9622) and ``implementation.csv`` (RFC 9623 and RFC 9621):
a number, and a few words to recognise it by.  A test names those that it proves with
``@pytest.mark.rfc("P-01", ...)``.  `MISSING` says why the others have no test.

::

    make conformance                                   run the tests that name items; the table
    python tests/rfc9622/conformance.py --collect-only the same without running them
    python tests/rfc9622/conformance.py --rst FILE     the table for the documentation

The exit status is 1 if a test names an item that does not exist, if an item has neither a test
nor a reason, or if a test fails.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LISTS = {"9622": HERE / "checklist.csv", "9623": HERE / "implementation.csv"}

FAMILIES = {
    "9622": {
        "T": "types and names",
        "TP": "the property object",
        "E": "endpoints",
        "ML": "multicast",
        "P": "properties",
        "CP": "capacity profiles",
        "MP": "multipath policies",
        "CS": "schedulers",
        "SP": "security",
        "PC": "preconnections",
        "I": "active open",
        "L": "listeners",
        "R": "rendezvous",
        "G": "groups",
        "AE": "changing endpoints",
        "CM": "managing Connections",
        "LE": "lifecycle events",
        "MC": "message contexts",
        "F": "framers",
        "SN": "sending",
        "PR": "priorities",
        "RV": "receiving",
        "TM": "termination",
        "ST": "states",
        "OR": "ordering",
        "PF": "profiles",
        "MU": "MUST",
        "SH": "SHOULD and MAY",
        "X": "privacy and security",
        "EV": "events",
        "AC": "actions",
        "ER": "reasons of errors",
        "MS": "the minimal set",
        "N": "gaps in the text, and what we do",
        "B": "the blocking form",
    },
    "9623": {
        "A": "requirements of RFC 9621",
        "O": "objects",
        "PE": "preestablishment",
        "CT": "the candidate tree",
        "BR": "sorting",
        "CG": "gathering",
        "CR": "racing",
        "HE": "racing of addresses",
        "DN": "completing establishment",
        "MX": "multiplexing",
        "LS": "listeners",
        "DS": "sending",
        "DR": "receiving",
        "ZR": "early data",
        "MF": "the framers' interface",
        "MG": "management",
        "PP": "pools",
        "PX": "path changes",
        "CX": "termination",
        "RZ": "rendezvous",
        "CA": "caches",
        "TC": "TCP",
        "MT": "MPTCP",
        "UD": "UDP",
        "UL": "UDP-Lite",
        "UM": "UDP multicast",
        "SC": "SCTP",
        "SO": "means of the system",
        "SR": "security",
        "Q": "gaps in the text, and what we do",
        "FM": "what protocols offer",
        "TT": "end to end",
    },
}

# -- What is missing, and why --

MULTICAST = "needs multicast: no plugin joins a group or sends to one"
SCTP = "needs SCTP, a protocol with streams and messages: no plugin speaks it"
MPTCP = "needs MPTCP: no plugin opens a socket of that protocol"
UDPLITE = "needs UDP-Lite: no plugin opens a socket of that protocol"
STREAMS = "needs a protocol with streams: each Connection here has a transport of its own"

# Why an item has no test: one line for each.
MISSING: dict[str, str] = {
    # RFC 9622
    "E-11": MULTICAST + ": a Remote Endpoint takes no group",
    "E-13": MULTICAST + ": a Local Endpoint takes no group with its source",
    "E-14": MULTICAST + ": a Local Endpoint takes no group",
    "ML-01": MULTICAST,
    "ML-02": MULTICAST,
    "ML-03": MULTICAST,
    "ML-04": MULTICAST,
    "ML-05": MULTICAST + "; with_ip_address() never joins, since nothing does",
    "ML-06": MULTICAST,
    "ML-07": MULTICAST,
    "MP-01": MPTCP + ", so the value is kept, and nothing hands over",
    "MP-02": MPTCP + ", so the value is kept, and no second path is used",
    "MP-03": MPTCP + ", so the value is kept, and no second path is used",
    "L-09": STREAMS,
    "R-07": MULTICAST,
    "AE-05": "needs a protocol that manages several paths, such as MPTCP",
    "CM-08": "a duty of applications: to prefer generic properties where there are both",
    "PR-02": "says that nothing is promised, which no test can show",
    "SH-01": "a duty of applications: to know which events they ignore",
    "SH-10": "a duty of applications: a name is resolved as it was given, with the system's search "
    "domains if it has no dot",
    "SH-11": "a duty of applications: not to take a type of interface for a price",
    "SH-12": "a duty of applications that turn congestion control off or send keep-alives",
    "SH-16": "a duty of applications: to prefer generic properties where there are both",
    "SH-19": "a duty of applications: to look at the length that they get",
    "SH-21": "a duty of applications: to mark what is safely replayable",
    "SH-22": "a duty of applications: not to wait for a final mark",
    "N-04": MULTICAST,
    # RFC 9621 and RFC 9623
    "A-15": "a duty of applications: not to rely on caches",
    "MX-02": STREAMS,
    "LS-06": STREAMS,
    "PP-01": "a Connection has one transport, and is never spread over several",
    "PP-02": "a Connection has one transport, and is never spread over several",
    "PX-02": "needs a protocol that migrates: none of these changes its path",
    "PX-04": "needs a protocol that uses several paths",
    "PX-05": "needs a protocol that uses several paths or migrates",
    "CX-02": STREAMS,
    "MT-01": MPTCP,
    "MT-02": MPTCP,
    "MT-03": MPTCP,
    "MT-04": MPTCP,
    "MT-05": MPTCP,
    "MT-06": MPTCP,
    "UL-01": UDPLITE,
    "UL-02": UDPLITE,
    "UL-03": UDPLITE,
    **dict.fromkeys([f"UM-{number:02}" for number in range(3, 18)], MULTICAST),
    **dict.fromkeys([f"SC-{number:02}" for number in range(3, 21)], SCTP),
    "SO-06": MPTCP,
    "SO-07": SCTP,
    "SO-09": UDPLITE + "; the checksum of UDP is never turned off",
    "SO-16": MULTICAST,
    "SO-21": SCTP,
    "SO-25": "the kernel does not say which datagram has failed, only that one has (see UD-08)",
    "Q-02": STREAMS + ", whose end this is about",
    "Q-06": MULTICAST,
    "Q-08": MULTICAST,
    "FM-10": "needs MPTCP or SCTP: TCP and UDP have no second path to offer",
    "TT-21": MULTICAST,
}


@dataclass(frozen=True)
class Item:
    """One item of a list."""

    id: str
    words: str
    rfc: str

    @property
    def family(self) -> str:
        return self.id.partition("-")[0]


@dataclass
class Claim:
    """A test (all its parameters together) that names items."""

    test: str
    ids: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    never: bool = True
    """Whether each of its parameters is marked to be skipped, or to fail."""

    @property
    def status(self) -> str:
        for outcome in ("failed", "passed", "skipped"):
            if self.outcomes[outcome]:
                return outcome
        return "never" if self.never else "named"


def items() -> dict[str, Item]:
    """Every item by its number, in the order of the lists."""
    found: dict[str, Item] = {}
    for rfc, path in LISTS.items():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["id"] in found:
                    raise ValueError(f"{row['id']} is there twice")
                found[row["id"]] = Item(row["id"], row["words"], rfc)
    return found


def reason_for(item: str) -> str | None:
    """Why *item* has no test."""
    return MISSING.get(item)


# -- asking pytest --


class Recorder:
    """A pytest plugin that notes which tests name items, and how they end."""

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}
        self.errors: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            ids = {one for mark in item.iter_markers("rfc") for one in mark.args}
            if not ids:
                continue
            claim = self._claim(item.nodeid)
            claim.ids |= ids
            if not any(map(item.get_closest_marker, ("skip", "xfail"))):
                claim.never = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("[")[0]
        if name in self.claims and (report.when == "call" or report.outcome != "passed"):
            self.claims[name].outcomes[report.outcome] += 1

    def _claim(self, nodeid: str) -> Claim:
        name = nodeid.partition("[")[0]
        return self.claims.setdefault(name, Claim(name))


def collect(*, run: bool, where: Sequence[str] = ()) -> Recorder:
    """Have pytest collect the tests that name items, and *run* them or not."""
    recorder = Recorder()
    arguments = ["-m", "rfc", "-q", "--no-header", "-p", "no:cacheprovider", *where]
    if not run:
        arguments += ["--collect-only", "--continue-on-collection-errors", "-qq"]
    before = Path.cwd()
    output = sys.stdout
    os.chdir(ROOT)
    try:
        sys.stdout = sys.stderr  # ours is for the table
        pytest.main(arguments, plugins=[recorder])
    finally:
        sys.stdout = output
        os.chdir(before)
    return recorder


# -- what is wrong --


def unknown(claims: Iterable[Claim], known: Mapping[str, Item]) -> list[str]:
    """Items that a test names and that do not exist."""
    return [
        f"{claim.test} names {one}, which is no item"
        for claim in claims
        for one in sorted(claim.ids - known.keys())
    ]


def proved_by_none(claims: Iterable[Claim]) -> list[str]:
    """Items that are only named by tests that never run, or that are to fail."""
    by_item: dict[str, list[Claim]] = {}
    for claim in claims:
        for one in claim.ids:
            by_item.setdefault(one, []).append(claim)
    return [
        f"{one} is only named by tests that are skipped or to fail: "
        f"{', '.join(claim.test for claim in those)}"
        for one, those in sorted(by_item.items())
        if all(claim.never for claim in those)
    ]


def not_missing(claims: Iterable[Claim]) -> list[str]:
    """Lines in MISSING for items that have a test: to be removed."""
    named = {one for claim in claims for one in claim.ids}
    return sorted(named & MISSING.keys())


def without_reason(claims: Iterable[Claim], known: Mapping[str, Item]) -> list[str]:
    """Items with neither a test nor a line in MISSING."""
    named = {one for claim in claims for one in claim.ids}
    return [
        f"{one} ({item.words}) has no test and no line in MISSING"
        for one, item in known.items()
        if one not in named and reason_for(one) is None
    ]


# -- the table --


def table(claims: Sequence[Claim]) -> list[tuple[Item, list[Claim], str]]:
    """(item, tests, status) for every item.

    The status is ``passed``, ``failed``, ``skipped``, ``named`` (not run), ``never``, or the
    reason why there is no test.
    """
    rows = []
    for item in items().values():
        those = [claim for claim in claims if item.id in claim.ids]
        statuses = {claim.status for claim in those}
        for status in ("failed", "passed", "named", "skipped", "never"):
            if status in statuses:
                break
        else:
            status = reason_for(item.id) or "no test"
        rows.append((item, those, status))
    return rows


def counts(claims: Sequence[Claim]) -> list[tuple[str, str, str, int, int]]:
    """(RFC, family, title, items, items with a test) for every family."""
    rows = table(claims)
    return [
        (
            rfc,
            family,
            title,
            sum(item.family == family for item, _, _ in rows),
            sum(item.family == family and bool(those) for item, those, _ in rows),
        )
        for rfc, families in FAMILIES.items()
        for family, title in families.items()
    ]


def text(claims: Sequence[Claim]) -> str:
    """The table for a terminal."""
    lines = []
    for item, those, status in table(claims):
        tests = ", ".join(_short(claim.test) for claim in those) or "-"
        lines.append(
            f"{item.id:<6} {status:<8} {item.words}: {tests}"
            if those
            else f"{item.id:<6} -        {item.words}: {status}"
        )
    lines += ["", f"{'family':<10} {'items':>6} {'tested':>7}"]
    total = Counter[str]()
    for rfc, family, title, all_, tested in counts(claims):
        lines.append(f"{family:<10} {all_:>6} {tested:>7}  {title}")
        total[rfc] += all_
        total[rfc + " tested"] += tested
    lines += [f"RFC {rfc}: {total[rfc + ' tested']} of {total[rfc]} items" for rfc in FAMILIES]
    return "\n".join(lines)


def rst(claims: Sequence[Claim]) -> str:
    """The table for the documentation, as reStructuredText without a page title."""
    out = [".. Written by tests/rfc9622/conformance.py --rst: do not edit.", ""]
    out += [".. list-table::", "   :header-rows: 1", "   :widths: 15 45 20 20", ""]
    out += _cells("Family", "About", "Items", "With a test")
    for _, family, title, all_, tested in counts(claims):
        out += _cells(family, title, str(all_), str(tested))
    out.append("")
    rows = table(claims)
    for rfc, families in FAMILIES.items():
        heading = f"RFC {rfc}"
        out += [heading, "-" * len(heading), ""]
        for family, title in families.items():
            out += [f"**{family}**: {title}", ""]
            out += [".. list-table::", "   :header-rows: 1", "   :widths: 10 35 55", ""]
            out += _cells("Item", "What", "Tests, or why there is none")
            for item, those, status in rows:
                if item.family == family:
                    tests = ", ".join(f"``{_short(claim.test)}``" for claim in those)
                    out += _cells(item.id, item.words.replace("*", "\\*"), tests or status)
            out.append("")
    return "\n".join(out)


def _cells(*cells: str) -> list[str]:
    return [f"   {'* -' if index == 0 else '  -'} {cell}" for index, cell in enumerate(cells)]


def _short(test: str) -> str:
    return test.removeprefix("tests/")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--collect-only", action="store_true", help="do not run the tests")
    parser.add_argument("--rst", metavar="FILE", help="write the documentation's table to FILE")
    parser.add_argument("--json", metavar="FILE", help="write what was found to FILE")
    parser.add_argument("where", nargs="*", help="files or folders of tests, instead of all")
    options = parser.parse_args(arguments)
    only = options.collect_only or options.rst or options.json
    recorder = collect(run=not only, where=options.where)
    claims = sorted(recorder.claims.values(), key=lambda claim: claim.test)
    if options.json:
        found: dict[str, Any] = {
            "claims": [
                {"test": claim.test, "ids": sorted(claim.ids), "never": claim.never}
                for claim in claims
            ],
            "errors": recorder.errors,
        }
        Path(options.json).write_text(json.dumps(found), encoding="utf-8")
    elif options.rst:
        Path(options.rst).write_text(rst(claims), encoding="utf-8")
    else:
        print(text(claims))
    known = items()
    wrong = unknown(claims, known) + proved_by_none(claims)
    if not options.where:
        wrong += without_reason(claims, known)
    wrong += [f"{claim.test} failed" for claim in claims if claim.status == "failed"]
    for line in wrong:
        print(line, file=sys.stderr)
    for one in not_missing(claims):
        print(f"{one} has a test: its line in MISSING can go", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
