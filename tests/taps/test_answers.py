"""When the answers about a name may be used: in virtual time, to the exact moment."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from greentaps.taps.naming.answers import (
    AAAA,
    MAX_ADDRESSES,
    MAX_TARGETS,
    RESOLUTION_DELAY,
    SERVICE,
    A,
    Answers,
    Question,
    Target,
)
from hypothesis import given
from hypothesis import strategies as st

BASE = Target("a.example", 80)
V6, V4 = Question(AAAA, BASE), Question(A, BASE)
S = Question(SERVICE, BASE)
BOTH = (AAAA, A)
NO = OSError("no answer")

# What happens: when, to which question, and the addresses or the error.
Told = tuple[float, Question, "Sequence[str] | Sequence[Target] | Exception"]
# What comes of it: when, which addresses are new, which are to be used no more, whether it is all.
Took = tuple[float, list[str], list[str], bool]


def run(answers: Answers, *events: Told) -> list[Took]:
    """Tell *events* at their times, look whenever something was told or is due, and return what
    may be used when."""
    waiting = sorted(events, key=lambda event: event[0])
    took: list[Took] = []
    now = 0.0
    asked = set(answers.ask())

    def look() -> None:
        release = answers.take(now)
        if release is not None:
            took.append(
                (
                    now,
                    [found.address for found in release.added],
                    [found.address for found in release.removed],
                    release.complete,
                )
            )

    while waiting or answers.wake_at is not None:
        wake_at = answers.wake_at
        if wake_at is not None and (not waiting or wake_at <= waiting[0][0]):
            assert wake_at >= now
            now = wake_at
            look()
            assert answers.wake_at is None or answers.wake_at > now
            continue
        now, question, what = waiting.pop(0)
        assert question in asked
        if isinstance(what, Exception):
            answers.fail(question, what, now)
        elif question.kind == SERVICE:
            answers.tell_targets(what, now)  # type: ignore[arg-type]
        else:
            answers.tell(question, what, now)  # type: ignore[arg-type]
        asked.update(answers.ask())
        look()
    return took


@pytest.mark.rfc("HE-07", "CT-06")
def test_aaaa_is_asked_first_and_a_right_behind() -> None:
    assert Answers(BASE, (A, AAAA)).ask() == [V6, V4]
    assert Answers(BASE, BOTH, service=True).ask() == [S, V6, V4]
    assert Answers(BASE, (A,)).ask() == [V4]


@pytest.mark.rfc("HE-07")
def test_aaaa_is_used_at_once() -> None:
    took = run(Answers(BASE, BOTH), (0.02, V6, ["::2"]), (0.5, V4, ["192.0.2.1"]))
    assert took == [(0.02, ["::2"], [], False), (0.5, ["192.0.2.1"], [], True)]


@pytest.mark.rfc("HE-01", "HE-07")
def test_a_waits_fifty_milliseconds_for_aaaa() -> None:
    took = run(Answers(BASE, BOTH), (1.0, V4, ["192.0.2.1"]), (9.0, V6, ["::2"]))
    assert took == [
        (1.0 + RESOLUTION_DELAY, ["192.0.2.1"], [], False),
        (9.0, ["::2"], [], True),  # late, and welcome
    ]
    assert RESOLUTION_DELAY == 0.05


@pytest.mark.rfc("HE-01")
def test_aaaa_in_the_fifty_milliseconds_brings_a_with_it() -> None:
    took = run(Answers(BASE, BOTH), (1.0, V4, ["192.0.2.1"]), (1.049, V6, ["::2"]))
    assert took == [(1.049, ["::2", "192.0.2.1"], [], True)]


@pytest.mark.rfc("HE-07")
@pytest.mark.parametrize("nothing", [[], NO])
def test_no_aaaa_ends_the_wait(nothing: Sequence[str] | Exception) -> None:
    took = run(Answers(BASE, BOTH), (1.0, V4, ["192.0.2.1"]), (1.01, V6, nothing))
    assert took == [(1.01, ["192.0.2.1"], [], True)]
    took = run(Answers(BASE, BOTH), (1.0, V6, nothing), (3.0, V4, ["192.0.2.1"]))
    assert took == [(3.0, ["192.0.2.1"], [], True)]


def test_one_family_waits_for_none() -> None:
    assert run(Answers(BASE, (A,)), (1.0, V4, ["192.0.2.1"])) == [(1.0, ["192.0.2.1"], [], True)]
    assert run(Answers(BASE, (AAAA,)), (1.0, V6, ["::2"])) == [(1.0, ["::2"], [], True)]
    with pytest.raises(ValueError, match="family"):
        Answers(BASE, ())


def test_nothing_at_all() -> None:
    answers = Answers(BASE, BOTH)
    assert run(answers, (1.0, V6, NO), (2.0, V4, [])) == [(2.0, [], [], True)]
    assert answers.errors == (NO,)
    assert answers.take(99.0) is None
    assert answers.wake_at is None


@pytest.mark.rfc("CT-12", "SR-03")
def test_ten_thousand_addresses() -> None:
    many = [f"192.0.{n >> 8}.{n & 255}" for n in range(10_000)]
    ((_, found, _, _),) = run(Answers(BASE, (A,)), (0.0, V4, many))
    assert found == many[:MAX_ADDRESSES]
    took = run(Answers(BASE, BOTH), (0.0, V6, ["::2"]), (0.1, V4, many))
    assert len(took[1][1]) == MAX_ADDRESSES // 2  # and room for the other family


def test_the_same_address_twice_counts_once() -> None:
    assert run(Answers(BASE, (A,)), (0.0, V4, ["192.0.2.1"] * 3))[0][1] == ["192.0.2.1"]


# -- Services --


def target(name: str, group: int, *hints: str) -> Target:
    return Target(name, 5222, group, hints=hints)


ONE, TWO = target("one", 1), target("two", 2)


@pytest.mark.rfc("CT-07")
def test_nothing_is_used_before_a_decisive_service_is_answered() -> None:
    answers = Answers(BASE, BOTH, service=True)
    took = run(
        answers,
        (0.0, V6, ["::9"]),
        (0.0, V4, ["192.0.2.9"]),
        (5.0, S, [ONE, TWO]),
        (5.1, Question(AAAA, ONE), ["::1"]),
        (5.2, Question(A, ONE), []),
        (5.3, Question(AAAA, TWO), ["::2"]),
        (5.4, Question(A, TWO), ["192.0.2.2"]),
    )
    assert took == [
        (5.1, ["::1"], [], False),
        (5.3, ["::2"], [], False),
        (5.4, ["192.0.2.2"], [], True),
    ]
    assert answers.order() == [ONE, TWO]


@pytest.mark.rfc("CT-06")
@pytest.mark.parametrize("nothing", [[], NO])
def test_without_records_of_a_service_the_name_itself_counts(
    nothing: Sequence[Target] | Exception,
) -> None:
    took = run(
        Answers(BASE, BOTH, service=True),
        (0.0, V6, ["::9"]),
        (0.1, V4, []),
        (0.2, S, nothing),
    )
    assert took == [(0.2, ["::9"], [], True)]


def test_a_refusal_is_final() -> None:
    answers = Answers(BASE, BOTH, service=True)
    answers.ask()
    answers.tell(V6, ["::9"], 0.0)
    assert answers.take(0.0) is None
    answers.refuse(NO)
    release = answers.take(1.0)
    assert release is not None
    assert (release.added, release.complete, answers.errors) == ((), True, (NO,))


@pytest.mark.rfc("CT-07")
def test_a_target_does_not_overtake_a_better_one_for_fifty_milliseconds() -> None:
    events: list[Told] = [
        (0.0, V6, []),
        (0.0, V4, []),
        (0.0, S, [ONE, TWO]),
        (1.0, Question(AAAA, TWO), ["::2"]),
        (1.0, Question(A, TWO), []),
        (9.0, Question(A, ONE), []),
    ]
    quick: Told = (1.02, Question(AAAA, ONE), ["::1"])
    slow: Told = (3.0, Question(AAAA, ONE), ["::1"])
    assert run(Answers(BASE, BOTH, service=True), *events, quick)[0] == (
        1.02,
        ["::1", "::2"],
        [],
        False,
    )
    assert run(Answers(BASE, BOTH, service=True), *events, slow)[:2] == [
        (1.05, ["::2"], [], False),
        (3.0, ["::1"], [], False),
    ]


def test_an_optional_service_is_waited_for_as_aaaa_is() -> None:
    events: list[Told] = [(1.0, V6, ["::9"]), (1.0, V4, [])]
    below: list[Told] = [(8.0, Question(AAAA, ONE), ["::1"]), (8.0, Question(A, ONE), [])]
    answers = Answers(BASE, BOTH, service=False)
    assert run(answers, *events, (1.03, S, [])) == [(1.03, ["::9"], [], True)]
    answers = Answers(BASE, BOTH, service=False)
    assert run(answers, *events, (7.0, S, [ONE]), *below) == [
        (1.05, ["::9"], [], False),
        (8.0, ["::1"], [], False),
        (8.0, [], [], True),
    ]
    # The name itself is the last resort (RFC 9460 section 3).
    assert answers.order() == [ONE, BASE]


@pytest.mark.rfc("HE-12")
def test_hints_are_used_until_the_answers_are_there() -> None:
    hinted = target("one", 1, "::1", "192.0.2.1")
    took = run(
        Answers(BASE, BOTH, service=True),
        (0.0, V6, NO),
        (0.0, V4, NO),
        (1.0, S, [hinted]),
        (2.0, Question(AAAA, hinted), ["::1", "::2"]),
        (3.0, Question(A, hinted), ["192.0.2.9"]),
    )
    assert took == [
        (1.0, ["::1", "192.0.2.1"], [], False),
        (2.0, ["::2"], [], False),
        (3.0, ["192.0.2.9"], ["192.0.2.1"], True),
    ]


def test_a_denial_with_a_reason_is_one() -> None:
    hinted = target("one", 1, "192.0.2.1")
    answers = Answers(BASE, (A,), service=True)
    answers.ask()
    answers.tell_targets([hinted], 1.0)
    answers.ask()
    first = answers.take(1.0)
    assert first is not None
    assert [found.address for found in first.added] == ["192.0.2.1"]
    answers.fail(Question(A, hinted), NO, 2.0, certain=True)
    last = answers.take(2.0)
    assert last is not None
    assert [found.address for found in last.removed] == ["192.0.2.1"]
    assert last.complete
    assert answers.errors == (NO,)


def test_a_hint_outlives_a_failure_but_not_a_denial() -> None:
    hinted = target("one", 1, "192.0.2.1")
    for what, removed in ((NO, []), ([], ["192.0.2.1"])):
        took = run(
            Answers(BASE, (A,), service=True),
            (0.0, V4, NO),
            (1.0, S, [hinted]),
            (2.0, Question(A, hinted), what),
        )
        assert took == [(1.0, ["192.0.2.1"], [], False), (2.0, [], removed, True)]


@pytest.mark.rfc("CT-12", "SR-03")
def test_a_thousand_targets() -> None:
    answers = Answers(BASE, (A,), service=True)
    answers.ask()
    answers.tell_targets([Target(f"t{n}", n) for n in range(1000)], 0.0)
    assert len(answers.ask()) == MAX_TARGETS
    assert [one.group for one in answers.order()] == list(range(1, MAX_TARGETS + 1))


def test_targets_nobody_asked_for() -> None:
    with pytest.raises(ValueError, match="service"):
        Answers(BASE, BOTH).tell_targets([ONE], 0.0)


TIMES = st.integers(0, 400).map(lambda n: n / 1000)
ANSWER = st.one_of(st.just([]), st.just(NO), st.integers(1, 3))


def addresses(answer: object, pattern: str) -> list[str] | Exception:
    if isinstance(answer, int):
        return [pattern.format(n) for n in range(answer)]
    return answer  # type: ignore[return-value]


@pytest.mark.rfc("HE-01", "HE-07")
@given(TIMES, ANSWER, TIMES, ANSWER)
def test_the_rule_of_rfc_8305(at6: float, said6: object, at4: float, said4: object) -> None:
    """The moment of the first release is what the RFC says, whatever happens."""
    v6, v4 = addresses(said6, "2001:db8::{}"), addresses(said4, "192.0.2.{}")
    took = run(Answers(BASE, BOTH), (at6, V6, v6), (at4, V4, v4))
    has6, has4 = isinstance(said6, int), isinstance(said4, int)
    wait = at4 + RESOLUTION_DELAY
    if has6 and has4:
        expected = at6 if at6 <= wait else wait
    elif has6:
        expected = at6
    elif has4:
        expected = max(at4, min(at6, wait))
    else:
        expected = max(at6, at4)
    first = next((at for at, added, _, _ in took if added), took[-1][0])
    assert first == expected
    # All that was answered is given out once, and that this is all is said once, at the end.
    given_out = [address for _, added, _, _ in took for address in added]
    assert sorted(given_out) == sorted([*(v6 if has6 else []), *(v4 if has4 else [])])  # type: ignore[misc]
    assert [complete for *_, complete in took] == [False] * (len(took) - 1) + [True]
    assert took[-1][0] >= max(at6, at4)


@given(
    st.lists(
        st.tuples(TIMES, ANSWER, TIMES, ANSWER, st.booleans()), min_size=1, max_size=MAX_TARGETS
    ),
    TIMES,
    st.booleans(),
    TIMES,
)
def test_services_of_any_kind(
    shape: list[tuple[float, object, float, object, bool]],
    at: float,
    decisive: bool,
    own: float,
) -> None:
    """Whatever comes in whichever order: all that stands is out in the end, nothing that is
    answered waits for longer than twice the delay, and nothing is given out twice."""
    targets = [
        target(f"t{n}", n, *([f"2001:db8:{n}::99"] if hinted else []))
        for n, (*_, hinted) in enumerate(shape, 1)
    ]
    events: list[Told] = [(own, V6, ["2001:db8:ffff::1"]), (own, V4, []), (at, S, targets)]
    standing = set() if decisive else {"2001:db8:ffff::1"}
    answered_at: dict[str, float] = {} if decisive else {"2001:db8:ffff::1": own}
    for n, (at6, said6, at4, said4, hinted) in enumerate(shape, 1):
        one = targets[n - 1]
        for kind, when, said, pattern in (
            (AAAA, at + at6, said6, f"2001:db8:{n}::{{}}"),
            (A, at + at4, said4, f"192.0.{n}.{{}}"),
        ):
            found = addresses(said, pattern)
            events.append((when, Question(kind, one), found))
            if not isinstance(found, Exception):
                standing.update(found)
                answered_at.update(dict.fromkeys(found, when))
            elif hinted and kind == AAAA:
                standing.add(f"2001:db8:{n}::99")
    took = run(Answers(BASE, BOTH, service=decisive), *events)
    now_used: set[str] = set()
    ever: list[str] = []
    for when, added, removed, _ in took:
        assert not now_used & set(added)
        assert set(removed) <= now_used
        now_used = (now_used | set(added)) - set(removed)
        ever += added
        for address in added:
            assert when <= answered_at.get(address, at) + 2 * RESOLUTION_DELAY + 1e-9
    assert now_used == standing
    assert len(ever) == len(set(ever))
    assert took[-1][3]
    assert all(earlier[0] <= later[0] for earlier, later in pairwise(took))
