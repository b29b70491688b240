"""Storage of studies (SQLite file, journal file or PostgreSQL server), and their locks.

The holder of lock 0 of a study chooses its next trial. Lock ``number + 1`` is held by the worker
that runs trial `number`. The operating system (or the database) frees the locks of a process that
has ended in any way, so a running trial whose lock is free has lost its worker. This needs no
grace period, no clock and no process ids, which can be reused.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ehrmeta.errors import MissingExtraError, StudyError

_BUSY_SECONDS = 120  # time to wait for another writer of SQLite
_FORMS = (
    "Pass a file such as study.db or study.journal, sqlite:///study.db, journal:///study.journal, "
    "or postgresql://user:password@host/database."
)
_CHUNK = 2**16
_POLL_SECONDS = 0.002


def open_storage(
    storage: str | Path | None, study_name: str, *, create: bool = True
) -> tuple[BaseStorage, Locks]:
    """Open or create a storage, with the locks of one study in it.

    Parameters
    ----------
    storage : str, Path or None
        ``sqlite:///study.db`` (or a path), ``journal:///study.journal`` (or a path that ends in
        .journal or .log), or ``postgresql://user:password@host/database``. None is for memory.
    study_name : str
    create : bool
        Create a missing file.

    Raises
    ------
    StudyError
        The storage is of another kind, or cannot be opened.
    MissingExtraError
        PostgreSQL's driver is not installed.
    """
    if storage is None:
        return InMemoryStorage(), Locks()
    url = parsed_storage(str(storage))
    text, kind = url.render_as_string(hide_password=False), url.get_backend_name()
    if kind == "postgresql":
        with _reaching(url):
            session = PostgresLocks(text, study_name)
            return _with_tables(text, session, {"pool_pre_ping": True}), session
    path = Path(url.database or "")
    if not path.name or path.is_dir() or not path.absolute().parent.is_dir():
        raise StudyError(f"the storage '{storage}' is not a file in an existing folder. {_FORMS}")
    if not create and not path.exists():
        raise StudyError(f"there is no study file '{path}'. Check the path of the storage.")
    with _reaching(url):
        folder = path.with_name(f"{path.name}.locks")
        locks = FileLocks(folder, study_name)
        if kind == "journal":
            return JournalStorage(Journal(path)), locks
        options = {"connect_args": {"timeout": _BUSY_SECONDS}}
        return _with_tables(text, FileLocks(folder, ""), options), locks


def _with_tables(url: str, locks: Locks, options: dict[str, Any]) -> RDBStorage:
    """Open a database; one process at a time creates its tables."""
    locks.acquire(0)
    try:
        return RDBStorage(url, engine_kwargs=options)
    finally:
        locks.release(0)


def parsed_storage(storage: str) -> URL:
    """Parse a storage as the URL of a SQLite file, journal file or PostgreSQL server."""
    text = storage
    if "://" not in storage:
        kind = "journal" if Path(storage).suffix in (".journal", ".log") else "sqlite"
        text = f"{kind}:///{storage}"
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StudyError(f"'{storage}' is not a path or URL of a storage. {_FORMS}") from error
    if "password" in url.query:
        raise StudyError(
            "write the password as postgresql://user:password@host/database, or put it in "
            "PGPASSWORD or .pgpass."
        )
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "journal", "postgresql"):
        raise StudyError(f"a storage of kind '{url.drivername}' is not supported. {_FORMS}")
    return url


@contextmanager
def _reaching(url: URL) -> Iterator[None]:
    """Turn failures to open a storage into errors that show no password."""
    shown = url.render_as_string(hide_password=True)
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            "PostgreSQL needs its driver: pip install 'ehrmeta[postgresql]'"
        ) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise StudyError(
            f"the storage {shown} cannot be reached: {reason}. Check that it exists and that you "
            "have permission to write to it."
        ) from error
    except RuntimeError as error:
        raise StudyError(
            f"the storage {shown} was created by another version of Optuna: {error}"
        ) from error


class Journal(JournalFileBackend):
    """Optuna's journal file, with a lock that the operating system frees when its holder exits.

    A writer that is killed in the middle of a line leaves a partial record, and the next append
    would make the file unreadable. Partial records are therefore removed first, under the lock. A
    damaged line before the last one raises a `StudyError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(f"{path}.lock")
        super().__init__(str(path), lock_obj=_Lock(self.lock))
        with self.lock.acquire(poll_interval=_POLL_SECONDS):
            cut_broken_end(path)
            _check_lines(path)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, after removing a partial record of a killed writer."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self.lock.acquire(poll_interval=_POLL_SECONDS):
            cut_broken_end(self.path)
            with self.path.open("ab") as file:
                file.write(text.encode())


class _Lock(BaseJournalFileLock):
    """Lock of the operating system with Optuna's interface."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def acquire(self) -> bool:
        self._lock.acquire(poll_interval=_POLL_SECONDS)
        return True

    def release(self) -> None:
        self._lock.release()


def cut_broken_end(path: Path) -> None:
    """Truncate a file after its last line end; the caller holds the lock."""
    with path.open("r+b") as file:
        end = size = file.seek(0, 2)
        while end:
            start = max(0, end - _CHUNK)
            file.seek(start)
            n_whole = file.read(end - start).rfind(b"\n") + 1
            if n_whole:
                end = start + n_whole
                break
            end = start
        if end < size:
            file.truncate(end)


def _check_lines(path: Path) -> None:
    """Remove a last line that is not a record; raise an error for any other such line."""
    start = 0
    with path.open("r+b") as file:
        lines = list(file)
        for number, line in enumerate(lines, start=1):
            if not _is_record(line):
                if number == len(lines):
                    file.truncate(start)
                    return
                raise StudyError(
                    f"line {number} of the journal '{path}' is damaged. Restore the file from a "
                    "copy, or start a study in another file."
                )
            start += len(line)


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


class Locks:
    """Numbered locks of one study.

    This base class does nothing, because a study in memory belongs to one process.
    """

    def acquire(self, number: int, *, wait: bool = True) -> bool:
        """Acquire a lock, with or without waiting; returns whether it was acquired."""
        return wait  # no trial of another worker can be lost

    def release(self, number: int) -> None:
        """Release a lock."""

    def close(self) -> None:
        """Release all locks."""


class FileLocks(Locks):
    """Lock files in a folder, for processes on one host."""

    def __init__(self, folder: Path, study: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.prefix = f"{zlib.crc32(study.encode()):08x}"
        self._held: dict[int, FileLock] = {}

    def acquire(self, number: int, *, wait: bool = True) -> bool:
        """Lock the file of this number; returns whether that worked."""
        lock = FileLock(self._path(number))
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            return False
        self._held[number] = lock
        return True

    def release(self, number: int) -> None:
        """Release a lock, and delete the lock file of a trial."""
        self._held.pop(number).release()
        if number:
            self._path(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Release all locks."""
        for number in list(self._held):
            self.release(number)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.prefix}-{number}.lock"


class PostgresLocks(Locks):
    """Advisory locks of a PostgreSQL session, for processes on many hosts.

    The server closes the session and frees its locks when the process has ended, or when its host
    has not responded for about a minute.
    """

    def __init__(self, url: str, study: str) -> None:
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        self._session = self._engine.connect()
        for name, seconds in (("idle", 20), ("interval", 10), ("count", 4)):
            self._session.execute(sa.text(f"SET tcp_keepalives_{name} = {seconds}"))
        self.key = zlib.crc32(study.encode()) - 2**31  # a signed 32-bit number

    def acquire(self, number: int, *, wait: bool = True) -> bool:
        """Acquire an advisory lock."""
        acquired = self._call("pg_advisory_lock" if wait else "pg_try_advisory_lock", number)
        return wait or bool(acquired)

    def release(self, number: int) -> None:
        """Release an advisory lock."""
        self._call("pg_advisory_unlock", number)

    def close(self) -> None:
        """Close the session."""
        self._session.close()
        self._engine.dispose()

    def _call(self, function: str, number: int) -> object:
        query = sa.text(f"SELECT {function}(:key, :number)")
        return self._session.execute(query, {"key": self.key, "number": number}).scalar()
