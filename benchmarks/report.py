"""From results to tables (text, Markdown) and a chart (SVG).  Pure, but for `write` and `main`.

    python -m benchmarks.report RESULTS.json [DIRECTORY]

prints the tables again, or writes all files again into DIRECTORY: after a target got its reason,
say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from .figures import median, ratio, spread
from .questions import contender, title_of
from .targets import Outcome, outcomes

__all__ = ["chart", "markdown", "text", "write"]

Rows = list[list[str]]
_COSTS = {"GB": "s CPU/GB", "idle connection": "kB", "establishment": "us until ready"}
_RATES = {"GB": "GB/s"}


def cost_unit(unit: str) -> str:
    """What the costs of a question in *unit* are."""
    return _COSTS.get(unit, f"us CPU/{unit}")


def rate_unit(unit: str) -> str:
    """What its rates are."""
    return _RATES.get(unit, f"{unit}s/s")


def number(value: float) -> str:
    """Three digits that count, and no more than anybody believes."""
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def costs_of(results: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Per question and contender the costs, one per round."""
    return {
        question["key"]: {name: each["cost"] for name, each in question["contenders"].items()}
        for question in results["questions"]
    }


# -- Tables --


def about_rows(about: dict[str, Any]) -> Rows:
    """What it was measured on, as pairs."""
    rows = [
        [name, str(about[name])] for name in ("date", "machine", "system", "form") if name in about
    ]
    rows += [[name, version] for name, version in about.get("versions", {}).items()]
    if "load" in about:
        rows.append(["load average", "{} before, {} after".format(*about["load"])])
    if about.get("note"):
        rows.append(["note", about["note"]])
    return rows


def question_rows(question: dict[str, Any]) -> Rows:
    """The table of one question, its head first; in the order of cost."""
    unit = question["unit"]
    found = question["contenders"]
    rated = any(each["rate"] for each in found.values())
    head = ["contender", cost_unit(unit), "+-"] + ([rate_unit(unit)] if rated else [])
    base = next(iter(found), None)
    if base is not None:
        head.append(f"/ {contender(base).title.split(' (')[0].split(',')[0]}")
    rows = [head]
    for name, each in sorted(found.items(), key=lambda item: median(item[1]["cost"])):
        row = [title_of(name), number(median(each["cost"])), f"{spread(each['cost']):.0%}"]
        if rated:
            row.append(number(median(each["rate"])))
        row.append(f"{ratio(each['cost'], found[base]['cost']):.2f}")
        rows.append(row)
    return rows


def remarks(question: dict[str, Any]) -> list[str]:
    """What a table cannot say: who was skipped, what was lost."""
    said = [f"{title_of(name)}: not measured: {why}" for name, why in question["skipped"].items()]
    for name, each in question["contenders"].items():
        if each.get("lost"):
            said.append(f"{title_of(name)}: {each['lost']} datagrams were lost and sent again")
        if "resumed" in each and question["key"].endswith("resumed") and each["resumed"] < 0.9:
            said.append(f"{title_of(name)}: only {each['resumed']:.0%} of the handshakes resumed")
    return said


def target_rows(found: Sequence[Outcome]) -> Rows:
    """The table of the targets, its head first."""
    rows = [["target", "wanted", "stretch", "measured", "verdict"]]
    for each in found:
        target = each.target
        sign = ">=" if target.at_least else "<="
        rows.append(
            [
                target.what,
                f"{sign} {target.limit:g}",
                f"{target.stretch:g}",
                "-" if each.ratio is None else f"{each.ratio:.2f}",
                each.word,
            ]
        )
    return rows


def aligned(rows: Rows) -> str:
    """*rows* as text: the first column to the left, the others to the right; the last of words."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def piped(rows: Rows) -> str:
    """*rows* as a Markdown table."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "| --- |" + " ---: |" * (len(rows[0]) - 1))
    return "\n".join(lines)


def _reasons(found: Sequence[Outcome]) -> list[str]:
    return [
        f"{each.target.what}: {each.target.why or 'the reason is not known yet.'}"
        for each in found
        if each.met is False
    ]


