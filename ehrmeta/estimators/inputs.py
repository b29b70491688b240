"""Reading and checking the arguments of fit, adapt, predict and score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.utils.validation import column_or_1d

from ehrmeta.algorithms import Algorithm
from ehrmeta.data import Clock, Schema, TaskIndex, index_tasks, read_column, read_columns
from ehrmeta.data.censored import CHOOSE, read_limits
from ehrmeta.data.clock import (
    ABSURD,
    FAR,
    are_numeric_dates,
    distance_from_others,
    has_zone,
    read_times,
)
from ehrmeta.data.columns import collected, native_column, refuse_rows
from ehrmeta.data.findings import numeric_dates
from ehrmeta.data.groups import check_repeated_rows, respelled, warn_of_respelled
from ehrmeta.data.leaks import n_gross_errors, refuse_copies
from ehrmeta.errors import (
    DataError,
    DataWarning,
    GroupError,
    Remedy,
    SchemaError,
    did_you_mean,
    warn,
)
from ehrmeta.nn.backbone import Backbone
from ehrmeta.nn.mlp import ACTIVATIONS

Array = npt.NDArray[Any]
Rule: TypeAlias = tuple[str, Callable[[Any], bool]]  # requirement in words, and its check


@dataclass(frozen=True)
class Inputs:
    """Checked arrays of one call; every vector has one entry per row of X."""

    columns: dict[str, Array]
    y: Array | None  # numbers, or labels of classes
    groups: Array | None
    time: npt.NDArray[np.float64] | None
    n_rows: int
    dates: Array | None = None  # times as dates, if they were
    zoned: bool | None = None  # whether the dates have a time zone
    task_name: str | None = None  # column of the groups

    def outcome(self) -> Array:
        """The outcome, or a `DataError` if it is missing."""
        if self.y is None:
            raise DataError("this call requires y to be passed, but the target y is None. Pass y.")
        return self.y

    def tasks(self) -> TaskIndex:
        """The rows by task; one task without groups."""
        if self.groups is not None:
            return index_tasks(self.groups, self.time)
        codes = np.zeros(self.n_rows, np.int64)
        order = np.argsort(codes if self.time is None else self.time, kind="stable")
        starts = np.array([0, self.n_rows] if self.n_rows else [0])
        return TaskIndex(order, starts, codes[:1], codes)


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
    clock_is_enough: bool = False,
) -> Inputs:
    """Read and check one call's arguments.

    `task_column` and `time_column` name columns of X with tasks and times; they are removed from
    the features and used if `groups` or `time` are not given. `read_outcome` is `read_numbers`
    (default) or `read_labels`. With `clock_is_enough`, X may have no other column if time is given.

    Raises
    ------
    DataError
        Lengths differ, y is text, missing or infinite, a time cannot be read.
    SchemaError
        A named column is not in X.
    """
    X = collected(X)
    for what, values in (("y", y), ("groups", groups), ("time", time)):
        _warn_of_other_order(X, values, what)
    columns = _columns(X)
    n_rows = len(next(iter(columns.values()), X))
    for name, given in ((task_column, groups), (time_column, time)):
        if name is not None and name not in columns and given is None:
            raise SchemaError(
                f"column '{name}' is not in X. {did_you_mean(name, columns)} An earlier step "
                "may have dropped it: pass it through, or pass groups= and time=."
            )
    task_values = columns.pop(task_column, None) if task_column is not None else None
    time_values = columns.pop(time_column, None) if time_column is not None else None
    groups = groups if groups is not None else task_values
    task_name = task_column or getattr(groups, "name", None)
    if isinstance(getattr(groups, "dtype", None), pd.CategoricalDtype):
        groups = np.asarray(groups)  # ids have the type of their categories
    is_in_table = time is None and time_values is not None
    time = time_values if is_in_table else time
    if not columns:
        n_rows = n_rows or len(() if time is None else time)  # polars does not count such rows
        if time is None or not clock_is_enough:
            raise DataError(
                f"0 feature(s) (shape=({n_rows}, 0)) while a minimum of 1 is required. Pass at "
                "least one column, or, to forecast from times alone, time=."
            )
    labels = None if groups is None else _vector(read_column(groups, "groups"), "groups", n_rows)
    dates = zoned = None
    if time is not None:
        clock = clock or Clock(time_column or "time")
        zoned = has_zone(native_column(X, str(time_column)) if is_in_table else time)
        time = read_column(time, clock.name)
        _refuse_missing(time, f"time '{clock.name}'", "Fill it in, or drop these rows", labels)
        time, dates = read_times(time, unit=clock.unit, origin=clock.origin, name=clock.name)
        time = _vector(time, "time", n_rows)
    if y is not None:
        if getattr(y, "ndim", 1) == 2:
            y = column_or_1d(y, warn=True)
        y = _vector((read_outcome or read_numbers)(y, outcome), outcome, n_rows)
        _refuse_missing(y, f"outcome '{outcome}'", "Drop these rows", labels)
    task_name = task_name if isinstance(task_name, str) else None
    return Inputs(columns, y, labels, time, n_rows, dates, zoned, task_name)


def read_numbers(y: Any, name: str) -> npt.NDArray[np.float64]:
    """A real-valued outcome: numbers, NaN where missing, (row,)."""
    column = read_column(y, name)
    if (limits := read_limits(column)) is not None:
        raise DataError(
            f"outcome '{name}' is below or above a limit, such as '<5', in "
            f"{int((limits.side != 0).sum()):,} of {len(column):,} rows.",
            CHOOSE,
        )
    if column.dtype.kind not in "biuf":
        raise DataError(
            f"outcome '{name}' holds text or dates ({column.dtype}). Convert it to numbers with "
            "pd.to_numeric; code two classes as 0 and 1, or use MetaClassifier."
        )
    return column.astype(np.float64)


def read_labels(y: Any, name: str) -> Array:
    """Class labels: text or numbers, None or NaN where missing, (row,)."""
    column = read_column(y, name)
    if column.dtype.kind == "M":
        raise DataError(
            f"outcome '{name}' holds dates, which cannot be classes. Convert it to text."
        )
    return column


def _refuse_missing(values: Array, what: str, remedy: str, labels: Array | None) -> None:
    """Raise if a value is missing, with the first row and its task."""
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
            f"{of_task}). {remedy}."
        )


def report_repeats(tasks: TaskIndex, time: npt.NDArray[np.float64], task_kind: str | None) -> None:
    """Report repeated (task, time) rows: an error for patients, a warning without a schema."""
    sorted_time = time[tasks.order]
    codes = tasks.codes[tasks.order]
    repeats = (np.diff(sorted_time) == 0) & (np.diff(codes) == 0)
    if task_kind == "cohort" or not repeats.any():
        return
    first = int(np.flatnonzero(repeats)[0])
    message = (
        f"{int(repeats.sum()):,} rows repeat the time of another row of their task (first in task "
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
    warn(DataWarning(message, remedy))


def _columns(X: Any) -> dict[str, Array]:
    """Columns of X as `read_columns` returns them, also for a table without rows or columns."""
    if getattr(X, "shape", None) is not None and len(X.shape) == 2 and 0 in X.shape:
        names = getattr(X, "columns", [f"x{i}" for i in range(X.shape[1])])
        return {str(name): np.empty(0) for name in names}
    return dict(read_columns(X))


def _warn_of_other_order(X: Any, values: Any, name: str) -> None:
    """Warn of a series with the index of X in another order, as rows count by their position."""
    if not (isinstance(X, pd.DataFrame) and isinstance(values, pd.Series)):
        return
    here, there = X.index, values.index
    if len(here) != len(there) or here.equals(there) or not (here.is_unique and there.is_unique):
        return
    if there.isin(here).all():
        warn(
            f"{name} has the index of X in another order, but rows are matched by position. "
            f"Pass {name}.loc[X.index] if the index tells which rows belong together.",
            DataWarning,
        )


def _vector(array: Array, name: str, n_rows: int) -> Array:
    if len(array) != n_rows:
        raise DataError(
            f"Found input variables with inconsistent numbers of samples: {name} has "
            f"{len(array):,} rows, X has {n_rows:,}. Pass one value per row of X."
        )
    return array


def check_trainable(inputs: Inputs, schema: Schema | None) -> None:
    """Raise if no model can be fitted to the rows; warn if time or groups are missing."""
    inputs.outcome()
    if inputs.n_rows < 2:
        raise DataError(
            f"Found array with n_samples={inputs.n_rows} while a minimum of 2 is required. Pass "
            "the rows of many tasks."
        )
    tasks = inputs.tasks()
    if inputs.groups is None:
        warn(
            "groups=None: all rows are one task, so there is nothing to meta-learn. Pass groups= "
            "with the patient (or hospital) of every row.",
            DataWarning,
        )
    elif tasks.n_tasks == 1:
        raise GroupError(
            f"there is one task for all {inputs.n_rows:,} rows: meta-learning needs several.",
            Remedy(
                "several-tasks",
                "Pass groups= with the patient (or hospital) of every row, or groups=None.",
            ),
        )
    else:
        lagged = schema.measured if schema is not None else ()
        ahead = {name: values for name, values in inputs.columns.items() if name not in lagged}
        check_tasks(tasks, ahead, inputs, schema)
    if schema is not None and schema.measured and inputs.time is None:
        raise DataError(
            f"measured feature(s) {list(schema.measured)} need time= to determine their last "
            "value. Pass the time of every row."
        )
    if schema is not None and schema.time is not None and inputs.time is None:
        warn(
            f"the schema has a clock ('{schema.time.name}') but time= was not passed: supports are "
            "random visits. Pass time= to predict later visits from earlier ones.",
            DataWarning,
        )
    if inputs.time is not None:
        check_times(inputs.time, schema)
        report_repeats(tasks, inputs.time, None if schema is None else schema.task_kind)


def check_tasks(
    tasks: TaskIndex, ahead: Mapping[str, Array], inputs: Inputs, schema: Schema | None
) -> None:
    """Raise if no task has two rows, or a feature known `ahead` of the outcome is a copy of it."""
    refuse_copies(dict(ahead), inputs.outcome(), outcome_name(schema))
    columns = [*inputs.columns, outcome_name(schema)]
    check_repeated_rows(tasks, columns, inputs.task_name or (schema.task if schema else None))
    warn_of_respelled(respelled(tasks.labels))


def check_times(time: npt.NDArray[np.float64], schema: Schema | None) -> None:
    """Raise or warn if training times look like errors, placeholders or dates as numbers."""
    clock = Clock("time") if schema is None or schema.time is None else schema.time
    _check_spread(time, clock.name)
    if are_numeric_dates(time):
        finding = numeric_dates(clock.name, clock.unit, len(time))
        warn(DataWarning(finding))


def _check_spread(time: npt.NDArray[np.float64], name: str) -> None:
    """Raise or warn if a few training times are far from all others, as placeholders are."""
    distance = distance_from_others(time)
    what = f"column '{name}': the time is implausibly far from the others"
    refuse_rows(distance > ABSURD, what, "Correct these rows, or drop them.")
    far = np.flatnonzero(distance > FAR)
    if len(far):
        warn(
            f"time '{name}' is far from all others in {len(far):,} of {len(time):,} rows (first: "
            f"row {far[0]}): over {FAR:,} times the range of the middle 90 % from the median. "
            "Check for placeholders.",
            DataWarning,
        )


def check_outcome(y: npt.NDArray[np.float64], name: str, *, robust: str | None) -> None:
    """Raise if an outcome is constant, and warn of gross errors.

    Parameters
    ----------
    robust : str, optional
        End of the remedy: what to do instead of correcting them. None for a model that bears them.
    """
    if np.ptp(y) == 0:
        raise DataError(f"outcome '{name}' is constant over all {len(y):,} rows. Check the column.")
    count = n_gross_errors(y)
    if count and robust is not None:
        warn(
            DataWarning(
                f"outcome '{name}' is far from all other values in {count:,} of {len(y):,} rows: "
                "probably gross errors, which distort every prediction.",
                Remedy("gross-errors", f"Correct them, {robust}."),
            )
        )


def outcome_name(schema: Schema | None) -> str:
    """Name of the outcome in errors."""
    return schema.outcome.name if schema is not None and schema.outcome else "y"


def schema_of(schema: Schema | None, X: Any) -> Schema | None:
    """The schema, by default that of a `Table`'s X without the columns dropped since."""
    carried = getattr(X, "attrs", {}).get("ehrmeta_schema")
    if schema is not None or carried is None:
        return schema
    schema = Schema.from_dict(carried)
    kept = tuple(feature for feature in schema.features if feature.name in X.columns)
    return replace(schema, features=kept)


