"""The command line."""

from ehrmeta.cli.main import main

__all__ = ["main"]
