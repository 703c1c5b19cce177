"""The tables: every name in them means something, and the short form asks what the targets need."""

from __future__ import annotations

from argparse import Namespace

from benchmarks.questions import CONTENDERS, contender, questions, title_of
from benchmarks.run import chosen
from benchmarks.servers import KINDS
from benchmarks.targets import TARGETS

BY_KEY = {question.key: question for question in questions()}


def test_every_question_has_a_key_of_its_own() -> None:
    assert len(BY_KEY) == len(questions())


def test_every_contender_is_known() -> None:
    for question in questions():
        assert question.contenders
        assert len(set(question.contenders)) == len(question.contenders)
        for name in question.contenders:
            assert contender(name).title


def test_every_server_is_one_of_the_server_program() -> None:
    for each in CONTENDERS.values():
        if each.program == "servers":
            assert each.words[0] in KINDS
        else:
            assert each.program in ("limit", "initiators")


def test_the_questions_have_the_numbers_of_the_list() -> None:
    assert {question.number for question in questions()} == {1, 2, 3, 4, 5, 6}


def test_a_contender_may_have_connections_of_its_own() -> None:
    question = BY_KEY["idle-10000"]
    assert question.connections_of("connection@10100") == 10_100
    assert question.connections_of("connection") == question.connections
    assert title_of("connection@100") == "greentaps Connection, 100 connections"


def test_every_target_is_asked_for() -> None:
    for target in TARGETS:
        for key, name in (target.top, target.bottom):
            assert name in BY_KEY[key].contenders
        assert (target.stretch > target.limit) is target.at_least or target.stretch == target.limit


def test_the_short_form_asks_for_all_targets_but_those_of_many_connections() -> None:
    missing = {
        key for target in TARGETS for key, _ in (target.top, target.bottom) if not BY_KEY[key].short
    }
    assert missing == {"idle-10000", "idle-15000"}


def test_the_chart_has_what_a_short_run_has() -> None:
    assert all(question.short for question in questions() if question.chart)


def keys(*only: str, short: bool = False) -> list[str]:
    return [question.key for question in chosen(Namespace(only=only, short=short))]


def test_questions_are_chosen_by_name_or_by_a_part_of_it() -> None:
    assert keys("echo-1024-100") == ["echo-1024-100"]  # and not echo-1024-1000
    assert keys("udp") == ["udp-512-1", "udp-512-100"]
    assert keys("nothing") == []
    assert len(keys()) == len(BY_KEY)
    assert set(keys(short=True)) == {key for key, question in BY_KEY.items() if question.short}
