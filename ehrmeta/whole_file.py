"""Writing of files as a whole or not at all."""

import os
import platform
import re
import secrets
import stat
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_HOST = f"{zlib.crc32(platform.node().encode()):08x}"  # folders are shared between machines
_TEMPORARY = re.compile(rf"\.{_HOST}-(\d+)-[0-9a-f]{{16}}\.tmp")


def replace_file(
    path: str | os.PathLike[str], write: Callable[[Path], object], mode: int | None = None
) -> None:
    """Write a temporary file in the same folder, sync it, and rename it to `path`.

    An older file survives a full disk, an error and a power cut. Temporary files that killed
    processes left in the folder are removed.

    Parameters
    ----------
    path : str or path-like
        The file to write; a link to a file is followed.
    write : callable
        Writes the file whose path it is called with.
    mode : int, optional
        Permissions, from the first byte; by default those of an existing file, or those of any new
        file.

    Raises
    ------
    OSError
        The file cannot be written; an older file is unchanged.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "predictions.csv"
    >>> replace_file(path, lambda temporary: temporary.write_text("p1,0.5"), 0o600)
    >>> path.read_text(), oct(path.stat().st_mode & 0o777)
    ('p1,0.5', '0o600')
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(None, "it is not a regular file")
    _remove_abandoned(target.parent)
    temporary = target.with_name(f".{_HOST}-{os.getpid()}-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb"):
            if mode is not None:
                temporary.chmod(mode)
            elif target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        write(temporary)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    # Not every system can sync a folder. Where it cannot, a power cut leaves either the old or the
    # new file, complete.
    with suppress(OSError):
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files whose process has ended, if they may be removed."""
    with suppress(OSError):
        for path in folder.glob(f".{_HOST}-*.tmp"):
            match = _TEMPORARY.fullmatch(path.name)
            if match and not _is_running(int(match[1])):
                path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    """Whether a process runs on this machine; True where that is unknown."""
    if sys.platform == "win32":  # the call would end the process
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
