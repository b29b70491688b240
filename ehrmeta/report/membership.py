"""Membership inference audit: how well attacks identify the patients in a model's training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special, stats
from sklearn.model_selection import StratifiedKFold

from ehrmeta.data import Table
from ehrmeta.errors import DataError
from ehrmeta.estimators import ConformalClassifier, ConformalRegressor
from ehrmeta.estimators.k_shot_protocol import adapt_to_rows, k_shot_splits, shots_to_score
from ehrmeta.evaluation.metrics import Array
from ehrmeta.ranges import check_level
from ehrmeta.report.disclosure import MIN_CELL
from ehrmeta.report.forecast import forecast_report
from ehrmeta.report.forecast_scores import forecasts
from ehrmeta.report.risk import risk_report

_RATES = (0.01, 0.05)  # of false positives
_NEAREST = 1e-9  # floor of the distance to a number of the file
_FOLDS, _DIVISIONS = 5, 10  # of the cross-validation, and how often it is repeated


def membership_audit(
    model: Any,
    members: Table,
    non_members: Table,
    *,
    shots: Sequence[int] | None = None,
    confidence_level: float = 0.9,
    n_bootstrap: int = 1000,
    random_state: int = 0,
) -> pd.DataFrame:
    r"""Membership inference audit: how well a patient's rows reveal membership in the training.

    Each attack scores every patient; members are expected to have higher scores.

    - **loss after k values**: the negative mean loss of the patient's later rows. Models fit the
      patients they were trained on better than others (Yeom et al. 2018).
    - **calibration**: the mean of :math:`-\log` of the distance from the patient's nonconformity
      scores to the nearest numbers in the file of a calibrated model.
    - **report**: whether the means in a `forecast_report` or `risk_report` on the members differ
      from those of other patients in the direction of the patient's means (Homer et al. 2008).
    - **weights** and **weights, calibration, report**: the losses, and all scores, combined by a
      cross-validated logistic regression without negative coefficients. Their **difference** is
      what the calibration and the report reveal in addition to the weights; figures below chance
      count as chance.

    Parameters
    ----------
    model : fitted or calibrated estimator over tasks
    members, non_members : Table
        Patients whose rows went into the training, the calibration or a report, and patients from
        the same population who are in none of them; at least 22 of each.
    shots : sequence of int, optional
        Numbers of values to adapt to; by default those of 0, 1, 3 that at least half of the members
        exceed.
    confidence_level : float, default 0.9
        Level of the bootstrap intervals over patients.
    n_bootstrap : int
        Resamples of the patients; at least 1.
    random_state : int

    Returns
    -------
    DataFrame
        A row per attack: attack, `auc` (0.5 is chance) and the true positive rates
        `tpr_1` and `tpr_5` at 1 and 5 % false positives, each with `_low` and `_high`.

    Raises
    ------
    DataError
        Too few patients, or no patient has a row after one of `shots`.

    References
    ----------
    Yeom et al. (2018), doi:10.1109/CSF.2018.00027; Carlini et al. (2022), arXiv:2112.03570; Homer
    et al. (2008), doi:10.1371/journal.pgen.1000167.

    Examples
    --------
    >>> from ehrmeta import Clock, Outcome, Schema
    >>> from ehrmeta.baselines import MixedEffects
    >>> rng, day = np.random.default_rng(0), np.tile(np.arange(5.0), 80)
    >>> frame = pd.DataFrame({"id": np.repeat(np.arange(80), 5), "day": day})
    >>> frame["hdl"] = rng.normal(50, 8, 80)[frame.id] + rng.normal(size=400)
    >>> schema = Schema((), Outcome("hdl"), task="id", time=Clock("day"))
    >>> inside, outside = Table.from_frame(frame, schema).split(0.5, random_state=0)
    >>> model = MixedEffects().fit(inside.X, inside.y, groups=inside.groups, time=inside.time)
    >>> audit = membership_audit(model, inside, outside, shots=(1,), n_bootstrap=100)
    >>> list(audit["attack"])  # doctest: +NORMALIZE_WHITESPACE
    ['loss after 1 values', 'report', 'weights', 'weights, calibration, report', 'difference']
    """
    check_level(confidence_level)
    for name, table in (("members", members), ("non_members", non_members)):
        if table.n_tasks < 2 * MIN_CELL:
            raise DataError(f"{name} has {table.n_tasks} patients. Pass {2 * MIN_CELL} or more.")
    shots = shots_to_score(members.tasks, shots, (0, 1, 3))
    tables = members, non_members
    base = getattr(model, "model", model)
    rows = [_Rows(base, table, shots) for table in tables]
    scores = {
        f"loss after {k} values": np.concatenate([-of.per_patient(k, of.loss[k]) for of in rows])
        for k in shots
    }
    weights = list(scores)
    if isinstance(model, ConformalRegressor | ConformalClassifier):
        held = _numbers_of(model)
        nearness = [of.nearness(held) for of in rows]
        scores["calibration"] = np.concatenate(nearness)
    published, of_patients = _report(model, tables, shots)
    if len(published):
        scores["report"] = _toward(published, *of_patients)
    is_member = np.repeat([True, False], [members.n_tasks, non_members.n_tasks])
    scores = {name: np.nan_to_num(of, nan=float(np.nanmedian(of))) for name, of in scores.items()}
    scores["weights"] = _combined([scores[name] for name in weights], is_member, random_state)
    every = [of for name, of in scores.items() if name != "weights"]
    scores["weights, calibration, report"] = _combined(every, is_member, random_state)
    return _with_intervals(scores, is_member, confidence_level, n_bootstrap, random_state)


class _Rows:
    """Losses and nonconformity scores of the rows of a table after every k."""

    def __init__(self, base: Any, table: Table, shots: Sequence[int]) -> None:
        inputs = base.fitted_model().read(table.X, table.y, groups=table.groups, time=table.time)
        outcome, self.tasks = inputs.outcome(), inputs.tasks()
        self.loss: dict[int, Array] = {}
        self.scores: dict[int, Array] = {}
        self.codes: dict[int, NDArray[np.int64]] = {}
        for k, support, query in k_shot_splits(inputs, shots):
            adapted, later = adapt_to_rows(base, table.X, inputs, support, query)
            predicted = adapted.predict_distribution(**later)
            self.loss[k], self.scores[k] = _loss_and_scores(predicted, outcome[query])
            self.codes[k] = self.tasks.codes[query]
        missing = set(shots) - set(self.loss)
        if missing:
            raise DataError(f"no patient has a row after the first {min(missing)}. Lower shots.")

    def per_patient(self, k: int, values: Array) -> Array:
        """Mean over the rows of every patient, (task,); NaN for patients without a row."""
        n = self.tasks.n_tasks
        counts = np.bincount(self.codes[k], minlength=n)
        total = np.bincount(self.codes[k], values, minlength=n)
        return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)

    def nearness(self, held: Array) -> Array:
        """Mean of -log of the distance from a patient's scores to numbers of a file, (task,)."""
        each = []
        for k, scores in self.scores.items():
            at = np.clip(np.searchsorted(held, scores), 1, len(held) - 1)
            gap = np.minimum(np.abs(scores - held[at - 1]), np.abs(scores - held[at]))
            each.append(self.per_patient(k, -np.log(np.maximum(gap, _NEAREST))))
        counts = np.sum(np.isfinite(each), axis=0)
        return np.where(counts > 0, np.nansum(each, axis=0) / np.maximum(counts, 1), np.nan)


