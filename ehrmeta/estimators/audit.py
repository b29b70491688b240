"""A record of every adaptation, for those who must answer for it; without any patient value."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ehrmeta.errors import DataError

if TYPE_CHECKING:
    from ehrmeta.estimators.adapted import Adapted

__all__ = ["add_audit_record"]


def add_audit_record(adapted: Adapted, path: str | os.PathLike[str]) -> None:
    """Append the record of an adaptation; see `Adapted.add_audit_record`.

    The digests are SHA-256: `model` of the parameters, `output` of the adapted state; the same rows
    and the same model give the same. The line is on the disk before the function returns.
    """
    learner = getattr(adapted.model, "learner_", None)
    if learner is None:
        raise DataError(
            f"{type(adapted.model).__name__} keeps no audit records: use a MetaRegressor or a "
            "MetaClassifier."
        )
    record: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "model": _digest(learner.params),
        "n_tasks": adapted.n_tasks,
        "n_rows": adapted._support.n_rows,
        "output": _digest(
            {
                f"{i}.{name}": value
                for i, chunk in enumerate(adapted._state)
                for name, value in chunk.state.items()
            }
        ),
    }
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(
            f"the audit record cannot be written to {os.fspath(path)!r}: "
            f"{error.strerror or error}. Name a file in a folder that you may write to."
        ) from error


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
