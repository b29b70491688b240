"""Optional packages of peers."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ehrmeta.errors import MissingExtraError


def require(name: str) -> Any:
    """Import an optional package; `MissingExtraError` has the pip command."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"{name} is not installed. Install the peers with: pip install 'ehrmeta[bench]'"
        ) from error


def installed(package: str, name: str, echo: Callable[[str], object]) -> bool:
    """Whether the package of a method or data set is installed; otherwise prints that it is not."""
    if not package or find_spec(package) is not None:
        return True
    echo(f"{name} skipped: {package} is not installed (pip install {package})")
    return False
