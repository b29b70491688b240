"""Reading and writing of TOML files with plain values, tables and lists of tables."""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ehrmeta.errors import SchemaError


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file; raises a `SchemaError` if it is unreadable or invalid."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SchemaError(f"cannot read {os.fspath(path)!r}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SchemaError(f"{os.fspath(path)!r} is not valid TOML: {error}.") from error


def write_toml(values: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a TOML file, without keys whose value is None, empty text or an empty list."""
    try:
        Path(path).write_text("\n".join(_lines(values)) + "\n", encoding="utf-8")
    except OSError as error:
        raise SchemaError(f"cannot write {os.fspath(path)!r}: {error.strerror}.") from error


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    """Lines of TOML; plain values come first, as they would belong to a preceding table."""
    given = {key: value for key, value in values.items() if value not in (None, "", [])}
    nested = {key: value for key, value in given.items() if isinstance(value, Mapping | list)}
    yield from (f"{key} = {_text(value)}" for key, value in given.items() if key not in nested)
    for key, value in nested.items():
        tables = value if isinstance(value, list) else [value]
        heading = f"[[{key}]]" if isinstance(value, list) else f"[{key}]"
        for table in tables:
            yield ""
            yield heading
            yield from _lines(table)


def _text(value: str | float | bool) -> str:
    """TOML of a value: that of JSON, except for the control character 127."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