def _loss_and_scores(predicted: Any, y: NDArray[Any]) -> tuple[Array, Array]:
    """Loss and nonconformity score of every row, (row,) each."""
    if hasattr(predicted, "logits"):
        p = predicted.probabilities()[np.arange(len(y)), np.searchsorted(predicted.labels, y)]
        return -np.log(np.maximum(p, np.finfo(np.float64).tiny)), p
    error = predicted.outcome.forward(y) - predicted.loc
    if predicted.scale is None:
        return error**2, error
    error = error / predicted.scale
    density = stats.norm if predicted.dof is None else stats.t(predicted.dof)
    return np.log(predicted.scale) - density.logpdf(error), error


def _numbers_of(model: Any) -> Array:
    """All numbers of the calibration in the file of a calibrated model, ascending."""
    tensors, metadata = model.calibration_.to_state()

    def numbers(part: Any) -> Iterator[float]:
        if isinstance(part, Mapping | list | tuple):
            for one in part.values() if isinstance(part, Mapping) else part:
                yield from numbers(one)
        elif isinstance(part, float):
            yield part

    parts = [tensor.double().numpy().ravel() for tensor in tensors.values()]
    held = np.concatenate([*parts, np.array(list(numbers(metadata)))])
    return np.unique(np.r_[held, -1e9, 1e9])


