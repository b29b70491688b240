"""Command line of the package: the group ``ehrmeta`` and its commands."""

from pathlib import Path
from typing import Any

import click

from ehrmeta import cli
from ehrmeta.cli.options import (
    CHOICES,
    SHARE,
    Command,
    choice_option,
    event_option,
    file_options,
    mode_option,
    scoring_options,
    shots_option,
    table_options,
    training_options,
    writable,
)

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="ehrmeta")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    help="CPU threads. With more than one, set GOMP_SPINCOUNT=1000 in the environment, so that "
    "waiting threads do not block other processes.",
)
def main(**_: int) -> None:
    """Learn from many patients, then adapt to a new one from a few values.

    Tables are .csv or .parquet files with a row per visit. Typical use:

    \b
        ehrmeta fit visits.csv --task patient --time day --target hdl --out hdl.ehrmeta
        ehrmeta adapt hdl.ehrmeta new_visits.csv --out patients.ehrmeta
        ehrmeta predict patients.ehrmeta next_visits.csv --out predictions.csv
    """


@main.command(cls=Command)
@click.option("--quick", is_flag=True, help="Few patients and steps, to check that it works.")
@click.option("--out", default="demo", help="Folder for picture and model.")
def demo(quick: bool, out: str) -> None:
    """Train on ten thousand real patients, adapt to new ones, compare with baselines.

    \b
    Example:
        ehrmeta demo
    """
    cli.run_demo(out, click.echo, quick=quick)


@main.command(cls=Command)
def datasets() -> None:
    """List the bundled data sets.

    \b
    Example:
        ehrmeta datasets
    """
    cli.list_data_sets()


@main.command(cls=Command)
@click.argument("table")
@table_options
@click.option("--write-schema", metavar="FILE", help="Save the guessed roles, to correct them.")
@click.option("--strict", is_flag=True, help="Exit with status 1 on warnings, too.")
def check(**options: Any) -> None:
    """List all problems of TABLE; exit status 1 if it cannot be used.

    \b
    Examples:
        ehrmeta check visits.csv --task patient --time day --target hdl --write-schema visits.toml
        ehrmeta check visits.csv --schema visits.toml
    """
    cli.check_file(**options)


@main.command(cls=Command)
@click.argument("table")
@table_options
@choice_option("algorithm", "[default: deep-mixed-effects for numbers, meta-sgd for classes]")
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
    cli.fit_model(**options)


@main.command(cls=Command)
@click.argument("model")
@click.argument("visits")
@file_options
@click.option("--out", required=True, callback=writable, help="File to write: patient data.")
@mode_option
def adapt(**options: Any) -> None:
    """Adapt MODEL to new patients from the VISITS they have had so far.

    Columns have the names they had in `fit`.

    \b
    Example:
        ehrmeta adapt hdl.ehrmeta new_visits.csv --out patients.ehrmeta
    """
    cli.adapt_model(**options)


@main.command(cls=Command)
@click.argument("model")
@click.argument("rows")
@click.option("--support", metavar="VISITS", help="Visits to adapt to before predicting.")
@choice_option("new-groups", default="error", show_default=False)
@event_option
@file_options
@click.option("--confidence-level", type=SHARE, default=0.9, help="Of the intervals.")
@click.option("--out", required=True, callback=writable, help="Table to write: .csv or .parquet.")
@mode_option
def predict(**options: Any) -> None:
    """Predict every row of ROWS with MODEL, a file from `fit` or `adapt`.

    A file from `fit` alone gives the population prediction. Columns have the same names as in
    `fit`; the target and measured features may be missing.

    \b
    Examples:
        ehrmeta predict patients.ehrmeta next_visits.csv --out predictions.csv
        ehrmeta predict hdl.ehrmeta next_visits.csv --support new_visits.csv --out predictions.csv
    """
    cli.predict_rows(**options)


@main.command(cls=Command)
@click.argument("model")
@click.argument("parts")
@click.option("--workers", type=click.IntRange(1), default=1, help="Processes.")
@click.option("--confidence-level", type=SHARE, default=0.9, help="Of the intervals.")
@click.option("--out", required=True, help="Folder to write to.")
@mode_option
def score(**options: Any) -> None:
    """Predict the rows without a target in every file of the folder PARTS.

    Rows with a target are the visits to adapt to. All rows of a patient are in one file: .parquet,
    .arrow, .feather, .csv or .tsv. Predictions go to files of the same names. Run it again to go on
    after an interruption.

    \b
    Example:
        ehrmeta score hdl.ehrmeta parts/ --out predictions/ --workers 2
    """
    cli.score_parts(**options)


