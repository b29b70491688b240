"""What a user passes to fit, adapt, predict and score, checked and as arrays."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.utils.validation import column_or_1d

from ehrmeta.algorithms import Algorithm
from ehrmeta.data import Clock, Schema, TaskIndex, index_tasks, read_column, read_columns, to_time
from ehrmeta.data.clock import are_written_dates
from ehrmeta.data.findings import written_dates
from ehrmeta.errors import DataError, DataWarning, GroupError, Remedy, SchemaError, did_you_mean
from ehrmeta.nn.backbone import Backbone
from ehrmeta.nn.mlp import ACTIVATIONS

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Inputs:
    """Checked arrays of one call; every vector has a row per row of X."""

    columns: dict[str, Array]
    y: Array | None  # numbers, or labels of classes
    groups: Array | None
    time: npt.NDArray[np.float64] | None
    n_rows: int
    dated: bool = False  # whether times came as dates, counted from the clock's origin

    def outcome(self) -> Array:
        """The outcome, where a call needs one."""
        if self.y is None:
            raise DataError("this call requires y to be passed, but the target y is None.")
        return self.y

    def tasks(self) -> TaskIndex:
        """The rows by task; one anonymous task without groups."""
        if self.groups is not None:
            return index_tasks(self.groups, self.time)
        order = (
            np.arange(self.n_rows) if self.time is None else np.argsort(self.time, kind="stable")
        )
        labels = np.zeros(min(self.n_rows, 1), np.int64)
        starts = np.array([0, self.n_rows] if self.n_rows else [0])
        return TaskIndex(order, starts, labels, np.zeros(self.n_rows, np.int64))


def read_inputs(
    X: Any,
    y: Any = None,
    *,
    groups: Any = None,
    time: Any = None,
    task_column: str | None = None,
    time_column: str | None = None,
    clock: Clock | None = None,
    outcome: str = "y",
    read_outcome: Callable[[Any, str], Array] | None = None,
) -> Inputs:
    """Read and check one call's arguments.

    `task_column` and `time_column` name columns of X that hold the tasks and times; they are
    taken out of the features and serve where `groups` or `time` are not given. `read_outcome` is
    `read_numbers` (the default) or `read_labels`.

    Raises
    ------
    DataError
        Lengths differ, y is text, missing or infinite, a time cannot be read.
    SchemaError
        A named column is not in X.
    """
    columns = _columns(X)
    n_rows = len(next(iter(columns.values())))
    for name, given in ((task_column, groups), (time_column, time)):
        if name is not None and name not in columns and given is None:
            raise SchemaError(
                f"column '{name}' is not in X. {did_you_mean(name, columns)} A step before the "
                "estimator may have dropped it: pass it through, or pass groups= and time=."
            )
    task_values = columns.pop(task_column, None) if task_column is not None else None
    time_values = columns.pop(time_column, None) if time_column is not None else None
    groups = groups if groups is not None else task_values
    if isinstance(getattr(groups, "dtype", None), pd.CategoricalDtype):
        groups = np.asarray(groups)  # ids keep the type that their categories have
    time = time if time is not None else time_values
    labels = None if groups is None else _vector(read_column(groups, "groups"), "groups", n_rows)
    dated = False
    if time is not None:
        clock = clock or Clock(time_column or "time")
        time = read_column(time, clock.name)
        _refuse_missing(time, f"time '{clock.name}'", "fill it in, or leave those rows out", labels)
        dated = time.dtype.kind not in "biuf"
        time = to_time(time, unit=clock.unit, origin=clock.origin, name=clock.name)
        time = _vector(time, "time", n_rows)
    if y is not None:
        if getattr(y, "ndim", 1) == 2:
            y = column_or_1d(y, warn=True)
        y = _vector((read_outcome or read_numbers)(y, outcome), outcome, n_rows)
        _refuse_missing(
            y, f"outcome '{outcome}'", "leave those rows out: an outcome is never imputed", labels
        )
    return Inputs(columns, y, labels, time, n_rows, dated)


def read_numbers(y: Any, name: str) -> npt.NDArray[np.float64]:
    """A real-valued outcome: numbers, NaN where missing, (row,)."""
    column = read_column(y, name)
    if column.dtype.kind not in "biuf":
        raise DataError(
            f"outcome '{name}' holds text or dates ({column.dtype}). Convert it to numbers; "
            "classes need MetaClassifier."
        )
    return column.astype(np.float64)


def read_labels(y: Any, name: str) -> Array:
    """Class labels: text or numbers, None or NaN where missing, (row,)."""
    column = read_column(y, name)
    if column.dtype.kind == "M":
        raise DataError(f"outcome '{name}' holds dates, which are no classes. Convert it to text.")
    return column


def _refuse_missing(values: Array, what: str, remedy: str, labels: Array | None) -> None:
    """Name the first row without a value, and its task where there are several."""
    if values.dtype.kind not in "fMO":
        return
    missing = np.asarray(pd.isna(values))
    bad = np.flatnonzero(missing)
    if len(bad):
        of_task = ""
        if labels is not None and len(labels) == len(values):
            tasks = index_tasks(labels)
            of_task = f", of task {tasks.codes[bad[0]]} of {tasks.n_tasks:,}"
        raise DataError(
            f"{what} is NaN in {len(bad):,} of {len(missing):,} rows (first: row {bad[0]}"
            f"{of_task}): {remedy}."
        )


def report_repeats(tasks: TaskIndex, time: npt.NDArray[np.float64], task_kind: str | None) -> None:
    """Report repeated (task, time) rows: an error in patient tables, normal in cohorts.

    Without a schema nobody said which it is, so it is a warning.
    """
    sorted_time = time[tasks.order]
    codes = tasks.codes[tasks.order]
    again = (np.diff(sorted_time) == 0) & (np.diff(codes) == 0)
    if task_kind == "cohort" or not again.any():
        return
    first = int(np.flatnonzero(again)[0])
    message = (
        f"{int(again.sum()):,} rows repeat the time of another row of their task (first in task "
        f"{int(codes[first])} of {tasks.n_tasks}, rows {int(tasks.order[first])} and "
        f"{int(tasks.order[first + 1])})."
    )
    remedy = Remedy(
        "one-row-per-visit",
        "If tasks are patients, keep one row per visit, for instance with "
        "Schema(on_duplicate='first' | 'last' | 'mean') in Table.from_frame; if they are cohorts, "
        "pass schema=Schema(..., task_kind='cohort').",
    )
    if task_kind == "patient":
        raise DataError(message, remedy)
    warnings.warn(DataWarning(message, remedy), stacklevel=4)


def _columns(X: Any) -> dict[str, Array]:
    """Columns of X; unlike `read_columns` also of a table without rows, an empty support."""
    if getattr(X, "shape", None) is not None and len(X.shape) == 2 and X.shape[0] == 0:
        names = getattr(X, "columns", [f"x{i}" for i in range(X.shape[1])])
        return {str(name): np.empty(0) for name in names}
    return dict(read_columns(X))


def _vector(array: Array, name: str, n_rows: int) -> Array:
    if len(array) != n_rows:
        raise DataError(
            f"Found input variables with inconsistent numbers of samples: {name} has "
            f"{len(array):,} rows, X has {n_rows:,}. Pass one value per row of X."
        )
    return array


def check_trainable(inputs: Inputs, schema: Schema | None) -> None:
    """Refuse what no model can be fitted to; nothing has been changed so far."""
    inputs.outcome()
    if inputs.n_rows < 2:
        raise DataError(
            f"Found array with n_samples={inputs.n_rows} (n_samples = 1 or none) while a minimum "
            "of 2 is required. Pass the rows of many tasks."
        )
    tasks = inputs.tasks()
    if inputs.groups is None:
        warnings.warn(
            "groups=None: all rows are one anonymous task, so there is nothing to meta-learn "
            "from. Pass groups= with the patient (or hospital) of every row.",
            DataWarning,
            stacklevel=4,
        )
    elif tasks.n_tasks == 1:
        raise GroupError(
            f"there is one task for all {inputs.n_rows:,} rows: meta-learning needs several.",
            Remedy(
                "several-tasks",
                "Pass groups= with the column that tells patients (or hospitals) apart, or "
                "groups=None.",
            ),
        )
    if schema is not None and schema.measured and inputs.time is None:
        raise DataError(
            f"measured feature(s) {list(schema.measured)} need time=, to know which value is the "
            "last one. Pass the time of every row."
        )
    if schema is not None and schema.time is not None and inputs.time is None:
        warnings.warn(
            f"the schema has a clock ('{schema.time.name}') but time= was not passed: supports are "
            "drawn at random from all visits. Pass time= to learn to predict later from earlier.",
            DataWarning,
            stacklevel=4,
        )
    if inputs.time is not None:
        clock = Clock("time") if schema is None or schema.time is None else schema.time
        if are_written_dates(inputs.time):
            finding = written_dates(clock.name, clock.unit, inputs.n_rows)
            warnings.warn(DataWarning(finding), stacklevel=4)
        report_repeats(tasks, inputs.time, None if schema is None else schema.task_kind)


def outcome_name(schema: Schema | None) -> str:
    """What errors call the outcome."""
    return schema.outcome.name if schema is not None and schema.outcome else "y"


def schema_of(schema: Schema | None, X: Any) -> Schema | None:
    """The schema given, or the one that a `Table` put on its X, less the columns dropped since."""
    carried = getattr(X, "attrs", {}).get("ehrmeta_schema")
    if schema is not None or carried is None:
        return schema
    schema = Schema.from_dict(carried)
    kept = tuple(feature for feature in schema.features if feature.name in X.columns)
    return replace(schema, features=kept)


def check_parameters(settings: Mapping[str, Any], *, classes: bool) -> None:
    """Refuse parameters of an estimator that no fit can use.

    Parameters
    ----------
    settings : mapping
        By name; those of an algorithm or backbone are checked too.
    classes : bool
        Whether the estimator is a classifier.

    Raises
    ------
    DataError
        Names the parameter, what it must be, and what it was.
    """
    nested = {
        f"{name}__{key}": value
        for name, part in settings.items()
        if isinstance(part, BaseEstimator)
        for key, value in part.get_params().items()
    }
    for name, value in {**settings, **nested}.items():
        rule = _RULES.get(name.rpartition("__")[2])
        if rule is None or name.startswith("population__"):  # that model has rules of its own
            continue
        must_be, holds = rule
        if not holds(value):
            raise DataError(f"{name} must be {must_be}, got {value!r}.")
    algorithm = settings.get("algorithm")
    start, bound = (getattr(algorithm, name, None) for name in ("inner_lr", "max_inner_lr"))
    if bound is not None and start > bound:
        raise DataError(
            f"algorithm__inner_lr={start!r} lies above max_inner_lr={bound!r}, which it starts "
            "below. Lower it, or raise max_inner_lr."
        )
    population = settings.get("population")
    if population is not None:
        kind, is_kind = ("classifier", is_classifier) if classes else ("regressor", is_regressor)
        if not (isinstance(population, BaseEstimator) and is_kind(population)):
            raise DataError(
                f"population must be a scikit-learn {kind} such as HistGradientBoosting"
                f"{kind.capitalize()}(), got {population!r}."
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _are_whole(values: Any, smallest: int) -> bool:
    return isinstance(values, tuple | list) and all(
        _is_whole(value) and value >= smallest for value in values
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _count(smallest: int) -> tuple[str, Any]:
    return (
        f"a whole number, {smallest} or more",
        lambda value: _is_whole(value) and value >= smallest,
    )


def _positive(value: Any) -> bool:
    return _is_number(value) and bool(value > 0)


def _is_shots(value: Any) -> bool:
    return _are_whole(value, 0) and len(value) == 2 and value[0] <= value[1] and value[1] >= 1


_NOT_NEGATIVE: tuple[str, Any] = ("0 or more", lambda value: _is_number(value) and value >= 0)
_COUNTS = (
    *("max_queries", "max_steps", "batch_size", "patience", "inner_steps", "newton_steps"),
    *("width", "base_width", "meta_width", "n_embedding", "n_features"),
)
_RULES: dict[str, tuple[str, Any]] = {
    "algorithm": (
        "an algorithm such as MetaSGD()",
        lambda value: value is None or isinstance(value, Algorithm),
    ),
    "backbone": (
        "a backbone such as MLP((64, 64))",
        lambda value: value is None or isinstance(value, Backbone),
    ),
    "schema": ("a Schema", lambda value: value is None or isinstance(value, Schema)),
    "shots": ("a pair (smallest, largest) of support sizes, the largest 1 or more", _is_shots),
    "score_shots": (
        "a tuple of one support size or more",
        lambda value: _are_whole(value, 0) and len(value) > 0,
    ),
    **dict.fromkeys(_COUNTS, _count(1)),
    **dict.fromkeys(
        ("learning_rate", "inner_lr", "max_inner_lr"), ("a positive number", _positive)
    ),
    **dict.fromkeys(("pseudo_count", "prior_count", "weight_decay"), _NOT_NEGATIVE),
    "n_deep": _count(0),
    "chunk_size": (
        "a whole number, 1 or more, or None",
        lambda value: value is None or (_is_whole(value) and value >= 1),
    ),
    "compile": ("True or False", lambda value: isinstance(value, bool | np.bool_)),
    "max_inner_norm": (
        "a positive number or None",
        lambda value: value is None or _positive(value),
    ),
    "first_order_share": ("from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "hidden": (
        "a width, or a tuple of the widths of the layers, 1 or more each",
        lambda value: _are_whole(value if isinstance(value, tuple | list) else (value,), 1),
    ),
    "activation": (f"one of {', '.join(ACTIVATIONS)}", lambda value: value in tuple(ACTIVATIONS)),
    "validation_fraction": (
        "0 or more and below 1",
        lambda value: _is_number(value) and 0 <= value < 1,
    ),
    "outcome_transform": ("'log', 'sqrt' or None", lambda value: value in ("log", "sqrt", None)),
}
