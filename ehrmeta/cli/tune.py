"""Hyper-parameter search in one or several shells."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ehrmeta.algorithms import ALGORITHMS
from ehrmeta.cli import tables
from ehrmeta.cli.fit import describe, new_model
from ehrmeta.cli.messages import stage
from ehrmeta.data import Schema
from ehrmeta.estimators.k_shot_protocol import shots_to_score
from ehrmeta.evaluation.metrics import METRICS
from ehrmeta.report.study_pictures import save_study_pictures
from ehrmeta.serving.columns import codes_of, text_columns
from ehrmeta.tuning import read_space, tune as search
from ehrmeta.tuning.space import space_of_words
from ehrmeta.tuning.summary import script_storage, space_table, study_script, study_summary


def search_settings(
    table: str | None,
    study: str | None,
    storage: str,
    timeout: float | None,
    out: str | None,
    pictures: str | None,
    export_script: str | None,
    listed: bool,
    **settings: Any,
) -> None:
    """Search hyper-parameters, or show the search space, or write an equivalent script."""
    if table is None:
        if study is None:
            raise click.UsageError("pass TABLE, or --study and --storage of an existing study.")
        table, settings = _stored_settings(study, storage, settings)
    study = study or Path(table).stem
    table = table if tables.is_bundled(table) else str(Path(table).absolute())
    if settings.get("schema_file"):
        settings["schema_file"] = str(Path(settings["schema_file"]).absolute())
    rows = tables.read_rows(table, classes="detect", **settings)
    of_classes = rows.classes is not None
    scoring = _scoring(settings["scoring"], of_classes=of_classes)
    visits = tables.table_of(rows, table, **settings)
    shots = shots_to_score(visits.tasks, settings["shots"], (1, 3, 5))
    algorithm = next(iter(settings["names"]), None)
    model = new_model(algorithm, settings, of_classes=of_classes)
    model.set_params(score_shots=shots, verbose=False)
    searched = _search_space(model, settings)
    space = read_space(model, searched)
    if listed:
        click.echo(space_table(space, model))
        return
    if export_script is not None:
        metric, *others = scoring
        if others or metric not in (*METRICS, "log_loss"):
            raise click.UsageError(
                "--export-script writes a search that minimises one error. Pass one --scoring of "
                f"{', '.join(METRICS)}."
            )
        script = study_script(
            space,
            **_table_code(table, settings, rows),
            model=model,
            shots=shots,
            metric=metric,
            folds=settings["folds"],
            study=f"{study}-script",
            storage=script_storage(storage),
            n_trials=settings["trials"],
            seed=settings["seed"],
        )
        Path(export_script).write_text(script, encoding="utf-8")
        click.echo(f"saved {export_script}")
        return
    click.echo(describe(visits))
    try:
        with stage("searching"):
            tuned = search(
                model,
                visits.X,
                visits.y,
                groups=visits.groups,
                time=visits.time,
                n_trials=settings["trials"],
                timeout=timeout,
                space=searched,
                storage=storage,
                study_name=study,
                scoring=scoring,
                cv=settings["folds"],
                refit=out is not None,
                random_state=settings["seed"],
                callback=_print_trial,
                notes={"command": json.dumps({"table": table, **settings})},
            )
    except KeyboardInterrupt:
        raise click.ClickException("stopped. Run the same command again to resume.") from None
    if out is not None:
        tuned.model.save(out)
    click.echo(study_summary(tuned.study))
    if out is not None:
        click.echo(f"saved {out}")
    if pictures is not None:
        for path in save_study_pictures(tuned.study, pictures):
            click.echo(f"saved {path}")


def _scoring(given: Sequence[str], *, of_classes: bool) -> list[str]:
    """Scores to minimise; a table of classes has one."""
    if of_classes and given:
        raise click.UsageError("--scoring is for numbers: classes are scored by their log loss.")
    return list(given) or ["log_loss" if of_classes else "rmse_macro"]


def _stored_settings(
    study: str, storage: str, settings: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Table and settings stored with a study, updated with the options of this command."""
    from ehrmeta.tuning.study import recall

    command = recall(storage, study, "command")
    if command is None:
        raise click.UsageError(f"study '{study}' was not created by ehrmeta tune: pass TABLE.")
    context = click.get_current_context()
    given = {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) != ParameterSource.DEFAULT
    }
    recalled = {**json.loads(command), **given}
    return recalled.pop("table"), recalled


def _search_space(model: Any, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The search space for `tune`."""
    space = space_of_words(settings["searched"])
    if len(settings["names"]) < 2:
        return space
    parts = {"algorithm": [ALGORITHMS[name]() for name in settings["names"]]}
    if space is None:
        declared = (dimension.parameter for dimension in read_space(model))
        space = {name: None for name in declared if not name.startswith("algorithm__")}
    return {**parts, **space}


def _table_code(table: str, settings: dict[str, Any], rows: tables.Rows) -> dict[str, str]:
    """Python code that reads the table like this command, and its import."""
    if tables.is_bundled(table):
        return {
            "table": f"load_dataset({json.dumps(table)})",
            "reader": "from ehrmeta.data import load_dataset\n",
        }
    form = {name: settings[name] for name in tables.FORM if settings.get(name)}
    if settings.get("schema_file"):
        schema = Schema.from_toml(settings["schema_file"])
        text, how = text_columns(schema), [f"Schema.from_toml({settings['schema_file']!r})"]
    else:
        roles = {name: value for name, value in tables.roles_of(settings).items() if value}
        text, how = (settings["task"],), [f"{name}={value!r}" for name, value in roles.items()]
    how.append("on_missing_outcome='drop'")
    reading = ", ".join([repr(table), *(f"{n}={v!r}" for n, v in {"text": text, **form}.items())])
    frame = f"read_frame({reading})"
    if rows.classes is not None and rows.schema.outcome:
        target, codes = rows.schema.outcome.name, codes_of(rows.classes)
        frame += f".assign(**{{{target!r}: lambda frame: frame[{target!r}].map({codes})}})"
    lines = "".join(f"    {line},\n" for line in (frame, *how))
    return {
        "table": f"Table.from_frame(\n{lines})",
        "reader": "from ehrmeta.data import Clock, Schema, Table, read_frame\n",
    }


def _print_trial(study: Any, trial: Any) -> None:
    """Print how a trial ended, on one line."""
    outcome = f"stopped: {trial.user_attrs.get('reason', trial.state.name)}"
    if trial.values is not None and "reason" not in trial.user_attrs:
        outcome = ", ".join(f"{value:.4g}" for value in trial.values)
    click.echo(f"trial {trial.number}: {outcome}")
