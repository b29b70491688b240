"""Peers of the patients benchmark from other packages, as regressors over tasks.

All use the same encoded rows as the learners: the features known at a row, and for measured ones
the last value in an earlier row and its age.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import qr

from benchmarks.suite.arrays import Array, Index
from benchmarks.suite.peers import require
from ehrmeta.baselines import MixedProcessEffects, boosting
from ehrmeta.baselines.mixed_effects import designs, time_since_first
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.predictions import Prediction, Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.estimators.task_model import RowReader, TaskModel
from ehrmeta.nn.batch import TaskRows
from ehrmeta.nn.mixed_model import MixedModel, posterior, predict

_SHOTS = (0, 10)
_N_DRAWS, _MAX_QUERIES = 8, 10
_N_FOLDS = 5
_MAX_TREES, _TREES_OF_FEW = 500, 30
_MIN_TASKS_FOR_STOPPING = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class _PeerModel(TaskModel):
    """A peer as a `TaskModel`."""

    peer: Any

    def adapt(self, support: TaskRows) -> Any:
        return self.peer._adapt_tasks(support) if hasattr(self.peer, "_adapt_tasks") else None

    def predict(self, support: TaskRows, state: Any, query: TaskRows) -> Prediction:
        prediction: Prediction = self.peer._predict_tasks(support, state, query)
        return prediction


@dataclass(kw_only=True, eq=False, repr=False)
class HistoryLightGBM(TaskRegressor):
    """LightGBM on a row's features and a summary of the support.

    Parameters
    ----------
    residual : bool
        Predict the residuals of `MixedProcessEffects`, cross-fitted by task.
    num_leaves : int
    learning_rate : float
    max_tasks : int
        Maximum number of tasks of a cross-fitted `MixedProcessEffects`.
    random_state : int
    """

    residual: bool = False
    num_leaves: int = 8
    learning_rate: float = 0.05
    max_tasks: int = 1000
    random_state: int = 0

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        rng = np.random.default_rng(self.random_state)
        fold = rng.permutation(np.arange(rows.n_tasks) % _N_FOLDS)
        parts = []
        for held_out in range(_N_FOLDS if self.residual else 1):
            tasks = fold == held_out if self.residual else np.ones_like(fold, dtype=bool)
            process = None
            if self.residual:
                others = rng.permutation(np.flatnonzero(~tasks))[: self.max_tasks]
                process = _fit_process(rows.select(torch.from_numpy(others)), reader)
            numbers = np.flatnonzero(tasks)
            for _ in range(_N_DRAWS):
                part = rows.select(torch.from_numpy(numbers))
                support, query = boosting.draw_episodes(part, _SHOTS, _MAX_QUERIES, rng)
                design, expected, _ = _design(process, support, query)
                y = query.y.double().numpy()
                parts.append((design, y - expected, numbers[query.codes.numpy()]))
        x, y, tasks = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        self._boost(x, y, tasks, rows.n_tasks)
        self.process_ = _fit_process(rows, reader) if self.residual else None
        return _PeerModel(**vars(reader), peer=self)

    def _boost(self, x: Array, y: Array, tasks: Index, n_tasks: int) -> None:
        lightgbm = require("lightgbm")
        weight = 1.0 / np.bincount(tasks, minlength=n_tasks)[tasks]
        few = n_tasks < _MIN_TASKS_FOR_STOPPING
        rng = np.random.default_rng(self.random_state)
        held_out = (rng.permutation(n_tasks) < (0 if few else n_tasks // 10 + 1))[tasks]
        booster = lightgbm.LGBMRegressor(
            n_estimators=_TREES_OF_FEW if few else _MAX_TREES,
            num_leaves=self.num_leaves,
            learning_rate=self.learning_rate,
            min_child_samples=10 * _N_DRAWS,
            random_state=self.random_state,
            n_jobs=1,
            verbose=-1,
        )
        stopping: dict[str, Any] = {}
        if not few:
            stopping = {
                "eval_set": [(x[held_out], y[held_out])],
                "eval_sample_weight": [weight[held_out]],
                "callbacks": [lightgbm.early_stopping(20, verbose=False)],
            }
        with warnings.catch_warnings(action="ignore"):  # about names of columns and sets
            booster.fit(x[~held_out], y[~held_out], sample_weight=weight[~held_out], **stopping)
            scored = ~held_out if few else held_out
            residual = y[scored] - booster.predict(x[scored])
        self.booster_ = booster
        before, after = (np.average(r**2, weights=weight[scored]) for r in (y[scored], residual))
        self.spread_ = float(np.sqrt(min(after / before, 1.0)))  # factor of the process's sd

    def _adapt_tasks(self, support: TaskRows) -> Any:
        return None if self.process_ is None else self.process_.adapt(support)

    def _predict_tasks(self, support: TaskRows, state: Any, query: TaskRows) -> Predictive:
        design, expected, scale = _design(self.process_, support, query)
        with warnings.catch_warnings(action="ignore"):
            loc = expected + self.booster_.predict(design)
        return Predictive(loc, self.table_.outcome, None if scale is None else scale * self.spread_)


@dataclass(kw_only=True, eq=False, repr=False)
class GPBoost(TaskRegressor):
    """Trees as fixed effects, random intercept and slope.

    A new task is predicted by a second `GPModel` of the support's residuals, with the estimated
    variances.

    Parameters
    ----------
    as_of : bool
        Use the last measured values as inputs of the trees.
    num_leaves : int
    n_trees : int
    learning_rate : float
    random_state : int

    References
    ----------
    Sigrist (2022), arXiv:2004.02653.
    """

    as_of: bool = True
    num_leaves: int = 8
    n_trees: int = 100
    learning_rate: float = 0.05
    random_state: int = 0

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        gpboost = require("gpboost")
        self.mean_elapsed_ = float(time_since_first(rows, rows).mean())
        x, s = self._columns(rows, rows, reader.table)
        model = self._effects_of(rows.codes.numpy(), s)
        settings = {
            "num_leaves": self.num_leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": min(20, max(1, rows.n_rows // 20)),
            "verbose": -1,
            "num_threads": 1,
            "seed": self.random_state,
        }
        with warnings.catch_warnings(action="ignore"):
            data = gpboost.Dataset(x, rows.y.double().numpy())
            self.booster_ = gpboost.train(settings, data, self.n_trees, gp_model=model)
        self.variances_ = np.asarray(model.get_cov_pars(), dtype=np.float64).ravel()
        return _PeerModel(**vars(reader), peer=self)

    def _predict_tasks(self, support: TaskRows, state: Any, query: TaskRows) -> Predictive:
        x, s = self._columns(support, query, self.table_)
        fixed = self.booster_.predict(x, ignore_gp_model=True)
        noise, *effects = self.variances_
        if support.n_rows == 0:
            variance = noise + effects[0] + (effects[1] * s**2 if len(effects) > 1 else 0.0)
            return Predictive(fixed, self.table_.outcome, np.sqrt(variance * np.ones_like(fixed)))
        x_support, s_support = self._columns(support, support, self.table_)
        of_support = self.booster_.predict(x_support, ignore_gp_model=True)
        with warnings.catch_warnings(action="ignore"):
            predicted = self._effects_of(support.codes.numpy(), s_support).predict(
                y=support.y.double().numpy() - of_support,
                cov_pars=self.variances_,
                group_data_pred=query.codes.numpy(),
                group_rand_coef_data_pred=s if self.table_.timed else None,
                predict_var=True,
            )
        return Predictive(fixed + predicted["mu"], self.table_.outcome, np.sqrt(predicted["var"]))

    def _effects_of(self, tasks: Index, s: Array) -> Any:
        slope = {"group_rand_coef_data": s, "ind_effect_group_rand_coef": [1]}
        return require("gpboost").GPModel(
            group_data=tasks,
            likelihood="gaussian",
            num_parallel_threads=1,
            **(slope if s.any() else {}),
        )

    def _columns(
        self, support: TaskRows, rows: TaskRows, table: TableEncoder
    ) -> tuple[Array, Array]:
        """Inputs of the trees, and the input of the random slope."""
        x, z = designs(support, rows, table, mean_elapsed=self.mean_elapsed_, random_slope=True)
        s = z[:, 1] if table.timed else np.zeros(rows.n_rows)
        columns = [x[:, 1:], *([boosting.carried_forward(support, rows)] if self.as_of else [])]
        return np.column_stack([*columns, s]), s


class StatsmodelsMixedLM(TaskRegressor):
    """Mixed model with random slope of statsmodels; new tasks are predicted by our BLUP."""

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        mixed_lm = require("statsmodels.api").MixedLM
        self.mean_elapsed_ = float(time_since_first(rows, rows).mean())
        x, z = self._designs(rows, rows, reader.table)
        _, upper, pivot = qr(x, mode="economic", pivoting=True)
        diagonal = np.abs(np.diag(upper))
        self.columns_ = np.sort(pivot[: int(np.sum(diagonal > 1e-5 * diagonal[0]))])
        x = x[:, self.columns_]
        with warnings.catch_warnings(action="ignore"):  # about convergence
            fit = mixed_lm(rows.y.double().numpy(), x, rows.codes.numpy(), exog_re=z).fit()
        self.mixed_model_ = MixedModel(
            beta=np.asarray(fit.fe_params),
            beta_cov=np.asarray(fit.cov_params())[: len(self.columns_), : len(self.columns_)],
            G=np.asarray(fit.cov_re),
            noise_var=float(fit.scale),
            log_likelihood=float(fit.llf),
            n_tasks=rows.n_tasks,
        )
        return _PeerModel(**vars(reader), peer=self)

    def _adapt_tasks(self, support: TaskRows) -> tuple[Array, Array]:
        x, z = self._designs(support, support, self.table_)
        y, starts = support.y.double().numpy(), support.starts.numpy()
        return posterior(self.mixed_model_, x[:, self.columns_], z, y, starts)

    def _predict_tasks(
        self, support: TaskRows, state: tuple[Array, Array], query: TaskRows
    ) -> Predictive:
        x, z = self._designs(support, query, self.table_)
        codes = query.codes.numpy()
        mean, variance = predict(self.mixed_model_, x[:, self.columns_], z, codes, *state)
        return Predictive(mean, self.table_.outcome, np.sqrt(variance))

    def _designs(
        self, support: TaskRows, rows: TaskRows, table: TableEncoder
    ) -> tuple[Array, Array]:
        return designs(support, rows, table, mean_elapsed=self.mean_elapsed_, random_slope=True)


def _fit_process(rows: TaskRows, reader: RowReader) -> TaskModel:
    return MixedProcessEffects().fit_rows(rows, reader)


def _design(
    process: TaskModel | None, support: TaskRows, query: TaskRows
) -> tuple[Array, Array, Array | None]:
    """Inputs of the trees, and the process's prediction and its sd."""
    design = boosting.history_design(support, boosting.outcome_history(support), query)
    if process is None:
        return design, np.zeros(query.n_rows), None
    predicted: Any = process.predict(support, process.adapt(support), query)
    scale = np.asarray(predicted.scale)
    return np.column_stack([design, predicted.loc, scale]), predicted.loc, scale
