"""Command ``ehrmeta tune``: hyper-parameter search in one or several shells."""

from pathlib import Path
from typing import Any

import click

from ehrmeta.cli import work
from ehrmeta.cli.options import (
    Choice,
    Command,
    shots_option,
    table_options,
    training_options,
    writable,
)

_SECONDS = click.FloatRange(0, min_open=True)


def _folder(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Create a folder before the search, or raise an error."""
    if value is not None:
        try:
            Path(value).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"cannot create the folder '{value}': {error.strerror}."
            raise click.BadParameter(reason) from error
    return value


@click.command(cls=Command)
@click.argument("table", required=False)
@table_options
@click.option(
    "--algorithm",
    "names",
    type=Choice("algorithm"),
    multiple=True,
    help="May be repeated to search over algorithms.  [default: deep-mixed-effects]",
)
@training_options
@click.option(
    "--search",
    "searched",
    metavar="NAME[=RANGE]",
    multiple=True,
    help="Search this parameter, in its declared range or LOW:HIGH, LOW:HIGH:log, A,B,C (64x64 "
    "for two layers). May be repeated. By default all that --list shows; several algorithms add "
    "their parameters.",
)
@click.option("--list", "listed", is_flag=True, help="Show the search space, and exit.")
@click.option("--trials", type=click.IntRange(1), default=30)
@click.option("--timeout", type=_SECONDS, metavar="SECONDS", help="Start no trial after this time.")
@shots_option("1,3,5", "Numbers k of values of each patient to adapt to.")
@click.option(
    "--scoring",
    type=Choice("scoring"),
    multiple=True,
    help="May be repeated: several objectives, without stopping trials early. Classes are scored "
    "by their log loss.  [default: rmse_macro]",
)
@click.option("--folds", type=click.IntRange(2), default=5)
@click.option("--study", metavar="NAME", help="Study to create or resume.  [default: TABLE's]")
@click.option(
    "--storage",
    metavar="URL",
    default="ehrmeta-studies.db",
    help="A file (.db, .journal), or postgresql://user:password@host/database.",
)
@click.option("--out", callback=lambda c, p, v: v and writable(c, p, v), help="Best model.")
@click.option("--pictures", metavar="FOLDER", callback=_folder, help="Save pictures here.")
@click.option("--export-script", metavar="FILE", help="Write the search as an Optuna script.")
def tune(**options: Any) -> None:
    """Search hyper-parameters on the patients of TABLE with Optuna.

    A setting is scored by its error on patients that it was not trained on, after their first
    values. Run it again to resume a study that was stopped. Run it in several shells with the same
    study and storage to share the trials; the others need no TABLE if they can read the same file.

    \b
    Examples:
        ehrmeta tune pbcseq --algorithm maml --trials 50 --pictures pictures
        ehrmeta tune visits.csv --task patient --time day --target hdl --study hdl
        ehrmeta tune --study hdl --storage ehrmeta-studies.db
    """
    work.search_settings(**options)
