"""Options shared by commands.

Importing them loads no other subpackage, so that help and errors of options are fast.
"""

import os
import re
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import click

from ehrmeta import cli

Option = Callable[[Any], Any]  # a decorator of commands
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
WRITTEN = (".csv", ".parquet")
_REGISTRY = Path(__file__).parents[1] / "algorithms" / "registry.py"
# `MetaSGD as MetaSGD` marks an algorithm there; importing it would load torch.
_REGISTERED = re.findall(r"\b(\w\w+) as \1\b", _REGISTRY.read_text(encoding="utf-8"))
CHOICES: dict[str, tuple[str, ...]] = {
    "algorithm": tuple(re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower() for name in _REGISTERED),
    "censored": ("error", "half", "limit", "column"),
    "likelihood": ("normal", "student_t"),
    "new-groups": ("error", "population", "nan"),
    "on-duplicate": ("error", "first", "last", "mean", "allow"),
    "scoring": (
        "rmse_macro",
        "rmse_task",
        "rmse_pooled",
        "mae_macro",
        "interval_error",
        "adapt_ms",
    ),
    "task-kind": ("patient", "cohort"),
    "time-unit": ("s", "min", "h", "d", "wk", "mo", "a"),
    "transform": ("auto", "log", "sqrt", "none"),
}
"""Values by name of the option; tests hold them equal to those of the package."""


class Command(click.Command):
    """A command that prints each error and each warning in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, once its options are read."""
        with cli.guarded(ctx.find_root().params.get("threads", 1)):
            return super().invoke(ctx)


def choice_option(name: str, text: str | None = None, **settings: Any) -> Option:
    """Option for one of several values."""
    return click.option(f"--{name}", type=click.Choice(CHOICES[name]), help=text, **settings)


