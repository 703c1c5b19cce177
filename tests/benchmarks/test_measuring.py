"""The programs answer one another.  How fast does not matter here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.measuring import (
    Answer,
    Pace,
    ProgramError,
    Programs,
    Workshop,
    apart,
    ask,
    build,
)
from benchmarks.questions import Question, questions
from benchmarks.servers import SinkParser

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
QUICK = Pace(turn=0.001, rounds=2)


def test_answers_are_parsed() -> None:
    assert Answer.parse("ok 0.5 1 2") == Answer(0.5, 1, 2, None)
    assert Answer.parse("ok 0.5 0 0 0.25").cpu_ns == 250_000_000
    with pytest.raises(ProgramError):
        Answer.parse("no")


def test_servers_have_a_core_of_their_own_if_there_are_two() -> None:
    assert apart({0, 1, 2}) == ({2}, {0, 1})
    assert apart({3}) == (set(), set())


def test_a_sink_counts_across_pieces() -> None:
    parser = SinkParser()
    assert not parser.feed((5).to_bytes(8, "big") + b"ab")
    assert parser.feed(b"cde")
    assert parser.feed((1).to_bytes(8, "big") + b"x")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    directory = tmp_path_factory.mktemp("bench")
    return Workshop(directory, directory / "none.pem", build(directory))


@pytest.fixture
def programs(workshop: Workshop) -> Iterator[Programs]:
    made = Programs(workshop)
    yield made
    made.close()


def small(question: Question, *contenders: str) -> Question:
    return replace(question, contenders=contenders, connections=3, active=0, first=20, most=20)


@needs_compiler
@pytest.mark.parametrize("key", ["echo-64-1", "udp-512-1", "bulk-sender-65536", "accept"])
def test_the_limit_serves_every_role(programs: Programs, key: str) -> None:
    (question,) = [each for each in questions() if each.key == key]
    answer = ask(small(question, "c"), programs, QUICK)
    assert not answer["skipped"]
    assert len(answer["contenders"]["c"]["cost"]) == QUICK.rounds
    assert all(cost >= 0 for cost in answer["contenders"]["c"]["cost"])


@needs_compiler
def test_who_cannot_be_measured_is_named_and_the_others_are(programs: Programs) -> None:
    question = Question("tls", 2, "TLS without a certificate", ("connection",), tls=True)
    answer = ask(small(question, "connection"), programs, QUICK)
    assert not answer["contenders"]
    assert "servers.py has ended" in answer["skipped"]["connection"]


@needs_compiler
@pytest.mark.slow
def test_our_servers_serve(programs: Programs) -> None:
    (tcp,) = [each for each in questions() if each.key == "echo-1024-100"]
    (udp,) = [each for each in questions() if each.key == "udp-512-100"]
    (bulk,) = [each for each in questions() if each.key == "bulk-receiver-65536"]
    ours = ("protocol", "server", "connection", "framer")
    for question in (
        small(tcp, *ours),
        small(udp, "datagram", "datagram-connection"),
        small(bulk, "protocol", "connection"),
    ):
        answer = ask(question, programs, QUICK)
        assert not answer["skipped"]
        assert set(answer["contenders"]) == set(question.contenders)
