"""Finished cells of a long benchmark on disk, so that a run that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.suite.record import Record
from ehrmeta.errors import DataError

__all__ = ["Cache"]


@dataclass(frozen=True)
class Cache:
    """A folder with one file per finished cell; without a folder nothing is kept.

    A cell is found again under exactly the settings it was measured with.

    Parameters
    ----------
    folder : Path, optional
    """

    folder: Path | None = None

    def cell(
        self, settings: Mapping[str, Any], measure: Callable[[], list[Record]]
    ) -> list[Record]:
        """The records of a cell, from the folder or measured now.

        Parameters
        ----------
        settings : mapping
            Everything the records depend on, in JSON's types; the value of ``"cell"`` names the
            file.
        measure : callable
            Measures the cell.
        """
        if self.folder is None:
            return measure()
        text = json.dumps(settings, sort_keys=True)
        name = re.sub(r"\W+", "-", str(settings["cell"])).strip("-")
        path = self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
        if path.exists():
            return _read(path)
        records = measure()
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        content = {"settings": settings, "records": [asdict(record) for record in records]}
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        partial.replace(path)
        return records


def _read(path: Path) -> list[Record]:
    try:
        return [Record(**fields) for fields in json.loads(path.read_text("utf-8"))["records"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"'{path}' holds no benchmark records ({type(error).__name__}). Delete it, or pass "
            "another --cache folder."
        ) from error
