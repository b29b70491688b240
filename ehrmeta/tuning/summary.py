"""Summaries of a study as text and plots, tables of a search space, and the search as a script."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator

from ehrmeta.ranges import Choice, declared_ranges
from ehrmeta.tuning.comparison import REASON, first_fold_study, full_trials, sign_of
from ehrmeta.tuning.search import best_trial
from ehrmeta.tuning.space import Dimension, with_parts

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_MIN_TRIALS = 10  # to estimate importance
_SCRIPT = '''"""Search hyper-parameters with Optuna by the k-shot error on held-out patients.

Run it again to resume the study; run it in several shells at once to share it.
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


def study_summary(study: optuna.Study) -> str:
    """Text with the best trial, counts of trials by outcome, and importances of parameters.

    The importance of a parameter is the share of the variation between good and other trials that
    it explains alone (PED-ANOVA, arXiv:2304.10255). It is imprecise with few trials. It is computed
    from errors in the first fold, which trials that were stopped early have too.
    """
    import optuna

    trials = study.get_trials(deepcopy=False)
    failed = sum(trial.state.name == "FAIL" for trial in trials)
    full = len(full_trials(study))
    early = sum(trial.state.is_finished() for trial in trials) - full - failed
    names = study.metric_names or ["error"]
    best = best_trial(study)
    values = ", ".join(f"{n} {v:.4g}" for n, v in zip(names, best.values, strict=True))
    lines = [
        f"best of {len(trials)} trials: {values} (trial {best.number})",
        *(f"  {name} = {_shown(value)}" for name, value in best.params.items()),
        f"{full} trials evaluated on all folds, {early} stopped early, {failed} failed",
    ]
    diverged = sum(str(t.user_attrs.get(REASON, "")).startswith("diverged") for t in trials)
    if diverged:
        lines.append(f"  {diverged} stopped because training diverged")
    view = first_fold_study(study)
    first = view.get_trials(deepcopy=False)
    if len(first) < _MIN_TRIALS or len({trial.values[0] for trial in first}) == 1:
        few = f"no importances: they need at least {_MIN_TRIALS} trials with different errors"
        return "\n".join([*lines, few])
    lines.append("importance in the first fold, and values of the best quarter of the trials:")
    ranked = sorted(first, key=lambda trial: sign_of(view) * trial.values[0])
    good = ranked[: max(2, len(ranked) // 4)]
    with warnings.catch_warnings(action="ignore"):
        importances = optuna.importance.get_param_importances(view)
    for name, share in importances.items():
        lines.append(f"  {name}: {100 * share:.0f} %, {_where(name, good)}")
    if len(names) > 1:
        lines.append(f"{len(study.best_trials)} trials on the Pareto front")
    return "\n".join(lines)


def _where(name: str, trials: Sequence[FrozenTrial]) -> str:
    values = [trial.params[name] for trial in trials if name in trial.params]
    if not values:
        return "not used"
    if all(isinstance(value, int | float) for value in values):
        return f"{_shown(np.min(values))} to {_shown(np.max(values))}"
    return " or ".join(dict.fromkeys(map(str, values)))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def study_plots(study: optuna.Study) -> Iterator[tuple[str, Any]]:
    """Name and matplotlib axes of every plot, by the first objective.

    "history" shows the error of each trial over all folds (the expected error if it was stopped
    early). With two or three objectives, "pareto" shows their front instead. "slice" (error over
    each parameter), "importance" and "parallel" (all parameters of a trial) use the errors in the
    first fold. The last two are omitted if all trials have the same error.

    Raises
    ------
    StudyError
        No trial completed its first fold.
    """
    from optuna.visualization import matplotlib as draw

    name = (study.metric_names or ["error"])[0]
    view = first_fold_study(study)
    trials = view.get_trials(deepcopy=False)
    plots: dict[str, Callable[..., Any]] = {"slice": draw.plot_slice}
    if len({trial.values[0] for trial in trials}) > 1:
        plots["importance"] = draw.plot_param_importances
        if max(len(trial.params) for trial in trials) > 1:
            plots["parallel"] = draw.plot_parallel_coordinate
    with warnings.catch_warnings(action="ignore"):  # Optuna's plots are experimental
        if len(study.directions) == 1:
            yield "history", draw.plot_optimization_history(study, target_name=name)
        elif len(study.directions) <= 3:
            yield "pareto", draw.plot_pareto_front(study)
        for kind, plot in plots.items():
            axes = plot(view, target_name=f"{name}, first fold")
            if kind == "slice":
                for one in np.ravel(axes):
                    one.tick_params(axis="x", which="both", labelrotation=45)
            elif kind == "parallel":  # pale lines need a grey background; grid lines hide numbers
                for one in axes.figure.axes:
                    one.grid(visible=False)
                    one.set_facecolor("0.7")
            yield kind, axes


def space_table(space: Sequence[Dimension], model: Any) -> str:
    """Table of a search space: name, default, range and condition of every parameter.

    Parameters
    ----------
    space : sequence of Dimension
        From `read_space`.
    model : estimator
        Its parameters are the defaults.
    """
    defaults = with_parts(model).get_params()
    rows = [("parameter", "default", "search", "only when")]
    for dimension in space:
        default = "" if dimension.name != dimension.parameter else defaults[dimension.parameter]
        if isinstance(dimension.range, Choice) and hasattr(default, "get_params"):
            default = type(default).__name__
        condition = ", ".join(f"{name} = {value}" for name, value in dimension.when.items())
        rows.append((dimension.name, str(default), str(dimension.range), condition))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def declared_table(parts: Sequence[type]) -> str:
    """Declared ranges as Markdown: class, parameter, default, range, condition."""
    rows = ["| class | parameter | default | searched | only when |", "|---|---|---|---|---|"]
    for part in parts:
        defaults = signature(part).parameters
        for name, declared in declared_ranges(part).items():
            shown = str(declared).replace("|", "or")
            when = ", ".join(f"{other} = {value}" for other, value in declared.when.items())
            default = str(defaults[name].default)
            rows.append(f"| `{part.__name__}` | `{name}` | {default} | {shown} | {when} |")
    return "\n".join(rows)


def study_script(
    space: Sequence[Dimension],
    *,
    model: BaseEstimator,
    metric: str,
    study: str,
    storage: str,
    **settings: Any,
) -> str:
    """A Python script that searches `space` with Optuna alone.

    `settings` are ``shots``, ``folds``, ``n_trials`` and ``seed`` of the search; ``table``, the
    Python code that reads the table; and ``reader``, the import that this code needs.
    """
    lines = []
    for when, dimensions in groupby(space, key=lambda dimension: dict(dimension.when)):
        drawn = [line for dimension in dimensions for line in _suggest(dimension)]
        condition = " and ".join(map(_condition, when.items()))
        lines += [f"if {condition}:", *(f"    {line}" for line in drawn)] if when else drawn
    return _SCRIPT.format(
        names=", ".join(sorted({"KShotScorer", *_class_names(space, model)})),
        model=" ".join(repr(model).split()),
        suggest="\n".join(f"    {line}" for line in lines),
        metric=json.dumps(metric),
        study=json.dumps(study),
        storage=json.dumps(storage),
        **settings,
    )


def script_storage(storage: str) -> str:
    """URL for a script, without the password: libpq reads PGPASSWORD or .pgpass.

    Optuna has no URLs for journals, so a SQLite file beside the journal is used.
    """
    from ehrmeta.tuning.storage import parsed_storage

    url = parsed_storage(storage)
    if url.get_backend_name() == "journal":
        return f"sqlite:///{url.database}.db"
    return url._replace(password=None).render_as_string()


def _suggest(dimension: Dimension) -> list[str]:
    """Lines of code that draw one parameter and set it."""
    searched, name, chosen = dimension.range, json.dumps(dimension.name), "value"
    if isinstance(searched, Choice):
        labels = list(searched.labels)
        drawn = f"trial.suggest_categorical({name}, {json.dumps(labels)})"
        if searched.values != searched.labels:
            pairs = zip(labels, searched.values, strict=True)
            values = ", ".join(f"{json.dumps(label)}: {value!r}" for label, value in pairs)
            chosen = f"{{{values}}}[value]"
    else:
        scale = ", log=True" if searched.log else ""
        drawn = f"trial.suggest_{searched.kind}({name}, {searched.low}, {searched.high}{scale})"
    return [f"value = {drawn}", f"model.set_params({dimension.parameter}={chosen})"]


def _class_names(space: Sequence[Dimension], model: BaseEstimator) -> Iterator[str]:
    """Names of the classes to import in the script."""
    values = [model, *model.get_params().values()]
    values += [v for d in space if isinstance(d.range, Choice) for v in d.range.values]
    return (type(value).__name__ for value in values if hasattr(value, "get_params"))


def _condition(item: tuple[str, Any]) -> str:
    parameter, value = item
    now = f"model.get_params()[{json.dumps(parameter)}]"
    if parameter in ("algorithm", "backbone"):
        return f"type({now}).__name__ == {json.dumps(value)}"
    return f"{now} == {value!r}"
