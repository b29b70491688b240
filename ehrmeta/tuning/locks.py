"""Locks that die with the worker that holds them.

Lock 0 of a study is the turn: who holds it decides what is run next. Lock ``number + 1`` is held by
the worker that runs trial `number`. The operating system (or the database) takes a lock from a
process that is gone, however it went, so a running trial whose lock is free has lost its worker: no
grace period, no clock, no process number that another process may have by now.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from filelock import FileLock, Timeout

__all__ = ["FileLocks", "Locks", "NoLocks", "PostgresLocks"]


class Locks(Protocol):
    """Numbered locks of one study."""

    def acquire(self, number: int) -> None:
        """Wait for a lock and take it."""

    def try_acquire(self, number: int) -> bool:
        """Take a lock if it is free."""

    def release(self, number: int) -> None:
        """Give a lock back."""

    def close(self) -> None:
        """Give everything back."""


class NoLocks:
    """For a study in memory, which no other process sees."""

    def acquire(self, number: int) -> None:
        """Nothing to wait for."""

    def try_acquire(self, number: int) -> bool:
        """Whatever runs is run by this process."""
        return False

    def release(self, number: int) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Nothing to give back."""


class FileLocks:
    """Locks in a folder, for processes of one host.

    Parameters
    ----------
    folder : Path
    study : str
    """

    def __init__(self, folder: Path, study: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.prefix = f"{zlib.crc32(study.encode()):08x}"
        self._held: dict[int, FileLock] = {}

    def acquire(self, number: int) -> None:
        """Wait for a lock and take it."""
        lock = FileLock(self._path(number))
        lock.acquire()
        self._held[number] = lock

    def try_acquire(self, number: int) -> bool:
        """Take a lock if it is free."""
        lock = FileLock(self._path(number))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        self._held[number] = lock
        return True

    def release(self, number: int) -> None:
        """Give a lock back; a trial's file goes with it."""
        self._held.pop(number).release()
        if number:
            self._path(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Give everything back."""
        for number in list(self._held):
            self.release(number)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.prefix}-{number}.lock"


class PostgresLocks:
    """Advisory locks of a PostgreSQL session, for processes of many hosts.

    The session's connection is the heartbeat: the server ends it, and frees its locks, when the
    process is gone, or when the host has not answered for about a minute.

    Parameters
    ----------
    url : str
    study : str
    """

    def __init__(self, url: str, study: str) -> None:
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        self._session = self._engine.connect()
        for name, seconds in (("idle", 20), ("interval", 10), ("count", 4)):
            self._session.execute(sa.text(f"SET tcp_keepalives_{name} = {seconds}"))
        self.key = zlib.crc32(study.encode()) - 2**31  # a signed 32-bit number

    def acquire(self, number: int) -> None:
        """Wait for a lock and take it."""
        self._call("pg_advisory_lock", number)

    def try_acquire(self, number: int) -> bool:
        """Take a lock if it is free."""
        return bool(self._call("pg_try_advisory_lock", number))

    def release(self, number: int) -> None:
        """Give a lock back."""
        self._call("pg_advisory_unlock", number)

    def close(self) -> None:
        """End the session."""
        self._session.close()
        self._engine.dispose()

    def _call(self, function: str, number: int) -> object:
        asked = sa.text(f"SELECT {function}(:key, :number)")
        return self._session.execute(asked, {"key": self.key, "number": number}).scalar()
