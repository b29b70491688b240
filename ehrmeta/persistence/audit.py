"""Audit logs: lines of JSON that are keyed and chained by HMAC-SHA256.

A plain digest of a few values is not secret, because all possible values can be tried in a second.
With a key, digests reveal nothing to those who do not have it, and changed, removed, inserted or
moved lines are detected. Without a key, a line holds no digest and can be forged.
"""

import hashlib
import hmac
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ehrmeta.errors import DataError

if sys.platform != "win32":
    import fcntl

KEY_VARIABLE = "EHRMETA_AUDIT_KEY"
_SHORTEST = 16  # bytes of a key
_TAIL = 1 << 16  # bytes; longer than any line
PathLike = str | os.PathLike[str]


def read_key(key_file: PathLike | None = None) -> bytes | None:
    """Key of audit logs, from a file or the variable EHRMETA_AUDIT_KEY; None without either.

    Raises
    ------
    DataError
        The file cannot be read, or the key is shorter than 16 bytes.
    """
    if key_file is None:
        key, source = os.environ.get(KEY_VARIABLE, "").encode(), f"the variable {KEY_VARIABLE}"
        if not key:
            return None
    else:
        source = f"'{os.fspath(key_file)}'"
        try:
            key = Path(key_file).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read the key in {source}: {error.strerror}.") from error
    key = key.strip()
    if len(key) < _SHORTEST:
        raise DataError(
            f"the key in {source} has {len(key)} bytes, fewer than {_SHORTEST}. Create one with: "
            "openssl rand -hex 32."
        )
    return key


def append_audit_record(
    path: PathLike, record: Mapping[str, Any], digests: Mapping[str, str], key: bytes | None
) -> None:
    """Append a record and its time to a log, and flush it to disk.

    Parameters
    ----------
    path : str or Path
        Created if missing, for its owner alone (0600). Writers wait for each other, but not on
        Windows.
    record : mapping of str to JSON values
        Written without a digest.
    digests : mapping of str to str
        Digests of data: written as HMAC, or not at all without a key.
    key : bytes, optional
    """
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **record}
    try:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as log:
            if sys.platform != "win32":
                fcntl.flock(log, fcntl.LOCK_EX)
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
            tail = log.read()
            if key is not None:
                line |= {name: _mac(key, name, digest.encode()) for name, digest in digests.items()}
                last = tail.splitlines()[-1] if tail else b""
                line["previous"] = _mac(key, "previous", last)
                line["hmac"] = _mac(key, "line", _content(line))
            torn = (
                b"\n" if tail and not tail.endswith(b"\n") else b""
            )  # completes the line of a writer that was killed
            log.write(torn + json.dumps(line).encode() + b"\n")
            log.flush()
            os.fsync(log.fileno())
    except OSError as error:
        raise DataError(
            f"the audit record cannot be written to {os.fspath(path)!r}: "
            f"{error.strerror or error}. Choose a file in a writable folder."
        ) from error


@dataclass(frozen=True)
class VerifiedLog:
    """Result of `verify_audit_log`.

    Attributes
    ----------
    n_lines, n_without_key : int
        All lines, and those written without a key, which anybody can forge.
    wrong : tuple of int
        Numbers of lines, from 1, that were changed, or before which lines were removed or changed.
    last : str
        HMAC of the last line with a key. A log whose end was cut off is still a valid log: compare
        this with a copy that you keep elsewhere.
    """

    n_lines: int
    n_without_key: int
    wrong: tuple[int, ...]
    last: str


def verify_audit_log(path: PathLike, key: bytes) -> VerifiedLog:
    """Verify an audit log: every line, and its link to the line before it.

    Examples
    --------
    >>> import tempfile
    >>> key = b"a key of 16 bytes or more"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = Path(folder) / "audit.jsonl"
    ...     append_audit_record(log, {"n_tasks": 1}, {"output": "3f0c"}, key)
    ...     append_audit_record(log, {"n_tasks": 2}, {"output": "9e1b"}, key)
    ...     intact = verify_audit_log(log, key).wrong
    ...     _ = log.write_text(log.read_text().replace('"n_tasks": 1', '"n_tasks": 3'))
    ...     intact, verify_audit_log(log, key).wrong
    ((), (1, 2))
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise DataError(
            f"cannot read the audit log {os.fspath(path)!r}: {error.strerror}."
        ) from error
    wrong, n_without_key, last, previous = [], 0, "", b""
    for number, raw in enumerate(lines, start=1):
        try:
            line = json.loads(raw)
            stated = line.pop("hmac", None)
        except (ValueError, AttributeError, TypeError):
            line, stated = {}, ""
        if stated is None:
            n_without_key += 1
        elif not (
            hmac.compare_digest(str(stated), _mac(key, "line", _content(line)))
            and hmac.compare_digest(str(line.get("previous")), _mac(key, "previous", previous))
        ):
            wrong.append(number)
        last = last if stated is None else str(stated)
        previous = raw
    return VerifiedLog(len(lines), n_without_key, tuple(wrong), last)


def _mac(key: bytes, purpose: str, content: bytes) -> str:
    return hmac.new(key, purpose.encode() + b"\0" + content, hashlib.sha256).hexdigest()


def _content(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, sort_keys=True).encode()