def _report(
    model: Any, tables: Sequence[Table], shots: Sequence[int]
) -> tuple[Array, tuple[Array, Array]]:
    """Means in a report on the members, (mean,), and the same means of every patient."""
    of_members, base = tables[0], getattr(model, "model", model)
    rows: dict[str, Any] = {
        "groups": of_members.groups,
        "time": of_members.time,
        "shots": tuple(shots),
    }
    if hasattr(base, "classes_"):
        page = risk_report(base, of_members.X, of_members.y, **rows, allow_training_table=True)
        table = next(s for s in page.sections if s.title == "Scores after k values").tables[0]
        printed = [_first(cell) for cell in table.rows[-1][1:]]
        each = [_Rows(base, of, shots) for of in tables]
        means = [np.column_stack([of.per_patient(k, of.loss[k]) for k in shots]) for of in each]
        return np.array(printed), (means[0], means[1])
    if of_members.time is None or base.fitted_model().schema is None:
        return np.empty(0), (np.empty(0), np.empty(0))
    page = forecast_report(model, of_members.X, of_members.y, **rows, allow_training_table=True)
    sections = {section.title: section for section in page.sections}
    errors = sections["Error after k values"].tables[0].rows[-1][1:]
    coverage = [row[1] for row in sections["Intervals"].tables[0].rows]
    printed = [_first(cell) ** 2 for cell in errors] + [_first(cell) / 100 for cell in coverage]
    means = [_forecast_means(model, of, shots) for of in tables]
    return np.array(printed), (means[0], means[1])


def _forecast_means(model: Any, table: Table, shots: Sequence[int]) -> Array:
    """Squared error after each k on the rows after the largest, and coverage, (task, mean)."""
    base = getattr(model, "model", model)
    inputs = base.fitted_model().read(table.X, table.y, groups=table.groups, time=table.time)
    rows = forecasts(model, table.X, inputs, shots=shots, confidence_level=0.9)
    last = rows.loc[rows["k"] == max(shots), "row"]
    squared = rows[rows["row"].isin(last)].pivot_table("squared", "task", "k")
    covered = rows.astype({"covered": float}).pivot_table("covered", "task", "k")
    means = pd.concat([squared, covered], axis=1).reindex(range(table.n_tasks))
    return np.asarray(means, np.float64)


def _first(cell: str) -> float:
    """The leading number of a table cell."""
    return float(cell.partition(" ")[0].replace(",", ""))


def _toward(published: Array, members: Array, others: Array) -> Array:
    """How far published means are shifted from others' means towards each patient, (task,).

    A patient who is not a member is left out of the means of the others.
    """
    total, count = np.nansum(others, axis=0), np.isfinite(others).sum(axis=0)
    sd = np.nanstd(others, axis=0)
    rest = (total - np.nan_to_num(others)) / np.maximum(count - np.isfinite(others), 1)
    reference = np.concatenate([np.tile(total / count, (len(members), 1)), rest])
    own = np.concatenate([members, others])
    toward = (published - reference) * (own - reference) / np.maximum(sd, 1e-12) ** 2
    return np.asarray(np.nansum(toward, axis=1))


