"""Peers that may not be installed."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ehrmeta.errors import MissingExtraError


def require(name: str) -> Any:
    """Import a peer.

    Raises
    ------
    MissingExtraError
        It is not installed; the message names the pip command.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"{name} is not installed. Install the peers with: pip install 'ehrmeta[bench]'"
        ) from error


def installed(package: str, name: str, say: Callable[[str], object]) -> bool:
    """Whether a method or data set can be used; says what is left out for want of its package."""
    if not package or find_spec(package) is not None:
        return True
    say(f"{name} left out: {package} is not installed (pip install {package})")
    return False
