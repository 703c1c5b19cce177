"""Why a Connection came out as it did: the tree of its candidates, and the story of their race, as
data, as text and as a picture.  Pure.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..endpoint import RemoteEndpoint
from ..properties import TransportProperties
from .candidates import Candidate, Node, show_endpoint
from .racing import Moment

__all__ = ["AttemptRecord", "Explanation"]

_WIDTH = 48  # columns of a time line
_MARKS = {"won": ">", "failed": "x", "stopped": "|", "running": "-"}
_FEW = 3  # how many Remote Endpoints the first line of a tree names


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
        self,
        root: Node,
        story: Sequence[Moment] | None = None,
        begun: float = 0.0,
        *,
        remotes: Sequence[RemoteEndpoint] = (),
        properties: TransportProperties | None = None,
        security: str = "",
    ) -> None:
        self._root = root
        self._story = story
        self._begun = begun
        self._remotes = remotes
        self._properties = properties
        self._security = security
        self.earlier: Explanation | None = None
        """That of the race which was lost before this one began: the one with TLS, where security
        is opportunistic and this one is without; else None."""

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
        for moment in self._story or ():
            if moment.what == "begun" and moment.node.candidate is not None:
                return moment.time - self._begun
        return 0.0

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

    @property
    def peer(self) -> str:
        """The Remote Endpoints, as people write them."""
        named = [show_endpoint(end) for end in self._remotes[:_FEW]]
        more = len(self._remotes) - len(named)
        return " or ".join([*named, f"{more} more"] if more else named)

    @property
    def asked(self) -> list[str]:
        """What was asked for explicitly, in words: security, and Selection Properties."""
        found = [self._security] if self._security else []
        if self._properties is not None:
            explicit = self._properties.explicit()
            found += [
                f"{str(level).lower()} {name}"
                for name, level in sorted(self._properties.preferences())
                if name in explicit
            ]
            for name in ("interface", "pvd"):
                pairs = self._properties.get(name)
                found += sorted(f"{str(level).lower()} {name} {what}" for level, what in pairs)
        return found

    def text(self) -> str:
        """The tree, drawn with lines: first the peer and what was asked for, then for each node its
        number, what it is, the reasons for its place or why it was cut, and what became of it.
        What was earlier comes first."""
        fates = dict(self.fates()) if self._story is not None else {}
        if self.earlier is not None:
            return f"{self.earlier.text()}\n\n{self._own_text(fates)}"
        return self._own_text(fates)

    def _own_text(self, fates: Mapping[Node, str]) -> str:
        asked = self.asked
        first = f"{self._root.number} {self.peer}".rstrip()
        lines = [f"{first}  (asked for: {', '.join(asked)})" if asked else first]
        for node, ahead in _drawn(self._root):
            if node is self._root:
                continue
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
        if self.earlier is not None:
            return f"{self.earlier.timeline()}\n\n{self._own_timeline()}"
        return self._own_timeline()

    def _own_timeline(self) -> str:
        attempts = self.attempts
        if not attempts:
            return "nothing was attempted"
        whole = self._length(attempts)
        width = max(len(one.number) for one in attempts)
        lines = [f"{'':{width}}  0 ms{_in_ms(whole):>{_WIDTH - 4}}"]
        for one in attempts:
            first = int(one.started / whole * (_WIDTH - 1))
            last = int((whole if one.ended is None else one.ended) / whole * (_WIDTH - 1))
            bar = " " * first + "=" * (last - first) + _MARKS[one.fate]
            lines.append(f"{one.number:{width}}  {bar:{_WIDTH}}  {one.candidate}: {_told(one)}")
        return "\n".join(lines)

    def svg(self) -> str:
        """The race as a picture: an SVG document, as large as its words need."""
        attempts = self.attempts
        whole = self._length(attempts)
        headline = self._headline(attempts)
        rows = []
        widest = _right_of(10, headline)
        y = _FIRST_ROW
        for one in attempts:
            end = whole if one.ended is None else one.ended
            words = textwrap.wrap(_told(one), _LONGEST) or [""]
            lines = [f"{one.number} {one.candidate}", *words]
            widest = max([widest, *(_right_of(_LABELS, line) for line in lines)])
            rows.append(
                _SVG_BAR.format(
                    y=y,
                    x=round(10 + _BARS * one.started / whole, 1),
                    width=round(max(_BARS * (end - one.started) / whole, 2), 1),
                    color=_COLORS[one.fate],
                )
            )
            for place, line in enumerate(lines):
                rows.append(
                    _SVG_TEXT.format(
                        x=_LABELS,
                        y=y + 13 + _LINE * place,
                        weight="bold" if not place and one.fate == "won" else "normal",
                        color=_GREY if place else _BLACK,
                        text=escape(line),
                    )
                )
            y += _LINE * len(lines) + 12
        return _SVG.format(
            width=widest,
            height=y,
            axis=_FIRST_ROW - 12,
            over_axis=_FIRST_ROW - 18,
            end=10 + _BARS,
            headline=escape(headline),
            whole=_in_ms(whole),
            rows="\n".join(rows),
        )

    def _headline(self, attempts: Sequence[AttemptRecord]) -> str:
        to = f"to {self.peer}: " if self._remotes else ""
        if not attempts:
            return f"{to}nothing was attempted"
        tried = f"{len(attempts)} attempt{'s' if len(attempts) > 1 else ''}"
        won = [one for one in attempts if one.fate == "won"]
        return f"{to}{tried}, won by {won[0].candidate}" if won else f"{to}{tried}, none has won"

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


def _in_ms(seconds: float) -> str:
    return f"{1000 * seconds:.{1 if seconds < 0.00995 else 0}f} ms"


def _told(one: AttemptRecord) -> str:
    if one.ended is None:
        return f"running since {_in_ms(one.started)}"
    took = _in_ms(one.ended - one.started)
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


# -- The picture, in pixels --

_COLORS = {"won": "#2a7", "failed": "#c43", "stopped": "#999", "running": "#48c"}
_BLACK, _GREY = "#111", "#555"
_BARS = 380  # the width of the whole time
_LABELS = 410  # where the words begin
_FIRST_ROW = 70
_LINE = 16
_LONGEST = 90  # characters of a line
# More than letters of 12 pixels take in the fonts that systems have for sans-serif.
_LETTER, _WIDE_LETTER = 7.5, 13.0


def _right_of(x: float, text: str) -> int:
    """Where *text* that begins at *x* has ended, with a margin."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return round(x + _LETTER * (len(text) - wide) + _WIDE_LETTER * wide + 10)


_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">
<title>{headline}</title>
<rect width="100%" height="100%" fill="white"/>
<text x="10" y="22" font-weight="bold">{headline}</text>
<line x1="10" y1="{axis}" x2="{end}" y2="{axis}" stroke="#333"/>
<text x="10" y="{over_axis}">0 ms</text>
<text x="{end}" y="{over_axis}" text-anchor="end">{whole}</text>
{rows}
</svg>
"""

_SVG_BAR = '<rect x="{x}" y="{y}" width="{width}" height="18" fill="{color}"/>'
_SVG_TEXT = '<text x="{x}" y="{y}" font-weight="{weight}" fill="{color}">{text}</text>'
