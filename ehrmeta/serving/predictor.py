"""Predictions for requests: plain ones in one batch, others one by one as in Python."""

from __future__ import annotations

import datetime as dt
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.clock import SECONDS, to_time
from ehrmeta.data.validation import outside_range
from ehrmeta.errors import DataWarning, EhrmetaError
from ehrmeta.estimators import Adapted
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.serving.columns import codes_of, schema_of
from ehrmeta.serving.requests import Request, Row, numbers, texts
from ehrmeta.serving.score import score_partition

_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_ATYPICAL = 0.001  # p-values that Python warns of


class Answer(NamedTuple):
    """Predictions of one request: columns by name, of the query's rows, and warnings."""

    columns: dict[str, list[Any]]
    warnings: list[str]


@dataclass(frozen=True)
class _Plain:
    """A request that needs no check of `Table` beyond those made here."""

    codes: tuple[NDArray[np.int64], NDArray[np.int64]]  # of support and query
    n_tasks: int
    columns: tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]
    times: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    y: NDArray[Any]


class Predictor:
    """Answers requests with a fitted model.

    Plain requests (numbers within their ranges, known levels, later query times) are read without
    pandas and computed in one batch. Any other is passed to `score_partition` by itself, which
    gives the errors and warnings of Python.

    Parameters
    ----------
    model : fitted estimator
        As for `score_partition`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.patients: Adapted = model.unadapted()
        self.table = self.patients.model.table
        self.schema = schema_of(self.patients.model)
        self.task = str(self.schema.task)
        self.outcome = str(self.schema.outcome and self.schema.outcome.name)
        classes = getattr(self.patients, "classes_", None)
        self.classes: NDArray[Any] | None = classes
        self._class_codes = {} if classes is None else codes_of(classes)
        codings = zip(self.table.encoder.features, self.table.encoder.codings, strict=True)
        self._levels = {
            feature.name: {*coding.levels, *coding.merged} - {None}
            for feature, coding in codings
            if feature.kind == "categorical"
        }
        clock = self.schema.time
        self._epoch = 0.0
        if clock is not None:
            self._epoch = float(to_time(["1970-01-01"], unit=clock.unit, origin=clock.origin)[0])

    def answer(self, requests: Sequence[Request]) -> list[Answer | EhrmetaError]:
        """Answers, in the order of the requests; an error takes the place of an answer."""
        answers: list[Answer | EhrmetaError | None] = [None] * len(requests)
        plain = {i: one for i, r in enumerate(requests) if (one := self._plain(r)) is not None}
        for level in {requests[i].confidence_level for i in plain}:
            chosen = [i for i in plain if requests[i].confidence_level == level]
            try:
                batch = self._batch([plain[i] for i in chosen], level)
            except (EhrmetaError, ArithmeticError):
                continue  # whichever it is of, it is told when that is answered by itself
            for i, columns in zip(chosen, batch, strict=True):
                if columns is not None:
                    answers[i] = Answer(self._ids(requests[i].query) | columns, [])
        for i, request in enumerate(requests):
            if answers[i] is None:
                try:
                    answers[i] = self._alone(request)
                except EhrmetaError as error:
                    answers[i] = error
        return [answer for answer in answers if answer is not None]

    def _batch(self, batch: list[_Plain], level: float) -> list[dict[str, list[Any]] | None]:
        """Columns of every request; None for one with a support that is atypical."""
        first = np.cumsum([0, *(one.n_tasks for one in batch)])
        sides = []
        for side in (0, 1):
            codes = np.concatenate(
                [one.codes[side] + n for one, n in zip(batch, first[:-1], strict=True)]
            )
            names = batch[0].columns[side]
            columns = {n: np.concatenate([one.columns[side][n] for one in batch]) for n in names}
            times = None
            if self.table.timed:
                times = np.concatenate([one.times[side] for one in batch if one.times is not None])
            y = np.concatenate([one.y for one in batch]) if side == 0 else None
            sides.append((Inputs(columns, y, None, times, len(codes)), codes))
        (support, support_codes), (query, query_codes) = sides
        n_tasks = int(first[-1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what could be warned of is answered by itself
            rows = self.table.rows(support, support_codes, n_tasks)
            adapted = self.patients.with_support(None, rows)
            columns = adapted.columns_of(query, query_codes, level)
        odd = np.nan_to_num(adapted.atypical_, nan=1.0) < _ATYPICAL
        ends = np.cumsum([0, *(len(one.codes[1]) for one in batch)])
        lists = {name: _plain_list(values) for name, values in columns.items()}
        return [
            None
            if odd[first[i] : first[i + 1]].any()
            else {name: values[ends[i] : ends[i + 1]] for name, values in lists.items()}
            for i in range(len(batch))
        ]

    def _alone(self, request: Request) -> Answer:
        """The answer of `score_partition`, with its warnings or its error."""
        names = [*self.schema.columns]
        rows = [*request.support, *({**row, self.outcome: None} for row in request.query)]
        given = [name for name in names if any(name in row for row in rows)]
        frame = pd.DataFrame({name: [row.get(name) for row in rows] for name in given})
        if self.task not in frame:
            frame[self.task] = 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", DataWarning)
            scored = score_partition(frame, self.model, confidence_level=request.confidence_level)
        columns = {
            name: _plain_list(scored[name].to_numpy())
            for name in scored.columns
            if name not in ("task", "time")
        }
        told = dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)
        return Answer(self._ids(request.query) | columns, list(told))

    def _ids(self, query: list[Row]) -> dict[str, list[Any]]:
        """Task and time of the query's rows, as they came."""
        names = {"task": self.task}
        if self.schema.time is not None:
            names["time"] = self.schema.time.name
        ids = {out: [row.get(name) for row in query] for out, name in names.items()}
        return (
            ids if any(self.task in row for row in query) else {**ids, "task": [None] * len(query)}
        )

    def _plain(self, request: Request) -> _Plain | None:
        """The request as arrays; None if it has anything that Python checks or warns of."""
        both = request.support, request.query
        tasks = _task_numbers([row.get(self.task) for rows in both for row in rows])
        if tasks is None:
            return None
        codes, n_tasks = tasks
        n_support = len(request.support)
        y = self._outcomes(request.support)
        columns = self._features(both), self._features(both, of_query=True)
        if y is None or columns[0] is None or columns[1] is None:
            return None
        split = codes[:n_support], codes[n_support:]
        if not self.table.timed:
            return _Plain(split, n_tasks, (columns[0], columns[1]), None, y)
        times = self._times(both)
        if times is None or not _are_later(*split, *times, n_tasks):
            return None
        return _Plain(split, n_tasks, (columns[0], columns[1]), times, y)

    def _outcomes(self, rows: list[Row]) -> NDArray[Any] | None:
        """Outcomes of the support, within their range, or labels of classes."""
        if self.classes is None:
            y = numbers(rows, self.outcome)
            outcome = self.schema.outcome
            if y is None or outcome is None or outside_range(y, outcome).any():
                return None
            return y
        cells = [row.get(self.outcome) for row in rows]
        if not all(type(cell) in (str, int) and cell in self._class_codes for cell in cells):
            return None
        return self.classes[[self._class_codes[cell] for cell in cells]]

    def _features(
        self, both: tuple[list[Row], list[Row]], *, of_query: bool = False
    ) -> dict[str, NDArray[Any]] | None:
        """Features of support or query, known and within their ranges."""
        rows, columns = both[of_query], {}
        for feature in self.table.features:
            name = feature.name
            if not any(name in row for row in both[0]) and not any(name in row for row in both[1]):
                return None
            if feature.kind == "categorical":
                column = texts(rows, name, self._levels[name])
            else:
                column = numbers(rows, name)
                if column is None or outside_range(column, feature).any():
                    return None
                if feature.kind == "binary" and not np.isin(column, (0.0, 1.0)).all():
                    return None
            if column is None:
                return None
            columns[name] = column
        return columns

    def _times(
        self, both: tuple[list[Row], list[Row]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Times of support and query, numbers or ISO dates not far from the training period."""
        clock, period = self.schema.time, self.table.period
        if clock is None or period is None:
            return None
        cells = [row.get(clock.name) for rows in both for row in rows]
        kinds = {type(cell) for cell in cells}
        if kinds <= {int, float} and clock.zoned is None:
            time = numbers([*both[0], *both[1]], clock.name)
        elif kinds == {str} and clock.zoned is False:
            time = self._dates(cells)
        else:
            return None
        length = max(period[1] - period[0], self.table.time_scale)
        if time is None or not ((time >= period[0] - length) & (time <= period[1] + length)).all():
            return None
        return time[: len(both[0])], time[len(both[0]) :]

    def _dates(self, cells: list[Any]) -> NDArray[np.float64] | None:
        """ISO dates as numbers, in the clock's unit."""
        try:
            days = [
                dt.date.fromisoformat(cell).toordinal() if _ISO_DATE.fullmatch(cell) else None
                for cell in cells
            ]
        except ValueError:
            return None
        if None in days or self.schema.time is None:
            return None
        since = np.array(days, np.float64) - dt.date(1970, 1, 1).toordinal()
        return since * (86400.0 / SECONDS[self.schema.time.unit]) + self._epoch


def _task_numbers(ids: list[Any]) -> tuple[NDArray[np.int64], int] | None:
    """Numbers of the tasks and how many there are; None unless ids are alike and spelled apart.

    Without any id the rows are of one task.
    """
    kinds = {type(one) for one in ids}
    if kinds == {type(None)}:
        return np.zeros(len(ids), np.int64), 1
    if kinds not in ({str}, {int}):
        return None
    numbered: dict[Any, int] = {}
    codes = np.array([numbered.setdefault(one, len(numbered)) for one in ids], np.int64)
    if kinds == {str} and len(numbered) > 1:
        plain = {"".join(one.casefold().split()).lstrip("0") for one in numbered}
        if len(plain) < len(numbered):
            return None
    return codes, len(numbered)


def _are_later(
    support: NDArray[np.int64],
    query: NDArray[np.int64],
    support_time: NDArray[np.float64],
    query_time: NDArray[np.float64],
    n_tasks: int,
) -> bool:
    """Whether query rows are after their task's support, whose times do not repeat."""
    if len(set(zip(support.tolist(), support_time.tolist(), strict=True))) < len(support):
        return False
    last = np.full(n_tasks, -np.inf)
    np.maximum.at(last, support, support_time)
    return bool((query_time > last[query]).all())


def _plain_list(values: NDArray[Any]) -> list[Any]:
    """Values for JSON, None for NaN."""
    listed: list[Any] = values.tolist()
    if values.dtype.kind == "f" and np.isnan(values).any():
        return [None if math.isnan(value) else value for value in listed]
    return listed
