"""A journal file that survives the death of a writer in the middle of a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from ehrmeta.errors import StudyError

__all__ = ["Journal", "cut_broken_end"]

_CHUNK = 2**16


class Journal(JournalFileBackend):
    """Optuna's journal file under a lock that dies with its holder, repaired before each append.

    A writer that is killed in the middle of a line leaves half a record, and the next append would
    glue its own record to it: from then on nobody can read the file. The half record was never
    acted upon, so it is cut off first, under the lock.

    Parameters
    ----------
    path : Path

    Raises
    ------
    StudyError
        A line that is not the last one is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = _Lock(path)
        super().__init__(str(path), lock_obj=self.lock)
        self.lock.acquire()
        try:
            cut_broken_end(path)
            _check_lines(path)
        finally:
            self.lock.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records, after cutting off what a killed writer has left of its own."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self.lock.acquire()
        try:
            cut_broken_end(self.path)
            with self.path.open("ab") as file:
                file.write(text.encode())
                file.flush()
        finally:
            self.lock.release()


class _Lock(BaseJournalFileLock):
    """The operating system's lock: free as soon as its holder is gone."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(f"{path}.lock")

    def acquire(self) -> bool:
        self._lock.acquire(poll_interval=0.002)
        return True

    def release(self) -> None:
        self._lock.release()


def cut_broken_end(path: Path) -> None:
    """Cut off what follows the last end of a line; the caller holds the lock."""
    with path.open("r+b") as file:
        end = size = file.seek(0, 2)
        while end:
            start = max(0, end - _CHUNK)
            file.seek(start)
            whole = file.read(end - start).rfind(b"\n") + 1
            if whole:
                end = start + whole
                break
            end = start
        if end < size:
            file.truncate(end)


def _check_lines(path: Path) -> None:
    """Cut off a last line that is no record; refuse one before it."""
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
                    "copy, or start a study in another one."
                )
            start += len(line)


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
