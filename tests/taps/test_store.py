"""A History in a file: what is written when, for whom, and what if the file is not as it should
be."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from greentaps.taps.paths import store
from greentaps.taps.paths.history import Cell, History
from greentaps.taps.paths.store import Store

KEY = ("home", "success", "example.org", "tcp")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def note(history: History, address: str = "192.0.2.7", now: float = 100.0) -> None:
    history.note_success(
        "home", (address, 80), "example.org", "tcp", now=now, latency=0.1, rtt=0.02
    )


def knows(history: History, address: str = "192.0.2.7", now: float = 100.0) -> bool:
    return history.used("home", address, now=now)


def rows(file: Path) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(file)
    try:
        return database.execute("SELECT * FROM cells").fetchall()
    finally:
        database.close()


def test_it_is_there_the_next_time(file: Path) -> None:
    with History(file) as history:
        note(history)
        assert rows(file) == []
    with History(file) as again:  # another process, with another clock
        assert again.score("home", "example.org", "tcp", now=5.0) == pytest.approx(0.5, abs=0.01)
        assert again.rtt("home", "192.0.2.7", now=5.0) == 0.02
        assert knows(again, now=5.0)


@pytest.mark.rfc("X-01")
def test_nobody_else_may_read_it(file: Path) -> None:
    before = os.umask(0)
    try:
        with History(file) as history:
            note(history)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["history.db"]
    file.chmod(0o644)
    History(file).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.rfc("A-20", "X-01")
def test_what_is_flushed_is_gone_from_the_file(file: Path) -> None:
    with History(file) as history:
        note(history)
        history.note_success("work", ("192.0.2.9", 1), "secret.example", "tcp", now=1, latency=1)
        history.save()
        assert b"example.org" in file.read_bytes()
        history.flush("home")
        assert b"example.org" not in file.read_bytes()
        assert b"secret.example" in file.read_bytes()
        note(history)
        history.flush()
        assert rows(file) == []
        assert b"secret.example" not in file.read_bytes()
    assert rows(file) == []  # nor what was pending


def test_what_a_change_of_network_drops(file: Path) -> None:
    with History(file) as history:
        note(history)
        history.save()
        assert "rtt" in {row[1] for row in rows(file)}
        history.attached({"work"})
        history.save()
    assert {row[1] for row in rows(file)} == {"success", "latency"}


def test_writes_are_batched(file: Path) -> None:
    with History(file) as history:
        number = 0
        while not rows(file):
            note(history, f"10.0.0.{number}")
            number += 1
        assert number > 20
        note(history, "10.9.9.9", now=100.0 + 1)
        assert not any(row[2] == "10.9.9.9" for row in rows(file))
        note(history, "10.9.9.8", now=100.0 + store.SAVE_EVERY + 1)
        assert any(row[2] == "10.9.9.9" for row in rows(file))


def test_at_the_end_of_the_program_it_is_written(file: Path) -> None:
    program = (
        "from greentaps.taps.paths.history import History\n"
        "import sys\n"
        "h = History(sys.argv[1])\n"
        "h.note_success('home', ('192.0.2.7', 1), None, 'tcp', now=1, latency=1)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], check=True, timeout=60)
    with History(file) as history:
        assert knows(history)


def test_two_processes_at_once(file: Path) -> None:
    """Both write many times; all of it arrives."""
    program = (
        "from greentaps.taps.paths.history import History\n"
        "import sys\n"
        "h = History(sys.argv[1])\n"
        "for n in range(100):\n"
        "    h.note_success('home', (f'{sys.argv[2]}.{n}', 1), None, 'tcp', now=n, latency=1)\n"
        "    if n % 10 == 0: h.save()\n"
        "h.close()\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(file), net])
        for net in ("10.0.1", "10.0.2")
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    with History(file) as history:
        for net in ("10.0.1", "10.0.2"):
            assert all(knows(history, f"{net}.{number}", now=1e3) for number in range(100))


def test_nobody_waits_for_another_process(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with History(file) as history:
        note(history)
        history.save()
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        with caplog.at_level(logging.WARNING, "greentaps.history"):
            note(history, "10.0.0.1", now=100.0 + 2 * store.SAVE_EVERY)
        assert time.monotonic() - begun < store.PATIENCE / 2
        assert "not saved" in caplog.text
        other.execute("COMMIT")
        other.close()
        history.save()
    assert any(row[2] == "10.0.0.1" for row in rows(file))


def test_the_newer_of_two_counts(file: Path) -> None:
    one, two = Store(file, 10), Store(file, 10)
    for each in (one, two):
        each.load(0.0)
    two.put(KEY, Cell(2, 2, 20.0))
    two.save()
    one.put(KEY, Cell(1, 1, 10.0))
    one.save()
    assert rows(file)[0][4:6] == (2.0, 2.0)
    one.close()
    two.close()


@pytest.mark.rfc("CA-02")
def test_the_file_is_bounded_in_number_and_age(file: Path) -> None:
    wall = [1e9]
    first = Store(file, 10, lambda: wall[0])
    first.load(0.0)
    for number in range(50):
        first.put(("home", "success", str(number), "tcp"), Cell(1, 0, float(number)))
    first.close()
    assert sorted(int(row[2]) for row in rows(file)) == list(range(40, 50))
    wall[0] += store.MAX_AGE + 45
    second = Store(file, 10, lambda: wall[0])
    assert [key[2] for key, _ in second.load(7.0)] == ["46", "47", "48", "49"]
    second.put(KEY, Cell(1, 0, 7.0))
    second.close()
    assert sorted(row[2] for row in rows(file)) == ["46", "47", "48", "49", "example.org"]


def test_a_clock_that_was_set_back(file: Path) -> None:
    first = Store(file, 10, lambda: 2e9)
    first.load(0.0)
    first.put(KEY, Cell(1, 0, 0.0))
    first.close()
    second = Store(file, 10, lambda: 1e9)
    assert second.load(7.0) == [(KEY, Cell(1, 0, 7.0))]
    second.close()


def test_a_forked_child_may_use_it_too(file: Path) -> None:
    with History(file) as history:
        note(history)
        pid = os.fork()
        if not pid:
            try:
                note(history, "10.0.0.1")
                history.close()
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        note(history, "10.0.0.2")
    with History(file) as again:
        assert knows(again)
        assert knows(again, "10.0.0.1")
        assert knows(again, "10.0.0.2")


def test_a_fork_while_another_thread_writes_is_no_hang(file: Path) -> None:
    with History(file) as history:
        assert history._store is not None
        lock = history._store._lock
        lock.acquire()  # as another thread would, in the middle of a note
        pid = os.fork()
        if not pid:
            signal.alarm(10)
            try:
                note(history)
                history.close()
            finally:
                os._exit(0)
        lock.release()
        assert os.waitpid(pid, 0)[1] == 0


# -- A file that is not as it should be --


@pytest.mark.parametrize("content", [b"my diary", b"x" * 5000, b"SQLite format 3\0" + bytes(200)])
def test_a_file_of_somebody_else_is_never_touched(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ValueError, match="not a history of greentaps"):
        History(file)
    assert file.read_bytes() == content


def test_a_database_of_somebody_else(file: Path) -> None:
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    with pytest.raises(ValueError, match="not a history of greentaps"):
        History(file)


def test_another_version(file: Path) -> None:
    History(file).close()
    other = sqlite3.connect(file)
    other.execute("PRAGMA user_version = 99")
    other.commit()
    other.close()
    with pytest.raises(ValueError, match="version 99"):
        History(file)


def test_no_file_can_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        History(tmp_path / "missing" / "history.db")
    with pytest.raises(IsADirectoryError):
        History(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        History(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a history"):
        History(tmp_path / "pipe")


def damage(file: Path) -> None:
    """Everything after the header of the first page."""
    size = file.stat().st_size
    with open(file, "r+b") as here:
        here.seek(100)
        here.write(b"\xa5" * (size - 100))


def test_a_damaged_file_begins_anew(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with History(file) as history:
        note(history)
    damage(file)
    with caplog.at_level(logging.WARNING, "greentaps.history"), History(file) as again:
        assert not knows(again)
        note(again)
    assert "begins anew" in caplog.text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with History(file) as once_more:
        assert knows(once_more)


@pytest.mark.parametrize("harm", [damage, Path.unlink, lambda file: file.write_bytes(b"")])
def test_it_is_damaged_while_we_use_it(file: Path, harm: Any) -> None:
    with History(file) as history:
        note(history)
        history.save()
        harm(file)
        note(history, "10.0.0.1")
        history.save()
        assert knows(history)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with History(file) as again:
        assert knows(again, "10.0.0.1")


def test_it_is_replaced_by_something_else_while_we_use_it(file: Path) -> None:
    history = History(file)
    note(history)
    file.write_bytes(b"my diary" * 1000)
    with pytest.raises(OSError, match="not a history of greentaps"):
        history.save()
    with pytest.raises(OSError, match="not a history of greentaps"):
        history.close()
    assert file.read_bytes() == b"my diary" * 1000
    history.close()  # harmless
    assert knows(history)


def test_a_file_that_cannot_be_read_is_an_empty_history(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with History(file) as history:
        note(history)
    history = History(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with caplog.at_level(logging.WARNING, "greentaps.history"):
        assert not knows(history)
    assert "not read" in caplog.text
    other.close()
    history.close()


def test_a_file_that_another_process_has_is_read_a_little_later(file: Path) -> None:
    with History(file) as history:
        note(history)
        note(history, "10.0.0.1")
    history = History(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    note(history, "10.0.0.1", now=200.0)
    learned = history._cells.copy()
    other.close()
    assert knows(history, now=200.0)
    assert all(history._cells[key] == cell for key, cell in learned.items())
    history.close()


@pytest.mark.parametrize(
    "harm",
    ["x = 'much'", "y = -1.0", "x = 9e999", "at = 'now'", "endpoint = x'00ff'", "at = x'00'"],
)
def test_what_cannot_be_a_number_is_not_read(file: Path, harm: str) -> None:
    """A disk that errs may change what is in a page, and SQLite does not see it."""
    with History(file) as history:
        note(history)
    with contextlib.closing(sqlite3.connect(file)) as other, other:
        other.execute(f"UPDATE OR REPLACE cells SET {harm}")
    with History(file) as history:
        assert not knows(history)
        note(history)
        assert knows(history)


def test_a_name_with_strange_characters(tmp_path: Path) -> None:
    file = tmp_path / "my history?mode=ro#100%.db"
    with History(file) as history:
        note(history)
    assert len(rows(file)) > 3
