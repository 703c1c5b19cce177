"""Verdicts on targets."""

from __future__ import annotations

from benchmarks.targets import Target, outcomes

AT_MOST = Target("cost", ("q", "a"), ("q", "b"), 0.9, 0.5)
AT_LEAST = Target("throughput", ("p", "limit"), ("q", "a"), 0.6, 0.8, at_least=True)


def verdict(target: Target, **questions: dict[str, list[float]]) -> tuple[float | None, str]:
    (found,) = outcomes(questions, [target])
    return found.ratio, found.word


def test_at_most() -> None:
    assert verdict(AT_MOST, q={"a": [1.0], "b": [2.0]}) == (0.5, "met, stretch too")
    assert verdict(AT_MOST, q={"a": [1.6], "b": [2.0]}) == (0.8, "met")
    assert verdict(AT_MOST, q={"a": [2.0], "b": [2.0]}) == (1.0, "NOT MET")


def test_the_verdict_is_on_what_is_shown() -> None:
    assert verdict(AT_MOST, q={"a": [0.904], "b": [1.0]})[1] == "met"
    assert verdict(AT_MOST, q={"a": [0.906], "b": [1.0]})[1] == "NOT MET"


def test_at_least_over_two_questions_of_unlike_rounds() -> None:
    slow = {"a": [10.0, 2.0, 2.0]}
    assert verdict(AT_LEAST, p={"limit": [1.4]}, q=slow) == (0.7, "met")
    assert verdict(AT_LEAST, p={"limit": [1.7]}, q=slow)[1] == "met, stretch too"
    assert verdict(AT_LEAST, p={"limit": [1.0]}, q=slow)[1] == "NOT MET"


def test_what_was_not_asked_is_not_judged() -> None:
    assert verdict(AT_MOST) == (None, "not measured")
    assert verdict(AT_MOST, q={"a": [1.0]}) == (None, "not measured")
