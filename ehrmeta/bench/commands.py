"""``ehrmeta bench``: the suites on the command line."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from ehrmeta.bench.cache import Cache
from ehrmeta.bench.cohorts import run_cohorts
from ehrmeta.bench.cohorts_data import COHORT_DATA
from ehrmeta.bench.cohorts_methods import COHORT_METHODS
from ehrmeta.bench.cohorts_table import cohorts_records, cohorts_tables, cohorts_verdict
from ehrmeta.bench.conformal import FULL as ALL_SPLITS
from ehrmeta.bench.conformal import MODELS as INTERVAL_MODELS
from ehrmeta.bench.conformal import QUICK as QUICK_SPLITS
from ehrmeta.bench.conformal import conformal_table, run_conformal
from ehrmeta.bench.digits import LEARNERS, digits_table, run_digits
from ehrmeta.bench.dosing import dosing_table, run_dosing
from ehrmeta.bench.guide import learner_tables, put_tables
from ehrmeta.bench.landmark import run_landmark
from ehrmeta.bench.landmark_cell import FULL as FULL_LANDMARK
from ehrmeta.bench.landmark_cell import QUICK as QUICK_LANDMARK
from ehrmeta.bench.landmark_data import COHORTS
from ehrmeta.bench.landmark_methods import METHODS as RISK_METHODS
from ehrmeta.bench.landmark_table import (
    cells_of,
    landmark_notes,
    landmark_records,
    landmark_summary,
    landmark_tables,
)
from ehrmeta.bench.memory import SIZES, measure_training_memory, memory_table
from ehrmeta.bench.n_of_1 import n_of_1_table, run_n_of_1
from ehrmeta.bench.pacoh import pacoh_records, pacoh_table, run_pacoh
from ehrmeta.bench.patients import run_patients
from ehrmeta.bench.patients_cell import FULL, QUICK
from ehrmeta.bench.patients_data import DATA_SETS
from ehrmeta.bench.patients_methods import METHODS as FORECASTERS
from ehrmeta.bench.patients_table import (
    patients_notes,
    patients_records,
    patients_summary,
    patients_tables,
)
from ehrmeta.bench.record import Record, write_records
from ehrmeta.bench.reliability import FULL as ALL_FAULTS
from ehrmeta.bench.reliability import QUICK as QUICK_FAULTS
from ehrmeta.bench.reliability import reliability_table, run_reliability
from ehrmeta.bench.sinusoid import METHODS, run_sinusoid, sinusoid_table
from ehrmeta.bench.speed import run_speed
from ehrmeta.bench.treatment import PARTS, run_treatment
from ehrmeta.bench.treatment_methods import METHODS as EFFECT_METHODS
from ehrmeta.bench.treatment_table import treatment_tables
from ehrmeta.bench.tuning import run_tuning, tuning_table

__all__ = ["bench"]


def _in_a_folder(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """Refuse before measuring what could not be written after it."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder '{Path(path).parent}'.", context, option)
    return path


_quick = click.option("--quick", is_flag=True, help="Small cases: does it work here?")
_json = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    callback=_in_a_folder,
    help="Write every number here.",
)
_cache = click.option(
    "--cache",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Keep finished parts here, and go on from them.",
)
_seed = click.option("--seed", type=int, default=0, show_default=True)


_workers = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes; more than one compute on one thread each.",
)


@click.group()
def bench() -> None:
    """Measure this package beside its peers, on this machine.

    \b
        pip install 'ehrmeta[bench]'
        ehrmeta bench speed --json speed.json
    """


@bench.command()
@_quick
@_json
@_cache
@_seed
@click.option(
    "--method",
    "methods",
    multiple=True,
    help="Only this method of the meta-gradient; may be repeated.",
)
@click.option("--device", default="cpu", show_default=True, help="Of the meta-gradients.")
def speed(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    seed: int,
    methods: tuple[str, ...],
    device: str,
) -> None:
    """Time meta-gradients, adapting, training steps; count memory.

    Every method runs in the same process in turn, after a check that all compute the same
    gradient; numbers are medians, and ratios are taken within a round.

    \b
    Example:
        ehrmeta bench speed --quick
    """
    records = run_speed(
        click.echo,
        quick=quick,
        cache=Cache(cache),
        methods=methods,
        device=device,
        seed=seed,
    )
    _write(json_file, records)


