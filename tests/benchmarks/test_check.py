"""Verdicts on instruction counts.  Counting itself needs valgrind, and a minute."""

from __future__ import annotations

import pytest

from benchmarks.check import PATHS, table, total, verdicts
from benchmarks.measuring import ProgramError


def test_a_change_within_the_tolerance_is_none() -> None:
    found = verdicts({"a": 1010, "b": 1100, "c": 900, "d": 5}, {"a": 1000, "b": 1000, "c": 1000})
    assert [each.word for each in found] == ["same", "LONGER", "shorter", "new"]
    assert found[1].change == pytest.approx(0.1)


def test_the_table_names_all() -> None:
    shown = table(verdicts({"a path": 1100, "another": 5}, {"a path": 1000}))
    assert "+10.0%" in shown
    assert "LONGER" in shown
    assert "new" in shown


def test_the_total_of_a_dump() -> None:
    assert total("events: Ir\nfn=(1) main\n1 2\ntotals: 12345\n") == 12345
    with pytest.raises(ProgramError):
        total("events: Ir\n")


def test_every_hot_path_has_a_name_of_its_own() -> None:
    assert len({path.name for path in PATHS}) == len(PATHS)
