"""Output of commands: errors and warnings in terms of their options, and progress lines."""

import dataclasses
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import click
import torch

from ehrmeta.data import Finding
from ehrmeta.errors import DataWarning, EhrmetaError, Remedy

_EVERY = 10.0  # seconds between two progress lines

# Remedies on the command line, by kind.
COMMAND_WORDS = {
    "ask-for-classes": "Pass a regression model: class probabilities are not supported here.",
    "censored": "Choose --censored half, limit or column: half of a lower limit, the limit itself, "
    "or the limit and a column of flags.",
    "convert-units": "{likely}convert them, or correct --unit.",
    "declare-known": "Name those that are known ahead, such as planned doses, with --known.",
    "drop-missing": "Those rows are left out.",
    "fewer-shots": "Lower the numbers of --shots.",
    "fit-with-time": "Fit it with --time.",
    "give-range": "Write one, such as {name}=1:10.",
    "gross-errors": "Correct them, pass --range, or --likelihood student_t.",
    "keep-levels": "If tasks are hospitals or sites, `fit` with --task-kind cohort.",
    "keep-small-tasks": "",
    "name-shots": "Pass them as --shots to score them.",
    "name-time": "Pass --time, or remove them from --measured.",
    "new-groups": "Adapt them first, or pass --new-groups population or nan.",
    "numbers-at-fit": "Convert it to numbers, as at `fit`.",
    "numbers-or-text": "Write all of its cells as numbers, or all as text.",
    "one-row-per-time": "Drop them, or `fit` with --on-duplicate first, last, mean or allow.",
    "one-row-per-visit": "If tasks are patients, `fit` with --on-duplicate first, last or mean; if "
    "they are cohorts, with --task-kind cohort.",
    "one-time-zone": "Convert all rows to one zone.",
    "one-decimal": "Write one form of numbers, or name the decimal by --decimal.",
    "other-encoding": "Pass another --encoding, or leave it out.",
    "other-form": "Pass --encoding, --sep or --decimal if this is wrong.",
    "other-repeats": "`fit` with another --on-duplicate if another is meant.",
    "other-study": "Pass another --study, or the same table and options as before.",
    "patient-not-visit": "Pass as --task the column of the patient, and write one row per visit.",
    "pass-a-model": "Pass a file from `fit`.",
    "robust-likelihood": "Look for gross errors in the target, or pass --likelihood student_t.",
    "several-tasks": "Pass as --task the column that identifies patients.",
    "rows-per-patient": "Pass as --task the column of the patient, and write one row per visit.",
    "smaller-chunks": "",
    "smaller-steps": "Pass --likelihood student_t if the target holds gross errors.",
    "training-table": "Pass a table of other patients, or --allow-training-table.",
    "two-classes": "Pass the column of classes as text to predict probabilities.",
    "wide-table": "Write one row per visit: turn {columns} into one column and a column of visits.",
    "write-dates": "Write them as YYYY-MM-DD.",
    "write-range": "Write LOW:HIGH, LOW:HIGH:log or A,B,C.",
}


@contextmanager
def guarded(threads: int) -> Iterator[None]:
    """Run a command on `threads` CPU threads, and print each error or warning on one line, once."""
    shown: set[str] = set()

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        text = in_command_words(message)
        if text not in shown:
            shown.add(text)
            click.echo(f"Warning: {text}", err=True)

    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        warnings.showwarning = show_warning
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


def in_command_words(message: object) -> str:
    """Text of an error, a warning or a part of one on one line, with command-line remedies."""
    if isinstance(message, BaseException):
        text = " ".join(map(in_command_words, message.args))
    elif isinstance(message, Remedy):
        text = COMMAND_WORDS[message.kind].format(**message.values)
    else:
        text = str(reworded(message) if isinstance(message, Finding) else message)
    return " ".join(text.split())


def reworded(finding: Finding) -> Finding:
    """A finding with its remedy for the command line."""
    return dataclasses.replace(finding, remedy=in_command_words(finding.remedy))


def printable(text: str) -> str:
    """Escape control characters, with which a file could control the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