@bench.command()
@_quick
@_json
@_cache
@_seed
def memory(quick: bool, json_file: str | None, cache: Path | None, seed: int) -> None:
    """Count the memory that training on 10,000 to 1,000,000 patients takes.

    \b
    Example:
        ehrmeta bench memory --json memory.json
    """
    sizes, max_steps = ((1_000, 10_000), 20) if quick else (SIZES, 300)
    records: list[Record] = []
    for size in sizes:
        settings = {
            "cell": f"memory {size}",
            "suite": "memory",
            "max_steps": max_steps,
            "seed": seed,
        }
        records += Cache(cache).cell(
            settings, partial(measure_training_memory, [size], max_steps=max_steps, seed=seed)
        )
    click.echo(memory_table(records))
    _write(json_file, records)


@bench.command()
@_quick
@_json
@_cache
@_seed
@_workers
@click.option(
    "--method",
    "names",
    type=click.Choice(list(METHODS)),
    multiple=True,
    help="Only this learner; may be repeated.",
)
def sinusoid(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    seed: int,
    workers: int,
    names: tuple[str, ...],
) -> None:
    """Compare all learners in few-shot regression on sinusoids.

    The field's protocol: 5, 10 and 20 shots, 2 x 40 ReLU units, without noise and with. --quick
    trains a tenth of the steps, so its errors are higher.

    \b
    Example:
        ehrmeta bench sinusoid --quick --workers 2
    """
    if quick:
        click.echo("--quick: a tenth of the training steps")
    records = run_sinusoid(
        click.echo,
        quick=quick,
        cache=Cache(cache),
        methods={name: METHODS[name] for name in names or METHODS},
        workers=workers,
        seed=seed,
    )
    click.echo("\n" + sinusoid_table(records))
    _write(json_file, records)


@bench.command()
@_quick
@_json
@_cache
@_seed
@_workers
@click.option(
    "--method",
    "names",
    type=click.Choice(list(LEARNERS)),
    multiple=True,
    help="Only this learner; may be repeated.",
)
def digits(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    seed: int,
    workers: int,
    names: tuple[str, ...],
) -> None:
    """Compare class learners on images: digits never seen in training.

    Five-way tasks from 1 and 5 images of each class, through a small convolutional network, beside
    the nearest centroid on pixels. --quick takes two of the five splits.

    \b
    Example:
        ehrmeta bench digits --quick
    """
    if quick:
        click.echo("--quick: two of the five splits, a quarter of the test tasks")
    records = run_digits(
        click.echo,
        quick=quick,
        cache=Cache(cache),
        learners={name: LEARNERS[name] for name in names or LEARNERS},
        workers=workers,
        seed=seed,
    )
    click.echo("\n" + digits_table(records))
    _write(json_file, records)