@main.command(cls=Command)
@click.argument("model")
@click.option("--host", default="127.0.0.1", help="Address; others than this need a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000)
@click.option("--token-file", metavar="FILE", help="File of the bearer token of every request.")
@click.option("--tls-cert", metavar="FILE", help="Certificate, for HTTPS.")
@click.option("--tls-key", metavar="FILE", help="Its key.")
@click.option("--max-bytes", type=click.IntRange(1), default=1 << 20, help="Of a request.")
@click.option("--max-rows", type=click.IntRange(1), default=10_000, help="Of a request.")
def serve(**options: Any) -> None:
    """Answer requests for predictions over HTTP with MODEL.

    A request holds the visits to adapt to and the rows to predict, of one or many patients. SIGTERM
    ends the server once open requests are answered. Needs pip install 'ehrmeta[serve]'.

    \b
    Examples:
        ehrmeta serve hdl.ehrmeta
        ehrmeta serve hdl.ehrmeta --host 0.0.0.0 --token-file token --tls-cert c.pem --tls-key k.pem
    """
    cli.serve_model(**options)


@main.command(cls=Command)
@click.argument("model")
@click.argument("table")
@scoring_options("1,3,5")
@click.option(
    "--baselines/--no-baselines", default=None, help="Default: if there is data to fit them on."
)
def evaluate(**options: Any) -> None:
    """Score MODEL on the patients of TABLE after 1, 3, 5 values of each.

    The patients must not have been in training: pass another table, or hold patients out.

    \b
    Examples:
        ehrmeta evaluate hdl.ehrmeta test.csv --train train.csv
        ehrmeta evaluate bili.ehrmeta pbcseq --hold-out 0.2
    """
    cli.evaluate_model(**options)


@main.command(cls=Command)
@click.argument("model")
@click.argument("table")
@click.option("--out", required=True, help="File to write: .html, .md or .json.")
@scoring_options("0,1,2,3,5")
@click.option("--answers", metavar="FILE", help='TOML file of checklist answers: 5a = "...".')
@click.option(
    "--examples", type=click.IntRange(0, 20), default=0, help="Number of patients to draw."
)
@event_option
@click.option("--title", default="", show_default=False, help="Of the report.")
def report(**options: Any) -> None:
    """Write a report on how well MODEL forecasts the patients of TABLE, overall and in subgroups.

    The patients must not have been in training: pass another table, or hold patients out.

    \b
    Examples:
        ehrmeta report hdl.ehrmeta test.csv --train train.csv --out report.html
        ehrmeta report bili.ehrmeta pbcseq --hold-out 0.2 --out report.html
    """
    cli.write_report(**options)


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


@main.command(cls=Command)
@click.argument("table", required=False)
@table_options
@click.option(
    "--algorithm",
    "names",
    type=click.Choice(CHOICES["algorithm"]),
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
@shots_option("1,3,5")
@click.option(
    "--scoring",
    type=click.Choice(CHOICES["scoring"]),
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
    cli.search_settings(**options)


@main.command(cls=Command)
@click.argument("file")
@click.option(
    "--full", is_flag=True, help="Everything: all settings as JSON, every array by shape."
)
def inspect(**options: Any) -> None:
    """Verify a model FILE and describe its contents.

    Files of adapted patients are patient data: their rows are counted, never shown.

    \b
    Examples:
        ehrmeta inspect hdl.ehrmeta
        ehrmeta inspect hdl.ehrmeta --full
    """
    cli.describe_file(**options)


@main.group()
def privacy() -> None:
    """Measure what a model reveals about its patients.

    \b
    Example:
        ehrmeta privacy audit hdl.ehrmeta training_visits.csv other_visits.csv
    """


@privacy.command("audit", cls=Command)
@click.argument("model")
@click.argument("members")
@click.argument("non_members")
@shots_option("0,1,3")
@file_options
def audit_members(**options: Any) -> None:
    """Measure how well attacks distinguish MEMBERS of MODEL's training from NON_MEMBERS.

    Prints the area under the ROC curve (0.5 is chance) and the true positive rates at 1 and 5 %
    false positives, for attacks by the loss, by the calibration and by a report on the members.

    \b
    Example:
        ehrmeta privacy audit hdl.ehrmeta training_visits.csv other_visits.csv
    """
    cli.audit_membership(**options)


@main.group()
def audit() -> None:
    """Verify audit logs of adaptations.

    \b
    Example:
        ehrmeta audit verify adaptations.jsonl --key-file audit.key
    """


@audit.command(cls=Command)
@click.argument("log")
@click.option("--key-file", metavar="FILE", help="Key of the log.  [default: EHRMETA_AUDIT_KEY]")
def verify(**options: Any) -> None:
    """Check that no line of an audit LOG was changed, removed or inserted.

    \b
    Example:
        ehrmeta audit verify adaptations.jsonl --key-file audit.key
    """
    cli.verify_log(**options)
