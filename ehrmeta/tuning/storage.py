"""Where a study is kept: a SQLite file, a journal file, or a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ehrmeta.errors import MissingExtraError, StudyError
from ehrmeta.tuning.journal import Journal
from ehrmeta.tuning.locks import FileLocks, Locks, NoLocks, PostgresLocks

__all__ = ["open_storage", "parsed_storage"]

_BUSY_SECONDS = 120  # SQLite: how long to wait for another writer
_FORMS = (
    "Pass a file such as study.db or study.journal, sqlite:///study.db, journal:///study.journal, "
    "or postgresql://user:password@host/database."
)


def open_storage(
    storage: str | Path | None, study_name: str, *, create: bool = True
) -> tuple[BaseStorage, Locks]:
    """Open or create a storage, with the locks of one study in it.

    Parameters
    ----------
    storage : str, Path or None
        ``sqlite:///study.db`` (or a path), ``journal:///study.journal`` (or a path that ends in
        .journal or .log), ``postgresql://user:password@host/database``; None keeps the study in
        memory.
    study_name : str
    create : bool
        Make a file that is not there.

    Raises
    ------
    StudyError
        It cannot be reached, or is none of these.
    MissingExtraError
        PostgreSQL's driver is not installed.
    """
    if storage is None:
        return InMemoryStorage(), NoLocks()
    url = parsed_storage(str(storage))
    kind = url.get_backend_name()
    if kind == "postgresql":
        return _reached(url, lambda: _postgres(url, study_name))
    path = Path(url.database or "")
    if not path.name or path.is_dir() or not path.absolute().parent.is_dir():
        raise StudyError(
            f"the storage '{storage}' needs a file in a folder that is there. {_FORMS}"
        )
    if not create and not path.exists():
        raise StudyError(f"there is no file '{path}' with studies. Check the storage's path.")
    return _reached(url, lambda: _file(url, path, study_name))


def _file(url: URL, path: Path, study_name: str) -> tuple[BaseStorage, Locks]:
    folder = path.with_name(f"{path.name}.locks")
    locks = FileLocks(folder, study_name)
    if url.get_backend_name() == "journal":
        return JournalStorage(Journal(path)), locks
    opening = FileLocks(folder, "")
    opening.acquire(0)  # one process at a time creates the tables
    try:
        text = url.render_as_string(hide_password=False)
        kept = RDBStorage(text, engine_kwargs={"connect_args": {"timeout": _BUSY_SECONDS}})
    finally:
        opening.release(0)
    return kept, locks


def _postgres(url: URL, study_name: str) -> tuple[BaseStorage, Locks]:
    text = url.render_as_string(hide_password=False)
    locks = PostgresLocks(text, study_name)
    locks.acquire(0)  # one process at a time creates the tables
    try:
        return RDBStorage(text, engine_kwargs={"pool_pre_ping": True}), locks
    finally:
        locks.release(0)


def parsed_storage(storage: str) -> URL:
    """A storage as a URL of one of the three kinds."""
    text = storage
    if "://" not in storage:
        kind = "journal" if Path(storage).suffix in (".journal", ".log") else "sqlite"
        text = f"{kind}:///{storage}"
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StudyError(f"'{storage}' is no storage. {_FORMS}") from error
    if "password" in url.query:
        raise StudyError(
            "write the password as postgresql://user:password@host/database, or leave it to "
            "PGPASSWORD or .pgpass."
        )
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "journal", "postgresql"):
        raise StudyError(f"a storage of kind '{url.drivername}' is not served. {_FORMS}")
    return url


def _reached(
    url: URL, opened: Callable[[], tuple[BaseStorage, Locks]]
) -> tuple[BaseStorage, Locks]:
    """Whatever goes wrong in opening, as one error that shows no password."""
    shown = url.render_as_string(hide_password=True)
    try:
        return opened()
    except ImportError as error:
        raise MissingExtraError(
            "PostgreSQL needs its driver: pip install 'ehrmeta[postgresql]'"
        ) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise StudyError(
            f"the storage {shown} cannot be reached: {reason}. Check that it is there and that "
            "you may write to it."
        ) from error
    except RuntimeError as error:
        raise StudyError(f"the storage {shown} was made by another Optuna: {error}") from error
