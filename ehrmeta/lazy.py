"""Lazy packages: a name is imported when it is first read (PEP 562)."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose public names its stub lists.

    The stub, ``__init__.pyi`` beside ``__init__.py``, says where each name is defined, as
    ``from module import name as name``; type checkers read it too. Of ``from module import *``
    the names are read from the module itself, with the first name that no other line lists.

    Examples
    --------
    >>> __getattr__, __dir__ = lazy_names("ehrmeta.tuning")
    >>> __getattr__("__all__")
    ['MetaSearchCV', 'Tuned', 'read_space', 'tune']
    >>> __getattr__("tune").__module__
    'ehrmeta.tuning.search'
    """
    module = sys.modules[package]
    stub = Path(str(module.__file__)).with_suffix(".pyi")
    origins: dict[str, str] = {}
    starred: list[str] = []
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if alias.name == "*":
                    starred.append(node.module)
                else:
                    origins[alias.name] = node.module

    def names() -> list[str]:
        for origin in starred:
            public = [name for name in vars(import_module(origin)) if name[0] != "_"]
            origins.update(dict.fromkeys(public, origin) | origins)
        starred.clear()
        return sorted(origins)

    def read(name: str) -> Any:
        if name == "__all__":
            return names()
        if name not in origins and (name.startswith("_") or name not in names()):
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(origins[name]), name)
        setattr(module, name, value)
        return value

    return read, lambda: sorted({*vars(module), *names(), "__all__"})
