"""Progress of what `fit` does before the training steps."""

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def stage(name: str, *, shown: bool) -> Iterator[None]:
    """Show the name of a stage when it begins, and the time that it took when it ends.

    Parameters
    ----------
    name : str
        What is being done.
    shown : bool
        If False, nothing is written.

    Examples
    --------
    >>> with stage("fitting start values", shown=False):
    ...     pass
    """
    with tqdm(bar_format="{desc} [{elapsed}]", desc=name, disable=not shown):
        yield
