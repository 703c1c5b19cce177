"""Why a Connection came out as it did: the tree of its candidates, and the story of their race, as
data, as text and as a picture.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from .candidates import Candidate, Node
from .racing import Moment

__all__ = ["AttemptRecord", "Explanation"]

_WIDTH = 48  # columns of a time line
_MARKS = {"won": ">", "failed": "x", "stopped": "|", "running": "-"}


@dataclass(frozen=True)
class AttemptRecord:
    """What became of one candidate that was attempted.

    *number* is its place in the tree; *started* and *ended* are seconds since the begin of the
    establishment, *ended* being None while it runs.  *fate* is ``"won"``, ``"failed"`` (with the
    *error*), ``"stopped"`` (another one was faster, or the time was over) or ``"running"``.
    """

    number: str
    candidate: Candidate
    started: float
    ended: float | None
    fate: str
    error: BaseException | None


class Explanation:
    """The candidates of one establishment and, once they were raced, what became of them.

    What `Preconnection.explain`, `Connection.history` and `EstablishmentError.history` give.
    """

    def __init__(
        self, root: Node, story: Sequence[Moment] | None = None, begun: float = 0.0
    ) -> None:
        self._root = root
        self._story = story
        self._begun = begun

    @property
    def tree(self) -> Node:
        """The root of the candidate tree.  A node has *number*, *what*, *children*, *candidate*
        (leaves only), *cut* (why it is not tried, or None) and *why* (reasons for its place)."""
        return self._root

    @property
    def moments(self) -> list[Moment]:
        """The story of the race, in order, with times in seconds since the begin; empty before."""
        return [moment._replace(time=moment.time - self._begun) for moment in self._story or ()]

    @property
    def attempts(self) -> list[AttemptRecord]:
        """What was attempted, in the order of the begins."""
        begins: dict[Node, float] = {}
        ends: dict[Node, Moment] = {}
        for moment in self.moments:
            if moment.node.candidate is None:
                continue
            if moment.what == "begun":
                begins[moment.node] = moment.time
            else:
                ends[moment.node] = moment
        found = []
        for node, started in begins.items():
            assert node.candidate is not None
            end = ends.get(node)
            found.append(
                AttemptRecord(
                    node.number,
                    node.candidate,
                    started,
                    end.time if end else None,
                    end.what if end else "running",
                    end.error if end else None,
                )
            )
        return found

    @property
    def preparation(self) -> float:
        """How many seconds went by until the first attempt began."""
        return next((one.started for one in self.attempts), 0.0)

    def fates(self) -> list[tuple[Node, str]]:
        """Each leaf, and each node that was cut, with what became of it in words."""
        told = {one.number: _told(one) for one in self.attempts}
        unresolved = {
            moment.node: f"not resolved: {moment.error}"
            for moment in self.moments
            if moment.what == "failed" and moment.node.candidate is None
        }
        found = []
        for node in self._root.walk():
            if node.cut is not None:
                found.append((node, f"cut: {node.cut}"))
            elif node.candidate is not None:
                found.append((node, told.get(node.number, "not tried")))
            elif node in unresolved:
                found.append((node, unresolved[node]))
        return found

    def text(self) -> str:
        """The tree, drawn with lines: a node's number, what it is, the reasons for its place or
        why it was cut, and what became of it."""
        fates = dict(self.fates()) if self._story is not None else {}
        lines = []
        for node, ahead in _drawn(self._root):
            words = [*node.why]
            if node in fates:
                words.append(fates[node])
            elif node.cut is not None:
                words.append(f"cut: {node.cut}")
            line = f"{ahead}{node.number} {node.what}".rstrip()
            lines.append(f"{line}  ({'; '.join(words)})" if words else line)
        return "\n".join(lines)

    def timeline(self) -> str:
        """The race as text: one line for each attempt, from its begin to its end."""
        attempts = self.attempts
        if not attempts:
            return "nothing was attempted"
        whole = self._length(attempts)
        width = max(len(one.number) for one in attempts)
        lines = [f"{'':{width}}  0 ms{f'{1000 * whole:.0f} ms':>{_WIDTH - 4}}"]
        for one in attempts:
            first = int(one.started / whole * (_WIDTH - 1))
            last = int((whole if one.ended is None else one.ended) / whole * (_WIDTH - 1))
            bar = " " * first + "=" * (last - first) + _MARKS[one.fate]
            lines.append(f"{one.number:{width}}  {bar:{_WIDTH}}  {one.candidate}: {_told(one)}")
        return "\n".join(lines)

    def svg(self) -> str:
        """The race as a picture: an SVG document."""
        attempts = self.attempts
        whole = self._length(attempts)
        rows = [
            _SVG_ROW.format(
                y=40 + 28 * row,
                text_y=40 + 28 * row + 14,
                x=round(10 + 380 * one.started / whole, 1),
                width=round(
                    max(
                        380 * ((whole if one.ended is None else one.ended) - one.started) / whole, 2
                    ),
                    1,
                ),
                color=_COLORS[one.fate],
                label=escape(f"{one.number} {one.candidate}: {_told(one)}"),
            )
            for row, one in enumerate(attempts)
        ]
        return _SVG.format(
            height=50 + 28 * len(attempts),
            title=escape(f"{len(attempts)} attempts"),
            whole=f"{1000 * whole:.0f} ms",
            rows="\n".join(rows),
        )

    def _length(self, attempts: Sequence[AttemptRecord]) -> float:
        """The seconds from the begin to the last thing that happened."""
        times = [moment.time for moment in self.moments]
        times += [one.ended for one in attempts if one.ended is not None]
        return max([*times, 1e-6])

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        count = sum(node.candidate is not None for node in self._root.walk())
        return f"<Explanation of {count} candidates>"


def _told(one: AttemptRecord) -> str:
    if one.ended is None:
        return f"running since {1000 * one.started:.0f} ms"
    took = f"{1000 * (one.ended - one.started):.0f} ms"
    if one.fate == "failed":
        return f"failed after {took}: {one.error}"
    return f"{one.fate} after {took}"


def _drawn(root: Node, ahead: str = "", below: str = "") -> Iterator[tuple[Node, str]]:
    """Each node of a tree, with the lines that lead to it."""
    yield root, ahead
    for place, child in enumerate(root.children):
        last = place == len(root.children) - 1
        yield from _drawn(
            child, below + ("└── " if last else "├── "), below + ("    " if last else "│   ")
        )


_COLORS = {"won": "#2a7", "failed": "#c43", "stopped": "#999", "running": "#48c"}

_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="900" height="{height}" font-family="sans-serif" \
font-size="12">
<title>{title}</title>
<rect width="100%" height="100%" fill="white"/>
<line x1="10" y1="28" x2="390" y2="28" stroke="#333"/>
<text x="10" y="20">0 ms</text>
<text x="390" y="20" text-anchor="end">{whole}</text>
{rows}
</svg>
"""

_SVG_ROW = """\
<rect x="{x}" y="{y}" width="{width}" height="18" fill="{color}"/>
<text x="400" y="{text_y}">{label}</text>"""
