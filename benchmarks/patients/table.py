"""Tables, summary and records of the patients benchmark."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.patients.cells import METHODS, MIXED_MODEL, OURS, POPULATION, TunedPlan
from benchmarks.patients.data import unit_of
from benchmarks.suite.arrays import Array
from benchmarks.suite.fitting import Folds
from benchmarks.suite.record import Record, number, text_table
from benchmarks.suite.task_scores import METRICS, calibration, metric
from ehrmeta.evaluation import Difference, bootstrap_counts
from ehrmeta.evaluation.metrics import percentile_limits

Results = Mapping[str, Mapping[str, Folds]]

SUITE = "patients"
MANY_TASKS, COVERED_TASKS = 300, 1000
_DETAIL_SHOTS = 3
_N_BOOTSTRAP = 1000


@dataclass(frozen=True, eq=False)
class DataSetScores:
    """Results on one data set by method, with paired intervals over its patients."""

    name: str
    results: Mapping[str, Folds]

    @property
    def methods(self) -> list[str]:
        """Methods with scores."""
        return [name for name, result in self.results.items() if result.scores]

    @property
    def ours(self) -> list[str]:
        """Our methods with scores."""
        return [name for name in self.methods if name in OURS]

    @property
    def peers(self) -> list[str]:
        """Peers with scores."""
        return [name for name in self.methods if name not in OURS]

    @property
    def shots(self) -> list[int]:
        """All k with scores."""
        return sorted({k for name in self.methods for k in self.results[name].scores})

    def value(self, method: str, k: int, name: str = "rmse_macro") -> float:
        """A metric; NaN without a predictive distribution."""
        return metric(self.results[method].scores[k], name).value()

    def n_tasks(self, k: int) -> int:
        """Number of patients with a query row after k rows."""
        return len(self.results[self.methods[0]].scores[k]["rows"])

    @cached_property
    def samples(self) -> dict[tuple[str, int], Array]:
        """rmse_macro of every method and k in the same resamples of the patients."""
        samples = {}
        for k in self.shots:
            counts = bootstrap_counts(self.n_tasks(k), _N_BOOTSTRAP, 0)
            for method in self.methods:
                loss = metric(self.results[method].scores[k], "rmse_macro")
                samples[method, k] = loss.resampled(counts)
        return samples

    def difference(self, method: str, other: str, k: int) -> Difference:
        """Difference of rmse_macro between two methods, with paired 95 % interval."""
        limits = percentile_limits(self.samples[method, k] - self.samples[other, k], 0.95)
        return Difference(self.value(method, k) - self.value(other, k), *limits)


def patients_tables(results: Results) -> Iterator[str]:
    """Two tables per data set: errors at every k, and scores of the distributions at one k."""
    for name, methods in results.items():
        scores = DataSetScores(name, methods)
        if scores.methods:
            yield _error_table(scores)
            yield _detail_table(scores)


def patients_notes(plan: TunedPlan) -> str:
    """Notes to the tables: folds, choice of settings, and subsampled methods."""
    folds = f"{plan.folds_run} of {plan.n_folds} folds by patient"
    lines = [f"{folds}; models adapt to the first k rows and predict all later ones."]
    if plan.max_tasks is not None:
        lines.append(f"At most {plan.max_tasks:,} patients, {plan.max_steps} training steps.")
    if plan.tuned:
        largest = max(len(method.grid) for method in METHODS.values())
        lines.append(
            f"Peers use the best of up to {largest} settings in each fold, on a quarter of at most "
            f"{plan.tuning_tasks:,}\ntraining patients ({plan.tuning_steps} training steps per "
            "trial). Ours run with default settings."
        )
    lines += [
        f"'{name}' is fitted to at most {method.max_tasks:,} training patients."
        for name, method in METHODS.items()
        if method.max_tasks is not None
    ]
    lines.append("Log likelihood is that of the rounding bin if the data set has a resolution.")
    return "\n".join(lines)


def patients_summary(results: Results) -> str:
    """Comparison of our methods with the peers over all cells (data set, k)."""
    sets = [DataSetScores(name, methods) for name, methods in results.items()]
    sets = [scores for scores in sets if scores.ours and scores.peers]
    if not sets:
        return "no summary: it needs one of our methods and a peer"
    best = _best_over_all(sets)
    lines = [f"Ours: {' | '.join(OURS)}", f"Best peer over all cells: {best}", ""]
    lines += [_ratio_table(sets, ours) for ours in OURS if all(ours in s.ours for s in sets)]
    lines += [""]
    for ours in OURS:
        if all(ours in scores.ours for scores in sets):
            lines += [*_verdict(sets, ours, best), ""]
    return "\n".join(lines).rstrip()


def patients_records(results: Results) -> list[Record]:
    """All metrics of all methods and k, and the differences of our methods to the peers."""
    records = []
    for name, methods in results.items():
        scores = DataSetScores(name, methods)
        for method, result in methods.items():
            if not result.scores:
                records.append(Record(SUITE, name, method, "rmse_macro", None, note=result.note))
            records += _records_of(scores, method) if result.scores else []
        for ours, peer, k in product(scores.ours, scores.peers, scores.shots):
            gap, n_tasks = scores.difference(ours, peer, k), scores.n_tasks(k)
            about = (SUITE, name, ours, f"rmse_macro - {peer}")
            records.append(Record(*about, gap[0], k, *gap[1:], n_tasks))
    return records


def _records_of(scores: DataSetScores, method: str) -> Iterator[Record]:
    result = scores.results[method]
    note = "; ".join(dict.fromkeys(filter(None, result.settings)))
    for k, by_task in result.scores.items():
        limits = percentile_limits(scores.samples[method, k], 0.95)
        values = {name: scores.value(method, k, name) for name in METRICS}
        values["calibration_error"] = calibration(by_task)
        about: dict[str, Any] = {"n_tasks": scores.n_tasks(k), "seconds": result.seconds}
        record = partial(Record, SUITE, scores.name, method, k=k, note=note, **about)
        for name, value in values.items():
            low, high = limits if name == "rmse_macro" else (None, None)
            if np.isfinite(value):
                yield record(metric=name, value=value, low=low, high=high)


def _error_table(scores: DataSetScores) -> str:
    shots = scores.shots
    reference = scores.ours[0] if scores.ours else None
    rows = []
    for method, result in scores.results.items():
        if not result.scores:
            rows.append([method, *[result.note] + [""] * (len(shots) - 1), ""])
            continue
        cells = []
        for k in shots:
            mark = " "
            if reference is not None and method != reference:
                gap = scores.difference(method, reference, k)
                mark = "+" if gap.low > 0 else "-" if gap.high < 0 else " "
            cells.append(number(scores.value(method, k), 4) + mark)
        rows.append([method, *cells, number(result.seconds, 2)])
    unit = unit_of(scores.name)
    title = f"{scores.name}: rmse_macro [{unit}] at k rows of each patient"
    heading = ["", *(f"k = {k} " for k in shots), "fit s"]
    counts = ["test patients", *(f"{scores.n_tasks(k):,} " for k in shots), ""]
    note = f"+ worse, - better than {reference} (paired 95 %)\n" if reference else ""
    return f"{title}\n{note}{text_table(heading, [counts, *rows])}\n"


def _detail_table(scores: DataSetScores) -> str:
    k = max(shot for shot in scores.shots if shot <= _DETAIL_SHOTS)
    columns = {"mae": ("mae", 4), "task rmse": ("rmse_task", 4), "pooled": ("rmse_pooled", 4)}
    columns |= {"crps": ("crps", 4), "log lik": ("log_likelihood", 4), "cover 90": ("coverage", 3)}
    columns |= {"width": ("width", 3)}
    rows = []
    for method in scores.methods:
        values = [(scores.value(method, k, name), digits) for name, digits in columns.values()]
        values.append((calibration(scores.results[method].scores[k]), 2))
        rows.append([method, *(number(value, digits) for value, digits in values)])
    heading = [f"at k = {k}", *columns, "calib"]
    return f"{text_table(heading, rows)}\n"


def _ratio_table(sets: Sequence[DataSetScores], ours: str) -> str:
    """Ratio of our error to that of the best peer."""
    shots = sorted({k for scores in sets for k in scores.shots})
    rows = []
    for scores in sets:
        cells = []
        for k in shots:
            if k not in scores.shots:
                cells.append("")
                continue
            least = min(scores.value(peer, k) for peer in scores.peers)
            cells.append(f"{scores.value(ours, k) / least:.3f}")
        rows.append([scores.name, *cells])
    heading = [ours, *(f"k = {k}" for k in shots)]
    return f"ratio of rmse_macro to the best peer of each cell\n{text_table(heading, rows)}\n"


def _verdict(sets: Sequence[DataSetScores], ours: str, best: str) -> list[str]:
    cells = [(scores, k) for scores in sets for k in scores.shots]
    within = sum(
        scores.value(ours, k) <= 1.01 * min(scores.value(peer, k) for peer in scores.peers)
        for scores, k in cells
    )
    lines = [
        f"{ours}, {len(cells)} cells",
        f"  at most 1.01 times the best peer of the cell: {within} of {len(cells)}",
    ]
    large = [(s, k) for s, k in cells if s.n_tasks(k) >= MANY_TASKS and MIXED_MODEL in s.peers]
    if large:
        below = sum(scores.difference(ours, MIXED_MODEL, k).high < 0 for scores, k in large)
        lines.append(
            f"  better than '{MIXED_MODEL}', interval below 0: {below} of {len(large)} cells "
            f"with {MANY_TASKS} patients or more ({below / len(large):.0%})"
        )
    ratios = [scores.value(ours, k) / scores.value(best, k) for scores, k in cells]
    lines.append(f"  mean ratio to '{best}': {np.mean(ratios):.4f}")
    worse = [
        f"    {scores.name}, k = {k}: {peer}, by {gap.difference:.3g} "
        f"[{gap.low:.2g}, {gap.high:.2g}]"
        for scores, k in cells
        for peer in scores.peers
        if (gap := scores.difference(ours, peer, k)).low > 0
    ]
    lines += [f"  significantly worse than a peer: {len(worse)} times", *worse]
    lines += [*_distribution_lines(cells, ours), *_coverage_lines(cells, ours)]
    starts = [
        scores.value(ours, 0) / scores.value(POPULATION, 0)
        for scores in sets
        if POPULATION in scores.peers and 0 in scores.shots
    ]
    if starts:
        lines.append(f"  k = 0 over '{POPULATION}': {min(starts):.3f} to {max(starts):.3f}")
    return lines


def _distribution_lines(cells: Sequence[tuple[DataSetScores, int]], ours: str) -> Iterator[str]:
    """Number of cells in which CRPS and likelihood are better than those of all peers."""
    for name, sign in (("crps", 1.0), ("log_likelihood", -1.0)):
        wins, counted = 0, 0
        for scores, k in cells:
            others = [sign * scores.value(peer, k, name) for peer in scores.peers]
            others = [value for value in others if np.isfinite(value)]
            if others:
                counted += 1
                wins += sign * scores.value(ours, k, name) <= min(others)
        yield f"  best {name.replace('_', ' ')} of all methods: {wins} of {counted} cells"


def _coverage_lines(cells: Sequence[tuple[DataSetScores, int]], ours: str) -> Iterator[str]:
    """Coverage of 90 % intervals; in small cells whether its 95 % interval contains 90 %."""
    large = [scores.value(ours, k, "coverage") for scores, k in cells if _is_large(scores, k)]
    small = [(scores, k) for scores, k in cells if not _is_large(scores, k)]
    if large:
        yield (
            f"  coverage of the 90 % interval, {COVERED_TASKS:,} patients or more: "
            f"{min(large):.1%} to {max(large):.1%}"
        )
    if small:
        n_nominal = 0
        for scores, k in small:
            coverage = metric(scores.results[ours].scores[k], "coverage")
            samples = coverage.resampled(bootstrap_counts(len(coverage.loss), _N_BOOTSTRAP, 0))
            low, high = percentile_limits(samples, 0.95)
            n_nominal += low <= 0.9 <= high
        yield f"  otherwise its 95 % interval contains 90 %: {n_nominal} of {len(small)} cells"


def _is_large(scores: DataSetScores, k: int) -> bool:
    return scores.n_tasks(k) >= COVERED_TASKS


def _best_over_all(sets: Sequence[DataSetScores]) -> str:
    """Peer with the smallest geometric mean error over cells, of those in every data set."""
    common = [peer for peer in sets[0].peers if all(peer in scores.peers for scores in sets)]

    def mean_log(peer: str) -> float:
        errors = [scores.value(peer, k) for scores in sets for k in scores.shots]
        return float(np.mean(np.log(errors)))

    return min(common, key=mean_log)
