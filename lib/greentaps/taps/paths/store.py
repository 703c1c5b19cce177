"""The file of a `History`: a database of SQLite.

It says which hosts its owner has connected to, so nobody else may read it, and what is deleted is
overwritten.

Nobody waits for a disk: changes are written in batches, without asking the system to bring them to
the disk at once, and not at all while another process writes; they are kept for the next time.  The
file is open only during a batch, so several processes and forked children can share one.  Each
reads it once, at its first question.

A power failure can damage the file; then it begins empty again.  A file that is no history of ours
is never touched.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import Any, TypeVar
from urllib.parse import quote

from .history import Cell, Key

__all__ = ["ForeignFileError", "Store"]

SAVE_EVERY = 30.0  # seconds
SAVE_AFTER = 512  # changes
MAX_AGE = 7 * 24 * 3600.0  # seconds: no half-life is so long that this would still count
PATIENCE = 5.0  # seconds for another process to be done, where we must write

_APPLICATION = 0x67746170
_VERSION = 1
_MAGIC = b"SQLite format 3\0"
_SCHEMA = (
    """CREATE TABLE cells (
        network TEXT NOT NULL, kind TEXT NOT NULL, endpoint TEXT NOT NULL, stack TEXT NOT NULL,
        x REAL NOT NULL, y REAL NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (network, kind, endpoint, stack)
    ) WITHOUT ROWID""",
    "CREATE INDEX cells_at ON cells (at)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)
# SQLite does not notice all damage, and takes a text for a number.
_SOUND = " AND ".join(
    [f"typeof({name}) = 'text'" for name in ("network", "kind", "endpoint", "stack")]
    + [f"typeof({name}) = 'real'" for name in ("x", "y", "at")]
    + [f"{name} >= 0 AND {name} < 1e300" for name in ("x", "y")]
)
_READ = f"""SELECT * FROM (
    SELECT * FROM cells WHERE at > ? AND {_SOUND} ORDER BY at DESC LIMIT ?
) ORDER BY at"""
_WRITE = """INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
    SET x = excluded.x, y = excluded.y, at = excluded.at WHERE excluded.at >= at"""
_DELETE = "DELETE FROM cells WHERE network = ? AND kind = ? AND endpoint = ? AND stack = ?"
_LIMIT = "DELETE FROM cells WHERE at < (SELECT at FROM cells ORDER BY at DESC LIMIT 1 OFFSET ?)"
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
# No longer there counts as damaged.
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN}

T = TypeVar("T")

_log = logging.getLogger("greentaps.history")


class ForeignFileError(OSError, ValueError):
    """The file is there, and is something else."""


class Store:
    """The file at *path*, with at most *limit* cells.

    Raises ForeignFileError if it is there and is something else, and OSError if it cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        limit: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = os.path.abspath(os.fspath(path))
        self._limit = limit
        self._clock = clock
        self._pending: dict[Key, Cell | None] = {}
        self._lock = threading.Lock()
        self._loaded = False
        self._offset: float | None = None  # the system's time, less the caller's `now`
        self._saved_at: float | None = None
        self._create()
        self._batch(PATIENCE, _nothing)
        _stores.add(self)

    def renew_lock(self) -> None:
        """For a forked child: the old lock may be held by somebody who is not here."""
        self._lock = threading.Lock()

    # -- Reading --

    @property
    def loaded(self) -> bool:
        """Whether `load` has been called, and no other process had the file at the time."""
        return self._loaded

    def load(self, now: float) -> list[tuple[Key, Cell]]:
        """All that the file has, oldest first; *now* is the caller's time.  Of a file that cannot
        be read there is nothing, and the log says so."""
        offset = self._offset = self._clock() - now
        self._loaded = True
        self._saved_at = now
        oldest = self._clock() - MAX_AGE

        def read(database: sqlite3.Connection) -> list[tuple[Any, ...]]:
            return database.execute(_READ, (oldest, self._limit)).fetchall()

        try:
            rows = self._batch(0.0, read)
        except OSError as error:
            _log.warning("the history was not read: %s", error)
            self._loaded = error.errno != errno.EAGAIN  # that is over soon
            return []
        return [
            ((network, kind, endpoint, stack), Cell(x, y, min(at - offset, now)))
            for network, kind, endpoint, stack, x, y, at in rows
        ]

    # -- Writing --

    def put(self, key: Key, cell: Cell) -> None:
        """Write *cell* with the next batch."""
        with self._lock:
            self._pending[key] = cell

    def drop(self, keys: Iterable[Key]) -> None:
        """Delete these cells with the next batch."""
        with self._lock:
            self._pending.update(dict.fromkeys(keys))

    def save_if_due(self, now: float) -> None:
        """`save`, now and then; what goes wrong is logged."""
        last = now if self._saved_at is None else self._saved_at
        if len(self._pending) < SAVE_AFTER and now - last < SAVE_EVERY:
            return
        self._saved_at = now  # if it fails: try again after a while
        try:
            self._write(0.0)
        except OSError as error:
            _log.warning("the history was not saved: %s", error)

    def save(self) -> None:
        """Write what is pending.  Raises OSError, and then it is still pending."""
        self._write(PATIENCE)

    def _write(self, patience: float) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
        if not pending:
            return
        offset = self._offset or 0.0
        oldest = self._clock() - MAX_AGE
        gone = [key for key, cell in pending.items() if cell is None]
        rows = [(*key, cell.x, cell.y, cell.at + offset) for key, cell in pending.items() if cell]

        def write(database: sqlite3.Connection) -> None:
            database.executemany(_DELETE, gone)
            database.executemany(_WRITE, rows)
            database.execute("DELETE FROM cells WHERE at <= ?", (oldest,))
            database.execute(_LIMIT, (self._limit - 1,))

        try:
            self._batch(patience, write)
        except OSError:
            with self._lock:
                kept = [*pending.items(), *self._pending.items()][-self._limit :]
                self._pending = dict(kept)
            raise

    def delete(self, network: str | None) -> None:
        """Delete a network's cells, None for all, now.  Raises OSError."""

        def of_network(key: Key) -> bool:
            return network is None or key[0] == network

        def forget(database: sqlite3.Connection) -> None:
            if network is None:
                database.execute("DELETE FROM cells")
            else:
                database.execute("DELETE FROM cells WHERE network = ?", (network,))

        with self._lock:
            self._pending = {k: cell for k, cell in self._pending.items() if not of_network(k)}
        self._batch(PATIENCE, forget)

    def close(self) -> None:
        """Write what is pending, for the last time.  Raises OSError."""
        _stores.discard(self)
        self._write(PATIENCE)

    # -- The file --

    def _batch(self, patience: float, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do *work* in one transaction, waiting *patience* seconds for other processes.  A damaged
        or missing file is replaced first.  Raises OSError."""
        try:
            try:
                return self._once(patience, work)
            except sqlite3.Error as error:
                if _code(error) not in _DAMAGED:
                    raise
                _log.warning("%s begins anew: %s", self._path, error)
                self._begin_anew()
                return self._once(patience, work)
        except sqlite3.Error as error:
            code = errno.EAGAIN if _code(error) in _BUSY else errno.EIO
            raise OSError(code, str(error), self._path) from error

    def _once(self, patience: float, work: Callable[[sqlite3.Connection], T]) -> T:
        # As a URI, so that a missing file is not made with the wrong mode.
        where = f"file:{quote(self._path)}?mode=rw"
        with closing(
            sqlite3.connect(where, timeout=patience, isolation_level=None, uri=True)
        ) as database:
            for pragma in ("synchronous = OFF", "secure_delete = ON", "trusted_schema = OFF"):
                database.execute(f"PRAGMA {pragma}")
            database.execute("BEGIN IMMEDIATE")
            self._prepare(database)
            done = work(database)  # what it raises undoes it all: the database is closed
            database.execute("COMMIT")
            return done

    def _begin_anew(self) -> None:
        self._create()  # raises if it is not ours
        os.unlink(self._path)
        for rest in ("-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(self._path + rest)
        self._create()

    def _create(self) -> None:
        """Make the file if there is none, and see to it that it is ours, and ours alone."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o600)
        try:
            found = os.fstat(descriptor)
            head = os.pread(descriptor, 100, 0) if stat.S_ISREG(found.st_mode) else b"?"
            # SQLite's first page begins with a header that has the application's number.
            if head and (head[:16] != _MAGIC or head[68:72] != _APPLICATION.to_bytes(4, "big")):
                raise ForeignFileError(errno.EEXIST, "it is not a history of greentaps", self._path)
            if stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _SCHEMA:
                database.execute(statement)
        elif version != _VERSION:
            raise ForeignFileError(
                errno.EEXIST,
                f"it is a history of version {version}, and this greentaps has {_VERSION}",
                self._path,
            )


def _nothing(database: sqlite3.Connection) -> None:
    """To see whether the file is as it should be."""


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code


_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Another thread, which is not here, may have held a lock."""
    for store in list(_stores):
        store.renew_lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _save_at_exit() -> None:
    for store in list(_stores):
        with suppress(OSError):
            store.save()
