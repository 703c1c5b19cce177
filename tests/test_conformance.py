"""The claims of the conformance tests hold together: items exist, and are proved by tests that run.

The list of claims comes from a pytest of its own, so that it is complete however few tests are
being run here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rfc9622 import conformance
from rfc9622.conformance import Claim


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> list[Claim]:
    path = tmp_path_factory.mktemp("conformance") / "claims.json"
    script = Path(conformance.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "--json", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert path.exists(), done.stderr
    found = json.loads(path.read_text())
    return [Claim(one["test"], set(one["ids"]), never=one["never"]) for one in found["claims"]]


def test_the_lists_are_whole() -> None:
    items = conformance.items()
    assert sum(item.rfc == "9622" for item in items.values()) == 442
    assert sum(item.rfc == "9623" for item in items.values()) == 321
    for item in items.values():
        assert item.family in conformance.FAMILIES[item.rfc]
        assert item.words


def test_every_claimed_item_exists(claims: list[Claim]) -> None:
    assert claims
    assert conformance.unknown(claims, conformance.items()) == []


def test_no_item_is_claimed_only_by_tests_that_do_not_run(claims: list[Claim]) -> None:
    assert conformance.proved_by_none(claims) == []


def test_every_item_has_a_test_or_a_reason(claims: list[Claim]) -> None:
    assert conformance.without_reason(claims, conformance.items()) == []


def test_every_reason_is_about_an_item_and_says_something() -> None:
    items = conformance.items()
    for item, reason in conformance.MISSING.items():
        assert item in items
        assert len(reason.split()) > 4, item
        assert "#" not in reason


def test_each_common_reason_is_still_one() -> None:
    for name, reason in vars(conformance).items():
        if name.isupper() and isinstance(reason, str):
            assert any(line.startswith(reason) for line in conformance.MISSING.values()), name


def test_wrong_claims_are_found() -> None:
    items = conformance.items()
    wrong = Claim("tests/x.py::test", {"P-01", "P-99"}, never=False)
    skipped = Claim("tests/x.py::test_skipped", {"P-02"}, never=True)
    assert len(conformance.unknown([wrong], items)) == 1
    assert len(conformance.proved_by_none([wrong, skipped])) == 1
    assert conformance.proved_by_none([Claim("other", {"P-02"}, never=False), skipped]) == []


def test_the_tables_tell_every_item(claims: list[Claim]) -> None:
    text, rst = conformance.text(claims), conformance.rst(claims)
    for item in conformance.items().values():
        assert f"\n{item.id} " in f"\n{text}"
        assert f"* - {item.id}\n" in rst