def _combined(scores: Sequence[Array], is_member: NDArray[np.bool_], random_state: int) -> Array:
    """Scores of held-out patients from a logistic regression on the ranks of all scores, (task,).

    Members are expected to have higher scores, so coefficients are 0 or more. Without this, useless
    scores would be held out with the wrong sign, and the combination would rank below chance. The
    result is a mean over several random divisions into folds.
    """
    ranks = np.column_stack([stats.rankdata(one) for one in scores])
    ranks = (ranks - ranks.mean(axis=0)) / np.maximum(ranks.std(axis=0), 1.0)
    total = np.zeros(len(ranks))
    for division in range(_DIVISIONS):
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=random_state + division)
        for train, test in folds.split(ranks, is_member):
            total[test] += ranks[test] @ _not_negative(ranks[train], is_member[train])
    return total


def _not_negative(x: Array, y: NDArray[np.bool_]) -> Array:
    """Coefficients of a logistic regression, 0 or more, with a ridge penalty, (score,)."""
    sign, design = np.where(y, 1.0, -1.0), np.column_stack([x, np.ones(len(x))])

    def loss(w: Array) -> tuple[float, Array]:
        margin = sign * (design @ w)
        penalised = np.append(w[:-1], 0.0)
        gradient = penalised - design.T @ (sign * special.expit(-margin))
        return float(0.5 * penalised @ penalised - special.log_expit(margin).sum()), gradient

    bounds = [(0.0, None)] * x.shape[1] + [(None, None)]
    start = np.zeros(design.shape[1])
    best = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(best.x[:-1])


def _figures(score: Array, is_member: NDArray[np.bool_]) -> Array:
    """AUC and true positive rates of an attack."""
    inside, outside = score[is_member], score[~is_member]
    n = len(inside)
    auc = (stats.rankdata(score)[is_member].sum() - n * (n + 1) / 2) / (n * len(outside))
    limits = np.quantile(outside, [1 - rate for rate in _RATES], method="higher")
    return np.array([auc, *((inside > limit).mean() for limit in limits)])


def _with_intervals(
    scores: Mapping[str, Array],
    is_member: NDArray[np.bool_],
    confidence_level: float,
    n_bootstrap: int,
    random_state: int,
) -> pd.DataFrame:
    """Results with intervals: a row per attack, and the difference of the last two."""
    rng = np.random.default_rng(random_state)
    inside, outside = np.flatnonzero(is_member), np.flatnonzero(~is_member)
    labels = np.repeat([True, False], [len(inside), len(outside)])
    draws = [np.r_[inside, outside]] + [
        np.r_[rng.choice(inside, len(inside)), rng.choice(outside, len(outside))]
        for _ in range(n_bootstrap)
    ]
    figures = {
        name: np.array([_figures(of[at], labels) for at in draws]) for name, of in scores.items()
    }
    weights, every = list(figures.values())[-2:]
    chance = np.array([0.5, *_RATES])  # below it, an attack tells nothing
    figures["difference"] = np.maximum(every, chance) - np.maximum(weights, chance)
    tail = (1 - confidence_level) / 2
    rows = []
    for name, of in figures.items():
        low, high = (
            np.quantile(of[1:], [tail, 1 - tail], axis=0) if n_bootstrap else of[[0, 0]] * np.nan
        )
        row: dict[str, Any] = {"attack": name}
        for place, figure in enumerate(("auc", "tpr_1", "tpr_5")):
            row |= {
                figure: of[0, place],
                f"{figure}_low": low[place],
                f"{figure}_high": high[place],
            }
        rows.append(row)
    return pd.DataFrame(rows)
