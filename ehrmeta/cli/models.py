"""Commands ``ehrmeta fit``, ``adapt``, ``predict`` and ``evaluate``."""

from typing import Any

import click

from ehrmeta.cli import work
from ehrmeta.cli.options import (
    SHARE,
    Command,
    choice_option,
    file_options,
    scoring_options,
    table_options,
    training_options,
    writable,
)

ALGORITHM = "[default: deep-mixed-effects for numbers, meta-sgd for classes]"


@click.command(cls=Command)
@click.argument("table")
@table_options
@choice_option("algorithm", ALGORITHM)
@training_options
@click.option(
    "--hold-out", type=SHARE, help="Share of patients to exclude, for `evaluate --hold-out`."
)
@click.option("--out", required=True, callback=writable, help="Model file to write.")
def fit(**options: Any) -> None:
    """Meta-train on the visits in TABLE, a file or the name of a bundled data set.

    \b
    Examples:
        ehrmeta fit visits.csv --task patient --time day --target hdl --out hdl.ehrmeta
        ehrmeta fit pbcseq --likelihood student_t --hold-out 0.2 --out bili.ehrmeta
    """
    work.fit_model(**options)


@click.command(cls=Command)
@click.argument("model")
@click.argument("visits")
@file_options
@click.option("--out", required=True, callback=writable, help="File to write: patient data.")
def adapt(**options: Any) -> None:
    """Adapt MODEL to new patients from the VISITS they have had so far.

    Columns have the names they had in `fit`.

    \b
    Example:
        ehrmeta adapt hdl.ehrmeta new_visits.csv --out patients.ehrmeta
    """
    work.adapt_model(**options)


@click.command(cls=Command)
@click.argument("model")
@click.argument("rows")
@click.option("--support", metavar="VISITS", help="Visits to adapt to before predicting.")
@choice_option("new-groups", default="error", show_default=False)
@file_options
@click.option("--confidence-level", type=SHARE, default=0.9, help="Of the intervals.")
@click.option("--out", required=True, callback=writable, help="Table to write: .csv or .parquet.")
def predict(**options: Any) -> None:
    """Predict every row of ROWS with MODEL, a file from `fit` or `adapt`.

    A file from `fit` alone gives the population prediction. Columns have the same names as in
    `fit`; the target and measured features may be missing.

    \b
    Examples:
        ehrmeta predict patients.ehrmeta next_visits.csv --out predictions.csv
        ehrmeta predict hdl.ehrmeta next_visits.csv --support new_visits.csv --out predictions.csv
    """
    work.predict_rows(**options)


@click.command(cls=Command)
@click.argument("model")
@click.argument("table")
@scoring_options("1,3,5")
@click.option(
    "--baselines/--no-baselines", default=None, help="Default: if there is data to fit them on."
)
def evaluate(**options: Any) -> None:
    """Score MODEL on the patients of TABLE after 1, 3, 5 values of each.

    None of them may have been in training: pass another table, or hold patients out.

    \b
    Examples:
        ehrmeta evaluate hdl.ehrmeta test.csv --train train.csv
        ehrmeta evaluate bili.ehrmeta pbcseq --hold-out 0.2
    """
    work.evaluate_model(**options)
