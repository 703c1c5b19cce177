"""Medians, spreads and ratios.  Pure.

One figure says little on a machine that others use too.  So each is measured in several rounds, in
which all contenders take turns, and what is reported is the median; a ratio is the median of the
ratios within the rounds, where a slow moment of the machine has met both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

__all__ = ["calibrated", "median", "ratio", "spread"]


def ratio(top: Sequence[float], bottom: Sequence[float]) -> float:
    """*top* / *bottom*, both with one figure for each round of one run."""
    return median(one / other for one, other in zip(top, bottom, strict=True))


def spread(values: Sequence[float]) -> float:
    """How far the middle half of *values* is from their median at most, as a part of it."""
    if len(values) < 3:
        return 0.0
    middle = median(values)
    if not middle:
        return 0.0
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return max(middle - ordered[quarter], ordered[-1 - quarter] - middle) / middle


def calibrated(count: int, seconds: float, wanted: float, least: int, most: int) -> int:
    """How many of something to do for *wanted* seconds, if *count* took *seconds*."""
    return max(least, min(most, int(count * wanted / max(seconds, 1e-6))))