def text(results: dict[str, Any]) -> str:
    """All of it, to read in a terminal."""
    found = outcomes(costs_of(results))
    parts = ["\n".join(f"{name + ':':14} {value}" for name, value in about_rows(results["about"]))]
    parts.append("Targets\n=======\n\n" + aligned(target_rows(found)))
    if reasons := _reasons(found):
        parts.append("Not met, and why:\n\n" + "\n".join(f"- {reason}" for reason in reasons))
    for question in results["questions"]:
        title = f"{question['number']}. {question['title']}"
        lines = [title, "=" * len(title), "", aligned(question_rows(question))]
        lines += [f"({remark})" for remark in remarks(question)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def markdown(results: dict[str, Any]) -> str:
    """All of it in Markdown."""
    found = outcomes(costs_of(results))
    parts = ["# Performance figures", piped([["", ""], *about_rows(results["about"])])]
    parts += ["## Targets", piped(target_rows(found))]
    if reasons := _reasons(found):
        parts += ["Not met, and why:", "\n".join(f"- {reason}" for reason in reasons)]
    for question in results["questions"]:
        parts += [f"## {question['number']}. {question['title']}", piped(question_rows(question))]
        if said := remarks(question):
            parts.append("\n".join(f"- {remark}" for remark in said))
    return "\n\n".join(parts) + "\n"


# -- The chart --

_WIDTH, _LABELS, _VALUES = 760, 240, 90
_BAR, _GAP, _TITLE, _MARGIN = 16, 5, 34, 16
_OURS, _OTHERS, _INK, _PAPER = "#0b7a75", "#b8b8b0", "#222222", "#ffffff"


def chart(results: dict[str, Any]) -> str:
    """Bars of what each contender costs: one panel for each question that is marked for it."""
    panels = [each for each in results["questions"] if each["chart"] and each["contenders"]]
    body: list[str] = []
    top = _MARGIN
    for question in panels:
        top = _panel(question, top, body)
    about = results["about"]
    caption = " - ".join(filter(None, (about.get("date"), about.get("machine"), about.get("form"))))
    body.append(_words(_MARGIN, top + 10, caption, size=10))
    height = top + 24
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"',
            f'  width="{_WIDTH}" height="{height}" font-family="sans-serif" role="img">',
            "<title>What each contender costs; shorter is better</title>",
            f'<rect width="{_WIDTH}" height="{height}" fill="{_PAPER}"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def _panel(question: dict[str, Any], top: int, body: list[str]) -> int:
    """Draw one panel from *top* on; where the next one begins."""
    body.append(
        _words(
            _MARGIN,
            top + 12,
            f"{question['title']} ({cost_unit(question['unit'])}; shorter is better)",
            size=13,
            weight="bold",
        )
    )
    top += _TITLE - 10
    costs = {name: median(each["cost"]) for name, each in question["contenders"].items()}
    longest = max(max(costs.values()), 1e-9)
    room = _WIDTH - _LABELS - _VALUES - _MARGIN
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        length = max(room * cost / longest, 1.0)
        colour = _OURS if contender(name).ours else _OTHERS
        middle = top + _BAR - 4
        body.append(_words(_LABELS - 8, middle, title_of(name), anchor="end"))
        body.append(
            f'<rect x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>'
        )
        body.append(_words(_LABELS + length + 6, middle, number(cost)))
        top += _BAR + _GAP
    return top + _MARGIN


def _words(
    x: float, y: float, words: str, *, size: int = 12, weight: str = "", anchor: str = ""
) -> str:
    more = f' font-weight="{weight}"' if weight else ""
    more += f' text-anchor="{anchor}"' if anchor else ""
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" fill="{_INK}"{more}>{escape(words)}</text>'
    )


# -- Files --


def write(results: dict[str, Any], directory: Path) -> None:
    """Write results.json, results.txt, results.md and chart.svg into *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (directory / "results.txt").write_text(text(results), encoding="utf-8")
    (directory / "results.md").write_text(markdown(results), encoding="utf-8")
    (directory / "chart.svg").write_text(chart(results), encoding="utf-8")


def main() -> None:
    results = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if len(sys.argv) > 2:
        write(results, Path(sys.argv[2]))
    else:
        print(text(results), end="")


if __name__ == "__main__":
    main()