def writable(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check before the work starts that a file can be written."""
    folder = Path(value).absolute().parent
    if not folder.is_dir():
        raise click.BadParameter(f"there is no folder '{folder}'.")
    if Path(value).is_dir() or not os.access(folder, os.W_OK):
        raise click.BadParameter(f"'{value}' cannot be written.")
    is_table = Path(value).suffix.lower() in WRITTEN
    if ctx.info_name == "predict" and not is_table:
        raise click.BadParameter(f"'{value}': name a .csv or .parquet file.")
    if ctx.info_name != "predict" and is_table:
        raise click.BadParameter(f"'{value}' is named like a table: name a file such as x.ehrmeta.")
    return value


def _permissions(_ctx: object, _param: object, value: str) -> int:
    """Parse octal permissions such as 640."""
    if not re.fullmatch("[0-7]{3}", value):
        raise click.BadParameter(f"{value!r} is not three octal digits such as 640.")
    return int(value, 8)


mode_option = click.option(
    "--mode",
    metavar="OCTAL",
    default="600",
    show_default=True,
    callback=_permissions,
    help="Permissions of the file: 640 lets a service's group read it.",
)


event_option = click.option(
    "--event",
    metavar="CLASS",
    help="Class whose risk is meant, of two.  [default: the second by name]",
)


def numbers(_ctx: object, _param: object, value: str | None) -> tuple[int, ...] | None:
    """Parse ``1,3,5`` into a tuple."""
    if value is None:
        return None
    try:
        values = tuple(int(number) for number in value.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a list of whole numbers such as 1,3,5."
        ) from error
    if min(values) < 0 or len(set(values)) < len(values):
        raise click.BadParameter(
            f"{value!r} repeats a number or has one below 0: write a list such as 1,3,5."
        )
    return values


def _names(_ctx: object, _param: object, value: str | None) -> tuple[str, ...]:
    """Parse ``A,B`` into a tuple, empty without a value."""
    return tuple(name.strip() for name in value.split(",")) if value else ()


def _pairs(_ctx: object, _param: object, value: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Split every ``COLUMN=VALUE`` at its last equals sign."""
    for one in value:
        if "=" not in one:
            raise click.BadParameter(f"{one!r} is not of the form COLUMN=VALUE.")
    return tuple((one.rpartition("=")[0], one.rpartition("=")[2]) for one in value)


def _ranges(_ctx: object, _param: object, value: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Check every ``COLUMN=LOW:HIGH``; either end may be empty."""
    pairs = _pairs(_ctx, _param, value)
    for column, text in pairs:
        try:
            ends(text)
        except ValueError as error:
            raise click.BadParameter(
                f"'{column}={text}': write COLUMN=LOW:HIGH, such as hdl=5:200."
            ) from error
    return pairs


def ends(text: str) -> tuple[float | None, float | None]:
    """Parse ``LOW:HIGH`` into numbers, None for an empty end."""
    low, high = text.split(":")
    return float(low) if low else None, float(high) if high else None


def _all_of(*options: Option) -> Option:
    """Combine several options in one decorator, in the order of the help."""
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)


def _character(_ctx: object, _param: object, value: str | None) -> str | None:
    """Read one character, or the word tab."""
    if value is None:
        return None
    value = {"tab": "\t", "\\t": "\t"}.get(value.lower(), value)
    if len(value) != 1:
        raise click.BadParameter(f"{value!r} is not one character, such as ; or tab.")
    return value


def _columns(name: str, text: str) -> Option:
    return click.option(name, metavar="A,B", callback=_names, help=text)


def _by_column(name: str, metavar: str, callback: Callable[..., Any], text: str) -> Option:
    text = f"{text} May be repeated."
    return click.option(
        f"--{name}", f"{name}s", metavar=metavar, multiple=True, callback=callback, help=text
    )


def shots_option(usual: str) -> Option:
    """Option for several k, separated by commas."""
    text = (
        f"Numbers k of values of each patient to adapt to.  [default: those of {usual} that at "
        "least half of the patients exceed]"
    )
    return click.option("--shots", metavar="N,N", callback=numbers, help=text)


# Options of reading a file.
file_options = _all_of(
    click.option(
        "--schema", "schema_file", metavar="FILE", help="TOML file with the columns' roles."
    ),
    click.option("--sep", metavar="CHAR", callback=_character, help="Separator of a CSV."),
    click.option("--decimal", type=click.Choice([".", ","]), help="Decimal separator of a CSV."),
    click.option("--encoding", metavar="NAME", help="Encoding of a CSV, such as cp1252."),
)

# Options that name the columns of a table.
table_options = _all_of(
    click.option("--task", metavar="COL", help="Column of the patient (or hospital) of each row."),
    click.option("--target", metavar="COL", help="Column to predict."),
    click.option("--time", metavar="COL", help="Column of numbers or ISO dates."),
    choice_option("time-unit", "UCUM unit of time; dates are counted in it.", default="d"),
    _columns("--features", "Columns to predict from; by default all others."),
    _columns("--measured", "Features known only once measured, such as labs."),
    _columns("--known", "Features known ahead although they vary, such as planned doses."),
    _by_column("unit", "COL=UNIT", _pairs, "UCUM unit: hdl=mg/dL."),
    _by_column("range", "COL=LOW:HIGH", _ranges, "Plausible range: hdl=5:200."),
    choice_option("task-kind", "In cohorts several rows may share a time.", default="patient"),
    choice_option("on-duplicate", "How to handle a repeated (patient, time).", default="error"),
    choice_option(
        "censored",
        "Read values such as <5 as half the limit, the limit, or the limit and a column of flags.",
        default="error",
    ),
    click.option("--drop-missing-target", is_flag=True, hidden=True),  # they always are
    file_options,
)


# Options of the model to train.
training_options = _all_of(
    choice_option("transform", "Learn on this scale; auto by default."),
    choice_option("likelihood"),
    click.option("--max-steps", type=click.IntRange(1), help="Training steps of a fit at most."),
    click.option("--seed", type=int, default=0),
)


def scoring_options(shots: str) -> Option:
    """Options for the test patients and the baselines."""
    return _all_of(
        shots_option(shots),
        click.option("--train", metavar="TABLE", help="Table to fit baselines on."),
        click.option(
            "--hold-out",
            type=SHARE,
            help="Test on the patients held out by `fit --hold-out`; fit baselines on the others.",
        ),
        click.option("--allow-training-table", is_flag=True, help="Allow the patients of `fit`."),
        file_options,
    )
