"""Tables and the chart, from made-up results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import report

SVG = "{http://www.w3.org/2000/svg}"


def made_up(**more: Any) -> dict[str, Any]:
    question = {
        "key": "echo-1024-100",
        "number": 1,
        "title": "Echo <1 KiB>",
        "unit": "request",
        "chart": True,
        "contenders": {
            "c": {"cost": [4.0, 4.0, 4.0], "rate": [2e5, 2e5, 2e5]},
            "gevent": {"cost": [12.0, 12.0, 12.0], "rate": [9e4, 9e4, 9e4]},
            "connection": {"cost": [6.0, 6.0, 6.0], "rate": [1e5, 1e5, 1e5], "lost": 3},
        },
        "skipped": {"trio": "No module named 'trio'"},
    }
    about = {
        "date": "2026-01-02 03:04 UTC",
        "machine": "a machine, 2 cores",
        "system": "Linux",
        "form": "the short form",
        "versions": {"Python": "3.11"},
        "load": [0.1, 0.9],
        "note": "",
    }
    return {"about": about, "questions": [question | more]}


def test_the_cheapest_comes_first_and_the_limit_is_one() -> None:
    rows = report.question_rows(made_up()["questions"][0])
    assert rows[0] == ["contender", "us CPU/request", "+-", "requests/s", "/ C"]
    assert [row[0] for row in rows[1:]] == [
        "C, epoll (the limit)",
        "greentaps Connection",
        "gevent server",
    ]
    assert [row[-1] for row in rows[1:]] == ["1.00", "1.50", "3.00"]


def test_memory_has_no_rate() -> None:
    memory = {"gevent": {"cost": [9.0], "rate": []}}
    (question,) = made_up(unit="idle connection", contenders=memory)["questions"]
    rows = report.question_rows(question)
    assert rows == [
        ["contender", "kB", "+-", "/ gevent server"],
        ["gevent server", "9.00", "0%", "1.00"],
    ]


def test_text_and_markdown_say_the_same_things() -> None:
    for said in (report.text(made_up()), report.markdown(made_up())):
        assert "2026-01-02" in said
        assert "Connection, no framer / gevent" in said
        assert "met, stretch too" in said  # 6 / 12
        assert "not measured" in said
        assert "trio: not measured: No module named 'trio'" in said
        assert "3 datagrams were lost" in said


def test_targets_that_are_missed_come_with_a_reason() -> None:
    results = made_up()
    results["questions"][0]["contenders"]["gevent"]["cost"] = [6.0, 6.0, 6.0]
    assert "Not met, and why:" in report.text(results)
    assert "- Connection, no framer / gevent:" in report.markdown(results)


def test_resumption_that_does_not_happen_is_told() -> None:
    (question,) = made_up(
        key="handshake-resumed",
        contenders={"gevent": {"cost": [1.0], "rate": [1.0], "resumed": 0.5}},
    )["questions"]
    assert any("50%" in remark for remark in report.remarks(question))


def test_columns_of_text_are_aligned() -> None:
    lines = report.aligned([["name", "n"], ["a", "1"], ["longer", "22"]]).splitlines()
    assert lines == ["name     n", "------  --", "a        1", "longer  22"]


def test_markdown_tables_survive_a_bar() -> None:
    assert "a\\|b" in report.piped([["head", "n"], ["a|b", "1"]])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123, "0.12"), (12.34, "12.3"), (123.4, "123"), (12345.0, "12 345")],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert report.number(value) == shown


def test_the_chart_is_svg_with_a_bar_for_each_and_ours_in_another_colour() -> None:
    drawn = ET.fromstring(report.chart(made_up()))
    assert drawn.tag == f"{SVG}svg"
    bars = drawn.findall(f"{SVG}rect")[1:]  # the first is the paper
    assert len(bars) == 3
    assert len({bar.get("fill") for bar in bars}) == 2
    assert float(bars[2].get("width", 0)) == 3 * float(bars[0].get("width", 0))
    assert any("Echo <1 KiB>" in (text.text or "") for text in drawn.findall(f"{SVG}text"))


def test_questions_that_are_not_marked_are_not_drawn() -> None:
    drawn = ET.fromstring(report.chart(made_up(chart=False)))
    assert len(drawn.findall(f"{SVG}rect")) == 1


def test_all_files_are_written(tmp_path: Path) -> None:
    report.write(made_up(), tmp_path / "new")
    assert {file.name for file in (tmp_path / "new").iterdir()} == {
        "results.json",
        "results.txt",
        "results.md",
        "chart.svg",
    }
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == made_up()


def test_what_is_kept_in_the_documentation_belongs_to_its_raw_figures() -> None:
    kept = Path(__file__).parents[2] / "docs" / "performance"
    results = json.loads((kept / "results.json").read_text())
    assert (kept / "results.txt").read_text() == report.text(results)
    assert (kept / "results.md").read_text() == report.markdown(results)
    assert (kept / "chart.svg").read_text() == report.chart(results)
