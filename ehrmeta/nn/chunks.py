"""Work on many items in chunks that fit into the memory of the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from ehrmeta.errors import MemoryWarning

__all__ = ["Chunks"]

Out = TypeVar("Out")


class Chunks:
    """How many items are computed at once: halved, and said so once, when the device is full.

    Parameters
    ----------
    size : int
        Items at once to begin with; what did not fit is not tried again.

    Examples
    --------
    >>> chunks = Chunks(2)
    >>> list(chunks.map(lambda part: part.stop - part.start, 5))
    [2, 2, 1]
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._warned = False

    def map(self, compute: Callable[[slice], Out], n_items: int) -> Iterator[Out]:
        """What `compute` gives for consecutive parts of so many items.

        Raises
        ------
        torch.OutOfMemoryError
            A single item does not fit.
        """
        at = 0
        while at < n_items:
            part = slice(at, min(at + self.size, n_items))
            try:
                found = compute(part)
            except torch.OutOfMemoryError:
                if part.stop - at == 1:
                    raise
                self.size = (part.stop - at + 1) // 2
            else:
                yield found
                at = part.stop
                continue
            self._say_once()  # after the exception has let go of its tensors

    def _say_once(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the device's memory is full: going on with {self.size:,} tasks at once, or fewer "
                "if need be. Pass chunk_size= to begin with fewer.",
                MemoryWarning,
                stacklevel=2,
            )
