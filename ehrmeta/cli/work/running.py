"""Running a command: its threads, errors and warnings."""

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import click
import torch

from ehrmeta.cli.work.tables import in_command_words
from ehrmeta.errors import DataWarning, EhrmetaError

_EVERY = 10.0  # seconds between two signs of life


@contextmanager
def guarded(threads: int) -> Iterator[None]:
    """Run a command on so many CPU threads; each error and each warning is printed in one line."""
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        warnings.showwarning = _show_warning
        try:
            yield
        except EhrmetaError as error:
            raise click.ClickException(in_command_words(error)) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            where = f"cannot use '{error.filename}': " if error.filename else ""
            raise click.ClickException(f"{where}{reason}. Pass another path.") from error


@contextmanager
def stage(name: str) -> Iterator[None]:
    """While a stage runs, print its name and the seconds every ten seconds.

    On a terminal the line is rewritten; the bar of a training replaces it there.
    """
    ended, started, on_terminal = Event(), time.monotonic(), sys.stderr.isatty()

    def tell() -> None:
        while not ended.wait(_EVERY):
            line = f"{name}: {time.monotonic() - started:.0f} s"
            click.echo(f"\r{line}" if on_terminal else line, err=True, nl=not on_terminal)

    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {in_command_words(message)}", err=True)
