"""A journal file that survives the death of a writer in the middle of a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from ehrmeta.errors import StudyError

__all__ = ["Journal"]


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
        finally:
            self.lock.release()
        _check_lines(path)

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
    """Cut off a last line without its end, or that is no JSON; the caller holds the lock."""
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        start = max(0, size - 2**16)
        file.seek(start)
        tail = file.read()
        while start and b"\n" not in tail[:-1]:  # a line longer than that
            start = max(0, start - 2**16)
            file.seek(start)
            tail = file.read(size - start)
        whole = tail.rfind(b"\n") + 1
        last = tail[tail.rfind(b"\n", 0, max(whole - 1, 0)) + 1 : whole]
        if whole and not _is_record(last):
            whole -= len(last)
        if start + whole < size:
            file.truncate(start + whole)


def _check_lines(path: Path) -> None:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n") and not _is_record(line):
                raise StudyError(
                    f"line {number} of the journal '{path}' is damaged. Restore the file from a "
                    "copy, or start a study in another one."
                )


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
