"""``ehrmeta bench``: the suites on the command line."""

from ehrmeta.bench.commands.group import bench

__all__ = ["bench"]
