"""Peers that may not be installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ehrmeta.errors import MissingExtraError

__all__ = ["require"]


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