def check_parameters(settings: Mapping[str, Any], *, classes: bool) -> None:
    """Raise a `DataError` if a parameter of an estimator, or of its components, is invalid.

    Parameters
    ----------
    settings : mapping
        Parameters by name.
    classes : bool
        Whether the estimator is a classifier.
    """
    nested = {
        f"{name}__{key}": value
        for name, part in settings.items()
        if isinstance(part, BaseEstimator)
        for key, value in part.get_params().items()
    }
    for name, value in {**settings, **nested}.items():
        rule = _RULES.get(name.rpartition("__")[2])
        if rule is None or name.startswith("population__"):  # scikit-learn checks it
            continue
        requirement, is_valid = rule
        if not is_valid(value):
            raise DataError(f"{name} must be {requirement}, got {value!r}.")
    algorithm = settings.get("algorithm")
    start, bound = (getattr(algorithm, name, None) for name in ("inner_lr", "max_inner_lr"))
    if bound is not None and start > bound:
        raise DataError(
            f"algorithm__inner_lr={start!r} exceeds max_inner_lr={bound!r}. Lower it, or raise "
            "max_inner_lr."
        )
    population = settings.get("population")
    if population is not None:
        kind, is_kind = ("classifier", is_classifier) if classes else ("regressor", is_regressor)
        if not (isinstance(population, BaseEstimator) and is_kind(population)):
            raise DataError(
                f"population must be a scikit-learn {kind} such as HistGradientBoosting"
                f"{kind.capitalize()}(), got {population!r}."
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_count(value: Any, smallest: int = 1) -> bool:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_whole and bool(value >= smallest)


def _are_counts(values: Any, smallest: int = 0) -> bool:
    is_sequence = isinstance(values, tuple | list)
    return is_sequence and all(_is_count(value, smallest) for value in values)


def _are_names(values: Any) -> bool:
    is_list = isinstance(values, Sequence | np.ndarray | pd.Index) and not isinstance(values, str)
    return is_list and all(isinstance(value, str) for value in values)


def _optional(rule: Rule) -> Rule:
    requirement, is_valid = rule
    return f"{requirement}, or None", lambda value: value is None or is_valid(value)


def _optional_type(requirement: str, kind: type) -> Rule:
    return requirement, lambda value: value is None or isinstance(value, kind)


_COUNT: Rule = ("a whole number, 1 or more", _is_count)
_POSITIVE: Rule = ("a positive number", lambda value: _is_number(value) and value > 0)
_NOT_NEGATIVE: Rule = ("0 or more", lambda value: _is_number(value) and value >= 0)
_COUNTS = (
    *("max_queries", "max_steps", "batch_size", "patience", "inner_steps", "newton_steps"),
    *("width", "base_width", "meta_width"),
)
_RULES: dict[str, Rule] = {
    "algorithm": _optional_type("an algorithm such as MetaSGD()", Algorithm),
    "backbone": _optional_type("a backbone such as MLP((64, 64))", Backbone),
    "schema": _optional_type("a Schema", Schema),
    "known": _optional(("a list of column names", _are_names)),
    "shots": (
        "a pair (smallest, largest) of support sizes, the largest 1 or more",
        lambda value: _are_counts(value) and len(value) == 2 and max(1, value[0]) <= value[1],
    ),
    "score_shots": (
        "a tuple of one support size or more",
        lambda value: _are_counts(value) and len(value) > 0,
    ),
    **dict.fromkeys(_COUNTS, _COUNT),
    **dict.fromkeys(("learning_rate", "inner_lr", "max_inner_lr"), _POSITIVE),
    **dict.fromkeys(("pseudo_count", "prior_count", "weight_decay"), _NOT_NEGATIVE),
    "n_deep": ("a whole number, 0 or more", lambda value: _is_count(value, 0)),
    "chunk_size": _optional(_COUNT),
    "compile": ("True or False", lambda value: isinstance(value, bool | np.bool_)),
    "max_inner_norm": _optional(
        ("a positive number up to 1e18", lambda value: _is_number(value) and 0 < value <= 1e18)
    ),  # its square is a float32
    "first_order_share": ("from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "hidden": (
        "a width, or a tuple of the widths of the layers, 1 or more each",
        lambda value: _is_count(value) or _are_counts(value, 1),
    ),
    "activation": (f"one of {', '.join(ACTIVATIONS)}", lambda value: value in tuple(ACTIVATIONS)),
    "validation_fraction": (
        "0 or more and below 1",
        lambda value: _is_number(value) and 0 <= value < 1,
    ),
    "outcome_transform": (
        "'auto', 'log', 'sqrt' or None",
        lambda value: value in ("auto", "log", "sqrt", None),
    ),
}
