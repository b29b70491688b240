"""Running a command: its threads, errors and warnings."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import torch

from ehrmeta.cli.work.tables import in_command_words
from ehrmeta.errors import DataWarning, EhrmetaError


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


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {in_command_words(message)}", err=True)