@bench.command()
@_quick
@_json
@_cache
@_workers
@click.option(
    "--data-set",
    "data_sets",
    type=click.Choice(list(DATA_SETS)),
    multiple=True,
    help="Only this data set; may be repeated.",
)
@click.option(
    "--method",
    "names",
    type=click.Choice(list(FORECASTERS)),
    multiple=True,
    help="Only this method; may be repeated.",
)
def patients(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    workers: int,
    data_sets: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Forecast real patients: the learners beside mixed models and boosting.

    Five folds by patient; the first 0 to 10 rows of a patient are seen, the later ones predicted.
    Peers choose their settings on training patients, ours run at their defaults. --quick runs one
    fold of a few patients, with short training and no choice of settings.

    \b
    Example:
        ehrmeta bench patients --data-set pbcseq-bilirubin --cache runs
    """
    results = run_patients(
        click.echo,
        quick=quick,
        folder=cache,
        data_sets=data_sets,
        methods=names,
        workers=workers,
    )
    click.echo("\n" + patients_notes(QUICK if quick else FULL))
    for table in patients_tables(results):
        click.echo("\n" + table.rstrip())
    click.echo("\n" + patients_summary(results))
    _write(json_file, patients_records(results))


@bench.command()
@_quick
@_json
@_cache
@_workers
@click.option(
    "--data-set",
    "data_sets",
    type=click.Choice(list(COHORT_DATA)),
    multiple=True,
    help="Only this data set; may be repeated.",
)
@click.option(
    "--method",
    "names",
    type=click.Choice(list(COHORT_METHODS["risk"] | COHORT_METHODS["dose"])),
    multiple=True,
    help="Only this method; may be repeated.",
)
def cohorts(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    workers: int,
    data_sets: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Predict risk and dose at new hospitals, from none to 100 of their patients.

    Folds of sites, at most five; beside pooled models, what hospitals do to update them, the
    mixed-effects logistic, and dosing equations. --quick runs one fold and one draw of supports.

    \b
    Example:
        ehrmeta bench cohorts --data-set heart --quick
    """
    results = run_cohorts(
        click.echo,
        quick=quick,
        folder=cache,
        data_sets=data_sets,
        methods=names,
        workers=workers,
    )
    for table in cohorts_tables(results):
        click.echo("\n" + table.rstrip())
    click.echo("\n" + cohorts_verdict(results))
    _write(json_file, cohorts_records(results))


@bench.command()
@_quick
@_json
@_cache
@_workers
@click.option(
    "--cohort",
    "cohorts",
    type=click.Choice(list(COHORTS)),
    multiple=True,
    help="Only this cohort; may be repeated.",
)
@click.option(
    "--method",
    "names",
    type=click.Choice(list(RISK_METHODS)),
    multiple=True,
    help="Only this method; may be repeated.",
)
def landmark(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    workers: int,
    cohorts: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Predict events after a patient's first visits: diabetes, heart attack, stroke, death.

    The adapted forecaster's posterior of the values before the landmark in a hazard model, beside
    Cox, logistic and boosted models on last values and on a mixed model's BLUP; death competes.
    --quick runs one fold, with short training on few patients.

    \b
    Example:
        ehrmeta bench landmark --cohort pbcseq --quick
    """
    found = run_landmark(
        click.echo,
        quick=quick,
        folder=cache,
        cohorts=cohorts,
        methods=names,
        workers=workers,
    )
    cells = cells_of(found)
    click.echo("\n" + landmark_notes(QUICK_LANDMARK if quick else FULL_LANDMARK))
    for table in landmark_tables(cells):
        click.echo("\n" + table.rstrip())
    click.echo("\n" + landmark_summary(cells))
    _write(json_file, landmark_records(cells))


@bench.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--into",
    "page",
    metavar="PAGE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Put them between the marks of this page.",
)
def table(files: tuple[str, ...], page: Path | None) -> None:
    """Show the tables of saved records of sinusoid and digits.

    \b
    Example:
        ehrmeta bench table docs/sinusoid.json docs/digits.json --into docs/which_learner.md
    """
    tables = learner_tables(files)
    if page is None:
        click.echo(tables)
        return
    page.write_text(put_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    click.echo(f"saved {page}")


@bench.command()
@click.option(
    "--data",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the challenge's files: set-a/*.txt, or set_a.parquet.",
)
@_quick
@_json
@_cache
@_workers
def pacoh(data: Path, quick: bool, json_file: str | None, cache: Path | None, workers: int) -> None:
    """Forecast the second day of an ICU stay from its first (PhysioNet 2012).

    The protocol of PACOH: 100 stays to train on, 500 to test, on Glasgow coma score and
    haematocrit; the published split and five random ones. --quick runs the published split only,
    with short training.

    \b
    Example:
        ehrmeta bench pacoh --data physionet2012 --quick
    """
    found = run_pacoh(data, click.echo, quick=quick, folder=cache, workers=workers)
    click.echo("\n" + pacoh_table(found))
    _write(json_file, pacoh_records(found))


@bench.command()
@_quick
@_json
@_seed
def reliability(quick: bool, json_file: str | None, seed: int) -> None:
    """Damage files, kill trainings, fill disks, search outputs for patients.

    \b
    Example:
        ehrmeta bench reliability --json reliability.json
    """
    records = run_reliability(click.echo, QUICK_FAULTS if quick else ALL_FAULTS, seed=seed)
    click.echo("\n" + reliability_table(records))
    _write(json_file, records)
    if any(record.value for record in records if record.metric == "failures"):
        raise SystemExit(1)


@bench.command()
@_quick
@_json
@_cache
@_workers
@click.option(
    "--part",
    "parts",
    type=click.Choice([*PARTS, "dosing", "n-of-1"]),
    multiple=True,
    help="Only this; may be repeated.",
)
@click.option(
    "--method",
    "names",
    type=click.Choice(list(EFFECT_METHODS)),
    multiple=True,
    help="Only this method of effects; may be repeated.",
)
def treatment(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    workers: int,
    parts: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Compare learners of treatment effects: simulations, new sites, trials, doses, patients.

    Zero and constant effects, the S-, T-, X-, DR- and R-learner with ridge and boosting, EconML's
    causal forest where it is installed; doses that bring concentrations into a range, beside
    pharmacometric MAP; effects of treatment periods with carry-over, doses in random order or
    following the outcome. --quick runs a small case of each part.

    \b
    Example:
        ehrmeta bench treatment --part sites --cache runs
    """
    kept, chosen = Cache(cache), parts or (*PARTS, "dosing", "n-of-1")
    between = [part for part in chosen if part in PARTS]
    effects = (
        run_treatment(
            click.echo, quick=quick, cache=kept, parts=between, methods=names, workers=workers
        )
        if between
        else []
    )
    dosing: list[Record] = []
    within: list[Record] = []
    if "dosing" in chosen:
        dosing = run_dosing(click.echo, quick=quick, cache=kept, workers=workers)
    if "n-of-1" in chosen:
        within = run_n_of_1(click.echo, quick=quick, cache=kept, workers=workers)
    for records, shown in (
        (effects, treatment_tables),
        (dosing, dosing_table),
        (within, n_of_1_table),
    ):
        if records:
            click.echo("\n" + shown(records))
    _write(json_file, effects + dosing + within)


@bench.command()
@_quick
@_json
@_cache
@_seed
@_workers
def tuning(quick: bool, json_file: str | None, cache: Path | None, seed: int, workers: int) -> None:
    """Tune MAML on real patients: what it gains, and what giving up early saves.

    A study of 30 trials on training patients, with and without giving up; then its best setting and
    the defaults are trained alike and compared on other patients. --quick runs three short trials.

    \b
    Example:
        ehrmeta bench tuning --cache runs
    """
    records = run_tuning(click.echo, quick=quick, cache=Cache(cache), workers=workers, seed=seed)
    click.echo("\n" + tuning_table(records))
    _write(json_file, records)


@bench.command()
@_quick
@_json
@_cache
@_seed
@_workers
@click.option(
    "--model",
    "names",
    type=click.Choice(list(INTERVAL_MODELS)),
    multiple=True,
    help="Only this model; may be repeated.",
)
def conformal(
    quick: bool,
    json_file: str | None,
    cache: Path | None,
    seed: int,
    workers: int,
    names: tuple[str, ...],
) -> None:
    """Count how often calibrated intervals hold, by sex, age and k.

    Each model is fitted once; patients it has not seen are split 20 times into those to calibrate
    on and those to test. --quick takes two splits of 600 patients, so its shares are rough.

    \b
    Example:
        ehrmeta bench conformal --model 'mixed + OU'
    """
    records = run_conformal(
        click.echo,
        plan=QUICK_SPLITS if quick else ALL_SPLITS,
        cache=Cache(cache),
        models=names or tuple(INTERVAL_MODELS),
        workers=workers,
        seed=seed,
    )
    click.echo("\n" + conformal_table(records))
    _write(json_file, records)


def _write(json_file: str | None, records: list[Record]) -> None:
    if json_file is not None:
        context = click.get_current_context()
        quick = " --quick" if context.params.get("quick") else ""
        write_records(json_file, records, f"ehrmeta bench {context.info_name}{quick}")
        click.echo(f"\nsaved {json_file}")
