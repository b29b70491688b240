"""A search written out as a plain Optuna script, for the user to change."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from sklearn.base import BaseEstimator

from ehrmeta.ranges import Choice
from ehrmeta.tuning.space import Dimension

__all__ = ["script_storage", "study_script"]

_SCRIPT = '''"""Search hyper-parameters with Optuna, judged on patients that training has not seen.

Run it again to go on with the study; run it in several shells at once to share it.
"""

import numpy as np
import optuna
from ehrmeta import {names}
{reader}
TABLE = {table}
SCORER = KShotScorer(shots={shots}, metric={metric})


def objective(trial):
    """The k-shot error of one setting, in {folds} folds by patient."""
    model = {model}
{suggest}
    errors = []
    for train, test in TABLE.kfold({folds}, random_state=0):
        model.fit(train.X, train.y, groups=train.groups, time=train.time)
        errors.append(-SCORER(model, test.X, test.y, groups=test.groups, time=test.time))
        trial.report(float(np.mean(errors)), step=len(errors))
        if trial.should_prune():  # do not train the other folds
            raise optuna.TrialPruned
    return float(np.mean(errors))


if __name__ == "__main__":
    study = optuna.create_study(
        study_name={study},
        storage={storage},
        sampler=optuna.samplers.TPESampler(seed={seed}),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        load_if_exists=True,
    )
    study.optimize(objective, n_trials={n_trials})
    print("best error:", study.best_value)
    print("best parameters:", study.best_params)
'''


def study_script(
    space: Sequence[Dimension],
    *,
    table: str,
    reader: str,
    model: BaseEstimator,
    shots: tuple[int, ...],
    metric: str,
    folds: int,
    study: str,
    storage: str,
    n_trials: int,
    seed: int,
) -> str:
    """Python that searches `space` without this package's `tune`.

    Parameters
    ----------
    space : sequence of Dimension
        From `read_space`.
    table, reader : str
        Python that reads the table, and the import that it needs.
    model : estimator
    shots, metric, folds, study, storage, n_trials, seed
        Of the search.
    """
    lines = []
    for when, dimensions in groupby(space, key=lambda dimension: dict(dimension.when)):
        drawn = [line for dimension in dimensions for line in _suggest(dimension)]
        condition = " and ".join(map(_condition, when.items()))
        lines += [f"if {condition}:", *(f"    {line}" for line in drawn)] if when else drawn
    return _SCRIPT.format(
        names=", ".join(sorted({"KShotScorer", *_class_names(space, model)})),
        table=table,
        reader=reader,
        shots=shots,
        metric=json.dumps(metric),
        folds=folds,
        model=" ".join(repr(model).split()),
        suggest="\n".join(f"    {line}" for line in lines),
        study=json.dumps(study),
        storage=json.dumps(storage),
        seed=seed,
        n_trials=n_trials,
    )


def script_storage(storage: str) -> str:
    """A URL that Optuna itself opens, without a password: libpq finds it in PGPASSWORD or .pgpass.

    Optuna knows no URL of a journal: its study is kept in a SQLite file beside it instead.
    """
    from ehrmeta.tuning.storage import parsed_storage

    url = parsed_storage(storage)
    if url.get_backend_name() == "journal":
        return f"sqlite:///{url.database}.db"
    return url._replace(password=None).render_as_string()


def _suggest(dimension: Dimension) -> list[str]:
    """The lines that draw one parameter and set it."""
    found, name, chosen = dimension.range, json.dumps(dimension.name), "value"
    if isinstance(found, Choice):
        labels = list(found.labels)
        drawn = f"trial.suggest_categorical({name}, {json.dumps(labels)})"
        if found.values != found.labels:
            pairs = zip(labels, found.values, strict=True)
            values = ", ".join(f"{json.dumps(label)}: {value!r}" for label, value in pairs)
            chosen = f"{{{values}}}[value]"
    else:
        scale = ", log=True" if found.log else ""
        drawn = f"trial.suggest_{found.kind}({name}, {found.low}, {found.high}{scale})"
    return [f"value = {drawn}", f"model.set_params({dimension.parameter}={chosen})"]


def _class_names(space: Sequence[Dimension], model: BaseEstimator) -> Iterator[str]:
    """The classes that the script names."""
    values = [model, *model.get_params().values()]
    values += [v for d in space if isinstance(d.range, Choice) for v in d.range.values]
    return (type(value).__name__ for value in values if hasattr(value, "get_params"))


def _condition(item: tuple[str, Any]) -> str:
    parameter, value = item
    now = f"model.get_params()[{json.dumps(parameter)}]"
    if parameter in ("algorithm", "backbone"):
        return f"type({now}).__name__ == {json.dumps(value)}"
    return f"{now} == {value!r}"
