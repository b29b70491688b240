"""Paired scores, tables, records and targets of the cohorts benchmark."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.cohorts.cells import BAYES_RULE, OURS, UPDATES
from benchmarks.cohorts.data import load_cohorts
from benchmarks.suite.arrays import Array, Index, Mask
from benchmarks.suite.fitting import Folds
from benchmarks.suite.record import Record, Target, number, text_table
from ehrmeta.evaluation import RISK_METRICS
from ehrmeta.evaluation.metrics import percentile_limits

Results = Mapping[str, Mapping[str, Folds]]

_N_BOOTSTRAP = 1000
_MIN_SITES, _MIN_QUERIES, _MIN_EVENTS = 10, 100, 30
_TINY = np.finfo(np.float64).eps
#: low, intermediate and high weekly doses, as defined by the consortium
DOSE_BANDS: dict[str, Callable[[Array], Mask]] = {
    "<= 21 mg": lambda y: y <= 21.0,
    "21-49 mg": lambda y: (y > 21.0) & (y < 49.0),
    ">= 49 mg": lambda y: y >= 49.0,
}
_RISK_DETAILS = {
    "AUROC": "auroc",
    "per site": "site auroc",
    "slope": "calibration_slope",
    "E:O": "e_o_ratio",
    "ICI": "ici",
    "Brier": "brier",
}
_DOSE_DETAILS = {
    "MAE": "mae",
    "per site": "site mae",
    **{f"20 %, {band}": f"within 20 %, {band}" for band in DOSE_BANDS},
}
_NO_HARM = {"heart": "pooled logistic", "rhdnase": "pooled logistic"}  # few or tiny sites
_HIGHEST, _SHARE_BETTER = 1.02, 0.6
_SLOPES, _SLOPE_SHOTS = (0.85, 1.15), 20
_CLOSED, _CLOSED_SHOTS, _CLOSED_ON = 0.7, 50, ("make_cohorts .5", "make_cohorts .8")
_DOSE_SHOTS = 20


class Ratio(NamedTuple):
    """Ratio of the losses of two methods, with 95 % interval."""

    value: float
    low: float
    high: float


class CohortScores:
    """Scores of all methods on a data set."""

    def __init__(self, name: str, results: Mapping[str, Folds]) -> None:
        self.name = name
        self.results = results
        self.binary = load_cohorts(name).binary
        self.n_sites = int(load_cohorts(name).groups.max()) + 1

    @property
    def methods(self) -> list[str]:
        """In the order of the tables."""
        return list(self.results)

    @property
    def comparators(self) -> list[str]:
        """All methods that are not ours, without the Bayes rule."""
        return [m for m in self.methods if not m.startswith(OURS) and m != BAYES_RULE]

    @property
    def updates(self) -> list[str]:
        """Updates of pooled models."""
        return [m for m in self.methods if m in UPDATES]

    @property
    def shots(self) -> list[int]:
        """Support sizes that every method has."""
        return sorted(set.intersection(*(set(r.scores) for r in self.results.values())))

    def counts(self, k: int) -> bool:
        """Whether the cell has enough training sites, query rows and events."""
        rows = self._rows(k)
        events = load_cohorts(self.name).y[rows].sum() if self.binary else np.inf
        enough = self.n_sites * 0.8 >= _MIN_SITES and len(rows) >= _MIN_QUERIES
        return bool(enough and events >= _MIN_EVENTS)

    def value(self, method: str, k: int, metric: str) -> float:
        """A metric over all patients, or of ``"site mae"`` and ``"site auroc"`` over sites."""
        rows = self.results[method].scores[k]
        y, predicted = rows["y"], rows["predicted"]
        if metric.startswith("site "):
            return self._over_sites(method, k, metric.removeprefix("site "))
        if metric == "loss":
            mean = float(self._patient_loss(method, k).mean())
            return mean if self.binary else float(np.sqrt(mean))
        if metric == "mae":
            return float(np.mean(np.abs(y - predicted)))
        if metric.startswith("within 20 %"):
            band = DOSE_BANDS[metric.removeprefix("within 20 %, ")](y)
            return float(np.mean(np.abs(predicted - y)[band] <= 0.2 * y[band]))
        p = np.clip(predicted, _TINY, 1 - _TINY)
        return float(RISK_METRICS[metric](y, p, np.ones((1, len(y))))[0])

    def ratio(self, method: str, other: str, k: int) -> Ratio:
        """Ratio of losses, with a bootstrap interval over patients within sites."""
        a, b = self._patient_loss(method, k), self._patient_loss(other, k)
        weights = self._weights[k]
        samples = (weights @ a) / (weights @ b)
        value = a.mean() / b.mean()
        if not self.binary:
            samples, value = np.sqrt(samples), np.sqrt(value)
        return Ratio(float(value), *percentile_limits(samples, 0.95))

    def ratio_over_sites(self, method: str, other: str, k: int) -> Ratio:
        """Ratio of losses, with the t interval of a ratio of site totals; infinite for one site."""
        a, b = self._patient_loss(method, k), self._patient_loss(other, k)
        sites = np.unique(load_cohorts(self.name).groups[self._rows(k)], return_inverse=True)[1]
        n_sites, value = int(sites.max()) + 1, a.sum() / b.sum()
        if n_sites == 1:
            return Ratio(float(value), -np.inf, np.inf)
        residual = np.bincount(sites, a - value * b)  # per site
        se = np.sqrt(n_sites / (n_sites - 1) * np.sum(residual**2)) / b.sum()
        half = stats.t.ppf(0.975, n_sites - 1) * se
        return Ratio(float(value), float(value - half), float(value + half))

    def gap_closed(self, method: str, k: int) -> float:
        """Share of the gap closed between the best update of a pooled model and the Bayes rule."""
        best = min(self.value(update, k, "loss") for update in self.updates)
        bayes = self.value(BAYES_RULE, k, "loss")
        return (best - self.value(method, k, "loss")) / (best - bayes)

    def _rows(self, k: int) -> Index:
        """Row numbers of all query patients, the same for every method."""
        first = next(iter(self.results.values())).scores[k]
        return np.unique(first["row"]).astype(np.int64)

    @cached_property
    def _weights(self) -> dict[int, Array]:
        """Counts of each patient in each bootstrap sample, by k, (sample, patient)."""
        return {k: self._resampled(k) for k in self.shots}

    def _resampled(self, k: int) -> Array:
        rows = self._rows(k)
        sites = load_cohorts(self.name).groups[rows]
        rng = np.random.default_rng(0)
        counts = np.empty((_N_BOOTSTRAP, len(rows)))
        for site in np.unique(sites):
            here = np.flatnonzero(sites == site)
            share = np.full(len(here), 1.0 / len(here))
            counts[:, here] = rng.multinomial(len(here), share, size=_N_BOOTSTRAP)
        return counts

    def _patient_loss(self, method: str, k: int) -> Array:
        """Log loss, or squared error of the root of the dose, mean over draws, (patient,)."""
        rows = self.results[method].scores[k]
        y, predicted = rows["y"], rows["predicted"]
        if self.binary:
            p = np.clip(predicted, _TINY, 1 - _TINY)
            loss = -np.log(np.where(y == 1, p, 1 - p))
        else:
            loss = np.square(np.sqrt(y) - np.sqrt(np.maximum(predicted, 0.0)))
        _, patient = np.unique(rows["row"], return_inverse=True)
        return np.bincount(patient, loss) / np.bincount(patient)

    def _over_sites(self, method: str, k: int, metric: str) -> float:
        """Mean over the sites in which the metric is defined."""
        rows, values = self.results[method].scores[k], []
        for site in np.unique(rows["site"]):
            here = rows["site"] == site
            y, predicted = rows["y"][here], rows["predicted"][here]
            if metric == "mae":
                values.append(float(np.mean(np.abs(y - predicted))))
            elif len(np.unique(y)) == 2:
                values.append(float(RISK_METRICS[metric](y, predicted, np.ones((1, len(y))))[0]))
        return float(np.nanmean(values)) if values else float("nan")


def cohorts_tables(results: Results) -> Iterator[str]:
    """A table of losses and one of details for every data set."""
    for scores in _sets(results):
        yield _loss_table(scores)
        yield _detail_table(scores)


def cohorts_verdict(results: Results) -> str:
    """Comparison of our learner with every comparator over the cells that count."""
    cells = [(s, k) for s in _sets(results) if OURS in s.methods for k in s.shots if s.counts(k)]
    rows = []
    for other in dict.fromkeys(o for scores, _ in cells for o in scores.comparators):
        ratios = [s.ratio(OURS, other, k) for s, k in cells if other in s.methods]
        rows.append(
            [
                other,
                str(len(ratios)),
                f"{sum(r.high <= 1.02 for r in ratios)}",
                f"{sum(r.value < 1.0 for r in ratios)}",
                f"{np.exp(np.mean(np.log([r.value for r in ratios]))):.3f}",
                f"{max(r.high for r in ratios):.3f}",
            ]
        )
    heading = ["comparator", "cells", "high <= 1.02", "better", "mean ratio", "largest high"]
    title = f"{OURS}: ratio of losses to each comparator, over cells that count"
    return f"{title}\n{text_table(heading, rows)}"


def cohorts_records(results: Results) -> list[Record]:
    """All numbers of the tables."""
    records = []
    for scores in _sets(results):
        details = _RISK_DETAILS if scores.binary else _DOSE_DETAILS
        loss = "log_loss" if scores.binary else "rmse_sqrt"
        for method, result in scores.results.items():
            n, seconds = scores.n_sites, result.seconds
            for k in scores.shots:
                record = partial(Record, "cohorts", scores.name, k=k, n_tasks=n, seconds=seconds)
                for name, source in [(loss, "loss"), *((d, d) for d in details.values())]:
                    value = scores.value(method, k, source)
                    records.append(record(method, name, value if np.isfinite(value) else None))
                if method != OURS and OURS in scores.methods:
                    ratio = scores.ratio(OURS, method, k)
                    name = f"{loss} / {method}"
                    records.append(record(OURS, name, ratio.value, low=ratio.low, high=ratio.high))
    return records


def _sets(results: Results) -> list[CohortScores]:
    return [CohortScores(name, methods) for name, methods in results.items()]


def _loss_table(scores: CohortScores) -> str:
    loss = "log loss" if scores.binary else "RMSE of the square root"
    rows = []
    for method, result in scores.results.items():
        cells = [
            number(scores.value(method, k, "loss"), 4) + _mark(scores, method, k)
            for k in scores.shots
        ]
        rows.append([method, *cells, number(result.seconds, 2)])
    heading = ["", *(f"k = {k} " for k in scores.shots), "fit s"]
    note = f"+ worse, - better than {OURS} (paired 95 %)"
    title = f"{scores.name}: {loss} at k patients of each new site, {scores.n_sites} sites"
    return f"{title}\n{note}\n{text_table(heading, rows)}\n"


def _mark(scores: CohortScores, method: str, k: int) -> str:
    if method == OURS or OURS not in scores.methods:
        return " "
    ratio = scores.ratio(method, OURS, k)
    return "+" if ratio.low > 1.0 else "-" if ratio.high < 1.0 else " "


def _detail_table(scores: CohortScores) -> str:
    k = max((k for k in scores.shots if k <= 20), default=0)
    details = _RISK_DETAILS if scores.binary else _DOSE_DETAILS
    rows = [
        [method, *(number(scores.value(method, k, name), 3) for name in details.values())]
        for method in scores.methods
    ]
    return f"{text_table([f'at k = {k}', *details], rows)}\n"


def cohorts_targets(results: Results) -> list[Target]:
    """Targets of our learner with default settings that the results cover."""
    targets: list[Target] = []
    for scores in _sets(results):
        if OURS in scores.methods and scores.comparators:
            targets += _no_harm(scores) if scores.name in _NO_HARM else _benefit(scores)
    return targets


def _benefit(scores: CohortScores) -> Iterator[Target]:
    counted = [k for k in scores.shots if scores.counts(k)]
    ratios = {(o, k): scores.ratio(OURS, o, k) for o in scores.comparators for k in counted}
    if ratios:
        (other, k), worst = max(ratios.items(), key=lambda item: item[1].high)
        claim, high = f"largest upper end of a ratio ({other}, k = {k})", worst.high
        yield Target(f"{scores.name}: {claim}", f"{high:.3f}", f"<= {_HIGHEST}", high <= _HIGHEST)
        better = sum(ratio.value < 1.0 for ratio in ratios.values()) / len(ratios)
        met, target = better >= _SHARE_BETTER, f">= {_SHARE_BETTER:.0%}"
        yield Target(f"{scores.name}: better in {len(ratios)} cells", f"{better:.0%}", target, met)
    for k in counted:
        if scores.binary and k >= _SLOPE_SHOTS:
            slope = scores.value(OURS, k, "calibration_slope")
            target, met = f"{_SLOPES[0]} to {_SLOPES[1]}", _SLOPES[0] <= slope <= _SLOPES[1]
            yield Target(f"{scores.name}: calibration slope, k = {k}", f"{slope:.2f}", target, met)
    k, known = _CLOSED_SHOTS, BAYES_RULE in scores.methods and bool(scores.updates)
    if scores.name in _CLOSED_ON and known and k in scores.shots:
        closed = scores.gap_closed(OURS, k)
        claim, target = f"gap to the Bayes rule closed, k = {k}", f">= {_CLOSED:.0%}"
        yield Target(f"{scores.name}: {claim}", f"{closed:.0%}", target, closed >= _CLOSED)
    if not scores.binary and _DOSE_SHOTS in scores.shots:
        yield from _doses(scores)


def _doses(scores: CohortScores) -> Iterator[Target]:
    for metric, name in (("mae", "MAE over patients"), ("site mae", "MAE, mean of sites")):
        values = {o: scores.value(o, _DOSE_SHOTS, metric) for o in scores.comparators}
        best = min(values, key=lambda other: values[other])
        ours = scores.value(OURS, _DOSE_SHOTS, metric)
        claim = f"{scores.name}: {name}, k = {_DOSE_SHOTS} (best: {best})"
        yield Target(claim, f"{ours:.2f}", f"< {values[best]:.2f}", ours < values[best])


def _no_harm(scores: CohortScores) -> Iterator[Target]:
    """Ratio of losses to the usual model, with sites as sampling units.

    With few hospitals it is undecided: for four, the interval is about 1 +- 0.2.
    """
    usual = _NO_HARM[scores.name]
    for k in scores.shots if usual in scores.methods else []:
        ratio = scores.ratio_over_sites(OURS, usual, k)
        claim = f"{scores.name}: no harm: loss / {usual}, k = {k}, 95 % over sites"
        figure = f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
        met = True if ratio.high <= _HIGHEST else False if ratio.low > 1.0 else None
        yield Target(claim, figure, f"high <= {_HIGHEST}", met)
